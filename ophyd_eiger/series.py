"""Takes data: one worker that arms, triggers, ends and brings home, in order.

A series is what one arm starts: `ntrigger` triggers of `nimages` images each. One trigger is one
point of a scan. With `ntrigger` 1 each point is a series of its own; with more, the detector is
armed once for that many points. There are no other modes.

The verbs `stage`, `trigger`, `unstage` and `stop` return at once; the worker does the work.
For `bp.count([eiger], 2)` with `nimages` 1 and `ntrigger` 1 it sends, in this order (the paths
are shortened: `config/x` is `/detector/api/<version>/config/x`):

    stage    GET status/state; GET what `RELIED_ON` lists; PUT filewriter name_pattern, GET it
             (and the same for filewriter mode if it was not enabled);
             PUT command/arm; GET config/bit_depth_image; GET config/data_collection_date
    trigger  PUT command/trigger; GET status/state; PUT command/disarm
    trigger  PUT command/arm; GET config/bit_depth_image;
             PUT command/trigger; GET status/state; PUT command/disarm
    unstage  when every file is home: PUT filewriter name_pattern, GET it

With `ntrigger` 2, `trigger` would be PUT command/trigger alone the first time, and the second time
the same with GET status/state and PUT command/disarm after it.
`ophyd_eiger.transfer` meanwhile, from its own thread: GET filewriter files as soon as a series has
ended, then GET /data/ of each data file and of the master; while a series lasts longer, GET
filewriter files once a second, and each data file as soon as it is listed.
The first `stage` reads every resource first, unless `connect` has done so; the very first request
of all is GET /detector/api/version.
"""

import logging
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ophyd.utils.errors import WaitTimeoutError

from ophyd_eiger.deliveries import Delivery
from ophyd_eiger.documents import Promise
from ophyd_eiger.errors import (
    DcuError,
    DcuTimeoutError,
    DcuUnreachableError,
    EigerError,
    LostReplyError,
    NotStagedError,
    PromiseError,
    RefusedError,
    ReplyError,
    StateError,
    StoppedError,
)
from ophyd_eiger.master import MASTER_ENDING
from ophyd_eiger.points import Exposure, Point, Series, Staging
from ophyd_eiger.signals import EigerCommand, EigerSignal, Link, require_value
from ophyd_eiger.states import States
from ophyd_eiger.subsystems import Detector, Filewriter
from ophyd_eiger.transfer import Transfer, prepare_directory
from ophyd_eiger.worker import EigerStatus, Worker

logger = logging.getLogger(__name__)

# What a series depends on, or what its documents say; others may have changed it since.
RELIED_ON = (
    "detector.nimages",
    "detector.ntrigger",
    "detector.count_time",
    "detector.frame_time",
    "detector.trigger_mode",
    "detector.photon_energy",
    "detector.threshold_energy",
    "detector.beam_center_x",
    "detector.beam_center_y",
    "detector.detector_distance",
    "detector.x_pixels_in_detector",
    "detector.y_pixels_in_detector",
    "filewriter.nimages_per_file",
    "filewriter.mode",
    "filewriter.name_pattern",
)
# A series that holds finished points is ended by cancel, which keeps them but waits for the image
# that is being exposed; with nothing to keep, abort ends it at once. Beyond this frame time plain
# disarm ends an EIGER1's exposure and keeps what is finished; on EIGER2 it ends no exposure.
LONGEST_CANCEL_S = 5.0
# The first HTTP status that does not say whether the request was carried out.
SERVER_FAULT = 500
# What a staged device cannot share: with these its next images would go elsewhere or be miscounted.
REFUSED_WHILE_STAGED = {
    ("detector", "command/arm"),
    ("detector", "command/trigger"),
    ("detector", "command/initialize"),
    ("filewriter", "config/mode"),
    ("filewriter", "config/name_pattern"),
    ("filewriter", "command/clear"),
    ("filewriter", "command/initialize"),
    ("system", "command/restart"),
}
CONNECTION_ERRORS = (DcuUnreachableError, LostReplyError, DcuTimeoutError)


