"""Scans with bluesky's own plans have exactly the images that the oracle gives."""

import itertools

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest
import requests
from ophyd.sim import motor
from pairs import every_pair_once

from ophyd_eiger.prompt import FileList

PLANS = {
    "count": (lambda eiger: bp.count([eiger], 5), 5),
    "scan": (lambda eiger: bp.scan([eiger], motor, 0, 1, 6), 6),
}
# Plan, nimages, ntrigger, nimages_per_file.
ALL = list(itertools.product(PLANS, (1, 7), (1, 4), (1, 3, 1000)))
SHORT = every_pair_once(ALL)
CASES = [pytest.param(*case, marks=() if case in SHORT else pytest.mark.long) for case in ALL]


@pytest.mark.parametrize(("plan", "nimages", "ntrigger", "per_file"), CASES)
def test_scan_has_the_oracles_images(
    RE, catalog, dcu, eiger, assert_right, tmp_path, plan, nimages, ntrigger, per_file
):
    make_plan, points = PLANS[plan]
    eiger.detector.nimages.set(nimages).wait(10)
    eiger.detector.ntrigger.set(ntrigger).wait(10)
    eiger.filewriter.nimages_per_file.set(per_file).wait(10)
    (uid,) = RE(make_plan(eiger))
    assert_right(uid, points=points, images=nimages)
    assert eiger.detector.state.get() == "idle"
    assert eiger.filewriter.name_pattern.get() == "series_$id"
    left = {path.name for path in (tmp_path / "data").iterdir()}
    fetched = [file.path.name for file in eiger.fetched]
    assert left == {path.name for path in eiger.views} | set(fetched)
    assert fetched == [
        name
        for series in eiger.series_named
        for name in sorted(fetched)
        if name.startswith(f"{series}_")
    ]


def test_the_files_of_a_run_are_listed_whatever_their_names_begin_with(RE, eiger):
    eiger.file_prefix = "lyso[1]"
    documents = []
    RE(bp.count([eiger]), lambda name, document: documents.append((name, document)))
    assert FileList(documents) == sorted([*(file.path for file in eiger.fetched), *eiger.views])
    assert len(eiger.fetched) == 2


def test_images_inside_the_master(RE, catalog, dcu, eiger, assert_right):
    eiger.detector.nimages.set(3).wait(10)
    eiger.filewriter.nimages_per_file.set(0).wait(10)
    (uid,) = RE(bp.count([eiger], 2))
    assert_right(uid, points=2, images=3)
    assert [file.path.name[-10:] for file in eiger.fetched] == ["_master.h5", "_master.h5"]


def test_through_v1_header(RE, catalog, dcu, eiger, assert_right):
    (uid,) = RE(bp.count([eiger], 2))
    images = [np.asarray(image) for image in catalog.v1[uid].data("eiger_image")]
    assert [image.shape for image in images] == [(1, 514, 1030)] * 2
    assert np.array_equal(images[1][0], dcu.image(2, 1))


def test_two_scans_in_one_folder_overwrite_nothing(RE, catalog, dcu, eiger, assert_right, tmp_path):
    (first,) = RE(bp.count([eiger], 2))
    before = {path: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    # Sequence ids start again at 1, so that equal name patterns would give equal names.
    eiger.initialize()
    eiger.detector.frame_time.set(0.02).wait(10)
    eiger.detector.count_time.set(0.015).wait(10)
    (second,) = RE(bp.count([eiger], 2))
    assert_right(second, points=2, images=1)
    assert {path: path.read_bytes() for path in before} == before
    assert catalog[first].primary.read()["eiger_image"].shape == (2, 1, 514, 1030)


def test_count_time_scanned(RE, catalog, dcu, eiger, assert_right):
    """A value that is set between points ends the series that is armed for the old one."""
    uid = RE(bp.scan([eiger], eiger.detector.count_time, 0.001, 0.004, 4))[0]
    assert_right(uid, points=4, images=1)
    times = np.asarray(catalog[uid].primary.read()["eiger_detector_count_time"])
    assert times == pytest.approx([0.001, 0.002, 0.003, 0.004], rel=1e-6)


def test_set_in_the_middle_of_an_armed_series(RE, catalog, dcu, eiger, assert_right):
    eiger.detector.ntrigger.set(3).wait(10)
    uid = RE(bp.scan([eiger], eiger.detector.beam_center_x, 1, 4, 4))[0]
    assert_right(uid, points=4, images=1)


def test_two_runs_in_one_staging(RE, catalog, dcu, eiger, assert_right):
    eiger.detector.ntrigger.set(4).wait(10)

    @bpp.stage_decorator([eiger])
    def two_runs():
        for _ in range(2):
            yield from bps.open_run()
            for _ in range(2):
                yield from bps.trigger_and_read([eiger])
            yield from bps.close_run()

    uids = RE(two_runs())
    for uid, numbers in zip(uids, ((1, 2), (3, 4)), strict=True):
        found = np.asarray(catalog[uid].primary.read()["eiger_image"])
        assert np.array_equal(found[:, 0], [dcu.image(1, number) for number in numbers])


def test_settings_changed_within_a_run_are_in_its_events(RE, catalog, eiger):
    def plan():
        yield from bps.open_run()
        for seconds in (0.003, 0.001):
            yield from bps.mv(eiger.detector.count_time, seconds)
            yield from bps.trigger_and_read([eiger])
        yield from bps.close_run()

    (uid,) = RE(bpp.stage_wrapper(plan(), [eiger]))
    dataset = catalog[uid].primary.read()
    assert list(np.asarray(dataset["eiger_detector_count_time"])) == pytest.approx([0.003, 0.001])
    assert list(np.asarray(dataset["eiger_detector_photon_energy"])) == pytest.approx([8047.78] * 2)


def test_what_another_client_changed_is_in_the_descriptor(RE, catalog, dcu, eiger):
    requests.put(
        f"{dcu.url}/detector/api/1.6.0/config/photon_energy", json={"value": 9000}, timeout=20
    )
    (uid,) = RE(bp.count([eiger], 1))
    configuration = catalog[uid].primary.metadata["descriptors"][0]["configuration"]["eiger"]
    assert configuration["data"]["eiger_detector_photon_energy"] == pytest.approx(9000)
    assert configuration["data"]["eiger_detector_threshold_energy"] == pytest.approx(4500)
    armed = requests.get(
        f"{dcu.url}/detector/api/1.6.0/config/data_collection_date", timeout=20
    ).json()
    assert configuration["data"]["eiger_detector_data_collection_date"] == armed["value"]


def test_configuration_is_in_the_descriptor(RE, catalog, eiger):
    eiger.detector.photon_energy.set(12400).wait(10)
    (uid,) = RE(bp.count([eiger], 1))
    descriptor = catalog[uid].primary.metadata["descriptors"][0]
    configuration = descriptor["configuration"]["eiger"]["data"]
    assert configuration["eiger_detector_photon_energy"] == pytest.approx(12400)
    assert configuration["eiger_detector_threshold_energy"] == pytest.approx(6200)
    assert configuration["eiger_detector_bit_depth_image"] == 16
    keys = descriptor["configuration"]["eiger"]["data_keys"]
    assert keys["eiger_detector_photon_energy"]["units"] == "eV"
    image = descriptor["data_keys"]["eiger_image"]
    assert image["shape"] == [1, 514, 1030]
    assert image["dtype_numpy"] == "<u2"
    assert image["external"] == "FILESTORE:"
