"""Foreign readers give the oracle's pixels, of every layout, compression, depth and file length.

The short run has every pair of what can be combined, the long one everything.
"""

import os
import subprocess
from itertools import combinations, product
from shutil import which

import fabio
import h5py
import hdf5plugin
import numpy as np
import nxmx
import pytest
import silx.io
from written import armed, write_series

from sim_dcu import oracle

# Of each test's cases the short run takes every 2nd, see conftest.
SHORT_RUN_EVERY = 2

GENERATIONS = (1, 2)
# "off" is filewriter/config/compression_enabled false.
COMPRESSIONS = ("bslz4", "lz4", "off")
# Images in a file, and in all: whole files, a short last one, and one image alone.
PER_FILE = {0: 4, 1: 3, 3: 7, 1000: 4}
BITS = (8, 16, 32)
EVERYTHING = tuple(product(BITS, GENERATIONS, COMPRESSIONS, PER_FILE))
# Bits, generation, compression, images in a file.
PAIRS = (
    (8, 1, "bslz4", 0),
    (8, 1, "lz4", 3),
    (8, 2, "bslz4", 1),
    (8, 2, "off", 1000),
    (16, 1, "bslz4", 3),
    (16, 1, "off", 1),
    (16, 2, "bslz4", 1000),
    (16, 2, "lz4", 0),
    (32, 1, "lz4", 1),
    (32, 1, "lz4", 1000),
    (32, 2, "bslz4", 3),
    (32, 2, "off", 0),
    (32, 2, "off", 3),
)


def test_the_short_run_has_every_pair():
    for first, second in combinations(range(4), 2):
        wanted = {(case[first], case[second]) for case in EVERYTHING}
        assert {(case[first], case[second]) for case in PAIRS} == wanted


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(case, marks=() if case in PAIRS else pytest.mark.long) for case in EVERYTHING
    ],
    ids=lambda case: "{}bit-eiger{}-{}-{}".format(*case),
)
def written(request, tmp_path_factory):
    """Return an armed series and its master file."""
    bits, generation, compression, per_file = request.param
    changes = {"compression": compression} if compression != "off" else {}
    series = armed(
        generation,
        bit_depth_image=bits,
        compression_enabled=compression != "off",
        nimages=PER_FILE[per_file],
        nimages_per_file=per_file,
        omega_increment=0.5,
        **changes,
    )
    return series, write_series(tmp_path_factory.mktemp("series"), series)


def expected(series):
    return np.stack([oracle.image(series, number) for number in range(1, series.images + 1)])


def in_master(series):
    return series.filewriter["nimages_per_file"] == 0


def stack_names(series):
    per_file = series.filewriter["nimages_per_file"]
    if per_file == 0:
        return ["data"]
    return [f"data_{number:06d}" for number in range(1, -(-series.images // per_file) + 1)]


def test_h5py(written):
    series, master = written
    with h5py.File(master) as file:
        assert sorted(file["entry/data"]) == stack_names(series)
        stacks = [file["entry/data"][name][()] for name in stack_names(series)]
    lengths = [len(stack) for stack in stacks]
    assert lengths == (
        {1: [1, 1, 1], 3: [3, 3, 1]}.get(series.filewriter["nimages_per_file"], [series.images])
    )
    found = np.concatenate(stacks)
    assert found.dtype == f"<u{series.detector['bit_depth_image'] // 8}"
    np.testing.assert_array_equal(found, expected(series))


def test_fabio(written):
    series, master = written
    with fabio.open(str(master)) as image:
        assert image.nframes == series.images
        found = [image.getframe(index).data for index in range(series.images)]
    np.testing.assert_array_equal(found, expected(series))


def test_silx(written):
    series, master = written
    found = [silx.io.get_data(f"silx:{master}::/entry/data/{n}") for n in stack_names(series)]
    np.testing.assert_array_equal(np.concatenate(found), expected(series))


def test_dectris_compression(written):
    """The vendor's own library decodes the chunks that the files hold."""
    vendor = pytest.importorskip(
        "dectris.compression",
        reason="dectris-compression missing: pip install --group test-compiled",
    )
    series, master = written
    compression = series.detector["compression"]
    itemsize = series.detector["bit_depth_image"] // 8
    found = []
    with h5py.File(master) as file:
        for name in stack_names(series):
            dataset = file["entry/data"][name]
            for index in range(len(dataset)):
                mask, chunk = dataset.id.read_direct_chunk((index, 0, 0))
                assert mask == 0
                if series.filewriter["compression_enabled"]:
                    more = {"elem_size": itemsize} if compression == "bslz4" else {}
                    chunk = vendor.decompress(chunk, compression, **more)
                found.append(np.frombuffer(chunk, f"<u{itemsize}").reshape(series.shape))
    np.testing.assert_array_equal(found, expected(series))


def test_h5dump(written, tmp_path):
    """HDF5 1.10 on its own, with the filters of hdf5plugin's wheel."""
    if which("h5dump") is None:
        pytest.skip("h5dump missing: apt-get install hdf5-tools")
    series, master = written
    raw = tmp_path / "raw"
    dumped = b""
    for name in stack_names(series):
        subprocess.run(
            ["h5dump", "-d", f"/entry/data/{name}", "-b", "LE", "-o", str(raw), str(master)],
            env={**os.environ, "HDF5_PLUGIN_PATH": hdf5plugin.PLUGIN_PATH},
            check=True,
            capture_output=True,
            timeout=60,
        )
        dumped += raw.read_bytes()
    found = np.frombuffer(dumped, f"<u{series.detector['bit_depth_image'] // 8}")
    np.testing.assert_array_equal(found.reshape(-1, *series.shape), expected(series))


def test_h5dump_reads_the_whole_master(tmp_path, generation):
    if which("h5dump") is None:
        pytest.skip("h5dump missing: apt-get install hdf5-tools")
    master = write_series(tmp_path, armed(generation))
    done = subprocess.run(
        ["h5dump", "-H", "-p", str(master)], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    assert 'EXTERNAL_LINK "data_000001"' in done.stdout
    assert 'TARGETFILE "series_7_data_000001.h5"' in done.stdout


def test_fabio_reads_a_single_image(tmp_path, generation):
    # With one image in all, fabio's getframe looks for another file.
    series = armed(generation)
    with fabio.open(str(write_series(tmp_path, series))) as image:
        assert image.nframes == 1
        np.testing.assert_array_equal(image.data, oracle.image(series, 1))


def test_nxmx(written):
    """The reader of DIALS, as a library: it knows EIGER2's layout alone."""
    series, master = written
    with h5py.File(master) as file:
        entries = nxmx.NXmx(file).entries
        if "EIGER2" not in series.detector["description"]:
            assert entries == []
            return
        (entry,) = entries
        detector = entry.instruments[0].detectors[0]
        assert tuple(detector.modules[0].data_size) == series.shape
        (data,) = entry.data
        names = sorted(name for name in data if name.startswith("data"))
        assert names == stack_names(series)
        found = np.concatenate([data[name][()] for name in names])
    np.testing.assert_array_equal(found, expected(series))
