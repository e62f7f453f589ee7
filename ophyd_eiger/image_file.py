"""One file of images, by its chunks: where each one lies, read past HDF5 and its lock.

HDF5 says once where the compressed images are. They are then read as bytes of a file, each checked
before a codec sees it, and decompressed into the caller's array. Knows nothing of series.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

from ophyd_eiger.chunks import Blocks, Chunk, check_chunk, check_pieces, largest_chunk
from ophyd_eiger.codecs import Codec
from ophyd_eiger.errors import (
    ChangedFileError,
    ChunkError,
    FileError,
    MissingFileError,
    StorageError,
)
from ophyd_eiger.images import filters_of, number_of, stack_of
from ophyd_eiger.master import HDF5_ERRORS, open_hdf5
from ophyd_eiger.packed import Packed


@dataclass(frozen=True)
class Box:
    """A rectangle of an image: the rows and the columns in it, each with step 1."""

    rows: range
    columns: range

    @property
    def shape(self) -> tuple[int, int]:
        """Its shape (y, x) in pixels."""
        return len(self.rows), len(self.columns)


@dataclass(frozen=True)
class Geometry:
    """What all images of a series have in common: shape (y, x) in pixels, and type of a pixel."""

    shape: tuple[int, int]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """How many bytes an image takes in memory."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    @property
    def box(self) -> Box:
        """The whole image."""
        return Box(range(self.shape[0]), range(self.shape[1]))

    def __str__(self) -> str:
        return f"{self.shape[0]} x {self.shape[1]} {self.dtype}"


class Room:
    """Memory that one thread reads compressed images into, one after the other.

    New memory for each would take longer than reading its bytes into what was used before.
    """

    def __init__(self) -> None:
        self._bytes = bytearray()

    def of(self, size: int) -> memoryview:
        """Return so many bytes of it; what it was used for before is overwritten."""
        if len(self._bytes) < size:
            self._bytes = bytearray(size)
        return memoryview(self._bytes)[:size]


