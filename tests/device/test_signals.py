"""What signals tell: values, alarms, places; and whom they tell of what a put changed."""

import datetime as dt
import enum
import logging
import threading
import time

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import numpy as np
import pytest
import requests
from bluesky.preprocessors import reset_positions_decorator
from bluesky.protocols import Checkable, Locatable, Readable, Subscribable
from bluesky.suspenders import SuspendWhenOutsideBand

import sim_dcu
from ophyd_eiger import EigerDetector, arrays, client
from ophyd_eiger.signals import EigerSignal, LimitError, ReadOnlyError
from ophyd_eiger.subsystem import CONNECTIONS

# The short run takes each test with one generation only, see conftest.
GENERATIONS_BY_TURNS = True

VERSIONS = {"eiger-500k": "1.6.0", "eiger2-500k": "1.8.0"}


class Case:
    """A device, and the DCU that it is connected to."""

    def __init__(self, model, dcu, eiger):
        self.version, self.dcu, self.eiger = VERSIONS[model], dcu, eiger
        self.detector = eiger.detector

    def ask(self, key, section="config"):
        url = f"{self.dcu.url}/detector/api/{self.version}/{section}/{key}"
        return requests.get(url, timeout=10).json()["value"]

    def put(self, key, value):
        url = f"{self.dcu.url}/detector/api/{self.version}/config/{key}"
        reply = requests.put(url, json={"value": value}, timeout=10)
        assert reply.status_code == 200, reply.text
        return reply.json()


def connected(model, tmp_path):
    with sim_dcu.serve(model, seed=3, initialized=True) as dcu:
        eiger = EigerDetector(dcu.url, name="eiger", directory=tmp_path)
        eiger.connect()
        yield Case(model, dcu, eiger)
        eiger.destroy()


@pytest.fixture(params=list(VERSIONS))
def case(request, tmp_path):
    yield from connected(request.param, tmp_path)


@pytest.fixture
def eiger1(tmp_path):
    yield from connected("eiger-500k", tmp_path)


@pytest.fixture
def eiger2(tmp_path):
    yield from connected("eiger2-500k", tmp_path)


@pytest.fixture(scope="module", params=list(VERSIONS))
def shared(request, tmp_path_factory):
    """For tests that do not mind what was set before."""
    yield from connected(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def shared_eiger2(tmp_path_factory):
    """For tests that do not mind what was set before."""
    yield from connected("eiger2-500k", tmp_path_factory.mktemp("shared"))


def config_signals(case):
    return {signal.key: signal for signal in case.detector.signals if signal.section == "config"}


# ---- whom a put tells


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("count_time", 0.01),
        ("frame_time", 0.02),
        ("photon_energy", 10000),
        ("threshold_energy", 5100),
        ("auto_summation", False),
        ("omega_start", 4.5),
    ],
)
def test_a_put_refreshes_exactly_what_its_reply_names(
    shared, requests_sent, monkeypatch, key, value
):
    named = set()
    parse = client._parse

    def noted(method, url, response):
        if method == "PUT":
            named.update(response.json())
        return parse(method, url, response)

    monkeypatch.setattr(client, "_parse", noted)
    heard = []
    for signal in config_signals(shared).values():
        signal.unsubscribe_all()
        if not signal.resource.endswith("flatfield"):
            signal.subscribe(lambda obj, **_: heard.append(obj.key), run=False)
    requests_sent.clear()
    getattr(shared.detector, key).set(value).wait(10)
    flatfields = {name for name in named if name.endswith("flatfield")}
    assert key in named
    assert sorted(heard) == sorted(named - flatfields)
    asked = [name.split("config/")[1] for name in requests_sent() if name.startswith("GET")]
    assert sorted(asked) == sorted(heard)


def test_difference_mode_is_threshold_difference_mode(eiger2):
    """The one name in replies that is no resource's."""
    eiger2.put("threshold/2/mode", "enabled")
    assert eiger2.put("threshold/difference/mode", "enabled") == ["difference_mode"]
    heard = []
    signal = eiger2.detector.threshold_difference_mode
    signal.subscribe(lambda value, **_: heard.append(value), run=False)
    eiger2.detector.read_again(["difference_mode"], eiger2.detector.threshold_2_mode)
    assert heard == ["enabled"]
    signal.set("disabled").wait(10)
    assert heard == ["enabled", "disabled"]


