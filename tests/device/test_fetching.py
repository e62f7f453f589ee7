"""One file on its way home: broken off, gone on with, taken by others, without room."""

import errno
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from file_server import serving

from ophyd_eiger.client import DcuClient
from ophyd_eiger.errors import DcuError, FileError, LostReplyError, TransferError
from ophyd_eiger.fetching import OVERLAP, SMALLEST_PIECE, Download, Handling

NAME = "series_1_data_000001.h5"
CONTENT = np.random.default_rng(7).bytes(5 * OVERLAP + 12345)
OTHER = np.random.default_rng(8).bytes(len(CONTENT))


def handling(*, check=lambda path: 3, finish=lambda path: None, proceed=lambda here: None):
    return Handling(check, finish, proceed)


def download(server, folder) -> Download:
    return Download(DcuClient(server.url, api_version="1.6.0"), NAME, folder / NAME)


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_a_whole_file(tmp_path):
    with serving({NAME: CONTENT}) as server:
        fetched = download(server, tmp_path).fetch(handling())
    assert (fetched.path, fetched.bytes, fetched.images) == (tmp_path / NAME, len(CONTENT), 3)
    assert fetched.path.read_bytes() == CONTENT
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("is_whole", [True, False])
def test_the_lock_of_who_was_killed_when_it_had_its_name_is_removed_with_proof(tmp_path, is_whole):
    (tmp_path / NAME).write_bytes(CONTENT if is_whole else OTHER)
    lock = tmp_path / f".{NAME}.lock"
    lock.touch()
    with serving({NAME: CONTENT}) as server:
        if is_whole:
            assert download(server, tmp_path).fetch(handling()).bytes == len(CONTENT)
        else:
            with pytest.raises(FileExistsError):
                download(server, tmp_path).fetch(handling())
    assert hidden(tmp_path) == ([] if is_whole else [lock.name])


def test_it_goes_on_where_it_broke_off(tmp_path):
    with serving({NAME: CONTENT}, breaks=[3 * OVERLAP, 2 * OVERLAP]) as server:
        file = download(server, tmp_path)
        for _ in range(2):
            with pytest.raises((LostReplyError, FileError)):
                file.fetch(handling())
            assert not (tmp_path / NAME).exists()
        assert file.fetch(handling()).path.read_bytes() == CONTENT
    # What is here at the second break: 2 x OVERLAP from where the second reply began.
    assert server.asked == [(NAME, None), (NAME, 2 * OVERLAP), (NAME, 3 * OVERLAP)]
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("ranges", ["ignored", "wrong", "refused"])
def test_without_ranges_it_begins_anew(tmp_path, ranges):
    with serving({NAME: CONTENT}, ranges=ranges, breaks=[3 * OVERLAP]) as server:
        file = download(server, tmp_path)
        with pytest.raises((LostReplyError, FileError)):
            file.fetch(handling())
        assert file.fetch(handling()).path.read_bytes() == CONTENT
    again = [] if ranges == "ignored" else [(NAME, None)]
    assert server.asked == [(NAME, None), (NAME, 2 * OVERLAP), *again]


@pytest.mark.parametrize("change", ["bytes", "size", "version"])
def test_another_file_of_the_name_is_not_spliced(tmp_path, change):
    with serving({NAME: CONTENT}, breaks=[3 * OVERLAP], etag="1") as server:
        file = download(server, tmp_path)
        with pytest.raises((LostReplyError, FileError)):
            file.fetch(handling())
        changed = {"bytes": OTHER, "size": CONTENT + b"more", "version": CONTENT}[change]
        server.files[NAME] = changed
        if change == "version":
            server.etag = "2"
        assert file.fetch(handling()).path.read_bytes() == changed
    assert server.asked[1:] == [(NAME, 2 * OVERLAP), (NAME, None)]


def test_without_a_length_nothing_is_gone_on_with(tmp_path):
    """Nothing tells then that a file is not whole but the check."""

    def check(path):
        if path.read_bytes() != CONTENT:
            raise FileError(f"{path}: not whole")
        return 3

    with serving({NAME: CONTENT}, breaks=[3 * OVERLAP], length=False) as server:
        file = download(server, tmp_path)
        with pytest.raises(FileError, match="not whole"):
            file.fetch(handling(check=check))
        assert hidden(tmp_path) == []
        assert file.fetch(handling(check=check)).path.read_bytes() == CONTENT
    assert server.asked == [(NAME, None), (NAME, None)]


