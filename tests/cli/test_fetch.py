"""`ophyd-eiger fetch`: what a process left behind comes home, whole, and nothing else changes."""

import contextlib
import errno
import functools
import io
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pexpect
import pytest
import requests
from click.testing import CliRunner
from file_server import serving
from foreign_dcu import ForeignDcu, Reply

import sim_dcu
from ophyd_eiger import EigerDetector, Timeouts, check, deleting, journal
from ophyd_eiger.cli import main
from ophyd_eiger.client import DcuClient
from ophyd_eiger.errors import EigerError, PreflightError, TransferError
from ophyd_eiger.fetching import OVERLAP

COMMAND = str(Path(sys.executable).with_name("ophyd-eiger"))
CLIENT = Path(__file__).with_name("client_to_be_killed.py")
NOTHING_IS_OWED = re.compile(r"nothing is owed; looked in .+\n")
MODES = ("series a point", "armed once", "fly")


@pytest.fixture
def dcu(request, tmp_path):
    time_scale = getattr(request, "param", 0)
    with sim_dcu.serve(
        "eiger-500k", time_scale=time_scale, seed=3, initialized=True, data_dir=tmp_path / "dcu"
    ) as server:
        yield server


def call(*arguments, status=0):
    done = CliRunner().invoke(main, ["fetch", *map(str, arguments)])
    assert done.exit_code == status, done.output
    return done


def answer(*arguments, status=0):
    return json.loads(call("--json", *arguments, status=status).stdout)


def left_behind(dcu, folder, *, files=1.0):
    """Take a point whose files do not come, as a process that ends then."""
    device = EigerDetector(dcu.url, name="eiger", directory=folder, timeouts=Timeouts(files=files))
    dcu.faults.set("refuse", status=503, path="GET data/*")
    device.stage().wait(20)
    device.trigger().wait(20)
    device.read()
    device.describe()
    for _, document in device.collect_asset_docs():
        document["run_start"] = "filled in by the RunEngine"
    with pytest.raises(TransferError):
        device.unstage().wait(20)
    device.destroy()
    dcu.faults.clear()


def contents(folder):
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if not path.name.startswith(".") and not path.name.endswith("_view.h5")
    }


def on_the_dcu(dcu):
    names = requests.get(f"{dcu.url}/filewriter/api/1.6.0/files", timeout=20).json()
    return {
        name: requests.get(f"{dcu.url}/data/{name}", timeout=20).content for name in names or ()
    }


def state(dcu):
    reply = requests.get(f"{dcu.url}/detector/api/1.6.0/status/state", timeout=20)
    return reply.json()["value"]


def test_nothing_is_owed(dcu, tmp_path):
    assert NOTHING_IS_OWED.fullmatch(call(dcu.url, "--directory", tmp_path).stdout)
    assert answer(dcu.url, "--directory", tmp_path)["fetched"] == []


@pytest.mark.parametrize("found_by", ["link", "folder"])
def test_what_a_process_left_comes_home(dcu, tmp_path, found_by, monkeypatch):
    if found_by == "folder":
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "no states"))
    left_behind(dcu, tmp_path / "data" / "deep")
    where = tmp_path
    if found_by == "link":
        where = tmp_path / "nothing here"
        where.mkdir()
    else:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "of another user"))
    looked = [] if found_by == "link" else ["--directory", where]
    monkeypatch.chdir(where)
    document = answer(dcu.url, *looked)
    assert len(document["fetched"]) == 2
    assert (document["owed"], document["errors"], document["busy"]) == ({}, [], [])
    assert contents(tmp_path / "data" / "deep") == on_the_dcu(dcu)
    (view,) = (tmp_path / "data" / "deep").glob("*_view.h5")
    with h5py.File(view) as file:
        assert np.array_equal(file["entry/data/data"][:], [dcu.image(1, 1)])
    assert NOTHING_IS_OWED.fullmatch(call(dcu.url, *looked).stdout)


def test_a_folder_is_looked_into_alone(dcu, tmp_path):
    left_behind(dcu, tmp_path / "data")
    (tmp_path / "other").mkdir()
    assert NOTHING_IS_OWED.fullmatch(call(dcu.url, "--directory", tmp_path / "other").stdout)
    assert len(answer(dcu.url, "--directory", tmp_path / "data")["fetched"]) == 2


def test_what_the_dcu_has_lost_is_named_until_it_is_given_up(dcu, tmp_path):
    left_behind(dcu, tmp_path / "data")
    names = sorted(on_the_dcu(dcu))
    for name in names:
        requests.delete(f"{dcu.url}/data/{name}", timeout=20).raise_for_status()
    looked = ("--directory", tmp_path, "--patience", "1")
    for _ in range(2):
        document = answer(dcu.url, *looked, status=1)
        assert [sorted(owed) for owed in document["owed"].values()] == [names]
        assert document["given_up"] == {}
    document = answer(dcu.url, *looked, "--give-up")
    assert [sorted(lost) for lost in document["given_up"].values()] == [names]
    assert (document["owed"], document["errors"]) == ({}, [])
    assert NOTHING_IS_OWED.fullmatch(call(dcu.url, *looked).stdout)


def fill_disks_of(folders, monkeypatch):
    """Leave no room for what journals in these folders say."""
    pwrite = os.pwrite

    def write(held, text, offset):
        path = Path(f"/proc/self/fd/{held}").readlink()
        if any(path.is_relative_to(folder) for folder in folders):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(held, text, offset)

    monkeypatch.setattr(journal.os, "pwrite", write)


