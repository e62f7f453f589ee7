"""Holds a file against the golden trees: each object, its type, how it is stored, its value.

The golden trees are descriptions of real files (`golden/make.py`) and, for an EIGER2's master
file, `golden/eiger2_master.py`. What a file must say follows from the configuration that the
series was armed with. Shares no code with the file writer.
"""

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import h5py
import numpy as np
from golden import eiger2_master
from golden.make import HERE, superblock, walk

from sim_dcu.series import ArmedSeries

SPECIFIC = "/entry/instrument/detector/detectorSpecific"
STACK = "/entry/data/data"
MODULE = re.compile(r"detectorModule_(\d{3})")

# Half modules of a module, and modules by the shape (y, x) of an EIGER1's images (the maker's
# sizes).
MODULES = {(514, 1030): (1, 1), (1065, 1030): (1, 2), (2167, 2070): (2, 4)}

# The copy of the real master at hand was made smaller by its publisher (its README says how), so
# that these are chunked and compressed there, and the masks are bytes. Contiguous arrays of uint32
# are what neggia reads and SPring-8 documents of real files.
SHRUNK = (
    "flatfield",
    "pixel_mask",
    "detectorModule_*/countrate_correction_lookup_table",
    "detectorModule_*/countrate_correction_table",
    "detectorModule_*/flatfield",
    "detectorModule_*/pixel_mask",
    "detectorModule_*/trimbit",
)
AS_WRITTEN = {
    "allocation": "late",
    "chunks": None,
    "fill_time": "if set",
    "fill_value": "user",
    "filters": [],
    "layout": "contiguous",
}
# Names whose key in detector/config is another one.
EIGER1_KEYS = {
    "/entry/instrument/beam/incident_wavelength": "wavelength",
    "/entry/instrument/detector/geometry/orientation/value": "detector_orientation",
    "/entry/instrument/detector/geometry/translation/distances": "detector_translation",
}
AXES = {
    "/entry/instrument/detector/goniometer": ("two_theta",),
    "/entry/sample/goniometer": ("chi", "kappa", "omega", "phi"),
}
# By bytes of a pixel.
PIXEL_TYPES = {1: "|u1", 2: "<u2", 4: "<u4"}


def is_eiger2(series: ArmedSeries) -> bool:
    return "EIGER2" in series.detector["description"]


def as_told(name: str) -> dict:
    """Return the description of a real file, or of the copy at hand."""
    return json.loads((HERE / name).read_text())


def golden(name: str) -> dict:
    """Return the description of a real file, with attributes as DECTRIS writes them.

    In the copy of a master they are padded with zeros, as programs have it that copy attributes.
    The data files that nobody copied have them null-terminated, and durin, the plugin of XDS for
    masters of real EIGERs, finds no NeXus class that is not.
    """
    told = as_told(name)
    for entry in told["objects"].values():
        for attribute in entry.get("attributes", {}).values():
            attribute["type"] = attribute["type"].replace("null-padded", "null-terminated")
    return told


def faults(path: Path, series: ArmedSeries, number: int = 0, images: int | None = None) -> list:
    """Return what is wrong with a file of a series.

    Parameters
    ----------
    path : Path
        The file.
    series : ArmedSeries
        What it was armed with.
    number : int
        Of the data file, from 1; 0 is the master.
    images : int or None
        How many came in all; every one by default.
    """
    came = series.images if images is None else images
    found = []
    promised = eiger2_master.SUPERBLOCK if is_eiger2(series) else EIGER1_SUPERBLOCK
    if superblock(path) != promised:
        found.append(f"superblock {superblock(path)} instead of {promised}")
    with h5py.File(path) as file:
        expected = master_tree(series, came) if number == 0 else data_tree(series, number, came)
        return found + list(differences(file, expected))


def differences(file: h5py.File, expected: dict[str, dict]) -> Iterator[str]:
    """Yield each difference of an open file from the expected objects."""
    found = dict(walk(file["/"]))
    for path in sorted(found.keys() | expected.keys()):
        if path not in found or path not in expected:
            yield f"{path} is {'missing' if path in expected else 'not expected'}"
            continue
        wanted = dict(expected[path])
        value = wanted.pop("value", None)
        header = wanted.pop("chunk_header", None)
        for aspect, right in wanted.items():
            there = found[path].get(aspect)
            if not _equal(there, right):
                yield f"{path}: {aspect} {there!r} instead of {right!r}"
        if value is not None and not _holds(file[path], value):
            yield f"{path}: its value is not {value!r}"
        if header is not None and file[path].chunks:
            yield from _wrong_chunks(file[path], header)


def _equal(there: object, right: object) -> bool:
    if isinstance(there, dict) and isinstance(right, dict):
        same = there.keys() == right.keys()
        return same and all(_equal(there[key], right[key]) for key in right)
    if isinstance(right, list) and right and isinstance(right[0], float):
        return np.shape(there) == np.shape(right) and np.allclose(there, right, 0, 1e-12)
    return there == right


