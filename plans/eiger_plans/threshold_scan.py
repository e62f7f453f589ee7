"""The energy of the beam, as the detector's threshold sees it: an S-curve."""

import functools
import math
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import bluesky.plan_stubs as bps
import numpy as np

from eiger_plans.arguments import checked, recorded
from eiger_plans.calibrating import (
    TIMES,
    above_0,
    folder_of,
    kept,
    masters_at_home,
    set_up,
    stepped,
    whole,
)
from eiger_plans.s_curve import LEAST_POINTS, SCurve, fit_s_curve
from eiger_plans.steps import aside
from eiger_plans.thresholds import first_threshold_alone, flatfield_kept
from ophyd_eiger import EigerDetector, open_series

# What is put back: an energy, which is not changed, is not put again either.
KEPT = ("threshold_energy", *TIMES)


@dataclass(frozen=True)
class ThresholdScan:
    """A threshold scan and what was fitted to it.

    Attributes
    ----------
    uid : str
        The run.
    curve : SCurve
        The fit, with thresholds and counts.
    photon_energy : float
        What the detector was set to, in eV.
    full : int
        Good pixels that were full at a threshold, and are left out at all of them.
    """

    uid: str
    curve: SCurve
    photon_energy: float
    full: int

    def __str__(self) -> str:
        """Return it in words."""
        off = self.curve.energy - self.photon_energy
        apart = (
            f"{self.curve.in_digits(abs(off))} eV ({100 * abs(off) / self.photon_energy:.3g} %) "
            f"{'above' if off > 0 else 'below'}"
        )
        if abs(off) <= self.curve.energy_error:
            apart = "no more than its error from"
        return (
            f"run {self.uid}\n  {self.curve}\n  {apart} the detector's photon_energy of "
            f"{self.photon_energy:.1f} eV\n"
            f"  {self.full} pixels were full at a threshold, and are left out at all of them"
        )


@checked
def threshold_scan(
    eiger: EigerDetector,
    thresholds: list[float],
    exposure: float = 1.0,
    images: int = 1,
    *,
    folder: str | None = None,
    md: dict[str, Any] | None = None,
) -> Generator[Any, Any, ThresholdScan | None]:
    """Scan the threshold under steady light, and fit the S-curve for the photons' energy.

    `photon_energy` stays as it is; threshold, times and numbers of images are put back. At each
    threshold the detector calculates its flat field anew, which takes it seconds; one that was put
    (`flatfield`) is kept in a file, put back at the end, and said to be. That of an EIGER2's second
    threshold is not.

    Parameters
    ----------
    eiger : EigerDetector
        The detector; initialized.
    thresholds : list of float
        In eV; eight at least, on both sides of the energy that is sought.
    exposure : float
        Of each image, in s.
    images : int
        How many at each threshold.
    folder : str, optional
        Where the flat field is kept; the detector's directory if not given.
    md : dict, optional
        Metadata of the run.

    Yields
    ------
    msg : Msg
        Messages for the RunEngine.

    Returns
    -------
    ThresholdScan or None
        None where the messages are listed.

    Raises
    ------
    ValueError
        If an argument makes no sense, before the first message.
    OtherThresholdError
        If another threshold than the first counts.
    TooFewCountsError
        If the counts hold no S-curve.
    ModuleNotFoundError
        If scipy is not installed, before the first message.
    """
    if find_spec("scipy") is None:
        raise ModuleNotFoundError("threshold_scan needs scipy: pip install 'ophyd-eiger[plans]'")
    above_0(exposure=exposure)
    whole(images=images)
    points = _checked(eiger, thresholds)
    place = folder_of(eiger, folder)
    signal: Any = eiger.detector.threshold_energy
    _md = {
        "plan_name": "threshold_scan",
        "plan_args": recorded(
            eiger=eiger,
            thresholds=points,
            exposure=exposure,
            images=images,
            folder=folder,
        ),
        "motors": [signal.name],
        "hints": {"dimensions": [([signal.name], "primary")]},
        **(md or {}),
    }

    def scanned() -> Generator[Any, Any, ThresholdScan | None]:
        energy = yield from aside(eiger.detector.photon_energy.get)
        yield from set_up(eiger, exposure, images)
        uid = yield from stepped(eiger, points, lambda point: bps.mv(signal, point), _md)
        if energy is None or not uid:
            return None
        masters = yield from masters_at_home(eiger, len(points))
        opened = [functools.partial(open_series, master) for master in masters]
        counts, full = yield from aside(same_pixels, opened)
        return ThresholdScan(uid, fit_s_curve(np.array(points), counts), float(energy), full)

    yield from first_threshold_alone(eiger)
    found = yield from flatfield_kept(eiger, place, kept(eiger, KEPT, scanned()))
    if found is not None:
        print(found)
    return found


def _checked(eiger: EigerDetector, thresholds: list[float]) -> list[float]:
    """Return the thresholds as numbers, after a look at the limits that are known."""
    points = [float(threshold) for threshold in thresholds]
    if len(set(points)) < LEAST_POINTS or not all(map(math.isfinite, points)):
        raise ValueError(
            f"thresholds are {points}; an S-curve takes {LEAST_POINTS} different ones at least"
        )
    signal: Any = eiger.detector.threshold_energy
    if signal.has_value:
        for point in points:
            signal.check_value(point)
    return points


def same_pixels(series: list[Callable[[], AbstractContextManager[Any]]]) -> tuple[np.ndarray, int]:
    """Return the counts of each series, over the same pixels; each is read twice.

    A pixel that is full at one threshold would be missing from that sum alone, and bend the curve.

    Parameters
    ----------
    series : list of callable
        Each opens a `Series`.

    Returns
    -------
    counts : numpy.ndarray of float64, shape (series,)
        Of the pixels that are masked in none of them, and full in no image.
    full : int
        How many pixels that are not masked are left out of all sums.
    """
    unmasked, full = np.bool_(True), np.bool_(False)
    for opened in series:
        with opened() as images:
            unmasked = unmasked & (images.mask == 0)
            most = np.iinfo(images.dtype).max
            for image in images:
                full = full | (image == most)
    used = unmasked & ~full
    counts = np.zeros(len(series))
    for number, opened in enumerate(series):
        with opened() as images:
            counts[number] = sum(float(image[used].sum(dtype=np.float64)) for image in images)
    return counts, int(np.count_nonzero(unmasked & full))
