"""`ophyd-eiger show` on files written with plain h5py."""

import h5py
import hdf5plugin
import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def master(tmp_path, monkeypatch):
    """A master file with two images inside; the working directory is beside it."""
    path = tmp_path / "x_7_master.h5"
    images = np.random.default_rng(7).poisson(9, (2, 37, 53)).astype(np.uint16)
    with h5py.File(path, "w") as file:
        made = file.create_dataset(
            "entry/data/data", images.shape, "<u2", chunks=(1, 37, 53), **hdf5plugin.LZ4()
        )
        made[...] = images
        specific = file.create_group("entry/instrument/detector/detectorSpecific")
        specific["pixel_mask"] = np.zeros((37, 53), np.uint32)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return path


def test_a_picture_is_drawn_here(run, master, tmp_path):
    said = run("show", master)
    assert (said.status, said.out) == (0, "x_7_master_1.png\n")
    with Image.open(tmp_path / "here" / "x_7_master_1.png") as png:
        png.load()
        assert png.format == "PNG"
    said = run("show", master)
    assert said.status == 1
    assert "x_7_master_1.png: exists already; give another name by --output" in said.err


def test_a_folder_is_taken_too(run, master, tmp_path):
    said = run("show", master.parent, "--image", 2, "--json")
    facts = {"file": str(master.parent), "images": 2, "shape": [37, 53]}
    assert said.json == {**facts, "picture": f"{master.parent.name}_2.png"}
    assert (tmp_path / "here" / said.json["picture"]).stat().st_size > 5000


@pytest.mark.parametrize("what", ["sum", "max", "sums", "overview"])
def test_each_kind(run, master, tmp_path, what):
    said = run("show", master, "--of", what, "--log", "--output", tmp_path / "a.png", "--json")
    assert said.status == 0
    picture = str(tmp_path / "a.png")
    facts = {"file": str(master), "images": 2, "shape": [37, 53]}
    assert said.json == {**facts, "picture": picture}
    assert (tmp_path / "a.png").stat().st_size > 5000


@pytest.mark.parametrize("what", ["sum", "max", "sums", "overview", None])
def test_a_data_file_without_an_image(run, tmp_path, what):
    path = tmp_path / "e_data_000001.h5"
    with h5py.File(path, "w") as file:
        settings = {"maxshape": (None, 37, 53), "chunks": (1, 37, 53)}
        file.create_dataset("entry/data/data", (0, 37, 53), "<u2", **settings)
    output = tmp_path / "a.png"
    said = run("show", path, *(["--of", what] if what else []), "--output", output, "--json")
    assert said.status == 1
    asked = "" if what else "image 1 asked for, "
    assert said.json["error"]["kind"] == "IndexError"
    assert said.json["error"]["message"] == f"{path}: {asked}it has no images"
    assert not output.exists()


def test_options_that_do_not_fit(run, master, tmp_path):
    assert run("show", master, "--image", 1, "--of", "sum").status == 2
    assert run("show", master, "--rings", "2,x").status == 2
    assert run("show", master, "--image", 0).status == 2
    said = run("show", master, "--image", 3, "--json")
    assert said.status == 1
    assert "image 3 asked for, it has images 1 to 2" in said.json["error"]["message"]
    (tmp_path / "no.npy").write_bytes(b"none")
    said = run("show", master, "--mask", tmp_path / "no.npy")
    assert said.status == 1
    assert "no.npy: no array of numpy" in said.err
    said = run("show", master, "--rings", "2.5")
    assert said.status == 1
    assert "x_7_master.h5: it does not say beam_center_x" in said.err
    assert "give it, as --geometry distance=0.2, or leave rings out (--rings none)" in said.err
    assert "ophyd-eiger set URL detector_distance=" in said.err
    assert "ScatteringGeometry" not in said.err
    assert list((tmp_path / "here").iterdir()) == []


def test_rings_alone_are_those_that_fit(run, master, tmp_path):
    drawn = tmp_path / "rings.png"
    said = run("show", master, "--of", "sum", "--log", "--rings", "--output", drawn)
    assert said.status == 1
    assert "x_7_master.h5: it does not say beam_center_x" in said.err
    with h5py.File(master, "r+") as file:
        detector = file["entry/instrument/detector"]
        detector["beam_center_x"] = 26.0
        detector["beam_center_y"] = 18.0
        detector["detector_distance"] = 0.02
        detector["x_pixel_size"] = detector["y_pixel_size"] = 75e-6
        file["entry/instrument/beam/incident_wavelength"] = 1.0
    assert run("show", master, "--of", "sum", "--log", "--rings", "--output", drawn).status == 0
    plain = tmp_path / "plain.png"
    assert (
        run("show", master, "--of", "sum", "--log", "--rings", "none", "--output", plain).status
        == 0
    )
    assert drawn.read_bytes() != plain.read_bytes()


def test_a_file_that_is_no_series(run, tmp_path):
    (tmp_path / "x.h5").write_bytes(b"no HDF5")
    said = run("show", tmp_path / "x.h5")
    assert said.status == 1
    assert "x.h5: not a whole HDF5 file" in said.err
    assert run("show", tmp_path / "gone.h5").status == 2
