"""What a master file says follows from what the series was armed with."""

import h5py
import numpy as np
import pytest
from armed import DETECTOR, armed_series
from checker import golden
from golden.make import describe
from written import GENERATIONS, armed, write_series

from sim_dcu import file_layouts
from sim_dcu.detector_config import DetectorConfig
from sim_dcu.filewriter import SeriesWriter
from sim_dcu.firmware import firmware_of
from sim_dcu.models import MODELS

SPECIFIC = "entry/instrument/detector/detectorSpecific"


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


def test_the_master_of_a_9m_says_what_the_real_one_says(real_9m, simulated_9m):
    found, real = (
        {path: entry["value"] for path, entry in told["objects"].items() if "value" in entry}
        for told in (simulated_9m, real_9m)
    )
    # 400 degrees in the copy, of the 800 images before it was cut to one.
    total = "/entry/sample/goniometer/omega_range_total"
    assert (found.pop(total), real.pop(total)) == (0.5, 400.0)
    assert found == real


def test_programs_in_c_read_whole_attributes(tmp_path):
    """As an XDS plugin does: into as many bytes as an attribute has, null-terminated."""
    for model in ("eiger-500k", "eiger2-500k"):
        folder = tmp_path / model
        folder.mkdir()
        writer = SeriesWriter(folder, armed_series(model=model))
        writer.write_master()
        writer.close()
        with h5py.File(folder / writer.master_name) as file:
            for place, name, text in (
                ("entry/data", "NX_class", b"NXdata"),
                ("entry/instrument/detector", "NX_class", b"NXdetector"),
                ("entry/instrument/detector/count_time", "units", b"s"),
            ):
                attribute = h5py.h5a.open(file[place].id, name.encode())
                kind = h5py.h5t.C_S1.copy()
                kind.set_size(attribute.get_type().get_size())
                found = np.zeros((), f"S{kind.get_size()}")
                attribute.read(found, mtype=kind)
                assert found.item() == text


def test_half_modules_lie_where_a_real_detector_has_them(real_9m, simulated_9m):
    assert len(real_9m["half_modules"]) == 36
    assert simulated_9m["half_modules"] == real_9m["half_modules"]


@pytest.mark.parametrize("model", ["eiger-500k", "eiger2-500k"])
def test_a_detectors_configuration_has_what_a_master_says(model):
    values = DetectorConfig(MODELS[model], firmware_of(MODELS[model]), 0).armed_values()
    layout = file_layouts.EIGER2 if "eiger2" in model else file_layouts.EIGER1
    assert set(layout.master.required_keys()) <= values.keys()


def test_the_master_says_what_was_armed(tmp_path, generation):
    series = armed(
        generation,
        (1, 2),
        nimages=2,
        ntrigger=3,
        element="",
        omega_start=10.0,
        omega_increment=0.25,
        two_theta_start=-5.0,
    )
    single = generation == 1
    kind = np.float32 if single else np.float64
    with h5py.File(write_series(tmp_path, series)) as file:
        detector, specific = file["entry/instrument/detector"], file[SPECIFIC]
        assert file["entry/instrument/beam/incident_wavelength"][()] == kind(1.5406)
        assert detector["count_time"][()] == kind(0.5)
        assert detector["beam_center_x"][()] == (515.5 if single else 514.25)
        assert detector["beam_center_y"][()] == 532.25
        assert detector["sensor_material"][()] == b"Si"
        # Minus the distance: in a real 9M's file, and as a real EIGER2 16M sends it.
        assert detector["geometry/translation/distances"][2] == -0.125
        assert specific["nimages"][()] == 2
        assert specific["ntrigger"][()] == 3
        assert specific["element"][()] == b""
        # Gaps as in pyFAI's masks, and 16 bad pixels a module.
        assert specific["number_of_excluded_pixels"][()] == (38110 if single else 39064) + 2 * 16
        np.testing.assert_array_equal(specific["pixel_mask"], series.detector["pixel_mask"])
        np.testing.assert_array_equal(specific["flatfield"], series.detector["flatfield"])
        half_modules = [name for name in specific if name.startswith("detectorModule_")]
        assert len(half_modules) == (4 if single else 0)
        omega = file["entry/sample/goniometer"]
        assert omega["omega"][()].tolist() == [10.0, 10.25, 10.5, 10.75, 11.0, 11.25]
        assert omega["omega_end"][()].tolist() == [10.25, 10.5, 10.75, 11.0, 11.25, 11.5]
        assert omega["omega_range_total"][()] == 1.5
        assert omega["omega_range_average"][()] == 0.25
        assert detector["goniometer/two_theta"][()].tolist() == [-5.0] * 6


@pytest.mark.parametrize(
    ("orientation", "first_pixel"),
    [
        ([-1.0, 0.0, 0.0, 0.0, -1.0, 0.0], (0.03856875, 0.03991875, 0.125)),
        # Turned by 90 degrees about the beam: the columns go down, the rows to the right.
        ([0.0, -1.0, 0.0, 1.0, 0.0, 0.0], (-0.03991875, 0.03856875, 0.125)),
    ],
)
def test_the_beam_meets_an_eiger2_in_its_centre(tmp_path, orientation, first_pixel):
    """By the formula of the API reference 1.8, section 4, worked out by hand."""
    series = armed(2, (1, 2), detector_orientation=orientation)
    with h5py.File(write_series(tmp_path, series)) as file:
        detector = file["entry/instrument/detector"]
        translation = detector["transformations/translation"]
        place = translation[()] * translation.attrs["vector"]
        np.testing.assert_allclose(place, first_pixel, rtol=1e-12)
        fast, slow = (
            detector[f"module/{name}_pixel_direction"].attrs["vector"] for name in ("fast", "slow")
        )
        beam_center = place + 514.25 * 7.5e-05 * fast + 532.25 * 7.5e-05 * slow
        np.testing.assert_allclose(beam_center, (0, 0, 0.125), atol=1e-12)


def test_a_detector_in_the_sample_still_has_a_direction(tmp_path):
    """After initialize the distance and the beam centre are 0."""
    series = armed(2, beam_center_x=0.0, beam_center_y=0.0, detector_distance=0.0)
    with h5py.File(write_series(tmp_path, series)) as file:
        translation = file["entry/instrument/detector/transformations/translation"]
        assert translation[()] == 0
        assert translation.attrs["vector"].tolist() == [0, 0, 1]


def test_the_layout_is_that_of_the_generation_whatever_the_api_answers():
    series = {number: armed(number) for number in GENERATIONS}
    assert file_layouts.layout_of(series[1]) is file_layouts.EIGER1
    assert file_layouts.layout_of(series[2]) is file_layouts.EIGER2
