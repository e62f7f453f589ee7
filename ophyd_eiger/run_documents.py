"""What a run's documents say, from whatever has them: where its images are, event by event.

A v1 header, a v2 run, a node of tiled or a list of documents. Loads neither databroker nor tiled:
whoever hands in their objects has.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import event_model
import numpy as np

from ophyd_eiger.errors import RunError

Document = tuple[str, dict[str, Any]]
# How the names of a series' files end, its views among them.
FILE_ENDING = re.compile(r"_(view(_\d+)?|master|data_\d+)\.h5$")


@dataclass(frozen=True)
class Place:
    """What a handler is given to find the images of one event.

    Attributes
    ----------
    spec : str
        Which handler.
    path : Path
        Root and path of the resource.
    resource_kwargs, datum_kwargs : dict
        What the handler and its call are given.
    """

    spec: str
    path: Path
    resource_kwargs: Mapping[str, Any] = field(default_factory=dict)
    datum_kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Files:
    """Files that have the images of the events one after the other.

    Attributes
    ----------
    dataset : str
        Where the images are in each of them.
    paths : list of Path
        The files.
    indices : dict of int to list of int
        Of each event's number: where documents say that its images are, counted in events over all
        files. One that was taken again has several, in the order they were taken. Empty where no
        document says it, and the order of events is that of the images.
    """

    dataset: str
    paths: list[Path] = field(default_factory=list)
    indices: dict[int, list[int]] = field(default_factory=dict)
    # Where the count of each resource begins, by its uid; and the end of all that are counted.
    _begins: dict[str, int] = field(default_factory=dict, repr=False)
    _end: int = field(default=0, repr=False)

    def add_indices(self, datum: Mapping[str, Any]) -> None:
        """Take what a StreamDatum says of where the images of its events are."""
        indices, numbers = datum["indices"], datum["seq_nums"]
        # Some writers count from 0 in each resource, and the files are one after the other.
        restarted = indices["start"] < self._end
        begin = self._begins.setdefault(datum["stream_resource"], self._end if restarted else 0)
        counted = range(begin + indices["start"], begin + indices["stop"])
        self._end = max(self._end, counted.stop)
        named = range(numbers["start"], numbers["stop"])
        for number, index in zip(named, counted, strict=False):
            self.indices.setdefault(number, []).append(index)


@dataclass
class Event:
    """One event of a stream: `data` is what stands in the document itself."""

    seq_num: int
    time: float
    data: dict[str, Any]
    descriptor: str = ""


@dataclass
class Stream:
    """One stream of a run.

    Attributes
    ----------
    name : str
        As "primary".
    descriptors : list of dict
        Its descriptors in order.
    events : list of Event
        In the order of their numbers.
    places : dict of str to list of Place
        Of each key of images, where those of each event are.
    files : dict of str to Files
        Of each key whose files have the events' images one after the other: the files.
    unknown : dict of str to str
        Of each key whose images are nowhere to be found: why.
    """

    name: str
    descriptors: list[dict[str, Any]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    places: dict[str, list[Place]] = field(default_factory=dict)
    files: dict[str, Files] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)

    @property
    def data_keys(self) -> dict[str, dict[str, Any]]:
        """The data keys of its first descriptor."""
        return dict(self.descriptors[0]["data_keys"])


@dataclass
class RunDocuments:
    """A run: its start and stop documents, and its streams by name."""

    start: dict[str, Any]
    stop: dict[str, Any]
    streams: dict[str, Stream]


def is_run(candidate: Any) -> bool:
    """Return whether something is one run, and not a search of several."""
    return hasattr(candidate, "documents") and not isinstance(candidate, (list, tuple))


def gather(run: Any, root_map: Mapping[str, str]) -> RunDocuments:
    """Return what a run says of its images.

    Parameters
    ----------
    run : object
        A v1 Header, a v2 run, a run's node of tiled, or an iterable of (name, document).
    root_map : mapping
        Where folders of the documents are on this machine, by how documents name them.

    Raises
    ------
    RunError
        If it is none of them, or has no start document.
    """
    found = _client(run)
    if _is_sql(found):
        return _from_nodes(found, root_map)
    if is_run(run):
        return _from_documents(run.documents(), root_map)
    if isinstance(run, (str, bytes)) or not isinstance(run, Iterable):
        raise RunError(f"{run!r} is no run: give one that a catalog found, or its documents")
    return _from_documents(run, root_map)


def array_node(run: Any, stream: str, key: str) -> Any:
    """Return what a catalog reads the images of a run with, of shape (events, ..., y, x).

    Raises
    ------
    RunError
        If it is no run of a catalog.
    """
    client = _client(run)
    if not hasattr(client, "metadata"):
        raise RunError("these documents are of no catalog, so that no catalog reads their images")
    if _is_sql(client):
        return _base(client[stream])[key]
    return client[stream]["data"][key]


def _client(run: Any) -> Any:
    """Return tiled's own view of a run, if it is one: a v1 header has it inside."""
    client = getattr(run, "_run", run)
    return getattr(client, "v3", client) if _is_sql(client) else client


