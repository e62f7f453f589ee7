"""Images from files into memory: the reader beside h5py, fabio and area-detector-handlers.

    python benchmarks/reading.py [--write]

All read the same files of 4M images, Poisson counts of mean 0.1, from the page cache, in turns and
each in a new process, twice: a program that goes through a file once is "once", one that goes on is
"again". By then glibc keeps memory that was freed; before, h5py and what is built on it get each
image's from the kernel, page by page, which takes as long as decompressing it. An image is read
into an array that was used before wherever the reader in question can do that; what each gives is
compared with h5py's. "wheels alone" is the codec of hdf5plugin's wheel, "with the accelerator" that
of dectris-compression, which is left out where it is not installed. What the codec alone takes for
chunks in memory, in as many threads, is the limit of any reader.
"""

import argparse
import importlib.util
import io
import multiprocessing
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import results

SHAPE = (2167, 2070)
IMAGES, DIFFERENT = 200, 8
LOOP, FEW = 80, 40  # of those that take longer
MANY = 1000
RUNS = 3
ROI = np.s_[1000:1100, 900:1000]
OURS = "ophyd_eiger.reader"


@dataclass(frozen=True)
class Reader:
    """What reads so many images of a file into an array, or returns them; and what it imports."""

    read: Callable[[Path, np.ndarray, int], np.ndarray | None]
    images: int = IMAGES
    module: str = "h5py"
    is_compared: bool = True


def chunks(compression: dict, mean: float = 0.1) -> list[bytes]:
    """Return different images, each compressed."""
    random = np.random.default_rng(1)
    images = [random.poisson(mean, SHAPE).astype("<u2") for _ in range(DIFFERENT)]
    for image in images:
        image[514:551] = image[:, 1030:1040] = 65535
    with h5py.File(io.BytesIO(), "w") as file:
        made = file.create_dataset("d", data=images, chunks=(1, *SHAPE), **compression)
        return [made.id.read_direct_chunk((n, 0, 0))[1] for n in range(DIFFERENT)]


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


# ---- each in a process of its own ----


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def images_per_second(reader: Reader, path: Path) -> tuple[float, float]:
    """Return it of the first and of the second time."""
    warnings.simplefilter("ignore")  # those of the others' readers
    importlib.import_module(reader.module)
    out = np.ones((IMAGES, *SHAPE), "<u2")
    once, again = (
        reader.images / seconds(lambda: reader.read(path, out, reader.images)) for _ in range(2)
    )
    if reader.is_compared:
        given = reader.read(path, out, reader.images)
        compare(path, out if given is None else given, reader.images)
    return once, again


def compare(path: Path, given: np.ndarray, count: int) -> None:
    """See that images are those that h5py reads."""
    with h5py.File(path) as file:
        for number in (0, DIFFERENT - 1, count - 1):
            if not np.array_equal(given[number], file["entry/data/data"][number]):
                raise RuntimeError(f"{path}: another image {number}")


