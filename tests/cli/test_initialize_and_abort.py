"""`initialize` and `abort`: what is lost, what is refused, and in which state it ends."""

import threading

import pytest
import requests
from foreign_dcu import ForeignDcu, hanging, missing, with_value
from plain_client import until

GENERATIONS_BY_TURNS = True


@pytest.fixture
def foreign(dcu):
    proxy = ForeignDcu(dcu.url)
    yield proxy
    proxy.close()


def expose(dcu, images=1000):
    """Have a detector take images, and return when it does."""
    dcu.put("detector/config/nimages", images)
    dcu.server.faults.set("stall", image=3)
    dcu.put("detector/command/arm")
    trigger = threading.Thread(
        target=requests.put, args=[dcu.path("detector/command/trigger")], kwargs={"timeout": 60}
    )
    trigger.start()
    until(lambda: dcu.get("detector/status/state") == "acquire", 20)
    return trigger


# ---- initialize ----


def test_one_that_was_just_switched_on(asleep, run):
    said = run("initialize", asleep.url, "--json")
    assert said.status == 0
    assert said.json["state_before"] == "na"
    assert said.json["state"] == asleep.get("detector/status/state") == "idle"
    assert said.json["changed"] == []
    # Nothing was lost, so nothing is said of it.
    assert "default" not in said.err


def test_what_was_lost_is_told_and_how_to_have_it_back(either, run):
    either.put("detector/config/photon_energy", 12400)
    either.put("detector/config/nimages", 5)
    said = run("initialize", either.url)
    assert said.status == 0
    assert either.get("detector/config/nimages") == 1
    assert "12400" in said.out
    assert "8047.78 eV" in said.out
    (again,) = [line for line in said.err.splitlines() if line.startswith("to have them back: ")]
    assert run(*again.partition("ophyd-eiger ")[2].split()).status == 0
    assert either.get("detector/config/photon_energy") == 12400
    assert either.get("detector/config/nimages") == 5


def test_an_armed_detector_is_somebodys(either, run):
    either.put("detector/config/nimages", 5)
    either.put("detector/command/arm")
    said = run("initialize", either.url, "--yes")
    assert said.status == 1
    assert "'ready'" in said.err
    assert either.get("detector/status/state") == "ready"
    assert run("initialize", either.url, "--force").status == 0
    assert either.get("detector/status/state") == "idle"
    assert either.get("detector/config/nimages") == 1


@pytest.mark.parametrize(("answer", "status", "images"), [("n\n", 1, 5), ("y\n", 0, 1)])
def test_it_asks_at_a_terminal(dcu, run, monkeypatch, answer, status, images):
    dcu.put("detector/config/nimages", 5)
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True)
    said = run("initialize", dcu.url, typed=answer)
    assert said.status == status
    assert "Initialize? [y/N]" in said.err
    assert dcu.get("detector/config/nimages") == images


def test_yes_is_not_asked(dcu, run, monkeypatch):
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True)
    assert run("initialize", dcu.url, "--yes").status == 0


def test_a_reply_that_is_lost(asleep, run):
    asleep.server.faults.set("lose", command="initialize")
    said = run("initialize", asleep.url)
    assert said.status == 0
    assert asleep.get("detector/status/state") == "idle"


def test_a_reply_that_is_lost_where_nothing_shows_that_it_was_done(foreign, run):
    foreign.gap = hanging("PUT detector command/initialize", done=False)
    said = run("initialize", foreign.url, "--timeout", "1", "--json")
    assert said.status == 1
    assert said.json["error"]["kind"] == "DcuTimeoutError"
    assert foreign.requests.count("PUT detector command/initialize") == 1


# ---- abort ----


@pytest.mark.parametrize("flags", [(), ("--keep",)])
def test_an_armed_detector_is_disarmed(either, run, flags):
    either.put("detector/command/arm")
    said = run("abort", either.url, *flags, "--json")
    assert said.status == 0
    assert said.json["state_before"] == "ready"
    assert said.json["sent"] == ["cancel" if flags else "abort", "disarm"]
    assert said.json["state"] == either.get("detector/status/state") == "idle"


def test_an_exposure_is_ended(either, run):
    trigger = expose(either)
    said = run("abort", either.url)
    trigger.join(20)
    assert said.status == 0
    assert "acquire -> idle" in said.out
    assert either.get("detector/status/state") == "idle"


def test_nothing_runs(dcu, run):
    said = run("abort", dcu.url, "--json")
    assert said.status == 0
    assert said.json["sent"] == []
    assert said.json["state"] == "idle"


def test_nothing_can_run_before_it_is_initialized(asleep, run):
    said = run("abort", asleep.url)
    assert said.status == 0
    assert said.out.startswith("nothing runs: na")
    assert f"ophyd-eiger initialize {asleep.url}" in said.err


def test_a_dcu_without_abort_is_disarmed(dcu, foreign, run):
    foreign.gap = missing("PUT detector command/abort")
    dcu.put("detector/command/arm")
    said = run("abort", foreign.url, "--json")
    assert said.json["sent"] == ["disarm"]
    assert dcu.get("detector/status/state") == "idle"


def test_a_lost_reply_to_abort(either, run):
    either.put("detector/command/arm")
    either.server.faults.set("lose", command="abort")
    said = run("abort", either.url)
    assert said.status == 0
    assert either.get("detector/status/state") == "idle"


def test_one_that_does_not_end_fails(dcu, foreign, run):
    foreign.gap = missing("PUT detector command/*")
    dcu.put("detector/command/arm")
    said = run("abort", foreign.url, "--timeout", "1", "--json")
    assert said.status == 1
    assert said.json["state"] == "ready"
    assert f"initialize --force {foreign.url}" in said.err


@pytest.mark.parametrize("keep", [[], ["--keep"]])
def test_one_that_does_not_tell_whether_it_is_armed(dcu, foreign, run, keep):
    """Before API 1.6 a detector calls itself ready whether it is armed or not."""
    foreign.gap = with_value("GET detector status/state", "ready")
    dcu.put("detector/command/arm")
    said = run("abort", foreign.url, "--api-version", "1.5.0", "--json", *keep)
    assert said.status == 0
    assert said.json["sent"] == ["cancel" if keep else "abort", "disarm"]
    assert dcu.get("detector/status/state") == "idle"
