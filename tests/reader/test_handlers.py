"""Images of events, through the handler alone and through databroker with hand-made documents."""

import importlib.metadata

import event_model
import h5py
import numpy as np
import pytest

from ophyd_eiger import documents, handlers
from ophyd_eiger.errors import ChunkError, FileError, MissingFileError
from ophyd_eiger.handlers import EigerHandler
from ophyd_eiger.view import Part, write_view

# Of each test's cases the short run takes every 2nd, see conftest.
SHORT_RUN_EVERY = 2

SPEC = "EIGER_SIMPLON"


# ---- alone


@pytest.mark.parametrize(("first", "images"), [(0, 7), (0, 1), (2, 3), (6, 1), (3, 3), (4, 0)])
def test_an_event_has_its_images(series, first, images):
    master, expected = series
    stack = EigerHandler(master)(first, images)
    assert (stack.shape, stack.dtype) == ((images, 37, 53), np.uint16)
    assert stack.chunks[0] == (1,) * images or images == 0
    assert np.array_equal(stack.compute(), expected[first : first + images])


@pytest.mark.parametrize(
    "index",
    [
        (0,),
        (-1, 5),
        (slice(1, 4), slice(3, 9)),
        (slice(None, None, 2),),
        (slice(None, None, -1),),
        ([0, 4, 2],),
        (slice(None), [3, 1], slice(0, 50, 7)),
        (..., 0),
    ],
    ids=repr,
)
def test_what_dask_takes_of_an_event(series, index):
    master, expected = series
    assert np.array_equal(EigerHandler(master)(1, 5)[index].compute(), expected[1:6][index])


def test_nothing_is_read_before_it_is_asked_for(series):
    master, expected = series
    stack = EigerHandler(master)(0, 7)
    (master.parent / "x_7_data_000003.h5").unlink()
    assert np.array_equal(stack[:6].compute(), expected[:6])
    with pytest.raises(MissingFileError, match=r"x_7_data_000003\.h5: no such file"):
        stack[6].compute()


@pytest.mark.parametrize(
    ("lost", "found"),
    [("000001", 0), ("000002", 3), ("000003", 6)],
    ids=["first", "middle", "last"],
)
def test_a_missing_file_is_named(series, lost, found):
    master, expected = series
    (master.parent / f"x_7_data_{lost}.h5").unlink()
    handler = EigerHandler(master)
    with pytest.raises(MissingFileError, match=f"x_7_data_{lost}.h5"):
        handler(0, 7)
    with pytest.raises(MissingFileError, match=f"x_7_data_{lost}.h5"):
        handler(found, 1)
    if found:
        assert np.array_equal(handler(0, found).compute(), expected[:found])


def test_a_missing_master_is_named(tmp_path):
    handler = EigerHandler(tmp_path / "gone_master.h5")
    with pytest.raises(MissingFileError, match=r"gone_master\.h5: no such file"):
        handler(0, 1)


@pytest.mark.parametrize(("first", "images"), [(0, 8), (0, 9), (5, 3), (7, 1), (100, 1)])
def test_fewer_images_than_the_event_names(series, first, images):
    """One or two too few too, which databroker would fill up."""
    master, _ = series
    with pytest.raises(MissingFileError, match=r"7 found; the series was ended early"):
        EigerHandler(master)(first, images)


def test_images_of_another_shape_than_promised(series):
    master, _ = series
    assert EigerHandler(master, shape=[37, 53])(0, 1).shape == (1, 37, 53)
    for shape in ([38, 53], [37, 52], [53, 37]):
        with pytest.raises(FileError, match=r"images of shape \(37, 53\), .* promised"):
            EigerHandler(master, shape=shape)(0, 1)


def test_a_broken_image_is_named(series):
    master, _ = series
    with h5py.File(master.parent / "x_7_data_000001.h5", "a") as file:
        file["entry/data/data"].id.write_direct_chunk((2, 0, 0), b"broken")
    stack = EigerHandler(master)(0, 7)
    assert stack[1].compute().shape == (37, 53)
    with pytest.raises(ChunkError, match=r"x_7_data_000001\.h5: image 3 of 3 is broken"):
        stack[2].compute()


def test_files_that_come_later_are_found(series):
    master, expected = series
    last = master.parent / "x_7_data_000003.h5"
    aside = last.rename(last.with_suffix(".part"))
    handler = EigerHandler(master)
    assert handler(0, 6).shape == (6, 37, 53)
    with pytest.raises(MissingFileError):
        handler(6, 1)
    aside.rename(last)
    assert np.array_equal(handler(6, 1).compute(), expected[6:])


