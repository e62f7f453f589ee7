"""The HDF5 objects that EIGER1 files are made of, exactly as firmware 1.6 writes them.

h5py's high-level calls choose other string types, filter flags and fill values than the detector's
firmware; what is here goes through the low-level interface instead. Knows no path and no value.
"""

import functools
import struct
from pathlib import Path

import h5py
import h5py.h5a as h5a
import h5py.h5d as h5d
import h5py.h5g as h5g
import h5py.h5o as h5o
import h5py.h5p as h5p
import h5py.h5s as h5s
import h5py.h5t as h5t
import hdf5plugin
import numpy as np
import numpy.typing as npt

# A dataset with a mandatory filter can only be created where the filter is known: importing
# hdf5plugin registers it.
BITSHUFFLE = hdf5plugin.Bitshuffle.filter_id
BITSHUFFLE_DEFAULT_BLOCK = 0
BITSHUFFLE_LZ4 = 2
# The version of bitshuffle, 0.2, that real EIGER1 files carry.
EIGER1_BITSHUFFLE_VERSION = (0, 2)

# More than the part of an object header that comes before its filters' parameters.
HEADER_BYTES = 512


def create_file(path: Path) -> h5py.File:
    """Create a file with superblock 0 that every HDF5 since 1.8 reads, as the firmware does.

    The newest format would have HDF5 1.10 tools and neggia give up. The file is hidden until it is
    complete, so it needs no lock, which not all network file systems have.
    """
    return h5py.File(path, "w", libver=("earliest", "v108"), locking=False)


def close_file(file: h5py.File) -> None:
    """Close a file, which writes what HDF5 still holds back.

    Raises
    ------
    OSError
        Where that fails, as on a full disk; h5py alone raises a RuntimeError.
    """
    try:
        file.close()
    except RuntimeError as error:
        raise OSError(f"an unfinished HDF5 file could not be closed: {error}") from error


@functools.cache
def string_type(size: int, padding: int) -> h5t.TypeStringID:
    """Return a fixed-length ASCII type of `size` bytes; `padding` is an `h5t.STR_` constant."""
    kind = h5t.C_S1.copy()
    kind.set_size(size)
    kind.set_strpad(padding)
    return kind


@functools.cache
def _with_fill_value(dtype: np.dtype, fill: float | bytes) -> h5p.PropDCID:
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_fill_value(np.array(fill, dtype=dtype))
    return properties


def write_text_attribute(owner: h5g.GroupID | h5d.DatasetID, name: str, text: str) -> None:
    """Write an attribute as master files have it: padded with zeros, of exactly the text's size."""
    _write_text_attribute(owner, name, text, string_type(len(text), h5t.STR_NULLPAD))


def _write_text_attribute(
    owner: h5g.GroupID | h5d.DatasetID, name: str, text: str, kind: h5t.TypeStringID
) -> None:
    attribute = h5a.create(owner, name.encode(), kind, h5s.create(h5s.SCALAR))
    attribute.write(np.array(text.encode("ascii"), dtype=f"S{kind.get_size()}"), mtype=kind)


def create_group(parent: h5g.GroupID, name: str, nx_class: str | None = None) -> h5g.GroupID:
    """Create a group of a master file, with its NeXus class where it has one."""
    group = h5g.create(parent, name.encode())
    if nx_class is not None:
        write_text_attribute(group, "NX_class", nx_class)
    return group


def create_data_file_groups(file: h5py.File) -> h5g.GroupID:
    """Create `/entry/data` of a data file and return it.

    The classes are null-terminated here, "NXentry" with room for the null and "NXdata" without,
    as in real files of firmware 1.6.
    """
    entry = h5g.create(file.id, b"entry")
    _write_text_attribute(entry, "NX_class", "NXentry", string_type(8, h5t.STR_NULLTERM))
    data = h5g.create(entry, b"data")
    _write_text_attribute(data, "NX_class", "NXdata", string_type(6, h5t.STR_NULLTERM))
    return data


def write_text(parent: h5g.GroupID, name: str, text: str, smallest: int = 1) -> None:
    """Write a scalar string: fixed-length, padded with zeros, one byte longer than the text.

    `smallest` is the least size in bytes: the firmware keeps room in a field that may be empty.
    """
    encoded = text.encode("ascii")
    kind = string_type(max(len(encoded) + 1, smallest), h5t.STR_NULLPAD)
    dtype = np.dtype(f"S{kind.get_size()}")
    dataset = h5d.create(
        parent, name.encode(), kind, h5s.create(h5s.SCALAR), _with_fill_value(dtype, b"")
    )
    dataset.write(h5s.ALL, h5s.ALL, np.array(encoded, dtype=dtype), mtype=kind)