@pytest.fixture
def states(tmp_path, monkeypatch):
    """Where the states of this test's user are."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "states"))
    return tmp_path / "states" / "ophyd-eiger" / "owed"


def hidden(folder):
    return sorted(path.name for path in folder.glob(".*"))


@pytest.mark.parametrize("full_from", ["before it", "its events on"])
@pytest.mark.parametrize("how", ["link", "folder", "given up", "both"])
def test_a_series_on_a_full_disk_is_known_to_the_next_process(
    dcu, tmp_path, states, monkeypatch, full_from, how
):
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with monkeypatch.context() as patch:
        if full_from == "before it":
            fill_disks_of([data], patch)
        else:
            begin = journal.Journals.begin
            patch.setattr(
                journal.Journals,
                "begin",
                lambda *of: (begin(*of), fill_disks_of([data], patch)),
            )
        left_behind(dcu, data)
    assert [path.is_symlink() for path in states.glob(".*")] == [False]
    assert hidden(data) == []
    monkeypatch.chdir(elsewhere)
    looked = []
    if how == "folder":
        looked = ["--directory", tmp_path / "data"]
        assert answer(dcu.url, "--directory", elsewhere)["fetched"] == []
    if how == "both":
        # As what could not be removed there; it says less.
        (path,) = states.glob(".*")
        shutil.copy(path, data)
    if how == "given up":
        for name in on_the_dcu(dcu):
            requests.delete(f"{dcu.url}/data/{name}", timeout=20).raise_for_status()
        given_up = answer(dcu.url, "--give-up", "--patience", "1")["given_up"]
        assert [len(names) for names in given_up.values()] == [2]
    else:
        document = answer(dcu.url, *looked)
        assert (document["owed"], document["errors"], document["busy"]) == ({}, [], [])
        assert contents(data) == on_the_dcu(dcu)
        (view,) = data.glob("*_view.h5")
        with h5py.File(view) as file:
            assert file["entry/data/data"].shape[0] == 1
    assert (hidden(data), hidden(states)) == ([], [])


def test_a_note_of_a_series_whose_disk_is_not_there_is_kept(dcu, tmp_path, states, monkeypatch):
    data = tmp_path / "data"
    with monkeypatch.context() as patch:
        fill_disks_of([data], patch)
        left_behind(dcu, data)
    disk = data.rename(tmp_path / "disk")
    # The folder in which it is mounted.
    data.mkdir()
    (name,) = hidden(states)
    monkeypatch.chdir(data)
    assert answer(dcu.url)["out_of_reach"] == [str(data / name)]
    assert hidden(states) == [name]
    data.rmdir()
    disk.rename(data)
    assert len(answer(dcu.url, "--directory", data)["fetched"]) == 2


def test_a_series_that_can_be_noted_nowhere_is_not_armed(dcu, tmp_path, states, monkeypatch):
    data = tmp_path / "data"
    device = EigerDetector(dcu.url, name="eiger", directory=data)
    fill_disks_of([data, states], monkeypatch)
    with pytest.raises(PreflightError, match="nothing was armed") as caught:
        device.stage().wait(20)
    assert f"{data}/." in str(caught.value)
    assert f"{states}/." in str(caught.value)
    device.destroy()
    assert on_the_dcu(dcu) == {}
    assert (hidden(data), hidden(states)) == ([], [])


def test_no_journal_elsewhere_says_where_files_go(dcu, tmp_path, states, monkeypatch):
    data = tmp_path / "data"
    with monkeypatch.context() as patch:
        fill_disks_of([data], patch)
        left_behind(dcu, data)
    (path,) = states.glob(".*")
    (tmp_path / "of another").mkdir()
    path.rename(tmp_path / "of another" / path.name)
    document = answer(dcu.url, "--directory", tmp_path / "of another", status=1)
    assert "it counts only in the state folder" in document["errors"][0]


def test_a_state_folder_that_cannot_be_written_is_told_with_the_way_to_find_series(
    dcu, tmp_path, monkeypatch, caplog
):
    (tmp_path / "a file").touch()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "a file"))
    monkeypatch.setattr("ophyd_eiger.journal._told_of_no_link", threading.Event())
    data = tmp_path / "data"
    for _ in range(2):
        left_behind(dcu, data, files=0.1)
    told = [r.message for r in caplog.records if "no link" in r.message and r.levelname != "DEBUG"]
    assert len(told) == 1
    assert f"--directory {data} " in told[0]
    monkeypatch.chdir(tmp_path / "elsewhere")
    states = tmp_path / "a file" / "ophyd-eiger" / "owed"
    assert call(dcu.url).stdout == (
        f"nothing is owed; looked in {states} and {tmp_path / 'elsewhere'} and below\n"
    )
    assert len(answer(dcu.url, "--directory", data)["fetched"]) == 4


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_journal_that_cannot_be_opened_is_not_said_to_be_broken(
    dcu, tmp_path, monkeypatch, number
):
    left_behind(dcu, tmp_path / "data")
    (path,) = (tmp_path / "data").glob(".*.owed")
    opened = os.open

    def refuse(name, flags, *more):
        if str(name) == str(path) and flags & os.O_RDWR:
            raise OSError(number, os.strerror(number), str(name))
        return opened(name, flags, *more)

    looked = ("--directory", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(journal.os, "open", refuse)
        (error,) = answer(dcu.url, *looked, status=1)["errors"]
    assert "remove" not in error
    assert f"{os.strerror(number)}); fetch as {path.owner()}, whose it is, or mount" in error
    assert len(answer(dcu.url, *looked)["fetched"]) == 2


def test_series_of_a_dcu_that_is_no_more_are_a_line_until_they_are_given_up(dcu, tmp_path):
    with sim_dcu.serve("eiger-500k", time_scale=0, initialized=True) as old:
        for _ in range(2):
            left_behind(old, tmp_path / "data", files=0.1)
        looked = ("--directory", tmp_path)
        assert (
            f"{old.url} is not gone: a DCU answers there"
            in call(old.url, *looked, "--gone", status=1).stderr
        )
        names = sorted(on_the_dcu(old))
    said = call(dcu.url, *looked)
    assert NOTHING_IS_OWED.fullmatch(said.stdout)
    assert said.stderr == (
        f"passed over: 2 series of other DCUs, {old.url} (2); --verbose lists them; of a DCU that "
        f"is no more: ophyd-eiger fetch {old.url} --gone\n"
    )
    journals = sorted(map(str, (tmp_path / "data").glob(".*.owed")))
    listed = call(dcu.url, *looked, "--verbose").stderr.splitlines()[1:]
    assert sorted(listed) == [f"  {old.url}: {path}" for path in journals]
    assert call(dcu.url, *looked, "--gone", status=1).stdout == ""
    given_up = answer(old.url, *looked, "--gone")["given_up"]
    assert sorted(name for lost in given_up.values() for name in lost) == names
    assert call(dcu.url, *looked).stderr == ""
    assert list((tmp_path / "data").glob(".*")) == []


def test_what_the_dcu_has_is_not_given_up(dcu, tmp_path):
    left_behind(dcu, tmp_path)
    dcu.faults.set("refuse", status=503, path="GET data/*")
    looked = ("--directory", tmp_path, "--patience", "1")
    document = answer(dcu.url, *looked, "--give-up", status=1)
    assert document["given_up"] == {}
    assert "503" in document["errors"][0]
    dcu.faults.clear()
    assert len(answer(dcu.url, *looked)["fetched"]) == 2


@pytest.mark.parametrize("served", ["HEAD", "GET"])
def test_no_list_alone_has_files_given_up(dcu, tmp_path, monkeypatch, served):
    left_behind(dcu, tmp_path)
    looked = ("--directory", tmp_path, "--patience", "1")
    # What the DCU has is not sent, and for a while it lists nothing.
    dcu.faults.set("refuse", status=503, path="GET data/*")
    if served == "GET":
        dcu.faults.set("refuse", status=404, path="HEAD data/*")
    with monkeypatch.context() as patch:
        patch.setattr(DcuClient, "files", lambda _: [])
        document = answer(dcu.url, *looked, "--give-up", status=1)
    assert document["given_up"] == {}
    assert [len(names) for names in document["owed"].values()] == [2]
    dcu.faults.clear()
    assert len(answer(dcu.url, *looked)["fetched"]) == 2


@pytest.mark.long
def test_a_series_that_left_nothing_is_told(dcu, tmp_path):
    """Its exposure failed with the DCU, so that no event names an image of it."""
    device = EigerDetector(
        dcu.url, name="eiger", directory=tmp_path, timeouts=Timeouts(files=1, get=20)
    )
    dcu.faults.set("die", image=1, back=0.5)
    device.stage().wait(20)
    with pytest.raises(EigerError):
        device.trigger().wait(20)
    with contextlib.suppress(EigerError):
        device.unstage().wait(20)
    device.destroy()
    wait_until_alive(dcu)
    said = call(dcu.url, "--directory", tmp_path).stdout
    assert re.fullmatch(
        r"eiger_\w+_1: no file of it is on the DCU, and no event names an image of it; "
        r"done with it\n",
        said,
    )
    assert NOTHING_IS_OWED.fullmatch(call(dcu.url, "--directory", tmp_path).stdout)


def wait_until_alive(dcu):
    for _ in range(2000):
        try:
            return state(dcu)
        except requests.ConnectionError:
            continue
    raise AssertionError("the DCU is not back")


def test_a_journal_that_says_nothing_is_told(dcu, tmp_path):
    (tmp_path / ".eiger_x_1.owed").touch()
    document = answer(dcu.url, "--directory", tmp_path, status=1)
    assert "this is no journal of a series" in document["errors"][0]
    assert document["errors"][0].endswith("then remove it")


def test_names_that_lead_elsewhere_are_not_fetched(dcu, tmp_path):
    """A DCU may list anything; what it names stays within the folder."""
    here = tmp_path / "here"
    here.mkdir()
    names = [
        "../outside.txt",
        str(tmp_path / "absolute.txt"),
        "n\0.txt",
        "n\ud800.txt",
        "inside.txt",
    ]

    def gap(request):
        if request.asks("GET filewriter files*"):
            return Reply.of(names)
        if request.asks("GET data*"):
            return Reply(200, b"content", "text/plain")
        return request.forward()

    proxy = ForeignDcu(dcu.url)
    proxy.gap = gap
    try:
        document = answer(proxy.url, "--all", "--directory", here, status=1)
    finally:
        proxy.close()
    errors = document["errors"]
    assert len(errors) == 4
    assert sum("it leads out of" in error for error in errors) == 2
    assert sum("no file can have this name" in error for error in errors) == 2
    assert [path.name for path in tmp_path.rglob("*.txt")] == ["inside.txt"]


def test_what_still_does_not_come_is_named(dcu, tmp_path):
    left_behind(dcu, tmp_path)
    dcu.faults.set("refuse", status=503, path="GET data/*_master.h5")
    document = answer(dcu.url, "--directory", tmp_path, "--patience", "1", status=1)
    ((series, names),) = document["owed"].items()
    assert names == [f"{series}_master.h5"]
    assert "503" in document["errors"][0]
    assert document["errors"][0].endswith("still there, and the same command brings it")
    assert [Path(each["file"]).name for each in document["fetched"]] == [f"{series}_data_000001.h5"]
    dcu.faults.clear()
    assert len(answer(dcu.url, "--directory", tmp_path)["fetched"]) == 1


def test_a_living_process_is_left_its_files(dcu, tmp_path):
    device = EigerDetector(dcu.url, name="eiger", directory=tmp_path)
    dcu.faults.set("refuse", status=503, path="GET data/*")
    device.stage().wait(20)
    device.trigger().wait(20)
    document = answer(dcu.url, "--directory", tmp_path)
    assert document["fetched"] == []
    assert len(document["busy"]) == 1
    said = call(dcu.url, "--directory", tmp_path).stdout
    assert said.startswith("nothing else is owed\nleft to the process that takes it: ")
    dcu.faults.clear()
    device.unstage().wait(20)
    device.destroy()


def test_deleted_on_the_dcu_if_asked(dcu, tmp_path):
    left_behind(dcu, tmp_path / "data")
    before = on_the_dcu(dcu)
    assert len(answer(dcu.url, "--directory", tmp_path, "--delete")["fetched"]) == 2
    assert on_the_dcu(dcu) == {}
    assert contents(tmp_path / "data") == before


ARMED = """
import os, sys
from ophyd_eiger import EigerDetector

