"""Ctrl-C, pause and resume in each phase: right images, or a clear error."""

import signal
import threading
import time
from dataclasses import replace

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import numpy as np
import pytest
from bluesky.utils import RunEngineInterrupted
from ophyd import Component, Device

import sim_dcu
from ophyd_eiger import EigerDetector, open_series
from ophyd_eiger.errors import MissingFileError, NotStagedError, StateError

# Of each test's cases the short run takes every 3rd, see conftest.
SHORT_RUN_EVERY = 3

# bluesky counts a second Ctrl-C only if it comes 0.1 s after the first, as a hand's does.
BETWEEN_KEYS_S = 0.3


@pytest.fixture
def dcu(instant_puts):
    """A DCU whose arming, exposures and file writing take their time."""
    with sim_dcu.serve(model="eiger-500k", time_scale=1, seed=3, initialized=True) as server:
        yield server


class CtrlC(threading.Thread):
    """Press Ctrl-C twice once a condition holds."""

    def __init__(self, condition):
        super().__init__(daemon=True)
        self.condition = condition
        self.pressed_at = None

    def run(self):
        while not self.condition():
            time.sleep(0.002)
        # Of a process' threads the kernel may choose another, and the main one then sleeps on.
        main = threading.main_thread().ident
        signal.pthread_kill(main, signal.SIGINT)
        time.sleep(BETWEEN_KEYS_S)
        signal.pthread_kill(main, signal.SIGINT)
        self.pressed_at = time.monotonic()


def asked_state(dcu, wanted):
    """Return a condition: the state as another client sees it."""
    other = EigerDetector(dcu.url, name="other")
    return lambda: other.detector.state.get() == wanted


def pause_when(RE, plan, condition):
    """Run a plan, press Ctrl-C twice when the condition holds, and see that it paused at once."""
    keys = CtrlC(condition)
    keys.start()
    with pytest.raises(RunEngineInterrupted):
        RE(plan)
    assert time.monotonic() - keys.pressed_at < 1.0
    keys.join()
    assert RE.state == "paused"


def check_run(catalog, dcu, uid, points):
    dataset = catalog[uid].primary.read()
    found = np.asarray(dataset["eiger_image"])
    ids = [int(number) for number in np.asarray(dataset["eiger_series_id"])]
    assert found.shape[0] == points
    assert len(set(ids)) == points
    for images, series_id in zip(found, ids, strict=True):
        for number, image in enumerate(images, start=1):
            assert np.array_equal(image, dcu.image(series_id, number))


@pytest.mark.parametrize("phase", ["stage", "trigger", "between"])
def test_ctrl_c_twice_then_resume(RE, catalog, dcu, eiger, phase):
    eiger.detector.frame_time.set(0.3).wait(10)
    eiger.detector.nimages.set(2).wait(10)
    events = []
    RE.subscribe(lambda name, doc: events.append(doc["seq_num"]), "event")
    condition = {
        "stage": asked_state(dcu, "configure"),
        "trigger": asked_state(dcu, "acquire"),
        "between": lambda: events == [1],
    }[phase]
    pause_when(RE, bp.count([eiger], 3), condition)
    (uid,) = RE.resume()
    check_run(catalog, dcu, uid, 3)
    assert eiger.detector.state.get() == "idle"


def test_ctrl_c_twice_in_unstage(RE, catalog, dcu, eiger, monkeypatch):
    """Paused while the last files come home: they come all the same."""
    eiger.detector.frame_time.set(0.2).wait(10)
    # No file comes until the pause is there, for which the RunEngine takes seconds.
    client = eiger.link.client
    monkeypatch.setattr(client, "timeouts", replace(client.timeouts, files=60))
    may_come = threading.Event()
    fetch = eiger.link.client.open_file

    def fetch_when_allowed(name):
        assert may_come.wait(60)
        return fetch(name)

    monkeypatch.setattr(eiger.link.client, "open_file", fetch_when_allowed)
    stopped = threading.Event()
    uids = []
    RE.subscribe(lambda name, doc: (uids.append(doc["run_start"]), stopped.set()), "stop")
    pause_when(RE, bp.count([eiger], 2), stopped.is_set)
    may_come.set()
    RE.resume()
    assert RE.state == "idle"
    # The RunEngine does not wait again for a Status that a pause cut short; another unstage does.
    eiger.unstage().wait(30)
    check_run(catalog, dcu, uids[0], 2)
    assert eiger.detector.state.get() == "idle"


@pytest.mark.parametrize(
    "end",
    [
        "abort",
        pytest.param("stop", marks=pytest.mark.long),
        pytest.param("halt", marks=pytest.mark.long),
    ],
)
def test_pause_in_an_exposure_then_end(RE, catalog, dcu, eiger, end):
    eiger.detector.frame_time.set(30).wait(10)
    eiger.detector.count_time.set(29).wait(10)
    pause_when(RE, bp.count([eiger], 3), asked_state(dcu, "acquire"))
    getattr(RE, end)()
    assert RE.state == "idle"
    # After a halt nobody waits for unstage; it is idempotent.
    eiger.unstage().wait(30)
    assert eiger.detector.state.get() == "idle"
    # What a series leaves that had no image, as docs/interruptions.md says.
    (left,) = eiger.directory.iterdir()
    with pytest.raises(MissingFileError, match="ended without an image there is just the master"):
        open_series(left)
    eiger.detector.count_time.set(0.1).wait(10)
    eiger.detector.frame_time.set(0.2).wait(10)
    (uid,) = RE(bp.count([eiger], 2))
    check_run(catalog, dcu, uid, 2)


