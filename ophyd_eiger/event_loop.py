"""Work that the RunEngine's event loop must not be held up by, though its verb gives no Status.

Knows nothing of settings: only a Status, and readings that it fills.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator
from typing import Any

from ophyd_eiger.worker import EigerStatus

Readings = dict[str, Any]


class Configuring:
    """What `configure` gives to a RunEngine: awaited if it can, else taken apart into two.

    bluesky's RunEngine (1.15) does not await it, but it awaits the reading of the configuration
    that follows in a run. So in a staged detector taking it apart returns at once and the reading
    waits; a failure is that of the reading, or of the next verb. Where nothing need follow it
    waits here, and the RunEngine with it.

    Parameters
    ----------
    status : EigerStatus
        Ends with the work.
    before, after : dict
        Readings, filled by the work.
    leave_pending : callable, optional
        Lets the next reading of the configuration wait for the Status; None to wait here.
    """

    def __init__(
        self,
        status: EigerStatus,
        before: Readings,
        after: Readings,
        leave_pending: Callable[[EigerStatus], None] | None,
    ) -> None:
        self._status = status
        self._leave_pending = leave_pending
        self._readings = before, after

    def __await__(self) -> Generator[Any, None, tuple[Readings, Readings]]:
        yield from finished(self._status).__await__()
        return self._readings

    def __iter__(self) -> Iterator[Readings]:
        if self._leave_pending is None:
            self._status.wait()
        else:
            self._leave_pending(self._status)
        return iter(self._readings)


def in_event_loop() -> bool:
    """Return whether the caller is a RunEngine's loop, which must not be held up.

    At Jupyter's prompt a loop runs too, in the main thread, and calls may wait there.
    """
    if threading.current_thread() is threading.main_thread():
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def finished(status: EigerStatus) -> None:
    """Wait for a Status without holding up the loop, and raise what made it fail."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    status.add_callback(lambda _: loop.call_soon_threadsafe(over.set))
    await over.wait()
    error = status.exception(timeout=0)
    if isinstance(error, BaseException):
        raise error


def read_after(status: EigerStatus, read: Callable[[], Any]) -> Awaitable[Any]:
    """Return a promise of `read()`, which is kept when the Status is done."""

    async def wait_and_read() -> Any:
        await finished(status)
        return read()

    return wait_and_read()
