"""Asks a DCU, past the device, for all that an acceptance test judges: plain requests, timed.

Nothing is changed; `replies_to_puts` puts values that are so already.
"""

import contextlib
import datetime as dt
import http.client
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import urlsplit

from eiger_plans.acceptance.findings import Check, Section
from eiger_plans.acceptance.resources import RESOURCES, Row, generation_of, judged, table
from eiger_plans.steps import PlanError
from ophyd_eiger import DcuClient, EigerDetector, EigerError

# In s: another client of EIGERs, fastcs-eiger, takes a DCU for gone after this.
LONGEST_REPLY_S = 3.0
# After so many slow or lost replies the rest would only take long.
MOST_BAD_REPLIES = 3
# Requests on one connection, which a DCU keeps open.
KEPT_FOR = 10
# Of EIGER1 some list what they answer 500 for: the hardware is missing.
NOT_FITTED = 500
SUBSYSTEMS = ("detector", "filewriter", "monitor", "stream", "system")
SECTIONS = ("config", "status", "command")
# Put again as they are: what the reply says of it is looked at.
PUT_AGAIN = (
    ("detector/config/nimages", True),
    ("detector/config/ntrigger", True),
    ("filewriter/config/nimages_per_file", False),
    ("monitor/config/buffer_size", False),
)

_T = TypeVar("_T")


