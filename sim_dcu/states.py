"""The states of a detector, and the one it is in.

Knows no command: who may do what in which state is asked with `require`.
"""

import logging
from collections import deque
from enum import StrEnum

from sim_dcu.parameters import RefusedError

log = logging.getLogger(__name__)

REMEMBERED_STATES = 1000


class State(StrEnum):
    """What `status/state` says."""

    NA = "na"
    INITIALIZE = "initialize"
    IDLE = "idle"
    CONFIGURE = "configure"
    READY = "ready"
    ACQUIRE = "acquire"
    ERROR = "error"


class DetectorState:
    """The state now, those before, and what is wrong; under the DCU's lock.

    Attributes
    ----------
    now : State
        The state.
    passed : deque of State
        The latest states in order, the one now at the end.
    fault : str
        Why the state is error, or empty.
    """

    def __init__(self) -> None:
        self.now = State.NA
        self.passed: deque[State] = deque([State.NA], maxlen=REMEMBERED_STATES)
        self.fault = ""

    def enter(self, state: State) -> None:
        """Be in `state`; what was wrong is over unless that is error."""
        if state is not State.ERROR:
            self.fault = ""
        if state is not self.now:
            log.info("state %s -> %s", self.now, state)
            self.now = state
            self.passed.append(state)

    def fail(self, reason: str) -> None:
        """Be in state error for `reason`."""
        self.fault = reason
        self.enter(State.ERROR)

    def require(self, command: str, *states: State) -> None:
        """Let `command` through in one of `states`.

        Raises
        ------
        RefusedError
            In any other.
        """
        if self.now not in states:
            raise RefusedError(f"{command} is not possible in state {self.now}")
