"""A series at each of several photon energies."""

import math
from collections.abc import Generator
from typing import Any

import bluesky.plan_stubs as bps
from bluesky.protocols import Movable

from eiger_plans.arguments import checked, recorded
from eiger_plans.calibrating import TIMES, above_0, folder_of, kept, set_up, stepped, whole
from eiger_plans.series import say_where
from eiger_plans.steps import Plan
from eiger_plans.thresholds import first_threshold_alone, flatfield_kept
from ophyd_eiger import EigerDetector

# What is put back, the energy before the threshold, which it would change.
KEPT = ("photon_energy", "threshold_energy", *TIMES)
# A detector puts its threshold at half of a new energy.
HALF = 0.5


@checked
def energy_scan(
    eiger: EigerDetector,
    energies: list[float],
    exposure: float = 1.0,
    images: int = 1,
    *,
    threshold: float = HALF,
    monochromator: Movable | None = None,
    folder: str | None = None,
    md: dict[str, Any] | None = None,
) -> Generator[Any, Any, str]:
    """Take a series of images at each photon energy, in one run.

    At each the detector's energy is set, then its threshold, and it calculates its flat field
    anew, which takes it seconds and is waited for. Energy, threshold, times and numbers of images
    are put back at the end; the monochromator stays where it is. A flat field that was put
    (`flatfield`) is kept in a file, put back, and said to be; that of an EIGER2's second threshold
    is not.

    Parameters
    ----------
    eiger : EigerDetector
        The detector; initialized.
    energies : list of float
        In eV.
    exposure : float
        Of each image, in s.
    images : int
        How many at each energy.
    threshold : float
        Share of the energy below which nothing is counted.
    monochromator : Movable, optional
        Moved to each energy, in eV, before the detector's own is set.
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
    str
        The uid of the run.

    Raises
    ------
    ValueError
        If an argument makes no sense, before the first message.
    OtherThresholdError
        If another threshold than the first counts.
    """
    above_0(exposure=exposure)
    whole(images=images)
    if not 0 < threshold < 1:
        raise ValueError(f"threshold is {threshold!r}; it is a share of the energy, within 0 and 1")
    points = _checked(eiger, energies, threshold)
    place = folder_of(eiger, folder)
    detector: Any = eiger.detector
    movable: tuple[Any, ...] = () if monochromator is None else (monochromator,)
    _md = {
        "plan_name": "energy_scan",
        "plan_args": recorded(
            eiger=eiger,
            energies=points,
            exposure=exposure,
            images=images,
            threshold=threshold,
            monochromator=monochromator,
            folder=folder,
        ),
        "motors": [one.name for one in (*movable, detector.photon_energy)],
        "hints": {"dimensions": [([detector.photon_energy.name], "primary")]},
        **(md or {}),
    }

    def move(energy: float) -> Plan:
        for one in movable:
            yield from bps.mv(one, energy)
        yield from bps.mv(detector.photon_energy, energy)
        if threshold != HALF:
            yield from bps.mv(detector.threshold_energy, threshold * energy)

    def scanned() -> Plan:
        yield from set_up(eiger, exposure, images)
        return (yield from stepped(eiger, points, move, _md, movable))

    yield from first_threshold_alone(eiger)
    uid = yield from flatfield_kept(eiger, place, kept(eiger, KEPT, scanned()))
    say_where(eiger, uid)
    return uid


def _checked(eiger: EigerDetector, energies: list[float], threshold: float) -> list[float]:
    """Return the energies as numbers, after a look at the limits that are known."""
    points = [float(energy) for energy in energies]
    if not points or not all(math.isfinite(point) and point > 0 for point in points):
        raise ValueError(f"energies are {points}; give some above 0, in eV")
    detector: Any = eiger.detector
    for signal, share in ((detector.photon_energy, 1.0), (detector.threshold_energy, threshold)):
        if signal.has_value:
            for point in points:
                signal.check_value(share * point)
    return points
