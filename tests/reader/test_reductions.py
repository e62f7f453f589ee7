"""What many images become, against plain numpy on the whole stack; and what the master says."""

import datetime as dt
import re
from typing import get_args

import h5py
import numpy as np
import pytest
from armed import DETECTOR
from written import armed, write_series

from ophyd_eiger.errors import FileError, MissingFileError, RegionError
from ophyd_eiger.reader import Numbers, open_series
from ophyd_eiger.series_metadata import read_metadata

MASTER_9M = "eiger1_9M_master/dectris_eiger_master.h5"
SHAPE = (40, 60)


def images_of(dtype, count=9):
    """Return sparse images with gaps, and pixels that count beyond their range now and then."""
    generator = np.random.default_rng(8)
    most = np.iinfo(dtype).max
    images = generator.poisson(0.3, (count, *SHAPE)).astype(dtype)
    images[:, 18:20] = most
    images[generator.random(images.shape) < 0.01] = most
    images[generator.random(images.shape) < 0.01] = most - 1
    return images


@pytest.fixture(params=["<u1", "<u2", "<u4"])
def made(request, tmp_path, write_data, write_master):
    images = images_of(request.param)
    names = ["r_data_000001.h5", "r_data_000002.h5"]
    write_data(tmp_path / names[0], images[:5])
    write_data(tmp_path / names[1], images[5:], first=6)
    master = write_master(tmp_path / "r_master.h5", names, nimages=9)
    return open_series(master, threads=3), images


CHOSEN = [None, slice(2, 8, 3), [8, 0, 0], 4, -1, slice(3, 3)]


def stack_of(images, chosen):
    if chosen is None:
        return images
    return images[[chosen]] if isinstance(chosen, int) else images[chosen]


@pytest.mark.parametrize("chosen", CHOSEN, ids=repr)
def test_sum_mean_and_max(made, chosen):
    series, images = made
    stack = stack_of(images, chosen)
    most = np.iinfo(images.dtype).max
    none = (stack == most).any(axis=0)
    total = stack.astype(object).sum(axis=0) if len(stack) else np.zeros(SHAPE, object)
    found = series.sum(chosen)
    assert found.dtype == np.uint64
    assert np.array_equal(found, np.where(none, 2**64 - 1, total).astype(np.uint64))
    mean = series.mean(chosen)
    if len(stack):
        expected = np.where(none, np.nan, stack.astype(float).mean(axis=0))
        np.testing.assert_allclose(mean, expected, rtol=1e-12)
        assert np.array_equal(series.max(chosen), stack.max(axis=0))
    else:
        assert np.isnan(mean).all()
        assert not series.max(chosen).any()
    assert series.max(chosen).dtype == images.dtype


