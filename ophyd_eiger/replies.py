"""What the replies of PUTs say, in the forms met on hardware. Pure: no requests."""

from typing import Any


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


def shown(value: Any) -> str:
    """Return a value in an error message, of whatever size."""
    try:
        return repr(value)
    except ValueError:
        # Python does not print integers of thousands of digits.
        return "a huge integer"
