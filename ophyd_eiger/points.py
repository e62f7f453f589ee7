"""What is taken: a staging, its series, their exposures and points. Facts only, no requests."""

import math
import re
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ophyd_eiger.deliveries import Delivery
from ophyd_eiger.documents import Promise
from ophyd_eiger.policy import FilePolicy
from ophyd_eiger.progress import ImageCount
from ophyd_eiger.signals import EigerSignal
from ophyd_eiger.triggering import Scheme
from ophyd_eiger.worker import EigerStatus

PATTERN_ENDING = "_$id"
# Digits alone are rather a date, in a name pattern that somebody gave.
OF_A_STAGING = re.compile(r"_(?!\d{8}_)[0-9a-f]{8}_\$id$")


@dataclass(eq=False)
class Series:
    """One armed series and what became of its triggers.

    Attributes
    ----------
    triggers_seen : int
        External triggers that the detector's state showed.
    saw_all_triggers : bool
        Whether it showed each to begin and to end, and not only that all is over.
    state : str
        The detector's state as it was seen last.
    over : bool
        Whether the detector ended it by itself, so that all its images are taken.
    failed_to_end : bool
        Whether ending it was begun, and not known to have succeeded.
    name_pattern
        The file writer's name pattern as the DCU had it when the series was armed.
    watched_at : float
        When it was certain last that the series is the one that is armed, of `time.monotonic`.
    monitor_is_stale : bool
        Whether the monitor listed images of a series of this id before it was armed, as it does
        after `initialize`, with which the ids begin again.
    """

    series_id: int
    delivery: Delivery
    promise: Promise
    scheme: Scheme
    points: int = 0
    name_pattern: Any = None
    watched_at: float = field(default_factory=time.monotonic)
    triggered: bool = False
    ended: bool = False
    failed: bool = False
    interrupted: bool = False
    triggers_seen: int = 0
    saw_all_triggers: bool = False
    state: str = "ready"
    over: bool = False
    failed_to_end: bool = False
    monitor_is_stale: bool = False

    @property
    def used_up(self) -> bool:
        """Whether every point was taken."""
        return self.points == self.scheme.points

    @property
    def is_to_end(self) -> bool:
        """Whether it is still to be ended, and no point is taken of it before.

        Where a point failed, or ending it did, it may have images that belong to no point.
        """
        return not self.ended and (self.failed or self.failed_to_end or self.used_up)

    def is_armed_for(self, scheme: Scheme) -> bool:
        """Whether it waits for its first trigger, and then takes images as a scheme has them.

        Not where signals from outside trigger it: some may have come since it was armed.
        """
        mine = self.scheme
        is_over = self.ended or self.is_to_end
        is_fresh = not (self.triggered or is_over or mine.mode.is_external)
        alike = (mine.mode, mine.nimages, mine.ntrigger)
        return is_fresh and alike == (scheme.mode, scheme.nimages, scheme.ntrigger)

    @property
    def images_taken(self) -> int:
        """Images of the points taken."""
        return self.points * self.scheme.images


@dataclass(frozen=True)
class Point:
    """The images of one point, from `first` on, counted from 0 in the series."""

    series: Series
    first: int
    time: float
    exposures: tuple[float, ...] = ()


@dataclass
class Staging:
    """What one stage set up and its unstage puts back.

    Attributes
    ----------
    directory, stem
        Where the files go, and what their names start with before the series' id.
    policy
        What becomes of the files.
    flown : Scheme or None
        What `prepare` asked for; None for a step scan, which takes what the detector is set to.
    changed
        The signals that were put, with their values before, in order.
    series_id : int or None
        The id of the series that was armed last for it; None before the first.
    """

    directory: Path
    stem: str
    policy: FilePolicy = field(default_factory=FilePolicy)
    flown: Scheme | None = None
    changed: list[tuple[EigerSignal, Any]] = field(default_factory=list)
    series_id: int | None = None

    def rename(self) -> None:
        """Name its next series otherwise, because the DCU counts their ids from the start again."""
        prefix, _, _ = self.stem.rpartition("_")
        self.stem, self.series_id = new_stem(prefix), None

    @property
    def name_pattern(self) -> str:
        """The file writer's name pattern for it."""
        return f"{self.stem}{PATTERN_ENDING}"


def new_stem(prefix: str) -> str:
    """Return a stem that no staging had before."""
    digits = uuid.uuid4().hex[:8]
    return new_stem(prefix) if digits.isdecimal() else f"{prefix}_{digits}"


def stem_of(name_pattern: object) -> str:
    """Return the stem of a staging of this process or another one, if the pattern is of one."""
    if not isinstance(name_pattern, str) or not OF_A_STAGING.search(name_pattern):
        return ""
    return name_pattern.removesuffix(PATTERN_ENDING)


class Exposure:
    """One call of `trigger` or one fly scan: its Status, and how others tell it to stop.

    Attributes
    ----------
    call : EigerStatus or None
        Of the requests that trigger it; None with external triggers.
    looked_at : float
        When the DCU was asked last whether a trigger's images are taken, by `time.monotonic`.
    """

    def __init__(self, status: EigerStatus) -> None:
        self.status = status
        self.call: EigerStatus | None = None
        self.looked_at = 0.0
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


class Flight(Exposure):
    """One fly scan.

    Attributes
    ----------
    events : int
        Points that it is to record.
    series : Series or None
        What it takes; None before kickoff.
    points : int
        Points that are done so far.
    given : int
        Points of those that documents were made of.
    over : bool
        Whether the series has ended and all its points are known.
    paused : bool
        Whether the plan was paused since it was completed last, or begun.
    finishing : bool
        Whether it is to end in good order with the points that are done.
    count : ImageCount
        How far it is.
    time : float
        When its points were counted last.
    earliest, too_early
        When the trigger may reply at the earliest, on the monotonic clock, if all images are taken;
        and whether it replied before.
    exposed_by : float
        When the images that it is to record are exposed if one command starts them, on the
        monotonic clock.
    """

    def __init__(self, status: EigerStatus, events: int) -> None:
        super().__init__(status)
        self.events = events
        self.series: Series | None = None
        self.points = 0
        self.given = 0
        self.over = False
        self.paused = False
        self.finishing = False
        self.count = ImageCount(0, 0.0)
        self.time = 0.0
        self.exposed_by = math.inf
        self.earliest = 0.0
        self.too_early = False

    def finish(self) -> None:
        """End it in good order, with the points that are done."""
        self.finishing = True
        self.wake.set()
