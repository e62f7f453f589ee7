"""Which faults are set, and whether one strikes now. `python -m sim_dcu.faults` prints the table.

The places where faults strike ask here, and ask for nothing but `active` while none is set. Knows
nothing of HTTP, files or detectors; may be used from any thread.
"""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from sim_dcu import fault_table
from sim_dcu.fault_kinds import Argument, Fault


@dataclass(eq=False)
class SetFault:
    """A fault that is set.

    Attributes
    ----------
    fault : Fault
        Its row of the table.
    arguments : mapping
        Every argument's value.
    seen, struck : int
        How many requests, series or images it could have struck, and how many it did.
    cleared : threading.Event
        Set when it is cleared.
    """

    fault: Fault
    arguments: Mapping[str, Any]
    seen: int = 0
    struck: int = 0
    cleared: threading.Event = field(default_factory=threading.Event)
    # The series it has counted last, whether that is one to strike, and whether it has; and the
    # one that it has ended.
    series: object = None
    chosen: bool = False
    strikes_now: bool = False
    series_ended: object = None

    @property
    def name(self) -> str:
        """The fault's name."""
        return self.fault.name

    @property
    def spent(self) -> bool:
        """Whether it has struck as often as it was asked to."""
        times = self.arguments.get("times")
        return times is not None and self.struck >= times

    def count(self) -> bool:
        """Count one more that it could strike; return whether it is one to strike."""
        if self.spent:
            return False
        self.seen += 1
        return self.seen > self.arguments["after"]

    def described(self) -> dict[str, Any]:
        """Return it as `/sim/faults` lists it."""
        return {
            "name": self.name,
            "arguments": {
                name: value for name, value in self.arguments.items() if value is not None
            },
            "seen": self.seen,
            "struck": self.struck,
            "spent": self.spent,
        }


class Faults:
    """The faults of one DCU.

    Attributes
    ----------
    active : bool
        Whether any is set. False is all that a place where faults strike needs to know.
    kill : callable
        Called, from any thread, with a `die` that strikes.
    """

    def __init__(self) -> None:
        self.active = False
        self.kill: Callable[[SetFault], None] = lambda _: None
        self._set: list[SetFault] = []
        self._lock = threading.Lock()
        self._watchers: list[Callable[[], None]] = []

    def set(
        self,
        specification: str,
        given: Mapping[str, object] | None = None,
        /,
        *,
        from_here: bool = True,
        **arguments: object,
    ) -> SetFault:
        """Set a fault.

        Parameters
        ----------
        specification : str
            `NAME[:key=value,...]`, or only the name.
        given : mapping or None
            Arguments by name.
        from_here : bool
            Whether it is set on this machine; only there an argument may name a file.
        **arguments
            The same as keywords.

        Returns
        -------
        SetFault
            As it is set; its counts tell what it does.

        Raises
        ------
        FaultError
            Where there is no such fault or argument, or an argument does not take the value.
        """
        name, written = fault_table.parsed(specification)
        fault = fault_table.known(name)
        values = fault.completed({**written, **(given or {}), **arguments}, from_here=from_here)
        new = SetFault(fault, values)
        with self._lock:
            same = [old for old in self._set if (old.fault, old.arguments) == (fault, values)]
            self._remove(same)
            self._set.append(new)
            self.active = True
        self._tell()
        if from_here:
            self.strike_at_once(new)
        return new

    def strike_at_once(self, fault: SetFault) -> None:
        """Let a `die` strike now that says neither request nor image; others wait for theirs.

        For whoever sets one over HTTP, once that is answered; `set` does it otherwise.
        """
        values = fault.arguments
        if fault.name == "die" and not values["path"] and values["image"] is None:
            with self._lock:
                fault.struck = 1
            self.kill(fault)

    def clear(self, name: str | None = None) -> None:
        """Clear every fault, or those of one name; harmless where none is set.

        Raises
        ------
        FaultError
            Where there is no fault of that name.
        """
        if name is not None:
            fault_table.known(name)
        with self._lock:
            self._remove([old for old in self._set if name in (None, old.name)])
            self.active = bool(self._set)
        self._tell()

    def _remove(self, faults: Sequence[SetFault]) -> None:
        for fault in faults:
            self._set.remove(fault)
            fault.cleared.set()

    def listing(self) -> list[dict[str, Any]]:
        """Return the faults that are set, in the order in which they were."""
        with self._lock:
            return [fault.described() for fault in self._set]

    def watch(self, tell: Callable[[], None]) -> None:
        """Have `tell` called, from any thread, after each change of what is set."""
        with self._lock:
            self._watchers.append(tell)

    @contextlib.contextmanager
    def watched(self, tell: Callable[[], None]) -> Iterator[None]:
        """Have `tell` called as `watch` does, for as long as the block lasts."""
        self.watch(tell)
        try:
            yield
        finally:
            with self._lock:
                self._watchers.remove(tell)

    def _tell(self) -> None:
        with self._lock:
            watchers = list(self._watchers)
        for tell in watchers:
            tell()

    # -- asked where faults strike ----------------------------------------------------------------

    def of_request(self, method: str, path: str) -> list[SetFault]:
        """Return the faults that strike a request, in the order in which they were set.

        Parameters
        ----------
        method, path : str
            Of the request; the path with or without its first slash.
        """
        request = f"{method} {path.lstrip('/')}"
        found = []
        with self._lock:
            for fault in self._set:
                pattern = fault.arguments.get("path")
                if pattern and fnmatchcase(request, pattern) and fault.count():
                    fault.struck += 1
                    found.append(fault)
        return found

    def any_of(self, *names: str) -> bool:
        """Return whether a fault of one of these names is set."""
        with self._lock:
            return any(fault.name in names for fault in self._set)

    def in_series(self, name: str, series: object, images: int) -> SetFault | None:
        """Return the fault of a name that strikes a series now, or None.

        Parameters
        ----------
        name : str
            Of a fault with an argument `image`.
        series : object
            The series, told from others by its identity.
        images : int
            How many of its images are exposed, or kept.
        """
        with self._lock:
            for fault in self._set:
                after = fault.arguments.get("image")
                if fault.name != name or after is None:
                    continue
                if fault.series is not series:
                    fault.chosen = fault.count()
                    fault.series = series
                    fault.strikes_now = False
                if fault.chosen and images >= after:
                    fault.struck += not fault.strikes_now
                    fault.strikes_now = True
                    return fault
        return None

    def of_files(self, series: object) -> list[SetFault]:
        """Return the faults that strike the files of a series; asked once a series."""
        with self._lock:
            found = [
                fault for fault in self._set if fault.name.startswith("file-") and fault.count()
            ]
            for fault in found:
                fault.series = series
                fault.struck += 1
            return found

    def of_image(self, name: str) -> bool:
        """Return whether a fault of this name strikes the image that comes now."""
        with self._lock:
            struck = [fault for fault in self._set if fault.name == name and fault.count()]
            for fault in struck:
                fault.struck += 1
            return bool(struck)

    def forget_series(self) -> None:
        """Let no fault strike a series that is over."""
        with self._lock:
            for fault in self._set:
                fault.strikes_now = False

    def room_is_gone(self) -> bool:
        """Return whether `full` strikes now."""
        with self._lock:
            return any(
                fault.strikes_now
                or (fault.arguments["image"] == fault.arguments["after"] == 0 and not fault.spent)
                for fault in self._set
                if fault.name == "full"
            )

    def reading(self, sensor: str) -> float | None:
        """Return what the fault of a sensor's name has it read, None where there is none."""
        with self._lock:
            values = [fault.arguments["value"] for fault in self._set if fault.name == sensor]
        return values[-1] if values else None


