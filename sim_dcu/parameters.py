"""What a parameter is and which values it takes.

Knows types and limits. Knows no parameter by name, no spelling, nothing of states or HTTP.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sim_dcu.rounding import FLOAT32_MAX, SINGLE, Rounding

# Limits nobody set are those of the type (replies of a real EIGER 500K, firmware 1.6.6).
_TYPE_LIMITS: Mapping[str, tuple[float, float]] = {
    "float": (-FLOAT32_MAX, FLOAT32_MAX),
    "int": (-(2**31), 2**31 - 1),
    "uint": (0, 2**32 - 1),
    "bool": (-(2**31), 2**31 - 1),
}
# One known client stops reading a command's reply at 128 bytes, so a refusal stays below that.
_LONGEST_TEXT = 127
_LONGEST_VALUE = 24
_LONGEST_LIST = 100


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


class UnknownResourceError(MissingError):
    """A resource that there never is; EIGER2 has a text of its own for it."""


class UnknownPathError(ApiError):
    """A path that EIGER2 says it does not know: 404 with a real one's text."""

    status = 404

    def __init__(self, path: str):
        super().__init__(f"error during request: path error: unknown path: {path}")


class NotAllowedError(ApiError):
    """A method that a resource does not have."""

    status = 405


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
        `float`, `int`, `uint`, `bool` or `string`; with `[]` behind it for a list, where the
        generation says so.
    default : Any
        The value after initialize: a scalar, a list, or an array (y, x) of dtype `<f4` or `<u4`.
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
    listed : bool
        Whether `keys` names it; it is served either way.
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
    listed: bool = True

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


