"""What people call a resource, and which one they mean. Pure: no requests.

A resource's full name is subsystem, section and key, as in "detector/config/count_time". The key
alone, "filewriter.mode", "config/count_time", the attribute's name "threshold_1_energy" and the
whole path of the URL are understood, too.
"""

import difflib
import re
from collections.abc import Iterable

SUBSYSTEMS = ("detector", "filewriter", "monitor", "stream", "system")
SECTIONS = ("config", "status")
# The subsystem that is meant where none is said.
MAIN = "detector"
# What people set, in an order in which it can be put again.
SETTINGS = (
    *("roi_mode", "photon_energy", "threshold_energy", "threshold/2/energy", "threshold/2/mode"),
    *("trigger_mode", "count_time", "frame_time", "nimages", "ntrigger"),
    *("compression", "beam_center_x", "beam_center_y", "detector_distance"),
)
_MOST_NEAR = 3
_SHORTEST_WORD = 4
_NAME = re.compile(
    rf"/?(?:(?P<subsystem>{'|'.join(SUBSYSTEMS)})[./](?:api/[^/]+/)?)?"
    rf"(?:(?P<section>{'|'.join(SECTIONS)})/)?(?P<key>[^\s./][^\s.]*)"
)


def candidates(name: str, sections: Iterable[str] = SECTIONS) -> list[str]:
    """Return the resources that a name may be for somebody who has no list of them.

    Parameters
    ----------
    name : str
        What was typed.
    sections : iterable of str
        The sections to look in: "config", "status".

    Returns
    -------
    list of str
        The likeliest first; empty for what names nothing.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        return []
    subsystem = found["subsystem"] or MAIN
    inside = [section for section in sections if found["section"] in (None, section)]
    return [f"{subsystem}/{section}/{found['key'].rstrip('/')}" for section in inside]


def matches(name: str, listed: Iterable[str], sections: Iterable[str] = SECTIONS) -> list[str]:
    """Return which of the resources listed a name may be."""
    found = _NAME.fullmatch(name)
    if found is None:
        return []
    key = _as_attribute(found["key"])
    chosen = []
    for resource in listed:
        subsystem, section, own = resource.split("/", 2)
        if (
            section in sections
            and found["subsystem"] in (None, subsystem)
            and found["section"] in (None, section)
            and _as_attribute(own) == key
        ):
            chosen.append(resource)
    return chosen


def nearest(name: str, listed: Iterable[str]) -> list[str]:
    """Return the resources listed whose names are like this one, at most three."""
    said = _as_attribute(name.strip("/").rpartition("/")[2].rpartition(".")[2])
    by_key: dict[str, list[str]] = {}
    for resource in listed:
        by_key.setdefault(_as_attribute(resource.split("/", 2)[2]), []).append(resource)
    keys = difflib.get_close_matches(said, by_key, n=_MOST_NEAR)
    # "temperature" for "board_000/th0_temp".
    keys += [key for key in by_key if any(_begins(said, word) for word in key.split("_"))]
    return [resource for key in dict.fromkeys(keys) for resource in by_key[key]][:_MOST_NEAR]


def short(resource: str) -> str:
    """Return the name to type: the key of a detector's resource, else with its subsystem.

    "detector/config/count_time" is "count_time", "filewriter/config/mode" is "filewriter.mode".
    """
    subsystem, _, key = resource.split("/", 2)
    return key if subsystem == MAIN else f"{subsystem}.{key}"


def _begins(one: str, other: str) -> bool:
    """Return whether one word begins with the other, where both are words."""
    shorter, longer = sorted((one, other), key=len)
    return len(shorter) >= _SHORTEST_WORD and longer.startswith(shorter)


def _as_attribute(key: str) -> str:
    return key.strip("/").replace("/", "_").lower()
