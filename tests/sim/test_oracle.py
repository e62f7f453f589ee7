"""The oracle against the scene's stated statistics, and the image producer against the oracle."""

import ast
import hashlib
import io
import math
from fractions import Fraction
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest
from armed import armed_series

import sim_dcu
from sim_dcu import geometry, oracle, scene
from sim_dcu.images import ImageSource

# Of each test's cases the short run takes every 2nd, see conftest.
SHORT_RUN_EVERY = 2

EIGER_500K = (1, 1)
EIGER_1M = (1, 2)

# Computed once; a change of numpy, of the processor or of the scene's definition shows here.
PINNED = {
    (EIGER_500K, 16, 3, 7, 1): "df1aa0f7453f285e9f20bff6b04150eae19064ac7dd25e19ccf845f85aee2121",
    (EIGER_500K, 8, 0, 1, 2): "6a7ad6337b8c9c0d2e5e8e7296d634427ecd2591e412abf8331f5938bc89816a",
    (EIGER_1M, 16, 3, 7, 5): "90405fdacbdaff8768f90b7d49be5a28c90560e472969b389c21b142ec39b2db",
    (EIGER_1M, 32, 12345, 2, 3): "06cd7cccee7d5777cfcee21983562162dfc12bb2fc92f112e56ca9ded5c584b4",
}


def distance(shape):
    """Return each pixel's distance from the middle in pixels, float64, shape (y, x)."""
    y, x = np.indices(shape)
    return np.hypot(y - (shape[0] - 1) / 2, x - (shape[1] - 1) / 2)


def decoded_by_hdf5(chunk, shape, dtype):
    """Let HDF5 and hdf5plugin's filter decode a chunk."""
    with h5py.File(io.BytesIO(), "w") as file:
        dataset = file.create_dataset(
            "data",
            shape=(1, *shape),
            chunks=(1, *shape),
            dtype=dtype,
            compression=hdf5plugin.Bitshuffle(),
        )
        dataset.id.write_direct_chunk((0, 0, 0), chunk)
        return dataset[0]


@pytest.mark.parametrize("modules", [EIGER_500K, EIGER_1M], ids=["500k", "1m"])
@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("seed", [0, 2**40 + 1])
@pytest.mark.parametrize("applied", [True, False], ids=["masked", "unmasked"])
def test_chunks_hold_what_the_oracle_says(modules, bits, seed, applied):
    series = armed_series(
        modules, seed, bit_depth_image=bits, pixel_mask_applied=applied, nimages=10
    )
    source = ImageSource(series)
    for number in (1, 2, 10):
        expected = oracle.image(series, number)
        assert expected.dtype == f"<u{bits // 8}"
        assert expected.shape == series.shape
        chunk = source.chunk(number)
        np.testing.assert_array_equal(decoded_by_hdf5(chunk, series.shape, series.dtype), expected)
        np.testing.assert_array_equal(source.array(number), expected)


def test_an_image_asked_for_again_is_the_same_and_anothers_changes_are_not_in_it():
    series = armed_series(EIGER_500K, 3)
    first = oracle.image(series, 1)
    before = first.copy()
    first[:] = 7
    assert np.array_equal(oracle.image(series, 1), before)
    # Equal but for the mask, which the kept counts do not know.
    unmasked = oracle.image(armed_series(EIGER_500K, 3, pixel_mask_applied=False), 1)
    assert not np.array_equal(unmasked, before)
    good = before != np.iinfo(before.dtype).max
    assert np.array_equal(unmasked[good], before[good])


def test_a_chunk_begins_as_in_real_files():
    series = armed_series(EIGER_1M)
    # The first 12 bytes of a chunk of a real EIGER 1M data file: 1030 x 1065 pixels of two bytes,
    # blocks of 8192 bytes.
    assert ImageSource(series).chunk(1)[:12] == bytes.fromhex("00000000002179ec 00002000")


def test_a_chunk_without_compression_is_the_pixels():
    series = armed_series(compression_enabled=False, nimages=2)
    source = ImageSource(series)
    expected = oracle.image(series, 2)
    assert source.chunk(2) == expected.tobytes()
    np.testing.assert_array_equal(source.array(2), expected)


def test_a_compression_that_the_firmware_does_not_have_is_refused():
    with pytest.raises(ValueError, match='"none" is none of bslz4, lz4'):
        ImageSource(armed_series(compression="none"))


