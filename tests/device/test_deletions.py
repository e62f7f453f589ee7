"""Files that are deleted on the DCU once they are home, however the DCU and the folder behave."""

import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import requests
from foreign_dcu import ForeignDcu
from owing import SHORT, named, take

from ophyd_eiger import EigerDetector, FilePolicy
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


class Held:
    """A gap that holds back requests of one kind until they are released."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.came, self.release = threading.Event(), threading.Event()

    def __call__(self, request):
        if request.asks(self.pattern):
            self.came.set()
            self.release.wait(60)
        return request.forward()


def data_files(folder: Path) -> set[str]:
    return {name for name in named(folder) if not name.endswith("_view.h5")}


def asked(foreign: ForeignDcu, verb: str) -> list[str]:
    return [each for each in foreign.requests if each.startswith(f"{verb} data ")]


def test_a_dcu_that_answers_no_deletion_fails_no_scan(foreign, deleting, caplog, tmp_path):
    foreign.gap = held = Held("DELETE data *")
    deleting.configure({"nimages": 3})
    take(deleting)
    deleting.unstage().wait(20)
    assert held.came.is_set()
    assert len(deleting.fetched) == 4
    assert deleting.owed == {}
    assert len(deleting.link.client.files()) == 4
    assert "not deleted on the DCU yet, which has not answered within 1 s" in caplog.text
    # Each when the one before is over.
    assert len(asked(foreign, "DELETE")) == 1
    held.release.set()
    deleting.wait_for_files()
    take(deleting)
    deleting.unstage().wait(20)
    assert deleting.link.client.files() == []


def test_after_a_deletion_that_was_never_answered_the_others_are_not_waited_for(
    dcu, foreign, deleting, caplog
):
    deleting.link.client.timeouts = replace(SHORT, put=0.5, files=20)
    dcu.faults.set("hang", path="DELETE data/*")
    deleting.configure({"nimages": 3})
    take(deleting)
    deleting.unstage().wait(20)
    assert deleting.owed == {}
    assert len(deleting.fetched) == 4
    told = [each.getMessage() for each in caplog.records if "on the DCU" in each.getMessage()]
    for file in deleting.fetched:
        assert any(file.path.name in each for each in told)
    # The others' copies may have come before or after it was over.
    assert len(asked(foreign, "DELETE")) == 1
    dcu.faults.clear()
    # Of the next series they are asked for again.
    before = deleting.link.client.files()
    take(deleting)
    deleting.unstage().wait(20)
    assert deleting.link.client.files() == before


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
    take_no_more(deleting)
    assert deleting.link.client.files() == [second.name]
    said = "its copy is not there any more" if how == "removed" else "was changed since it came"
    assert f"{second.name} stays on the DCU: " in caplog.text
    assert said in caplog.text


def take_no_more(device):
    """Wait for the deletions that are still due."""
    deletions = device._acquisition.transfer.deletions
    with deletions._state:
        assert deletions._state.wait_for(lambda: not deletions._queue, 20)


def test_a_device_that_ends_tells_what_it_does_not_delete_any_more(foreign, deleting, caplog):
    foreign.gap = held = Held("DELETE data *")
    take(deleting)
    deleting.unstage().wait(20)
    caplog.clear()
    deleting.destroy()
    assert "may still be on the DCU, all home: this program deletes no more" in caplog.text
    held.release.set()


def test_what_was_home_and_went_with_its_folder_is_owed(foreign, deleting, caplog, tmp_path):
    """And deleted on the DCU, so that nothing else has it."""
    foreign.gap = held = Held("GET data *_master.h5")
    deleting.configure({"nimages": 3})
    take(deleting)
    assert held.came.wait(20)
    (delivery,) = deleting._acquisition.deliveries
    take_no_more(deleting)
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
    take_no_more(deleting)
    (name,) = named(tmp_path / "data")
    (tmp_path / "data" / name).rename(tmp_path / name)
    with pytest.raises(TransferError, match="did not come home"):
        deleting.unstage().wait(20)
    held.release.set()
    (master,) = deleting.fetch()
    assert data_files(tmp_path / "data") == {master.path.name}
    assert deleting.owed == {}


def test_what_somebody_deleted_on_the_dcu_is_told_so(dcu, device):
    device.link.client.timeouts = replace(SHORT, files=3)
    dcu.faults.set("refuse", status=503, path="GET data/*")
    take(device)
    (delivery,) = device._acquisition.deliveries
    done = threading.Event()
    waited = device.unstage()
    waited.add_callback(lambda _: done.set())
    until = threading.Event()
    while len(delivery.seen) < 2:
        assert not done.is_set()
        until.wait(0.01)
    requests.delete(f"{dcu.url}/data/{delivery.data_file(1)}", timeout=20).raise_for_status()
    dcu.faults.clear()
    with pytest.raises(
        TransferError,
        match=f"the DCU listed {delivery.data_file(1)} and does not any more: somebody deleted",
    ):
        waited.wait(20)


ENDS = """
import sys
from ophyd_eiger import EigerDetector, FilePolicy

url, folder = sys.argv[1:]
eiger = EigerDetector(url, name="eiger", directory=folder, file_policy=FilePolicy(wait=False))
eiger.stage().wait(20)
eiger.trigger().wait(20)
eiger.unstage().wait(20)
"""


@pytest.mark.parametrize("come", [True, False])
def test_a_program_that_ends_tells_what_is_on_its_way(dcu, tmp_path, come):
    if not come:
        dcu.faults.set("hang", path="GET data/*")
    script = ENDS + ("eiger.wait_for_files()" if come else "")
    done = subprocess.run(
        [sys.executable, "-c", script, dcu.url, str(tmp_path / "data")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    if come:
        assert done.stderr == ""
    else:
        assert "_master.h5 had still to come when this program let go of them" in done.stderr
        assert "`ophyd-eiger fetch` brings it" in done.stderr
