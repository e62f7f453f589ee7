"""Makes the helpers beside the tests, and those of the simulator's tests, importable."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "sim")]


@pytest.fixture(params=[1, 2], ids=["eiger1", "eiger2"])
def generation(request: pytest.FixtureRequest) -> int:
    return request.param
