"""The example profile in a real IPython on a pseudo-terminal, as `make shell` opens it."""

import os
import re
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pexpect
import pytest

import sim_dcu

PROFILE = Path(__file__).parents[2] / "profile_collection" / "startup" / "00-eiger.py"
PROMPT = r"In \[\d+\]: "


class Shell:
    """An IPython that has run the profile."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        (folder / "ipython").mkdir()
        flags = [f"--ipython-dir={folder / 'ipython'}", "--no-banner", "--simple-prompt"]
        self.child = pexpect.spawn(
            sys.executable,
            ["-m", "IPython", *flags, "--colors=nocolor", "-i", str(PROFILE)],
            cwd=folder,
            env={**os.environ, **environment, "MPLCONFIGDIR": str(folder), "TERM": "dumb"},
            encoding="utf-8",
            timeout=90,
            echo=False,
            dimensions=(50, 250),
        )
        self.child.expect(PROMPT)
        self.greeting = self.child.before or ""

    def __call__(self, line: str) -> str:
        """Type a line and return what it prints."""
        self.child.sendline(line)
        self.child.expect(PROMPT)
        return self.child.before or ""

    def exit(self) -> None:
        self.child.sendline("exit()")
        self.child.expect(pexpect.EOF)
        self.child.close()


@pytest.fixture
def open_shell(tmp_path):
    shells = []

    def open_one(**environment: str) -> Shell:
        shells.append(Shell(tmp_path, environment))
        return shells[-1]

    yield open_one
    for shell in shells:
        shell.child.close(force=True)


def test_on_a_simulator_of_its_own(open_shell, tmp_path):
    shell = open_shell(DCU_URL="", DISPLAY="")
    url = re.search(r"Eiger 1M at (http://127\.0\.0\.1:\d+), state 'idle'", shell.greeting)
    assert url, shell.greeting
    parts = urlsplit(url[1])
    connection = socket.create_connection((parts.hostname, parts.port), timeout=20)

    assert "seq_num" in shell("uids = RE(bp.count([eiger], 2))")
    shape = "(2, 1, 1065, 1030)"
    read = "np.asarray({}.primary.read()['eiger_image'])"
    assert shape in shell(f"images = {read.format('cat[uids[0]]')}; images.shape")
    assert shape in shell(f"again = {read.format('cat[-1]')}; again.shape")
    oracle = "np.load(io.BytesIO(requests.get(f'{eiger.address}/sim/image/2/1').content))"
    assert "True" in shell(f"import io, requests; np.array_equal(images[1, 0], {oracle})")
    assert "True" in shell("np.array_equal(images, again)")

    # The file run again: runs stay, nothing is subscribed twice.
    assert "ready" in shell(f"%run -i {PROFILE}")
    assert shell("RE(series(eiger, 0.01, 3))").count("_master.h5") == 1
    assert "2" in shell("len(cat)")
    assert len(list((tmp_path / "data").glob("*_master.h5"))) == 3
    shell.exit()
    with connection:
        assert connection.recv(1) == b""


@pytest.mark.long
def test_on_a_dcu_that_is_named(open_shell, tmp_path):
    with sim_dcu.serve(model="eiger-500k", initialized=True) as dcu:
        shell = open_shell(DCU_URL=dcu.url, EIGER_DATA=str(tmp_path / "elsewhere"))
        assert f"Eiger 500K at {dcu.url}" in shell.greeting
        shell("RE(bp.count([eiger]))")
        shell.exit()
    assert len(list((tmp_path / "elsewhere").glob("*_master.h5"))) == 1


def test_a_dcu_that_is_off_costs_one_line_and_serves_when_it_is_on(open_shell, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    shell = open_shell(DCU_URL=url, EIGER_DATA=str(tmp_path / "elsewhere"))
    told = [line for line in shell.greeting.splitlines() if "not connected" in line]
    assert len(told) == 1
    assert "cannot be reached" in told[0]
    assert "Traceback" not in shell.greeting
    assert "EigerDetector" in shell("type(eiger)")
    assert "DcuUnreachableError" in shell("eiger.connect()")
    with sim_dcu.serve(model="eiger-500k", initialized=True, port=port):
        assert "Error" not in shell("eiger.connect()")
        assert "seq_num" in shell("uids = RE(bp.count([eiger]))")
        shell.exit()
    assert len(list((tmp_path / "elsewhere").glob("*_master.h5"))) == 1
