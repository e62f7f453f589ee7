"""The monitor's images over HTTP: waiting for one, lists, single ones, deleting.

Knows paths, time-outs and replies; which image it is that is asked for, the monitor knows.
"""

import asyncio
import contextlib
import functools
import math
import re
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from sim_dcu.downloads import disconnected
from sim_dcu.monitor import Held, Monitor
from sim_dcu.parameters import MissingError, RefusedError

# API reference 1.3, 3.2.2: in ms. It is the client's own time, which no time scale stretches.
DEFAULT_TIMEOUT = "500"
_TIMEOUT = re.compile(r"\d{1,9}(\.\d{0,9})?", re.ASCII)
# More digits than any image has; int() of thousands of them would raise.
_MOST_DIGITS = 18

_PREFIX = "/monitor/api/{version}/images"


def whole_number(text: str) -> int:
    """Return a number of a path.

    Raises
    ------
    MissingError
        Where it is none, or one that nothing has.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
        raise MissingError(f"{text} is not the number of an image")
    return int(text)


class TiffReply(Response):
    """An image, typed as the references do."""

    media_type = "application/tiff"


class MonitorRoutes:
    """The handlers of everything below `images`.

    Parameters
    ----------
    ask : callable
        From a request and a question to the monitor to the answer, in a thread; refuses unknown
        versions and what is not possible now.
    spell : callable
        From content to a JSON reply.
    """

    def __init__(
        self,
        ask: Callable[[Request, Callable[[Monitor], Any]], Awaitable[Any]],
        spell: Callable[[Any], Response],
    ):
        self._ask = ask
        self._spell = spell

    def routes(self) -> list[Route]:
        """Return the routes, those of fixed names first."""
        image = f"{_PREFIX}/{{series}}/{{number}}"
        return [
            Route(_PREFIX, self.listing),
            Route(_PREFIX, self.delete_all, methods=["DELETE"]),
            Route(f"{_PREFIX}/monitor", functools.partial(self.waited_for, which="monitor")),
            Route(f"{_PREFIX}/next", functools.partial(self.waited_for, which="next")),
            Route(image, self.one),
            Route(image, self.delete_one, methods=["DELETE"]),
            Route(f"{image}/{{threshold}}", self.one),
        ]

    async def listing(self, request: Request) -> Response:
        """Answer which images the buffer holds."""
        return self._spell(await self._ask(request, Monitor.listing))

    async def delete_all(self, request: Request) -> Response:
        """Empty the buffer."""
        await self._ask(request, Monitor.delete_all)
        return Response(status_code=204)

    async def one(self, request: Request) -> Response:
        """Answer one image of the buffer."""
        names = request.path_params

        def read(monitor: Monitor) -> bytes:
            series_id, number = whole_number(names["series"]), whole_number(names["number"])
            if "threshold" in names:
                threshold = whole_number(names["threshold"])
                return monitor.tiff(monitor.held_of(series_id, number, threshold))
            return monitor.tiff(monitor.held(series_id, number))

        return TiffReply(await self._ask(request, read))

    async def delete_one(self, request: Request) -> Response:
        """Take one image out of the buffer."""
        names = request.path_params

        def delete(monitor: Monitor) -> None:
            monitor.delete(whole_number(names["series"]), whole_number(names["number"]))

        await self._ask(request, delete)
        return Response(status_code=204)

    async def waited_for(self, request: Request, which: str) -> Response:
        """Answer `next` or `monitor`, once there is such an image; 408 where none comes in time."""
        text = request.query_params.get("timeout", DEFAULT_TIMEOUT)
        if _TIMEOUT.fullmatch(text) is None:
            raise RefusedError(f"timeout: {text[:20]!r} is not a time in ms")
        end = asyncio.get_running_loop().time() + float(text) / 1000
        monitor: Monitor = await self._ask(request, lambda asked: asked)
        # HEAD changes nothing (RFC 9110, 9.2.1), so that the image stays where it is.
        take = functools.partial(monitor.take, which, keep=request.method == "HEAD")
        image = await _first(monitor, take, end, request)
        if image is None:
            return PlainTextResponse("No image available", 408)
        return TiffReply(await run_in_threadpool(monitor.tiff, image))


async def _first(
    monitor: Monitor, take: Callable[[], Held | None], end: float, request: Request
) -> Held | None:
    """Return the image that `take` has until `end` (of the loop's clock); no thread waits."""
    loop = asyncio.get_running_loop()
    arrived = asyncio.Event()

    def tell() -> None:
        with contextlib.suppress(RuntimeError):  # the server has ended meanwhile
            loop.call_soon_threadsafe(arrived.set)

    gone = asyncio.ensure_future(disconnected(request.receive))
    try:
        with monitor.watched(tell):
            while True:
                arrived.clear()
                image = await run_in_threadpool(take)
                remaining = end - loop.time()
                if image is not None or remaining <= 0 or gone.done():
                    return image
                news = asyncio.ensure_future(arrived.wait())
                try:
                    await asyncio.wait(
                        {news, gone},
                        timeout=math.ceil(remaining * 1000) / 1000,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                finally:
                    news.cancel()
    finally:
        gone.cancel()
