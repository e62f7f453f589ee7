"""What a queue of plans needs to know of a plan is in its signature."""

import ast
import inspect
import typing

import eiger_plans
import pytest

PLANS = [
    plan
    for plan in (getattr(eiger_plans, name) for name in eiger_plans.__all__)
    if inspect.isgeneratorfunction(plan)
]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.__name__)
def test_a_plan_can_be_queued(plan):
    hints = typing.get_type_hints(plan)
    for name, parameter in inspect.signature(plan).parameters.items():
        # Where anything is taken, a queue would hand on a device's name and not the device.
        assert hints[name] not in (typing.Any, object), name
        if parameter.default is not parameter.empty:
            assert ast.literal_eval(repr(parameter.default)) == parameter.default
        assert (
            f"{name} : " in plan.__doc__
            or f"{name}, " in plan.__doc__
            or f", {name}" in (plan.__doc__)
        )


def test_which_are_plans():
    names = {plan.__name__ for plan in PLANS}
    assert {"series", "snap", "exposure_series", "rotation", "raster", "recover"} <= names
    # They make no messages of their own.
    assert names.isdisjoint({"armed_once", "files_home", "suspenders"})


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.__name__)
def test_a_forgotten_detector_is_told_before_the_first_message(plan):
    needed = [
        parameter
        for parameter in inspect.signature(plan).parameters.values()
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
    ]
    assert needed[0].name == "eiger"
    said = rf"^{plan.__name__} takes the detector first, .*\(eiger, \.\.\.\), and 0\.1 is no Eiger"
    with pytest.raises(TypeError, match=said):
        next(plan(*[0.1] * len(needed)))
