"""What pixels count over a few images, and which of them do not count as they should. Pure.

Two illuminations tell bad pixels. In the dark a pixel that counts is over-responding if it does so
steadily, noisy if it does so by fits. Under flat light a pixel that counts nothing is dead, one
that counts far less or more than those around it is under- or over-responding. What "far" and
"steadily" mean is stated with each function; a measurement that cannot tell is refused.
"""

import math
from dataclasses import dataclass

import numpy as np

from ophyd_eiger import EigerError, Series

# Bits of a pixel mask (SIMPLON API Reference V1.3, section 3.1).
GAP, DEAD, UNDER, OVER, NOISY = (1 << bit for bit in range(5))
# So many standard deviations away a good pixel is not found among the 2e7 of the largest detector.
SIGMA = 6.0
# In the dark: a pixel that is noisy differs from image to image, and ten counts are no chance.
LEAST_IMAGES, LEAST_COUNTS = 3, 10
# Pixels along the edge of a tile: flat light may well be brighter at one side than at the other.
TILE = 64


class TooFewCountsError(EigerError, ValueError):
    """A measurement whose statistics cannot tell what it was taken for."""


@dataclass(frozen=True)
class PixelCounts:
    """What each pixel counted over the images of a series.

    Attributes
    ----------
    images : int
        How many images.
    exposure : float
        Of each, in s.
    total : numpy.ndarray of float64, shape (y, x)
        Counts in all images; those of images that were full are left out.
    squares : numpy.ndarray of float64, shape (y, x)
        The sum of their squares.
    struck : numpy.ndarray of int64, shape (y, x)
        In how many images a pixel counted at all.
    full : numpy.ndarray of bool, shape (y, x)
        Whether a pixel was full in an image: it holds the largest value of its type.
    """

    images: int
    exposure: float
    total: np.ndarray
    squares: np.ndarray
    struck: np.ndarray
    full: np.ndarray

    @property
    def rate(self) -> np.ndarray:
        """Counts a second, float64 of shape (y, x)."""
        return self.total / (self.images * self.exposure)

    @property
    def dispersion(self) -> np.ndarray:
        """Variance over the images by mean, float64 of shape (y, x): 1 for photons, 0 for none."""
        mean = self.total / self.images
        variance = self.squares / self.images - mean**2
        unbiased = variance * self.images / max(self.images - 1, 1)
        return np.divide(unbiased, mean, out=np.zeros_like(mean), where=mean > 0)


def counted(series: Series, exposure: float) -> PixelCounts:
    """Add up the images of a series, one by one.

    Parameters
    ----------
    series : Series
        The images.
    exposure : float
        Of each, in s.
    """
    shape = series.shape[1:]
    total, squares = np.zeros(shape), np.zeros(shape)
    struck, full = np.zeros(shape, np.int64), np.zeros(shape, bool)
    most = np.iinfo(series.dtype).max
    buffer = None
    for number in range(len(series)):
        buffer = series.read(number, number + 1, out=buffer)
        image = buffer[0]
        overflown = image == most
        full |= overflown
        counts = np.where(overflown, 0, image).astype(np.float64)
        total += counts
        squares += counts**2
        struck += counts > 0
    return PixelCounts(len(series), exposure, total, squares, struck, full)


def check_dark(images: int, exposure: float, least_rate: float) -> None:
    """Let images in the dark be enough for `bad_in_the_dark`.

    Parameters
    ----------
    images : int
        How many.
    exposure : float
        Of each, in s.
    least_rate : float
        In counts a second.

    Raises
    ------
    TooFewCountsError
        If they see fewer than ten counts of such a rate, or if there are fewer than three.
    """
    seen = images * exposure * least_rate
    if images < LEAST_IMAGES or seen < LEAST_COUNTS:
        raise TooFewCountsError(
            f"{images} images of {exposure:g} s in the dark see {seen:.3g} counts of a pixel that "
            f"counts {least_rate:g} a second, and cannot tell it: take {LEAST_IMAGES} images at "
            f"least, and {LEAST_COUNTS / least_rate:.3g} s in all"
        )


