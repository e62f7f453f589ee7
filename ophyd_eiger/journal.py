"""What a series still owes, on disk, so that another process can bring it home.

Beside the files of a series, hidden, from when it is armed until its last file is home: one
line of JSON that says what the series is and of which DCU, and one for each time that events named
images of it. Whoever takes the images holds a lock on it, so that others see whether he lives. A
link in the user's own folder of states leads to it, so that it is found without its folder's name.
"""

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from ophyd_eiger.deliveries import Delivery
from ophyd_eiger.errors import JournalError

logger = logging.getLogger(__name__)

ENDING = ".owed"
VERSION = 1


def links() -> Path:
    """Return the folder with the links to the journals of this user's series."""
    states = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(states).expanduser() / "ophyd-eiger" / "owed"


class Journal:
    """The journal of one delivery, which this process has in hand.

    Parameters
    ----------
    path : Path
        The file.
    file : text file
        It, open and locked.
    """

    def __init__(self, path: Path, file: TextIO) -> None:
        self.path = path
        self._file = file

    @classmethod
    def begin(cls, delivery: Delivery, dcu: str) -> "Journal":
        """Write the journal of a series that is armed.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        path = delivery.directory / f".{delivery.basename}{ENDING}"
        file = path.open("x", buffering=1, encoding="utf-8")
        journal = cls(path, file)
        try:
            _try_lock(file)
            journal.note({"version": VERSION, "dcu": dcu, **delivery.record()})
        except OSError:
            journal.end()
            raise
        journal._link()
        return journal

    def note(self, entry: dict[str, Any]) -> None:
        """Add a line.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        self._file.write(json.dumps(entry) + "\n")

    def end(self) -> None:
        """Remove it: all is home that there is."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            (links() / self.path.name).unlink(missing_ok=True)
        self.leave()

    def leave(self) -> None:
        """Leave it for another process."""
        with contextlib.suppress(OSError):
            self._file.close()

    def _link(self) -> None:
        link = links() / self.path.name
        try:
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(self.path)
        except OSError as error:
            logger.debug("%s: no link to it in %s: %s", self.path, link.parent, error)


@dataclass(frozen=True)
class Owed:
    """What a journal says.

    Attributes
    ----------
    path : Path
        The journal.
    dcu : str
        The URL of the DCU.
    delivery : Delivery
        The series, as far as it is known.
    """

    path: Path
    dcu: str
    delivery: Delivery


def read(path: Path) -> Owed:
    """Read a journal; what was being written when its process was killed is left out.

    Raises
    ------
    JournalError
        If it is none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        entries = [json.loads(line) for line in lines if line.endswith("\n")]
        first = entries[0]
        if first["version"] != VERSION:
            raise ValueError(f"version {first['version']}")
        delivery = Delivery.of_record(first, entries[1:], path.parent)
        return Owed(path, str(first["dcu"]), delivery)
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise JournalError(
            f"{path}: this is no journal of a series ({type(error).__name__}: {error})"
        ) from error


def take(path: Path) -> Journal | None:
    """Take a journal on that nobody has in hand; None if its process lives.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    file = path.open("r+", buffering=1, encoding="utf-8")
    if not _try_lock(file):
        file.close()
        return None
    file.seek(0, os.SEEK_END)
    return Journal(path, file)


def find(directories: Iterable[Path] = ()) -> list[Path]:
    """Return the journals that this user's links lead to and those in these folders, at any depth.

    Links that lead nowhere are removed.
    """
    found = {path.resolve(): None for path in _linked()}
    for directory in directories:
        for path in sorted(directory.rglob(f".*{ENDING}")):
            found[path.resolve()] = None
    return list(found)


def _linked() -> Iterator[Path]:
    with contextlib.suppress(OSError):
        for link in sorted(links().glob(f".*{ENDING}")):
            if link.exists():
                yield link
            else:
                link.unlink(missing_ok=True)


def _try_lock(file: TextIO) -> bool:
    """Lock a journal; return False if another process, or another part of this one, has it."""
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        # Some network file systems have no locks; nothing tells then whether somebody lives.
        logger.debug("%s: not locked: %s", file.name, error)
    return True
