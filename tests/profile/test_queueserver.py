"""bluesky-queueserver 0.0, unchanged, loads the profile, lists its plans and runs one.

It brings Jupyter and Sphinx, so that it has an environment of its own, and needs a Redis server:

    apt-get install redis-server
    python -m venv queueserver
    queueserver/bin/pip install "bluesky-queueserver==0.0.*" --editable ".[all]"
    EIGER_QUEUESERVER_PYTHON=queueserver/bin/python python -m pytest tests/profile
"""

import inspect
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import eiger_plans
import pytest
from tiled.client import from_uri

from ophyd_eiger.reader import open_series
from ophyd_eiger.trial import start_catalog

PYTHON = os.environ.get("EIGER_QUEUESERVER_PYTHON", sys.executable)
DRIVE = Path(__file__).with_name("queue_drive.py")
STARTUP = Path(__file__).parents[2] / "profile_collection" / "startup"
INSTALL = 'pip install "bluesky-queueserver==0.0.*" --editable ".[all]"'
# Of bluesky's own the profile has those that are used most.
OF_BLUESKY = {
    **{name: getattr(bp, name) for name in ("count", "grid_scan", "list_scan", "rel_scan", "scan")},
    **{name: getattr(bps, name) for name in ("mv", "mvr")},
}


@pytest.fixture
def python() -> str:
    look = [PYTHON, "-c", "import bluesky_queueserver as b; print(b.__version__)"]
    found = subprocess.run(look, capture_output=True, text=True, timeout=60, check=False)
    if not found.stdout.startswith("0.0."):
        pytest.skip(f"no bluesky-queueserver 0.0: {INSTALL}; EIGER_QUEUESERVER_PYTHON=...")
    return PYTHON


@pytest.fixture
def redis(tmp_path):
    """The port of a Redis server that keeps nothing."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no redis-server: apt-get install redis-server")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [program, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("Ready to accept connections" in line for line in process.stdout)
        yield port
        process.terminate()


@pytest.fixture
def queued(python, redis, tmp_path):
    """What the queueserver found in the profile, and what became of the plan `series`."""
    startup = tmp_path / "startup"
    shutil.copytree(STARTUP, startup)
    bare = {name: value for name, value in os.environ.items() if "DISPLAY" not in name}
    done = subprocess.run(
        [python, DRIVE, startup, tmp_path, str(redis)],
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
        env={**bare, "EIGER_URL": "", "EIGER_DATA": "", "EIGER_CATALOG": ""},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def plans_of_ours() -> dict:
    found = {name: getattr(eiger_plans, name) for name in eiger_plans.__all__}
    return {name: plan for name, plan in found.items() if inspect.isgeneratorfunction(plan)}


@pytest.mark.timeout(600)
@pytest.mark.long
def test_the_queueserver_lists_every_plan_and_runs_series(queued, tmp_path):
    expected = {**plans_of_ours(), **OF_BLUESKY}
    assert "series" in expected
    assert queued["plans"].keys() == expected.keys()
    for name, plan in expected.items():
        assert queued["plans"][name] == list(inspect.signature(plan).parameters), name
    assert queued["devices"] == ["eiger", "motor", "shutter"]

    assert queued["result"]["exit_status"] == "completed", queued["result"]
    (uid,) = queued["result"]["run_uids"]
    catalog = start_catalog(tmp_path / "data" / "catalog")
    try:
        client = from_uri(catalog.url)
        assert client[uid].primary.read()["eiger_image"].shape == (1, 3, 1065, 1030)
        client.context.close()
    finally:
        catalog.end()
    (master,) = (tmp_path / "data").glob("eiger_*_master.h5")
    assert open_series(master).shape == (3, 1065, 1030)
