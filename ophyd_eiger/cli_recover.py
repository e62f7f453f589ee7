"""The command `ophyd-eiger recover`."""

from typing import Any

import click

from ophyd_eiger.errors import EigerError

# In these states somebody may be taking data.
IN_USE = ("configure", "ready", "acquire")


@click.command()
@click.argument("url")
@click.option(
    "--up-to",
    metavar="RUNG",
    default="restart",
    show_default=True,
    help="The highest rung: cancel, abort, disarm, initialize or restart.",
)
@click.option("--yes", is_flag=True, help="Do not ask, though somebody may be taking data.")
def recover(url: str, up_to: str, yes: bool) -> None:
    """Bring the detector of the DCU at URL back, by the mildest means that helps.

    Files on the DCU stay; settings that are lost on the way are put back where they could be read
    before. Ends with status 1 if nothing helped.
    """
    from ophyd_eiger.detector import EigerDetector

    try:
        eiger = EigerDetector(url, name="eiger")
    except EigerError as error:
        raise click.BadParameter(str(error), param_hint="URL") from error
    try:
        if not yes and _state(eiger) in IN_USE:
            question = f"the state is {_state(eiger)!r}: is nobody taking data? End it"
            click.confirm(question, abort=True)
        _climb(eiger, up_to)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--up-to") from error
    except EigerError as error:
        raise click.ClickException(str(error)) from error
    finally:
        eiger.destroy()


def _state(eiger: Any) -> str:
    """Return the state; nothing where the DCU does not answer, which is the ladder's to see."""
    try:
        return str(eiger.detector.state.get())
    except EigerError:
        return ""


def _climb(eiger: Any, up_to: str) -> None:
    status = eiger.recover(up_to)
    shown: list[Any] = []

    def show(**_: Any) -> None:
        for rung in status.report.rungs[len(shown) :]:
            shown.append(rung)
            click.echo(f"  {rung}")

    status.watch(show)
    status.wait()
    click.echo(repr(status.report))
