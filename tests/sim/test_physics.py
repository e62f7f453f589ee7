"""The physics of pixels, judged by plain formulas: photons, thresholds, losses, bad pixels."""

import io
import math
from dataclasses import replace

import numpy as np
import pytest
import requests
from armed import armed_series
from plain_client import Client

import sim_dcu
from sim_dcu import geometry, oracle
from sim_dcu.beam import Beam
from sim_dcu.images import ImageSource

GAP, DEAD, UNDER, OVER, NOISY = (1 << bit for bit in range(5))  # SIMPLON API reference 1.3
# An exposure of 1 s as an EIGER1 is armed for it.
ONE_SECOND = {
    "count_time": 1.0,
    "bit_depth_image": 32,
    "nframes_sum": 800,
    "countrate_correction_count_cutoff": 1_860_480,
}


def flat(flux: float = 1.0, energy: float | None = 8047.78, **changes):
    """Return a 500K's series of a flat scene of 10 photons a pixel and second times `flux`."""
    modules = changes.pop("modules", (1, 1))
    return replace(
        armed_series(modules, **{**ONE_SECOND, "nimages": 100, **changes}),
        beam=Beam("flat", flux, energy),
    )


def good(series):
    return oracle.planted(series).pixel_mask == 0


def counts_of_good(series, number=1):
    return oracle.image(series, number)[good(series)].astype(float)


def both(series, number):
    """Return an image by the oracle, which the producer makes too."""
    expected = oracle.image(series, number)
    np.testing.assert_array_equal(ImageSource(series).array(number), expected)
    return expected


@pytest.mark.parametrize("mean", [0.05, 1.0, 10.0, 400.0])
@pytest.mark.parametrize(
    "modules", [(1, 2), pytest.param((4, 8), marks=pytest.mark.long)], ids=["1M", "16M"]
)
def test_counts_of_a_flat_scene_are_poisson(modules, mean):
    series = flat(mean / 10, modules=modules, flatfield_correction_applied=False)
    planted = oracle.planted(series)
    usual = planted.pixel_mask == 0
    counts = oracle.image(series, 1)[usual].astype(int)
    k = np.arange(int(mean + 10 * math.sqrt(mean)) + 20)
    logarithms = np.array([math.lgamma(value + 1) for value in k.tolist()])
    expected = sum(
        pixels * np.exp(k * math.log(mean * response) - mean * response - logarithms)
        for response, pixels in zip(
            *np.unique(planted.response[usual], return_counts=True), strict=True
        )
    )
    observed = np.bincount(counts, minlength=k.size)
    assert observed.size == k.size
    # What is rare is one class at either end; 5 are enough (Cochran).
    common = np.flatnonzero(expected >= 5)
    first, last = common[0], common[-1]
    classes = [
        np.concatenate([[n[: first + 1].sum()], n[first + 1 : last], [n[last:].sum()]])
        for n in (observed, expected)
    ]
    chi_squared = ((classes[0] - classes[1]) ** 2 / classes[1]).sum()
    freedom = classes[0].size - 1
    assert freedom >= 3
    assert chi_squared < freedom + 4 * math.sqrt(2 * freedom)
    assert counts.mean() == pytest.approx(mean, abs=4 * math.sqrt(mean / counts.size))


@pytest.mark.parametrize(
    "modules", [(1, 1), pytest.param((1, 2), marks=pytest.mark.long)], ids=["500K", "1M"]
)
def test_good_pixels_of_a_flat_scene_vary_like_photons(modules):
    """The usual search for noisy pixels, variance over mean, finds next to no good one."""
    series = flat(4.0, modules=modules, count_time=1.0, flatfield_correction_applied=False)
    usual = good(series)
    images = np.array([oracle.image(series, number)[usual] for number in range(1, 65)], np.uint16)
    ratio = images.var(axis=0, ddof=1) / images.mean(axis=0)
    assert ratio.mean() == pytest.approx(1, abs=0.05)
    # Of 64 images the ratio has a standard deviation of sqrt(2 / 63) at least.
    assert (ratio > 1 + 9 * math.sqrt(2 / 63)).mean() < 2e-4


