"""Is a compressed image what its bytes claim? Asked before any codec or filter sees them.

Knows nothing of HDF5 files: it takes the raw bytes of one chunk. Both codecs of the EIGER store a
12-byte header (uncompressed size as big-endian uint64, block size in bytes as big-endian uint32)
and then blocks, each behind its big-endian uint32 length. A truncated chunk makes common codecs
read past its end and crash the process, hence this walk.

Source: the HDF5 filters registered as 32004 (LZ4) and 32008 (bitshuffle), and real EIGER files.
"""

import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ophyd_eiger.errors import ChunkError, StorageError

LZ4_FILTER = 32004
BITSHUFFLE_FILTER = 32008

# The bytes of one chunk: its own, or memory that is used again for the next.
Chunk = bytes | memoryview

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
    raw: Chunk,
    filters: Sequence[int],
    shape: tuple[int, int],
    dtype: np.dtype,
    rows: range | None = None,
) -> Blocks:
    """Check that a chunk's header and every block length agree with its size.

    Parameters
    ----------
    raw : bytes or memoryview
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
        If they do not agree.
    StorageError
        If the filters are none that an EIGER uses.
    """
    row = shape[1] * dtype.itemsize
    size = shape[0] * row
    wanted = range(size) if rows is None else range(rows.start * row, rows.stop * row)
    if not filters:
        _check_uncompressed(raw, size)
        return Blocks(None, 0, wanted.start, wanted.stop, wanted.start, len(wanted))
    walk = _walk(raw, filters, size, dtype.itemsize)
    low = max(min(wanted.start // walk.block, walk.count - 1), 0)
    high = min(-(-wanted.stop // walk.block), walk.count)
    (found,) = walk.between([low, high])
    if walk.left_over and wanted.stop > size - walk.left_over:
        return replace(found, end=len(raw), size=size - found.first)
    return found


def check_pieces(
    raw: Chunk, filters: Sequence[int], shape: tuple[int, int], dtype: np.dtype, piece: int
) -> list[Blocks]:
    """Check a chunk as `check_chunk` does, and find its image in pieces.

    Parameters
    ----------
    raw, filters, shape, dtype
        As of `check_chunk`.
    piece : int
        How many bytes of the image each has, the last one what is left.

    Returns
    -------
    list of Blocks
        The pieces in their order; the whole image alone where no blocks begin at those bytes.

    Raises
    ------
    ChunkError
        As `check_chunk`.
    """
    size = shape[0] * shape[1] * dtype.itemsize
    if not filters:
        _check_uncompressed(raw, size)
        return [
            Blocks(None, 0, first, min(first + piece, size), first, min(piece, size - first))
            for first in range(0, size, piece)
        ]
    walk = _walk(raw, filters, size, dtype.itemsize)
    step = walk.count if piece % walk.block else piece // walk.block
    # The last few pixels have no block, but a piece where nothing else is left for it.
    pieces = max(1, -(-size // piece)) if step < walk.count else 1
    found = walk.between([min(n * step, walk.count) for n in range(pieces + 1)])
    found[-1] = replace(found[-1], end=len(raw), size=size - found[-1].first)
    return found


def are_whole(
    raw: np.ndarray,
    begins: np.ndarray,
    ends: np.ndarray,
    filters: Sequence[int],
    shape: tuple[int, int],
    dtype: np.dtype,
) -> bool:
    """Say whether `check_chunk` would take each of several chunks; why not, only that tells.

    Their block lengths are followed side by side, which takes half the time or less where there are
    dozens of chunks, and more where there are a few.

    Parameters
    ----------
    raw : numpy.ndarray
        The bytes that hold them, uint8.
    begins, ends : numpy.ndarray
        Where each begins and ends in it, int64.
    filters, shape, dtype
        As of `check_chunk`.
    """
    size = shape[0] * shape[1] * dtype.itemsize
    sizes = ends - begins
    if not filters:
        return bool(np.all(sizes == size))
    if np.any(sizes < HEADER.size):
        return False
    headers = raw[begins[:, np.newaxis] + np.arange(HEADER.size)]
    try:
        walk = _walk(headers[0].tobytes(), filters, size, dtype.itemsize)
    except ChunkError:
        return False
    # A block takes five bytes at least: more of them than there can be are not even begun.
    if np.any(headers != headers[0]) or np.any(sizes < 5 * walk.count):
        return False
    lengths_at = np.ndarray(len(raw) - 3, ">u4", raw, strides=1)
    lengths = np.empty((walk.count, len(begins)), np.int64)
    # Without the four bytes that each length passed takes itself: those are cut off before.
    place = begins + HEADER.size
    try:
        for number, found in enumerate(lengths):
            found[:] = lengths_at[4 * number :][place]
            place += found
    except IndexError:
        return False
    place += 4 * walk.count + walk.left_over
    return walk.allows(lengths) and bool(np.all(place == ends))


def _check_uncompressed(raw: Chunk, size: int) -> None:
    if len(raw) != size:
        raise ChunkError(f"{len(raw)} bytes found, {size} expected of an uncompressed image")


def _walk(raw: Chunk, filters: Sequence[int], size: int, itemsize: int) -> "_Walk":
    """Return what follows the blocks, when the header is right."""
    if len(filters) != 1 or filters[0] not in (LZ4_FILTER, BITSHUFFLE_FILTER):
        raise StorageError(f"HDF5 filters {list(filters)} are none that an EIGER writes")
    if len(raw) < HEADER.size:
        raise ChunkError(f"{len(raw)} bytes found, fewer than the {HEADER.size} of a header")
    stated, block = HEADER.unpack_from(raw)
    if stated != size:
        raise ChunkError(f"the header promises {stated} bytes, {size} expected of an image")
    if filters[0] == LZ4_FILTER:
        if block == 0:
            raise ChunkError("a block size of 0 bytes")
        return _Walk(raw, LZ4_FILTER, min(block, size), size, 0)
    group = _GROUP * itemsize
    if block == 0 or block % group:
        raise ChunkError(f"a block size of {block} bytes is no multiple of {group}")
    left_over = size % block % group
    return _Walk(raw, BITSHUFFLE_FILTER, block, size - left_over, left_over)


class _Walk:
    """Follows the block lengths from the header on.

    Parameters
    ----------
    raw : bytes or memoryview
        The chunk.
    code : int
        `LZ4_FILTER`, of which a block that cannot be compressed is stored as it is, or
        `BITSHUFFLE_FILTER`.
    block : int
        Uncompressed bytes of each full block; those left after them make a shorter one.
    size : int
        Uncompressed bytes in all blocks.
    left_over : int
        Bytes behind the last block, stored as they are.

    Attributes
    ----------
    count : int
        How many blocks there are.
    place : int
        The byte of the chunk that is reached.
    """

    def __init__(self, raw: Chunk, code: int, block: int, size: int, left_over: int) -> None:
        self._raw, self._code, self.block, self._size = raw, code, block, size
        self.left_over = left_over
        self._stored = code == LZ4_FILTER
        self._full, self._last = divmod(size, block)
        self.count = self._full + (self._last > 0)
        self.place = HEADER.size

    def between(self, cuts: Sequence[int]) -> list[Blocks]:
        """Follow all blocks; return those between each two of these numbers, which rise."""
        found = []
        self._follow(0, cuts[0])
        for low, high in itertools.pairwise(cuts):
            begin = self.place
            self._follow(low, high)
            first = low * self.block
            size = max(min(high * self.block, self._size) - first, 0)
            found.append(Blocks(self._code, self.block, begin, self.place, first, size))
        self._follow(cuts[-1], self.count)
        end = self.place + self.left_over
        if end != len(self._raw):
            raise ChunkError(f"the blocks end at byte {end} of {len(self._raw)}")
        return found

    def allows(self, lengths: np.ndarray) -> bool:
        """Return whether all blocks may have these lengths: an array (blocks, chunks)."""
        full, last = lengths[: self._full], lengths[self._full :]
        most = _bound(self.block, stored=self._stored)
        most_of_last = _bound(self._last, stored=self._stored)
        return bool(np.all(lengths > 0) and np.all(full <= most) and np.all(last <= most_of_last))

    def _follow(self, start: int, stop: int) -> None:
        raw, end, place, number, length = self._raw, len(self._raw), self.place, start, 0
        bound = _bound(self.block, stored=self._stored)
        length_at = _LENGTH.unpack_from
        try:
            # A chunk has a thousand blocks: no more is done for each than it takes.
            for number in range(start, min(stop, self._full)):
                (length,) = length_at(raw, place)
                if not 0 < length <= bound:
                    raise _misstated(number, self.count, length, self.block)
                place += 4 + length
            if start < stop > self._full:
                number = self._full
                (length,) = length_at(raw, place)
                if not 0 < length <= _bound(self._last, stored=self._stored):
                    raise _misstated(number, self.count, length, self._last)
                place += 4 + length
        except struct.error:
            raise ChunkError(
                f"cut off at byte {end}, before block {number + 1} of {self.count}"
            ) from None
        if place > end:
            raise ChunkError(f"cut off at byte {end}, in block {number + 1} of {self.count}")
        self.place = place


def _bound(size: int, *, stored: bool) -> int:
    # LZ4 grows what it cannot compress by at most one byte in 255 and 16 more.
    return size if stored else size + size // 255 + 16


def _misstated(number: int, blocks: int, length: int, size: int) -> ChunkError:
    return ChunkError(f"block {number + 1} of {blocks} states {length} bytes for {size}")
