"""Every fault that the simulated DCU can have on request: one table, and how one is written.

Data, and the reading of `NAME[:key=value,...]`. Knows nothing of HTTP, files or detectors, and not
which faults are set.
"""

import re
from typing import Any

from sim_dcu.fault_kinds import Argument, Fault, FaultError

# What a comma separates is a new argument only where a name and "=" follow, so that a text may
# hold commas.
_NEXT_ARGUMENT = re.compile(r",(?=[a-z]+=)")


def _seconds(name: str, default: float, what: str) -> Argument:
    return Argument(name, "number", default, what, "s", highest=1e6)


def _image(default: int | None, what: str) -> Argument:
    return Argument("image", "count", default, what)


_FILE = Argument("file", "count", 1, "which: the number of a data file, 0 for the master")

TABLE = (
    Fault(
        "refuse",
        "request",
        "answers with `status` and `text` and does nothing",
        "that an error names the request and the reason; that nothing goes on as if it had worked",
        (
            Argument("status", "count", 400, "the HTTP status", lowest=200, highest=599),
            Argument("text", "text", "refused on request", "the body"),
        ),
    ),
    Fault(
        "late",
        "request",
        "does at once what is asked, and answers `seconds` later",
        "time limits, and whether the client can be interrupted while it waits",
        (_seconds("seconds", 5.0, "how much later"),),
    ),
    Fault(
        "hang",
        "request",
        "takes the request, does nothing and never answers; cuts the connection when cleared",
        "that a read has a time limit",
    ),
    Fault(
        "drop",
        "request",
        "cuts the connection: `before` anything is done, in the middle of the `head` or of the "
        "`body` of the reply (after the head where there is none), or `after` the whole reply, "
        "without a word",
        "retries that are safe, replies that are not whole, connections kept that are gone",
        (
            Argument(
                "when", "choice", "before", "where", choices=("before", "head", "body", "after")
            ),
        ),
    ),
    Fault(
        "lose",
        "request",
        "does what is asked and cuts the connection instead of answering",
        "that a command whose reply is lost is not sent twice, but the state asked for",
        path="PUT */command/*",
    ),
    Fault(
        "put-reply",
        "request",
        "does what is asked, and where that is answered with 200 answers `null`, `quotes` "
        '(`""`) or `empty` (nothing, as text) instead of the list of what changed',
        "that a client reads back what it set: firmware answers so after initialize",
        (Argument("body", "choice", "null", "the reply", choices=("null", "quotes", "empty")),),
        path="PUT */config/*",
    ),
    Fault(
        "die",
        "request",
        "ends as without power: every connection is cut, the port refuses, what is not in a "
        "whole file is lost; `back` s later it answers at the same port, in state na with every "
        "default. At once, unless `path`, `command` or `image` say when",
        "that a client notices, says so, and goes on after initialize with its settings put again",
        (
            _seconds("back", 2.0, "after how long it is back"),
            Argument("files", "choice", "gone", "the files are", choices=("gone", "kept")),
            _image(None, "when so many images of a series are exposed"),
        ),
        path="",
        times=1,
    ),
    Fault(
        "error",
        "series",
        "state error when `image` images are exposed, which are still written; the trigger is "
        "refused with `text`; initialize mends it",
        "that a scan stops with the reason, and the way back",
        (
            _image(1, "after how many images"),
            Argument(
                "text", "text", "error on request", "the reason; EIGER2 has none in status/error"
            ),
        ),
    ),
    Fault(
        "full",
        "series",
        "no room for files when `image` images are exposed, 0 at once: buffer_free is 0, arm fails "
        "or the images are lost, and the file writer and then the detector are in state error; "
        "initialize mends it",
        "that lost images are noticed, and room is made",
        (_image(0, "after how many images"),),
    ),
    Fault(
        "stall",
        "series",
        "no further image when `image` images are exposed, while the state stays acquire; they "
        "come once it is cleared, and disarm (EIGER1), cancel and abort end the series",
        "that a wait for the end has a limit and says how far it came",
        (_image(1, "after how many images"),),
    ),
    Fault(
        "temperature",
        "always",
        "the temperature reads `value`: above 37.5 C or below 15 C an EIGER1 says critical, and "
        "names it in status/error. An EIGER1 shows it after status_update; neither generation "
        "measures while exposing",
        "that a client watches what is critical",
        (Argument("value", "number", 60.0, "the reading", "C", lowest=-40, highest=120),),
    ),
    Fault(
        "humidity",
        "always",
        "the humidity reads `value`: above 35 % an EIGER1 says critical, as with the temperature",
        "the same",
        (Argument("value", "number", 80.0, "the reading", "%", highest=100),),
    ),
    Fault(
        "file-short",
        "series",
        "a file has `missing` images fewer than its number of images promises, as one that was "
        "closed early",
        "that images are counted",
        (_FILE, Argument("missing", "count", 1, "how many images are missing", lowest=1)),
    ),
    Fault(
        "file-truncated",
        "series",
        "the last `cut` bytes of a file are missing; what HTTP says of its length is true",
        "that a file is opened before it is deleted from the DCU",
        (_FILE, Argument("cut", "count", 1024, "how many bytes are missing", "byte", lowest=1)),
    ),
    Fault(
        "file-corrupt",
        "series",
        "one image's chunk is damaged where its compressed data begins, so that no reader can "
        "unpack it (of one without compression: other pixels); or with `offset`, `bytes` bytes "
        "from there are inverted: other pixels, an error, or at 12, the length of the first "
        "block, a reader that crashes",
        "that pixels are read, or at least the failure is told for that image alone",
        (
            _FILE,
            Argument("image", "count", 1, "which image of the file, from 1", lowest=1),
            Argument("offset", "count", None, "first byte in the chunk, in bytes"),
            Argument("bytes", "count", 4, "how many are inverted", lowest=1),
        ),
    ),
    Fault(
        "file-late",
        "series",
        "a file is listed and served `seconds` after it should be, while the file writer says "
        "that it is ready",
        "that a client waits for what was promised, and with a limit",
        (_FILE, _seconds("seconds", 5.0, "how much later")),
    ),
    Fault(
        "file-missing",
        "series",
        "a file never comes; the link to it stays in the master",
        "that what is missing is named",
        (_FILE,),
    ),
    Fault(
        "file-replaced",
        "series",
        "a file holds what is in the file `with` on the simulator's disk: one that once made "
        "trouble. Not over HTTP",
        "anything",
        (_FILE, Argument("with", "file", None, "a path")),
    ),
    Fault(
        "monitor-drop",
        "image",
        "an image does not get into the monitor's buffer, and counts as dropped",
        "that a live view goes on, and what is dropped is told",
    ),
)
FAULTS = {fault.name: fault for fault in TABLE}


