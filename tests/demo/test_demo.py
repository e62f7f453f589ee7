"""`ophyd-eiger demo` as a process, and what it says when images are wrong."""

import contextlib
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner
from PIL import Image

from ophyd_eiger import demo, trial
from ophyd_eiger.cli import main

# The command that the package installs beside this Python.
COMMAND = str(Path(sys.executable).with_name("ophyd-eiger"))


def run(*arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [COMMAND, "demo", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_demo_went_well(done, folder: Path, *, points: int, images: int) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == f"all pixels equal over {points * images} images"
    assert f"{points * images} of 1065 x 1030, uint32" in done.stdout
    assert done.stderr == ""
    (picture,) = re.findall(r"^picture +(\S+)$", done.stdout, re.MULTILINE)
    with Image.open(folder / picture) as png:
        png.load()
        assert png.format == "PNG"
        # Rings, mask and axes: neither blank nor a single colour.
        assert len(png.convert("RGB").getcolors(1 << 24)) > 30


@pytest.mark.long
def test_a_short_one(tmp_path: Path) -> None:
    short = ("--points", "2", "--images", "2", "--time-scale", "0")
    assert_demo_went_well(run(*short, folder=tmp_path), tmp_path, points=2, images=2)


@pytest.mark.long
def test_twice_in_one_folder(tmp_path: Path) -> None:
    short = ("--points", "2", "--images", "2", "--time-scale", "0")
    first = run(*short, folder=tmp_path)
    assert_demo_went_well(first, tmp_path, points=2, images=2)
    before = content(tmp_path)
    # Each point is a series with a master, a data file and a view; one picture.
    assert len(before) == 2 * 3 + 1
    second = run(*short, folder=tmp_path)
    assert_demo_went_well(second, tmp_path, points=2, images=2)
    after = content(tmp_path)
    assert len(after) == 2 * len(before)
    assert {path: after[path] for path in before} == before
    (url,) = re.findall(r"^ +(http://127\.0\.0\.1:\d+)$", second.stdout, re.MULTILINE)
    assert url not in first.stdout


@pytest.mark.long
def test_as_the_readme_has_it(tmp_path: Path) -> None:
    assert_demo_went_well(run(folder=tmp_path), tmp_path, points=5, images=10)


@pytest.mark.long
def test_an_image_that_differs_is_reported(tmp_path: Path, monkeypatch, catalog) -> None:
    compare = demo.compare

    def compare_altered(url, stacks, series_ids, ledger):
        altered = stacks.copy()
        altered[1, 0, 500, 500] += 1
        return compare(url, altered, series_ids, ledger)

    monkeypatch.setattr(demo, "compare", compare_altered)
    monkeypatch.setattr(demo, "temporary_catalog", lambda: catalog)
    short = ["--points", "2", "--images", "2", "--time-scale", "0"]
    done = CliRunner().invoke(main, ["demo", "--directory", str(tmp_path), *short])
    assert done.exit_code == 1
    assert "1 of 4 images differ" in done.output
    assert "all pixels equal" not in done.output


def test_a_simulator_that_does_not_start_is_told_in_its_own_words(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(demo, "MODEL", "eiger-17m")
    done = CliRunner().invoke(main, ["demo", "--directory", str(tmp_path)])
    assert done.exit_code == 1
    assert "did not start" in done.output
    assert "invalid choice: 'eiger-17m'" in done.output


def connection_to(url: str) -> socket.socket:
    """Return a connection; what it receives when the server has ended is nothing."""
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=20)


def assert_ends(connection: socket.socket) -> None:
    """Assert that it is closed, or reset as what a server had not yet accepted is when it ends."""
    with connection, contextlib.suppress(ConnectionResetError):
        assert connection.recv(1) == b""


@pytest.fixture
def _ctrl_c_is_heard():
    """Undo what a shell does to jobs in its background, and what they would inherit: no SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.long
@pytest.mark.usefixtures("_ctrl_c_is_heard")
def test_ctrl_c_ends_demo_and_simulator(tmp_path: Path) -> None:
    command = [COMMAND, "demo", "--time-scale", "1"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        url = next(line.strip() for line in lines if "http://" in line)
        with connection_to(url) as connection:
            # After this line comes initialize, which takes 20 s here.
            assert any("connect" in line for line in lines)
            process.send_signal(signal.SIGINT)
            said, complaints = process.communicate(timeout=60)
            assert_ends(connection)
    assert process.returncode == 1, said
    assert "Traceback" not in complaints


def test_simulator_ends_with_its_block() -> None:
    with trial.simulator("--model", "eiger-500k", "--initialized") as url:
        connection = connection_to(url)
    assert_ends(connection)


def test_simulator_ends_with_a_process_that_is_killed() -> None:
    code = (
        "from ophyd_eiger import trial\n"
        "with trial.simulator('--model', 'eiger-500k') as url:\n"
        "    print(url, flush=True)\n"
        "    input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        connection = connection_to(process.stdout.readline().strip())
        process.kill()
    assert_ends(connection)


def test_what_the_simulator_complains_of_is_not_lost(caplog, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONVERBOSE", "1")
    with trial.simulator("--model", "eiger-500k"):
        pass
    assert "the simulated DCU said:" in caplog.text
