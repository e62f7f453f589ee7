"""A series from the DCU to files, checked as a scan checks it, beside `curl -o` of the same files.

    python benchmarks/fetch.py [--write]

A simulated DCU in a process of its own serves both, in turns. `curl` writes the bytes and looks at
nothing; the device also syncs each file to the disk, opens it, counts its images and follows the
lengths of each image's blocks. Both write to the same folder of a real disk.
"""

import argparse
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import results

from ophyd_eiger import EigerDetector, FilePolicy
from ophyd_eiger.trial import simulator

MODEL = "eiger-4m"
# Name of the row, images, images a file.
SERIES = (("one file", 300, 1000), ("12 files", 300, 25))
RUNS = 5


def curl(url: str, names: list[str], folder: Path) -> float:
    """Return the seconds that one curl takes for all files, over one connection."""
    command = ["curl", "--silent", "--show-error", "--fail"]
    for name in names:
        command += ["-o", str(folder / name), f"{url}/data/{name}"]
    began = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - began


def device(url: str, names: list[str], folder: Path, at_once: int) -> float:
    """Return the seconds from the call to all files home and checked."""
    from ophyd_eiger.client import DcuClient
    from ophyd_eiger.deliveries import Delivery
    from ophyd_eiger.transfer import Transfer

    client = DcuClient(url)
    master = next(name for name in names if name.endswith("_master.h5"))
    delivery = Delivery(
        master.removesuffix("_master.h5"),
        folder,
        10**6,
        1000,
        (1, 1),
        "u4",  # pyright: ignore[reportArgumentType]
        policy=FilePolicy(at_once=at_once),
    )
    transfer = Transfer(client, "benchmark")
    began = time.perf_counter()
    transfer.add(delivery)
    transfer.end(delivery, cut_short=True, interrupted=True)
    transfer.finalize(delivery)
    transfer.wait(60)
    seconds = time.perf_counter() - began
    transfer.close()
    client.close()
    return seconds


def take(url: str, folder: Path, images: int, per_file: int) -> list[str]:
    """Take a series; return the names of its files on the DCU."""
    eiger = EigerDetector(url, name="eiger", directory=folder)
    eiger.connect()
    before = set(eiger.link.client.files())
    eiger.configure(
        {
            "frame_time": 0.01,
            "count_time": 0.009,
            "nimages": images,
            "filewriter.nimages_per_file": per_file,
        }
    )
    eiger.stage().wait(60)
    eiger.trigger().wait(120)
    eiger.unstage().wait(120)
    names = sorted(set(eiger.link.client.files()) - before)
    eiger.destroy()
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    results.add_flag(parser)
    write = parser.parse_args().write
    rows = [
        f"{MODEL}; medians of {RUNS} runs in turns; the ratio is curl's time by ours.",
        "",
        "| series | MB | curl -o, s | ours, s | MB/s | ours by curl |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    with (
        simulator("--model", MODEL, "--initialized", "--time-scale", "0") as url,
        tempfile.TemporaryDirectory() as folder,
    ):
        for title, images, per_file in SERIES:
            home = Path(folder, title)
            names = take(url, home, images, per_file)
            size = sum((home / name).stat().st_size for name in names) / 1e6
            theirs, ours = [], []
            for run in range(RUNS):
                for times, fetch in ((theirs, curl), (ours, device)):
                    into = Path(folder, f"{title} {run} {fetch.__name__}")
                    into.mkdir()
                    options = (FilePolicy().at_once,) if fetch is device else ()
                    times.append(fetch(url, names, into, *options))
                    for path in into.iterdir():
                        path.unlink()
            one, other = statistics.median(theirs), statistics.median(ours)
            rows.append(
                f"| {title} | {size:.0f} | {one:.3f} | {other:.3f} | {size / other:.0f} "
                f"| {one / other:.2f} |"
            )
    table = "\n".join(rows) + "\n"
    results.show(table, "fetch", write=write)


if __name__ == "__main__":
    main()
