"""Simulators of others, each in a process and in a Python environment of its own."""

import contextlib
import socket
import subprocess
import time

import pytest
import requests


def require(python: str, package: str, version: str, hint: str) -> str:
    """Return a Python that has a package of that version, or skip the test."""
    look = [python, "-c", f"import importlib.metadata as m; print(m.version({package!r}))"]
    found = subprocess.run(look, capture_output=True, text=True, timeout=60, check=False)
    if not found.stdout.startswith(version):
        pytest.skip(hint)
    return python


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextlib.contextmanager
def running(command, folder, asked):
    """Run a simulator, in a folder that gets its log, from its first answer to `asked` on."""
    path = folder / "simulator.log"
    with path.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    requests.get(asked, timeout=5)
                    break
                except requests.ConnectionError:
                    assert process.poll() is None, path.read_text()[-2000:]
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait(10)
