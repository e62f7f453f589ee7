"""Pictures of a series: what is in them, by plain numpy, and that they need no display."""

import io
import re
import subprocess
import sys
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from ophyd_eiger import open_series
from ophyd_eiger.brightest import BAD, in_blocks
from ophyd_eiger.errors import EigerError, FileError
from ophyd_eiger.geometry import ScatteringGeometry, read_geometry
from ophyd_eiger.pictures import Look, show

SHAPE = (90, 120)
GEOMETRY = ScatteringGeometry(
    beam_center_x=70.5,
    beam_center_y=41.0,
    distance=0.01,
    wavelength=1.0,
    pixel_size_x=7.5e-5,
    pixel_size_y=7.5e-5,
)
RED = tuple(int(BAD[start : start + 2], 16) for start in (1, 3, 5))
FIELDS = {
    "instrument/detector/beam_center_x": GEOMETRY.beam_center_x,
    "instrument/detector/beam_center_y": GEOMETRY.beam_center_y,
    "instrument/detector/detector_distance": GEOMETRY.distance,
    "instrument/detector/x_pixel_size": GEOMETRY.pixel_size_x,
    "instrument/detector/y_pixel_size": GEOMETRY.pixel_size_y,
    "instrument/beam/incident_wavelength": GEOMETRY.wavelength,
}


@pytest.fixture
def taken(tmp_path, write_data, write_master):
    """Return a series of 5 images in two files, the images and the mask."""
    images = np.random.default_rng(5).poisson(6, (5, *SHAPE)).astype(np.uint16)
    images[:, 10, 10] = 4000
    mask = np.zeros(SHAPE, np.uint32)
    mask[40:50] = 1
    images[:, mask != 0] = 65535
    names = ["p_1_data_000001.h5", "p_1_data_000002.h5"]
    write_data(tmp_path / names[0], images[:3])
    write_data(tmp_path / names[1], images[3:], first=4)
    master = write_master(tmp_path / "p_1_master.h5", names, nimages=5, mask=mask)
    with h5py.File(master, "a") as file:
        for place, value in FIELDS.items():
            file[f"entry/{place}"] = value
    return open_series(master), images, mask != 0


def shown_of(picture, panel=0):
    """Return the image of a panel, and its norm."""
    image: Any = picture.figure.axes[panel].get_images()[0]
    return image.get_array(), image.norm


def texts_of(picture):
    return [text.get_text() for text in picture.figure.axes[0].texts]


def rings_of(picture):
    return [patch for patch in picture.figure.axes[0].patches if hasattr(patch, "width")]


def test_an_image_with_its_mask_and_a_sensible_contrast(taken):
    series, images, masked = taken
    values, norm = shown_of(series.show(2))
    assert np.array_equal(values.mask, masked)
    assert np.array_equal(values.data[~masked], images[2][~masked])
    # Neither the masked pixels nor the one hot pixel say how bright the others are.
    assert norm.vmin == 0
    assert norm.vmax == np.percentile(images[2][~masked], 99.8) < 30


def test_sum_and_maximum(taken):
    series, images, masked = taken
    good = np.where(masked, 0, images).astype(np.uint64)
    for what, expected in (("sum", good.sum(axis=0)), ("max", good.max(axis=0))):
        values, _ = shown_of(series.show(what))
        assert np.array_equal(values.data[~masked], expected[~masked])
        assert np.array_equal(values.mask, masked)


def test_sums_over_time(taken):
    series, images, masked = taken
    (line,) = series.show("sums").figure.axes[0].lines
    assert np.array_equal(line.get_xdata(), [1, 2, 3, 4, 5])
    assert np.array_equal(line.get_ydata(), images[:, ~masked].sum(axis=1, dtype=np.uint64))


