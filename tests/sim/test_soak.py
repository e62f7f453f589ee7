"""Two hundred series of every kind, one after the other: nothing grows, and the last is perfect."""

import random
import subprocess
import sys
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 - the filters of the files
import numpy as np
import psutil
import pytest
from plain_client import Client, until

MB = 2**20
ENDINGS = ("all", "all", "all", "disarm", "cancel", "abort", "initialize", "clear")


class Soak:
    """Takes random series from one simulated DCU, as a beamline's bad week would."""

    def __init__(self, client: Client, rng: random.Random):
        self.client = client
        self.rng = rng
        self.eiger2 = client.version == "1.8.0"

    def put(self, rest: str, value: object = None) -> None:
        reply = self.client.put(rest, value)
        assert reply.status_code == 200, (rest, value, reply.text)

    def configure(self) -> str:
        rng = self.rng
        modes = ("ints", "inte", "exts", "exte", *(("eies", "extg") if self.eiger2 else ()))
        mode = rng.choice(modes)
        # In the gated modes of an EIGER2 a trigger is one image.
        self.client.config(nimages=1, ntrigger=rng.randint(1, 3), trigger_mode=mode)
        if self.eiger2:
            self.client.config(extg_mode="single")
        if mode in ("ints", "exts"):
            self.client.config(nimages=rng.choice((1, 2, 7)))
        self.client.config(
            count_time=rng.choice((0.005, 0.2)), compression=rng.choice(("bslz4", "lz4"))
        )
        self.put("filewriter/config/mode", "enabled")
        self.put("filewriter/config/nimages_per_file", rng.choice((0, 1, 3, 1000)))
        self.put("monitor/config/mode", rng.choice(("enabled", "disabled")))
        return mode

    def trigger(self, mode: str) -> None:
        if mode in ("ints", "inte"):
            assert self.client.command("trigger").status_code == 200
            return
        gate = {"value": 0.001} if mode in ("exte", "extg") else {}
        url = f"{self.client.url}/sim/trigger"
        assert self.client.session.put(url, json=gate, timeout=20).status_code == 200

    def one(self) -> None:
        """Take a series, end it somehow, fetch what there is and delete it."""
        mode, ending = self.configure(), self.rng.choice(ENDINGS)
        self.client.arm()
        triggers = self.client.value("detector/config/ntrigger")
        assert isinstance(triggers, int)
        for _ in range(triggers if ending == "all" else self.rng.randrange(triggers)):
            self.trigger(mode)
            until(lambda: self.client.state in ("ready", "idle"))
        images = self.client.get("monitor/images").json()
        if images:
            series, numbers = images[-1]
            assert self.client.get(f"monitor/images/{series}/{numbers[-1]}").ok
        if ending == "clear":
            self.put("filewriter/command/clear")
        command = "abort" if ending in ("all", "clear") else ending
        assert self.client.command(command).status_code == 200
        until(lambda: self.client.value("filewriter/status/state") != "acquire")
        for name in self.names():
            url = f"{self.client.url}/data/{name}"
            assert self.client.session.get(url, timeout=30).content.startswith(b"\x89HDF")
            assert self.client.session.delete(url, timeout=20).status_code == 204

    def names(self) -> list[str]:
        answer = self.client.get("filewriter/files").json()
        return answer["value"] if isinstance(answer, dict) else answer

    def perfect_series(self, folder: Path) -> None:
        client = self.client
        self.put("detector/command/initialize")
        self.put("filewriter/config/mode", "enabled")
        self.put("filewriter/config/nimages_per_file", 2)
        client.config(nimages=3, count_time=0.2)
        series = client.arm()
        self.trigger("ints")
        assert client.command("disarm").status_code == 200
        images: list[np.ndarray] = []
        for number in (1, 2):
            with h5py.File(folder / f"series_{series}_data_{number:06d}.h5") as file:
                images += list(file["entry/data/data"][:])
        for number, image in enumerate(images, 1):
            url = f"{client.url}/sim/image/{series}/{number}"
            truth = folder.parent / "truth.npy"
            truth.write_bytes(client.session.get(url, timeout=20).content)
            np.testing.assert_array_equal(image, np.load(truth))
        assert len(images) == 3


def held(process: psutil.Process) -> tuple[float, int, int]:
    """Return resident memory in MB, threads, and open files and sockets."""
    with process.oneshot():
        return process.memory_info().rss / MB, process.num_threads(), process.num_fds()


LONG = [pytest.mark.long, pytest.mark.timeout(1800)]


@pytest.mark.parametrize(
    ("model", "version", "count"),
    [
        pytest.param("eiger-500k", "1.6.0", 200, marks=LONG),
        pytest.param("eiger2-500k", "1.8.0", 200, marks=LONG),
        pytest.param("eiger-1m", "1.6.0", 200, marks=LONG),
        pytest.param("eiger2-4m", "1.8.0", 200, marks=LONG),
    ],
)
def test_many_series_leave_nothing_behind(
    model: str, version: str, count: int, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    command = [
        *(sys.executable, "-m", "sim_dcu", "--port", "0", "--model", model, "--time-scale", "0"),
        *("--initialized", "--data-dir", str(folder)),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            client = Client(server.stdout.readline().split()[-1], version)
            watched = psutil.Process(server.pid)
            with client.session:
                soak = Soak(client, random.Random(f"{model} {count}"))
                first = count // 10 if count > 20 else count // 2
                for _ in range(first):
                    soak.one()
                soak.perfect_series(folder)
                before = held(watched)
                for _ in range(count - first):
                    soak.one()
                soak.perfect_series(folder)
                after = held(watched)
        finally:
            server.terminate()
    assert server.returncode == 0
    assert not list(folder.glob(".*"))
    # What a pool of images takes: the first series have not seen every configuration.
    megapixels = {"500k": 0.53, "1m": 1.1, "4m": 4.5}[model.partition("-")[2]]
    assert after[0] < before[0] + 40 + 60 * megapixels, (before, after)
    assert after[1] <= before[1] + 2, (before, after)
    assert after[2] <= before[2] + 2, (before, after)
