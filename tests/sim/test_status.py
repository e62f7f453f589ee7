"""Values that a detector measures, and the trigger input, of both generations."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from plain_client import Client, until

import sim_dcu

# The short run takes each test with one generation only, see conftest.
GENERATIONS_BY_TURNS = True

MODELS = {"eiger-500k": "1.6.0", "eiger2-500k": "1.8.0"}
TEMPERATURE = {"eiger-500k": "board_000/th0_temp", "eiger2-500k": "temperature"}
HUMIDITY = {"eiger-500k": "board_000/th0_humidity", "eiger2-500k": "humidity"}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def server(model: str, tmp_path: Path) -> Iterator[sim_dcu.Server]:
    with sim_dcu.serve(model, seed=3, initialized=True, data_dir=tmp_path) as server:
        yield server


@pytest.fixture
def client(server: sim_dcu.Server, model: str) -> Iterator[Client]:
    plain = Client(server.url, MODELS[model])
    with plain.session:
        plain.put("filewriter/config/mode", "disabled")
        yield plain


def status(client: Client, key: str) -> dict[str, Any]:
    return client.get(f"detector/status/{key}").json()


def readings(client: Client, key: str) -> set[float]:
    """Return what a sensor shows in 20 requests, refreshed before each."""
    found = set()
    for _ in range(20):
        assert client.command("status_update").status_code == 200
        found.add(status(client, key)["value"])
    return found


def test_measured_values_move_within_what_is_good(client: Client, model: str) -> None:
    # The critical limits of a real EIGER 500K.
    for key, low, high in ((TEMPERATURE[model], 15.0, 37.5), (HUMIDITY[model], 0.0, 35.0)):
        found = readings(client, key)
        assert len(found) > 3
        assert low < min(found) <= max(found) < high


def test_readings_are_steps_of_the_sensor(client: Client, model: str) -> None:
    """As both readings of a real reply are: an SHT21's 14 and 12 bits, by its data sheet."""
    for reading in readings(client, TEMPERATURE[model]):
        signal = (reading + 46.85) / 175.72 * 2**16 / 4
        assert signal == pytest.approx(round(signal), abs=1e-3)
    for reading in readings(client, HUMIDITY[model]):
        signal = (reading + 6) / 125 * 2**16 / 16
        assert signal == pytest.approx(round(signal), abs=1e-3)


def test_eiger1s_values_are_those_of_the_last_update(tmp_path: Path) -> None:
    with sim_dcu.serve("eiger-500k", initialized=True, data_dir=tmp_path) as server:
        client = Client(server.url)
        with client.session:
            before = status(client, "board_000/th0_temp")
            for _ in range(5):
                assert status(client, "board_000/th0_temp") == before
            client.command("status_update")
            assert status(client, "board_000/th0_temp")["time"] > before["time"]


def test_values_stand_still_while_exposing(model: str, tmp_path: Path) -> None:
    """Also where they are asked to be measured anew (API reference 1.3, chapter 2)."""
    with sim_dcu.serve(model, initialized=True, time_scale=1.0, data_dir=tmp_path) as server:
        client = Client(server.url, MODELS[model])
        with client.session:
            client.put("filewriter/config/mode", "disabled")
            client.config(trigger_mode="exts", count_time=60.0)
            client.arm()
            assert server.pulse()
            until(lambda: client.state == "acquire")
            before = status(client, TEMPERATURE[model])
            assert len(readings(client, TEMPERATURE[model])) == 1
            assert status(client, TEMPERATURE[model]) == before
            client.command("abort")
            assert len(readings(client, TEMPERATURE[model])) > 3


def test_critical_values_are_told(tmp_path: Path) -> None:
    with sim_dcu.serve("eiger-500k", initialized=True, data_dir=tmp_path) as server:
        client = Client(server.url)
        with client.session:
            assert status(client, "board_000/th0_temp")["state"] == "normal"
            assert status(client, "error")["value"] == []
            server.dcu.detector.sensors.typical["temperature"] = 45.0
            client.command("status_update")
            assert status(client, "board_000/th0_temp")["state"] == "critical"
            assert status(client, "error")["value"] == ["board_000/th0_temp"]
            assert client.state == "idle"


def test_links_and_their_plugs(client: Client, server: sim_dcu.Server) -> None:
    assert status(client, "link_1")["value"] == "up"
    server.dcu.detector.sensors.links["link_1"] = "down"
    client.command("status_update")
    assert status(client, "link_1")["value"] == "down"
    assert status(client, "link_0")["value"] == "up"


# -- the trigger input ----------------------------------------------------------------------------


def trigger_input(client: Client, seconds: object = None) -> bool:
    body = None if seconds is None else {"value": seconds}
    reply = client.session.put(f"{client.url}/sim/trigger", json=body, timeout=10)
    assert reply.status_code == 200, reply.text
    return reply.json()["value"]


def test_edges_over_http(client: Client, server: sim_dcu.Server) -> None:
    client.config(trigger_mode="exts", nimages=2, ntrigger=2)
    assert not trigger_input(client)
    client.arm()
    assert not trigger_input(client, 0.1)  # a gate is not what exts waits for
    for _ in range(2):
        until(lambda: client.state == "ready")
        assert trigger_input(client)
    until(lambda: client.state == "idle")
    assert server.dcu.detector.series.acquisition.exposed == 4
    assert not trigger_input(client)


def test_gates_over_http(client: Client, server: sim_dcu.Server) -> None:
    client.config(trigger_mode="exte", ntrigger=3)
    client.arm()
    assert not trigger_input(client)
    assert client.command("trigger").status_code == 400
    for _ in range(3):
        until(lambda: client.state == "ready")
        assert trigger_input(client, 0.25)
    until(lambda: client.state == "idle")
    assert server.dcu.detector.series.acquisition.exposed == 3


@pytest.mark.parametrize("seconds", [-1, "long", True, 1e400, [1]])
def test_gates_that_are_no_time_are_refused(client: Client, seconds: object) -> None:
    body = '{"value": Infinity}' if seconds == 1e400 else None
    path = f"{client.url}/sim/trigger"
    if body:
        reply = client.session.put(path, data=body, timeout=10)
    else:
        reply = client.session.put(path, json={"value": seconds}, timeout=10)
    assert reply.status_code == 400
