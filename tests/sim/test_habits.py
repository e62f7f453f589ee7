"""What clients of real detectors rely on, one by one, and what no client may do to a DCU."""

import base64
import io
import json
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import h5py
import numpy as np
import pytest
import requests
from plain_client import TIMED, Client, until

import sim_dcu
from sim_dcu import codec, remembered
from sim_dcu.clock import Clock
from sim_dcu.dcu import Dcu
from sim_dcu.filestore import FileStore

# Of each test's cases the short run takes every 2nd, see conftest.
SHORT_RUN_EVERY = 2

# No request may take longer, in s.
LONGEST = 5


@pytest.fixture
def eiger2(tmp_path: Path) -> Iterator[Client]:
    with sim_dcu.serve("eiger2-500k", initialized=True, data_dir=tmp_path / "two") as server:
        plain = Client(server.url, "1.8.0")
        with plain.session:
            yield plain


def darray(array: np.ndarray) -> dict[str, Any]:
    return {
        "__darray__": [1, 0, 0],
        "type": array.dtype.str,
        "shape": list(array.shape),
        "filters": ["base64"],
        "data": base64.b64encode(array.tobytes()).decode(),
    }


# -- spelling -------------------------------------------------------------------------------------


def test_an_integer_put_is_printed_as_a_float(eiger2: Client) -> None:
    """areaDetector and DECTRIS's client both send whole numbers so."""
    eiger2.config(photon_energy=12000, beam_center_x=5)
    assert '"value":12000.000000000,' in eiger2.get("detector/config/photon_energy").text
    assert '"value":5.000000000,' in eiger2.get("detector/config/beam_center_x").text


@pytest.mark.parametrize("path", ["/detector/api/1.8.0/config/bogus", "/bogus", "/a/b/c"])
def test_an_eiger2_repeats_a_path_it_does_not_know(eiger2: Client, path: str) -> None:
    reply = eiger2.session.get(eiger2.url + path, timeout=LONGEST)
    assert reply.status_code == 404
    assert reply.text == f"error during request: path error: unknown path: {path}"


def test_a_status_without_a_name_is_all_of_it(client: Client, eiger2: Client) -> None:
    """DECTRIS's client and LImA leave a slash at the end."""
    for plain in (client, eiger2):
        for subsystem in ("detector", "filewriter", "monitor", "stream"):
            content = plain.get(f"{subsystem}/status/").json()
            assert list(content) == plain.get(f"{subsystem}/status/keys").json()
            assert all("value" in entry for entry in content.values())


def test_numbers_as_text(client: Client, eiger2: Client) -> None:
    """LImA sent the geometry so; EIGER1 took it."""
    client.config(beam_center_x="1035.5")
    assert client.value("detector/config/beam_center_x") == 1035.5
    for text in ("abc", "", "nan", "1e999", "1_0"):
        assert client.put("detector/config/beam_center_x", text).status_code == 400
    assert client.put("detector/config/nimages", "2").status_code == 400
    assert eiger2.put("detector/config/beam_center_x", "1035.5").status_code == 400


def test_translation_is_that_of_real_headers(client: Client, eiger2: Client) -> None:
    for plain in (client, eiger2):
        plain.config(detector_distance=0.25, beam_center_x=100.0)
        found = plain.value("detector/config/detector_translation")
        assert found == pytest.approx([100 * 7.5e-05, 0, -0.25])


@pytest.mark.parametrize("version", ["1.0.0", "1.5.0", "1.6.0", "1.6.6"])
def test_room_is_in_kb_and_files_are_a_bare_list_before_1_8(eiger2: Client, version: str) -> None:
    older = Client(eiger2.url, version)
    with older.session:
        kilobytes = older.value("filewriter/status/buffer_free")
        # All of the status at once too.
        whole = older.get("filewriter/status").json()
        assert older.get("filewriter/files").json() == []
    assert eiger2.get("filewriter/files").json()["value"] == []
    assert eiger2.value("filewriter/status/buffer_free") // 1024 == kilobytes
    assert whole["buffer_free"]["value"] == kilobytes


def test_a_refused_method_names_those_allowed(client: Client) -> None:
    reply = client.session.post(client.path("detector/config/count_time"), timeout=LONGEST)
    assert reply.status_code == 405
    assert set(reply.headers["allow"].split(", ")) == {"GET", "HEAD", "PUT", "DELETE"}


@pytest.mark.parametrize("version", ["", "a/b", "1.x", "..", "1.8.0/"])
def test_an_api_version_is_a_number(version: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="API version"):
        Dcu("eiger-500k", tmp_path, Clock(0), api_version=version)


