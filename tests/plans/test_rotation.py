"""`rotation`: the files' angles are those of the motor, and what it refuses."""

import re
import threading

import numpy as np
import pytest
from bluesky.simulators import check_limits, summarize_plan
from bluesky.utils import FailedStatus, RunEngineInterrupted
from eiger_plans import SimulatedMotor, rotation
from ophyd import EpicsMotor
from ophyd.sim import SynAxis, SynSignal, make_fake_device
from pulses import Pulses
from witness import Witness

from ophyd_eiger import EigerError, open_series

# Of each test's cases the short run takes every 2nd, see conftest.
SHORT_RUN_EVERY = 2

# In s, s and degree; half a frame is what a busy machine may take between two steps of a plan.
EXPOSURE, PERIOD, STEP = 0.6, 0.8, 0.5


@pytest.fixture
def omega():
    motor = SimulatedMotor(
        name="omega", velocity=40, acceleration=0.1, limits=(-20, 400), largest_velocity=100
    )
    yield motor
    motor.stop()


def master(eiger):
    (path,) = [file.path for file in eiger.fetched if file.path.name.endswith("_master.h5")]
    return open_series(path)


@pytest.mark.parametrize(
    ("at_work", "step", "axis", "outside"),
    [
        (("eiger-500k", "datum"), STEP, "omega", False),
        (("eiger2-500k", "stream"), -STEP, "phi", True),
        pytest.param(("eiger2-500k", "datum"), -STEP, "chi", False, marks=pytest.mark.long),
        pytest.param(("eiger-500k", "stream"), STEP, "kappa", True, marks=pytest.mark.long),
    ],
    indirect=["at_work"],
)
def test_the_files_angles_are_those_of_the_motor(
    RE, documents, columns, at_work, omega, step, axis, outside, capsys
):
    dcu, eiger = at_work
    # What the last user left; the other axes stand now.
    eiger.configure({"two_theta_increment": 0.25, "two_theta_start": 3.0, f"{axis}_start": 7.0})
    source = Pulses(dcu, omega) if outside else None
    eiger.triggers_per_point.put(1 if outside else 2)
    standing = {"kappa": 12.5} if axis != "kappa" else {"omega": 12.5}
    with Witness(dcu, omega) as witness:
        how = {"period": PERIOD, "axis": axis, "goniometer": standing, "source": source}
        (uid,) = RE(rotation(eiger, omega, 10.0, step, 4, EXPOSURE, **how))
    series = master(eiger)
    found = getattr(series.metadata, axis)
    assert np.allclose(found, 10.0 + step * np.arange(4))
    # Armed once; where pulses trigger, when the motor is at its start, and not for them before.
    number = 2 if outside else 1
    assert dcu.dcu.detector.series.series_id == number
    begins, _ = witness.positions(number, EXPOSURE)
    late = (begins - found) / step
    # In frames. A busy machine makes images late, and never early.
    assert -0.1 < late.min() <= late.max() < 0.5
    still = next(iter(standing))
    assert np.allclose(getattr(series.metadata, still), 12.5)
    assert np.allclose(series.metadata.two_theta, 3.0)
    expected = np.array([dcu.image(number, n) for n in range(1, 5)])
    assert np.array_equal(series[:], expected)
    (view,) = eiger.views
    assert np.array_equal(open_series(view)[:], expected)
    positions = columns("positions")
    assert np.allclose(positions["omega"], found)
    if outside:
        assert [taken for _, taken in source.given] == [True] * 4
    else:
        assert np.abs(positions["omega_readback"] - begins).max() < abs(step) / 2
    # All is as it was.
    assert omega.velocity.get() == 40
    assert not omega.moving
    settings = ("two_theta_increment", "two_theta_start", f"{axis}_start", f"{axis}_increment")
    assert [getattr(eiger.detector, key).get() for key in settings] == [0.25, 3.0, 7.0, 0.0]
    assert [eiger.detector.nimages.get(), eiger.detector.ntrigger.get()] == [1, 1]
    assert eiger.detector.trigger_mode.get() == "ints"
    assert eiger.triggers_per_point.get() == (1 if outside else 2)
    assert eiger.detector.state.get() == "idle"
    start, stop = documents[0][1], documents[-1][1]
    assert (start["plan_name"], start["motors"], start["num_points"]) == ("rotation", ["omega"], 4)
    assert start["rotation"]["speed"] == pytest.approx(STEP / PERIOD, rel=1e-4)
    assert stop["num_events"]["primary"] == stop["num_events"]["positions"] == 4
    assert f"run {uid}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("pauses", "taken_again"),
    [
        pytest.param(False, False, marks=pytest.mark.long),
        pytest.param(True, False, marks=pytest.mark.long),
        pytest.param(True, True, marks=pytest.mark.long),
    ],
)
def test_interrupted_in_the_middle(
    RE, catalog, documents, columns, at_work, omega, pauses, taken_again
):
    dcu, eiger = at_work
    images = 5 if taken_again else 30
    plan = rotation(eiger, omega, 0.0, STEP, images, EXPOSURE, period=PERIOD)
    moved = []
    RE.subscribe(lambda *_: moved.append(omega.moving), "stop")
    with Witness(dcu, omega) as witness:

        def interrupt():
            assert witness.wait_for(3)
            RE.request_pause() if pauses else RE.abort("enough")

        thread = threading.Thread(target=interrupt, daemon=True)
        thread.start()
        with pytest.raises(RunEngineInterrupted):
            RE(plan)
        if taken_again:
            RE.resume()
        elif pauses:
            RE.abort("enough")
        thread.join()
    stop = documents[-1][1]
    assert stop["exit_status"] == ("success" if taken_again else "abort")
    events = stop["num_events"]["primary"]
    assert events == stop["num_events"]["positions"]
    assert events == 5 if taken_again else 3 <= events < 30
    series = open_series(eiger.views[-1])
    number = 2 if taken_again else 1
    assert len(series) == events
    expected = [dcu.image(number, n + 1) for n in range(events)]
    assert np.array_equal(series[:], expected)
    found = np.asarray(catalog[documents[0][1]["uid"]].primary.read()["eiger_image"])
    assert np.array_equal(found[:, 0], expected)
    positions = columns("positions")
    at_angle = np.abs(positions["omega_readback"] - positions["omega"]) < STEP / 2
    assert at_angle[:2].all()
    assert at_angle.all() or not taken_again
    assert omega.velocity.get() == 40
    # bluesky itself stops motors too, but not before the run is over.
    assert moved == [False]
    assert not omega.moving
    assert eiger.detector.state.get() == "idle"
    assert eiger.detector.omega_increment.get() == 0
    assert eiger.owed == {}


