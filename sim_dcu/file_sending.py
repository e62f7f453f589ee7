"""Bytes of a file on their way to a client, without passing through this process.

Knows sockets and files; nothing of HTTP.
"""

import asyncio
import errno
import io
import os
from collections.abc import Callable

# In bytes: what is sent at once at most, about 1 ms in which nothing else is answered. Mostly it is
# what the socket takes.
_PIECE = 2**22
# What a kernel says that cannot send from such a file, or to such a socket.
_CANNOT = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


class FileSending:
    """A part of a file that the kernel sends, a piece in each turn of the event loop.

    Reading from the connection goes on meanwhile, so that its end is noticed.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
        Tells when the socket takes more.
    connection : int
        The socket's descriptor.
    file : io.FileIO
        Stays open until `done`.
    offset, count : int
        The first byte, and how many.
    waits : callable
        Returns whether what was written before still waits to be sent.
    moved : callable
        Called when bytes were sent.

    Attributes
    ----------
    done : Future
        Resolved with None when all is sent; its exception is an OSError: io.UnsupportedOperation
        where nothing can be sent in this way, a ConnectionError where the client is gone.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: int,
        file: io.FileIO,
        offset: int,
        count: int,
        *,
        waits: Callable[[], bool],
        moved: Callable[[], None],
    ):
        self.done: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._file = file
        self._next = offset
        self._end = offset + count
        self._first = offset
        self._waits = waits
        self._moved = moved
        # The loop watches each descriptor for one party only, and the connection has its own.
        self._socket = os.dup(connection)
        loop.add_writer(self._socket, self._send)

    def stop(self, error: OSError | None = None) -> None:
        """Send no more; harmless when it is done."""
        if self._socket < 0:
            return
        self._loop.remove_writer(self._socket)
        os.close(self._socket)
        self._socket = -1
        if self.done.done():  # cancelled
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)

    def _send(self) -> None:
        if self._waits():
            return
        wanted = min(_PIECE, self._end - self._next)
        try:
            sent = os.sendfile(self._socket, self._file.fileno(), self._next, wanted)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            if error.errno in _CANNOT and self._next == self._first:
                error = io.UnsupportedOperation(str(error))
            self.stop(error)
            return
        if not sent:
            left = self._end - self._next
            self.stop(OSError(f"file became shorter while it was sent: {left} bytes left"))
            return
        self._next += sent
        self._moved()
        if self._next == self._end:
            self.stop()
