"""A motor's way past a line of images at constant speed: start, speed, run-up and overrun.

Knows no detector, and sends no messages.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

# How long the motor is at full speed before the first image, so that what it tells shows it; a
# motor record tells ten times a second. In s.
STEADY = 0.3


@dataclass(frozen=True)
class Sweep:
    """A line of images that a motor passes at constant speed.

    Attributes
    ----------
    start : float
        Where the motor is when the first image begins, in its unit.
    step : float
        How far it goes from the start of one image to the start of the next; below 0 backwards.
    images : int
        How many images.
    period : float
        From the start of one image to the start of the next in s.
    ramp : float
        How long the motor takes to its speed, and to stand again, in s.
    """

    start: float
    step: float
    images: int
    period: float
    ramp: float

    @property
    def speed(self) -> float:
        """How fast it goes, in its unit a second."""
        return abs(self.step) / self.period

    @property
    def stop(self) -> float:
        """Where it is when the last image ends."""
        return self.start + self.step * self.images

    @property
    def run_up(self) -> float:
        """What it goes before the first image, and after the last, to be at full speed there."""
        return self.speed * (self.ramp / 2 + STEADY)

    @property
    def begin(self) -> float:
        """Where it sets out."""
        return self.start - math.copysign(self.run_up, self.step)

    @property
    def end(self) -> float:
        """Where it goes to."""
        return self.stop + math.copysign(self.run_up, self.step)

    @property
    def positions(self) -> np.ndarray:
        """Where it is at the start of each image; float64 of shape (images,)."""
        return self.start + self.step * np.arange(self.images, dtype=np.float64)

    @property
    def facts(self) -> dict[str, float]:
        """What a run's metadata says of it."""
        return {
            "start": float(self.start),
            "increment": float(self.step),
            "frame_time": float(self.period),
            "speed": float(self.speed),
            "run_up": float(self.run_up),
        }

    def turned(self) -> "Sweep":
        """Return the way back: the same places, from the last to the first."""
        return Sweep(self.stop, -self.step, self.images, self.period, self.ramp)

    def check(self, motor: Any) -> None:
        """Refuse what the motor cannot do.

        Raises
        ------
        ValueError
            If it is too fast for it, or leads out of its limits.
        """
        slowest, fastest = limits_of(motor.velocity)
        if slowest < fastest and not slowest <= self.speed <= fastest:
            raise ValueError(
                f"{motor.name}: {abs(self.step):g} every {self.period:g} s is a speed of "
                f"{self.speed:g}/s, outside its limits [{slowest:g}, {fastest:g}]; change the "
                "step, or the time from image to image"
            )
        low, high = limits_of(motor)
        ends = sorted((self.begin, self.end))
        if low < high and not (low <= ends[0] and ends[1] <= high):
            raise ValueError(
                f"{motor.name}: images from {self.start:g} to {self.stop:g} take it from "
                f"{self.begin:g} to {self.end:g} with run-up and overrun, outside its limits "
                f"[{low:g}, {high:g}]; begin elsewhere, or go slower"
            )
        for position in ends:
            check_position(motor, position)


def ramp_of(motor: Any) -> float:
    """Return how long a motor takes to its speed, in s.

    Raises
    ------
    TypeError
        If it has no speed that can be set.
    """
    if not all(hasattr(motor, name) for name in ("velocity", "acceleration", "position")):
        raise TypeError(
            f"{motor.name} has not the attributes velocity, acceleration and position of an "
            "ophyd.EpicsMotor, so that it cannot be moved at a speed"
        )
    return float(motor.acceleration.get())


def limits_of(limited: Any) -> tuple[float, float]:
    """Return the limits of a motor or its speed; the same twice where there are none."""
    low, high = getattr(limited, "limits", None) or (0.0, 0.0)
    return (0.0, 0.0) if low is None or high is None else (low, high)


def check_position(motor: Any, position: float) -> None:
    """Refuse a position that a motor does not take, as `check_limits` of bluesky does.

    Raises
    ------
    LimitError
    """
    if hasattr(motor, "check_value"):
        motor.check_value(position)


def check_numbers(**numbers: Any) -> None:
    """Refuse what is no finite number, or a count that is none.

    Parameters
    ----------
    **numbers : float or int
        By the name under which they were given; of `images` and `lines` whole numbers from 1 on,
        of `exposure` and `period` times above 0 in s (a period may be None), of others any.

    Raises
    ------
    ValueError
    """
    for problem in _problems(numbers):
        raise ValueError(problem)


def _problems(numbers: dict[str, Any]) -> Iterator[str]:
    for name, value in numbers.items():
        if name == "period" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
            yield f"{name} is {value!r}; it is a number"
        elif not math.isfinite(value):
            yield f"{name} is {value}; it is finite"
        elif name in ("images", "lines") and (value != int(value) or value < 1):
            yield f"{name} is {value}; it is a whole number, at least 1"
        elif name in ("exposure", "period") and value <= 0:
            yield f"{name} is {value} s; it is above 0"