@pytest.mark.parametrize("dtype", ["<u1", "<u2", "<u4", ">u2", ">u4"])
@pytest.mark.parametrize("kind", ["faint", "a few strong", "strong", "full", "each kind"])
def test_sums_of_any_counts(tmp_path, write_data, dtype, kind):
    """Counts of which two or twenty exceed the type of the images, in some or in all pixels."""
    generator = np.random.default_rng(3)
    most = np.iinfo(dtype).max
    faint = generator.poisson(0.5, (40, *SHAPE))
    few = np.where(generator.random((40, *SHAPE)) < 0.005, generator.integers(most, size=1), faint)
    few[:, 7, 7] = most - 1
    strong = generator.integers(most // 9, most // 5, (40, *SHAPE))
    full = np.full((40, *SHAPE), most - 1)
    by_turns = np.concatenate([each[:10] for each in (faint, full, few, strong)])
    kinds = {"faint": faint, "a few strong": few, "strong": strong, "full": full}
    images = kinds.get(kind, by_turns).astype(dtype)
    images[4, 20] = images[:, 30, 30] = most
    path = write_data(tmp_path / "s.h5", images)
    expected = images.astype(np.uint64).sum(axis=0)
    expected[20] = expected[30, 30] = 2**64 - 1
    for threads in (1, 3):
        assert np.array_equal(open_series(path, threads=threads).sum(), expected)


def test_images_chosen_as_numpy_chooses_them(made):
    series, images = made
    chosen = np.array([False, False, True, True, False, True, False, False, False])
    assert np.array_equal(series.max(chosen), images[chosen].max(axis=0))
    assert series.roi_sums({"whole": None}, list(chosen))["whole"].shape == (3,)
    assert np.array_equal(series.max([]), np.zeros(SHAPE))
    for wrong in (chosen[:-1], [0.5, 2], ["2"], [[0, 1]]):
        with pytest.raises(IndexError):
            series.max(wrong)


@pytest.mark.long
def test_a_sum_beyond_32_bits(tmp_path, write_data):
    """More images of the largest count than a sum of 32 bits takes."""
    image = np.full((1, 2, 3), 65534, np.uint16)
    path = write_data(tmp_path / "l.h5", image)
    found = open_series(path, threads=1).sum([0] * 70_000)
    assert (found == 70_000 * 65534).all()


def test_regions_of_each_image(made):
    series, images = made
    most = np.iinfo(images.dtype).max
    counted = np.where(images == most, 0, images)
    boxes = {"left": (0, 3, 7, 20), "one": (59, 39, 1, 1), "whole": None}
    sums = series.roi_sums(boxes)
    assert list(sums) == ["left", "one", "whole"]
    for name, box in boxes.items():
        x, y, width, height = box or (0, 0, 60, 40)
        part = counted[:, y : y + height, x : x + width]
        assert sums[name].dtype == np.uint64
        assert np.array_equal(sums[name], part.sum(axis=(1, 2), dtype=np.uint64))
    (alone,) = series.roi_sums([(5, 30, 10, 5)], slice(2, 4)).values()
    assert np.array_equal(alone, counted[2:4, 30:35, 5:15].sum(axis=(1, 2), dtype=np.uint64))


@pytest.mark.parametrize("box", [(0, 0, 61, 1), (0, 40, 1, 1), (0, 0, 0, 1), (-1, 0, 1, 1), (1, 2)])
def test_regions_that_are_none(made, box):
    with pytest.raises(RegionError, match=r"r_master\.h5: region 'a'"):
        made[0].roi_sums({"a": box})


@pytest.mark.parametrize("box", [5, 2.5, np.int64(3)])
def test_a_region_that_is_one_number(made, box):
    said = re.escape(f"r_master.h5: region 'a' is {box!r}; give (x0, y0, width, height)")
    with pytest.raises(RegionError, match=said):
        made[0].roi_sums({"a": box})
    with pytest.raises(RegionError, match=r"r_master\.h5: region 'roi1' is 1; give"):
        made[0].roi_sums((1, 2, 3, 4))


def test_no_region_at_all(made):
    with pytest.raises(RegionError, match="no region of interest given"):
        made[0].roi_sums({})


@pytest.mark.parametrize("chosen", CHOSEN, ids=repr)
def test_hits(made, chosen):
    series, images = made
    stack = stack_of(images, chosen)
    image, y, x = ((stack > 0) & (stack < np.iinfo(stack.dtype).max)).nonzero()
    numbers = np.arange(9)[[chosen] if isinstance(chosen, int) else chosen or slice(None)]
    hits = series.hits(chosen)
    if chosen is not None:
        assert np.array_equal(hits.image, numbers[image])
    assert np.array_equal(hits.y, y)
    assert np.array_equal(hits.x, x)
    assert np.array_equal(hits.counts, stack[image, y, x])
    assert hits.counts.dtype == images.dtype


def test_a_missing_file_is_said_and_can_be_left_out(made):
    series, images = made
    series.files[0].unlink()
    found = open_series(series.path)
    with pytest.raises(MissingFileError, match=r"r_data_000001\.h5 is missing"):
        found.sum()
    assert np.array_equal(found.max(found.there), images[5:].max(axis=0))
    # Nor has a type check anything against it.
    assert type(found.there) in get_args(Numbers)


# ---- with what the master says


@pytest.fixture(params=[1, 2], ids=["eiger1", "eiger2"])
def simulated(request, tmp_path):
    """A series of either generation, with its master's settings far from any default."""
    settings = {
        "nimages": 3,
        "beam_center_x": 400.25,
        "beam_center_y": 91.5,
        "omega_start": 10.0,
        "omega_increment": 0.25,
    }
    series = armed(request.param, **settings)
    return open_series(write_series(tmp_path, series)), series


def test_the_metadata_are_those_of_the_detector(simulated):
    series, wanted = simulated
    found, told = series.metadata, wanted.detector
    for name in ("detector_distance", "threshold_energy", "count_time", "frame_time"):
        assert getattr(found, name) == pytest.approx(told[name], rel=1e-6)
    for name in ("x_pixel_size", "y_pixel_size", "sensor_thickness", "photon_energy", "wavelength"):
        assert getattr(found, name) == pytest.approx(told[name], rel=1e-6)
    assert (found.beam_center_x, found.beam_center_y) == (400.25, 91.5)
    for name in ("detector_number", "description", "sensor_material", "software_version"):
        assert getattr(found, name) == told[name]
    assert (found.bit_depth_image, found.nimages, found.ntrigger) == (16, 3, 1)
    assert found.bit_depth_readout == told["bit_depth_readout"]
    assert found.date == dt.datetime.fromisoformat(told["data_collection_date"])
    assert found.omega.tolist() == [10, 10.25, 10.5]
    assert found.unit("detector_distance") == "m"
    assert found.unit("description") == ""
    assert np.array_equal(series.mask, told["pixel_mask"])
    assert np.array_equal(series.flatfield, told["flatfield"])
    assert DETECTOR["beam_center_x"] != found.beam_center_x


def test_the_metadata_of_the_real_9m(eiger_test_data, tmp_path, write_data):
    """The master alone is there; the data file is made, as large as it is to be."""
    (tmp_path / "dectris_eiger_master.h5").symlink_to(eiger_test_data / MASTER_9M)
    write_data(tmp_path / "dectris_eiger_data_000001.h5", np.zeros((1, 3269, 3110), np.uint16))
    found = open_series(tmp_path).metadata
    assert found.beam_center_x == pytest.approx(1607.4, abs=0.1)
    assert found.detector_distance == pytest.approx(0.134255)
    assert found.wavelength == pytest.approx(0.98011, abs=1e-5)
    assert found.description == "Dectris Eiger 9M"
    assert found.detector_number == "E-18-0102"
    assert found.date == dt.datetime.fromisoformat("2016-12-16T07:06:17.852051")
    assert found.kappa.shape == (1,)


def with_facts(path, **facts):
    """Put values into a master's /entry/instrument/detector, or elsewhere by a whole path."""
    with h5py.File(path, "a") as file:
        for name, (value, unit) in facts.items():
            place = name.replace("__", "/")
            place = place if "/" in place else f"entry/instrument/detector/{place}"
            file.require_group(place.rpartition("/")[0])[place.rpartition("/")[2]] = value
            if len(unit):
                file[place].attrs["units"] = unit


def test_other_units_and_nothing_at_all(made):
    series, _ = made
    assert series.metadata.detector_distance is None
    assert series.metadata.omega is None
    assert series.metadata.date is None
    with_facts(series.path, distance=(125.0, "mm"), count_time=(20.0, b"ms"))
    with_facts(series.path, frame_time=(21.0, ["ms"]), x_pixel_size=(75.0, np.bytes_(["um"])))
    assert series.metadata.detector_distance == pytest.approx(0.125)
    assert series.metadata.count_time == pytest.approx(0.02)
    assert series.metadata.frame_time == pytest.approx(0.021)
    assert series.metadata.x_pixel_size == pytest.approx(75e-6)


@pytest.mark.parametrize(
    ("fact", "value", "unit", "said"),
    [
        ("detector_distance", 1.0, "furlong", "a unit of 'furlong', m expected"),
        ("detector_distance", 1.0, "M", "a unit of 'M', m expected"),
        ("detector_distance", 1.0, b"\xff", "a unit of '\ufffd', m expected"),
        ("beam_center_x", 3.0, "mm", "a unit of 'mm', pixel expected"),
        ("beam_center_x", "left", "pixel", "beam_center_x is not what it should be: .*left"),
        ("count_time", np.empty(0), "s", "count_time is not what it should be: .*no values"),
        ("bit_depth_image", np.inf, "", "bit_depth_image is not what it should be: .*infinity"),
        ("entry__start_time", "yesterday", "", "start_time is not what it should be: .*yesterday"),
        ("description", np.array([b"a", b"b"]), "", "description is not what it should be"),
    ],
)
def test_what_a_master_cannot_say(made, caplog, fact, value, unit, said):
    series, _ = made
    name = "date" if fact == "entry__start_time" else fact
    with_facts(series.path, frame_time=(0.5, "s"), **{fact: (value, unit)})
    found = series.metadata
    assert getattr(found, name) is None
    assert found.frame_time == 0.5
    (warning,) = caplog.messages
    assert re.search(rf"r_master\.h5: .*{said}.*; {name} is taken for not said", warning)
    with pytest.raises(FileError, match=rf"r_master\.h5: .*{said}"):
        read_metadata(series.path, names=[name])
    assert read_metadata(series.path, names=["frame_time"]).frame_time == 0.5
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("kind", ["u1", "f8", "S1"])
@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("count_time", "entry/instrument/detector/count_time"),
        ("bit_depth_image", "entry/instrument/detector/bit_depth_image"),
        ("description", "entry/instrument/detector/description"),
        ("date", "entry/start_time"),
        ("omega", "entry/sample/goniometer/omega"),
    ],
)
def test_more_values_than_a_master_has(made, caplog, name, place, kind, peak_below):
    """A few bytes say how many there are; they are not read."""
    series, _ = made
    with h5py.File(series.path, "a") as file:
        file.create_dataset(place, (10**8,), kind, chunks=(2**20,), compression="gzip")
    with peak_below(2**23):
        assert getattr(series.metadata, name) is None
    (warning,) = caplog.messages
    assert f"{place} of shape (100000000,) is more than a master has there" in warning
    with pytest.raises(FileError, match=rf"r_master\.h5: /{place} is not what it should be"):
        read_metadata(series.path, names=[name])


