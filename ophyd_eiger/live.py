"""Live numbers and images of a detector, through its DCU's monitor.

`eiger.live.image` is the newest image, as a signal; `take` gives each point's sum, maximum and mean
of regions and its saturated pixels. Both are extras: whatever becomes of the monitor, a scan goes
on, with NaN for what is not known. What the monitor holds is `ophyd_eiger.monitor_buffer`'s to say,
which image is a point's is `ophyd_eiger.point_images`'; the arithmetic is in `ophyd_eiger.regions`,
the thread that looks for images in `ophyd_eiger.live_image`.
"""

import base64
import json
import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from ophyd import Component, Device, Kind

from ophyd_eiger import regions
from ophyd_eiger.errors import (
    DcuError,
    DcuTimeoutError,
    DcuUnreachableError,
    EigerError,
    LostReplyError,
    NotServedError,
    ReplyError,
    TiffError,
)
from ophyd_eiger.live_image import LiveImage
from ophyd_eiger.monitor_buffer import TIFF_TYPE, MonitorBuffer, MonitorImage
from ophyd_eiger.point_images import PointImages
from ophyd_eiger.signals import Link
from ophyd_eiger.tiff import decode
from ophyd_eiger.worker import EigerStatus

logger = logging.getLogger(__name__)

# How long a monitor that did not answer is left alone, in s.
LEFT_ALONE_S = 10.0
# What a mask is no longer true after: config keys as PUT replies name them.
MASK_KEYS = {"pixel_mask", "threshold/1/pixel_mask", "roi_mode"}


