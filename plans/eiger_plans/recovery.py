"""Bring a detector back from within a plan."""

from collections.abc import Generator
from typing import Any

import bluesky.plan_stubs as bps

from eiger_plans.arguments import checked
from ophyd_eiger import EigerDetector


@checked
def recover(eiger: EigerDetector, up_to: str = "restart") -> Generator[Any, Any, Any]:
    """Bring a detector back by the mildest means that helps, and go on.

    A plan that catches a failed point, or that runs one run after the other, goes on with this
    instead of ending. What was staged is not any more: stage the detector again.

    Parameters
    ----------
    eiger : EigerDetector
        The detector.
    up_to : {"cancel", "abort", "disarm", "initialize", "restart"}
        The highest rung.

    Yields
    ------
    msg : Msg
        Messages for the RunEngine.

    Returns
    -------
    RecoveryReport
        What was done; None where the messages are listed and no RunEngine carries them out.

    Raises
    ------
    FailedStatus
        If nothing helped, from a `RecoveryError` that names each rung.
    """
    recovery: Any = eiger.recovery
    yield from bps.abs_set(recovery, up_to, wait=True)
    return recovery.last
