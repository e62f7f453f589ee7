"""DECTRIS EIGER detectors in Bluesky, over the SIMPLON API.

Names are loaded when they are used: `import ophyd_eiger` loads neither ophyd nor an HTTP client,
so that the reading side stays light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ophyd_eiger.client import DcuClient, Timeouts
    from ophyd_eiger.detector import EigerDetector
    from ophyd_eiger.errors import EigerError
    from ophyd_eiger.handlers import EigerHandler
    from ophyd_eiger.policy import FilePolicy
    from ophyd_eiger.reader import Series, open_series
    from ophyd_eiger.runs import open_run
    from ophyd_eiger.series_metadata import read_metadata
    from ophyd_eiger.triggering import TriggerInfo
    from ophyd_eiger.writing import new_file

__all__ = [
    "DcuClient",
    "EigerDetector",
    "EigerError",
    "EigerHandler",
    "FilePolicy",
    "Series",
    "Timeouts",
    "TriggerInfo",
    "new_file",
    "open_run",
    "open_series",
    "read_metadata",
]

_HOMES = {
    "DcuClient": "client",
    "EigerDetector": "detector",
    "EigerError": "errors",
    "EigerHandler": "handlers",
    "FilePolicy": "policy",
    "Series": "reader",
    "Timeouts": "client",
    "TriggerInfo": "triggering",
    "new_file": "writing",
    "open_run": "runs",
    "open_series": "reader",
    "read_metadata": "series_metadata",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
