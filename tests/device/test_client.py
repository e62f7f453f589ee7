"""Addresses, logging and connections of the client, and the worker behind the verbs."""

import contextlib
import gc
import logging
import re
import socket
import socketserver
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from file_server import serving

import sim_dcu
from ophyd_eiger import EigerDetector
from ophyd_eiger import client as client_module
from ophyd_eiger.addresses import base_url, same_dcu
from ophyd_eiger.client import DcuClient, Timeouts
from ophyd_eiger.errors import (
    AddressError,
    DcuTimeoutError,
    DcuUnreachableError,
    EigerError,
    LostReplyError,
    RefusedError,
    ReplyError,
)
from ophyd_eiger.worker import EigerStatus, Worker


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("dcu", "http://dcu"),
        ("dcu:8080", "http://dcu:8080"),
        ("http://dcu/", "http://dcu"),
        ("http://dcu:80", "http://dcu:80"),
        (" 10.42.42.20 ", "http://10.42.42.20"),
        ("10.42.42.20:8000/", "http://10.42.42.20:8000"),
        ("::1", "http://[::1]"),
        ("[::1]", "http://[::1]"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("http://[fe80::1]:8080/", "http://[fe80::1]:8080"),
        ("https://gateway/eiger1/", "https://gateway/eiger1"),
    ],
)
def test_addresses(address, url):
    assert base_url(address) == url


@pytest.mark.parametrize(
    "address", ["", "http://", "ftp://dcu", "dcu:port", "dcu:99999", "two words", "http://[::1"]
)
def test_addresses_that_are_none(address):
    with pytest.raises(AddressError, match=re.escape(repr(address))) as caught:
        base_url(address)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, EigerError)


@pytest.mark.parametrize(
    ("one", "other", "are_one"),
    [
        ("http://localhost:8000", "http://127.0.0.1:8000", True),
        ("http://127.0.0.1", "http://localhost:80", True),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8001", False),
        ("http://127.0.0.1:8000/a", "http://127.0.0.1:8000/b", False),
        ("http://127.0.0.1:8000", "https://127.0.0.1:8000", False),
        ("http://dcu.invalid", "http://127.0.0.1", False),
        ("http://dcu.invalid", "http://dcu.invalid:80", True),
    ],
)
def test_which_addresses_are_one_dcu(one, other, are_one):
    assert same_dcu(one, other) is are_one
    assert same_dcu(other, one) is are_one


def test_ipv6_dcu(tmp_path):
    with sim_dcu.serve(model="eiger-500k", time_scale=0, initialized=True, host="::1") as dcu:
        assert dcu.url.startswith("http://[::1]:")
        device = EigerDetector(dcu.url, name="eiger", directory=tmp_path)
        assert device.detector.state.get() == "idle"
        device.destroy()


def test_the_version_is_asked_once_and_can_be_given(dcu, requests_sent):
    client = DcuClient(dcu.url)
    client.get("detector", "config/count_time")
    client.get("detector", "config/count_time")
    assert requests_sent().count("GET /detector/api/version") == 1
    older = DcuClient(dcu.url, api_version="1.0.0")
    assert older.resource_url("detector", "config/x").endswith("/detector/api/1.0.0/config/x")
    assert older.get("detector", "status/state")["value"] == "idle"


def test_every_request_is_logged_with_milliseconds(eiger, caplog):
    caplog.set_level(logging.DEBUG, logger="ophyd_eiger")
    eiger.detector.count_time.set(0.001).wait(10)
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    assert any(
        re.match(r"PUT http://\S+/config/count_time \{'value': 0\.001\}: 200 in [\d.]+ ms", line)
        for line in lines
    )
    assert any(re.match(r"GET http://\S+/config/count_time : 200 in", line) for line in lines)


