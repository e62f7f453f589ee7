"""A series of images on disk as one array-like object.

Loads neither ophyd nor an HTTP client.
"""

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np

from ophyd_eiger import reductions
from ophyd_eiger.errors import FileError, MissingFileError
from ophyd_eiger.geometry import read_parts, untold_centre
from ophyd_eiger.image_file import Box
from ophyd_eiger.indexing import first_image, select
from ophyd_eiger.master import Master, read_master
from ophyd_eiger.reductions import Hits, RadialProfile
from ophyd_eiger.series_metadata import SeriesMetadata, read_metadata
from ophyd_eiger.stack import Stack

# Which images a reduction takes: all that there are, one, a stretch, or a list.
Numbers = int | np.integer | slice | Sequence[int] | np.ndarray | None

if TYPE_CHECKING:
    from ophyd_eiger.pictures import Picture


def open_series(
    path: str | os.PathLike,
    *,
    channel: str | None = None,
    codec: str | None = None,
    threads: int | None = None,
) -> "Series":
    """Open a series.

    Parameters
    ----------
    path : path
        Its master file; a view of it, which has the images of a run's events in their order; one of
        its data files alone; or a folder that has no other series.
    channel : str, optional
        Which threshold, of a file that has several; the first by default.
    codec : str, optional
        What decompresses, one of `ophyd_eiger.codecs.available()`; the fastest by default.
    threads : int, optional
        How many threads read; one for each processor by default.

    Raises
    ------
    MissingFileError, FileError, CodecError
    """
    return Series(path, channel=channel, codec=codec, threads=threads)