def test_it_is_usable_again_after_close(series):
    master, expected = series
    handler = EigerHandler(master)
    before = handler(0, 7)
    handler.close()
    handler.close()
    assert np.array_equal(handler(0, 7).compute(), expected)
    assert np.array_equal(before.compute(), expected), "what was given out stays usable"


def test_the_file_list_has_the_master_first(series):
    master, _ = series
    names = ["x_7_master.h5", *(f"x_7_data_00000{number}.h5" for number in (1, 2, 3))]
    listed = EigerHandler(master).get_file_list(iter([{"first": 0, "images": 7}]))
    assert listed == [str(master.parent / name) for name in names]


# ---- by a view

EVENTS = [(1, 2), (5, 2), (3, 2)]


def written(master, *, missing=()):
    """Write the view of EVENTS beside the master; `missing` files are not named to it."""
    files = [
        Part(master.parent / f"x_7_data_00000{number}.h5", 3 * number - 3, images)
        for number, images in ((1, 3), (2, 3), (3, 1))
        if number not in missing
    ]
    path = master.parent / "x_7_view.h5"
    write_view(path, EVENTS, files, shape=(37, 53), dtype=np.uint16, master=master.name)
    return path


def test_an_event_is_counted_in_the_view(series):
    master, expected = series
    handler = EigerHandler(written(master), shape=[37, 53])
    for place, (first, images) in enumerate(EVENTS):
        stack = handler(first=2 * place, images=images)
        assert (stack.shape, stack.dtype) == ((2, 37, 53), np.uint16)
        assert np.array_equal(stack.compute(), expected[first : first + images])


def test_what_tiled_is_told_of_a_view_is_taken(series):
    master, expected = series
    view = written(master)
    handler = EigerHandler(
        str(view),
        shape=[37, 53],
        dataset="/entry/data/data",
        chunk_shape=[1, 2, 37, 53],
        swmr=False,
        locking=None,
    )
    assert np.array_equal(handler(2, 2).compute(), expected[5:7])
    with pytest.raises(FileError, match=r"images are in /entry/data/data, not in /entry/mask"):
        EigerHandler(view, dataset="/entry/mask")


def test_a_view_s_missing_file_is_named_and_found_when_it_comes(series):
    master, expected = series
    second = master.parent / "x_7_data_000002.h5"
    aside = second.rename(master.parent / "aside")
    handler = EigerHandler(written(master))
    assert np.array_equal(handler(0, 2).compute(), expected[1:3])
    for first in (2, 4):
        with pytest.raises(MissingFileError, match=r"x_7_data_000002\.h5 is missing"):
            handler(first, 2)
    aside.rename(second)
    assert np.array_equal(handler(2, 2).compute(), expected[5:7])


def test_images_that_never_came_to_a_view(series):
    master, expected = series
    handler = EigerHandler(written(master, missing={3}))
    assert np.array_equal(handler(4, 2).compute(), expected[3:5])
    with pytest.raises(MissingFileError, match=r"images 3 to 4 asked for, .*image 4 of 6 did not"):
        handler(2, 2)


@pytest.mark.parametrize(("first", "images"), [(5, 2), (6, 1), (0, 7), (-1, 1), (100, 1)])
def test_more_images_than_a_view_shows(series, first, images):
    master, _ = series
    handler = EigerHandler(written(master))
    with pytest.raises(MissingFileError, match="it has 0 to 5"):
        handler(first, images)


def test_a_view_that_is_not_there_yet(series):
    master, expected = series
    handler = EigerHandler(master.parent / "x_7_view.h5")
    with pytest.raises(MissingFileError, match=r"x_7_view\.h5: no such file"):
        handler(0, 2)
    written(master)
    assert np.array_equal(handler(0, 2).compute(), expected[1:3])


def test_a_view_s_file_list_has_what_it_takes(series):
    master, _ = series
    view = written(master, missing={3})
    names = ["x_7_view.h5", "x_7_master.h5", "x_7_data_000001.h5", "x_7_data_000002.h5"]
    assert EigerHandler(view).get_file_list([]) == [str(master.parent / name) for name in names]
    master.unlink()
    names.remove("x_7_master.h5")
    assert EigerHandler(view).get_file_list([]) == [str(master.parent / name) for name in names]


# ---- through databroker


def test_it_is_found_by_its_entry_point():
    (found,) = importlib.metadata.entry_points(group="databroker.handlers", name=SPEC)
    assert found.load() is EigerHandler
    assert handlers.SPEC == documents.SPEC == SPEC
    assert EigerHandler.specs == {SPEC}


