"""Fly scans: several detectors together, clean ends, and what is refused."""

import contextlib
import threading

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest
from bluesky.utils import FailedStatus
from catalogs import read_through_tiled, recorded
from signals_at_the_input import signals

import sim_dcu
from ophyd_eiger import EigerDetector, Timeouts, TriggerInfo
from ophyd_eiger.errors import NotStagedError, SignalTimeoutError, StateError, StoppedError


def fly_together(detectors, info, before_complete=bps.null):
    @bpp.stage_decorator(detectors)
    @bpp.run_decorator()
    def inner():
        for detector in detectors:
            yield from bps.prepare(detector, info, group="prepare")
        yield from bps.wait("prepare")
        yield from bps.declare_stream(*detectors, name="primary", collect=True)
        yield from bps.kickoff_all(*detectors, wait=True)
        yield from before_complete()
        yield from bps.collect_while_completing(detectors, detectors, 0.1, "primary")

    return inner()


def right(dcu, series, images):
    return np.array([[dcu.image(series, number) for number in point] for point in images])


def test_bp_fly_stages_and_unstages_by_itself(RE, catalog, dcu, eiger):
    eiger.detector.nimages.set(4).wait(10)
    (uid,) = RE(bp.fly([eiger]))
    # Its files are home when the unstage that it asked for is done.
    eiger.stage().wait(20)
    eiger.unstage().wait(20)
    found = np.asarray(catalog[uid].primary.read()["eiger_image"])
    assert np.array_equal(found, right(dcu, 1, [[1, 2, 3, 4]]))


def test_two_detectors_and_one_pulse_generator(RE, tmp_path, tiled):
    with contextlib.ExitStack() as stack:
        dcus = [
            stack.enter_context(sim_dcu.serve(model, seed=seed, initialized=True))
            for model, seed in (("eiger-500k", 3), ("eiger2-500k", 4))
        ]
        eigers = [
            EigerDetector(dcu.url, name=name, directory=tmp_path / name, documents="stream")
            for dcu, name in zip(dcus, ("left", "right"), strict=True)
        ]
        for eiger in eigers:
            stack.callback(eiger.destroy)
            eiger.connect()
            eiger.filewriter.nimages_per_file.set(2).wait(10)
        for dcu in dcus:
            stack.enter_context(signals(dcu))
        with recorded(RE) as documents:
            RE(fly_together(eigers, TriggerInfo(5, 2, "exts", livetime=0.004)))
        numbers = [[2 * n + 1, 2 * n + 2] for n in range(5)]
        arrays = read_through_tiled(documents, tiled, "left_image", "right_image")
        for dcu, found in zip(dcus, arrays, strict=True):
            assert np.array_equal(found, right(dcu, 2, numbers))
        stop = documents[-1][1]
        assert stop["num_events"] == {"primary": 5}


@pytest.mark.parametrize("documents", ["datum", "stream"])
def test_ended_after_fewer_points_than_it_was_armed_for(RE, dcu, tmp_path, tiled, documents):
    eiger = EigerDetector(dcu.url, name="eiger", directory=tmp_path, documents=documents)
    try:
        eiger.filewriter.nimages_per_file.set(1).wait(10)
        with signals(dcu, most=7), recorded(RE) as docs:
            info = TriggerInfo(4, 1, "exts", livetime=0.004, armed_for=50)
            RE(fly_together([eiger], info))
        (found,) = read_through_tiled(docs, tiled, "eiger_image")
        assert np.array_equal(found, right(dcu, 2, [[1], [2], [3], [4]]))
        assert eiger.detector.state.get() == "idle"
        assert eiger.detector.ntrigger.get() == 1
        assert eiger.detector.trigger_mode.get() == "ints"
    finally:
        eiger.destroy()


def test_stop_with_success_keeps_what_is_taken(RE, catalog, dcu, eiger):
    eiger.filewriter.nimages_per_file.set(1).wait(10)
    with signals(dcu, most=3) as taken:

        def stop_after_three():
            while len(taken) < 3:
                yield from bps.sleep(0.01)
            # Three images are taken; the fourth signal never comes.
            threading.Timer(0.3, lambda: eiger.stop(success=True)).start()

        info = TriggerInfo(10, 1, "exts", livetime=0.004)
        (uid,) = RE(fly_together([eiger], info, stop_after_three))
    found = np.asarray(catalog[uid].primary.read()["eiger_image"])
    assert np.array_equal(found, right(dcu, 2, [[1], [2], [3]]))


