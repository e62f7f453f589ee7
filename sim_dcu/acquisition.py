"""One armed series: exposes its images in time and has them delivered in order.

Two threads. One keeps time and only counts images, so that slow files never delay an exposure; the
other makes the counted images and hands them to the sinks (the file writer). Knows nothing of
states' names on the wire, parameters or HTTP.
"""

import enum
import errno
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from sim_dcu.clock import Clock
from sim_dcu.series import ArmedSeries

log = logging.getLogger(__name__)

# In s: so long after the last exposure those who wait for a series' end are kept for its files. A
# DCU replies while it still finishes one (LIMA waits 2 s more before it clears them).
LONGEST_CLOSING = 3.0
# In s: images that come later than that after their exposure are told of.
LATE = 2.0


class Source(Protocol):
    """Where the images of a series come from."""

    def chunk(self, number: int) -> bytes:
        """Return image `number` (from 1) as an HDF5 chunk."""
        ...


class Sink(Protocol):
    """Where the images of a series go."""

    def add(self, number: int, chunk: bytes) -> None:
        """Take image `number`; they come in order from 1. Empty where nobody makes chunks."""
        ...

    def close(self) -> None:
        """Publish what is left; no image follows."""
        ...


class Taker(Protocol):
    """Who wants to know of a series' images beside the file writer."""

    def open_series(self, series: ArmedSeries) -> Sink | None:
        """Return the sink of a series, or None where it wants none."""
        ...


class Disturbance(Protocol):
    """What may happen to a series between two images."""

    @property
    def expected(self) -> bool:
        """Whether anything may happen at all."""
        ...

    def failure(self, exposed: int) -> str:
        """Return why the series fails now, or nothing."""
        ...

    def stalls(self, exposed: int, delivered: int) -> bool:
        """Return whether no further image comes for now.

        `Acquisition.wake` has it asked again, and so has each image that the sinks have.
        """
        ...


class Phase(enum.Enum):
    """What the exposing side of a series does."""

    WAITING = "waits for a trigger"
    EXPOSING = "exposes"
    ENDED = "takes no trigger any more"
    FAILED = "ended because its images could not be delivered"


class Ending(enum.Enum):
    """How a series is ended before its last image."""

    AFTER_TRIGGER = "the images of the running trigger are finished"
    AFTER_IMAGE = "the running image is finished"
    AT_ONCE = "the running image is dropped"
    DROP_ALL = "the running image and those not yet delivered are dropped"

    @property
    def strictness(self) -> int:
        """How much it drops, in order."""
        return list(Ending).index(self)


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


def _log_failure(error: Exception, what: str) -> None:
    # A full buffer is asked for, or a disk's business: where it came from tells nobody anything.
    full = isinstance(error, OSError) and error.errno == errno.ENOSPC
    log.error("%s: %s", what, error, exc_info=None if full else error)


