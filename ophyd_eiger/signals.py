"""ophyd signals for SIMPLON resources: values with the detector's own metadata.

A signal remembers the last answer of the DCU. `get` asks the DCU; `read`, `describe`, `locate` and
their configuration twins never do, because the RunEngine calls them in its event loop. `set` and
`trigger` hand the work to the detector's threads. Subscribers are told of every answer, also of one
that is as the last was.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import numpy as np
from bluesky.protocols import Location
from ophyd import Kind, Signal

from ophyd_eiger.arrays import from_darray
from ophyd_eiger.commands import EigerCommand, TriggerCommand
from ophyd_eiger.errors import (
    DcuTimeoutError,
    LostReplyError,
    NotServedError,
    RefusedError,
    ReplyError,
)
from ophyd_eiger.link import LimitError, Link, ReadOnlyError
from ophyd_eiger.metadata import ALARM, OK, Metadata, same
from ophyd_eiger.replies import names_in, shown
from ophyd_eiger.worker import EigerStatus

__all__ = [
    "EigerCommand",
    "EigerSignal",
    "LimitError",
    "Link",
    "ReadOnlyError",
    "TriggerCommand",
]

logger = logging.getLogger(__name__)

# An armed series keeps the configuration of these as it was.
FROZEN_BY_ARM = ("detector", "filewriter")
# On EIGER1 the reply itself calls these critical.
FAULT_STATES = ("na", "error")
# An EIGER 500K answers 500 for the links that it does not have.
NOT_FITTED = 500
# How long `get` waits for subscribers: plenty for a callback, little where one cannot run yet.
MOMENT_S = 0.05


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
        # What was asked for last, and what the DCU made of it.
        self._asked: tuple[Any, Any] | None = None
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
        news = self._fetch()
        self._tell_aside(news)
        # Another thread may have asked since.
        return news["value"]

    def ask(self) -> None:
        """Ask the DCU and tell the subscribers from the caller's thread; errors as of `get`."""
        self._run_subs(**self._fetch())

    def _fetch(self) -> dict[str, Any]:
        """Ask the DCU, remember the answer, and return what subscribers are told."""
        try:
            reply = self.link.client.get(self.subsystem, self.resource)
        except RefusedError as error:
            raise self.refusal(error) from error
        return self._take(reply)

    def _tell_aside(self, news: dict[str, Any]) -> None:
        """Tell the subscribers from a thread of its own, and give it a moment for that.

        bluesky's suspenders call `get` while they hold the lock that their callback needs.
        """
        if not self._callbacks[self.SUB_VALUE] or self.link.teller.in_worker():
            self._run_subs(**news)
            return
        told = threading.Event()

        def tell() -> None:
            self._run_subs(**news)
            told.set()

        self.link.teller.submit(tell, EigerStatus(f"{self.name}: tell"))
        told.wait(MOMENT_S)

    def note_changed(self) -> None:
        """Ask anew: a PUT changed it."""
        self.ask()

    def refusal(self, error: RefusedError) -> RefusedError:
        """Return what to tell of a refused request; of a missing resource, that it is missing."""
        # (No state is no state: every detector has one.)
        optional = self.section == "status" and self.resource != "status/state"
        not_fitted = optional and error.status == NOT_FITTED
        if not (not_fitted or isinstance(error, NotServedError)):
            return error
        self.served = False
        why = "has not the hardware for" if not_fitted else "does not serve"
        what = f"{why} {self.subsystem}/{self.resource}"
        return self.link.not_served(self.name, what, error)

    @property
    def last(self) -> Any:
        """The DCU's last answer, without asking again; None if it never answered."""
        return self._readback

    # What bluesky calls the value of what can be set.
    position = last

    def locate(self) -> Location:
        """Return what was asked for last and the DCU's last answer; asks nothing."""
        readback = self.last
        asked_for, answered = self._asked or (readback, readback)
        setpoint = asked_for if same(answered, readback) else readback
        return {"setpoint": setpoint, "readback": readback}

    def trigger(self) -> EigerStatus:
        """Ask the DCU anew; done when it answered, so that `bp.count` records a fresh value."""
        return self.link.reader.submit(self.ask, EigerStatus(f"{self.name}: read"))

    def ask_in_turn(self) -> EigerStatus:
        """Ask the DCU anew when all is done that was queued for the detector before."""
        return self.link.worker.submit(self.ask, EigerStatus(f"{self.name}: read in turn"))

    def _take(self, reply: Any) -> dict[str, Any]:
        request = f"GET {self.source}"
        if not isinstance(reply, dict) or "value" not in reply:
            raise ReplyError(
                f"{self.name}: {request}: {shown(reply)} holds no value; is this a DCU with API "
                f"{self.link.client.api_version}?",
                request=request,
            )
        if self.resource == "status/state" and not same(reply["value"], self._readback):
            logger.info("%s: %s -> %s", self.name, self._readback, reply["value"])
        value = reply["value"]
        if isinstance(value, dict) and "__darray__" in value:
            try:
                value = from_darray(value)
            except ValueError as error:
                raise ReplyError(f"{self.name}: {request}: {error}", request=request) from error
        return self._keep(value, Metadata.of(reply, self.section))

    def _keep(self, value: Any, metadata: Metadata) -> dict[str, Any]:
        """Remember an answer and return what subscribers are told, new or as the last one."""
        self.served = True
        self.dcu_metadata = metadata
        self._metadata["write_access"] = metadata.writable
        old, self._readback = self._readback, value
        self._metadata["timestamp"] = time.time()
        return {
            "sub_type": self.SUB_VALUE,
            "old_value": old,
            "value": value,
            "timestamp": self._metadata["timestamp"],
        }

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
            return metadata.checked(value, is_list=isinstance(self._readback, list))
        except ValueError as error:
            raise LimitError(f"{self.name}: {shown(value)} {error} {self.resource}") from None

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
        status = EigerStatus(f"{self.name}: set {shown(value)}", timeout=kwargs.get("timeout"))
        return self.link.worker.submit(lambda: self._put_for_user(value), status)

    def put(self, value: Any, **kwargs: Any) -> None:
        """Put a value and wait until what changed with it was read back."""
        self.set(value).wait()

    def _put_for_user(self, value: Any) -> None:
        self.link.refuse_what_loses(self.subsystem, self.resource)
        self.put_now(value)

    def put_now(self, value: Any) -> None:
        """Put a value from the worker's own thread."""
        checked = self.check_value(value)
        if self.section == "config" and self.subsystem in FROZEN_BY_ARM:
            self.link.make_way()
        try:
            reply = self._send(checked)
        except (LostReplyError, DcuTimeoutError) as error:
            # Never sent again: the value itself tells whether the DCU took it.
            if not same(self.get(), checked):
                raise
            logger.debug("%s; the DCU has the value all the same", error)
            reply = None
        self.put_at = time.monotonic()
        logger.info("%s = %s", self.name, shown(checked))
        self.owner.read_again(names_in(reply), self)
        self._asked = checked, self._readback

    def _send(self, value: Any) -> Any:
        try:
            return self.link.client.put(self.subsystem, self.resource, value)
        except NotServedError as error:
            raise self.refusal(error) from error

    def describe(self) -> dict:
        """Return the data key with the detector's unit, limits and choices; empty if unknown."""
        if self.dcu_metadata is None:
            return OrderedDict()
        key = {"source": self.source, **self.dcu_metadata.data_key(self._readback)}
        return OrderedDict({self.name: key})

    def read(self) -> dict:
        """Return the last answer with the time it came; empty if there was none.

        A status value has `alarm_severity` (below 0 unknown, 0 ok, above 0 an alarm) and `message`,
        where the DCU says what is good.
        """
        if self.dcu_metadata is None:
            return OrderedDict()
        reading = {"value": self._readback, "timestamp": self._metadata["timestamp"]}
        alarm = self.alarm
        if alarm is not None:
            reading["alarm_severity"], reading["message"] = alarm
        return OrderedDict({self.name: reading})

    read_configuration = read
    describe_configuration = describe

    @property
    def hints(self) -> dict[str, Any]:
        """What is plotted where it is scanned or read by itself: its value; not where it is a list.

        As a part of a device it is hinted as its kind says.
        """
        if self.kind is Kind.normal or isinstance(self._readback, list | np.ndarray):
            return super().hints
        return {"fields": [self.name]}

    @property
    def alarm(self) -> tuple[int, str] | None:
        """Severity and message of the last answer; None if nothing is known of what is good."""
        if self.section != "status" or self.dcu_metadata is None:
            return None
        known = self.dcu_metadata.alarm(self._readback)
        # What these two mean is the same where the reply does not say it, as on EIGER2.
        if known is None and self.resource == "status/error":
            faults = self._readback or []
            return (ALARM, f"error: {', '.join(map(str, faults))}") if faults else (OK, "")
        if known is None and self.resource == "status/state":
            is_fault = self._readback in FAULT_STATES
            return (ALARM, f"state: {self._readback}") if is_fault else (OK, "")
        return known

    @property
    def limits(self) -> tuple:
        """The detector's own (min, max), None where it states none."""
        metadata = self.dcu_metadata or Metadata()
        return metadata.minimum, metadata.maximum

    @property
    def choices(self) -> tuple:
        """The values that the detector takes; empty where it does not restrict them."""
        return (self.dcu_metadata or Metadata()).allowed

    @property
    def enum_strs(self) -> tuple[str, ...]:
        """The choices as text, under the name that EPICS signals have for them."""
        return tuple(str(choice) for choice in self.choices)

    @property
    def unit(self) -> str:
        """The detector's own unit, "" where it states none."""
        return (self.dcu_metadata or Metadata()).unit

    def _repr_info(self) -> Iterable[tuple[str, Any]]:
        yield "name", self.name
        yield "resource", f"{self.subsystem}/{self.resource}"
        if self.dcu_metadata is None:
            yield "value", "not served" if self.served is False else "not read yet"
            return
        yield "value", self._shown_value()
        if self.unit:
            yield "unit", self.unit
        if self.limits != (None, None):
            yield "limits", self.limits
        if self.choices:
            yield "choices", self.choices
        if not self.dcu_metadata.writable:
            yield "access", "read only"
        if self.alarm and self.alarm[0] != OK:
            yield "alarm", self.alarm[1]

    def _shown_value(self) -> Any:
        return self._readback
