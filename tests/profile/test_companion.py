"""Programs beside a prompt: those that do not start, and how they end."""

import contextlib
import os
import resource
import subprocess
import sys

import psutil
import pytest

from ophyd_eiger import companion
from ophyd_eiger.companion import Companion
from ophyd_eiger.errors import EigerError

# Says that it serves, and does not end when it is told to.
STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(f"serves at http://{os.getpid()}", flush=True)
time.sleep(600)
"""
# A prompt beside which it runs, and which has a child of its own that lives on.
PROMPT = """
import os, time
from ophyd_eiger import companion
companion.GRACE_S = 0.5
beside = companion.Companion("stubborn")
program = beside.url.rpartition("/")[2]
if (child := os.fork()) > 0:
    print(program, child, flush=True)
time.sleep(600)
"""


@pytest.fixture
def stubborn(tmp_path, monkeypatch):
    """A module that does not end by SIGTERM."""
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(companion, "GRACE_S", 0.5)


def test_one_that_fails_is_told_in_its_own_words():
    with pytest.raises(EigerError, match=r"no_such_module did not start:\n.*No module named"):
        Companion("no_such_module").url  # noqa: B018 - waited for


def test_one_that_says_nothing_is_not_waited_for_for_ever(monkeypatch, tmp_path):
    (tmp_path / "silent.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setattr(companion, "START_TIMEOUT_S", 0.5)
    beside = Companion("silent", environment={"PYTHONPATH": str(tmp_path)})
    with pytest.raises(EigerError, match="silent did not start"):
        beside.url  # noqa: B018 - waited for
    assert beside._process.returncode is not None


def test_beside_a_prompt_with_more_open_files_than_select_takes(stubborn):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(2048, hard), hard))
    with contextlib.ExitStack() as many:
        many.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1100):
            many.enter_context(open(os.devnull))  # noqa: PTH123 - of no interest
        beside = Companion("stubborn")
        assert "http://" in beside.url
        beside.end()


def test_one_that_does_not_end_is_killed(stubborn):
    beside = Companion("stubborn")
    program = psutil.Process(int(beside.url.rpartition("/")[2]))
    beside.end()
    program.wait(10)


def test_it_ends_when_the_prompt_is_killed(stubborn):
    command = [sys.executable, "-c", PROMPT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as prompt:
        assert prompt.stdout is not None
        program, child = (
            psutil.Process(int(number)) for number in prompt.stdout.readline().split()
        )
        prompt.kill()
    try:
        program.wait(10)
        assert child.is_running()
    finally:
        child.kill()