@pytest.mark.parametrize(
    ("fact", "factor", "units"),
    [
        ("detector_distance", 1, ["", " ", "m", "meter", "metre", "meters", "Metres", "meter(s)"]),
        ("detector_distance", 1, [h5py.Empty("S1"), np.empty(0, "S1"), b"m", [b"meter"]]),
        ("detector_distance", 1e-2, ["cm", "centimeter"]),
        ("detector_distance", 1e-3, ["mm ", "millimeter", "Millimetres", np.bytes_("mm")]),
        ("x_pixel_size", 1e-6, ["um", "\u00b5m", "\u03bcm", "micron", "Microns", "micrometer"]),
        ("wavelength", 1, ["", "\u00c5", "\u212b", "angstroms", "ANGSTROM", "A"]),
        ("wavelength", 10, ["nm", "nanometer"]),
        ("beam_center_x", 1, ["", "px", "Pixel", "pixels", "pixel(s)"]),
        ("count_time", 1, ["sec", "second", "seconds", "Seconds", "s"]),
        ("count_time", 1e-3, ["ms", "millisecond"]),
        ("photon_energy", 1e3, ["keV", "KeV", "kiloelectronvolt"]),
        ("photon_energy", 1, ["eV", "ev"]),
    ],
)
def test_units_by_other_names(made, caplog, fact, factor, units):
    series, _ = made
    places = {
        "wavelength": "entry/instrument/beam/incident_wavelength",
        "photon_energy": "entry/instrument/detector/detectorSpecific/photon_energy",
    }
    place = places.get(fact, f"entry/instrument/detector/{fact}")
    with h5py.File(series.path, "a") as file:
        file[place] = 3.0
    for unit in units:
        with h5py.File(series.path, "a") as file:
            file[place].attrs["units"] = unit
        assert getattr(series.metadata, fact) == pytest.approx(3 * factor), unit
    assert not caplog.messages


