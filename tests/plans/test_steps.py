"""The steps that plans are made of, where Ctrl-C comes between: done once, and done with.

Expected values are those that plain Python has without a pause.
"""

import asyncio
import sys
import threading
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import numpy as np
import pytest
from bluesky.simulators import summarize_plan
from bluesky.utils import RunEngineInterrupted
from eiger_plans import armed_once, update_pixel_mask
from eiger_plans.calibrating import kept, put_array
from eiger_plans.steps import PlanError, aside, in_thread, moved_back, put_back, tidied
from ophyd import Signal

from ophyd_eiger.arrays import encode
from ophyd_eiger.worker import EigerStatus
from sim_dcu.beam import Beam


class Call:
    """Something that takes until it may end, and has a hard pause asked for when it begins."""

    def __init__(self, engine):
        self.engine = engine
        self.begun = 0
        self.ended = 0
        self.may_end = threading.Event()

    def __call__(self, result="result"):
        self.begun += 1
        if self.begun == 1:
            self.engine.request_pause()
        assert self.may_end.wait(20)
        self.ended += 1
        return result


def paused(engine, plan):
    with pytest.raises(RunEngineInterrupted):
        engine(plan)
    assert engine.state == "paused"


def test_a_pause_has_it_called_once_and_its_result_told(engine):
    call, told = Call(engine), []

    def plan():
        yield from bps.checkpoint()
        told.append((yield from aside(call, "a value")))

    paused(engine, plan())
    call.may_end.set()
    engine.resume()
    assert told == ["a value"]
    assert (call.begun, call.ended) == (1, 1)


def test_what_fails_over_a_pause_fails_the_plan(engine):
    call = Call(engine)

    def fails():
        call()
        raise ValueError("no light")

    paused(engine, tidied(aside(fails), bps.null))
    call.may_end.set()
    with pytest.raises(ValueError, match="no light"):
        engine.resume()


def test_a_plan_that_is_ended_waits_for_its_call_and_has_it_stop(engine):
    call, seen = Call(engine), []

    def cleaned_up():
        seen.append(call.ended)
        yield from bps.null()

    paused(engine, tidied(in_thread(call, stop=call.may_end.set), cleaned_up))
    engine.abort()
    assert seen == [1]
    assert call.begun == 1


def test_a_call_that_changes_nothing_may_be_left(engine):
    call = Call(engine)
    paused(engine, in_thread(call, is_left=True))
    engine.abort()
    assert (call.begun, call.ended) == (1, 0)
    call.may_end.set()


def test_nothing_is_called_where_messages_are_listed(capsys):
    told = []

    def plan():
        told.append((yield from aside(pytest.fail)))

    summarize_plan(plan())
    assert told == [None]


@pytest.mark.parametrize("pause", [False, True])
def test_an_old_mask_is_kept_once(engine, eiger, tmp_path, monkeypatch, pause):
    mask = eiger.detector.pixel_mask
    old = mask.get().copy()
    new = old.copy()
    new[10, 10] |= 2
    call = Call(engine)
    if not pause:
        call.begun = 1
        call.may_end.set()
    get = mask.get
    monkeypatch.setattr(mask, "get", lambda: call(get()))

    def plan():
        yield from bps.checkpoint()
        return (yield from put_array(eiger, "pixel_mask", new, tmp_path / "kept"))

    if pause:
        paused(engine, plan())
        monkeypatch.undo()
        call.may_end.set()
        path = engine.resume().plan_result
    else:
        path = engine(plan()).plan_result
        monkeypatch.undo()
    assert list((tmp_path / "kept").iterdir()) == [path]
    assert np.array_equal(np.load(path), old)
    assert np.array_equal(mask.get(), new)


def test_no_mask_is_put_if_a_look_is_missing(engine, dcu, eiger, monkeypatch):
    def dark_series(*_, **__):
        yield from bps.null()

    monkeypatch.setattr(sys.modules["eiger_plans.pixel_mask"], "dark_series", dark_series)
    dcu.set_beam(Beam("flat", 1000.0))
    shutter: Any = Signal(name="shutter", value="close")
    before = eiger.detector.pixel_mask.get().copy()
    with pytest.raises(PlanError, match="look='both' was asked for, but there is no dark series"):
        engine(update_pixel_mask(eiger, shutter=shutter, images=3, picture=False))
    assert np.array_equal(eiger.detector.pixel_mask.get(), before)


# ---- settings put back ----


def test_a_put_that_was_under_way_when_the_plan_was_ended_is_undone(engine, eiger, monkeypatch):
    images = eiger.detector.nimages
    before = images.get()
    client, taken = eiger.link.client, threading.Event()
    put = client.put

    def slow(subsystem, resource, value):
        if value == before + 5:
            engine.request_pause()
            assert taken.wait(20)
        return put(subsystem, resource, value)

    monkeypatch.setattr(client, "put", slow)

    def changes():
        # It goes on once the plan is ended, as one that takes seconds would.
        try:
            yield from bps.mv(images, before + 5)
        finally:
            taken.set()

    paused(engine, put_back(changes(), images))
    engine.abort()
    assert images.get() == before


def test_each_setting_is_put_back_whatever_becomes_of_the_others(engine, dcu, eiger):
    detector = eiger.detector
    signals = (detector.trigger_mode, detector.nimages, detector.ntrigger)
    before = [signal.get() for signal in signals]

    def changes():
        yield from bps.mv(detector.trigger_mode, "exts", detector.nimages, 3, detector.ntrigger, 4)
        dcu.faults.set("refuse:path=PUT */config/nimages")

    with pytest.raises(PlanError, match=f"not put back: eiger_detector_nimages to {before[1]};"):
        engine(put_back(changes(), *signals))
    assert [signal.get() for signal in signals] == [before[0], 3, before[2]]


