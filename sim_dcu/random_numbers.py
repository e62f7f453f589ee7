"""Random numbers that depend on no machine and no numpy version; knows nothing of detectors."""

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a stream of random numbers is for; no two purposes share numbers."""

    POOL = 1
    BLOCK_CHOICE = 2
    BAD_PIXELS = 3
    FLATFIELD = 4
    REFLECTIONS = 5
    SPOTS = 6


# A count of Philox gives four words of 64 bits.
COUNTER_BYTES = 32


def random_bytes(
    seed: int, purpose: Purpose, series_id: int, number: int, size: int, *, skipped: int = 0
) -> np.ndarray:
    """Return random bytes that belong to the arguments alone.

    The raw 64-bit output, least significant byte first, of Philox 4x64-10 with the key
    (seed modulo 2^64, 0) and a counter that starts at (0, number, series_id, purpose), lowest
    word first. `skipped` bytes, a multiple of `COUNTER_BYTES`, are left out at the start.

    Returns
    -------
    numpy.ndarray of uint8, shape (size,)
    """
    generator = np.random.Philox(
        key=np.array([seed % (1 << 64), 0], dtype=np.uint64),
        counter=np.array([skipped // COUNTER_BYTES, number, series_id, purpose], dtype=np.uint64),
    )
    return generator.random_raw(-(-size // 8)).astype("<u8").view(np.uint8)[:size]
