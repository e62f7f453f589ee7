"""What shines on the simulated detector, for it to count; knows no pixel and no parameter."""

import math
from dataclasses import dataclass
from pathlib import Path

# What the detector can see beside a file: each is a module of `sim_dcu.scene`.
SCENES = ("scatter", "rings", "crystal", "flat", "test-pattern")
# In eV: beyond what any of the detectors can be set to.
LOWEST_ENERGY, HIGHEST_ENERGY = 1.0, 1e6


@dataclass(frozen=True)
class Beam:
    """The beam and what stands in it.

    Attributes
    ----------
    scene : str
        What the detector sees: one of `SCENES`, or the path of an image, of a series of them, or
        of a folder of either.
    flux : float
        Factor on the photons of the scene; 0 is a closed shutter.
    energy : float or None
        Of its photons, in eV, whatever the detector is set to. None is a beam of the energy that
        the detector is told as `photon_energy`, as at a beamline that is set up rightly.

    Raises
    ------
    ValueError
        Where one of them is none that can be simulated.
    """

    scene: str = "scatter"
    flux: float = 1.0
    energy: float | None = None

    @property
    def is_recorded(self) -> bool:
        """Whether the scene is a file's."""
        return self.scene not in SCENES

    def __post_init__(self) -> None:
        if self.scene not in SCENES and not (self.scene and Path(self.scene).exists()):
            raise ValueError(
                f"scene {self.scene!r} is not one of {', '.join(SCENES)}, nor is there such a file"
            )
        if not _is_number(self.flux) or not (math.isfinite(self.flux) and self.flux >= 0):
            raise ValueError(f"flux {self.flux!r} is not a finite number of 0 or more")
        if self.energy is not None and not _is_number(self.energy):
            raise ValueError(
                f"beam energy {self.energy!r} is no number of eV, nor nothing (null), which is "
                "that of photon_energy"
            )
        if self.energy is not None and not LOWEST_ENERGY <= self.energy <= HIGHEST_ENERGY:
            raise ValueError(
                f"beam energy {self.energy} eV is not from {LOWEST_ENERGY:g} to "
                f"{HIGHEST_ENERGY:g} eV"
            )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


DEFAULT_BEAM = Beam()
