"""tickit-devices' EIGER, a simulator of others: the device goes as far as it goes.

It takes an event loop, EPICS and Kafka clients with it, so that it has an environment of its own:

    python -m venv tickit && tickit/bin/pip install "tickit-devices==0.4.*"
    EIGER_TICKIT_PYTHON=tickit/bin/python python -m pytest tests/device/test_tickit.py

It serves settings, states and commands of an EIGER2 (API 1.8.0) under no `version`, states no
limits, sends its images as a stream alone, and answers each arm with the same id.
"""

import contextlib
import logging
import math
import os
import re
import sys
import time

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import pytest
import requests
from bluesky.utils import FailedStatus
from foreign_process import free_ports, require, running

from ophyd_eiger import EigerDetector, Timeouts, TriggerInfo
from ophyd_eiger.errors import (
    DcuTimeoutError,
    NotServedError,
    ReplyError,
    StateError,
    TransferError,
)

# Of each test's cases the short run takes every 4th, see conftest.
SHORT_RUN_EVERY = 4

PYTHON = os.environ.get("EIGER_TICKIT_PYTHON", sys.executable)
INSTALL = 'python -m venv tickit && tickit/bin/pip install "tickit-devices==0.4.*"'
CONFIGURATION = """\
- type: tickit_devices.eiger.Eiger
  name: eiger
  inputs: {{}}
  host: 127.0.0.1
  port: {}
  stream_legacy_port: {}
  stream_cbor_port: {}
"""
TIMEOUTS = Timeouts(get=5, put=5, arm=5, end=5, trigger_margin=1, files=30)
NO_FILES = (
    r"eiger_\w+_2_data_000001\.h5, .* cannot be fetched, because this DCU has no list of its files "
    r"\(GET http://\S+/filewriter/api/1\.8\.0/files: .*404.*\); the images were taken"
)


@pytest.fixture(scope="session")
def python():
    hint = f"no tickit-devices 0.4: {INSTALL}; EIGER_TICKIT_PYTHON=tickit/bin/python"
    return require(PYTHON, "tickit-devices", "0.4.", hint)


def state_of(url):
    return requests.get(f"{url}/detector/api/1.8.0/status/state", timeout=5).json()["value"]


@contextlib.contextmanager
def tickit_at_work(python, folder):
    """Give the address of a simulator that was just switched on."""
    ports = free_ports(3)
    configuration = folder / "eiger.yaml"
    configuration.write_text(CONFIGURATION.format(*ports))
    url = f"http://127.0.0.1:{ports[0]}"
    command = [python, "-m", "tickit", "all", str(configuration)]
    with running(command, folder, f"{url}/detector/api/1.8.0/status/state"):
        yield url


@pytest.fixture(scope="module")
def tickit(python, tmp_path_factory):
    """The address of a simulator that others used before: it takes seconds to start."""
    with tickit_at_work(python, tmp_path_factory.mktemp("tickit")) as url:
        yield url


@pytest.fixture
def new(python, tmp_path):
    """A device on a simulator that was just switched on."""
    with tickit_at_work(python, tmp_path) as url:
        device = EigerDetector(url, name="eiger", directory=tmp_path / "data", timeouts=TIMEOUTS)
        yield device
        device.destroy()


@pytest.fixture(params=["datum", "stream"])
def documents(request):
    return request.param


@pytest.fixture
def plain(tickit, tmp_path):
    """A device with the default documents, initialized and set up."""
    device = EigerDetector(tickit, name="eiger", directory=tmp_path / "data", timeouts=TIMEOUTS)
    set_up(device)
    yield device
    device.destroy()


def set_up(device):
    device.initialize()
    device.configure(
        {
            "photon_energy": 12400,
            "threshold/2/mode": "disabled",
            "trigger_mode": "ints",
            "nimages": 1,
            "ntrigger": 1,
            "count_time": 0.02,
            "frame_time": 0.03,
        }
    )


@pytest.fixture
def eiger(tickit, tmp_path, documents):
    device = EigerDetector(
        tickit, name="eiger", directory=tmp_path / "data", timeouts=TIMEOUTS, documents=documents
    )
    set_up(device)
    yield device
    device.destroy()


def test_it_connects_and_has_what_is_there(tickit, plain):
    plain.connect()
    assert plain.link.client.api_version == "1.8.0"
    read, absent = set(), set()
    for subsystem in plain.subsystems:
        for signal in subsystem.signals:
            path = f"{signal.subsystem}/api/1.8.0/{signal.resource}"
            reply = requests.get(f"{tickit}/{path}", timeout=5)
            there = reply.ok and isinstance(reply.json(), dict)
            if signal.served is None:
                # The big arrays are read only when they are asked for.
                assert "flatfield" in path or "pixel_mask" in path
                continue
            assert bool(signal.read()) == signal.served == there, path
            (read if there else absent).add(signal.resource)
            if there and signal.resource not in ("status/time", "config/keys"):
                assert signal.last == reply.json()["value"]
                assert signal.limits[1] is None
                assert signal.describe()[signal.name]["dtype_numpy"]
    assert {"config/count_time", "status/state", "config/threshold/2/mode", "config/mode"} <= read
    assert {"config/system_info/service_tag", "status/high_voltage/state"} <= absent
    for subsystem in plain.subsystems:
        assert subsystem.undeclared() == []


@pytest.mark.long
def test_before_initialize_it_says_what_to_do(new, RE):
    with pytest.raises(
        FailedStatus, match=r"eiger: the detector at http\S+ is in state 'na', not "
    ):
        RE(bp.count([new], 1))
    new.initialize()
    with pytest.raises(FailedStatus, match=r"threshold/1/mode, threshold/2/mode are 'enabled', so"):
        RE(bp.count([new], 1))


