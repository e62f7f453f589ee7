"""The filewriter subsystem and the folder its files are served from.

Publishes what the file writer made; knows nothing of the files' contents, of detector states or of
HTTP.
"""

import contextlib
import errno
import fcntl
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sim_dcu.clock import local_time_with_zone
from sim_dcu.file_faults import FAULTY, LATE, FaultyFiles, LateFiles
from sim_dcu.filewriter import UNFINISHED, SeriesWriter
from sim_dcu.parameters import MissingError, ParameterStore
from sim_dcu.places import remove_if_empty
from sim_dcu.series import ArmedSeries
from sim_dcu.subsystem import Argument, Machine, Subsystem

# What the files may take, in bytes: an estimate for the memory of a DCU of a small detector.
CAPACITY = 64 * 2**30
# A master file beside its arrays, in bytes, and what an image adds to it (ten angles): estimates
# from the files written, rounded up.
_MASTER_BYTES = 2**20
_MASTER_BYTES_AN_IMAGE = 80
# What a data file adds to an image: an estimate for files of one image, rounded up.
_DATA_BYTES_AN_IMAGE = 16 * 1024


log = logging.getLogger(__name__)
_OF_A_SERIES = re.compile(r".*(_master|_data_\d{6})\.h5")


def _claimed(folder: Path) -> tuple[int, bool]:
    """Return an open descriptor of `folder`, and whether no other DCU has claimed it.

    A process's end gives the claim back.
    """
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "no file can be written there", str(folder))
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.warning("another simulated DCU uses %s; each overwrites the other's files", folder)
        return descriptor, False
    except OSError:  # a file system without locks
        return descriptor, False
    return descriptor, True


class FileStore:
    """The published files below one folder; names that start with a dot are not published.

    Parameters
    ----------
    folder : Path
        Made where it does not exist.
    quota : int
        What all files in the folder may take together, in bytes.

    Raises
    ------
    OSError
        Where the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, quota: int = CAPACITY):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder.resolve()
        self.quota = quota
        claim, alone = _claimed(self.folder)
        self._claim: int | None = claim
        # Processes that were killed left these.
        for prefix in (UNFINISHED, LATE, FAULTY) if alone else ():
            for leftover in self.folder.glob(f"{prefix}*"):
                shutil.rmtree(leftover, ignore_errors=True)

    def names(self) -> list[str]:
        """Return the published files' paths below the folder, with slashes, sorted."""
        found = self._found(hidden=False)
        return sorted(name for name, entry in found if not entry.is_symlink())

    def room(self) -> int:
        """Return how many bytes more fit; those of files that are being written are taken."""
        taken = 0
        for _, entry in self._found(hidden=True):
            with contextlib.suppress(FileNotFoundError):  # moved or deleted since
                taken += entry.stat(follow_symlinks=False).st_size
        return self.quota - taken

    def claim(self, wanted: int) -> int:
        """Return how many bytes more fit, at least `wanted`.

        Raises
        ------
        OSError
            Where as many do not fit.
        """
        room = self.room()
        if room < wanted:
            raise OSError(errno.ENOSPC, f"no room for {wanted} bytes more: {max(0, room)} are free")
        return room

    def path(self, name: str) -> Path:
        """Return where the published file `name` lies.

        Raises
        ------
        MissingError
            Where there is none, hidden files and names that leave the folder included.
        """
        missing = MissingError(f"File {name} does not exist")
        parts = name.split("/")
        if "\0" in name or any(not part or part.startswith(".") for part in parts):
            raise missing
        try:
            path = (self.folder / name).resolve()
            if path.is_relative_to(self.folder) and path.is_file():
                return path
        except OSError as error:  # a name longer than the file system takes, a circle of links
            raise missing from error
        raise missing

    def delete(self, name: str) -> None:
        """Delete the published file `name`.

        Raises
        ------
        MissingError
            Where there is none.
        """
        path = self.path(name)
        try:
            path.unlink()
        except FileNotFoundError as error:  # another client was faster
            raise MissingError(f"File {name} does not exist") from error
        # A folder left empty would be in the way of a file of that name.
        for place in path.relative_to(self.folder).parents:
            if place != Path():
                remove_if_empty(self.folder / place)

    def clear(self, folders: bool) -> None:
        """Delete every file that a series leaves and, with `folders`, the folders left empty.

        What is called otherwise is somebody's who named the wrong folder.
        """
        emptied: set[Path] = set()
        for path in [self.folder / name for name in self.names()]:
            if _OF_A_SERIES.fullmatch(path.name):
                path.unlink(missing_ok=True)
                emptied.update(path.relative_to(self.folder).parents)
        for place in sorted(emptied - {Path()}, reverse=True) if folders else ():
            remove_if_empty(self.folder / place)

    def close(self) -> None:
        """Let another DCU have the folder."""
        if self._claim is not None:
            os.close(self._claim)
            self._claim = None

    def _found(self, below: str = "", *, hidden: bool) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Give all but folders, by their paths below the folder.

        Clients ask for the list of files all the time, and pathlib takes ten times as long.
        """
        try:
            with os.scandir(self.folder / below) as folder:
                entries = list(folder)
        except OSError:  # removed since
            return
        for entry in entries:
            if entry.name.startswith(".") and not hidden:
                continue
            name = below + entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from self._found(f"{name}/", hidden=hidden)
            else:
                yield name, entry


class SeriesFiles:
    """The sink that writes one series and keeps the filewriter's state and the quota beside it."""

    def __init__(
        self,
        filewriter: "Filewriter",
        writer: SeriesWriter,
        series: ArmedSeries,
        faulty: FaultyFiles | None,
    ):
        self._filewriter = filewriter
        self._writer = writer
        self._series = series
        self._faulty = faulty
        # What may be written until the folder is looked through again.
        self._allowance = 0

    def add(self, number: int, chunk: bytes) -> None:
        """Write image `number` (from 1, in order)."""
        with self._filewriter.noting_failure():
            self._filewriter.check_room(self._series, number - 1)
            needed = len(chunk) + _DATA_BYTES_AN_IMAGE
            self._allowance -= needed
            if self._allowance < 0:
                self._allowance = self._filewriter.store.claim(needed) - needed
            self._writer.add(number, chunk)
            if self._faulty is not None:
                self._faulty.publish()

    def close(self) -> None:
        """Publish the last file; the filewriter is then ready again."""
        try:
            with self._filewriter.noting_failure():
                try:
                    if self._filewriter.has_power:
                        self._writer.close()
                    else:
                        self._writer.discard()
                finally:
                    if self._faulty is not None:
                        self._faulty.close()
        finally:
            self._filewriter.series_closed()


