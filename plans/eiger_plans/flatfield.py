"""A flat field measured under flat light, made, and put into the detector."""

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import numpy as np
from bluesky.protocols import Movable

from eiger_plans.arguments import checked, recorded
from eiger_plans.calibrating import (
    TIMES,
    Taken,
    above_0,
    can_be_written,
    folder_of,
    kept,
    moved,
    one_series,
    put_array,
    read_series,
    set_up,
    whole,
)
from eiger_plans.counts import (
    PixelCounts,
    TooFewCountsError,
    UnevenLightError,
    check_share,
    counted,
)
from eiger_plans.thresholds import first_threshold_alone
from eiger_plans.tiles import tiles
from ophyd_eiger import EigerDetector, Series

# Beyond these shares of the middle a pixel is bad rather than of another response: it keeps 1.
LOW, HIGH = 0.7, 1.3
KEPT = ("flatfield_correction_applied", *TIMES)
# From so large a part of what the flat field of before leaves on, the counts' own spread, which the
# new one has for good, is more than what was wrong with that: squares add up.
NO_BETTER = 0.5**0.5


@dataclass(frozen=True)
class Flatfield:
    """A flat field that was made.

    Attributes
    ----------
    uid : str
        The run of the measurement.
    factors : numpy.ndarray of float32, shape (y, x)
        What counts are to be multiplied by; 1 for pixels that are masked or were left out.
    counts : float
        Median of a good pixel's counts, in all images.
    precision : float
        Standard deviation of a factor, from the counts.
    spread, spread_before : float
        Standard deviation of good pixels' counts by their mean: as they were counted, and as the
        flat field of before leaves it.
    left_out : int
        Pixels that are not masked and counted far too little or too much, or were full.
    unevenness : float
        The largest departure of a tile's median from the detector's middle, as a share of it, with
        the flat field of before applied: how far the light was from flat.
    old : Path or None
        The .npy file that has the flat field of before; None if nothing was put.
    """

    uid: str
    factors: np.ndarray
    counts: float
    precision: float
    spread: float
    spread_before: float
    left_out: int
    unevenness: float
    old: Path | None = None

    def __str__(self) -> str:
        """Return it in words."""
        lines = [
            f"run {self.uid}",
            f"  {_number(self.counts)} counts a pixel, so factors are good to "
            f"{self.precision:.2%}; pixels differ by {self.spread:.2%}, corrected as before "
            f"by {self.spread_before:.2%}",
            f"  the light was flat to {self.unevenness:.2%}",
            f"  {self.left_out} bad pixels that are not masked keep the factor 1",
        ]
        if self.precision > NO_BETTER * self.spread_before:
            lines.append(
                "  that is mostly what counts differ by anyway: this one is no better than the one "
                "of before, and a better one takes more counts"
            )
        put = "not put" if self.old is None else f"put; the one of before is in {self.old}"
        return "\n".join([*lines, f"  {put}"])


