"""Each verb returns at once, does its work in order, and says what is wrong."""

import logging
import os
import threading

import bluesky.plans as bp
import numpy as np
import pytest
import requests
from ophyd.utils.errors import RedundantStaging

import sim_dcu
from ophyd_eiger import EigerDetector, Timeouts, open_series
from ophyd_eiger.client import DcuClient
from ophyd_eiger.errors import (
    DcuError,
    DcuTimeoutError,
    EigerError,
    NotServedError,
    NotStagedError,
    PromiseError,
    RefusedError,
    ReplyError,
    StateError,
    StoppedError,
    TransferError,
)


@pytest.fixture
def slow(tmp_path, instant_puts):
    """A detector whose exposures take a minute, and arming its own time."""
    with sim_dcu.serve(model="eiger-500k", time_scale=1, seed=5, initialized=True) as dcu:
        device = EigerDetector(dcu.url, name="eiger", directory=tmp_path)
        device.connect()
        device.detector.frame_time.set(60).wait(10)
        device.detector.nimages.set(1).wait(10)
        yield device
        device.destroy()


def wait_for_state(device, wanted, seconds=30.0):
    """Wait until the detector is in a state, by asking it."""
    deadline = threading.Event()
    timer = threading.Timer(seconds, deadline.set)
    timer.start()
    try:
        while device.detector.state.get() != wanted:
            assert not deadline.wait(0.01), f"not {wanted!r} within {seconds} s"
    finally:
        timer.cancel()


def test_verbs_return_at_once(slow):
    staged = slow.stage()
    triggered = slow.trigger()
    unstaged = slow.unstage()
    # The arming alone takes longer than all three calls.
    assert not staged.done
    assert not triggered.done
    unstaged.wait(30)
    assert staged.success
    assert slow.detector.state.get() == "idle"


def test_trigger_again_takes_the_point_again(dcu, eiger):
    eiger.detector.frame_time.set(0.02).wait(10)
    eiger.stage()
    first, second = eiger.trigger(), eiger.trigger()
    second.wait(20)
    # The first was overtaken before or while it was exposed: either way it is over, and quietly.
    first.wait(0)
    series_id = eiger.read()["eiger_series_id"]["value"]
    eiger.unstage().wait(20)
    assert series_id in (1, 2)
    masters = {file.path.name.split("_")[2] for file in eiger.fetched}
    assert str(series_id) in masters


def test_trigger_while_one_runs_ends_it_first(slow):
    slow.stage().wait(30)
    first = slow.trigger()
    wait_for_state(slow, "acquire")
    second = slow.trigger()
    first.wait(30)
    wait_for_state(slow, "acquire")
    assert not second.done
    # A new series: the images of the first exposure belong to no event.
    assert slow.detector.arm.get() == 2
    slow.unstage().wait(30)
    assert slow.detector.state.get() == "idle"


def test_unstage_ends_a_running_exposure(slow):
    slow.stage().wait(30)
    triggered = slow.trigger()
    wait_for_state(slow, "acquire")
    slow.unstage().wait(30)
    assert triggered.done
    assert slow.detector.state.get() == "idle"


def test_stop_ends_the_exposure_and_its_trigger_fails(slow):
    slow.stage().wait(30)
    triggered = slow.trigger()
    wait_for_state(slow, "acquire")
    slow.stop().wait(30)
    with pytest.raises(StoppedError, match="stopped before its end"):
        triggered.wait(30)
    assert slow.detector.state.get() == "idle"
    slow.unstage().wait(30)


def test_abort_by_hand_fails_the_trigger(slow):
    slow.stage().wait(30)
    triggered = slow.trigger()
    wait_for_state(slow, "acquire")
    slow.detector.abort.set(1).wait(30)
    with pytest.raises(StoppedError):
        triggered.wait(30)
    slow.unstage().wait(30)
    assert slow.detector.state.get() == "idle"


def test_set_comes_after_a_running_exposure(eiger):
    eiger.stage()
    triggered = eiger.trigger()
    set_ = eiger.detector.count_time.set(0.002)
    set_.wait(20)
    assert triggered.done
    eiger.unstage().wait(20)


