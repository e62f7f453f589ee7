"""Deletes files on the DCU whose copies are home, one after the other, in a thread of its own.

So nobody who waits for copies waits for a DCU that takes long to delete, or never answers.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Collection
from dataclasses import replace

from ophyd_eiger.bringing import disk_of, keep_names, stays_on_dcu
from ophyd_eiger.client import DcuClient
from ophyd_eiger.deliveries import Delivery, FetchedFile, some
from ophyd_eiger.errors import DcuError, DcuTimeoutError, LostReplyError, NotServedError

logger = logging.getLogger(__name__)


class Deletions:
    """Deletions on one DCU.

    Parameters
    ----------
    client : DcuClient
        The way to the DCU.
    name : str
        Name of the detector, for messages.
    """

    def __init__(self, client: DcuClient, name: str) -> None:
        self.client = client
        self.name = name
        self._state = threading.Condition()
        # The first one is under way.
        self._queue: deque[tuple[Delivery, FetchedFile]] = deque()
        self._thread: threading.Thread | None = None
        self._waits_no_more = False

    def add(self, delivery: Delivery, file: FetchedFile) -> None:
        """Have the DCU's file deleted of which this is a copy: proven good, and with its name."""
        if file.was_here:
            logger.warning("%s: %s", self.name, stays_on_dcu(file.path))
            return
        with self._state:
            self._queue.append((delivery, file))
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._run, name=f"{self.name} deletions", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                self._tell_dropped(str(error))
                return
            self._thread = thread

    def wait(self, patience: float, of: Collection[Delivery]) -> None:
        """Wait until what is home of these series is deleted, but no longer than so many s.

        What takes longer goes on by itself.
        """
        end = time.monotonic() + patience

        def pending() -> list[str]:
            return [file.path.name for delivery, file in self._queue if delivery in of]

        with self._state:
            while pending() and not self._waits_no_more and time.monotonic() < end:
                self._state.wait(end - time.monotonic())
            if names := pending():
                logger.warning(
                    "%s: %s not deleted on the DCU yet, which has not answered within %g s; that "
                    "goes on, and what stays is told",
                    self.name,
                    some(names),
                    patience,
                )

    def break_off(self) -> None:
        """Let nobody wait any more."""
        with self._state:
            self._waits_no_more = True
            self._state.notify_all()

    def close(self) -> None:
        """Delete no more, and tell what stays."""
        with self._state:
            self._tell_dropped("this program deletes no more")

    def _tell_dropped(self, why: str) -> None:
        if self._queue:
            names = [file.path.name for _, file in self._queue]
            logger.warning(
                "%s: %s may still be on the DCU, all home: %s", self.name, some(names), why
            )
        self._queue.clear()
        self._state.notify_all()

    def _run(self) -> None:
        with self.client.ledger.background("transfer"):
            while (job := self._next()) is not None:
                answered = False
                try:
                    answered = self._delete(*job)
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
            if self._queue and self._queue[0] is job:
                self._queue.popleft()
            if not answered:
                # Each of the others would be waited for as long.
                for delivery, _ in (job, *self._queue):
                    delivery.policy = replace(delivery.policy, delete_on_dcu=False)
                self._tell_dropped("the DCU does not answer a deletion")
            self._state.notify_all()

    def _delete(self, delivery: Delivery, file: FetchedFile) -> bool:
        """Delete one file; return whether the DCU is one that answers."""
        name = file.path.name
        if why := _why_it_stays(delivery, file):
            logger.warning("%s: %s stays on the DCU: %s", self.name, name, why)
            return True
        try:
            keep_names(file.path.parent)
            self.client.delete_file(name)
        except (DcuError, OSError) as error:
            may_be_done = isinstance(error, LostReplyError | DcuTimeoutError)
            if stays := self._stays(name) if may_be_done else "stays":
                logger.warning("%s: %s %s on the DCU: %s", self.name, name, stays, error)
            return not isinstance(error, DcuTimeoutError)
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
    """Return why a copy may not be the only one, as it was not when it got its name, or nothing."""
    if disk_of(delivery.directory) != delivery.disk:
        return f"{delivery.directory} is on another disk than when the series was armed"
    try:
        size = os.lstat(file.path).st_size
    except OSError as error:
        return f"its copy is not there any more ({error})"
    if size != file.bytes:
        return f"its copy, {file.path}, was changed since it came"
    return ""
