"""What the DCU says of a resource beside its value, and what follows from it. Pure: no requests."""

import datetime as dt
import enum
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Severities of bluesky's Reading: below 0 unknown, 0 ok, above 0 an alarm.
UNKNOWN, OK, ALARM = -1, 0, 1
# V1.3 section 3.1.2.1: the `state` of a status value.
SEVERITIES = {"normal": OK, "critical": ALARM, "invalid": UNKNOWN, "disabled": UNKNOWN}
# Digits after the point that still mean something: 10 ns, 0.01 eV, 1 um, ...
PRECISIONS = {"s": 8, "eV": 2, "angstrom": 5, "m": 6, "degree": 4, "pixel": 3}
NUMBERS = ("float", "int", "uint")


@dataclass(frozen=True)
class Metadata:
    """What the DCU says of a resource beside its value (V1.3 sections 3.1.1.1 and 3.1.2.1)."""

    value_type: str = ""
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    allowed: tuple = ()
    writable: bool = True
    state: str = ""
    critical_limits: tuple[float | None, float | None] = (None, None)
    critical_values: tuple = ()

    @classmethod
    def of(cls, reply: dict, section: str) -> "Metadata":
        """Take the metadata out of a reply; `access_mode` is rw for config if it is missing."""
        access = reply.get("access_mode")
        if not access or not isinstance(access, str):
            access = "rw" if section == "config" else "r"
        limits = reply.get("critical_limits")
        limits = limits if isinstance(limits, list) and len(limits) == 2 else (None, None)
        return cls(
            value_type=str(reply.get("value_type") or ""),
            unit=str(reply.get("unit") or ""),
            minimum=_bound(reply.get("min")),
            maximum=_bound(reply.get("max")),
            allowed=_choices(reply.get("allowed_values")),
            writable="w" in access,
            state=str(reply.get("state") or ""),
            critical_limits=(_bound(limits[0]), _bound(limits[1])),
            critical_values=_choices(reply.get("critical_values")),
        )

    @property
    def element_type(self) -> str:
        """The type of a value, or of each entry of a list of them: "float" for "float[]"."""
        return self.value_type.removesuffix("[]")

    @property
    def bounds(self) -> str:
        """The limits in words, as in "[3e-06, 1800.0] s"."""
        # A limit of a float may come as a whole number, 1800 s; and one that the detector has in
        # single precision with digits that mean nothing, 2.9999901016708463e-06 s.
        low, high = (
            repr(float(f"{bound:.7g}") if self.element_type == "float" else bound)
            for bound in (
                -math.inf if self.minimum is None else self.minimum,
                math.inf if self.maximum is None else self.maximum,
            )
        )
        return f"[{low}, {high}] {self.unit}".rstrip()

    def alarm(self, value: Any) -> tuple[int, str] | None:
        """Return severity and message of a status value; None if the DCU says nothing of it.

        The severity is that of `state` where the DCU gives one; else that of its critical limits
        and values. The message says which value was found, and which would be good.
        """
        low, high = self.critical_limits
        outside = isinstance(value, (int, float)) and not (
            (low is None or low <= value) and (high is None or value <= high)
        )
        critical = outside or (isinstance(value, str) and value in self.critical_values)
        if self.state in SEVERITIES:
            severity = SEVERITIES[self.state]
        elif self.critical_values or self.critical_limits != (None, None):
            severity = ALARM if critical else OK
        else:
            return None
        if severity == OK:
            return severity, ""
        return severity, f"{self.state or 'critical'}: {value} {self.unit}".rstrip() + (
            f" is outside [{low}, {high}]" if outside else ""
        )

    def data_key(self, value: Any) -> dict[str, Any]:
        """Return the data key of a value, all but its source."""
        key = dtype_of(value, self.value_type)
        if self.unit:
            key["units"] = self.unit
        if self.allowed and all(isinstance(choice, str) for choice in self.allowed):
            key["choices"] = list(self.allowed)
            key["dtype_numpy"] = f"<U{max(len(choice) for choice in self.allowed)}"
        limits = {}
        if (self.minimum, self.maximum) != (None, None):
            limits["control"] = {"low": self.minimum, "high": self.maximum}
        if self.critical_limits != (None, None):
            limits["alarm"] = dict(zip(("low", "high"), self.critical_limits, strict=True))
        if limits:
            key["limits"] = limits
        if key["dtype_numpy"] == "<f8" and self.unit in PRECISIONS:
            key["precision"] = PRECISIONS[self.unit]
        return key

    def checked(self, value: Any, *, is_list: bool = False) -> Any:
        """Return the value as the wire takes it.

        Parameters
        ----------
        value : object
            What is to be sent. numpy's numbers and arrays, members of enums and dates are made
            what JSON has for them.
        is_list : bool
            Whether the resource is a list though `value_type` does not say so, as on EIGER1.

        Raises
        ------
        ValueError
            With the rest of a sentence that begins with the value.
        """
        value = _plain(value)
        if not (is_list or self.value_type.endswith("[]")):
            return self._checked_one(value)
        if not isinstance(value, (list, tuple)):
            raise ValueError("is not a list, as the detector says of")  # noqa: TRY004
        checked = []
        for number, entry in enumerate(value):
            try:
                checked.append(self._checked_one(_plain(entry)))
            except ValueError as error:
                raise ValueError(f"with {entry!r} at place {number}, which {error}") from None
        return checked

    def _checked_one(self, value: Any) -> Any:
        kind = self.element_type
        if kind == "bool":
            if isinstance(value, (bool, int, float)) and value in (0, 1):
                return bool(value)
            raise ValueError("is not true or false, as the detector says of")
        if kind in NUMBERS:
            value = self._checked_number(value)
        if self.allowed and value not in self.allowed:
            choices = ", ".join(str(choice) for choice in self.allowed)
            raise ValueError(f"is not one of {choices}, as the detector says of")
        if kind in ("string", "datetime") and not isinstance(value, str):
            raise ValueError("is not a string, as the detector says of")
        return value

    def _checked_number(self, value: Any) -> float | int:
        article = "a number" if self.element_type == "float" else "a whole number"
        no_number = f"is not {article} in {self.bounds} reported by the detector for"
        if (self.minimum, self.maximum) == (None, None):
            no_number = f"is not {article}, as the detector says of"
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        # (An int may be larger than any float, so that isnan(value) itself would fail.)
        if not is_number or (isinstance(value, float) and math.isnan(value)):
            raise ValueError(no_number)
        low = -math.inf if self.minimum is None else self.minimum
        high = math.inf if self.maximum is None else self.maximum
        if abs(value) > sys.float_info.max or not _within(value, low, high):
            outside = f"{self.unit} is outside {self.bounds} reported by the detector for"
            raise ValueError(outside.lstrip())
        if self.element_type == "float":
            return float(value)
        if value != math.floor(value):
            raise ValueError(no_number)
        return int(value)


