"""What many images become, one at a time, so that they are never in memory together.

A pixel that holds the largest value of its type is one that the detector masked, or that counted
beyond what its type or the count-rate correction can say; files do not tell these apart. Each
reduction says what it makes of it. Knows nothing of files: images come from whoever has them.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ophyd_eiger.errors import RegionError
from ophyd_eiger.image_file import Box, Geometry
from ophyd_eiger.regions import check_inside, checked_rois
from ophyd_eiger.series_metadata import HC, SeriesMetadata

# What is put in place of a sum of a pixel that was masked or beyond its range in any image.
NO_SUM = np.iinfo(np.uint64).max
UNITS = {"q": "1/angstrom", "2theta": "degree", "radius": "pixel"}
# Pixels that are gone through at a time: their bytes stay in a processor's own cache meanwhile.
_BAND = 2**16
# A count is strong from this part of its type's range on. Strong pixels are added one by one, if
# there is no more than one in so many of all pixels.
_STRONG, _FEW = 8, 64
# Images of which fewer than so many could be added in their own type are added to 64 bits at once.
_FLUSH_AFTER = 3
# Sums kept beside one another at most: each takes the memory of four to ten images.
_SUMS = 4


class Images(Protocol):
    """Where images come from."""

    @property
    def geometry(self) -> Geometry:
        """Shape and type of each image."""
        ...

    @property
    def threads(self) -> int:
        """How many threads `for_each` uses."""
        ...

    def for_each(
        self,
        numbers: Sequence[int],
        use: Callable[[int, np.ndarray], None],
        box: Box | None = None,
    ) -> None:
        """Call `use` with the place in `numbers` and each image, from several threads.

        The array is used again for the next image.
        """
        ...


@dataclass(frozen=True, eq=False)
class Hits:
    """Pixels with counts.

    Attributes
    ----------
    image, y, x : numpy.ndarray
        uint32 of shape (hits,): number of the image, counted from 0 in the series, row, column.
    counts : numpy.ndarray
        Of shape (hits,) and the images' type.
    """

    image: np.ndarray
    y: np.ndarray
    x: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True, eq=False)
class RadialProfile:
    """Counts by the distance from the beam.

    Attributes
    ----------
    positions : numpy.ndarray
        float64 of shape (bins,): the middle of each bin, in `unit`.
    intensity : numpy.ndarray
        float64 of shape (bins,): mean counts of a pixel in an image; NaN where a bin has no pixel.
    pixels : numpy.ndarray
        int64 of shape (bins,): how many pixels are in each.
    unit : str
        "1/angstrom", "degree" or "pixel".
    """

    positions: np.ndarray
    intensity: np.ndarray
    pixels: np.ndarray
    unit: str


class _Sum:
    """The sum of the images that one thread after the other has added.

    Images are added in their own type for as long as no pixel's sum can exceed its range: a
    processor does that in a fraction of the time that adding to 64 bits takes. Pixels that hold the
    largest value overflow at will; they have no sum.
    """

    def __init__(self, geometry: Geometry) -> None:
        pixels = geometry.shape[0] * geometry.shape[1]
        self._shape = geometry.shape
        self._largest = int(np.iinfo(geometry.dtype).max)
        self._limit = self._largest // _STRONG
        self._total = np.zeros(pixels, np.uint64)
        self._small = np.zeros(pixels, geometry.dtype)
        # What a pixel's small sum may have come to.
        self._bound = 0
        # The smallest of each pixel's counts plus one, which is 0 where one was the largest value.
        self._least = np.full(pixels, self._largest, geometry.dtype)
        self._more = np.empty(min(pixels, _BAND), geometry.dtype)

    def add(self, image: np.ndarray) -> None:
        """Add an image of the geometry's shape."""
        pixels = image.reshape(-1)
        strongest, many_are_strong = self._look_at(pixels)
        strong = np.empty(0, np.intp)
        if strongest > self._limit and not many_are_strong:
            strong = np.flatnonzero((pixels > self._limit) & (pixels < self._largest))
            strongest = self._limit
        if strongest > self._largest // _FLUSH_AFTER:
            self._total += pixels
            return
        if self._bound + strongest > self._largest:
            self._flush()
        np.add(self._small, pixels, out=self._small)
        # What was added there is taken away again: these go into the sum themselves.
        self._small[strong] -= pixels[strong]
        self._total[strong] += pixels[strong]
        self._bound += strongest

    def _look_at(self, pixels: np.ndarray) -> tuple[int, bool]:
        """Note which pixels hold the largest value.

        Return the largest count of all others, and whether many are strong.
        """
        most, strong = 0, 0
        for start in range(0, len(pixels), _BAND):
            band = pixels[start : start + _BAND]
            more = np.add(band, 1, out=self._more[: len(band)])
            least = self._least[start : start + _BAND]
            np.minimum(least, more, out=least)
            of_band = int(more.max())
            most = max(most, of_band)
            if of_band - 1 > self._limit:
                strong += int(np.count_nonzero(more > self._limit + 1))
        return max(most - 1, 0), strong > len(pixels) // _FEW

    def _flush(self) -> None:
        self._total += self._small
        self._small[...] = 0
        self._bound = 0

    def take(self, other: "_Sum") -> None:
        """Add the images of another sum."""
        other._flush()  # noqa: SLF001 - one of the same class
        self._total += other._total  # noqa: SLF001 - one of the same class
        np.minimum(self._least, other._least, out=self._least)  # noqa: SLF001 - as above

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the sum, and where it is none: masked, or beyond the range in any image."""
        self._flush()
        return self._total.reshape(self._shape), (self._least == 0).reshape(self._shape)


def _summed(images: Images, numbers: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of images, and where it is none: masked, or beyond the range in any."""
    sums = [_Sum(images.geometry) for _ in range(max(1, min(images.threads, _SUMS, len(numbers))))]
    free: queue.SimpleQueue[_Sum] = queue.SimpleQueue()
    for one in sums:
        free.put(one)

    def use(_: int, image: np.ndarray) -> None:
        one = free.get()
        try:
            one.add(image)
        finally:
            free.put(one)

    images.for_each(numbers, use)
    for other in sums[1:]:
        sums[0].take(other)
    return sums[0].result()


