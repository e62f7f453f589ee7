"""The requests of DECTRIS's own Python client and of others, made by plain clients of our own.

The client keeps one `http.client` connection, sends its headers in its own way and takes a reply
for JSON where its content type says so.
"""

import base64
import http.client
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
from plain_client import Client, until

import sim_dcu
from sim_dcu import tiff

# Of each test's cases the short run takes every 2nd, see conftest.
SHORT_RUN_EVERY = 2

# fastcs-eiger asks for about so many parameters at once and waits 3 s (its HTTP connection).
AT_ONCE, PATIENCE = 85, 3.0


class VendorClient:
    """Makes exactly the requests of the maker's client, on one connection."""

    def __init__(self, url: str, version: str):
        address = urlsplit(url)
        self.connection = http.client.HTTPConnection(address.hostname, address.port, timeout=20)
        self.version = version

    def path(self, subsystem: str, section: str, name: str) -> str:
        return f"/{subsystem}/api/{self.version}/{section}/{name}"

    def get(self, path: str, accept: str = "application/json; charset=utf-8") -> object:
        self.connection.request("GET", path, headers={"Accept": accept})
        return self.answer()

    def put(self, path: str, value: object = None, kind: str = "") -> object:
        if value is None:
            content, kind = b"", kind or "text/html"
        elif isinstance(value, bytes):
            content = value
        else:
            content, kind = (
                json.dumps({"value": value}).encode(),
                "application/json; charset=utf-8",
            )
        self.connection.request("PUT", path, content, {"Content-type": kind} if kind else {})
        return self.answer()

    def delete(self, path: str) -> object:
        self.connection.request("DELETE", path)
        return self.answer()

    def answer(self) -> object:
        reply = self.connection.getresponse()
        content = reply.read()
        if not 200 <= reply.status < 300:
            raise RuntimeError(reply.status, content)
        return json.loads(content) if "json" in (reply.getheader("content-type") or "") else content


@pytest.fixture(
    params=[("eiger-500k", "1.6.0"), ("eiger2-500k", "1.8.0"), ("eiger2-500k", "1.6.0")],
    ids="-".join,
)
def vendor(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[VendorClient, sim_dcu.Server]]:
    model, version = request.param
    with sim_dcu.serve(model, data_dir=tmp_path / "data") as server:
        client = VendorClient(server.url, version)
        yield client, server
        client.connection.close()


def test_the_vendors_client_takes_a_series(vendor: tuple[VendorClient, sim_dcu.Server]) -> None:
    client, server = vendor
    assert client.get("/detector/api/version/")["value"] == server.dcu.firmware.api_version
    state = client.path("detector", "status", "state")
    assert client.get(state)["value"] == "na"
    # An empty body, typed as the client types it.
    assert client.put(client.path("detector", "command", "initialize")) in (b"", {})
    assert client.get(state)["value"] == "idle"
    for subsystem in ("detector", "filewriter", "monitor", "stream"):
        for section in ("config", "status", "command"):
            keys = client.get(client.path(subsystem, section, "keys"))
            assert keys == sorted(keys)
            assert keys
    assert "count_time" in client.get(client.path("detector", "config", ""))
    assert client.put(client.path("filewriter", "config", "mode"), "enabled") == b""
    assert "count_time" in client.put(client.path("detector", "config", "count_time"), 0.1)
    assert client.put(client.path("detector", "config", "nimages"), 3) == ["nimages"]
    armed = client.put(client.path("detector", "command", "arm"))
    assert next(iter(armed)) == "sequence id"
    series = armed["sequence id"]
    assert series >= 1
    client.put(client.path("detector", "command", "trigger"))
    assert client.put(client.path("detector", "command", "disarm")) == {"sequence id": series}
    listed = client.get(client.path("filewriter", "files", ""))
    names = listed if isinstance(listed, list) else listed["value"]
    assert f"series_{series}_master.h5" in names
    for name in names:
        content = client.get(f"/data/{name}", accept="application/hdf5")
        assert content.startswith(b"\x89HDF")
        assert client.delete(f"/data/{name}") == b""
    with pytest.raises(RuntimeError, match="404"):
        client.get(f"/data/{names[0]}", accept="application/hdf5")


