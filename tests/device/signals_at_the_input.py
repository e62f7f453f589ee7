"""What makes the signals at a simulated detector's trigger input."""

import contextlib
import threading


@contextlib.contextmanager
def signals(dcu, *, gate=None, most=10**6):
    """Give a signal whenever the detector waits for one, as hardware beside the plan would.

    Parameters
    ----------
    dcu : sim_dcu.server.Server
        Whose input it is.
    gate : float, optional
        How long the gate is open in s (exte); a pulse without it (exts).
    most : int
        How many signals at most.
    """
    over = threading.Event()
    taken = []

    def give():
        while len(taken) < most and not over.wait(0.002):
            if dcu.gate(gate) if gate is not None else dcu.pulse():
                taken.append(1)

    thread = threading.Thread(target=give, daemon=True)
    thread.start()
    try:
        yield taken
    finally:
        over.set()
        thread.join()


def one_signal(dcu, within=20.0):
    """Give one signal (exts), as soon as the detector waits for it."""
    taken = threading.Event()

    def give():
        while not dcu.pulse():
            if taken.wait(0.002):
                return
        taken.set()

    threading.Thread(target=give, daemon=True).start()
    try:
        assert taken.wait(within), "the detector waits for no signal"
    finally:
        taken.set()