def test_trigger_without_stage(eiger):
    with pytest.raises(NotStagedError, match="not staged"):
        eiger.trigger().wait(10)


def test_staged_twice(eiger):
    eiger.stage().wait(10)
    with pytest.raises(RedundantStaging):
        eiger.stage()
    eiger.unstage().wait(10)


def test_read_before_trigger_is_done(slow):
    slow.stage().wait(30)
    with pytest.raises(NotStagedError, match="no images were taken"):
        slow.read()
    slow.trigger()
    with pytest.raises(NotStagedError, match="wait for trigger's Status"):
        slow.read()
    slow.unstage().wait(30)


def test_describe_before_stage_is_done(slow):
    with pytest.raises(NotStagedError, match="known when stage is done"):
        slow.describe()
    status = slow.stage()
    with pytest.raises(NotStagedError):
        slow.describe()
    status.wait(30)
    assert slow.describe()["eiger_image"]["shape"] == [1, 514, 1030]
    slow.unstage().wait(30)


def test_not_initialized(tmp_path):
    with sim_dcu.serve(model="eiger-500k", time_scale=0) as dcu:
        device = EigerDetector(dcu.url, name="eiger", directory=tmp_path)
        with pytest.raises(StateError, match=r"'na', not 'idle'.*eiger\.initialize\(\)"):
            device.stage().wait(10)
        assert device.detector.state.get() == "na"
        with pytest.raises(NotServedError, match="before it is initialized a DCU has no config"):
            device.detector.count_time.set(0.1).wait(10)
        # A stage that failed leaves nothing behind: it can be tried again at once.
        device.initialize()
        with pytest.raises(NotServedError, match="does not serve") as not_an_eigers:
            device.detector.threshold_2_mode.get()
        assert "initialized" not in str(not_an_eigers.value)
        device.stage().wait(10)
        device.unstage().wait(10)
        device.destroy()


def test_armed_by_somebody_else(dcu, eiger):
    eiger.detector.arm.set(1).wait(10)
    with pytest.raises(StateError, match=r"somebody armed it.*disarm\.set"):
        eiger.stage().wait(10)
    assert eiger.detector.state.get() == "ready"
    eiger.detector.disarm.set(1).wait(10)


def set_what_cannot_be_armed(eiger):
    """An EIGER1 takes it and exposes one image a trigger all the same; an EIGER2 refuses it."""
    eiger.detector.trigger_mode.set("inte").wait(10)
    eiger.detector.nimages.set(2).wait(10)


def test_more_images_than_the_trigger_mode_takes(eiger):
    set_what_cannot_be_armed(eiger)
    with pytest.raises(StateError, match="in trigger_mode 'inte' a trigger takes one image"):
        eiger.stage().wait(10)
    assert eiger.detector.state.get() == "idle"


@pytest.mark.parametrize("mode", ["eies", "extg"])
def test_trigger_modes_that_documents_cannot_describe(tmp_path, mode):
    with sim_dcu.serve("eiger2-500k", initialized=True) as dcu:
        device = EigerDetector(dcu.url, name="eiger", directory=tmp_path)
        device.detector.trigger_mode.set(mode).wait(10)
        with pytest.raises(StateError, match=f"'{mode}', whose images .* cannot describe yet"):
            device.stage().wait(10)
        assert device.detector.state.get() == "idle"
        device.destroy()


def test_two_thresholds_are_refused_before_arming(tmp_path):
    with sim_dcu.serve("eiger2-500k", initialized=True) as dcu:
        device = EigerDetector(dcu.url, name="eiger", directory=tmp_path)
        device.detector["config/threshold/2/mode"].set("enabled").wait(10)
        with pytest.raises(StateError, match=r"threshold/1/mode, threshold/2/mode are 'enabled'"):
            device.stage().wait(10)
        assert dcu.dcu.detector.series.series_id == 0
        device.destroy()


