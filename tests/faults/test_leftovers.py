"""What a fault, a death or a kill must not leave, and what it must not take."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
import requests

import sim_dcu

API = "detector/api/1.6.0"


def put(dcu: sim_dcu.Server, path: str, value: object = None) -> requests.Response:
    return requests.put(
        f"{dcu.url}/{path}", json={} if value is None else {"value": value}, timeout=20
    )


def take(dcu: sim_dcu.Server, images: int = 2) -> None:
    assert put(dcu, f"{API}/config/nimages", images).status_code == 200
    assert put(dcu, f"{API}/command/arm").status_code == 200
    put(dcu, f"{API}/command/trigger")
    put(dcu, f"{API}/command/disarm")


@pytest.fixture
def dcu(tmp_path: Path):
    with sim_dcu.serve(
        "eiger-500k", initialized=True, seed=3, data_dir=tmp_path / "data"
    ) as server:
        yield server


def test_a_death_takes_no_file_that_is_not_a_series(dcu, tmp_path):
    folder = tmp_path / "data"
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.txt").write_text("years")
    take(dcu)
    dcu.dcu.power_up(files_are_lost=True)
    assert [path for path in folder.rglob("*") if path.is_file()] == [folder / "mine/thesis.txt"]


def test_a_death_does_not_finish_a_file_over_a_whole_one(dcu, tmp_path):
    assert put(dcu, "filewriter/api/1.6.0/config/name_pattern", "x").status_code == 200
    take(dcu, 4)
    whole = (tmp_path / "data/x_data_000001.h5").read_bytes()
    put(dcu, f"{API}/config/ntrigger", 2)
    put(dcu, f"{API}/command/arm")
    put(dcu, f"{API}/command/trigger")
    dcu.dcu.power_up(files_are_lost=False)
    assert (tmp_path / "data/x_data_000001.h5").read_bytes() == whole
    assert not list((tmp_path / "data").glob(".*"))


def test_a_dcu_comes_back_whatever_is_in_its_folder(dcu, tmp_path):
    os.mkfifo(tmp_path / "data" / "pipe_master.h5")
    requests.put(f"{dcu.url}/sim/faults/die", json={"back": 0}, timeout=20)
    session = requests.Session()
    session.mount("http://", requests.adapters.HTTPAdapter(max_retries=20))
    with session:
        for _ in range(100):
            try:
                state = session.get(f"{dcu.url}/{API}/status/state", timeout=20).json()["value"]
            except requests.ConnectionError:
                continue
            if state == "na":
                break
    assert state == "na"


def test_hidden_folders_do_not_outlive_a_kill(tmp_path):
    command = [
        *(sys.executable, "-m", "sim_dcu", "--port", "0", "--model", "eiger-500k"),
        *("--initialized", "--time-scale", "0", "--data-dir", str(tmp_path)),
        *("--fault", "file-late:seconds=600", "--fault", "file-missing:file=7"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        for name in ("arm", "trigger", "disarm", "arm"):
            requests.put(f"{url}/{API}/command/{name}", timeout=20)
        process.send_signal(signal.SIGKILL)
    assert list(tmp_path.glob(".late-*"))
    assert list(tmp_path.glob(".faulty-*"))
    with sim_dcu.serve("eiger-500k", data_dir=tmp_path):
        assert not list(tmp_path.glob(".*"))


def test_a_fault_that_fails_leaves_no_folder(dcu, tmp_path):
    source = tmp_path / "once.h5"
    source.write_bytes(b"x")
    dcu.faults.set("file-replaced", **{"with": str(source)})
    source.unlink()
    take(dcu)
    assert not list((tmp_path / "data").glob(".*"))


def test_files_that_are_late_are_lost_with_the_others(tmp_path):
    with sim_dcu.serve("eiger2-500k", initialized=True, data_dir=tmp_path) as dcu:
        dcu.faults.set("file-late:seconds=600")
        for path in ("filewriter/api/1.8.0/config/mode",):
            assert put(dcu, path, "enabled").status_code == 200
        for name in ("arm", "trigger", "disarm"):
            requests.put(f"{dcu.url}/detector/api/1.8.0/command/{name}", timeout=20)
        assert list(tmp_path.glob(".late-*"))
        requests.put(f"{dcu.url}/system/api/1.8.0/command/reboot", timeout=20)
        dcu.faults.clear()
        assert dcu.dcu.store.names() == []


def test_a_late_file_does_not_overwrite_a_newer_one(dcu, tmp_path):
    assert put(dcu, "filewriter/api/1.6.0/config/name_pattern", "x").status_code == 200
    dcu.faults.set("file-late:seconds=600,times=1")
    take(dcu)
    assert put(dcu, "filewriter/api/1.6.0/config/image_nr_start", 101).status_code == 200
    take(dcu)
    dcu.faults.clear()
    with h5py.File(tmp_path / "data/x_data_000001.h5") as file:
        assert file["entry/data/data"].attrs["image_nr_low"] == 101


def test_room_is_back_when_a_full_one_is_spent(dcu):
    dcu.faults.set("full:image=1,times=1")
    take(dcu)
    assert put(dcu, f"{API}/command/initialize").status_code == 200
    free = requests.get(f"{dcu.url}/filewriter/api/1.6.0/status/buffer_free", timeout=20).json()
    assert free["value"] > 0


def test_an_empty_file_from_image_0(tmp_path):
    with sim_dcu.serve("eiger2-500k", initialized=True, data_dir=tmp_path) as dcu:
        for key, value in (("mode", "enabled"), ("image_nr_start", 0), ("nimages_per_file", 0)):
            assert put(dcu, f"filewriter/api/1.8.0/config/{key}", value).status_code == 200
        for name in ("arm", "disarm"):
            reply = requests.put(f"{dcu.url}/detector/api/1.8.0/command/{name}", timeout=20)
            assert reply.status_code == 200
        with h5py.File(tmp_path / "series_1_master.h5") as file:
            images = file["entry/data/data"]
            assert images.shape == (0, 512, 1028)
            assert np.asarray(images.attrs["image_nr_high"]) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        b'{"times": 1' + b"0" * 400 + b"}",
        b'{"text": "\\ud800"}',
        b'{"command": "nonsense"}',
        b'{"path": ""}',
    ],
)
def test_arguments_that_no_fault_takes(dcu, arguments):
    reply = requests.put(f"{dcu.url}/sim/faults/refuse", data=arguments, timeout=20)
    assert reply.status_code == 400
    assert requests.get(f"{dcu.url}/sim/faults", timeout=20).json()["active"] == []


def test_folders_that_delete_leaves_empty_are_gone(dcu, tmp_path):
    assert put(dcu, "filewriter/api/1.6.0/config/name_pattern", "x_master.h5/y").status_code == 200
    take(dcu)
    for name in dcu.dcu.store.names():
        assert requests.delete(f"{dcu.url}/data/{name}", timeout=20).status_code == 204
    assert put(dcu, "filewriter/api/1.6.0/config/name_pattern", "x").status_code == 200
    take(dcu)
    assert dcu.dcu.store.names() == ["x_data_000001.h5", "x_master.h5"]


def test_the_way_out_of_error_is_named(dcu):
    dcu.faults.set("error:image=1")
    take(dcu)
    assert "initialize first" in put(dcu, f"{API}/config/nimages", 3).text


def test_connections_made_as_the_dcu_dies_are_closed(dcu):
    loop, held = dcu._loop, threading.Event()
    loop.call_soon_threadsafe(held.wait)
    address = dcu.url.removeprefix("http://").split(":")
    with contextlib.ExitStack() as stack:
        # Accepted in the turn of the event loop that begins the death, made in the one it comes in.
        clients = [
            stack.enter_context(socket.create_connection((address[0], int(address[1])), timeout=20))
            for _ in range(5)
        ]
        loop.call_soon_threadsafe(lambda: dcu.faults.set("die", back=0))
        held.set()
        for client in clients:
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""
