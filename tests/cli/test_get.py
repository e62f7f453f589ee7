"""`get` and `info`: names, values, limits, arrays, and what is loaded for them."""

import subprocess
import sys

import numpy as np
import pytest

from ophyd_eiger.cli import names

GENERATIONS_BY_TURNS = True
# K-alpha of copper, what a detector is set to when it is initialized (X-ray data booklet), in eV.
CU = 8047.78


@pytest.mark.parametrize(
    "name",
    [
        "photon_energy",
        "config/photon_energy",
        "detector.photon_energy",
        "detector/config/photon_energy",
        "/detector/api/1.6.0/config/photon_energy",
        "PHOTON_ENERGY",
    ],
)
def test_ways_to_name_a_setting(read_only, run, name):
    said = run("get", read_only.url, name)
    value, unit = said.out.split()
    assert float(value) == pytest.approx(CU, abs=0.005)
    assert unit == "eV"
    assert (said.status, said.err) == (0, "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("filewriter.name_pattern", "series_$id"),
        ("filewriter/config/name_pattern", "series_$id"),
        ("name_pattern", "series_$id"),
        ("state", "idle"),
        ("detector/status/state", "idle"),
        ("monitor.mode", "disabled"),
    ],
)
def test_names_of_other_subsystems_and_of_the_status(read_only, run, name, value):
    assert run("get", read_only.url, name).out == f"{value}\n"


def test_a_key_with_slashes_also_as_the_attribute_is_called(dcu2, run):
    expected = dcu2.get("detector/config/threshold/2/energy")
    for name in ("threshold/2/energy", "threshold_2_energy"):
        assert float(run("get", dcu2.url, name).out.split()[0]) == expected


def test_what_an_eiger2_serves_without_listing_it(dcu2, run):
    wavelength = float(run("get", dcu2.url, "wavelength").out.split()[0])
    # h c / e in eV angstrom, exact since 2019.
    assert wavelength == pytest.approx(12398.41984 / CU, rel=1e-6)


def test_several_values_are_a_table_with_limits_and_choices(dcu, run):
    said = run("get", dcu.url, "count_time", "trigger_mode", "filewriter.mode", "--all")
    assert "1800 s" in said.out
    assert "choices   ints, exts, inte, exte" in said.out
    assert "filewriter.mode  enabled" in said.out
    assert "access    read and write" in said.out
    assert "access    read only" in run("get", dcu.url, "description", "--all").out


def test_limits_of_a_status_value(dcu, run):
    said = run("get", dcu.url, "th0_temp", "board_000/th0_temp", "--all")
    assert said.status == 1
    assert "board_000/th0_temp?" in said.err
    found = run("get", dcu.url, "board_000/th0_temp", "--all").out
    assert "good      15 to 37.5" in found
    assert "state     normal" in found


def test_json_says_what_the_dcu_says(read_only, run):
    document = run("get", read_only.url, "nimages", "filewriter.mode", "--json").json
    assert list(document) == ["detector/config/nimages", "filewriter/config/mode"]
    assert document["detector/config/nimages"]["value"] == 1
    assert document["detector/config/nimages"]["min"] == 1
    assert document["detector/config/nimages"]["max"] == 2e9
    assert document["filewriter/config/mode"]["allowed_values"] == ["enabled", "disabled"]


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("photon_energi", "photon_energy"),
        ("trigger_mod", "trigger_mode"),
        ("filewriter.nimages_per_fil", "filewriter.nimages_per_file"),
    ],
)
def test_a_name_that_is_none_is_told_what_is_near(read_only, run, name, suggested):
    said = run("get", read_only.url, name)
    assert (said.status, said.out) == (1, "")
    assert repr(name) in said.err
    assert f"{suggested}" in said.err.partition("did you mean")[2]


def test_a_bad_name_among_several_hides_none_of_the_others(read_only, run):
    said = run("get", read_only.url, "nimages", "frame_tim", "state")
    assert (said.status, said.out) == (1, "nimages  1\nstate    idle\n")
    assert "'frame_tim'" in said.err
    assert "frame_time" in said.err.partition("did you mean")[2]
    document = run("get", read_only.url, "nimages", "frame_tim", "--json").json
    assert document["detector/config/nimages"]["value"] == 1
    assert "'frame_tim'" in document["error"]["message"]


def test_a_name_that_may_be_several(read_only, run):
    said = run("get", read_only.url, "mode")
    assert said.status == 1
    assert "filewriter.mode, monitor.mode or stream.mode" in said.err


def test_before_it_is_initialized(asleep, run):
    said = run("get", asleep.url, "count_time")
    assert said.status == 1
    assert f"ophyd-eiger initialize {asleep.url}" in said.err
    assert run("get", asleep.url, "state").out == "na\n"
    assert f"ophyd-eiger initialize {asleep.url}" in run("info", asleep.url).err


def test_an_array_is_summed_up_and_written_to_a_file(either, run, tmp_path):
    said = run("get", either.url, "pixel_mask", "--output", tmp_path / "mask.npy")
    mask = np.load(tmp_path / "mask.npy")
    shape = tuple(either.get(f"detector/config/{axis}_pixels_in_detector") for axis in "yx")
    assert (mask.shape, mask.dtype) == (shape, np.uint32)
    assert np.count_nonzero(mask) == either.get("detector/config/number_of_excluded_pixels")
    assert f"uint32 of {shape[0]} x {shape[1]} (y, x)" in said.out
    assert f"{np.count_nonzero(mask)} not 0" in said.out
    again = run("get", either.url, "pixel_mask", "--output", tmp_path / "mask.npy")
    assert again.status == 1
    assert "not overwritten" in again.err
    document = run("get", either.url, "flatfield", "--json").json["detector/config/flatfield"]
    assert document["value"]["shape"] == list(shape)


def test_output_is_for_one_array(read_only, run, tmp_path):
    both = run("get", read_only.url, "nimages", "ntrigger", "--output", tmp_path / "x.npy")
    assert both.status == 2
    number = run("get", read_only.url, "nimages", "--output", tmp_path / "x.npy")
    assert number.status == 1
    assert list(tmp_path.iterdir()) == []


def test_info_shows_who_it_is_and_how_it_is_set_up(read_only, run):
    said = run("info", read_only.url)
    for resource in ("description", "detector_number", "software_version", "eiger_fw_version"):
        assert read_only.get(f"detector/config/{resource}") in said.out
    lines = dict(line.split(None, 1) for line in said.out.splitlines())
    assert "idle" in lines["state"]
    assert "8047.78 eV" in said.out
    document = run("info", read_only.url, "--json").json
    assert document["state"] == "idle"
    size = document["values"]["detector/config/x_pixel_size"]
    assert size["value"] == pytest.approx(75e-6)
    assert size["unit"] == "m"


def test_getting_loads_neither_ophyd_nor_bluesky(read_only):
    code = (
        "import sys; from ophyd_eiger.cli import main\n"
        f"main(['get', '{read_only.url}', 'count_time'], standalone_mode=False)\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "requests" in loaded
    assert loaded.isdisjoint({"ophyd", "bluesky", "h5py", "matplotlib", "databroker"})


@pytest.mark.parametrize("name", ["", ".", "a b", "x.y.z", "/"])
def test_what_names_nothing(name):
    assert names.candidates(name) == []
    assert names.matches(name, ["detector/config/a"]) == []
