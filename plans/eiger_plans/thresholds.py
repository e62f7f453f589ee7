"""What setting energies and thresholds does to calibrations: which one counts, what gets lost."""

import logging
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import numpy as np

from eiger_plans.calibrating import kept_in_file
from eiger_plans.steps import Plan, aside, tidied, told_if_halted
from ophyd_eiger import EigerDetector, EigerError

logger = logging.getLogger(__name__)

# What may count beside or instead of threshold 1, of an EIGER2.
OTHERS = ("threshold_2_mode", "threshold_difference_mode")


class OtherThresholdError(EigerError, RuntimeError):
    """The detector counts on another threshold than the one that would be calibrated."""


def first_threshold_alone(eiger: EigerDetector) -> Plan:
    """Let images be those of threshold 1, whose flat field, mask and energy the plans work on.

    An EIGER has one threshold, and no such modes.

    Raises
    ------
    OtherThresholdError
        If an EIGER2 counts on another, or on several.
    """

    def look() -> None:
        detector: Any = eiger.detector
        found = {}
        for name in ("threshold_1_mode", *OTHERS):
            try:
                found[name] = getattr(detector, name).get()
            except LookupError:  # what a DCU does not serve is no key of it
                continue
        others = [name for name in OTHERS if found.get(name) == "enabled"]
        if others or found.get("threshold_1_mode", "enabled") != "enabled":
            modes = ", ".join(f"{name} is {mode}" for name, mode in found.items())
            raise OtherThresholdError(
                f"{eiger.name}: {modes}. Flat field, pixel mask and threshold_energy are those of "
                "threshold 1: enable it, disable the others, and begin again. Nothing was changed"
            )

    yield from aside(look)


def flatfield_kept(eiger: EigerDetector, folder: Path, plan: Plan) -> Plan:
    """Do a plan that sets energies or thresholds, and put a flat field of one's own back.

    The detector calculates its flat field anew when they are set, and forgets one that was put.
    Until it is known to be there again it is in a file, which is removed where nothing was lost.

    Parameters
    ----------
    eiger : EigerDetector
        The detector.
    folder : Path
        Where the flat field is kept, as .npy.
    plan : generator
        Puts energy and threshold back itself.
    """
    signal: Any = eiger.detector.flatfield

    kept = yield from aside(kept_in_file, signal, folder)
    if kept is None:
        return (yield from plan)
    path, before = kept

    def put_back() -> Plan:
        try:
            now = yield from aside(signal.get)
            if np.array_equal(now, before):
                path.unlink()
                return
            yield from bps.mv(signal, before)
        except Exception:
            logger.warning(
                "%s: the flat field of before is not put back; it is in %s", eiger.name, path
            )
            raise
        print(f"{eiger.name}: the flat field of before was put back; it is in {path}, too")

    def left() -> list[str]:
        # Put back, it may be there no more.
        return [f"the flat field of {eiger.name}, which is in {path}"] if path.exists() else []

    return (yield from told_if_halted(tidied(plan, put_back), left))
