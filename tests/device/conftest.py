"""A device on a simulated DCU, and the images that a run must have."""

import logging
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import sim_dcu
from ophyd_eiger import EigerDetector, Timeouts, ending

# The helpers beside the tests are imported by their own names, whatever pytest's import mode.
sys.path.insert(0, str(Path(__file__).parent))

from foreign_dcu import ForeignDcu
from owing import with_short_patience

# Short enough for a test to see them pass, long enough for a busy machine.
TIMEOUTS = Timeouts(connect=5, get=20, files=10, trigger_margin=20)


@pytest.fixture
def dcu():
    with sim_dcu.serve(model="eiger-500k", time_scale=0, seed=3, initialized=True) as server:
        yield server


@pytest.fixture
def eiger(dcu, tmp_path):
    device = EigerDetector(dcu.url, name="eiger", directory=tmp_path / "data", timeouts=TIMEOUTS)
    device.connect()
    # 16-bit images, no long waits at time-scale 1.
    device.detector.frame_time.set(0.005).wait(10)
    device.detector.count_time.set(0.004).wait(10)
    yield device
    device.destroy()


@pytest.fixture
def device(dcu, tmp_path):
    """A device that does not wait long for files."""
    with with_short_patience(dcu, tmp_path / "data") as device:
        yield device


@pytest.fixture
def foreign(dcu):
    """The same DCU as somebody else's, which leaves out what `gap` says."""
    proxy = ForeignDcu(dcu.url)
    yield proxy
    proxy.close()


class RequestLog:
    """The requests that the simulator says it was sent, in order."""

    def __init__(self, caplog):
        self._caplog = caplog

    def clear(self):
        self._caplog.clear()

    def __call__(self, *, files=False):
        """Return the requests as "PUT detector command/arm"; `files` for those of the transfer."""
        found = []
        for record in self._caplog.records:
            match = re.match(r"(GET|PUT|HEAD|DELETE|POST) (\S+)", record.getMessage())
            if record.name != "sim_dcu.api" or match is None:
                continue
            method, path = match.groups()
            of_files = path.startswith("/data/") or path.endswith("/files")
            if of_files != files or path.startswith("/sim/"):
                continue
            resource = re.sub(r"^/(.*?)/api/[^/]+/", r"\1 ", path)
            found.append(f"{method} {resource}")
        return found


@pytest.fixture
def requests_sent(caplog, monkeypatch):
    # How long a busy machine lets a series wait is no matter of what is sent.
    monkeypatch.setattr(ending, "UNWATCHED_S", math.inf)
    caplog.set_level(logging.INFO, logger="sim_dcu.api")
    return RequestLog(caplog)


def expected_images(dcu, dataset, images):
    """Return what the oracle says the events of a dataset must hold, in order."""
    taken: dict[int, int] = {}
    points = []
    for series_id in (int(number) for number in np.asarray(dataset["eiger_series_id"])):
        first = taken.get(series_id, 0)
        taken[series_id] = first + images
        points.append([dcu.image(series_id, first + n + 1) for n in range(images)])
    return np.array(points)


@pytest.fixture
def assert_right(dcu, catalog):
    """Assert that a run has the oracle's images, in order, none more and none fewer."""

    def check(uid, *, points, images):
        dataset = catalog[uid].primary.read()
        found = np.asarray(dataset["eiger_image"])
        expected = expected_images(dcu, dataset, images)
        assert found.shape == (points, images, 514, 1030)
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)

    return check