@pytest.mark.parametrize("stored", [np.bytes_(b"Eig\xe9r"), b"Eig\xe9r"], ids=["fixed", "variable"])
def test_text_of_another_encoding(made, caplog, stored):
    series, _ = made
    kind = None if isinstance(stored, np.bytes_) else h5py.string_dtype()
    with h5py.File(series.path, "a") as file:
        file.create_dataset("entry/instrument/detector/description", data=stored, dtype=kind)
    assert series.metadata.description == "Eig\ufffdr"
    assert not caplog.messages


@pytest.mark.parametrize("unit", ["radius", "2theta", "q"])
def test_a_profile_needs_lengths_that_can_be_used(made, unit):
    series, _ = made
    with_facts(series.path, **{**GEOMETRY, "beam_center_x": (20.0, "furlong")})
    with pytest.raises(FileError, match=r"r_master\.h5: .*a unit of 'furlong', pixel expected"):
        series.radial_profile(bins=5, unit=unit)


@pytest.mark.parametrize("unit", ["radius", "q"])
def test_a_beam_in_the_corner_is_told(made, unit, caplog):
    """It is what a detector says that nobody told; one at an edge is not."""
    series, _ = made
    corner = {"beam_center_x": (0.0, "pixel"), "beam_center_y": (0.0, "pixel")}
    with_facts(series.path, **{**GEOMETRY, **corner})
    for _ in range(2):
        series.radial_profile(bins=5, unit=unit)
    (said,) = caplog.messages
    assert said.startswith(f"{series.path}: the beam centre is (0, 0), as it is of a detector")
    with h5py.File(series.path, "a") as file:
        file["entry/instrument/detector/beam_center_y"][()] = 10.0
    open_series(series.path).radial_profile(bins=5, unit=unit)
    assert caplog.messages == [said]


