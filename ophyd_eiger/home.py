"""Whether the files of a run are home, as something a plan can trigger and read."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from ophyd_eiger.deliveries import Delivery
from ophyd_eiger.worker import EigerStatus


class FilesHome:
    """The files of the series that were taken since this was triggered last.

    `trigger` waits until they are home and checked; then each `read` is of the next series. It is
    bluesky's Triggerable and Readable, for a stream of its own in a run.

    Parameters
    ----------
    name : str
        What its data keys start with.
    source : str
        Where the files come from.
    bring : callable
        Gives the Status of bringing home what was taken.
    taken : callable
        Gives the deliveries of the staging, in order.
    """

    parent = None

    def __init__(
        self,
        name: str,
        source: str,
        bring: Callable[[], EigerStatus],
        taken: Callable[[], list[Delivery]],
    ) -> None:
        self.name = name
        self._source = source
        self._bring = bring
        self._taken = taken
        self._told: set[Delivery] = set()
        self._next: deque[Delivery] = deque()

    @property
    def pending(self) -> int:
        """How many series were taken of which no `read` has told."""
        return sum(delivery not in self._told for delivery in self._taken())

    def trigger(self) -> EigerStatus:
        """Bring them home; done when every file is checked.

        A series that still waits for triggers is ended; the next point arms a new one.

        Raises
        ------
        TransferError
            By the Status: naming what is missing.
        """
        status = self._bring()
        taken = self._taken()
        self._told &= set(taken)
        self._next = deque(delivery for delivery in taken if delivery not in self._told)
        return status

    def read(self) -> dict[str, Any]:
        """Return what came of the next series, what was promised, and which files are missing.

        Raises
        ------
        IndexError
            If there is none.
        """
        delivery = self._next.popleft()
        self._told.add(delivery)
        home = tuple(delivery.home.values())
        values = {
            "series": delivery.basename,
            "images_promised": delivery.images,
            "images": delivery.images_home,
            "files": len(home),
            "bytes": sum(file.bytes for file in home),
            "directory": str(delivery.directory),
            "missing": ", ".join(delivery.missing()),
        }
        # Where no file came it is that of the question.
        when = max((file.landed for file in home), default=time.time())
        return {
            f"{self.name}_{key}": {"value": value, "timestamp": when}
            for key, value in values.items()
        }

    def describe(self) -> dict[str, Any]:
        """Return the data keys."""
        return dict(self._keys())

    def _keys(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for key in ("series", "directory", "missing"):
            yield (
                f"{self.name}_{key}",
                {"source": self._source, "dtype": "string", "shape": []},
            )
        for key in ("images_promised", "images", "files", "bytes"):
            yield (
                f"{self.name}_{key}",
                {
                    "source": self._source,
                    "dtype": "integer",
                    "dtype_numpy": "<i8",
                    "shape": [],
                },
            )

    @property
    def hints(self) -> dict[str, Any]:
        """What is plotted and printed: nothing."""
        return {"fields": []}

    def read_configuration(self) -> dict[str, Any]:
        """Return nothing: it has no settings."""
        return {}

    def describe_configuration(self) -> dict[str, Any]:
        """Return nothing: it has no settings."""
        return {}
