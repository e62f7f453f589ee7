"""Bytes of a file on their way to a client, without passing through this process.

Knows sockets and files; nothing of HTTP.
"""

import asyncio
import errno
import io
import os
from collections.abc import Callable

# In bytes: what is sent at once at most; nothing else is answered meanwhile.
_PIECE = 2**20
# In bytes: what is read ahead where the file is on the disk alone.
_AHEAD = 2**24
# Linux alone tells what is in memory.
_NOWAIT = getattr(os, "RWF_NOWAIT", None)
# What a kernel says that cannot send from such a file, or to such a socket.
_CANNOT = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
# What it says of a client that is gone, beside Python's kinds of ConnectionError.
_GONE = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN)


class FileSending:
    """A part of a file that the kernel sends, a piece in each turn of the event loop.

    Reading from the connection goes on meanwhile, so that its end is noticed. A thread reads what
    is not in memory, so that the loop never waits for the disk.

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
        # Where a thread has just read, so that it is not asked again if that did not help.
        self._read_at = -1
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
        if not self._is_in_memory(wanted):
            self._loop.remove_writer(self._socket)
            reading = self._loop.run_in_executor(
                None, _read_ahead, os.dup(self._file.fileno()), self._next, wanted
            )
            reading.add_done_callback(self._go_on)
            return
        try:
            sent = os.sendfile(self._socket, self._file.fileno(), self._next, wanted)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            if error.errno in _CANNOT and self._next == self._first:
                error = io.UnsupportedOperation(str(error))
            elif error.errno in _GONE:
                error = ConnectionAbortedError(str(error))
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

    def _is_in_memory(self, count: int) -> bool:
        """Return whether the next bytes can be sent without the disk; of a piece its two ends."""
        if _NOWAIT is None or self._read_at == self._next:
            return True
        one = bytearray(1)
        try:
            for place in (self._next, self._next + count - 1):
                os.preadv(self._file.fileno(), [one], place, _NOWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True  # not of such a file
        return True

    def _go_on(self, reading: "asyncio.Future[None]") -> None:
        if reading.cancelled() or self._socket < 0:
            return
        # If it could not be read, sending tells why.
        reading.exception()
        self._read_at = self._next
        self._loop.add_writer(self._socket, self._send)


def _read_ahead(file: int, offset: int, count: int) -> None:
    """Have the kernel read the next bytes of a file, and wait for so many of them; closes it."""
    try:
        os.posix_fadvise(file, offset, _AHEAD, os.POSIX_FADV_WILLNEED)
        buffer = memoryview(bytearray(count))
        while count > 0 and (done := os.preadv(file, [buffer[:count]], offset)):
            offset, count = offset + done, count - done
    finally:
        os.close(file)
