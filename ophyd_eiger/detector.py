"""The EIGER as one ophyd device: bluesky's verbs, mapped onto `ophyd_eiger.series`.

What the verbs send to the DCU, in order, is written at the top of that module. `read`, `describe`,
their configuration and collect twins, `collect_asset_docs`, `pause`, `resume` and `stop` send
nothing themselves.
"""

import itertools
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from ophyd import Component, Device, Kind
from ophyd.device import Staged
from ophyd.utils.errors import RedundantStaging

from ophyd_eiger import configuration_files
from ophyd_eiger.client import DcuClient, Timeouts
from ophyd_eiger.configuration import Configuration
from ophyd_eiger.deliveries import FetchedFile
from ophyd_eiger.destination import Destination
from ophyd_eiger.documents import Promise
from ophyd_eiger.errors import NotStagedError
from ophyd_eiger.ledger import Ledger
from ophyd_eiger.live import Live
from ophyd_eiger.naming import DatumNaming, Naming, StreamNaming
from ophyd_eiger.point_settings import PointExposure, TriggersPerPoint
from ophyd_eiger.points import Point
from ophyd_eiger.series import Acquisition
from ophyd_eiger.settings import Differences, Report
from ophyd_eiger.signals import EigerSignal, Link
from ophyd_eiger.states import States
from ophyd_eiger.subsystems import (
    Detector,
    Filewriter,
    Monitor,
    Stream,
    Subsystem,
    System,
    refresh,
)
from ophyd_eiger.triggering import TriggerInfo, TriggerMode
from ophyd_eiger.worker import EigerStatus, Worker

logger = logging.getLogger(__name__)

# The stream that a plain fly scan, such as bp.fly, records in.
FLY_STREAM = "primary"


