"""Where the beam meets the detector, as far as a scene's geometry needs it."""

from dataclasses import dataclass

from sim_dcu.series import ArmedSeries

# h c / e in eV angstrom, exact in the SI of 2019.
HC_OVER_E = 12398.41984332
# In m: where a detector that was told no distance is taken to stand.
DEFAULT_DISTANCE = 0.05


@dataclass(frozen=True)
class Optics:
    """The geometry of scattering.

    Attributes
    ----------
    centre : tuple of float
        Where the beam hits, (y, x) in pixels of the image.
    distance : float
        From sample to detector, in pixels.
    wavelength : float
        In angstrom.
    """

    centre: tuple[float, float]
    distance: float
    wavelength: float

    @classmethod
    def of(cls, series: ArmedSeries) -> "Optics":
        """Return the geometry of a series.

        Beam centre and distance are those of the detector's configuration; where they are 0, as
        after initialize, the beam hits the whole detector's middle, `DEFAULT_DISTANCE` away. The
        wavelength is the beam's own.
        """
        detector = series.detector
        centre = float(detector["beam_center_y"]), float(detector["beam_center_x"])
        if centre == (0.0, 0.0):
            whole = series.whole or series.shape
            centre = (
                whole[0] / 2 - series.origin[0],
                whole[1] / 2 - series.origin[1],
            )
        distance = float(detector["detector_distance"]) or DEFAULT_DISTANCE
        return cls(
            centre=centre,
            distance=abs(distance) / float(detector["x_pixel_size"]),
            wavelength=HC_OVER_E / beam_energy(series),
        )


def beam_energy(series: ArmedSeries) -> float:
    """Return the energy of the beam's photons in eV."""
    energy = series.beam.energy
    return float(series.detector["photon_energy"]) if energy is None else energy
