"""What a series is opened by: a master, a view, a data file, or a folder that has one series.

Tells which it is, and how it is surveyed, once or again when files have come since.
"""

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

import h5py

from ophyd_eiger.errors import FileError
from ophyd_eiger.image_file import Geometry
from ophyd_eiger.images import IMAGES
from ophyd_eiger.master import (
    MASTER_ENDING,
    Master,
    file_in,
    folders_of,
    linked_channels,
    object_of,
    open_hdf5,
    read_master,
)
from ophyd_eiger.survey import Survey, survey_files, survey_parts
from ophyd_eiger.view import check_sum, read_view
from ophyd_eiger.virtual_master import channel_number, read_channels, read_virtual

_DATA_FILE = re.compile(r"(?P<stem>.+)_data_(?P<number>\d+)\.h5")
# More thresholds than any detector has.
_MOST_CHANNELS = 64
# So many names are in an error at most.
_NAMED = 5
# So many data files may lack before one that is there: each has to be named.
_MOST_LACKING = 10_000


@dataclass(frozen=True)
class Source:
    """What was found at a path.

    Attributes
    ----------
    path : Path
        The file, or the folder if its data files have no master.
    master_path : Path
        The master file, there or not.
    master : Master or None
        What it says, if it is what was opened.
    is_view : bool
        Whether it is a view.
    channels : tuple of str
        The names of its thresholds, where it has several.
    channel : str
        The one that is read, "" if it has no names.
    survey : Survey
        Where the images are.
    """

    path: Path
    master_path: Path
    master: Master | None
    is_view: bool
    channels: tuple[str, ...]
    channel: str
    survey: Survey


def read_source(path: Path, channel: str | None, *, thorough: bool = False) -> Source:
    """Look at what is at a path now.

    Parameters
    ----------
    path : Path
        What is opened.
    channel : str or None
        The name of the threshold that is read; the first if None.
    thorough : bool
        Whether each data file of a series is looked into, however many there are.

    Raises
    ------
    MissingFileError
        If there is nothing, or none of its images.
    FileError
        If a file is not what it should be, or may not be looked at, or if a folder has several
        series or none.
    """
    try:
        return _read_source(path, channel, thorough=thorough)
    except FileError:
        raise
    except OSError as error:  # of a folder that may not be looked into, or a name too long
        raise FileError(f"{path}: cannot be looked at ({error})") from error


def _read_source(path: Path, channel: str | None, *, thorough: bool) -> Source:
    if path.is_dir():
        found = _only_series(path)
        if isinstance(found, dict):
            return _of_data_files(path, found, channel, thorough=thorough)
        path = found
    check_sum(path)
    with open_hdf5(path) as file:
        view = read_view(file, path)
        if view is not None:
            channel_number(path, (), channel)  # It shows one, whatever its files have.
            geometry = Geometry(view.shape[1:], view.dtype)
            survey = survey_parts(view.parts, geometry, view.shape[0], fixed=True, path=path)
            return Source(path, view.master, None, True, (), "", survey)
        linked = linked_channels(file)
        names = _channels(file, path) or linked
        number = channel_number(path, names, channel)
        virtual = read_virtual(file, path, number)
    apart = names is linked and bool(linked)
    master = read_master(path, names[number] if apart else "")
    if virtual is not None:
        geometry = Geometry(virtual.shape[1:], virtual.dtype)
        survey = survey_parts(virtual.parts, geometry, virtual.shape[0], fixed=False, path=path)
    else:
        files = dict(zip(master.numbers, master.data_files, strict=True))
        places = dict.fromkeys(files, master.images_at) | dict(master.within)
        files |= dict.fromkeys(master.within, path)
        survey = survey_files(
            path,
            dict(sorted(files.items())) or {1: path},
            master.images_promised,
            # Each has files of its own, or a place of its own in them.
            0 if apart else number,
            places=places,
            thorough=thorough,
        )
    return Source(
        path,
        _master_of(path),
        master,
        False,
        names,
        names[number] if names else "",
        survey,
    )


