"""How a pixel answers to photons: the true response, and what is planted among the pixels.

A detector's flat field is what the factory measured of the response, close to it but not the same;
its mask is what the factory found of the bad pixels, and some have gone bad since.
"""

import functools
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from sim_dcu import geometry

# Good pixels come in so many kinds, numbered from 0, that differ in their response.
RESPONSES = 8
# Then the place of what is no pixel, and the kinds of bad ones.
GAP, DEAD, UNDER_RESPONDING, OVER_RESPONDING, NOISY = range(RESPONSES, RESPONSES + 5)
KINDS = RESPONSES + 5
# What a mask would say of each kind.
MASK_BITS = (
    *(0,) * RESPONSES,
    geometry.GAP,
    geometry.DEAD,
    geometry.UNDER_RESPONDING,
    geometry.OVER_RESPONDING,
    geometry.NOISY,
)


@dataclass(frozen=True)
class Kind:
    """What pixels of one kind count.

    Attributes
    ----------
    response : Fraction
        Counts for each count of a pixel of response 1.
    dark_rates : tuple of int
        Counts a second without a photon; of several, each image has one by chance.
    """

    response: Fraction
    dark_rates: tuple[int, ...] = (0,)


def response(kind: int) -> Fraction:
    """Return the response of a kind of good pixels: 1 / (the middle of its flat field's steps)."""
    steps = geometry.FLATFIELD_STEPS
    middle = Fraction(256 // RESPONSES * (2 * kind + 1) - 256, 2)
    return Fraction(steps) / (steps + middle)


# Rates of bad pixels are estimates: a hot one that is lost on a strong reflection and stands out of
# air scatter, and a noisy one that is loud in half of the images.
KIND_TABLE: tuple[Kind, ...] = (
    *(Kind(response(kind)) for kind in range(RESPONSES)),
    Kind(Fraction(0)),
    Kind(Fraction(0)),
    Kind(Fraction(1, 2)),
    Kind(Fraction(1), (100,)),
    Kind(Fraction(1), (10, 90)),
)


@dataclass(frozen=True)
class Planted:
    """What is so of a detector's pixels, whether or not its calibration knows it.

    Attributes
    ----------
    response : numpy.ndarray of float64, shape (y, x)
        Counts for each count of a pixel of response 1; 0 for dead pixels and in the gaps.
    pixel_mask : numpy.ndarray of uint32, shape (y, x)
        The mask that would name every gap and every bad pixel.
    """

    response: np.ndarray
    pixel_mask: np.ndarray


@functools.lru_cache(maxsize=4)
def kinds(
    seed: int, whole: tuple[int, int], origin: tuple[int, int], shape: tuple[int, int]
) -> np.ndarray:
    """Return each pixel's kind.

    Parameters
    ----------
    seed : int
        Chooses the bad pixels.
    whole : tuple of int
        The shape (y, x) of the whole detector.
    origin, shape : tuple of int
        The first pixel (row, column) and the shape (y, x) of the part of it that is read out.

    Returns
    -------
    numpy.ndarray of uint8, shape (y, x), read-only
        From 0 to `KINDS` - 1.
    """
    generation = geometry.generation_of(whole)
    modules = geometry.module_counts(whole, generation)
    found = geometry.response_bytes(*modules, generation) // np.uint8(256 // RESPONSES)
    planted = geometry.planted_pixel_mask(*modules, seed, generation)
    for kind in range(RESPONSES, KINDS):
        found[planted == MASK_BITS[kind]] = kind
    rows, columns = (slice(first, first + n) for first, n in zip(origin, shape, strict=True))
    part = np.ascontiguousarray(found[rows, columns])
    part.flags.writeable = False
    return part
