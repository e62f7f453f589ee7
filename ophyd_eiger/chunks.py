"""Is a compressed image what its bytes claim? Asked before any codec or filter sees them.

Knows nothing of HDF5 files: it takes the raw bytes of one chunk. Both codecs of the EIGER store a
12-byte header (uncompressed size as big-endian uint64, block size in bytes as big-endian uint32)
and then blocks, each behind its big-endian uint32 length. A truncated chunk makes common codecs
read past its end and crash the process, hence this walk.

Source: the HDF5 filters registered as 32004 (LZ4) and 32008 (bitshuffle), and real EIGER files.
"""

import struct
from collections.abc import Sequence

import numpy as np

from ophyd_eiger.errors import ChunkError

LZ4_FILTER = 32004
BITSHUFFLE_FILTER = 32008

_HEADER = struct.Struct(">QI")
_LENGTH = struct.Struct(">I")
# bitshuffle works on groups of eight elements; what is left over is stored as it is.
_GROUP = 8


def check_chunk(
    raw: bytes, filters: Sequence[int], shape: tuple[int, int], dtype: np.dtype
) -> None:
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

    Raises
    ------
    ChunkError
        If they do not agree, or if the filters are none that an EIGER uses.
    """
    size = shape[0] * shape[1] * dtype.itemsize
    if not filters:
        if len(raw) != size:
            raise ChunkError(f"{len(raw)} bytes found, {size} expected of an uncompressed image")
        return
    if len(filters) != 1 or filters[0] not in (LZ4_FILTER, BITSHUFFLE_FILTER):
        raise ChunkError(f"HDF5 filters {list(filters)} are none that an EIGER writes")
    if len(raw) < _HEADER.size:
        raise ChunkError(f"{len(raw)} bytes found, fewer than the {_HEADER.size} of a header")
    stated, block = _HEADER.unpack_from(raw)
    if stated != size:
        raise ChunkError(f"the header promises {stated} bytes, {size} expected of an image")
    if filters[0] == BITSHUFFLE_FILTER:
        _walk_bitshuffle(raw, size, block, dtype.itemsize)
    else:
        _walk_lz4(raw, size, block)


def _walk_bitshuffle(raw: bytes, size: int, block: int, itemsize: int) -> None:
    group = _GROUP * itemsize
    if block == 0 or block % group:
        raise ChunkError(f"a block size of {block} bytes is no multiple of {group}")
    full, rest = divmod(size, block)
    left_over = rest % group
    last = rest - left_over
    end = _walk(raw, block, full, last, stored=False)
    if end + left_over != len(raw):
        raise ChunkError(f"the blocks end at byte {end + left_over} of {len(raw)}")


def _walk_lz4(raw: bytes, size: int, block: int) -> None:
    if block == 0:
        raise ChunkError("a block size of 0 bytes")
    block = min(block, size)
    full, rest = divmod(size, block)
    end = _walk(raw, block, full, rest, stored=True)
    if end != len(raw):
        raise ChunkError(f"the blocks end at byte {end} of {len(raw)}")


def _walk(raw: bytes, block: int, full: int, last: int, *, stored: bool) -> int:
    """Follow the block lengths from the header on and return where the last block ends.

    Parameters
    ----------
    raw : bytes
        The chunk.
    block, last : int
        Uncompressed bytes of each full block, and of the one after them; 0 if there is none.
    full : int
        How many full blocks there are.
    stored : bool
        Whether a block that cannot be compressed is stored as it is.
    """
    end, blocks = len(raw), full + (last > 0)
    place, number, length = _HEADER.size, 0, 0
    bound = _bound(block, stored=stored)
    length_at = _LENGTH.unpack_from
    try:
        # A chunk has a thousand blocks: no more is done for each than it takes.
        for number in range(full):
            (length,) = length_at(raw, place)
            if not 0 < length <= bound:
                raise _misstated(number, blocks, length, block)
            place += 4 + length
        if last:
            number = full
            (length,) = length_at(raw, place)
            if not 0 < length <= _bound(last, stored=stored):
                raise _misstated(number, blocks, length, last)
            place += 4 + length
    except struct.error:
        raise ChunkError(f"cut off at byte {end}, before block {number + 1} of {blocks}") from None
    if place > end:
        raise ChunkError(f"cut off at byte {end}, in block {blocks} of {blocks}")
    return place


def _bound(size: int, *, stored: bool) -> int:
    # LZ4 grows what it cannot compress by at most one byte in 255 and 16 more.
    return size if stored else size + size // 255 + 16


def _misstated(number: int, blocks: int, length: int, size: int) -> ChunkError:
    return ChunkError(f"block {number + 1} of {blocks} states {length} bytes for {size}")
