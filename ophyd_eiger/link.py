"""What the signals and commands of one detector share, and how they refuse a value."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ophyd.utils.errors import LimitError as OphydLimitError
from ophyd.utils.errors import ReadOnlyError as OphydReadOnlyError

from ophyd_eiger.client import DcuClient
from ophyd_eiger.errors import NotServedError, RefusedError, ValueRefusedError
from ophyd_eiger.worker import Worker

# The detector's state where it has no configuration, or may have none.
WITHOUT_CONFIGURATION = (None, "na", "initialize")


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
    refuse_what_loses : callable
        Called in the worker with (subsystem, resource) before a user's put or command; raises if
        it would take the staged device's files or triggers away, or files still to come home.
    after_command : callable
        Called with (subsystem, command) after a user's command was carried out.
    changed : callable
        Called with (subsystem, config keys) after a put: what the DCU's reply names.
    state : callable
        Returns the detector's state as it was last, None if it never answered.
    scanned : list of EigerSignal
        What was set since the detector was staged: a scan over it wants its values in the events.
    reader : Worker
        The thread that asks the DCU for one value where no order matters.
    teller : Worker
        The thread that tells subscribers what `get` found.
    """

    client: DcuClient
    worker: Worker
    make_way: Callable[[], None] = field(default=lambda: None)
    interrupt: Callable[[str], None] = field(default=lambda command: None)
    refuse_what_loses: Callable[[str, str], None] = field(default=lambda subsystem, resource: None)
    after_command: Callable[[str, str], None] = field(default=lambda subsystem, command: None)
    changed: Callable[[str, Iterable[str]], None] = field(default=lambda subsystem, keys: None)
    state: Callable[[], str | None] = field(default=lambda: None)
    scanned: list[Any] = field(default_factory=list)
    reader: Worker = field(default_factory=lambda: Worker("eiger reader"))
    teller: Worker = field(default_factory=lambda: Worker("eiger teller"))

    def not_served(self, name: str, what: str, error: RefusedError) -> NotServedError:
        """Return what to tell of a signal or command of this name that the DCU does not have."""
        why = ""
        if "/config/" in error.request and self.state() in WITHOUT_CONFIGURATION:
            why = "; before it is initialized a DCU has no configuration"
        return NotServedError(
            f"{name}: this DCU (API {self.client.api_version}) {what} ({error}){why}",
            request=error.request,
            status=error.status,
            text=error.text,
        )
