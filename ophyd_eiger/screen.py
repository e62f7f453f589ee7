"""Where a prompt shows pictures: in windows, or in files where there is no display.

bluesky keeps windows alive while a scan runs with Qt alone, so that other windows are not opened.
As a backend of matplotlib this module makes figures that are drawn only when they are saved: what
nobody sees costs a scan nothing.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.registry import backend_registry

from ophyd_eiger.writing import new_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WINDOWS = "QtAgg"
FILES = f"module://{__name__}"


class FigureCanvas(FigureCanvasAgg):
    """What matplotlib draws a figure on; drawn when it is saved."""

    def draw_idle(self, *args: Any, **kwargs: Any) -> None:
        """Draw later."""


class Screen:
    """Shows figures.

    Parameters
    ----------
    folder : path
        Where they are drawn if there are no windows.

    Attributes
    ----------
    windows : bool
        Whether there are windows.
    why_not : str
        Why there are none.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self._folder = Path(folder)
        self._shown: dict[str, Any] = {}
        self.why_not = ""
        try:
            plt.switch_backend(WINDOWS)
        except ImportError:
            self.why_not = _why_no_windows()
            plt.switch_backend(FILES)
        self.windows = not self.why_not
        # A run of one point is seen, too.
        plt.rcParams.update({"lines.marker": "o", "lines.markersize": 4})

    def show(self, figure: "Figure", name: str) -> Path | None:
        """Show a figure in the place of the one before of the same name.

        Parameters
        ----------
        figure : matplotlib.figure.Figure
            Of any origin.
        name : str
            Title of the window, or name of the file without its ending.

        Returns
        -------
        Path or None
            The file that it was drawn into; None if it is in a window.
        """
        if not self.windows:
            path = self._folder / f"{name}.png"
            with new_file(path, replace=True) as file:
                figure.savefig(file, format="png")
            return path
        self.close(name)
        backend = backend_registry.load_backend_module(WINDOWS)
        # No number of pyplot's, which has figures of its own.
        manager = backend.new_figure_manager_given_figure(0, figure)
        manager.set_window_title(name)
        manager.show()
        self._shown[name] = manager
        return None

    def close(self, name: str) -> None:
        """Close a window, if it is there."""
        manager = self._shown.pop(name, None)
        if manager is not None:
            manager.destroy()


def _why_no_windows() -> str:
    """Return what is missing: matplotlib finds no Qt first, also where there is no display."""
    if not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys() and sys.platform == "linux":
        return "there is no display"
    return "there is no Qt, or the display cannot be used; pip install 'ophyd-eiger[plots]'"
