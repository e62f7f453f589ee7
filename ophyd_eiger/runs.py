"""The images of a run, event by event, with what the run says of them.

Loads neither ophyd nor an HTTP client: a run is handed in by whoever has a catalog.
"""

import functools
import math
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ophyd_eiger.archives import HANDLERS
from ophyd_eiger.errors import FileError, NoImagesError, RunError
from ophyd_eiger.geometry import PARTS, ScatteringGeometry, geometry_of
from ophyd_eiger.handlers import SPEC, EigerHandler, Found
from ophyd_eiger.reader import Series, open_series
from ophyd_eiger.run_documents import (
    FILE_ENDING,
    Event,
    Place,
    RunDocuments,
    Stream,
    array_node,
    gather,
)

# Images that are in memory at once, unless somebody asks for whole events.
BLOCK = 8
# Wavelengths, distances and beam centres that differ by less, relatively, are the same.
_SAME = 1e-6
_HANDLERS: dict[str, Any] = {SPEC: EigerHandler, **HANDLERS}
# The group of a series' files that has the images.
_IMAGES = ["entry", "data"]


@dataclass(frozen=True)
class RunEvent:
    """One event of a run.

    Attributes
    ----------
    seq_num : int
        Its number in the stream, from 1.
    time : float
        When it was taken, in s since 1970; NaN where no document says it.
    data : dict
        What else was read: motors, times, numbers.
    find : callable
        Looks for its images.
    """

    seq_num: int
    time: float
    data: Mapping[str, Any]
    find: Callable[[], Found]

    @functools.cached_property
    def found(self) -> Found:
        """Where its images are.

        Raises
        ------
        MissingFileError, FileError
        RunError
            If no document names images of this event.
        """
        return self.find()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(images, y, x)."""
        return self.found.shape

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, number: int) -> np.ndarray:
        """Return one image, of shape (y, x)."""
        return self.found.series[self.found.numbers[number]]

    def read(self) -> np.ndarray:
        """Return its images, of shape (images, y, x)."""
        return self.found.series.pick(self.found.numbers)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield its images one by one, read a few at a time."""
        numbers = self.found.numbers
        for start in range(0, len(numbers), BLOCK):
            yield from self.found.series.pick(numbers[start : start + BLOCK])


