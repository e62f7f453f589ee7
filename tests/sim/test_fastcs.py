"""fastcs-eiger 0.4, unchanged, introspects an EIGER2 16M, sets, arms, triggers and disarms it.

It brings an EPICS server and some forty other packages, so that it has an environment of its own:

    python -m venv fastcs && fastcs/bin/pip install "fastcs-eiger==0.4.*"
    EIGER_FASTCS_PYTHON=fastcs/bin/python python -m pytest tests/sim/test_fastcs.py
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from plain_client import Client

import sim_dcu

PYTHON = os.environ.get("EIGER_FASTCS_PYTHON", sys.executable)
DRIVE = Path(__file__).with_name("fastcs_drive.py")
INSTALL = 'python -m venv fastcs && fastcs/bin/pip install "fastcs-eiger==0.4.*"'


@pytest.fixture(scope="module")
def python() -> str:
    look = [PYTHON, "-c", "import fastcs_eiger; print(fastcs_eiger.__version__)"]
    found = subprocess.run(look, capture_output=True, text=True, timeout=60, check=False)
    if not found.stdout.startswith("0.4."):
        pytest.skip(f"no fastcs-eiger 0.4: {INSTALL}; EIGER_FASTCS_PYTHON=fastcs/bin/python")
    return PYTHON


@pytest.mark.parametrize(
    ("model", "version", "initialized"),
    [
        ("eiger2-16m", "1.8.0", False),
        pytest.param("eiger2-500k", "1.8.0", True, marks=pytest.mark.long),
        pytest.param("eiger2-500k", "1.6.0", True, marks=pytest.mark.long),
    ],
)
def test_fastcs_introspects_sets_and_takes_a_series(
    python: str, model: str, version: str, initialized: bool, tmp_path: Path
) -> None:
    with sim_dcu.serve(model, initialized=initialized, data_dir=tmp_path / "data") as server:
        port = urlsplit(server.url).port
        run = subprocess.run(
            [python, str(DRIVE), str(port), version],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert run.returncode == 0, run.stderr[-3000:]
        assert "Failed to find updater" not in run.stdout
        found = json.loads(run.stdout.splitlines()[-1])
        assert found["errors"] == []
        client = Client(server.url, version)
        with client.session:
            assert client.value("detector/config/nimages") == 2
            assert client.value("stream/config/mode") == "enabled"
            # The series it took is the first, so that the next is the second.
            assert client.arm() == 2
    # The numbers are the client's own test's against the real detector, in its parameters.json.
    assert {"mode", "format", "header_detail", "state", "dropped", "error"} <= set(
        found["attributes"]["stream"]
    )
    assert {"mode", "buffer_size", "discard_new", "buffer_free", "dropped", "state"} <= set(
        found["attributes"]["monitor"]
    )
    assert {"wavelength", "threshold_1_energy", "error", "humidity"} <= set(
        found["attributes"]["detector"]
    )
    assert found["values"]["photon_energy"] == pytest.approx(9000)
    assert found["values"]["count_time"] == pytest.approx(0.25)
