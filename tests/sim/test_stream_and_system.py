"""Stream and system of both generations, and the API log.

Names, types and orders: API references 1.3 and 1.8, and what fastcs-eiger found on a real EIGER2.
"""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from plain_client import Client, until

import sim_dcu
from sim_dcu.system import LOGGED_REQUESTS, LONGEST_LINE, ApiLog

# The short run takes each test with one generation only, see conftest.
GENERATIONS_BY_TURNS = True

VERSIONS = {"eiger-500k": "1.6.0", "eiger2-500k": "1.8.0"}


@pytest.fixture(params=sorted(VERSIONS))
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Client]:
    with sim_dcu.serve(request.param, initialized=True, data_dir=tmp_path / "data") as server:
        plain = Client(server.url, VERSIONS[request.param])
        with plain.session:
            yield plain


def test_stream_config(client: Client) -> None:
    mode = client.get("stream/config/mode").json()
    assert (mode["value"], mode["allowed_values"]) == ("disabled", ["enabled", "disabled"])
    detail = client.get("stream/config/header_detail").json()
    first = client.version == "1.6.0"
    assert detail["value"] == "basic"
    assert detail["allowed_values"] == (
        ["all", "basic", "none"] if first else ["none", "basic", "all"]
    )
    for key in ("header_appendix", "image_appendix"):
        # Any text, JSON or not.
        for text in ("", '{"half": ', "x" * 10_000, "\u00e4\n"):
            reply = client.put(f"stream/config/{key}", text)
            assert (reply.status_code, reply.content) == (200, b"")
            assert reply.headers["content-type"].startswith("text/plain")
            assert client.value(f"stream/config/{key}") == text
        assert "allowed_values" not in client.get(f"stream/config/{key}").json()
    if first:
        assert client.get("stream/config/format").status_code == 404
    else:
        assert client.get("stream/config/format").json() == {
            "access_mode": "rw",
            "allowed_values": ["legacy", "cbor"],
            "value": "legacy",
            "value_type": "string",
        }
    assert client.put("stream/config/header_detail", "some").status_code == 400


def test_stream_status(client: Client) -> None:
    assert client.value("stream/status/dropped") == 0
    assert client.value("stream/status/error") == []
    keys = client.get("stream/status/keys").json()
    # An EIGER2 answers error, but does not list it.
    assert keys == (
        ["dropped", "error", "state"] if client.version == "1.6.0" else ["dropped", "state"]
    )


def test_stream_is_in_acquire_from_arm_to_the_end(client: Client) -> None:
    def state() -> object:
        return client.value("stream/status/state")

    assert state() == "disabled"
    client.arm()
    assert state() == "disabled"
    client.command("disarm")
    client.put("stream/config/mode", "enabled")
    assert state() == "ready"
    client.arm()
    assert state() == "acquire"
    # A mode put meanwhile counts from the next series.
    client.put("stream/config/mode", "disabled")
    assert state() == "acquire"
    client.command("trigger")
    client.command("disarm")
    assert state() == "disabled"
    client.put("stream/config/header_detail", "all")
    assert client.put("stream/command/initialize").status_code == 200
    assert client.value("stream/config/header_detail") == "basic"


def test_system_keys(client: Client) -> None:
    assert client.get("system/command/keys").json() == (
        ["restart"]
        if client.version == "1.6.0"
        else ["create_log_tarball", "delete_logs", "reboot", "restart", "shutdown"]
    )
    assert client.put("system/command/no_such").status_code == 404


def test_restart_leaves_everything_at_its_default_and_the_files(client: Client) -> None:
    client.put("filewriter/config/mode", "enabled")
    client.put("monitor/config/mode", "enabled")
    client.put("stream/config/mode", "enabled")
    client.arm()
    client.command("disarm")
    reply = client.put("system/command/restart")
    assert reply.status_code == 200
    assert client.state == "na"
    assert client.value("monitor/config/mode") == "disabled"
    assert client.value("stream/config/mode") == "disabled"
    assert client.get("detector/config/count_time").status_code == 404
    names = client.get("filewriter/files").json()
    assert "series_1_master.h5" in (names if isinstance(names, list) else names["value"])
    client.command("initialize")
    until(lambda: client.state == "idle")
    # Ids count anew.
    assert client.arm() == 1


@pytest.mark.parametrize("command", ["reboot", "shutdown"])
def test_reboot_and_shutdown_lose_the_files_and_go_on_answering(
    client: Client, command: str
) -> None:
    if client.version == "1.6.0":
        assert client.put(f"system/command/{command}").status_code == 404
        return
    client.put("filewriter/config/mode", "enabled")
    client.arm()
    client.command("disarm")
    assert client.put(f"system/command/{command}").status_code == 200
    assert client.state == "na"
    assert client.get("filewriter/files").json()["value"] == []


def test_the_api_log_tells_every_request(client: Client) -> None:
    client.get("detector/config/no_such_key")
    reply = client.get("system/log")
    assert reply.headers["content-type"].startswith("text/plain")
    path = f"/detector/api/{client.version}/config/no_such_key"
    assert f"GET {path} -> 404" in reply.text
    assert client.session.get(f"{client.url}/system/api/9.9/log", timeout=5).status_code == 404


def test_the_log_as_a_tarball(client: Client) -> None:
    if client.version == "1.6.0":
        assert client.get("system/log.tar.gz").status_code == 404
        return
    client.get("detector/config/no_such_key")
    assert client.get("system/log.tar.gz").status_code == 404
    assert client.put("system/command/create_log_tarball").status_code == 200
    reply = client.get("system/log.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(reply.content)) as archive:
        (entry,) = archive.getmembers()
        file = archive.extractfile(entry)
        assert file is not None
        assert b"no_such_key" in file.read()
    assert client.put("system/command/delete_logs").status_code == 200
    assert "no_such_key" not in client.get("system/log").text
    assert client.get("system/log.tar.gz").status_code == 404


def test_the_log_is_bounded_and_plain() -> None:
    log = ApiLog()
    for number in range(LOGGED_REQUESTS + 10):
        log.note(f"{number} " + "\u00e4\n" * 1000)
    lines = log.text().splitlines()
    assert len(lines) == LOGGED_REQUESTS
    assert " 10 " in lines[0]
    assert all(len(line) < LONGEST_LINE + 40 and line.isascii() for line in lines)
