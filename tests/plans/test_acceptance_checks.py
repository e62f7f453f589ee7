"""What the acceptance test says of files that were tampered with, of clocks, and of its errors.

The files are real ones of the simulator, damaged by plain h5py.
"""

import datetime as dt
import shutil
import time

import h5py
import pytest
from acceptance_runs import detector
from bluesky import RunEngine
from bluesky.plans import count
from bluesky.utils import FailedStatus
from eiger_plans.acceptance.asking import Asking, clock_differences
from eiger_plans.acceptance.findings import Section
from eiger_plans.acceptance.integrity import ARMED_WITH, Taken, downloads, integrity
from eiger_plans.acceptance.taking import held, several, told

import sim_dcu
from ophyd_eiger import EigerError

# The short run takes each test with one generation only, see conftest.
GENERATIONS_BY_TURNS = True
DETECTOR = "entry/instrument/detector"
SPECIFIC = f"{DETECTOR}/detectorSpecific"


@pytest.fixture(scope="module", params=["eiger-500k", "eiger2-500k"])
def taken(request, tmp_path_factory):
    """A DCU, and a series of 5 images, 2 in a file, whose files are home."""
    folder = tmp_path_factory.mktemp("taken")
    with (
        sim_dcu.serve(request.param, time_scale=0, seed=3, initialized=True) as dcu,
        detector(dcu, folder) as eiger,
    ):
        eiger.configure({"nimages": 5, "filewriter.nimages_per_file": 2})
        RunEngine({})(count([eiger]))
        asking = Asking(eiger)
        asking.connection()
        asking.resources()
        home = {file.path.name: file.path for file in eiger.fetched}
        (master,) = (name for name in home if name.endswith("_master.h5"))
        found = Taken("a series", 5, 1, 2, master.removesuffix("_master.h5"), 1)
        asked = asking.settings(*ARMED_WITH)
        found.settings = {name.rpartition("/")[2]: value for name, value in asked.items()}
        found.home = home
        yield asking, found
        asking.close()


@pytest.fixture
def copied(taken, tmp_path):
    """The same with copies of its files, to be damaged."""
    asking, found = taken
    home = {name: shutil.copy(path, tmp_path) for name, path in found.home.items()}
    more = {**vars(found), "home": {name: tmp_path / name for name in home}}
    return asking, Taken(**more)


def failing(checks):
    return {check.name: check.found for check in checks if check.verdict == "fail"}


def test_files_that_are_well(copied):
    asking, series = copied
    assert failing(integrity(series, Section("files"))) == {}
    checks = list(downloads(asking, series, Section("files"), 0.001))
    assert failing(checks) == {}
    # Each file, and the rate.
    assert len(checks) == 5


def renumbered(series):
    with h5py.File(series.home[series.data_files[1]], "a") as file:
        file["entry/data/data"].attrs["image_nr_low"] = 4


def without_a_group(series):
    with h5py.File(series.home[series.master], "a") as file:
        del file["entry/sample"]


def without_a_class(series):
    with h5py.File(series.home[series.master], "a") as file:
        del file[DETECTOR].attrs["NX_class"]


def without_a_link(series):
    with h5py.File(series.home[series.master], "a") as file:
        del file["entry/data/data_000003"]


def without_the_mask(series):
    with h5py.File(series.home[series.master], "a") as file:
        del file[f"{SPECIFIC}/pixel_mask"]


def another_energy(series):
    with h5py.File(series.home[series.master], "a") as file:
        file[f"{SPECIFIC}/photon_energy"][...] = 9000


def another_mask(series):
    """One that says of good pixels that they are masked."""
    with h5py.File(series.home[series.master], "a") as file:
        file[f"{SPECIFIC}/pixel_mask"][100, :50] = 2


def without_a_number(series):
    with h5py.File(series.home[series.data_files[1]], "a") as file:
        del file["entry/data/data"].attrs["image_nr_low"]


def without_images(series):
    with h5py.File(series.home[series.data_files[1]], "a") as file:
        del file["entry/data/data"]


