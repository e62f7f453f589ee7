"""What a master file says: which data files belong to the series, how many images it promises.

Opens nothing but the master. Links are resolved in the master's own folder only: HDF5 itself would
also look in the working directory, and take a stale file of the same name for the right one.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import h5py

from ophyd_eiger.errors import FileError

MASTER_ENDING = "_master.h5"


@dataclass(frozen=True)
class Master:
    """The facts of a master file.

    Attributes
    ----------
    path : Path
        The master file.
    data_files : tuple of Path
        The linked data files in order, present or not; empty if the images are in the master.
    images_promised : int or None
        `nimages` x `ntrigger`; None if the file does not say.
    """

    path: Path
    data_files: tuple[Path, ...]
    images_promised: int | None


def open_hdf5(path: Path) -> h5py.File:
    """Open an HDF5 file to read.

    Raises
    ------
    FileNotFoundError
        If there is none.
    FileError
        If it is none, or if it was cut off.
    """
    try:
        return h5py.File(path, "r")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except OSError as error:
        raise FileError(f"{path}: not a whole HDF5 file ({error})") from error


def read_master(path: Path) -> Master:
    """Read which files and how many images belong to a series.

    Raises
    ------
    FileNotFoundError, FileError
    """
    with open_hdf5(path) as file:
        entry = file.get("entry")
        if not isinstance(entry, h5py.Group):
            raise FileError(f"{path}: no group /entry; this is no master file of an EIGER")
        # Firmware before 1.3 has the links directly below /entry.
        group = entry.get("data")
        links = group if isinstance(group, h5py.Group) else entry
        return Master(path, _data_files(links, path), _promised(entry))


def _data_files(links: h5py.Group, path: Path) -> tuple[Path, ...]:
    found = {}
    for name in links:
        link = links.get(name, getlink=True)
        if str(name).startswith("data_") and isinstance(link, h5py.ExternalLink):
            found[name] = path.parent / PurePosixPath(link.filename).name
    return tuple(found[name] for name in sorted(found))


def _promised(entry: h5py.Group) -> int | None:
    counts = []
    for name in ("nimages", "ntrigger"):
        value = entry.get(f"instrument/detector/detectorSpecific/{name}")
        if not isinstance(value, h5py.Dataset):
            return None
        counts.append(int(value[()]))
    return counts[0] * counts[1]
