"""Compresses and decompresses one image with HDF5's own filters, in memory.

The filters come with hdf5plugin, which there is ready-made for every platform and Python; what
they make of an image is, by construction, what a file's chunk holds. Not fast: `images` compresses
a pool of images once.
"""

import itertools
from dataclasses import dataclass

import h5py
import hdf5plugin
import numpy as np

_numbers = itertools.count()
_BITSHUFFLE_LZ4 = 2
_BITSHUFFLE_DEFAULT_BLOCK = 0  # 8192 bytes
# The size of the blocks of EIGER2's LZ4, as in real files.
_LZ4_BLOCK = 8192


@dataclass(frozen=True)
class Compression:
    """A way to store an image as a chunk.

    Attributes
    ----------
    name : str
        As detector/config/compression has it.
    filter_number : int or None
        HDF5's number of the filter; None where there is none.
    settings : tuple of int
        The filter's parameters as a dataset is created with them.
    making : tuple of int
        Those that images are compressed with. A chunk says itself what is needed to read it, so
        they may differ.
    in_blocks : bool
        Whether each `scene.BLOCK_BYTES` bytes of an image are compressed on their own, so that an
        image can be put together from blocks.
    """

    name: str
    filter_number: int | None = None
    settings: tuple[int, ...] = ()
    making: tuple[int, ...] = ()
    in_blocks: bool = True


NONE = Compression("none")
_BITSHUFFLE_SETTINGS = (_BITSHUFFLE_DEFAULT_BLOCK, _BITSHUFFLE_LZ4)
BSLZ4 = Compression(
    "bslz4", hdf5plugin.Bitshuffle.filter_id, _BITSHUFFLE_SETTINGS, _BITSHUFFLE_SETTINGS
)
# Without a parameter the filter makes one block of the whole image.
LZ4_WHOLE = Compression("lz4", hdf5plugin.LZ4.filter_id, in_blocks=False)
LZ4_IN_BLOCKS = Compression("lz4", hdf5plugin.LZ4.filter_id, making=(_LZ4_BLOCK,))


def compressed(image: np.ndarray, compression: Compression) -> bytes:
    """Return an image, shape (y, x), as a chunk: 12 bytes of header, then compressed blocks."""
    with _memory_file() as file:
        images = _images(file, image.shape, image.dtype, compression)
        images[0] = image
        return images.id.read_direct_chunk((0, 0, 0))[1]


def decompressed(
    chunk: bytes, shape: tuple[int, int], dtype: np.dtype, compression: Compression
) -> np.ndarray:
    """Return the image, shape (y, x), of a chunk that `compressed` or `images` made.

    With `NONE` a chunk is the little-endian pixels alone.
    """
    if compression.filter_number is None:
        return np.frombuffer(chunk, dtype).reshape(shape)
    with _memory_file() as file:
        images = _images(file, shape, dtype, compression)
        images.id.write_direct_chunk((0, 0, 0), chunk)
        return images[0]


def _memory_file() -> h5py.File:
    # HDF5 takes two open files of one name for the same, in memory too.
    return h5py.File(f"image-{next(_numbers)}", "w", driver="core", backing_store=False)


def _images(
    file: h5py.File, shape: tuple[int, ...], dtype: np.dtype, compression: Compression
) -> h5py.Dataset:
    return file.create_dataset(
        "images",
        (1, *shape),
        dtype,
        chunks=(1, *shape),
        compression=compression.filter_number,
        compression_opts=compression.making,
    )
