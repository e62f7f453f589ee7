"""Connections: closed when nothing moves, heads and bodies that are too long, who sees /sim."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from plain_client import TIMED, Client

import sim_dcu
from sim_dcu.app import build_app

IDLE_LIMIT = 0.6
VERSION = b"GET /detector/api/version HTTP/1.1\r\nHost: d\r\n\r\n"


def connect(url: str) -> socket.socket:
    address = urlsplit(url)
    return socket.create_connection((address.hostname, address.port), timeout=10)


def until_closed(raw: socket.socket) -> tuple[bytes, float]:
    """Return what comes before the other side closes, and after how many seconds it does."""
    begin = time.monotonic()
    received = b""
    try:
        while piece := raw.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received, time.monotonic() - begin


# -- idle connections -----------------------------------------------------------------------------


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[sim_dcu.Server]:
    with sim_dcu.serve(
        "eiger-500k",
        time_scale=TIMED,
        initialized=True,
        idle_limit=IDLE_LIMIT,
        data_dir=tmp_path / "data",
    ) as server:
        yield server


@pytest.mark.parametrize("sent", [b"", VERSION, VERSION[:20]], ids=["nothing", "whole", "half"])
def test_a_connection_on_which_nothing_moves_is_closed(
    impatient: sim_dcu.Server, sent: bytes
) -> None:
    with connect(impatient.url) as raw:
        raw.sendall(sent)
        received, seconds = until_closed(raw)
    assert received.startswith(b"HTTP/1.1 200" if sent == VERSION else b"")
    assert 0.9 * IDLE_LIMIT < seconds < 3 * IDLE_LIMIT


def test_a_connection_in_use_outlives_the_limit(impatient: sim_dcu.Server) -> None:
    begin = time.monotonic()
    with connect(impatient.url) as raw:
        while time.monotonic() - begin < 2 * IDLE_LIMIT:
            raw.sendall(VERSION)
            assert raw.recv(512).startswith(b"HTTP/1.1 200")


def test_a_blocking_trigger_is_cut_off_and_the_series_goes_on(impatient: sim_dcu.Server) -> None:
    client = Client(impatient.url)
    client.put("filewriter/config/mode", "disabled")
    client.config(count_time=20 / TIMED)
    assert client.arm() == 1
    client.session.close()
    trigger = b"PUT /detector/api/1.6.0/command/trigger HTTP/1.1\r\nHost: d\r\n\r\n"
    with connect(impatient.url) as raw:
        raw.sendall(trigger)
        received, seconds = until_closed(raw)
    assert received == b""
    assert 0.9 * IDLE_LIMIT < seconds < 3 * IDLE_LIMIT
    other = Client(impatient.url)
    with other.session:
        assert other.state == "acquire"
        assert other.command("abort").status_code == 200


def test_a_download_that_moves_slowly_outlives_the_limit(impatient: sim_dcu.Server) -> None:
    size = 64 * 2**20
    (impatient.dcu.store.folder / "large.h5").write_bytes(bytes(size))
    begin = time.monotonic()
    received = 0
    pause = threading.Event()
    with connect(impatient.url) as raw:
        raw.sendall(b"GET /data/large.h5 HTTP/1.1\r\nHost: d\r\n\r\n")
        while received < size:
            received += len(raw.recv(2**20))
            # The client's slowness is what is tested.
            if time.monotonic() - begin < 2 * IDLE_LIMIT:
                pause.wait(0.1 * IDLE_LIMIT)
    assert time.monotonic() - begin > 1.5 * IDLE_LIMIT
    assert received > size


def test_a_download_nobody_reads_is_ended(impatient: sim_dcu.Server) -> None:
    (impatient.dcu.store.folder / "large.h5").write_bytes(bytes(64 * 2**20))
    with connect(impatient.url) as raw:
        raw.sendall(b"GET /data/large.h5 HTTP/1.1\r\nHost: d\r\n\r\n")
        assert raw.recv(15) == b"HTTP/1.1 200 OK"
        deadline = time.monotonic() + 20
        server = impatient._server.server_state
        # A request would tell nothing: it is on a connection of its own, which counts, too.
        while server.connections:
            assert time.monotonic() < deadline
            threading.Event().wait(0.02)


def test_five_minutes_are_the_default(dcu: sim_dcu.Server) -> None:
    assert dcu._server.config.http.idle_limit == 300
    assert dcu._server.config.timeout_keep_alive >= 300


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf")])
def test_an_idle_limit_must_be_a_time(limit: float) -> None:
    with pytest.raises(ValueError, match="idle limit"):
        sim_dcu.serve("eiger-500k", idle_limit=limit)


# -- what is too long -----------------------------------------------------------------------------


def refused(url: str, *pieces: bytes) -> bytes:
    with connect(url) as raw:
        try:
            for piece in pieces:
                raw.sendall(piece)
        except (ConnectionResetError, BrokenPipeError):
            pass
        return until_closed(raw)[0]


def test_a_long_url_is_414_and_closed(dcu: sim_dcu.Server) -> None:
    reply = refused(dcu.url, b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: d\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 414 ")
    assert b"\r\nconnection: close\r\n" in reply


@pytest.mark.parametrize(
    "head",
    [
        [b"X: " + b"x" * 100_000 + b"\r\n\r\n"],
        [b"X: " + b"x" * 1000 + b"\r\n"] * 100,
        [b"X: "] + [b"x" * 10_000] * 1000,
    ],
    ids=["one field", "many fields", "a field without end"],
)
def test_a_long_head_is_431_and_closed(dcu: sim_dcu.Server, head: list[bytes]) -> None:
    reply = refused(dcu.url, b"GET /detector/api/version HTTP/1.1\r\nHost: d\r\n", *head)
    assert reply == b"" or reply.startswith(b"HTTP/1.1 431 ")
    assert requests.get(f"{dcu.url}/detector/api/version", timeout=5).ok


def test_many_requests_on_one_connection_are_no_long_head(dcu: sim_dcu.Server) -> None:
    with connect(dcu.url) as raw:
        for _ in range(1500):
            raw.sendall(VERSION)
            assert raw.recv(512).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET\r\n\r\n",
        b"FETCH /data HTTP/1.1\r\n\r\n",
        b"GET /data HTTP/9.9\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: d\r\n\r\n",
        b"GET /data HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET /data HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_is_not_http_is_400_with_a_length_and_closed(
    dcu: sim_dcu.Server, request_bytes: bytes
) -> None:
    head, _, body = refused(dcu.url, request_bytes).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert f"content-length: {len(body)}".encode() in head
    assert b"connection: close" in head


@pytest.mark.parametrize(
    "path",
    [
        "/detector/api/1.6.0/config/count_time",
        "/detector/api/1.6.0/command/arm",
        "/detector/api/1.6.0/config/pixel_mask",
    ],
)
def test_a_body_that_is_too_long_is_413_before_it_is_read(dcu: sim_dcu.Server, path: str) -> None:
    head = f"PUT {path} HTTP/1.1\r\nHost: d\r\nContent-Length: {10**12}\r\n\r\n".encode()
    assert refused(dcu.url, head).startswith(b"HTTP/1.1 413 ")


def test_a_chunked_body_is_bounded_too(dcu: sim_dcu.Server) -> None:
    head = (
        b"PUT /detector/api/1.6.0/config/nimages HTTP/1.1\r\nHost: d\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    reply = refused(dcu.url, head, *[chunk] * 4)
    assert reply.startswith(b"HTTP/1.1 413 ")


# -- /sim -----------------------------------------------------------------------------------------


def status_for(app: Any, client: tuple[str, int] | None, path: str) -> int:
    """Return the status that a client at an address gets."""
    return messages_for(app, client, path)[0]["status"]


def body_for(app: Any, client: tuple[str, int] | None, path: str) -> bytes:
    """Return the body that a client at an address gets."""
    return messages_for(app, client, path)[1]["body"]


def messages_for(app: Any, client: tuple[str, int] | None, path: str) -> list[dict[str, Any]]:
    """Return the ASGI messages that answer a client at an address."""
    messages: list[dict[str, Any]] = []
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [],
        "client": client,
        "server": ("127.0.0.1", 80),
        "scheme": "http",
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        messages.append(message)

    asyncio.run(app(scope, receive, send))
    return messages


SEEN_FROM = {
    "127.0.0.1": True,
    "127.0.0.2": True,
    "::1": True,
    "::ffff:127.0.0.1": True,
    "10.1.2.3": False,
    "192.168.0.1": False,
    "::ffff:10.1.2.3": False,
    "fe80::1%eth0": False,
    "2001:db8::1": False,
}


def test_sim_answers_only_this_machine_unless_opened(dcu: sim_dcu.Server, client: Client) -> None:
    client.arm()
    shut, opened = build_app(dcu.dcu), build_app(dcu.dcu, sim_api=True)
    for address, seen in SEEN_FROM.items():
        asked_from = (address, 5000)
        for path in ("/sim/image/1/1", "//sim/image/1/1", "/sim//image/1/1/"):
            assert status_for(shut, asked_from, path) == (200 if seen else 404), address
        assert status_for(opened, asked_from, "/sim/image/1/1") == 200
        # All else answers to everybody.
        assert status_for(shut, asked_from, "/detector/api/version") == 200


def test_sim_is_hidden_from_a_client_without_an_address(dcu: sim_dcu.Server) -> None:
    assert status_for(build_app(dcu.dcu), None, "/sim/image/1/1") == 404


def test_a_second_loopback_address_is_this_machine_too(tmp_path: Path) -> None:
    with sim_dcu.serve("eiger-500k", initialized=True, host="127.0.0.2") as server:
        client = Client(server.url)
        client.arm()
        client.session.close()
        assert requests.get(f"{server.url}/sim/image/1/1", timeout=5).status_code == 200


def test_the_page_is_shown_to_this_machine_unless_opened(dcu: sim_dcu.Server) -> None:
    shut, opened = build_app(dcu.dcu), build_app(dcu.dcu, sim_api=True)
    for address, seen in SEEN_FROM.items():
        for app in (shut, opened):
            body = body_for(app, (address, 5000), "/")
            assert body.startswith(b"<!DOCTYPE html>") == (seen or app is opened), address
        # A person who tries is told why there is no page.
        assert seen or body_for(shut, (address, 5000), "/").startswith(b"A simulated EIGER DCU.")
        assert status_for(shut, (address, 5000), "/sim/state") == (200 if seen else 404)
        assert status_for(shut, (address, 5000), "/sim/faults") == (200 if seen else 404)