def bad_in_the_dark(counts: PixelCounts, pixels: np.ndarray, least_rate: float) -> np.ndarray:
    """Return bits of pixels that count without light.

    Those above `least_rate` that counted in two images at least, as a cosmic ray does not, or were
    full. Noisy are those whose counts differ from image to image by more than those of a steady
    rate do in one of a billion pixels (chi-squared over the images, Wilson and Hilferty's
    approximation); the others are over-responding.

    Parameters
    ----------
    counts : PixelCounts
        In the dark.
    pixels : numpy.ndarray of bool, shape (y, x)
        Those that are looked at.
    least_rate : float
        In counts a second.

    Returns
    -------
    numpy.ndarray of uint32, shape (y, x)
    """
    loud = pixels & (counts.full | ((counts.rate >= least_rate) & (counts.struck >= 2)))
    freedom = counts.images - 1
    limit = (1 - 2 / (9 * freedom) + SIGMA * math.sqrt(2 / (9 * freedom))) ** 3
    noisy = loud & (counts.dispersion > limit)
    return np.where(noisy, NOISY, np.where(loud, OVER, 0)).astype(np.uint32)


@dataclass(frozen=True)
class FlatLight:
    """How pixels answer to flat light, beside those around them.

    Attributes
    ----------
    ratio : numpy.ndarray of float64, shape (y, x)
        Counts by the median of good pixels in the same tile; NaN where there are none.
    counts : float
        The median of a good pixel's counts in all images.
    spread : float
        Standard deviation of the ratio of good pixels, from the middle half of them.
    """

    ratio: np.ndarray
    counts: float
    spread: float


def flat_light(counts: PixelCounts, good: np.ndarray) -> FlatLight:
    """Compare each pixel with those around it.

    Parameters
    ----------
    counts : PixelCounts
        Under flat light.
    good : numpy.ndarray of bool, shape (y, x)
        The pixels that are compared with.

    Raises
    ------
    TooFewCountsError
        If the good ones counted nothing.
    """
    usable = good & ~counts.full
    level = _level(counts.total, usable)
    ratio = np.divide(
        counts.total, level, out=np.full(level.shape, np.nan), where=np.nan_to_num(level) > 0
    )
    known = ratio[usable & np.isfinite(ratio)]
    if not known.size:
        raise TooFewCountsError(
            f"half of the pixels or more counted nothing in {counts.images} images of "
            f"{counts.exposure:g} s: is there light, and is the shutter open?"
        )
    quarter, three_quarters = np.percentile(known, (25, 75))
    # Of a normal distribution the quartiles are 1.349 standard deviations apart.
    spread = float(three_quarters - quarter) / 1.349
    return FlatLight(ratio, float(np.median(counts.total[usable])), spread)


def _level(total: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Return the median of the usable pixels of each pixel's tile, shape (y, x); NaN of none."""
    level = np.full(total.shape, np.nan)
    for top in range(0, total.shape[0], TILE):
        for left in range(0, total.shape[1], TILE):
            tile = np.s_[top : top + TILE, left : left + TILE]
            inside = total[tile][usable[tile]]
            if inside.size:
                level[tile] = np.median(inside)
    return level


def bad_in_flat_light(
    counts: PixelCounts, good: np.ndarray, pixels: np.ndarray, low: float, high: float
) -> np.ndarray:
    """Return bits of pixels that answer to flat light in another way than those around them.

    Dead are those below a tenth of their tile's median, under-responding those below `low` times
    it, over-responding those above `high` times it, or full.

    Parameters
    ----------
    counts : PixelCounts
        Under flat light.
    good : numpy.ndarray of bool, shape (y, x)
        The pixels that are compared with.
    pixels : numpy.ndarray of bool, shape (y, x)
        Those that are looked at.
    low, high : float
        Shares of the median.

    Returns
    -------
    numpy.ndarray of uint32, shape (y, x)

    Raises
    ------
    TooFewCountsError
        If good pixels differ by so much that some of them would be found.
    """
    light = flat_light(counts, good)
    margin = min(1 - low, high - 1)
    if SIGMA * light.spread > margin:
        # Spread goes with the square root of the counts.
        needed = light.counts * (SIGMA * light.spread / margin) ** 2
        raise TooFewCountsError(
            f"good pixels have {light.counts:.3g} counts and differ by {light.spread:.1%} (one "
            f"sigma); to tell {margin:.0%} from that at {SIGMA:g} sigma some {needed:.2g} "
            f"counts are needed: take {needed / max(light.counts, 1):.1f} times as long"
        )
    ratio = np.nan_to_num(light.ratio, nan=1.0)
    bits = np.zeros(ratio.shape, np.uint32)
    bits[pixels & (ratio < low)] = UNDER
    bits[pixels & (ratio < 0.1)] = DEAD
    bits[pixels & ((ratio > high) | counts.full)] = OVER
    return bits
