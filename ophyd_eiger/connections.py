"""Kept connections to one DCU, without what only a browser's visits to many servers need.

requests' own way of sending takes as long for a small request as a DCU's answer: it parses the
address, looks for proxies, certificates and the right pool each time anew. A DCU has one address.
"""

import functools
from typing import Any

import requests
from requests.adapters import HTTPAdapter

# More are closed after use; nobody has as many threads.
MOST_CONNECTIONS = 64
_HEADERS = dict(requests.utils.default_headers())


class Connections(HTTPAdapter):
    """Connections to one DCU, kept alive and shared by threads; nothing is sent twice."""

    def __init__(self) -> None:
        super().__init__(max_retries=0, pool_connections=1, pool_maxsize=MOST_CONNECTIONS)
        self._pool: Any = None

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        """Return the one pool there is."""
        if self._pool is None:
            self._pool = super().get_connection_with_tls_context(*args, **kwargs)
        return self._pool

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
