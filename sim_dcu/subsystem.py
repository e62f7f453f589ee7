"""What the subsystems of a DCU have in common, and what they share.

Knows nothing of a particular subsystem, nor of HTTP.
"""

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from sim_dcu.clock import Clock, local_time, local_time_with_zone
from sim_dcu.faults import Faults
from sim_dcu.firmware import Firmware
from sim_dcu.parameters import (
    NotAllowedError,
    NotFittedError,
    ParameterStore,
    RefusedError,
    UnknownResourceError,
)
from sim_dcu.status import Status

# What a command is given: read only by a command that wants it, because EIGER1 takes any body.
Argument = Callable[[], Any]
Command = Callable[[Argument], Any]


class Machine:
    """The lock, the clock and the worker that all subsystems of one DCU share.

    All that changes the detector runs on the one worker, in the order of arrival, so that two
    clients never change it at the same time. What ends a series does not queue there.

    Parameters
    ----------
    clock : Clock
        Waits for the detector.
    firmware : Firmware
        The habits of the generation.
    faults : Faults or None
        Those on request; None is a set of its own.
    """

    def __init__(self, clock: Clock, firmware: Firmware, faults: Faults | None = None):
        self.faults = Faults() if faults is None else faults
        self.clock = clock
        self.firmware = firmware
        self.lock = threading.RLock()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sim-dcu-worker")
        self._interrupt = threading.Event()
        self._closing = False

    def submit(self, job: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """Queue `job` on the worker."""
        return self._worker.submit(job, *arguments)

    def begin_wait(self) -> threading.Event:
        """Return a fresh event for the wait of the job that calls."""
        with self.lock:
            self._interrupt = threading.Event()
            if self._closing:
                self._interrupt.set()
            return self._interrupt

    def interrupt(self) -> None:
        """Cut short the wait of the job that runs now."""
        with self.lock:
            self._interrupt.set()

    def close(self) -> None:
        """End the worker; what is still queued is dropped."""
        with self.lock:
            self._closing = True
            self._interrupt.set()
        self._worker.shutdown(wait=True, cancel_futures=True)


def after(done: "Future[None]", reply: Any, failure: Callable[[], str] = str) -> "Future[Any]":
    """Return a future of `reply` that waits for `done`.

    Raises
    ------
    RefusedError
        From the future's result, where `done` failed or `failure` then returns a text.
    """
    result: Future[Any] = Future()
    result.set_running_or_notify_cancel()

    def pass_on(finished: "Future[None]") -> None:
        error = finished.exception()
        text = str(error) if error is not None else failure()
        if text:
            refusal = RefusedError(text)
            refusal.__cause__ = error
            result.set_exception(refusal)
        else:
            result.set_result(reply)

    done.add_done_callback(pass_on)
    return result


class Subsystem:
    """One subsystem: a config, a status and commands.

    Parameters
    ----------
    machine : Machine
        Shared with the other subsystems.
    config : ParameterStore
        Its config; every access is under the machine's lock.
    status : sequence of Status
        Its status resources.
    commands : mapping
        What each command does; it returns the reply (a JSON object or None) or a future of it.
    not_fitted : sequence of str
        Status resources whose hardware this model lacks.

    Attributes
    ----------
    walks : frozenset of str
        Status resources that take long to find, and for which nobody else is kept waiting.
    """

    walks: frozenset[str] = frozenset()

    def __init__(
        self,
        machine: Machine,
        config: ParameterStore,
        status: Sequence[Status],
        commands: Mapping[str, Command],
        not_fitted: Sequence[str] = (),
    ):
        self.machine = machine
        self.config = config
        self._status = {entry.key: entry for entry in status}
        self._commands = dict(commands)
        self._not_fitted = frozenset(not_fitted)

    def status_value(self, key: str) -> Any:
        """Return the value of status resource `key`; a subsystem with a status has its own."""
        raise UnknownResourceError(f"Parameter {key} does not exist")

    def status_time(self, status: Status) -> str:
        """Return when the value of `status` was taken."""
        return local_time_with_zone() if status.brief else local_time()

    def keys(self, section: str) -> list[str]:
        """Return the names in a section, in alphabetical order."""
        with self.machine.lock:
            if section == "config":
                return self.config.keys()
            if section == "command":
                return sorted(self._commands)
            return sorted(key for key, status in self._status.items() if status.listed)

    def served(self, section: str) -> list[str]:
        """Return the names in a section that answer, listed or not, in alphabetical order."""
        of_section = {
            "config": self.config.parameters,
            "status": self._status,
            "command": self._commands,
        }
        return sorted(of_section[section])

    def read_config(self, key: str) -> dict[str, Any]:
        """Return the reply of a GET of config `key`; an array stays an array."""
        with self.machine.lock:
            return self._config_reply(key)

    def read_whole_config(self) -> dict[str, Any]:
        """Return the replies of the whole config by key, arrays left out."""
        with self.machine.lock:
            values = self.config.values()
            return {
                key: self._config_reply(key)
                for key in sorted(self.config.parameters)
                if not isinstance(values[key], np.ndarray)
            }

    def _config_reply(self, key: str) -> dict[str, Any]:
        parameter = self.config.known(key)
        return self.machine.firmware.spelling.config(parameter, self.config[key])

    def read_status(self, key: str) -> dict[str, Any]:
        """Return the reply of a GET of status `key`.

        Raises
        ------
        MissingError, NotFittedError
            Where there is no such resource, or no hardware for it.
        """
        if key in self._not_fitted:
            raise NotFittedError(f"{key} is not fitted")
        if key not in self._status:
            raise UnknownResourceError(f"Parameter {key} does not exist")
        status = self._status[key]
        with contextlib.nullcontext() if key in self.walks else self.machine.lock:
            value = self.status_value(key)
            taken = self.status_time(status)
        return self.machine.firmware.spelling.status(status, value, taken)

    def read_whole_status(self) -> dict[str, Any]:
        """Return the replies of every listed status resource by key."""
        return {key: self.read_status(key) for key in self.keys("status")}

    def put_config(self, key: str, value: object) -> Any:
        """Set config `key`; return the names that changed, or None where the reply is empty."""
        with self.machine.lock:
            self.config.update({key: self.config.accepted(key, value)})

    def put_whole_config(self, entries: Mapping[str, object]) -> Any:
        """Set every entry that can be set, or none where one is refused."""
        with self.machine.lock:
            self.config.update(
                {
                    key: self.config.accepted(key, value)
                    for key, value in entries.items()
                    if self.config.known(key).access == "rw"
                }
            )

    def delete_config(self, key: str) -> Any:
        """Bring back what the factory set, where a subsystem has such a thing."""
        self.config.known(key)
        raise NotAllowedError(f"{key} cannot be deleted")

    def run(self, command: str, argument: Argument) -> Any:
        """Run `command`; return its reply or a future of it.

        Raises
        ------
        MissingError, RefusedError
            Where there is no such command, or it is not possible now.
        """
        if command not in self._commands:
            raise UnknownResourceError(f"Command {command} does not exist")
        return self._commands[command](argument)
