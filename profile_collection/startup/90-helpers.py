"""What one asks at the prompt: where files are, how an image looks, what is measured now."""

from numbers import Integral

import matplotlib.pyplot as plt

from ophyd_eiger import EigerError, open_run
from ophyd_eiger.prompt import FileList, LiveView, said_of_image


def run_of(run):
    """Return a run of the catalog: -1 is the last, else by scan_id or uid."""
    try:
        return cat[run]
    except (LookupError, ValueError):
        none = "there are no runs yet: RE(count([eiger], 3)) takes one"
        raise LookupError(none if run == -1 else f"there is no run {run!r}") from None


def where(run=-1):
    """Return the files of a run: the last, or by scan_id as where(12), or by uid."""
    try:
        return FileList(run_of(run))
    except (EigerError, LookupError) as error:
        print(f"no files: {error}")


def show_last(image=0, run=-1, **look):
    """Show an image of a run's last point; look as of Series.show: log=True, top=20, ..."""
    if not isinstance(image, Integral):
        print(
            f"no image to show: {image!r} is no image's number; a run is show_last(run={image!r})"
        )
        return
    try:
        taken = open_run(run_of(run))
        found = taken[-1].found
        print(said_of_image(taken, image=image))
    except (EigerError, LookupError) as error:
        hint = "" if image < 1 or run != -1 else f"; run {image} is show_last(run={image})"
        print(f"no image to show: {error}{hint}")
        return
    picture = found.series.show(found.numbers[image], **look)
    if drawn := screen.show(picture.figure, "last_image"):
        print(f"drawn in {drawn}")


def show_plots():
    """Draw the scans' plots into files, where there are no windows for them."""
    for number in plt.get_fignums():
        figure = plt.figure(number)
        if not screen.windows:
            print(f"{figure.get_label()}: drawn in {screen.show(figure, f'plot_{number}')}")


def live(on=True):
    """Show what the detector's monitor has, image by image while scans run, until live(False)."""
    global live_view
    if live_view is not None:
        live_view.close()
        live_view = None
    if not on:
        return
    try:
        live_view = LiveView(eiger, screen)
    except EigerError as error:
        print(f"nothing is live: {error}")


live_view = None
