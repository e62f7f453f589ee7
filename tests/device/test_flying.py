"""Fly scans: several detectors together, clean ends, and what is refused."""

import contextlib
import queue
import threading
import time

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest
import requests
from bluesky.utils import FailedStatus
from catalogs import read_through_tiled, recorded
from signals_at_the_input import signals

import sim_dcu
from ophyd_eiger import EigerDetector, Timeouts, TriggerInfo, open_series
from ophyd_eiger.deliveries import Delivery
from ophyd_eiger.ending import Ending
from ophyd_eiger.errors import NotStagedError, SignalTimeoutError, StateError, StoppedError

# Of each test's cases the short run takes every 2nd, see conftest.
SHORT_RUN_EVERY = 2


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


def test_a_pulse_that_came_before_prepare_is_no_image_of_the_scan(RE, catalog, dcu, eiger):
    """What stage has armed for the very same scan took it, and would shift all images by one."""
    info = TriggerInfo(3, 1, "exts")
    eiger.configure({"trigger_mode": "exts", "nimages": 1, "ntrigger": 3})

    @bpp.stage_decorator([eiger])
    @bpp.run_decorator()
    def inner():
        assert dcu.pulse()
        yield from bps.prepare(eiger, info, wait=True)
        yield from bps.declare_stream(eiger, name="primary", collect=True)
        yield from bps.kickoff(eiger, wait=True)
        yield from bps.collect_while_completing([eiger], [eiger], 0.1, "primary")

    started = threading.Event()
    RE.msg_hook = lambda msg: started.set() if msg.command == "kickoff" else None

    def pulses():
        assert started.wait(20)
        with signals(dcu, most=3) as taken:
            while len(taken) < 3:
                started.wait(0.01)

    thread = threading.Thread(target=pulses, daemon=True)
    thread.start()
    (uid,) = RE(inner())
    thread.join(20)
    found = np.asarray(catalog[uid].primary.read()["eiger_image"])
    assert np.array_equal(found, right(dcu, 2, [[1], [2], [3]]))


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


@pytest.mark.parametrize("is_late", [True, False])
def test_stop_with_success_keeps_what_is_taken(RE, catalog, dcu, eiger, is_late):
    """Of a series that is ended early the DCU may list later files first."""
    eiger.filewriter.nimages_per_file.set(1).wait(10)
    if is_late:
        dcu.faults.set("file-late", file=1, seconds=1)
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
    assert eiger.owed == {}


@pytest.mark.long
@pytest.mark.parametrize("trigger", ["ints", "exts"])
def test_stop_with_success_waits_for_the_only_file(RE, catalog, slow, trigger):
    """Nothing is published when the series is ended early, and its file is listed late."""
    dcu, eiger = slow
    dcu.faults.set("file-late", file=1, seconds=1)

    def stop_soon():
        threading.Timer(1.2, lambda: eiger.stop(success=True)).start()
        yield from bps.null()

    pulses = signals(dcu) if trigger == "exts" else contextlib.nullcontext()
    with pulses:
        info = TriggerInfo(40, 2, trigger, livetime=0.09, deadtime=0.01)
        (uid,) = RE(fly_together([eiger], info, stop_soon))
    found = np.asarray(catalog[uid].primary.read()["eiger_image"])
    (file,) = (each for each in eiger.fetched if "data" in each.path.name)
    points = file.images // 2
    assert points > 0
    assert np.array_equal(found, right(dcu, 2, [[2 * n + 1, 2 * n + 2] for n in range(points)]))
    assert eiger.owed == {}


def test_no_trigger_is_sent_after_the_end_of_its_series(dcu, tmp_path, requests_sent):
    """The one before it is answered later than anybody waits for: who has the detector by then?"""
    device = EigerDetector(dcu.url, name="late", directory=tmp_path, timeouts=Timeouts(end=0.2))
    device.configure({"ntrigger": 2, "frame_time": 0.005, "count_time": 0.004})
    late = dcu.faults.set("late", command="trigger", seconds=60, times=1)
    device.stage().wait(20)
    device.kickoff().wait(20)
    waited = threading.Event()
    while not late.struck:
        assert not waited.wait(0.01)
    complete = device.complete()
    device.stop(success=True).wait(20)
    complete.wait(20)
    device.unstage().wait(20)
    # The answer comes now.
    dcu.faults.clear()
    device.destroy()
    for thread in threading.enumerate():
        if thread.name == "late trigger":
            thread.join(20)
    assert requests_sent().count("PUT detector command/trigger") == 1
    assert sum(file.images for file in device.fetched) == 1


