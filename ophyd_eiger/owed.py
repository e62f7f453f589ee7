"""Takes on what series of processes that ended still owe, and ends one that is left armed."""

import functools
import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from ophyd_eiger import journal
from ophyd_eiger.addresses import same_dcu
from ophyd_eiger.client import DcuClient
from ophyd_eiger.deliveries import Delivery, series_ids
from ophyd_eiger.errors import JournalError, NotServedError
from ophyd_eiger.journal import Journal, Journals, Owed
from ophyd_eiger.transfer import SETTLED_S, Transfer

logger = logging.getLogger(__name__)

ARMED, BUSY = "ready", ("configure", "acquire")
STATE_PERIOD_S = 0.2


@dataclass
class Taken:
    """What became of the journals that were found.

    Attributes
    ----------
    deliveries : list of Delivery
        The series that were taken on.
    busy : list of Path
        Journals of series that a living process takes, or brings home.
    not_over : list of str
        Which this DCU is still exposing or writing, in sentences; they stay owed.
    elsewhere : dict of str to list of Path
        Journals of series of other DCUs, by the DCU's URL.
    out_of_reach : list of Path
        Journals of this user's series, of whatever DCU, that are not there; see
        `journal.out_of_reach`.
    unreadable : list of str
        Of which series nobody can tell what they owe, and why.
    """

    deliveries: list[Delivery] = field(default_factory=list)
    busy: list[Path] = field(default_factory=list)
    not_over: list[str] = field(default_factory=list)
    elsewhere: dict[str, list[Path]] = field(default_factory=dict)
    out_of_reach: list[Path] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def take_on(
    transfer: Transfer,
    directories: Iterable[Path],
    patience: float,
    *,
    delete: bool = False,
    by_force: bool = False,
    linked: bool = True,
) -> Taken:
    """Take on the series of this DCU whose process has ended and whose files are not all home.

    Parameters
    ----------
    transfer : Transfer
        Brings them.
    directories : iterable of Path
        Where to look for journals, at any depth.
    patience : float
        How long one of them that is still exposed or written is waited for, in s; once that was
        in vain, no other one is.
    delete : bool
        Whether files are deleted on the DCU once they are proven good, whatever was asked before.
    by_force : bool
        Whether series are taken on that another computer took, of whose process nothing is known.
    linked : bool
        Whether also series are taken on that this user's own links lead to, wherever they are.

    Raises
    ------
    DcuError
        If the DCU cannot be asked whether one of them is still armed.
    """
    found = journal.find(directories, linked=linked)
    paths = [path for path in found if path not in transfer.journals]
    not_there = journal.out_of_reach() if linked else []
    taken = Taken(out_of_reach=[path for path in not_there if path not in transfer.journals])
    for mine, owed in _taken_in_hand(paths, transfer.client.url, taken, by_force=by_force):
        delivery, in_hand = owed.delivery, mine
        if taken.not_over:
            # What does not end for one of them does not for the next.
            patience = 0.0
        try:
            if why_not := end_if_left_armed(transfer.client, delivery, patience):
                taken.not_over.append(f"{owed.path}: {why_not}")
                continue
            if delete and delivery.policy.mount is None:
                delivery.policy = replace(delivery.policy, delete_on_dcu=True)
            try:
                if delivery.armed_after is not None:
                    armed = _armed(transfer.client, delivery, min(patience, SETTLED_S))
                    if armed is not None:
                        # Its arm may have been under way until now.
                        if why_not := end_if_left_armed(transfer.client, delivery, patience):
                            taken.not_over.append(f"{owed.path}: {why_not}")
                            continue
                        delivery, in_hand = armed, Journal.begin(armed, owed.dcu)
                    mine.end()
                    if armed is None:
                        continue
                transfer.adopt(delivery, in_hand)
            except OSError as error:
                # Those in other folders come home all the same.
                taken.unreadable.append(f"{owed.path}: what is home of it cannot be seen: {error}")
                continue
            taken.deliveries.append(delivery)
        finally:
            if delivery not in taken.deliveries:
                in_hand.leave()
    return taken


def _armed(client: DcuClient, delivery: Delivery, patience: float) -> Delivery | None:
    """Return what came of a series that was being armed, if nothing else says so.

    Its master is listed from arm on, which may be under way still: it is looked for so many s.
    """
    deadline = time.monotonic() + patience
    try:
        while (armed := delivery.named_by(client.files())) is None:
            if time.monotonic() > deadline:
                break
            time.sleep(STATE_PERIOD_S)
    except NotServedError:
        return None
    if armed is None or journal.is_known(armed):
        return None
    return armed


