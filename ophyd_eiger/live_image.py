"""The newest image of the monitor as a signal, and the thread that looks for it.

The thread lives as long as there are subscribers or `started` is set, and no longer than the
signal. It works beside the detector's worker and never in it: commands do not wait for images.
"""

import logging
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
from ophyd import Signal

from ophyd_eiger.errors import EigerError
from ophyd_eiger.monitor_buffer import MonitorBuffer, MonitorImage, Order
from ophyd_eiger.signals import LimitError, ReadOnlyError
from ophyd_eiger.worker import EigerStatus

logger = logging.getLogger(__name__)

# "The monitor is for less than 10 Hz" (SIMPLON API Reference V1.3, section 3.2).
RATE_HZ = 5.0
RATE_LIMIT_HZ = 10.0
# How long after a failure the DCU is asked again, in s.
AFTER_FAILURE_S = 2.0
# How long `close` waits for a request that is under way, in s.
LAST_REQUEST_S = 3.0


class LiveImage(Signal):
    """The newest image of the monitor: numpy (y, x), read-only; None as long as there was none.

    Images only go forward: none is shown after a newer one of its series, nor after one of a newer
    series. Subscribers are called in the thread that looks for images, with `series_id` and
    `image_number` beside ophyd's arguments; while one works, images are left out, not queued.

    Attributes
    ----------
    started : bool
        Whether to look for images without a subscriber.
    """

    def __init__(self, *, name: str, parent: Any = None, **kwargs: Any) -> None:
        self.owner = parent
        self.started = False
        self._rate = RATE_HZ
        # The first is held for moments alone; the other while subscribers are called.
        self._lock = threading.Lock()
        self._showing = threading.RLock()
        self._order = Order()
        self._shown: MonitorImage | None = None
        self._shown_at = 0.0
        self._offer: tuple[MonitorImage, int] | None = None
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        self._failed = False
        super().__init__(name=name, parent=parent, value=None, **kwargs)
        self._metadata["write_access"] = False

    @property
    def buffer(self) -> MonitorBuffer:
        """What the DCU's monitor holds."""
        return self.owner.buffer

    # ---- at the prompt ----

    def get(self, **kwargs: Any) -> np.ndarray | None:
        """Ask the monitor for its newest image and return it, or the one shown if none is newer.

        Raises
        ------
        DcuError, TiffError
            If it cannot be asked, or answers what is no image.
        """
        self._look()
        return self._readback

    @property
    def shown(self) -> MonitorImage | None:
        """The image that was shown last, without asking."""
        return self._shown

    @property
    def series_id(self) -> int | None:
        """The series of the image that was shown last."""
        return None if self._shown is None else self._shown.series_id

    @property
    def image_number(self) -> int | None:
        """The number of the image that was shown last, from 1, in its series."""
        return None if self._shown is None else self._shown.number

    @property
    def rate(self) -> float:
        """How many images a second are shown at most, in Hz; below 10, as DECTRIS advises."""
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        """Take another rate at once; `LimitError` if it is not below 10 Hz."""
        if not 0 < rate < RATE_LIMIT_HZ:
            raise LimitError(
                f"{self.name}: {rate!r} Hz is outside (0, {RATE_LIMIT_HZ:g}) Hz, the rates that "
                "the SIMPLON API reference advises for the monitor"
            )
        self._rate = float(rate)

    def subscribe(self, callback: Callable, event_type: str | None = None, run: bool = True) -> int:
        """Call back with each image shown; the monitor is looked at as long as there is a value's.

        See `ophyd.Signal.subscribe`.
        """
        cid = super().subscribe(callback, event_type=event_type, run=run)
        if event_type in (None, self.SUB_VALUE):
            self.watch()
        return cid

    def set(self, value: Any, **kwargs: Any) -> EigerStatus:
        """Refuse.

        Raises
        ------
        ReadOnlyError
        """
        raise ReadOnlyError(f"{self.name}: the monitor's image can only be read")

    def put(self, value: Any, **kwargs: Any) -> None:
        """Refuse.

        Raises
        ------
        ReadOnlyError
        """
        self.set(value)

    def describe(self) -> OrderedDict:
        """Return the data key of the image that was shown last, or that the next one will have.

        Empty before the detector's size is known. What the monitor makes of the images' type is
        known from an image only: an EIGER1's has 32 bits whatever the series has.
        """
        detector = self.owner.owner.detector
        size = (detector.y_pixels_in_detector.last, detector.x_pixels_in_detector.last)
        shape = size if self._shown is None else self._shown.pixels.shape
        if None in shape:
            return OrderedDict()
        key: dict[str, Any] = {
            "source": f"{self.owner.link.client.url}/monitor/images",
            "dtype": "array",
            "shape": list(shape),
            "units": "counts",
        }
        if self._shown is not None:
            key["dtype_numpy"] = self._shown.pixels.dtype.str
        return OrderedDict({self.name: key})

    def read(self) -> OrderedDict:
        """Return the image that was shown last, without asking; empty if there was none."""
        if self._shown is None:
            return OrderedDict()
        when = self._metadata["timestamp"]
        return OrderedDict({self.name: {"value": self._readback, "timestamp": when}})

    # ---- for `ophyd_eiger.live` ----

    def watch(self) -> EigerStatus:
        """Have the monitor switched on and the thread look for images, if it does not yet.

        The Status does not fail: the thread tells once what is wrong, and goes on trying.
        """
        with self._lock:
            # One that Ctrl-C cut short as it started is not alive, and looks whether it is wanted.
            running = self._thread is not None and self._thread.is_alive()
            if not running and not self._closed.is_set():
                self._thread = threading.Thread(
                    target=_watch,
                    args=(weakref.ref(self), self._closed),
                    name=self.name,
                    daemon=True,
                )
                self._thread.start()
        return self._in_worker(lambda: self.buffer.enable("watch"), "switch the monitor on")

    def _in_worker(self, work: Callable[[], None], what: str) -> EigerStatus:
        def carefully() -> None:
            try:
                work()
            except EigerError as error:
                self._note_failure(error)

        status = EigerStatus(f"{self.name}: {what}")
        return self.owner.link.worker.submit(carefully, status)

    def close(self) -> None:
        """End the thread."""
        self.started = False
        self._closed.set()
        with self._lock:
            thread = self._thread
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(LAST_REQUEST_S)

    def forget(self) -> None:
        """Take whatever comes next for new: the monitor was emptied."""
        with self._lock:
            self._order.forget()
            self._offer = None

    def begin(self, series_id: int) -> None:
        """Show no image of another series any more."""
        with self._lock:
            self._order.begin(series_id)

    def wants_one(self) -> bool:
        """Return whether a new image would be shown now."""
        return self._wanted and time.monotonic() - self._shown_at >= 1 / self._rate

    def offer(self, image: MonitorImage) -> None:
        """Have the thread show an image that somebody has fetched, if it is newer."""
        with self._lock:
            self._offer = (image, self._order.epoch)

    # ---- the thread's ----

    @property
    def _wanted(self) -> bool:
        return self.started or bool(self._callbacks[self.SUB_VALUE])

    def leave_if_unwanted(self) -> bool:
        """Return True, and have the monitor put back, if nobody wants images any more."""
        with self._lock:
            if self._wanted and not self._closed.is_set():
                return False
            self._thread = None
        self._in_worker(lambda: self.buffer.release("watch"), "put the monitor back")
        return True

    def look_once(self) -> float:
        """Show what is new, and return how long to wait before the next look, in s."""
        try:
            with self._lock:
                offer, self._offer = self._offer, None
            if offer is None:
                self._look()
            else:
                self._show(*offer)
        except EigerError as error:
            self._note_failure(error)
            return AFTER_FAILURE_S
        if self._failed:
            self._failed = False
            logger.info("%s: the DCU answers again", self.name)
            # One that was switched off has its monitor off.
            self.watch()
        return 1 / self._rate

    def _note_failure(self, error: Exception) -> None:
        level = logging.DEBUG if self._failed else logging.WARNING
        self._failed = True
        logger.log(level, "%s: no images for now: %s", self.name, error)

    def _look(self) -> None:
        clears = self.buffer.clears
        listing = self.buffer.listing()
        with self._lock:
            newer, epoch = self._order.newer(listing), self._order.epoch
        if newer is not None:
            image = self.buffer.fetch(*newer, keep=True)
            if image is not None:
                self._show(image, epoch)
        self.buffer.make_room(listing, clears)

    def _show(self, image: MonitorImage, epoch: int) -> None:
        with self._showing:
            with self._lock:
                if not self._order.advance(image.series_id, image.number, epoch):
                    return
                self._shown, self._shown_at = image, time.monotonic()
            image.pixels.flags.writeable = False
            old, self._readback = self._readback, image.pixels
            self._metadata["timestamp"] = time.time()
            self._run_subs(
                sub_type=self.SUB_VALUE,
                old_value=old,
                value=image.pixels,
                timestamp=self._metadata["timestamp"],
                series_id=image.series_id,
                image_number=image.number,
            )


def _watch(reference: "weakref.ref[LiveImage]", closed: threading.Event) -> None:
    """Look for images until nobody wants them; hold no reference to the signal between looks."""
    pause = 0.0
    while True:
        closed.wait(pause)
        image = reference()
        if image is None or image.leave_if_unwanted():
            return
        with image.owner.link.client.ledger.background("monitor"):
            pause = image.look_once()
        del image
