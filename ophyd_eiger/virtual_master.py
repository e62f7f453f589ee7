"""A master file whose images are one virtual dataset: the 2024.2 layout, with channels.

`/entry/data/data` is of shape (images, channels, y, x), a channel for each threshold or difference
that was on, and `/entry/data/channel` has their names. HDF5 itself would follow the names of the
data files into the working directory and fill what is missing; here they are resolved in the
master's own folder, and what is missing is said. A dataset of shape (images, y, x) is read too.

Source: DECTRIS' description of the file writer's format "hdf5 nexus v2024.2 nxmx".
"""

import itertools
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np

from ophyd_eiger.errors import FileError
from ophyd_eiger.images import IMAGES, stack_of
from ophyd_eiger.master import file_in, folders_of, linked_file, object_of, place_of, stored_in
from ophyd_eiger.view import Part, is_bare, stretch

_CHANNELS = "entry/data/channel"


@dataclass(frozen=True)
class VirtualMaster:
    """What such a master file says.

    Attributes
    ----------
    shape : tuple of int
        (images, y, x).
    dtype : numpy.dtype
        Type of a pixel.
    parts : tuple of Part
        Where the images of the channel are, in their order.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype
    parts: tuple[Part, ...]


def read_channels(file: h5py.File, channels: int) -> tuple[str, ...]:
    """Return the names of the channels; their numbers, from 1, where the file has none."""
    found = object_of(file, _CHANNELS)
    if isinstance(found, h5py.Dataset) and found.shape == (channels,):
        names = stored_in(found)
        return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)
    return tuple(f"{number}" for number in range(1, channels + 1))


def channel_number(path: Path, names: tuple[str, ...], channel: str | None) -> int:
    """Return which channel is meant, counted from 0; the first if none is named.

    Raises
    ------
    FileError
        If there is none of this name.
    """
    if channel is None:
        return 0
    if channel not in names:
        raise FileError(f"{path}: no channel {channel!r}; it has {', '.join(names) or 'none'}")
    return names.index(channel)


def read_virtual(file: h5py.File, path: Path, channel: int) -> VirtualMaster | None:
    """Read what an open master says if its images are a virtual dataset; None otherwise.

    Raises
    ------
    FileError
        If it shows anything but whole images of files beside it, or an image twice.
    """
    found = object_of(file, IMAGES)
    if not isinstance(found, h5py.Dataset) or not found.is_virtual:
        return None
    images = stack_of(file, path)
    folders = folders_of(path)
    parts = [
        _part(source, images.shape, path, _source(file, path, folders, source), channel)
        for source in images.virtual_sources()
    ]
    ordered = tuple(sorted((part for part in parts if part), key=lambda part: part.first))
    for before, after in itertools.pairwise(ordered):
        if after.first < before.stop:
            raise FileError(f"{path}: image {after.first + 1} is there twice")
    if not ordered:
        raise FileError(f"{path}: its virtual dataset shows no image")
    return VirtualMaster((images.shape[0], *images.shape[-2:]), images.dtype, ordered)


def _part(
    source: Any, shape: tuple[int, ...], path: Path, at: tuple[Path, str], channel: int
) -> Part | None:
    """Return what one mapping shows of a channel; None if it shows another."""
    shown, place = at
    first, images, low, channels = stretch(source.vspace, shape[-2:], path)
    if source.src_space.get_select_type() == h5py.h5s.SEL_ALL:
        # All that the file has; how much that is, its own dataset alone says.
        start, found, source_low, source_channels = 0, images, 0, channels
    else:
        start, found, source_low, source_channels = stretch(source.src_space, shape[-2:], path)
    if (images, channels) != (found, source_channels):
        raise FileError(
            f"{path}: {found} images of {source_channels} channels of {shown.name} are shown as "
            f"{images} of {channels}"
        )
    if not low <= channel < low + channels:
        return None
    return Part(shown, first, images, start, place, channel - low + source_low)


def _source(file: h5py.File, path: Path, folders: list[Path], source: Any) -> tuple[Path, str]:
    """Return the file that one mapping shows images of, and where they are in it."""
    name = _beside(path, source.file_name) if source.file_name != "." else path.name
    place = source.dset_name.removeprefix("/")
    link = file.get(place, getlink=True) if name == path.name else None
    if isinstance(link, h5py.ExternalLink):
        # Some masters show the images of their own links.
        return linked_file(folders, link.filename), place_of(link)
    if name == path.name and place == IMAGES:
        raise FileError(f"{path}: its images are a link to themselves")
    return file_in(folders, name), place


def _beside(path: Path, name: str) -> str:
    """Return the name of a file beside the master, without its folder."""
    bare = str(PurePosixPath(name))  # ./name is written by some
    if not is_bare(bare):
        raise FileError(
            f"{path}: its virtual dataset shows images of {name!r}, and of a virtual dataset those "
            "of files beside the master alone are read"
        )
    return bare
