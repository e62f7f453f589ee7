"""The scene `flat`: as many photons everywhere, as from a fluorescent foil far away."""

from fractions import Fraction

from sim_dcu.scene.bands import Bands

# One level, in photons a pixel and second.
RATES = (Fraction(10),)
BANDS = Bands((0.0, 0.0), (), (0,))
