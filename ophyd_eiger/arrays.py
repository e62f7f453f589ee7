"""Flat fields and pixel masks as bytes on the wire, and back. Pure: no requests.

A DCU has three forms for an array: JSON with base64, TIFF and HDF5. For the mask of a 16M (72.4 MB
of pixels) they take 96.5, 72.4 and 72.4 MB; TIFF is the shortest, by the 5 kB of an HDF5 file's
headers, and the vendor's own client puts masks so. So TIFF is asked for, and JSON is what is left
where a DCU has no TIFF.

Source: SIMPLON API Reference V1.3, section 3.1.1.1 (the forms), 1.6 (the JSON).
"""

import base64
import binascii
import json
from typing import Any

import numpy as np

from ophyd_eiger import tiff

TIFF = "application/tiff"
JSON = "application/json"


def encode(array: np.ndarray, form: str) -> bytes:
    """Return the body of a PUT.

    Parameters
    ----------
    array : numpy.ndarray of float32 or uint32, shape (y, x)
        A flat field or a pixel mask.
    form : str
        `TIFF` or `JSON`.
    """
    if form == TIFF:
        return tiff.encode(array)
    return json.dumps({"value": _to_darray(array)}).encode()


def decode(body: bytes | bytearray | memoryview) -> tuple[np.ndarray, str]:
    """Return the array in a reply, and the form that the DCU chose for it.

    Returns
    -------
    array : numpy.ndarray, shape (y, x)
        In the memory of the reply where that is possible, so not to be written to.
    form : str
        `TIFF` or `JSON`.

    Raises
    ------
    ValueError
        If the body is neither, or is damaged.
    """
    view = memoryview(body)
    if bytes(view[:2]) in (b"II", b"MM"):
        return tiff.decode(view).pixels, TIFF
    try:
        reply = json.loads(bytes(view))
    except ValueError as error:
        raise ValueError(
            f"{len(view)} bytes that begin with {bytes(view[:8])!r} are neither TIFF nor JSON"
        ) from error
    return from_darray(reply.get("value") if isinstance(reply, dict) else reply), JSON


def from_darray(form: Any) -> np.ndarray:
    """Return the array of the JSON form `{"__darray__": ..., "type": "<u4", "shape": [y, x], ...}`.

    Raises
    ------
    ValueError
        If it is no such form, or one whose parts do not fit together.
    """
    if not isinstance(form, dict) or form.get("filters") != ["base64"]:
        raise ValueError(f"{str(form)[:60]!r} is no array in base64")
    try:
        dtype = np.dtype(form["type"])
        raw = base64.b64decode(form["data"], validate=True)
        return np.frombuffer(raw, dtype).reshape(form["shape"])
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        parts = {key: value for key, value in form.items() if key != "data"}
        raise ValueError(f"an array of {parts} cannot be read: {error}") from error


def _to_darray(array: np.ndarray) -> dict[str, Any]:
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return {
        "__darray__": [1, 0, 0],
        "type": little.dtype.str,
        "shape": list(array.shape),
        "filters": ["base64"],
        "data": base64.b64encode(little.tobytes()).decode(),
    }
