"""`ophyd-eiger fetch`: brings home what series owe, or files by their names."""

import contextlib
import fnmatch
import functools
import glob
import os
import shlex
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ophyd_eiger.cli.arriving import Progress, telling
from ophyd_eiger.cli.common import FAILED, Call, Failed, Number, dcu_command
from ophyd_eiger.cli.words import plural
from ophyd_eiger.cli.words import size as size_of
from ophyd_eiger.errors import (
    DcuError,
    DcuTimeoutError,
    DcuUnreachableError,
    EigerError,
    LostReplyError,
    NotServedError,
    TransferError,
)
from ophyd_eiger.silence import Silence

if TYPE_CHECKING:
    from ophyd_eiger.client import DcuClient
    from ophyd_eiger.deliveries import Delivery, FetchedFile
    from ophyd_eiger.fetching import Download
    from ophyd_eiger.owed import Taken

# Of other DCUs, and of folders that are not there, so many are named in a line.
_NAMED = 3
# In s: between two attempts at a file whose connection broke.
_RETRY_S = 0.2
# What a DCU that is gone makes of a request.
_NO_ANSWER = (DcuUnreachableError, LostReplyError, DcuTimeoutError)


@dcu_command("fetch")
@click.argument("files", nargs=-1)
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where FILES go; it is made if need be. Without FILES: look only here for series that owe "
    "files, at any depth. Without it this user's series are found wherever they are, and those "
    "below the current folder.",
)
@click.option("--all", "everything", is_flag=True, help="Fetch every file that the DCU lists.")
@click.option("--delete", is_flag=True, help="Delete on the DCU what is proven good here.")
@click.option(
    "--take-over",
    is_flag=True,
    help="Also series that another computer took; see that its process has ended.",
)
@click.option(
    "--give-up",
    is_flag=True,
    help="Owe no more what the DCU has not any more, so that it is not waited for again.",
)
@click.option(
    "--gone",
    is_flag=True,
    help="The DCU of URL is no more: owe nothing that it had. Only journals are removed.",
)
@click.option("--verbose", is_flag=True, help="Name the series of other DCUs, too.")
@click.option(
    "--patience",
    type=Number(0, min_open=True),
    default=30.0,
    show_default=True,
    metavar="S",
    help="How long nothing may arrive, in s.",
)
def command(
    call: Call,
    files: tuple[str, ...],
    directory: Path | None,
    everything: bool,
    delete: bool,
    take_over: bool,
    give_up: bool,
    gone: bool,
    verbose: bool,
    patience: float,
) -> None:
    """Bring home what series owe whose process has ended; or FILES, by name or pattern.

    Each scan notes beside its data what is still on the DCU until all of it is home. Files go
    where the scan would have put them, are checked as the scan would have, and get their views. A
    detector that still waits for triggers of such a series is disarmed. Nothing is overwritten.
    """
    folder = (directory or Path()).absolute()
    if not (files or everything or folder.is_dir()):
        raise click.BadParameter(
            f"{folder} is not there, and so no series in it", param_hint="--directory"
        )
    search = _Search(folder, directory is None, delete, take_over, give_up, patience)
    result = _Result()
    if gone:
        if files or everything:
            raise click.UsageError("--gone is for what series owe; leave FILES and --all out")
        result = _given_up(search, call)
    elif files or everything:
        patterns = ("*",) if everything else files
        client = call.reach()[0].client
        result.came, result.failed = _by_name(client, patterns, search, call)
    else:
        result = _owed(call.reach()[0].client, search, call)
    if result.elsewhere and not call.as_json:
        _tell_of_others(result.elsewhere, verbose, call)
    if result.out_of_reach and not call.as_json:
        _tell_of_folders(result.out_of_reach, verbose, call)
    document = {
        "url": call.url,
        "fetched": [
            {"file": str(f.path), "bytes": f.bytes, "images": f.images, "seconds": f.seconds}
            for f in result.came
        ],
        "owed": result.owed,
        "empty": result.empty,
        "given_up": result.given_up,
        "busy": result.busy,
        "elsewhere": result.elsewhere,
        "out_of_reach": result.out_of_reach,
        "errors": result.failed,
    }
    call.give(document, _shown(result))
    if result.failed or result.owed:
        raise click.exceptions.Exit(FAILED)


