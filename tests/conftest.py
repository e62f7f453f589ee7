"""What the tests share: the real files, a simulated DCU, a RunEngine and a catalog."""

import os
import sys
import warnings
from pathlib import Path

import pytest

# What tests of several folders share is imported by its own name, whatever pytest's import mode.
sys.path.insert(0, str(Path(__file__).parent))


def pytest_collection_modifyitems(items):
    """Begin with what may take longest, so that no worker of xdist is left alone with it."""
    items.sort(key=lambda item: -_limit(item))


def _limit(item):
    marker = item.get_closest_marker("timeout")
    return marker.args[0] if marker else 0


@pytest.fixture(scope="session")
def eiger_test_data() -> Path:
    """The folder of real EIGER files."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("EIGER_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip("no real EIGER files: set EIGER_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def session_catalog():
    """One in-process databroker for all tests: it takes a second to make."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")
        from databroker.v2 import temp

        return temp()


@pytest.fixture
def catalog(session_catalog):
    """A databroker catalog; runs are found by their uid."""
    return session_catalog


@pytest.fixture
def RE(catalog):
    """A RunEngine that saves to the catalog."""
    from bluesky import RunEngine

    engine = RunEngine({})
    engine.subscribe(catalog.v1.insert)
    yield engine
    if engine.state != "idle":
        engine.halt()
