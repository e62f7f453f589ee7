"""Has those who have something to tell tell it where Python ends, which nobody else would."""

import atexit
import os
import weakref
from typing import Protocol


class Teller(Protocol):
    """Who may have something to tell at the end."""

    def tell_what_is_left(self) -> None:
        """Tell it, if there is anything."""
        ...


# And in which process: what another one forked has at its end is not its own.
_tellers: "weakref.WeakKeyDictionary[Teller, int]" = weakref.WeakKeyDictionary()


def tell_at_the_end(teller: Teller) -> None:
    """Ask somebody, as long as he is there, what is left when this process ends."""
    _tellers[teller] = os.getpid()


@atexit.register
def _tell() -> None:
    for teller, process in tuple(_tellers.items()):
        if process == os.getpid():
            teller.tell_what_is_left()
