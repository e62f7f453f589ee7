"""Live numbers and images: pixels against the oracle, masks as the DCU's JSON has them."""

import asyncio
import base64
import gc
import itertools
import logging
import math
import threading
import weakref

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest
import requests
from bluesky.utils import FailedStatus
from ophyd.sim import motor

import sim_dcu
from ophyd_eiger import EigerDetector, Timeouts, live_image, monitor_buffer
from ophyd_eiger.errors import RegionError
from ophyd_eiger.regions import Regions, checked_rois
from ophyd_eiger.signals import LimitError, ReadOnlyError
from sim_dcu.monitor import Monitor

# Of each test's cases the short run takes every 2nd, see conftest.
SHORT_RUN_EVERY = 2

# The short run takes each test with one generation only, see conftest.
GENERATIONS_BY_TURNS = True

MODELS = ["eiger-500k", "eiger2-500k"]
TIMEOUTS = Timeouts(connect=5, get=20, files=10, trigger_margin=20)
# Over a module's edge, where pixels are masked.
ROIS = {"full": None, "peak": (500, 240, 300, 30), "corner": (0, 0, 1, 1)}
WAIT = 20


class Plain:
    """Another client of the DCU."""

    def __init__(self, dcu):
        self.dcu = dcu
        version = requests.get(f"{dcu.url}/detector/api/version", timeout=20).json()["value"]
        self._url = f"{dcu.url}/{{}}/api/{version}/{{}}"

    def alive(self):
        try:
            return requests.get(f"{self.dcu.url}/detector/api/version", timeout=20).ok
        except requests.ConnectionError:
            return False

    def value(self, subsystem, resource):
        return requests.get(self._url.format(subsystem, resource), timeout=20).json()["value"]

    def put(self, subsystem, resource, value=None):
        body = {} if value is None else {"json": {"value": value}}
        reply = requests.put(self._url.format(subsystem, resource), timeout=20, **body)
        assert reply.status_code == 200, reply.text

    def delete(self, subsystem, resource):
        reply = requests.delete(self._url.format(subsystem, resource), timeout=20)
        assert reply.status_code == 204, reply.text

    def listed(self):
        return requests.get(self._url.format("monitor", "images"), timeout=20).json()

    def take(self, nimages=1):
        self.put("detector", "config/nimages", nimages)
        for command in ("arm", "trigger", "disarm"):
            self.put("detector", f"command/{command}")

    def mask(self):
        form = self.value("detector", "config/pixel_mask")
        data = np.frombuffer(base64.b64decode(form["data"]), form["type"])
        return data.reshape(form["shape"])


on_eiger1 = pytest.mark.parametrize("dcu", ["eiger-500k"], indirect=True)
on_eiger2 = pytest.mark.parametrize("dcu", ["eiger2-500k"], indirect=True)


@pytest.fixture(params=MODELS)
def dcu(request):
    with sim_dcu.serve(request.param, seed=3, initialized=True) as server:
        yield server


@pytest.fixture
def plain(dcu):
    return Plain(dcu)


@pytest.fixture
def eiger(dcu, tmp_path):
    device = EigerDetector(dcu.url, name="eiger", directory=tmp_path, timeouts=TIMEOUTS, live=True)
    device.connect()
    device.detector.frame_time.set(0.005).wait(10)
    device.detector.count_time.set(0.004).wait(10)
    yield device
    device.destroy()


@pytest.fixture
def events(RE):
    found = []
    RE.subscribe(lambda _, document: found.append(document["data"]), "event")
    return found


def numbers_of(image, mask, rois=ROIS):
    """Return what the numbers of an image of the files must be, in plain numpy."""
    found = {}
    for name, box in rois.items():
        x0, y0, width, height = box or (0, 0, *image.shape[::-1])
        part = np.s_[y0 : y0 + height, x0 : x0 + width]
        good = image[part][mask[part] == 0].astype(np.float64)
        found[f"eiger_live_{name}_sum"] = good.sum()
        found[f"eiger_live_{name}_max"] = good.max()
        found[f"eiger_live_{name}_mean"] = good.mean()
    full = np.iinfo(image.dtype).max
    found["eiger_live_saturated"] = np.count_nonzero((image == full) & (mask == 0))
    return found


def live_of(event):
    return {key: value for key, value in event.items() if "_live_" in key}


