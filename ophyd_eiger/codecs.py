"""What decompresses images: straight into an array, and without a lock, so that threads help.

Knows nothing of HDF5 files: it takes the bytes of a chunk that `chunks.check_chunk` has found whole
and that say which of its blocks are wanted. h5py's own way holds HDF5's lock while a filter works;
the libraries below are called through ctypes, which releases Python's.

===================== =================== ==========================================================
name                  comes with          how
===================== =================== ==========================================================
dectris-compression   its own package     DECTRIS' library; the fastest, but built by a C compiler
hdf5plugin            hdf5plugin's wheel  the functions that the HDF5 filters themselves call
hdf5                  h5py, hdf5plugin    the filters, in a file in memory: one image at a time
===================== =================== ==========================================================

Source: the functions that the libraries export. DECTRIS does not document its own, so each codec
decodes an image made here, byte by byte, before it is chosen.
"""

import ctypes
import functools
import importlib.util
import itertools
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import h5py
import hdf5plugin
import numpy as np

from ophyd_eiger.chunks import BITSHUFFLE_FILTER, HEADER, LZ4_FILTER, Blocks, Chunk, check_chunk
from ophyd_eiger.errors import ChunkError, CodecError

_LENGTH = struct.Struct(">I")
_POINTER, _SIZE = ctypes.c_void_p, ctypes.c_size_t


class Codec(Protocol):
    """What decompresses the blocks of a chunk.

    Attributes
    ----------
    name : str
        As in the table above.
    by_blocks : bool
        Whether a few blocks at a time are decoded as fast as all of them.
    """

    name: str
    by_blocks: bool

    def decode(self, raw: Chunk, blocks: Blocks, itemsize: int, out: np.ndarray) -> None:
        """Decompress blocks of a whole chunk.

        Parameters
        ----------
        raw : bytes or memoryview
            The chunk.
        blocks : Blocks
            What `check_chunk` has found in it; compressed.
        itemsize : int
            Bytes of a pixel.
        out : numpy.ndarray
            uint8 of shape (blocks.size,), contiguous.

        Raises
        ------
        ChunkError
            If the blocks hold something else than what they should.
        """
        ...


class _Hdf5plugin:
    """The functions that hdf5plugin's filters call."""

    name = "hdf5plugin"
    by_blocks = True

    def __init__(self) -> None:
        bitshuffle, lz4 = (_plugin(name) for name in ("libh5bshuf", "libh5lz4"))
        self._bitshuffle = _function(
            bitshuffle, "bshuf_decompress_lz4", ctypes.c_int64, _POINTER, _POINTER, *3 * [_SIZE]
        )
        self._lz4 = _function(
            lz4, "LZ4_decompress_safe", ctypes.c_int, _POINTER, _POINTER, *2 * [ctypes.c_int]
        )

    def decode(self, raw: Chunk, blocks: Blocks, itemsize: int, out: np.ndarray) -> None:
        source, target = _address(raw), out.ctypes.data
        if blocks.filter == LZ4_FILTER:
            self._decode_lz4(raw, blocks, source, target)
            return
        pixels, block = blocks.size // itemsize, blocks.block // itemsize
        used = self._bitshuffle(source + blocks.begin, target, pixels, itemsize, block)
        if used != blocks.end - blocks.begin:
            raise ChunkError("what its blocks hold is not bitshuffle with LZ4")

    def _decode_lz4(self, raw: Chunk, blocks: Blocks, source: int, target: int) -> None:
        place, left, lz4 = blocks.begin, blocks.size, self._lz4
        while left:
            (length,) = _LENGTH.unpack_from(raw, place)
            size = min(blocks.block, left)
            place += _LENGTH.size
            if length == size:  # stored as it is
                ctypes.memmove(target, source + place, size)
            elif lz4(source + place, target, length, size) != size:
                raise ChunkError("what its blocks hold is not LZ4")
            place, target, left = place + length, target + size, left - size


class _Dectris:
    """The library of dectris-compression."""

    name = "dectris-compression"
    by_blocks = True
    _NUMBERS = {BITSHUFFLE_FILTER: 0, LZ4_FILTER: 1}  # noqa: RUF012 - never changed

    def __init__(self) -> None:
        found = importlib.util.find_spec("dectris.compression")
        if found is None or found.origin is None:
            raise ImportError("dectris-compression is not installed")
        self._decompress = _function(
            ctypes.CDLL(found.origin),
            "compression_decompress_buffer",
            _SIZE,
            ctypes.c_int,
            *[_POINTER, _SIZE] * 2,
            _SIZE,
        )

    def decode(self, raw: Chunk, blocks: Blocks, itemsize: int, out: np.ndarray) -> None:
        number = self._NUMBERS[blocks.filter or 0]
        raw = _chunk_of(raw, blocks)
        size = self._decompress(
            number, out.ctypes.data, out.nbytes, _address(raw), len(raw), itemsize
        )
        if size != blocks.size:
            raise ChunkError("what its blocks hold cannot be decompressed")


