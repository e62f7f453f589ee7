"""Takes data: one worker that arms, exposes, ends and brings home, in order.

A series is what one arm starts: `ntrigger` triggers of `nimages` images each. A point of a scan is
one trigger, or `triggers_per_point` of them; `ophyd_eiger.triggering` has the modes. Where a series
has one point, each point is a series of its own; where it has more, the detector is armed once for
them, and again by itself when they are used up. A fly scan is one series.

The verbs return at once; the worker does the work. For `bp.count([eiger], 2)` in trigger mode ints
with `nimages` 1 and `ntrigger` 1 it sends, in this order (the paths are shortened: `config/x` is
`/detector/api/<version>/config/x`):

    stage    GET status/state; GET what `arming.RELIED_ON` lists; GET filewriter status/buffer_free,
             if the DCU has it (of an EIGER2 also the thresholds' modes, the file format and
             trigger_start_delay); PUT filewriter name_pattern, GET it (and the same for filewriter
             mode if it was not enabled);
             PUT command/arm; GET what `arming.NAMED_BY` lists; GET config/bit_depth_image;
             GET config/data_collection_date
    trigger  PUT command/trigger; GET status/state; PUT command/disarm
    trigger  PUT command/arm; GET what `arming.SHARED` lists; GET config/bit_depth_image;
             PUT command/trigger; GET status/state; PUT command/disarm
    unstage  when every file is home: GET filewriter name_pattern, PUT it, GET it

With `ntrigger` 2, `trigger` would be PUT command/trigger alone the first time, and the second time
the same with GET status/state and PUT command/disarm after it. The other modes are drawn in
docs/sequences.md. `ophyd_eiger.transfer` meanwhile, from its own thread: GET filewriter files as
soon as a series has ended, then GET /data/ of each data file and of the master; while a series
lasts longer, GET filewriter files once a second, and each data file as soon as it is listed.
The first `stage` reads every resource first, unless `connect` has done so; the very first request
of all is GET /detector/api/version.
"""

import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ophyd_eiger.arming import Arming, who_holds
from ophyd_eiger.bringing import prepare_directory
from ophyd_eiger.clearance import Clearance
from ophyd_eiger.deliveries import Delivery
from ophyd_eiger.ending import Ending
from ophyd_eiger.errors import (
    DcuError,
    EigerError,
    NotServedError,
    NotStagedError,
    StateError,
    StoppedError,
)
from ophyd_eiger.exposing import Exposing
from ophyd_eiger.flying import Flying
from ophyd_eiger.live import Live
from ophyd_eiger.points import Exposure, Point, Series, Staging, new_stem, stem_of
from ophyd_eiger.policy import FilePolicy
from ophyd_eiger.progress import Countdown
from ophyd_eiger.required import require_known
from ophyd_eiger.signals import EigerSignal, Link
from ophyd_eiger.states import States
from ophyd_eiger.transfer import Transfer
from ophyd_eiger.worker import EigerStatus

logger = logging.getLogger(__name__)

# With these every file on the DCU is gone: it keeps them in memory.
LOSES_FILES = {
    ("filewriter", "command/clear"),
    ("system", "command/reboot"),
    ("system", "command/shutdown"),
}
# What a staged device cannot share: with these its next images would go elsewhere or be miscounted.
REFUSED_WHILE_STAGED = {
    ("detector", "command/arm"),
    ("detector", "command/trigger"),
    ("detector", "command/initialize"),
    ("filewriter", "config/mode"),
    ("filewriter", "config/name_pattern"),
    ("filewriter", "command/initialize"),
    ("system", "command/restart"),
    *LOSES_FILES,
}
# What a file writer has before anybody puts another one (SIMPLON API Reference, name_pattern).
FACTORY_NAME_PATTERN = "series_$id"
# The first arm after a change takes up to so long (SIMPLON API Reference V1.3, section 2).
LONGEST_ARM_S = 17.0