@dataclass(frozen=True, eq=False)
class ImageFile:
    """What a file has.

    Attributes
    ----------
    path : Path
        The file.
    place : str
        Where its images are in it.
    images : int
        For how many it has places.
    has_channels : bool
        Whether it is of the 2024.2 layout, (images, channels, y, x).
    channels : int
        How many thresholds each has; 1 of all other files.
    geometry : Geometry
        Of one image of one channel.
    low, high : int or None
        The numbers of the first and the last image, as the file has them; None if it does not say.
    """

    path: Path
    place: str
    images: int
    has_channels: bool
    channels: int
    geometry: Geometry
    low: int | None
    high: int | None
    _state: tuple[int, ...] = ()
    # What keeps its images from being read, whichever is asked for.
    _problem: str = ""
    # How many planes, one channel of one image each, a chunk has, one below the other.
    _stacked: int = 1
    _direct: bool = True
    _filters: Callable[[int], list[int]] = field(default=lambda skipped: [])
    # The chunks that were written, in rising order; byte, size, and filters skipped of each.
    _numbers: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    _chunks: np.ndarray = field(default_factory=lambda: np.empty((0, 3), np.int64))

    def open(self) -> FileIO:
        """Open the file for `read`.

        Raises
        ------
        MissingFileError
            If it is not there any more.
        FileError
            If it is another by now, or cannot be read.
        """
        try:
            file = self.path.open("rb", buffering=0)
        except FileNotFoundError:
            raise MissingFileError(f"{self.path}: no such file") from None
        except OSError as error:
            raise FileError(f"{self.path}: cannot be read ({error})") from error
        if _state(os.fstat(file.fileno())) != self._state:
            file.close()
            raise ChangedFileError(f"{self.path}: changed while it was read")
        return file

    def read(
        self,
        file: BinaryIO,
        number: int,
        out: np.ndarray,
        *,
        codec: Codec,
        channel: int = 0,
        box: Box | None = None,
        room: Room | None = None,
    ) -> None:
        """Read an image, or a rectangle of it.

        Parameters
        ----------
        file : file
            What `open` returned.
        number : int
            Which image, counted from 0 in the file.
        out : numpy.ndarray
            Where it goes, of the rectangle's shape (y, x) and the geometry's type.
        codec : Codec
            What decompresses it.
        channel : int
            Which threshold, counted from 0.
        box : Box, optional
            The rectangle; only the blocks that hold its rows are decompressed.
        room : Room, optional
            Where its compressed bytes are kept meanwhile, and nobody else's; new memory by default.

        Raises
        ------
        ChunkError
            Naming file and image.
        """
        box = box or self.geometry.box
        try:
            y, x = self.geometry.shape
            down = self._place_of(number, channel)[1] * y
            rows = range(box.rows.start + down, box.rows.stop + down)
            dtype = self.geometry.dtype
            raw, blocks = self._checked(file, number, channel, rows, room)
            wanted = len(rows) * x * dtype.itemsize
            begin = rows.start * x * dtype.itemsize - blocks.first
            if blocks.filter is None:
                pixels = np.frombuffer(raw, np.uint8, blocks.size, blocks.begin)
            elif out.flags.c_contiguous and blocks.size == wanted and out.shape[1] == x:
                codec.decode(raw, blocks, dtype.itemsize, out.reshape(-1).view(np.uint8))
                return
            else:
                pixels = np.empty(blocks.size, np.uint8)
                codec.decode(raw, blocks, dtype.itemsize, pixels)
            image = pixels[begin : begin + wanted].view(dtype).reshape(len(rows), x)
            out[...] = image[:, box.columns.start : box.columns.stop]
        except HDF5_ERRORS as error:  # ChunkError among them
            raise self._broken(number, error) from error

    def packed(self, file: BinaryIO, number: int, channel: int, piece: int) -> Packed:
        """Read the bytes of an image and find them whole; nothing is decompressed.

        Parameters
        ----------
        file, number, channel
            As of `read`.
        piece : int
            How many bytes of the image will be decompressed at a time, if its blocks allow that.

        Raises
        ------
        ChunkError
            Naming file and image.
        """
        try:
            if self._stacked > 1:
                y = self.geometry.shape[0]
                down = self._place_of(number, channel)[1]
                rows = range(down * y, (down + 1) * y)
                raw, blocks = self._checked(file, number, channel, rows)
                before = down * self.geometry.nbytes - blocks.first
                return self._packed(number, raw, [blocks], before)
            raw, filters = self._raw(file, number, channel)
            pieces = check_pieces(raw, filters, self.geometry.shape, self.geometry.dtype, piece)
        except HDF5_ERRORS as error:
            raise self._broken(number, error) from error
        return self._packed(number, raw, pieces)

    def _packed(self, number: int, raw: Chunk, pieces: list[Blocks], before: int = 0) -> Packed:
        size, itemsize = self.geometry.nbytes, self.geometry.dtype.itemsize
        return Packed(raw, pieces, size, itemsize, before, lambda e: self._broken(number, e))

    def check(
        self, file: BinaryIO, number: int, channel: int = 0, *, room: Room | None = None
    ) -> None:
        """Check that the bytes of an image are whole, without decompressing them.

        Parameters
        ----------
        file, number, channel, room
            As of `read`.

        Raises
        ------
        ChunkError
            Naming file and image.
        """
        try:
            self._checked(file, number, channel, None, room)
        except HDF5_ERRORS as error:
            raise self._broken(number, error) from error

    def _checked(
        self,
        file: BinaryIO,
        number: int,
        channel: int,
        rows: range | None,
        room: Room | None = None,
    ) -> tuple[Chunk, Blocks]:
        """Return the bytes of an image, found whole, and which of them hold the rows wanted."""
        raw, filters = self._raw(file, number, channel, room)
        return raw, check_chunk(raw, filters, self._tall, self.geometry.dtype, rows)

    @property
    def _tall(self) -> tuple[int, int]:
        """The shape of a chunk, whose planes are one below the other."""
        y, x = self.geometry.shape
        return self._stacked * y, x

    def _broken(self, number: int, error: BaseException) -> ChunkError:
        image = f"{self.path}: image {number + 1} of {self.images}"
        if isinstance(error, StorageError):
            return StorageError(f"{image} cannot be read: {error}")
        return ChunkError(f"{image} is broken: {error}")

    @property
    def written(self) -> int:
        """How many images there are, up to the last one that was written.

        Room may have been made for more, which HDF5 gives as fill values: by a DCU that was
        interrupted, or by whoever is still writing the file.
        """
        stated = None if self.low is None or self.high is None else self.high - self.low + 1
        if self._problem or stated == self.images:
            # Where it says itself to have them all, one that is lacking is a fault and not room.
            return self.images
        if not len(self._numbers):
            return 0
        # The last chunk may have room for more. None begins beyond the last place but in a broken
        # file, in which nothing is mere room.
        return min((int(self._numbers[-1]) + 1) * self._stacked // self.channels, self.images)

    @property
    def most(self) -> int:
        """How many images there are at most, whatever its shape says."""
        return len(self._numbers) * self._stacked

    @property
    def spans_its_numbers(self) -> bool:
        """Whether it has as many images as there are numbers from its first to its last one."""
        if self.low is None or self.high is None:
            return True
        return self.high - self.low + 1 == self.images

    def starts(self, first: int) -> set[int]:
        """Return the numbers that the series' first image has as this file's own numbers tell it.

        Parameters
        ----------
        first : int
            The place in the series of this file's first image, counted from 0.
        """
        low = set() if self.low is None else {self.low - first}
        last = first + self.written - 1
        return low if self.high is None else low | {self.high - last}

    def spans(self) -> np.ndarray | None:
        """Return where each image's bytes begin and end in the file, as int64 (images, 2).

        None unless all are there, each in a chunk of its own that went through every filter and is
        no larger than any image.
        """
        if self._problem or not self._direct or self.has_channels or self._stacked > 1:
            return None
        # How many there should be may be anything, how many there are is not.
        if len(self._numbers) != self.images or self._chunks[:, 2].any():
            return None
        if not np.array_equal(self._numbers, np.arange(self.images)):
            return None
        begins, sizes = self._chunks[:, 0], self._chunks[:, 1]
        if np.any(sizes > largest_chunk(self._tall, self.geometry.dtype)):
            return None
        return np.stack([begins, begins + sizes], axis=1)

    @property
    def filters(self) -> list[int]:
        """The identifiers of the filters that its images went through."""
        return self._filters(0)

    def check_written(self, number: int, channel: int = 0) -> None:
        """See that a file has an image, before room is made for it: its shape may be anything.

        Raises
        ------
        ChunkError
            Naming file and image.
        """
        if self._problem:
            raise self._broken(number, StorageError(self._problem))
        if self._chunk_of(number, channel) is None:
            raise self._broken(number, ChunkError("it was never written"))

    def _place_of(self, number: int, channel: int) -> tuple[int, int]:
        """Return which chunk an image is in, and which of its planes it is."""
        return divmod(number * self.channels + channel, self._stacked)

    def _chunk_of(self, number: int, channel: int) -> int | None:
        wanted, _ = self._place_of(number, channel)
        found = int(np.searchsorted(self._numbers, wanted))
        there = found < len(self._numbers) and self._numbers[found] == wanted
        return found if there else None

    def _raw(
        self, file: BinaryIO, number: int, channel: int, room: Room | None = None
    ) -> tuple[Chunk, list[int]]:
        """Return the bytes of a chunk, and the filters that it went through."""
        if self._problem:
            raise StorageError(self._problem)
        found = self._chunk_of(number, channel)
        if found is None:
            raise ChunkError("it was never written")
        place, size, skipped = (int(value) for value in self._chunks[found])
        # Before anything is read: what the file says of its size may be anything.
        if size > largest_chunk(self._tall, self.geometry.dtype):
            raise ChunkError(f"{size} bytes are more than any image takes")
        if not self._direct:
            with open_hdf5(self.path) as again:
                images = stack_of(again, self.path, self.place)
                first, plane = divmod(int(self._numbers[found]) * self._stacked, self.channels)
                place_of = {2: (0, 0), 3: (first, 0, 0), 4: (first, plane, 0, 0)}
                skipped, raw = images.id.read_direct_chunk(place_of[images.ndim])
                return raw, self._filters(skipped)
        raw = _bytes_at(file, place, size, room)
        if len(raw) != size:
            raise ChunkError(f"cut off: {size} bytes promised, the file has {len(raw)} there")
        return raw, self._filters(skipped)


def look_into(path: Path, place: str) -> ImageFile:
    """Look into a file: which images it has, and where they lie.

    Raises
    ------
    MissingFileError, FileError
    """
    state = _state(_stat(path))
    with open_hdf5(path) as file:
        images = stack_of(file, path, place)
        if math.prod(images.shape) * images.dtype.itemsize >= 2**63:
            raise FileError(f"{path}: broken (images of shape {images.shape})")
        has_channels = images.ndim == 4
        channels = images.shape[1] if has_channels else 1
        geometry = Geometry(images.shape[-2:], images.dtype)
        numbers = number_of(images, "low"), number_of(images, "high")
        count = images.shape[0] if images.ndim > 2 else 1
        known = ImageFile(path, place, count, has_channels, channels, geometry, *numbers, state)
        return _with_chunks(known, file, images)


def _with_chunks(known: ImageFile, file: h5py.File, images: h5py.Dataset) -> ImageFile:
    if images.chunks is None:
        return _with_rows_of_bytes(known, file, images)
    stacked = _planes_of(images.chunks, known)
    if not stacked:
        problem = f"chunks of {images.chunks}, which are of no whole images"
        return _replaced(known, _problem=problem)
    found: list[tuple[int, int, int, int]] = []

    def add(chunk: h5py.h5d.StoreInfo) -> None:
        plane = chunk.chunk_offset[0] * known.channels if len(chunk.chunk_offset) > 2 else 0
        if len(chunk.chunk_offset) == 4:
            plane += chunk.chunk_offset[1]
        found.append((plane // stacked, chunk.byte_offset or 0, chunk.size, chunk.filter_mask))

    images.id.chunk_iter(add)
    if any(max(chunk) >= 2**63 for chunk in found):
        raise FileError(f"{known.path}: broken (images that lie beyond any file's end)")
    listed = np.array(sorted(found), np.int64).reshape(-1, 4)
    return _replaced(
        known,
        _stacked=stacked,
        # HDF5 counts from behind a block of the user's own, the bytes of a file do not.
        _direct=file.userblock_size == 0 and file.driver == "sec2",
        _filters=filters_of(images),
        _numbers=np.ascontiguousarray(listed[:, 0]),
        _chunks=np.ascontiguousarray(listed[:, 1:]),
    )


def _planes_of(chunks: tuple[int, ...], known: ImageFile) -> int:
    """Return how many planes, one after the other, each chunk has; 0 if they are no such chunks."""
    *stack, y, x = chunks
    if (y, x) != known.geometry.shape:
        return 0
    if len(stack) == 2 and stack[1] != known.channels and stack != [1, 1]:
        return 0
    return math.prod(stack)


def _with_rows_of_bytes(known: ImageFile, file: h5py.File, images: h5py.Dataset) -> ImageFile:
    """Add where the images of a dataset without chunks lie: one behind the other, as they are."""
    created = images.id.get_create_plist()
    begin = images.id.get_offset()
    if (
        created.get_layout() != h5py.h5d.CONTIGUOUS
        or created.get_external_count()
        or file.driver != "sec2"
    ):
        return _replaced(known, _problem="it is in no chunk, nor in this file as it is")
    size = known.geometry.nbytes
    planes = known.images * known.channels if begin is not None else 0
    if begin is not None and begin + planes * size > known.path.stat().st_size:
        raise FileError(f"{known.path}: broken (images that lie beyond the file's end)")
    numbers = np.arange(planes, dtype=np.int64)
    chunks = np.zeros((planes, 3), np.int64)
    chunks[:, 0], chunks[:, 1] = (begin or 0) + numbers * size, size
    return _replaced(known, _numbers=numbers, _chunks=chunks)


def _replaced(known: ImageFile, **changes: object) -> ImageFile:
    return ImageFile(**{**vars(known), **changes})  # type: ignore[arg-type]


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file") from None
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error})") from error


def _state(found: os.stat_result) -> tuple[int, ...]:
    return found.st_ino, found.st_size, found.st_mtime_ns


def _bytes_at(file: BinaryIO, place: int, size: int, room: Room | None) -> Chunk:
    if not hasattr(os, "preadv"):
        file.seek(place)
        return file.read(size)
    if room is None:
        return os.pread(file.fileno(), size, place)
    into = room.of(size)
    return into[: os.preadv(file.fileno(), [into], place)]
