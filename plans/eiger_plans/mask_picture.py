"""Draws bad pixels over what was counted, with matplotlib where it is installed."""

import logging
from pathlib import Path
from typing import IO, Any

import numpy as np

from eiger_plans.calibrating import dated_file
from eiger_plans.counts import DEAD, NOISY, OVER, UNDER

logger = logging.getLogger(__name__)

# Of each kind: bit, word, colour and marker; told apart without colours too.
LOOKS = (
    (DEAD, "dead", "tab:blue", "x"),
    (UNDER, "under-responding", "tab:cyan", "v"),
    (OVER, "over-responding", "tab:red", "o"),
    (NOISY, "noisy", "tab:orange", "s"),
)
# As in all pictures of a series; no count is drawn in it.
MASKED = "#c8553d"


def draw(
    name: str, counts: np.ndarray, before: np.ndarray, added: np.ndarray, folder: Path
) -> Path | None:
    """Draw newly found bad pixels over the counts; return the .png file, None without matplotlib.

    Parameters
    ----------
    name : str
        The detector's.
    counts : numpy.ndarray, shape (y, x)
        In all images.
    before : numpy.ndarray of uint32, shape (y, x)
        The mask of before, in the colour that masked pixels have in all pictures.
    added : numpy.ndarray of uint32, shape (y, x)
        Bits of the pixels that are new.
    folder : Path
        Where the file goes.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        logger.warning("no picture of the mask: pip install matplotlib")
        return None
    height, width = counts.shape
    figure = Figure(figsize=(8, 1.5 + 6.2 * height / width), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    unmasked = np.ma.masked_where((before != 0) | (added != 0), counts)
    known = unmasked.compressed()
    low, high = np.percentile(known, (1, 99)) if known.size else (0, 1)
    axes.set_facecolor(MASKED)
    shown = axes.imshow(
        unmasked, cmap="gray", vmin=low, vmax=max(high, low + 1), interpolation="nearest"
    )
    # As high as the image, whose height follows from its width.
    bar = axes.inset_axes((1.02, 0, 0.035, 1))
    figure.colorbar(shown, cax=bar, label="counts in all images", format="%.7g")
    for bit, word, colour, marker in LOOKS:
        rows, columns = np.nonzero(added & bit)
        axes.scatter(
            columns,
            rows,
            s=40,
            marker=marker,
            linewidths=1.3,
            color=colour if marker == "x" else "none",
            edgecolors=None if marker == "x" else colour,
            label=f"{word}: {rows.size}",
        )
    axes.set_title(f"{name}: {np.count_nonzero(added)} bad pixels that were not masked")
    axes.set_xlabel("x [pixel]")
    axes.set_ylabel("y [pixel]")
    figure.legend(loc="outside lower center", ncols=4, frameon=False)

    def write(file: IO[bytes]) -> None:
        figure.savefig(file, format="png", bbox_inches="tight", pad_inches=0.15)

    return dated_file(folder, f"{name}_bad_pixels", ".png", write)