def test_commands_and_state_changes_are_logged(eiger, caplog):
    caplog.set_level(logging.INFO, logger="ophyd_eiger")
    eiger.stage().wait(10)
    eiger.detector.state.get()
    eiger.unstage().wait(10)
    lines = [record.getMessage() for record in caplog.records]
    assert any(re.match(r"eiger_detector_arm: arm done in .* s, sequence id 1", x) for x in lines)
    assert "eiger_detector_state: idle -> ready" in lines


@pytest.fixture
def redirecting():
    """The address of a server with nothing but redirects, and the requests that it answered."""
    seen = []
    places = {"slash": "/there/", "loop": "", "out": "http://elsewhere.invalid/"}
    places["none"] = "http://[::bad"

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            seen.append(f"{self.command} {self.path}")
            status, _, kind = self.path.rpartition("/")[2].partition("-")
            body = b"" if kind in places else b'{"value": 7}'
            if kind == "deep":
                status, body = "200", b"[" * 40_000
            self.send_response(int(status) if kind in places else 200)
            if kind in places:
                self.send_header("Location", places[kind] or self.path)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_GET  # noqa: N815 - what its caller looks for

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", seen
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_within_the_dcu_is_followed(redirecting, status):
    url, seen = redirecting
    client = DcuClient(url, api_version="1.6.0")
    assert client.get("detector", f"config/{status}-slash") == {"value": 7}
    assert seen == [f"GET /detector/api/1.6.0/config/{status}-slash", "GET /there/"]
    client.close()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_put_is_redirected_where_it_is_still_a_put(redirecting, status):
    url, seen = redirecting
    client = DcuClient(url, api_version="1.6.0")
    put = f"PUT /detector/api/1.6.0/config/{status}-slash"
    if status in (307, 308):
        assert client.put("detector", f"config/{status}-slash", 1) == {"value": 7}
        assert seen == [put, "PUT /there/"]
    else:
        with pytest.raises(ReplyError, match=f"the answer is {status}"):
            client.put("detector", f"config/{status}-slash", 1)
        assert seen == [put]
    client.close()


@pytest.mark.parametrize(("kind", "requests"), [("out", 1), ("loop", 4)])
def test_a_redirect_that_leads_nowhere_is_told(redirecting, kind, requests):
    url, seen = redirecting
    client = DcuClient(url, api_version="1.6.0")
    with pytest.raises(ReplyError, match=r"to ask at .*; give the address of the DCU itself"):
        client.get("detector", f"config/307-{kind}")
    assert len(seen) == requests
    client.close()


def test_an_address_that_is_none_and_an_answer_too_deep_are_told(redirecting):
    client = DcuClient(redirecting[0], api_version="1.6.0")
    with pytest.raises(ReplyError, match="the answer is 302"):
        client.get("detector", "config/302-none")
    with pytest.raises(ReplyError, match="the answer is not JSON"):
        client.get("detector", "config/200-deep")
    client.close()


def test_a_connection_is_kept(dcu):
    client = DcuClient(dcu.url)
    client.get("detector", "status/state")
    pool = next(iter(client._connections.poolmanager.pools._container.values()))
    for _ in range(5):
        client.get("detector", "status/state")
    assert pool.num_connections == 1


def test_a_host_that_nobody_knows_is_told():
    """Names below .invalid are nobody's (RFC 2606)."""
    with pytest.raises(DcuUnreachableError, match="its host's name is not known here"):
        DcuClient("http://dcu.invalid", api_version="1.6.0").get("detector", "status/state")


@pytest.mark.parametrize("words", ["establish", "resolve", "timed out"])
def test_what_an_answer_says_is_no_reason_why_it_did_not_come(words):
    """The request was sent, and may have been done, whatever words the answer has."""

    class Babbles(socketserver.StreamRequestHandler):
        def handle(self):
            self.rfile.readline()
            self.wfile.write(f"{words}\r\n\r\n".encode())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Babbles) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        client = DcuClient(f"http://127.0.0.1:{server.server_address[1]}", api_version="1.6.0")
        try:
            with pytest.raises(LostReplyError, match=words):
                client.put("detector", "config/count_time", 1)
        finally:
            client.close()
            server.shutdown()
            thread.join()


