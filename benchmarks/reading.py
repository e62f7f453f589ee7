"""Images from files into memory: the reader beside h5py, fabio and area-detector-handlers.

    python benchmarks/reading.py [--write]

All read the same files of 4M images, Poisson counts of mean 0.1, from the page cache, in turns, in
one process that has allocated and freed larger arrays before. In a new one, as that of a script
which goes through a file, h5py takes longer, as each image's memory comes from the system, page by
page; that is a row of its own. An image is read into an array that was used before wherever the
reader in question can do that; what ours gives back is compared once. "wheels alone" is the codec
of hdf5plugin's wheel, "with the accelerator" that of dectris-compression, which is left out where
it is not installed. What the codec alone takes for chunks in memory, in as many threads, is the
limit of any reader.
"""

import argparse
import contextlib
import io
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import fabio
import h5py
import hdf5plugin
import numpy as np
import results

from ophyd_eiger import codecs, open_series
from ophyd_eiger.chunks import check_chunk
from ophyd_eiger.parallel import do_all, processors

SHAPE = (2167, 2070)
IMAGES, DIFFERENT = 200, 8
LOOP, FEW = 80, 40  # of those that take longer
MANY = 1000
RUNS = 3
ROI = np.s_[1000:1100, 900:1000]


def chunks(compression: dict) -> tuple[list[np.ndarray], list[bytes]]:
    """Return different images, and each one compressed."""
    random = np.random.default_rng(1)
    images = [random.poisson(0.1, SHAPE).astype("<u2") for _ in range(DIFFERENT)]
    for image in images:
        image[514:551] = image[:, 1030:1040] = 65535
    with h5py.File(io.BytesIO(), "w") as file:
        made = file.create_dataset("d", data=images, chunks=(1, *SHAPE), **compression)
        raw = [made.id.read_direct_chunk((n, 0, 0))[1] for n in range(DIFFERENT)]
    return images, raw


def write(path: Path, raw: list[bytes], compression: dict, count: int, first: int = 1) -> None:
    with h5py.File(path, "w", libver=("earliest", "v108")) as file:
        made = file.create_dataset(
            "entry/data/data", (count, *SHAPE), "<u2", chunks=(1, *SHAPE), **compression
        )
        for number in range(count):
            made.id.write_direct_chunk((number, 0, 0), raw[number % DIFFERENT])
        made.attrs.update(image_nr_low=np.int32(first), image_nr_high=np.int32(first + count - 1))


def write_master(path: Path, files: list[str], images: int) -> None:
    """Write a master with what area-detector-handlers cannot do without."""
    with h5py.File(path, "w", libver=("earliest", "v108")) as file:
        for number, name in enumerate(files, 1):
            link = h5py.ExternalLink(name, "entry/data/data")
            file[f"entry/data/data_{number:06d}"] = link
        detector = file.create_group("entry/instrument/detector")
        for name in ("x_pixel_size", "y_pixel_size", "detector_distance", "frame_time"):
            detector[name] = np.float32(1e-3)
        for name in ("beam_center_x", "beam_center_y", "count_time"):
            detector[name] = np.float32(1.0)
        file["entry/instrument/beam/incident_wavelength"] = np.float32(1.0)
        specific = detector.create_group("detectorSpecific")
        specific["pixel_mask"] = np.zeros(SHAPE, np.uint32)
        specific["nimages"], specific["ntrigger"] = np.uint32(images), np.uint32(1)


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_turns(works: dict[str, tuple[int, Callable[[], object]]]) -> dict[str, float]:
    """Return the median images a second of each, after one run that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for run in range(RUNS + 1):
        for name, (count, work) in works.items():
            rate = count / seconds(work)
            if run:
                taken[name].append(rate)
    return {name: statistics.median(rates) for name, rates in taken.items()}


def by_h5py(path: Path, out: np.ndarray, count: int) -> None:
    with h5py.File(path) as file:
        images = file["entry/data/data"]
        for number in range(count):
            out[number] = images[number]


ANEW = """
import sys, time
import h5py, hdf5plugin
import numpy as np
path, count = sys.argv[1], int(sys.argv[2])
with h5py.File(path) as file:
    images = file["entry/data/data"]
    out = np.ones((count, *images.shape[1:]), images.dtype)
    began = time.perf_counter()
    for number in range(count):
        out[number] = images[number]
    print(count / (time.perf_counter() - began))