class Filewriter(Subsystem):
    """The filewriter subsystem.

    Parameters
    ----------
    machine : Machine
        Shared with the other subsystems.
    store : FileStore
        Where files go.

    Attributes
    ----------
    has_power : bool
        Whether unfinished files are finished when a series ends.
    """

    walks = frozenset({"files", "buffer_free"})

    def __init__(self, machine: Machine, store: FileStore):
        super().__init__(
            machine,
            ParameterStore(machine.firmware.tables.FILEWRITER_CONFIG),
            machine.firmware.tables.FILEWRITER_STATUS,
            {"clear": self._clear, "initialize": self._initialize},
        )
        self.store = store
        self.late = LateFiles(store.folder, machine.faults)
        self.has_power = True
        self._writing = False
        self._failure = ""

    @contextlib.contextmanager
    def losing_power(self) -> Iterator[None]:
        """Have a series that ends meanwhile lose what is in no whole file."""
        self.has_power = False
        try:
            yield
        finally:
            self.has_power = True

    def open_series(self, series: ArmedSeries) -> SeriesFiles:
        """Publish the master of `series` and return the sink of its images.

        Raises
        ------
        OSError
            Where the folder does not take it.
        """
        height, width = series.shape
        arrays = 8 * height * width  # flat field and mask
        with self.noting_failure():
            self.check_room(series, 0)
            faulty = self._faulty_files(series)
            try:
                writer = SeriesWriter(faulty.folder if faulty else self.store.folder, series)
                self.store.claim(_MASTER_BYTES + arrays + _MASTER_BYTES_AN_IMAGE * series.images)
                writer.write_master()
            except BaseException:
                if faulty is not None:
                    faulty.remove()
                raise
            if faulty is not None:
                faulty.publish()
        with self.machine.lock:
            self._writing = True
        return SeriesFiles(self, writer, series, faulty)

    def _faulty_files(self, series: ArmedSeries) -> FaultyFiles | None:
        faults = self.machine.faults
        if not faults.active or not (struck := faults.of_files(series)):
            return None
        return FaultyFiles(self.store.folder, struck, self.late)

    def check_room(self, series: ArmedSeries, images: int) -> None:
        """Let `images` of a series be more than a buffer takes that is full on request.

        Raises
        ------
        OSError
            Where it is.
        """
        faults = self.machine.faults
        if faults.active and faults.in_series("full", series, images) is not None:
            raise OSError(errno.ENOSPC, "no room for more: the buffer is full on request")

    @contextlib.contextmanager
    def noting_failure(self) -> Iterator[None]:
        """Keep what goes wrong inside as the filewriter's error, and let it pass."""
        try:
            yield
        except Exception as error:
            with self.machine.lock:
                self._failure = self._failure or str(error) or type(error).__name__
            raise

    def series_closed(self) -> None:
        """Note that the last file of the series is published."""
        with self.machine.lock:
            self._writing = False

    def forget_failure(self) -> None:
        """Leave state error."""
        with self.machine.lock:
            self._failure = ""

    def reset(self) -> None:
        """Set the config to its defaults and leave state error."""
        with self.machine.lock:
            self.config.reset()
            self._failure = ""

    def status_value(self, key: str) -> Any:
        """Return the value of status resource `key`."""
        if key == "time":
            return local_time_with_zone()
        if key == "error":
            return [self._failure] if self._failure else []
        if key == "files":
            return self.store.names()
        if key == "buffer_free":
            return self._free_kb() * (1024 if self.machine.firmware.bytes_free else 1)
        if self._failure:
            return "error"
        # Acquire from arm until the last file is closed, whatever mode was put meanwhile.
        if self._writing:
            return "acquire"
        return "ready" if self.config["mode"] == "enabled" else "disabled"

    def free_percent(self) -> float:
        """Return how much of the room for files is left, in percent."""
        return 100.0 * 1024 * self._free_kb() / self.store.quota

    def _free_kb(self) -> int:
        if self.machine.faults.active and self.machine.faults.room_is_gone():
            return 0
        # What is stored is rounded up.
        taken = -((self.store.room() - self.store.quota) // 1024)
        return max(0, self.store.quota // 1024 - taken)

    def _clear(self, _argument: Argument) -> None:
        # Users of EIGER1 put mode enabled after each clear, because it disables it. A series that
        # is being written goes on: its unfinished files are not published yet.
        with self.machine.lock:
            if self.machine.firmware.clear_disables:
                self.config.update({"mode": "disabled"})
            writing = self._writing
        self.late.drop()
        self.store.clear(folders=not writing)

    def _initialize(self, _argument: Argument) -> None:
        self.reset()
