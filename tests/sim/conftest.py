"""Simulated DCUs over HTTP, and a plain client for each."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sim_dcu

# The helpers beside the tests are imported by their own names, whatever pytest's import mode.
sys.path.insert(0, str(Path(__file__).parent))

from plain_client import TIMED, Client


@pytest.fixture
def dcu(tmp_path: Path) -> Iterator[sim_dcu.Server]:
    """An initialized 500K that does not wait."""
    with sim_dcu.serve(
        "eiger-500k", seed=3, initialized=True, data_dir=tmp_path / "data"
    ) as server:
        yield server


@pytest.fixture
def client(dcu: sim_dcu.Server) -> Iterator[Client]:
    plain = Client(dcu.url)
    with plain.session:
        yield plain


@pytest.fixture(scope="module")
def quiet_client() -> Iterator[Client]:
    """Of one initialized 500K for all tests of a module that change nothing."""
    with sim_dcu.serve("eiger-500k", seed=3, initialized=True) as server:
        plain = Client(server.url)
        with plain.session:
            yield plain


@pytest.fixture
def timed(tmp_path: Path) -> Iterator[sim_dcu.Server]:
    """An initialized 500K whose waits are a twentieth of a real one's: 1 s is 50 ms."""
    with sim_dcu.serve(
        "eiger-500k", seed=3, initialized=True, time_scale=TIMED, data_dir=tmp_path / "data"
    ) as server:
        yield server


@pytest.fixture
def timed_client(timed: sim_dcu.Server) -> Iterator[Client]:
    plain = Client(timed.url)
    with plain.session:
        yield plain
