"""`ophyd-eiger get`: any resource of the DCU, with its unit, limits and choices."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ophyd_eiger.cli import names
from ophyd_eiger.cli.common import Call, Failed, dcu_command
from ophyd_eiger.cli.words import number, text_of, with_unit
from ophyd_eiger.errors import EigerError, RefusedError, ReplyError, StateError, UnknownSettingError
from ophyd_eiger.writing import new_file

if TYPE_CHECKING:
    from ophyd_eiger.cli.asking import Answer, Dcu


@dcu_command("get")
@click.argument("wanted", nargs=-1, required=True, metavar="NAME...")
@click.option("--all", "everything", is_flag=True, help="Show limits, choices and access, too.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.npy",
    help="Write a flat field or mask to a new file for numpy.load, shape (y, x).",
)
def command(call: Call, wanted: tuple[str, ...], everything: bool, output: Path | None) -> None:
    """Show resources by name, from the DCU's answer.

    NAME is a key of the detector ("count_time"), one of another subsystem
    ("filewriter.mode"), or the whole name ("detector/status/state"). Where one of several
    is none, the others are shown all the same.
    """
    if output is not None and len(wanted) != 1:
        raise click.UsageError("--output takes one NAME")
    dcu, _ = call.reach()
    found, errors = _sought(dcu, wanted)
    if output is not None and found:
        _write(found[0][1].value, output)
        call.say(f"{found[0][0]}: written to {output}")
    document = {resource: _document(answer) for resource, answer in found}
    if not call.as_json:
        # One value alone is what scripts want.
        _show(found, alone=len(wanted) == 1 and not everything, everything=everything)
    elif not errors:
        call.give(document)
    if errors:
        raise Failed("\n".join(map(str, errors)), type(errors[0]).__name__, document)


def _sought(
    dcu: "Dcu", wanted: tuple[str, ...]
) -> "tuple[list[tuple[str, Answer]], list[EigerError]]":
    """Return what the names mean, and what is wrong with those that mean nothing.

    Raises
    ------
    DcuError
        If the DCU cannot be asked, for whatever name.
    """
    found, errors = [], []
    for name in wanted:
        try:
            found.append(dcu.find(name))
        except (UnknownSettingError, StateError, RefusedError, ReplyError) as error:
            errors.append(error)
    return found, errors


def _show(found: "list[tuple[str, Answer]]", *, alone: bool, everything: bool) -> None:
    for resource, answer in found:
        shown = with_unit(answer.value, answer.metadata.unit, resource)
        click.echo(shown if alone else f"{_label(resource, found)}  {shown}")
        if everything:
            for word, told in _facts(answer):
                click.echo(f"    {word:<8}  {told}")


def _label(resource: str, found: "list[tuple[str, Answer]]") -> str:
    width = max(len(names.short(other)) for other, _ in found)
    return names.short(resource).ljust(width)


def _document(answer: "Answer") -> dict[str, Any]:
    metadata = answer.metadata
    return {
        "value": answer.value,
        "unit": metadata.unit,
        "value_type": metadata.value_type,
        "min": metadata.minimum,
        "max": metadata.maximum,
        "allowed_values": list(metadata.allowed),
        "writable": metadata.writable,
        "state": metadata.state,
        "critical_limits": list(metadata.critical_limits),
        "critical_values": list(metadata.critical_values),
        "time": answer.taken,
    }


def _facts(answer: "Answer") -> list[tuple[str, str]]:
    metadata = answer.metadata
    facts = [("type", metadata.value_type or "not stated")]
    if (metadata.minimum, metadata.maximum) != (None, None) and metadata.value_type != "bool":
        facts.append(("limits", _range(metadata.minimum, metadata.maximum, metadata.unit)))
    if metadata.allowed:
        choices = ", ".join(text_of(choice) for choice in metadata.allowed)
        facts.append(("choices", choices))
    facts.append(("access", "read and write" if metadata.writable else "read only"))
    if metadata.state:
        facts.append(("state", metadata.state))
    if metadata.critical_limits != (None, None):
        facts.append(("good", _range(*metadata.critical_limits, metadata.unit)))
    if metadata.critical_values:
        facts.append(("critical", ", ".join(map(text_of, metadata.critical_values))))
    if answer.taken:
        facts.append(("taken", f"{answer.taken}, by the DCU's clock"))
    return facts


def _range(low: float | None, high: float | None, unit: str) -> str:
    ends = (
        "-" if low is None else number(low),
        "-" if high is None else number(high),
    )
    return f"{ends[0]} to {ends[1]} {unit}".rstrip()


def _write(value: Any, path: Path) -> None:
    import numpy as np

    if not isinstance(value, (np.ndarray, list)):
        raise Failed(f"--output is for flat fields, masks and lists, not for {text_of(value)}")
    try:
        with new_file(path) as file:
            np.save(file, np.asarray(value))
    except FileExistsError:
        raise Failed(f"{path} exists and is not overwritten; give another name") from None
    except OSError as error:
        raise Failed(f"{path}: cannot be written: {error.strerror}") from error
