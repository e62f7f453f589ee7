"""`raster`: lines of images where the motors are said to be, and what it refuses."""

import threading

import numpy as np
import pytest
from bluesky.simulators import check_limits, summarize_plan
from bluesky.utils import RunEngineInterrupted
from eiger_plans import SimulatedMotor, raster
from pulses import Pulses
from witness import Witness

from ophyd_eiger import EigerError, open_series

# Of each test's cases the short run takes every 2nd, see conftest.
SHORT_RUN_EVERY = 2

# In s, s and mm or degree; see test_rotation for why so slow.
EXPOSURE, PERIOD, STEP = 0.6, 0.8, 0.5
LINES, IMAGES = 2, 3


@pytest.fixture
def x():
    motor = SimulatedMotor(
        name="x", velocity=40, acceleration=0.05, limits=(-5, 50), largest_velocity=100
    )
    yield motor
    motor.stop()


@pytest.fixture
def y():
    motor = SimulatedMotor(
        name="y", velocity=40, acceleration=0.05, limits=(-5, 50), position=-2, egu="mm"
    )
    yield motor
    motor.stop()


@pytest.mark.parametrize(
    ("at_work", "how"),
    [
        (("eiger-500k", "datum"), {"axis": "omega"}),
        (("eiger2-500k", "stream"), {"one_series": True, "outside": True}),
        pytest.param(
            ("eiger2-500k", "stream"),
            {"axis": "phi", "snake": False, "outside": True},
            marks=pytest.mark.long,
        ),
        pytest.param(
            ("eiger-500k", "datum"),
            {"one_series": True, "goniometer": {"omega": 20.0}},
            marks=pytest.mark.long,
        ),
        pytest.param(("eiger2-500k", "stream"), {"axis": "chi"}, marks=pytest.mark.long),
    ],
    indirect=["at_work"],
)
def test_images_where_they_are_said_to_be(RE, documents, columns, at_work, x, y, how, capsys):
    dcu, eiger = at_work
    how = dict(how)
    snake, one_series = how.get("snake", True), how.get("one_series", False)
    source = Pulses(dcu, x) if how.pop("outside", False) else None
    eiger.configure({"filewriter.nimages_per_file": 7, "kappa_increment": 0.5})
    with Witness(dcu, x) as witness:
        grid = (y, 1.0, 0.25, LINES, x, 10.0, STEP, IMAGES)
        (uid,) = RE(raster(eiger, *grid, EXPOSURE, period=PERIOD, source=source, **how))
    forth = 10.0 + STEP * np.arange(IMAGES)
    # Backwards each image begins where it would end.
    back = 10.0 + STEP * np.arange(IMAGES, 0, -1)
    lines = np.array([back if snake and line % 2 else forth for line in range(LINES)])
    positions = columns("positions")
    assert np.allclose(positions["x"], lines.ravel())
    assert np.allclose(positions["y"], np.repeat([1.0, 1.25], IMAGES))
    # Armed once for each series; where pulses trigger, not before the motor is at its start.
    taken = [1] if one_series else [1, 2] if source is None else [2, 3]
    assert dcu.dcu.detector.series.series_id == taken[-1]
    places = np.concatenate([witness.positions(number, EXPOSURE)[0] for number in taken])
    directions = np.sign(lines[:, 1:2] - lines[:, :1])
    late = (places.reshape(lines.shape) - lines) * directions / STEP
    # In frames. A busy machine makes images late, and never early.
    assert -0.1 < late.min() <= late.max() < 0.5
    if source is not None:
        assert [was_taken for _, was_taken in source.given] == [True] * LINES
    else:
        assert np.abs(positions["x_readback"] - lines.ravel()).max() < STEP / 2
    masters = [file.path for file in eiger.fetched if file.path.name.endswith("_master.h5")]
    found = [open_series(path) for path in sorted(masters)]
    if axis := how.get("axis"):
        angles = np.array([getattr(series.metadata, axis) for series in found])
        assert np.allclose(angles, lines)
    for other, value in how.get("goniometer", {}).items():
        assert np.allclose(getattr(found[0].metadata, other), value)
    assert np.allclose(found[0].metadata.kappa, 0)
    images = np.concatenate([series[:] for series in found])
    numbers = range(1, LINES * IMAGES + 1) if one_series else range(1, IMAGES + 1)
    expected = np.array([dcu.image(series, n) for series in taken for n in numbers])
    assert np.array_equal(images, expected)
    views = np.concatenate([open_series(view)[:] for view in sorted(eiger.views)])
    assert np.array_equal(views, expected)
    # All is as it was.
    assert x.velocity.get() == 40
    settings = ("nimages", "ntrigger", "trigger_mode", "kappa_increment", "omega_start")
    assert [getattr(eiger.detector, key).get() for key in settings] == [1, 1, "ints", 0.5, 0]
    assert eiger.filewriter.nimages_per_file.get() == 7
    assert eiger.detector.state.get() == "idle"
    start, stop = documents[0][1], documents[-1][1]
    assert (start["plan_name"], start["motors"]) == ("raster", ["y", "x"])
    assert (start["shape"], start["snaking"]) == ((LINES, IMAGES), (False, snake))
    assert start["extents"] == ([1.0, 1.25], [10.0, 11.5])
    assert stop["num_events"]["primary"] == LINES
    assert stop["num_events"]["positions"] == LINES * IMAGES
    assert f"run {uid}" in capsys.readouterr().out