@pytest.mark.parametrize(("flux", "count_time"), [(1, 0.01), (0.01, 1), (1, 3), (3, 1), (0, 1)])
def test_counts_scale_with_flux_and_exposure(flux, count_time):
    counts = counts_of_good(flat(flux, count_time=count_time))
    mean = 10 * flux * count_time
    assert counts.mean() == pytest.approx(mean, abs=5 * math.sqrt(mean / counts.size))


def s_curve(threshold, energy, width=500.0, shared=0.25):
    """Return the share of photons counted, by its stated formula."""
    passing = math.erfc((threshold - energy) / (math.sqrt(2) * width)) / 2
    return max(0.0, passing * (1 + shared * (1 - 2 * threshold / energy)))


@pytest.mark.parametrize("energy", [8047.78, 12400.0, 5000.0])
@pytest.mark.parametrize("relative", [0.35, 0.5, 0.8, 0.95, 1.0, 1.05, 1.5])
def test_a_threshold_counts_what_is_above_it(energy, relative):
    counts = counts_of_good(flat(10, energy, threshold_energy=relative * energy))
    mean = 100 * s_curve(relative * energy, energy)
    # Pixels' response: see `test_the_flat_field_evens_out_the_response`.
    assert counts.mean() == pytest.approx(mean, rel=2e-4, abs=6 * math.sqrt((mean + 1e-9) / 5e5))


def test_the_beam_has_its_own_energy_or_follows_the_setting():
    settings = {"photon_energy": 12400.0, "threshold_energy": 8047.78}
    for energy, true in ((None, 12400.0), (9000.0, 9000.0)):
        mean = 100 * s_curve(8047.78, true)
        assert counts_of_good(flat(10, energy, **settings)).mean() == pytest.approx(mean, rel=1e-3)


def test_the_second_threshold_counts_where_the_first_is_off():
    mask = np.zeros((512, 1028), np.uint32)
    mask[7, 9] = 1
    settings = {
        "threshold/1/mode": "disabled",
        "threshold/2/mode": "enabled",
        "threshold/2/energy": 7500.0,
        "threshold/2/pixel_mask": mask,
        "threshold/2/flatfield": np.ones(mask.shape, np.float32),
    }
    series = flat(10, generation=geometry.EIGER2, **settings)
    mean = 100 * s_curve(7500, 8047.78)
    image = both(series, 1)
    assert image[7, 9] == 2**32 - 1
    image[7, 9] = 0
    assert image[good(series)].mean() == pytest.approx(mean, rel=1e-3)


@pytest.mark.parametrize(
    ("generation", "dead_time"), [(geometry.EIGER1, 200e-9), (geometry.EIGER2, 90e-9)]
)
@pytest.mark.parametrize("rate", [1e4, 3e5, 1.5e6])
def test_dead_time_takes_photons_and_the_correction_gives_them_back(generation, dead_time, rate):
    settings = {"generation": generation, "frame_count_time": 0.00124}
    lost = flat(rate / 10, countrate_correction_applied=False, **settings)
    measured = counts_of_good(lost).mean()
    assert measured == pytest.approx(rate / (1 + rate * dead_time), rel=1e-3)
    given_back = counts_of_good(flat(rate / 10, **settings))
    assert given_back.mean() == pytest.approx(rate, rel=1e-3)


def test_beyond_the_cutoff_pixels_are_overflown():
    below = counts_of_good(flat(170_000, flatfield_correction_applied=False))
    assert (below < 1_860_480).all()
    for flux in (200_000, 1e9):
        assert (counts_of_good(flat(flux)) == 2**32 - 1).all()


