"""The monitor of both generations, by plain HTTP; pixels against the oracle.

Expected behaviour: API reference 1.3, 3.2, and what references 1.6 and 1.8 say otherwise.
"""

import io
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
import tifffile
from plain_client import Client, until

import sim_dcu

GENERATIONS_BY_TURNS = True
SIZES = {"eiger-500k": (514, 1030), "eiger2-500k": (512, 1028)}
MODELS = sorted(SIZES)
VERSIONS = {"eiger-500k": "1.6.0", "eiger2-500k": "1.8.0"}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def server(model: str, tmp_path: Path) -> Iterator[sim_dcu.Server]:
    with sim_dcu.serve(model, seed=5, initialized=True, data_dir=tmp_path / "data") as running:
        yield running


@pytest.fixture
def watcher(server: sim_dcu.Server, model: str) -> Iterator[Client]:
    client = Client(server.url, VERSIONS[model])
    with client.session:
        client.put("filewriter/config/mode", "disabled")
        assert client.put("monitor/config/mode", "enabled").status_code == 200
        yield client


def take(client: Client, nimages: int, **config: object) -> int:
    """Take a series, and return its id once every image is in the monitor."""
    client.config(nimages=nimages, **config)
    series = client.arm()
    assert client.command("trigger").status_code == 200
    assert client.command("disarm").status_code == 200
    return series


def image(client: Client, rest: str, timeout: float = 0) -> requests.Response:
    return client.session.get(
        client.path(f"monitor/images/{rest}"), params={"timeout": timeout}, timeout=20
    )


def pixels(reply: requests.Response) -> np.ndarray:
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "application/tiff"
    return tifffile.imread(io.BytesIO(reply.content))


def numbers(client: Client) -> list[int]:
    return [number for _, found in client.get("monitor/images").json() for number in found]


def expected(server: sim_dcu.Server, model: str, series: int, number: int) -> np.ndarray:
    """Return what the oracle says; EIGER1's monitor has 32 bits, all ones staying all ones."""
    truth = server.image(series, number)
    if model == "eiger-500k" and truth.dtype.itemsize < 4:
        wide = truth.astype("<u4")
        wide[truth == np.iinfo(truth.dtype).max] = 2**32 - 1
        return wide
    return truth


# -- config and status ----------------------------------------------------------------------------


def test_defaults_and_spelling(server: sim_dcu.Server, model: str) -> None:
    client = Client(server.url, VERSIONS[model])
    with client.session:
        mode = client.get("monitor/config/mode").json()
        assert mode["value"] == "disabled"
        assert mode["allowed_values"] == ["enabled", "disabled"]
        assert client.value("monitor/config/buffer_size") == 100
        assert client.get("monitor/config/buffer_size").json()["max"] <= 2**31 - 1
        config = ["buffer_size", "mode"]
        status = ["buffer_fill_level", "dropped", "error", "state"]
        if model == "eiger-500k":
            status += ["monitor_image_number", "next_image_number"]
        else:
            config += ["discard_new"]
            status += ["buffer_free"]
            assert client.value("monitor/config/discard_new") is False
        assert client.get("monitor/config/keys").json() == sorted(config)
        assert client.get("monitor/status/keys").json() == sorted(status)
        assert client.get("monitor/command/keys").json() == ["clear", "initialize"]
        assert client.value("monitor/status/state") == "normal"
        assert client.value("monitor/status/error") == []
        assert client.value("monitor/status/buffer_fill_level") == [0, 100]
        for key in ("next_image_number", "monitor_image_number"):
            assert client.value(f"monitor/status/{key}") == []


def test_mode_takes_a_bool_too_and_a_put_answers_nothing(watcher: Client) -> None:
    for put, read in ((False, "disabled"), (True, "enabled"), ("disabled", "disabled")):
        reply = watcher.put("monitor/config/mode", put)
        assert (reply.status_code, reply.content) == (200, b"")
        assert reply.headers["content-type"].startswith("text/plain")
        assert watcher.value("monitor/config/mode") == read
    for wrong in ("on", 1, None):
        body = {"value": wrong}
        reply = watcher.session.put(watcher.path("monitor/config/mode"), json=body, timeout=5)
        assert reply.status_code == 400


