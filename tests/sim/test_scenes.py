"""What scenes show, found in their images by plain formulas; and that oracle and maker agree."""

import itertools
from dataclasses import replace

import fabio
import numpy as np
import pytest
import requests
from armed import armed_series
from pairs import every_pair_once
from plain_client import Client, until

import sim_dcu
from sim_dcu import acquisition, codec, geometry, oracle, series_control
from sim_dcu.beam import SCENES, Beam
from sim_dcu.images import ImageSource

# h c / e in eV angstrom, and the pixel's size in m.
HC_OVER_E, PIXEL = 12398.41984332, 7.5e-5
# In angstrom: LaB6 of NIST SRM 660c, lysozyme of PDB 193L.
LAB6 = 4.156826
LYSOZYME = np.array([78.54, 78.54, 37.77])


def of_scene(scene, modules=(1, 1), flux=1.0, energy=8047.78, **changes):
    """Return a series of a 500K, or of `modules`, before a scene."""
    return replace(armed_series(modules, **changes), beam=Beam(str(scene), flux, energy))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A folder of two files: frames of 300 x 1100 pixels, with negative ones, and of 600 x 200."""
    folder = tmp_path_factory.mktemp("recorded")
    random = np.random.default_rng(5)
    for name, shape in (("b.edf", (600, 200)), ("a.edf", (300, 1100))):
        frame = random.poisson(3, shape).astype(np.int32)
        frame[10, 20:40] = -1
        frame[11, 7] = 100_000
        fabio.edfimage.EdfImage(data=frame).write(str(folder / name))
    return folder


# -- oracle and maker ------------------------------------------------------------------------------

KINDS = (
    (1, 16, "bslz4"),
    (1, 32, "lz4"),
    (1, 32, "bslz4"),
    (2, 8, "bslz4"),
    (2, 16, "lz4"),
    (2, 8, "none"),
    (2, 32, "none"),
)
EVERYTHING = list(itertools.product([*SCENES, "recorded"], KINDS, [True, False], [0.5, 2.0]))
SHORT = every_pair_once(EVERYTHING)[::2]


@pytest.mark.parametrize(
    ("scene", "kind", "applied", "exposure"),
    [
        pytest.param(*case, marks=() if case in SHORT else pytest.mark.long, id=f"{case}")
        for case in EVERYTHING
    ],
)
def test_images_hold_what_the_oracle_says(scene, kind, applied, exposure, recorded):
    generation, bits, compression = kind
    series = of_scene(
        recorded if scene == "recorded" else scene,
        generation=geometry.EIGER1 if generation == 1 else geometry.EIGER2,
        bit_depth_image=bits,
        compression=compression,
        pixel_mask_applied=applied,
        frame_count_time=0.00124,
        omega_increment=0.25,
        nimages=200,
    )
    series.exposures[2] = exposure
    source = ImageSource(series)
    for number in (1, 2, 200):
        np.testing.assert_array_equal(source.array(number), oracle.image(series, number))


# -- rings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("centre", "distance", "energy"),
    [
        ((532.0, 515.0), 0.04, 8047.78),
        ((300.5, 100.25), 0.08, 12400.0),
        ((-80.0, 500.0), 0.15, 2e4),
    ],
)
def test_rings_are_where_braggs_law_puts_them(centre, distance, energy):
    settings = {"beam_center_y": centre[0], "beam_center_x": centre[1]}
    series = of_scene(
        "rings",
        (1, 2),
        energy=energy,
        count_time=100.0,
        bit_depth_image=32,
        detector_distance=distance,
        threshold_energy=energy / 2,
        **settings,
    )
    image = oracle.image(series, 1).astype(float)
    good = oracle.planted(series).pixel_mask == 0
    y, x = np.indices(image.shape) + 0.5
    radius = np.hypot(y - centre[0], x - centre[1])
    bins = np.floor(4 * radius[good]).astype(int)
    pixels = np.bincount(bins)
    profile = np.bincount(bins, image[good]) / np.maximum(1, pixels)
    middles = (np.arange(pixels.size) + 0.5) / 4
    found = 0
    previous = 0.0
    for planes in (1, 2, 3, 4, 5, 6, 8, 9, 10, 11):
        theta = np.arcsin(HC_OVER_E / energy * np.sqrt(planes) / (2 * LAB6))
        expected = distance * np.tan(2 * theta) / PIXEL
        near = np.abs(middles - expected) < 6
        beside = (np.abs(middles - expected) > 4) & (np.abs(middles - expected) < 8)
        if expected - previous < 16 or near.sum() < 40 or pixels[near].min() < 5:
            continue
        previous = expected
        background = np.median(profile[beside])
        light = np.maximum(0, profile[near] - 1.5 * background)
        assert light.max() > background
        assert (light * middles[near]).sum() / light.sum() == pytest.approx(expected, abs=0.5)
        found += 1
    assert found >= 4


def test_rings_follow_the_wavelength_that_the_detector_is_told():
    """Both names of the same thing; the innermost ring is the brightest pixel's, over HTTP."""
    with sim_dcu.serve("eiger-500k", initialized=True, scene="rings", flux=10.0) as server:
        client = Client(server.url)
        for series, told in enumerate(({"photon_energy": 12000.0}, {"wavelength": 0.8}), 1):
            with client.session:
                client.config(detector_distance=0.2, beam_center_x=515, beam_center_y=0)
                client.config(count_time=10.0, pixel_mask_applied=True, **told)
                wavelength = float(client.value("detector/config/wavelength"))
                client.command("arm")
                client.command("disarm")
            image = server.image(series, 1).astype(float)
            theta = np.arcsin(wavelength / (2 * LAB6))
            y, x = np.indices(image.shape) + 0.5
            radius = np.hypot(y, x - 515)
            good = server.planted(series).pixel_mask == 0
            pixels = np.bincount(radius[good].astype(int))
            profile = np.bincount(radius[good].astype(int), image[good]) / np.maximum(1, pixels)
            assert abs(profile[50:].argmax() + 50.5 - 0.2 * np.tan(2 * theta) / PIXEL) < 1


