"""Pictures of a series: an image, projections, sums over time; for notebooks, files and terminals.

Works on anything that has images as a Series has them, and loads matplotlib when a picture is
drawn; it never asks for a display.
"""

import base64
import html
import io
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ophyd_eiger.errors import EigerError, FileError
from ophyd_eiger.geometry import ScatteringGeometry, geometry_of
from ophyd_eiger.run_reductions import Projections, saturated_in
from ophyd_eiger.writing import new_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = ("image", "sum", "max", "sums", "overview")
RING = "#ffffff"
_RINGS = 4
_DPI, _SMALL_DPI = 100, 60


class HasImages(Protocol):
    """What pictures are made of: a Series, or what has images, mask and master file as it has."""

    @property
    def path(self) -> Path:
        """The file it was opened by."""
        ...

    @property
    def master_path(self) -> Path:
        """The master file, there or not."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """(images, y, x)."""
        ...

    @property
    def mask(self) -> np.ndarray:
        """The detector's mask, 0 where a pixel is good."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any) -> np.ndarray: ...


@dataclass(frozen=True)
class Picture:
    """A drawn picture, which a notebook shows.

    Attributes
    ----------
    figure : matplotlib.figure.Figure
        To draw more into it, or to change it.
    """

    figure: "Figure"

    def png(self, dpi: int = _DPI) -> bytes:
        """Return it as a PNG of so many dots an inch."""
        drawn = io.BytesIO()
        self.figure.savefig(drawn, format="png", dpi=dpi)
        return drawn.getvalue()

    def save(self, path: Path | str) -> Path:
        """Write it into a new PNG file; nothing is overwritten.

        Raises
        ------
        FileError
            If there is such a file already, or it cannot be written.
        """
        path = Path(path)
        try:
            with new_file(path) as file:
                file.write(self.png())
        except OSError as error:
            raise FileError(f"{path}: not written ({error.strerror})") from error
        return path

    def _repr_png_(self) -> bytes:
        return self.png()


@dataclass(frozen=True)
class Look:
    """How images are shown: each dot of the picture is the brightest of its good pixels.

    Attributes
    ----------
    log : bool
        Whether brightness is the logarithm of the counts.
    top : float or None
        Counts at full brightness; None or 0 for those that few points of the picture reach.
    mask : numpy.ndarray or None
        Not 0 where a pixel is left out besides the detector's mask, shape (y, x).
    rings : bool or iterable of float
        d-spacings of resolution rings in angstrom; True for some that fit the image, where the
        master file says where the beam was.
    geometry : ScatteringGeometry, mapping or None
        In place of the master file's; of a mapping, as ``{"distance": 0.2}``, the parts it has.
    """

    log: bool = False
    top: float | None = None
    mask: np.ndarray | None = None
    rings: bool | Iterable[float] = True
    geometry: ScatteringGeometry | Mapping[str, float] | None = None


def show(series: HasImages, what: int | str = 0, look: Look | None = None) -> Picture:
    """Draw a series.

    Parameters
    ----------
    series : Series
        Of which each image is read once at most.
    what : int or str
        The number of an image, counted from 0; "sum" or "max" over all images, pixel by pixel;
        "sums", the sum of the good pixels of each image over time; or "overview" of all of them.
        A pixel is saturated where it holds the largest value of its type, which is also what is
        found where one is masked. It is drawn in red as masked ones are, in "sum" and "max" where
        it is so in any image, and is left out of "sums" as of `roi_sums`.
    look : Look, optional
        How.

    Raises
    ------
    EigerError
        If matplotlib is not installed, or there is no such picture, ring or brightness.
    FileError
        If a file is missing or broken, or rings are asked for and the master file does not say
        where the beam was.
    IndexError
        If there is no such image, or none at all.
    """
    drawing = _Drawing(series, look or Look())
    if isinstance(what, (int, np.integer)):
        return drawing.one(series[int(what)], f"image {_counted(int(what), series)}")
    if what not in KINDS:
        raise EigerError(f"there is no picture {what!r}; give a number, {', '.join(KINDS[1:])}")
    if what == "image":
        return drawing.one(series[0], f"image {_counted(0, series)}")
    if not len(series):
        raise IndexError(f"{series.path.name}: it has no images")
    sums, projections = _reduced(series, drawing.masked)
    if what == "sums":
        return drawing.sums(sums)
    if what == "overview":
        return drawing.overview(sums, projections)
    return drawing.projection(projections, what)


def as_html(series: HasImages, facts: dict[str, Any]) -> str:
    """Return what a notebook shows of a series: facts as a table, and its first image.

    Where no picture can be drawn the reason stands in its place.
    """
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in facts.items()
    )
    try:
        encoded = base64.b64encode(show(series).png(_SMALL_DPI)).decode()
        shown = f'<img alt="first image" src="data:image/png;base64,{encoded}"/>'
    except (EigerError, IndexError) as error:
        shown = f"<p>no picture: {html.escape(str(error))}</p>"
    return f"<table>{rows}</table>{shown}"


