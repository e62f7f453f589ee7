"""The view of a series: a small HDF5 file whose one virtual dataset is the images of its events.

Written beside the files of a series and read back from them; knows no documents and no detector.
What any HDF5 program sees in it, and what our own reader makes of it, differ in two ways: a missing
image is filled there and an error here, and HDF5 follows the name of a source wherever it finds
one, while the reader takes the view's own folder only.

A view ends in a sum of what is before it. HDF5 lets a file be longer than it says, and loses the
sum when it changes the file. Where there is one, it is checked before HDF5 sees the file: HDF5
decodes what a virtual dataset maps before it compares its own sum of it, and crashes or does not
come back where single bits of it are wrong.
"""

import bisect
import hashlib
import itertools
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ophyd_eiger.errors import FileError
from ophyd_eiger.images import IMAGES, images_of, stack_of
from ophyd_eiger.master import HDF5_ERRORS, object_of, open_hdf5
from ophyd_eiger.writing import new_file

VIEW_ENDING = "_view.h5"

_NUMBERS = "entry/data/number_in_series"
# HDF5 1.10, the first with virtual datasets, reads what is written within these bounds.
_LIBVER = ("v110", "v110")
_NUMBERS_CHUNK = 2**16
_SUM_MARK = b"ophyd_eiger view, sha256 before:"
_SUM_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Part:
    """Images that follow one another, in a series or a view and in one of its files.

    Attributes
    ----------
    path : Path
        The file that holds them.
    first : int
        The first one's place in the series or the view, counted from 0.
    images : int
        How many there are.
    start : int
        The first one's place in the file, counted from 0.
    place : str
        Where the images are in the file.
    channel : int
        Which threshold of them, counted from 0.
    """

    path: Path
    first: int
    images: int
    start: int = 0
    place: str = IMAGES
    channel: int = 0

    @property
    def stop(self) -> int:
        """The place after the last one."""
        return self.first + self.images


@dataclass(frozen=True)
class View:
    """What a view says: which images it shows, and where they are.

    Attributes
    ----------
    path : Path
        The view.
    shape : tuple of int
        (images, y, x).
    dtype : numpy.dtype
        Type of a pixel.
    parts : tuple of Part
        Where its images are, in their order. What no part has is missing.
    master : Path
        The series' master file, there or not.
    """

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype
    parts: tuple[Part, ...]
    master: Path


def write_view(
    path: Path,
    events: Iterable[tuple[int, int]],
    files: Sequence[Part],
    *,
    shape: tuple[int, int],
    dtype: np.dtype,
    master: str,
    replace: bool = False,
) -> tuple[int, ...]:
    """Write a view: the images of these events, in the order of the events, as one dataset.

    `/entry/data/data` of shape (images, y, x) is filled with the largest value of its type where
    an image is missing; its attribute `missing` lists the places of these, counted from 0.
    `/entry/data/number_in_series` has the number of each image in its series, counted from 0, and
    the attribute `master` of `/entry/data` the master file's name.

    Parameters
    ----------
    path : Path
        The view, beside the files it shows. They are named without their folder, so that the
        folder can be moved.
    events : iterable of (int, int)
        First image, counted from 0 in the series, and number of images of each event.
    files : sequence of Part
        The files of the series with images, in order: the data files, or the master where the
        images are in it. One that is not there, with as many images as it is to have, is shown
        once it comes; its images are listed as missing.
    shape : tuple of int
        Shape (y, x) of an image in pixels.
    dtype : numpy.dtype
        Type of a pixel.
    master : str
        The master file's name.
    replace : bool
        Whether an older view of this name is replaced, as when files have come since.

    Returns
    -------
    tuple of int
        The places in the view, counted from 0, of the images that are missing.

    Raises
    ------
    FileExistsError
        If there is a file of this name and it is not to be replaced; it stays as it is.
    FileError
        If the view cannot be written, if a name cannot be put into one, if no event has an image,
        or if the images in the first file that is there are of another shape or type.
    """
    named = _joined(events)
    total = sum(images for _, images in named)
    if not total:
        raise FileError(f"{path}: no event has an image to show")
    parts, missing = _map(named, files)
    _require_images_of(files, shape, np.dtype(dtype))
    try:
        # In memory: HDF5 crashes some time after it could not write a file to the end.
        with h5py.File(path, "w", libver=_LIBVER, driver="core", backing_store=False) as file:
            dataset = _create(file, parts, (total, *shape), np.dtype(dtype))
            dataset.attrs["missing"] = np.array(missing, np.uint32)
            file["entry/data"].attrs["master"] = bare_name(path, master)
            numbers = np.concatenate(
                [np.arange(first, first + images, dtype=np.uint64) for first, images in named]
            )
            file.create_dataset(
                _NUMBERS,
                data=numbers,
                chunks=(min(total, _NUMBERS_CHUNK),),
                shuffle=True,
                compression="gzip",
            )
            file.flush()
            image = file.id.get_file_image()
        with new_file(path, replace=replace) as written:
            # The bytes and their sum.
            written.write(image)
            written.write(_SUM_MARK + hashlib.sha256(image).digest())
    except FileExistsError:
        raise
    except HDF5_ERRORS as error:
        raise FileError(f"{path}: not written ({error})") from error
    return missing


