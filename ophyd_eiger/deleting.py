"""Deletes files on the DCU whose copies are home, one after the other, in a thread of its own.

So no copy waits for a DCU that takes long to delete, or never answers.
"""

import logging
import os
import threading
import time
from collections import deque
from pathlib import Path

from ophyd_eiger.bringing import disk_of
from ophyd_eiger.client import DcuClient
from ophyd_eiger.deliveries import Delivery, FetchedFile, briefly
from ophyd_eiger.errors import (
    DcuError,
    DcuTimeoutError,
    DcuUnreachableError,
    LostReplyError,
    NotServedError,
)
from ophyd_eiger.telling import TellingCondition

logger = logging.getLogger(__name__)


class Deletions:
    """Deletions on one DCU.

    Parameters
    ----------
    client : DcuClient
        The way to the DCU.
    name : str
        Name of the detector, for messages.
    state : TellingCondition
        That of whoever brings the files: one for both, so that none waits for the other's.
    """

    def __init__(self, client: DcuClient, name: str, state: TellingCondition) -> None:
        self.client = client
        self.name = name
        self._state = state
        # The first one is under way.
        self._queue: deque[tuple[Delivery, FetchedFile]] = deque()
        self._thread: threading.Thread | None = None
        # When the DCU answered one last, or the first of these was queued, on the monotonic clock.
        self._answered = 0.0
        self._waits_no_more = self._closed = False

    @property
    def pending(self) -> list[str]:
        """The names of files that are to be deleted and are not yet."""
        with self._state:
            return [file.path.name for _, file in self._queue]

    def queue(self, delivery: Delivery, file: FetchedFile) -> None:
        """Note that the DCU's file is to be deleted of which this is a copy; `begin` does it.

        Parameters
        ----------
        delivery : Delivery
            Its series.
        file : FetchedFile
            Proven good, and with its name.
        """
        with self._state:
            if self._closed:
                self._tell([file.path.name])
                return
            if not self._queue:
                self._answered = time.monotonic()
            self._queue.append((delivery, file))

    def begin(self) -> None:
        """Delete what is queued, if that is not being done."""
        with self._state:
            if not self._queue or self._is_going_on:
                return
            self._thread = threading.Thread(
                target=self._run, name=f"{self.name} deletions", daemon=True
            )
            try:
                self._thread.start()
            except RuntimeError as error:
                self._thread = None
                text = "%s: no thread to delete files on the DCU, so that they stay for now: %s"
                self._state.tell(logger, logging.WARNING, text, self.name, error)

    @property
    def _is_going_on(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def wait(self, patience: float) -> None:
        """Wait until all that is queued now is deleted, as long as the DCU answers.

        What takes longer goes on by itself.

        Parameters
        ----------
        patience : float
            How long it may answer none, in s.
        """
        self.begin()
        with self._state:
            awaited = list(self._queue)
            # One after the other, so that with the last of them all are done.
            while awaited and awaited[-1] in self._queue and self._is_going_on:
                left = patience - (time.monotonic() - self._answered)
                if self._waits_no_more:
                    return
                if left <= 0:
                    text = (
                        "%s: %s not deleted on the DCU yet, which has answered no deletion for "
                        "%g s; that goes on, and what stays is told"
                    )
                    names = briefly(self.pending)
                    self._state.tell(logger, logging.WARNING, text, self.name, names, patience)
                    return
                self._state.wait(left)

    def break_off(self) -> None:
        """Let nobody wait any more."""
        with self._state:
            self._waits_no_more = True
            self._state.notify_all()

    def close(self) -> None:
        """Delete no more, and tell what stays."""
        with self._state:
            self._closed = True
            self.tell_what_is_left()
            self._queue.clear()
            self._state.notify_all()

    def tell_what_is_left(self) -> None:
        """Tell which files are not deleted, where nobody goes on with it."""
        with self._state:
            if names := self.pending:
                self._tell(names)

    def _tell(self, names: list[str]) -> None:
        text = "%s: %s may still be on the DCU, all home: this program deletes no more"
        self._state.tell(logger, logging.WARNING, text, self.name, briefly(names))

    def _run(self) -> None:
        with self.client.ledger.background("transfer"):
            while (job := self._next()) is not None:
                answered = False
                try:
                    answered = self._delete(*job)
                except Exception:
                    # Whatever it is, the others are still to be deleted.
                    logger.exception("%s: %s stays on the DCU", self.name, job[1].path.name)
                finally:
                    self._lay_down(job, answered=answered)

    def _next(self) -> tuple[Delivery, FetchedFile] | None:
        with self._state:
            if not self._queue:
                self._thread = None
                return None
            return self._queue[0]

    def _lay_down(self, job: tuple[Delivery, FetchedFile], *, answered: bool) -> None:
        with self._state:
            # Else it was let go of meanwhile.
            if self._queue and self._queue[0] is job:
                self._queue.popleft()
            if answered:
                self._answered = time.monotonic()
            self._state.notify_all()

    def _delete(self, delivery: Delivery, file: FetchedFile) -> bool:
        """Delete one file, or tell why not; return whether the DCU answers."""
        name = file.path.name
        if why := _why_it_stays(delivery, file):
            logger.warning("%s: %s", self.name, why)
            return True
        try:
            keep_names(file.path.parent)
            self.client.delete_file(name)
        except (DcuError, OSError) as error:
            may_be_done = isinstance(error, LostReplyError | DcuTimeoutError)
            if stays := self._stays(name) if may_be_done else "stays":
                logger.warning("%s: %s %s on the DCU: %s", self.name, name, stays, error)
            return not isinstance(error, DcuTimeoutError | DcuUnreachableError)
        return True

    def _stays(self, name: str) -> str:
        """Return what to tell of a file that was to be deleted, as the DCU never answered."""
        try:
            self.client.file_size(name)
        except NotServedError:
            return ""
        except DcuError:
            return "may still be"
        return "stays"


def _why_it_stays(delivery: Delivery, file: FetchedFile) -> str:
    """Return what to tell of a file that is not deleted, as its copy may not be there; or ""."""
    name = file.path.name
    if file.was_here:
        return stays_on_dcu(file.path)
    stays = f"{name} stays on the DCU"
    if not delivery.policy.delete_on_dcu or delivery.home.get(name) is not file:
        return f"{stays}: its copy is another one since the folder {delivery.directory} went"
    if disk_of(delivery.directory) != delivery.disk:
        return f"{stays}: {delivery.directory} is on another disk than when the series was armed"
    try:
        size = os.lstat(file.path).st_size
    except OSError as error:
        return f"{stays}: its copy is not there any more ({error})"
    return "" if size == file.bytes else f"{stays}: its copy was changed since it came, {file.path}"


def stays_on_dcu(path: Path) -> str:
    """Return what to tell of a file that is not deleted on the DCU, because it was here before."""
    return (
        f"{path.name} stays on the DCU: {path} was here before it was fetched, and may be the "
        "DCU's own file, seen over a mount"
    )


def keep_names(directory: Path) -> None:
    """See that the names in a folder outlive a power cut."""
    folder = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