def test_a_whole_config_is_put_as_its_parts_are(watcher: Client) -> None:
    take(watcher, 5)
    path = watcher.path("monitor/config")
    reply = watcher.session.put(path, json={"buffer_size": 2, "mode": {"value": False}}, timeout=5)
    assert (reply.status_code, reply.content) == (200, b"")
    assert watcher.value("monitor/config/mode") == "disabled"
    # A buffer that was made smaller holds no more than that.
    assert watcher.value("monitor/status/buffer_fill_level") == [2, 2]
    assert len(numbers(watcher)) == 2
    reply = watcher.session.put(path, json={"mode": True, "buffer_size": 0}, timeout=5)
    assert reply.status_code == 400
    assert watcher.value("monitor/config/mode") == "disabled"


@pytest.mark.parametrize("size", [0, -1, 2**31, 1.5, "many", True])
def test_a_buffer_size_that_is_none_is_refused(watcher: Client, size: object) -> None:
    assert watcher.put("monitor/config/buffer_size", size).status_code == 400
    assert watcher.value("monitor/config/buffer_size") == 100


# -- images ---------------------------------------------------------------------------------------


def test_without_mode_enabled_there_is_no_image(watcher: Client) -> None:
    watcher.put("monitor/config/mode", "disabled")
    take(watcher, 2)
    assert watcher.get("monitor/images").json() == []
    assert image(watcher, "monitor").status_code == 408
    assert image(watcher, "next").status_code == 408


def test_a_mode_put_while_armed_counts_from_the_next_series(watcher: Client) -> None:
    watcher.arm()
    watcher.put("monitor/config/mode", "disabled")
    watcher.command("trigger")
    watcher.command("disarm")
    assert watcher.get("monitor/images").json() == [[1, [1]]]
    watcher.arm()
    watcher.put("monitor/config/mode", "enabled")
    watcher.command("trigger")
    watcher.command("disarm")
    assert watcher.get("monitor/images").json() == [[1, [1]]]


@pytest.mark.parametrize("count_time", [0.5, 0.001])
def test_next_gives_every_image_in_order_and_takes_it_out(
    server: sim_dcu.Server, watcher: Client, model: str, count_time: float
) -> None:
    series = take(watcher, 3, count_time=count_time)
    bits = watcher.value("detector/config/bit_depth_image")
    assert watcher.get("monitor/images/").json() == [[series, [1, 2, 3]]]
    for number in (1, 2, 3):
        array = pixels(image(watcher, "next"))
        assert array.shape == SIZES[model]
        assert array.dtype == ("uint32" if model == "eiger-500k" else f"uint{bits}")
        np.testing.assert_array_equal(array, expected(server, model, series, number))
        assert watcher.value("monitor/status/next_image_number") == [series, number]
    assert watcher.get("monitor/images").json() == []
    assert image(watcher, "next").status_code == 408


def test_monitor_gives_the_newest(server: sim_dcu.Server, watcher: Client, model: str) -> None:
    series = take(watcher, 3)
    array = pixels(image(watcher, "monitor"))
    np.testing.assert_array_equal(array, expected(server, model, series, 3))
    assert watcher.value("monitor/status/monitor_image_number") == [series, 3]
    # API reference 1.3: out of the buffer; 1.8: it stays.
    if model == "eiger-500k":
        assert numbers(watcher) == [1, 2]
        pixels(image(watcher, "monitor"))
        assert numbers(watcher) == [1]
        pixels(image(watcher, "monitor"))
        assert image(watcher, "monitor").status_code == 408
    else:
        assert numbers(watcher) == [1, 2, 3]
        np.testing.assert_array_equal(pixels(image(watcher, "monitor")), array)


@pytest.mark.parametrize("model", ["eiger2-500k"])
def test_eiger2_serves_the_newest_though_the_buffer_lost_it(
    server: sim_dcu.Server, watcher: Client, model: str
) -> None:
    series = take(watcher, 2)
    for _ in range(2):
        pixels(image(watcher, "next"))
    np.testing.assert_array_equal(
        pixels(image(watcher, "monitor")), expected(server, model, series, 2)
    )
    watcher.put("monitor/command/clear")
    assert image(watcher, "monitor").status_code == 408


