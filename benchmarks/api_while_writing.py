"""Latency of config GETs while a series is written and fetched, beside that of an idle simulator.

    python benchmarks/api_while_writing.py [--write]

Two series at the detector's own speed (time-scale 1): one of 1,000 images with a file each, and one
of 20,000 images at 3,000 Hz. A second process lists the files and fetches each as it appears, to
memory; this one asks for `config/count_time` all the while, over one kept-alive connection. What
was fetched is counted at the end: nothing may be lost.
"""

import argparse
import multiprocessing
import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

import requests
import results

# What is wanted, in s.
BOUND = 0.010
IDLE_SECONDS = 5.0
# How long the last file may take to come, in s.
LAST_FILE = 60.0

# Name: images, images a file, frame time in s.
SERIES = {
    "1,000 files": (1_000, 1, 0.01),
    "20,000 images": (20_000, 1_000, 1 / 3000),
}


class Dcu:
    """The simulator's API, one connection."""

    def __init__(self, url: str):
        self.url = url
        self.session = requests.Session()
        self.session.trust_env = False

    def get(self, path: str) -> requests.Response:
        subsystem, _, rest = path.partition("/")
        return self.session.get(f"{self.url}/{subsystem}/api/1.6.0/{rest}", timeout=60)

    def put(self, path: str, value: Any = None) -> None:
        subsystem, _, rest = path.partition("/")
        body = {} if value is None else {"json": {"value": value}}
        reply = self.session.put(f"{self.url}/{subsystem}/api/1.6.0/{rest}", timeout=600, **body)
        if reply.status_code != 200:
            raise SystemExit(f"{path} {value}: {reply.status_code} {reply.text}")


def fetch(url: str, files: int, result: Connection) -> None:
    """Fetch files as they appear until there are `files`; send how many and their bytes."""
    dcu = Dcu(url)
    fetched: dict[str, int] = {}
    end = time.monotonic() + 600
    while len(fetched) < files and time.monotonic() < end:
        new = [name for name in dcu.get("filewriter/files").json() if name not in fetched]
        for name in new:
            with dcu.session.get(f"{url}/data/{name}", stream=True, timeout=60) as reply:
                size = 0
                for piece in reply.iter_content(2**20):
                    size += len(piece)
            assert size == int(reply.headers["content-length"])
            fetched[name] = size
        if not new:
            time.sleep(0.02)
    result.send((len(fetched), sum(fetched.values())))


def asked_until(dcu: Dcu, over: threading.Event) -> list[float]:
    """Return the seconds that each of the GETs took, sorted."""
    url = f"{dcu.url}/detector/api/1.6.0/config/count_time"
    seconds = []
    while not over.is_set():
        begin = time.perf_counter()
        reply = dcu.session.get(url, timeout=60)
        seconds.append(time.perf_counter() - begin)
        assert reply.status_code == 200
    return sorted(seconds)


def one_series(url: str, images: int, per_file: int, frame_time: float) -> tuple[list[float], str]:
    """Take a series; return the GETs' seconds and what was fetched."""
    control, asking = Dcu(url), Dcu(url)
    control.put("filewriter/command/clear")
    control.put("filewriter/config/mode", "enabled")
    control.put("filewriter/config/nimages_per_file", per_file)
    control.put("detector/config/frame_time", frame_time)
    control.put("detector/config/count_time", frame_time)
    control.put("detector/config/frame_time", frame_time)
    control.put("detector/config/nimages", images)
    files = 1 + -(-images // per_file)
    here, there = multiprocessing.Pipe()
    fetcher = multiprocessing.Process(target=fetch, args=(url, files, there))
    control.put("detector/command/arm")
    fetcher.start()
    over = threading.Event()
    found: tuple[int, int] = (0, 0)

    def run() -> None:
        nonlocal found
        control.put("detector/command/trigger")
        control.put("detector/command/disarm")
        if here.poll(LAST_FILE):
            found = here.recv()
        over.set()

    runner = threading.Thread(target=run)
    begin = time.monotonic()
    runner.start()
    seconds = asked_until(asking, over)
    runner.join()
    fetcher.join()
    if found[0] != files:
        raise SystemExit(f"{found[0]} of {files} files came")
    took = time.monotonic() - begin
    return seconds, f"{files} files, {found[1] / 1e6:.0f} MB, in {took:.1f} s"


def idle(url: str) -> list[float]:
    over = threading.Event()
    threading.Timer(IDLE_SECONDS, over.set).start()
    return asked_until(Dcu(url), over)


def row(name: str, seconds: list[float], what: str) -> str:
    p50, p99 = seconds[len(seconds) // 2], seconds[len(seconds) * 99 // 100]
    holds = "yes" if p99 < BOUND else "no"
    return (
        f"| {name} | {what} | {len(seconds)} | {p50 * 1e3:.2f} | {p99 * 1e3:.2f} |"
        f" {seconds[-1] * 1e3:.1f} | {holds} |"
    )


def measure() -> str:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "sim_dcu", "--port", "0", "--model", "eiger-500k"),
            *("--initialized", "--data-dir", folder),
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            url = server.stdout.readline().split()[-1]
            lines = [
                "GETs of `config/count_time` of an EIGER 500K at time-scale 1.\n",
                "| while | fetched | GETs | p50, ms | p99, ms | longest, ms | p99 < 10 ms |",
                "|---|---|--:|--:|--:|--:|---|",
                row("idle", idle(url), ""),
            ]
            lines += [row(name, *one_series(url, *what)) for name, what in SERIES.items()]
            server.terminate()
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    results.add_flag(parser)
    chosen = parser.parse_args()
    results.show(measure(), "api_while_writing", write=chosen.write)


if __name__ == "__main__":
    main()
