"""Watches over a detector: temperature, humidity, room, links and states of either generation.

`eiger.care` reads as a baseline; while it watches, a thread of its own asks the DCU every few
seconds, so that those who subscribed to the signals hear of it: SIMPLON calls nobody back. It sends
no command but EIGER1's `status_update`, without which that measures nothing, in the detector's
worker between other work and only while the detector is idle.
"""

import logging
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from ophyd_eiger.errors import DcuError, NotServedError, RefusedError, ReplyError, StateError
from ophyd_eiger.link import LimitError
from ophyd_eiger.metadata import OK
from ophyd_eiger.settings import shown, table
from ophyd_eiger.signals import EigerSignal
from ophyd_eiger.states import States
from ophyd_eiger.subsystems import Stream
from ophyd_eiger.worker import EigerStatus

logger = logging.getLogger(__name__)

PERIOD_S = 5.0
SHORTEST_PERIOD_S = 0.1
# How long `close` waits for a request that is under way, in s.
LAST_REQUEST_S = 3.0
# What real DCUs leave empty.
UNITS = {
    "temperature": "degree Celsius",
    "board_000_th0_temp": "degree Celsius",
    "humidity": "percent",
    "board_000_th0_humidity": "percent",
    "builder_dcu_buffer_free": "percent",
}


