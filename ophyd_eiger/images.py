"""The images in an open file: where an EIGER has them, each one checked before it is read.

Knows nothing of series: which image of which file is wanted is said by others.
"""

from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 - registers the filters with HDF5
import numpy as np

from ophyd_eiger.chunks import BITSHUFFLE_FILTER, check_chunk
from ophyd_eiger.errors import ChunkError, FileError
from ophyd_eiger.master import HDF5_ERRORS, object_of

# Where a data file, a view, or a master that holds its images, has them.
IMAGES = "entry/data/data"
# Settings of the bitshuffle filter: where the size of an element stands, and where the codec.
_BITSHUFFLE_ELEMENT, _BITSHUFFLE_CODEC = 2, 4
_BITSHUFFLE_LZ4 = 2


def images_of(file: h5py.File, path: Path) -> h5py.Dataset:
    """Return the images of a data file.

    Raises
    ------
    FileError
        If there are none of shape (images, y, x), or if their pixels are no counts.
    """
    images = object_of(file, IMAGES)
    if not isinstance(images, h5py.Dataset) or images.ndim != 3:
        raise FileError(f"{path}: no images of shape (images, y, x) in /{IMAGES}")
    if images.dtype.kind != "u":
        raise FileError(f"{path}: pixels of type {images.dtype}, not unsigned integers")
    return images


def check_image(images: h5py.Dataset, number: int, path: Path) -> None:
    """Check the bytes of image `number`, counted from 0, before a filter sees them.

    Raises
    ------
    ChunkError
        Naming file and image.
    """
    shape = images.shape[1:]
    try:
        if images.chunks != (1, *shape):
            raise ChunkError(f"chunks of {images.chunks}, not of one image")
        skipped, raw = images.id.read_direct_chunk((number, 0, 0))
        check_chunk(raw, _filters(images, skipped), shape, images.dtype)
    except HDF5_ERRORS as error:  # ChunkError among them
        raise _broken(images, number, path, error) from error


def _filters(images: h5py.Dataset, skipped: int) -> list[int]:
    """Return the filters that a chunk went through; bit n of `skipped` leaves out filter n."""
    created = images.id.get_create_plist()
    filters = []
    for place in range(created.get_nfilters()):
        code, _, settings, _ = created.get_filter(place)
        if skipped >> place & 1:
            continue
        if code == BITSHUFFLE_FILTER and (
            len(settings) <= _BITSHUFFLE_CODEC
            or settings[_BITSHUFFLE_ELEMENT] != images.dtype.itemsize
            or settings[_BITSHUFFLE_CODEC] != _BITSHUFFLE_LZ4
        ):
            # The codec goes by these and not by the type, so a wrong one leads it astray.
            raise ChunkError(f"bitshuffle settings {settings} are none that an EIGER writes")
        filters.append(code)
    return filters


def read_image(images: h5py.Dataset, number: int, path: Path, out: np.ndarray) -> None:
    """Read image `number`, counted from 0, into `out` of its shape and type.

    Raises
    ------
    ChunkError
        Naming file and image.
    """
    check_image(images, number, path)
    try:
        images.read_direct(out, np.s_[number])
    except HDF5_ERRORS as error:
        raise _broken(images, number, path, error) from error


def _broken(images: h5py.Dataset, number: int, path: Path, error: Exception) -> ChunkError:
    return ChunkError(f"{path}: image {number + 1} of {len(images)} is broken: {error}")
