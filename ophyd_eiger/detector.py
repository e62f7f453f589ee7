"""The EIGER as one ophyd device: bluesky's verbs, mapped onto `ophyd_eiger.series`.

What the verbs send to the DCU, in order, is written at the top of that module. `read`, `describe`,
their configuration and collect twins, `collect_asset_docs`, `pause`, `resume` and `stop` send
nothing themselves.
"""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from ophyd import Device, Kind
from ophyd.device import Staged
from ophyd.utils.errors import RedundantStaging

from ophyd_eiger.containing import forward_asset_docs
from ophyd_eiger.destination import Destination
from ophyd_eiger.documents import Promise
from ophyd_eiger.errors import NotStagedError, StateError
from ophyd_eiger.naming import DatumNaming, Naming, StreamNaming
from ophyd_eiger.points import Point
from ophyd_eiger.signals import EigerSignal
from ophyd_eiger.tended import TendedDevice
from ophyd_eiger.triggering import TriggerInfo, TriggerMode
from ophyd_eiger.worker import EigerStatus

# The stream that a plain fly scan, such as bp.fly, records in.
FLY_STREAM = "primary"


class EigerDetector(TendedDevice):
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
    file_policy : FilePolicy, optional
        What becomes of the files: whether unstage waits for them, whose they are, whether they are
        deleted on the DCU; `eiger.file_policy` later.
    live : bool
        Whether each event has live numbers; `eiger.live.enabled` later.

    Examples
    --------
    >>> eiger = EigerDetector("http://dcu", name="eiger", directory="data")
    >>> eiger.initialize()
    >>> eiger.detector.count_time.set(0.1).wait()
    >>> RE(bp.count([eiger], num=5))
    """

    naming_class: type[Naming] = DatumNaming

    def __new__(cls, *_args: Any, documents: str = "datum", **_kwargs: Any) -> "EigerDetector":
        """Make the class that `documents` asks for."""
        made: Any = _class_for(cls, documents)
        return super().__new__(made)

    def __init__(self, address: str, *, name: str, documents: str = "datum", **kwargs: Any) -> None:
        self._recorded: list[EigerSignal] | None = None
        self._always_read: tuple[Any, ...] | None = None
        self._collected: list[tuple[str, Point]] = []
        self._staged_itself = False
        super().__init__(address, name=name, **kwargs)
        self._naming = self.naming_class(self._image_key)
        forward_asset_docs(self)

    def stage(self) -> EigerStatus:
        """Check, set up and arm; done when the detector waits for its first trigger.

        Raises
        ------
        RedundantStaging
            If it is staged already.
        StateError
            While it is being recovered.
        """
        if self.recovery.is_under_way:
            raise StateError(
                f"{self.name}: it is being recovered, and its settings are not back yet; wait for "
                "the Status of recover()"
            )
        if self._staged_itself:
            # By a fly scan that failed before it came to its end.
            self.unstage()
        if self._staged != Staged.no:
            raise RedundantStaging(f"{self.name} is staged already; unstage it first")
        self._destination = Destination.of(self.name, self.directory, self.file_prefix)
        self._recorded = self._always_read = None
        self._collected = []
        self._naming = self.naming_class(self._image_key)
        self.link.scanned.clear()
        self._staged = Staged.yes
        return self._acquisition.stage(
            self._destination.directory,
            self._destination.prefix,
            self.file_policy,
            self._note_not_staged,
        )

    def trigger(self) -> EigerStatus:
        """Take one point; done when its images are exposed."""
        return self._acquisition.trigger(self.exposure.seconds if self._exposes_by_point else ())

    def unstage(self) -> EigerStatus:
        """End what runs and put back what stage changed; done when every file is home."""
        self._staged = Staged.no
        self._staged_itself = False
        return self._acquisition.unstage(self._naming.refuse_turns)

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
        """End a fly scan that staged itself: nobody else would, if it is not taken up again.

        Else what runs goes on, until it is taken again or ended by unstage.
        """
        self._acquisition.note_paused()
        if self._staged_itself:
            self.unstage()
        super().pause()

    def prepare(self, value: TriggerInfo | Mapping[str, Any]) -> EigerStatus:
        """Set up and arm for a fly scan; what is changed for it is put back by `unstage`.

        Parameters
        ----------
        value : TriggerInfo or dict
            What it takes; a dict has the same words.

        Raises
        ------
        TypeError, ValueError
            If it makes no sense.
        """
        info = TriggerInfo(**value) if isinstance(value, Mapping) else value
        if not isinstance(info, TriggerInfo):
            raise TypeError(f"{self.name}: prepare takes a TriggerInfo or a dict, not {value!r}")
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

    def keep_points(self, points: int) -> int:
        """Have no document of the points of a finished fly scan from this number on.

        For plans that know more than the detector, as that a motor stopped early: between
        `complete` and `collect`. The images stay in the files, and the views have none of them.

        Returns
        -------
        int
            How many are left out.
        """
        return self._acquisition.flying.keep(points)

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
        self._unstage_if_flown()

    def collect_asset_docs(self) -> Iterator[tuple[str, dict]]:
        """Give the Resource and Datum documents of what was read or flown, each once."""
        points = self._acquisition.flying.points()
        if points:
            self._collected += zip(self._naming.ask(*points), points, strict=True)
        yield from list(self._naming.answer())

    # ---- inside ----

    @property
    def _image_key(self) -> str:
        return f"{self.name}_image"

    def _readings(self, point: Point, image_id: str | None) -> dict[str, Any]:
        if self._always_read is None:
            self._always_read = tuple(_read_with(self))
        readings: dict[str, Any] = {}
        for part in (*self._always_read, *self._signals_of_events()):
            readings.update(part.read())
        if point.exposures and self._exposes_by_point:
            value = self.exposure.reading(point.exposures)
            readings[self.exposure.name] = {"value": value, "timestamp": point.time}
        series_id = point.series.series_id
        readings[f"{self.name}_series_id"] = {"value": series_id, "timestamp": point.time}
        if image_id is not None:
            readings[self._image_key] = {"value": image_id, "timestamp": point.time}
        return readings

    @property
    def _exposes_by_point(self) -> bool:
        """Whether the exposure of points counts; in other modes it may be left from before."""
        return self.detector.trigger_mode.last == TriggerMode.INTE and bool(self.exposure.seconds)

    def _described(self) -> dict[str, Any]:
        keys: dict[str, Any] = {}
        for signal in self._signals_of_events():
            keys.update(signal.describe())
        if self._exposes_by_point:
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
        within a run is in each event: times, energies, and what else was set between stage and its
        first event, because bp.scan does not read a device's signals beside the device itself.
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

    def _note_not_staged(self) -> None:
        self._staged = Staged.no


class EigerStreamDetector(EigerDetector):
    """An EIGER whose runs name its images by StreamResource and StreamDatum.

    `EigerDetector(..., documents="stream")` makes one. The RunEngine takes an object that has
    `get_index` for a writer of streams, so that this cannot be a setting of one class.
    """

    naming_class = StreamNaming
    # Nothing but StreamDatum tells of a fly scan's points.
    collect = None  # pyright: ignore[reportAssignmentType]

    def kickoff(self) -> EigerStatus:
        """Begin a fly scan, which is staged before.

        Raises
        ------
        NotStagedError
            If it is not, as in `bp.fly`, which declares no stream for its images.
        """
        if self._staged == Staged.no:
            raise NotStagedError(
                f"{self.name}: with documents='stream' a fly scan's stream is declared before "
                "kickoff, which bp.fly does not do: use stage, prepare, declare_stream, kickoff, "
                "complete and collect in a plan, or documents='datum'"
            )
        return super().kickoff()

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


def _read_with(device: Device) -> Iterator[Any]:
    """Give the parts whose readings make up those of a device.

    ophyd looks through all components, here some 200, whenever it reads a device; here that is
    done once a staging, so that a changed `kind` counts from the next one on.
    """
    for part in (getattr(device, name) for name in device.component_names):
        if Kind.normal not in part.kind:
            continue
        if isinstance(part, Device) and type(part).read is Device.read:
            yield from _read_with(part)
        else:
            yield part


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
