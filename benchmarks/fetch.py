"""A series from the DCU to files, checked as a scan checks it, beside `curl -o` of the same files.

    python benchmarks/fetch.py [--write]

A simulated DCU in a process of its own serves both, in turns. `curl` writes the bytes and looks at
nothing; the device also syncs each file to the disk, opens it, counts its images and follows the
lengths of each image's blocks. Both write to the same disk. The images are those of the simulated
scene, nearly empty, or Poisson counts of mean 0.1, which make 0.7 MB of an image of a 4M.
"""

import argparse
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import results

from ophyd_eiger import DcuClient, EigerDetector
from ophyd_eiger.deliveries import Delivery
from ophyd_eiger.transfer import Transfer
from ophyd_eiger.trial import simulator

MODEL, SHAPE = "eiger-4m", (2167, 2070)
IMAGES = 300
RUNS = 5


@dataclass(frozen=True)
class Row:
    """One series: what its images are, and how many are in a file."""

    title: str
    per_file: int
    mean: float | None = None


ROWS = (
    Row("nearly empty, one file", 1000),
    Row("nearly empty, 12 files", 25),
    Row("mean 0.1, one file", 1000, 0.1),
)


def dense(path: Path, mean: float) -> None:
    """Write a data file of Poisson counts; ten frames differ, which compresses no better."""
    random = np.random.default_rng(1)
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "entry/data/data",
            (IMAGES, *SHAPE),
            "<u2",
            chunks=(1, *SHAPE),
            **hdf5plugin.Bitshuffle(cname="lz4"),
        )
        for number in range(10):
            data[number] = random.poisson(mean, SHAPE)
        for number in range(10, IMAGES):
            skipped, chunk = data.id.read_direct_chunk((number % 10, 0, 0))
            data.id.write_direct_chunk((number, 0, 0), chunk, skipped)
        data.attrs.update(image_nr_low=1, image_nr_high=IMAGES)


def curl(url: str, names: list[str], folder: Path, _: Row) -> float:
    """Return the seconds that one curl takes for all files, over one connection."""
    command = ["curl", "--silent", "--show-error", "--fail"]
    for name in names:
        command += ["-o", str(folder / name), f"{url}/data/{name}"]
    began = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - began


def ours(url: str, names: list[str], folder: Path, row: Row) -> float:
    """Return the seconds from the call until all files are home and checked."""
    client = DcuClient(url)
    basename = names[0].partition("_data_")[0]
    delivery = Delivery(basename, folder, IMAGES, row.per_file, SHAPE, np.dtype("<u2"))
    delivery.recorded = IMAGES
    transfer = Transfer(client, "benchmark")
    began = time.perf_counter()
    transfer.add(delivery)
    transfer.end(delivery, cut_short=False)
    transfer.finalize(delivery)
    transfer.wait(60)
    seconds = time.perf_counter() - began
    if set(delivery.home) != set(names):
        raise RuntimeError(f"{set(names) - set(delivery.home)} did not come")
    transfer.close()
    client.close()
    return seconds


def take(url: str, folder: Path, per_file: int) -> list[str]:
    """Take a series; return the names of its files on the DCU."""
    eiger = EigerDetector(url, name="eiger", directory=folder)
    eiger.connect()
    eiger.configure(
        {
            "frame_time": 0.01,
            "count_time": 0.009,
            "nimages": IMAGES,
            "filewriter.nimages_per_file": per_file,
        }
    )
    eiger.stage().wait(60)
    eiger.trigger().wait(120)
    eiger.unstage().wait(120)
    names = sorted(file.path.name for file in eiger.fetched)
    eiger.destroy()
    return names


def measured(row: Row, folder: Path) -> str:
    """Return the row of the table."""
    options = ["--model", MODEL, "--initialized", "--time-scale", "0"]
    if row.mean is not None:
        dense(folder / "dense.h5", row.mean)
        options += ["--fault", f"file-replaced:with={folder / 'dense.h5'}"]
    with simulator(*options) as url:
        names = take(url, folder / "taken", row.per_file)
        size = sum((folder / "taken" / name).stat().st_size for name in names) / 1e6
        times: dict[str, list[float]] = {"curl": [], "ours": []}
        for _ in range(RUNS):
            for fetch in (curl, ours):
                with tempfile.TemporaryDirectory(dir=folder) as into:
                    times[fetch.__name__].append(fetch(url, names, Path(into), row))
    theirs, own = (statistics.median(seconds) for seconds in times.values())
    return (
        f"| {row.title} | {size:.0f} | {theirs:.3f} | {own:.3f} | {size / own:.0f} "
        f"| {theirs / own:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    results.add_flag(parser)
    write = parser.parse_args().write
    rows = [
        f"{IMAGES} images of an {MODEL}; medians of {RUNS} runs in turns; the ratio is curl's time "
        "by ours.",
        "",
        "| images | MB | curl -o, s | ours, s | MB/s | ours by curl |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for row in ROWS:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measured(row, Path(folder)))
    results.show("\n".join(rows) + "\n", "fetch", write=write)


if __name__ == "__main__":
    main()
