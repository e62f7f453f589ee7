"""From initialize to the last image: states, commands, trigger modes, endings and failures."""

import errno
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 - registers the filter that the data files name
import numpy as np
import pytest
import requests
from plain_client import TIMED, Client, until

import sim_dcu
from sim_dcu.clock import Clock
from sim_dcu.filewriter import SeriesWriter

# Of each test's cases the short run takes every 2nd, see conftest.
SHORT_RUN_EVERY = 2


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as threads:
        yield threads


def states(server: sim_dcu.Server) -> list[str]:
    """Every state since the start, in order."""
    return [str(state) for state in server.dcu.detector.state.passed]


def images_in(folder: Path, series: int) -> np.ndarray:
    """All images of a series' data files."""
    parts = []
    for path in sorted(folder.glob(f"series_{series}_data_*.h5")):
        with h5py.File(path, "r") as file:
            parts.append(file["entry/data/data"][()])
    return np.concatenate(parts)


def blocked_trigger(client: Client, pool: ThreadPoolExecutor) -> "Future[requests.Response]":
    """Trigger from another connection and return once the detector exposes."""

    def trigger() -> requests.Response:
        return requests.put(client.path("detector/command/trigger"), timeout=60)

    reply = pool.submit(trigger)
    until(lambda: client.state == "acquire")
    return reply


# -- initialize -----------------------------------------------------------------------------------


def test_before_initialize_only_the_state_answers(tmp_path: Path) -> None:
    with sim_dcu.serve("eiger-500k", data_dir=tmp_path) as server:
        client = Client(server.url)
        assert client.state == "na"
        for reply in (
            client.get("detector/config/count_time"),
            client.put("detector/config/count_time", 1.0),
        ):
            assert reply.status_code == 404
            assert reply.text == "Parameter count_time does not exist"
        assert client.get("detector/config/keys").status_code == 404
        assert client.get("detector/config").status_code == 404
        assert client.get("detector/status/time").status_code == 404
        for command in ("arm", "trigger", "disarm", "cancel", "abort"):
            assert client.command(command).status_code == 400
        assert client.state == "na"
        reply = client.command("initialize")
        assert (reply.status_code, reply.content) == (200, b"")
        assert client.state == "idle"
        assert client.value("detector/config/nimages") == 1
        assert states(server) == ["na", "initialize", "idle"]
        client.session.close()


