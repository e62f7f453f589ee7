"""`ophyd-eiger set`: puts settings, checked before, read back after, in a safe order."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ophyd_eiger.cli.arrays import load_array
from ophyd_eiger.cli.common import Call, Failed, dcu_command
from ophyd_eiger.cli.names import short
from ophyd_eiger.errors import StateError
from ophyd_eiger.metadata import NUMBERS
from ophyd_eiger.replies import shown
from ophyd_eiger.settings import TIMES, already, is_plain, rank

if TYPE_CHECKING:
    from ophyd_eiger.cli.asking import Answer, Dcu
    from ophyd_eiger.settings import Setting

_TRUTHS = {
    **dict.fromkeys(("true", "on", "yes", "1"), True),
    **dict.fromkeys(("false", "off", "no", "0"), False),
}
# An armed series keeps the configuration of these as it was.
FROZEN_BY_ARM = ("detector", "filewriter")
COLOURS = {"not as asked": "yellow", "changed by itself": "cyan", "put": "green"}


@dcu_command("set")
@click.argument("assignments", nargs=-1, required=True, metavar="NAME=VALUE...")
@click.option("--dry-run", is_flag=True, help="Check and show, put nothing.")
@click.option("--force", is_flag=True, help="Also while the detector is armed or takes images.")
def command(call: Call, assignments: tuple[str, ...], dry_run: bool, force: bool) -> None:
    """Put settings: "count_time=0.1", "filewriter.mode=enabled".

    All are checked by the DCU's own limits and choices before one is put. Several are put in
    the order that the hardware needs, what is so already is skipped, and the answer tells
    what the detector changed by itself. A flat field or mask comes from a file:
    "pixel_mask=@mask.npy". --timeout is how long a put may take, 60 s if not given.
    """
    pairs = [_pair(assignment) for assignment in assignments]
    dcu, state = call.reach("put")
    if state in ("na", "initialize"):
        raise StateError(
            f"the detector is in state {state!r} and has no settings yet; "
            + (
                f"first: ophyd-eiger initialize {dcu.url}"
                if state == "na"
                else "wait until it is idle"
            )
        )
    wanted = _wanted(dcu, pairs)
    if not (force or dry_run):
        _refuse_while_armed(dcu, state, wanted)
    checked = _checked(wanted)
    if dry_run:
        found, remark = _dry(checked, wanted), "nothing was put"
    else:
        found, remark = _put(call, checked)
    document = {
        "url": dcu.url,
        "dry_run": dry_run,
        "settings": [
            {
                "name": setting.name,
                "before": setting.before,
                "asked": setting.asked,
                "after": setting.after,
                "unit": setting.unit,
                "outcome": setting.outcome,
            }
            for setting in found
        ],
    }
    call.give(document, *([] if call.as_json else [_table(found)]))
    if remark:
        call.say(remark)


def _pair(assignment: str) -> tuple[str, str]:
    name, equals, text = assignment.partition("=")
    if not equals or not name.strip():
        raise click.UsageError(f"{assignment!r} is not NAME=VALUE")
    return name.strip(), text


def _wanted(dcu: "Dcu", pairs: list[tuple[str, str]]) -> "dict[str, tuple[Any, Answer]]":
    """Return the value to put and the DCU's answer, by resource."""
    wanted: dict[str, tuple[Any, Answer]] = {}
    for name, text in pairs:
        resource, answer = dcu.find(name, ("config",))
        if resource in wanted:
            raise click.UsageError(f"{short(resource)} is given twice")
        wanted[resource] = _value(short(resource), text, answer), answer
    return wanted


def _value(name: str, text: str, answer: "Answer") -> Any:
    """Return what was typed in the type that the DCU says of the setting."""
    kind = answer.metadata.value_type
    try:
        if not is_plain(answer.value):
            return _array(text)
        if kind.endswith("[]") or isinstance(answer.value, list):
            return json.loads(text)
        if kind == "bool":
            return _TRUTHS[text.strip().lower()]
        if kind in NUMBERS:
            return _number(text)
    except (KeyError, ValueError) as error:
        wanted = {
            "bool": "true or false",
            "float": "a number",
            "int": "a whole number",
            "uint": "a whole number",
        }.get(kind, "a list, as in [1, 0, 0]")
        raise Failed(f"{name}: {shown(text)} is not {wanted}; nothing was put") from error
    return text