def test_a_series_that_is_no_whole_number_of_points(eiger):
    eiger.triggers_per_point.set(3).wait(10)
    eiger.detector.ntrigger.set(4).wait(10)
    with pytest.raises(StateError, match="ntrigger is 4, but a point takes 3 triggers"):
        eiger.stage().wait(10)


def test_stage_that_failed_fails_the_trigger_with_its_error(eiger, caplog):
    set_what_cannot_be_armed(eiger)
    # As a parent device does it: the Status is dropped.
    eiger.stage()
    with pytest.raises(StateError, match="a trigger takes one image"):
        eiger.trigger().wait(10)
    told = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(told) == 1
    assert "nobody waits for it" in told[0].getMessage()
    eiger.unstage().wait(10)


def test_a_failure_nobody_waited_for_is_raised_by_the_next_verb(dcu, eiger):
    # The limits are the detector's; a value that passes them may be refused all the same.
    eiger.detector.arm.set(1).wait(10)
    done = threading.Event()
    eiger.filewriter["config/no_such_key"].set(1)
    eiger.link.worker.submit(done.set, type(eiger.detector.disarm.set(1))("marker"))
    assert done.wait(10)
    with pytest.raises(RefusedError, match="no_such_key"):
        eiger.detector.count_time.set(0.001)
    eiger.detector.count_time.set(0.001).wait(10)


def test_bit_depth_that_changes_in_a_run(eiger):
    eiger.stage().wait(10)
    assert eiger.describe()["eiger_image"]["dtype_numpy"] == "<u2"
    eiger.detector.frame_time.set(0.05).wait(10)
    eiger.detector.count_time.set(0.04).wait(10)
    with pytest.raises(PromiseError, match=r"uint32, but the run was told .*uint16"):
        eiger.trigger().wait(10)
    eiger.unstage().wait(10)
    assert eiger.detector.state.get() == "idle"