def test_during_initialize_all_but_the_state_is_refused(
    tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    with sim_dcu.serve("eiger-500k", time_scale=TIMED, data_dir=tmp_path) as server:
        client = Client(server.url)
        initialize = pool.submit(
            requests.put, client.path("detector/command/initialize"), timeout=60
        )
        until(lambda: client.state == "initialize")
        for reply in (
            client.get("detector/config/count_time"),
            client.put("detector/config/count_time", 1.0),
            client.command("arm"),
            client.command("initialize"),
            client.get("filewriter/files"),
            client.get("detector/status/time"),
        ):
            assert reply.status_code == 400
            assert len(reply.content) < 128
        assert client.state == "initialize"
        assert initialize.result().status_code == 200
        assert client.state == "idle"
        client.session.close()


def test_initialize_brings_defaults_and_the_first_id_back(client: Client) -> None:
    client.config(nimages=7, photon_energy=12000.0)
    client.put("filewriter/config/nimages_per_file", 3)
    assert client.arm() == 1
    client.command("disarm")
    assert client.arm() == 2
    assert client.command("initialize").status_code == 200
    assert client.state == "idle"
    assert client.value("detector/config/nimages") == 1
    assert client.value("detector/config/element") == "Cu"
    assert client.value("filewriter/config/nimages_per_file") == 3
    assert client.command("disarm").json() == {"sequence id": 0}
    assert client.arm() == 1


def test_restart_leaves_the_detector_uninitialized(client: Client) -> None:
    client.arm()
    reply = client.put("system/command/restart")
    assert (reply.status_code, reply.content) == (200, b"")
    assert client.state == "na"
    assert client.get("detector/config/nimages").status_code == 404
    client.command("initialize")
    assert client.arm() == 1


# -- a series -------------------------------------------------------------------------------------


def test_a_series_passes_every_state_in_order(client: Client, dcu: sim_dcu.Server) -> None:
    client.config(nimages=2, ntrigger=2)
    before = len(states(dcu))
    assert client.command("arm").text.startswith('{"sequence id": 1')
    assert client.state == "ready"
    assert client.value("filewriter/status/state") == "acquire"
    assert client.files() == ["series_1_master.h5"]
    assert client.command("trigger").json() == {"sequence id": -1}
    assert client.state == "ready"
    assert client.command("trigger").json() == {"sequence id": -1}
    assert client.state == "idle"
    assert client.command("disarm").json() == {"sequence id": 1}
    assert client.value("filewriter/status/state") == "ready"
    assert states(dcu)[before:] == ["configure", "ready", "acquire", "ready", "acquire", "idle"]
    assert client.command("trigger").status_code == 400


def test_files_hold_the_oracles_images(client: Client, dcu: sim_dcu.Server) -> None:
    client.put("filewriter/config/nimages_per_file", 2)
    client.config(nimages=5, count_time=0.005)
    for series in (1, 2):
        assert client.arm() == series
        client.command("trigger")
        client.command("disarm")
        images = images_in(dcu.dcu.store.folder, series)
        expected = [dcu.image(series, number) for number in range(1, 6)]
        np.testing.assert_array_equal(images, expected)
        assert images.dtype == np.uint16


def test_data_file_appears_when_full(client: Client) -> None:
    client.put("filewriter/config/nimages_per_file", 2)
    client.config(nimages=1, ntrigger=3)
    client.arm()
    client.command("trigger")
    assert client.files() == ["series_1_master.h5"]
    client.command("trigger")
    until(lambda: client.files() == ["series_1_data_000001.h5", "series_1_master.h5"])
    client.command("disarm")
    assert client.files() == ["series_1_data_000001.h5", "series_1_master.h5"]


def test_disabled_filewriter_writes_nothing(client: Client) -> None:
    client.put("filewriter/config/mode", "disabled")
    client.arm()
    assert client.value("filewriter/status/state") == "disabled"
    client.command("trigger")
    client.command("disarm")
    assert client.files() == []


def test_mode_put_while_armed_holds_from_the_next_series(client: Client) -> None:
    client.arm()
    client.put("filewriter/config/mode", "disabled")
    assert client.value("filewriter/status/state") == "acquire"
    client.command("trigger")
    client.command("disarm")
    assert len(client.files()) == 2
    assert client.value("filewriter/status/state") == "disabled"


def test_oracle_is_that_of_the_newest_series_of_an_id(client: Client, dcu: sim_dcu.Server) -> None:
    client.config(count_time=0.005)
    client.arm()
    assert dcu.image(1, 1).dtype == np.uint16
    client.command("initialize")
    client.arm()
    assert dcu.image(1, 1).dtype == np.uint32


def test_refused_in_idle_and_ready(client: Client) -> None:
    assert client.command("trigger").status_code == 400
    client.arm()
    for reply in (
        client.command("arm"),
        client.put("detector/config/count_time", 0.5),
        client.put("detector/config/nimages", 2),
    ):
        assert reply.status_code == 400
        assert 0 < len(reply.content) < 128
    assert client.state == "ready"
    assert client.value("detector/config/nimages") == 1


def test_disarm_in_idle_answers_the_last_id(client: Client) -> None:
    assert client.command("disarm").json() == {"sequence id": 0}
    client.arm()
    for _ in range(3):
        assert client.command("disarm").json() == {"sequence id": 1}
    assert client.command("abort").json() == {"sequence id": 1}
    assert client.command("cancel").json() == {"sequence id": 1}


@pytest.mark.parametrize("body", [b"", b"{}", b'{"value": 1}', b'{"value": "arm"}', b"what"])
def test_commands_take_any_body(client: Client, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    path = client.path("detector/command/")
    for command in ("arm", "trigger", "disarm"):
        reply = client.session.put(path + command, data=body, headers=headers, timeout=10)
        assert reply.status_code == 200
        assert next(iter(reply.json())) == "sequence id"


def test_series_of_too_many_images_is_refused_at_arm(client: Client) -> None:
    client.config(nimages=2_000_000_000, ntrigger=2)
    reply = client.command("arm")
    assert reply.status_code == 400
    assert "2000000000" in reply.text
    assert client.state == "idle"


def test_arm_stamps_the_date(client: Client) -> None:
    client.config(data_collection_date="mine")
    client.arm()
    date = client.value("detector/config/data_collection_date")
    assert time.strptime(date.partition(".")[0], "%Y-%m-%dT%H:%M:%S")
    assert len(date) == len("2016-12-16T07:06:17.852051")


# -- time -----------------------------------------------------------------------------------------


def test_a_trigger_keeps_time(timed_client: Client) -> None:
    client = timed_client
    client.config(count_time=0.9, frame_time=1.0, nimages=10, ntrigger=2)
    client.arm()
    start = time.monotonic()
    client.command("trigger")
    duration = time.monotonic() - start
    expected = (9 * 1.0 + 0.9) * TIMED
    assert expected <= duration < expected + 0.4
    assert client.state == "ready"
    client.command("abort")


def test_slow_files_do_not_delay_exposures(
    timed_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = timed_client
    may_write = threading.Event()
    add = SeriesWriter.add

    def slow_add(writer: SeriesWriter, number: int, chunk: bytes) -> None:
        may_write.wait(30)
        add(writer, number, chunk)

    monkeypatch.setattr(SeriesWriter, "add", slow_add)
    client.config(nimages=5)
    client.arm()
    assert client.command("trigger").status_code == 200
    assert client.state == "idle"
    assert client.value("filewriter/status/state") == "acquire"
    may_write.set()
    client.command("disarm")
    assert client.value("filewriter/status/state") == "ready"
    assert len(client.files()) == 2


def test_waits_are_those_of_the_time_scale(
    timed_client: Client, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    wait = Clock.wait

    def noted(clock: Clock, seconds: float, interrupt: threading.Event) -> bool:
        asked.append((clock.scale, seconds))
        return wait(clock, seconds, interrupt)

    monkeypatch.setattr(Clock, "wait", noted)

    def waits(which: Client, rest: str, value: object = None) -> tuple[float, float]:
        """Return the scale and the detector's s of the one wait of a put, which takes as long."""
        asked.clear()
        start = time.monotonic()
        assert which.put(rest, value).status_code == 200
        taken = time.monotonic() - start
        ((scale, seconds),) = asked
        assert taken >= scale * seconds
        return scale, seconds

    # Estimates of the models: 0.3 s a put, 3 s where a flatfield is computed.
    assert waits(timed_client, "detector/config/nimages", 2) == (TIMED, 0.3)
    assert waits(timed_client, "detector/config/photon_energy", 9000.0) == (TIMED, 3)
    assert waits(client, "detector/config/photon_energy", 9000.0) == (0, 3)
    _, first = waits(timed_client, "detector/command/arm")
    assert first >= 2
    timed_client.command("disarm")
    assert waits(timed_client, "detector/command/arm") == (TIMED, 0.7)


def test_slow_put_shows_state_configure(timed_client: Client, timed: sim_dcu.Server) -> None:
    timed_client.config(photon_energy=9000.0)
    assert states(timed)[-2:] == ["configure", "idle"]


# -- endings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["disarm", "cancel", "abort"])
def test_a_blocked_trigger_is_ended_from_another_connection(
    timed: sim_dcu.Server, timed_client: Client, pool: ThreadPoolExecutor, command: str
) -> None:
    client = timed_client
    client.config(nimages=100_000)
    client.arm()
    trigger = blocked_trigger(client, pool)
    assert client.command("trigger").status_code == 400
    assert client.put("detector/config/nimages", 2).status_code == 400
    assert client.value("detector/config/nimages") == 100_000
    until(lambda: timed.dcu.detector.series.acquisition.delivered >= 2)
    assert client.command(command).json() == {"sequence id": 1}
    reply = trigger.result(timeout=5)
    assert (reply.status_code, reply.json()) == (200, {"sequence id": -1})
    assert client.state == "idle"
    assert client.value("filewriter/status/state") == "ready"
    images = images_in(timed.dcu.store.folder, 1)
    assert 2 <= len(images) < 1000
    np.testing.assert_array_equal(images[-1], timed.image(1, len(images)))


@pytest.mark.parametrize(("command", "kept"), [("disarm", 0), ("cancel", 1), ("abort", 0)])
def test_cancel_alone_finishes_the_running_image(
    timed: sim_dcu.Server,
    timed_client: Client,
    pool: ThreadPoolExecutor,
    command: str,
    kept: int,
) -> None:
    client = timed_client
    client.config(count_time=20.0, nimages=5)
    client.arm()
    trigger = blocked_trigger(client, pool)
    start = time.monotonic()
    client.command(command)
    duration = time.monotonic() - start
    assert trigger.result(timeout=5).status_code == 200
    assert (duration < 0.5) is (kept == 0)
    assert len(list(timed.dcu.store.folder.glob("*_data_*.h5"))) == kept
    if kept:
        assert len(images_in(timed.dcu.store.folder, 1)) == 1


def test_abort_overrules_a_cancel_that_waits(
    timed_client: Client, pool: ThreadPoolExecutor
) -> None:
    client = timed_client
    client.config(count_time=1800.0)
    client.arm()
    trigger = blocked_trigger(client, pool)
    cancel = pool.submit(requests.put, client.path("detector/command/cancel"), timeout=60)
    start = time.monotonic()
    assert client.command("abort").json() == {"sequence id": 1}
    assert cancel.result(timeout=5).json() == {"sequence id": 1}
    assert trigger.result(timeout=5).status_code == 200
    assert time.monotonic() - start < 2
    assert client.state == "idle"


def test_abort_cuts_arming_short(timed_client: Client, pool: ThreadPoolExecutor) -> None:
    client = timed_client
    arm = pool.submit(requests.put, client.path("detector/command/arm"), timeout=60)
    until(lambda: client.state == "configure")
    assert client.command("abort").status_code == 200
    assert client.state == "idle"
    assert arm.result(timeout=5).status_code in (200, 400)


@pytest.mark.long
def test_a_series_that_takes_long_to_write_keeps_nobody_waiting(
    client: Client, dcu: sim_dcu.Server, tmp_path: Path
) -> None:
    """Users' clients give a disarm seconds; the files of so many images take minutes."""
    client.put("filewriter/config/nimages_per_file", 50)
    client.config(nimages=1_000_000)
    assert client.arm() == 1
    assert client.command("trigger").status_code == 200
    disarmed = client.command("disarm")
    assert disarmed.status_code == 200
    assert disarmed.elapsed.total_seconds() < 5
    assert client.state == "idle"
    assert client.value("filewriter/status/state") == "acquire"
    again = client.command("arm")
    assert again.status_code == 400
    assert "still being written" in again.text
    assert again.elapsed.total_seconds() < 5
    assert client.state == "idle"
    aborted = client.command("abort")
    assert aborted.json() == {"sequence id": 1}
    assert client.value("filewriter/status/state") == "ready"
    client.config(nimages=3)
    assert client.arm() == 2
    assert client.command("trigger").status_code == 200
    assert client.command("disarm").json() == {"sequence id": 2}
    images = images_in(tmp_path / "data", 2)
    assert len(images) == 3
    for number, image in enumerate(images, 1):
        np.testing.assert_array_equal(image, dcu.image(2, number))


def test_initialize_ends_a_running_series(timed_client: Client, pool: ThreadPoolExecutor) -> None:
    client = timed_client
    client.config(count_time=1800.0)
    client.arm()
    trigger = blocked_trigger(client, pool)
    assert client.command("initialize").status_code == 200
    assert trigger.result(timeout=5).status_code == 200
    assert client.state == "idle"


def test_wait_replies_when_the_series_is_over(
    timed_client: Client, pool: ThreadPoolExecutor
) -> None:
    client = timed_client
    assert client.command("wait").status_code == 200
    client.config(nimages=4)
    client.arm()
    trigger = blocked_trigger(client, pool)
    assert client.command("wait").content == b""
    assert client.state == "idle"
    assert trigger.result(timeout=5).status_code == 200


# -- other trigger modes --------------------------------------------------------------------------


def test_inte_replies_early_and_exposes_the_time_given(timed_client: Client) -> None:
    client = timed_client
    client.config(trigger_mode="inte", nimages=7, ntrigger=2)
    client.arm()
    assert client.command("trigger", 1e9).status_code == 400
    start = time.monotonic()
    assert client.command("trigger", 8.0).json() == {"sequence id": -1}
    assert client.state == "acquire"
    until(lambda: client.state == "ready")
    assert time.monotonic() - start >= 8.0 * TIMED
    assert client.command("trigger").json() == {"sequence id": -1}
    until(lambda: client.state == "idle")
    client.command("disarm")
    assert len(client.files()) == 2


@pytest.mark.parametrize("value", ["trigger", True, -1])
def test_inte_takes_the_bodies_that_clients_send_with_any_command(
    client: Client, value: object
) -> None:
    """Those of tango and epics clients of EIGER1; none is an exposure."""
    client.config(trigger_mode="inte", ntrigger=1)
    client.arm()
    assert client.command("trigger", value).json() == {"sequence id": -1}
    assert client.command("disarm").status_code == 200
    assert client.value("detector/config/count_time") == pytest.approx(1.0, rel=1e-4)


def test_exts_waits_for_pulses(client: Client, dcu: sim_dcu.Server) -> None:
    assert not dcu.pulse()
    client.config(trigger_mode="exts", nimages=3, ntrigger=2)
    client.arm()
    assert client.command("trigger").status_code == 400
    assert not dcu.gate(1.0)
    assert dcu.pulse()
    until(lambda: client.state == "ready")
    assert dcu.pulse()
    until(lambda: client.state == "idle")
    client.command("disarm")
    assert len(images_in(dcu.dcu.store.folder, 1)) == 6
    assert not dcu.pulse()


def test_exte_exposes_while_the_gate_is_open(timed_client: Client, timed: sim_dcu.Server) -> None:
    client = timed_client
    client.config(trigger_mode="exte", nimages=3)
    client.arm()
    assert not timed.pulse()
    start = time.monotonic()
    assert timed.gate(6.0)
    assert not timed.gate(6.0)
    assert client.state == "acquire"
    until(lambda: client.state == "idle")
    assert time.monotonic() - start >= 6.0 * TIMED
    client.command("disarm")
    assert len(images_in(timed.dcu.store.folder, 1)) == 1


def test_a_gate_shorter_than_any_exposure_is_not_counted(client: Client) -> None:
    client.config(trigger_mode="exte", ntrigger=2)
    client.arm()

    def gate(seconds: float) -> dict[str, object]:
        path = f"{client.url}/sim/trigger"
        return client.session.put(path, json={"value": seconds}, timeout=5).json()

    # The shortest count time of a real 500K is 2.9999 us.
    for short in (0, 2.9e-06):
        refused = gate(short)
        assert refused["value"] is False
        assert "the shortest gate is 2.9999e-06 s" in str(refused["reason"])
    assert gate(3e-06)["value"] is True
    until(lambda: client.state == "ready")
    assert gate(0.1)["value"] is True
    until(lambda: client.state == "idle")


# -- failures and company -------------------------------------------------------------------------


def test_a_full_disk_ends_the_series_in_state_error(
    timed_client: Client, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = timed_client
    add = SeriesWriter.add

    def full(writer: SeriesWriter, number: int, chunk: bytes) -> None:
        if number == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        add(writer, number, chunk)

    monkeypatch.setattr(SeriesWriter, "add", full)
    client.config(nimages=100_000)
    client.arm()
    trigger = pool.submit(requests.put, client.path("detector/command/trigger"), timeout=60)
    until(lambda: client.state == "error")
    assert trigger.result(timeout=5).status_code == 400
    assert "No space left" in trigger.result().text
    assert "No space left" in client.value("detector/status/error")[0]
    assert client.value("filewriter/status/state") == "error"
    assert "No space left" in client.value("filewriter/status/error")[0]
    assert client.command("arm").status_code == 400
    assert client.put("detector/config/nimages", 1).status_code == 400
    monkeypatch.undo()
    assert client.command("initialize").status_code == 200
    assert client.value("detector/status/error") == []
    assert client.value("filewriter/status/state") == "ready"
    client.arm()
    assert client.command("trigger").status_code == 200
    assert client.command("disarm").status_code == 200


def test_a_master_that_cannot_be_written_fails_the_arm(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(writer: SeriesWriter) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SeriesWriter, "write_master", full)
    reply = client.command("arm")
    assert reply.status_code == 400
    assert "No space left" in reply.text
    assert client.state == "error"
    assert "No space left" in client.value("detector/status/error")[0]
    monkeypatch.undo()
    client.command("initialize")
    assert client.arm() == 1


def test_85_questions_at_once_while_a_series_runs(
    timed_client: Client, pool: ThreadPoolExecutor
) -> None:
    client = timed_client
    client.config(count_time=0.0019, frame_time=0.002, nimages=1_000_000)
    keys = [
        key
        for key in client.get("detector/config/keys").json()
        if key not in ("flatfield", "pixel_mask")
    ]
    paths = [client.path(f"detector/config/{key}") for key in keys] * 2
    client.arm()
    trigger = blocked_trigger(client, pool)

    def answered(path: str) -> tuple[int, float]:
        start = time.monotonic()
        reply = requests.get(path, timeout=3)
        return reply.status_code, time.monotonic() - start

    with ThreadPoolExecutor(85) as crowd:
        replies = list(crowd.map(answered, paths[:85]))
    assert len(replies) == 85
    assert {status for status, _ in replies} == {200}
    assert max(duration for _, duration in replies) < 3
    client.command("abort")
    assert trigger.result(timeout=10).status_code == 200


def test_two_clients_at_once_corrupt_nothing(dcu: sim_dcu.Server, pool: ThreadPoolExecutor) -> None:
    """Both change times and arm; every reply is a full success or a refusal, and times agree."""

    def meddle(count_time: float) -> list[int]:
        client = Client(dcu.url)
        codes, armed = [], []
        with client.session:
            for _ in range(15):
                codes.append(client.put("detector/config/count_time", count_time).status_code)
                codes.append(client.put("detector/config/photon_energy", 9000.0).status_code)
                reply = client.command("arm")
                codes.append(reply.status_code)
                if reply.status_code == 200:
                    armed.append(reply.json()["sequence id"])
                codes.append(client.command("trigger").status_code)
                codes.append(client.command("disarm").status_code)
        assert set(codes) <= {200, 400}
        return armed

    both = [pool.submit(meddle, count_time) for count_time in (0.5, 2.0)]
    ids = [series for one in both for series in one.result(timeout=60)]
    assert sorted(ids) == list(range(1, len(ids) + 1))
    assert len(ids) >= 15
    client = Client(dcu.url)
    with client.session:
        assert client.state == "idle"
        values = client.get("detector/config").json()
        names = set(client.files())
    times = {key: values[key]["value"] for key in ("count_time", "frame_time")}
    assert times["count_time"] < times["frame_time"]
    assert {f"series_{series}_master.h5" for series in ids} <= names


def test_clock_waits_scaled_and_is_interrupted() -> None:
    never, now = threading.Event(), threading.Event()
    now.set()
    start = time.monotonic()
    assert Clock(0).wait(1e9, never)
    assert not Clock(1).wait(1e9, now)
    assert time.monotonic() - start < 1
    assert Clock(0.01).wait(5, never)
    assert time.monotonic() - start >= 0.05