def _cell(argument: Argument) -> str:
    default = "" if argument.default in (None, "") else f"={argument.default}"
    unit = f" {argument.unit}" if argument.unit and default else ""
    choices = f" ({', '.join(argument.choices)})" if argument.choices else ""
    return f"`{argument.name}{default}`{unit}: {argument.what}{choices}"


def rows() -> Iterator[tuple[str, ...]]:
    """Yield name, counted unit, arguments, what it does and what it tries, of every fault."""
    for fault in fault_table.TABLE:
        own = "; ".join(_cell(argument) for argument in fault.own)
        if fault.path not in ("", "*"):
            own = "; ".join(filter(None, (own, f"`path={fault.path}`")))
        yield f"`{fault.name}`", fault.unit, own, fault.what, fault.tries


def document() -> str:
    """Return the page of all faults, Markdown."""
    lines = [
        "# Faults of the simulated DCU, on request",
        "",
        "Made by `python -m sim_dcu.faults`; a test holds it equal to the code.",
        "None is set unless asked for, and a simulator whose faults are cleared answers as one",
        "that never had any.",
        "",
        "- Command line: `sim-dcu --fault NAME[:key=value,...]`, as often as needed.",
        "- Python: `server.faults.set('refuse:command=arm,times=2')`, or",
        "  `server.faults.set('refuse', command='arm', times=2)`; `server.faults.clear()`.",
        "- HTTP: `GET /sim/faults`; `PUT /sim/faults/NAME` with the arguments as a JSON object;",
        "  `DELETE /sim/faults/NAME` and `DELETE /sim/faults`.",
        "",
        "A fault may be set several times with different arguments; the same once more starts its",
        "counts anew. Faults of one request act together, the one set first outermost.",
        "Requests to `/sim` and to the page `/` are never struck.",
        "",
        "- `after=N`, of those that count: the first N are let pass.",
        "- `times=N`: struck N times it is spent; if not given it strikes until it is cleared",
        "  (`die` once).",
        "- `path=PATTERN`, of requests: method and path without the first slash, such as",
        "  `PUT detector/*/command/trigger`; `*` stands for anything, slashes included.",
        "- `command=NAME`, of requests: short for `path=PUT detector/*/command/NAME`.",
        "- Seconds are real ones, whatever the time scale: they try the client's patience.",
        "- A fault of a series set while one is under way strikes that one, those of files (named",
        "  `file-...`) from the next arm on.",
        "",
        "| fault | counts | arguments and defaults | what it does | what it is meant to try |",
        "|---|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows()),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(document())