class Live(Device):
    """The monitor as live image and as numbers of each point.

    While `enabled` (off by default), each event has `<name>_<roi>_sum`, `_max` and `_mean` for each
    of `rois`, `<name>_saturated` and `<name>_image_number`, in counts, pixels, and images of the
    series from 1. They are those of the point's last image, or of its newest that the monitor
    holds; NaN where it holds none of this point. Masked pixels are left out of all of them, and a
    pixel that holds 2^bits - 1 is saturated. `enabled` and `rois` count from the next `stage` on.

    Attributes
    ----------
    enabled : bool
        Whether points have live numbers.
    hinted : tuple of str
        Which of "sum", "max" and "mean" BestEffortCallback plots, by default the sum.

    Examples
    --------
    >>> eiger.live.enabled = True
    >>> eiger.live.rois = {"full": None, "peak": (500, 240, 30, 20)}
    >>> eiger.live.start()
    >>> eiger.live.image.get()
    """

    image = Component(
        LiveImage, add_prefix=(), kind=Kind.omitted, doc="Newest image of the monitor"
    )

    def __init__(self, prefix: str = "", *, parent: Any = None, **kwargs: Any) -> None:
        self.owner = parent
        self.enabled = False
        self.hinted: tuple[str, ...] = ("sum",)
        self._rois: dict[str, regions.Box | None] = {"full": None}
        # Of the staging; None where none is staged with live numbers.
        self._staged_rois: dict[str, regions.Box | None] | None = None
        self._regions: regions.Regions | None = None
        self._readings: dict[str, dict[str, Any]] = {}
        self._warned = False
        self._left_alone_until = 0.0
        self._seen: tuple[int, int] = (-1, 0)
        self._since = 0.0
        self._closed = threading.Event()
        self.buffer = MonitorBuffer(parent.monitor, self.link.client)
        super().__init__(prefix, parent=parent, **kwargs)
        self._points = PointImages(self.buffer, lambda: self.image.shown, self._closed)
        self.link.changed = self._note_changed

    @property
    def link(self) -> Link:
        """What the signals of the detector share."""
        return self.owner.link

    # ---- at the prompt ----

    @property
    def rois(self) -> dict[str, regions.Box | None]:
        """The regions of interest: (x0, y0, width, height) in pixels, or None for all, by name."""
        return dict(self._rois)

    @rois.setter
    def rois(self, rois: Mapping[str, Iterable[int] | None]) -> None:
        """Take other regions from the next stage on; a `RegionError` says what is wrong."""
        checked = regions.checked_rois(rois, self.name)
        self._check_inside(checked)
        self._rois = checked

    def _check_inside(self, rois: "regions.Rois") -> None:
        """See that regions are within the image, as far as its shape is known."""
        detector = self.owner.detector
        shape = (detector.y_pixels_in_detector.last, detector.x_pixels_in_detector.last)
        if None not in shape:
            regions.check_inside(rois, shape, self.name)

    @property
    def rate(self) -> float:
        """How many images a second the live image shows at most, in Hz; 5 if not set."""
        return self.image.rate

    @rate.setter
    def rate(self, rate: float) -> None:
        """Take another rate at once; `LimitError` if it is not below 10 Hz."""
        self.image.rate = rate

    def start(self) -> EigerStatus:
        """Show new images until `stop`; done when the DCU's monitor is on.

        Images come from the next arm on where the monitor was off. A subscriber of `image` is
        enough to have it started.
        """
        self.image.started = True
        return self.image.watch()

    def stop(self, *, success: bool = False) -> None:
        """Show no new images, unless somebody subscribes to `image`."""
        self.image.started = False

    def close(self) -> None:
        """End the thread and put the monitor back; before the detector's worker ends."""
        self._closed.set()
        self.image.close()

    # ---- called by the detector's worker, in this order: none of it fails a scan but `stage` ----

    def stage(self) -> list[object]:
        """Set the monitor up and empty it, if live numbers are enabled; before arm.

        Raises
        ------
        RegionError
            If one of `rois` is not within the image.
        """
        self._readings = {}
        self._staged_rois = None
        self._regions = None
        if not self.enabled:
            return [self]
        self._check_inside(self._rois)
        self._staged_rois = dict(self._rois)
        self._warned = False
        self._left_alone_until = 0.0
        self._seen = (-1, 0)
        self._points = PointImages(self.buffer, lambda: self.image.shown, self._closed)
        self._since = time.time()
        self._carefully(self._set_up)
        return [self]

    def take(self, series_id: int, last_image: int, when: float) -> dict[str, dict[str, Any]]:
        """Return the readings of a point; its images are exposed, and its series ended if it was.

        Points are taken in their order: what comes after the last image of the point before is
        this point's.

        Parameters
        ----------
        series_id : int
            The series.
        last_image : int
            The point's last image in it, counted from 1.
        when : float
            The readings' time, in s since 1970.
        """
        if self._staged_rois is None:
            return {}
        numbers: dict[str, float] = {}

        def ask() -> None:
            numbers.update(self._numbers_of(series_id, last_image))

        self._carefully(ask)
        self._points.note(series_id, last_image)
        self._readings = {
            f"{self.name}_{key}": {"value": numbers.get(key, math.nan), "timestamp": when}
            for key in self._keys()
        }
        return self._readings

    def unknown(self, when: float) -> dict[str, dict[str, Any]]:
        """Return the readings of a point whose numbers were not taken: NaN."""
        return {
            f"{self.name}_{key}": {"value": math.nan, "timestamp": when} for key in self._keys()
        }

    def listed(self) -> set[int]:
        """Return the series of which the monitor lists images; none where it cannot be asked."""
        try:
            return set(self.buffer.listing())
        except DcuError as error:
            logger.debug("%s: %s", self.name, error)
            return set()

    def newest(self, series_id: int) -> int | None:
        """Return the number of the series' newest image that the monitor ever listed, or None.

        It asks for the list alone. A monitor that is off or full, or that fails, lists nothing new.
        """
        if self._seen[0] != series_id:
            self._seen = (series_id, 0)
        try:
            listed = self.buffer.listing().get(series_id, [])
        except DcuError as error:
            logger.debug("%s: %s", self.name, error)
            listed = []
        self._seen = (series_id, max(self._seen[1], *listed, 0))
        return self._seen[1] or None

    def unstage(self) -> list[object]:
        """Put back what `stage` put, unless somebody changed it since."""
        if self._staged_rois is not None:
            self._warned = False
            self._carefully(lambda: self.buffer.release("scan"), even_if_left_alone=True)
            self._staged_rois = None
        return [self]

    def note_initialized(self) -> None:
        """Empty the monitor: the DCU counts its series from 1 again."""
        if self.buffer.in_use:

            def begin_anew() -> None:
                self.buffer.clear()
                self.image.forget()

            self._carefully(begin_anew)

    # ---- bluesky's: they ask for nothing ----

    def read(self) -> OrderedDict:
        """Return what `take` returned last."""
        return OrderedDict(self._readings)

    def describe(self) -> OrderedDict:
        """Return the data keys of the live numbers; empty if they are not enabled."""
        return OrderedDict((f"{self.name}_{key}", self._data_key(key)) for key in self._keys())

    def read_configuration(self) -> OrderedDict:
        """Return the regions, (x0, y0, width, height) in pixels."""
        return OrderedDict(
            (f"{self.name}_{roi}", {"value": list(self._whole(box)), "timestamp": self._since})
            for roi, box in (self._staged_rois or {}).items()
        )

    def describe_configuration(self) -> OrderedDict:
        """Return the data keys of the regions."""
        key = {"source": f"{self.name}.rois", "dtype": "array", "shape": [4], "units": "pixel"}
        return OrderedDict((f"{self.name}_{roi}", dict(key)) for roi in self._staged_rois or {})

    @property
    def hints(self) -> dict[str, list[str]]:
        """What is plotted where nobody says otherwise."""
        rois = self._staged_rois or {}
        fields = [f"{self.name}_{roi}_{quantity}" for roi in rois for quantity in self.hinted]
        return {"fields": fields}

    # ---- inside ----

    def _keys(self) -> list[str]:
        if self._staged_rois is None:
            return []
        return [*regions.keys(self._staged_rois), "image_number"]

    def _data_key(self, key: str) -> dict[str, Any]:
        units = {"saturated": "pixels", "image_number": ""}.get(key, "counts")
        return {
            "source": f"{self.link.client.url}/monitor/images",
            # Numbers, not integers: NaN where there is none.
            "dtype": "number",
            "dtype_numpy": "<f8",
            "shape": [],
            "precision": 4 if key.endswith("_mean") else 0,
            **({"units": units} if units else {}),
        }

    def _whole(self, box: regions.Box | None) -> regions.Box:
        detector = self.owner.detector
        width, height = detector.x_pixels_in_detector.last, detector.y_pixels_in_detector.last
        return box or (0, 0, int(width or 0), int(height or 0))

    def _carefully(self, work: Callable[[], None], *, even_if_left_alone: bool = False) -> None:
        """Do what may fail without failing a scan: one warning a staging, and not over and over."""
        if time.monotonic() < self._left_alone_until and not even_if_left_alone:
            return
        try:
            work()
        except (DcuUnreachableError, LostReplyError, DcuTimeoutError) as error:
            self._left_alone_until = time.monotonic() + LEFT_ALONE_S
            self._warn(error)
        except EigerError as error:
            self._warn(error)
        except Exception as error:
            # Whatever it is, the scan is not to fail by it.
            self._warn(error)
            logger.debug("%s: unexpected", self.name, exc_info=True)

    def _warn(self, what: object, *, earlier: bool = False) -> None:
        level = logging.DEBUG if self._warned else logging.WARNING
        self._warned = True
        become = "are of an earlier image, which image_number tells" if earlier else "are NaN"
        logger.log(level, "%s: live numbers %s: %s", self.name, become, what)

    def _set_up(self) -> None:
        self.buffer.enable("scan", int(self.owner.detector.nimages.last or 1))
        self.buffer.clear()
        self.image.forget()
        self._regions = self._read_regions()

    def _note_changed(self, subsystem: str, keys: Iterable[str]) -> None:
        if subsystem == "detector" and not MASK_KEYS.isdisjoint(keys):
            self._regions = None

    def _read_regions(self) -> regions.Regions:
        return regions.Regions(self._staged_rois or {}, self._read_mask(), self.name)

    def _read_mask(self) -> np.ndarray:
        detector = self.owner.detector
        try:
            body = self.link.client.get_bytes("detector", "config/pixel_mask", accept=TIFF_TYPE)
        except NotServedError:
            shape = (detector.y_pixels_in_detector.get(), detector.x_pixels_in_detector.get())
            return np.zeros(shape, np.uint8)
        # A DCU that does not know TIFF answers as if nothing had been said of the form.
        return _array_of_json(body) if bytes(body[:1]) == b"{" else decode(body).pixels

    def _numbers_of(self, series_id: int, last_image: int) -> dict[str, float]:
        to_be_shown = self.image.wants_one()
        self.image.begin(series_id)
        image = self._points.find(series_id, last_image, keep=to_be_shown)
        if self._points.missing:
            self._warn(self._points.missing, earlier=image is not None)
        if image is None:
            return {}
        numbers = self._numbers_in(image)
        if to_be_shown:
            # Not before: it is worked on in place.
            self.image.offer(image)
        return numbers

    def _numbers_in(self, image: MonitorImage) -> dict[str, float]:
        shape = image.pixels.shape
        if self._regions is None or self._regions.shape != shape:
            self._regions = self._read_regions()
        if self._regions.shape != shape:
            raise TiffError(
                f"image {image.series_id}/{image.number} has shape {shape}, the pixel mask "
                f"{self._regions.shape}"
            )
        kept = image.pixels.dtype.itemsize * 8
        bits = min(int(self.owner.detector.bit_depth_image.last or kept), kept)
        numbers = self._regions.numbers(image.pixels, 2**bits - 1)
        return {**numbers, "image_number": float(image.number)}


def _array_of_json(body: memoryview) -> np.ndarray:
    """Return an array of the SIMPLON API's JSON form, shape (y, x)."""
    try:
        form = json.loads(bytes(body))["value"]
        data = base64.b64decode(form["data"])
        return np.frombuffer(data, form["type"]).reshape(form["shape"])
    except (KeyError, TypeError, ValueError) as error:
        raise ReplyError(
            f"config/pixel_mask is neither a TIFF nor an array in JSON: {bytes(body[:60])!r}",
            request="GET config/pixel_mask",
        ) from error
