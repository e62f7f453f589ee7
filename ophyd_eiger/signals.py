"""ophyd signals for SIMPLON resources: values with the detector's own metadata, and commands.

A signal remembers the last answer of the DCU. `get` asks the DCU; `read`, `describe` and their
configuration twins never do, because the RunEngine calls them in its event loop. `set` hands the
work to the detector's worker.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ophyd import Component, Kind, Signal
from ophyd.utils.errors import LimitError as OphydLimitError
from ophyd.utils.errors import ReadOnlyError as OphydReadOnlyError

from ophyd_eiger.client import DcuClient
from ophyd_eiger.errors import (
    DcuTimeoutError,
    LostReplyError,
    NotServedError,
    ReplyError,
    StateError,
    ValueRefusedError,
)
from ophyd_eiger.metadata import Metadata, dtype_of, same
from ophyd_eiger.worker import EigerStatus, Worker

logger = logging.getLogger(__name__)

# An armed series keeps the configuration of these as it was.
FROZEN_BY_ARM = ("detector", "filewriter")


class LimitError(ValueRefusedError, OphydLimitError):
    """A value is outside what the detector itself allows; it was not sent."""


class ReadOnlyError(ValueRefusedError, OphydReadOnlyError):
    """The resource cannot be written; nothing was sent."""


@dataclass
class Link:
    """What the signals of one detector share.

    Attributes
    ----------
    client : DcuClient
        The way to the DCU.
    worker : Worker
        The thread that does what `set` asks for.
    make_way : callable
        Called in the worker before a configuration value is put or a command is sent that a
        running series does not survive: an armed series froze its configuration.
    interrupt : callable
        Called with the command before cancel and abort, which end the exposure that the worker
        waits for.
    refuse_while_staged : callable
        Called in the worker with (subsystem, resource) before a user's put or command; raises if
        it would take the staged device's files or triggers away.
    after_command : callable
        Called with (subsystem, command) after a user's command was carried out.
    changed : callable
        Called with (subsystem, config keys) after a put: what the DCU's reply names.
    scanned : list of EigerSignal
        What was set since the detector was staged: a scan over it wants its values in the events.
    """

    client: DcuClient
    worker: Worker
    make_way: Callable[[], None] = field(default=lambda: None)
    interrupt: Callable[[str], None] = field(default=lambda command: None)
    refuse_while_staged: Callable[[str, str], None] = field(
        default=lambda subsystem, resource: None
    )
    after_command: Callable[[str, str], None] = field(default=lambda subsystem, command: None)
    changed: Callable[[str, Iterable[str]], None] = field(default=lambda subsystem, keys: None)
    scanned: list["EigerSignal"] = field(default_factory=list)


class EigerSignal(Signal):
    """One config or status resource.

    Parameters
    ----------
    resource : str
        Section and key, as in "config/count_time".
    name : str
        Keyword only, as for every ophyd signal.
    """

    def __init__(self, resource: str, *, name: str, parent: Any = None, **kwargs: Any) -> None:
        self.resource = resource
        self.section, _, self.key = resource.partition("/")
        self.owner = parent
        self.dcu_metadata: Metadata | None = None
        self.served: bool | None = None
        # When the DCU last took a value from here, by time.monotonic.
        self.put_at = 0.0
        super().__init__(name=name, parent=parent, value=None, **kwargs)

    @property
    def link(self) -> Link:
        """What the signals of the detector share."""
        return self.owner.link

    @property
    def subsystem(self) -> str:
        """The subsystem on the wire, as in "detector"."""
        return self.owner.subsystem

    @property
    def has_value(self) -> bool:
        """Whether the DCU ever answered with this value."""
        return self.dcu_metadata is not None

    @property
    def source(self) -> str:
        """Where the value is, without asking for anything."""
        return f"{self.link.client.url}/{self.subsystem}/{self.resource}"

    def get(self, **kwargs: Any) -> Any:
        """Ask the DCU and return the value, in the unit the DCU states.

        Raises
        ------
        NotServedError
            If the DCU has no such resource, or none before `initialize`.
        DcuError
            If it cannot be asked.
        """
        try:
            reply = self.link.client.get(self.subsystem, self.resource)
        except NotServedError:
            self.served = False
            raise
        self._take(reply)
        return self._readback

    @property
    def last(self) -> Any:
        """The DCU's last answer, without asking again; None if it never answered."""
        return self._readback

    def _take(self, reply: Any) -> None:
        if not isinstance(reply, dict) or "value" not in reply:
            request = f"GET {self.source}"
            raise ReplyError(f"{request}: {reply!r} holds no value", request=request)
        first = self.dcu_metadata is None
        if self.resource == "status/state" and reply["value"] != self._readback:
            logger.info("%s: %s -> %s", self.name, self._readback, reply["value"])
        self.served = True
        self.dcu_metadata = Metadata.of(reply, self.section)
        self._metadata["write_access"] = self.dcu_metadata.writable
        old, self._readback = self._readback, reply["value"]
        self._metadata["timestamp"] = time.time()
        if first or not same(old, self._readback):
            self._run_subs(
                sub_type=self.SUB_VALUE,
                old_value=old,
                value=self._readback,
                timestamp=self._metadata["timestamp"],
            )

    def check_value(self, value: Any) -> Any:
        """Return the value as the wire takes it, or refuse it.

        Raises
        ------
        LimitError
            If the detector would not take it; the message has the detector's own limits.
        ReadOnlyError
            If the detector says that it cannot be written.
        """
        if self.dcu_metadata is None:
            self.get()
        metadata = self.dcu_metadata or Metadata()
        if not metadata.writable:
            raise ReadOnlyError(
                f"{self.name}: {self.subsystem}/{self.resource} can only be read, says the detector"
            )
        try:
            return metadata.checked(value)
        except ValueError as error:
            raise LimitError(f"{self.name}: {_shown(value)} {error} {self.resource}") from None

    def set(self, value: Any, **kwargs: Any) -> EigerStatus:
        """Put a value; done when the DCU took it and what changed with it was read back.

        Raises
        ------
        LimitError, ReadOnlyError
            At once if the detector's limits are known, else through the Status.
        """
        self.link.worker.raise_unseen()
        if self.dcu_metadata is not None:
            self.check_value(value)
        if self not in self.link.scanned:
            self.link.scanned.append(self)
        status = EigerStatus(f"{self.name}: set {_shown(value)}", timeout=kwargs.get("timeout"))
        return self.link.worker.submit(lambda: self._put_for_user(value), status)

    def put(self, value: Any, **kwargs: Any) -> None:
        """Put a value and wait until what changed with it was read back."""
        self.set(value).wait()

    def _put_for_user(self, value: Any) -> None:
        self.link.refuse_while_staged(self.subsystem, self.resource)
        self.put_now(value)

    def put_now(self, value: Any) -> None:
        """Put a value from the worker's own thread."""
        checked = self.check_value(value)
        if self.section == "config" and self.subsystem in FROZEN_BY_ARM:
            self.link.make_way()
        try:
            reply = self.link.client.put(self.subsystem, self.resource, checked)
        except (LostReplyError, DcuTimeoutError) as error:
            # Never sent again: the value itself tells whether the DCU took it.
            if not same(self.get(), checked):
                raise
            logger.debug("%s; the DCU has the value all the same", error)
            reply = None
        self.put_at = time.monotonic()
        logger.info("%s = %r", self.name, checked)
        self.owner.read_again(_names(reply), self)

    def describe(self) -> dict:
        """Return the data key with the detector's unit, limits and choices; empty if unknown."""
        if self.dcu_metadata is None:
            return OrderedDict()
        metadata = self.dcu_metadata
        key: dict[str, Any] = {
            "source": self.source,
            **dtype_of(self._readback, metadata.value_type),
        }
        if metadata.unit:
            key["units"] = metadata.unit
        if metadata.allowed and all(isinstance(choice, str) for choice in metadata.allowed):
            key["choices"] = list(metadata.allowed)
        if key["dtype"] in ("number", "integer") and (metadata.minimum, metadata.maximum) != (
            None,
            None,
        ):
            key["limits"] = {"control": {"low": metadata.minimum, "high": metadata.maximum}}
        return OrderedDict({self.name: key})

    def read(self) -> dict:
        """Return the last answer with the time it came; empty if there was none."""
        if self.dcu_metadata is None:
            return OrderedDict()
        value = self._readback
        return OrderedDict({self.name: {"value": value, "timestamp": self._metadata["timestamp"]}})

    read_configuration = read
    describe_configuration = describe

    @property
    def limits(self) -> tuple:
        """The detector's own (min, max), None where it states none."""
        metadata = self.dcu_metadata or Metadata()
        return metadata.minimum, metadata.maximum

    def _repr_info(self) -> Iterable[tuple[str, Any]]:
        yield "name", self.name
        yield "resource", f"{self.subsystem}/{self.resource}"
        if self.dcu_metadata is None:
            yield "value", "not served" if self.served is False else "not read yet"
            return
        value = self._readback
        yield "value", "array" if isinstance(value, dict) else value
        if self.dcu_metadata.unit:
            yield "unit", self.dcu_metadata.unit
        if self.dcu_metadata.minimum is not None or self.dcu_metadata.maximum is not None:
            yield "limits", self.limits
        if self.dcu_metadata.allowed:
            yield "choices", self.dcu_metadata.allowed