eiger = EigerDetector(sys.argv[1], name="eiger", directory=sys.argv[2])
eiger.configure({"nimages": 1, "ntrigger": 5})
eiger.stage().wait(20)
eiger.trigger().wait(20)
eiger.trigger().wait(20)
os._exit(9)
"""


def test_a_detector_that_waits_for_its_triggers_is_disarmed(dcu, tmp_path):
    """Only a disarm writes the last file."""
    done = subprocess.run(
        [sys.executable, "-c", ARMED, dcu.url, str(tmp_path / "data")],
        timeout=60,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 9, done.stderr
    assert state(dcu) == "ready"
    assert len(answer(dcu.url, "--directory", tmp_path)["fetched"]) == 2
    assert state(dcu) == "idle"
    (data,) = (tmp_path / "data").glob("*_data_*.h5")
    with h5py.File(data) as file:
        assert np.array_equal(file["entry/data/data"][:], [dcu.image(1, 1), dcu.image(1, 2)])


ARMING = """
import os, sys
from ophyd_eiger import EigerDetector
from ophyd_eiger.arming import Arming
from ophyd_eiger.journal import Journals

url, folder, moment = sys.argv[1:]
owner, name = {"before": (Arming, "_send_arm"), "after": (Journals, "begin")}[moment]
setattr(owner, name, lambda *_: os._exit(9))
eiger = EigerDetector(url, name="eiger", directory=folder)
eiger.configure({"trigger_mode": "exts", "nimages": 2, "ntrigger": 3})
eiger.stage().wait(20)
eiger.trigger().wait(20)
"""


def killed_while_it_armed(dcu, folder, moment):
    """End a process before it sends arm, or before it notes the id that arm answers."""
    command = [sys.executable, "-c", ARMING, dcu.url, str(folder), moment]
    done = subprocess.run(command, timeout=60, capture_output=True, text=True, check=False)
    assert done.returncode == 9, done.stderr
    (noted,) = folder.glob(".*.owed")
    assert noted.name.endswith("_arming.owed")


def pulse(dcu):
    for _ in range(100_000):
        if dcu.pulse():
            return
    raise AssertionError("the detector takes no signal")


@pytest.mark.long
def test_a_detector_whose_process_was_killed_while_it_armed_is_disarmed(dcu, tmp_path):
    """Signals from outside have exposed images meanwhile, of which no event tells."""
    killed_while_it_armed(dcu, tmp_path / "data", "after")
    for _ in range(2):
        pulse(dcu)
    assert len(answer(dcu.url, "--directory", tmp_path)["fetched"]) == 2
    assert state(dcu) == "idle"
    assert contents(tmp_path / "data") == on_the_dcu(dcu)
    (data,) = (tmp_path / "data").glob("*_data_*.h5")
    with h5py.File(data) as file:
        assert np.array_equal(file["entry/data/data"][:], [dcu.image(1, n) for n in range(1, 5)])
    assert NOTHING_IS_OWED.fullmatch(call(dcu.url, "--directory", tmp_path).stdout)
    assert list((tmp_path / "data").glob(".*")) == []


@pytest.mark.long
def test_images_of_signals_whose_file_is_late_are_waited_for(dcu, tmp_path):
    """No event tells of them, nor any trigger of the process that ended."""
    dcu.faults.set("file-late:seconds=2,file=1")
    killed_while_it_armed(dcu, tmp_path / "data", "after")
    for _ in range(2):
        pulse(dcu)
    assert len(answer(dcu.url, "--directory", tmp_path)["fetched"]) == 2
    assert contents(tmp_path / "data") == on_the_dcu(dcu)


def test_a_short_file_of_triggers_that_no_event_tells_of_is_told(dcu, tmp_path):
    device = EigerDetector(
        dcu.url, name="eiger", directory=tmp_path / "data", timeouts=Timeouts(files=1)
    )
    device.configure({"nimages": 3})
    dcu.faults.set("file-short")
    device.stage().wait(20)
    device.trigger().wait(20)
    with pytest.raises(TransferError):
        device.unstage().wait(20)
    device.destroy()
    document = answer(dcu.url, "--directory", tmp_path, status=1)
    assert "2 images came home, 3 were taken" in document["errors"][0]
    assert contents(tmp_path / "data") == on_the_dcu(dcu)


@pytest.mark.long
def test_a_list_that_is_empty_for_a_moment_gives_up_nothing(dcu, tmp_path, monkeypatch):
    killed_while_it_armed(dcu, tmp_path / "data", "after")
    pulse(dcu)
    asked, listed = itertools.count(1), DcuClient.files
    monkeypatch.setattr(
        DcuClient, "files", lambda client: [] if next(asked) <= 8 else listed(client)
    )
    assert len(answer(dcu.url, "--directory", tmp_path)["fetched"]) == 2
    assert contents(tmp_path / "data") == on_the_dcu(dcu)


@pytest.mark.long
def test_an_arm_that_comes_after_its_process_was_killed_is_ended(dcu, tmp_path):
    killed_while_it_armed(dcu, tmp_path / "data", "before")
    with contextlib.closing(DcuClient(dcu.url)) as gateway:
        arm = threading.Timer(1.5, gateway.command, ["detector", "arm"], {"timeout": 20})
        arm.start()
        answer(dcu.url, "--directory", tmp_path)
        arm.join(20)
    assert state(dcu) == "idle"
    assert NOTHING_IS_OWED.fullmatch(call(dcu.url, "--directory", tmp_path).stdout)
    assert list((tmp_path / "data").glob(".*")) == []


@pytest.mark.long
def test_of_a_process_that_was_killed_before_it_armed_nothing_is_owed(dcu, tmp_path):
    killed_while_it_armed(dcu, tmp_path / "data", "before")
    assert NOTHING_IS_OWED.fullmatch(call(dcu.url, "--directory", tmp_path).stdout)
    assert list((tmp_path / "data").glob(".*")) == []


@pytest.mark.long
def test_what_others_armed_after_a_process_was_killed_while_it_armed_is_left_alone(dcu, tmp_path):
    """They have left the name pattern as it was, so that their ids follow."""
    killed_while_it_armed(dcu, tmp_path / "data", "after")
    pulse(dcu)
    with contextlib.closing(DcuClient(dcu.url)) as other:
        other.command("detector", "disarm", timeout=20)
        other.command("detector", "arm", timeout=20)
        assert len(answer(dcu.url, "--directory", tmp_path)["fetched"]) == 2
        assert state(dcu) == "ready"
        other.command("detector", "disarm", timeout=20)
    assert {name.split("_")[2] for name in contents(tmp_path / "data")} == {"1"}


def test_a_detector_that_others_armed_since_is_left_alone(dcu, tmp_path):
    left_behind(dcu, tmp_path)
    device = EigerDetector(dcu.url, name="eiger", directory=tmp_path / "new")
    device.stage().wait(20)
    assert len(answer(dcu.url, "--directory", tmp_path)["fetched"]) == 2
    assert state(dcu) == "ready"
    device.unstage().wait(20)
    device.destroy()


def test_a_series_whose_folder_was_removed_comes_by_its_name(dcu, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "states"))
    left_behind(dcu, tmp_path / "data")
    (journal,) = (tmp_path / "data").glob(".*.owed")
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    said = call(dcu.url, "--verbose")
    assert said.stdout == "nothing else is owed\n"
    assert f"1 series whose notes of what they owe are not there, in {tmp_path}/data; mount" in (
        said.stderr
    )
    assert f"\n  {journal}\n" in said.stderr
    assert answer(dcu.url)["out_of_reach"] == [str(journal)]
    (name,) = re.findall(r"comes by name, as '(\S+)'", said.stderr)
    assert len(answer(dcu.url, name)["fetched"]) == 2
    assert contents(tmp_path / "elsewhere") == on_the_dcu(dcu)
    # A bare folder may be where a disk is to be mounted.
    (tmp_path / "data").mkdir()
    assert answer(dcu.url)["out_of_reach"] == [str(journal)]
    (forget,) = re.findall(r"it is forgotten with its link: (rm .+)", said.stderr)
    subprocess.run(forget, shell=True, check=True)
    assert NOTHING_IS_OWED.fullmatch(call(dcu.url).output)


def test_of_a_series_that_another_user_brought_home_nothing_is_told(dcu, tmp_path, monkeypatch):
    """Only the link of whoever took it is left, and that leads to nothing."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "states"))
    left_behind(dcu, tmp_path / "data")
    with monkeypatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path / "of another user"))
        assert len(answer(dcu.url, "--directory", tmp_path / "data")["fetched"]) == 2
    monkeypatch.chdir(tmp_path / "states")
    assert NOTHING_IS_OWED.fullmatch(call(dcu.url).output)