class Series(Stack):
    """The images of one series, or those that a view shows of it.

    Indexes like a numpy array of shape (images, y, x); each access reads. An index reads the
    images that it names and no other, decompresses of these the rows that it names, and keeps the
    pixels that it names. Files are opened when they are needed and closed again. It can be used
    from several threads, pickled, and used in processes that were forked or spawned.

    Images behind a missing file keep their numbers. What came since is seen after `refresh`, or
    when an image is asked for that was not there.

    Parameters
    ----------
    path, channel, codec, threads
        As of `open_series`.

    Attributes
    ----------
    path : Path
        What it was opened by, absolute.
    ndim : int
        3.
    codec : str
        What decompresses the images, one of `ophyd_eiger.codecs.available()`.
    threads : int
        How many threads read.

    Raises
    ------
    MissingFileError
        If there is no such file, or none of the images of a master file.
    FileError
        If a file is not what it should be, or if a folder has several series, naming them.
    CodecError
        If there is no such codec, or it does not work here.
    """

    ndim = 3

    # ---- what it is

    def __repr__(self) -> str:
        missing = f", {len(self.missing)} files missing" if self.missing else ""
        # What the survey knows: looking into each of thousands of files would take its time.
        gap = self.survey.gap
        missing += f", {gap} images not there" if gap else ""
        return f"<Series {self.path.name}: {self.shape} {self.dtype}{missing}>"

    def _repr_html_(self) -> str:
        from ophyd_eiger.pictures import as_html

        facts = {"file": self.path, "images": len(self), "pixels (y, x)": self.shape[1:]}
        facts |= {"type": self.dtype, "files missing": len(self.missing)}
        facts |= {"images not there": self.survey.gap}
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

    def __enter__(self) -> "Series":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def channels(self) -> tuple[str, ...]:
        """The names of the thresholds, of a file that has several; else empty."""
        return self.source.channels

    @property
    def master_path(self) -> Path:
        """The master file, there or not; of a data file without one, the data file itself."""
        return self.source.master_path

    @property
    def master(self) -> Master:
        """What the master file says; a view's is the one beside it.

        Raises
        ------
        MissingFileError, FileError
        """
        master = self.source.master
        if master is None or master.path != self.master_path:
            return read_master(self.master_path)
        return master

    @property
    def mask(self) -> np.ndarray:
        """The pixel mask of the master file, uint32 of shape (y, x); 0 is a good pixel.

        What is no such number, as one above 32 bits, a negative one or NaN, is bit 31.

        Raises
        ------
        MissingFileError, FileError
        """
        return self.master.array("pixel_mask", self.source.channel)

    @property
    def flatfield(self) -> np.ndarray:
        """The flat-field factors of the master file, float32 of shape (y, x).

        Raises
        ------
        MissingFileError, FileError
        """
        found = self.master.array("flatfield", self.source.channel)
        return found.astype(np.float32, copy=False)

    @property
    def metadata(self) -> SeriesMetadata:
        """What the master file says beside its images, with units; read each time.

        What cannot be used is None, and logged as a warning that says what is there.

        Raises
        ------
        MissingFileError, FileError
        """
        return read_metadata(self.master_path, self.source.channel)

    # ---- images

    def __len__(self) -> int:
        return self.survey.images

    def __iter__(self) -> Iterator[np.ndarray]:
        for number in itertools.count():
            if number >= len(self):
                return
            yield self[number]

    def __getitem__(self, index: Any) -> np.ndarray:
        number = first_image(index)
        if number is not None and number >= len(self):
            self.check_there(number, number + 1)
        selection = select(index, self.shape)
        if selection.nothing is not None:
            return np.empty(selection.nothing, self.dtype)
        box = Box(selection.rows, selection.columns)
        if selection.pixels is None:
            return self.pick(selection.images, box=box)[selection.key]
        found = self.pick_pixels(selection.images, box, selection.pixels, selection.kept)
        return found[selection.key]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("images on disk cannot become an array without being read")
        images = self.read(0, len(self))
        return images if dtype is None else images.astype(dtype, copy=False)

    def dask(self, images: int = 1) -> da.Array:
        """Return the images as a dask array, read when it is computed.

        Parameters
        ----------
        images : int
            How many make a chunk.

        Raises
        ------
        FileError, ChunkError
            Where files claim so many images more than they have that no list of them is to be made.
        """
        count, y, x = self.shape
        self.check_list(range(count))
        chunks: Any = (max(1, min(images, count)), y, x)  # typed as text by dask
        whole: Any = self
        return da.from_array(whole, chunks=chunks, name=False)

    def read(self, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        """Read images `start` to `stop - 1`, counted from 0.

        Parameters
        ----------
        start, stop : int
            Which images.
        out : numpy.ndarray, optional
            Where they go, of shape (stop - start, y, x) and the images' type. A buffer that is used
            again saves the time that new memory takes.

        Returns
        -------
        numpy.ndarray
            `out`, or a new array.

        Raises
        ------
        IndexError
            If no such images were promised.
        MissingFileError
            If they were promised and are not there, naming the file that is missing.
        ChunkError
            If an image's bytes are broken.
        ValueError
            If `out` is of another shape or type.
        TypeError
            If it is no numpy array.
        """
        if out is not None and not isinstance(out, np.ndarray):
            raise TypeError(
                f"{self.path.name}: images go into a numpy array, not into a {type(out).__name__}"
            )
        if start > stop:
            raise IndexError(f"{self.path.name}: images {start} to {stop - 1} asked for")
        return self.pick(range(start, stop), out=out)

    # ---- reductions

    def sum(self, images: Numbers = None) -> np.ndarray:
        """Return the sum of images, uint64 of shape (y, x).

        A pixel that holds the largest value of its type in any of them, as masked ones and those
        beyond their range do, holds 2^64 - 1.

        Parameters
        ----------
        images : int, slice, sequence of int or numpy.ndarray, optional
            Which; all by default. `there` has those whose files are there.

        Raises
        ------
        IndexError, MissingFileError, ChunkError
            As `read`.
        """
        return reductions.sum_of(self, self._numbers(images))

    def mean(self, images: Numbers = None) -> np.ndarray:
        """Return the mean of images, float64 of shape (y, x).

        As `sum`; NaN where that holds 2^64 - 1.
        """
        return reductions.mean_of(self, self._numbers(images))

    def max(self, images: Numbers = None) -> np.ndarray:
        """Return the largest count of each pixel, of the images' type and shape (y, x).

        The largest value of the type stays what it is: masked, or beyond its range in an image.
        Parameters and errors as of `sum`.
        """
        return reductions.max_of(self, self._numbers(images))

    def roi_sums(
        self,
        rois: Mapping[str, Iterable[int] | None] | Sequence[Iterable[int]],
        images: Numbers = None,
    ) -> dict[str, np.ndarray]:
        """Return the sum of each region of interest in each image, uint64 of shape (images,).

        Pixels that hold the largest value of their type are left out. Of each image the rows of
        the regions, and those between, are decompressed.

        Parameters
        ----------
        rois : mapping or sequence
            Name: (x0, y0, width, height) in pixels, or None for the whole image; or such rectangles
            alone, which are named roi1, roi2 ...
        images
            As of `sum`.

        Raises
        ------
        RegionError
            If a region is none, or not within the images.
        IndexError, MissingFileError, ChunkError
            As `read`.
        """
        named = (
            rois
            if isinstance(rois, Mapping)
            else {f"roi{number}": roi for number, roi in enumerate(rois, 1)}
        )
        return reductions.roi_sums_of(self, self._numbers(images), named, self.path.name)

    def hits(self, images: Numbers = None) -> Hits:
        """Return the pixels that counted, in the order of images, rows and columns.

        Pixels that hold 0 or the largest value of their type are left out. Parameters and errors
        as of `sum`.
        """
        return reductions.hits_of(self, self._numbers(images))

    def radial_profile(
        self, images: Numbers = None, *, unit: str = "q", bins: int = 1000
    ) -> RadialProfile:
        """Return the mean counts of images by distance from the beam.

        The detector is taken to be perpendicular to the beam; a pixel counts where its middle is.
        A beam centre of (0, 0), which a detector has that nobody told, is a warning.
        Left out are those that the master's pixel mask has, if there is one, and those that hold
        the largest value of their type in any of the images.

        Parameters
        ----------
        images
            As of `sum`.
        unit : str
            "q" [1/angstrom], "2theta" [degree] or "radius" [pixel].
        bins : int
            How many, of the same width, from the beam to the farthest pixel.

        Raises
        ------
        ValueError
            If there is no such unit, or if the master does not say what it takes.
        IndexError, MissingFileError, FileError, ChunkError
            As `read` and `metadata`.
        """
        parts = read_parts(self.master_path, reductions.NEEDED.get(unit, ()))
        away = reductions.distances(self.shape[1:], parts, unit, self.master_path.name)
        self._tell(untold_centre(self.master_path, parts["beam_center_x"], parts["beam_center_y"]))
        # Data files alone have no mask, and some masters neither.
        mask = self.master.find("pixel_mask", self.source.channel)
        if mask is not None and mask.shape != self.shape[1:]:
            raise FileError(
                f"{self.master_path}: a mask of shape {mask.shape}, images of {self.shape[1:]}"
            )
        bad = None if mask is None else mask != 0
        return reductions.radial_profile_of(self, self._numbers(images), away, bad, bins, unit)

    # ---- where images are

    def lacks(self, first: int, images: int) -> str:
        """Return what is missing of `images` images from `first` on, counted from 0, or nothing.

        Of what it was when it was opened or refreshed.
        """
        survey, stop = self.survey, first + images
        if first < 0 or (stop > survey.images and self.source.is_view):
            return str(self.beyond(first, stop))
        if stop > survey.images:
            lost = "".join(f"{file.name} is missing" for file in survey.missing[:1])
            return f"{len(self)} found; {lost or 'the series was ended early'}"
        try:
            for _ in self.stretches(survey, range(first, stop)):
                pass
        except MissingFileError as error:
            return str(error)
        return ""

    def _numbers(self, images: Numbers) -> Sequence[int]:
        """Return the numbers that a reduction takes."""
        if images is None or isinstance(images, slice):
            numbers = range(*(images or slice(None)).indices(len(self)))
            self.check_claims(numbers)
            return numbers
        given = np.asarray([images] if isinstance(images, (int, np.integer)) else images)
        if given.dtype == bool and given.shape != (len(self),):
            raise IndexError(
                f"{self.path.name}: a mask of shape {given.shape} for {len(self)} images"
            )
        numbers = np.flatnonzero(given) if given.dtype == bool else given
        if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
            raise IndexError(f"{self.path.name}: {given!r} are no numbers of images")
        return [int(number) + (len(self) if number < 0 else 0) for number in numbers]
