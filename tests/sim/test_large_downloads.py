"""Files that are left to the kernel: every byte, in order, whatever the client does meanwhile."""

import asyncio
import contextlib
import errno
import io
import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
import requests
from plain_client import Client, until

import sim_dcu
from sim_dcu.file_sending import FileSending

# Beyond what any socket's buffers hold, and no multiple of a piece.
SIZE = 24 * 2**20 + 321
CONTENT = np.random.default_rng(5).bytes(SIZE)
LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each call of the kernel's sent."""
    found: list[int] = []
    sendfile = os.sendfile

    def noted(*arguments: int) -> int:
        found.append(sendfile(*arguments))
        return found[-1]

    monkeypatch.setattr(os, "sendfile", noted)
    return found


@pytest.fixture
def stored(dcu: sim_dcu.Server) -> Path:
    path = dcu.dcu.store.folder / "large.h5"
    path.write_bytes(CONTENT)
    return path


@contextlib.contextmanager
def connection(dcu: sim_dcu.Server) -> Iterator[socket.socket]:
    address = urlsplit(dcu.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as raw:
        yield raw


def request(path: str, *lines: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: d", *lines, "", ""]).encode()


def reply(raw: socket.socket) -> bytes:
    """Return the body of the next reply on a connection."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += raw.recv(1)
    length = LENGTH.search(head)
    assert length, head
    body = bytearray()
    while len(body) < int(length[1]):
        piece = raw.recv(min(2**20, int(length[1]) - len(body)))
        assert piece
        body += piece
    return bytes(body)


@pytest.mark.parametrize(
    ("wanted", "first", "end"),
    [
        ("bytes=0-", 0, SIZE),
        ("bytes=1-", 1, SIZE),
        ("bytes=4097-20000000", 4097, 20_000_001),
        (f"bytes=-{2**20 + 1}", SIZE - 2**20 - 1, SIZE),
    ],
)
def test_the_kernel_sends_the_range_that_was_asked_for(
    client: Client, stored: Path, sent: list[int], wanted: str, first: int, end: int
) -> None:
    url = f"{client.url}/data/{stored.name}"
    answer = client.session.get(url, headers={"Range": wanted}, timeout=10)
    assert answer.content == CONTENT[first:end]
    assert answer.headers["content-length"] == str(end - first)
    # The client may have the last piece before it is counted.
    until(lambda: sum(sent) == end - first)


def test_a_head_and_a_short_range_need_no_kernel(
    client: Client, stored: Path, sent: list[int]
) -> None:
    url = f"{client.url}/data/{stored.name}"
    assert client.session.head(url, timeout=10).headers["content-length"] == str(SIZE)
    answer = client.session.get(url, headers={"Range": f"bytes=0-{2**20 - 1}"}, timeout=10)
    assert answer.content == CONTENT[: 2**20]
    assert sent == []


def test_replies_on_one_connection_keep_their_order(
    dcu: sim_dcu.Server, stored: Path, sent: list[int]
) -> None:
    """Also where the client asks ahead, and reads late: what waits before goes first."""
    version = request("/detector/api/version")
    file = request(f"/data/{stored.name}")
    with connection(dcu) as raw:
        raw.sendall(version + file + version + file + version)
        until(lambda: sent)
        bodies = [reply(raw) for _ in range(5)]
    assert bodies[1] == bodies[3] == CONTENT
    assert bodies[0] == bodies[2] == bodies[4] != CONTENT
    until(lambda: sum(sent) == 2 * SIZE)


def test_a_file_that_the_kernel_cannot_send_is_read(
    client: Client, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: int) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "sendfile", refused)
    url = f"{client.url}/data/{stored.name}"
    for _ in range(2):
        answer = client.session.get(url, headers={"Range": "bytes=1-"}, timeout=10)
        assert answer.content == CONTENT[1:]


def test_others_are_answered_while_nobody_reads_a_download(
    dcu: sim_dcu.Server, client: Client, stored: Path, sent: list[int]
) -> None:
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(connection(dcu)) for _ in range(4)]
        for raw in waiting:
            raw.sendall(request(f"/data/{stored.name}"))
        until(lambda: sum(sent) > 4 * 2**16)
        assert client.state == "idle"
        # One whose file is deleted meanwhile still gets all of it.
        assert client.session.delete(f"{client.url}/data/{stored.name}", timeout=10).ok
        assert reply(waiting[0]) == CONTENT


@pytest.mark.parametrize("how", ["close", "reset", "stop"])
def test_a_download_that_is_broken_off_leaves_nothing_behind(
    dcu: sim_dcu.Server,
    client: Client,
    stored: Path,
    sent: list[int],
    caplog: pytest.LogCaptureFixture,
    how: str,
) -> None:
    assert client.state == "idle"
    process = psutil.Process()
    before = process.num_fds()
    with connection(dcu) as raw:
        raw.sendall(request(f"/data/{stored.name}"))
        until(lambda: sum(sent) > 2**16)
        if how == "reset":
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
        if how == "stop":
            dcu.stop()
            received = b""
            while piece := raw.recv(2**20):
                received += piece
            assert len(received) < SIZE
    if how == "stop":
        assert process.num_fds() < before
    else:
        until(lambda: process.num_fds() == before)
        assert client.state == "idle"
    assert [record.getMessage() for record in caplog.records] == []


def test_a_file_that_becomes_shorter_ends_the_connection(
    dcu: sim_dcu.Server, stored: Path, sent: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    with connection(dcu) as raw:
        raw.sendall(request(f"/data/{stored.name}"))
        until(lambda: sum(sent) > 2**16)
        os.truncate(stored, 2**16)
        received = 0
        while piece := raw.recv(2**20):
            received += len(piece)
    assert received < SIZE
    assert "file became shorter while it was sent" in caplog.text


def test_a_client_that_has_said_all_still_gets_its_file(
    dcu: sim_dcu.Server, stored: Path, sent: list[int]
) -> None:
    with connection(dcu) as raw:
        raw.sendall(request(f"/data/{stored.name}"))
        raw.shutdown(socket.SHUT_WR)
        assert reply(raw) == CONTENT
        assert raw.recv(1) == b""
    until(lambda: sum(sent) == SIZE)


def test_many_download_at_once(dcu: sim_dcu.Server, stored: Path, sent: list[int]) -> None:
    found: list[bool] = []

    def fetch() -> None:
        content = requests.get(f"{dcu.url}/data/{stored.name}", timeout=30).content
        found.append(content == CONTENT)

    clients = [threading.Thread(target=fetch) for _ in range(6)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    assert found == [True] * 6
    until(lambda: sum(sent) == 6 * SIZE)


def test_what_was_written_before_goes_first(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")

    async def scenario(server: socket.socket, client: socket.socket, file: io.FileIO) -> None:
        waiting, moved = [b"head"], []
        sending = FileSending(
            asyncio.get_running_loop(),
            server.fileno(),
            file,
            2,
            5,
            waits=lambda: bool(waiting),
            moved=lambda: moved.append(True),
        )
        for _ in range(20):
            await asyncio.sleep(0)
        with pytest.raises(BlockingIOError):
            client.recv(1)
        waiting.clear()
        await sending.done
        assert client.recv(100) == b"23456"
        assert moved == [True]

    server, client = socket.socketpair()
    with server, client, io.FileIO(path) as file:
        server.setblocking(False)
        client.setblocking(False)
        asyncio.run(scenario(server, client, file))


def test_what_is_no_request_in_the_middle_of_a_file_does_not_get_into_it(
    dcu: sim_dcu.Server, stored: Path
) -> None:
    with connection(dcu) as raw:
        raw.sendall(request("/data/large.h5"))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += raw.recv(1)
        raw.sendall(b"\0 what is this?\r\n\r\n")
        body = bytearray()
        with contextlib.suppress(ConnectionError):
            while piece := raw.recv(2**20):
                body += piece
    assert bytes(body) == CONTENT[: len(body)]


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="needs Linux")
def test_a_file_that_is_not_in_memory_is_read_by_a_thread(
    dcu: sim_dcu.Server, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop itself reads nothing that is on the disk alone."""
    preadv, readers, end_in_memory = os.preadv, [], 0

    def noted(file: int, buffers: list, offset: int, flags: int = 0) -> int:
        nonlocal end_in_memory
        if flags & os.RWF_NOWAIT and offset >= end_in_memory:
            raise BlockingIOError(errno.EAGAIN, "on the disk")
        done = preadv(file, buffers, offset, flags)
        if not flags:
            readers.append(threading.current_thread().name)
            end_in_memory = offset + done
        return done

    monkeypatch.setattr(os, "preadv", noted)
    with connection(dcu) as raw:
        raw.sendall(request("/data/large.h5"))
        assert reply(raw) == CONTENT
    assert end_in_memory == SIZE
    # The event loop's helpers.
    assert {name.partition("_")[0] for name in readers} == {"asyncio"}


@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ECONNRESET])
def test_a_client_that_is_gone_is_no_fault(
    dcu: sim_dcu.Server, stored: Path, monkeypatch: pytest.MonkeyPatch, caplog, number: int
) -> None:
    def gone(*_: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "sendfile", gone)
    with connection(dcu) as raw:
        raw.sendall(request("/data/large.h5"))
        with contextlib.suppress(ConnectionError):
            while raw.recv(2**16):
                pass
    until(lambda: not dcu._server.server_state.connections)
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []
