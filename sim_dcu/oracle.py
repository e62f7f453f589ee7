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
    key = scene.PoolKey.of(series, series.exposure(number))
    if series.beam.is_recorded:
        counts = _played(key, scene.recording(series.beam.scene).frame(number))
    elif key.scene == "test-pattern":
        counts = _pattern(key, number)
    else:
        choice = tuple(scene.block_choice(series, number, key.blocks))
        if key.scene == "crystal":
            photons = _photons(key, _random_numbers(key, choice))
            counts = _counted(key, photons + _spot_photons(key, series, number)).reshape(key.shape)
        elif series.shape[0] * series.shape[1] <= _KEPT_PIXELS:
            counts = _kept(key, choice).copy()
        else:
            counts = _scattered(key, choice)
    if key.masked is not None:
        counts[key.masked] = key.masked_count
    return counts


def planted(series: ArmedSeries) -> scene.sensor.Planted:
    """Return what is planted in the part of the detector that a series reads out."""
    kinds = scene.sensor.kinds(
        series.seed, series.whole or series.shape, series.origin, series.shape
    )
    responses = np.array([float(kind.response) for kind in scene.sensor.KIND_TABLE])
    return scene.sensor.Planted(
        responses[kinds], np.array(scene.sensor.MASK_BITS, dtype="<u4")[kinds]
    )


def _scattered(key: scene.PoolKey, choice: tuple[int, ...]) -> np.ndarray:
    """Return the counts of an image, shape (y, x): of each block, from the chosen pool image."""
    return _counted(key, _photons(key, _random_numbers(key, choice))).reshape(key.shape)


# Many small scans are checked against the same images. Of a 500K's, 2 MB each, these are kept.
_KEPT_PIXELS = 600_000
_kept = functools.lru_cache(maxsize=40)(_scattered)


def _random_numbers(key: scene.PoolKey, choice: tuple[int, ...]) -> np.ndarray:
    """Return each pixel's number: every block's from the pool image that was chosen for it."""
    size = 4 * key.block_pixels
    blocks = [
        scene.random_bytes(key.seed, scene.Purpose.POOL, 0, pool_image, size, skipped=block * size)
        for block, pool_image in enumerate(choice)
    ]
    return np.concatenate(blocks).view("<u4")[: key.shape[0] * key.shape[1]]


def _photons(key: scene.PoolKey, u: np.ndarray) -> np.ndarray:
    """Return the photons each pixel takes, float64: those its random number stands for."""
    cells = _cells(key.bands, key.seed, key.whole, key.origin, key.shape)
    photons = np.empty(u.size)
    for cell, places in cells.items():
        table = key.table(*divmod(cell, scene.sensor.KINDS))
        thresholds = np.array(table.thresholds, dtype="<u4")
        reached = np.searchsorted(thresholds, u[places], side="right")
        photons[places] = table.lowest + table.step * reached
    return photons


def _counted(key: scene.PoolKey, photons: np.ndarray) -> np.ndarray:
    """Return what the detector makes of the photons, in the order that `scene.counting` states."""
    counting = key.counting
    counts = np.floor(photons / (1 + photons * counting.blind) + 0.5)
    overflow = counts > counting.counters_hold
    if counting.cutoff is not None:
        seen = 1 - counts * counting.blind
        overflow |= seen <= 0
        counts = np.floor(counts / np.where(overflow, 1, seen) + 0.5)
        overflow |= counts > counting.cutoff
    overflow |= counts >= counting.most
    if key.flatfield is not None:
        counts = np.floor(counts * key.flatfield.ravel().astype(float) + 0.5)
    counts = np.clip(counts, 0, counting.most)
    counts[overflow] = counting.most
    return counts.astype(f"<u{key.bits // 8}")


# An array of a 16M has 150 MB.
@functools.lru_cache(maxsize=2)
def _cells(
    bands: scene.Bands,
    seed: int,
    whole: tuple[int, int],
    origin: tuple[int, int],
    shape: tuple[int, int],
) -> dict[int, np.ndarray]:
    """Return where the pixels of each level and kind are, by level x `KINDS` + kind."""
    kinds = scene.sensor.kinds(seed, whole, origin, shape)
    cells = (_levels(bands, shape) * scene.sensor.KINDS + kinds).ravel()
    order = np.argsort(cells, kind="stable")
    found, starts = np.unique(cells[order], return_index=True)
    return dict(zip(found.tolist(), np.split(order, starts[1:]), strict=True))


def _levels(bands: scene.Bands, shape: tuple[int, int]) -> np.ndarray:
    dy, dx = (
        np.arange(size) + 0.5 - middle for size, middle in zip(shape, bands.centre, strict=True)
    )
    squared_distance = (dy * dy)[:, np.newaxis] + dx * dx
    band = np.zeros(shape, dtype=np.uint16)
    for bound in bands.bounds:
        band += squared_distance >= bound
    return np.array(bands.levels, dtype=np.uint16)[band]


def _spot_photons(key: scene.PoolKey, series: ArmedSeries, number: int) -> np.ndarray:
    """Return the photons that a crystal's spots add, float64, one after the other."""
    spots = scene.crystal.spots(series, number)
    size = 4 * spots.places.size
    drawn = scene.random_bytes(key.seed, scene.Purpose.SPOTS, series.series_id, number, size).view(
        "<u4"
    )
    kinds = scene.sensor.kinds(key.seed, key.whole, key.origin, key.shape).ravel()
    photons = np.zeros(key.shape[0] * key.shape[1])
    for place, rung, u in zip(spots.places, spots.rungs, drawn, strict=True):
        table = key.spot_table(int(rung), int(kinds[place]))
        reached = np.searchsorted(table.thresholds, u, side="right")
        photons[place] = table.lowest + table.step * reached
    return photons


def _pattern(key: scene.PoolKey, number: int) -> np.ndarray:
    """Return the test pattern of image `number`."""
    y, x = np.indices(key.shape)
    block = (y * key.shape[1] + x) // key.block_pixels
    digits = np.array([scene.pattern.digit(number, which) for which in range(key.blocks)])
    place = np.where((x + y) % 2 == 0, x, y) % scene.pattern.places(key.bits)
    return (8 * place + digits[block]).astype(f"<u{key.bits // 8}")


def _played(key: scene.PoolKey, frame: np.ndarray) -> np.ndarray:
    """Return a recorded frame as the detector shows it."""
    image = np.zeros(key.shape, dtype=f"<u{key.bits // 8}")
    # Of each axis, how far the frame begins after the image.
    down, along = ((have - has) // 2 for have, has in zip(key.shape, frame.shape, strict=True))
    for row in range(key.shape[0]):
        if 0 <= row - down < frame.shape[0]:
            columns = np.arange(max(0, along), min(key.shape[1], along + frame.shape[1]))
            values = frame[row - down, columns - along]
            image[row, columns] = np.clip(values, 0, key.counting.most)
    return image
