"""The TIFF of a DCU: its monitor's images, its pixel masks and its flat fields.

One layout, the detector's own: little-endian, one directory, one strip, no compression, unsigned
pixels of 8, 16 or 32 bits or floats of 32. An EIGER2 adds a directory of its own. Anything else is
refused rather than guessed at. Knows bytes and arrays; nothing of HTTP.

Source: TIFF 6.0 (Adobe, 1992); SIMPLON API Reference 1.8, table 5.10, for the private directory.
"""

import struct
from dataclasses import dataclass, field

import numpy as np

from ophyd_eiger.errors import TiffError

WIDTH, HEIGHT = 256, 257
BITS_PER_SAMPLE = 258
COMPRESSION = 259
PHOTOMETRIC = 262
STRIP_OFFSETS = 273
SAMPLES_PER_PIXEL = 277
ROWS_PER_STRIP = 278
STRIP_BYTES = 279
SAMPLE_FORMAT = 339
PRIVATE_DIRECTORY = 51192

_HEADER = b"II*\0"
_ENTRY_BYTES = 12
# Behind the ten fields that are written, and the end of their directory.
_PIXELS_START = 136
# Hardware writes some fifteen; a damaged count must not make a long loop.
_MOST_ENTRIES = 200
_ASCII = 2
# The struct letter of each numeric type of a field.
_LETTERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q"}
_SHORT, _LONG = 3, 4
_UNSIGNED, _FLOAT = 1, 3
# By sample format and bits.
_DTYPES: dict[tuple, str] = {
    (_UNSIGNED, 8): "<u1",
    (_UNSIGNED, 16): "<u2",
    (_UNSIGNED, 32): "<u4",
    (_FLOAT, 32): "<f4",
}

Fields = dict[int, int | float | str]


@dataclass(frozen=True)
class DetectorTiff:
    """What a TIFF of the DCU holds.

    Attributes
    ----------
    pixels : numpy.ndarray of uint8, uint16, uint32 or float32, shape (y, x)
        Counts, the bits of a mask, or factors. They are in the memory of the bytes that were
        decoded.
    private : dict
        The fields of the vendor's own directory by tag number, as they are written; empty on an
        EIGER1. What each number means is in no public document.
    """

    pixels: np.ndarray
    private: Fields = field(default_factory=dict)


def decode(body: bytes | bytearray | memoryview) -> DetectorTiff:
    """Return what a TIFF of the DCU holds, without copying its pixels.

    Raises
    ------
    TiffError
        If it is damaged, cut short, or not in the detector's layout.
    """
    data = memoryview(body).cast("B")
    if bytes(data[:4]) != _HEADER:
        raise TiffError(f"{len(data)} bytes that begin with {bytes(data[:4])!r} are no TIFF")
    try:
        fields = _fields(data, struct.unpack_from("<I", data, 4)[0])
        pixels = _pixels(data, fields)
    except (struct.error, IndexError) as error:
        raise TiffError(f"TIFF of {len(data)} bytes ends within its directory") from error
    return DetectorTiff(pixels, _private(data, fields))


def encode(array: np.ndarray) -> bytes:
    """Return an array as a TIFF in the detector's layout.

    Parameters
    ----------
    array : numpy.ndarray of uint8, uint16, uint32 or float32, shape (y, x)
        Whose bytes are copied.
    """
    height, width = array.shape
    pixels = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    sample_format = _FLOAT if array.dtype.kind == "f" else _UNSIGNED
    fields = (
        (WIDTH, _LONG, width),
        (HEIGHT, _LONG, height),
        (BITS_PER_SAMPLE, _SHORT, 8 * array.dtype.itemsize),
        (COMPRESSION, _SHORT, 1),
        (PHOTOMETRIC, _SHORT, 1),
        (STRIP_OFFSETS, _LONG, _PIXELS_START),
        (SAMPLES_PER_PIXEL, _SHORT, 1),
        (ROWS_PER_STRIP, _LONG, height),
        (STRIP_BYTES, _LONG, len(pixels)),
        (SAMPLE_FORMAT, _SHORT, sample_format),
    )
    # A value stands in the last four bytes of its entry, the lowest byte first.
    directory = [struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in fields]
    start = struct.pack("<IH", len(_HEADER) + 4, len(fields))
    head = b"".join((_HEADER, start, *directory)).ljust(_PIXELS_START, b"\0")
    return head + pixels


def _pixels(data: memoryview, fields: Fields) -> np.ndarray:
    width, height = _whole(fields, WIDTH), _whole(fields, HEIGHT)
    bits = _whole(fields, BITS_PER_SAMPLE)
    found = (
        bits,
        fields.get(COMPRESSION, 1),
        fields.get(SAMPLES_PER_PIXEL, 1),
        fields.get(SAMPLE_FORMAT, _UNSIGNED),
    )
    dtype = _DTYPES.get((found[3], bits))
    if dtype is None or found[1:3] != (1, 1):
        raise TiffError(
            "TIFF is not one of uncompressed unsigned pixels of 8, 16 or 32 bits, or floats of 32: "
            f"(bits, compression, samples a pixel, sample format) are {found}"
        )
    size = width * height * bits // 8
    start = _whole(fields, STRIP_OFFSETS)
    stated = fields.get(STRIP_BYTES, size)
    if not size or stated != size:
        raise TiffError(f"TIFF of {width} x {height} pixels has a strip of {stated} bytes")
    if start + size > len(data):
        raise TiffError(
            f"TIFF of {width} x {height} pixels is cut short: {len(data)} of {start + size} bytes"
        )
    flat = np.frombuffer(data, dtype, count=width * height, offset=start)
    return flat.reshape(height, width)


def _whole(fields: Fields, tag: int) -> int:
    value = fields.get(tag)
    if not isinstance(value, int):
        raise TiffError(f"TIFF does not have one whole number in field {tag}: {value!r}")
    return value


def _fields(data: memoryview, start: int) -> Fields:
    """Return the fields of a directory that are a single number or a text."""
    (count,) = struct.unpack_from("<H", data, start)
    if count > _MOST_ENTRIES:
        raise TiffError(f"TIFF has a directory of {count} fields")
    fields: Fields = {}
    for place in range(start + 2, start + 2 + _ENTRY_BYTES * count, _ENTRY_BYTES):
        tag, kind, length = struct.unpack_from("<HHI", data, place)
        if kind == _ASCII:
            fields[tag] = _text(data, place + 8, length)
        elif kind in _LETTERS and length == 1:
            letter = f"<{_LETTERS[kind]}"
            at = _where(data, place + 8, struct.calcsize(letter))
            (fields[tag],) = struct.unpack_from(letter, data, at)
    return fields


def _text(data: memoryview, place: int, length: int) -> str:
    at = _where(data, place, length)
    return bytes(data[at : at + length]).split(b"\0")[0].decode("ascii", "replace")


def _where(data: memoryview, place: int, size: int) -> int:
    """Return where a value lies: in the entry itself, or where the entry says."""
    return place if size <= 4 else struct.unpack_from("<I", data, place)[0]


def _private(data: memoryview, fields: Fields) -> Fields:
    start = fields.get(PRIVATE_DIRECTORY)
    if not isinstance(start, int):
        return {}
    try:
        return _fields(data, start)
    except (struct.error, IndexError, TiffError):
        # The image is whole all the same, and how firmware writes this is in no public document.
        return {}