"""


def by_h5py_anew(path: Path, count: int) -> float:
    """Return how many images a second a script reads that has done nothing else before."""
    command = [sys.executable, "-c", ANEW, str(path), str(count)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def by_fabio(path: Path, out: np.ndarray, count: int) -> None:
    with fabio.open(path) as images:
        for number in range(count):
            out[number] = images.getframe(number).data


def by_handlers(prefix: Path, count: int) -> np.ndarray:
    from area_detector_handlers.eiger import EigerHandler

    handler = EigerHandler(str(prefix), images_per_file=1)
    return handler(1)[:count].compute()


def codec_names() -> dict[str, str]:
    found = {"ours, wheels alone": "hdf5plugin"}
    if "dectris-compression" in codecs.available():
        found["ours, with the accelerator"] = "dectris-compression"
    return found


def compare(path: Path, expected: list[np.ndarray]) -> None:
    """See that all give the same images."""
    for name in codec_names().values():
        found = open_series(path, codec=name)
        for number in (0, 3, IMAGES - 1):
            if not np.array_equal(found[number], expected[number % DIFFERENT]):
                raise RuntimeError(f"{name} gives another image {number}")


def decode(name: str, raw: list[bytes], code: int, out: np.ndarray) -> None:
    """Decompress chunks that are in memory and known to be whole: what any reader has to do."""
    codec = codecs.codec(name)
    blocks = [check_chunk(chunk, [code], SHAPE, out.dtype) for chunk in raw]
    do_all(
        lambda n: codec.decode(
            raw[n % DIFFERENT], blocks[n % DIFFERENT], out.itemsize, out[n].reshape(-1).view("u1")
        ),
        range(IMAGES),
        processors(),
    )


def reading(folder: Path, title: str, compression: dict, *, peers: bool) -> list[str]:
    """Return the rows of whole images into one array."""
    code = compression["compression"]
    images, raw = chunks(compression)
    path = folder / "b_1_data_000001.h5"
    write(path, raw, compression, IMAGES)
    write_master(folder / "b_1_master.h5", [path.name], IMAGES)
    compare(path, images)
    out, source = (np.ones((IMAGES, *SHAPE), "<u2") for _ in range(2))
    works: dict[str, tuple[int, Callable[[], object]]] = {
        "h5py `out[i] = d[i]`": (LOOP, lambda: by_h5py(path, out, LOOP)),
        "memcpy": (IMAGES, lambda: np.copyto(out, source)),
    }
    for label, name in codec_names().items():
        series = open_series(path, codec=name)
        works[label] = (IMAGES, lambda s=series: s.read(0, IMAGES, out=out))
        works[f"the codec alone, of {label}"] = (IMAGES, lambda n=name: decode(n, raw, code, out))
    if peers:
        works["fabio `getframe`"] = (FEW, lambda: by_fabio(path, out, FEW))
        with contextlib.suppress(ImportError):
            by_handlers(folder / "b", 1)
            works["area-detector-handlers `.compute()`"] = (
                FEW,
                lambda: by_handlers(folder / "b", FEW),
            )
    rates = in_turns(works)
    loop, copy = rates["h5py `out[i] = d[i]`"], rates["memcpy"]
    anew = statistics.median(by_h5py_anew(path, LOOP) for _ in range(RUNS))
    rates["h5py `out[i] = d[i]`, in a new process"] = anew
    return [
        f"| {title} | {name} | {rate:.0f} | {rate / loop:.2f} | {rate / anew:.2f} "
        f"| {rate / copy:.2f} |"
        for name, rate in rates.items()
    ]


def h5py_sum(path: Path, count: int) -> np.ndarray:
    total = np.zeros(SHAPE, np.uint64)
    with h5py.File(path) as file:
        for number in range(count):
            total += file["entry/data/data"][number]
    return total


def other_rows(folder: Path) -> list[str]:
    """Return the rows of a sum, a region, and the first image of many files."""
    compression = dict(hdf5plugin.Bitshuffle())
    _, raw = chunks(compression)
    path = folder / "s_data_000001.h5"
    write(path, raw, compression, MANY)
    series = open_series(path, codec="hdf5plugin")
    out = np.ones((IMAGES, *SHAPE), "<u2")
    rates = in_turns(
        {
            "h5py": (FEW, lambda: h5py_sum(path, FEW)),
            "whole": (IMAGES, lambda: series.read(0, IMAGES, out=out)),
            "roi": (IMAGES, lambda: series[:IMAGES, *ROI]),
        }
    )
    total = MANY / statistics.median(seconds(series.sum) for _ in range(3))
    names = [f"f_data_{number:06d}.h5" for number in range(1, MANY + 1)]
    for number, name in enumerate(names, 1):
        write(folder / name, raw, compression, 1, number)
    write_master(folder / "f_master.h5", names, MANY)
    first = statistics.median(
        seconds(lambda: open_series(folder / "f_master.h5")[0]) for _ in range(RUNS)
    )
    return [
        f"| sum of {MANY} images, wheels alone | {total:.0f} images/s "
        f"| {total / rates['h5py']:.1f} x the h5py loop | >= 3 |",
        f"| 100 x 100 pixels of {IMAGES} images, wheels alone | {rates['roi']:.0f} images/s "
        f"| {rates['roi'] / rates['whole']:.1f} x whole images | >= 5 |",
        f"| first image of a series of {MANY} files | {first * 1e3:.0f} ms | | <= 100 ms |",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    results.add_flag(parser)
    keep = parser.parse_args().write
    rows = [
        f"{IMAGES} images of 4M, 16 bit, into one array ({LOOP} by h5py, {FEW} by fabio and by "
        f"area-detector-handlers); medians of {RUNS} runs in turns.",
        "",
        "| compression | reader | images/s | x h5py | x h5py in a new process | of memcpy |",
        "|---|---|--:|--:|--:|--:|",
    ]
    kinds = {
        "bslz4": dict(hdf5plugin.Bitshuffle()),
        "lz4, one block (EIGER1)": dict(hdf5plugin.LZ4()),
        "lz4, 8192 bytes (EIGER2)": dict(hdf5plugin.LZ4(nbytes=8192)),
    }
    warnings.simplefilter("ignore")  # those of the others' readers
    for title, compression in kinds.items():
        with tempfile.TemporaryDirectory() as folder:
            rows += reading(Path(folder), title, compression, peers=title == "bslz4")
    rows += ["", "| what | | | aim |", "|---|--:|--:|--:|"]
    with tempfile.TemporaryDirectory() as folder:
        rows += other_rows(Path(folder))
    results.show("\n".join(rows) + "\n", "reading", write=keep)


if __name__ == "__main__":
    main()