def test_stage_without_waiting(RE, catalog, dcu, eiger):
    def plan():
        yield from bps.stage(eiger)
        yield from bps.open_run()
        yield from bps.trigger(eiger, group="exposure")
        yield from bps.wait("exposure")
        yield from bps.create("primary")
        yield from bps.read(eiger)
        yield from bps.save()
        yield from bps.close_run()
        yield from bps.unstage(eiger, group="end")
        yield from bps.wait("end")

    eiger.detector.frame_time.set(0.2).wait(10)
    (uid,) = RE(plan())
    check_run(catalog, dcu, uid, 1)


def test_stage_without_waiting_that_fails(RE, eiger):
    # A point of three triggers does not fit into a series of one.
    eiger.triggers_per_point.set(3).wait(10)

    def plan():
        yield from bps.stage(eiger)
        yield from bps.open_run()
        yield from bps.trigger_and_read([eiger])
        yield from bps.close_run()

    with pytest.raises(Exception, match="a point takes 3 triggers") as caught:
        RE(plan())
    causes = [caught.value, caught.value.__cause__, caught.value.__context__]
    assert any(isinstance(cause, StateError) for cause in causes)
    assert RE.state == "idle"
    assert eiger.detector.state.get() == "idle"


class Endstation(Device):
    """A device that has the detector as a part and hands trigger to it."""

    eiger = Component(EigerDetector, "", kind="normal")

    def __init__(self, prefix, *, address, directory, name):
        type(self).eiger.suffix = address
        type(self).eiger.kwargs["directory"] = directory
        super().__init__(prefix, name=name)

    def trigger(self):
        return self.eiger.trigger()


@pytest.mark.long
def test_component_of_another_device(RE, catalog, dcu, tmp_path):
    """The parent's stage drops the detector's Status: trigger waits for the arming itself."""
    station = Endstation("BL1:", address=dcu.url, directory=tmp_path, name="station")
    station.eiger.detector.frame_time.set(0.2).wait(10)
    (uid,) = RE(bp.count([station], 2))
    # unstage's Status was dropped as well; the files come home all the same.
    station.eiger.unstage().wait(30)
    found = np.asarray(catalog[uid].primary.read()["station_eiger_image"])
    assert np.array_equal(found[:, 0], [dcu.image(1, 1), dcu.image(2, 1)])
    station.destroy()


def test_component_read_by_itself(RE, catalog, dcu, tmp_path):
    """bluesky stages the root of a device that it reads: again the Status is dropped."""
    station = Endstation("BL1:", address=dcu.url, directory=tmp_path, name="station")
    station.eiger.detector.frame_time.set(0.2).wait(10)
    (uid,) = RE(bp.count([station.eiger], 2))
    station.eiger.unstage().wait(30)
    found = np.asarray(catalog[uid].primary.read()["station_eiger_image"])
    assert np.array_equal(found[:, 0], [dcu.image(1, 1), dcu.image(2, 1)])
    station.destroy()


def test_component_that_nobody_triggers(RE, dcu, tmp_path):
    class Untriggered(Device):
        eiger = Component(EigerDetector, dcu.url, add_prefix=(), directory=tmp_path)

    station = Untriggered("BL1:", name="station")
    with pytest.raises(NotStagedError, match="station_eiger: no images were taken; trigger it"):
        RE(bp.count([station], 1))
    assert RE.state == "idle"
    station.eiger.unstage().wait(30)
    assert station.eiger.detector.state.get() == "idle"
    station.destroy()


def test_component_whose_stage_fails(RE, dcu, tmp_path):
    station = Endstation("BL1:", address=dcu.url, directory=tmp_path, name="station")
    station.eiger.triggers_per_point.set(3).wait(10)
    with pytest.raises(Exception, match="a point takes 3 triggers"):
        RE(bp.count([station], 2))
    assert RE.state == "idle"
    station.destroy()


@pytest.mark.long
def test_ctrl_c_twice_while_arm_takes_17_s(RE, catalog, dcu, eiger):
    """The longest arm of the reference: the bar moves, the pause comes at once, nothing is lost."""
    dcu.faults.set("late:command=arm,seconds=17,times=1")
    told = []

    def watch(statuses):
        for status in statuses or ():
            status.watch(lambda **kwargs: told.append(kwargs["current"]))

    RE.waiting_hook = watch
    pause_when(RE, bp.count([eiger], 3), lambda: len(set(told)) > 5)
    (uid,) = RE.resume()
    check_run(catalog, dcu, uid, 3)


def test_two_detectors_are_armed_at_the_same_time(RE, dcu, eiger, tmp_path):
    with sim_dcu.serve("eiger2-500k", time_scale=1, seed=4, initialized=True) as second:
        other = EigerDetector(second.url, name="second", directory=tmp_path)
        other.connect()
        together = threading.Event()
        over = threading.Event()

        def look():
            asks = [asked_state(dcu, "configure"), asked_state(second, "configure")]
            while not over.is_set():
                if all(ask() for ask in asks):
                    together.set()
                    return

        looking = threading.Thread(target=look, daemon=True)
        looking.start()
        RE(bp.count([eiger, other], 1))
        over.set()
        looking.join()
        assert together.is_set()
        other.destroy()
