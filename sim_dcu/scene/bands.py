"""Levels of brightness that depend on the distance from a point alone."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Bands:
    """Rings of pixels about a point.

    A pixel's squared distance from the point is dy dy + dx dx in double precision, where dy is its
    row + 0.5 - the point's y. Its band is the number of bounds that are not larger.

    Attributes
    ----------
    centre : tuple of float
        (y, x) in pixels of the image; the middle of the first pixel is (0.5, 0.5).
    bounds : tuple of float
        Squared outer radii in pixels^2, ascending; the last band has none.
    levels : tuple of int
        The level of each band.
    """

    centre: tuple[float, float]
    bounds: tuple[float, ...]
    levels: tuple[int, ...]
