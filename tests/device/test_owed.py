"""What does not come home is owed: named, still on the DCU, and fetched later by whoever asks."""

import contextlib
import errno
import functools
import json
import logging
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from logging.handlers import QueueHandler
from pathlib import Path

import bluesky.plans as bp
import h5py
import numpy as np
import pytest
import requests
from fault_cell import wait_until_alive
from file_server import serving

import sim_dcu
from ophyd_eiger import (
    EigerDetector,
    FilePolicy,
    Timeouts,
    bringing,
    journal,
    open_series,
    transfer,
)
from ophyd_eiger.bringing import Bringer, disk_of
from ophyd_eiger.client import DcuClient
from ophyd_eiger.deliveries import Delivery, FetchedFile
from ophyd_eiger.errors import (
    DcuError,
    DcuUnreachableError,
    FileError,
    StateError,
    TransferError,
)
from ophyd_eiger.owed import end_if_left_armed
from ophyd_eiger.transfer import Transfer

# Of each test's cases the short run takes every 2nd, see conftest.
SHORT_RUN_EVERY = 2

SHORT = Timeouts(connect=5, get=20, files=1, trigger_margin=20)


@pytest.fixture
def device(dcu, tmp_path):
    """A device that does not wait long for files."""
    device = EigerDetector(dcu.url, name="eiger", directory=tmp_path / "data", timeouts=SHORT)
    device.connect()
    device.configure({"frame_time": 0.005, "count_time": 0.004})
    yield device
    device.destroy()


def named(path: Path) -> set[str]:
    """Return what has a final name; hidden files have none."""
    return {each.name for each in path.iterdir() if not each.name.startswith(".")}


def journals(path: Path) -> list[str]:
    return sorted(each.name for each in path.glob(".*.owed"))


def take(device, points=1):
    device.stage().wait(20)
    for _ in range(points):
        device.trigger().wait(20)
        device.read()
        device.describe()
        for _, document in device.collect_asset_docs():
            document["run_start"] = "filled in by the RunEngine"


def refuse_files(dcu):
    dcu.faults.set("refuse", status=503, path="GET data/*")


def leave_owing(dcu, device):
    """Take a point whose files do not come."""
    refuse_files(dcu)
    take(device)
    with pytest.raises(TransferError):
        device.unstage().wait(20)


def test_nothing_is_left_beside_a_scan_whose_files_are_home(RE, eiger, tmp_path):
    RE(bp.count([eiger], 3))
    assert list((tmp_path / "data").glob(".*")) == []
    # (Other tests may have left some.)
    stem = eiger.fetched[0].path.name.rsplit("_data_", 1)[0].rsplit("_", 1)[0]
    assert list(Path(os.environ["XDG_STATE_HOME"]).rglob(f"*{stem}*.owed")) == []
    assert eiger.owed == {}


def test_a_file_that_hangs_is_not_told_as_one_that_was_never_written(dcu, device):
    dcu.faults.set("hang", path="GET data/*")
    take(device)
    with pytest.raises(TransferError, match=r"DCU lists .*_master\.h5 and has sent nothing of it"):
        device.unstage().wait(20)
    dcu.faults.clear()
    # What hung is broken off now, which another second of patience need not outlast.
    device.link.client.timeouts = replace(SHORT, files=20)
    assert len(device.fetch()) == 2


def test_what_did_not_come_is_named_and_comes_with_one_call(dcu, device, tmp_path):
    refuse_files(dcu)
    take(device, 2)
    with pytest.raises(TransferError, match=r"eiger\.fetch\(\) or `ophyd-eiger fetch` brings it"):
        device.unstage().wait(20)
    stem = next(iter(device.owed)).rsplit("_", 1)[0]
    assert device.owed == {
        f"{stem}_{n}": [f"{stem}_{n}_data_000001.h5", f"{stem}_{n}_master.h5"] for n in (1, 2)
    }
    assert len(journals(tmp_path / "data")) == 2
    with pytest.raises(TransferError, match="503"):
        device.fetch()
    assert len(device.owed) == 2

    dcu.faults.clear()
    came = device.fetch()
    assert sorted(file.path.name for file in came) == sorted(
        name
        for names in ({f"{stem}_{n}": 0} for n in (1, 2))
        for s in names
        for name in (f"{s}_data_000001.h5", f"{s}_master.h5")
    )
    assert device.owed == {}
    assert list((tmp_path / "data").glob(".*")) == []
    for number in (1, 2):
        images = open_series(tmp_path / "data" / f"{stem}_{number}_view.h5")
        assert np.array_equal(images[0], dcu.image(number, 1))
    assert device.fetch() == []


def test_what_a_dead_dcu_may_have_stays_owed_until_it_tells(dcu, device, tmp_path):
    """No event names images of it: whether there are any, only the DCU knows."""
    device.configure({"nimages": 3, "filewriter.nimages_per_file": 1})
    device.stage().wait(20)
    dcu.faults.set("lose:command=trigger")
    for verb in ("GET", "PUT"):
        dcu.faults.set("drop", path=f"{verb} *", after=1 if verb == "PUT" else 0)
    with pytest.raises(DcuError):
        device.trigger().wait(20)
    device.unstage().wait(20)
    ((series, names),) = device.owed.items()
    assert names == [f"{series}_data_00000{n}.h5" for n in (1, 2, 3)] + [f"{series}_master.h5"]
    with pytest.raises(TransferError, match=rf"{names[-1]} did not come home .*still there"):
        device.fetch()
    # Nor how many data files there are.
    assert device.owed == {series: names[-1:]}
    assert len(journals(tmp_path / "data")) == 1

    dcu.faults.clear()
    refuse_files(dcu)
    with pytest.raises(TransferError, match=rf"{names[0]}, .*503"):
        device.fetch()
    assert device.owed == {series: names}

    dcu.faults.clear()
    assert {file.path.name for file in device.fetch()} == named(tmp_path / "data") == set(names)
    assert device.owed == {}
    assert journals(tmp_path / "data") == []