@pytest.mark.long
def test_a_motor_that_stops_on_its_way(RE, documents, at_work, omega):
    dcu, eiger = at_work
    with Witness(dcu, omega) as witness:

        def trip():
            assert witness.wait_for(2)
            omega.stop()

        thread = threading.Thread(target=trip, daemon=True)
        thread.start()
        with pytest.raises(FailedStatus):
            RE(rotation(eiger, omega, 0.0, STEP, 30, EXPOSURE, period=PERIOD))
        thread.join()
    stop = documents[-1][1]
    assert stop["exit_status"] == "fail"
    assert 2 <= stop["num_events"]["primary"] < 30
    assert eiger.detector.state.get() == "idle"
    assert omega.velocity.get() == 40


def turn_until_the_third_image(RE, eiger, omega, witness, then):
    """Begin a rotation of 30 images, and do something when three are taken."""

    def strike():
        assert witness.wait_for(3)
        then()

    thread = threading.Thread(target=strike, daemon=True)
    thread.start()
    try:
        RE(rotation(eiger, omega, 0.0, STEP, 30, EXPOSURE, period=PERIOD))
    finally:
        thread.join()


def assert_no_image_of_a_motor_that_stood(documents, columns, eiger, dcu, least):
    """Every event is an image that was over while the motor moved, and the views have no other."""
    stop = documents[-1][1]
    events = stop["num_events"]["primary"]
    assert least <= events < 30
    assert events == stop["num_events"]["positions"]
    positions = columns("positions")
    assert (np.abs(positions["omega_readback"] - positions["omega"]) < STEP / 2).all()
    series = open_series(eiger.views[-1])
    assert len(series) == events
    assert np.array_equal(series[-1], dcu.image(1, events))
    assert eiger.owed == {}


