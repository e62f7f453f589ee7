"""What other clients, other hands and odd moments do to a staged detector."""

import io
import math
import threading
import time
from dataclasses import replace

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import h5py
import numpy as np
import pytest
import requests
from bluesky.utils import FailedStatus, RunEngineInterrupted
from foreign_dcu import Held, Reply
from signals_at_the_input import one_signal

import sim_dcu
from ophyd_eiger import EigerDetector, FilePolicy, Timeouts, TriggerInfo, open_series
from ophyd_eiger.client import DcuClient
from ophyd_eiger.deliveries import Delivery, FetchedFile
from ophyd_eiger.ending import Ending
from ophyd_eiger.errors import (
    DcuTimeoutError,
    LostReplyError,
    NotServedError,
    NotStagedError,
    StateError,
    StoppedError,
    TransferError,
)
from ophyd_eiger.master import Master
from ophyd_eiger.signals import LimitError

# Of each test's cases the short run takes every 2nd, see conftest.
SHORT_RUN_EVERY = 2


def put_command(dcu, command):
    """Send a command as another client does."""
    reply = requests.put(f"{dcu.url}/detector/api/1.6.0/command/{command}", timeout=20)
    reply.raise_for_status()


def test_a_trigger_by_another_client_is_noticed(dcu, eiger):
    """Its image stands before those of later points, which would all be shifted."""
    eiger.detector.ntrigger.set(4).wait(10)
    eiger.stage().wait(10)
    eiger.trigger().wait(10)
    put_command(dcu, "trigger")
    eiger.trigger().wait(10)
    with pytest.raises(TransferError, match=r"3 images came home, 2 were taken by this device"):
        eiger.unstage().wait(20)


@pytest.mark.parametrize("goes_on", ["abort", "resume"])
def test_a_series_that_another_client_armed_in_a_pause_is_left_alone(RE, dcu, eiger, goes_on):
    eiger.configure({"nimages": 2, "ntrigger": 3})
    taken = []

    def one_shot(detectors):
        yield from bps.trigger_and_read(detectors)
        taken.append(None)
        if len(taken) == 1:
            yield from bps.pause()

    with pytest.raises(RunEngineInterrupted):
        RE(bp.count([eiger], 3, per_shot=one_shot))
    client = DcuClient(dcu.url)
    client.command("detector", "disarm", timeout=20)
    client.put("filewriter", "config/name_pattern", "theirs_$id")
    client.put("detector", "config/ntrigger", 2)
    client.command("detector", "arm", timeout=20)
    client.command("detector", "trigger", timeout=20)
    if goes_on == "abort":
        RE.abort()
    else:
        with pytest.raises(FailedStatus, match="somebody else has set up the detector since"):
            RE.resume()
    assert len(taken) == 1
    assert client.get("detector", "status/state")["value"] == "ready"
    client.command("detector", "trigger", timeout=20)
    client.command("detector", "disarm", timeout=20)
    theirs = requests.get(f"{dcu.url}/data/theirs_2_data_000001.h5", timeout=20).content
    client.close()
    with h5py.File(io.BytesIO(theirs)) as file:
        assert len(file["entry/data/data"]) == 4
    mine = open_series(eiger.fetched[-1].path)
    assert np.array_equal(mine[:], [dcu.image(1, 1), dcu.image(1, 2)])


def test_a_series_that_waited_long_is_looked_at_before_a_trigger(dcu, eiger, monkeypatch):
    """As at a prompt, where nobody says that there is a pause."""
    monkeypatch.setattr("ophyd_eiger.ending.UNWATCHED_S", 0.0)
    eiger.configure({"ntrigger": 3})
    eiger.stage().wait(20)
    eiger.trigger().wait(20)
    eiger.trigger().wait(20)
    client = DcuClient(dcu.url)
    client.command("detector", "disarm", timeout=20)
    client.put("filewriter", "config/name_pattern", "theirs_$id")
    client.command("detector", "arm", timeout=20)
    with pytest.raises(StateError, match="somebody else has set up the detector since"):
        eiger.trigger().wait(20)
    assert client.get("detector", "status/state")["value"] == "ready"
    client.command("detector", "disarm", timeout=20)
    client.close()
    eiger.unstage().wait(20)


def test_a_dcu_that_answers_no_question_is_sent_no_command_to_end_a_series(
    dcu, tmp_path, monkeypatch, requests_sent
):
    quick = Timeouts(get=2, files=3)
    device = EigerDetector(dcu.url, name="eiger", directory=tmp_path, timeouts=quick)
    device.configure({"ntrigger": 3})
    device.stage().wait(20)
    device.trigger().wait(20)
    monkeypatch.setattr("ophyd_eiger.ending.UNWATCHED_S", 0.0)
    hangs = {"path": "GET *"}
    requests.put(f"{dcu.url}/sim/faults/hang", json=hangs, timeout=10).raise_for_status()
    requests_sent.clear()
    with pytest.raises(DcuTimeoutError, match="name_pattern: no answer within 2 s"):
        device.unstage().wait(20)
    assert not [sent for sent in requests_sent() if sent.startswith("PUT")]
    requests.delete(f"{dcu.url}/sim/faults", timeout=10).raise_for_status()
    device.unstage().wait(20)
    assert DcuClient(dcu.url).get("detector", "status/state")["value"] == "idle"
    device.fetch()
    assert len(list(tmp_path.glob("eiger_*_1_*.h5"))) == 2
    device.destroy()


