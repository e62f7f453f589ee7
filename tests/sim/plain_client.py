"""A plain HTTP client of a simulated DCU, and waiting for an answer."""

import time
from collections.abc import Callable

import pytest
import requests

TIMED = 0.05


class Client:
    """What a script written from the API reference would do, with `requests` alone."""

    def __init__(self, url: str, version: str = "1.6.0"):
        self.url = url
        self.version = version
        self.session = requests.Session()

    def path(self, rest: str) -> str:
        subsystem, _, resource = rest.partition("/")
        return f"{self.url}/{subsystem}/api/{self.version}/{resource}"

    def get(self, rest: str) -> requests.Response:
        return self.session.get(self.path(rest), timeout=30)

    def put(self, rest: str, value: object = None) -> requests.Response:
        body = None if value is None else {"value": value}
        return self.session.put(self.path(rest), json=body, timeout=30)

    def value(self, rest: str) -> object:
        reply = self.get(rest)
        assert reply.status_code == 200, reply.text
        return reply.json()["value"]

    def config(self, **values: object) -> None:
        for key, value in values.items():
            reply = self.put(f"detector/config/{key}", value)
            assert reply.status_code == 200, reply.text

    def command(self, name: str, value: object = None) -> requests.Response:
        return self.put(f"detector/command/{name}", value)

    def arm(self) -> int:
        reply = self.command("arm")
        assert reply.status_code == 200, reply.text
        return reply.json()["sequence id"]

    @property
    def state(self) -> object:
        return self.value("detector/status/state")

    def files(self) -> list[str]:
        return self.get("filewriter/files").json()


def until(question: Callable[[], object], limit: float = 20.0) -> object:
    """Ask again until the answer is true; each asking is a request, so this does not spin."""
    end = time.monotonic() + limit
    while not (answer := question()):
        if time.monotonic() > end:
            pytest.fail(f"still {answer!r} after {limit} s")
    return answer