def in_turns(readers: dict[str, Reader], path: Path) -> dict[str, tuple[float, float]]:
    """Return the median images a second of each, once and again."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in readers}
    context = multiprocessing.get_context("spawn")
    for _ in range(RUNS):
        for name, reader in readers.items():
            with ProcessPoolExecutor(1, mp_context=context) as alone:
                taken[name].append(alone.submit(images_per_second, reader, path).result())
    return {
        name: (statistics.median(once for once, _ in rates), statistics.median(a for _, a in rates))
        for name, rates in taken.items()
    }


def by_h5py(path: Path, out: np.ndarray, count: int) -> None:
    with h5py.File(path) as file:
        images = file["entry/data/data"]
        for number in range(count):
            out[number] = images[number]


def by_fabio(path: Path, out: np.ndarray, count: int) -> None:
    import fabio

    with fabio.open(path) as images:
        for number in range(count):
            out[number] = images.getframe(number).data


def by_handlers(path: Path, _: np.ndarray, count: int) -> np.ndarray:
    from area_detector_handlers.eiger import EigerHandler

    handler = EigerHandler(str(path).partition("_1_data")[0], images_per_file=1)
    return handler(1)[:count].compute()


def by_memcpy(_: Path, out: np.ndarray, count: int) -> None:
    if count not in _sources:
        _sources[count] = np.ones((count, *SHAPE), "<u2")
    np.copyto(out, _sources[count])


_sources: dict[int, np.ndarray] = {}


def by_ours(path: Path, out: np.ndarray, count: int, *, codec: str) -> None:
    from ophyd_eiger import open_series

    open_series(path, codec=codec).read(0, count, out=out)


def by_codec(path: Path, out: np.ndarray, count: int, *, codec: str) -> None:
    """Decompress chunks that are in memory and known to be whole: what any reader has to do."""
    from ophyd_eiger import codecs
    from ophyd_eiger.chunks import check_chunk
    from ophyd_eiger.parallel import do_all, processors

    if path not in _chunks:
        with h5py.File(path) as file:
            images = file["entry/data/data"]
            code = images.id.get_create_plist().get_filter(0)[0]
            raw = [images.id.read_direct_chunk((n, 0, 0))[1] for n in range(DIFFERENT)]
        _chunks[path] = [(one, check_chunk(one, [code], SHAPE, out.dtype)) for one in raw]
    work = codecs.codec(codec)

    def decode(number: int) -> None:
        raw, blocks = _chunks[path][number % DIFFERENT]
        work.decode(raw, blocks, out.itemsize, out[number].reshape(-1).view("u1"))

    do_all(decode, range(count), processors())


_chunks: dict[Path, list] = {}


def roi_by_ours(path: Path, _: np.ndarray, count: int, *, codec: str) -> np.ndarray:
    from ophyd_eiger import open_series

    return open_series(path, codec=codec)[:count, *ROI]


def sum_by_ours(path: Path, _: np.ndarray, count: int, *, codec: str) -> np.ndarray:
    from ophyd_eiger import open_series

    return open_series(path, codec=codec).sum(slice(count))


def sum_by_h5py(path: Path, _: np.ndarray, count: int) -> np.ndarray:
    total = np.zeros(SHAPE, np.uint64)
    with h5py.File(path) as file:
        for number in range(count):
            total += file["entry/data/data"][number]
    return total


def codec_names() -> dict[str, str]:
    from ophyd_eiger import codecs

    found = {"ours, wheels alone": "hdf5plugin"}
    if "dectris-compression" in codecs.available():
        found["ours, with the accelerator"] = "dectris-compression"
    return found


# ---- the tables ----


def reading(folder: Path, title: str, compression: dict, *, peers: bool) -> list[str]:
    """Return the rows of whole images into one array."""
    raw = chunks(compression)
    path = folder / "b_1_data_000001.h5"
    write(path, raw, compression, IMAGES)
    write_master(folder / "b_1_master.h5", [path.name], IMAGES)
    readers = {
        "h5py `out[i] = d[i]`": Reader(by_h5py, LOOP),
        "memcpy": Reader(by_memcpy, is_compared=False),
    }
    for label, name in codec_names().items():
        readers[label] = Reader(partial(by_ours, codec=name), module=OURS)
        readers[f"the codec alone, of {label}"] = Reader(partial(by_codec, codec=name), module=OURS)
    if peers:
        readers["fabio `getframe`"] = Reader(by_fabio, FEW, "fabio")
        if importlib.util.find_spec("area_detector_handlers"):
            handlers = Reader(by_handlers, FEW, "area_detector_handlers.eiger")
            readers["area-detector-handlers `.compute()`"] = handlers
    rates = in_turns(readers, path)
    loop, copy = list(rates.values())[:2]
    return [
        f"| {title} | {name} | "
        + " | ".join(
            f"{rate[n]:.0f} | {rate[n] / loop[n]:.2f} | {rate[n] / copy[n]:.2f}" for n in (0, 1)
        )
        + " |"
        for name, rate in rates.items()
    ]


def sums(folder: Path, mean: float, count: int, aim: str) -> str:
    """Return the row of the sum of images."""
    compression = dict(hdf5plugin.Bitshuffle())
    path = folder / f"s{mean:g}_data_000001.h5"
    write(path, chunks(compression, mean), compression, count)
    theirs, own = in_turns(
        {
            "h5py": Reader(sum_by_h5py, FEW, is_compared=False),
            "ours": Reader(
                partial(sum_by_ours, codec="hdf5plugin"), count, OURS, is_compared=False
            ),
        },
        path,
    ).values()
    return (
        f"| sum of {count} images of mean {mean:g}, wheels alone | {own[0]:.0f} images/s "
        f"| {own[0] / theirs[0]:.1f} x the h5py loop once, {own[1] / theirs[1]:.1f} x again "
        f"| {aim} |"
    )


def regions(folder: Path) -> str:
    """Return the row of a region."""
    compression = dict(hdf5plugin.Bitshuffle())
    path = folder / "r_data_000001.h5"
    write(path, chunks(compression), compression, IMAGES)
    whole, roi = in_turns(
        {
            "whole": Reader(partial(by_ours, codec="hdf5plugin"), module=OURS),
            "roi": Reader(partial(roi_by_ours, codec="hdf5plugin"), module=OURS, is_compared=False),
        },
        path,
    ).values()
    return (
        f"| 100 x 100 pixels of {IMAGES} images, wheels alone | {roi[1]:.0f} images/s "
        f"| {roi[1] / whole[1]:.1f} x whole images | >= 5 |"
    )


def first_image(folder: Path) -> str:
    """Return the row of the first image of many files."""
    from ophyd_eiger import open_series

    compression = dict(hdf5plugin.Bitshuffle())
    raw = chunks(compression)
    names = [f"f_data_{number:06d}.h5" for number in range(1, MANY + 1)]
    for number, name in enumerate(names, 1):
        write(folder / name, raw, compression, 1, number)
    write_master(folder / "f_master.h5", names, MANY)
    first = statistics.median(
        seconds(lambda: open_series(folder / "f_master.h5")[0]) for _ in range(RUNS)
    )
    return f"| first image of a series of {MANY} files | {first * 1e3:.0f} ms | | <= 100 ms |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    results.add_flag(parser)
    keep = parser.parse_args().write
    rows = [
        f"{IMAGES} images of 4M, 16 bit, into one array ({LOOP} by h5py, {FEW} by fabio and by "
        f"area-detector-handlers); medians of {RUNS} new processes in turns.",
        "",
        "| compression | reader | once, images/s | x h5py | of memcpy "
        "| again, images/s | x h5py | of memcpy |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    kinds = {
        "bslz4": dict(hdf5plugin.Bitshuffle()),
        "lz4, one block (EIGER1)": dict(hdf5plugin.LZ4()),
        "lz4, 8192 bytes (EIGER2)": dict(hdf5plugin.LZ4(nbytes=8192)),
    }
    for title, compression in kinds.items():
        with tempfile.TemporaryDirectory() as folder:
            rows += reading(Path(folder), title, compression, peers=title == "bslz4")
    rows += ["", "| what | | | aim |", "|---|--:|--:|--:|"]
    with tempfile.TemporaryDirectory() as folder:
        rows.append(sums(Path(folder), 0.1, MANY, ">= 3"))
        rows.append(sums(Path(folder), 3000, IMAGES, ""))
        rows.append(regions(Path(folder)))
        rows.append(first_image(Path(folder)))
    results.show("\n".join(rows) + "\n", "reading", write=keep)


if __name__ == "__main__":
    main()
