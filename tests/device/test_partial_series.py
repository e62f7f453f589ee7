"""Series that are not as they were planned: ended early, taken again, longer than their events.

Each is read through tiled, and through databroker where the documents are for it.
"""

import functools
import itertools

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest
from bluesky.utils import FailedStatus, RunEngineInterrupted
from catalogs import read_through_tiled, recorded
from pairs import every_pair_once

import sim_dcu
from ophyd_eiger import EigerDetector
from ophyd_eiger.errors import StateError

POINTS = 4
ENDINGS = (
    "armed for more points than the scan has",
    "armed for fewer points than the scan has",
    "a point taken again",
    "a point that nobody reads",
)
ALL = list(
    itertools.product(
        ENDINGS, ("eiger-500k", "eiger2-500k"), (1, 4), (1, 3, 1000), ("datum", "stream")
    )
)
SHORT = every_pair_once(ALL)


def every_case_of(ending):
    """Give a test its cases of model, images a point, images a file, and documents."""
    return pytest.mark.parametrize(
        ("model", "images", "per_file", "documents"),
        [
            pytest.param(*case[1:], marks=() if case in SHORT else pytest.mark.long)
            for case in ALL
            if case[0] == ending
        ],
    )


@pytest.fixture
def dcu(model):
    with sim_dcu.serve(model, seed=3, initialized=True) as server:
        yield server


@pytest.fixture
def eiger(dcu, tmp_path, images, per_file, documents):
    device = EigerDetector(dcu.url, name="eiger", directory=tmp_path, documents=documents)
    device.configure(
        {
            # 16-bit images.
            "frame_time": 0.006,
            "count_time": 0.004,
            "nimages": images,
            "filewriter.nimages_per_file": per_file,
        }
    )
    yield device
    device.destroy()


def read_back(documents, catalog, tiled):
    """Return what tiled has; it is what databroker has, if the documents are for databroker."""
    (found,) = read_through_tiled(documents, tiled, "eiger_image")
    if any(name == "resource" for name, _ in documents):
        uid = documents[0][1]["uid"]
        assert np.array_equal(np.asarray(catalog[uid].primary.read()["eiger_image"]), found)
    return found


@functools.lru_cache(32)
def of_oracle(dcu, series, number):
    return dcu.image(series, number)


def taken(dcu, series, images, points):
    """Return what the oracle says that the points of a series hold, counted from 0."""
    return np.array(
        [
            [of_oracle(dcu, series, point * images + n + 1) for n in range(images)]
            for point in points
        ]
    )


def place_of(dcu, stack, series, points):
    """Return which point of a series has these images, by the oracle."""
    places = [
        point
        for point in range(points)
        if np.array_equal(stack, taken(dcu, series, len(stack), [point])[0])
    ]
    assert len(places) == 1
    return places[0]


@every_case_of(ENDINGS[0])
def test_armed_for_more_points_than_the_scan_has(RE, catalog, tiled, dcu, eiger, images):
    eiger.detector.ntrigger.set(POINTS + 3).wait(20)
    with recorded(RE) as documents:
        RE(bp.count([eiger], POINTS))
    found = read_back(documents, catalog, tiled)
    assert np.array_equal(found, taken(dcu, 1, images, range(POINTS)))
    assert eiger.detector.state.get() == "idle"


@every_case_of(ENDINGS[1])
def test_armed_for_fewer_points_than_the_scan_has(RE, catalog, tiled, dcu, eiger, images):
    eiger.detector.ntrigger.set(3).wait(20)
    with recorded(RE) as documents:
        RE(bp.count([eiger], POINTS))
    found = read_back(documents, catalog, tiled)
    first, second = taken(dcu, 1, images, range(3)), taken(dcu, 2, images, range(POINTS - 3))
    assert np.array_equal(found, np.concatenate([first, second]))


