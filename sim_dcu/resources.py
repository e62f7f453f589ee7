"""The table of every resource of both generations: `python -m sim_dcu.resources > FILE`.

Asks a simulated DCU of each generation for its own resources, so that the table is what is served.
"""

import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sim_dcu.clock import Clock
from sim_dcu.dcu import Dcu

# The largest of each generation, which has every link and region.
MODELS = ("eiger-16m", "eiger2-16m")
SUBSYSTEMS = ("detector", "monitor", "filewriter", "stream", "system")
COLUMNS = ("resource", "methods", "type", "access", "unit", "limits or values", "listed")

# What is no value and no command. `<v>` is the API version.
OTHERS = (
    ("/<subsystem>/api/version", "GET", "API version of a subsystem"),
    ("/<subsystem>/api/<v>/keys", "GET", "the sections"),
    ("/<subsystem>/api/<v>/<section>/keys", "GET", "the names listed in a section"),
    ("/<subsystem>/api/<v>/config", "GET, PUT", "the whole config as JSON or HDF5, no arrays"),
    ("/monitor/api/<v>/images", "GET, DELETE", "which images the buffer holds"),
    ("/<subsystem>/api/<v>/status", "GET", "every listed status as JSON"),
    ("/monitor/api/<v>/images/monitor", "GET", "the newest image, TIFF; EIGER1 takes it out"),
    ("/monitor/api/<v>/images/next", "GET", "the oldest image, TIFF, taken out of the buffer"),
    ("/monitor/api/<v>/images/<series>/<id>", "GET, DELETE", "one image, TIFF"),
    ("/filewriter/api/<v>/files", "GET", "the files"),
    ("/system/api/<v>/log", "GET", "the API log"),
    ("/system/api/<v>/log.tar.gz", "GET", "what create_log_tarball packed"),
    ("/data", "GET", "the files, HTML"),
    ("/data/<name>", "GET, HEAD, DELETE", "one file, whole or a range"),
    ("/", "GET", "the page: state, settings, files, faults and requests, live"),
    ("/sim/state", "GET", "what the page shows, JSON"),
    ("/sim/faults", "GET, DELETE", "the faults set and the table of all; DELETE clears"),
    ("/sim/faults/<name>", "PUT, DELETE", "set a fault with a JSON object of arguments; clear it"),
    ("/sim/trigger", "PUT", "an edge at the trigger input, or with a value a gate of so many s"),
    ("/sim/image/<series>/<id>", "GET", "what an image must hold, npy"),
    ("/sim/planted/<series>", "GET", "true response and bad pixels, npz"),
    ("/sim/beam", "GET, PUT", "what shines on the detector; a JSON object of changes"),
)
# Text in a table's cell is cut here.
_LONGEST_CELL = 60


def rows(dcu: Dcu, subsystem: str) -> Iterator[tuple[str, ...]]:
    """Yield a row of the table, in the order of `COLUMNS`, for each resource of a subsystem."""
    chosen = dcu.subsystem(subsystem)
    listed = {section: set(chosen.keys(section)) for section in ("config", "status", "command")}
    for section in ("config", "status"):
        for key in chosen.served(section):
            reply = (chosen.read_config if section == "config" else chosen.read_status)(key)
            yield _row(section, key, reply, key in listed[section])
    for key in chosen.served("command"):
        yield (f"command/{key}", "PUT", "", "w", "", "", "yes" if key in listed["command"] else "")


def _row(section: str, key: str, reply: Mapping[str, Any], listed: bool) -> tuple[str, ...]:
    access = reply.get("access_mode", "r")
    methods = "GET, PUT" if access == "rw" else "GET"
    if access == "rw" and key.endswith("pixel_mask"):
        methods += ", DELETE"
    limits = ""
    if "allowed_values" in reply:
        allowed = reply["allowed_values"]
        limits = allowed if isinstance(allowed, str) else ", ".join(allowed)
    elif "min" in reply or "max" in reply:
        low, high = (_number(reply[end]) if end in reply else "" for end in ("min", "max"))
        limits = f"{low} to {high}"
    if len(limits) > _LONGEST_CELL:
        limits = limits[: _LONGEST_CELL - 3] + "..."
    return (
        f"{section}/{key}",
        methods,
        reply["value_type"],
        access,
        reply.get("unit", ""),
        limits,
        "yes" if listed else "",
    )


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.7g}"


def _table(header: tuple[str, ...], lines: Iterator[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    for line in lines:
        yield f"| {' | '.join(line)} |"


def document() -> str:
    """Return the whole page, Markdown."""
    lines = [
        "# Every resource of the simulated DCU",
        "",
        "Made by `python -m sim_dcu.resources`; a test holds it equal to what is served.",
        "`listed` tells whether `keys` names a resource; all are served.",
    ]
    for model in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            dcu = Dcu(model, Path(folder), Clock(0), initialized=True)
            try:
                answering = ", ".join(sorted(dcu.firmware.api_versions))
                lines += ["", f"# {model}: API {dcu.firmware.api_version} (answers {answering})"]
                for subsystem in SUBSYSTEMS:
                    lines += ["", f"## {model}: `/{subsystem}/api/<v>/`", ""]
                    lines += _table(COLUMNS, rows(dcu, subsystem))
            finally:
                dcu.close()
    lines += ["", "# Both", "", *_table(("path", "methods", "what"), iter(OTHERS)), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(document())
