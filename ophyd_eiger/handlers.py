"""Readers that databroker finds by their `spec` and calls with what a run's documents say.

Loads neither ophyd nor an HTTP client: an analysis machine has no detector.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import dask.array as da

from ophyd_eiger.errors import MissingFileError
from ophyd_eiger.reader import Series, open_series

SPEC = "EIGER_SIMPLON"


class EigerHandler:
    """Gives the images of an event back; spec "EIGER_SIMPLON".

    Parameters
    ----------
    path : path
        The series' master file.
    """

    specs = frozenset({SPEC})

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self._series: Series | None = None

    def __call__(self, first: int, images: int) -> da.Array:
        """Return the images of one event, read when they are computed.

        Parameters
        ----------
        first : int
            The event's first image in the series, counted from 0.
        images : int
            How many images the event has.

        Returns
        -------
        dask.array.Array
            Of shape (images, y, x), one chunk an image.

        Raises
        ------
        MissingFileError
            If the series does not have them (yet), naming the file that is not there.
        """
        series = self._series
        if series is None or len(series) < first + images:
            # Files of a run may arrive after the run: look again before giving up.
            series = self._series = self._open()
        if len(series) < first + images:
            missing = "; ".join(f"{file.name} is missing" for file in series.missing[:1])
            raise MissingFileError(
                f"{self.path}: images {first + 1} to {first + images} asked for, "
                f"{len(series)} found; {missing or 'the series was ended early'}"
            )
        _, y, x = series.shape
        stack = da.from_array(series, chunks=(1, y, x), name=False)  # pyright: ignore[reportArgumentType] - dask types them as str
        return stack[first : first + images]

    def _open(self) -> Series:
        try:
            return open_series(self.path)
        except FileNotFoundError as error:
            raise MissingFileError(f"{self.path}: not there (yet): {error}") from error

    def get_file_list(self, datum_kwargs_gen: Iterable[dict[str, Any]]) -> list[str]:
        """Return the series' files, the master first."""
        list(datum_kwargs_gen)
        return [str(self.path), *(str(file) for file in self._open().files)]

    def close(self) -> None:
        """Forget what is known of the files; the next call looks again."""
        self._series = None