def test_the_beam_is_in_the_middle_where_the_detector_was_told_nothing():
    told = {"beam_center_x": 515.0, "beam_center_y": 257.0, "detector_distance": 0.05}
    untold = dict.fromkeys(told, 0.0)
    first, second = (of_scene("rings", **facts) for facts in (told, untold))
    np.testing.assert_array_equal(oracle.image(first, 1), oracle.image(second, 1))


# -- crystal ---------------------------------------------------------------------------------------


def spots_of(series, number):
    """Return the brightest pixels that outshine their neighbours, as (row, column)."""
    image = oracle.image(series, number).astype(float)
    image[oracle.planted(series).pixel_mask != 0] = 0
    spots = []
    for row, column in np.argwhere(image > 150):
        around = image[max(0, row - 3) : row + 4, max(0, column - 3) : column + 4]
        if around.shape == (7, 7) and (around < image[row, column]).sum() == 48:
            spots.append((row, column))
    return np.array(spots)


def crystal(**changes):
    settings = {
        "count_time": 10.0,
        "bit_depth_image": 32,
        "detector_distance": 0.15,
        "beam_center_x": 515.0,
        "beam_center_y": 532.5,
        "nimages": 100,
    }
    return of_scene("crystal", (1, 2), **{**settings, **changes})


def turned_back(spots, degrees, energy=8047.78, distance=0.15, centre=(532.5, 515.0)):
    """Return each spot's reflection at omega 0, in 1/angstrom, by Bragg's law alone."""
    k = energy / HC_OVER_E
    towards = np.column_stack(
        [
            (spots[:, 1] + 0.5 - centre[1]) * PIXEL,
            (spots[:, 0] + 0.5 - centre[0]) * PIXEL,
            np.full(len(spots), distance),
        ]
    )
    g = k * (towards / np.linalg.norm(towards, axis=1)[:, np.newaxis] - [0, 0, 1])
    angle = np.radians(degrees)
    back = [
        [1, 0, 0],
        [0, np.cos(angle), np.sin(angle)],
        [0, -np.sin(angle), np.cos(angle)],
    ]
    return g @ np.transpose(back)


