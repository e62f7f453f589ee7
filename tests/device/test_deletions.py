"""Files that are deleted on the DCU once they are home, however the DCU and the folder behave."""

import contextlib
import logging
import re
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import requests
from foreign_dcu import ForeignDcu, Held
from owing import SHORT, named, take

from ophyd_eiger import EigerDetector, FilePolicy, bringing
from ophyd_eiger.deliveries import Delivery, FetchedFile
from ophyd_eiger.errors import TransferError


@pytest.fixture
def deleting(foreign, tmp_path):
    """A device that has its files deleted, and does not wait long for them."""
    device = EigerDetector(
        foreign.url,
        name="eiger",
        directory=tmp_path / "data",
        timeouts=SHORT,
        file_policy=FilePolicy(delete_on_dcu=True, at_once=1),
    )
    device.connect()
    device.configure({"frame_time": 0.005, "count_time": 0.004, "filewriter.nimages_per_file": 1})
    yield device
    device.destroy()


def data_files(folder: Path) -> set[str]:
    return {name for name in named(folder) if not name.endswith("_view.h5")}


def asked(foreign: ForeignDcu, verb: str) -> list[str]:
    return [each for each in foreign.requests if each.startswith(f"{verb} data ")]


def test_a_dcu_that_answers_no_deletion_fails_no_scan(foreign, deleting, caplog):
    foreign.gap = held = Held("DELETE data *")
    deleting.configure({"nimages": 3})
    take(deleting)
    deleting.unstage().wait(20)
    assert held.came.is_set()
    assert len(deleting.fetched) == 4
    assert deleting.owed == {}
    assert len(deleting.link.client.files()) == 4
    assert "not deleted on the DCU yet, which has answered no deletion for 1 s" in caplog.text
    # Each when the one before is over.
    assert len(asked(foreign, "DELETE")) == 1
    held.release.set()
    deleting.link.client.timeouts = replace(SHORT, files=20)
    deleting.wait_for_files()
    assert deleting.link.client.files() == []


def test_whoever_waits_for_files_waits_as_long_as_the_dcu_deletes(dcu, deleting, caplog):
    """Longer in all than it may answer none."""
    deleting.link.client.timeouts = replace(SHORT, files=5)
    dcu.faults.set("late", path="DELETE data/*", seconds=1.2)
    deleting.configure({"nimages": 4})
    take(deleting)
    deleting.unstage().wait(20)
    assert deleting.link.client.files() == []
    assert "not deleted" not in caplog.text


def test_after_a_deletion_that_was_never_answered_the_others_are_deleted(
    dcu, foreign, deleting, caplog
):
    deleting.link.client.timeouts = replace(SHORT, put=0.5, files=20)
    dcu.faults.set("hang", path="DELETE data/*", times=1)
    deleting.configure({"nimages": 3})
    take(deleting)
    deleting.unstage().wait(20)
    assert deleting.owed == {}
    (left,) = deleting.link.client.files()
    assert f"{left} stays on the DCU: DELETE " in caplog.text
    assert len(asked(foreign, "DELETE")) == 4


def test_a_dcu_that_answers_no_deletion_is_not_waited_for_file_by_file(
    dcu, foreign, deleting, caplog
):
    deleting.link.client.timeouts = replace(SHORT, put=0.3)
    dcu.faults.set("hang", path="DELETE data/*")
    deleting.configure({"nimages": 12})
    take(deleting)
    deleting.unstage().wait(20)
    assert "which has answered no deletion for 1 s" in caplog.text
    assert len(asked(foreign, "DELETE")) < 13


def test_what_no_thread_could_be_begun_for_is_deleted_by_whoever_waits(
    deleting, monkeypatch, caplog
):
    start, failed = threading.Thread.start, []

    def fails_twice(thread):
        if thread.name == "eiger deletions" and len(failed) < 2:
            failed.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fails_twice)
    take(deleting)
    deleting.unstage().wait(20)
    assert len(failed) == 2
    assert "no thread to delete files on the DCU, so that they stay for now" in caplog.text
    assert deleting.link.client.files() == []


def test_a_thread_for_deletions_that_failed_is_begun_again(deleting, monkeypatch, caplog):
    deletions = deleting._acquisition.transfer.deletions
    delete, failed = deletions._delete, []

    def fails_once(*job):
        if not failed:
            failed.append(job)
            raise MemoryError
        return delete(*job)

    monkeypatch.setattr(deletions, "_delete", fails_once)
    take(deleting)
    deleting.unstage().wait(20)
    ((_, file),) = failed
    assert deleting.link.client.files() == [file.path.name]
    assert f"{file.path.name} stays on the DCU" in caplog.text