def _number(text: str) -> float | int:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _array(text: str) -> Any:
    try:
        return load_array(Path(text.removeprefix("@")).expanduser())
    except Failed as error:
        raise Failed(
            f"{text!r} is no array: give @FILE.npy, as ophyd-eiger get --output writes it "
            f"({error.message})"
        ) from error


def _refuse_while_armed(dcu: "Dcu", state: str, wanted: "dict[str, tuple[Any, Answer]]") -> None:
    frozen = [name for name in wanted if name.partition("/")[0] in FROZEN_BY_ARM]
    if frozen and dcu.is_busy(state):
        raise StateError(
            f"the detector is in state {state!r}, and an armed series keeps its settings: "
            f"{', '.join(map(short, frozen))} not put. Wait, end the series by ophyd-eiger abort "
            f"{dcu.url}, or give --force to send it all the same"
        )
    if state == "error":
        raise StateError(
            "the detector is in state 'error', and initialize, which leads out of it, puts every "
            f"setting to its default; first: ophyd-eiger initialize {dcu.url}"
        )


def _checked(wanted: "dict[str, tuple[Any, Answer]]") -> "dict[str, Any]":
    """Return the values as the wire takes them, in the order in which they are put.

    Raises
    ------
    Failed
        If the DCU says that it would not take one.
    """
    checked = {}
    for resource in sorted(wanted, key=lambda name: rank(*name.split("/config/", 1))):
        value, answer = wanted[resource]
        metadata = answer.metadata
        if not metadata.writable:
            raise Failed(f"{short(resource)} can only be read, says the detector; nothing was put")
        # Of arrays the device knows the shape; a region of interest has limits of its own.
        is_open = "detector/config/roi_mode" in wanted and short(resource) in TIMES
        if is_plain(answer.value) and not is_open:
            try:
                value = metadata.checked(value, is_list=isinstance(answer.value, list))
            except ValueError as error:
                raise Failed(
                    f"{short(resource)}: {shown(value)} {error} {resource}; nothing was put"
                ) from error
        checked[resource] = value
    return checked


def _dry(checked: "dict[str, Any]", wanted: "dict[str, tuple[Any, Answer]]") -> "list[Setting]":
    from ophyd_eiger.settings import SKIPPED, Setting

    found = []
    for resource, value in checked.items():
        here, unit = wanted[resource][1].value, wanted[resource][1].metadata.unit
        if not is_plain(here) and value.shape != here.shape:
            raise Failed(
                f"{short(resource)}: an array of shape {value.shape}, the detector's is of "
                f"{here.shape}; nothing was put"
            )
        outcome = SKIPPED if already(resource.split("/", 2)[2], here, value) else "would be put"
        found.append(Setting(short(resource), unit, here, value, here, outcome))
    return found


def _put(call: Call, checked: "dict[str, Any]") -> "tuple[list[Setting], str]":
    from ophyd_eiger.device import EigerDevice

    device = EigerDevice(
        call.url, name="eiger", api_version=call.api_version, timeouts=call.timeouts("put")
    )
    try:
        values = {}
        for resource, value in checked.items():
            subsystem, path = resource.split("/", 1)
            values[getattr(device, subsystem)[path]] = value
        with call.working("putting"):
            device.connect()
            device.configuration.set(values).wait()
        report = device.last_configuration
    except KeyboardInterrupt:
        call.say("interrupted, and what was begun is put all the same; see by ophyd-eiger get")
        raise
    finally:
        device.destroy()
    if report is None:
        raise Failed("nothing was put")
    remark = ""
    if report.not_as_asked:
        remark = f"not as asked: {', '.join(report.not_as_asked)}; see the column after"
    return list(report.settings), remark


def _table(found: "list[Setting]") -> Any:
    from rich.table import Table
    from rich.text import Text

    from ophyd_eiger.cli.words import text_of

    table = Table(box=None, pad_edge=False, header_style="dim")
    for head in ("setting", "before", "asked", "after", "unit", "outcome"):
        table.add_column(head)
    for setting in found:
        values = [
            "-" if value is None else text_of(value)
            for value in (setting.before, setting.asked, setting.after)
        ]
        name = setting.name.removeprefix("detector.")
        outcome = Text(setting.outcome, COLOURS.get(setting.outcome, ""))
        table.add_row(name, *values, setting.unit, outcome)
    return table