def test_an_image_of_one_frame_holds_what_a_counter_does():
    """12 bits on an EIGER1 without summation, with the count rate uncorrected."""
    settings = {"auto_summation": False, "bit_depth_image": 16, "count_time": 0.01}
    settings |= {"countrate_correction_applied": False, "flatfield_correction_applied": False}
    assert counts_of_good(flat(40_000, **settings)).max() < 4096  # 3704 on average
    overflown = counts_of_good(flat(50_000, **settings))  # 4545
    assert (overflown == 65535).all()
    some = counts_of_good(flat(44_600, **settings))  # 4095
    assert 0.3 < (some == 65535).mean() < 0.7
    assert some[some != 65535].max() == 4095


def test_the_flat_field_evens_out_the_response():
    series = flat(1e4, flatfield_correction_applied=False)
    images = [counts_of_good(series, number) for number in range(1, 9)]
    raw = np.mean(images, axis=0)
    response = oracle.planted(series).response[good(series)]
    assert response.std() == pytest.approx(0.0022, rel=0.05)
    # 8 images of one pool share a third of their blocks.
    assert np.corrcoef(raw, response)[0, 1] > 0.8
    for kind in np.unique(response):
        assert raw[response == kind].mean() == pytest.approx(1e5 * kind, rel=2e-5)
    corrected = np.mean([counts_of_good(flat(1e4), number) for number in range(1, 9)], axis=0)
    assert abs(np.corrcoef(corrected, response)[0, 1]) < 0.01
    factors = flat().detector["flatfield"][good(series)]
    np.testing.assert_allclose(corrected, raw * factors, rtol=1e-5)


def test_another_flat_field_is_multiplied_with():
    factors = np.ones((514, 1030), np.float32)
    factors[:257], factors[:, :100] = 1.5, 0.25
    raw = both(flat(10, flatfield_correction_applied=False, pixel_mask_applied=False), 2)
    image = both(flat(10, flatfield=factors, pixel_mask_applied=False), 2)
    np.testing.assert_array_equal(image, np.floor(raw * factors.astype(float) + 0.5))


def test_bad_pixels_can_be_found_and_the_factory_does_not_know_all():
    dark, bright = (flat(flux, pixel_mask_applied=False) for flux in (0, 10))
    both(dark, 1)
    both(bright, 1)
    dark, bright = (
        [oracle.image(series, number) for number in range(1, 13)] for series in (dark, bright)
    )
    dark_mean, dark_spread = np.mean(dark, axis=0), np.std(dark, axis=0)
    mean = np.mean(bright, axis=0)
    planted = oracle.planted(flat()).pixel_mask
    np.testing.assert_array_equal(mean == 0, planted == DEAD)
    np.testing.assert_array_equal((mean > 40) & (mean < 60), planted == UNDER)
    np.testing.assert_array_equal(dark_mean > 4, (planted == OVER) | (planted == NOISY))
    # A hot pixel's 100 counts a second are Poisson; a noisy one has 10 or 90 (but of the images
    # of a pool it may have one of these alone).
    assert (np.abs(dark_mean[planted == OVER] - 100) < 15).all()
    assert (dark_spread[planted == OVER] < 20).all()
    assert np.median(dark_spread[planted == NOISY]) > 25
    factory = flat().detector["pixel_mask"]
    new = planted[factory == 0]
    assert [int((new == bit).sum()) for bit in (DEAD, UNDER, OVER, NOISY)] == [3, 2, 3, 2]
    np.testing.assert_array_equal(planted[factory != 0], factory[factory != 0])


def test_there_is_nothing_to_count_in_the_gaps():
    series = replace(armed_series((1, 2), pixel_mask_applied=False), beam=Beam("flat", 100))
    image = both(series, 1)
    assert (image[514:551] == 0).all()
    assert (image[:514] > 0).mean() > 0.999
    assert (oracle.planted(series).pixel_mask[514:551] == GAP).all()


def test_a_region_shows_its_part_of_the_detector():
    """A 500K's size cut out of a 1M: its second module."""
    whole = replace(armed_series((1, 2), pixel_mask_applied=False), beam=Beam())
    part = replace(
        armed_series(pixel_mask_applied=False), whole=(1065, 1030), origin=(551, 0), beam=Beam()
    )
    np.testing.assert_array_equal(
        oracle.planted(part).pixel_mask, oracle.planted(whole).pixel_mask[551:]
    )
    image = both(part, 1).astype(float)
    # The ring about the whole detector's middle.
    y, x = np.indices(image.shape)
    radius = np.hypot(y + 551 - 532, x - 514.5)
    assert image[(radius >= 215) & (radius < 219)].mean() == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize("compression", ["bslz4", "lz4", "none"])
