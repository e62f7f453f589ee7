"""The simulator's files: object by object against real ones, and through independent readers."""

import json
import os
import subprocess
import sys
from shutil import which

import fabio
import h5py
import hdf5plugin
import numpy as np
import pytest
from armed import DETECTOR, armed_series
from golden.make import DATA, HERE, REAL_FILES, describe

from sim_dcu import geometry, master_eiger1, oracle
from sim_dcu.filewriter import SeriesWriter
from sim_dcu.images import ImageSource

SPECIFIC = "entry/instrument/detector/detectorSpecific"


def write_series(folder, series, images=None):
    """Write a whole series, or its first `images` images, and return the master file's path."""
    writer, source = SeriesWriter(folder, series), ImageSource(series)
    writer.write_master()
    for number in range(1, (series.images if images is None else images) + 1):
        writer.add(number, source.chunk(number))
    writer.close()
    return folder / writer.master_name


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def data_names(count, start="series_7"):
    return [f"{start}_data_{number:06d}.h5" for number in range(1, count + 1)]


def stacks(master):
    """Return every image of a series by way of its master file, one stack a data file."""
    with h5py.File(master) as file:
        return [file["entry/data"][name][()] for name in sorted(file["entry/data"])]


def golden(name):
    return json.loads((HERE / name).read_text())


# ---- the tree, against real files

# Where the master file at hand is not what the detector wrote (its publisher made it smaller), or
# where its own statements disagree: (path, property) with the reason. Everything else is equal.
SHRUNK = "the copy at hand holds it as compressed chunks; real files are contiguous"
REWRITTEN = (
    "the copy at hand was cut to one image, and this dataset written anew without fill value"
)
BYTES = "the copy at hand holds the mask as bytes; real files as uint32"
AXES = ("sample/goniometer/" + axis for axis in ("chi", "kappa", "omega", "phi"))
ANGLES = [
    f"/entry/{axis}{end}"
    for axis in (*AXES, "instrument/detector/goniometer/two_theta")
    for end in ("", "_end")
]
ALLOWED = {
    **{
        (f"/{SPECIFIC}/{path}", aspect): SHRUNK
        for path in (
            "flatfield",
            "pixel_mask",
            "detectorModule_*/countrate_correction_lookup_table",
            "detectorModule_*/countrate_correction_table",
            "detectorModule_*/flatfield",
            "detectorModule_*/pixel_mask",
            "detectorModule_*/trimbit",
        )
        for aspect in ("allocation", "chunks", "fill_time", "fill_value", "filters", "layout")
    },
    (f"/{SPECIFIC}/pixel_mask", "type"): BYTES,
    (f"/{SPECIFIC}/detectorModule_*/pixel_mask", "type"): BYTES,
    **{(path, "fill_value"): REWRITTEN for path in (*ANGLES, f"/{SPECIFIC}/nimages")},
    (
        "/entry/sample/goniometer/omega_range_total",
        "value",
    ): "400 degrees in the copy, of the 800 images before it was cut to one",
}


@pytest.fixture(scope="module")
def real_9m():
    return golden("eiger1_9M_master.json")


@pytest.fixture(scope="module")
def simulated_9m(real_9m, tmp_path_factory):
    """Return the description of a master file armed with the values of the real 9M's."""
    values = {
        path.rsplit("/", 1)[1]: entry["value"]
        for path, entry in real_9m["objects"].items()
        if "value" in entry
    }
    values["wavelength"] = values.pop("incident_wavelength")
    values["detector_translation"] = values.pop("distances")
    values["detector_orientation"] = values.pop("value")
    changes = {key: values[key] for key in (*DETECTOR, "number_of_excluded_pixels")}
    series = armed_series((3, 6), name_pattern="dectris_eiger", **changes)
    folder = tmp_path_factory.mktemp("9m")
    writer = SeriesWriter(folder, series)
    writer.write_master()
    writer.close()
    return describe(folder / writer.master_name)


def test_the_master_is_built_as_a_real_one(real_9m, simulated_9m):
    differences = {
        (path, aspect)
        for path in real_9m["objects"].keys() | simulated_9m["objects"].keys()
        for aspect in _aspects(real_9m, path) | _aspects(simulated_9m, path)
        if _aspect(real_9m, path, aspect) != _aspect(simulated_9m, path, aspect)
    }
    # Equality, so that an entry that is no longer needed fails too.
    assert differences == set(ALLOWED)
    assert simulated_9m["superblock"] == real_9m["superblock"]


def _aspects(description, path):
    return description["objects"].get(path, {"kind": None}).keys()


