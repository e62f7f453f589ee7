"""Is a file that came from the DCU whole? The control side's one door to HDF5.

What passes here may be deleted on the DCU.
"""

from io import FileIO
from pathlib import Path

import h5py
import numpy as np

from ophyd_eiger.chunks import are_whole
from ophyd_eiger.codecs import codec
from ophyd_eiger.errors import FileError
from ophyd_eiger.image_file import ImageFile, Room, look_into
from ophyd_eiger.images import IMAGES, images_of, number_of, stack_of
from ophyd_eiger.master import object_of, open_hdf5, read_master

# Images whose bytes are read and followed together: so many bytes at most, and so many images at
# least, because a few are followed sooner one by one.
READ_AT_ONCE = 2**25
LEAST_AT_ONCE = 16


def check_data_file(path: Path, *, images: int | None) -> int:
    """Check a data file: it opens, counts its images right, and each one's bytes are whole.

    Parameters
    ----------
    path : Path
        The file, under whatever name.
    images : int, optional
        How many images it must hold; None if that is not known.

    Returns
    -------
    int
        How many images it holds.

    Raises
    ------
    MissingFileError, FileError, ChunkError
    """
    known = look_into(path, IMAGES)
    found, low, high = known.images, known.low, known.high
    if known.has_channels:
        raise FileError(f"{path}: no images of shape (images, y, x) in /{IMAGES}")
    if images is not None and found != images:
        raise FileError(f"{path}: {found} images found, {images} expected")
    if low is None or high is None:
        _check_numbers(path)
    elif high - low + 1 != found:
        raise FileError(f"{path}: {found} images found, numbered {low} to {high}")
    with known.open() as file:
        _check_images(known, file)
    return found


def _check_numbers(path: Path) -> None:
    """See that a file that does not say the numbers of its images says nothing in their place."""
    with open_hdf5(path) as file:
        images = stack_of(file, path)
        for end in ("low", "high"):
            if f"image_nr_{end}" in images.attrs and number_of(images, end) is None:
                raise FileError(f"{path}: broken (image_nr_{end} is no integer)")


def _check_images(known: ImageFile, file: FileIO) -> None:
    spans = known.spans()
    at_once = 1 if spans is None else _read_at_once(spans)
    room, room_of_one = np.empty(READ_AT_ONCE, np.uint8), Room()
    for first in range(0, known.images, at_once):
        numbers = range(first, min(first + at_once, known.images))
        some = None if spans is None else spans[first : numbers.stop]
        if some is None or not _are_whole(known, file, some, room):
            for number in numbers:
                known.check(file, number, room=room_of_one)


def _read_at_once(spans: np.ndarray) -> int:
    """Return how many images are read together: some are larger than others."""
    size = np.mean(spans[:, 1] - spans[:, 0]) if len(spans) else 1
    return max(1, int(0.75 * READ_AT_ONCE / max(size, 1)))


def _are_whole(known: ImageFile, file: FileIO, spans: np.ndarray, room: np.ndarray) -> bool:
    """Say whether all images that lie there are whole; if not, `ImageFile.check` tells which.

    No is said, too, of images that are followed sooner or better one by one.
    """
    if len(spans) < LEAST_AT_ONCE:
        return False
    begin, end = int(spans.min()), int(spans.max())
    # In a broken file they may lie anywhere, or many of them in one place.
    if max(end - begin, int(np.sum(spans[:, 1] - spans[:, 0]))) > len(room):
        return False
    raw = room[: end - begin]
    try:
        file.seek(begin)
        is_there = file.readinto(raw.data) == len(raw)
    except OSError:
        return False
    geometry, (begins, ends) = known.geometry, (spans - begin).T
    return is_there and are_whole(raw, begins, ends, known.filters, geometry.shape, geometry.dtype)


def check_master_file(path: Path, *, images: int | None = None) -> int:
    """Check a master file: it opens, and images kept inside it are whole.

    Parameters
    ----------
    path : Path
        The file, under whatever name.
    images : int, optional
        How many images it must hold itself; None if that is not known, and may be none.

    Returns
    -------
    int
        How many images it holds itself: 0 if they are in data files.

    Raises
    ------
    MissingFileError, FileError, ChunkError
    """
    read_master(path)
    if images is None and _where_images_are(path) != "here":
        return 0
    return check_data_file(path, images=images)


def check_leads_to_images(path: Path) -> None:
    """Check that a master that holds no image says in which files they are.

    One without either may have lost them by a broken byte.

    Raises
    ------
    MissingFileError, FileError
    """
    if not _where_images_are(path) and not read_master(path).data_files:
        raise FileError(f"{path}: neither images found in it, nor links to data files")


def _where_images_are(path: Path) -> str:
    """Return "here", "elsewhere" if a virtual dataset shows those of other files, or ""."""
    with open_hdf5(path) as file:
        found = object_of(file, IMAGES)
        if not isinstance(found, h5py.Dataset):
            return ""
        return "elsewhere" if found.is_virtual else "here"


def check_pixels(path: Path) -> None:
    """Check that every image of a data file can be decompressed; takes as long as reading it.

    And that HDF5, which has listed them, finds each, as other programs have it do.

    A count that was changed and still decompresses is not seen: an EIGER writes no checksums.

    Parameters
    ----------
    path : Path
        A file that `check_data_file` has found whole.

    Raises
    ------
    MissingFileError, FileError, ChunkError, CodecError
    """
    images, decompress = look_into(path, IMAGES), codec()
    pixels = np.empty(images.geometry.shape, images.geometry.dtype)
    with images.open() as file, open_hdf5(path) as again:
        found = images_of(again, path).id
        for number in range(images.images):
            images.read(file, number, pixels, codec=decompress)
            found.read_direct_chunk((number, 0, 0))
