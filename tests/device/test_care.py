"""What is watched of a detector: read as a baseline, told to subscribers, and never in the way."""

import gc
import threading
import weakref

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import pytest
import requests
from bluesky.preprocessors import SupplementalData
from bluesky.utils import RunEngineInterrupted
from foreign_dcu import ForeignDcu, with_value

import sim_dcu
from ophyd_eiger import EigerDetector
from ophyd_eiger.errors import StateError
from ophyd_eiger.signals import LimitError
from ophyd_eiger.worker import EigerStatus

# The short run takes each test with one generation only, see conftest.
GENERATIONS_BY_TURNS = True

API = {"eiger-500k": "1.6.0", "eiger2-500k": "1.8.0"}
TEMPERATURE = {
    "eiger-500k": "eiger_detector_board_000_th0_temp",
    "eiger2-500k": "eiger_detector_temperature",
}
HUMIDITY = {
    "eiger-500k": "eiger_detector_board_000_th0_humidity",
    "eiger2-500k": "eiger_detector_humidity",
}


@pytest.fixture(params=API)
def model(request):
    return request.param


@pytest.fixture
def dcu(model):
    with sim_dcu.serve(model=model, time_scale=0, seed=3, initialized=True) as server:
        yield server


def looks(eiger, count):
    """Wait until the room was asked for so often: once with each look."""
    seen, enough = [], threading.Event()

    def note(**_):
        seen.append(1)
        if len(seen) > count:
            enough.set()

    eiger.care.room.subscribe(note, run=False)
    assert enough.wait(30)
    eiger.care.room.clear_sub(note)


def test_a_baseline(RE, catalog, dcu, eiger, model):
    RE.preprocessors.append(SupplementalData(baseline=[eiger.care]))
    dcu.faults.set("temperature:value=30")
    (uid,) = RE(bp.count([eiger], 1))
    run = catalog[uid]
    (descriptor,) = run.baseline.metadata["descriptors"]
    keys = descriptor["data_keys"]
    assert keys[TEMPERATURE[model]]["units"] == "degree Celsius"
    assert keys[HUMIDITY[model]]["units"] == "percent"
    room = {"eiger-500k": "KB", "eiger2-500k": "byte"}[model]
    assert keys["eiger_filewriter_buffer_free"]["units"] == room
    # A 500K has two links, and one name for its temperature.
    assert {key for key in keys if "link" in key} == {
        "eiger_detector_link_0",
        "eiger_detector_link_1",
    }
    assert sum("temp" in key for key in keys) == 1
    # Armed when the run begins, idle when it ends: then it is fresh.
    found = run.baseline.read()[TEMPERATURE[model]].values
    assert len(found) == 2
    assert found[1] == pytest.approx(30, abs=0.02)
    assert list(run.baseline.read()["eiger_detector_state"].values) == ["ready", "idle"]


def test_a_baseline_waits_for_no_exposure_of_a_run_that_is_aborted(RE, tmp_path, requests_sent):
    """Nobody waits for it any more, and the baseline is read before unstage ends it."""
    with sim_dcu.serve("eiger-500k", time_scale=1, initialized=True) as dcu:
        eiger = EigerDetector(dcu.url, name="eiger", directory=tmp_path)
        eiger.configure({"frame_time": 60, "count_time": 59})

        @bpp.stage_decorator([eiger])
        @bpp.run_decorator()
        def paused_in_an_exposure():
            yield from bps.checkpoint()
            yield from bps.trigger(eiger, group="exposure")
            yield from bps.pause()

        RE.preprocessors.append(SupplementalData(baseline=[eiger.care]))
        with pytest.raises(RunEngineInterrupted):
            RE(paused_in_an_exposure())
        requests_sent.clear()
        RE.abort()
        sent = requests_sent()
        assert "PUT detector command/abort" in sent
        assert (
            "PUT detector command/status_update"
            not in sent[: sent.index("PUT detector command/abort")]
        )
        assert eiger.detector.state.get() == "idle"
        eiger.destroy()


def test_read_by_itself_it_is_fresh_and_stages_nothing(RE, dcu, eiger, model, requests_sent):
    dcu.faults.set("humidity:value=60")
    documents = []
    requests_sent.clear()
    RE(bp.count([eiger.care], 1), lambda name, doc: documents.append((name, doc)))
    (event,) = [doc for name, doc in documents if name == "event"]
    assert event["data"][HUMIDITY[model]] == pytest.approx(60, abs=0.05)
    sent = requests_sent()
    assert "PUT detector command/arm" not in sent
    assert ("PUT detector command/status_update" in sent) is (model == "eiger-500k")


def test_alarms_are_the_dcus_own(dcu, tmp_path):
    with sim_dcu.serve("eiger-500k", seed=3, initialized=True) as own:
        eiger = EigerDetector(own.url, name="eiger", directory=tmp_path)
        eiger.connect()
        assert eiger.care.alarms == []
        assert "ok" in repr(eiger.care)
        own.faults.set("temperature:value=60")
        eiger.care.trigger().wait(10)
        (alarm,) = eiger.care.alarms
        # V1.3: the critical limits that a real EIGER 500K states.
        assert alarm.startswith("eiger_detector_board_000_th0_temp: critical: 60.0")
        assert alarm.endswith("is outside [15.0, 37.5]")
        assert "is outside [15.0, 37.5]" in repr(eiger.care)
        reading = eiger.care.read()["eiger_detector_board_000_th0_temp"]
        assert reading["alarm_severity"] == 1
        eiger.destroy()


