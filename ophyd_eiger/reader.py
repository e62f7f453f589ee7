"""A series of images on disk as one array-like object.

Loads neither ophyd nor an HTTP client.
"""

import bisect
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 - registers the filters with HDF5
import numpy as np

from ophyd_eiger.chunks import BITSHUFFLE_FILTER, check_chunk
from ophyd_eiger.errors import ChunkError, FileError, MissingFileError
from ophyd_eiger.master import HDF5_ERRORS, Master, object_of, open_hdf5, read_master

IMAGES = "entry/data/data"
# Settings of the bitshuffle filter: where the size of an element stands, and where the codec.
_BITSHUFFLE_ELEMENT, _BITSHUFFLE_CODEC = 2, 4
_BITSHUFFLE_LZ4 = 2


@dataclass(frozen=True)
class Geometry:
    """What all images of a series have in common: shape (y, x) in pixels, and type of a pixel."""

    shape: tuple[int, int]
    dtype: np.dtype

    def __str__(self) -> str:
        return f"{self.shape[0]} x {self.shape[1]} {self.dtype}"


@dataclass(frozen=True)
class Part:
    """One file's share of a series: images `first` to `first + images - 1`, counted from 0."""

    path: Path
    first: int
    images: int


def open_series(path: str | os.PathLike) -> "Series":
    """Open a series by its master file.

    Raises
    ------
    MissingFileError, FileError
    """
    return Series(path)


class Series:
    """The images of one series.

    Indexes like a numpy array of shape (images, y, x); each access reads. Files are opened when
    they are needed and closed again. Which files there are is looked up once: a series opened
    anew sees those that came since.

    Parameters
    ----------
    path : path
        The master file.

    Attributes
    ----------
    master : Master
        What the master file says.
    shape : tuple of int
        (images found, y, x); images behind a missing data file do not count.
    dtype : numpy.dtype
        Type of a pixel.
    ndim : int
        3.
    missing : tuple of Path
        Data files that the master links to and that are not there.

    Raises
    ------
    MissingFileError
        If there is no master file, or not a single image.
    FileError
        If a file is not what it should be.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.master: Master = read_master(Path(path))
        named = self.master.data_files or (self.master.path,)
        self.missing = tuple(file for file in named if not file.exists())
        self._parts: list[Part] = []
        geometry: Geometry | None = None
        total = 0
        for file in named:
            if file in self.missing:
                break
            images, found = _survey(file)
            if found != (geometry or found):
                raise FileError(f"{file}: images of {found}, {geometry} in the files before")
            geometry = found
            self._parts.append(Part(file, total, images))
            total += images
        if geometry is None:
            names = ", ".join(file.name for file in self.missing)
            raise MissingFileError(f"{path}: no image found; {names} missing")
        self.dtype = geometry.dtype
        self.shape = (total, *geometry.shape)
        self.ndim = 3

    def __repr__(self) -> str:
        missing = f", {len(self.missing)} files missing" if self.missing else ""
        return f"<Series {self.master.path.name}: {self.shape} {self.dtype}{missing}>"

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        for number in range(len(self)):
            yield self[number]

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold the images found."""
        return tuple(part.path for part in self._parts)

    @property
    def mask(self) -> np.ndarray:
        """The pixel mask of the master file, uint32 of shape (y, x); 0 is a good pixel."""
        return self.master.mask

    @property
    def flatfield(self) -> np.ndarray:
        """The flat-field factors of the master file, float32 of shape (y, x)."""
        return self.master.flatfield

    def __getitem__(self, index: Any) -> np.ndarray:
        key = index if isinstance(index, tuple) else (index,)
        first, pixels = (key[0], key[1:]) if key else (slice(None), ())
        if isinstance(first, (int, np.integer)) and not isinstance(first, bool):
            number = int(first) + (len(self) if first < 0 else 0)
            return self.read(number, number + 1)[(0, *pixels)]
        if first is Ellipsis:
            return self.read(0, len(self))[(first, *pixels)]
        if not isinstance(first, slice):
            raise TypeError(f"images are chosen by a number or a slice, not by {first!r}")
        return self.pick(range(*first.indices(len(self))))[(slice(None), *pixels)]

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return images `start` to `stop - 1`, counted from 0, of shape (stop - start, y, x).

        Raises
        ------
        IndexError
            If no such images were promised.
        MissingFileError
            If they were promised and are not there, naming the file that is missing.
        ChunkError
            If an image's bytes are broken.
        """
        if start > stop:
            raise IndexError(f"{self.master.path.name}: images {start} to {stop - 1} asked for")
        return self.pick(range(start, stop))

    def pick(self, numbers: range) -> np.ndarray:
        """Return the images of these numbers, counted from 0, in their order.

        Returns
        -------
        numpy.ndarray
            Of shape (len(numbers), y, x). Each file is opened once.

        Raises
        ------
        IndexError, MissingFileError, ChunkError
            As `read`.
        """
        if numbers:
            self._check_there(min(numbers[0], numbers[-1]), max(numbers[0], numbers[-1]) + 1)
        out = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        firsts = [part.first for part in self._parts]
        places = itertools.groupby(
            enumerate(numbers), lambda place: bisect.bisect_right(firsts, place[1]) - 1
        )
        for which, group in places:
            part = self._parts[which]
            with open_hdf5(part.path) as file:
                images = images_of(file, part.path)
                for place, number in group:
                    _read_image(images, number - part.first, part.path, out[place])
        return out

    def _check_there(self, start: int, stop: int) -> None:
        promised = self.master.images_promised
        to_come = bool(self.missing) if promised is None else stop <= promised
        if start < 0 or (stop > len(self) and not to_come):
            raise IndexError(
                f"{self.master.path.name}: images {start} to {stop - 1} asked for, it has "
                f"0 to {len(self) - 1}"
            )
        if stop > len(self):
            raise self._too_few(stop)

    def _too_few(self, wanted: int) -> MissingFileError:
        promised = self.master.images_promised
        said = "" if promised is None else f"{promised} images promised, "
        lost = "".join(f"; {file.name} is missing" for file in self.missing[:1])
        return MissingFileError(
            f"{self.master.path.name}: {said}{len(self)} found, image {wanted} asked for"
            f"{lost or '; the series was ended early'}"
        )


def _survey(path: Path) -> tuple[int, Geometry]:
    with open_hdf5(path) as file:
        images = images_of(file, path)
        return images.shape[0], Geometry(images.shape[1:], images.dtype)


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


def _read_image(images: h5py.Dataset, number: int, path: Path, out: np.ndarray) -> None:
    check_image(images, number, path)
    try:
        images.read_direct(out, np.s_[number])
    except HDF5_ERRORS as error:
        raise _broken(images, number, path, error) from error


def _broken(images: h5py.Dataset, number: int, path: Path, error: Exception) -> ChunkError:
    return ChunkError(f"{path}: image {number + 1} of {len(images)} is broken: {error}")
