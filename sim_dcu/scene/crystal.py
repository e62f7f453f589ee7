"""The scene `crystal`: Bragg spots of a turning crystal, on air scatter.

The frame is that of the image: x along a row, y down a column, z along the beam, in units of 1 /
angstrom. A reflection g is turned about x by omega, right-handed (the axis -1, 0, 0 of NeXus). With
s0 = (0, 0, 1 / wavelength) it is off the Ewald sphere by (|s0 + g|^2 - |s0|^2) wavelength / 2, and
seen while that is less than `MOSAIC`; its spot is where s0 + g meets the detector.

Sines come from Decimal, all else is the four operations in the order written, in double precision:
the same on every machine.
"""

import functools
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from fractions import Fraction

import numpy as np

from sim_dcu.random_numbers import Purpose, random_bytes
from sim_dcu.scene import air
from sim_dcu.scene.bands import Bands
from sim_dcu.scene.optics import Optics
from sim_dcu.series import ArmedSeries

# Edges in angstrom of tetragonal hen egg-white lysozyme: PDB 193L.
CELL = (78.54, 78.54, 37.77)
# Reflections of planes closer than that, in angstrom, are not made.
FINEST = 2.2
# In 1/angstrom, off the Ewald sphere: how far a reflection is seen, some half degree of turning.
MOSAIC = 0.0015
# The crystal's orientation at omega 0, as a quaternion: any will do.
ORIENTATION = (7, 2, 3, 5)
# In degrees from image to image, where omega's start and increment are 0.
DEFAULT_INCREMENT = 0.1
# Photons a second of a spot's brightest pixel, from the weakest to the strongest.
WEAKEST, STRONGEST = 1.0, 256.0
# A spot's shape along each axis, about the pixel it falls on.
SHAPE = ((-1, 0.5), (0, 1.0), (1, 0.5))

# A pixel's rate is the largest of these that it reaches, in photons a second.
LADDER = tuple(Fraction(2) ** (step // 4) * (4 + step % 4) / 32 for step in range(-4, 60))
RATES = air.RATES

_DIGITS = Context(prec=50, rounding=ROUND_HALF_EVEN)
_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494")


@dataclass(frozen=True)
class Spots:
    """The pixels of an image that reflections fall on.

    Attributes
    ----------
    places : numpy.ndarray of int64, shape (n,)
        Which pixels, as places in the flattened image, ascending.
    rungs : numpy.ndarray of int64, shape (n,)
        Of `LADDER`, the photons that fall on each.
    """

    places: np.ndarray
    rungs: np.ndarray


def bands(optics: Optics) -> Bands:
    """Return the background's levels."""
    bounds = tuple(radius * radius for radius in air.RADII)
    return Bands(optics.centre, bounds, tuple(range(len(air.RATES))))


def omega(series: ArmedSeries, number: int) -> float:
    """Return the angle in degrees in the middle of image `number`, from 1."""
    start = float(series.detector["omega_start"])
    increment = float(series.detector["omega_increment"])
    if start == 0 and increment == 0:
        increment = DEFAULT_INCREMENT
    return start + (number - 0.5) * increment


def spots(series: ArmedSeries, number: int) -> Spots:
    """Return where the spots of image `number` are, and how bright."""
    optics = Optics.of(series)
    sine, cosine = _turned(omega(series, number))
    (gx, gy, gz), peaks = _reflections()
    y = gy * cosine - gz * sine
    z = gy * sine + gz * cosine + 1 / optics.wavelength
    length = 1 / optics.wavelength
    off = (gx * gx + y * y + z * z - length * length) * optics.wavelength / 2
    seen = (np.abs(off) < MOSAIC) & (z > 0)
    gx, y, z = gx[seen], y[seen], z[seen]
    rates = peaks[seen] * (1 - np.abs(off[seen]) / MOSAIC)
    columns = np.floor(optics.centre[1] + optics.distance * gx / z)
    rows = np.floor(optics.centre[0] + optics.distance * y / z)
    return _on_pixels(rows, columns, rates, series.shape)


def _on_pixels(
    rows: np.ndarray, columns: np.ndarray, rates: np.ndarray, shape: tuple[int, int]
) -> Spots:
    """Return the pixels of spots, each spread over its neighbours."""
    places, shares = [], []
    for down, share_down in SHAPE:
        for along, share_along in SHAPE:
            row, column = rows + down, columns + along
            inside = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
            places.append((row * shape[1] + column)[inside].astype(np.int64))
            shares.append((rates * (share_down * share_along))[inside])
    found, which = np.unique(np.concatenate(places), return_inverse=True)
    total = np.bincount(which, np.concatenate(shares), minlength=found.size)
    rungs = np.searchsorted([float(rate) for rate in LADDER], total, side="right") - 1
    lit = rungs >= 0
    return Spots(found[lit], rungs[lit])


@functools.cache
def _reflections() -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """Return x, y, z of every reflection at omega 0, and its peak in photons a second."""
    most = [int(edge / FINEST) for edge in CELL]
    axes = (np.arange(-limit, limit + 1, dtype=float) for limit in most)
    indices = (grid.ravel() for grid in np.meshgrid(*axes, indexing="ij"))
    h, k, l = (index / edge for index, edge in zip(indices, CELL, strict=True))  # noqa: E741
    squared = h * h + k * k + l * l
    kept = (squared > 0) & (squared < 1 / (FINEST * FINEST))
    h, k, l, squared = h[kept], k[kept], l[kept], squared[kept]  # noqa: E741
    x, y, z = (row[0] * h + row[1] * k + row[2] * l for row in _orientation())
    drawn = random_bytes(0, Purpose.REFLECTIONS, 0, 0, squared.size).astype(float) / 255
    # Few are strong, and all are weaker at higher angles.
    strength = WEAKEST + (STRONGEST - WEAKEST) * drawn * drawn * drawn * drawn
    return (x, y, z), strength * (1 - squared * FINEST * FINEST)


def _orientation() -> list[list[float]]:
    a, b, c, d = ORIENTATION
    n = a * a + b * b + c * c + d * d
    return [
        [(a * a + b * b - c * c - d * d) / n, 2 * (b * c - a * d) / n, 2 * (b * d + a * c) / n],
        [2 * (b * c + a * d) / n, (a * a - b * b + c * c - d * d) / n, 2 * (c * d - a * b) / n],
        [2 * (b * d - a * c) / n, 2 * (c * d + a * b) / n, (a * a - b * b - c * c + d * d) / n],
    ]


def _turned(degrees: float) -> tuple[float, float]:
    """Return sine and cosine of an angle, by their series."""
    with localcontext(_DIGITS):
        x = Decimal(degrees) % 360 * _PI / 180
        term, n = Decimal(1), 0
        sums = [Decimal(0), Decimal(0)]
        while abs(term) > Decimal("1e-40"):
            sums[n % 2] += term if n % 4 < 2 else -term
            n += 1
            term = term * x / n
        return float(sums[1]), float(sums[0])
