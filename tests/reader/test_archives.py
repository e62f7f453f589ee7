"""Archived runs of other EIGER devices: our handlers, and beside them those they came with.

The files are written with plain h5py in the layout of firmware 1.6, and the documents by hand as
the devices of those years wrote them. What the published handlers get wrong is kept here as
failures that must go on failing: when one passes, its handler was mended.
"""

import itertools
import warnings
from pathlib import Path

import event_model
import h5py
import numpy as np
import psutil
import pytest
from area_detector_handlers import eiger

from ophyd_eiger import archives
from ophyd_eiger.archives import HANDLERS, ArchivedHandler, ArchivedMXHandler
from ophyd_eiger.errors import ChunkError, FileError, MissingFileError
from ophyd_eiger.handlers import EigerHandler

published = eiger.EigerHandler

# Of each test's cases the short run takes every 3rd, see conftest.
SHORT_RUN_EVERY = 3

SHAPE = (12, 17)
FIELDS = {
    "entry/instrument/detector/x_pixel_size": np.float32(7.5e-5),
    "entry/instrument/detector/y_pixel_size": np.float32(7.5e-5),
    "entry/instrument/detector/detector_distance": np.float32(0.25),
    "entry/instrument/detector/beam_center_x": np.float32(8.5),
    "entry/instrument/detector/beam_center_y": np.float32(6.0),
    "entry/instrument/detector/frame_time": np.float32(0.01),
    "entry/instrument/detector/count_time": np.float32(0.0099),
    "entry/instrument/beam/incident_wavelength": np.float32(1.5),
}


def image(number: int) -> np.ndarray:
    """Return image `number` of a series, counted from 0: no two pixels of a column alike."""
    return np.add.outer(np.arange(SHAPE[0]) * 300 + number, np.arange(SHAPE[1]) * 7).astype("<u2")


@pytest.fixture
def archive(tmp_path, write_data, write_master):
    """Write a series: `archive(sizes, seq_id=7)`, the images a file; returns its prefix."""

    def write(sizes, seq_id=7):
        prefix = tmp_path / "abc123"
        names, first = [], 0
        for number, size in enumerate(sizes, 1):
            names.append(f"abc123_{seq_id}_data_{number:06d}.h5")
            stack = np.stack([image(n) for n in range(first, first + size)])
            write_data(tmp_path / names[-1], stack, first=first + 1)
            first += size
        mask = np.zeros(SHAPE, np.uint32)
        mask[3] = 1
        master = write_master(
            tmp_path / f"abc123_{seq_id}_master.h5", names, nimages=first, mask=mask
        )
        with h5py.File(master, "a") as file:
            for place, value in FIELDS.items():
                file[place] = value
            omega = np.arange(first, dtype=np.float32) / 10
            file["entry/sample/goniometer/omega"] = omega
        return prefix

    return write


def files_of(images: int, per_file: int) -> list[int]:
    whole, rest = divmod(images, per_file)
    return [per_file] * whole + [rest] * bool(rest)


# 250 images in files of 100, 100 and 50; and few in files of 1, 3 and 7, the last one short.
SIZES = {
    "100-100-50": [100, 100, 50],
    "1s": files_of(5, 1),
    "3s": files_of(11, 3),
    "7s": files_of(16, 7),
    "one": [6],
    "uneven": [2, 5, 1, 3],
}
sizes = pytest.mark.parametrize("sizes", list(SIZES.values()), ids=list(SIZES))


# ---- alone


@sizes
def test_a_whole_series(archive, sizes):
    stack = ArchivedHandler(archive(sizes), images_per_file=sizes[0])(7)
    assert (stack.shape, stack.dtype) == ((sum(sizes), *SHAPE), np.uint16)
    assert stack.chunks == ((1,) * sum(sizes), *((length,) for length in SHAPE))
    assert np.array_equal(stack.compute(), [image(n) for n in range(sum(sizes))])


@sizes
def test_each_index_through_dask(archive, sizes):
    stack = ArchivedHandler(archive(sizes), frame_per_point=sizes[0])("7")
    for number in range(sum(sizes)):
        assert np.array_equal(stack[number].compute(), image(number))


@sizes
def test_each_frame_as_an_event(archive, sizes):
    handler = ArchivedHandler(archive(sizes), sizes[0])
    for number, keyword in zip(
        range(sum(sizes)), itertools.cycle(("frame_num", "image_slice")), strict=False
    ):
        frame = handler(seq_id=7, **{keyword: number})
        assert frame.shape == SHAPE
        assert np.array_equal(frame.compute(), image(number))


