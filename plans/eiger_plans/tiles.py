"""What the pixels of a detector count tile by tile, and pixels that lie side by side. Pure."""

from dataclasses import dataclass

import numpy as np

# Pixels along the edge of a tile: flat light may well be brighter at one side than at the other.
TILE = 64
# A tile that gaps or masked pixels leave fewer than this is compared with those around it, too.
LEAST_PIXELS = 64
# Of a normal distribution the quartiles are so many standard deviations apart.
QUARTILES_APART = 1.349


@dataclass(frozen=True)
class Tile:
    """A square of the detector, smaller at its edges.

    Attributes
    ----------
    place : tuple of slice
        Rows and columns.
    level : float
        The median of its usable pixels.
    spread : float
        Standard deviation of its usable pixels by their median, from the middle half of them; 0
        where they are too few to tell.
    """

    place: tuple[slice, slice]
    level: float
    spread: float

    def __str__(self) -> str:
        """Return where it is."""
        return where(self.place)


def where(place: tuple[slice, slice]) -> str:
    """Return a place in words."""
    rows, columns = place
    return f"rows {rows.start} to {rows.stop - 1}, columns {columns.start} to {columns.stop - 1}"


def tiles(values: np.ndarray, usable: np.ndarray, pixels: np.ndarray) -> list[Tile]:
    """Return the tiles that have pixels to look at.

    Parameters
    ----------
    values : numpy.ndarray of float64, shape (y, x)
        Counts.
    usable : numpy.ndarray of bool, shape (y, x)
        The pixels that a level is the median of. Where a tile has fewer than 64, those of the eight
        tiles around it count too; where these do not suffice, all of the detector's.
    pixels : numpy.ndarray of bool, shape (y, x)
        Those that are looked at.

    Returns
    -------
    list of Tile
        From the top, each row of them from the left; none if no pixel is usable.
    """
    if not usable.any():
        return []
    whole = float(np.median(values[usable]))
    found = []
    for top in range(0, values.shape[0], TILE):
        for left in range(0, values.shape[1], TILE):
            place = _square(top, left, values.shape)
            if not pixels[place].any():
                continue
            inside = values[place][usable[place]]
            if inside.size >= LEAST_PIXELS:
                found.append(Tile(place, *_level_and_spread(inside)))
                continue
            around = _square(top, left, values.shape, TILE)
            inside = values[around][usable[around]]
            enough = inside.size >= LEAST_PIXELS
            found.append(Tile(place, float(np.median(inside)) if enough else whole, 0.0))
    return found


def _square(top: int, left: int, shape: tuple[int, ...], more: int = 0) -> tuple[slice, slice]:
    """Return a tile's place, with so many pixels more on each side."""
    rows, columns = (
        slice(max(start - more, 0), min(start + TILE + more, end))
        for start, end in zip((top, left), shape, strict=True)
    )
    return rows, columns


def _level_and_spread(inside: np.ndarray) -> tuple[float, float]:
    quarter, middle, three_quarters = np.percentile(inside, (25, 50, 75))
    if middle <= 0:
        return float(middle), 0.0
    return float(middle), float((three_quarters - quarter) / middle / QUARTILES_APART)


def around_all(places: list[tuple[slice, slice]]) -> tuple[slice, slice]:
    """Return the smallest place that holds all of these, of which there is one at least."""
    rows, columns = (
        slice(min(one.start for one in along), max(one.stop for one in along))
        for along in zip(*places, strict=True)
    )
    return rows, columns


def largest_area(pixels: np.ndarray) -> tuple[int, tuple[slice, slice] | None]:
    """Return how many pixels the largest connected area has, corners included, and its place.

    Parameters
    ----------
    pixels : numpy.ndarray of bool, shape (y, x)
        Few of them are True: each is visited in Python.

    Returns
    -------
    size : int
        0 if none is True.
    place : tuple of slice or None
        The rows and columns around it.
    """
    left = {(int(y), int(x)) for y, x in np.argwhere(pixels)}
    largest: list[tuple[int, int]] = []
    while left:
        area = [left.pop()]
        for y, x in area:
            beside = {(y + up, x + on) for up in (-1, 0, 1) for on in (-1, 0, 1)} & left
            left -= beside
            area.extend(beside)
        largest = max(largest, area, key=len)
    if not largest:
        return 0, None
    return len(largest), around_all([(slice(y, y + 1), slice(x, x + 1)) for y, x in largest])
