"""`armed_once`: any plan with one arm, its images the oracle's, the settings as before."""

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest
from bluesky.simulators import RunEngineSimulator, summarize_plan
from bluesky.utils import FailedStatus
from eiger_plans import SimulatedMotor, armed_once, exposure_series, rotation
from ophyd.sim import det, motor, motor1, motor2

# Of each test's cases the short run takes every 2nd, see conftest.
SHORT_RUN_EVERY = 2

TELLING = {
    "count": lambda eiger: bp.count([eiger], 3),
    "count beside another": lambda eiger: bp.count([eiger, det], 3),
    "scan": lambda eiger: bp.scan([eiger], motor, 0, 1, 3),
    "grid_scan": lambda eiger: bp.grid_scan([eiger], motor1, 0, 1, 2, motor2, 0, 1, 2),
    "list_scan": lambda eiger: bp.list_scan([eiger], motor, [0, 3, 1]),
    "rel_scan": lambda eiger: bp.rel_scan([eiger], motor, -1, 1, 3),
    "spiral": lambda eiger: bp.spiral([eiger], motor1, motor2, 0, 0, 1, 1, 0.3, 3),
}
NOT_TELLING = {
    "adaptive": lambda eiger: bp.adaptive_scan(
        [eiger, det], "det", motor, -1, 1, 0.2, 1, 0.3, True
    ),
    "a run without a number": lambda eiger: bpp.stage_wrapper(
        bpp.run_wrapper(bps.repeat(lambda: bps.trigger_and_read([eiger]), 3)), [eiger]
    ),
}


def right(dcu, ids):
    """Return the oracle's image of each event, whose series are numbered so."""
    taken: dict[int, int] = {}
    expected = []
    for series in ids:
        taken[series] = taken.get(series, 0) + 1
        expected.append([dcu.image(series, taken[series])])
    return np.array(expected)


@pytest.mark.parametrize("plan", [*TELLING, *NOT_TELLING])
def test_one_arm_for_all_points(RE, documents, images_of, dcu, eiger, commands, plan):
    eiger.detector.ntrigger.set(2).wait(10)
    commands.clear()
    (uid,) = RE(armed_once(eiger)({**TELLING, **NOT_TELLING}[plan](eiger)))
    sent = commands()
    found, ids = images_of(uid)
    assert len(ids) >= 3
    assert sent.count("arm") == 1
    assert sent.count("trigger") == len(ids)
    # One that is used up ends by itself, any other is ended in good order.
    assert ("cancel" in sent) is (plan in NOT_TELLING)
    assert "abort" not in sent
    assert np.array_equal(found, right(dcu, ids))
    assert eiger.detector.ntrigger.get() == 2
    assert eiger.detector.state.get() == "idle"
    assert documents[-1][1]["exit_status"] == "success"


def test_a_decorator_of_several_runs(RE, eiger, commands):
    @armed_once(eiger)
    def mine(points):
        """Two scans."""
        yield from bp.scan([eiger], motor, 0, 1, points)
        return (yield from bp.count([eiger], 2))

    assert mine.__doc__ == "Two scans."
    assert len(RE(mine(3))) == 2
    assert [command for command in commands() if command in ("arm", "trigger")] == [
        *("arm", "trigger", "trigger", "trigger"),
        *("arm", "trigger", "trigger"),
    ]


def test_several_runs_of_one_stage_and_a_stage_within_a_run(RE, eiger, commands):
    def run(points):
        md = {"num_points": points}
        return bpp.run_wrapper(bps.repeat(lambda: bps.trigger_and_read([eiger]), points), md=md)

    once = armed_once(eiger)
    RE(once(bpp.stage_wrapper(bps.repeat(lambda: run(2), 2), [eiger])))
    assert commands().count("arm") == 2
    commands.clear()
    inside = bpp.stage_wrapper(bps.repeat(lambda: bps.trigger_and_read([eiger]), 3), [eiger])
    RE(once(bpp.run_wrapper(inside, md={"num_points": 3})))
    assert commands().count("arm") == 1


def test_as_a_preprocessor_of_the_run_engine(RE, eiger, commands):
    RE.preprocessors.append(armed_once(eiger))
    RE(bp.count([eiger], 3))
    RE(bp.count([det], 2))
    assert commands().count("arm") == 1


