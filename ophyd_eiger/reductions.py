"""What many images become, one at a time, so that they are never in memory together.

A pixel that holds the largest value of its type is one that the detector masked, or that counted
beyond what its type or the count-rate correction can say; files do not tell these apart. Each
reduction says what it makes of it. Knows nothing of files: images come from whoever has them.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ophyd_eiger.errors import RegionError
from ophyd_eiger.geometry import PARTS, SOURCES, ScatteringGeometry
from ophyd_eiger.image_file import Box, Geometry
from ophyd_eiger.regions import check_inside, checked_rois

# What is put in place of a sum of a pixel that was masked or beyond its range in any image.
NO_SUM = np.iinfo(np.uint64).max
UNITS = {"q": "1/angstrom", "2theta": "degree", "radius": "pixel"}
_CENTRE = ("beam_center_y", "beam_center_x")
_FLAT_DETECTOR = (*_CENTRE, "pixel_size_x", "pixel_size_y", "distance")
# What `distances` takes of a geometry, for each unit.
NEEDED = {
    "radius": _CENTRE,
    "2theta": _FLAT_DETECTOR,
    "q": (*_FLAT_DETECTOR, "wavelength"),
}
# Strong pixels are added one by one, if there is no more than one in so many of all.
_FEW = 64
_LOCKS = 64


class Images(Protocol):
    """Where images come from."""

    @property
    def geometry(self) -> Geometry:
        """Shape and type of each image."""
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

    def in_bands(self, numbers: Sequence[int], use: Callable[[slice, np.ndarray], None]) -> None:
        """Call `use` with pixels, along the rows, and their counts in some of the images.

        Of shape (images, pixels); from several threads, until it had every pixel of all images.
        The array is used again.
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
    """The sum of images, which threads add to.

    Some images are added in their own type, which a processor does in a fraction of the time that
    64 bits take; where a pixel's counts may exceed its range, they are added again to 64 bits.
    """

    def __init__(self, geometry: Geometry) -> None:
        pixels = geometry.shape[0] * geometry.shape[1]
        self._shape = geometry.shape
        self._largest = int(np.iinfo(geometry.dtype).max)
        self._total = np.zeros(pixels, np.uint64)
        self._none = np.zeros(pixels, np.bool_)
        self._locks = _Locks()

    def add(self, where: slice, counts: np.ndarray) -> None:
        """Add some images' counts, of shape (images, pixels), of these pixels."""
        # The largest count of each pixel plus one, which is 0 where one was the largest value.
        peak = counts.max(axis=0) + counts.dtype.type(1)
        added = np.add.reduce(counts, axis=0, dtype=counts.dtype.type)
        # A pixel without a sum overflows at will.
        limit = self._largest // len(counts)
        strong = np.empty(0, np.intp)
        if int(peak.max()) - 1 > limit:
            strong = np.flatnonzero(peak > limit + 1)
            if len(strong) > peak.size // _FEW:
                added, strong = counts.sum(axis=0, dtype=np.uint64), strong[:0]
            else:
                added[strong] = 0
        with self._locks.of(where):
            total = self._total[where]
            np.add(total, added, out=total)
            total[strong] += counts[:, strong].sum(axis=0, dtype=np.uint64)
            self._none[where] |= peak == 0

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the sum, and where it is none: masked, or beyond the range in any image."""
        return self._total.reshape(self._shape), self._none.reshape(self._shape)


class _Locks:
    """Locks of bands of pixels, so that threads at different bands do not wait for each other."""

    def __init__(self) -> None:
        self._locks = [threading.Lock() for _ in range(_LOCKS)]

    def of(self, where: slice) -> threading.Lock:
        """Return that of a band."""
        return self._locks[where.start // max(where.stop - where.start, 1) % _LOCKS]


def _summed(images: Images, numbers: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of images, and where it is none: masked, or beyond the range in any."""
    total = _Sum(images.geometry)
    images.in_bands(numbers, total.add)
    return total.result()


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
    flat, locks = largest.reshape(-1), _Locks()

    def use(where: slice, counts: np.ndarray) -> None:
        peak = counts.max(axis=0)
        with locks.of(where):
            np.maximum(flat[where], peak, out=flat[where])

    images.in_bands(numbers, use)
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
    none = int(np.iinfo(images.geometry.dtype).max)

    def use(place: int, image: np.ndarray) -> None:
        for key, (x, y, width, height) in boxes.items():
            part = image[y - top : y - top + height, x - left : x - left + width]
            lost = int(np.count_nonzero(part == none))
            # Lost pixels of 64 bits go beyond them: what is left is right modulo 2^64.
            sums[key][place] = (int(part.sum(dtype=np.uint64)) - lost * none) % 2**64

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


def distances(
    shape: tuple[int, int], parts: Mapping[str, float], unit: str, name: str
) -> np.ndarray:
    """Return how far each pixel is from the beam, float64 of shape (y, x).

    The detector is taken to be perpendicular to the beam; a pixel is where its middle is.

    Parameters
    ----------
    shape : tuple of int
        Shape (y, x) in pixels.
    parts : mapping
        Of a geometry, by the names of `ScatteringGeometry`, what `NEEDED` has for the unit.
    unit : str
        "q" [1/angstrom], "2theta" [degree] or "radius" [pixel].
    name : str
        Of what, for messages.

    Raises
    ------
    ValueError
        If there is no such unit, or if the parts are not all there.
    """
    if unit not in UNITS:
        raise ValueError(f"{name}: no unit {unit!r}; there are {', '.join(UNITS)}")
    for part in NEEDED[unit]:
        if part not in parts:
            raise ValueError(
                f"{name}: the master says no {SOURCES[part]}, without which there is no profile"
            )
    # Pixels of size 1, where none is needed, have their radius in pixels.
    geometry = ScatteringGeometry(**{**dict.fromkeys(PARTS, 1.0), **parts})
    radius = geometry.radius(shape)
    if unit == "radius":
        return radius
    if unit == "2theta":
        return np.degrees(np.arctan2(radius, geometry.distance))
    return geometry.q_at(radius)


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
