"""Brings one file of the DCU home: fetched aside, whole or from where it broke off, checked, named.

Knows nothing of series. What is written has a hidden name of this program's own, beside its place,
until it is proven good.
"""

import errno
import fcntl
import glob
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ophyd_eiger.client import Body, DcuClient
from ophyd_eiger.deliveries import FetchedFile
from ophyd_eiger.errors import (
    EigerError,
    FileError,
    NotServedError,
    RefusedError,
    ReplyError,
    TransferError,
)
from ophyd_eiger.writing import free_at, give_name

logger = logging.getLogger(__name__)

# Small pieces over a slow line, so that the bytes that come are seen to come, large ones over a
# fast line, where each costs time.
SMALLEST_PIECE, LARGEST_PIECE = 1 << 13, 1 << 20
FAST_PIECE_S, SLOW_PIECE_S = 0.05, 0.5
# In bytes: so much of what is here is asked for again before a file is gone on with, and compared.
OVERLAP = 1 << 16
# In bytes: so much is written before the system is told to bring it to the disk.
DISK_PIECE = 1 << 23
NO_SUCH_RANGE = 416
ASIDE_ENDING = ".part"


def aside_of(final: Path) -> Path:
    """Return a hidden name beside a file's place, for what is not whole yet.

    A new one each time, so that no two programs write into one, whether there are locks or not.
    """
    return final.with_name(f".{final.name}.{uuid.uuid4().hex[:12]}{ASIDE_ENDING}")


@dataclass(frozen=True)
class Handling:
    """What becomes of a file beside its bytes.

    Attributes
    ----------
    check : callable
        Takes the path of the whole file; returns how many images it has, or raises.
    finish : callable
        Takes the path before the file gets its name: owner, mode.
    proceed : callable
        Takes the bytes that are here, again and again; raises if the file is not wanted any more.
    settling : callable
        Takes True when all bytes are here, and False when they are synced and checked, or are not:
        no byte comes meanwhile, which of a large file takes its time.
    prove : callable, optional
        Takes the path of a file that was found whole, and raises if the DCU has another one.
    """

    check: Callable[[Path], int]
    finish: Callable[[Path], None]
    proceed: Callable[[int], None]
    settling: Callable[[bool], None] = field(default=lambda _: None)
    prove: Callable[[Path], None] = field(default=lambda _: None)


