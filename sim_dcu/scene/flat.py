"""The scene `flat`: as many photons everywhere, as from a fluorescent foil far away."""

from fractions import Fraction

# One level, in photons a pixel and second.
RATES = (Fraction(10),)