def test_metadata_by_a_path_that_is_text(made):
    series, _ = made
    assert read_metadata(str(series.path)).frame_time == read_metadata(series.path).frame_time
    with pytest.raises(FileError, match="no such file"):
        read_metadata("not_there_master.h5")


GEOMETRY = {
    "beam_center_x": (20.0, "pixel"),
    "beam_center_y": (10.0, "pixel"),
    "detector_distance": (0.01, "m"),
    "x_pixel_size": (75e-6, "m"),
    "y_pixel_size": (75e-6, "m"),
    "entry__instrument__beam__incident_wavelength": (1.0, "angstrom"),
}


@pytest.mark.parametrize("unit", ["radius", "2theta", "q"])
def test_a_radial_profile(made, unit):
    series, images = made
    with_facts(series.path, **GEOMETRY)
    mask = np.zeros(SHAPE, np.uint32)
    mask[:, 30] = 2
    with_facts(series.path, entry__instrument__detector__detectorSpecific__pixel_mask=(mask, ""))
    found = series.radial_profile(slice(2, 6), unit=unit, bins=12)
    # One pixel after the other.
    largest = np.iinfo(images.dtype).max
    away, bins = [], {}
    for y in range(SHAPE[0]):
        for x in range(SHAPE[1]):
            radius = np.hypot(y + 0.5 - 10, x + 0.5 - 20)
            angle = np.arctan(radius * 75e-6 / 0.01)
            value = {
                "radius": radius,
                "2theta": np.degrees(angle),
                "q": 4 * np.pi * np.sin(angle / 2),
            }[unit]
            away.append((value, y, x))
    width = max(away)[0] / 12
    for value, y, x in away:
        stack = images[2:6, y, x]
        if not mask[y, x] and not (stack == largest).any():
            bins.setdefault(min(int(value / width), 11), []).append(stack.astype(float).mean())
    assert found.pixels.sum() == sum(len(values) for values in bins.values())
    np.testing.assert_allclose(found.positions, (np.arange(12) + 0.5) * width)
    for place in range(12):
        values = bins.get(place, [])
        assert found.pixels[place] == len(values)
        if values:
            assert found.intensity[place] == pytest.approx(np.mean(values))
        else:
            assert np.isnan(found.intensity[place])
    assert found.unit == {"radius": "pixel", "2theta": "degree", "q": "1/angstrom"}[unit]


