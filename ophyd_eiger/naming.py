"""Which documents name which images: one view file a series, one entry in it an event.

A device is not told which run it is read in. What it sees is that `describe` is asked once by each
stream of each run, after the first `read` and before that event's documents are asked for; so a
new view begins there. Streams that take turns within one run share the view of the one that was
described last: right for Datum in databroker, refused for StreamDatum. That an event was
dropped, by a pause or a failure, is seen by the RunEngine not having filled in the fields that are
its own.
"""

import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from ophyd_eiger import documents
from ophyd_eiger.deliveries import View
from ophyd_eiger.errors import StateError
from ophyd_eiger.points import Point, Series

Documents = list[tuple[str, dict[str, Any]]]


class Naming(ABC):
    """Names the images of points in documents.

    Parameters
    ----------
    data_key : str
        The images' key in events and descriptors.
    """

    external = ""

    def __init__(self, data_key: str) -> None:
        self.data_key = data_key
        self._views: dict[int, View] = {}
        self._of_view: dict[str, Any] = {}
        self._series: Series | None = None
        self._asked: list[tuple[str, Point]] = []
        self._new_stream = True

    def note_described(self) -> None:
        """Note that a stream of a run asked what the images are: its first event is this one."""
        self._new_stream = True

    @abstractmethod
    def refuse_turns(self) -> None:
        """See that what was named last is where it belongs, as far as documents tell."""

    def ask(self, *points: Point) -> list[str]:
        """Note that these points were read; return the ids by which events may name them."""
        self._asked = [(str(uuid.uuid4()), point) for point in points]
        return [name for name, _ in self._asked]

    def answer(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Give the documents of what was read, each once."""
        asked, self._asked = self._asked, []
        if asked:
            self._forget_dropped()
        while asked:
            series = asked[0][1].series
            together = [entry for entry in asked if entry[1].series is series]
            asked = [entry for entry in asked if entry[1].series is not series]
            yield from self._name(self._view_of(series), series, together)

    def _view_of(self, series: Series) -> View:
        if self._new_stream or series is not self._series:
            view = series.delivery.begin_view(series.promise.images)
            self._begin_view(view, series, new_stream=self._new_stream)
            self._series, self._new_stream = series, False
        return series.delivery.views[-1]

    @abstractmethod
    def _begin_view(self, view: View, series: Series, *, new_stream: bool) -> None: ...

    @abstractmethod
    def _name(self, view: View, series: Series, asked: list[tuple[str, Point]]) -> Documents: ...

    @abstractmethod
    def _forget_dropped(self) -> None: ...


class DatumNaming(Naming):
    """Resource and Datum, one Resource a view; events hold the Datum's id, for databroker."""

    external = "FILESTORE:"

    def __init__(self, data_key: str) -> None:
        super().__init__(data_key)
        self._resource: dict[str, Any] | None = None
        self._given = False

    def _begin_view(self, view: View, series: Series, *, new_stream: bool) -> None:
        delivery = series.delivery
        self._resource = documents.resource(delivery.directory, view.file, series.promise)
        self._given = False

    def _name(self, view: View, series: Series, asked: list[tuple[str, Point]]) -> Documents:
        if self._resource is None:
            raise AssertionError("a view without a Resource")
        found: Documents = []
        if not self._given:
            found.append(("resource", self._resource))
            self._given = True
        before = len(view.firsts)
        series.delivery.name_images(point.first for _, point in asked)
        for number, (datum_id, _) in enumerate(asked, start=before):
            first = number * view.images
            found.append(
                ("datum", documents.datum(datum_id, self._resource, first, series.promise))
            )
        return found

    def refuse_turns(self) -> None:
        """Do nothing: each Datum says itself which images it is."""

    def _forget_dropped(self) -> None:
        # Of a Datum nothing tells whether it was emitted. One that was not leaves an image in the
        # view that no event names: databroker reads on, tiled does not take a view that has more
        # images than the run. Without its Resource none was.
        if self._given and self._resource is not None and "run_start" not in self._resource:
            self._given = False
            if self._series is not None:
                self._series.delivery.forget_images()


class StreamNaming(Naming):
    """StreamResource and StreamDatum, one StreamResource a view; events hold nothing of them."""

    external = "STREAM:"

    def __init__(self, data_key: str) -> None:
        super().__init__(data_key)
        self._resource: dict[str, Any] | None = None
        self._resource_given = False
        self._events = 0
        self._descriptor = ""
        self._last: list[dict[str, Any]] = []

    @property
    def events(self) -> int:
        """Events that were named since the stream began."""
        return self._events

    def _begin_view(self, view: View, series: Series, *, new_stream: bool) -> None:
        delivery = series.delivery
        self._resource = documents.stream_resource(
            delivery.directory, view.file, self.data_key, series.promise
        )
        self._resource_given = False
        self._last = []
        if new_stream:
            self._events, self._descriptor = 0, ""

    def _name(self, view: View, series: Series, asked: list[tuple[str, Point]]) -> Documents:
        if self._resource is None:
            raise AssertionError("a view without a StreamResource")
        found: Documents = []
        if not self._resource_given:
            found.append(("stream_resource", self._resource))
            self._resource_given = True
        before = len(view.firsts)
        series.delivery.name_images(point.first for _, point in asked)
        start, self._events = self._events, self._events + len(asked)
        last = documents.stream_datum(self._resource, before, start, self._events)
        self._last = [last]
        return [*found, ("stream_datum", last)]

    def _forget_dropped(self) -> None:
        self.refuse_turns()
        if self._resource is not None and "run_start" not in self._resource:
            self._resource_given = False
        for dropped in (doc for doc in self._last if not doc["descriptor"]):
            count = dropped["indices"]["stop"] - dropped["indices"]["start"]
            self._events -= count
            if self._series is not None:
                self._series.delivery.forget_images(count)
        self._last = []

    def refuse_turns(self) -> None:
        """See that what was named last went to the stream that this view is of.

        Raises
        ------
        StateError
            If another stream or run had it, which was described before.
        """
        for descriptor in [doc["descriptor"] for doc in self._last if doc["descriptor"]]:
            self._descriptor = self._descriptor or descriptor
            if descriptor != self._descriptor:
                self._last = []  # told once
                raise StateError(
                    f"{self.data_key}: two streams take turns, and StreamDatum documents cannot "
                    "tell which images are whose; give each stream a run and a stage of its own, "
                    "or use documents='datum' and databroker"
                )
