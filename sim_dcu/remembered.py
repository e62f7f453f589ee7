"""The series that were armed, for whoever asks the oracle; knows nothing of images or HTTP."""

from collections import Counter

import numpy as np

from sim_dcu.series import ArmedSeries

MOST_SERIES = 10_000
# In bytes: the arrays of as many series, each with a mask and a flat field of its own, as fit.
MOST_BYTES = 2**30


class RememberedSeries:
    """The newest series of each id, oldest first, as many as `MOST_SERIES` and `MOST_BYTES` allow.

    Series share their arrays as long as nobody puts new ones; each array counts once. The newest
    series is kept whatever its size. It is not locked.
    """

    def __init__(self) -> None:
        self._series: dict[int, ArmedSeries] = {}
        self._users: Counter[int] = Counter()
        self._bytes = 0

    def get(self, series_id: int) -> ArmedSeries | None:
        """Return the newest series of an id, None where there is none."""
        return self._series.get(series_id)

    def add(self, series: ArmedSeries) -> None:
        """Remember a series, in place of an earlier one of the same id."""
        self._forget(series.series_id)
        self._series[series.series_id] = series
        for array in _arrays(series):
            self._users[id(array)] += 1
            if self._users[id(array)] == 1:
                self._bytes += array.nbytes
        while len(self._series) > MOST_SERIES or (
            self._bytes > MOST_BYTES and len(self._series) > 1
        ):
            self._forget(next(iter(self._series)))

    def _forget(self, series_id: int) -> None:
        series = self._series.pop(series_id, None)
        if series is None:
            return
        for array in _arrays(series):
            self._users[id(array)] -= 1
            if not self._users[id(array)]:
                del self._users[id(array)]
                self._bytes -= array.nbytes


def _arrays(series: ArmedSeries) -> list[np.ndarray]:
    # Views and twins of one array are the same object.
    arrays = {id(a): a for a in series.detector.values() if isinstance(a, np.ndarray)}
    return list(arrays.values())