def _counted(number: int, series: HasImages) -> str:
    """Return which image it is, for people: from 1."""
    return f"{(number if number >= 0 else number + len(series)) + 1} of {len(series)}"


def _reduced(series: HasImages, masked: np.ndarray) -> tuple[list[float], Projections]:
    """Return the sum of each image and the projections of all, reading image by image.

    Parameters
    ----------
    series : Series
        Of which each image is read once.
    masked : numpy.ndarray of bool, shape (y, x)
        What is left out, beside what is saturated.
    """
    projections = Projections()
    left_out = np.flatnonzero(masked)
    sums: list[float] = []
    for number in range(len(series)):
        image = series[number]
        image.reshape(-1)[left_out] = 0
        projections.add(image)
        lost = saturated_in(image)
        if lost is not None:
            image[lost] = 0
        total = int(image.sum(dtype=np.uint64))
        sums.append(math.nan if masked.size == len(left_out) else total)
    return sums, projections


class _Drawing:
    """One look at one series."""

    def __init__(self, series: HasImages, look: Look) -> None:
        try:
            import matplotlib.figure as _  # noqa: F401 - drawn with below
        except ImportError as error:
            raise EigerError(f"{error}; pictures need: pip install 'ophyd-eiger[cli]'") from error
        self._series = series
        self._look = look
        if look.top is not None and not (math.isfinite(look.top) and look.top >= 0):
            raise EigerError(f"top={look.top:g}: full brightness is at a number of counts above 0")
        self.masked = _masked(series, look.mask)
        self._rings = list(self._chosen_rings())

    def one(self, image: np.ndarray, title: str) -> Picture:
        """Return the picture of one image."""
        return self._alone(image, title, saturated_in(image))

    def projection(self, projections: Projections, what: str) -> Picture:
        """Return the picture of a sum or maximum."""
        title = f"{_WORDS[what]} of {len(self._series)} images"
        return self._alone(projections.result()[_KEYS[what]], title, projections.saturated)

    def _alone(self, image: np.ndarray, title: str, lost: np.ndarray | None) -> Picture:
        figure = _figure(7.2, _panel_height(7.2, image.shape))
        self._draw(figure.subplots(), image, title, lost)
        return self._titled(figure, self._in_red(lost))

    def sums(self, sums: list[float]) -> Picture:
        """Return the picture of sums over time."""
        figure = _figure(7.2, 4.0)
        _draw_sums(figure.subplots(), sums)
        count = int(np.count_nonzero(self.masked))
        return self._titled(figure, f"{count} masked pixels left out" if count else "")

    def overview(self, sums: list[float], projections: Projections) -> Picture:
        """Return first image, sum, maximum, and sums over time, in one picture."""
        first = self._series[0]
        figure = _figure(13.0, 2 * _panel_height(6.5, first.shape))
        axes = figure.subplots(2, 2)
        self._draw(axes[0, 0], first, f"image {_counted(0, self._series)}", saturated_in(first))
        pictures, lost = projections.result(), projections.saturated
        for ax, what in zip((axes[0, 1], axes[1, 0]), _KEYS, strict=True):
            title = f"{_WORDS[what]} of {len(self._series)} images"
            self._draw(ax, pictures[_KEYS[what]], title, lost)
        _draw_sums(axes[1, 1], sums)
        return self._titled(figure, self._in_red(lost))

    def _in_red(self, lost: np.ndarray | None) -> str:
        """Return how many pixels are in red, of which these are saturated, or masked as well."""
        masked = int(np.count_nonzero(self.masked))
        saturated = 0 if lost is None else int(np.count_nonzero(lost & ~self.masked))
        if masked and saturated:
            return f"{masked} masked and {saturated} saturated pixels in red"
        if saturated:
            # Without a mask, or with one that says nothing, nobody knows which of them are.
            return f"{saturated} masked or saturated pixels in red"
        return f"{masked} masked pixels in red" if masked else ""

    def _titled(self, figure: "Figure", left_out: str) -> Picture:
        lines = [self._series.path.name, left_out]
        figure.suptitle("\n".join(filter(None, lines)), fontsize="medium")
        return Picture(figure)

    def _draw(self, ax: "Axes", image: np.ndarray, title: str, lost: np.ndarray | None) -> None:
        from matplotlib.ticker import LogLocator, MaxNLocator

        from ophyd_eiger.brightest import BrightestImage

        log = self._look.log
        picture = BrightestImage(ax, image, self.masked if lost is None else self.masked | lost)
        picture.scale(self._look.top, log=log)
        if picture.factor > 1:
            side = picture.factor
            title += f"\neach dot the brightest of {side} x {side} pixels"
        ax.set(title=title, xlabel="x [pixel]", ylabel="y [pixel]")
        figure: Any = ax.figure
        ticks = LogLocator(subs=(1, 2, 5)) if log else MaxNLocator(6, integer=True, min_n_ticks=1)
        label = "photons a pixel"
        bar = figure.colorbar(
            picture, ax=ax, label=label, extend="max", ticks=ticks, format="%g", shrink=0.92
        )
        bar.minorticks_off()
        for d, geometry in self._rings:
            _draw_ring(ax, d, geometry, image.shape)

    def _chosen_rings(self) -> Iterator[tuple[float, ScatteringGeometry]]:
        """Yield d-spacings in angstrom and where the beam is, of rings that can be drawn."""
        rings = self._look.rings
        if rings is False:
            return
        try:
            geometry = geometry_of(self._series.master_path, self._look.geometry)
        except FileError:
            if rings is True:
                return  # Nobody asked for them.
            raise
        shape: Any = self._series.shape[1:]
        if rings is True:
            radii = np.linspace(0, geometry.radius(shape).max(), _RINGS + 2)[1:-1]
            # Two digits are enough to know where one is; the ring is drawn where they are.
            for said in dict.fromkeys(f"{d:.2g}" for d in geometry.d_at(radii)):
                yield float(said), geometry
            return
        for d in rings:
            if not (math.isfinite(d) and d > 0):
                raise EigerError(f"a ring at {d} angstrom: a d-spacing is a length above 0")
            if geometry.radius_of(float(d)) is None:
                raise EigerError(
                    f"{self._series.path}: {d} angstrom does not scatter onto the detector at "
                    f"{geometry.wavelength:.5g} angstrom"
                )
            yield float(d), geometry