def test_stop_without_success_fails_complete(RE, dcu, eiger):
    def stop_soon():
        threading.Timer(0.2, eiger.stop).start()
        yield from bps.null()

    info = TriggerInfo(10, 1, "exts", livetime=0.004)
    with pytest.raises(FailedStatus) as failed:
        RE(fly_together([eiger], info, stop_soon))
    assert "the fly scan was stopped before its end" in str(failed.value)
    assert eiger.detector.state.get() == "idle"
    assert RE.state == "idle"


def test_no_signal_comes(RE, dcu, tmp_path):
    timeouts = Timeouts(signal=0.5)
    eiger = EigerDetector(dcu.url, name="eiger", directory=tmp_path, timeouts=timeouts)
    try:
        eiger.detector.trigger_mode.set("exts").wait(10)
        eiger.stage().wait(10)
        with pytest.raises(SignalTimeoutError, match=r"within 0\.5 s .*trigger input"):
            eiger.trigger().wait(20)
        eiger.unstage().wait(20)
        assert eiger.detector.state.get() == "idle"
    finally:
        eiger.destroy()


def test_what_prepare_changed_is_put_back(dcu, eiger):
    before = {
        key: getattr(eiger.detector, key).get()
        for key in ("nimages", "ntrigger", "trigger_mode", "count_time", "frame_time")
    }
    eiger.stage().wait(10)
    eiger.prepare({"number_of_events": 3, "livetime": 0.001, "trigger": "exts"}).wait(10)
    assert eiger.detector.ntrigger.get() == 3
    assert eiger.detector.count_time.get() == pytest.approx(0.001)
    eiger.unstage().wait(10)
    assert {key: getattr(eiger.detector, key).get() for key in before} == pytest.approx(before)


def test_kickoff_before_stage_is_done_and_complete_before_kickoff(eiger):
    with pytest.raises(NotStagedError, match="kickoff comes first"):
        eiger.complete()
    with pytest.raises(NotStagedError, match="stage it first"):
        eiger.prepare(TriggerInfo(1)).wait(10)


def test_images_that_cannot_follow_each_other_so_fast(eiger):
    eiger.stage().wait(10)
    with pytest.raises(StateError, match="cannot follow each other"):
        eiger.prepare(TriggerInfo(2, livetime=0.1, deadtime=0.0)).wait(10)
    eiger.unstage().wait(10)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"number_of_events": 0}, "at least 1"),
        ({"number_of_events": 1, "trigger": "extg"}, "cannot describe yet"),
        ({"number_of_events": 1, "trigger": "inte"}, "with each point of a step scan"),
        ({"number_of_events": 1, "trigger": "exte", "livetime": 1.0}, "gates make the times"),
        ({"number_of_events": 1, "deadtime": 1.0}, "without livetime"),
        ({"number_of_events": 5, "armed_for": 4}, "armed for 4 points, 5"),
    ],
)
def test_trigger_info_that_makes_no_sense(eiger, words, said):
    with pytest.raises(ValueError, match=said):
        eiger.prepare(words)


def test_unstage_ends_a_fly_scan(dcu, eiger):
    eiger.stage().wait(10)
    eiger.prepare(TriggerInfo(5, 1, "exts")).wait(10)
    eiger.kickoff().wait(10)
    complete = eiger.complete()
    eiger.unstage().wait(20)
    assert complete.done
    assert eiger.detector.state.get() == "idle"


def test_complete_of_a_fly_scan_that_was_stopped(eiger):
    eiger.stage().wait(10)
    eiger.prepare(TriggerInfo(5, 1, "exts")).wait(10)
    eiger.kickoff().wait(10)
    eiger.stop().wait(10)
    with pytest.raises(StoppedError, match="stopped before its end"):
        eiger.complete().wait(10)
    eiger.unstage().wait(10)
    assert eiger.detector.state.get() == "idle"