class Acquisition:
    """Takes series with one detector.

    Parameters
    ----------
    states : States
        Asks the detector; has the subsystems.
    link : Link
        What the signals share; the worker is its.
    connect : callable
        Reads every resource, if that was not done yet.
    triggers_a_point : callable
        Says how many triggers a point of a step scan takes.
    live : Live
        Takes each point's live numbers, if they are enabled.
    """

    def __init__(
        self,
        states: States,
        link: Link,
        connect: Callable[[], None],
        triggers_a_point: Callable[[], int],
        live: Live,
    ) -> None:
        self.name = states.name
        self.link = link
        self.states = states
        self.detector = states.detector
        self.filewriter = states.filewriter
        self.transfer = Transfer(link.client, self.name)
        self.ending = Ending(states, self.transfer)
        self.arming = Arming(states, self.ending, triggers_a_point, live.listed)
        self.clearance = Clearance(states, self.arming)
        self.exposing = Exposing(states, self.transfer, live.newest)
        self.deliveries: list[Delivery] = []
        self.point: Point | None = None
        self.staging: Staging | None = None
        self.series: Series | None = None
        self.flying = Flying(self)
        self._connect = connect
        self.live = live
        self._exposure: Exposure | None = None
        self._why_not_staged: Exception | None = None
        self._failure_told = False
        self._waits_for_files = True
        self._not_put_back: dict[EigerSignal, tuple[Any, Any]] = {}
        # How long arm took last, with the configuration as it was and with another one.
        self._arm_seconds = {False: LONGEST_ARM_S, True: LONGEST_ARM_S}
        self._armed_at = 0.0
        self._settings = [
            signal
            for signal in (getattr(self.detector, name) for name in self.detector.component_names)
            if isinstance(signal, EigerSignal) and signal.section == "config"
        ]

    # ---- the verbs: called in the RunEngine's event loop, they return at once ----

    def stage(
        self,
        directory: Path,
        prefix: str,
        policy: FilePolicy,
        on_failure: Callable[[], None],
    ) -> EigerStatus:
        """Check, set up and arm the first series; done when the detector waits for a trigger.

        Parameters
        ----------
        directory : Path
            Where the files go; made if it is not there.
        prefix : str
            What their names start with.
        policy : FilePolicy
            What becomes of them.
        on_failure : callable
            Called before the Status fails.
        """

        def work() -> None:
            try:
                self._stage(Staging(directory, new_stem(prefix), policy))
            except Exception as error:
                self._why_not_staged = error
                # This Status tells it.
                self._failure_told = True
                on_failure()
                raise

        self.point = None
        self._exposure = None
        self._waits_for_files = policy.wait
        self.flying.forget()
        timed = self.link.client.ledger.timed("stage", work)
        return self.link.worker.submit(timed, EigerStatus(f"{self.name}: stage"))

    def trigger(self, seconds: tuple[float, ...] = ()) -> EigerStatus:
        """Take one point; done when its images are exposed and, at a series' end, disarmed.

        If the point before is still being exposed, it is taken again: its exposure is ended, its
        images belong to no event, and its Status is done, as it is when unstage ends it.

        Parameters
        ----------
        seconds : tuple of float
            In trigger mode inte the exposure of each of the point's images in s; one for all.
        """
        self._interrupt()
        self.point = None
        exposure = Exposure(EigerStatus(f"{self.name}: trigger"))
        self._exposure = exposure
        timed = self.link.client.ledger.timed("point", lambda: self._take_point(exposure, seconds))
        return self.link.worker.submit(timed, exposure.status)

    def unstage(self, check: Callable[[], None]) -> EigerStatus:
        """End what runs, put back what stage changed; done when every file is home and checked.

        Parameters
        ----------
        check : callable
            Raises if the documents are wrong; called last.
        """
        self._interrupt()
        self.flying.interrupt()
        timed = self.link.client.ledger.timed("unstage", lambda: self._unstage(check))
        return self.link.worker.submit(timed, EigerStatus(f"{self.name}: unstage"))

    def bring_home(self) -> EigerStatus:
        """End the series that is armed, if any; done when every file is home and checked."""
        timed = self.link.client.ledger.timed("files", self._bring_home)
        return self.link.worker.submit(timed, EigerStatus(f"{self.name}: files"))

    def _bring_home(self) -> None:
        self.make_way()
        for delivery in self.deliveries:
            self.transfer.finalize(delivery)
        self._wait_for_files(self.link.client.timeouts.files)

    def _wait_for_files(self, patience: float) -> None:
        deliveries = tuple(self.deliveries)
        self.link.worker.follow(lambda: self.transfer.progress(deliveries))
        self.transfer.wait(patience)

    def stop(self, *, success: bool = False) -> EigerStatus:
        """End the exposure and the series that run now; the next trigger arms a new one.

        Parameters
        ----------
        success : bool
            Whether a fly scan ends in good order, with the points that are done.
        """
        self._interrupt(stopped=True)
        if self.flying.stop(success=success):
            return self.link.worker.submit(lambda: None, EigerStatus(f"{self.name}: stop"))
        return self.link.worker.submit(self.make_way, EigerStatus(f"{self.name}: stop"))

    def end_what_is_left(self) -> None:
        """End the series that unstage could not end, as far as it can be: that writes its files."""
        # Asked for here, too, so that nobody waits for a worker that is taking a scan.
        if self._left_armed:
            work = f"{self.name}: end the series"
            self.link.worker.submit(self._end_what_is_left, EigerStatus(work)).wait()

    @property
    def originals(self) -> dict[EigerSignal, Any]:
        """What was put for a staging and not put back yet: the value before, by signal."""
        return {signal: before for signal, (_, before) in self._not_put_back.items()}

    def note_paused(self) -> None:
        """Note that somebody else may take the detector until the next point is asked for."""
        self.flying.note_paused()
        if self.series is not None:
            self.series.watched_at = -math.inf

    @property
    def busy(self) -> bool:
        """Whether a trigger was asked for that is not done."""
        return self._exposure is not None and not self._exposure.status.done

    def interrupt(self, command: str) -> None:
        """End the exposure that runs now: somebody sends a command that ends its series."""
        self._interrupt(stopped=True, by=command)
        self.flying.interrupt(stopped=True, by=command)

    def note_ended(self) -> None:
        """Tidy up after a command that ended the series between two points."""
        self.link.worker.submit(self.make_way, EigerStatus(f"{self.name}: end the series"))

    def _interrupt(self, *, stopped: bool = False, by: str = "") -> None:
        exposure = self._exposure
        if exposure is not None and not exposure.status.done:
            exposure.interrupt(stopped=stopped, by=by)

    def refuse_what_loses(self, subsystem: str, resource: str) -> None:
        """Refuse what takes a staged device's files or triggers away, or files yet to come home.

        Raises
        ------
        StateError
        """
        if self.staging is not None and (subsystem, resource) in REFUSED_WHILE_STAGED:
            raise StateError(
                f"{self.name}: no {subsystem} {resource} while it is staged, which would lose or "
                f"mix up images; first unstage it: {self.name}.unstage()"
            )
        if (subsystem, resource) in LOSES_FILES:
            self._refuse_to_lose_files(subsystem, resource.removeprefix("command/"))

    def _refuse_to_lose_files(self, subsystem: str, command: str) -> None:
        owed = [each.basename for each in self.transfer.to_come if each.missing()]
        owed = owed or self.transfer.journals.owed_to_others()
        if owed:
            more = f" and {len(owed) - 3} more series" if owed[3:] else ""
            raise StateError(
                f"{self.name}: no {subsystem} {command}, with which every file on the DCU is gone, "
                f"before those of {', '.join(owed[:3])}{more} are home: "
                f"{self.name}.wait_for_files() waits for what is on its way, {self.name}.fetch() "
                "brings what did not come, also of programs that have ended, and those that run "
                f"bring their own; to lose them, {self.name}.{subsystem}.{command}.send()"
            )

    def close(self) -> None:
        """End what runs and let the threads end; what is not home yet stays on the DCU."""
        self._interrupt(stopped=True)
        self.flying.interrupt(stopped=True)
        self.transfer.break_off()
        self.link.worker.submit(self._leave, EigerStatus(f"{self.name}: end")).exception()
        self.transfer.close()
        self.exposing.close()

    def _leave(self) -> None:
        self.live.unstage()
        try:
            self.make_way()
        except DcuError as error:
            logger.warning("%s: left as it is: %s", self.name, error)

    # ---- the work: done in the worker, one after the other ----

    def _stage(self, staging: Staging) -> None:
        self._why_not_staged = None
        self.link.worker.raise_unseen()
        self._connect()
        self.ending.disarm_what_is_left()
        self.make_way()
        self.states.require_idle()
        self.arming.read_what_is_relied_on()
        prepare_directory(staging.directory, staging.stem, staging.policy)
        self.clearance.begin(self.deliveries)
        self.clearance.require(self.arming.scheme(None), staging.directory, staging.policy)
        self.deliveries = []
        self.arming.promise = None
        self.arming.promise_given = False
        self._failure_told = False
        try:
            if self.filewriter.mode.last != "enabled":
                self.change(staging, self.filewriter.mode, "enabled")
            self._put_name_pattern(staging)
            self.live.stage()
            if late := self.arming.points_show_late(self.arming.scheme(None)):
                logger.warning("%s", late)
            self.arm(staging)
            self._read_date()
        except Exception:
            self._put_back_after_failure(staging)
            raise
        self.staging = staging

    def _put_name_pattern(self, staging: Staging) -> None:
        """Have the files of a staging be named by its stem.

        Raises
        ------
        StateError
            If the DCU has another pattern then, of which nobody would look for the files.
        """
        pattern = self.filewriter.name_pattern
        self.change(staging, pattern, staging.name_pattern)
        if pattern.last != staging.name_pattern:
            raise StateError(
                f"{self.name}: {pattern.resource} is {pattern.last!r} after "
                f"{staging.name_pattern!r} was put, because somebody else sets up this detector "
                "or the DCU did not take it; nothing was armed"
                f"{who_holds(pattern.last, staging)}. Take the scan again when nobody else does"
            )

    def _read_date(self) -> None:
        try:
            self.detector.data_collection_date.get()
        except NotServedError as error:
            logger.debug("%s; documents go without it", error)

    def _take_point(self, exposure: Exposure, seconds: tuple[float, ...]) -> None:
        if exposure.stopped:
            raise StoppedError(f"{self.name}: stopped before the exposure began")
        if exposure.interrupted:
            return
        staging = self.require_staging()
        self.link.worker.raise_unseen()
        if staging.flown is not None:
            # A step after a fly scan is taken as the detector is set now.
            staging.flown = None
            self.make_way()
        with self.failure_noted():
            series = self.armed_series(staging)
            if not self._expose(series, exposure, seconds):
                if exposure.stopped:
                    raise StoppedError(f"{self.name}: the exposure was stopped before its end")
                return
            point = self.record(series, seconds)
            if exposure is self._exposure:
                # Else it is being taken again already.
                self.point = point
            if series.used_up:
                self.ending.end(series)
            self.live.take(series.series_id, series.images_taken, point.time)

    @contextmanager
    def failure_noted(self) -> Iterator[None]:
        """Note that a Status tells what went wrong, so that unstage need not tell what follows."""
        try:
            yield
        except StoppedError:
            raise
        except EigerError:
            self._failure_told = True
            raise

    def _expose(self, series: Series, exposure: Exposure, seconds: tuple[float, ...]) -> bool:
        self.begin(series)
        try:
            taken = self.exposing.expose(series, exposure, seconds)
        except Exception:
            series.failed = True
            raise
        if not taken and series.triggered:
            series.interrupted = True
            self.ending.end_early(series, exposure)
            self.exposing.wait_for_reply(exposure.call)
        return taken

    def require_staging(self) -> Staging:
        """Return what stage set up.

        Raises
        ------
        EigerError
            What stage failed with, or that it was not staged.
        """
        if self.staging is None:
            if self._why_not_staged is not None:
                raise self._why_not_staged
            raise NotStagedError(f"{self.name}: not staged, so not armed; stage it first")
        return self.staging

    def begin(self, series: Series) -> None:
        """Take on a series' files before its first image is exposed."""
        if series.delivery not in self.deliveries:
            # Events name the images of the newest series alone.
            for before in self.deliveries:
                self.transfer.finalize(before)
            self.deliveries.append(series.delivery)

    def record(self, series: Series, seconds: tuple[float, ...] = ()) -> Point:
        """Note that the next point of a series is taken, and return it."""
        point = Point(series, series.images_taken, time.time(), seconds)
        series.points += 1
        series.delivery.recorded = series.images_taken
        if series.scheme.mode.is_external:
            series.delivery.note_begun(series.images_taken)
        return point

    def _unstage(self, check: Callable[[], None]) -> None:
        errors: list[Exception] = []
        for step in itertools.chain(self._unstage_steps(), (check,)):
            try:
                step()
            except DcuError as error:
                if self._failure_told:
                    # Another Status has told of it; that the same DCU cannot be tidied up either
                    # would only hide the cause.
                    logger.warning("%s: not put in order: %s", self.name, error)
                else:
                    errors.append(error)
            except Exception as error:  # noqa: BLE001 - the steps after it are still due
                errors.append(error)
        for later in errors[1:]:
            logger.error("%s: %s", self.name, later)
        if errors:
            raise errors[0]

    def _unstage_steps(self) -> Iterator[Callable[[], object]]:
        yield self.ending.disarm_what_is_left
        yield self.make_way
        for delivery in self.deliveries:
            self.transfer.finalize(delivery)
        patience = self.link.client.timeouts.files
        # The file writer may still write, with the name pattern that is put back below.
        if self._waits_for_files:
            yield lambda: self._wait_for_files(patience)
        else:
            yield self.states.wait_for_files_closed
            yield lambda: self.transfer.wait_no_longer(patience)
        staging, self.staging, self._why_not_staged = self.staging, None, None
        if staging is not None:
            yield lambda: self._put_back(staging)
            yield self.live.unstage
        yield self.link.worker.raise_unseen

    def _end_what_is_left(self) -> None:
        if not self._left_armed:
            return
        try:
            self.make_way()
        except EigerError as error:
            # What does not come of it is told by whoever waits for its files.
            logger.warning("%s: the series before could not be ended: %s", self.name, error)

    @property
    def _left_armed(self) -> bool:
        """Whether unstage could not end the series, as where there was no network then."""
        return self.staging is None and self.series is not None and not self.series.ended

    def make_way(self) -> None:
        """End the series that is armed, if any: what it froze may change, or it is not wanted."""
        series = self.series
        if series is not None and not series.ended:
            call = self.flying.call_of(series)
            self.ending.end_early(series, self._exposure)
            self.exposing.wait_for_reply(call)
        self.series = None

    # ---- a series ----

    def armed_series(self, staging: Staging) -> Series:
        """Return the series whose next point is due; armed anew where there is none."""
        series = self.series
        if series is not None and series.is_to_end:
            self.make_way()
            series = None
        if series is not None and not series.ended and self.arming.scheme(staging) != series.scheme:
            # The triggers of a point were set since: exposures listed, or their number.
            self.make_way()
            series = None
        if series is None or series.ended:
            return self.arm(staging)
        self.require_ours(series)
        return series

    def require_ours(self, series: Series) -> None:
        """See that a series that waited for long is still the one that is armed.

        Raises
        ------
        StateError
            If somebody else set the detector up since: a trigger would be for that series.
        """
        if self.ending.gave_way_unwatched(series):
            self.make_way()
            raise StateError(
                f"{self.name}: somebody else has set up the detector since series "
                f"{series.series_id} was armed; no trigger was sent, and what was taken of it "
                "comes home"
            )

    def arm(self, staging: Staging) -> Series:
        """Arm the next series, under a name that none had before."""
        # Of a point before, whose arm was carried out late.
        self.ending.disarm_what_is_left()
        changed = any(signal.put_at > self._armed_at for signal in self._settings)
        self.link.worker.follow(Countdown(self._arm_seconds[changed]))
        began = time.monotonic()
        series = self._arm_under_its_name(staging)
        if series is None:
            logger.warning(
                "%s: arm answered an id that a series before had, because somebody initialized "
                "the detector or restarted its DCU; the next files have another name",
                self.name,
            )
            # While the name tells that it is ours, where it could not be disarmed.
            self.ending.disarm_what_is_left()
            staging.rename()
            self._put_name_pattern(staging)
            series = self._arm_under_its_name(staging)
        if series is None:
            raise AssertionError("a new stem that was there before")
        self.series = series
        self._armed_at = time.monotonic()
        self._arm_seconds[changed] = self._armed_at - began
        return series

    def _arm_under_its_name(self, staging: Staging) -> Series | None:
        """Arm the next series; disarm, and return None, if one before has its name.

        The files of that one may be on their way, or about to be deleted on the DCU.
        """
        journals = self.transfer.journals
        with journals.arming(self.arming.to_be_armed(staging)):
            series = self.arming.arm(staging)
            if self.transfer.has_had(series.delivery):
                self.ending.disarm_after_failure(staging)
                return None
            journals.begin(series.delivery)
        return series

    # ---- what stage changes and unstage puts back ----

    def change(self, staging: Staging, signal: EigerSignal, value: Any, before: Any = None) -> None:
        """Put a value for as long as the device is staged.

        Parameters
        ----------
        staging : Staging
            Notes what is put back.
        signal : EigerSignal
            What is put.
        value : object
            The value.
        before : object, optional
            What is put back; what the signal has if not given.

        Raises
        ------
        ReplyError
            If the DCU has told nothing that could be put back.
        """
        before = require_known(signal) if before is None else before
        ours, original = self._not_put_back.get(signal, (None, None))
        if ours is not None and before == ours:
            before = original
        elif signal is self.filewriter.name_pattern and stem_of(before):
            # Of another client, or of a process that was killed: nobody's to be put back.
            before = FACTORY_NAME_PATTERN
        # Noted first: a put that fails may have been carried out.
        staging.changed.append((signal, before))
        self._not_put_back[signal] = (value, before)
        signal.put_now(value)

    def _is_set_up_by_another(self, staging: Staging) -> bool:
        """Return whether the name pattern is another client's; False if it cannot be asked.

        The one that a staging found comes back where its own was not taken, or where another
        client came and went, and the factory's with an `initialize` or a restart.
        """
        pattern = self.filewriter.name_pattern
        _, original = self._not_put_back.get(pattern, (None, None))
        try:
            found = pattern.get()
        except DcuError:
            return False
        return found not in (staging.name_pattern, original, FACTORY_NAME_PATTERN)

    def _put_back_after_failure(self, staging: Staging) -> None:
        self.live.unstage()
        try:
            self._put_back(staging)
        except EigerError as error:
            logger.warning("%s: not put back: %s", self.name, error)

    def _put_back(self, staging: Staging) -> None:
        if staging.changed and self._is_set_up_by_another(staging):
            keys = {signal.key: None for signal, _ in staging.changed}
            logger.warning(
                "%s: not put back, because another client has set up the detector since: %s",
                self.name,
                ", ".join(keys),
            )
            for signal, _ in staging.changed:
                self._not_put_back.pop(signal, None)
            staging.changed.clear()
        errors: list[EigerError] = []
        while staging.changed:
            signal, before = staging.changed.pop()
            try:
                signal.put_now(before)
            except EigerError as error:
                errors.append(error)
            else:
                self._not_put_back.pop(signal, None)
        for later in errors[1:]:
            logger.warning("%s: not put back: %s", self.name, later)
        if errors:
            raise errors[0]
