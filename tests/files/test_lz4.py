"""An image that is one LZ4 block, joined from blocks: HDF5's filter reads the image in it."""

import io

import h5py
import hdf5plugin  # noqa: F401  (registers the filters)
import numpy as np
import pytest
from written import armed

from sim_dcu import codec, oracle
from sim_dcu.images import ImageSource
from sim_dcu.lz4_block import joined, piece, plain_piece

# Of each test's cases the short run takes every 3rd, see conftest.
SHORT_RUN_EVERY = 5

BLOCK = 8192


def contents():
    """Return blocks that compress in each way there is: lengths below and above 15 and 15 + 255."""
    rng = np.random.default_rng(5)
    noise = rng.integers(0, 256, BLOCK, np.uint8)
    counts = rng.poisson(0.3, BLOCK).astype(np.uint8)
    islands = np.zeros(BLOCK, np.uint8)
    for start in range(0, BLOCK, 1024):
        islands[start : start + 400] = noise[start : start + 400]
    late = np.concatenate([noise[:7000], np.zeros(1192, np.uint8)])
    early = np.concatenate([np.zeros(1000, np.uint8), noise[:7192]])
    repeated = np.tile(noise[:19], BLOCK // 19 + 1)[:BLOCK]
    return [np.zeros(BLOCK, np.uint8), noise, counts, islands, late, early, repeated]


def lz4(plain):
    """Return a block as the filter compresses it."""
    chunk = codec.compressed(plain.reshape(1, -1), codec.LZ4_WHOLE)
    return chunk[16:]


def unpacked(block, size):
    """Let HDF5's filter read a chunk that holds one block."""
    header = size.to_bytes(8, "big") + size.to_bytes(4, "big") + len(block).to_bytes(4, "big")
    with h5py.File(io.BytesIO(), "w") as file:
        dataset = file.create_dataset("x", size, "u1", chunks=(size,), compression=32004)
        dataset.id.write_direct_chunk((0,), header + block)
        return dataset[()]


def cut(plain):
    block = lz4(plain)
    return piece(block) if len(block) < plain.size else plain_piece(plain.tobytes())


@pytest.mark.parametrize("first", range(7))
@pytest.mark.parametrize("second", range(7))
def test_two_blocks_become_one(first, second):
    plain = [contents()[first], contents()[second]]
    block = joined(map(cut, plain))
    np.testing.assert_array_equal(unpacked(block, 2 * BLOCK), np.concatenate(plain))


def test_many_blocks_and_a_short_one_become_one():
    order = np.random.default_rng(6).integers(0, 7, 60)
    plain = [contents()[which] for which in order] + [contents()[2][:777]]
    block = joined(map(cut, plain))
    np.testing.assert_array_equal(unpacked(block, 60 * BLOCK + 777), np.concatenate(plain))


def test_one_block_stays_what_it_was():
    for plain in contents():
        block = lz4(plain)
        if len(block) < plain.size:
            assert joined([piece(block)]) == block


# A mean count from a fraction to far above what 16 bits hold, with blocks that do not compress at
# all between.
@pytest.mark.timeout(400)  # of the longest: each of its frames is made
@pytest.mark.parametrize("count_time", [0.001, 10.0, 300.0, 200_000.0])
@pytest.mark.parametrize("bits", [8, 16, 32])
def test_images_of_any_density(count_time, bits):
    series = armed(1, compression="lz4", count_time=count_time, bit_depth_image=bits, nimages=3)
    chunk = ImageSource(series).chunk(2)
    found = codec.decompressed(chunk, series.shape, series.dtype, codec.LZ4_WHOLE)
    np.testing.assert_array_equal(found, oracle.image(series, 2))
    image_bytes = found.nbytes
    assert chunk[:12] == image_bytes.to_bytes(8, "big") + image_bytes.to_bytes(4, "big")
    # Else the filter would have stored it as it is.
    assert len(chunk) < image_bytes
