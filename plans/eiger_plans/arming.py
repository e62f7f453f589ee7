"""Any plan with the detector armed once, instead of once a point."""

import functools
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky import Msg
from bluesky.utils import ensure_generator

from eiger_plans.steps import (
    ARMED_BY_PLANS,
    Plan,
    all_of,
    ask,
    named,
    put_again,
    tidied,
    told_if_halted,
)
from ophyd_eiger import EigerDetector

# For how many points the detector is armed at a time if a plan does not tell how many it has.
POINTS_AT_A_TIME = 1000


def armed_once(
    *eigers: EigerDetector | Sequence[EigerDetector], points: int | None = None
) -> Callable[[Any], Any]:
    """Return what has a plan arm the detector once for all its points; the plan stays as it is.

    For a plan that is made already, for a function that makes plans (as a decorator), or for
    `RE.preprocessors.append`. The detector is armed as late as a run begins, because that tells how
    many points it has. Where a run does not tell (an adaptive scan, `bp.count` without a number),
    it is armed for 1000 at a time. A series that was armed for more points than were taken is ended
    in good order; one that is used up is followed by another.

    Only `ntrigger` is changed, and put back when the plan is over. How many images a point has, in
    which trigger mode, and how many triggers a point takes stays as it is set.

    Parameters
    ----------
    *eigers : EigerDetector, or a list of them
        The detectors.
    points : int, optional
        For how many points to arm, whatever the runs tell.

    Returns
    -------
    callable
        Takes a plan, or a function that returns one, and returns the like.

    Raises
    ------
    TypeError, ValueError
        If there is no detector, something else stands where one should, or points is not a whole
        number of 1 at least.

    Examples
    --------
    >>> RE(armed_once(eiger)(bp.scan([eiger], motor, 0, 1, 11)))

    >>> @armed_once(eiger)
    ... def my_scan():
    ...     yield from bp.rel_scan([eiger], motor, -1, 1, 11)
    """
    detectors = all_of(eigers, "armed_once")
    if points is not None and not isinstance(points, Integral):
        raise TypeError(f"armed_once: points is {points!r}; it is a whole number")
    if points is not None and points < 1:
        raise ValueError(f"armed_once: points is {points!r}; it is at least 1")

    def applied(plan: Any) -> Any:
        if callable(plan):
            return _decorated(plan, applied)
        return _Arming(detectors, points).applied(ensure_generator(plan))

    return applied


def _decorated(make_plan: Callable[..., Any], apply: Callable[[Plan], Plan]) -> Callable:
    @functools.wraps(make_plan)
    def made(*args: Any, **kwargs: Any) -> Plan:
        return (yield from apply(make_plan(*args, **kwargs)))

    return made


class _Arming:
    """One plan's arming: holds each `stage` back until it is known how many points follow.

    Parameters
    ----------
    eigers : sequence of EigerDetector
        The detectors.
    points : int or None
        For how many points to arm; None to go by the runs.
    """

    # What a detector is staged for.
    USES = ("trigger", "prepare", "kickoff", "read")

    def __init__(self, eigers: tuple[EigerDetector, ...], points: int | None) -> None:
        self._eigers = eigers
        self._points = points
        self._told: dict[Any, int | None] = {}
        self._waiting: list[EigerDetector] = []
        self._before: dict[EigerDetector, int] = {}
        self._armed_for: dict[EigerDetector, int] = {}
        self._put: dict[EigerDetector, int] = {}
        self._stages = False

    def applied(self, plan: Plan) -> Plan:
        """Return the plan with the detectors armed once."""
        armed = tidied(bpp.plan_mutator(plan, self._look_at), self._put_back)
        return told_if_halted(armed, lambda: named(self._changed()))

    def _look_at(self, msg: Msg) -> tuple[Plan | None, Plan | None]:
        if msg.command == "open_run":
            self._told[msg.run] = _count(msg.kwargs.get("num_points"))
            staged = [eiger for eiger in self._armed_for if eiger not in self._waiting]
            if self._waiting or staged:
                return self._before_message(msg, staged), None
        elif msg.command == "close_run":
            self._told.pop(msg.run, None)
        elif msg.command in ("stage", "unstage") and msg.obj in ARMED_BY_PLANS:
            # It knows better, as of a fly scan, for how much to arm.
            return None, None
        elif msg.command == "stage" and msg.obj in self._eigers and not self._stages:
            self._waiting.append(msg.obj)
            # In a run that has begun its number of points is known; else it is when one begins.
            return (self._staged() if self._told else bps.null()), None
        elif msg.command == "unstage" and msg.obj in self._eigers:
            self._armed_for.pop(msg.obj, None)
            if msg.obj in self._waiting:
                self._waiting.remove(msg.obj)
        elif msg.command in self.USES and msg.obj in self._waiting:
            return self._before_message(msg, []), None
        return None, None

    def _before_message(self, msg: Msg, staged: list[EigerDetector]) -> Plan:
        try:
            for eiger in staged:
                yield from self._set_points(eiger)
            yield from self._staged()
            return (yield msg)
        except Exception:
            if msg.command == "open_run":
                # It did not begin, and will not end.
                self._told.pop(msg.run, None)
            raise

    def _staged(self) -> Plan:
        waiting, self._waiting = self._waiting, []
        for eiger in waiting:
            yield from self._set_points(eiger)
        if waiting:
            # What is put in is looked at, too.
            self._stages = True
            devices: list[Any] = list(waiting)
            try:
                yield from bps.stage_all(*devices)
            finally:
                self._stages = False

    def _set_points(self, eiger: EigerDetector) -> Plan:
        """Put ntrigger for the points of the runs that are open, if it is not so."""
        told = [number for number in self._told.values() if number]
        wanted = self._points or (sum(told) if told else POINTS_AT_A_TIME)
        ntrigger = eiger.detector.ntrigger
        if eiger not in self._before:
            now = yield from ask(ntrigger)
            self._before[eiger] = 1 if now is None else int(now)
        wanted *= yield from _triggers_a_point(eiger)
        if self._armed_for.get(eiger) != wanted:
            yield from bps.mv(ntrigger, wanted)
            self._put[eiger] = wanted
        self._armed_for[eiger] = wanted

    def _put_back(self) -> Plan:
        yield from put_again(self._changed())

    def _changed(self) -> list[tuple[Any, Any]]:
        """Return what was put, and what it was before; not what the plan has put meanwhile."""
        return [
            (eiger.detector.ntrigger, value)
            for eiger, value in self._before.items()
            if eiger.detector.ntrigger.last == self._put.get(eiger)
        ]


def _triggers_a_point(eiger: Any) -> Plan:
    """Return how many triggers a point takes."""
    triggers = yield from bps.rd(eiger.triggers_per_point, default_value=1)
    listed = yield from bps.rd(eiger.exposure, default_value=None)
    if eiger.detector.trigger_mode.last == "inte" and isinstance(listed, tuple):
        return max(len(listed), int(triggers))
    return int(triggers)


def _count(told: Any) -> int | None:
    """Return a run's number of points, if it tells one."""
    if not isinstance(told, Integral) or isinstance(told, bool):
        return None
    return int(told) if int(told) > 0 else None
