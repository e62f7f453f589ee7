"""What the replies of PUTs say, in the forms met on hardware. Pure: no requests."""

import math
from typing import Any

import numpy as np

# In characters: of an answer that is not what it should be, a message shows so much.
LONGEST_SHOWN = 200


def names_in(reply: Any) -> list[str]:
    """Return the names in a PUT's reply: flat on hardware, nested in the reference's example."""
    if isinstance(reply, str):
        return [reply] if reply else []
    if isinstance(reply, list):
        return [name for entry in reply for name in names_in(entry)]
    return []


def sequence_id(reply: Any) -> int | None:
    """Return the id of a series from a command's reply; -1, as trigger answers, is none."""
    if not isinstance(reply, dict):
        return None
    for key in ("sequence id", "series id", "sequence_id", "series_id"):
        number = reply.get(key)
        if isinstance(number, int) and number >= 0:
            return number
    return None


def names_listed(reply: Any) -> list[str] | None:
    """Return the names in a list of resources, bare or as `value`; None if it is no such list."""
    names = reply.get("value") if isinstance(reply, dict) else reply
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else None


def number_of(value: Any) -> float | None:
    """Return a number, also one that came as text; None for whatever is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def shown(value: Any) -> str:
    """Return a value in an error message, of whatever size; a number of numpy's as a plain one."""
    if isinstance(value, np.generic):
        value = value.item()
    try:
        text = repr(value)
    except ValueError:
        # Python does not print integers of thousands of digits.
        return "a huge integer"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."
