"""The oracle: what an image of a series must hold, worked out in plain numpy from the definition.

Judges the producer, the codec and the file writer, and therefore shares nothing with them but the
definition in `scene`. Written to be read, not to be fast.
"""

import functools

import numpy as np

from sim_dcu import scene
from sim_dcu.series import ArmedSeries


def image(series: ArmedSeries, number: int) -> np.ndarray:
    """Return what image `number` of `series` holds.

    Parameters
    ----------
    series : ArmedSeries
        The configuration the series was armed with.
    number : int
        From 1 to nimages x ntrigger.

    Returns
    -------
    numpy.ndarray of `series.dtype`, shape (y, x)
        Counts. A count that does not fit reads 2^bits - 1, as on real detectors, and so does every
        masked pixel where `pixel_mask_applied` is set, or 0 where `mask_to_zero` is set too.

    Raises
    ------
    IndexError
        Where the series has no such image.
    """
    scene.check_number(series, number)
    key = scene.PoolKey.of(series)
    choice = scene.random_bytes(
        series.seed, scene.Purpose.BLOCK_CHOICE, series.series_id, number, key.blocks
    )
    u = _random_numbers(key, (choice % scene.POOL_IMAGES).tolist())
    counts = _counts(key)[_levels(key.shape), u.reshape(key.shape)]
    if key.masked is not None:
        counts[key.masked] = key.masked_count
    return counts


def _random_numbers(key: scene.PoolKey, choice: list[int]) -> np.ndarray:
    """Return each pixel's number: every block's from the pool image that was chosen for it."""
    size = 2 * key.block_pixels
    blocks = [
        scene.random_bytes(key.seed, scene.Purpose.POOL, 0, pool_image, size, skipped=block * size)
        for block, pool_image in enumerate(choice)
    ]
    return np.concatenate(blocks).view("<u2")[: key.shape[0] * key.shape[1]]


# A 32-bit one has 3 MB.
@functools.lru_cache(maxsize=4)
def _counts(key: scene.PoolKey) -> np.ndarray:
    """Return the count that each random number stands for, a row a level."""
    most = 2**key.bits - 1
    numbers = np.arange(2**scene.RANDOM_BITS)
    rows = [
        np.minimum(table.lowest + np.searchsorted(table.thresholds, numbers, "right"), most)
        for table in scene.level_tables(key.count_time)
    ]
    return np.array(rows, dtype=f"<u{key.bits // 8}")


# An array of a 16M has 18 MB.
@functools.lru_cache(maxsize=4)
def _levels(shape: tuple[int, int]) -> np.ndarray:
    # Twice the distance from the middle, so that it is whole for an even number of pixels too.
    y = 2 * np.arange(shape[0], dtype=np.int32)[:, np.newaxis] - (shape[0] - 1)
    x = 2 * np.arange(shape[1], dtype=np.int32)[np.newaxis, :] - (shape[1] - 1)
    squared_distance = y * y + x * x
    levels = np.zeros(shape, dtype=np.uint8)
    for bound in scene.LEVEL_BOUNDS:
        levels += squared_distance >= bound
    return levels
