"""What faults on request do to a request: each wraps the application that would answer it.

Knows requests, replies and the connection they use; which faults are set is `faults`' business.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sim_dcu.downloads import disconnected
from sim_dcu.faults import Faults, SetFault

# What an answer to a PUT is instead of a list, and its type: an empty one is text.
_PUT_REPLIES = {
    "null": (b"null", "application/json; charset=utf-8"),
    "quotes": (b'""', "application/json; charset=utf-8"),
    "empty": (b"", "text/plain"),
}


def disturbed(app: ASGIApp, struck: Sequence[SetFault], faults: Faults) -> ASGIApp:
    """Return `app` as it answers a request that these faults strike, the first one outermost."""
    for fault in reversed(struck):
        app = _WRAPPERS[fault.name](app, fault, faults)
    return app


def _refuse(_app: ASGIApp, fault: SetFault, _faults: Faults) -> ASGIApp:
    status = fault.arguments["status"]
    # These have no body (RFC 9110, 15); one would be taken for the next reply.
    text = "" if status in (204, 205, 304) else fault.arguments["text"]
    return PlainTextResponse(text, status)


def _late(app: ASGIApp, fault: SetFault, faults: Faults) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        waited = False

        async def send_late(message: Message) -> None:
            nonlocal waited
            if not waited:
                waited = True
                with _clearing(fault, faults) as cleared, contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(cleared.wait(), fault.arguments["seconds"])
            await send(message)

        await app(scope, receive, send_late)

    return answer


def _hang(_app: ASGIApp, fault: SetFault, faults: Faults) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, _send: Send) -> None:
        gone = asyncio.ensure_future(disconnected(receive))
        try:
            with _clearing(fault, faults) as cleared:
                end = asyncio.ensure_future(cleared.wait())
                try:
                    await asyncio.wait({gone, end}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    end.cancel()
        finally:
            gone.cancel()
        await _cut(scope, receive)

    return answer


def _drop(app: ASGIApp, fault: SetFault, _faults: Faults) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        when = fault.arguments["when"]
        if when == "before":
            await _cut(scope, receive)
            return
        _connection(scope).cut_reply(when, has_body=scope["method"] != "HEAD")
        # Only what passes through the connection can be cut: no file is left to the kernel.
        await app({**scope, "extensions": {}}, receive, send)

    return answer


def _lose(app: ASGIApp, _fault: SetFault, _faults: Faults) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, _send: Send) -> None:
        async def swallow(_message: Message) -> None:
            pass

        await app(scope, receive, swallow)
        await _cut(scope, receive)

    return answer


def _put_reply(app: ASGIApp, fault: SetFault, _faults: Faults) -> ASGIApp:
    body, media_type = _PUT_REPLIES[fault.arguments["body"]]

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        replaced = False
        if scope["method"] != "PUT":
            await app(scope, receive, send)
            return

        async def send_replaced(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start":
                replaced = message["status"] == 200
            if not replaced:
                await send(message)

        await app(scope, receive, send_replaced)
        if replaced:
            await Response(body, media_type=media_type)(scope, receive, send)

    return answer


def _die(_app: ASGIApp, fault: SetFault, faults: Faults) -> ASGIApp:
    async def answer(_scope: Scope, receive: Receive, _send: Send) -> None:
        faults.kill(fault)
        await disconnected(receive)

    return answer


_WRAPPERS: dict[str, Callable[[ASGIApp, SetFault, Faults], ASGIApp]] = {
    "refuse": _refuse,
    "late": _late,
    "hang": _hang,
    "drop": _drop,
    "lose": _lose,
    "put-reply": _put_reply,
    "die": _die,
}


async def _cut(scope: Scope, receive: Receive) -> None:
    """Cut the connection, and return when the server knows: it then misses no reply."""
    _connection(scope).abort()
    await disconnected(receive)


def _connection(scope: Scope) -> Any:
    """Return the connection a request came on, a `sim_dcu.wire.OneWriteTransport`."""
    return scope["state"]["connection"]


@contextlib.contextmanager
def _clearing(fault: SetFault, faults: Faults) -> Iterator[asyncio.Event]:
    """Give an event of the running loop that is set when the fault is cleared."""
    loop = asyncio.get_running_loop()
    cleared = asyncio.Event()

    def tell() -> None:
        if fault.cleared.is_set():
            with contextlib.suppress(RuntimeError):  # the server has ended meanwhile
                loop.call_soon_threadsafe(cleared.set)

    with faults.watched(tell):
        tell()
        yield cleared
