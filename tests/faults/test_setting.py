"""Faults are listed, set and cleared over HTTP, on the command line and in Python."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from dcu_process import Dcu, running

import sim_dcu
from sim_dcu import faults
from sim_dcu.__main__ import main

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
ASKED_FOR = """
    refuse late hang drop lose put-reply die error full stall temperature humidity file-short
    file-truncated file-corrupt file-late file-missing file-replaced monitor-drop
"""


def test_the_page_is_what_the_command_makes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sim_dcu.faults"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == PAGE.read_text(encoding="utf-8") == faults.document()
    assert done.stderr == ""


def test_every_fault_asked_for_has_a_row() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| .* \| .+ \| .+ \|$", PAGE.read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(ASKED_FOR.split())


def test_none_is_set_and_the_table_is_listed(eiger1: Dcu) -> None:
    listed = requests.get(f"{eiger1.url}/sim/faults", timeout=5).json()
    assert listed["active"] == []
    assert {row["name"] for row in listed["table"]} == set(ASKED_FOR.split())
    (late,) = (row for row in listed["table"] if row["name"] == "late")
    assert late["arguments"]["seconds"]["unit"] == "s"
    assert late["what"]
    assert late["tries"]


def test_what_is_set_is_listed_with_its_counts_and_cleared_by_name(eiger1: Dcu) -> None:
    eiger1.fault("refuse", command="arm", times=1, after=1)
    eiger1.fault("late", seconds=1)
    eiger1.fault("refuse", command="arm", times=1, after=1)
    refuse, late = sorted(eiger1.active(), key=lambda fault: fault["name"] == "late")
    assert (refuse["name"], refuse["seen"], refuse["struck"]) == ("refuse", 0, 0)
    assert refuse["arguments"]["path"] == "PUT detector/*/command/arm"
    assert late["arguments"]["seconds"] == 1
    eiger1.clear("late")
    for status in (200, 400, 200):
        assert eiger1.command("arm").status_code == status
        eiger1.command("disarm")
    (refuse,) = eiger1.active()
    assert (refuse["seen"], refuse["struck"], refuse["spent"]) == (2, 1, True)
    eiger1.clear()
    assert eiger1.active() == []


@pytest.mark.parametrize(
    ("name", "body", "says"),
    [
        ("explode", "{}", "there is no fault 'explode'; there are refuse, late, hang"),
        ("refuse", '{"code": 1}', "no argument code; it has status, text, path, command, after"),
        ("refuse", '{"status": 99}', "status=99 is not within [200, 599]"),
        ("refuse", '{"status": "much"}', "status='much' is not a whole number"),
        ("refuse", '{"status": 400.5}', "status=400.5 is not a whole number"),
        ("refuse", '{"status": true}', "status=True is not a whole number"),
        ("refuse", '{"times": 0}', "times=0 is not within [1, inf]"),
        ("refuse", '{"command": "arm", "path": "*"}', "command is short for a path"),
        ("late", '{"seconds": -1}', "seconds=-1 is not within"),
        ("late", '{"seconds": NaN}', "seconds=nan is not a finite number"),
        ("late", '{"seconds": 1e400}', "seconds=inf is not a finite number"),
        ("drop", '{"when": "never"}', "when='never' is not one of before, head, body, after"),
        ("file-replaced", '{"with": "/etc/hostname"}', "only the command line may"),
        ("file-replaced", "{}", "with is missing"),
        ("late", "[]", "not a JSON object"),
        ("late", "{", "not JSON"),
    ],
)
def test_what_cannot_be_set_is_400_and_lists_what_can(
    eiger1: Dcu, name: str, body: str, says: str
) -> None:
    reply = requests.put(f"{eiger1.url}/sim/faults/{name}", data=body, timeout=5)
    assert reply.status_code == 400
    assert says in reply.text
    assert eiger1.active() == []


def test_clearing_what_does_not_exist_is_400_and_what_is_not_set_is_not(eiger1: Dcu) -> None:
    reply = requests.delete(f"{eiger1.url}/sim/faults/explode", timeout=5)
    assert reply.status_code == 400
    assert "there are refuse" in reply.text
    # To the last one.
    assert reply.text.endswith(", monitor-drop")
    reply = requests.put(f"{eiger1.url}/sim/faults/explode", data="{}", timeout=5)
    assert reply.text.endswith(", monitor-drop")
    eiger1.clear("refuse")


def test_flags_set_faults_from_the_first_request_on(tmp_path: Path) -> None:
    flags = ["--fault", "refuse:command=arm,text=no, not now,times=1", "--fault", "put-reply"]
    with running("eiger-500k", tmp_path / "data", *flags) as dcu:
        reply = dcu.command("arm")
        assert (reply.status_code, reply.text) == (400, "no, not now")
        assert dcu.put("detector/config/nimages", 2).text == "null"
        assert [fault["name"] for fault in dcu.active()] == ["refuse", "put-reply"]


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("explode", "there are refuse, late"),
        ("late:minutes=1", "it has seconds, path, command, after, times"),
        ("late:seconds=soon", "seconds='soon' is not a finite number"),
        ("late:seconds", "is not NAME[:key=value,...]"),
        ("late:", "is not NAME[:key=value,...]"),
        ("late:seconds=1,seconds=2", "says seconds twice"),
        ("file-replaced:with=/no/such/file", "is not a file"),
    ],
)
def test_a_flag_that_is_no_fault_ends_with_usage(
    flag: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--port", "0", "--fault", flag])
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "sim-dcu: error: argument --fault: " in err
    assert says in err


def test_python_sets_by_text_or_by_keywords() -> None:
    with sim_dcu.serve("eiger-500k", initialized=True, faults=["late:seconds=7"]) as server:
        written = server.faults.set("refuse:command=arm,status=503,times=2")
        server.faults.clear("refuse")
        named = server.faults.set("refuse", command="arm", status=503, times=2)
        assert written.arguments == named.arguments
        assert written.cleared.is_set()
        assert [fault["name"] for fault in server.faults.listing()] == ["late", "refuse"]
        with pytest.raises(ValueError, match="there is no fault 'explode'"):
            server.faults.set("explode")
        server.faults.clear()
        assert not server.faults.active
    with pytest.raises(ValueError, match="there is no fault"):
        sim_dcu.serve("eiger-500k", faults=["explode"])


def test_a_simulator_without_faults_asks_for_nothing_but_that(monkeypatch) -> None:
    """The cost where none is set: no place may ask for more than `active`."""

    def asked(*_: object, **__: object) -> None:
        raise AssertionError(f"asked in process {os.getpid()}")

    for name in ("of_request", "any_of", "in_series", "of_files", "of_image", "reading"):
        monkeypatch.setattr(faults.Faults, name, asked)
    monkeypatch.setattr(faults.Faults, "room_is_gone", asked)
    with sim_dcu.serve("eiger-500k", initialized=True) as server:
        api = f"{server.url}/%s/api/1.6.0/%s"
        requests.put(api % ("monitor", "config/mode"), json={"value": "enabled"}, timeout=5)
        for command in ("arm", "trigger", "disarm", "status_update"):
            url = api % ("detector", f"command/{command}")
            assert requests.put(url, timeout=5).status_code == 200
        assert requests.get(api % ("filewriter", "status/buffer_free"), timeout=5).ok
        assert requests.get(api % ("monitor", "images/next"), timeout=5).ok