@dataclass(frozen=True)
class _Search:
    """Where series that owe files are looked for, and what is done with them."""

    directory: Path
    linked: bool
    delete: bool
    take_over: bool
    give_up: bool
    patience: float

    def looked_in(self) -> list[str]:
        """Return where, in words."""
        from ophyd_eiger.journal import links

        places = [f"{self.directory} and below"]
        if self.linked:
            with contextlib.suppress(RuntimeError):  # a user without a home
                places.insert(0, str(links()))
        return places


@dataclass
class _Result:
    """What came of it; see the command's JSON."""

    came: "list[FetchedFile]" = field(default_factory=list)
    owed: dict[str, list[str]] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    given_up: dict[str, list[str]] = field(default_factory=dict)
    busy: list[str] = field(default_factory=list)
    elsewhere: dict[str, list[str]] = field(default_factory=dict)
    out_of_reach: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    looked_in: list[str] = field(default_factory=list)

    def note(self, taken: "Taken") -> None:
        """Note what was not taken on of the journals that were found."""
        self.failed += [*taken.unreadable, *taken.not_over]
        self.busy = [str(path) for path in taken.busy]
        self.elsewhere = {dcu: list(map(str, paths)) for dcu, paths in taken.elsewhere.items()}
        self.out_of_reach = [str(path) for path in taken.out_of_reach]


def _tell_of_others(elsewhere: dict[str, list[str]], verbose: bool, call: Call) -> None:
    count = sum(map(len, elsewhere.values()))
    dcus = [f"{dcu} ({len(paths)})" for dcu, paths in elsewhere.items()]
    call.say(
        f"passed over: {count} series of other DCUs, {_some(dcus)}; --verbose lists them; of a DCU "
        f"that is no more: ophyd-eiger fetch {next(iter(elsewhere))} --gone"
    )
    if verbose:
        for dcu, paths in elsewhere.items():
            for path in paths:
                call.say(f"  {dcu}: {path}")


