"""Arms series: sees before that they are possible, and after that they keep what was promised."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ophyd_eiger.deliveries import Delivery, series_ids
from ophyd_eiger.documents import Promise
from ophyd_eiger.ending import Ending
from ophyd_eiger.errors import (
    DcuError,
    DcuTimeoutError,
    LostReplyError,
    NotServedError,
    PromiseError,
    RefusedError,
    ReplyError,
    StateError,
)
from ophyd_eiger.master import SETTINGS
from ophyd_eiger.points import Series, Staging, stem_of
from ophyd_eiger.replies import number_of
from ophyd_eiger.required import require_number, require_value, require_whole
from ophyd_eiger.signals import EigerSignal
from ophyd_eiger.states import STATE_PERIOD_S, States
from ophyd_eiger.triggering import Scheme, scheme_of_steps

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
# Of these, what decides which images and files a series has: asked for again when the next series
# of a staging is armed.
SHARED = (
    "detector.nimages",
    "detector.ntrigger",
    "detector.trigger_mode",
    "filewriter.nimages_per_file",
    "filewriter.mode",
    "filewriter.name_pattern",
)
# Of these, what another client that sets up the detector at the same time may have put before the
# first series of a staging was armed: it decides into which files its images go.
NAMED_BY = ("filewriter.mode", "filewriter.name_pattern", "filewriter.nimages_per_file")
# Of these, what documents say only if there is something to say.
WHERE_SERVED = (
    "detector.photon_energy",
    "detector.threshold_energy",
    "detector.beam_center_x",
    "detector.beam_center_y",
    "detector.detector_distance",
)
# The least that these must be for a series to have images, or for its files to be known.
NUMBERS = {
    "detector.nimages": 1,
    "detector.ntrigger": 1,
    "detector.x_pixels_in_detector": 1,
    "detector.y_pixels_in_detector": 1,
    "filewriter.nimages_per_file": 0,
}
TIMES = ("count_time", "frame_time")
DEPTHS = (8, 16, 32)
# What EIGER2 has beside it, and what the documents can describe of it; a detector without them has
# one image an exposure, in files of one layout.
THRESHOLD_MODES = ("threshold/1/mode", "threshold/2/mode", "threshold/difference/mode")
FILE_FORMAT = "format"
# A layout of firmware 2024.2, in which images have four dimensions.
UNKNOWN_FORMAT = "v2024"
# The first HTTP status that does not say whether the request was carried out.
SERVER_FAULT = 500
# Within so many s of arm the master of a series is listed that does not have all images in it.
MASTER_WITHIN_S = 2.0


class Arming:
    """Arms the series of one detector.

    Parameters
    ----------
    states : States
        Asks the detector.
    ending : Ending
        Disarms what was armed in vain.
    triggers_a_point : callable
        Says how many triggers a point of a step scan takes.
    listed_in_monitor : callable
        Asks which series the monitor lists images of.

    Attributes
    ----------
    promise : Promise or None
        What the images of the series armed last are.
    promise_given : bool
        Whether a run was told so.
    """

    def __init__(
        self,
        states: States,
        ending: Ending,
        triggers_a_point: Callable[[], int],
        listed_in_monitor: Callable[[], set[int]],
    ) -> None:
        self.states = states
        self.name = states.name
        self.detector = states.detector
        self.filewriter = states.filewriter
        self.ending = ending
        self.promise: Promise | None = None
        self.promise_given = False
        self._triggers_a_point = triggers_a_point
        self._listed_in_monitor = listed_in_monitor

    def read_what_is_relied_on(self) -> None:
        """Ask the DCU for what a series depends on, and see that documents can describe it.

        Raises
        ------
        StateError
            With what to change.
        NotServedError, ReplyError
            If the DCU does not have it, or answers what is no such value.
        DcuError
        """
        changed = []
        for dotted in RELIED_ON:
            signal = self._signal(dotted)
            known, before = signal.has_value, signal.last
            self._read(dotted)
            if known and signal.last != before:
                changed.append(f"{signal.resource.partition('/')[2]} {before!r} -> {signal.last!r}")
        if changed:
            logger.warning(
                "%s: not as this device knew it, because somebody else or an initialize changed "
                "it, and taken as it is now: %s",
                self.name,
                ", ".join(changed),
            )
        if self.states.needs_more_than_disarm():
            self._check_thresholds()
            self._check_format()
            self._optional(self.states.detector.trigger_start_delay)
        scheme = self.scheme(None)
        if scheme.mode.is_external:
            self._optional(self.states.monitor["config/mode"])

    def scheme(self, staging: Staging | None) -> Scheme:
        """Return how the next series is taken.

        Raises
        ------
        StateError
            With what to change, if it cannot be.
        """
        if staging is not None and staging.flown is not None:
            self._check_prepared(staging.flown)
            return staging.flown
        try:
            return scheme_of_steps(
                require_value(self.detector.trigger_mode),
                require_whole(self.detector.nimages, 1),
                require_whole(self.detector.ntrigger, 1),
                self._triggers_a_point(),
            )
        except ReplyError:
            raise
        except ValueError as error:
            raise StateError(f"{self.name}: {error}") from None

    def _check_prepared(self, scheme: Scheme) -> None:
        """Refuse a fly scan whose settings somebody changed since `prepare`."""
        detector = self.detector
        prepared = {
            detector.trigger_mode: scheme.mode.value,
            detector.nimages: scheme.nimages,
            detector.ntrigger: scheme.ntrigger,
        }
        for signal, value in prepared.items():
            if signal.last != value:
                raise StateError(
                    f"{self.name}: {signal.key} was set to {signal.last!r} since prepare, which "
                    f"set it to {value!r}; prepare again after the last change"
                )

    def points_show_late(self, scheme: Scheme) -> str:
        """Return why the end of a point would not be seen before its series is over, if so."""
        if not scheme.mode.is_external or scheme.points == 1:
            return ""
        per_file = require_whole(self.filewriter.nimages_per_file)
        if per_file and scheme.images % per_file == 0:
            return ""
        if self._monitor_is_on():
            return ""
        return (
            f"{self.name}: in trigger_mode {scheme.mode.value!r} no file is complete with each "
            f"point (nimages_per_file is {per_file}, a point has {scheme.images} images) and the "
            "monitor is off: a point may be known to be done only when the whole series of "
            f"{scheme.points} points is over. To see each: "
            f"{self.name}.monitor.mode.set('enabled'), or nimages_per_file {scheme.images}, or "
            f"ntrigger {scheme.triggers}"
        )

    def to_be_armed(self, staging: Staging) -> Delivery:
        """Return what is noted of the next series while it is armed."""
        return Delivery.to_be_armed(
            staging.stem,
            staging.directory,
            after=staging.series_id or 0,
            images=self.scheme(staging).total,
            images_per_file=int(number_of(self.filewriter.nimages_per_file.last) or 0),
            policy=staging.policy,
        )

    def arm(self, staging: Staging) -> Series:
        """Arm a series.

        Raises
        ------
        StateError, PromiseError, DcuError
            Nothing is left armed then.
        """
        scheme = self.scheme(staging)
        # What the monitor shows of it counts as taken; not what is there already.
        uses_monitor = scheme.mode.is_external or staging.flown is not None
        in_monitor = self._listed_in_monitor() if uses_monitor and self._monitor_is_on() else set()
        series_id, lost = self._send_arm(staging)
        try:
            # What is armed has these as they were when arm came; nobody can change that any more.
            self._require_unchanged(staging)
            if series_id is None:
                series_id = self._id_from_files(staging, lost)
            staging.series_id = series_id
            self.promise = promise = self._kept_promise(scheme.images)
            delivery = Delivery(
                basename=f"{staging.stem}_{series_id}",
                directory=staging.directory,
                images=scheme.total,
                images_per_file=require_whole(self.filewriter.nimages_per_file),
                shape=promise.shape,
                dtype=promise.dtype,
                settings=self._settings(scheme),
                policy=staging.policy,
            )
        except Exception:
            self.ending.disarm_after_failure(staging)
            raise
        self.ending.note_known()
        stale = self._is_stale(series_id, in_monitor)
        return Series(
            series_id,
            delivery,
            promise,
            scheme,
            name_pattern=staging.name_pattern,
            monitor_is_stale=stale,
        )

    def _require_unchanged(self, staging: Staging) -> None:
        """See that nobody else changed what a series depends on before it was armed.

        Raises
        ------
        StateError
            Naming what was changed.
        """
        is_first = staging.series_id is None
        pattern = self.filewriter.name_pattern
        changed = []
        for signal in map(self._signal, NAMED_BY if is_first else SHARED):
            before = staging.name_pattern if signal is pattern else signal.last
            if self._optional(signal) != before and signal.last != before:
                changed.append(f"{signal.resource.partition('/')[2]} {before!r} -> {signal.last!r}")
        if changed:
            when = "while it was set up" if is_first else "between two points"
            raise StateError(
                f"{self.name}: somebody else changed {', '.join(changed)} {when}, so that the next "
                "images would be others, or in other files, than this run says; nothing was "
                f"exposed{who_holds(pattern.last, staging)}. Take the scan again when nobody else "
                "sets up this detector"
            )
        if not is_first and self.states.needs_more_than_disarm():
            self._check_thresholds()

    def _settings(self, scheme: Scheme) -> dict[str, float]:
        # A trigger may bring its exposure.
        names = [name for name in SETTINGS if not (scheme.mode.takes_one_image and name in TIMES)]
        settings = {name: number_of(getattr(self.detector, name).last) for name in names}
        return {name: value for name, value in settings.items() if value is not None}

    def take_over(self, series: Series, scheme: Scheme) -> None:
        """Have a series that waits for its first trigger be taken by another scheme of as many.

        Raises
        ------
        PromiseError
            If a run was told that a point has another number of images.
        """
        self.promise = self._keep(replace(series.promise, images=scheme.images))
        series.promise, series.scheme = self.promise, scheme
        in_monitor = self._listed_in_monitor() if self._monitor_is_on() else set()
        series.monitor_is_stale = self._is_stale(series.series_id, in_monitor)

    def _is_stale(self, series_id: int, in_monitor: set[int]) -> bool:
        """Return, and say, whether the monitor shows images of another series of this id."""
        if series_id in in_monitor:
            logger.warning(
                "%s: the monitor still holds images of an older series %d, so that it does not "
                "show which points are done; empty it: %s.monitor.clear.set(1)",
                self.name,
                series_id,
                self.name,
            )
        return series_id in in_monitor

    def _monitor_is_on(self) -> bool:
        return self.states.monitor.mode.last == "enabled"

    def _send_arm(self, staging: Staging) -> tuple[int | None, LostReplyError | None]:
        """Send arm, and leave nothing armed if that fails.

        Return the sequence id if it came, and how the reply was lost if it was.
        """
        try:
            return self.detector.arm.send(), None
        except LostReplyError as error:
            try:
                self.states.confirm_ready(error)
            except DcuError:
                # It may have been carried out all the same.
                self.ending.disarm_after_failure(staging)
                raise
            return None, error
        except RefusedError as error:
            if error.status >= SERVER_FAULT:
                self.ending.disarm_after_failure(staging)
                raise
            # Not carried out. If another client was faster, the state has better advice.
            self.states.require_idle()
            raise
        except DcuTimeoutError as error:
            is_disarmed = self.ending.disarm_after_failure(staging)
            done = "was disarmed again" if is_disarmed else "may be armed, and cannot be disarmed"
            raise DcuTimeoutError(
                f"{self.name}: {error}; it {done}. If this DCU needs longer to arm, give "
                "Timeouts(arm=...)",
                request=error.request,
            ) from error
        except DcuError:
            self.ending.disarm_after_failure(staging)
            raise

    def _kept_promise(self, images: int) -> Promise:
        """Return what the images of the series just armed will be, as the run was told it."""
        detector = self.detector
        detector.bit_depth_image.get()
        bits = require_whole(detector.bit_depth_image, 1)
        if bits not in DEPTHS:
            raise ReplyError(
                f"{self.name}: the DCU says that its images have {bits} bits a pixel, and files "
                f"have one of {', '.join(map(str, DEPTHS))}; other times may make it one of them",
                request=f"GET {detector.bit_depth_image.source}",
            )
        shape = (
            require_whole(detector.y_pixels_in_detector, 1),
            require_whole(detector.x_pixels_in_detector, 1),
        )
        return self._keep(Promise(images, shape, np.dtype(f"<u{bits // 8}")))

    def _keep(self, promise: Promise) -> Promise:
        """Return a promise, if it is what the run was told."""
        if self.promise_given and promise != self.promise:
            raise PromiseError(
                f"{self.name}: the next images would be {promise}, but the run was told "
                f"{self.promise}; stage it anew for each such setting, as a run of its own does "
                "(bit_depth_image follows count_time)"
            )
        return promise

    def _id_from_files(self, staging: Staging, lost: LostReplyError | None) -> int:
        """Return the id of the series that was just armed from its master file's name.

        Raises
        ------
        ReplyError
            If no master is listed soon.
        """
        deadline = time.monotonic() + MASTER_WITHIN_S
        while True:
            refused: DcuError | None = None
            try:
                ids = self._newer_ids(staging)
            except DcuError as error:
                # There may be no list, or none for a moment.
                ids, refused = [], error
            if ids:
                return max(ids)
            if time.monotonic() > deadline:
                raise self._without_id(lost) from (lost or refused)
            time.sleep(STATE_PERIOD_S)

    def _newer_ids(self, staging: Staging) -> list[int]:
        """Return the ids of a staging's series whose masters are listed, but for those before."""
        ids = series_ids(self.states.link.client.files(), staging.stem)
        before = -1 if staging.series_id is None else staging.series_id
        return [number for number in ids if number > before]

    def _without_id(self, lost: LostReplyError | None) -> ReplyError:
        what, advice = f"{lost}", "Take the scan again"
        if lost is None:
            what = "arm answered no sequence id"
            advice = "An id is in the reply of every DECTRIS DCU: does something stand between?"
        return ReplyError(
            f"{self.name}: {what}, and no master file tells the id, so that nobody knows how the "
            f"files will be named; the series was disarmed. {advice}",
            request=f"PUT {self.states.link.client.url} command/arm",
        )

    def _check_thresholds(self) -> None:
        modes = {key: self._optional(self.detector[f"config/{key}"]) for key in THRESHOLD_MODES}
        enabled = [key for key, mode in modes.items() if mode == "enabled"]
        if len(enabled) > 1:
            raise StateError(
                f"{self.name}: {', '.join(enabled)} are 'enabled', so that each exposure gives "
                f"{len(enabled)} images, which the documents of a run cannot describe yet; "
                f"disable all but one: {self.name}.detector['config/{enabled[-1]}'].set('disabled')"
            )

    def _check_format(self) -> None:
        found = self._optional(self.filewriter[f"config/{FILE_FORMAT}"])
        if isinstance(found, str) and UNKNOWN_FORMAT in found:
            raise StateError(
                f"{self.name}: the file writer's format is {found!r}, whose images of four "
                "dimensions the documents of a run cannot describe yet; set "
                f"{self.name}.filewriter['config/{FILE_FORMAT}'] to a legacy format"
            )

    def _optional(self, signal: object) -> object:
        if not isinstance(signal, EigerSignal) or signal.served is False:
            return None
        try:
            return signal.get()
        except NotServedError:
            return None

    def _read(self, dotted: str) -> None:
        """Ask for what a series depends on, and see that it is of a kind that can be relied on."""
        signal = self._signal(dotted)
        try:
            signal.get()
        except NotServedError as error:
            if dotted in WHERE_SERVED:
                return
            raise NotServedError(
                f"{self.name}: no data can be taken with this DCU, because a series depends on "
                f"{signal.subsystem}/{signal.resource}: {error}",
                request=error.request,
                status=error.status,
                text=error.text,
            ) from error
        if dotted in NUMBERS:
            require_whole(signal, NUMBERS[dotted])
        if dotted.removeprefix("detector.") in TIMES:
            require_number(signal)

    def _signal(self, dotted: str) -> EigerSignal:
        subsystem, attribute = dotted.split(".")
        return getattr(getattr(self.states, subsystem), attribute)


def who_holds(name_pattern: object, staging: Staging) -> str:
    """Return who may hold a detector whose name pattern is not a staging's own, if it tells."""
    theirs = stem_of(name_pattern)
    if not theirs or theirs == staging.stem:
        return ""
    return f"; another client, whose files begin with {theirs!r}, may hold it"
