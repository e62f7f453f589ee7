"""What a series still owes, on disk, so that another process can bring it home.

Beside the files of a series, hidden, from when it is armed until its last file is home: one
line of JSON that says what the series is and of which DCU, and one for each time that events named
images of it. Whoever takes the images holds a lock on it, or where he has many the one lock of an
owner (`ophyd_eiger.owner`), so that others see whether he lives. A link in the user's own folder of
states leads to it, so that it is found without its folder's name. Where it cannot be written beside
the files, as on a full disk, it is in the place of that link, and says where the files are.
"""

import contextlib
import functools
import json
import logging
import os
import socket
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ophyd_eiger import owner
from ophyd_eiger.addresses import same_dcu
from ophyd_eiger.deliveries import JOURNAL_ENDING, Delivery
from ophyd_eiger.errors import JournalError, PreflightError
from ophyd_eiger.master import MASTER_ENDING
from ophyd_eiger.owner import Owner, note_holder, try_lock, unlock

logger = logging.getLogger(__name__)

ENDING = JOURNAL_ENDING
# In version 1 the lock on the journal itself was held until its end.
VERSION, VERSIONS = 2, (1, 2)
# So many journals are held each by its own lock; those before by one for all in a folder.
HELD_MOST = 16

# Whether this process has said that no links can be made.
_told_of_no_link = threading.Event()


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
    held : int
        Its descriptor, locked and at the end.
    directory : Path
        Where the files of the series are.
    before : tuple of str
        The tokens of its owners before.
    """

    def __init__(
        self, path: Path, held: int, directory: Path, before: tuple[str, ...] = ()
    ) -> None:
        self.path = path
        self.directory = directory
        self.before = before
        self._held: int | None = held
        self._is_ours = True
        # Events are noted in other threads than those in which files come home.
        self._lock = threading.RLock()
        self._size = os.fstat(held).st_size
        self._unsaved = b""
        note_holder(self)

    @classmethod
    def begin(cls, delivery: Delivery, dcu: str) -> "Journal":
        """Write the journal of a series that is armed: beside its files, or else as a state.

        Raises
        ------
        OSError
            If it can be written in neither place; names both.
        """
        name = delivery.journal
        record = {"version": VERSION, "dcu": dcu, **_this_process(), **delivery.record()}
        beside = delivery.directory / name
        try:
            journal = cls._begin_at(beside, record, delivery.directory)
        except FileExistsError:
            raise
        except OSError as error:
            try:
                states = links()
                states.mkdir(parents=True, exist_ok=True)
                where = _place_of(delivery.directory)
                journal = cls._begin_at(states / name, record | where, delivery.directory)
            except (OSError, RuntimeError) as other:  # RuntimeError: a user without a home
                raise OSError(
                    error.errno, f"neither {beside} ({error}) nor {_as_state(name)} ({other})"
                ) from error
            logger.warning(
                "%s could not be written (%s); what the series owes is noted in %s",
                beside,
                error.strerror,
                journal.path,
            )
        else:
            _link(journal.path)
        return journal

    @classmethod
    def _begin_at(cls, path: Path, record: dict[str, Any], directory: Path) -> "Journal":
        held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try_lock(held)
        journal = cls(path, held, directory)
        try:
            journal._append(record | {"inode": os.fstat(held).st_ino})
        except OSError:
            with contextlib.suppress(OSError):
                path.unlink()
            journal.leave()
            raise
        return journal

    def note(self, entry: dict[str, Any]) -> None:
        """Add a line; what cannot be written now is written with the next one.

        Where no room is left beside the files, the journal becomes a state.

        Raises
        ------
        OSError
            If it can be written in neither place.
        """
        with self._lock:
            try:
                self._append(entry)
            except OSError as error:
                if not self._is_ours or self.path == _as_state(self.path.name):
                    raise
                try:
                    self._become_state()
                except (AttributeError, LookupError, RuntimeError, ValueError) as other:
                    # The file that is there is no journal any more, or there is no home.
                    raise error from other

    def _append(self, entry: dict[str, Any]) -> None:
        self._unsaved += json.dumps(entry).encode() + b"\n"
        self._save()

    def _become_state(self) -> None:
        """Write it whole in the place of the link to it, and go on there."""
        first, *more = _entries(self.path.read_bytes()[: self._size] + self._unsaved)
        state = links() / self.path.name
        state.parent.mkdir(parents=True, exist_ok=True)
        # Whoever finds it finds all of it.
        new = state.with_name(f"{state.name}.new")
        held = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            try_lock(held)
            first |= _place_of(self.directory) | {"inode": os.fstat(held).st_ino}
            # The locks of owners are in the folder that it leaves; its own stands for them.
            entries = [first, *(entry for entry in more if "owner" not in entry)]
            text = b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)
            size = 0
            while size < len(text):
                size += os.pwrite(held, text[size:], size)
            new.replace(state)
        except BaseException:
            os.close(held)
            with contextlib.suppress(OSError):
                new.unlink()
            raise
        before, self.path = self.path, state
        self._close()
        self._held, self._size, self._unsaved = held, len(text), b""
        # What is left of it is passed over, see `find`.
        with contextlib.suppress(OSError):
            before.unlink()

    @property
    def holds_its_own(self) -> bool:
        """Whether the file is open, with its own lock."""
        return self._held is not None

    def entrust(self, whose: Owner) -> None:
        """Let an owner's lock stand for that of this file, which is closed.

        Raises
        ------
        OSError
            If that cannot be written; then it stays as it is.
        """
        with self._lock:
            place = self.path
            if whose.token:
                self.note({"owner": whose.token, **_this_process()})
            # One that became a state has left the folder of that lock.
            if self.path == place:
                self._close()

    def _save(self) -> None:
        if not self._is_ours or not self._unsaved:
            return
        held = os.open(self.path, os.O_WRONLY) if self._held is None else self._held
        try:
            while self._unsaved:
                # Half a line is passed over by `read`, if its other half never follows.
                written = os.pwrite(held, self._unsaved, self._size)
                self._unsaved = self._unsaved[written:]
                self._size += written
        finally:
            if self._held is None:
                os.close(held)

    def end(self) -> None:
        """Remove it: all is home that there is."""
        for path in (self.path, self.directory / self.path.name):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError, RuntimeError):
            (links() / self.path.name).unlink(missing_ok=True)
        with self._lock:
            self._unsaved = b""
            self.leave()

    def leave(self) -> None:
        """Leave it for another process."""
        with self._lock:
            with contextlib.suppress(OSError):
                self._save()
            self._is_ours = False
            self._close()

    def _close(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            unlock(held)

    def forget(self) -> None:
        """Close it in a forked child, to which it does not belong."""
        held, self._held, self._is_ours = self._held, None, False
        if held is not None:
            with contextlib.suppress(OSError):
                os.close(held)


class Journals:
    """The journals that one part of this process has in hand.

    Parameters
    ----------
    dcu : str
        The URL of the DCU.
    """

    def __init__(self, dcu: str) -> None:
        self.dcu = dcu
        self._of: dict[Delivery, Journal] = {}
        self._owners: dict[Path, Owner] = {}
        # Tokens of owners that ended, by folder, whose journals were taken on.
        self._before: dict[Path, set[str]] = {}
        self._lock = threading.Lock()

    def begin(self, delivery: Delivery) -> None:
        """Note on disk that a series will owe its files, for when this process ends before it.

        What cannot be written is logged: no scan ends for it.
        """
        try:
            journal = Journal.begin(delivery, self.dcu)
        except OSError as error:
            logger.warning(
                "no record of what %s owes could be written, so that no other process could bring "
                "it home: %s",
                delivery.basename,
                error,
            )
            return
        told = False

        def note(entry: dict[str, Any]) -> None:
            nonlocal told
            try:
                journal.note(entry)
            except OSError as error:
                # Tried again with the next one.
                level, told = logging.DEBUG if told else logging.WARNING, True
                logger.log(level, "%s is not up to date: %s", journal.path, error)

        delivery.note = note
        self.keep(delivery, journal)

    @contextlib.contextmanager
    def arming(self, delivery: Delivery) -> Iterator[None]:
        """Note on disk that a series is being armed, for as long as that lasts.

        Whoever finds the note after this process was killed knows whose the armed detector is.

        Raises
        ------
        PreflightError
            If it can be noted nowhere: of a series that is armed then nobody would know.
        """
        try:
            self.keep(delivery, Journal.begin(delivery, self.dcu))
        except FileExistsError as error:
            logger.debug("that %s is armed is noted already: %s", delivery.name_pattern, error)
        except OSError as error:
            raise PreflightError(
                f"nothing was armed, for no note of the series could be written, by which another "
                f"process brings it home: {error.strerror}; make room in one of the two"
            ) from error
        try:
            yield
        finally:
            self.end(delivery)

    def keep(self, delivery: Delivery, journal: Journal) -> None:
        """Have a journal in hand."""
        with self._lock:
            self._of[delivery] = journal
            if journal.before:
                self._before.setdefault(journal.path.parent, set()).update(journal.before)
            held = [each for each in self._of.values() if each.holds_its_own]
            for each in held[:-HELD_MOST]:
                self._entrust(each)

    def _entrust(self, journal: Journal) -> None:
        folder = journal.path.parent
        try:
            if folder not in self._owners:
                self._owners[folder] = Owner(folder)
            journal.entrust(self._owners[folder])
        except OSError as error:
            logger.debug("%s goes on holding its own lock: %s", journal.path, error)

    def end(self, delivery: Delivery) -> None:
        """Remove the journal of a series that owes nothing, or nothing any more."""
        with self._lock:
            journal = self._of.pop(delivery, None)
            if journal is None:
                return
            journal.end()
            # It may have become a state, and have left its owner's lock beside the files.
            for folder in {journal.path.parent, journal.directory}:
                self._end_owners(folder)

    def _end_owners(self, folder: Path) -> None:
        """Remove the locks in a folder that no journal in it needs any more."""
        if any(other.path.parent == folder for other in self._of.values()):
            return
        whose = self._owners.pop(folder, None)
        if whose is not None:
            whose.end()
        if folder in self._before and not any(folder.glob(f".*{ENDING}")):
            for token in self._before.pop(folder):
                owner.remove_left(folder, token)

    def leave(self) -> None:
        """Leave all of them for another process."""
        with self._lock:
            journals, self._of = self._of, {}
            owners, self._owners = self._owners, {}
        for each in (*journals.values(), *owners.values()):
            each.leave()

    def owed_to_others(self) -> list[str]:
        """Return the names of series of this DCU that other programs of this user owe.

        Those that run, and those that have ended, as far as their journals can be read. Whether
        there are files yet to come home, or but a view to write, no journal tells for sure.
        """
        # A name is looked up once, which takes long where nobody answers.
        is_ours = functools.cache(lambda other: same_dcu(other, self.dcu))
        names = []
        for path in find():
            if path in self:
                continue
            try:
                owed = read(path)
            except (JournalError, OSError) as error:
                logger.debug("%s: %s", path, error)
                continue
            if is_ours(owed.dcu):
                names.append(owed.delivery.basename)
        return names

    def __contains__(self, path: Path) -> bool:
        with self._lock:
            return any(journal.path.name == path.name for journal in self._of.values())


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
    host, pid
        Whose it is.
    owners : tuple of str
        The tokens of those who held it by a lock beside it, the last of whom may do so now.
    is_copy : bool
        Whether it was copied from elsewhere, so that nobody's lock is on it.
    """

    path: Path
    dcu: str
    delivery: Delivery
    host: str
    pid: int
    owners: tuple[str, ...] = ()
    is_copy: bool = False

    @property
    def is_of_this_host(self) -> bool:
        """Whether a process of this computer took the series."""
        return self.host == socket.gethostname()

    @property
    def may_live(self) -> bool:
        """Whether its process may live, as far as this computer knows."""
        if not self.is_of_this_host:
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            return True
        return True


