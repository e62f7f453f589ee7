"""What an EIGER is at the prompt: its resources, and what one does with them outside scans."""

import logging
import os
from collections.abc import Callable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any, cast

from ophyd import Component, Device, Kind
from ophyd.device import Staged

from ophyd_eiger import configuration_files
from ophyd_eiger.client import DcuClient, Timeouts
from ophyd_eiger.configuration import Configuration
from ophyd_eiger.deliveries import FetchedFile
from ophyd_eiger.destination import Destination, checked_prefix
from ophyd_eiger.errors import DcuError, TransferError, ValueRefusedError
from ophyd_eiger.home import FilesHome
from ophyd_eiger.journal import links
from ophyd_eiger.ledger import Ledger
from ophyd_eiger.live import Live
from ophyd_eiger.owed import take_on
from ophyd_eiger.point_settings import PointExposure, TriggersPerPoint
from ophyd_eiger.policy import FilePolicy
from ophyd_eiger.replies import shown
from ophyd_eiger.series import Acquisition
from ophyd_eiger.settings import Differences, Report
from ophyd_eiger.signals import Link
from ophyd_eiger.states import States
from ophyd_eiger.subsystem import NoSuchNameError
from ophyd_eiger.subsystems import (
    Detector,
    Filewriter,
    Monitor,
    Stream,
    Subsystem,
    System,
    refresh,
)
from ophyd_eiger.times import TimesTaken
from ophyd_eiger.triggering import TriggerMode
from ophyd_eiger.worker import EigerStatus, Worker

logger = logging.getLogger(__name__)