class Asking:
    """Requests to the DCU of one detector, on connections of their own.

    Parameters
    ----------
    eiger : EigerDetector
        The detector; its address, version and timeouts are taken.

    Attributes
    ----------
    values : dict
        The last value of each resource that answered, by its full name.
    """

    def __init__(self, eiger: EigerDetector) -> None:
        self._device = eiger.link.client
        self.client = DcuClient(eiger.address, timeouts=self._device.timeouts)
        self.generation = "eiger"
        self.values: dict[str, Any] = {}
        self._bad = 0
        self._is_stopped = threading.Event()

    def stop(self) -> None:
        """Have what is asking in a thread end soon, because the test is ended."""
        self._is_stopped.set()

    def go_on(self) -> None:
        """Ask again: what was in a thread is over."""
        self._is_stopped.clear()

    def check_going_on(self) -> None:
        """Raise `PlanError` once the test is being ended."""
        if self._is_stopped.is_set():
            raise PlanError("the acceptance test is being ended, and asks no more")

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def get(self, resource: str) -> Any:
        """Return the reply of a GET of "subsystem/section/key"; errors as of `DcuClient.get`.

        Raises
        ------
        PlanError
            Once the test is being ended.
        """
        self.check_going_on()
        subsystem, path = resource.split("/", 1)
        return self.client.get(subsystem, path)

    def value(self, resource: str) -> Any:
        """Return a resource's value; errors as of `get`."""
        reply = self.get(resource)
        value = reply.get("value") if isinstance(reply, dict) else reply
        self.values[resource] = value
        return value

    def state(self) -> str:
        """Return the detector's state."""
        return str(self.value("detector/status/state"))

    @property
    def is_lost(self) -> bool:
        """Whether so many replies were slow or lost that the rest is not worth the time."""
        return self._bad >= MOST_BAD_REPLIES

    def timed(self, ask: Callable[[], _T]) -> tuple[_T, float]:
        """Return an answer and how long it took, in s; a slow one counts as bad."""
        began = time.monotonic()
        try:
            answer = ask()
        except EigerError as error:
            if not hasattr(error, "status"):
                self._bad += 1
            raise
        seconds = time.monotonic() - began
        self._bad += seconds > LONGEST_REPLY_S
        return answer, seconds

    # ---- is it there, and does it answer as a web server should ----

    def connection(self) -> list[Check]:
        """See that the DCU answers, soon, and keeps its connections."""
        section, checks = Section("connection"), []
        expected = f"an answer within {LONGEST_REPLY_S:g} s"
        for name, ask in (
            ("detector/api/version", self._version),
            ("detector/status/state", self.state),
        ):
            try:
                answer, seconds = self.timed(ask)
            except EigerError as error:
                return [*checks, section.failed(name, expected, error)]
            found = f"{answer} after {seconds:.3f} s"
            checks.append(section.check(name, expected, found, good=seconds <= LONGEST_REPLY_S))
            if seconds > LONGEST_REPLY_S:
                return checks
        return [*checks, self._keeps_connections(section)]

    def _version(self) -> str:
        version = self._device.api_version
        self.client = DcuClient(
            self._device.url, api_version=version, timeouts=self._device.timeouts
        )
        self.generation = generation_of(version)
        return version

    def _keeps_connections(self, section: Section) -> Check:
        url = urlsplit(self.client.resource_url("detector", "status/state"))
        expected = f"{KEPT_FOR} answers on one connection"
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        connection = kind(str(url.hostname), url.port, timeout=self.client.timeouts.get)
        answered = 0
        try:
            for _ in range(KEPT_FOR):
                connection.request("GET", url.path)
                reply = connection.getresponse()
                reply.read()
                answered += 1
                if reply.will_close and answered < KEPT_FOR:
                    found = f"the DCU closes it after answer {answered}"
                    return section.failed("connections", expected, found)
        except (OSError, http.client.HTTPException) as error:
            found = f"the connection was cut after answer {answered}: {error or type(error)}"
            return section.failed("connections", expected, found)
        finally:
            connection.close()
        return section.check("connections", expected, f"{answered} answers", good=True)

    # ---- every resource ----

    def resources(self) -> list[Check]:
        """Ask for every resource of the table and judge the replies; arrays are left out."""
        with contextlib.suppress(EigerError):  # it is judged below
            description = str(self.value("detector/config/description"))
            self.generation = generation_of(self.client.api_version, description)
        listed: dict[str, bool] = {}
        checks: list[Check] = []
        for subsystem in SUBSYSTEMS:
            for section in SECTIONS:
                checks += self._listed(subsystem, section, listed)
        absent: list[str] = []
        for row in table(self.generation).values():
            if self.is_lost:
                return [*checks, _given_up()]
            checks += self._one(row, row.resource in listed, absent)
        unknown = sorted(set(listed) - set(table(self.generation)))
        said = ", ".join(unknown) or "none"
        checks.append(RESOURCES.check("beside the table", "anything", said, good=True))
        said = ", ".join(absent) or "none"
        checks.append(RESOURCES.check("optional and absent", "anything", said, good=True))
        return checks

    def _listed(self, subsystem: str, section: str, listed: dict[str, bool]) -> Iterator[Check]:
        """Ask for the names in a section; older firmware has no such lists."""
        if self.is_lost:
            return
        try:
            reply, _ = self.timed(lambda: self.get(f"{subsystem}/{section}/keys"))
        except EigerError as error:
            if getattr(error, "status", None) != 404:
                name = f"{subsystem}/{section}/keys"
                yield RESOURCES.failed(name, "a list of names", error)
            return
        names = reply.get("value") if isinstance(reply, dict) else reply
        listed.update({f"{subsystem}/{section}/{name}": True for name in names or ()})

    def _one(self, row: Row, is_listed: bool, absent: list[str]) -> Iterator[Check]:
        if row.is_command or row.is_array:
            # Commands are not sent to see whether they are there, and arrays are large.
            if is_listed:
                yield RESOURCES.check(row.resource, row.expected, "listed", good=True)
            elif row.optional:
                absent.append(row.resource)
            else:
                why = "not listed by this DCU"
                yield RESOURCES.not_done(row.resource, row.expected, why)
            return
        try:
            reply, seconds = self.timed(lambda: self.get(row.resource))
        except EigerError as error:
            status = getattr(error, "status", None)
            if row.optional and not is_listed and status in (404, NOT_FITTED):
                absent.append(row.resource)
            else:
                yield RESOURCES.failed(row.resource, row.expected, error)
            return
        if isinstance(reply, dict):
            self.values[row.resource] = reply.get("value")
        yield judged(row, reply)
        if seconds > LONGEST_REPLY_S:
            expected = f"an answer within {LONGEST_REPLY_S:g} s"
            yield RESOURCES.failed(row.resource, expected, f"after {seconds:.1f} s")

    def replies_to_puts(self) -> Iterator[Check]:
        """Put some values as they are, and see what the replies say."""
        section = Section("puts")
        for resource, names_changes in PUT_AGAIN:
            subsystem, path = resource.split("/", 1)
            key = path.split("/", 1)[1]
            expected = f"a list of names with {key}" if names_changes else "200"
            try:
                value = self.value(resource)
                reply, seconds = self.timed(
                    lambda s=subsystem, p=path, v=value: self.client.put(s, p, v)
                )
                after = self.value(resource)
            except EigerError as error:
                yield section.failed(resource, expected, error)
                continue
            good = not names_changes or (isinstance(reply, list) and key in reply)
            found = f"{reply!r} after {seconds:.3f} s" if names_changes else f"{seconds:.3f} s"
            yield section.check(
                resource, expected, found, good=good and seconds <= self.client.timeouts.put
            )
            yield section.same(f"{resource}, read back", value, after)

    def settings(self, *names: str) -> dict[str, Any]:
        """Ask anew for settings by their full names, or all; what never answered is left out."""
        wanted = names or [
            row.resource
            for row in table(self.generation).values()
            if "/config/" in row.resource and not row.is_array
        ]
        return {name: self.value(name) for name in wanted if name in self.values}


def _given_up() -> Check:
    why = f"given up after {MOST_BAD_REPLIES} replies that were lost or came late"
    return RESOURCES.failed("the rest", "answers", why)


def clock_differences(stated: Any, asked_at: float) -> dict[str, float]:
    """Return by how much this computer's clock is ahead of the DCU's, in s, by how that is read.

    Parameters
    ----------
    stated : str
        What the DCU says, ISO 8601; without a zone local time or UTC, which nobody can tell.
    asked_at : float
        When that was, by `time.time`.

    Returns
    -------
    dict of float
        By "with its zone", or "as local time" and "as UTC"; empty if it states no time.
    """
    try:
        theirs = dt.datetime.fromisoformat(str(stated))
    except ValueError:
        return {}
    if theirs.tzinfo is not None:
        return {"with its zone": asked_at - theirs.timestamp()}
    return {
        "as local time": asked_at - theirs.timestamp(),
        "as UTC": asked_at - theirs.replace(tzinfo=dt.UTC).timestamp(),
    }
