"""Simulated DCUs for the commands, and a way to run one and see what it said."""

import json
import socket
import sys
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner

import sim_dcu
from ophyd_eiger.cli import main

# A DCU of somebody else's, and what the simulator's tests wait with, are imported by their names.
for folder in ("device", "sim"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))

VERSIONS = {"eiger-500k": "1.6.0", "eiger2-500k": "1.8.0"}


@dataclass
class Plain:
    """A DCU and a client that knows nothing of the package."""

    server: sim_dcu.Server
    model: str

    @property
    def url(self) -> str:
        return self.server.url

    def path(self, resource: str) -> str:
        subsystem, rest = resource.split("/", 1)
        return f"{self.url}/{subsystem}/api/{VERSIONS[self.model]}/{rest}"

    def get(self, resource: str) -> Any:
        reply = requests.get(self.path(resource), timeout=20)
        reply.raise_for_status()
        return reply.json()["value"]

    def put(self, resource: str, value: Any = None) -> None:
        body = {} if value is None else {"json": {"value": value}}
        requests.put(self.path(resource), timeout=20, **body).raise_for_status()


def started(model: str, **kwargs: Any):
    with sim_dcu.serve(model=model, time_scale=0, seed=3, **kwargs) as server:
        yield Plain(server, model)


@pytest.fixture
def dcu():
    yield from started("eiger-500k", initialized=True)


@pytest.fixture
def dcu2():
    yield from started("eiger2-500k", initialized=True)


@pytest.fixture(params=list(VERSIONS))
def either(request):
    """A DCU of either generation, to be changed."""
    yield from started(request.param, initialized=True)


@pytest.fixture(params=list(VERSIONS))
def asleep(request):
    """A DCU of either generation that was just switched on."""
    yield from started(request.param)


@pytest.fixture(scope="module", params=list(VERSIONS))
def read_only(request):
    """A DCU of either generation, which tests leave as it is."""
    yield from started(request.param, initialized=True)


@pytest.fixture(scope="module")
def _unchanged():
    yield from started("eiger-500k", initialized=True)


@pytest.fixture
def shared(_unchanged):
    """An EIGER for several tests, which set nothing; it has no faults before and after."""
    yield _unchanged
    _unchanged.server.faults.clear()


@dataclass
class Said:
    """What a command said, and how it ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def run():
    """Run a command in this process; an exception that is no exit is raised."""

    def invoke(*arguments: Any, typed: str | None = None) -> Said:
        result = CliRunner().invoke(main, [str(one) for one in arguments], input=typed)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Said(result.exit_code, result.stdout, result.stderr)

    return invoke


@pytest.fixture
def dead_url():
    """An address where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


class _NotFound(BaseHTTPRequestHandler):
    """A web server that has other pages."""

    def answer(self) -> None:
        body = b"<html><head><title>404 Not Found</title></head></html>"
        self.send_response(404)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = answer  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web_server():
    """The address of a web server that is no DCU."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _NotFound)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()
