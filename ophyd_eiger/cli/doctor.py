"""`ophyd-eiger doctor`: asks a DCU for all that tells of its health, and says what was found.

What the replies tell is in `findings` and `suspicions`; here are the requests and the printing.
"""

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import click

from ophyd_eiger.cli.common import FAULTY, NO_DCU, Call, dcu_command, no_dcu
from ophyd_eiger.errors import (
    DcuError,
    DcuTimeoutError,
    DcuUnreachableError,
    LostReplyError,
    NotServedError,
    RefusedError,
    ReplyError,
)

if TYPE_CHECKING:
    from ophyd_eiger.cli.asking import Dcu
    from ophyd_eiger.cli.findings import Finding
    from ophyd_eiger.cli.gathered import Replies

# What of the settings is looked at, by subsystem.
SETTINGS = {
    "detector": (
        *("description", "detector_number", "software_version", "eiger_fw_version"),
        *("x_pixels_in_detector", "y_pixels_in_detector", "bit_depth_image", "roi_mode"),
        *("photon_energy", "threshold_energy", "threshold/1/mode", "count_time", "frame_time"),
        *("nimages", "ntrigger", "trigger_mode", "compression", "auto_summation"),
        *("flatfield_correction_applied", "pixel_mask_applied", "countrate_correction_applied"),
        *("test_image_mode", "test_mode", "beam_center_x", "beam_center_y", "detector_distance"),
    ),
    "filewriter": (
        *("mode", "name_pattern", "nimages_per_file", "image_nr_start", "compression_enabled"),
    ),
    "monitor": ("mode",),
    "stream": ("mode",),
}
# Of the status, beside what the DCU lists: EIGER2 do not list all that they serve.
STATUS = {
    "detector": (
        *("time", "error", "board_000/th0_temp", "board_000/th0_humidity", "temperature"),
        *("humidity", "builder/dcu_buffer_free", "high_voltage/state"),
        *("link_0", "link_1", "link_2", "link_3"),
    ),
    "filewriter": ("state", "error", "buffer_free"),
    "monitor": ("state", "error", "dropped"),
    "stream": ("state", "error", "dropped"),
}
# An EIGER2 names these again by shorter names.
TWINS = {
    "detector/status/board_000/th0_temp": "detector/status/temperature",
    "detector/status/board_000/th0_humidity": "detector/status/humidity",
}
# An EIGER 500K answers 500 for the links that it does not have.
NOT_FITTED = 500


@dcu_command("doctor")
def command(call: Call) -> None:
    """Look the detector over: what is wrong with it, what may be, and what to do.

    Nothing is changed. An idle EIGER is sent status_update, without which its temperature
    and humidity are old.
    """
    from ophyd_eiger.cli.findings import Finding, Severity, health
    from ophyd_eiger.cli.suspicions import suspicions

    dcu = call.dcu()
    replies, findings = None, []
    try:
        replies = gather(dcu)
    except DcuError as error:
        text = no_dcu(error).message
        findings = [Finding(Severity.FAULT, "connection", text, advice=_cure(error))]
    else:
        findings = [*health(replies), *suspicions(replies)]
    call.give(
        _document(call, replies, findings),
        *([] if call.as_json else [_head(call, replies), _table(findings), _sum(findings)]),
    )
    if replies is None:
        raise click.exceptions.Exit(NO_DCU)
    if any(finding.severity == Severity.FAULT for finding in findings):
        raise click.exceptions.Exit(FAULTY)


def _cure(error: DcuError) -> str:
    if isinstance(error, DcuUnreachableError):
        return "see to its power, its network cable, and the address"
    if isinstance(error, DcuTimeoutError):
        return (
            "something is there that does not answer: ask again with a longer --timeout, restart it"
        )
    return "give the address of the DCU itself, without a proxy between"


def gather(dcu: "Dcu") -> "Replies":
    """Ask a DCU for all that tells of its health; what it does not serve is left out.

    The subsystems are asked at the same time, each until a request has no answer: what hangs, hangs
    no longer than one request's timeout.

    Raises
    ------
    DcuError
        If it does not answer at all, or not as a DCU.
    """
    from ophyd_eiger.cli.gathered import Replies

    state = dcu.state()
    replies = Replies(dcu.url, dcu.client.api_version, state)
    with ThreadPoolExecutor(len(STATUS), thread_name_prefix="eiger doctor") as threads:
        for _ in threads.map(lambda subsystem: _ask_all(dcu, subsystem, replies), STATUS):
            pass
    for twin, name in TWINS.items():
        if twin in replies.answers and name in replies.answers:
            del replies.answers[twin]
    return replies