def test_one_image_by_its_name_stays(server: sim_dcu.Server, watcher: Client, model: str) -> None:
    series = take(watcher, 3)
    for _ in range(2):
        np.testing.assert_array_equal(
            pixels(image(watcher, f"{series}/2")), expected(server, model, series, 2)
        )
    assert numbers(watcher) == [1, 2, 3]
    for missing in (f"{series}/4", f"{series}/0", f"{series + 1}/1", "x/1", "1/x", "-1/1"):
        assert image(watcher, missing).status_code == 404
    assert image(watcher, f"{series}/{'9' * 5000}").status_code == 404
    with_threshold = image(watcher, f"{series}/2/1")
    assert with_threshold.status_code == (404 if model == "eiger-500k" else 200)
    assert image(watcher, f"{series}/2/9").status_code == 404


def test_images_are_deleted_one_and_all(watcher: Client) -> None:
    series = take(watcher, 3)
    url = watcher.path("monitor/images")
    deleted = watcher.session.delete(f"{url}/{series}/2", timeout=5)
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert numbers(watcher) == [1, 3]
    assert watcher.session.delete(f"{url}/{series}/2", timeout=5).status_code == 404
    assert watcher.session.delete(url, timeout=5).status_code == 204
    assert numbers(watcher) == []
    assert image(watcher, "monitor").status_code == 408


def test_the_newest_of_those_left_is_served_once_the_newest_is_deleted(watcher: Client) -> None:
    series = take(watcher, 3)
    left = image(watcher, f"{series}/2").content
    url = watcher.path(f"monitor/images/{series}/3")
    assert watcher.session.delete(url, timeout=5).status_code == 204
    newest = image(watcher, "monitor")
    assert (newest.status_code, newest.content == left) == (200, True)


def test_head_has_the_length_and_takes_nothing(watcher: Client) -> None:
    series = take(watcher, 1)
    lengths = set()
    for rest in ("next", "monitor", f"{series}/1"):
        reply = watcher.session.head(watcher.path(f"monitor/images/{rest}"), timeout=5)
        assert reply.status_code == 200
        lengths.add(reply.headers["content-length"])
    assert lengths == {str(len(image(watcher, "next").content))}


def test_series_follow_each_other_in_the_list(watcher: Client) -> None:
    first, second = take(watcher, 1), take(watcher, 2)
    assert watcher.get("monitor/images").json() == [[first, [1]], [second, [1, 2]]]


# -- the buffer -----------------------------------------------------------------------------------


def test_a_full_buffer_follows_the_generations_policy(watcher: Client, model: str) -> None:
    watcher.put("monitor/config/buffer_size", 2)
    take(watcher, 5)
    # EIGER1 keeps the old and drops the new; EIGER2 drops the oldest unless told otherwise.
    assert numbers(watcher) == ([1, 2] if model == "eiger-500k" else [4, 5])
    assert watcher.value("monitor/status/dropped") == 3
    assert watcher.value("monitor/status/state") == "overflow"
    assert watcher.value("monitor/status/buffer_fill_level") == [2, 2]


def test_discard_new_is_eiger1s_policy(watcher: Client, model: str) -> None:
    if model == "eiger-500k":
        assert watcher.get("monitor/config/discard_new").status_code == 404
        return
    watcher.put("monitor/config/discard_new", value=True)
    watcher.put("monitor/config/buffer_size", 2)
    free = watcher.value("monitor/status/buffer_free")
    take(watcher, 5, count_time=0.5)
    assert numbers(watcher) == [1, 2]
    assert watcher.value("monitor/status/buffer_free") == free - 2 * 512 * 1028 * 4


def test_clear_forgets_images_and_the_overflow(watcher: Client) -> None:
    watcher.put("monitor/config/buffer_size", 1)
    take(watcher, 3)
    reply = watcher.put("monitor/command/clear")
    assert (reply.status_code, reply.content) == (200, b"")
    assert numbers(watcher) == []
    assert watcher.value("monitor/status/dropped") == 0
    assert watcher.value("monitor/status/state") == "normal"
    assert watcher.value("monitor/config/buffer_size") == 1


def test_initialize_brings_the_defaults_back(watcher: Client) -> None:
    watcher.put("monitor/config/buffer_size", 1)
    take(watcher, 3)
    assert watcher.put("monitor/command/initialize").status_code == 200
    assert watcher.value("monitor/config/mode") == "disabled"
    assert watcher.value("monitor/config/buffer_size") == 100
    assert watcher.value("monitor/status/dropped") == 0
    assert numbers(watcher) == []


