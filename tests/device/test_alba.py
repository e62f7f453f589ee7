"""ALBA's eiger-simulator, a simulator of others: the device goes as far as it goes.

It has an environment of its own:

    python -m venv alba && alba/bin/pip install "eiger-simulator==0.5.*"
    EIGER_ALBA_PYTHON=alba/bin/python python -m pytest tests/device/test_alba.py

It redirects the question for its version, answers 500 to whatever it has not, names settings in
its replies that it has not, calls the idle state "ready", and writes no files.
"""

import os
import sys
from pathlib import Path

import bluesky.plans as bp
import h5py
import numpy as np
import pytest
import requests
from bluesky.utils import FailedStatus
from foreign_process import free_ports, require, running

from ophyd_eiger import EigerDetector, Timeouts
from ophyd_eiger.errors import TransferError

PYTHON = os.environ.get("EIGER_ALBA_PYTHON", sys.executable)
HINT = (
    'no eiger-simulator 0.5: python -m venv alba && alba/bin/pip install "eiger-simulator==0.5.*"; '
    "EIGER_ALBA_PYTHON=alba/bin/python"
)


@pytest.fixture(scope="module")
def alba(tmp_path_factory):
    """The address of a simulator; what it replays matters to nobody here."""
    python = require(PYTHON, "eiger-simulator", "0.5.", HINT)
    folder = tmp_path_factory.mktemp("alba")
    with h5py.File(folder / "images.h5", "w") as file:
        file["entry/data/data"] = np.zeros((2, 20, 30), np.uint16)
    port, stream = free_ports(2)
    url = f"http://127.0.0.1:{port}"
    command = [
        *(str(Path(python).with_name("eiger-simulator")), "--host", "127.0.0.1"),
        *("--port", str(port), "--zmq", f"tcp://127.0.0.1:{stream}"),
        *("--dataset", str(folder / "images.h5")),
    ]
    with running(command, folder, f"{url}/detector/api/version/"):
        yield url


@pytest.fixture
def eiger(alba, tmp_path):
    device = EigerDetector(
        alba, name="eiger", directory=tmp_path / "data", timeouts=Timeouts(files=1)
    )
    yield device
    device.destroy()


def value(alba, resource):
    return requests.get(f"{alba}/detector/api/1.6.0/{resource}", timeout=5).json()["value"]


def test_it_is_set_up(alba, eiger, caplog):
    eiger.initialize()
    assert eiger.link.client.api_version == "1.6.0"
    assert "left out, because the DCU did not give them: eiger_" in caplog.text
    eiger.detector.count_time.set(0.25).wait(10)
    eiger.configure({"frame_time": 0.5, "nimages": 2})
    assert value(alba, "config/count_time") == 0.25
    assert value(alba, "config/frame_time") == 0.5
    assert value(alba, "config/nimages") == 2
    assert "eiger_detector_frame_period" not in eiger.read_configuration()


def test_a_scan_is_taken_and_what_it_does_not_give_is_said(alba, eiger, RE):
    eiger.initialize()
    eiger.configure({"count_time": 0.01, "frame_time": 0.01, "nimages": 2})
    events = []
    RE.subscribe(lambda name, doc: events.append(doc), "event")
    with pytest.raises(FailedStatus) as caught:
        RE(bp.count([eiger], 3))
    assert len(events) == 3, caught.value
    assert isinstance(caught.value.__cause__, TransferError)
    assert "/filewriter/api/1.6.0/files: the DCU answered 500" in str(caught.value)
    # And again.
    with pytest.raises(FailedStatus, match="files: the DCU answered 500"):
        RE(bp.count([eiger], 1))
    assert len(events) == 4


@pytest.mark.long
def test_an_armed_one_of_somebody_else_is_told_until_it_is_disarmed(alba, eiger, RE):
    requests.put(f"{alba}/detector/api/1.6.0/command/initialize", timeout=10).raise_for_status()
    with pytest.raises(FailedStatus, match="is in state 'ready', not 'idle'; somebody armed it"):
        RE(bp.count([eiger], 1))
    eiger.detector.disarm.set(1).wait(10)
    with pytest.raises(FailedStatus, match="files: the DCU answered 500"):
        RE(bp.count([eiger], 1))
