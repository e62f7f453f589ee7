"""The sensor's high voltage: its state, and the reset that takes its time.

Knows nothing of parameters, series or HTTP.
"""

from typing import Any

from sim_dcu.parameters import RefusedError
from sim_dcu.states import DetectorState, State
from sim_dcu.subsystem import Machine

# In s: what hv_reset takes, and takes without a value (API reference 1.8, areaDetector).
SHORTEST_RESET, LONGEST_RESET, DEFAULT_RESET = 1.0, 600.0, 30.0


class HighVoltage:
    """The high voltage of one detector.

    Parameters
    ----------
    machine : Machine
        Its clock and its lock.

    Attributes
    ----------
    state : str
        `OFF`, `RAMPING` or `READY`.
    """

    def __init__(self, machine: Machine):
        self._machine = machine
        self.state = "OFF"

    def switch(self, on: bool) -> None:
        """Be on or off."""
        self.state = "READY" if on else "OFF"

    @staticmethod
    def duration(value: Any) -> float:
        """Return how long a reset with `value` takes, in s.

        Raises
        ------
        RefusedError
            Where the value is not a number within the limits.
        """
        if value is None:
            return DEFAULT_RESET
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RefusedError("hv_reset: the value is not a number of seconds")
        if not SHORTEST_RESET <= value <= LONGEST_RESET:
            raise RefusedError(f"hv_reset: not within [{SHORTEST_RESET:g}, {LONGEST_RESET:g}] s")
        return float(value)

    def reset(self, seconds: float, state: DetectorState) -> dict[str, Any]:
        """Switch off and on again; called on the worker, which is busy for `seconds`."""
        interrupt = self._machine.begin_wait()
        # Off for half the time and ramping for the other: an estimate.
        for phase in ("OFF", "RAMPING"):
            with self._machine.lock:
                state.require("hv_reset", State.IDLE)
                self.state = phase
            self._machine.clock.wait(seconds / 2, interrupt)
        with self._machine.lock:
            self.state = "READY"
        return {}