@pytest.mark.parametrize("lost", [1, 2, 3], ids=["first", "middle", "last"])
def test_a_missing_file_is_named(archive, tmp_path, lost):
    handler = ArchivedHandler(archive([4, 4, 2]), 4)
    name = f"abc123_7_data_00000{lost}.h5"
    aside = (tmp_path / name).rename(tmp_path / "aside")
    with pytest.raises(MissingFileError, match=name):
        handler(7)
    for number in range(10):
        if number < 4 * (lost - 1):
            assert np.array_equal(handler(7, frame_num=number).compute(), image(number))
        elif number < min(4 * lost, 10):
            with pytest.raises(MissingFileError, match=name):
                handler(7, frame_num=number)
    aside.rename(tmp_path / name)
    assert np.array_equal(handler(7).compute(), [image(n) for n in range(10)])


@pytest.mark.parametrize("frame", [-1, 10, 11, 1000])
def test_a_frame_that_no_file_has(archive, frame):
    handler = ArchivedHandler(archive([4, 4, 2]), 4)
    with pytest.raises(MissingFileError, match=r"abc123_7_master\.h5: images .*(10 found|0 to 9)"):
        handler(7, frame_num=frame)


def test_a_missing_master_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"abc123_8_master\.h5: no such file"):
        ArchivedHandler(tmp_path / "abc123", 10)(8)


def test_a_stale_file_in_the_working_directory_is_not_taken(archive, tmp_path, monkeypatch):
    """HDF5 itself follows a link to a file of that name wherever the process stands."""
    handler = ArchivedHandler(archive([4, 4]), 4)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "abc123_7_data_000002.h5").rename(
        tmp_path / "elsewhere" / "abc123_7_data_000002.h5"
    )
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(MissingFileError, match=r"abc123_7_data_000002\.h5"):
        handler(7)


def test_nothing_is_read_before_it_is_asked_for(archive, tmp_path):
    stack = ArchivedHandler(archive([4, 4]), 4)(7)
    with h5py.File(tmp_path / "abc123_7_data_000002.h5", "a") as file:
        file["entry/data/data"].id.write_direct_chunk((1, 0, 0), b"broken")
    assert np.array_equal(stack[:5].compute(), [image(n) for n in range(5)])
    with pytest.raises(ChunkError, match=r"abc123_7_data_000002\.h5: image 2 of 4 is broken"):
        stack[5].compute()


def test_usable_again_after_close(archive):
    with ArchivedHandler(archive([4, 4, 2]), 4) as handler:
        before = handler(7)
    expected = [image(n) for n in range(10)]
    assert np.array_equal(handler(7).compute(), expected)
    assert np.array_equal(before.compute(), expected), "what was given out stays usable"


def test_no_file_stays_open(archive, tmp_path):
    handler = ArchivedHandler(archive([4, 4]), 4)
    handler(7).compute()
    opened = [file.path for file in psutil.Process().open_files()]
    assert not [path for path in opened if str(tmp_path) in path]


def test_files_and_their_sizes(archive, tmp_path):
    prefix = archive([4, 4])
    archive([1], seq_id=71)
    data = [{"seq_id": 7}, {"seq_id": 7, "frame_num": 1}, {"seq_id": 71}]
    names = [
        *("abc123_7_master.h5", "abc123_7_data_000001.h5", "abc123_7_data_000002.h5"),
        *("abc123_71_master.h5", "abc123_71_data_000001.h5"),
    ]
    handler = ArchivedHandler(prefix, 4)
    assert handler.get_file_list(iter(data)) == [str(tmp_path / name) for name in names]
    assert handler.get_file_sizes(iter(data)) == [
        (tmp_path / name).stat().st_size for name in names
    ]
    (tmp_path / names[1]).unlink()
    assert handler.get_file_list(data[:1]) == [str(tmp_path / name) for name in names[::2][:2]]


def test_our_own_handler_has_sizes_too(archive, tmp_path):
    archive([4, 4])
    handler = EigerHandler(tmp_path / "abc123_7_master.h5")
    found = handler.get_file_sizes([{"first": 0, "images": 8}])
    files = sorted(tmp_path.glob("*.h5"), key=lambda file: (file.name[9] != "m", file.name))
    assert found == [file.stat().st_size for file in files]
    assert len(found) == 3


