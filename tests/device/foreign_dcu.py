"""A DCU of somebody else's: the simulated one behind a proxy that leaves things out.

A gap is a function that is asked for each request, and gives the reply: what the DCU behind it
replies, the same with something missing, or something else. It is set and lifted while the DCU
runs.
"""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

JSON = "application/json"


@dataclass
class Reply:
    """What goes back to the client."""

    status: int = 200
    body: bytes = b""
    content_type: str = JSON
    announced: bool = True
    """Whether Content-Length says how long the body is; else the connection's end does."""
    etag: str = ""
    """The version that it names; none if empty."""

    @classmethod
    def of(cls, value: Any, status: int = 200) -> "Reply":
        """Return a reply with this as JSON."""
        return cls(status, json.dumps(value).encode())


@dataclass
class Request:
    """What a client asked, as "GET" and "detector config/count_time" or "data x_master.h5"."""

    method: str
    resource: str
    forward: Callable[[], Reply]
    lifted: threading.Event = field(repr=False)

    def asks(self, pattern: str) -> bool:
        """Return whether it is one of "GET detector config/*"."""
        return fnmatch(f"{self.method} {self.resource}", pattern)


Gap = Callable[[Request], Reply | None]


def whole(request: Request) -> Reply:
    """Leave nothing out."""
    return request.forward()


def missing(*patterns: str) -> Gap:
    """Not to have resources, as 404 says."""

    def gap(request: Request) -> Reply:
        if any(map(request.asks, patterns)):
            return Reply(404, b"404: Not Found", "text/plain")
        return request.forward()

    return gap


def answering(pattern: str, reply: Reply) -> Gap:
    """Do what is asked, and reply something else."""

    def gap(request: Request) -> Reply:
        true = request.forward()
        return reply if request.asks(pattern) else true

    return gap


def not_taken(pattern: str) -> Gap:
    """Reply to a PUT as if it had been carried out."""

    def gap(request: Request) -> Reply:
        return Reply.of([]) if request.asks(pattern) else request.forward()

    return gap


def without(*keys: str) -> Gap:
    """Leave these keys out of every JSON object."""

    def gap(request: Request) -> Reply:
        return edited(
            request.forward(),
            lambda true: {key: value for key, value in true.items() if key not in keys},
        )

    return gap


def with_value(pattern: str, value: Any) -> Gap:
    """Have another value in the reply to a GET, with the metadata that belongs to the true one."""

    def gap(request: Request) -> Reply:
        reply = request.forward()
        if not request.asks(pattern):
            return reply
        return edited(reply, lambda true: {**true, "value": value})

    return gap


def with_metadata(pattern: str, **metadata: Any) -> Gap:
    """Have other metadata in the reply to a GET."""

    def gap(request: Request) -> Reply:
        reply = request.forward()
        return edited(reply, lambda true: {**true, **metadata}) if request.asks(pattern) else reply

    return gap


def hanging(pattern: str, *, done: bool) -> Gap:
    """Never reply, having done what was asked or not."""

    def gap(request: Request) -> Reply | None:
        if not request.asks(pattern):
            return request.forward()
        if done:
            request.forward()
        request.lifted.wait(60)
        return None

    return gap


class Held:
    """A gap that holds back requests of one kind until they are released.

    Attributes
    ----------
    came, release : threading.Event
        That one came, and that they may go on.
    """

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.came, self.release = threading.Event(), threading.Event()

    def __call__(self, request: Request) -> Reply:
        if request.asks(self.pattern):
            self.came.set()
            self.release.wait(60)
        return request.forward()


def edited(reply: Reply, edit: Callable[[Any], Any]) -> Reply:
    """Return a reply with its JSON object changed; what is none stays."""
    if reply.status != 200 or JSON not in reply.content_type:
        return reply
    value = json.loads(reply.body or b"null")
    return Reply.of(edit(value)) if isinstance(value, dict) else reply


class ForeignDcu:
    """The proxy: `gap` is what it leaves out.

    Attributes
    ----------
    requests : list of str
        What it was asked, as "GET detector config/count_time" or "HEAD data x_master.h5".
    """

    def __init__(self, behind: str) -> None:
        self.behind = urlsplit(behind)
        self.requests: list[str] = []
        self._gap: Gap = whole
        self._lifted = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    @property
    def gap(self) -> Gap:
        """What is left out now."""
        return self._gap

    @gap.setter
    def gap(self, gap: Gap) -> None:
        """Leave out something else; what hung goes on, without a reply."""
        before, self._lifted = self._lifted, threading.Event()
        self._gap = gap
        before.set()

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Reply | None:
        """Return what goes back; None for nothing at all."""
        forwarded = {key: headers[key] for key in ("Accept", "Content-Type") if key in headers}

        def forward() -> Reply:
            connection = HTTPConnection(self.behind.hostname, self.behind.port, timeout=60)
            try:
                connection.request(method, path, body or None, forwarded)
                response = connection.getresponse()
                content_type = response.headers.get("Content-Type", "")
                return Reply(response.status, response.read(), content_type)
            finally:
                connection.close()

        parts = path.strip("/").split("/")
        # /detector/api/1.6.0/config/x, /data/x, /detector/api/version
        resource = f"{parts[0]} {'/'.join(parts[3:] if len(parts) > 3 else parts[1:])}"
        self.requests.append(f"{method} {resource}")
        return self._gap(Request(method, resource, forward, self._lifted))

    def close(self) -> None:
        """End it; what hangs is let go."""
        self.gap = whole
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


def _handler(dcu: ForeignDcu) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # A reply in two small packets waits for the client's delayed acknowledgement.
        disable_nagle_algorithm = True
        wbufsize = -1

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            reply = dcu.answer(self.command, self.path, dict(self.headers), body)
            if reply is None:
                self.close_connection = True
                return
            self.send_response(reply.status)
            if reply.content_type:
                self.send_header("Content-Type", reply.content_type)
            if reply.etag:
                self.send_header("ETag", f'"{reply.etag}"')
            if reply.announced:
                self.send_header("Content-Length", str(len(reply.body)))
            else:
                self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body)

        # The names are the library's.
        do_GET = do_PUT = do_DELETE = do_HEAD = answer  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Handler
