"""The documents of a run, and what tiled makes of them."""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
from event_model import DocumentNames, schema_validators


@contextlib.contextmanager
def recorded(RE) -> Iterator[list]:
    """Collect a run's documents, each valid by event-model's schemas."""
    documents = []

    def keep(name, doc):
        schema_validators[DocumentNames[name]].validate(doc)
        documents.append((name, copy.deepcopy(doc)))

    token = RE.subscribe(keep)
    try:
        yield documents
    finally:
        RE.unsubscribe(token)


def read_through_tiled(documents: list, client: Any, *keys: str) -> list[np.ndarray]:
    """Write a run's documents to a catalog of tiled, and read arrays back from it.

    Parameters
    ----------
    documents : list of (name, document)
        Of one run; Resource and Datum or StreamResource and StreamDatum.
    client : tiled.client.container.Container
        Of the catalog.
    *keys : str
        The data keys.
    """
    from bluesky_tiled_plugins import TiledWriter

    writer = TiledWriter(client, spec_to_mimetype={"EIGER_SIMPLON": "application/x-hdf5"})
    for name, doc in copy.deepcopy(documents):
        writer(name, doc)
    primary = client[documents[0][1]["uid"]]["primary"]
    return [np.asarray(primary[key].read()) for key in keys]