def _aspect(description, path, aspect):
    return description["objects"].get(path, {}).get(aspect)


def test_half_modules_lie_where_a_real_detector_has_them(real_9m, simulated_9m):
    assert len(real_9m["half_modules"]) == 36
    assert simulated_9m["half_modules"] == real_9m["half_modules"]


def test_the_mask_and_the_flatfield_are_stored_as_real_files_do(simulated_9m):
    # neggia gives up on a compressed or chunked mask; real files have it as uint32, contiguous.
    for name, kind in (("pixel_mask", "<u4"), ("flatfield", "<f4")):
        entry = simulated_9m["objects"][f"/{SPECIFIC}/{name}"]
        assert entry["shape"] == [3269, 3110]
        assert (entry["type"], entry["layout"], entry["filters"]) == (kind, "contiguous", [])


def test_data_files_are_built_as_real_ones(tmp_path):
    series = armed_series((1, 2), nimages=4, nimages_per_file=2)
    write_series(tmp_path, series)
    for number in (1, 2):
        written = describe(tmp_path / f"series_7_data_00000{number}.h5")
        assert written == golden(f"eiger1_1M_data_00000{number}.json")


@pytest.mark.parametrize("name", REAL_FILES)
def test_the_golden_files_describe_the_real_ones(name):
    source = DATA / REAL_FILES[name]
    if not source.exists():
        pytest.skip(f"{source} missing: set EIGER_TEST_DATA to the folder of real files")
    assert describe(source) == golden(name)


def test_the_detectors_table_has_what_a_master_says():
    eiger1 = pytest.importorskip("sim_dcu.tables.eiger1")
    models = pytest.importorskip("sim_dcu.models")
    model = models.MODELS["eiger-500k"]
    arrays = (geometry.default_flatfield(1, 1), geometry.default_pixel_mask(1, 1, 0))
    keys = {parameter.key for parameter in eiger1.detector_config(model, *arrays)}
    assert set(master_eiger1.TREE.required_keys()) <= keys


# ---- values


def test_the_master_says_what_was_armed(tmp_path):
    series = armed_series(
        (1, 2),
        nimages=2,
        ntrigger=3,
        element="",
        omega_start=10.0,
        omega_increment=0.25,
        two_theta_start=-5.0,
    )
    with h5py.File(write_series(tmp_path, series)) as file:
        detector, specific = file["entry/instrument/detector"], file[SPECIFIC]
        assert file["entry/instrument/beam/incident_wavelength"][()] == np.float32(1.5406)
        assert detector["count_time"][()] == np.float32(0.5)
        assert detector["beam_center_x"][()] == np.float32(515.5)
        assert detector["beam_center_y"][()] == np.float32(532.25)
        assert detector["sensor_material"][()] == b"Si"
        assert detector["geometry/translation/distances"][2] == np.float32(-0.125)
        assert specific["nimages"][()] == 2
        assert specific["ntrigger"][()] == 3
        assert specific["element"][()] == b""
        assert specific["number_of_excluded_pixels"][()] == 38110 + 2 * 16
        np.testing.assert_array_equal(specific["pixel_mask"], series.detector["pixel_mask"])
        np.testing.assert_array_equal(specific["flatfield"], series.detector["flatfield"])
        assert len([name for name in specific if name.startswith("detectorModule_")]) == 4
        omega = file["entry/sample/goniometer"]
        assert omega["omega"][()].tolist() == [10.0, 10.25, 10.5, 10.75, 11.0, 11.25]
        assert omega["omega_end"][()].tolist() == [10.25, 10.5, 10.75, 11.0, 11.25, 11.5]
        assert omega["omega_range_total"][()] == 1.5
        assert omega["omega_range_average"][()] == 0.25
        assert detector["goniometer/two_theta"][()].tolist() == [-5.0] * 6


# ---- images, through readers that share no code with the writer

# nimages, nimages_per_file, images in each data file
SHAPES = [
    (1, 1, [1]),
    (3, 1, [1, 1, 1]),
    (6, 3, [3, 3]),
    (7, 3, [3, 3, 1]),
    (5, 1000, [5]),
    (1, 1000, [1]),
    (4, 0, []),
    (1, 0, []),
]


@pytest.mark.parametrize(("images", "per_file", "files"), SHAPES)
@pytest.mark.parametrize("bits", [16, 32])
def test_h5py_reads_every_image(tmp_path, images, per_file, files, bits):
    series = armed_series(nimages=images, nimages_per_file=per_file, bit_depth_image=bits)
    master = write_series(tmp_path, series)
    assert names(tmp_path) == [*data_names(len(files)), "series_7_master.h5"]
    found = stacks(master)
    assert [len(stack) for stack in found] == (files or [images])
    assert all(stack.dtype == f"<u{bits // 8}" for stack in found)
    for number, image in enumerate(np.concatenate(found), start=1):
        np.testing.assert_array_equal(image, oracle.image(series, number))


