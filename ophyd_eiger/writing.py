"""New files: each has its name only once it is whole and on the disk; and the room for them.

Whoever is killed while writing leaves a hidden file that nobody takes for anything. Imports nothing
outside the standard library.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def new_file(path: Path | str, *, replace: bool = False) -> Iterator[IO[bytes]]:
    """Write a file that has its name once it is whole; nothing is overwritten.

    Parameters
    ----------
    path : path
        Its name, in a folder that is there.
    replace : bool
        Whether it takes the place of an older file of this name, which is there until then.

    Yields
    ------
    file : binary file
        What is written into, beside it under a hidden name; no file of either name is there if it
        is not written to its end.

    Raises
    ------
    FileExistsError
        If there is a file of this name, before anything is written, or by the end of it.
    OSError
        If it cannot be written.

    Examples
    --------
    >>> with new_file("mask.npy") as file:
    ...     np.save(file, mask)
    """
    final = Path(path)
    if not replace and os.path.lexists(final):
        raise _taken(final)
    # Of its own, so that two who write the same file do not write into each other's.
    aside = final.with_name(f".{final.name}.{secrets.token_hex(4)}.part")
    try:
        with aside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if replace:
            aside.replace(final)
        else:
            give_name(aside, final)
    finally:
        # Where nothing can be removed the file has its name, or what failed before is told.
        with suppress(OSError):
            aside.unlink()


def give_name(aside: Path, final: Path) -> None:
    """Give a finished file its name, never over one that exists.

    Raises
    ------
    FileExistsError
    """
    try:
        os.link(aside, final)
    except FileExistsError:
        raise _taken(final) from None
    except OSError:
        # Some network file systems have no hard links. Names are new here, so that hardly anybody
        # else takes one between these two lines.
        if os.path.lexists(final):
            raise _taken(final) from None
        aside.rename(final)


def free_at(directory: Path) -> float | None:
    """Return the room in a folder, or where it will be made, in bytes; None if nobody can say."""
    for place in (directory, *directory.parents):
        try:
            usage = shutil.disk_usage(place)
        except FileNotFoundError:
            continue
        except OSError:
            break
        # Some file systems, as of FUSE, do not know how large they are: that they say nothing is
        # free does not mean that they are full.
        return float(usage.free) if usage.total else None
    return None


def _taken(final: Path) -> FileExistsError:
    return FileExistsError(errno.EEXIST, "exists already and is not overwritten", str(final))