@pytest.mark.parametrize("body", ["null", "quotes", "empty"])
def test_a_reply_that_names_nothing(case, body):
    """What else changed is not known then: everything is asked for again."""
    case.dcu.faults.set("put-reply", body=body, path="PUT */config/photon_energy")
    case.detector.photon_energy.set(10000).wait(10)
    for key in ("photon_energy", "threshold_energy", "wavelength", "element"):
        assert getattr(case.detector, key).last == case.ask(key), key
    assert case.detector.threshold_energy.last == pytest.approx(5000)


@pytest.mark.parametrize(
    "reply", [[], [["count_time", "frame_time"]], [["count_time"], ["frame_time"], []], 3, {}]
)
def test_odd_replies_do_no_harm(eiger1, monkeypatch, reply):
    ours = eiger1.eiger.link.client
    put = ours.put
    monkeypatch.setattr(ours, "put", lambda *given, **more: (put(*given, **more), reply)[1])
    eiger1.detector.count_time.set(2.0).wait(10)
    assert eiger1.detector.frame_time.last == eiger1.ask("frame_time")
    assert eiger1.detector.frame_time.last > 2


def test_a_region_changes_the_size_and_the_masks(tmp_path):
    """Which the reply does not name."""
    with sim_dcu.serve("eiger2-9m", initialized=True) as dcu:
        eiger = EigerDetector(dcu.url, name="eiger", directory=tmp_path)
        eiger.connect()
        try:
            modes = eiger.detector.roi_mode.choices
            assert len(modes) > 1
            eiger.detector.roi_mode.set(modes[1]).wait(10)
            for key in ("x_pixels_in_detector", "y_pixels_in_detector", "bit_depth_image"):
                url = f"{dcu.url}/detector/api/1.8.0/config/{key}"
                asked = requests.get(url, timeout=10).json()["value"]
                assert getattr(eiger.detector, key).last == asked
            shape = tuple(eiger.detector.pixel_mask.get().shape)
            assert shape == (
                eiger.detector.y_pixels_in_detector.last,
                eiger.detector.x_pixels_in_detector.last,
            )
        finally:
            eiger.destroy()


def test_what_follows_from_a_put_is_asked_for_though_unnamed(case):
    """An EIGER2's reply names what was put alone."""
    detector = case.detector
    detector.beam_center_x.set(100.0).wait(10)
    detector.detector_distance.set(0.25).wait(10)
    assert detector.detector_translation.last == pytest.approx([100 * 7.5e-05, 0, -0.25])
    mask = detector.pixel_mask.get().copy()
    good = tuple(np.argwhere(mask == 0)[0])
    mask[good] = 2
    detector.pixel_mask.set(mask).wait(10)
    assert detector.number_of_excluded_pixels.last == np.count_nonzero(mask)
    if detector.threshold_2_pixel_mask.served:
        first = detector.threshold_1_number_of_excluded_pixels
        second = detector.threshold_2_number_of_excluded_pixels
        assert (first.last, second.last) == (np.count_nonzero(mask), np.count_nonzero(mask) - 1)
        detector.threshold_2_pixel_mask.set(np.zeros_like(mask)).wait(10)
        assert (first.last, second.last) == (detector.number_of_excluded_pixels.last, 0)


def test_get_returns_its_own_answer_though_another_thread_has_asked_since(eiger1):
    """While it gives subscribers a moment: one of them asks anew here, after a put."""
    signal = eiger1.detector.frame_time
    first, told, asked = signal.get(), [], threading.Event()

    def ask_again(value, **_):
        told.append(value)
        if len(told) == 1:
            eiger1.put("frame_time", 1.5)
            signal.ask()
            asked.set()

    signal.subscribe(ask_again, run=False)
    assert signal.get() == first
    assert asked.wait(20)
    assert told == [first, 1.5]
    assert signal.last == 1.5


def test_subscribers_hear_of_every_answer(eiger1):
    heard = []
    signal = eiger1.detector.frame_time
    signal.subscribe(lambda **told: heard.append(told), run=False)
    first = signal.last
    began = time.time()
    signal.get()
    eiger1.put("frame_time", 1.5)
    eiger1.eiger.refresh()
    found = [(told["old_value"], told["value"]) for told in heard]
    assert found == [(first, first), (first, 1.5)]
    assert began <= heard[0]["timestamp"] <= heard[1]["timestamp"] <= time.time()
    assert signal.read()["eiger_detector_frame_time"]["timestamp"] == heard[1]["timestamp"]
    assert all(told["obj"] is signal for told in heard)


