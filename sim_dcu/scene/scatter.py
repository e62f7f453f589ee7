"""The scene `scatter`: air scatter around a beam stop with a few rings, always in the middle.

It has the look of diffraction, and compresses like it, whatever the detector is set to.
"""

from fractions import Fraction

from sim_dcu.scene.bands import Bands

# Each level's outer radius in pixels and its rate in photons a pixel in 1,000,000 s; the last
# level has no outer radius. Chosen to look like diffraction and to compress like it: 0.1 photons a
# pixel and second far out, a few on the rings.
LEVELS: tuple[tuple[int | None, int], ...] = (
    (14, 4_000),  # the beam stop's shadow
    (22, 2_500_000),
    (34, 1_400_000),
    (52, 800_000),
    (76, 500_000),
    (80, 3_000_000),  # ring
    (112, 350_000),
    (115, 5_000_000),  # ring
    (160, 260_000),
    (164, 1_500_000),  # ring
    (215, 200_000),
    (219, 4_000_000),  # ring
    (280, 160_000),
    (283, 2_200_000),  # ring
    (360, 130_000),
    (364, 3_300_000),  # ring
    (450, 110_000),
    (453, 1_200_000),  # ring
    (620, 100_000),
    (624, 1_800_000),  # ring
    (950, 85_000),
    (955, 900_000),  # ring
    (1500, 70_000),
    (None, 60_000),
)

RATES = tuple(Fraction(rate, 1_000_000) for _, rate in LEVELS)


def bands(whole: tuple[int, int], origin: tuple[int, int]) -> Bands:
    """Return the levels of a part of a detector: its first pixel, the whole's shape (y, x)."""
    y, x = (size / 2 - first for size, first in zip(whole, origin, strict=True))
    bounds = tuple(float(radius * radius) for radius, _ in LEVELS if radius is not None)
    return Bands((y, x), bounds, tuple(range(len(LEVELS))))
