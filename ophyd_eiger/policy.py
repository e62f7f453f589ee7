"""What becomes of the files of a series beside their bytes: whose they are, where, for how long."""

import dataclasses
import grp
import operator
import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LARGEST_MODE = 0o777


@dataclass(frozen=True)
class FilePolicy:
    """How the files of series come home; what holds when a device is staged holds for its series.

    Parameters
    ----------
    wait : bool
        Whether `unstage` waits until every file is home and checked. Without, the files come
        while the next scans run: what fails is logged as an error and is in `eiger.owed`, and
        `eiger.wait_for_files()` raises it.
    delete_on_dcu : bool
        Whether a file is deleted on the DCU after its copy is proven good: each of its images was
        decompressed; a master came twice alike.
    mode : int, optional
        Permissions of the files, as in 0o440; those of the process if not given.
    owner : str, optional
        Whose the files are: "user", "user:group" or ":group"; the process' own if not given.
    at_once : int
        How many files are fetched at the same time, at most.
    mounted_at : path, optional
        Where this computer has the DCU's data folder mounted. Nothing is fetched then: the files
        are checked where they are, and the folder of the scan has symbolic links to them.

    Raises
    ------
    ValueError
        If a value makes no sense, if there is no such user or group, or if files are to be deleted
        of which there is no copy.
    """

    wait: bool = True
    delete_on_dcu: bool = False
    mode: int | None = None
    owner: str | None = None
    at_once: int = 4
    mounted_at: "str | os.PathLike[str] | None" = None

    def __post_init__(self) -> None:
        for name in ("mode", "at_once"):
            if (given := getattr(self, name)) is not None:
                try:
                    object.__setattr__(self, name, operator.index(given))
                except TypeError:
                    raise ValueError(f"{name} is {given!r}; it is a whole number") from None
        if self.mode is not None and not 0 <= self.mode <= LARGEST_MODE:
            raise ValueError(f"mode is {self.mode:#o}; it is between 0 and 0o777, as in 0o440")
        if self.at_once < 1:
            raise ValueError(f"at_once is {self.at_once}; it is at least 1")
        if self.owner is not None:
            self._ids()
        if self.mounted_at is not None:
            object.__setattr__(self, "mounted_at", Path(self.mounted_at).expanduser().absolute())
            if self.delete_on_dcu or self.mode is not None or self.owner is not None:
                raise ValueError(
                    "with mounted_at there is no copy of a file: no delete_on_dcu, mode or owner"
                )

    @property
    def mount(self) -> Path | None:
        """Where the DCU's data folder is mounted; None if it is not."""
        return None if self.mounted_at is None else Path(self.mounted_at)

    def record(self) -> dict[str, Any]:
        """Return the parameters, as JSON has them."""
        record = dataclasses.asdict(self)
        record["mounted_at"] = None if self.mount is None else str(self.mount)
        return record

    def apply(self, path: Path) -> None:
        """Give a file the owner and the permissions of this policy.

        Raises
        ------
        OSError
            If that is not allowed.
        """
        if self.owner is not None:
            os.chown(path, *self._ids())
        if self.mode is not None:
            path.chmod(self.mode)

    def _ids(self) -> tuple[int, int]:
        """Return the numbers of user and group, -1 for one that stays as it is."""
        user, _, group = str(self.owner).partition(":")
        try:
            return (
                pwd.getpwnam(user).pw_uid if user else -1,
                grp.getgrnam(group).gr_gid if group else -1,
            )
        except KeyError as error:
            raise ValueError(f"owner is {self.owner!r}: {error.args[0]}") from None
