"""The EIGER as one ophyd device: bluesky's verbs, mapped onto `ophyd_eiger.series`.

What the verbs send to the DCU, in order, is written at the top of that module. `read`, `describe`,
their configuration twins, `collect_asset_docs`, `pause`, `resume` and `stop` send nothing
themselves.
"""

import itertools
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from ophyd import Component, Device
from ophyd.device import Staged
from ophyd.utils.errors import RedundantStaging

from ophyd_eiger.client import DcuClient, Timeouts
from ophyd_eiger.deliveries import FetchedFile
from ophyd_eiger.documents import point_documents
from ophyd_eiger.errors import NotStagedError, StateError
from ophyd_eiger.points import Point
from ophyd_eiger.series import Acquisition
from ophyd_eiger.signals import EigerSignal, Link
from ophyd_eiger.subsystems import (
    Detector,
    Filewriter,
    Monitor,
    Stream,
    Subsystem,
    System,
    refresh,
)
from ophyd_eiger.worker import EigerStatus, Worker

logger = logging.getLogger(__name__)


class EigerDetector(Device):
    """A DECTRIS EIGER detector, driven over its DCU's SIMPLON API.

    Each event records `<name>_series_id` and the external key `<name>_image`, shaped
    (images a point, y, x), which databroker fills through the handler "EIGER_SIMPLON".

    Parameters
    ----------
    address : str
        Where the DCU is: "http://dcu", "dcu:8080", "10.42.42.20", ... As a Component of another
        device give it with "http://", or with `add_prefix=()`.
    name : str
        Name of the device; keyword only.
    directory : path
        Where the files go; made when it is needed.
    prefix : str, optional
        What the files' names start with; the device's name if not given.
    api_version : str, optional
        API version in the URLs; the DCU is asked if not given.
    timeouts : Timeouts, optional
        How long each kind of call may take.

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

    def __init__(
        self,
        address: str,
        *,
        name: str,
        directory: str | os.PathLike = ".",
        prefix: str | None = None,
        api_version: str | None = None,
        timeouts: Timeouts | None = None,
        parent: Device | None = None,
        **kwargs: Any,
    ) -> None:
        # As a Component the parent's own prefix stands before the address.
        start = max(address.rfind("http://"), address.rfind("https://"), 0)
        client = DcuClient(address[start:], api_version=api_version, timeouts=timeouts)
        self.link = Link(client, Worker(f"{name} worker"))
        self.directory = directory
        self.file_prefix = prefix
        self._connected = False
        self._asset_docs: list[tuple[str, dict]] = []
        self._recorded: list[EigerSignal] | None = None
        super().__init__(client.url, name=name, parent=parent, **kwargs)
        self._acquisition = Acquisition(
            self.name, self.detector, self.filewriter, self.link, self._connect_once
        )
        self.link.make_way = self._acquisition.make_way
        self.link.interrupt = self._acquisition.interrupt
        self.link.refuse_while_staged = self._acquisition.refuse_while_staged
        self.link.after_command = self._after_command
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

    def configure(self, d: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Refuse: ophyd's own would hold up the RunEngine while the DCU works.

        Raises
        ------
        StateError
        """
        raise StateError(
            f"{self.name}: set one value after the other, as in "
            f"bps.mv({self.name}.detector.count_time, 0.1); asked for: {', '.join(d)}"
        )

    def destroy(self) -> None:
        """End what runs, the device's threads and its connections; files stay on the DCU."""
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
        if self._staged != Staged.no:
            raise RedundantStaging(f"{self.name} is staged already; unstage it first")
        directory = Path(self.directory).expanduser().absolute()
        prefix = self.file_prefix or self.name
        if "/" in prefix or "$" in prefix:
            raise ValueError(f"{self.name}: a file prefix holds no '/' and no '$': {prefix!r}")
        self._recorded = None
        self._asset_docs = []
        self.link.scanned.clear()
        self._staged = Staged.yes
        return self._acquisition.stage(directory, prefix, self._note_not_staged)

    def trigger(self) -> EigerStatus:
        """Take one point of `nimages` images; done when they are exposed."""
        return self._acquisition.trigger()

    def unstage(self) -> EigerStatus:
        """End what runs and put back what stage changed; done when every file is home."""
        self._staged = Staged.no
        return self._acquisition.unstage()

    def stop(self, *, success: bool = False) -> EigerStatus:
        """End the exposure and the series that run now; its finished points stay."""
        return self._acquisition.stop()

    def read(self) -> dict[str, Any]:
        """Return the last point: its series and the id of its images' Datum.

        Raises
        ------
        NotStagedError
            If there is no finished point to read.
        """
        point = self._last_point()
        series, delivery = point.series, point.series.delivery
        datum_id, documents = point_documents(
            delivery.directory, delivery.master, point.first, series.promise
        )
        self._asset_docs.extend(documents)
        readings = cast("dict[str, Any]", super().read())
        for signal in self._signals_of_events():
            readings.update(signal.read())
        readings[f"{self.name}_series_id"] = {"value": series.series_id, "timestamp": point.time}
        readings[f"{self.name}_image"] = {"value": datum_id, "timestamp": point.time}
        return readings

    def describe(self) -> dict[str, Any]:
        """Return the data keys; the images' shape and type are known once the detector is armed.

        Raises
        ------
        NotStagedError
            If it was not armed yet.
        """
        promise = self._acquisition.promise
        if promise is None:
            raise NotStagedError(
                f"{self.name}: the images' shape and type are known when stage is done; wait for "
                "its Status first"
            )
        self._acquisition.promise_given = True
        keys = cast("dict[str, Any]", super().describe())
        for signal in self._signals_of_events():
            keys.update(signal.describe())
        keys[f"{self.name}_series_id"] = {
            "source": f"{self.address}/detector/command/arm",
            "dtype": "integer",
            "shape": [],
        }
        keys[f"{self.name}_image"] = promise.data_key(f"{self.address}/data")
        return keys

    def collect_asset_docs(self) -> Iterator[tuple[str, dict]]:
        """Give the Resource and Datum documents of what was read, each once."""
        documents, self._asset_docs = self._asset_docs, []
        yield from documents

    # ---- inside ----

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
        if command == "initialize":
            self.refresh()
        if (subsystem, command) == ("system", "restart"):
            self._connected = False
        if subsystem == "detector" and command in ("cancel", "abort"):
            self._acquisition.note_ended()


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
