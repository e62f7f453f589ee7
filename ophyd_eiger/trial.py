"""What the demo and the example profile try things with: a simulated DCU, a catalog in memory.

Knows the simulator by its command line only; it is started as a process and spoken to over HTTP,
as a real DCU.
"""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

from ophyd_eiger.errors import EigerError

logger = logging.getLogger(__name__)

END_TIMEOUT_S = 10.0
# The shell in between ends the simulator when its own input ends, which happens however this
# process ends, by a crash or kill -9 too. It closes its output, so that only the simulator can
# still write the line that is waited for.
_UNTIL_INPUT_ENDS = '"$@" & exec >&-; read -r _; kill $! 2>/dev/null; wait $!'


@contextlib.contextmanager
def simulator(*flags: str) -> Iterator[str]:
    """Run `python -m sim_dcu` on a free port, as a process; yields its URL.

    Parameters
    ----------
    *flags : str
        More flags of `sim-dcu`, as in "--model", "eiger-500k".

    Raises
    ------
    EigerError
        If it does not start, with what it said.
    """
    command = [sys.executable, "-m", "sim_dcu", "--port", "0", *flags]
    with (
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(
            ["sh", "-c", _UNTIL_INPUT_ENDS, "sh", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            # Ctrl-C at a prompt pauses the scan; it must not reach the detector.
            start_new_session=True,
        ) as process,
    ):
        try:
            line = process.stdout.readline() if process.stdout else ""
            if "http://" not in line:
                _end(process)
                said = _said(complaints) or repr(line)
                raise EigerError(f"{' '.join(command)} did not start:\n{said}")
            yield line.split()[-1]
        finally:
            _end(process)
        if said := _said(complaints):
            logger.warning("the simulated DCU said:\n%s", said)


def _end(process: "subprocess.Popen[str]") -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _said(complaints: Any) -> str:
    complaints.seek(0)
    return complaints.read().decode(errors="replace").strip()


def temporary_catalog() -> Any:
    """Return a databroker catalog that lasts as long as this process; files last longer."""
    with warnings.catch_warnings():
        # Of a test client that tiled runs its in-process server with.
        warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")
        from databroker.v2 import temp
        from tiled.server import app

        # It says its version on stderr each time.
        logging.getLogger(app.__name__).setLevel(logging.WARNING)
        return temp()