@pytest.mark.parametrize("flies", [False, True])
def test_what_another_client_armed_before_a_late_disarm_is_left_alone(
    dcu, eiger, monkeypatch, flies
):
    """This process stood still after its last image, when the detector was free already."""
    monkeypatch.setattr("ophyd_eiger.ending.UNWATCHED_S", 0.0)
    end = Ending.end
    client = DcuClient(dcu.url)

    def end_late(self, series):
        client.put("filewriter", "config/name_pattern", "theirs_$id")
        client.command("detector", "arm", timeout=20)
        end(self, series)

    monkeypatch.setattr(Ending, "end", end_late)
    eiger.stage().wait(20)
    if flies:
        eiger.kickoff().wait(20)
        eiger.complete().wait(20)
    else:
        eiger.trigger().wait(20)
    assert client.get("detector", "status/state")["value"] == "ready"
    eiger.unstage().wait(20)
    assert client.get("detector", "status/state")["value"] == "ready"
    client.command("detector", "disarm", timeout=20)
    client.close()
    assert eiger.owed == {}
    assert [file.images for file in eiger.fetched if "_data_" in file.path.name] == [1]


def test_a_series_was_looked_at_when_its_state_was_asked(dcu, eiger, monkeypatch):
    """However late the answer is read: the process may have stood still meanwhile."""
    eiger.stage().wait(20)
    ask, end, times = eiger.detector.state.get, Ending.end, {"staged": time.monotonic()}

    def ask_then():
        times.setdefault("asked", time.monotonic())
        return ask()

    def end_then(self, series):
        times["watched"] = series.watched_at
        end(self, series)

    monkeypatch.setattr(eiger.detector.state, "get", ask_then)
    monkeypatch.setattr(Ending, "end", end_then)
    eiger.trigger().wait(20)
    assert times["staged"] < times["watched"] <= times["asked"]
    eiger.unstage().wait(20)


def test_a_series_ended_and_armed_by_another_client_is_noticed(dcu, eiger):
    eiger.detector.ntrigger.set(4).wait(10)
    eiger.stage().wait(10)
    eiger.trigger().wait(10)
    put_command(dcu, "disarm")
    put_command(dcu, "arm")
    eiger.trigger().wait(10)
    with pytest.raises(TransferError, match=r"1 images came home, 2 were taken by this device"):
        eiger.unstage().wait(20)


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("frame_time", 0.02, r"_2: .*frame_time 0\.02 s, as its master says, and not 0\.01"),
        ("count_time", 0.002, r"_2: .*count_time 0\.002 s, as its master says, and not 0\.004"),
        ("photon_energy", 9000.0, r"_2: .*photon_energy 9000 eV, as its master says, and not 8"),
        ("threshold_energy", 5e3, r"_2: .*threshold_energy 5000 eV, as its master says, and not 4"),
    ],
)
def test_a_series_taken_otherwise_than_was_set_is_noticed(dcu, eiger, setting, value, said):
    """Between two points the detector is idle, and takes what another client puts."""
    eiger.configure(
        {
            "nimages": 2,
            "filewriter.nimages_per_file": 1,
            "frame_time": 0.01,
            "count_time": 0.004,
            "photon_energy": 8000.0,
        }
    )
    eiger.stage().wait(10)
    eiger.trigger().wait(10)
    url = f"{dcu.url}/detector/api/1.6.0/config/{setting}"
    requests.put(url, json={"value": value}, timeout=20).raise_for_status()
    eiger.trigger().wait(10)
    with pytest.raises(TransferError, match=said):
        eiger.unstage().wait(20)