def interrupted(RE, at_work, y, x, command, *, one_series):
    """Take a raster, and give a command in its second line."""
    dcu, eiger = at_work
    with Witness(dcu, x) as witness:

        def give():
            assert witness.wait_for(4) if one_series else witness.wait_for_series(2, 1)
            command()

        thread = threading.Thread(target=give, daemon=True)
        thread.start()
        grid = (y, 1.0, 0.25, LINES, x, 10.0, STEP, IMAGES)
        with pytest.raises(RunEngineInterrupted):
            RE(raster(eiger, *grid, EXPOSURE, period=PERIOD, one_series=one_series))
        thread.join()


@pytest.mark.long
@pytest.mark.parametrize("one_series", [True, False])
def test_aborted_in_the_second_line(RE, documents, at_work, x, y, one_series):
    dcu, eiger = at_work
    interrupted(RE, at_work, y, x, lambda: RE.abort("enough"), one_series=one_series)
    stop = documents[-1][1]
    assert stop["exit_status"] == "abort"
    assert stop["num_events"]["primary"] == 1
    assert stop["num_events"]["positions"] == IMAGES
    number = 1
    assert np.array_equal(
        open_series(eiger.views[0])[:], [dcu.image(number, n + 1) for n in range(IMAGES)]
    )
    assert not x.moving
    assert x.velocity.get() == 40
    assert eiger.detector.state.get() == "idle"
    assert [eiger.detector.nimages.get(), eiger.detector.ntrigger.get()] == [1, 1]
    assert eiger.owed == {}


@pytest.mark.long
def test_halted_it_tells_the_motors_speed(RE, at_work, x, y, caplog):
    _, eiger = at_work
    interrupted(RE, at_work, y, x, RE.request_pause, one_series=True)
    RE.halt()
    assert "halted, so not put back: x_velocity to 40" in caplog.text
    x.stop()
    eiger.unstage()


@pytest.mark.long
def test_a_source_that_does_not_end_is_stopped(RE, at_work, x, y, monkeypatch):
    dcu, eiger = at_work
    monkeypatch.setattr("eiger_plans.flying.SEEN_WITHIN", 0.5)
    source = Pulses(dcu, x, ends=False)
    plan = raster(
        *(eiger, y, 1.0, 0.25, LINES, x, 10.0, STEP, 1, EXPOSURE),
        period=PERIOD,
        one_series=True,
        source=source,
    )
    with pytest.raises(EigerError, match=r"pulses did not give its last trigger"):
        RE(plan)
    assert source.stopped
    assert x.velocity.get() == 40
    assert eiger.detector.state.get() == "idle"


