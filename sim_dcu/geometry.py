"""How modules make up a detector: sizes, gaps, and the calibration arrays a detector comes with.

Knows modules and pixels. Knows nothing of series, images or files.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sim_dcu.random_numbers import Purpose, random_bytes

# What the bits of a pixel mask mean (SIMPLON API reference 1.3, detector configuration).
GAP = 1 << 0
DEAD = 1 << 1
UNDER_RESPONDING = 1 << 2
OVER_RESPONDING = 1 << 3
NOISY = 1 << 4

# Bad pixels of one module by mask bit. About 30 in a million, an estimate: an EIGER 500K reported
# 8 excluded pixels, an EIGER 9M 961 beside its gaps.
BAD_PIXELS = ((DEAD, 8), (OVER_RESPONDING, 4), (NOISY, 4))
# Those of one module that have gone bad since, which the factory's mask does not know: estimates.
NEW_BAD_PIXELS = ((DEAD, 3), (UNDER_RESPONDING, 2), (OVER_RESPONDING, 3), (NOISY, 2))

# The flat field's factors differ from 1 by half steps of this part of it.
FLATFIELD_STEPS = 1 << 15


@dataclass(frozen=True)
class Generation:
    """How one generation of detectors is built; every length is in pixels.

    Attributes
    ----------
    module_x, module_y : int
        Size of a module, its interpolated or missing chip seams included.
    gap_x, gap_y : int
        Distance between neighbouring modules.
    """

    module_x: int
    module_y: int
    gap_x: int
    gap_y: int

    @property
    def pitch_x(self) -> int:
        """Distance in pixels from a module's first column to the next module's."""
        return self.module_x + self.gap_x

    @property
    def pitch_y(self) -> int:
        """Distance in pixels from a module's first row to the next module's."""
        return self.module_y + self.gap_y


EIGER1 = Generation(module_x=1030, module_y=514, gap_x=10, gap_y=37)
EIGER2 = Generation(module_x=1028, module_y=512, gap_x=12, gap_y=38)


@dataclass(frozen=True)
class HalfModule:
    """One read-out unit: the upper or the lower half of a module.

    Attributes
    ----------
    origin_x, origin_y : int
        Where its first pixel lies in the image: on the line between the module's two halves.
    rotation : int
        0 or 180, in degrees.
    """

    origin_x: int
    origin_y: int
    rotation: int


def detector_size(
    modules_x: int, modules_y: int, generation: Generation = EIGER1
) -> tuple[int, int]:
    """Return the shape (y, x) in pixels of a detector of `modules_x` by `modules_y` modules."""
    return (
        modules_y * generation.pitch_y - generation.gap_y,
        modules_x * generation.pitch_x - generation.gap_x,
    )


def module_counts(shape: tuple[int, int], generation: Generation = EIGER1) -> tuple[int, int]:
    """Return how many modules (x, y) make up an image of `shape` (y, x).

    Raises
    ------
    ValueError
        Where no whole number of modules has that size.
    """
    modules_x = (shape[1] + generation.gap_x) // generation.pitch_x
    modules_y = (shape[0] + generation.gap_y) // generation.pitch_y
    if detector_size(modules_x, modules_y, generation) != tuple(shape):
        raise ValueError(
            f"no whole number of {generation.module_x} x {generation.module_y} modules makes an "
            f"image of {shape[1]} x {shape[0]} pixels"
        )
    return modules_x, modules_y


def generation_of(shape: tuple[int, int]) -> Generation:
    """Return the generation whose modules make up an image of `shape` (y, x).

    Raises
    ------
    ValueError
        Where none of them does.
    """
    try:
        module_counts(shape, EIGER2)
    except ValueError:
        module_counts(shape, EIGER1)
        return EIGER1
    return EIGER2


def module_origins(
    modules_x: int, modules_y: int, generation: Generation = EIGER1
) -> Iterator[tuple[int, int]]:
    """Yield where each module's first pixel lies as (row, column), row by row."""
    for j in range(modules_y):
        for i in range(modules_x):
            yield j * generation.pitch_y, i * generation.pitch_x


