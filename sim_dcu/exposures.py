"""When exposures are over, and how many images of a series are exposed by now.

That follows from the clock alone, whoever asks: a count never waits for a thread, and is never
ahead of its time. Knows neither threads nor files; its users hold the DCU's lock.
"""

import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field

from sim_dcu.clock import Clock


@dataclass(frozen=True)
class Train:
    """The exposures of one trigger.

    Attributes
    ----------
    images : int
        How many.
    exposure : float
        Of each, in s.
    period : float
        From the start of one to the start of the next, in s.
    delay : float
        From the trigger to the start of the first, in s.
    done : Future
        Resolved with None when the last is exposed or the series was ended; its exception is that
        of a failed delivery.
    """

    images: int
    exposure: float
    period: float
    delay: float = 0.0
    done: "Future[None]" = field(default_factory=Future)

    def __post_init__(self) -> None:
        # A running future cannot be cancelled, so whoever waits cannot take the result away.
        self.done.set_running_or_notify_cancel()

    def end(self, index: int) -> float:
        """Return when exposure `index` (from 0) is over, in s after the trigger.

        Each has its own distance from the trigger, so that lateness never adds up.
        """
        return self.delay + index * self.period + self.exposure

    def exposed(self, seconds: float) -> int:
        """Return how many exposures are over `seconds` after the trigger."""
        if seconds < self.end(0):
            return 0
        if seconds >= self.end(self.images - 1):
            return self.images
        found = 1 + int((seconds - self.end(0)) / self.period)
        # A quotient may be off by its last digit.
        while self.end(found - 1) > seconds:
            found -= 1
        while self.end(found) <= seconds:
            found += 1
        return found


class Exposures:
    """The images of one series, counted when they are due.

    Parameters
    ----------
    clock : Clock
        Tells when.
    keeps_due : bool
        Whether somebody delivers the images and wants to know when each was due.

    Attributes
    ----------
    last : int
        How many images the series has after the last one of the train that runs.
    due : deque of float
        When those that are counted were due, by the clock, in order; whoever delivers an image
        takes its entry away. Empty where nobody does, or the clock does not wait.
    """

    def __init__(self, clock: Clock, *, keeps_due: bool = True):
        self.last = 0
        self.due: deque[float] = deque()
        self._keeps_due = keeps_due and bool(clock.scale)
        self._clock = clock
        self._counted = 0
        self._train: Train | None = None
        # When the train began, and how many images there were then.
        self._began = 0.0
        self._first = 0
        # Up to how many images count as soon as they are due.
        self._free = 0

    @property
    def count(self) -> int:
        """How many images are exposed by now."""
        if self._train is not None and self._counted < self._free:
            over = self._train.images
            if self._clock.scale:
                over = self._train.exposed((self._clock.now() - self._began) / self._clock.scale)
            counted = min(self._first + over, self._free)
            if self._keeps_due:
                for before in range(self._counted, counted):
                    self.due.append(self._due(self._train, before))
            self._counted = max(self._counted, counted)
        return self._counted

    def begin(self, train: Train) -> None:
        """Begin a train now; none of its images counts until `let_pass`."""
        self._first = self._free = self.count
        self.last = self._first + train.images
        self._train = train
        self._began = self._clock.now()

    def end(self) -> None:
        """Forget the train."""
        self._train = None

    def let_pass(self, images: int | None = None) -> None:
        """Let so many further images of the train count when they are due, or all of them."""
        count = self.count
        self._free = self.last if images is None else min(self.last, count + images)

    def cut(self, images: int) -> None:
        """Let the train end after so many further images."""
        self.last = min(self.last, self.count + images)
        self._free = min(self._free, self.last)

    def take_back(self, count: int) -> None:
        """Let only `count` images have been exposed, and no further one."""
        self._counted = self.last = self._free = count

    def put_off(self, seconds: float) -> None:
        """Let the rest of the train come so many s by the clock later."""
        self._began += seconds

    def until(self, before: int) -> float | None:
        """Return for how many s to wait for the image after `before` others, None for no end."""
        if self._train is None or before >= self._free:
            return None
        # A wait longer than the platform's longest is made of several.
        remaining = self._due(self._train, before) - self._clock.now()
        return min(max(0.0, remaining), threading.TIMEOUT_MAX)

    def _due(self, train: Train, before: int) -> float:
        return self._began + train.end(before - self._first) * self._clock.scale
