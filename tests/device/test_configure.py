"""`configure`: the order, what is skipped, what the detector changed, and the RunEngine's loop."""

import threading
import time

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest
import requests
from bluesky import RunEngine
from bluesky.utils import FailedStatus
from IPython.lib import pretty

import sim_dcu
from ophyd_eiger import EigerDetector
from ophyd_eiger.errors import (
    RefusedError,
    StateError,
    UnknownSettingError,
    ValueRefusedError,
)
from ophyd_eiger.signals import LimitError, ReadOnlyError

# Of each test's cases the short run takes every 2nd, see conftest.
SHORT_RUN_EVERY = 2

# The short run takes each test with one generation only, see conftest.
GENERATIONS_BY_TURNS = True

API = {"eiger-500k": "1.6.0", "eiger2-500k": "1.8.0"}
# What the DCU itself is asked, past the client.
EPSILON = 1e-6


@pytest.fixture(scope="module")
def servers():
    """One simulator of each generation for all tests here: they are initialized anew for each."""
    with (
        sim_dcu.serve(model="eiger-500k", time_scale=0, seed=3, initialized=True) as first,
        sim_dcu.serve(model="eiger2-500k", time_scale=0, seed=3, initialized=True) as second,
    ):
        yield {"eiger-500k": first, "eiger2-500k": second}


def as_new(servers, model):
    server = servers[model]
    server.faults.clear()
    for subsystem in ("detector", "filewriter", "monitor"):
        url = f"{server.url}/{subsystem}/api/{API[model]}/command/initialize"
        requests.put(url, timeout=10).raise_for_status()
    return server


@pytest.fixture
def dcu(servers):
    yield as_new(servers, "eiger-500k")
    servers["eiger-500k"].faults.clear()


@pytest.fixture(params=API)
def either(request, tmp_path, servers):
    """A device and the function that asks its DCU by plain HTTP, in both generations."""
    model = request.param
    server = as_new(servers, model)
    device = EigerDetector(server.url, name="eiger", directory=tmp_path / "data")
    device.connect()
    yield device, lambda key, **put: ask(server, model, key, **put)
    device.destroy()


def ask(server, model, key, *, put=None, subsystem="detector"):
    url = f"{server.url}/{subsystem}/api/{API[model]}/config/{key}"
    if put is not None:
        requests.put(url, json={"value": put}, timeout=10).raise_for_status()
    return requests.get(url, timeout=10).json()["value"]


def puts(requests_sent):
    return [
        request.removeprefix("PUT ").replace("config/", "")
        for request in requests_sent()
        if request.startswith("PUT")
    ]


# ---- the order ----


def test_the_order_does_not_depend_on_how_it_was_asked(eiger, requests_sent):
    wanted = {
        "filewriter.nimages_per_file": 7,
        "ntrigger": 2,
        "nimages": 3,
        "frame_time": 0.02,
        "count_time": 0.01,
        "beam_center_x": 512.5,
        "threshold_energy": 8000.0,
        "photon_energy": 12400.0,
    }
    requests_sent.clear()
    before, after = eiger.configure(wanted)
    assert puts(requests_sent) == [
        "detector photon_energy",
        "detector threshold_energy",
        "detector count_time",
        "detector frame_time",
        "detector nimages",
        "detector ntrigger",
        "detector beam_center_x",
        "filewriter nimages_per_file",
    ]
    for name, value in wanted.items():
        subsystem, _, attribute = name.rpartition(".")
        signal = getattr(getattr(eiger, subsystem or "detector"), attribute)
        assert signal.get() == pytest.approx(value, rel=EPSILON)
        assert after[signal.name]["value"] == pytest.approx(value, rel=EPSILON)
    assert before["eiger_detector_nimages"]["value"] == 1
    assert before["eiger_detector_photon_energy"]["value"] == pytest.approx(8047.78, abs=0.01)


def test_a_prompt_shows_what_was_done_and_two_readings_are_returned(eiger):
    result = eiger.configure({"nimages": 4})
    assert pretty.pretty(result).splitlines() == [
        "eiger: configured",
        "setting           before  asked  after  unit  outcome",
        "----------------  ------  -----  -----  ----  -------",
        "detector.nimages  1       4      4            put",
    ]
    before, after = result
    assert isinstance(result, tuple)
    assert repr(result) == repr((before, after)) != pretty.pretty(result)
    was, now = (readings["eiger_detector_nimages"]["value"] for readings in result)
    assert (was, now) == (1, 4)
    assert type(before) is type(after) is dict


