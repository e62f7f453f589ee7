"""The image producer: compressed images at the detector's full speed.

Compresses a pool of images once and puts each image of a series together from the pool's
compressed blocks (the model is in `scene`). Knows nothing of files or time.
"""

import functools
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
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
        self._count_time = float(series.detector["count_time"])
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
        exposure = series.exposure(number)
        if exposure != self._count_time:
            return self._alone(scene.PoolKey.of(series, exposure), picked)
        places = self.ready.result()
        if not self._compression.in_blocks:
            return self._one_block(places, picked)
        parts = [self._header]
        parts += [blocks[which] for blocks, which in zip(places, picked, strict=True)]
        return b"".join(parts)

    def _alone(self, key: scene.PoolKey, picked: list[int]) -> bytes:
        """Return the chunk of an image with an exposure of its own, for which there is no pool."""
        image = _developed(key, _picked_numbers(key, picked).reshape(key.shape))
        if self._compression is codec.NONE:
            return image.tobytes()
        return codec.compressed(image, self._compression)

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
    """Return one image of the pool, shape (y, x)."""
    raw = scene.random_bytes(
        key.seed, scene.Purpose.POOL, 0, number, 2 * key.shape[0] * key.shape[1]
    )
    return _developed(key, raw.view("<u2").reshape(key.shape))


def _picked_numbers(key: scene.PoolKey, picked: list[int]) -> np.ndarray:
    """Return the random numbers of an image: each block's from one image of the pool."""
    numbers = np.empty(key.shape[0] * key.shape[1], dtype="<u2")
    for place, number in enumerate(picked):
        block = numbers[place * key.block_pixels : (place + 1) * key.block_pixels].view(np.uint8)
        skipped = 2 * place * key.block_pixels
        block[:] = scene.random_bytes(
            key.seed, scene.Purpose.POOL, 0, number, block.size, skipped=skipped
        )
    return numbers


def _developed(key: scene.PoolKey, numbers: np.ndarray) -> np.ndarray:
    """Return the image that stands behind random numbers, with one look-up a pixel."""
    image = _look_up_tables(key).take(_first_entries(_View.of(key)) + numbers)
    image = image.astype(f"<u{key.bits // 8}")
    if key.flatfield is not None:
        # Of most scenes nearly all pixels are empty.
        lit = np.flatnonzero(image)
        counts = image.ravel()[lit]
        fits = counts < key.counting.most
        factors = key.flatfield.ravel()[lit[fits]].astype(np.float64)
        corrected = np.floor(counts[fits] * factors + 0.5)
        image.ravel()[lit[fits]] = corrected.clip(0, key.counting.most)
    if key.masked is not None:
        image[key.masked] = key.masked_count
    return image


@dataclass(frozen=True)
class _View:
    """What the place of a pixel's tables follows from; as of `scene.PoolKey`."""

    name: str
    seed: int
    whole: tuple[int, int]
    origin: tuple[int, int]
    shape: tuple[int, int]

    @classmethod
    def of(cls, key: scene.PoolKey) -> "_View":
        return cls(key.scene, key.seed, key.whole, key.origin, key.shape)


@functools.lru_cache(maxsize=1)
def _look_up_tables(key: scene.PoolKey) -> np.ndarray:
    """Return the count for every random number, one of the scene's cells after the other.

    As of the detector, before the flat field and the mask.
    """
    counting, runs, lengths = key.counting, [], []
    for cell in _present(_View.of(key)).tolist():
        table = key.table(*divmod(cell, scene.sensor.KINDS))
        ends = (*table.thresholds, 1 << scene.RANDOM_BITS)
        photons = table.lowest + table.step * np.arange(len(ends), dtype=np.float64)
        runs.append(_counts(counting, photons))
        lengths.append(np.diff(ends, prepend=0))
    counts = np.concatenate(runs)
    # The smaller the tables, the more of them are near the processor.
    counts = counts.astype(np.min_scalar_type(int(counts.max())))
    return np.repeat(counts, np.concatenate(lengths))


def _counts(counting: scene.Counting, photons: np.ndarray) -> np.ndarray:
    """Return what pixels with so many photons read, int64, corrected for the count rate."""
    blind, most = counting.blind, counting.most
    counts = np.floor(photons / (1 + photons * blind) + 0.5)
    limit = counting.counters_hold
    if counting.cutoff is None:
        return np.where(counts > limit, most, counts.clip(max=most)).astype(np.int64)
    seeing = 1 - counts * blind
    fits = (counts <= limit) & (seeing > 0)
    corrected = np.full(counts.shape, most, dtype=np.float64)
    corrected[fits] = np.floor(counts[fits] / seeing[fits] + 0.5)
    corrected[corrected > counting.cutoff] = most
    return corrected.clip(max=most).astype(np.int64)


@functools.lru_cache(maxsize=2)
def _cells(view: _View) -> np.ndarray:
    """Return each pixel's level x `KINDS` + kind, uint16, shape (y, x)."""
    kinds = scene.sensor.kinds(view.seed, view.whole, view.origin, view.shape).astype(np.uint16)
    if view.name == "flat":
        return kinds
    rows, columns = (
        (np.arange(1 - size, size, 2, dtype=np.int64) ** 2)[first : first + part]
        for first, part, size in zip(view.origin, view.shape, view.whole, strict=True)
    )
    levels = np.digitize(np.add.outer(rows, columns), scene.scatter.LEVEL_BOUNDS)
    return levels.astype(np.uint16) * np.uint16(scene.sensor.KINDS) + kinds


@functools.lru_cache(maxsize=2)
def _present(view: _View) -> np.ndarray:
    """Return the cells that there are, ascending."""
    return np.flatnonzero(np.bincount(_cells(view).ravel()))


@functools.lru_cache(maxsize=2)
def _first_entries(view: _View) -> np.ndarray:
    """Return where each pixel's cell starts in the look-up tables, uint32, shape (y, x)."""
    present = _present(view)
    starts = np.zeros(int(present[-1]) + 1, dtype=np.uint32)
    starts[present] = np.arange(present.size, dtype=np.uint32) << np.uint32(scene.RANDOM_BITS)
    return starts[_cells(view)]