@pytest.mark.parametrize(
    ("resource", "value", "said"),
    [
        ("filewriter/api/1.6.0/config/nimages_per_file", 2, "nimages_per_file 1 -> 2"),
        ("detector/api/1.6.0/config/nimages", 4, "nimages 2 -> 4"),
        ("filewriter/api/1.6.0/config/name_pattern", "mine_$id", r"-> 'mine_\$id'"),
        ("filewriter/api/1.6.0/config/mode", "disabled", "mode 'enabled' -> 'disabled'"),
        ("detector/api/1.6.0/config/trigger_mode", "inte", "trigger_mode 'ints' -> 'inte'"),
    ],
)
def test_what_somebody_changed_is_told_before_the_next_exposure(dcu, eiger, resource, value, said):
    eiger.configure({"nimages": 2, "filewriter.nimages_per_file": 1})
    eiger.stage().wait(10)
    eiger.trigger().wait(10)
    requests.put(f"{dcu.url}/{resource}", json={"value": value}, timeout=20).raise_for_status()
    with pytest.raises(StateError, match=rf"somebody else changed .*{said}.*nothing was exposed"):
        eiger.trigger().wait(10)
    eiger.unstage().wait(20)
    assert eiger.detector.state.get() == "idle"
    assert [file.images for file in eiger.fetched] == [1, 1, 0]
    assert eiger.owed == {}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (
            "name_pattern",
            "b_15f37d00_$id",
            r"-> 'b_15f37d00_\$id' while it was set up, .*nothing was exposed; another client, "
            r"whose files begin with 'b_15f37d00', may hold it\. Take the scan again",
        ),
        ("mode", "disabled", r"mode 'enabled' -> 'disabled' while it was set up, .*exposed\. Take"),
        (
            "nimages_per_file",
            7,
            r"nimages_per_file 1000 -> 7 while it was set up, .*exposed\. Take",
        ),
    ],
)
def test_what_another_client_put_before_the_first_arm_is_told(
    dcu, eiger, monkeypatch, key, value, said
):
    """Both saw the detector idle, and this one arms first: its images would have another's name."""
    url = f"{dcu.url}/filewriter/api/1.6.0/config/{key}"
    arm = eiger.detector.arm.send

    def as_another_puts():
        requests.put(url, json={"value": value}, timeout=20).raise_for_status()
        return arm()

    monkeypatch.setattr(eiger.detector.arm, "send", as_another_puts)
    with pytest.raises(StateError, match=rf"^eiger: somebody else changed .*{said}"):
        eiger.stage().wait(10)
    assert eiger.detector.state.get() == "idle"
    assert eiger.owed == {}
    monkeypatch.setattr(eiger.detector.arm, "send", arm)
    eiger.stage().wait(10)
    eiger.trigger().wait(10)
    eiger.unstage().wait(20)
    assert [file.images for file in eiger.fetched] == [1, 0]


@pytest.fixture
def at_defaults(foreign, tmp_path):
    """A device whose settings are those that `initialize` leaves."""
    device = EigerDetector(
        foreign.url,
        name="eiger",
        directory=tmp_path / "data",
        timeouts=Timeouts(connect=5, get=20, files=10, trigger_margin=20),
    )
    yield device
    device.destroy()


def images_at_home(device):
    """Return the images of each series, by what the names of its files begin with."""
    masters = [file.path for file in device.fetched if file.path.name.endswith("_master.h5")]
    return {path.name.removesuffix("_master.h5"): open_series(path)[:] for path in masters}


@pytest.mark.parametrize("held", ["GET data *", "DELETE *"])
def test_ids_that_begin_again_between_two_points_mix_up_no_files(
    dcu, foreign, at_defaults, caplog, held
):
    """Those of the first point are on their way home, or a deletion of them to the DCU."""
    at_defaults.file_policy = FilePolicy(delete_on_dcu=held == "DELETE *")
    foreign.gap = gap = Held(held)
    at_defaults.stage().wait(20)
    at_defaults.trigger().wait(20)
    assert gap.came.wait(20)
    put_command(dcu, "initialize")
    at_defaults.trigger().wait(20)
    gap.release.set()
    assert "arm answered an id that a series before had" in caplog.text
    at_defaults.unstage().wait(20)
    assert at_defaults.owed == {}
    images = images_at_home(at_defaults)
    assert len({name.rpartition("_")[0] for name in images}) == 2
    # The first arm of the second point was in vain.
    found = {int(name.rpartition("_")[2]): stack for name, stack in images.items()}
    assert found.keys() == {1, 2}
    for series_id, stack in found.items():
        assert np.array_equal(stack, [dcu.image(series_id, 1)])
    assert at_defaults.filewriter.name_pattern.get() == "series_$id"


def test_a_series_of_an_id_that_was_there_is_disarmed_before_the_next_has_another_name(
    dcu, foreign, at_defaults
):
    """Its name is all that tells that it is ours."""
    at_defaults.stage().wait(20)
    at_defaults.trigger().wait(20)
    at_defaults.wait_for_files()
    put_command(dcu, "initialize")
    ours = at_defaults.filewriter.name_pattern.get()
    refused = []

    def refuses_disarm_once(request):
        if request.asks("PUT detector command/disarm") and not refused:
            refused.append(request)
            return Reply(500, b"", "text/html")
        return request.forward()

    foreign.gap = refuses_disarm_once
    at_defaults.trigger().wait(20)
    assert refused
    assert at_defaults.filewriter.name_pattern.get() != ours
    at_defaults.unstage().wait(20)
    images = images_at_home(at_defaults)
    assert sorted(int(name.rpartition("_")[2]) for name in images) == [1, 2]


