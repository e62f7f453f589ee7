"""The S-curve of a photon-counting detector, and the fit that finds the photons' energy. Pure.

Counts by threshold are an error function at the photons' energy, as wide as the electronics' noise,
on a slope below it: photons near a pixel's border share their charge with the neighbour, and count
twice below half of the energy and, above it, less and less
(Kraft et al., J. Synchrotron Rad. 16 (2009) 368).
"""

import math
from dataclasses import dataclass

import numpy as np

from eiger_plans.counts import TooFewCountsError

# Points that the five parameters are fitted to.
LEAST_POINTS = 8
# The curve must fall by so many standard deviations of its counts.
LEAST_FALL = 20.0


@dataclass(frozen=True)
class SCurve:
    """A fitted S-curve.

    Attributes
    ----------
    energy, energy_error : float
        Where the curve has fallen to its half: the photons' energy by the thresholds' scale, and
        one standard deviation of it, in eV.
    width : float
        Standard deviation of the energies, in eV: the electronics' noise.
    sharing : float
        Share of photons that leave charge in a neighbour.
    height, background : float
        Counts of a threshold at half the energy, and far above it.
    thresholds, counts : numpy.ndarray of float64, shape (points,)
        What was measured, thresholds in eV.
    """

    energy: float
    energy_error: float
    width: float
    sharing: float
    height: float
    background: float
    thresholds: np.ndarray
    counts: np.ndarray

    @property
    def fitted(self) -> np.ndarray:
        """What the fit has at the thresholds, float64 of shape (points,)."""
        parameters = (self.energy, self.width, self.sharing, self.height, self.background)
        return s_curve(self.thresholds, *parameters)

    def in_digits(self, energy: float) -> str:
        """Return an energy in eV with the digits that mean something: two of its error's."""
        error = self.energy_error
        known = math.isfinite(error) and error > 0
        return f"{energy:.{min(max(1 - math.floor(math.log10(error)), 0), 3) if known else 1}f}"

    def __str__(self) -> str:
        """Return it in words."""
        return (
            f"energy {self.in_digits(self.energy)} +- {self.in_digits(self.energy_error)} eV, "
            f"noise {self.width:.0f} eV (r.m.s.), {self.sharing:.0%} of the photons shared"
        )


def s_curve(
    threshold: np.ndarray,
    energy: float,
    width: float,
    sharing: float,
    height: float,
    background: float,
) -> np.ndarray:
    """Return the counts of thresholds; parameters as of `SCurve`, energies in eV."""
    from scipy.special import erfc

    passing = erfc((threshold - energy) / (np.sqrt(2) * width)) / 2
    slope = np.maximum(0, 1 + sharing * (1 - 2 * threshold / energy))
    return height * passing * slope + background


def fit_s_curve(thresholds: np.ndarray, counts: np.ndarray) -> SCurve:
    """Fit an S-curve to counts, each weighted by its Poisson error.

    Parameters
    ----------
    thresholds : numpy.ndarray, shape (points,)
        In eV.
    counts : numpy.ndarray, shape (points,)
        Of many pixels together, each threshold as long.

    Raises
    ------
    TooFewCountsError
        If the counts do not fall as an S-curve does within the thresholds, with figures.
    ValueError
        If there are not as many counts as thresholds.
    """
    if len(thresholds) != len(counts):
        raise ValueError(f"{len(counts)} counts of {len(thresholds)} thresholds")
    from scipy.optimize import curve_fit

    order = np.argsort(thresholds)
    x = np.asarray(thresholds, float)[order]
    y = np.asarray(counts, float)[order]
    _check(x, y)
    low, high = float(y.min()), float(y.max())
    middle = x[np.argmin(np.abs(y - (low + high) / 2))]
    lowest = np.array((x[0], min(1.0, 0.1 * (x[-1] - x[0])), 0.0, 0.0, 0.0))
    highest = np.array((x[-1], x[-1] - x[0], 1.0, 10 * high, high))
    # Of thresholds that are close together the usual noise is wider than all of them.
    start = np.clip((middle, 0.05 * middle, 0.2, high - low, low), lowest, highest)
    errors = np.sqrt(np.maximum(y, 1.0))
    try:
        found, covariance = curve_fit(
            s_curve, x, y, p0=start, sigma=errors, bounds=(lowest, highest)
        )
    except (RuntimeError, ValueError) as error:
        raise TooFewCountsError(
            f"no S-curve fits the counts of {len(x)} thresholds from {x[0]:g} to {x[-1]:g} eV: "
            f"{error}"
        ) from error
    energy, width, sharing, height, background = map(float, found)
    step = float(np.max(np.diff(x)))
    if not x[0] + width < energy < x[-1] - width:
        raise TooFewCountsError(
            f"the counts fall to their half at {energy:g} eV, at the end of the thresholds from "
            f"{x[0]:g} to {x[-1]:g} eV (noise {width:g} eV, steps of {step:g} eV): let the energy "
            "of the beam lie well within them"
        )
    error = float(np.sqrt(covariance[0][0]))
    return SCurve(energy, error, width, sharing, height, background, x, y)


def _check(x: np.ndarray, y: np.ndarray) -> None:
    if len(x) < LEAST_POINTS:
        raise TooFewCountsError(f"{len(x)} thresholds; an S-curve takes {LEAST_POINTS} at least")
    fall = float(y[: len(y) // 4 + 1].mean() - y[-(len(y) // 4) - 1 :].mean())
    needed = LEAST_FALL * float(np.sqrt(max(y.max(), 1.0)))
    if fall < needed:
        raise TooFewCountsError(
            f"the counts fall by {fall:.3g} from the lowest to the highest thresholds, {x[0]:g} to "
            f"{x[-1]:g} eV; {needed:.3g} are needed to fit them: is there beam, does its energy "
            "lie between them? Or expose longer"
        )
