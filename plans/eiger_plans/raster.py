"""A grid of images, line by line, while one motor moves without a pause."""

from collections.abc import Generator, Iterator
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky.protocols import Movable

from eiger_plans.arguments import checked, recorded
from eiger_plans.flying import (
    STREAM,
    Setup,
    armed_at_once,
    at_its_speed,
    fly_past,
    see_through,
    set_out,
    sweep_past,
    with_motor_at_rest,
)
from eiger_plans.goniometer import Goniometer
from eiger_plans.series import say_where
from eiger_plans.steps import (
    Plan,
    arms_itself,
    check_known,
    check_period,
    one_trigger_a_point,
    put_back,
    set_times,
)
from eiger_plans.sweeps import Sweep, check_numbers, check_position, ramp_of
from eiger_plans.tracks import Track
from eiger_plans.triggering import PulseTrain, TriggerSource
from ophyd_eiger import EigerDetector, TriggerInfo


@checked
def raster(
    eiger: EigerDetector,
    slow: Movable,
    slow_start: float,
    slow_step: float,
    lines: int,
    fast: Movable,
    fast_start: float,
    fast_step: float,
    images: int,
    exposure: float,
    *,
    period: float | None = None,
    snake: bool = True,
    one_series: bool = False,
    axis: str | None = None,
    goniometer: dict[str, float | Movable] | None = None,
    source: TriggerSource | None = None,
    md: dict[str, Any] | None = None,
) -> Generator[Any, Any, str]:
    """Take a grid of images, each line while `fast` moves at constant speed; say where they are.

    `fast` sets out before each line, so that it is at full speed there, and stops as far behind
    it. A line is triggered once, when the motor tells that it passes its start, within some ms;
    or, with `source`, from outside.

    Each event is a line, with its images in the order in which they were taken. The stream
    `positions` has an event for each image: where `fast` was at its start, as it should be and as
    it told, and where `slow` stood. The files have angles only, if `axis` and `goniometer` name
    them, because the DCU knows no other positions; it has its own back afterwards, and the motor
    its speed. Exposure and frame time stay set. A plan that is aborted keeps the lines that
    were finished.

    Parameters
    ----------
    eiger : EigerDetector
        The detector; initialized.
    slow : ophyd positioner
        Stands while a line is taken.
    slow_start, slow_step : float
        Where it stands at the first line, and how far it goes to the next, in its unit.
    lines : int
        Number of lines.
    fast : ophyd positioner
        Moves; with `velocity` and `acceleration` (s) as an `ophyd.EpicsMotor` has them.
    fast_start, fast_step : float
        Where the first image of the first line begins, and how far it goes from the start of one
        image to the start of the next, in its unit.
    images : int
        Number of images a line.
    exposure : float
        Exposure time of an image in s.
    period : float, optional
        Time from the start of one image to the start of the next in s; the shortest possible if
        not given.
    snake : bool
        Whether every second line is taken backwards.
    one_series : bool
        Whether all lines are one series, for which the detector is armed once; each is one else,
        with a master file of its own.
    axis : {"omega", "phi", "chi", "kappa", "two_theta"}, optional
        What `fast` is to the DCU, if it turns the sample; not with `one_series`, because a master
        file has one start and one step.
    goniometer : dict, optional
        Where the other axes stand, in degree, by their names: a number, or a motor that is asked.
    source : TriggerSource, optional
        What triggers each line (`exts`) by where `fast` is.
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
        If one motor is given twice, would be too fast or leave its limits with run-up and overrun,
        or the detector cannot take images so fast. No run is opened then, and nothing moves.
    TypeError
        If `fast` has no speed that can be set.

    Examples
    --------
    >>> RE(raster(eiger, y, 0, 0.01, 20, x, 0, 0.01, 30, exposure=0.005))
    """
    # bluesky's protocol is narrower than what is needed here, and checked.
    stands: Any = slow
    moves: Any = fast
    check_numbers(slow_start=slow_start, slow_step=slow_step, lines=lines, fast_start=fast_start)
    check_period(exposure, period)
    check_numbers(fast_step=fast_step, images=images, exposure=exposure, period=period)
    if stands is moves or stands.name == moves.name:
        raise ValueError(f"slow and fast are both {moves.name}; a grid takes two motors")
    if fast_step == 0:
        raise ValueError("fast_step is 0, so that nothing would move")
    if one_series and axis is not None:
        raise ValueError(
            f"one_series and axis={axis!r}: a master file has one start and one step, so that it "
            "cannot have the angles of several lines; leave one of the two"
        )
    angles = Goniometer(eiger, axis, goniometer)
    places = [slow_start + slow_step * line for line in range(lines)]
    for position in (places[0], places[-1]):
        check_position(slow, position)
    ramp = ramp_of(fast)
    _check(Sweep(fast_start, fast_step, images, period or exposure, ramp), fast, snake)
    check_known(eiger.detector.count_time, exposure)
    frame_time = yield from set_times(eiger, exposure, period)
    first = Sweep(fast_start, fast_step, images, frame_time, ramp)
    _check(first, fast, snake)
    first = yield from at_its_speed(fast, first)
    _check(first, fast, snake)
    units = {stands.name: str(getattr(stands, "egu", ""))}
    track = Track(fast, images_an_event=images, watches=source is None, others=units)
    grid = _Grid(Setup(eiger, fast, track, source), slow, places, first, snake, angles)
    _md = {
        "plan_name": "raster",
        "plan_args": recorded(
            eiger=eiger,
            slow=stands,
            slow_start=slow_start,
            slow_step=slow_step,
            lines=lines,
            fast=moves,
            fast_start=fast_start,
            fast_step=fast_step,
            images=images,
            exposure=exposure,
            period=period,
            snake=snake,
            one_series=one_series,
            axis=axis,
            goniometer=angles.standing,
            source=source,
        ),
        "detectors": [eiger.name],
        "motors": [stands.name, moves.name],
        "num_points": lines,
        "num_intervals": lines - 1,
        "shape": (lines, images),
        "extents": ([places[0], places[-1]], [fast_start, first.stop]),
        "snaking": (False, snake),
        "raster": first.facts,
        "hints": {"dimensions": [([stands.name], "positions")]},
        **(md or {}),
    }
    taken = grid.as_one_series(_md) if one_series else grid.as_series_a_line(_md)
    uid = yield from arms_itself(eiger, taken)
    say_where(eiger, uid)
    return uid