@pytest.mark.parametrize("master", [True, False], ids=["with a master", "a data file alone"])
def test_sums_over_time_are_those_of_regions(tmp_path, write_data, write_master, master):
    """Of pixels that saturate in one image or in several, and of one that is masked in all."""
    images = np.random.default_rng(6).poisson(6, (4, *SHAPE)).astype(np.uint32)
    most = 2**32 - 1
    images[:, 3, 3] = images[0, 20, 20] = images[1:3, 30, 30] = most
    path = write_data(tmp_path / "s_1_data_000001.h5", images)
    if master:
        mask = np.zeros(SHAPE, np.uint32)
        mask[3, 3] = 1
        path = write_master(tmp_path / "s_1_master.h5", [path.name], nimages=4, mask=mask)
    series = open_series(path)
    picture = series.show("sums", rings=False)
    expected = np.where(images == most, 0, images).sum(axis=(1, 2), dtype=np.uint64)
    assert np.array_equal(picture.figure.axes[0].lines[0].get_ydata(), expected)
    assert np.array_equal(series.roi_sums({"whole": None})["whole"], expected)
    said = "s_1_master.h5\n1 masked pixels left out" if master else "s_1_data_000001.h5"
    assert picture.figure.get_suptitle() == said
    in_red = "1 masked and 2 saturated" if master else "3 masked or saturated"
    for what in ("sum", "max"):
        picture = series.show(what, rings=False)
        values, norm = shown_of(picture)
        assert np.argwhere(values.mask).tolist() == [[3, 3], [20, 20], [30, 30]]
        assert norm.vmax < 100
        assert f"{in_red} pixels in red" in picture.figure.get_suptitle()


@pytest.mark.parametrize("what", [0, "sum", "max", "overview"])
def test_gaps_of_a_master_whose_mask_has_nothing(tmp_path, write_data, write_master, what):
    """As of a real 9M: the gaps hold the largest value, and the mask is all zeros."""
    images = np.random.default_rng(6).poisson(6, (4, *SHAPE)).astype(np.uint16)
    images[:, 20:23] = 65535
    write_data(tmp_path / "s_1_data_000001.h5", images)
    path = write_master(
        tmp_path / "s_1_master.h5",
        ["s_1_data_000001.h5"],
        nimages=4,
        mask=np.zeros(SHAPE, np.uint32),
    )
    picture = open_series(path).show(what, rings=False)
    values, norm = shown_of(picture)
    assert np.array_equal(values.mask, images[0] == 65535)
    assert norm.vmax < 100
    said = f"{3 * SHAPE[1]} masked or saturated pixels in red"
    assert said in picture.figure.get_suptitle()


def test_an_overview_has_all_of_it(taken):
    series, _, _ = taken
    axes = [ax for ax in series.show("overview").figure.axes if ax.get_title()]
    titles = ["image 1 of 5", "sum of 5 images", "maximum of 5 images", "sum of the good pixels"]
    assert [ax.get_title() for ax in axes] == titles


def test_logarithm_and_own_brightness(taken):
    series, _, _ = taken
    values, norm = shown_of(series.show(0, log=True, top=500))
    assert type(norm).__name__ == "LogNorm"
    # A pixel of one photon is brighter than one of none.
    assert (norm.vmin, norm.vmax) == (0.5, 500)
    assert values.min() == 0.5, "where nothing was counted it is darkest"


# Of as many pixels, and of the whole detector where images are a part of it.
@pytest.mark.parametrize("of", [SHAPE[::-1], (200, 300)], ids=["transposed", "whole detector"])
@pytest.mark.parametrize("what", [0, "sum", "sums"])
def test_a_mask_of_the_master_that_is_none_of_the_images(taken, of, what):
    series, _, _ = taken
    with h5py.File(series.master_path, "a") as file:
        specific = file["entry/instrument/detector/detectorSpecific"]
        del specific["pixel_mask"]
        specific["pixel_mask"] = np.ones(of, np.uint32)
    changed = open_series(series.master_path)
    said = f"p_1_master.h5: a mask of shape {of}, images of {SHAPE}"
    with pytest.raises(FileError, match=re.escape(said)):
        changed.show(what)
    assert f"no picture: {changed.master_path}: a mask of shape" in changed._repr_html_()


