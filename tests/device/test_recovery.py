"""A detector that does not do what it should is brought back, with its settings and its files."""

import json
import threading
from dataclasses import replace

import bluesky.plans as bp
import numpy as np
import pytest
import requests
from bluesky.utils import FailedStatus
from click.testing import CliRunner
from eiger_plans import recover
from foreign_dcu import Reply, hanging, whole, with_value

import sim_dcu
from ophyd_eiger import EigerDetector, Timeouts, TriggerInfo
from ophyd_eiger.cli import main
from ophyd_eiger.errors import RecoveryError, StateError

# Of each test's cases the short run takes every 2nd, see conftest.
SHORT_RUN_EVERY = 2

# The short run takes each test with one generation only, see conftest.
GENERATIONS_BY_TURNS = True

API = {"eiger-500k": "1.6.0", "eiger2-500k": "1.8.0"}
TIMEOUTS = Timeouts(get=20, put=20, end=3, files=2, trigger_margin=20, initialize=20)
SETTINGS = {
    "photon_energy": 12400.0,
    "threshold_energy": 4500.0,
    "count_time": 0.004,
    "frame_time": 0.005,
    "nimages": 2,
    "beam_center_x": 512.5,
    "filewriter.nimages_per_file": 7,
    "monitor.buffer_size": 12,
}


@pytest.fixture(params=API)
def model(request):
    return request.param


@pytest.fixture
def dcu(model):
    with sim_dcu.serve(model=model, time_scale=0, seed=3, initialized=True) as server:
        yield server
        server.faults.clear()


@pytest.fixture
def eiger(dcu, tmp_path):
    device = EigerDetector(dcu.url, name="eiger", directory=tmp_path / "data", timeouts=TIMEOUTS)
    device.connect()
    device.configure(SETTINGS)
    yield device
    dcu.faults.clear()
    device.destroy()


@pytest.fixture
def ask(dcu, model):
    """Ask by plain HTTP, or send a command, as another client does."""

    def asked(resource):
        subsystem, _, rest = resource.partition("/")
        url = f"{dcu.url}/{subsystem}/api/{API[model]}/{rest}"
        if rest.startswith("command/"):
            requests.put(url, timeout=20).raise_for_status()
            return None
        return requests.get(url, timeout=20).json()["value"]

    return asked


@pytest.fixture
def through(foreign, tmp_path):
    """The same detector by way of a DCU of somebody else's."""
    device = EigerDetector(
        foreign.url, name="eiger", directory=tmp_path / "through", timeouts=TIMEOUTS
    )
    yield device
    foreign.gap = whole
    device.destroy()


def initialize_answered(*replies):
    """Not to initialize, with these replies one after another; None is none."""
    left = list(replies)

    def gap(request):
        if left and request.asks("PUT detector command/initialize"):
            return left.pop(0)
        return request.forward()

    return gap


def settings_now(ask):
    """Return what the DCU says to what `SETTINGS` set."""
    names = [name if "." in name else f"detector.{name}" for name in SETTINGS]
    return [ask(name.replace(".", "/config/")) for name in names]


def fail(eiger, dcu):
    """Have a series end in state error."""
    dcu.faults.set("error:times=1")
    eiger.stage().wait(20)
    with pytest.raises(Exception, match="error"):
        eiger.trigger().wait(20)
    eiger.unstage().wait(20)
    assert eiger.detector.state.get() == "error"


def rungs(report):
    return [(rung.name, rung.outcome) for rung in report.rungs]


SKIPPED = [("cancel", "skipped"), ("abort", "skipped"), ("disarm", "skipped")]


def test_nothing_is_sent_where_nothing_is_wrong(eiger, requests_sent):
    requests_sent.clear()
    report = eiger.recover().report
    eiger.recovery.set().wait(20)
    assert report
    assert "nothing was wrong" in repr(report)
    assert [sent for sent in requests_sent() if sent.startswith("PUT")] == []


def test_armed_by_somebody_else(eiger, ask):
    before = settings_now(ask)
    ask("detector/command/arm")
    status = eiger.recover()
    status.wait(20)
    assert rungs(status.report) == [("cancel", "done")]
    assert ask("detector/status/state") == "idle"
    # Nothing was lost, and nothing put.
    assert status.report.restored is None
    assert settings_now(ask) == before


@pytest.mark.parametrize("lost", ["lose:command=cancel", "drop:command=cancel"])
def test_a_reply_that_is_lost(dcu, eiger, ask, lost):
    """What counts is the state: cancel was carried out, or abort is sent."""
    ask("detector/command/arm")
    dcu.faults.set(lost)
    status = eiger.recover()
    status.wait(20)
    expected = [("cancel", "failed")] + [("abort", "done")] * lost.startswith("drop")
    assert rungs(status.report) == expected
    assert ask("detector/status/state") == "idle"


