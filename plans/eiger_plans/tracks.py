"""Watches the motor of a sweep: tells when it passes the first image, and where it was at each."""

import logging
import math
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from ophyd.status import Status

from eiger_plans.sweeps import Sweep

logger = logging.getLogger(__name__)

# How much longer than computed the motor may take to its first image, in s.
PATIENCE = 10.0
# What a motor told comes later than at best by so much at most, in s, or its clock was set.
LONGEST_LATE = 0.5
# From here on, in s, it is told that a motor's clock is not this computer's.
SAME_CLOCK = 0.01


class Track:
    """What is known of the way of a sweep's motor, as something that bluesky stages and collects.

    `trigger` is done when the motor, at full speed, passes the start of the first image. That
    moment is computed from what the motor told last, because a motor tells ten times a second and
    an image may be shorter than that.

    Parameters
    ----------
    motor : ophyd positioner
        The motor.
    images_an_event : int
        How many images an event of the detector has: all of a raster's line, or one.
    watches : bool
        Whether it tells when to expose, and so knows when each image was; without, something else
        triggers the detector.
    others : mapping
        Unit by name of what else each event says, such as where another motor stands.

    Attributes
    ----------
    points : int or None
        How many of the detector's events are recorded; None for all.
    """

    parent = None
    # Nothing to plot: BestEffortCallback would take arrays for curves.
    hints: ClassVar[dict[str, Any]] = {"fields": []}

    def __init__(
        self,
        motor: Any,
        *,
        images_an_event: int,
        watches: bool,
        others: Mapping[str, str] | None = None,
    ) -> None:
        self.name = "positions"
        self.points: int | None = None
        self._motor = motor
        self.images_an_event = images_an_event
        self._watches = watches
        self._others = dict(others or {})
        self._sweep: Sweep | None = None
        self._at: Mapping[str, float] = {}
        self._news = threading.Condition()
        # When it was told here, by `time.monotonic`; how much later by the motor's clock; where.
        self._samples: list[tuple[float, float, float]] = []
        self._offset = math.inf
        self._passing: Status | None = None
        self._due = math.inf
        self._began: float | None = None
        self._token: Any = None

    # ---- bluesky's verbs ----

    def stage(self) -> list[Any]:
        """Begin to listen to the motor."""
        if self._token is None:
            self._token = self._motor.subscribe(self._note, run=False)
        return [self]

    def unstage(self) -> list[Any]:
        """Listen no longer; whoever still waits for the motor need not any more."""
        if self._token is not None:
            self._motor.unsubscribe(self._token)
            self._token = None
        self._leave_off()
        return [self]

    def prepare(self, value: Sweep, at: Mapping[str, float] | None = None) -> Status:
        """Forget the sweep before, and take up a new one.

        Parameters
        ----------
        value : Sweep
            What the motor is about to do.
        at : mapping, optional
            What each event says of the others.
        """
        self._leave_off()
        with self._news:
            self._sweep, self._at = value, dict(at or {})
            self._samples, self._offset = [], math.inf
            self._began = self.points = None
        return _done()

    def trigger(self) -> Status:
        """Return a Status that is done when the motor passes the start of the first image.

        It fails with a TimeoutError if the motor does not.
        """
        sweep = self._required()
        self._leave_off()
        status = Status()
        with self._news:
            self._passing, self._due = status, math.inf
            self._aim()
        waiting = threading.Thread(
            target=self._wait, args=(status, sweep), name=f"{self.name} of a sweep", daemon=True
        )
        waiting.start()
        return status

    def describe_collect(self) -> dict[str, Any]:
        """Return the data keys: where the motor is to be, and was, at the start of each image."""
        units = str(getattr(self._motor, "egu", ""))
        keys = {}
        for name, source in self._columns():
            keys[name] = {"source": source, "dtype": "number", "shape": [], "units": units}
        for name, unit in self._others.items():
            key = {"source": f"PY:{name}", "dtype": "number", "shape": [], "units": unit}
            keys[name] = key
        for key in keys.values():
            key["dtype_numpy"] = "<f8"
        return keys

    def collect_pages(self) -> Iterator[dict[str, Any]]:
        """Give the positions of the sweep: an event for each image."""
        sweep = self._required()
        asked, found = sweep.positions, self.readbacks()
        times = self._times(sweep)
        self._warn(sweep, found)
        columns: dict[str, Any] = {self._motor.name: asked}
        if self._watches:
            columns[f"{self._motor.name}_readback"] = found
        events = sweep.images
        if self.points is not None:
            events = min(self.points * self.images_an_event, events)
        if events == 0:
            return
        data: dict[str, list] = {}
        for name, values in columns.items():
            data[name] = values[:events].tolist()
        for name in self._others:
            data[name] = [float(self._at[name])] * events
        stamps = times[:events].tolist()
        yield {"time": stamps, "data": data, "timestamps": dict.fromkeys(data, stamps)}

    # ---- what it knows ----

    def note_exposing(self) -> None:
        """Note that the first image began just now: the detector was triggered."""
        if self._watches and self._began is not None:
            self._began = time.monotonic()

    def readbacks(self) -> np.ndarray:
        """Return where the motor was at the start of each image; NaN where nobody knows.

        Between two positions that it told it is taken to have moved evenly, and after the last one
        to stand: one that moves tells so.
        """
        sweep = self._required()
        with self._news:
            samples = [(self._when(sample), sample[2]) for sample in self._samples]
            began = self._began
        if began is None or not samples:
            return np.full(sweep.images, math.nan)
        when = began + sweep.period * np.arange(sweep.images)
        times, places = np.array(samples).T
        return np.interp(when, times, places, left=math.nan)

    def on_the_way(self, stands: float) -> int:
        """Return how many of the images were over before the motor began to stop.

        Parameters
        ----------
        stands : float
            Where it stands now.
        """
        sweep = self._required()
        if not self._watches or self._began is None:
            return sweep.images
        direction = math.copysign(1.0, sweep.step)
        gone = (self.readbacks() - sweep.begin) * direction
        # What it goes while it stops, and half an image for what it tells too late.
        braking = sweep.speed * sweep.ramp / 2
        reach = (stands - sweep.begin) * direction - braking + abs(sweep.step) / 2
        too_far = ~(gone + abs(sweep.step) <= reach)
        return int(np.argmax(too_far)) if too_far.any() else sweep.images

    # ---- inside ----

    def _columns(self) -> Iterator[tuple[str, str]]:
        yield self._motor.name, f"PY:{self.name}"
        if self._watches:
            yield f"{self._motor.name}_readback", f"PY:{self._motor.name}"

    def _required(self) -> Sweep:
        if self._sweep is None:
            raise RuntimeError(f"{self.name}: no sweep was prepared; prepare comes first")
        return self._sweep

    def _times(self, sweep: Sweep) -> np.ndarray:
        """Return when each image began, in s since 1970; now, where nobody knows."""
        now, monotonic = time.time(), time.monotonic()
        if self._began is None:
            return np.full(sweep.images, now)
        return now - monotonic + self._began + sweep.period * np.arange(sweep.images)

    def _warn(self, sweep: Sweep, found: np.ndarray) -> None:
        if self._samples and abs(self._offset) > SAME_CLOCK:
            logger.warning(
                "%s tells times that are %.3f s %s this computer's; taken for another clock, so "
                "that positions are right unless the network is that slow; set the clocks by NTP",
                self._motor.name,
                abs(self._offset),
                "behind" if self._offset > 0 else "ahead of",
            )
        if self._watches and (words := _away(sweep, found)):
            line = ", ".join(f"{name} at {place:g}" for name, place in self._at.items())
            logger.warning(
                "%s was not where the images are said to be%s: %s. The stream positions has where "
                "it was; source= takes hardware that triggers by position, which is exact",
                self._motor.name,
                f" (the line with {line})" if line else "",
                words,
            )

    def _note(self, value: Any = None, timestamp: float | None = None, **_: Any) -> None:
        """Take up what the motor told; the thread that tells it here may be late."""
        now = time.monotonic()
        later = 0.0 if timestamp is None else time.time() - timestamp
        with self._news:
            self._samples.append((now, later, float(value)))
            self._offset = min(self._offset, later)
            self._aim()

    def _when(self, sample: tuple[float, float, float]) -> float:
        """Return when the motor was there: its own clock may be another than this computer's.

        What came soonest is taken to have come at once, and the rest of it for the clocks.
        """
        told, later, _ = sample
        late = later - self._offset
        return told - late if late < LONGEST_LATE else told

    def _aim(self) -> None:
        """Compute when the motor passes the start of the first image, if it is at full speed."""
        if self._passing is None or self._sweep is None or not self._samples:
            return
        sweep, position = self._sweep, self._samples[-1][2]
        gone = (position - sweep.begin) * math.copysign(1.0, sweep.step)
        if gone >= sweep.speed * sweep.ramp / 2:
            self._due = self._when(self._samples[-1]) + (sweep.run_up - gone) / sweep.speed
            self._news.notify_all()

    def _wait(self, status: Status, sweep: Sweep) -> None:
        given_up = time.monotonic() + sweep.ramp + sweep.run_up / sweep.speed + PATIENCE
        with self._news:
            while self._passing is status:
                now = time.monotonic()
                if now >= self._due:
                    self._began, self._passing = now, None
                    status.set_finished()
                elif now >= given_up:
                    self._passing = None
                    status.set_exception(self._too_late(sweep))
                else:
                    self._news.wait(min(self._due, given_up) - now)

    def _too_late(self, sweep: Sweep) -> TimeoutError:
        last = f"at {self._samples[-1][2]:g} last" if self._samples else "never seen to move"
        return TimeoutError(
            f"{self._motor.name} did not come to {sweep.start:g}, where the first image begins, "
            f"from {sweep.begin:g} at {sweep.speed:g}/s; it was {last}"
        )

    def _leave_off(self) -> None:
        with self._news:
            status, self._passing = self._passing, None
            self._news.notify_all()
        if status is not None:
            status.set_finished()