@contextlib.contextmanager
def asking_what_is_owed(device):
    """Have each message ask the device what is owed; give those in which that was not possible."""
    stuck = []

    class Asks(logging.Handler):
        def emit(self, record):
            asking = threading.Thread(target=lambda: device.owed)
            asking.start()
            asking.join(10)
            if asking.is_alive():
                stuck.append(record.getMessage())

    handler = Asks(logging.WARNING)
    logging.getLogger("ophyd_eiger").addHandler(handler)
    try:
        yield stuck
    finally:
        logging.getLogger("ophyd_eiger").removeHandler(handler)


def test_whoever_is_told_of_deletions_may_ask_what_is_owed(foreign, deleting):
    """As a log handler that shows both: nothing that it needs is locked meanwhile."""
    with asking_what_is_owed(deleting) as stuck:
        foreign.gap = held = Held("DELETE data *_data_000001.h5")
        deleting.configure({"nimages": 2})
        take(deleting)
        assert held.came.wait(20)
        deleting.unstage().wait(30)
        next(each.path for each in deleting.fetched if "_data_000002" in each.path.name).unlink()
        held.release.set()
        deleting.link.client.timeouts = replace(SHORT, files=20)
        deleting.wait_for_files()
        deleting.destroy()
    assert stuck == []


@pytest.mark.parametrize("waits", [True, False])
def test_whoever_is_told_of_what_did_not_come_may_ask_what_is_owed(dcu, device, caplog, waits):
    dcu.faults.set("refuse", status=503, path="GET data/*")
    device.file_policy = FilePolicy(wait=waits)
    with asking_what_is_owed(device) as stuck:
        take(device)
        if waits:
            with pytest.raises(TransferError):
                device.unstage().wait(30)
        else:
            device.unstage().wait(20)
            waited, end = threading.Event(), time.monotonic() + 30
            while "did not come home" not in caplog.text:
                assert time.monotonic() < end
                waited.wait(0.01)
        device.destroy()
    assert stuck == []


@pytest.mark.parametrize("how", ["removed", "changed"])
def test_nothing_is_deleted_whose_copy_is_not_there_any_more(
    foreign, deleting, caplog, tmp_path, how
):
    foreign.gap = held = Held("DELETE data *_data_000001.h5")
    deleting.configure({"nimages": 2})
    take(deleting)
    assert held.came.wait(20)
    deleting.unstage().wait(20)
    second = next(file.path for file in deleting.fetched if "_data_000002" in file.path.name)
    if how == "removed":
        second.unlink()
    else:
        second.write_bytes(b"short")
    held.release.set()
    deleting.link.client.timeouts = replace(SHORT, files=20)
    deleting.wait_for_files()
    assert deleting.link.client.files() == [second.name]
    said = "its copy is not there any more" if how == "removed" else "was changed since it came"
    assert f"{second.name} stays on the DCU: " in caplog.text
    assert said in caplog.text


def end_deletions(device):
    """Wait for the deletions that are due, while files are still to come."""
    device._acquisition.transfer.deletions.wait(20)


def test_what_is_to_be_deleted_stays_once_its_folder_went(
    foreign, deleting, monkeypatch, caplog, tmp_path
):
    """What was proven of the copy that went is not proven of the one that came then."""
    check, checked = bringing.check_pixels, []

    def noted(path):
        checked.append(path.name[1:].partition(".h5")[0] + ".h5")
        check(path)

    monkeypatch.setattr(bringing, "check_pixels", noted)
    foreign.gap = held = Held("DELETE data *")
    deleting.configure({"nimages": 2})
    master = Held("GET data *_master.h5")
    foreign.gap = lambda request: (master if request.asks("GET *") else held)(request)
    take(deleting)
    assert held.came.wait(20)
    assert master.came.wait(20)
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(TransferError, match="did not come home"):
        deleting.unstage().wait(20)
    master.release.set()
    assert len(deleting.fetch()) == 3
    held.release.set()
    end_deletions(deleting)
    (delivery,) = deleting._acquisition.deliveries
    # The one whose deletion was under way is gone there, and what came since as well proven.
    assert checked.count(delivery.data_file(1)) == 2
    assert sorted(deleting.link.client.files()) == [delivery.data_file(2), delivery.master]
    assert f"{delivery.data_file(2)} stays on the DCU: " in caplog.text
    assert "its copy is another one since the folder" in caplog.text


def test_a_device_that_ends_tells_what_it_does_not_delete_any_more(foreign, deleting, caplog):
    foreign.gap = held = Held("DELETE data *")
    take(deleting)
    deleting.unstage().wait(20)
    caplog.clear()
    deleting.destroy()
    assert caplog.text.count("may still be on the DCU, all home: this program deletes no more") == 1
    held.release.set()


