"""Faults that strike requests, shown by a plain client of a DCU in another process."""

import contextlib
import socket
import threading
import time
from pathlib import Path

import pytest
import requests
from dcu_process import Dcu, running, until_closed
from plain_client import until

# The short run takes each test with one generation only, see conftest.
GENERATIONS_BY_TURNS = True

SHORT = 0.4


def answer(dcu: Dcu, method: str, resource: str) -> bytes:
    """Return every byte that comes in answer to one request, until the other side closes."""
    with dcu.connect() as raw:
        raw.sendall(dcu.request_bytes(method, resource))
        return until_closed(raw)


def whole_answer(dcu: Dcu, method: str, resource: str) -> bytes:
    """Return the bytes of an undisturbed reply that has a body."""
    with dcu.connect() as raw:
        raw.sendall(dcu.request_bytes(method, resource))
        received = b""
        while b"\r\n\r\n" not in received:
            received += raw.recv(65536)
        head, _, body = received.partition(b"\r\n\r\n")
        (length,) = (
            int(line.partition(b":")[2])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        )
        while len(body) < length:
            body += raw.recv(2**20)
        return head + b"\r\n\r\n" + body


# -- refuse ---------------------------------------------------------------------------------------


def test_refuse_answers_with_status_and_text_and_does_nothing(dcu: Dcu) -> None:
    dcu.fault("refuse", command="arm", status=503, text="come back later", times=2)
    for _ in range(2):
        reply = dcu.command("arm")
        assert (reply.status_code, reply.text) == (503, "come back later")
        assert dcu.state == "idle"
    # It is spent, and the arms refused took no series' number.
    assert dcu.arm() == 1


def test_refuse_strikes_what_the_path_says_and_lets_the_first_pass(eiger1: Dcu) -> None:
    eiger1.fault("refuse", path="GET detector/*/status/*", status=500, after=2)
    assert [eiger1.get("detector/status/state").status_code for _ in range(4)] == [
        200,
        200,
        500,
        500,
    ]
    assert eiger1.get("detector/config/nimages").status_code == 200
    assert eiger1.put("detector/config/nimages", 2).status_code == 200
    eiger1.clear()
    assert eiger1.state == "idle"


def test_a_body_that_a_refusal_does_not_read_harms_no_later_request(eiger1: Dcu) -> None:
    eiger1.fault("refuse", path="PUT detector/*/config/*", times=1)
    big = {"value": "x" * 500_000}
    path = eiger1.path("detector/config/nimages")
    assert eiger1.session.put(path, json=big, timeout=5).text == "refused on request"
    assert eiger1.session.put(path, json={"value": 3}, timeout=5).status_code == 200
    assert eiger1.value("detector/config/nimages") == 3


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_that_has_no_body_has_none(eiger1: Dcu, status: int) -> None:
    eiger1.fault("refuse", status=status, times=1)
    with eiger1.connect() as raw:
        raw.sendall(eiger1.request_bytes("GET", "detector/status/state"))
        assert raw.recv(65536).endswith(b"\r\n\r\n")
        raw.sendall(eiger1.request_bytes("GET", "detector/status/state"))
        assert raw.recv(65536).startswith(b"HTTP/1.1 200 ")


# -- late, hang -----------------------------------------------------------------------------------


def test_late_does_at_once_and_answers_later(eiger1: Dcu) -> None:
    eiger1.fault("late", command="arm", seconds=1)
    with eiger1.connect() as raw:
        begin = time.monotonic()
        raw.sendall(eiger1.request_bytes("PUT", "detector/command/arm"))
        while eiger1.state != "ready":
            assert time.monotonic() - begin < 1
        assert raw.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert time.monotonic() - begin >= 1
    eiger1.clear()
    begin = time.monotonic()
    assert eiger1.command("disarm").status_code == 200
    assert time.monotonic() - begin < 1


def test_late_delays_a_file_too(eiger1: Dcu) -> None:
    eiger1.arm()
    eiger1.fault("late", path="GET data/*", seconds=SHORT)
    begin = time.monotonic()
    assert eiger1.session.get(f"{eiger1.url}/data/series_1_master.h5", timeout=30).ok
    assert time.monotonic() - begin >= SHORT


