"""The arrays a detector comes with: pyFAI's masks of the same ten detectors, and their values."""

import numpy as np
import pytest
from pyFAI import detector_factory
from written import GENERATIONS

from sim_dcu import geometry
from sim_dcu.models import MODELS

# Of each test's cases the short run takes every 2nd, see conftest.
SHORT_RUN_EVERY = 4

# Sizes and gap pixels by generation and modules: the maker's sizes, gaps counted in pyFAI's masks.
DETECTORS = {
    (1, (1, 1)): ((514, 1030), 0),
    (1, (1, 2)): ((1065, 1030), 38110),
    (1, (2, 4)): ((2167, 2070), 250330),
    (1, (3, 6)): ((3269, 3110), 637030),
    (1, (4, 8)): ((4371, 4150), 1198210),
    (2, (1, 1)): ((512, 1028), 0),
    (2, (1, 2)): ((1062, 1028), 39064),
    (2, (2, 4)): ((2162, 2068), 260328),
    (2, (3, 6)): ((3262, 3108), 664248),
    (2, (4, 8)): ((4362, 4148), 1250824),
}


@pytest.mark.parametrize("model", MODELS)
def test_the_gaps_are_those_of_pyfai(model):
    """pyFAI calls them eiger4m, eiger2_4m and so on."""
    described = MODELS[model]
    mask = geometry.default_pixel_mask(
        described.modules_x, described.modules_y, 5, described.generation
    )
    name = model.replace("eiger2-", "eiger2_").replace("eiger-", "eiger")
    theirs = detector_factory(name).mask
    if theirs is None:  # a single module has no gap
        theirs = np.zeros(mask.shape, np.int8)
    np.testing.assert_array_equal(mask == geometry.GAP, theirs == 1)


@pytest.mark.parametrize(("number", "modules"), DETECTORS)
def test_sizes_and_gaps(number, modules):
    generation = GENERATIONS[number]
    size, gap_pixels = DETECTORS[number, modules]
    assert geometry.detector_size(*modules, generation) == size
    assert geometry.module_counts(size, generation) == modules
    assert geometry.generation_of(size) is generation
    mask = geometry.default_pixel_mask(*modules, 1, generation)
    assert mask.dtype == np.uint32
    assert mask.shape == size
    assert (mask == 1).sum() == gap_pixels
    bad = mask[mask > 1]
    assert len(bad) == 16 * modules[0] * modules[1]
    assert set(bad.tolist()) == {2, 8, 16}


@pytest.mark.parametrize("generation", GENERATIONS.values(), ids=["eiger1", "eiger2"])
def test_a_size_of_no_detector_is_refused(generation):
    with pytest.raises(ValueError, match="1030 x 1000"):
        geometry.module_counts((1000, 1030), generation)


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