def test_what_is_noted_of_a_series_is_read_again(tmp_path):
    settings = {"count_time": 0.1, "photon_energy": 8000.0}
    given = Delivery("s_1", tmp_path, 3, 2, (2, 4), np.dtype("<u2"), settings=settings)
    found = Delivery.of_record(json.loads(json.dumps(given.record())), [], tmp_path)
    assert found.settings == settings
    assert replace(found, note=given.note).__dict__ == given.__dict__


def test_a_view_written_without_its_files_is_whole_once_they_come(dcu, device, tmp_path):
    dcu.faults.set("refuse", status=503, path="GET data/*_data_*")
    take(device)
    with pytest.raises(TransferError):
        device.unstage().wait(20)
    (view,) = (tmp_path / "data").glob("*_view.h5")
    with h5py.File(view) as file:
        assert list(file["entry/data/data"].attrs["missing"]) == [0]
    dcu.faults.clear()
    device.fetch()
    with h5py.File(view) as file:
        assert list(file["entry/data/data"].attrs["missing"]) == []
        assert np.array_equal(file["entry/data/data"][0], dcu.image(1, 1))


def test_another_device_brings_what_a_destroyed_one_left(dcu, device, tmp_path):
    leave_owing(dcu, device)
    other = EigerDetector(dcu.url, name="other", directory=tmp_path / "else", timeouts=SHORT)
    # Its process may still bring it itself.
    assert other.fetch() == []
    device.destroy()
    dcu.faults.clear()
    assert len(other.fetch()) == 2
    assert len(named(tmp_path / "data")) == 3
    assert journals(tmp_path / "data") == []
    other.destroy()


def test_a_name_is_no_pattern_where_what_is_home_is_looked_for(dcu, device, tmp_path):
    prefixes = ("lyso**", "lyso[1]")
    dcu.faults.set("refuse", status=503, path="GET data/*_data_*")
    for prefix in prefixes:
        device.file_prefix = prefix
        take(device)
        with pytest.raises(TransferError):
            device.unstage().wait(20)
    device.destroy()
    dcu.faults.clear()
    other = EigerDetector(dcu.url, name="other", directory=tmp_path / "data", timeouts=SHORT)
    # The masters had come.
    came = sorted(file.path.name for file in other.fetch())
    assert [name.split("_", 1)[0] for name in came] == list(prefixes)
    assert all(name.endswith("_data_000001.h5") for name in came)
    assert journals(tmp_path / "data") == []
    other.destroy()


def test_a_series_that_cannot_be_taken_on_keeps_no_other_from_home(
    dcu, device, tmp_path, monkeypatch, caplog
):
    for folder in ("a", "b"):
        device.directory = tmp_path / folder
        leave_owing(dcu, device)
        dcu.faults.clear()
    device.destroy()
    find_home = bringing.Bringer.find_home

    def fails_in_a(bringer, delivery):
        if delivery.directory.name == "a":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(delivery.directory))
        find_home(bringer, delivery)

    other = EigerDetector(dcu.url, name="other", directory=tmp_path, timeouts=SHORT)
    with monkeypatch.context() as patch:
        patch.setattr(bringing.Bringer, "find_home", fails_in_a)
        assert {file.path.parent.name for file in other.fetch()} == {"b"}
    assert re.search(r"not fetched: .*owed: what is home of it cannot be seen: .*/a'", caplog.text)
    # Nobody has it in hand.
    assert {file.path.parent.name for file in other.fetch()} == {"a"}
    other.destroy()


def test_files_of_another_dcu_are_left_alone(dcu, device, tmp_path):
    leave_owing(dcu, device)
    device.destroy()
    dcu.faults.clear()
    with sim_dcu.serve("eiger-500k", time_scale=0, initialized=True) as second:
        other = EigerDetector(second.url, name="other", directory=tmp_path, timeouts=SHORT)
        assert other.fetch() == []
        other.destroy()
    assert len(journals(tmp_path / "data")) == 1


def test_the_queue_goes_on_and_late_files_find_their_own_folder(RE, dcu, tmp_path, assert_right):
    """With wait=False a scan ends before its files are home."""
    device = EigerDetector(
        dcu.url, name="eiger", directory=tmp_path / "first", file_policy=FilePolicy(wait=False)
    )
    dcu.faults.set("late", seconds=0.5, path="GET data/*")
    (first,) = RE(bp.count([device], 2))
    device.directory = tmp_path / "second"
    (second,) = RE(bp.count([device], 2))
    dcu.faults.clear()
    device.wait_for_files()
    for uid in (first, second):
        assert_right(uid, points=2, images=1)
    assert {len(named(tmp_path / folder)) for folder in ("first", "second")} == {6}
    assert device.owed == {}
    device.destroy()


