"""Readers of what other EIGER devices left in archives: runs of years, taken through EPICS.

They name series by specs and keywords of their own, and the handlers that came with them give
wrong images back where a series has several data files (area-detector-handlers 0.0.10 and before).
Loads neither ophyd nor an HTTP client.

None of these is an entry point: databroker brings area-detector-handlers along, which has three of
the names already, and of two that claim one name databroker takes any. Who wants these says so:

* ``register(reader)`` for a Filler of event-model, a databroker 1.x, or a registry of handlers;
* ``MongoAdapter.from_uri(uri, handler_registry={**discover_handlers(), **HANDLERS})``, where a
  databroker 2 is served; in its configuration file the path is
  ``ophyd_eiger.archives:ArchivedHandler``.

What the documents have, all resource paths being relative to their root:

=================== ========================== ======================================= ==========
spec                resource path              resource and datum keywords             an event
=================== ========================== ======================================= ==========
AD_EIGER            <folder>/<name>            frame_per_point; seq_id                 (n, y, x)
AD_EIGER2           <folder>/<name>            images_per_file; seq_id                 (n, y, x)
AD_EIGER_SLICE      <folder>/<name>            images_per_file; seq_id, frame_num, or  (y, x)
                                               image_slice before 2018
AD_EIGER_MX         <folder>/<name>, or the    seq_id, dataset; data_key "data"        (n, y, x)
                    master file itself
AD_EIGER_MX         the same                   seq_id, dataset; data_key "omega"       (n,)
AD_EIGER_MX_OMEGA
AD_EIGER_MX_RASTER  the master file            seq_id, multiplier; data_key, indices   (n, y, x)
=================== ========================== ======================================= ==========

The master file is ``<folder>/<name>_<seq_id>_master.h5``. `images_per_file` and its older name are
what the file writer was set to; how many images a file has is read from the files.
"""

import os
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import dask.array as da
import h5py
import numpy as np

from ophyd_eiger.errors import FileError, MissingFileError
from ophyd_eiger.handlers import Found, lazy_images, sizes_of
from ophyd_eiger.master import (
    LARGEST_ARRAY,
    MASTER_ENDING,
    object_of,
    open_hdf5,
    read_master,
    stored_in,
)
from ophyd_eiger.reader import Series, open_series

_DETECTOR = "entry/instrument/detector"
# What the published handlers collect beside the images, and where a master has it.
METADATA = {
    "y_pixel_size": f"{_DETECTOR}/y_pixel_size",
    "x_pixel_size": f"{_DETECTOR}/x_pixel_size",
    "detector_distance": f"{_DETECTOR}/detector_distance",
    "incident_wavelength": "entry/instrument/beam/incident_wavelength",
    "frame_time": f"{_DETECTOR}/frame_time",
    "beam_center_x": f"{_DETECTOR}/beam_center_x",
    "beam_center_y": f"{_DETECTOR}/beam_center_y",
    "count_time": f"{_DETECTOR}/count_time",
    "pixel_mask": f"{_DETECTOR}/detectorSpecific/pixel_mask",
}