def _bound(value: Any) -> float | None:
    """Return a limit; None for what is no number, which is no limit."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _choices(values: Any) -> tuple:
    """Return the values that a reply lists; none for what is no list of plain values."""
    # Models without ROI answer a bare string where others answer a list.
    if isinstance(values, str):
        return (values,) if values else ()
    if not isinstance(values, list):
        return ()
    return tuple(value for value in values if isinstance(value, (str, int, float)))


def _plain(value: Any) -> Any:
    """Return what JSON has for a member of an enum, a date, or a number or array of numpy."""
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, np.datetime64):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (dt.datetime, dt.date)):
        return value.isoformat()
    return value


def _within(value: float, low: float, high: float) -> bool:
    """Compare as the detector does, in single precision: its limits are rounded to that."""
    if low <= value <= high:
        return True
    with np.errstate(over="ignore"):
        return bool(np.float32(low) <= np.float32(value) <= np.float32(high))


def same(one: Any, other: Any) -> bool:
    """Return whether two values are the same to the float32 precision of an EIGER's firmware."""
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    numbers = [value for value in (one, other) if isinstance(value, (int, float))]
    if len(numbers) == 2 and float in map(type, numbers):
        return math.isclose(*numbers, rel_tol=1e-6, abs_tol=1e-12)
    return one == other


def dtype_of(value: Any, value_type: str) -> dict[str, Any]:
    """Return dtype, dtype_numpy and shape of a data key.

    Text without a list of choices may get longer while a run lasts: "<U0", as bluesky has it for
    text of any length.
    """
    if isinstance(value, np.ndarray):
        return {"dtype": "array", "shape": list(value.shape), "dtype_numpy": value.dtype.str}
    if isinstance(value, (list, tuple)) or value_type.endswith("[]"):
        entries: Sequence = value if isinstance(value, (list, tuple)) else ()
        kind = _dtype_of_one(entries[0] if entries else None, value_type.removesuffix("[]"))[1]
        return {"dtype": "array", "shape": [len(entries)], "dtype_numpy": kind}
    dtype, kind = _dtype_of_one(value, value_type)
    return {"dtype": dtype, "shape": [], "dtype_numpy": kind}


def _dtype_of_one(value: Any, value_type: str) -> tuple[str, str]:
    if isinstance(value, bool) or value_type == "bool":
        return "boolean", "|b1"
    if value_type in ("int", "uint"):
        return "integer", "<i8"
    if isinstance(value, (int, float)) or value_type == "float":
        return "number", "<f8"
    return "string", "<U0"
