"""The image producer: what makes the images of a series, and how fast it does.

Knows nothing of files or of the detector's time.
"""

import threading
from concurrent.futures import Future
from time import perf_counter
from typing import Protocol

import numpy as np

from sim_dcu import codec, scene
from sim_dcu.file_layouts import layout_of
from sim_dcu.played import Played
from sim_dcu.pooled import Pooled
from sim_dcu.series import ArmedSeries

# Images that are made on trial.
TRIALS = 3


class Maker(Protocol):
    """What makes the images of a scene."""

    def build(self) -> None:
        """Have ready what the images are made of."""
        ...

    def chunk(self, number: int) -> bytes:
        """Return the chunk of image `number`, from 1."""
        ...


class ImageSource:
    """The images of one series, as the chunks that go into its files.

    Building a pool takes about 0.2 s a million pixels, some more where it is cut for joining, in a
    thread of its own; series with an equal configuration share it.

    Parameters
    ----------
    series : ArmedSeries
        The configuration the series was armed with.

    Attributes
    ----------
    ready : Future of None
        Resolved when images can be made; until then `chunk` waits.

    Raises
    ------
    ValueError
        Where the detector's firmware has no such compression as the armed one.
    """

    def __init__(self, series: ArmedSeries) -> None:
        self._series = series
        self._compression = layout_of(series).compression(series)
        kind = Played if series.beam.is_recorded else Pooled
        self._maker: Maker = kind(series, self._compression)
        self.ready: Future[None] = Future()
        self.ready.set_running_or_notify_cancel()
        # The thread does not outlive the process.
        threading.Thread(target=self._build, name="sim-dcu-pool", daemon=True).start()

    def chunk(self, number: int) -> bytes:
        """Return the HDF5 chunk of image `number` (from 1).

        With compression a header of 12 bytes and compressed blocks, without it the little-endian
        pixels.

        Raises
        ------
        IndexError
            Where the series has no such image.
        """
        scene.check_number(self._series, number)
        self.ready.result()
        return self._maker.chunk(number)

    def array(self, number: int) -> np.ndarray:
        """Return what the chunk of image `number` holds: `series.dtype`, shape (y, x), counts.

        Raises
        ------
        IndexError
            Where the series has no such image.
        """
        chunk = self.chunk(number)
        return codec.decompressed(chunk, self._series.shape, self._series.dtype, self._compression)

    def tried_rate(self) -> float:
        """Return how many images a second are made, the slowest of a few that are made for it."""
        times = []
        for number in range(1, min(TRIALS, self._series.images) + 1):
            began = perf_counter()
            self.chunk(number)
            times.append(perf_counter() - began)
        # The first one finds nothing prepared.
        return 1 / max(times[1:] or times)

    def _build(self) -> None:
        try:
            # One at a time, so that equal pools are built once.
            with _building:
                self._maker.build()
                self.ready.set_result(None)
        except Exception as error:  # noqa: BLE001 - told to whoever asks for an image
            self.ready.set_exception(error)


_building = threading.Lock()
