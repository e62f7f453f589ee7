"""A DCU's data folder as others may serve it: without ranges, with wrong ones, with breaks."""

import contextlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

# In s: between two drops of what drips.
DRIP_S = 0.1


@dataclass
class FileServer:
    """Serves files under /data/, and their list, and notes which were asked for.

    Attributes
    ----------
    files : dict of str to bytes
        By name.
    ranges : {"right", "ignored", "wrong", "refused"}
        What becomes of a Range.
    breaks : list of int
        After how many bytes of the body each of the next replies breaks off.
    spoils : list of int
        Which byte of the body is another one in each of the next replies.
    length : bool
        Whether replies say how long they are.
    drips : int or None
        After how many bytes of its body a reply goes on a drop at a time.
    drop : int
        How many bytes that is.
    etag : str
        The version that replies name; none if empty.
    asked : list of (str, int or None)
        Name and first byte of each request, in order.
    """

    files: dict[str, bytes]
    ranges: str = "right"
    breaks: list[int] = field(default_factory=list)
    spoils: list[int] = field(default_factory=list)
    length: bool = True
    drips: int | None = None
    drop: int = 1
    etag: str = ""
    asked: list[tuple[str, int | None]] = field(default_factory=list)
    url: str = ""

    def reply(self, request: bytes) -> tuple[bytes, bytes]:
        """Return head and body for a request."""
        if found := re.match(rb"GET /(?!data/)\S*/(\w+) ", request):
            value = {"version": "1.6.0", "state": "idle", "files": list(self.files)}
            body = json.dumps({"value": value[found[1].decode()]}).encode()
            return b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", body
        verb, name = re.match(rb"(GET|DELETE) /data/(\S+) ", request).groups()
        name = name.decode()
        if verb == b"DELETE":
            del self.files[name]
            return b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", b""
        found = re.search(rb"\r\nRange: bytes=(\d+)-\r\n", request, re.IGNORECASE)
        start = int(found[1]) if found else None
        self.asked.append((name, start))
        whole = self.files[name]
        head = [b"HTTP/1.1 200 OK", b"Connection: close"]
        body = whole
        if start is not None and self.ranges == "refused":
            head[0], body = b"HTTP/1.1 416 Range Not Satisfiable", b""
        elif start is not None and self.ranges != "ignored":
            first = start + (7 if self.ranges == "wrong" else 0)
            body = whole[first:]
            head[0] = b"HTTP/1.1 206 Partial Content"
            head.append(b"Content-Range: bytes %d-%d/%d" % (first, len(whole) - 1, len(whole)))
        if self.length:
            head.append(b"Content-Length: %d" % len(body))
        if self.etag:
            head.append(b'ETag: "%s"' % self.etag.encode())
        if self.breaks:
            body = body[: self.breaks.pop(0)]
        if self.spoils:
            place = self.spoils.pop(0)
            body = body[:place] + bytes([body[place] ^ 0xFF]) + body[place + 1 :]
        return b"\r\n".join(head) + b"\r\n\r\n", body


@contextmanager
def serving(files: dict[str, bytes], **options: object) -> Iterator[FileServer]:
    """Serve files until the end of the block."""
    server = FileServer(files, **options)
    over = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    server.url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                request = b""
                while b"\r\n\r\n" not in request:
                    request += connection.recv(65536)
                head, body = server.reply(request)
                at_once = len(body) if server.drips is None else server.drips
                connection.sendall(head + body[:at_once])
                with contextlib.suppress(ConnectionError):  # Who asked may leave.
                    for begin in range(at_once, len(body), server.drop):
                        connection.sendall(body[begin : begin + server.drop])
                        over.wait(DRIP_S)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server
    finally:
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(20)