def test_what_nobody_waits_for_and_never_comes_is_told(RE, dcu, tmp_path):
    device = EigerDetector(
        dcu.url,
        name="eiger",
        directory=tmp_path,
        timeouts=SHORT,
        file_policy=FilePolicy(wait=False),
    )
    refuse_files(dcu)
    told = queue.SimpleQueue()
    handler = QueueHandler(told)
    handler.setLevel(logging.ERROR)
    package = logging.getLogger("ophyd_eiger")
    package.addHandler(handler)
    try:
        RE(bp.count([device]))
        message = told.get(timeout=30).getMessage()
    finally:
        package.removeHandler(handler)
    with pytest.raises(TransferError, match=r"503.*still there"):
        device.wait_for_files()
    (files,) = device.owed.values()
    assert len(files) == 2
    assert all(file in message for file in files)
    device.destroy()


def test_a_folder_that_was_removed_is_made_again(dcu, device, tmp_path, caplog):
    dcu.faults.set("refuse", status=503, path="GET data/*")
    take(device)
    with pytest.raises(TransferError):
        device.unstage().wait(20)
    shutil.rmtree(tmp_path / "data")
    dcu.faults.clear()
    assert len(device.fetch()) == 2
    assert device.owed == {}
    assert {file.path.name for file in device.fetched} <= named(tmp_path / "data")
    # Its notes went with the folder, and the device knows all the same.
    assert "whose notes of what they owe are not there" not in caplog.text


def test_a_link_that_is_turned_leads_no_file_into_another_folder(RE, dcu, device, tmp_path):
    """As /data/current, which is the next sample's folder while files of the last one come."""
    first, second, current = tmp_path / "first", tmp_path / "second", tmp_path / "current"
    first.mkdir()
    second.mkdir()
    current.symlink_to(first)
    device.directory = current
    device.file_policy = FilePolicy(wait=False, delete_on_dcu=True)
    device.link.client.timeouts = replace(SHORT, files=20)
    documents = []
    RE.subscribe(lambda _, document: documents.append(document), "resource")
    refuse_files(dcu)
    RE(bp.count([device]))
    current.unlink()
    current.symlink_to(second)
    dcu.faults.clear()
    device.wait_for_files()
    assert {each["root"] for each in documents} == {str(first)}
    assert len(named(first)) == 3
    assert named(second) == set()


def test_nothing_is_written_into_a_folder_that_was_made_anew(dcu, device, tmp_path):
    """The folder was renamed while its files were late, and the next series made another one."""
    data, renamed = tmp_path / "data", tmp_path / "renamed"
    device.link.client.timeouts = replace(SHORT, files=3)
    device.file_policy = FilePolicy(wait=False, delete_on_dcu=True)
    refuse_files(dcu)
    take(device)
    device.unstage().wait(20)
    data.rename(renamed)
    data.mkdir()
    dcu.faults.clear()
    with pytest.raises(TransferError, match=f"{data}: this is another folder.*rename or mount it"):
        device.wait_for_files()
    with pytest.raises(TransferError, match="another folder"):
        device.fetch()
    assert list(data.iterdir()) == []
    (owed,) = device.owed.values()
    assert set(owed) == set(device.link.client.files())
    # Another process finds it by its journal, whatever the folder is called now.
    device.destroy()
    other = EigerDetector(dcu.url, name="other", directory=renamed, timeouts=SHORT)
    assert {file.path for file in other.fetch()} == {renamed / name for name in owed}
    assert list(data.iterdir()) == []
    other.destroy()


def test_one_answer_that_there_is_no_list_of_files_is_not_believed(dcu, device):
    """As from a gateway while the file writer behind it starts anew."""
    device.link.client.timeouts = replace(SHORT, files=20)
    dcu.faults.set("refuse", status=404, path="GET filewriter/*/files", times=1)
    take(device)
    device.unstage().wait(40)
    assert len(device.fetched) == 2


def test_a_dcu_without_a_list_of_files_is_told_as_such(dcu, device, caplog):
    dcu.faults.set("refuse", status=404, path="GET filewriter/*/files")
    device.link.client.timeouts = replace(SHORT, files=4)
    take(device)
    with pytest.raises(TransferError, match=r"this DCU has no list of its files .*404"):
        device.unstage().wait(40)
    # Nor is one answer believed more the next time.
    dcu.faults.clear()
    dcu.faults.set("refuse", status=404, path="GET filewriter/*/files", times=1)
    caplog.clear()
    take(device)
    device.unstage().wait(40)
    assert len(device.fetched) == 2
    assert "has no list of its files" not in caplog.text


def test_two_calls_at_once_both_wait_for_the_files(dcu, device, tmp_path):
    dcu.faults.set("refuse", status=503, path="GET data/*")
    take(device)
    with pytest.raises(TransferError):
        device.unstage().wait(20)
    dcu.faults.clear()
    device.link.client.timeouts = replace(SHORT, files=20)
    # The first one hangs in a file while the second one is called.
    fault = dcu.faults.set("hang", path="GET data/*_data_*")
    came = []
    first = threading.Thread(target=lambda: came.append(device.fetch()))
    first.start()
    end = time.monotonic() + 20
    while not fault.struck:
        assert time.monotonic() < end
        first.join(0.01)
    second = threading.Thread(target=lambda: came.append(device.fetch()))
    second.start()
    second.join(0.3)
    assert came == []
    dcu.faults.clear()
    first.join(20)
    second.join(20)
    assert [len(files) for files in came] == [2, 2]
    assert device.owed == {}


