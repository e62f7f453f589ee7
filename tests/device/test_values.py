"""Values are checked against the detector's own limits before they are sent, and by the DCU."""

import json
import urllib.error
import urllib.request

import numpy as np
import pytest
from ophyd.utils.errors import LimitError as OphydLimitError

from ophyd_eiger import EigerDetector
from ophyd_eiger.errors import EigerError, NotServedError, ReplyError
from ophyd_eiger.signals import LimitError, ReadOnlyError

# Of each test's cases the short run takes every 2nd, see conftest.
SHORT_RUN_EVERY = 2

LIMITS = r"\[2\.99\S+e-06, 1800\.0\] s reported by the detector for config/count_time"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-1, rf"-1 s is outside {LIMITS}"),
        (4000.0, rf"4000\.0 s is outside {LIMITS}"),
        ("abc", rf"'abc' is not a number in {LIMITS}"),
        (float("nan"), rf"nan is not a number in {LIMITS}"),
        (float("inf"), rf"inf s is outside {LIMITS}"),
        (True, rf"True is not a number in {LIMITS}"),
        (np.float64(-1.5), rf"-1\.5 s is outside {LIMITS}"),
        (None, rf"None is not a number in {LIMITS}"),
    ],
)
def test_count_time_refused_before_sending(eiger, requests_sent, value, message):
    before = eiger.detector.count_time.get()
    requests_sent.clear()
    with pytest.raises(LimitError, match=f"^eiger_detector_count_time: {message}$") as caught:
        eiger.detector.count_time.set(value)
    assert isinstance(caught.value, OphydLimitError)
    assert isinstance(caught.value, EigerError)
    assert requests_sent() == []
    assert eiger.detector.count_time.get() == before


def test_trigger_mode_refused_before_sending(eiger, requests_sent):
    requests_sent.clear()
    with pytest.raises(LimitError, match="'bogus' is not one of ints, exts, inte, exte"):
        eiger.detector.trigger_mode.set("bogus")
    assert requests_sent() == []


def test_limits_are_compared_as_the_detector_does(eiger):
    """2.99999e-06 s, as the documents print the limit, is below it in double precision only."""
    eiger.detector.count_time.set(2.99999e-06).wait(10)
    assert eiger.detector.count_time.get() == pytest.approx(2.99999e-06)


def test_commands_are_sent_by_a_true_value(eiger, requests_sent):
    requests_sent.clear()
    with pytest.raises(LimitError, match=r"set\(1\) sends the command, 0 does not"):
        eiger.detector.initialize.set(0)
    assert requests_sent() == []


def test_whole_numbers(eiger):
    with pytest.raises(LimitError, match=r"1\.5 is not a whole number in \[1, 2000000000\.0\]"):
        eiger.detector.nimages.set(1.5)
    eiger.detector.nimages.set(3.0).wait(10)
    assert eiger.detector.nimages.get() == 3


def test_read_only(eiger, requests_sent):
    requests_sent.clear()
    with pytest.raises(ReadOnlyError, match="detector/config/description can only be read"):
        eiger.detector.description.set("mine")
    assert requests_sent() == []


def test_refused_also_before_connecting(dcu, tmp_path):
    device = EigerDetector(dcu.url, name="eiger", directory=tmp_path)
    with pytest.raises(LimitError, match=r"4000\.0 s is outside"):
        device.detector.count_time.set(4000.0).wait(10)
    device.destroy()


@pytest.mark.parametrize(
    ("key", "value"),
    [("count_time", -1), ("count_time", "abc"), ("count_time", 4000), ("trigger_mode", "bogus")],
)
def test_past_the_client_the_dcu_refuses(dcu, key, value):
    url = f"{dcu.url}/detector/api/1.6.0/config/{key}"
    before = urllib.request.urlopen(url, timeout=10).read()
    body = json.dumps({"value": value}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="PUT")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)
    assert caught.value.code == 400
    text = caught.value.read().decode()
    assert 0 < len(text) < 128
    assert key in text
    assert urllib.request.urlopen(url, timeout=10).read() == before


def test_describe_has_the_detectors_metadata(eiger):
    key = eiger.detector.count_time.describe()["eiger_detector_count_time"]
    assert key["units"] == "s"
    assert key["limits"]["control"]["high"] == 1800.0
    assert key["dtype"] == "number"
    mode = eiger.detector.trigger_mode.describe()["eiger_detector_trigger_mode"]
    assert mode["choices"] == ["ints", "exts", "inte", "exte"]
    assert eiger.detector.auto_summation.describe()["eiger_detector_auto_summation"]["dtype"] == (
        "boolean"
    )


def test_repr_tells_value_unit_and_limits(eiger):
    eiger.detector.photon_energy.set(12400).wait(10)
    assert "value=12400.0, unit='eV', limits=(5000.0, 36000.0)" in repr(
        eiger.detector.photon_energy
    )


def test_a_signal_that_was_never_read_has_no_value(dcu, tmp_path):
    device = EigerDetector(dcu.url, name="eiger", directory=tmp_path)
    assert device.detector.count_time.read() == {}
    assert device.detector.count_time.describe() == {}
    assert "not read yet" in repr(device.detector.count_time)
    device.destroy()


def test_not_served(eiger):
    with pytest.raises(NotServedError, match=r"GET http://\S+config/no_such_key.*404"):
        eiger.detector["config/no_such_key"].get()
    assert eiger.detector["config/no_such_key"].read() == {}


def test_undeclared_resources_are_reachable(eiger):
    assert eiger.detector["config/count_time"] is eiger.detector.count_time
    assert eiger.detector.undeclared() == []
    # Every DCU answers this, which is no signal: the list of names.
    signal = eiger.monitor["config/keys"]
    assert signal.name == "eiger_monitor_keys"
    with pytest.raises(ReplyError, match=r"\['buffer_size', 'mode'\] holds no value"):
        signal.get()


def test_subscribers_hear_of_what_a_put_changed(eiger):
    heard = []
    eiger.detector.threshold_energy.subscribe(lambda value, **_: heard.append(value), run=False)
    eiger.detector.photon_energy.set(10000).wait(10)
    assert heard == [pytest.approx(5000)]
