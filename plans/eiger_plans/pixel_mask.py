"""Finds pixels that do not count as they should, shows them, and masks them."""

import logging
from collections.abc import Generator
from dataclasses import dataclass, replace
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
    DEAD,
    GAP,
    NOISY,
    OVER,
    UNDER,
    bad_in_flat_light,
    check_dark,
    check_share,
    counted,
)
from eiger_plans.dark import Dark, dark_series
from eiger_plans.mask_picture import draw
from eiger_plans.steps import Plan, PlanError, aside, tidied
from eiger_plans.thresholds import first_threshold_alone
from ophyd_eiger import EigerDetector, Series

logger = logging.getLogger(__name__)

LOOKS = ("both", "dark", "flat")
KINDS = {DEAD: "dead", UNDER: "under-responding", OVER: "over-responding", NOISY: "noisy"}
# What a fresh look takes away where it is not found again. Over-responding pixels are found in
# either light, each of which finds others: one light alone cannot tell that a pixel is none.
FORGOTTEN = {
    "dark": NOISY,
    "flat": DEAD | UNDER,
    "both": DEAD | UNDER | OVER | NOISY,
}
KEPT = ("pixel_mask_applied", *TIMES)


@dataclass(frozen=True)
class PixelMask:
    """A pixel mask that was made.

    Attributes
    ----------
    uids : tuple of str
        The runs of the measurements.
    mask : numpy.ndarray of uint32, shape (y, x)
        The new mask, with the bits of the SIMPLON API Reference.
    found : numpy.ndarray of uint32, shape (y, x)
        The bits of all pixels that do not count as they should, masked before or not.
    added : numpy.ndarray of uint32, shape (y, x)
        The bits of those that were not masked before.
    removed : numpy.ndarray of uint32, shape (y, x)
        The bits of before of those that are no longer masked.
    old : Path or None
        The .npy file that has the mask of before; None if nothing was put.
    picture : Path or None
        The .png file that shows them.
    """

    uids: tuple[str, ...]
    mask: np.ndarray
    found: np.ndarray
    added: np.ndarray
    removed: np.ndarray
    old: Path | None = None
    picture: Path | None = None

    def __str__(self) -> str:
        """Return it in words."""
        counts = ", ".join(
            f"{np.count_nonzero(self.added & bit)} {kind}" for bit, kind in KINDS.items()
        )
        lines = [
            *(f"run {uid}" for uid in self.uids),
            f"  {np.count_nonzero(self.added)} bad pixels that were not masked: {counts}",
            f"  {np.count_nonzero(self.removed)} masked pixels count as they should, and are freed",
            f"  {np.count_nonzero(self.mask)} pixels are masked now, gaps included",
        ]
        if self.old is None:
            lines[-1] = "  nothing was put"
        else:
            lines.append(f"  the mask of before is in {self.old}")
        if self.picture is not None:
            lines.append(f"  a picture is in {self.picture}")
        return "\n".join(lines)


