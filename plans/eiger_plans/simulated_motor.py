"""A motor in software alone, which moves as a real one does: in time, with speed and ramps.

It has what plans use of an `ophyd.EpicsMotor`, under the same names.
"""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from ophyd import Component, Device, Signal
from ophyd.positioner import PositionerBase
from ophyd.status import MoveStatus
from ophyd.utils import LimitError, ReadOnlyError

# Digits behind the point that its position is shown with.
PRECISION = 4
# How often subscribers are told where it is while it moves, in s.
TOLD_EVERY = 0.02


@dataclass(frozen=True)
class Motion:
    """A motion in pieces of constant acceleration; it stands at its end.

    Attributes
    ----------
    began : float
        When it began, in s of `time.monotonic`.
    position, velocity : float
        What they were then.
    pieces : tuple of (float, float)
        How long each lasts in s, and its acceleration in units/s^2.
    """

    began: float
    position: float
    velocity: float = 0.0
    pieces: tuple[tuple[float, float], ...] = ()

    @property
    def ends(self) -> float:
        """When it stands, in s of `time.monotonic`."""
        return self.began + sum(seconds for seconds, _ in self.pieces)

    def at(self, when: float) -> tuple[float, float]:
        """Return position and velocity at a time of `time.monotonic`."""
        position, velocity, left = self.position, self.velocity, when - self.began
        for seconds, acceleration in self.pieces:
            lasted = min(max(left, 0.0), seconds)
            position += velocity * lasted + acceleration * lasted**2 / 2
            velocity += acceleration * lasted
            left -= seconds
        return position, velocity if left < 0 else 0.0

    def braked(self, when: float, rate: float) -> "Motion":
        """Return the motion that stops from here, with an acceleration of `rate`."""
        position, velocity = self.at(when)
        braking = (abs(velocity) / rate, -math.copysign(rate, velocity))
        return Motion(when, position, velocity, (braking,))

    def turned_to(self, target: float, when: float, speed: float, rate: float) -> "Motion":
        """Return the motion that stops from here, and then goes to `target`."""
        braking = self.braked(when, rate)
        stands_at, _ = braking.at(braking.ends)
        way = target - stands_at
        ramp = min(speed / rate, math.sqrt(abs(way) / rate))
        at_speed = max(abs(way) - rate * ramp**2, 0.0) / speed
        push = math.copysign(rate, way)
        pieces = (*braking.pieces, (ramp, push), (at_speed, 0.0), (ramp, -push))
        return Motion(when, braking.position, braking.velocity, pieces)


class _Readback(Signal):
    """Where the motor is at the moment it is asked."""

    @property
    def _motor(self) -> "SimulatedMotor":
        return cast("SimulatedMotor", self.parent)

    def get(self, **kwargs: Any) -> float:
        self._readback, self._metadata["timestamp"] = self._motor.position, time.time()
        return self._readback

    def put(self, value: Any, **kwargs: Any) -> None:
        raise ReadOnlyError(f"{self.name} is where the motor is; move it: {self._motor.name}.set()")

    def tell(self) -> float:
        """Tell subscribers where it is, and return it."""
        before = self._readback
        value = self.get()
        told = {"old_value": before, "value": value, "timestamp": self.timestamp}
        self._run_subs(sub_type=self.SUB_VALUE, **told)
        return value

    def describe(self) -> dict:
        keys = super().describe()
        low, high = self._motor.limits
        keys[self.name].update(source=f"PY:{self.name}", units=self._motor.egu, precision=PRECISION)
        if low < high:
            keys[self.name].update(lower_ctrl_limit=low, upper_ctrl_limit=high)
        return keys


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except TypeError:
        return False


class _Positive(Signal):
    """A number above 0, with a largest one where `limits` has it."""

    largest = 0.0

    @property
    def limits(self) -> tuple[float, float]:
        return (0.0, self.largest)

    def check_value(self, value: Any) -> None:
        if not (_is_finite(value) and value > 0):
            raise LimitError(f"{self.name}: {value!r} is not above 0")
        if self.largest and value > self.largest:
            raise LimitError(f"{self.name}: {value:g} is above the largest, {self.largest:g}")

    def put(self, value: Any, **kwargs: Any) -> None:
        self.check_value(value)
        super().put(float(value), **kwargs)

    def set(self, value: Any, **kwargs: Any) -> Any:
        self.check_value(value)
        return super().set(float(value), **kwargs)


class _Offset(Signal):
    """0: the motor has no other position, as that of a dial, from which its own would differ."""

    def put(self, value: Any, **kwargs: Any) -> None:
        raise ReadOnlyError(f"{self.name} is 0; a simulated motor has no dial that it could be of")


