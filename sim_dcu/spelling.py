"""How each generation spells its replies in JSON; knows no resource by name.

Sources: verbatim replies of a real EIGER 500K (firmware 1.6.6) and of real EIGER2 (firmware 2020.2,
quoted by users of areaDetector, and the key lists that fastcs-eiger was checked against).
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim_dcu import darray
from sim_dcu.parameters import Parameter
from sim_dcu.rounding import float32
from sim_dcu.status import Status


@dataclass(frozen=True)
class Spelling:
    """The form of one generation's replies.

    Attributes
    ----------
    config : callable
        From a parameter and its value to the reply of a GET; an array stays an array.
    status : callable
        From a status resource, its value and the time it was taken to the reply of a GET.
    text : callable
        From a reply to JSON text; in place of an array's data it has `darray.PLACEHOLDER`.
    """

    config: Callable[[Parameter, Any], dict[str, Any]]
    status: Callable[[Status, Any, str], dict[str, Any]]
    text: Callable[[Any], str]

    def body(self, content: Any) -> bytes:
        """Return a reply as JSON; the long form of an array is worked out once and kept."""
        text = self.text(content)
        if not isinstance(content, dict) or not isinstance(content.get("value"), np.ndarray):
            return text.encode()
        head, tail = text.split(darray.PLACEHOLDER)
        return b"".join((head.encode(), darray.base64_of(content["value"]), tail.encode()))


def _allowed(parameter: Parameter) -> dict[str, Any]:
    # No key where every value is taken: an empty list makes a known client think that none is.
    if parameter.allowed is None:
        return {}
    allowed = parameter.allowed
    return {"allowed_values": allowed if isinstance(allowed, str) else list(allowed)}


# The order of a real 500K's replies is a hash table's, one where there is a unit and another where
# there is none. (The API reference 1.3 prints a count_time in the former.)
_ORDER_WITH_UNIT = ("min", "max", "value", "value_type", "access_mode", "unit")
_ORDER_WITHOUT_UNIT = ("max", "access_mode", "value_type", "value", "allowed_values", "min")
_ORDER_OF_ARRAY = ("data", "shape", "type", "__darray__", "filters")


def _in_order(reply: Mapping[str, Any], order: Iterable[str]) -> dict[str, Any]:
    return {key: reply[key] for key in order if key in reply}


def _eiger1_config(parameter: Parameter, value: Any) -> dict[str, Any]:
    """Limits on every number, bools and arrays included; no `unit` where there is none."""
    reply: dict[str, Any] = {
        "access_mode": parameter.access,
        "value": value,
        "value_type": parameter.value_type,
    }
    if parameter.limits is not None:
        low, high = parameter.limits
        # Limits are printed as they are kept: whole ones of count_time and frame_time as integers.
        reply["max"] = float32(high) if isinstance(high, float) else high
        reply["min"] = float32(low) if isinstance(low, float) else low
    reply |= _allowed(parameter)
    if parameter.unit:
        reply["unit"] = parameter.unit
    return _in_order(reply, _ORDER_WITH_UNIT if parameter.unit else _ORDER_WITHOUT_UNIT)


def _eiger1_status(status: Status, value: Any, taken: str) -> dict[str, Any]:
    if status.brief:
        stamp = {"time": taken} if status.stamped else {}
        return {"value_type": status.value_type, "value": value, **stamp}
    return {
        "value": value,
        "state": "critical" if status.is_critical(value) else "normal",
        "value_type": status.value_type,
        "critical_limits": list(status.critical_limits),
        "time": taken,
        "unit": status.unit,
        "critical_values": list(status.critical_values),
    }


def _eiger1_text(content: Any) -> str:
    """Blanks after comma and colon, floats with 17 digits: 2.9999000616953708e-06."""
    if isinstance(content, dict):
        pairs = (f"{json.dumps(key)}: {_eiger1_text(value)}" for key, value in content.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(content, list | tuple):
        return "[" + ", ".join(_eiger1_text(entry) for entry in content) + "]"
    if isinstance(content, np.ndarray):
        return _eiger1_text(_in_order(darray.form(content), _ORDER_OF_ARRAY))
    if isinstance(content, float):
        text = f"{content:.17g}"
        return text if not text.lstrip("-").isdigit() else f"{text}.0"
    return json.dumps(content, allow_nan=False)


def _eiger2_config(parameter: Parameter, value: Any) -> dict[str, Any]:
    """Only the limits that somebody set; the keys are sorted by `_eiger2_text`."""
    reply: dict[str, Any] = {
        "access_mode": parameter.access,
        "value": value,
        "value_type": parameter.value_type,
    }
    if parameter.minimum is not None:
        reply["min"] = parameter.minimum
    if parameter.maximum is not None:
        reply["max"] = parameter.maximum
    if parameter.unit:
        reply["unit"] = parameter.unit
    return reply | _allowed(parameter)


def _eiger2_status(status: Status, value: Any, _taken: str) -> dict[str, Any]:
    reply: dict[str, Any] = {"access_mode": "r", "value": value, "value_type": status.value_type}
    if status.allowed:
        reply["allowed_values"] = list(status.allowed)
    return reply


def _eiger2_text(content: Any) -> str:
    """Sorted keys, no blanks, nine decimals."""
    if isinstance(content, dict):
        pairs = (f"{json.dumps(key)}:{_eiger2_text(content[key])}" for key in sorted(content))
        return "{" + ",".join(pairs) + "}"
    if isinstance(content, list | tuple):
        return "[" + ",".join(_eiger2_text(entry) for entry in content) + "]"
    if isinstance(content, np.ndarray):
        return _eiger2_text(darray.form(content))
    if isinstance(content, float):
        return f"{content:.9f}"
    return json.dumps(content, allow_nan=False)


EIGER1 = Spelling(_eiger1_config, _eiger1_status, _eiger1_text)
EIGER2 = Spelling(_eiger2_config, _eiger2_status, _eiger2_text)
