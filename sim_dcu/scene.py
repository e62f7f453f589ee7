"""What the simulated detector looks at: the definition of every pixel's expected count.

The scene is the air scatter around a beam stop with a few powder rings. Everything is decided in
integers, so that an image depends on no machine, no numpy version and no rounding:

* a pixel's *level* follows from its squared distance from the detector's middle, in half pixels;
* a level's expected count is its rate times the exact value of `count_time`;
* a count is the number of a level's thresholds that a 16-bit random number reaches;
* random numbers are the raw output of Philox 4x64-10 with key and counter spelled out here.

A *pool* of `POOL_IMAGES` images is drawn so. Image n of a series takes each of its blocks of
`BLOCK_BYTES` bytes from the same place of one pool image, chosen anew for each block by the raw
output that belongs to (seed, series, n). The producer then has to compress the pool alone.

This module holds the definition; `oracle` and `images` each follow it in their own way. It knows
nothing of codecs or files.
"""

import functools
import hashlib
from dataclasses import dataclass, field
from enum import IntEnum
from fractions import Fraction

import numpy as np

from sim_dcu.series import ArmedSeries

POOL_IMAGES = 8

# The size of the blocks in which bitshuffle compresses (8192 bytes in real EIGER files).
BLOCK_BYTES = 8192

# Each level's outer radius in pixels and its rate in photons a pixel in 1,000,000 s; the last
# level has no outer radius. Chosen to look like diffraction and to compress like it: 0.1 photons a
# pixel and second far out, a few on the rings.
LEVELS: tuple[tuple[int | None, int], ...] = (
    (14, 4_000),  # the beam stop's shadow
    (22, 2_500_000),
    (34, 1_400_000),
    (52, 800_000),
    (76, 500_000),
    (80, 3_000_000),  # ring
    (112, 350_000),
    (115, 5_000_000),  # ring
    (160, 260_000),
    (164, 1_500_000),  # ring
    (215, 200_000),
    (219, 4_000_000),  # ring
    (280, 160_000),
    (283, 2_200_000),  # ring
    (360, 130_000),
    (364, 3_300_000),  # ring
    (450, 110_000),
    (453, 1_200_000),  # ring
    (620, 100_000),
    (624, 1_800_000),  # ring
    (950, 85_000),
    (955, 900_000),  # ring
    (1500, 70_000),
    (None, 60_000),
)
RATE_SECONDS = 1_000_000

# Squared outer radii in half pixels: a pixel's level is the number of bounds that are not larger
# than its own squared distance.
LEVEL_BOUNDS = tuple(4 * radius * radius for radius, _ in LEVELS if radius is not None)

RANDOM_BITS = 16


class Purpose(IntEnum):
    """What a stream of random numbers is for; no two purposes share numbers."""

    POOL = 1
    BLOCK_CHOICE = 2
    BAD_PIXELS = 3
    FLATFIELD = 4


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


@dataclass(frozen=True)
class CountTable:
    """A Poisson distribution as integers.

    Attributes
    ----------
    lowest : int
        The smallest count that occurs.
    thresholds : tuple of int
        Ascending, from 1 to 2^16 - 1. A random number u of 16 bits stands for the count
        `lowest` + (how many thresholds are <= u).
    """

    lowest: int
    thresholds: tuple[int, ...]


@functools.lru_cache(maxsize=256)
def count_table(mean: Fraction) -> CountTable:
    """Return the table of a Poisson distribution with an expected count of `mean`.

    Probabilities are right to 2^-16: what is rarer than half of that does not occur.
    """
    mode = int(mean)
    up, down = mean.numerator, mean.denominator
    unit = 1 << 128  # The mode's weight; integer division loses what is 2^-128 of it.
    above, weight, count = [], unit, mode
    while weight:
        above.append(weight)
        count += 1
        weight = weight * up // (down * count)
    below, count = [], mode
    weight = unit * mode * down // up if mode else 0
    while weight:
        below.append(weight)
        count -= 1
        weight = weight * count * down // up
    weights = below[::-1] + above
    total = sum(weights)
    lowest = mode - len(below)
    thresholds, cumulated = [], 0
    for weight in weights:
        cumulated += weight
        threshold = ((cumulated << (RANDOM_BITS + 1)) + total) // (2 * total)  # to the nearest
        if threshold == 0:
            lowest += 1
        elif threshold < 1 << RANDOM_BITS:
            thresholds.append(threshold)
    return CountTable(lowest, tuple(thresholds))


def level_tables(count_time: float) -> tuple[CountTable, ...]:
    """Return the table of each level for an exposure of `count_time` s, taken as it is in binary.

    Raises
    ------
    ValueError
        Where `count_time` is negative.
    """
    exposure = Fraction(count_time)
    if exposure < 0:
        raise ValueError(f"count_time is {count_time} s; an exposure cannot be negative")
    return tuple(count_table(exposure * rate / RATE_SECONDS) for _, rate in LEVELS)


@dataclass(frozen=True)
class PoolKey:
    """Everything of a series that its pool follows from; equal keys have equal pools.

    Attributes
    ----------
    seed : int
        The simulator's seed.
    shape : tuple of int
        (y, x) in pixels.
    bits : int
        Bits of a pixel: 8, 16 or 32.
    count_time : float
        In s.
    mask_digest : bytes
        SHA-256 of which pixels are masked, empty where the mask is not applied.
    masked_count : int
        What a masked pixel reads: 2^bits - 1, or 0 where an EIGER2's `mask_to_zero` says so (API
        reference 1.8).
    masked : numpy.ndarray of bool, shape (y, x), or None
        The masked pixels; None where the mask is not applied.
    """

    seed: int
    shape: tuple[int, int]
    bits: int
    count_time: float
    mask_digest: bytes
    masked_count: int
    masked: np.ndarray | None = field(compare=False, repr=False)

    @classmethod
    def of(cls, series: ArmedSeries) -> "PoolKey":
        """Return the key of an armed series."""
        masked, digest = None, b""
        if series.detector["pixel_mask_applied"]:
            masked = np.asarray(series.detector["pixel_mask"]) != 0
            digest = hashlib.sha256(masked).digest()
        bits = 8 * series.dtype.itemsize
        return cls(
            seed=series.seed,
            shape=series.shape,
            bits=bits,
            count_time=float(series.detector["count_time"]),
            mask_digest=digest,
            # An EIGER1 has no such parameter.
            masked_count=0 if series.detector.get("mask_to_zero") else (1 << bits) - 1,
            masked=masked,
        )

    @property
    def block_pixels(self) -> int:
        """Pixels in a block; an image's last block holds what is left."""
        return BLOCK_BYTES * 8 // self.bits

    @property
    def blocks(self) -> int:
        """Blocks in an image."""
        return -(-self.shape[0] * self.shape[1] // self.block_pixels)


def check_number(series: ArmedSeries, number: int) -> None:
    """Refuse an image that a series does not have.

    Raises
    ------
    IndexError
        Where `number` is not from 1 to nimages x ntrigger.
    """
    if not 1 <= number <= series.images:
        raise IndexError(
            f"series {series.series_id} has images 1 to {series.images}, not image {number}"
        )