def test_a_folder_that_is_not_there_is_made_for_files_and_has_no_series(dcu, tmp_path):
    left_behind(dcu, tmp_path / "data")
    new = tmp_path / "not" / "yet"
    said = call(dcu.url, "--directory", new, status=2)
    assert f"{new} is not there, and so no series in it" in said.stderr
    assert not new.parent.exists()
    assert len(answer(dcu.url, "*", "--directory", new)["fetched"]) == 2
    assert contents(new) == on_the_dcu(dcu)
    said = call(dcu.url, "*", "--directory", next(new.iterdir()) / "below", status=1)
    assert "this folder cannot be made" in said.stderr


def test_files_by_name(dcu, tmp_path):
    left_behind(dcu, tmp_path / "data")
    there = on_the_dcu(dcu)
    document = answer(dcu.url, "*_master.h5", "no such", "--directory", tmp_path, status=1)
    assert [Path(each["file"]).parent for each in document["fetched"]] == [tmp_path]
    assert document["errors"] == ["no such: the DCU lists no such file"]
    fetched = answer(dcu.url, "--all", "--directory", tmp_path)["fetched"]
    assert [each["images"] for each in fetched] == [1, 0]
    assert {name: (tmp_path / name).read_bytes() for name in there} == there


def test_names_with_folders(dcu, tmp_path, monkeypatch):
    """Each folder's name is on the disk before the only other copy is deleted."""
    put = functools.partial(requests.put, timeout=20)
    put(f"{dcu.url}/filewriter/api/1.6.0/config/name_pattern", json={"value": "sub/deep/x_$id"})
    for command in ("arm", "trigger", "disarm"):
        put(f"{dcu.url}/detector/api/1.6.0/command/{command}")
    there, home, kept = on_the_dcu(dcu), tmp_path / "home", []
    assert sorted(there) == ["sub/deep/x_1_data_000001.h5", "sub/deep/x_1_master.h5"]

    def noting(folder, keep_names=deleting.keep_names):
        kept.append((folder, len(on_the_dcu(dcu))))
        keep_names(folder)

    monkeypatch.setattr(deleting, "keep_names", noting)
    document = answer(dcu.url, "--all", "--directory", home)
    assert len(document["fetched"]) == 2
    assert {name: (home / name).read_bytes() for name in there} == there
    again = tmp_path / "again"
    assert len(answer(dcu.url, "sub/*_data_*", "--delete", "--directory", again)["fetched"]) == 1
    assert set(kept) == {(again / "sub" / "deep", 2), (again / "sub", 2), (again, 2)}
    assert sorted(on_the_dcu(dcu)) == ["sub/deep/x_1_master.h5"]


