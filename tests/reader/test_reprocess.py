"""Runs opened and reduced: hand-made documents and files, and numbers by plain numpy."""

import errno
import functools
import hashlib
import json
import os
import pickle
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import event_model
import h5py
import numpy as np
import pytest
from bluesky_tiled_plugins import TiledWriter
from tiled.queries import Eq
from tiled_servers import own_structure_clients

from ophyd_eiger import open_run, open_series
from ophyd_eiger.errors import (
    EigerError,
    FileError,
    MissingFileError,
    NoImagesError,
    RegionError,
    RunError,
)
from ophyd_eiger.geometry import ScatteringGeometry
from ophyd_eiger.processed_runs import documents_of, write_run
from ophyd_eiger.prompt import FileList
from ophyd_eiger.reprocess import Recipe, opened, reduce_run, reprocess
from ophyd_eiger.run_documents import Place
from ophyd_eiger.run_reductions import Profile, Projections
from ophyd_eiger.runs import _Concatenated, _Handlers
from ophyd_eiger.view import Part, write_view

SHAPE = (40, 60)
# First image in the series and how many, of each event: one image came in no event.
EVENTS = [(0, 3), (4, 3), (7, 3)]
BOX = (10, 5, 20, 12)
GEOMETRY = {
    "entry/instrument/detector/beam_center_x": 31.25,
    "entry/instrument/detector/beam_center_y": 18.5,
    "entry/instrument/detector/detector_distance": 0.02,
    "entry/instrument/detector/x_pixel_size": 7.5e-5,
    "entry/instrument/detector/y_pixel_size": 7.5e-5,
    "entry/instrument/beam/incident_wavelength": 1.2,
}


class Made:
    """A run on disk: its documents, its images as they must be read, and its masks."""

    def __init__(self, documents, images, mask):
        self.documents = documents
        self.images = images
        self.mask = mask
        self.uid = documents[0][1]["uid"]


@pytest.fixture
def make(tmp_path, write_data, write_master):
    """Make a run: `make(kind)` of documents, `applied` the flat field in its configuration."""

    def make(kind="datum", *, applied=False, number=7, dtype=np.uint16):
        rng = np.random.default_rng(number)
        largest = np.iinfo(dtype).max
        images = rng.integers(0, min(4000, largest), (10, *SHAPE), dtype)
        mask = np.zeros(SHAPE, np.uint32)
        mask[20:23], mask[3, 14] = 1, 2
        images[:, mask != 0] = largest
        name = f"x_{number}"
        names = [f"{name}_data_{n:06d}.h5" for n in (1, 2, 3)]
        parts = []
        for file, first in zip(names, (0, 4, 8), strict=True):
            write_data(tmp_path / file, images[first : first + 4], first=first + 1)
            parts.append(Part(tmp_path / file, first, len(images[first : first + 4])))
        master = write_master(tmp_path / f"{name}_master.h5", names, nimages=10, mask=mask)
        with h5py.File(master, "a") as file:
            for place, value in GEOMETRY.items():
                file[place] = np.float64(value)
            specific = file["entry/instrument/detector/detectorSpecific"]
            specific["flatfield"] = rng.uniform(0.9, 1.1, SHAPE).astype(np.float32)
        view = tmp_path / f"{name}_view.h5"
        write_view(view, EVENTS, parts, shape=SHAPE, dtype=dtype, master=master.name)
        expected = np.stack([images[first : first + n] for first, n in EVENTS])
        return Made(documents(view, kind, applied, np.dtype(dtype).str), expected, mask)

    return make


def documents(view, kind, applied, dtype="<u2"):
    run = event_model.compose_run(
        metadata={"sample": "lysozyme", "plan_name": "scan", "token": str(view)}
    )
    external = "STREAM:" if kind == "stream" else "FILESTORE:"
    keys = {
        "image": {"source": "by hand", "dtype": "array", "dtype_numpy": dtype, "shape": [3, *SHAPE]}
        | {"external": external},
        "motor": {"source": "by hand", "dtype": "number", "dtype_numpy": "<f8", "shape": []},
    }
    said = {"flatfield_correction_applied": applied, "count_time": 0.1}
    configuration = {
        "det": {
            "data": said,
            "timestamps": dict.fromkeys(said, 0.0),
            "data_keys": {
                "flatfield_correction_applied": {"source": "-", "dtype": "boolean", "shape": []},
                "count_time": {"source": "-", "dtype": "number", "shape": []},
            },
        }
    }
    stream = run.compose_descriptor(
        name="primary",
        data_keys=keys,
        configuration=configuration,
        object_keys={"det": ["image"], "motor": ["motor"]},
    )
    made = [("start", run.start_doc), ("descriptor", stream.descriptor_doc)]
    if kind == "stream":
        resource = run.compose_stream_resource(
            mimetype="application/x-hdf5",
            uri=f"file://localhost{view}",
            data_key="image",
            parameters={"dataset": "/entry/data/data", "chunk_shape": [1], "swmr": False},
        )
        made.append(("stream_resource", resource.stream_resource_doc))
    else:
        resource = run.compose_resource(
            spec="EIGER_SIMPLON", root=str(view.parent), resource_path=view.name, resource_kwargs={}
        )
        made.append(("resource", resource.resource_doc))
    for number in range(3):
        data, filled = {"motor": number / 2}, {}
        if kind == "stream":
            datum = resource.compose_stream_datum(
                {"start": number, "stop": number + 1},
                {"start": number + 1, "stop": number + 2},
                stream.descriptor_doc,
            )
            made.append(("stream_datum", datum))
        else:
            datum = resource.compose_datum(datum_kwargs={"first": 3 * number, "images": 3})
            made.append(("datum", datum))
            data["image"], filled = datum["datum_id"], {"image": False}
        times = dict.fromkeys(data, 0.0)
        event = stream.compose_event(
            data=data, timestamps=times, filled=filled, time=100.0 + number
        )
        made.append(("event", event))
    return [*made, ("stop", run.compose_stop())]


def insert(catalog, made):
    for name, document in made.documents:
        catalog.v1.insert(name, document)
    return catalog[made.uid]


def in_catalog(tiled, made):
    """Write documents into tiled's own catalog, each at once: files it cannot read, too."""
    writer = TiledWriter(tiled, batch_size=1)
    for name, document in made:
        writer(name, document)


# ---- opened


@pytest.mark.parametrize("kind", ["datum", "stream"])
def test_a_run_has_its_images_event_by_event(make, kind):
    made = make(kind)
    run = open_run(made.documents)
    assert run.shape == (3, 3, *SHAPE)
    assert [event.seq_num for event in run] == [1, 2, 3]
    assert [event.data["motor"] for event in run] == [0, 0.5, 1]
    assert [event.time for event in run] == [100, 101, 102]
    for number, event in enumerate(run):
        assert np.array_equal(event.read(), made.images[number])
        assert np.array_equal(list(event), made.images[number])
        assert np.array_equal(event[-1], made.images[number, -1])
    assert run.detector == "det"
    assert run.metadata["start"]["sample"] == "lysozyme"
    assert run.metadata["configuration"]["count_time"] == 0.1
    assert np.array_equal(run.mask, made.mask != 0)


NAMED = {
    "not from the first on": ([(1, 3)], [(1, 3)], [1, 2]),
    "taken again": ([(0, 1), (1, 2), (2, 3), (3, 4)], [(1, 2), (2, 3), (2, 3), (3, 4)], [0, 2, 3]),
    "several at once, taken again": ([(0, 3), (3, 6)], [(1, 4), (3, 6)], [0, 1, 3, 4, 5]),
    "in two resources": ([(0, 2), (2, 4)], [(1, 3), (3, 5)], [0, 1, 2, 3]),
    "each resource from 0": ([(0, 2), (0, 2)], [(1, 3), (3, 5)], [0, 1, 2, 3]),
    "each from 0, taken again": ([(0, 2), (0, 2)], [(1, 3), (2, 4)], [0, 2, 3]),
}