class ArchivedHandler:
    """Gives the images of an archived event back; specs AD_EIGER, AD_EIGER2, AD_EIGER_SLICE.

    Parameters
    ----------
    path : path
        The folder and what the names of the series' files begin with.
    images_per_file, frame_per_point : int, optional
        As the documents have it; not needed.

    Attributes
    ----------
    md : dict
        What the master file of the series last asked for says, read when it is looked at.
    """

    specs = frozenset({"AD_EIGER", "AD_EIGER2", "AD_EIGER_SLICE"})

    def __init__(
        self,
        path: str | os.PathLike,
        images_per_file: int | None = None,
        frame_per_point: int | None = None,
    ) -> None:
        self.path = Path(path).absolute()
        self.images_per_file = frame_per_point if images_per_file is None else images_per_file
        self._series: dict[Path, Series] = {}
        self._last: Path | None = None

    def __enter__(self) -> "ArchivedHandler":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(
        self, seq_id: int | str, frame_num: int | None = None, image_slice: int | None = None
    ) -> da.Array:
        """Return the images of one event, read when they are computed.

        Parameters
        ----------
        seq_id : int or str
            The number of the series.
        frame_num : int, optional
            The event's only image, counted from 0 in the series, whatever file it is in; without
            it the event is the whole series.
        image_slice : int, optional
            The older name of `frame_num`.

        Returns
        -------
        dask.array.Array
            Of shape (images, y, x), one chunk an image; or (y, x) with `frame_num`.

        Raises
        ------
        MissingFileError
            If a file is missing that holds any of these images, naming it.
        FileError
            If a file is not what it should be.
        """
        found = self.find(seq_id, frame_num, image_slice)
        images = lazy_images(found)
        return images if frame_num is None and image_slice is None else images[0]

    def find(
        self, seq_id: int | str, frame_num: int | None = None, image_slice: int | None = None
    ) -> Found:
        """Return where the images of one event are; parameters and errors as of a call."""
        frame = image_slice if frame_num is None else frame_num
        master = self._last = self.master_path(seq_id)
        if frame is None:
            return _whole(self._opened, master)
        return _some(self._opened, master, range(frame, frame + 1))

    def master_path(self, seq_id: int | str) -> Path:
        """Return the master file of a series, there or not."""
        return self.path.with_name(f"{self.path.name}_{seq_id}{MASTER_ENDING}")

    @property
    def md(self) -> dict[str, Any]:
        """What the master file of the series last asked for says, as the published handler has it.

        The keys of METADATA, as far as the file has them, in its units (m, angstrom, s, pixel);
        `binary_mask`, true where a pixel is good, and `framerate` in Hz.
        """
        return {} if self._last is None else read_metadata(self._last)

    def get_file_list(self, datum_kwargs_gen: Iterable[Mapping[str, Any]]) -> list[str]:
        """Return the files that these events are in, each series' master first.

        Raises
        ------
        MissingFileError, FileError
            If a master file cannot be read. Data files that are not there are left out.
        """
        masters = dict.fromkeys(self.master_path(kwargs["seq_id"]) for kwargs in datum_kwargs_gen)
        return [str(file) for master in masters for file in _files_of(master)]

    def get_file_sizes(self, datum_kwargs_gen: Iterable[Mapping[str, Any]]) -> list[int]:
        """Return the sizes in bytes of the files of `get_file_list`, in its order."""
        return sizes_of(self.get_file_list(datum_kwargs_gen))

    def close(self) -> None:
        """Forget what is known of the files; the next call looks again."""
        self._series.clear()

    def _opened(self, master: Path, *, anew: bool = False) -> Series:
        if anew or master not in self._series:
            self._series[master] = open_series(master)
        return self._series[master]


class ArchivedMXHandler:
    """Gives back what a crystallography beamline archived of a series; specs AD_EIGER_MX...

    Parameters
    ----------
    path : path
        The folder and what the names of the files begin with, or the master file itself.
    seq_id : int or str
        The number of the series.
    multiplier : int
        Images a row of a raster scan.
    dataset, join_method : str, optional
        As the documents have them, for tiled; of no use here.
    """

    specs = frozenset({"AD_EIGER_MX", "AD_EIGER_MX_OMEGA", "AD_EIGER_MX_RASTER"})

    def __init__(
        self,
        path: str | os.PathLike,
        seq_id: int | str = "",
        *,
        multiplier: int = 1,
        dataset: str = "",
        join_method: str = "",
    ) -> None:
        named = Path(path)
        # Since 2026 the path is that of the master file; before, it had no ending.
        whole = named.name.endswith(MASTER_ENDING)
        self.path = named if whole else named.with_name(f"{named.name}_{seq_id}{MASTER_ENDING}")
        self.multiplier = multiplier
        self._series: Series | None = None

    def __enter__(self) -> "ArchivedMXHandler":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(
        self, data_key: str = "data", indices: Mapping[str, int] | None = None, **_: Any
    ) -> da.Array:
        """Return the images of one event, or one array of the master file.

        Parameters
        ----------
        data_key : str
            "data" for the images; "bit_mask" for the pixel mask; or the name of an array of the
            goniometer, the detector, the beam or the instrument, such as "omega".
        indices : mapping, optional
            `start` and `stop` of the rows of a raster scan, counted from 0.

        Returns
        -------
        dask.array.Array
            Of the images, of shape (images, y, x), one chunk an image.

        Raises
        ------
        MissingFileError, FileError
            If a file is missing, or has no such array.
        """
        if data_key == "data":
            return lazy_images(self.find(data_key, indices))
        return da.from_array(_array(self.path, data_key))

    def find(
        self, data_key: str = "data", indices: Mapping[str, int] | None = None, **_: Any
    ) -> Found:
        """Return where the images of one event are; parameters and errors as of a call."""
        if data_key != "data":
            raise FileError(f"{self.path}: {data_key} is no event's images")
        if indices is None:
            return _whole(self._opened, self.path)
        start, stop = (int(indices[end]) * self.multiplier for end in ("start", "stop"))
        return _some(self._opened, self.path, range(start, stop))

    def get_file_list(self, datum_kwargs_gen: Iterable[Mapping[str, Any]]) -> list[str]:
        """Return the files of the series, the master first; those that are missing are left out.

        Raises
        ------
        MissingFileError, FileError
            If the master file cannot be read.
        """
        list(datum_kwargs_gen)
        return [str(file) for file in _files_of(self.path)]

    def get_file_sizes(self, datum_kwargs_gen: Iterable[Mapping[str, Any]]) -> list[int]:
        """Return the sizes in bytes of the files of `get_file_list`, in its order."""
        return sizes_of(self.get_file_list(datum_kwargs_gen))

    def close(self) -> None:
        """Forget what is known of the files; the next call looks again."""
        self._series = None

    def _opened(self, master: Path, *, anew: bool = False) -> Series:
        if anew or self._series is None:
            self._series = open_series(master)
        return self._series


