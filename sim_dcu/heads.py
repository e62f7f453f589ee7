"""Requests whose head has a bearable length.

The parser keeps a head until it ends, however long that takes; this ends it. h11, which takes over
where httptools is missing, has such a limit of its own. Knows nothing of replies or of the API.
"""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# In bytes: many times what any known client sends.
LARGEST_URL = 8 * 1024
LARGEST_HEAD = 64 * 1024


class BoundedHeadsProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which refuses a URL or a head that is too long.

    Attributes
    ----------
    refusal : int
        The HTTP status of such a refusal, or 0.
    """

    refusal = 0
    # All bytes since a request, a head or a piece of a body ended: those of the head, or trailer,
    # that comes. And those in its fields.
    _head_bytes = 0
    _field_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Read on, unless the head or trailer that has not ended is too long already."""
        if self.refusal:
            return
        if self._head_bytes > LARGEST_HEAD:
            self.refusal = 431
            self.send_400_response("")
            return
        self._head_bytes += len(data)
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Count the next head from its start."""
        self._field_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a piece of the URL."""
        super().on_url(url)
        if len(self.url) > LARGEST_URL:
            self.refusal = 414
            raise ValueError("URL too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head, or of a trailer."""
        self._field_bytes += len(name) + len(value)
        if self._field_bytes > LARGEST_HEAD:
            self.refusal = 431
            raise ValueError("head too long")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Go over to the body."""
        self._head_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Wait for the next head."""
        self._head_bytes = 0
        super().on_message_complete()