def test_an_own_mask(taken):
    series, _, masked = taken
    mine = np.zeros(SHAPE, bool)
    mine[:, :5] = True
    values, _ = shown_of(show(series, 0, Look(mask=mine)))
    assert np.array_equal(values.mask, masked | mine)
    with pytest.raises(EigerError, match=r"a mask of shape \(3, 3\), images of \(90, 120\)"):
        series.show(0, mask=np.zeros((3, 3)))


def test_rings_are_where_bragg_s_law_has_them(taken):
    series, _, _ = taken
    picture = series.show(0, rings=[2.5, 2.0])
    assert texts_of(picture) == ["2.5 Å", "2 Å"]
    for ring, d in zip(rings_of(picture), (2.5, 2.0), strict=True):
        assert ring.center == (70.5, 41.0)
        theta = np.arcsin(1.0 / 2 / d)
        assert ring.width / 2 * 7.5e-5 == pytest.approx(0.01 * np.tan(2 * theta))
        assert ring.width == ring.height


def test_rings_that_nobody_chose_fit_the_image(taken):
    series, _, _ = taken
    rings = rings_of(series.show(0))
    assert len(rings) == 4
    corner = np.hypot(70.5, 49)
    assert all(0 < ring.width / 2 < 1.05 * corner for ring in rings)
    assert rings_of(series.show(0, rings=False)) == []


def test_rings_without_a_beam_centre(taken, tmp_path):
    series, _, _ = taken
    with h5py.File(series.path, "a") as file:
        del file["entry/instrument/detector/beam_center_x"]
    assert rings_of(series.show(0)) == []
    with pytest.raises(FileError, match=r"p_1_master\.h5: it does not say beam_center_x"):
        series.show(0, rings=[2.0])
    assert len(rings_of(series.show(0, rings=[2.0], geometry=GEOMETRY))) == 1


@pytest.mark.parametrize("wavelength", [None, 0.0])
def test_rings_of_a_master_that_says_the_photon_energy_alone(taken, wavelength):
    """As profiles have it."""
    series, _, _ = taken
    expected = [(ring.width, ring.height) for ring in rings_of(series.show(0))]
    with h5py.File(series.path, "a") as file:
        del file["entry/instrument/beam/incident_wavelength"]
        if wavelength is not None:
            file["entry/instrument/beam/incident_wavelength"] = wavelength
        specific = file["entry/instrument/detector/detectorSpecific"]
        specific["photon_energy"] = 12398.41984332  # of 1 angstrom
    assert len(expected) > 2
    assert [(ring.width, ring.height) for ring in rings_of(series.show(0))] == expected
    (ring,) = rings_of(series.show(0, rings=[5.0]))
    # Bragg: 2 d sin(theta) = wavelength.
    angle = 2 * np.arcsin(1 / (2 * 5.0))
    assert ring.width / 2 == pytest.approx(0.01 * np.tan(angle) / 7.5e-5, rel=1e-12)
    assert read_geometry(series.path) == GEOMETRY
    profile = series.radial_profile(bins=7)
    # The middle of the farthest pixel is 70 columns and 48.5 rows from the beam.
    farthest = np.arctan2(np.hypot(70.0, 48.5) * 7.5e-5, 0.01)
    assert profile.positions[-1] == pytest.approx(4 * np.pi * np.sin(farthest / 2) * 6.5 / 7)
    with pytest.raises(FileError, match="it does not say wavelength"):
        read_geometry(series.path, {"wavelength": 0.0})


def test_a_ring_that_there_is_not(taken):
    series, _, _ = taken
    with pytest.raises(EigerError, match=r"0\.4 angstrom does not scatter onto the"):
        series.show(0, rings=[0.4])


@pytest.mark.parametrize("d", [0, -1.0, np.nan, np.inf])
def test_a_ring_whose_spacing_is_no_length(taken, d):
    series, _, _ = taken
    with pytest.raises(EigerError, match=rf"a ring at {d} angstrom: a d-spacing is a length"):
        series.show(0, rings=[2.0, d])


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("top", [-1, np.nan, np.inf])
def test_a_brightness_that_there_is_not(taken, top, log):
    series, _, _ = taken
    with pytest.raises(EigerError, match=rf"top={top:g}: full brightness is at a number of"):
        series.show(0, top=top, log=log)