@pytest.mark.parametrize(
    "at_work", [("eiger-500k", "datum"), ("eiger2-500k", "stream")], indirect=True
)
def test_a_motor_that_somebody_else_stops_in_good_order(RE, documents, columns, at_work, omega):
    """As a motor record tells of a STOP that came from another screen: it succeeded."""
    dcu, eiger = at_work
    with Witness(dcu, omega) as witness:
        said = r"omega stands at .* and was to go to .* somebody else"
        with pytest.raises(EigerError, match=said):
            turn_until_the_third_image(RE, eiger, omega, witness, lambda: omega.stop(success=True))
    assert documents[-1][1]["exit_status"] == "fail"
    assert_no_image_of_a_motor_that_stood(documents, columns, eiger, dcu, least=2)


@pytest.mark.long
@pytest.mark.parametrize(
    "at_work", [("eiger2-500k", "datum"), ("eiger-500k", "stream")], indirect=True
)
def test_ended_after_a_pause_in_which_the_detector_exposed_on(
    RE, documents, columns, at_work, omega, caplog
):
    """bluesky stops motors where a plan is paused, and knows of no detector."""
    dcu, eiger = at_work
    with Witness(dcu, omega) as witness:
        with pytest.raises(RunEngineInterrupted):
            turn_until_the_third_image(RE, eiger, omega, witness, RE.request_pause)
        assert witness.wait_for(6)
        assert not omega.moving
        RE.stop()
    assert documents[-1][1]["exit_status"] == "success"
    assert_no_image_of_a_motor_that_stood(documents, columns, eiger, dcu, least=2)
    assert "are left out of the run, because omega stopped" in caplog.text


@pytest.mark.long
def test_a_trigger_that_the_detector_does_not_take(RE, at_work, omega, monkeypatch):
    dcu, eiger = at_work
    monkeypatch.setattr("eiger_plans.flying.SEEN_WITHIN", 0.5)
    source = Pulses(dcu, omega, loses=1)
    plan = rotation(eiger, omega, 0.0, STEP, 3, EXPOSURE, period=PERIOD, source=source)
    with pytest.raises(Exception, match=r"pulses gave its last trigger .* images are missing"):
        RE(plan)
    assert source.stopped
    assert eiger.detector.state.get() == "idle"
    assert omega.velocity.get() == 40


def test_a_source_that_does_not_end(RE, at_work, omega, monkeypatch):
    dcu, eiger = at_work
    monkeypatch.setattr("eiger_plans.flying.SEEN_WITHIN", 0.5)
    source = Pulses(dcu, omega, ends=False)
    plan = rotation(eiger, omega, 0.0, STEP, 1, EXPOSURE, period=PERIOD, source=source)
    with pytest.raises(EigerError, match=r"pulses did not give its last trigger"):
        RE(plan)
    assert source.stopped
    assert eiger.detector.state.get() == "idle"
    assert omega.velocity.get() == 40


GOOD = {"start": 0, "step": 1, "images": 10, "exposure": 0.1}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"step": 0}, "nothing would turn"),
        ({"images": 0}, "images is 0"),
        ({"images": 2.5}, "images is 2.5"),
        ({"exposure": -1}, "above 0"),
        ({"start": float("nan")}, "start is nan"),
        ({"step": "1"}, "step is '1'"),
        ({"axis": "theta"}, "'theta' is no axis"),
        ({"goniometer": {"omega": 3}}, "omega turns"),
        ({"step": 11}, r"speed of 110/s, outside its limits \[0, 100\]"),
        # 10 degree/s take 0.1 s to reach, which is 0.5 degree, and 3 degree in 0.3 s.
        ({"start": -16.6}, r"take it from -20\.1 to -3\.1 .* outside its limits \[-20, 400\]"),
        ({"start": 390}, r"to 403\.5 with run-up and overrun"),
        ({"start": -7, "step": -1}, r"from -3\.5 to -20\.5"),
        ({"exposure": 4000.0}, "outside"),
        ({"source": Pulses(None, None)}, "give period"),
    ],
)
def test_what_is_refused_before_the_first_message(quiet_eiger, omega, wrong, said):
    with pytest.raises((ValueError, TypeError), match=said):
        next(rotation(quiet_eiger, omega, **{**GOOD, **wrong}))


