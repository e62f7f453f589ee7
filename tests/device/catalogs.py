"""The documents of a run, and what tiled makes of them."""

import contextlib
import copy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
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


@contextlib.contextmanager
def tiled_server(folder: Path, data: Path) -> Iterator[str]:
    """Serve a catalog of tiled in `folder`, which may read what is below `data`."""
    program = Path(__file__).with_name("tiled_process.py")
    with subprocess.Popen(
        [sys.executable, program, folder, data],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
            process.wait(20)


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
