"""An image on axes that loses no peak where it has more pixels than the screen.

Each point of the screen shows the brightest good pixel of the block that falls into it, so that a
Bragg peak of one pixel is seen in an image of 16 million. Loads matplotlib.
"""

import math
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.image import AxesImage

BACKGROUND, BAD = "viridis", "#c8553d"
# Of the good blocks, what is at full brightness: few are brighter, as Bragg peaks are.
BRIGHT_PERCENTILE = 99.8
# Where photons are few, one in a block is no peak: full brightness is so many photons above what
# so many of the blocks do not reach.
COMMON_PERCENTILE, ABOVE_COMMON = 95.0, 2.0


class BrightestImage(AxesImage):
    """An image of counts, pixel (0, 0) at the upper left, drawn block by block.

    The blocks are as large as what is seen of the image and the size of the axes ask for at the
    moment when it is drawn; where one zooms in, each is a pixel.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        On which it is put.
    image : numpy.ndarray, shape (y, x)
        Counts.
    masked : numpy.ndarray of bool, shape (y, x)
        True where a pixel is left out. A block is shown as masked where at least half of it is.
    **how
        As of `AxesImage`.

    Attributes
    ----------
    factor : int
        Pixels along each side of a block, as it was drawn last.
    """

    def __init__(self, ax: Axes, image: np.ndarray, masked: np.ndarray, **how: Any) -> None:
        height, width = image.shape
        colours = colormaps[BACKGROUND].with_extremes(bad=BAD)
        # Each block is at least a point of the screen, and none is mixed with its neighbours.
        kept: Any = {"cmap": colours, "interpolation": "nearest", "origin": "upper"}
        super().__init__(ax, extent=(0, width, height, 0), **kept, **how)
        self.factor = 1
        self._darkest = 0.0
        self._as_drawn: Any = None
        ax.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
        self.set_clip_path(ax.patch)
        self.take(image, masked)
        ax.add_image(self)

    def take(self, image: np.ndarray, masked: np.ndarray) -> None:
        """Show another image of the same shape."""
        self._image, self._masked = image, masked
        self._fit(anew=True)

    def scale(self, top: float | None = None, *, log: bool = False) -> None:
        """Say how bright counts are.

        Parameters
        ----------
        top : float, optional
            Counts at full brightness; what fits the blocks that are seen now if not given.
        log : bool
            Whether brightness is the logarithm of the counts.
        """
        blocks: Any = self.get_array()
        good = blocks.compressed()
        top = top or _full_brightness(good)
        # Half of the fewest photons, so that these are seen; where there are none, there is no
        # logarithm, and it is darkest, too.
        self._darkest = min(max(good[good > 0].min(initial=top), 1.0), top) / 2 if log else 0.0
        self.set_norm(LogNorm(self._darkest, top) if log else Normalize(0, top))
        self._fit(anew=True)

    def draw(self, renderer: Any) -> None:
        """Draw it, in blocks for the axes as they are now."""
        self._fit()
        super().draw(renderer)

    def _fit(self, *, anew: bool = False) -> None:
        """Have the blocks that fit the axes."""
        ax: Any = self.axes
        (x0, x1), (y0, y1) = sorted(ax.get_xlim()), sorted(ax.get_ylim())
        height, width = self._image.shape
        along_x = (x1 - x0) / max(ax.bbox.width, 1.0)
        along_y = (y1 - y0) / max(ax.bbox.height, 1.0)
        factor = max(math.ceil(max(along_x, along_y)), 1)
        rows, columns = _seen(y0, y1, height, factor), _seen(x0, x1, width, factor)
        if (factor, rows, columns) == self._as_drawn and not anew:
            return
        self._as_drawn = (factor, rows, columns)
        self.factor = factor
        blocks = in_blocks(self._image[rows, columns], self._masked[rows, columns], factor)
        self.set_data(np.ma.maximum(blocks, self._darkest))
        bottom, right = (
            part.start + factor * math.ceil((part.stop - part.start) / factor)
            for part in (rows, columns)
        )
        self.set_extent((columns.start, right, bottom, rows.start))


def in_blocks(image: np.ndarray, masked: np.ndarray, factor: int) -> np.ma.MaskedArray:
    """Return the brightest good pixel of each block.

    Parameters
    ----------
    image : numpy.ndarray, shape (y, x)
        Counts, not below 0.
    masked : numpy.ndarray of bool, shape (y, x)
        True where a pixel is left out.
    factor : int
        Pixels along each side of a block; fewer at the right and lower edge if need be.

    Returns
    -------
    numpy.ma.MaskedArray of float32, shape (ceil(y / factor), ceil(x / factor))
        Masked where at least half of a block is: a dead pixel hides no block.
    """
    good = np.where(masked, 0, image)
    if factor == 1:
        return np.ma.array(good.astype(np.float32), mask=masked)
    height, width = image.shape
    rows, columns = np.arange(0, height, factor), np.arange(0, width, factor)
    brightest = np.maximum.reduceat(np.maximum.reduceat(good, rows), columns, axis=1)
    left_out = np.add.reduceat(np.add.reduceat(masked, rows, dtype=np.int64), columns, axis=1)
    sizes = np.outer(np.diff([*rows, height]), np.diff([*columns, width]))
    return np.ma.array(brightest.astype(np.float32), mask=2 * left_out >= sizes)


def _full_brightness(good: np.ndarray) -> float:
    if not good.size:
        return ABOVE_COMMON
    common, bright = np.percentile(good, (COMMON_PERCENTILE, BRIGHT_PERCENTILE))
    return float(max(bright, common + ABOVE_COMMON))


def _seen(start: float, stop: float, size: int, factor: int) -> slice:
    """Return the pixels of whole blocks that are seen, along one side of the image."""
    first = min(max(math.floor(start), 0), size - 1) // factor * factor
    last = min(max(math.ceil(stop), first + 1), size)
    return slice(first, min(first + factor * math.ceil((last - first) / factor), size))