def test_what_the_detector_cannot_do_opens_no_run(RE, documents, eiger, omega):
    with pytest.raises(ValueError, match=r"cannot follow each other every 0\.05 s"):
        RE(rotation(eiger, omega, **GOOD, period=0.05))
    source = Pulses(None, omega)
    with pytest.raises(ValueError, match=r"cannot be triggered every 0\.1 s"):
        RE(rotation(eiger, omega, **GOOD, period=0.1, source=source))
    with pytest.raises(TypeError, match="velocity, acceleration and position"):
        RE(rotation(eiger, SynSignal(name="temperature"), **GOOD))
    assert documents == []
    assert omega.position == 0


def test_a_motor_record(RE, eiger, capsys):
    """What an EpicsMotor tells of itself is what the way is computed from."""
    motor = make_fake_device(EpicsMotor)("", name="phi")
    motor.acceleration.sim_put(0.2)
    motor.velocity.sim_put(5.0)
    motor.velocity.sim_set_limits((0.1, 20))
    motor.user_setpoint.sim_set_limits((-5, 20))
    summarize_plan(rotation(eiger, motor, **GOOD, axis="phi"))
    # At 10 degree/s: 1 degree until it is reached, and 3 degree more.
    assert re.findall(r"^phi -> (\S+)", capsys.readouterr().out, re.MULTILINE) == ["-4.0", "14.0"]
    check_limits(rotation(eiger, motor, **GOOD, axis="phi"))
    with pytest.raises(ValueError, match=r"outside its limits \[-5, 20\]"):
        next(rotation(eiger, motor, **{**GOOD, "start": 8}))
    with pytest.raises(ValueError, match=r"30/s, outside its limits \[0\.1, 20\]"):
        next(rotation(eiger, motor, **{**GOOD, "step": 3}))


@pytest.mark.long
def test_a_motor_that_keeps_an_acceleration(RE, documents, eiger, omega, monkeypatch):
    """20 degree/s^2 and not a time, as a motor record with ACCU: 0.1 s to 2 degree/s, 0.5 s to 10.

    It is to be at full speed for 0.3 s before its first image, 2.5 and 3 degree from where it set
    out.
    """
    put, slower = omega.velocity.put, 1

    def keeps(value, **kwargs):
        put(value, **kwargs)
        omega.acceleration.put(slower * value / 20)

    monkeypatch.setattr(omega.velocity, "put", keeps)
    omega.velocity.put(2)
    RE(rotation(eiger, omega, 0, 1, 2, 0.1))
    assert documents[0][1]["rotation"]["run_up"] == pytest.approx(5.5, rel=1e-3)
    assert [omega.velocity.get(), omega.acceleration.get()] == [2, pytest.approx(0.1)]
    documents.clear()
    # With 0.1 s it set out from -19.5.
    with pytest.raises(ValueError, match=r"take it from -21\.\d+ .* outside its limits"):
        RE(rotation(eiger, omega, -16, 1, 2, 0.1))
    assert documents == []
    assert omega.velocity.get() == 2

    def make_it_slower(*_):
        nonlocal slower
        slower = 2

    RE.subscribe(make_it_slower, "start")
    with pytest.raises(ValueError, match=r"omega takes \S+ s to \S+/s"):
        RE(rotation(eiger, omega, 0, 1, 2, 0.1))
    assert omega.velocity.get() == 2


def test_a_motor_of_ophyd_that_does_not_heed_its_speed(RE, documents, columns, eiger, caplog):
    """It comes to a tenth of its way every 0.05 s, whatever its velocity is."""
    motor = SynAxis(name="theta", delay=0.5, events_per_move=10)
    motor.acceleration.put(0.1)
    RE(rotation(eiger, motor, 0, 1, 5, 0.1))
    assert documents[-1][1]["num_events"] == {"primary": 5, "positions": 5}
    assert "theta was not where the images are said to be: image " in caplog.text
    assert "source= takes hardware" in caplog.text
    assert columns("positions")["theta"].tolist() == [0, 1, 2, 3, 4]


def test_without_a_run_engine(RE, eiger, omega, capsys):
    summarize_plan(rotation(eiger, omega, **GOOD))
    printed = capsys.readouterr().out.splitlines()
    # At 10 degree/s: 0.5 degree until it is reached, and 3 degree more.
    assert [line for line in printed if line.startswith("omega ")] == [
        "omega -> -3.5",
        "omega -> 13.5",
    ]
    assert "eiger_detector_omega_increment -> 1.0" in printed
    check_limits(rotation(eiger, omega, **GOOD))
    assert omega.position == 0