@checked
def update_pixel_mask(
    eiger: EigerDetector,
    *,
    look: str = "both",
    dark_exposure: float = 10.0,
    flat_exposure: float = 1.0,
    images: int = 10,
    least_rate: float = 1.0,
    low: float = 0.7,
    high: float = 1.3,
    most: float = 0.001,
    area: int = 8,
    upload: bool = True,
    fresh: bool = False,
    picture: bool = True,
    folder: str | None = None,
    shutter: Movable | None = None,
    opened: str | float = "open",
    closed: str | float = "close",
    md: dict[str, Any] | None = None,
) -> Generator[Any, Any, PixelMask | None]:
    """Find dead, hot and noisy pixels, show them, mask them, and keep the old mask in a file.

    In the dark hot and noisy pixels count; under flat light dead ones do not, and others count
    less or more than those around them. What exactly is found, and when counts are too few to
    tell, is stated in `eiger_plans.counts`. A mask stays in the detector for good;
    `eiger.detector.pixel_mask.set(numpy.load(result.old))` has the old one back.

    Parameters
    ----------
    eiger : EigerDetector
        The detector; initialized. Its times and numbers of images are put back.
    look : {"both", "dark", "flat"}
        Which light; "both" takes a shutter.
    dark_exposure, flat_exposure : float
        Of each image, in s.
    images : int
        How many in each light.
    least_rate : float
        Pixels that count more than this a second in the dark are bad.
    low, high : float
        Under flat light those below and above these shares of their neighbourhood's median are.
    most : float
        Share of the pixels; if more are found, or more masked ones are found to be good, something
        else is wrong, and nothing is put.
    area : int
        So many pixels side by side may be found under flat light; more are a shadow.
    upload : bool
        Whether the mask is put into the detector; what was put is read back and compared.
    fresh : bool
        Whether pixels of the mask of before that are not found again are masked no more; else all
        of it stays. One light alone forgets what no other finds: the dark noisy pixels, flat light
        dead and under-responding ones. Gaps and bits of other meaning stay.
    picture : bool
        Whether a picture is drawn, beside the file of the old mask.
    folder : str, optional
        Where the old mask is kept; the detector's directory if not given.
    shutter : Movable, optional
        Set to `opened` and `closed`; closed at the end.
    opened, closed : str or float
        What opens and closes the shutter.
    md : dict, optional
        Metadata of the runs.

    Yields
    ------
    msg : Msg
        Messages for the RunEngine.

    Returns
    -------
    PixelMask or None
        None where the messages are listed.

    Raises
    ------
    ValueError
        If an argument makes no sense, before the first message.
    TooFewCountsError
        If the counts cannot tell, or too many pixels are found; nothing is put then.
    UnevenLightError
        If something casts a shadow, or a chip is dead as a whole, with its place; nothing is put
        then. What is dead is masked by hand, and is in the way no more.
    OtherThresholdError
        If another threshold than the first counts.
    """
    _check(look, shutter, low, high)
    above_0(dark_exposure=dark_exposure, flat_exposure=flat_exposure, least_rate=least_rate)
    above_0(most=most)
    whole(images=images, area=area)
    if look != "flat":
        check_dark(images, dark_exposure, least_rate)
    place = folder_of(eiger, folder)
    args = recorded(
        eiger=eiger,
        look=look,
        dark_exposure=dark_exposure,
        flat_exposure=flat_exposure,
        images=images,
        least_rate=least_rate,
        low=low,
        high=high,
        most=most,
        area=area,
        upload=upload,
        fresh=fresh,
        picture=picture,
        folder=folder,
        shutter=shutter,
        opened=opened,
        closed=closed,
    )
    _md = {"plan_name": "update_pixel_mask", "plan_args": args, **(md or {})}

    def measured() -> Plan:
        applied: Any = eiger.detector.pixel_mask_applied
        yield from bps.mv(applied, False)
        in_the_dark = taken = None
        if look != "flat":
            yield from moved(shutter, closed)
            in_the_dark = yield from dark_series(
                eiger, dark_exposure, images, least_rate, {**_md, "light": "dark"}, masked_too=True
            )
        if look != "dark":
            yield from moved(shutter, opened)
            yield from set_up(eiger, flat_exposure, images)
            taken = yield from one_series(eiger, {**_md, "light": "flat"})
        return in_the_dark, taken

    if upload or picture:
        yield from can_be_written(place)
    yield from first_threshold_alone(eiger)
    shut = tidied(measured(), lambda: moved(shutter, closed))
    in_the_dark, taken = yield from kept(eiger, KEPT, shut)
    if in_the_dark is None and taken is None:
        return None
    _check_complete(eiger, look, in_the_dark, taken)
    found, counts = yield from _found(in_the_dark, taken, (low, high, most, area))
    before = yield from aside(eiger.detector.pixel_mask.get)
    made = _made(in_the_dark, taken, before, found, FORGOTTEN[look] if fresh else 0)
    check_share(int(np.count_nonzero(made.added)), made.added.size, most)
    check_share(int(np.count_nonzero(made.removed)), made.removed.size, most, "unmasked")
    if upload:
        old = yield from put_array(eiger, "pixel_mask", made.mask, place)
        made = replace(made, old=old)
    if picture:
        try:
            drawn = yield from aside(draw, eiger.name, counts, before, made.added, place)
            made = replace(made, picture=drawn)
        except OSError as error:
            # The mask is what counts, and may be put already.
            logger.warning("%s: no picture of its mask: %s", eiger.name, error)
    print(made)
    return made


def _check(look: str, shutter: Any, low: float, high: float) -> None:
    if look not in LOOKS:
        raise ValueError(f"look is {look!r}; it is one of {', '.join(LOOKS)}")
    if look == "both" and shutter is None:
        raise ValueError("look='both' takes a shutter; or give look='dark' and look='flat' in turn")
    if not 0.1 <= low < 1 < high:
        raise ValueError(f"low and high are {low} and {high}; 1 is between them, and 0.1 below low")


def _check_complete(
    eiger: EigerDetector, look: str, in_the_dark: Dark | None, taken: Taken | None
) -> None:
    """Refuse to mask by less than was asked for."""
    missing = [
        light
        for light, seen in (("dark", in_the_dark), ("flat", taken))
        if look in ("both", light) and seen is None
    ]
    if missing:
        raise PlanError(
            f"{eiger.name}: look={look!r} was asked for, but there is no {missing[0]} series: was "
            "the plan disturbed? Nothing was put; measure again"
        )


def _found(
    in_the_dark: Dark | None, taken: Taken | None, bounds: tuple[float, float, float, int]
) -> Plan:
    """Return the bits of bad pixels, and what was counted: under flat light, else in the dark."""
    if taken is None:
        return in_the_dark.loud, in_the_dark.counts.total  # pyright: ignore[reportOptionalMemberAccess]

    def look(series: Series) -> tuple[np.ndarray, np.ndarray]:
        counts = counted(series, taken.exposure)
        pixels = series.mask & GAP == 0
        loud = np.zeros(pixels.shape, np.uint32) if in_the_dark is None else in_the_dark.loud
        good = (series.mask == 0) & (loud == 0)
        return loud | bad_in_flat_light(counts, good, pixels, *bounds), counts.total

    return (yield from read_series(taken.master, look))


def _made(
    in_the_dark: Dark | None,
    taken: Taken | None,
    before: np.ndarray,
    found: np.ndarray,
    forgotten: int,
) -> PixelMask:
    runs = [one.uid for one in (in_the_dark, taken) if one is not None]
    mask = (before & ~np.uint32(forgotten) | found).astype(np.uint32)
    return PixelMask(
        uids=tuple(runs),
        mask=mask,
        found=found,
        added=np.where(before == 0, found, 0).astype(np.uint32),
        removed=np.where(mask == 0, before, 0).astype(np.uint32),
    )
