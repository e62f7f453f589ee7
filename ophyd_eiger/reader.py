"""A series of images on disk as one array-like object.

Loads neither ophyd nor an HTTP client.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 - registers the filters with HDF5
import numpy as np

from ophyd_eiger.chunks import check_chunk
from ophyd_eiger.errors import ChunkError, FileError, MissingFileError
from ophyd_eiger.master import Master, open_hdf5, read_master

IMAGES = "entry/data/data"
# Shape (y, x) and type of an image.
Geometry = tuple[tuple[int, int], np.dtype]


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
    FileNotFoundError, FileError, MissingFileError
    """
    return Series(path)


class Series:
    """The images of one series.

    Indexes like a numpy array of shape (images, y, x); each access reads. Files are opened when
    they are needed and closed again.

    Parameters
    ----------
    path : path
        The master file.

    Attributes
    ----------
    shape : tuple of int
        (images found, y, x); images behind a missing data file do not count.
    dtype : numpy.dtype
        Type of a pixel.
    files : tuple of Path
        The files that hold the images found.
    missing : tuple of Path
        Data files that the master links to and that are not there.

    Raises
    ------
    MissingFileError
        If there is not a single image.
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
        (y, x), self.dtype = geometry
        self.shape = (total, y, x)
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
        return self._detector_array("pixel_mask")

    @property
    def flatfield(self) -> np.ndarray:
        """The flat-field factors of the master file, float32 of shape (y, x)."""
        return self._detector_array("flatfield")

    def __getitem__(self, index: object) -> np.ndarray:
        key = index if isinstance(index, tuple) else (index,)
        first, pixels = (key[0], key[1:]) if key else (slice(None), ())
        if isinstance(first, (int, np.integer)):
            number = int(first) + (len(self) if first < 0 else 0)
            return self.read(number, number + 1)[(0, *pixels)]
        if not isinstance(first, slice):
            raise TypeError(f"images are chosen by a number or a slice, not by {first!r}")
        start, stop, step = first.indices(len(self))
        if step < 1:
            raise ValueError(f"a step of {step} through the images; steps go forward")
        return self.read(start, max(start, stop))[(slice(None, None, step), *pixels)]

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return images `start` to `stop - 1`, counted from 0, of shape (stop - start, y, x).

        Raises
        ------
        MissingFileError
            If the series holds fewer images, naming the file that is not there.
        ChunkError
            If an image's bytes are broken.
        """
        if not 0 <= start <= stop:
            raise IndexError(f"{self.master.path}: no images {start} to {stop}")
        if stop > len(self):
            raise self._too_few(stop)
        out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        for part in self._parts:
            low, high = max(start, part.first), min(stop, part.first + part.images)
            if low < high:
                self._read_part(part, low, high, out[low - start : high - start])
        return out

    def _read_part(self, part: Part, low: int, high: int, out: np.ndarray) -> None:
        with open_hdf5(part.path) as opened:
            images = images_of(opened, part.path)
            for place, number in enumerate(range(low - part.first, high - part.first)):
                check_image(images, number, part.path)
                images.read_direct(out, np.s_[number], np.s_[place])

    def _too_few(self, wanted: int) -> MissingFileError:
        promised = self.master.images_promised
        said = "" if promised is None else f"{promised} images promised, "
        lost = "".join(f"; {file.name} is missing" for file in self.missing[:1])
        return MissingFileError(
            f"{self.master.path.name}: {said}{len(self)} found, image {wanted} asked for{lost}"
        )

    def _detector_array(self, name: str) -> np.ndarray:
        place = f"entry/instrument/detector/detectorSpecific/{name}"
        with open_hdf5(self.master.path) as file:
            dataset = file.get(place)
            if not isinstance(dataset, h5py.Dataset):
                raise FileError(f"{self.master.path}: no /{place}")
            return dataset[()]


def _survey(path: Path) -> tuple[int, Geometry]:
    with open_hdf5(path) as file:
        images = images_of(file, path)
        return images.shape[0], (images.shape[1:], images.dtype)


def images_of(file: h5py.File, path: Path) -> h5py.Dataset:
    """Return the images of a data file.

    Raises
    ------
    FileError
        If there are none of shape (images, y, x).
    """
    images = file.get(IMAGES)
    if not isinstance(images, h5py.Dataset) or images.ndim != 3:
        raise FileError(f"{path}: no images of shape (images, y, x) in /{IMAGES}")
    return images


def check_image(images: h5py.Dataset, number: int, path: Path) -> None:
    """Check the bytes of image `number`, counted from 0, before a filter sees them.

    Raises
    ------
    ChunkError
        Naming file and image.
    """
    created = images.id.get_create_plist()
    filters = [created.get_filter(place)[0] for place in range(created.get_nfilters())]
    try:
        if images.chunks != (1, *images.shape[1:]):
            raise ChunkError(f"chunks of {images.chunks}, not of one image")
        _, raw = images.id.read_direct_chunk((number, 0, 0))
        check_chunk(raw, filters, images.shape[1:], images.dtype)
    except (ChunkError, OSError, RuntimeError) as error:
        raise ChunkError(
            f"{path}: image {number + 1} of {len(images)} is broken: {error}"
        ) from error
