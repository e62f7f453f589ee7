"""What a series' images follow from, in terms that the producer and the oracle share."""

import hashlib
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from sim_dcu import geometry
from sim_dcu.random_numbers import Purpose, random_bytes
from sim_dcu.scene import crystal, flat, pattern, rings, scatter, sensor
from sim_dcu.scene.bands import Bands
from sim_dcu.scene.counting import Counting
from sim_dcu.scene.optics import Optics, beam_energy
from sim_dcu.scene.poisson import CountTable, count_table
from sim_dcu.scene.spectrum import counted_share
from sim_dcu.series import ArmedSeries

POOL_IMAGES = 8
# Of the scene `flat`, which statistics are made of, where that is not too many pixels.
FLAT_POOL_IMAGES, FLAT_POOL_PIXELS = 32, 1_200_000

# The size of the blocks in which bitshuffle compresses (8192 bytes in real EIGER files).
BLOCK_BYTES = 8192

_RATES = {
    "scatter": scatter.RATES,
    "rings": rings.RATES,
    "crystal": crystal.RATES,
    "flat": flat.RATES,
}


@dataclass(frozen=True)
class PoolKey:
    """Everything of a series that its pool follows from; equal keys have equal pools.

    Attributes
    ----------
    seed : int
        The simulator's seed.
    whole, origin, shape : tuple of int
        The whole detector's shape (y, x) in pixels; of the part that is read out, the first pixel
        (row, column) and the shape.
    bits : int
        Bits of a pixel: 8, 16 or 32.
    scene : str
        What the detector sees.
    bands : Bands
        The levels of brightness.
    photons : Fraction
        What the scene's rates, in photons a second, are multiplied with to get the counts expected
        of a pixel of response 1: flux, exposure, and the share above the threshold.
    exposure : float
        In s.
    counting : Counting
        What becomes of the photons.
    flatfield_digest, mask_digest : bytes
        Of the arrays, empty where they are not applied.
    masked_count : int
        What a masked pixel reads: 2^bits - 1, or 0 where an EIGER2's `mask_to_zero` says so (API
        reference 1.8).
    flatfield : numpy.ndarray of float32, shape (y, x), or None
        The factors; None where they are not applied.
    masked : numpy.ndarray of bool, shape (y, x), or None
        The masked pixels; None where the mask is not applied.
    """

    seed: int
    whole: tuple[int, int]
    origin: tuple[int, int]
    shape: tuple[int, int]
    bits: int
    scene: str
    bands: Bands
    photons: Fraction
    exposure: float
    counting: Counting
    flatfield_digest: bytes
    mask_digest: bytes
    masked_count: int
    flatfield: np.ndarray | None = field(compare=False, repr=False)
    masked: np.ndarray | None = field(compare=False, repr=False)

    @classmethod
    def of(cls, series: ArmedSeries, exposure: float | None = None) -> "PoolKey":
        """Return the key of an armed series' images of `exposure` s, by default of `count_time`.

        Raises
        ------
        ValueError
            Where the exposure is negative.
        """
        detector = series.detector
        seconds = float(detector["count_time"]) if exposure is None else exposure
        if seconds < 0:
            raise ValueError(f"count_time is {seconds} s; an exposure cannot be negative")
        threshold = counting_threshold(detector)
        flatfield = masked = None
        if detector["flatfield_correction_applied"]:
            flatfield = np.asarray(detector[threshold.flatfield])
        if detector["pixel_mask_applied"]:
            masked = np.asarray(detector[threshold.mask]) != 0
        bits = 8 * series.dtype.itemsize
        share = counted_share(float(detector[threshold.energy]), beam_energy(series))
        return cls(
            seed=series.seed,
            whole=series.whole or series.shape,
            origin=series.origin,
            shape=series.shape,
            bits=bits,
            scene=series.beam.scene,
            bands=_bands(series),
            photons=Fraction(series.beam.flux) * Fraction(seconds) * share,
            exposure=seconds,
            counting=Counting.of(
                detector, seconds, geometry.generation_of(series.whole or series.shape)
            ),
            flatfield_digest=b"" if flatfield is None else _digest(flatfield),
            mask_digest=b"" if masked is None else hashlib.blake2b(masked.tobytes()).digest(),
            # An EIGER1 has no such parameter.
            masked_count=0 if detector.get("mask_to_zero") else (1 << bits) - 1,
            flatfield=flatfield,
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

    @property
    def pool_images(self) -> int:
        """Images in the pool."""
        return pool_images(self.scene, self.shape)

    def table(self, level: int, kind: int) -> CountTable:
        """Return the distribution of the photons that a pixel takes in an image.

        Parameters
        ----------
        level, kind : int
            How bright the scene is there, and of which kind (of `sensor`) the pixel is.
        """
        pixel = sensor.KIND_TABLE[kind]
        mean = _RATES[self.scene][level] * self.photons * pixel.response
        return count_table(*(mean + dark * Fraction(self.exposure) for dark in pixel.dark_rates))

    def spot_table(self, rung: int, kind: int) -> CountTable:
        """Return the distribution of the photons that a spot adds to those of `table`."""
        response = sensor.KIND_TABLE[kind].response
        return count_table(crystal.LADDER[rung] * self.photons * response)


@dataclass(frozen=True)
class Threshold:
    """The names of what belongs to one threshold: its energy, its flat field, its mask."""

    energy: str
    flatfield: str
    mask: str


FIRST = Threshold("threshold_energy", "flatfield", "pixel_mask")
SECOND = Threshold("threshold/2/energy", "threshold/2/flatfield", "threshold/2/pixel_mask")


def counting_threshold(detector: Mapping[str, Any]) -> Threshold:
    """Return the threshold whose counts the images are: the first one that is enabled."""
    # An EIGER1 has one, and no mode.
    first = detector.get("threshold/1/mode", "enabled") == "enabled"
    return FIRST if first else SECOND


def _bands(series: ArmedSeries) -> Bands:
    name = series.beam.scene
    if name == "scatter":
        return scatter.bands(series.whole or series.shape, series.origin)
    if name == "rings":
        return rings.bands(Optics.of(series))
    if name == "crystal":
        return crystal.bands(Optics.of(series))
    return flat.BANDS


def block_choice(series: ArmedSeries, number: int, blocks: int) -> list[int]:
    """Return from which image of the pool image `number` takes each of its blocks."""
    if series.beam.scene == "test-pattern":
        return [pattern.digit(number, block) for block in range(blocks)]
    drawn = random_bytes(series.seed, Purpose.BLOCK_CHOICE, series.series_id, number, blocks)
    return (drawn % pool_images(series.beam.scene, series.shape)).tolist()


def pool_images(name: str, shape: tuple[int, int]) -> int:
    """Return how many images the pool of a scene has: a power of two, so that a byte chooses."""
    small = shape[0] * shape[1] <= FLAT_POOL_PIXELS
    return FLAT_POOL_IMAGES if name == "flat" and small else POOL_IMAGES


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


# By an array's identity; arrays of a configuration are never changed in place.
_digests: dict[int, tuple["weakref.ref[np.ndarray]", bytes]] = {}


def _digest(array: np.ndarray) -> bytes:
    """Return the digest of an array's bytes, worked out once for as long as it lives."""
    known = _digests.get(id(array))
    if known is not None and known[0]() is array:
        return known[1]
    digest = hashlib.blake2b(array.tobytes()).digest()
    place = id(array)
    _digests[place] = weakref.ref(array, lambda _: _digests.pop(place, None)), digest
    return digest
