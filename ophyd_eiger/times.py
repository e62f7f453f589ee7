"""Where a scan's time went, as something a plan can read into a run's documents."""

import json
import time
from typing import Any

from ophyd_eiger.ledger import Ledger

# What the ledger says of the points, and how: all but their number in s.
_OF_POINTS = {
    "count": "points",
    "seconds": "seconds",
    "exposure": "exposure",
    "in_trigger": "in_trigger",
    "in_requests": "in_requests",
    "waiting": "waiting",
    "idle_before": "idle_before",
    "overhead": "overhead",
}


class TimesTaken:
    """The sums of the ledger since the last `stage`; bluesky's Readable, asks nothing.

    Parameters
    ----------
    name : str
        What its data keys start with.
    source : str
        The DCU that the times are of.
    ledger : Ledger
        Keeps them.
    """

    parent = None

    def __init__(self, name: str, source: str, ledger: Ledger) -> None:
        self.name = name
        self._source = source
        self._ledger = ledger

    @property
    def hints(self) -> dict[str, Any]:
        """What is plotted and printed: nothing."""
        return {"fields": []}

    def read(self) -> dict[str, Any]:
        """Return the sums of the points, and as JSON those of all work and requests."""
        summary, now = self._ledger.summary(), time.time()
        values = {key: summary["points"][of] for of, key in _OF_POINTS.items()}
        values["work"] = json.dumps(summary["seconds"])
        values["requests"] = json.dumps(summary["requests"])
        return {
            f"{self.name}_{key}": {"value": value, "timestamp": now}
            for key, value in values.items()
        }

    def describe(self) -> dict[str, Any]:
        """Return the data keys."""
        number = {"source": self._source, "shape": []}
        seconds = {**number, "dtype": "number", "dtype_numpy": "<f8", "units": "s"}
        count = {**number, "dtype": "integer", "dtype_numpy": "<i8"}
        text = {**number, "dtype": "string"}
        kinds = {key: count if key == "points" else seconds for key in _OF_POINTS.values()}
        return {
            f"{self.name}_{key}": dict(kind)
            for key, kind in (*kinds.items(), ("work", text), ("requests", text))
        }

    def read_configuration(self) -> dict[str, Any]:
        """Return nothing: it has no settings."""
        return {}

    def describe_configuration(self) -> dict[str, Any]:
        """Return nothing: it has no settings."""
        return {}
