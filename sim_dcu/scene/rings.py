"""The scene `rings`: a powder of LaB6, its rings where Bragg's law puts them.

With s = wavelength / (2 d) the ring of lattice planes d apart is at distance times
tan 2 theta = 2 s sqrt(1 - s s) / (1 - 2 s s): square roots and the four operations alone, which are
the same on every machine.
"""

import math
from fractions import Fraction

from sim_dcu.scene import air
from sim_dcu.scene.bands import Bands
from sim_dcu.scene.optics import Optics

# Edge of LaB6's cubic cell in angstrom: certificate of NIST SRM 660c.
LATTICE = 4.156826
# Of each ring h^2 + k^2 + l^2, and how bright it is, of 16: the order of the intensities in a
# diffractometer's pattern of it.
PLANES = (
    (1, 10), (2, 16), (3, 8), (4, 4), (5, 8), (6, 4), (8, 2), (9, 4), (10, 4), (11, 2), (12, 1),
    (13, 2), (14, 4), (16, 1), (17, 4), (18, 2), (19, 1), (20, 1), (21, 2), (22, 2), (24, 1),
    (25, 1), (26, 2), (27, 1), (29, 2),
)  # fmt: skip
# The brightest ring's photons a pixel and second.
BRIGHTEST = 6
# In pixels: half the width of a ring's bright core, and of all of it, where half as many fall.
CORE, FLANK = 1.0, 2.5

_SHARES = tuple(sorted({share for _, share in PLANES}))
RATES = (
    *air.RATES,
    *(Fraction(BRIGHTEST * share, 32) for share in _SHARES),
    *(Fraction(BRIGHTEST * share, 16) for share in _SHARES),
)


def radii(optics: Optics) -> list[tuple[float, int]]:
    """Return each ring's radius in pixels and its brightness, of 16; none beyond 90 degrees."""
    found = []
    for planes, share in PLANES:
        s = optics.wavelength * math.sqrt(planes) / (2 * LATTICE)
        if 2 * s * s < 1:
            tangent = 2 * s * math.sqrt(1 - s * s) / (1 - 2 * s * s)
            found.append((optics.distance * tangent, share))
    return found


def bands(optics: Optics) -> Bands:
    """Return the rings, and the air scatter between them."""
    edges: dict[float, int] = {}
    end = 0.0
    for radius, share in radii(optics):
        flank = len(air.RATES) + _SHARES.index(share)
        core = flank + len(_SHARES)
        # Where two rings meet, the inner one comes first.
        for distance, level in ((-FLANK, flank), (-CORE, core), (CORE, flank), (FLANK, -1)):
            end = max(end, radius + distance)
            edges[end] = level
    return Bands(optics.centre, *_with_air(edges))


def _with_air(edges: dict[float, int]) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Return squared bounds and levels; from an edge of level -1 on there is air alone."""
    bounds, levels, shell, ring = [], [0], 0, -1
    for radius in sorted({*edges, *air.RADII}):
        ring = edges.get(radius, ring)
        shell += radius in air.RADII
        bounds.append(radius * radius)
        levels.append(shell if ring < 0 else ring)
    return tuple(bounds), tuple(levels)
