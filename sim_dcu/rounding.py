"""How each generation keeps its floats.

EIGER1 keeps them in single precision and prints them as doubles (replies of a real EIGER 500K,
firmware 1.6.6); EIGER2 prints nine decimals (replies quoted by users of firmware 2020.2), and the
simulator keeps what it prints.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

FLOAT32_MAX = float(np.finfo(np.float32).max)


def float32(value: float) -> float:
    """Return `value` rounded to single precision."""
    return float(np.float32(value))


def float32_above(value: float) -> float:
    """Return the smallest single-precision number not below `value`."""
    rounded = np.float32(value)
    if float(rounded) < value:
        rounded = np.nextafter(rounded, np.float32(np.inf))
    return float(rounded)


def float32_below(value: float) -> float:
    """Return the largest single-precision number not above `value`."""
    return -float32_above(-value)


def decimal(value: float) -> float:
    """Return `value` rounded to the nine decimals that EIGER2 prints."""
    # Whole numbers too are printed with decimals.
    return round(float(value), 9)


def decimal_above(value: float) -> float:
    """Return the smallest number of nine decimals not below `value`."""
    rounded = round(value, 9)
    while rounded < value:
        # Above 1e7 the next number of double precision is further away than a decimal.
        rounded = round(max(rounded + 1e-9, math.nextafter(rounded, math.inf)), 9)
    return rounded


def decimal_below(value: float) -> float:
    """Return the largest number of nine decimals not above `value`."""
    return -decimal_above(-value)


@dataclass(frozen=True)
class Rounding:
    """How a generation keeps floats: the nearest, next higher and next lower one it can keep."""

    nearest: Callable[[float], float]
    above: Callable[[float], float]
    below: Callable[[float], float]


SINGLE = Rounding(float32, float32_above, float32_below)
DECIMAL = Rounding(decimal, decimal_above, decimal_below)