def _tell_of_folders(paths: list[str], verbose: bool, call: Call) -> None:
    from ophyd_eiger.journal import basename_of, links

    folders = sorted({str(Path(path).parent) for path in paths})
    first = Path(paths[0])
    call.say(
        f"passed over: {len(paths)} series whose notes of what they owe are not there, in "
        f"{_some(folders)}; mount the folder's disk, and fetch again; if it was removed, --verbose "
        "says how to forget it"
    )
    if verbose:
        for path in paths:
            call.say(f"  {path}")
        call.say(
            f"  what the DCU has of a series whose folder was removed comes by name, as "
            f"'{glob.escape(basename_of(first))}_*', and it is forgotten with its link: rm "
            f"{shlex.quote(str(links() / first.name))}"
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _shown(result: _Result) -> str:
    came, given_up = result.came, result.given_up
    lines = [f"{f.path}  {size_of(f.bytes)}" for f in came]
    if came:
        lines.append(f"{plural(len(came), 'file')}, {size_of(sum(f.bytes for f in came))}")
    elif not (result.failed or result.owed or result.empty or given_up):
        others = result.out_of_reach or result.busy
        looked = f"; looked in {' and '.join(result.looked_in)}" if result.looked_in else ""
        lines.append("nothing else is owed" if others else f"nothing is owed{looked}")
    lines += [
        f"{each}: no file of it is on the DCU, and no event names an image of it; done with it"
        for each in result.empty
    ]
    lines += [
        f"{each}: given up: {', '.join(names) or 'whatever it has'}"
        for each, names in given_up.items()
    ]
    lines += [f"left to the process that takes it: {each}" for each in result.busy]
    lines += result.failed
    return "\n".join(lines)


# ---- what series owe ----


def _owed(client: "DcuClient", search: _Search, call: Call) -> _Result:
    from ophyd_eiger.owed import take_on
    from ophyd_eiger.transfer import Transfer

    transfer = Transfer(client, "fetch", later="the same command")
    result = _Result(looked_in=search.looked_in())
    try:
        with call.working("looking for series that owe files"):
            taken = take_on(
                transfer,
                [search.directory],
                search.patience,
                delete=search.delete,
                by_force=search.take_over,
                linked=search.linked,
            )
        result.note(taken)
        why = ""
        with telling(client, lambda: _progress_of(taken.deliveries), call):
            try:
                transfer.wait(search.patience, taken.deliveries)
            except TransferError as error:
                why = str(error)
        result.came = [file for delivery in taken.deliveries for file in delivery.came()]
        lost = [each for each in transfer.owed if each.owes()]
        if search.give_up:
            listed = set(client.files())
            # What lacks nothing but a view has lost nothing on the DCU.
            gone = [
                each
                for each in lost
                if (names := each.missing())
                and not listed.intersection(names)
                and all(_is_gone(client, name) for name in names)
            ]
            for each in gone:
                result.given_up[each.basename] = each.owes()
                transfer.forget(each)
            lost = [each for each in lost if each not in gone]
        result.owed = {each.basename: each.owes() for each in lost}
        if why and not (result.given_up and not lost):
            result.failed.append(why)
        result.empty = [
            each.basename
            for each in taken.deliveries
            if not (each.home or each.basename in result.given_up or each.basename in result.owed)
        ]
    finally:
        transfer.close()
    return result


def _is_gone(client: "DcuClient", name: str) -> bool:
    """Return whether the DCU says of a file itself that it is not there.

    A list of files may be null or cut short for a moment.
    """
    with contextlib.suppress(DcuError):
        client.file_size(name)
        return False
    # Not every DCU serves HEAD.
    try:
        with client.open_file(name):
            return False
    except NotServedError:
        return True
    except DcuError:
        return False


def _given_up(search: _Search, call: Call) -> _Result:
    """Give up what series of a DCU owe that is no more.

    Raises
    ------
    Failed
        If something may be at its address.
    """
    from ophyd_eiger.owed import give_up

    why = "a DCU answers there"
    try:
        call.dcu().state()
    except DcuUnreachableError:
        why = ""
    except DcuError as error:
        why = str(error)
    if why:
        raise Failed(f"{call.url} is not gone: {why}; what a DCU has lost is given up by --give-up")
    taken = give_up(call.url, [search.directory], by_force=search.take_over, linked=search.linked)
    result = _Result(given_up={each.basename: each.owes() for each in taken.deliveries})
    result.looked_in = search.looked_in()
    result.note(taken)
    return result


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
    client: "DcuClient", patterns: tuple[str, ...], search: _Search, call: Call
) -> "tuple[list[FetchedFile], list[str]]":
    from ophyd_eiger.fetching import Download

    directory = search.directory
    listed = sorted(client.files())
    wanted = [name for name in listed if any(_is_meant(name, each) for each in patterns)]
    failed = [
        f"{pattern}: the DCU lists no such file"
        for pattern in patterns
        if not any(_is_meant(name, pattern) for name in listed) and pattern != "*"
    ]
    came: list[FetchedFile] = []
    here: dict[str, int] = {}
    silence = Silence()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Failed(
            f"{directory}: this folder cannot be made ({error.strerror}); give another --directory",
            type(error).__name__,
        ) from error

    with telling(client, lambda: Progress(dict(here), tuple(wanted), len(came)), call):
        for number, name in enumerate(wanted, 1):
            if not _is_possible(name):
                failed.append(f"{name!r}: not fetched: no file can have this name")
                continue
            if not (directory / name).resolve().is_relative_to(directory.resolve()):
                failed.append(f"{name!r}: not fetched: it leads out of {directory}")
                continue
            download = Download(client, name, directory / name)
            try:
                # A name may have folders.
                download.final.parent.mkdir(parents=True, exist_ok=True)
                came.append(_brought(download, search, here, silence))
                # Of another kind of file nothing proves that its copy is whole.
                if search.delete and name.endswith(".h5") and (why := _kept(download, directory)):
                    failed.append(why)
            except (EigerError, OSError) as error:
                failed.append(f"{name}: {error}")
                gone = isinstance(error, _NO_ANSWER) and silence.seconds >= search.patience
                # It may be this file alone.
                if gone and (why := _why_gone(client)):
                    failed += [f"{each}: not fetched: {why}" for each in wanted[number:]]
                    break
            finally:
                # Nobody goes on with it; that it cannot be removed is not what went wrong.
                with contextlib.suppress(OSError):
                    download.discard()
    return came, failed


