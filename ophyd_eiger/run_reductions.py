"""What images are reduced to, one image after the other: sums, regions, profiles, projections.

Pure numpy on arrays in memory, pyFAI for profiles. A reduction is told of each image in order and
gives arrays in the end; any object with `add` and `result` is one.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from ophyd_eiger.errors import EigerError, RegionError
from ophyd_eiger.geometry import ScatteringGeometry
from ophyd_eiger.regions import Regions, checked_rois

# The units of a profile's axis, and what it depends on besides beam centre and pixel sizes.
_DEPENDS_ON = {"q_A^-1": ("distance", "wavelength"), "2th_deg": ("distance",), "r_mm": ()}
PROFILE_UNITS = tuple(_DEPENDS_ON)
WHOLE = "image"
# What stands for a saturated pixel in a profile: no image has it.
_NO_COUNTS = np.finfo(np.float32).min


def parts_of_profile(unit: str, *, solid_angle: bool) -> tuple[str, ...]:
    """Return which parts of a geometry a profile depends on.

    Raises
    ------
    EigerError
        If there is no such unit.
    """
    _check_unit(unit)
    always = ("beam_center_x", "beam_center_y", "pixel_size_x", "pixel_size_y")
    return (*always, *_DEPENDS_ON[unit], *(("distance",) if solid_angle else ()))


def _check_unit(unit: str) -> None:
    if unit not in PROFILE_UNITS:
        raise EigerError(f"unit {unit!r} is none of {', '.join(PROFILE_UNITS)}")


class Reduction(Protocol):
    """What images are reduced to."""

    def add(self, image: np.ndarray) -> dict[str, Any]:
        """Take one image of shape (y, x); return its own numbers.

        It holds 0 where pixels are left out, and where they are saturated what `saturated_in`
        finds.
        """
        ...

    def result(self) -> dict[str, np.ndarray]:
        """Return what all images together have become, arrays of shape (y, x)."""
        ...


def saturated_in(image: np.ndarray) -> np.ndarray | None:
    """Return which pixels counted more than can be told, bool of shape (y, x); None if none did.

    They hold the largest value of their type; behind a flat field, NaN.
    """
    # Few images have any, and their largest value tells it in a fraction of the time.
    most = image.max()
    if image.dtype.kind == "f":
        return np.isnan(image) if np.isnan(most) else None
    largest = np.iinfo(image.dtype).max
    return image == largest if most == largest else None


class Numbers:
    """Sum, maximum and mean of regions of each image; of the whole image as "image".

    Parameters
    ----------
    mask : numpy.ndarray of bool, shape (y, x)
        True where a pixel is left out.
    rois : mapping
        Name: (x0, y0, width, height) in pixels, or None for the whole image.

    Raises
    ------
    RegionError
        If a region is none, or not within the image.
    """

    def __init__(
        self, mask: np.ndarray, rois: Mapping[str, Iterable[int] | None] | None = None
    ) -> None:
        if WHOLE in (rois or {}):
            raise RegionError(f"reprocess: {WHOLE!r} is the whole image; give another name")
        checked = {WHOLE: None, **checked_rois(rois or {}, "reprocess")}
        self._regions = Regions(checked, mask, "reprocess")

    def add(self, image: np.ndarray) -> dict[str, Any]:
        """Return the numbers of an image, NaN where a region has no good pixel.

        Saturated pixels are left out of it: what they counted is not known.
        """
        lost = saturated_in(image)
        if lost is not None:
            image = np.where(lost, image.dtype.type(0), image)
        return self._regions.numbers(image, None, lost)

    def result(self) -> dict[str, np.ndarray]:
        """Return nothing: each image has its own."""
        return {}


class Projections:
    """The sum and the maximum over all images, pixel by pixel."""

    def __init__(self) -> None:
        self._total: np.ndarray | None = None
        self._maximum: np.ndarray | None = None
        self._lost: np.ndarray | None = None

    def add(self, image: np.ndarray) -> dict[str, Any]:
        """Take an image."""
        lost = saturated_in(image)
        if lost is not None:
            self._lost = lost if self._lost is None else self._lost | lost
        if self._total is None or self._maximum is None:
            wide = np.float64 if image.dtype.kind == "f" else np.uint64
            self._total, self._maximum = image.astype(wide), image.copy()
        else:
            self._total += image
            # Longer exposures may have more bits.
            self._maximum = np.maximum(self._maximum, image)
        return {}

    @property
    def saturated(self) -> np.ndarray | None:
        """Which pixels are saturated in any image, bool of shape (y, x); None if none is."""
        return self._lost

    def result(self) -> dict[str, np.ndarray]:
        """Return `total` (uint64, or float64 with a flat field) and `maximum`.

        Both are 0 where a pixel is saturated in any image, as where it is left out.
        """
        if self._total is None or self._maximum is None:
            return {}
        if self._lost is not None:
            self._total[self._lost] = self._maximum[self._lost] = 0
        return {"total": self._total, "maximum": self._maximum}


class Profile:
    """The radial profile of each image, by pyFAI: the mean of the good pixels of each bin.

    Saturated pixels are left out of their image.

    Parameters
    ----------
    geometry : ScatteringGeometry
        Where the beam is.
    mask : numpy.ndarray of bool, shape (y, x)
        True where a pixel is left out.
    bins : int
        How many.
    unit : str
        Of the axis: "q_A^-1", "2th_deg" or "r_mm".
    solid_angle : bool
        Whether pixels are weighted by the solid angle they see.

    Attributes
    ----------
    axis : numpy.ndarray of float64, shape (bins,)
        The middles of the bins.

    Raises
    ------
    EigerError
        If pyFAI is not installed.
    """

    def __init__(
        self,
        geometry: ScatteringGeometry,
        mask: np.ndarray,
        *,
        bins: int = 500,
        unit: str = PROFILE_UNITS[0],
        solid_angle: bool = False,
    ) -> None:
        _check_unit(unit)
        try:
            from pyFAI.detectors import Detector
            from pyFAI.integrator.azimuthal import AzimuthalIntegrator
        except ImportError as error:
            raise EigerError(
                f"{error}; radial profiles need: pip install 'ophyd-eiger[profiles]'"
            ) from error
        detector = Detector(
            pixel1=geometry.pixel_size_y, pixel2=geometry.pixel_size_x, max_shape=mask.shape
        )
        self._integrator = AzimuthalIntegrator(
            dist=geometry.distance,
            poni1=geometry.beam_center_y * geometry.pixel_size_y,
            poni2=geometry.beam_center_x * geometry.pixel_size_x,
            detector=detector,
            wavelength=geometry.wavelength * 1e-10,
        )
        self._mask = mask.astype(np.int8)
        self._bins, self._unit, self._solid_angle = bins, unit, solid_angle
        # That of all pixels: the axis is the same whatever is left out.
        radial = self._integrator.center_array(mask.shape, unit=unit)
        self._range = (float(radial.min()), float(radial.max()))
        self.axis = np.asarray(self._integrate(np.zeros(mask.shape, np.float32)).radial, np.float64)

    def add(self, image: np.ndarray) -> dict[str, Any]:
        """Return the profile of an image, float64 of shape (bins,), NaN in an empty bin."""
        lost = saturated_in(image)
        if lost is not None:
            image = np.where(lost, _NO_COUNTS, image.astype(np.float32))
        result = self._integrate(image)
        profile = np.asarray(result.intensity, np.float64).copy()
        profile[np.asarray(result.count) == 0] = math.nan
        return {"profile": profile}

    def result(self) -> dict[str, np.ndarray]:
        """Return nothing: each image has its own."""
        return {}

    def _integrate(self, image: np.ndarray) -> Any:
        # Each pixel in one bin: what is left out of the image is left out of the profile.
        return self._integrator.integrate1d(
            image,
            self._bins,
            mask=self._mask,
            unit=self._unit,
            radial_range=self._range,
            correctSolidAngle=self._solid_angle,
            # A mask of each image's own would have pyFAI sort all pixels into bins anew.
            dummy=_NO_COUNTS,
            delta_dummy=0.0,
            method=("no", "csr", "cython"),
        )