def test_plans_that_arm_by_themselves_are_left_alone(RE, eiger, commands):
    RE.preprocessors.append(armed_once(eiger))
    omega = SimulatedMotor(name="omega", velocity=40, acceleration=0.05, largest_velocity=100)
    for plan, triggers in (
        (rotation(eiger, omega, 0, 1, 4, 0.05), 1),
        (exposure_series(eiger, [0.01, 0.02]), 2),
    ):
        commands.clear()
        RE(plan)
        sent = commands()
        assert (sent.count("arm"), sent.count("trigger")) == (1, triggers)
        assert (eiger.detector.ntrigger.get(), eiger.detector.nimages.get()) == (1, 1)


def test_what_a_plan_put_meanwhile_is_not_put_back_to_what_it_had(RE, eiger):
    def mine():
        yield from bps.mv(eiger.detector.ntrigger, 5)
        yield from bp.count([eiger], 5)
        yield from bps.mv(eiger.detector.ntrigger, 3)

    RE(armed_once(eiger)(mine()))
    assert eiger.detector.ntrigger.get() == 3


def test_a_number_of_points_of_numpys(RE, eiger, commands):
    RE(armed_once(eiger)(bp.count([eiger], np.int64(3))))
    assert "cancel" not in commands()


def test_points_that_are_given(RE, images_of, dcu, eiger, commands):
    (uid,) = RE(armed_once(eiger, points=2)(bp.count([eiger], 3)))
    found, ids = images_of(uid)
    assert np.array_equal(found, right(dcu, ids))
    assert commands().count("arm") == 2


def test_several_triggers_a_point(RE, images_of, eiger, commands):
    eiger.configure({"nimages": 1, "trigger_mode": "inte"})
    eiger.exposure.set([0.01, 0.02]).wait(10)
    commands.clear()
    (uid,) = RE(armed_once(eiger)(bp.count([eiger], 3)))
    assert images_of(uid)[0].shape[:2] == (3, 2)
    assert commands().count("arm") == 1
    assert commands().count("trigger") == 6


def test_a_plan_that_fails_leaves_the_settings_as_they_were(RE, eiger):
    @bpp.stage_decorator([eiger])
    @bpp.run_decorator(md={"num_points": 5})
    def failing():
        yield from bps.trigger_and_read([eiger])
        raise RuntimeError("the sample fell off")

    with pytest.raises(RuntimeError, match="fell off"):
        RE(armed_once(eiger)(failing()))
    assert eiger.detector.ntrigger.get() == 1
    assert eiger.detector.state.get() == "idle"


def test_after_an_arm_that_was_refused_the_next_is_for_all_points_again(RE, dcu, eiger, commands):
    dcu.faults.set("refuse:command=arm,times=1")

    def tries_again():
        with pytest.raises(FailedStatus, match="refused on request"):
            yield from bp.count([eiger], 1)
        commands.clear()
        yield from bp.count([eiger], 3)

    RE(armed_once(eiger)(tries_again()))
    sent = commands()
    assert (sent.count("arm"), sent.count("trigger")) == (1, 3)
    assert eiger.detector.ntrigger.get() == 1


def test_the_messages_are_those_of_the_plan_with_the_stage_where_the_run_begins(eiger, capsys):
    listed = [m.command for m in RunEngineSimulator().simulate_plan(bp.count([eiger], 2))]
    messages = RunEngineSimulator().simulate_plan(armed_once(eiger)(bp.count([eiger], 2)))
    commands = [m.command for m in messages]
    assert commands.index("set") < commands.index("stage") < commands.index("open_run")
    assert [m.args for m in messages if m.command == "set"] == [(2,)]
    after = listed[listed.index("open_run") :]
    begins = commands.index("open_run")
    assert commands[begins : begins + len(after)] == after
    summarize_plan(armed_once(eiger)(bp.count([eiger], 2)))
    assert capsys.readouterr().out.count("Read ['eiger']") == 2


def test_what_makes_no_sense(eiger):
    for none in ((), ([],)):
        with pytest.raises(TypeError, match="needs a detector"):
            armed_once(*none)
    for wrong in ("eiger", [eiger, "motor"], motor):
        with pytest.raises(TypeError, match=r"armed_once\(eiger\), and '?\w+'? is no Eiger"):
            armed_once(wrong)
    with pytest.raises(ValueError, match="points is 0"):
        armed_once(eiger, points=0)
    for wrong in (2.5, "3"):
        with pytest.raises(TypeError, match=rf"points is {wrong!r}; it is a whole number"):
            armed_once(eiger, points=wrong)