class Download:
    """One file on its way home; may be tried again, and then goes on where it broke off.

    Parameters
    ----------
    client : DcuClient
        The way to the DCU.
    name : str
        The file's name on the DCU.
    final : Path
        The file's place at home.

    Attributes
    ----------
    was_here : bool
        Whether the file had its name already when it was fetched. It may then be the DCU's own,
        where that folder is the DCU's: nothing proves that it is a copy.
    size : int or None
        Its bytes in all, once the DCU has told.
    """

    def __init__(self, client: DcuClient, name: str, final: Path) -> None:
        self.was_here = False
        self.size: int | None = None
        self._version = ""
        self.client = client
        self.name = name
        self.final = final
        self.aside = aside_of(final)
        # What the part that is here is of: its bytes in all, and the DCU's name for its version.
        self._begun: tuple[int, str] | None = None

    def fetch(self, handling: Handling) -> FetchedFile:
        """Fetch, check and name the file.

        One that has its name already and is the DCU's own was brought by another program.

        Raises
        ------
        FileExistsError
            If there is another file of this name; it stays as it is.
        TransferError
            If it cannot be written, naming path and bytes, or if another program is writing it.
        DcuError, FileError
        """
        began = time.perf_counter()
        self.was_here = os.path.lexists(self.final)
        if self.was_here:
            size, images = self._found(handling)
            self.remove_what_is_left()
        else:
            with self._locked() as file:
                try:
                    size = self._download(file, handling)
                    images = self._settle(file, size, handling)
                finally:
                    # A file that is not what it should be is no beginning of one that is.
                    if self._begun is None:
                        _remove(self.aside)
        seconds = time.perf_counter() - began
        return FetchedFile(self.final, size, images, seconds, was_here=self.was_here)

    def _settle(self, file: BinaryIO, size: int, handling: Handling) -> int:
        handling.settling(True)
        try:
            # To the disk while it is looked at: each takes about as long as the other.
            with self._written(size), _synced_meanwhile(file):
                images = handling.check(self.aside)
        finally:
            handling.settling(False)
        handling.prove(self.aside)
        with self._written(size):
            handling.finish(self.aside)
            give_name(self.aside, self.final)
        return images

    @contextmanager
    def _written(self, size: int) -> Iterator[None]:
        try:
            yield
        except FileExistsError:
            raise
        except OSError as error:
            if isinstance(error, EigerError):
                raise
            raise _not_written(self.final, size, error, size) from error

    def remove_what_is_left(self) -> None:
        """Remove what a process left that was killed when the file had its name already."""
        if not self._lock_file.exists():
            return
        # Another program has it in hand, or the folder cannot be written: so it stays.
        with suppress(TransferError, OSError), self._locked():
            _remove(self.aside)

    def discard(self) -> None:
        """Remove what this object has of it, where the folder lets it be removed."""
        if self._begun is not None:
            self._begun = None
            _remove(self.aside)

    def is_still_there(self) -> bool:
        """Return whether the DCU's file is still the one that was fetched and has its name here.

        While it was checked a DCU that counts its series anew may have given its name again. Its
        version and its size are compared, and its end: masters are all of one size, and not every
        DCU names versions. By GET, because not every DCU serves HEAD.

        Raises
        ------
        DcuError
            If the DCU does not say; `NotServedError` if it has no file of this name any more.
        """
        end = max(0, self.final.stat().st_size - OVERLAP)
        try:
            return self._is_equal_from(end)
        except NotServedError:
            raise
        except (RefusedError, ReplyError) as error:
            logger.debug("%s: compared from its beginning: %s", self.name, error)
            return self._is_equal_from(0)

    def _is_equal_from(self, start: int) -> bool:
        with self.client.open_file(self.name, start) as body, self.final.open("rb") as here:
            here.seek(body.start)
            return body.version == self._version and _are_equal(here, body, lambda _: None)

    @property
    def _lock_file(self) -> Path:
        return self.final.with_name(f".{self.final.name}.lock")

    def _found(self, handling: Handling) -> tuple[int, int]:
        """Return size and images of the file that is here, if it is the DCU's, byte for byte.

        A DCU that counts its series anew gives a name again, and masters are all of one size.
        """
        try:
            with self.client.open_file(self.name) as body, self.final.open("rb") as here:
                if _are_equal(here, body, handling.proceed):
                    size = here.tell()
                    return size, handling.check(self.final)
        except FileError as error:
            logger.debug("%s: %s", self.final, error)
        raise FileExistsError(
            errno.EEXIST, "exists already and is not overwritten", str(self.final)
        )

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        """Open the file aside, while no other program fetches this file.

        The lock is on a file of its own, because HDF5 locks what it opens. It saves work and
        clears up; that no two programs write into one file does not depend on it.

        Raises
        ------
        TransferError
            If another one fetches it, or if it cannot be made.
        """
        lock = self._lock_file
        while True:
            try:
                held = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                raise _not_written(self.final, 0, error) from error
            try:
                is_locked = _lock(held, self.final)
                # Whoever had it may have removed it before it was ours.
                if is_locked and not _is_still(held, lock):
                    continue
                if is_locked:
                    self._clear_up()
                try:
                    with self._open_aside() as file:
                        yield file
                finally:
                    _remove(lock)
            finally:
                os.close(held)
            return

    def _clear_up(self) -> None:
        """Remove what programs left that were killed."""
        for path in self.final.parent.glob(f".{glob.escape(self.final.name)}.*{ASIDE_ENDING}"):
            if path != self.aside:
                _remove(path)

    def _open_aside(self) -> BinaryIO:
        try:
            if self._begun is not None and self.aside.exists():
                return self.aside.open("r+b", buffering=0)
            self._begun = None
            # It is there where it could not be removed before.
            _remove(self.aside)
            return self.aside.open("x+b", buffering=0)
        except OSError as error:
            raise _not_written(self.final, 0, error) from error

    def _download(self, file: BinaryIO, handling: Handling) -> int:
        begun, self._begun = self._begun, None
        here = os.fstat(file.fileno()).st_size if begun is not None else 0
        start = max(0, here - OVERLAP)
        if start:
            try:
                with self.client.open_file(self.name, start) as body:
                    if body.start == 0 or self._goes_on(file, body, begun, here):
                        return self._write(file, body, handling)
            except (RefusedError, ReplyError) as error:
                if isinstance(error, RefusedError) and error.status != NO_SUCH_RANGE:
                    self._begun = begun
                    raise
                logger.debug("%s: fetched from its beginning: %s", self.name, error)
            except Exception:
                self._begun = self._begun or begun
                raise
        with self.client.open_file(self.name) as body:
            return self._write(file, body, handling)

    def _goes_on(
        self, file: BinaryIO, body: Body, begun: tuple[int, str] | None, here: int
    ) -> bool:
        """Return whether a body is the rest of what is here, which is then ready to be gone on."""
        if (body.size, body.version) != begun:
            return False
        file.seek(body.start)
        again = bytearray(here - body.start)
        view, filled = memoryview(again), 0
        while filled < len(again):
            count = body.read_into(view[filled:])
            if not count:
                return False
            filled += count
        return file.read(len(again)) == bytes(again)

    def _write(self, file: BinaryIO, body: Body, handling: Handling) -> int:
        """Write a body where the file stands, or from its beginning; return the file's size."""
        if body.start == 0:
            file.seek(0)
            file.truncate()
        written = file.tell()
        self._require_room(written, body.size)
        self.size = body.size
        self._version = body.version
        # Without a size nothing would tell whether the rest is of the same file.
        self._begun = None if body.size is None else (body.size, body.version)
        buffer = memoryview(bytearray(LARGEST_PIECE))
        piece, on_its_way = SMALLEST_PIECE, written
        while True:
            began = time.perf_counter()
            count = body.read_into(buffer[:piece])
            if not count:
                break
            piece = _next_piece(piece, time.perf_counter() - began)
            try:
                _write_all(file, buffer[:count])
            except OSError as error:
                raise _not_written(self.final, file.tell(), error, body.size) from error
            written += count
            if written - on_its_way >= DISK_PIECE:
                _begin_to_sync(file, on_its_way, written)
                on_its_way = written
            handling.proceed(written)
        if body.size is not None and written != body.size:
            raise FileError(f"{self.aside}: {written} bytes came, {body.size} were announced")
        self._begun = None
        return written

    def _require_room(self, written: int, size: int | None) -> None:
        if size is None:
            return
        free = free_at(self.final.parent)
        # Where it is not known, writing will tell.
        if free is not None and free < size - written:
            full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise TransferError(
                f"{self.final}: {size - written} bytes are to be written and {free:.0f} are free "
                "there; make room, and it is fetched"
            ) from full