def test_who_does_not_take_a_connection_is_not_reached():
    """As a host that is switched off, of which no word comes back."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        with socket.create_connection(address):
            client = DcuClient(
                f"http://127.0.0.1:{address[1]}",
                api_version="1.6.0",
                timeouts=Timeouts(connect=0.3, put=60),
            )
            with pytest.raises(DcuUnreachableError, match=r"cannot be reached .*timed out"):
                client.put("detector", "config/count_time", 1)


def test_a_large_body_has_the_time_of_its_put_to_be_sent():
    """More than the system keeps of it, to a server that begins late to read, as over a slow line.

    Over a new connection and over a kept one.
    """
    sent, arrived, never = bytes(2**24), [], threading.Event()

    class ReadsLate(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self):
            never.wait(0.6)
            body = self.rfile.read(int(self.headers["Content-Length"]))
            arrived.append((self.client_address, len(body)))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), ReadsLate)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    client = DcuClient(
        f"http://127.0.0.1:{server.server_address[1]}",
        api_version="1.6.0",
        timeouts=Timeouts(connect=0.2, put=60),
    )
    try:
        for _ in range(2):
            client.put_bytes("detector", "config/flatfield", sent, content_type="application/tiff")
    finally:
        client.close()
        server.shutdown()
        thread.join()
        server.server_close()
    assert [size for _, size in arrived] == [len(sent)] * 2
    assert len({address for address, _ in arrived}) == 1


def test_a_connection_on_which_the_server_failed_is_not_used_again():
    """Some close it with the next request in hand, which is done, and whose reply is lost."""
    requests_of = []

    class Fails(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            requests_of.append(self.client_address)
            if requests_of.count(self.client_address) > 1:
                self.close_connection = True
                return
            self.send_response(500 if self.command == "GET" else 200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"[]")

        def do_PUT(self):
            self.do_GET()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Fails)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    client = DcuClient(f"http://127.0.0.1:{server.server_address[1]}", api_version="1.6.0")
    try:
        with pytest.raises(RefusedError, match="500"):
            client.get("filewriter", "files")
        assert client.put("detector", "config/count_time", 1) == []
    finally:
        client.close()
        server.shutdown()
        thread.join()
        server.server_close()


# How a body's end is told, and how a byte of it is sent then; or a byte of the head.
FRAMES = {
    "length": (b"Content-Length: 1000\r\n\r\n", b"["),
    "chunks": (b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n[\r\n"),
    "end": (b"Connection: close\r\n\r\n", b"["),
    "head": (b"Server: ", b"["),
    "after much": (b"Content-Length: 10000000\r\n\r\n" + bytes(1000000), b"["),
}


@pytest.fixture(params=FRAMES)
def dripping(request):
    """A server whose replies come a byte at a time, for as long as it is there."""
    over = threading.Event()
    begin, byte = FRAMES[request.param]

    class Drips(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.wfile.write(b"HTTP/1.1 200 OK\r\n" + begin)
            # The client goes away.
            with contextlib.suppress(OSError):
                while not over.wait(0.02):
                    self.wfile.write(byte)

        def do_PUT(self):
            self.do_GET()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Drips)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield DcuClient(
        f"http://127.0.0.1:{server.server_address[1]}",
        api_version="1.6.0",
        timeouts=Timeouts(get=1, put=1),
    )
    over.set()
    server.shutdown()
    thread.join()
    server.server_close()


DRIPPING = {
    "get": lambda client: client.get("detector", "config/count_time"),
    "put": lambda client: client.put("detector", "config/count_time", 1),
    "get_bytes": lambda client: client.get_bytes(
        "detector", "config/flatfield", accept="application/tiff"
    ),
    "file": lambda client: read_file(client, "series_1_data_000001.h5"),
}


def read_file(client, name):
    with client.open_file(name) as body:
        while body.read_into(memoryview(bytearray(100))):
            pass


@pytest.mark.parametrize("call", DRIPPING.values(), ids=DRIPPING)
def test_a_reply_that_drips_times_out(dripping, call):
    with pytest.raises(DcuTimeoutError, match=r"within 1 s .*\d+ bytes came in the last"):
        call(dripping)


def test_after_a_question_without_answer_the_next_ones_have_a_fifth_of_its_time():
    answers = threading.Event()

    class Freezes(BaseHTTPRequestHandler):
        def do_GET(self):
            answers.wait(20)
            # The client went away.
            with contextlib.suppress(OSError):
                self.send_response(200)
                self.send_header("Content-Length", "1")
                self.end_headers()
                self.wfile.write(b"1")

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Freezes)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    client = DcuClient(address, api_version="1.6.0", timeouts=Timeouts(get=1.5))
    for seconds in ("1.5", "0.3", "0.3"):
        with pytest.raises(DcuTimeoutError, match=rf"no answer within {re.escape(seconds)} s"):
            client.get("detector", "status/state")
    answers.set()
    assert client.get("detector", "status/state") == 1
    answers.clear()
    with pytest.raises(DcuTimeoutError, match=r"no answer within 1\.5 s"):
        client.get("detector", "status/state")
    answers.set()
    client.close()
    server.shutdown()
    thread.join()
    server.server_close()


# How a reply says how long it is: not, or with more than it can be.
ENDLESS = {
    "chunks": (b"Transfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + bytes(0x1000) + b"\r\n"),
    "end": (b"Connection: close\r\n\r\n", bytes(0x1000)),
    "length": (b"Content-Length: 1000000000000\r\n\r\n", bytes(0x1000)),
}


@pytest.mark.parametrize("call", ["get", "put", "get_bytes"])
@pytest.mark.parametrize("frame", ENDLESS)
def test_a_reply_without_end_is_not_read_for_ever(monkeypatch, frame, call):
    monkeypatch.setattr(client_module, "LARGEST_REPLY", 2**20)
    begin, piece = ENDLESS[frame]

    class Pours(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.wfile.write(b"HTTP/1.1 200 OK\r\n" + begin)
            # The client goes away.
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(piece)

        def do_PUT(self):
            self.do_GET()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Pours)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    client = DcuClient(f"http://127.0.0.1:{server.server_address[1]}", api_version="1.6.0")
    with pytest.raises(ReplyError, match="no answer of a DCU"):
        DRIPPING[call](client)
    client.close()
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_the_reader_does_between_two_pieces_is_no_dripping():
    with serving({"slow.h5": bytes(52)}, drips=50) as server:
        client = DcuClient(server.url, timeouts=Timeouts(get=0.3))
        with client.open_file("slow.h5") as body:
            assert body.read_into(memoryview(bytearray(50))) == 50
            # As a disk that is slow.
            threading.Event().wait(0.6)
            assert body.read_into(memoryview(bytearray(50))) == 2
        client.close()


def test_the_dcus_own_words_are_in_the_error(eiger):
    with pytest.raises(RefusedError) as caught:
        eiger.link.client.put("detector", "config/count_time", -1)
    assert caught.value.status == 400
    assert caught.value.text in str(caught.value)
    assert caught.value.request == f"PUT {eiger.address}/detector/api/1.6.0/config/count_time"


def test_work_is_done_in_order_and_ends_with_the_worker():
    worker, done = Worker("test"), []
    statuses = [
        worker.submit(lambda n=n: done.append(n), EigerStatus(f"job {n}")) for n in range(20)
    ]
    for status in statuses:
        status.wait(5)
    assert done == list(range(20))
    worker.close()
    assert not any(thread.name == "test" for thread in threading.enumerate())


def test_a_worker_nobody_uses_ends_its_thread():
    worker = Worker("forgotten")
    worker.submit(lambda: None, EigerStatus("job")).wait(5)
    thread = next(thread for thread in threading.enumerate() if thread.name == "forgotten")
    gone = weakref.ref(worker)
    del worker
    gc.collect()
    thread.join(5)
    assert gone() is None
    assert not thread.is_alive()


def test_the_first_requests_of_a_client_from_several_threads(dcu):
    """There is one pool of connections for all, and it is whole before anybody has it."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(20):
            client = DcuClient(dcu.url, api_version="1.6.0")
            start = threading.Barrier(5)

            def ask(client=client, start=start):
                start.wait()
                return client.get("detector", "status/state")["value"]

            with ThreadPoolExecutor(5) as pool:
                asked = [pool.submit(ask) for _ in range(5)]
            assert len({each.result() for each in asked}) == 1
            client.close()
    finally:
        sys.setswitchinterval(before)