def test_what_the_master_says_beside_the_images(archive):
    prefix = archive([4, 4])
    handler = ArchivedHandler(prefix, 4)
    assert handler.md == {}
    handler(7)
    md = handler.md
    for place, value in FIELDS.items():
        assert md[place.rpartition("/")[2]] == value
    assert md["framerate"] == pytest.approx(100)
    assert md["pixel_mask"].sum() == SHAPE[1]
    assert np.array_equal(md["binary_mask"], md["pixel_mask"] == 0)


@pytest.mark.parametrize("name", ["count_time", "detectorSpecific/pixel_mask"])
def test_more_values_than_a_master_has(archive, name, peak_below):
    """A few bytes say how many there are; they are not read."""
    prefix = archive([4])
    master = prefix.with_name(f"{prefix.name}_7_master.h5")
    with h5py.File(master, "a") as file:
        place = f"entry/instrument/detector/{name}"
        del file[place]
        file.create_dataset(place, (10**9,), "u1", chunks=(2**20,), compression="gzip")
    handler = ArchivedHandler(prefix, 4)
    handler(7)
    key = "bit_mask" if name.endswith("mask") else name
    for ask in (lambda: handler.md, lambda: ArchivedMXHandler(prefix, 7)(data_key=key)):
        with peak_below(2**22), pytest.raises(FileError, match=rf"_master\.h5: .*{name} of shape"):
            ask()


def test_images_without_metadata(tmp_path, write_data, write_master):
    """A field that is missing takes no image with it."""
    write_data(tmp_path / "bare_1_data_000001.h5", np.stack([image(0), image(1)]))
    write_master(tmp_path / "bare_1_master.h5", ["bare_1_data_000001.h5"])
    handler = ArchivedHandler(tmp_path / "bare", 2)
    assert np.array_equal(handler(1).compute(), [image(0), image(1)])
    assert handler.md == {}


def test_images_in_the_master(tmp_path, write_master):
    write_master(tmp_path / "all_1_master.h5", [], images=np.stack([image(0), image(1)]))
    handler = ArchivedHandler(tmp_path / "all", 0)
    assert np.array_equal(handler(1).compute(), [image(0), image(1)])
    assert np.array_equal(handler(1, frame_num=1).compute(), image(1))


# ---- crystallography


@sizes
@pytest.mark.parametrize("whole_path", [False, True], ids=["prefix", "master"])
def test_an_mx_series(archive, tmp_path, sizes, whole_path):
    prefix = archive(sizes)
    path = tmp_path / "abc123_7_master.h5" if whole_path else prefix
    handler = ArchivedMXHandler(path, 7, dataset="entry/data")
    stack = handler(data_key="data")
    assert stack.chunks[0] == (1,) * sum(sizes)
    assert np.array_equal(stack.compute(), [image(n) for n in range(sum(sizes))])
    omega = handler(data_key="omega")
    assert np.array_equal(omega.compute(), np.arange(sum(sizes), dtype=np.float32) / 10)


def test_an_mx_raster_has_a_row_an_event(archive, tmp_path):
    archive([4, 4, 4])
    handler = ArchivedMXHandler(
        tmp_path / "abc123_7_master.h5",
        7,
        dataset="entry/data",
        multiplier=4,
        join_method="stack",
    )
    (tmp_path / "abc123_7_data_000003.h5").unlink()
    for row in range(2):
        images = handler(data_key="data", indices={"start": row, "stop": row + 1})
        assert np.array_equal(images.compute(), [image(4 * row + n) for n in range(4)])
    with pytest.raises(MissingFileError, match=r"images 9 to 12 asked for, .*data_000003\.h5"):
        handler(data_key="data", indices={"start": 2, "stop": 3})


def test_other_arrays_of_an_mx_master(archive):
    handler = ArchivedMXHandler(archive([2]), 7)
    assert handler(data_key="bit_mask").compute().sum() == SHAPE[1]
    assert handler(data_key="incident_wavelength").compute() == np.float32(1.5)
    with pytest.raises(FileError, match=r"abc123_7_master\.h5: no array 'chi' of goniometer"):
        handler(data_key="chi")
    names = ["abc123_7_master.h5", "abc123_7_data_000001.h5"]
    assert [Path(file).name for file in handler.get_file_list([])] == names
    assert len(handler.get_file_sizes([])) == 2


# ---- registered