class EigerCommand(Signal):
    """One command resource; `set(1)` sends it, and the Status ends with the reply.

    `get` gives the sequence id of the last reply, None where it had none.

    Parameters
    ----------
    resource : str
        Section and key, as in "command/arm".
    timeout : str
        Which of `Timeouts` applies.
    ends_series : bool
        Whether a series that is armed must be ended in good order before.
    out_of_turn : bool
        Whether it overtakes what the worker has in hand, as cancel and abort do, which are there
        to end it.
    """

    def __init__(
        self,
        resource: str,
        *,
        name: str,
        timeout: str = "put",
        ends_series: bool = False,
        out_of_turn: bool = False,
        parent: Any = None,
        **kwargs: Any,
    ) -> None:
        self.resource = resource
        self.owner = parent
        self.command = resource.partition("/")[2]
        self.timeout = timeout
        self.ends_series = ends_series
        self.out_of_turn = out_of_turn
        super().__init__(name=name, parent=parent, value=None, **kwargs)

    @property
    def link(self) -> Link:
        """What the signals of the detector share."""
        return self.owner.link

    @property
    def seconds(self) -> float:
        """How long the reply may take, in s."""
        return getattr(self.link.client.timeouts, self.timeout)

    def argument(self, value: Any) -> Any:
        """Return what is sent with the command for `set(value)`; None for nothing."""
        return None

    def set(self, value: Any = 1, **kwargs: Any) -> EigerStatus:
        """Send the command; the Status ends with the reply, or with what made it fail."""
        status = EigerStatus(f"{self.name}: {self.command}", timeout=kwargs.get("timeout"))
        if not value:
            raise LimitError(f"{self.name}: set(1) sends the command, {value!r} does not")
        if self.out_of_turn:
            self.link.interrupt(self.command)
            threading.Thread(
                target=self.link.worker.finish,
                args=(lambda: self._send_for_user(value), status),
                name=status.work,
                daemon=True,
            ).start()
            return status
        self.link.worker.raise_unseen()
        return self.link.worker.submit(lambda: self._send_for_user(value), status)

    def put(self, value: Any = 1, **kwargs: Any) -> None:
        """Send the command and wait for the reply."""
        self.set(value).wait()

    def _send_for_user(self, value: Any) -> None:
        self.link.refuse_while_staged(self.owner.subsystem, self.resource)
        if self.ends_series:
            self.link.make_way()
        self.send(value=self.argument(value))
        self.link.after_command(self.owner.subsystem, self.command)

    def send(self, *, value: Any = None, timeout: float | None = None) -> int | None:
        """Send the command once from the caller's thread and return its sequence id, if any.

        Raises
        ------
        DcuError
            `LostReplyError` if it may have been carried out all the same.
        """
        seconds = self.seconds if timeout is None else timeout
        logger.info("%s: %s ...", self.name, self.command)
        began = time.perf_counter()
        reply = self.link.client.command(
            self.owner.subsystem, self.command, value=value, timeout=seconds
        )
        sequence_id = _sequence_id(reply)
        logger.info(
            "%s: %s done in %.3f s%s",
            self.name,
            self.command,
            time.perf_counter() - began,
            "" if sequence_id is None else f", sequence id {sequence_id}",
        )
        self._readback = sequence_id
        self._metadata["timestamp"] = time.time()
        return sequence_id

    def get(self, **kwargs: Any) -> int | None:
        """Return the sequence id of the last reply; None if it had none."""
        return self._readback

    def read(self) -> dict:
        """Return nothing: a command has no value to record."""
        return OrderedDict()

    describe = read
    read_configuration = read
    describe_configuration = read

    def check_value(self, value: Any) -> None:
        """Accept anything: a command has no value."""

    def _repr_info(self) -> Iterable[tuple[str, Any]]:
        yield "name", self.name
        yield "resource", f"{self.owner.subsystem}/{self.resource}"