def require_equal(
    client: DcuClient, name: str, path: Path, proceed: Callable[[int], None] = lambda _: None
) -> None:
    """Compare a copy with the DCU's file, which is sent a second time, byte for byte.

    Parameters
    ----------
    client : DcuClient
        The way to the DCU.
    name : str
        The file's name there.
    path : Path
        The copy.
    proceed : callable
        Takes the bytes that were compared; raises if the file is not wanted any more.

    Raises
    ------
    FileError
        If they differ; which of the two came wrong is not known.
    DcuError
    """
    with client.open_file(name) as body, path.open("rb") as here:
        if not _are_equal(here, body, proceed):
            raise FileError(f"{path}: the DCU sent other bytes when it was asked for {name} again")


def _are_equal(here: BinaryIO, body: Body, proceed: Callable[[int], None]) -> bool:
    """Return whether a file holds what the DCU sends, and leave it at its end."""
    there = memoryview(bytearray(LARGEST_PIECE))
    while count := body.read_into(there):
        if here.read(count) != there[:count]:
            return False
        proceed(here.tell())
    return not here.read(1) and body.size in (None, here.tell())


@contextmanager
def _synced_meanwhile(file: BinaryIO) -> Iterator[None]:
    """Sync a file to the disk beside what is done in the block, which ends when both are over.

    Without an executor, which takes no work any more while Python ends, when the last files of a
    prompt that was left come home.

    Raises
    ------
    OSError
        If it cannot be synced.
    """
    synced: Future[None] = Future()

    def sync() -> None:
        try:
            synced.set_result(os.fsync(file.fileno()))
        except BaseException as error:  # noqa: BLE001 - raised to whoever waits
            synced.set_exception(error)

    thread = threading.Thread(target=sync, name=f"{Path(file.name).name} sync", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        # From Python 3.12 on no thread begins any more then.
        sync()
    try:
        yield
    finally:
        wait([synced])
    synced.result()


def _begin_to_sync(file: BinaryIO, begin: int, end: int) -> None:
    """Let what was just written go to the disk while more comes, so that the sync has less to do.

    Linux does so before it drops pages that are said not to be needed, and keeps those that are
    not written yet: the check finds them in memory.
    """
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):
            os.posix_fadvise(file.fileno(), begin, end - begin, os.POSIX_FADV_DONTNEED)


def _write_all(file: BinaryIO, piece: memoryview) -> None:
    while piece:
        piece = piece[file.write(piece) :]


def _remove(path: Path) -> None:
    """Remove a file that nobody needs; where that fails, what was done before it says more."""
    with suppress(OSError):
        path.unlink()


def _lock(held: int, path: Path) -> bool:
    """Lock it; return False where there are no locks."""
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise TransferError(f"{path}: another program is fetching this file") from error
    except OSError as error:
        # Some network file systems have none.
        logger.debug("%s: not locked: %s", path, error)
        return False
    return True


def _is_still(held: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(held), path.stat())
    except FileNotFoundError:
        return False


def _not_written(
    path: Path, written: int, error: OSError, size: int | None = None
) -> TransferError:
    of = "" if size is None else f" of {size}"
    reason = os.strerror(error.errno or 0)
    return TransferError(f"{path}: cannot be written after {written}{of} bytes: {reason}")


def _next_piece(piece: int, seconds: float) -> int:
    if seconds < FAST_PIECE_S:
        return min(2 * piece, LARGEST_PIECE)
    return max(piece // 2, SMALLEST_PIECE) if seconds > SLOW_PIECE_S else piece