def without_a_depth(series):
    """The DCU did not say it."""
    series.settings = {k: v for k, v in series.settings.items() if k != "bit_depth_image"}


def without_a_file(series):
    series.home.pop(series.data_files[2])


DAMAGES = {
    renumbered: ("_data_000002.h5", "2 images, 4 to 4"),
    without_a_group: ("_master.h5", "no group entry/sample"),
    without_a_class: ("_master.h5", f"{DETECTOR} has no NX_class"),
    without_a_link: ("_master.h5", "it links "),
    without_the_mask: ("_master.h5", "no entry/instrument/detector/detectorSpecific/pixel_mask"),
    another_energy: ("says", "photon_energy is 9000.0, set was 8047.7"),
    another_mask: ("pixels of every image", "250 masked pixels hold something else"),
    without_a_number: ("_data_000002.h5", "2 images, no image_nr_low to 4"),
    without_images: ("_data_000002.h5", "no entry/data/data"),
    without_a_depth: ("images", "the DCU did not say what bit_depth_image is"),
    without_a_file: ("files", "_data_000003.h5"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named(copied, damage):
    _, series = copied
    damage(series)
    name, words = DAMAGES[damage]
    found = failing(integrity(series, Section("files")))
    assert any(name in key and words in said for key, said in found.items()), found


def test_other_bytes_at_home_and_a_slow_link_are_seen(copied):
    asking, series = copied
    with series.home[series.data_files[0]].open("ab") as file:
        file.write(b"\0")
    found = failing(downloads(asking, series, Section("files"), 1e9))
    assert list(found) == [f"a series: {series.data_files[0]} again", "a series: download"]
    assert "at home" in next(iter(found.values()))


def test_how_far_clocks_are_apart(monkeypatch):
    now = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
    asked = now.timestamp()
    assert clock_differences("2026-05-01T12:00:00+00:00", asked) == {"with its zone": 0}
    assert clock_differences("2026-05-01T13:58:30+02:00", asked) == {"with its zone": 90}
    local = now.astimezone().replace(tzinfo=None).isoformat()
    assert clock_differences(local, asked)["as local time"] == 0
    assert clock_differences("soon", asked) == {}
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        # Nine hours ahead of UTC.
        found = clock_differences("2026-05-01T12:00:00", asked)
    time.tzset()
    assert found == {"as local time": 9 * 3600, "as UTC": 0}


@pytest.mark.parametrize(
    ("seconds", "reached", "verdict"),
    [
        # 2 images took 0.3 s; 28 more at 10 Hz take 2.8 s.
        (3.1, "10 Hz", "pass"),
        (3.2, "9.655 Hz", "pass"),
        (3.3, "9.333 Hz", "fail"),
        (4.1, "7.368 Hz", "fail"),
    ],
)
def test_a_rate_that_is_not_held(seconds, reached, verdict):
    (wanted,) = (series for series in several(10.0, 3.0) if series.rate)
    lasted = {5: [0.6], 2: [0.3, 0.9, 0.2]}
    check = held(wanted, seconds, lasted, 1.0)
    assert (check.verdict, check.found.partition(":")[0]) == (verdict, reached)
    slower = held(wanted, 4 * seconds, {2: [1.2]}, 4.0)
    assert (slower.verdict, slower.found.partition(":")[0]) == (verdict, reached)


def test_a_rate_that_cannot_be_judged():
    (wanted,) = (series for series in several(10.0, 1.1) if series.rate)
    assert held(wanted, 1.0, {2: [0.3]}, 1.0).verdict == "not done"
    assert held(wanted, 1.0, {}, 1.0).verdict == "not done"
    assert held(wanted, 1.0, {1: [0.1]}, 0.0).verdict == "not done"


def test_an_error_is_told_with_those_before_it():
    status = FailedStatus()
    status.__cause__ = EigerError("the trigger failed")
    assert told(status) == "EigerError: the trigger failed"
    later = EigerError("no files came")
    later.__context__ = status
    assert told(later) == "EigerError: no files came; after EigerError: the trigger failed"
    assert told(OSError("disk")) == "OSError: disk"