def test_settings(tickit, plain, tmp_path):

    def there(key):
        reply = requests.get(f"{tickit}/detector/api/1.8.0/config/{key}", timeout=5)
        return reply.json()["value"]

    assert (there("photon_energy"), there("threshold_energy")) == (12400, 6200)
    assert (there("count_time"), there("frame_time")) == (0.02, 0.03)
    # Its replies name what may have changed, so that it was read back.
    assert plain.detector.threshold_energy.last == 6200
    saved = plain.save_configuration(tmp_path / "good.json")
    plain.detector.count_time.set(0.5).wait(10)
    differences = plain.diff_configuration(saved)
    assert ("detector.count_time", 0.5, 0.02) in [d[:3] for d in map(vars_of, differences)]
    plain.restore_configuration(saved)
    assert there("count_time") == 0.02
    with pytest.raises(ReplyError, match=r"^eiger_detector_flatfield: .*'\[\[\]\]' is no array"):
        plain.detector.flatfield.get()


def vars_of(difference):
    return difference.name, difference.here, difference.there, difference.unit


@pytest.mark.parametrize("ntrigger", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_step_scan_until_its_files_are_due(tickit, eiger, RE, ntrigger, documents):
    """Twice: the device is as before when the first is over."""
    eiger.configure({"ntrigger": ntrigger, "nimages": 3})
    for _ in range(2):
        names = []
        token = RE.subscribe(lambda name, _, names=names: names.append(name))
        began = time.monotonic()
        with pytest.raises(FailedStatus) as caught:
            RE(bp.count([eiger], 2))
        RE.unsubscribe(token)
        # It does not wait for what will not come.
        assert time.monotonic() - began < TIMEOUTS.files / 2
        cause = caught.value.__cause__
        assert isinstance(cause, TransferError)
        assert re.search(NO_FILES, str(cause))
        assert names.count("event") == 2
        assert ("stream_datum" in names) == (documents == "stream")
        assert state_of(tickit) == "idle"
        reply = requests.get(f"{tickit}/filewriter/api/1.8.0/config/name_pattern", timeout=5)
        assert reply.json()["value"] == "test.h5"


def test_a_fly_scan_until_its_files_are_due(tickit, eiger, RE, documents):
    points = []

    def note(name, document):
        if name in ("event_page", "stream_datum"):
            indices = document.get("indices")
            points.extend(range(indices["start"], indices["stop"]) if indices else document["time"])

    RE.subscribe(note)

    @bpp.stage_decorator([eiger])
    @bpp.run_decorator()
    def fly():
        info = TriggerInfo(number_of_events=4, exposures_per_event=2, livetime=0.01)
        yield from bps.prepare(eiger, info, wait=True)
        yield from bps.declare_stream(eiger, name="primary", collect=True)
        yield from bps.kickoff(eiger, wait=True)
        yield from bps.collect_while_completing([eiger], [eiger], 0.1, "primary")

    with pytest.raises(FailedStatus) as caught:
        RE(fly())
    assert re.search(NO_FILES, str(caught.value.__cause__))
    assert len(points) == 4
    assert state_of(tickit) == "idle"


@pytest.mark.long
def test_a_trigger_that_hangs(new):
    """Its trigger never replies in a mode that it does not have."""
    set_up(new)
    new.detector.trigger_mode.set("inte").wait(10)
    new.stage().wait(10)
    with pytest.raises(
        DcuTimeoutError,
        match=r"^eiger: PUT http\S+/command/trigger: no answer within .* the state is 'ready': the "
        r"images may not have been taken; eiger\.recover\(\)",
    ):
        new.trigger().wait(30)
    new.unstage().wait(30)
    assert state_of(new.address) == "idle"
    new.detector.trigger_mode.set("ints").wait(10)
    new.stage().wait(10)
    new.trigger().wait(30)
    assert new.read()["eiger_series_id"]["value"] == 2
    with pytest.raises(TransferError, match=NO_FILES):
        new.unstage().wait(30)


@pytest.mark.long
def test_live_numbers_are_nan(plain, caplog):
    plain.live.enabled = True
    with caplog.at_level(logging.WARNING):
        plain.stage().wait(10)
        plain.trigger().wait(10)
    said = [record.getMessage() for record in caplog.records if "live" in record.name]
    assert len(said) == 1
    assert re.search(
        r"eiger_live: live numbers are NaN: .*does not serve monitor/command/clear", said[0]
    )
    assert math.isnan(plain.read()["eiger_live_full_sum"]["value"])
    with pytest.raises(NotServedError, match=r"^eiger_monitor: this DCU .*monitor/images"):
        plain.live.image.get()
    with pytest.raises(TransferError):
        plain.unstage().wait(30)


def test_commands_by_hand(tickit, plain):
    states = []
    for command in ("arm", "soft_trigger", "arm", "disarm", "arm", "abort"):
        getattr(plain.detector, command).set(1).wait(10)
        states.append(state_of(tickit))
    assert states == ["ready", "idle", "ready", "idle", "ready", "idle"]
    with pytest.raises(NotServedError, match=r"^eiger_detector_hv_reset: this DCU \(API 1\.8\.0\)"):
        plain.detector.hv_reset.set(1).wait(10)
    plain.detector.trigger_mode.set("exts").wait(10)
    plain.link.client.timeouts = Timeouts(signal=1)
    plain.stage().wait(10)
    with pytest.raises(StateError, match=r"Do the signals reach the detector's trigger input"):
        plain.trigger().wait(20)
    plain.unstage().wait(20)
