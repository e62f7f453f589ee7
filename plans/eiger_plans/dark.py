"""The detector's background, and which pixels count without light."""

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
from bluesky.protocols import Movable

from eiger_plans.arguments import checked, recorded
from eiger_plans.calibrating import (
    TIMES,
    above_0,
    kept,
    moved,
    one_series,
    read_series,
    set_up,
    whole,
)
from eiger_plans.counts import GAP, NOISY, OVER, PixelCounts, bad_in_the_dark, check_dark, counted
from ophyd_eiger import EigerDetector, Series

# Of the loudest pixels so many are printed.
MOST_SHOWN = 10


# If a larger share of the pixels counts in the dark, there is light.
LIGHT = 0.01


@dataclass(frozen=True)
class Dark:
    """What a detector counts in the dark.

    Attributes
    ----------
    uid : str
        The run.
    counts : PixelCounts
        Of each pixel.
    rate : float
        Counts a second of a pixel, the mean over those that are neither masked nor loud; NaN if
        all of them are.
    loud : numpy.ndarray of uint32, shape (y, x)
        Bits of a pixel mask: 8 for pixels that count steadily, 16 for noisy ones.
    """

    uid: str
    counts: PixelCounts
    rate: float
    loud: np.ndarray

    def __str__(self) -> str:
        """Return it in words, with the loudest pixels."""
        steady, noisy = ((self.loud & bit != 0).sum() for bit in (OVER, NOISY))
        lines = [
            f"run {self.uid}",
            f"  {self.counts.images} images of {self.counts.exposure:g} s: {self.rate:.3g} counts "
            f"a second and pixel that is quiet; {steady} pixels count steadily, {noisy} noisily",
        ]
        if steady + noisy > LIGHT * self.loud.size:
            middle = np.median(self.counts.rate[self.loud != 0])
            lines.append(f"  {middle:.3g} counts a second in the middle of these: is it dark?")
        rates = np.where(self.loud != 0, self.counts.rate, 0)
        loudest = np.argsort(rates, axis=None)[::-1][: min(MOST_SHOWN, int(steady + noisy))]
        for y, x in zip(*np.unravel_index(loudest, rates.shape), strict=True):
            kind = "noisy" if self.loud[y, x] & NOISY else "steady"
            lines.append(f"  pixel x = {x}, y = {y}: {rates[y, x]:.3g} counts a second, {kind}")
        return "\n".join(lines)


@checked
def dark(
    eiger: EigerDetector,
    exposure: float = 10.0,
    images: int = 10,
    *,
    least_rate: float = 1.0,
    shutter: Movable | None = None,
    closed: str | float = "close",
    md: dict[str, Any] | None = None,
) -> Generator[Any, Any, Dark | None]:
    """Measure the background with the shutter closed, and find pixels that count without light.

    Parameters
    ----------
    eiger : EigerDetector
        The detector; initialized. Its times and numbers of images are put back.
    exposure : float
        Of each image, in s.
    images : int
        How many; 3 at least, because noisy pixels differ from image to image.
    least_rate : float
        Pixels that count more than this a second are found.
    shutter : Movable, optional
        Set to `closed` before; it stays there. Without it the light is off already.
    closed : str or float
        What closes the shutter.
    md : dict, optional
        Metadata of the run.

    Yields
    ------
    msg : Msg
        Messages for the RunEngine.

    Returns
    -------
    Dark or None
        What was found; None where the messages are listed.

    Raises
    ------
    ValueError
        If an argument makes no sense, before the first message.
    TooFewCountsError
        If images and exposure cannot tell pixels of `least_rate`, before the first message.
    """
    above_0(exposure=exposure, least_rate=least_rate)
    whole(images=images)
    check_dark(images, exposure, least_rate)
    _md = {
        "plan_name": "dark",
        "plan_args": recorded(
            eiger=eiger,
            exposure=exposure,
            images=images,
            least_rate=least_rate,
            shutter=shutter,
            closed=closed,
        ),
        **(md or {}),
    }

    def measured() -> Generator[Any, Any, Dark | None]:
        yield from moved(shutter, closed)
        return (yield from dark_series(eiger, exposure, images, least_rate, _md))

    found = yield from kept(eiger, TIMES, measured())
    if found is not None:
        print(found)
    return found


def dark_series(
    eiger: EigerDetector,
    exposure: float,
    images: int,
    least_rate: float,
    md: dict[str, Any],
    *,
    masked_too: bool = False,
) -> Generator[Any, Any, Dark | None]:
    """Take the series and look into it; parameters as of `dark`.

    `masked_too` looks at all but the gaps, where the mask is not applied.
    """
    yield from set_up(eiger, exposure, images)
    taken = yield from one_series(eiger, md)
    if taken is None:
        return None

    def look(series: Series) -> Dark:
        counts = counted(series, taken.exposure)
        pixels = series.mask & (GAP if masked_too else ~np.uint32(0)) == 0
        loud = bad_in_the_dark(counts, pixels, least_rate)
        quiet = (series.mask == 0) & (loud == 0)
        rate = float(counts.rate[quiet].mean()) if quiet.any() else math.nan
        return Dark(taken.uid, counts, rate, loud)

    return (yield from read_series(taken.master, look))