def sum_of(images: Images, numbers: Sequence[int]) -> np.ndarray:
    """Return the sum of images, uint64 of shape (y, x); `NO_SUM` where it is none."""
    total, none = _summed(images, numbers)
    total[none] = NO_SUM
    return total


def mean_of(images: Images, numbers: Sequence[int]) -> np.ndarray:
    """Return the mean of images, float64 of shape (y, x); NaN where it is none."""
    total, none = _summed(images, numbers)
    if not len(numbers):
        return np.full(total.shape, np.nan)
    mean = total / len(numbers)
    mean[none] = np.nan
    return mean


def max_of(images: Images, numbers: Sequence[int]) -> np.ndarray:
    """Return the largest count of each pixel, of the images' type and shape (y, x)."""
    largest = np.zeros(images.geometry.shape, images.geometry.dtype)
    lock = threading.Lock()

    def use(_: int, image: np.ndarray) -> None:
        with lock:
            np.maximum(largest, image, out=largest)

    images.for_each(numbers, use)
    return largest


def roi_sums_of(
    images: Images, numbers: Sequence[int], rois: Mapping[str, Iterable[int] | None], name: str
) -> dict[str, np.ndarray]:
    """Return the sum of each region in each image, uint64 of shape (images,).

    Pixels that are masked or beyond their range are left out.

    Raises
    ------
    RegionError
        If a region is none or not within the images.
    """
    kept = checked_rois(rois, name)
    if not kept:
        raise RegionError(f"{name}: no region of interest given")
    shape = images.geometry.shape
    check_inside(kept, shape, name)
    boxes = {key: box or (0, 0, shape[1], shape[0]) for key, box in kept.items()}
    left, top = (min(box[side] for box in boxes.values()) for side in (0, 1))
    right = max(box[0] + box[2] for box in boxes.values())
    bottom = max(box[1] + box[3] for box in boxes.values())
    sums = {key: np.zeros(len(numbers), np.uint64) for key in boxes}
    none = np.iinfo(images.geometry.dtype).max

    def use(place: int, image: np.ndarray) -> None:
        for key, (x, y, width, height) in boxes.items():
            part = image[y - top : y - top + height, x - left : x - left + width]
            lost = np.count_nonzero(part == none)
            sums[key][place] = part.sum(dtype=np.uint64) - np.uint64(lost) * np.uint64(none)

    images.for_each(numbers, use, Box(range(top, bottom), range(left, right)))
    return sums