# (count_time, frame_time) before, and what is asked for: longer, shorter, crossing over.
FITTING_TIMES = [
    ((0.004, 0.005), {"count_time": 0.5, "frame_time": 1.0}),
    ((0.5, 1.0), {"count_time": 0.004, "frame_time": 0.005}),
    ((0.004, 1.0), {"count_time": 0.5, "frame_time": 0.6}),
    ((0.5, 0.6), {"count_time": 0.004, "frame_time": 1.0}),
    ((0.5, 0.6), {"count_time": 0.5, "frame_time": 1.0}),
    ((0.5, 0.6), {"count_time": 0.004, "frame_time": 0.6}),
    ((0.004, 0.6), {"count_time": 0.5, "frame_time": 0.6}),
    ((0.5, 0.6), {"count_time": 0.4}),
    ((0.5, 0.6), {"frame_time": 1.0}),
]


def test_times_that_fit_are_what_was_asked_and_nothing_else_moves(either):
    eiger, dcu_has = either
    for old, asked in FITTING_TIMES:
        dcu_has("count_time", put=old[0])
        dcu_has("frame_time", put=old[1])
        eiger.configure(asked)
        expected = dict(zip(("count_time", "frame_time"), old, strict=True)) | asked
        found = {key: dcu_has(key) for key in expected}
        assert found == pytest.approx(expected, rel=EPSILON), (old, asked)
        report = eiger.last_configuration
        assert report.not_as_asked == [], (old, asked)
        assert not {"detector.count_time", "detector.frame_time"} & set(report.changed)


def test_a_longer_count_time_alone_lengthens_frame_time_and_it_is_said(either):
    eiger, dcu_has = either
    eiger.configure({"count_time": 0.004, "frame_time": 0.005})
    eiger.configure({"count_time": 0.5})
    assert dcu_has("count_time") == pytest.approx(0.5)
    assert dcu_has("frame_time") > 0.5
    assert "detector.frame_time" in eiger.last_configuration.changed
    assert eiger.last_configuration.put == ["detector.count_time"]


def test_a_shorter_frame_time_alone_trims_count_time_and_it_is_said(either):
    eiger, dcu_has = either
    eiger.configure({"count_time": 0.5, "frame_time": 0.6})
    eiger.configure({"frame_time": 0.1})
    assert dcu_has("frame_time") == pytest.approx(0.1)
    assert dcu_has("count_time") < 0.1
    assert "detector.count_time" in eiger.last_configuration.changed


def test_times_that_do_not_fit_keep_the_rate(either):
    eiger, dcu_has = either
    eiger.configure({"frame_time": 0.1, "count_time": 0.1})
    assert dcu_has("frame_time") == pytest.approx(0.1)
    assert 0.0999 < dcu_has("count_time") < 0.1
    assert eiger.last_configuration.not_as_asked == ["detector.count_time"]
    table = repr(eiger.last_configuration)
    assert "not as asked" in table
    assert "eiger: configured" in table


def test_a_threshold_is_put_after_the_energy(either):
    eiger, dcu_has = either
    eiger.configure({"threshold_energy": 4500.0, "photon_energy": 12400.0})
    assert dcu_has("photon_energy") == pytest.approx(12400)
    assert dcu_has("threshold_energy") == pytest.approx(4500)
    # The same threshold with another energy is put anew: the energy would make it 5000.
    eiger.configure({"photon_energy": 10000.0, "threshold_energy": 4500.0})
    assert dcu_has("threshold_energy") == pytest.approx(4500)
    assert "detector.element" not in eiger.last_configuration.not_as_asked


def test_what_an_energy_changes_by_itself(eiger):
    eiger.configure({"photon_energy": 12400.0})
    assert eiger.last_configuration.changed == [
        "detector.wavelength",
        "detector.element",
        "detector.threshold_energy",
    ]
    (threshold,) = [s for s in eiger.last_configuration.settings if "threshold" in s.name]
    assert threshold.after == pytest.approx(6200)
    assert threshold.unit == "eV"


