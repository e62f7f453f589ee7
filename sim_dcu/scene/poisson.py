"""The Poisson distribution as thresholds for random numbers, the same on every machine.

Its arithmetic is of double precision, in an order that is stated, each operation rounded as IEEE
754 has it; what is no such operation is Decimal's, which is the same everywhere too.
"""

import functools
import math
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from fractions import Fraction

import numpy as np

RANDOM_BITS = 32
# From this expected count on the distribution is taken to be normal, and only every n-th count
# occurs, so that at most so many are within a standard deviation.
LARGE_MEAN = 1 << 22
COUNTS_A_DEVIATION = 2048

# How far from the mean counts are told apart: so many standard deviations and counts.
_FAR, _SOME = 9, 30
_DIGITS = Context(prec=40, rounding=ROUND_HALF_EVEN)


@dataclass(frozen=True)
class CountTable:
    """A distribution of counts.

    Attributes
    ----------
    lowest : int
        The smallest count that occurs.
    thresholds : tuple of int
        Ascending, from 1 to 2^32 - 1. A random number u of 32 bits stands for the count
        `lowest` + `step` x (how many thresholds are <= u).
    step : int
        Between neighbouring counts.
    """

    lowest: int
    thresholds: tuple[int, ...]
    step: int = 1


@functools.lru_cache(maxsize=4096)
def count_table(*means: Fraction) -> CountTable:
    """Return the table of a Poisson distribution, or of an equal mixture of several.

    Probabilities are right to 2^-32: what is rarer than half of that does not occur. From
    `LARGE_MEAN` on the distribution is the normal one of the same mean and variance.

    Parameters
    ----------
    means : Fraction
        The expected count of each, 0 or more.
    """
    widest = math.isqrt(int(max(means)))
    step = 1
    if max(means) >= LARGE_MEAN:
        # A power of two; counts are multiples of it.
        step = 1 << ((widest // COUNTS_A_DEVIATION).bit_length() - 1)
    parts = [_cumulated(mean, step) for mean in means]
    lowest = min(first for first, _ in parts)
    counts = np.arange(lowest, max(first + step * len(shares) for first, shares in parts), step)
    cumulated = np.zeros(counts.size)
    for first, shares in parts:
        place = (counts - first) // step
        cumulated += np.where(place < 0, 0.0, shares[place.clip(0, len(shares) - 1)])
    scaled = cumulated * (float(1 << RANDOM_BITS) / len(parts))
    thresholds = np.floor(scaled + 0.5).astype(np.int64)
    below = int((thresholds == 0).sum())
    kept = thresholds[(thresholds > 0) & (thresholds < 1 << RANDOM_BITS)]
    return CountTable(lowest + step * below, tuple(kept.tolist()), step)


def _cumulated(mean: Fraction, step: int) -> tuple[int, np.ndarray]:
    """Return the first count that is told apart, and the share of cases up to it and each next.

    Weights follow from their neighbours', one after the other.
    """
    far = _FAR * math.isqrt(int(mean)) + _SOME
    first = max(0, int(mean) - far) // step * step
    if mean < LARGE_MEAN:
        if step > 1:
            return 0, _coarse(mean, step)
        return first, _shares(_poisson_weights(float(mean), int(mean), first, int(mean) + far))
    return first, _shares(_normal_weights(mean, first, step, 2 * far // step))


def _shares(weights: np.ndarray) -> np.ndarray:
    cumulated = np.cumsum(weights)
    return cumulated / cumulated[-1]


def _poisson_weights(mean: float, mode: int, first: int, last: int) -> np.ndarray:
    """Return weights of the counts from `first` to `last`, that of the mode being 1."""
    above = np.cumprod(mean / np.arange(mode + 1, last + 1))
    # None below a mode of 0, whose mean may be 0 too.
    below = np.cumprod(np.arange(mode, first, -1) / mean) if mode else above[:0]
    return np.concatenate([below[::-1], [1.0], above])


def _normal_weights(mean: Fraction, first: int, step: int, number: int) -> np.ndarray:
    """Return weights of every `step`-th count from `first` on, that of the first being 1."""
    # From one to the next the weight changes by a ratio, which itself changes by another.
    with localcontext(_DIGITS):
        middle = Decimal(mean.numerator) / mean.denominator
        ratio = (step * (2 * (middle - first) - step) / (2 * middle)).exp()
        change = (-Decimal(step * step) / middle).exp()
    ratios = np.cumprod([float(ratio), *[float(change)] * (number - 1)])
    return np.concatenate([[1.0], np.cumprod(ratios)])


def _coarse(mean: Fraction, step: int) -> np.ndarray:
    """Return the share of cases of a small mean up to 0, `step`, 2 x `step`, ..."""
    first, shares = _cumulated(mean, 1)
    ends = np.arange(0, first + len(shares) + step, step)
    return np.where(ends < first, 0.0, shares[(ends - first).clip(0, len(shares) - 1)])
