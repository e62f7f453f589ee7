"""What a plan is given, held against what its signature says, before its first message."""

import functools
import inspect
import math
import os
import types
import typing
from collections.abc import Callable, Collection, Generator, Mapping, Set
from numbers import Integral, Real
from typing import Any, ParamSpec, TypeVar

import numpy as np

from eiger_plans.steps import check_detector
from ophyd_eiger import EigerDetector, EigerError

P = ParamSpec("P")
R = TypeVar("R")


class ArgumentError(EigerError, TypeError):
    """A plan was given something of another kind than it takes; nothing was sent."""


def checked(plan: Callable[P, Generator[Any, Any, R]]) -> Callable[P, Generator[Any, Any, R]]:
    """Have a plan refuse arguments that its signature does not allow, before its first message.

    A whole number is no fraction, a text no number, one number no list of them; and a number is
    finite, because not a number counts as the same as any that was set.

    Parameters
    ----------
    plan : generator function
        Its type hints say what it takes; the first argument is the detector.

    Returns
    -------
    generator function
        Raises an `ArgumentError` for an argument of another kind, a `NotADetectorError` where the
        detector is forgotten, a ValueError for a number that is not finite.
    """
    name, signature = plan.__name__, inspect.signature(plan)

    @functools.wraps(plan)
    def made(*args: P.args, **kwargs: P.kwargs) -> Generator[Any, Any, R]:
        if args:
            # Forgotten, what comes first stands where the detector should, and all else is wrong.
            check_detector(args[0], name)
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise ArgumentError(f"{name}: {error}; it takes {_shown(signature)}") from None
        hints = typing.get_type_hints(plan)
        for argument, value in given.items():
            if hints[argument] is EigerDetector:
                check_detector(value, name)
            else:
                _check(f"{name}: {argument}", value, hints[argument])
        return (yield from plan(*args, **kwargs))

    return made


def recorded(**given: Any) -> dict[str, Any]:
    """Return a plan's arguments as `plan_args` of its runs: of a device its name, as in bluesky."""
    return {name: _recorded(value) for name, value in given.items()}


def _recorded(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return repr(value.name) if hasattr(value, "name") else value


def _check(name: str, value: Any, hint: Any) -> None:
    """Refuse a value that a type hint does not allow.

    Raises
    ------
    ArgumentError, ValueError
    """
    kinds = _alternatives(hint)
    if value is None and type(None) in kinds:
        return
    asked = [kind for kind in kinds if kind is not type(None)]
    if not any(_is_of_kind(value, kind) for kind in asked):
        wanted = " or ".join(dict.fromkeys(_words(kind) for kind in asked))
        raise ArgumentError(f"{name} is {_short(value)}; it is {wanted}")
    for number in _numbers(value) if any(map(_holds_numbers, asked)) else ():
        if not math.isfinite(number):
            holds = "is" if isinstance(value, Real) else "holds"
            raise ValueError(f"{name} {holds} {number}; it is finite")


def _alternatives(hint: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def _is_of_kind(value: Any, kind: Any) -> bool:
    origin, inner = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin in (float, int):
        # What the detector's settings take, and no fraction.
        number = (int, float, np.integer, np.floating) if origin is float else Integral
        return isinstance(value, number) and not isinstance(value, bool)
    if origin is tuple:
        return (
            isinstance(value, Collection)
            and not isinstance(value, str | bytes | Mapping | Set)
            and len(value) == len(inner)
            and all(_is_of_kind(each, of) for each, of in zip(value, inner, strict=True))
        )
    if origin is Any or not isinstance(origin, type):
        return True
    if origin is str:
        return isinstance(value, str | os.PathLike)
    if issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            any(_is_of_kind(each, of) for of in _alternatives(inner[1])) for each in value.values()
        )
    if issubclass(origin, Collection) and not issubclass(origin, str):
        # An array is no Sequence, and as good a list as any.
        return (
            isinstance(value, Collection)
            and not isinstance(value, str | bytes | Mapping | Set)
            and all(_is_of_kind(each, inner[0]) for each in value)
        )
    if getattr(origin, "_is_protocol", False):
        return all(hasattr(value, verb) for verb in _verbs(origin))
    return isinstance(value, origin)


def _verbs(protocol: type) -> list[str]:
    """Return what a device has of a protocol's own; its name and the like go without saying."""
    return [
        name
        for name, what in vars(protocol).items()
        if inspect.isfunction(what) and not name.startswith("_")
    ]


def _holds_numbers(kind: Any) -> bool:
    return kind in (float, int) or any(
        _holds_numbers(each) for inner in typing.get_args(kind) for each in _alternatives(inner)
    )


def _words(kind: Any) -> str:
    origin, inner = typing.get_origin(kind) or kind, typing.get_args(kind)
    plain = {float: "a number", int: "a whole number", str: "a text", bool: "True or False"}
    if origin in plain:
        return plain[origin]
    if origin is tuple:
        return f"{len(inner)} numbers"
    if issubclass(origin, Mapping):
        return "a dict"
    if issubclass(origin, Collection):
        return "a list of numbers"
    return f"a device with {', '.join(_verbs(origin))}"


def _numbers(value: Any) -> list[float]:
    """Return the numbers that a value is or holds."""
    if isinstance(value, Mapping):
        return [number for each in value.values() for number in _numbers(each)]
    if isinstance(value, Collection) and not isinstance(value, str | bytes):
        return [number for each in value for number in _numbers(each)]
    # A whole number is finite, and may be larger than any float.
    return [float(value)] if isinstance(value, Real) and not isinstance(value, Integral) else []


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _shown(signature: inspect.Signature) -> str:
    """Return a signature as one calls it, without its types."""
    plain = [
        parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()
    ]
    return str(signature.replace(parameters=plain, return_annotation=signature.empty))