def test_a_second_threshold_that_somebody_enabled_is_told(tmp_path):
    with sim_dcu.serve("eiger2-500k", time_scale=0, initialized=True) as dcu:
        eiger = EigerDetector(dcu.url, name="eiger", directory=tmp_path)
        eiger.stage().wait(10)
        eiger.trigger().wait(10)
        url = f"{dcu.url}/detector/api/1.8.0/config/threshold/2/mode"
        requests.put(url, json={"value": "enabled"}, timeout=20).raise_for_status()
        with pytest.raises(StateError, match="each exposure gives 2 images"):
            eiger.trigger().wait(10)
        eiger.unstage().wait(20)
        eiger.destroy()


def test_a_series_armed_for_more_images_is_told_by_its_master(tmp_path):
    delivery = Delivery("s_1", tmp_path, 2, 1, (2, 4), np.dtype("<u2"))
    armed = Master(tmp_path / delivery.master, (), (), 4, {})
    said = delivery.armed_otherwise(armed)
    assert "s_1: the DCU armed for 4 images, 2 were expected" in said
    assert delivery.armed_otherwise(replace(armed, images_promised=2)) == ""


def test_files_beyond_those_that_were_promised_come_home_too(tmp_path):
    """Somebody set nimages_per_file from 2 to 1: there are twice as many, with one image each."""
    delivery = Delivery("s_1", tmp_path, 4, 2, (2, 4), np.dtype("<u2"), ended=True, recorded=4)
    data = [f"s_1_data_{number:06d}.h5" for number in (1, 2, 3, 4)]
    listed = {*data, delivery.master}
    # No master waits behind what a list may have invented.
    expected = [*data[:2], delivery.master, *data[2:]]
    assert delivery.expected({*listed, "s_11_data_000005.h5"}) == expected
    for name in listed:
        delivery.home[name] = FetchedFile(tmp_path / name, 1, int("data" in name), 0.0)
    delivery.begin_view(2)
    delivery.name_images([0, 2])
    first_of = {name: (first, images) for name, first, images in delivery.layout()}
    assert first_of == {f"s_1_data_{n + 1:06d}.h5": (n, 1) for n in range(4)}


def test_an_exposure_that_the_trigger_brings_is_nobody_elses(dcu, eiger):
    eiger.configure({"trigger_mode": "inte", "frame_time": 0.01, "count_time": 0.004})
    eiger.exposure.set(0.003).wait(5)
    eiger.stage().wait(10)
    eiger.trigger().wait(10)
    url = f"{dcu.url}/detector/api/1.6.0/config/count_time"
    requests.put(url, json={"value": 0.002}, timeout=20).raise_for_status()
    eiger.trigger().wait(10)
    eiger.unstage().wait(20)


@pytest.mark.parametrize(
    ("subsystem", "attribute", "value"),
    [
        ("detector", "initialize", 1),
        ("filewriter", "name_pattern", "mine_$id"),
        ("system", "restart", 1),
        *(
            pytest.param(*what, marks=pytest.mark.long)
            for what in (
                ("detector", "soft_trigger", 1),
                ("detector", "arm", 1),
                ("filewriter", "mode", "disabled"),
                ("filewriter", "clear", 1),
                ("filewriter", "initialize", 1),
                ("system", "reboot", 1),
                ("system", "shutdown", 1),
            )
        ),
    ],
)
def test_refused_while_staged(RE, dcu, eiger, assert_right, subsystem, attribute, value):
    eiger.stage().wait(10)
    with pytest.raises(StateError, match=r"while it is staged.*eiger\.unstage\(\)"):
        getattr(getattr(eiger, subsystem), attribute).set(value).wait(10)
    eiger.trigger().wait(10)
    eiger.unstage().wait(10)
    (uid,) = RE(bp.count([eiger], 1))
    assert_right(uid, points=1, images=1)


def test_read_after_a_trigger_that_failed_has_no_old_point(dcu, eiger):
    eiger.stage().wait(10)
    eiger.trigger().wait(10)
    eiger.read()
    eiger.detector.frame_time.set(60).wait(10)
    stopped = eiger.trigger()
    eiger.stop()
    with pytest.raises(StoppedError):
        stopped.wait(20)
    with pytest.raises(NotStagedError, match="no images were taken"):
        eiger.read()
    eiger.unstage().wait(20)


def test_armed_faster_by_another_client(dcu, eiger, monkeypatch):
    """Both saw the detector idle; the slower one is told whose move it is."""
    arm = eiger.detector.arm.send

    def too_late():
        put_command(dcu, "arm")
        return arm()

    monkeypatch.setattr(eiger.detector.arm, "send", too_late)
    with pytest.raises(StateError, match="somebody armed it"):
        eiger.stage().wait(10)
    assert eiger.filewriter.name_pattern.get() == "series_$id"
    put_command(dcu, "disarm")


