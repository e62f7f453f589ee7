"""The DCU's monitor: switching it on and putting it back, which images it holds, fetching one.

Both generations, through the same requests: the list of images and `images/<series>/<id>`, which
takes no image out of the buffer (`images/monitor` does on an EIGER1). What differs is a full
buffer: an EIGER2 drops its oldest image; an EIGER1, and an EIGER2 with `discard_new`, drops each
new one, so that room has to be made. Knows nothing of points, numbers or subscribers.

Source: SIMPLON API Reference V1.3, section 3.2; 1.8 for `discard_new`.
"""

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from ophyd_eiger.client import DcuClient
from ophyd_eiger.errors import NotServedError, RefusedError, ReplyError
from ophyd_eiger.replies import shown
from ophyd_eiger.required import require_whole
from ophyd_eiger.signals import EigerSignal
from ophyd_eiger.subsystems import Monitor
from ophyd_eiger.tiff import DetectorTiff, decode

TIFF_TYPE = "application/tiff"
# More than the DCU's default would be gigabytes of its memory.
MOST_BUFFERED = 100
# Of one request for an image, in s: a monitor that hangs must not hold a scan for long.
IMAGE_TIMEOUT_S = 2.0
# The monitor has no such image (404), or got none in time (408).
NO_IMAGE = (404, 408)
# Why an image is not there, as far as can be told: it was that one or another.
DROPPED = "the monitor dropped it"
_ALIGNMENT = 8  # bytes


@dataclass(frozen=True)
class MonitorImage:
    """One image that the monitor gave.

    Attributes
    ----------
    series_id, number : int
        Which image of which series, from 1.
    tiff : DetectorTiff
        The pixels, shape (y, x), and what the vendor's own fields say.
    """

    series_id: int
    number: int
    tiff: DetectorTiff

    @property
    def pixels(self) -> np.ndarray:
        """Counts, unsigned, shape (y, x)."""
        return self.tiff.pixels


