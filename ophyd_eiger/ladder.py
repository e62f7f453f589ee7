"""The rungs of a recovery: what each sends, and whether the detector can be used after it.

From the mildest to the last: cancel, abort, disarm, initialize, and a restart of the DCU's software
with initialize after it. Each waits no longer than its timeout. None deletes a file.
"""

import logging
import threading
import time

from ophyd_eiger.errors import (
    DcuError,
    DcuUnreachableError,
    EigerError,
    LostReplyError,
    NotServedError,
    RecoveryError,
)
from ophyd_eiger.recovery_report import DONE, FAILED, SKIPPED, Rung
from ophyd_eiger.replies import number_of
from ophyd_eiger.signals import EigerCommand, EigerSignal
from ophyd_eiger.states import States
from ophyd_eiger.subsystems import System

logger = logging.getLogger(__name__)

ENDINGS = ("cancel", "abort", "disarm")
# In these states those are refused.
LOST = ("na", "error")
# What passes by itself.
PASSING = ("acquire", "configure", "initialize")
# Cancel waits for the image that is being exposed; a longer one is left to abort.
LONGEST_CANCEL_S = 5.0
STATE_PERIOD_S = 0.1
# How often a DCU that does not answer is asked.
REACH_PERIOD_S = 1.0


class Ladder:
    """The rungs of one detector.

    Parameters
    ----------
    states : States
        Asks the detector.
    system : System
        Restarts the DCU.
    closed : threading.Event
        Set when nobody waits any more.
    """

    def __init__(self, states: States, system: System, closed: threading.Event) -> None:
        self.name = states.name
        self.states = states
        self.detector = states.detector
        self.filewriter = states.filewriter
        self.system = system
        self.link = states.link
        self._closed = closed

    # ---- what is so ----

    def state(self) -> str:
        """Return the detector's state.

        Raises
        ------
        DcuError
        """
        return str(self.detector.state.get())

    def state_or_why(self) -> str:
        """Return the detector's state, or which error kept it from being told."""
        try:
            return self.state()
        except DcuError as error:
            return type(error).__name__

    def settle(self, patience: float) -> str:
        """Return the state when the detector is at rest, or as it is after `patience` s."""
        deadline = time.monotonic() + patience
        while True:
            state = self.state_or_why()
            if state not in PASSING or time.monotonic() > deadline:
                return state
            if self._closed.wait(STATE_PERIOD_S):
                return state

    def wrong(self) -> str:
        """Return why the detector cannot be used, or nothing."""
        try:
            state = self.state()
            if not self.states.is_idle(state):
                return f"the state is {state!r}"
            if number_of(self.detector.count_time.get()) is None:
                return "it has no configuration"
            if _value_of(self.filewriter.state) == "error":
                return "the file writer's state is 'error'"
        except DcuError as error:
            return str(error)
        return ""

    def reach(self, patience: float) -> str:
        """Wait until the DCU answers: one that was switched on just now takes a while.

        Raises
        ------
        RecoveryError
            If it does not within `patience` s.
        """
        deadline = time.monotonic() + patience
        while True:
            try:
                return f"it answers: {self.state()}"
            except DcuError as error:
                if time.monotonic() > deadline or self._closed.wait(REACH_PERIOD_S):
                    raise RecoveryError(
                        f"{self.name}: no recovery without the DCU, which gave no answer within "
                        f"{patience:g} s ({error}); see whether it is switched on and connected, "
                        f"then {self.name}.recover()"
                    ) from error

    # ---- the rungs ----

    def take(self, name: str) -> Rung:
        """Send what a rung is, and return what became of it."""
        state = self.state_or_why()
        frame_time = number_of(self.detector.frame_time.last) or 0.0
        why = ""
        if name in ENDINGS and state in LOST:
            why = f"refused in state {state!r}"
        elif name == "cancel" and frame_time > LONGEST_CANCEL_S:
            why = f"it would wait for an image, which takes {frame_time:g} s"
        if why:
            return Rung(name, SKIPPED, why, state, 0.0)
        began = time.monotonic()
        outcome, said = DONE, ""
        try:
            if name in ENDINGS:
                self._end(getattr(self.detector, name), frame_time)
            elif name == "initialize":
                self._initialize()
            else:
                self._restart()
        except EigerError as error:
            outcome, said = FAILED, str(error)
        return Rung(name, outcome, said, self.state_or_why(), time.monotonic() - began)

    def _end(self, command: EigerCommand, frame_time: float) -> None:
        margin = frame_time if command.command == "cancel" else 0.0
        try:
            command.send(timeout=command.seconds + margin)
        finally:
            # Whatever became of the reply, it may have been carried out.
            self.settle(self.link.client.timeouts.end)

    def _initialize(self) -> None:
        patience = self.link.client.timeouts.initialize
        try:
            self.detector.initialize.send(timeout=patience)
        except DcuError as error:
            # What counts is the state: it may have been carried out.
            if isinstance(error, NotServedError) or not self.states.is_idle(self.settle(patience)):
                raise
        self.settle(patience)
        if _value_of(self.filewriter.state) == "error":
            # It has an initialize of its own; files stay.
            self.filewriter.initialize.send()
        self.link.after_command("detector", "initialize")

    def _restart(self) -> None:
        patience = self.link.client.timeouts.initialize
        try:
            self.system.restart.send(timeout=patience)
        except NotServedError:
            raise
        except DcuError as error:
            logger.debug("%s: %s; it may restart all the same", self.name, error)
        self.link.after_command("system", "restart")
        self.reach(patience)
        try:
            self._initialize()
        except (LostReplyError, DcuUnreachableError) as error:
            # The old process may have answered once more, and ended with that in hand.
            logger.debug("%s: %s; asked again once the DCU answers", self.name, error)
            self.reach(patience)
            if self.settle(patience) not in LOST:
                raise
            self._initialize()


def _value_of(signal: EigerSignal) -> object:
    """Return what the DCU says; None where it has nothing of the kind."""
    try:
        return signal.get()
    except NotServedError:
        return None