def test_folder_that_cannot_be_written(eiger, tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    eiger.directory = blocker / "data"
    with pytest.raises(TransferError, match=r"no files can be written there"):
        eiger.stage().wait(10)
    assert eiger.detector.state.get() == "idle"


def test_names_that_the_disk_does_not_take_are_refused_before_arm(
    RE, eiger, assert_right, requests_sent, tmp_path
):
    """Those that files have on their way are longer than their own."""
    added = "._12345678_4294967295_data_000001.h5.123456789012.part"
    longest = os.pathconf(tmp_path, "PC_NAME_MAX") - len(added)
    requests_sent.clear()
    eiger.file_prefix = "e" * (longest + 1)
    with pytest.raises(TransferError, match=r"too long\); give another directory= or prefix="):
        eiger.stage().wait(10)
    assert [sent for sent in requests_sent() if sent.startswith("PUT")] == []
    assert list((tmp_path / "data").iterdir()) == []
    eiger.file_prefix = "e" * longest
    (uid,) = RE(bp.count([eiger]))
    assert_right(uid, points=1, images=1)


@pytest.fixture
def impatient(dcu, tmp_path):
    """A device that waits for no arm that takes long."""
    device = EigerDetector(
        dcu.url, name="eiger", directory=tmp_path, timeouts=Timeouts(arm=0.5, end=0.5)
    )
    device.connect()
    yield device
    device.destroy()


def leave_armed(dcu, device, verb):
    """Let a verb's arm be carried out and not answered in time, and then its disarm neither."""
    dcu.faults.set("late", command="arm", seconds=1)
    dcu.faults.set("hang", command="disarm")
    with pytest.raises(DcuTimeoutError, match="it may be armed, and cannot be disarmed"):
        verb().wait(20)
    dcu.faults.clear()
    assert device.detector.state.get() == "ready"


@pytest.fixture
def left_armed(dcu, impatient):
    leave_armed(dcu, impatient, impatient.stage)
    return impatient


@pytest.fixture
def other(dcu):
    """Another client."""
    client = DcuClient(dcu.url)
    yield client
    client.close()


def test_an_arm_that_may_have_been_is_disarmed_as_soon_as_that_can_be_done(left_armed):
    left_armed.unstage().wait(20)
    assert left_armed.detector.state.get() == "idle"
    # Once: what another arms afterwards is left alone.
    left_armed.detector.arm.set(1).wait(20)
    left_armed.unstage().wait(20)
    assert left_armed.detector.state.get() == "ready"


@pytest.mark.parametrize("pattern", ["theirs_$id", "eiger_1a2b3c4d_$id"])
def test_what_another_armed_since_arm_failed_is_not_disarmed(left_armed, other, pattern):
    """Hours later: the scan is refused, and its end must not end the other client's series."""
    other.command("detector", "disarm", timeout=20)
    other.put("filewriter", "config/name_pattern", pattern)
    other.command("detector", "arm", timeout=20)
    with pytest.raises(StateError, match="somebody armed it"):
        left_armed.stage().wait(20)
    left_armed.unstage().wait(20)
    assert other.get("detector", "status/state")["value"] == "ready"
    assert other.get("filewriter", "config/name_pattern")["value"] == pattern


def test_one_that_was_seen_idle_since_arm_failed_is_not_disarmed(left_armed, other):
    other.command("detector", "disarm", timeout=20)
    left_armed.unstage().wait(20)
    other.command("detector", "arm", timeout=20)
    left_armed.unstage().wait(20)
    assert other.get("detector", "status/state")["value"] == "ready"


def test_an_arm_that_was_carried_out_late_is_not_in_the_way_of_the_next_point(dcu, impatient):
    impatient.stage().wait(20)
    impatient.trigger().wait(20)
    leave_armed(dcu, impatient, impatient.trigger)
    impatient.trigger().wait(20)
    impatient.unstage().wait(20)
    assert [file.images for file in impatient.fetched if "_data_" in file.path.name] == [1, 1]


def test_an_arm_that_was_carried_out_late_is_not_in_the_way_of_the_next_scan(left_armed):
    left_armed.stage().wait(20)
    left_armed.trigger().wait(20)
    left_armed.unstage().wait(20)
    assert [file.images for file in left_armed.fetched if "_data_" in file.path.name] == [1]


def test_a_state_from_before_the_disarm_is_not_what_idle_is_called(dcu, tmp_path):
    """The question after the command fails, so that nothing is learned of it."""
    version = f"{dcu.url}/detector/api/1.6.0"
    requests.put(f"{version}/command/arm", timeout=20).raise_for_status()
    device = EigerDetector(dcu.url, name="eiger", directory=tmp_path, timeouts=Timeouts(get=0.5))
    device.connect()
    dcu.faults.set("drop", path="GET detector/*/status/state", times=2)
    device.detector.disarm.set(1).wait(20)
    dcu.faults.clear()
    requests.put(f"{version}/command/arm", timeout=20).raise_for_status()
    with pytest.raises(StateError, match="somebody armed it"):
        device.stage().wait(20)
    assert device.detector.state.get() == "ready"
    device.destroy()


@pytest.fixture
def trigger_hangs(dcu, tmp_path):
    """A device whose trigger of a minute was never answered, and whose series could not be ended.

    As where the DCU was without power for a moment.
    """
    device = EigerDetector(dcu.url, name="eiger", directory=tmp_path, timeouts=Timeouts(files=2))
    device.configure({"frame_time": 60, "count_time": 59})
    hangs = dcu.faults.set("hang", command="trigger", times=1)
    for command in ("abort", "disarm"):
        dcu.faults.set("refuse", command=command, status=503)
    device.stage().wait(20)
    trigger, waited = device.trigger(), threading.Event()
    while not hangs.struck:
        assert not waited.wait(0.01)
    device.unstage().wait(20)
    with pytest.raises(RefusedError, match="command/abort"):
        trigger.wait(20)
    yield device
    # That cuts its connection.
    dcu.faults.clear()
    device.destroy()


def test_the_next_trigger_does_not_wait_for_the_reply_of_one_before(dcu, trigger_hangs):
    dcu.faults.clear("refuse")
    trigger_hangs.configure({"frame_time": 0.1, "count_time": 0.09})
    trigger_hangs.stage().wait(20)
    # The one before is waited for as long as its minute and the margin.
    trigger_hangs.trigger().wait(20)
    trigger_hangs.unstage().wait(20)
    (data, _) = trigger_hangs.fetched
    assert data.images == 1


def test_a_device_is_destroyed_though_a_trigger_is_not_answered(trigger_hangs):
    ends = threading.Thread(target=trigger_hangs.destroy)
    ends.start()
    ends.join(20)
    assert not ends.is_alive()


def test_prefix(eiger, tmp_path):
    eiger.file_prefix = "lysozyme"
    eiger.stage().wait(10)
    eiger.trigger().wait(10)
    eiger.unstage().wait(10)
    assert all(file.path.name.startswith("lysozyme_") for file in eiger.fetched)
    for prefix in ("a/b", "a$b", "a%b", "a\\b", "a\0b"):
        with pytest.raises(ValueError, match="a file prefix holds no"):
            eiger.file_prefix = prefix
        with pytest.raises(ValueError, match="a file prefix holds no"):
            EigerDetector(eiger.address, name="other", prefix=prefix)
    assert eiger.file_prefix == "lysozyme"
    eiger.directory = ""
    with pytest.raises(ValueError, match=r"eiger: directory is empty; '\.' is the folder"):
        eiger.stage()


def test_commands_as_signals(dcu, eiger):
    status = eiger.detector.initialize.set(1)
    status.wait(20)
    assert eiger.detector.arm.set(1).wait(10) is None
    assert eiger.detector.arm.get() == 1
    eiger.detector.soft_trigger.set(1).wait(20)
    eiger.detector.disarm.set(1).wait(10)
    assert eiger.detector.disarm.get() == 1
    # A command that is illegal now fails with the DCU's own words.
    with pytest.raises(EigerError, match=r"PUT http://\S+/command/trigger: the DCU answered 400"):
        eiger.detector.soft_trigger.set(1).wait(10)


def test_threads_end_with_the_device(dcu, tmp_path):
    before = set(threading.enumerate())
    device = EigerDetector(dcu.url, name="mortal", directory=tmp_path)
    device.stage().wait(10)
    device.trigger().wait(10)
    device.unstage().wait(10)
    device.destroy()
    left = [t for t in set(threading.enumerate()) - before if t.name.startswith("mortal")]
    for thread in left:
        thread.join(10)
    assert not any(thread.is_alive() for thread in left)


def test_what_was_disarmed_by_hand_is_not_disarmed_before_the_series_after_it(
    dcu, tmp_path, requests_sent
):
    """That would cut the image that is being exposed, which cancel keeps."""
    device = EigerDetector(
        dcu.url, name="eiger", directory=tmp_path, timeouts=Timeouts(arm=0.5, end=0.5)
    )
    device.configure({"ntrigger": 3, "frame_time": 0.005, "count_time": 0.004})
    dcu.faults.set("late", path="PUT */command/arm", seconds=1)
    dcu.faults.set("hang", path="PUT */command/disarm")
    with pytest.raises(DcuTimeoutError):
        device.stage().wait(20)
    dcu.faults.clear()
    device.detector.disarm.set(1).wait(20)
    device.stage().wait(20)
    device.trigger().wait(20)
    requests_sent.clear()
    device.unstage().wait(20)
    sent = [each.rpartition("/")[2] for each in requests_sent() if "command/" in each]
    assert sent == ["cancel", "disarm"]
    device.destroy()


def test_an_arm_without_a_reply_and_without_a_state_is_disarmed(dcu, tmp_path, monkeypatch):
    device = EigerDetector(dcu.url, name="eiger", directory=tmp_path)
    device.connect()
    arm = device.detector.arm.send

    def arm_and_lose_the_state():
        dcu.faults.set("lose", path="PUT */command/arm", times=1)
        dcu.faults.set("refuse", path="GET */status/state", status=503, times=1)
        return arm()

    monkeypatch.setattr(device.detector.arm, "send", arm_and_lose_the_state)
    with pytest.raises(DcuError):
        device.stage().wait(20)
    monkeypatch.undo()
    assert device.detector.state.get() == "idle"
    device.stage().wait(20)
    device.trigger().wait(20)
    device.unstage().wait(20)
    device.destroy()


def test_the_id_of_a_series_before_is_not_taken_for_one_whose_reply_was_lost(
    dcu, eiger, requests_sent
):
    """All images go into the master, so that it is listed only when the series is over."""
    eiger.configure({"filewriter.nimages_per_file": 0})
    eiger.stage().wait(20)
    eiger.trigger().wait(20)
    eiger.wait_for_files()
    requests_sent.clear()
    dcu.faults.set("lose", command="arm", times=1)
    with pytest.raises(ReplyError, match=r"arm: the connection was lost.* no master file tells"):
        eiger.trigger().wait(20)
    assert not any("command/trigger" in each for each in requests_sent())
    assert eiger.detector.state.get() == "idle"
    # The next one's reply comes.
    eiger.trigger().wait(20)
    assert eiger.read()["eiger_series_id"]["value"] == 3
    eiger.unstage().wait(20)


def test_a_lost_reply_of_a_later_series_is_made_good_where_its_master_is_listed(dcu, eiger):
    eiger.configure({"filewriter.nimages_per_file": 1})
    eiger.stage().wait(20)
    for _ in range(2):
        eiger.trigger().wait(20)
        dcu.faults.set("lose", command="arm", times=1)
    assert eiger.read()["eiger_series_id"]["value"] == 2
    eiger.unstage().wait(20)


def test_a_lost_reply_is_made_good_though_the_master_is_listed_a_moment_later(
    RE, dcu, eiger, assert_right
):
    dcu.faults.set("lose", command="arm")
    dcu.faults.set("file-late", file=0, seconds=0.3)
    (uid,) = RE(bp.count([eiger], 2))
    assert_right(uid, points=2, images=1)


def test_a_lost_reply_is_made_good_though_the_list_of_files_is_refused_for_a_moment(
    RE, dcu, eiger, assert_right
):
    dcu.faults.set("lose", command="arm")
    refusals = dcu.faults.set("refuse", path="GET filewriter/*/files", status=503, times=2)
    (uid,) = RE(bp.count([eiger], 2))
    assert refusals.struck == 2
    assert_right(uid, points=2, images=1)


def test_a_list_of_files_that_is_refused_does_not_hide_that_a_reply_was_lost(dcu, eiger):
    dcu.faults.set("lose", command="arm")
    dcu.faults.set("refuse", path="GET filewriter/*/files", status=404)
    with pytest.raises(ReplyError, match=r"arm: the connection was lost.* no master file tells"):
        eiger.stage().wait(20)
    assert eiger.detector.state.get() == "idle"


def test_a_series_whose_end_failed_is_not_used_for_the_next_point(dcu, eiger):
    """Images of the point that is taken again are in it, which would shift all that follow."""
    eiger.configure({"nimages": 2, "ntrigger": 3})
    eiger.stage().wait(20)
    eiger.trigger().wait(20)
    stall = dcu.faults.set("stall", image=3)
    refused = dcu.faults.set("refuse", command="cancel", status=503, times=1)
    first = eiger.trigger()
    waited = threading.Event()
    while not stall.struck:
        assert not waited.wait(0.01)
    second = eiger.trigger()
    with pytest.raises(RefusedError, match="503"):
        first.wait(20)
    assert refused.spent
    dcu.faults.clear()
    second.wait(20)
    eiger.describe()
    assert eiger.read()["eiger_series_id"]["value"] == 2
    for _, document in eiger.collect_asset_docs():
        document["run_start"] = "filled in by the RunEngine"
    eiger.unstage().wait(20)
    (view,) = eiger.views
    images = open_series(view)
    assert [np.array_equal(images[n], dcu.image(2, n + 1)) for n in range(2)] == [True, True]
