"""Whether a DCU has a list of its files, as its answers tell."""

import time

from ophyd_eiger.errors import DcuError, NotServedError

# That there is none is believed after so many answers in a row, over so many s: a file writer that
# starts anew, or a gateway before it, may say so for a moment.
ANSWERS, WITHIN_S = 3, 3.0


class Listing:
    """What is known of the list.

    Attributes
    ----------
    is_there : bool or None
        None while it is not known.
    """

    def __init__(self) -> None:
        self.is_there: bool | None = None
        self._refusals, self._since = 0, 0.0

    def begin_anew(self) -> None:
        """Ask again of one that there was not: there may be one by now."""
        if self.is_there is False:
            self.is_there, self._refusals = None, 0

    def note_given(self) -> None:
        """Note that the DCU gave it."""
        self.is_there, self._refusals = True, 0

    def note_error(self, error: DcuError, patience: float) -> bool:
        """Note that it did not come; return whether that tells for the first time there is none.

        Parameters
        ----------
        error : DcuError
            Why it did not.
        patience : float
            How long somebody waits for files, in s: before that he is to be told why.
        """
        if not isinstance(error, NotServedError):
            self._refusals = 0
            return False
        if self.is_there is not None:
            return False
        now = time.monotonic()
        if not self._refusals:
            self._since = now
        self._refusals += 1
        if self._refusals < ANSWERS or now - self._since < min(WITHIN_S, patience / 2):
            return False
        self.is_there = False
        return True
