"""ophyd signals for SIMPLON commands: `set` sends one, and the Status ends with the reply."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from ophyd import Signal

from ophyd_eiger.errors import NotServedError
from ophyd_eiger.link import LimitError, Link
from ophyd_eiger.replies import number_of, sequence_id
from ophyd_eiger.worker import EigerStatus

logger = logging.getLogger(__name__)


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
        self.link.refuse_what_loses(self.owner.subsystem, self.resource)
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
        subsystem = self.owner.subsystem
        try:
            reply = self.link.client.command(subsystem, self.command, value=value, timeout=seconds)
        except NotServedError as error:
            what = f"does not serve {subsystem}/{self.resource}"
            raise self.link.not_served(self.name, what, error) from error
        number = sequence_id(reply)
        logger.info(
            "%s: %s done in %.3f s%s",
            self.name,
            self.command,
            time.perf_counter() - began,
            "" if number is None else f", sequence id {number}",
        )
        self._readback = number
        self._metadata["timestamp"] = time.time()
        return number

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
        """How long the reply may take: delay, exposures and a margin, in s."""
        detector, margin = self.owner, self.link.client.timeouts.trigger_margin
        seconds = [number_of(s.get()) or 0.0 for s in (detector.nimages, detector.frame_time)]
        return detector.start_delay + seconds[0] * seconds[1] + margin

    def argument(self, value: Any) -> float | None:
        """Return the exposure time in s in trigger mode inte, nothing in the others."""
        return float(value) if self.owner.trigger_mode.get() == "inte" else None


class HighVoltageReset(EigerCommand):
    """`command/hv_reset`: `set(seconds)` switches the sensor's high voltage off for so long."""

    def argument(self, value: Any) -> float:
        """Return how long the high voltage stays off, in s."""
        return float(value)

    def send(self, *, value: Any = None, timeout: float | None = None) -> int | None:
        """Send the command; the reply comes when the voltage is back."""
        return super().send(value=value, timeout=timeout or self.seconds + float(value or 0))
