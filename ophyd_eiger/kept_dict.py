"""A dict that stays on disk, as a RunEngine's metadata; several processes may have one at once.

bluesky's own PersistentDict is for one process, and removes a value before it writes the new one.
"""

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

from ophyd_eiger.errors import FileError

logger = logging.getLogger(__name__)


class KeptDict(MutableMapping[str, Any]):
    """A dict whose items are in a JSON file, which is replaced as a whole with each change.

    What was changed inside a value is written with the next change; what JSON has not is left out
    then, with a warning. What other processes changed
    is seen after `count_on`, unless it was changed here as well.

    Parameters
    ----------
    path : path
        The file; made with the first item.

    Raises
    ------
    FileError
        If it is there and cannot be understood.

    Examples
    --------
    >>> RE = RunEngine(KeptDict("metadata.json"), scan_id_source=KeptDict.count_on)
    >>> RE.md["sample"] = "lysozyme"
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self._path = Path(path).absolute()
        self._items: dict[str, Any] = self._load()
        # Each value as it was written or read last, to tell what was changed here.
        self._written = {key: _encoded(key, value) for key, value in self._items.items()}

    def __getitem__(self, key: str) -> Any:
        return self._items[key]

    def __setitem__(self, key: str, value: Any) -> None:
        _encoded(key, value)
        self._items[key] = value
        with self._locked():
            self._save(self._load())

    def __delitem__(self, key: str) -> None:
        del self._items[key]
        with self._locked():
            self._save(self._load())

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return repr(self._items)

    def count_on(self, key: str = "scan_id") -> int:
        """Return the next number, which no other process gets.

        Parameters
        ----------
        key : str
            Where the last one is.
        """
        with self._locked():
            there = self._load()
            self._take_over(there)
            number = int(there.get(key, 0)) + 1
            self._items[key] = number
            self._save(there)
        return number

    def _take_over(self, there: dict[str, Any]) -> None:
        """Take what other processes changed, unless it was changed here as well."""
        mine = self._changed()
        for key, value in there.items():
            if key not in mine:
                self._items[key] = value
                self._written[key] = _encoded(key, value)
        for key in set(self._items) - set(there) - mine:
            del self._items[key], self._written[key]

    def _changed(self) -> set[str]:
        """Return the keys of what was set, changed inside, or deleted here since it was written."""
        encoded = {}
        for key, value in self._items.items():
            try:
                encoded[key] = _encoded(key, value)
            except TypeError as error:
                # Put inside a value since: it must not keep the next scan from its number.
                logger.warning("%s: not kept as it is now: %s", self._path, error)
                encoded[key] = self._written.get(key)
        return {
            key for key in {*encoded, *self._written} if encoded.get(key) != self._written.get(key)
        }

    def _save(self, there: dict[str, Any]) -> None:
        """Write what was changed here into what is there."""
        changed = self._changed()
        if not changed:
            return
        for key in changed:
            if key in self._items:
                there[key] = self._items[key]
                self._written[key] = _encoded(key, there[key])
            else:
                there.pop(key, None)
                del self._written[key]
        beside = self._path.with_name(f".{self._path.name}.new")
        with beside.open("w", encoding="utf-8") as file:
            json.dump(there, file, indent=2, default=_plain)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)

    def _load(self) -> dict[str, Any]:
        try:
            items = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise FileError(
                f"{self._path}: not JSON ({error}); correct it, or move it away and begin anew"
            ) from error
        if not isinstance(items, dict):
            raise FileError(f"{self._path}: a JSON object was expected, there is {items!r:.60}")
        return items

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_name(f".{self._path.name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:
                # Some network file systems have none.
                logger.debug("%s: not locked: %s", self._path, error)
            yield


def _encoded(key: str, value: Any) -> str:
    try:
        return json.dumps(value, default=_plain)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{key!r}: {value!r:.80} cannot be kept in JSON ({error})") from error


def _plain(value: Any) -> Any:
    """Return what numpy has as what JSON has."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} is no JSON")
