"""Every resource of the SIMPLON API by generation, and whether a reply is as it should be. Pure.

The table is `resources.csv` beside this file: a row a resource, a column a generation. A cell has
the types that `value_type` may say, "|" between them, and the access modes; "?" at its end marks
what only some firmware or some models have. "array" is an image-sized array, "pair" a list of two
or more whole numbers that is typed "int".

Source: SIMPLON API Reference V1.3 for EIGER; for EIGER2 the reference 1.8, and what fastcs-eiger
found on an EIGER2 XE 16M.
"""

import csv
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from eiger_plans.acceptance.findings import Check, Section

FIRST_API_OF_EIGER2 = (1, 8)
RESOURCES = Section("resources")
# Limits and values are rounded to single precision, each by itself.
_ROUNDING = 1e-6
_PYTHON = {"bool": (bool,), "float": (float, int), "int": (int,), "uint": (int,), "string": (str,)}
# EIGER2 clear this one when an energy is set; it is none of its choices then.
_MAY_BE_EMPTY = "detector/config/element"


@dataclass(frozen=True)
class Row:
    """What one generation has of a resource.

    Attributes
    ----------
    resource : str
        As in "detector/config/count_time".
    types : tuple of str
        What `value_type` may say; ("command",) for a command.
    access : tuple of str
        "rw" or "r", or either.
    optional : bool
        Whether it may be missing.
    unit : str
        "" where none is stated.
    """

    resource: str
    types: tuple[str, ...]
    access: tuple[str, ...]
    optional: bool
    unit: str

    @property
    def expected(self) -> str:
        """The row in words."""
        words = [" or ".join(self.types), " or ".join(self.access)]
        if self.unit:
            words.append(f"in {self.unit}")
        return " ".join(word for word in words if word)

    @property
    def is_command(self) -> bool:
        """Whether it is a command, which is not asked for."""
        return self.types == ("command",)

    @property
    def is_array(self) -> bool:
        """Whether it is an array of an image's size, which is asked for once as a whole."""
        return self.types == ("array",)


def generation_of(api_version: str, description: str = "") -> str:
    """Return the column of a DCU: "eiger" or "eiger2".

    Parameters
    ----------
    api_version : str
        The version in the URLs; an EIGER2 serves that of an EIGER, too.
    description : str
        What the detector calls itself.
    """
    numbers = tuple(int(part) for part in api_version.split(".")[:2] if part.isdigit())
    is_second = numbers >= FIRST_API_OF_EIGER2 or "EIGER2" in description.upper()
    return "eiger2" if is_second else "eiger"


@cache
def table(generation: str) -> dict[str, Row]:
    """Return the rows of a generation by resource."""
    text = (files("eiger_plans.acceptance") / "resources.csv").read_text(encoding="utf-8")
    found = {}
    for line in csv.DictReader(text.splitlines()):
        cell = line[generation]
        if not cell:
            continue
        types, _, access = cell.removesuffix("?").partition(" ")
        found[line["resource"]] = Row(
            line["resource"],
            tuple(types.split("|")),
            tuple(access.split("|")) if access else (),
            cell.endswith("?"),
            line["unit"],
        )
    return found


def judged(row: Row, reply: Any) -> Check:
    """Return whether a reply is as the row says: its type, access, unit, limits and value."""
    if not isinstance(reply, dict) or "value" not in reply:
        return RESOURCES.failed(row.resource, row.expected, f"a reply without value: {_cut(reply)}")
    wrong = _wrong(row, reply)
    stated = [str(reply.get("value_type")), str(reply.get("access_mode") or "")]
    found = " ".join(word for word in (*stated, _shown(reply)) if word)
    return RESOURCES.check(
        row.resource, row.expected, "; ".join([*wrong, found] if wrong else [found]), good=not wrong
    )


def _wrong(row: Row, reply: dict[str, Any]) -> list[str]:
    value, stated = reply["value"], reply.get("value_type")
    wrong = []
    if row.types == ("pair",):
        if not isinstance(value, list):
            wrong.append("no list")
    else:
        if stated not in row.types:
            wrong.append(f"the type is {stated!r}")
        elif not _is_of_type(row, value, str(stated)):
            wrong.append(f"the value is no {stated}")
    access = reply.get("access_mode")
    if access is not None and row.access and access not in row.access:
        wrong.append(f"the access is {access!r}")
    if access is None and "/config/" in row.resource:
        wrong.append("no access mode")
    if row.unit and "/config/" in row.resource and reply.get("unit") != row.unit:
        wrong.append(f"the unit is {reply.get('unit')!r}")
    return [*wrong, *_outside(row, reply)]


def _is_of_type(row: Row, value: Any, stated: str) -> bool:
    # Lists have their entries' type on EIGER, and errors are lists typed "string"; a status that is
    # not known is null, "" or [] (reference 1.8).
    if isinstance(value, list):
        entries, kind = value, stated.removesuffix("[]")
    elif value in (None, "") and "/status/" in row.resource:
        return True
    elif isinstance(value, dict):
        return "__darray__" in value
    else:
        entries, kind = [value], stated
    allowed = _PYTHON.get(kind, (object,))
    return all(
        isinstance(entry, allowed) and (kind == "bool" or not isinstance(entry, bool))
        for entry in entries
    )


def _outside(row: Row, reply: dict[str, Any]) -> list[str]:
    value, low, high = reply["value"], reply.get("min"), reply.get("max")
    wrong = []
    if isinstance(value, int | float) and not isinstance(value, bool):
        margin = _ROUNDING * abs(value)
        if isinstance(low, int | float) and value < low - margin:
            wrong.append(f"below its own limit of {low:g}")
        if isinstance(high, int | float) and value > high + margin:
            wrong.append(f"above its own limit of {high:g}")
    allowed = reply.get("allowed_values")
    choices = [allowed] if isinstance(allowed, str) else allowed
    if choices == []:
        wrong.append("an empty list of choices")
    elif isinstance(choices, list) and isinstance(value, str) and value not in choices:
        is_cleared = row.resource == _MAY_BE_EMPTY and value == ""
        if not is_cleared:
            wrong.append(f"none of its choices {', '.join(map(str, choices))}")
    return wrong


def _shown(reply: dict[str, Any]) -> str:
    value = reply["value"]
    if isinstance(value, dict):
        return "an array"
    unit = reply.get("unit")
    return _cut(value) + (f" {unit}" if unit else "")


def _cut(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
