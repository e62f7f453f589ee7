"""Shells that are closed after their test."""

import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from shell import Shell


@pytest.fixture
def open_shell(tmp_path):
    """Open a shell: `open_shell(EIGER_URL=...)`, each in the same folder."""
    shells = []

    def open_one(**environment: str) -> Shell:
        shells.append(Shell(tmp_path, environment))
        return shells[-1]

    yield open_one
    for shell in shells:
        if shell.child.isalive():
            shell.child.kill(signal.SIGKILL)
            shell.child.wait()
        shell.child.close()