HANDLERS: dict[str, type] = {
    spec: handler
    for handler in (ArchivedHandler, ArchivedMXHandler)
    for spec in sorted(handler.specs)
}


def register(reader: Any, *, overwrite: bool = True) -> None:
    """Let a reader of documents use these handlers for the archives' specs.

    Parameters
    ----------
    reader : object
        A Filler of event-model, a Broker of databroker 1.x, a MongoAdapter of databroker 2, or a
        dict of handlers by spec.
    overwrite : bool
        Whether they take the place of handlers that it has for these specs.

    Raises
    ------
    FileError
        If it is a client: in databroker 2 the server reads the files, and handlers are registered
        there.
    """
    if isinstance(reader, MutableMapping):
        for spec, handler in HANDLERS.items():
            if overwrite or spec not in reader:
                reader[spec] = handler
        return
    where = getattr(reader, "reg", reader)
    # A databroker 2 client has such a method too, that warns and does nothing.
    if hasattr(reader, "context") or hasattr(getattr(reader, "_catalog", None), "context"):
        raise FileError(
            f"{reader!r} is a client of a server, which reads the files: give that server "
            "handler_registry={**discover_handlers(), **ophyd_eiger.archives.HANDLERS}"
        )
    for spec, handler in HANDLERS.items():
        where.register_handler(spec, handler, overwrite=overwrite)


def read_metadata(path: Path) -> dict[str, Any]:
    """Return what a master file says, as the published handlers have it.

    Raises
    ------
    MissingFileError, FileError
    """
    with open_hdf5(path) as file:
        found = {
            name: stored_in(dataset, LARGEST_ARRAY) if name == "pixel_mask" else stored_in(dataset)
            for name, place in METADATA.items()
            if isinstance(dataset := object_of(file, place), h5py.Dataset)
        }
    if "pixel_mask" in found:
        found["binary_mask"] = found["pixel_mask"] == 0
    if found.get("frame_time"):
        found["framerate"] = 1.0 / float(found["frame_time"])
    return found


def _whole(opened: Callable[..., Series], master: Path) -> Found:
    """Return all images of a series.

    Raises
    ------
    MissingFileError
        If a data file that the master names is not there.
    """
    series = opened(master)
    if series.missing:
        series = opened(master, anew=True)
    if series.missing:
        names = ", ".join(file.name for file in series.missing)
        raise MissingFileError(
            f"{master}: {names} missing; ophyd_eiger.open_series reads the "
            f"{len(series) - series.gap} images of the other files"
        )
    return Found(series, range(len(series)))


def _some(opened: Callable[..., Series], master: Path, numbers: range) -> Found:
    """Return some images of a series.

    Raises
    ------
    MissingFileError
        If one of them is not there.
    """
    series = opened(master)
    if series.lacks(numbers.start, len(numbers)):
        # Files may have come since.
        series = opened(master, anew=True)
    if lost := series.lacks(numbers.start, len(numbers)):
        asked = f"{numbers.start + 1} to {numbers.stop}"
        raise MissingFileError(f"{master}: images {asked} asked for, {lost}")
    return Found(series, numbers)


def _files_of(master: Path) -> list[Path]:
    named = read_master(master).data_files
    return [master, *(file for file in named if file.exists())]


def _array(path: Path, name: str) -> np.ndarray:
    place = "detector/detectorSpecific/pixel_mask" if name == "bit_mask" else name
    groups = ("sample/goniometer", "instrument/detector", "instrument/beam", "instrument")
    with open_hdf5(path) as file:
        for group in groups:
            found = object_of(file, f"entry/{group}/{place}")
            if isinstance(found, h5py.Dataset):
                return stored_in(found, LARGEST_ARRAY)
    raise FileError(f"{path}: no array {name!r} of goniometer, detector, beam or instrument")
