"""Sees beside the plan where a motor is and when the simulated detector exposes its images."""

import threading
import time

import numpy as np


class Witness:
    """Looks at a motor and a detector all the time; use it with `with`.

    Parameters
    ----------
    dcu : sim_dcu.server.Server
        The detector.
    motor : SimulatedMotor
        The motor.
    """

    def __init__(self, dcu, motor):
        self._series = dcu.dcu.detector.series
        self._motor = motor
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._samples = []
        self._ends: dict[int, list[float]] = {}
        self._seen: dict[object, int] = {}
        self._exposed = threading.Condition()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def wait_for(self, images):
        """Wait until a series has so many images; return whether it came to that."""
        with self._exposed:
            return self._exposed.wait_for(
                lambda: any(len(ends) >= images for ends in self._ends.values()), timeout=60
            )

    def wait_for_series(self, number, images):
        """Wait until one series has so many images; return whether it came to that."""
        with self._exposed:
            return self._exposed.wait_for(
                lambda: len(self._ends.get(number, [])) >= images, timeout=60
            )

    def positions(self, series, exposure):
        """Return where the motor was at the start and the end of each image of a series."""
        times, places = np.transpose(self._samples)
        ends = np.array(self._ends[series])
        return np.interp(ends - exposure, times, places), np.interp(ends, times, places)

    def _look(self):
        while not self._over.wait(0.001):
            self._samples.append((time.monotonic(), self._motor.position))
            acquisition = self._series.acquisition
            if acquisition is None:
                continue
            # The id is another one before the acquisition is.
            seen = self._seen.get(acquisition, 0)
            if acquisition.exposed > seen:
                with self._exposed:
                    ends = self._ends.setdefault(self._series.series_id, [])
                    ends += [time.monotonic()] * (acquisition.exposed - seen)
                    self._seen[acquisition] = acquisition.exposed
                    self._exposed.notify_all()
