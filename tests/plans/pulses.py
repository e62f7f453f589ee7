"""A source of triggers beside the plan: it watches a motor and pulses the detector's input."""

import threading

from ophyd.status import Status


class Pulses:
    """Pulses a simulated detector's trigger input where a motor passes, as hardware would.

    Parameters
    ----------
    dcu : sim_dcu.server.Server
        Whose input it is.
    motor : SimulatedMotor
        What it watches.
    loses : int, optional
        Number of a pulse, from 0, that does not reach the detector.
    ends : bool
        Whether it tells that it gave its last pulse.

    Attributes
    ----------
    given : list of (float, bool)
        Where the motor was at each pulse, and whether the detector took it.
    stopped : bool
        Whether it was told to stop.
    """

    parent = None

    def __init__(self, dcu, motor, loses=None, ends=True):
        self.name = "pulses"
        self.given = []
        self.trains = []
        self.stopped = False
        self._dcu = dcu
        self._motor = motor
        self._loses = loses
        self._ends = ends
        self._over = threading.Event()
        self._done = None

    def prepare(self, value):
        self.trains.append(value)
        return _finished()

    def kickoff(self):
        self._over.clear()
        self._done = Status()
        threading.Thread(target=self._watch, args=(self.trains[-1],), daemon=True).start()
        return _finished()

    def complete(self):
        return self._done

    def stop(self, *, success=False):
        self.stopped = True
        self._over.set()

    def _watch(self, train):
        direction = 1 if train.step > 0 else -1
        for number in range(train.pulses):
            due = train.first + number * train.step
            while (position := self._motor.position) * direction < due * direction:
                if self._over.wait(0.0005):
                    return
            if number != self._loses:
                self.given.append((position, self._dcu.pulse()))
        if self._ends:
            self._done.set_finished()


def _finished():
    status = Status()
    status.set_finished()
    return status
