"""What rotation and raster are made of: one motor's sweep past one line of images."""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import bluesky.plan_stubs as bps
from bluesky.protocols import Stoppable

from eiger_plans.steps import (
    Plan,
    PlanError,
    aside,
    moved_back,
    put_back,
    tidied,
    told_if_halted,
)
from eiger_plans.sweeps import Sweep
from eiger_plans.triggering import PulseTrain, TriggerSource
from ophyd_eiger import EigerDetector, EigerError, TriggerInfo

logger = logging.getLogger(__name__)

STREAM = "primary"
# How long a motor may take to stand after it was stopped, and how often it is looked at, in s.
STANDS_WITHIN, LOOKS_EVERY = 10.0, 0.05
# How long after the last trigger its images may be missing from what the detector shows, in s.
SEEN_WITHIN = 10.0
# A motor's time to its speed may be longer by this share: it comes in steps, and rounded.
SAME_RAMP = 0.02


@dataclass
class Setup:
    """What sweeps: a detector, a motor, the watch over it, and what gives the triggers.

    Attributes
    ----------
    eiger, motor, track, source
        The four; without a source the plan itself triggers when the motor passes the start.
    usual_speed : float
        The motor's speed before and after.
    flies : bool
        Whether a fly scan was begun whose points are in no document yet.
    pulses : bool
        Whether the source was let go, and not all its images were seen yet.
    """

    eiger: EigerDetector
    motor: Any
    track: Any
    source: TriggerSource | None
    usual_speed: float = 0.0
    flies: bool = False
    pulses: bool = False
    declared: set[str] = field(default_factory=set)

    @property
    def device(self) -> Any:
        """The detector, for bluesky's protocols, which are narrower than what it takes."""
        return self.eiger

    def declare(self, device: Any, stream: str) -> Plan:
        """Declare a stream, unless it is."""
        if stream not in self.declared:
            yield from bps.declare_stream(device, name=stream, collect=True)
            self.declared.add(stream)


def armed_at_once(plan: Plan, setup: Setup, info: TriggerInfo) -> Plan:
    """Run a plan that stages and sweeps, the detector set so that `stage` arms for the first sweep.

    Else `stage` would arm a series of what was set before, which `prepare` ends without an image.
    With a source of triggers it is left so: on the motor's way to its start a pulse may come, and
    nothing that waits for pulses is to be armed before it is there.

    Parameters
    ----------
    plan : generator
        What stages, and sweeps.
    setup : Setup
        What sweeps.
    info : TriggerInfo
        What `prepare` will ask for.
    """
    eiger: Any = setup.eiger
    if setup.source is not None:
        return (yield from plan)
    scheme, triggers = info.scheme, eiger.triggers_per_point
    before = yield from bps.rd(triggers, default_value=1)
    signals = (eiger.detector.trigger_mode, eiger.detector.nimages, eiger.detector.ntrigger)

    def set_up() -> Plan:
        for signal, value in zip(
            signals, (scheme.mode.value, scheme.nimages, scheme.ntrigger), strict=True
        ):
            yield from bps.mv(signal, value)
        yield from bps.mv(triggers, 1)
        return (yield from plan)

    return (yield from moved_back(put_back(set_up(), *signals), (triggers, before)))