class EigerRun:
    """The images of a run: a sequence of its events, each of which has its images.

    Made by `open_run`. It can be pickled, as its events can, if it reads the files itself.

    Attributes
    ----------
    stream : str
        The stream that has the images.
    key : str
        Their data key.
    events : tuple of RunEvent
        In the order of their numbers.
    user_mask : numpy.ndarray of bool, shape (y, x), or None
        True where a pixel is left out besides those of the detector's mask.
    through_catalog : bool
        Whether a catalog's server reads the images.
    """

    def __init__(
        self,
        documents: RunDocuments,
        stream: Stream,
        key: str,
        *,
        mask: np.ndarray | None,
        detector_mask: bool,
        geometry: ScatteringGeometry | Mapping[str, float] | None,
        node: Any = None,
    ) -> None:
        self._documents = documents
        self._described = stream
        self._uses_detector_mask = detector_mask
        self._geometry = geometry
        self.through_catalog = node is not None
        self.stream = stream.name
        self.key = key
        self.events = tuple(_events(stream, key, node))
        if not self.events:
            raise NoImagesError(f"run {self.uid}: stream {stream.name!r} has no event with images")
        self.user_mask = None if mask is None else np.asarray(mask) != 0
        pixels = self.shape[2:]
        if self.user_mask is not None and self.user_mask.shape != pixels:
            given = self.user_mask.shape
            raise RunError(f"run {self.uid}: a mask of shape {given}, images of {pixels}")

    def __repr__(self) -> str:
        events, images, y, x = self.shape
        return f"<EigerRun {self.uid[:8]}: {events} events of {images} images, {y} x {x}>"

    @property
    def uid(self) -> str:
        """The run's uid."""
        return self._documents.start["uid"]

    @property
    def scan_id(self) -> int | None:
        """The run's number; None where it has none."""
        return self._documents.start.get("scan_id")

    def __len__(self) -> int:
        return len(self.events)

    def __getitem__(self, number: int) -> RunEvent:
        return self.events[number]

    def __iter__(self) -> Iterator[RunEvent]:
        return iter(self.events)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(events, images, y, x), as the first event has them."""
        return (len(self.events), *self.events[0].shape)

    @property
    def dtype(self) -> np.dtype:
        """Type of a pixel."""
        return self.events[0].found.dtype

    @property
    def detector(self) -> str:
        """The name of the detector, as the run has it."""
        descriptor = self._described.descriptors[0]
        for name, keys in (descriptor.get("object_keys") or {}).items():
            if self.key in keys:
                return name
        return self._described.data_keys[self.key].get("object_name") or self.key

    @property
    def metadata(self) -> dict[str, Any]:
        """The run's own: `start` and `stop` documents, and the detector's `configuration`."""
        configuration = self._described.descriptors[0].get("configuration") or {}
        data = configuration.get(self.detector, {}).get("data", {})
        return {
            "start": self._documents.start,
            "stop": self._documents.stop,
            "configuration": dict(data),
        }

    @property
    def series(self) -> Series:
        """The series of the first event, or what a view shows of it."""
        return self.events[0].found.series

    def of_each_master(self) -> Iterator[RunEvent]:
        """Yield the first event of each master file.

        Raises
        ------
        MissingFileError, FileError, RunError
            As `RunEvent.found`.
        """
        known: set[Path] = set()
        for event in self.events:
            master = event.found.series.master_path
            if master not in known:
                known.add(master)
                yield event

    @property
    def detector_mask(self) -> np.ndarray:
        """The detector's pixel mask, uint32 of shape (y, x); 0 is a pixel good in all events.

        Raises
        ------
        MissingFileError, FileError
            If there is no master file, or it has none.
        RunError
            If it is not of the images' shape.
        """
        return functools.reduce(np.bitwise_or, map(self._detector_mask_of, self.of_each_master()))

    @functools.cached_property
    def mask(self) -> np.ndarray:
        """What is left out, bool of shape (y, x): the detector's mask and the user's.

        Of a run of several master files, what any of them masks: numbers of all its images are of
        the same pixels.
        """
        if self._uses_detector_mask:
            return self._with_user_mask(self.detector_mask)
        return self._with_user_mask(np.zeros(self.shape[2:], bool))

    def mask_of(self, event: RunEvent) -> np.ndarray:
        """Return what is left out of the images of one event: its master's mask and the user's."""
        if self._uses_detector_mask:
            return self._with_user_mask(self._detector_mask_of(event))
        return self._with_user_mask(np.zeros(self.shape[2:], bool))

    def _detector_mask_of(self, event: RunEvent) -> np.ndarray:
        found, shape = event.found.series.mask, self.shape[2:]
        if found.shape != shape:
            raise RunError(
                f"run {self.uid}, event {event.seq_num}: the detector's mask is of shape "
                f"{found.shape}, images are of {shape}; give detector_mask=False"
            )
        return found

    def _with_user_mask(self, mask: np.ndarray) -> np.ndarray:
        return mask != 0 if self.user_mask is None else (mask != 0) | self.user_mask

    @property
    def flatfield(self) -> np.ndarray:
        """The detector's flat-field factors of the first event, float32 of shape (y, x).

        Raises
        ------
        MissingFileError, FileError
        """
        return self.series.flatfield

    @property
    def geometry(self) -> ScatteringGeometry:
        """Where the beam was, as it was given or as the master files have it.

        Raises
        ------
        MissingFileError, FileError, EigerError
        RunError
            If they do not agree.
        """
        return self.agreed_geometry(PARTS)

    def agreed_geometry(self, parts: Iterable[str]) -> ScatteringGeometry:
        """Return the geometry of the first event, if that of all others has the same parts.

        Parameters
        ----------
        parts : iterable of str
            Those that have to be the same, by the names of `ScatteringGeometry`.

        Raises
        ------
        MissingFileError, FileError, EigerError
        RunError
            Naming a part that is not, and the event.
        """
        (first, geometry), *others = self._geometries
        for part in parts:
            here = getattr(geometry, part)
            for event, other in others:
                there = getattr(other, part)
                if not math.isclose(here, there, rel_tol=_SAME):
                    raise RunError(
                        f"run {self.uid}: {part} is {here:.8g} in event {first.seq_num} and "
                        f"{there:.8g} in event {event.seq_num}, as their master files say; give "
                        f"one for all as geometry ({part}={here:.8g}), or profiles another unit: "
                        "2th_deg needs no wavelength, r_mm no distance either, but for solid angles"
                    )
        return geometry

    @functools.cached_property
    def _geometries(self) -> list[tuple[RunEvent, ScatteringGeometry]]:
        """That of each master file, with its first event."""
        if isinstance(self._geometry, ScatteringGeometry):
            return [(self.events[0], self._geometry)]
        if self.through_catalog:
            raise RunError(
                f"run {self.uid}: images through the catalog have no master file to say where the "
                "beam was; give geometry=ScatteringGeometry(...)"
            )
        return [
            (event, geometry_of(event.found.series.master_path, self._geometry))
            for event in self.of_each_master()
        ]


def open_run(
    run: Any,
    *,
    stream: str | None = None,
    key: str | None = None,
    mask: np.ndarray | None = None,
    detector_mask: bool = True,
    geometry: ScatteringGeometry | Mapping[str, float] | None = None,
    root_map: Mapping[str | os.PathLike, str | os.PathLike] | None = None,
    through_catalog: bool = False,
) -> EigerRun:
    """Open the images of a run; of this package's devices and of those of `archives`.

    Parameters
    ----------
    run : object
        A v1 Header, a v2 run, a run's node of tiled, or its documents as (name, document) pairs.
    stream : str, optional
        The stream; without it "primary", or the only one that has images.
    key : str, optional
        The data key of the images, where a stream has those of several detectors.
    mask : numpy.ndarray, shape (y, x), optional
        Not 0 where a pixel is left out, besides the detector's own mask.
    detector_mask : bool
        Whether the masks of the master files are used; for masters that have none.
    geometry : ScatteringGeometry or mapping, optional
        In place of the master files'; of a mapping, as ``{"distance": 0.2}``, the parts it has.
    root_map : mapping, optional
        Where folders of the documents are on this machine: ``{"/data": "/mnt/beamline"}``.
    through_catalog : bool
        Whether the catalog's server reads the images, for a machine that does not have the files.
        It has no master file to give: `detector_mask` must be False, and a tiled server fills
        images that are missing.

    Raises
    ------
    NoImagesError
        If it has no such images.
    RunError
        If it is no run, or has images of several detectors.
    MissingFileError
        If the files of the first event are not there.
    """
    roots = {str(there): str(here) for there, here in (root_map or {}).items()}
    documents = gather(run, roots)
    found = _chosen(documents, stream, key)
    node = array_node(run, found[0].name, found[1]) if through_catalog else None
    with naming_run(documents.start["uid"]):
        return EigerRun(
            documents,
            *found,
            mask=mask,
            detector_mask=detector_mask,
            geometry=geometry,
            node=node,
        )


@contextmanager
def naming_run(uid: str) -> Iterator[None]:
    """Let an error of a file also say of which run it is: of a search, any may be meant."""
    try:
        yield
    except FileError as error:
        if uid in str(error):
            raise
        raise type(error)(f"run {uid}: {error}") from error


def _chosen(documents: RunDocuments, name: str | None, key: str | None) -> tuple[Stream, str]:
    candidates = {
        (stream.name, each): (stream, each)
        for stream in documents.streams.values()
        for each in stream.data_keys
        if each in stream.unknown or _is_ours(stream, each)
    }
    wanted = [
        candidate
        for candidate in candidates
        if name in (None, candidate[0]) and key in (None, candidate[1])
    ]
    if len(wanted) > 1 and name is None:
        wanted = [candidate for candidate in wanted if candidate[0] == "primary"] or wanted
    # What cannot be found may be of any detector: it is chosen by its key, or if there is no other.
    known = [(of, each) for of, each in wanted if each not in documents.streams[of].unknown]
    wanted = known or wanted
    uid = documents.start["uid"]
    if len(wanted) == 1:
        stream, each = candidates[wanted[0]]
        if each not in stream.unknown:
            return stream, each
        others = "; there are others for key= and stream=" if len(candidates) > 1 else ""
        raise RunError(f"run {uid}: {stream.unknown[each]}{others}")
    has = ", ".join(f"{each} of stream {of!r}" for of, each in candidates)
    if not candidates:
        raise NoImagesError(f"run {uid}: it has no images of an EIGER")
    if not wanted:
        asked = "" if name is None and key is None else f" {key or 'images'} of {name or 'any'}"
        raise NoImagesError(f"run {uid}: no such images{asked}; it has {has}")
    raise RunError(f"run {uid}: images of {has}; choose by key= and stream=")


def _is_ours(stream: Stream, key: str) -> bool:
    if key in stream.places:
        place = stream.places[key][0]
        # Of crystallography, events have angles of the master file, too.
        return place.spec in _HANDLERS and place.datum_kwargs.get("data_key", "data") == "data"
    return _are_of_a_series(stream, key)


def _are_of_a_series(stream: Stream, key: str) -> bool:
    """Return whether a key's files are those of a series, by what documents say of them.

    Other cameras have HDF5 files too, many of them with their images at the same place; so have the
    pictures of reprocessed runs. The names of an EIGER's files are its own.
    """
    files = stream.files.get(key)
    if files is None or not files.paths:
        return False
    if FILE_ENDING.search(files.paths[0].name) is None:
        return False
    # A master has angles, too. Some archives name the group, others a dataset of it.
    group = files.dataset.strip("/").split("/")[:2]
    return group == _IMAGES and len(stream.data_keys[key]["shape"]) > 1


def _events(stream: Stream, key: str, node: Any) -> Iterator[RunEvent]:
    finders: list[Callable[[], Found]]
    shape = stream.data_keys[key]["shape"]
    images = shape[0] if len(shape) > 2 else 1
    if node is not None:
        finders = [
            functools.partial(_find_in_catalog, node, place, images)
            for place in range(len(stream.events))
        ]
    elif key in stream.places:
        handlers = _Handlers()
        finders = [functools.partial(handlers.find, place) for place in stream.places[key]]
    else:
        files = _Concatenated(stream.files[key].paths)
        finders = [
            functools.partial(_unnamed, stream, event)
            if index is None
            else functools.partial(files.find, index * images, images)
            for event, index in zip(stream.events, _indices(stream, key), strict=True)
        ]
    for event, find in zip(stream.events, finders, strict=True):
        yield _event(event, find)


def _indices(stream: Stream, key: str) -> Iterator[int | None]:
    """Yield where the images of each event are, counted in events; None where none are named."""
    named = stream.files[key].indices
    left = Counter(event.seq_num for event in stream.events)
    for place, event in enumerate(stream.events):
        if not named:
            yield place
            continue
        indices = named.get(event.seq_num)
        # Events taken again may have a document each time: the last one has the last images.
        yield indices[-min(left[event.seq_num], len(indices))] if indices else None
        left[event.seq_num] -= 1


def _unnamed(stream: Stream, event: Event) -> Found:
    raise RunError(
        f"event {event.seq_num} of stream {stream.name!r} has no images: no document names them"
    )


def _event(event: Event, find: Callable[[], Found]) -> RunEvent:
    return RunEvent(event.seq_num, event.time, event.data, find)


class _Handlers:
    """The handler of the events asked for last: those of a series follow one another."""

    def __init__(self) -> None:
        self._of = ""
        self._handler: Any = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process looks anew, under a lock of its own.
        return _Handlers, ()

    def find(self, place: Place) -> Found:
        """Return where the images of an event are."""
        of = repr((place.spec, place.path, sorted(place.resource_kwargs.items())))
        with self._lock:
            if of != self._of:
                self._handler = _HANDLERS[place.spec](place.path, **place.resource_kwargs)
                self._of = of
            handler = self._handler
        return handler.find(**place.datum_kwargs)


def _find_in_catalog(node: Any, place: int, images: int) -> Found:
    of_event: Any = _CatalogSeries(node, place, images)
    return Found(of_event, range(images))


class _CatalogSeries:
    """The images of one event as a catalog's server reads them, in place of a Series."""

    def __init__(self, node: Any, place: int, images: int) -> None:
        self._node = node
        self._place = place
        self.path = Path(node.path_parts[-1])
        self.master_path = self.path
        self.shape = (images, *node.shape[-2:])
        self.dtype = np.dtype(node.dtype)
        self._one_array = math.prod(node.shape[:-2]) != node.shape[0]

    def __getitem__(self, number: int) -> np.ndarray:
        return self.pick(range(number, number + 1))[0]

    def pick(self, numbers: range) -> np.ndarray:
        """Return images of these numbers, as `Series.pick`."""
        if self._one_array:
            read = self._node[self._place, numbers.start : numbers.stop]
        else:
            start = self._place * self.shape[0] + numbers.start
            read = self._node[start : start + len(numbers)]
        return np.array(read).reshape(len(numbers), *self.shape[1:])

    @property
    def mask(self) -> np.ndarray:
        """Nothing: a catalog has no master file."""
        raise RunError(
            "images through the catalog have no master file and no mask; give detector_mask=False "
            "and, if there is one, mask="
        )

    flatfield = mask


class _Concatenated:
    """Files whose images follow one another, as those of the events do."""

    def __init__(self, files: list[Path]) -> None:
        self._files = files
        self._series: list[Series] = []
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Concatenated, (self._files,)

    def find(self, first: int, images: int) -> Found:
        """Return where images of these places are, opening files as far as needed."""
        end = 0
        for number, file in enumerate(self._files):
            with self._lock:
                # Whoever comes first, in whichever thread.
                if number == len(self._series):
                    self._series.append(open_series(file))
            series = self._series[number]
            if first + images <= end + len(series):
                if first < end:
                    raise FileError(f"{file}: an event's images are in it and in the file before")
                if lost := series.lacks(first - end, images):
                    raise FileError(f"{file}: images {first - end + 1} on asked for, {lost}")
                return Found(series, range(first - end, first - end + images))
            end += len(series)
        names = ", ".join(file.name for file in self._files)
        raise FileError(f"{names}: image {first + images} asked for, {end} found")
