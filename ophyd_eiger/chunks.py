"""Is a compressed image what its bytes claim? Asked before any codec or filter sees them.

Knows nothing of HDF5 files: it takes the raw bytes of one chunk. Both codecs of the EIGER store a
12-byte header (uncompressed size as big-endian uint64, block size in bytes as big-endian uint32)
and then blocks, each behind its big-endian uint32 length. A truncated chunk makes common codecs
read past its end and crash the process, hence this walk.

Source: the HDF5 filters registered as 32004 (LZ4) and 32008 (bitshuffle), and real EIGER files.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ophyd_eiger.errors import ChunkError

LZ4_FILTER = 32004
BITSHUFFLE_FILTER = 32008

HEADER = struct.Struct(">QI")
_LENGTH = struct.Struct(">I")
# bitshuffle works on groups of eight elements; what is left over is stored as it is.
_GROUP = 8


@dataclass(frozen=True, slots=True)
class Blocks:
    """The blocks of a chunk that hold the bytes that are wanted of an image.

    Attributes
    ----------
    filter : int or None
        `LZ4_FILTER`, `BITSHUFFLE_FILTER`, or None of an uncompressed chunk.
    block : int
        Uncompressed bytes of a full block; 0 of an uncompressed chunk.
    begin, end : int
        Where they lie in the chunk, in bytes, the length before the first one included.
    first, size : int
        Which bytes of the image they make: from `first` on, `size` of them.
    """

    filter: int | None
    block: int
    begin: int
    end: int
    first: int
    size: int


def largest_chunk(shape: tuple[int, int], dtype: np.dtype) -> int:
    """Return a number of bytes that no whole chunk of an image exceeds."""
    return 2 * shape[0] * shape[1] * dtype.itemsize + 1024


def check_chunk(
    raw: bytes,
    filters: Sequence[int],
    shape: tuple[int, int],
    dtype: np.dtype,
    rows: range | None = None,
) -> Blocks:
    """Check that a chunk's header and every block length agree with its size.

    Parameters
    ----------
    raw : bytes
        The chunk as it is in the file.
    filters : sequence of int
        Identifiers of the HDF5 filters of the dataset: none, `LZ4_FILTER` or `BITSHUFFLE_FILTER`.
    shape : tuple of int
        Shape (y, x) of the image in pixels.
    dtype : numpy.dtype
        Type of a pixel.
    rows : range, optional
        The rows that are wanted, step 1; every one by default. The whole chunk is checked in any
        case.

    Returns
    -------
    Blocks
        Where the rows that are wanted are.

    Raises
    ------
    ChunkError
        If they do not agree, or if the filters are none that an EIGER uses.
    """
    row = shape[1] * dtype.itemsize
    size = shape[0] * row
    wanted = range(size) if rows is None else range(rows.start * row, rows.stop * row)
    if not filters:
        if len(raw) != size:
            raise ChunkError(f"{len(raw)} bytes found, {size} expected of an uncompressed image")
        return Blocks(None, 0, wanted.start, wanted.stop, wanted.start, len(wanted))
    if len(filters) != 1 or filters[0] not in (LZ4_FILTER, BITSHUFFLE_FILTER):
        raise ChunkError(f"HDF5 filters {list(filters)} are none that an EIGER writes")
    if len(raw) < HEADER.size:
        raise ChunkError(f"{len(raw)} bytes found, fewer than the {HEADER.size} of a header")
    stated, block = HEADER.unpack_from(raw)
    if stated != size:
        raise ChunkError(f"the header promises {stated} bytes, {size} expected of an image")
    if filters[0] == BITSHUFFLE_FILTER:
        return _walk_bitshuffle(raw, size, block, dtype.itemsize, wanted)
    return _walk_lz4(raw, size, block, wanted)


def _walk_bitshuffle(raw: bytes, size: int, block: int, itemsize: int, wanted: range) -> Blocks:
    group = _GROUP * itemsize
    if block == 0 or block % group:
        raise ChunkError(f"a block size of {block} bytes is no multiple of {group}")
    left_over = size % block % group
    walked = _Walk(raw, block, size - left_over, stored=False)
    found = walked.blocks(BITSHUFFLE_FILTER, wanted)
    end = walked.place + left_over
    if end != len(raw):
        raise ChunkError(f"the blocks end at byte {end} of {len(raw)}")
    if left_over and wanted.stop > size - left_over:
        return replace(found, end=end, size=size - found.first)
    return found


def _walk_lz4(raw: bytes, size: int, block: int, wanted: range) -> Blocks:
    if block == 0:
        raise ChunkError("a block size of 0 bytes")
    walked = _Walk(raw, min(block, size), size, stored=True)
    found = walked.blocks(LZ4_FILTER, wanted)
    if walked.place != len(raw):
        raise ChunkError(f"the blocks end at byte {walked.place} of {len(raw)}")
    return found


class _Walk:
    """Follows the block lengths from the header on.

    Parameters
    ----------
    raw : bytes
        The chunk.
    block : int
        Uncompressed bytes of each full block; those left after them make a shorter one.
    size : int
        Uncompressed bytes in all blocks.
    stored : bool
        Whether a block that cannot be compressed is stored as it is.

    Attributes
    ----------
    place : int
        The byte of the chunk that is reached.
    """

    def __init__(self, raw: bytes, block: int, size: int, *, stored: bool) -> None:
        self._raw, self._block, self._size, self._stored = raw, block, size, stored
        self._full, self._last = divmod(size, block)
        self._count = self._full + (self._last > 0)
        self.place = HEADER.size

    def blocks(self, code: int, wanted: range) -> Blocks:
        """Follow all blocks and return those that hold the bytes that are wanted."""
        low = max(min(wanted.start // self._block, self._count - 1), 0)
        high = min(-(-wanted.stop // self._block), self._count)
        self._follow(0, low)
        begin = self.place
        self._follow(low, high)
        end = self.place
        self._follow(high, self._count)
        first = low * self._block
        size = max(min(high * self._block, self._size) - first, 0)
        return Blocks(code, self._block, begin, end, first, size)

    def _follow(self, start: int, stop: int) -> None:
        raw, end, place, number, length = self._raw, len(self._raw), self.place, start, 0
        bound = _bound(self._block, stored=self._stored)
        length_at = _LENGTH.unpack_from
        try:
            # A chunk has a thousand blocks: no more is done for each than it takes.
            for number in range(start, min(stop, self._full)):
                (length,) = length_at(raw, place)
                if not 0 < length <= bound:
                    raise _misstated(number, self._count, length, self._block)
                place += 4 + length
            if start < stop > self._full:
                number = self._full
                (length,) = length_at(raw, place)
                if not 0 < length <= _bound(self._last, stored=self._stored):
                    raise _misstated(number, self._count, length, self._last)
                place += 4 + length
        except struct.error:
            raise ChunkError(
                f"cut off at byte {end}, before block {number + 1} of {self._count}"
            ) from None
        if place > end:
            raise ChunkError(f"cut off at byte {end}, in block {number + 1} of {self._count}")
        self.place = place


def _bound(size: int, *, stored: bool) -> int:
    # LZ4 grows what it cannot compress by at most one byte in 255 and 16 more.
    return size if stored else size + size // 255 + 16


def _misstated(number: int, blocks: int, length: int, size: int) -> ChunkError:
    return ChunkError(f"block {number + 1} of {blocks} states {length} bytes for {size}")
