"""What a Status says of how far it is, and what bluesky's progress bars make of it."""

import io
import threading
from contextlib import redirect_stderr, redirect_stdout

import bluesky.plans as bp
import pytest
from bluesky.utils import ProgressBarManager
from signals_at_the_input import signals

import sim_dcu
from ophyd_eiger import EigerDetector, TriggerInfo
from ophyd_eiger.progress import Countdown, ImageCount


class Watcher:
    """Keeps what a Status tells, as a progress bar is told it."""

    def __init__(self, status):
        self.told = []
        self.enough = threading.Event()
        self.moved = threading.Event()
        self.in_part = threading.Event()
        status.watch(self)

    def __call__(self, **kwargs):
        self.told.append(kwargs)
        if 0 < kwargs["current"] < kwargs["target"]:
            self.moved.set()
        if kwargs["current"] % 1:
            self.in_part.set()
        if kwargs["fraction"] == 0:
            self.enough.set()


@pytest.fixture
def slow(tmp_path, instant_puts):
    with sim_dcu.serve("eiger-500k", time_scale=1, seed=3, initialized=True) as dcu:
        eiger = EigerDetector(dcu.url, name="eiger", directory=tmp_path)
        eiger.connect()
        yield dcu, eiger
        eiger.destroy()


def test_an_exposure_moves_by_time_and_ends_by_evidence(slow):
    _, eiger = slow
    eiger.configure({"frame_time": 0.1, "count_time": 0.09, "nimages": 10})
    stage = eiger.stage()
    arming = Watcher(stage)
    stage.wait(30)
    assert arming.enough.wait(5)
    assert arming.moved.is_set()
    assert arming.told[0]["unit"] == "s"
    assert arming.told[0]["name"] == "eiger: stage (estimate)"

    status = eiger.trigger()
    watcher = Watcher(status)
    assert watcher.moved.wait(10)
    assert "an estimate from time" in repr(status)
    status.wait(30)
    assert watcher.enough.wait(5)
    last = watcher.told[-1]
    assert (last["current"], last["target"], last["unit"]) == (10, 10, "images")
    for told in watcher.told:
        assert ("estimate" in told["name"]) == (told["current"] < told["target"])
    assert last["name"] == "eiger: trigger"
    assert status.progress.evidence == "trigger reply"
    eiger.unstage().wait(30)


@pytest.mark.parametrize(
    ("settings", "evidence"),
    [
        ({"filewriter.nimages_per_file": 1}, "files"),
        ({"monitor.mode": "enabled"}, "monitor"),
        ({}, "state"),
    ],
)
def test_what_tells_that_a_point_of_external_triggers_is_done(dcu, tmp_path, settings, evidence):
    """Where nothing else tells, the state does at the end of the series.

    It may show an exposure before anything else does; without waits it hardly ever can.
    """
    eiger = EigerDetector(dcu.url, name="eiger", directory=tmp_path)
    try:
        eiger.configure({"trigger_mode": "exts", "ntrigger": 3, **settings})
        eiger.stage().wait(20)
        # With all signals but the last, so that the series is not over.
        most = 3 if evidence == "state" else 2
        with signals(dcu, most=most):
            status = eiger.trigger()
            status.wait(20)
        assert status.progress.evidence in (evidence, "state")
        eiger.unstage().wait(20)
    finally:
        eiger.destroy()


def test_it_is_said_before_a_scan_that_points_will_show_late(eiger, caplog):
    eiger.configure({"trigger_mode": "exts", "ntrigger": 3})
    eiger.stage().wait(20)
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == 1
    assert "known to be done only when the whole series of 3 points is over" in said[0]
    eiger.unstage().wait(20)
    caplog.clear()
    eiger.filewriter.nimages_per_file.set(1).wait(10)
    eiger.stage().wait(20)
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []
    eiger.unstage().wait(20)


def test_blueskys_progress_bars(RE, slow):
    _, eiger = slow
    eiger.configure({"frame_time": 0.1, "count_time": 0.09, "nimages": 10})
    RE.waiting_hook = ProgressBarManager()
    screen = io.StringIO()
    with redirect_stdout(screen), redirect_stderr(screen):
        RE(bp.count([eiger], 1))
    drawn = screen.getvalue()
    assert "eiger: stage (estimate)" in drawn
    assert "eiger: trigger (estimate)" in drawn


