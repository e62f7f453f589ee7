"""Sums and maxima of images larger than a band of pixels, however they are compressed."""

import h5py
import hdf5plugin
import numpy as np
import pytest
from nexus_layout import CHANNELS, write_nexus

from ophyd_eiger import codecs
from ophyd_eiger.errors import ChunkError
from ophyd_eiger.reader import open_series

# Of each test's cases the short run takes every 3rd, see conftest.
SHORT_RUN_EVERY = 3

# Pixels that no band and no block divides, some left over behind the last block of bitshuffle.
SHAPE = (641, 833)
COMPRESSIONS = {
    "bslz4": dict(hdf5plugin.Bitshuffle()),
    "bslz4 small blocks": dict(hdf5plugin.Bitshuffle(nelems=64)),
    "bslz4 blocks that fit no band": dict(hdf5plugin.Bitshuffle(nelems=4104)),
    "lz4 8192 bytes": dict(hdf5plugin.LZ4(nbytes=8192)),
    "lz4 one block": dict(hdf5plugin.LZ4()),
    "none": {},
}
# As many as several groups of images that are gone through together, and some.
IMAGES = 11


def images_of(dtype, shape=SHAPE):
    """Return faint images with gaps, some of whose pixels are strong or hold the largest value."""
    generator = np.random.default_rng(4)
    most = np.iinfo(dtype).max
    images = generator.poisson(0.4, (IMAGES, *shape)).astype(dtype)
    images[generator.random(images.shape) < 0.001] = most - 1
    images[generator.random(images.shape) < 0.001] = most
    images[:, 100:103] = most
    images[:, :40, :40] = most // 3  # many that are strong
    return images


def write(path, images, compression):
    with h5py.File(path, "w", libver=("earliest", "v108")) as file:
        made = file.create_dataset(
            "entry/data/data", data=images, chunks=(1, *images.shape[1:]), **compression
        )
        made.attrs.update(image_nr_low=1, image_nr_high=len(images))
    return path


def expected_sum(images):
    total = images.sum(axis=0, dtype=np.uint64)
    total[(images == np.iinfo(images.dtype).max).any(axis=0)] = 2**64 - 1
    return total


@pytest.mark.parametrize("dtype", ["<u1", "<u2", "<u4"])
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("codec", codecs.available())
def test_sum_and_maximum(tmp_path, compression, codec, dtype):
    images = images_of(dtype)
    path = write(tmp_path / "s.h5", images, COMPRESSIONS[compression])
    for threads in (1, 3):
        series = open_series(path, codec=codec, threads=threads)
        assert np.array_equal(series.sum(), expected_sum(images))
        assert np.array_equal(series.max(), images.max(axis=0))
        chosen = [10, 3, 3, 0]
        assert np.array_equal(series.sum(chosen), expected_sum(images[chosen]))


@pytest.mark.parametrize("width", range(262141, 262157))
def test_images_that_end_about_where_a_band_does(tmp_path, width):
    images = images_of("<u2", (1, width))
    path = write(tmp_path / "e.h5", images, COMPRESSIONS["bslz4"])
    for codec in codecs.available():
        assert np.array_equal(open_series(path, codec=codec).sum(), expected_sum(images))


@pytest.mark.long
def test_images_of_more_bytes_than_are_kept_of_whole_ones(tmp_path):
    images = np.random.default_rng(2).poisson(0.01, (3, 4096, 4100)).astype("<u4")
    images[1, 4000, 7] = 2**32 - 2
    for compression in ("lz4 one block", "bslz4"):
        path = write(tmp_path / f"{compression}.h5", images, COMPRESSIONS[compression])
        assert np.array_equal(open_series(path).sum(), images.sum(axis=0, dtype=np.uint64))


@pytest.mark.parametrize("together", [False, True], ids=["chunk a channel", "chunk an image"])
def test_channels(tmp_path, together):
    stack = np.random.default_rng(6).integers(0, 999, (7, 2, *SHAPE), np.uint32)
    master = write_nexus(tmp_path, stack, 3, together=together)
    for number, channel in enumerate(CHANNELS):
        series = open_series(master, channel=channel)
        assert np.array_equal(series.sum(), stack[:, number].sum(axis=0, dtype=np.uint64))
        assert np.array_equal(series.max(), stack[:, number].max(axis=0))


@pytest.mark.parametrize("codec", codecs.available())
@pytest.mark.parametrize("compression", ["bslz4", "lz4 8192 bytes"])
def test_a_broken_image_is_named(tmp_path, compression, codec):
    images = images_of("<u2")
    path = write(tmp_path / "b.h5", images, COMPRESSIONS[compression])
    with h5py.File(path, "r+") as file:
        data = file["entry/data/data"]
        skipped, raw = data.id.read_direct_chunk((9, 0, 0))
        # The codec alone can see that: lengths and sizes are right.
        changed = raw[:20] + bytes(1000) + raw[1020:]
        length = int.from_bytes(raw[12:16], "big")
        assert length > 1100, "all of it in the first block"
        data.id.write_direct_chunk((9, 0, 0), changed, filter_mask=skipped)
    with pytest.raises(ChunkError, match=r"b\.h5: image 10 of 11 is broken"):
        open_series(path, codec=codec).sum()
    with pytest.raises(ChunkError, match=r"b\.h5: image 10 of 11 is broken"):
        open_series(path, codec=codec).max(range(8, 11))
