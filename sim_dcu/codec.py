"""Compresses and decompresses one image with HDF5's own filter, in memory.

The filter comes with hdf5plugin, which there is ready-made for every platform and Python; what it
makes of an image is, by construction, what a file's chunk holds. Not fast: `images` compresses a
pool of images once.
"""

import io

import h5py
import hdf5plugin  # noqa: F401 - registers the filter with HDF5
import numpy as np

_BITSHUFFLE_FILTER = 32008
# 0 stands for the filter's own block size, 8192 bytes; 2 for LZ4 (as in real EIGER1 files).
_SETTINGS = (0, 2)


def compressed(image: np.ndarray) -> bytes:
    """Return an image, shape (y, x), as a chunk: 12 bytes of header and bitshuffle's LZ4 blocks."""
    with h5py.File(io.BytesIO(), "w") as file:
        images = _images(file, image.shape, image.dtype)
        images[0] = image
        return images.id.read_direct_chunk((0, 0, 0))[1]


def decompressed(chunk: bytes, shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """Return the image, shape (y, x), of a chunk that `compressed` or `images` made."""
    with h5py.File(io.BytesIO(), "w") as file:
        images = _images(file, shape, dtype)
        images.id.write_direct_chunk((0, 0, 0), chunk)
        return images[0]


def _images(file: h5py.File, shape: tuple[int, ...], dtype: np.dtype) -> h5py.Dataset:
    return file.create_dataset(
        "images",
        (1, *shape),
        dtype,
        chunks=(1, *shape),
        compression=_BITSHUFFLE_FILTER,
        compression_opts=_SETTINGS,
    )