def test_a_failed_arm_leaves_nothing_armed(dcu, eiger, monkeypatch):
    """Armed, but the file list that would tell the id of the series cannot be had."""
    arm = eiger.detector.arm.send
    monkeypatch.setattr(eiger.detector.arm, "send", lambda: arm() and None)
    monkeypatch.setattr(eiger.link.client, "files", list)
    with pytest.raises(Exception, match="arm answered no sequence id"):
        eiger.stage().wait(10)
    assert eiger.detector.state.get() == "idle"
    assert eiger.filewriter.name_pattern.get() == "series_$id"


def test_a_lost_arm_reply_costs_nothing(RE, dcu, eiger, assert_right, monkeypatch):
    arm = eiger.detector.arm.send
    monkeypatch.setattr(eiger.detector.arm, "send", lambda: arm() and None)
    (uid,) = RE(bp.count([eiger], 2))
    assert_right(uid, points=2, images=1)


def test_a_name_pattern_not_put_back_is_not_taken_for_the_users(dcu, eiger, monkeypatch):
    put_now = eiger.filewriter.name_pattern.put_now

    def fails_to_put_back(value):
        if value == "series_$id":
            raise StateError("no")
        put_now(value)

    monkeypatch.setattr(eiger.filewriter.name_pattern, "put_now", fails_to_put_back)
    eiger.stage().wait(10)
    with pytest.raises(StateError):
        eiger.unstage().wait(10)
    monkeypatch.setattr(eiger.filewriter.name_pattern, "put_now", put_now)
    assert eiger.filewriter.name_pattern.get() != "series_$id"
    eiger.stage().wait(10)
    eiger.unstage().wait(10)
    assert eiger.filewriter.name_pattern.get() == "series_$id"


@pytest.fixture
def two_at_a_detector(tmp_path):
    """A DCU whose file writer is off at first, and two devices at it."""
    with sim_dcu.serve("eiger2-500k", time_scale=0, initialized=True) as dcu:
        both = [
            EigerDetector(
                dcu.url, name=name, directory=tmp_path / name, timeouts=Timeouts(get=20, files=10)
            )
            for name in ("one", "two")
        ]
        yield dcu, *both
        for device in both:
            device.destroy()


def test_what_another_client_put_since_is_not_put_back_over_it(two_at_a_detector, caplog):
    """One's scan is over and waits for a late file; two takes points before and after that."""
    dcu, one, two = two_at_a_detector
    client = DcuClient(dcu.url)
    client.put("filewriter", "config/name_pattern", "mine_$id")
    client.close()
    one.stage().wait(20)
    one.prepare(TriggerInfo(number_of_events=2)).wait(20)
    one.kickoff().wait(20)
    one.complete().wait(20)
    two.stage().wait(20)
    two.trigger().wait(20)
    theirs = two.filewriter.name_pattern.get()
    one.unstage().wait(20)
    assert "not put back, because another client has set up the detector since" in caplog.text
    assert two.filewriter.name_pattern.get() == theirs
    assert two.filewriter.mode.get() == "enabled"
    assert two.detector.nimages.get() == 2
    two.trigger().wait(20)
    two.unstage().wait(20)
    assert one.owed == two.owed == {}
    assert len([file for file in two.fetched if file.images]) == 2
    # What one had put is no user's.
    assert two.filewriter.name_pattern.get() == "series_$id"


def test_what_was_put_comes_back_where_the_name_pattern_cannot_be_asked(two_at_a_detector):
    _, one, _ = two_at_a_detector
    one.stage().wait(20)
    one.trigger().wait(20)
    ask = one.filewriter.name_pattern.get

    def refuses():
        raise NotServedError("not now", request="GET", status=404, text="")

    one.filewriter.name_pattern.get = refuses
    one.unstage().wait(20)
    del one.filewriter.name_pattern.get
    assert ask() == "series_$id"
    assert one.filewriter.mode.get() == "disabled"


@pytest.mark.parametrize(
    ("found", "left"),
    [
        ("lyso_1a2b3c4d_$id", "series_$id"),
        ("lyso_20261128_$id", "lyso_20261128_$id"),
        ("lyso_1a2b3c4d_run_$id", "lyso_1a2b3c4d_run_$id"),
    ],
)
def test_a_name_pattern_that_a_staging_left_is_no_users(dcu, eiger, found, left):
    """As of a process that was killed."""
    url = f"{dcu.url}/filewriter/api/1.6.0/config/name_pattern"
    requests.put(url, json={"value": found}, timeout=20).raise_for_status()
    eiger.stage().wait(20)
    eiger.unstage().wait(20)
    assert eiger.filewriter.name_pattern.get() == left


