"""The images of a series, read by their numbers: which file has each, in several threads.

What `reader.Series` makes an array of. Files are opened when they are needed and closed again.
"""

import bisect
import contextlib
import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from ophyd_eiger.bands import BAND_BYTES, TOGETHER, Bands, Use
from ophyd_eiger.codecs import codec as codec_named
from ophyd_eiger.errors import ChangedFileError, EigerError, FileError, MissingFileError
from ophyd_eiger.image_file import Box, Geometry, ImageFile, Room, look_into
from ophyd_eiger.packed import Packed
from ophyd_eiger.parallel import do_all, processors
from ophyd_eiger.source import Source, read_source
from ophyd_eiger.survey import Survey, wrong_number
from ophyd_eiger.view import Part

logger = logging.getLogger(__name__)

# Bytes of the images that one task of a thread reads, at most: enough that handing it out costs
# nothing beside it. And how many tasks there are for each thread, at least, so that all end at
# about the same time.
_TASK_BYTES, _TASKS = 2**26, 4
# So many images more than a file has are listed at most, before one is found not to be there.
_LISTED = 2**16


class Stack:
    """The images of one series, or those that a view shows of it.

    Images behind a missing file keep their numbers. What came since is seen after `refresh`, or
    when an image is asked for that was not there. It can be used from several threads, pickled, and
    used in processes that were forked or spawned.

    Parameters
    ----------
    path, channel, codec, threads
        As of `reader.open_series`.

    Attributes
    ----------
    path : Path
        What it was opened by, absolute.
    threads : int
        How many threads read.

    Raises
    ------
    MissingFileError, FileError, CodecError
        As `reader.open_series`.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        channel: str | None = None,
        codec: str | None = None,
        threads: int | None = None,
    ) -> None:
        # Whoever changes the working directory, or unpickles it in another, means the same file.
        self.path = Path(path).absolute()
        self._wanted_codec, self._wanted_channel = codec, channel
        self._codec = codec_named(codec)
        self.threads = processors() if threads is None else max(1, int(threads))
        self._looked: dict[tuple[Path, str], ImageFile] = {}
        self._told: set[str] = set()
        self._thorough = False
        self.source: Source
        self.refresh()

    def refresh(self) -> Self:
        """Look again which files are there; images that came since are added at the end.

        Returns
        -------
        Stack
            This one.

        Raises
        ------
        MissingFileError, FileError
        """
        source = read_source(self.path, self._wanted_channel, thorough=self._thorough)
        self._tell(source.survey.remark)
        self._looked.update(source.survey.looked)
        self.source = replace(source, survey=replace(source.survey, looked={}))
        return self

    def _look_into_all(self) -> Survey:
        """Look into every file, now and at each refresh, where some were taken to be like others.

        Raises
        ------
        MissingFileError, FileError
        """
        if self.survey.guessed:
            before, self._thorough = self._thorough, True
            try:
                self.refresh()
            except EigerError:
                self._thorough = before
                raise
        return self.survey

    def _tell(self, remark: str) -> None:
        if remark and remark not in self._told:
            self._told.add(remark)
            logger.warning("%s", remark)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_looked": {}, "_codec": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        # Another machine may have another codec.
        self._codec = codec_named(self._wanted_codec)

    def close(self) -> None:
        """Forget what is known of the files; it can be used all the same."""
        self._looked = {}

    @property
    def survey(self) -> Survey:
        """Where the images are, as it was found last."""
        return self.source.survey

    @property
    def geometry(self) -> Geometry:
        """Shape (y, x) and type of an image."""
        return self.survey.geometry

    @property
    def shape(self) -> tuple[int, int, int]:
        """(images, y, x): up to the last image that is there; of a view, all that it shows."""
        survey = self.survey
        return (survey.images, *survey.geometry.shape)

    @property
    def dtype(self) -> np.dtype:
        """Type of a pixel."""
        return self.survey.geometry.dtype

    @property
    def size(self) -> int:
        """How many pixels there are in all images."""
        images, y, x = self.shape
        return images * y * x

    @property
    def nbytes(self) -> int:
        """How many bytes all images take in memory."""
        return self.size * self.dtype.itemsize

    @property
    def codec(self) -> str:
        """What decompresses the images."""
        return self._codec.name

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold the images found."""
        survey = self.survey
        return tuple(dict.fromkeys(part.path for part in survey.parts if survey.has(part)))

    @property
    def missing(self) -> tuple[Path, ...]:
        """Data files that the master or the view names and that are not there.

        Images that never came are in no file: `gap` says how many images are lacking.
        """
        return self.survey.missing

    @property
    def gap(self) -> int:
        """How many of its images are not there, as they never came or as their file is missing.

        Looks into every file once, as `there` does: a millisecond each. One that cannot be looked
        into counts as it did: what a series is can be told all the same.
        """
        with contextlib.suppress(EigerError):
            self._look_into_all()
        return self.survey.gap

    @property
    def there(self) -> np.ndarray:
        """The numbers of the images that files have which are there, int64, rising."""
        found = self._look_into_all().there()
        for numbers in found:
            self.check_claims(numbers)
        return np.concatenate([np.empty(0, np.int64), *(np.arange(n.start, n.stop) for n in found)])

    def pick(
        self,
        numbers: Sequence[int],
        *,
        box: Box | None = None,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Read the images of these numbers, counted from 0, in their order.

        Parameters
        ----------
        numbers : sequence of int
            Which images.
        box : Box, optional
            The rectangle that is wanted of each; the whole image by default.
        out : numpy.ndarray, optional
            As of `read`.

        Returns
        -------
        numpy.ndarray
            Of shape (len(numbers), y, x).

        Raises
        ------
        IndexError, MissingFileError, ChunkError, ValueError
            As `read`.
        """
        box = box or self.geometry.box
        shape = (len(numbers), *box.shape)
        if out is not None and (out.shape, out.dtype) != (shape, self.dtype):
            raise ValueError(
                f"{self.path.name}: images of shape {shape} and type {self.dtype} do not go into "
                f"an array of {out.shape} and {out.dtype}"
            )
        if out is not None and not out.flags.writeable:
            raise ValueError(f"{self.path.name}: images do not go into an array that is read-only")
        tasks = self._tasks(numbers, box)
        # Not before files were looked into: a view may promise any shape.
        images = np.empty(shape, self.dtype) if out is None else out
        kept = _Memory()

        def read(task: list[tuple[int, int, Part]]) -> None:
            with _Reading(self, task[0][2], kept.room) as reading:
                for place, number, part in task:
                    reading.read(part, number, images[place], box)

        self._do_all(read, tasks)
        return images

    def pick_pixels(
        self, numbers: Sequence[int], box: Box, pixels: tuple, shape: tuple[int, ...]
    ) -> np.ndarray:
        """Read some pixels of the images of these numbers, counted from 0, in their order.

        No more than an image for each thread is in memory beside them.

        Parameters
        ----------
        numbers : sequence of int
            Which images.
        box : Box
            The rectangle of each that has the pixels.
        pixels : tuple
            The index that an image of the box's shape is given.
        shape : tuple of int
            The shape of what it returns.

        Returns
        -------
        numpy.ndarray
            Of shape (len(numbers), *shape).

        Raises
        ------
        IndexError, MissingFileError, ChunkError
            As `read`.
        """
        tasks = self._tasks(numbers, box)
        # Not before files were looked into: a view may promise any shape.
        found = np.empty((len(numbers), *shape), self.dtype)

        def keep(place: int, image: np.ndarray) -> None:
            found[place] = image[pixels]

        self._go_through(tasks, keep, box)
        return found

    def for_each(
        self,
        numbers: Sequence[int],
        use: Callable[[int, np.ndarray], None],
        box: Box | None = None,
    ) -> None:
        """Call `use` with the place in `numbers` and the image, for each, from several threads.

        The array is used again for the next image; what is to stay has to be copied.

        Raises
        ------
        IndexError, MissingFileError, ChunkError
            As `read`, and whatever `use` raises.
        """
        box = box or self.geometry.box
        self._go_through(self._tasks(numbers, box), use, box)

    def _go_through(
        self,
        tasks: list[list[tuple[int, int, Part]]],
        use: Callable[[int, np.ndarray], None],
        box: Box,
    ) -> None:
        kept = _Memory()

        def read(task: list[tuple[int, int, Part]]) -> None:
            if not hasattr(kept, "image"):
                kept.image = np.empty(box.shape, self.dtype)
            with _Reading(self, task[0][2], kept.room) as reading:
                for place, number, part in task:
                    reading.read(part, number, kept.image, box)
                    use(place, kept.image)

        self._do_all(read, tasks)

    def in_bands(self, numbers: Sequence[int], use: Use) -> None:
        """Call `use` with a band of pixels of some of the images, until it had every pixel of all.

        From several threads, and in no order. Bands do not overlap.

        Parameters
        ----------
        numbers : sequence of int
            Which images.
        use : callable
            Takes which pixels, a slice along the rows, and their values, of shape
            (images, pixels); the array is used again for the next band.

        Raises
        ------
        IndexError, MissingFileError, ChunkError
            As `read`, and whatever `use` raises.
        """
        kept = threading.local()
        geometry = self.geometry

        def read(task: list[tuple[int, int, Part]]) -> None:
            if not hasattr(kept, "bands"):
                kept.bands = Bands(geometry, self._codec)
            with _Reading(self, task[0][2]) as reading:
                kept.bands.go_through((reading.packed(part, n) for _, n, part in task), use)

        together = max(1, min(TOGETHER, len(numbers) // self.threads))
        self._do_all(read, self._tasks(numbers, geometry.box, together))

    def _do_all(
        self,
        work: Callable[[list[tuple[int, int, Part]]], None],
        tasks: list[list[tuple[int, int, Part]]],
    ) -> None:
        """Do what `_tasks` returned.

        Raises
        ------
        MissingFileError, FileError, ChunkError
        """
        try:
            do_all(work, tasks, self.threads)
        except _ShortFileError as error:
            short = error
        else:
            return
        # What is raised here is not chained to that: it would name two images for one error.
        survey = self._look_into_all()
        for _, number, _ in itertools.chain.from_iterable(tasks):
            self.part_of(survey, number)
        raise FileError(f"{short}")

    def _tasks(
        self, numbers: Sequence[int], box: Box, together: int = 1
    ) -> list[list[tuple[int, int, Part]]]:
        """Return what each task reads: place in the result, number of the image, where it is.

        One task has so many images together at least, if one file has them.

        Raises
        ------
        IndexError, MissingFileError, FileError
            If an image is not there, before any is read.
        """
        if not len(numbers):
            return []
        # A range's own ends: a file may claim more images than can be gone through.
        ends = sorted({numbers[0], numbers[-1]} if isinstance(numbers, range) else numbers)
        ends = ends[0], ends[-1]
        self.check_there(ends[0], ends[1] + 1)
        self.check_claims(numbers)
        survey = self.survey
        lacking: Exception | None = None
        try:
            for number in ends:
                part = self.part_of(survey, number)
                self._check_written(part, number)
            found = [(place, n, self.part_of(survey, n)) for place, n in enumerate(numbers)]
        except (MissingFileError, _ShortFileError) as error:
            found, lacking = [], error
        # What is raised here is not chained to that: it would name two images for one error.
        if lacking is not None:
            short = isinstance(lacking, _ShortFileError)
            survey = self._look_into_all() if short else self.refresh().survey
            found = [(place, n, self.part_of(survey, n)) for place, n in enumerate(numbers)]
        if 0 in box.shape:
            return []
        pixels = box.shape[0] * self.shape[2] * self.dtype.itemsize
        fair = len(numbers) // (_TASKS * self.threads)
        most = max(together, min(fair, _TASK_BYTES // max(pixels, 1)), 1)
        tasks: list[list[tuple[int, int, Part]]] = []
        for item in found:
            last = tasks[-1] if tasks else []
            if last and len(last) < most and _same_file(last[-1][2], item[2]):
                last.append(item)
            else:
                tasks.append([item])
        return tasks

    def part_of(self, survey: Survey, number: int) -> Part:
        """Return where an image is.

        Raises
        ------
        MissingFileError
            If it is not there.
        """
        part = survey.part_of(number)
        where = f"{self.path}: image {number + 1} of {survey.images}"
        if part is None:
            reason = "; the view has no file for it" if self.source.is_view else ""
            raise MissingFileError(f"{where} did not come{reason}")
        if not survey.has(part):
            raise MissingFileError(f"{where} is not there; {part.path.name} is missing")
        return part

    def stretches(self, survey: Survey, numbers: range) -> Iterator[tuple[Part, range]]:
        """Yield where images are, of which the numbers rise, and which of them are there.

        Raises
        ------
        MissingFileError
            If one is not there, when it is its turn.
        """
        while numbers:
            part = self.part_of(survey, numbers[0])
            inside = bisect.bisect_left(numbers, part.stop)
            yield part, numbers[:inside]
            numbers = numbers[inside:]

    def check_claims(self, numbers: Sequence[int]) -> None:
        """See that there are images enough, before anything is laid out for each.

        A file of a few bytes may claim more of them than any memory has room for.

        Raises
        ------
        MissingFileError, FileError, ChunkError
        """
        if not isinstance(numbers, range) or len(numbers) <= _LISTED:
            return
        rising = numbers if numbers.step > 0 else numbers[::-1]
        try:
            self._check_claims(rising)
        except MissingFileError:
            lacking = self.refresh  # It may have come since.
        except _ShortFileError:
            lacking = self._look_into_all
        else:
            return
        # What is raised here is not chained to that: it would name two images for one error.
        lacking()
        self._check_claims(rising)

    def check_list(self, numbers: range) -> None:
        """See that a list of images can be made, step 1, before it is: some may be missing.

        Raises
        ------
        FileError, ChunkError
        """
        for there in self.survey.there():
            with contextlib.suppress(MissingFileError):
                self.check_claims(
                    range(max(there.start, numbers.start), min(there.stop, numbers.stop))
                )

    def _check_claims(self, rising: range) -> None:
        for part, inside in self.stretches(self.survey, rising):
            if len(inside) > _LISTED and len(inside) > _LISTED + self._known(part).most:
                for number in inside:
                    self._check_written(part, number)

    def check_there(self, start: int, stop: int) -> None:
        """Look again if images are asked for that are not known.

        Raises
        ------
        IndexError, MissingFileError
        """
        if start >= 0 and stop <= self.survey.images:
            return
        if start >= 0 and not self.source.is_view:
            self.refresh()
        if start < 0 or stop > self.survey.images:
            raise self.beyond(start, stop)

    def beyond(self, start: int, stop: int) -> IndexError | MissingFileError:
        """Return what is wrong with asking for images that are not there."""
        survey = self.survey
        found, promised = survey.images, survey.promised
        to_come = bool(survey.missing) if promised is None else stop <= promised
        if start < 0 or not to_come or self.source.is_view:
            has = f"0 to {found - 1}" if found else "no images"
            return IndexError(
                f"{self.path.name}: images {start} to {stop - 1} asked for, it has {has}"
            )
        said = "" if promised is None else f"{promised} images promised, "
        part = survey.part_of(stop - 1)
        files = (part.path,) if part and not survey.has(part) else survey.missing[:1]
        lost = "".join(f"; {file.name} is missing" for file in files)
        return MissingFileError(
            f"{self.path.name}: {said}{found} found, image {stop} asked for"
            f"{lost or '; the series was ended early'}"
        )

    def _known(self, part: Part, *, again: bool = False) -> ImageFile:
        """Return what is known of a file, looked into if it is not.

        Raises
        ------
        MissingFileError
            If it is not there any more.
        FileError
            If it has not what the survey found or the view says.
        """
        key = (part.path, part.place)
        found = None if again else self._looked.get(key)
        if found is None:
            found = self._looked[key] = look_into(part.path, part.place)
        if found.geometry != self.geometry:
            raise FileError(
                f"{part.path}: images of {found.geometry}, {self.geometry} in {self.path.name}"
            )
        if self.source.is_view and part.start + part.images > found.images:
            raise self._too_few(part, found, part.start + part.images)
        if part.channel >= found.channels:
            raise FileError(f"{part.path}: {found.channels} channels, {part.channel + 1} needed")
        start = self.survey.start
        number = None if start is None else start + part.first
        if number is not None and found.low not in (None, number):
            if start not in found.starts(part.first):
                raise FileError(
                    f"{part.path}: its images are numbered from {found.low}, {number} expected in "
                    f"{self.path.name}"
                )
            self._tell(wrong_number(self.path, found, number))
        return found

    def _check_written(self, part: Part, number: int) -> None:
        known, inside = self._known(part), _inside(part, number)
        if inside >= known.images:
            raise self._too_few(part, known, inside + 1)
        known.check_written(inside, part.channel)

    def _too_few(self, part: Part, found: ImageFile, wanted: int) -> Exception:
        kind = _ShortFileError if self.survey.guessed else FileError
        return kind(
            f"{part.path}: {found.images} images found, image {wanted} is one of {self.path.name}"
        )


class _ShortFileError(Exception):
    """A file that was taken to be like the first one has fewer images.

    Goes no further than `check_claims`, `_tasks` and `_do_all`.
    """


class _Memory(threading.local):
    """What each thread that reads has for itself, from its first image to its last."""

    def __init__(self) -> None:
        self.room = Room()


class _Reading:
    """One file, open while a task reads it."""

    def __init__(self, stack: Stack, part: Part, room: Room | None = None) -> None:
        self._stack, self._part, self._room = stack, part, room

    def __enter__(self) -> "_Reading":
        known = self._stack._known  # noqa: SLF001 - a part of Stack
        self._known = known(self._part)
        try:
            self._file = self._known.open()
        except ChangedFileError:
            self._known = known(self._part, again=True)
            self._file = self._known.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, part: Part, number: int, out: np.ndarray, box: Box) -> None:
        inside = self._inside(part, number)
        codec = self._stack._codec  # noqa: SLF001 - a part of Stack
        self._known.read(
            self._file, inside, out, codec=codec, channel=part.channel, box=box, room=self._room
        )

    def packed(self, part: Part, number: int) -> Packed:
        return self._known.packed(self._file, self._inside(part, number), part.channel, BAND_BYTES)

    def _inside(self, part: Part, number: int) -> int:
        inside, known = _inside(part, number), self._known
        if inside >= known.images:
            raise self._stack._too_few(part, known, inside + 1)  # noqa: SLF001 - a part of it
        return inside


def _inside(part: Part, number: int) -> int:
    """Return the place of an image in its file."""
    return number - part.first + part.start


def _same_file(one: Part, other: Part) -> bool:
    return (one.path, one.place) == (other.path, other.place)