def read(path: Path) -> Owed:
    """Read a journal; what was being written when its process was killed is left out.

    Raises
    ------
    JournalError
        If it is none.
    OSError
        If it cannot be read; FileNotFoundError if it is not there any more.
    """
    try:
        entries = _entries(path.read_bytes())
        first = entries[0]
        if first["version"] not in VERSIONS:
            raise ValueError(f"version {first['version']}")
        delivery = Delivery.of_record(first, entries[1:], _directory_of(path, first))
        owners = [entry for entry in entries if "owner" in entry]
        last = owners[-1] if owners else first
        tokens = tuple(str(entry["owner"]) for entry in owners)
        whose = str(last["host"]), int(last["pid"])
        is_copy = first.get("inode", path.stat().st_ino) != path.stat().st_ino
        return Owed(path, str(first["dcu"]), delivery, *whose, tokens, is_copy)
    # RuntimeError: too deep for JSON, or a user without a home.
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise JournalError(
            f"{path}: this is no journal of a series ({type(error).__name__}: {error})"
        ) from error


def take(path: Path, *, by_force: bool = False) -> tuple[Journal, Owed] | None:
    """Take a journal on that nobody has in hand; None if its process lives, or may live.

    Where locks say nothing, because there are none, or because another computer took the series
    and locks may end at this one, a process counts as alive unless this computer knows better.

    Parameters
    ----------
    path : Path
        The journal.
    by_force : bool
        Whether one of another computer is taken on, too.

    Raises
    ------
    JournalError, OSError
        If it is none, or cannot be written.
    """
    held = os.open(path, os.O_RDWR)
    try:
        is_locked = try_lock(held)
        # Its owner may have removed it just now.
        if is_locked is False or not os.path.samestat(os.fstat(held), path.stat()):
            os.close(held)
            return None
        owed = read(path)
        lives = owner.lives(path.parent, owed.owners[-1]) if owed.owners else not is_locked
        if owed.owners and lives:
            os.close(held)
            return None
        known = lives is False and owed.is_of_this_host and not owed.is_copy
        if not known and owed.may_live and not (by_force and not owed.is_of_this_host):
            os.close(held)
            return None
        _drop_half_a_line(held)
        return Journal(path, held, owed.delivery.directory, owed.owners), owed
    except Exception:
        os.close(held)
        raise


