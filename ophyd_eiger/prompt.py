"""What an example profile's helpers tell at the prompt: a run's files, an image, the live image.

`Screen` shows the pictures; what a run has is `ophyd_eiger.runs`' to say.
"""

import glob
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bluesky.callbacks.mpl_plotting import QtAwareCallback
from matplotlib.figure import Figure

from ophyd_eiger.brightest import BrightestImage
from ophyd_eiger.detector import EigerDetector
from ophyd_eiger.errors import NoImagesError
from ophyd_eiger.run_documents import FILE_ENDING, gather
from ophyd_eiger.runs import EigerRun
from ophyd_eiger.screen import Screen

# More files than these are counted, not listed.
LISTED = 20
# A live image is shown so often at most, in s: it is to be looked at.
SHOWN_EVERY = 0.5


class FileList(list[Path]):
    """The files of a run that are here, series by series; prints as a table.

    Parameters
    ----------
    run : object
        As `open_run` takes it.

    Raises
    ------
    NoImagesError
        If the run names no files.
    """

    def __init__(self, run: Any) -> None:
        documents = gather(run, {})
        start = documents.start
        self._title = f"run {start.get('scan_id', '?')}, {start['uid']}"
        named = {
            path
            for stream in documents.streams.values()
            for paths in (
                *(files.paths for files in stream.files.values()),
                *([place.path for place in places] for places in stream.places.values()),
            )
            for path in paths
        }
        self._unknown = [
            why for stream in documents.streams.values() for why in stream.unknown.values()
        ]
        if not named:
            why = "; ".join(self._unknown) or "it has no images, and so no files"
            raise NoImagesError(f"{self._title}: {why}")
        super().__init__()
        self._missing = sorted(path for path in named if not path.exists())
        for series in sorted({path.parent / FILE_ENDING.sub("", path.name) for path in named}):
            found = sorted(series.parent.glob(f"{glob.escape(series.name)}_*.h5"))
            self += [path for path in found if FILE_ENDING.sub("", path.name) == series.name]

    def __repr__(self) -> str:
        total = sum(path.stat().st_size for path in self)
        folders = ", ".join(str(folder) for folder in sorted({path.parent for path in self}))
        lines = [f"{self._title}: {len(self)} files, {_size(total)}, in {folders}"]
        lines += [f"  {path.name}  {_size(path.stat().st_size)}" for path in self[:LISTED]]
        if len(self) > LISTED:
            lines.append(f"  and {len(self) - LISTED} more")
        lines += [f"  not there: {path}" for path in self._missing[:LISTED]]
        lines += [f"  not known: {why}" for why in self._unknown[:LISTED]]
        return "\n".join(lines)


def said_of_image(run: EigerRun, event: int = -1, image: int = 0) -> str:
    """Return in a line which image of a run it is, and what its good pixels have.

    Parameters
    ----------
    run : EigerRun
        The run.
    event, image : int
        Which event, and which of its images; counted from 0, or from the end if below it.

    Raises
    ------
    NoImagesError
        If the event has no such image.
    """
    of = run[event]
    start = run.metadata["start"]
    point = f"run {start.get('scan_id', run.uid[:8])}, point {of.seq_num}"
    try:
        number = range(len(of))[image]
    except IndexError:
        there = f"images 0 to {len(of) - 1}" if len(of) > 1 else "image 0 alone"
        raise NoImagesError(f"{point} has no image {image}, but {there}") from None
    return f"{point}, image {number + 1} of {len(of)}: {_said(of[number], run.mask_of(of))}"


def _size(count: int) -> str:
    """Return a number of bytes; a view has some kB."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _said(image: np.ndarray, mask: np.ndarray) -> str:
    good = np.where(mask, 0, image)
    y, x = np.unravel_index(np.argmax(good), good.shape)
    total = int(good.sum(dtype=np.uint64))
    return f"{total} photons in good pixels, at most {good[y, x]}, at x = {x}, y = {y}"


class LiveView(QtAwareCallback):
    """Shows what a detector's monitor has, image by image, in a window or as lines.

    Parameters
    ----------
    eiger : EigerDetector
        Its monitor is switched on; images come from the next arm on.
    screen : Screen
        Where the picture is.
    say : callable
        Takes a line, where there are no windows.

    Raises
    ------
    DcuError
        If the detector's pixel mask cannot be read.
    """

    def __init__(
        self, eiger: EigerDetector, screen: Screen, say: Callable[[str], Any] | None = None
    ) -> None:
        super().__init__()
        self._say = say or _write_line
        self._screen = screen
        self._name = f"{eiger.name} live"
        self._mask = np.asarray(eiger.detector.pixel_mask.get()) != 0
        self._shown_at = 0.0
        self._picture: Any = None
        self._image = eiger.live.image
        if screen.windows:
            figure = Figure(figsize=(7.2, 7.0), layout="constrained")
            self._axes = figure.subplots()
            screen.show(figure, self._name)
        # Each image comes in a thread; as a document it goes where windows may be drawn.
        self._subscription = self._image.subscribe(self._take, run=False)

    def close(self) -> None:
        """Show no more, and let the monitor be as it was."""
        self._image.unsubscribe(self._subscription)
        self._screen.close(self._name)

    def event(self, doc: Any) -> Any:
        """Show an image, in the thread that may."""
        title = f"series {doc['series_id']}, image {doc['image_number']}"
        pixels: np.ndarray = doc["value"]
        if pixels.shape != self._mask.shape:
            mask = np.zeros(pixels.shape, bool)
        else:
            mask = self._mask
        if not self._screen.windows:
            self._say(f"{title}: {_said(pixels, mask)}")
            return doc
        if self._picture is None:
            self._picture = BrightestImage(self._axes, pixels, mask)
            self._axes.figure.colorbar(self._picture, ax=self._axes, label="photons a pixel")
        self._picture.take(pixels, mask)
        self._picture.scale()
        self._axes.set_title(title)
        self._axes.figure.canvas.draw_idle()
        return doc

    def _take(self, *, value: Any, series_id: int, image_number: int, **_: Any) -> None:
        if time.monotonic() - self._shown_at < SHOWN_EVERY:
            return
        self._shown_at = time.monotonic()
        self("event", {"value": value, "series_id": series_id, "image_number": image_number})


def _write_line(line: str) -> None:
    # Over a progress bar, which is drawn anew below it.
    sys.stdout.write(f"\r\x1b[K{line}\n")
    sys.stdout.flush()