def test_state_error_is_left_by_initialize_with_the_settings_as_they_were(
    RE, dcu, eiger, ask, assert_right_of
):
    before = settings_now(ask)
    fail(eiger, dcu)
    status = eiger.recover()
    status.wait(20)
    assert rungs(status.report) == [*SKIPPED, ("initialize", "done")]
    assert ask("detector/status/state") == "idle"
    assert settings_now(ask) == before
    assert "detector.threshold_energy" in status.report.restored.put
    assert "detector.threshold_energy" in repr(status)
    (uid,) = RE(bp.count([eiger], 1))
    assert_right_of(uid, series_id=1, images=2)


@pytest.fixture
def assert_right_of(dcu, catalog):
    def check(uid, *, series_id, images):
        (found,) = np.asarray(catalog[uid].primary.read()["eiger_image"])
        assert np.array_equal(found, [dcu.image(series_id, n + 1) for n in range(images)])

    return check


@pytest.mark.parametrize("fault", ["stall", "hang:command=trigger"])
def test_a_trigger_that_hangs(RE, dcu, eiger, ask, fault, assert_right_of):
    dcu.faults.set(fault)
    eiger.stage().wait(20)
    before = ask("filewriter/config/name_pattern")
    triggered = eiger.trigger()
    asked = threading.Event()
    # The simulator counts a request when it comes, and the image with which it stalls.
    while not dcu.faults.listing()[0]["struck"]:
        assert not asked.wait(0.001)
    status = eiger.recover()
    status.wait(60)
    assert status.report.rungs[0].name == "unstage"
    assert "it was staged and is not any more" in repr(status.report)
    assert triggered.done
    assert ask("detector/status/state") == "idle"
    assert ask("filewriter/config/name_pattern") == "series_$id" != before
    dcu.faults.clear()
    (uid,) = RE(bp.count([eiger], 1))
    assert_right_of(uid, series_id=2, images=2)


def test_a_dcu_that_died_while_staged_and_is_back(RE, dcu, eiger, ask):
    """The settings are those of before the staging, not those that the fly scan put."""
    before = settings_now(ask)
    eiger.stage().wait(20)
    eiger.prepare(TriggerInfo(number_of_events=5, exposures_per_event=3)).wait(20)
    assert ask("detector/config/nimages") == 15
    dcu.faults.set("die:back=0.5")
    status = eiger.recover()
    status.wait(60)
    assert rungs(status.report)[-4:] == [*SKIPPED, ("initialize", "done")]
    assert settings_now(ask) == before
    assert ask("filewriter/config/name_pattern") == "series_$id"


def test_a_restart_is_the_last_rung_and_files_stay(dcu, eiger, ask):
    before = settings_now(ask)
    eiger.stage().wait(20)
    eiger.trigger().wait(20)
    eiger.unstage().wait(20)
    files = sorted(eiger.link.client.files())
    assert len(files) == 2
    fail(eiger, dcu)
    files = sorted(eiger.link.client.files())
    dcu.faults.set("refuse:command=initialize,times=1")
    status = eiger.recover()
    status.wait(30)
    assert rungs(status.report) == [*SKIPPED, ("initialize", "failed"), ("restart", "done")]
    assert "refused on request" in status.report.rungs[-2].said
    assert settings_now(ask) == before
    assert sorted(eiger.link.client.files()) == files


def test_where_nothing_helps_each_rung_is_named(dcu, eiger, ask):
    before = settings_now(ask)
    fail(eiger, dcu)
    dcu.faults.set("refuse:command=initialize,text=module 3 lost")
    with pytest.raises(RecoveryError) as caught:
        eiger.recover().wait(30)
    said = str(caught.value)
    for part in (
        *("cancel: skipped", "abort: skipped", "disarm: skipped", "initialize: failed"),
        *("restart: failed", "module 3 lost", "for a person", "No file on the DCU was deleted"),
    ):
        assert part in said
    assert not eiger.recovery.last
    dcu.faults.clear()
    # What was known before the first try is put back by the second.
    assert ask("detector/status/state") == "na"
    eiger.recover().wait(30)
    assert settings_now(ask) == before


