"""A scan on either generation, with each compression and depth of its files."""

import bluesky.plans as bp
import numpy as np
import pytest

import sim_dcu
from ophyd_eiger import EigerDetector, open_series

# Model, compression, count time in s, and what the images are then.
CASES = [
    ("eiger2-500k", "bslz4", 0.0002, "<u1"),
    pytest.param("eiger2-500k", "lz4", 0.004, "<u2", marks=pytest.mark.long),
    ("eiger2-500k", "none", 0.5, "<u4"),
    pytest.param("eiger2-1m", "bslz4", 0.004, "<u2", marks=pytest.mark.long),
    ("eiger-500k", "lz4", 0.5, "<u4"),
]


@pytest.mark.parametrize(("model", "compression", "count_time", "dtype"), CASES)
def test_a_scan(RE, catalog, tmp_path, model, compression, count_time, dtype):
    with sim_dcu.serve(model, seed=3, initialized=True) as dcu:
        eiger = EigerDetector(dcu.url, name="eiger", directory=tmp_path)
        try:
            for signal, value in (
                (eiger.detector.frame_time, count_time * 1.5),
                (eiger.detector.count_time, count_time),
                (eiger.detector.compression, compression),
                (eiger.detector.nimages, 3),
                (eiger.filewriter.nimages_per_file, 2),
            ):
                signal.set(value).wait(10)
            (uid,) = RE(bp.count([eiger], 2))
            dataset = catalog[uid].primary.read()
            found = np.asarray(dataset["eiger_image"])
            expected = np.array([[dcu.image(s, n) for n in (1, 2, 3)] for s in (1, 2)])
            assert found.dtype == np.dtype(dtype)
            assert np.array_equal(found, expected)
            master = next(f.path for f in eiger.fetched if f.path.name.endswith("_master.h5"))
            series = open_series(master)
            assert np.array_equal(np.asarray(series[:]), expected[0])
            assert np.all(expected[0][:, series.mask != 0] == np.iinfo(dtype).max)
        finally:
            eiger.destroy()