def write_numbers(
    parent: h5g.GroupID, name: str, numbers: npt.ArrayLike, dtype: str, units: str | None = None
) -> None:
    """Write a number or an array: contiguous, uncompressed, with a user fill value of 0."""
    array = np.array(numbers, dtype=dtype, order="C")
    space = h5s.create_simple(array.shape) if array.ndim else h5s.create(h5s.SCALAR)
    kind = h5t.py_create(array.dtype)
    dataset = h5d.create(parent, name.encode(), kind, space, _with_fill_value(array.dtype, 0))
    dataset.write(h5s.ALL, h5s.ALL, array)
    if units is not None:
        write_text_attribute(dataset, "units", units)


def declare_constant(
    parent: h5g.GroupID, name: str, shape: tuple[int, ...], dtype: str, value: float
) -> None:
    """Create a contiguous array that holds `value` everywhere and takes no room in the file.

    HDF5 stores a contiguous array at its first write and answers the fill value until then.
    """
    kind = np.dtype(dtype)
    h5d.create(
        parent,
        name.encode(),
        h5t.py_create(kind),
        h5s.create_simple(shape),
        _with_fill_value(kind, value),
    )


class ImageStack:
    """The dataset `data` of shape (images, y, x) that a file's images go into, one chunk each.

    Parameters
    ----------
    parent : h5py.h5g.GroupID
        The group that gets the dataset.
    shape : tuple of int
        (images, y, x): how many images are to come and their size.
    dtype : numpy.dtype
        The pixels' type.
    encoding : str
        What the chunks are: "bslz4" or "none".
    """

    def __init__(
        self, parent: h5g.GroupID, shape: tuple[int, int, int], dtype: np.dtype, encoding: str
    ) -> None:
        self._shape = shape
        self._itemsize = dtype.itemsize
        self._count = 0
        self._filtered = encoding == "bslz4"
        properties = h5p.create(h5p.DATASET_CREATE)
        properties.set_chunk((1, *shape[1:]))
        if self._filtered:
            # Flag 0 makes the filter mandatory. h5py's high-level call and hdf5plugin's helper
            # would set the optional flag.
            properties.set_filter(BITSHUFFLE, 0, (BITSHUFFLE_DEFAULT_BLOCK, BITSHUFFLE_LZ4))
        space = h5s.create_simple(shape, (h5s.UNLIMITED, *shape[1:]))
        self._dataset = h5d.create(parent, b"data", h5t.py_create(dtype), space, properties)
        self._address: int = h5o.get_info(self._dataset).addr

    @property
    def count(self) -> int:
        """How many images came."""
        return self._count

    @property
    def full(self) -> bool:
        """Whether every expected image came."""
        return self._count == self._shape[0]

    def add(self, chunk: bytes) -> None:
        """Store the next image, which is encoded already."""
        self._dataset.write_direct_chunk((self._count, 0, 0), chunk)
        self._count += 1

    def finish(self, first: int) -> None:
        """Cut the stack to the images that came and number them, from `first` up."""
        if not self.full:
            self._dataset.set_extent((self._count, *self._shape[1:]))
        for name, number in (
            (b"image_nr_low", first),
            (b"image_nr_high", first + self._count - 1),
        ):
            attribute = h5a.create(self._dataset, name, h5t.STD_I32LE, h5s.create(h5s.SCALAR))
            attribute.write(np.array(number, dtype="<i4"))

    def set_filter_version(self, path: Path) -> None:
        """Give the filter the version that real files carry, in the closed file at `path`.

        The filter writes its own version when a dataset is created, so the number is changed
        afterwards. Superblock 0 has no checksums that would have to follow.

        Raises
        ------
        ValueError
            Where the filter's parameters are not found in the dataset's header.
        """
        if not self._filtered:
            return
        settings = (self._itemsize, BITSHUFFLE_DEFAULT_BLOCK, BITSHUFFLE_LZ4)
        with path.open("r+b") as file:
            file.seek(self._address)
            header = file.read(HEADER_BYTES)
            place = header.find(struct.pack("<3I", *settings)) - 8
            if place < 0:
                raise ValueError(f"{path}: no bitshuffle parameters in the header of its images")
            file.seek(self._address + place)
            file.write(struct.pack("<2I", *EIGER1_BITSHUFFLE_VERSION))
