"""From random numbers to the counts of pixels, with one look-up for most pixels.

The producer's own way of following the definition in `scene`; knows nothing of blocks or codecs.
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim_dcu import scene

# Pixels that are worked on at once, so that what is in between stays near the processor.
STRIP = 1 << 17


def developed_image(key: scene.PoolKey, numbers: np.ndarray) -> np.ndarray:
    """Return what all pixels of an image read, flattened; the arguments are as of `developed`."""
    image = np.empty(numbers.size, dtype=f"<u{key.bits // 8}")
    for start in range(0, numbers.size, STRIP):
        strip = slice(start, start + STRIP)
        image[strip] = developed(key, numbers[strip], strip)
    return image


def developed(key: scene.PoolKey, numbers: np.ndarray, places: Any) -> np.ndarray:
    """Return what pixels read.

    Parameters
    ----------
    key : PoolKey
        What the image follows from.
    numbers : numpy.ndarray of uint32, shape (n,)
        The pixels' random numbers.
    places : slice or numpy.ndarray of int64, shape (n,)
        Which pixels of the flattened image.

    Returns
    -------
    numpy.ndarray of the image's type, shape (n,)
    """
    view = View.of(key)
    return _finished(key, _count_tables(key).take(_first_entries(view)[places], numbers), places)


def with_spots(
    key: scene.PoolKey, numbers: np.ndarray, spots: scene.crystal.Spots, drawn: np.ndarray
) -> np.ndarray:
    """Return what the pixels of a crystal's spots read, shape (n,).

    Parameters
    ----------
    key : PoolKey
        What the image follows from.
    numbers, drawn : numpy.ndarray of uint32, shape (n,)
        The random numbers of those pixels' background, and of their spots.
    spots : Spots
        Which pixels, and how bright.
    """
    view = View.of(key)
    photons = _photon_tables(key).take(_first_entries(view)[spots.places], numbers)
    photons = photons.astype(np.float64)
    kinds = _cells(view)[spots.places] % scene.sensor.KINDS
    pairs = spots.rungs * scene.sensor.KINDS + kinds
    for pair in np.unique(pairs).tolist():
        rung, kind = divmod(pair, scene.sensor.KINDS)
        table, here = key.spot_table(rung, kind), pairs == pair
        reached = np.searchsorted(np.array(table.thresholds, np.int64), drawn[here], side="right")
        photons[here] += table.lowest + table.step * reached
    return _finished(key, _counts(key.counting, photons), spots.places)


def _finished(key: scene.PoolKey, counts: np.ndarray, places: Any) -> np.ndarray:
    """Return counts after the flat field and the mask, in the image's type."""
    image = counts.astype(f"<u{key.bits // 8}")
    if key.flatfield is not None:
        # Of most scenes nearly all pixels are empty.
        lit = np.flatnonzero((image != 0) & (image < key.counting.most))
        factors = key.flatfield.ravel()[places][lit].astype(np.float64)
        image[lit] = np.floor(image[lit] * factors + 0.5).clip(0, key.counting.most)
    if key.masked is not None:
        image[key.masked.ravel()[places]] = key.masked_count
    return image


@dataclass(frozen=True)
class View:
    """What the place of a pixel's tables follows from; as of `scene.PoolKey`."""

    bands: scene.Bands
    seed: int
    whole: tuple[int, int]
    origin: tuple[int, int]
    shape: tuple[int, int]

    @classmethod
    def of(cls, key: scene.PoolKey) -> "View":
        """Return that of an image."""
        return cls(key.bands, key.seed, key.whole, key.origin, key.shape)


# So many bits of a random number look up what it stands for; the others where they matter.
_LOOKED_UP = 16
_LEFT = scene.RANDOM_BITS - _LOOKED_UP