def assert_right(event, dcu, mask, number, rois=ROIS):
    expected = numbers_of(dcu.image(event["eiger_series_id"], number), mask, rois)
    expected["eiger_live_image_number"] = number
    found = live_of(event)
    assert found == pytest.approx(expected, rel=1e-12)
    assert all(isinstance(value, float) for value in found.values())


def assert_nothing(event):
    found = live_of(event)
    assert found
    assert all(math.isnan(value) for value in found.values())


# -- numbers of each point ------------------------------------------------------------------------


@pytest.mark.parametrize(("nimages", "ntrigger"), [(1, 1), (3, 1), (3, 2)])
def test_numbers_are_the_oracles(RE, dcu, plain, eiger, events, nimages, ntrigger):
    eiger.detector.nimages.set(nimages).wait(10)
    eiger.detector.ntrigger.set(ntrigger).wait(10)
    eiger.live.rois = ROIS
    RE(bp.count([eiger], 4))
    mask = plain.mask()
    assert np.count_nonzero(mask) > 10
    assert len(events) == 4
    for place, event in enumerate(events):
        assert_right(event, dcu, mask, nimages * (place % ntrigger + 1))
    assert plain.value("monitor", "config/mode") == "disabled"
    assert plain.value("monitor", "config/buffer_size") == 100


@on_eiger1
def test_off_unless_asked_for(RE, dcu, eiger, events, requests_sent):
    eiger.live.enabled = False
    requests_sent.clear()
    RE(bp.count([eiger], 2))
    assert [live_of(event) for event in events] == [{}, {}]
    assert eiger.hints == {"fields": []}
    assert not any(sent.split()[1] == "monitor" for sent in requests_sent())


def test_one_request_a_point(RE, dcu, eiger, requests_sent):
    requests_sent.clear()
    RE(bp.count([eiger], 2))
    sent = [request for request in requests_sent() if "monitor" in request or "mask" in request]
    mode, size = "monitor config/mode", "GET monitor config/buffer_size"
    on = [f"GET {mode}", f"PUT {mode}", f"GET {mode}", "GET monitor config/discard_new", size]
    ready = ["PUT monitor command/clear", "GET detector config/pixel_mask"]
    points = ["GET monitor images/1/1", "GET monitor images/2/1"]
    assert sent == [*on, *ready, *points, f"GET {mode}", f"PUT {mode}", f"GET {mode}"]


@on_eiger2
def test_keys_and_regions_are_described(RE, catalog, dcu, eiger):
    eiger.live.rois = {"peak": (500, 240, 30, 20), "all": None}
    (uid,) = RE(bp.count([eiger], 1))
    descriptor = catalog[uid].primary.metadata["descriptors"][0]
    quantities = [f"{roi}_{what}" for roi in ("peak", "all") for what in ("sum", "max", "mean")]
    keys = {f"eiger_live_{key}" for key in (*quantities, "saturated", "image_number")}
    described = descriptor["data_keys"]
    assert {key for key in described if "_live_" in key} == keys
    assert {(described[key]["dtype"], described[key]["dtype_numpy"]) for key in keys} == {
        ("number", "<f8")
    }
    assert descriptor["hints"]["eiger"]["fields"] == ["eiger_live_peak_sum", "eiger_live_all_sum"]
    regions = descriptor["configuration"]["eiger"]["data"]
    y, x = eiger.detector.y_pixels_in_detector.last, eiger.detector.x_pixels_in_detector.last
    assert regions["eiger_live_peak"] == [500, 240, 30, 20]
    assert regions["eiger_live_all"] == [0, 0, x, y]


@on_eiger1
def test_what_is_set_counts_from_the_next_stage(RE, eiger, events):
    @bpp.stage_decorator([eiger])
    def plan():
        yield from bps.open_run()
        yield from bps.trigger_and_read([eiger])
        eiger.live.enabled, eiger.live.rois = False, {"other": None}
        yield from bps.trigger_and_read([eiger])
        yield from bps.close_run()

    RE(plan())
    assert live_of(events[0]).keys() == live_of(events[1]).keys()
    assert not math.isnan(events[1]["eiger_live_full_sum"])