def _ask_all(dcu: "Dcu", subsystem: str, replies: "Replies") -> None:
    try:
        if subsystem == "detector":
            _measure(dcu, replies.state)
        listed = [f"{subsystem}/status/{key}" for key in STATUS[subsystem]]
        if subsystem == "detector":
            listed += dcu.listed("status", subsystems=[subsystem])
        wanted = [f"{subsystem}/config/{key}" for key in SETTINGS[subsystem]]
        for resource in dict.fromkeys([*listed, *wanted]):
            _ask(dcu, resource, replies)
        if subsystem == "filewriter":
            replies.files = dcu.files()
    except (DcuTimeoutError, DcuUnreachableError, LostReplyError) as error:
        replies.silent[subsystem] = str(error)


def _measure(dcu: "Dcu", state: str) -> None:
    """Have an EIGER measure: it does so on this command alone, and not while it exposes."""
    from ophyd_eiger.cli.asking import FIRST_API_OF_EIGER2

    if dcu.api >= FIRST_API_OF_EIGER2 or not (dcu.is_idle(state) or state == "error"):
        return
    try:
        dcu.client.command("detector", "status_update", timeout=dcu.client.timeouts.get)
    except RefusedError:
        # One that has no such command measures by itself.
        return


def _ask(dcu: "Dcu", resource: str, replies: "Replies") -> None:
    before = time.time()
    try:
        answer = dcu.ask(resource)
    except NotServedError:
        return
    except RefusedError as error:
        if error.status != NOT_FITTED:
            replies.broken[resource] = str(error)
        return
    except ReplyError as error:
        replies.broken[resource] = str(error)
        return
    replies.answers[resource] = answer
    if resource == "detector/status/time":
        replies.asked_at = (before + time.time()) / 2


# ---- what is given ----

IDENTITY = {
    "model": "detector/config/description",
    "serial_number": "detector/config/detector_number",
    "firmware": "detector/config/eiger_fw_version",
    "software": "detector/config/software_version",
}


def _document(
    call: Call, replies: "Replies | None", findings: "Sequence[Finding]"
) -> dict[str, Any]:
    from ophyd_eiger.cli.words import unit_of

    counts = Counter(finding.severity.name.lower() for finding in findings)
    values = {} if replies is None else replies.answers
    return {
        "url": call.url,
        "reachable": replies is not None,
        "api_version": None if replies is None else replies.api_version,
        "generation": None if replies is None else replies.generation,
        **{
            word: None if replies is None else replies.value(name)
            for word, name in IDENTITY.items()
        },
        "state": None if replies is None else replies.state,
        "counts": {word: counts[word] for word in ("fault", "warning", "note", "ok")},
        "findings": [
            {
                "severity": finding.severity.name.lower(),
                "subject": finding.subject,
                "text": finding.text,
                "advice": finding.advice,
            }
            for finding in findings
        ],
        "values": {
            name: {"value": answer.value, "unit": unit_of(name, answer.metadata.unit)}
            for name, answer in sorted(values.items())
        },
    }


COLOURS = {"FAULT": "bold red", "WARNING": "yellow", "NOTE": "cyan", "OK": "green"}


def _head(call: Call, replies: "Replies | None") -> Any:
    from rich.text import Text

    if replies is None:
        return Text(call.url, "bold")
    model = str(replies.value(IDENTITY["model"]) or replies.generation)
    words = [f"at {replies.url}", f"API {replies.api_version}"]
    for word in ("serial_number", "firmware", "software"):
        value = replies.value(IDENTITY[word])
        if value:
            words.append(f"{word.replace('_', ' ')} {value}")
    return Text.assemble((model, "bold"), "\n", ", ".join(words), "\n")


def _table(findings: "Sequence[Finding]") -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    first = [finding for finding in findings if finding.subject == "state"]
    others = [finding for finding in findings if finding not in first]
    for finding in [*first, *sorted(others, key=lambda finding: -finding.severity)]:
        name = finding.severity.name
        text = Text(finding.text)
        if finding.advice:
            text.append(f"\n-> {finding.advice}", "italic")
        table.add_row(Text(name.lower(), COLOURS[name]), finding.subject, text)
    return table


def _sum(findings: "Sequence[Finding]") -> Any:
    from rich.text import Text

    from ophyd_eiger.cli.words import plural

    counts = Counter(finding.severity.name for finding in findings)
    parts = [
        (plural(counts[name], name.lower()), COLOURS[name])
        for name in ("FAULT", "WARNING", "NOTE")
        if counts[name]
    ]
    if not parts:
        return Text("\nall is well", COLOURS["OK"])
    return Text("\n") + Text(", ").join(Text(*part) for part in parts)