def test_a_late_answer_comes_at_once_when_the_fault_is_cleared(eiger1: Dcu) -> None:
    eiger1.fault("late", seconds=3600)
    with eiger1.connect() as raw:
        raw.sendall(eiger1.request_bytes("GET", "detector/status/state"))
        raw.settimeout(SHORT)
        with pytest.raises(TimeoutError):
            raw.recv(1)
        eiger1.clear()
        raw.settimeout(5)
        assert raw.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_hang_takes_the_request_does_nothing_and_never_answers(eiger1: Dcu) -> None:
    eiger1.fault("hang", command="arm")
    with eiger1.connect() as raw:
        raw.sendall(eiger1.request_bytes("PUT", "detector/command/arm"))
        raw.settimeout(SHORT)
        with pytest.raises(TimeoutError):
            raw.recv(1)
        assert eiger1.state == "idle"
        eiger1.clear()
        raw.settimeout(5)
        assert until_closed(raw) == b""
    assert eiger1.arm() == 1


def test_a_client_that_gives_a_hanging_request_up_is_noticed(eiger1: Dcu) -> None:
    eiger1.fault("hang", command="arm")
    with pytest.raises(requests.Timeout):
        requests.put(eiger1.path("detector/command/arm"), timeout=SHORT)
    assert eiger1.active()[0]["struck"] == 1


# -- drop, lose -----------------------------------------------------------------------------------


def test_drop_before_sends_nothing_and_does_nothing(eiger1: Dcu) -> None:
    eiger1.fault("drop", command="arm", when="before", times=1)
    assert answer(eiger1, "PUT", "detector/command/arm") == b""
    assert eiger1.state == "idle"
    assert eiger1.arm() == 1


@pytest.mark.parametrize("when", ["head", "body", "after"])
def test_drop_in_the_reply_sends_so_much_of_it(eiger1: Dcu, when: str) -> None:
    whole = whole_answer(eiger1, "GET", "detector/config/element")
    head_length = whole.index(b"\r\n\r\n") + 4
    eiger1.fault("drop", when=when, times=1)
    received = answer(eiger1, "GET", "detector/config/element")
    # The date is a different one, at most.
    assert received[:17] == whole[:17]
    bounds = {
        "head": (20, head_length - 4),
        "body": (head_length + 5, len(whole) - 5),
        "after": (len(whole), len(whole)),
    }
    low, high = bounds[when]
    assert low <= len(received) <= high
    assert received[head_length:] == whole[head_length : len(received)]
    assert (
        whole_answer(eiger1, "GET", "detector/config/element")[head_length:] == whole[head_length:]
    )


@pytest.mark.parametrize("when", ["head", "body", "after"])
def test_drop_in_the_reply_comes_after_the_command(eiger1: Dcu, when: str) -> None:
    eiger1.fault("drop", command="arm", when=when)
    assert answer(eiger1, "PUT", "detector/command/arm").startswith(b"HTTP/1.1 200 ")
    assert eiger1.state == "ready"


def test_drop_cuts_a_large_file_in_the_middle(eiger1: Dcu) -> None:
    eiger1.arm()
    eiger1.command("disarm")
    whole = whole_answer(eiger1, "GET", "/data/series_1_master.h5")
    assert len(whole) > 4_000_000
    eiger1.fault("drop", path="GET data/*", when="body")
    received = answer(eiger1, "GET", "/data/series_1_master.h5")
    assert 0.4 * len(whole) < len(received) < 0.6 * len(whole)
    assert received[500:] == whole[500 : len(received)]
    with pytest.raises(requests.RequestException):
        _ = requests.get(f"{eiger1.url}/data/series_1_master.h5", timeout=30).content


def test_drop_where_there_is_no_body_comes_after_the_head(eiger1: Dcu) -> None:
    eiger1.arm()
    eiger1.fault("drop", path="HEAD data/*", when="body")
    received = answer(eiger1, "HEAD", "/data/series_1_master.h5")
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.endswith(b"\r\n\r\n")


def test_drop_after_closes_without_a_word(eiger1: Dcu) -> None:
    """A kept connection looks usable, which is what the fault is for."""
    eiger1.fault("drop", when="after", times=1)
    received = answer(eiger1, "GET", "detector/status/state")
    assert b"connection:" not in received.lower()
    assert received.startswith(b"HTTP/1.1 200 ")