@dataclass(frozen=True)
class Tables:
    """What random numbers stand for, in one of the scene's cells after the other.

    Attributes
    ----------
    values : numpy.ndarray, shape (n,)
        What follows each other in all cells.
    ends : numpy.ndarray of uint64, shape (n,)
        Where each ends: the cell's place among those there are, and a random number.
    short : numpy.ndarray, shape (cells x 2^16,)
        The value for the first bits of a number, or `undecided`.
    undecided : int
        No value: stands where a value ends between two numbers of the same first bits.
    """

    values: np.ndarray
    ends: np.ndarray
    short: np.ndarray
    undecided: int

    @classmethod
    def of(cls, values: np.ndarray, ends: np.ndarray) -> "Tables":
        """Return the tables of values (not negative) and their ends."""
        undecided = int(np.setdiff1d(np.arange(values.size + 1), values)[0])
        # The smaller the tables, the more of them are near the processor.
        stored = values.astype(np.min_scalar_type(max(int(values.max()), undecided)))
        whole, rest = ends >> np.uint64(_LEFT), ends & np.uint64((1 << _LEFT) - 1)
        lengths = np.diff((whole + (rest != 0)).astype(np.int64), prepend=0)
        short = np.repeat(stored, lengths)
        short[whole[rest != 0]] = undecided
        return cls(stored, ends, short, undecided)

    def take(self, starts: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Return the values for random numbers, uint32, in cells that start there in `short`."""
        found = self.short.take(starts + (numbers >> np.uint32(_LEFT)))
        undecided = np.flatnonzero(found == self.undecided)
        places = (starts[undecided].astype(np.uint64) << np.uint64(_LEFT)) + numbers[undecided]
        found[undecided] = self.values[np.searchsorted(self.ends, places, side="right")]
        return found


@functools.lru_cache(maxsize=2)
def _count_tables(key: scene.PoolKey) -> Tables:
    """Return the counts, as of the detector before the flat field and the mask."""
    photons, ends = _runs(key)
    return Tables.of(_counts(key.counting, photons), ends)


@functools.lru_cache(maxsize=1)
def _photon_tables(key: scene.PoolKey) -> Tables:
    """Return the photons."""
    photons, ends = _runs(key)
    return Tables.of(photons.astype(np.int64), ends)


def _runs(key: scene.PoolKey) -> tuple[np.ndarray, np.ndarray]:
    """Return photons that follow each other in the tables, and where each ends."""
    photons, ends = [], []
    for place, cell in enumerate(_present(View.of(key)).tolist()):
        table = key.table(*divmod(cell, scene.sensor.KINDS))
        in_cell = np.array([*table.thresholds, 1 << scene.RANDOM_BITS], dtype=np.uint64)
        photons.append(table.lowest + table.step * np.arange(in_cell.size, dtype=np.float64))
        ends.append(in_cell + np.uint64(place << scene.RANDOM_BITS))
    return np.concatenate(photons), np.concatenate(ends)


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


@functools.lru_cache(maxsize=1)
def _cells(view: View) -> np.ndarray:
    """Return each pixel's level x `KINDS` + kind, uint16, of the flattened image."""
    kinds = scene.sensor.kinds(view.seed, view.whole, view.origin, view.shape).astype(np.uint16)
    rows, columns = (
        (np.arange(size, dtype=np.float64) + 0.5 - middle) ** 2
        for size, middle in zip(view.shape, view.bands.centre, strict=True)
    )
    bands = np.digitize(np.add.outer(rows, columns), view.bands.bounds)
    firsts = np.array(view.bands.levels, dtype=np.uint16) * np.uint16(scene.sensor.KINDS)
    return (firsts[bands] + kinds).ravel()


@functools.lru_cache(maxsize=1)
def _present(view: View) -> np.ndarray:
    """Return the cells that there are, ascending."""
    return np.flatnonzero(np.bincount(_cells(view)))


@functools.lru_cache(maxsize=1)
def _first_entries(view: View) -> np.ndarray:
    """Return where each pixel's cell starts in the tables, uint32, of the flattened image."""
    present = _present(view)
    starts = np.zeros(int(present[-1]) + 1, dtype=np.uint32)
    starts[present] = np.arange(present.size, dtype=np.uint32) << np.uint32(_LOOKED_UP)
    return starts[_cells(view)]
