"""The images in an open file: where an EIGER has them, and what they were filtered by.

Knows nothing of series: which image of which file is wanted is said by others.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 - registers the filters with HDF5

from ophyd_eiger.chunks import BITSHUFFLE_FILTER
from ophyd_eiger.errors import FileError, StorageError
from ophyd_eiger.master import IMAGES, object_of, only_integer

# Settings of the bitshuffle filter: where the size of an element stands, and where the codec.
_BITSHUFFLE_ELEMENT, _BITSHUFFLE_CODEC = 2, 4
_BITSHUFFLE_LZ4 = 2


def images_of(file: h5py.File, path: Path, place: str = IMAGES) -> h5py.Dataset:
    """Return the images of a data file.

    Raises
    ------
    FileError
        If there are none of shape (images, y, x), or if their pixels are no counts.
    """
    images = object_of(file, place)
    if not isinstance(images, h5py.Dataset) or images.ndim != 3:
        raise FileError(f"{path}: no images of shape (images, y, x) in /{place}")
    return _with_counts(images, path)


def stack_of(file: h5py.File, path: Path, place: str = IMAGES) -> h5py.Dataset:
    """Return the images of a file, with or without channels, or its only image.

    An EIGER2 that is gated from outside may write one without an axis for images.

    Raises
    ------
    FileError
        If there are none of shape (images, y, x) or (images, channels, y, x) and it is no chunk of
        shape (y, x), or if their pixels are no counts.
    """
    images = object_of(file, place)
    if isinstance(images, h5py.Dataset) and (
        images.ndim == 4 or (images.ndim == 2 and images.chunks == images.shape)
    ):
        return _with_counts(images, path)
    return images_of(file, path, place)


def _with_counts(images: h5py.Dataset, path: Path) -> h5py.Dataset:
    if images.dtype.kind != "u":
        raise FileError(f"{path}: pixels of type {images.dtype}, not unsigned integers")
    stored: Any = images.id.get_type()
    if stored.get_offset() or stored.get_precision() != 8 * images.dtype.itemsize:
        # Their bytes are read past HDF5, which alone would know which bits of them count.
        raise FileError(
            f"{path}: pixels with {stored.get_precision()} bits of {8 * images.dtype.itemsize}"
        )
    return images


def number_of(images: h5py.Dataset, end: str) -> int | None:
    """Return `image_nr_low` or `image_nr_high` of a file; None if it says no integer."""
    return only_integer(images.attrs.get(f"image_nr_{end}"))


def filters_of(images: h5py.Dataset) -> Callable[[int], list[int]]:
    """Return what says which filters a chunk went through, by those that it skipped.

    Bit n of what a chunk has skipped leaves out filter n. What is returned raises StorageError
    where bitshuffle's settings are none that an EIGER writes.
    """
    created = images.id.get_create_plist()
    known = [created.get_filter(place) for place in range(created.get_nfilters())]
    itemsize = images.dtype.itemsize

    def filters(skipped: int) -> list[int]:
        found = []
        for place, (code, _, settings, _) in enumerate(known):
            if skipped >> place & 1:
                continue
            if code == BITSHUFFLE_FILTER and (
                len(settings) <= _BITSHUFFLE_CODEC
                or settings[_BITSHUFFLE_ELEMENT] != itemsize
                or settings[_BITSHUFFLE_CODEC] != _BITSHUFFLE_LZ4
            ):
                # A codec goes by these and not by the type, so a wrong one leads it astray.
                raise StorageError(f"bitshuffle settings {settings} are none that an EIGER writes")
            found.append(code)
        return found

    return filters
