"""What a threshold lets pass: the spectrum of the charges that photons leave in pixels.

A photon's charge is spread by the noise of the electronics; one that falls near a pixel's border
leaves part of it in the neighbour. So the share of counts above a threshold is an error function at
the beam's energy, on a slope below it: the shape that calibrations of photon-counting detectors fit
(Kraft et al., J. Synchrotron Rad. 16 (2009) 368).
"""

import functools
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from fractions import Fraction

# Spread (r.m.s.) of a pixel's response to one energy, in eV: an estimate, some 130 electrons.
ENERGY_WIDTH = 500
# Of the photons that hit a pixel, the share that leaves a part in a neighbour: an estimate.
SHARED = Fraction(1, 4)

# Shares are whole multiples of 2^-32. Decimal's arithmetic is the same on every machine.
_STEPS = 1 << 32
_DIGITS = Context(prec=80, rounding=ROUND_HALF_EVEN)
_ROOT_2 = Decimal("1.4142135623730950488016887242096980785696718753769480731766797379907324784621")
_TWO_BY_ROOT_PI = Decimal(
    "1.1283791670955125738961589031215451716881012586579977136881714434212849368830"
)
# Where erfc(x) is less than 2^-33.
_FAR = 5


@functools.lru_cache(maxsize=256)
def counted_share(threshold: float, energy: float) -> Fraction:
    """Return how many counts a photon gives, on average, above a threshold.

    1 at half the beam's energy, where each photon is counted once; up to 1 + `SHARED` below it,
    where those that are shared are counted in two pixels; (1 - `SHARED`) / 2 at the beam's energy;
    0 far above.

    Parameters
    ----------
    threshold, energy : float
        The threshold and the beam's energy in eV.

    Returns
    -------
    Fraction
        A multiple of 2^-32.
    """
    with localcontext(_DIGITS):
        at, peak = Decimal(threshold), Decimal(energy)
        passing = _normal_above((at - peak) / ENERGY_WIDTH)
        shared = Decimal(SHARED.numerator) / SHARED.denominator
        slope = 1 + shared * (1 - 2 * at / peak)
        share = max(Decimal(0), passing * slope)
        steps = (share * _STEPS).to_integral_value()
    return Fraction(int(steps), _STEPS)


def _normal_above(deviation: Decimal) -> Decimal:
    """Return the part of a normal distribution above so many standard deviations."""
    x = deviation / _ROOT_2
    if abs(x) > _FAR:
        return Decimal(1 if x < 0 else 0)
    # erf's series about 0.
    term, total, n = x, x, 0
    while abs(term) > Decimal("1e-30"):
        n += 1
        term = -term * x * x / n
        total += term / (2 * n + 1)
    return (1 - _TWO_BY_ROOT_PI * total) / 2
