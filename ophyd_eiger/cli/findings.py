"""What a DCU's replies tell of its health: state, sensors, subsystems, room, clock. Pure.

`ophyd_eiger.cli.suspicions` looks at the settings.
"""

import datetime as dt
import enum
from collections.abc import Iterator
from dataclasses import dataclass, field

from ophyd_eiger.cli.gathered import Replies
from ophyd_eiger.cli.words import duration, measured, plural, size, text_of
from ophyd_eiger.metadata import ALARM, OK


class Severity(enum.IntEnum):
    """How much a finding matters."""

    OK = 0
    NOTE = 1
    """Worth knowing; may well be meant so."""
    WARNING = 2
    """Is likely to spoil data, or to become a fault."""
    FAULT = 3
    """No good data before it is mended."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes
    ----------
    severity : Severity
        How much it matters.
    subject : str
        What it is about, as in "file writer".
    text : str
        What was found, with figures.
    advice : str
        What to do; "" where there is nothing to do.
    """

    severity: Severity
    subject: str
    text: str
    advice: str = field(default="", kw_only=True)


_LEFT_ARMED = (
    "if the process that armed it has ended: ophyd-eiger fetch {url} ends it and keeps its images; "
    "else, if nobody uses it: ophyd-eiger abort {url}"
)
# What the states mean: severity, words, and what to do.
_STATES = {
    "na": (
        Severity.WARNING,
        "not initialized since it was switched on or restarted; it has no settings yet",
        "ophyd-eiger initialize {url}",
    ),
    "error": (
        Severity.FAULT,
        "no series can be taken",
        "ophyd-eiger recover {url} (keeps the settings); if it comes back, see status/error and "
        "restart the DCU",
    ),
    "idle": (Severity.OK, "initialized, not armed", ""),
    "ready": (
        Severity.NOTE,
        "armed, waiting for triggers; settings cannot be changed",
        _LEFT_ARMED,
    ),
    "acquire": (
        Severity.NOTE,
        "taking images",
        _LEFT_ARMED,
    ),
    "configure": (Severity.NOTE, "being armed, or working out a new energy", "wait until it ends"),
    "initialize": (Severity.NOTE, "being initialized", "wait until it ends, at most two minutes"),
    "test": (Severity.NOTE, "testing itself", "wait until it ends"),
}
# What to do where a sensor's reading is critical, by what its name ends in.
_CURES = {
    "temp": "see to the cooling water and its temperature; switch the detector off if it stays so",
    "temperature": "see to the cooling water and its temperature; switch the detector off if it "
    "stays so",
    "humidity": "see to the flow of dry air or nitrogen; do not cool the detector until it is dry",
    "buffer_free": "wait until the images are written, or take fewer a second",
}
_LINK_CURE = "see to the data cable of this link, then initialize"
# Not a measurement, or looked at by itself.
_NOT_SENSORS = ("state", "error", "time", "high_voltage/state")
_LITTLE_ROOM_BYTES = 1e9
# Differences of clocks: below the first nobody cares, above the second times in files mislead. A
# DCU states whole seconds.
_CLOCK_FINE_S, _CLOCK_BAD_S = 2.0, 60.0


def health(replies: Replies) -> Iterator[Finding]:
    """Yield what the replies tell of the DCU, its settings left aside."""
    yield _state(replies)
    yield from _unanswered(replies)
    yield from _errors(replies)
    yield from _sensors(replies)
    yield from _voltage(replies)
    for subsystem, look in (
        ("filewriter", _filewriter),
        ("monitor", _monitor),
        ("stream", _stream),
    ):
        if subsystem not in replies.silent:
            yield from look(replies)
    yield from _room(replies)
    yield from _clock(replies)


def _state(replies: Replies) -> Finding:
    state = replies.state
    if state == "ready" and not replies.tells_idle:
        words = f"initialized; API {replies.api_version} does not tell whether it is armed"
        return Finding(Severity.OK, "state", f"ready: {words}")
    severity, words, advice = _STATES.get(
        state, (Severity.WARNING, "no state that is known", "look at status/error")
    )
    text = f"{state}: {words}"
    return Finding(severity, "state", text, advice=advice.format(url=replies.url))


def _way_back(replies: Replies) -> str:
    """Return the command that leads out of an error; recover does nothing where all is well."""
    command = "recover" if replies.state == "error" else "initialize"
    return f"ophyd-eiger {command} {replies.url}"