@on_eiger2
@pytest.mark.parametrize(
    ("scanned", "field", "stops"),
    [
        (lambda _: motor, "motor", [0, 0.5, 1]),
        (
            lambda eiger: eiger.detector.threshold_energy,
            "eiger_detector_threshold_energy",
            [4000, 4500, 5000],
        ),
        (lambda eiger: eiger.detector.count_time, "eiger_detector_count_time", [0.01, 0.02, 0.03]),
    ],
    ids=["motor", "threshold_energy", "count_time"],
)
def test_best_effort_callback_plots_the_sum(RE, dcu, eiger, events, scanned, field, stops):
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from bluesky.callbacks.best_effort import BestEffortCallback

    best_effort = BestEffortCallback()
    best_effort.disable_table()
    RE.subscribe(best_effort)
    RE(bp.scan([eiger], scanned(eiger), stops[0], stops[-1], 3))
    figures = [plt.figure(number) for number in plt.get_fignums()]
    try:
        (axes,) = [axes for figure in figures for axes in figure.axes]
        assert (axes.get_xlabel(), axes.get_ylabel()) == (field, "eiger_live_full_sum")
        (line,) = [line for line in axes.lines if len(line.get_xdata()) == 3]
        assert list(line.get_xdata()) == pytest.approx(stops)
        assert list(line.get_ydata()) == [event["eiger_live_full_sum"] for event in events]
        assert min(line.get_ydata()) > 100
    finally:
        plt.close("all")


# -- masks ----------------------------------------------------------------------------------------


def array_form(mask):
    return {
        "__darray__": [1, 0, 0],
        "type": "<u4",
        "shape": list(mask.shape),
        "filters": ["base64"],
        "data": base64.b64encode(mask.astype("<u4").tobytes()).decode(),
    }


def test_a_mask_put_in_mid_scan_and_one_put_by_others(RE, dcu, plain, eiger, events):
    factory = plain.mask()
    wider = factory.copy()
    wider[100:200, 300:700] |= 2

    @bpp.stage_decorator([eiger])
    def plan():
        yield from bps.open_run()
        yield from bps.trigger_and_read([eiger])
        plain.put("detector", "config/pixel_mask", array_form(wider))
        # As after a put whose reply names it.
        eiger.detector.read_again(["pixel_mask"], eiger.detector.count_time)
        yield from bps.trigger_and_read([eiger])
        yield from bps.close_run()

    RE(plan())
    plain.put("detector", "config/pixel_mask", array_form(factory))
    RE(bp.count([eiger], 1))
    rois = {"full": None}
    for event, mask in zip(events, (factory, wider, factory), strict=True):
        assert_right(event, dcu, mask, 1, rois)


@on_eiger1
def test_masked_pixels_that_count(RE, dcu, plain, eiger, events):
    """Where the mask is not applied, masked pixels hold counts, and are left out all the same."""
    eiger.detector.pixel_mask_applied.set(False).wait(10)
    mask = plain.mask().copy()
    mask[100:200, 300:700] |= 2
    plain.put("detector", "config/pixel_mask", array_form(mask))
    RE(bp.count([eiger], 1))
    assert 10 < dcu.image(1, 1)[mask != 0].sum() < 65535
    assert_right(events[0], dcu, mask, 1, {"full": None})


@on_eiger2
def test_a_mask_as_json_where_the_dcu_has_no_tiff(monkeypatch, RE, dcu, plain, eiger, events):
    ask = type(eiger.link.client).get_bytes

    def without_tiff(self, subsystem, resource, *, accept, **options):
        accept = "application/json" if "mask" in resource else accept
        return ask(self, subsystem, resource, accept=accept, **options)

    monkeypatch.setattr(type(eiger.link.client), "get_bytes", without_tiff)
    RE(bp.count([eiger], 1))
    assert_right(events[0], dcu, plain.mask(), 1, {"full": None})


# No monitor gives fewer bits than the files have.
@pytest.mark.parametrize(
    ("dtype", "bits"),
    [("u1", 8), ("<u2", 8), ("<u2", 16), ("<u4", 8), ("<u4", 16), ("<u4", 32)],
)
def test_saturated_pixels(dtype, bits):
    """An EIGER1's monitor has 32 bits for images of 16, all ones where a pixel is full."""
    kept = np.dtype(dtype).itemsize * 8
    truth = np.random.default_rng(1).integers(0, 2**bits - 1, (40, 60)).astype(f"<u{bits // 8}")
    truth[3, 4:9] = truth[30] = 2**bits - 1
    mask = np.zeros(truth.shape, "<u4")
    mask[3, 4:6] = 16
    mask[10:12] = 1
    truth[10:12] = 2**bits - 1
    given = truth.astype(dtype)
    given[truth == 2**bits - 1] = 2**kept - 1
    before = given.copy()
    rois = {"full": None, "hot": (4, 2, 5, 4), "gap": (0, 10, 60, 2)}
    found = Regions(rois, mask).numbers(given, 2**bits - 1)
    assert found.pop("gap_sum") != found.pop("gap_max") != found.pop("gap_mean")
    expected = numbers_of(truth, mask, {"full": None, "hot": rois["hot"]})
    assert {f"eiger_live_{key}": value for key, value in found.items()} == pytest.approx(expected)
    assert found["saturated"] == 63
    np.testing.assert_array_equal(given, before)
    given.flags.writeable = False
    assert Regions(rois, mask).numbers(given, 2**bits - 1)["full_sum"] == found["full_sum"]


