"""Where the beam meets the detector, and what angle a pixel is at.

Pure numpy, and one function that reads it from a master file. Loads neither ophyd nor an HTTP
client.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ophyd_eiger.errors import EigerError, GeometryError
from ophyd_eiger.series_metadata import HC, read_metadata

# What a geometry takes, and how a series' metadata call it.
SOURCES = {
    "beam_center_x": "beam_center_x",
    "beam_center_y": "beam_center_y",
    "distance": "detector_distance",
    "wavelength": "wavelength",
    "pixel_size_x": "x_pixel_size",
    "pixel_size_y": "y_pixel_size",
}
# The names of a geometry's numbers.
PARTS = tuple(SOURCES)
# What a detector says that nobody told: these may be 0, the others not.
_MAY_BE_ZERO = ("beam_center_x", "beam_center_y")


@dataclass(frozen=True)
class ScatteringGeometry:
    """A flat detector at a right angle to the beam.

    Attributes
    ----------
    beam_center_x, beam_center_y : float
        Where the beam meets the detector, in pixels from the image's corner.
    distance : float
        From sample to detector, in m.
    wavelength : float
        In angstrom.
    pixel_size_x, pixel_size_y : float
        In m.
    """

    beam_center_x: float
    beam_center_y: float
    distance: float
    wavelength: float
    pixel_size_x: float
    pixel_size_y: float

    def radius(self, shape: tuple[int, int]) -> np.ndarray:
        """Return how far each pixel's middle is from the beam, in m, float64 of `shape` (y, x)."""
        y = (np.arange(shape[0]) + 0.5 - self.beam_center_y) * self.pixel_size_y
        x = (np.arange(shape[1]) + 0.5 - self.beam_center_x) * self.pixel_size_x
        return np.hypot(y[:, np.newaxis], x[np.newaxis, :])

    def d_at(self, radius: np.ndarray | float) -> np.ndarray:
        """Return the d-spacing in angstrom that scatters to a radius in m; inf in the beam."""
        two_theta = np.arctan2(radius, self.distance)
        with np.errstate(divide="ignore"):
            return self.wavelength / (2 * np.sin(two_theta / 2))

    def q_at(self, radius: np.ndarray | float) -> np.ndarray:
        """Return the scattering vector's length in 1/angstrom at a radius in m."""
        return 4 * np.pi / self.wavelength * np.sin(np.arctan2(radius, self.distance) / 2)

    def radius_of(self, d: float) -> float | None:
        """Return the radius in m of the ring of a d-spacing in angstrom; None if there is none."""
        sine = self.wavelength / (2 * d)
        two_theta = 2 * np.arcsin(sine) if sine < 1 else np.pi
        return float(self.distance * np.tan(two_theta)) if two_theta < np.pi / 2 else None


def read_parts(master: Path, wanted: Collection[str] = PARTS) -> dict[str, float]:
    """Read those parts of a geometry that a master file says, by their names.

    Of a file that says no wavelength it is that of the photon energy.

    Parameters
    ----------
    master : Path
        The file.
    wanted : collection of str
        Which of `PARTS`.

    Raises
    ------
    MissingFileError
        If there is no such file.
    FileError
        If a value is none of its kind, or in a unit that it is not known in.
    """
    metadata = read_metadata(master, names=[SOURCES[name] for name in wanted])
    found = {name: getattr(metadata, SOURCES[name]) for name in wanted}
    if "wavelength" in found and not _is_said("wavelength", found["wavelength"]):
        energy = read_metadata(master, names=["photon_energy"]).photon_energy
        found["wavelength"] = HC / energy if energy else None
    return {name: value for name, value in found.items() if _is_said(name, value)}


def _is_said(name: str, value: Any) -> bool:
    if value is None or not math.isfinite(value):
        return False
    return value > 0 or name in _MAY_BE_ZERO


def untold_centre(master: Path, x: float, y: float) -> str:
    """Return what is said of a beam in the image's corner; "" of any other.

    Parameters
    ----------
    master : Path
        The file that has it.
    x, y : float
        Where it is, in pixels.
    """
    if (x, y) != (0, 0):
        return ""
    return (
        f"{master}: the beam centre is (0, 0), as it is of a detector that nobody told; profiles "
        "are around the corner of the image"
    )


def read_geometry(master: Path, given: Mapping[str, float] | None = None) -> ScatteringGeometry:
    """Read the geometry that a master file has.

    Parameters
    ----------
    master : Path
        The file.
    given : mapping, optional
        What is known better, by the names of `ScatteringGeometry`: ``{"distance": 0.2}``.

    Raises
    ------
    MissingFileError
        If there is no such file.
    FileError
        If it is not what it should be.
    GeometryError
        Naming what it does not have, or has as 0, which a detector says that nobody told.
    EigerError
        If what is given is no part of a geometry.
    """
    given = given or {}
    if strange := sorted(set(given).difference(PARTS)):
        raise EigerError(
            f"{', '.join(strange)}: no part of a geometry; those are {', '.join(PARTS)}"
        )
    wanted = [name for name in PARTS if name not in given]
    found = {**(read_parts(master, wanted) if wanted else {}), **given}
    if lacking := [name for name in PARTS if not _is_said(name, found.get(name))]:
        raise GeometryError(
            f"{master}: it does not say {', '.join(lacking)}; give what is not there, as geometry="
            "{'distance': 0.2} in m"
        )
    return ScatteringGeometry(**found)


def geometry_of(
    master: Path, given: ScatteringGeometry | Mapping[str, float] | None
) -> ScatteringGeometry:
    """Return a geometry that is given, or what a master file has with the parts that are given.

    Raises
    ------
    MissingFileError, FileError, EigerError
        As of `read_geometry`.
    """
    return given if isinstance(given, ScatteringGeometry) else read_geometry(master, given)
