"""What a point is told beside the detector's own settings: exposures, triggers, folder, prefix."""

import contextlib
from datetime import datetime

import bluesky.plans as bp
import numpy as np
import pytest
from catalogs import recorded

import sim_dcu
from ophyd_eiger import EigerDetector
from ophyd_eiger.signals import LimitError

# The short run takes each test with one generation only, see conftest.
GENERATIONS_BY_TURNS = True


@pytest.fixture(params=["eiger-500k", "eiger2-500k"])
def inte(request, tmp_path):
    with (
        sim_dcu.serve(request.param, seed=3, initialized=True) as dcu,
        contextlib.ExitStack() as stack,
    ):
        eiger = EigerDetector(dcu.url, name="eiger", directory=tmp_path / "data")
        stack.callback(eiger.destroy)
        eiger.connect()
        eiger.detector.nimages.set(1).wait(10)
        eiger.detector.trigger_mode.set("inte").wait(10)
        yield dcu, eiger


def test_an_exposure_a_point(RE, catalog, inte):
    dcu, eiger = inte
    (uid,) = RE(bp.scan([eiger], eiger.exposure, 0.001, 0.004, 4))
    start = catalog[uid].metadata["start"]
    assert start["hints"]["dimensions"] == [[["eiger_exposure"], "primary"]]
    dataset = catalog[uid].primary.read()
    assert list(np.asarray(dataset["eiger_exposure"])) == pytest.approx(
        [0.001, 0.002, 0.003, 0.004]
    )
    found = np.asarray(dataset["eiger_image"])
    assert np.array_equal(found[:, 0], [dcu.image(series, 1) for series in (1, 2, 3, 4)])


def test_a_list_of_exposures_a_point(RE, catalog, inte):
    dcu, eiger = inte
    eiger.exposure.set([0.001, 0.002, 0.003]).wait(10)
    eiger.detector.ntrigger.set(6).wait(10)
    with recorded(RE) as documents:
        (uid,) = RE(bp.count([eiger], 2))
    events = [doc for name, doc in documents if name == "event"]
    assert [event["data"]["eiger_exposure"] for event in events] == [[0.001, 0.002, 0.003]] * 2
    found = np.asarray(catalog[uid].primary.read()["eiger_image"])
    assert np.array_equal(found[1], [dcu.image(1, number) for number in (4, 5, 6)])


@pytest.mark.parametrize("left", [0.001, [0.001, 0.002]])
def test_exposures_that_were_left_count_in_no_other_mode(RE, dcu, eiger, assert_right, left):
    eiger.exposure.set(left).wait(10)
    eiger.configure({"nimages": 2, "ntrigger": 1})
    (uid,) = RE(bp.count([eiger], 2))
    assert_right(uid, points=2, images=2)


def test_one_exposure_for_several_triggers_a_point(RE, catalog, inte):
    dcu, eiger = inte
    eiger.exposure.set(0.002).wait(10)
    eiger.configure({"ntrigger": 6})
    eiger.triggers_per_point.set(3).wait(10)
    (uid,) = RE(bp.count([eiger], 2))
    found = np.asarray(catalog[uid].primary.read()["eiger_image"])
    assert np.array_equal(
        found, [[dcu.image(1, 3 * point + n) for n in (1, 2, 3)] for point in range(2)]
    )


def test_a_scan_over_lists_of_exposures(RE, catalog, inte):
    """The first list is set after stage has armed for points of one trigger."""
    dcu, eiger = inte
    eiger.configure({"ntrigger": 4})
    lists = [[0.001, 0.002], [0.002, 0.003]]
    (uid,) = RE(bp.list_scan([eiger], eiger.exposure, lists))
    dataset = catalog[uid].primary.read()
    assert np.asarray(dataset["eiger_exposure"]).tolist() == lists
    (series,) = set(np.asarray(dataset["eiger_series_id"]).tolist())
    found = np.asarray(dataset["eiger_image"])
    assert np.array_equal(
        found, [[dcu.image(series, 2 * point + n) for n in (1, 2)] for point in range(2)]
    )


@pytest.mark.parametrize("value", [0, -1.0, "long", [], [0.1, "x"], float("nan"), True])
def test_no_exposure(inte, value):
    _, eiger = inte
    with pytest.raises(LimitError, match="eiger_exposure"):
        eiger.exposure.set(value)


def test_a_scan_of_exposures_that_the_trigger_mode_ignores_is_refused(RE, eiger):
    eiger.exposure.set(0.1).wait(5)
    documents = []
    with pytest.raises(LimitError, match=r"in trigger_mode inte alone, and it is ints; scan eiger"):
        RE(bp.scan([eiger], eiger.exposure, 0.1, 0.2, 2), lambda *each: documents.append(each))
    assert "event" not in {name for name, _ in documents}
    (start,) = [document for name, document in documents if name == "start"]
    # What a plan writes of a device is short enough to be read.
    assert start["plan_args"]["detectors"] == [f"EigerDetector('{eiger.address}', name='eiger')"]


def test_an_exposure_outside_the_detectors_limits(inte):
    _, eiger = inte
    with pytest.raises(LimitError, match=r"5000\.0 s is outside .* config/count_time"):
        eiger.exposure.set(5000.0)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2"])
def test_no_number_of_triggers(inte, value):
    _, eiger = inte
    with pytest.raises(LimitError, match="eiger_triggers_per_point"):
        eiger.triggers_per_point.set(value)


def test_directory_from_a_template_and_a_function(RE, eiger, tmp_path):
    eiger.directory = tmp_path / "%Y" / "%m-%d"
    before = datetime.now().astimezone()
    with recorded(RE) as documents:
        RE(bp.count([eiger]))
    expected = {
        tmp_path / f"{day:%Y}" / f"{day:%m-%d}" for day in (before, datetime.now().astimezone())
    }
    assert eiger.fetched[0].path.parent in expected
    descriptor = next(doc for name, doc in documents if name == "descriptor")
    told = descriptor["configuration"]["eiger"]["data"]
    assert told["eiger_directory"] == str(eiger.fetched[0].path.parent)
    assert told["eiger_file_prefix"] == "eiger"

    folders = iter(["first", "second"])
    eiger.directory = lambda: tmp_path / next(folders)
    for name in ("first", "second"):
        RE(bp.count([eiger]))
        assert {file.path.parent for file in eiger.fetched} == {tmp_path / name}


def test_a_function_that_returns_no_path(eiger):
    eiger.directory = lambda: 7
    with pytest.raises(ValueError, match="7, which is no path"):
        eiger.stage()
    eiger.directory = "data"


def test_unknown_documents(dcu):
    with pytest.raises(ValueError, match="'tiled' is not one of datum, stream"):
        EigerDetector(dcu.url, name="eiger", documents="tiled")
