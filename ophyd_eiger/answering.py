"""Whether a DCU answers when it is asked for its files. Facts only: asks nothing itself."""

import time

from ophyd_eiger.errors import DcuError, DcuUnreachableError

# A DCU that took no connection for so long, in s, however often it was tried, is gone: a server
# that is merely started anew takes one again before.
GONE_S = 3.0
FEWEST_TRIES = 2


class Answering:
    """What came of asking.

    Attributes
    ----------
    asked : int
        How often it was.
    error : DcuError or None
        What the last time failed with.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.error: DcuError | None = None
        self._unreached = 0
        self._unreached_since = 0.0

    def note(self, error: DcuError | None = None) -> None:
        """Note an answer, or why there was none."""
        self.asked += 1
        self.error = error
        if not isinstance(error, DcuUnreachableError):
            self._unreached = 0
            return
        if not self._unreached:
            self._unreached_since = time.monotonic()
        self._unreached += 1

    def is_gone(self, since: float) -> bool:
        """Return whether the DCU took no connection for long enough to expect none.

        Parameters
        ----------
        since : float
            When there was a sign of it last, on the monotonic clock.
        """
        silent_s = time.monotonic() - max(since, self._unreached_since)
        return self._unreached >= FEWEST_TRIES and silent_s >= GONE_S
