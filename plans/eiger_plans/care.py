"""Suspenders that hold a RunEngine as long as a detector is not well."""

import logging
from collections.abc import Callable
from typing import Any

from bluesky.suspenders import SuspenderBase

from eiger_plans.steps import check_detector
from ophyd_eiger import EigerDetector

logger = logging.getLogger(__name__)

# How far inside its limits a value must come back before a scan goes on.
TEMPERATURE_MARGIN = 1.0  # degree Celsius
HUMIDITY_MARGIN = 2.0  # percent
# Below this room on the DCU a scan is suspended, above the double it goes on; in bytes.
LEAST_ROOM = 2e9
# In these states no image can be taken, whatever one waits for.
LOST = ("na", "error")
WELL = ("idle", "configure", "ready", "acquire")


class CareSuspender(SuspenderBase):
    """Suspends while a signal is bad, and resumes when it is well inside what is good.

    Parameters
    ----------
    signal : ophyd.Signal
        What is watched.
    is_bad, is_good : callable
        Say of a value whether to suspend, and whether to resume; between them nothing changes.
    why : str
        The rest of a sentence that begins with the signal and its value.
    """

    def __init__(
        self,
        signal: Any,
        is_bad: Callable[[Any], bool],
        is_good: Callable[[Any], bool],
        why: str,
        **kwargs: Any,
    ) -> None:
        super().__init__(signal, **kwargs)
        self._is_bad = is_bad
        self._is_good = is_good
        self._why = why
        self._value: Any = None

    def _should_suspend(self, value: Any) -> bool:
        self._value = value
        return self._is_bad(value)

    def _should_resume(self, value: Any) -> bool:
        return self._is_good(value)

    def _get_justification(self) -> str:
        # The last value that was told: to ask the detector here would hold up the RunEngine.
        return f"{self._sig.name} is {self._value}: {self._why}" if self.tripped else ""


def suspenders(
    eiger: EigerDetector,
    *,
    temperature: tuple[float, float] | None = None,
    humidity: tuple[float, float] | None = None,
    room: float = LEAST_ROOM,
    sleep: float = 0.0,
) -> list[SuspenderBase]:
    """Return suspenders that hold scans while the detector is not well, and begin to watch it.

    They suspend while temperature or humidity is outside its limits, a data link is down, the DCU
    has little room for files, or the detector's state is na or error. `eiger.care` asks the DCU
    every few seconds for it, see `eiger.care.period`, until `eiger.care.stop()`.

    Parameters
    ----------
    eiger : EigerDetector
        The detector; connected here if it is not.
    temperature, humidity : (float, float), optional
        Limits in degree Celsius and percent; the DCU's own critical limits if not given. An EIGER2
        states none: without them here nothing is suspended for it.
    room : float
        Room on the DCU in bytes below which is suspended; resumed above the double.
    sleep : float
        How long to wait after all is well again, in s.

    Returns
    -------
    list of SuspenderBase
        For `RE.install_suspender`, one by one.

    Raises
    ------
    NotADetectorError
        If something else stands where the detector should.
    DcuError
        If the DCU cannot be asked.

    Examples
    --------
    >>> for suspender in suspenders(eiger):
    ...     RE.install_suspender(suspender)
    """
    check_detector(eiger, "suspenders")
    care = eiger.care
    if not care.signals:
        eiger.connect()
    found: list[SuspenderBase] = [
        CareSuspender(
            care.state,
            lambda state: state in LOST,
            lambda state: state in WELL and not eiger.recovery.is_under_way,
            f"{eiger.name}.recover() may bring it back",
            sleep=sleep,
        )
    ]
    for signal, given, margin in (
        (care.temperature, temperature, TEMPERATURE_MARGIN),
        (care.humidity, humidity, HUMIDITY_MARGIN),
    ):
        if signal is None:
            continue
        limits = given or _critical_limits(signal)
        if limits == (None, None):
            logger.warning(
                "%s: nothing is suspended for %s, of which this DCU states no critical limits; "
                "give them to suspenders()",
                eiger.name,
                signal.name,
            )
            continue
        found.append(_band(signal, *limits, margin, sleep))
    found += [
        CareSuspender(
            link, lambda value: value == "down", lambda value: value == "up", "no data", sleep=sleep
        )
        for link in care.links
        if link.has_value
    ]
    if care.room.has_value:

        def is_more(value: Any, least: float) -> bool | None:
            free = care.in_bytes(value)
            return None if free is None else free > least

        found.append(
            CareSuspender(
                care.room,
                lambda value: is_more(value, room) is False,
                lambda value: is_more(value, 2 * room) is True,
                f"the DCU has less than {room / 1e9:g} GB free; in another terminal "
                f"`ophyd-eiger fetch {eiger.address} 'OLDER_*' --delete --directory OTHER` copies "
                "older scans to a folder of their own and deletes them on the DCU; or abort the "
                f"scan, then {eiger.name}.filewriter.clear.set(1) deletes every file on the DCU",
                sleep=sleep,
            )
        )
    care.start()
    return found


def _critical_limits(signal: Any) -> tuple[float | None, float | None]:
    alarm = signal.describe()[signal.name].get("limits", {}).get("alarm", {})
    return alarm.get("low"), alarm.get("high")


def _band(
    signal: Any, low: float | None, high: float | None, margin: float, sleep: float
) -> SuspenderBase:
    """Return a suspender for a value that is to stay between two limits, of which one may be None.

    The lower limit of a humidity is 0, to which it may come close: no margin is asked for there.
    """
    bottom = float("-inf") if low is None else low
    top = float("inf") if high is None else high
    margin = min(margin, (top - bottom) / 4)
    low_enough = bottom if bottom == 0 else bottom + margin

    def is_bad(value: Any) -> bool:
        return isinstance(value, (int, float)) and not bottom <= value <= top

    def is_good(value: Any) -> bool:
        return isinstance(value, (int, float)) and low_enough <= value <= top - margin

    return CareSuspender(signal, is_bad, is_good, f"outside [{low}, {high}]", sleep=sleep)