def test_an_estimate_never_says_that_all_is_done():
    now = [0.0]
    count = ImageCount(10, 1.0, clock=lambda: now[0])
    assert (count().current, count().is_estimate) == (0, True)
    count.begin()
    now[0] = 0.55
    assert (count().current, count().evidence) == (5, "time")
    count.count(7, "files")
    assert (count().current, count().evidence) == (7, "files")
    now[0] = 100.0
    assert (count().current, count().evidence) == (9, "time")
    count.count(10, "trigger reply")
    assert (count().current, count().evidence, count().remaining) == (10, "trigger reply", 0)

    one = ImageCount(1, 30.0, clock=lambda: now[0])
    one.begin()
    now[0] += 12.5
    assert str(one()) == "12.5 of 30 s, an estimate from time"
    now[0] += 100.0
    assert one().current == 29.7
    one.count(1, "trigger reply")
    assert str(one()) == "1 of 1 images, by trigger reply"


def test_what_takes_longer_than_it_did_still_moves():
    """As the first arm after a change: 17 s where the last one took a tenth."""
    now = [0.0]
    countdown = Countdown(0.1, clock=lambda: now[0])
    told = []
    for tenth in range(171):
        # A little more than the last digit shown, so that it is not a question of rounding.
        now[0] = tenth / 10 + 1e-6
        told.append(countdown())
    assert [each.current for each in told] == [tenth / 10 for tenth in range(171)]
    assert all(each.is_estimate and 0 < each.remaining <= 1 for each in told)
    left = [each.remaining for each in told]
    assert left == sorted(left, reverse=True)
    assert left[-1] > 0.05

    early = Countdown(17.0, clock=lambda: now[0])
    now[0] += 8.59
    assert str(early()) == "8.5 of 17 s, an estimate from time"


LATE_ARM = {"path": "PUT */command/arm", "seconds": 1.0}


def test_the_arm_of_each_point_is_followed(dcu, eiger):
    eiger.stage().wait(20)
    eiger.trigger().wait(20)
    dcu.faults.set("late", **LATE_ARM)
    status = eiger.trigger()
    watcher = Watcher(status)
    status.wait(20)
    assert watcher.enough.wait(5)
    assert {told["unit"] for told in watcher.told} == {"s", "images"}
    # The exposure of a few ms, which is told in s while it lasts, is another thing that passes.
    arming = [
        told["current"] for told in watcher.told if told["unit"] == "s" and told["target"] >= 1
    ]
    assert arming == sorted(arming)
    assert arming[-1] > 0.5
    eiger.unstage().wait(20)


@pytest.mark.parametrize("verb", ["prepare", "kickoff"])
def test_the_arm_of_a_fly_scan_is_followed(dcu, eiger, verb):
    info = TriggerInfo(number_of_events=2)
    eiger.stage().wait(20)
    if verb == "kickoff":
        # What stage has armed is used up.
        eiger.trigger().wait(20)
    dcu.faults.set("late", **LATE_ARM)
    status = eiger.prepare(info) if verb == "prepare" else eiger.kickoff()
    watcher = Watcher(status)
    status.wait(20)
    assert watcher.enough.wait(5)
    assert {told["unit"] for told in watcher.told} == {"s"}
    assert max(told["current"] for told in watcher.told[:-1]) > 0.5
    if verb == "prepare":
        eiger.kickoff().wait(20)
    eiger.complete().wait(20)
    eiger.unstage().wait(20)


def test_files_on_their_way_home_are_counted(dcu, eiger):
    eiger.configure({"nimages": 3, "filewriter.nimages_per_file": 1})
    dcu.faults.set("file-late", file=3, seconds=1.5)
    eiger.stage().wait(20)
    eiger.trigger().wait(20)
    status = eiger.unstage()
    watcher = Watcher(status)
    status.wait(20)
    assert watcher.enough.wait(5)
    assert {told["unit"] for told in watcher.told} == {"files"}
    # Three files and the master.
    assert {told["target"] for told in watcher.told} == {4}
    assert 3 in [told["current"] for told in watcher.told[:-1]]
    assert not any("estimate" in told["name"] for told in watcher.told)


def test_a_part_of_a_file_counts_as_that_part(dcu, eiger):
    eiger.configure({"nimages": 10})
    file = "GET *_data_*.h5"
    # Each try brings half of what is missing.
    dcu.faults.set("drop", path=file, when="body")
    dcu.faults.set("late", path=file, seconds=0.5)
    eiger.stage().wait(20)
    eiger.trigger().wait(20)
    status = eiger.unstage()
    watcher = Watcher(status)
    assert watcher.in_part.wait(20)
    dcu.faults.clear()
    status.wait(20)
    assert watcher.enough.wait(5)
    assert {told["target"] for told in watcher.told} == {2}
