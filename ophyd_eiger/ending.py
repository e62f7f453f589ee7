"""Ends series: after the last trigger, or early, by the mildest command that is quick enough."""

import logging
import time
from typing import Any

from ophyd_eiger.errors import (
    DcuError,
    DcuTimeoutError,
    EigerError,
    LostReplyError,
    NotServedError,
    RefusedError,
)
from ophyd_eiger.points import Exposure, Series, Staging
from ophyd_eiger.replies import number_of
from ophyd_eiger.signals import EigerCommand
from ophyd_eiger.states import States
from ophyd_eiger.transfer import Transfer

logger = logging.getLogger(__name__)

# A series that holds finished points is ended by cancel, which keeps them but waits for the image
# that is being exposed; with nothing to keep, abort ends it at once. Beyond this frame time plain
# disarm ends an EIGER1's exposure and keeps what is finished; on EIGER2 it ends no exposure.
LONGEST_CANCEL_S = 5.0
# So long after it was looked at last, as between two points in a prompt, or where this process
# stood still, a series may have given way to another client's; after a pause at once.
UNWATCHED_S = 1.0


class Ending:
    """Ends the series of one detector.

    Parameters
    ----------
    states : States
        Asks the detector.
    transfer : Transfer
        Is told that a series' files are on the DCU.
    """

    def __init__(self, states: States, transfer: Transfer) -> None:
        self.states = states
        self.detector = states.detector
        self.transfer = transfer
        # The name patterns that the DCU may have if arm failed and it is armed all the same.
        self._left_armed_as: list[Any] = []

    def end(self, series: Series) -> None:
        """Disarm after the last trigger; the DCU has done so by itself, and accepts it again.

        Not what another client armed since, if this process stood still meanwhile.
        """
        if self.gave_way_unwatched(series):
            self._warn_gave_way(series)
        else:
            self.send(self.detector.disarm, used_up=True)
        series.ended = True
        self.transfer.end(series.delivery, cut_short=False)

    def end_early(self, series: Series, exposure: Exposure | None) -> None:
        """End a series that still waits for triggers or exposes, and keep its finished points.

        Parameters
        ----------
        series : Series
            The series.
        exposure : Exposure or None
            What is or was exposed last.
        """
        if series.ended:
            return
        is_over = series.failed_to_end and (self.states.is_surely_over() or self.gave_way(series))
        series.failed_to_end = True
        if not is_over and self.gave_way_unwatched(series):
            is_over = True
            self._warn_gave_way(series)
        if is_over:
            series.ended = True
            self._note_over(series)
            return
        if series.triggered and not series.over and not (series.used_up and not series.failed):
            self._end_exposure(series, exposure)
        self.send(self.detector.disarm)
        series.ended = True
        try:
            if series.triggered:
                self.states.wait_for_files_closed()
        finally:
            self._note_over(series)

    def gave_way(self, series: Series) -> bool:
        """Return whether somebody else set the detector up since, so that what is armed is theirs.

        This device puts no other name pattern before the series is ended.
        """
        return self.states.filewriter.name_pattern.get() != series.name_pattern

    def gave_way_unwatched(self, series: Series) -> bool:
        """Return `gave_way` of a series that waited so long that it may have; False if unknown.

        Raises
        ------
        DcuTimeoutError
            If the DCU answers nothing: a command that ends a series would be waited for longer.
        """
        if time.monotonic() - series.watched_at < UNWATCHED_S:
            return False
        try:
            return self.gave_way(series)
        except DcuTimeoutError:
            raise
        except DcuError:
            return False

    def _warn_gave_way(self, series: Series) -> None:
        logger.warning(
            "%s: somebody else has set up the detector since series %d was armed; nothing was "
            "sent to end it",
            self.states.name,
            series.series_id,
        )

    def _note_over(self, series: Series) -> None:
        if not series.triggered:
            self.transfer.journals.end(series.delivery)
            return
        # What its end did not let finish is not waited for by another process.
        series.delivery.note_begun(series.delivery.recorded)
        self.transfer.end(
            series.delivery,
            cut_short=True,
            # Signals from outside may have come for points that nobody asked for.
            interrupted=(series.interrupted or series.failed or series.scheme.mode.is_external),
        )

    def _end_exposure(self, series: Series, exposure: Exposure | None) -> None:
        if series.points == 0 and not (exposure and exposure.by == "cancel"):
            self._send_if_served(self.detector.abort)
        elif self.finishes_image():
            self._send_if_served(self.detector.cancel, margin=self._frame_time())

    def finishes_image(self) -> bool:
        """Return whether a series with points is ended after the image that is being exposed."""
        return self._frame_time() <= LONGEST_CANCEL_S or self.states.needs_more_than_disarm()

    def _frame_time(self) -> float:
        # A DCU that says nothing of it is taken for one that exposes shortly.
        return number_of(self.detector.frame_time.last) or 0.0

    def _send_if_served(self, command: EigerCommand, *, margin: float = 0.0) -> None:
        """Send cancel or abort; a DCU that has no such command is left with disarm."""
        try:
            self.send(command, margin=margin)
        except NotServedError as error:
            logger.warning("%s: %s; disarm is sent alone", self.states.name, error)

    def disarm_after_failure(self, staging: Staging) -> bool:
        """Disarm what may be armed; nothing was exposed, so there is no more to end.

        Return whether that could be done; else `disarm_what_is_left` tries again.
        """
        # What the staging found is put back after a failure.
        pattern = self.states.filewriter.name_pattern
        found = [before for signal, before in staging.changed if signal is pattern]
        self._left_armed_as = [staging.name_pattern, *found]
        try:
            self._disarm_what_failed()
        except EigerError as error:
            logger.warning("%s: not disarmed: %s", self.states.name, error)
        return not self._left_armed_as

    def disarm_what_is_left(self) -> None:
        """Disarm if arm failed so that the detector may be armed, and could not be disarmed then.

        Not what another client armed since.

        Raises
        ------
        EigerError
        """
        if not self._left_armed_as:
            return
        if self.states.is_surely_over():
            self.note_known()
        elif self._is_set_up_by_another(self._left_armed_as):
            logger.warning(
                "%s: somebody else has set up the detector since arm failed; nothing was sent to "
                "disarm it",
                self.states.name,
            )
            self.note_known()
        else:
            self._disarm_what_failed()

    def _disarm_what_failed(self) -> None:
        self.send(self.detector.disarm)
        self.note_known()

    def _is_set_up_by_another(self, ours: list[Any]) -> bool:
        """Return whether the name pattern is none of these; False if the DCU has none."""
        try:
            return self.states.filewriter.name_pattern.get() not in ours
        except NotServedError:
            return False

    def note_known(self) -> None:
        """Note that it is known again whether the detector is armed, and for whom."""
        self._left_armed_as = []

    def send(self, command: EigerCommand, *, margin: float = 0.0, used_up: bool = False) -> None:
        """Send disarm, cancel or abort; if it fails, the state tells whether it was needed."""
        try:
            command.send(timeout=command.seconds + margin)
        except RefusedError as error:
            # A detector that went into an error, or was initialized by somebody, refuses it.
            if not self.states.is_over():
                raise
            logger.warning("%s: %s; the series is over all the same", self.states.name, error)
        except (LostReplyError, DcuTimeoutError) as error:
            self.states.confirm_idle(error, used_up=used_up)
