"""How far a piece of work is, and how that is known. Pure: no requests, no threads.

The SIMPLON API has no counter of images. What is counted is counted where the wire shows it: by
the reply of a blocking trigger, by files that are published, by the monitor's image numbers, by
the detector's state. In between only time can say how far it should be; that is marked as an
estimate.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

# What an estimate may reach at most before something is known for sure.
_NEVER_DONE = 0.99
# Of fewer images an estimate tells tenths.
FEW = 10
# What is left at least of a request that is not over: so many s, and this part of what it was to
# take.
_REST_S, _REST_PART = 1.0, 0.1


@dataclass(frozen=True)
class Progress:
    """How far a piece of work is.

    Attributes
    ----------
    current, target : float
        In `unit`.
    unit : str
        As in "images" or "s".
    evidence : str
        What tells it: "trigger reply", "files", "monitor", "state" or "time".
    """

    current: float
    target: float
    unit: str
    evidence: str

    @property
    def is_estimate(self) -> bool:
        """Whether nothing but time tells it."""
        return self.evidence == "time"

    @property
    def remaining(self) -> float:
        """The fraction that is to come, as bluesky's progress bars want it."""
        return 1 - min(self.current / self.target, 1.0) if self.target else 0.0

    def __str__(self) -> str:
        by = "an estimate from time" if self.is_estimate else f"by {self.evidence}"
        return f"{self.current:g} of {self.target:g} {self.unit}, {by}"


class ImageCount:
    """Counts the images of an exposure as far as evidence goes, and estimates the rest.

    Parameters
    ----------
    images : int
        How many are to come.
    seconds : float
        How long they take together; 0 where nobody knows, as with external triggers.
    clock : callable
        Gives the time in s.
    """

    def __init__(
        self, images: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.images = images
        self.seconds = seconds
        self.counted = 0
        self.evidence = "time"
        self._clock = clock
        self._began: float | None = None

    def begin(self) -> None:
        """Note that the exposure begins now."""
        self._began = self._clock()

    def count(self, images: int, evidence: str) -> None:
        """Note that so many images are there, and what shows it."""
        if images > self.counted:
            self.counted = min(images, self.images)
            self.evidence = evidence

    def __call__(self) -> Progress:
        """Return how far it is now."""
        passed = 0.0
        if self._began is not None and self.seconds > 0:
            passed = min((self._clock() - self._began) / self.seconds, _NEVER_DONE)
            if self.images == 1 and not self.counted:
                # A tenth of it may be minutes.
                return Progress(_tenths(passed * self.seconds), self.seconds, "s", "time")
        # A bar of few images moves within each.
        steps = self.images if self.images >= FEW else 10 * self.images
        estimate = int(passed * steps) * self.images / steps if steps else 0.0
        if self.counted >= estimate and self.counted:
            return Progress(self.counted, self.images, "images", self.evidence)
        return Progress(estimate, self.images, "images", "time")


class Countdown:
    """Estimates by time how far a request is that says nothing until its end.

    What takes longer than was expected is expected to take longer still, so that whoever watches
    sees it move and never sees it done.

    Parameters
    ----------
    seconds : float
        How long it is expected to take.
    clock : callable
        Gives the time in s.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._began = clock()

    def __call__(self) -> Progress:
        """Return how far it should be now."""
        passed = self._clock() - self._began
        target = max(self.seconds, passed + max(_REST_S, _REST_PART * self.seconds))
        return Progress(_tenths(passed), round(target, 1), "s", "time")


def _tenths(seconds: float) -> float:
    return math.floor(10 * seconds) / 10