def find(directories: Iterable[Path] = (), *, linked: bool = True) -> list[Path]:
    """Return the journals of the series in these folders, at any depth.

    Parameters
    ----------
    directories : iterable of Path
        The folders.
    linked : bool
        Whether also those that this user's links lead to.
    """
    directories = [directory.resolve() for directory in directories]
    found = {path.resolve(): None for path in _linked()} if linked else {}
    for directory in directories:
        for path in sorted(directory.rglob(f".*{ENDING}")):
            found[path.resolve()] = None
    for state, directory in _states():
        if linked or any(directory.is_relative_to(each) for each in directories):
            # It says all that what may be left beside the files does.
            found.pop((directory / state.name).resolve(), None)
            found[state.resolve()] = None
    return list(found)


def is_known(delivery: Delivery) -> bool:
    """Return whether a series has a journal, or its master in its folder."""
    path = delivery.directory / delivery.journal
    return (
        path.exists()
        or (delivery.directory / delivery.master).exists()
        or any(state.name == path.name for state, _ in _states())
    )


def out_of_reach() -> list[Path]:
    """Return the journals that this user's links lead to and that are not there.

    Their disk may not be mounted now, where its bare folder may be there all the same; or they were
    removed with what they had. Nothing tells the one from the other, so that the links stay.
    """
    led = []
    # Another process may remove a link meanwhile.
    for link in _links():
        with contextlib.suppress(OSError):
            if link.is_symlink():
                led.append(link.readlink())
            elif (where := _place_in(link)) is not None and not _is_there(*where):
                led.append(where[0] / link.name)
    # os.path's takes a folder that may not be looked into for one that is not there.
    return [path for path in led if not os.path.exists(path) and not _is_home(path)]  # noqa: PTH110


