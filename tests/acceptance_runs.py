"""What the acceptance test's tests share: one test of one simulated DCU, and what it left."""

import contextlib
from pathlib import Path
from typing import Any

import requests
from bluesky import RunEngine
from eiger_plans import acceptance_test

import sim_dcu
from ophyd_eiger import EigerDetector, Timeouts

VERSIONS = {"eiger": "1.6.0", "eiger2": "1.8.0"}
# Short, because a simulator that does not wait answers at once where nothing is wrong.
TIMEOUTS = Timeouts(
    connect=2, get=4, put=4, initialize=20, arm=4, end=4, trigger_margin=2, signal=4, files=2
)


def settings(dcu: sim_dcu.Server, model: str) -> dict[str, Any]:
    """Return every setting of detector, file writer and monitor, asked by plain HTTP."""
    found = {}
    version = VERSIONS[model.partition("-")[0]]
    for subsystem in ("detector", "filewriter", "monitor", "stream"):
        start = f"{dcu.url}/{subsystem}/api/{version}/config"
        for key in requests.get(f"{start}/keys", timeout=20).json():
            # Arrays are not touched, and the date is that of the last arm.
            if not key.endswith(("flatfield", "pixel_mask", "_table", "collection_date")):
                reply = requests.get(f"{start}/{key}", timeout=20).json()
                found[f"{subsystem}/{key}"] = reply["value"]
    return found


def state(dcu: sim_dcu.Server, model: str) -> str:
    version = VERSIONS[model.partition("-")[0]]
    path = f"{dcu.url}/detector/api/{version}/status/state"
    return requests.get(path, timeout=20).json()["value"]


@contextlib.contextmanager
def detector(dcu: sim_dcu.Server, folder: Path, **kwargs: Any):
    kwargs = {"timeouts": TIMEOUTS, **kwargs}
    device = EigerDetector(dcu.url, name="eiger", directory=folder / "data", **kwargs)
    yield device
    device.destroy()


def report_of(eiger: EigerDetector, **asked: Any) -> Any:
    """Run an acceptance test without waits, and return its report."""
    engine = RunEngine({}, call_returns_result=True)
    return engine(acceptance_test(eiger, **{"time_scale": 0, "seconds": 0.3, **asked})).plan_result
