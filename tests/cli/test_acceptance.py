"""`acceptance`: its exit statuses, its reports, and that Ctrl-C leaves the detector as it was."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = str(Path(sys.executable).with_name("ophyd-eiger"))
QUICK = ("--time-scale", "0", "--seconds", "0.3")
SETTINGS = ("nimages", "ntrigger", "count_time", "frame_time", "trigger_mode")


@pytest.mark.timeout(180)
def test_one_that_is_well(dcu, run, tmp_path):
    before = [dcu.get(f"detector/config/{name}") for name in SETTINGS]
    place = tmp_path / "report.md"
    said = run("acceptance", dcu.url, *QUICK, "--report", place, "--directory", tmp_path, "--json")
    assert said.status == 0
    assert said.json["verdict"] == "passed"
    assert said.json["counts"]["fail"] == 0
    assert said.json["identity"]["serial number"] == "E-01-0000"
    assert "series: inte" in said.err
    assert "PASSED" in place.read_text().splitlines()[0]
    assert len(list(tmp_path.glob("*_master.h5"))) == 5
    assert [dcu.get(f"detector/config/{name}") for name in SETTINGS] == before


@pytest.mark.timeout(180)
def test_one_that_is_not_well(dcu2, run):
    dcu2.server.faults.set("refuse:command=cancel")
    said = run("acceptance", dcu2.url, *QUICK)
    assert said.status == 4
    assert "FAILED" in said.out.splitlines()[0]
    assert "ints: detector/command/cancel" in said.out
    assert "refused on request" in said.out


def test_one_that_somebody_uses(either, run):
    either.put("detector/command/arm")
    said = run("acceptance", either.url, *QUICK)
    assert said.status == 1
    assert "the state is 'ready'" in said.err
    assert either.get("detector/status/state") == "ready"


def test_wrong_usage_sends_nothing(run, dead_url, tmp_path):
    for wrong in (
        ("--report", "report.pdf"),
        ("--frame-rate", "0"),
        ("--humidity", "5", "1"),
        ("--report", str(tmp_path / "no" / "report.md")),
    ):
        assert run("acceptance", dead_url, *wrong).status == 2


@pytest.mark.long
@pytest.mark.timeout(180)
def test_interrupted_it_puts_the_configuration_back(dcu):
    before = [dcu.get(f"detector/config/{name}") for name in SETTINGS]
    with subprocess.Popen(
        [COMMAND, "acceptance", dcu.url, *QUICK], stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stderr:
            if line.startswith("series: ints, several"):
                process.send_signal(signal.SIGINT)
                break
        process.stderr.read()
        assert process.wait(timeout=60) == 130
    assert [dcu.get(f"detector/config/{name}") for name in SETTINGS] == before
    assert dcu.get("detector/status/state") == "idle"
