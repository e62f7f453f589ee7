"""A series of images on disk as one array-like object.

Loads neither ophyd nor an HTTP client.
"""

import bisect
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from ophyd_eiger.errors import FileError, MissingFileError
from ophyd_eiger.images import images_of, read_image
from ophyd_eiger.master import Master, open_hdf5, read_master
from ophyd_eiger.view import Part, check_sum, read_view

if TYPE_CHECKING:
    from ophyd_eiger.pictures import Picture


@dataclass(frozen=True)
class Geometry:
    """What all images of a series have in common: shape (y, x) in pixels, and type of a pixel."""

    shape: tuple[int, int]
    dtype: np.dtype

    def __str__(self) -> str:
        return f"{self.shape[0]} x {self.shape[1]} {self.dtype}"


def open_series(path: str | os.PathLike) -> "Series":
    """Open a series.

    Parameters
    ----------
    path : path
        Its master file; or a view of it, which has the images of a run's events in their order;
        or one of its data files alone.

    Raises
    ------
    MissingFileError, FileError
    """
    return Series(path)


class Series:
    """The images of one series, or those that a view shows of it.

    Indexes like a numpy array of shape (images, y, x); each access reads. Files are opened when
    they are needed and closed again. Which files there are is looked up once: a series opened
    anew sees those that came since.

    Parameters
    ----------
    path : path
        The master file, a view, or a data file.

    Attributes
    ----------
    path : Path
        The file it was opened by.
    master_path : Path
        The master file, there or not.
    shape : tuple of int
        (images, y, x). Of a master file, the images found: those behind a missing data file do not
        count. Of a view, those shown, missing ones among them.
    dtype : numpy.dtype
        Type of a pixel.
    ndim : int
        3.
    missing : tuple of Path
        Data files that the master or the view names and that are not there.

    Raises
    ------
    MissingFileError
        If there is no such file, or none of the images of a master file.
    FileError
        If a file is not what it should be.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        check_sum(self.path)
        with open_hdf5(self.path) as file:
            self._view = read_view(file, self.path)
        self._parts: tuple[Part, ...]
        if self._view is None:
            self.master_path = self.path
            self._master: Master | None = read_master(self.path)
            named = self._master.data_files or (self.path,)
            self.missing = tuple(file for file in named if not file.exists())
            self._parts, geometry = _survey_all(self.path, named, self.missing)
            images = self._parts[-1].stop
        else:
            self.master_path = self._view.master
            self._master = None
            self._parts = self._view.parts
            named = dict.fromkeys(part.path for part in self._parts)
            self.missing = tuple(file for file in named if not file.exists())
            images, geometry = self._view.shape[0], Geometry(self._view.shape[1:], self._view.dtype)
        self._firsts = [part.first for part in self._parts]
        self.dtype = geometry.dtype
        self.shape = (images, *geometry.shape)
        self.ndim = 3

    def __repr__(self) -> str:
        missing = f", {len(self.missing)} files missing" if self.missing else ""
        return f"<Series {self.path.name}: {self.shape} {self.dtype}{missing}>"

    def _repr_html_(self) -> str:
        from ophyd_eiger.pictures import as_html

        facts = {"file": self.path, "images": len(self), "pixels (y, x)": self.shape[1:]}
        facts |= {"type": self.dtype, "missing": len(self.missing)}
        return as_html(self, facts)

    def show(self, what: int | str = 0, **look: Any) -> "Picture":
        """Draw an image or a projection; see `ophyd_eiger.pictures`.

        Parameters
        ----------
        what : int or str
            The number of an image, counted from 0; "sum", "max", "sums" or "overview".
        **look
            As of `pictures.Look`: `log`, `top`, `mask`, `rings`, `geometry`.
        """
        from ophyd_eiger.pictures import Look, show

        return show(self, what, Look(**look))

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        for number in range(len(self)):
            yield self[number]

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold the images found."""
        named = dict.fromkeys(part.path for part in self._parts)
        return tuple(file for file in named if file not in self.missing)

    @property
    def master(self) -> Master:
        """What the master file says; a view's is the one beside it.

        Raises
        ------
        MissingFileError, FileError
        """
        if self._master is None:
            self._master = read_master(self.master_path)
        return self._master

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
            raise IndexError(f"{self.path.name}: images {start} to {stop - 1} asked for")
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
        places = [(self._part_of(number), place) for place, number in enumerate(numbers)]
        out: np.ndarray | None = None
        for part, group in itertools.groupby(places, lambda found: found[0]):
            with open_hdf5(part.path) as file:
                images = images_of(file, part.path)
                self._check_file(images, part)
                if out is None:
                    # Not before a file has images of this shape: a view may say any.
                    out = np.empty((len(numbers), *self.shape[1:]), self.dtype)
                for _, place in group:
                    inside = numbers[place] - part.first + part.start
                    read_image(images, inside, part.path, out[place])
        return np.empty((0, *self.shape[1:]), self.dtype) if out is None else out

    def lacks(self, first: int, images: int) -> str:
        """Return what is missing of `images` images from `first` on, counted from 0, or nothing."""
        if self._view is None:
            if first >= 0 and first + images <= len(self):
                return ""
            lost = "".join(f"{file.name} is missing" for file in self.missing[:1])
            return f"{len(self)} found; {lost or 'the series was ended early'}"
        try:
            self._check_there(first, first + images)
            for number in range(first, first + images):
                self._part_of(number)
        except (IndexError, MissingFileError) as error:
            return str(error)
        return ""

    def _part_of(self, number: int) -> Part:
        """Return where an image is.

        Raises
        ------
        MissingFileError
            If it is one that a view has a place for and that is not there.
        """
        which = bisect.bisect_right(self._firsts, number) - 1
        part = self._parts[which] if which >= 0 else None
        if part is None or number >= part.stop:
            raise MissingFileError(
                f"{self.path}: image {number + 1} of {len(self)} did not come; the view has no "
                "file for it"
            )
        if part.path in self.missing:
            raise MissingFileError(
                f"{self.path}: image {number + 1} of {len(self)} is not there; {part.path.name} "
                "is missing"
            )
        return part

    def _check_file(self, images: h5py.Dataset, part: Part) -> None:
        """Check that a file has what the master's survey found or what a view says."""
        found = Geometry(images.shape[1:], images.dtype)
        promised = Geometry(self.shape[1:], self.dtype)
        if found != promised:
            raise FileError(f"{part.path}: images of {found}, {promised} in {self.path.name}")
        if part.start + part.images > len(images):
            raise FileError(
                f"{part.path}: {len(images)} images found, image {part.start + part.images} is "
                f"one of {self.path.name}"
            )

    def _check_there(self, start: int, stop: int) -> None:
        promised = self.master.images_promised if self._view is None else len(self)
        to_come = bool(self.missing) if promised is None else stop <= promised
        if start < 0 or (stop > len(self) and not to_come):
            raise IndexError(
                f"{self.path.name}: images {start} to {stop - 1} asked for, it has "
                f"0 to {len(self) - 1}"
            )
        if stop > len(self):
            raise self._too_few(stop)

    def _too_few(self, wanted: int) -> MissingFileError:
        promised = self.master.images_promised
        said = "" if promised is None else f"{promised} images promised, "
        lost = "".join(f"; {file.name} is missing" for file in self.missing[:1])
        return MissingFileError(
            f"{self.path.name}: {said}{len(self)} found, image {wanted} asked for"
            f"{lost or '; the series was ended early'}"
        )


def _survey_all(
    path: Path, named: Sequence[Path], missing: Sequence[Path]
) -> tuple[tuple[Part, ...], Geometry]:
    """Return what the files of a series have, up to the first that is missing."""
    parts: list[Part] = []
    geometry: Geometry | None = None
    total = 0
    for file in named:
        if file in missing:
            break
        images, found = _survey(file)
        if found != (geometry or found):
            raise FileError(f"{file}: images of {found}, {geometry} in the files before")
        geometry = found
        parts.append(Part(file, total, images))
        total += images
    if geometry is None:
        names = ", ".join(file.name for file in missing)
        raise MissingFileError(f"{path}: no image found; {names} missing")
    return tuple(parts), geometry


def _survey(path: Path) -> tuple[int, Geometry]:
    with open_hdf5(path) as file:
        images = images_of(file, path)
        return images.shape[0], Geometry(images.shape[1:], images.dtype)
