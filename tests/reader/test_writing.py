"""New files: under their names whole or not at all, whoever is killed, and never over another."""

import errno
import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from eiger_plans.acceptance.findings import Report
from eiger_plans.acceptance.reports import write
from eiger_plans.calibrating import kept_in_file
from matplotlib.figure import Figure

from ophyd_eiger import new_file
from ophyd_eiger.pictures import Picture


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_it_has_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "mask.npy"
    with new_file(path) as file:
        np.save(file, np.arange(1000))
        assert not path.exists()
    assert np.array_equal(np.load(path), np.arange(1000))
    assert names(tmp_path) == ["mask.npy"]


@pytest.mark.parametrize("failed", [False, True])
def test_where_nothing_can_be_removed_what_happened_is_told(tmp_path, monkeypatch, failed):
    def refuse(path, **_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    path = tmp_path / "mask.npy"
    wrong = pytest.raises(ValueError, match="no mask") if failed else nullcontext()
    with wrong, new_file(path) as file:
        file.write(b"whole")
        if failed:
            raise ValueError("no mask")
    assert path.exists() is not failed


def test_who_is_killed_leaves_nothing_of_this_name(tmp_path):
    script = (
        "import sys, time, ophyd_eiger\n"
        "with ophyd_eiger.new_file(sys.argv[1]) as file:\n"
        "    file.write(b'half'); file.flush(); print(flush=True); time.sleep(60)\n"
    )
    path = tmp_path / "mask.npy"
    with subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    (left,) = names(tmp_path)
    assert left.startswith(".")
    with new_file(path) as file:
        file.write(b"whole")
    assert path.read_bytes() == b"whole"


@pytest.mark.parametrize("replace", [False, True])
def test_what_fails_leaves_nothing(tmp_path, replace):
    path = tmp_path / "x.json"
    if replace:
        path.write_bytes(b"older")

    def fails():
        with new_file(path, replace=replace) as file:
            file.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert names(tmp_path) == (["x.json"] if replace else [])
    if replace:
        assert path.read_bytes() == b"older"


def no_links(*_):
    raise OSError("no hard links here")


@pytest.mark.parametrize("has_links", [True, False])
def test_nothing_is_overwritten_but_what_is_to_be(tmp_path, monkeypatch, has_links):
    if not has_links:
        monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "x.json"

    def is_too_late():
        with new_file(path) as file:
            file.write(b"mine")
            path.write_bytes(b"another's")

    with pytest.raises(FileExistsError, match="exists already"):
        is_too_late()
    with pytest.raises(FileExistsError), new_file(path):
        pytest.fail("it is written, though the name is taken")
    assert path.read_bytes() == b"another's"
    with new_file(path, replace=True) as file:
        file.write(b"mine")
    path.rename(tmp_path / "y.json")
    with new_file(path) as file:
        file.write(b"newer")
    assert (path.read_bytes(), (tmp_path / "y.json").read_bytes()) == (b"newer", b"mine")
    assert names(tmp_path) == ["x.json", "y.json"]


# ---- who writes files ----


class Mask:
    name = "eiger_detector_pixel_mask"

    def get(self):
        return np.ones((30, 40), np.uint32)


WRITERS = {
    "a mask": lambda folder: np.load(kept_in_file(Mask(), folder)[0]),
    "a picture": lambda folder: Picture(Figure()).save(folder / "x.png"),
    "a report": lambda folder: write(Report("http://dcu", {}), folder / "x.json"),
}


@pytest.mark.parametrize("what", WRITERS)
def test_nobody_sees_half_of_what_is_written(tmp_path, monkeypatch, what):
    seen = []
    sync = os.fsync

    def look(descriptor):
        seen.append([name for name in names(tmp_path) if not name.startswith(".")])
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    WRITERS[what](tmp_path)
    assert seen == [[]]
    (name,) = names(tmp_path)
    assert not name.startswith(".")
    if what == "a report":
        assert json.loads((tmp_path / name).read_text())


def test_two_masks_of_one_second(tmp_path, monkeypatch):
    paths = [kept_in_file(Mask(), tmp_path)[0] for _ in range(3)]
    assert len(set(paths)) == 3
    assert all(np.array_equal(np.load(path), Mask().get()) for path in paths)