def rotation(a, b, c, d):
    """Return the matrix of a quaternion, by the axis and angle it stands for (Rodrigues)."""
    axis = np.array([b, c, d]) / np.sqrt(b * b + c * c + d * d)
    angle = 2 * np.arctan2(np.sqrt(b * b + c * c + d * d), a)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


@pytest.mark.parametrize(("start", "increment"), [(0.0, 0.0), (30.0, 0.5), (-200.0, -2.0)])
def test_spots_are_reflections_of_the_turned_crystal(start, increment):
    series = crystal(omega_start=start, omega_increment=increment)
    step = increment if (start, increment) != (0, 0) else 0.1
    seen = 0
    for number in (1, 40):
        spots = spots_of(series, number)
        g = turned_back(spots, start + (number - 0.5) * step)
        indices = (g @ rotation(7, 2, 3, 5)) * LYSOZYME
        # A pixel and the crystal's mosaicity are a tenth of the distance of two reflections.
        assert (np.abs(indices - np.round(indices)) < 0.2).mean() > 0.95
        seen += len(spots)
    assert seen > 20


def test_spots_follow_omega():
    """Image 11 after 10 steps is image 1 of a series that starts there; far away it is not."""
    turning = crystal(omega_start=5.0, omega_increment=0.25)
    later = crystal(omega_start=7.5, omega_increment=0.25)
    together, apart = spots_of(turning, 11), spots_of(turning, 1)
    expected = {tuple(spot) for spot in spots_of(later, 1)}
    assert len({tuple(spot) for spot in together} & expected) > 0.8 * len(expected) > 8
    assert len({tuple(spot) for spot in apart} & expected) < 0.2 * len(expected)


