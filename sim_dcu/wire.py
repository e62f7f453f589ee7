"""How replies become packets: header and body of a small reply leave in one write.

A known client reads a reply with one call and takes what comes for the whole; with two writes it
would see an empty body, and the rest in front of its next reply. Knows nothing of the replies.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

try:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as _Protocol
except ImportError:  # httptools is uvicorn's option; h11 comes with it
    _Protocol = H11Protocol

# Above this, waiting for more would only cost memory.
_LARGEST_KEPT = 64 * 1024


class OneWriteTransport(asyncio.Transport):
    """A transport that keeps what is written until the event loop's next turn.

    Parameters
    ----------
    inner : asyncio.Transport
        Sends what was kept, joined.
    loop : asyncio.AbstractEventLoop
        Whose turns are meant.
    """

    def __init__(self, inner: asyncio.Transport, loop: asyncio.AbstractEventLoop):
        super().__init__()
        self._inner = inner
        self._loop = loop
        self._kept: list[bytes] = []
        self._size = 0

    def write(self, data: Any) -> None:
        """Keep `data`, or send it with all that was kept if it is large."""
        if not data:
            return
        if not self._kept:
            self._loop.call_soon(self._flush)
        self._kept.append(bytes(data))
        self._size += len(data)
        if self._size > _LARGEST_KEPT:
            self._flush()

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
    """uvicorn's HTTP protocol over a `OneWriteTransport`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start with one client."""
        super().connection_made(OneWriteTransport(transport, self.loop))  # type: ignore[arg-type]
