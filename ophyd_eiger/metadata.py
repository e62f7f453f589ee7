"""What the DCU says of a resource beside its value, and what follows from it. Pure: no requests."""

import math
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Metadata:
    """What the DCU says of a resource beside its value (V1.3 sections 3.1.1.1 and 3.1.2.1)."""

    value_type: str = ""
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    allowed: tuple = ()
    writable: bool = True

    @classmethod
    def of(cls, reply: dict, section: str) -> "Metadata":
        """Take the metadata out of a reply; `access_mode` is rw for config if it is missing."""
        allowed = reply.get("allowed_values") or ()
        # Models without ROI answer a bare string where others answer a list.
        allowed = (allowed,) if isinstance(allowed, str) else tuple(allowed)
        access = reply.get("access_mode") or ("rw" if section == "config" else "r")
        return cls(
            value_type=str(reply.get("value_type", "")),
            unit=str(reply.get("unit") or ""),
            minimum=reply.get("min"),
            maximum=reply.get("max"),
            allowed=allowed,
            writable="w" in access,
        )

    @property
    def bounds(self) -> str:
        """The limits in words, as in "[3e-06, 1800.0] s"."""
        # A limit of a float may come as a whole number: 1800 s.
        low, high = (
            repr(float(bound) if self.value_type == "float" else bound)
            for bound in (
                -math.inf if self.minimum is None else self.minimum,
                math.inf if self.maximum is None else self.maximum,
            )
        )
        return f"[{low}, {high}] {self.unit}".rstrip()

    def checked(self, value: Any) -> Any:
        """Return the value as the wire takes it.

        Raises
        ------
        ValueError
            With the rest of a sentence that begins with the value.
        """
        if isinstance(value, np.generic):
            value = value.item()
        kind = self.value_type
        if kind == "bool":
            if value in (0, 1):
                return bool(value)
            raise ValueError("is not true or false, as the detector says of")
        if kind in ("float", "int", "uint"):
            return self._checked_number(value)
        if self.allowed and value not in self.allowed:
            choices = ", ".join(str(choice) for choice in self.allowed)
            raise ValueError(f"is not one of {choices}, as the detector says of")
        if kind == "string":
            if not isinstance(value, str):
                raise ValueError("is not a string, as the detector says of")
            return str(getattr(value, "value", value))
        return value

    def _checked_number(self, value: Any) -> float | int:
        article = "a number" if self.value_type == "float" else "a whole number"
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        # (An int may be larger than any float, so that isnan(value) itself would fail.)
        if not is_number or (isinstance(value, float) and math.isnan(value)):
            raise ValueError(f"is not {article} in {self.bounds} reported by the detector for")
        if self.value_type != "float" and value != math.floor(value):
            raise ValueError(f"is not {article} in {self.bounds} reported by the detector for")
        low = -math.inf if self.minimum is None else self.minimum
        high = math.inf if self.maximum is None else self.maximum
        if abs(value) > sys.float_info.max or not _within(value, low, high):
            outside = f"{self.unit} is outside {self.bounds} reported by the detector for"
            raise ValueError(outside.lstrip())
        return float(value) if self.value_type == "float" else int(value)


def _within(value: float, low: float, high: float) -> bool:
    """Compare as the detector does, in single precision: its limits are rounded to that."""
    if low <= value <= high:
        return True
    with np.errstate(over="ignore"):
        return bool(np.float32(low) <= np.float32(value) <= np.float32(high))


def same(one: Any, other: Any) -> bool:
    """Return whether two values are the same to the float32 precision of an EIGER's firmware."""
    if isinstance(one, float) or isinstance(other, float):
        try:
            return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-12)
        except TypeError:
            return False
    return one == other


def dtype_of(value: Any, value_type: str) -> dict[str, Any]:
    """Return dtype and shape of a data key."""
    if isinstance(value, (list, tuple)):
        return {"dtype": "array", "shape": [len(value)]}
    if isinstance(value, bool) or value_type == "bool":
        return {"dtype": "boolean", "shape": []}
    if value_type in ("int", "uint"):
        return {"dtype": "integer", "shape": []}
    if isinstance(value, (int, float)) or value_type == "float":
        return {"dtype": "number", "shape": []}
    return {"dtype": "string", "shape": []}
