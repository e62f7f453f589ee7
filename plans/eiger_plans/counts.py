"""What pixels count over a few images, and which of them do not count as they should. Pure.

Two illuminations tell bad pixels. In the dark a pixel that counts is over-responding if it does so
steadily, noisy if it does so by fits. Under flat light a pixel that counts nothing is dead, one
that counts far less or more than those around it is under- or over-responding. What "far" and
"steadily" mean is stated with each function; a measurement that cannot tell is refused.
"""

import math
from dataclasses import dataclass

import numpy as np

from eiger_plans.tiles import TILE, Tile, around_all, largest_area, tiles, where
from ophyd_eiger import EigerError, Series

# Bits of a pixel mask (SIMPLON API Reference V1.3, section 3.1).
GAP, DEAD, UNDER, OVER, NOISY = (1 << bit for bit in range(5))
# So many standard deviations away a good pixel is not found among the 2e7 of the largest detector.
SIGMA = 6.0
# In the dark: a pixel that is noisy differs from image to image, and ten counts are no chance.
LEAST_IMAGES, LEAST_COUNTS = 3, 10
# Below this share of what those around it count a pixel is dead, a tile dead or in a shadow.
DARK = 0.1


class TooFewCountsError(EigerError, ValueError):
    """A measurement whose statistics cannot tell what it was taken for."""


class UnevenLightError(EigerError, ValueError):
    """Light that should be flat and is not, or a part of the detector that does not count."""


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


def bad_in_flat_light(
    counts: PixelCounts,
    good: np.ndarray,
    pixels: np.ndarray,
    low: float,
    high: float,
    most: float = 1e-3,
    area: int = 8,
) -> np.ndarray:
    """Return bits of pixels that answer to flat light in another way than those around them.

    Dead are those below a tenth of their tile's median, under-responding those below `low` times
    it, over-responding those above `high` times it, or full. Each tile has to have light enough of
    its own: a shadow, or a chip that is dead as a whole, is refused, and never taken for good.

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
    most : float
        Share of the pixels; if more of the good ones are found, something else is wrong.
    area : int
        So many pixels side by side, corners included, may be found among the good ones.

    Returns
    -------
    numpy.ndarray of uint32, shape (y, x)

    Raises
    ------
    TooFewCountsError
        If good pixels of a tile differ by so much that some of them would be found, or if more
        than `most` are.
    UnevenLightError
        If tiles count less than a tenth of the detector's median, or if pixels are found side by
        side; with their place.
    """
    usable = good & ~counts.full
    found = tiles(counts.total, usable, pixels)
    _check_light(counts, found, min(1 - low, high - 1))
    ratio = np.ones(counts.total.shape)
    for tile in found:
        ratio[tile.place] = counts.total[tile.place] / tile.level
    bits = np.zeros(ratio.shape, np.uint32)
    bits[pixels & (ratio < low)] = UNDER
    bits[pixels & (ratio < DARK)] = DEAD
    bits[pixels & ((ratio > high) | counts.full)] = OVER
    _check_areas(good & (bits != 0), most, area)
    return bits


def _check_light(counts: PixelCounts, found: list[Tile], margin: float) -> None:
    """Let each tile have the light that tells its pixels by so much."""
    middle = float(np.median([tile.level for tile in found])) if found else 0.0
    if middle == 0:
        raise TooFewCountsError(
            f"half of the pixels or more counted nothing in {counts.images} images of "
            f"{counts.exposure:g} s: is there light, and is the shutter open?"
        )
    needed = (SIGMA / margin) ** 2
    dark = [tile.place for tile in found if tile.level < DARK * middle]
    if dark and middle >= needed:
        raise UnevenLightError(
            f"{len(dark)} of {len(found)} tiles of {TILE} x {TILE} pixels count less than "
            f"{DARK:.0%} of the {middle:.3g} counts of the detector's middle, all of them within "
            f"{where(around_all(dark))}; the darkest is {min(found, key=_level)}: does something "
            "cast a shadow? If a chip or module is dead, mask it by hand and measure again"
        )
    least = min(found, key=_level)
    if least.level < needed:
        raise TooFewCountsError(
            f"{least}: good pixels have {least.level:.3g} counts, {middle:.3g} in the detector's "
            f"middle; to tell {margin:.0%} from that at {SIGMA:g} sigma {needed:.3g} counts are "
            f"needed: take {needed / max(least.level, 1):.1f} times as long, or let no shadow fall "
            "there"
        )
    widest = max(found, key=lambda tile: tile.spread)
    # The counts alone explain what is little more than their square root.
    if widest.spread > max(margin / SIGMA, 1.5 / math.sqrt(widest.level)):
        raise UnevenLightError(
            f"{widest}: good pixels of {widest.level:.3g} counts differ by {widest.spread:.1%} "
            f"(one sigma), where {SIGMA:g} sigma are to be less than {margin:.0%}: does the edge "
            "of a shadow or of the beam lie there?"
        )


def _level(tile: Tile) -> float:
    return tile.level


def _check_areas(found: np.ndarray, most: float, area: int) -> None:
    """Let pixels be few and lie by themselves."""
    check_share(int(np.count_nonzero(found)), found.size, most)
    size, place = largest_area(found)
    if size > area and place is not None:
        raise UnevenLightError(
            f"{size} pixels side by side would be masked, within {where(place)}; bad pixels lie by "
            f"themselves, {area} together at most (area=): does something cast a shadow? If they "
            "are dead, mask them by hand and measure again"
        )


def check_share(number: int, pixels: int, most: float, words: str = "masked") -> None:
    """Let so many of the pixels be no more than the share that is expected.

    Raises
    ------
    TooFewCountsError
        With figures.
    """
    if number > most * pixels:
        raise TooFewCountsError(
            f"{number} pixels ({number / pixels:.1%}) would be {words}, more than {most:.1%}: is "
            "the light flat, and the dark dark? Nothing was put"
        )