# -- test pattern and recordings -------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("number", [1, 8, 12345, 2_000_000_000])
def test_a_test_pattern_tells_its_number_and_each_place(bits, number):
    series = of_scene(
        "test-pattern",
        bit_depth_image=bits,
        pixel_mask_applied=False,
        nimages=2_000_000_000,
    )
    image = oracle.image(series, number).astype(int)
    # A block is 8192 bytes; digit n of the number is in every pixel of block n.
    starts = 8192 * 8 // bits * np.arange(11)
    digits = image.ravel()[starts] % 8
    assert sum(int(digit) * 8**place for place, digit in enumerate(digits)) == number
    y, x = np.indices(image.shape)
    modulus = 31 if bits == 8 else 8191
    even = (x + y) % 2 == 0
    np.testing.assert_array_equal(image[even] // 8, x[even] % modulus)
    np.testing.assert_array_equal(image[~even] // 8, y[~even] % modulus)


def test_a_recording_is_played_over_and_over(recorded):
    series = of_scene(recorded, bit_depth_image=16, nimages=5, pixel_mask_applied=False)
    wide = fabio.open(str(recorded / "a.edf")).data
    tall = fabio.open(str(recorded / "b.edf")).data
    for number in (1, 3, 5):
        image = oracle.image(series, number)
        np.testing.assert_array_equal(image[107:407], wide[:, 35:1065].clip(0, 65535))
        assert (image[:107] == 0).all()
        assert (image[407:] == 0).all()
    image = oracle.image(series, 2)
    np.testing.assert_array_equal(image[:, 415:615], tall[43:557].clip(0, 65535))
    assert (image[:, :415] == 0).all()


def test_real_files_can_be_played(eiger_test_data):
    """Two images of a real EIGER2 500K, in HDF5."""
    (path, *_) = sorted((eiger_test_data / "eiger2_500K").glob("*.h5"))
    series = of_scene(
        path,
        generation=geometry.EIGER2,
        bit_depth_image=32,
        frame_count_time=0.00124,
        nimages=3,
    )
    good = series.detector["pixel_mask"] == 0
    with fabio.open(str(path)) as real:
        for number, index in ((1, 0), (2, 1), (3, 0)):
            frame = real.get_frame(index).data
            np.testing.assert_array_equal(oracle.image(series, number)[good], frame[good])


@pytest.mark.long
def test_a_real_diffraction_image_is_played_by_a_16m(eiger_test_data):
    series = of_scene(
        eiger_test_data / "diamond_16M",
        (4, 8),
        generation=geometry.EIGER2,
        frame_count_time=0.00124,
        pixel_mask_applied=False,
    )
    image = ImageSource(series).array(1)
    # Facts of the file: 16840256 pixels >= 0 of mean 0.00267, the largest 404.
    assert image.shape == (4362, 4148)
    assert image.max() == 404
    assert image.sum() == pytest.approx(0.00267 * 16840256, rel=2e-3)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [("nothing.cbf", b"no image", "fabio reads no image"), ("", None, "the folder is empty")],
)
def test_what_is_no_recording_is_refused_at_the_start(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=words):
        sim_dcu.serve("eiger-500k", scene=str(tmp_path / name))


def test_no_file_is_named_over_http(recorded):
    with sim_dcu.serve("eiger-500k") as server:
        reply = requests.put(f"{server.url}/sim/beam", json={"scene": str(recorded)}, timeout=20)
        assert reply.status_code == 400
        assert "is not one of" in reply.text


# -- what is too fast ------------------------------------------------------------------------------


def test_images_that_come_too_fast_are_lost_as_a_dcu_loses_them(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(series_control, "BUFFER_BYTES", 5 * 514 * 1030 * 2)
    with sim_dcu.serve(
        "eiger-500k",
        initialized=True,
        scene="crystal",
        time_scale=0.01,
        data_dir=tmp_path,
    ) as server:
        client = Client(server.url)
        with client.session:
            client.config(count_time=0.0002, frame_time=0.00025, nimages=5000)
            client.put("filewriter/config/nimages_per_file", 1)
            client.arm()
            assert "images are made at" in caplog.text
            assert "some are going to be lost" in caplog.text
            reply = client.command("trigger")
            assert reply.status_code == 400
            assert "is lost: the buffer is full of 5 images" in reply.text
            assert client.state == "error"
            state = requests.get(f"{server.url}/sim/state", timeout=20).json()
            assert state["error"] in reply.text
            assert state["image_rate"] < 400_000
            delivered = state["series"]["delivered"]
            assert delivered == state["series"]["exposed"] < 5000
            until(lambda: len(list(tmp_path.glob("*_data_*.h5"))) == delivered)


def test_of_a_short_recording_the_rate_is_that_of_images_made_once(monkeypatch, recorded):
    """Two frames: whatever one takes, the third image and all after it take nothing."""
    # Of a shape that no other test has: threads of those before may still be at work.
    series = of_scene(recorded, (3, 1), nimages=50)
    made = []
    compressed = codec.compressed

    def counted(image, compression):
        if image.shape == series.shape:
            made.append(image)
        return compressed(image, compression)

    monkeypatch.setattr(codec, "compressed", counted)
    source = ImageSource(series)
    source.ready.result(timeout=20)
    assert len(made) == 2
    source.tried_rate()
    for number in (1, 2, 50):
        np.testing.assert_array_equal(source.array(number), oracle.image(series, number))
    assert len(made) == 2


def test_a_series_that_was_late_is_told_of(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(acquisition, "LATE", 0.0)
    with sim_dcu.serve(
        "eiger-500k", initialized=True, time_scale=0.01, data_dir=tmp_path
    ) as server:
        client = Client(server.url)
        with client.session:
            client.config(count_time=0.001, frame_time=0.002, nimages=3)
            client.arm()
            assert client.command("trigger").status_code == 200
            client.command("disarm")
    assert "s after their exposure" in caplog.text
