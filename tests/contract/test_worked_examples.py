"""The API reference's worked examples, typed in as they stand, drive a whole series.

`requests` as in its Python example, and curl, which it recommends for puts. Nothing of the client
is used here: whoever has only the reference must get along with the simulator.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 - registers the filters with HDF5
import numpy as np
import pytest
import requests

import sim_dcu

EXAMPLES = {
    example["request"]: example
    for example in json.loads(Path(__file__).with_name("simplon_v1.3_resources.json").read_text())[
        "worked_examples"
    ]
}
VERSION = "1.0.0"


@pytest.fixture
def dcu() -> Iterator[sim_dcu.Server]:
    """A DCU as after power-up: not initialized."""
    with sim_dcu.serve("eiger-500k", seed=11) as server:
        yield server


@pytest.fixture
def detector(dcu: sim_dcu.Server) -> str:
    """The detector's base address, initialized."""
    address = f"{dcu.url}/detector/api/{VERSION}"
    assert requests.put(f"{address}/command/initialize", timeout=60).status_code == 200
    return address


def put(address: str, value: object) -> requests.Response:
    headers = {"content-type": "application/json"}
    return requests.put(address, data=json.dumps({"value": value}), headers=headers, timeout=60)


def test_before_initialize_the_parameter_does_not_exist(dcu: sim_dcu.Server) -> None:
    example = EXAMPLES["GET detector config count_time before initialize"]
    reply = requests.get(f"{dcu.url}/detector/api/{VERSION}/config/count_time", timeout=60)
    assert reply.status_code != 200
    assert f"text: {reply.text}".lower() == example["reply"]
    state = requests.get(f"{dcu.url}/detector/api/{VERSION}/status/state", timeout=60)
    assert state.json()["value"] == "na"


def test_get_count_time(detector: str) -> None:
    example = EXAMPLES["GET detector config count_time"]["reply"]
    content = requests.get(f"{detector}/config/count_time", timeout=60).json()
    assert content.keys() == example.keys()
    for key in ("max", "value_type", "access_mode", "unit"):
        assert content[key] == example[key]


def test_put_count_time(detector: str) -> None:
    example = EXAMPLES['PUT detector config count_time {"value": 1.0}']
    reply = put(f"{detector}/config/count_time", 1.0)
    assert reply.status_code == 200
    assert set(example["reply"]) <= set(reply.json())
    count_time = requests.get(f"{detector}/config/count_time", timeout=60).json()["value"]
    frame_time = requests.get(f"{detector}/config/frame_time", timeout=60).json()["value"]
    assert count_time == 1.0
    assert 1.0 < frame_time < 1.001, example["then"]


def test_put_photon_energy(detector: str) -> None:
    """The names come as a flat list from hardware; the reference prints a nested one."""
    example = EXAMPLES['PUT detector config photon_energy {"value": 8040.0}']
    reply = put(f"{detector}/config/photon_energy", 8040.0)
    assert reply.status_code == example["status"]
    (printed,) = example["reply_as_printed"]
    assert set(printed) <= set(reply.json())
    energy = requests.get(f"{detector}/config/photon_energy", timeout=60).json()
    threshold = requests.get(f"{detector}/config/threshold_energy", timeout=60).json()
    assert (energy["value"], energy["unit"]) == (8040.0, "eV")
    assert (threshold["value"], threshold["unit"]) == (4020.0, "eV")


def test_put_photon_energy_with_the_printed_program(detector: str) -> None:
    """The reference's Python example sends a form, which is read like the JSON in it."""
    payload = {"json_payload": json.dumps({"value": 8040.0})}
    reply = requests.put(f"{detector}/config/photon_energy", data=payload, timeout=60)
    assert reply.status_code == 200
    assert {"threshold_energy", "flatfield"} <= set(reply.json())
    assert requests.get(f"{detector}/config/photon_energy", timeout=60).json()["value"] == 8040.0


