"""Views through catalogs: hand-made documents of both kinds, read back by tiled and databroker.

One view serves both: tiled reads it as any HDF5 file, databroker through our handler.
"""

import itertools
from dataclasses import dataclass, field
from pathlib import Path

import event_model
import numpy as np
import pytest
from pairs import every_pair_once

from ophyd_eiger.view import Part, write_view

SHAPE = (5, 6)
DATA = "/entry/data/data"
# Of images a point: what the events of each series name, first image and how many. The second
# series had exposures that were interrupted and taken again, the third was ended early.
SERIES = {
    1: ([(0, 1), (1, 1), (2, 1), (3, 1)], [(0, 1), (2, 1), (5, 1)], [(0, 1)]),
    7: ([(0, 7), (7, 7)], [(0, 7), (10, 7), (19, 7)], [(0, 7)]),
}
PER_FILE = (1, 3, 1000)


@dataclass
class Taken:
    """A series as it is on disk: the images, and the view that shows those of its events."""

    folder: Path
    name: str
    events: list[tuple[int, int]]
    images: np.ndarray
    per_file: int
    write_data: object = field(repr=False)

    @property
    def view(self) -> Path:
        return self.folder / f"{self.name}_view.h5"

    @property
    def expected(self) -> np.ndarray:
        return np.stack([self.images[first : first + count] for first, count in self.events])

    def bring_home(self) -> None:
        parts = []
        for first in range(0, len(self.images), self.per_file):
            path = self.folder / f"{self.name}_data_{len(parts) + 1:06d}.h5"
            stack = self.images[first : first + self.per_file]
            self.write_data(path, stack, first=first + 1)
            parts.append(Part(path, first, len(stack)))
        write_view(
            self.view,
            self.events,
            parts,
            shape=SHAPE,
            dtype=self.images.dtype,
            master=f"{self.name}_master.h5",
        )


@pytest.fixture
def take(tmp_path, write_data):
    """Make three series: `take(images, per_file)`; their files are not home yet."""

    def take(images, per_file):
        rng = np.random.default_rng(images * per_file)
        return [
            Taken(
                tmp_path,
                f"x_{number}",
                events,
                # Two more images than events name, as an interrupted exposure leaves them.
                rng.integers(0, 2**16, (sum(events[-1]) + 2, *SHAPE), np.uint16),
                per_file,
                write_data,
            )
            for number, events in enumerate(SERIES[images], 1)
        ]

    return take


@pytest.fixture
def write_to_tiled(tiled):
    """Write documents by a stock TiledWriter and return the run's images as tiled has them."""
    from bluesky_tiled_plugins import TiledWriter

    def write(documents, *, batch_size=10_000):
        writer = TiledWriter(
            tiled,
            spec_to_mimetype={"EIGER_SIMPLON": "application/x-hdf5"},
            batch_size=batch_size,
        )
        for name, document in documents:
            writer(name, document)
        return tiled[documents[0][1]["uid"]]["primary"]["image"]

    return write


def start_run(images, external):
    run = event_model.compose_run()
    key = {
        "source": "by hand",
        "dtype": "array",
        "dtype_numpy": "<u2",
        "shape": [images, *SHAPE],
        "dims": ["image", "y", "x"],
        "external": external,
    }
    motor = {"source": "by hand", "dtype": "number", "dtype_numpy": "<f8", "shape": []}
    stream = run.compose_descriptor(name="primary", data_keys={"image": key, "motor": motor})
    return run, stream, [("start", run.start_doc), ("descriptor", stream.descriptor_doc)]


def validated(documents):
    for name, document in documents:
        event_model.schema_validators[event_model.DocumentNames[name]].validate(document)
    return documents


def stream_documents(series, images):
    """Return the documents of a run: a StreamResource a series, a StreamDatum a point."""
    run, stream, made = start_run(images, "STREAM:")
    index = itertools.count()
    for taken in series:
        resource = run.compose_stream_resource(
            mimetype="application/x-hdf5",
            uri=f"file://localhost{taken.view}",
            data_key="image",
            parameters={"dataset": DATA, "chunk_shape": [1], "swmr": False},
        )
        made.append(("stream_resource", resource.stream_resource_doc))
        for number in itertools.islice(index, len(taken.events)):
            datum = resource.compose_stream_datum(
                {"start": number, "stop": number + 1},
                {"start": number + 1, "stop": number + 2},
                stream.descriptor_doc,
            )
            event = stream.compose_event(data={"motor": number}, timestamps={"motor": 0.0})
            made += [("stream_datum", datum), ("event", event)]
    return validated([*made, ("stop", run.compose_stop())])