def hits_of(images: Images, numbers: Sequence[int]) -> Hits:
    """Return the pixels of images that counted, in the order of images, rows and columns.

    Pixels that are masked or beyond their range are left out.
    """
    found: list[tuple[np.ndarray, np.ndarray]] = [(np.empty(0), np.empty(0))] * len(numbers)
    none = np.iinfo(images.geometry.dtype).max

    def use(place: int, image: np.ndarray) -> None:
        flat = image.reshape(-1)
        # A count of 0 becomes the largest, as a masked one is: one comparison finds both.
        where = np.flatnonzero(flat - 1 < none - 1)
        found[place] = where.astype(np.uint32), flat[where]

    images.for_each(numbers, use)
    width = np.uint32(images.geometry.shape[1])
    places = [
        np.full(len(where), n, np.uint32) for n, (where, _) in zip(numbers, found, strict=True)
    ]
    flat = np.concatenate([np.empty(0, np.uint32), *(where for where, _ in found)])
    flat = flat.astype(np.uint32, copy=False)
    counts = np.concatenate([np.empty(0, images.geometry.dtype), *(counts for _, counts in found)])
    image = np.concatenate([np.empty(0, np.uint32), *places])
    return Hits(
        image, flat // width, flat % width, counts.astype(images.geometry.dtype, copy=False)
    )


def distances(shape: tuple[int, int], metadata: SeriesMetadata, unit: str, name: str) -> np.ndarray:
    """Return how far each pixel is from the beam, float64 of shape (y, x).

    The detector is taken to be perpendicular to the beam; a pixel is where its middle is.

    Parameters
    ----------
    shape : tuple of int
        Shape (y, x) in pixels.
    metadata : SeriesMetadata
        Beam centre [pixel], distance [m], pixel sizes [m], and wavelength [angstrom] or photon
        energy [eV].
    unit : str
        "q" [1/angstrom], "2theta" [degree] or "radius" [pixel].
    name : str
        Of what, for messages.

    Raises
    ------
    ValueError
        If there is no such unit, or if the master does not say what it takes.
    """
    if unit not in UNITS:
        raise ValueError(f"{name}: no unit {unit!r}; there are {', '.join(UNITS)}")
    y = np.arange(shape[0])[:, np.newaxis] + 0.5 - _needed(metadata, "beam_center_y", name)
    x = np.arange(shape[1])[np.newaxis, :] + 0.5 - _needed(metadata, "beam_center_x", name)
    if unit == "radius":
        return np.hypot(y, x)
    across = np.hypot(
        y * _needed(metadata, "y_pixel_size", name), x * _needed(metadata, "x_pixel_size", name)
    )
    two_theta = np.arctan2(across, _needed(metadata, "detector_distance", name))
    if unit == "2theta":
        return np.degrees(two_theta)
    if not metadata.wavelength and metadata.photon_energy:
        wavelength = HC / metadata.photon_energy
    else:
        wavelength = _needed(metadata, "wavelength", name)
    return 4 * np.pi * np.sin(two_theta / 2) / wavelength


def _needed(metadata: SeriesMetadata, fact: str, name: str) -> float:
    value = getattr(metadata, fact)
    if value is None or (value == 0 and not fact.startswith("beam_center")):
        raise ValueError(f"{name}: the master says no {fact}, without which there is no profile")
    return float(value)


def radial_profile_of(
    images: Images,
    numbers: Sequence[int],
    away: np.ndarray,
    bad: np.ndarray | None,
    bins: int,
    unit: str,
) -> RadialProfile:
    """Return the mean counts of images by distance from the beam.

    Parameters
    ----------
    images, numbers
        The images.
    away : numpy.ndarray
        What `distances` returned.
    bad : numpy.ndarray of bool, optional
        Pixels that are left out, of shape (y, x), beside those that hold the largest value in any
        of the images.
    bins : int
        How many, of the same width, from 0 to the farthest pixel.
    unit : str
        That of `away`.

    Raises
    ------
    ValueError
        If there is no bin or no image.
    """
    if bins < 1 or not len(numbers):
        raise ValueError(f"{len(numbers)} images in {bins} bins; at least one of each is needed")
    total, none = _summed(images, numbers)
    good = ~none if bad is None else ~(none | bad)
    edges = np.linspace(0, away.max(), bins + 1)
    which = np.minimum(np.searchsorted(edges, away[good], "right") - 1, bins - 1)
    pixels = np.bincount(which, minlength=bins)
    counts = np.bincount(which, total[good].astype(np.float64), minlength=bins)
    with np.errstate(invalid="ignore"):
        intensity = counts / pixels / len(numbers)
    return RadialProfile((edges[:-1] + edges[1:]) / 2, intensity, pixels, UNITS[unit])