def test_ctrl_c_as_a_worker_starts_its_thread(monkeypatch):
    """It may come while the new thread has not run yet: nothing after it is lost or hangs."""
    worker, done = Worker("cut short"), []
    wait, interrupted = threading.Event.wait, []

    def wait_once_interrupted(event, timeout=None):
        if not interrupted:
            interrupted.append(event)
            raise KeyboardInterrupt
        return wait(event, timeout)

    monkeypatch.setattr(threading.Event, "wait", wait_once_interrupted)
    # No other thread runs until this one waits.
    before = sys.getswitchinterval()
    sys.setswitchinterval(60)
    try:
        with pytest.raises(KeyboardInterrupt):
            worker.submit(lambda: done.append("first"), EigerStatus("first"))
        status = worker.submit(lambda: done.append("second"), EigerStatus("second"))
        closing = threading.Thread(target=worker.close, daemon=True)
        closing.start()
    finally:
        sys.setswitchinterval(before)
    status.wait(5)
    closing.join(5)
    assert not closing.is_alive()
    assert done == ["second"]
    threads = [thread for thread in threading.enumerate() if thread.name == "cut short"]
    for thread in threads:
        # The one that was cut short may still be about to begin.
        assert thread._started.wait(5)
        thread.join(5)
        assert not thread.is_alive()


