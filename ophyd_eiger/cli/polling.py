"""What `watch` asks a DCU at each poll, and what follows from two polls. No printing."""

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

from ophyd_eiger.cli.asking import Dcu, bytes_free
from ophyd_eiger.errors import DcuError, NotServedError, RefusedError, ReplyError
from ophyd_eiger.replies import number_of

# An EIGER2 has the short names; the long ones are those of an EIGER.
TEMPERATURES = ("detector/status/temperature", "detector/status/board_000/th0_temp")
HUMIDITIES = ("detector/status/humidity", "detector/status/board_000/th0_humidity")


@dataclass(frozen=True)
class Snapshot:
    """What the DCU said at one moment; None for what it did not say.

    Attributes
    ----------
    at : float
        When, by this computer's clock: s since 1970.
    failure : str or None
        Why it did not answer.
    state, filewriter : str or None
        States of the detector and of the file writer.
    series, image : int or None
        Series and number, from 1, of the newest image that the monitor holds.
    kept : int or None
        How many images the monitor holds.
    files : int or None
        Files on the DCU.
    free : float or None
        Room for files, in bytes.
    temperature, humidity : float or None
        In degree Celsius and percent.
    alarms : tuple of str
        What is outside the DCU's own limits.
    image_rate : float or None
        Images a second since the snapshot before, within one series.
    write_rate : float or None
        Bytes a second by which the room for files has shrunk since then.
    """

    at: float
    failure: str | None = None
    state: str | None = None
    filewriter: str | None = None
    series: int | None = None
    image: int | None = None
    kept: int | None = None
    files: int | None = None
    free: float | None = None
    temperature: float | None = None
    humidity: float | None = None
    alarms: tuple[str, ...] = ()
    image_rate: float | None = None
    write_rate: float | None = None

    @property
    def answers(self) -> bool:
        """Whether the DCU answered."""
        return self.failure is None

    def since(self, before: "Snapshot | None") -> "Snapshot":
        """Return it with the rates since the snapshot before."""
        if before is None or self.at <= before.at:
            return self
        seconds = self.at - before.at
        image_rate = write_rate = None
        if self.image is not None and before.image is not None and self.series == before.series:
            image_rate = max(0.0, (self.image - before.image) / seconds)
        if self.free is not None and before.free is not None:
            write_rate = max(0.0, (before.free - self.free) / seconds)
        return dataclasses.replace(self, image_rate=image_rate, write_rate=write_rate)


def poll(dcu: Dcu) -> Snapshot:
    """Ask a DCU for all that is watched; one that does not answer is what the snapshot says.

    Raises
    ------
    ReplyError, RefusedError
        If what answers is no DCU.
    """
    at = time.time()
    try:
        state = dcu.state()
    except (ReplyError, RefusedError):
        raise
    except DcuError as error:
        return Snapshot(at, failure=str(error))
    try:
        series, image, kept = _newest(dcu)
        alarms: list[str] = []
        return Snapshot(
            at,
            state=state,
            filewriter=_text(dcu.value("filewriter/status/state")),
            series=series,
            image=image,
            kept=kept,
            files=dcu.files(),
            free=bytes_free(dcu.answer("filewriter/status/buffer_free"), dcu.api),
            temperature=_reading(dcu, TEMPERATURES, alarms),
            humidity=_reading(dcu, HUMIDITIES, alarms),
            alarms=tuple(alarms),
        )
    except DcuError as error:
        # It went away in between.
        return Snapshot(at, failure=str(error))


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _reading(dcu: Dcu, resources: tuple[str, ...], alarms: list[str]) -> float | None:
    for resource in resources:
        try:
            answer = dcu.ask(resource)
        except (NotServedError, ReplyError):
            continue
        except RefusedError:
            return None
        alarm = answer.metadata.alarm(answer.value)
        if alarm is not None and alarm[0] > 0:
            alarms.append(resource)
        return number_of(answer.value)
    return None


def _newest(dcu: Dcu) -> tuple[int | None, int | None, int | None]:
    """Return series and number of the monitor's newest image, and how many it holds."""
    try:
        listing = dcu.client.get("monitor", "images")
    except (RefusedError, ReplyError):
        return None, None, None
    try:
        images = {int(series): [int(one) for one in numbers] for series, numbers in listing}
    except (TypeError, ValueError):
        return None, None, None
    held = {series: numbers for series, numbers in images.items() if numbers}
    if not held:
        return None, None, 0
    # The newest series is listed last; after `initialize` it may have the smaller number.
    series = list(held)[-1]
    return series, max(held[series]), sum(map(len, held.values()))