@pytest.mark.parametrize(
    "rois",
    [
        {"a b": None},
        {"saturated": None},
        {"peak": (0, 0, 0, 5)},
        {"peak": (-1, 0, 5, 5)},
        {"peak": (0, 0, 5)},
        {"peak": (0.5, 0, 5, 5)},
        {1: None},
    ],
)
def test_regions_that_are_none(rois):
    with pytest.raises(RegionError, match="eiger_live: "):
        checked_rois(rois, "eiger_live")


@on_eiger1
def test_a_region_outside_the_image_is_told_before_the_scan(RE, eiger, plain, tmp_path):
    kept = eiger.live.rois
    with pytest.raises(RegionError, match=r"is not within the image of 1030 x 514 pixels"):
        eiger.live.rois = {"peak": (1000, 0, 40, 10)}
    assert eiger.live.rois == kept
    # One that has not asked for the image's size yet learns it as the scan begins.
    other = EigerDetector(eiger.address, name="other", directory=tmp_path, live=True)
    other.live.rois = {"peak": (0, 510, 40, 10)}
    with pytest.raises(FailedStatus) as caught:
        RE(bp.count([other], 1))
    assert isinstance(caught.value.__cause__, RegionError)
    assert "is not within the image of 10" in str(caught.value.__cause__)
    assert plain.value("filewriter", "config/name_pattern") == "series_$id"
    assert plain.value("detector", "status/state") == "idle"
    other.destroy()


# -- full buffers, images dropped, monitors that fail ---------------------------------------------


def test_a_buffer_that_is_too_small(RE, dcu, plain, eiger, events):
    plain.put("monitor", "config/buffer_size", 2)
    eiger.detector.nimages.set(5).wait(10)
    RE(bp.count([eiger], 3))
    for event in events:
        assert_right(event, dcu, plain.mask(), 5, {"full": None})
    assert plain.value("monitor", "config/buffer_size") == 2


@on_eiger1
def test_what_others_changed_meanwhile_stays(RE, plain, eiger):
    plain.put("monitor", "config/buffer_size", 2)
    eiger.detector.nimages.set(5).wait(10)

    def plan():
        yield from bps.stage(eiger, group="staged")
        yield from bps.wait("staged")
        assert plain.value("monitor", "config/buffer_size") == 5
        plain.put("monitor", "config/buffer_size", 50)
        yield from bps.unstage(eiger, wait=True)

    RE(plan())
    assert plain.value("monitor", "config/buffer_size") == 50
    assert plain.value("monitor", "config/mode") == "disabled"


def test_more_images_a_point_than_the_buffer_takes(
    monkeypatch, RE, dcu, plain, eiger, events, caplog
):
    monkeypatch.setattr(monitor_buffer, "MOST_BUFFERED", 2)
    plain.put("monitor", "config/buffer_size", 2)
    eiger.detector.nimages.set(5).wait(10)
    eiger.detector.ntrigger.set(3).wait(10)
    RE(bp.count([eiger], 3))
    # An EIGER1 keeps the old ones: its numbers are of the second image, and say so.
    keeps_old = plain.value("detector", "config/description").startswith("Dectris Eiger ")
    numbers = [2, 7, 12] if keeps_old else [5, 10, 15]
    for event, number in zip(events, numbers, strict=True):
        assert_right(event, dcu, plain.mask(), number, {"full": None})
    told = (
        "eiger_live: live numbers are of an earlier image, which image_number tells: the monitor "
        "does not hold image 5 of series 1: the monitor dropped it"
    )
    assert warnings_in(caplog) == [told] * keeps_old