def check_series(dcu: sim_dcu.Server, folder: Path, files: list[str], images: int) -> None:
    """Compare downloaded files with what the simulator says that they must hold."""
    master, data = folder / files[-1], files[:-1]
    assert files == [f"series_1_data_{n:06d}.h5" for n in range(1, len(files))] + [master.name]
    found = []
    with h5py.File(master) as file:
        assert sorted(file["entry/data"]) == [f"data_{n:06d}" for n in range(1, len(data) + 1)]
        for name in sorted(file["entry/data"]):
            found.extend(file["entry/data"][name][()])
    assert len(found) == images
    for number, image in enumerate(found, 1):
        assert np.array_equal(image, dcu.image(1, number))


def test_a_whole_series_with_requests(dcu: sim_dcu.Server, tmp_path: Path) -> None:
    detector = f"{dcu.url}/detector/api/{VERSION}"
    filewriter = f"{dcu.url}/filewriter/api/{VERSION}"
    # initialize
    assert requests.put(f"{detector}/command/initialize", timeout=60).status_code == 200
    # configure
    for key, value in {"photon_energy": 8040.0, "count_time": 0.5, "nimages": 5}.items():
        assert put(f"{detector}/config/{key}", value).status_code == 200
    assert put(f"{filewriter}/config/nimages_per_file", 2).status_code == 200
    # arm, trigger, disarm
    assert requests.put(f"{detector}/command/arm", timeout=60).json() == {"sequence id": 1}
    state = requests.get(f"{detector}/status/state", timeout=60).json()
    assert state["value"] == "ready"
    assert requests.put(f"{detector}/command/trigger", timeout=60).status_code == 200
    assert requests.put(f"{detector}/command/disarm", timeout=60).json() == {"sequence id": 1}
    # files, download
    files = requests.get(f"{filewriter}/files/", timeout=60).json()
    assert len(files) == 4
    for name in files:
        size = requests.head(f"{dcu.url}/data/{name}", timeout=60).headers["content-length"]
        reply = requests.get(f"{dcu.url}/data/{name}", timeout=60)
        assert (reply.status_code, len(reply.content)) == (200, int(size))
        (tmp_path / name).write_bytes(reply.content)
    check_series(dcu, tmp_path, files, images=5)
    # Looking at files does not delete them.
    assert requests.get(f"{filewriter}/files/", timeout=60).json() == files


def test_a_second_series_repeats_configure_to_disarm(detector: str, dcu: sim_dcu.Server) -> None:
    for series in (1, 2):
        assert put(f"{detector}/config/nimages", series).status_code == 200
        for command, number in (("arm", series), ("trigger", -1), ("disarm", series)):
            reply = requests.put(f"{detector}/command/{command}", timeout=60)
            assert reply.json() == {"sequence id": number}
    files = requests.get(f"{dcu.url}/filewriter/api/{VERSION}/files/", timeout=60).json()
    assert files == [
        f"series_{series}_{part}.h5" for series in (1, 2) for part in ("data_000001", "master")
    ]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl missing: apt-get install curl")
def test_a_whole_series_with_curl(dcu: sim_dcu.Server, tmp_path: Path) -> None:
    def curl(*arguments: str) -> str:
        command = ["curl", "--silent", "--show-error", "--fail", "--max-time", "60", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def configure(subsystem: str, key: str, value: object) -> str:
        address = f"{dcu.url}/{subsystem}/api/{VERSION}/config/{key}"
        body = json.dumps({"value": value})
        return curl("-X", "PUT", "-H", "Content-Type: application/json", "-d", body, address)

    def command(name: str) -> str:
        return curl("-X", "PUT", f"{dcu.url}/detector/api/{VERSION}/command/{name}")

    assert command("initialize") == ""
    assert "count_time" in json.loads(configure("detector", "count_time", 0.25))
    assert json.loads(configure("detector", "nimages", 3)) == ["nimages"]
    assert configure("filewriter", "nimages_per_file", 2) == ""
    assert json.loads(command("arm")) == {"sequence id": 1}
    command("trigger")
    assert json.loads(command("disarm")) == {"sequence id": 1}
    files = json.loads(curl(f"{dcu.url}/filewriter/api/{VERSION}/files/"))
    for name in files:
        curl("-O", f"{dcu.url}/data/{name}")
    check_series(dcu, tmp_path, files, images=3)
