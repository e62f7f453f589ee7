"""What the acceptance test says of files that were tampered with, of clocks, and of its errors.

The files are real ones of the simulator, damaged by plain h5py.
"""

import datetime as dt
import shutil

import h5py
import pytest
from acceptance_runs import detector
from bluesky import RunEngine
from bluesky.plans import count
from bluesky.utils import FailedStatus
from eiger_plans.acceptance.asking import Asking, clock_difference
from eiger_plans.acceptance.findings import Section
from eiger_plans.acceptance.integrity import ARMED_WITH, Taken, downloads, integrity
from eiger_plans.acceptance.taking import told

import sim_dcu
from ophyd_eiger import EigerError

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


def test_how_far_clocks_are_apart():
    now = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
    asked = now.timestamp()
    assert clock_difference("2026-05-01T12:00:00+00:00", asked) == 0
    assert clock_difference("2026-05-01T13:58:30+02:00", asked) == 90
    local = now.astimezone().replace(tzinfo=None).isoformat()
    assert clock_difference(local, asked) == 0
    assert clock_difference("soon", asked) is None


def test_an_error_is_told_with_those_before_it():
    try:
        try:
            raise EigerError("the trigger failed")
        except EigerError as error:
            raise FailedStatus from error
    except FailedStatus as status:
        assert told(status) == "EigerError: the trigger failed"
        try:
            raise FailedStatus from EigerError("no files came")
        except FailedStatus as last:
            assert told(last) == "EigerError: no files came"
    assert told(OSError("disk")) == "OSError: disk"
