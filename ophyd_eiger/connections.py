"""Kept connections to one DCU, without what only a browser's visits to many servers need.

requests' own way of sending takes as long for a small request as a DCU's answer: it parses the
address, looks for proxies, certificates and the right pool each time anew. A DCU has one address.
"""

import functools
import io
import threading
import time
from http.client import HTTPResponse
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection

# More are closed after use; nobody has as many threads.
MOST_CONNECTIONS = 64
# In bytes/s: what comes slower drips.
LEAST_RATE = 1000
# The first HTTP status of a server that failed.
SERVER_FAULT = 500
_HEADERS = dict(requests.utils.default_headers())


class Connections(HTTPAdapter):
    """Connections to one DCU, kept alive and shared by threads; nothing is sent twice.

    Parameters
    ----------
    connect_s : float
        How long it may take to make one, in s. The timeout of `send` is for all that comes after.
    """

    def __init__(self, connect_s: float) -> None:
        super().__init__(max_retries=0, pool_connections=1, pool_maxsize=MOST_CONNECTIONS)
        self._pool: Any = None
        self._making_pool = threading.Lock()
        self._connect_s = connect_s

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        """Return the one pool there is."""
        if self._pool is None:
            with self._making_pool:
                if self._pool is None:
                    self._pool = self._new_pool(*args, **kwargs)
        return self._pool

    def _new_pool(self, *args: Any, **kwargs: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        kind = pool.ConnectionCls
        own = {"response_class": _Reply, "connect_s": self._connect_s}
        pool.ConnectionCls = type(kind.__name__, (_Connection, kind), own)
        return pool

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        """Return the path: there is no proxy."""
        return request.path_url

    def close(self) -> None:
        """Close every connection, those in use when they are not any more."""
        pools = self.poolmanager.pools
        # The manager forgets its pools, whose connections live as long as a reply that is kept.
        for pool in [pools[key] for key in pools.keys()]:  # noqa: SIM118 - it cannot be iterated
            pool.close()
        super().close()


class _Connection(HTTPConnection):
    """A connection with a time of its own to be made, and another one to send a request.

    urllib3 has one for both, in which no mask of 16 million pixels is sent.
    """

    connect_s: float

    def connect(self) -> None:
        to_send, self.timeout = self.timeout, self.connect_s
        try:
            super().connect()
        finally:
            self.timeout = to_send
        self.sock.settimeout(to_send)


class _Reply(HTTPResponse):
    """A reply whose head and body may drip no longer than its connection's timeout.

    One of a server that failed is its connection's last: servers close it then, some (uvicorn) with
    the next request already in hand, whose reply is lost.
    """

    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        if (seconds := sock.gettimeout()) is not None:
            self.fp = io.BufferedReader(_Undripping(self.fp.detach(), seconds))

    def begin(self) -> None:
        super().begin()
        self.will_close = self.will_close or self.status >= SERVER_FAULT


class _Undripping(io.RawIOBase):
    """What a connection reads, whose own timeout is for each byte alone.

    Parameters
    ----------
    raw : io.RawIOBase
        Reads from the connection.
    seconds : float
        How long bytes may be waited for, after the first one at any time, if less than `LEAST_RATE`
        of them come meanwhile; what their reader does between two reads does not count.
    """

    def __init__(self, raw: Any, seconds: float) -> None:
        self._raw = raw
        self._seconds = seconds
        self._bytes = self._lately = 0
        self._waited = 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        began = time.monotonic()
        count = self._raw.readinto(buffer)
        if self._bytes and count:
            self._waited += time.monotonic() - began
            self._lately += count
        self._bytes += count or 0
        if self._waited > self._seconds:
            if self._lately < LEAST_RATE * self._waited:
                raise TimeoutError(
                    f"timed out: {self._lately} of its {self._bytes} bytes came in the last "
                    f"{self._waited:.3g} s"
                )
            self._waited, self._lately = 0.0, 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


def prepared(method: str, url: str, **parts: Any) -> requests.PreparedRequest:
    """Return a request that is ready to be sent, and is not to be changed.

    Parameters
    ----------
    method, url : str
        As in "GET".
    **parts
        headers, json or data, as `requests.request` takes them.
    """
    if not parts:
        return _plain(method, url)
    request = requests.PreparedRequest()
    headers = {**_HEADERS, **parts.pop("headers", {})}
    request.prepare(method=method, url=url, headers=headers, **parts)
    return request


# There are some 200 resources.
@functools.lru_cache(maxsize=1024)
def _plain(method: str, url: str) -> requests.PreparedRequest:
    request = requests.PreparedRequest()
    request.prepare(method=method, url=url, headers=_HEADERS)
    return request
