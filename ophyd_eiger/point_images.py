"""Which image of the monitor is a point's: its last one, or the newest of its own that there is.

Never another point's. Knows no numbers and no thread.
"""

import threading
import time
from collections.abc import Callable

from ophyd_eiger.monitor_buffer import DROPPED, MonitorBuffer, MonitorImage

# How long after the trigger's reply a point's last image may come, in s: where the monitor has
# others of the point, the newest of which will do, and where it has none, as a busy DCU before the
# first. How often it is asked for meanwhile. After so many points that waited in vain no more point
# of the staging waits.
LAST_IMAGE_S = 0.25
ANY_IMAGE_S = 2.0
ASK_AGAIN_S = 0.02
MOST_IN_VAIN = 2


class PointImages:
    """Finds the images of one staging's points, which are taken in their order.

    Parameters
    ----------
    buffer : MonitorBuffer
        What the DCU's monitor holds.
    shown : callable
        Gives the image that was shown last, which the monitor need not hold any more.
    closed : threading.Event
        Set when nobody needs an image any more.

    Attributes
    ----------
    missing : str
        Why the last `find` did not give the point's last image; "" if it did.
    """

    def __init__(
        self,
        buffer: MonitorBuffer,
        shown: Callable[[], MonitorImage | None],
        closed: threading.Event,
    ) -> None:
        self.missing = ""
        self._buffer = buffer
        self._shown = shown
        self._closed = closed
        self._in_vain = 0
        # Series and last image of the point before.
        self._before = (-1, 0)
        self._kept = 0

    def find(self, series_id: int, last_image: int, *, keep: bool) -> MonitorImage | None:
        """Return the point's last image, its newest that there is, or None if there is none.

        Parameters
        ----------
        series_id, last_image : int
            The point's series, and its last image in it, from 1.
        keep : bool
            As `MonitorBuffer.fetch` takes it.

        Raises
        ------
        DcuError, TiffError
        """
        image = self._image_of(series_id, last_image, keep=keep)
        self._make_room(last_image - self._earlier(series_id))
        return image

    def note(self, series_id: int, last_image: int) -> None:
        """Note that what comes later is not this point's."""
        self._before = (series_id, last_image)

    def _earlier(self, series_id: int) -> int:
        return self._before[1] if self._before[0] == series_id else 0

    def _image_of(self, series_id: int, last_image: int, *, keep: bool) -> MonitorImage | None:
        self.missing = ""
        began, earlier, dropped = time.monotonic(), self._earlier(series_id), False
        while True:
            image = self._buffer.fetch(series_id, last_image, keep=keep)
            if image is not None:
                self._in_vain = 0
                return image
            # Before the list, which then is not older than what the reason speaks of.
            why = self._buffer.why_not()
            listing = self._buffer.listing()
            listed = listing.get(series_id, [])
            has_others = any(earlier < number < last_image for number in listed)
            dropped = dropped or why == DROPPED
            patience = LAST_IMAGE_S if has_others or dropped else ANY_IMAGE_S
            late = time.monotonic() > began + patience
            if last_image in listed and not late:
                continue  # it has just come
            if max(listed, default=0) > last_image:
                why = "newer ones took its place"
            elif dropped and not why:
                why = DROPPED
            # What was dropped may be another one, and room for the last one.
            may_come = why in ("", DROPPED) and not (dropped and self._buffer.is_full(listing))
            if not may_come or late or self._in_vain >= MOST_IN_VAIN or self._closed.is_set():
                break
            self._closed.wait(ASK_AGAIN_S)
        self._in_vain += late
        self.missing = f"the monitor does not hold image {last_image} of series {series_id}"
        self.missing += f": {why}" if why else ""
        return self._newest_of(series_id, last_image, listed, keep=keep)

    def _newest_of(
        self, series_id: int, last_image: int, listed: list[int], *, keep: bool
    ) -> MonitorImage | None:
        """Return the newest image of the point, listed or shown."""
        earlier = self._earlier(series_id)
        number = max((n for n in listed if earlier < n <= last_image), default=0)
        shown = self._shown()
        newer = range(max(number, earlier + 1), last_image + 1)
        if shown is not None and shown.series_id == series_id and shown.number in newer:
            return shown
        return self._buffer.fetch(series_id, number, keep=keep) if number else None

    def _make_room(self, images: int) -> None:
        """Empty a buffer that drops new images when it is full, before the next point needs it."""
        self._kept += images
        if self._buffer.drops_new and self._kept + images > self._buffer.size:
            self._buffer.clear()
            self._kept = 0
