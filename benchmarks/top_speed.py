"""Whether the simulated DCU keeps up with the real detectors, and `/data` beside nginx.

    python benchmarks/top_speed.py [--scene SCENE] [--folder DIR] [--write]

A series of 10 s at each model's top speed and time-scale 1, of images of a flat scene with 0.1
counts a pixel, bslz4, to memory disk. This process asks for `config/count_time` all the while, over
one kept-alive connection, and deletes files as they appear, as there is no room for all. Lost is
what is missing in the files. As of a real DCU, whose files lag behind, an image is in time when it
is in the buffer in time. It counts as exposed from the moment on when it is due, by the clock; late
is the longest time from then until it was made, as the simulator itself keeps it: 0 where each was
made ahead. `count off` is by how much the counts that this process saw depart from one even
schedule beyond what the requests for them took. `file` is the longest time until an image was in
its file. All three in frame times. Cores is the processor time that the simulator's process took by
the series' time, which other load bears on least.

Then a file is downloaded from the simulated DCU and from nginx, by curl, in turns, and by several
clients at once while this process asks for `config/count_time`.
"""

import argparse
import contextlib
import http.client
import io
import json
import math
import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from urllib.parse import urlsplit

import h5py
import psutil
import results

from ophyd_eiger.trial import simulator

SECONDS = 10.0
# Rates in Hz of the EIGER X series: the maker's.
RATES = {"500k": 3000, "1m": 3000, "4m": 750, "9m": 238, "16m": 133}
MEAN = 0.1
# Photons a pixel and second of the scene `flat` at flux 1.
FLAT_RATE = 10
BOUND = 0.010
# GETs a second: a few clients that watch.
GETS = 100
# Bytes of the downloaded file at least, and how often each server sends it.
FILE_BYTES, RUNS = 400e6, 7
# How many clients download at once while others ask, for how many s, and bytes a second of each
# where they share a network.
AT_ONCE, MEANWHILE, SHARE = 4, 4.0, 250e6


@dataclass
class Dcu:
    """The simulator's API, over one connection of its own."""

    url: str

    def __post_init__(self) -> None:
        split = urlsplit(self.url)
        self.connection = http.client.HTTPConnection(split.hostname or "", split.port, timeout=600)

    def ask(self, method: str, path: str, value: object = None) -> bytes:
        body = None if value is None else json.dumps({"value": value})
        self.connection.request(method, path, body, {"Content-Type": "application/json"})
        reply = self.connection.getresponse()
        content = reply.read()
        if reply.status >= 400:
            raise SystemExit(f"{method} {path}: {reply.status} {content.decode()}")
        return content

    def put(self, resource: str, value: object = None) -> None:
        subsystem, _, rest = resource.partition("/")
        self.ask("PUT", f"/{subsystem}/api/1.6.0/{rest}", value)

    def wait_for_files(self) -> None:
        while b"acquire" in self.ask("GET", "/filewriter/api/1.6.0/status/state"):
            time.sleep(0.05)

    def state(self) -> dict:
        return json.loads(self.ask("GET", "/sim/state"))


class Images:
    """Takes the files away as they appear, and counts what is in them."""

    def __init__(self, url: str, folder: Path):
        self._dcu, self._folder = Dcu(url), folder
        self.count = self.bytes = 0

    def take(self) -> None:
        for path in self._folder.glob("*_data_*.h5"):
            # Only its header is read.
            with h5py.File(path) as file:
                self.count += file["entry/data/data"].shape[0]
            self.bytes += path.stat().st_size
            self._dcu.ask("DELETE", f"/data/{path.name}")


class Counts:
    """Compares how many images are said to be exposed with an even schedule."""

    def __init__(self, url: str, images: int, frame_time: float):
        self._dcu, self._images, self._frame_time = Dcu(url), images, frame_time
        # Between these the end of the exposure before the first lies, as every count has it.
        self._earliest, self._latest = -math.inf, math.inf

    def look(self) -> None:
        before = time.monotonic()
        exposed = self._dcu.state()["series"]["exposed"]
        after = time.monotonic()
        if 0 < exposed < self._images:
            self._earliest = max(self._earliest, before - (exposed + 1) * self._frame_time)
            self._latest = min(self._latest, after - exposed * self._frame_time)

    @property
    def off(self) -> float:
        """In frame times."""
        return max(0.0, self._earliest - self._latest) / self._frame_time


