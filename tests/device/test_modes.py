"""Every way of taking data gives the oracle's images, in both generations and kinds of documents.

The short run takes a fixed set in which every pair of values occurs; the rest is `long`.
"""

import contextlib
import itertools

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest
from catalogs import read_through_tiled, recorded
from pairs import every_pair_once
from signals_at_the_input import signals

import sim_dcu
from ophyd_eiger import EigerDetector, TriggerInfo

POINTS = 3
GATE_S = 0.004
WAYS = ("series a point", "armed once", "inte", "exts", "exte", "fly", "fly exts", "fly exte")
ALL = list(
    itertools.product(
        ("eiger-500k", "eiger2-500k"), WAYS, (1, 7), (1, 3, 1000), ("datum", "stream")
    )
)


# Fly scans by external signals are in test_flying's short run, too.
SHORT = every_pair_once([case for case in ALL if not case[1].startswith("fly ")])
CASES = [
    pytest.param(
        *case, marks=() if case in SHORT else pytest.mark.long, id="-".join(map(str, case))
    )
    for case in ALL
]


def settings(way, images):
    """Return what the detector is set to, and how many triggers a point has."""
    if way == "series a point":
        return {"nimages": images, "ntrigger": 1}, 1
    if way == "armed once":
        return {"nimages": images, "ntrigger": POINTS}, 1
    if way == "exts":
        return {"trigger_mode": "exts", "nimages": images, "ntrigger": POINTS}, 1
    if way in ("inte", "exte"):
        return {"nimages": 1, "trigger_mode": way, "ntrigger": POINTS * images}, images
    return {}, 1


def plan_of(way, eiger, images):
    if not way.startswith("fly"):
        return bp.count([eiger], POINTS)
    trigger = way.partition(" ")[2] or "ints"
    livetime = None if trigger == "exte" else 0.004
    return fly(eiger, TriggerInfo(POINTS, images, trigger, livetime=livetime))


def fly(eiger, info):
    @bpp.stage_decorator([eiger])
    @bpp.run_decorator()
    def inner():
        yield from bps.prepare(eiger, info, wait=True)
        yield from bps.declare_stream(eiger, name="primary", collect=True)
        yield from bps.kickoff(eiger, wait=True)
        yield from bps.collect_while_completing([eiger], [eiger], 0.1, "primary")

    return inner()


@contextlib.contextmanager
def connected(dcu, directory, documents):
    eiger = EigerDetector(dcu.url, name="eiger", directory=directory, documents=documents)
    try:
        eiger.connect()
        # 16-bit images.
        eiger.detector.frame_time.set(0.006).wait(20)
        eiger.detector.count_time.set(0.004).wait(20)
        yield eiger
    finally:
        eiger.destroy()


def source_of(way, dcu):
    """Return what makes the signals that this way of taking data waits for."""
    if way.endswith("exts"):
        return signals(dcu)
    if way.endswith("exte"):
        return signals(dcu, gate=GATE_S)
    return contextlib.nullcontext()


def expected(dcu, way, images):
    """Return what the oracle says the points hold, one series a point or one for all."""
    if way == "series a point":
        places = [[(point + 1, n + 1) for n in range(images)] for point in range(POINTS)]
    else:
        # prepare arms anew, so that the series of a fly scan is the second.
        series = 2 if way.startswith("fly") else 1
        places = [[(series, p * images + n + 1) for n in range(images)] for p in range(POINTS)]
    return np.array([[dcu.image(*place) for place in point] for point in places])


@pytest.mark.parametrize(("model", "way", "images", "per_file", "documents"), CASES)
def test_every_pixel(RE, catalog, tiled, tmp_path, model, way, images, per_file, documents):
    data = tmp_path / "data"
    with (
        sim_dcu.serve(model, seed=3, initialized=True) as dcu,
        connected(dcu, data, documents) as eiger,
    ):
        eiger.filewriter.nimages_per_file.set(per_file).wait(20)
        values, triggers = settings(way, images)
        for key, value in values.items():
            getattr(eiger.detector, key).set(value).wait(20)
        eiger.triggers_per_point.set(triggers).wait(20)
        with source_of(way, dcu), recorded(RE) as documents_of_run:
            (uid,) = RE(plan_of(way, eiger, images))
        right = expected(dcu, way, images)
        assert eiger.detector.state.get() == "idle"
        if documents == "datum":
            found = np.asarray(catalog[uid].primary.read()["eiger_image"])
            assert found.dtype == right.dtype
            assert np.array_equal(found, right)
        (found,) = read_through_tiled(documents_of_run, tiled, "eiger_image")
        assert found.shape == right.shape
        assert np.array_equal(found, right)


@pytest.mark.long
@pytest.mark.parametrize("model", ["eiger-9m", "eiger2-9m"])
def test_a_region_that_the_detector_reads_out(RE, catalog, tmp_path, model):
    """`roi_mode`: documents, files and pixels are the region's, and then again the detector's."""
    with sim_dcu.serve(model, time_scale=0, seed=3, initialized=True) as dcu:
        eiger = EigerDetector(dcu.url, name="eiger", directory=tmp_path)
        keys = (eiger.detector.y_pixels_in_detector, eiger.detector.x_pixels_in_detector)
        eiger.connect()
        whole = tuple(key.get() for key in keys)
        region = next(mode for mode in eiger.detector.roi_mode.choices if mode != "disabled")
        shapes = []
        for series, mode in enumerate((region, "disabled"), 1):
            eiger.configure({"roi_mode": mode})
            (uid,) = RE(bp.count([eiger]))
            stream = catalog[uid].primary
            found = np.asarray(stream.read()["eiger_image"])[0, 0]
            assert np.array_equal(found, dcu.image(series, 1))
            (descriptor,) = stream.metadata["descriptors"]
            shapes.append(tuple(descriptor["data_keys"]["eiger_image"]["shape"]))
            assert shapes[-1] == (1, *found.shape)
        eiger.destroy()
    # The middle 4M of a 9M: two by four modules, and the gaps between them.
    assert shapes[0][1:] in ((2167, 2070), (2162, 2068))
    assert shapes[1][1:] == whole
