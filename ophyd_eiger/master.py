"""What a master file says: which data files belong to the series, how many images it promises.

Opens nothing but the master. Links are resolved in the master's own folder (of a symbolic link to
one: in that of the master, then in that of the link), and if there is no file of this name, where
they lead from there: HDF5 itself would also look in the working directory, and
take a stale file of the same name for the right one.
"""

import contextlib
import math
import re
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np

from ophyd_eiger.errors import EigerError, FileError, MissingFileError

MASTER_ENDING = "_master.h5"
# What h5py makes of HDF5's errors: for one broken file, any of them, depending on the broken byte.
HDF5_ERRORS = (OSError, LookupError, RuntimeError, TypeError, ValueError)
# HDF5's words for a file that says itself that somebody writes it, whether it is locked or not.
_OPEN_FOR_WRITING = "already open for"

# What images depend on, with its unit; a master has it as it was when the series was armed.
SETTINGS = {"count_time": "s", "frame_time": "s", "photon_energy": "eV", "threshold_energy": "eV"}
# In bytes, of a mask or a flat field: several times those of the largest detector. And of what is
# one value, or a few of them.
LARGEST_ARRAY, _LARGEST_VALUE = 2**29, 2**20
# What a mask has for a value that uint32 has not: the highest bit, which EIGERs give no meaning.
_MASKED_OTHERWISE = 2**31
_DETECTOR = "entry/instrument/detector"
_SPECIFIC = f"{_DETECTOR}/detectorSpecific"
_DATA_LINK = re.compile(r"data_(\d+)")
# Where a data file, a view, or a master that holds its images, has them.
IMAGES = "entry/data/data"


@dataclass(frozen=True)
class Master:
    """The facts of a master file.

    Attributes
    ----------
    path : Path
        The master file.
    data_files : tuple of Path
        The linked data files in order, present or not; empty if the images are in the master.
    numbers : tuple of int
        The number that each of their links has: 1, 2, 3 ... unless links are missing.
    images_promised : int or None
        `nimages` x `ntrigger`; None if the file does not say.
    settings : dict of str to float
        What `SETTINGS` lists, as far as the file says it.
    images_at : str
        Where its links say that the images are in the data files.
    within : mapping of int to str
        Where it has images itself under the names of links, by their numbers: a program that
        copied it may have put there what they led to.
    """

    path: Path
    data_files: tuple[Path, ...]
    numbers: tuple[int, ...]
    images_promised: int | None
    settings: dict[str, float]
    images_at: str = IMAGES
    within: Mapping[int, str] = field(default_factory=dict)

    @property
    def mask(self) -> np.ndarray:
        """The pixel mask, uint32 of shape (y, x); 0 is a good pixel."""
        return self.array("pixel_mask")

    @property
    def flatfield(self) -> np.ndarray:
        """The flat-field factors, float32 of shape (y, x)."""
        return self.array("flatfield").astype(np.float32, copy=False)

    def array(self, name: str, channel: str = "") -> np.ndarray:
        """Return an array of shape (y, x), of a channel where there are several.

        Raises
        ------
        MissingFileError
            If the master file is not there.
        FileError
            If it has no such array.
        """
        found = self.find(name, channel)
        if found is None:
            raise FileError(f"{self.path}: no array of shape (y, x) in /{_SPECIFIC}/{name}")
        return found

    def find(self, name: str, channel: str = "") -> np.ndarray | None:
        """Return an array as `array` does; None where the file has none.

        Raises
        ------
        MissingFileError
            If the master file is not there.
        FileError
            If it has one that cannot be used.
        """
        unusable = ""
        with open_hdf5(self.path) as file:
            for place in (_SPECIFIC, _DETECTOR, f"{_DETECTOR}/{channel}_channel"):
                at = f"{place}/{name}"
                dataset = object_of(file, at)
                if isinstance(dataset, h5py.Dataset) and dataset.ndim == 2:
                    if dataset.nbytes > LARGEST_ARRAY:
                        raise FileError(
                            f"{self.path}: {name} of shape {dataset.shape} is none of a detector"
                        )
                    return self._mask(dataset) if name == "pixel_mask" else dataset[()]
                unusable = unusable or _unusable(file, at, dataset)
        if unusable:
            # As if there were none, masked pixels would be taken for good ones.
            raise FileError(f"{self.path}: {unusable}")
        return None

    def _mask(self, dataset: h5py.Dataset) -> np.ndarray:
        """Return a mask as uint32, in which each pixel that is not 0 stays so."""
        if dataset.dtype.kind not in "biuf":
            raise FileError(f"{self.path}: {dataset.name} of type {dataset.dtype} is no mask")
        stored = dataset[()]
        if stored.dtype == np.uint32:
            return stored
        with np.errstate(invalid="ignore"):
            mask = stored.astype(np.uint32)
        mask[mask != stored] = _MASKED_OTHERWISE
        return mask