def test_what_fails_its_check_has_no_name_and_is_fetched_anew(tmp_path):
    def check(path):
        raise FileError(f"{path}: broken")

    with serving({NAME: CONTENT}) as server:
        file = download(server, tmp_path)
        with pytest.raises(FileError, match="broken"):
            file.fetch(handling(check=check))
        assert list(tmp_path.iterdir()) == []
        file.fetch(handling())
    assert server.asked == [(NAME, None), (NAME, None)]


def test_what_could_not_be_removed_then_is_fetched_anew_too(tmp_path, monkeypatch):
    def check(path):
        raise FileError(f"{path}: broken")

    def refuse(path, missing_ok=False):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    with serving({NAME: CONTENT}) as server:
        file = download(server, tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", refuse)
            with pytest.raises(FileError, match="broken"):
                file.fetch(handling(check=check))
        assert len(hidden(tmp_path)) == 2
        assert file.fetch(handling()).path.read_bytes() == CONTENT
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("checks_first", [True, False])
def test_no_name_before_it_is_on_the_disk_and_checked(tmp_path, monkeypatch, checks_first):
    """Both are done at a time, and either may be over first."""
    over = {"check": threading.Event(), "sync": threading.Event()}
    seen = []

    def first_or_last(what, other, first):
        if not first:
            assert over[other].wait(10)
        seen.append((what, (tmp_path / NAME).exists()))
        over[what].set()

    def check(path):
        first_or_last("check", "sync", checks_first)
        return 3

    sync = os.fsync

    def synced(file):
        sync(file)
        first_or_last("sync", "check", not checks_first)

    monkeypatch.setattr(os, "fsync", synced)
    with serving({NAME: CONTENT}) as server:
        download(server, tmp_path).fetch(handling(check=check))
    order = ["check", "sync"] if checks_first else ["sync", "check"]
    assert seen == [(what, False) for what in order]
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_it_comes_home_while_python_ends(tmp_path):
    """As when a prompt is left in mid-scan."""
    with serving({NAME: CONTENT}) as server:
        subprocess.run(
            [sys.executable, "-c", AT_EXIT, server.url, str(tmp_path / NAME)],
            check=True,
            timeout=60,
        )
    assert (tmp_path / NAME).read_bytes() == CONTENT


AT_EXIT = """
import atexit, sys
from pathlib import Path
from ophyd_eiger.client import DcuClient
from ophyd_eiger.fetching import Download, Handling

url, final = sys.argv[1], Path(sys.argv[2])
download = Download(DcuClient(url, api_version="1.6.0"), final.name, final)
handling = Handling(lambda path: 3, lambda path: None, lambda here: None)
atexit.register(lambda: download.fetch(handling))
"""


def test_a_disk_that_does_not_take_it_is_named(tmp_path, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with (
        serving({NAME: CONTENT}) as server,
        pytest.raises(TransferError, match=rf"{NAME}: cannot be written.*No space left"),
    ):
        download(server, tmp_path).fetch(handling())
    assert list(tmp_path.iterdir()) == []


def test_one_that_is_not_wanted_any_more(tmp_path):
    def proceed(here):
        raise TransferError(f"given up after {here} bytes")

    with serving({NAME: CONTENT}) as server:
        file = download(server, tmp_path)
        with pytest.raises(TransferError, match=r"given up after \d+ bytes"):
            file.fetch(handling(proceed=proceed))
    file.discard()
    assert list(tmp_path.iterdir()) == []


def test_one_that_drips_can_be_given_up(tmp_path):
    """A byte every 0.1 s: a piece would be whole after minutes, and no read times out."""
    sizes = []

    def proceed(here):
        sizes.append(here)
        if here > OVERLAP:
            raise TransferError(f"given up after {here} bytes")

    with serving({NAME: CONTENT}, drips=OVERLAP) as server:
        file = download(server, tmp_path)
        with pytest.raises(TransferError, match="given up"):
            file.fetch(handling(proceed=proceed))
    assert OVERLAP < sizes[-1] < OVERLAP + SMALLEST_PIECE
    file.discard()
    assert list(tmp_path.iterdir()) == []


def test_two_programs_do_not_write_into_one_file(tmp_path):
    with serving({NAME: CONTENT}) as server:
        other = download(server, tmp_path)

        def proceed(here):
            with pytest.raises(TransferError, match="another program is fetching this file"):
                other.fetch(handling())
            other.discard()

        assert download(server, tmp_path).fetch(handling(proceed=proceed)).bytes == len(CONTENT)
        assert (tmp_path / NAME).read_bytes() == CONTENT
        # The other one finds it home.
        assert other.fetch(handling()).bytes == len(CONTENT)
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("mine", [b"mine", OTHER, CONTENT[:-1], CONTENT + b"m"])
def test_a_file_of_the_name_that_is_here_is_not_overwritten(tmp_path, mine):
    """Not even one of the same size, that passes its check, is taken for the DCU's."""
    (tmp_path / NAME).write_bytes(mine)

    with (
        serving({NAME: CONTENT}) as server,
        pytest.raises(FileExistsError, match="not overwritten"),
    ):
        download(server, tmp_path).fetch(handling())
    assert (tmp_path / NAME).read_bytes() == mine


def test_what_a_killed_program_left_is_no_beginning(tmp_path):
    (tmp_path / f".{NAME}.0123456789ab.part").write_bytes(OTHER[: 3 * OVERLAP])
    (tmp_path / f".{NAME}.lock").touch()
    with serving({NAME: CONTENT}) as server:
        assert download(server, tmp_path).fetch(handling()).path.read_bytes() == CONTENT
    assert server.asked == [(NAME, None)]
    assert hidden(tmp_path) == []


def test_a_second_name_that_a_killed_program_left_is_not_written_to(tmp_path):
    """Killed between link and unlink; the finished file was moved to another folder since."""
    archived = tmp_path / "archive" / NAME
    archived.parent.mkdir()
    archived.write_bytes(OTHER)
    (tmp_path / f".{NAME}.0123456789ab.part").hardlink_to(archived)
    with serving({NAME: CONTENT}) as server:
        download(server, tmp_path).fetch(handling())
    assert archived.read_bytes() == OTHER
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert hidden(tmp_path) == []


def test_owner_and_mode_are_given_before_the_name(tmp_path):
    seen = []
    with serving({NAME: CONTENT}) as server:
        download(server, tmp_path).fetch(
            handling(finish=lambda path: seen.append((path.name, (tmp_path / NAME).exists())))
        )
    ((name, has_name),) = seen
    assert re.fullmatch(rf"\.{NAME}\.\w+\.part", name)
    assert not has_name


FULL = """
import resource, sys
from pathlib import Path
from ophyd_eiger.client import DcuClient
from ophyd_eiger.fetching import Download, Handling

url, name, folder, limit = sys.argv[1:]
file = Download(DcuClient(url, api_version="1.6.0"), name, Path(folder) / name)
handling = Handling(lambda path: 3, lambda path: None, lambda here: None)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), hard))
try:
    file.fetch(handling)
except OSError as error:
    print(type(error).__name__, error)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
print(file.fetch(handling).bytes)
"""


def test_without_room_it_says_where_and_how_much_and_goes_on_when_there_is(tmp_path):
    """A limit on the size of files stands for a disk that fills up meanwhile."""
    limit = 3 * OVERLAP + 100
    with serving({NAME: CONTENT}) as server:
        arguments = [server.url, NAME, str(tmp_path), str(limit)]
        done = subprocess.run(
            [sys.executable, "-c", FULL, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    first, second = done.stdout.splitlines()
    assert first == (
        f"TransferError {tmp_path / NAME}: cannot be written after {limit} of {len(CONTENT)} "
        "bytes: File too large"
    )
    assert second == str(len(CONTENT))
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert server.asked == [(NAME, None), (NAME, limit - OVERLAP)]


def test_a_folder_that_is_gone(tmp_path):
    with (
        serving({NAME: CONTENT}) as server,
        pytest.raises(TransferError, match=rf"gone/{NAME}: cannot be written after 0 bytes: No su"),
    ):
        download(server, tmp_path / "gone").fetch(handling())


def test_a_dcu_that_is_gone(tmp_path):
    with serving({NAME: CONTENT}) as server:
        file = download(server, tmp_path)
    with pytest.raises(DcuError):
        file.fetch(handling())
    assert not (tmp_path / NAME).exists()