@checked
def flatfield(
    eiger: EigerDetector,
    exposure: float = 1.0,
    images: int = 10,
    *,
    precision: float = 0.01,
    uneven: float = 0.02,
    most: float = 0.001,
    upload: bool = True,
    folder: str | None = None,
    shutter: Movable | None = None,
    opened: str | float = "open",
    md: dict[str, Any] | None = None,
) -> Generator[Any, Any, Flatfield | None]:
    """Measure a flat field under flat light, make it, put it, and keep the old one in a file.

    The detector keeps it until its energy or threshold is set, or until it is initialized; to have
    it again, put the array that this returns, and to have the old one,
    `eiger.detector.flatfield.set(numpy.load(result.old))`. Mask bad pixels before.

    Parameters
    ----------
    eiger : EigerDetector
        The detector; initialized. Its times and numbers of images are put back.
    exposure : float
        Of each image, in s.
    images : int
        How many.
    precision : float
        The standard deviation that a factor may have; fewer counts than that takes are refused.
    uneven : float
        How far the light may be from flat: by this share may the median of a tile of 64 x 64
        pixels, with the flat field of before applied, differ from the detector's middle.
    most : float
        Share of the pixels that are not masked; if more are left out, something else is wrong.
    upload : bool
        Whether it is put into the detector; what was put is read back and compared.
    folder : str, optional
        Where the old one is kept; the detector's directory if not given.
    shutter : Movable, optional
        Set to `opened` before, and left so.
    opened : str or float
        What opens the shutter.
    md : dict, optional
        Metadata of the run.

    Yields
    ------
    msg : Msg
        Messages for the RunEngine.

    Returns
    -------
    Flatfield or None
        None where the messages are listed.

    Raises
    ------
    ValueError
        If an argument makes no sense, before the first message.
    TooFewCountsError
        If the counts do not give the precision, or too many pixels are left out; nothing is put
        then.
    UnevenLightError
        If the light is not flat, with figures; nothing is put then.
    OtherThresholdError
        If another threshold than the first counts.
    """
    above_0(exposure=exposure, precision=precision, uneven=uneven, most=most)
    whole(images=images)
    place = folder_of(eiger, folder)
    _md = {
        "plan_name": "flatfield",
        "plan_args": recorded(
            eiger=eiger,
            exposure=exposure,
            images=images,
            precision=precision,
            uneven=uneven,
            most=most,
            upload=upload,
            folder=folder,
            shutter=shutter,
            opened=opened,
        ),
        **(md or {}),
    }

    def measured() -> Generator[Any, Any, Taken | None]:
        applied: Any = eiger.detector.flatfield_correction_applied
        yield from bps.mv(applied, False)
        yield from set_up(eiger, exposure, images)
        yield from moved(shutter, opened)
        return (yield from one_series(eiger, _md))

    if upload:
        yield from can_be_written(place)
    yield from first_threshold_alone(eiger)
    taken = yield from kept(eiger, KEPT, measured())
    if taken is None:
        return None
    made = yield from read_series(
        taken.master, lambda series: _made(taken, series, precision, uneven, most)
    )
    if upload:
        old = yield from put_array(eiger, "flatfield", made.factors, place)
        made = Flatfield(**{**vars(made), "old": old})
    print(made)
    return made


def _made(
    taken: Taken, series: Series, precision: float, uneven: float = 0.02, most: float = 0.001
) -> Flatfield:
    counts = counted(series, taken.exposure)
    unmasked = (series.mask == 0) & ~counts.full
    middle = float(np.median(counts.total[unmasked])) if unmasked.any() else 0.0
    needed = 1 / precision**2
    if middle < needed:
        mean = float(counts.total[unmasked].mean()) if unmasked.any() else 0.0
        raise TooFewCountsError(_too_few(counts, middle, mean, needed, precision))
    unevenness = _unevenness(counts.total * series.flatfield, unmasked, uneven)
    good = unmasked & (counts.total > LOW * middle) & (counts.total < HIGH * middle)
    outside = int(np.count_nonzero(series.mask == 0) - np.count_nonzero(good))
    check_share(outside, int(np.count_nonzero(series.mask == 0)), most, "left out")
    total = counts.total[good]
    factors = np.ones(counts.total.shape, np.float32)
    factors[good] = total.mean() / total
    corrected = total * series.flatfield[good]
    return Flatfield(
        uid=taken.uid,
        factors=factors,
        counts=middle,
        precision=float(1 / np.sqrt(middle)),
        spread=float(total.std() / total.mean()),
        spread_before=float(corrected.std() / corrected.mean()),
        left_out=outside,
        unevenness=unevenness,
    )


def _unevenness(corrected: np.ndarray, usable: np.ndarray, most: float) -> float:
    """Return how far the light was from flat, no more than `most`."""
    found = tiles(corrected, usable, usable)
    middle = float(np.median(corrected[usable]))
    farthest = max(found, key=lambda tile: abs(tile.level - middle))
    share = abs(farthest.level / middle - 1)
    if share > most:
        raise UnevenLightError(
            f"the light is not flat: {farthest} count {farthest.level:.4g}, the detector's middle "
            f"{middle:.4g}, {share:.1%} apart; {most:.1%} may be (uneven=). A flat field of it "
            "would have the light's shape in all images to come. Nothing was put"
        )
    return share


def _too_few(
    counts: PixelCounts, middle: float, mean: float, needed: float, precision: float
) -> str:
    seconds = counts.images * counts.exposure
    found = (
        f"a good pixel's median is {_number(middle)} counts in {seconds:.3g} s "
        f"({counts.images} x {counts.exposure:g} s), the mean {_number(mean)}; factors good to "
        f"{precision:.2%} take a median of {_number(needed)} counts"
    )
    if middle == 0:
        return f"{found}: is there light, is it flat, and is the shutter open?"
    times = needed / middle
    return (
        f"{found}: {times:,.3g} times as long, as {int(np.ceil(counts.images * times))} images, "
        "or brighter light"
    )


def _number(counts: float) -> str:
    return f"{counts:,.0f}" if counts >= 10 else f"{counts:.2g}"
