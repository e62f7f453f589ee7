"""The dataset that a file's images go into, as each generation's firmware builds it.

Knows one dataset; `filewriter` decides in which file and when.
"""

import struct
from pathlib import Path

import h5py.h5a as h5a
import h5py.h5d as h5d
import h5py.h5g as h5g
import h5py.h5o as h5o
import h5py.h5p as h5p
import h5py.h5s as h5s
import h5py.h5t as h5t
import numpy as np

from sim_dcu.checksum import lookup3
from sim_dcu.codec import BSLZ4, Compression
from sim_dcu.file_layouts import FileLayout

# More than the part of an object header that comes before its filters' parameters.
HEADER_BYTES = 512
# An object header of version 2 and its flags (HDF5 file format specification 3.0, IV.A.1.b). That
# of version 1, which EIGER1 files have, has no checksum.
CHECKED_HEADER = b"OHDR"
HAS_TIMES, HAS_ATTRIBUTE_LIMITS, SIZE_BYTES = 0x20, 0x10, 0x03


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
    compression : Compression
        What the chunks are.
    layout : FileLayout
        The generation's.
    """

    def __init__(
        self,
        parent: h5g.GroupID,
        shape: tuple[int, int, int],
        dtype: np.dtype,
        compression: Compression,
        layout: FileLayout,
    ) -> None:
        self._shape = shape
        self._itemsize = dtype.itemsize
        self._count = 0
        self._compression = compression
        self._layout = layout
        properties = h5p.create(h5p.DATASET_CREATE)
        properties.set_chunk((1, *shape[1:]))
        if compression.filter_number is not None:
            # Flag 0 makes the filter mandatory. h5py's high-level call and hdf5plugin's helper
            # would set the optional flag.
            properties.set_filter(compression.filter_number, 0, compression.settings)
        if layout.fills_with_largest:
            properties.set_fill_value(np.array(np.iinfo(dtype).max, dtype=dtype))
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
        kind = np.dtype(self._layout.number_type)
        for name, number in (
            (b"image_nr_low", first),
            # Without an image and from 0 it would be -1, which EIGER2's number cannot.
            (b"image_nr_high", max(0, first + self._count - 1)),
        ):
            space = h5s.create(h5s.SCALAR)
            attribute = h5a.create(self._dataset, name, h5t.py_create(kind), space)
            attribute.write(np.array(number, dtype=kind))

    def set_filter_version(self, path: Path) -> None:
        """Give bitshuffle's filter the version that real files carry, in the closed file at `path`.

        The filter writes its own version when a dataset is created, so the number is changed
        afterwards.

        Raises
        ------
        ValueError
            Where the filter's parameters are not found in the dataset's header.
        """
        if self._compression is not BSLZ4:
            return
        with path.open("r+b") as file:
            file.seek(self._address)
            header = bytearray(file.read(HEADER_BYTES))
            if header.startswith(CHECKED_HEADER):
                del header[checked_header_bytes(header) :]
            settings = struct.pack("<3I", self._itemsize, *self._compression.settings)
            place = header.find(settings) - 8
            if place < 0:
                raise ValueError(f"{path}: no bitshuffle parameters in the header of its images")
            struct.pack_into("<2I", header, place, *self._layout.bitshuffle_version)
            if header.startswith(CHECKED_HEADER):
                struct.pack_into("<I", header, len(header) - 4, lookup3(bytes(header[:-4])))
            file.seek(self._address)
            file.write(header)


def checked_header_bytes(header: bytes | bytearray) -> int:
    """Return how long an object header with a checksum is, the checksum's 4 bytes included.

    HDF5 file format specification 3.0, IV.A.1.b: signature, version and flags; times and limits of
    attributes where the flags say so; the size of the messages, in 1 to 8 bytes; the messages.
    """
    flags = header[5]
    before = 6 + (16 if flags & HAS_TIMES else 0) + (4 if flags & HAS_ATTRIBUTE_LIMITS else 0)
    size_bytes = 1 << (flags & SIZE_BYTES)
    messages = int.from_bytes(header[before : before + size_bytes], "little")
    return before + size_bytes + messages + 4