def _shown(value: object) -> str:
    # ascii() of an integer of thousands of digits would raise, so size comes first.
    if isinstance(value, int) and value.bit_length() > 64:
        return "a huge integer"
    text = ascii(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def _from_text(text: str) -> object:
    """Return the number that `text` spells, or the text."""
    # Python alone would take underscores.
    try:
        number = float(text) if "_" not in text else text
    except ValueError:
        return text
    return number


def _number(parameter: Parameter, value: object, rounding: Rounding) -> int | float:
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
        rounded = rounding.nearest(value)
        if not rounding.nearest(limits[0]) <= rounded <= rounding.nearest(limits[1]):
            raise RefusedError(text)
        return rounded
    if value != int(value):
        raise RefusedError(f"{parameter.key}: {_shown(value)} is not a {parameter.value_type}")
    if not limits[0] <= value <= limits[1]:
        raise RefusedError(text)
    return int(value)


def _list(parameter: Parameter, value: object, rounding: Rounding) -> list[Any]:
    key = parameter.key
    if not isinstance(value, list):
        raise RefusedError(f"{key}: {_shown(value)} is not a list")
    if parameter.value_type == "string[]":
        if len(value) > _LONGEST_LIST or not all(isinstance(entry, str) for entry in value):
            raise RefusedError(f"{key}: not a list of up to {_LONGEST_LIST} strings")
    else:
        if len(value) != len(parameter.default):
            raise RefusedError(f"{key}: {len(value)} numbers instead of {len(parameter.default)}")
        entry = replace(parameter, value_type="float")
        value = [_number(entry, number, rounding) for number in value]
    _check(parameter, value)
    return list(value)


def _array(parameter: Parameter, value: object) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        raise RefusedError(f"{parameter.key}: {_shown(value)} is not an array")
    dtype, shape = parameter.default.dtype, parameter.default.shape
    if value.shape != shape:
        raise RefusedError(f"{parameter.key}: shape {list(value.shape)} instead of {list(shape)}")
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise RefusedError(f"{parameter.key}: holds values that are not finite")
    if value.dtype == dtype:
        return value
    # Common tools write masks in any type.
    with np.errstate(over="ignore", invalid="ignore"):
        fitted = value.astype(dtype)
    if not np.array_equal(fitted, value) and dtype.kind != "f":
        raise RefusedError(f"{parameter.key}: holds values that {dtype.str} cannot")
    if not np.isfinite(fitted).all():
        raise RefusedError(f"{parameter.key}: holds values that are not finite")
    return fitted


def _check(parameter: Parameter, value: object) -> None:
    if parameter.check is not None and (reason := parameter.check(value)):
        raise RefusedError(f"{parameter.key}: {_shown(value)} {reason}")


def accepted(
    parameter: Parameter, value: object, rounding: Rounding = SINGLE, *, reads_text: bool = False
) -> Any:
    """Return `value` as `parameter` keeps it.

    Integers are taken for floats, and floats without a fraction for integers: clients send both;
    with `reads_text` also text that spells a number.

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
    if isinstance(parameter.default, list):
        return _list(parameter, value, rounding)
    if parameter.value_type == "bool":
        if not isinstance(value, bool):
            raise RefusedError(f"{key}: {_shown(value)} is not a bool")
        return value
    if parameter.value_type != "string":
        # Clients sent the geometry's floats as text, and no others.
        reads_text = reads_text and parameter.value_type == "float"
        given = _from_text(value) if reads_text and isinstance(value, str) else value
        number = _number(parameter, given, rounding)
        _check(parameter, number)
        return number
    if not isinstance(value, str):
        raise RefusedError(f"{key}: {_shown(value)} is not a string")
    allowed = parameter.allowed
    if allowed is not None:
        allowed = (allowed,) if isinstance(allowed, str) else allowed
        if value not in allowed:
            raise RefusedError(f"{key}: {_shown(value)} is not one of {', '.join(allowed)}")
    _check(parameter, value)
    return value


class ParameterStore:
    """The config of one subsystem: its parameters and their values now.

    It is not locked: whoever owns it lets one thread at a time in.

    Parameters
    ----------
    parameters : iterable of Parameter
        What is served.
    rounding : Rounding
        How floats are kept.
    internal : mapping, optional
        Values that rules need beside the parameters, by a name that is served nowhere.
    reads_text : bool
        Whether text that spells a number is taken for it.
    """

    def __init__(
        self,
        parameters: Iterable[Parameter],
        rounding: Rounding = SINGLE,
        internal: Mapping[str, Any] | None = None,
        *,
        reads_text: bool = False,
    ):
        self._reads_text = reads_text
        self._defaults = {parameter.key: parameter for parameter in parameters}
        self._rounding = rounding
        self._internal = dict(internal or {})
        self.parameters: dict[str, Parameter] = {}
        self._values: dict[str, Any] = {}
        self.reset()

    def reset(self) -> None:
        """Set every parameter to its default, its limits too."""
        self.parameters = dict(self._defaults)
        self._values = {key: self.default(key) for key in self.parameters} | self._internal

    def default(self, key: str) -> Any:
        """Return the value that parameter `key` has after initialize."""
        value = self._defaults[key].default
        if isinstance(value, float):
            return self._rounding.nearest(value)
        if isinstance(value, list) and all(isinstance(entry, float) for entry in value):
            return [self._rounding.nearest(entry) for entry in value]
        return value

    def set_minimum(self, key: str, minimum: float) -> None:
        """Let parameter `key` have another lower limit, until the next reset."""
        self.parameters[key] = replace(self.parameters[key], minimum=minimum)

    def __copy__(self) -> "ParameterStore":
        """Return a store to try changes on; arrays are shared, and never changed in place."""
        other = ParameterStore(
            self._defaults.values(), self._rounding, self._internal, reads_text=self._reads_text
        )
        other.parameters = dict(self.parameters)
        other.update(self._values)
        return other

    def keys(self) -> list[str]:
        """Return the names that are listed, in alphabetical order."""
        return sorted(key for key, parameter in self.parameters.items() if parameter.listed)

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
        return accepted(self.known(key), value, self._rounding, reads_text=self._reads_text)

    def update(self, values: Mapping[str, Any]) -> None:
        """Set values that the detector itself worked out or has accepted."""
        self._values.update(values)

    def known(self, key: str) -> Parameter:
        """Return parameter `key`.

        Raises
        ------
        MissingError
            Where there is none.
        """
        try:
            return self.parameters[key]
        except KeyError:
            # The text is the reference's own (SIMPLON API reference 1.3, introduction).
            raise UnknownResourceError(f"Parameter {key} does not exist") from None