def test_the_geometry_of_a_real_master(eiger_test_data):
    """Of a PROXIMA-2A EIGER X 9M; the numbers are those that DIALS reads in it."""
    found = read_geometry(eiger_test_data / "eiger1_9M_master" / "dectris_eiger_master.h5")
    assert found.beam_center_x == pytest.approx(1607.41, abs=0.01)
    assert found.beam_center_y == pytest.approx(1586.43, abs=0.01)
    assert found.distance == pytest.approx(0.134255)
    assert found.wavelength == pytest.approx(0.980112)


def test_a_data_file_alone_has_what_saturates_in_red(real_files):
    """Of a real EIGER X 1M: the gap, 37 rows, and 54 pixels beside it."""
    picture = open_series(real_files[0]).show()
    values, norm = shown_of(picture)
    # The screen has fewer points than the image pixels.
    pixels_a_point = 1065 / len(values)
    assert pixels_a_point > 1
    assert values.mask.all(axis=1).sum() * pixels_a_point == pytest.approx(37, abs=3)
    assert values.max() < 65535
    assert norm.vmax < 100
    assert "38164 masked or saturated pixels in red" in picture.figure.get_suptitle()


@pytest.mark.parametrize("factor", [1, 2, 3, 7])
def test_a_block_is_its_brightest_good_pixel(factor):
    rng = np.random.default_rng(factor)
    image = rng.poisson(3, (23, 31)).astype(np.uint16)
    masked = rng.random(image.shape) < 0.3
    masked[5:14] = True
    image[masked] = 65535
    blocks = in_blocks(image, masked, factor)
    for y, x in np.ndindex(blocks.shape):
        place = np.s_[factor * y : factor * (y + 1), factor * x : factor * (x + 1)]
        good = image[place][~masked[place]]
        hidden = 2 * good.size <= image[place].size
        assert np.ma.getmaskarray(blocks)[y, x] == hidden
        assert hidden or blocks[y, x] == good.max()


@pytest.fixture
def large(tmp_path, write_data, write_master):
    """A series of one dark image, larger than a screen, with peaks and dead pixels beside them."""
    rng = np.random.default_rng(9)
    image = (rng.random((2167, 2070)) < 0.003).astype(np.uint16)
    mask = np.zeros(image.shape, np.uint32)
    mask[514:551] = 1
    # So far from the gap that it is not around one of them in a small picture, either.
    peaks = [(int(y), int(x)) for y, x in rng.integers(10, 2060, (40, 2)) if not 460 < y < 605]
    for y, x in peaks:
        image[y, x] = 30
        mask[y, x + 1] = 2
    image[mask != 0] = 65535
    write_data(tmp_path / "l_1_data_000001.h5", image[np.newaxis])
    files = ["l_1_data_000001.h5"]
    return open_series(write_master(tmp_path / "l_1_master.h5", files, nimages=1, mask=mask)), peaks


@pytest.mark.parametrize(("what", "dpi"), [(0, 60), ("overview", 100)])
def test_a_peak_of_one_pixel_is_seen_in_a_large_image(large, what, dpi):
    series, peaks = large
    picture = series.show(what, rings=False)
    with Image.open(io.BytesIO(picture.png(dpi))) as opened:
        pixels = np.asarray(opened.convert("RGB")).astype(int)
    # The figure stays as it was drawn, but for its resolution.
    ax, scale = picture.figure.axes[0], dpi / picture.figure.dpi
    brightest = np.array(ax.get_images()[0].cmap(1.0)[:3]) * 255
    seen, red = 0, 0
    for y, x in peaks:
        across, up = ax.transData.transform((x + 0.5, y + 0.5)) * scale
        row, column = int(len(pixels) - up), int(across)
        around = pixels[row - 2 : row + 3, column - 2 : column + 3].reshape(-1, 3)
        seen += (np.abs(around - brightest).sum(axis=1) < 10).any()
        red += (np.abs(around - RED).sum(axis=1) < 10).any()
    assert seen == len(peaks)
    # A dead pixel is not more than it is; the gap is.
    assert red == 0
    across, up = ax.transData.transform((1000, 532)) * scale
    assert np.abs(pixels[int(len(pixels) - up), int(across)] - RED).sum() < 10