class Acquisition:
    """One armed series.

    Parameters
    ----------
    images : int
        How many the series has; after the last one it ends by itself.
    source : Source or None
        Makes the images; None where no sink wants their chunks.
    sinks : sequence of Sink
        Take each image, in this order.
    clock : Clock
        Keeps the time of the exposures.
    lock : threading.RLock
        The DCU's one lock; every attribute below belongs to it.
    report : callable
        Called with this acquisition after each change of its phase, under the lock.
    disturbance : Disturbance or None
        What may happen between two images.
    ends_itself : bool
        Whether it ends with its last image; without, it waits for its end from outside.
    ready : Future or None
        Until it is done no image is made.
    buffer : int or None
        How many images may be exposed and not delivered; with one more, images are lost and the
        series fails. None is any number.

    Attributes
    ----------
    phase : Phase
        What it does now.
    exposed, delivered : int
        How many images are exposed, and how many of them the sinks have.
    failure : str
        Why delivery failed, or empty.
    latest : float
        Of the images delivered so far, the longest time in s from the end of an exposure, as it
        was due, until the sinks had it.
    closed : Future
        Resolved with None when nothing is exposed or delivered any more and the sinks are closed.
    settled : Future
        Resolved with None when it is closed or `LONGEST_CLOSING` after its last exposure, or after
        its images could be made.
    """

    def __init__(
        self,
        images: int,
        source: Source | None,
        sinks: Sequence[Sink],
        clock: Clock,
        lock: "threading.RLock",
        report: Callable[["Acquisition"], None],
        *,
        disturbance: Disturbance | None = None,
        ends_itself: bool = True,
        ready: "Future[Any] | None" = None,
        buffer: int | None = None,
    ):
        self.phase = Phase.WAITING
        self.exposed = 0
        self.delivered = 0
        self.failure = ""
        self.latest = 0.0
        self.closed: Future[None] = Future()
        self.closed.set_running_or_notify_cancel()
        self.settled: Future[None] = Future()
        self.settled.set_running_or_notify_cancel()
        self._images = images
        self._source = source
        self._sinks = tuple(sinks)
        self._clock = clock
        self._changed = threading.Condition(lock)
        self._report = report
        self._disturbance = disturbance
        self._ends_itself = ends_itself
        self._is_ready = ready is None
        self._train: Train | None = None
        self._ending: Ending | None = None
        self._interrupt = threading.Event()
        self._stalled = 0.0
        self._buffer = buffer
        # When those that are exposed and not delivered were due, by the clock.
        self._due: deque[float] = deque()
        for target in (self._expose, self._deliver):
            threading.Thread(target=target, name=f"sim-dcu{target.__name__}", daemon=True).start()
        if ready is not None:
            ready.add_done_callback(self._note_ready)

    def _note_ready(self, _done: "Future[Any]") -> None:
        with self._changed:
            self._is_ready = True
            self._changed.notify_all()

    @property
    def missing(self) -> int:
        """How many images are still to be exposed."""
        return self._images - self.exposed

    def trigger(self, train: Train) -> None:
        """Start the exposures of `train`; the caller has seen phase WAITING under the lock."""
        with self._changed:
            self._train = train
            self._enter(Phase.EXPOSING)
            if self._takes_no_time():
                # Here and now: waking the thread that keeps time would be all that takes any.
                self.exposed += train.images
                self._conclude(train)
            else:
                self._changed.notify_all()

    def end(self, how: Ending) -> None:
        """End the series early; `closed` tells when that is done. Harmless when it has ended."""
        with self._changed:
            # A stricter ending overrules a milder one that is still under way.
            if self._ending is None or how.strictness > self._ending.strictness:
                self._ending = how
                if how in (Ending.AT_ONCE, Ending.DROP_ALL):
                    self._interrupt.set()
            self._changed.notify_all()

    def wake(self) -> None:
        """Have a series that stalls look whether it still does."""
        with self._changed:
            self._changed.notify_all()

    def _enter(self, phase: Phase) -> None:
        if self.phase is not phase:
            self.phase = phase
            self._report(self)

    # -- the thread that keeps time ---------------------------------------------------------------

    def _expose(self) -> None:
        while (train := self._next_train()) is not None:
            self._run(train)
            self._conclude(train)
        with self._changed:
            self._changed.wait_for(lambda: self._is_ready or self.closed.done())
            self._changed.wait_for(self.closed.done, LONGEST_CLOSING)
        self.settled.set_result(None)

    def _conclude(self, train: Train) -> None:
        """Note that a train is over, and let those know who wait for it."""
        with self._changed:
            self._train = None
            whole = self.exposed >= self._images and self._ends_itself
            over = self._ending is not None or whole
            if self.phase is not Phase.FAILED:
                self._enter(Phase.ENDED if over else Phase.WAITING)
            self._changed.notify_all()
            failure = self.failure
        if failure:
            train.done.set_exception(OSError(failure))
        else:
            train.done.set_result(None)

    def _takes_no_time(self) -> bool:
        """Return whether images are exposed without a wait, and nothing may happen in between."""
        disturbed = self._disturbance is not None and self._disturbance.expected
        return not self._clock.scale and not disturbed and self._ending is None

    def _next_train(self) -> Train | None:
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._train is not None
                    or self._ending is not None
                    or self.phase in (Phase.ENDED, Phase.FAILED)
                )
            )
            if self._train is None and self.phase is Phase.WAITING:
                # Ended under the same lock, so that no trigger comes in between.
                self._enter(Phase.ENDED)
                self._changed.notify_all()
            return self._train

    def _run(self, train: Train) -> None:
        # Every image is due at its own distance from the start: lateness never adds up.
        if not self._undisturbed():
            return
        start = self._clock.now()
        for index in range(train.images):
            due = train.delay + index * train.period + train.exposure
            if not self._clock.wait_until(start, due, self._interrupt):
                return
            with self._changed:
                self.exposed += 1
                if self._clock.scale:
                    self._due.append(start + due * self._clock.scale)
                self._changed.notify_all()
                if self._ending not in (None, Ending.AFTER_TRIGGER) or self._overflown():
                    return
            if not self._undisturbed():
                return
            start += self._stalled

    def _overflown(self) -> bool:
        """Return whether the image just exposed found no room; then the series has failed."""
        behind = self.exposed - self.delivered
        if self._buffer is None or behind <= self._buffer:
            return False
        lost = self.exposed
        self.exposed -= 1
        self._fail_when_delivered(
            f"image {lost} is lost: the buffer is full of {self._buffer} images, which come faster "
            "than they are made and written"
        )
        return True

    def _fail_when_delivered(self, reason: str) -> None:
        self._changed.wait_for(
            lambda: self.delivered >= self.exposed or self._ending is Ending.DROP_ALL
        )
        self._fail(reason)

    def _undisturbed(self) -> bool:
        """Wait while the series stalls; return whether another image may follow."""
        disturbance, self._stalled = self._disturbance, 0.0
        if disturbance is None or not disturbance.expected:
            return True
        with self._changed:
            while disturbance.stalls(self.exposed, self.delivered) and self._ending in (
                None,
                Ending.AFTER_TRIGGER,
            ):
                # What follows a stall keeps its distance from it.
                before = self._clock.now()
                self._changed.wait()
                self._stalled += self._clock.now() - before
            if failure := disturbance.failure(self.exposed):
                self._fail_when_delivered(failure)
            return self._ending in (None, Ending.AFTER_TRIGGER)

    # -- the thread that delivers -----------------------------------------------------------------

    def _deliver(self) -> None:
        failure = ""
        try:
            while (number := self._next_number()) is not None:
                if not self._sinks:
                    number = self.exposed
                chunk = b"" if self._source is None else self._source.chunk(number)
                for sink in self._sinks:
                    sink.add(number, chunk)
                with self._changed:
                    self.delivered = number
                    if self._due and self._sinks:
                        late = self._clock.now() - self._due.popleft()
                        self.latest = max(self.latest, late)
                    self._changed.notify_all()
        except Exception as error:  # noqa: BLE001 - whatever went wrong ends the series, never unseen
            _log_failure(error, f"image {self.delivered + 1} could not be delivered")
            failure = str(error) or type(error).__name__
        unclosed = self._close_sinks()
        failure = failure or unclosed
        if failure:
            # The state tells it when nothing is written any more.
            self._fail(failure)
        if self.latest > LATE:
            log.warning(
                "images came up to %.1f s after their exposure: this machine cannot hold this rate",
                self.latest,
            )
        with self._changed:
            self.closed.set_result(None)
            self._changed.notify_all()

    def _next_number(self) -> int | None:
        """Wait for an image that is exposed and not delivered; None when there will be none."""
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    (self.delivered < self.exposed and self._is_ready)
                    or (self.delivered == self.exposed and self.phase is Phase.ENDED)
                    or self._ending is Ending.DROP_ALL
                )
            )
            if self._ending is Ending.DROP_ALL:
                self._changed.wait_for(lambda: self.phase in (Phase.ENDED, Phase.FAILED))
                return None
            return self.delivered + 1 if self.delivered < self.exposed else None

    def _close_sinks(self) -> str:
        """Close every sink; return what was wrong with the first that could not be."""
        failure = ""
        for sink in self._sinks:
            try:
                sink.close()
            except Exception as error:  # noqa: BLE001 - every sink is closed, the first fault told
                _log_failure(error, "the files of a series could not be closed")
                failure = failure or str(error) or type(error).__name__
        return failure

    def _fail(self, reason: str) -> None:
        with self._changed:
            self.failure = self.failure or reason
            self._ending = Ending.DROP_ALL
            self._interrupt.set()
            self._enter(Phase.FAILED)
            self._changed.notify_all()
