"""A copy at home: whose folder it is in, how it is proven, what becomes of the DCU's file."""

import contextlib
import errno
import functools
import os
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import bluesky.plans as bp
import h5py
import numpy as np
import pytest
import requests
from file_server import serving
from owing import SHORT, named, refuse_files, take

import sim_dcu
from ophyd_eiger import EigerDetector, FilePolicy, bringing, deleting
from ophyd_eiger.bringing import Bringer, disk_of
from ophyd_eiger.client import DcuClient
from ophyd_eiger.deleting import Deletions
from ophyd_eiger.deliveries import Delivery
from ophyd_eiger.errors import FileError, TransferError
from ophyd_eiger.telling import TellingCondition

# Of each test's cases the short run takes every 2nd, see conftest.
SHORT_RUN_EVERY = 2


def delete(client, delivery, file):
    """Delete on the DCU what is home, as after its copy has its name."""
    deletions = Deletions(client, "eiger", TellingCondition())
    deletions.queue(delivery, file)
    deletions.wait(20)


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


@pytest.mark.long
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


def test_nothing_is_deleted_from_the_dcu_whose_copy_is_on_another_disk(
    dcu, device, monkeypatch, caplog
):
    """As below a mount point whose disk went away in the middle of a series."""
    device.file_policy = FilePolicy(delete_on_dcu=True)
    dcu.faults.set("hang", path="GET data/*")
    take(device)
    monkeypatch.setattr(deleting, "disk_of", lambda path: -1)
    # What hung is broken off now, and asked for again a while after.
    device.link.client.timeouts = replace(SHORT, files=20)
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


@contextlib.contextmanager
def keeping_all():
    """Let nothing aside of a master be removed, as in a folder mounted read-only.

    Gives the event that a part of it stayed.
    """
    unlink, kept = Path.unlink, threading.Event()

    def refuse(path, missing_ok=False):
        if not (re.search(r"_master\.h5\..*(part|lock)$", path.name) and path.exists()):
            unlink(path, missing_ok)
            return
        if path.suffix == ".part":
            kept.set()
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        yield kept


def test_a_folder_that_lets_nothing_be_removed_hides_no_reason(dcu, device, tmp_path):
    dcu.faults.set("drop", when="body", path="GET data/*")
    take(device)
    with (
        keeping_all() as kept,
        pytest.raises(TransferError, match=r"_master\.h5 did not come home .*fetch.* brings it"),
    ):
        device.unstage().wait(20)
    assert kept.is_set()
    dcu.faults.clear()
    take(device)
    device.unstage().wait(20)
    assert len(device.fetch()) == 2
    assert device.owed == {}
    assert list((tmp_path / "data").glob(".*")) == []


def test_files_come_after_one_that_was_given_up_could_not_be_removed(dcu, device):
    device.file_policy = FilePolicy(at_once=1)
    dcu.faults.set("drop", when="body", path="GET data/*_master.h5", times=1)
    dcu.faults.set("hang", path="GET data/*_master.h5", after=1)
    take(device)
    with keeping_all() as kept:
        with pytest.raises(TransferError, match=r"_master\.h5 did not come home"):
            device.unstage().wait(20)
        assert not kept.is_set()
        # Whoever hung in it removes it.
        dcu.faults.clear()
        assert kept.wait(20)
    take(device)
    device.unstage().wait(20)
    assert len(device.fetched) == 2


@pytest.mark.parametrize("delete", [True, False])
def test_files_are_deleted_on_the_dcu_only_if_asked(RE, dcu, eiger, assert_right, delete):
    eiger.file_policy = FilePolicy(delete_on_dcu=delete)
    (uid,) = RE(bp.count([eiger], 2))
    assert_right(uid, points=2, images=1)
    assert len(eiger.link.client.files()) == (0 if delete else 4)


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        (["lose:path=DELETE data/*"], None),
        (["drop:path=DELETE data/*"], "stays on the DCU"),
        (["lose:path=DELETE data/*", "refuse:path=HEAD data/*"], "may still be on the DCU"),
    ],
)
def test_a_deletion_without_an_answer_is_told_as_the_dcu_says(dcu, device, caplog, lost, told):
    for fault in lost:
        dcu.faults.set(fault)
    device.file_policy = FilePolicy(delete_on_dcu=True)
    take(device)
    device.unstage().wait(20)
    assert len(device.fetched) == 2
    said = [each.getMessage() for each in caplog.records if " on the DCU: " in each.getMessage()]
    assert len(said) == (2 if told else 0)
    assert all(f".h5 {told}: DELETE " in each for each in said)
    assert len(device.link.client.files()) == (2 if told == "stays on the DCU" else 0)


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
        file = bring()
        assert file.path.read_bytes() == whole
        delivery.home[delivery.master] = file
        delete(client, delivery, file)
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
    # What a person is told is no more than the file has.
    delivery.reached[delivery.master] = came[-1]
    assert delivery.on_the_way() == [(delivery.master, file.bytes)]
    delivery.home[delivery.master] = file
    delete(client, delivery, file)
    assert delivery.master not in client.files()
    client.close()