def _is_sql(run: Any) -> bool:
    """Return whether a run is in tiled's own catalogs, where it has no documents."""
    asked = getattr(run, "_is_sql", None)
    return bool(asked and asked(run.item))


def _base(node: Any) -> Any:
    return getattr(node, "base", node)


def mapped(path: str | Path, root_map: Mapping[str, str]) -> Path:
    """Return where a path of the documents is on this machine."""
    found = Path(path)
    for root, here in root_map.items():
        if found == Path(root) or Path(root) in found.parents:
            return Path(here) / found.relative_to(root)
    return found


def _add_files(
    stream: Stream,
    key: str,
    parameters: Mapping[str, Any] | None,
    uris: Iterable[str],
    root_map: Mapping[str, str],
) -> None:
    """Add files to those of a key, each once."""
    files = stream.files.setdefault(key, Files((parameters or {}).get("dataset", "")))
    for uri in uris:
        parts = urlsplit(uri)
        if parts.scheme != "file":
            stream.unknown.setdefault(key, f"{uri}: only files can be read here")
            continue
        path = mapped(unquote(parts.path), root_map)
        if path not in files.paths:
            files.paths.append(path)


# ---- documents ----


def _from_documents(pairs: Iterable[Document], root_map: Mapping[str, str]) -> RunDocuments:
    found = RunDocuments({}, {}, {})
    by_descriptor: dict[str, Stream] = {}
    resources: dict[str, dict[str, Any]] = {}
    data: dict[str, dict[str, Any]] = {}
    parts: list[dict[str, Any]] = []
    for given, page in pairs:
        for name, doc in _unpacked(given, page):
            if name == "start":
                found.start = dict(doc)
            elif name == "stop":
                found.stop = dict(doc)
            elif name == "descriptor":
                stream = found.streams.setdefault(doc["name"], Stream(doc["name"]))
                stream.descriptors.append(dict(doc))
                by_descriptor[doc["uid"]] = stream
            elif name in ("resource", "stream_resource"):
                resources[doc["uid"]] = dict(doc)
            elif name == "datum":
                data[doc["datum_id"]] = dict(doc)
            elif name == "stream_datum":
                parts.append(dict(doc))
            elif name == "event":
                event = Event(doc["seq_num"], doc["time"], dict(doc["data"]), doc["descriptor"])
                by_descriptor[doc["descriptor"]].events.append(event)
    if not found.start:
        raise RunError("these documents are of no run: there is no start document")
    for stream in found.streams.values():
        _find_data(stream, resources, data, root_map)
    for part in parts:
        # Before event-model had these keys, neither streams nor files can be told.
        if stream := by_descriptor.get(part.get("descriptor", "")):
            _add_part(stream, resources.get(part["stream_resource"], {}), part, root_map)
    return found