def datum_documents(series, images):
    """Return the documents of a run: a Resource a series, a Datum a point."""
    run, stream, made = start_run(images, "FILESTORE:")
    for taken in series:
        resource = run.compose_resource(
            spec="EIGER_SIMPLON",
            root=str(taken.folder),
            resource_path=taken.view.name,
            resource_kwargs={
                "shape": list(SHAPE),
                "dataset": DATA,
                "chunk_shape": [1],
                "swmr": False,
            },
        )
        made.append(("resource", resource.resource_doc))
        for number in range(len(taken.events)):
            datum = resource.compose_datum(
                datum_kwargs={"first": images * number, "images": images}
            )
            event = stream.compose_event(
                data={"image": datum["datum_id"], "motor": float(number)},
                timestamps={"image": 0.0, "motor": 0.0},
                filled={"image": False},
            )
            made += [("datum", datum), ("event", event)]
    return validated([*made, ("stop", run.compose_stop())])


KINDS = {"stream": stream_documents, "datum": datum_documents}


# Images a point, images a file, when the files come home, and the kind of documents.
ALL = list(itertools.product(SERIES, PER_FILE, ("early", "late"), KINDS))
SHORT = every_pair_once(ALL)


def marked(cases):
    for case in cases:
        marks = () if case in SHORT else pytest.mark.long
        yield pytest.param(case, id="-".join(map(str, case)), marks=marks)


@pytest.fixture
def case(request, take):
    """Return three series, images a point, what brings their files home, kind of documents."""
    images, per_file, when, kind = request.param
    series = take(images, per_file)

    def bring_home(document):
        if document == ("stop" if when == "late" else "start"):
            for taken in series:
                taken.bring_home()

    return series, images, bring_home, kind


@pytest.mark.parametrize("case", list(marked(ALL)), indirect=True)
def test_tiled_reads_a_run_of_several_series(case, write_to_tiled):
    """Whole, by point and by image; by a writer as it comes, and by one that writes at once."""
    series, images, bring_home, kind = case
    documents = KINDS[kind](series, images)
    bring_home("start")
    node = write_to_tiled(documents, batch_size=1 if kind == "datum" else 10_000)
    bring_home("stop")
    expected = np.concatenate([taken.expected for taken in series])
    assert (node.shape, node.dtype) == (expected.shape, expected.dtype)
    assert np.array_equal(node.read(), expected)
    assert np.array_equal(node[2:-1], expected[2:-1])
    assert np.array_equal(node[-1, -1, 2:4], expected[-1, -1, 2:4])


@pytest.mark.parametrize(
    "case", list(marked(case for case in ALL if case[-1] == "datum")), indirect=True
)
def test_databroker_reads_the_same_views(case, catalog):
    series, images, bring_home, _ = case
    documents = datum_documents(series, images)
    bring_home("start")
    for name, document in documents:
        catalog.v1.insert(name, document)
    bring_home("stop")
    uid = documents[0][1]["uid"]
    expected = np.concatenate([taken.expected for taken in series])
    assert np.array_equal(catalog[uid].primary.read()["image"], expected)
    assert np.array_equal(np.stack(list(catalog.v1[uid].data("image"))), expected)


def test_two_runs_of_one_series_have_a_view_each(take, write_to_tiled, catalog, tmp_path):
    """Of a series that was armed once: the points of each run, over the same files."""
    (whole, *_) = take(7, 3)
    whole.bring_home()
    files = [
        Part(path, 3 * number, min(3, len(whole.images) - 3 * number))
        for number, path in enumerate(sorted(tmp_path.glob("x_1_data_*.h5")))
    ]
    for number, events in enumerate([whole.events[:1], whole.events[1:]], 2):
        name = f"x_1_view_{number:06d}"
        run = Taken(tmp_path, name, events, whole.images, 3, None)
        write_view(run.view, events, files, shape=SHAPE, dtype=np.uint16, master="x_1_master.h5")
        documents = datum_documents([run], 7)
        assert np.array_equal(write_to_tiled(documents).read(), run.expected)
        for kind, document in documents:
            catalog.v1.insert(kind, document)
        read = catalog[documents[0][1]["uid"]].primary.read()["image"]
        assert np.array_equal(read, run.expected)


def test_a_missing_image_is_filled_by_tiled_and_an_error_by_databroker(
    take, write_to_tiled, catalog, tmp_path
):
    series = take(7, 3)
    for taken in series:
        taken.bring_home()
    (tmp_path / "x_1_data_000003.h5").unlink()
    documents = datum_documents(series, 7)
    read = write_to_tiled(documents).read()
    expected = np.concatenate([taken.expected for taken in series])
    expected[0, 6] = expected[1, :2] = 65535
    assert np.array_equal(read, expected)
    for name, document in documents:
        catalog.v1.insert(name, document)
    with pytest.raises(event_model.DataNotAccessible) as caught:
        catalog[documents[0][1]["uid"]].primary.read()
    said, error = "", caught.value
    while error is not None:
        said, error = said + str(error), error.__cause__ or error.__context__
    assert "x_1_data_000003.h5 is missing" in said
