"""Where the files of a staging go, and what their names start with. Makes no folder."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Destination:
    """Where the files of one staging go.

    Attributes
    ----------
    device : str
        Name of the device.
    directory : Path
        The folder, absolute, with every link followed.
    prefix : str
        What the files' names start with.
    time : float
        When it was decided.
    """

    device: str
    directory: Path
    prefix: str
    time: float

    @classmethod
    def of(
        cls,
        device: str,
        directory: "str | os.PathLike | Callable[[], str | os.PathLike]",
        prefix: str | None,
    ) -> "Destination":
        """Decide it now.

        Parameters
        ----------
        device : str
            Name of the device, which is the prefix if there is no other.
        directory : path or callable
            A path; one with times in it as strftime writes them; or a function that returns one.
        prefix : str or None
            What the files' names start with.

        Raises
        ------
        ValueError
            If a name cannot start so, or if there is no path.
        """
        given = directory() if callable(directory) else directory
        try:
            text = os.fsdecode(given)
        except TypeError:
            raise ValueError(f"{device}: directory is {given!r}, which is no path") from None
        if "%" in text:
            text = datetime.now().astimezone().strftime(text)
        if not text:
            raise ValueError(f"{device}: directory is empty; '.' is the folder one is in")
        start = checked_prefix(device, prefix)
        # A link may lead elsewhere by the time that files come, and when the run is looked into.
        try:
            directory = Path(text).expanduser().resolve()
        except (OSError, RuntimeError) as error:  # RuntimeError: a link that leads to itself
            raise ValueError(f"{device}: directory {text} leads nowhere: {error}") from error
        return cls(device, directory, start, time.time())

    def readings(self) -> dict[str, Any]:
        """Return what a run's configuration records of it."""
        return {
            f"{self.device}_directory": {"value": str(self.directory), "timestamp": self.time},
            f"{self.device}_file_prefix": {"value": self.prefix, "timestamp": self.time},
        }

    def describe(self) -> dict[str, Any]:
        """Return the data keys of `readings`."""
        return {
            key: {
                "source": f"PY:{key}",
                "dtype": "string",
                "shape": [],
            }
            for key in (f"{self.device}_directory", f"{self.device}_file_prefix")
        }


def checked_prefix(device: str, prefix: str | None) -> str:
    """Return what files' names start with: the device's name if nothing else is given.

    Raises
    ------
    ValueError
        If a name cannot start so.
    """
    start = prefix or device
    # The DCU takes "/" for a folder and "$" for its id; HDF5 takes "%" and "\\" in names that a
    # view has for more than themselves; NUL ends a name.
    if set(start) & set("/$%\\\0"):
        raise ValueError(f"{device}: a file prefix holds no '/', '$', '%', '\\' or NUL: {start!r}")
    return start