def _add_part(
    stream: Stream,
    resource: Mapping[str, Any],
    part: Mapping[str, Any],
    root_map: Mapping[str, str],
) -> None:
    """Take what a StreamDatum says of a file; of an older kind, note that it says it otherwise."""
    if not {"data_key", "uri"} <= set(resource) or not {"indices", "seq_nums"} <= set(part):
        named = resource.get("data_key")
        for key in part.get("data_keys", []) if named is None else [named]:
            # It may be another detector's, which nobody asked for.
            stream.unknown.setdefault(
                key,
                f"the files of {key!r} of stream {stream.name!r} are not known: their "
                "stream_resource document is missing, or of an older event-model",
            )
        return
    key = resource["data_key"]
    _add_files(stream, key, resource.get("parameters"), [resource["uri"]], root_map)
    stream.files[key].add_indices(part)
    _with_events(stream, part["seq_nums"]["stop"] - 1)


def _unpacked(name: str, doc: dict[str, Any]) -> Iterable[Document]:
    if name == "event_page":
        return [("event", each) for each in event_model.unpack_event_page(doc)]  # type: ignore[arg-type]
    if name == "datum_page":
        return [("datum", each) for each in event_model.unpack_datum_page(doc)]  # type: ignore[arg-type]
    if name == "bulk_events":
        return [("event", each) for events in doc.values() for each in events]
    return [(name, doc)]


def _find_data(
    stream: Stream,
    resources: Mapping[str, dict[str, Any]],
    data: Mapping[str, dict[str, Any]],
    root_map: Mapping[str, str],
) -> None:
    """Put places where events have names of data."""
    stream.events.sort(key=lambda event: event.seq_num)
    for key, described in stream.data_keys.items():
        if "external" not in described or str(described["external"]).startswith("STREAM"):
            continue
        for event in stream.events:
            named = event.data.pop(key, None)
            datum = data.get(named) if isinstance(named, str) else None
            resource = None if datum is None else resources.get(datum["resource"])
            if datum is None or resource is None:
                # It may be another detector's, which nobody asked for.
                stream.unknown.setdefault(
                    key,
                    f"event {event.seq_num} of stream {stream.name!r} names no images in {key!r} "
                    "that its documents know: they are filled in already, or datum and resource "
                    "documents are missing",
                )
                continue
            path = Path(resource["root"], resource["resource_path"])
            place = Place(
                resource["spec"],
                mapped(path, root_map),
                resource["resource_kwargs"],
                datum["datum_kwargs"],
            )
            stream.places.setdefault(key, []).append(place)


def _with_events(stream: Stream, last: int) -> None:
    """Add events that have nothing but images, and so no document."""
    stream.events += [
        Event(number, np.nan, {}) for number in range(len(stream.events) + 1, last + 1)
    ]


# ---- nodes of tiled's own catalogs, which have no documents ----


def _from_nodes(run: Any, root_map: Mapping[str, str]) -> RunDocuments:
    metadata = run.metadata
    found = RunDocuments(dict(metadata["start"]), dict(metadata.get("stop") or {}), {})
    for name in run:
        node = _base(run[name])
        described = {**run[name].metadata, "name": name}
        stream = found.streams[name] = Stream(name, [described])
        if "internal" in node:
            stream.events = _events_of(node["internal"].read())
        for key, data_key in described["data_keys"].items():
            if "external" not in data_key or key not in node:
                continue
            array = node[key]
            # Files that the catalog's writer has no reader for, or tables.
            if array.structure_family != "array":
                continue
            for source in array.data_sources():
                assets = sorted(source.assets, key=lambda asset: asset.num or 0)
                uris = [asset.data_uri for asset in assets]
                _add_files(stream, key, source.parameters, uris, root_map)
            images = data_key["shape"][0] if len(data_key["shape"]) > 2 else 1
            whole = array.shape[0] if len(array.shape) > 3 else array.shape[0] // images
            _with_events(stream, whole)
    return found


def _events_of(table: Any) -> list[Event]:
    """Return the rows of a pandas table as events."""
    own = [
        column
        for column in table.columns
        if column not in ("seq_num", "time") and not column.startswith("ts_")
    ]
    rows = table.to_dict(orient="records")
    events = [
        Event(int(row["seq_num"]), float(row["time"]), {key: row[key] for key in own})
        for row in rows
    ]
    return sorted(events, key=lambda event: event.seq_num)