def test_of_two_calls_none_succeeds_where_files_stay_away(dcu, device):
    dcu.faults.set("refuse", status=503, path="GET data/*")
    take(device)
    with pytest.raises(TransferError):
        device.unstage().wait(20)
    told = []

    def fetched():
        try:
            told.append(device.fetch())
        except TransferError as error:
            told.append(str(error))

    calls = [threading.Thread(target=fetched) for _ in range(2)]
    for call in calls:
        call.start()
    for call in calls:
        call.join(30)
    assert len(told) == 2
    assert all("did not come home" in each for each in told), told


def test_what_is_owed_outlives_a_ctrl_c_while_its_folder_is_looked_at(dcu, device, monkeypatch):
    """On a disk of the network that may take as long as a person waits."""
    dcu.faults.set("refuse", status=503, path="GET data/*")
    take(device)
    with pytest.raises(TransferError):
        device.unstage().wait(20)
    before = device.owed
    assert before

    def hangs(delivery):
        assert device.owed == before
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(transfer, "make_folder_again", hangs)
        with pytest.raises(KeyboardInterrupt):
            device.fetch()
    assert device.owed == before
    dcu.faults.clear()
    assert len(device.fetch()) == 2


def test_a_series_whose_points_are_not_all_read_is_not_given_up(dcu, device):
    """It has ended, and all is home but the view, which waits for what events will name."""
    device.configure({"ntrigger": 3})
    device.stage().wait(20)
    for point in range(3):
        device.trigger().wait(20)
        if point == 2:
            device.wait_for_files()
            assert device.fetch() == []
        device.read()
        if point == 0:
            device.describe()
        for _, document in device.collect_asset_docs():
            document["run_start"] = "filled in by the RunEngine"
    device.unstage().wait(20)
    (view,) = device.views
    with h5py.File(view) as file:
        assert file["entry/data/data"].shape[0] == 3
    assert device.owed == {}


def test_what_was_wrong_is_told_of_a_file_that_was_being_fetched_again(dcu, device, monkeypatch):
    dcu.faults.set("file-short", file=1, missing=1)
    bring, tries = bringing.Bringer.bring, []

    def brought(bringer, delivery, name, proceed, settling):
        tries.append(name)
        if tries.count(name) < 2:
            return bring(bringer, delivery, name, proceed, settling)
        while True:  # until it is given up
            proceed(8192)

    monkeypatch.setattr(bringing.Bringer, "bring", brought)
    take(device)
    with pytest.raises(TransferError, match="0 images found, 1 expected") as caught:
        device.unstage().wait(20)
    assert "given up" not in str(caught.value)


def test_a_view_is_written_again_when_events_name_more_images(tmp_path):
    path = tmp_path / "s_1_data_000001.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("entry/data/data", data=np.ones((3, 2, 4), "<u2"), chunks=(1, 2, 4))
    delivery = Delivery("s_1", tmp_path, 3, 1000, (2, 4), np.dtype("<u2"))
    delivery.home[path.name] = FetchedFile(path, path.stat().st_size, 3, 0.0)
    bringer = bringing.Bringer(client=None, name="eiger")
    view = delivery.begin_view(1)
    for events in ([0, 1], [2]):
        delivery.name_images(events)
        assert bringer.write_views(delivery) == ""
    with h5py.File(view.path) as shown:
        assert shown["entry/data/data"].shape == (3, 2, 4)


def test_nothing_is_deleted_from_the_dcu_whose_copy_is_on_another_disk(
    dcu, device, monkeypatch, caplog
):
    """As below a mount point whose disk went away in the middle of a series."""
    device.file_policy = FilePolicy(delete_on_dcu=True)
    dcu.faults.set("hang", path="GET data/*")
    take(device)
    monkeypatch.setattr(bringing, "disk_of", lambda path: -1)
    dcu.faults.clear()
    device.unstage().wait(20)
    assert len(device.fetched) == 2
    assert {file.path.name for file in device.fetched} <= set(device.link.client.files())
    assert "is on another disk than when the series was armed" in caplog.text


def test_no_folder_is_made_in_the_place_of_a_disk_that_is_not_mounted(
    dcu, device, tmp_path, monkeypatch, caplog
):
    """Another disk would hide it later, and nothing else would have its files then."""
    device.file_policy = FilePolicy(delete_on_dcu=True)
    dcu.faults.set("refuse", status=503, path="GET data/*")
    take(device)
    with pytest.raises(TransferError):
        device.unstage().wait(20)
    # As if the folder's parent were seen without the disk that was mounted there.
    (tmp_path / "data").rename(tmp_path / "unmounted")
    dcu.faults.clear()
    disks = bringing.disk_of
    with monkeypatch.context() as patch:
        patch.setattr(bringing, "disk_of", lambda path: -1 if path == tmp_path else disks(path))
        with pytest.raises(TransferError, match="did not come home"):
            device.fetch()
    assert not (tmp_path / "data").exists()
    assert "nor the disk that it was on: mount it" in caplog.text
    # Mounted again: all comes, and stays on the DCU.
    (tmp_path / "unmounted").rename(tmp_path / "data")
    assert len(device.fetch()) == 2
    assert device.owed == {}
    assert len(device.link.client.files()) == 2


def test_what_comes_into_a_folder_that_is_made_again_stays_on_the_dcu(dcu, device, tmp_path):
    device.file_policy = FilePolicy(delete_on_dcu=True)
    dcu.faults.set("refuse", status=503, path="GET data/*")
    take(device)
    with pytest.raises(TransferError):
        device.unstage().wait(20)
    shutil.rmtree(tmp_path / "data")
    dcu.faults.clear()
    assert len(device.fetch()) == 2
    assert len(device.link.client.files()) == 2


