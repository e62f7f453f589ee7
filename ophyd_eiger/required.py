"""What a series cannot do without: values that the DCU gave, and that are what they should be."""

from typing import Any

from ophyd_eiger.errors import ReplyError, StateError
from ophyd_eiger.replies import number_of, shown
from ophyd_eiger.signals import EigerSignal


def require_value(signal: EigerSignal) -> Any:
    """Return the DCU's last answer.

    Raises
    ------
    StateError
        If it never answered.
    """
    if not signal.has_value:
        raise StateError(f"{signal.name}: {signal.subsystem}/{signal.resource} was never read")
    return signal.last


def require_known(signal: EigerSignal) -> Any:
    """Return the DCU's last answer, if it can be put again.

    Raises
    ------
    StateError
        If it never answered.
    ReplyError
        If it answered null.
    """
    value = require_value(signal)
    if value is None:
        raise _no_number(signal, value, "a value")
    return value


def require_number(signal: EigerSignal) -> float:
    """Return the DCU's last answer as a number.

    Raises
    ------
    StateError
        If it never answered.
    ReplyError
        If it answered something else.
    """
    value = require_value(signal)
    number = number_of(value)
    if number is None:
        raise _no_number(signal, value, "a number")
    return number


def require_whole(signal: EigerSignal, least: int = 0) -> int:
    """Return the DCU's last answer as a whole number, not below `least`; errors as above."""
    number = require_number(signal)
    if number < least or number != int(number):
        raise _no_number(signal, signal.last, f"a whole number from {least} on")
    return int(number)


def _no_number(signal: EigerSignal, value: Any, wanted: str) -> ReplyError:
    request = f"GET {signal.source}"
    return ReplyError(
        f"{signal.name}: the DCU says that {signal.subsystem}/{signal.resource} is {shown(value)}, "
        f"where {wanted} was expected; put one, or initialize the detector",
        request=request,
    )