@pytest.mark.parametrize(("images", "per_file", "files"), SHAPES)
def test_fabio_reads_every_image(tmp_path, images, per_file, files):
    series = armed_series(nimages=images, nimages_per_file=per_file)
    with fabio.open(str(write_series(tmp_path, series))) as image:
        assert image.nframes == images
        np.testing.assert_array_equal(image.data, oracle.image(series, 1))
        # With a single image in all, fabio's getframe looks for another file.
        for index in range(images if images > 1 else 0):
            np.testing.assert_array_equal(
                image.getframe(index).data, oracle.image(series, index + 1)
            )


@pytest.mark.parametrize(("images", "per_file", "files"), SHAPES)
def test_h5dump_reads_every_image(tmp_path, images, per_file, files):
    if which("h5dump") is None:
        pytest.skip("h5dump missing: apt-get install hdf5-tools")
    series = armed_series(nimages=images, nimages_per_file=per_file)
    master = write_series(tmp_path, series)
    targets = ["data"] if per_file == 0 else [f"data_{k:06d}" for k in range(1, len(files) + 1)]
    dumped = [h5dump(master, f"/entry/data/{target}", tmp_path / "raw") for target in targets]
    expected = np.stack([oracle.image(series, number) for number in range(1, images + 1)])
    np.testing.assert_array_equal(
        np.concatenate(dumped), expected.ravel().astype("<u2"), strict=True
    )


def h5dump(file, dataset, raw):
    """Let h5dump decode a dataset of 16 bits; return its values, flat."""
    subprocess.run(
        ["h5dump", "-d", dataset, "-b", "LE", "-o", str(raw), str(file)],
        env={**os.environ, "HDF5_PLUGIN_PATH": hdf5plugin.PLUGIN_PATH},
        check=True,
        capture_output=True,
        timeout=60,
    )
    return np.fromfile(raw, "<u2")


