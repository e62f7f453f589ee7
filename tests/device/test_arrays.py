"""Flat fields and masks: numpy in, numpy out, over the wire in the shortest form there is."""

import base64
import io
import logging
import re
import threading

import numpy as np
import pytest
import requests
import tifffile
from ophyd.utils.errors import LimitError as OphydLimitError

import sim_dcu
from ophyd_eiger import DcuClient, EigerDetector, arrays
from ophyd_eiger.errors import NotServedError, RefusedError, ReplyError
from ophyd_eiger.signals import LimitError
from ophyd_eiger.worker import EigerStatus

# The short run takes each test with one generation only, see conftest.
GENERATIONS_BY_TURNS = True

MODELS = {"eiger-500k": ("1.6.0", (514, 1030)), "eiger2-500k": ("1.8.0", (512, 1028))}


class Case:
    """A device, and the DCU that it is connected to."""

    def __init__(self, model, dcu, eiger):
        self.version, self.shape = MODELS[model]
        self.url, self.dcu, self.eiger = dcu.url, dcu, eiger

    def path(self, key):
        return f"{self.url}/detector/api/{self.version}/config/{key}"

    def ask(self, key):
        """Return an array as a plain client is told it, in JSON."""
        form = requests.get(self.path(key), timeout=30).json()["value"]
        return np.frombuffer(base64.b64decode(form["data"]), form["type"]).reshape(form["shape"])

    def arrays(self):
        twins = [f"threshold/{n}/" for n in (1, 2)] if self.version == "1.8.0" else []
        return [f"{place}{name}" for place in ["", *twins] for name in ("flatfield", "pixel_mask")]

    def signal(self, key):
        return getattr(self.eiger.detector, key.replace("/", "_"))


@pytest.fixture(params=list(MODELS))
def case(request, tmp_path):
    with sim_dcu.serve(request.param, seed=3, initialized=True) as dcu:
        eiger = EigerDetector(dcu.url, name="eiger", directory=tmp_path)
        eiger.connect()
        yield Case(request.param, dcu, eiger)
        eiger.destroy()


def connected(tmp_path):
    with sim_dcu.serve("eiger-500k", seed=3, initialized=True) as dcu:
        eiger = EigerDetector(dcu.url, name="eiger", directory=tmp_path)
        eiger.connect()
        yield Case("eiger-500k", dcu, eiger)
        eiger.destroy()


class Sent(list):
    """(method, "config/key", media type, bytes) of what the device asked for."""

    def __call__(self):
        return [f"{method} {resource}" for method, resource, _, _ in self]


@pytest.fixture
def sent(monkeypatch):
    """What the device sends; the simulator's log of a large reply may come after the reply."""
    found = Sent()
    exchange = DcuClient._exchange

    def noted(self, method, url, timeout, **given):
        kind = given.get("headers", {}).get("Content-Type" if method == "PUT" else "Accept")
        resource = url.split("/api/")[1].partition("/")[2]
        found.append((method, resource, kind, len(given.get("data", b""))))
        return exchange(self, method, url, timeout, **given)

    monkeypatch.setattr(DcuClient, "_exchange", noted)
    return found


@pytest.fixture
def eiger1(tmp_path):
    yield from connected(tmp_path)


@pytest.fixture(scope="module")
def quiet_eiger1(tmp_path_factory):
    """For all tests that change nothing."""
    yield from connected(tmp_path_factory.mktemp("quiet"))


def test_numpy_in_numpy_out(case):
    """Every array, and its description, as a plain client of the DCU sees them."""
    for key in case.arrays():
        signal = case.signal(key)
        assert (signal.read(), signal.describe()) == ({}, {})
        assert "not read yet" in repr(signal)
        array = signal.get()
        dtype = np.dtype("float32" if key.endswith("flatfield") else "uint32")
        assert (array.dtype, array.shape) == (dtype, case.shape)
        assert np.array_equal(array, case.ask(key))
        (described,) = signal.describe().values()
        assert (described["dtype"], described["shape"]) == ("array", list(case.shape))
        assert described["dtype_numpy"] == dtype.str
        assert f"{dtype.name} of shape {case.shape}" in repr(signal)

        array[100:110, 200] += 1
        wanted = array.copy()
        held = threading.Event()
        case.eiger.link.worker.submit(held.wait, EigerStatus("held"))
        status = signal.set(array)
        # What the caller does to his array from now on is his own business.
        array[0, 0] += 1
        held.set()
        status.wait(20)
        assert np.array_equal(case.ask(key), wanted)
        assert np.array_equal(signal.last, wanted)


