"""What is taken: a staging, its series, their exposures and points. Facts only, no requests."""

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ophyd_eiger.deliveries import Delivery
from ophyd_eiger.documents import Promise
from ophyd_eiger.signals import EigerSignal
from ophyd_eiger.worker import EigerStatus


@dataclass
class Series:
    """One armed series and what became of its triggers."""

    series_id: int
    delivery: Delivery
    promise: Promise
    ntrigger: int
    points: int = 0
    triggered: bool = False
    ended: bool = False
    failed: bool = False
    interrupted: bool = False

    @property
    def nimages(self) -> int:
        """Images a trigger."""
        return self.promise.images

    @property
    def used_up(self) -> bool:
        """Whether every trigger was sent."""
        return self.points == self.ntrigger


@dataclass(frozen=True)
class Point:
    """The images of one trigger, from `first` on, counted from 0 in the series."""

    series: Series
    first: int
    time: float


@dataclass
class Staging:
    """What one stage set up and its unstage puts back."""

    directory: Path
    stem: str
    changed: list[tuple[EigerSignal, Any]] = field(default_factory=list)


class Exposure:
    """One call of `trigger`: its Status, and how others tell it to stop."""

    def __init__(self, status: EigerStatus) -> None:
        self.status = status
        self.wake = threading.Event()
        self.interrupted = False
        self.stopped = False
        self.by = ""

    def interrupt(self, *, stopped: bool = False, by: str = "") -> None:
        """End the exposure.

        Parameters
        ----------
        stopped : bool
            Whether its point is lost by that, so that its Status fails.
        by : str
            The command that somebody sends to end it, if so.
        """
        self.stopped = self.stopped or stopped
        self.by = self.by or by
        self.interrupted = True
        self.wake.set()
