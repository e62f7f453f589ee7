"""Arms in every trigger mode and ends that again, with the file writer off: nothing is exposed.

Of the external modes this is what can be seen without a signal at the trigger input.
"""

import time
from collections.abc import Iterator
from typing import Any

from eiger_plans.acceptance.asking import Asking
from eiger_plans.acceptance.findings import Check, Section
from ophyd_eiger import EigerError

ARMS = Section("arm")
# The first arm after a change takes up to this (SIMPLON API Reference V1.3, section 2), in s.
LONGEST_ARM_S = 17.0
# How long a detector may take to be idle again, in s.
LONGEST_END_S = 10.0
_PERIOD_S = 0.05
_IDS = ("sequence id", "series id", "sequence_id", "series_id")


def arms(asking: Asking, mode: str, end: str = "disarm") -> Iterator[Check]:
    """Arm once in the trigger mode that is set, and end it, also where the test is being ended.

    Parameters
    ----------
    asking : Asking
        Asks the DCU.
    mode : str
        The trigger mode, for the checks' names.
    end : {"disarm", "cancel", "abort"}
        The command that ends it.
    """
    # Of the series, which nothing but arm counts.
    name = f"{mode}: detector/command/arm"
    expected = f"the id of a series, within {LONGEST_ARM_S:g} s"
    asking.check_going_on()
    try:
        reply, seconds = _sent(asking, "arm", asking.client.timeouts.arm)
    except EigerError as error:
        yield ARMS.failed(name, expected, error)
        yield from _ended(asking, mode, "disarm", None)
        return
    number = _id(reply)
    good = number is not None and seconds <= LONGEST_ARM_S
    yield ARMS.check(name, expected, f"{reply} after {seconds:.2f} s", good=good)
    try:
        yield ARMS.same(f"{mode}: state when armed", "ready", asking.state())
    except EigerError as error:
        yield ARMS.failed(f"{mode}: state when armed", "ready", error)
    yield from _ended(asking, mode, end, number)


def _ended(asking: Asking, mode: str, end: str, number: int | None) -> Iterator[Check]:
    name, expected = f"{mode}: detector/command/{end}", f"the id of the series, {number}"
    try:
        reply, seconds = _sent(asking, end, asking.client.timeouts.end)
    except EigerError as error:
        yield ARMS.failed(name, expected, error)
    else:
        good = number is None or _id(reply) == number
        yield ARMS.check(name, expected, f"{reply} after {seconds:.2f} s", good=good)
    name, expected = f"{mode}: state after {end}", f"idle within {LONGEST_END_S:g} s"
    try:
        state, seconds = _idle(asking, end)
    except EigerError as error:
        yield ARMS.failed(name, expected, error)
    else:
        good = state == "idle"
        yield ARMS.check(name, expected, f"{state} after {seconds:.2f} s", good=good)


def _idle(asking: Asking, end: str) -> tuple[str, float]:
    """Wait for the detector to be idle; return its last state and the time, in s."""
    began = time.monotonic()
    while (state := asking.state()) != "idle" and time.monotonic() < began + LONGEST_END_S:
        if state == "ready" and end != "disarm":
            # No document says that cancel leaves nothing armed.
            _sent(asking, "disarm", asking.client.timeouts.end)
        time.sleep(_PERIOD_S)
    return state, time.monotonic() - began


def _sent(asking: Asking, command: str, timeout: float) -> tuple[Any, float]:
    began = time.monotonic()
    reply = asking.client.command("detector", command, timeout=timeout)
    return reply, time.monotonic() - began


def _id(reply: Any) -> int | None:
    found = [reply[key] for key in _IDS if key in reply] if isinstance(reply, dict) else []
    return found[0] if found and isinstance(found[0], int) and found[0] >= 0 else None
