"""What a threshold scan makes of its counts, without a detector: plain numpy and a formula."""

import contextlib
import importlib
import math

import numpy as np
import pytest
from eiger_plans.counts import TooFewCountsError
from eiger_plans.s_curve import fit_s_curve

ENERGY = 8047.0


def passing(thresholds, width=500.0):
    """Return the share of photons that count, without charge sharing."""
    return np.array([math.erfc((t - ENERGY) / (width * 2**0.5)) / 2 for t in thresholds])


class Images(list):
    """As much of a series as is summed."""

    def __init__(self, images, mask):
        super().__init__(images)
        self.mask = mask
        self.dtype = images[0].dtype


def test_pixels_that_are_full_at_one_threshold_are_left_out_at_all():
    same_pixels = importlib.import_module("eiger_plans.threshold_scan").same_pixels
    thresholds = np.linspace(4000, 12000, 17)
    random = np.random.default_rng(0)
    rates = np.full((100, 1000), 20_000.0)
    # Beside each other: bright ones, full below the energy alone, and one that is masked.
    rates[:2] = 110_000
    mask = np.zeros(rates.shape, np.uint32)
    mask[50, 50] = 2
    series, expected = [], []
    for share in passing(thresholds):
        images = np.minimum(random.poisson(rates * share, (2, *rates.shape)), 65535)
        images = images.astype(np.uint16)
        series.append(lambda images=images: contextlib.nullcontext(Images(list(images), mask)))
        expected.append(images[:, 2:].sum(dtype=float) - images[:, 50, 50].sum(dtype=float))
    counts, full = same_pixels(series)
    assert counts.tolist() == expected
    assert full == 2000
    # The curve of the same pixels is the formula's, 50 eV of which the others would cost.
    assert fit_s_curve(thresholds, counts).energy == pytest.approx(ENERGY, abs=1)


def test_thresholds_that_are_close_together_are_fitted():
    thresholds = np.linspace(7900, 8200, 12)
    counts = np.random.default_rng(0).poisson(1e6 * passing(thresholds, 60.0) + 10)
    curve = fit_s_curve(thresholds, counts)
    assert curve.energy == pytest.approx(ENERGY, abs=1)
    assert curve.width == pytest.approx(60, rel=0.03)


@pytest.mark.parametrize("counts", [np.full(12, np.nan), np.r_[1e6, np.zeros(11)]])
def test_what_no_curve_fits_is_told_in_words(counts):
    with pytest.raises(TooFewCountsError, match="4000 to 4001 eV"):
        fit_s_curve(np.linspace(4000, 4001, 12), counts)