def test_nimages_is_one_before_a_gated_mode(eiger, requests_sent):
    eiger.configure({"nimages": 7})
    requests_sent.clear()
    eiger.configure({"trigger_mode": "inte"})
    assert puts(requests_sent) == ["detector nimages", "detector trigger_mode"]
    assert eiger.last_configuration.changed == ["detector.nimages"]
    requests_sent.clear()
    eiger.configure({"nimages": 7, "trigger_mode": "ints"})
    assert puts(requests_sent) == ["detector trigger_mode", "detector nimages"]


def test_several_images_in_a_gated_mode_of_an_eiger2_are_refused_before_sending(either):
    eiger, dcu_has = either
    if eiger.link.client.api_version == "1.6.0":
        eiger.configure({"trigger_mode": "inte", "nimages": 7})
        assert dcu_has("nimages") == 7
        return
    with pytest.raises(ValueRefusedError, match="nimages is 1 in trigger_mode 'inte'"):
        eiger.configure({"trigger_mode": "inte", "nimages": 7})
    assert dcu_has("trigger_mode") == "ints"


def test_a_region_comes_first_and_its_limits_hold(tmp_path):
    with sim_dcu.serve(model="eiger-9m", time_scale=0, initialized=True) as server:
        device = EigerDetector(server.url, name="eiger", directory=tmp_path)
        device.connect()
        region = next(r for r in device.detector.roi_mode.dcu_metadata.allowed if r != "disabled")
        shortest = device.detector.frame_time.limits[0]
        # Faster than the whole detector can be.
        device.configure({"frame_time": shortest / 2, "count_time": 0.0005, "roi_mode": region})
        assert ask(server, "eiger-500k", "frame_time") == pytest.approx(shortest / 2, rel=EPSILON)
        assert "detector.y_pixels_in_detector" in device.last_configuration.changed
        assert device.last_configuration.not_as_asked == []
        device.destroy()


# ---- what is skipped ----


def test_what_is_so_already_is_not_put(eiger, requests_sent):
    wanted = {"photon_energy": 12400.0, "count_time": 0.1, "nimages": 3, "monitor.mode": "enabled"}
    eiger.configure(wanted)
    requests_sent.clear()
    before, after = eiger.configure({**wanted, "photon_energy": 12400.04})
    assert puts(requests_sent) == []
    assert len(eiger.last_configuration.skipped) == 4
    assert before.keys() == after.keys()
    eiger.configure({"photon_energy": 12400.06})
    assert puts(requests_sent) == ["detector photon_energy"]


def test_wavelength_epsilon(eiger, requests_sent):
    eiger.configure({"wavelength": 1.0})
    requests_sent.clear()
    eiger.configure({"wavelength": 1.0004})
    assert puts(requests_sent) == []
    eiger.configure({"wavelength": 1.0006})
    assert puts(requests_sent) == ["detector wavelength"]


def test_set_skips_nothing(eiger, requests_sent):
    eiger.configure({"photon_energy": 12400.0})
    requests_sent.clear()
    eiger.detector.photon_energy.set(12400.0).wait(10)
    assert puts(requests_sent) == ["detector photon_energy"]


def test_after_initialize_all_is_put_once(eiger, requests_sent):
    eiger.initialize()
    wanted = {"element": "Cu", "nimages": 1}
    requests_sent.clear()
    eiger.configure(wanted)
    assert puts(requests_sent) == ["detector element", "detector nimages"]
    assert "initialize was sent since" in repr(eiger.last_configuration)
    requests_sent.clear()
    eiger.configure(wanted)
    assert puts(requests_sent) == []


def test_what_others_changed_is_seen(either, requests_sent):
    """Another program's change is asked for, and all is put: it may have been an initialize."""
    eiger, dcu_has = either
    eiger.configure({"photon_energy": 12400.0, "nimages": 3})
    dcu_has("photon_energy", put=8000.0)
    requests_sent.clear()
    eiger.configure({"photon_energy": 12400.0, "nimages": 3})
    assert puts(requests_sent) == ["detector photon_energy", "detector nimages"]
    assert "somebody changed or initialized" in repr(eiger.last_configuration)
    assert dcu_has("photon_energy") == pytest.approx(12400)


