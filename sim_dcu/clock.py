"""Waiting as a detector waits, and telling the time as it tells it.

The scale stretches or removes waits only; time stamps are always those of the wall clock.
"""

import threading
import time
from datetime import UTC, datetime


class Clock:
    """Scaled waits that an event cuts short.

    Parameters
    ----------
    scale : float
        Factor on every wait: 1 is a real detector, 0 does not wait at all.
    """

    def __init__(self, scale: float = 1.0):
        if not 0 <= scale < float("inf"):
            raise ValueError(f"time scale {scale} is not a finite number of 0 or more")
        self.scale = scale

    def now(self) -> float:
        """Return a time in s that only serves as the start of `wait_until`."""
        return time.monotonic()

    def wait(self, seconds: float, interrupt: threading.Event) -> bool:
        """Wait `seconds` of detector time; return False as soon as `interrupt` is set."""
        return self.wait_until(self.now(), seconds, interrupt)

    def wait_until(self, start: float, seconds: float, interrupt: threading.Event) -> bool:
        """Wait until `seconds` of detector time have passed since `start`.

        A schedule made of such waits does not drift: a late one is made up for by the next.

        Returns
        -------
        bool
            False as soon as `interrupt` is set.
        """
        remaining = start + seconds * self.scale - self.now()
        while remaining > 0:
            # A wait longer than the platform's longest is made of several.
            if interrupt.wait(min(remaining, threading.TIMEOUT_MAX)):
                return False
            remaining = start + seconds * self.scale - self.now()
        return not interrupt.is_set()


def local_time() -> str:
    """Return the local time with microseconds and no zone, as firmware 1.6 stamps values."""
    return datetime.now(UTC).astimezone().replace(tzinfo=None).isoformat(timespec="microseconds")


def local_time_with_zone() -> str:
    """Return the local time in whole seconds with its zone, as `status/time` has it."""
    return datetime.now(UTC).astimezone().isoformat(timespec="seconds")


def local_time_with_milliseconds() -> str:
    """Return the local time in ms with its zone, as a real EIGER2 16M's header has it."""
    return datetime.now(UTC).astimezone().isoformat(timespec="milliseconds")
