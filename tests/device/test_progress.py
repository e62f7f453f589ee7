"""What a Status says of how far it is, and what bluesky's progress bars make of it."""

import io
import threading
from contextlib import redirect_stderr, redirect_stdout

import bluesky.plans as bp
import pytest
from bluesky.utils import ProgressBarManager
from signals_at_the_input import signals

import sim_dcu
from ophyd_eiger import EigerDetector
from ophyd_eiger.progress import Countdown, ImageCount


class Watcher:
    """Keeps what a Status tells, as a progress bar is told it."""

    def __init__(self, status):
        self.told = []
        self.enough = threading.Event()
        self.moved = threading.Event()
        status.watch(self)

    def __call__(self, **kwargs):
        self.told.append(kwargs)
        if 0 < kwargs["current"] < kwargs["target"]:
            self.moved.set()
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
    assert str(one()) == "0.4 of 1 images, an estimate from time"
    now[0] += 100.0
    assert one().current == 0.9

    countdown = Countdown(17.0, clock=lambda: now[0])
    now[0] = 1000.0
    assert countdown().current < 17.0