def _check(sweep: Sweep, motor: Any, snake: bool) -> None:
    sweep.check(motor)
    if snake:
        sweep.turned().check(motor)


class _Grid:
    """The lines of a raster, and the two ways of taking them."""

    def __init__(
        self,
        setup: Setup,
        slow: Any,
        stands: list[float],
        first: Sweep,
        snake: bool,
        angles: Goniometer,
    ) -> None:
        self._setup = setup
        self._slow = slow
        self._stands = stands
        self._first = first
        self._snake = snake
        self._angles = angles
        self._external = setup.source is not None

    def as_series_a_line(self, md: dict[str, Any]) -> Plan:
        """Take each line as a fly scan of one point, with the angles of its own."""
        mode = "exts" if self._external else "ints"
        info = TriggerInfo(1, self._first.images, trigger=mode)

        def all_lines() -> Plan:
            for sweep, stands in self._lines():
                yield from set_out(self._setup, sweep, self._at(stands), self._slow, stands)
                yield from self._angles.put(sweep.start, sweep.step)
                yield from fly_past(self._setup, sweep, info, self._train(sweep))

        def set_up() -> Plan:
            # Those of the first line, for which the detector is armed when it is staged.
            yield from self._angles.put(self._first.start, self._first.step)
            return (yield from armed_at_once(self._run(all_lines, md), self._setup, info))

        return (yield from put_back(set_up(), *self._angles.signals))

    def as_one_series(self, md: dict[str, Any]) -> Plan:
        """Take each line as a point of a step scan, armed once for all."""
        detector: Any = self._setup.eiger.detector
        settings = [detector.trigger_mode, detector.nimages, detector.ntrigger]
        values = ["exts" if self._external else "ints", self._first.images, len(self._stands)]
        if self._external:
            # A file that is published tells that a line is taken.
            settings.append(self._setup.eiger.filewriter.nimages_per_file)
            values.append(self._first.images)

        def all_lines() -> Plan:
            for sweep, stands in self._lines():
                yield from set_out(self._setup, sweep, self._at(stands), self._slow, stands)
                yield from self._step_past(sweep)

        def set_up() -> Plan:
            yield from self._angles.put()
            for signal, value in zip(settings, values, strict=True):
                yield from bps.mv(signal, value)
            return (yield from self._run(all_lines, md))

        kept = put_back(set_up(), *settings, *self._angles.signals)
        return (yield from one_trigger_a_point(self._setup.eiger, kept))

    def _run(self, all_lines: Any, md: dict[str, Any]) -> Plan:
        setup = self._setup

        @bpp.stage_decorator([setup.device, setup.track])
        @bpp.run_decorator(md=md)
        def run() -> Plan:
            yield from with_motor_at_rest(all_lines(), setup)

        return (yield from run())

    def _step_past(self, sweep: Sweep) -> Plan:
        """Take a line of images as one point, and record it."""
        setup = self._setup

        def begin() -> Plan:
            yield from bps.trigger(setup.device, group="images")

        yield from setup.declare(setup.track, setup.track.name)
        yield from sweep_past(setup, sweep, self._train(sweep), begin)
        yield from see_through(setup, sweep)
        yield from bps.create(name=STREAM)
        yield from bps.read(setup.device)
        yield from bps.save()
        yield from bps.collect(setup.track, name=setup.track.name, return_payload=False)

    def _lines(self) -> Iterator[tuple[Sweep, float]]:
        """Give each line's sweep, and where the slow motor stands."""
        for line, stands in enumerate(self._stands):
            backwards = self._snake and line % 2
            yield (self._first.turned() if backwards else self._first), stands

    def _at(self, stands: float) -> dict[str, float]:
        return {self._slow.name: stands}

    def _train(self, sweep: Sweep) -> PulseTrain | None:
        """Return what triggers a line: one pulse, at its start."""
        if not self._external:
            return None
        return PulseTrain(self._setup.motor.name, sweep.start, sweep.step * sweep.images, 1)
