"""Exposes the images of a point, or of a fly scan, in each trigger mode.

In `ints` and `inte` it sends the triggers; in `exts` and `exte` signals at the detector's input
come from elsewhere, and it watches what the wire shows of them: files that are published, the
monitor's image numbers where the monitor is on, and the state, which shows each exposure that
lasts longer than the time between two questions, and the series' end.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence

from ophyd.utils.errors import WaitTimeoutError

from ophyd_eiger.errors import (
    DcuError,
    DcuTimeoutError,
    LostReplyError,
    RefusedError,
    SignalTimeoutError,
    StateError,
)
from ophyd_eiger.pace import PLAUSIBLE_PART, SHORTEST_SUSPECT_S, Pace
from ophyd_eiger.points import Exposure, Flight, Series
from ophyd_eiger.progress import ImageCount
from ophyd_eiger.required import require_number
from ophyd_eiger.states import STATE_PERIOD_S, States
from ophyd_eiger.transfer import Transfer
from ophyd_eiger.triggering import TriggerMode
from ophyd_eiger.worker import EigerStatus, Worker

logger = logging.getLogger(__name__)

# What may pass between a trigger that is sent and its first exposure, in s; generous.
TRIGGER_DELAY_S = 0.5
# How long a device that ends waits for the thread that sends its triggers, in s.
LAST_REPLY_S = 1.0
# Within so many s of its end the master of a series is listed that has files at all.
MASTER_WITHIN_S = 1.0


class Exposing:
    """Exposes with one detector.

    Parameters
    ----------
    states : States
        Asks the detector.
    transfer : Transfer
        Brings the files home, and sees them published.
    newest_in_monitor : callable
        Returns the number of a series' newest image that the monitor listed, or None.
    """

    def __init__(
        self,
        states: States,
        transfer: Transfer,
        newest_in_monitor: Callable[[int], int | None],
    ) -> None:
        self.states = states
        self.name = states.name
        self.detector = states.detector
        self.transfer = transfer
        self._newest_in_monitor = newest_in_monitor
        self._caller = Worker(f"{self.name} trigger")
        self._pace = Pace()

    def close(self) -> None:
        """Let the thread that sends triggers end; one that waits for a reply ends by itself."""
        self._caller.close(LAST_REPLY_S)

    # ---- a point of a step scan ----

    def expose(self, series: Series, exposure: Exposure, seconds: tuple[float, ...]) -> bool:
        """Take one point; return False if it was interrupted.

        Parameters
        ----------
        series : Series
            Armed; this is its next point.
        exposure : Exposure
            The call of `trigger`.
        seconds : tuple of float
            In trigger mode inte the exposure of each of the point's images in s; one for all.

        Raises
        ------
        EigerError
            If the images were not all taken.
        """
        if exposure.interrupted:
            return False
        self._begin(series)
        if series.scheme.mode.is_external:
            return self._await_point(series, exposure)
        return self._trigger_point(series, exposure, seconds)

    def wait_for_reply(self, call: EigerStatus | None) -> None:
        """Wait for the reply of a trigger whose series was ended; what it says does not matter."""
        if call is None:
            return
        try:
            call.exception(timeout=self.states.link.client.timeouts.end)
        except WaitTimeoutError:
            logger.warning("%s: the DCU did not answer a trigger whose series ended", self.name)

    def _call(self, send: Callable[[], None], call: EigerStatus) -> None:
        """Send triggers from a thread of their own.

        Not from the one that still waits for the reply of a trigger before, where its series could
        not be ended or its DCU was switched off: that sends no more, and ends by itself.
        """
        if not self._caller.is_free:
            self._caller = Worker(self._caller.name)
        self._caller.submit(send, call)

    def _begin(self, series: Series) -> None:
        if not series.triggered:
            series.triggered = True
            self.transfer.add(series.delivery, seen_by_files=series.scheme.mode.is_external)

    def _trigger_point(
        self, series: Series, exposure: Exposure, seconds: tuple[float, ...]
    ) -> bool:
        scheme = series.scheme
        given = seconds if len(seconds) > 1 else (seconds or (None,)) * scheme.triggers
        each = [self._seconds(series, of_one) for of_one in given]
        self.states.link.client.ledger.exposed(sum(each))
        count = ImageCount(scheme.images, sum(each))
        exposure.status.follow(count)
        # The request blocks until the images are exposed. Another thread waits for it, so that
        # this one can end the exposure when it is told to.
        call = EigerStatus(f"{self.name}: trigger request")
        call.add_callback(lambda _: exposure.wake.set())
        count.begin()
        self._call(lambda: self._send_triggers(series, exposure, each, count), call)
        exposure.call = call
        exposure.wake.wait()
        if exposure.interrupted:
            return False
        call.wait(timeout=0)
        series.watched_at = exposure.looked_at
        return True

    def _seconds(self, series: Series, given: float | None) -> float:
        """Return how long one trigger takes, in s."""
        if given is not None:
            return float(given)
        if series.scheme.mode is TriggerMode.INTE:
            return require_number(self.detector.count_time)
        return series.scheme.nimages * require_number(self.detector.frame_time)

    def _send_triggers(
        self, series: Series, exposure: Exposure, each: Sequence[float], count: ImageCount
    ) -> None:
        sent = series.points * series.scheme.triggers
        for number, seconds in enumerate(each, start=1):
            last, began = sent + number == series.scheme.ntrigger, time.monotonic()
            series.delivery.note_begun((sent + number) * series.scheme.nimages)
            # After the note, which a disk may keep waiting. What is armed when a reply comes late
            # may be another client's, and what is being ended takes no further trigger.
            if exposure.interrupted or series.ended or series.failed_to_end:
                series.delivery.note_begun(series.delivery.recorded)
                return
            try:
                exposure.looked_at = self._send_trigger(series, seconds, last=last)
            except Exception:
                # Who asked for the point is told; another process does not wait for its images.
                series.delivery.note_begun(series.delivery.recorded)
                raise
            passed = time.monotonic() - began
            if series.scheme.mode is TriggerMode.INTS and not exposure.interrupted:
                least = self._to_the_last_exposure(seconds)
                self._require_exposed(series, exposure, least, passed, last=last)
            count.count(number * series.scheme.nimages, "trigger reply")

    def _to_the_last_exposure(self, seconds: float) -> float:
        """Return how much of so many frames is over when the last one is exposed, in s."""
        frame_time = require_number(self.detector.frame_time)
        return max(0.0, seconds - frame_time + require_number(self.detector.count_time))

    def _require_exposed(
        self, series: Series, exposure: Exposure, seconds: float, passed: float, *, last: bool
    ) -> None:
        """See that a trigger that replied so soon did not, because its series was ended.

        Raises
        ------
        StateError
            If it was.
        """
        if last and isinstance(exposure, Flight):
            # It counts in the files what was taken, also where it ends the series itself.
            return
        if self._pace.is_early(seconds, passed):
            is_idle = self.states.ask_unless_lost() == "idle"
            # After its last trigger it is idle in any case.
            if is_idle and (not last or self._pace.is_sure(seconds)):
                raise self._ended_early(series)
            may_be = is_idle and self._pace.may_be_real(seconds, passed)
            if may_be and (absent := self._absent_file(series, exposure)):
                raise self._ended_early(series, f"; the DCU does not list {absent}")
        if not exposure.interrupted:
            self._pace.note(seconds, passed)

    def _absent_file(self, series: Series, exposure: Exposure) -> str:
        """Return the last data file of a series that is over, if the DCU lists its master alone.

        One that lists nothing of it, as a simulator that writes no files, tells nothing.
        """
        delivery = series.delivery
        if not delivery.images_per_file:
            return ""
        name = delivery.data_file(math.ceil(delivery.images / delivery.images_per_file))
        client, began = self.states.link.client, time.monotonic()
        while not exposure.interrupted:
            try:
                listed = client.files()
            except DcuError:
                # What it has cannot be known: the transfer tells.
                return ""
            passed = time.monotonic() - began
            has_master = delivery.master in listed
            if name in listed or (passed > MASTER_WITHIN_S and not has_master):
                return ""
            if passed > client.timeouts.files:
                return name
            exposure.wake.wait(STATE_PERIOD_S)
        return ""

    def _ended_early(self, series: Series, because: str = "") -> StateError:
        return StateError(
            f"{self.name}: series {series.series_id} was ended before its time, by somebody else "
            f"or because the DCU failed: {series.points} of {series.scheme.points} points were "
            f"taken{because}; the next trigger arms a new one"
        )

    def _send_trigger(self, series: Series, seconds: float, *, last: bool) -> float:
        """Send one, and return when the DCU was asked last, by `time.monotonic`."""
        # A DCU replies, or is ready, when the exposures are over that begin after the delay.
        takes = self.detector.start_delay + seconds
        timeout = takes + self.states.link.client.timeouts.trigger_margin
        sends_exposure = series.scheme.mode is TriggerMode.INTE
        began = time.monotonic()
        try:
            self.detector.soft_trigger.send(
                value=seconds if sends_exposure else None, timeout=timeout
            )
        except (LostReplyError, DcuTimeoutError) as error:
            self.states.confirm_trigger(last, takes, began, error)
        except RefusedError as error:
            raise self.states.refused_trigger(error) from error
        if sends_exposure:
            self.states.wait_out(takes, timeout)
        elif last:
            self.states.wait_for_exposure_to_end(timeout)
        else:
            return time.monotonic()
        return self.states.asked_at

    def _await_point(self, series: Series, exposure: Exposure) -> bool:
        wanted = series.images_taken + series.scheme.images
        count = ImageCount(series.scheme.images, 0.0)
        exposure.status.follow(count)
        watch = _Patience(self.states.link.client.timeouts.signal)
        while True:
            images, evidence = self.images_seen(series)
            count.count(images - series.images_taken, evidence)
            if images >= wanted:
                series.watched_at = self.states.asked_at
                if self._was_ended(series, exposure, evidence, wanted):
                    raise self._ended_early(series)
                return not exposure.interrupted
            if watch.is_over(images):
                raise self._no_signal(series, images, wanted, watch.patience)
            if exposure.wake.wait(STATE_PERIOD_S):
                return False

    def _was_ended(self, series: Series, exposure: Exposure, evidence: str, wanted: int) -> bool:
        """Return whether a series that is over has not so many images: somebody else ended it.

        A detector that has all images is idle, and so is one that another client disarmed. Where
        each exposure was seen to begin and to end it was the former; else files tell.
        """
        if not series.over or evidence != "state":
            return False
        if series.saw_all_triggers or not self._absent_file(series, exposure):
            return False
        return series.delivery.published < wanted

    def _no_signal(
        self, series: Series, images: int, wanted: int, patience: float
    ) -> SignalTimeoutError:
        return SignalTimeoutError(
            f"{self.name}: image {wanted} of series {series.series_id} was not taken within "
            f"{patience:g} s of the last news; {images} are known to be taken. Do the signals "
            f"reach the detector's trigger input, in trigger_mode {series.scheme.mode.value!r}? "
            "Give Timeouts(signal=...) if they may take longer"
        )

    def images_seen(self, series: Series) -> tuple[int, str]:
        """Return how many images of a series are known to be taken, and what shows it.

        Raises
        ------
        StateError
            If the detector is in a state in which none is taken any more.
        """
        shown = self._images_shown(series)
        by_state = self._images_by_state(series)
        # Files and monitor are surer.
        images, evidence = (by_state, "state") if by_state > shown[0] else shown
        return min(images, series.scheme.total), evidence

    def _images_shown(self, series: Series) -> tuple[int, str]:
        """Return how many images files or monitor show, and which of them does."""
        published, newest = series.delivery.published, 0
        if self.states.monitor.mode.last == "enabled" and not series.monitor_is_stale:
            newest = self._newest_in_monitor(series.series_id) or 0
        return (newest, "monitor") if newest > published else (published, "files")

    def _images_by_state(self, series: Series) -> int:
        before, series.state = series.state, self.states.ask_unless_lost()
        # (Before API 1.6 an initialized detector is "ready", armed or not: that tells nothing.)
        if series.state == "idle":
            # The detector disarms by itself when it has all images.
            if before == "acquire" and series.triggers_seen == series.scheme.ntrigger - 1:
                series.saw_all_triggers = True
            series.over = True
            series.watched_at = self.states.asked_at
            return series.scheme.total
        if before == "acquire" and series.state == "ready":
            series.triggers_seen += 1
        return series.triggers_seen * series.scheme.nimages

    # ---- a fly scan ----

    def take_off(self, series: Series, flight: Flight) -> None:
        """Begin a fly scan: send its trigger, or wait for the first signal."""
        scheme = series.scheme
        self._begin(series)
        seconds = scheme.total * require_number(self.detector.frame_time)
        flight.count = ImageCount(
            flight.events * scheme.images, 0.0 if scheme.mode.is_external else seconds
        )
        if scheme.mode.is_external:
            return
        each = [self._seconds(series, None)] * scheme.ntrigger
        call = EigerStatus(f"{self.name}: trigger request")
        call.add_callback(lambda _: flight.wake.set())
        flight.count.begin()
        now, frame_time = time.monotonic(), require_number(self.detector.frame_time)
        images = flight.events * scheme.images
        delays = math.ceil(images / scheme.nimages) * self.detector.start_delay
        flight.exposed_by = now + delays + (images + 1) * frame_time + TRIGGER_DELAY_S
        if (least := self._to_the_last_exposure(seconds)) >= SHORTEST_SUSPECT_S:
            flight.earliest = now + least * PLAUSIBLE_PART
        flight.call = call
        self._call(lambda: self._send_triggers(series, flight, each, flight.count), call)

    def fly(self, series: Series, flight: Flight) -> bool:
        """Wait until the images of a fly scan are taken; return False if it was interrupted.

        Raises
        ------
        EigerError
            If they were not all taken.
        """
        wanted = flight.events * series.scheme.images
        watch = _Patience(self.states.link.client.timeouts.signal)
        while not flight.interrupted:
            if flight.call is not None and flight.call.done:
                flight.call.wait(timeout=0)
                series.over = not flight.finishing
                flight.too_early = time.monotonic() < flight.earliest
                # Where it came too early, only files tell which images were taken.
                all_taken = series.over and not flight.too_early
                if all_taken:
                    series.watched_at = flight.looked_at
                images = series.scheme.total if all_taken else series.delivery.published
            elif flight.call is not None:
                images, evidence = self._images_shown(series)
                flight.count.count(images, evidence)
                if series.scheme.total > wanted and time.monotonic() >= flight.exposed_by:
                    # Armed for more: nothing may show each image, but its time is over.
                    return True
            else:
                images, evidence = self.images_seen(series)
                if images >= wanted and self._was_ended(series, flight, evidence, wanted):
                    flight.too_early = True
                    images = series.delivery.published
                flight.count.count(images, evidence)
                if images < wanted and not flight.too_early and watch.is_over(images):
                    raise self._no_signal(series, images, wanted, watch.patience)
            flight.points = min(images // series.scheme.images, flight.events)
            flight.time = time.time()
            # One command takes all images: until its reply only more than is wanted is cut off.
            waits = (
                flight.call is not None and not flight.call.done and (series.scheme.total == wanted)
            )
            done = flight.points >= flight.events and not waits
            if flight.finishing or flight.too_early or done:
                return True
            flight.wake.wait(STATE_PERIOD_S)
        return False

    def least_taken(self, series: Series, flight: Flight) -> int:
        """Return how many images of a fly scan are taken at least, before it is ended early."""
        wanted = flight.events * series.scheme.images
        if flight.too_early:
            # Whoever ended it may have lost what was not in files yet.
            return min(series.delivery.published, wanted)
        least, _ = self._images_shown(series)
        if flight.call is None:
            # Not the state idle: somebody may have disarmed a series that is armed for more.
            least = max(least, series.triggers_seen * series.scheme.nimages)
        else:
            # What its triggers' replies told.
            least = max(least, flight.count.counted)
        if flight.call is not None and series.scheme.ntrigger == 1:
            # Files and monitor may show nothing yet, but the time of these images is over.
            to_come = (flight.exposed_by - time.monotonic()) / require_number(
                self.detector.frame_time
            )
            least = max(least, wanted - math.ceil(max(to_come, 0)))
        return min(least, wanted)


class _Patience:
    """Says when nothing has come for too long."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._count = 0
        self._since = time.monotonic()

    def is_over(self, count: int) -> bool:
        now = time.monotonic()
        if count > self._count:
            self._count, self._since = count, now
        return now - self._since > self.patience