def test_where_one_zooms_in_each_pixel_is_seen(large):
    series, peaks = large
    picture = series.show()
    image: Any = picture.figure.axes[0].get_images()[0]
    title = picture.figure.axes[0].get_title()
    assert re.search(r"\neach dot the brightest of (\d) x \1 pixels$", title), title
    y, x = peaks[0]
    picture.figure.axes[0].set(xlim=(x - 8, x + 8), ylim=(y + 8, y - 8))
    picture.png()
    left, right, bottom, top = image.get_extent()
    assert (right - left, bottom - top) == image.get_array().shape[::-1]
    values = image.get_array()
    assert values[y - int(top), x - int(left)] == 30
    assert values.mask[y - int(top), x + 1 - int(left)]


def test_a_png_has_the_mask_in_red(taken):
    series, _, _ = taken
    png = series.show(0, rings=False).png()
    with Image.open(io.BytesIO(png)) as opened:
        opened.load()
        pixels = np.asarray(opened.convert("RGB")).astype(int)
    red = (np.abs(pixels - RED).sum(axis=2) < 6).sum()
    # A ninth of the image is masked, and the image is most of the picture.
    assert 0.05 < red / pixels[..., 0].size < 0.11
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100


def test_nothing_is_overwritten(taken, tmp_path):
    series, _, _ = taken
    path = series.show(0).save(tmp_path / "new.png")
    before = path.read_bytes()
    assert before.startswith(b"\x89PNG")
    with pytest.raises(FileError, match=r"new\.png: not written \(exists already and is not"):
        series.show("sums").save(path)
    assert path.read_bytes() == before


def test_what_there_is_not(taken):
    series, _, _ = taken
    with pytest.raises(EigerError, match="there is no picture 'median'; give a number, sum, max"):
        series.show("median")
    with pytest.raises(IndexError, match="it has 0 to 4"):
        series.show(5)


@pytest.mark.parametrize("what", [0, "image", "sum", "max", "sums", "overview"])
def test_a_series_without_an_image(tmp_path, write_data, what):
    write_data(tmp_path / "e_data_000001.h5", np.empty((0, *SHAPE), np.uint16))
    series = open_series(tmp_path / "e_data_000001.h5")
    assert len(series) == 0
    with pytest.raises(IndexError, match=r"^e_data_000001\.h5: .*it has no images$"):
        series.show(what)
    assert "it has no images</p>" in series._repr_html_()


def test_a_notebook_shows_facts_and_the_first_image(taken, tmp_path):
    series, _, _ = taken
    shown = series._repr_html_()
    assert "<th>images</th><td>5</td>" in shown
    assert '<img alt="first image" src="data:image/png;base64,iVBORw0KGgo' in shown
    assert series.show(0)._repr_png_().startswith(b"\x89PNG")
    (tmp_path / "p_1_data_000001.h5").unlink()
    assert "no picture: " in series._repr_html_()


@pytest.mark.long
def test_without_matplotlib_and_without_a_display(taken):
    """In a fresh process: nothing is loaded before a picture is drawn, and pyplot never is."""
    series, _, _ = taken
    code = """if True:
        import sys, os
        os.environ.pop("DISPLAY", None)
        from ophyd_eiger import open_series
        series = open_series(sys.argv[1])
        assert "matplotlib" not in sys.modules
        picture = series.show("sum")
        assert picture.png().startswith(b"\\x89PNG")
        assert "matplotlib.pyplot" not in sys.modules
        for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
            sys.modules[name] = None
        try:
            series.show()
        except Exception as error:
            print(type(error).__name__, error)
        print(series._repr_html_()[-200:])
    """
    done = subprocess.run(
        [sys.executable, "-c", code, series.path],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    said, shown = done.stdout.splitlines()
    assert said.startswith("EigerError")
    assert "pip install 'ophyd-eiger[cli]'" in said
    assert "no picture: " in shown
