"""Air scatter around a beam stop, the background of rings and spots."""

from fractions import Fraction

# Each shell's outer radius in pixels and its rate in photons a pixel in 1,000,000 s; the last one
# has no outer radius. That of the scene `scatter`.
SHELLS: tuple[tuple[int | None, int], ...] = (
    (14, 4_000),  # the beam stop's shadow
    (22, 2_500_000),
    (34, 1_400_000),
    (52, 800_000),
    (80, 500_000),
    (115, 350_000),
    (164, 260_000),
    (219, 200_000),
    (283, 160_000),
    (364, 130_000),
    (453, 110_000),
    (624, 100_000),
    (955, 85_000),
    (1500, 70_000),
    (None, 60_000),
)
RATES = tuple(Fraction(rate, 1_000_000) for _, rate in SHELLS)
RADII = tuple(float(radius) for radius, _ in SHELLS if radius is not None)
