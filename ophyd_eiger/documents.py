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


class SeriesDocuments:
    """Resource and Datum documents of one series in one run.

    Parameters
    ----------
    directory : Path
        Where the files go.
    master : str
        The master file's name.
    """

    def __init__(self, directory: Path, master: str) -> None:
        self._bundle = event_model.compose_resource(
            spec=SPEC, root=str(directory), resource_path=master, resource_kwargs={}
        )
        self._resource_told = False

    def datum(self, first: int, images: int) -> tuple[str, list[tuple[str, dict]]]:
        """Return the id of a point's Datum and the documents to emit for it.

        Parameters
        ----------
        first : int
            The point's first image in the series, counted from 0.
        images : int
            Images of the point.
        """
        datum = self._bundle.compose_datum(datum_kwargs={"first": first, "images": images})
        documents: list[tuple[str, dict]] = [("datum", dict(datum))]
        if not self._resource_told:
            self._resource_told = True
            documents.insert(0, ("resource", dict(self._bundle.resource_doc)))
        return datum["datum_id"], documents
