"""Takes on what series of processes that ended still owe, and ends one that is left armed."""

import logging
from collections.abc import Iterable
from pathlib import Path

from ophyd_eiger import journal
from ophyd_eiger.client import DcuClient
from ophyd_eiger.deliveries import Delivery
from ophyd_eiger.errors import JournalError, NotServedError
from ophyd_eiger.transfer import Transfer

logger = logging.getLogger(__name__)

ARMED, EXPOSING = "ready", "acquire"


def take_on(transfer: Transfer, directories: Iterable[Path] = ()) -> list[Delivery]:
    """Take on the series of this DCU whose process has ended and whose files are not all home.

    Parameters
    ----------
    transfer : Transfer
        Brings them.
    directories : iterable of Path
        Where to look for journals, at any depth, beside where this user's own links lead.

    Raises
    ------
    DcuError
        If the DCU cannot be asked whether one of them is still armed.
    """
    taken: list[Delivery] = []
    for path in journal.find(directories):
        if path.name in transfer.journals:
            continue
        try:
            owed = journal.read(path)
            if owed.dcu != transfer.client.url:
                logger.info("%s: owed by %s", path, owed.dcu)
                continue
            mine = journal.take(path)
        except (JournalError, OSError) as error:
            logger.warning("%s: passed over: %s", transfer.name, error)
            continue
        if mine is None:
            logger.info("%s: another process takes this series, or brings it home", path)
            continue
        try:
            end_if_left_armed(transfer.client, owed.delivery)
        except Exception:
            mine.leave()
            raise
        transfer.adopt(owed.delivery, mine)
        taken.append(owed.delivery)
    return taken


def end_if_left_armed(client: DcuClient, delivery: Delivery) -> None:
    """Disarm a detector that waits for triggers of this series, whose process has ended.

    Only a disarm writes its last file. A series that is being exposed ends by itself.

    Raises
    ------
    DcuError
    """
    if _value(client, "filewriter", "config/name_pattern") != _pattern(delivery):
        return
    state = _value(client, "detector", "status/state")
    if state == ARMED:
        logger.warning("%s: its process has ended; disarmed", delivery.basename)
        client.command("detector", "disarm", timeout=client.timeouts.end)
    elif state == EXPOSING:
        logger.warning(
            "%s: its process has ended, but the detector still exposes", delivery.basename
        )


def _pattern(delivery: Delivery) -> str:
    stem, _, _ = delivery.basename.rpartition("_")
    return f"{stem}_$id"


def _value(client: DcuClient, subsystem: str, resource: str) -> object:
    try:
        reply = client.get(subsystem, resource)
    except NotServedError:
        return None
    return reply.get("value") if isinstance(reply, dict) else reply
