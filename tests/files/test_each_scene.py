"""The files' judges with every scene: golden trees, HDF5, fabio, over HTTP and the monitor."""

import io
import itertools
from dataclasses import replace

import fabio
import h5py
import numpy as np
import pytest
import tifffile
from checker import faults
from pairs import every_pair_once
from plain_client import Client
from written import armed, data_names, write_series

import sim_dcu
from sim_dcu import oracle
from sim_dcu.beam import SCENES, Beam

# Of the tests that say nothing else the short run takes each with one generation.
GENERATIONS_BY_TURNS = True
SHAPE = (400, 500)
EVERYTHING = list(
    itertools.product(
        [*SCENES, "recorded"], (1, 2), (8, 16, 32), ("bslz4", "lz4", "off"), (0, 1, 3)
    )
)
SHORT = every_pair_once(EVERYTHING)[::2]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A file of one frame, smaller than any detector."""
    path = tmp_path_factory.mktemp("recorded") / "frame.edf"
    frame = np.random.default_rng(2).poisson(0.2, SHAPE).astype(np.int32)
    fabio.edfimage.EdfImage(data=frame).write(str(path))
    return path


def beam(scene, recorded):
    return Beam(str(recorded) if scene == "recorded" else scene, flux=3.0)


@pytest.mark.parametrize(
    ("scene", "generation", "bits", "compression", "per_file"),
    [
        pytest.param(*case, marks=() if case in SHORT else pytest.mark.long, id=f"{case}")
        for case in EVERYTHING
    ],
)
def test_files_are_as_the_firmware_leaves_them(
    scene, generation, bits, compression, per_file, recorded, tmp_path
):
    changes = {"compression": compression} if compression != "off" else {}
    series = replace(
        armed(
            generation,
            bit_depth_image=bits,
            compression_enabled=compression != "off",
            nimages=4,
            nimages_per_file=per_file,
            omega_increment=0.5,
            **changes,
        ),
        beam=beam(scene, recorded),
    )
    master = write_series(tmp_path, series)
    expected = [oracle.image(series, number) for number in range(1, 5)]
    files = -(-4 // per_file) if per_file else 0
    for number, name in enumerate([master.name, *data_names(files)]):
        assert faults(tmp_path / name, series, number, 4) == []
    with h5py.File(master) as file:
        data = file["entry/data"]
        np.testing.assert_array_equal(np.concatenate([data[n][()] for n in sorted(data)]), expected)
    with fabio.open(str(master)) as image:
        found = [image.getframe(index).data for index in range(4)]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("scene", [*SCENES, "recorded"])
@pytest.mark.parametrize("model", ["eiger-500k", "eiger2-500k"])
def test_a_series_over_http(scene, model, recorded, tmp_path):
    with sim_dcu.serve(model, initialized=True, seed=3, data_dir=tmp_path) as server:
        server.set_beam(beam(scene, recorded))
        client = Client(server.url, server.dcu.firmware.api_version)
        with client.session:
            client.put("filewriter/config/mode", "enabled")
            client.put("monitor/config/mode", "enabled")
            client.config(nimages=2, count_time=0.005, omega_start=20.0, omega_increment=0.1)
            client.arm()
            client.command("trigger")
            client.command("disarm")
            shown = client.get("monitor/images/1/2").content
        expected = [server.image(1, number) for number in (1, 2)]
        with h5py.File(tmp_path / "series_1_master.h5") as file:
            np.testing.assert_array_equal(file["entry/data/data_000001"][()], expected)
        good = server.planted(1).pixel_mask == 0
        found = tifffile.imread(io.BytesIO(shown))
        np.testing.assert_array_equal(found[good], expected[1][good])