def test_a_status_tells_what_failed():
    worker = Worker("test")
    status = worker.submit(lambda: 1 / 0, EigerStatus("eiger: divide"))
    with pytest.raises(ZeroDivisionError):
        status.wait(5)
    assert repr(status) == "<eiger: divide: failed: ZeroDivisionError: division by zero>"
    worker.raise_unseen()
    worker.close()


def test_a_failure_nobody_sees_is_kept_once(caplog):
    worker = Worker("test")
    release = threading.Event()
    worker.submit(release.wait, EigerStatus("first"))
    status = worker.submit(lambda: 1 / 0, EigerStatus("eiger: divide"))
    last = worker.submit(lambda: None, EigerStatus("last"))
    release.set()
    last.wait(5)
    assert "eiger: divide failed, and nobody waits for it: division by zero" in caplog.text
    with pytest.raises(ZeroDivisionError):
        worker.raise_unseen()
    worker.raise_unseen()
    assert status.done
    worker.close()


def test_somebody_begins_to_wait_as_the_work_fails():
    class JustObserved(EigerStatus):
        @property
        def observed(self):
            before = super().observed
            self._note_observer()
            return before

    worker = Worker("test")
    status = worker.submit(lambda: 1 / 0, JustObserved("eiger: divide"))
    with pytest.raises(ZeroDivisionError):
        status.wait(5)
    worker.submit(lambda: None, EigerStatus("next")).wait(5)
    worker.raise_unseen()
    worker.close()


def test_a_failure_that_is_seen_late_is_not_raised_again():
    worker = Worker("test")
    status = worker.submit(lambda: 1 / 0, EigerStatus("eiger: divide"))
    worker.submit(lambda: None, EigerStatus("last")).wait(5)
    with pytest.raises(ZeroDivisionError):
        status.wait(5)
    worker.raise_unseen()
    worker.close()
