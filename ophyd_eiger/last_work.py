"""Lets a thread leave HDF5 before Python ends.

A daemon thread that is in HDF5 then is stopped there for ever, with the lock that h5py has around
all of HDF5; and Python, which closes the files that are left, waits for that lock without end.
"""

import atexit
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# In s: within so long of the last thing that it is told to do Python has stopped its threads.
ENDS_WITHIN_S = 1.0
_state = threading.Condition()
_inside = 0
_ends = False


@contextmanager
def in_hdf5() -> Iterator[None]:
    """Have the end of Python wait for the block; a daemon thread that is too late begins none."""
    global _inside, _ends
    if not threading.current_thread().daemon:
        # Python waits for it in any case.
        yield
        return
    with _state:
        if not _state.wait_for(lambda: not _ends, ENDS_WITHIN_S):
            # It was not stopped: what was registered before, as by IPython, has more to do first,
            # or it is part of work that Python waits for.
            _ends = False
        _inside += 1
    try:
        yield
    finally:
        with _state:
            _inside -= 1
            _state.notify_all()


def _end() -> None:
    global _ends
    with _state:
        _ends = True
        _state.wait_for(lambda: not _inside)


atexit.register(_end)
