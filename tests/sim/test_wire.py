"""What the socket carries: one write a reply, short headers, kept connections."""

import http.client
import socket
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from plain_client import Client

import sim_dcu


@pytest.fixture
def raw(dcu: sim_dcu.Server) -> Iterator[socket.socket]:
    address = urlsplit(dcu.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        yield connection


def ask(raw: socket.socket, method: str, path: str, body: bytes | None = None) -> bytes:
    """Ask as areaDetector's driver does, and return what one read of 512 bytes brings."""
    length = len(body or b"")
    kind = "Content-Type: application/json\r\n" if method == "PUT" else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: dcu\r\n{kind}Content-Length: {length}\r\n\r\n"
    raw.sendall(head.encode() + (body or b""))
    return raw.recv(512)


def checked(reply: bytes) -> tuple[bytes, bytes]:
    """Return head and body of a reply that is whole."""
    head, _, body = reply.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    headers = dict(line.lower().split(b": ", 1) for line in lines[1:])
    assert b"transfer-encoding" not in headers
    assert b"server" not in headers
    assert int(headers[b"content-length"]) == len(body)
    return lines[0], body


def test_every_scalar_reply_is_one_read_of_512_bytes(client: Client, raw: socket.socket) -> None:
    resources = [
        f"/{subsystem}/api/1.6.0/{section}/{key}"
        for subsystem, section in (
            ("detector", "config"),
            ("detector", "status"),
            ("filewriter", "config"),
            ("filewriter", "status"),
        )
        for key in client.get(f"{subsystem}/{section}/keys").json()
        if key not in ("flatfield", "pixel_mask")
    ]
    assert len(resources) > 70
    for path in resources:
        status, body = checked(ask(raw, "GET", path))
        assert status == b"HTTP/1.1 200 OK"
        assert body.endswith(b"}")
    # Nothing was left behind for the next reply on this connection.
    raw.setblocking(False)
    with pytest.raises(BlockingIOError):
        raw.recv(1)


def test_puts_and_refusals_are_one_read_too(raw: socket.socket) -> None:
    config = "/detector/api/1.6.0/config/"
    command = "/detector/api/1.6.0/command/"
    for method, path, body, status in (
        ("PUT", config + "count_time", b'{"value": 1.0}', b"200"),
        ("PUT", config + "photon_energy", b'{"value": 9000}', b"200"),
        ("PUT", config + "count_time", b'{"value": -1}', b"400"),
        ("PUT", config + "element", b'{"value": "Xx"}', b"400"),
        ("GET", config + "no_such", None, b"404"),
        ("PUT", "/filewriter/api/1.6.0/config/mode", b'{"value": "enabled"}', b"200"),
        ("PUT", command + "arm", None, b"200"),
        ("PUT", command + "trigger", None, b"200"),
        ("PUT", command + "disarm", None, b"200"),
        ("HEAD", "/data/series_1_nothing.h5", None, b"404"),
        ("GET", "/filewriter/api/1.6.0/files", None, b"200"),
    ):
        head, _, content = ask(raw, method, path, body).partition(b"\r\n\r\n")
        assert head.split(b" ")[1] == status, (path, head)
        length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length"))
        if method != "HEAD":
            assert int(length.split(b": ")[1]) == len(content)


def test_a_connection_serves_many_requests_in_turn(dcu: sim_dcu.Server) -> None:
    address = urlsplit(dcu.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=10)
    sockets = set()
    for _ in range(5):
        connection.request("PUT", "/detector/api/1.6.0/command/disarm")
        reply = connection.getresponse()
        assert reply.read() == b'{"sequence id": 0}'
        sockets.add(id(connection.sock))
    assert len(sockets) == 1
    connection.close()


def test_requests_sent_ahead_are_answered_in_order(raw: socket.socket) -> None:
    one = b"GET /detector/api/version HTTP/1.1\r\nHost: d\r\n\r\n"
    two = b"GET /detector/api/1.6.0/config/nimages HTTP/1.1\r\nHost: d\r\n\r\n"
    raw.sendall(one + two + one)
    received = b""
    while received.count(b"HTTP/1.1 200") < 3 or not received.endswith(b"}"):
        received += raw.recv(4096)
    assert received.index(b"1.6.0") < received.index(b"uint") < received.rindex(b"1.6.0")


def test_a_file_larger_than_any_buffer_arrives_whole(client: Client, dcu: sim_dcu.Server) -> None:
    content = bytes(range(256)) * (12 * 4096)
    (dcu.dcu.store.folder / "large.h5").write_bytes(content)
    reply = client.session.get(f"{client.url}/data/large.h5", timeout=20)
    assert reply.headers["content-length"] == str(len(content))
    assert reply.content == content


def test_connection_close_is_honoured(raw: socket.socket) -> None:
    raw.sendall(b"GET /detector/api/version HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
    received = b""
    while piece := raw.recv(4096):
        received += piece
    assert received.endswith(b"}")


def test_h11_serves_where_httptools_is_missing() -> None:
    script = """
import sys
sys.modules["httptools"] = None
import socket
import subprocess
import sys
from urllib.parse import urlsplit
import sim_dcu
from sim_dcu.wire import OneWriteProtocol
from uvicorn.protocols.http.h11_impl import H11Protocol
assert issubclass(OneWriteProtocol, H11Protocol)
from urllib.request import urlopen
with sim_dcu.serve("eiger-500k", initialized=True) as dcu:
    # A file that httptools' protocol would leave to the kernel.
    content = bytes(range(250)) * 10_000
    (dcu.dcu.store.folder / "large.h5").write_bytes(content)
    with urlopen(f"{dcu.url}/data/large.h5", timeout=10) as reply:
        assert reply.read() == content
    address = urlsplit(dcu.url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        for _ in range(3):
            connection.sendall(
                b"PUT /detector/api/1.6.0/command/disarm HTTP/1.1\\r\\n"
                b"Host: d\\r\\nContent-Length: 0\\r\\n\\r\\n"
            )
            print(connection.recv(512).split(b"\\r\\n\\r\\n")[1].decode())
"""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert (run.stdout, run.stderr) == ('{"sequence id": 0}\n' * 3, "")