def documents_of(master, promised, dtype, points, **kwargs):
    """Return the documents of a run with one event per (first, images) of `points`."""
    run = event_model.compose_run()
    made = [("start", run.start_doc)]
    key = {"dtype": "array", "shape": promised, "dtype_numpy": dtype, "source": "by hand"}
    stream = run.compose_descriptor(
        name="primary", data_keys={"image": {**key, "external": "FILESTORE:"}}
    )
    resource = run.compose_resource(
        spec=SPEC, root=str(master.parent), resource_path=master.name, resource_kwargs=kwargs
    )
    made += [("descriptor", stream.descriptor_doc), ("resource", resource.resource_doc)]
    for number, (first, images) in enumerate(points):
        datum = resource.compose_datum(datum_kwargs={"first": first, "images": images})
        made.append(("datum", datum))
        event = stream.compose_event(
            data={"image": datum["datum_id"]},
            timestamps={"image": float(number)},
            filled={"image": False},
        )
        made.append(("event", event))
    made.append(("stop", run.compose_stop()))
    return run.start_doc["uid"], made


@pytest.fixture
def insert(catalog):
    """Insert the documents of a run and return it."""

    def insert(*args, **kwargs):
        uid, made = documents_of(*args, **kwargs)
        for name, document in made:
            catalog.v1.insert(name, document)
        return catalog[uid]

    return insert


def test_a_run_is_read_back(series, insert):
    master, images = series
    run = insert(master, [2, 37, 53], "<u2", [(0, 2), (2, 2), (4, 2)])
    read = run.primary.read()["image"]
    assert (read.shape, read.dtype) == ((3, 2, 37, 53), np.uint16)
    assert np.array_equal(read, images[:6].reshape(3, 2, 37, 53))


def test_a_run_is_read_back_by_the_old_interface(series, insert, catalog):
    master, images = series
    run = insert(master, [7, 37, 53], "<u2", [(0, 7)])
    (read,) = catalog.v1[run.metadata["start"]["uid"]].data("image")
    assert np.array_equal(read, images)


def test_a_run_of_real_images_is_read_back(tmp_path, real_files, write_master, insert):
    for path in real_files[:2]:
        (tmp_path / path.name).symlink_to(path)
    names = [path.name for path in real_files[:2]]
    master = write_master(tmp_path / "real_master.h5", names, nimages=4)
    read = insert(master, [4, 1065, 1030], "<u2", [(0, 4)]).primary.read()["image"]
    assert read.shape == (1, 4, 1065, 1030)
    assert int(np.asarray(read).sum(dtype=np.uint64)) == 2 * 5022958546


def test_files_that_come_after_the_stop_document(series, insert):
    master, images = series
    aside = master.parent / "aside"
    aside.mkdir()
    moved = [path.rename(aside / path.name) for path in master.parent.glob("*.h5")]
    run = insert(master, [7, 37, 53], "<u2", [(0, 7)])
    for path in moved:
        path.rename(master.parent / path.name)
    assert np.array_equal(run.primary.read()["image"][0], images)


def test_a_missing_file_stops_databroker(series, insert):
    """Also where it is the last image alone, which databroker would otherwise make up."""
    master, _ = series
    run = insert(master, [7, 37, 53], "<u2", [(0, 7)])
    (master.parent / "x_7_data_000003.h5").unlink()
    with pytest.raises(event_model.DataNotAccessible) as caught:
        run.primary.read()
    assert "x_7_data_000003.h5" in everything_said(caught.value)


@pytest.mark.parametrize(("promised", "points"), [(8, [(0, 8)]), (9, [(0, 9)]), (2, [(6, 2)])])
def test_databroker_does_not_fill_up_images(series, insert, promised, points):
    master, _ = series
    run = insert(master, [promised, 37, 53], "<u2", points)
    with pytest.raises(event_model.DataNotAccessible) as caught:
        run.primary.read()
    assert "7 found; the series was ended early" in everything_said(caught.value)


def test_databroker_does_not_fill_up_pixels(series, insert):
    master, _ = series
    run = insert(master, [7, 38, 54], "<u2", [(0, 7)], shape=[38, 54])
    with pytest.raises(event_model.DataNotAccessible) as caught:
        run.primary.read()
    assert "(37, 53), (38, 54) promised" in everything_said(caught.value)


def everything_said(error: BaseException | None) -> str:
    """Return the text of an error and of all that caused it."""
    said = []
    while error is not None:
        said.append(str(error))
        error = error.__cause__ or error.__context__
    return "\n".join(said)