def _unusable(file: h5py.File, place: str, found: h5py.Group | h5py.Dataset | None) -> str:
    """Return why what is at a place is no array of shape (y, x); "" if there is nothing."""
    if isinstance(found, h5py.Dataset):
        return f"/{place} is of shape {found.shape}, not (y, x)"
    if found is not None:
        return f"/{place} is a group, no array of shape (y, x)"
    link = file.get(place, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        return f"/{place} is a link to {link.path} of {link.filename}, which is not followed"
    return "" if link is None else f"/{place} is a link that leads to nothing in this file"


@contextlib.contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file to read; whatever HDF5 raises until it is closed names the file.

    Raises
    ------
    MissingFileError
        If there is none.
    FileError
        If it is none, if it was cut off, if somebody writes it, or if what is read of it is broken.
    """
    try:
        # Of a pipe that nobody writes to, HDF5 would wait for the first byte for ever.
        file = h5py.File(path, "r") if stat.S_ISREG(path.stat().st_mode) else None
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file") from None
    except BlockingIOError as error:
        raise FileError(
            f"{path}: locked by a program that has it open for writing; it can be read once that "
            "has closed it"
        ) from error
    except HDF5_ERRORS as error:
        if _OPEN_FOR_WRITING in str(error):
            raise FileError(
                f"{path}: locked by a program that has it open for writing; it can be read once "
                "that has closed it, or, if it ended without, after `h5clear -s`"
            ) from error
        raise FileError(f"{path}: not a whole HDF5 file ({error})") from error
    if file is None:
        raise FileError(f"{path}: not a whole HDF5 file (no regular file)")
    with file:
        try:
            yield file
        except EigerError:
            raise
        except HDF5_ERRORS as error:
            raise FileError(f"{path}: broken ({error})") from error


def object_of(file: h5py.File, place: str) -> h5py.Group | h5py.Dataset | None:
    """Return the object at `place`, or None where this very file has none.

    What an external link leads to does not count: HDF5 looks for its file in more places than the
    master's folder.
    """
    found = file.get(place)
    if not isinstance(found, (h5py.Group, h5py.Dataset)) or found.file.filename != file.filename:
        return None
    return found


def stored_in(dataset: h5py.Dataset, most: int = _LARGEST_VALUE) -> Any:
    """Return what a dataset has, if these are no more bytes: its shape may be anything.

    Raises
    ------
    ValueError
        If they are more.
    """
    # Of one value HDF5 reads all that is in its chunk.
    values = max(dataset.size or 0, math.prod(dataset.chunks or ()))
    if values * dataset.dtype.itemsize > most:
        raise ValueError(f"{dataset.name} of shape {dataset.shape} is more than a master has there")
    return dataset[()]


def only_value(stored: Any) -> Any:
    """Return the one value of what HDF5 has: some writers make an array of it.

    Raises
    ------
    ValueError
        If it has several, or none.
    """
    return stored.item() if isinstance(stored, np.ndarray) else stored


def only_integer(stored: Any) -> int | None:
    """Return the one integer of what HDF5 has, as a number or as text; None if it is none."""
    try:
        value = only_value(stored)
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if isinstance(value, (str, bytes)) or number == value else None


def linked_channels(file: h5py.File) -> tuple[str, ...]:
    """Return the names of the thresholds of a master that has a group of links for each."""
    group = object_of(file, "entry/data")
    if not isinstance(group, h5py.Group) or any(_DATA_LINK.fullmatch(str(n)) for n in group):
        return ()
    if isinstance(object_of(file, IMAGES), h5py.Dataset):
        return ()
    # What a link leads to is not even opened.
    inside = [n for n in group if isinstance(group.get(n, getlink=True), h5py.HardLink)]
    groups = {str(name): group[name] for name in inside}
    return tuple(n for n, g in groups.items() if isinstance(g, h5py.Group) and _data_links(g))


def read_master(path: Path, channel: str = "") -> Master:
    """Read which files and how many images belong to a series.

    Parameters
    ----------
    path : Path
        The master file.
    channel : str
        The one of its `linked_channels` that is meant, if it has such.

    Raises
    ------
    MissingFileError, FileError
    """
    with open_hdf5(path) as file:
        entry = object_of(file, "entry")
        if not isinstance(entry, h5py.Group):
            raise FileError(f"{path}: no group /entry; this is no master file of an EIGER")
        # Firmware before 1.3 has the links directly below /entry.
        group = object_of(file, f"entry/data/{channel}".rstrip("/"))
        links = group if isinstance(group, h5py.Group) else entry
        found = _data_links(links)
        within: dict[int, str] = {}
        if not isinstance(object_of(file, IMAGES), h5py.Dataset):
            within = _data_within(links, found)
        if not found and not within and links is group:
            only = links.get(PurePosixPath(IMAGES).name, getlink=True)
            found = {1: only} if isinstance(only, h5py.ExternalLink) else {}
        folders = folders_of(path)
        files = tuple(linked_file(folders, link.filename) for link in found.values())
        places = {place_of(link) for link in found.values()} or {IMAGES}
        if len(places) > 1:
            raise FileError(f"{path}: its links lead to {' and to '.join(sorted(places))}")
        settings = _settings(file)
        promised = _promised(file)
        return Master(path, files, tuple(found), promised, settings, places.pop(), within)


def _data_links(group: h5py.Group) -> dict[int, h5py.ExternalLink]:
    """Return the links to data files by their numbers, in rising order."""
    links = {number: group.get(name, getlink=True) for number, name in _numbered(group)}
    return {n: link for n, link in links.items() if isinstance(link, h5py.ExternalLink)}


def _data_within(group: h5py.Group, linked: Collection[int]) -> dict[int, str]:
    """Return where this very file has images under the names of links, by their numbers."""
    folder = str(group.name).strip("/")
    return {
        number: f"{folder}/{name}"
        for number, name in _numbered(group)
        # What a link leads to is not even opened.
        if number not in linked
        and isinstance(object_of(group.file, f"{folder}/{name}"), h5py.Dataset)
    }


def _numbered(group: h5py.Group) -> list[tuple[int, str]]:
    """Return number and name of what is called as links to data files are, in rising order."""
    matched = [_DATA_LINK.fullmatch(str(name)) for name in group]
    return sorted((int(each[1]), each[0]) for each in matched if each)


def linked_file(folders: Sequence[Path], name: str) -> Path:
    """Return the file that a link names; where there is none, as it would be beside the master.

    One of this name beside the master comes first: files are fetched into one folder, and what the
    link led to may be of another series by now. A master of a Windows machine has names with
    backslashes, which elsewhere are characters like any other.
    """
    beside = file_in(folders, PurePosixPath(name).name)
    if not beside.exists():
        for folder in folders:
            with contextlib.suppress(OSError):  # of a folder that may not be looked into
                if (folder / name).is_file():
                    return folder / name
        return file_in(folders, PurePosixPath(name.replace("\\", "/")).name)
    return beside


def place_of(link: h5py.ExternalLink) -> str:
    """Return where a link says that images are, whatever slashes it is written with."""
    return "/".join(PurePosixPath(f"/{link.path.lstrip('/')}").parts[1:])


def folders_of(path: Path) -> list[Path]:
    """Return where files beside a file are: of a symbolic link, first beside what it leads to.

    They were written there; beside the link may be those of another series of this name.
    """
    return [path.resolve().parent, path.parent] if path.is_symlink() else [path.parent]


def file_in(folders: Sequence[Path], name: str) -> Path:
    """Return the file of this name in the first folder that has it; there or not, in the first."""
    first = folders[0] / name
    others = (folder / name for folder in folders[1:] if not first.exists())
    return next((file for file in others if file.exists()), first)


def _promised(file: h5py.File) -> int | None:
    counts = []
    for name in ("nimages", "ntrigger"):
        value = object_of(file, f"{_SPECIFIC}/{name}")
        if not isinstance(value, h5py.Dataset) or value.size != 1:
            return None
        count = only_integer(stored_in(value))
        if count is None:
            return None
        counts.append(count)
    return counts[0] * counts[1]


def _settings(file: h5py.File) -> dict[str, float]:
    settings = {}
    for name in SETTINGS:
        for group in (_DETECTOR, _SPECIFIC):
            value = object_of(file, f"{group}/{name}")
            if isinstance(value, h5py.Dataset) and value.size == 1 and value.dtype.kind == "f":
                settings[name] = float(stored_in(value).item())
    return settings