def known(name: str) -> Fault:
    """Return the fault of a name.

    Raises
    ------
    FaultError
        Where there is none; the message lists those there are.
    """
    if name not in FAULTS:
        raise FaultError(f"there is no fault {name!r}; there are {', '.join(FAULTS)}")
    return FAULTS[name]


def parsed(specification: str) -> tuple[str, dict[str, object]]:
    """Return name and arguments of `NAME[:key=value,...]`.

    Raises
    ------
    FaultError
        Where it is written in another way.
    """
    name, colon, rest = specification.partition(":")
    given: dict[str, object] = {}
    for part in _NEXT_ARGUMENT.split(rest) if colon else ():
        key, equals, value = part.partition("=")
        if not equals:
            raise FaultError(f"{specification!r} is not NAME[:key=value,...]")
        if key in given:
            raise FaultError(f"{specification!r} says {key} twice")
        given[key] = value
    return name, given


def listing() -> list[dict[str, Any]]:
    """Return the table as `/sim/faults` has it."""
    return [
        {
            "name": fault.name,
            "what": fault.what,
            "tries": fault.tries,
            "arguments": {
                argument.name: {
                    "default": argument.default,
                    "unit": argument.unit,
                    "what": argument.what,
                }
                for argument in fault.arguments.values()
            },
        }
        for fault in TABLE
    ]


def checked(specification: str) -> None:
    """Let `NAME[:key=value,...]` be one that can be set.

    Raises
    ------
    FaultError
        Where it is not.
    """
    name, given = parsed(specification)
    known(name).completed(given)
