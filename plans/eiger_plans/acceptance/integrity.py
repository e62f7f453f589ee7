"""Are the files of a series what they should be: names, tree, numbers, pixels, what they say.

Looks at files on this computer, and once at the DCU, for which files it has and for their bytes a
second time. Knows no plans.
"""

import hashlib
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from eiger_plans.acceptance.asking import Asking
from eiger_plans.acceptance.findings import Check, Section
from ophyd_eiger import EigerError, Series, open_series, read_metadata

# What `format` of an EIGER2 ends in where its masters are as those of an EIGER.
LEGACY = "legacy nxmx"
# In s: how long a DCU may take to list a file once its file writer says that it is done, and how
# long that may write after the last image.
LISTED_S, WRITTEN_S = 2.0, 60.0
_PERIOD_S = 0.05
_PIECE = 2**20
# Groups and arrays of each generation's master that its readers need.
GROUPS = (
    *("entry", "entry/data", "entry/instrument", "entry/instrument/beam"),
    *("entry/instrument/detector", "entry/instrument/detector/detectorSpecific", "entry/sample"),
)
ARRAYS = tuple(
    f"entry/instrument/detector/detectorSpecific/{name}" for name in ("pixel_mask", "flatfield")
)
# What the master says of its series, by the setting of that name; floats in single precision.
STATED = (
    *("nimages", "ntrigger", "trigger_mode", "count_time", "frame_time", "photon_energy"),
    *("threshold_energy", "x_pixel_size", "y_pixel_size", "sensor_material", "sensor_thickness"),
    *("detector_number", "description", "bit_depth_image"),
)

# Where a data file has its images, and what says which they are.
IMAGES, NUMBERED = "entry/data/data", ("low", "high")
# Settings without which images cannot be judged.
NEEDED = ("x_pixels_in_detector", "y_pixels_in_detector", "bit_depth_image")
# What else is asked for when a series is armed.
ARMED_WITH = (
    *(f"detector/config/{name}" for name in STATED),
    *("detector/config/x_pixels_in_detector", "detector/config/y_pixels_in_detector"),
    *("detector/config/mask_to_zero", "detector/config/pixel_mask_applied"),
    *("filewriter/config/name_pattern", "filewriter/config/image_nr_start"),
    "filewriter/config/format",
)


@dataclass
class Taken:
    """A series that was taken, and what is known of it.

    Attributes
    ----------
    name : str
        What the checks are called after, as in "ints, several files".
    nimages, ntrigger, images_per_file : int
        As it was set up.
    basename : str
        What its files' names start with.
    series_id : int
        Its number.
    settings : dict
        What was asked for of `ARMED_WITH`, by the last part of the names.
    home : dict of Path
        Where its files are here, by their names on the DCU.
    dropped : int
        How many images the monitor had dropped when it was armed.
    """

    name: str
    nimages: int
    ntrigger: int
    images_per_file: int
    basename: str = ""
    series_id: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    home: Mapping[str, Path] = field(default_factory=dict)
    dropped: int = 0

    @property
    def images(self) -> int:
        """How many images it has."""
        return self.nimages * self.ntrigger

    @property
    def data_files(self) -> list[str]:
        """The names of its data files."""
        if self.images_per_file == 0:
            return []
        count = math.ceil(self.images / self.images_per_file)
        return [f"{self.basename}_data_{number:06d}.h5" for number in range(1, count + 1)]

    @property
    def master(self) -> str:
        """The name of its master file."""
        return f"{self.basename}_master.h5"

    @property
    def files(self) -> list[str]:
        """The names of all its files."""
        return [*self.data_files, self.master]


def published(asking: Asking, taken: Taken, section: Section) -> Iterator[Check]:
    """See that the DCU lists every file as soon as its file writer says that it is done."""
    name = f"{taken.name}: filewriter/files"
    expected = f"{len(taken.files)} files, {LISTED_S:g} s after the file writer is done at most"
    began = time.monotonic()
    try:
        while asking.value("filewriter/status/state") == "acquire":
            if time.monotonic() > began + WRITTEN_S:
                yield section.failed(name, expected, f"it still writes after {WRITTEN_S:g} s")
                return
            time.sleep(_PERIOD_S)
        done = time.monotonic()
        while missing := sorted(set(taken.files) - set(asking.client.files())):
            if time.monotonic() > done + LISTED_S:
                break
            time.sleep(_PERIOD_S)
        waited = time.monotonic() - done
    except EigerError as error:
        yield section.failed(name, expected, error)
        return
    found = f"missing: {', '.join(missing)}" if missing else f"{len(taken.files)} files"
    yield section.check(name, expected, f"{found} after {waited:.2f} s", good=not missing)


def integrity(taken: Taken, section: Section) -> Iterator[Check]:
    """Look into the files that came home."""
    missing = [name for name in taken.files if name not in taken.home]
    found = f"missing: {', '.join(missing)}" if missing else f"{len(taken.home)} files"
    name = f"{taken.name}: files"
    yield section.check(name, f"{len(taken.files)} files", found, good=not missing)
    if missing:
        return
    try:
        if str(taken.settings.get("format", LEGACY)).endswith(LEGACY):
            yield _tree(taken, section)
        for file in taken.data_files:
            yield _numbers(taken, file, section)
        with open_series(taken.home[taken.master]) as series:
            yield from _images(taken, series, section)
            yield from _stated(taken, series, section)
    except (EigerError, OSError) as error:
        # Of h5py too, whose errors are OSErrors, and name the file.
        yield section.failed(f"{taken.name}: contents", "files that open", error)
    except (LookupError, TypeError, ValueError) as error:
        # These do not say what they are.
        found = f"{type(error).__name__}: {error}"
        yield section.failed(f"{taken.name}: contents", "files as they are to be", found)