def _is_home(path: Path) -> bool:
    """Return whether the master is there without the journal: somebody else brought the series."""
    return os.path.lexists(path.with_name(basename_of(path) + MASTER_ENDING))


def basename_of(path: Path) -> str:
    """Return what the names of a series' files start with, by its journal's name."""
    return path.name.removeprefix(".").removesuffix(ENDING)


def _linked() -> Iterator[Path]:
    for link in _links():
        try:
            if link.exists() and (link.is_symlink() or _place_in(link) is None):
                yield link
            # Else it is out of reach, or one of `_states`.
        except OSError as error:
            logger.debug("%s: %s", link, error)


def _link(path: Path) -> None:
    """Let a link lead to a journal, for whoever does not know its folder."""
    try:
        link = links() / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.absolute())
    except (OSError, RuntimeError) as error:  # RuntimeError: a user without a home
        level = logging.DEBUG if _told_of_no_link.is_set() else logging.WARNING
        _told_of_no_link.set()
        logger.log(
            level,
            "no link to %s could be made (%s): if this process is killed, `ophyd-eiger fetch` "
            "finds what its series owe with --directory %s only",
            path,
            error,
            path.absolute().parent,
        )


def _links() -> list[Path]:
    try:
        return sorted(links().glob(f".*{ENDING}"))
    except (OSError, RuntimeError):
        return []