def test_a_slow_file_is_waited_for_and_a_stuck_one_does_not_hold_up_the_next(
    RE, dcu, tmp_path, assert_right, monkeypatch
):
    device = EigerDetector(
        dcu.url, name="eiger", directory=tmp_path / "data", timeouts=Timeouts(files=0.5)
    )
    client, stuck, release = device.link.client, threading.Event(), threading.Event()
    whole = client.open_file

    def stuck_once(name):
        if not stuck.is_set():
            stuck.set()
            release.wait(60)
        return whole(name)

    monkeypatch.setattr(client, "open_file", stuck_once)
    device.stage().wait(10)
    device.trigger().wait(10)
    with pytest.raises(TransferError, match=r"within 0\.5 s"):
        device.unstage().wait(20)
    # The thread of the first is still stuck.
    (uid,) = RE(bp.count([device], 1))
    assert_right(uid, points=1, images=1)
    release.set()
    device.destroy()


def test_huge_numbers(eiger):
    for huge in (10**400, 10**5000):
        with pytest.raises(LimitError, match="is outside"):
            eiger.detector.count_time.set(huge)


def test_a_series_that_somebody_ended_is_told_and_the_next_trigger_arms_anew(
    RE, dcu, eiger, assert_right
):
    eiger.detector.ntrigger.set(4).wait(10)
    eiger.stage().wait(10)
    eiger.trigger().wait(10)
    put_command(dcu, "disarm")
    with pytest.raises(StateError, match=r"state is 'idle': somebody may have ended the series"):
        eiger.trigger().wait(10)
    eiger.trigger().wait(10)
    assert eiger.read()["eiger_series_id"]["value"] == 2
    eiger.unstage().wait(20)


@pytest.mark.long
@pytest.mark.parametrize("how", ["step", "fly"])
@pytest.mark.parametrize("model", ["eiger-500k", "eiger2-500k"])
def test_a_series_of_signals_that_somebody_ended_has_no_more_points(tmp_path, model, how):
    """It is idle then as it is when it has all images."""
    with sim_dcu.serve(model, time_scale=0, seed=3, initialized=True) as dcu:
        eiger = EigerDetector(
            dcu.url, name="eiger", directory=tmp_path, timeouts=Timeouts(files=3, signal=60)
        )
        settings = {"trigger_mode": "exts", "ntrigger": 3, "filewriter.nimages_per_file": 1}
        eiger.configure(settings)
        eiger.stage().wait(20)
        if how == "step":
            point = eiger.trigger()
            one_signal(dcu)
            point.wait(20)
            exposing = eiger.trigger()
        else:
            eiger.kickoff().wait(20)
            exposing = eiger.complete()
            one_signal(dcu)
        other = DcuClient(dcu.url)
        other.command("detector", "disarm", timeout=20)
        with pytest.raises(
            StateError, match=r"was ended before its time, by somebody else .* 1 of 3"
        ):
            exposing.wait(30)
        if how == "fly":
            list(eiger.collect_asset_docs())
            assert len(list(eiger.collect())) == 1
        eiger.unstage().wait(20)
        other.close()
        eiger.destroy()


def test_a_refused_trigger_says_what_leads_out_of_an_error(dcu, eiger):
    dcu.faults.set("error", image=1)
    eiger.stage().wait(10)
    with pytest.raises(StateError, match=r"the state is 'error': eiger\.recover\(\) \(or") as told:
        eiger.trigger().wait(10)
    assert "arms a new one" not in str(told.value)
    eiger.unstage().wait(20)


def test_an_exposure_that_somebody_ends_is_no_point(tmp_path, instant_settings):
    """The trigger's reply comes as of an exposure that was taken, but much too early."""
    with sim_dcu.serve("eiger-500k", time_scale=1, seed=3, initialized=True) as dcu:
        eiger = EigerDetector(dcu.url, name="eiger", directory=tmp_path)
        eiger.configure({"frame_time": 30, "count_time": 29, "ntrigger": 3})
        eiger.stage().wait(20)
        trigger = eiger.trigger()
        while eiger.detector.state.get() != "acquire":
            assert not trigger.done
        put_command(dcu, "abort")
        with pytest.raises(
            StateError, match=r"series 1 was ended before its time, by somebody else"
        ):
            trigger.wait(20)
        with pytest.raises(NotStagedError, match="no images were taken"):
            eiger.read()
        eiger.unstage().wait(20)
        eiger.destroy()