class Care:
    """What tells whether a detector is well; can be read as a device, and prints as a table.

    An EIGER1 measures only while it is idle: in a run whose detector is armed its temperature,
    humidity and links are those of before; as they are where it is read while an exposure lasts.

    Parameters
    ----------
    states : States
        Asks the detector; has the subsystems.
    stream : Stream
        Is asked, too.

    Examples
    --------
    >>> RE.preprocessors.append(SupplementalData(baseline=[eiger.care]))
    >>> eiger.care.alarms
    """

    parent = None

    def __init__(self, states: States, stream: Stream) -> None:
        self.device = states.name
        self.name = f"{states.name}_care"
        self.states = states
        self.link = states.link
        self.detector = states.detector
        detector = states.detector
        # What one detector does not have the other has, or has under another name.
        self._measured = (
            detector.temperature,
            detector.humidity,
            detector.board_000_th0_temp,
            detector.board_000_th0_humidity,
            detector.builder_dcu_buffer_free,
            detector.high_voltage_state,
            *self.links,
        )
        self._told = (
            detector.state,
            states.filewriter.state,
            states.filewriter.buffer_free,
            states.monitor.state,
            stream.state,
        )
        self._period = PERIOD_S
        self._measuring: EigerStatus | None = None
        self._measures = True
        self._failed = False
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()

    # ---- at the prompt ----

    @property
    def signals(self) -> list[EigerSignal]:
        """What this DCU has of it; empty before it was asked."""
        # An EIGER2 has the names of an EIGER1 beside its own.
        twins = {
            self.detector.board_000_th0_temp: self.detector.temperature,
            self.detector.board_000_th0_humidity: self.detector.humidity,
        }
        return [
            signal
            for signal in (*self._told, *self._measured)
            if signal.has_value and not (signal in twins and twins[signal].has_value)
        ]

    @property
    def temperature(self) -> EigerSignal | None:
        """The temperature, in degree Celsius."""
        return self._first(self.detector.temperature, self.detector.board_000_th0_temp)

    @property
    def humidity(self) -> EigerSignal | None:
        """The relative humidity, in percent."""
        return self._first(self.detector.humidity, self.detector.board_000_th0_humidity)

    @property
    def links(self) -> tuple[EigerSignal, ...]:
        """The data links, whether or not this detector has them: up, down."""
        detector = self.detector
        return detector.link_0, detector.link_1, detector.link_2, detector.link_3

    @property
    def room(self) -> EigerSignal:
        """The room for files on the DCU, in the unit that it uses; see `in_bytes`."""
        return self.states.filewriter.buffer_free

    @property
    def state(self) -> EigerSignal:
        """The detector's state."""
        return self.detector.state

    def in_bytes(self, room: Any) -> float | None:
        """Return the room for files in bytes; None for what is no number."""
        return self.states.in_bytes(room)

    @property
    def alarms(self) -> list[str]:
        """What is not well, by the DCU's last answers and its own limits."""
        return [
            f"{signal.name}: {signal.alarm[1]}"
            for signal in self.signals
            if signal.alarm is not None and signal.alarm[0] > OK
        ]

    @property
    def period(self) -> float:
        """How long the thread waits between two looks, in s; 5 if not set."""
        return self._period

    @period.setter
    def period(self, seconds: float) -> None:
        """Take another period; `LimitError` if it is below 0.1 s."""
        if not seconds >= SHORTEST_PERIOD_S:
            raise LimitError(f"{self.name}: {seconds!r} s is below {SHORTEST_PERIOD_S:g} s")
        self._period = float(seconds)

    def start(self) -> None:
        """Watch: ask the DCU every `period` until `stop`, so that subscribers hear."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._closed = threading.Event()
                weakref.finalize(self, self._closed.set).atexit = False
                self._thread = threading.Thread(
                    target=_watch,
                    args=(weakref.ref(self), self._closed),
                    name=self.name,
                    daemon=True,
                )
                self._thread.start()

    def stop(self, *, success: bool = False) -> None:
        """Watch no longer; harmless where it does not."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._closed.set()
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(LAST_REQUEST_S)

    def __repr__(self) -> str:
        rows = []
        for signal in self.signals:
            alarm = signal.alarm or (OK, "")
            unit = self._unit(signal)
            rows.append((signal.name, shown(signal.last), unit, alarm[1] or "ok"))
        if not rows:
            return f"<{self.name}: the DCU was not asked yet; {self.device}.connect()>"
        return table(("signal", "value", "unit", ""), rows)

    # ---- bluesky's: all but `trigger` ask for nothing ----

    def trigger(self) -> EigerStatus:
        """Ask the DCU anew, and have an EIGER1 measure if it is idle; done when it answered.

        An exposure is not waited for, which may be one that nobody waits for any more.
        """
        status = EigerStatus(f"{self.name}: read")

        needs_command = self._needs_command()
        measures = self.link.worker.is_free or not needs_command

        def look() -> None:
            with self.link.client.ledger.background("care"):
                if measures:
                    self._measure()
                self._ask(self._told)

        if not measures:
            self._measure_later()
        where = self.link.worker if measures and needs_command else self.link.reader
        return where.submit(look, status)

    def read(self) -> OrderedDict:
        """Return the last answers with their times, and alarms where the DCU says what is good."""
        return OrderedDict(item for signal in self.signals for item in signal.read().items())

    def describe(self) -> OrderedDict:
        """Return the data keys.

        Raises
        ------
        StateError
            If the DCU was never asked, so that nobody knows what it has.
        """
        signals = self.signals
        if not signals:
            raise StateError(
                f"{self.name}: the DCU was not asked yet what it has; {self.device}.connect() first"
            )
        keys: OrderedDict = OrderedDict()
        for signal in signals:
            key = signal.describe()[signal.name]
            unit = self._unit(signal)
            keys[signal.name] = {**key, "units": unit} if unit else key
        return keys

    def read_configuration(self) -> OrderedDict:
        """Return nothing."""
        return OrderedDict()

    describe_configuration = read_configuration

    # ---- inside ----

    def look_once(self) -> float:
        """Ask for what may have changed, and return how long to wait before the next look, in s."""
        try:
            self._ask(self._told)
            if not self._needs_command():
                self._measure()
            elif not self._closed.is_set():
                self._measure_later(self._closed.is_set)
        except DcuError as error:
            self._note_failure(error)
        else:
            if self._failed:
                self._failed = False
                logger.info("%s: the DCU answers again", self.name)
        return self._period

    def _measure_later(self, is_over: Callable[[], bool] = lambda: False) -> None:
        """Measure behind what the worker has in hand: after the point that is being exposed."""
        if self._measuring is None or self._measuring.done:
            status = EigerStatus(f"{self.name}: measure")
            self._measuring = self.link.worker.submit(
                lambda: self._measure_carefully(is_over), status
            )

    def _measure_carefully(self, is_over: Callable[[], bool]) -> None:
        """Measure in the worker; what goes wrong is no work's of a user."""
        if is_over():
            return
        try:
            with self.link.client.ledger.background("care"):
                self._measure()
        except DcuError as error:
            self._note_failure(error)

    def _measure(self) -> None:
        """Ask for what is measured; an EIGER1 is told to measure, if nothing is armed."""
        if self._needs_command():
            state = str(self.detector.state.get())
            if not (self._measures and (self.states.is_idle(state) or state == "error")):
                return
            try:
                self.detector.status_update.send()
            except NotServedError as error:
                logger.info("%s: %s; values are as old as the DCU has them", self.name, error)
                self._measures = False
            except RefusedError as error:
                # Somebody was faster, and it is idle no more.
                logger.debug("%s: %s", self.name, error)
        self._ask(self._measured)

    def _needs_command(self) -> bool:
        return not self.states.needs_more_than_disarm()

    def _ask(self, signals: tuple[EigerSignal, ...]) -> None:
        for signal in signals:
            # What it had once it has again after initialize, whoever sends that.
            if signal.served is False and not signal.has_value:
                continue
            try:
                signal.ask()
            except (RefusedError, ReplyError) as error:
                logger.debug("%s; left out", error)

    def _note_failure(self, error: DcuError) -> None:
        level = logging.DEBUG if self._failed else logging.WARNING
        self._failed = True
        logger.log(level, "%s: nobody watches for now: %s", self.name, error)

    def _first(self, *signals: EigerSignal) -> EigerSignal | None:
        return next((signal for signal in signals if signal.has_value), None)

    def _unit(self, signal: EigerSignal) -> str:
        if signal is self.room and not signal.unit:
            return "byte" if self.states.needs_more_than_disarm() else "kB"
        return signal.unit or UNITS.get(signal.attr_name, "")


def _watch(reference: "weakref.ref[Care]", closed: threading.Event) -> None:
    """Look again and again; hold no reference to the detector between looks."""
    pause = 0.0
    while not closed.wait(pause):
        care = reference()
        if care is None:
            return
        with care.link.client.ledger.background("care"):
            pause = care.look_once()
        del care