def test_every_spec_has_a_handler_and_none_is_an_entry_point():
    from importlib.metadata import entry_points

    names = {"AD_EIGER", "AD_EIGER2", "AD_EIGER_SLICE"}
    names |= {"AD_EIGER_MX", "AD_EIGER_MX_OMEGA", "AD_EIGER_MX_RASTER"}
    assert set(HANDLERS) == names
    found = entry_points(group="databroker.handlers")
    ours = {entry.name for entry in found if entry.value.startswith("ophyd_eiger")}
    assert ours == {"EIGER_SIMPLON"}


def test_register_with_what_reads_documents(catalog):
    filler = event_model.Filler({"AD_EIGER2": published}, inplace=False)
    archives.register(filler)
    assert filler.handler_registry["AD_EIGER2"] is ArchivedHandler
    own = {"AD_EIGER": published}
    archives.register(own, overwrite=False)
    assert own["AD_EIGER"] is published
    assert own["AD_EIGER_MX"] is ArchivedMXHandler
    for client in (catalog, catalog.v1):
        with pytest.raises(FileError, match=r"is a client of a server.*handler_registry="):
            archives.register(client)


# ---- through databroker


@pytest.fixture(scope="module")
def archive_catalog():
    """A catalog in memory that reads the archives' specs as `register` has it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")
        from databroker.mongo_normalized import MongoAdapter, discover_handlers
        from tiled.client import Context, from_context
        from tiled.server.app import build_app

        registry = discover_handlers()
        archives.register(registry)
        tree = MongoAdapter.from_mongomock(handler_registry=registry)
        with Context.from_app(build_app(tree)) as context:
            yield from_context(context)


def archived(spec, path, resource_kwargs, data_keys, events):
    """Return the documents of a run: an event for each dict of datum keywords by data key."""
    run = event_model.compose_run(metadata={"beamline_id": "elsewhere"})
    keys = {
        key: {"dtype": "array", "shape": shape, "source": "PV:old", "external": "FILESTORE:"}
        for key, shape in data_keys.items()
    }
    stream = run.compose_descriptor(name="primary", data_keys=keys)
    resource = run.compose_resource(
        spec=spec,
        root=str(path.parent.parent),
        resource_path=f"{path.parent.name}/{path.name}",
        resource_kwargs=resource_kwargs,
    )
    made = [
        ("start", run.start_doc),
        ("descriptor", stream.descriptor_doc),
        ("resource", resource.resource_doc),
    ]
    for event in events:
        ids = {}
        for key, kwargs in event.items():
            datum = resource.compose_datum(datum_kwargs=kwargs)
            made.append(("datum", datum))
            ids[key] = datum["datum_id"]
        times, filled = dict.fromkeys(ids, 0.0), dict.fromkeys(ids, False)
        made.append(("event", stream.compose_event(data=ids, timestamps=times, filled=filled)))
    made.append(("stop", run.compose_stop()))
    for name, document in made:
        event_model.schema_validators[event_model.DocumentNames[name]].validate(document)
    return made


def inserted(catalog, made):
    for name, document in made:
        catalog.v1.insert(name, document)
    return made[0][1]["uid"]


@pytest.mark.parametrize(
    ("spec", "keyword"),
    [
        pytest.param("AD_EIGER2", "images_per_file"),
        # Long: the same handler by an older name.
        pytest.param("AD_EIGER", "frame_per_point", marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("sizes", [SIZES["100-100-50"], SIZES["3s"]], ids=["250", "11"])
def test_a_run_through_databroker(archive, archive_catalog, spec, keyword, sizes):
    count = sum(sizes)
    made = archived(
        spec,
        archive(sizes),
        {keyword: sizes[0]},
        {"eiger4m_single_image": [count, *SHAPE]},
        [{"eiger4m_single_image": {"seq_id": 7}}],
    )
    uid = inserted(archive_catalog, made)
    expected = [image(n) for n in range(count)]
    read = archive_catalog[uid].primary.read()["eiger4m_single_image"]
    assert np.array_equal(read, [expected])
    (old,) = archive_catalog.v1[uid].data("eiger4m_single_image")
    assert np.array_equal(old, expected)


def test_a_manual_scan_through_databroker(archive, archive_catalog):
    """One series for the whole scan, an image an event."""
    events = [{"image": {"seq_id": 7, "frame_num": n}} for n in range(11)]
    prefix = archive(SIZES["3s"])
    made = archived("AD_EIGER_SLICE", prefix, {"images_per_file": 3}, {"image": SHAPE}, events)
    uid = inserted(archive_catalog, made)
    expected = [image(n) for n in range(11)]
    assert np.array_equal(archive_catalog[uid].primary.read()["image"], expected)
    assert np.array_equal(list(archive_catalog.v1[uid].data("image")), expected)


def test_an_mx_run_through_databroker(archive, archive_catalog):
    sizes = SIZES["7s"]
    made = archived(
        "AD_EIGER_MX",
        archive(sizes),
        {"seq_id": 7},
        {"eiger_image": [sum(sizes), *SHAPE], "omega": [sum(sizes)]},
        [{"eiger_image": {"data_key": "data"}, "omega": {"data_key": "omega"}}],
    )
    uid = inserted(archive_catalog, made)
    read = archive_catalog[uid].primary.read()
    assert np.array_equal(read["eiger_image"][0], [image(n) for n in range(sum(sizes))])
    assert np.array_equal(read["omega"][0], np.arange(sum(sizes), dtype=np.float32) / 10)
    (old,) = archive_catalog.v1[uid].data("omega")
    assert np.array_equal(old, np.arange(sum(sizes), dtype=np.float32) / 10)


def test_a_missing_file_stops_databroker(archive, archive_catalog, tmp_path):
    prefix = archive([4, 4, 2])
    keys = {"image": [10, *SHAPE]}
    made = archived("AD_EIGER2", prefix, {"images_per_file": 4}, keys, [{"image": {"seq_id": 7}}])
    uid = inserted(archive_catalog, made)
    (tmp_path / "abc123_7_data_000002.h5").unlink()
    with pytest.raises(event_model.DataNotAccessible) as caught:
        archive_catalog[uid].primary.read()
    said, error = "", caught.value
    while error is not None:
        said, error = said + str(error), error.__cause__ or error.__context__
    assert "abc123_7_data_000002.h5 missing" in said


# ---- what the published handler makes of the same files


def test_published_one_data_file_is_right(archive):
    """Where it was right we give the same, so that nobody's analysis changes."""
    prefix = archive([6])
    theirs, ours = published(str(prefix), images_per_file=6), ArchivedHandler(prefix, 6)
    assert np.array_equal(theirs(7).compute(), ours(7).compute())
    md = theirs._md
    assert set(md) == set(ours.md)
    assert all(np.array_equal(md[key], ours.md[key]) for key in md)
    theirs.close()


