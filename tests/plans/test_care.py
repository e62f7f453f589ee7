"""Scans are suspended while the detector is not well, and go on when it is again."""

import re
import shlex
import threading

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest
from click.testing import CliRunner
from eiger_plans import suspenders

import sim_dcu
from ophyd_eiger import EigerDetector
from ophyd_eiger.cli import main

# Of each test's cases the short run takes every 2nd, see conftest.
SHORT_RUN_EVERY = 2


@pytest.fixture(params=["eiger-500k", pytest.param("eiger2-500k", marks=pytest.mark.long)])
def model(request):
    return request.param


@pytest.fixture
def dcu(model):
    with sim_dcu.serve(model=model, time_scale=0, seed=5, initialized=True) as server:
        yield server


@pytest.fixture
def eiger(dcu, tmp_path):
    device = EigerDetector(dcu.url, name="eiger", directory=tmp_path / "data")
    device.care.period = 0.1
    yield device
    device.destroy()


class Night(threading.Thread):
    """Let something be wrong once `begun` is set, and mend it once the RunEngine waits."""

    def __init__(self, RE, break_it, mend_it):
        super().__init__(daemon=True)
        self.begun, self.waits, self.mended = (threading.Event() for _ in range(3))
        self.break_it, self.mend_it = break_it, mend_it
        self.stuck = False
        RE.msg_hook = lambda msg: msg.command == "wait_for" and self.waits.set()

    def run(self):
        self.stuck = not self.begun.wait(30)
        self.break_it()
        self.stuck = not self.waits.wait(30) or self.stuck
        self.mend_it()
        self.mended.set()


def points_until(eiger, night):
    """Take points: two before something is wrong, and one after it was mended."""

    @bpp.stage_decorator([eiger])
    @bpp.run_decorator()
    def taking():
        count = 0
        while not night.mended.is_set() or count < 3:
            yield from bps.checkpoint()
            yield from bps.trigger_and_read([eiger])
            count += 1
            if count == 2:
                night.begun.set()

    return taking()


def install(RE, eiger, **limits):
    found = suspenders(eiger, **limits)
    for suspender in found:
        RE.install_suspender(suspender)
    return found


@pytest.mark.parametrize(("fault", "limits"), [("temperature", (10, 40)), ("humidity", (0, 35))])
def test_suspended_and_resumed(RE, catalog, dcu, eiger, model, fault, limits, capsys):
    # An EIGER1 states limits, an EIGER2 none.
    given = {fault: limits} if model == "eiger2-500k" else {}
    install(RE, eiger, **given)
    night = Night(
        RE,
        lambda: dcu.faults.set(f"{fault}:value=60"),
        lambda: dcu.faults.clear(fault),
    )
    night.start()
    (uid,) = RE(points_until(eiger, night))
    night.join(30)
    assert not night.stuck
    said = capsys.readouterr().out
    # Those of an EIGER1 are what a real EIGER 500K states.
    stated = {"temperature": "[15.0, 37.5]", "humidity": "[0.0, 35]"}[fault]
    assert f"outside {list(limits) if given else stated}" in said
    # Each event has the images of its own series, whatever was taken again.
    dataset = catalog[uid].primary.read()
    ids = [int(number) for number in np.asarray(dataset["eiger_series_id"])]
    found = np.asarray(dataset["eiger_image"])[:, 0]
    assert len(ids) >= 3
    assert np.array_equal(found, [dcu.image(series_id, 1) for series_id in ids])


def break_link(dcu):
    dcu.dcu.detector.sensors.links["link_1"] = "down"


def mend_link(dcu):
    dcu.dcu.detector.sensors.links["link_1"] = "up"


