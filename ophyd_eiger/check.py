"""Is a file that came from the DCU whole? The control side's one door to HDF5.

What passes here may be deleted on the DCU.
"""

from pathlib import Path

import h5py
import numpy as np

from ophyd_eiger.codecs import codec
from ophyd_eiger.errors import FileError
from ophyd_eiger.image_file import look_into
from ophyd_eiger.images import IMAGES
from ophyd_eiger.master import object_of, open_hdf5, read_master


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
    if low is not None and high is not None and high - low + 1 != found:
        raise FileError(f"{path}: {found} images found, numbered {low} to {high}")
    with known.open() as file:
        for number in range(found):
            known.check(file, number)
    return found


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
    with images.open() as file:
        for number in range(images.images):
            images.read(file, number, pixels, codec=decompress)
