"""One armed series: exposes its images in time and has them delivered in order.

What is exposed follows from the clock, whoever asks, so that nothing slow ever delays an exposure.
One thread ends what is over and looks for what may happen between images; another takes the exposed
images, which a third makes ahead, and hands them to the sinks (the file writer). Knows nothing of
states' names on the wire, parameters or HTTP.
"""

import enum
import errno
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from time import monotonic
from typing import Any, Protocol

from sim_dcu.clock import Clock
from sim_dcu.exposures import Exposures, Train
from sim_dcu.made_ahead import MadeAhead
from sim_dcu.series import ArmedSeries

log = logging.getLogger(__name__)

# In s: so long after the last exposure those who wait for a series' end are kept for its files. A
# DCU replies while it still finishes one (LIMA waits 2 s more before it clears them).
LONGEST_CLOSING = 3.0
# In s: images that come later than that after their exposure are told of.
LATE = 2.0


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
    made : MadeAhead or None
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
    delivered : int
        How many images the sinks have.
    failure : str
        Why delivery failed, or empty.
    latest_made, latest : float
        Of the images delivered so far, the longest time in s from the end of an exposure, as it
        was due, until the image was made, which is when it is in the buffer (0 for one made ahead),
        and until the sinks had it.
    closed : Future
        Resolved with None when nothing is exposed or delivered any more and the sinks are closed.
    settled : Future
        Resolved with None when it is closed or `LONGEST_CLOSING` after its last exposure, or after
        its images could be made.
    """

    def __init__(
        self,
        images: int,
        made: MadeAhead | None,
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
        self.delivered = 0
        self.failure = ""
        self.latest_made = self.latest = 0.0
        self.closed: Future[None] = Future()
        self.closed.set_running_or_notify_cancel()
        self.settled: Future[None] = Future()
        self.settled.set_running_or_notify_cancel()
        self._images = images
        self._made = made
        self._sinks = tuple(sinks)
        self._clock = clock
        self._changed = threading.Condition(lock)
        # Told of all but the images that are delivered.
        self._interrupted = threading.Condition(lock)
        self._report = report
        self._disturbance = disturbance
        self._ends_itself = ends_itself
        self._is_ready = ready is None
        self._ending: Ending | None = None
        self._buffer = buffer
        self._train: Train | None = None
        self._exposures = Exposures(clock, keeps_due=bool(self._sinks))
        self._threads = [
            threading.Thread(target=target, name=f"sim-dcu{target.__name__}", daemon=True)
            for target in (self._expose, self._deliver)
        ]
        for thread in self._threads:
            thread.start()
        if ready is not None:
            ready.add_done_callback(self._note_ready)

    def _note_ready(self, _done: "Future[Any]") -> None:
        with self._changed:
            self._is_ready = True
            self._changed.notify_all()

    @property
    def exposed(self) -> int:
        """How many images are exposed: each from the moment on when it is due."""
        with self._changed:
            return self._exposures.count

    @property
    def missing(self) -> int:
        """How many images are still to be exposed."""
        return self._images - self.exposed

    def trigger(self, train: Train) -> None:
        """Start the exposures of `train`; the caller has seen phase WAITING under the lock."""
        with self._changed:
            self._train = train
            self._exposures.begin(train)
            if self._is_cut:  # before the trigger came
                self._exposures.cut(0)
            if not self._disturbed:
                self._exposures.let_pass()
            if self._made is not None:
                self._made.allow(self._exposures.last)
            self._enter(Phase.EXPOSING)
            if not self._clock.scale and not self._disturbed and self._ending is None:
                # Here and now: waking the thread that keeps time would be all that takes any.
                self._conclude(train)
            else:
                self._tell()

    def end(self, how: Ending) -> None:
        """End the series early; `closed` tells when that is done. Harmless when it has ended."""
        with self._changed:
            # A stricter ending overrules a milder one that is still under way.
            if self._ending is None or how.strictness > self._ending.strictness:
                self._ending = how
                if self._is_cut:
                    self._exposures.cut(1 if how is Ending.AFTER_IMAGE else 0)
            if self._train is None and self.phase is Phase.WAITING:
                # At once, so that no trigger comes in between.
                self._enter(Phase.ENDED)
            self._tell()

    def join(self, seconds: float) -> None:
        """Wait, at most `seconds`, until the threads of a series that was ended are no more."""
        end = monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - monotonic()))

    def wake(self) -> None:
        """Have a series look whether anything happens to it between two images, or still does."""
        with self._changed:
            if self._disturbed:
                # The thread that keeps time lets them pass one by one.
                self._exposures.let_pass(0)
            self._tell()

    def _tell(self) -> None:
        self._changed.notify_all()
        self._interrupted.notify_all()

    def _enter(self, phase: Phase) -> None:
        if self.phase is not phase:
            self.phase = phase
            self._report(self)

    @property
    def _disturbed(self) -> bool:
        return self._disturbance is not None and self._disturbance.expected

    # -- the thread that keeps time ---------------------------------------------------------------

    def _expose(self) -> None:
        while (train := self._next_train()) is not None:
            self._run()
            self._conclude(train)
        with self._changed:
            self._changed.wait_for(lambda: self._is_ready or self.closed.done())
            self._changed.wait_for(self.closed.done, LONGEST_CLOSING)
        self.settled.set_result(None)

    def _conclude(self, train: Train) -> None:
        """Note that a train is over, and let those know who wait for it."""
        with self._changed:
            whole = self._exposures.count >= self._images and self._ends_itself
            self._train = None
            self._exposures.end()
            over = self._ending is not None or whole
            if self.phase is not Phase.FAILED:
                self._enter(Phase.ENDED if over else Phase.WAITING)
            self._tell()
            failure = self.failure
        if failure:
            train.done.set_exception(OSError(failure))
        else:
            train.done.set_result(None)

    def _next_train(self) -> Train | None:
        with self._changed:
            self._interrupted.wait_for(
                lambda: (
                    self._train is not None
                    or self._ending is not None
                    or self.phase in (Phase.ENDED, Phase.FAILED)
                )
            )
            return self._train

    def _run(self) -> None:
        """Wait until the train's last image is exposed, or it ends before."""
        with self._changed:
            # Looked at before any wait, too: a short train may be over before this thread is woken.
            while self._may_go_on() and not self._overflown():
                if self._exposures.count >= self._exposures.last:
                    return
                awaited = self._exposures.last - 1
                if self._disturbed:
                    awaited = self._exposures.count
                    self._exposures.let_pass(1)
                else:
                    self._exposures.let_pass()
                # The other thread waits for images, too.
                self._changed.notify_all()
                if self._buffer is not None:
                    # The first one that would be lost.
                    awaited = min(awaited, self.delivered + self._buffer)
                self._interrupted.wait(self._exposures.until(awaited))

    def _overflown(self) -> bool:
        """Return whether an image that is exposed found no room; then the series has failed."""
        if self._buffer is None or self._exposures.count - self.delivered <= self._buffer:
            return False
        room = self.delivered + self._buffer
        self._exposures.take_back(room)
        self._fail_when_delivered(
            f"image {room + 1} is lost: the buffer is full of {self._buffer} images, which come "
            "faster than they are made and written"
        )
        return True

    def _fail_when_delivered(self, reason: str) -> None:
        self._changed.wait_for(
            lambda: self.delivered >= self._exposures.count or self._ending is Ending.DROP_ALL
        )
        self._fail(reason)

    def _may_go_on(self) -> bool:
        """Wait while the series stalls; return whether another image may follow."""
        disturbance = self._disturbance
        if disturbance is not None and disturbance.expected and not self._is_cut:
            self._exposures.let_pass(0)
            while disturbance.stalls(self._exposures.count, self.delivered) and not self._is_cut:
                # What follows a stall keeps its distance from it.
                before = self._clock.now()
                self._changed.wait()
                self._exposures.put_off(self._clock.now() - before)
                if self._is_cut:
                    self._exposures.cut(0)  # no image is running
            if failure := disturbance.failure(self._exposures.count):
                self._fail_when_delivered(failure)
        return self._ending is not Ending.DROP_ALL

    @property
    def _is_cut(self) -> bool:
        return self._ending not in (None, Ending.AFTER_TRIGGER)

    # -- the thread that delivers -----------------------------------------------------------------

    def _deliver(self) -> None:
        failure = ""
        try:
            while (number := self._next_number()) is not None:
                if not self._sinks:
                    number = self.exposed
                self._deliver_one(number)
        except Exception as error:  # noqa: BLE001 - whatever went wrong ends the series, never unseen
            _log_failure(error, f"image {self.delivered + 1} could not be delivered")
            failure = str(error) or type(error).__name__
        if self._made is not None:
            self._made.close()
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
            self._tell()

    def _deliver_one(self, number: int) -> None:
        made = None if self._made is None else self._made.take(number)
        chunk = b"" if made is None else made.chunk
        for sink in self._sinks:
            sink.add(number, chunk)
        with self._changed:
            self.delivered = number
            if self._exposures.due:
                due = self._exposures.due.popleft()
                self.latest = max(self.latest, self._clock.now() - due)
                if made is not None:
                    self.latest_made = max(self.latest_made, made.at - due)
            self._changed.notify_all()

    def _next_number(self) -> int | None:
        """Wait for an image that is exposed and not delivered; None when there will be none."""
        with self._changed:
            while self._ending is not Ending.DROP_ALL:
                exposed = self._exposures.count
                if self.delivered < exposed and self._is_ready:
                    return self.delivered + 1
                if self.delivered == exposed and self.phase is Phase.ENDED:
                    return None
                self._changed.wait(self._exposures.until(exposed) if self._is_ready else None)
            self._changed.wait_for(lambda: self.phase in (Phase.ENDED, Phase.FAILED))
            return None

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
            self._exposures.cut(0)
            self._enter(Phase.FAILED)
            self._tell()