class EigerDevice(Device):
    """An EIGER's resources as components, and what is asked of it outside scans.

    `EigerDetector` adds the verbs of scans; its parameters are described there.
    """

    detector = Component(Detector, "")
    filewriter = Component(Filewriter, "")
    monitor = Component(Monitor, "")
    stream = Component(Stream, "")
    system = Component(System, "")
    live = Component(Live, "")
    triggers_per_point = Component(
        TriggersPerPoint, value=1, kind=Kind.config, doc="Triggers that a point takes"
    )
    exposure = Component(
        PointExposure,
        value=None,
        kind=Kind.omitted,
        doc="Exposure of a point's images in mode inte [s]",
    )

    def __init__(
        self,
        address: str,
        *,
        name: str,
        directory: "str | os.PathLike | Callable[[], str | os.PathLike]" = ".",
        prefix: str | None = None,
        api_version: str | None = None,
        timeouts: Timeouts | None = None,
        file_policy: FilePolicy | None = None,
        live: bool = False,
        parent: Device | None = None,
        **kwargs: Any,
    ) -> None:
        # As a Component the parent's own prefix stands before the address.
        start = max(address.rfind("http://"), address.rfind("https://"), 0)
        client = DcuClient(address[start:], api_version=api_version, timeouts=timeouts)
        self.link = Link(client, Worker(f"{name} worker"))
        self.directory = directory
        # Before it has its name, which is the prefix where there is no other.
        self._file_prefix = prefix if prefix is None else checked_prefix(name, prefix)
        self.file_policy = file_policy or FilePolicy()
        self._destination: Destination | None = None
        self._connected = False
        super().__init__(client.url, name=name, parent=parent, **kwargs)
        self.live.enabled = live
        states = States(self.name, self.detector, self.filewriter, self.monitor, self.link)
        self._acquisition = Acquisition(
            states, self.link, self._connect_once, self._triggers_a_point, self.live
        )
        self.link.make_way = self._acquisition.make_way
        self.link.interrupt = self._acquisition.interrupt
        self.link.refuse_what_loses = self._acquisition.refuse_what_loses
        self.link.state = lambda: self.detector.state.last
        self.link.after_command = self._after_command
        self.files_home = FilesHome(
            f"{self.name}_files",
            f"{client.url}/data",
            self._acquisition.bring_home,
            lambda: list(self._acquisition.deliveries),
        )
        self.times = TimesTaken(f"{self.name}_times", client.url, client.ledger)
        self.configuration = Configuration(
            self.name,
            self.subsystems,
            self.link,
            connect=self._connect_once,
            read=self.read_configuration,
            is_staged=lambda: self.is_staged,
        )

    # ---- at the prompt ----

    def __getattr__(self, name: str) -> Any:
        if "." in name or name.startswith("_"):
            return super().__getattr__(name)
        raise NoSuchNameError(self, name, [each for each in dir(type(self)) if each[0] != "_"])

    @property
    def is_staged(self) -> bool:
        """Whether it is staged, or being staged or unstaged."""
        return self._staged != Staged.no

    @property
    def file_prefix(self) -> str | None:
        """What the files' names start with, from the next stage on; None for the device's name."""
        return self._file_prefix

    @file_prefix.setter
    def file_prefix(self, prefix: str | None) -> None:
        """Take another one; a ValueError says what a name cannot start with."""
        self._file_prefix = prefix if prefix is None else checked_prefix(self.name, prefix)

    @property
    def subsystems(self) -> tuple[Subsystem, ...]:
        """The subsystems of the SIMPLON API."""
        return self.detector, self.filewriter, self.monitor, self.stream, self.system

    @property
    def address(self) -> str:
        """The URL of the DCU."""
        return self.link.client.url

    def connect(self) -> None:
        """Read every resource but the big arrays from the DCU.

        Raises
        ------
        DcuError
            If the DCU cannot be asked.
        """
        self.refresh()

    def refresh(self) -> None:
        """Read every resource but the big arrays anew from the DCU.

        Raises
        ------
        DcuError
            If the DCU cannot be asked.
        """
        refresh(self.subsystems)
        self._connected = True

    def wait_for_connection(self, all_signals: bool = False, timeout: Any = None) -> None:
        """Connect, as ophyd calls it; the DCU's own timeouts apply."""
        self.connect()

    def initialize(self) -> EigerStatus:
        """Set the detector up and wait until it is; energy, threshold and times become defaults.

        Raises
        ------
        DcuError
            If the detector could not be initialized.
        """
        status = self.detector.initialize.set(1)
        status.wait()
        return status

    @property
    def fetched(self) -> list[FetchedFile]:
        """The files that came home since the last `stage`: series by series, by their names."""
        deliveries = self._acquisition.deliveries
        # Copied first: the files' thread may be adding to it.
        at_home = [tuple(delivery.home.values()) for delivery in deliveries]
        return [file for files in at_home for file in sorted(files, key=attrgetter("path"))]

    @property
    def series_named(self) -> list[str]:
        """The series since the last `stage` whose images events name, in their order.

        One that was ended by a pause, and whose point was taken again, is none of them. Each is
        what its files' names start with.
        """
        return [each.basename for each in self._acquisition.deliveries if each.named]

    @property
    def views(self) -> list[Path]:
        """The view files written since the last `stage`, which have what events name."""
        views = [view for delivery in self._acquisition.deliveries for view in delivery.views]
        return [view.path for view in views if view.path is not None]

    @property
    def owed(self) -> dict[str, list[str]]:
        """What has not come home of series that are over: names of files by name of the series."""
        return {
            delivery.basename: owes
            for delivery in self._acquisition.transfer.owed
            if (owes := delivery.owes())
        }

    def fetch(self) -> list[FetchedFile]:
        """Bring home what is owed, also by processes that have ended; return what came.

        Series that no event needs are brought as far as the DCU has them. What is on its way
        already, as for another call, is waited for, too. A detector that still waits for triggers
        of a scan that is over is disarmed, because only that writes its last file.

        Raises
        ------
        TransferError
            Naming what is missing and why, or what is not over yet; it is still owed.
        DcuError
            If the DCU cannot be asked.
        """
        transfer = self._acquisition.transfer
        folders = self._folders_of_files()
        patience = self.link.client.timeouts.files
        self._acquisition.end_what_is_left()
        transfer.take_up_again()
        taken = take_on(transfer, folders, patience)
        for path in taken.busy:
            logger.info("%s: left to the process that takes it: %s", self.name, path)
        for dcu, paths in taken.elsewhere.items():
            logger.info("%s: left: %d series of another DCU, %s", self.name, len(paths), dcu)
        if taken.out_of_reach:
            path = taken.out_of_reach[0]
            logger.warning(
                "%s: not fetched: %d series whose notes of what they owe are not there, as %s: "
                "mount its folder's disk, and fetch again; if it was removed, remove its link "
                "too, %s",
                self.name,
                len(taken.out_of_reach),
                path,
                links() / path.name,
            )
        for reason in taken.unreadable:
            logger.warning("%s: not fetched: %s", self.name, reason)
        awaited = transfer.finished
        transfer.wait(patience, awaited)
        if taken.not_over:
            raise TransferError(f"{self.name}: not fetched yet: {'; '.join(taken.not_over)}")
        return [file for delivery in awaited for file in delivery.came()]

    def _folders_of_files(self) -> list[Path]:
        """Return the folder of the last staging; before the first one that it was given."""
        if self._destination is not None:
            return [self._destination.directory]
        given = self.directory
        # A function is not called for this, a template has many folders, and "." may be all.
        if callable(given) or "%" in os.fsdecode(given) or os.fsdecode(given) == ".":
            return []
        return [Path(given).expanduser().absolute()]

    def wait_for_files(self) -> None:
        """Wait until all series that are over are home and checked, as `unstage` does by itself.

        Raises
        ------
        TransferError
            Naming what is missing and why, also of scans before.
        """
        transfer = self._acquisition.transfer
        transfer.wait(self.link.client.timeouts.files, transfer.finished)

    def configure(self, d: Mapping[Any, Any] | None = None, **settings: Any) -> Any:
        """Set up in one call: what is not so already, in the order the hardware needs.

        Parameters
        ----------
        d : mapping
            Value by name: "count_time" for the detector's settings, "filewriter.nimages_per_file"
            for those of another subsystem; ophyd names of signals, too.
        **settings
            More of them, as `configure(count_time=0.1)`.

        Returns
        -------
        before, after : dict
            The readings of the configuration. `last_configuration` tells what was put, skipped
            and changed by itself, and is what IPython shows of them. A RunEngine gets what
            `configuration.Configuring` says.

        Raises
        ------
        UnknownSettingError, LimitError, ReadOnlyError, ValueRefusedError
            Before anything is put; the last one if `d` is no dict, or has what is in `settings`.
        """
        d = {} if d is None and settings else d
        if not isinstance(d, Mapping):
            raise ValueRefusedError(
                f"{self.name}: settings are a dict, as in configure({{'count_time': 0.1}}), and "
                f"not {shown(d)}"
            )
        if twice := sorted(set(d) & set(settings)):
            raise ValueRefusedError(f"{self.name}: {', '.join(twice)} is given twice")
        return self.configuration.configure({**d, **settings})

    @property
    def last_configuration(self) -> Report | None:
        """What the last `configure` put, skipped, and what the detector changed by itself."""
        return self.configuration.last

    def save_configuration(self, path: str | os.PathLike) -> Path:
        """Write every setting but the big arrays to a new JSON file and return its path.

        Raises
        ------
        ConfigurationFileError
            If the file exists, or cannot be written.
        StateError
            While it is staged, or in a plan.
        """
        return configuration_files.save(self.configuration, path)

    def restore_configuration(
        self, path: str | os.PathLike, *, other_detector: bool = False
    ) -> Report:
        """Put what differs from a saved configuration, in a safe order.

        Parameters
        ----------
        path : path
            A file of `save_configuration`.
        other_detector : bool
            Whether a file of another model or generation is taken, as far as it fits.

        Raises
        ------
        ConfigurationFileError
            If it cannot be read, or is another model's or generation's; nothing is put.
        """
        return configuration_files.restore(self.configuration, path, other_detector=other_detector)

    def diff_configuration(self, other: str | os.PathLike | Mapping[Any, Any]) -> Differences:
        """Ask the DCU and return what differs from a saved configuration, or from a dict.

        Returns
        -------
        Differences
            A list of (name, here, there, unit) that prints as a table.

        Raises
        ------
        ConfigurationFileError
            If the file cannot be used.
        """
        return configuration_files.differences(self.configuration, other)

    @property
    def ledger(self) -> Ledger:
        """Where the time went since the last `stage`: print(eiger.ledger.table())."""
        return self.link.client.ledger

    def destroy(self) -> None:
        """End what runs, the device's threads and its connections; files stay on the DCU."""
        self.live.close()
        self._acquisition.close()
        self.link.worker.close()
        self.link.reader.close()
        self.link.teller.close()
        self.link.client.close()
        super().destroy()

    def read_configuration(self) -> Any:
        """Return the settings, and where the files go.

        In a RunEngine's loop, while settings are put, it is a promise of them.
        """
        return self.configuration.when_done(self._read_configuration)

    def _read_configuration(self) -> dict[str, Any]:
        readings = cast("dict[str, Any]", super().read_configuration())
        if self._destination is not None:
            readings.update(self._destination.readings())
        return readings

    def describe_configuration(self) -> dict[str, Any]:
        """Return the data keys of the settings."""
        keys = cast("dict[str, Any]", super().describe_configuration())
        if self._destination is not None:
            keys.update(self._destination.describe())
        return keys

    # ---- inside ----

    def __repr__(self) -> str:
        # ophyd's names some hundred signals, and plans write it into each run's start document.
        return f"{type(self).__name__}({self.address!r}, name={self.name!r})"

    __str__ = __repr__

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Say in a line what it is, where IPython shows it."""
        description = self.detector.description.last
        which = f"{description}" if description else "nothing was asked of it yet"
        printer.text(f"{type(self).__name__} {self.name!r} at {self.address}: {which}")

    def _triggers_a_point(self) -> int:
        """Return how many triggers a point takes.

        Raises
        ------
        ValueError
            If two settings contradict each other.
        """
        triggers = int(self.triggers_per_point.get())  # pyright: ignore[reportArgumentType]
        listed = len(self.exposure.seconds)
        if self.detector.trigger_mode.last != TriggerMode.INTE or listed <= 1:
            return triggers
        if triggers not in (1, listed):
            raise ValueError(
                f"exposure lists {listed} exposures a point, triggers_per_point is {triggers}"
            )
        return listed

    def _connect_once(self) -> None:
        if not self._connected:
            self.refresh()

    def _after_command(self, subsystem: str, command: str) -> None:
        if command in ("initialize", "restart"):
            self.configuration.note_initialized(f"nothing was skipped: {command} was sent since")
        if command == "initialize":
            self.refresh()
            self.live.note_initialized()
        if (subsystem, command) in (("detector", "initialize"), ("detector", "disarm")):
            self._acquisition.states.note_idle()
            self._acquisition.ending.note_known()
        if (subsystem, command) == ("system", "restart"):
            self._connected = False
        if (subsystem, command) == ("filewriter", "clear"):
            # On EIGER1 it is switched off too; where that cannot be asked, clear went well all the
            # same.
            try:
                self.filewriter.mode.get()
            except DcuError as error:
                logger.debug("%s: after clear: %s", self.name, error)
        if subsystem == "detector" and command in ("cancel", "abort"):
            self._acquisition.note_ended()
