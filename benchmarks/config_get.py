"""Latency of a config GET: this simulator beside tickit-devices' and ALBA's, by one client.

    python benchmarks/config_get.py [--peers DIR] [--runs N] [--requests N] [--write]

Makes an environment for each of the others below DIR (default: benchmarks/.peers) on its first run.
All servers run at once, each as its own process on loopback; the runs are interleaved, so that
whatever else the machine does meets all of them alike. The client is one `requests.Session` per
server, kept alive, without proxies from the environment. `--write` puts the table into README.md.
"""

import argparse
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import requests
import results

HERE = Path(__file__).parent
START_LIMIT = 60.0


@dataclass(frozen=True)
class Server:
    """One simulator: what it needs, how it starts, and the API version it answers."""

    name: str
    requirement: str
    command: Callable[[Path, int, Path], Sequence[str | Path]]
    version: str


def _ours(_bin: Path, port: int, _folder: Path) -> Sequence[str | Path]:
    return [
        *(sys.executable, "-m", "sim_dcu", "--model", "eiger2-16m", "--initialized"),
        *("--port", str(port), "--time-scale", "0"),
    ]


def _tickit(bin_folder: Path, port: int, folder: Path) -> Sequence[str | Path]:
    config = folder / "eiger.yaml"
    config.write_text(
        "- type: tickit_devices.eiger.Eiger\n  name: eiger\n  inputs: {}\n  host: 127.0.0.1\n"
        f"  port: {port}\n  stream_legacy_port: {free_port()}\n  stream_cbor_port: {free_port()}\n"
    )
    return [bin_folder / "tickit", "--log-level", "ERROR", "all", config]


def _alba(bin_folder: Path, port: int, _folder: Path) -> Sequence[str | Path]:
    return [
        *(bin_folder / "eiger-simulator", "--host", "127.0.0.1", "--port", str(port)),
        *("--zmq", f"tcp://127.0.0.1:{free_port()}", "--log-level", "error"),
    ]


SERVERS = (
    Server("sim-dcu", "", _ours, "1.8.0"),
    Server("tickit-devices 0.4.1", "tickit-devices==0.4.1", _tickit, "1.8.0"),
    Server("ALBA eiger-simulator 0.5.1", "eiger-simulator==0.5.1", _alba, "1.6.0"),
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def environment(peers: Path, requirement: str) -> Path:
    """Return the folder of programs of an environment that has `requirement`."""
    if not requirement:
        return Path(sys.executable).parent
    folder = peers / requirement.replace("==", "-")
    done = folder / "installed"
    if not done.exists():
        print(f"installing {requirement}", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", requirement]
        subprocess.run(pip, check=True)
        done.touch()
    return folder / "bin"


def wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + START_LIMIT
    while time.monotonic() < end and process.poll() is None:
        try:
            if requests.get(url, timeout=1).ok:
                return
        except requests.RequestException:
            time.sleep(0.1)
    raise SystemExit(f"no answer from {url} within {START_LIMIT:g} s")


def one_run(session: requests.Session, url: str, count: int) -> list[float]:
    """Return the seconds each of `count` GETs took."""
    seconds = []
    for _ in range(count):
        begin = time.perf_counter()
        reply = session.get(url, timeout=10)
        seconds.append(time.perf_counter() - begin)
        assert reply.status_code == 200
        assert "value" in reply.json()
    return seconds


def measure(peers: Path, runs: int, count: int) -> dict[str, tuple[float, float]]:
    """Return the medians over the runs of each server's median and 99th percentile, in s."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        asked = []
        for server in SERVERS:
            port = free_port()
            command = server.command(environment(peers, server.requirement), port, folder)
            process = stack.enter_context(
                subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
            stack.callback(process.terminate)
            url = f"http://127.0.0.1:{port}/detector/api/{server.version}/config/count_time"
            wait_for(url, process)
            session = stack.enter_context(requests.Session())
            session.trust_env = False
            one_run(session, url, 100)
            asked.append((server.name, session, url))
        found: dict[str, list[tuple[float, float]]] = {name: [] for name, _, _ in asked}
        for run in range(runs):
            # A different one is first each time.
            turn = run % len(asked)
            for name, session, url in asked[turn:] + asked[:turn]:
                seconds = sorted(one_run(session, url, count))
                found[name].append((seconds[count // 2], seconds[count * 99 // 100]))
    return {
        name: (statistics.median(p50 for p50, _ in each), statistics.median(p99 for _, p99 in each))
        for name, each in found.items()
    }


def table(found: dict[str, tuple[float, float]], runs: int, count: int) -> str:
    fastest = min(p50 for p50, _ in found.values())
    lines = [
        f"Medians of {runs} interleaved runs of {count} GETs of `config/count_time`.\n",
        "| server | p50, µs | p99, µs | p50 / fastest |",
        "|---|--:|--:|--:|",
        *(
            f"| {name} | {p50 * 1e6:.0f} | {p99 * 1e6:.0f} | {p50 / fastest:.2f} |"
            for name, (p50, p99) in found.items()
        ),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=Path, default=HERE / ".peers")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--requests", type=int, default=1000)
    results.add_flag(parser)
    chosen = parser.parse_args()
    result = table(
        measure(chosen.peers, chosen.runs, chosen.requests), chosen.runs, chosen.requests
    )
    results.show(result, "config_get", write=chosen.write)


if __name__ == "__main__":
    main()
