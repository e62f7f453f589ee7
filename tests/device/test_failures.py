"""What fails says why, and nothing that is finished is lost."""

import io
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback

import bluesky.plans as bp
import numpy as np
import pytest
import requests
from bluesky.utils import FailedStatus

import sim_dcu
from ophyd_eiger import EigerDetector, Timeouts, open_series
from ophyd_eiger.client import DcuClient
from ophyd_eiger.errors import (
    DcuError,
    DcuTimeoutError,
    DcuUnreachableError,
    LostReplyError,
    ReplyError,
    TransferError,
)

TIMEOUTS = Timeouts(connect=2, get=5, put=10, arm=20, end=5, trigger_margin=5, files=3)


class Process:
    """A simulated DCU as a process of its own, to be killed."""

    def __init__(self, port, data_dir, *options):
        command = [sys.executable, "-m", "sim_dcu", "--port", str(port), "--model", "eiger-500k"]
        command += ["--data-dir", str(data_dir), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        with self.process.stdout:
            self.url = self.process.stdout.readline().split()[-1]

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(10)


@pytest.mark.long
def test_kill_9_in_the_middle_of_point_3(RE, catalog, tmp_path):
    first = Process(0, tmp_path / "dcu1", "--initialized", "--seed", "3")
    port = int(first.url.rsplit(":", 1)[1])
    eiger = EigerDetector(first.url, name="eiger", directory=tmp_path / "data", timeouts=TIMEOUTS)
    eiger.detector.frame_time.set(2.0).wait(10)
    oracle = {}

    def kill_in_point_3():
        watch = EigerDetector(first.url, name="watch")
        for series_id in (1, 2):
            while seen["events"] < series_id:
                time.sleep(0.01)
            reply = requests.get(f"{first.url}/sim/image/{series_id}/1", timeout=20)
            oracle[series_id] = np.load(io.BytesIO(reply.content))
        while watch.detector.state.get() != "acquire":
            time.sleep(0.01)
        killed_at.append(time.monotonic())
        first.kill()

    seen, killed_at = {"events": 0}, []
    RE.subscribe(lambda name, doc: seen.update(events=seen["events"] + 1), "event")
    uids = []
    RE.subscribe(lambda name, doc: uids.append(doc["uid"]), "start")
    killer = threading.Thread(target=kill_in_point_3)
    killer.start()
    with pytest.raises(FailedStatus) as caught:
        RE(bp.count([eiger], 5))
    killer.join(30)
    # A killed process breaks the connection, so this comes long before the trigger's own time.
    assert time.monotonic() - killed_at[0] < TIMEOUTS.trigger_margin + 1
    assert RE.state == "idle"

    last_line = traceback.format_exception(caught.value)[-1]
    for text in (last_line, str(caught.value.__cause__)):
        assert re.search(rf"PUT {re.escape(first.url)}/\S+/command/trigger", text)
        assert "lost" in text
    assert isinstance(caught.value.__cause__, DcuError)

    dataset = catalog[uids[0]].primary.read()
    found = np.asarray(dataset["eiger_image"])[:, 0]
    assert np.array_equal(found, [oracle[1], oracle[2]])
    before = {path: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    assert len(before) >= 4

    second = Process(port, tmp_path / "dcu2", "--seed", "4", "--time-scale", "0")
    assert second.url == first.url
    eiger.initialize()
    (uid,) = RE(bp.count([eiger], 2))
    images = np.asarray(catalog[uid].primary.read()["eiger_image"])
    for image, series_id in zip(images[:, 0], (1, 2), strict=True):
        reply = requests.get(f"{second.url}/sim/image/{series_id}/1", timeout=20)
        assert np.array_equal(image, np.load(io.BytesIO(reply.content)))
    assert {path: path.read_bytes() for path in before} == before
    eiger.destroy()
    second.close()
    first.close()


def test_no_dcu_there(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    eiger = EigerDetector(f"127.0.0.1:{port}", name="eiger", directory=tmp_path)
    with pytest.raises(
        DcuUnreachableError,
        match=rf"GET http://127\.0\.0\.1:{port}/detector/api/version: the DCU cannot be reached "
        r"\(.*refused\)",
    ):
        eiger.connect()
    with pytest.raises(DcuUnreachableError):
        eiger.stage().wait(10)
    eiger.destroy()


class Raw(bytes):
    """A reply with a head of its own."""


class ScriptedDcu:
    """A server that reads requests and answers each with the next of some raw replies.

    A reply of None closes the connection without a word; `...` leaves it open without one.
    """

    def __init__(self, *replies):
        self.replies = list(replies)
        self.requests = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._held = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        while self.replies:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(65536)
            self.requests.append(request.split(b"\r\n")[0].decode())
            reply = self.replies.pop(0)
            if reply is ...:
                self._held.append(connection)
                continue
            if isinstance(reply, Raw):
                connection.sendall(reply)
            elif reply is not None:
                head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n"
                connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(reply) + reply)
            connection.close()

    def close(self):
        self._socket.close()
        for connection in self._held:
            connection.close()


def value(content):
    return b'{"value": %s, "value_type": "float", "access_mode": "rw"}' % content


def test_a_get_is_sent_again_after_a_lost_reply():
    dcu = ScriptedDcu(None, value(b"1.5"))
    client = DcuClient(dcu.url, api_version="1.6.0")
    assert client.get("detector", "config/count_time")["value"] == 1.5
    assert len(dcu.requests) == 2
    dcu.close()


@pytest.mark.parametrize(("after", "fails"), [(b"0.5", False), (b"0.1", True)])
def test_a_put_is_sent_once_and_the_value_is_asked(tmp_path, after, fails):
    dcu = ScriptedDcu(value(b"0.1"), None, value(after), value(after))
    eiger = EigerDetector(dcu.url, name="eiger", directory=tmp_path, api_version="1.6.0")
    status = eiger.detector.count_time.set(0.5)
    if fails:
        with pytest.raises(LostReplyError, match=r"PUT http://\S+/config/count_time: the connect"):
            status.wait(10)
    else:
        status.wait(10)
        assert eiger.detector.count_time.last == 0.5
    assert [request.split()[0] for request in dcu.requests].count("PUT") == 1
    dcu.close()
    eiger.destroy()


def test_no_answer_in_time():
    dcu = ScriptedDcu(...)
    client = DcuClient(dcu.url, api_version="1.6.0", timeouts=Timeouts(get=0.2))
    with pytest.raises(DcuTimeoutError, match=r"GET http://\S+: no answer within 0\.2 s"):
        client.get("detector", "status/state")
    dcu.close()


def test_an_answer_that_is_no_json():
    dcu = ScriptedDcu(b"<html>")
    client = DcuClient(dcu.url, api_version="1.6.0")
    with pytest.raises(ReplyError, match="not JSON: '<html>'"):
        client.get("detector", "status/state")
    dcu.close()


@pytest.mark.parametrize("verb", ["get", "put"])
def test_what_sends_elsewhere_is_not_followed(verb):
    """A PUT that is followed becomes a GET, and what was to be set is not."""
    elsewhere = ScriptedDcu(value(b"1"))
    head = b"HTTP/1.1 302 Found\r\nLocation: %s/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    proxy = ScriptedDcu(Raw(head % elsewhere.url.encode()))
    client = DcuClient(proxy.url, api_version="1.6.0")
    arguments = ("detector", "config/count_time", 1)[: 3 if verb == "put" else 2]
    with pytest.raises(ReplyError, match=rf"302 Found, to ask at {elsewhere.url}/; give the addr"):
        getattr(client, verb)(*arguments)
    assert elsewhere.requests == []
    proxy.close()
    elsewhere.close()


def test_initialize_that_fails_tells_it(tmp_path):
    dcu = ScriptedDcu(None)
    eiger = EigerDetector(dcu.url, name="eiger", directory=tmp_path, api_version="1.6.0")
    with pytest.raises(LostReplyError, match=r"command/initialize"):
        eiger.initialize()
    assert len(dcu.requests) == 1
    dcu.close()
    eiger.destroy()


def test_files_that_vanish_from_the_dcu_are_named(tmp_path, monkeypatch):
    with sim_dcu.serve(model="eiger-500k", time_scale=0, initialized=True) as dcu:
        eiger = EigerDetector(
            dcu.url, name="eiger", directory=tmp_path, timeouts=Timeouts(files=0.5)
        )
        deleted = threading.Event()
        listed = eiger.link.client.files
        monkeypatch.setattr(eiger.link.client, "files", lambda: deleted.wait(30) and listed())
        eiger.stage().wait(10)
        eiger.trigger().wait(10)
        for name in listed():
            requests.delete(f"{dcu.url}/data/{name}", timeout=10)
        deleted.set()
        with pytest.raises(
            TransferError, match=r"_master\.h5 did not come home to .*within 0\.5 s"
        ):
            eiger.unstage().wait(20)
        eiger.destroy()


def test_a_cut_off_file_never_gets_its_name(tmp_path, dcu, eiger):
    """A connection that breaks in each file: fetched all the same, and whole in the end."""
    dcu.faults.set("drop", when="body", path="GET data/*", times=2)
    eiger.stage().wait(10)
    eiger.trigger().wait(10)
    eiger.unstage().wait(20)
    fetched = [each.resource for each in eiger.ledger.requests if each.resource.startswith("data")]
    assert len(fetched) == 4
    assert len(set(fetched)) == 2
    master = next(f.path for f in eiger.fetched if f.path.name.endswith("_master.h5"))
    assert np.array_equal(open_series(master)[0], dcu.image(1, 1))
    assert not list((tmp_path / "data").glob(".*"))


def test_a_name_that_is_taken_is_not_overwritten(tmp_path, dcu, eiger):
    eiger.link.client.timeouts = Timeouts(files=0.5)
    eiger.stage().wait(10)
    stem = eiger.filewriter.name_pattern.last.replace("$id", "1")
    taken = tmp_path / "data" / f"{stem}_master.h5"
    taken.write_bytes(b"mine")
    eiger.trigger().wait(10)
    with pytest.raises(TransferError, match="exists already"):
        eiger.unstage().wait(20)
    assert taken.read_bytes() == b"mine"
