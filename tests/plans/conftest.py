"""A device on a simulated DCU, and what the plans' tests look at."""

import inspect
import logging
import re
import sys
from pathlib import Path

import eiger_plans
import event_model
import numpy as np
import pytest
from bluesky import RunEngine

import sim_dcu
from ophyd_eiger import EigerDetector

# The helpers beside the tests are imported by their own names, whatever pytest's import mode.
sys.path.insert(0, str(Path(__file__).parent))

# Their own place in a run; and where `acceptance_test` writes its report.
NOT_IN_RUNS = {"md", "report"}


@pytest.fixture
def dcu():
    with sim_dcu.serve(model="eiger-500k", time_scale=0, seed=5, initialized=True) as server:
        yield server


@pytest.fixture
def eiger(dcu, tmp_path):
    device = EigerDetector(dcu.url, name="eiger", directory=tmp_path / "data")
    device.connect()
    yield device
    device.destroy()


@pytest.fixture(scope="module")
def quiet_eiger(tmp_path_factory):
    """A device for all tests of a module that see it refused before the first message."""
    with sim_dcu.serve(model="eiger-500k", time_scale=0, seed=5, initialized=True) as server:
        device = EigerDetector(server.url, name="eiger", directory=tmp_path_factory.mktemp("data"))
        device.connect()
        yield device
        device.destroy()


@pytest.fixture
def commands(caplog):
    """The detector's commands that the simulator was sent, in order."""
    caplog.set_level(logging.INFO, logger="sim_dcu.api")

    def sent():
        lines = (record.getMessage() for record in caplog.records if record.name == "sim_dcu.api")
        found = (re.match(r"PUT /detector/api/[^/]+/command/(\w+)", line) for line in lines)
        return [match[1] for match in found if match]

    sent.clear = caplog.clear
    return sent


def looked_at(engine):
    """Return an engine that sees that every argument of our own plans is in their runs."""

    def look(_, start):
        plan = getattr(eiger_plans, start["plan_name"], None)
        if plan is not None:
            asked = set(inspect.signature(plan).parameters) - NOT_IN_RUNS
            assert asked <= set(start["plan_args"]), start["plan_name"]

    engine.subscribe(look, "start")
    return engine


@pytest.fixture
def RE(RE):
    return looked_at(RE)


@pytest.fixture
def engine():
    """A RunEngine that returns what the plan does."""
    return looked_at(RunEngine({}, call_returns_result=True))


@pytest.fixture
def documents(RE):
    """The documents of the runs so far, each valid by event-model's schemas."""
    found: list[tuple[str, dict]] = []

    def keep(name, doc):
        event_model.schema_validators[event_model.DocumentNames[name]].validate(doc)
        found.append((name, doc))

    RE.subscribe(keep)
    return found


@pytest.fixture
def images_of(catalog):
    """Return a run's images as one array (events, images, y, x), and the ids of their series."""

    def read(uid):
        dataset = catalog[uid].primary.read()
        return np.asarray(dataset["eiger_image"]), [int(n) for n in dataset["eiger_series_id"]]

    return read


@pytest.fixture
def columns(documents):
    """Return the data of a stream's events, which came in pages, as one dict of arrays."""

    def of(stream):
        uids = [d["uid"] for n, d in documents if n == "descriptor" and d["name"] == stream]
        pages = [d["data"] for n, d in documents if n == "event_page" and d["descriptor"] in uids]
        return {key: np.concatenate([page[key] for page in pages]) for key in pages[0]}

    return of


@pytest.fixture
def at_work(tmp_path, request, instant_settings):
    """A detector that exposes in real time, and a device on it; model, documents by parameter."""
    model, documents = getattr(request, "param", ("eiger-500k", "datum"))
    with sim_dcu.serve(model, time_scale=1, seed=5, initialized=True) as dcu:
        eiger = EigerDetector(
            dcu.url, name="eiger", directory=tmp_path / "data", documents=documents
        )
        eiger.connect()
        yield dcu, eiger
        eiger.destroy()