def test_refresh_reads_what_others_changed(case):
    case.put("omega_start", 12.5)
    assert case.detector.omega_start.last == 0
    case.eiger.refresh()
    assert case.detector.omega_start.last == 12.5


# ---- alarms


def test_alarms_of_an_eiger1(eiger1):
    signal = eiger1.detector.board_000_th0_temp
    (reading,) = signal.read().values()
    assert (reading["alarm_severity"], reading["message"]) == (0, "")
    (key,) = signal.describe().values()
    assert key["limits"]["alarm"] == {"low": 15.0, "high": 37.5}
    eiger1.dcu.faults.set("temperature", value=60.0)
    # Which an EIGER1 measures when it is told to.
    eiger1.detector.status_update.set(1).wait(10)
    value = signal.get()
    (reading,) = signal.read().values()
    assert reading["value"] == value
    assert reading["alarm_severity"] == 1
    assert reading["message"] == f"critical: {value} is outside [15.0, 37.5]"
    assert "alarm='critical: " in repr(signal)
    eiger1.detector.error.get()
    (reading,) = eiger1.detector.error.read().values()
    assert reading["alarm_severity"] == 1
    assert "th0_temp" in reading["message"]
    # A setting has no alarm.
    (reading,) = eiger1.detector.count_time.read().values()
    assert reading.keys() == {"value", "timestamp"}


def test_alarms_where_the_dcu_says_nothing_of_them(eiger2):
    """An EIGER2 has no critical limits; what its state and its errors mean is known."""
    (reading,) = eiger2.detector.temperature.read().values()
    assert "alarm_severity" not in reading
    (reading,) = eiger2.detector.state.read().values()
    assert reading["alarm_severity"] == 0
    eiger2.dcu.faults.set("error", image=1)
    eiger2.detector.arm.set(1).wait(10)
    with pytest.raises(Exception, match="trigger"):
        eiger2.detector.soft_trigger.set(1).wait(10)
    assert eiger2.detector.state.get() == "error"
    (reading,) = eiger2.detector.state.read().values()
    assert (reading["alarm_severity"], reading["message"]) == (1, "state: error")


@pytest.mark.parametrize(
    ("state", "value", "severity"),
    [
        ("normal", 20.0, 0),
        ("critical", 20.0, 1),
        ("invalid", 20.0, -1),
        ("disabled", 20.0, -1),
        (None, 20.0, 0),
        (None, 60.0, 1),
        (None, None, 0),
    ],
)
def test_severity_follows_the_state_and_else_the_limits(
    shared_eiger2, monkeypatch, state, value, severity
):
    reply = {"value": value, "value_type": "float", "critical_limits": [None, 37.5]}
    if state:
        reply["state"] = state
    monkeypatch.setattr(shared_eiger2.eiger.link.client, "get", lambda *_: reply)
    signal = shared_eiger2.detector.board_000_th0_temp
    signal.get()
    (reading,) = signal.read().values()
    assert reading["alarm_severity"] == severity
    assert bool(reading["message"]) == (severity != 0)


# ---- values


class Mode(enum.Enum):
    EXTERNAL = "exts"


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("nimages", np.int32(4), 4),
        ("count_time", np.float32(0.25), 0.25),
        ("trigger_mode", Mode.EXTERNAL, "exts"),
        ("auto_summation", np.bool_(False), False),
        ("auto_summation", 0, False),
        ("beam_center_x", 500, 500.0),
        ("detector_orientation", np.array([1, 0, 0, 0, 1, 0]), [1.0, 0, 0, 0, 1, 0]),
        ("detector_orientation", (0, 1, 0, -1, 0, 0.0), [0.0, 1, 0, -1, 0, 0]),
        ("sample_name", np.str_("lysozyme"), "lysozyme"),
    ],
)
def test_values_of_every_type_arrive(shared_eiger2, key, value, expected):
    getattr(shared_eiger2.detector, key).set(value).wait(10)
    assert shared_eiger2.ask(key) == expected
    assert type(shared_eiger2.detector[f"config/{key}"].last) is type(expected)


def test_a_list_whose_type_is_that_of_its_entries(shared_eiger2, monkeypatch):
    """As an EIGER1 has them."""
    reply = {"value": [1.0, 2.0], "value_type": "float", "access_mode": "rw", "max": 5}
    monkeypatch.setattr(shared_eiger2.eiger.link.client, "get", lambda *_: reply)
    signal = shared_eiger2.detector["config/some_list"]
    signal.get()
    assert signal.check_value((3, np.float32(4))) == [3.0, 4.0]
    for wrong, message in ((3, "is not a list"), ([1, 6], "with 6 at place 1, which is outside")):
        with pytest.raises(LimitError, match=message):
            signal.check_value(wrong)


