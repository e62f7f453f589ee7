"""Triggers that last longer than the DCU keeps a silent connection (5 minutes; here 1 s)."""

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest

import sim_dcu
from ophyd_eiger import EigerDetector

IDLE_LIMIT_S = 1.0
EXPOSURE_S = 2.5


@pytest.fixture(params=["eiger-500k", pytest.param("eiger2-500k", marks=pytest.mark.long)])
def dcu(request, instant_settings):
    with sim_dcu.serve(
        request.param, time_scale=1, seed=3, initialized=True, idle_limit=IDLE_LIMIT_S
    ) as server:
        yield server


@pytest.fixture
def eiger(dcu, tmp_path):
    device = EigerDetector(dcu.url, name="eiger", directory=tmp_path)
    device.configure({"frame_time": EXPOSURE_S, "count_time": EXPOSURE_S - 0.1})
    yield device
    device.destroy()


def trigger_outcomes(eiger):
    """What the ledger says of triggers: a status, or the error that took its place."""
    return [
        request.outcome
        for request in eiger.ledger.requests
        if request.resource == "detector command/trigger"
    ]


def check(catalog, dcu, uid, points):
    dataset = catalog[uid].primary.read()
    images = np.asarray(dataset["eiger_image"])
    (series,) = {int(number) for number in dataset["eiger_series_id"]}
    assert images.shape[:2] == (points, 1)
    for number, (image,) in enumerate(images, start=1):
        assert np.array_equal(image, dcu.image(series, number))


@pytest.mark.long
def test_a_step_scan(RE, catalog, dcu, eiger):
    eiger.configure({"ntrigger": 2})
    (uid,) = RE(bp.count([eiger], 2))
    # The DCU hung up on both triggers.
    assert trigger_outcomes(eiger) == ["ConnectionError"] * 2
    check(catalog, dcu, uid, 2)


@pytest.mark.long
def test_a_fly_scan(RE, catalog, dcu, eiger):
    eiger.configure({"nimages": 2})

    @bpp.stage_decorator([eiger])
    @bpp.run_decorator()
    def plan():
        yield from bps.prepare(eiger, {"number_of_events": 2}, wait=True)
        yield from bps.declare_stream(eiger, name="primary", collect=True)
        yield from bps.kickoff(eiger, wait=True)
        yield from bps.complete(eiger, wait=True)
        yield from bps.collect(eiger, name="primary")

    (uid,) = RE(plan())
    assert trigger_outcomes(eiger) == ["ConnectionError"]
    check(catalog, dcu, uid, 2)