def test_nothing_that_lands_after_the_end_is_deleted(foreign, deleting, monkeypatch, caplog):
    foreign.gap = held = Held("DELETE data *_data_000001.h5")
    check, checking, goes_on = bringing.check_pixels, threading.Event(), threading.Event()

    def late(path):
        if "_data_000002" in path.name:
            checking.set()
            assert goes_on.wait(30)
        check(path)

    monkeypatch.setattr(bringing, "check_pixels", late)
    deleting.configure({"nimages": 2})
    take(deleting)
    assert held.came.wait(20)
    assert checking.wait(20)
    deleting.destroy()
    goes_on.set()
    (delivery,) = deleting._acquisition.deliveries
    for thread in threading.enumerate():
        if thread.name == "eiger file":
            thread.join(20)
    assert delivery.data_file(2) in delivery.home
    held.release.set()
    for thread in threading.enumerate():
        if thread.name == "eiger deletions":
            thread.join(20)
    assert asked(foreign, "DELETE") == [f"DELETE data {delivery.data_file(1)}"]


def test_deletions_that_are_queued_later_are_not_waited_for(foreign, deleting, monkeypatch):
    """As those of a scan that is being taken."""
    deleting.file_policy = FilePolicy()
    take(deleting)
    deleting.unstage().wait(20)
    (delivery,) = deleting._acquisition.deliveries
    delivery.policy = FilePolicy(delete_on_dcu=True)
    first, second = Held("DELETE data *_data_000001.h5"), Held("DELETE data *_master.h5")
    foreign.gap = lambda request: (second if request.asks(second.pattern) else first)(request)
    deletions = deleting._acquisition.transfer.deletions
    deletions.queue(delivery, delivery.home[delivery.data_file(1)])
    wait, waits = deletions._state.wait, threading.Event()

    def waited(seconds):
        waits.set()
        return wait(seconds)

    monkeypatch.setattr(deletions._state, "wait", waited)
    waiting = threading.Thread(target=lambda: deletions.wait(20))
    waiting.start()
    assert waits.wait(20)
    deletions.queue(delivery, delivery.home[delivery.master])
    first.release.set()
    assert second.came.wait(20)
    waiting.join(20)
    assert not waiting.is_alive()
    assert deletions.pending == [delivery.master]
    second.release.set()
    deletions.wait(20)
    assert deleting.link.client.files() == []


def test_what_was_home_and_went_with_its_folder_is_owed(foreign, deleting, caplog, tmp_path):
    """And deleted on the DCU, so that nothing else has it."""
    foreign.gap = held = Held("GET data *_master.h5")
    deleting.configure({"nimages": 3})
    take(deleting)
    assert held.came.wait(20)
    (delivery,) = deleting._acquisition.deliveries
    end_deletions(deleting)
    data = sorted(named(tmp_path / "data"))
    assert len(data) == 3
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(TransferError, match="did not come home"):
        deleting.unstage().wait(20)
    held.release.set()
    with pytest.raises(TransferError, match=f"{data[0]}, .* had come home, and went with the fold"):
        deleting.fetch()
    assert deleting.owed == {delivery.basename: data}
    # What there is has come, and stays on the DCU, too.
    assert data_files(tmp_path / "data") == {delivery.master}
    assert deleting.link.client.files() == [delivery.master]


def test_what_went_with_its_folder_and_was_put_back_is_home(foreign, deleting, tmp_path):
    foreign.gap = held = Held("GET data *_master.h5")
    deleting.configure({"nimages": 2})
    take(deleting)
    assert held.came.wait(20)
    end_deletions(deleting)
    data = sorted(named(tmp_path / "data"))
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    with pytest.raises(TransferError, match="did not come home"):
        deleting.unstage().wait(20)
    held.release.set()
    with pytest.raises(TransferError, match=r"went with the folder.*: put them back there"):
        deleting.fetch()
    (tmp_path / "elsewhere" / data[0]).rename(tmp_path / "data" / data[0])
    (tmp_path / "data" / data[1]).write_bytes(b"no such file")
    with pytest.raises(TransferError, match=rf"eiger: {data[1]} did not come home"):
        deleting.fetch()
    (tmp_path / "elsewhere" / data[1]).rename(tmp_path / "data" / data[1])
    deleting.fetch()
    assert deleting.owed == {}
    assert {file.path.name for file in deleting.fetched} == data_files(tmp_path / "data")


def test_what_went_with_its_folder_and_is_on_the_dcu_comes_again(foreign, deleting, tmp_path):
    deleting.file_policy = FilePolicy(at_once=1)
    foreign.gap = held = Held("GET data *_master.h5")
    take(deleting)
    assert held.came.wait(20)
    assert len(named(tmp_path / "data")) == 1
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    with pytest.raises(TransferError, match="did not come home"):
        deleting.unstage().wait(20)
    held.release.set()
    assert len(deleting.fetch()) == 2
    assert len(data_files(tmp_path / "data")) == 2
    assert deleting.owed == {}


