"""The image producer: compressed images at the detector's full speed.

Compresses a pool of images once and puts each image of a series together from the pool's
compressed blocks (the model is in `scene`). Knows nothing of files or time.
"""

import functools
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np

from sim_dcu import codec, scene
from sim_dcu.codec import Compression
from sim_dcu.file_layouts import layout_of
from sim_dcu.lz4_block import Piece, joined, piece, plain_piece
from sim_dcu.series import ArmedSeries

HEADER = struct.Struct(">QI")
LENGTH = struct.Struct(">I")


class ImageSource:
    """The images of one series, as the chunks that go into its files.

    Building the pool takes about 0.1 s a million pixels, some more where it is cut for joining, in
    a thread of its own; series with an equal configuration share it.

    Parameters
    ----------
    series : ArmedSeries
        The configuration the series was armed with.

    Attributes
    ----------
    ready : Future
        Resolved when the pool is built; until then `chunk` waits.

    Raises
    ------
    ValueError
        Where the detector's firmware has no such compression as the armed one.
    """

    def __init__(self, series: ArmedSeries) -> None:
        self._series = series
        self._compression = layout_of(series).compression(series)
        # Of a chunk, big-endian as in real files: the image's size and a block's size in bytes.
        self._header = b""
        image_bytes = series.shape[0] * series.shape[1] * series.dtype.itemsize
        key = scene.PoolKey.of(series)
        self._block_count = key.blocks
        build: Callable[[], Any]
        if self._compression is codec.NONE:
            build = functools.partial(_plain_blocks, key)
        elif self._compression.in_blocks:
            build = functools.partial(_compressed_blocks, key, self._compression)
            self._header = HEADER.pack(image_bytes, scene.BLOCK_BYTES)
        else:
            build = functools.partial(_pieces, key)
            self._header = HEADER.pack(image_bytes, image_bytes)
        self.ready: Future[Any] = _in_background(build)

    def chunk(self, number: int) -> bytes:
        """Return the HDF5 chunk of image `number` (from 1).

        With compression a header of 12 bytes and compressed blocks, without it the little-endian
        pixels.

        Raises
        ------
        IndexError
            Where the series has no such image.
        """
        series = self._series
        scene.check_number(series, number)
        choice = scene.random_bytes(
            series.seed, scene.Purpose.BLOCK_CHOICE, series.series_id, number, self._block_count
        )
        picked = (choice & (scene.POOL_IMAGES - 1)).tolist()
        places = self.ready.result()
        if not self._compression.in_blocks:
            return self._one_block(places, picked)
        parts = [self._header]
        parts += [blocks[which] for blocks, which in zip(places, picked, strict=True)]
        return b"".join(parts)

    def _one_block(self, places: list[tuple[Piece, ...]], picked: list[int]) -> bytes:
        """Return the chunk of an image that is compressed as a whole."""
        # The filter stores what does not get smaller as it is; of the scene every image does.
        block = joined(pieces[which] for pieces, which in zip(places, picked, strict=True))
        return self._header + LENGTH.pack(len(block)) + block

    def array(self, number: int) -> np.ndarray:
        """Return what the chunk of image `number` holds: `series.dtype`, shape (y, x), counts.

        Raises
        ------
        IndexError
            Where the series has no such image.
        """
        chunk = self.chunk(number)
        return codec.decompressed(chunk, self._series.shape, self._series.dtype, self._compression)


# One pool at a time, so that equal ones are built once.
_building = threading.Lock()


def _in_background(build: Callable[[], Any]) -> "Future[Any]":
    """Return what `build` is going to return; the thread does not outlive the process."""
    result: Future[Any] = Future()
    result.set_running_or_notify_cancel()

    def run() -> None:
        try:
            with _building:
                result.set_result(build())
        except Exception as error:  # noqa: BLE001 - told to whoever asks for an image
            result.set_exception(error)

    threading.Thread(target=run, name="sim-dcu-pool", daemon=True).start()
    return result


@functools.lru_cache(maxsize=2)
def _compressed_blocks(key: scene.PoolKey, compression: Compression) -> list[tuple[bytes, ...]]:
    pool = (codec.compressed(_pool_image(key, n), compression) for n in range(scene.POOL_IMAGES))
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
    pool = [_pool_image(key, number).tobytes() for number in range(scene.POOL_IMAGES)]
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


def _pool_image(key: scene.PoolKey, number: int) -> np.ndarray:
    """Return one image of the pool, shape (y, x), with one look-up a pixel."""
    tables = _look_up_tables(key.count_time, key.bits)
    raw = scene.random_bytes(
        key.seed, scene.Purpose.POOL, 0, number, 2 * key.shape[0] * key.shape[1]
    )
    index = _first_entries(key.shape) + raw.view("<u2").reshape(key.shape)
    image = tables.take(index)
    if key.masked is not None:
        image[key.masked] = key.masked_count
    return image


@functools.lru_cache(maxsize=1)
def _look_up_tables(count_time: float, bits: int) -> np.ndarray:
    """Return every level's count for every random number, one level after the other."""
    numbers = 1 << scene.RANDOM_BITS
    columns = []
    for table in scene.level_tables(count_time):
        steps = np.bincount(np.array(table.thresholds, dtype=np.int64), minlength=numbers)
        counts = table.lowest + np.cumsum(steps)
        columns.append(np.minimum(counts, (1 << bits) - 1).astype(f"<u{bits // 8}"))
    return np.concatenate(columns)


@functools.lru_cache(maxsize=1)
def _first_entries(shape: tuple[int, int]) -> np.ndarray:
    """Return where each pixel's level starts in the look-up tables, shape (y, x)."""
    rows, columns = (np.arange(1 - size, size, 2, dtype=np.int64) ** 2 for size in shape)
    levels = np.digitize(np.add.outer(rows, columns), scene.LEVEL_BOUNDS)
    return levels.astype(np.uint32) << np.uint32(scene.RANDOM_BITS)