def test_arrays_are_in_no_reading_and_no_configuration(case, sent):
    case.eiger.detector.pixel_mask.get()
    for key in case.arrays():
        assert case.signal(key).name not in case.eiger.read_configuration()
    sent.clear()
    case.eiger.refresh()
    asked = [request for request in sent() if request.endswith(("field", "_mask"))]
    assert asked == []


def test_the_shortest_form_is_used(eiger1, sent):
    """TIFF there and back; as small as any of the three forms that the DCU has."""
    sizes = {
        form: len(requests.get(eiger1.path("pixel_mask"), headers={"Accept": form}).content)
        for form in ("application/json", "application/tiff", "application/hdf5")
    }
    assert min(sizes, key=sizes.__getitem__) == "application/tiff"
    mask = eiger1.eiger.detector.pixel_mask.get()
    mask[1, 2] = 4
    sent.clear()
    eiger1.eiger.detector.pixel_mask.set(mask).wait(20)
    assert sent() == [
        "PUT config/pixel_mask",
        "GET config/pixel_mask",
        "GET config/number_of_excluded_pixels",
    ]
    assert [form for _, _, form, _ in sent] == ["application/tiff", "application/tiff", None]
    assert mask.nbytes < sent[0][3] < min(sizes["application/json"], sizes["application/hdf5"])


@pytest.mark.parametrize("status", [400, 406, 415, 500])
def test_json_where_a_dcu_has_no_tiff(eiger1, sent, status):
    signal = eiger1.eiger.detector.flatfield
    eiger1.dcu.faults.set("refuse", path="GET */flatfield", status=status, times=1)
    array = signal.get()
    assert np.array_equal(array, eiger1.ask("flatfield"))
    array[3, 4] = 0.5
    eiger1.dcu.faults.set("refuse", path="PUT */flatfield", status=status, times=2)
    sent.clear()
    # JSON answered, so JSON is put at once; that it is refused is final.
    with pytest.raises(RefusedError, match=f"answered {status}"):
        signal.set(array).wait(20)
    assert sent() == ["PUT config/flatfield"]
    mask = eiger1.eiger.detector.pixel_mask
    changed = mask.get()
    changed[3, 4] = 2
    eiger1.dcu.faults.set("refuse", path="PUT */pixel_mask", status=status, times=1)
    mask.set(changed).wait(20)
    assert np.array_equal(eiger1.ask("pixel_mask"), changed)


@pytest.mark.parametrize(
    ("key", "array", "message"),
    [
        ("pixel_mask", np.zeros((1030, 514), "u4"), r"shape \(1030, 514\).*\(514, 1030\)"),
        ("pixel_mask", np.zeros((514, 1030, 1), "u4"), r"shape \(514, 1030, 1\)"),
        ("pixel_mask", 0, r"give an array of uint32 of shape \(514, 1030\)"),
        ("pixel_mask", np.zeros((514, 1030)), "float64 does not fit into uint32 without loss"),
        ("pixel_mask", np.zeros((514, 1030), "i4"), r"as \.astype\('uint32'\) makes it"),
        ("flatfield", np.ones((514, 1030)), "float64 does not fit into float32 without loss"),
        ("flatfield", np.full((514, 1030), np.nan, "f4"), "529420 values are not finite"),
        ("flatfield", "nothing", "does not fit into float32"),
    ],
)
def test_what_is_no_such_array_is_refused_before_sending(quiet_eiger1, sent, key, array, message):
    sent.clear()
    with pytest.raises(LimitError, match=f"^eiger_detector_{key}: .*{message}") as caught:
        quiet_eiger1.signal(key).set(array)
    assert isinstance(caught.value, OphydLimitError)
    assert sent() == []


def test_smaller_integers_make_a_mask(eiger1):
    mask = np.zeros(eiger1.shape, bool)
    mask[7, 8] = True
    eiger1.eiger.detector.pixel_mask.set(mask).wait(20)
    assert np.array_equal(eiger1.ask("pixel_mask"), mask)
    assert eiger1.eiger.detector.number_of_excluded_pixels.last == 1


def test_another_array_than_was_put_is_told(eiger1, monkeypatch):
    """As from a DCU that takes the array and does nothing."""
    signal = eiger1.eiger.detector.pixel_mask
    mask = signal.get()
    mask[10, 20:23] += 1
    monkeypatch.setattr(signal.link.client, "put_bytes", lambda *_, **__: ["pixel_mask"])
    message = r"answers another array than was put: 3 pixels, first \[10, 20\]: \d+ instead of \d+"
    with pytest.raises(ReplyError, match=message):
        signal.set(mask).wait(20)


def test_the_array_tells_what_a_lost_reply_does_not(eiger1, sent):
    signal = eiger1.eiger.detector.pixel_mask
    mask = signal.get()
    mask[10, 20] = 16
    eiger1.dcu.faults.set("lose", path="PUT */pixel_mask", times=1)
    sent.clear()
    signal.set(mask).wait(20)
    assert sent().count("PUT config/pixel_mask") == 1
    assert np.array_equal(eiger1.ask("pixel_mask"), mask)