def test_a_ring_is_where_it_is(tmp_path, write_data, write_master):
    y, x = np.indices((400, 500)) + 0.5
    radius = np.hypot(y - 180, x - 260)
    image = np.where(abs(radius - 100) < 1, 50, 0).astype(np.uint16)
    write_data(tmp_path / "g_data_000001.h5", image[None])
    master = write_master(tmp_path / "g_master.h5", ["g_data_000001.h5"], nimages=1)
    centre = {"beam_center_x": (260.0, "pixel"), "beam_center_y": (180.0, "pixel")}
    with_facts(master, **centre)
    found = open_series(master).radial_profile(0, unit="radius", bins=300)
    assert found.positions[np.nanargmax(found.intensity)] == pytest.approx(100, abs=1.5)


def test_a_profile_needs_what_the_master_does_not_say(made):
    series, _ = made
    with pytest.raises(ValueError, match=r"r_master\.h5: the master says no beam_center_y"):
        series.radial_profile()
    with pytest.raises(ValueError, match="no unit 'd'; there are q, 2theta, radius"):
        series.radial_profile(unit="d")
    with_facts(series.path, **GEOMETRY)
    with pytest.raises(ValueError, match="0 images in 5 bins"):
        series.radial_profile([], bins=5)


NO_LENGTHS = [np.nan, np.inf, -0.1, 0.0]


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        *(("detector_distance", value) for value in NO_LENGTHS),
        *(("x_pixel_size", value) for value in NO_LENGTHS),
        *(("beam_center_x", value) for value in (np.nan, -np.inf)),
        *(("wavelength", value) for value in NO_LENGTHS),
    ],
)
def test_a_profile_of_what_is_no_number(made, fact, value):
    series, _ = made
    place = "entry__instrument__beam__incident_wavelength" if fact == "wavelength" else fact
    with_facts(series.path, **{**GEOMETRY, place: (value, GEOMETRY[place][1])})
    with pytest.raises(ValueError, match=rf"r_master\.h5: the master says no {fact}, without"):
        series.radial_profile(bins=5)


@pytest.mark.parametrize("wavelength", NO_LENGTHS)
def test_a_profile_where_the_energy_alone_is_a_number(made, wavelength):
    series, _ = made
    with_facts(series.path, **GEOMETRY)
    expected = series.radial_profile(bins=5)
    energy = 12398.41984332
    place = "entry__instrument__detector__detectorSpecific__photon_energy"
    with h5py.File(series.path, "a") as file:
        del file["entry/instrument/beam/incident_wavelength"]
    facts = {place: (energy, "eV")}
    facts["entry__instrument__beam__incident_wavelength"] = (wavelength, "angstrom")
    with_facts(series.path, **facts)
    found = series.radial_profile(bins=5)
    np.testing.assert_allclose(found.positions, expected.positions)
    assert np.array_equal(found.pixels, expected.pixels)


@pytest.mark.parametrize("unit", ["radius", "2theta", "q"])
def test_a_profile_needs_no_date(made, unit):
    series, _ = made
    with_facts(series.path, **GEOMETRY)
    expected = series.radial_profile(bins=5, unit=unit)
    with_facts(series.path, entry__start_time=("unknown", ""), count_time=(1.0, "furlong"))
    with pytest.raises(FileError, match="is not what it should be"):
        read_metadata(series.path, names=["date"])
    found = series.radial_profile(bins=5, unit=unit)
    assert np.array_equal(found.positions, expected.positions)
    assert np.array_equal(found.intensity, expected.intensity, equal_nan=True)


def test_regions_of_64_bits(tmp_path, write_data):
    images = np.arange(2 * 4 * 5, dtype=np.uint64).reshape(2, 4, 5)
    images[:, 1, 1:4] = 2**64 - 1
    images[1, 0, 0] = 2**64 - 2
    path = write_data(tmp_path / "w_data_000001.h5", images, code=None)
    kept = np.where(images == 2**64 - 1, 0, images).astype(object)
    wanted = [int(image.sum()) % 2**64 for image in kept]
    # A warning is an error here.
    assert open_series(path).roi_sums({"whole": None})["whole"].tolist() == wanted


def test_what_a_master_has_without_a_value(made):
    series, _ = made
    empty = {name: (h5py.Empty("S5"), "") for name in ("description", "entry__start_time")}
    with_facts(series.path, **empty, count_time=(h5py.Empty("f8"), "s"))
    found = series.metadata
    assert (found.description, found.date, found.count_time) == (None, None, None)