def test_lose_does_the_command_and_cuts_the_connection(dcu: Dcu) -> None:
    dcu.series(2, 2)
    dcu.fault("lose")
    assert answer(dcu, "PUT", "detector/command/arm") == b""
    assert dcu.state == "ready"
    assert answer(dcu, "PUT", "detector/command/trigger") == b""
    assert dcu.state == "idle"
    dcu.clear()
    assert dcu.command("disarm").json() == {"sequence id": 1}
    assert "series_1_data_000001.h5" in dcu.files()


# -- replies to puts ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "text", "media_type"),
    [
        ("null", "null", "application/json; charset=utf-8"),
        ("quotes", '""', "application/json; charset=utf-8"),
        ("empty", "", "text/plain; charset=utf-8"),
    ],
)
def test_put_reply_sets_the_value_and_answers_no_list(
    dcu: Dcu, body: str, text: str, media_type: str
) -> None:
    dcu.fault("put-reply", body=body)
    reply = dcu.put("detector/config/count_time", 0.25)
    assert (reply.status_code, reply.text) == (200, text)
    assert reply.headers["content-type"] == media_type
    assert reply.headers["content-length"] == str(len(text))
    assert dcu.value("detector/config/count_time") == 0.25
    # What is refused is refused as ever, and commands are none of its business.
    assert dcu.put("detector/config/count_time", -1).status_code == 400
    assert dcu.command("arm").json() == {"sequence id": 1}
    dcu.command("disarm")
    dcu.clear()
    assert "count_time" in dcu.put("detector/config/count_time", 0.5).json()


def test_what_is_cut_on_purpose_is_no_error_of_the_server(tmp_path: Path) -> None:
    stderr = tmp_path / "stderr"
    with (
        stderr.open("w") as file,
        running("eiger-500k", tmp_path / "data", errors=file.fileno()) as dcu,
    ):
        faults = [("drop", {"when": when}) for when in ("before", "head", "body", "after")]
        for name, arguments in (*faults, ("lose", {})):
            dcu.fault(name, **arguments, times=1)
            answer(dcu, "PUT", "detector/command/status_update")
        for name in ("hang", "late"):
            dcu.fault(name)
            with pytest.raises(requests.Timeout):
                requests.put(dcu.path("detector/command/status_update"), timeout=SHORT)
            with dcu.connect() as raw:
                raw.sendall(dcu.request_bytes("PUT", "detector/command/status_update"))
                until(lambda: dcu.active()[-1]["struck"] == 2)
                dcu.clear()
                raw.recv(1)
        # One that ends with the process.
        dcu.fault("late", seconds=3600)
        with dcu.connect() as raw:
            raw.sendall(dcu.request_bytes("GET", "detector/status/state"))
            until(lambda: dcu.active()[-1]["struck"] == 1)
    assert stderr.read_text() == ""


# -- several, and what is never struck ------------------------------------------------------------


def test_faults_of_one_request_act_together(eiger1: Dcu) -> None:
    eiger1.fault("late", seconds=SHORT)
    eiger1.fault("refuse", status=404)
    begin = time.monotonic()
    assert eiger1.get("detector/status/state").status_code == 404
    assert time.monotonic() - begin >= SHORT


def test_sim_itself_is_never_struck(eiger1: Dcu) -> None:
    eiger1.fault("drop", path="*")
    with pytest.raises(requests.ConnectionError):
        eiger1.get("detector/status/state")
    assert [fault["name"] for fault in eiger1.active()] == ["drop"]
    eiger1.clear()
    assert eiger1.state == "idle"


def test_the_log_says_which_request_a_fault_struck(eiger1: Dcu) -> None:
    eiger1.fault("refuse", command="arm", times=1)
    eiger1.command("arm")
    log = eiger1.get("system/log").text
    assert "/command/arm -> 400 in " in log
    assert " s (fault refuse)" in log


def test_hanging_requests_hold_up_nobody(eiger1: Dcu) -> None:
    eiger1.fault("hang", path="GET data*")
    with contextlib.ExitStack() as stack:
        hanging = []
        for _ in range(50):
            raw: socket.socket = stack.enter_context(eiger1.connect())
            raw.sendall(eiger1.request_bytes("GET", "/data"))
            hanging.append(raw)
        assert eiger1.arm() == 1
        done = threading.Thread(target=eiger1.clear)
        done.start()
        assert {until_closed(raw) for raw in hanging} == {b""}
        done.join(5)
