"""How commands end: exit statuses, one message, no traceback; as processes, too."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
import requests
from plain_client import until

from ophyd_eiger.cli import main
from ophyd_eiger.cli.common import EXIT_STATUSES

# Of each test's cases the short run takes every 2nd, see conftest.
SHORT_RUN_EVERY = 2

COMMAND = str(Path(sys.executable).with_name("ophyd-eiger"))
ARGUMENTS = {
    "acceptance": (),
    "abort": (),
    "doctor": (),
    "fetch": (),
    "get": ("count_time",),
    "info": (),
    "initialize": (),
    "recover": (),
    "set": ("count_time=1",),
    "watch": ("--count", "1"),
}


def process(*arguments, **kwargs):
    return subprocess.run(
        [COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=60, **kwargs
    )


@pytest.mark.parametrize("name", ARGUMENTS)
def test_nobody_there(name, run, dead_url):
    said = run(name, dead_url, *ARGUMENTS[name], "--json")
    assert said.status == 3
    documents = [json.loads(line) for line in said.out.splitlines()] if name == "watch" else []
    assert "cannot be reached" in json.dumps(documents or said.json)


@pytest.mark.parametrize("seconds", ["nan", "inf", "1e400", "-1"])
@pytest.mark.parametrize("option", ["--timeout", "--patience"])
def test_seconds_that_no_clock_counts(run, dead_url, option, seconds):
    said = run("fetch", dead_url, option, seconds)
    assert said.status == 2
    assert option in said.err


@pytest.mark.long
def test_a_place_that_takes_no_file(run, tmp_path):
    """Even for root: no file can be made in a file."""
    (tmp_path / "file").touch()
    said = run("demo", "--directory", tmp_path / "file" / "x")
    assert said.status == 1
    assert f"{tmp_path / 'file'}" in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_web_server_that_is_no_dcu(name, run, web_server):
    said = run(name, web_server, *ARGUMENTS[name])
    assert said.status == 3
    assert "is" in said.out + said.err
    assert "--api-version" in said.out + said.err
    known = run(name, web_server, *ARGUMENTS[name], "--api-version", "1.8.0")
    assert known.status == 3
    assert "404" in known.out + known.err


@pytest.mark.parametrize("name", ARGUMENTS)
def test_one_that_does_not_answer(name, run, shared):
    shared.server.faults.set("hang")
    said = run(name, shared.url, *ARGUMENTS[name], "--timeout", "0.3")
    assert said.status == 3
    assert "no answer within 0.3 s" in said.out + said.err


@pytest.mark.parametrize("name", ARGUMENTS)
def test_wrong_usage(name, run):
    assert run(name).status == 2
    assert run(name, "http://", *ARGUMENTS[name]).status == 2
    assert run(name, "dcu", *ARGUMENTS[name], "--timeout", "0").status == 2


@pytest.mark.parametrize("host", ["10.42..20", "dcu..local", "d" * 64, ".dcu", "*", "d*"])
def test_an_address_with_a_slip_is_wrong_usage(run, host):
    said = run("doctor", host)
    assert said.status == 2
    assert "is not the address of a DCU" in said.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("set", "URL", "nimages"),
        ("set", "URL", "nimages=1", "nimages=2"),
        ("get", "URL", "nimages", "ntrigger", "--output", "both.npy"),
    ],
    ids=" ".join,
)
def test_wrong_usage_that_a_command_finds_is_a_document_too(shared, run, arguments):
    said = run(*(shared.url if each == "URL" else each for each in arguments), "--json")
    assert said.status == 2
    assert (said.json["error"]["kind"], said.json["error"]["exit_status"]) == ("UsageError", 2)
    assert said.json["error"]["message"] in said.err


@pytest.mark.parametrize("name", ARGUMENTS)
def test_help_says_how_it_ends(name, run):
    said = run(name, "--help")
    statuses = re.findall(r"^ +(\d+)  (.*)$", EXIT_STATUSES, re.MULTILINE)
    assert len(statuses) == 6
    for number, meaning in statuses:
        assert re.search(rf"^ +{number}  {re.escape(meaning)}", said.out, re.MULTILINE)
    for option in ("--timeout", "--api-version", "--json"):
        assert option in said.out


def test_every_command_is_tried_here():
    commands = main.list_commands(click.Context(main))
    tried = {name for name in commands if "url" in {p.name for p in main.commands[name].params}}
    assert tried == set(ARGUMENTS)


def test_an_error_is_one_document_and_one_message(shared, run):
    said = run("get", shared.url, "nothing", "--json")
    assert said.json["error"]["exit_status"] == said.status == 1
    assert said.json["error"]["kind"] == "UnknownSettingError"
    assert said.err == f"Error: {said.json['error']['message']}\n"


def test_as_a_process(shared):
    done = process("get", shared.url, "nimages", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["detector/config/nimages"]["value"] == 1
    # A pipe gets no colours and whole lines, unless it is asked for otherwise.
    done = process("doctor", shared.url, env={**os.environ, "COLUMNS": "40"})
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert any(len(line) > 90 for line in done.stdout.splitlines())


def interrupted(server, *arguments):
    """Send Ctrl-C when the fault that is set has struck; return how the command ended."""

    def struck():
        faults = requests.get(f"{server.url}/sim/faults", timeout=20).json()
        return faults["active"][0]["struck"]

    with subprocess.Popen(
        [COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as waiting:
        until(struck, 30)
        waiting.send_signal(signal.SIGINT)
        out, err = waiting.communicate(timeout=30)
    return waiting.returncode, out, err


def test_ctrl_c_is_one_line(shared):
    shared.server.faults.set("hang", path="GET detector*count_time")
    ended = interrupted(shared.server, "get", shared.url, "count_time")
    assert ended == (130, "", "Error: interrupted\n")


@pytest.mark.long
def test_ctrl_c_while_settings_are_put(dcu):
    """What was begun is ended, and that is said: the settings belong together."""
    dcu.server.faults.set("late", path="PUT detector*", seconds=1, times=1)
    status, out, err = interrupted(dcu.server, "set", dcu.url, "photon_energy=9000", "nimages=7")
    assert (status, out) == (130, "")
    assert "is put all the same" in err
    assert dcu.get("detector/config/photon_energy") == 9000
    assert dcu.get("detector/config/nimages") == 7


def test_ctrl_c_while_it_is_initialized(dcu):
    dcu.server.faults.set("late", command="initialize", seconds=30)
    status, out, err = interrupted(dcu.server, "initialize", dcu.url)
    assert (status, out) == (130, "")
    assert err.splitlines()[-2:] == [
        f"the detector goes on with it; see by ophyd-eiger watch {dcu.url}",
        "Error: interrupted",
    ]


def test_a_reader_that_has_enough(shared):
    done = subprocess.run(
        ["sh", "-c", '"$0" watch "$1" --interval 1 | head -n 1', COMMAND, shared.url],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""
