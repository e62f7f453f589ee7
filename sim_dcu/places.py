"""Where a file lies below the data folder: its sub-folders come with it and go with the last one.

A name pattern may have slashes. A client that deletes each file it has fetched empties a folder
just when the next file is to come into it, so that making one and taking one away must not mix.
"""

import contextlib
import threading
from pathlib import Path

_folders = threading.Lock()


def put_in_place(path: Path, place: Path) -> None:
    """Move a complete file to `place`, at once for whoever looks, and make the folders it needs.

    Raises
    ------
    OSError
        Where a file is in the way of a folder, or the two are not of one file system.
    """
    with _folders:
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder; one that holds something or is gone already is left as it is."""
    with _folders, contextlib.suppress(OSError):
        folder.rmdir()
