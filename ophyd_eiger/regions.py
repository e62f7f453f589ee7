"""Numbers of an image: sum, maximum and mean of regions, and saturated pixels.

Pure numpy on arrays in memory. Masked pixels are left out of every number.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ophyd_eiger.errors import RegionError

# x0, y0, width, height in pixels, from the first pixel of the image; None is the whole image.
Box = tuple[int, int, int, int]
Rois = Mapping[str, Box | None]
QUANTITIES = ("sum", "max", "mean")
SATURATED = "saturated"


def checked_rois(rois: Mapping[str, Iterable[int] | None], name: str) -> dict[str, Box | None]:
    """Return regions of interest as they are kept.

    Parameters
    ----------
    rois : mapping
        Name: (x0, y0, width, height) in pixels, or None for the whole image.
    name : str
        Of whom, for messages.

    Raises
    ------
    RegionError
        If a name cannot be part of a data key or a region is not four whole numbers that make one.
    """
    kept: dict[str, Box | None] = {}
    for roi, given in rois.items():
        if not isinstance(roi, str) or not roi.isidentifier() or roi == SATURATED:
            raise RegionError(f"{name}: {roi!r} cannot name a region; give a name as of a variable")
        if given is None:
            kept[roi] = None
            continue
        try:
            box = tuple(given)
        except TypeError:
            box = (given,)
        whole = all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in box)
        if len(box) != 4 or not whole or min(box) < 0 or min(box[2:]) < 1:
            raise RegionError(
                f"{name}: region {roi!r} is {given!r}; give (x0, y0, width, height) in pixels, "
                "whole numbers, or None for the whole image"
            )
        x0, y0, width, height = (int(n) for n in box)
        kept[roi] = (x0, y0, width, height)
    return kept


def check_inside(rois: Rois, shape: tuple[int, int], name: str) -> None:
    """See that regions lie within images of shape (y, x).

    Raises
    ------
    RegionError
    """
    for roi, box in rois.items():
        if box is not None and (box[0] + box[2] > shape[1] or box[1] + box[3] > shape[0]):
            raise RegionError(
                f"{name}: region {roi!r}, (x0, y0, width, height) = {box}, is not within the "
                f"image of {shape[1]} x {shape[0]} pixels"
            )


def keys(rois: Rois) -> list[str]:
    """Return the names of the numbers, in the order of `Regions.numbers`."""
    return [f"{roi}_{quantity}" for roi in rois for quantity in QUANTITIES] + [SATURATED]


@dataclass(frozen=True)
class _Region:
    name: str
    rows: slice
    columns: slice
    pixels: int
    """That are not masked."""


class Regions:
    """Regions of images of one shape, with one mask.

    Parameters
    ----------
    rois : mapping
        As `checked_rois` returns them.
    mask : numpy.ndarray of any integer type, shape (y, x)
        Not 0 where a pixel is left out.

    Raises
    ------
    RegionError
        If a region is not within the image.
    """

    def __init__(self, rois: Rois, mask: np.ndarray, name: str = "regions") -> None:
        self.shape: tuple[int, int] = mask.shape
        check_inside(rois, self.shape, name)
        # Some percent of all pixels: an index is smaller and faster than a mask.
        masked = mask != 0
        self._masked = np.flatnonzero(masked)
        self._regions = []
        for roi, box in rois.items():
            x0, y0, width, height = box or (0, 0, self.shape[1], self.shape[0])
            rows, columns = slice(y0, y0 + height), slice(x0, x0 + width)
            good = width * height - int(np.count_nonzero(masked[rows, columns]))
            self._regions.append(_Region(roi, rows, columns, good))

    def numbers(
        self, image: np.ndarray, full: int | None, lost: np.ndarray | None = None
    ) -> dict[str, float]:
        """Return the numbers of an image, by the names of `keys`; NaN where there is no pixel.

        Parameters
        ----------
        image : numpy.ndarray of unsigned integers or floats, shape (y, x)
            Contiguous. Worked on in place if it is writable, and left as it was.
        full : int or None
            What a saturated pixel holds, 2^bits - 1. An image of a type that holds more, as an
            EIGER1's monitor gives it, has the largest value of that type there. None where values
            are counts no more, as behind a flat field: then no number of saturated pixels.
        lost : numpy.ndarray of bool, shape (y, x), optional
            Pixels that are not masked and have no value in this image, where it holds 0: no region
            has them.
        """
        if not image.flags.writeable:
            image = image.copy()
        flat = image.reshape(-1)
        held = flat[self._masked]
        flat[self._masked] = 0
        try:
            return self._numbers(image, full, lost)
        finally:
            flat[self._masked] = held

    def _numbers(
        self, image: np.ndarray, full: int | None, lost: np.ndarray | None
    ) -> dict[str, float]:
        found: dict[str, float] = {}
        wide = np.float64 if image.dtype.kind == "f" else np.uint64
        highest = image.max().item()
        for region in self._regions:
            values = image[region.rows, region.columns]
            if full is not None and highest > full:
                values = np.minimum(values, image.dtype.type(full))
            total = most = mean = math.nan
            pixels = region.pixels
            if lost is not None:
                pixels -= int(np.count_nonzero(lost[region.rows, region.columns]))
            if pixels:
                whole = values.size == image.size
                most = float(values.max() if full is None or not whole else min(highest, full))
                total = float(values.sum(dtype=wide))
                mean = total / pixels
            for quantity, number in zip(QUANTITIES, (total, most, mean), strict=True):
                found[f"{region.name}_{quantity}"] = number
        if full is not None:
            found[SATURATED] = float(np.count_nonzero(image >= full)) if highest >= full else 0.0
        return found