def test_what_was_moved_out_of_its_folder_is_no_loss(foreign, deleting, tmp_path):
    foreign.gap = held = Held("GET data *_master.h5")
    take(deleting)
    assert held.came.wait(20)
    end_deletions(deleting)
    (name,) = named(tmp_path / "data")
    (tmp_path / "data" / name).rename(tmp_path / name)
    with pytest.raises(TransferError, match="did not come home"):
        deleting.unstage().wait(20)
    held.release.set()
    (master,) = deleting.fetch()
    assert data_files(tmp_path / "data") == {master.path.name}
    assert deleting.owed == {}


def test_what_somebody_deleted_on_the_dcu_is_told_so(dcu, device):
    dcu.faults.set("refuse", status=503, path="GET data/*")
    take(device)
    (delivery,) = device._acquisition.deliveries
    with pytest.raises(TransferError, match="503"):
        device.unstage().wait(20)
    dcu.faults.clear()
    requests.delete(f"{dcu.url}/data/{delivery.data_file(1)}", timeout=20).raise_for_status()
    with pytest.raises(
        TransferError,
        match=f"the DCU listed {delivery.data_file(1)} before and does not now.* asks again",
    ):
        device.fetch()
    assert {file.path.name for file in device.fetched} == {delivery.master}


ENDS = """
import os, sys, warnings
from ophyd_eiger import EigerDetector, FilePolicy, Timeouts

url, folder, delete = sys.argv[1:]
eiger = EigerDetector(
    url, name="eiger", directory=folder, timeouts=Timeouts(files=5),
    file_policy=FilePolicy(wait=False, delete_on_dcu=bool(delete)),
)
eiger.configure({"ntrigger": 100})
eiger.stage().wait(20)
eiger.trigger().wait(20)
"""


def test_of_a_series_that_is_taken_what_the_dcu_lists_is_left_behind(tmp_path):
    """With signals from outside nobody else knows what there is."""
    delivery = Delivery("s_1", tmp_path, 4, 1, (2, 4), np.dtype("<u2"))
    delivery.note_listed(["s_1_data_000001.h5", "s_1_master.h5", "s_11_data_000001.h5"])
    assert delivery.left_behind() == ["s_1_data_000001.h5", "s_1_master.h5"]
    delivery.home["s_1_data_000001.h5"] = FetchedFile(tmp_path / "s_1_data_000001.h5", 1, 1, 0.0)
    delivery.recorded = 2
    assert delivery.left_behind() == ["s_1_data_000002.h5", "s_1_master.h5"]
    delivery.ended = True
    assert delivery.left_behind() == [*map(delivery.data_file, (2, 3, 4)), "s_1_master.h5"]


@pytest.mark.parametrize(
    ("then", "delete", "hangs", "told"),
    [
        (
            "eiger.unstage().wait(20)",
            "",
            "GET data/*",
            r"eiger_\w+_data_000001\.h5, .*_master\.h5 had",
        ),
        # Of a series that is being taken nobody knows more.
        ("", "", "GET data/*", r"eiger: eiger_\w+_data_000001\.h5, eiger_\w+_master\.h5 had"),
        ("eiger.unstage().wait(20)\neiger.wait_for_files()", "", None, None),
        # Another process' end tells nothing of this one's files.
        (
            # Python says from 3.12 on that forking is unwise.
            "eiger.unstage().wait(20)\nwarnings.simplefilter('ignore')\n"
            "if os.fork() == 0: sys.exit()\nos.wait()\neiger.wait_for_files()",
            "",
            None,
            None,
        ),
        (
            "eiger.unstage().wait(20)\neiger.wait_for_files()",
            "delete",
            "DELETE data/*",
            "_data_000001.h5, .* all home: this program deletes no more",
        ),
        ("eiger.unstage().wait(20)\neiger.wait_for_files()", "delete", None, None),
    ],
)
def test_a_program_that_ends_tells_what_it_leaves(dcu, tmp_path, then, delete, hangs, told):
    if hangs:
        dcu.faults.set("hang", path=hangs)
    elif delete:
        dcu.faults.set("late", path="DELETE data/*", seconds=0.5)
    done = subprocess.run(
        [sys.executable, "-c", ENDS + then, dcu.url, str(tmp_path / "data"), delete],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    if told is None:
        assert done.stderr == ""
    else:
        assert re.search(told, done.stderr), done.stderr
        assert " more had" not in done.stderr
    left = requests.get(f"{dcu.url}/filewriter/api/1.6.0/files", timeout=20).json()
    assert (left == []) == (delete != "" and not hangs)
