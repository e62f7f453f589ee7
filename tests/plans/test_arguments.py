"""Numbers that are none are refused by each plan that takes one, before its first message."""

import inspect
import math
import typing

import pytest
from eiger_plans import SimulatedMotor
from ophyd import Signal
from test_signatures import PLANS

NAN, INF = math.nan, math.inf
# What a plan cannot do without.
NEEDED = {
    "series": {"exposure": 0.1},
    "snap": {"exposure": 0.1},
    "exposure_series": {"shortest": 0.1, "longest": 1.0, "number": 3},
    "energy_scan": {"energies": [8000.0]},
    "threshold_scan": {"thresholds": [4000.0 + 500 * number for number in range(9)]},
    "rotation": {"start": 0, "step": 1, "images": 5, "exposure": 0.1},
    "raster": {
        "slow_start": 0,
        "slow_step": 1,
        "lines": 3,
        "fast_start": 0,
        "fast_step": 1,
        "images": 5,
        "exposure": 0.1,
    },
}


def spoiled(hint, given, number):
    """Return a value of this type with a number that is none, or None where it has no number."""
    kinds = str(hint)
    if "float" not in kinds:
        return None
    if "dict[" in kinds:
        return {"phi": number}
    if "tuple[" in kinds:
        return (number, 40.0)
    if "list[" in kinds or "Sequence[" in kinds:
        return [*(given or [0.1]), number]
    return number


def cases():
    for plan in PLANS:
        hints = typing.get_type_hints(plan)
        given = NEEDED.get(plan.__name__, {})
        for name in inspect.signature(plan).parameters:
            for number in (NAN, INF):
                value = spoiled(hints[name], given.get(name), number)
                if value is not None:
                    yield pytest.param(plan, name, value, id=f"{plan.__name__}-{name}-{number}")


@pytest.mark.parametrize(("plan", "name", "value"), list(cases()))
def test_what_is_not_finite_is_refused_before_the_first_message(quiet_eiger, plan, name, value):
    args = {**NEEDED.get(plan.__name__, {}), name: value}
    if name == "exposures":
        args = {name: value}
    parameters = inspect.signature(plan).parameters
    for device in {"motor", "slow", "fast"} & parameters.keys():
        args[device] = SimulatedMotor(name=device)
    if "shutter" in parameters:
        args["shutter"] = Signal(name="shutter")
    if "axis" in parameters and plan.__name__ == "rotation":
        args["axis"] = "omega"
    with pytest.raises(ValueError, match=r"nan|inf"):
        next(plan(quiet_eiger, **args))
