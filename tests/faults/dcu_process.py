"""A simulated DCU in another process, and plain HTTP clients of it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from plain_client import Client

VERSIONS = {"eiger-500k": "1.6.0", "eiger2-500k": "1.8.0"}


class Dcu(Client):
    """A plain client that also knows `/sim`, and where the process keeps its files."""

    def __init__(self, url: str, model: str, folder: Path):
        super().__init__(url, VERSIONS[model])
        self.model = model
        self.folder = folder

    @property
    def eiger2(self) -> bool:
        return self.model.startswith("eiger2")

    def fault(self, name: str, **arguments: object) -> None:
        reply = requests.put(f"{self.url}/sim/faults/{name}", json=arguments, timeout=5)
        assert reply.status_code == 200, reply.text

    def clear(self, name: str = "") -> None:
        path = f"/sim/faults/{name}" if name else "/sim/faults"
        assert requests.delete(f"{self.url}{path}", timeout=5).status_code == 204

    def active(self) -> list[dict[str, Any]]:
        return requests.get(f"{self.url}/sim/faults", timeout=5).json()["active"]

    def files(self) -> list[str]:
        listed = self.get("filewriter/files").json()
        return sorted(listed["value"] if self.eiger2 else listed)

    def start_anew(self) -> None:
        """Bring everything to its default, with the file writer enabled and no file."""
        assert self.command("initialize").status_code == 200
        for subsystem in ("filewriter", "monitor"):
            self.put(f"{subsystem}/command/initialize")
            self.put(f"{subsystem}/command/clear")
        self.put("filewriter/config/mode", "enabled")

    def series(self, images: int, per_file: int, triggers: int = 1) -> None:
        """Set up a series of so many images a trigger."""
        self.config(nimages=images, ntrigger=triggers)
        self.put("filewriter/config/nimages_per_file", per_file)

    def connect(self) -> socket.socket:
        address = urlsplit(self.url)
        return socket.create_connection((address.hostname, address.port), timeout=10)

    def request_bytes(self, method: str, resource: str) -> bytes:
        path = urlsplit(self.path(resource)).path if not resource.startswith("/") else resource
        return f"{method} {path} HTTP/1.1\r\nHost: dcu\r\nContent-Length: 0\r\n\r\n".encode()


@contextlib.contextmanager
def running(model: str, folder: Path, *arguments: str, errors: int | None = None) -> Iterator[Dcu]:
    """Start `python -m sim_dcu` and end it; `errors` is a file descriptor for its stderr."""
    command = [sys.executable, "-m", "sim_dcu", "--port", "0", "--model", model, "--initialized"]
    command += ["--seed", "3", "--data-dir", str(folder), *arguments]
    if "--time-scale" not in arguments:
        command += ["--time-scale", "0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            dcu = Dcu(process.stdout.readline().split()[-1], model, folder)
            with dcu.session:
                yield dcu
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 0


def until_closed(raw: socket.socket) -> bytes:
    """Return what comes before the other side closes or resets."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := raw.recv(65536):
            received += piece
    return received


def until_refused(dcu: Dcu, limit: float = 10.0) -> None:
    """Ask for a connection until the port refuses one."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        try:
            dcu.connect().close()
        except ConnectionRefusedError:
            return
        except ConnectionResetError:  # it came while the port was being closed
            continue
    raise AssertionError(f"the port still takes connections after {limit} s")


def until_back(dcu: Dcu, limit: float = 10.0) -> float:
    """Ask for a connection until there is one; return when (of the monotonic clock)."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        try:
            dcu.connect().close()
        except (ConnectionRefusedError, ConnectionResetError):
            continue
        return time.monotonic()
    raise AssertionError(f"the port still refuses after {limit} s")
