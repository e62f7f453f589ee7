"""Steps that several plans are made of: ask, set energy and times, put settings back."""

import asyncio
import functools
import logging
import weakref
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky import Msg
from bluesky.utils import FailedPause, FailedStatus, RequestAbort, RequestStop

from ophyd_eiger import EigerDetector, EigerError

logger = logging.getLogger(__name__)

Plan = Generator[Msg, Any, Any]

# What an energy may differ by and count as the same: setting it anew takes seconds, because the
# detector calculates its flat field again, and puts the threshold back to half the energy.
SAME_ENERGY_EV = 0.05
# What is raised where a detector fails, and not where somebody ends the plan.
FAILURES = (EigerError, FailedStatus, OSError)
# What is thrown into a plan where somebody ends it; the RunEngine carries out what it says then.
ENDED = (RequestAbort, RequestStop, FailedPause)


# Detectors that a plan under way arms by itself.
ARMED_BY_PLANS: weakref.WeakSet[EigerDetector] = weakref.WeakSet()


class PlanError(EigerError, RuntimeError):
    """A plan did not do what it is for, or could not leave things as they were."""


class NotADetectorError(EigerError, TypeError):
    """Something else stands where a plan takes the detector."""


def check_detector(eiger: Any, plan: str) -> None:
    """Let the first argument of a plan of this name be the detector.

    Raises
    ------
    NotADetectorError
    """
    if not isinstance(eiger, EigerDetector):
        found = getattr(eiger, "name", None) or repr(eiger)
        raise NotADetectorError(
            f"{plan} takes the detector first, as in {plan}(eiger, ...), and {found} is no "
            "EigerDetector"
        )


def all_of(
    given: Iterable[EigerDetector | Sequence[EigerDetector]], what: str
) -> tuple[EigerDetector, ...]:
    """Return the detectors that were given one by one, or as plans take them, in a list.

    Raises
    ------
    NotADetectorError
        If there is none, or something else among them.
    """
    detectors: list[Any] = []
    for each in given:
        detectors += each if isinstance(each, list | tuple) else (each,)
    if not detectors:
        raise NotADetectorError(f"{what}() needs a detector, as in {what}(eiger)")
    for detector in detectors:
        if not isinstance(detector, EigerDetector):
            found = getattr(detector, "name", None) or repr(detector)
            raise NotADetectorError(
                f"{what} takes detectors, as in {what}(eiger), and {found} is no EigerDetector"
            )
    return tuple(detectors)


def aside(function: Any, *args: Any, **kwargs: Any) -> Plan:
    """Call something that takes a while without holding up the RunEngine; return its result.

    It is called once, also where a pause has the RunEngine do its messages again. A plan that is
    ended goes on to its end only when the call is over. None where the messages are listed and no
    RunEngine carries them out: nothing is called then.
    """
    return (yield from in_thread(functools.partial(function, *args, **kwargs)))


def in_thread(
    function: Callable[[], Any],
    *,
    stop: Callable[[], Any] = lambda: None,
    is_left: bool = False,
) -> Plan:
    """Do what `aside` does, with a word on what becomes of the call if the plan is ended.

    Parameters
    ----------
    function : callable
        What is called.
    stop : callable
        Has the call end early.
    is_left : bool
        Whether nobody waits for it then: for a call that changes nothing.
    """
    calls: list[asyncio.Task] = []

    def call() -> asyncio.Task:
        if not calls:
            calls.append(asyncio.ensure_future(asyncio.to_thread(function)))
        return calls[0]

    try:
        yield from bps.wait_for([call])
    except Exception:
        if calls and not calls[0].done() and not is_left:
            stop()
            yield from bps.wait_for([call])
        if calls and calls[0].done() and (error := calls[0].exception()) is not None:
            logger.warning("failed while the plan was ended: %s", error)
        raise
    return calls[0].result() if calls else None


def ask(signal: Any) -> Plan:
    """Ask the DCU anew, which others may have changed; return the value.

    Where no RunEngine carries the messages out, what it was last.
    """
    value = yield from aside(signal.get)
    return signal.last if value is None else value