class Acquisition:
    """Takes series with one detector.

    Parameters
    ----------
    name : str
        Name of the device, for messages and threads.
    detector, filewriter : Detector, Filewriter
        The subsystems it works with.
    link : Link
        What the signals share; the worker is its.
    connect : callable
        Reads every resource, if that was not done yet.
    """

    def __init__(
        self,
        name: str,
        detector: Detector,
        filewriter: Filewriter,
        link: Link,
        connect: Callable[[], None],
    ) -> None:
        self.name = name
        self.detector = detector
        self.filewriter = filewriter
        self.link = link
        self.states = States(name, detector, filewriter, link)
        self.transfer = Transfer(link.client, name)
        self.deliveries: list[Delivery] = []
        self.promise: Promise | None = None
        self.promise_given = False
        self.point: Point | None = None
        self._connect = connect
        self._staging: Staging | None = None
        self._series: Series | None = None
        self._exposure: Exposure | None = None
        self._why_not_staged: Exception | None = None
        self._connection_failed = False
        self._not_put_back: dict[EigerSignal, tuple[Any, Any]] = {}
        self._caller = Worker(f"{name} trigger")

    # ---- the verbs: called in the RunEngine's event loop, they return at once ----

    def stage(self, directory: Path, prefix: str, on_failure: Callable[[], None]) -> EigerStatus:
        """Check, set up and arm the first series; done when the detector waits for a trigger.

        Parameters
        ----------
        directory : Path
            Where the files go; made if it is not there.
        prefix : str
            What their names start with.
        on_failure : callable
            Called before the Status fails.
        """

        def work() -> None:
            try:
                self._stage(directory, prefix)
            except Exception as error:
                self._why_not_staged = error
                on_failure()
                raise

        self.point = None
        self._exposure = None
        timed = self.link.client.ledger.timed("stage", work)
        return self.link.worker.submit(timed, EigerStatus(f"{self.name}: stage"))

    def trigger(self) -> EigerStatus:
        """Take one point; done when its images are exposed and, at a series' end, disarmed.

        If the point before is still being exposed, it is taken again: its exposure is ended, its
        images belong to no event, and its Status is done, as it is when unstage ends it.
        """
        self._interrupt()
        self.point = None
        exposure = Exposure(EigerStatus(f"{self.name}: trigger"))
        self._exposure = exposure
        timed = self.link.client.ledger.timed("point", lambda: self._take_point(exposure))
        return self.link.worker.submit(timed, exposure.status)

    def unstage(self) -> EigerStatus:
        """End what runs, put back what stage changed; done when every file is home and checked."""
        self._interrupt()
        timed = self.link.client.ledger.timed("unstage", self._unstage)
        return self.link.worker.submit(timed, EigerStatus(f"{self.name}: unstage"))

    def stop(self) -> EigerStatus:
        """End the exposure and the series that run now; the next trigger arms a new one."""
        self._interrupt(stopped=True)
        return self.link.worker.submit(self.make_way, EigerStatus(f"{self.name}: stop"))

    @property
    def busy(self) -> bool:
        """Whether a trigger was asked for that is not done."""
        return self._exposure is not None and not self._exposure.status.done

    def interrupt(self, command: str) -> None:
        """End the exposure that runs now: somebody sends a command that ends its series."""
        self._interrupt(stopped=True, by=command)

    def note_ended(self) -> None:
        """Tidy up after a command that ended the series between two points."""
        self.link.worker.submit(self.make_way, EigerStatus(f"{self.name}: end the series"))

    def _interrupt(self, *, stopped: bool = False, by: str = "") -> None:
        exposure = self._exposure
        if exposure is not None and not exposure.status.done:
            exposure.interrupt(stopped=stopped, by=by)

    def refuse_while_staged(self, subsystem: str, resource: str) -> None:
        """Refuse what would take a staged device's files or triggers away.

        Raises
        ------
        StateError
        """
        if self._staging is not None and (subsystem, resource) in REFUSED_WHILE_STAGED:
            raise StateError(
                f"{self.name}: no {subsystem} {resource} while it is staged, which would lose or "
                f"mix up images; first unstage it: {self.name}.unstage()"
            )

    def close(self) -> None:
        """End what runs and let the threads end; what is not home yet stays on the DCU."""
        self._interrupt(stopped=True)
        self.link.worker.submit(self._leave, EigerStatus(f"{self.name}: end")).exception()
        self.transfer.close()
        self._caller.close()

    def _leave(self) -> None:
        try:
            self.make_way()
        except DcuError as error:
            logger.warning("%s: left as it is: %s", self.name, error)

    # ---- the work: done in the worker, one after the other ----

    def _stage(self, directory: Path, prefix: str) -> None:
        self._why_not_staged = None
        self.link.worker.raise_unseen()
        self._connect()
        self.make_way()
        self.states.require_idle()
        for dotted in RELIED_ON:
            self._signal(dotted).get()
        self._check_trigger_mode()
        prepare_directory(directory)
        stem = f"{prefix}_{uuid.uuid4().hex[:8]}"
        staging = Staging(directory, stem)
        self.deliveries = []
        self.promise = None
        self.promise_given = False
        self._connection_failed = False
        try:
            if self.filewriter.mode.last != "enabled":
                self._change(staging, self.filewriter.mode, "enabled")
            self._change(staging, self.filewriter.name_pattern, f"{stem}_$id")
            self._series = self._arm(staging)
            self.detector.data_collection_date.get()
        except Exception:
            self._put_back_after_failure(staging)
            raise
        self._staging = staging

    def _take_point(self, exposure: Exposure) -> None:
        if exposure.stopped:
            raise StoppedError(f"{self.name}: stopped before the exposure began")
        if exposure.interrupted:
            return
        if self._staging is None:
            if self._why_not_staged is not None:
                raise self._why_not_staged
            raise NotStagedError(f"{self.name}: not staged, so not armed; stage it first")
        self.link.worker.raise_unseen()
        try:
            series = self._armed_series(self._staging)
            if not self._expose(series, exposure):
                if exposure.stopped:
                    raise StoppedError(f"{self.name}: the exposure was stopped before its end")
                return
            self.point = Point(series, series.points * series.nimages, time.time())
            series.points += 1
            series.delivery.recorded += series.nimages
            if series.used_up:
                self._end(series)
        except CONNECTION_ERRORS:
            self._connection_failed = True
            raise

    def _unstage(self) -> None:
        errors: list[Exception] = []
        for step in self._unstage_steps():
            try:
                step()
            except CONNECTION_ERRORS as error:
                if self._connection_failed:
                    # The trigger's Status has told of it; that the same DCU cannot be tidied up
                    # either would only hide the cause.
                    logger.warning("%s: not put in order: %s", self.name, error)
                else:
                    errors.append(error)
            except Exception as error:  # noqa: BLE001 - the steps after it are still due
                errors.append(error)
        for later in errors[1:]:
            logger.error("%s: %s", self.name, later)
        if errors:
            raise errors[0]

    def _unstage_steps(self) -> Iterator[Callable[[], None]]:
        yield self.make_way
        # The file writer may still write, with the name pattern that is put back below.
        yield lambda: self.transfer.wait(self.link.client.timeouts.files)
        staging, self._staging, self._why_not_staged = self._staging, None, None
        if staging is not None:
            yield lambda: self._put_back(staging)
        yield self.link.worker.raise_unseen

    def make_way(self) -> None:
        """End the series that is armed, if any: what it froze may change, or it is not wanted."""
        series, self._series = self._series, None
        if series is not None and not series.ended:
            self._end_early(series)

    # ---- a series ----

    def _armed_series(self, staging: Staging) -> Series:
        series = self._series
        if series is not None and (series.failed or series.used_up):
            # Used up and not ended: its disarm failed.
            self.make_way()
            series = None
        if series is None or series.ended:
            series = self._series = self._arm(staging)
        return series

    def _arm(self, staging: Staging) -> Series:
        nimages = int(require_value(self.detector.nimages))
        ntrigger = int(require_value(self.detector.ntrigger))
        series_id = self._send_arm()
        try:
            if series_id is None:
                series_id = self._id_from_files(staging)
            self.promise = self._kept_promise(nimages)
        except Exception:
            self._disarm_after_failure()
            raise
        delivery = Delivery(
            basename=f"{staging.stem}_{series_id}",
            directory=staging.directory,
            images=nimages * ntrigger,
            images_per_file=int(require_value(self.filewriter.nimages_per_file)),
        )
        return Series(series_id, delivery, self.promise, ntrigger)

    def _send_arm(self) -> int | None:
        """Send arm, and leave nothing armed if that fails; return the sequence id if it came."""
        try:
            return self.detector.arm.send()
        except LostReplyError as error:
            self.states.confirm_ready(error)
            return None
        except RefusedError as error:
            if error.status >= SERVER_FAULT:
                self._disarm_after_failure()
                raise
            # Not carried out. If another client was faster, the state has better advice.
            self.states.require_idle()
            raise
        except DcuError:
            self._disarm_after_failure()
            raise

    def _disarm_after_failure(self) -> None:
        """Disarm what may be armed; nothing was exposed, so there is no more to end."""
        try:
            self._send_ending(self.detector.disarm)
        except EigerError as error:
            logger.warning("%s: not disarmed: %s", self.name, error)

    def _kept_promise(self, nimages: int) -> Promise:
        """Return what the images of the series just armed will be, as the run was told it."""
        detector = self.detector
        bits = int(detector.bit_depth_image.get())
        shape = (
            int(require_value(detector.y_pixels_in_detector)),
            int(require_value(detector.x_pixels_in_detector)),
        )
        promise = Promise(nimages, shape, np.dtype(f"<u{bits // 8}"))
        if self.promise_given and promise != self.promise:
            raise PromiseError(
                f"{self.name}: the next images would be {promise}, but the run was told "
                f"{self.promise}; give each such setting a run of its own (bit_depth_image follows "
                "count_time)"
            )
        return promise

    def _expose(self, series: Series, exposure: Exposure) -> bool:
        """Send the trigger and wait for the exposures; return False if told to stop."""
        if exposure.interrupted:
            return False
        if not series.triggered:
            series.triggered = True
            self.deliveries.append(series.delivery)
            self.transfer.add(series.delivery)
        expected = series.nimages * float(require_value(self.detector.frame_time))
        self.link.client.ledger.exposed(expected)
        timeout = expected + self.link.client.timeouts.trigger_margin
        # The request blocks until the images are exposed. Another thread waits for it, so that
        # this one can end the exposure when it is told to.
        call = EigerStatus(f"{self.name}: trigger request")
        call.add_callback(lambda _: exposure.wake.set())
        self._caller.submit(lambda: self._send_trigger(series, timeout), call)
        exposure.wake.wait()
        if exposure.interrupted:
            series.interrupted = True
            self._end_early(series)
            self._wait_for_reply(call)
            return False
        try:
            call.wait(timeout=0)
        except EigerError:
            series.failed = True
            raise
        return True

    def _wait_for_reply(self, call: EigerStatus) -> None:
        """Wait for the reply of a trigger whose series was ended; what it says does not matter."""
        try:
            call.exception(timeout=self.link.client.timeouts.end)
        except WaitTimeoutError:
            logger.warning("%s: the DCU did not answer a trigger whose series ended", self.name)
            self._caller = Worker(f"{self.name} trigger")

    def _send_trigger(self, series: Series, timeout: float) -> None:
        last = series.points + 1 == series.ntrigger
        try:
            self.detector.soft_trigger.send(timeout=timeout)
        except LostReplyError as error:
            self.states.confirm_trigger(last, timeout, error)
        except RefusedError as error:
            raise self.states.refused_trigger(error) from error
        if last:
            self.states.wait_for_exposure_to_end(timeout)

    def _end(self, series: Series) -> None:
        """Disarm after the last trigger; the DCU has done so by itself, and accepts it again."""
        self._send_ending(self.detector.disarm)
        series.ended = True
        self.transfer.end(series.delivery, cut_short=False)

    def _end_early(self, series: Series) -> None:
        """End a series that still waits for triggers or exposes, and keep its finished points."""
        if series.ended:
            return
        series.ended = True
        if series.triggered and not (series.used_up and not series.failed):
            self._end_exposure(series)
        self._send_ending(self.detector.disarm)
        if series.triggered:
            self.states.wait_for_files_closed()
            self.transfer.end(
                series.delivery,
                cut_short=True,
                interrupted=series.interrupted or series.failed,
            )

    def _end_exposure(self, series: Series) -> None:
        """End the exposure that may run, by the mildest command that is quick enough."""
        exposure = self._exposure
        frame_time = float(require_value(self.detector.frame_time))
        if series.points == 0 and not (exposure and exposure.by == "cancel"):
            self._send_ending(self.detector.abort)
        elif frame_time <= LONGEST_CANCEL_S or self.states.needs_more_than_disarm():
            self._send_ending(self.detector.cancel, margin=frame_time)

    # ---- single steps ----

    def _check_trigger_mode(self) -> None:
        mode = require_value(self.detector.trigger_mode)
        if mode != "ints":
            raise StateError(
                f"{self.name}: trigger_mode is {mode!r}; points are taken in 'ints': "
                f"{self.name}.detector.trigger_mode.set('ints')"
            )

    def _change(self, staging: Staging, signal: EigerSignal, value: Any) -> None:
        before = require_value(signal)
        ours, original = self._not_put_back.get(signal, (None, None))
        if ours is not None and before == ours:
            before = original
        # Noted first: a put that fails may have been carried out.
        staging.changed.append((signal, before))
        self._not_put_back[signal] = (value, before)
        signal.put_now(value)

    def _put_back_after_failure(self, staging: Staging) -> None:
        try:
            self._put_back(staging)
        except EigerError as error:
            logger.warning("%s: not put back: %s", self.name, error)

    def _put_back(self, staging: Staging) -> None:
        while staging.changed:
            signal, before = staging.changed.pop()
            signal.put_now(before)
            del self._not_put_back[signal]

    def _signal(self, dotted: str) -> EigerSignal:
        subsystem, attribute = dotted.split(".")
        return getattr(getattr(self, subsystem), attribute)

    def _send_ending(self, command: EigerCommand, *, margin: float = 0.0) -> None:
        """Send disarm, cancel or abort; if it fails, the state tells whether it was needed."""
        try:
            command.send(timeout=command.seconds + margin)
        except RefusedError as error:
            # A detector that went into an error, or was initialized by somebody, refuses it.
            if not self.states.is_over():
                raise
            logger.warning("%s: %s; the series is over all the same", self.name, error)
        except LostReplyError as error:
            self.states.confirm_idle(error)

    def _id_from_files(self, staging: Staging) -> int:
        """Return the id of the series that was just armed from its master file's name."""
        start = f"{staging.stem}_"
        ids = [
            int(number)
            for name in self.link.client.files()
            if name.startswith(start)
            and name.endswith(MASTER_ENDING)
            and (number := name[len(start) : -len(MASTER_ENDING)]).isdigit()
        ]
        if not ids:
            raise ReplyError(
                f"{self.name}: arm answered no sequence id, and no master file tells it",
                request=f"PUT {self.link.client.url} command/arm",
            )
        return max(ids)