def with_motor_at_rest(plan: Plan, setup: Setup) -> Plan:
    """Run a plan that sweeps; however it ends, the motor stands after it and has its usual speed.

    If the plan fails, the images that were finished are recorded, and `positions` tells where the
    motor was.
    """
    motor: Any = setup.motor
    now = yield from bps.rd(motor.velocity, default_value=None)
    setup.usual_speed = now

    def stand() -> Plan:
        yield from aside(motor.stop, success=True)
        for _ in range(round(STANDS_WITHIN / LOOKS_EVERY)):
            if not getattr(motor, "moving", False):
                break
            yield from bps.sleep(LOOKS_EVERY)

    def speed_back() -> Plan:
        if setup.usual_speed is not None:
            yield from bps.mv(motor.velocity, setup.usual_speed)

    def source_stops() -> Plan:
        if setup.pulses and isinstance(setup.source, Stoppable):
            yield from aside(setup.source.stop, success=True)

    def no_more_images() -> Plan:
        if setup.flies:
            yield from aside(setup.device.stop, success=True)

    def land() -> Plan:
        if setup.flies:
            yield from bps.complete(setup.device, wait=True)
            yield from leave_out(setup)
            yield from collect(setup)

    def left() -> list[str]:
        usual = setup.usual_speed
        return [] if usual is None else [f"{motor.velocity.name} to {usual:g}"]

    if setup.source is None:
        # What is exposed from then on, while the motor stops, is not where it is said to be.
        ends = (no_more_images, stand)
    else:
        ends = (stand, source_stops, no_more_images)
    tidy = tidied(plan, *ends, land, speed_back)
    return (yield from told_if_halted(tidy, left))


def at_its_speed(motor: Any, sweep: Sweep) -> Plan:
    """Return the sweep with the run-up that the motor needs for its speed; nothing moves.

    How long a motor takes to its speed is asked while that is set: one that keeps an acceleration
    in units/s^2, as a motor record with ACCU does, takes the longer the faster it is to go.

    Raises
    ------
    ValueError
        If the way is too long for it then.
    """
    usual = yield from bps.rd(motor.velocity, default_value=None)

    def asked() -> Plan:
        yield from bps.mv(motor.velocity, sweep.speed)
        return (yield from bps.rd(motor.acceleration, default_value=sweep.ramp))

    def speed_back() -> Plan:
        if usual is not None:
            yield from bps.mv(motor.velocity, usual)

    ramp = yield from tidied(asked(), speed_back)
    found = replace(sweep, ramp=float(ramp))
    found.check(motor)
    return found


def set_out(setup: Setup, sweep: Sweep, at: Mapping[str, float], *others: Any) -> Plan:
    """Go to where the sweep sets out, and be ready for it; what is done from here on can be redone.

    Parameters
    ----------
    setup : Setup
        What sweeps.
    sweep : Sweep
        The way.
    at : mapping
        What `positions` says of other motors.
    *others : motor, position, ...
        What moves beside it.

    Raises
    ------
    ValueError
        If the motor now takes longer to its speed than the way was computed for.
    """
    motor: Any = setup.motor
    yield from bps.checkpoint()
    if setup.usual_speed is not None:
        yield from bps.mv(motor.velocity, setup.usual_speed)
    yield from bps.mv(motor, sweep.begin, *others)
    yield from bps.mv(motor.velocity, sweep.speed)
    ramp = yield from bps.rd(motor.acceleration, default_value=sweep.ramp)
    if ramp > sweep.ramp * (1 + SAME_RAMP):
        raise ValueError(
            f"{motor.name} takes {ramp:g} s to {sweep.speed:g}/s, its acceleration, and its run-up "
            f"is for {sweep.ramp:g} s; has somebody else changed it? Start the plan anew"
        )
    yield from bps.prepare(setup.track, sweep, at=at, wait=True)


def sweep_past(
    setup: Setup, sweep: Sweep, train: PulseTrain | None, begin: Callable[[], Plan]
) -> Plan:
    """Let the motor go, and begin to expose when it passes the start of the first image.

    No document is made from here until the images are taken: whoever writes them holds up the
    RunEngine, and with it the trigger.

    Parameters
    ----------
    setup : Setup
        What sweeps.
    sweep : Sweep
        The way.
    train : PulseTrain or None
        What the source of triggers is asked for; None without one.
    begin : callable
        Gives the messages that begin to expose, or to wait for triggers.
    """
    motor, source = setup.motor, setup.source
    if source is not None:
        yield from bps.prepare(source, train, wait=True)
        yield from begin()
        setup.pulses = True
        yield from bps.kickoff(source, wait=True)
    yield from bps.abs_set(motor, sweep.end, group="motor")
    if source is None:
        yield from bps.trigger(setup.track, wait=True)
        yield from begin()
        setup.track.note_exposing()


