"""`ophyd-eiger fetch`: brings home what series owe, or files by their names."""

import fnmatch
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ophyd_eiger.cli.common import FAILED, Call, dcu_command
from ophyd_eiger.cli.words import plural
from ophyd_eiger.cli.words import size as size_of
from ophyd_eiger.errors import DcuError, EigerError, FileError, TransferError

if TYPE_CHECKING:
    from ophyd_eiger.client import DcuClient
    from ophyd_eiger.deliveries import Delivery, FetchedFile

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


@dcu_command("fetch")
@click.argument("files", nargs=-1)
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    help="Where to look for series that owe files, at any depth, and where FILES go; else here.",
)
@click.option("--all", "everything", is_flag=True, help="Fetch every file that the DCU lists.")
@click.option("--delete", is_flag=True, help="Delete on the DCU what is proven good here.")
@click.option(
    "--take-over",
    is_flag=True,
    help="Also series that another computer took; see that its process has ended.",
)
@click.option(
    "--patience",
    type=click.FloatRange(0, min_open=True),
    default=30.0,
    show_default=True,
    metavar="S",
    help="How long nothing may arrive, in s.",
)
def command(
    call: Call,
    files: tuple[str, ...],
    directory: Path,
    everything: bool,
    delete: bool,
    take_over: bool,
    patience: float,
) -> None:
    """Bring home what series owe whose process has ended; or FILES, by name or pattern.

    Each scan notes beside its data what is still on the DCU until all of it is home. Files go
    where the scan would have put them, are checked as the scan would have, and get their views. A
    detector that still waits for triggers of such a series is disarmed. Nothing is overwritten.
    """
    dcu, _ = call.reach()
    if files or everything:
        came, failed = _by_name(
            dcu.client, ("*",) if everything else files, directory.absolute(), delete, call
        )
        owed: dict[str, list[str]] = {}
        busy: list[str] = []
    else:
        came, owed, busy, failed = _owed(
            dcu.client, directory.absolute(), delete, take_over, patience, call
        )
    document = {
        "url": dcu.url,
        "fetched": [
            {"file": str(f.path), "bytes": f.bytes, "images": f.images, "seconds": f.seconds}
            for f in came
        ],
        "owed": owed,
        "busy": busy,
        "errors": failed,
    }
    call.give(document, _shown(came, owed, busy, failed))
    if failed or owed:
        raise click.exceptions.Exit(FAILED)


def _shown(
    came: "list[FetchedFile]", owed: dict[str, list[str]], busy: list[str], failed: list[str]
) -> str:
    lines = [f"{f.path}  {size_of(f.bytes)}" for f in came]
    size = sum(f.bytes for f in came)
    if came:
        lines.append(f"{plural(len(came), 'file')}, {size_of(size)}")
    elif not failed and not owed:
        lines.append("nothing is owed")
    lines += [f"left to the process that takes it: {each}" for each in busy]
    lines += failed
    return "\n".join(lines)


# ---- what series owe ----


def _owed(
    client: "DcuClient",
    directory: Path,
    delete: bool,
    take_over: bool,
    patience: float,
    call: Call,
) -> "tuple[list[FetchedFile], dict[str, list[str]], list[str], list[str]]":
    from ophyd_eiger.owed import take_on
    from ophyd_eiger.transfer import Transfer

    transfer = Transfer(client, "fetch", later="the same command")
    failed: list[str] = []
    try:
        with call.working("looking for series that owe files"):
            taken = take_on(transfer, [directory], patience, delete=delete, by_force=take_over)
        for reason in taken.passed_over:
            call.say(f"passed over: {reason}")
        with _telling(client, lambda: _progress_of(taken.deliveries), call):
            try:
                transfer.wait(patience, taken.deliveries)
            except TransferError as error:
                failed.append(str(error))
        came = [file for delivery in taken.deliveries for file in delivery.came()]
        owed = {each.basename: owes for each in transfer.owed if (owes := each.owes())}
    finally:
        transfer.close()
    return came, owed, [str(path) for path in taken.busy], failed


def _progress_of(deliveries: "list[Delivery]") -> Progress:
    here: dict[str, int] = {}
    names: dict[str, None] = {}
    for delivery in deliveries:
        home = tuple(delivery.home.items())
        here |= {**delivery.reached, **{name: file.bytes for name, file in home}}
        names |= dict.fromkeys([name for name, _ in home] + delivery.missing())
    return Progress(here, tuple(names), sum(len(delivery.home) for delivery in deliveries))


# ---- files by their names ----


def _by_name(
    client: "DcuClient", patterns: tuple[str, ...], directory: Path, delete: bool, call: Call
) -> "tuple[list[FetchedFile], list[str]]":
    from ophyd_eiger.bringing import keep_names
    from ophyd_eiger.fetching import Download, Handling

    listed = sorted(client.files())
    wanted = [name for name in listed if any(fnmatch.fnmatch(name, each) for each in patterns)]
    failed = [
        f"{pattern}: the DCU lists no such file"
        for pattern in patterns
        if not fnmatch.filter(listed, pattern) and pattern != "*"
    ]
    came: list[FetchedFile] = []
    here: dict[str, int] = {}

    with _telling(client, lambda: Progress(dict(here), tuple(wanted), len(came)), call):
        for name in wanted:
            handling = Handling(
                _check, lambda _: None, lambda so_far, name=name: here.update({name: so_far})
            )
            download = Download(client, name, directory / name)
            try:
                came.append(download.fetch(handling))
                # Of another kind of file nothing proves that its copy is whole.
                if delete and name.endswith(".h5"):
                    keep_names(directory)
                    client.delete_file(name)
            except (EigerError, OSError) as error:
                failed.append(f"{name}: {error}")
                download.discard()
    return came, failed


def _check(path: Path) -> int:
    """Return how many images a file has, under whatever hidden name; 0 for a master."""
    from ophyd_eiger.check import check_data_file, check_master_file

    name = path.name.removesuffix(".part")
    if not name.endswith(".h5"):
        return 0
    if not name.endswith("_master.h5"):
        return check_data_file(path, images=None)
    check_master_file(path, images=None)
    try:
        return check_data_file(path, images=None)
    except FileError:
        return 0  # The images are in data files.


# ---- progress ----


@contextmanager
def _telling(client: "DcuClient", progress: Callable[[], Progress], call: Call) -> Iterator[None]:
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
        for name in now.names:
            if name not in sizes:
                sizes[name] = _size(client, name)
        known = [size for name in now.names if (size := sizes[name]) is not None]
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
            teller.join()


def _size(client: "DcuClient", name: str) -> int | None:
    try:
        return client.file_size(name)
    except DcuError:
        return None  # Then nobody knows how long it takes.