def half_modules(
    modules_x: int, modules_y: int, generation: Generation = EIGER1
) -> list[HalfModule]:
    """Return the read-out units, two a module, module by module.

    The origins are those of a real EIGER 9M master file: both halves start on the line between
    them, the one turned by 180 degrees at the module's right edge.
    """
    halves = []
    for row, column in module_origins(modules_x, modules_y, generation):
        middle = row + generation.module_y // 2
        halves.append(HalfModule(column, middle, 0))
        halves.append(HalfModule(column + generation.module_x, middle, 180))
    return halves


def default_pixel_mask(
    modules_x: int, modules_y: int, seed: int, generation: Generation = EIGER1
) -> np.ndarray:
    """Return the mask a detector leaves the factory with.

    Parameters
    ----------
    modules_x, modules_y : int
        Number of modules along each axis.
    seed : int
        Chooses which pixels of each module are bad.

    Returns
    -------
    numpy.ndarray of uint32, shape (y, x)
        0 for good pixels; bit 0 in the gaps; bits 1, 3 and 4 on a few dead, over-responding and
        noisy pixels (`BAD_PIXELS`).
    """
    return _mask_of(BAD_PIXELS, modules_x, modules_y, seed, generation)


def planted_pixel_mask(
    modules_x: int, modules_y: int, seed: int, generation: Generation = EIGER1
) -> np.ndarray:
    """Return what a mask should say: that of the factory, with what has gone bad since.

    Returns
    -------
    numpy.ndarray of uint32, shape (y, x)
        As of `default_pixel_mask`, with the pixels of `NEW_BAD_PIXELS`.
    """
    return _mask_of((*BAD_PIXELS, *NEW_BAD_PIXELS), modules_x, modules_y, seed, generation)


def _mask_of(
    kinds: tuple[tuple[int, int], ...],
    modules_x: int,
    modules_y: int,
    seed: int,
    generation: Generation,
) -> np.ndarray:
    """Return a mask with bad pixels in each module; more kinds leave those before in place."""
    mask = np.full(detector_size(modules_x, modules_y, generation), GAP, dtype="<u4")
    bits = [bit for bit, count in kinds for _ in range(count)]
    for index, (row, column) in enumerate(module_origins(modules_x, modules_y, generation)):
        mask[row : row + generation.module_y, column : column + generation.module_x] = 0
        places = _distinct_places(seed, index, len(bits), generation.module_x * generation.module_y)
        for place, bit in zip(places, bits, strict=True):
            y, x = divmod(place, generation.module_x)
            mask[row + y, column + x] = bit
    return mask


def _distinct_places(seed: int, module: int, count: int, pixels: int) -> list[int]:
    # Four times as many draws as places: a repeat among half a million pixels is rare, a module
    # where 3/4 of the draws repeat does not occur.
    draws = random_bytes(seed, Purpose.BAD_PIXELS, 0, module, 4 * 8 * count).view("<u8")
    return list(dict.fromkeys(int(draw) % pixels for draw in draws))[:count]


def default_flatfield(
    modules_x: int, modules_y: int, generation: Generation = EIGER1
) -> np.ndarray:
    """Return the factory's flatfield: factors within 0.4 % of 1, exactly 1 in the gaps.

    The factors are whole multiples of 2^-15 off 1, which float32 holds exactly. They do not depend
    on the seed: a simulated detector has one calibration.

    Returns
    -------
    numpy.ndarray of float32, shape (y, x)
        The factor each pixel's counts are multiplied with.
    """
    shape = detector_size(modules_x, modules_y, generation)
    flatfield = np.ones(shape, dtype="<f4")
    steps = response_bytes(modules_x, modules_y, generation).astype("<f4") - np.float32(127.5)
    for row, column in module_origins(modules_x, modules_y, generation):
        module = (
            slice(row, row + generation.module_y),
            slice(column, column + generation.module_x),
        )
        flatfield[module] += steps[module] / np.float32(FLATFIELD_STEPS)
    return flatfield


def response_bytes(modules_x: int, modules_y: int, generation: Generation = EIGER1) -> np.ndarray:
    """Return what the flat field follows from: uint8, (y, x); 0 in the gaps."""
    drawn = np.zeros(detector_size(modules_x, modules_y, generation), dtype=np.uint8)
    shape = (generation.module_y, generation.module_x)
    for index, (row, column) in enumerate(module_origins(modules_x, modules_y, generation)):
        raw = random_bytes(0, Purpose.FLATFIELD, 0, index, shape[0] * shape[1]).reshape(shape)
        drawn[row : row + shape[0], column : column + shape[1]] = raw
    return drawn
