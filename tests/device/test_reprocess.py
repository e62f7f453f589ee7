"""A run taken by one process, found by a search and reprocessed by another, new run and all.

The numbers are held against plain numpy on what the simulator's oracle says the images are.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import bluesky.plans as bp
import numpy as np
import pytest
from databroker.client import CatalogOfBlueskyRuns
from tiled_servers import own_structure_clients

from ophyd_eiger import open_run
from ophyd_eiger.errors import RunError
from ophyd_eiger.reprocess import Recipe, reprocess

COMMAND = str(Path(sys.executable).with_name("ophyd-eiger"))
BOX = (480, 230, 60, 40)
BOX_PIXELS = np.s_[..., 230:270, 480:540]


def ran(*command):
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture
def address(tiled):
    """The address of the tiled server, its key with it."""
    return f"{tiled.context.api_uri}?api_key={tiled.context.api_key}"


@pytest.fixture(params=["stream", "datum"])
def taken(request, address, tmp_path):
    """A run that another process took: its uid, its images by the oracle, its sample."""
    taker = Path(__file__).with_name("run_taker.py")
    said = ran(sys.executable, taker, address, tmp_path, request.param).stdout
    # The server keeps the runs of other tests, whose files are gone: a search must not find them.
    sample = f"lysozyme, {request.param}"
    return json.loads(said.splitlines()[-1])["uid"], np.load(tmp_path / "oracle.npy"), sample


@pytest.mark.long
@pytest.mark.timeout(300)  # three processes, one after the other
def test_a_run_of_another_process_is_found_and_reprocessed(taken, address, tiled, tmp_path):
    uid, oracle, sample = taken
    mask = np.zeros((514, 1030), np.uint8)
    mask[:, :100] = 1
    np.save(tmp_path / "mask.npy", mask)
    done = ran(
        *(COMMAND, "reprocess", address, "--plan", "scan", "--where", f"sample={sample}"),
        *("--since", "2020-01-01", "--mask", tmp_path / "mask.npy", "--profile", 200),
        *("--roi", "peak=" + ",".join(map(str, BOX)), "--save", "--npz", "--json"),
        *("--directory", tmp_path / "new"),
    )
    said = {run["uid"]: run for run in json.loads(done.stdout)["runs"]}[uid]
    # The detector's own mask is that of what it writes: the largest value in every image.
    left_out = (oracle == 65535).all(axis=(0, 1)) | (mask != 0)
    assert 0 < np.count_nonzero(left_out[:, 100:]) < 30
    good = np.where(left_out, 0, oracle).astype(np.uint64)
    assert said["sum"] == good.sum()
    assert said["images"] == 6
    assert said["regions"] == {"peak": good[BOX_PIXELS].sum()}

    broker = CatalogOfBlueskyRuns(
        tiled.context, item=tiled.item, structure_clients=own_structure_clients(tiled)
    )
    for dressed in (tiled[uid], broker.v1[uid], broker.v2[uid]):
        for opening in ({}, {"through_catalog": True, "detector_mask": False}):
            found = open_run(dressed, **opening)
            assert np.array_equal([event.read() for event in found], oracle)
            assert [event.data["motor"] for event in found] == [0, 0.5, 1]
            assert found.metadata["configuration"]["eiger_detector_nimages"] == 2

    run = tiled[said["new_uid"]]
    start = run.metadata["start"]
    assert start["parent_uid"] == uid
    assert start["reprocessing"]["pixels_left_out"] == np.count_nonzero(left_out)
    assert tiled[start["parent_uid"]].metadata["start"]["sample"] == sample
    primary = run["primary"]
    numbers = {
        "eiger_image_sum": good.sum(axis=(2, 3)).ravel(),
        "eiger_image_max": good.max(axis=(2, 3)).ravel(),
        "eiger_image_mean": good.sum(axis=(2, 3)).ravel() / np.count_nonzero(~left_out),
        "eiger_peak_sum": good[BOX_PIXELS].sum(axis=(2, 3)).ravel(),
        "motor": [0, 0, 0.5, 0.5, 1, 1],
        "parent_seq_num": [1, 1, 2, 2, 3, 3],
        "image_number": [1, 2] * 3,
    }
    for key, expected in numbers.items():
        assert np.allclose(primary[key].read(), expected, rtol=1e-15), key
    # And by databroker's own two interfaces.
    table = broker.v2[said["new_uid"]]["primary"].read()
    for key, expected in numbers.items():
        assert np.allclose(table[key], expected, rtol=1e-15), key
        assert np.allclose(list(broker.v1[said["new_uid"]].data(key)), expected, rtol=1e-15), key
    pictures = run["pictures"]
    total = np.asarray(pictures["eiger_total"].read()).reshape(514, 1030)
    assert np.array_equal(total, good.sum(axis=(0, 1)))
    maximum = np.asarray(pictures["eiger_maximum"].read()).reshape(514, 1030)
    assert np.array_equal(maximum, good.max(axis=(0, 1)))

    y, x = np.indices((514, 1030)) + 0.5
    radius = np.hypot(y - 250.25, x - 512.5) * 7.5e-5
    wavelength = 12398.41984332 / 8047.78
    q = 4 * np.pi / wavelength * np.sin(np.arctan2(radius, 0.12) / 2)
    with np.load(said["file"]) as written:
        axis, profile = written["profile_axis"], written["profile"]
    edges = np.linspace(q.min(), q.max(), 201)
    assert np.allclose(axis, (edges[:-1] + edges[1:]) / 2, rtol=1e-5)
    weights = oracle[2, 1][~left_out].astype(np.float64)
    # A pixel within rounding of an edge may be on either side of it: all but few bins agree.
    expected = np.histogram(q[~left_out], edges, weights=weights)[0]
    expected /= np.histogram(q[~left_out], edges)[0]
    assert np.mean(np.isclose(profile[2, 1], expected, rtol=1e-5, equal_nan=True)) > 0.9
    assert np.allclose(profile[2, 1], expected, rtol=0.02, equal_nan=True)

    read = np.asarray(primary["eiger_profile"].read())
    assert np.array_equal(read, profile.reshape(6, 200), equal_nan=True)


@pytest.mark.long
def test_a_catalog_that_is_not_there(dead_address):
    done = subprocess.run(
        [COMMAND, "reprocess", dead_address, "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TILED_RETRY_ATTEMPTS": "1"},
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["message"].startswith(dead_address)
    assert "Traceback" not in done.stderr


@pytest.fixture
def dead_address():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def test_a_run_just_taken_is_reprocessed(eiger, dcu, RE, catalog, tmp_path, caplog):
    """In the session that took it, from databroker, into databroker."""
    eiger.configure({"nimages": 2})
    (uid,) = RE(bp.count([eiger], 2))
    recipe = Recipe(rois={"peak": BOX})
    (reduced,) = reprocess(catalog[uid], recipe, into=catalog, directory=tmp_path / "new")
    oracle = np.array([[dcu.image(series, number) for number in (1, 2)] for series in (1, 2)])
    good = np.where(reduced.run.detector_mask != 0, 0, oracle).astype(np.uint64)
    read = catalog[reduced.parameters["new_uid"]].primary.read()
    assert np.array_equal(read["eiger_image_sum"], good.sum(axis=(2, 3)).ravel())
    # Databroker logs a column that is not of the type that was promised.
    assert "actually has dtype" not in caplog.text
    assert read["eiger_series_id"].dtype == np.int64
    assert list(read["eiger_series_id"]) == [1, 1, 2, 2]
    assert reduced.run.metadata["configuration"]["eiger_detector_nimages"] == 2


def test_a_run_at_two_energies_has_profiles_by_angle_alone(eiger, dcu, RE, catalog):
    """Each point is a series with a master of its own, and with a flat field of its energy."""
    eiger.configure({"beam_center_x": 512.5, "beam_center_y": 250.25, "detector_distance": 0.12})
    energies = [8000.0, 16000.0]
    (uid,) = RE(bp.list_scan([eiger], eiger.detector.photon_energy, energies))
    said = r"wavelength is 1\.549\d* in event 1 and 0\.774\d* in event 2"
    with pytest.raises(RunError, match=said):
        reprocess(catalog[uid], Recipe(bins=50))
    (reduced,) = reprocess(catalog[uid], Recipe(bins=50, unit="2th_deg"))
    assert reduced.parameters["profile"]["wavelength"] is None
    oracle = [dcu.image(event.data["eiger_series_id"], 1) for event in reduced.run]
    good = ~reduced.mask
    y, x = np.indices((514, 1030)) + 0.5
    angle = np.degrees(np.arctan2(np.hypot(y - 250.25, x - 512.5) * 7.5e-5, 0.12))
    edges = np.linspace(angle.min(), angle.max(), 51)
    assert np.allclose(reduced.axis, (edges[:-1] + edges[1:]) / 2, rtol=1e-5)
    for image, profile in zip(oracle, reduced.numbers["profile"][:, 0], strict=True):
        weights = image[good].astype(np.float64)
        expected = np.histogram(angle[good], edges, weights=weights)[0]
        expected /= np.histogram(angle[good], edges)[0]
        # A pixel within rounding of an edge may be on either side of it.
        assert np.allclose(profile, expected, rtol=0.02, equal_nan=True)