def _away(sweep: Sweep, found: np.ndarray) -> str:
    """Return in words how far images are from where they should be; nothing up to half an image.

    Parameters
    ----------
    sweep : Sweep
        Where they should be.
    found : numpy.ndarray of float64, shape (images,)
        Where the motor was at the start of each; NaN where nobody knows.
    """
    # Of images; where the motor is ahead, an image began late.
    late = (found - sweep.positions) / sweep.step
    if np.isnan(late).all():
        return "it told no position while they were taken"
    if not np.any(np.abs(late) > 0.5):
        return ""
    worst = int(np.nanargmax(np.abs(late)))
    least, most = float(np.nanmin(late)), float(np.nanmax(late))
    if most - least > 0.5:
        others = f"the images are between {_when(least, sweep)} and {_when(most, sweep)}"
    else:
        others = f"all images are about as {'late' if late[worst] > 0 else 'early'}"
    return (
        f"image {worst + 1} began {_when(late[worst], sweep)} ({_short(abs(late[worst]))} images), "
        f"at {found[worst]:g} instead of {sweep.positions[worst]:g}; {others}"
    )


def _when(late: float, sweep: Sweep) -> str:
    """Return so many images' time in words."""
    return f"{_short(1000 * abs(late) * sweep.period)} ms {'late' if late > 0 else 'early'}"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _done() -> Status:
    status = Status()
    status.set_finished()
    return status
