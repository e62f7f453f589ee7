"""The simulated motor: its motions against formulas, and its verbs."""

import threading

import numpy as np
import pytest
from bluesky.plans import scan
from bluesky.simulators import check_limits
from eiger_plans.simulated_motor import Motion, SimulatedMotor
from ophyd.utils import LimitError, ReadOnlyError


@pytest.fixture
def motor():
    device = SimulatedMotor(
        name="omega", velocity=50, acceleration=0.05, limits=(-10, 400), largest_velocity=300
    )
    yield device
    device.stop()


def sampled(motion):
    times = np.linspace(motion.began, motion.ends, 20001)
    position, velocity = np.transpose([motion.at(when) for when in times])
    return times, position, velocity


@pytest.mark.parametrize("direction", [1, -1])
def test_a_move_speeds_up_goes_on_and_slows_down(direction):
    # With 4 units/s^2 to 2 units/s takes 0.5 s and 0.5 units; 9 units are left at speed.
    motion = Motion(0.0, 1.0).turned_to(1.0 + 10.0 * direction, 5.0, speed=2.0, rate=4.0)
    way = {5.0: 0.0, 5.25: 0.125, 5.5: 0.5, 6.5: 2.5, 10.0: 9.5, 10.25: 9.875, 10.5: 10.0}
    for when, gone in way.items():
        assert motion.at(when)[0] == pytest.approx(1.0 + direction * gone)
    assert motion.ends == pytest.approx(10.5)
    assert motion.at(11.0) == (pytest.approx(1.0 + 10.0 * direction), 0.0)


def test_a_short_move_does_not_reach_full_speed():
    motion = Motion(0.0, 0.0).turned_to(0.25, 0.0, speed=2.0, rate=4.0)
    assert motion.ends == pytest.approx(0.5)
    assert motion.at(0.25) == (pytest.approx(0.125), pytest.approx(1.0))


@pytest.mark.parametrize("target", [30.0, 2.5, -30.0])
def test_a_move_that_is_turned_neither_jumps_nor_jerks(target):
    first = Motion(0.0, 0.0).turned_to(100.0, 0.0, speed=5.0, rate=10.0)
    motion = first.turned_to(target, 1.0, speed=5.0, rate=10.0)
    times, position, velocity = sampled(motion)
    assert position[0] == pytest.approx(first.at(1.0)[0])
    assert velocity[0] == pytest.approx(5.0)
    assert position[-1] == pytest.approx(target)
    assert np.allclose(np.gradient(position, times), velocity, atol=0.02)
    assert np.abs(np.gradient(velocity, times)).max() < 10.01


def test_it_tells_where_it_is_until_it_is_there(motor):
    told = []
    motor.subscribe(lambda value, timestamp, **_: told.append((timestamp, value)))
    status = motor.set(8.0)
    assert motor.moving
    status.wait(10)
    assert not motor.moving
    assert motor.read()["omega"]["value"] == pytest.approx(8.0)
    times, values = np.transpose(told)
    assert (np.diff(times) > 0).all()
    assert (np.diff(values) >= 0).all()
    assert len(values) > 3


@pytest.mark.parametrize("success", [True, False])
def test_stop_ends_the_move_before_its_end(motor, success):
    begun = threading.Event()
    motor.subscribe(lambda value, **_: value > 1 and begun.set())
    status = motor.set(400.0)
    assert begun.wait(10)
    motor.stop(success=success)
    raised = status.exception(timeout=10)
    assert (raised is None) is success
    while motor.moving:
        begun.wait(0.01)
    assert 1 < motor.position < 400
    # Another move while it slows down is none that was stopped.
    status = motor.set(400.0)
    motor.stop()
    motor.set(2.0).wait(10)
    assert motor.position == pytest.approx(2.0)


def test_a_new_move_takes_the_place_of_the_old(motor):
    first = motor.set(400.0)
    motor.set(-1.0).wait(10)
    assert first.exception(timeout=10) is not None
    assert motor.position == pytest.approx(-1.0)


def test_what_it_does_not_take(RE, motor):
    with pytest.raises(LimitError, match=r"401 deg is outside its limits \[-10, 400\]"):
        motor.set(401)
    for wrong in (float("nan"), "x", None, [3]):
        with pytest.raises(LimitError, match="no position"):
            motor.set(wrong)
    for wrong in (0, "x", None):
        with pytest.raises(LimitError, match="not above 0"):
            motor.velocity.set(wrong)
    with pytest.raises(LimitError, match="above the largest, 300"):
        motor.velocity.set(301)
    with pytest.raises(ReadOnlyError, match=r"omega.set\(\)"):
        motor.readback.put(1)
    with pytest.raises(ReadOnlyError, match="no dial"):
        motor.user_offset.put(1)
    with pytest.raises(LimitError, match="outside its limits"):
        check_limits(scan([], motor, 0, 401, 3))
    assert motor.position == 0.0


def test_a_scan_of_it(RE, catalog, motor):
    (uid,) = RE(scan([motor], motor, 0, 2, 3))
    found = catalog[uid].primary.read()["omega"]
    assert np.allclose(found, [0, 1, 2])


def test_a_move_to_where_it_is_divides_by_nothing(motor):
    """With what plans give, a number of numpy, and a progress bar; a warning is an error here."""
    status = motor.set(np.float64(0.0))
    told = []
    status.watch(lambda **what: told.append(what["current"]))
    status.wait(10)
    assert set(told) <= {0.0}