@pytest.mark.parametrize("number", [0, -1, 6])
def test_images_that_a_series_does_not_have(number):
    series = armed_series(nimages=5)
    with pytest.raises(IndexError, match="images 1 to 5"):
        oracle.image(series, number)
    with pytest.raises(IndexError, match="images 1 to 5"):
        ImageSource(series).chunk(number)


@pytest.mark.parametrize(("facts", "digest"), PINNED.items(), ids=str)
def test_images_do_not_depend_on_the_machine(facts, digest):
    modules, bits, seed, series_id, number = facts
    series = armed_series(modules, seed, series_id, bit_depth_image=bits, nimages=5)
    assert hashlib.sha256(oracle.image(series, number).tobytes()).hexdigest() == digest


def test_random_bytes_are_philox():
    # Known answers of Philox 4x64-10 from the Random123 distribution's kat_vectors: counter 0 with
    # key 0. numpy counts up before it draws, so its counter starts one below.
    generator = np.random.Philox(
        key=np.zeros(2, np.uint64), counter=np.full(4, 2**64 - 1, np.uint64)
    )
    assert [hex(word) for word in generator.random_raw(4)] == [
        "0x16554d9eca36314c",
        "0xdb20fe9d672d0fdc",
        "0xd7e772cee186176b",
        "0x7e68b68aec7ba23b",
    ]


@pytest.mark.parametrize(
    ("inner", "outer", "rate", "count_time"),
    [
        (364, 450, 0.11, 1.0),
        (364, 450, 0.11, 25.0),
        (219, 280, 0.16, 200.0),
        (215, 219, 4.0, 0.5),
        (215, 219, 4.0, 1800.0),
    ],
)
def test_counts_of_a_level_are_poisson(inner, outer, rate, count_time):
    series = armed_series(count_time=count_time, bit_depth_image=32, pixel_mask_applied=False)
    radius = distance(series.shape)
    counts = oracle.image(series, 1)[(radius >= inner) & (radius < outer)]
    mean = rate * count_time
    expected = [
        counts.size * math.exp(k * math.log(mean) - mean - math.lgamma(k + 1))
        for k in range(counts.max() + 1)
    ]
    observed = np.bincount(counts)
    # Neighbouring counts are taken together until a bin can be judged.
    bins, have, want = [], 0, 0.0
    for seen, wanted in zip(observed, expected, strict=True):
        have, want = have + seen, want + wanted
        if want >= 100:
            bins.append((have, want))
            have, want = 0, 0.0
    bins.append((counts.size - sum(b[0] for b in bins), counts.size - sum(b[1] for b in bins)))
    chi_squared = sum((have - want) ** 2 / max(want, 10) for have, want in bins)
    freedom = len(bins) - 1
    assert freedom >= 2
    assert chi_squared < freedom + 5 * math.sqrt(2 * freedom)


@pytest.mark.parametrize(
    "mean", [Fraction(0), Fraction(1, 10**9), Fraction(3, 10), Fraction(10**6)]
)
def test_count_tables_are_good_for_every_exposure(mean):
    table = scene.count_table(mean)
    thresholds = np.array([0, *table.thresholds, 1 << 32])
    assert (np.diff(thresholds) >= 0).all()
    counts = table.lowest + np.arange(len(thresholds) - 1)
    weights = np.diff(thresholds) / (1 << 32)
    average = float((weights * counts).sum())
    variance = float((weights * (counts - average) ** 2).sum())
    # Rounded to 2^-32: the rarest counts of one tail are missing or stand for rarer ones.
    assert average == pytest.approx(float(mean), rel=1e-6, abs=1e-9)
    assert variance == pytest.approx(float(mean), rel=1e-5, abs=1e-9)


def test_an_image_looks_like_powder_rings():
    series = armed_series(EIGER_1M, count_time=1.0, pixel_mask_applied=False)
    radius = distance(series.shape)
    image = oracle.image(series, 1).astype(float)
    no_gap = np.ones(image.shape, bool)
    no_gap[514:551] = False
    on_ring = image[(radius >= 215) & (radius < 219) & no_gap].mean()
    beside = image[(radius >= 225) & (radius < 275) & no_gap].mean()
    assert on_ring == pytest.approx(4.0, rel=0.03)
    assert beside == pytest.approx(0.16, rel=0.03)
    assert image[radius < 14].mean() < 0.02