def test_the_vendors_client_asks_the_monitor(vendor: tuple[VendorClient, sim_dcu.Server]) -> None:
    client, _ = vendor
    client.put(client.path("detector", "command", "initialize"))
    client.put(client.path("monitor", "config", "mode"), "enabled")
    client.put(client.path("detector", "command", "arm"))
    client.put(client.path("detector", "command", "trigger"))
    client.put(client.path("detector", "command", "disarm"))
    assert client.get(client.path("monitor", "images", "")) == [[1, [1]]]
    image = client.get(client.path("monitor", "images", "next"), accept="application/tiff")
    assert image[:4] == b"II*\x00"
    client.put(client.path("monitor", "command", "clear"))
    with pytest.raises(RuntimeError, match="408"):
        client.get(client.path("monitor", "images", "next?timeout=1"), accept="application/tiff")


def test_masks_as_tiff_and_as_darray(vendor: tuple[VendorClient, sim_dcu.Server]) -> None:
    client, server = vendor
    client.put(client.path("detector", "command", "initialize"))
    mask_path = client.path("detector", "config", "pixel_mask")
    mask = tiff.decode(client.get(mask_path, accept="application/tiff")).copy()
    assert mask.dtype == "uint32"
    assert mask.shape == server.dcu.detector.model.shape
    mask[100, 200] = 16
    assert "pixel_mask" in client.put(mask_path, tiff.encode(mask), "application/tiff")
    darray = client.get(mask_path)["value"]
    assert darray["shape"] == list(mask.shape)
    pixels = np.frombuffer(base64.b64decode(darray["data"]), darray["type"])
    np.testing.assert_array_equal(pixels.reshape(darray["shape"]), mask)
    darray["data"] = base64.b64encode(np.zeros_like(mask).tobytes()).decode()
    assert "pixel_mask" in client.put(mask_path, darray)
    assert not tiff.decode(client.get(mask_path, accept="application/tiff")).any()


@pytest.mark.parametrize("kind", ["application/json", "text/html", ""])
def test_commands_take_an_empty_body_of_any_type(
    vendor: tuple[VendorClient, sim_dcu.Server], kind: str
) -> None:
    client, _ = vendor
    for name in ("initialize", "arm", "trigger", "disarm", "abort", "cancel"):
        path = client.path("detector", "command", name)
        client.connection.request("PUT", path, b"", {"Content-Type": kind} if kind else {})
        client.answer()


# -- many at once ---------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["eiger-1m", "eiger2-16m"])
def test_85_gets_at_once_are_answered_while_a_series_runs(model: str, tmp_path: Path) -> None:
    version = "1.6.0" if model == "eiger-1m" else "1.8.0"
    with sim_dcu.serve(model, time_scale=1, initialized=True, data_dir=tmp_path / "data") as server:
        client = Client(server.url, version)
        with client.session:
            client.put("filewriter/config/mode", "enabled")
            client.config(frame_time=0.05, nimages=2000)
            client.config(count_time=0.04)
            keys = [
                f"detector/{section}/{key}"
                for section in ("config", "status")
                for key in client.get(f"detector/{section}/keys").json()
                if not key.endswith(("flatfield", "pixel_mask"))
            ]
            keys = (keys * 2)[:AT_ONCE]
            client.arm()
            trigger = threading.Thread(target=client.command, args=["trigger"])
            trigger.start()
            other = Client(server.url, version)
            with other.session:
                until(lambda: other.state == "acquire")
                seconds: list[float] = []
                statuses: list[int] = []

                def ask(key: str) -> None:
                    begin = time.monotonic()
                    statuses.append(requests.get(other.path(key), timeout=20).status_code)
                    seconds.append(time.monotonic() - begin)

                asking = [threading.Thread(target=ask, args=[key]) for key in keys]
                for thread in asking:
                    thread.start()
                for thread in asking:
                    thread.join(20)
                assert other.state == "acquire"
                assert other.command("abort").status_code == 200
            trigger.join(20)
    assert statuses == [200] * AT_ONCE
    assert max(seconds) < PATIENCE
