"""What the detector's state says: may a series start, is it over, what became of a command.

A command is never sent twice. When its reply is lost, the state tells whether it was carried out.
"""

import contextlib
import time
from collections.abc import Callable
from typing import Any

from ophyd_eiger.errors import (
    DcuError,
    DcuTimeoutError,
    LostReplyError,
    NotServedError,
    RefusedError,
    StateError,
)
from ophyd_eiger.replies import number_of
from ophyd_eiger.signals import EigerSignal, Link
from ophyd_eiger.subsystems import Detector, Filewriter, Monitor

# A request that may have been carried out, though no reply says so.
Unanswered = LostReplyError | DcuTimeoutError

STATE_PERIOD_S = 0.05
# In these no series is armed, and none can be.
LOST = ("error", "na")
# A reply that is lost after so long an exposure is lost because the DCU closes connections that
# were idle for five minutes, or nearly so (measured by how early it may come, in s).
LONG_EXPOSURE_S = 10.0
EARLY_S = 2.0
# In the SIMPLON API Reference V1.3 an initialized detector is "ready", armed or not; firmware from
# API 1.6 on tells "idle" from "ready".
FIRST_API_WITH_IDLE = (1, 6)
FIRST_API_OF_EIGER2 = (1, 8)
# Bytes by the unit that the DCU states for its room.
UNITS = {"b": 1, "byte": 1, "bytes": 1, "kb": 1024, "kib": 1024, "mb": 1024**2, "gb": 1024**3}


