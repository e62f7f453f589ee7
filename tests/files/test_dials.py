"""DIALS, as Debian has it (3.12), reads the files: geometry, wavelength, angles, every pixel."""

import json
import os
import subprocess
from functools import cache
from itertools import product
from pathlib import Path

import hdf5plugin
import numpy as np
import pytest
from written import armed, write_series

from sim_dcu import oracle

# DIALS comes as a package for the system's Python.
PYTHON = "/usr/bin/python3"
READER = Path(__file__).with_name("dials_read.py")
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}

# Generation, compression, bits, images in a file. DIALS 3.12 reads of an EIGER2's series the first
# data file alone, and no EIGER1 master that holds the images itself.
COMPRESSIONS = ("bslz4", "lz4", "off")
SHORT = ((1, "bslz4", 16, 3), (2, "bslz4", 16, 1000))
LONG = (
    *product((1,), COMPRESSIONS, (16, 32), (1, 3, 1000)),
    *product((2,), COMPRESSIONS, (8, 16, 32), (0, 1000)),
)


@cache
def is_installed() -> bool:
    code = "from importlib.util import find_spec; raise SystemExit(find_spec('dxtbx') is None)"
    if not Path(PYTHON).exists():
        return False
    return subprocess.run([PYTHON, "-c", code], env=CLEAN, check=False).returncode == 0


def armed_for(generation, compression, bits, per_file):
    changes = {"compression": compression} if compression != "off" else {}
    if generation == 2:
        changes["bit_depth_readout"] = min(bits, 16)
    return armed(
        generation,
        (1, 2),
        nimages=4,
        nimages_per_file=per_file,
        bit_depth_image=bits,
        omega_start=10.0,
        omega_increment=0.25,
        compression_enabled=compression != "off",
        **changes,
    )


def read_by_dials(cases, folder):
    """Return what DIALS finds in a series of each case: its words and its images."""
    if not is_installed():
        pytest.skip("DIALS missing: apt-get install --no-install-recommends dials python3-dials")
    masters = []
    for index, case in enumerate(cases):
        place = folder / f"series_{index}"
        place.mkdir()
        masters.append(str(write_series(place, armed_for(*case))))
    subprocess.run(
        [PYTHON, str(READER), str(folder), *masters],
        env={**CLEAN, "HDF5_PLUGIN_PATH": hdf5plugin.PLUGIN_PATH},
        check=True,
        capture_output=True,
        timeout=110,
    )
    return {
        case: (
            json.loads((folder / f"{index}.json").read_text()),
            np.load(folder / f"{index}.npy"),
        )
        for index, case in enumerate(cases)
    }


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    return read_by_dials(SHORT, tmp_path_factory.mktemp("dials"))


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    return read_by_dials(LONG, tmp_path_factory.mktemp("dials_long"))


@pytest.mark.parametrize("case", SHORT, ids=str)
def test_dials_reads_what_was_armed(short, case):
    check_geometry(case, short[case][0])
    check_images(case, short[case][1])


@pytest.mark.long
@pytest.mark.parametrize("case", LONG, ids=str)
def test_dials_reads_every_kind_of_file(long, case):
    check_geometry(case, long[case][0])
    check_images(case, long[case][1])


def check_geometry(case, found):
    series = armed_for(*case)
    eiger1 = case[0] == 1
    # An EIGER1's numbers have 24 bits.
    near = {"rel": 1e-6 if eiger1 else 1e-12, "abs": 1e-9}
    beam_center = (515.5, 532.25) if eiger1 else (514.25, 532.25)
    assert found["format"] == ("FormatHDF5EigerNearlyNexus" if eiger1 else "FormatNXmx")
    assert found["size"] == [series.shape[1], series.shape[0]]
    assert found["distance"] == pytest.approx(125.0, **near)
    assert found["beam_center"] == pytest.approx(beam_center, **near)
    # DIALS looks against the beam: from the beam centre to the first pixel, in mm.
    first = [-0.075 * beam_center[0], 0.075 * beam_center[1], -125.0]
    assert found["origin"] == pytest.approx(first, **near)
    assert found["fast"] == [1.0, 0.0, 0.0]
    assert found["slow"] == [0.0, -1.0, 0.0]
    assert found["axis"] == [1.0, 0.0, 0.0]
    assert found["pixel"] == pytest.approx([0.075, 0.075], **near)
    assert found["thickness"] == pytest.approx(0.45, **near)
    assert found["material"] == "Si"
    assert found["trusted"][1] == 184755
    assert found["wavelength"] == pytest.approx(1.5406, **near)
    assert found["exposure"] == pytest.approx(0.50001, **near)
    # Of an EIGER1's angles DIALS takes the width alone and counts from 0.
    assert found["oscillation"] == pytest.approx([0.0 if eiger1 else 10.0, 0.25], **near)


def check_images(case, found):
    series = armed_for(*case)
    good = series.detector["pixel_mask"] == 0
    assert len(found) == series.images
    for number, image in enumerate(found, start=1):
        np.testing.assert_array_equal(image[good], oracle.image(series, number)[good])
        # Outside of the range of what is trusted, on either side.
        assert not ((image[~good] >= 0) & (image[~good] <= 254)).any()