@every_case_of(ENDINGS[2])
def test_a_point_taken_again(RE, catalog, tiled, dcu, eiger, images):
    """A pause in the exposure of a point that was armed for with the others."""
    eiger.detector.ntrigger.set(POINTS + 2).wait(20)
    paused = []

    @bpp.stage_decorator([eiger])
    @bpp.run_decorator()
    def plan():
        for point in range(POINTS):
            yield from bps.checkpoint()
            yield from bps.trigger(eiger, group="exposure")
            if point == 1 and not paused:
                paused.append(point)
                yield from bps.pause()
            yield from bps.wait("exposure")
            yield from bps.create("primary")
            yield from bps.read(eiger)
            yield from bps.save()

    with recorded(RE) as documents:
        with pytest.raises(RunEngineInterrupted):
            RE(plan())
        RE.resume()
    found = read_back(documents, catalog, tiled)
    series = [doc["data"]["eiger_series_id"] for name, doc in documents if name == "event"]
    assert found.shape[:2] == (POINTS, images)
    places = [
        (number, place_of(dcu, stack, number, POINTS + 2))
        for stack, number in zip(found, series, strict=True)
    ]
    # Each image once, in the order in which they were taken.
    assert places == sorted(set(places))


@every_case_of(ENDINGS[3])
def test_a_point_that_nobody_reads(RE, catalog, tiled, dcu, eiger, images):
    """Its images are in the files, beside those that events name."""
    eiger.detector.ntrigger.set(POINTS).wait(20)

    @bpp.stage_decorator([eiger])
    @bpp.run_decorator()
    def plan():
        for point in range(POINTS):
            yield from bps.trigger(eiger, wait=True)
            if point != 1:
                yield from bps.create("primary")
                yield from bps.read(eiger)
                yield from bps.save()

    with recorded(RE) as documents:
        RE(plan())
    found = read_back(documents, catalog, tiled)
    assert np.array_equal(found, taken(dcu, 1, images, [0, 2, 3]))


@pytest.mark.parametrize("dropped", [0, 1])
def test_an_event_that_was_dropped(RE, tiled, tmp_path, dropped):
    """As `trigger_and_read` does when another device cannot be read. Of Datum documents
    nothing tells, see `ophyd_eiger.naming`."""
    with sim_dcu.serve("eiger-500k", seed=3, initialized=True) as dcu:
        eiger = EigerDetector(dcu.url, name="eiger", directory=tmp_path, documents="stream")
        eiger.configure({"frame_time": 0.006, "count_time": 0.004, "ntrigger": POINTS})

        @bpp.stage_decorator([eiger])
        @bpp.run_decorator()
        def plan():
            for point in range(POINTS):
                yield from bps.trigger(eiger, wait=True)
                yield from bps.create("primary")
                yield from bps.read(eiger)
                yield from (bps.drop() if point == dropped else bps.save())

        with recorded(RE) as documents:
            RE(plan())
        (found,) = read_through_tiled(documents, tiled, "eiger_image")
        kept = [point for point in range(POINTS) if point != dropped]
        assert np.array_equal(found, taken(dcu, 1, 1, kept))
        eiger.destroy()


@pytest.mark.long
@pytest.mark.parametrize(
    ("ntrigger", "points", "documents"),
    [
        (1, 6, "datum"),
        (6, 3, "datum"),
        (6, 6, "datum"),
        (1, 6, "stream"),
        (6, 3, "stream"),
        (6, 6, "stream"),
    ],
)
def test_streams_that_take_turns(RE, catalog, tmp_path, documents, ntrigger, points):
    with sim_dcu.serve("eiger-500k", seed=3, initialized=True) as dcu:
        eiger = EigerDetector(dcu.url, name="eiger", directory=tmp_path, documents=documents)
        eiger.configure({"frame_time": 0.006, "count_time": 0.004, "ntrigger": ntrigger})

        @bpp.stage_decorator([eiger])
        @bpp.run_decorator()
        def plan():
            for number in range(points):
                stream = "light" if number % 2 else "dark"
                yield from bps.trigger_and_read([eiger], name=stream)

        if documents == "stream":
            with pytest.raises((StateError, FailedStatus), match="two streams take turns"):
                RE(plan())
        else:
            (uid,) = RE(plan())
            for stream, offset in (("dark", 1), ("light", 2)):
                found = np.asarray(catalog[uid][stream].read()["eiger_image"])[:, 0]
                numbers = range(offset, points + 1, 2)
                places = [(1, n) if ntrigger == 6 else (n, 1) for n in numbers]
                assert np.array_equal(found, [dcu.image(*place) for place in places])
        assert eiger.detector.state.get() == "idle"
        eiger.destroy()
