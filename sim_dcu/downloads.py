"""Published files over HTTP: whole or in one range, and an index of them.

Knows replies and bytes; which file a name means is the file store's.
"""

import asyncio
import io
import os
import re
from collections.abc import Callable, Iterable
from html import escape
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

# Larger pieces hold up other requests, smaller ones are slower.
_PIECE = 2**20
# ASGI's extension by which a server sends part of a file itself.
_ZERO_COPY = "http.response.zerocopysend"
_RANGE = re.compile(r"bytes\s*=\s*(\d{0,19})-(\d{0,19})\s*", re.ASCII | re.IGNORECASE)


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the part of a file that a `Range` header asks for.

    Parameters
    ----------
    header : str or None
        The header's value, None where there is none.
    size : int
        Of the file, in bytes.

    Returns
    -------
    tuple of int or None
        First byte and the one after the last. The whole file for what a server may ignore: other
        units, several ranges, a last byte before the first (RFC 9110, 14.2). None where no byte of
        the range exists.
    """
    match = _RANGE.fullmatch(header or "")
    if match is None or match.groups() == ("", ""):
        return 0, size
    first, last = match.groups()
    if not first:
        wanted = min(int(last), size)
        return (size - wanted, size) if wanted else None
    begin, end = int(first), int(last) + 1 if last else size
    if last and end <= begin:
        return 0, size
    return (begin, min(end, size)) if begin < size else None


class FileReply(Response):
    """A published file or a range of it, sent by the server itself or in pieces of 1 MB.

    The length is that of the file opened, so that one replaced meanwhile is still sent whole.

    Parameters
    ----------
    opener : callable
        Opens the file; called in a thread.
    wanted : str or None
        The request's `Range`.
    """

    media_type = "application/hdf5"

    def __init__(self, opener: Callable[[], io.FileIO], wanted: str | None = None):
        super().__init__()
        self._opener = opener
        self._wanted = wanted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one GET or HEAD."""
        file = await run_in_threadpool(self._opener)
        with file:
            size = os.fstat(file.fileno()).st_size
            # A range is defined for GET alone (RFC 9110, 14.2).
            only_head = scope["method"] == "HEAD"
            part = (0, size) if only_head else byte_range(self._wanted, size)
            self.headers["accept-ranges"] = "bytes"
            if part is None:
                self.headers["content-range"] = f"bytes */{size}"
                await self._start(send, 416, 0)
                await send({"type": "http.response.body", "body": b""})
                return
            begin, end = part
            whole = part == (0, size)
            if not whole:
                self.headers["content-range"] = f"bytes {begin}-{end - 1}/{size}"
            remaining = 0 if only_head else end - begin
            by_server = remaining > _PIECE and _ZERO_COPY in scope.get("extensions", {})
            file.seek(begin)
            # Read before the head is sent: the two of a small file must leave in one write.
            piece = await self._read(file, remaining) if remaining and not by_server else b""
            await self._start(send, 200 if whole else 206, end - begin)
            if not (by_server and await self._left_to_server(file, begin, remaining, send)):
                await self._send_all(file, piece, remaining, receive, send)

    @staticmethod
    async def _left_to_server(file: io.FileIO, begin: int, count: int, send: Send) -> bool:
        """Have the server send the bytes; return whether it could."""
        try:
            await send({"type": _ZERO_COPY, "file": file, "offset": begin, "count": count})
        except io.UnsupportedOperation:
            return False
        return True

    async def _start(self, send: Send, status: int, length: int) -> None:
        self.headers["content-length"] = str(length)
        await send({"type": "http.response.start", "status": status, "headers": self.raw_headers})

    @staticmethod
    async def _read(file: io.FileIO, remaining: int) -> bytes:
        piece = await run_in_threadpool(file.read, min(_PIECE, remaining))
        if not piece:
            raise OSError(f"file became shorter while it was sent: {remaining} bytes left")
        return piece

    async def _send_all(
        self, file: io.FileIO, piece: bytes, remaining: int, receive: Receive, send: Send
    ) -> None:
        gone = asyncio.ensure_future(disconnected(receive))
        try:
            # To a client that went away the server sends nothing, and says nothing.
            while not gone.done():
                remaining -= len(piece)
                more = remaining > 0
                await send({"type": "http.response.body", "body": piece, "more_body": more})
                if not more:
                    return
                piece = await self._read(file, remaining)
        finally:
            gone.cancel()


async def disconnected(receive: Receive) -> None:
    """Return when the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass


def index_page(names: Iterable[str]) -> str:
    """Return an HTML page that links every published file.

    Parameters
    ----------
    names : iterable of str
        Paths below the data folder, with slashes. They come from clients (`name_pattern`), so that
        each is escaped for its place.
    """
    items = "".join(
        f'<li><a href="/data/{escape(quote(os.fsencode(name)))}">{escape(_shown(name))}</a></li>\n'
        for name in names
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>data</title></head>\n'
        f"<body><ul>\n{items}</ul></body></html>\n"
    )


def _shown(name: str) -> str:
    # A name that is not UTF-8 is in the folder, but not in a page.
    return os.fsencode(name).decode("utf-8", "replace")
