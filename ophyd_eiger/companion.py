"""Programs that run beside this process, say their URL in their first line, and end with it.

Knows nothing of what they serve.
"""

import os
import selectors
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping
from typing import Any

from ophyd_eiger.errors import EigerError

# In s: so long a program may take to end once it is told to; then it is killed.
GRACE_S = 5.0
# In s: so long `end` waits, for the shell that does so, too.
END_TIMEOUT_S = 10.0
# In s: so long it may take until it says its URL.
START_TIMEOUT_S = 120.0
# The shell in between ends the program when its own input ends, which happens however this
# process ends, by a crash or kill -9 too. It closes its output, so that only the program can
# still write the line that is waited for. At last it kills its group, which is of its own: a
# program that would not end, what that has started, and itself.
_UNTIL_INPUT_ENDS = """
grace=$1; shift
"$@" & program=$!
exec >&-
read -r _
kill $program 2>/dev/null
(sleep $grace; kill -9 0) &
wait $program
kill -9 0
"""


class Companion:
    """A Python module that runs as a process, from now until `end`, or until this process ends.

    Parameters
    ----------
    *command : str
        The module and its flags, as in "sim_dcu", "--port", "0".
    environment : mapping, optional
        Variables of the environment besides this process' own.
    """

    def __init__(self, *command: str, environment: Mapping[str, str] | None = None) -> None:
        self._command = [sys.executable, "-m", *command]
        self._complaints: Any = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        self._url = ""
        self._process = subprocess.Popen(
            ["sh", "-c", _UNTIL_INPUT_ENDS, "sh", str(GRACE_S), *self._command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env={**os.environ, **(environment or {})},
            text=True,
            # Ctrl-C at a prompt pauses the scan; it must not reach what serves it.
            start_new_session=True,
        )
        # A child that is forked, as multiprocessing's are, would hold the input open.
        holder = weakref.ref(self._process)
        os.register_at_fork(after_in_child=lambda: _let_go(holder()))

    @property
    def url(self) -> str:
        """Where it serves; waits until it does.

        Raises
        ------
        EigerError
            If it did not start, with what it said.
        """
        if not self._url:
            line = self._first_line()
            if "http://" not in line:
                said = self.end() or repr(line)
                raise EigerError(f"{' '.join(self._command)} did not start:\n{said}")
            self._url = line.split()[-1]
        return self._url

    def __repr__(self) -> str:
        # Without what follows the address, which may be a key.
        serves = f" at {self._url.partition('?')[0]}" if self._url else ""
        ended = ", ended" if self._complaints.closed else ""
        return f"<{type(self).__name__} {self._command[2]}{serves}{ended}>"

    def _first_line(self) -> str:
        """Return the line that has the URL; nothing if it does not come in time."""
        output = self._process.stdout
        if output is None:
            return ""
        # Not select(), which takes no descriptor beyond 1023: a long session may have more.
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            return output.readline() if selector.select(START_TIMEOUT_S) else ""

    def end(self) -> str:
        """End it, and return what it had to say on stderr; nothing the second time."""
        if self._complaints.closed:
            return ""
        process = self._process
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
        with self._complaints as complaints:
            complaints.seek(0)
            return complaints.read().decode(errors="replace").strip()


def _let_go(process: subprocess.Popen | None) -> None:
    """Close this process' end of the input, if the program has not been ended yet."""
    if process is not None and process.stdin is not None:
        process.stdin.close()
