"""The profile in a real terminal, as people have it: colours, progress bars that are redrawn."""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

PROFILE = Path(__file__).parents[2] / "profile_collection"
LIMIT_S = 120.0

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("tmux") is None, reason="no tmux: apt-get install tmux"),
]


class Terminal:
    """A terminal of tmux, 140 x 50, with a server of its own.

    Parameters
    ----------
    folder : Path
        Where it stands.
    environment : dict
        Variables of the environment.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._socket = folder / "tmux"
        self._environment = {**os.environ, **environment}
        size = ["-x", "140", "-y", "50"]
        self._tmux("-f", "/dev/null", "new-session", "-d", *size, "-c", str(folder), "bash --norc")

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-S", str(self._socket), *arguments]
        done = subprocess.run(
            command, env=self._environment, capture_output=True, check=True, text=True, timeout=20
        )
        return done.stdout

    def types(self, line: str) -> None:
        """Type a line and press Enter."""
        self._tmux("send-keys", "-l", line)
        self.presses("Enter")

    def presses(self, key: str) -> None:
        """Press a key, as "C-c"."""
        self._tmux("send-keys", key)

    @property
    def seen(self) -> str:
        """What is on the screen, and what has left it at the top."""
        return self._tmux("capture-pane", "-p", "-J", "-S", "-500")

    def shows(self, wanted: str) -> str:
        """Wait until the terminal has what matches, and return all it has."""
        end = time.monotonic() + LIMIT_S
        waiting = threading.Event()
        while not re.search(wanted, seen := self.seen, re.DOTALL):
            assert time.monotonic() < end, f"never seen: {wanted}\n{seen}"
            waiting.wait(0.1)
        return seen

    def asks(self, prompt: int) -> str:
        """Wait for a prompt by its number, and return what is there."""
        return self.shows(rf"In \[{prompt}\]:\s*$")

    def close(self) -> None:
        """End it, and all that runs in it."""
        self._tmux("kill-server")


@pytest.fixture
def terminal(tmp_path):
    shutil.copytree(PROFILE / "startup", tmp_path / "profile" / "startup")
    opened = Terminal(
        tmp_path,
        {
            "EIGER_URL": "",
            "EIGER_DATA": "",
            "EIGER_CATALOG": "",
            "DISPLAY": "",
            "WAYLAND_DISPLAY": "",
            "IPYTHONDIR": str(tmp_path / "ipython"),
            "MPLCONFIGDIR": str(tmp_path / "matplotlib"),
            "TERM": "xterm-256color",
            "PS1": "$ ",
        },
    )
    yield opened
    opened.close()


def test_a_scan_its_bars_and_its_interruption(terminal):
    ipython = Path(sys.executable).with_name("ipython")
    terminal.types(f"{ipython} --profile-dir=profile --no-banner")
    assert "cat: 0 runs" in terminal.asks(1)
    terminal.types("where()")
    assert "no runs yet" in terminal.asks(2)

    # Bars, which are redrawn in place and gone when the scan is over.
    terminal.types("eiger.configure({'frame_time': 3, 'count_time': 2.9}) and None")
    terminal.asks(3)
    terminal.types("RE(count([eiger], 2))")
    bar = terminal.shows(r"eiger: trigger \(estimate\):? +\d+%\|[^\n]*")
    assert re.search(r"\d\.\d/3\.0 \[", bar), bar
    done = terminal.asks(4)
    assert re.search(r"generator count.*scan num: 1", done, re.DOTALL), done
    assert len(re.findall(r"^\|\s+[12] \|", done, re.MULTILINE)) == 2
    assert "Traceback" not in done

    terminal.types("where()")
    assert re.search(r"run 1, \S+: 6 files", terminal.asks(5))

    # Ctrl-C twice in a long exposure; resumed, and interrupted again and aborted.
    terminal.types("eiger.configure({'frame_time': 20, 'count_time': 19.9}) and None")
    terminal.asks(6)
    terminal.types("RE(count([eiger]))")
    terminal.shows(r"Scan ID: 2 .*eiger: trigger \(estimate\)")
    terminal.presses("C-c")
    terminal.shows(r"deferred pause")
    # What comes within 0.1 s the RunEngine takes for the same press: the bar has moved on before.
    shown = terminal.shows(r"deferred pause.*\[00:\d\d<")
    second = int(re.findall(r"\[00:(\d\d)<", shown)[-1])
    later = "|".join(f"{each:02d}" for each in range(second + 2, 60))
    terminal.shows(rf"deferred pause.*\[00:({later})<")
    terminal.presses("C-c")
    said = terminal.asks(7)
    assert "RE.resume()" in said
    terminal.types("RE.state")
    assert "'paused'" in terminal.asks(8)
    terminal.types("RE.abort()")
    assert "Traceback" not in terminal.asks(9).rpartition("RE.abort()")[2]
    terminal.types("RE.state, eiger.detector.state.get(), cat[-1].metadata['stop']['exit_status']")
    assert "('idle', 'idle', 'abort')" in terminal.asks(10)
    terminal.types("show_last(run=1)")
    assert "run 1, point 2, image 1 of 1" in terminal.asks(11)
    terminal.types("exit")
    terminal.shows(r"exit\n\S+[#$]\s*$")