@pytest.mark.long
@pytest.mark.parametrize("model", ["eiger-500k", "eiger2-500k"])
@pytest.mark.parametrize("time_scale", [1, 0.5])
def test_a_series_of_one_trigger_that_somebody_ends_is_no_point(
    RE, tmp_path, instant_settings, catalog, model, time_scale
):
    """Idle is what it would be in any case: that no file comes tells it, or what it took before."""
    version = "1.6.0" if model == "eiger-500k" else "1.8.0"
    timeouts = Timeouts(files=1)
    with sim_dcu.serve(model, time_scale=time_scale, seed=3, initialized=True) as dcu:
        eiger = EigerDetector(dcu.url, name="eiger", directory=tmp_path, timeouts=timeouts)
        eiger.configure({"frame_time": 2, "count_time": 1.9, "nimages": 2})
        exits = []
        RE.subscribe(lambda _, doc: exits.append((doc["exit_status"], doc["num_events"])), "stop")

        def ended_by(command, after=0.0):
            """End the next exposure as another client does, so many s after the state shows it."""

            def end():
                url = f"{dcu.url}/detector/api/{version}/"
                seen = math.inf
                while time.monotonic() < seen + after:
                    state = requests.get(f"{url}status/state", timeout=20).json()["value"]
                    if state == "acquire":
                        seen = min(seen, time.monotonic())
                requests.put(f"{url}command/{command}", timeout=20).raise_for_status()

            other = threading.Thread(target=end)
            other.start()
            with pytest.raises(FailedStatus, match="was ended before its time, by somebody else"):
                RE(bp.count([eiger]))
            other.join(20)
            assert exits[-1] == ("fail", {})
            assert eiger.owed == {}

        def taken_whole(series_id, images=6):
            (uid,) = RE(bp.count([eiger]))
            (found,) = np.asarray(catalog[uid].primary.read()["eiger_image"])
            assert np.array_equal(found, [dcu.image(series_id, n + 1) for n in range(images)])

        ended_by("abort", after=0.4)
        eiger.configure({"frame_time": 0.4, "count_time": 0.3, "nimages": 6})
        taken_whole(2)
        # Of which files are there, though with fewer images; an EIGER2's exposure outlives disarm.
        ended_by("disarm" if model == "eiger-500k" else "cancel")
        taken_whole(4)
        # At once, which would be too soon to tell, had none been taken before.
        ended_by("abort")
        # Over when it is exposed, and not when the next frame would begin.
        eiger.configure({"frame_time": 30, "count_time": 0.1, "nimages": 1})
        taken_whole(6, images=1)
        eiger.destroy()


def test_a_detector_that_takes_no_time_is_asked_once_for_what_it_has(dcu, eiger, requests_sent):
    """Simulated ones may be as fast as that."""
    eiger.configure({"frame_time": 2, "count_time": 1, "nimages": 3})
    lists = []
    for _ in range(3):
        eiger.stage().wait(20)
        requests_sent.clear()
        eiger.trigger().wait(20)
        lists.append(
            sum("status/files" in sent or "filewriter" in sent for sent in requests_sent())
        )
        eiger.unstage().wait(20)
    assert lists


def test_abort_by_hand_between_two_points(dcu, eiger):
    eiger.detector.ntrigger.set(4).wait(10)
    eiger.filewriter.nimages_per_file.set(1).wait(10)
    eiger.stage().wait(10)
    eiger.trigger().wait(10)
    # Abort drops what is exposed and not in a file yet, which would be a lost image.
    deadline = time.monotonic() + 20
    while not any("data_000001" in name for name in eiger.link.client.files()):
        assert time.monotonic() < deadline
    eiger.detector.abort.set(1).wait(10)
    eiger.trigger().wait(10)
    assert eiger.read()["eiger_series_id"]["value"] == 2
    eiger.unstage().wait(20)


def test_a_dcu_that_goes_into_error_tells_it(dcu, eiger, monkeypatch):
    """The state after the exposure is looked at, and an ending that is refused hides nothing."""
    eiger.stage().wait(10)
    trigger = eiger.detector.soft_trigger.send

    def fails(**kwargs):
        trigger(**kwargs)
        dcu.dcu.detector.state.fail("module 3 lost")

    monkeypatch.setattr(eiger.detector.soft_trigger, "send", fails)
    with pytest.raises(StateError, match=r"went into state 'error'.*module 3 lost.*initialize\(\)"):
        eiger.trigger().wait(10)
    eiger.unstage().wait(20)
    assert eiger.detector.state.get() == "error"


def test_files_come_home_while_the_series_runs(dcu, eiger):
    eiger.detector.ntrigger.set(3).wait(10)
    eiger.filewriter.nimages_per_file.set(1).wait(10)
    eiger.stage().wait(10)
    eiger.trigger().wait(10)
    while len(eiger.fetched) < 2:
        assert eiger.detector.state.get() == "ready"
    assert {file.path.name[-9:] for file in eiger.fetched} == {"000001.h5", "master.h5"}
    eiger.unstage().wait(20)


def test_a_file_that_is_broken_never_gets_its_name(dcu, eiger, tmp_path):
    """Of the right size, and not what it should be: the copy is checked before it is named."""
    eiger.link.client.timeouts = Timeouts(files=0.5)
    eiger.filewriter.nimages_per_file.set(1).wait(10)
    eiger.detector.ntrigger.set(2).wait(10)
    eiger.stage().wait(10)
    stem = eiger.filewriter.name_pattern.last.replace("$id", "1")
    publish = dcu.dcu.store.folder / f"{stem}_data_000001.h5"
    listed = eiger.link.client.files
    eiger.link.client.files = lambda: listed() if broken.is_set() else []
    broken = threading.Event()
    eiger.trigger().wait(10)
    while not publish.exists():
        assert eiger.detector.state.get() == "ready"
    size = publish.stat().st_size
    publish.write_bytes(b"\0" * size)
    broken.set()
    eiger.trigger().wait(10)
    with pytest.raises(TransferError, match=r"data_000001\.h5 did not come home.*not a whole HDF5"):
        eiger.unstage().wait(20)
    assert not (tmp_path / "data" / publish.name).exists()


