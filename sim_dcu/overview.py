"""What the page of a simulated DCU shows, and the page itself.

Reads; changes nothing. Knows nothing of HTTP.
"""

import contextlib
from dataclasses import asdict
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from sim_dcu.dcu import Dcu
from sim_dcu.states import State

# How many of the newest files and requests it shows.
FILES, REQUESTS = 50, 100
SETTINGS = {
    "detector": (
        *("photon_energy", "threshold_energy", "count_time", "frame_time", "nimages", "ntrigger"),
        *("trigger_mode", "bit_depth_image", "compression", "roi_mode", "detector_distance"),
    ),
    "filewriter": ("mode", "name_pattern", "nimages_per_file"),
    "monitor": ("mode", "buffer_size"),
    "stream": ("mode",),
}


@cache
def page() -> str:
    """Return the page, HTML that asks for `/sim/state` and `/sim/faults`."""
    return (resources.files("sim_dcu") / "page.html").read_text(encoding="utf-8")


def overview(dcu: Dcu) -> dict[str, Any]:
    """Return the state of a DCU in short, for JSON.

    Parameters
    ----------
    dcu : Dcu
        Which one.

    Returns
    -------
    dict
        `model`, `api_version`, `state` (of the detector, in words), `error` (why it is in state
        error), `series` (its id and how many images it has, of these exposed and delivered,
        and by how many s the latest was made, and delivered, after its exposure), `beam`
        (what shines on the detector), `image_rate` (how many images a second can be made, None
        before one was),
        `subsystems` (their states), `settings` (name, value, unit; none before initialize, as a
        DCU has none), `files` (their number, what is free in bytes, and the newest with bytes),
        `faults` that are set, and the latest `requests`.
    """
    with dcu.lock:
        state = dcu.detector.state
        control = dcu.detector.series
        series = {"id": control.series_id, "images": 0, "exposed": 0, "delivered": 0}
        series |= {"latest_made": 0.0, "latest": 0.0}
        acquisition = control.acquisition
        if acquisition is not None:
            series |= {
                "images": acquisition.exposed + acquisition.missing,
                "exposed": acquisition.exposed,
                "delivered": acquisition.delivered,
                "latest_made": acquisition.latest_made,
                "latest": acquisition.latest,
            }
        known = state.now not in (State.NA, State.INITIALIZE)
        found = {
            "model": dcu.detector.model.name,
            "api_version": dcu.firmware.api_version,
            "time_scale": dcu.detector.machine.clock.scale,
            "state": str(state.now),
            "error": state.fault,
            "series": series,
            "beam": asdict(dcu.beam),
            "image_rate": control.rate,
            "subsystems": {
                name: dcu.subsystem(name).status_value("state")
                for name in ("filewriter", "monitor", "stream")
            },
            "settings": _settings(dcu) if known else [],
        }
    # A folder of many files takes its time to look through: not under the lock.
    return found | {
        "files": _files(dcu),
        "faults": dcu.faults.listing(),
        "requests": dcu.system.log.tail(REQUESTS),
    }


def _settings(dcu: Dcu) -> list[list[Any]]:
    found = []
    for name, keys in SETTINGS.items():
        config = dcu.subsystem(name).config
        # Not every generation has them all.
        found += [
            [f"{name}/{key}", config[key], config.parameters[key].unit]
            for key in keys
            if key in config.parameters
        ]
    return found


def _files(dcu: Dcu) -> dict[str, Any]:
    folder, newest = dcu.store.folder, []
    names = dcu.store.names()
    for name in names:
        with contextlib.suppress(FileNotFoundError):  # deleted since
            found = Path(folder, name).stat()
            newest.append((found.st_mtime, name, found.st_size))
    newest.sort(reverse=True)
    return {
        "count": len(names),
        "bytes_free": int(dcu.filewriter.free_percent() * dcu.store.quota / 100),
        # A name that is not UTF-8 is in the folder, but not in JSON.
        "newest": [
            {"name": name.encode("utf-8", "replace").decode(), "bytes": size}
            for _, name, size in newest[:FILES]
        ],
    }
