"""Series whose files do not come home, for tests of what becomes of them."""

import contextlib
from pathlib import Path

import pytest

from ophyd_eiger import EigerDetector, Timeouts
from ophyd_eiger.errors import TransferError

SHORT = Timeouts(connect=5, get=20, files=1, trigger_margin=20)


@contextlib.contextmanager
def with_short_patience(dcu, directory):
    """Give a device that does not wait long for files."""
    device = EigerDetector(dcu.url, name="eiger", directory=directory, timeouts=SHORT)
    device.connect()
    device.configure({"frame_time": 0.005, "count_time": 0.004})
    try:
        yield device
    finally:
        device.destroy()


def named(path: Path) -> set[str]:
    """Return what has a final name; hidden files have none."""
    return {each.name for each in path.iterdir() if not each.name.startswith(".")}


def journals(path: Path) -> list[str]:
    return sorted(each.name for each in path.glob(".*.owed"))


def take(device, points=1):
    device.stage().wait(20)
    for _ in range(points):
        device.trigger().wait(20)
        device.read()
        device.describe()
        for _, document in device.collect_asset_docs():
            document["run_start"] = "filled in by the RunEngine"


def refuse_files(dcu):
    dcu.faults.set("refuse", status=503, path="GET data/*")


def leave_owing(dcu, device):
    """Take a point whose files do not come."""
    refuse_files(dcu)
    take(device)
    with pytest.raises(TransferError):
        device.unstage().wait(20)
