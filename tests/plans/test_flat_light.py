"""What is made of counts under light that should be flat, without a detector: plain numpy."""

import importlib
from types import SimpleNamespace

import numpy as np
import pytest
from eiger_plans.counts import (
    PixelCounts,
    TooFewCountsError,
    UnevenLightError,
    bad_in_flat_light,
)

SHAPE = (512, 768)
Y, X = np.mgrid[: SHAPE[0], : SHAPE[1]]
GOOD = np.ones(SHAPE, bool)


def pixel_counts(mean, images=10):
    """Return Poisson counts of a mean in all images together."""
    total = np.random.default_rng(1).poisson(mean).astype(float)
    return PixelCounts(images, 1.0, total, total, (total > 0) * images, np.zeros(mean.shape, bool))


def bad(mean, good=GOOD, **kwargs):
    return bad_in_flat_light(pixel_counts(mean), good, GOOD, 0.7, 1.3, **kwargs)


def level(counts=1000.0):
    return np.full(SHAPE, counts)


# ---- bad pixels ----


def test_bad_pixels_are_found_and_no_good_one():
    mean = level() * (1 + 0.1 * X / SHAPE[1])
    expected = np.zeros(SHAPE, np.uint32)
    for place, share, bit in (((5, 5), 0, 2), ((300, 511), 0.4, 4), ((511, 767), 1.9, 8)):
        mean[place] *= share
        expected[place] = bit
    # A few together, as of bumps that came off.
    mean[100:102, 100:104] = 0
    expected[100:102, 100:104] = 2
    assert np.array_equal(bad(mean), expected)


def test_just_enough_flat_light_is_enough():
    # 6 sigma of 30 % are 400 counts; tiles of few pixels scatter, which is no shadow's edge.
    wide = np.full((512, 68), 415.0)
    all_good = np.ones(wide.shape, bool)
    assert not bad_in_flat_light(pixel_counts(wide), all_good, all_good, 0.7, 1.3).any()


@pytest.mark.parametrize("shadow", [200.0, 300.0])
def test_a_dim_tile_is_refused_and_named(shadow):
    # Good pixels of 200 counts differ by 7 % each: some of 4096 are below 70 %.
    mean = level()
    mean[128:192, 64:128] = shadow
    with pytest.raises(TooFewCountsError, match="rows 128 to 191, columns 64 to 127: good pixels"):
        bad(mean)


def test_the_shadow_of_a_beam_stop_with_its_arm_is_refused():
    mean = level(10_000.0)
    mean[(Y - 250) ** 2 + (X - 380) ** 2 < 60**2] = 50
    mean[247:253, 380:] = 50
    with pytest.raises(UnevenLightError, match=r"within rows \d+ to \d+, columns .* a shadow"):
        bad(mean)
    # The arm alone is narrower than a tile.
    mean = level(10_000.0)
    mean[247:253, 384:] = 50
    with pytest.raises(UnevenLightError, match=r"2304 pixels side by side .* rows 247 to 252, co"):
        bad(mean, most=0.01)
    with pytest.raises(TooFewCountsError, match=r"2304 pixels \(0\.6%\) .* more than 0\.1%"):
        bad(mean)


def test_the_edge_of_a_beam_is_refused():
    mean = level(10_000.0)
    mean[:, :96] = 5000
    with pytest.raises(UnevenLightError, match=r"columns 64 to 127: good pixels .* edge"):
        bad(mean)


@pytest.mark.parametrize("share", [0.0, 0.05])
def test_a_dead_chip_is_never_good(share):
    mean = level()
    mean[256:512, 256:512] *= share
    with pytest.raises(UnevenLightError, match="within rows 256 to 511, columns 256 to 511"):
        bad(mean)
    # One that is masked by hand is not in the way, and is told again.
    good = GOOD.copy()
    good[256:512, 256:512] = False
    mean[100, 100] = 0
    found = bad(mean, good)
    assert found[100, 100] == 2
    assert (found[~good] == 2).all()
    assert np.count_nonzero(found) == 256**2 + 1


def test_a_chip_that_lies_across_tiles_is_refused():
    mean = level()
    mean[258:, 258:514] = 0
    with pytest.raises(UnevenLightError, match="within rows 256 to 511, columns 256 to 511"):
        bad(mean)


# ---- flat fields ----


def made(mean, monkeypatch, **kwargs):
    module = importlib.import_module("eiger_plans.flatfield")
    monkeypatch.setattr(module, "counted", lambda series, exposure: pixel_counts(mean))
    series = SimpleNamespace(mask=np.zeros(SHAPE, "u4"), flatfield=np.ones(SHAPE, "f4"))
    return module._made(SimpleNamespace(uid="u", exposure=1.0), series, 0.01, **kwargs)


def rings():
    radius = np.hypot(Y - 256, X - 384)
    return 40_000 * (1 + 0.5 * np.sin(radius / 10))


def gaussian(width=600):
    return 80_000 * np.exp(-((Y - 256) ** 2 + (X - 384) ** 2) / 2 / width**2)


def far_away():
    return 40_000 * (1 + 0.02 * X / SHAPE[1])


@pytest.mark.parametrize("light", [rings, gaussian])
def test_light_that_is_not_flat_makes_no_flat_field(light, monkeypatch):
    with pytest.raises(UnevenLightError, match=r"rows \d.* the detector's middle .* apart; 2\.0%"):
        made(light(), monkeypatch)


def test_a_bound_of_ones_own_lets_light_pass(monkeypatch):
    flat = made(far_away(), monkeypatch)
    # From the middle to the middle of the tiles at the edge.
    assert flat.unevenness == pytest.approx(0.01 * (1 - 64 / SHAPE[1]) / 1.01, rel=0.05)
    with pytest.raises(UnevenLightError, match=r"0\.9% apart; 0\.5% may be"):
        made(far_away(), monkeypatch, uneven=0.005)
    assert made(gaussian(), monkeypatch, uneven=0.4).unevenness > 0.1


def test_a_flat_field_of_few_pixels_is_refused(monkeypatch):
    mean = level(40_000.0)
    mean[::16, ::16] = 0
    with pytest.raises(TooFewCountsError, match=r"1536 pixels \(0\.4%\) would be left out"):
        made(mean, monkeypatch)
    assert made(mean, monkeypatch, most=0.01).left_out == 1536