def test_a_file_by_name_goes_on_where_its_connection_broke(tmp_path):
    content = random.Random(3).randbytes(300_000)
    with serving({"notes.txt": content}, breaks=[200_000]) as server:
        (came,) = answer(server.url, "notes.txt", "--directory", tmp_path)["fetched"]
    assert came["bytes"] == len(content)
    assert (tmp_path / "notes.txt").read_bytes() == content
    (first, again) = server.asked
    assert first == ("notes.txt", None)
    # The end of what is here comes once more, and is compared.
    assert 0 < again[1] < 200_000


def test_files_by_name_are_waited_for_as_long_as_something_comes(tmp_path):
    """One connection after the other breaks, and from the fourth on nothing new comes."""
    content = random.Random(3).randbytes(300_000)
    breaks = [200_000, 70_000, *[0] * 10_000]
    with serving({"notes.txt": content}, breaks=breaks) as server:
        command = (server.url, "*", "--directory", tmp_path, "--patience", "0.3")
        document = answer(*command, status=1)
    (error,) = document["errors"]
    assert error.startswith("notes.txt: ")
    assert "the connection was lost" in error
    assert [start for _, start in server.asked[:2]] == [None, 200_000 - OVERLAP]
    assert {start for _, start in server.asked[2:]} == {204_464 - OVERLAP}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("gone", [True, False])
def test_a_dcu_that_is_gone_is_not_waited_for_with_each_file(dcu, tmp_path, gone):
    put = functools.partial(requests.put, timeout=20)
    for name, value in (("nimages", 3), ("frame_time", 0.02), ("count_time", 0.01)):
        put(f"{dcu.url}/detector/api/1.6.0/config/{name}", json={"value": value})
    put(f"{dcu.url}/filewriter/api/1.6.0/config/nimages_per_file", json={"value": 1})
    for command in ("arm", "trigger", "disarm"):
        put(f"{dcu.url}/detector/api/1.6.0/command/{command}")
    names = sorted(on_the_dcu(dcu))
    assert len(names) == 4
    files = dcu.faults.set("hang", path=f"GET data/{'*' if gone else names[0]}")
    if gone:
        dcu.faults.set("hang", path="GET filewriter/*/files", after=1)
    looked = (dcu.url, "--all", "--directory", tmp_path, "--patience", "0.5")
    document = answer(*looked, "--timeout", "0.5", status=1)
    # In the order of their names, of which the first is tried.
    assert [each.partition(": ")[0] for each in document["errors"]] == names[: 4 if gone else 1]
    assert len(document["fetched"]) == (0 if gone else 3)
    assert files.struck < 4
    assert all(": not fetched: GET " in each for each in document["errors"][1:])


