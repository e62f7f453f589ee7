"""Is a file that came from the DCU whole? The control side's one door to HDF5.

What passes here may be deleted on the DCU.
"""

from pathlib import Path

import numpy as np

from ophyd_eiger.codecs import codec
from ophyd_eiger.errors import FileError
from ophyd_eiger.image_file import look_into
from ophyd_eiger.images import IMAGES
from ophyd_eiger.master import read_master


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
    if known.channels != 1:
        raise FileError(f"{path}: images of {known.channels} channels, one expected")
    if images is not None and found != images:
        raise FileError(f"{path}: {found} images found, {images} expected")
    if low is not None and high is not None and high - low + 1 != found:
        raise FileError(f"{path}: {found} images found, numbered {low} to {high}")
    with known.open() as file:
        for number in range(found):
            known.check(file, number)
    return found


def check_master_file(path: Path, *, images: int | None) -> None:
    """Check a master file: it opens, and images kept inside it are whole.

    Parameters
    ----------
    path : Path
        The file, under whatever name.
    images : int, optional
        How many images it must hold itself; None if they are in data files.

    Raises
    ------
    MissingFileError, FileError, ChunkError
    """
    read_master(path)
    if images is not None:
        check_data_file(path, images=images)


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
