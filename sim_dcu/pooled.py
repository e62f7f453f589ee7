"""Images put together from a pool's compressed blocks, at the detector's full speed.

Compresses the pool once (the model is in `scene`). Knows nothing of files or time.
"""

import functools
import struct

import numpy as np

from sim_dcu import codec, scene
from sim_dcu.codec import Compression
from sim_dcu.developing import developed, developed_image, with_spots
from sim_dcu.lz4_block import Piece, joined, piece, plain_piece
from sim_dcu.series import ArmedSeries

# Of a chunk, big-endian as in real files: the image's size and a block's size in bytes.
HEADER = struct.Struct(">QI")
LENGTH = struct.Struct(">I")


class Pooled:
    """The images of a series whose scene has a pool, as chunks.

    Parameters
    ----------
    series : ArmedSeries
        The configuration the series was armed with.
    compression : Compression
        What the chunks are.
    """

    def __init__(self, series: ArmedSeries, compression: Compression) -> None:
        self._series = series
        self._compression = compression
        self._key = scene.PoolKey.of(series)
        self._size = series.shape[0] * series.shape[1] * series.dtype.itemsize
        self._count_time = float(series.detector["count_time"])

    def build(self) -> None:
        """Have the pool ready."""
        self._places()

    def chunk(self, number: int) -> bytes:
        """Return the chunk of image `number`, from 1."""
        picked = scene.block_choice(self._series, number, self._key.blocks)
        exposure = self._series.exposure(number)
        whole = not self._compression.in_blocks and self._key.scene == "crystal"
        if exposure != self._count_time or whole:
            return self._alone(number, exposure, picked)
        if not self._compression.in_blocks:
            return self._one_block(picked)
        blocks = [places[which] for places, which in zip(self._places(), picked, strict=True)]
        if self._key.scene == "crystal":
            blocks = self._with_spots(number, picked, blocks)
        return b"".join([self._header, *blocks])

    def _places(self) -> list[tuple]:
        if self._compression is codec.NONE:
            return _plain_blocks(self._key)
        if self._compression.in_blocks:
            return _compressed_blocks(self._key, self._compression)
        return _pieces(self._key)

    @property
    def _header(self) -> bytes:
        if self._compression is codec.NONE:
            return b""
        block = scene.BLOCK_BYTES if self._compression.in_blocks else self._size
        return HEADER.pack(self._size, block)

    def _one_block(self, picked: list[int]) -> bytes:
        """Return the chunk of an image that is compressed as a whole."""
        # The filter stores what does not get smaller as it is; of the scene every image does.
        pieces = zip(self._places(), picked, strict=True)
        block = joined(pieces_here[which] for pieces_here, which in pieces)
        return b"".join([self._header, LENGTH.pack(len(block)), block])

    def _alone(self, number: int, exposure: float, picked: list[int]) -> bytes:
        """Return the chunk of an image for which there is no pool: of an exposure of its own."""
        key = scene.PoolKey.of(self._series, exposure)
        if key.scene == "test-pattern":
            image = np.concatenate(
                [_pool_image(key, which)[_pixels(key, block)] for block, which in enumerate(picked)]
            )
        else:
            numbers = _picked_numbers(key, picked)
            image = developed_image(key, numbers)
            if key.scene == "crystal":
                spots = scene.crystal.spots(self._series, number)
                image[spots.places] = self._spots(key, number, spots, numbers[spots.places])
        return _chunk_of(image.reshape(key.shape), self._compression)

    def _with_spots(self, number: int, picked: list[int], blocks: list[bytes]) -> list[bytes]:
        """Return an image's blocks, those on which a crystal's spots fall made anew."""
        key, spots = self._key, scene.crystal.spots(self._series, number)
        touched = np.unique(spots.places // key.block_pixels)
        pixels = np.arange(key.shape[0] * key.shape[1])
        places = np.concatenate([pixels[_pixels(key, block)] for block in touched.tolist()])
        numbers = np.concatenate(
            [_block_numbers(key, block, picked[block]) for block in touched.tolist()]
        )
        image = developed(key, numbers, places)
        lit = np.searchsorted(places, spots.places)
        image[lit] = self._spots(key, number, spots, numbers[lit])
        changed = list(blocks)
        for block, made in zip(
            touched.tolist(), _blocks_of(image, key, self._compression), strict=True
        ):
            changed[block] = made
        return changed

    def _spots(
        self, key: scene.PoolKey, number: int, spots: scene.crystal.Spots, numbers: np.ndarray
    ) -> np.ndarray:
        series = self._series
        drawn = scene.random_bytes(
            series.seed, scene.Purpose.SPOTS, series.series_id, number, 4 * spots.places.size
        )
        return with_spots(key, numbers, spots, drawn.view("<u4"))


def _pixels(key: scene.PoolKey, block: int) -> slice:
    """Return the places of a block's pixels in the flattened image."""
    end = min((block + 1) * key.block_pixels, key.shape[0] * key.shape[1])
    return slice(block * key.block_pixels, end)


def _block_numbers(key: scene.PoolKey, block: int, pool_image: int) -> np.ndarray:
    """Return the random numbers of one block's pixels."""
    pixels = _pixels(key, block)
    size, skipped = 4 * (pixels.stop - pixels.start), 4 * pixels.start
    drawn = scene.random_bytes(key.seed, scene.Purpose.POOL, 0, pool_image, size, skipped=skipped)
    return drawn.view("<u4")


def _picked_numbers(key: scene.PoolKey, picked: list[int]) -> np.ndarray:
    """Return the random numbers of an image: each block's from one image of the pool."""
    return np.concatenate([_block_numbers(key, block, which) for block, which in enumerate(picked)])


def _pool_image(key: scene.PoolKey, number: int) -> np.ndarray:
    """Return one image of the pool, flattened."""
    if key.scene == "test-pattern":
        return _pattern(key, number)
    size = 4 * key.shape[0] * key.shape[1]
    raw = scene.random_bytes(key.seed, scene.Purpose.POOL, 0, number, size)
    return developed_image(key, raw.view("<u4"))


def _pattern(key: scene.PoolKey, digit: int) -> np.ndarray:
    """Return the test pattern with one digit everywhere, flattened."""
    modulus = scene.pattern.places(key.bits)
    rows, columns = (
        (np.arange(size) % modulus * 8 + digit).astype(f"<u{key.bits // 8}") for size in key.shape
    )
    image = np.empty(key.shape, rows.dtype)
    for first in (0, 1):
        # From row to row columns and rows change places.
        image[first::2, first::2] = columns[first::2]
        image[first::2, 1 - first :: 2] = rows[first::2, np.newaxis]
    if key.masked is not None:
        image[key.masked] = key.masked_count
    return image.ravel()


def _chunk_of(image: np.ndarray, compression: Compression) -> bytes:
    if compression is codec.NONE:
        return image.tobytes()
    return codec.compressed(image, compression)


def _blocks_of(image: np.ndarray, key: scene.PoolKey, compression: Compression) -> list[bytes]:
    """Return the blocks of pixels that make up whole blocks of an image, but for its last one."""
    if compression is codec.NONE:
        raw, size = image.tobytes(), scene.BLOCK_BYTES
        return [raw[start : start + size] for start in range(0, len(raw), size)]
    count = -(-image.size // key.block_pixels)
    return _split(codec.compressed(image[np.newaxis], compression), count)


# A series may be made twice at once, for its files and for the monitor.
@functools.lru_cache(maxsize=2)
def _compressed_blocks(key: scene.PoolKey, compression: Compression) -> list[tuple[bytes, ...]]:
    pool = (
        codec.compressed(_pool_image(key, n).reshape(key.shape), compression)
        for n in range(key.pool_images)
    )
    return _by_place([_split(stream, key.blocks) for stream in pool])


@functools.lru_cache(maxsize=1)
def _pieces(key: scene.PoolKey) -> list[tuple[Piece, ...]]:
    """Return the pool's blocks, cut so that they can be joined to one."""
    places = _compressed_blocks(key, codec.LZ4_IN_BLOCKS)
    sizes = [scene.BLOCK_BYTES] * key.blocks
    sizes[-1] = key.shape[0] * key.shape[1] * key.bits // 8 - sum(sizes[:-1])
    return [
        tuple(_piece(block[LENGTH.size :], size) for block in blocks)
        for blocks, size in zip(places, sizes, strict=True)
    ]


def _piece(block: bytes, size: int) -> Piece:
    # The filter stores a block that does not get smaller as it is.
    return piece(block) if len(block) < size else plain_piece(block)


@functools.lru_cache(maxsize=1)
def _plain_blocks(key: scene.PoolKey) -> list[tuple[bytes, ...]]:
    pool = [_pool_image(key, number).tobytes() for number in range(key.pool_images)]
    starts = range(0, len(pool[0]), scene.BLOCK_BYTES)
    return _by_place([[image[i : i + scene.BLOCK_BYTES] for i in starts] for image in pool])


def _by_place(pool: list[list[bytes]]) -> list[tuple[bytes, ...]]:
    return list(zip(*pool, strict=True))


def _split(stream: bytes, count: int) -> list[bytes]:
    """Return the blocks of a compressed image of `count` blocks.

    Every block is a big-endian length of 4 bytes and LZ4 data; the last one covers the rest of
    the image. With bitshuffle the rest is rounded down to 8 pixels, and up to 7 pixels follow as
    they are.
    """
    blocks, start = [], HEADER.size
    for _ in range(count - 1):
        (length,) = LENGTH.unpack_from(stream, start)
        blocks.append(stream[start : start + LENGTH.size + length])
        start += LENGTH.size + length
    blocks.append(stream[start:])
    return blocks