def test_settings_that_cannot_be_put_back_are_told_and_tried_again(dcu, eiger, ask):
    before = settings_now(ask)
    fail(eiger, dcu)
    dcu.faults.set("refuse:path=PUT detector/*/config/threshold_energy,text=not now")
    with pytest.raises(RecoveryError, match=r"idle again, but its settings are not.*not now"):
        eiger.recover().wait(30)
    assert ask("detector/config/threshold_energy") != 4500
    dcu.faults.clear()
    # Whatever has come since: they are owed.
    fail(eiger, dcu)
    eiger.recover().wait(30)
    assert settings_now(ask) == before


def test_what_was_set_anew_since_stays(dcu, eiger, ask, caplog):
    fail(eiger, dcu)
    dcu.faults.set("refuse:path=PUT detector/*/config/threshold_energy,text=not now")
    with pytest.raises(RecoveryError, match="not now"):
        eiger.recover().wait(30)
    assert eiger.recovery.owed["detector.photon_energy"] == 12400
    dcu.faults.clear()
    eiger.initialize()
    (told,) = [text for text in caplog.messages if "not put back any more" in text]
    assert "'detector.photon_energy': 12400.0" in told
    eiger.configure({"photon_energy": 9000.0})
    ask("detector/command/arm")
    eiger.recover().wait(30)
    assert ask("detector/config/photon_energy") == 9000


def test_a_setting_without_a_value_is_none(dcu, eiger, ask, foreign, through, tmp_path):
    """Some have none until something is put."""
    foreign.gap = with_value("GET detector config/element", None)
    through.connect()
    through.save_configuration(tmp_path / "all.json")
    before = settings_now(ask)
    fail(through, dcu)
    through.recover().wait(30)
    assert settings_now(ask) == before
    through.configure({"nimages": 5})
    through.restore_configuration(tmp_path / "all.json")
    assert settings_now(ask) == before


def test_a_restart_that_the_old_process_outlives(dcu, eiger, ask, foreign, through):
    """It answers once more, and ends with the initialize in hand."""
    before = settings_now(ask)
    through.connect()
    fail(through, dcu)
    foreign.gap = initialize_answered(Reply(400, b"not now", "text/plain"), None)
    status = through.recover()
    status.wait(30)
    assert rungs(status.report)[-2:] == [("initialize", "failed"), ("restart", "done")]
    assert settings_now(ask) == before
    assert foreign.requests.count("PUT detector command/initialize") == 3


@pytest.mark.long
def test_what_hangs_beside_the_detector_keeps_nobody_from_it(dcu, eiger, ask, foreign, tmp_path):
    """Nor from a detector that this process has not connected to before."""
    fail(eiger, dcu)
    foreign.gap = hanging("GET monitor *", done=False)
    hasty = replace(TIMEOUTS, get=1)
    new = EigerDetector(foreign.url, name="new", directory=tmp_path, timeouts=hasty)
    with pytest.raises(RecoveryError, match=r"idle again, but its settings are not .*monitor"):
        new.recover().wait(60)
    assert ask("detector/status/state") == "idle"
    assert new.recovery.owed["detector.photon_energy"] == 12400
    foreign.gap = whole
    new.recover().wait(30)
    assert ask("detector/config/photon_energy") == 12400
    new.destroy()


def test_up_to_a_rung(dcu, eiger, ask, requests_sent):
    fail(eiger, dcu)
    requests_sent.clear()
    with pytest.raises(RecoveryError, match="in the end the state is 'error'"):
        eiger.recover("disarm").wait(20)
    assert [sent for sent in requests_sent() if sent.startswith("PUT")] == []
    with pytest.raises(ValueError, match="'arm' is none of the rungs cancel, abort, disarm, init"):
        eiger.recover("arm")


@pytest.mark.parametrize("put_from_here", [True, False])
def test_a_flat_field_of_ones_own(dcu, eiger, tmp_path, put_from_here):
    flat = eiger.detector.flatfield.get() * np.float32(1.5)
    putting = eiger if put_from_here else EigerDetector(dcu.url, name="other")
    putting.detector.flatfield.set(flat).wait(20)
    assert np.array_equal(eiger.detector.flatfield.get(), flat)
    fail(eiger, dcu)
    status = eiger.recover()
    status.wait(20)
    name = "eiger_detector_flatfield"
    assert (status.report.arrays, status.report.lost) == (
        ((name,), ()) if put_from_here else ((), (name,))
    )
    assert np.array_equal(eiger.detector.flatfield.get(), flat) is put_from_here
    assert ("put them again: " in repr(status)) is not put_from_here
    putting.destroy()


def test_a_dcu_without_room_is_told(dcu, eiger):
    fail(eiger, dcu)
    dcu.faults.set("full")
    status = eiger.recover()
    status.wait(20)
    assert status.report
    assert "the DCU has no room for files" in repr(status)