def check_sum(path: Path) -> None:
    """Check the sum at the end of a file, if it has one; called before HDF5 sees the file.

    Raises
    ------
    FileError
        If the file was damaged.
    """
    if not path.is_file():
        return  # HDF5 is not given it either.
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END) - len(_SUM_MARK) - _SUM_BYTES
            file.seek(max(size, 0))
            mark, digest = file.read(len(_SUM_MARK)), file.read()
            if mark != _SUM_MARK:
                return
            file.seek(0)
            if hashlib.sha256(file.read(size)).digest() != digest:
                raise FileError(f"{path}: this view is damaged; its sum is not that of its bytes")
    except FileError:
        raise
    except OSError:
        return  # HDF5 says it, as of any other file.


def _require_images_of(files: Sequence[Part], shape: tuple[int, int], dtype: np.dtype) -> None:
    for part in files:
        try:
            with open_hdf5(part.path) as file:
                dataset = stack_of(file, part.path)
                found, kind = dataset.shape[1:], dataset.dtype
        except FileError:
            continue  # Not there yet, or told of where its images are read.
        if (found, kind) != (shape, dtype):
            raise FileError(
                f"{part.path}: images of {' x '.join(map(str, found))} {kind}, and not of "
                f"{shape[0]} x {shape[1]} {dtype}, as the DCU said when it was armed"
            )
        return