def test_h5dump_reads_the_whole_master(tmp_path):
    if which("h5dump") is None:
        pytest.skip("h5dump missing: apt-get install hdf5-tools")
    master = write_series(tmp_path, armed_series())
    done = subprocess.run(
        ["h5dump", "-H", "-p", str(master)], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    assert 'EXTERNAL_LINK "data_000001"' in done.stdout
    assert 'TARGETFILE "series_7_data_000001.h5"' in done.stdout


def test_images_without_compression_have_no_filter(tmp_path):
    series = armed_series(nimages=2, compression_enabled=False)
    write_series(tmp_path, series)
    with h5py.File(tmp_path / "series_7_data_000001.h5") as file:
        dataset = file["entry/data/data"]
        assert dataset.id.get_create_plist().get_nfilters() == 0
        assert dataset.chunks == (1, *series.shape)
        np.testing.assert_array_equal(dataset[1], oracle.image(series, 2))


# ---- when files appear


def test_links_are_made_at_arm_for_files_that_never_come(tmp_path):
    series = armed_series(nimages=7, nimages_per_file=3)
    writer = SeriesWriter(tmp_path, series)
    writer.write_master()
    assert [name for name in names(tmp_path) if name[0] != "."] == ["series_7_master.h5"]
    with h5py.File(tmp_path / "series_7_master.h5") as file:
        data = file["entry/data"]
        links = {name: data.get(name, getlink=True) for name in data}
    assert {name: (link.filename, link.path) for name, link in links.items()} == {
        f"data_00000{k}": (f"series_7_data_00000{k}.h5", "entry/data/data") for k in (1, 2, 3)
    }
    writer.close()
    assert names(tmp_path) == ["series_7_master.h5"]


@pytest.mark.parametrize("per_file", [1, 2, 5])
def test_a_data_file_appears_when_it_is_full_and_only_complete(tmp_path, per_file):
    series = armed_series(nimages=5, nimages_per_file=per_file)
    writer, source = SeriesWriter(tmp_path, series), ImageSource(series)
    writer.write_master()
    for number in range(1, 6):
        writer.add(number, source.chunk(number))
        # With its last image the series is over, and its last, short file complete.
        full = -(-5 // per_file) if number == 5 else number // per_file
        shown = sorted(path.name for path in tmp_path.glob("[!.]*_data_*"))
        assert shown == data_names(full)
        for index, name in enumerate(shown):
            with h5py.File(tmp_path / name) as file:
                assert len(file["entry/data/data"]) == min(per_file, 5 - index * per_file)
    writer.close()
    assert names(tmp_path) == [*data_names(-(-5 // per_file)), "series_7_master.h5"]


@pytest.mark.parametrize(("came", "files"), [(0, []), (1, [1]), (3, [3]), (4, [3, 1])])
def test_a_series_that_ends_early_keeps_what_came(tmp_path, came, files):
    series = armed_series(nimages=7, nimages_per_file=3)
    write_series(tmp_path, series, images=came)
    assert names(tmp_path) == [*data_names(len(files)), "series_7_master.h5"]
    for index, count in enumerate(files):
        with h5py.File(tmp_path / data_names(2)[index]) as file:
            dataset = file["entry/data/data"]
            assert len(dataset) == count
            assert dataset.attrs["image_nr_low"] == 3 * index + 1
            assert dataset.attrs["image_nr_high"] == 3 * index + count
            np.testing.assert_array_equal(dataset[-1], oracle.image(series, 3 * index + count))


@pytest.mark.parametrize("came", [0, 2, 4])
def test_a_master_that_holds_the_images_appears_at_the_end(tmp_path, came):
    series = armed_series(nimages=4, nimages_per_file=0)
    writer, source = SeriesWriter(tmp_path, series), ImageSource(series)
    writer.write_master()
    for number in range(1, came + 1):
        writer.add(number, source.chunk(number))
    assert not list(tmp_path.glob("[!.]*"))
    writer.close()
    assert names(tmp_path) == ["series_7_master.h5"]
    (stack,) = stacks(tmp_path / "series_7_master.h5")
    assert stack.shape == (came, *series.shape)
    for number, image in enumerate(stack, start=1):
        np.testing.assert_array_equal(image, oracle.image(series, number))


def test_image_numbers_start_where_they_are_told_to(tmp_path):
    series = armed_series(nimages=5, nimages_per_file=2, image_nr_start=100)
    write_series(tmp_path, series)
    found = []
    for name in data_names(3):
        with h5py.File(tmp_path / name) as file:
            attributes = file["entry/data/data"].attrs
            found.append((attributes["image_nr_low"], attributes["image_nr_high"]))
    assert found == [(100, 101), (102, 103), (104, 104)]


def test_files_of_the_same_name_are_replaced(tmp_path):
    write_series(tmp_path, armed_series(nimages=2, name_pattern="same"))
    other = armed_series(nimages=1, name_pattern="same", series_id=8)
    (stack,) = stacks(write_series(tmp_path, other))
    assert len(stack) == 1
    np.testing.assert_array_equal(stack[0], oracle.image(other, 1))


def test_a_name_pattern_with_folders_makes_them(tmp_path):
    series = armed_series(nimages=2, nimages_per_file=1, name_pattern="lysozyme/day_1/x_$id")
    master = write_series(tmp_path, series)
    assert master == tmp_path / "lysozyme" / "day_1" / "x_7_master.h5"
    assert names(tmp_path) == ["lysozyme"]
    assert len(stacks(master)) == 2  # the links hold bare names, so they resolve


# ---- what is refused, and what goes wrong


@pytest.mark.parametrize("pattern", ["../x", "a/../../x", "/tmp/x", ".hidden", "a/.b/c", ""])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path, pattern):
    with pytest.raises(ValueError, match="name_pattern"):
        SeriesWriter(tmp_path, armed_series(name_pattern=pattern))
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"compression": "none"},
        {"nimages": 10**7 + 1},
        {"nimages": 10**6, "nimages_per_file": 1},
        {"image_nr_start": 2**31 - 1, "nimages": 2},
    ],
    ids=str,
)
def test_a_series_that_the_files_cannot_hold_is_refused(tmp_path, changes):
    with pytest.raises(ValueError, match=r"none of bslz4, lz4|at most"):
        SeriesWriter(tmp_path, armed_series(**changes))
    assert names(tmp_path) == []


def test_a_configuration_that_lacks_a_key_is_refused(tmp_path):
    series = armed_series()
    for key in ("wavelength", "omega_start"):
        series.detector.pop(key)
    with pytest.raises(KeyError, match="omega_start, wavelength"):
        SeriesWriter(tmp_path, series)


@pytest.mark.parametrize("number", [0, 1, 3, 6])
def test_images_come_in_order(tmp_path, number):
    series = armed_series(nimages=5)
    writer, chunk = SeriesWriter(tmp_path, series), ImageSource(series).chunk(1)
    writer.write_master()
    writer.add(1, chunk)
    with pytest.raises(ValueError, match=f"image {number} came after image 1 of 5"):
        writer.add(number, chunk)
    writer.close()


def test_nothing_comes_after_the_end(tmp_path):
    series = armed_series(nimages=5)
    writer, chunk = SeriesWriter(tmp_path, series), ImageSource(series).chunk(1)
    writer.write_master()
    writer.add(1, chunk)
    writer.close()
    before = names(tmp_path)
    writer.close()
    with pytest.raises(RuntimeError, match="closed already"):
        writer.add(2, chunk)
    assert names(tmp_path) == before


FULL_DISK = """
import resource, sys
from pathlib import Path
from armed import armed_series
from sim_dcu.filewriter import SeriesWriter
from sim_dcu.images import ImageSource

folder, per_file = Path(sys.argv[1]), int(sys.argv[2])
series = armed_series(nimages=100, nimages_per_file=per_file)
writer, source = SeriesWriter(folder, series), ImageSource(series)
writer.write_master()
resource.setrlimit(resource.RLIMIT_FSIZE, (6_000_000, resource.RLIM_INFINITY))
try:
    for number in range(1, 101):
        writer.add(number, source.chunk(number))
except OSError as error:
    print("refused at", number, error.errno)
writer.close()
left = [path.name for path in folder.rglob("*")]
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
again = armed_series(series_id=8)
writer = SeriesWriter(folder, again)
writer.write_master()
writer.add(1, source.chunk(1))
writer.close()
print("left", left)
"""


@pytest.mark.parametrize(("per_file", "left"), [(100, ["series_7_master.h5"]), (0, [])])
def test_a_full_disk_leaves_no_unfinished_file(tmp_path, per_file, left):
    # A limit on the size of files stands for the full disk: the same write fails in the same
    # place. In a process of its own, because HDF5 cannot always forget a file it failed to close.
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FULL_DISK, str(tmp_path), str(per_file)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), *sys.path])},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    refused, kept = done.stdout.splitlines()
    assert refused.startswith("refused at")
    assert refused.endswith(" 27")  # EFBIG
    assert kept == f"left {left}"
    assert names(tmp_path) == sorted([*left, "series_8_data_000001.h5", "series_8_master.h5"])


