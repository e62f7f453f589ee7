"""The bluesky documents of a series, as pure functions: no device, no detector, no files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import event_model
import numpy as np

SPEC = "EIGER_SIMPLON"


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

    def data_key(self, source: str) -> dict[str, Any]:
        """Return the DataKey of the images: external, shaped (images, y, x)."""
        return {
            "source": source,
            "dtype": "array",
            "dtype_numpy": self.dtype.str,
            "shape": [self.images, *self.shape],
            "dims": ["image", "y", "x"],
            "external": "FILESTORE:",
        }

    def __str__(self) -> str:
        return f"{self.images} x {self.shape[0]} x {self.shape[1]} {self.dtype}"


def point_documents(
    directory: Path, master: str, first: int, promise: Promise
) -> tuple[str, list[tuple[str, dict]]]:
    """Return the id of a point's Datum, and the Resource and Datum to emit for it.

    Each point has a Resource of its own, also where several share a series: a device is not told
    which run it is read in, and a run must hold every Resource that its events need.

    Parameters
    ----------
    directory : Path
        Where the files go.
    master : str
        The master file's name.
    first : int
        The point's first image in the series, counted from 0.
    promise : Promise
        How many images the point has, and of what shape, which the handler holds the files to.
    """
    bundle = event_model.compose_resource(
        spec=SPEC,
        root=str(directory),
        resource_path=master,
        resource_kwargs={"shape": list(promise.shape)},
        validate=False,
    )
    datum = bundle.compose_datum(
        datum_kwargs={"first": first, "images": promise.images}, validate=False
    )
    documents = [("resource", dict(bundle.resource_doc)), ("datum", dict(datum))]
    return datum["datum_id"], documents