# -- behaviour ------------------------------------------------------------------------------------


def test_clear_disables_an_eiger1_alone(client: Client, eiger2: Client) -> None:
    for plain, mode in ((client, "disabled"), (eiger2, "enabled")):
        assert plain.put("filewriter/config/mode", "enabled").status_code == 200
        assert plain.put("filewriter/command/clear").status_code == 200
        assert plain.value("filewriter/config/mode") == mode


def test_the_start_delay_comes_before_the_images(tmp_path: Path) -> None:
    with sim_dcu.serve(
        "eiger2-500k", initialized=True, time_scale=TIMED, data_dir=tmp_path
    ) as server:
        plain = Client(server.url, "1.8.0")
        with plain.session:
            plain.config(nimages=2, frame_time=2.0, count_time=2.0, trigger_start_delay=10.0)
            plain.arm()
            assert plain.command("trigger").elapsed.total_seconds() >= 14 * TIMED
            assert plain.state == "idle"
            plain.config(trigger_start_delay=0.0)
            plain.arm()
            assert plain.command("trigger").elapsed.total_seconds() < 14 * TIMED


def test_without_a_threshold_nothing_is_armed(eiger2: Client) -> None:
    eiger2.config(**{"threshold/1/mode": "disabled"})
    assert eiger2.command("arm").status_code == 400
    assert eiger2.state == "idle"