class _Hdf5:
    """HDF5 itself: a file in memory for each image."""

    name = "hdf5"
    by_blocks = False
    _files = itertools.count()
    _SETTINGS = {BITSHUFFLE_FILTER: (0, 2), LZ4_FILTER: ()}  # noqa: RUF012 - never changed

    def decode(self, raw: Chunk, blocks: Blocks, itemsize: int, out: np.ndarray) -> None:
        shape = (blocks.size // itemsize,)
        create = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        create.set_chunk(shape)
        code = blocks.filter or 0
        create.set_filter(code, 0, self._SETTINGS[code])
        pixels = out.view(f"<u{itemsize}")
        # HDF5 takes two open files of one name for the same, in memory too.
        name = f"ophyd_eiger-{next(self._files)}"
        try:
            with h5py.File(name, "w", driver="core", backing_store=False) as file:
                kind, space = h5py.h5t.py_create(pixels.dtype), h5py.h5s.create_simple(shape)
                made = h5py.h5d.create(file.id, b"pixels", kind, space, create)
                made.write_direct_chunk((0,), _chunk_of(raw, blocks))
                h5py.Dataset(made).read_direct(pixels)
        except OSError as error:
            raise ChunkError(f"HDF5's filter refuses what its blocks hold ({error})") from error


_CODECS: dict[str, Callable[[], Codec]] = {
    codec.name: codec for codec in (_Dectris, _Hdf5plugin, _Hdf5)
}


def codec(name: str | None = None) -> Codec:
    """Return a codec that works here.

    Parameters
    ----------
    name : str, optional
        Which one; the fastest that works by default.

    Raises
    ------
    CodecError
        If there is none of this name, or if it does not work here.
    """
    if name is not None:
        return _made(name)
    for candidate in _CODECS:
        try:
            return _made(candidate)
        except CodecError:
            continue
    raise CodecError("no codec decompresses images here; reinstall hdf5plugin")


def available() -> tuple[str, ...]:
    """Return the names of the codecs that work here, the fastest first."""
    found = []
    for name in _CODECS:
        try:
            found.append(_made(name).name)
        except CodecError:
            continue
    return tuple(found)


@functools.cache
def _made(name: str) -> Codec:
    if name not in _CODECS:
        raise CodecError(f"no codec {name!r}; there are {', '.join(_CODECS)}")
    try:
        made = _CODECS[name]()
    except (ImportError, OSError, AttributeError) as error:
        raise CodecError(f"codec {name} cannot be used here: {error}") from error
    if not _works(made):
        raise CodecError(f"codec {name} does not decode what it should")
    return made


def _works(made: Codec) -> bool:
    """See whether a codec decodes a small image of either compression right."""
    various = np.arange(1, 129, dtype="<u2").reshape(8, 16) * 509
    # Of each half all bytes are the same.
    alike = np.repeat(np.array([[0x0707], [0x2A2A]], "<u2"), 64, axis=0).reshape(8, 16)
    return _decodes(
        made, BITSHUFFLE_FILTER, various, lambda half: _literals(_bitshuffled(half))
    ) and (_decodes(made, LZ4_FILTER, alike, lambda half: _repeated(half.tobytes())))


def _decodes(
    made: Codec, code: int, image: np.ndarray, packed: Callable[[np.ndarray], bytes]
) -> bool:
    blocks = [packed(half) for half in (image[:4], image[4:])]
    raw = HEADER.pack(image.nbytes, image.nbytes // 2)
    raw += b"".join(_LENGTH.pack(len(block)) + block for block in blocks)
    # Both blocks, and the second alone.
    for rows in (range(8), range(5, 8)):
        found = check_chunk(raw, [code], image.shape, image.dtype, rows)
        out = np.zeros(found.size, np.uint8)
        try:
            made.decode(raw, found, image.itemsize, out)
        except ChunkError:
            return False
        if out.tobytes() != image.tobytes()[found.first :]:
            return False
    return True


def _bitshuffled(pixels: np.ndarray) -> bytes:
    """Return pixels with all their lowest bits first, then the next, as bitshuffle has them."""
    bits = np.unpackbits(
        pixels.reshape(-1, 1).view(np.uint8).reshape(pixels.size, -1), axis=1, bitorder="little"
    )
    return np.packbits(bits.T, axis=1, bitorder="little").tobytes()


def _literals(content: bytes) -> bytes:
    """Return an LZ4 block of one run of literals, for which no compressor is needed."""
    more = len(content) - 15
    return b"\xf0" + b"\xff" * (more // 255) + bytes([more % 255]) + content


def _repeated(content: bytes) -> bytes:
    """Return an LZ4 block of 128 bytes that are all the same: a literal, a match, 5 literals."""
    return b"\x1f" + content[:1] + b"\x01\x00" + bytes([128 - 6 - 19]) + b"\x50" + content[-5:]


def _chunk_of(raw: Chunk, blocks: Blocks) -> Chunk:
    """Return a chunk that has these blocks alone."""
    if blocks.begin == HEADER.size and blocks.end == len(raw):
        return raw
    return HEADER.pack(blocks.size, blocks.block) + raw[blocks.begin : blocks.end]


def _address(raw: Chunk) -> int:
    return np.frombuffer(raw, np.uint8).ctypes.data


def _plugin(stem: str) -> ctypes.CDLL:
    for path in Path(hdf5plugin.PLUGIN_PATH).glob(f"{stem}.*"):
        return ctypes.CDLL(str(path))
    raise ImportError(f"hdf5plugin comes without {stem}")


def _function(library: ctypes.CDLL, name: str, result: type, *arguments: type) -> Callable:
    function = library[name]  # one of our own: an attribute is shared with whoever loaded it too
    function.restype, function.argtypes = result, arguments
    return function