class EigerDetector(Device):
    """A DECTRIS EIGER detector, driven over its DCU's SIMPLON API.

    Each event records `<name>_series_id` and has the images `<name>_image`, shaped (images a
    point, y, x).

    Parameters
    ----------
    address : str
        Where the DCU is: "http://dcu", "dcu:8080", "10.42.42.20", ... As a Component of another
        device give it with "http://", or with `add_prefix=()`.
    name : str
        Name of the device; keyword only.
    directory : path or callable
        Where the files go; made when it is needed. A path; one with times in it as strftime
        writes them ("/data/%Y/%m/%d"), or a function that returns one; asked at each stage.
    prefix : str, optional
        What the files' names start with; the device's name if not given.
    documents : {"datum", "stream"}
        How runs name the images: "datum" (Resource and Datum) for databroker, which fills them
        through the handler "EIGER_SIMPLON"; "stream" (StreamResource and StreamDatum) for tiled,
        which reads them as HDF5. It picks the class, because the RunEngine goes by that.
    api_version : str, optional
        API version in the URLs; the DCU is asked if not given.
    timeouts : Timeouts, optional
        How long each kind of call may take.
    live : bool
        Whether each event has live numbers; `eiger.live.enabled` later.

    Examples
    --------
    >>> eiger = EigerDetector("http://dcu", name="eiger", directory="data")
    >>> eiger.initialize()
    >>> eiger.detector.count_time.set(0.1).wait()
    >>> RE(bp.count([eiger], num=5))
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

    naming_class: type[Naming] = DatumNaming

    def __new__(cls, *_args: Any, documents: str = "datum", **_kwargs: Any) -> "EigerDetector":
        """Make the class that `documents` asks for."""
        made: Any = _class_for(cls, documents)
        return super().__new__(made)

    def __init__(
        self,
        address: str,
        *,
        name: str,
        directory: "str | os.PathLike | Callable[[], str | os.PathLike]" = ".",
        prefix: str | None = None,
        documents: str = "datum",
        api_version: str | None = None,
        timeouts: Timeouts | None = None,
        live: bool = False,
        parent: Device | None = None,
        **kwargs: Any,
    ) -> None:
        # As a Component the parent's own prefix stands before the address.
        start = max(address.rfind("http://"), address.rfind("https://"), 0)
        client = DcuClient(address[start:], api_version=api_version, timeouts=timeouts)
        self.link = Link(client, Worker(f"{name} worker"))
        self.directory = directory
        self.file_prefix = prefix
        self._destination: Destination | None = None
        self._connected = False
        self._recorded: list[EigerSignal] | None = None
        self._collected: list[tuple[str, Point]] = []
        self._staged_itself = False
        super().__init__(client.url, name=name, parent=parent, **kwargs)
        self.live.enabled = live
        self._naming = self.naming_class(self._image_key)
        states = States(self.name, self.detector, self.filewriter, self.monitor, self.link)
        self._acquisition = Acquisition(
            states, self.link, self._connect_once, self._triggers_a_point, self.live
        )
        self.link.make_way = self._acquisition.make_way
        self.link.interrupt = self._acquisition.interrupt
        self.link.refuse_while_staged = self._acquisition.refuse_while_staged
        self.link.after_command = self._after_command
        self.configuration = Configuration(
            self.name,
            self.subsystems,
            self.link,
            connect=self._connect_once,
            read=self.read_configuration,
            is_staged=lambda: self._staged != Staged.no,
        )
        _forward_asset_docs(self)

    # ---- at the prompt ----

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
        """The files that came home since the last `stage`."""
        deliveries = self._acquisition.deliveries
        # Copied first: the files' thread may be adding to it.
        return [fetched for delivery in deliveries for fetched in tuple(delivery.home.values())]

    @property
    def views(self) -> list[Path]:
        """The view files written since the last `stage`, which have what events name."""
        views = [view for delivery in self._acquisition.deliveries for view in delivery.views]
        return [view.path for view in views if view.path is not None]

    def configure(self, d: Mapping[Any, Any]) -> Any:
        """Set up in one call: what is not so already, in the order the hardware needs.

        Parameters
        ----------
        d : mapping
            Value by name: "count_time" for the detector's settings, "filewriter.nimages_per_file"
            for those of another subsystem; ophyd names of signals, too.

        Returns
        -------
        before, after : dict
            The readings of the configuration. `last_configuration` tells what was put, skipped
            and changed by itself. A RunEngine gets what `configuration.Configuring` says.

        Raises
        ------
        UnknownSettingError, LimitError, ReadOnlyError
            Before anything is put.
        """
        return self.configuration.configure(d)

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

    # ---- bluesky's verbs ----

    def stage(self) -> EigerStatus:
        """Check, set up and arm; done when the detector waits for its first trigger.

        Raises
        ------
        RedundantStaging
            If it is staged already.
        """
        if self._staged_itself:
            # By a fly scan that failed before it came to its end.
            self.unstage()
        if self._staged != Staged.no:
            raise RedundantStaging(f"{self.name} is staged already; unstage it first")
        self._destination = Destination.of(self.name, self.directory, self.file_prefix)
        self._recorded = None
        self._collected = []
        self._naming = self.naming_class(self._image_key)
        self.link.scanned.clear()
        self._staged = Staged.yes
        return self._acquisition.stage(
            self._destination.directory, self._destination.prefix, self._note_not_staged
        )

    def trigger(self) -> EigerStatus:
        """Take one point; done when its images are exposed."""
        return self._acquisition.trigger(self.exposure.seconds)

    def unstage(self) -> EigerStatus:
        """End what runs and put back what stage changed; done when every file is home."""
        self._staged = Staged.no
        self._staged_itself = False
        return self._acquisition.unstage()

    def stop(self, *, success: bool = False) -> EigerStatus:
        """End what runs now; finished points stay.

        Parameters
        ----------
        success : bool
            Whether a fly scan ends in good order, with the points that are done; its `complete`
            fails otherwise, as the `trigger` of a step scan does.
        """
        return self._acquisition.stop(success=success)

    def pause(self) -> None:
        """Note that the RunEngine may take up a scan before an event that it dropped."""
        self._naming.note_pause()
        super().pause()

    def prepare(self, value: TriggerInfo | Mapping[str, Any]) -> EigerStatus:
        """Set up and arm for a fly scan; what is changed for it is put back by `unstage`.

        Parameters
        ----------
        value : TriggerInfo or dict
            What it takes; a dict has the same words.

        Raises
        ------
        ValueError
            If it makes no sense.
        """
        info = TriggerInfo(**value) if isinstance(value, Mapping) else value
        return self._acquisition.flying.prepare(info)

    def kickoff(self) -> EigerStatus:
        """Begin a fly scan; done when it was triggered, or when it waits for its signals.

        Without `prepare` it is one series of the detector's own numbers. Without `stage`, as in
        `bp.fly`, it is staged here, and unstaged when all of it is collected.
        """
        if self._staged == Staged.no:
            self.stage()
            self._staged_itself = True
        return self._acquisition.flying.kickoff()

    def complete(self) -> EigerStatus:
        """Wait for the fly scan; done when its images are taken."""
        return self._acquisition.flying.complete()

    def read(self) -> dict[str, Any]:
        """Return the last point: its series, its settings, and how its images are named.

        Raises
        ------
        NotStagedError
            If there is no finished point to read.
        """
        point = self._last_point()
        (image_id,) = self._naming.ask(point)
        return self._readings(point, image_id)

    def describe(self) -> dict[str, Any]:
        """Return the data keys; the images' shape and type are known once the detector is armed.

        Raises
        ------
        NotStagedError
            If it was not armed yet.
        """
        keys = cast("dict[str, Any]", super().describe())
        keys.update(self._described())
        return keys

    def describe_collect(self) -> dict[str, Any]:
        """Return the data keys of a fly scan's events.

        Before kickoff, when a plan declares the stream by its name, the keys alone. After it, as
        in `bp.fly`, which asks when it collects and names no stream: by the name of their stream.
        """
        keys = self.describe()
        return {FLY_STREAM: keys} if self._acquisition.flying.is_under_way else keys

    def collect(self) -> Iterator[dict[str, Any]]:
        """Give the events of a fly scan that were not given yet."""
        collected, self._collected = self._collected, []
        for image_id, point in collected:
            readings = self._readings(point, image_id)
            # Live numbers are taken point by point, which a fly scan has no time for.
            readings.update(self.live.unknown(point.time))
            yield {
                "time": point.time,
                "data": {key: reading["value"] for key, reading in readings.items()},
                "timestamps": {key: reading["timestamp"] for key, reading in readings.items()},
                "filled": {self._image_key: False},
            }

    def collect_asset_docs(self) -> Iterator[tuple[str, dict]]:
        """Give the Resource and Datum documents of what was read or flown, each once."""
        points = self._acquisition.flying.points()
        if points:
            self._collected += zip(self._naming.ask(*points), points, strict=True)
        yield from list(self._naming.answer())
        self._unstage_if_flown()

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

    @property
    def _image_key(self) -> str:
        return f"{self.name}_image"

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

    def _readings(self, point: Point, image_id: str | None) -> dict[str, Any]:
        readings = cast("dict[str, Any]", super().read())
        for signal in self._signals_of_events():
            readings.update(signal.read())
        if point.exposures:
            value = self.exposure.reading(point.exposures)
            readings[self.exposure.name] = {"value": value, "timestamp": point.time}
        series_id = point.series.series_id
        readings[f"{self.name}_series_id"] = {"value": series_id, "timestamp": point.time}
        if image_id is not None:
            readings[self._image_key] = {"value": image_id, "timestamp": point.time}
        return readings

    def _described(self) -> dict[str, Any]:
        keys: dict[str, Any] = {}
        for signal in self._signals_of_events():
            keys.update(signal.describe())
        if self.detector.trigger_mode.last == TriggerMode.INTE and self.exposure.seconds:
            keys.update(self.exposure.describe())
        keys[f"{self.name}_series_id"] = {
            "source": f"{self.address}/detector/command/arm",
            "dtype": "integer",
            "dtype_numpy": "<i8",
            "shape": [],
        }
        keys[self._image_key] = self._promise().data_key(
            f"{self.address}/data", self._naming.external
        )
        return keys

    def _promise(self) -> Promise:
        arming = self._acquisition.arming
        if arming.promise is None:
            raise NotStagedError(
                f"{self.name}: the images' shape and type are known when stage is done; wait for "
                "its Status first"
            )
        arming.promise_given = True
        self._naming.note_described()
        return arming.promise

    def _unstage_if_flown(self) -> None:
        flight = self._acquisition.flying.flight
        if self._staged_itself and flight is not None and flight.over:
            self.unstage()

    def _last_point(self) -> Point:
        point = self._acquisition.point
        if self._acquisition.busy:
            raise NotStagedError(
                f"{self.name}: the exposure is not over; wait for trigger's Status before reading"
            )
        if point is None:
            raise NotStagedError(f"{self.name}: no images were taken; trigger it before reading")
        return point

    def _signals_of_events(self) -> list[EigerSignal]:
        """Return the settings that events record, the same for all events of a run.

        The descriptor has the configuration of a run's first event only. So what plans change
        within a run is in each event: times, energies, and what else was set since stage, because
        bp.scan does not read a device's signals beside the device itself.
        """
        if self._recorded is None:
            detector = self.detector
            always = [
                detector.count_time,
                detector.frame_time,
                detector.photon_energy,
                detector.threshold_energy,
            ]
            scanned = [signal for signal in self.link.scanned if signal not in always]
            self._recorded = [signal for signal in always + scanned if signal.has_value]
        return self._recorded

    def _connect_once(self) -> None:
        if not self._connected:
            self.refresh()

    def _note_not_staged(self) -> None:
        self._staged = Staged.no

    def _after_command(self, subsystem: str, command: str) -> None:
        if command in ("initialize", "restart"):
            self.configuration.note_initialized(f"nothing was skipped: {command} was sent since")
        if command == "initialize":
            self.refresh()
            self.live.note_initialized()
        if (subsystem, command) == ("system", "restart"):
            self._connected = False
        if subsystem == "detector" and command in ("cancel", "abort"):
            self._acquisition.note_ended()


class EigerStreamDetector(EigerDetector):
    """An EIGER whose runs name its images by StreamResource and StreamDatum.

    `EigerDetector(..., documents="stream")` makes one. The RunEngine takes an object that has
    `get_index` for a writer of streams, so that this cannot be a setting of one class.
    """

    naming_class = StreamNaming
    # Nothing but StreamDatum tells of a fly scan's points.
    collect = None  # pyright: ignore[reportAssignmentType]

    def get_index(self) -> int:
        """Return how many points of a fly scan, or events of a step scan, there are so far."""
        flying = self._acquisition.flying
        if flying.flight is not None:
            return flying.points_done
        return cast("StreamNaming", self._naming).events

    def read(self) -> dict[str, Any]:
        """Return the last point: its series and settings; its images are named by StreamDatum.

        Raises
        ------
        NotStagedError
            If there is no finished point to read.
        """
        point = self._last_point()
        self._naming.ask(point)
        return self._readings(point, None)

    def describe_collect(self) -> dict[str, Any]:
        """Return the data key of a fly scan's images, which are all that it records."""
        key = self._promise().data_key(f"{self.address}/data", self._naming.external)
        return {self._image_key: key}

    def collect_asset_docs(self, index: int | None = None) -> Iterator[tuple[str, dict]]:
        """Give the StreamResource and StreamDatum documents of what was read or flown, each once.

        Parameters
        ----------
        index : int, optional
            Up to which point of a fly scan; all that are done if not given.
        """
        if points := self._acquisition.flying.points(index):
            self._naming.ask(*points)
        yield from list(self._naming.answer())
        self._unstage_if_flown()