def test_what_went_wrong_is_told_where_nothing_can_be_removed(tmp_path, monkeypatch):
    def refuse(path, missing_ok=False, unlink=Path.unlink):
        if path.suffix == ".part":
            raise PermissionError(errno.EACCES, "cannot be removed", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    with serving({"notes.txt": bytes(300_000)}, breaks=[200_000, *[0] * 10_000]) as server:
        command = (server.url, "*", "--directory", tmp_path, "--patience", "0.3")
        (error,) = answer(*command, status=1)["errors"]
    assert "the connection was lost" in error


def test_ctrl_c_leaves_nothing_of_a_file_by_name(tmp_path):
    with serving({"notes.txt": bytes(300_000)}, drips=200_000) as server:
        command = [COMMAND, "fetch", server.url, "--all", "--directory", str(tmp_path)]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
            until = time.monotonic() + 60
            while not any(part.stat().st_size for part in tmp_path.glob(".*.part")):
                assert time.monotonic() < until
                # It goes on meanwhile.
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(0.02)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
    assert b"interrupted" in said
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_would_be_a_pattern_is_a_name_first(dcu, tmp_path):
    put = functools.partial(requests.put, timeout=20)
    put(f"{dcu.url}/filewriter/api/1.6.0/config/name_pattern", json={"value": "lyso[1]_$id"})
    for command in ("arm", "trigger", "disarm"):
        put(f"{dcu.url}/detector/api/1.6.0/command/{command}")
    name = "lyso[1]_1_master.h5"
    (came,) = answer(dcu.url, name, "--directory", tmp_path)["fetched"]
    assert came["file"] == str(tmp_path / name)
    said = answer(dcu.url, "lyso[2]_1_master.h5", "--directory", tmp_path, status=1)
    assert said["errors"] == ["lyso[2]_1_master.h5: the DCU lists no such file"]


def test_what_cannot_be_decompressed_is_not_deleted_on_the_dcu(dcu, tmp_path):
    # Its blocks are as long as they say.
    dcu.faults.set("file-corrupt:file=1,image=1")
    left_behind(dcu, tmp_path / "data")
    document = answer(dcu.url, "--all", "--delete", "--directory", tmp_path, status=1)
    (name,) = on_the_dcu(dcu)
    assert name.endswith("_data_000001.h5")
    assert [Path(each["file"]).name[-9:] for each in document["fetched"]] == ["master.h5"]
    assert document["errors"][0].startswith(f"{name}: ")
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("damage", ["a block", "no images"])
def test_a_broken_master_with_its_images_is_not_deleted_on_the_dcu(dcu, tmp_path, damage):
    version = requests.get(f"{dcu.url}/detector/api/version", timeout=20).json()["value"]
    put = functools.partial(requests.put, timeout=20)
    put(f"{dcu.url}/filewriter/api/{version}/config/nimages_per_file", json={"value": 0})
    for command in ("arm", "trigger", "disarm"):
        put(f"{dcu.url}/detector/api/{version}/command/{command}")
    (master,) = (tmp_path / "dcu").glob("*_master.h5")
    with h5py.File(master, "r+") as file:
        images = file["entry/data/data"]
        place = images.id.get_chunk_info(0).byte_offset
        if damage == "no images":
            del file["entry/data/data"]
    if damage == "a block":
        with master.open("r+b") as file:
            file.seek(place + 12)
            file.write(b"\xff\xff\xff\xff")
    document = answer(dcu.url, "*", "--delete", "--directory", tmp_path / "home", status=1)
    assert master.exists()
    (said,) = document["errors"]
    assert said.startswith(f"{master.name}: ")
    why = "image 1 of 1 is broken" if damage == "a block" else "neither images found in it, nor"
    assert why in said
    # Without --delete it comes, but for images that no reader could read.
    whole = damage == "no images"
    document = answer(dcu.url, "*", "--directory", tmp_path / "home", status=0 if whole else 1)
    assert len(document["fetched"]) == whole


def test_a_master_that_came_otherwise_than_it_is_is_not_deleted_on_the_dcu(dcu, tmp_path):
    """One byte of a number changed on its way: nothing in the file tells it."""
    left_behind(dcu, tmp_path)
    spoiled = []

    def gap(request):
        reply = request.forward()
        if request.asks("GET data *_master.h5") and not spoiled:
            with h5py.File(io.BytesIO(reply.body)) as file:
                place = file["entry/instrument/detector/count_time"].id.get_offset()
            spoiled.append(place)
            changed = bytes([reply.body[place] ^ 1])
            reply = replace(reply, body=reply.body[:place] + changed + reply.body[place + 1 :])
        return reply

    proxy = ForeignDcu(dcu.url)
    proxy.gap = gap
    home = ("*_master.h5", "--delete", "--directory", tmp_path / "home")
    try:
        document = answer(proxy.url, *home, status=1)
        assert document["fetched"] == []
        assert "the DCU sent other bytes" in document["errors"][0]
        assert list((tmp_path / "home").glob("*.h5")) == []
        assert len(answer(proxy.url, *home)["fetched"]) == 1
    finally:
        proxy.close()


def take_series(dcu, *, count_time=0.5):
    """Take series 1, as a client that begins with initialize, from which on ids count anew."""
    put = functools.partial(requests.put, timeout=20)
    put(f"{dcu.url}/detector/api/1.6.0/command/initialize").raise_for_status()
    setting = f"{dcu.url}/detector/api/1.6.0/config/count_time"
    put(setting, json={"value": count_time}).raise_for_status()
    for command in ("arm", "trigger", "disarm"):
        put(f"{dcu.url}/detector/api/1.6.0/command/{command}").raise_for_status()


@pytest.mark.parametrize("which", ["another series", "one of its size", "another version"])
def test_a_file_that_took_its_name_meanwhile_is_not_deleted(dcu, tmp_path, monkeypatch, which):
    """Decompressing takes its time, in which a DCU that counts anew may give a name again."""
    take_series(dcu)
    name = "series_1_data_000001.h5"
    first, there = on_the_dcu(dcu)[name], tmp_path / "dcu" / name
    versions = ["first"]

    def gap(request):
        # It knows neither HEAD nor ranges.
        if request.asks("HEAD *"):
            return Reply(501)
        reply = request.forward()
        return replace(reply, etag=versions[-1]) if which == "another version" else reply

    def check_while_it_is_replaced(path, check=check.check_pixels):
        check(path)
        versions.append("second")
        if which == "another series":
            take_series(dcu, count_time=0.25)
        elif which == "one of its size":
            with there.open("r+b") as file:
                file.seek(-1, os.SEEK_END)
                file.write(bytes([first[-1] ^ 1]))

    monkeypatch.setattr(check, "check_pixels", check_while_it_is_replaced)
    home = (name, "--delete", "--directory", tmp_path / "home")
    proxy = ForeignDcu(dcu.url)
    proxy.gap = gap
    try:
        # What serves ranges is compared from its end alone.
        document = answer(proxy.url if which == "another version" else dcu.url, *home, status=1)
        assert document["errors"] == [f"{name} stays on the DCU: it is another file by now"]
        assert (tmp_path / "home" / name).read_bytes() == first
        assert (there.read_bytes() == first) == (which == "another version")
        # Without what replaces it, it is deleted.
        monkeypatch.undo()
        fetched = answer(proxy.url, *home[:-1], tmp_path / "again")["fetched"]
        assert len(fetched) == 1
        assert not there.exists()
    finally:
        proxy.close()


def test_what_is_gone_before_it_is_deleted_is_no_error(dcu, tmp_path, monkeypatch):
    take_series(dcu)
    name = "series_1_data_000001.h5"

    def check_while_it_is_deleted(path, check=check.check_pixels):
        check(path)
        requests.delete(f"{dcu.url}/data/{name}", timeout=20).raise_for_status()

    monkeypatch.setattr(check, "check_pixels", check_while_it_is_deleted)
    (came,) = answer(dcu.url, name, "--delete", "--directory", tmp_path / "home")["fetched"]
    assert came["images"] == 1


def test_what_was_here_before_is_not_deleted_on_the_dcu(dcu, tmp_path):
    left_behind(dcu, tmp_path / "data")
    there = on_the_dcu(dcu)
    # It may be the DCU's own folder.
    document = answer(dcu.url, "--all", "--delete", "--directory", tmp_path / "dcu", status=1)
    assert on_the_dcu(dcu) == there
    assert len(document["errors"]) == 2
    assert "was here before it was fetched" in document["errors"][0]


def test_what_is_still_exposed_is_owed(dcu, tmp_path, monkeypatch):
    left_behind(dcu, tmp_path / "data")
    with monkeypatch.context() as patch:
        patch.setattr("ophyd_eiger.owed.end_if_left_armed", lambda *_: "it is still being exposed")
        said = call(dcu.url, "--directory", tmp_path, status=1).output
    assert "it is still being exposed" in said
    assert "nothing is owed" not in said
    assert len(answer(dcu.url, "--directory", tmp_path)["fetched"]) == 2


def test_what_a_process_left_that_was_killed_once_a_file_had_its_name_is_removed(dcu, tmp_path):
    data = tmp_path / "data"
    left_behind(dcu, data)
    (name, *_) = (name for name in on_the_dcu(dcu) if "_data_" in name)
    (data / name).write_bytes(on_the_dcu(dcu)[name])
    (data / f".{name}.lock").touch()
    document = answer(dcu.url, "--directory", tmp_path)
    assert (document["owed"], document["errors"]) == ({}, [])
    assert contents(data).items() >= on_the_dcu(dcu).items()
    assert list(data.glob(".*")) == []


def test_what_does_not_end_for_one_series_is_not_waited_for_again(dcu, tmp_path, monkeypatch):
    for folder in ("data", "more"):
        left_behind(dcu, tmp_path / folder)
    patiences = []

    def never_ends(client, delivery, patience):
        patiences.append(patience)
        return "its files are still being written"

    monkeypatch.setattr("ophyd_eiger.owed.end_if_left_armed", never_ends)
    said = call(dcu.url, "--directory", tmp_path, "--patience", "7", status=1).output
    assert said.count("its files are still being written") == 2
    assert patiences == [7, 0]


def test_a_file_of_the_name_is_not_overwritten(dcu, tmp_path):
    left_behind(dcu, tmp_path / "data")
    (name, *_) = on_the_dcu(dcu)
    (tmp_path / name).write_text("mine")
    document = answer(dcu.url, name, "--directory", tmp_path, status=1)
    assert "not overwritten" in document["errors"][0]
    assert (tmp_path / name).read_text() == "mine"


def test_a_terminal_shows_how_far_it_is(dcu, tmp_path):
    left_behind(dcu, tmp_path / "data")
    total = sum(len(content) for content in on_the_dcu(dcu).values())
    dcu.faults.set("late", seconds=2, path="GET data/*_data_*")
    command = ["fetch", dcu.url, "--all", "--directory", str(tmp_path)]
    with pexpect.spawn(
        COMMAND,
        command,
        env={**os.environ, "TERM": "xterm-256color"},
        encoding="utf-8",
        timeout=30,
        dimensions=(24, 120),
    ) as end:
        end.expect(rf"file \d of 2\D.*/{total / 1e6:.1f} MB")
        end.expect("2 files, ")
        end.expect(pexpect.EOF)


def test_ctrl_c_waits_for_no_questions_of_a_progress_bar(dcu, tmp_path):
    """How large 40 files are takes the DCU 20 s to say; none of that is waited for."""
    device = EigerDetector(dcu.url, name="eiger", directory=tmp_path / "there")
    device.configure({"nimages": 40, "filewriter.nimages_per_file": 1})
    device.stage().wait(20)
    device.trigger().wait(20)
    device.unstage().wait(60)
    device.destroy()
    dcu.faults.set("late", seconds=0.5, path="HEAD data/*")
    dcu.faults.set("hang", path="GET data/*_data_*")
    command = ["fetch", dcu.url, "--all", "--directory", str(tmp_path / "here")]
    with pexpect.spawn(
        COMMAND,
        command,
        env={**os.environ, "TERM": "xterm-256color"},
        encoding="utf-8",
        timeout=10,
        dimensions=(24, 120),
    ) as end:
        end.expect(r"file \d+ of 41", timeout=60)
        end.sendintr()
        end.expect(pexpect.EOF)


def test_no_dcu(tmp_path):
    call("127.0.0.1:9", "--directory", tmp_path, status=3)


def killed(dcu, folder, mode, delete, moment):
    """Kill a scan so many s after its first document, or let it end; return its output."""
    command = [sys.executable, CLIENT, dcu.url, folder, mode, delete]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said == "start\n"
        timer = threading.Timer(moment, process.kill)
        timer.start()
        said += process.stdout.read()
        timer.cancel()
    return said


TRIGGERED = """
import os, sys
from ophyd_eiger import EigerDetector, FilePolicy
url, folder, delete, per_file = sys.argv[1:]
eiger = EigerDetector(
    url, name="eiger", directory=folder, file_policy=FilePolicy(delete_on_dcu=delete == "delete")
)
eiger.configure({"nimages": 10, "filewriter.nimages_per_file": int(per_file)})
eiger.stage().wait(20)
eiger.trigger().wait(20)
os._exit(9)
"""


def killed_after_a_trigger(dcu, folder, *, per_file=5, delete="keep"):
    """Take ten images in a process that ends before any event names them."""
    command = [sys.executable, "-c", TRIGGERED, dcu.url, str(folder), delete, str(per_file)]
    done = subprocess.run(command, timeout=60, capture_output=True, text=True, check=False)
    assert done.returncode == 9, done.stderr


@pytest.mark.long
@pytest.mark.parametrize(("per_file", "late"), [(5, 1), (5, 2), (0, 0)])
def test_files_that_are_late_after_a_kill_are_waited_for(dcu, tmp_path, per_file, late):
    dcu.faults.set("file-late", file=late, seconds=6)
    killed_after_a_trigger(dcu, tmp_path / "data", per_file=per_file)
    document = answer(dcu.url, "--directory", tmp_path, "--patience", "60")
    assert (document["owed"], document["errors"]) == ({}, [])
    assert len(document["fetched"]) == (3 if per_file else 1)
    assert contents(tmp_path / "data") == on_the_dcu(dcu)


@pytest.mark.long
def test_a_file_that_never_comes_after_a_kill_is_named(dcu, tmp_path):
    dcu.faults.set("file-missing", file=1)
    killed_after_a_trigger(dcu, tmp_path / "data")
    looked = ("--directory", tmp_path, "--patience", "1")
    for _ in range(2):
        document = answer(dcu.url, *looked, status=1)
        ((series, owed),) = document["owed"].items()
        assert owed == [f"{series}_data_000001.h5"]
    assert contents(tmp_path / "data") == on_the_dcu(dcu)
    assert list(answer(dcu.url, *looked, "--give-up")["given_up"]) == [series]
    assert NOTHING_IS_OWED.fullmatch(call(dcu.url, *looked).stdout)


def test_a_short_file_before_another_is_not_deleted_on_the_dcu(dcu, tmp_path):
    """Whatever ended the series early, only its last file may have fewer images than set."""
    dcu.faults.set("file-short", file=1, missing=2)
    killed_after_a_trigger(dcu, tmp_path / "data", delete="delete")
    for _ in range(2):
        document = answer(dcu.url, "--directory", tmp_path, "--patience", "1", status=1)
        ((series, owed),) = document["owed"].items()
        assert owed == [f"{series}_data_000001.h5"]
        assert "3 images found, 5 expected" in document["errors"][0]
        assert f"{series}_data_000001.h5" in on_the_dcu(dcu)


def test_a_view_that_cannot_be_written_is_not_given_up(dcu, tmp_path):
    """Its series has lost nothing; a directory of its name stands for a disk that takes none."""
    left_behind(dcu, tmp_path)
    (journal,) = tmp_path.glob(".*.owed")
    view = tmp_path / f"{journal.name[1:].removesuffix('.owed')}_view.h5"
    view.unlink(missing_ok=True)
    view.mkdir()
    (view / "something").touch()
    for more in ([], ["--give-up"]):
        document = answer(dcu.url, "--directory", tmp_path, *more, status=1)
        assert document["given_up"] == {}
        assert list(document["owed"].values()) == [[view.name]]
    shutil.rmtree(view)
    answer(dcu.url, "--directory", tmp_path)
    with h5py.File(view) as file:
        assert np.array_equal(file["entry/data/data"][:], [dcu.image(1, 1)])


def test_a_client_that_writes_no_files_is_not_disarmed(dcu, tmp_path):
    """The name pattern is still the one of the series whose process was killed while armed."""
    done = subprocess.run(
        [sys.executable, "-c", ARMED, dcu.url, str(tmp_path)], timeout=60, check=False
    )
    assert done.returncode == 9
    with contextlib.closing(DcuClient(dcu.url)) as other:
        other.command("detector", "disarm", timeout=20)
        other.put("filewriter", "config/mode", "disabled")
        other.put("stream", "config/mode", "enabled")
        other.command("detector", "arm", timeout=20)
        assert len(answer(dcu.url, "--directory", tmp_path)["fetched"]) == 2
        assert state(dcu) == "ready"
        other.command("detector", "disarm", timeout=20)


@pytest.mark.parametrize("line", ['{"settings": null}', "[" * 100_000], ids=["no settings", "deep"])
def test_a_damaged_journal_stops_no_other(dcu, tmp_path, line):
    left_behind(dcu, tmp_path)
    (tmp_path / ".eiger_x_1.owed").write_text(line + "\n")
    document = answer(dcu.url, "--directory", tmp_path, status=1)
    assert len(document["fetched"]) == 2
    assert "this is no journal of a series" in document["errors"][0]


@pytest.mark.parametrize("dcu", [1], indirect=True)
@pytest.mark.parametrize(
    "seed",
    [pytest.param(seed, marks=[] if seed == 0 else pytest.mark.long) for seed in range(21)],
)
@pytest.mark.timeout(180)
def test_kill_9_at_any_moment(instant_puts, dcu, tmp_path, seed):
    """A new process completes every series; no half file has a name, nothing is lost."""
    mode, delete, data = MODES[seed % 3], ("delete", "keep")[seed % 2], tmp_path / "data"
    said = killed(dcu, data, mode, delete, random.Random(seed).uniform(0.0, 1.2))
    named = contents(data)
    for name in named:
        h5py.File(data / name).close()
    document = answer(dcu.url, "--directory", tmp_path)
    assert (document["owed"], document["errors"], document["busy"]) == ({}, [], [])
    assert list(data.glob(".*")) == []
    here, there = contents(data), on_the_dcu(dcu)
    # Killed while the detector was being armed, a series has no id yet, and no image.
    without_images = {name for name in there.keys() - here.keys() if name.endswith("_master.h5")}
    assert len(without_images) <= 1
    assert there.items() - {(name, there[name]) for name in without_images} <= here.items()
    for name in without_images:
        assert name.replace("_master.h5", "_data_000001.h5") not in here
    assert named.items() <= here.items()
    images: dict[int, list] = {}
    for path in sorted(data.glob("*_data_*.h5")):
        series_id = int(re.fullmatch(r"eiger_\w+_(\d+)_data_\d+\.h5", path.name)[1])
        with h5py.File(path) as file:
            images.setdefault(series_id, []).extend(file["entry/data/data"][:])
    for series_id, of_series in images.items():
        for number, image in enumerate(of_series, start=1):
            assert np.array_equal(image, dcu.image(series_id, number))
    shown = 0
    for path in sorted(data.glob("*_view.h5")):
        with h5py.File(path) as file:
            assert list(file["entry/data/data"].attrs["missing"]) == []
            shown += len(file["entry/data/data"])
    # Each event that was emitted has its images in a view.
    assert shown >= (2 if mode == "fly" else 3) * said.count("event\n")
