"""How replies become packets, and when a connection ends.

Header and body of a small reply leave in one write: a known client reads a reply with one call and
takes what comes for the whole; with two writes it would see an empty body, and the rest in front
of its next reply. The bytes of a large file are left to the kernel. A connection on which nothing
moves is closed. Knows nothing of the replies.
"""

import array
import asyncio
import contextlib
import fcntl
import os
import re
import sys
import termios
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from sim_dcu.file_sending import FileSending

try:
    from sim_dcu.heads import BoundedHeadsProtocol as _Protocol
except ImportError:  # httptools is uvicorn's option; h11 comes with it
    _Protocol = H11Protocol

# Above this, waiting for more would only cost memory.
_LARGEST_KEPT = 64 * 1024
# ASGI's words for a request or a message, and for an application.
_Words = MutableMapping[str, Any]
_App = Callable[[_Words, Any, Any], Awaitable[None]]
# ASGI's name for a part of a file that the server sends by itself.
ZERO_COPY = "http.response.zerocopysend"
# h11 wants to see the bytes.
_SENDS_FILES = hasattr(os, "sendfile") and _Protocol is not H11Protocol
# What Linux is asked for what it has not delivered.
_UNACKNOWLEDGED = termios.TIOCOUTQ if sys.platform == "linux" else None
# How many times within the idle limit a connection is looked at.
_LOOKS = 10
_REASONS = {400: "Bad Request", 414: "URI Too Long", 431: "Request Header Fields Too Large"}


class _Sent:
    """Stands for so many bytes of a body that the client has got."""

    def __init__(self, count: int):
        self._count = count

    def __len__(self) -> int:
        return self._count


class OneWriteTransport(asyncio.Transport):
    """A transport that keeps what is written until the event loop's next turn.

    Parameters
    ----------
    inner : asyncio.Transport
        Sends what was kept, joined.
    loop : asyncio.AbstractEventLoop
        Whose turns are meant.

    Attributes
    ----------
    last_write : float
        When the server last had something to send, in s of the loop's clock.
    """

    def __init__(self, inner: asyncio.Transport, loop: asyncio.AbstractEventLoop):
        super().__init__()
        self._inner = inner
        self._loop = loop
        self._kept: list[bytes] = []
        self._size = 0
        self.last_write = loop.time()
        # Where a fault on request cuts the reply, and what of it may still leave, in bytes.
        self._cut: str = ""
        self._has_body = True
        self._remaining: int | None = None
        self._sending: FileSending | None = None

    def write(self, data: Any) -> None:
        """Keep `data`, or send it with all that was kept if it is large."""
        if not data or isinstance(data, _Sent):
            return
        if self._cut:
            self._write_until_cut(bytes(data))
            return
        self.last_write = self._loop.time()
        if not self._kept:
            self._loop.call_soon(self._flush)
        if len(data) > _LARGEST_KEPT:
            self._flush()
            self._inner.write(data)
            return
        self._kept.append(bytes(data))
        self._size += len(data)
        if self._size > _LARGEST_KEPT:
            self._flush()

    async def send_file(self, file: Any, offset: int, count: int) -> None:
        """Send part of a file after all that was written, and return when it has left.

        Raises
        ------
        OSError
            io.UnsupportedOperation where the kernel cannot, before anything is sent; a
            ConnectionError where the client is gone.
        """
        self._flush()
        if self._inner.is_closing():
            raise ConnectionAbortedError("the connection is closed")
        self._sending = sending = FileSending(
            self._loop,
            self._inner.get_extra_info("socket").fileno(),
            file,
            offset,
            count,
            waits=lambda: self._inner.get_write_buffer_size() > 0,
            moved=self._note_moved,
        )
        try:
            await sending.done
        finally:
            sending.stop()
            self._sending = None

    def in_kernel(self) -> int:
        """Return how many bytes the client has not got of those that the kernel took.

        0 where the kernel does not say it.
        """
        count = array.array("i", [0])
        connection = self._inner.get_extra_info("socket")
        if _UNACKNOWLEDGED is not None and connection.fileno() >= 0:
            with contextlib.suppress(OSError):
                fcntl.ioctl(connection.fileno(), _UNACKNOWLEDGED, count)
        return count[0]

    def _note_moved(self) -> None:
        self.last_write = self._loop.time()

    def stop_sending(self) -> None:
        """Send no more of a file: the connection ends."""
        if self._sending is not None:
            self._sending.stop(ConnectionAbortedError("the connection was closed"))

    def cut_reply(self, where: str, *, has_body: bool) -> None:
        """Cut the connection in the reply that comes.

        Parameters
        ----------
        where : str
            `head` or `body`, in the middle of it; `after` all of it.
        has_body : bool
            Whether the reply has the body that its head announces: that of a HEAD has none.
        """
        self._flush()
        self._cut, self._has_body, self._remaining = where, has_body, None

    def _write_until_cut(self, data: bytes) -> None:
        """Let what comes before the cut leave, then close; data: from the head's start on."""
        if data.startswith(b"HTTP/1.1 100 "):
            self._inner.write(data)
            return
        if self._remaining is None:
            # uvicorn writes a head in one piece.
            head, _, _ = data.partition(b"\r\n\r\n")
            length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
            body = int(length[1]) if length and self._has_body else 0
            whole = len(head) + 4
            self._remaining = {
                "head": len(head) // 2,
                "body": whole + body // 2,
                "after": whole + body,
            }[self._cut]
        leaves = data[: self._remaining]
        self._remaining -= len(leaves)
        if leaves:
            self._inner.write(leaves)
        if not self._remaining:
            self._inner.close()

    def _flush(self) -> None:
        if self._kept:
            joined = b"".join(self._kept)
            self._kept.clear()
            self._size = 0
            self._inner.write(joined)

    def close(self) -> None:
        """Send what was kept, then close."""
        self._flush()
        self._inner.close()

    def abort(self) -> None:
        """Close at once."""
        self._kept.clear()
        self._inner.abort()

    def is_closing(self) -> bool:
        """Return whether the connection is closed or about to be."""
        return self._inner.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the inner transport knows of the connection."""
        return self._inner.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait for the client, those kept left out."""
        return self._inner.get_write_buffer_size()

    def pause_reading(self) -> None:
        """Let the client wait."""
        self._inner.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        self._inner.resume_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand the connection to another protocol."""
        self._inner.set_protocol(protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol that reads the connection."""
        return self._inner.get_protocol()