@on_eiger1
def test_the_last_image_is_dropped(RE, dcu, plain, eiger, events):
    eiger.detector.nimages.set(3).wait(10)
    dcu.faults.set("monitor-drop:after=2,times=1")
    RE(bp.count([eiger], 2))
    for event, number in zip(events, (2, 3), strict=True):
        assert_right(event, dcu, plain.mask(), number, {"full": None})


def hold_back(monkeypatch, monitor, number, asks):
    """Have an image come only when one was asked for so many times, as on a busy machine."""
    put_image, held, late = monitor.put_image, monitor.held, []
    asked = itertools.count(1)

    def put_or_keep(image):
        (late.append if image.name[1] == number else put_image)(image)

    def held_late(*name):
        if next(asked) == asks:
            put_image(late.pop())
        return held(*name)

    monkeypatch.setattr(monitor, "put_image", put_or_keep)
    monkeypatch.setattr(monitor, "held", held_late)


def test_the_first_image_is_late(monkeypatch, RE, dcu, plain, eiger, events, caplog):
    hold_back(monkeypatch, dcu.dcu.monitor, 1, asks=20)  # every 0.02 s
    RE(bp.count([eiger], 1))
    assert_right(events[0], dcu, plain.mask(), 1, {"full": None})
    assert warnings_in(caplog) == []


@on_eiger1
def test_another_image_is_dropped_than_the_last_which_is_late(
    monkeypatch, RE, dcu, plain, eiger, events, caplog
):
    eiger.detector.nimages.set(3).wait(10)
    dcu.faults.set("monitor-drop:after=1,times=1")
    hold_back(monkeypatch, dcu.dcu.monitor, 3, asks=4)
    RE(bp.count([eiger], 1))
    assert_right(events[0], dcu, plain.mask(), 3, {"full": None})
    assert warnings_in(caplog) == []


@on_eiger1
def test_images_that_come_while_it_is_asked_why_they_do_not(
    monkeypatch, RE, dcu, plain, eiger, events
):
    """As on a busy machine: between two questions images come, and one of them is dropped."""
    eiger.detector.nimages.set(3).wait(10)
    dcu.faults.set("monitor-drop:after=2,times=1")
    monitor = dcu.dcu.monitor
    put_image, listed, late = monitor.put_image, Monitor.listing, []

    def listed_before(asked):
        before = listed(asked)
        while late:
            put_image(late.pop(0))
        return before

    monkeypatch.setattr(monitor, "put_image", late.append)
    monkeypatch.setattr(Monitor, "listing", listed_before)
    RE(bp.count([eiger], 1))
    assert_right(events[0], dcu, plain.mask(), 2, {"full": None})


def test_never_the_numbers_of_another_point(RE, dcu, plain, eiger, events):
    eiger.detector.nimages.set(2).wait(10)
    eiger.detector.ntrigger.set(3).wait(10)
    dcu.faults.set("monitor-drop:after=2,times=2")
    RE(bp.count([eiger], 3))
    assert_right(events[0], dcu, plain.mask(), 2, {"full": None})
    assert_nothing(events[1])
    assert_right(events[2], dcu, plain.mask(), 6, {"full": None})


def warnings_in(caplog):
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


@on_eiger2
def test_disabled_by_another_client_in_mid_scan(RE, dcu, plain, eiger, events, caplog):
    plain.put("monitor", "config/mode", "enabled")

    @bpp.stage_decorator([eiger])
    def plan():
        yield from bps.open_run()
        for point in range(4):
            if point == 1:
                plain.put("monitor", "config/mode", "disabled")
            yield from bps.trigger_and_read([eiger])
        yield from bps.close_run()

    RE(plan())
    assert_right(events[0], dcu, plain.mask(), 1, {"full": None})
    for event in events[1:]:
        assert_nothing(event)
    (warning,) = warnings_in(caplog)
    assert warning == (
        "eiger_live: live numbers are NaN: the monitor does not hold image 1 of series 2"
        ": somebody disabled the monitor"
    )
    # As the other client wanted it.
    assert plain.value("monitor", "config/mode") == "disabled"


