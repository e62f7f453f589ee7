"""The arrays a detector leaves the factory with, whole and for each region of interest.

Knows arrays and regions; nothing of parameters, series or files.
"""

import numpy as np

from sim_dcu.geometry import default_flatfield, default_pixel_mask
from sim_dcu.models import WHOLE, Model


def read_only(array: np.ndarray) -> np.ndarray:
    """Return `array`, which nobody may change any more."""
    array.flags.writeable = False
    return array


class Calibration:
    """A detector's flat field and mask, and the regions it can be read out by.

    Parameters
    ----------
    model : Model
        Which detector.
    seed : int
        Chooses the bad pixels.

    Attributes
    ----------
    pixel_mask : numpy.ndarray of uint32, shape (y, x)
        The mask of the whole detector.
    """

    def __init__(self, model: Model, seed: int):
        modules = model.modules_x, model.modules_y
        self._model = model
        self._flatfield = read_only(default_flatfield(*modules, model.generation))
        self._flatfields: dict[str, np.ndarray] = {WHOLE: self._flatfield}
        self.pixel_mask = read_only(default_pixel_mask(*modules, seed, model.generation))

    def flatfield(self, region: str) -> np.ndarray:
        """Return the factory's flat field of a region: float32, (y, x), the same object always."""
        if region not in self._flatfields:
            self._flatfields[region] = self.cut(self._flatfield, region)
        return self._flatfields[region]

    def shape(self, region: str) -> tuple[int, int]:
        """Return the shape (y, x) of a region's images in pixels."""
        rows, columns = self._place(region)
        return rows.stop - rows.start, columns.stop - columns.start

    def origin(self, region: str) -> tuple[int, int]:
        """Return (row, column) of a region's first pixel in the whole detector."""
        rows, columns = self._place(region)
        return rows.start, columns.start

    def cut(self, whole: np.ndarray, region: str) -> np.ndarray:
        """Return the part of a whole detector's array that a region shows; itself for all of it."""
        if region == WHOLE:
            return whole
        return read_only(np.ascontiguousarray(whole[self._place(region)]))

    def pasted(self, whole: np.ndarray, part: np.ndarray, region: str) -> np.ndarray:
        """Return a whole detector's array with `part` in a region's place."""
        if region == WHOLE:
            return part
        changed = whole.copy()
        changed[self._place(region)] = part
        return read_only(changed)

    def _place(self, region: str) -> tuple[slice, slice]:
        return self._model.place(region)
