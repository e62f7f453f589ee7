"""Fly scans: one series that records points by itself, begun by `kickoff`, awaited by `complete`.

`prepare` sets the detector up for it and arms, unless `stage` has armed the very series; what it
changed is put back by `unstage`. Without `prepare` a fly scan is one series of the detector's own
numbers.
"""

import logging
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ophyd_eiger.errors import NotStagedError, StateError, StoppedError
from ophyd_eiger.points import Flight, Point
from ophyd_eiger.signals import EigerSignal
from ophyd_eiger.triggering import TriggerInfo
from ophyd_eiger.worker import EigerStatus

if TYPE_CHECKING:
    from ophyd_eiger.series import Acquisition

logger = logging.getLogger(__name__)


class Flying:
    """The fly scans of one detector.

    Parameters
    ----------
    acquisition : Acquisition
        Arms, exposes and ends; its worker does the work.
    """

    def __init__(self, acquisition: "Acquisition") -> None:
        self._acquisition = acquisition
        self.name = acquisition.name
        self.flight: Flight | None = None
        self._info: TriggerInfo | None = None
        self._why_not_prepared: Exception | None = None

    # ---- the verbs: they return at once ----

    def prepare(self, info: TriggerInfo) -> EigerStatus:
        """Set the detector up for a fly scan and arm it; one that was paused is taken again."""
        if self.flight is not None and self.flight.paused:
            self.interrupt()
        status = EigerStatus(f"{self.name}: prepare")
        return self._submit(self._timed("prepare", lambda: self._prepare(info)), status)

    def kickoff(self) -> EigerStatus:
        """Begin the fly scan; done when its trigger was sent, or when it waits for signals.

        If one runs already it is taken again: its images belong to no event.

        Raises
        ------
        StateError
            If the one before has points that were not collected.
        """
        before = self.flight
        if before is not None and before.over and before.given < before.points:
            uncollected = f"{before.points - before.given} points that are in no document"
            if not before.paused:
                raise StateError(
                    f"{self.name}: the fly scan before has {uncollected} yet; collect them before "
                    "the next kickoff"
                )
            logger.warning(
                "%s: a fly scan that was paused is taken again; it had %s", self.name, uncollected
            )
        self.interrupt()
        flight = Flight(EigerStatus(f"{self.name}: kickoff"), 0)
        self.flight = flight
        return self._submit(self._timed("kickoff", lambda: self._kickoff(flight)), flight.status)

    def complete(self) -> EigerStatus:
        """Wait for the fly scan; done when its images are taken and its series has ended.

        Raises
        ------
        NotStagedError
            If none was begun.
        """
        flight = self.flight
        if flight is None:
            raise NotStagedError(f"{self.name}: no fly scan was begun; kickoff comes first")
        flight.paused = False
        status = EigerStatus(f"{self.name}: complete")
        status.follow(lambda: flight.count())
        return self._submit(self._timed("complete", lambda: self._complete(flight)), status)

    def stop(self, *, success: bool) -> bool:
        """End the fly scan that runs, in good order if `success`; return whether that is it."""
        flight = self.flight
        if flight is None or flight.over:
            return False
        if success:
            flight.finish()
            return True
        flight.interrupt(stopped=True)
        return False

    def note_paused(self) -> None:
        """Note that the plan was paused: if it goes back to before kickoff, that is no mistake."""
        if self.flight is not None:
            self.flight.paused = True

    def interrupt(self, *, stopped: bool = False, by: str = "") -> None:
        """End the fly scan that runs, if any; its images belong to no event."""
        if self.flight is not None and not self.flight.over:
            self.flight.interrupt(stopped=stopped, by=by)

    def forget(self) -> None:
        """Forget the fly scans of the staging before."""
        self.flight = None
        self._info = None
        self._why_not_prepared = None

    def points(self, index: int | None = None) -> list[Point]:
        """Return the points that are done and were not returned yet, up to `index` in all."""
        flight = self.flight
        if flight is None or flight.series is None:
            return []
        series, images = flight.series, flight.series.scheme.images
        stop = flight.points if index is None else min(index, flight.points)
        given, flight.given = flight.given, max(flight.given, stop)
        return [Point(series, images * n, flight.time) for n in range(given, flight.given)]

    def keep(self, points: int) -> int:
        """Have no document of the points of a finished fly scan from this number on.

        Returns
        -------
        int
            How many are left out.
        """
        flight = self.flight
        if flight is None or flight.series is None or not flight.over:
            return 0
        left_out = flight.points - max(min(points, flight.points), flight.given)
        if left_out:
            flight.points -= left_out
            series = flight.series
            series.points = flight.points
            series.delivery.interrupted = True
            series.delivery.recorded = series.images_taken
        return left_out

    @property
    def is_under_way(self) -> bool:
        """Whether a fly scan was begun whose points are not all in documents yet."""
        flight = self.flight
        return flight is not None and not (flight.over and flight.given == flight.points)

    @property
    def points_done(self) -> int:
        """Points of the fly scan that are done."""
        return 0 if self.flight is None else self.flight.points

    def call_of(self, series: object) -> EigerStatus | None:
        """Return the trigger request of a series that a fly scan began, if it has one."""
        flight = self.flight
        return flight.call if flight is not None and flight.series is series else None

    def _timed(self, doing: str, work: Callable[[], None]) -> Callable[[], None]:
        return self._acquisition.link.client.ledger.timed(doing, work)

    def _submit(self, work: Callable[[], None], status: EigerStatus) -> EigerStatus:
        def noted() -> None:
            with self._acquisition.failure_noted():
                work()

        return self._acquisition.link.worker.submit(noted, status)

    # ---- the work: done in the worker ----

    def _prepare(self, info: TriggerInfo) -> None:
        try:
            self._set_up(info)
        except Exception as error:
            self._why_not_prepared = error
            raise
        self._why_not_prepared = None

    def _set_up(self, info: TriggerInfo) -> None:
        acquisition = self._acquisition
        staging = acquisition.require_staging()
        settings = list(self._settings(info))
        # Noted before the first put, with which the detector moves others.
        before = {signal: signal.last for signal, _ in settings}
        for signal, value in settings:
            if not _is_so(signal, value):
                acquisition.change(staging, signal, value, before[signal])
        self._check_times(info)
        # Whatever was put since `stage` has ended its series.
        series, scheme = acquisition.series, info.scheme
        if series is None or not series.is_armed_for(scheme):
            acquisition.make_way()
        staging.flown = scheme
        self._info = info
        acquisition.clearance.require(scheme, staging.directory, staging.policy)
        if acquisition.series is None:
            acquisition.arm(staging)
        else:
            acquisition.arming.take_over(acquisition.series, scheme)

    def _settings(self, info: TriggerInfo) -> Iterator[tuple[EigerSignal, object]]:
        """Give what is put, in the order that the hardware needs."""
        detector, scheme = self._acquisition.detector, info.scheme
        if scheme.mode.takes_one_image:
            yield detector.nimages, 1
        yield detector.trigger_mode, scheme.mode.value
        if info.livetime is not None:
            # A frame time that is too short shortens the count time, and the count time that is
            # put then lengthens the frame time: so the detector finds the shortest itself.
            shortest = detector.frame_time.limits[0] or 0.0
            period = info.livetime + (info.deadtime or 0.0)
            yield detector.frame_time, max(period, shortest)
            yield detector.count_time, info.livetime
        yield detector.nimages, scheme.nimages
        yield detector.ntrigger, scheme.ntrigger

    def _check_times(self, info: TriggerInfo) -> None:
        if info.livetime is None or info.deadtime is None:
            return
        frame_time = float(self._acquisition.detector.frame_time.last)
        if frame_time > (info.livetime + info.deadtime) * (1 + 1e-6):
            raise StateError(
                f"{self.name}: images of {info.livetime:g} s cannot follow each other with "
                f"{info.deadtime:g} s between them; the detector needs {frame_time:g} s from one "
                "to the next"
            )

    def _kickoff(self, flight: Flight) -> None:
        acquisition = self._acquisition
        staging = acquisition.require_staging()
        acquisition.link.worker.raise_unseen()
        if self._why_not_prepared is not None:
            raise self._why_not_prepared
        if flight.interrupted:
            return
        series = acquisition.series
        if series is None or series.ended or series.is_to_end or series.triggered:
            acquisition.make_way()
            series = acquisition.arm(staging)
        else:
            acquisition.require_ours(series)
        flight.events = self._info.number_of_events if self._info else series.scheme.points
        flight.series = series
        acquisition.begin(series)
        acquisition.exposing.take_off(series, flight)

    def _complete(self, flight: Flight) -> None:
        if flight.over:
            return
        if flight.stopped:
            raise StoppedError(f"{self.name}: the fly scan was stopped before its end")
        if flight.interrupted:
            return
        if flight.series is None:
            raise NotStagedError(f"{self.name}: the fly scan did not begin; see kickoff's Status")
        series, acquisition = flight.series, self._acquisition
        try:
            taken = acquisition.exposing.fly(series, flight)
        except Exception:
            series.failed = True
            raise
        if not taken:
            # Its images belong to no event, but for those that documents name already.
            flight.points = flight.given
            series.interrupted = True
            acquisition.make_way()
            if flight.stopped:
                raise StoppedError(f"{self.name}: the fly scan was stopped before its end")
            return
        self._land(flight)

    def _land(self, flight: Flight) -> None:
        """End the series and count the points."""
        acquisition, series = self._acquisition, flight.series
        if series is None:
            raise AssertionError("a flight without a series")
        images = flight.events * series.scheme.images
        if series.over and images == series.scheme.total and not flight.too_early:
            series.points = series.scheme.points
            series.delivery.recorded = series.images_taken
            acquisition.ending.end(series)
            flight.points = flight.events
        else:
            self._end_and_count(flight)
        flight.over = True
        if flight.too_early and flight.points < flight.events:
            raise StateError(
                f"{self.name}: series {series.series_id} was ended before its time, by somebody "
                f"else or because the DCU failed: {flight.points} of {flight.events} points were "
                "taken"
            )
        flight.count.count(images, "series end")

    def _end_and_count(self, flight: Flight) -> None:
        """End a series early, in good order, and count in its files what was taken."""
        acquisition, series = self._acquisition, flight.series
        if series is None:
            raise AssertionError("a flight without a series")
        # Cancel keeps what is finished; abort, for a series without points, would not.
        series.points = max(flight.points, 1)
        series.interrupted = True
        # The list of files alone does not tell that one of them is late.
        least = acquisition.exposing.least_taken(series, flight)
        is_exposing = series.state == "acquire" and not flight.too_early
        if is_exposing and acquisition.ending.finishes_image():
            least = max(least, 1)
        delivery = series.delivery
        delivery.recorded = least
        acquisition.ending.end_early(series, flight)
        acquisition.exposing.wait_for_reply(flight.call)
        acquisition.transfer.wait_home(delivery, acquisition.link.client.timeouts.files)
        flight.points = min(delivery.images_home // series.scheme.images, flight.events)
        series.points = flight.points
        delivery.recorded = series.images_taken


def _is_so(signal: EigerSignal, value: object) -> bool:
    last = signal.last
    if isinstance(value, float) and isinstance(last, (int, float)):
        return math.isclose(last, value, rel_tol=1e-6)
    return signal.has_value and last == value
