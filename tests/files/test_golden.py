"""Files against the golden trees: they match, and whatever is changed in a file is noticed."""

import shutil
from itertools import product

import h5py
import numpy as np
import pytest
from checker import as_told, differences, faults, golden, stack
from golden.make import DATA, REAL_FILES, describe, walk
from written import armed, data_names, write_series

# Of each test's cases the short run takes every 3rd, see conftest.
SHORT_RUN_EVERY = 5

SERIES = {
    "nimages": 5,
    "nimages_per_file": 2,
    "image_nr_start": 11,
    "omega_start": 10.0,
    "omega_increment": 0.25,
    "two_theta_start": -5.0,
}


@pytest.mark.parametrize("name", REAL_FILES)
def test_the_golden_files_describe_the_real_ones(name):
    source = DATA / REAL_FILES[name]
    if not source.exists():
        pytest.skip(f"{source} missing: set EIGER_TEST_DATA to the folder of real files")
    assert describe(source) == as_told(name)


@pytest.mark.parametrize("number", [1, 2])
def test_an_eiger1_data_file_is_described_as_a_real_one(tmp_path, number):
    series = armed(1, (1, 2), nimages=4, nimages_per_file=2)
    write_series(tmp_path, series)
    written = describe(tmp_path / f"series_7_data_00000{number}.h5")
    assert written == golden(f"eiger1_1M_data_00000{number}.json")


@pytest.mark.parametrize("number", [1, 2])
def test_an_eiger2_data_file_is_described_as_a_real_one(tmp_path, number):
    series = armed(2, nimages=4, nimages_per_file=2, bit_depth_image=32)
    write_series(tmp_path, series)
    written = describe(tmp_path / f"series_7_data_00000{number}.h5")
    assert written == golden(f"eiger2_500K_data_00000{number}.json")