DOCUMENTS = {"datum": EigerDetector, "stream": EigerStreamDetector}


def _class_for(cls: type[EigerDetector], documents: str) -> type[EigerDetector]:
    """Return the class that speaks of images in these documents.

    Raises
    ------
    ValueError
        If there are no such documents.
    """
    if documents not in DOCUMENTS:
        raise ValueError(f"documents={documents!r} is not one of {', '.join(DOCUMENTS)}")
    wanted = DOCUMENTS[documents]
    if issubclass(cls, wanted):
        return cls
    if cls is EigerDetector:
        return wanted
    # A beamline's own subclass.
    return type(f"{cls.__name__}Stream", (EigerStreamDetector, cls), {})


def _forward_asset_docs(detector: EigerDetector) -> None:
    """Let devices that contain the detector pass its documents on.

    The RunEngine asks the device that it reads, and a plain ophyd Device does not ask its
    components: without this, events of a parent would name images that no document describes.
    """
    ancestor = detector.parent
    while ancestor is not None:
        if not hasattr(type(ancestor), "collect_asset_docs"):
            before = ancestor.__dict__.get("collect_asset_docs")
            ancestor.__dict__["collect_asset_docs"] = _chained(before, detector.collect_asset_docs)
        ancestor = ancestor.parent


def _chained(
    before: Callable[[], Iterator] | None, after: Callable[[], Iterator]
) -> Callable[[], Iterator]:
    if before is None:
        return after
    return lambda: itertools.chain(before(), after())