def test_the_factorys_mask_comes_back(case):
    detector = case.eiger.detector
    factory = detector.pixel_mask.get()
    excluded = detector.number_of_excluded_pixels.get()
    with pytest.raises(NotServedError, match=r"^eiger_detector_pixel_mask: .*nothing to remove"):
        detector.pixel_mask.restore_factory().wait(10)
    mask = factory.copy()
    mask[mask == 0] = 2
    detector.pixel_mask.set(mask).wait(20)
    assert detector.number_of_excluded_pixels.last == mask.size
    detector.pixel_mask.restore_factory().wait(20)
    assert np.array_equal(case.ask("pixel_mask"), factory)
    assert np.array_equal(detector.pixel_mask.last, factory)
    assert detector.number_of_excluded_pixels.last == excluded
    with pytest.raises(RefusedError, match=r"405.*flatfield cannot be deleted"):
        detector.flatfield.restore_factory().wait(10)


def test_an_energy_makes_the_flat_field_stale(case, sent):
    """Megabytes are fetched for who listens, and for nobody else."""
    flatfield = case.eiger.detector.flatfield
    before = flatfield.get() + np.float32(0.5)
    flatfield.set(before).wait(20)
    sent.clear()
    # Which brings the factory's back.
    case.eiger.detector.photon_energy.set(12400).wait(20)
    assert not [request for request in sent() if request.endswith("flatfield")]
    assert (flatfield.read(), flatfield.describe(), flatfield.stale) == ({}, {}, True)
    assert "stale" in repr(flatfield)

    assert np.array_equal(flatfield.get(), case.ask("flatfield"))
    assert not np.array_equal(flatfield.last, before)
    heard = []
    flatfield.subscribe(lambda value, old_value, **_: heard.append((value, old_value)), run=False)
    old = flatfield.last
    case.eiger.detector.photon_energy.set(9000).wait(20)
    ((value, old_value),) = heard
    assert np.array_equal(value, case.ask("flatfield"))
    assert np.array_equal(old_value, old)


def test_a_point_reads_it_anew(case, RE):
    """`trigger` asks, without holding up the event loop; then `read` has it."""
    import bluesky.plan_stubs as bps

    signal = case.eiger.detector.pixel_mask
    read = []

    def plan():
        yield from bps.open_run()
        yield from bps.trigger(signal, wait=True)
        read.append((yield from bps.rd(signal)))
        yield from bps.close_run()

    RE(plan())
    assert np.array_equal(read[0], case.ask("pixel_mask"))


def test_the_table_of_count_rates_is_an_array_too(case):
    table = case.eiger.detector.countrate_correction_table.get()
    assert table.size > 100
    assert np.array_equal(table, case.ask("countrate_correction_table"))


# ---- the forms themselves


def test_what_is_no_array_is_told():
    array = np.ones((5, 7), "f4")
    whole = arrays.encode(array, arrays.TIFF)
    for body, message in (
        (b"", "0 bytes that begin with b''"),
        (b"<html>", "neither TIFF nor JSON"),
        (b'{"value": 3}', "'3' is no array in base64"),
        (b"[1, 2]", "no array in base64"),
        (arrays.encode(array, arrays.JSON).replace(b"[5, 7]", b"[5, 8]"), "cannot be read"),
        (whole[:-1], "is cut short"),
        (whole[:20], "ends within its directory"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            arrays.decode(body)


def test_a_tiff_of_another_layout_is_asked_for_as_json(eiger1, monkeypatch):
    signal = eiger1.eiger.detector.flatfield
    ours = eiger1.eiger.link.client
    get_bytes = ours.get_bytes

    def in_strips(subsystem, resource, *, accept):
        body = get_bytes(subsystem, resource, accept=accept)
        if accept != arrays.TIFF:
            return body
        stripped = io.BytesIO()
        tifffile.imwrite(stripped, arrays.decode(body)[0], rowsperstrip=8)
        return stripped.getvalue()

    monkeypatch.setattr(ours, "get_bytes", in_strips)
    array = signal.get()
    assert np.array_equal(array, eiger1.ask("flatfield"))


def test_an_answer_that_is_no_array_is_one_clear_error(eiger1, caplog):
    caplog.set_level(logging.ERROR)
    eiger1.dcu.faults.set("refuse", path="GET */pixel_mask", status=200, text="busy", times=1)
    with pytest.raises(ReplyError, match=r"^eiger\S+: GET http\S+/config/pixel_mask: 4 bytes"):
        eiger1.eiger.detector.pixel_mask.get()
