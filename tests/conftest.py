"""What the tests share: the real files, a simulated DCU, a RunEngine and a catalog."""

import itertools
import os
import sys
import warnings
from pathlib import Path

import pytest

# What tests of several folders share is imported by its own name, whatever pytest's import mode.
sys.path.insert(0, str(Path(__file__).parent))

from tiled_servers import tiled_server

TEST_NUMBERS = itertools.count()


# Before xdist's own, which looks for the groups.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Choose the generation of some tests, and begin with what may take longest.

    Of the modules that say GENERATIONS_BY_TURNS the short run takes each test with one generation
    only; of those that say SHORT_RUN_EVERY = n, of each test's cases that are left every n-th.
    What takes long comes first, so that no worker of xdist is left alone with it.
    """
    generations: dict[str, dict[str, list]] = {}
    for item in items:
        parameters = getattr(item, "callspec", None)
        if not parameters or not getattr(item.module, "GENERATIONS_BY_TURNS", False):
            continue
        if item.get_closest_marker("long"):
            continue
        for model in {"eiger-500k", "eiger2-500k"} & _words(parameters.params.values()):
            tests = generations.setdefault(item.nodeid.partition("[")[0], {})
            tests.setdefault(model, []).append(item)
    both = [tests for tests in generations.values() if len(tests) == 2]
    for turn, tests in enumerate(both):
        for item in tests["eiger-500k" if turn % 2 else "eiger2-500k"]:
            item.add_marker(pytest.mark.long)
    _thin_out(items)
    items.sort(key=lambda item: -_limit(item))
    for item in items:
        # One worker of xdist takes all that need a tiled server, which takes 10 s to start.
        if "tiled" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("tiled"))


def _thin_out(items):
    cases: dict[str, int] = {}
    for item in items:
        every = getattr(item.module, "SHORT_RUN_EVERY", 1)
        if every == 1 or not hasattr(item, "callspec") or item.get_closest_marker("long"):
            continue
        test = item.nodeid.partition("[")[0]
        number = cases[test] = cases.get(test, -1) + 1
        if number % every:
            item.add_marker(pytest.mark.long)


def _words(values):
    """Return the texts among parameters, also those in tuples."""
    each = [value for value in values for value in (value if isinstance(value, tuple) else [value])]
    return {value for value in each if isinstance(value, str)}


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


@pytest.fixture(scope="session", autouse=True)
def _states_of_tests(tmp_path_factory):
    """Keep the journals of tests out of the user's own folder; processes they start inherit it."""
    with pytest.MonkeyPatch.context() as environment:
        folder = tmp_path_factory.mktemp("states")
        environment.setenv("XDG_STATE_HOME", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def _own_states(_states_of_tests, monkeypatch):
    """Give each test its own: what another left is not owed to a simulator that got its port."""
    monkeypatch.setenv("XDG_STATE_HOME", str(_states_of_tests / f"{next(TEST_NUMBERS)}"))


@pytest.fixture(scope="session")
def session_catalog():
    """One in-process databroker for all tests: it takes a second to make."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")
        from databroker.v2 import temp

        return temp()


@pytest.fixture(scope="session")
def tiled(tmp_path_factory):
    """A client of a tiled server that may read what tests write."""
    from tiled.client import from_uri

    with tiled_server(tmp_path_factory.mktemp("tiled"), tmp_path_factory.getbasetemp()) as uri:
        client = from_uri(uri)
        yield client
        client.context.close()


@pytest.fixture
def instant_puts(monkeypatch):
    """Have simulated detectors in real time take none for a put: 0.3 s for each add up."""
    from sim_dcu.models import Durations, Model

    monkeypatch.setattr(Model, "durations", Durations(put=0, slow_put=0))


@pytest.fixture
def instant_settings(monkeypatch):
    """Have simulated detectors in real time take it for exposures, none for puts and arming."""
    from sim_dcu.models import Durations, Model

    swift = Durations(initialize=0.05, arm=0.05, arm_again=0.05, put=0, slow_put=0)
    monkeypatch.setattr(Model, "durations", swift)


@pytest.fixture
def catalog(session_catalog):
    """A databroker catalog; runs are found by their uid."""
    return session_catalog


@pytest.fixture(autouse=True)
def _engines_end(monkeypatch):
    """End the threads and event loops of a test's RunEngines, which keep them for good.

    A worker has thousands of tests, and some programs take no more than 1024 open descriptors.
    """
    from bluesky import RunEngine
    from bluesky.run_engine import _ensure_event_loop_running

    engines = []
    begin = RunEngine.__init__

    def begin_and_note(engine, *args, **kwargs):
        begin(engine, *args, **kwargs)
        engines.append(engine)

    monkeypatch.setattr(RunEngine, "__init__", begin_and_note)
    yield
    for engine in engines:
        if engine.state != "idle":
            engine.halt()
        thread = _ensure_event_loop_running.loop_to_thread[engine.loop]
        engine.loop.call_soon_threadsafe(engine.loop.stop)
        thread.join(20)
        assert not thread.is_alive()
        engine.loop.close()


@pytest.fixture
def RE(request):
    """A RunEngine that saves to the catalog where the test has one, which costs 0.2 s a run."""
    from bluesky import RunEngine

    engine = RunEngine({})
    if "catalog" in request.fixturenames:
        engine.subscribe(request.getfixturevalue("catalog").v1.insert)
    return engine