def test_an_exposure_of_its_own(compression):
    facts = {"generation": geometry.EIGER2, "compression": compression, "nimages": 3}
    series = flat(frame_count_time=0.00124, **facts)
    series.exposures[2] = 2.5
    assert both(series, 1)[good(series)].mean() == pytest.approx(10, rel=1e-3)
    assert both(series, 2)[good(series)].mean() == pytest.approx(25, rel=1e-3)


def test_an_exposure_cannot_be_negative():
    with pytest.raises(ValueError, match=r"count_time is -1\.0 s"):
        oracle.image(armed_series(count_time=-1.0), 1)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"scene": "moon"}, "'moon' is not one of scatter, rings, .* nor is there such a file"),
        ({"flux": -1.0}, "flux -1.0"),
        ({"flux": math.inf}, "flux inf"),
        ({"energy": 0.0}, "beam energy 0.0 eV"),
        ({"energy": "follow"}, r"beam energy 'follow' is no number of eV, nor nothing \(null\)"),
        ({"flux": "much"}, "flux 'much'"),
    ],
)
def test_a_beam_that_cannot_be(wrong, words):
    with pytest.raises(ValueError, match=words):
        Beam(**wrong)


# -- over HTTP ------------------------------------------------------------------------------------


@pytest.fixture
def bright():
    """An initialized 500K before a flat scene, which does not wait."""
    with sim_dcu.serve("eiger-500k", initialized=True, scene="flat", flux=2.0) as server:
        yield server


def image_of(server, series, number):
    reply = requests.get(f"{server.url}/sim/image/{series}/{number}", timeout=20)
    return np.load(io.BytesIO(reply.content))


def test_a_trigger_brings_its_exposure(bright):
    client = Client(bright.url)
    with client.session:
        client.config(trigger_mode="inte", ntrigger=3, count_time=0.5)
        client.command("arm")
        for seconds in (2.0, 0.25, 0.5):
            client.command("trigger", seconds)
        client.command("disarm")
    medians = [np.median(image_of(bright, 1, number)) for number in (1, 2, 3)]
    assert medians == [40, 5, 10]


def test_the_beam_changes_between_series(bright):
    url = f"{bright.url}/sim/beam"
    assert requests.get(url, timeout=20).json() == {"scene": "flat", "flux": 2.0, "energy": None}
    client = Client(bright.url)
    with client.session:
        client.command("arm")
        changed = requests.put(url, json={"flux": 5.0, "energy": 8047.78}, timeout=20)
        assert changed.json() == {"scene": "flat", "flux": 5.0, "energy": 8047.78}
        client.command("disarm")
        client.command("arm")
        client.command("disarm")
    assert [np.median(image_of(bright, series, 1)) for series in (1, 2)] == [20, 50]
    for wrong in ({"flux": -1}, {"colour": "red"}, {"scene": "moon"}, ["flat"]):
        assert requests.put(url, json=wrong, timeout=20).status_code == 400
    assert bright.beam == Beam("flat", 5.0, 8047.78)


def test_what_is_planted_is_told(bright):
    client = Client(bright.url)
    with client.session:
        client.command("arm")
        client.command("disarm")
        assert client.session.get(f"{bright.url}/sim/planted/9").status_code == 404
        told = np.load(io.BytesIO(client.session.get(f"{bright.url}/sim/planted/1").content))
    planted = bright.planted(1)
    np.testing.assert_array_equal(told["pixel_mask"], planted.pixel_mask)
    np.testing.assert_array_equal(told["response"], planted.response)
    assert np.unique(planted.pixel_mask).tolist() == [0, DEAD, UNDER, OVER, NOISY]