def test_no_trigger_follows_the_command_that_ends_its_series(
    dcu, tmp_path, requests_sent, monkeypatch
):
    """Also where the disk keeps the note of it waiting until then."""
    device = EigerDetector(dcu.url, name="eiger", directory=tmp_path)
    device.configure({"ntrigger": 3, "frame_time": 0.005, "count_time": 0.004})
    note, ended = Delivery.note_begun, threading.Event()
    end_early = Ending.end_early

    def noted_late(delivery, images):
        note(delivery, images)
        if images == 2:
            device.stop(success=True)
            assert ended.wait(20)

    def ending(*about):
        end_early(*about)
        ended.set()

    monkeypatch.setattr(Delivery, "note_begun", noted_late)
    monkeypatch.setattr(Ending, "end_early", ending)
    device.stage().wait(20)
    device.kickoff().wait(20)
    device.complete().wait(20)
    device.unstage().wait(20)
    assert requests_sent().count("PUT detector command/trigger") == 1
    assert sum(file.images for file in device.fetched) == 1
    device.destroy()


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


def test_what_stage_has_armed_is_not_armed_again(RE, catalog, dcu, eiger):
    eiger.detector.nimages.set(6).wait(10)
    (uid,) = RE(fly_together([eiger], TriggerInfo(3, 2)))
    found = np.asarray(catalog[uid].primary.read()["eiger_image"])
    assert np.array_equal(found, right(dcu, 1, [[1, 2], [3, 4], [5, 6]]))


def test_what_was_put_since_stage_is_armed_anew(dcu, eiger):
    eiger.detector.nimages.set(2).wait(10)
    eiger.stage().wait(10)
    eiger.detector.omega_start.set(7.5).wait(10)
    eiger.prepare(TriggerInfo(2)).wait(10)
    eiger.kickoff().wait(10)
    eiger.complete().wait(20)
    eiger.unstage().wait(20)
    (master,) = [file.path for file in eiger.fetched if file.path.name.endswith("_master.h5")]
    assert master.name.endswith("_2_master.h5")
    assert open_series(master).metadata.omega[0] == 7.5


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
        ({"number_of_events": 2.0}, "2.0; it is a whole number"),
        ({"number_of_events": True}, "'True'; it is a whole number"),
        ({"number_of_events": None}, "None; it is a whole number"),
        ({"number_of_events": 1, "exposures_per_event": "3"}, "'3'; it is a whole number"),
        ({"number_of_events": 1, "livetime": "x"}, "'x'; it is a time"),
        ({"number_of_events": 1, "livetime": float("nan")}, "nan s; it is above 0"),
        ({"number_of_events": 1, "livetime": 1.0, "deadtime": -1.0}, "-1 s; it is at least 0"),
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


def test_numpys_numbers_are_numbers(dcu, eiger):
    info = TriggerInfo(np.int64(2), np.uint8(3), livetime=np.float32(0.5))
    assert info == TriggerInfo(2, 3, livetime=0.5)
    assert type(info.number_of_events) is int


@pytest.fixture
def slow(tmp_path, instant_settings):
    """A device on a DCU whose exposures take their time."""
    with sim_dcu.serve("eiger-500k", time_scale=1, seed=3, initialized=True) as dcu:
        eiger = EigerDetector(dcu.url, name="eiger", directory=tmp_path)
        eiger.configure({"frame_time": 0.1, "count_time": 0.09})
        yield dcu, eiger
        eiger.destroy()


@pytest.mark.parametrize("monitor", ["disabled", pytest.param("enabled", marks=pytest.mark.long)])
def test_a_series_of_one_command_ends_after_what_is_recorded(RE, catalog, slow, monitor):
    """Armed for 500 images, 50 s of them."""
    dcu, eiger = slow
    eiger.monitor.mode.set(monitor).wait(10)
    info = TriggerInfo(5, 1, livetime=0.09, deadtime=0.01, armed_for=500)
    (uid,) = RE(fly_together([eiger], info))
    found = np.asarray(catalog[uid].primary.read()["eiger_image"])
    assert np.array_equal(found, right(dcu, 2, [[1], [2], [3], [4], [5]]))
    assert eiger.detector.state.get() == "idle"
    (delivery,) = eiger._acquisition.deliveries
    assert delivery.images_home < 100