def test_lines_too_short_for_the_detectors_state_to_show_them(RE, documents, dcu, eiger, x, y):
    source = Pulses(dcu, x)
    grid = (y, 1.0, 0.25, LINES, x, 10.0, STEP, IMAGES)
    RE(raster(eiger, *grid, 0.01, period=0.02, one_series=True, source=source))
    assert documents[-1][1]["num_events"] == {"primary": LINES, "positions": LINES * IMAGES}
    # Of one series, or of each line: older releases of bluesky begin a stream anew.
    found = np.concatenate([open_series(view)[:] for view in sorted(eiger.views)])
    expected = [dcu.image(1, number + 1) for number in range(LINES * IMAGES)]
    assert np.array_equal(found, expected)


GRID = {
    "slow_start": 0,
    "slow_step": 1,
    "lines": 3,
    "fast_start": 0,
    "fast_step": 1,
    "images": 10,
    "exposure": 0.1,
}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"fast_step": 0}, "nothing would move"),
        ({"lines": 0}, "lines is 0"),
        ({"images": 0}, "images is 0"),
        ({"slow_step": float("inf")}, "slow_step is inf"),
        ({"one_series": True, "axis": "omega"}, "one start and one step"),
        ({"axis": "x"}, "'x' is no axis"),
        ({"fast_step": 11}, "speed of 110/s"),
        # The last line.
        ({"slow_start": 49}, "outside its limits"),
        ({"fast_start": 45}, r"to 58\.25 with run-up and overrun"),
        ({"exposure": 4000.0}, "outside"),
    ],
)
def test_what_is_refused_before_the_first_message(quiet_eiger, x, y, wrong, said):
    with pytest.raises(ValueError, match=said):
        next(raster(quiet_eiger, slow=y, fast=x, **{**GRID, **wrong}))


def test_a_grid_takes_two_motors(quiet_eiger, x):
    with pytest.raises(ValueError, match="slow and fast are both"):
        next(raster(quiet_eiger, slow=x, fast=x, **GRID))


@pytest.mark.long
def test_a_point_of_several_triggers_is_one_of_other_scans(RE, documents, eiger, x, y):
    eiger.triggers_per_point.set(2).wait(10)
    RE(raster(eiger, slow=y, fast=x, one_series=True, **GRID))
    assert documents[-1][1]["exit_status"] == "success"
    assert eiger.triggers_per_point.get() == 2


@pytest.mark.long
@pytest.mark.parametrize("at_work", [("eiger-500k", "datum")], indirect=True)
def test_aborted_after_a_pause_in_which_the_detector_exposed_on(
    RE, documents, at_work, x, y, caplog
):
    """A line of which the motor passed a part is none."""
    dcu, eiger = at_work
    with Witness(dcu, x) as witness:

        def pause():
            assert witness.wait_for_series(2, 1)
            RE.request_pause()

        thread = threading.Thread(target=pause, daemon=True)
        thread.start()
        with pytest.raises(RunEngineInterrupted):
            RE(raster(eiger, y, 1.0, 0.25, LINES, x, 10.0, STEP, IMAGES, EXPOSURE, period=PERIOD))
        thread.join()
        assert witness.wait_for_series(2, IMAGES)
        RE.abort()
    assert documents[-1][1]["num_events"]["primary"] == 1
    assert "1 points are left out of the run, because x stopped" in caplog.text
    assert eiger.owed == {}


@pytest.mark.parametrize("one_series", [False, True])
def test_without_a_run_engine(RE, eiger, x, y, one_series, capsys):
    summarize_plan(raster(eiger, slow=y, fast=x, one_series=one_series, **GRID))
    printed = capsys.readouterr().out.splitlines()
    # At 10/s: 0.25 until it is reached in 0.05 s, and 3 more in 0.3 s.
    ways = [line for line in printed if line.startswith(("x ", "y "))]
    assert ways == [
        *("x -> -3.25", "y -> 0", "x -> 13.25"),
        *("x -> 13.25", "y -> 1", "x -> -3.25"),
        *("x -> -3.25", "y -> 2", "x -> 13.25"),
    ]
    check_limits(raster(eiger, slow=y, fast=x, one_series=one_series, **GRID))