@on_eiger2
@pytest.mark.parametrize(
    "fault",
    [
        "refuse:path=GET monitor/*/images/*",
        *(
            pytest.param(fault, marks=pytest.mark.long)
            for fault in (
                "refuse:path=PUT monitor/*,status=500",
                "refuse:path=GET monitor/*/config/mode,status=404",
                "refuse:path=GET detector/*/pixel_mask",
                "drop:path=GET monitor/*/images/*,when=body",
            )
        ),
        "hang:path=GET monitor/*/images/*",
    ],
)
def test_a_monitor_that_fails_fails_no_scan(
    monkeypatch, RE, catalog, dcu, eiger, events, caplog, fault
):
    monkeypatch.setattr(monitor_buffer, "IMAGE_TIMEOUT_S", 0.3)
    dcu.faults.set(fault)
    (uid,) = RE(bp.count([eiger], 3))
    assert len(events) == 3
    for event in events:
        assert_nothing(event)
    found = np.asarray(catalog[uid].primary.read()["eiger_image"])
    assert np.array_equal(found[:, 0], [dcu.image(series, 1) for series in (1, 2, 3)])
    live = [message for message in warnings_in(caplog) if message.startswith("eiger_live: ")]
    assert 1 <= len(live) <= 2
    dcu.faults.clear()
    RE(bp.count([eiger], 1))
    assert not math.isnan(events[-1]["eiger_live_full_sum"])


@on_eiger2
def test_lost_once_and_asked_again(RE, dcu, plain, eiger, events):
    """Asking for an image changes nothing on the DCU, so that it may be asked for twice."""
    dcu.faults.set("drop:path=GET monitor/*/images/*,when=body,times=1")
    RE(bp.count([eiger], 1))
    assert_right(events[0], dcu, plain.mask(), 1, {"full": None})


@on_eiger2
def test_one_try_a_while_where_the_monitor_hangs(monkeypatch, RE, dcu, eiger, requests_sent):
    monkeypatch.setattr(monitor_buffer, "IMAGE_TIMEOUT_S", 0.3)
    dcu.faults.set("late:path=GET monitor/*/images/*,seconds=1")
    requests_sent.clear()
    RE(bp.count([eiger], 5))
    assert len([sent for sent in requests_sent() if sent.startswith("GET monitor images/")]) <= 1


def test_progress_by_the_list_alone(RE, dcu, plain, eiger, requests_sent):
    assert eiger.live.newest(1) is None
    plain.put("monitor", "config/mode", "enabled")
    plain.take(3)
    requests_sent.clear()
    assert eiger.live.newest(1) == 3
    assert requests_sent() == ["GET monitor images"]
    assert eiger.live.newest(2) is None
    plain.put("monitor", "command/clear")
    plain.take(2)
    assert [eiger.live.newest(2), eiger.live.newest(2)] == [2, 2]
    plain.put("monitor", "command/clear")
    assert eiger.live.newest(2) == 2
    dcu.faults.set("refuse:path=GET monitor/*")
    assert eiger.live.newest(2) == 2


# -- the newest image as a signal -----------------------------------------------------------------


class Seen:
    """A subscriber that tells when an image has come."""

    def __init__(self):
        self.images = []
        self._came = threading.Condition()

    def __call__(self, *, value, series_id=None, image_number=None, **kwargs):
        with self._came:
            self.images.append((series_id, image_number, value))
            self._came.notify_all()

    def wait_for(self, *wanted):
        with self._came:
            assert self._came.wait_for(lambda: self.names[-1:] == [wanted], WAIT), self.names

    @property
    def names(self):
        return [image[:2] for image in self.images]


def until_thread_ended(device):
    for thread in threading.enumerate():
        if thread.name == device.live.image.name:
            thread.join(WAIT)
            assert not thread.is_alive()


@pytest.fixture
def watched(eiger):
    """A device with live image and without live numbers."""
    eiger.live.enabled = False
    eiger.live.rate = 9.9
    return eiger


def monitor_image(dcu, series_id, number):
    """Return what the monitor gives: an EIGER1's has 32 bits, all ones staying all ones."""
    truth = dcu.image(series_id, number)
    if dcu.dcu.firmware.api_version == "1.6.0" and truth.dtype.itemsize < 4:
        wide = truth.astype("<u4")
        wide[truth == np.iinfo(truth.dtype).max] = 2**32 - 1
        return wide
    return truth


def test_get_asks_for_the_newest(dcu, plain, watched):
    assert watched.live.image.get() is None
    assert watched.live.image.read() == {}
    (key,) = watched.live.image.describe().values()
    size = [plain.value("detector", f"config/{axis}_pixels_in_detector") for axis in "yx"]
    assert (key["shape"], "dtype_numpy" in key) == (size, False)
    plain.put("monitor", "config/mode", "enabled")
    plain.take(3)
    image = watched.live.image.get()
    np.testing.assert_array_equal(image, monitor_image(dcu, 1, 3))
    assert (watched.live.image.series_id, watched.live.image.image_number) == (1, 3)
    key = watched.live.image.describe()["eiger_live_image"]
    assert (key["shape"], key["dtype_numpy"]) == (list(image.shape), image.dtype.str)
    assert watched.live.image.read()["eiger_live_image"]["value"] is image
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0] = 1
    # Looking takes nothing out of the buffer.
    assert plain.listed() == [[1, [1, 2, 3]]]


