"""The HDF5 objects that EIGER files are made of, exactly as the firmware writes them.

h5py's high-level calls choose other string types, filter flags and fill values than the detector's
firmware; what is here goes through the low-level interface instead. Knows no path and no value.
"""

import functools
from pathlib import Path

import h5py
import h5py.h5a as h5a
import h5py.h5d as h5d
import h5py.h5g as h5g
import h5py.h5p as h5p
import h5py.h5s as h5s
import h5py.h5t as h5t
import numpy as np
import numpy.typing as npt


def create_file(path: Path, formats: tuple[str, str]) -> h5py.File:
    """Create a file whose objects have the oldest to the newest of `formats`, h5py's `libver`.

    The file is hidden until it is complete, so it needs no lock, which not all network file
    systems have.
    """
    return h5py.File(path, "w", libver=formats, locking=False)


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
    """Write an attribute as master files have it: of exactly the text's size.

    Null-terminated, as in real data files: of one padded with zeros, programs in C that read it
    into as many bytes get all but the last.
    """
    _write_text_attribute(owner, name, text, string_type(len(text), h5t.STR_NULLTERM))


def _write_text_attribute(
    owner: h5g.GroupID | h5d.DatasetID, name: str, text: str, kind: h5t.TypeStringID
) -> None:
    attribute = h5a.create(owner, name.encode(), kind, h5s.create(h5s.SCALAR))
    attribute.write(np.array(text.encode("ascii"), dtype=f"S{kind.get_size()}"), mtype=kind)


def write_vector_attribute(owner: h5d.DatasetID, name: str, vector: npt.ArrayLike) -> None:
    """Write an attribute of several numbers, as float64."""
    array = np.array(vector, dtype="<f8")
    space = h5s.create_simple(array.shape)
    h5a.create(owner, name.encode(), h5t.IEEE_F64LE, space).write(array)


def create_group(parent: h5g.GroupID, name: str, nx_class: str | None = None) -> h5g.GroupID:
    """Create a group of a master file, with its NeXus class where it has one."""
    group = h5g.create(parent, name.encode())
    if nx_class is not None:
        write_text_attribute(group, "NX_class", nx_class)
    return group


def create_data_file_groups(file: h5py.File, class_sizes: tuple[int, int]) -> h5g.GroupID:
    """Create `/entry/data` of a data file and return it.

    The classes are null-terminated here, as in real files, in `class_sizes` bytes.
    """
    entry_type, data_type = (string_type(size, h5t.STR_NULLTERM) for size in class_sizes)
    entry = h5g.create(file.id, b"entry")
    _write_text_attribute(entry, "NX_class", "NXentry", entry_type)
    data = h5g.create(entry, b"data")
    _write_text_attribute(data, "NX_class", "NXdata", data_type)
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
) -> h5d.DatasetID:
    """Write a number or an array: contiguous, uncompressed, with a user fill value of 0."""
    array = np.array(numbers, dtype=dtype, order="C")
    space = h5s.create_simple(array.shape) if array.ndim else h5s.create(h5s.SCALAR)
    kind = h5t.py_create(array.dtype)
    dataset = h5d.create(parent, name.encode(), kind, space, _with_fill_value(array.dtype, 0))
    dataset.write(h5s.ALL, h5s.ALL, array)
    if units is not None:
        write_text_attribute(dataset, "units", units)
    return dataset


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
