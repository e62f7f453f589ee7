"""Readers that databroker finds by their `spec` and calls with what a run's documents say.

Loads neither ophyd nor an HTTP client: an analysis machine has no detector.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import dask.array as da
import numpy as np

from ophyd_eiger.errors import FileError, MissingFileError
from ophyd_eiger.images import IMAGES
from ophyd_eiger.reader import Series, open_series

SPEC = "EIGER_SIMPLON"
# Each point of a scan has a Resource, hence a handler, of its own; the handlers of one series share
# what is known of its files, so that these are surveyed once and not once a point.
_open_series: "WeakValueDictionary[tuple[str, int, int], Series]" = WeakValueDictionary()


@dataclass(frozen=True)
class Found:
    """Where the images of one event are.

    Attributes
    ----------
    series : Series
        That has them.
    numbers : range
        Their numbers in it, counted from 0.
    """

    series: Series
    numbers: range

    @property
    def shape(self) -> tuple[int, int, int]:
        """(images, y, x)."""
        return (len(self.numbers), *self.series.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """Type of a pixel."""
        return self.series.dtype

    def __len__(self) -> int:
        return len(self.numbers)


class EigerHandler:
    """Gives the images of an event back; spec "EIGER_SIMPLON".

    Parameters
    ----------
    path : path
        A view, or the series' master file.
    shape : sequence of int, optional
        Shape (y, x) of an image as the run's descriptor has it; checked if given, because
        databroker itself fills up what is a pixel or two short.
    dataset : str, optional
        Where a view's images are. This and the following are for tiled, which reads the view as
        any HDF5 file.
    chunk_shape, swmr, locking : optional
        How tiled is to read it; of no use here.

    Raises
    ------
    FileError
        If `dataset` is another than that of the images.
    """

    specs = frozenset({SPEC})

    def __init__(
        self,
        path: str | os.PathLike,
        shape: Sequence[int] | None = None,
        *,
        dataset: str = IMAGES,
        chunk_shape: Sequence[int] = (),
        swmr: bool = False,
        locking: bool | None = None,
    ) -> None:
        self.path = Path(path).absolute()
        self.shape = None if shape is None else tuple(shape)
        self._series: Series | None = None
        if dataset.removeprefix("/") != IMAGES:
            raise FileError(f"{self.path}: images are in /{IMAGES}, not in {dataset}")

    def __call__(self, first: int, images: int) -> da.Array:
        """Return the images of one event, read when they are computed.

        Parameters
        ----------
        first : int
            The event's first image in the view or the series, counted from 0.
        images : int
            How many images the event has.

        Returns
        -------
        dask.array.Array
            Of shape (images, y, x), one chunk an image.

        Raises
        ------
        MissingFileError
            If they are not there (yet), naming the file that is missing.
        FileError
            If a file is not what it should be, or its images are not of the shape promised.
        """
        return lazy_images(self.find(first, images))

    def find(self, first: int, images: int) -> Found:
        """Return where the images of one event are; parameters and errors as of a call."""
        series = self._series
        if series is None or series.lacks(first, images):
            # Files of a run may arrive after the run: look again before giving up.
            series = self._series = _shared_series(self.path, first, images)
        if lost := series.lacks(first, images):
            raise MissingFileError(
                f"{self.path}: images {first + 1} to {first + images} asked for, {lost}"
            )
        _, y, x = series.shape
        if self.shape not in (None, (y, x)):
            raise FileError(f"{self.path}: images of shape {(y, x)}, {self.shape} promised")
        return Found(series, range(first, first + images))

    def get_file_list(self, datum_kwargs_gen: Iterable[dict[str, Any]]) -> list[str]:
        """Return the files that the images are read from, the view and the master first."""
        list(datum_kwargs_gen)
        series = open_series(self.path)
        master = [series.master_path] if series.master_path.exists() else []
        return [str(file) for file in dict.fromkeys((self.path, *master, *series.files))]

    def get_file_sizes(self, datum_kwargs_gen: Iterable[dict[str, Any]]) -> list[int]:
        """Return the sizes in bytes of the files of `get_file_list`, in its order."""
        return sizes_of(self.get_file_list(datum_kwargs_gen))

    def close(self) -> None:
        """Forget what is known of the files; the next call looks again."""
        self._series = None


def lazy_images(found: Found) -> da.Array:
    """Return images that are read when they are computed, one chunk an image.

    Raises
    ------
    FileError, ChunkError
        Where files claim so many images more than they have that no list of them is to be made.
    """
    found.series.check_list(found.numbers)
    event: Any = _EventImages(found)
    chunks: Any = (1, *found.shape[1:])  # typed as text by dask
    return da.from_array(event, chunks=chunks, name=False, fancy=False)


def sizes_of(files: Iterable[str]) -> list[int]:
    """Return the sizes of files in bytes."""
    return [Path(file).stat().st_size for file in files]


def _shared_series(path: Path, first: int, images: int) -> Series:
    """Return the series, as another handler has it open if it has these images already."""
    try:
        found = path.stat()
    except OSError:
        return open_series(path)
    key = (str(path), found.st_mtime_ns, found.st_size)
    series = _open_series.get(key)
    if series is None or series.lacks(first, images):
        series = _open_series[key] = open_series(path)
    return series


class _EventImages:
    """The images of one event as dask wants them: shape, dtype, ndim and slices."""

    def __init__(self, found: Found) -> None:
        self._series = found.series
        self._numbers = found.numbers
        self.shape = found.shape
        self.dtype = found.dtype
        self.ndim = 3

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        images, *pixels = index
        return self._series.pick(self._numbers[images])[(slice(None), *pixels)]