def with_parts(made, files, indices, numbers):
    """Return a run's documents without events, its images in these parts of files."""
    kept = {name: doc for name, doc in made.documents if name not in ("event", "stream_datum")}
    resource, documents = kept["stream_resource"], [("start", kept["start"])]
    documents.append(("descriptor", one_image_an_event(kept["descriptor"])))
    for place, file in enumerate(files):
        named = {"uid": f"r{place}", "uri": f"file://localhost{file}"}
        documents.append(("stream_resource", {**resource, **named}))
    for place, ((start, stop), (first, last)) in enumerate(zip(indices, numbers, strict=True)):
        of = f"r{min(place, len(files) - 1)}"
        said = {"uid": f"{of}/{place}", "stream_resource": of}
        said["descriptor"] = kept["descriptor"]["uid"]
        said["indices"] = {"start": start, "stop": stop}
        said["seq_nums"] = {"start": first, "stop": last}
        documents.append(("stream_datum", said))
    return documents


def one_image_an_event(descriptor):
    key = {**descriptor["data_keys"]["image"], "shape": [1, *SHAPE]}
    return {**descriptor, "data_keys": {"image": key}}


@pytest.fixture
def counted(tmp_path, write_data):
    """Return files of 2 and 5 images, and what each of their images has in each pixel."""
    values = np.arange(7, dtype=np.uint16)
    images = np.broadcast_to(values[:, None, None], (7, *SHAPE))
    files = [tmp_path / "n_1_data_000001.h5", tmp_path / "n_1_data_000002.h5"]
    write_data(files[0], images[:2])
    write_data(files[1], images[2:], first=3)
    return files


@pytest.mark.parametrize("how", NAMED)
def test_events_have_the_images_that_the_documents_say(make, counted, tmp_path, write_master, how):
    indices, numbers, expected = NAMED[how]
    files = counted
    if "resource" not in how and "each" not in how:
        files = [write_master(tmp_path / "n_1_master.h5", [file.name for file in counted])]
    run = open_run(with_parts(make("stream"), files, indices, numbers), detector_mask=False)
    assert [event.seq_num for event in run] == list(range(1, len(expected) + 1))
    assert [int(event[0][0, 0]) for event in run] == expected


def test_each_document_of_an_event_taken_again_has_its_own_images(make, counted):
    indices, numbers, _ = NAMED["taken again"]
    documents = with_parts(make("stream"), counted[1:], indices, numbers)
    events = [
        {"uid": f"e{place}", "seq_num": number, "time": place, "data": {}}
        for place, number in enumerate((1, 2, 2, 3, 4))
    ]
    descriptor = documents[1][1]["uid"]
    documents += [("event", {**event, "descriptor": descriptor}) for event in events]
    run = open_run(documents, detector_mask=False)
    # The first image of the file is the series' third.
    assert [int(event[0][0, 0]) for event in run.events[:4]] == [2, 3, 4, 5]
    with pytest.raises(RunError, match="event 4 of stream 'primary' has no images: no document"):
        run[4].read()


def test_a_run_of_a_catalog_in_each_of_its_dresses(make, catalog):
    made = make()
    run = insert(catalog, made)
    apart = catalog.new_variation(structure_clients=own_structure_clients(catalog))
    for dressed in (run, catalog.v1[made.uid], apart.v2[made.uid]):
        found = pickle.loads(pickle.dumps(open_run(dressed)))
        assert found.uid == made.uid
        assert np.array_equal([event.read() for event in found], made.images)


def test_images_through_the_catalog(make, catalog):
    """For a machine that has none of the files: the server, here in this process, reads them."""
    made = make()
    run = insert(catalog, made)
    opening = {"root_map": {"/": "/nowhere"}, "through_catalog": True}
    with pytest.raises(MissingFileError, match=r"/nowhere/.*x_7_view\.h5: no such file"):
        open_run(run, root_map={"/": "/nowhere"})
    with pytest.raises(RunError, match=r"no master file and no mask; give detector_mask=False"):
        reprocess(run, **opening)
    mask = made.mask != 0
    recipe = Recipe(detector_mask=False, mask=mask)
    (reduced,) = reprocess(run, recipe, **opening)
    good = np.where(mask, 0, made.images)
    assert np.array_equal(reduced.numbers["image_sum"], good.sum(axis=(2, 3)))
    assert np.array_equal(reduced.run[1][2], made.images[1, 2])
    with pytest.raises(RunError, match="where the beam was; give geometry="):
        reprocess(run, Recipe(bins=9, detector_mask=False), **opening)
    with pytest.raises(RunError, match="documents are of no catalog"):
        open_run(made.documents, through_catalog=True)


def archived_documents(folder, series, *, path="s", images=2, per_file=2):
    """Return documents of a run that has a whole series an event, each with a master of its own."""
    run = event_model.compose_run()
    key = {"source": "PV", "dtype": "array", "shape": [images, *SHAPE], "external": "FILESTORE:"}
    stream = run.compose_descriptor(name="primary", data_keys={"eiger_image": key})
    resource = run.compose_resource(
        spec="AD_EIGER2",
        root=str(folder),
        resource_path=path,
        resource_kwargs={"images_per_file": per_file},
    )
    made = [("start", run.start_doc), ("descriptor", stream.descriptor_doc)]
    made.append(("resource", resource.resource_doc))
    for number in series:
        datum = resource.compose_datum(datum_kwargs={"seq_id": number})
        event = stream.compose_event(
            data={"eiger_image": datum["datum_id"]},
            timestamps={"eiger_image": 0.0},
            filled={"eiger_image": False},
        )
        made += [("datum", datum), ("event", event)]
    return [*made, ("stop", run.compose_stop())]


def test_an_archived_run(archived, tmp_path):
    """No handler need be registered."""
    made = archived_documents(tmp_path, [3], path="old", images=5, per_file=3)
    (only,) = open_run(made)
    assert np.array_equal(only.read(), archived)


class OfTwoMasters:
    """A run of two events: series 1 and 2, which differ in all that a master says."""

    def __init__(self, folder, write_data, write_master):
        rng = np.random.default_rng(12)
        self.images = rng.integers(0, 4000, (2, 2, *SHAPE), np.uint16)
        self.masks = np.zeros((2, *SHAPE), np.uint32)
        self.masks[0, 4:6], self.masks[1, :, 7], self.masks[:, 9, 9] = 1, 2, 8
        self.images[self.masks[:, None].repeat(2, axis=1) != 0] = 65535
        self.factors = rng.uniform(0.5, 2, (2, *SHAPE)).astype(np.float32)
        self.folder = folder
        for number in (1, 2):
            data = write_data(folder / f"s_{number}_data_000001.h5", self.images[number - 1])
            mask = self.masks[number - 1]
            write_master(self.master(number), [data.name], nimages=2, mask=mask)
            with h5py.File(self.master(number), "a") as file:
                for place, value in GEOMETRY.items():
                    file[place] = np.float64(value)
                specific = file["entry/instrument/detector/detectorSpecific"]
                specific["flatfield"] = self.factors[number - 1]
        self.documents = archived_documents(folder, (1, 2))
        self.uid = self.documents[0][1]["uid"]

    def master(self, number):
        return self.folder / f"s_{number}_master.h5"

    def put(self, place, value):
        """Let the second master say something else."""
        with h5py.File(self.master(2), "a") as file:
            if place in file:
                del file[place]
            file[place] = value

    @property
    def left_out(self):
        return (self.masks != 0).any(axis=0)


@pytest.fixture
def of_two_masters(tmp_path, write_data, write_master):
    return OfTwoMasters(tmp_path, write_data, write_master)


def mx_documents(folder):
    """Return what the published area-detector MX flyer emits of a series: images and angles."""
    run = event_model.compose_run()
    keys = {
        "eiger_image": {"shape": [5, *SHAPE], "dims": ["images", "row", "column"]},
        "omega": {"shape": [5], "dims": ["images"]},
    }
    external = {"source": "by hand", "dtype": "array", "external": "FILESTORE:"}
    stream = run.compose_descriptor(
        name="primary", data_keys={key: {**external, **own} for key, own in keys.items()}
    )
    resource = run.compose_resource(
        spec="AD_EIGER_MX",
        root=str(folder),
        resource_path="old",
        resource_kwargs={"seq_id": 3},
    )
    data = {
        key: resource.compose_datum(datum_kwargs={"data_key": data_key})
        for key, data_key in (("eiger_image", "data"), ("omega", "omega"))
    }
    event = stream.compose_event(
        data={key: datum["datum_id"] for key, datum in data.items()},
        timestamps=dict.fromkeys(data, 0.0),
        filled=dict.fromkeys(data, False),
    )
    made = [("start", run.start_doc), ("descriptor", stream.descriptor_doc)]
    made += [("resource", resource.resource_doc), *(("datum", datum) for datum in data.values())]
    return [*made, ("event", event), ("stop", run.compose_stop())]


