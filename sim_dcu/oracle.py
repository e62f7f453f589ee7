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
        masked pixel where `pixel_mask_applied` is set.

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
    pixel = np.arange(key.shape[0] * key.shape[1])
    pool_image = choice[pixel // key.block_pixels] % scene.POOL_IMAGES
    return _pool(key)[pool_image, pixel].reshape(key.shape)


# Two pools of a 16M at 32 bit are 1.2 GB; two are enough for a test that compares two series.
@functools.lru_cache(maxsize=2)
def _pool(key: scene.PoolKey) -> np.ndarray:
    levels = _levels(key.shape).ravel()
    tables = scene.level_tables(key.count_time)
    most = 2**key.bits - 1
    pool = np.empty((scene.POOL_IMAGES, levels.size), dtype=f"<u{key.bits // 8}")
    for number, counts in enumerate(pool):
        u = scene.random_bytes(key.seed, scene.Purpose.POOL, 0, number, 2 * levels.size).view("<u2")
        for level, table in enumerate(tables):
            here = levels == level
            reached = np.searchsorted(np.array(table.thresholds), u[here], side="right")
            counts[here] = np.minimum(table.lowest + reached, most)
        if key.masked is not None:
            counts[key.masked.ravel()] = most
    pool.flags.writeable = False
    return pool


def _levels(shape: tuple[int, int]) -> np.ndarray:
    # Twice the distance from the middle, so that it is whole for an even number of pixels too.
    y = 2 * np.arange(shape[0])[:, np.newaxis] - (shape[0] - 1)
    x = 2 * np.arange(shape[1])[np.newaxis, :] - (shape[1] - 1)
    squared_distance = y * y + x * x
    levels = np.zeros(shape, dtype=np.int64)
    for bound in scene.LEVEL_BOUNDS:
        levels += squared_distance >= bound
    return levels