def see_through(setup: Setup, sweep: Sweep) -> Plan:
    """Wait until the motor stands and the images, of the group "images", are taken.

    Raises
    ------
    EigerError
        If a source does not come to its last trigger, or the detector did not take all of them.
    """
    source = setup.source
    yield from bps.wait("motor")
    if source is None:
        yield from came_to_its_end(setup.motor, sweep)
        yield from bps.wait("images")
        return
    patience = sweep.images * sweep.period + SEEN_WITHIN
    yield from bps.complete(source, group="source")
    given = yield from bps.wait("source", timeout=patience, error_on_timeout=False)
    if given is False:
        raise EigerError(
            f"{setup.motor.name} stands since {patience:.0f} s, and {source.name} did not give its "
            "last trigger yet; was it told the right motor, and did that pass all its positions?"
        )
    seen = yield from bps.wait("images", timeout=patience, error_on_timeout=False)
    if seen is False:
        raise EigerError(
            f"{setup.eiger.name}: {source.name} gave its last trigger {patience:.0f} s ago, and "
            "images are missing still; did triggers come while an image was exposed, or not reach "
            "the detector's input?"
        )
    setup.pulses = False


def came_to_its_end(motor: Any, sweep: Sweep) -> Plan:
    """Let a motor have gone all its way: one that somebody else stops may say that it succeeded.

    Raises
    ------
    PlanError
        If it is short of the middle of its overrun.
    """
    stands = yield from aside(lambda: float(motor.position))
    if stands is None:
        return
    short = (sweep.stop - stands) * math.copysign(1.0, sweep.step)
    if short > -sweep.run_up / 2:
        raise PlanError(
            f"{motor.name} stands at {stands:g} and was to go to {sweep.end:g}, past images from "
            f"{sweep.start:g} to {sweep.stop:g}; somebody else stopped it, or it lost its way"
        )


def leave_out(setup: Setup) -> Plan:
    """Have no document of images that a motor did not pass as it should have.

    Of a sweep that ended early: the detector may have gone on while the motor stopped and stood.
    """
    motor, track = setup.motor, setup.track
    stands = yield from aside(lambda: float(motor.position))
    if stands is None:
        return
    images = yield from aside(track.on_the_way, stands)
    left_out = yield from aside(setup.device.keep_points, images // track.images_an_event)
    if left_out:
        logger.warning(
            "%s: %d points are left out of the run, because %s stopped, at %g, while their images "
            "were taken; the images are in the files",
            setup.eiger.name,
            left_out,
            motor.name,
            stands,
        )


def fly_past(setup: Setup, sweep: Sweep, info: TriggerInfo, train: PulseTrain | None) -> Plan:
    """Take one line of images as a fly scan, and record it."""
    eiger: Any = setup.device
    yield from bps.prepare(eiger, info, wait=True)
    yield from setup.declare(eiger, STREAM)
    yield from setup.declare(setup.track, setup.track.name)

    def begin() -> Plan:
        yield from bps.kickoff(eiger, wait=True)
        setup.flies = True

    yield from sweep_past(setup, sweep, train, begin)
    yield from bps.complete(eiger, group="images")
    yield from see_through(setup, sweep)
    yield from collect(setup)


def collect(setup: Setup) -> Plan:
    """Record what a fly scan took, and where the motor was."""
    taken = yield from bps.collect(setup.device, name=STREAM, return_payload=True)
    index = getattr(setup.device, "get_index", None)
    setup.track.points = index() if taken is None and index else len(taken or [])
    setup.flies = False
    yield from bps.collect(setup.track, name=setup.track.name, return_payload=False)
