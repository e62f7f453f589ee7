"""The buffer's images, made before they are due: a detector's are there when they are exposed.

Knows the order of images and how many may be kept; nothing of exposures, files or HTTP.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

# In bytes: what is made ahead is kept in memory.
MOST_BYTES = 64 * 2**20


class Source(Protocol):
    """Where the images of a series come from."""

    def chunk(self, number: int) -> bytes:
        """Return image `number` (from 1) as an HDF5 chunk."""
        ...


@dataclass(frozen=True)
class Made:
    """An image that is made: its HDF5 chunk, and when that was whole, by the clock in s."""

    chunk: bytes
    at: float


class MadeAhead:
    """The images of a series in order, the next ones made ahead in a thread.

    Parameters
    ----------
    source : Source
        Makes an image.
    now : callable
        Tells the time in s.
    images : int
        How many the series has.
    ahead : int
        How many may be made and not taken. 0 makes each when it is taken, without a thread.
    """

    def __init__(self, source: Source, now: Callable[[], float], images: int, ahead: int):
        self._source = source
        self._now = now
        self._images = images
        self._ahead = ahead
        self._made: deque[Made | Exception] = deque()
        self._bytes = 0
        self._allowed = 0
        self._closed = False
        self._changed = threading.Condition()
        if ahead:
            threading.Thread(target=self._make_all, name="sim-dcu-maker", daemon=True).start()

    def allow(self, number: int) -> None:
        """Let the images up to `number` be made: what they depend on is settled."""
        with self._changed:
            self._allowed = max(self._allowed, number)
            self._changed.notify_all()

    def take(self, number: int) -> Made:
        """Return image `number`, the one after that taken last, as soon as it is made.

        Raises
        ------
        Exception
            Whatever its making raised.
        """
        if not self._ahead:
            return self._make(number)
        with self._changed:
            self._changed.wait_for(lambda: self._made)
            made = self._made.popleft()
            if isinstance(made, Exception):
                raise made
            self._bytes -= len(made.chunk)
            if self._has_much_room:
                self._changed.notify_all()
            return made

    def close(self) -> None:
        """Make no more."""
        with self._changed:
            self._closed = True
            self._made.clear()
            self._changed.notify_all()

    @property
    def _has_much_room(self) -> bool:
        # A few at once, as waking a thread for each would take time; not many, as that holds up
        # those who answer requests.
        full = max(len(self._made) / self._ahead, self._bytes / MOST_BYTES)
        return full <= 0.98 or not self._made

    def _make(self, number: int) -> Made:
        chunk = self._source.chunk(number)
        return Made(chunk, self._now())

    def _make_all(self) -> None:
        for number in range(1, self._images + 1):
            with self._changed:
                if len(self._made) >= self._ahead or self._bytes >= MOST_BYTES:
                    self._changed.wait_for(lambda: self._has_much_room or self._closed)
                self._changed.wait_for(lambda: number <= self._allowed or self._closed)  # noqa: B023
                if self._closed:
                    return
            try:
                made = self._make(number)
            except Exception as error:  # noqa: BLE001 - raised where it is taken
                with self._changed:
                    self._made.append(error)
                    self._changed.notify_all()
                return
            with self._changed:
                self._bytes += len(made.chunk)
                self._made.append(made)
                self._changed.notify_all()
