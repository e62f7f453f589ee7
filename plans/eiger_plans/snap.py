"""One image, looked at."""

import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

from eiger_plans.arguments import checked, recorded
from eiger_plans.series import series
from eiger_plans.steps import aside, in_thread
from ophyd_eiger import EigerDetector, EigerError, Series, open_series


@checked
def snap(
    eiger: EigerDetector,
    exposure: float,
    *,
    energy: float | None = None,
    comment: str | None = None,
    md: dict[str, Any] | None = None,
) -> Generator[Any, Any, Series | None]:
    """Take one image and show it.

    In a notebook the picture is shown there, in a window where matplotlib has Qt ones
    (`%matplotlib qt`); else it is saved beside the files, and its path printed. What it sets stays
    set.

    Parameters
    ----------
    eiger : EigerDetector
        The detector; initialized.
    exposure : float
        Exposure time in s.
    energy : float, optional
        Photon energy in eV; left as it is if not given or if it is so already.
    comment : str, optional
        In words what this is; it is in the run's metadata.
    md : dict, optional
        Metadata of the run.

    Yields
    ------
    msg : Msg
        Messages for the RunEngine.

    Returns
    -------
    Series
        What was taken: `[0]` is the image, `mask` the detector's mask, `show()` the picture. None
        where the messages are but listed.

    Raises
    ------
    ValueError
        If a number is not finite, or the detector does not allow a value. No run is opened then.

    Examples
    --------
    >>> RE(snap(eiger, 0.1))
    """
    _md = {
        "plan_name": "snap",
        "plan_args": recorded(
            eiger=eiger,
            exposure=exposure,
            energy=energy,
            comment=comment,
        ),
        **(md or {}),
    }
    uid = yield from series(eiger, exposure, energy=energy, comment=comment, md=_md)
    if uid is None:
        return None
    # Where a scan does not wait for its files they are on their way still.
    yield from in_thread(eiger.wait_for_files, is_left=True)
    found = open_series(eiger.views[-1])
    yield from aside(_show, found)
    return found


def _show(found: Series) -> None:
    """Show the first image where there is a screen for it, and save it where there is none."""
    try:
        picture = found.show()
    except EigerError as error:
        print(f"  no picture: {error}")
        return
    if _in_notebook():
        from IPython.display import display

        display(picture)
    elif _has_windows():
        _show_window(picture)
    else:
        path = Path(found.path)
        saved = picture.save(path.with_name(path.name.replace("_view.h5", "_image.png")))
        print(f"  {saved}  the image as a picture")


def _in_notebook() -> bool:
    """Return whether this is the kernel of a notebook, without loading IPython for it."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def _has_windows() -> bool:
    """Return whether somebody has asked matplotlib for windows of Qt.

    Windows belong to the main thread, plans to another: only Qt's are reached from there.
    """
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None or not pyplot.isinteractive():
        return False
    return "qt" in pyplot.get_backend().lower()


def _show_window(picture: Any) -> None:
    """Show a picture in a window, from the thread that windows belong to."""
    from bluesky.callbacks.mpl_plotting import QtAwareCallback
    from matplotlib import pyplot as plt

    class InItsThread(QtAwareCallback):
        def stop(self, doc: Any) -> None:
            window: Any = plt.figure(figsize=picture.figure.get_size_inches())
            window.canvas.figure = picture.figure
            picture.figure.set_canvas(window.canvas)
            window.canvas.manager.show()
            window.canvas.draw_idle()

    # Any document would do.
    InItsThread()("stop", {})