def test_a_file_that_stays_short_comes_and_what_lacks_is_told(dcu, device, tmp_path):
    device.detector.nimages.set(3).wait(10)
    dcu.faults.set("file-short")
    take(device)
    with pytest.raises(TransferError, match="2 images found, 3 expected"):
        device.unstage().wait(20)
    with pytest.raises(TransferError, match="2 images came home, 3 were taken by this device"):
        device.fetch()
    assert device.owed == {}
    assert len(open_series(next((tmp_path / "data").glob("*_master.h5")))) == 2
    assert device.fetch() == []


def test_what_is_still_exposed_of_a_process_that_ended_is_owed(dcu, device, tmp_path, monkeypatch):
    left = EigerDetector(dcu.url, name="left", directory=tmp_path / "data", timeouts=SHORT)
    dcu.faults.set("refuse", status=503, path="GET data/*")
    take(left)
    with pytest.raises(TransferError):
        left.unstage().wait(20)
    left.destroy()
    dcu.faults.clear()
    with monkeypatch.context() as patch:
        patch.setattr("ophyd_eiger.owed.end_if_left_armed", lambda *_: "it is still being exposed")
        with pytest.raises(TransferError, match=r"not fetched yet: .*it is still being exposed"):
            device.fetch()
    assert len(device.fetch()) == 2


@pytest.mark.parametrize("delete", [True, False])
def test_files_are_deleted_on_the_dcu_only_if_asked(RE, dcu, eiger, assert_right, delete):
    eiger.file_policy = FilePolicy(delete_on_dcu=delete)
    (uid,) = RE(bp.count([eiger], 2))
    assert_right(uid, points=2, images=1)
    assert len(eiger.link.client.files()) == (0 if delete else 4)


@pytest.mark.parametrize(
    "fault",
    [
        "file-short",
        "file-truncated",
        "file-corrupt:offset=12",
        # Its blocks are as long as they say, but cannot be decompressed.
        "file-corrupt:file=1,image=1",
        "file-truncated:file=0",
    ],
)
def test_a_copy_that_is_not_proven_good_deletes_nothing(RE, dcu, device, tmp_path, fault):
    name, _, rest = fault.partition(":")
    dcu.faults.set(name, **dict(part.split("=") for part in rest.split(",") if part))
    device.file_policy = FilePolicy(delete_on_dcu=True)
    take(device)
    with pytest.raises(TransferError) as raised:
        device.unstage().wait(20)
    (bad,) = next(iter(device.owed.values()))
    assert bad in str(raised.value)
    assert bad in device.link.client.files()
    assert bad not in named(tmp_path / "data")


def test_a_master_is_deleted_only_after_it_came_twice_alike(tmp_path):
    """A byte of a mask or of a number that changed on its way breaks nothing in the file."""
    path, numbers = tmp_path / "made.h5", np.arange(1000, dtype="<u4")
    with h5py.File(path, "w") as file:
        file["entry/instrument/detector/detectorSpecific/pixel_mask"] = numbers
    whole = path.read_bytes()
    policy = FilePolicy(delete_on_dcu=True)
    home = tmp_path / "home"
    home.mkdir()
    delivery = Delivery("s_1", home, 3, 1000, (2, 4), np.dtype("<u2"), policy=policy)
    delivery.disk = bringing.disk_of(home)
    in_the_mask = whole.index(numbers.tobytes()) + 3
    with serving({delivery.master: whole}, spoils=[in_the_mask]) as server:
        client = DcuClient(server.url)
        bringer = bringing.Bringer(client, "eiger")
        bring = functools.partial(
            bringer.bring, delivery, delivery.master, lambda _: None, lambda _: None
        )
        with pytest.raises(FileError, match="the DCU sent other bytes"):
            bring()
        assert named(home) == set()
        assert list(server.files) == [delivery.master]
        assert bring().path.read_bytes() == whole
        assert server.files == {}
        client.close()


def test_what_may_be_the_dcus_own_file_is_not_deleted_there(RE, tmp_path, caplog):
    """The folder of the scan is where the DCU's disk is mounted, and nobody said so."""
    with sim_dcu.serve(
        "eiger-500k", time_scale=0, initialized=True, data_dir=tmp_path / "dcu"
    ) as dcu:
        eiger = EigerDetector(
            dcu.url,
            name="eiger",
            directory=tmp_path / "dcu",
            timeouts=SHORT,
            file_policy=FilePolicy(delete_on_dcu=True),
        )
        RE(bp.count([eiger], 2))
        assert len(eiger.fetched) == 4
        assert all(file.path.is_file() for file in eiger.fetched)
        assert {file.path.name for file in eiger.fetched} <= set(eiger.link.client.files())
        assert "was here before it was fetched, and may be the DCU's own file" in caplog.text
        eiger.destroy()