class OneWriteProtocol(_Protocol):  # type: ignore[misc, valid-type]
    """uvicorn's HTTP protocol over a `OneWriteTransport`, with an end to its patience.

    Attributes
    ----------
    idle_limit : float
        In s: a connection on which neither side moved a byte for as long is closed, also one that
        waits for a command to end.
    """

    idle_limit = 300.0
    refusal = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start with one client."""
        self._outgoing = OneWriteTransport(transport, self.loop)
        self._last_moved = self.loop.time()
        self._waiting = (0, 0)
        self._look = self.loop.call_later(self.idle_limit / _LOOKS, self._look_after)
        # ASGI's place for what a server tells its application of a connection.
        self.app_state = {**self.app_state, "connection": self._outgoing}
        self._lost = asyncio.Event()
        if _SENDS_FILES:
            self.app = self._sending_files(self.app)
        super().connection_made(self._outgoing)  # type: ignore[arg-type]

    def connection_lost(self, exc: Exception | None) -> None:
        """End with one client."""
        self._look.cancel()
        self._outgoing.stop_sending()
        self._lost.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        self._last_moved = self.loop.time()
        super().data_received(data)

    def eof_received(self) -> bool:
        """Answer a client that has said all it will say, then close."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            # Closing sends what was kept, too.
            self._outgoing.close()
            return False
        cycle.keep_alive = False
        return True

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not a request, and close: what follows cannot be told apart from it.

        In the middle of a reply nothing can be said: it would be taken for a part of that.
        """
        cycle = self.cycle
        if cycle is not None and cycle.response_started and not cycle.response_complete:
            self._outgoing.abort()
            return
        self.refusal = self.refusal or 400
        reason = _REASONS[self.refusal]
        self._outgoing.write(
            f"HTTP/1.1 {self.refusal} {reason}\r\ncontent-type: text/plain; charset=utf-8\r\n"
            f"content-length: {len(reason)}\r\nconnection: close\r\n\r\n{reason}".encode()
        )
        self._outgoing.close()

    def _sending_files(self, app: _App) -> _App:
        """Return `app` with ASGI's extension for files, which uvicorn does not have."""

        async def answer(scope: _Words, receive: Any, send: Any) -> None:
            async def send_files(message: _Words) -> None:
                if message["type"] != ZERO_COPY:
                    await send(message)
                    return
                count = message["count"]
                try:
                    await self._outgoing.send_file(message["file"], message["offset"], count)
                except ConnectionError:
                    # To a client that went away nothing is sent, and nothing is said.
                    self._outgoing.abort()
                    await self._lost.wait()
                    return
                # uvicorn counts what is sent.
                more = message.get("more_body", False)
                await send({"type": "http.response.body", "body": _Sent(count), "more_body": more})

            extensions = {**scope.get("extensions", {}), ZERO_COPY: {}}
            await app({**scope, "extensions": extensions}, receive, send_files)

        return answer

    def _look_after(self) -> None:
        now = self.loop.time()
        # Of a long reply the client's side is seen only in what still waits for it, here and in
        # the kernel, which takes more only when a third of its room is free again.
        waiting = (self._outgoing.get_write_buffer_size(), self._outgoing.in_kernel())
        if waiting != self._waiting:
            self._waiting = waiting
            self._last_moved = now
        remaining = max(self._last_moved, self._outgoing.last_write) + self.idle_limit - now
        if remaining <= 0:
            # Not close(), which would wait for a client that does not read.
            self._outgoing.abort()
            return
        self._look = self.loop.call_later(
            min(remaining, self.idle_limit / _LOOKS), self._look_after
        )


def protocol(idle_limit: float) -> type[OneWriteProtocol]:
    """Return the protocol with a patience of `idle_limit` s."""
    return type("IdleLimitProtocol", (OneWriteProtocol,), {"idle_limit": idle_limit})
