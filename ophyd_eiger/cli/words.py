"""Values, sizes and times as people read them, and as JSON has them. Pure: no requests."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

_SIZES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
# Some DCUs leave the unit of what they measure empty.
UNITS_UNSTATED = {
    "th0_temp": "°C",
    "temperature": "°C",
    "th0_humidity": "%",
    "humidity": "%",
    "dcu_buffer_free": "%",
}
# Entries of a list that are shown; of the rest their number is told.
_LONGEST_LIST = 12


def number(value: float) -> str:
    """Return a number so that it can be typed again: the shortest text that means the same.

    An EIGER keeps single-precision floats and writes them as doubles: 0.09989500045776367 is
    0.099895.
    """
    if isinstance(value, int) or not math.isfinite(value):
        return str(value)
    with np.errstate(over="ignore"):
        single = np.float32(value)
    text = repr(float(str(single))) if float(single) == value else repr(value)
    return text.removesuffix(".0")


def text_of(value: Any) -> str:
    """Return a value of whatever type as text, without its unit."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return number(value)
    if isinstance(value, str):
        return value or '""'
    if isinstance(value, np.ndarray):
        return array_in_words(value)
    if isinstance(value, (list, tuple)):
        shown = [text_of(entry) for entry in value[:_LONGEST_LIST]]
        more = [f"... ({len(value)} in all)"] if len(value) > _LONGEST_LIST else []
        return f"[{', '.join(shown + more)}]"
    return "null" if value is None else str(value)


def unit_of(resource: str, stated: str) -> str:
    """Return the unit that a DCU states, or that of a sensor for which it states none."""
    return stated or UNITS_UNSTATED.get(resource.rpartition("/")[2], "")


def with_unit(value: Any, stated: str, resource: str) -> str:
    """Return a value with its unit, to every digit that it has."""
    return f"{text_of(value)} {unit_of(resource, stated)}".rstrip()


def measured(value: Any, stated: str, resource: str) -> str:
    """Return a value with its unit; of what a sensor measures one digit after the point."""
    if isinstance(value, float) and resource.rpartition("/")[2] in UNITS_UNSTATED:
        return f"{value:.1f} {unit_of(resource, stated)}"
    return with_unit(value, stated, resource)


def array_in_words(array: np.ndarray) -> str:
    """Return the shape, type and range of an array."""
    shape = " x ".join(str(length) for length in array.shape)
    if array.ndim == 2:
        shape += " (y, x)"
    if not array.size:
        return f"{array.dtype.name} of {shape}"
    low, high = (text_of(end.item()) for end in (array.min(), array.max()))
    told = f"{array.dtype.name} of {shape}, {low} to {high}"
    # Of a mask that is what counts.
    return f"{told}, {np.count_nonzero(array)} not 0" if array.dtype.kind == "u" else told


def size(count: float) -> str:
    """Return a number of bytes, as in "1.2 TB"."""
    for factor, unit in _SIZES:
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} bytes"


def duration(seconds: float) -> str:
    """Return a time, as in "12.3 s", "3 min" or "2 h"."""
    if abs(seconds) < 120:
        return f"{seconds:.3g} s"
    if abs(seconds) < 7200:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.0f} h" if abs(hours) < 48 else f"{hours / 24:.0f} days"


def plural(count: int, noun: str) -> str:
    """Return a number of things, as in "1 file" and "3 files"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def either(names: Sequence[str]) -> str:
    """Return names in words, as in "a, b or c"."""
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def plain(value: Any) -> Any:
    """Return what JSON has for a value: arrays are told of, and what is not finite is null."""
    if isinstance(value, np.ndarray):
        told = {"dtype": value.dtype.name, "shape": list(value.shape)}
        if value.size:
            ends = {"min": value.min().item(), "max": value.max().item()}
            told |= {**ends, "nonzero": int(np.count_nonzero(value))}
        return {key: plain(entry) for key, entry in told.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    return value