@pytest.mark.xfail(strict=True, raises=AssertionError, reason="counts files as if they were images")
@pytest.mark.parametrize("sizes", [SIZES["100-100-50"], SIZES["3s"], SIZES["7s"]], ids=str)
def test_published_several_data_files(archive, sizes):
    with published(str(archive(sizes)), images_per_file=sizes[0]) as handler:
        assert np.array_equal(handler(7).compute(), [image(n) for n in range(sum(sizes))])


@pytest.mark.xfail(strict=True, raises=AttributeError, reason="asks for an attribute it never has")
def test_published_slices(archive):
    with published(str(archive([6])), images_per_file=6) as handler:
        assert np.array_equal(handler(7, frame_num=2).compute(), image(2))


@pytest.mark.xfail(strict=True, raises=KeyError, reason="keeps the file it has closed")
def test_published_after_close(archive):
    handler = published(str(archive([6])), images_per_file=6)
    handler(7)
    handler.close()
    assert np.array_equal(handler(7).compute(), [image(n) for n in range(6)])


@pytest.mark.xfail(strict=True, raises=AssertionError, reason="series 1 takes the files of 10, too")
def test_published_file_list(archive):
    prefix = archive([2], seq_id=1)
    archive([2], seq_id=10)
    files = published(str(prefix), images_per_file=2).get_file_list([{"seq_id": 1}])
    assert len(files) == 2


@pytest.mark.xfail(strict=True, raises=pytest.fail.Exception, reason="does not notice")
def test_published_missing_file(archive, tmp_path):
    prefix = archive([4, 4, 2])
    (tmp_path / "abc123_7_data_000003.h5").unlink()
    with (
        published(str(prefix), images_per_file=4) as handler,
        pytest.raises((KeyError, OSError), match="data_000003"),
    ):
        handler(7)


@pytest.mark.xfail(strict=True, raises=KeyError, reason="no image without every field")
def test_published_without_metadata(tmp_path, write_data, write_master):
    write_data(tmp_path / "bare_1_data_000001.h5", np.stack([image(0), image(1)]))
    write_master(tmp_path / "bare_1_master.h5", ["bare_1_data_000001.h5"])
    with published(str(tmp_path / "bare"), images_per_file=2) as handler:
        handler(1)