WRONG = {
    "state": (
        lambda dcu: dcu.dcu.detector.state.fail("module 3 lost"),
        lambda dcu, eiger: eiger.recover().wait(30),
        r"eiger_detector_state is error: eiger.recover() may bring it back",
    ),
    "link": (
        break_link,
        lambda dcu, eiger: mend_link(dcu),
        "eiger_detector_link_1 is down: no data",
    ),
    "room": (
        lambda dcu: dcu.faults.set("full"),
        lambda dcu, eiger: dcu.faults.clear(),
        "eiger_filewriter_buffer_free is 0: the DCU has less than 2 GB free",
    ),
}


@pytest.mark.parametrize("what", [pytest.param("link", marks=pytest.mark.long), "room", "state"])
def test_a_run_does_not_begin_while_something_is_wrong(RE, dcu, eiger, what, capsys):
    wrong, mend, why = WRONG[what]
    eiger.connect()
    wrong(dcu)
    installed = install(RE, eiger)
    seen = threading.Event()
    (watching,) = [s for s in installed if why.startswith(f"{s._sig.name} ")]
    while not watching.tripped:
        assert not seen.wait(0.01)
    night = Night(RE, lambda: None, lambda: mend(dcu, eiger))
    night.begun.set()
    night.start()
    (uid,) = RE(bp.count([eiger], 1))
    night.join(30)
    assert not night.stuck
    assert uid
    assert why in capsys.readouterr().out


def test_hysteresis(dcu, eiger):
    """It goes on when it is well inside, not at the first value that is no alarm."""
    found = suspenders(eiger, temperature=(15, 37.5), humidity=(0, 35))
    eiger.care.stop()
    (temperature,) = [s for s in found if "temp" in s._sig.name]
    verdicts = [
        (temperature._should_suspend(value), temperature._should_resume(value))
        for value in (None, 37.6, 37.4, 36.4, 14.9, 15.5, 16.1)
    ]
    bad, between, good = (True, False), (False, False), (False, True)
    assert verdicts == [between, bad, between, good, bad, between, good]
    (humidity,) = [s for s in found if "humidity" in s._sig.name]
    # No air is too dry.
    assert humidity._should_resume(0.1)
    assert not humidity._should_resume(34)
    (room,) = [s for s in found if "buffer_free" in s._sig.name]
    unit = {"1.6.0": 1024, "1.8.0": 1}[eiger.link.client.api_version]
    assert room._should_suspend(1.9e9 / unit)
    assert not room._should_resume(3.9e9 / unit)
    assert room._should_resume(4.1e9 / unit)


def test_what_it_says_of_the_room_makes_room_while_the_device_is_staged(RE, eiger, tmp_path):
    (room,) = [s for s in suspenders(eiger) if "buffer_free" in s._sig.name]
    eiger.care.stop()
    RE(bp.count([eiger], 1))
    older = {file.path.name for file in eiger.fetched}
    command = re.search("`ophyd-eiger (.*?)`", room._why)[1]
    stem = min(older).partition("_1_")[0]
    given = {"OLDER_*": f"{stem}_*", "OTHER": str(tmp_path / "other")}
    eiger.stage().wait(20)
    done = CliRunner().invoke(main, [given.get(word, word) for word in shlex.split(command)])
    assert done.exit_code == 0, done.output
    assert older.isdisjoint(eiger.link.client.files())
    assert {path.name for path in (tmp_path / "other").iterdir()} == older
    eiger.trigger().wait(20)
    eiger.unstage().wait(20)


def test_without_limits_it_says_so(dcu, eiger, model, caplog):
    found = suspenders(eiger)
    names = [suspender._sig.name for suspender in found]
    has_limits = model == "eiger-500k"
    assert any("temp" in name for name in names) is has_limits
    assert ("states no critical limits" in caplog.text) is not has_limits
    # Two links of a 500K.
    assert sum("link" in name for name in names) == 2


@pytest.mark.parametrize("wrong", [3, "eiger", []])
def test_suspenders_are_those_of_a_detector(wrong):
    with pytest.raises(TypeError, match="suspenders takes the detector first"):
        suspenders(wrong)
