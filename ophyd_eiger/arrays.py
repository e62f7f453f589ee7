"""Flat fields and pixel masks as bytes on the wire, and back. Pure: no requests.

A DCU has three forms for an array: JSON with base64, TIFF and HDF5. For the mask of a 16M (72.4 MB
of pixels) they take 96.5, 72.4 and 72.4 MB; TIFF is the shortest, by the 5 kB of an HDF5 file's
headers, and the vendor's own client puts masks so. So TIFF is asked for, and JSON is what is left
where a DCU has no TIFF.

Source: SIMPLON API Reference V1.3, section 3.1.1.1 (the forms), 1.6 (the JSON); TIFF 6.0 (Adobe,
1992), section 8.
"""

import base64
import binascii
import json
import struct
from typing import Any

import numpy as np

TIFF = "application/tiff"
JSON = "application/json"

WIDTH, HEIGHT = 256, 257
BITS_PER_SAMPLE = 258
COMPRESSION = 259
PHOTOMETRIC = 262
STRIP_OFFSETS = 273
SAMPLES_PER_PIXEL = 277
ROWS_PER_STRIP = 278
STRIP_BYTES = 279
SAMPLE_FORMAT = 339

_LITTLE_ENDIAN = b"II*\0"
_HEADER_BYTES, _ENTRY_BYTES = 8, 12
_SHORT, _LONG = 3, 4
_LETTERS = {_SHORT: "H", _LONG: "I"}
_KINDS = {"u": 1, "i": 2, "f": 3}


def encode(array: np.ndarray, form: str) -> bytes:
    """Return the body of a PUT.

    Parameters
    ----------
    array : numpy.ndarray of float32 or uint32, shape (y, x)
        A flat field or a pixel mask.
    form : str
        `TIFF` or `JSON`.
    """
    return _to_tiff(array) if form == TIFF else json.dumps({"value": _to_darray(array)}).encode()


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
    if bytes(view[:4]) == _LITTLE_ENDIAN:
        return _from_tiff(view), TIFF
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
    return {
        "__darray__": [1, 0, 0],
        "type": array.dtype.newbyteorder("<").str,
        "shape": list(array.shape),
        "filters": ["base64"],
        "data": base64.b64encode(_little_endian(array).tobytes()).decode(),
    }


def _little_endian(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<"))


def _to_tiff(array: np.ndarray) -> bytes:
    """Return one directory, one strip, no compression: the layout of the detector's own TIFF."""
    height, width = array.shape
    pixels = _little_endian(array).tobytes()
    fields = {
        WIDTH: (_LONG, width),
        HEIGHT: (_LONG, height),
        BITS_PER_SAMPLE: (_SHORT, 8 * array.dtype.itemsize),
        COMPRESSION: (_SHORT, 1),
        PHOTOMETRIC: (_SHORT, 1),
        STRIP_OFFSETS: (_LONG, 0),
        SAMPLES_PER_PIXEL: (_SHORT, 1),
        ROWS_PER_STRIP: (_LONG, height),
        STRIP_BYTES: (_LONG, len(pixels)),
        SAMPLE_FORMAT: (_SHORT, _KINDS[array.dtype.kind]),
    }
    start = _HEADER_BYTES + 2 + _ENTRY_BYTES * len(fields) + 4
    fields[STRIP_OFFSETS] = (_LONG, start)
    entries = [
        # The value stands in the entry's last four bytes, its low bytes first.
        struct.pack("<HHII", tag, kind, 1, value)
        for tag, (kind, value) in fields.items()
    ]
    head = _LITTLE_ENDIAN + struct.pack("<IH", _HEADER_BYTES, len(fields))
    return b"".join((head, *entries, bytes(4), pixels))


def _from_tiff(data: memoryview) -> np.ndarray:
    try:
        fields = _fields(data, struct.unpack_from("<I", data, 4)[0])
        (width,), (height,), (bits,) = (fields[tag] for tag in (WIDTH, HEIGHT, BITS_PER_SAMPLE))
        (kind,) = fields.get(SAMPLE_FORMAT, (1,))
        letter = {number: letter for letter, number in _KINDS.items()}[kind]
        dtype = np.dtype(f"<{letter}{bits // 8}")
        strips = list(zip(fields[STRIP_OFFSETS], fields[STRIP_BYTES], strict=True))
    except (struct.error, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"TIFF of {len(data)} bytes without the fields of an image") from error
    packed = (fields.get(COMPRESSION, (1,)), fields.get(SAMPLES_PER_PIXEL, (1,))) != ((1,), (1,))
    found = sum(len(data[offset : offset + size]) for offset, size in strips)
    if packed or found != width * height * dtype.itemsize:
        raise ValueError(
            f"TIFF of {width} x {height} pixels, {dtype.str}, with {found} bytes of them"
            f"{', packed' if packed else ''}"
        )
    offset, size = strips[0]
    pixels = (
        data[offset : offset + size]
        if len(strips) == 1
        else b"".join(data[offset : offset + size] for offset, size in strips)
    )
    return np.frombuffer(pixels, dtype).reshape(height, width)


def _fields(data: memoryview, start: int) -> dict[int, tuple[int, ...]]:
    """Return the whole numbers in a directory by tag."""
    fields = {}
    (count,) = struct.unpack_from("<H", data, start)
    for place in range(start + 2, start + 2 + _ENTRY_BYTES * count, _ENTRY_BYTES):
        tag, kind, length = struct.unpack_from("<HHI", data, place)
        if kind not in _LETTERS or length > len(data):
            continue
        layout = f"<{length}{_LETTERS[kind]}"
        at = place + 8
        if struct.calcsize(layout) > 4:
            (at,) = struct.unpack_from("<I", data, at)
        fields[tag] = struct.unpack_from(layout, data, at)
    return fields