@pytest.fixture
def archived(tmp_path, write_data, write_master):
    """Write the series old_3 and return its images."""
    images = np.random.default_rng(1).integers(0, 9, (5, *SHAPE), np.uint16)
    names = ["old_3_data_000001.h5", "old_3_data_000002.h5"]
    for name, first in zip(names, (0, 3), strict=True):
        write_data(tmp_path / name, images[first : first + 3])
    write_master(tmp_path / "old_3_master.h5", names, mask=np.zeros(SHAPE, np.uint32))
    return images


def test_a_run_of_crystallography_has_angles_beside_its_images(archived, tmp_path):
    run = open_run(mx_documents(tmp_path))
    assert run.key == "eiger_image"
    assert np.array_equal(run[0].read(), archived)
    assert run[0].data == {}
    with pytest.raises(NoImagesError, match="no such images omega of any; it has eiger_image of"):
        open_run(mx_documents(tmp_path), key="omega")


def test_a_folder_that_is_elsewhere_now(make, tmp_path):
    made = make()
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in tmp_path.glob("*.h5"):
        file.rename(moved / file.name)
    with pytest.raises(MissingFileError, match=r"x_7_view\.h5: no such file"):
        open_run(made.documents)
    run = open_run(made.documents, root_map={tmp_path: moved})
    assert np.array_equal(run[2].read(), made.images[2])


def test_what_is_no_run_of_an_eiger(make, catalog):
    run = event_model.compose_run()
    key = {"source": "-", "dtype": "number", "shape": []}
    stream = run.compose_descriptor(name="primary", data_keys={"motor": key})
    bare = [("start", run.start_doc), ("descriptor", stream.descriptor_doc)]
    with pytest.raises(NoImagesError, match="it has no images of an EIGER"):
        open_run(bare)
    with pytest.raises(NoImagesError, match=r"no such images dark of any; it has image of .*'prim"):
        open_run(make().documents, key="dark")
    with pytest.raises(RunError, match="is no run: give one that a catalog found"):
        open_run("3f4c")
    with pytest.raises(RunError, match="there is no start document"):
        open_run([])


def test_a_mask_of_another_shape(make):
    with pytest.raises(RunError, match=r"a mask of shape \(60, 40\), images of \(40, 60\)"):
        open_run(make().documents, mask=np.zeros(SHAPE[::-1]))


PICKLED = """
import pickle, sys
run, reduced = pickle.load(sys.stdin.buffer)
at = reduced.run.events[2]
print(run[2].read().sum(), run[1][-1].sum(), at.data["motor"], at[0].sum(), run.mask.sum())
"""


@pytest.mark.parametrize("kind", ["datum", "stream"])
def test_another_process_reads_a_pickled_run(make, kind):
    made = make(kind)
    run = open_run(made.documents)
    reduced = reprocess(made.documents)[0]
    assert len(list(run[2])) == 3
    done = subprocess.run(
        [sys.executable, "-c", PICKLED],
        input=pickle.dumps((run, reduced)),
        capture_output=True,
        check=True,
        timeout=100,
    )
    images = made.images.astype(np.uint64)
    expected = [
        images[2].sum(),
        images[1, -1].sum(),
        1.0,
        images[2, 0].sum(),
        (made.mask != 0).sum(),
    ]
    assert [float(word) for word in done.stdout.split()] == expected
    alone = pickle.loads(pickle.dumps(run[0]))
    assert (alone.seq_num, alone.data) == (1, {"motor": 0})
    assert np.array_equal(alone.read(), made.images[0])


# ---- reduced


def user_mask():
    mask = np.zeros(SHAPE, bool)
    mask[:, 58:] = True
    return mask


@pytest.mark.parametrize("masks", ["detector", "both", "user", "none"])
def test_numbers_are_those_of_plain_numpy(make, masks):
    made = make()
    mine = user_mask() if masks in ("both", "user") else None
    recipe = Recipe(
        mask=mine, detector_mask=masks in ("detector", "both"), rois={"peak": BOX, "all": None}
    )
    (reduced,) = reprocess(made.documents, recipe)
    left_out = np.zeros(SHAPE, bool)
    if masks in ("detector", "both"):
        left_out |= made.mask != 0
    if mine is not None:
        left_out |= mine
    lost = (made.images == 65535) & ~left_out
    good = np.where(left_out | lost, 0, made.images).astype(np.uint64)
    assert np.array_equal(reduced.mask, left_out)
    assert np.array_equal(reduced.numbers["image_sum"], good.sum(axis=(2, 3)))
    assert np.array_equal(reduced.numbers["all_max"], good.max(axis=(2, 3)))
    means = good.sum(axis=(2, 3)) / np.count_nonzero(~left_out & ~lost, axis=(2, 3))
    assert np.allclose(reduced.numbers["image_mean"], means, rtol=1e-15)
    x0, y0, width, height = BOX
    box = good[:, :, y0 : y0 + height, x0 : x0 + width]
    assert np.array_equal(reduced.numbers["peak_sum"], box.sum(axis=(2, 3)))
    saturated = np.count_nonzero(lost, axis=(2, 3))
    assert saturated.any() == (masks in ("user", "none"))
    assert np.array_equal(reduced.numbers["saturated"], saturated)
    assert np.array_equal(reduced.pictures["total"], good.sum(axis=(0, 1)))
    assert reduced.pictures["total"].dtype == np.uint64
    assert np.array_equal(reduced.pictures["maximum"], good.max(axis=(0, 1)))