def _as_state(name: str) -> Path:
    try:
        return links() / name
    except RuntimeError:  # a user without a home
        return Path(name)


def _states() -> Iterator[tuple[Path, Path]]:
    """Give the journals in the place of links to them, and their series' folders, if they are."""
    for path in _links():
        if not path.is_symlink() and (where := _place_in(path)) is not None and _is_there(*where):
            yield path, where[0].resolve()


def _place_of(directory: Path) -> dict[str, Any]:
    """Return what a journal elsewhere says of the folder of its series' files."""
    directory = directory.absolute()
    # Another folder of the name is there where the disk is not mounted.
    known = directory.stat().st_ino if directory.is_dir() else None
    return {"directory": str(directory), "directory_inode": known}


def _place_in(path: Path) -> tuple[Path, int | None] | None:
    """Return the folder that a journal names, and its inode; None if it names none."""
    try:
        first = _entries(path.read_bytes())[0]
        return Path(first["directory"]), first.get("directory_inode")
    except (OSError, AttributeError, LookupError, TypeError, ValueError, RecursionError):
        return None


def _is_there(directory: Path, inode: int | None) -> bool:
    """Return whether the folder is the one that was noted, and not where its disk is to be."""
    try:
        return inode is None or directory.stat().st_ino == inode
    except OSError:
        return False


def _directory_of(path: Path, first: dict[str, Any]) -> Path:
    """Return the folder of a journal's series: its own, if the journal is not one of our states."""
    if "directory" not in first:
        return path.parent
    # Anybody may have written one elsewhere, to have files put where it says.
    if path.resolve().parent != links().resolve():
        raise ValueError("it counts only in the state folder in which it was written")
    return Path(first["directory"])


def _entries(text: bytes) -> list[Any]:
    """Return the lines of a journal; half a line is left out."""
    lines = text.decode().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _drop_half_a_line(held: int) -> None:
    """Cut off what was being written when the process was killed, so that lines can be added."""
    size = os.fstat(held).st_size
    os.ftruncate(held, os.pread(held, size, 0).rfind(b"\n") + 1)


def _this_process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid()}