def _why_gone(client: "DcuClient") -> str:
    """Return why a DCU that sends no file does not even say which it has; "" if it answers."""
    try:
        client.files()
    except _NO_ANSWER as error:
        return str(error)
    except DcuError:
        return ""
    return ""


def _brought(
    download: "Download", search: _Search, here: dict[str, int], silence: Silence
) -> "FetchedFile":
    """Fetch a file, and go on where its connection broke unless nothing came for `patience`.

    Parameters
    ----------
    download : Download
        Fetches it.
    search : _Search
        How it is handled.
    here : dict of str to int
        Takes the bytes that are here, by name.
    silence : Silence
        Broken off with what comes: a DCU that is gone is not waited for with each file anew.
    """
    from ophyd_eiger.fetching import Handling, require_equal
    from ophyd_eiger.master import MASTER_ENDING

    name = download.name

    def proceed(so_far: int) -> None:
        # What comes again is no progress.
        if so_far > here.get(name, 0):
            here[name] = so_far
            silence.break_off()

    handling = Handling(
        functools.partial(_check, name, closely=search.delete),
        lambda _: None,
        proceed,
        silence.hold,
    )
    if search.delete and name.endswith(MASTER_ENDING):
        prove = functools.partial(require_equal, download.client, name)
        handling = replace(handling, prove=prove)
    while True:
        try:
            fetched = download.fetch(handling)
        except _NO_ANSWER:
            if silence.seconds >= search.patience:
                raise
            time.sleep(_RETRY_S)
        else:
            silence.break_off()
            return fetched


def _is_possible(name: str) -> bool:
    try:
        return b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False


def _kept(download: "Download", directory: Path) -> str:
    """Delete on the DCU what is proven good here; return why it stays there, or nothing."""
    from ophyd_eiger.deleting import stays_on_dcu

    if download.was_here:
        return f"{stays_on_dcu(download.final)}; move it, and fetch again"
    _keep_names_below(directory, download.final)
    with contextlib.suppress(NotServedError):
        if not download.is_still_there():
            return f"{download.name} stays on the DCU: it is another file by now"
        download.client.delete_file(download.name)
    return ""


def _keep_names_below(directory: Path, path: Path) -> None:
    """See that a file's name, and those of its folders in a directory, outlive a power cut."""
    from ophyd_eiger.deleting import keep_names

    for folder in path.resolve().parents:
        if folder.is_relative_to(directory.resolve()):
            keep_names(folder)


def _is_meant(name: str, pattern: str) -> bool:
    # A name may have brackets, in which a pattern has the characters that it takes for one.
    return name == pattern or fnmatch.fnmatch(name, pattern)


def _check(name: str, path: Path, *, closely: bool) -> int:
    """Return how many images a file of this name has, wherever it is.

    Closely, where the copy will be the only one: each image is decompressed.
    """
    from ophyd_eiger import check

    if not name.endswith(".h5"):
        return 0
    is_master = name.endswith("_master.h5")
    if is_master:
        images = check.check_master_file(path)
    else:
        images = check.check_data_file(path, images=None)
    if closely and images:
        check.check_pixels(path)
    elif closely and is_master:
        check.check_leads_to_images(path)
    return images
