"""Shows other processes that the one lives which owns the journals in a folder: one lock for all.

A lock lasts as long as its descriptor is open, of which a process has some 1000, while thousands
of series may be owed. So whoever owns the journals of a folder holds the lock of one hidden file
beside them, and each journal says which.
"""

import contextlib
import fcntl
import logging
import os
import uuid
import weakref
from pathlib import Path
from typing import Protocol

logger = logging.getLogger(__name__)

ENDING = ".owner"


class Holder(Protocol):
    """What holds a lock."""

    def forget(self) -> None:
        """Close the locked file in a forked child, to which the lock does not belong."""


_holders: "weakref.WeakSet[Holder]" = weakref.WeakSet()


def note_holder(holder: Holder) -> None:
    """Let a child that is forked from now on forget what this one holds.

    A lock lasts until the last copy of its descriptor is closed, so that a child that lives on
    would hold it for a process that has ended.
    """
    _holders.add(holder)


def _forget_in_child() -> None:
    for holder in tuple(_holders):
        holder.forget()


os.register_at_fork(after_in_child=_forget_in_child)


def unlock(held: int) -> None:
    """Unlock a file and close it, for its copies in forked children too."""
    with contextlib.suppress(OSError):
        fcntl.flock(held, fcntl.LOCK_UN)
    with contextlib.suppress(OSError):
        os.close(held)


class Owner:
    """The lock of one owner in one folder, held until `leave` or `end`.

    Parameters
    ----------
    folder : Path
        Where the journals are.

    Attributes
    ----------
    token : str
        What journals call it; empty where the file system has no locks.

    Raises
    ------
    OSError
        If its file cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.token = uuid.uuid4().hex
        self._path = _file(folder, self.token)
        self._held: int | None = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        note_holder(self)
        if not try_lock(self._held):
            self.token = ""
            self.end()

    def leave(self) -> None:
        """Show that the journals are nobody's now."""
        held, self._held = self._held, None
        if held is not None:
            unlock(held)

    def forget(self) -> None:
        """Close it in a forked child, to which it does not belong."""
        held, self._held = self._held, None
        if held is not None:
            with contextlib.suppress(OSError):
                os.close(held)

    def end(self) -> None:
        """Remove the lock, which no journal needs any more."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
        self.leave()


def lives(folder: Path, token: str) -> bool | None:
    """Return whether an owner lives, perhaps in another part of this process; None if unknown."""
    try:
        held = os.open(_file(folder, token), os.O_RDONLY)
    except OSError as error:
        logger.debug("the owner of journals in %s is not known: %s", folder, error)
        return None
    try:
        # Shared, so that two who ask at once do not take each other for the owner.
        is_locked = try_lock(held, fcntl.LOCK_SH)
    finally:
        os.close(held)
    return None if is_locked is None else not is_locked


def remove_left(folder: Path, token: str) -> None:
    """Remove the lock of an owner whose journals were all taken on, and who has ended."""
    if lives(folder, token) is False:
        with contextlib.suppress(OSError):
            _file(folder, token).unlink(missing_ok=True)


def try_lock(held: int, kind: int = fcntl.LOCK_EX) -> bool | None:
    """Lock an open file; False if another process, or part of this one, has it, None without locks.

    Parameters
    ----------
    held : int
        Its descriptor.
    kind : int
        Whether others may have it too, as `fcntl` has it.
    """
    try:
        fcntl.flock(held, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        # Some network file systems have none.
        logger.debug("no lock: %s", error)
        return None
    return True


def _file(folder: Path, token: str) -> Path:
    # A journal may be anybody's text: its token must not lead elsewhere.
    return folder / f".{Path(token).name}{ENDING}"