def _channels(file: h5py.File, path: Path) -> tuple[str, ...]:
    images = object_of(file, IMAGES)
    if not isinstance(images, h5py.Dataset) or images.ndim != 4:
        return ()
    if images.shape[1] > _MOST_CHANNELS:
        raise FileError(f"{path}: images with {images.shape[1]} channels are none of a detector")
    master = _master_of(path)
    if master == path:
        return read_channels(file, images.shape[1])
    # A data file has no names for them.
    with open_hdf5(master) as beside:
        return read_channels(beside, images.shape[1])


def _of_data_files(
    folder: Path, files: dict[int, Path], channel: str | None, *, thorough: bool
) -> Source:
    stem = _stem(next(iter(files.values())))
    master = folder / f"{stem}{MASTER_ENDING}"
    there = next((path for path in files.values() if path.exists()), None)
    names: tuple[str, ...] = ()
    if there is not None:
        with open_hdf5(there) as file:
            names = _channels(file, there)
    number = channel_number(folder, names, channel)
    survey = survey_files(folder, files, None, number, linked=False, thorough=thorough)
    return Source(folder, master, None, False, names, names[number] if names else "", survey)


def _master_of(path: Path) -> Path:
    """Return the master beside a data file if there is one; else the file itself."""
    # Beside a symbolic link first: whoever puts a master there means that one.
    folders = folders_of(path)[::-1]
    beside = file_in(folders, f"{_stem(path)}{MASTER_ENDING}")
    return beside if beside.is_file() else path


def _stem(path: Path) -> str:
    matched = _DATA_FILE.fullmatch(path.name)
    return matched["stem"] if matched else path.name.removesuffix(MASTER_ENDING)


def _only_series(folder: Path) -> Path | dict[int, Path]:
    """Return the master of the one series in a folder, or its data files by their numbers.

    Raises
    ------
    FileError
        If there are several, naming them, or none.
    """
    masters: dict[str, Path] = {}
    data: dict[str, dict[int, Path]] = {}
    try:
        found = sorted(folder.iterdir())
    except OSError as error:
        raise FileError(f"{folder}: cannot be listed ({error})") from error
    for path in found:
        if path.name.startswith("."):  # what is still being fetched
            continue
        if path.name.endswith(MASTER_ENDING):
            masters[_stem(path)] = path
        elif matched := _DATA_FILE.fullmatch(path.name):
            data.setdefault(matched["stem"], {})[int(matched["number"])] = path
    stems = sorted({*masters, *data})
    if len(stems) > 1:
        stems.sort(key=lambda stem: _newest(masters.get(stem), data.get(stem, {})), reverse=True)
    if not stems:
        raise FileError(f"{folder}: no master file and no data file of an EIGER in this folder")
    if len(stems) > 1:
        names = [masters[stem].name if stem in masters else f"{stem}_data_..." for stem in stems]
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        raise FileError(
            f"{folder}: {len(names)} series in it, open one of {', '.join(names[:_NAMED])}{more}; "
            "the newest is the first"
        )
    if masters:
        return masters[stems[0]]
    return _with_gaps(data[stems[0]])


def _newest(master: Path | None, data: dict[int, Path]) -> float:
    """Return when a file of a series was last written; 0 of what is not there any more."""
    paths = [*data.values(), *([] if master is None else [master])]
    times = [0.0]
    for path in paths:
        with contextlib.suppress(OSError):
            times.append(path.stat().st_mtime)
    return max(times)


def _with_gaps(found: dict[int, Path]) -> dict[int, Path]:
    """Return data files by their numbers with those that are missing before the last one."""
    some = next(iter(found.values()))
    matched = _DATA_FILE.fullmatch(some.name)
    digits = len(matched["number"]) if matched else 6
    if max(found) > _MOST_LACKING + len(found):
        raise FileError(
            f"{found[max(found)]}: {len(found)} data files are there, far fewer than its number "
            "says; open it by itself"
        )
    # The DCU counts its files from 1.
    return {
        number: found.get(number, some.with_name(f"{_stem(some)}_data_{number:0{digits}}.h5"))
        for number in range(min(1, *found), max(found) + 1)
    }