_KEYS = {"sum": "total", "max": "maximum"}
_WORDS = {"sum": "sum", "max": "maximum"}


def _masked(series: HasImages, mine: np.ndarray | None) -> np.ndarray:
    """Return what masks leave out of pictures, bool of shape (y, x).

    Raises
    ------
    FileError
        If the shape of the master's mask is not that of the images.
    EigerError
        If that of a mask of one's own is not.
    """
    shape = series.shape[1:]
    try:
        masked = series.mask != 0
    except FileError:
        # A data file alone has none, nor have some masters.
        masked = np.zeros(shape, bool)
    if masked.shape != shape:
        # Some masters have that of the whole detector, of images that are a part of it.
        raise FileError(f"{series.master_path}: a mask of shape {masked.shape}, images of {shape}")
    if mine is not None:
        if np.shape(mine) != shape:
            raise EigerError(f"a mask of shape {np.shape(mine)}, images of {shape}")
        masked = masked | (np.asarray(mine) != 0)
    return masked


def _figure(width: float, height: float) -> "Figure":
    """Return a figure of this size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _panel_height(width: float, shape: tuple[int, ...]) -> float:
    """Return how high the picture of an image is, in inches, with labels and two lines of title."""
    return max(2.5, 0.75 * width * shape[0] / shape[1] + 1.4)


def _draw_sums(ax: "Axes", sums: list[float]) -> None:
    from matplotlib.ticker import MaxNLocator

    numbers = np.arange(1, len(sums) + 1)
    ax.plot(numbers, sums, marker="." if len(sums) < 200 else "", linewidth=1)
    ax.set(title="sum of the good pixels", xlabel="image", ylabel="photons")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.3)


def _draw_ring(ax: "Axes", d: float, geometry: ScatteringGeometry, shape: tuple[int, ...]) -> None:
    from matplotlib.patches import Ellipse

    radius = geometry.radius_of(d)
    if radius is None:
        return
    x, y = radius / geometry.pixel_size_x, radius / geometry.pixel_size_y
    center = (geometry.beam_center_x, geometry.beam_center_y)
    style: dict[str, Any] = {"edgecolor": RING, "linewidth": 0.8, "linestyle": (0, (4, 4))}
    ax.add_patch(Ellipse(center, 2 * x, 2 * y, fill=False, alpha=0.8, **style))
    ax.plot(*center, marker="+", color=RING, markersize=9)
    # Where the ring is within the image, beginning at its upper right.
    for angle in np.deg2rad(np.arange(-45, 315, 5)):
        at = (center[0] + x * np.cos(angle), center[1] + y * np.sin(angle))
        if 0.04 < at[0] / shape[1] < 0.93 and 0.04 < at[1] / shape[0] < 0.96:
            text = ax.text(*at, f"{d:g} Å", color=RING, fontsize="small", ha="center", va="center")
            text.set_bbox({"facecolor": "#00000080", "edgecolor": "none", "pad": 1.5})
            break
    ax.set(xlim=(0, shape[1]), ylim=(shape[0], 0))
