"""Finds a run of a catalog by what people know of it: its number, its uid, or how that begins."""

from typing import Any

from ophyd_eiger.errors import NoRunError

# tiled takes no less for the beginning of a uid.
SHORTEST = 5


def find_run(catalog: Any, run: int | str) -> Any:
    """Return a run of a catalog.

    Parameters
    ----------
    catalog : catalog of tiled or databroker
        Where it is looked for.
    run : int or str
        Its scan_id, also as text; -1 is the last; its uid or the beginning of it. Text that may be
        either is the run of that uid, if there is one.

    Raises
    ------
    NoRunError
    """
    text = str(run).strip()
    is_number = text.removeprefix("-").isdecimal()
    keys: list[Any] = [int(text)] if is_number else []
    if isinstance(run, str) and not text.startswith("-"):
        if len(text) >= SHORTEST:
            keys.insert(0, text)
        elif not is_number:
            raise NoRunError(
                f"there is no run {run!r}: of a uid give {SHORTEST} characters at least"
            )
    why = ""
    for key in keys:
        try:
            return catalog[key]
        except (LookupError, TypeError):
            continue
        except ValueError as error:  # several
            why = f": {error}"
    raise NoRunError(f"there is no run {run!r}{why}")