@pytest.mark.long
@pytest.mark.parametrize(("nimages", "ntrigger"), [(6, 1), (1, 6)])
def test_images_that_begin_after_a_delay(
    RE, catalog, tmp_path, instant_settings, nimages, ntrigger
):
    """None is taken to be there before it can be, and no trigger's reply to be overdue."""
    with sim_dcu.serve("eiger2-500k", time_scale=1, seed=3, initialized=True) as dcu:
        eiger = EigerDetector(
            dcu.url, name="e", directory=tmp_path, timeouts=Timeouts(trigger_margin=0.6, files=5)
        )
        delay = 1.5
        eiger.configure({"frame_time": 0.1, "count_time": 0.09})
        eiger.detector.trigger_start_delay.set(delay).wait(10)
        info = TriggerInfo(2, livetime=0.09, deadtime=0.01, armed_for=30)
        (uid,) = RE(fly_together([eiger], info))
        images = np.asarray(catalog[uid].primary.read()["e_image"])
        assert np.array_equal(images, right(dcu, 2, [[1], [2]]))
        eiger.configure({"nimages": nimages, "ntrigger": ntrigger})
        began = time.monotonic()
        (uid,) = RE(bp.count([eiger], ntrigger))
        assert time.monotonic() - began > delay * ntrigger
        assert len(catalog[uid].primary.read()["e_image"]) == ntrigger
        # At the prompt too.
        eiger.detector.arm.set(1).wait(10)
        eiger.detector.soft_trigger.set(1).wait(10)
        eiger.detector.disarm.set(1).wait(10)
        eiger.destroy()


@pytest.mark.parametrize("command", ["disarm", pytest.param("abort", marks=pytest.mark.long)])
def test_somebody_else_ends_the_series(RE, slow, tmp_path, command):
    """No event names an image that was never taken."""
    dcu, eiger = slow
    other = EigerDetector(eiger.address, name="other")
    # What was taken is known when the files are home; events are collected meanwhile.
    dcu.faults.set("late", seconds=1, path="GET data/*", times=1)

    def end_it():
        yield from bps.sleep(0.3)
        other.detector[f"command/{command}"].set(1).wait(20)

    events = []
    RE.subscribe(lambda name, doc: name.startswith("event") and events.append(doc))
    with pytest.raises(FailedStatus) as failed:
        RE(fly_together([eiger], TriggerInfo(20, livetime=0.09, deadtime=0.01), end_it))
    assert "was ended before its time, by somebody else" in str(failed.value)
    # Those that were taken may be collected before it is known that it was ended, or not.
    named = [number for page in events for number in page["seq_num"]]
    images = len(open_series(tmp_path)) if any(tmp_path.glob("*_data_*.h5")) else 0
    assert named in ([], list(range(1, images + 1))), images
    other.destroy()
    RE(fly_together([eiger], TriggerInfo(2, livetime=0.09)))
    assert events


def test_a_fly_scan_that_is_ended_keeps_its_finished_images_on_a_detector_known_to_keep_time(
    RE, slow
):
    """How long series took before tells of a step scan that was ended; here files count."""
    _, eiger = slow
    eiger.configure({"nimages": 12, "filewriter.nimages_per_file": 1})
    RE(bp.count([eiger]))
    other = EigerDetector(eiger.address, name="other")

    def end_it():
        while not any("_3_data_000003" in name for name in other.link.client.files()):
            yield from bps.sleep(0.05)
        other.detector.disarm.set(1).wait(20)

    with pytest.raises(FailedStatus, match=r"somebody.*: ([3-9]|1\d) of 20 points were taken"):
        RE(fly_together([eiger], TriggerInfo(20, livetime=0.09, deadtime=0.01), end_it))
    other.destroy()


def test_settings_changed_since_prepare(dcu, eiger):
    eiger.stage().wait(10)
    eiger.prepare(TriggerInfo(3, livetime=0.05, trigger="exts")).wait(10)
    eiger.detector.nimages.set(2).wait(10)
    with pytest.raises(StateError, match="nimages was set to 2 since prepare, which set it to 1"):
        eiger.kickoff().wait(10)
    eiger.prepare(TriggerInfo(3, livetime=0.05, trigger="exts")).wait(10)
    eiger.kickoff().wait(10)
    eiger.unstage().wait(20)
    assert eiger.detector.state.get() == "idle"


def test_kickoff_after_a_prepare_that_failed_tells_why(dcu, eiger):
    eiger.stage().wait(10)
    eiger.prepare(TriggerInfo(2, trigger="exts")).wait(10)
    with pytest.raises(StateError, match="cannot follow each other"):
        eiger.prepare(TriggerInfo(3, livetime=0.1, deadtime=0.0)).wait(10)
    with pytest.raises(StateError, match="cannot follow each other"):
        eiger.kickoff().wait(10)
    eiger.unstage().wait(20)
    assert eiger.detector.state.get() == "idle"


def test_points_that_nobody_collected(eiger):
    eiger.detector.nimages.set(2).wait(10)
    eiger.stage().wait(10)
    eiger.kickoff().wait(10)
    eiger.complete().wait(20)
    with pytest.raises(StateError, match="has 1 points that are in no document yet; collect them"):
        eiger.kickoff()
    eiger.unstage().wait(20)