@pytest.mark.parametrize("ends", ["abort", "stop"])
@pytest.mark.parametrize("number", range(2))
def test_an_end_while_settings_are_put_back(engine, eiger, monkeypatch, ends, number):
    detector = eiger.detector
    signals = (detector.trigger_mode, detector.nimages, detector.ntrigger)
    before = [signal.get() for signal in signals]
    client = eiger.link.client
    put = client.put

    def ended(subsystem, resource, value):
        if (resource, value) == (f"config/{signals[number].attr_name}", before[number]):
            # In the detector's thread, while the plan waits for this put.
            getattr(engine, ends)()
        return put(subsystem, resource, value)

    def changes():
        yield from bps.mv(detector.trigger_mode, "exts", detector.nimages, 3, detector.ntrigger, 4)
        monkeypatch.setattr(client, "put", ended)

    with pytest.raises(RunEngineInterrupted):
        engine(put_back(changes(), *signals))
    assert [signal.get() for signal in signals] == before


def test_a_step_that_is_ended_is_begun_again_and_those_after_it_are_done(engine):
    """And the plan is ended all the same."""
    done = []

    def ends():
        done.append("ends")
        if len(done) == 1:
            yield from bps.wait_for([stopping])
        yield from bps.null()

    async def stopping():
        await asyncio.to_thread(engine.stop)

    def after():
        done.append("after")
        yield from bps.null()

    with pytest.raises(RunEngineInterrupted):
        engine(tidied(bps.null(), ends, after))
    assert done == ["ends", "ends", "after"]


def test_a_halt_tells_what_is_not_put_back(engine, eiger, caplog):
    images = eiger.detector.nimages
    before = images.get()

    def changes():
        yield from bps.checkpoint()
        yield from bps.mv(images, before + 5)
        yield from bps.pause()

    paused(engine, put_back(changes(), images))
    engine.halt()
    told = f"halted, so not put back: eiger_detector_nimages to {before}"
    assert told in [record.getMessage() for record in caplog.records]
    assert images.get() == before + 5


def test_a_halt_tells_how_many_triggers_are_not_put_back(engine, eiger, caplog):
    before = eiger.detector.ntrigger.get()

    def per_shot(detectors):
        yield from bps.trigger_and_read(detectors)
        yield from bps.checkpoint()
        yield from bps.pause()

    paused(engine, armed_once(eiger)(bp.count([eiger], before + 3, per_shot=per_shot)))
    engine.halt()
    told = f"halted, so not put back: eiger_detector_ntrigger to {before}"
    assert told in [record.getMessage() for record in caplog.records]
    assert eiger.detector.ntrigger.get() == before + 3
    eiger.unstage()


def test_a_plan_that_is_closed_before_it_moved_anything_tells_nothing(eiger, caplog):
    triggers = eiger.triggers_per_point
    plan = moved_back(bps.mv(triggers, 7), (triggers, triggers.get()))
    next(plan)
    plan.close()
    assert "halted" not in caplog.text


def test_what_is_not_the_dcus_is_moved_back_and_told_at_a_halt(engine, eiger, caplog):
    triggers = eiger.triggers_per_point

    def changes(*, pauses):
        yield from bps.checkpoint()
        yield from bps.mv(triggers, 7)
        if pauses:
            yield from bps.pause()

    engine(moved_back(changes(pauses=False), (triggers, 2)))
    assert triggers.get() == 2
    paused(engine, moved_back(changes(pauses=True), (triggers, 2)))
    engine.halt()
    told = "halted, so not put back: eiger_triggers_per_point to 2"
    assert told in [record.getMessage() for record in caplog.records]
    assert triggers.get() == 7


def test_a_failure_from_before_keeps_nothing_from_being_put_back(engine, eiger):
    images = eiger.detector.nimages
    before = images.get()

    def changes():
        yield from bps.mv(images, 7)
        eiger.link.worker.fail(EigerStatus("a verb"), PlanError("from before"))

    engine(put_back(changes(), images))
    assert images.get() == before


def test_a_correction_that_is_off_is_told(engine, eiger, caplog):
    eiger.detector.flatfield_correction_applied.set(False).wait(10)
    engine(kept(eiger, ["nimages"], bps.null()))
    told = [record.getMessage() for record in caplog.records if "is off" in record.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("eiger_detector_flatfield_correction_applied is off")


@pytest.mark.parametrize("fails", ["once", "always"])
def test_an_array_that_is_not_taken_is_followed_by_the_old_one(
    engine, dcu, eiger, tmp_path, monkeypatch, fails
):
    mask = eiger.detector.pixel_mask
    old = mask.get().copy()
    first, second = (old.copy() for _ in range(2))
    first[10, 10] ^= 2
    second[20, 20] ^= 2
    put, sent = eiger.link.client.put_bytes, []

    def spoiled(subsystem, resource, body, **kwargs):
        """Put another array than is asked for, as a DCU would that does not take all of it."""
        sent.append(body)
        if len(sent) == 1 or fails == "always":
            body = encode(first, kwargs["content_type"])
        return put(subsystem, resource, body, **kwargs)

    monkeypatch.setattr(eiger.link.client, "put_bytes", spoiled)
    has = "the old one" if fails == "once" else "neither the old one nor the new one"
    with pytest.raises(PlanError, match=f"The detector has {has}") as caught:
        engine(put_array(eiger, "pixel_mask", second, tmp_path / "kept"))
    assert len(sent) == 2
    (path,) = (tmp_path / "kept").iterdir()
    assert str(path) in str(caught.value)
    assert np.array_equal(np.load(path), old)
    assert np.array_equal(mask.get(), old if fails == "once" else first)