# ---- what is refused ----


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"count_tim": 1}, UnknownSettingError, "did you mean .*count_time"),
        ({"no_such": 1}, UnknownSettingError, r"no setting is named 'no_such'\. Nothing was put$"),
        ({"nowhere.mode": 1}, UnknownSettingError, "no setting is named 'nowhere.mode'"),
        ({"state": "idle"}, UnknownSettingError, "no setting is named 'state'"),
        ({"arm": 1}, UnknownSettingError, "no setting is named 'arm'"),
        ({"filewriter.no_such": 1}, UnknownSettingError, "not served by this DCU"),
        ({"count_time": 4000.0}, LimitError, r"4000\.0 s is outside"),
        ({"description": "mine"}, ReadOnlyError, "can only be read"),
        ({"count_time": 1, "detector.count_time": 2}, ValueRefusedError, "asked for twice"),
    ],
)
def test_refused_before_anything_is_put(eiger, requests_sent, bad, error, message):
    requests_sent.clear()
    with pytest.raises(error, match=message):
        eiger.configure({"photon_energy": 12400.0, **bad})
    assert puts(requests_sent) == []


@pytest.mark.parametrize("wrong", [3, "count_time", ["count_time"], None])
def test_settings_are_a_dict(eiger, requests_sent, wrong):
    requests_sent.clear()
    with pytest.raises(ValueRefusedError, match=r"^eiger: settings are a dict, as in configure"):
        eiger.configure(wrong)
    assert requests_sent() == []


def test_settings_by_name(eiger, dcu):
    eiger.configure({"filewriter.nimages_per_file": 7}, frame_time=0.5, count_time=0.25)
    assert (eiger.filewriter.nimages_per_file.get(), eiger.detector.count_time.get()) == (7, 0.25)
    with pytest.raises(ValueRefusedError, match=r"^eiger: count_time is given twice$"):
        eiger.configure({"count_time": 0.1}, count_time=0.1)


def test_limits_are_asked_for_before_the_first_put(dcu, tmp_path, requests_sent):
    device = EigerDetector(dcu.url, name="eiger", directory=tmp_path)
    with pytest.raises(LimitError, match=r"4000\.0 s is outside"):
        device.configure({"photon_energy": 12400.0, "count_time": 4000.0})
    assert puts(requests_sent) == []
    device.destroy()


def test_not_initialized(tmp_path):
    with sim_dcu.serve(model="eiger-500k", time_scale=0) as server:
        device = EigerDetector(server.url, name="eiger", directory=tmp_path)
        with pytest.raises(StateError, match=r"'na'.*eiger\.initialize\(\)"):
            device.configure({"count_time": 0.1})
        device.initialize()
        device.configure({"eiger_detector_count_time": 0.1})
        assert ask(server, "eiger-500k", "count_time") == pytest.approx(0.1)
        device.destroy()


def test_a_failure_half_way_says_what_was_done(eiger, dcu):
    dcu.faults.set("refuse:path=PUT */config/nimages")
    with pytest.raises(RefusedError) as caught:
        eiger.configure({"nimages": 3, "photon_energy": 12400.0, "ntrigger": 2})
    dcu.faults.clear()
    assert "photon_energy" in caught.value.__notes__[0]
    outcomes = {s.name: s.outcome for s in eiger.last_configuration.settings}
    assert outcomes["detector.photon_energy"] == "put"
    assert outcomes["detector.nimages"] == "failed"
    assert outcomes["detector.ntrigger"] == "not reached"


# ---- in plans ----


@pytest.fixture
def RE():
    """A RunEngine that saves nowhere: what is measured is the device's, not a catalog's."""
    return RunEngine({})


class Heartbeat:
    """Counts how often the RunEngine's loop came round, and its longest silence in s."""

    def __init__(self, loop):
        self.longest, self._last, self._loop, self._on = 0.0, time.perf_counter(), loop, True
        loop.call_soon_threadsafe(self._beat)

    def _beat(self):
        now = time.perf_counter()
        self.longest, self._last = max(self.longest, now - self._last), now
        if self._on:
            self._loop.call_later(0.01, self._beat)

    def stop(self):
        self._on = False
        return self.longest


@pytest.fixture
def slow_energy(dcu):
    """A photon_energy whose reply takes 1.5 s."""
    dcu.faults.set("late:path=PUT */config/photon_energy,seconds=1.5")
    yield
    dcu.faults.clear()


