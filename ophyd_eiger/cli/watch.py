"""`ophyd-eiger watch`: what a detector is doing, again and again."""

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator
from time import sleep
from typing import TYPE_CHECKING, Any

import click

from ophyd_eiger.cli.common import Call, NoDcu, Number, dcu_command, no_dcu
from ophyd_eiger.cli.words import duration, size
from ophyd_eiger.errors import DcuError

if TYPE_CHECKING:
    from ophyd_eiger.cli.asking import Dcu
    from ophyd_eiger.cli.polling import Snapshot

# In s, if --timeout is not given: so long a watcher may stand still.
PATIENCE_S = 3.0
# Changes of state that the display keeps.
_KEPT_CHANGES = 6
COLOURS = {
    "idle": "green",
    "ready": "cyan",
    "acquire": "bold cyan",
    "configure": "yellow",
    "initialize": "yellow",
    "na": "yellow",
    "error": "bold red",
}


@dcu_command("watch")
@click.option(
    "--interval",
    type=Number(1),
    default=1.0,
    show_default=True,
    metavar="S",
    help="From one poll to the next, in s.",
)
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after N polls.")
def command(call: Call, interval: float, count: int | None) -> None:
    """Show state, images, files, room, temperature and humidity until Ctrl-C.

    On a terminal the display is refreshed in place; else each poll is a line, with --json a
    JSON object in a line. A DCU that goes away is waited for. The monitor's newest image
    stays the newest while it is disabled. Nothing is changed, nothing but GET is sent: an
    EIGER measures its temperature at status_update only, which EigerDetector and doctor send.
    """
    call = dataclasses.replace(call, timeout=call.timeout or PATIENCE_S)
    dcu = call.dcu()
    draws = call.out.is_terminal and not call.out.is_dumb_terminal and not call.as_json
    show = _display(call) if draws else _lines(call)
    seen = False
    with contextlib.suppress(KeyboardInterrupt), show as given:
        for snapshot in _polls(dcu, interval, count):
            seen = seen or snapshot.answers
            given(snapshot)
    if count is not None and not seen:
        raise NoDcu(f"{dcu.url} did not answer once")


def _polls(dcu: "Dcu", interval: float, count: int | None) -> "Iterator[Snapshot]":
    from ophyd_eiger.cli.polling import Snapshot, poll

    before, polled, due = None, 0, time.monotonic()
    while True:
        try:
            snapshot = poll(dcu)
        except DcuError as error:
            if before is None:
                raise no_dcu(error) from error
            # While a DCU starts, a proxy may answer for it.
            snapshot = Snapshot(time.time(), failure=str(error))
        snapshot = snapshot.since(before)
        before = snapshot
        yield snapshot
        polled += 1
        if polled == count:
            return
        due = max(due + interval, time.monotonic())
        sleep(max(0.0, due - time.monotonic()))


def _clock(snapshot: "Snapshot") -> str:
    return time.strftime("%H:%M:%S", time.localtime(snapshot.at))


# ---- lines ----


@contextlib.contextmanager
def _lines(call: Call) -> Iterator[Any]:
    yield lambda snapshot: click.echo(
        json.dumps(document(snapshot)) if call.as_json else line(snapshot)
    )


def document(snapshot: "Snapshot") -> dict[str, Any]:
    """Return a snapshot as JSON has it; each has the same keys."""
    values = dataclasses.asdict(snapshot)
    at = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(values.pop("at")))
    return {"time": at, "answers": snapshot.answers, **values, "alarms": list(snapshot.alarms)}


def line(snapshot: "Snapshot") -> str:
    """Return a snapshot in one line."""
    if not snapshot.answers:
        return f"{_clock(snapshot)}  no answer: {snapshot.failure}"
    parts = [_clock(snapshot), f"{snapshot.state:<10}"]
    parts += [f"{label} {value}" for label, value in rows(snapshot) if label != "state"]
    return "  ".join(parts)


