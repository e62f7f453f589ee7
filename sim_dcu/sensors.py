"""What a detector measures of itself: temperature, humidity, links, the room left for files.

Knows no resource's name but the sensors'; tells what it would measure now, and nothing remembers.
"""

import math
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

from sim_dcu.faults import Faults

# A real EIGER 500K's two readings, 24.879453125 C and 3.552001953125 %, are exact steps of a
# Sensirion SHT21's transfer functions (its data sheet, 6.1 and 6.2) with 14 and 12 bits.
TEMPERATURE_STEP, HUMIDITY_STEP = 4, 16
# Around these, as an idle detector with its chiller on; how much they move is an estimate.
TYPICAL = {"temperature": 24.9, "humidity": 3.6}
SWING = {"temperature": 0.3, "humidity": 0.4}
PERIOD = 600.0  # s
NOISE = {"temperature": 0.05, "humidity": 0.15}


class Sensors:
    """The sensors of one detector.

    Parameters
    ----------
    links : sequence of str
        The names of the links fitted.
    free : callable
        Returns the room left for files, in percent.
    seed : int
        Of the noise.
    faults : Faults
        May have a sensor read what it does not measure.

    Attributes
    ----------
    typical : dict
        What temperature (C) and humidity (%) move around.
    links : dict
        "up" or "down" by link; whoever pulls a plug changes it.
    """

    def __init__(
        self, links: tuple[str, ...], free: Callable[[], float], seed: int, faults: Faults
    ):
        self.typical = dict(TYPICAL)
        self.links = dict.fromkeys(links, "up")
        self._free = free
        self._faults = faults
        self._random = random.Random(seed)
        self._start = time.monotonic()

    def measure(self) -> Mapping[str, Any]:
        """Return what every sensor shows now."""
        phase = 2 * math.pi * (time.monotonic() - self._start) / PERIOD
        raw = {
            name: self.typical[name]
            + SWING[name] * math.sin(phase)
            + self._random.uniform(-NOISE[name], NOISE[name])
            for name in self.typical
        }
        if self._faults.active:
            for name in raw:
                raw[name] = (
                    given if (given := self._faults.reading(name)) is not None else raw[name]
                )
        # T = -46.85 + 175.72 S / 2^16 and RH = -6 + 125 S / 2^16.
        return {
            "temperature": _stepped(raw["temperature"], -46.85, 175.72, TEMPERATURE_STEP),
            "humidity": max(0.0, _stepped(raw["humidity"], -6.0, 125.0, HUMIDITY_STEP)),
            "buffer": self._free(),
            **self.links,
        }


def _stepped(value: float, offset: float, span: float, step: int) -> float:
    signal = round((value - offset) / span * 2**16 / step) * step
    return offset + span * signal / 2**16