def all_faults(folder, series, images=None):
    """Return what is wrong with any file of a series, by file."""
    came = series.images if images is None else images
    per_file = series.filewriter["nimages_per_file"]
    files = -(-came // per_file) if per_file else 0
    start = series.filewriter["name_pattern"].replace("$id", "7")
    numbered = enumerate([f"{start}_master.h5", *data_names(files, start)])
    found = {name: faults(folder / name, series, number, images) for number, name in numbered}
    return {name: wrong for name, wrong in found.items() if wrong}


COMPRESSIONS = {
    "bslz4": {},
    "lz4": {"compression": "lz4"},
    "off": {"compression_enabled": False},
}


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize(("per_file", "bits"), [(0, 8), (1, 16), (2, 32), (1000, 16)])
def test_files_are_built_as_real_ones(tmp_path, generation, compression, per_file, bits):
    changes = {**SERIES, **COMPRESSIONS[compression], "nimages_per_file": per_file}
    series = armed(generation, bit_depth_image=bits, **changes)
    write_series(tmp_path, series)
    assert all_faults(tmp_path, series) == {}


@pytest.mark.long
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("per_file", [0, 1, 3, 1000])
@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("modules", [(1, 2), (2, 4)], ids=["1m", "4m"])
def test_files_of_larger_detectors_are_built_as_real_ones(
    tmp_path, generation, compression, per_file, bits, modules
):
    changes = {**SERIES, **COMPRESSIONS[compression], "nimages_per_file": per_file}
    series = armed(generation, modules, bit_depth_image=bits, **changes)
    write_series(tmp_path, series)
    assert all_faults(tmp_path, series) == {}


def test_no_compression_as_a_setting_of_an_eiger2(tmp_path):
    series = armed(2, compression="none", nimages=2)
    write_series(tmp_path, series)
    assert all_faults(tmp_path, series) == {}


@pytest.mark.parametrize("came", [0, 1, 3])
def test_what_a_series_that_ended_early_leaves_is_built_as_real_files(tmp_path, generation, came):
    series = armed(generation, **SERIES)
    write_series(tmp_path, series, images=came)
    assert all_faults(tmp_path, series, came) == {}


# ---- teeth: every change to an object is noticed, at every object
#
# A mutation changes every object it can at once; the checker must name each of them.


def remove(file, path):
    del file[path]


def change_type(file, path):
    replace(file, path, dtype={"f": "<f2", "i": "<i2", "u": "<i8", "S": "S50"})


def change_rank(file, path):
    replace(file, path, shape=lambda shape: (1, *shape))


def change_fill(file, path):
    set_by_user = file[path].id.get_create_plist().fill_value_defined()
    user = set_by_user == h5py.h5d.FILL_VALUE_USER_DEFINED
    replace(file, path, fillvalue=None if user else 7)


def compress(file, path):
    replace(file, path, storage={"chunks": True, "compression": "gzip"})


def change_value(file, path):
    dataset = file[path]
    if dataset.dtype.kind == "S":
        dataset[()] = b"?" * dataset.dtype.itemsize
    else:
        values = dataset[()]
        dataset[()] = np.where(values == 0, 1, 0).astype(dataset.dtype)


def remove_attributes(file, path):
    for name in list(file[path].attrs):
        del file[path].attrs[name]


def change_attributes(file, path):
    for name, value in list(file[path].attrs.items()):
        other = np.bytes_(b"#" * len(value)) if isinstance(value, bytes) else np.asarray(value) + 1
        file[path].attrs.create(name, other)


def make_attributes_variable(file, path):
    for name, value in list(file[path].attrs.items()):
        if isinstance(value, bytes):
            file[path].attrs.create(name, value.decode(), dtype=h5py.string_dtype())


def add_an_attribute(file, path):
    file[path].attrs["creator"] = "someone"


def replace(file, path, dtype=None, shape=None, fillvalue=0, storage=None):
    """Put another dataset in the place of one, with the attributes of the old."""
    old = file[path]
    kind = old.dtype if dtype is None else np.dtype(dtype[old.dtype.kind])
    new = old.shape if shape is None else shape(old.shape)
    if storage is not None and old.shape == ():
        new = (1,)  # scalars cannot be compressed
    attributes = dict(old.attrs)
    del file[path]
    if kind.kind == "S":
        fillvalue = None
    file.create_dataset(path, new, kind, fillvalue=fillvalue, **(storage or {}))
    for name, value in attributes.items():
        file[path].attrs[name] = value


def datasets(file):
    return [path for path, entry in walk(file["/"]) if entry["kind"] == "dataset"]


def numbers(file):
    return [path for path in datasets(file) if file[path].dtype.kind != "S"]


def with_attributes(file):
    return [path for path, entry in walk(file["/"]) if entry.get("attributes")]


def with_texts(file):
    return [path for path in with_attributes(file) if path != "/entry/data/data"]


def groups_and_datasets(file):
    return [path for path, entry in walk(file["/"]) if entry["kind"] != "external link"]


def links(file):
    return [path for path, entry in walk(file["/"]) if entry["kind"] == "external link"]


def of_known_value(file):
    """What a half module's chips are set to is known of no detector but the real 9M."""
    free = ("data_origin", "data_size", "data_rotation")
    return [
        path
        for path in datasets(file)
        if ("detectorModule_" not in path or path.endswith(free)) and path != "/entry/data/data"
    ]


MUTATIONS = {
    remove: datasets,
    change_type: datasets,
    change_rank: datasets,
    change_fill: numbers,
    compress: datasets,
    change_value: of_known_value,
    remove_attributes: with_attributes,
    change_attributes: with_attributes,
    make_attributes_variable: with_texts,
    add_an_attribute: groups_and_datasets,
}


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    """Return a folder with a whole series of each generation, once with images in the master."""
    folders = {}
    for generation, per_file in product((1, 2), (0, 2)):
        folder = tmp_path_factory.mktemp(f"eiger{generation}_{per_file}")
        series = armed(generation, **{**SERIES, "nimages_per_file": per_file})
        write_series(folder, series)
        assert all_faults(folder, series) == {}
        folders[generation, per_file] = folder, series
    return folders


def named(differences_found):
    return {line.partition(":")[0].partition(" is ")[0] for line in differences_found}


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
@pytest.mark.parametrize("place", ["master", "master with images", "data file"])
def test_every_change_is_noticed(untouched, tmp_path, generation, mutate, place):
    folder, series = untouched[generation, 0 if place == "master with images" else 2]
    name = "series_7_data_000001.h5" if place == "data file" else "series_7_master.h5"
    shutil.copy(folder / name, tmp_path)
    number = 1 if place == "data file" else 0
    with h5py.File(tmp_path / name, "r+") as file:
        changed = set(MUTATIONS[mutate](file))
        for path in changed:
            mutate(file, path)
    found = named(faults(tmp_path / name, series, number))
    assert changed or place == "data file"
    assert changed - found == set()
    assert found - changed == set()


@pytest.mark.parametrize(
    ("file_name", "target"),
    [("series_7_data_000009.h5", None), ("./series_7_data_000001.h5", None), (None, "data")],
)
def test_another_link_is_noticed(untouched, tmp_path, generation, file_name, target):
    folder, series = untouched[generation, 2]
    shutil.copy(folder / "series_7_master.h5", tmp_path)
    with h5py.File(tmp_path / "series_7_master.h5", "r+") as file:
        changed = links(file)
        assert len(changed) == 3
        for path in changed:
            link = file.get(path, getlink=True)
            del file[path]
            file[path] = h5py.ExternalLink(file_name or link.filename, target or link.path)
    assert named(faults(tmp_path / "series_7_master.h5", series)) >= set(changed)


def test_a_missing_or_an_extra_link_is_noticed(untouched, tmp_path, generation):
    folder, series = untouched[generation, 2]
    shutil.copy(folder / "series_7_master.h5", tmp_path)
    with h5py.File(tmp_path / "series_7_master.h5", "r+") as file:
        del file["entry/data/data_000002"]
        file["entry/data/data_000004"] = h5py.ExternalLink("series_7_data_000004.h5", "x")
    found = named(faults(tmp_path / "series_7_master.h5", series))
    assert found == {"/entry/data/data_000002", "/entry/data/data_000004"}


def test_a_group_that_is_missing_or_new_is_noticed(untouched, tmp_path, generation):
    folder, series = untouched[generation, 2]
    shutil.copy(folder / "series_7_master.h5", tmp_path)
    with h5py.File(tmp_path / "series_7_master.h5", "r+") as file:
        del file["entry/sample/goniometer"]
        file.create_group("entry/user")
    found = named(faults(tmp_path / "series_7_master.h5", series))
    assert {"/entry/sample/goniometer", "/entry/sample/goniometer/phi", "/entry/user"} <= found


# What is changed, and a piece of what is said of it.
OTHER_STORAGE = [
    ({"chunks": 2}, ": chunks "),
    ({"maxshape": 2}, ": maxshape "),
    ({"dtype": "<i2"}, ": type "),
    # The filters as hdf5plugin's version of today and h5py write them.
    ({"compression": 32008, "compression_opts": (0, 2)}, ": filters "),
    ({"compression": "gzip"}, ": filters "),
]


@pytest.mark.parametrize(("change", "said"), OTHER_STORAGE, ids=str)
def test_another_way_to_store_images_is_noticed(tmp_path, generation, change, said):
    series = armed(generation, nimages=2)
    size = series.shape
    kept = {"shape": (2, *size), "maxshape": (None, *size), "chunks": (1, *size), "dtype": "<u2"}
    kept["fillvalue"] = None if generation == 1 else 65535
    for key, value in change.items():
        kept[key] = (value, *size) if key in ("chunks", "maxshape") else value
    assert any(said in line for line in stack_faults(tmp_path, series, kept))


@pytest.mark.parametrize("fillvalue", [None, 0, 65534])
def test_another_fill_value_of_an_eiger2_is_noticed(tmp_path, fillvalue):
    series = armed(2, nimages=2)
    kept = {"shape": (2, *series.shape), "dtype": "<u2", "fillvalue": fillvalue}
    assert any(": fill" in line for line in stack_faults(tmp_path, series, kept))


def stack_faults(folder, series, how):
    with h5py.File(folder / "x.h5", "w") as file:
        file.create_dataset("entry/data/data", **how)
        expected = {"/entry/data/data": stack(series, 0, 2)}
        return [line for line in differences(file, expected) if "/data/data: " in line]


def test_another_superblock_is_noticed(tmp_path, generation):
    master = write_series(tmp_path, armed(3 - generation))
    assert faults(master, armed(generation))[0].startswith("superblock")


def test_other_chunk_headers_are_noticed(tmp_path, generation):
    """LZ4 in blocks of another size than the generation's, and a filter that was left out."""
    series = armed(generation, compression="lz4", nimages=2)
    master = write_series(tmp_path, series)
    with h5py.File(master.with_name("series_7_data_000001.h5"), "r+") as file:
        dataset = file["entry/data/data"]
        _, chunk = dataset.id.read_direct_chunk((0, 0, 0))
        dataset.id.write_direct_chunk((0, 0, 0), chunk[:8] + bytes([0, 0, 16, 0]) + chunk[12:])
        dataset.id.write_direct_chunk((1, 0, 0), chunk, filter_mask=1)
    first, second = faults(master.with_name("series_7_data_000001.h5"), series, 1)
    assert "chunk 0 begins with" in first
    assert "chunk 1 has the filter mask 1" in second
