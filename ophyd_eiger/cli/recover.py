"""`ophyd-eiger recover`: brings a detector back by the mildest means that helps."""

import dataclasses
import sys
from typing import Any

import click

from ophyd_eiger.cli.common import Call, Failed, dcu_command
from ophyd_eiger.cli.names import SETTINGS
from ophyd_eiger.cli.words import text_of
from ophyd_eiger.errors import RecoveryError, StateError
from ophyd_eiger.recovery_report import RUNGS


@dcu_command("recover")
@click.option(
    "--up-to",
    type=click.Choice(RUNGS),
    default=RUNGS[-1],
    show_default=True,
    help="The highest rung.",
)
@click.option("--yes", is_flag=True, help="Do not ask, though somebody may be taking data.")
def command(call: Call, up_to: str, yes: bool) -> None:
    """Bring a detector back that hangs, failed or is armed by nobody.

    It is cancelled, aborted, disarmed, initialized, and at last its DCU is restarted, until one of
    these helps. Files on the DCU stay; settings that are lost on the way are put back where they
    could be read before.
    """
    dcu, state = call.reach()
    if dcu.is_busy(state) and not yes:
        _ask(state)
    from ophyd_eiger.tended import TendedDevice

    eiger = TendedDevice(
        call.url, name="eiger", api_version=call.api_version, timeouts=call.timeouts("initialize")
    )
    eiger.recovery.again = f"ophyd-eiger recover {call.url}"
    # What it does is logged as it does it.
    status = eiger.recover(up_to)
    report = status.report
    try:
        status.wait()
    except (RecoveryError, KeyboardInterrupt) as error:
        owed = eiger.recovery.owed
        _tell_how_to_have_back(call, owed)
        if isinstance(error, KeyboardInterrupt):
            raise
        rungs = [dataclasses.asdict(rung) for rung in report.rungs]
        found = {"url": call.url, "recovered": False, "rungs": rungs, "settings_were": owed}
        raise Failed(str(error), type(error).__name__, found) from error
    finally:
        eiger.destroy()
    document = {
        "url": call.url,
        "recovered": report.recovered,
        "rungs": [dataclasses.asdict(rung) for rung in report.rungs],
        "put_back": [*(report.restored.put if report.restored else ()), *report.arrays],
        "lost": list(report.lost),
        "notes": list(report.notes),
    }
    call.give(document, repr(report))


def _tell_how_to_have_back(call: Call, owed: dict[str, Any]) -> None:
    """Name the settings that this process alone has known, before it ends."""
    kept = {key: owed[f"detector.{key}"] for key in SETTINGS if f"detector.{key}" in owed}
    if kept:
        again = " ".join(f"{key}={text_of(value)}" for key, value in kept.items())
        call.say(f"to have its settings back: ophyd-eiger set {call.url} {again}")


def _ask(state: str) -> None:
    """Ask whether what runs may be ended; where nobody can answer, it may not."""
    if not _is_somebody_there():
        raise StateError(f"the state is {state!r}: somebody may be taking data; --yes ends it")
    if not click.confirm(f"the state is {state!r}: is nobody taking data? End it", err=True):
        raise Failed("not recovered: nothing was sent")


def _is_somebody_there() -> bool:
    return sys.stdin.isatty()
