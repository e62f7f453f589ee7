"""How far files are on their way, on a terminal: bytes, rate, files, time left."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ophyd_eiger.errors import DcuError

if TYPE_CHECKING:
    from ophyd_eiger.cli.common import Call
    from ophyd_eiger.client import DcuClient

PERIOD_S = 0.1


@dataclass(frozen=True)
class Progress:
    """How far it is.

    Attributes
    ----------
    here : dict of str to int
        Bytes that are here, by name.
    names : tuple of str
        The files that are to be here in the end.
    home : int
        How many of them are home.
    """

    here: dict[str, int]
    names: tuple[str, ...]
    home: int


@contextmanager
def telling(client: "DcuClient", progress: Callable[[], Progress], call: "Call") -> Iterator[None]:
    """Show bytes, rate, files and time left at a terminal until the end of the block."""
    if not call.err.is_terminal:
        yield
        return
    from rich import progress as bars

    bar = bars.Progress(
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
        bars.TimeElapsedColumn(),
        bars.TimeRemainingColumn(),
        console=call.err,
        transient=True,
    )
    over = threading.Event()
    sizes: dict[str, int | None] = {}

    def update(task: bars.TaskID) -> None:
        now = progress()
        until = time.monotonic() + PERIOD_S
        for name in now.names:
            if time.monotonic() > until or over.is_set():
                break
            if name not in sizes:
                sizes[name] = _size(client, name)
        known = [size for name in now.names if (size := sizes.get(name)) is not None]
        of = len(now.names)
        bar.update(
            task,
            description=f"file {min(now.home + 1, of)} of {of}",
            completed=sum(now.here.values()),
            total=sum(known) if known and len(known) == of else None,
        )

    with bar:
        task = bar.add_task("", total=None)

        def keep_telling() -> None:
            while not over.wait(PERIOD_S):
                update(task)

        teller = threading.Thread(target=keep_telling, daemon=True)
        teller.start()
        try:
            yield
        finally:
            over.set()
            # A DCU that does not answer how large a file is keeps nobody here.
            teller.join(PERIOD_S)


def _size(client: "DcuClient", name: str) -> int | None:
    try:
        return client.file_size(name)
    except DcuError:
        return None  # Then nobody knows how long it takes.