def test_a_process_that_dies_leaves_no_half_file_under_a_final_name(tmp_path):
    code = FULL_DISK.split("resource.setrlimit", 1)[0] + (
        "writer.add(1, source.chunk(1))\nimport os\nos._exit(9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), "100"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), *sys.path])},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 9, done.stderr
    assert [name for name in names(tmp_path) if name[0] != "."] == ["series_7_master.h5"]


# ---- the calibration a detector comes with

# Sizes and gap pixels of EIGER1 detectors by their modules: the maker's sizes, gaps from pyFAI's
# masks of the same detectors.
DETECTORS = {
    (1, 1): ((514, 1030), 0),
    (1, 2): ((1065, 1030), 38110),
    (2, 4): ((2167, 2070), 250330),
    (3, 6): ((3269, 3110), 637030),
    (4, 8): ((4371, 4150), 1198210),
}


@pytest.mark.parametrize("modules", DETECTORS)
def test_sizes_and_gaps(modules):
    size, gap_pixels = DETECTORS[modules]
    assert geometry.detector_size(*modules) == size
    assert geometry.module_counts(size) == modules
    mask = geometry.default_pixel_mask(*modules, seed=1)
    assert mask.dtype == np.uint32
    assert mask.shape == size
    assert (mask == 1).sum() == gap_pixels
    bad = mask[mask > 1]
    assert len(bad) == 16 * modules[0] * modules[1]
    assert set(bad.tolist()) == {2, 8, 16}


def test_a_size_of_no_detector_is_refused():
    with pytest.raises(ValueError, match="1030 x 1000"):
        geometry.module_counts((1000, 1030))


def test_bad_pixels_follow_the_seed():
    first, again, other = (geometry.default_pixel_mask(1, 2, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_the_flatfield_is_close_to_one_and_exact_in_float32():
    flatfield = geometry.default_flatfield(1, 2)
    assert flatfield.dtype == np.float32
    assert flatfield.shape == (1065, 1030)
    assert (flatfield[514:551] == 1).all()
    assert np.abs(flatfield - 1).max() < 0.004
    assert flatfield[:514].std() > 0.001
    assert flatfield[:514].mean() == pytest.approx(1.0, abs=1e-5)
    steps = flatfield[:514].astype(float) * 2**16
    assert (steps == np.round(steps)).all()
