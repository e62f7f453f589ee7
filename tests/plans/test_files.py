"""A run that ends when its files are home, and says what came."""

import json
import time

import bluesky.plans as bp
import bluesky.preprocessors as bpp
import event_model
import pytest
from bluesky import RunEngine
from bluesky.utils import FailedStatus
from eiger_plans import files_home

import sim_dcu
from ophyd_eiger import EigerDetector, FilePolicy, Timeouts


@pytest.fixture
def dcu():
    with sim_dcu.serve("eiger-500k", time_scale=0, seed=3, initialized=True) as server:
        yield server


@pytest.fixture
def eiger(dcu, tmp_path):
    device = EigerDetector(dcu.url, name="eiger", directory=tmp_path, timeouts=Timeouts(files=1))
    yield device
    device.destroy()


@pytest.fixture
def taken(eiger, tmp_path):
    """Run plans with the preprocessor; what was home when the stop document came is kept."""
    documents: list[tuple[str, dict]] = []
    engine = RunEngine({})
    engine.preprocessors.append(files_home(eiger))

    def note(name, doc):
        event_model.schema_validators[event_model.DocumentNames[name]].validate(doc)
        home = sorted(path.name for path in tmp_path.glob("*.h5")) if name == "stop" else None
        documents.append((name, {**doc, "home": home}))

    engine.subscribe(note)

    def run(plan):
        documents.clear()
        engine(plan)
        return documents

    run.documents, run.engine = documents, engine
    return run


def told(documents, stream="eiger_files"):
    """Return the data of the events of a stream."""
    uids = [d["uid"] for n, d in documents if n == "descriptor" and d["name"] == stream]
    return [d["data"] for n, d in documents if n == "event" and d["descriptor"] in uids]


FILES_KEY = "eiger_files_series"


@pytest.mark.parametrize("wait", [True, False])
def test_files_are_home_before_the_stop_document(eiger, taken, tmp_path, wait):
    eiger.configure({"nimages": 3, "filewriter.nimages_per_file": 2})
    eiger.file_policy = FilePolicy(wait=wait)
    documents = taken(bp.count([eiger], 2))
    (stop,) = [doc for name, doc in documents if name == "stop"]
    assert stop["home"] == sorted(path.name for path in tmp_path.glob("*.h5"))
    # Of each series two data files, the master and the view.
    assert len(stop["home"]) == 8
    events = told(documents)
    assert [event["eiger_files_images"] for event in events] == [3, 3]
    assert [event["eiger_files_images_promised"] for event in events] == [3, 3]
    assert [event["eiger_files_files"] for event in events] == [3, 3]
    for event in events:
        files = tmp_path.glob(f"{event['eiger_files_series']}_*[!w].h5")
        assert event["eiger_files_bytes"] == sum(path.stat().st_size for path in files)
        assert event["eiger_files_directory"] == str(tmp_path)


def test_a_series_that_waits_for_more_triggers_is_ended(eiger, taken):
    eiger.configure({"ntrigger": 5})
    (event,) = told(taken(bp.count([eiger], 2)))
    assert (event["eiger_files_images_promised"], event["eiger_files_images"]) == (5, 2)


def test_runs_with_keys_get_their_own(eiger, taken):
    documents = taken(bpp.set_run_key_wrapper(bp.count([eiger], 2), "mine"))
    assert len(told(documents)) == 2


def test_a_run_without_images_has_no_such_stream(eiger, taken):
    assert told(taken(bp.count([eiger.detector.state], 1))) == []


def test_files_that_do_not_come_fail_the_run(dcu, taken, eiger):
    dcu.faults.set("refuse", status=503, path="GET data/*")
    with pytest.raises(FailedStatus, match=r"_data_000001\.h5.* did not come home"):
        taken(bp.count([eiger]))
    (stop,) = [doc for name, doc in taken.documents if name == "stop"]
    assert stop["exit_status"] == "fail"
    (event,) = told(taken.documents)
    assert (event["eiger_files_images_promised"], event["eiger_files_images"]) == (1, 0)
    series = event["eiger_files_series"]
    assert event["eiger_files_missing"] == f"{series}_data_000001.h5, {series}_master.h5"


def test_a_file_that_is_short_is_told_by_the_run(dcu, taken, eiger):
    eiger.configure({"nimages": 4, "filewriter.nimages_per_file": 2})
    dcu.faults.set("file-short", file=2, missing=1)
    with pytest.raises(FailedStatus, match=r"_data_000002\.h5"):
        taken(bp.count([eiger]))
    (event,) = told(taken.documents)
    assert (event["eiger_files_images_promised"], event["eiger_files_images"]) == (4, 2)
    assert event["eiger_files_missing"] == f"{event['eiger_files_series']}_data_000002.h5"


def test_every_detector_is_told_of_though_the_first_one_fails(dcu, taken, eiger, tmp_path):
    with sim_dcu.serve("eiger2-500k", time_scale=0, initialized=True) as other_dcu:
        other = EigerDetector(other_dcu.url, name="other", directory=tmp_path)
        taken.engine.preprocessors[:] = [files_home([eiger, other])]
        dcu.faults.set("refuse", status=503, path="GET data/*")
        with pytest.raises(FailedStatus, match="did not come home"):
            taken(bp.count([eiger, other]))
        other.destroy()
    # What is asked of no file is of now.
    events = [doc for name, doc in taken.documents if name == "event"]
    (when,) = [t for doc in events for key, t in doc["timestamps"].items() if key == FILES_KEY]
    assert when > taken.documents[0][1]["time"]
    assert told(taken.documents)[0]["eiger_files_images"] == 0
    assert told(taken.documents, "other_files")[0]["other_files_images"] == 1


def test_a_run_need_not_say_where_its_time_went(eiger, taken):
    taken.engine.preprocessors[:] = [files_home(eiger, times=False)]
    documents = taken(bp.count([eiger]))
    assert (len(told(documents)), told(documents, "eiger_times")) == (1, [])


def test_a_run_says_where_its_time_went(eiger, taken):
    eiger.configure({"ntrigger": 3})
    (event,) = told(taken(bp.count([eiger], 3)), "eiger_times")
    summary = eiger.ledger.summary()
    assert event["eiger_times_points"] == 3
    assert event["eiger_times_exposure"] == pytest.approx(3 * eiger.detector.frame_time.get())
    requests = json.loads(event["eiger_times_requests"])
    assert requests["point: PUT detector command/trigger"]["count"] == 3
    assert event["eiger_times_in_trigger"] == summary["points"]["in_trigger"]
    assert json.loads(event["eiger_times_work"]).keys() >= {"stage", "point"}


@pytest.mark.parametrize("wrong", [(), ([],), ("eiger",), ([3],)])
def test_files_are_those_of_detectors(wrong):
    with pytest.raises(TypeError, match="files_home"):
        files_home(*wrong)


def test_files_that_were_moved_away_meanwhile_are_told_all_the_same(eiger, tmp_path):
    """As by a program that moves what is whole to an archive at once."""
    eiger.stage().wait(20)
    eiger.trigger().wait(20)
    eiger.files_home.trigger().wait(20)
    for path in tmp_path.glob("*.h5"):
        path.unlink()
    reading = eiger.files_home.read()
    assert reading["eiger_files_files"]["value"] == 2
    assert time.time() - reading["eiger_files_files"]["timestamp"] < 60
    eiger.unstage().wait(20)