def test_a_dcu_that_is_off(dcu, eiger):
    dcu.stop()
    with pytest.raises(RecoveryError, match=r"no recovery without the DCU.*within 3 s.*refused"):
        eiger.recover().wait(30)


def test_one_at_a_time_and_the_status_says_where_it_is(dcu, eiger):
    fail(eiger, dcu)
    dcu.faults.set("hang:command=initialize,times=1")
    status = eiger.recover()
    while status.report.now != "initialize":
        assert not status.done
    assert "under way: 3 of 5 rungs, by initialize" in repr(status)
    assert eiger.recover() is status
    with pytest.raises(StateError, match="it is being recovered"):
        eiger.stage()
    dcu.faults.clear()
    status.wait(30)


def test_a_plan_goes_on(RE, dcu, eiger, ask, assert_right_of):
    before = settings_now(ask)
    dcu.faults.set("error:times=1")
    reports, uids = [], []

    def night():
        try:
            yield from bp.count([eiger], 1)
        except FailedStatus:
            reports.append((yield from recover(eiger)))
        uids.append((yield from bp.count([eiger], 1)))

    RE(night())
    assert rungs(reports[0])[-1] == ("initialize", "done")
    assert settings_now(ask) == before
    assert_right_of(uids[0], series_id=1, images=2)


def test_a_plan_ends_where_nothing_helps(RE, dcu, eiger):
    fail(eiger, dcu)
    with pytest.raises(FailedStatus, match="nothing brought the detector back"):
        RE(recover(eiger, "abort"))


# ---- the command line ----


def test_the_command_asks_before_it_ends_what_runs(dcu, ask):
    ask("detector/command/arm")
    run = CliRunner().invoke
    # Nobody can be asked here.
    done = run(main, ["recover", dcu.url])
    assert done.exit_code == 1
    assert "the state is 'ready': somebody may be taking data; --yes ends it" in done.output
    assert ask("detector/status/state") == "ready"
    done = run(main, ["recover", dcu.url, "--yes"])
    assert (done.exit_code, done.exception) == (0, None)
    row = next(line for line in done.output.splitlines() if line.startswith("cancel"))
    assert row.split()[:3] == ["cancel", "done", "idle"]
    assert ask("detector/status/state") == "idle"


def test_the_command_reads_the_settings_before_it_initializes(dcu, eiger, ask):
    before = settings_now(ask)
    fail(eiger, dcu)
    done = CliRunner().invoke(main, ["recover", dcu.url])
    assert done.exit_code == 0
    assert "put back as it was: detector.photon_energy" in done.output
    assert settings_now(ask) == before


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--up-to", "arm"], 2, "'arm' is not one of"),
        (["--up-to", "disarm"], 1, "nothing brought the detector back"),
    ],
)
def test_the_command_fails(dcu, eiger, arguments, code, said):
    fail(eiger, dcu)
    done = CliRunner().invoke(main, ["recover", dcu.url, *arguments])
    assert done.exit_code == code
    assert said in done.output


def test_the_command_tells_what_it_alone_has_known(dcu, eiger, ask):
    before = settings_now(ask)
    fail(eiger, dcu)
    dcu.faults.set("refuse:command=initialize")
    done = CliRunner().invoke(main, ["recover", dcu.url, "--json"])
    assert done.exit_code == 1
    document = json.loads(next(line for line in done.stdout.splitlines() if line[:1] == "{"))
    assert [rung["name"] for rung in document["rungs"]][-1] == "restart"
    assert document["settings_were"]["detector.photon_energy"] == 12400
    assert f"then ophyd-eiger recover {dcu.url}. No file" in document["error"]["message"]
    (again,) = [line for line in done.stderr.splitlines() if "to have its settings back" in line]
    dcu.faults.clear()
    run = CliRunner().invoke
    assert run(main, ["recover", dcu.url]).exit_code == 0
    assert settings_now(ask) != before
    assert run(main, again.partition(": ophyd-eiger ")[2].split()).exit_code == 0
    # All but how the file writer and the monitor were set.
    assert settings_now(ask)[:6] == before[:6]


def test_the_command_takes_no_for_an_answer(dcu, ask, monkeypatch):
    ask("detector/command/arm")
    monkeypatch.setattr("ophyd_eiger.cli.recover._is_somebody_there", lambda: True)
    done = CliRunner().invoke(main, ["recover", dcu.url], input="n\n")
    assert done.exit_code == 1
    assert "not recovered: nothing was sent" in done.output
    assert ask("detector/status/state") == "ready"


def test_the_command_and_no_address():
    done = CliRunner().invoke(main, ["recover", "http://"])
    assert done.exit_code == 2
    assert "is not the address of a DCU" in done.output
