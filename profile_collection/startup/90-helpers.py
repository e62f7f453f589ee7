"""What one asks at the prompt: where files are, how an image looks, what is measured now."""

from numbers import Integral

import matplotlib.pyplot as plt

from ophyd_eiger import EigerError, open_run
from ophyd_eiger.errors import NoImagesError, NoRunError
from ophyd_eiger.finding import find_run
from ophyd_eiger.prompt import FileList, LiveView, said_of_image


def run_of(run):
    """Return a run of the catalog: -1 is the last, else by scan_id, uid, or how that begins."""
    try:
        return find_run(cat, run)
    except NoRunError as error:
        none = "there are no runs yet: RE(count([eiger], 3)) takes one"
        raise NoRunError(none if run == -1 else str(error)) from None


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
    taken = None
    try:
        taken = open_run(run_of(run))
        found = taken[-1].found
        print(said_of_image(taken, image=image))
    except (EigerError, LookupError) as error:
        print(f"no image to show: {error}{hint_after(error, taken, image, run)}")
        return
    picture = found.series.show(found.numbers[image], **look)
    if drawn := screen.show(picture.figure, "last_image"):
        print(f"drawn in {drawn}")


def hint_after(error, taken, image, run):
    """Return what to type where a run has no such image, as far as that can be known."""
    if taken is None:
        return run_with_images() if isinstance(error, NoImagesError) else ""
    if image < 1 or run != -1:
        return ""
    try:
        find_run(cat, image)
    except NoRunError:
        return ""
    return f"; run {image} is show_last(run={image})"


def run_with_images():
    """Return how to show the newest run that has images, if it is one of the last twenty."""
    for run in cat.values().tail(20)[::-1]:
        try:
            open_run(run)
        except (EigerError, LookupError):
            continue
        start = run.metadata["start"]
        which = start.get("scan_id", start["uid"])
        return f"; the newest run with images is show_last(run={which!r})"
    return ""


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