@pytest.mark.parametrize("fault", ["hang", "refuse"])
def test_a_disarm_that_fails_is_tried_again(dcu, tmp_path, fault):
    timeouts = Timeouts(end=1)
    eiger = EigerDetector(dcu.url, name="eiger", directory=tmp_path, timeouts=timeouts)
    try:
        eiger.stage().wait(20)
        dcu.faults.set(fault, command="disarm", times=1)
        with pytest.raises(Exception, match="command/disarm"):
            eiger.prepare(TriggerInfo(2, livetime=0.01)).wait(20)
        eiger.unstage().wait(20)
        assert eiger.detector.state.get() == "idle"
        assert not eiger.filewriter.name_pattern.get().startswith("eiger_")
        eiger.stage().wait(20)
        eiger.unstage().wait(20)
    finally:
        eiger.destroy()


def test_why_it_failed_is_what_the_plan_says(RE, dcu, eiger):
    """And not what could not be put back because of it; what could be is."""
    before = eiger.filewriter.name_pattern.get()
    dcu.faults.set("error", image=2)
    with pytest.raises(FailedStatus) as failed:
        RE(fly_together([eiger], TriggerInfo(5, livetime=0.004)))
    assert "error on request" in str(failed.value)
    assert eiger.filewriter.name_pattern.get() == before


def test_bp_fly_with_live_numbers(RE, dcu, eiger):
    eiger.live.enabled = True
    eiger.detector.ntrigger.set(5).wait(10)
    for _ in range(5):
        RE(bp.fly([eiger]))


def test_bp_fly_declares_no_stream(RE, dcu, tmp_path):
    eiger = EigerDetector(dcu.url, name="eiger", directory=tmp_path, documents="stream")
    try:
        with pytest.raises(NotStagedError, match=r"bp\.fly does not do: use stage, prepare, decl"):
            RE(bp.fly([eiger]))
        assert eiger.filewriter.name_pattern.get() == "series_$id"
    finally:
        eiger.destroy()


def leave_images_in_the_monitor(dcu, eiger):
    """Have it hold three of a series 1, whose id the next one gets: `initialize` counts anew."""
    eiger.configure({"monitor.mode": "enabled", "nimages": 3, "frame_time": 0.005})
    eiger.stage().wait(20)
    eiger.trigger().wait(20)
    eiger.unstage().wait(20)
    requests.put(f"{dcu.url}/detector/api/1.6.0/command/initialize", timeout=20)
    eiger.refresh()


def test_images_that_the_monitor_kept_are_not_taken_for_new_ones(dcu, tmp_path, caplog):
    timeouts = Timeouts(signal=0.5)
    eiger = EigerDetector(dcu.url, name="eiger", directory=tmp_path, timeouts=timeouts)
    try:
        leave_images_in_the_monitor(dcu, eiger)
        eiger.configure({"trigger_mode": "exts", "nimages": 1, "ntrigger": 3})
        eiger.stage().wait(20)
        assert "holds images of an older series 1" in caplog.text
        with pytest.raises(SignalTimeoutError):
            eiger.trigger().wait(20)
        eiger.unstage().wait(20)
    finally:
        eiger.destroy()


def test_a_series_that_becomes_a_fly_scan_does_not_go_by_what_the_monitor_kept(
    slow, tmp_path, caplog
):
    dcu, _ = slow
    eiger = EigerDetector(dcu.url, name="eiger", directory=tmp_path, documents="stream")
    try:
        leave_images_in_the_monitor(dcu, eiger)
        eiger.configure({"nimages": 4, "frame_time": 100.0})
        eiger.stage().wait(20)
        assert "older series" not in caplog.text
        eiger.prepare(TriggerInfo(4)).wait(20)
        assert "holds images of an older series 1" in caplog.text
        eiger.kickoff().wait(20)
        done = eiger.complete()
        told = queue.SimpleQueue()
        done.watch(lambda **kwargs: told.put(kwargs["current"]))
        # The monitor shows three, of the other one; a few answers are looked at.
        assert max(told.get(timeout=20) for _ in range(5)) < 1
        assert eiger.get_index() == 0
        eiger.unstage().wait(20)
    finally:
        eiger.destroy()


def test_a_pause_ends_a_fly_scan_that_staged_itself(RE, slow):
    _, eiger = slow
    eiger.detector.nimages.set(200).wait(10)
    before = eiger.filewriter.name_pattern.get()
    threading.Timer(1.0, RE.request_pause).start()
    with contextlib.suppress(Exception):
        RE(bp.fly([eiger]))
    if RE.state != "idle":
        RE.abort()
    eiger.unstage().wait(20)
    assert eiger.detector.state.get() == "idle"
    assert eiger.filewriter.name_pattern.get() == before