def test_subscribers_see_images_while_a_scan_goes_on(RE, dcu, plain, watched):
    seen = Seen()
    watched.live.image.subscribe(seen)
    watched.detector.nimages.set(2).wait(10)
    assert plain.value("monitor", "config/mode") == "enabled"
    RE(bp.count([watched], 3))
    seen.wait_for(3, 2)
    assert seen.names == sorted(set(seen.names))
    for series_id, number, value in seen.images:
        np.testing.assert_array_equal(value, monitor_image(dcu, series_id, number))
    watched.live.image.clear_sub(seen)
    until_thread_ended(watched)
    watched.detector.count_time.set(0.003).wait(10)  # after what the worker had to do
    assert plain.value("monitor", "config/mode") == "disabled"


def test_start_and_stop(RE, dcu, plain, watched):
    watched.live.start().wait(10)
    assert plain.value("monitor", "config/mode") == "enabled"
    seen = Seen()
    cid = watched.live.image.subscribe(seen)
    plain.take()
    seen.wait_for(1, 1)
    watched.live.image.unsubscribe(cid)
    plain.take()
    assert watched.live.image.get() is not None
    assert watched.live.image.series_id == 2
    watched.live.stop()
    until_thread_ended(watched)
    watched.detector.count_time.set(0.003).wait(10)
    assert plain.value("monitor", "config/mode") == "disabled"


@on_eiger2
def test_points_images_are_shown_too(RE, dcu, plain, eiger, events):
    seen = Seen()
    eiger.live.image.subscribe(seen)
    RE(bp.count([eiger], 3))
    seen.wait_for(3, 1)
    for series_id, number, value in seen.images:
        np.testing.assert_array_equal(value, monitor_image(dcu, series_id, number))
    for event in events:
        assert_right(event, dcu, plain.mask(), 1, {"full": None})
    # The scan has ended, and somebody still looks.
    assert plain.value("monitor", "config/mode") == "enabled"


def test_never_back_to_an_older_series(dcu, plain, watched):
    plain.put("monitor", "config/mode", "enabled")
    plain.take(3)
    plain.take(1)
    watched.live.image.get()
    assert watched.live.image.series_id == 2
    plain.delete("monitor", "images/2/1")
    assert plain.listed() == [[1, [1, 2, 3]]]
    np.testing.assert_array_equal(watched.live.image.get(), monitor_image(dcu, 2, 1))
    plain.delete("monitor", "images/1/3")
    watched.live.image.get()
    assert (watched.live.image.series_id, watched.live.image.image_number) == (2, 1)


def test_series_are_counted_anew_after_initialize(dcu, plain, watched):
    watched.live.start().wait(10)
    plain.take(3)
    plain.take(3)
    watched.live.image.get()
    assert (watched.live.image.series_id, watched.live.image.image_number) == (2, 3)
    watched.initialize()
    plain.take(1)
    watched.live.image.get()
    assert (watched.live.image.series_id, watched.live.image.image_number) == (1, 1)
    # The same by another client, who leaves the old images of series 2 where they are.
    plain.take(2)
    watched.live.image.get()
    plain.delete("monitor", "images/1/1")
    watched.live.image.get()
    plain.put("detector", "command/initialize")
    plain.take(1)
    watched.live.image.get()
    assert plain.listed() == [[2, [1, 2]], [1, [1]]]
    assert (watched.live.image.series_id, watched.live.image.image_number) == (1, 1)


def test_images_only_go_forward():
    """Also where two threads have fetched images and the older one is shown last."""
    order = monitor_buffer.Order()
    assert order.newer({4: [1, 2], 5: [3]}) == (5, 3)
    before = order.epoch
    assert order.advance(5, 3, before)
    assert not order.advance(5, 2, before)
    assert not order.advance(4, 9, before)
    order.begin(6)
    assert not order.advance(5, 4, before)
    assert order.advance(6, 1, before)
    order.forget()
    assert order.newer({1: [1]}) == (1, 1)
    assert not order.advance(1, 1, before)
    assert order.advance(1, 1, order.epoch)


