"""`watch`: what each poll says, rates, a DCU that goes away and comes back, a real terminal."""

import json
import os
import re
import signal
import sys
from pathlib import Path

import pexpect
import pytest
import requests
from plain_client import until
from rich.console import Console

from ophyd_eiger.cli import polling, watch
from ophyd_eiger.cli.polling import Snapshot

# The command that the package installs beside this Python.
COMMAND = str(Path(sys.executable).with_name("ophyd-eiger"))


@pytest.fixture
def between(monkeypatch):
    """What is done in place of each pause between polls."""
    steps = []
    monkeypatch.setattr(watch, "sleep", lambda seconds: steps.pop(0)() if steps else None)
    return steps


def take(dcu, images):
    dcu.put("detector/config/nimages", images)
    dcu.put("detector/command/arm")
    dcu.put("detector/command/trigger")
    # It replies when files and monitor have the images.
    dcu.put("detector/command/disarm")


def test_a_line_for_each_poll(dcu, run, between):
    dcu.put("monitor/config/mode", "enabled")
    between.append(lambda: take(dcu, 3))
    said = run("watch", dcu.url, "--count", "2")
    assert said.status == 0
    first, second = said.out.splitlines()
    assert re.match(r"\d\d:\d\d:\d\d  idle  .*monitor no image.*  files 0 on the DCU", first)
    assert "series 1 image 3" in second
    assert "files 2 on the DCU, file writer ready" in second
    assert re.search(r"temperature \d\d\.\d °C", second)


@pytest.mark.parametrize("model", ["dcu", "dcu2"])
def test_json_is_an_object_for_each_poll_with_the_same_keys(request, run, between, model):
    dcu = request.getfixturevalue(model)
    dcu.put("filewriter/config/mode", "enabled")
    between.append(lambda: dcu.put("detector/command/arm"))
    said = run("watch", dcu.url, "--count", "2", "--json")
    polls = [json.loads(line) for line in said.out.splitlines()]
    assert [poll["state"] for poll in polls] == ["idle", "ready"]
    assert polls[0].keys() == polls[1].keys()
    assert polls[1]["filewriter"] == "acquire"
    assert polls[1]["files"] == 1
    assert polls[1]["free"] == pytest.approx(
        dcu.get("filewriter/status/buffer_free") * (1 if model == "dcu2" else 1024), rel=1e-3
    )
    assert 20 < polls[0]["temperature"] < 30


def test_a_critical_reading_is_shown(dcu, run):
    dcu.server.faults.set("temperature", value=60)
    dcu.put("detector/command/status_update")
    said = run("watch", dcu.url, "--count", "1")
    assert "60.0 °C CRITICAL" in said.out
    assert said.out.count("CRITICAL") == 1


def test_a_dcu_that_goes_away_and_comes_back(dcu, run, between):
    def answers():
        try:
            return dcu.get("detector/status/state")
        except requests.ConnectionError:
            return None

    between += [
        lambda: dcu.server.faults.set("die", back=0.5),
        lambda: until(answers, 20),
    ]
    said = run("watch", dcu.url, "--count", "3", "--json")
    polls = [json.loads(line) for line in said.out.splitlines()]
    assert [poll["answers"] for poll in polls] == [True, False, True]
    assert polls[1]["state"] is None
    assert "cannot be reached" in polls[1]["failure"] or "lost" in polls[1]["failure"]
    assert polls[2]["state"] == "na"
    assert said.status == 0


def test_one_that_never_answers(run, between, dead_url):
    said = run("watch", dead_url, "--count", "2")
    assert said.status == 3
    assert said.out.count("no answer") == 2


def test_one_that_is_no_dcu(run, between, web_server):
    said = run("watch", web_server)
    assert said.status == 3
    assert "--api-version" in said.err


def test_ctrl_c_ends_it_in_good_order(dcu, run, between):
    def interrupt():
        signal.raise_signal(signal.SIGINT)

    between.append(interrupt)
    said = run("watch", dcu.url)
    assert (said.status, said.err) == (0, "")
    assert len(said.out.splitlines()) == 1


def test_rates_are_of_one_series():
    before = Snapshot(at=100.0, series=1, image=10, free=5e9)
    now = Snapshot(at=102.0, series=1, image=30, free=4e9).since(before)
    assert (now.image_rate, now.write_rate) == (10.0, 5e8)
    assert Snapshot(at=102.0, series=2, image=30).since(before).image_rate is None
    # Files were deleted: nothing is known of what was written.
    assert Snapshot(at=102.0, free=9e9).since(before).write_rate == 0.0
    assert Snapshot(at=100.0, series=1, image=30).since(before).image_rate is None
    assert Snapshot(at=102.0, image=5).since(None).image_rate is None


@pytest.mark.parametrize("listing", [None, [1, 2], [[1]], {"value": []}, [["a", [1]]]])
def test_a_monitor_that_lists_something_else(listing):
    class Client:
        def get(self, *_):
            return listing

    class Dcu:
        client = Client()

    assert polling._newest(Dcu()) in [(None, None, None), (None, None, 0)]


def terminal(url, *flags, kind):
    return pexpect.spawn(
        COMMAND,
        ["watch", url, *flags],
        env={**os.environ, "TERM": kind},
        encoding="utf-8",
        timeout=30,
        dimensions=(30, 100),
    )


def test_in_a_terminal(dcu):
    """It is drawn in place, tells of a DCU that is away, and Ctrl-C ends it with status 0."""
    child = terminal(dcu.url, kind="xterm-256color")

    def shows(*words):
        # Blanks and colours between.
        child.expect(r"(?: |\x1b\[[\d;]*m)+".join(words))

    shows("state", "idle")
    shows("files", "0 on the DCU")
    dcu.put("detector/command/arm")
    shows("state", "ready")
    dcu.server.faults.set("die", back=2)
    shows("state", "no answer")
    child.expect(r"last seen .* in state ready")
    shows("state", "na")
    child.expect(r"idle .* ready .* no answer .* na")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert "Traceback" not in (child.before or "")
    assert child.exitstatus == 0


def test_in_a_terminal_that_can_only_scroll(dcu):
    child = terminal(dcu.url, "--count", "1", kind="dumb")
    child.expect(pexpect.EOF)
    child.close()
    assert re.match(r"\d\d:\d\d:\d\d  idle .*\r\n$", child.before)
    assert child.exitstatus == 0


def test_how_long_a_state_lasts_is_known_only_where_it_was_seen_to_begin():
    display = watch.Display("http://dcu")

    def shown(at, state):
        display.add(Snapshot(at=at, state=state))
        console = Console(width=100)
        with console.capture() as captured:
            console.print(display.renderable())
        return captured.get()

    shown(100.0, "idle")
    assert "idle  (for at least 6 s)" in shown(106.0, "idle")
    shown(107.0, "ready")
    assert "ready  (for 2 s)" in shown(109.0, "ready")
