"""The system subsystem: the services of the DCU itself, and its log.

Knows nothing of HTTP; what a restart means to the other subsystems is handed in.
"""

import io
import tarfile
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from sim_dcu.parameters import MissingError, ParameterStore
from sim_dcu.subsystem import Argument, Machine, Subsystem
from sim_dcu.tables.interfaces import Interfaces

# Of what is asked, the latest this many requests are kept, each cut to this many characters: a log
# of at most 5 MB.
LOGGED_REQUESTS = 10_000
LONGEST_LINE = 500


class ApiLog:
    """The latest requests and their answers, one line each."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=LOGGED_REQUESTS)

    def note(self, line: str) -> None:
        """Add a line, stamped with the time; what is not printable ASCII is escaped."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        plain = ascii(line)[1:-1]
        self._lines.append(f"{stamp} {plain[:LONGEST_LINE]}")

    def text(self) -> str:
        """Return the whole log."""
        # A copy in one step: other threads may add lines.
        return "".join(f"{line}\n" for line in self._lines.copy())

    def tail(self, count: int) -> list[str]:
        """Return the latest `count` lines, the newest at the end."""
        return list(self._lines.copy())[-count:]

    def clear(self) -> None:
        """Forget every line."""
        self._lines.clear()


class System(Subsystem):
    """The system subsystem.

    `reboot` and `shutdown` lose the stored files, which a DCU keeps in memory. After `shutdown` a
    real DCU is off; the simulated one goes on answering, in state na, so that whoever tests with it
    is not left without one. Where the references name no place for it, the log is served at
    `/system/api/<version>/log`, and what `create_log_tarball` made at `.../log.tar.gz`.

    Parameters
    ----------
    machine : Machine
        Shared with the other subsystems.
    interfaces : Interfaces
        The generation's resources.
    log : ApiLog
        What `create_log_tarball` packs.
    restart : callable
        Restarts the acquisition service; takes whether the stored files are lost and returns a
        future of None.
    """

    def __init__(
        self,
        machine: Machine,
        interfaces: Interfaces,
        log: ApiLog,
        restart: Callable[[bool], "Future[Any]"],
    ):
        commands = {
            "restart": lambda _: restart(False),
            "reboot": lambda _: restart(True),
            "shutdown": lambda _: restart(True),
            "create_log_tarball": self._pack,
            "delete_logs": self._delete,
        }
        super().__init__(
            machine,
            ParameterStore(interfaces.system_config),
            (),
            {name: commands[name] for name in interfaces.system_commands},
        )
        self.log = log
        self._tarball: bytes | None = None

    def tarball(self) -> bytes:
        """Return what `create_log_tarball` made last, a gzipped tar file.

        Raises
        ------
        MissingError
            Where it made none.
        """
        if self._tarball is None:
            raise MissingError("No log tarball was created")
        return self._tarball

    def _pack(self, _argument: Argument) -> None:
        content = self.log.text().encode()
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            entry = tarfile.TarInfo("log/api.log")
            entry.size = len(content)
            entry.mtime = time.time()
            archive.addfile(entry, io.BytesIO(content))
        self._tarball = packed.getvalue()

    def _delete(self, _argument: Argument) -> None:
        self.log.clear()
        self._tarball = None
