"""One image for each of several exposures."""

from collections.abc import Generator, Sequence
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import numpy as np

from eiger_plans.arguments import checked, recorded
from eiger_plans.series import say_where
from eiger_plans.steps import (
    Plan,
    arms_itself,
    ask,
    check_settings,
    moved_back,
    put_back,
    set_energy,
)
from ophyd_eiger import EigerDetector


@checked
def exposure_series(
    eiger: EigerDetector,
    exposures: Sequence[float] | None = None,
    *,
    shortest: float | None = None,
    longest: float | None = None,
    number: int | None = None,
    energy: float | None = None,
    md: dict[str, Any] | None = None,
) -> Generator[Any, Any, str]:
    """Take one image for each of several exposures, armed once, and say where they are.

    In trigger mode `inte`, with a `count_time` as long as the longest, so that the images have the
    bits for it; what was set is put back afterwards. Each event has its exposure as
    `<name>_exposure`.

    Parameters
    ----------
    eiger : EigerDetector
        The detector; initialized.
    exposures : list of float, optional
        Exposure times in s, in the order in which they are taken. Or give the next three.
    shortest, longest : float, optional
        The first and the last exposure time in s; those between grow by the same factor.
    number : int, optional
        How many, 2 at least.
    energy : float, optional
        Photon energy in eV; left as it is if not given or if it is so already.
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
        If the exposures are not given in one of the two ways, one is none that the detector takes,
        or a number is not finite. No run is opened then.

    Examples
    --------
    >>> RE(exposure_series(eiger, [0.01, 0.1, 1.0]))
    >>> RE(exposure_series(eiger, shortest=0.001, longest=1.0, number=7))
    """
    asked = _exposures(eiger, exposures, shortest, longest, number)
    # bluesky's protocols are narrower than what it takes.
    device: Any = eiger
    detector = device.detector
    for exposure in (min(asked), max(asked)):
        yield from check_settings(eiger, photon_energy=energy, count_time=exposure)
    yield from set_energy(eiger, energy)
    before = yield from bps.rd(device.exposure, default_value=None)
    _md = {
        "plan_name": "exposure_series",
        "plan_args": recorded(
            eiger=eiger,
            exposures=asked,
            shortest=shortest,
            longest=longest,
            number=number,
            energy=energy,
        ),
        "hints": {"dimensions": [([device.exposure.name], "primary")]},
        **(md or {}),
    }

    scanned: Any = (device.exposure, asked)

    def taken() -> Plan:
        # By it the detector chooses how many bits its images have; what a trigger brings counts.
        # DECTRIS' manual asks for about the shortest exposure; with its bits the longest may be
        # full, which loses counts, and the other way round only bytes are lost.
        count_time = yield from ask(detector.count_time)
        if count_time is None or count_time < max(asked):
            yield from bps.mv(detector.count_time, max(asked))
        yield from bps.mv(detector.nimages, 1)
        yield from bps.mv(detector.trigger_mode, "inte")
        yield from bps.mv(detector.ntrigger, len(asked), device.triggers_per_point, 1)
        return (yield from bp.list_scan([device], *scanned, md=_md))

    triggers = yield from bps.rd(device.triggers_per_point, default_value=1)
    changed = (detector.trigger_mode, detector.nimages, detector.ntrigger)
    # In this order, because a frame time is never shorter than the count time.
    kept = put_back(taken(), *changed, detector.count_time, detector.frame_time)
    taken_once = moved_back(kept, (device.exposure, before), (device.triggers_per_point, triggers))
    uid = yield from arms_itself(eiger, taken_once)
    say_where(eiger, uid)
    return uid


def _exposures(
    eiger: EigerDetector,
    exposures: Sequence[float] | None,
    shortest: float | None,
    longest: float | None,
    number: int | None,
) -> list[float]:
    """Return the exposures in s, each one that the detector may take as far as is known."""
    ends = (shortest, longest, number)
    if exposures is not None and ends == (None, None, None):
        asked = [float(one) for one in exposures]
    elif exposures is None and shortest is not None and longest is not None and number is not None:
        if number < 2 or not 0 < shortest < longest:
            raise ValueError(
                f"{number} exposures from {shortest} s to {longest} s: give 2 at least, from above "
                "0 to a longer one"
            )
        asked = [float(one) for one in np.geomspace(shortest, longest, number)]
    else:
        raise ValueError(
            "give the exposures as a list, or shortest, longest and number; not both, not in part"
        )
    if not asked:
        raise ValueError("an empty list of exposures; give one at least")
    for one in asked:
        eiger.exposure.check_value(one)
    return asked