class Order:
    """Which image is newer: images only go forward, and so do series.

    A DCU counts series from 1 again after `initialize`, so that a larger id alone does not make a
    series the newer one: that which appeared later is.

    Attributes
    ----------
    epoch : int
        Grows with each `forget`; an image that was asked for before is not shown after it.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.forget()

    def forget(self) -> None:
        """Begin anew: the buffer was emptied, or series are counted from 1 again."""
        self.epoch += 1
        self._series: int | None = None
        self._number = 0
        self._listed: set[int] = set()
        self._past: set[int] = set()

    def begin(self, series_id: int) -> None:
        """Take a series for the newest; those before it are over."""
        if series_id == self._series:
            return
        if self._series is not None:
            if series_id < self._series:
                self._past.clear()
            self._past.add(self._series)
        self._past.discard(series_id)
        self._series, self._number = series_id, 0

    def newer(self, listing: dict[int, list[int]]) -> tuple[int, int] | None:
        """Return series and number of the newest image listed, if it is newer than all shown."""
        appeared = listing.keys() - self._listed - self._past
        self._listed = set(listing)
        # One that has gone and comes again is another one of the same id.
        self._past &= self._listed
        if appeared - {self._series}:
            self.begin(max(appeared - {self._series}))
        if self._series is None:
            return None
        newest = max(listing.get(self._series, []), default=0)
        return (self._series, newest) if newest > self._number else None

    def advance(self, series_id: int, number: int, epoch: int) -> bool:
        """Note that an image is shown and return True, or return False if it is not newer."""
        if epoch != self.epoch or series_id != self._series or number <= self._number:
            return False
        self._number = number
        return True


class MonitorBuffer:
    """Requests to the monitor of one DCU.

    Parameters
    ----------
    monitor : Monitor
        The subsystem.
    client : DcuClient
        The way to the DCU.
    """

    def __init__(self, monitor: Monitor, client: DcuClient) -> None:
        self._monitor = monitor
        self._client = client
        self._users: set[str] = set()
        # Signal: what was put, and what was there before.
        self._put: dict[EigerSignal, tuple[Any, Any]] = {}
        self._memory = np.empty(0, np.uint8)
        self._shift = 0
        self._dropped = 0
        self._lock = threading.RLock()
        # How often it was emptied from here.
        self.clears = 0
        self.drops_new = False
        self.size = 1

    @property
    def in_use(self) -> bool:
        """Whether it was switched on from here."""
        return bool(self._users)

    # ---- on and off: in the worker's thread ----

    def enable(self, user: str, images: int = 1) -> None:
        """See to it that from the next arm on the monitor keeps images.

        Parameters
        ----------
        user : str
            For whom, until `release`.
        images : int
            How many it has to hold.

        Raises
        ------
        DcuError
        """
        self._users.add(user)
        self._change(self._monitor.mode, "enabled")
        self.drops_new = self._asks_to_drop_new()
        self._monitor.buffer_size.get()
        self.size = require_whole(self._monitor.buffer_size)
        wanted = min(images, MOST_BUFFERED)
        if self.size < wanted:
            self._change(self._monitor.buffer_size, wanted)
            self.size = wanted

    def release(self, user: str) -> None:
        """Put back what was changed, unless somebody else needs it or has changed it since.

        Raises
        ------
        DcuError
        """
        self._users.discard(user)
        if self._users:
            return
        for signal, (ours, before) in list(self._put.items()):
            if signal.get() == ours:
                signal.put_now(before)
            del self._put[signal]

    def _change(self, signal: EigerSignal, value: Any) -> None:
        before = signal.get()
        if before == value:
            return
        # Noted first: a put that fails may have been carried out.
        self._put[signal] = (value, before)
        signal.put_now(value)

    def _asks_to_drop_new(self) -> bool:
        try:
            reply = self._client.get("monitor", "config/discard_new")
        except NotServedError:
            return True
        return not isinstance(reply, dict) or bool(reply.get("value"))

    # ---- images: from any thread ----

    def listing(self) -> dict[int, list[int]]:
        """Return which images the buffer holds: the numbers by series id.

        Raises
        ------
        DcuError
        """
        try:
            reply = self._client.get("monitor", "images")
        except NotServedError as error:
            what = "does not serve monitor/images"
            raise self._monitor.link.not_served(self._monitor.name, what, error) from error
        try:
            return {int(series): [int(n) for n in numbers] for series, numbers in reply or []}
        except (TypeError, ValueError) as error:
            request = f"GET {self._client.resource_url('monitor', 'images')}"
            raise ReplyError(
                f"{request}: {shown(reply)} is no list of images", request=request
            ) from error

    def fetch(self, series_id: int, number: int, *, keep: bool) -> MonitorImage | None:
        """Return exactly this image; None if the buffer does not hold it.

        Parameters
        ----------
        keep : bool
            Whether the image outlives the next `fetch` without `keep`, which is for the worker's
            thread alone and uses the same memory each time.

        Raises
        ------
        DcuError, TiffError
        """
        try:
            body = self._client.get_bytes(
                "monitor",
                f"images/{series_id}/{number}",
                accept=TIFF_TYPE,
                reserve=lambda size: self._reserve(size, keep=keep),
                timeout=IMAGE_TIMEOUT_S,
            )
        except RefusedError as error:
            if error.status in NO_IMAGE:
                return None
            raise
        tiff = decode(body)
        # The DCU's next image has its pixels at the same place.
        self._shift -= tiff.pixels.ctypes.data % _ALIGNMENT
        self._shift %= _ALIGNMENT
        return MonitorImage(series_id, number, tiff)

    def _reserve(self, size: int, *, keep: bool) -> memoryview:
        """Return memory for a TIFF such that its pixels are aligned: numpy is faster then."""
        memory = np.empty(size + _ALIGNMENT, np.uint8) if keep else self._memory
        if not keep and len(memory) < size + _ALIGNMENT:
            # Fresh memory costs as much time as filling it.
            memory = self._memory = np.empty(size + _ALIGNMENT, np.uint8)
        return memory.data[self._shift : self._shift + size]

    def why_not(self) -> str:
        """Return why an image that was taken is not there: "" if it may still come.

        Raises
        ------
        DcuError
        """
        if self._monitor.mode.get() != "enabled":
            return "somebody disabled the monitor"
        if not self.drops_new:
            # What it drops are old ones, and it may drop them all the time.
            return ""
        self._monitor.dropped.get()
        dropped, before = require_whole(self._monitor.dropped), self._dropped
        self._dropped = dropped
        return DROPPED if dropped > before else ""

    def clear(self) -> None:
        """Empty the buffer.

        Raises
        ------
        DcuError
        """
        with self._lock:
            self._monitor.clear.send()
            self._dropped = 0
            self.clears += 1

    def is_full(self, listing: dict[int, list[int]]) -> bool:
        """Return whether a buffer that has these images takes no new one."""
        return self.drops_new and sum(map(len, listing.values())) >= self.size

    def make_room(self, listing: dict[int, list[int]], clears: int) -> None:
        """Empty a buffer that is full and keeps its old images for that, or none new would come.

        Parameters
        ----------
        listing : dict
            What the buffer held.
        clears : int
            What `self.clears` was before it was asked for that.

        Raises
        ------
        DcuError
        """
        if not (self.is_full(listing) and self._users):
            return
        with self._lock:
            if clears == self.clears:
                self.clear()