def rows(snapshot: "Snapshot") -> list[tuple[str, str]]:
    """Return what a snapshot says, as labels and words; what the DCU did not say is left out."""
    found = [("state", str(snapshot.state))]
    if snapshot.image is not None:
        rate = "" if not snapshot.image_rate else f", {snapshot.image_rate:.3g} a second"
        newest = f"newest is series {snapshot.series} image {snapshot.image}"
        found.append(("monitor", f"{newest}{rate}"))
    elif snapshot.kept is not None:
        found.append(("monitor", "no image"))
    if snapshot.files is not None:
        writer = f", file writer {snapshot.filewriter}" if snapshot.filewriter else ""
        found.append(("files", f"{snapshot.files} on the DCU{writer}"))
    if snapshot.free is not None:
        rate = f", {size(snapshot.write_rate)} a second written" if snapshot.write_rate else ""
        found.append(("disk", f"{size(snapshot.free)} free{rate}"))
    if snapshot.temperature is not None:
        found.append(("temperature", f"{snapshot.temperature:.1f} °C{_alarm(snapshot, 'temp')}"))
    if snapshot.humidity is not None:
        found.append(("humidity", f"{snapshot.humidity:.1f} %{_alarm(snapshot, 'humidity')}"))
    return found


def _alarm(snapshot: "Snapshot", word: str) -> str:
    return " CRITICAL" if any(word in alarm for alarm in snapshot.alarms) else ""


# ---- a display on a terminal ----


@contextlib.contextmanager
def _display(call: Call) -> Iterator[Any]:
    from rich.live import Live

    display = Display(call.url)
    with Live(console=call.out, auto_refresh=False) as live:

        def given(snapshot: "Snapshot") -> None:
            display.add(snapshot)
            live.update(display.renderable(), refresh=True)

        yield given


class Display:
    """What a terminal shows: the newest snapshot, and the last changes of state.

    Parameters
    ----------
    url : str
        The DCU's address.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._last: Snapshot | None = None
        self._answered: Snapshot | None = None
        self._changes: list[tuple[float, str]] = []
        self._since = 0.0
        # Whether the last state was seen to begin; the first one began nobody knows when.
        self._began_here = False

    def add(self, snapshot: "Snapshot") -> None:
        """Take a new snapshot."""
        if self._last is None or _what(self._last) != _what(snapshot):
            self._began_here = self._last is not None
            self._changes = [*self._changes, (snapshot.at, _what(snapshot))][-_KEPT_CHANGES:]
            self._since = snapshot.at
        self._last = snapshot
        if snapshot.answers:
            self._answered = snapshot

    def renderable(self) -> Any:
        """Return what is shown now."""
        from rich.console import Group
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        if self._last is None:
            return Text("")
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", min_width=11)
        lasts = self._last.at - self._since
        for_so_long = "for" if self._began_here else "for at least"
        for label, words in self._rows():
            style = ""
            if label == "state":
                style = COLOURS.get(str(self._last.state), "bold red")
                words += f"  ({for_so_long} {duration(round(lasts))})" if lasts >= 1 else ""
            elif "CRITICAL" in words:
                style = "bold red"
            table.add_row(label, Text(words, style))
        parts: list[Any] = [table]
        if len(self._changes) > 1:
            parts.append(Text(f"\n{self._history()}", "dim"))
        title = Text(f" {self.url} at {_clock(self._last)} ", "bold")
        return Panel(Group(*parts), title=title, title_align="left", subtitle="Ctrl-C ends")

    def _rows(self) -> list[tuple[str, str]]:
        last = self._last
        if last is None or last.answers:
            return rows(last) if last is not None else []
        found = [("state", "no answer"), ("", last.failure or "")]
        if self._answered is not None:
            found.append(("last seen", f"{_clock(self._answered)} in state {self._answered.state}"))
        return found

    def _history(self) -> str:
        told = [
            f"{time.strftime('%H:%M:%S', time.localtime(at))} {what}" for at, what in self._changes
        ]
        return "  ".join(told)


def _what(snapshot: "Snapshot") -> str:
    return str(snapshot.state) if snapshot.answers else "no answer"