def check_period(exposure: float, period: float | None) -> None:
    """Refuse images that follow each other faster than they are exposed; all in s.

    Raises
    ------
    ValueError
    """
    if period is not None and period < exposure:
        raise ValueError(
            f"images of {exposure:g} s cannot follow each other every {period:g} s; period is the "
            "time from the start of one to the start of the next"
        )


def check_known(signal: Any, value: Any) -> None:
    """Refuse a value that the detector does not take, where its limits are known already.

    Raises
    ------
    LimitError
    """
    if signal.has_value:
        signal.check_value(value)


def check_settings(eiger: EigerDetector, **settings: float | None) -> Plan:
    """Refuse values that the detector does not take before any of them is put.

    Parameters
    ----------
    eiger : EigerDetector
        The detector; asked for the limits that are not known yet.
    **settings : float
        By the names of its signals; None is not looked at.

    Raises
    ------
    LimitError
    """
    for name, value in settings.items():
        signal = getattr(eiger.detector, name)
        if value is not None:
            if not signal.has_value:
                yield from ask(signal)
            check_known(signal, value)


def set_energy(eiger: EigerDetector, energy: float | None) -> Plan:
    """Put a photon energy in eV, unless it is None or so already."""
    if energy is None:
        return
    photon_energy = eiger.detector.photon_energy
    now = yield from ask(photon_energy)
    if now is None or abs(now - energy) > SAME_ENERGY_EV:
        yield from bps.mv(photon_energy, energy)


def set_times(eiger: EigerDetector, exposure: float, period: float | None) -> Plan:
    """Put exposure and time from image to image, both in s; return the latter as it is then.

    Parameters
    ----------
    eiger : EigerDetector
        The detector.
    exposure : float
        Exposure of an image in s.
    period : float or None
        From the start of one image to the start of the next in s; None for the shortest.

    Raises
    ------
    ValueError
        If the detector does not allow a value, before any is put; or if images cannot follow each
        other so fast.
    """
    detector = eiger.detector
    yield from check_settings(eiger, count_time=exposure, frame_time=period)
    # In this order the detector itself finds the shortest frame time: a frame time that is too
    # short shortens the count time, and the count time that is then put lengthens the frame time.
    yield from ask(detector.frame_time)
    shortest = max(exposure, detector.frame_time.limits[0] or 0.0)
    yield from bps.mv(detector.frame_time, shortest if period is None else period)
    yield from bps.mv(detector.count_time, exposure)
    frame_time = yield from bps.rd(detector.frame_time)
    if period is not None and frame_time > period * (1 + 1e-6):
        raise ValueError(
            f"{eiger.name}: images of {exposure:g} s cannot follow each other every {period:g} s; "
            f"the detector needs {frame_time:g} s"
        )
    return frame_time or shortest


def tidied(plan: Plan, *steps: Callable[[], Plan]) -> Plan:
    """Run a plan and, however it ends, these steps; each of them, whatever becomes of the others.

    If the plan failed already, a step that fails does not hide why. A step in the middle of which
    the plan is ended (`RE.abort()`, `RE.stop()`) is begun again, once, so that it is to be one that
    may be done twice; the plan ends after the steps. `RE.halt()` leaves no plan a message.
    """
    failures: list[BaseException] = []

    def noted(step: Callable[[], Plan]) -> Plan:
        try:
            return (yield from step())
        except Exception as error:
            failures.append(error)
            raise

    def tidying(step: Callable[[], Plan]) -> Callable[[], Plan]:
        def tidied_up() -> Plan:
            try:
                yield from _insisted(step)
            except Exception as error:
                if not failures:
                    failures.append(error)
                    raise
                logger.warning("not put in order: %s", error or type(error).__name__)

        return tidied_up

    running = noted(lambda: plan)
    for step in steps:
        running = bpp.finalize_wrapper(running, tidying(step))
    return (yield from running)


def _insisted(step: Callable[[], Plan]) -> Plan:
    """Do a step to its end though the plan is ended in the middle of it, and end the plan then.

    The RunEngine ends a plan once, refuses to do so again, and carries out what it says then.
    """
    try:
        yield from step()
    except ENDED:
        logger.warning("ended while things are put in order: that is done to its end first")
        yield from step()
        raise


