"""Describe an EIGER file as JSON, and make the descriptions of real files that tests compare with.

    python tests/files/golden/make.py

writes one JSON file beside this script for each file in `REAL_FILES`, read from the folder that
the environment variable EIGER_TEST_DATA names (default: `../shared/data` beside the checkout). A
description holds structure and scalar values, no image data. Half modules and data files are
described once, under `detectorModule_*` and `data_*`.
"""

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  (registers the filters)
import numpy as np

HERE = Path(__file__).parent
DATA = Path(
    os.environ.get("EIGER_TEST_DATA", Path(__file__).resolve().parents[4] / "shared" / "data")
)
_TESTMODE = "eiger1_1M/eiger1_testmode10_2datafiles_4images_bslz4_data_00000"
_SIMREAD = "eiger2_500K/eiger2_simread7_2datafiles_4images_bslz4_uint32_data_00000"
REAL_FILES = {
    "eiger1_9M_master.json": "eiger1_9M_master/dectris_eiger_master.h5",
    "eiger1_1M_data_000001.json": f"{_TESTMODE}1.h5",
    "eiger1_1M_data_000002.json": f"{_TESTMODE}2.h5",
    "eiger2_500K_data_000001.json": f"{_SIMREAD}1.h5",
    "eiger2_500K_data_000002.json": f"{_SIMREAD}2.h5",
}

LAYOUTS = {h5py.h5d.CONTIGUOUS: "contiguous", h5py.h5d.CHUNKED: "chunked"}
ALLOCATIONS = {
    h5py.h5d.ALLOC_TIME_LATE: "late",
    h5py.h5d.ALLOC_TIME_INCR: "incremental",
    h5py.h5d.ALLOC_TIME_EARLY: "early",
}
FILL_TIMES = {
    h5py.h5d.FILL_TIME_IFSET: "if set",
    h5py.h5d.FILL_TIME_ALLOC: "at allocation",
    h5py.h5d.FILL_TIME_NEVER: "never",
}
FILL_VALUES = {
    h5py.h5d.FILL_VALUE_UNDEFINED: "undefined",
    h5py.h5d.FILL_VALUE_DEFAULT: "default",
    h5py.h5d.FILL_VALUE_USER_DEFINED: "user",
}
PADDINGS = {h5py.h5t.STR_NULLTERM: "null-terminated", h5py.h5t.STR_NULLPAD: "null-padded"}
LARGEST_SHOWN = 6  # numbers in an array whose values belong to the description


def describe(path: Path) -> dict:
    """Return the superblock, every object and the place of each half module of a file."""
    objects: dict[str, dict] = {}
    modules = []
    with h5py.File(path) as file:
        for name, entry in walk(file["/"]):
            general = re.sub(r"detectorModule_\d{3}", "detectorModule_*", name)
            if "detectorModule_*" in general:
                entry.pop("value", None)
            if objects.setdefault(general, entry) != entry:
                raise ValueError(f"{path}: {name} is built otherwise than the half modules before")
            if re.search(r"detectorModule_\d{3}$", name):
                module = file[name]
                place = [*module["data_origin"][()].tolist(), int(module["data_rotation"][()])]
                modules.append(place)
    return {"superblock": superblock(path), "objects": objects, "half_modules": sorted(modules)}


def superblock(path: Path) -> str:
    """Return the version of a file's superblock and what it declares, as hexadecimal digits.

    From version 2 on the end of the file and a checksum follow, which are left out.
    """
    with path.open("rb") as raw:
        start = raw.read(24)[8:]
    return (start[:4] if start[0] >= 2 else start).hex()


def walk(group: h5py.Group, prefix: str = "") -> Iterator[tuple[str, dict]]:
    """Yield the path and the description of a group and of all that lies below it."""
    yield prefix or "/", {"kind": "group", "attributes": _attributes(group)}
    for name in group:
        path = f"{prefix}/{name}"
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            yield path, {"kind": "external link", "file": link.filename, "target": link.path}
        elif isinstance(group[name], h5py.Group):
            yield from walk(group[name], path)
        else:
            yield path, describe_dataset(group[name])


def describe_dataset(dataset: h5py.Dataset) -> dict:
    """Return how a dataset is stored and, where it is small, its value."""
    properties = dataset.id.get_create_plist()
    entry = {
        "kind": "dataset",
        "type": _type(dataset.id.get_type()),
        "rank": dataset.ndim if _is_simple(dataset.id) else "scalar",
        "shape": list(dataset.shape),
        "maxshape": list(dataset.maxshape),
        "chunks": list(dataset.chunks) if dataset.chunks else None,
        "layout": LAYOUTS[properties.get_layout()],
        "allocation": ALLOCATIONS[properties.get_alloc_time()],
        "fill_time": FILL_TIMES[properties.get_fill_time()],
        "fill_value": FILL_VALUES[properties.fill_value_defined()],
        "filters": [
            [number, flags, list(values)]
            for number, flags, values, _ in map(
                properties.get_filter, range(properties.get_nfilters())
            )
        ],
        "attributes": _attributes(dataset),
    }
    if entry["fill_value"] == "user" and dataset.dtype.kind != "S":
        entry["fill"] = _plain(dataset.fillvalue)
    if dataset.size <= LARGEST_SHOWN:
        entry["value"] = _plain(dataset[()])
    return entry


def _attributes(owner: h5py.Group | h5py.Dataset) -> dict:
    found = {}
    for index in range(h5py.h5a.get_num_attrs(owner.id)):
        attribute = h5py.h5a.open(owner.id, index=index)
        name = attribute.name.decode()
        found[name] = {
            "type": _type(attribute.get_type()),
            "rank": len(attribute.shape) if _is_simple(attribute) else "scalar",
            "value": _plain(owner.attrs[name]),
        }
    return dict(sorted(found.items()))


def _is_simple(owner: h5py.h5d.DatasetID | h5py.h5a.AttrID) -> bool:
    return owner.get_space().get_simple_extent_type() == h5py.h5s.SIMPLE


def _type(kind: h5py.h5t.TypeID) -> str:
    if kind.get_class() != h5py.h5t.STRING:
        return kind.dtype.str
    if kind.is_variable_str():
        return "string of variable length"
    charset = {h5py.h5t.CSET_ASCII: "ASCII", h5py.h5t.CSET_UTF8: "UTF-8"}[kind.get_cset()]
    return f"{charset} string of {kind.get_size()} bytes, {PADDINGS[kind.get_strpad()]}"


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.decode("ascii")
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def main() -> None:
    """Write the description of each real file."""
    for name, source in REAL_FILES.items():
        description = describe(DATA / source)
        (HERE / name).write_text(json.dumps(description, indent=1, sort_keys=True) + "\n")
        sys.stdout.write(f"{name}: {len(description['objects'])} objects\n")


if __name__ == "__main__":
    main()