class SimulatedMotor(Device, PositionerBase):
    """A motor in software alone, for trying plans.

    A move speeds up evenly, goes on at `velocity` and slows down evenly; `stop` slows down at once.

    Parameters
    ----------
    name : str
        Name of the device; keyword only.
    position : float
        Where it is at first, in `egu`.
    velocity : float
        Speed in `egu`/s.
    acceleration : float
        How long it takes to reach that speed, and to stop from it, in s, as `.ACCL` of an EPICS
        motor record.
    limits : (float, float), optional
        Lowest and highest position in `egu`; none if not given.
    largest_velocity : float, optional
        In `egu`/s; none if not given.
    egu : str
        Unit of the position.

    Examples
    --------
    >>> omega = SimulatedMotor(name="omega", velocity=20.0, limits=(-180.0, 180.0))
    >>> omega.set(90.0).wait()
    """

    SUB_READBACK = "readback"
    readback = Component(_Readback, value=0.0, kind="hinted")
    velocity = Component(_Positive, value=1.0, kind="config")
    acceleration = Component(_Positive, value=0.1, kind="config")
    # For bluesky's %wa alone, and so in no document.
    user_offset = Component(_Offset, value=0.0, kind="omitted")

    def __init__(
        self,
        prefix: str = "",
        *,
        name: str,
        position: float = 0.0,
        velocity: float = 1.0,
        acceleration: float = 0.1,
        limits: tuple[float, float] | None = None,
        largest_velocity: float | None = None,
        egu: str = "deg",
        **kwargs: Any,
    ) -> None:
        self._moves = threading.RLock()
        self._motion = Motion(time.monotonic(), float(position))
        self._mover: threading.Thread | None = None
        self._changed = threading.Event()
        self._has_target = False
        self._limits = (0.0, 0.0) if limits is None else limits
        self._egu = egu
        super().__init__(prefix, name=name, **kwargs)
        # As of an EpicsMotor: what it is read as has the motor's own name.
        self.readback.name = self.name
        self.velocity.largest = largest_velocity or 0.0
        self.velocity.put(velocity)
        self.acceleration.put(acceleration)

    @property
    def egu(self) -> str:
        """Unit of the position."""
        return self._egu

    @property
    def precision(self) -> int:
        """Digits behind the point that the position is shown with."""
        return PRECISION

    @property
    def limits(self) -> tuple[float, float]:
        """Lowest and highest position; the same twice where there are none."""
        return self._limits

    @property
    def position(self) -> float:
        """Where it is now, in `egu`."""
        return self._motion.at(time.monotonic())[0]

    @property
    def moving(self) -> bool:
        """Whether it moves."""
        return self._mover is not None

    def check_value(self, value: Any, **kwargs: Any) -> None:
        """Refuse a position outside the limits.

        Raises
        ------
        LimitError
        """
        low, high = self.limits
        if not _is_finite(value):
            raise LimitError(f"{self.name}: {value!r} is no position")
        if low < high and not low <= value <= high:
            raise LimitError(
                f"{self.name}: {value:g} {self.egu} is outside its limits [{low:g}, {high:g}]"
            )

    def move(
        self,
        position: float,
        wait: bool = False,
        moved_cb: Callable | None = None,
        timeout: float | None = None,
    ) -> MoveStatus:
        """Go somewhere; a move that is under way ends, unfinished.

        Parameters
        ----------
        position : float
            Where to, in `egu`.
        wait : bool
            Whether to return when it is there.
        moved_cb : callable, optional
            Called when it is there.
        timeout : float, optional
            After how many s it is given up to wait for it.

        Returns
        -------
        MoveStatus

        Raises
        ------
        LimitError
            If that is outside the limits.
        """
        with self._moves:
            self.check_value(position)
            # Of a number of numpy, as plans give them, ophyd divides by 0 where nothing moves.
            target = float(position)
            status = PositionerBase.move(self, target, moved_cb=moved_cb, timeout=timeout)
            speed, rate = self._speed_and_rate()
            now = time.monotonic()
            self._take_up(self._motion.turned_to(target, now, speed, rate))
        if wait:
            status.wait()
        return status

    def stop(self, *, success: bool = False) -> None:
        """Slow down and stand; the move is over at once, as that of an EpicsMotor is.

        Parameters
        ----------
        success : bool
            Whether that is no failure of the move.
        """
        with self._moves:
            if self.moving:
                _, rate = self._speed_and_rate()
                self._take_up(self._motion.braked(time.monotonic(), rate))
                self._has_target = False
                self._done_moving(success=success)

    def _speed_and_rate(self) -> tuple[float, float]:
        """Return speed in units/s, and acceleration in units/s^2."""
        speed: Any = self.velocity.get()
        seconds: Any = self.acceleration.get()
        return float(speed), float(speed) / float(seconds)

    def _take_up(self, motion: Motion) -> None:
        self._motion, self._has_target = motion, True
        self._changed.set()
        if self._mover is None:
            self._run_subs(sub_type=self.SUB_START, timestamp=time.time())
            self._mover = threading.Thread(
                target=self._follow, name=f"{self.name} moves", daemon=True
            )
            self._mover.start()

    def _follow(self) -> None:
        """Tell where it is until it stands."""
        while self.moving:
            self._changed.wait(min(max(self._motion.ends - time.monotonic(), 0.0), TOLD_EVERY))
            with self._moves:
                self._changed.clear()
                stands = time.monotonic() >= self._motion.ends
                value = self.readback.tell()
                self._set_position(value, timestamp=self.readback.timestamp)
                if stands:
                    self._mover = None
                    if self._has_target:
                        self._done_moving()
