"""Arrays as the SIMPLON API spells them in JSON, and the values in the bodies of puts.

Bytes in, values out; knows no parameter by name.
"""

import base64
import binascii
import json
import re
import threading
import weakref
from typing import Any
from urllib.parse import parse_qs

import numpy as np

from sim_dcu.parameters import RefusedError

# Base64 has no such character.
PLACEHOLDER = "@"
# A flat field and a mask, of each threshold.
_MOST_KEPT = 4
_FORM_FIELD = b"json_payload="
# In bytes: undoing a form's escapes takes long.
_LARGEST_FORM = 4 * 2**20
_DTYPE = re.compile(r"[<>|=]?([iu][1248]|f[48])")
# A body this large, in bytes, is an array in base64: it has few separators, where millions of small
# values would take long to read.
_SMALL_BODY = 2**20
_MOST_SEPARATORS = 10_000


class _Kept:
    """The base64 of the arrays that were asked for last, as long as they are in use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: list[tuple[weakref.ref[np.ndarray], bytes]] = []

    def get(self, array: np.ndarray) -> bytes:
        # One at a time: encoding holds Python's own lock anyway.
        with self._lock:
            self._entries = [entry for entry in self._entries if entry[0]() is not None]
            for reference, data in self._entries:
                if reference() is array:
                    return data
            little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
            data = base64.b64encode(little.tobytes())
            self._entries = [*self._entries[-(_MOST_KEPT - 1) :], (weakref.ref(array), data)]
            return data


_kept = _Kept()


def form(array: np.ndarray) -> dict[str, Any]:
    """Return the JSON form of `array`, with `PLACEHOLDER` where its data belongs.

    Parameters
    ----------
    array : numpy.ndarray of float32 or uint32, shape (y, x)
        A flatfield or a pixel mask.

    Returns
    -------
    dict
        `shape` is (height, width) as real replies have it, not (width, height) as the API
        reference prints it.
    """
    return {
        "__darray__": [1, 0, 0],
        "type": array.dtype.newbyteorder("<").str,
        "shape": list(array.shape),
        "filters": ["base64"],
        "data": PLACEHOLDER,
    }


def base64_of(array: np.ndarray) -> bytes:
    """Return the base64 of the raw bytes in C order, little-endian.

    Kept for the arrays asked for last: the mask of a 16M is 97 MB, and asked for by many clients.
    `array` must never be changed in place.
    """
    return _kept.get(array)


def decoded(form: dict[str, Any]) -> np.ndarray:
    """Return the array of a JSON form, a copy of its own.

    Raises
    ------
    RefusedError
        Where the form is not one of a 2-D array of numbers in base64.
    """
    name, shape = form.get("type"), form.get("shape")
    if not isinstance(name, str) or not _DTYPE.fullmatch(name):
        raise RefusedError("array type is not one of numbers, such as <u4")
    dtype = np.dtype(name)
    if not (
        isinstance(shape, list)
        and len(shape) == 2
        and all(isinstance(length, int) and 0 < length < 2**16 for length in shape)
    ):
        raise RefusedError("array shape is not [height, width]")
    if form.get("filters") != ["base64"]:
        raise RefusedError('array filters are not ["base64"]')
    data = form.get("data")
    if not isinstance(data, str):
        raise RefusedError("array data is not a string")
    try:
        raw = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RefusedError("array data is not base64") from error
    size = shape[0] * shape[1] * dtype.itemsize
    if len(raw) != size:
        raise RefusedError(f"array data has {len(raw)} bytes, {size} expected")
    return np.frombuffer(raw, dtype=dtype).reshape(shape).copy()


def put_value(body: bytes) -> Any:
    """Return the value that the body of a put holds.

    `{"value": X}`, other keys ignored; the same as the form field `json_payload` of the API
    reference's example; X an array form or any other JSON.

    Raises
    ------
    RefusedError
        Where there is no such value.
    """
    return _value_in(_content(body))


def whole_values(body: bytes) -> dict[str, Any]:
    """Return the values by key that the body of a put of a whole config holds.

    `{"key": {"value": X}, ...}` as a GET answers it, or `{"key": X, ...}`.

    Raises
    ------
    RefusedError
        Where that is not what it holds.
    """
    content = _content(body)
    if not isinstance(content, dict):
        raise RefusedError("body is not an object of values by key")
    values = {}
    for key, entry in content.items():
        value = entry.get("value") if isinstance(entry, dict) and "value" in entry else entry
        if value is None:
            raise RefusedError(f"{key}: no value")
        values[key] = _plain(value)
    return values


def _value_in(content: Any) -> Any:
    if not isinstance(content, dict) or content.get("value") is None:
        raise RefusedError('body is not {"value": ...}')
    return _plain(content["value"])


def _plain(value: Any) -> Any:
    return decoded(value) if isinstance(value, dict) and "__darray__" in value else value


def _content(body: bytes) -> Any:
    try:
        if body.startswith(_FORM_FIELD):
            if len(body) > _LARGEST_FORM:
                raise RefusedError(f"a form of {len(body)} bytes; send the JSON itself")
            fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=10)
            body = fields["json_payload"][0].encode()
        if len(body) > _SMALL_BODY and sum(map(body.count, b"[{,")) > _MOST_SEPARATORS:
            raise RefusedError("body of too many values")
        return json.loads(body)
    except RecursionError as error:
        raise RefusedError("body is nested too deeply") from error
    except ValueError as error:  # not JSON, not UTF-8, an integer of thousands of digits
        raise RefusedError('body is not JSON with a "value"') from error


def argument_value(body: bytes) -> Any:
    """Return the value in a command's body, None where there is none.

    Raises
    ------
    RefusedError
        Where the body is neither empty nor an object.
    """
    content = _content(body) if body.strip() else {}
    return None if content == {} else _value_in(content)