def test_files_are_whose_they_are_to_be(RE, eiger):
    eiger.file_policy = FilePolicy(mode=0o440, owner="nobody:" if os.geteuid() == 0 else None)
    RE(bp.count([eiger]))
    for path in [*(file.path for file in eiger.fetched), *eiger.views]:
        assert path.stat().st_mode & 0o777 == 0o440
        if os.geteuid() == 0:
            assert path.owner() == "nobody"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"mode": 0o7777}, "mode is 0o7777; it is between 0 and 0o777"),
        ({"mode": "rw"}, "mode is 'rw'; it is a whole number"),
        ({"at_once": 0}, "at_once is 0; it is at least 1"),
        ({"owner": "no-such-user"}, "owner is 'no-such-user': .*not found"),
        ({"mounted_at": "/", "delete_on_dcu": True}, "there is no copy of a file"),
    ],
)
def test_a_policy_that_makes_no_sense(values, said):
    with pytest.raises(ValueError, match=said):
        FilePolicy(**values)


def test_where_the_dcus_disk_is_mounted_nothing_is_fetched(RE, catalog, tmp_path):
    with sim_dcu.serve(
        "eiger-500k", time_scale=0, initialized=True, data_dir=tmp_path / "dcu"
    ) as dcu:
        mounted = next(
            folder
            for folder in [tmp_path / "dcu", *(tmp_path / "dcu").rglob("*")]
            if folder.is_dir()
        )
        eiger = EigerDetector(
            dcu.url,
            name="eiger",
            directory=tmp_path / "data",
            timeouts=SHORT,
            file_policy=FilePolicy(mounted_at=mounted),
        )
        (uid,) = RE(bp.count([eiger], 2))
        images = np.asarray(catalog[uid].primary.read()["eiger_image"])
        assert np.array_equal(images[:, 0], [dcu.image(n, 1) for n in (1, 2)])
        assert all(file.path.is_symlink() for file in eiger.fetched)
        assert len(eiger.fetched) == 4
        assert not [r for r in eiger.ledger.requests if r.resource.startswith("data ")]
        eiger.file_policy = FilePolicy(mounted_at=tmp_path / "nowhere")
        with pytest.raises(TransferError, match="nowhere: the DCU's data folder is not mounted"):
            eiger.stage().wait(20)
        eiger.destroy()


FULL = """
import resource, sys
import bluesky.plans as bp
from bluesky import RunEngine
from bluesky.utils import FailedStatus
from ophyd_eiger import EigerDetector, Timeouts

url, folder, limit = sys.argv[1:]
eiger = EigerDetector(url, name="eiger", directory=folder, timeouts=Timeouts(files=1))
eiger.connect()
eiger.configure({"nimages": 40})
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), hard))
try:
    RunEngine({})(bp.count([eiger], 2))
except FailedStatus as error:
    print(error.__cause__)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
print(len(eiger.fetch()))
eiger.destroy()
"""


