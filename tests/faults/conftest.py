"""One process of each generation for all tests of faults; each test starts it anew."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

# The helpers beside these tests and those of the simulator are imported by their own names.
sys.path.insert(0, str(Path(__file__).parents[1] / "sim"))
sys.path.insert(0, str(Path(__file__).parent))

from dcu_process import VERSIONS, Dcu, running


@pytest.fixture(scope="session")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Dcu]]:
    with ExitStack() as stack:
        yield {
            model: stack.enter_context(running(model, tmp_path_factory.mktemp(model)))
            for model in VERSIONS
        }


@pytest.fixture(params=VERSIONS)
def dcu(processes: dict[str, Dcu], request: pytest.FixtureRequest) -> Dcu:
    """A DCU of each generation, initialized, without fault and without files."""
    return as_new(processes[request.param])


@pytest.fixture
def eiger1(processes: dict[str, Dcu]) -> Dcu:
    """An EIGER1's, as `dcu`."""
    return as_new(processes["eiger-500k"])


def as_new(dcu: Dcu) -> Dcu:
    dcu.clear()
    dcu.start_anew()
    return dcu
