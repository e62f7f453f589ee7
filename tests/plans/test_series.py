"""The plan `series`: what it sets, in which order, what it refuses, and the images it takes."""

import re
from pathlib import Path

import numpy as np
import pytest
import requests
from bluesky.simulators import RunEngineSimulator
from bluesky.utils import FailedStatus
from eiger_plans import series

from ophyd_eiger import EigerDetector
from ophyd_eiger.link import LimitError

# Of each test's cases the short run takes every 2nd, see conftest.
SHORT_RUN_EVERY = 2


def sets(messages):
    """Return what is set, in order, as (attribute, value)."""
    return [(m.obj.attr_name, m.args[0]) for m in messages if m.command == "set"]


def test_what_is_set_in_which_order(eiger):
    messages = RunEngineSimulator().simulate_plan(series(eiger, 0.5, 7))
    assert sets(messages) == [
        ("trigger_mode", "ints"),
        ("frame_time", 0.5),
        ("count_time", 0.5),
        ("nimages", 7),
        ("ntrigger", 1),
    ]
    commands = [message.command for message in messages]
    last_set = len(commands) - 1 - commands[::-1].index("set")
    assert last_set < commands.index("stage") < commands.index("open_run")
    assert commands.count("trigger") == 1


def test_an_exposure_below_the_shortest_frame_time(eiger):
    # 0.000110111 s is what a real 500K answers as its shortest.
    messages = RunEngineSimulator().simulate_plan(series(eiger, 1e-5))
    assert dict(sets(messages))["frame_time"] == pytest.approx(0.00011011111, rel=1e-6)


def test_period_is_put_as_frame_time(eiger):
    simulator = RunEngineSimulator()
    simulator.add_read_handler_for(eiger.detector.frame_time, 0.75)
    messages = simulator.simulate_plan(series(eiger, 0.5, 2, period=0.75))
    assert sets(messages)[1:3] == [("frame_time", 0.75), ("count_time", 0.5)]


@pytest.mark.parametrize(
    ("energy", "put"), [(None, []), (12400.0, [("photon_energy", 12400.0)]), ("now", [])]
)
def test_energy_is_put_only_if_it_differs(dcu, eiger, energy, put):
    now = eiger.detector.photon_energy.get()
    wanted = now + 0.01 if energy == "now" else energy
    found = sets(RunEngineSimulator().simulate_plan(series(eiger, 0.5, energy=wanted)))
    assert found[: len(put) + 1] == [*put, ("trigger_mode", "ints")]


def test_energy_that_somebody_else_changed_is_noticed(RE, catalog, dcu, eiger, tmp_path):
    before = eiger.detector.photon_energy.get()
    other = EigerDetector(dcu.url, name="other", directory=tmp_path)
    other.detector.photon_energy.set(12400).wait(10)
    other.destroy()
    RE(series(eiger, 0.01, energy=before))
    assert eiger.detector.photon_energy.get() == pytest.approx(before)


def test_the_messages_can_be_listed_without_a_dcu():
    device = EigerDetector("http://dcu.invalid", name="eiger")
    assert ("photon_energy", 12400) in sets(series(device, 0.1, energy=12400))
    device.destroy()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"exposure": 4000.0}, r"4000\.0.*outside"),
        ({"exposure": -1.0}, r"-1\.0.*outside"),
        ({"exposure": 0.1, "images": 0}, "0 .*outside"),
        ({"exposure": 0.1, "energy": 1.0}, r"1\.0.*outside"),
        ({"exposure": 0.1, "period": 0.05}, r"cannot follow each other every 0\.05 s"),
    ],
)
def test_what_the_detector_cannot_do_opens_no_run(RE, eiger, arguments, message):
    documents = []
    RE.subscribe(lambda name, doc: documents.append(name))
    with pytest.raises(ValueError, match=message):
        RE(series(eiger, **arguments))
    assert documents == []
    assert eiger.detector.state.get() == "idle"


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize(
    "arguments",
    [
        {"exposure": 5000, "images": 2},
        {"exposure": -1},
        {"exposure": 0.1, "period": 1e9},
        {"exposure": 0.1, "images": 0},
        {"exposure": 0.1, "images": 2, "energy": 1e9},
    ],
)
def test_what_the_detector_does_not_take_changes_nothing(RE, dcu, eiger, arguments, is_known):
    if is_known:
        eiger.connect()
    before = config_of(dcu)
    with pytest.raises((LimitError, FailedStatus)):
        RE(series(eiger, **arguments))
    assert config_of(dcu) == before


def config_of(dcu):
    """Return what the DCU has, asked by plain HTTP."""
    keys = ("photon_energy", "threshold_energy", "trigger_mode", "count_time", "frame_time")
    return {
        key: requests.get(f"{dcu.url}/detector/api/1.6.0/config/{key}", timeout=10).json()["value"]
        for key in (*keys, "nimages", "ntrigger")
    }


def test_a_dcu_that_is_off_opens_no_run(RE, dcu, eiger):
    dcu.stop()
    with pytest.raises(FailedStatus, match="cannot be reached"):
        RE(series(eiger, 0.1))


def test_images_are_the_oracles_and_the_text_names_run_and_files(
    RE, catalog, dcu, eiger, tmp_path, capsys
):
    eiger.filewriter.nimages_per_file.set(2).wait(10)
    (uid,) = RE(series(eiger, 0.02, 5, period=0.03, md={"sample": "Si"}))
    printed = capsys.readouterr().out
    run = catalog[uid]
    found = np.asarray(run.primary.read()["eiger_image"])
    expected = [dcu.image(1, number) for number in range(1, 6)]
    assert np.array_equal(found, [expected])
    start = run.metadata["start"]
    assert (start["plan_name"], start["sample"]) == ("series", "Si")
    assert start["plan_args"]["period"] == 0.03
    configuration = run.primary.metadata["descriptors"][0]["configuration"]["eiger"]["data"]
    assert configuration["eiger_detector_count_time"] == pytest.approx(0.02, rel=1e-6)
    assert configuration["eiger_detector_frame_time"] == pytest.approx(0.03, rel=1e-6)
    assert printed.splitlines()[0] == f"run {uid}"
    named = [Path(path) for path in re.findall(r"^  (\S+)", printed, re.MULTILINE)]
    # Three data files of 2, 2 and 1 images, and the master.
    assert len(named) == 4
    (view,) = eiger.views
    assert sorted([*named, view]) == sorted((tmp_path / "data").iterdir())


def test_a_comment_is_in_the_metadata_and_not_in_the_dcu(RE, documents, eiger):
    before = eiger.stream.header_appendix.get()
    RE(series(eiger, 0.01, comment="empty beam"))
    start = documents[0][1]
    assert start["comment"] == start["plan_args"]["comment"] == "empty beam"
    assert eiger.stream.header_appendix.get() == before
    RE(series(eiger, 0.01))
    (again,) = [doc for name, doc in documents if name == "start"][1:]
    assert "comment" not in again