class TriggerCommand(EigerCommand):
    """`command/trigger`: `set(1)` takes nimages images, `set(seconds)` one image in mode inte."""

    @property
    def seconds(self) -> float:
        """How long the reply may take: the exposures and a margin, in s."""
        detector, margin = self.owner, self.link.client.timeouts.trigger_margin
        return float(detector.nimages.get()) * float(detector.frame_time.get()) + margin

    def argument(self, value: Any) -> float | None:
        """Return the exposure time in s in trigger mode inte, nothing in the others."""
        return float(value) if self.owner.trigger_mode.get() == "inte" else None


def config(key: str, doc: str, *, kind: Kind = Kind.config) -> Any:
    """Declare a configuration resource; a `/` in the key stays in the URL."""
    return Component(EigerSignal, f"config/{key}", add_prefix=(), kind=kind, doc=doc)


def status(key: str, doc: str) -> Any:
    """Declare a status resource."""
    return Component(EigerSignal, f"status/{key}", add_prefix=(), kind=Kind.omitted, doc=doc)


def command(key: str, doc: str, *, cls: type[EigerCommand] = EigerCommand, **kwargs: Any) -> Any:
    """Declare a command resource; keyword arguments as `EigerCommand` takes them."""
    return Component(cls, f"command/{key}", add_prefix=(), kind=Kind.omitted, doc=doc, **kwargs)


def _names(reply: Any) -> list[str]:
    """Return the names in a PUT's reply: flat on hardware, nested in the reference's example."""
    if isinstance(reply, str):
        return [reply] if reply else []
    if isinstance(reply, list):
        return [name for entry in reply for name in _names(entry)]
    return []


def _sequence_id(reply: Any) -> int | None:
    """Return the id of a series from a command's reply; -1, as trigger answers, is none."""
    if not isinstance(reply, dict):
        return None
    for key in ("sequence id", "series id", "sequence_id", "series_id"):
        number = reply.get(key)
        if isinstance(number, int) and number >= 0:
            return number
    return None


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:
        # Python does not print integers of thousands of digits.
        return "a huge integer"


def require_value(signal: EigerSignal) -> Any:
    """Return the DCU's last answer.

    Raises
    ------
    StateError
        If it never answered.
    """
    if not signal.has_value:
        raise StateError(f"{signal.name}: {signal.subsystem}/{signal.resource} was never read")
    return signal.last
