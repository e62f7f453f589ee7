"""EIGER files for the reader's tests, written with plain h5py or taken from real detectors.

Those of the simulator's file writer come by the helpers of its own tests.
"""

import contextlib
import sys
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 - registers the filters with HDF5
import numpy as np
import pytest

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "files"), str(TESTS / "sim")]

LZ4, BITSHUFFLE = 32004, 32008
EIGER1 = "eiger1_1M/eiger1_testmode10_2datafiles_4images_bslz4_data_{:06d}.h5"
EIGER2 = "eiger2_500K/eiger2_simread7_2datafiles_4images_bslz4_uint32_data_{:06d}.h5"


def create(group: h5py.Group, images: np.ndarray, code: int | None) -> h5py.Dataset:
    """Create a dataset as an EIGER1 does: one image a chunk, one filter that is not optional."""
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk((1, *images.shape[1:]))
    if code == BITSHUFFLE:
        settings.set_filter(BITSHUFFLE, 0, (0, 2))
    elif code is not None:
        settings.set_filter(code, 0, ())
    space = h5py.h5s.create_simple(images.shape, (h5py.h5s.UNLIMITED, *images.shape[1:]))
    kind = h5py.h5t.py_create(images.dtype)
    made = h5py.h5d.create(group.id, b"data", kind, space, settings)
    return h5py.Dataset(made)


@pytest.fixture(scope="session")
def write_data() -> Callable[..., Path]:
    """Write a data file: `write_data(path, images, first=1, code=BITSHUFFLE)`."""

    def write(path: Path, images: np.ndarray, *, first: int = 1, code: int | None = BITSHUFFLE):
        with h5py.File(path, "w", libver=("earliest", "v108")) as file:
            dataset = create(file.create_group("entry/data"), images, code)
            dataset[...] = images
            dataset.attrs["image_nr_low"] = np.int32(first)
            dataset.attrs["image_nr_high"] = np.int32(first + len(images) - 1)
        return path

    return write


@pytest.fixture(scope="session")
def write_raw() -> Callable[..., Path]:
    """Write a data file whose first image has these very bytes as its chunk."""

    def write(
        path: Path, raw: bytes, shape: tuple[int, int], dtype: np.dtype, *, code: int | None, mask=0
    ):
        with h5py.File(path, "w", libver=("earliest", "v108")) as file:
            empty = np.zeros((1, *shape), dtype)
            dataset = create(file.create_group("entry/data"), empty, code)
            dataset.id.write_direct_chunk((0, 0, 0), raw, filter_mask=mask)
        return path

    return write


@pytest.fixture(scope="session")
def write_master() -> Callable[..., Path]:
    """Write a master file that links to data files by their bare names, as a real one does."""

    def write(
        path: Path,
        names: Sequence[str],
        *,
        nimages: int | None = None,
        ntrigger: int = 1,
        images: np.ndarray | None = None,
        mask: np.ndarray | None = None,
    ):
        with h5py.File(path, "w", libver=("earliest", "v108")) as file:
            data = file.create_group("entry/data")
            for number, name in enumerate(names, 1):
                data[f"data_{number:06d}"] = h5py.ExternalLink(name, "entry/data/data")
            if images is not None:
                create(data, images, BITSHUFFLE)[...] = images
            specific = file.create_group("entry/instrument/detector/detectorSpecific")
            if nimages is not None:
                specific["nimages"] = np.uint32(nimages)
                specific["ntrigger"] = np.uint32(ntrigger)
            if mask is not None:
                specific["pixel_mask"] = mask
        return path

    return write


@pytest.fixture
def series(tmp_path: Path, write_data, write_master) -> tuple[Path, np.ndarray]:
    """A series of 7 images in files of 3, 3 and 1: the master file and the images."""
    images = np.random.default_rng(7).integers(0, 2**16, (7, 37, 53), np.uint16)
    names = [f"x_7_data_{number:06d}.h5" for number in (1, 2, 3)]
    for name, first in zip(names, (0, 3, 6), strict=True):
        write_data(tmp_path / name, images[first : first + 3], first=first + 1)
    return write_master(tmp_path / "x_7_master.h5", names, nimages=7), images


@pytest.fixture(scope="session")
def peak_below() -> Callable[..., contextlib.AbstractContextManager]:
    """See that no more bytes than these are in memory at a time: `with peak_below(2**22): ...`."""

    @contextlib.contextmanager
    def watched(most: int) -> Iterator[None]:
        tracemalloc.start()
        try:
            yield
            assert tracemalloc.get_traced_memory()[1] < most
        finally:
            tracemalloc.stop()

    return watched


@pytest.fixture(scope="session")
def real_files(eiger_test_data: Path) -> list[Path]:
    """The real data files: two of an EIGER1 1M, then two of an EIGER2 500K."""
    return [eiger_test_data / name.format(number) for name in (EIGER1, EIGER2) for number in (1, 2)]


@pytest.fixture(scope="session")
def real_chunk(real_files: list[Path]) -> tuple[bytes, tuple[int, int], np.dtype]:
    """The bytes of a real EIGER1 image, its shape (y, x) and dtype."""
    with h5py.File(real_files[0]) as file:
        dataset = file["entry/data/data"]
        _, raw = dataset.id.read_direct_chunk((0, 0, 0))
        return raw, dataset.shape[1:], dataset.dtype