@pytest.mark.parametrize("flatfield", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_saturated_pixels_are_in_no_number(tmp_path, make, dtype, flatfield):
    made, largest = make(dtype=dtype), np.iinfo(dtype).max
    with h5py.File(tmp_path / "x_7_data_000001.h5", "a") as file:
        data = file["entry/data/data"]
        # Image 2 has one in the region and one without, and of image 3 the region has no others.
        data[1, 12, 33] = data[1, 30, 5] = largest
        data[2, 10:18, 30:42] = largest
    with h5py.File(tmp_path / "x_7_master.h5") as file:
        factors = file["entry/instrument/detector/detectorSpecific/flatfield"][()].astype("f8")
    stored = [h5py.File(tmp_path / f"x_7_data_{n:06d}.h5")["entry/data/data"] for n in (1, 2, 3)]
    everything = np.concatenate([data[()] for data in stored])
    images = np.stack([everything[first : first + count] for first, count in EVENTS])
    rois = {"peak": (31, 11, 9, 6)}
    recipe = Recipe(rois=rois, bins=20, flatfield=flatfield)
    with np.errstate(all="raise"):
        (reduced,) = reprocess(made.documents, recipe)
    left_out = made.mask != 0
    lost = (images == largest) & ~left_out
    assert lost.any()
    wanted = np.where(left_out | lost, 0, images * (factors if flatfield else 1.0))
    numbers = reduced.numbers
    assert np.array_equal(numbers["saturated"], lost.sum(axis=(2, 3)))
    assert np.allclose(numbers["image_sum"], wanted.sum(axis=(2, 3)), rtol=1e-12)
    assert np.allclose(numbers["image_max"], wanted.max(axis=(2, 3)), rtol=1e-12)
    inside = np.s_[:, :, 11:17, 31:40]
    counted = (~lost & ~left_out)[inside].sum(axis=(2, 3))
    assert not counted.all()
    sums = np.where(counted, wanted[inside].sum(axis=(2, 3)), np.nan)
    assert np.allclose(numbers["peak_sum"], sums, rtol=1e-12, equal_nan=True)
    with np.errstate(invalid="ignore"):
        assert np.allclose(numbers["peak_mean"], sums / counted, rtol=1e-12, equal_nan=True)
    never = lost.any(axis=(0, 1))
    total = np.where(never, 0, wanted.sum(axis=(0, 1)))
    assert np.allclose(reduced.pictures["total"], total, rtol=1e-12)
    most = np.where(never, 0, wanted.max(axis=(0, 1)))
    assert np.allclose(reduced.pictures["maximum"], most, rtol=1e-12)
    for (event, image), _ in np.ndenumerate(numbers["saturated"]):
        alone = Profile(reduced.run.geometry, left_out | lost[event, image], bins=20)
        (expected,) = alone.add(wanted[event, image].astype(np.float32)).values()
        found = numbers["profile"][event, image]
        assert np.allclose(found, expected, rtol=1e-5, equal_nan=True)


def test_a_region_without_a_good_pixel(make):
    (reduced,) = reprocess(make().documents, Recipe(rois={"gap": (0, 20, 60, 3)}))
    assert np.isnan(reduced.numbers["gap_sum"]).all()
    assert np.isnan(reduced.numbers["gap_mean"]).all()
    with pytest.raises(RegionError, match=r"'out', .* is not within the image of 60 x 40 pixels"):
        reprocess(make(number=8).documents, Recipe(rois={"out": (50, 0, 20, 5)}))
    with pytest.raises(RegionError, match="'image' is the whole image"):
        reprocess(make(number=9).documents, Recipe(rois={"image": BOX}))


def test_a_flat_field(make, tmp_path):
    made = make()
    with h5py.File(tmp_path / "x_7_master.h5") as file:
        factors = file["entry/instrument/detector/detectorSpecific/flatfield"][()].astype("f8")
    expected = np.where(made.mask != 0, 0, made.images * factors)
    for given in (True, factors):
        (reduced,) = reprocess(made.documents, Recipe(flatfield=given))
        assert np.allclose(reduced.numbers["image_sum"], expected.sum(axis=(2, 3)), rtol=1e-12)
        assert np.allclose(reduced.pictures["total"], expected.sum(axis=(0, 1)), rtol=1e-12)
    with pytest.raises(RunError, match=r"flat field of shape \(2,\), images of \(40, 60\)"):
        reprocess(made.documents, Recipe(flatfield=np.ones(2)))


def test_a_flat_field_of_the_master_that_is_none_of_the_images(make, tmp_path):
    made = make()
    with h5py.File(tmp_path / "x_7_master.h5", "a") as file:
        specific = file["entry/instrument/detector/detectorSpecific"]
        del specific["flatfield"]
        # Which numpy would multiply any image with.
        specific["flatfield"] = np.ones((1, SHAPE[1]), np.float32)
    said = f"run {made.uid}: a flat field of shape (1, 60), images of (40, 60)"
    with pytest.raises(RunError, match=re.escape(said)):
        reprocess(made.documents, Recipe(flatfield=True))


def test_a_flat_field_is_not_applied_twice(make):
    with pytest.raises(RunError, match="says flatfield_correction_applied"):
        reprocess(make(applied=True).documents, Recipe(flatfield=True))


def test_a_flat_field_is_not_applied_twice_where_the_master_alone_says_it(make, tmp_path):
    made = make()
    with h5py.File(tmp_path / "x_7_master.h5", "a") as file:
        file["entry/instrument/detector/flatfield_correction_applied"] = np.int32(1)
    with pytest.raises(RunError, match="says flatfield_correction_applied"):
        reprocess(made.documents, Recipe(flatfield=True))


def test_a_mask_that_is_none_of_the_images(make, tmp_path):
    made = make()
    with h5py.File(tmp_path / "x_7_master.h5", "a") as file:
        del file["entry/instrument/detector/detectorSpecific/pixel_mask"]
        file["entry/instrument/detector/detectorSpecific/pixel_mask"] = np.zeros((1, 60), "<u4")
    with pytest.raises(RunError, match=r"mask is of shape \(1, 60\), images are of \(40, 60\)"):
        reprocess(made.documents)
    with pytest.raises(FileError, match=r"a mask of shape \(1, 60\), images of \(40, 60\)"):
        open_series(tmp_path / "x_7_master.h5").radial_profile(10)
    with h5py.File(tmp_path / "x_7_master.h5", "a") as file:
        specific = file["entry/instrument/detector/detectorSpecific"]
        del specific["pixel_mask"]
        specific.create_dataset("pixel_mask", (2**21, 2**21), "<u4", chunks=(64, 64))
    with pytest.raises(
        FileError, match=r"pixel_mask of shape \(2097152, 2097152\) is none of a detector"
    ):
        reprocess(made.documents)
    with pytest.raises(FileError, match="is none of a detector"):
        open_series(tmp_path / "x_7_master.h5").radial_profile(10)


@pytest.mark.parametrize("lost", ["filled", "datum", "resource"])
def test_an_event_whose_images_are_not_named(make, lost):
    documents = []
    for name, doc in make().documents:
        if name == "event" and lost == "filled":
            doc = {**doc, "data": {**doc["data"], "image": np.ones((3, *SHAPE))}}
        if name != lost:
            documents.append((name, doc))
    uid = documents[0][1]["uid"]
    with pytest.raises(RunError, match=rf"run {uid}: event 1 of stream 'primary' names no images"):
        open_run(documents)


def with_another_detector(documents, named):
    """Return documents in which each event names images of another detector, too."""
    added = []
    for name, doc in documents:
        if name == "descriptor":
            other = {**doc["data_keys"]["image"], "external": "FILESTORE:"}
            doc = {**doc, "data_keys": {"camera": other, **doc["data_keys"]}}
        elif name == "event":
            doc = {**doc, "data": {"camera": named, **doc["data"]}}
        added.append((name, doc))
    return added


@pytest.mark.parametrize("kind", ["datum", "stream"])
@pytest.mark.parametrize("named", [None, "lost/0", [[1.0]]], ids=["none", "lost", "filled"])
def test_another_detector_s_images_that_are_not_named(make, kind, named):
    made = make(kind)
    documents = with_another_detector(made.documents, named)
    for opening in ({}, {"key": "image"}):
        run = open_run(documents, **opening)
        assert run.key == "image"
        assert np.array_equal([event.read() for event in run], made.images)
        assert [event.data for event in run] == [{"motor": at} for at in (0, 0.5, 1)]
    with pytest.raises(
        RunError, match=r"names no images in 'camera' that .*; there are others for"
    ):
        open_run(documents, key="camera")
    listed = repr(FileList(documents))
    assert "x_7_data_000003.h5" in listed
    assert "\n  not known: event 1 of stream 'primary' names no images in 'camera'" in listed


# As event-model has had them: without a descriptor, without a key, and with one but no uri.
OLDER = {
    "first": ({}, {"event_offset": 0, "event_count": 3, "block_idx": 0}),
    "keys": ({}, {"data_keys": ["camera"], "descriptor": "of the stream"}),
    "root": ({"data_key": "camera"}, {"descriptor": "of the stream"}),
    "lost": (None, {"data_keys": ["camera"], "descriptor": "of the stream"}),
}


@pytest.mark.parametrize("kind", OLDER)
def test_another_detector_s_files_in_documents_of_an_older_kind(make, kind):
    made = make()
    of_resource, of_datum = OLDER[kind]
    documents = []
    for name, doc in made.documents:
        documents.append((name, doc))
        if name == "descriptor":
            other = {**doc["data_keys"]["image"], "external": "STREAM:"}
            documents[-1] = (name, {**doc, "data_keys": {"camera": other, **doc["data_keys"]}})
            resource = {"uid": "r1", "spec": "AD_TIFF", "root": "/", "resource_path": "a"}
            resource |= {"resource_kwargs": {}, **(of_resource or {})}
            datum = {"uid": "r1/0", "stream_resource": "r1", "datum_kwargs": {}, **of_datum}
            if "descriptor" in datum:
                indices = {"indices": {"start": 0, "stop": 3}, "seq_nums": {"start": 1, "stop": 4}}
                datum |= {"descriptor": doc["uid"], **indices}
            if of_resource is not None:
                documents.append(("stream_resource", resource))
            documents.append(("stream_datum", datum))
    run = open_run(documents)
    assert run.key == "image"
    assert np.array_equal([event.read() for event in run], made.images)
    if kind != "first":
        with pytest.raises(RunError, match="files of 'camera' of stream 'primary' are not known"):
            open_run(documents, key="camera")


def test_images_that_are_not_named_are_not_those_of_another_stream(make):
    """Which stand in for those of the stream "primary" only if somebody says so."""
    made = make("stream")
    documents = []
    for name, doc in made.documents:
        documents.append((name, {**doc, "name": "dark"} if name == "descriptor" else doc))
    run = event_model.compose_run()
    key = {"source": "-", "dtype": "array", "shape": [3, *SHAPE], "external": "FILESTORE:"}
    primary = run.compose_descriptor(name="primary", data_keys={"image": key})
    event = primary.compose_event(
        data={"image": "lost/0"}, timestamps={"image": 0.0}, filled={"image": False}
    )
    documents[-1:-1] = [("descriptor", primary.descriptor_doc), ("event", event)]
    with pytest.raises(RunError, match=r"event 1 of stream 'primary' names no images in 'image'"):
        open_run(documents)
    assert open_run(documents, stream="dark").shape == (3, 3, *SHAPE)


def test_files_that_are_none_of_this_machine(make):
    made = make("stream")
    (resource,) = (doc for name, doc in made.documents if name == "stream_resource")
    resource["uri"] = "s3://bucket/x_7_view.h5"
    with pytest.raises(RunError, match=f"run {made.uid}: s3://bucket/.*: only files can be read"):
        open_run(made.documents)


def test_the_maximum_of_images_of_several_types():
    projections = Projections()
    for image in (np.full((2, 2), 5, "<u2"), np.full((2, 2), 70_000, "<u4")):
        projections.add(image)
    projections.add(np.full((2, 2), 7, "<u2"))
    assert (projections.result()["maximum"] == 70_000).all()
    assert (projections.result()["total"] == 70_012).all()


@pytest.mark.parametrize("by", ["files", "handlers"])
def test_events_are_found_from_several_threads(tmp_path, write_data, write_master, by, fast_turns):
    """Each in a file of its own, of which none was opened before."""
    files = []
    for number in range(12):
        name = f"t_{number + 1}"
        file = write_data(tmp_path / f"{name}_data_000001.h5", np.full((1, 4, 6), number, "<u2"))
        write_master(tmp_path / f"{name}_master.h5", [file.name], nimages=1)
        files.append(tmp_path / f"{name}_master.h5")
    kwargs = {"images_per_file": 1, "frame_per_point": 1}

    def find_all():
        if by == "files":
            files_of_run = _Concatenated(files)
            return [functools.partial(files_of_run.find, number, 1) for number in range(12)]
        handlers = _Handlers()
        places = [
            Place("AD_EIGER_SLICE", tmp_path / "t", kwargs, {"seq_id": number + 1, "frame_num": 0})
            for number in range(12)
        ]
        return [functools.partial(handlers.find, place) for place in places]

    for _ in range(5):
        with ThreadPoolExecutor(12) as pool:
            found = list(pool.map(lambda find: find(), find_all()))
        values = [int(one.series[one.numbers[0]][0, 0]) for one in found]
        assert values == list(range(12))


@pytest.fixture
def fast_turns():
    """Let threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_a_profile_is_that_of_a_histogram(make):
    made = make()
    (reduced,) = reprocess(made.documents, Recipe(bins=25, mask=user_mask()))
    y, x = np.indices(SHAPE) + 0.5
    radius = np.hypot((y - 18.5) * 7.5e-5, (x - 31.25) * 7.5e-5)
    q = 4 * np.pi / 1.2 * np.sin(np.arctan2(radius, 0.02) / 2)
    good = ~((made.mask != 0) | user_mask())
    # The range is that of all pixels, whatever is left out.
    edges = np.linspace(q.min(), q.max(), 26)
    assert np.allclose(reduced.axis, (edges[:-1] + edges[1:]) / 2, rtol=1e-5)
    count, _ = np.histogram(q[good], edges)
    assert count.min() > 0
    for event in range(3):
        for number in range(3):
            weights = made.images[event, number][good].astype(np.float64)
            total, _ = np.histogram(q[good], edges, weights=weights)
            found = reduced.numbers["profile"][event, number]
            assert np.allclose(found, total / count, rtol=1e-5)


def test_a_profile_s_empty_bins_are_nan(make):
    made = make()
    ring = np.ones(SHAPE, bool)
    ring[5] = False
    (reduced,) = reprocess(made.documents, Recipe(bins=25, mask=ring))
    profile = reduced.numbers["profile"]
    assert np.isnan(profile).any()
    assert not np.isnan(profile).all()


def test_a_geometry_that_nobody_told(make, tmp_path):
    made = make()
    with h5py.File(tmp_path / "x_7_master.h5", "a") as file:
        file["entry/instrument/detector/detector_distance"][()] = 0
    with pytest.raises(FileError, match=r"x_7_master\.h5: it does not say distance; give what"):
        reprocess(made.documents, Recipe(bins=25))
    own = ScatteringGeometry(31.25, 18.5, 0.02, 1.2, 7.5e-5, 7.5e-5)
    (reduced,) = reprocess(made.documents, Recipe(bins=25, geometry=own))
    assert reduced.parameters["profile"]["distance"] == 0.02
    # Of a part that is given, the rest is the master file's.
    (partly,) = reprocess(made.documents, Recipe(bins=25, geometry={"distance": 0.02}))
    assert partly.parameters["profile"]["distance"] == 0.02
    with h5py.File(tmp_path / "x_7_master.h5") as file:
        told = file["entry/instrument/detector/beam_center_x"][()]
    assert partly.parameters["profile"]["beam_center_x"] == told
    with pytest.raises(EigerError, match="length: no part of a geometry; those are beam_center_x"):
        reprocess(made.documents, Recipe(bins=25, geometry={"length": 0.02}))


def test_a_profile_of_a_master_that_says_the_photon_energy_alone(make, tmp_path):
    made = make()
    (expected,) = reprocess(made.documents, Recipe(bins=25))
    with h5py.File(tmp_path / "x_7_master.h5", "a") as file:
        del file["entry/instrument/beam/incident_wavelength"]
        specific = file["entry/instrument/detector/detectorSpecific"]
        specific["photon_energy"] = 12398.41984332 / 1.2
    (reduced,) = reprocess(made.documents, Recipe(bins=25))
    assert reduced.parameters["profile"]["wavelength"] == pytest.approx(1.2, rel=1e-12)
    assert np.allclose(reduced.axis, expected.axis, rtol=1e-6)


def test_profiles_around_a_beam_in_the_corner_are_told(make, tmp_path, caplog):
    made = make()

    def said():
        return [each.getMessage() for each in caplog.records if "ophyd_eiger" in each.name]

    reprocess(made.documents, Recipe(bins=25))
    assert said() == []
    with h5py.File(tmp_path / "x_7_master.h5", "a") as file:
        for axis in "xy":
            file[f"entry/instrument/detector/beam_center_{axis}"][()] = 0
    reprocess(made.documents, Recipe(bins=25))
    (remark,) = said()
    assert remark.startswith(f"{tmp_path / 'x_7_master.h5'}: the beam centre is (0, 0)")


def test_a_unit_that_there_is_not():
    with pytest.raises(EigerError, match=r"unit 'furlong' is none of q_A\^-1, 2th_deg, r_mm"):
        Profile(ScatteringGeometry(1, 1, 1, 1, 1, 1), np.zeros(SHAPE, bool), unit="furlong")


def test_a_prompt_shows_what_there_is_and_no_arrays(make):
    made = make()
    (reduced,) = reprocess(made.documents, Recipe(rois={"peak": BOX}))
    assert repr(reduced) == (
        f"<Reduced run {made.uid[:8]}: 3 events of 3 images, 40 x 60; numbers saturated, "
        "image_sum, image_max, image_mean, peak_sum, peak_max, peak_mean; "
        "pictures total, maximum>"
    )


def test_an_own_reduction_goes_along(make):
    class Saturated:
        def add(self, image):
            return {"above": np.count_nonzero(image > 3990)}

        def result(self):
            return {"ones": np.ones(SHAPE)}

    made = make()
    calls = []
    reduced = reduce_run(
        open_run(made.documents), reductions=[Saturated()], progress=lambda: calls.append(1)
    )
    expected = ((made.images > 3990) & (made.mask == 0)).sum(axis=(2, 3))
    assert np.array_equal(reduced.numbers["above"], expected)
    assert reduced.pictures["ones"].sum() == SHAPE[0] * SHAPE[1]
    assert len(calls) == 9


def test_a_missing_file_in_the_middle(make, tmp_path):
    made = make()
    (tmp_path / "x_7_data_000002.h5").unlink()
    with pytest.raises(MissingFileError, match=r"x_7_data_000002\.h5 is missing"):
        reprocess(made.documents)


@pytest.mark.parametrize("file", [1, 2])
def test_of_a_search_the_run_is_named_whose_file_is_gone(make, catalog, tmp_path, file):
    made = make()
    run = insert(catalog, made)
    (tmp_path / f"x_7_data_00000{file}.h5").unlink()
    with pytest.raises(MissingFileError, match=f"run {made.uid}: .*x_7_data_00000{file}.h5"):
        reprocess([run])


def test_events_of_differing_images(make):
    made = make()
    for name, document in made.documents:
        if name == "datum" and document["datum_kwargs"]["first"] == 3:
            document["datum_kwargs"]["images"] = 2
    with pytest.raises(RunError, match=r"event 2 has images of \(2, 40, 60\), the first of \(3,"):
        reprocess(made.documents)


def test_as_xarray(make):
    made = make()
    (reduced,) = reprocess(made.documents, Recipe(bins=25, rois={"peak": BOX}))
    dataset = reduced.to_xarray()
    assert dataset["peak_sum"].dims == ("event", "image")
    assert dataset["profile"].dims == ("event", "image", "bin")
    assert dataset["total"].dims == ("y", "x")
    assert np.array_equal(dataset["motor"], [0, 0.5, 1])
    assert np.array_equal(dataset["image_sum"], reduced.numbers["image_sum"])
    assert dataset.attrs == {"parent_uid": made.uid, "bin_unit": "q_A^-1"}


@pytest.mark.parametrize("name", ["mask", "total", "image_sum", "time", "event", "bin"])
def test_as_xarray_where_a_motor_has_a_name_that_is_taken(make, name):
    documents = make().documents
    for kind, doc in documents:
        for part in {"descriptor": ["data_keys"], "event": ["data", "timestamps"]}.get(kind, []):
            doc[part][name] = doc[part].pop("motor")
    (reduced,) = reprocess(documents, Recipe(bins=25))
    dataset = reduced.to_xarray()
    assert np.array_equal(dataset[f"event_{name}"], [0, 0.5, 1])
    assert np.array_equal(dataset["event"], [1, 2, 3])
    assert np.array_equal(dataset["time"], [100, 101, 102])
    assert np.array_equal(dataset["bin"], reduced.axis)
    assert np.array_equal(dataset["mask"], reduced.mask)
    assert np.array_equal(dataset["total"], reduced.pictures["total"])
    assert np.array_equal(dataset["image_sum"], reduced.numbers["image_sum"])


def test_reprocessing_needs_no_date(make, tmp_path):
    made = make()
    recipe = Recipe(bins=25, flatfield=True)
    (expected,) = reprocess(made.documents, recipe)
    with h5py.File(tmp_path / "x_7_master.h5", "a") as file:
        file["entry/start_time"] = "unknown"
    (reduced,) = reprocess(made.documents, recipe)
    assert np.array_equal(reduced.numbers["profile"], expected.numbers["profile"], equal_nan=True)


# ---- of several master files


def test_what_any_master_masks_is_left_out_of_all_events(of_two_masters):
    run = open_run(of_two_masters.documents)
    reduced = reduce_run(run)
    assert np.array_equal(reduced.mask, of_two_masters.left_out)
    assert np.array_equal(run.detector_mask, of_two_masters.masks[0] | of_two_masters.masks[1])
    good = np.where(of_two_masters.left_out, 0, of_two_masters.images).astype(np.uint64)
    assert np.array_equal(reduced.numbers["image_sum"], good.sum(axis=(2, 3)))
    means = good.sum(axis=(2, 3)) / np.count_nonzero(~of_two_masters.left_out)
    assert np.allclose(reduced.numbers["image_mean"], means, rtol=1e-15)
    assert not reduced.numbers["saturated"].any()
    assert np.array_equal(reduced.pictures["total"], good.sum(axis=(0, 1)))
    assert reduced.parameters["pixels_left_out"] == np.count_nonzero(of_two_masters.left_out)
    for event, mask in zip(run, of_two_masters.masks, strict=True):
        assert np.array_equal(run.mask_of(event), mask != 0)


def test_each_event_has_the_flat_field_of_its_master(of_two_masters, catalog, tmp_path):
    recipe = Recipe(flatfield=True)
    (reduced,) = reprocess(
        of_two_masters.documents, recipe, into=catalog, directory=tmp_path / "new"
    )
    factors = of_two_masters.factors.astype(np.float64)
    good = np.where(of_two_masters.left_out, 0, of_two_masters.images * factors[:, None])
    assert np.allclose(reduced.numbers["image_sum"], good.sum(axis=(2, 3)), rtol=1e-12)
    assert np.allclose(reduced.numbers["image_max"], good.max(axis=(2, 3)), rtol=1e-12)
    assert np.allclose(reduced.pictures["total"], good.sum(axis=(0, 1)), rtol=1e-12)
    read = catalog[reduced.parameters["new_uid"]].primary.read()
    assert np.array_equal(read["eiger_image_image_sum"], reduced.numbers["image_sum"].ravel())
    start = catalog[reduced.parameters["new_uid"]].metadata["start"]
    sums = [hashlib.sha256(each.tobytes()).hexdigest() for each in factors]
    assert list(start["reprocessing"]["flatfield_sha256"]) == sums
    of_two_masters.put("entry/instrument/detector/detectorSpecific/flatfield", factors[0])
    (alike,) = reprocess(of_two_masters.documents, recipe)
    assert alike.parameters["flatfield_sha256"] == sums[0]


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("detectorSpecific/flatfield", np.ones((1, 60)), "of shape (1, 60), images of (40, 60) of"),
        ("detectorSpecific/flatfield", np.full(SHAPE, np.nan, "<f4"), "a flat field of event 2 wi"),
        ("flatfield_correction_applied", 1, "event 2: the detector says flatfield_correction_appl"),
    ],
)
def test_a_flat_field_of_a_later_master_that_cannot_be_used(of_two_masters, place, value, said):
    of_two_masters.put(f"entry/instrument/detector/{place}", value)
    with pytest.raises(RunError, match=f"run {of_two_masters.uid}.*{re.escape(said)}"):
        reprocess(of_two_masters.documents, Recipe(flatfield=True))


def test_a_mask_of_a_later_master_that_is_none_of_the_images(of_two_masters):
    place = "entry/instrument/detector/detectorSpecific/pixel_mask"
    of_two_masters.put(place, np.zeros((1, 60), "<u4"))
    said = f"run {of_two_masters.uid}, event 2: the detector's mask is of shape"
    with pytest.raises(RunError, match=said):
        reprocess(of_two_masters.documents)
    (reduced,) = reprocess(of_two_masters.documents, Recipe(detector_mask=False))
    assert not reduced.mask.any()


def test_a_later_master_of_another_detector(of_two_masters, write_data, tmp_path):
    write_data(tmp_path / "s_2_data_000001.h5", np.ones((2, 30, 60), np.uint16))
    place = "entry/instrument/detector/detectorSpecific/pixel_mask"
    of_two_masters.put(place, np.zeros((30, 60), "<u4"))
    with pytest.raises(RunError, match=r"event 2 has images of \(2, 30, 60\), the first of \(2, 4"):
        reprocess(of_two_masters.documents)
    with pytest.raises(RunError, match=r"event 2: the detector's mask is of shape \(30, 60\)"):
        _ = open_run(of_two_masters.documents).mask


def test_a_profile_of_events_at_several_energies(of_two_masters):
    of_two_masters.put("entry/instrument/beam/incident_wavelength", 2.4)
    said = f"run {of_two_masters.uid}: wavelength is 1.2 in event 1 and 2.4 in event 2"
    with pytest.raises(RunError, match=said) as refused:
        reprocess(of_two_masters.documents, Recipe(bins=20))
    assert "2th_deg needs no wavelength" in str(refused.value)
    with pytest.raises(RunError, match=said):
        _ = open_run(of_two_masters.documents).geometry
    # What is advised is of use.
    (told,) = reprocess(of_two_masters.documents, Recipe(bins=20, geometry={"wavelength": 1.2}))
    assert told.parameters["profile"]["wavelength"] == 1.2
    (reduced,) = reprocess(of_two_masters.documents, Recipe(bins=20, unit="2th_deg"))
    assert reduced.parameters["profile"]["wavelength"] is None
    assert reduced.parameters["profile"]["distance"] == 0.02
    y, x = np.indices(SHAPE) + 0.5
    radius = np.hypot((y - 18.5) * 7.5e-5, (x - 31.25) * 7.5e-5)
    angle = np.degrees(np.arctan2(radius, 0.02))
    edges = np.linspace(angle.min(), angle.max(), 21)
    assert np.allclose(reduced.axis, (edges[:-1] + edges[1:]) / 2, rtol=1e-5)
    good = ~of_two_masters.left_out
    weights = of_two_masters.images[1, 1][good].astype(np.float64)
    expected = np.histogram(angle[good], edges, weights=weights)[0]
    expected /= np.histogram(angle[good], edges)[0]
    assert np.allclose(reduced.numbers["profile"][1, 1], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("part", "place", "value", "units"),
    [
        ("distance", "detector_distance", 0.04, ("q_A^-1", "2th_deg")),
        ("beam_center_x", "beam_center_x", 30.5, ("q_A^-1", "2th_deg", "r_mm")),
    ],
)
def test_a_profile_of_a_detector_that_moved(of_two_masters, part, place, value, units):
    of_two_masters.put(f"entry/instrument/detector/{place}", value)
    for unit in ("q_A^-1", "2th_deg", "r_mm"):
        recipe = Recipe(bins=20, unit=unit)
        if unit in units:
            with pytest.raises(RunError, match=f"{part} is .* in event 1 and {value} in event 2"):
                reprocess(of_two_masters.documents, recipe)
        else:
            (reduced,) = reprocess(of_two_masters.documents, recipe)
            assert reduced.parameters["profile"][part] is None
    with pytest.raises(RunError, match=f"{part} is "):
        reprocess(of_two_masters.documents, Recipe(bins=20, unit="r_mm", solid_angle=True))


def test_a_search_goes_on_after_a_run_that_cannot_be_worked_on(of_two_masters, make):
    """What its masters tell is known before any image is read, and nothing is half done."""
    made = make()
    of_two_masters.put("entry/instrument/beam/incident_wavelength", 2.4)
    of_two_masters.put("entry/instrument/detector/flatfield_correction_applied", 1)
    search = [made.documents, of_two_masters.documents]
    for recipe, said in (
        (Recipe(bins=20), "wavelength is 1.2 in event 1 and 2.4 in event 2"),
        (Recipe(flatfield=True), "event 2: the detector says flatfield_correction_applied"),
    ):
        reasons = []
        (reduced,) = reprocess(search, recipe, passed_over=reasons.append)
        assert reduced.run.uid == made.uid
        assert len(reasons) == 1
        assert reasons[0].startswith(f"run {of_two_masters.uid}")
        assert said in reasons[0]
    of_two_masters.master(2).unlink()
    done, new = [], []
    with pytest.raises(MissingFileError, match=r"s_2_master\.h5"):
        reprocess(
            search, into=lambda *document: new.append(document), progress=lambda: done.append(1)
        )
    assert (done, new) == ([], [])


@pytest.mark.parametrize("folder", ["a" * 300, "closed/x"])
def test_a_path_that_cannot_be_looked_at(tmp_path, monkeypatch, folder):
    """A name too long, or a folder that one may not look into."""
    path = tmp_path / folder / "x_7_master.h5"
    if folder == "closed/x":
        path.parent.mkdir(parents=True)
        of_any = os.stat

        def refused(at, *args, **kwargs):
            if "closed/x" in os.fspath(at):
                raise PermissionError(errno.EACCES, "Permission denied", os.fspath(at))
            return of_any(at, *args, **kwargs)

        # The user who runs tests may be one who may look into all folders.
        monkeypatch.setattr(os, "stat", refused)
    with pytest.raises(FileError, match=r"x_7_master\.h5: cannot be looked at"):
        open_series(path)


# ---- as a new run


def test_the_documents_of_a_new_run(make, tmp_path):
    made = make()
    recipe = Recipe(mask=user_mask(), rois={"peak": BOX}, bins=25)
    (reduced,) = reprocess(made.documents, recipe)
    new = documents_of(reduced, tmp_path / "new")
    names = [name for name, _ in new]
    assert names[:2] == ["start", "descriptor"]
    assert names.count("event") == 10
    start = new[0][1]
    assert start["parent_uid"] == made.uid
    assert start["parent"] == {"sample": "lysozyme"}
    assert start["reprocessing"]["rois"] == {"peak": list(BOX)}
    assert start["reprocessing"]["profile"]["bins"] == 25
    assert start["reprocessing"]["pixels_left_out"] == np.count_nonzero(reduced.mask)
    assert {"ophyd-eiger", "numpy", "h5py", "pyFAI"} <= set(start["versions"])
    # Nothing of it is lost on the way through JSON, as databases have it.
    for name, document in new:
        event_model.schema_validators[event_model.DocumentNames[name]].validate(document)
        event_model.sanitize_doc(document)
    assert [path.name for path in (tmp_path / "new").glob(".*")] == []


def test_a_new_run_reads_back_through_databroker(make, catalog, tmp_path):
    made = make()
    insert(catalog, made)
    recipe = Recipe(rois={"peak": BOX}, bins=25)
    (reduced,) = reprocess(catalog[made.uid], recipe, into=catalog, directory=tmp_path / "new")
    run = catalog[reduced.parameters["new_uid"]]
    assert catalog[run.metadata["start"]["parent_uid"]].metadata["start"]["uid"] == made.uid
    read = run.primary.read()
    for name, values in reduced.numbers.items():
        of_images = values.reshape(9, *values.shape[2:])
        assert np.array_equal(read[f"det_{name}"], of_images, equal_nan=True), name
    assert np.array_equal(read["motor"], [0, 0, 0, 0.5, 0.5, 0.5, 1, 1, 1])
    assert np.array_equal(read["parent_seq_num"], [1, 1, 1, 2, 2, 2, 3, 3, 3])
    assert np.array_equal(read["image_number"], [1, 2, 3] * 3)
    pictures = run.pictures.read()
    for name, picture in reduced.pictures.items():
        assert np.array_equal(pictures[f"det_{name}"][0, 0], picture)
    header = catalog.v1[run.metadata["start"]["uid"]]
    sums = reduced.numbers["peak_sum"].ravel()
    assert np.array_equal(list(header.data("det_peak_sum")), sums)
    (file,) = (tmp_path / "new").glob("det_total_*_pictures.h5")
    with h5py.File(file) as opened_file:
        assert np.array_equal(opened_file["entry/mask"][()] != 0, reduced.mask)


def test_a_recipe_of_numpy_s_numbers_is_saved(make, catalog):
    made = make()
    recipe = Recipe(
        detector_mask=np.bool_(True),
        rois={"peak": np.array(BOX)},
        bins=np.int64(5),
        solid_angle=np.bool_(False),
        geometry={"distance": np.float32(0.25)},
    )
    (reduced,) = reprocess(made.documents, recipe, into=catalog)
    assert json.loads(json.dumps(reduced.parameters)) == reduced.parameters
    start = catalog[reduced.parameters["new_uid"]].metadata["start"]
    profile = start["reprocessing"]["profile"]
    assert (profile["bins"], profile["distance"], profile["solid_angle"]) == (5, 0.25, False)
    assert start["reprocessing"]["detector_mask"] is True


def test_a_search_passes_over_what_has_no_images(make, catalog):
    parents = [make(number=number) for number in (21, 22)]
    for parent in parents:
        insert(catalog, parent)
    (once,) = reprocess(catalog[parents[0].uid])
    child = write_run(once, catalog)
    reasons = []
    runs = [catalog[uid] for uid in (parents[1].uid, child, parents[0].uid)]
    found = opened(runs, passed_over=reasons.append)
    assert [run.uid for run in found] == [parent.uid for parent in parents]
    assert reasons == [f"run {child}: it has no images of an EIGER"]
    search = catalog.search(Eq("start.token", parents[1].documents[0][1]["token"]))
    (reduced,) = reprocess(search)
    assert reduced.run.uid == parents[1].uid
    good = np.where(parents[1].mask != 0, 0, parents[1].images)
    assert np.array_equal(reduced.numbers["image_sum"], good.sum(axis=(2, 3)))


def of_two_detectors(documents):
    """Return documents in which another detector has the very same images."""
    added = []
    for name, doc in documents:
        added.append((name, doc))
        if name == "descriptor":
            keys = {"second": doc["data_keys"]["image"], **doc["data_keys"]}
            added[-1] = (name, {**doc, "data_keys": keys})
        elif name == "stream_resource":
            added.append((name, {**doc, "uid": f"{doc['uid']}-2", "data_key": "second"}))
        elif name == "stream_datum":
            second = {"uid": f"{doc['uid']}-2", "stream_resource": f"{doc['stream_resource']}-2"}
            added.append((name, {**doc, **second}))
    return added


def test_a_search_goes_on_after_a_run_of_two_detectors(make, caplog):
    twice, once = make("stream", number=31), make("stream", number=32)
    both = of_two_detectors(twice.documents)
    search = [both, once.documents]
    reasons = []
    (reduced,) = reprocess(search, passed_over=reasons.append)
    assert reduced.run.uid == once.uid
    assert len(reasons) == 1
    assert reasons[0].startswith(f"run {twice.uid}: images of ")
    assert reasons[0].endswith("; choose by key= and stream=")
    assert not caplog.messages
    assert [run.uid for run in opened(search)] == [once.uid]
    assert caplog.messages == [f"passed over: {reasons[0]}"]
    assert {run.uid for run in opened(search, key="image")} == {twice.uid, once.uid}
    with pytest.raises(RunError, match="choose by key="):
        reprocess(both)


@pytest.mark.long
def test_the_command_says_which_runs_it_passes_over(make, tiled):
    twice, once = make("stream", number=33), make("stream", number=34)
    sample = f"of {once.uid}"
    for documents in (of_two_detectors(twice.documents), once.documents):
        start = {**documents[0][1], "sample": sample}
        in_catalog(tiled, [("start", start), *documents[1:]])
    address = f"{tiled.context.api_uri}?api_key={tiled.context.api_key}"

    def said(*asked):
        command = Path(sys.executable).with_name("ophyd-eiger")
        return subprocess.run(
            [command, "reprocess", address, *asked, "--json"],
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )

    done = said("--where", f"sample={sample}")
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    assert done.stderr.startswith(f"passed over: run {twice.uid}: images of ")
    assert [run["uid"] for run in json.loads(done.stdout)["runs"]] == [once.uid]
    alone = said(twice.uid)
    assert alone.returncode == 1
    assert json.loads(alone.stdout)["error"]["kind"] == "RunError"


@pytest.mark.long
def test_the_command_sums_what_images_know_of_a_region(make, tiled, tmp_path):
    """One image whose region is saturated all over takes nothing from the others."""
    made = make("stream", number=35)
    with h5py.File(tmp_path / "x_35_data_000001.h5", "a") as file:
        file["entry/data/data"][2, 10:18, 30:42] = 65535
    in_catalog(tiled, made.documents)
    address = f"{tiled.context.api_uri}?api_key={tiled.context.api_key}"
    command = Path(sys.executable).with_name("ophyd-eiger")
    done = subprocess.run(
        [command, "reprocess", address, made.uid, "--roi", "peak=31,11,9,6", "--json"],
        capture_output=True,
        check=True,
        timeout=100,
    )
    images = np.where(made.mask != 0, 0, made.images).astype(np.uint64)
    images[0, 2, 10:18, 30:42] = 0
    (run,) = json.loads(done.stdout)["runs"]
    assert run["sum"] == images.sum()
    assert run["regions"] == {"peak": images[:, :, 11:17, 31:40].sum()}


@pytest.mark.long
def test_the_command_tells_a_missing_file_from_an_unknown_geometry(make, tiled, tmp_path):
    made = make("stream", number=36)
    in_catalog(tiled, made.documents)
    (tmp_path / "x_36_data_000002.h5").unlink()
    address = f"{tiled.context.api_uri}?api_key={tiled.context.api_key}"
    command = Path(sys.executable).with_name("ophyd-eiger")
    asked = ["--profile", "20", "--npz", "--directory", tmp_path / "new", "--json"]
    done = subprocess.run(
        [command, "reprocess", address, made.uid, *asked],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert (done.returncode, (tmp_path / "new").exists()) == (1, False)
    said = json.loads(done.stdout)["error"]["message"]
    assert said.endswith("x_36_data_000002.h5 is missing")


@pytest.mark.parametrize("factor", [np.nan, np.inf])
def test_a_flat_field_with_a_factor_that_is_no_number(make, factor):
    made = make()
    factors = np.ones(SHAPE)
    factors[21, 5] = np.nan
    (reduced,) = reprocess(made.documents, Recipe(flatfield=factors))
    good = np.where(made.mask != 0, 0, made.images)
    assert np.array_equal(reduced.numbers["image_sum"], good.sum(axis=(2, 3)))
    factors[7, 9] = factors[30, 3] = factor
    done = []
    said = rf"with {factor} at pixel y=7, x=9, and no finite number at 2 in all"
    with pytest.raises(RunError, match=said):
        reprocess(made.documents, Recipe(flatfield=factors), progress=lambda: done.append(1))
    assert not done
    mask = ~np.isfinite(factors)
    (reduced,) = reprocess(made.documents, Recipe(flatfield=factors, mask=mask))
    good = np.where(mask, 0, good)
    assert np.array_equal(reduced.numbers["image_sum"], good.sum(axis=(2, 3)))


@pytest.mark.long
def test_the_command_refuses_a_flat_field_with_a_factor_that_is_no_number(make, tiled, tmp_path):
    made = make("stream", number=41)
    in_catalog(tiled, made.documents)
    factors = np.ones(SHAPE)
    factors[7, 9] = np.nan
    np.save(tmp_path / "flat.npy", factors)
    address = f"{tiled.context.api_uri}?api_key={tiled.context.api_key}"
    command = Path(sys.executable).with_name("ophyd-eiger")
    done = subprocess.run(
        [command, "reprocess", address, made.uid, "--flatfield", tmp_path / "flat.npy"],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: run {made.uid}: a flat field with nan at pixel y=7, x=9")


def test_of_a_catalog_of_tiled_the_runs_of_an_eiger_are_reprocessed_again(make, tiled, tmp_path):
    parent = make("stream")
    in_catalog(tiled, parent.documents)
    (once,) = reprocess(tiled[parent.uid], into=tiled, directory=tmp_path / "new")
    child = once.parameters["new_uid"]
    assert {"det_total", "det_maximum"} <= set(tiled[child]["pictures"])
    reasons = []
    (again,) = opened([tiled[child], tiled[parent.uid]], passed_over=reasons.append)
    assert np.array_equal([event.read() for event in again], parent.images)
    assert reasons == [f"run {child}: it has no images of an EIGER"]


# A camera of areaDetector; the angles of a master; files that no catalog can read.
@pytest.mark.parametrize(
    ("name", "dataset", "mimetype"),
    [
        ("cam_000001.h5", "/entry/data/data", "application/x-hdf5"),
        ("x_7_master.h5", "/entry/sample/goniometer/omega", "application/x-hdf5"),
        ("cam_data_000001.h5", "/exchange/data", "application/x-hdf5"),
        ("cam.bin", "", "application/octet-stream"),
    ],
)
def test_what_is_in_files_of_others_is_no_image_of_an_eiger(
    make, tiled, tmp_path, name, dataset, mimetype
):
    made = make("stream")
    if dataset:
        with h5py.File(tmp_path / name, "a") as file:
            file[dataset] = np.zeros((9, *SHAPE), "<u2")
    else:
        (tmp_path / name).write_bytes(b"0123")
    for kind, document in made.documents:
        if kind == "stream_resource":
            document["uri"] = f"file://localhost{tmp_path / name}"
            document["mimetype"] = mimetype
            document["parameters"] = {"dataset": dataset, "chunk_shape": [1]}
    in_catalog(tiled, made.documents)
    for run in (made.documents, tiled[made.uid]):
        with pytest.raises(NoImagesError, match="it has no images of an EIGER"):
            open_run(run)


def test_what_is_no_catalog(make):
    (reduced,) = reprocess(make().documents)
    with pytest.raises(EigerError, match="is no catalog: give one, or a function of"):
        write_run(reduced, 3)
