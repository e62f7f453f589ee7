"""Arrays as TIFF in the detector's own layout, and masks and flat fields back from clients' files.

A writer of our own because the layout matters: clients of real hardware read the fields of one
image directory and take the whole image for one strip (section 3.3 and 5.10 of the API references,
areaDetector's and odin's readers). Knows arrays and bytes; nothing of the monitor or of HTTP.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sim_dcu.parameters import RefusedError

# TIFF 6.0 (Adobe, 1992), section 8: baseline fields.
WIDTH, HEIGHT = 256, 257
BITS_PER_SAMPLE = 258
COMPRESSION = 259
PHOTOMETRIC = 262
STRIP_OFFSETS = 273
SAMPLES_PER_PIXEL = 277
ROWS_PER_STRIP = 278
STRIP_BYTES = 279
SAMPLE_FORMAT = 339
# The vendor's own directory beside the image (API reference 1.8, table 5.10).
PRIVATE_DIRECTORY = 51192

_ASCII, _SHORT, _LONG, _DOUBLE = 2, 3, 4, 12
_SIZES = {1: 1, _ASCII: 1, _SHORT: 2, _LONG: 4, 5: 8, 7: 1, _DOUBLE: 8}
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_KINDS = {"u": _UNSIGNED, "i": _SIGNED, "f": _FLOAT}
_LETTERS = {number: letter for letter, number in _KINDS.items()}
_HEADER_BYTES = 8
_ENTRY_BYTES = 12
_MOST_ENTRIES = 200
# What is read of a client's file; of each field no more numbers than a strip a row would have.
_READ = frozenset(
    {
        *(WIDTH, HEIGHT, BITS_PER_SAMPLE, COMPRESSION, STRIP_OFFSETS, SAMPLES_PER_PIXEL),
        *(STRIP_BYTES, SAMPLE_FORMAT),
    }
)
_MOST_NUMBERS = 2**16


@dataclass(frozen=True)
class _Entry:
    """One field of a directory: its number, its type and its values as bytes."""

    tag: int
    kind: int
    count: int
    data: bytes


def encode(
    array: np.ndarray, *, private_tags: Mapping[int, int | float | str] | None = None
) -> bytes:
    """Return `array` as a TIFF file.

    Little-endian, one directory, one strip with RowsPerStrip the height, no compression; every
    field that describes the image is a single SHORT or LONG, so that its value is in the entry
    itself.

    Parameters
    ----------
    array : numpy.ndarray, shape (y, x)
        Unsigned integers of 8, 16 or 32 bits (an image, a mask) or float32 (a flat field).
    private_tags : mapping, optional
        What the private directory holds, by tag: an int is a LONG, a float a DOUBLE, text ASCII.
        Without it the file has no such directory.

    Raises
    ------
    ValueError
        Where the array is of another type or has no two dimensions.
    """
    if array.ndim != 2 or array.dtype.str.lstrip("<>|=") not in ("u1", "u2", "u4", "f4"):
        raise ValueError(f"{array.dtype} of shape {array.shape} has no place in the layout")
    height, width = array.shape
    pixels = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    fields = [
        _entry(WIDTH, width, _LONG),
        _entry(HEIGHT, height, _LONG),
        _entry(BITS_PER_SAMPLE, 8 * array.dtype.itemsize, _SHORT),
        _entry(COMPRESSION, 1, _SHORT),
        _entry(PHOTOMETRIC, 1, _SHORT),
        _entry(STRIP_OFFSETS, 0, _LONG),
        _entry(SAMPLES_PER_PIXEL, 1, _SHORT),
        _entry(ROWS_PER_STRIP, height, _LONG),
        _entry(STRIP_BYTES, len(pixels), _LONG),
        _entry(SAMPLE_FORMAT, _KINDS[array.dtype.kind], _SHORT),
    ]
    if private_tags is not None:
        fields.append(_entry(PRIVATE_DIRECTORY, 0, _LONG))
    private_at = _HEADER_BYTES + _directory_bytes(fields)
    private = b"" if private_tags is None else _private_directory(private_tags, private_at)
    where = {STRIP_OFFSETS: private_at + len(private), PRIVATE_DIRECTORY: private_at}
    fields = [
        _entry(field.tag, where[field.tag], _LONG) if field.tag in where else field
        for field in fields
    ]
    header = struct.pack("<2sHI", b"II", 42, _HEADER_BYTES)
    return b"".join((header, _directory(fields, _HEADER_BYTES), private, pixels))


def _private_directory(tags: Mapping[int, int | float | str], start: int) -> bytes:
    entries = []
    for tag, value in sorted(tags.items()):
        if isinstance(value, str):
            text = value.encode("ascii", "replace") + b"\0"
            entries.append(_Entry(tag, _ASCII, len(text), text))
        elif isinstance(value, float):
            entries.append(_Entry(tag, _DOUBLE, 1, struct.pack("<d", value)))
        else:
            entries.append(_entry(tag, value, _LONG))
    return _directory(entries, start)


def _entry(tag: int, value: int, kind: int) -> _Entry:
    return _Entry(tag, kind, 1, struct.pack("<H" if kind == _SHORT else "<I", value))


def _directory_bytes(entries: list[_Entry]) -> int:
    spilled = sum(_padded(len(entry.data)) for entry in entries if len(entry.data) > 4)
    return 2 + _ENTRY_BYTES * len(entries) + 4 + spilled


def _directory(entries: list[_Entry], start: int) -> bytes:
    """Return a directory that lies at `start`, followed by the values too long for an entry."""
    place = start + 2 + _ENTRY_BYTES * len(entries) + 4
    table, spilled = [struct.pack("<H", len(entries))], []
    for entry in entries:
        held = entry.data.ljust(4, b"\0")
        if len(entry.data) > 4:
            held = struct.pack("<I", place)
            spilled.append(entry.data.ljust(_padded(len(entry.data)), b"\0"))
            place += len(spilled[-1])
        table.append(struct.pack("<HHI", entry.tag, entry.kind, entry.count) + held)
    return b"".join((*table, struct.pack("<I", 0), *spilled))


def _padded(length: int) -> int:
    # Values begin on a word boundary (TIFF 6.0, section 2).
    return length + length % 2


def decode(body: bytes) -> np.ndarray:
    """Return the array of a TIFF file that a client wrote, a copy of its own.

    Either byte order and any number of strips: what common writers make of a mask.

    Returns
    -------
    numpy.ndarray, shape (y, x)
        Little-endian; signed or unsigned integers of 8, 16 or 32 bits, float32 or float64.

    Raises
    ------
    RefusedError
        Where that is not what the file holds, or it is compressed or damaged.
    """
    try:
        return _decoded(body)
    except (struct.error, IndexError) as error:
        raise RefusedError("TIFF ends too early") from error


def _decoded(body: bytes) -> np.ndarray:
    order = {b"II": "<", b"MM": ">"}.get(body[:2])
    if order is None or struct.unpack_from(f"{order}H", body, 2) != (42,):
        raise RefusedError("body is not a TIFF file")
    fields = _fields(body, order)
    for tag, least in ((COMPRESSION, 1), (SAMPLES_PER_PIXEL, 1)):
        if fields.get(tag, [least]) != [1]:
            raise RefusedError("TIFF is compressed or has several samples a pixel")
    width, height = _one(fields, WIDTH), _one(fields, HEIGHT)
    bits = _one(fields, BITS_PER_SAMPLE)
    letter = _LETTERS.get(fields.get(SAMPLE_FORMAT, [_UNSIGNED])[0], "")
    if f"{letter}{bits}" not in ("u8", "u16", "u32", "i8", "i16", "i32", "f32", "f64"):
        raise RefusedError(f"TIFF has pixels of {bits} bits that are not taken")
    size = width * height * bits // 8
    pixels = _strips(body, fields, size)
    dtype = np.dtype(f"{order}{letter}{bits // 8}")
    array = np.frombuffer(pixels, dtype).reshape(height, width)
    return array.astype(dtype.newbyteorder("<"))


def _strips(body: bytes, fields: Mapping[int, list[int]], size: int) -> bytes:
    offsets, lengths = fields.get(STRIP_OFFSETS), fields.get(STRIP_BYTES)
    if offsets is None:
        raise RefusedError("TIFF has no strips")
    if lengths is None and len(offsets) == 1:
        lengths = [size]
    # Checked before anything is copied: strips that overlap could name more bytes than came.
    if lengths is None or len(lengths) != len(offsets) or not 0 < sum(lengths) == size <= len(body):
        raise RefusedError(f"TIFF strips do not hold {size} bytes")
    pixels = b"".join(
        body[start : start + length] for start, length in zip(offsets, lengths, strict=True)
    )
    if len(pixels) != size:
        raise RefusedError("TIFF ends too early")
    return pixels


def _fields(body: bytes, order: str) -> dict[int, list[int]]:
    """Return the whole numbers of the first directory by tag."""
    (start,) = struct.unpack_from(f"{order}I", body, 4)
    (count,) = struct.unpack_from(f"{order}H", body, start)
    if count > _MOST_ENTRIES:
        raise RefusedError(f"TIFF directory has {count} entries")
    fields: dict[int, list[int]] = {}
    for index in range(count):
        place = start + 2 + _ENTRY_BYTES * index
        tag, kind, length = struct.unpack_from(f"{order}HHI", body, place)
        if kind not in (_SHORT, _LONG) or tag not in _READ:
            continue
        size = _SIZES[kind] * length
        if length > _MOST_NUMBERS or size > len(body):
            raise RefusedError(f"TIFF field {tag} has {length} numbers")
        at = place + 8
        if size > 4:
            (at,) = struct.unpack_from(f"{order}I", body, at)
        letter = "H" if kind == _SHORT else "I"
        fields[tag] = list(struct.unpack_from(f"{order}{length}{letter}", body, at))
    return fields


def _one(fields: Mapping[int, list[int]], tag: int) -> int:
    values = fields.get(tag, [])
    if len(values) != 1:
        raise RefusedError(f"TIFF field {tag} is missing or not a single number")
    return values[0]