class States:
    """Asks the detector and its file writer for their states.

    Parameters
    ----------
    name : str
        Name of the device, for messages.
    detector, filewriter, monitor : Detector, Filewriter, Monitor
        The subsystems asked.
    link : Link
        For the DCU's address, version and timeouts.
    """

    def __init__(
        self,
        name: str,
        detector: Detector,
        filewriter: Filewriter,
        monitor: Monitor,
        link: Link,
    ) -> None:
        self.name = name
        self.detector = detector
        self.filewriter = filewriter
        self.monitor = monitor
        self.link = link
        # What this DCU calls a detector that is initialized and disarmed; None if not known yet.
        self._idle_word: str | None = None
        # When the state of an exposure was asked for last, by time.monotonic: before the answer,
        # which may be read late.
        self.asked_at = 0.0

    def note_idle(self) -> None:
        """Learn what this DCU calls a detector that was just initialized or disarmed.

        ALBA's eiger-simulator 0.5.1 has API 1.6 and calls it "ready", as V1.3 does. Of a DCU that
        ever said "idle" a detector that is ready was armed since, by somebody else.
        """
        before, now = self.detector.state.last, None
        with contextlib.suppress(DcuError):  # the command was carried out all the same
            now = self.detector.state.get()
        if "idle" in (before, now):
            self._idle_word = "idle"
        elif self._idle_word is None and now == "ready":
            self._idle_word = "ready"

    def require_idle(self) -> None:
        """See that the detector is initialized and disarmed.

        Raises
        ------
        StateError
            With what to do.
        """
        state = self.detector.state.get()
        if self.is_idle(state):
            return
        advice = {
            "na": f"initialize it: {self.name}.initialize() (puts energy and times to defaults)",
            "error": f"bring it back: {self.name}.recover() with its settings, or initialize it: "
            f"{self.name}.initialize(); status/error may say why",
            "initialize": "wait until it is idle",
            "configure": "wait until it is idle",
            "ready": "somebody armed it; if nobody uses it, disarm it: "
            f"{self.name}.detector.disarm.set(1); if it was a program of yours that was killed, "
            "`ophyd-eiger fetch` does, and brings its files",
            "acquire": "somebody takes data with it; if nobody does, end that: "
            f"{self.name}.detector.abort.set(1)",
        }
        raise StateError(
            f"{self.name}: the detector at {self.link.client.url} is in state {state!r}, not "
            f"'idle'; {advice.get(str(state), 'look at status/error')}"
        )

    def is_idle(self, state: str) -> bool:
        """Return whether a detector in this state is initialized and disarmed."""
        if state == "idle":
            self._idle_word = state
            return True
        known_as_idle = self._idle_word == "ready" or self._api() < FIRST_API_WITH_IDLE
        return state == "ready" and known_as_idle

    @staticmethod
    def is_surely_idle(state: str) -> bool:
        """Return whether the state alone says so: that of V1.3, "ready", may also mean armed."""
        return state == "idle"

    def _api(self) -> tuple[int, ...]:
        numbers = [part for part in self.link.client.api_version.split(".")[:2] if part.isdigit()]
        return tuple(int(number) for number in numbers)

    def needs_more_than_disarm(self) -> bool:
        """Return whether disarm alone leaves an exposure running, as on EIGER2 from 2020 on."""
        return self._api() >= FIRST_API_OF_EIGER2

    def in_bytes(self, room: Any) -> float | None:
        """Return what the DCU says of its room for files in bytes; None where it is no number.

        kB at API 1.6 and bytes at 1.8, where it states no unit.
        """
        number = number_of(room)
        if number is None or number < 0:
            return None
        otherwise = 1 if self.needs_more_than_disarm() else 1024
        return number * UNITS.get(self.filewriter.buffer_free.unit.lower(), otherwise)

    def refused_trigger(self, error: RefusedError) -> StateError:
        """Return what to tell of a trigger that the detector refused."""
        state = self.detector.state.get()
        if isinstance(error, NotServedError):
            hint = f"external signals are left: {self.name}.detector.trigger_mode.set('exts')"
        elif state == "error":
            hint = (
                f"{self.name}.recover() (or `ophyd-eiger recover`) brings it back with its settings"
            )
        elif state == "na":
            hint = f"it was restarted; {self.name}.recover() brings it back with its settings"
        else:
            hint = "somebody may have ended the series, and the next trigger arms a new one"
        return StateError(f"{error}; the state is {state!r}: {hint}")

    def wait_for_exposure_to_end(self, timeout: float) -> str:
        """Wait until the detector does not expose any more, and return its state.

        Raises
        ------
        StateError
            If it still does after `timeout` s, or if the exposure ended in a fault.
        """
        deadline = time.monotonic() + timeout
        while (state := self.ask_unless_lost()) == "acquire":
            if time.monotonic() > deadline:
                raise StateError(
                    f"{self.name}: state was still 'acquire' {timeout:g} s after the trigger; end "
                    f"it: {self.name}.detector.abort.set(1)"
                )
            time.sleep(STATE_PERIOD_S)
        return state

    def wait_out(self, seconds: float, timeout: float) -> str:
        """Wait out an exposure of which the trigger's reply says nothing, and return the state.

        Parameters
        ----------
        seconds : float
            The exposure.
        timeout : float
            How long the state may say that it is not over.

        Raises
        ------
        StateError
            As `wait_for_exposure_to_end`.
        """
        earliest = time.monotonic() + seconds
        # A detector that is not seen exposing has done so already, or is about to begin.
        while (state := self.ask_unless_lost()) != "acquire" and time.monotonic() < earliest:
            if state == "idle":
                return state
            time.sleep(min(STATE_PERIOD_S, seconds))
        return self.wait_for_exposure_to_end(timeout) if state == "acquire" else state

    def ask_unless_lost(self) -> str:
        """Return the state.

        Raises
        ------
        StateError
            If it is one in which no image is taken any more.
        """
        self.asked_at = time.monotonic()
        state = self.detector.state.get()
        if state in LOST:
            raise StateError(
                f"{self.name}: the detector went into state {state!r} during the exposure"
                f"{self._faults()}; {self.name}.recover() brings it back with its settings, "
                f"{self.name}.initialize() with its defaults"
            )
        return state

    def _faults(self) -> str:
        faults = _faults_of(self.detector.error) + _faults_of(self.filewriter.error)
        return f" ({', '.join(faults)})" if faults else ""

    def wait_for_files_closed(self) -> None:
        """Wait until the file writer has written the last file of an ended series.

        Raises
        ------
        StateError
        """
        deadline = time.monotonic() + self.link.client.timeouts.end
        while _if_served(self.filewriter.state) == "acquire":
            if time.monotonic() > deadline:
                raise StateError(f"{self.name}: the file writer still writes after disarm")
            time.sleep(STATE_PERIOD_S)

    def confirm_ready(self, lost: LostReplyError) -> None:
        """Wait until the state shows that an arm without reply was carried out.

        Raises
        ------
        LostReplyError
            If it does not, or if it cannot be asked.
        """
        patience = self.link.client.timeouts.arm
        self._confirm(lost, "ready", lambda state: state == "ready", patience)

    def confirm_idle(self, lost: Unanswered, *, used_up: bool = False) -> None:
        """Wait until the state shows that disarm, cancel or abort without reply was carried out.

        Parameters
        ----------
        lost : LostReplyError or DcuTimeoutError
            How the reply was lost, or that none came.
        used_up : bool
            Whether the series had its last trigger, after which no detector is armed.

        Raises
        ------
        LostReplyError, DcuTimeoutError
            If it does not, or if it cannot be asked.
        """
        reached = self.is_idle if used_up else self.is_surely_idle
        self._confirm(lost, "idle", reached, self.link.client.timeouts.end)

    def _confirm(
        self, lost: Unanswered, wanted: str, reached: Callable[[str], bool], patience: float
    ) -> None:
        deadline = time.monotonic() + patience
        while not reached(state := self._after(lost)):
            if time.monotonic() > deadline or state not in ("configure", "acquire"):
                raise self._still_lost(lost, f"the state is {state!r}, not {wanted!r}")
            time.sleep(STATE_PERIOD_S)

    def confirm_trigger(self, last: bool, seconds: float, began: float, lost: Unanswered) -> None:
        """Wait out an exposure whose trigger had no reply, if it was carried out.

        Parameters
        ----------
        last : bool
            Whether it was the last trigger of its series, after which the state is idle.
        seconds : float
            The exposure that was asked for.
        began : float
            When the trigger was sent, on the monotonic clock.
        lost : LostReplyError or DcuTimeoutError
            How the reply was lost, or that none came.

        Raises
        ------
        LostReplyError, DcuTimeoutError
            If nothing shows that it was: a detector that is ready may be so still or again.
        """
        passed = time.monotonic() - began
        seen = self._after(lost) == "acquire"
        timeout = seconds + self.link.client.timeouts.trigger_margin
        state = self.wait_for_exposure_to_end(timeout)
        # A connection that was never broken tells nothing of how long the exposure took.
        broken = isinstance(lost, LostReplyError)
        outlasted = broken and seconds >= LONG_EXPOSURE_S and passed >= seconds - EARLY_S
        if not (seen or outlasted or (last and self.is_surely_idle(state))):
            raise self._still_lost(
                lost, f"the state is {state!r}: the images may not have been taken"
            )

    def is_over(self) -> bool:
        """Return whether there is nothing to end: no series is armed, or the detector is lost."""
        state = self.detector.state.get()
        return self.is_idle(state) or state in LOST

    def is_surely_over(self) -> bool:
        """Return `is_over` as far as the state alone tells."""
        state = self.detector.state.get()
        return self.is_surely_idle(state) or state in LOST

    def _after(self, lost: Unanswered) -> str:
        try:
            return self.detector.state.get()
        except DcuError as error:
            found = f"and then the state could not be asked: {error}"
            raise self._still_lost(lost, found) from error

    def _still_lost(self, lost: Unanswered, found: str) -> Unanswered:
        advice = ""
        if isinstance(lost, DcuTimeoutError):
            advice = f"; {self.name}.recover() brings back a detector that does not react"
        return type(lost)(f"{self.name}: {lost}; {found}{advice}", request=lost.request)


def _faults_of(signal: EigerSignal) -> list[str]:
    try:
        found = signal.get()
    except DcuError:
        return []
    return [str(fault) for fault in found] if isinstance(found, list) else []


def _if_served(signal: EigerSignal) -> Any:
    try:
        return signal.get()
    except NotServedError:
        return None
