"""What makes no sense is refused by each plan that takes it, before its first message."""

import inspect
import math
import typing
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from eiger_plans import SimulatedMotor, energy_scan, exposure_series, rotation, series
from ophyd import Signal
from test_signatures import PLANS

from ophyd_eiger import EigerError
from ophyd_eiger.signals import LimitError

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


def begun(plan, eiger, name, value):
    """Ask a plan for its first message, all arguments right but one."""
    args = {**NEEDED.get(plan.__name__, {}), name: value}
    if name == "exposures":
        args = {name: value}
    parameters = inspect.signature(plan).parameters
    for device in {"motor", "slow", "fast"} & parameters.keys() - {name}:
        args[device] = SimulatedMotor(name=device)
    if "shutter" in parameters and name != "shutter":
        args["shutter"] = Signal(name="shutter")
    if plan.__name__ == "rotation" and name != "axis":
        args["axis"] = "omega"
    next(plan(eiger, **args))


@pytest.mark.parametrize(("plan", "name", "value"), list(cases()))
def test_what_is_not_finite_is_refused_before_the_first_message(quiet_eiger, plan, name, value):
    with pytest.raises(ValueError, match=r"nan|inf"):
        begun(plan, quiet_eiger, name, value)


# By its type hint, what an argument is not; and the words that say what it is.
A_NUMBER, A_TEXT = "a number", "a text"
KINDS = [
    (
        "list[float]",
        (7000, "7000", None, {7000: 1}, {7000.0, 8000.0}, [7000, "x"], [[1.0]]),
        "a list of numbers",
    ),
    ("Sequence[float]", (0.1, "0.1", [0.1, "x"]), "a list of numbers"),
    ("tuple[float, float]", (5, (5,), (5, 6, 7), "ab", (5, "b")), "2 numbers"),
    ("dict[str, float", (3, "phi", [("phi", 3)], {"phi": "x"}), "a dict"),
    ("dict[str, typing.Any]", (3, "x", [("a", 1)]), "a dict"),
    ("Movable", (3, "m1", [1]), "a device with set"),
    ("TriggerSource", (3, "m1", Signal(name="s")), "a device with prepare, kickoff, complete"),
    ("str | float", ([1],), "a text or a number"),
    ("float", ("0.1", [0.1], True, 1j, Fraction(1, 10)), A_NUMBER),
    ("int", (2.5, 3.0, "3", [3], True), "a whole number"),
    ("bool", ("yes", 1, []), "True or False"),
    ("str", (3, 0.5, ["a"]), A_TEXT),
]


def wrong_kinds():
    for plan in PLANS:
        for name, hint in typing.get_type_hints(plan).items():
            if name in ("eiger", "return"):
                continue
            text = hint.__name__ if isinstance(hint, type) else str(hint)
            values, words = next((v, w) for kind, v, w in KINDS if kind in text)
            for value in values:
                if value is None and "None" in text:
                    continue
                yield pytest.param(
                    plan, name, value, words, id=f"{plan.__name__}-{name}-{value!r:.20}"
                )


@pytest.mark.parametrize(("plan", "name", "value", "words"), list(wrong_kinds()))
def test_what_is_of_another_kind_is_refused_before_the_first_message(
    quiet_eiger, plan, name, value, words
):
    with pytest.raises(TypeError) as refused:
        begun(plan, quiet_eiger, name, value)
    assert isinstance(refused.value, EigerError)
    said = str(refused.value)
    assert said.startswith(f"{plan.__name__}: {name} is ")
    assert said.endswith(f"; it is {words}")


@pytest.mark.parametrize(
    "plan",
    [
        lambda eiger: series(eiger, np.float32(0.1), np.int64(3), energy=np.array(8000.0)[()]),
        lambda eiger: series(eiger, 1, md={"any": [math.inf, None, object]}),
        lambda eiger: exposure_series(eiger, np.geomspace(0.01, 1, 5)),
        lambda eiger: exposure_series(eiger, (0.1, 1)),
        lambda eiger: energy_scan(eiger, range(7000, 9000, 500), folder=Path("results")),
    ],
)
def test_numbers_and_lists_are_taken_whoever_made_them(quiet_eiger, plan):
    next(plan(quiet_eiger))


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (lambda eiger: series(eiger), "series: missing a required argument: 'exposure'; it takes"),
        (lambda eiger: series(eiger, 0.1, exposures=3), "got an unexpected keyword argument"),
        (lambda eiger: series(eiger, 0.1, 2, 3), "too many positional arguments"),
        (lambda eiger: series(eiger=3, exposure=0.1), "series takes the detector first"),
        (lambda eiger: rotation(eiger, 0, 1, 5, 0.1), "rotation: missing a required argument"),
    ],
)
def test_a_call_that_is_not_whole_is_one_sentence(quiet_eiger, plan, words):
    with pytest.raises(TypeError, match=words) as refused:
        next(plan(quiet_eiger))
    assert isinstance(refused.value, EigerError)


@pytest.mark.parametrize("period", [0.05, 0.0999])
@pytest.mark.parametrize(
    "plan",
    [plan for plan in PLANS if "period" in inspect.signature(plan).parameters],
    ids=lambda plan: plan.__name__,
)
def test_images_do_not_overlap(quiet_eiger, plan, period):
    with pytest.raises(ValueError, match=rf"images of 0\.1 s cannot .* every {period} s"):
        begun(plan, quiet_eiger, "period", period)


def test_a_number_larger_than_any_float_is_outside_the_limits(quiet_eiger):
    with pytest.raises(LimitError, match=r"10+\.\.\. is outside \[1, "):
        list(series(quiet_eiger, 0.1, 10**400))