def test_a_series_of_more_than_a_week_is_refused(eiger2: Client) -> None:
    """Release notes 2020.2.2."""
    week = 7 * 24 * 3600
    eiger2.config(frame_time=3600.0, nimages=week // 3600 + 1)
    assert "week" in eiger2.command("arm").text
    eiger2.config(nimages=week // 3600)
    assert eiger2.arm() == 1


def test_a_users_mask_outlives_initialize_on_eiger2(client: Client, eiger2: Client) -> None:
    for plain, shape, stays in ((client, (514, 1030), False), (eiger2, (512, 1028), True)):
        mask = np.full(shape, 2, "<u4")
        plain.config(pixel_mask=darray(mask))
        plain.command("initialize")
        data = plain.value("detector/config/pixel_mask")["data"]  # type: ignore[index]
        assert (base64.b64decode(data) == mask.tobytes()) is stays


def test_the_second_generations_500k_sums_from_6_6_ms(eiger2: Client) -> None:
    for count_time, bits in ((0.0065, 16), (0.0067, 32)):
        eiger2.config(frame_time=0.01, count_time=count_time)
        assert eiger2.value("detector/config/bit_depth_image") == bits


@pytest.mark.long
def test_hv_reset_takes_30_s_or_what_it_is_told(tmp_path: Path) -> None:
    with sim_dcu.serve(
        "eiger2-500k", initialized=True, time_scale=0.01, data_dir=tmp_path
    ) as server:
        plain = Client(server.url, "1.8.0")
        with plain.session:
            for value, seconds in ((None, 30), (600, 600), (1, 1)):
                took = plain.command("hv_reset", value).elapsed.total_seconds()
                assert 0.01 * seconds <= took < 0.01 * seconds + 2
            for value in (0.9, 601, "x"):
                assert plain.command("hv_reset", value).status_code == 400


def test_defaults_of_an_eiger2(eiger2: Client) -> None:
    assert eiger2.value("filewriter/config/format") == "hdf5 nexus legacy nxmx"
    assert eiger2.value("filewriter/config/mode") == "disabled"
    assert eiger2.value("detector/config/counting_mode") == "normal"


def test_during_initialize_the_state_alone_is_told(tmp_path: Path) -> None:
    with sim_dcu.serve("eiger-500k", time_scale=0.2, data_dir=tmp_path) as server:
        plain = Client(server.url)
        with plain.session, requests.Session() as other:
            started = other.put  # a connection of its own
            thread = threading.Thread(
                target=lambda: started(plain.path("detector/command/initialize"), timeout=30)
            )
            thread.start()
            until(lambda: plain.state == "initialize")
            paths = ("detector/version", "detector/keys", "system/log", "filewriter/files")
            codes = [
                plain.session.get(f"{server.url}/detector/api/version", timeout=LONGEST).status_code
            ]
            codes += [plain.get(path).status_code for path in paths[1:]]
            assert plain.state == "initialize"
            assert codes == [400, 400, 400, 400]
            thread.join()
            assert plain.state == "idle"


@pytest.mark.parametrize("dtype", ["|u1", "<i2", ">u2", "<i4", "<i8", "<u8", ">f4", "<f8"])
def test_arrays_of_any_type_that_fits(client: Client, dtype: str) -> None:
    """numpy's own types, which users' scripts send."""
    mask = np.zeros((514, 1030), dtype)
    mask[3, 5] = 8
    client.config(pixel_mask=darray(mask))
    form = client.value("detector/config/pixel_mask")
    assert form["type"] == "<u4"  # type: ignore[index]
    found = np.frombuffer(base64.b64decode(form["data"]), "<u4").reshape(514, 1030)  # type: ignore[index]
    np.testing.assert_array_equal(found, mask)


# -- what must do no harm -------------------------------------------------------------------------


def put_mask(client: Client, body: bytes, kind: str) -> requests.Response:
    """Put a mask; a request that takes too long fails here."""
    path = client.path("detector/config/pixel_mask")
    return client.session.put(path, body, headers={"Content-Type": kind}, timeout=LONGEST)


def tiff_of_greedy_fields(size: int) -> bytes:
    """A directory whose every field claims the whole file."""
    count = 20
    entries = b"".join(
        struct.pack("<HHII", 273 if index % 2 else 1000 + index, 4, size // 4, 0)
        for index in range(count)
    )
    body = struct.pack("<2sHIH", b"II", 42, 8, count) + entries + bytes(4)
    return body.ljust(size, b"\0")


def many_chunks() -> bytes:
    """A small file of a large array whose chunks were never written."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("pixel_mask", (12000, 13000), "u1", chunks=(1, 1))
    return buffer.getvalue()


JSON = "application/json"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"json_payload=" + b"%41" * 8_000_000, "application/x-www-form-urlencoded"),
        (b'{"value": [' + b"[]," * 20_000_000 + b"[]]}", JSON),
        (b'{"value": ' + b'[{"a":1},' * 5_000_000 + b"}", JSON),
        (tiff_of_greedy_fields(8 * 2**20), "application/tiff"),
        (many_chunks(), "application/hdf5"),
    ],
    ids=["form", "lists", "objects", "tiff", "hdf5"],
)
def test_bodies_that_would_take_long_are_refused_soon(
    client: Client, body: bytes, kind: str
) -> None:
    assert put_mask(client, body, kind).status_code == 400
    assert client.state == "idle"


@pytest.mark.parametrize("text", ["a\0b", "\udc80"])
def test_any_text_of_a_stream_travels_as_hdf5(client: Client, text: str) -> None:
    for key in ("header_appendix", "image_appendix"):
        assert client.put(f"stream/config/{key}", text).status_code == 200
        assert client.value(f"stream/config/{key}") == text
    path = client.path("stream/config")
    reply = client.session.get(path, headers={"Accept": "application/hdf5"}, timeout=LONGEST)
    assert reply.status_code == 200
    with h5py.File(io.BytesIO(reply.content)) as file:
        assert file["header_appendix"].asstr()[()]


@dataclass
class _Series:
    """As much of an armed series as is remembered by."""

    series_id: int
    detector: dict[str, Any] = field(repr=False)


def test_armed_series_are_remembered_as_far_as_memory_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remembered, "MOST_BYTES", 1000)
    monkeypatch.setattr(remembered, "MOST_SERIES", 50)
    kept = remembered.RememberedSeries()
    shared = np.zeros(100, "u1")

    def arm(number: int, own: int) -> None:
        arrays = {"flatfield": shared, "twin": shared, "pixel_mask": np.zeros(own, "u1")}
        kept.add(_Series(number, arrays))  # type: ignore[arg-type]

    def found() -> list[int]:
        return [number for number in range(100) if kept.get(number) is not None]

    for number in range(1, 6):
        arm(number, 300)
    # 100 bytes are shared; of 300 each three fit beside them.
    assert found() == [3, 4, 5]
    arm(5, 300)
    assert found() == [3, 4, 5]
    arm(6, 5000)
    assert found() == [6]
    for number in range(7, 90):
        arm(number, 0)
    assert len(found()) == 50


def test_what_a_killed_simulator_left_unfinished_is_removed(tmp_path: Path) -> None:
    leftover = tmp_path / ".unfinished-abc"
    leftover.mkdir()
    (leftover / "series_1_data_000001.h5").write_bytes(bytes(1000))
    (tmp_path / "mine.h5").write_bytes(b"x")
    FileStore(tmp_path).close()
    assert list(tmp_path.iterdir()) == [tmp_path / "mine.h5"]


def test_clear_deletes_what_a_series_left_and_nothing_else(client: Client, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "mine" / "empty").mkdir(parents=True)
    (folder / "mine" / "thesis.txt").write_text("years")
    assert client.put("filewriter/config/name_pattern", "sub/dir_$id").status_code == 200
    client.arm()
    client.command("disarm")
    assert "sub/dir_1_master.h5" in client.files()
    assert client.put("filewriter/command/clear").status_code == 200
    assert client.files() == ["mine/thesis.txt"]
    assert (folder / "mine" / "empty").is_dir()
    assert not (folder / "sub").exists()


def test_two_simulators_of_one_folder_are_told(
    dcu: sim_dcu.Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unfinished = tmp_path / "data" / ".unfinished-of-the-first"
    unfinished.mkdir()
    with sim_dcu.serve("eiger-500k", data_dir=tmp_path / "data"):
        assert "another simulated DCU uses" in caplog.text
    assert unfinished.exists()


def test_a_folder_that_takes_no_files_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    ended = subprocess.run(
        [sys.executable, "-m", "sim_dcu", "--port", "0", "--data-dir", str(tmp_path / "file")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "cannot use the data folder" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("flag", ["--port", "--seed", "--time-scale", "--data-quota"])
def test_a_flag_that_is_no_number_is_told(flag: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "sim_dcu", flag, "abc"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert f"argument {flag}: abc is not a" in ended.stderr


def test_an_unused_pulse_says_why(client: Client) -> None:
    client.config(trigger_mode="exts")
    reply = client.session.put(f"{client.url}/sim/trigger", timeout=LONGEST).json()
    assert reply["value"] is False
    assert reply["reason"] == "state is idle, trigger_mode is exts"
    client.arm()
    reply = client.session.put(f"{client.url}/sim/trigger", timeout=LONGEST).json()
    assert reply == {"value": True, "value_type": "bool"}


def test_images_are_coded_side_by_side() -> None:
    """The file writer makes a pool while a monitor's image is read."""
    image = np.arange(64 * 64, dtype="<u2").reshape(64, 64)

    def there_and_back() -> bool:
        chunk = codec.compressed(image, codec.BSLZ4)
        return bool(
            (codec.decompressed(chunk, image.shape, image.dtype, codec.BSLZ4) == image).all()
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(job.result() for job in [pool.submit(there_and_back) for _ in range(400)])


def test_a_trailer_without_end_is_refused(client: Client) -> None:
    address = urlsplit(client.url)
    head = f"PUT {urlsplit(client.path('detector/config/nimages')).path} HTTP/1.1\r\nHost: dcu\r\n"
    with socket.create_connection((address.hostname, address.port), timeout=LONGEST) as raw:
        raw.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n3\r\n{{}} \r\n0\r\nX: ".encode())
        sent = 0
        try:
            while sent < 10 * 2**20:
                raw.sendall(b"x" * 65536)
                sent += 65536
            reply = raw.recv(100)
        except ConnectionError:
            reply = b"HTTP/1.1 431"
    assert reply.startswith((b"HTTP/1.1 431", b"HTTP/1.1 400"))
    assert sent < 10 * 2**20


def test_a_client_that_has_said_all_is_answered(client: Client) -> None:
    """As `nc -N` does: its side of the connection is closed before the answer comes."""
    address = urlsplit(client.url)
    with socket.create_connection((address.hostname, address.port), timeout=LONGEST) as raw:
        raw.sendall(b"GET /detector/api/1.6.0/config/nimages HTTP/1.1\r\nHost: dcu\r\n\r\n")
        raw.shutdown(socket.SHUT_WR)
        reply = b""
        while piece := raw.recv(4096):
            reply += piece
    assert reply.startswith(b"HTTP/1.1 200")
    assert json.loads(reply.partition(b"\r\n\r\n")[2])["value"] == 1


def test_masks_are_worked_out_once_for_many_clients(tmp_path: Path) -> None:
    """The first answer of a 16M takes what 97 MB of base64 take, each other one only their copy."""
    with sim_dcu.serve("eiger2-4m", initialized=True, data_dir=tmp_path) as server:
        plain = Client(server.url, "1.8.0")
        with plain.session:
            first, second = (plain.get("detector/config/pixel_mask") for _ in range(2))
            assert first.content == second.content
            assert int(first.headers["content-length"]) == len(first.content)
            mask = np.zeros((2162, 2068), "<u4")
            plain.config(pixel_mask=darray(mask))
            data = plain.value("detector/config/pixel_mask")["data"]  # type: ignore[index]
            assert base64.b64decode(data) == mask.tobytes()