def _holds(dataset: h5py.Dataset, value: object) -> bool:
    if isinstance(value, str):
        return dataset.dtype.kind == "S" and dataset[()] == value.encode()
    if dataset.dtype.kind not in "fiu" or dataset.shape != np.shape(value):
        return False
    exact = dataset.dtype.kind != "f"
    tolerance = 0 if exact else 4 * np.finfo(dataset.dtype).eps
    return bool(np.allclose(dataset[()], np.asarray(value, float), tolerance, tolerance * 1e-3))


def _wrong_chunks(stack: h5py.Dataset, header: bytes) -> Iterator[str]:
    """Yield what is wrong with the chunks' headers: real ones have the size and the block size."""
    name, stored = stack.name, stack.id.get_num_chunks()
    if stored != len(stack) or stack.chunks[0] != 1:
        yield f"{name}: {stored} chunks for {len(stack)} images"
        return
    for index in range(len(stack)):
        mask, chunk = stack.id.read_direct_chunk((index, 0, 0))
        if mask != 0:
            yield f"{name}: chunk {index} has the filter mask {mask}"
        if chunk[:12] != header:
            yield f"{name}: chunk {index} begins with {chunk[:12].hex()}, not {header.hex()}"


# ---- what is expected


EIGER1_SUPERBLOCK = golden("eiger1_9M_master.json")["superblock"]
EIGER1_MASTER = golden("eiger1_9M_master.json")["objects"]
DATA_FILES = {
    generation: {
        path: {aspect: value for aspect, value in entry.items() if aspect != "value"}
        for path, entry in golden(name)["objects"].items()
    }
    for generation, name in (
        (1, "eiger1_1M_data_000001.json"),
        (2, "eiger2_500K_data_000001.json"),
    )
}


def data_tree(series: ArmedSeries, number: int, came: int) -> dict[str, dict]:
    """Return the objects of data file `number`."""
    objects = deepcopy(DATA_FILES[2 if is_eiger2(series) else 1])
    per_file = series.filewriter["nimages_per_file"]
    before = (number - 1) * per_file
    objects[STACK] = stack(series, before, min(per_file, came - before))
    return objects


def stack(series: ArmedSeries, before: int, count: int) -> dict:
    """Return the description of the images `before` + 1 to `before` + `count`."""
    entry = deepcopy(DATA_FILES[2 if is_eiger2(series) else 1][STACK])
    detector = series.detector
    size = [detector["y_pixels_in_detector"], detector["x_pixels_in_detector"]]
    itemsize = detector["bit_depth_image"] // 8
    entry["type"] = PIXEL_TYPES[itemsize]
    entry["shape"] = [count, *size]
    entry["maxshape"] = [None, *size]
    entry["chunks"] = [1, *size]
    if is_eiger2(series):
        entry["fill"] = 2 ** (8 * itemsize) - 1
    compression = detector["compression"]
    if not series.filewriter["compression_enabled"]:
        compression = "none"
    image_bytes = size[0] * size[1] * itemsize
    block = 8192
    if compression == "bslz4":
        entry["filters"][0][2][2] = itemsize
    else:
        # lz4 as measured on real files of both generations, which are not at hand.
        entry["filters"] = [[32004, 0, []]] if compression == "lz4" else []
        if compression == "lz4" and not is_eiger2(series):
            block = image_bytes
    header = image_bytes.to_bytes(8, "big") + block.to_bytes(4, "big")
    entry["chunk_header"] = None if compression == "none" else header
    first = series.filewriter["image_nr_start"] + before
    entry["attributes"]["image_nr_low"]["value"] = first
    entry["attributes"]["image_nr_high"]["value"] = first + count - 1
    return entry


def master_tree(series: ArmedSeries, came: int) -> dict[str, dict]:
    """Return the objects of the master file."""
    objects = eiger2_master.described() if is_eiger2(series) else _eiger1_objects(series)
    keys = eiger2_master.KEYS if is_eiger2(series) else EIGER1_KEYS
    values = {**_axis_values(series), **(_eiger2_values(series) if is_eiger2(series) else {})}
    for path, entry in objects.items():
        if entry["kind"] != "dataset":
            continue
        key = keys.get(path, path.rsplit("/", 1)[1])
        value = values.get(path)
        if value is None and not MODULE.search(path):
            value = series.detector[key]
        if value is not None:
            _give_value(entry, value)
    if is_eiger2(series):
        vector = objects["/entry/instrument/detector/transformations/translation"]
        vector["attributes"]["vector"]["value"] = _direction(series)
    _add_links(objects, series)
    if series.filewriter["nimages_per_file"] == 0:
        objects[STACK] = stack(series, 0, came)
    return objects