def test_watching_tells_subscribers_and_ends(dcu, eiger, model):
    eiger.care.period = 0.1
    eiger.care.start()
    hot = threading.Event()
    eiger.care.temperature.subscribe(lambda value, **_: value > 50 and hot.set(), run=False)
    dcu.faults.set("temperature:value=60")
    assert hot.wait(30)
    # One thread, however often it is asked to watch; none when the device has gone.
    eiger.care.start()
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("eiger_care") == 1
    eiger.destroy()
    assert "eiger_care" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.long
def test_watching_ends_with_a_device_that_nobody_uses(dcu, tmp_path):
    eiger = EigerDetector(dcu.url, name="left", directory=tmp_path)
    eiger.care.period = 0.1
    eiger.care.start()
    looks(eiger, 1)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "left_care"]
    # It does not wait for the next look.
    eiger.care.period = 600
    gone = weakref.ref(eiger.care)
    del eiger
    while gone() is not None:  # the thread itself holds it for the time of a look
        gc.collect()
    thread.join(30)
    assert not thread.is_alive()


# An EIGER2 needs none.
@pytest.mark.parametrize("model", ["eiger-500k"])
def test_no_command_while_armed_or_exposing(dcu, eiger, model, requests_sent):
    eiger.configure({"ntrigger": 2})
    eiger.care.period = 0.1
    dcu.faults.set("stall")
    eiger.stage().wait(20)
    requests_sent.clear()
    eiger.care.start()
    looks(eiger, 2)
    triggered = eiger.trigger()
    looks(eiger, 2)
    sent = requests_sent()
    assert sent.count("GET filewriter status/buffer_free") >= 4
    # (The trigger that stalls is noted when it is answered.)
    assert [s for s in sent if s.startswith("PUT")] == []
    dcu.faults.clear()
    triggered.wait(20)
    eiger.care.stop()
    eiger.unstage().wait(20)


@pytest.mark.parametrize("model", ["eiger-500k"])
@pytest.mark.parametrize(("version", "state"), [("1.5.0", "ready"), ("1.6.0", "error")])
def test_it_measures_wherever_nothing_is_armed(dcu, tmp_path, model, version, state):
    """Before API 1.6 an idle detector calls itself ready; and one in an error may be too warm."""
    foreign = ForeignDcu(dcu.url)
    foreign.gap = with_value("GET detector status/state", state)
    device = EigerDetector(foreign.url, name="eiger", directory=tmp_path, api_version=version)
    device.connect()
    foreign.requests.clear()
    device.care.look_once()
    device.link.worker.submit(lambda: None, EigerStatus("behind it")).wait(20)
    assert foreign.requests.count("PUT detector command/status_update") == 1
    assert "GET detector status/board_000/th0_temp" in foreign.requests
    device.destroy()
    foreign.close()


def test_a_scan_beside_it_is_right(RE, dcu, eiger, assert_right_of_either):
    eiger.care.period = 0.1
    eiger.care.start()
    (uid,) = RE(bp.count([eiger], 10))
    assert_right_of_either(uid, points=10)
    eiger.care.stop()


@pytest.fixture
def assert_right_of_either(dcu, catalog):
    import numpy as np

    def check(uid, *, points):
        found = np.asarray(catalog[uid].primary.read()["eiger_image"])[:, 0]
        assert np.array_equal(found, [dcu.image(n + 1, 1) for n in range(points)])

    return check


def test_a_dcu_that_goes_away_is_told_once_and_back_again(dcu, eiger, caplog):
    eiger.care.period = 0.1
    caplog.set_level("INFO", logger="ophyd_eiger.care")
    back = threading.Event()
    dcu.faults.set("drop:path=GET *")
    eiger.care.start()
    while dcu.faults.listing()[0]["struck"] < 6:
        assert not back.wait(0.01)
    dcu.faults.clear()
    looks(eiger, 2)
    said = [r.getMessage() for r in caplog.records if r.name == "ophyd_eiger.care"]
    assert [("nobody watches" in line, "answers again" in line) for line in said] == [
        (True, False),
        (False, True),
    ]


def test_one_that_was_initialized_by_somebody_else_is_watched_again(dcu, eiger, model):
    eiger.care.period = 0.1
    api = f"{dcu.url}/detector/api/{API[model]}/command"
    system = f"{dcu.url}/system/api/{API[model]}/command/restart"
    requests.put(system, timeout=20).raise_for_status()
    eiger.care.start()
    lost, well = threading.Event(), threading.Event()
    eiger.care.state.subscribe(lambda value, **_: value == "na" and lost.set(), run=False)
    assert lost.wait(30)
    looks(eiger, 2)
    assert eiger.care.temperature is not None
    dcu.faults.set("temperature:value=33")
    eiger.care.temperature.subscribe(lambda value, **_: value > 32 and well.set(), run=False)
    requests.put(f"{api}/initialize", timeout=20).raise_for_status()
    assert well.wait(30)


def test_before_the_dcu_was_asked(tmp_path):
    eiger = EigerDetector("http://dcu.invalid", name="eiger", directory=tmp_path)
    assert eiger.care.signals == []
    assert eiger.care.temperature is None
    assert "eiger.connect()" in repr(eiger.care)
    with pytest.raises(StateError, match=r"was not asked yet what it has; eiger\.connect\(\)"):
        eiger.care.describe()
    with pytest.raises(LimitError, match=r"0 s is below 0\.1 s"):
        eiger.care.period = 0
    eiger.destroy()