def _tree(taken: Taken, section: Section) -> Check:
    wrong = []
    with h5py.File(taken.home[taken.master]) as file:
        for path in GROUPS:
            if not isinstance(file.get(path), h5py.Group):
                wrong.append(f"no group {path}")
            elif "NX_class" not in file[path].attrs:
                wrong.append(f"{path} has no NX_class")
        wrong += [f"no {path}" for path in ARRAYS if path not in file]
        data: Any = file.get("entry/data")
        links = [data.get(name, getlink=True) for name in sorted(data or ())]
        linked = [link.filename for link in links if isinstance(link, h5py.ExternalLink)]
    if linked != taken.data_files:
        wrong.append(f"it links {', '.join(linked) or 'no file'}")
    expected = f"groups, arrays, links to {len(taken.data_files)} data files"
    name = f"{taken.name}: {taken.master}"
    return section.check(name, expected, "; ".join(wrong) or expected, good=not wrong)


def _numbers(taken: Taken, file: str, section: Section) -> Check:
    number = taken.data_files.index(file)
    start = int(taken.settings.get("image_nr_start", 1))
    first = start + number * taken.images_per_file
    last = min(first + taken.images_per_file, start + taken.images) - 1
    with h5py.File(taken.home[file]) as opened:
        data: Any = opened.get(IMAGES)
        if isinstance(data, h5py.Dataset):
            ends = [data.attrs.get(f"image_nr_{end}", f"no image_nr_{end}") for end in NUMBERED]
            found = f"{len(data)} images, {ends[0]} to {ends[1]}"
        else:
            found = f"no {IMAGES}"
    expected = f"{last - first + 1} images, {first} to {last}"
    return section.same(f"{taken.name}: {file}", expected, found)


def _images(taken: Taken, series: Series, section: Section) -> Iterator[Check]:
    settings = taken.settings
    unknown = [key for key in NEEDED if settings.get(key) is None]
    if unknown:
        found = f"the DCU did not say what {', '.join(unknown)} is"
        yield section.failed(f"{taken.name}: images", "images of the detector's size", found)
        return
    height, width = settings["y_pixels_in_detector"], settings["x_pixels_in_detector"]
    expected = f"{taken.images} of {height} x {width} pixels"
    found = f"{len(series)} of {series.shape[1]} x {series.shape[2]} pixels"
    yield section.same(f"{taken.name}: images", expected, found)
    depth = settings["bit_depth_image"]
    name = f"{taken.name}: pixels"
    yield section.same(name, f"uint{depth}", str(series.dtype))
    masked = np.flatnonzero(series.mask)
    fill = 0 if settings.get("mask_to_zero") else np.iinfo(series.dtype).max
    wrong, buffer = 0, None
    for number in range(len(series)):
        buffer = series.read(number, number + 1, out=buffer)
        wrong += int(np.count_nonzero(buffer.reshape(-1)[masked] != fill))
    expected = f"all decompress; masked ones hold {fill}"
    if not settings.get("pixel_mask_applied", True):
        wrong = 0
    found = expected if not wrong else f"{wrong} masked pixels hold something else"
    yield section.check(f"{name} of every image", expected, found, good=not wrong)


def _stated(taken: Taken, series: Series, section: Section) -> Iterator[Check]:
    wrong, said = [], 0
    metadata = read_metadata(series.master_path, series.source.channel, STATED)
    for key in STATED:
        there = getattr(metadata, key)
        here = taken.settings.get(key)
        if there is None or here is None:
            continue
        said += 1
        if isinstance(here, float):
            good = math.isclose(there, here, rel_tol=1e-6)
        else:
            good = there == here
        if not good:
            wrong.append(f"{key} is {there!r}, set was {here!r}")
    expected = f"{said} settings as they were set"
    name = f"{taken.name}: what {taken.master} says"
    yield section.check(name, expected, "; ".join(wrong) or expected, good=not wrong)


def downloads(asking: Asking, taken: Taken, section: Section, least_rate: float) -> Iterator[Check]:
    """Fetch every file a second time: the same bytes, and how fast.

    Parameters
    ----------
    asking : Asking
        Asks the DCU.
    taken : Taken
        A series whose files are home.
    section : Section
        Of the checks.
    least_rate : float
        In MB/s, of the largest file.
    """
    rates: dict[int, float] = {}
    for file in taken.files:
        name, expected = f"{taken.name}: {file} again", "the same bytes, by SHA-256"
        try:
            digest, size, seconds = _digest_there(asking, file)
        except EigerError as error:
            yield section.failed(name, expected, error)
            continue
        rates[size] = size / 1e6 / max(seconds, 1e-6)
        here = _digest_here(taken.home[file])
        found = f"{digest}" if digest == here else f"{digest}, at home {here}"
        yield section.check(name, expected, found, good=digest == here)
    if rates:
        size = max(rates)
        found = f"{rates[size]:.0f} MB/s of {size / 1e6:.1f} MB"
        expected = f"at least {least_rate:g} MB/s"
        good = rates[size] >= least_rate
        yield section.check(f"{taken.name}: download", expected, found, good=good)


def _digest_there(asking: Asking, file: str) -> tuple[str, int, float]:
    digest, size, buffer = hashlib.sha256(), 0, memoryview(bytearray(_PIECE))
    busy, began = 0.0, time.monotonic()
    with asking.client.open_file(file) as body:
        while count := body.read_into(buffer):
            hashing = time.monotonic()
            digest.update(buffer[:count])
            busy += time.monotonic() - hashing
            size += count
    return digest.hexdigest(), size, time.monotonic() - began - busy


def _digest_here(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
