"""Brings a detector back that does not do what it should, by the mildest means that helps.

The ladder is climbed no higher than needed: after each rung the state, the configuration and the
file writer tell whether the detector is idle and can be used. Settings that a rung puts to their
defaults are put back as they were last known. It works in a thread of its own, because the
detector's worker may wait for the very reply that does not come.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from ophyd.utils.errors import WaitTimeoutError

from ophyd_eiger.configuration import Configuration
from ophyd_eiger.errors import DcuError, EigerError, RecoveryError
from ophyd_eiger.ladder import Ladder
from ophyd_eiger.progress import Progress
from ophyd_eiger.recovery_report import DONE, FAILED, RUNGS, RecoveryReport, Rung
from ophyd_eiger.replies import number_of
from ophyd_eiger.signals import EigerSignal
from ophyd_eiger.snapshot import Snapshot
from ophyd_eiger.states import States
from ophyd_eiger.subsystems import System
from ophyd_eiger.worker import EigerStatus

logger = logging.getLogger(__name__)


class RecoveryStatus(EigerStatus):
    """A recovery: which rung it is at, whether the detector is back, and the report."""

    def __init__(self, report: RecoveryReport) -> None:
        self.report = report
        super().__init__(f"{report.device}: recover")

    def __repr__(self) -> str:
        text = super().__repr__()
        return f"{text}\n{self.report!r}" if self.done and self.success else text

    __str__ = __repr__


class Recovery:
    """The recovery of one detector; `bps.mv(eiger.recovery, "restart")` is one, too.

    Parameters
    ----------
    states : States
        Asks the detector.
    system : System
        Restarts the DCU.
    configuration : Configuration
        Puts the settings back.
    refresh : callable
        Reads every resource.
    was_connected : callable
        Whether that was ever done.
    originals : callable
        Returns what a staging has changed and not put back yet: the value before, by signal.
    unstage : callable
        Ends a staging; returns its Status, or None where nothing is staged.

    Attributes
    ----------
    last : RecoveryReport or None
        Of the newest recovery.
    again : str
        What does it once more, for those who read of a recovery that failed.
    """

    parent = None

    def __init__(
        self,
        states: States,
        system: System,
        configuration: Configuration,
        *,
        refresh: Callable[[], None],
        was_connected: Callable[[], bool],
        originals: Callable[[], Mapping[EigerSignal, Any]],
        unstage: Callable[[], EigerStatus | None],
    ) -> None:
        self.device = states.name
        self.name = f"{states.name}_recovery"
        self.link = states.link
        self.filewriter = states.filewriter
        self.frame_time = states.detector.frame_time
        self.configuration = configuration
        self.last: RecoveryReport | None = None
        self.again = f"{self.device}.recover(), which also puts back the settings known last"
        self._closed = threading.Event()
        self._ladder = Ladder(states, system, self._closed)
        self._refresh = refresh
        self._was_connected = was_connected
        self._originals = originals
        self._unstage = unstage
        # What is to be put back: kept until it is, over several recoveries if it must be.
        self._owed: Snapshot | None = None
        self._status: RecoveryStatus | None = None
        self._lock = threading.Lock()

    def set(self, up_to: str = "restart") -> RecoveryStatus:
        """Climb; one that is under way is gone on with.

        Parameters
        ----------
        up_to : {"cancel", "abort", "disarm", "initialize", "restart"}
            The highest rung.

        Raises
        ------
        ValueError
            If there is no such rung.
        """
        if up_to not in RUNGS:
            raise ValueError(f"{self.name}: {up_to!r} is none of the rungs {', '.join(RUNGS)}")
        with self._lock:
            if self._status is not None and not self._status.done:
                return self._status
            report = self.last = RecoveryReport(self.device)
            status = self._status = RecoveryStatus(report)
        names = RUNGS[: RUNGS.index(up_to) + 1]
        status.follow(lambda: Progress(report.climbed(names), len(names), "rungs", report.now))
        threading.Thread(
            target=self.link.worker.finish,
            args=(lambda: self._recover(report, names), status),
            name=status.work,
            daemon=True,
        ).start()
        return status

    @property
    def is_under_way(self) -> bool:
        """Whether a recovery is not over yet."""
        return self._status is not None and not self._status.done

    @property
    def owed(self) -> dict[str, Any]:
        """The settings that are not put back yet, by names as of `configure`."""
        values = {} if self._owed is None else self._owed.values
        return {
            f"{signal.subsystem}.{signal.key}": value
            for signal, value in values.items()
            if signal.served is not False
        }

    def forget(self) -> None:
        """Put nothing back any more: somebody has begun to set the detector up anew."""
        if self._owed is not None:
            logger.warning(
                "%s: initialized anew, so what it was set to before is not put back any more: %s",
                self.device,
                self.owed,
            )
        self._owed = None

    def close(self) -> None:
        """Climb no further."""
        self._closed.set()

    # ---- the work ----

    def _recover(self, report: RecoveryReport, names: tuple[str, ...]) -> None:
        with self.link.client.ledger.background("recover"):
            known = self._known() if self._was_connected() else None
            self._end_staging(report)
            self._reach(report)
            if known is None and self._ladder.state() not in ("na", "initialize"):
                # Never connected: what it is set to now is all that can be known.
                self._read_what_can_be(report)
                known = self._known()
            self._climb(report, names, known)
            if self._owed is not None:
                self._put_settings_back(report, self._owed)
            report.recovered = True
            self._look_around(report)
        logger.warning("%s: recovered: %s", self.device, report.summary())

    def _read_what_can_be(self, report: RecoveryReport) -> None:
        try:
            self._refresh()
        except DcuError as error:
            # What hangs may be what the recovery is for.
            report.note(f"not all of its settings could be read: {error}")
            for subsystem in self.configuration.subsystems.values():
                with contextlib.suppress(DcuError):
                    subsystem.refresh()

    def _known(self) -> Snapshot:
        return self._owed or Snapshot(self.configuration, self._originals())

    def _end_staging(self, report: RecoveryReport) -> None:
        status = self._unstage()
        if status is None:
            return
        report.now = "unstage"
        logger.warning("%s: recover: unstage ...", self.device)
        timeouts = self.link.client.timeouts
        patience = 3 * timeouts.end + timeouts.files + (number_of(self.frame_time.last) or 0.0)
        began = time.monotonic()
        outcome, said = DONE, ""
        try:
            status.wait(patience)
        except WaitTimeoutError:
            outcome, said = FAILED, f"not done within {patience:g} s; it goes on"
        except Exception as error:  # noqa: BLE001 - what went wrong is in the report
            outcome, said = FAILED, str(error)
        self._add(report, "unstage", outcome, said, began)
        report.note("it was staged and is not any more: a plan that is paused cannot go on with it")

    def _reach(self, report: RecoveryReport) -> None:
        try:
            self._ladder.state()
        except DcuError:
            report.now = "reach the DCU"
            began = time.monotonic()
            said = self._ladder.reach(self.link.client.timeouts.end)
            self._add(report, "reach the DCU", DONE, said, began)

    def _add(
        self, report: RecoveryReport, name: str, outcome: str, said: str, began: float
    ) -> None:
        seconds = time.monotonic() - began
        said = said.removeprefix(f"{self.device}: ")
        report.add(Rung(name, outcome, said, self._ladder.state_or_why(), seconds))
        logger.warning("%s: recover: %s", self.device, report.rungs[-1])

    def _climb(
        self, report: RecoveryReport, names: tuple[str, ...], known: Snapshot | None
    ) -> None:
        if self._ladder.state_or_why() == "initialize":
            # Somebody is about it.
            self._ladder.settle(self.link.client.timeouts.initialize)
        wrong = self._ladder.wrong()
        for name in names:
            if not wrong:
                return
            if self._closed.is_set():
                raise RecoveryError(f"{self.device}: the recovery ended with the device")
            report.now = name
            if name in ("initialize", "restart"):
                self._owed = known
            logger.warning("%s: recover: %s, because %s ...", self.device, name, wrong)
            report.add(self._ladder.take(name))
            logger.warning("%s: recover: %s", self.device, report.rungs[-1])
            wrong = self._ladder.wrong()
        if wrong:
            raise RecoveryError(
                f"{self.device}: nothing brought the detector back ({report.summary()}); in the "
                f"end {wrong}. What is left is for a person: see what the DCU at "
                f"{self.link.client.url} says of itself, switch it off and on if it must be, then "
                f"{self.again}. No file on the DCU was deleted"
            )

    def _put_settings_back(self, report: RecoveryReport, owed: Snapshot) -> None:
        report.now = "settings"
        self._see_failures(report)
        try:
            report.restored = owed.restore(self.configuration, self.link.client.timeouts.initialize)
        except (EigerError, WaitTimeoutError) as error:
            why = "it took too long" if isinstance(error, WaitTimeoutError) else error
            raise RecoveryError(
                f"{self.device}: the detector is idle again, but its settings are not as they "
                f"were: {why}; once more: {self.again}"
            ) from error
        put, lost = owed.restore_arrays(self.link.client.timeouts.initialize)
        report.arrays = tuple(put)
        report.lost = (*lost, *owed.gone())
        self._owed = None

    def _see_failures(self, report: RecoveryReport) -> None:
        """Take note of failures that nobody waited for: the next setting would raise them."""
        while True:
            try:
                self.link.worker.raise_unseen()
            except Exception as error:  # noqa: BLE001 - whatever it was, a person learns of it
                report.note(f"failed before, and nobody waited for it: {error}")
            else:
                return

    def _look_around(self, report: RecoveryReport) -> None:
        if report.restored is None and report.sent("initialize", "restart"):
            report.note("no settings were known, so all are the detector's defaults: set it up")
        try:
            free = number_of(self.filewriter.buffer_free.get())
        except DcuError:
            return
        if free == 0:
            report.note(
                "the DCU has no room for files: fetch what you need, then clear it "
                f"({self.device}.filewriter.clear.set(1) deletes every file on the DCU)"
            )
