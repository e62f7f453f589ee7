"""The example profile in a real IPython on a pseudo-terminal, as `make shell` opens it."""

import os
import re
import shutil
import sys
import threading
from pathlib import Path

import pexpect
import psutil

PROFILE = Path(__file__).parents[2] / "profile_collection"
PROMPT = r"In \[\d+\]: "
# Says at the very end which threads are left: what was registered first comes last.
PROGRAM = """
import atexit, sys, threading
atexit.register(lambda: print("threads left:", [t.name for t in threading.enumerate()]))
from IPython import start_ipython
sys.exit(start_ipython(sys.argv[1:]))
"""


class Shell:
    """An IPython with the profile.

    Parameters
    ----------
    folder : Path
        Where it stands; a copy of the profile is made there, because IPython writes into it.
    environment : dict
        Variables of the environment.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        if not (folder / "profile").exists():
            shutil.copytree(PROFILE / "startup", folder / "profile" / "startup")
        bare = {name: value for name, value in os.environ.items() if "DISPLAY" not in name}
        flags = [f"--profile-dir={folder / 'profile'}", "--no-banner", "--colors=nocolor"]
        self.child = pexpect.spawn(
            sys.executable,
            ["-c", PROGRAM, *flags, "--simple-prompt"],
            cwd=folder,
            env={
                **bare,
                "EIGER_URL": "",
                "EIGER_DATA": "",
                "EIGER_CATALOG": "",
                "IPYTHONDIR": str(folder / "ipython"),
                "MPLCONFIGDIR": str(folder / "matplotlib"),
                "TERM": "dumb",
                **environment,
            },
            encoding="utf-8",
            timeout=200,
            echo=False,
            dimensions=(50, 250),
        )
        self.child.expect(PROMPT)
        self.greeting = self.child.before or ""
        self.companions = psutil.Process(self.child.pid).children(recursive=True)

    def __call__(self, line: str) -> str:
        """Type a line and return what it prints."""
        self.child.sendline(line)
        return self.answer()

    def answer(self) -> str:
        """Return what is printed until the next prompt."""
        self.child.expect(PROMPT)
        return self.child.before or ""

    def value(self, expression: str) -> str:
        """Type an expression and return its value as it prints."""
        printed = self(expression)
        found = re.search(r"Out\[\d+\]: (.*?)\s*$", printed, re.DOTALL)
        assert found, printed
        return found[1]

    def begin(self, line: str, until: str) -> None:
        """Type a line and wait until it has printed what matches."""
        self.child.sendline(line)
        self.child.expect(until)

    def interrupt(self) -> None:
        """Press Ctrl-C twice in an exposure, when the RunEngine has taken the first."""
        self.child.sendintr()
        self.child.expect("deferred pause")
        # What comes within 0.1 s it takes for the same press.
        threading.Event().wait(0.2)
        self.pause()

    def pause(self) -> None:
        """Press Ctrl-C, and wait for the prompt."""
        self.child.sendintr()
        self.child.expect("RE.halt")
        self.answer()

    def exit(self, line: str = "exit()") -> str:
        """Leave, and return what it prints on the way; nothing it started is left."""
        self.child.sendline(line)
        return self.ended()

    def ended(self) -> str:
        """Wait until it has ended, and return what it printed."""
        self.child.expect(pexpect.EOF)
        said = self.child.before or ""
        self.child.close()
        psutil.wait_procs(self.companions, timeout=20)
        assert not [each for each in self.companions if each.is_running()]
        return said
