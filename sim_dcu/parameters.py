"""What a parameter is, which values it takes, and how a DCU spells it in JSON.

Knows types, limits and replies. Knows no parameter by name, nothing of states, HTTP or threads.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# EIGER1 keeps its floats in single precision and prints them as doubles; limits nobody set are
# those of the type (replies of a real EIGER 500K, firmware 1.6.6).
FLOAT32_MAX = float(np.finfo(np.float32).max)
_TYPE_LIMITS: Mapping[str, tuple[float, float]] = {
    "float": (-FLOAT32_MAX, FLOAT32_MAX),
    "int": (-(2**31), 2**31 - 1),
    "uint": (0, 2**32 - 1),
    "bool": (-(2**31), 2**31 - 1),
}
# One known client stops reading a command's reply at 128 bytes, so a refusal stays below that.
_LONGEST_TEXT = 127
_LONGEST_VALUE = 24


class ApiError(Exception):
    """A request the DCU does not carry out.

    Parameters
    ----------
    text : str
        What the client is told; cut to 127 ASCII characters.

    Attributes
    ----------
    status : int
        The HTTP status code of the reply.
    """

    status = 400

    def __init__(self, text: str):
        plain = text.encode("ascii", "backslashreplace").decode("ascii")
        super().__init__(plain[:_LONGEST_TEXT])


class RefusedError(ApiError):
    """A value or a command that is not possible, or not possible now."""


class MissingError(ApiError):
    """A resource this DCU does not have, or does not have yet."""

    status = 404


class NotFittedError(ApiError):
    """A resource whose hardware this model lacks: 500, as `link_2` of an EIGER 500K answers."""

    status = 500


@dataclass(frozen=True)
class Parameter:
    """One config resource.

    Attributes
    ----------
    key : str
        The rest of the path after `config/`.
    value_type : str
        `float`, `int`, `uint`, `bool` or `string`.
    default : Any
        The value after initialize: a scalar, a list of floats, or an array (y, x) of dtype `<f4`
        or `<u4`.
    access : str
        `rw` or `r`.
    unit : str
        Empty where there is none; the reply then has no `unit`.
    minimum, maximum : float or None
        Inclusive limits in `unit`; None is the type's own limit.
    allowed : tuple of str or str or None
        The values taken. A bare string is one value, spelled as a string in the reply
        (`roi_mode` of models without regions of interest).
    check : callable or None
        Returns why a value of the right type is refused, or an empty string.
    """

    key: str
    value_type: str
    default: Any
    access: str = "rw"
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    allowed: tuple[str, ...] | str | None = None
    check: Callable[[Any], str] | None = None

    @property
    def limits(self) -> tuple[float, float] | None:
        """The limits (minimum, maximum) that hold, or None for text."""
        if self.value_type not in _TYPE_LIMITS:
            return None
        low, high = _TYPE_LIMITS[self.value_type]
        return (
            low if self.minimum is None else self.minimum,
            high if self.maximum is None else self.maximum,
        )


def float32(value: float) -> float:
    """Return `value` rounded to single precision."""
    return float(np.float32(value))


def float32_above(value: float) -> float:
    """Return the smallest single-precision number not below `value`."""
    rounded = np.float32(value)
    if float(rounded) < value:
        rounded = np.nextafter(rounded, np.float32(np.inf))
    return float(rounded)


def float32_below(value: float) -> float:
    """Return the largest single-precision number not above `value`."""
    return -float32_above(-value)


def _shown(value: object) -> str:
    # ascii() of an integer of thousands of digits would raise, so size comes first.
    if isinstance(value, int) and value.bit_length() > 64:
        return "a huge integer"
    text = ascii(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def _number(parameter: Parameter, value: object) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RefusedError(f"{parameter.key}: {_shown(value)} is not a {parameter.value_type}")
    limits = parameter.limits or (-FLOAT32_MAX, FLOAT32_MAX)
    text = f"{parameter.key}: {_shown(value)} is outside [{limits[0]:.7g}, {limits[1]:.7g}]"
    text += f" {parameter.unit}" if parameter.unit else ""
    if isinstance(value, float) and not math.isfinite(value):
        raise RefusedError(text)
    if parameter.value_type == "float":
        # Compared as the detector keeps it, so that a limit read from a reply, or its decimal
        # spelling, is itself allowed. Values beyond single precision cannot be rounded to it.
        if abs(value) > FLOAT32_MAX:
            raise RefusedError(text)
        rounded = float32(value)
        if not float32(limits[0]) <= rounded <= float32(limits[1]):
            raise RefusedError(text)
        return rounded
    if value != int(value):
        raise RefusedError(f"{parameter.key}: {_shown(value)} is not a {parameter.value_type}")
    if not limits[0] <= value <= limits[1]:
        raise RefusedError(text)
    return int(value)


def _array(parameter: Parameter, value: object) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        raise RefusedError(f"{parameter.key}: {_shown(value)} is not an array")
    default = parameter.default
    if value.dtype != default.dtype or value.shape != default.shape:
        raise RefusedError(
            f"{parameter.key}: {value.dtype.str} {list(value.shape)} instead of"
            f" {default.dtype.str} {list(default.shape)}"
        )
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise RefusedError(f"{parameter.key}: holds values that are not finite")
    return value


def accepted(parameter: Parameter, value: object) -> Any:
    """Return `value` as `parameter` keeps it.

    Integers are taken for floats, and floats without a fraction for integers: clients send both.

    Raises
    ------
    RefusedError
        Where the parameter is read-only, or the value is of another type, outside the limits or
        not among the allowed values.
    """
    key = parameter.key
    if parameter.access != "rw":
        raise RefusedError(f"{key} is read-only")
    if isinstance(parameter.default, np.ndarray):
        return _array(parameter, value)
    if parameter.value_type == "bool":
        if not isinstance(value, bool):
            raise RefusedError(f"{key}: {_shown(value)} is not a bool")
        return value
    if parameter.value_type != "string":
        return _number(parameter, value)
    if not isinstance(value, str):
        raise RefusedError(f"{key}: {_shown(value)} is not a string")
    allowed = parameter.allowed
    if allowed is not None:
        allowed = (allowed,) if isinstance(allowed, str) else allowed
        if value not in allowed:
            raise RefusedError(f"{key}: {_shown(value)} is not one of {', '.join(allowed)}")
    if parameter.check is not None and (reason := parameter.check(value)):
        raise RefusedError(f"{key}: {_shown(value)} {reason}")
    return value


class ParameterStore:
    """The config of one subsystem: its parameters and their values now.

    It is not locked: whoever owns it lets one thread at a time in.
    """

    def __init__(self, parameters: Iterable[Parameter]):
        self.parameters = {parameter.key: parameter for parameter in parameters}
        self._values: dict[str, Any] = {}
        self.reset()

    def reset(self) -> None:
        """Set every parameter to its default."""
        self._values = {
            key: float32(parameter.default)
            if isinstance(parameter.default, float)
            else parameter.default
            for key, parameter in self.parameters.items()
        }

    def keys(self) -> list[str]:
        """Return the names in alphabetical order."""
        return sorted(self.parameters)

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def values(self) -> dict[str, Any]:
        """Return a copy of every value by key; arrays are shared and never changed in place."""
        return dict(self._values)

    def accepted(self, key: str, value: object) -> Any:
        """Return `value` as parameter `key` keeps it; nothing changes.

        Raises
        ------
        MissingError, RefusedError
            Where there is no such parameter, or it does not take the value.
        """
        return accepted(self._known(key), value)

    def update(self, values: Mapping[str, Any]) -> None:
        """Set values that the detector itself worked out or has accepted."""
        self._values.update(values)

    def reply(self, key: str) -> dict[str, Any]:
        """Return the JSON object of a GET in EIGER1's spelling; an array stays an array.

        Limits on every number, bools and arrays included; no `unit` where there is none; no
        `allowed_values` where every value is taken (an empty list makes a known client think that
        nothing is).
        """
        parameter = self._known(key)
        reply: dict[str, Any] = {"access_mode": parameter.access}
        if parameter.limits is not None:
            low, high = parameter.limits
            # Only floats are rounded: 2147483647 is not a single-precision number.
            rounded = parameter.value_type == "float"
            reply["max"] = float32(high) if rounded else high
            reply["min"] = float32(low) if rounded else low
        if parameter.allowed is not None:
            allowed = parameter.allowed
            reply["allowed_values"] = allowed if isinstance(allowed, str) else list(allowed)
        if parameter.unit:
            reply["unit"] = parameter.unit
        reply["value"] = self._values[key]
        reply["value_type"] = parameter.value_type
        return reply

    def scalar_replies(self) -> dict[str, dict[str, Any]]:
        """Return the reply of every parameter by key, arrays left out for their size."""
        return {
            key: self.reply(key)
            for key in self.keys()
            if not isinstance(self._values[key], np.ndarray)
        }

    def _known(self, key: str) -> Parameter:
        try:
            return self.parameters[key]
        except KeyError:
            # The text is the reference's own (SIMPLON API reference 1.3, introduction).
            raise MissingError(f"Parameter {key} does not exist") from None