def give_up(
    dcu: str, directories: Iterable[Path], *, by_force: bool = False, linked: bool = True
) -> Taken:
    """Owe no more what series of a DCU owe that is no more; nothing but their journals is removed.

    Parameters
    ----------
    dcu : str
        The DCU's URL, which is not asked.
    directories, by_force, linked
        As of `take_on`.

    Returns
    -------
    Taken
        `deliveries` are those that were given up.
    """
    taken = Taken()
    journals = Journals(dcu)
    paths = journal.find(directories, linked=linked)
    for mine, owed in _taken_in_hand(paths, dcu, taken, by_force=by_force):
        journals.keep(owed.delivery, mine)
        journals.end(owed.delivery)
        taken.deliveries.append(owed.delivery)
    return taken


def _taken_in_hand(
    paths: Iterable[Path], dcu: str, taken: Taken, *, by_force: bool
) -> Iterator[tuple[Journal, Owed]]:
    """Take journals of a DCU's series in hand whose process has ended; note the others."""
    # A name is looked up once, which takes long where nobody answers.
    is_ours = functools.cache(lambda other: same_dcu(other, dcu))
    for path in paths:
        try:
            found = journal.read(path)
            if not is_ours(found.dcu):
                taken.elsewhere.setdefault(found.dcu, []).append(path)
                continue
            had = journal.take(path, by_force=by_force)
        except FileNotFoundError:
            continue  # Its process has just brought it home.
        except JournalError as error:
            taken.unreadable.append(
                f"{error}; see whether the DCU has files of that name, then remove it"
            )
            continue
        except OSError as error:
            taken.unreadable.append(
                f"{path}: what its series owes is noted there, but it cannot be opened to be taken "
                f"on ({error.strerror or error}); fetch as {_owner_of(path)}, or mount its disk "
                "so that it can be written"
            )
            continue
        if had is None:
            taken.busy.append(path)
        else:
            yield had


def _owner_of(path: Path) -> str:
    try:
        return f"{path.owner()}, whose it is"
    # A user without a name here, or a folder that cannot be looked into.
    except (KeyError, OSError):
        return "the user whose it is"


def end_if_left_armed(client: DcuClient, delivery: Delivery, patience: float) -> str:
    """Disarm a detector that waits for triggers of this series, whose process has ended.

    Only a disarm writes its last file. What is being exposed or written is let end, and a series
    that another client armed since is left alone.

    Parameters
    ----------
    client : DcuClient
        The way to the DCU.
    delivery : Delivery
        The series.
    patience : float
        How long it is let, in s.

    Returns
    -------
    str
        Why it is not over, or nothing.

    Raises
    ------
    DcuError
    """
    if not _is_named_by_pattern(client, delivery):
        return ""
    # Of many series that are owed most are over: the list of files is not asked for each.
    state = _value(client, "detector", "status/state")
    if state in (ARMED, *BUSY) and _is_followed(client, delivery):
        return ""
    state = _wait_while(client, "detector", BUSY, patience)
    if state in (ARMED, *BUSY):
        if not _is_named_by_pattern(client, delivery) or _is_followed(client, delivery):
            # Another series was armed meanwhile, so that this one is over.
            return ""
        if state != ARMED:
            return "its process has ended, but it is still being exposed; abort it, or wait"
        logger.warning("%s: the process that armed it has ended; disarmed", delivery.basename)
        client.command("detector", "disarm", timeout=client.timeouts.end)
    if _wait_while(client, "filewriter", BUSY, patience) in BUSY:
        return "its files are still being written"
    return ""


def _wait_while(
    client: DcuClient, subsystem: str, states: tuple[str, ...], patience: float
) -> object:
    """Return the state, when it is none of these or `patience` s are over."""
    deadline = time.monotonic() + patience
    while (state := _value(client, subsystem, "status/state")) in states:
        if time.monotonic() > deadline:
            break
        time.sleep(STATE_PERIOD_S)
    return state


def _is_named_by_pattern(client: DcuClient, delivery: Delivery) -> bool:
    # Without a file writer what is armed is somebody else's: each series of ours has one.
    return (
        _value(client, "filewriter", "config/name_pattern") == delivery.name_pattern
        and _value(client, "filewriter", "config/mode") != "disabled"
    )


def _is_followed(client: DcuClient, delivery: Delivery) -> bool:
    """Return whether a later series was armed with the names' pattern left as it was; says so."""
    try:
        listed = client.files()
    except NotServedError as error:
        logger.debug("%s: whether it is the last series is not known: %s", delivery.basename, error)
        return False
    # The master is there from arm on.
    series = delivery if delivery.armed_after is None else delivery.named_by(listed)
    if series is None:
        return False
    stem, _, number = series.basename.rpartition("_")
    newest = max(series_ids(listed, stem), default=0)
    if not number.isdecimal() or newest <= int(number):
        return False
    logger.warning(
        "%s is over: the detector was armed again since, for %s_%d, and is not disarmed for it",
        delivery.basename,
        stem,
        newest,
    )
    return True


def _value(client: DcuClient, subsystem: str, resource: str) -> object:
    try:
        reply = client.get(subsystem, resource)
    except NotServedError:
        return None
    return reply.get("value") if isinstance(reply, dict) else reply