def _unanswered(replies: Replies) -> Iterator[Finding]:
    for subsystem, failure in replies.silent.items():
        yield Finding(
            Severity.FAULT,
            subsystem,
            f"does not answer: {failure}",
            advice="ask again; if it stays so, restart the DCU",
        )
    if replies.broken:
        resource, failure = next(iter(replies.broken.items()))
        text = f"{plural(len(replies.broken), 'resource')} not given, as {resource}: {failure}"
        yield Finding(Severity.WARNING, "answers", text, advice="restart the DCU if it stays so")


def _errors(replies: Replies) -> Iterator[Finding]:
    for subsystem in ("detector", "filewriter", "monitor", "stream"):
        faults = replies.value(f"{subsystem}/status/error") or []
        listed = faults if isinstance(faults, list) else [faults]
        # Sensors that are critical are told of with their figures.
        listed = [one for one in listed if not _is_critical(replies, f"{subsystem}/status/{one}")]
        if listed:
            text = f"{subsystem}/status/error names {', '.join(map(str, listed))}"
            advice = f"mend that, then {_way_back(replies)}"
            yield Finding(Severity.FAULT, "error", text, advice=advice)


def _is_critical(replies: Replies, resource: str) -> bool:
    answer = replies.answers.get(resource)
    alarm = None if answer is None else answer.metadata.alarm(answer.value)
    return alarm is not None and alarm[0] == ALARM


def _sensors(replies: Replies) -> Iterator[Finding]:
    up = []
    for resource, answer in replies.answers.items():
        key = resource.removeprefix("detector/status/")
        if key == resource or key in _NOT_SENSORS or answer.value in (None, ""):
            continue
        is_link = key.startswith("link_")
        alarm = answer.metadata.alarm(answer.value)
        if is_link and (alarm is None or alarm[0] == OK):
            if answer.value == "up":
                up.append(key.removeprefix("link_"))
            else:
                # This DCU does not say itself that it is critical: it may not be in use.
                name = _sensor_name(key)
                yield Finding(Severity.WARNING, name, f"{answer.value}", advice=_LINK_CURE)
            continue
        if not is_link and not isinstance(answer.value, (int, float)):
            continue
        yield _sensor(replies, resource, key, alarm)
    if up:
        yield Finding(Severity.OK, "links", f"{', '.join(up)} up")


def _sensor(replies: Replies, resource: str, key: str, alarm: tuple[int, str] | None) -> Finding:
    answer = replies.answers[resource]
    low, high = answer.metadata.critical_limits
    shown = measured(answer.value, answer.metadata.unit, resource)
    if key.endswith("buffer_free"):
        shown += " free"
    subject = _sensor_name(key)
    age = replies.age(answer)
    text = shown if age is None or age < 60 else f"{shown}, {duration(age)} ago"
    if alarm is None:
        return Finding(Severity.OK, subject, f"{text}; this DCU states no limits for it")
    bounds = _bounds(low, high)
    if alarm[0] == ALARM:
        cure = next((cure for end, cure in _CURES.items() if key.endswith(end)), "")
        found = f"{text}: critical" + (f", {bounds} is good" if bounds else "")
        return Finding(Severity.FAULT, subject, found, advice=cure or _LINK_CURE)
    if alarm[0] != OK:
        found = f"{text}, which the DCU calls {answer.metadata.state}"
        return Finding(Severity.NOTE, subject, found)
    return Finding(Severity.OK, subject, f"{text}; {bounds} is good" if bounds else text)


def _sensor_name(key: str) -> str:
    for end, name in (
        ("buffer_free", "image buffer"),
        ("temp", "temperature"),
        ("humidity", "humidity"),
    ):
        if key.endswith(end) and "/" in key:
            board = key.partition("/")[0]
            return name if name == "image buffer" else f"{name}, {board}"
    return key.replace("_", " ")


