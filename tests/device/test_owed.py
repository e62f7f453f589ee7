"""What does not come home is owed: named, still on the DCU, and fetched later by whoever asks."""

import contextlib
import errno
import json
import logging
import os
import queue
import re
import threading
import time
from dataclasses import replace
from logging.handlers import QueueHandler
from pathlib import Path

import bluesky.plans as bp
import h5py
import numpy as np
import pytest
from fault_cell import wait_until_alive
from foreign_dcu import Reply
from owing import SHORT, journals, leave_owing, named, refuse_files, take

import sim_dcu
from ophyd_eiger import EigerDetector, FilePolicy, Timeouts, bringing, open_series, transfer
from ophyd_eiger.client import DcuClient
from ophyd_eiger.deliveries import Delivery, FetchedFile
from ophyd_eiger.errors import (
    DcuError,
    DcuTimeoutError,
    DcuUnreachableError,
    ReplyError,
    StateError,
    TransferError,
)
from ophyd_eiger.transfer import Transfer

# Of each test's cases the short run takes every 2nd, see conftest.
SHORT_RUN_EVERY = 2


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


def test_a_device_is_destroyed_while_its_files_come_home(dcu, tmp_path):
    """They are left on the DCU, and the next device brings them."""
    patient = Timeouts(connect=5, get=20, files=60, trigger_margin=20)
    device = EigerDetector(dcu.url, name="eiger", directory=tmp_path, timeouts=patient)
    hangs = dcu.faults.set("hang", path="GET data/*")
    take(device)
    unstaged, waited = device.unstage(), threading.Event()
    while not hangs.struck:
        assert not waited.wait(0.01)
    ends = threading.Thread(target=device.destroy)
    ends.start()
    ends.join(20)
    assert not ends.is_alive()
    with pytest.raises(TransferError, match=r"not come home .* before the device was destroyed"):
        unstaged.wait(20)
    assert len(journals(tmp_path)) == 1
    dcu.faults.clear()
    device = EigerDetector(dcu.url, name="eiger", directory=tmp_path, timeouts=patient)
    assert len(device.fetch()) == 2
    assert journals(tmp_path) == []
    assert device.filewriter.name_pattern.get() == "series_$id"
    device.destroy()


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


def test_one_answer_that_there_is_no_list_of_files_is_not_believed(dcu, device):
    """As from a gateway while the file writer behind it starts anew."""
    device.link.client.timeouts = replace(SHORT, files=20)
    dcu.faults.set("refuse", status=404, path="GET filewriter/*/files", times=1)
    take(device)
    device.unstage().wait(40)
    assert len(device.fetched) == 2


@pytest.mark.parametrize("answer", [{"error": "busy"}, {}, 3, "busy", [1], {"value": {}}])
def test_what_is_no_list_of_files_is_not_taken_for_an_empty_one(foreign, answer):
    foreign.gap = lambda request: (
        Reply.of(answer) if request.asks("GET filewriter files") else request.forward()
    )
    client = DcuClient(foreign.url)
    with pytest.raises(ReplyError, match="is no list of file names"):
        client.files()
    client.close()


@pytest.mark.parametrize("answer", [None, [], {"value": None}, {"value": []}])
def test_an_empty_list_of_files_has_several_forms(foreign, answer):
    foreign.gap = lambda request: (
        Reply.of(answer) if request.asks("GET filewriter files") else request.forward()
    )
    client = DcuClient(foreign.url)
    assert client.files() == []
    client.close()


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


LOSES_FILES = [("filewriter", "clear"), ("system", "reboot"), ("system", "shutdown")]


def test_a_dcu_is_not_cleared_after_a_series_that_could_not_be_ended(dcu, tmp_path):
    device = EigerDetector(
        dcu.url,
        name="eiger",
        directory=tmp_path,
        timeouts=replace(SHORT, end=0.5),
        file_policy=FilePolicy(wait=False),
    )
    device.configure({"ntrigger": 3})
    dcu.faults.set("hang", path="GET data/*")
    take(device)
    dcu.faults.set("hang", path="PUT */command/*")
    with pytest.raises(DcuTimeoutError):
        device.unstage().wait(20)
    dcu.faults.clear()
    dcu.faults.set("hang", path="GET data/*")
    for subsystem, command in LOSES_FILES:
        with pytest.raises(StateError, match=f"no {subsystem} {command}, .* are home"):
            getattr(getattr(device, subsystem), command).set(1).wait(20)
    dcu.faults.clear()
    device.unstage().wait(20)
    device.wait_for_files()
    assert len(device.fetched) == 2
    device.destroy()


def test_a_dcu_is_not_cleared_while_files_are_to_come_home(dcu, tmp_path):
    device = EigerDetector(
        dcu.url, name="eiger", directory=tmp_path, file_policy=FilePolicy(wait=False)
    )
    dcu.faults.set("hang", path="GET data/*")
    take(device)
    device.unstage().wait(20)
    (series,) = device.owed
    for subsystem, command in LOSES_FILES:
        said = f"no {subsystem} {command}, .* those of {series} are home"
        with pytest.raises(StateError, match=f"{said}.* eiger.{subsystem}.{command}.send"):
            getattr(getattr(device, subsystem), command).set(1).wait(20)
    assert len(device.link.client.files()) == 2
    dcu.faults.clear()
    device.wait_for_files()
    assert len(device.fetched) == 2
    device.filewriter.clear.set(1).wait(20)
    assert device.link.client.files() == []
    device.destroy()


def test_a_dcu_is_cleared_of_what_did_not_come_home_if_that_is_meant(dcu, device):
    leave_owing(dcu, device)
    with pytest.raises(StateError, match=r"to lose them, eiger\.filewriter\.clear\.send\(\)"):
        device.filewriter.clear.set(1).wait(20)
    device.filewriter.clear.send()
    assert device.link.client.files() == []


def test_a_dcu_is_not_cleared_of_what_an_earlier_program_owes(dcu, device, tmp_path):
    leave_owing(dcu, device)
    (series,) = device.owed
    device.destroy()
    dcu.faults.clear()
    later = EigerDetector(dcu.url, name="later", directory=tmp_path / "other")
    with pytest.raises(StateError, match=rf"no filewriter clear, .* those of {series} are home"):
        later.filewriter.clear.set(1).wait(20)
    assert len(later.fetch()) == 2
    later.filewriter.clear.set(1).wait(20)
    assert later.link.client.files() == []
    later.destroy()


def test_a_dcu_that_says_nothing_when_it_is_asked_for_the_rest_is_no_answer(dcu, device):
    """Of images that no event names, nobody knows whether there are more."""
    client = DcuClient("http://127.0.0.1:9", timeouts=SHORT)
    waiting = Transfer(client, "eiger")
    delivery = Delivery("s_1", device.directory, 4, 1, (514, 1030), np.dtype("<u2"))
    delivery.home[delivery.master] = FetchedFile(device.directory / delivery.master, 1, 0, 0.0)
    waiting._owed.append(delivery)
    waiting.take_up_again()
    with pytest.raises(TransferError, match="whether the DCU has more files of s_1 is not known"):
        waiting.wait(20)
    assert waiting.owed == [delivery]


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