@on_eiger1
def test_a_full_buffer_that_keeps_old_images(dcu, plain, watched):
    plain.put("monitor", "config/buffer_size", 2)
    seen = Seen()
    watched.live.image.subscribe(seen)
    watched.detector.nimages.set(5).wait(10)
    for series_id in (1, 2, 3):
        plain.take(5)
        seen.wait_for(series_id, 2)
        while plain.listed():  # emptied after what was seen
            pass


@on_eiger1
def test_the_thread_survives_a_dead_dcu(monkeypatch, dcu, plain, watched, caplog):
    monkeypatch.setattr(live_image, "AFTER_FAILURE_S", 0.05)
    seen = Seen()
    watched.live.image.subscribe(seen)
    watched.detector.nimages.set(1).wait(10)
    plain.take()
    seen.wait_for(1, 1)
    count = len(seen.images)
    dcu.faults.set("die:back=0.5")
    while not plain.alive():
        pass
    plain.put("detector", "command/initialize")
    while plain.value("monitor", "config/mode") != "enabled":
        pass
    plain.take()
    plain.take()
    seen.wait_for(2, 1)
    assert len(seen.images) > count
    (warning,) = [message for message in warnings_in(caplog) if "no images for now" in message]
    assert warning.startswith("eiger_live_image: ")


@on_eiger1
def test_a_slow_subscriber_holds_up_no_scan(RE, dcu, plain, watched):
    release, entered = threading.Event(), threading.Event()

    def slow(**kwargs):
        entered.set()
        release.wait(WAIT)

    watched.live.enabled = True
    watched.live.image.subscribe(slow, run=False)
    watched.detector.nimages.set(1).wait(10)
    plain.take()
    assert entered.wait(WAIT)
    try:
        RE(bp.count([watched], 3))
        assert not release.is_set()
    finally:
        release.set()


@on_eiger2
def test_the_thread_ends_with_the_device(dcu, plain, tmp_path):
    device = EigerDetector(dcu.url, name="other", directory=tmp_path, timeouts=TIMEOUTS)
    device.live.start().wait(10)
    device.destroy()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("other")]
    assert plain.value("monitor", "config/mode") == "disabled"
    forgotten = EigerDetector(dcu.url, name="third", directory=tmp_path, timeouts=TIMEOUTS)
    forgotten.live.rate = 9.9
    forgotten.live.start().wait(10)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "third_live_image"]
    gone = weakref.ref(forgotten.live.image)
    del forgotten
    while gone() is not None:  # the thread itself holds it for the time of a look
        gc.collect()
    thread.join(WAIT)
    assert not thread.is_alive()


@on_eiger1
def test_below_10_hz_and_read_only(watched):
    for rate in (0, 10, 50):
        with pytest.raises(LimitError, match=r"is outside \(0, 10\) Hz"):
            watched.live.rate = rate
    with pytest.raises(ReadOnlyError):
        watched.live.image.set(1)
    with pytest.raises(ReadOnlyError):
        watched.live.image.put(1)


@on_eiger2
def test_a_run_that_monitors_the_image(RE, dcu, watched):
    """Its stream is described before there is an image."""
    documents, came = [], threading.Event()

    def note(name, doc):
        documents.append((name, doc))
        if name == "event" and watched.live.image.name in doc["data"]:
            came.set()

    @bpp.stage_decorator([watched])
    @bpp.run_decorator()
    def plan():
        yield from bps.trigger_and_read([watched])
        # Within the run, and not in the plan's own thread, which holds up the documents meanwhile.
        yield from bps.wait_for([lambda: asyncio.to_thread(came.wait, WAIT)])

    RE.subscribe(note)
    seen = Seen()
    watched.live.image.subscribe(seen)
    # Before the detector is armed: images are kept from then on.
    watched.live.image.watch().wait(WAIT)
    RE(bpp.monitor_during_wrapper(plan(), [watched.live.image]))
    watched.live.image.clear_sub(seen)
    streams = {doc["uid"]: doc for name, doc in documents if name == "descriptor"}
    events = [
        doc
        for name, doc in documents
        if name == "event" and streams[doc["descriptor"]]["name"] != "primary"
    ]
    assert events
    for event in events:
        (key,) = streams[event["descriptor"]]["data_keys"].values()
        assert list(event["data"]["eiger_live_image"].shape) == key["shape"]
    until_thread_ended(watched)
