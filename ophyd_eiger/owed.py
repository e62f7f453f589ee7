"""Takes on what series of processes that ended still owe, and ends one that is left armed."""

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ophyd_eiger import journal
from ophyd_eiger.client import DcuClient
from ophyd_eiger.deliveries import Delivery
from ophyd_eiger.errors import JournalError, NotServedError
from ophyd_eiger.transfer import Transfer

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
    passed_over : list of str
        Why others were not taken on, in sentences.
    """

    deliveries: list[Delivery] = field(default_factory=list)
    busy: list[Path] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)


def take_on(transfer: Transfer, directories: Iterable[Path], patience: float) -> Taken:
    """Take on the series of this DCU whose process has ended and whose files are not all home.

    Parameters
    ----------
    transfer : Transfer
        Brings them.
    directories : iterable of Path
        Where to look for journals, at any depth, beside where this user's own links lead.
    patience : float
        How long one of them that is still exposed is waited for, in s.

    Raises
    ------
    DcuError
        If the DCU cannot be asked whether one of them is still armed.
    """
    taken = Taken()
    for path in journal.find(directories):
        if path.name in transfer.journals:
            continue
        try:
            owed = journal.read(path)
            if owed.dcu != transfer.client.url:
                taken.passed_over.append(f"{path}: it is on another DCU, {owed.dcu}")
                continue
            mine = journal.take(path)
        except (JournalError, OSError) as error:
            taken.passed_over.append(str(error))
            continue
        if mine is None:
            taken.busy.append(path)
            continue
        try:
            end_if_left_armed(transfer.client, owed.delivery, patience)
        except Exception:
            mine.leave()
            raise
        transfer.adopt(owed.delivery, mine)
        taken.deliveries.append(owed.delivery)
    return taken


def end_if_left_armed(client: DcuClient, delivery: Delivery, patience: float) -> None:
    """Disarm a detector that waits for triggers of this series, whose process has ended.

    Only a disarm writes its last file. What is being exposed is let end.

    Raises
    ------
    DcuError
    """
    if _value(client, "filewriter", "config/name_pattern") != _pattern(delivery):
        return
    deadline = time.monotonic() + patience
    while (state := _value(client, "detector", "status/state")) in BUSY:
        if time.monotonic() > deadline:
            logger.warning("%s is still being exposed, though its process ended", delivery.basename)
            return
        time.sleep(STATE_PERIOD_S)
    if state == ARMED:
        logger.warning("%s: the process that armed it has ended; disarmed", delivery.basename)
        client.command("detector", "disarm", timeout=client.timeouts.end)


def _pattern(delivery: Delivery) -> str:
    stem, _, _ = delivery.basename.rpartition("_")
    return f"{stem}_$id"


def _value(client: DcuClient, subsystem: str, resource: str) -> object:
    try:
        reply = client.get(subsystem, resource)
    except NotServedError:
        return None
    return reply.get("value") if isinstance(reply, dict) else reply