def put_back(plan: Plan, *signals: Any) -> Plan:
    """Run a plan that changes settings, and put them back to what they are now, come what may.

    After `RE.halt()` alone they stay; a warning has what they were.

    Parameters
    ----------
    plan : generator
        The plan.
    *signals : EigerSignal
        Put back in this order.
    """
    before = []
    for signal in signals:
        value = yield from ask(signal)
        if value is not None:
            before.append((signal, value))

    tidy = tidied(plan, lambda: put_again(before))
    return (yield from told_if_halted(tidy, lambda: named(before)))


def told_if_halted(plan: Plan, left: Callable[[], Iterable[str]]) -> Plan:
    """Run a plan, and warn of what it leaves behind if `RE.halt()` ends it, which nothing undoes.

    Parameters
    ----------
    plan : generator
        The plan.
    left : callable
        Returns in words what is not as it was, and what it was.
    """
    try:
        return (yield from plan)
    except GeneratorExit:
        if words := ", ".join(left()):
            logger.warning("halted, so not put back: %s", words)
        raise


def moved_back(plan: Plan, *before: tuple[Any, Any]) -> Plan:
    """Run a plan, and move what it moves back, come what may; of what is not the DCU's to know.

    After `RE.halt()` alone it stays; a warning has what it was.

    Parameters
    ----------
    plan : generator
        The plan.
    *before : (Signal, value)
        What is moved back to which value.
    """

    def back() -> Plan:
        for signal, value in before:
            yield from bps.mv(signal, value)

    def moved() -> list[str]:
        return named([(signal, value) for signal, value in before if signal.get() != value])

    return (yield from told_if_halted(tidied(plan, back), moved))


def one_trigger_a_point(eiger: EigerDetector, plan: Plan) -> Plan:
    """Run a plan whose points take one trigger each, whatever was left set for other scans."""
    triggers: Any = eiger.triggers_per_point
    before = yield from bps.rd(triggers, default_value=1)
    if before == 1:
        return (yield from plan)

    def taken() -> Plan:
        yield from bps.mv(triggers, 1)
        return (yield from plan)

    return (yield from moved_back(taken(), (triggers, before)))


def arms_itself(eiger: EigerDetector, plan: Plan) -> Plan:
    """Run a plan that sets its detector up for all of its points: `armed_once` leaves it alone."""
    is_inside = eiger in ARMED_BY_PLANS
    ARMED_BY_PLANS.add(eiger)
    try:
        return (yield from plan)
    finally:
        if not is_inside:
            ARMED_BY_PLANS.discard(eiger)


def put_again(before: Iterable[tuple[Any, Any]]) -> Plan:
    """Put settings to values they had, each that differs, whatever becomes of the others.

    Parameters
    ----------
    before : iterable of (EigerSignal, value)
        Put in this order.

    Raises
    ------
    PlanError
        If some cannot be put; it names them, and the value that each is to have.
    """
    failed: list[str] = []
    cause = None
    for signal, value in before:
        try:
            if not (yield from _is_still(signal, value)):
                yield from _put(signal, value)
        except FAILURES as error:
            failed += named([(signal, value)])
            cause = cause or error
    if failed:
        raise PlanError(
            f"not put back: {', '.join(failed)}; put it by hand before the next scan ({cause})"
        ) from cause


def named(before: Iterable[tuple[Any, Any]]) -> list[str]:
    """Say in words which setting is to have which value."""
    return [f"{signal.name} to {value!r}" for signal, value in before]


def _is_still(signal: Any, value: Any) -> Plan:
    """Ask the DCU anew, after all that is queued for the detector; return whether it is so.

    What an ended plan set last may be under way still, and the last answer is from before then.
    """

    def asked() -> bool:
        signal.ask_in_turn().wait()
        return bool(signal.last == value)

    try:
        found = yield from aside(asked)
    except FAILURES as error:
        logger.warning("%s: what it is now cannot be asked: %s", signal.name, error)
        return False
    return signal.last == value if found is None else found


def _put(signal: Any, value: Any) -> Plan:
    try:
        yield from bps.mv(signal, value)
    except EigerError as error:
        # Told at once, so it may be what failed before and nobody has seen: that is told once.
        logger.warning("%s", error)
        yield from bps.mv(signal, value)
