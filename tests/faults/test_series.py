"""Faults that strike a series, what is measured and the monitor, shown by a plain client."""

import threading
from collections.abc import Iterator
from pathlib import Path

import h5py
import pytest
import requests
from dcu_process import Dcu, running
from plain_client import Client, until

# The short run takes each test with one generation only, see conftest.
GENERATIONS_BY_TURNS = True


def images_in(dcu: Dcu, number: int) -> int:
    """Return how many images a data file of series 1 holds, as downloaded."""
    name = f"series_1_data_{number:06d}.h5"
    reply = dcu.session.get(f"{dcu.url}/data/{name}", timeout=30)
    assert reply.status_code == 200
    path = dcu.folder.parent / f"downloaded-{name}"
    path.write_bytes(reply.content)
    with h5py.File(path) as file:
        return file["entry/data/data"].shape[0]


def full_series(dcu: Dcu) -> None:
    """Take 5 images, 2 a file, and find them all."""
    dcu.series(5, 2)
    assert dcu.command("arm").status_code == 200
    assert dcu.command("trigger").status_code == 200
    series_id = dcu.command("disarm").json()["sequence id"]
    data = [name for name in dcu.files() if name.startswith(f"series_{series_id}_data")]
    assert len(data) == 3
    assert dcu.value("filewriter/status/state") == "ready"
    assert dcu.state == "idle"


# -- error ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [0, 3, 5])
def test_error_in_mid_series(dcu: Dcu, images: int) -> None:
    dcu.series(5, 2)
    dcu.fault("error", image=images, text="module 3 lost")
    dcu.arm()
    reply = dcu.command("trigger")
    assert reply.status_code == 400
    assert "module 3 lost" in reply.text
    assert dcu.state == "error"
    # An EIGER2's list of errors is always empty (API reference 1.8).
    errors = dcu.value("detector/status/error")
    assert errors == ([] if dcu.eiger2 else ["module 3 lost"])
    assert dcu.command("arm").status_code == 400
    assert dcu.command("disarm").status_code == 400
    # What was exposed is written.
    until(lambda: dcu.value("filewriter/status/state") == "ready")
    written = [images_in(dcu, 1 + n) for n in range(len(dcu.files()) - 1)]
    assert written == {0: [], 3: [2, 1], 5: [2, 2, 1]}[images]
    dcu.clear()
    assert dcu.command("initialize").status_code == 200
    full_series(dcu)


def test_error_comes_with_the_trigger_that_reaches_it(dcu: Dcu) -> None:
    dcu.series(2, 2, triggers=3)
    dcu.fault("error", image=3, times=1)
    dcu.arm()
    assert [dcu.command("trigger").status_code for _ in range(2)] == [200, 400]
    assert dcu.state == "error"
    # It was to strike one series.
    assert dcu.command("initialize").status_code == 200
    full_series(dcu)


def test_error_lets_the_first_series_pass(dcu: Dcu) -> None:
    dcu.fault("error", after=1)
    full_series(dcu)
    dcu.arm()
    assert dcu.command("trigger").status_code == 400


# -- full -----------------------------------------------------------------------------------------


def test_a_buffer_that_is_full_at_once_refuses_arm(dcu: Dcu) -> None:
    before = dcu.value("filewriter/status/buffer_free")
    assert before > 0
    dcu.fault("full")
    assert dcu.value("filewriter/status/buffer_free") == 0
    reply = dcu.command("arm")
    assert reply.status_code == 400
    assert "no room" in reply.text
    assert dcu.value("filewriter/status/state") == "error"
    if not dcu.eiger2:
        dcu.clear()
        dcu.command("initialize")
        dcu.fault("full")
        dcu.command("status_update")
        reading = dcu.get("detector/status/builder/dcu_buffer_free").json()
        assert (reading["value"], reading["state"]) == (0.0, "critical")
    dcu.clear()
    assert dcu.value("filewriter/status/buffer_free") == before
    assert dcu.command("initialize").status_code == 200
    full_series(dcu)