def test_masked_pixels_stay_in_place():
    series = armed_series(EIGER_1M, nimages=5)
    masked = series.detector["pixel_mask"] != 0
    assert masked.sum() == 38110 + 2 * 16
    for number in (1, 5):
        np.testing.assert_array_equal(oracle.image(series, number) == 65535, masked)


def test_any_bit_of_the_mask_counts_and_only_where_it_is_applied():
    mask = np.zeros((514, 1030), np.uint32)
    mask[5, 7], mask[200, 1029] = 1 << 31, 1 << 4
    image = oracle.image(armed_series(pixel_mask=mask, bit_depth_image=32), 1)
    assert image[5, 7] == image[200, 1029] == 2**32 - 1
    assert (image == 2**32 - 1).sum() == 2
    unmasked = oracle.image(
        armed_series(pixel_mask=mask, bit_depth_image=32, pixel_mask_applied=False), 1
    )
    assert unmasked.max() < 100
    mask[5, 7] = 0  # the next series' mask is another array of the same shape
    assert oracle.image(armed_series(pixel_mask=mask.copy(), bit_depth_image=32), 1)[5, 7] < 100


@pytest.mark.parametrize("compression", ["bslz4", "lz4", "none"])
def test_masked_pixels_are_zero_where_an_eiger2_is_told_so(compression):
    """API reference 1.8: `mask_to_zero`; only where the mask is applied at all."""
    facts = {"generation": geometry.EIGER2, "compression": compression, "bit_depth_image": 16}
    series = armed_series(EIGER_1M, mask_to_zero=True, **facts)
    masked = series.detector["pixel_mask"] != 0
    assert masked.any()
    for image in (oracle.image(series, 1), ImageSource(series).array(1)):
        assert (image[masked] == 0).all()
        # Equal to the image with the mask in its usual place, so that no other pixel changed.
        usual = oracle.image(armed_series(EIGER_1M, mask_to_zero=False, **facts), 1)
        assert (usual[masked] == 65535).all()
        np.testing.assert_array_equal(image[~masked], usual[~masked])
    off = armed_series(EIGER_1M, mask_to_zero=True, pixel_mask_applied=False, **facts)
    assert oracle.image(off, 1)[masked].any()


def test_counts_that_do_not_fit_read_as_overflow():
    series = armed_series(count_time=1800.0, bit_depth_image=8, pixel_mask_applied=False)
    image = oracle.image(series, 1)
    radius = distance(series.shape)
    assert (image[(radius >= 215) & (radius < 219)] == 255).all()  # 7200 expected
    np.testing.assert_array_equal(ImageSource(series).array(1), image)


def test_all_images_of_all_series_differ():
    digests = {
        hashlib.sha256(ImageSource(series).array(number).tobytes()).digest()
        for series in (
            armed_series(nimages=10, ntrigger=6),
            armed_series(series_id=8, nimages=60),
            armed_series(seed=4, nimages=60),
        )
        for number in range(1, 61)
    }
    assert len(digests) == 3 * 60


def test_the_configuration_that_does_not_bear_on_pixels_changes_nothing():
    expected = oracle.image(armed_series(nimages=3), 2)
    other = armed_series(nimages=30, wavelength=1.0, nimages_per_file=1, name_pattern="x")
    np.testing.assert_array_equal(oracle.image(other, 2), expected)


def test_the_oracle_shares_nothing_with_what_it_judges():
    source = Path(sim_dcu.__file__).with_name("oracle.py").read_text()
    imported = {
        alias.name if isinstance(node, ast.Import) else f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert imported == {"functools", "numpy", "sim_dcu.scene", "sim_dcu.series.ArmedSeries"}


def test_the_codecs_stream_is_read_by_another_implementation():
    """The wheel of bitshuffle's own project decodes what the simulator's filter encoded."""
    bitshuffle = pytest.importorskip(
        "bitshuffle", reason="bitshuffle has no wheel here: pip install bitshuffle"
    )
    for bits in (8, 16, 32):
        series = armed_series(EIGER_500K, 7, bit_depth_image=bits, nimages=2)
        chunk = np.frombuffer(ImageSource(series).chunk(2), np.uint8, offset=12)
        decoded = bitshuffle.decompress_lz4(chunk, series.shape, series.dtype)
        np.testing.assert_array_equal(decoded, oracle.image(series, 2))