def test_a_disk_that_fills_up_is_told_and_the_series_completed_when_there_is_room(dcu, tmp_path):
    """A limit on the size of files stands for the disk: what is larger does not fit."""
    limit = 800_000
    done = subprocess.run(
        [sys.executable, "-c", FULL, dcu.url, str(tmp_path / "data"), str(limit)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    told, came = done.stdout.splitlines()
    sizes = {
        name: int(requests.head(f"{dcu.url}/data/{name}", timeout=20).headers["Content-Length"])
        for name in requests.get(f"{dcu.url}/filewriter/api/1.6.0/files", timeout=20).json()
    }
    big = [name for name in sizes if sizes[name] > limit]
    assert came == str(len(big))
    assert re.search(
        rf"{tmp_path}/data/eiger_\w+_(data_000001|master)\.h5: cannot be written after {limit} of "
        rf"\d+ bytes: File too large",
        told,
    ), told
    home = tmp_path / "data"
    for name, size in sizes.items():
        assert (home / name).stat().st_size == size
    assert list(home.glob(".*")) == []


def test_with_wait_false_what_failed_comes_with_one_call(RE, dcu, tmp_path):
    device = EigerDetector(
        dcu.url,
        name="eiger",
        directory=tmp_path,
        timeouts=SHORT,
        file_policy=FilePolicy(wait=False),
    )
    refuse_files(dcu)
    RE(bp.count([device]))
    with pytest.raises(TransferError, match="503"):
        device.wait_for_files()
    dcu.faults.clear()
    assert len(device.fetch()) == 2
    assert device.owed == {}
    device.destroy()


def test_waiting_for_files_leaves_the_series_alone_that_is_being_taken(dcu, device, tmp_path):
    device.configure({"ntrigger": 4})
    device.stage().wait(20)
    for _ in range(2):
        device.trigger().wait(20)
    device.wait_for_files()
    for _ in range(2):
        device.trigger().wait(20)
    device.unstage().wait(20)
    assert sum(file.images for file in device.fetched) == 4
    assert device.owed == {}


def test_a_view_that_cannot_be_written_is_owed(dcu, device, tmp_path, monkeypatch):
    """As on a disk that is full by then."""

    def no_room(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr("ophyd_eiger.bringing.write_view", no_room)
        take(device)
        with pytest.raises(TransferError, match="no view file could be written"):
            device.unstage().wait(20)
    ((series, owed),) = device.owed.items()
    assert owed == [f"{series}_view.h5"]
    assert journals(tmp_path / "data") == [f".{series}.owed"]
    assert device.fetch() == []
    assert device.owed == {}
    with h5py.File(tmp_path / "data" / owed[0]) as file:
        assert np.array_equal(file["entry/data/data"][0], dcu.image(1, 1))


def test_a_series_cut_short_while_a_file_is_under_way_owes_what_its_end_writes(dcu, tmp_path):
    """As a fly scan that is stopped: the list of files that is known is older than its end."""
    client = DcuClient(dcu.url)
    for key, value in {"frame_time": 0.005, "nimages": 2, "ntrigger": 5}.items():
        client.put("detector", f"config/{key}", value)
    client.put("filewriter", "config/nimages_per_file", 4)
    client.put("filewriter", "config/name_pattern", "cut_$id")
    dcu.faults.set("late", seconds=1.5, path="GET data/*_data_000001.h5")
    client.command("detector", "arm", timeout=20)
    delivery = Delivery("cut_1", tmp_path, 10, 4, (514, 1030), np.dtype("<u2"))
    transfer = Transfer(client, "eiger")
    transfer.add(delivery, seen_by_files=True)
    for _ in range(3):
        client.command("detector", "trigger", timeout=20)
    deadline = time.monotonic() + 20
    while delivery.master not in delivery.home:
        assert time.monotonic() < deadline
    assert delivery.data_file(1) not in delivery.home
    client.command("detector", "disarm", timeout=20)
    transfer.end(delivery, cut_short=True, interrupted=True)
    transfer.wait_home(delivery, 20)
    assert delivery.images_home == 6
    transfer.finalize(delivery)
    transfer.wait(20)
    transfer.close()
    client.close()


def test_a_series_of_which_there_is_nothing_and_that_no_event_names_is_not_owed_for_ever(
    dcu, tmp_path
):
    client = DcuClient(dcu.url)
    transfer = Transfer(client, "eiger")
    delivery = Delivery("none_1", tmp_path, 10, 4, (514, 1030), np.dtype("<u2"))
    transfer.add(delivery)
    transfer.end(delivery, cut_short=True, interrupted=True)
    transfer.finalize(delivery)
    transfer.wait(0.3)
    assert transfer.owed == [delivery]
    transfer.take_up_again()
    transfer.wait(20)
    assert transfer.owed == []
    transfer.close()
    client.close()


def test_a_check_that_takes_longer_than_anything_may_is_waited_for(dcu, device, monkeypatch):
    """As that of a large file on a slow disk: no byte comes while it lasts."""
    check = bringing.check_file
    patience_is_over = threading.Event()

    def slow(delivery, name, path):
        if name != delivery.master:
            patience_is_over.wait(2 * SHORT.files)
        return check(delivery, name, path)

    monkeypatch.setattr(bringing, "check_file", slow)
    take(device)
    device.unstage().wait(20)
    assert len(device.fetched) == 2
    assert device.owed == {}


def test_without_locks_a_living_process_is_left_its_series(dcu, device, monkeypatch):
    """As on a network file system that has none."""

    def no_locks(*_args):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    device.configure({"ntrigger": 4})
    device.stage().wait(20)
    device.trigger().wait(20)
    other = EigerDetector(dcu.url, name="other", timeouts=SHORT)
    assert other.fetch() == []
    assert device.detector.state.get() == "ready"
    device.trigger().wait(20)
    device.unstage().wait(20)
    assert sum(file.images for file in device.fetched) == 2
    other.destroy()


def test_a_link_to_a_folder_that_is_not_mounted_now_is_kept(dcu, device, tmp_path, caplog):
    leave_owing(dcu, device)
    device.destroy()
    dcu.faults.clear()
    data, disk = tmp_path / "data", tmp_path / "not mounted"
    data.rename(disk)
    other = EigerDetector(dcu.url, name="other", timeouts=SHORT)
    assert other.fetch() == []
    # The bare folder that it is mounted on.
    data.mkdir()
    assert other.fetch() == []
    told = [r.getMessage() for r in caplog.records if "are not there, as" in r.getMessage()]
    assert len(told) == 2
    assert told[0] == told[1]
    assert str(data) in told[0]
    data.rmdir()
    disk.rename(data)
    assert len(other.fetch()) == 2
    other.destroy()


@pytest.fixture
def patient(dcu, tmp_path):
    """A device that waits for files as long as one does by default."""
    timeouts = Timeouts(connect=5, get=20, trigger_margin=20)
    device = EigerDetector(dcu.url, name="eiger", directory=tmp_path / "data", timeouts=timeouts)
    device.connect()
    device.configure({"frame_time": 0.005, "count_time": 0.004})
    yield device
    device.destroy()


def test_downloads_that_hang_do_not_keep_the_next_series_from_home(dcu, device):
    """As many as there are at once, for longer than anybody waits for a file."""
    device.configure({"nimages": 4, "filewriter.nimages_per_file": 1})
    dcu.faults.set("hang", path="GET data/*", times=device.file_policy.at_once)
    take(device)
    with pytest.raises(TransferError, match=r"did not come home"):
        device.unstage().wait(20)
    take(device)
    device.unstage().wait(20)
    assert sum(file.images for file in device.fetched) == 4
    dcu.faults.clear()
    device.fetch()
    assert device.owed == {}


@pytest.mark.long
def test_a_dcu_that_is_gone_for_a_while_costs_no_file(dcu, patient, tmp_path):
    refuse_files(dcu)
    take(patient)
    dcu.faults.set("die", back=10, files="kept")
    ends = patient.unstage()
    wait_until_alive(patient, limit=60)
    dcu.faults.clear("refuse")
    with contextlib.suppress(DcuUnreachableError):
        # It could not put the name pattern back.
        ends.wait(60)
    assert patient.owed == {}
    images = open_series(next((tmp_path / "data").glob("*_view.h5")))
    assert np.array_equal(images[0], dcu.image(1, 1))


def test_files_that_no_event_needs_are_not_waited_for(dcu, patient, tmp_path):
    """The exposure was ended: its files stay owed, and the scan's end does not wait for them."""
    refuse_files(dcu)
    dcu.faults.set("stall", image=1)
    patient.detector.nimages.set(2).wait(10)
    patient.stage().wait(20)
    trigger = patient.trigger()
    while patient.detector.state.get() != "acquire":
        pass
    began = time.monotonic()
    patient.unstage().wait(60)
    assert time.monotonic() - began < patient.link.client.timeouts.files / 2
    assert trigger.done
    assert len(patient.owed) == len(journals(tmp_path / "data")) == 1
    dcu.faults.clear()
    patient.fetch()
    assert patient.owed == {}
    assert journals(tmp_path / "data") == []


def test_a_series_that_was_armed_meanwhile_is_not_disarmed(dcu, device, tmp_path):
    """What is armed is asked for again, at the last moment before the series of a dead one ends."""
    device.detector.ntrigger.set(2).wait(10)
    take(device)
    (name,) = journals(tmp_path / "data")
    delivery = journal.read(tmp_path / "data" / name).delivery
    asked = []

    class Client(DcuClient):
        def get(self, subsystem, resource):
            asked.append(resource)
            if resource == "config/name_pattern" and asked.count(resource) == 2:
                return {"value": "another_$id"}
            return super().get(subsystem, resource)

    assert device.detector.state.get() == "ready"
    assert end_if_left_armed(Client(dcu.url), delivery, 5) == ""
    assert device.detector.state.get() == "ready"
    device.unstage().wait(20)


def leave_armed(dcu, device):
    """Take two of four points, and lose the network before the end."""
    device.configure({"ntrigger": 4, "filewriter.nimages_per_file": 100})
    take(device, 2)
    for verb in ("GET", "PUT"):
        dcu.faults.set("drop", path=f"{verb} *")
    with pytest.raises((DcuError, TransferError)):
        device.unstage().wait(30)
    dcu.faults.clear()
    assert device.detector.state.get() == "ready"


def arm_for_another(dcu):
    client = DcuClient(dcu.url)
    client.command("detector", "disarm", timeout=20)
    client.put("filewriter", "config/name_pattern", "theirs_$id")
    client.command("detector", "arm", timeout=20)
    client.close()


def test_a_series_that_unstage_could_not_end_is_ended_by_fetch(dcu, device, tmp_path):
    """Its images are in the DCU's memory until then."""
    leave_armed(dcu, device)
    assert len(device.fetch()) == 2
    assert device.detector.state.get() == "idle"
    assert device.owed == {}
    images = open_series(next((tmp_path / "data").glob("*_master.h5")))
    assert len(images) == 2
    for number, image in enumerate(images, start=1):
        assert np.array_equal(image, dcu.image(1, number))
    assert journals(tmp_path / "data") == []


def test_what_another_armed_since_is_left_alone_by_fetch(dcu, device):
    leave_armed(dcu, device)
    arm_for_another(dcu)
    assert len(device.fetch()) == 2
    assert device.detector.state.get() == "ready"


def test_what_another_armed_since_is_left_alone_by_stage(dcu, device):
    leave_armed(dcu, device)
    arm_for_another(dcu)
    with pytest.raises(StateError, match="somebody armed it"):
        device.stage().wait(20)
    assert device.detector.state.get() == "ready"
    assert len(device.fetch()) == 2


def test_a_later_series_of_the_same_pattern_is_not_disarmed(dcu, device, tmp_path, caplog):
    """The process was killed before it put the pattern back, and another client left it so."""
    refuse_files(dcu)
    take(device)
    (journal_of_first,) = journals(tmp_path / "data")
    series = journal_of_first.strip(".").removesuffix(".owed")
    device.destroy()
    dcu.faults.clear()
    client = DcuClient(dcu.url)
    pattern = f"{series.rpartition('_')[0]}_$id"
    client.put("filewriter", "config/name_pattern", pattern)
    client.command("detector", "arm", timeout=20)
    other = EigerDetector(dcu.url, name="other", directory=tmp_path / "data", timeouts=SHORT)
    came = other.fetch()
    assert sorted(file.path.name for file in came) == [
        f"{series}_data_000001.h5",
        f"{series}_master.h5",
    ]
    assert other.detector.state.get() == "ready"
    later = pattern.replace("$id", "2")
    assert f"{series} is over: the detector was armed again since, for {later}" in caplog.text
    client.command("detector", "disarm", timeout=20)
    client.close()
    other.destroy()


def test_the_comparison_before_a_deletion_counts_as_bytes_that_come(dcu, tmp_path):
    """Else a master that takes long to be sent again would be given up as one that stands still."""
    client = DcuClient(dcu.url)
    client.put("filewriter", "config/name_pattern", "mine_$id")
    client.command("detector", "arm", timeout=20)
    client.command("detector", "disarm", timeout=20)
    delivery = Delivery("mine_1", tmp_path, 1, 1, (514, 1030), np.dtype("<u4"), ended=True)
    delivery.policy = FilePolicy(delete_on_dcu=True)
    delivery.disk = disk_of(tmp_path)
    came = []
    file = Bringer(client, "eiger").bring(delivery, delivery.master, came.append, lambda _: None)
    assert came == sorted(came)
    assert came[-1] == 2 * file.bytes == 2 * file.path.stat().st_size
    assert delivery.master not in client.files()
    client.close()