def test_a_buffer_that_runs_full_in_mid_series_loses_the_rest(dcu: Dcu) -> None:
    dcu.series(5, 2)
    dcu.fault("full", image=3)
    dcu.arm()
    assert dcu.value("filewriter/status/buffer_free") > 0
    dcu.command("trigger")
    # For want of room, or because the state is error already.
    assert dcu.command("disarm").status_code == 400
    assert dcu.value("filewriter/status/state") == "error"
    assert "no room" in dcu.value("filewriter/status/error")[0]
    assert dcu.value("filewriter/status/buffer_free") == 0
    assert dcu.state == "error"
    until(lambda: len(dcu.files()) == 3)
    assert [images_in(dcu, 1), images_in(dcu, 2)] == [2, 1]
    dcu.clear()
    assert dcu.value("filewriter/status/buffer_free") > 0
    assert dcu.command("initialize").status_code == 200
    full_series(dcu)


def test_a_full_buffer_is_told_in_one_line_on_stderr(tmp_path: Path) -> None:
    stderr = tmp_path / "stderr"
    with (
        stderr.open("w") as file,
        running("eiger-500k", tmp_path / "data", errors=file.fileno()) as dcu,
    ):
        dcu.series(5, 2)
        dcu.fault("full", image=3)
        dcu.arm()
        dcu.command("trigger")
        assert dcu.command("disarm").status_code == 400
    (line,) = stderr.read_text().splitlines()
    assert "image 4 could not be delivered" in line
    assert "no room for more" in line


# -- stall ----------------------------------------------------------------------------------------


@pytest.fixture
def trigger_on(dcu: Dcu) -> Iterator[tuple[threading.Thread, list[int]]]:
    """A trigger on a connection of its own, and where its status goes."""
    statuses: list[int] = []

    def give() -> None:
        statuses.append(requests.put(dcu.path("detector/command/trigger"), timeout=60).status_code)

    thread = threading.Thread(target=give)
    yield thread, statuses
    thread.join(10)
    assert not thread.is_alive()


def monitor_ids(dcu: Dcu) -> list[int]:
    listed = dcu.get("monitor/images").json()
    return listed[0][1] if listed else []


def test_a_stalled_producer_stays_in_acquire_and_goes_on_when_cleared(
    dcu: Dcu, trigger_on: tuple[threading.Thread, list[int]]
) -> None:
    thread, statuses = trigger_on
    dcu.put("monitor/config/mode", "enabled")
    dcu.series(5, 2)
    dcu.fault("stall", image=3)
    dcu.arm()
    thread.start()
    until(lambda: len(monitor_ids(dcu)) == 3)
    for _ in range(20):
        assert dcu.state == "acquire"
    assert len(monitor_ids(dcu)) == 3
    assert statuses == []
    dcu.clear()
    thread.join(10)
    assert statuses == [200]
    assert dcu.command("disarm").status_code == 200
    assert [images_in(dcu, number) for number in (1, 2, 3)] == [2, 2, 1]
    assert dcu.state == "idle"


@pytest.mark.parametrize("command", ["abort", "cancel", "disarm"])
def test_a_stalled_series_can_be_ended(
    dcu: Dcu, trigger_on: tuple[threading.Thread, list[int]], command: str
) -> None:
    thread, statuses = trigger_on
    dcu.series(5, 2)
    dcu.fault("stall", image=3)
    dcu.arm()
    thread.start()
    until(lambda: dcu.active()[0]["struck"])
    if command == "disarm" and dcu.eiger2:
        # Its disarm lets a running trigger finish, which is why its users send cancel first.
        with pytest.raises(requests.Timeout):
            requests.put(dcu.path("detector/command/disarm"), timeout=0.4)
        command = "cancel"
    assert dcu.command(command).status_code == 200
    thread.join(10)
    assert statuses == [200]
    assert dcu.state == "idle"
    dcu.clear()
    full_series(dcu)


