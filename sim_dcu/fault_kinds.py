"""What a fault on request and an argument of one are, and which values an argument takes.

Knows no fault by name.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LARGEST_COUNT = 2**53
# What `command` may name: those of a detector of either generation.
COMMANDS = (
    *("abort", "arm", "cancel", "check_connections", "disarm", "hv_reset", "initialize"),
    *("status_update", "trigger", "wait"),
)


class FaultError(ValueError):
    """A fault that does not exist, or an argument that it does not take."""


@dataclass(frozen=True)
class Argument:
    """One argument of a fault.

    Attributes
    ----------
    name : str
        What is written before "=".
    kind : str
        `count` (a whole number), `number`, `text`, `choice` or `file` (the path of a file on the
        simulator's own disk, which no HTTP client may name).
    default : object
        Taken where it is not given; None where there is no such bound or choice.
    what : str
        What it means, in a few words.
    unit : str
        Empty where there is none.
    lowest, highest : float
        Of a number.
    choices : tuple of str
        The values of a choice.
    """

    name: str
    kind: str
    default: Any
    what: str
    unit: str = ""
    lowest: float = 0
    highest: float = math.inf
    choices: tuple[str, ...] = ()

    def accepted(self, value: object) -> Any:
        """Return `value`, which may be a text from a command line, as the fault uses it.

        Raises
        ------
        FaultError
            Where it is not of the kind, or out of bounds.
        """
        if self.kind == "choice":
            if value not in self.choices:
                raise self._refused(value, f"one of {', '.join(self.choices)}")
            return value
        if self.kind in ("text", "file"):
            if not isinstance(value, str | Path):
                raise self._refused(value, "a text")
            if self.kind == "file" and not Path(value).is_file():
                raise self._refused(value, "a file")
            try:
                str(value).encode()
            except UnicodeEncodeError as error:
                raise self._refused(ascii(value), "a text") from error
            return str(value)
        return self._number(value)

    def _number(self, value: object) -> float:
        kind = int if self.kind == "count" else float
        wanted = "a whole number" if kind is int else "a finite number"
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self._refused(value, wanted)
        try:
            number = kind(value)
        except (ValueError, OverflowError) as error:
            raise self._refused(value, wanted) from error
        if isinstance(number, int) and abs(number) > _LARGEST_COUNT:
            # An integer may have more digits than can be printed.
            raise self._refused("a huge number", f"at most {_LARGEST_COUNT}")
        if (not isinstance(value, str) and number != value) or not math.isfinite(number):
            raise self._refused(value, wanted)
        if not self.lowest <= number <= self.highest:
            raise self._refused(value, f"within [{self.lowest:g}, {self.highest:g}]")
        return number

    def _refused(self, value: object, wanted: str) -> FaultError:
        return FaultError(f"{self.name}={value!r} is not {wanted}")


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes
    ----------
    name : str
        What it is set by.
    strikes : str
        What it strikes, and so what `after` and `times` count: `request`, `series`, `image`, or
        `always` for what lasts from set to clear.
    what : str
        What it does.
    tries : str
        What of a client it is meant to try.
    own : tuple of Argument
        Its arguments beside those common to its kind.
    path : str
        For a request: the default of `path`.
    times : int or None
        The default of `times`.
    """

    name: str
    strikes: str
    what: str
    tries: str
    own: tuple[Argument, ...] = ()
    path: str = "*"
    times: int | None = None

    @property
    def arguments(self) -> dict[str, Argument]:
        """Every argument by its name."""
        common: tuple[Argument, ...] = ()
        if self.strikes != "always":
            common = (
                Argument("after", "count", 0, f"how many of the first it lets pass, {self.unit}"),
                Argument("times", "count", self.times, "how often it strikes", lowest=1),
            )
        if self.strikes == "request":
            common = (
                Argument("path", "text", self.path, "which requests: METHOD path, with * and ?"),
                Argument(
                    "command",
                    "choice",
                    None,
                    "short for path=PUT detector/*/command/...",
                    choices=COMMANDS,
                ),
                *common,
            )
        return {argument.name: argument for argument in (*self.own, *common)}

    @property
    def unit(self) -> str:
        """What `after` and `times` count."""
        return {"request": "requests", "series": "series", "image": "images"}.get(self.strikes, "")

    def completed(self, given: Mapping[str, object], *, from_here: bool = True) -> dict[str, Any]:
        """Return every argument's value: as given, or its default.

        Parameters
        ----------
        given : mapping
            Values by name, texts or numbers.
        from_here : bool
            Whether it is set on this machine, by Python or the command line: only there a file may
            be named.

        Raises
        ------
        FaultError
            Where there is no such argument or it does not take the value; the message lists what
            there is.
        """
        arguments = self.arguments
        if unknown := sorted(given.keys() - arguments.keys()):
            raise FaultError(
                f"fault {self.name} has no argument {', '.join(unknown)}; "
                f"it has {', '.join(arguments) or 'none'}"
            )
        values = {name: argument.default for name, argument in arguments.items()}
        for name, value in given.items():
            if arguments[name].kind == "file" and not from_here:
                raise FaultError(
                    f"fault {self.name}: {name} names a file, which only the command line may"
                )
            try:
                values[name] = arguments[name].accepted(value)
            except FaultError as error:
                raise FaultError(f"fault {self.name}: {error}") from error
        if values.get("path") == "" and "path" in given:
            raise FaultError(f"fault {self.name}: path is empty; * is any request")
        if values.get("command") is not None:
            if "path" in given:
                raise FaultError(f"fault {self.name}: command is short for a path; give one")
            values["path"] = f"PUT detector/*/command/{values['command']}"
        for name, argument in arguments.items():
            if argument.kind == "file" and values[name] is None:
                raise FaultError(f"fault {self.name}: {name} is missing")
        return values
