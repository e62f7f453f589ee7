"""What becomes of the photons that a pixel takes in one image: losses, limits, corrections.

All of it is arithmetic of double precision in an order that is stated here, each operation rounded
as IEEE 754 has it, so that it is the same on every machine. With n photons in t s, a dead time of
d s and x = d / t:

* a pixel counts m = n / (1 + n x), to the nearest: after each count it is blind for the dead time;
* more than its counters hold in the frames that are summed to an image is overflow;
* where the count-rate correction is applied the count becomes m / (1 - m x), to the nearest, and
  more than the cutoff is overflow;
* where the flat field is applied it is multiplied with the pixel's factor, to the nearest;
* overflow, and what the image's depth does not hold, reads 2^bits - 1.

The nearest of a number y is floor(y + 1/2).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from sim_dcu.geometry import EIGER2, Generation

# In s: estimates, so that where a correction ends, at about 2e6 (EIGER) and 1e7 (EIGER2) photons a
# second, a third to a half of the photons is lost.
DEAD_TIME = 2e-7
DEAD_TIME_EIGER2 = 9e-8


@dataclass(frozen=True)
class Counting:
    """How a series' pixels count.

    Attributes
    ----------
    blind : float
        x above: the dead time as a part of the exposure.
    counters_hold : int
        What the counters hold in all the frames of an image.
    cutoff : int or None
        The most that is corrected; None where the count rate is not corrected.
    most : int
        What overflow reads, 2^bits - 1.
    """

    blind: float
    counters_hold: int
    cutoff: int | None
    most: int

    @classmethod
    def of(cls, detector: Mapping[str, Any], exposure: float, generation: Generation) -> "Counting":
        """Return how a detector of that configuration counts in an exposure of so many s."""
        dead_time = DEAD_TIME_EIGER2 if generation is EIGER2 else DEAD_TIME
        # Where a trigger brings its own exposure, the limits grow with it.
        count_time = Fraction(detector["count_time"])
        grown = Fraction(exposure) / count_time if count_time else Fraction(1)
        frames = max(1, round(_frames(detector) * grown)) if detector["auto_summation"] else 1
        cutoff = None
        if detector["countrate_correction_applied"]:
            cutoff = int(detector["countrate_correction_count_cutoff"] * grown)
        return cls(
            blind=dead_time / exposure if exposure else 0.0,
            counters_hold=frames * ((1 << int(detector["bit_depth_readout"])) - 1),
            cutoff=cutoff,
            most=(1 << int(detector["bit_depth_image"])) - 1,
        )


def _frames(detector: Mapping[str, Any]) -> int:
    """Return how many frames are summed to an image; an EIGER2 does not tell."""
    if "nframes_sum" in detector:
        return int(detector["nframes_sum"])
    frame = detector["frame_count_time"]
    return max(1, round(detector["count_time"] / frame)) if frame else 1
