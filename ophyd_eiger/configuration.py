"""Sets a detector up: many settings in one call, in the order the hardware needs.

Knows nothing of series. What is asked for is checked before anything is put; then, in the worker:
GET status/state and what is asked for with what may follow from it, PUT what is not so, each after
a GET that shows it, and GET all of it again. What is known of the order is in
`ophyd_eiger.settings`.
"""

import difflib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ophyd_eiger import settings
from ophyd_eiger.array_signals import EigerArray
from ophyd_eiger.errors import (
    EigerError,
    NotServedError,
    StateError,
    UnknownSettingError,
    ValueRefusedError,
)
from ophyd_eiger.event_loop import Configuring, Readings, in_event_loop, read_after
from ophyd_eiger.settings import Configured, Difference, Differences, Report, Setting
from ophyd_eiger.signals import EigerSignal, Link
from ophyd_eiger.subsystems import Subsystem
from ophyd_eiger.worker import EigerStatus

logger = logging.getLogger(__name__)

FIRST_API_OF_EIGER2 = (1, 8)


class Configuration:
    """All settings of a detector as one thing to set.

    Parameters
    ----------
    name : str
        Name of the device.
    subsystems : iterable of Subsystem
        The detector first.
    link : Link
        What the signals share.
    connect : callable
        Reads every resource, if that was not done yet.
    read : callable
        Returns the readings of the configuration, without asking the DCU.
    is_staged : callable
        Whether verbs are still to come that tell of a failure.

    Attributes
    ----------
    last : Report or None
        What the last call did.
    """

    parent = None

    def __init__(
        self,
        name: str,
        subsystems: Iterable[Subsystem],
        link: Link,
        *,
        connect: Callable[[], None],
        read: Callable[[], Readings],
        is_staged: Callable[[], bool],
    ) -> None:
        self.device = name
        self.name = f"{name}_configuration"
        self.subsystems = {subsystem.subsystem: subsystem for subsystem in subsystems}
        self.link = link
        self.last: Report | None = None
        self._connect = connect
        self._read = read
        self._is_staged = is_staged
        self._pending: EigerStatus | None = None
        self._doubted_at = -1.0
        self._doubt = ""
        self.detector.state.subscribe(self._note_state, run=False)

    @property
    def detector(self) -> Any:
        """The detector subsystem."""
        return self.subsystems["detector"]

    # ---- called by users and by the RunEngine ----

    def set(self, values: Mapping[Any, Any], *, exact_is_enough: bool = False) -> EigerStatus:
        """Put settings in a safe order; done when they are read back.

        Parameters
        ----------
        values : mapping
            Value by name: "count_time" for the detector's, "filewriter.nimages_per_file" for
            others', or a signal's ophyd name.
        exact_is_enough : bool
            Whether what the DCU says to be exactly as asked is skipped after an initialize too.

        Raises
        ------
        UnknownSettingError
            If a name is none; nothing is put.
        LimitError, ReadOnlyError
            At once where the detector's limits are known, else through the Status; nothing is put.
        """
        return self._submit(values, {}, {}, exact_is_enough)

    def check_value(self, values: Mapping[Any, Any]) -> None:
        """Refuse what the detector's limits, as far as they are known, do not allow; asks nothing.

        Raises
        ------
        UnknownSettingError, LimitError, ReadOnlyError
        """
        self._checked(values)

    def configure(self, values: Mapping[Any, Any]) -> Any:
        """Do what `set` does and return the configuration's readings (before, after).

        IPython shows in their place what was done: `Configured.report`, `last` here.
        In a RunEngine's event loop it returns something to be awaited or taken apart, see
        `Configuring`; elsewhere it waits.
        """
        before: Readings = {}
        after: Readings = {}
        status = self._submit(values, before, after)
        if in_event_loop():
            return Configuring(
                status, before, after, self._leave_pending if self._is_staged() else None
            )
        status.wait()
        configured = Configured((before, after))
        configured.report = self.last
        return configured

    def when_done(self, read: Callable[[], Any]) -> Any:
        """Return readings; in the event loop, while settings are put, a promise of them."""
        pending = self._pending
        if pending is None or pending.done or not in_event_loop():
            return read()
        return read_after(pending, read)

    @property
    def is_staged(self) -> bool:
        """Whether verbs are still to come."""
        return self._is_staged()

    def note_initialized(self, why: str) -> None:
        """Trust no value that was put before: the next time all that is asked for is put."""
        self._doubted_at = time.monotonic()
        self._doubt = why

    def differences(self, values: Mapping[Any, Any]) -> Differences:
        """Ask the DCU and return which settings differ from `values`."""
        wanted = self._resolved(values)
        found = Differences()
        for signal, asked in wanted.items():
            here = self._asked_anew(signal)
            if not settings.already(signal.key, here, asked):
                found.append(Difference(self._dotted(signal), here, asked, _unit(signal)))
        return found

    def _leave_pending(self, status: EigerStatus) -> None:
        self._pending = status

    # ---- the work, done in the worker ----

    def _submit(
        self,
        values: Mapping[Any, Any],
        before: Readings,
        after: Readings,
        exact_is_enough: bool = False,
    ) -> EigerStatus:
        self.link.worker.raise_unseen()
        wanted = self._checked(values)
        status = EigerStatus(f"{self.device}: configure {len(wanted)} settings")
        return self.link.worker.submit(
            lambda: self._carry_out(wanted, before, after, exact_is_enough), status
        )

    def _checked(self, values: Mapping[Any, Any]) -> dict[EigerSignal, Any]:
        """Return the values by signal, after a look at the limits that are known."""
        wanted = self._resolved(values)
        for signal, value in wanted.items():
            if signal.dcu_metadata is not None and not self._moves_limits(wanted, signal):
                signal.check_value(value)
        return wanted

    def _carry_out(
        self,
        wanted: dict[EigerSignal, Any],
        before: Readings,
        after: Readings,
        exact_is_enough: bool,
    ) -> None:
        self._connect()
        if wanted:
            self._require_initialized()
        was = self._ask_around(wanted)
        self._check(wanted)
        before.update(self._read())
        outcomes: dict[EigerSignal, str] = {}
        doubted = any(map(self._is_doubted, wanted)) and not exact_is_enough
        remark = self._doubt if doubted else ""
        try:
            for signal in sorted(wanted, key=lambda s: settings.rank(s.subsystem, s.key)):
                outcomes[signal] = settings.FAILED
                outcomes[signal] = self._bring(signal, wanted[signal], exact_is_enough)
            if settings.PUT in outcomes.values():
                for signal in was:
                    self._asked_anew(signal)
        except EigerError as error:
            self.last = self._report(wanted, was, outcomes, remark)
            error.add_note(f"what was done before that:\n{self.last}")
            raise
        self.last = self._report(wanted, was, outcomes, remark)
        after.update(self._read())
        for setting in self.last.settings:
            if setting.outcome in (settings.NOT_AS_ASKED, settings.CHANGED):
                logger.info("%s: %s: %s", self.device, setting.name, setting.outcome)

    def _ask_around(self, wanted: Mapping[EigerSignal, Any]) -> dict[EigerSignal, Any]:
        """Ask anew for what is asked for and what may follow from it; others may have changed it.

        Returns
        -------
        dict
            The values, by signal.
        """
        keys = settings.followers(s.key for s in wanted if s.subsystem == "detector")
        around = [
            signal
            for signal in self.detector.signals
            if signal.section == "config" and signal.key in keys and signal.has_value
        ]
        was = {}
        for signal in dict.fromkeys((*wanted, *around)):
            known, last = signal.has_value, signal.last
            was[signal] = now = self._asked_anew(signal)
            telling = signal.subsystem == "detector" and signal.key in settings.TELLTALES
            if telling and known and not settings.already(signal.key, last, now):
                self.note_initialized(
                    f"nothing was skipped: {self._dotted(signal)} was {settings.shown(now)}, and "
                    f"not the {settings.shown(last)} last known: somebody changed or initialized "
                    "the detector"
                )
        return was

    def _check(self, wanted: Mapping[EigerSignal, Any]) -> None:
        for signal, value in wanted.items():
            self.link.refuse_what_loses(signal.subsystem, signal.resource)
            if not self._moves_limits(wanted, signal):
                signal.check_value(value)
        asked = {s.key: value for s, value in wanted.items() if s.subsystem == "detector"}
        reason = settings.contradiction(asked, self.detector.trigger_mode.last)
        if reason and self._api() >= FIRST_API_OF_EIGER2 and {"nimages"} & set(asked):
            raise ValueRefusedError(f"{self.device}: {reason}; nothing was put")

    def _moves_limits(self, wanted: Mapping[EigerSignal, Any], signal: EigerSignal) -> bool:
        """Return whether another setting changes the limits, so that only the DCU can check it."""
        region = self.detector.roi_mode
        return (
            signal.subsystem == "detector"
            and signal.key in settings.TIMES
            and region in wanted
            and wanted[region] != region.last
        )

    def _bring(self, signal: EigerSignal, value: Any, exact_is_enough: bool) -> str:
        # Asked just before: what was put before it may have changed it, and its limits.
        here = self._asked_anew(signal)
        checked = signal.check_value(value)
        # Putting a region that is there already would only reset the times.
        trusted = not self._is_doubted(signal) or signal.key == "roi_mode"
        if trusted and settings.already(signal.key, here, checked):
            return settings.SKIPPED
        if exact_is_enough and settings.already("", here, checked):
            return settings.SKIPPED
        gated = signal is self.detector.trigger_mode and checked in settings.GATED_MODES
        if gated and self.detector.nimages.get() != 1:
            # An edge or gate takes one image; some firmware wants to see that first.
            self.detector.nimages.put_now(1)
        signal.put_now(value)
        return settings.PUT

    def _asked_anew(self, signal: EigerSignal) -> Any:
        if isinstance(signal, EigerArray):
            return signal.last
        try:
            return signal.get()
        except NotServedError as error:
            raise UnknownSettingError(
                f"{self.device}: {self._dotted(signal)} is not served by this DCU: {error}"
            ) from error

    def _report(
        self,
        wanted: Mapping[EigerSignal, Any],
        was: Mapping[EigerSignal, Any],
        outcomes: Mapping[EigerSignal, str],
        remark: str,
    ) -> Report:
        found = []
        for signal in sorted(wanted, key=lambda s: settings.rank(s.subsystem, s.key)):
            asked, now = wanted[signal], signal.last
            outcome = outcomes.get(signal, settings.NOT_REACHED)
            if outcome in (settings.PUT, settings.SKIPPED) and settings.is_plain(asked):
                kept = settings.already(signal.key, now, signal.check_value(asked))
                outcome = outcome if kept else settings.NOT_AS_ASKED
            found.append(self._setting(signal, was[signal], asked, outcome))
        for signal, before in was.items():
            if signal not in wanted and not settings.already(signal.key, signal.last, before):
                found.append(self._setting(signal, before, None, settings.CHANGED))
        return Report(self.device, found, remark)

    def _setting(self, signal: EigerSignal, before: Any, asked: Any, outcome: str) -> Setting:
        return Setting(self._dotted(signal), _unit(signal), before, asked, signal.last, outcome)

    # ---- names, states ----

    def _resolved(self, values: Mapping[Any, Any]) -> dict[EigerSignal, Any]:
        wanted: dict[EigerSignal, Any] = {}
        for name, value in values.items():
            signal = name if isinstance(name, EigerSignal) else self._find(str(name))
            if signal.section != "config" or signal.link is not self.link:
                raise UnknownSettingError(f"{self.device}: {signal.name} is none of its settings")
            if signal in wanted:
                raise ValueRefusedError(f"{self.device}: {self._dotted(signal)} is asked for twice")
            wanted[signal] = value
        return wanted

    def _find(self, name: str) -> EigerSignal:
        known = {}
        for subsystem in self.subsystems.values():
            for signal in subsystem.signals:
                if signal.section == "config":
                    known[signal.name] = known[f"{subsystem.subsystem}.{signal.attr_name}"] = signal
                    if subsystem is self.detector:
                        known[signal.attr_name] = signal
        if name in known:
            return known[name]
        start, dot, key = name.partition(".")
        subsystem = self.subsystems.get(start) if dot else self.detector
        key = key if dot else name
        declared = subsystem is not None and f"{subsystem.subsystem}.{key}" in known
        if subsystem is not None and key and (declared or "/" in key or dot):
            found = subsystem[f"config/{key}"]
            if isinstance(found, EigerSignal):
                return found
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else "."
        raise UnknownSettingError(
            f"{self.device}: no setting is named {name!r}{hint} Nothing was put"
        )

    def _dotted(self, signal: EigerSignal) -> str:
        return f"{signal.subsystem}.{signal.attr_name or signal.key}"

    def _require_initialized(self) -> None:
        state = self.detector.state.get()
        if state in ("na", "initialize"):
            raise StateError(
                f"{self.device}: the detector is in state {state!r} and has no configuration yet; "
                f"initialize it: {self.device}.initialize()"
            )

    def _api(self) -> tuple[int, ...]:
        numbers = self.link.client.api_version.split(".")[:2]
        return tuple(int(number) for number in numbers if number.isdigit())

    def _note_state(self, value: Any = None, **_: Any) -> None:
        if value in ("na", "initialize"):
            self.note_initialized("nothing was skipped: the detector was initialized since")

    def _is_doubted(self, signal: EigerSignal) -> bool:
        return signal.put_at <= self._doubted_at


def _unit(signal: EigerSignal) -> str:
    return signal.dcu_metadata.unit if signal.dcu_metadata is not None else ""