def _bounds(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f"{text_of(low)} to {text_of(high)}"
    if low is not None:
        return f"from {text_of(low)} on"
    return "" if high is None else f"up to {text_of(high)}"


def _voltage(replies: Replies) -> Iterator[Finding]:
    voltage = replies.value("detector/status/high_voltage/state")
    if voltage in (None, "") or (voltage in ("OFF", "NA") and replies.state == "na"):
        return
    if voltage in ("READY", "NA"):
        yield Finding(Severity.OK, "high voltage", f"{voltage}")
    elif voltage == "RAMPING":
        yield Finding(Severity.NOTE, "high voltage", "RAMPING", advice="wait until it is READY")
    else:
        text = f"{voltage}: the sensor counts nothing"
        advice = f"ophyd-eiger initialize {replies.url}"
        yield Finding(Severity.FAULT, "high voltage", text, advice=advice)


def _filewriter(replies: Replies) -> Iterator[Finding]:
    state = replies.value("filewriter/status/state")
    if state is None:
        yield Finding(Severity.NOTE, "file writer", "not served: this DCU writes no files")
    elif state == "error":
        yield Finding(
            Severity.FAULT,
            "file writer",
            "state error: images were lost",
            advice=f"make room for files, then {_way_back(replies)}",
        )
    elif state != "disabled":
        # That it is disabled is told with the settings.
        yield Finding(Severity.OK, "file writer", f"{state}")


def _monitor(replies: Replies) -> Iterator[Finding]:
    state = replies.value("monitor/status/state")
    dropped = replies.number("monitor/status/dropped") or 0
    if state is None:
        yield Finding(Severity.NOTE, "monitor", "not served: no live images")
    elif state == "overflow" or dropped:
        text = f"{state}, {plural(int(dropped), 'image')} dropped"
        advice = "no harm to files, but to live images; monitor/command/clear empties it"
        yield Finding(Severity.NOTE, "monitor", text, advice=advice)
    else:
        mode = replies.value("monitor/config/mode")
        yield Finding(Severity.OK, "monitor", f"{mode}, {state}" if mode else f"{state}")


def _stream(replies: Replies) -> Iterator[Finding]:
    state = replies.value("stream/status/state")
    dropped = replies.number("stream/status/dropped") or 0
    if state is None:
        yield Finding(Severity.OK, "stream", "not served")
    elif state == "error":
        yield Finding(
            Severity.FAULT, "stream", "state error", advice="PUT stream/command/initialize"
        )
    elif dropped:
        text = f"{state}, {plural(int(dropped), 'image')} dropped: nobody fetched them"
        yield Finding(Severity.WARNING, "stream", text, advice="see to the stream's receiver")
    else:
        yield Finding(Severity.OK, "stream", f"{state}")


def _room(replies: Replies) -> Iterator[Finding]:
    free = replies.buffer_free()
    if replies.files is not None:
        severity = Severity.NOTE if replies.files else Severity.OK
        text = f"{plural(replies.files, 'file')} on the DCU"
        advice = (
            f"ophyd-eiger fetch --all {replies.url} brings them all into --directory, also those "
            "that are home elsewhere; with --delete they are deleted there when they are proven "
            "good"
        )
        yield Finding(severity, "files", text, advice=advice if replies.files else "")
    if free is None:
        return
    if free <= 0:
        yield Finding(
            Severity.FAULT, "disk", "full: 0 bytes free", advice="delete files on the DCU"
        )
        return
    text = f"{size(free)} free"
    most = replies.series_bytes()
    if free < _LITTLE_ROOM_BYTES:
        yield Finding(Severity.WARNING, "disk", text, advice="delete files on the DCU")
    elif most is not None and most > free:
        found = f"{text}; the series that is set up may need {size(most)} uncompressed"
        yield Finding(Severity.NOTE, "disk", found, advice="make room, or take fewer images")
    else:
        yield Finding(Severity.OK, "disk", text)


def _clock(replies: Replies) -> Iterator[Finding]:
    stated = replies.value("detector/status/time")
    if not isinstance(stated, str) or replies.asked_at is None:
        return
    try:
        theirs = dt.datetime.fromisoformat(stated)
    except ValueError:
        text = f"the DCU says {stated!r}, which is no time"
        yield Finding(Severity.NOTE, "clock", text)
        return
    ours = dt.datetime.fromtimestamp(replies.asked_at, dt.UTC)
    zone = ""
    if theirs.tzinfo is None:
        # Its own zone is not stated; the difference is least likely to be hours.
        theirs, zone = theirs.replace(tzinfo=ours.astimezone().tzinfo), ", taken as local time"
    behind = (ours - theirs).total_seconds()
    if abs(behind) < _CLOCK_FINE_S:
        yield Finding(Severity.OK, "clock", f"as this computer's, within {_CLOCK_FINE_S:g} s{zone}")
        return
    text = (
        f"{duration(abs(behind))} {'behind' if behind > 0 else 'ahead of'} this computer's{zone}: "
        "times in files are the DCU's"
    )
    severity = Severity.WARNING if abs(behind) >= _CLOCK_BAD_S else Severity.NOTE
    yield Finding(severity, "clock", text, advice="set the DCU's clock or this one's, by NTP")