def series(url: str, folder: Path, size: str) -> str:
    """Take a series at top speed; return its row of the table."""
    rate = RATES[size]
    images = round(SECONDS * rate)
    control, asking, taken = Dcu(url), Dcu(url), Images(url, folder)
    control.put("filewriter/config/nimages_per_file", max(1, rate // 4))
    # A limit may be longer by its last digit.
    limits = json.loads(control.ask("GET", "/detector/api/1.6.0/config/frame_time"))
    frame_time = max(1 / rate, limits["min"])
    control.put("detector/config/frame_time", frame_time)
    control.put("detector/config/nimages", images)
    control.put("detector/command/arm")
    counts = Counts(url, images, frame_time)
    over = threading.Event()
    times: list[float] = []
    before = processor_time()
    end = threading.Thread(target=_expose, args=(control, over, times))
    end.start()
    gets = []
    while not over.wait(max(0.0, 1 / GETS)):
        began = time.perf_counter()
        asking.ask("GET", "/detector/api/1.6.0/config/count_time")
        gets.append(time.perf_counter() - began)
        if len(gets) % (GETS // 4) == 0:
            taken.take()
            counts.look()
    end.join()
    cores = (processor_time() - before) / times[0]
    taken.take()
    state = control.state()
    if state["state"] == "error":
        return f"| {size} | {rate} | {state['error']} | | | | | | | {cores:.1f} | no |"
    p99 = sorted(gets)[len(gets) * 99 // 100]
    late = state["series"]["latest_made"] / frame_time
    in_file = state["series"]["latest"] / frame_time
    lost = images - taken.count
    holds = "yes" if not lost and max(late, counts.off) <= 1 and p99 < BOUND else "no"
    return (
        f"| {size} | {rate} | {images} in {times[0]:.1f} s | {taken.bytes / images / 1e3:.0f} "
        f"| {lost} | {late:.1f} | {counts.off:.1f} | {in_file:.1f} | {p99 * 1e3:.1f} "
        f"| {cores:.1f} | {holds} |"
    )


def processor_time() -> float:
    """Return the processor time in s that the simulator took so far."""
    children = psutil.Process().children(recursive=True)
    return sum(sum(child.cpu_times()[:2]) for child in children)


def _expose(control: Dcu, over: threading.Event, times: list[float]) -> None:
    began = time.monotonic()
    try:
        control.put("detector/command/trigger")
        times.append(time.monotonic() - began)
        control.put("detector/command/disarm")
        control.wait_for_files()
    except SystemExit:  # lost; the simulator's state says what
        times.append(time.monotonic() - began)
    finally:
        over.set()


@contextlib.contextmanager
def nginx(folder: Path) -> Iterator[str]:
    """Serve a folder by nginx as it comes, with sendfile."""
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as prefix:
        temporary = "".join(
            f"{kind}_temp_path {prefix}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        settings = Path(prefix) / "nginx.conf"
        settings.write_text(
            f"daemon off; pid {prefix}/pid; error_log stderr crit; events {{}} http {{ {temporary}"
            f"access_log off; sendfile on; server {{ listen 127.0.0.1:{port};"
            f" location /data/ {{ alias {folder}/; }} }} }}\n"
        )
        folder.chmod(0o755)
        with subprocess.Popen(["nginx", "-p", prefix, "-c", settings]) as server:
            try:
                for _ in range(100):
                    with contextlib.suppress(OSError), socket() as trying:
                        trying.connect(("127.0.0.1", port))
                        break
                    time.sleep(0.05)
                yield f"http://127.0.0.1:{port}"
            finally:
                server.terminate()


def download(url: str, name: str, *options: str) -> float:
    """Return the seconds that curl takes for a file."""
    command = ["curl", "--silent", "--show-error", "--fail", "-o", "/dev/null", *options]
    began = time.perf_counter()
    subprocess.run([*command, f"{url}/data/{name}"], check=True)
    return time.perf_counter() - began


def answers_meanwhile(url: str, name: str, *options: str) -> float:
    """Return the 99th percentile in ms of config GETs while `AT_ONCE` clients download a file."""
    over = threading.Event()

    def again_and_again() -> None:
        while not over.is_set():
            download(url, name, *options)

    clients = [threading.Thread(target=again_and_again) for _ in range(AT_ONCE)]
    asking, seconds = Dcu(url), []
    for client in clients:
        client.start()
    end = time.monotonic() + MEANWHILE
    while time.monotonic() < end:
        time.sleep(1 / GETS)
        began = time.perf_counter()
        asking.ask("GET", "/detector/api/1.6.0/config/count_time")
        seconds.append(time.perf_counter() - began)
    over.set()
    for client in clients:
        client.join()
    return 1e3 * sorted(seconds)[len(seconds) * 99 // 100]


def downloads(url: str, folder: Path) -> str:
    """Take a series of one file and download it from both; return the table."""
    control = Dcu(url)
    control.put("detector/config/nimages", 400)
    control.put("filewriter/config/nimages_per_file", 0x7FFF)
    for command in ("arm", "trigger", "disarm"):
        control.put(f"detector/command/{command}")
    control.wait_for_files()
    path = max(folder.glob("*_data_000001.h5"), key=lambda path: path.stat().st_size)
    # As a client sees it: one file, whatever it holds.
    with path.open("ab") as file:
        file.write(bytes(max(0, int(FILE_BYTES) - path.stat().st_size)))
    size = path.stat().st_size / 1e9
    times: dict[str, list[float]] = {"sim-dcu": [], "nginx": []}
    with nginx(folder) as other:
        for _ in range(RUNS):
            times["sim-dcu"].append(download(url, path.name))
            times["nginx"].append(download(other, path.name))
    ours, theirs = (statistics.median(seconds) for seconds in times.values())
    text = io.StringIO()
    text.write(f"A file of {size * 1e3:.0f} MB, by curl; medians of {RUNS} runs in turns.\n\n")
    text.write("| server | GB/s | by nginx |\n|---|--:|--:|\n")
    text.write(f"| sim-dcu `/data` | {size / ours:.2f} | {theirs / ours:.2f} |\n")
    text.write(f"| nginx, sendfile | {size / theirs:.2f} | 1.00 |\n\n")
    gentle, greedy = (
        answers_meanwhile(url, path.name, *options)
        for options in (("--limit-rate", f"{SHARE / 1e6:.0f}M"), ())
    )
    text.write(
        f"The 99th percentile of config GETs while {AT_ONCE} clients download it from sim-dcu: "
        f"{gentle:.1f} ms at {SHARE / 1e6:.0f} MB/s each, what a network of 10 Gb/s carries; "
        f"{greedy:.1f} ms as fast as they can, when the clients alone take all cores.\n"
    )
    return text.getvalue()


def measured(size: str, scene: str, parent: Path) -> str:
    """Return a model's row."""
    flux = MEAN * RATES[size] / (FLAT_RATE if scene == "flat" else MEAN)
    options = [*("--model", f"eiger-{size}", "--initialized", "--time-scale", "1")]
    options += [*("--scene", scene, "--flux", str(flux))]
    with (
        tempfile.TemporaryDirectory(dir=parent) as folder,
        simulator(*options, "--data-dir", folder) as url,
    ):
        return series(url, Path(folder), size)


def beside_nginx(parent: Path) -> str:
    """Return the table of downloads, of a file of a 4M that does not wait."""
    options = [*("--model", "eiger-4m", "--initialized", "--time-scale", "0")]
    with (
        tempfile.TemporaryDirectory(dir=parent) as folder,
        simulator(*options, "--data-dir", folder) as url,
    ):
        return downloads(url, Path(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scene", default="flat", help="what the images show")
    parser.add_argument("--folder", type=Path, default="/dev/shm", help="where the files go")
    parser.add_argument("--models", nargs="*", default=list(RATES), help="which sizes")
    results.add_flag(parser)
    chosen = parser.parse_args()
    rows = [measured(size, chosen.scene, chosen.folder) for size in chosen.models]
    # Of those that can run, in the last minute: what the machine had to do beside this.
    load = os.getloadavg()[0]
    table = "\n".join(
        [
            f"Load of the {os.cpu_count()} cores at the end: {load:.1f}. "
            f"Series of {SECONDS:g} s at time-scale 1, scene `{chosen.scene}`, 16 bit, bslz4.",
            "",
            "| EIGER | Hz | images | kB an image | lost | late | count off | file | GET p99, ms "
            "| cores | holds |",
            "|---|--:|---|--:|--:|--:|--:|--:|--:|--:|---|",
            *rows,
            "",
            beside_nginx(chosen.folder),
        ]
    )
    results.show(table.rstrip() + "\n", "top_speed", write=chosen.write)


if __name__ == "__main__":
    main()
