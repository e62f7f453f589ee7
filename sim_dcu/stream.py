"""The stream subsystem: its config and status. The data stream itself is not simulated.

Knows nothing of HTTP, nor of ZeroMQ.
"""

from typing import Any

from sim_dcu.parameters import ParameterStore
from sim_dcu.series import ArmedSeries
from sim_dcu.subsystem import Argument, Machine, Subsystem
from sim_dcu.tables.interfaces import Interfaces


class _Series:
    """The sink that knows when a series is over."""

    def __init__(self, stream: "Stream"):
        self._stream = stream

    def add(self, number: int, chunk: bytes) -> None:
        """Let the image pass: nobody listens."""

    def close(self) -> None:
        """End the series."""
        self._stream.series_closed()


class Stream(Subsystem):
    """The stream subsystem.

    A mode put while a series is armed counts from the next one, as the file writer's does.

    Parameters
    ----------
    machine : Machine
        Shared with the other subsystems.
    interfaces : Interfaces
        The generation's resources.
    """

    def __init__(self, machine: Machine, interfaces: Interfaces):
        super().__init__(
            machine,
            ParameterStore(interfaces.stream_config),
            interfaces.stream_status,
            {"initialize": self._initialize},
        )
        self._streaming = False

    def open_series(self, series: ArmedSeries) -> _Series | None:
        """Return the sink of a series' images, or None where the stream is disabled."""
        with self.machine.lock:
            self._streaming = self.config["mode"] == "enabled"
            return _Series(self) if self._streaming else None

    def series_closed(self) -> None:
        """Note that the last image of the series is out."""
        with self.machine.lock:
            self._streaming = False

    def status_value(self, key: str) -> Any:
        """Return the value of status resource `key`."""
        if key == "error":
            return []
        # Without a listener a push socket keeps its messages; none is counted as dropped.
        if key == "dropped":
            return 0
        # Acquire from arm until the last image is out (API reference 1.6).
        if self._streaming:
            return "acquire"
        return "ready" if self.config["mode"] == "enabled" else "disabled"

    def reset(self) -> None:
        """Set the config to its defaults."""
        with self.machine.lock:
            self.config.reset()

    def _initialize(self, _argument: Argument) -> None:
        self.reset()
