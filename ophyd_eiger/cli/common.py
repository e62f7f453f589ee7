"""What the commands that ask a DCU share: their options, their output, their exit statuses.

What a command was asked for goes to stdout, as a table for people or as one JSON document; all
else that people are told goes to stderr.
"""

import contextlib
import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from ophyd_eiger.cli.words import plain
from ophyd_eiger.errors import (
    AddressError,
    DcuError,
    DcuUnreachableError,
    EigerError,
    NotServedError,
)

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from ophyd_eiger.cli.asking import Dcu
    from ophyd_eiger.client import Timeouts

FAILED, USAGE, NO_DCU, FAULTY, INTERRUPTED = 1, 2, 3, 4, 130
EXIT_STATUSES = """\b
Exit status:
    0  done
    1  the command failed; stderr says why
    2  wrong usage
    3  there is no DCU at the address, or it does not answer
    4  doctor found a fault, or acceptance a failure
  130  interrupted
"""
# Nobody reads at a pipe's other end how wide a terminal is: a line stays a line.
PIPED_WIDTH = 400
# At most, in s: a DCU that is there accepts a connection and answers a GET soon.
CONNECT_S, GET_S = 5.0, 10.0


class Failed(click.ClickException):
    """The command failed; shown as one message, without a traceback.

    Parameters
    ----------
    message : str
        For people.
    kind : str
        The name of the error's class, for programs.
    found : dict, optional
        What was found all the same, for programs: beside the error in the JSON document.
    """

    exit_code = FAILED

    def __init__(
        self, message: str, kind: str = "Failed", found: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.found = found or {}


class NoDcu(Failed):
    """There is no DCU at the address, or it does not answer."""

    exit_code = NO_DCU


class Interrupted(Failed):
    """Ctrl-C."""

    exit_code = INTERRUPTED


class Address(click.ParamType):
    """The address of a DCU, as `ophyd_eiger.addresses.base_url` takes it."""

    name = "url"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """Return the URL; wrong usage where it is none."""
        from ophyd_eiger.addresses import base_url

        try:
            return base_url(value)
        except AddressError as error:
            self.fail(str(error), param, ctx)


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a command: what it was asked with, and how it answers.

    Attributes
    ----------
    url : str
        The DCU's address.
    timeout : float or None
        How long a reply may take, in s; None for what the package has for each kind.
    api_version : str or None
        The version in the URLs; None asks the DCU.
    as_json : bool
        Whether one JSON document is wanted on stdout.
    """

    url: str
    timeout: float | None = None
    api_version: str | None = None
    as_json: bool = False

    def timeouts(self, kind: str = "get") -> "Timeouts":
        """Return the timeouts for a command that waits for replies of this kind.

        Parameters
        ----------
        kind : str
            A field of `Timeouts`: that is what `--timeout` is.
        """
        from ophyd_eiger.client import Timeouts

        if self.timeout is None:
            return Timeouts(connect=CONNECT_S, get=GET_S)
        common = {"connect": min(CONNECT_S, self.timeout), "get": min(GET_S, self.timeout)}
        return Timeouts(**{**common, kind: self.timeout})

    def dcu(self, kind: str = "get") -> "Dcu":
        """Return the DCU, whether it answers or not; its connections end with the command."""
        from ophyd_eiger.cli.asking import Dcu
        from ophyd_eiger.client import DcuClient

        client = DcuClient(self.url, api_version=self.api_version, timeouts=self.timeouts(kind))
        click.get_current_context().call_on_close(client.close)
        return Dcu(client)

    def reach(self, kind: str = "get") -> "tuple[Dcu, str]":
        """Return the DCU and the detector's state.

        Raises
        ------
        Failed
            With the exit status that says so, if nothing there answers as a DCU.
        """
        dcu = self.dcu(kind)
        try:
            return dcu, dcu.state()
        except DcuError as error:
            raise no_dcu(error) from error

    # ---- output ----

    @contextlib.contextmanager
    def working(self, what: str) -> Iterator[None]:
        """Tell people at a terminal what is being waited for, and for how long by now."""
        if not self.err.is_terminal:
            yield
            return
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = SpinnerColumn("line"), TextColumn("{task.description}"), TimeElapsedColumn()
        with Progress(*columns, console=self.err, transient=True) as progress:
            progress.add_task(what)
            yield

    @functools.cached_property
    def out(self) -> "Console":
        """Where the answer goes."""
        return _console(stderr=False)

    @functools.cached_property
    def err(self) -> "Console":
        """Where all else goes that people are told."""
        return _console(stderr=True)

    def say(self, message: str) -> None:
        """Tell people something that is not the answer; on a terminal wrapped between words."""
        if sys.stderr.isatty():
            self.err.print(message)
        else:
            click.echo(message, err=True)

    def give(self, document: dict[str, Any], *shown: "RenderableType") -> None:
        """Give the answer: the document as JSON, or what is shown of it.

        Parameters
        ----------
        document : dict
            For programs; its keys are the same in each call.
        *shown : rich renderable
            For people.
        """
        if self.as_json:
            click.echo(json.dumps(plain(document), indent=2, ensure_ascii=False))
            return
        for part in shown:
            self.show(part)

    def show(self, part: "RenderableType") -> None:
        """Print to stdout for people, without blanks at the ends of lines."""
        with self.out.capture() as captured:
            self.out.print(part)
        click.echo("\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n")))


def _console(*, stderr: bool) -> "Console":
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPED_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


def no_dcu(error: DcuError) -> NoDcu:
    """Return what to tell of an address where no DCU answers as one."""
    message = str(error).replace("give api_version=", "give --api-version")
    if isinstance(error, NotServedError):
        message = f"{error.request}: {error.status}, not found; is it a DCU with that API version?"
    return NoDcu(message, type(error).__name__)


@contextlib.contextmanager
def _as_exit_status(as_json: bool) -> Iterator[None]:
    """Turn what went wrong into one message and an exit status."""
    try:
        yield
    except click.UsageError as error:
        # click itself tells people, with the usage.
        if as_json:
            click.echo(_document("UsageError", error.format_message(), USAGE, {}))
        raise
    except (KeyboardInterrupt, click.Abort):
        failed = Interrupted("interrupted", "KeyboardInterrupt")
    except Failed as error:
        failed = error
    except EigerError as error:
        kind = NoDcu if isinstance(error, DcuUnreachableError) else Failed
        message = "\n".join([str(error), *getattr(error, "__notes__", ())])
        failed = kind(message, type(error).__name__)
    except OSError as error:
        if error.filename is None:
            raise
        failed = Failed(f"{error.filename}: {error.strerror}", type(error).__name__)
    else:
        return
    if as_json:
        click.echo(_document(failed.kind, failed.message, failed.exit_code, failed.found))
    raise failed


def _document(kind: str, message: str, exit_status: int, found: dict[str, Any]) -> str:
    """Return what programs are told of an error, in one line: `watch` gives one for each poll."""
    error = {"kind": kind, "message": message, "exit_status": exit_status}
    return json.dumps(plain({**found, "error": error}), ensure_ascii=False)


class Number(click.FloatRange):
    """A number in a range that is one: no nan, and none that no clock can count."""

    LARGEST = 1e9

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number."""
        number = super().convert(value, param, ctx)
        if not abs(number) <= self.LARGEST:
            self.fail(f"{value!r} is no number up to {self.LARGEST:g}", param, ctx)
        return number


_JSON = click.option("--json", "as_json", is_flag=True, help="Answer with JSON on stdout.")
_OF_A_DCU = (
    click.argument("url", type=Address()),
    click.option(
        "--timeout",
        type=Number(0, min_open=True),
        metavar="S",
        help="How long the DCU may take for what this command waits for, in s.",
    ),
    click.option(
        "--api-version", metavar="V", help="The version in the URLs; else the DCU is asked."
    ),
    _JSON,
)


def dcu_command(name: str, **attributes: Any) -> Callable[[Callable[..., None]], click.Command]:
    """Make a command of a function that gets a `Call` and its own arguments and options.

    Parameters
    ----------
    name : str
        What is typed.
    **attributes
        As of `click.command`.
    """
    return _command(name, _OF_A_DCU, attributes)


def file_command(name: str, **attributes: Any) -> Callable[[Callable[..., None]], click.Command]:
    """Make a command that asks no DCU; parameters as of `dcu_command`."""
    return _command(name, (_JSON,), attributes)


def _command(
    name: str, options: tuple[Callable, ...], attributes: dict[str, Any]
) -> Callable[[Callable[..., None]], click.Command]:
    def decorate(function: Callable[..., None]) -> click.Command:
        @functools.wraps(function)
        def run(
            as_json: bool,
            url: str = "",
            timeout: float | None = None,
            api_version: str | None = None,
            **own: Any,
        ) -> None:
            with _as_exit_status(as_json):
                function(Call(url, timeout, api_version, as_json), **own)

        decorated: Any = run
        for option in reversed(options):
            decorated = option(decorated)
        return click.command(name, epilog=EXIT_STATUSES, **attributes)(decorated)

    return decorate
