"""The documents of a run, and what tiled makes of them."""

import contextlib
import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from event_model import (
    DocumentNames,
    schema_validators,
    unpack_datum_page,
    unpack_event_page,
)

from ophyd_eiger.handlers import EigerHandler


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


def images_of_events(documents: list, key: str) -> Iterator[tuple[dict, Callable[[], np.ndarray]]]:
    """Give each event of a run with Resource and Datum, and what reads its images by our handler.

    Parameters
    ----------
    documents : list of (name, document)
        Of one run.
    key : str
        The data key of the images.
    """
    resources = {doc["uid"]: doc for name, doc in documents if name == "resource"}
    datums: dict[str, dict] = {}
    events: list[dict] = []
    for name, doc in documents:
        if name == "datum":
            datums[doc["datum_id"]] = doc
        elif name == "datum_page":
            datums.update((each["datum_id"], each) for each in unpack_datum_page(doc))
        elif name == "event":
            events.append(doc)
        elif name == "event_page":
            events += unpack_event_page(doc)
    for event in events:
        datum = datums[event["data"][key]]
        resource = resources[datum["resource"]]
        handler = EigerHandler(
            Path(resource["root"]) / resource["resource_path"], **resource["resource_kwargs"]
        )
        yield event, lambda of=handler, datum=datum: of(**datum["datum_kwargs"]).compute()


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