def test_a_stall_delays_what_follows_by_its_own_length(tmp_path: Path) -> None:
    """The images after a stall keep their period, of 0.3 s: none is made up for."""
    with running("eiger-500k", tmp_path / "data", "--time-scale", "0.1") as dcu:
        dcu.put("filewriter/config/mode", "disabled")
        dcu.put("monitor/config/mode", "enabled")
        dcu.config(frame_time=3, count_time=2, nimages=3)
        dcu.fault("stall", image=1)
        dcu.arm()
        trigger = threading.Thread(target=Client(dcu.url, dcu.version).command, args=["trigger"])
        trigger.start()
        until(lambda: monitor_ids(dcu) == [1])
        # Two periods pass while it stalls, told by the monitor's own time-out.
        dcu.session.get(f"{dcu.path('monitor/images/next')}", timeout=5)
        for _ in range(2):
            reply = dcu.session.get(f"{dcu.path('monitor/images/next')}?timeout=300", timeout=5)
            assert reply.status_code == 408
        dcu.clear()
        seen = []
        while len(seen) < 2:
            reply = dcu.session.get(f"{dcu.path('monitor/images/next')}?timeout=9000", timeout=20)
            assert reply.status_code == 200
            seen.append(dcu.value("monitor/status/next_image_number"))
            if len(seen) == 1:
                # Both would be here if they had been due during the stall.
                assert monitor_ids(dcu) == []
        assert seen == [[1, 2], [1, 3]]
        trigger.join(10)


# -- measured -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "eiger1_key", "value", "typical"),
    [
        ("temperature", "board_000/th0_temp", 45.0, (15.0, 37.5)),
        ("temperature", "board_000/th0_temp", -5.0, (15.0, 37.5)),
        ("humidity", "board_000/th0_humidity", 70.0, (0.0, 35.0)),
    ],
)
def test_what_is_measured_out_of_limits(
    dcu: Dcu, name: str, eiger1_key: str, value: float, typical: tuple[float, float]
) -> None:
    key = name if dcu.eiger2 else eiger1_key
    dcu.fault(name, value=value)
    if not dcu.eiger2:
        # The values are those of the last update.
        assert typical[0] < dcu.value(f"detector/status/{key}") < typical[1]
        assert dcu.command("status_update").status_code == 200
    reading = dcu.get(f"detector/status/{key}").json()
    assert reading["value"] == pytest.approx(value, abs=0.05)
    if not dcu.eiger2:
        assert reading["state"] == "critical"
        assert dcu.value("detector/status/error") == [key]
    dcu.clear()
    dcu.command("status_update")
    reading = dcu.get(f"detector/status/{key}").json()
    assert typical[0] < reading["value"] < typical[1]
    if not dcu.eiger2:
        assert reading["state"] == "normal"
    assert dcu.value("detector/status/error") == []


# -- monitor --------------------------------------------------------------------------------------


def test_monitor_images_dropped(dcu: Dcu) -> None:
    dcu.put("monitor/config/mode", "enabled")
    dcu.series(6, 6)
    dcu.fault("monitor-drop", after=1, times=3)
    dcu.arm()
    dcu.command("trigger")
    dcu.command("disarm")
    assert monitor_ids(dcu) == [1, 5, 6]
    assert dcu.value("monitor/status/dropped") == 3
    assert dcu.value("monitor/status/state") == "overflow"
    assert images_in(dcu, 1) == 6
    dcu.clear()
    dcu.put("monitor/command/clear")
    dcu.arm()
    dcu.command("trigger")
    dcu.command("disarm")
    assert monitor_ids(dcu) == [1, 2, 3, 4, 5, 6]
    assert dcu.value("monitor/status/state") == "normal"


def test_all_monitor_images_dropped_is_408(dcu: Dcu) -> None:
    dcu.put("monitor/config/mode", "enabled")
    dcu.fault("monitor-drop")
    dcu.arm()
    dcu.command("trigger")
    reply = dcu.session.get(f"{dcu.path('monitor/images/monitor')}?timeout=1", timeout=5)
    assert reply.status_code == 408
