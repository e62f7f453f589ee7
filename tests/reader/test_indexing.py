"""Series against plain numpy: whatever the index, the same pixels or the same error."""

import tracemalloc

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ophyd_eiger.indexing import select
from ophyd_eiger.reader import open_series

SHAPE = (7, 9, 11)
IMAGES = np.random.default_rng(3).integers(0, 2**16, SHAPE, np.uint16)


@pytest.fixture(scope="module", params=["hdf5plugin", None])
def series(request, tmp_path_factory, write_data, write_master):
    """Seven small images in files of 3, 3 and 1."""
    folder = tmp_path_factory.mktemp("indexed")
    names = [f"i_data_{number:06d}.h5" for number in (1, 2, 3)]
    for name, first in zip(names, (0, 3, 6), strict=True):
        write_data(folder / name, IMAGES[first : first + 3], first=first + 1)
    master = write_master(folder / "i_master.h5", names, nimages=7)
    return open_series(master, codec=request.param, threads=2)


def outcome(array, index):
    """Return what an index gives, or the class of the error and its text."""
    try:
        return array[index]
    except (IndexError, TypeError, ValueError) as error:
        return type(error), str(error)


def assert_alike(series, index):
    expected, found = outcome(IMAGES, index), outcome(series, index)
    if isinstance(expected, tuple):
        # The text is numpy's, except of an image that there is not.
        assert isinstance(found, tuple)
        assert found[0] is expected[0]
        return
    assert isinstance(found, (np.ndarray, np.generic)), found
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert np.array_equal(found, expected)


ENTRIES = st.one_of(
    st.integers(-13, 13),
    st.slices(12),
    st.lists(st.integers(-7, 6), max_size=4),
    hnp.arrays(np.int64, hnp.array_shapes(max_dims=2, max_side=3), elements=st.integers(-8, 8)),
    st.sampled_from([None, True, False, np.True_, np.int8(2), np.array(1), 1.0, "0", ..., []]),
    st.sampled_from([7, 9, 11]).flatmap(lambda n: hnp.arrays(bool, n)),
)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(index=st.one_of(hnp.basic_indices(SHAPE, allow_newaxis=True), ENTRIES, st.tuples(ENTRIES)))
def test_one_entry_or_plain_slices(series, index):
    assert_alike(series, index)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(index=st.lists(ENTRIES, max_size=4).map(tuple))
def test_any_entries(series, index):
    assert_alike(series, index)


@pytest.mark.long
@pytest.mark.timeout(600)
@settings(max_examples=3000, deadline=None, suppress_health_check=list(HealthCheck))
@given(index=st.one_of(hnp.basic_indices(SHAPE), st.lists(ENTRIES, max_size=4).map(tuple)))
def test_thousands_of_indices(series, index):
    assert_alike(series, index)


@pytest.mark.parametrize(
    "index",
    [
        IMAGES > 40000,
        IMAGES[:, :, 0] > 40000,
        (0, slice(None), [1, 2]),
        ([3, 0, 3], slice(2, 7), slice(None, None, -3)),
        (slice(None), slice(None), [0]),
        ([[0, 1], [6, -7]], 4),
        (np.arange(7) % 2 == 0, slice(1, 4), 2),
        ([0, 2], [1, 3], [5, 5]),
        (None, [1, 2], None, 3),
        (..., None, [1, 0]),
        (True, 2),
        (False, np.array([7])),
        (slice(1, 3), slice(8, 2, -2), slice(4, 4)),
        (slice(None), [0, 1, 2], ..., 1),
        (1, ..., [0, 2], [1, 0]),
        ([0, 2], [1, 0], ..., [3, 4]),
        ([0, 2], [1, 0], [3, 4], ...),
        (slice(None), [[0], [4]], ..., [3, 5]),
        (1, 2, ..., 3),
    ],
    ids=repr,
)
def test_what_takes_care(series, index):
    assert_alike(series, index)


def test_an_index_of_another_length_of_truth_values(series):
    assert_alike(series, np.ones(6, bool))
    assert_alike(series, np.ones((7, 8), bool))
    assert_alike(series, ([0, 1], [0, 1, 2]))
    assert_alike(series, (0, 0, 0, 0))


def test_it_is_an_array_to_numpy(series):
    assert np.array_equal(np.asarray(series), IMAGES)
    assert np.asarray(series, np.float32).dtype == np.float32
    assert np.array_equal(np.stack(list(series)), IMAGES)
    assert (series.ndim, len(series), series.size, series.nbytes) == (3, 7, 693, 1386)
    with pytest.raises(ValueError, match="without being read"):
        np.array(series, copy=False)


def test_what_an_index_asks_is_known_without_going_through_its_pixels():
    """Of a whole archive's images: numpy itself would copy each, or find no memory for them."""
    shape = (2**36, 4371, 4150)
    asked = select(([2**36 - 1, 5, 5], slice(None, None, 2)), shape)
    assert list(asked.images) == [5, 2**36 - 1]
    assert (asked.rows, asked.columns) == (range(4371), range(4150))
    assert len(select((slice(None), [1, 2], [0, 1]), shape).images) == 2**36
    assert len(select(np.arange(50_000), shape).images) == 50_000
    with pytest.raises(IndexError, match="out of bounds"):
        select([2**36], shape)


@pytest.mark.parametrize("chunk", [1, 2, 7, 100])
def test_dask_reads_what_numpy_reads(series, chunk):
    stack = series.dask(chunk)
    assert (stack.shape, stack.dtype) == (SHAPE, np.uint16)
    assert stack.chunksize[0] == min(chunk, 7)
    assert np.array_equal(stack.compute(), IMAGES)
    assert np.array_equal(stack[[5, 0], 2:4, ::-1].compute(), IMAGES[[5, 0], 2:4, ::-1])


def test_what_is_not_asked_for_is_not_read(tmp_path, write_data):
    """The other images and the other files may be broken."""
    path = write_data(tmp_path / "b.h5", IMAGES)
    with h5py.File(path, "a") as file:
        file["entry/data/data"].id.write_direct_chunk((3, 0, 0), b"broken")
    found = open_series(path)
    assert np.array_equal(found[[6, 2, 2], 4], IMAGES[[6, 2, 2], 4])
    assert np.array_equal(found[np.arange(7) != 3], IMAGES[np.arange(7) != 3])
    assert found[3, 4:4].shape == (0, 11)


RING = np.hypot(*np.mgrid[-128:128, -128:128]).astype(int) == 100


@pytest.mark.parametrize(
    "index",
    [
        np.s_[:, 100, [3, 201]],
        np.s_[:, [100], [200]],
        np.s_[:, ::16, ::-16],
        np.s_[:, [0, 255]],
        np.s_[:, RING],
        np.s_[::-1, None, RING],
        np.s_[:, [0, 255], None, ::64],
    ],
    ids=["pixels", "a pixel", "steps", "rows", "a ring", "a ring backwards", "rows and steps"],
)
def test_pixels_that_are_not_asked_for_are_not_kept(tmp_path, write_data, index):
    """Of a thousand images of 16 million pixels the whole rows would be more than any memory."""
    images = np.random.default_rng(4).integers(0, 9, (40, 256, 256), np.uint16)
    series = open_series(write_data(tmp_path / "m_data_000001.h5", images), threads=2)
    expected = images[index]
    one = images[0].nbytes
    tracemalloc.start()
    try:
        found = series[index]
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert np.array_equal(found, expected)
    assert kept < 2 * expected.nbytes + one
    # An image a thread, its packed bytes, and which pixels are wanted.
    assert peak < 3 * expected.nbytes + 8 * one
