"""What is told of files that did not come home: which, why, and what can be done.

Pure: no requests, no files, no threads.
"""

from collections.abc import Iterator, Sequence

from ophyd_eiger.deliveries import Delivery, briefly
from ophyd_eiger.errors import DcuError, FileError, TransferError


def no_list(name: str, wanted: Sequence[Delivery], said: DcuError | None) -> TransferError:
    """Return the error of series whose DCU has no list of its files.

    Parameters
    ----------
    name : str
        Name of the detector.
    wanted : sequence of Delivery
        They lack files.
    said : DcuError or None
        What the DCU answered.
    """
    error = TransferError(
        f"{name}: {briefly(_lacking(wanted))} cannot be fetched, because this DCU has no list of "
        f"its files ({said}); the images were taken, and what is on the DCU is still there"
    )
    error.__cause__ = said
    return error


def not_home(
    name: str, wanted: Sequence[Delivery], by_when: str, dcu_error: DcuError | None, later: str
) -> TransferError:
    """Return the error of series that lack files, with the best reason that is known.

    Parameters
    ----------
    name : str
        Name of the detector.
    wanted : sequence of Delivery
        They lack files.
    by_when : str
        Until when they were waited for, in words.
    dcu_error : DcuError or None
        How the DCU refused its list of files last.
    later : str
        What brings files that did not come, in words.
    """
    missing = _lacking(wanted)
    if not missing:
        return _not_asked(name, wanted, dcu_error, later)
    listed = [file for file in missing if any(file in each.listed for each in wanted)]
    gone, deleted = _not_there_any_more(wanted)
    reasons = [error for each in wanted for error in tuple(each.errors.values())]
    reason = reasons[-1] if reasons else dcu_error
    said = str(reason or "") or "; ".join(_how_far(wanted))
    hope = f"what is on the DCU is still there, and {later} brings it"
    if not said and listed:
        said = f"the DCU lists {briefly(listed)} and has sent nothing of it"
    if not said:
        said = "the DCU does not list them"
        hope = f"unless it does later they were never written; {later} asks again"
    broken = [
        file
        for each in wanted
        for file, error in tuple(each.errors.items())
        if isinstance(error, FileError) and file in each.listed
    ]
    if broken:
        hope += (
            f"; if it says the same of {briefly(broken)} again, that is broken on the DCU, too: "
            "keep it as it is with curl, delete it there, and let go of it with `ophyd-eiger fetch "
            "--give-up`"
        )
    if set(missing) <= {*gone, *deleted}:
        hope = f"{later} asks again"
    if gone:
        hope = (
            f"{briefly(gone)} had come home, and went with the folder, {wanted[0].directory}, when "
            f"it was removed, renamed or unmounted: put them back there; {hope}"
        )
    if deleted:
        hope = (
            f"the DCU listed {briefly(deleted)} before and does not now, as where they were "
            f"deleted there, or it was restarted; {hope}"
        )
    if unasked := [each for each in wanted if not each.lacks()]:
        hope += f"; nor is known whether the DCU has more of {_names(unasked)}"
    error = TransferError(
        f"{name}: {briefly(missing)} did not come home to {wanted[0].directory} {by_when} "
        f"({said}); {hope}"
    )
    error.__cause__ = reason
    return error


def _not_asked(
    name: str, wanted: Sequence[Delivery], said: DcuError | None, later: str
) -> TransferError:
    error = TransferError(
        f"{name}: whether the DCU has more files of {_names(wanted)} is not known, because it did "
        f"not say ({said}); {later} asks again"
    )
    error.__cause__ = said
    return error


def _names(series: Sequence[Delivery]) -> str:
    return briefly([each.basename for each in series])


def _lacking(wanted: Sequence[Delivery]) -> list[str]:
    return list(dict.fromkeys(name for each in wanted for name in each.lacks()))


def _how_far(wanted: Sequence[Delivery]) -> Iterator[str]:
    """Say how far each file has come of which anything has."""
    for each in wanted:
        if settling := list(each.settling):
            all_of = f"all of {briefly(settling)} had come"
            yield f"{all_of}, and is not synced to its disk and checked yet"
        for file, size in each.on_the_way():
            if file not in settling:
                yield f"{size} bytes of {file} had come"


def _not_there_any_more(wanted: Sequence[Delivery]) -> tuple[list[str], list[str]]:
    """Return what was home and what the DCU listed, of what is neither here nor there now."""
    gone, deleted = [], []
    for each in wanted:
        for name in each.lacks():
            if name in each.listed:
                continue
            if name in each.gone:
                gone.append(name)
            elif name in each.seen:
                deleted.append(name)
    return gone, deleted