def test_detector_initialize_leaves_the_monitor_alone(watcher: Client) -> None:
    take(watcher, 1)
    watcher.command("initialize")
    assert watcher.value("monitor/config/mode") == "enabled"
    assert numbers(watcher) == [1]


def test_files_and_monitor_show_the_same_series(watcher: Client, server: sim_dcu.Server) -> None:
    watcher.put("filewriter/config/mode", "enabled")
    series = take(watcher, 2)
    names = server.dcu.store.names()
    assert f"series_{series}_data_000001.h5" in names
    assert numbers(watcher) == [1, 2]


# -- waiting --------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["next", "monitor"])
def test_the_default_time_out_is_half_a_second(watcher: Client, which: str) -> None:
    begin = time.monotonic()
    reply = watcher.get(f"monitor/images/{which}")
    seconds = time.monotonic() - begin
    assert reply.status_code == 408
    assert 0.5 <= seconds < 1.5


@pytest.mark.parametrize("timeout", ["x", "-1", "nan", "1e3", "", "9" * 50])
def test_a_time_out_that_is_none_is_400(watcher: Client, timeout: str) -> None:
    reply = watcher.session.get(
        watcher.path("monitor/images/next"), params=f"timeout={timeout}", timeout=5
    )
    assert reply.status_code == 400


@pytest.mark.parametrize("which", ["next", "monitor"])
def test_an_image_that_comes_is_not_waited_out(
    server: sim_dcu.Server, watcher: Client, model: str, which: str
) -> None:
    replies: list[requests.Response] = []

    def wait() -> None:
        other = Client(server.url, VERSIONS[model])
        with other.session:
            replies.append(image(other, which, timeout=20_000))

    waiting = [threading.Thread(target=wait) for _ in range(2)]
    series = watcher.arm()
    for thread in waiting:
        thread.start()
    until(lambda: len(server.dcu.monitor._watchers) == 2)
    watcher.command("trigger")
    until(lambda: replies)
    if which == "next" or model == "eiger-500k":
        # One image serves one of them; the other's comes with the next series.
        assert len(replies) == 1
        take(watcher, 1)
    for thread in waiting:
        thread.join(10)
    assert [reply.status_code for reply in replies] == [200, 200]
    np.testing.assert_array_equal(pixels(replies[0]), expected(server, model, series, 1))
    assert server.dcu.monitor._watchers == set()


def test_sixty_waiting_clients_hold_up_nobody(
    server: sim_dcu.Server, watcher: Client, model: str
) -> None:
    # More than the pool has threads.
    statuses: list[int] = []

    def wait() -> None:
        url = f"{server.url}/monitor/api/{VERSIONS[model]}/images/next"
        statuses.append(requests.get(url, params={"timeout": 30000}, timeout=40).status_code)

    waiting = [threading.Thread(target=wait) for _ in range(60)]
    for thread in waiting:
        thread.start()
    until(lambda: len(server.dcu.monitor._watchers) == 60)
    begin = time.monotonic()
    for _ in range(20):
        assert watcher.state == "idle"
    assert time.monotonic() - begin < 1
    # One image each, so that nobody's time-out is part of the test.
    take(watcher, 60)
    for thread in waiting:
        thread.join(40)
    assert statuses == [200] * 60


# -- TIFF -----------------------------------------------------------------------------------------


def test_the_tiff_has_the_detectors_layout(watcher: Client, model: str) -> None:
    take(watcher, 1)
    body = image(watcher, "next").content
    # As areaDetector's driver reads it: the value field inline, one directory, one strip.
    assert body[:4] == b"\x49\x49\x2a\x00"
    (directory,) = struct.unpack_from("<I", body, 4)
    (count,) = struct.unpack_from("<H", body, directory)
    fields = {}
    for entry in range(count):
        tag, kind, number, value = struct.unpack_from("<HHII", body, directory + 2 + 12 * entry)
        fields[tag] = value
        assert tag == 51192 or (number == 1 and kind in (3, 4))
    height, width = SIZES[model]
    assert (fields[256], fields[257], fields[278]) == (width, height, height)
    assert fields[279] == height * width * fields[258] // 8
    assert fields[273] + fields[279] <= len(body)
    assert (51192 in fields) is (model == "eiger2-500k")