def test_dates_arrive_as_text(eiger1):
    moment = dt.datetime(2026, 3, 4, 5, 6, 7, tzinfo=dt.UTC)
    eiger1.detector.data_collection_date.set(moment).wait(10)
    assert eiger1.ask("data_collection_date") == moment.isoformat()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("detector_orientation", 3, "3 is not a list, as the detector says of"),
        ("detector_orientation", [1, "x"], "with 'x' at place 1, which is not a number, as"),
        ("transformation_order", [1], "with 1 at place 0, which is not a string"),
        ("auto_summation", "yes", "'yes' is not true or false"),
        ("auto_summation", np.zeros(3), r"is not true or false"),
        ("sample_name", 5, "5 is not a string"),
        ("trigger_mode", ["ints"], r"\['ints'\] is not one of eies, exte"),
        ("nimages", [2], r"\[2\] is not a whole number"),
    ],
)
def test_values_of_a_wrong_type_are_refused_before_sending(
    shared_eiger2, requests_sent, key, value, message
):
    requests_sent.clear()
    signal = getattr(shared_eiger2.detector, key)
    with pytest.raises(LimitError, match=message):
        signal.check_value(value)
    with pytest.raises(LimitError, match=f"config/{key}"):
        signal.set(value)
    assert requests_sent() == []


def test_choices_are_at_hand(shared):
    signal = shared.detector.trigger_mode
    url = f"{shared.dcu.url}/detector/api/{shared.version}/config/trigger_mode"
    stated = requests.get(url, timeout=10).json()["allowed_values"]
    assert list(signal.choices) == list(signal.enum_strs) == stated
    assert shared.detector.count_time.choices == ()
    assert shared.detector.count_time.unit == "s"


def test_the_repr_says_what_one_looks_for(eiger1):
    assert repr(eiger1.detector.trigger_mode) == (
        "EigerSignal(name='eiger_detector_trigger_mode', resource='detector/config/trigger_mode', "
        "value='ints', choices=('ints', 'exts', 'inte', 'exte'))"
    )
    assert "access='read only'" in repr(eiger1.detector.description)
    with pytest.raises(ReadOnlyError, match="status/state can only be read"):
        eiger1.detector.state.set("idle")


# ---- as bluesky has it


def test_a_name_that_is_almost_one(shared):
    with pytest.raises(AttributeError, match=r"detector has nothing named 'contt'; .* count_time"):
        _ = shared.detector.contt
    with pytest.raises(AttributeError, match=r"has nothing named 'qqq'$"):
        _ = shared.detector.qqq
    assert not hasattr(shared.detector, "count_tim")
    with pytest.raises(AttributeError, match=r"^eiger has nothing named 'detctor'; .* detector"):
        _ = shared.eiger.detctor
    assert not hasattr(shared.eiger, "set")


def test_protocols(shared):
    signal = shared.detector.count_time
    assert isinstance(signal, Locatable)
    assert isinstance(signal, Readable)
    assert isinstance(signal, Checkable)
    assert isinstance(signal, Subscribable)


def test_where_a_value_was_sent_and_where_it_is(eiger1, requests_sent):
    signal = eiger1.detector.photon_energy
    signal.set(8100.123).wait(10)
    requests_sent.clear()
    location = signal.locate()
    assert location["setpoint"] == 8100.123
    assert location["readback"] == signal.position == eiger1.ask("photon_energy")
    assert requests_sent() == ["GET detector config/photon_energy"]
    # Somebody else's value is no place that was asked for here.
    eiger1.put("photon_energy", 9000)
    signal.get()
    assert signal.locate() == {"setpoint": 9000, "readback": 9000}


def test_a_relative_scan_puts_back_where_it_began(RE, eiger1):
    eiger1.detector.frame_time.set(0.1).wait(10)
    for signal, start in (
        (eiger1.detector.photon_energy, 9000),
        (eiger1.detector.count_time, 0.05),
    ):
        signal.set(start).wait(10)
        RE(bp.rel_scan([eiger1.eiger], signal, 0, start / 10, 2))
        assert signal.last == pytest.approx(start)
        assert eiger1.ask(signal.key) == pytest.approx(start)


