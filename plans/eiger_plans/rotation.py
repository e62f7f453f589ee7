"""A motor turns the sample while the detector takes images without a pause."""

from collections.abc import Generator
from typing import Any

import bluesky.preprocessors as bpp
from bluesky.protocols import Movable

from eiger_plans.arguments import checked, recorded
from eiger_plans.flying import (
    Setup,
    armed_at_once,
    at_its_speed,
    fly_past,
    set_out,
    with_motor_at_rest,
)
from eiger_plans.goniometer import Goniometer
from eiger_plans.series import say_where
from eiger_plans.steps import Plan, arms_itself, check_known, check_period, put_back, set_times
from eiger_plans.sweeps import Sweep, check_numbers, ramp_of
from eiger_plans.tracks import Track
from eiger_plans.triggering import PulseTrain, TriggerSource
from ophyd_eiger import EigerDetector, TriggerInfo


@checked
def rotation(
    eiger: EigerDetector,
    motor: Movable,
    start: float,
    step: float,
    images: int,
    exposure: float,
    *,
    period: float | None = None,
    axis: str = "omega",
    goniometer: dict[str, float | Movable] | None = None,
    source: TriggerSource | None = None,
    md: dict[str, Any] | None = None,
) -> Generator[Any, Any, str]:
    """Take images while a motor turns at constant speed, and say where they are.

    The motor sets out before `start`, so that it is at full speed there, and stops as far behind
    the last image. It is triggered once, when the motor tells that it passes `start`: within some
    ms, which is the time that a command takes; or, with `source`, image by image from outside,
    which is exact.

    The angles go to the DCU and so into the master file; the DCU has its own back afterwards, and
    the motor its speed. Exposure and frame time stay set. Each event is an image; the stream
    `positions` has the angle that each image begins at, as it should be and as the motor told it.
    A plan that is aborted keeps the images that were finished.

    Parameters
    ----------
    eiger : EigerDetector
        The detector; initialized.
    motor : ophyd positioner
        Turns; with `velocity` and `acceleration` (s) as an `ophyd.EpicsMotor` has them.
    start : float
        Where the first image begins, in the motor's unit, which is that of the file: degree.
    step : float
        How far it turns from the start of one image to the start of the next; below 0 backwards.
    images : int
        Number of images.
    exposure : float
        Exposure time of an image in s.
    period : float, optional
        Time from the start of one image to the start of the next in s; the shortest possible if
        not given. With `source` it is to be given.
    axis : {"omega", "phi", "chi", "kappa", "two_theta"}
        What the motor is to the DCU.
    goniometer : dict, optional
        Where the other axes stand, in degree, by their names: a number, or a motor that is asked.
    source : TriggerSource, optional
        What triggers each image (`exts`) by where the motor is.
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
        If the motor would be too fast or leave its limits with run-up and overrun, or the detector
        cannot take images so fast. No run is opened then, and nothing moves.
    TypeError
        If the motor has no speed that can be set.

    Examples
    --------
    >>> RE(rotation(eiger, omega, start=0, step=0.1, images=900, exposure=0.01))
    """
    # bluesky's protocol is narrower than what is needed here, and checked.
    device: Any = motor
    check_numbers(start=start, step=step, images=images, exposure=exposure, period=period)
    check_period(exposure, period)
    if step == 0:
        raise ValueError("step is 0, so that nothing would turn; series() takes such images")
    if source is not None and period is None:
        raise ValueError(
            "with a source of triggers give period, the time from one trigger to the next, too"
        )
    angles = Goniometer(eiger, axis, goniometer)
    sweep = Sweep(start, step, images, period or exposure, ramp_of(motor))
    sweep.check(motor)
    check_known(eiger.detector.count_time, exposure)
    every = yield from _period(eiger, exposure, period, source is not None)
    sweep = Sweep(start, step, images, every, sweep.ramp)
    sweep.check(motor)
    sweep = yield from at_its_speed(motor, sweep)
    setup = Setup(eiger, motor, Track(motor, images_an_event=1, watches=source is None), source)
    train = None if source is None else PulseTrain(device.name, start, step, images)
    info = TriggerInfo(images, trigger="ints" if source is None else "exts")
    _md = {
        "plan_name": "rotation",
        "plan_args": recorded(
            eiger=eiger,
            motor=device,
            start=start,
            step=step,
            images=images,
            exposure=exposure,
            period=period,
            axis=axis,
            goniometer=angles.standing,
            source=source,
        ),
        "detectors": [eiger.name],
        "motors": [device.name],
        "num_points": images,
        "num_intervals": images - 1,
        "rotation": {"axis": axis, "stop": sweep.stop, **sweep.facts},
        "hints": {"dimensions": [([device.name], "positions")]},
        **(md or {}),
    }

    @bpp.stage_decorator([setup.device, setup.track])
    @bpp.run_decorator(md=_md)
    def turned() -> Plan:
        yield from with_motor_at_rest(once_round(), setup)

    def once_round() -> Plan:
        yield from set_out(setup, sweep, {})
        yield from fly_past(setup, sweep, info, train)

    def with_angles() -> Plan:
        yield from angles.put(start, step)
        return (yield from armed_at_once(turned(), setup, info))

    uid = yield from arms_itself(eiger, put_back(with_angles(), *angles.signals))
    say_where(eiger, uid)
    return uid


def _period(eiger: EigerDetector, exposure: float, period: float | None, outside: bool) -> Plan:
    """Put exposure and frame time; return the time from image to image in s.

    Raises
    ------
    ValueError
        If images cannot follow each other so fast.
    """
    if not outside or period is None:
        return (yield from set_times(eiger, exposure, period))
    # With triggers from outside the detector is to be ready as soon as it can be.
    frame_time = yield from set_times(eiger, exposure, None)
    if frame_time > period:
        raise ValueError(
            f"{eiger.name}: images of {exposure:g} s cannot be triggered every {period:g} s; the "
            f"detector needs {frame_time:g} s"
        )
    return period
