"""The bluesky documents of a series, as pure functions: no device, no detector, no files."""

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

SPEC = "EIGER_SIMPLON"
HDF5_MIMETYPE = "application/x-hdf5"
# Where the images are in a view file, and in any data file.
IMAGES = "/entry/data/data"


@dataclass(frozen=True)
class Promise:
    """What `describe()` tells a run of its images.

    Attributes
    ----------
    images : int
        Images a point.
    shape : tuple of int
        Shape (y, x) of an image in pixels.
    dtype : numpy.dtype
        Type of a pixel.
    """

    images: int
    shape: tuple[int, int]
    dtype: np.dtype

    def data_key(self, source: str, external: str) -> dict[str, Any]:
        """Return the DataKey of the images: external, shaped (images, y, x)."""
        return {
            "source": source,
            "dtype": "array",
            "dtype_numpy": self.dtype.str,
            "shape": [self.images, *self.shape],
            "dims": ["image", "y", "x"],
            "external": external,
        }

    @property
    def hdf5_parameters(self) -> dict[str, Any]:
        """What a reader of HDF5 files is told of a view file."""
        return {"dataset": IMAGES, "chunk_shape": [1, *self.shape], "swmr": False}

    def __str__(self) -> str:
        return f"{self.images} x {self.shape[0]} x {self.shape[1]} {self.dtype}"


def resource(directory: Path, file: str, promise: Promise) -> dict[str, Any]:
    """Return the Resource of a view file.

    Parameters
    ----------
    directory : Path
        Where the file is.
    file : str
        Its name.
    promise : Promise
        What its images are, which the handler holds the files to.
    """
    return {
        "uid": str(uuid.uuid4()),
        "spec": SPEC,
        "root": str(directory),
        "resource_path": file,
        "resource_kwargs": {"shape": list(promise.shape), **promise.hdf5_parameters},
        "path_semantics": "posix",
    }


def datum(datum_id: str, of: dict[str, Any], first: int, promise: Promise) -> dict[str, Any]:
    """Return the Datum of a point whose first image is `first` in the view file, from 0."""
    return {
        "datum_id": datum_id,
        "resource": of["uid"],
        "datum_kwargs": {"first": first, "images": promise.images},
    }


def stream_resource(directory: Path, file: str, data_key: str, promise: Promise) -> dict[str, Any]:
    """Return the StreamResource of a view file, for readers that know HDF5 alone."""
    return {
        "uid": str(uuid.uuid4()),
        "data_key": data_key,
        "mimetype": HDF5_MIMETYPE,
        "uri": f"file://localhost{quote(str(directory / file))}",
        "parameters": promise.hdf5_parameters,
    }


def stream_datum(of: dict[str, Any], number: int, start: int, stop: int) -> dict[str, Any]:
    """Return a StreamDatum for events `start` to `stop - 1`; the RunEngine adds what it knows."""
    return {
        "uid": f"{of['uid']}/{number}",
        "stream_resource": of["uid"],
        "descriptor": "",
        "indices": {"start": start, "stop": stop},
        "seq_nums": {"start": 0, "stop": 0},
    }