def test_a_failure_nobody_saw_is_raised_at_unstage(dcu, eiger):
    eiger.stage().wait(10)
    eiger.filewriter["config/no_such_key"].set(1)
    with pytest.raises(Exception, match="no_such_key"):
        eiger.unstage().wait(20)


def test_after_a_restart_everything_is_read_again(dcu, eiger):
    eiger.detector.omega_start.set(5).wait(10)
    eiger.system.restart.set(1).wait(20)
    put_command(dcu, "initialize")
    eiger.stage().wait(20)
    assert eiger.detector.omega_start.last == 0
    eiger.unstage().wait(20)


@pytest.fixture
def of_an_old_api(dcu, tmp_path, monkeypatch):
    """A device of V1.3, which knows no state idle: after initialize it is ready, armed or not."""
    device = EigerDetector(dcu.url, name="eiger", directory=tmp_path, api_version="1.0.0")
    state = device.detector.state.get
    monkeypatch.setattr(
        device.detector.state, "get", lambda: {"idle": "ready"}.get(state(), state())
    )
    yield device
    device.destroy()


def test_an_old_api_calls_an_idle_detector_ready(of_an_old_api):
    device = of_an_old_api
    device.stage().wait(10)
    device.trigger().wait(10)
    device.unstage().wait(20)
    assert len(device.fetched) == 2


def lose(dcu, command):
    """Have the DCU break the connection once instead of carrying out a command."""
    fault = {"command": command, "when": "before", "times": 1}
    requests.put(f"{dcu.url}/sim/faults/drop", json=fault, timeout=10).raise_for_status()


def test_ready_proves_no_trigger_without_reply_to_an_old_api(dcu, of_an_old_api):
    device = of_an_old_api
    device.stage().wait(10)
    lose(dcu, "trigger")
    with pytest.raises(LostReplyError, match="the images may not have been taken"):
        device.trigger().wait(10)
    device.unstage().wait(20)
    assert DcuClient(dcu.url).get("detector", "status/state")["value"] == "idle"


def test_ready_proves_no_disarm_without_reply_to_an_old_api(dcu, of_an_old_api):
    device = of_an_old_api
    device.stage().wait(10)
    lose(dcu, "disarm")
    with pytest.raises(LostReplyError, match="the state is 'ready', not 'idle'"):
        device.unstage().wait(20)
    device.unstage().wait(20)
    assert DcuClient(dcu.url).get("detector", "status/state")["value"] == "idle"


def test_connecting_while_the_detector_initializes_says_so(dcu, tmp_path, monkeypatch):
    from ophyd_eiger.errors import RefusedError
    from sim_dcu.states import State

    device = EigerDetector(dcu.url, name="eiger", directory=tmp_path)
    dcu.dcu.detector.state.enter(State.INITIALIZE)
    with pytest.raises(RefusedError, match="initialize"):
        device.connect()
    dcu.dcu.detector.state.enter(State.IDLE)
    device.connect()
    assert device.detector.photon_energy.has_value
    device.destroy()


def test_configure_as_bluesky_calls_it(RE, dcu, eiger):
    """That it does not hold up the RunEngine is tested with the rest of configure."""
    RE(bps.configure(eiger, {"count_time": 0.002}))
    told = requests.get(f"{dcu.url}/detector/api/1.6.0/config/count_time", timeout=10).json()
    assert told["value"] == pytest.approx(0.002)


def test_destroying_a_device_ends_its_exposure(dcu, tmp_path):
    device = EigerDetector(dcu.url, name="eiger", directory=tmp_path)
    other = EigerDetector(dcu.url, name="other")
    device.stage().wait(10)
    device.destroy()
    assert other.detector.state.get() == "idle"


def test_settings_that_somebody_changed_are_told_before_data_is_taken_with_them(dcu, eiger, caplog):
    eiger.configure({"photon_energy": 9000, "nimages": 3})
    eiger.stage().wait(20)
    eiger.unstage().wait(20)
    assert "not as this device knew it" not in caplog.text
    put_command(dcu, "initialize")
    eiger.stage().wait(20)
    (told,) = [each.getMessage() for each in caplog.records if "knew it" in each.getMessage()]
    assert "nimages 3 -> 1" in told
    assert "photon_energy 9000" in told
    eiger.unstage().wait(20)
    caplog.clear()
    eiger.stage().wait(20)
    eiger.unstage().wait(20)
    assert "not as this device knew it" not in caplog.text
