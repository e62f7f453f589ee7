"""Very many series may be owed: by few open files, and each still its owner's."""

import contextlib
import errno
import itertools
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ophyd_eiger import journal
from ophyd_eiger.deliveries import Delivery

SERIES = 100
URL = "http://127.0.0.1:9"
# In another process: own so many series in this folder, say so, and live until told to end.
OWNER = """
import sys
from pathlib import Path
import numpy as np
from ophyd_eiger.deliveries import Delivery
from ophyd_eiger.journal import Journals
journals = Journals(sys.argv[3])
for n in range(int(sys.argv[2])):
    delivery = Delivery(f"x_{n}", Path(sys.argv[1]), 1, 1, (2, 2), np.dtype("<u2"))
    journals.begin(delivery)
    delivery.begin_view(1)
    delivery.name_images([0])
print("owns", flush=True)
sys.stdin.read()
"""


def series(folder, number):
    return Delivery(f"x_{number}", folder, 1, 1, (2, 2), np.dtype("<u2"))


@contextlib.contextmanager
def few_files(more):
    """Let this process open only so many more files, in the gaps between those that are open."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = {int(each.name) for each in Path("/proc/self/fd").iterdir()}
    free = (number for number in itertools.count() if number not in taken)
    most = next(itertools.islice(free, more, None))
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def hidden(folder):
    return sorted(path.name for path in folder.glob(".*"))


def test_more_series_are_owed_than_files_may_be_open(tmp_path):
    mine = journal.Journals(URL)
    deliveries = [series(tmp_path, number) for number in range(SERIES)]
    with few_files(journal.HELD_MOST + 20):
        for delivery in deliveries:
            mine.begin(delivery)
        for delivery in deliveries:
            delivery.begin_view(1)
            delivery.name_images([0])
        paths = journal.find([tmp_path], linked=False)
        assert len(paths) == SERIES
        # What events name since is noted all the same.
        assert all(journal.read(path).delivery.recorded == 1 for path in paths)
        # Nobody else takes them on, in this process neither.
        assert all(journal.take(path) is None for path in paths)
        for delivery in deliveries:
            mine.end(delivery)
    assert hidden(tmp_path) == []


def test_a_disk_that_is_full_when_one_is_entrusted_leaves_none_without_its_owner(
    tmp_path, monkeypatch
):
    mine, write, full = journal.Journals(URL), os.pwrite, []

    def fails_once(held, text, place):
        if text.startswith(b'{"owner"') and not full:
            full.append(held)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(held, text, place)

    monkeypatch.setattr(os, "pwrite", fails_once)
    deliveries = [series(tmp_path, number) for number in range(journal.HELD_MOST + 4)]
    for delivery in deliveries:
        mine.begin(delivery)
    assert full
    # The first of them has become a state.
    (state,) = [each for each in journal.links().glob(".*.owed") if not each.is_symlink()]
    assert journal.read(state).delivery.basename == "x_0"
    assert [journal.take(path) for path in journal.find([tmp_path])] == [None] * len(deliveries)
    for delivery in deliveries:
        mine.end(delivery)
    assert hidden(tmp_path) == hidden(journal.links()) == []


@pytest.mark.parametrize("end", ["killed", "left"])
def test_many_series_of_a_process_that_ended_are_taken_on_once(tmp_path, end):
    command = [sys.executable, "-c", OWNER, str(tmp_path), str(SERIES), URL]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "owns\n"
        paths = journal.find([tmp_path], linked=False)
        assert len(paths) == SERIES
        assert [journal.take(path) for path in paths] == [None] * SERIES
        if end == "killed":
            process.kill()
        else:
            process.stdin.close()
        process.wait(20)
    # What was being written when it was killed.
    with paths[0].open("a") as cut:
        cut.write('{"events": [')
    mine, other = journal.Journals(URL), journal.Journals(URL)
    with few_files(journal.HELD_MOST + 20):
        taken = []
        for path in paths:
            had = journal.take(path)
            assert had is not None
            assert journal.take(path) is None
            assert had[1].delivery.recorded == 1
            mine.keep(had[1].delivery, had[0])
            taken.append(had[1].delivery)
        assert [journal.take(path) for path in paths] == [None] * SERIES
        assert journal.read(paths[0]).delivery.recorded == 1
        # Handed on within this process.
        mine.leave()
        for path in paths:
            had = journal.take(path)
            assert had is not None
            other.keep(had[1].delivery, had[0])
            other.end(had[1].delivery)
    assert hidden(tmp_path) == []


def test_a_copy_of_a_journal_is_no_sign_that_its_process_has_ended(tmp_path):
    folder, copy = tmp_path / "data", tmp_path / "copy"
    folder.mkdir()
    mine = journal.Journals(URL)
    mine.begin(series(folder, 1))
    shutil.copytree(folder, copy)
    (path,) = journal.find([copy], linked=False)
    assert journal.take(path) is None
    mine.leave()
    moved = folder.rename(tmp_path / "moved")
    (path,) = journal.find([moved], linked=False)
    assert journal.take(path) is not None


FORKED = """
import os, sys
from pathlib import Path
import numpy as np
from ophyd_eiger.deliveries import Delivery
from ophyd_eiger.journal import Journals
journals = Journals(sys.argv[2])
for n in range(20):
    journals.begin(Delivery(f"x_{n}", Path(sys.argv[1]), 1, 1, (2, 2), np.dtype("<u2")))
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    os.write(writer, b".")
    sys.stdin.read()
    os._exit(0)
os.read(reader, 1)
print("owns", flush=True)
if sys.argv[3] == "left":
    journals.leave()
    print("left", flush=True)
    sys.stdin.read()
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("end", ["killed", "left"])
def test_a_forked_child_holds_no_lock(tmp_path, end):
    command = [sys.executable, "-c", FORKED, str(tmp_path), URL, end]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "owns\n"
        if end == "left":
            assert process.stdout.readline() == "left\n"
        else:
            process.wait(20)
        paths = journal.find([tmp_path], linked=False)
        assert len(paths) == 20
        taken = [journal.take(path) for path in paths]
        assert all(taken)
        for mine, _ in taken:
            mine.end()
        process.stdin.close()