def _joined(events: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the events with those as one that go on where the one before ends."""
    joined: list[tuple[int, int]] = []
    end = None
    for first, images in events:
        if first == end:
            joined[-1] = (joined[-1][0], joined[-1][1] + images)
        elif images:
            joined.append((first, images))
        else:
            continue
        end = first + images
    return joined


def _map(
    events: Iterable[tuple[int, int]], files: Sequence[Part]
) -> tuple[list[Part], tuple[int, ...]]:
    """Return where the images of joined events are, and the places of those that are missing."""
    there = {file.path.name: file.path.exists() for file in files}
    stops = [file.stop for file in files]
    parts: list[Part] = []
    place = 0
    for first, images in events:
        for file in itertools.islice(files, bisect.bisect_right(stops, first), None):
            low, high = max(first, file.first), min(first + images, file.stop)
            if low >= high:
                break
            start = file.start + low - file.first
            parts.append(Part(file.path, place + low - first, high - low, start))
        place += images
    missing: list[int] = []
    end = 0
    for part in [*parts, Part(Path(), place, 0)]:
        missing += range(end, part.first)
        if part.images and not there[part.path.name]:
            missing += range(part.first, part.stop)
        end = part.stop
    return parts, tuple(missing)


def _create(
    file: h5py.File, parts: Sequence[Part], shape: tuple[int, int, int], dtype: np.dtype
) -> h5py.Dataset:
    layout = h5py.VirtualLayout(shape, dtype)
    for part in parts:
        end = part.start + part.images
        name = bare_name(Path(file.filename), part.path.name)
        source = h5py.VirtualSource(name, IMAGES, shape=(end, *shape[1:]))
        layout[part.first : part.stop] = source[part.start : end]
    dataset = file.create_virtual_dataset(IMAGES, layout, fillvalue=np.iinfo(dtype).max)
    file.attrs["default"] = "entry"
    file["entry"].attrs.update(NX_class="NXentry", default="data")
    file["entry/data"].attrs.update(NX_class="NXdata", signal="data")
    return dataset


def is_bare(name: str) -> bool:
    """Return whether a name is of a file and no folder, and has nothing that HDF5 expands."""
    return name not in ("", ".", "..") and not set(name) & set("/\\%\0")


def bare_name(path: Path, name: str) -> str:
    """Return a file's name if a view can have it."""
    if not is_bare(name):
        raise FileError(f"{path}: {name!r} cannot be the name of a file that a view shows")
    return name


def read_view(file: h5py.File, path: Path) -> View | None:
    """Read what an open file says if it is a view; None if it is none.

    Raises
    ------
    FileError
        If it shows anything but whole images of files beside it, or an image twice at one place,
        or leaves out one that it does not list as missing.
    """
    dataset = object_of(file, IMAGES)
    if not isinstance(dataset, h5py.Dataset) or not dataset.is_virtual:
        link = file.get(IMAGES, getlink=True)
        if path.name.endswith(VIEW_ENDING) and isinstance(link, h5py.ExternalLink):
            # That would be a master's; a view says itself which images it shows.
            raise FileError(f"{path}: no images of shape (images, y, x) in /{IMAGES}, but a link")
        return None
    master = file["entry/data"].attrs.get("master")
    if master is None and not path.name.endswith(VIEW_ENDING):
        return None
    images_of(file, path)
    if not isinstance(master, str):
        raise FileError(f"{path}: this view does not name its master file")
    parts = sorted(
        (_part(source, dataset.shape, path) for source in dataset.virtual_sources()),
        key=lambda part: part.first,
    )
    missing = np.unique(np.asarray(dataset.attrs.get("missing", np.empty(0, int))))
    if missing.dtype.kind not in "iu":
        raise FileError(f"{path}: {missing[:1]} is no list of places of missing images")
    end = 0
    for part in [*parts, Part(path, dataset.shape[0], 0)]:
        if part.first < end:
            raise FileError(f"{path}: image {part.first + 1} is there twice")
        listed = np.searchsorted(missing, part.first) - np.searchsorted(missing, end)
        if listed < part.first - end:
            raise FileError(
                f"{path}: one of images {end + 1} to {part.first} is neither shown nor listed "
                "as missing"
            )
        end = part.stop
    beside = path.parent / bare_name(path, master)
    return View(path, dataset.shape, dataset.dtype, tuple(parts), beside)


def _part(source: Any, shape: tuple[int, int, int], path: Path) -> Part:
    """Return what one mapping of a view shows."""
    name = bare_name(path, source.file_name)
    if source.dset_name.removeprefix("/") != IMAGES:
        raise FileError(f"{path}: {source.dset_name} of {name} is not where its images are")
    if source.src_space.shape[1:] != shape[1:]:
        raise FileError(
            f"{path}: images of shape {source.src_space.shape[1:]} in {name}, {shape[1:]} shown"
        )
    first, images, *_ = stretch(source.vspace, shape[1:], path)
    start, found, *_ = stretch(source.src_space, shape[1:], path)
    if images != found:
        raise FileError(f"{path}: {found} images of {name} are shown as {images}")
    return Part(path.parent / name, first, images, start)


def stretch(
    space: h5py.h5s.SpaceID, shape: tuple[int, ...], path: Path
) -> tuple[int, int, int, int]:
    """Return the first image, how many, the first channel, and how many, of a selection."""
    slab = space.get_select_type() in (h5py.h5s.SEL_ALL, h5py.h5s.SEL_HYPERSLABS)
    if slab and len(space.shape) in (3, 4) and space.shape[-2:] == shape:
        low, high = space.get_select_bounds()
        sizes = [end - begin + 1 for begin, end in zip(low, high, strict=True)]
        if tuple(sizes[-2:]) == shape and space.get_select_npoints() == math.prod(sizes):
            channels = (low[1], sizes[1]) if len(low) == 4 else (0, 1)
            return int(low[0]), int(sizes[0]), int(channels[0]), int(channels[1])
    raise FileError(f"{path}: it shows something else than whole images that follow one another")