def test_bps_configure_in_a_run_records_and_does_not_hold_up_the_loop(RE, eiger, dcu, slow_energy):
    threads, results = [], []

    @bpp.stage_decorator([eiger])
    @bpp.run_decorator()
    def plan():
        yield from bps.trigger_and_read([eiger])
        results.append((yield from bps.configure(eiger, {"photon_energy": 12400.0})))
        threads.append(threading.current_thread())
        yield from bps.trigger_and_read([eiger])

    documents = []
    heart = Heartbeat(RE.loop)
    RE(plan(), lambda name, doc: documents.append((name, doc)))
    assert heart.stop() < 1.0
    assert threads[0] is not threading.main_thread()
    ((old, new),) = results
    assert old["eiger_detector_photon_energy"]["value"] == pytest.approx(8047.78, abs=0.01)
    assert new["eiger_detector_photon_energy"]["value"] == pytest.approx(12400)
    energies = [
        doc["configuration"]["eiger"]["data"]["eiger_detector_photon_energy"]
        for name, doc in documents
        if name == "descriptor"
    ]
    assert energies == [pytest.approx(8047.78, abs=0.01), pytest.approx(12400)]
    seen = [
        doc["data"]["eiger_detector_photon_energy"] for name, doc in documents if name == "event"
    ]
    assert seen == energies


def test_a_failure_of_bps_configure_in_a_run_is_the_plans(RE, eiger, dcu):
    dcu.faults.set("refuse:path=PUT */config/nimages")

    @bpp.stage_decorator([eiger])
    @bpp.run_decorator()
    def plan():
        yield from bps.trigger_and_read([eiger])
        yield from bps.configure(eiger, {"nimages": 3})

    with pytest.raises(RefusedError):
        RE(plan())
    dcu.faults.clear()


def test_bps_configure_outside_of_a_run_is_done_when_the_plan_goes_on(RE, eiger, dcu):
    RE(bps.configure(eiger, {"count_time": 0.1, "nimages": 3}))
    assert ask(dcu, "eiger-500k", "count_time") == pytest.approx(0.1)
    assert ask(dcu, "eiger-500k", "nimages") == 3
    with pytest.raises(LimitError):
        RE(bps.configure(eiger, {"count_time": 4000.0}))


def test_the_status_form_never_holds_up_the_loop(RE, eiger, dcu, slow_energy):
    heart = Heartbeat(RE.loop)
    RE(bps.mv(eiger.configuration, {"photon_energy": 12400.0, "count_time": 0.1}))
    assert heart.stop() < 1.0
    assert ask(dcu, "eiger-500k", "photon_energy") == pytest.approx(12400)
    dcu.faults.set("refuse:path=PUT */config/nimages")
    with pytest.raises(FailedStatus):
        RE(bps.mv(eiger.configuration, {"nimages": 3}))
    dcu.faults.clear()


def test_an_awaiting_run_engine(RE, eiger, dcu):
    """bluesky may come to await configure, as it does other verbs."""

    async def awaiting(msg):
        return await msg.obj.configure(*msg.args)

    RE.register_command("configure", awaiting)
    results = []

    def plan():
        results.append((yield from bps.configure(eiger, {"nimages": 3})))

    RE(plan())
    assert results[0][1]["eiger_detector_nimages"]["value"] == 3


def test_configure_in_jupyter_waits(eiger, dcu):
    """There a loop runs in the main thread, where the prompt is."""
    import asyncio

    async def cell():
        return eiger.configure({"nimages": 4})

    found = asyncio.run(cell())
    assert ask(dcu, "eiger-500k", "nimages") == 4
    assert isinstance(found, tuple)
    _, after = found
    assert after["eiger_detector_nimages"]["value"] == 4


@pytest.mark.parametrize(
    ("key", "start", "stop"),
    [
        ("photon_energy", 8000.0, 12000.0),
        ("threshold_energy", 4000.0, 5000.0),
        ("count_time", 0.001, 0.003),
    ],
)
def test_scan_over_a_setting(RE, either, key, start, stop):
    eiger, dcu_has = either
    events = []

    def note(name, document):
        if name == "event":
            events.append(document["data"])

    RE(bp.scan([eiger], getattr(eiger.detector, key), start, stop, 3), note)
    found = [event[f"eiger_detector_{key}"] for event in events]
    assert found == pytest.approx(list(np.linspace(start, stop, 3)), rel=EPSILON)
    assert dcu_has(key) == pytest.approx(stop)
    if key == "photon_energy":
        thresholds = [event["eiger_detector_threshold_energy"] for event in events]
        assert thresholds == pytest.approx([energy / 2 for energy in found], rel=EPSILON)
