"""Asks a DCU for resources by name, without ophyd, so that a command starts at once."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ophyd_eiger.array_requests import ask_array
from ophyd_eiger.arrays import from_darray
from ophyd_eiger.cli import names
from ophyd_eiger.cli.words import either
from ophyd_eiger.client import DcuClient
from ophyd_eiger.errors import (
    NotServedError,
    RefusedError,
    ReplyError,
    StateError,
    UnknownSettingError,
)
from ophyd_eiger.metadata import Metadata
from ophyd_eiger.replies import names_listed, number_of, shown

# In the SIMPLON API Reference V1.3 an initialized detector is "ready", armed or not; firmware from
# API 1.6 on tells "idle" from "ready".
FIRST_API_WITH_IDLE = (1, 6)
FIRST_API_OF_EIGER2 = (1, 8)
# filewriter/status/buffer_free is in KB at API 1.6 and in bytes at 1.8, say the references.
_KILOBYTE = 1024
STATE_PERIOD_S = 0.1
ARRAYS = ("flatfield", "pixel_mask")


@dataclass(frozen=True)
class Answer:
    """What the DCU says of one resource.

    Attributes
    ----------
    value : object
        In the unit of `metadata`; a numpy.ndarray of shape (y, x) for flat fields and masks.
    metadata : Metadata
        Unit, limits, choices and what is critical.
    taken : str
        When the DCU took the value, by its own clock; "" where it does not say.
    """

    value: Any
    metadata: Metadata
    taken: str = ""


def bytes_free(answer: Answer | None, api: tuple[int, ...]) -> float | None:
    """Return the room for files in bytes, from filewriter/status/buffer_free."""
    free = None if answer is None else number_of(answer.value)
    if answer is None or free is None:
        return None
    unit = answer.metadata.unit.lower() or ("byte" if api >= FIRST_API_OF_EIGER2 else "kb")
    return free * _KILOBYTE if unit.startswith("k") else free


class Dcu:
    """A DCU that is asked for resources by their full names, as in "detector/config/count_time".

    Parameters
    ----------
    client : DcuClient
        The way to it.
    """

    def __init__(self, client: DcuClient) -> None:
        self.client = client

    @property
    def url(self) -> str:
        """Its address."""
        return self.client.url

    @property
    def api(self) -> tuple[int, ...]:
        """The first two numbers of its API version."""
        numbers = [part for part in self.client.api_version.split(".")[:2] if part.isdigit()]
        return tuple(map(int, numbers))

    def ask(self, resource: str) -> Answer:
        """Return what the DCU says of a resource.

        Raises
        ------
        NotServedError
            If it has no such resource, or none before `initialize`.
        DcuError
            If it cannot be asked.
        """
        subsystem, path = resource.split("/", 1)
        section, _, key = path.partition("/")
        request = f"GET {self.client.resource_url(subsystem, path)}"
        try:
            if section == "config" and key.rpartition("/")[2] in ARRAYS:
                array, _ = ask_array(self.client, subsystem, path)
                return Answer(array, Metadata("float" if array.dtype.kind == "f" else "uint"))
            reply = self.client.get(subsystem, path)
            if not isinstance(reply, dict) or "value" not in reply:
                raise ReplyError(f"{request}: {shown(reply)} holds no value", request=request)
            value = reply["value"]
            if isinstance(value, dict) and "__darray__" in value:
                value = from_darray(value)
        except ReplyError:
            raise
        except ValueError as error:
            raise ReplyError(f"{request}: {error}", request=request) from error
        taken = reply.get("time")
        return Answer(value, Metadata.of(reply, section), taken if isinstance(taken, str) else "")

    def answer(self, resource: str) -> Answer | None:
        """Return what the DCU says of a resource; None for what it does not have or not give."""
        try:
            return self.ask(resource)
        except (RefusedError, ReplyError):
            return None

    def value(self, resource: str) -> Any:
        """Return the value of a resource; None for what the DCU does not have or not give."""
        answer = self.answer(resource)
        return None if answer is None else answer.value

    def files(self) -> int | None:
        """Return the number of files on the DCU; None if it does not list them."""
        try:
            return len(self.client.files())
        except (RefusedError, ReplyError):
            return None

    def state(self) -> str:
        """Return the detector's state; errors as of `ask`."""
        return str(self.ask("detector/status/state").value)

    def is_idle(self, state: str) -> bool:
        """Return whether a detector in this state is initialized and disarmed."""
        return state == "idle" or (state == "ready" and self.api < FIRST_API_WITH_IDLE)

    def is_busy(self, state: str) -> bool:
        """Return whether a detector in this state is armed, being armed, or exposing."""
        return state in ("ready", "configure", "acquire", "test") and not self.is_idle(state)

    def wait_while(self, busy: Callable[[str], bool], seconds: float) -> str:
        """Ask for the state until `busy(state)` is false, or so many s have passed; return it.

        Raises
        ------
        DcuError
            If the DCU cannot be asked.
        """
        deadline = time.monotonic() + seconds
        while busy(state := self.state()) and time.monotonic() < deadline:
            time.sleep(STATE_PERIOD_S)
        return state

    def listed(self, *sections: str, subsystems: Iterable[str] = names.SUBSYSTEMS) -> list[str]:
        """Return the full names of all resources that the DCU lists in these sections."""
        found = []
        for subsystem in subsystems:
            for section in sections:
                try:
                    keys = names_listed(self.client.get(subsystem, f"{section}/keys"))
                except (RefusedError, ReplyError):
                    # A subsystem that it does not have, or a list.
                    continue
                found += [f"{subsystem}/{section}/{key}" for key in keys or ()]
        return found

    def find(self, name: str, sections: Iterable[str] = names.SECTIONS) -> tuple[str, Answer]:
        """Return the full name of the resource that a name means, and what the DCU says of it.

        The DCU is asked for the likeliest first; only where that is none for its lists.

        Raises
        ------
        UnknownSettingError
            If it names none, or several, with the names that are like it.
        StateError
            If it names none, and the detector is not initialized.
        NotServedError
            If the DCU lists it, and does not give it, as before `initialize`.
        DcuError
            If the DCU cannot be asked.
        """
        sections = tuple(sections)
        for resource in names.candidates(name, sections):
            try:
                return resource, self.ask(resource)
            except NotServedError:
                continue
        listed = self.listed(*sections)
        meant = names.matches(name, listed, sections)
        if len(meant) == 1:
            return meant[0], self.ask(meant[0])
        if meant:
            raise UnknownSettingError(
                f"{name!r} may be {either([names.short(one) for one in meant])}: say which"
            )
        state = self.state()
        if state in ("na", "initialize"):
            raise StateError(
                f"{name!r} is not served in state {state!r}: before it is initialized a detector "
                f"has no settings; first: ophyd-eiger initialize {self.url}"
            )
        near = names.nearest(name, listed)
        hint = f"; did you mean {either([names.short(one) for one in near])}?" if near else ""
        what = "setting" if sections == ("config",) else "resource"
        raise UnknownSettingError(f"{self.url} has no {what} named {name!r}{hint}")