def _give_value(entry: dict, value: object) -> None:
    entry["value"] = value
    if isinstance(value, str):
        # One byte more than the text; an empty one has more room in a real EIGER1 file.
        size = max(len(value) + 1, 3 if value == "" and entry["type"] != "text" else 1)
        entry["type"] = f"ASCII string of {size} bytes, null-padded"
    entry["shape"] = entry["maxshape"] = list(np.shape(value))


def _axis_values(series: ArmedSeries) -> dict[str, object]:
    values = {}
    for group, axes in AXES.items():
        for axis in axes:
            start = series.detector[f"{axis}_start"]
            increment = series.detector[f"{axis}_increment"]
            starts = [start + number * increment for number in range(series.images)]
            values[f"{group}/{axis}"] = starts
            values[f"{group}/{axis}_end"] = [angle + increment for angle in starts]
            values[f"{group}/{axis}_range_average"] = increment
            values[f"{group}/{axis}_range_total"] = increment * series.images
    return values


def _eiger2_values(series: ArmedSeries) -> dict[str, object]:
    detector = series.detector
    omega = "/entry/sample/transformations/omega"
    module = "/entry/instrument/detector/module"
    return {
        "/entry/definition": "NXmx",
        "/entry/instrument/detector/type": "HPC",
        "/entry/instrument/detector/depends_on": eiger2_master.TRANSLATION,
        "/entry/sample/depends_on": omega,
        omega: _axis_values(series)["/entry/sample/goniometer/omega"],
        f"{module}/data_origin": [0, 0],
        f"{module}/data_size": [
            detector["y_pixels_in_detector"],
            detector["x_pixels_in_detector"],
        ],
        f"{module}/module_index": 0,
        f"{module}/module_offset": 0.0,
        f"{module}/fast_pixel_direction": 7.5e-05,
        f"{module}/slow_pixel_direction": 7.5e-05,
        eiger2_master.TRANSLATION: float(np.linalg.norm(_place(series))),
    }


def _place(series: ArmedSeries) -> np.ndarray:
    """Return the first pixel's place in m, in the default orientation (API reference 1.8)."""
    detector = series.detector
    beam_center = detector["beam_center_x"], detector["beam_center_y"]
    return np.array([*(7.5e-05 * pixel for pixel in beam_center), detector["detector_distance"]])


def _direction(series: ArmedSeries) -> list[float]:
    place = _place(series)
    length = np.linalg.norm(place)
    # Where the length is 0, any direction would do: along the beam.
    return (place / length).tolist() if length else [0.0, 0.0, 1.0]


def _add_links(objects: dict, series: ArmedSeries) -> None:
    if per_file := series.filewriter["nimages_per_file"]:
        name = series.filewriter["name_pattern"].replace("$id", str(series.series_id))
        target = eiger2_master.LINK_TARGET if is_eiger2(series) else "entry/data/data"
        for number in range(1, -(-series.images // per_file) + 1):
            objects[f"/entry/data/data_{number:06d}"] = {
                "kind": "external link",
                "file": f"{name.rsplit('/', 1)[-1]}_data_{number:06d}.h5",
                "target": target,
            }


def _eiger1_objects(series: ArmedSeries) -> dict[str, dict]:
    """Return the real 9M's objects as they were before they were made smaller, for any size."""
    size = series.detector["y_pixels_in_detector"], series.detector["x_pixels_in_detector"]
    columns, rows = MODULES[size]
    objects = {}
    for path, real in EIGER1_MASTER.items():
        if real["kind"] == "external link":
            continue
        entry = {aspect: told for aspect, told in real.items() if aspect != "value"}
        name = path.removeprefix(f"{SPECIFIC}/")
        if name in SHRUNK:
            entry.pop("fill", None)
            entry |= AS_WRITTEN
        if name.endswith("pixel_mask"):
            entry["type"] = "<u4"
        if entry["kind"] == "dataset" and name not in SHRUNK:
            # The copy was cut to one image, and some datasets written anew without it.
            entry["fill_value"] = "user"
            if not entry["type"].startswith("ASCII"):
                entry["fill"] = 0
        if "detectorModule_*" not in path:
            objects[path] = entry
            continue
        for half in range(2 * columns * rows):
            own = path.replace("detectorModule_*", f"detectorModule_{half:03d}")
            objects[own] = dict(entry)
            place = _half_module_value(name.partition("/")[2], half, columns)
            if place is not None:
                objects[own]["value"] = place
    return objects


def _half_module_value(name: str, half: int, columns: int) -> object:
    """Return what is known of a half module: where it lies, by the real 9M's rule."""
    row, column = divmod(half // 2, columns)
    turned = half % 2
    return {
        "data_origin": [1040 * column + 1030 * turned, 257 + 551 * row],
        "data_size": [1030, 257],
        "data_rotation": 180 * turned,
    }.get(name)