def test_plans_read_places_without_asking(RE, eiger1, requests_sent):
    found = []

    @reset_positions_decorator([eiger1.detector.omega_start])
    def plan():
        requests_sent.clear()
        found.append((yield from bps.rd(eiger1.detector.count_time)))
        found.append(requests_sent())
        yield from bps.mv(eiger1.detector.omega_start, 30)

    RE(plan())
    assert found == [eiger1.ask("count_time"), []]
    assert eiger1.ask("omega_start") == 0


def test_counting_a_status_value_measures_it_anew(RE, catalog, eiger2):
    signal = eiger2.detector.temperature
    eiger2.dcu.faults.set("temperature", value=33.0)
    (uid,) = RE(bp.count([signal], 2))
    values = catalog[uid].primary.read()["eiger_detector_temperature"]
    assert np.asarray(values) == pytest.approx([33.0, 33.0], abs=0.1)


def test_suspenders_take_its_values(RE, eiger2):
    """Outside the band the plan waits; the next answer within it lets it go on."""
    signal = eiger2.detector.temperature
    seen, heard = [], []

    def plan():
        yield from bps.checkpoint()
        eiger2.dcu.faults.set("temperature", value=60.0)
        yield from bps.trigger(signal, wait=True)
        yield from bps.checkpoint()
        seen.append(signal.last)

    def note_suspended(value, **_):
        heard.append(value)
        if value > 37.5:
            eiger2.dcu.faults.clear("temperature")
            signal.trigger()

    signal.subscribe(note_suspended, run=False)
    suspender = SuspendWhenOutsideBand(signal, 15.0, 37.5)
    RE.install_suspender(suspender)
    try:
        RE(plan())
    finally:
        RE.remove_suspender(suspender)
    assert heard[0] == pytest.approx(60, abs=0.5)
    assert 15 < seen[-1] < 37.5


def test_the_state_tells_its_subscribers_in_a_scan(RE, eiger1):
    states = []
    eiger1.detector.state.subscribe(lambda value, **_: states.append(value), run=False)
    RE(bp.count([eiger1.eiger], 1))
    assert states[0] == "idle"


# ---- connecting


def test_connecting_takes_few_connections_and_asks_nothing_twice(
    eiger2, tmp_path, requests_sent, caplog
):
    caplog.set_level(logging.INFO)
    requests_sent.clear()
    device = EigerDetector(eiger2.dcu.url, name="other", directory=tmp_path)
    device.connect()
    asked = requests_sent()
    assert len(asked) == len(set(asked))
    assert not [name for name in asked if name.endswith(("flatfield", "pixel_mask"))]
    # The second time what was not there is not asked for again.
    requests_sent.clear()
    device.refresh()
    again = requests_sent()
    assert set(again) < set(asked)
    answered = [signal for subsystem in device.subsystems for signal in subsystem.signals]
    answered = [signal for signal in answered if signal.has_value]
    # (This log of requests leaves the list of files out.)
    assert len(again) == len(answered) - 1 + 2 * len(device.subsystems)
    assert CONNECTIONS <= 5
    pools = device.link.client._connections.poolmanager.pools
    (pool,) = [pools[key] for key in pools.keys()]  # noqa: SIM118 - it cannot be iterated
    assert pool.num_connections <= CONNECTIONS + 1
    device.destroy()


@pytest.mark.parametrize(("status", "text"), [(404, "no such thing"), (200, "null"), (500, "")])
def test_a_dcu_without_lists_of_names(eiger1, tmp_path, status, text):
    """As older firmware and other simulators: everything declared is asked for."""
    eiger1.dcu.faults.set("refuse", path="GET */keys", status=status, text=text)
    device = EigerDetector(eiger1.dcu.url, name="other", directory=tmp_path)
    device.connect()
    found = {
        signal.resource: signal.has_value
        for subsystem in device.subsystems
        for signal in subsystem.signals
    }
    expected = {
        signal.resource: signal.has_value
        for subsystem in eiger1.eiger.subsystems
        for signal in subsystem.signals
    }
    assert found == expected
    device.destroy()


def test_values_in_the_form_of_arrays_are_arrays(eiger1, monkeypatch):
    form = {"__darray__": [1, 0, 0], "type": "<u2", "shape": [3], "filters": ["base64"]}
    form["data"] = "AQACAAMA"
    monkeypatch.setattr(eiger1.eiger.link.client, "get", lambda *_: {"value": form})
    assert eiger1.detector["config/new"].get().tolist() == [1, 2, 3]
    assert isinstance(eiger1.detector["config/new"], EigerSignal)
    assert arrays.from_darray(form).dtype == np.uint16
