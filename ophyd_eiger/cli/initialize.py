"""`ophyd-eiger initialize`: sets a detector up, and says what that cost."""

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from ophyd_eiger.cli.common import Call, Failed, dcu_command
from ophyd_eiger.cli.names import SETTINGS, short
from ophyd_eiger.cli.words import duration, text_of, with_unit
from ophyd_eiger.errors import (
    DcuTimeoutError,
    LostReplyError,
    StateError,
)
from ophyd_eiger.settings import already

if TYPE_CHECKING:
    from ophyd_eiger.cli.asking import Answer, Dcu

LOSES = (
    "initialize puts every setting of the detector to its default: energy, threshold, times, "
    "numbers of images, geometry, and a pixel mask or flat field that was put. Files stay."
)


@dcu_command("initialize")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Also while it is armed or takes images.")
def command(call: Call, yes: bool, force: bool) -> None:
    """Initialize the detector; its settings become defaults.

    Takes up to two minutes. On a terminal it asks first, unless there is nothing to lose.
    --timeout is how long the detector may take, 240 s if not given.
    """
    dcu, before = call.reach("initialize")
    _refuse(dcu, before, force)
    was = _settings(dcu)
    if was:
        call.say(LOSES)
        if sys.stdin.isatty() and not yes and not click.confirm("Initialize?", err=True):
            raise Failed("not initialized: nothing was sent")
    if not call.err.is_terminal:
        call.say("initializing ...")
    began = time.monotonic()
    try:
        with call.working(f"initializing {dcu.url}"):
            state = _initialize(dcu, before)
    except KeyboardInterrupt:
        call.say(f"the detector goes on with it; see by ophyd-eiger watch {dcu.url}")
        raise
    seconds = time.monotonic() - began
    if not dcu.is_idle(state):
        raise Failed(
            f"the detector was initialized, and is in state {state!r}: ophyd-eiger doctor {dcu.url}"
        )
    changed = _changes(was, _settings(dcu))
    document = {
        "url": dcu.url,
        "state_before": before,
        "state": state,
        "seconds": round(seconds, 3),
        "changed": [
            {"name": name, "before": old.value, "after": new.value, "unit": new.metadata.unit}
            for name, old, new in changed
        ],
    }
    call.give(document, *([] if call.as_json else [_shown(state, seconds, changed)]))
    again = " ".join(
        f"{short(name)}={text_of(old.value)}" for name, old, _ in changed if old.metadata.writable
    )
    if again:
        call.say(f"to have them back: ophyd-eiger set {dcu.url} {again}")


def _refuse(dcu: "Dcu", state: str, force: bool) -> None:
    if force:
        return
    if state == "initialize":
        raise StateError("the detector is being initialized already; wait until it is idle")
    if dcu.is_busy(state):
        raise StateError(
            f"the detector is in state {state!r}: somebody uses it, and would lose the series and "
            f"every setting; end it by ophyd-eiger abort {dcu.url}, or give --force"
        )


def _initialize(dcu: "Dcu", before: str) -> str:
    """Send the command once and return the state after it; without a reply the state tells."""
    seconds = dcu.client.timeouts.initialize
    try:
        dcu.client.command("detector", "initialize", timeout=seconds)
    except (LostReplyError, DcuTimeoutError):
        seen = dcu.state()
        after = dcu.wait_while(lambda state: state == "initialize", seconds)
        # An idle detector that is idle may never have heard of it.
        if not dcu.is_idle(after) or (seen != "initialize" and dcu.is_idle(before)):
            raise
        return after
    return dcu.wait_while(lambda state: state == "initialize", seconds)


def _settings(dcu: "Dcu") -> "dict[str, Answer]":
    # Some are another generation's, and before it is initialized a detector has none.
    asked = {f"detector/config/{key}": dcu.answer(f"detector/config/{key}") for key in SETTINGS}
    return {name: answer for name, answer in asked.items() if answer is not None}


def _changes(
    was: "dict[str, Answer]", now: "dict[str, Answer]"
) -> "list[tuple[str, Answer, Answer]]":
    return [
        (name, old, now[name])
        for name, old in was.items()
        if name in now and not already(name.split("/", 2)[2], now[name].value, old.value)
    ]


def _shown(state: str, seconds: float, changed: "list[tuple[str, Answer, Answer]]") -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    done = Text(f"initialized in {duration(seconds)}; the state is {state}", "green")
    if not changed:
        return done
    table = Table.grid(padding=(0, 2))
    for name, old, new in changed:
        unit = new.metadata.unit
        table.add_row(
            f"  {short(name)}", text_of(old.value), "->", with_unit(new.value, unit, name)
        )
    return Group(done, table)
