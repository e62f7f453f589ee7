"""Views: what is written is read back by any HDF5 program and by us; what is wrong is named."""

import os
import shutil
import subprocess
import sys
import tracemalloc

import h5py
import hdf5plugin
import numpy as np
import pytest
import silx.io
import silx.io.nxdata
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ophyd_eiger import open_series
from ophyd_eiger.errors import ChunkError, FileError, MissingFileError
from ophyd_eiger.view import Part, write_view

SHAPE = (37, 53)
DATA = "entry/data/data"
# Events that name images of a series of 7: first one and how many.
EVENTS = {
    "all in one": [(0, 7)],
    "one image each": [(number, 1) for number in range(7)],
    "across files": [(1, 3), (4, 3)],
    "some left out": [(0, 2), (3, 2), (6, 1)],
    "another order": [(5, 2), (0, 3)],
    "one twice": [(2, 2), (2, 2)],
    "the last alone": [(6, 1)],
}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(3).integers(0, 2**16, (7, *SHAPE), np.uint16)


@pytest.fixture
def make(tmp_path, write_data, write_master, images):
    """Write the series of 7 images: `make(per_file)` gives its folder and its files."""

    def make(per_file):
        folder = tmp_path / "series"
        folder.mkdir()
        master = folder / "x_7_master.h5"
        if not per_file:
            write_master(master, [], nimages=7, images=images)
            return folder, [Part(master, 0, 7)]
        files = []
        for first in range(0, 7, per_file):
            path = folder / f"x_7_data_{len(files) + 1:06d}.h5"
            write_data(path, images[first : first + per_file], first=first + 1)
            files.append(Part(path, first, len(images[first : first + per_file])))
        mask = np.zeros(SHAPE, np.uint32)
        mask[3, 4] = 1
        write_master(master, [part.path.name for part in files], nimages=7, mask=mask)
        return folder, files

    return make


def write(folder, events, files, *, name="x_7_view.h5", dtype=np.uint16, shape=SHAPE):
    path = folder / name
    lost = write_view(path, events, files, shape=shape, dtype=dtype, master="x_7_master.h5")
    return path, lost


def plain(path):
    """Return what h5py alone sees."""
    with h5py.File(path) as file:
        return file[DATA][()]


def numbers_of(events):
    return [number for first, count in events for number in range(first, first + count)]


# ---- what it shows


@pytest.mark.parametrize("per_file", [0, 1, 3, 1000])
@pytest.mark.parametrize("events", EVENTS.values(), ids=EVENTS)
def test_it_shows_the_images_of_the_events_in_their_order(make, images, events, per_file):
    folder, files = make(per_file)
    view, lost = write(folder, events, files)
    expected = images[numbers_of(events)]
    assert lost == ()
    assert np.array_equal(plain(view), expected)
    series = open_series(view)
    assert (series.shape, series.dtype, series.missing) == (expected.shape, np.uint16, ())
    assert np.array_equal(series[:], expected)
    assert np.array_equal(np.stack(list(series)), expected)
    assert np.array_equal(series[::-2], expected[::-2])


def test_what_else_is_in_it(make):
    folder, files = make(3)
    view, _ = write(folder, [(5, 2), (0, 2)], files)
    with h5py.File(view) as file:
        assert list(file["entry/data/number_in_series"]) == [5, 6, 0, 1]
        assert file["entry/data"].attrs["master"] == "x_7_master.h5"
        assert file[DATA].attrs["missing"].shape == (0,)
        assert file[DATA].fillvalue == 65535
        sources = file[DATA].virtual_sources()
    assert [source.file_name for source in sources] == [
        "x_7_data_000002.h5",
        "x_7_data_000003.h5",
        "x_7_data_000001.h5",
    ]


def test_h5dump_reads_it_from_elsewhere(make, images, tmp_path):
    """HDF5 1.10, in another working directory, with the folder moved."""
    if shutil.which("h5dump") is None:
        pytest.skip("h5dump missing: apt-get install hdf5-tools")
    folder, files = make(3)
    view, _ = write(folder, [(1, 3), (6, 1)], files)
    moved = folder.rename(tmp_path / "moved")
    raw = tmp_path / "raw"
    subprocess.run(
        ["h5dump", "-d", f"/{DATA}", "-b", "LE", "-o", str(raw), str(moved / view.name)],
        env={**os.environ, "HDF5_PLUGIN_PATH": hdf5plugin.PLUGIN_PATH},
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=60,
    )
    found = np.frombuffer(raw.read_bytes(), "<u2").reshape(-1, *SHAPE)
    assert np.array_equal(found, images[[1, 2, 3, 6]])
    assert np.array_equal(open_series(moved / view.name)[:], images[[1, 2, 3, 6]])


def test_viewers_plot_it_by_default(make, images):
    folder, files = make(3)
    view, _ = write(folder, [(0, 7)], files)
    with silx.io.open(str(view)) as file:
        plot = silx.io.nxdata.get_default(file)
        assert plot is not None
        assert plot.signal_dataset_name == "data"
        assert np.array_equal(plot.signal[()], images)


def test_a_hundred_thousand_images_make_a_small_view(tmp_path):
    """Of 100 files, by events of one image: a mapping a file, and a size that does not grow."""
    files = [Part(tmp_path / f"x_data_{k + 1:06d}.h5", 1000 * k, 1000) for k in range(100)]
    for part in files:
        part.path.touch()
    events = [(number, 1) for number in range(100_000)]
    view, lost = write(tmp_path, events, files, shape=(1065, 1030))
    assert lost == ()
    assert view.stat().st_size < 200_000
    with h5py.File(view) as file:
        assert len(file[DATA].virtual_sources()) == 100
        assert file["entry/data/number_in_series"][-1] == 99_999
    assert len(open_series(view)) == 100_000


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
@pytest.mark.parametrize("code", [None, 32004, 32008], ids=["none", "lz4", "bslz4"])
def test_each_depth_and_compression(tmp_path, write_data, dtype, code):
    stack = np.random.default_rng(1).integers(0, 99, (3, *SHAPE)).astype(dtype)
    path = write_data(tmp_path / "d_000001.h5", stack, code=code)
    view, lost = write(tmp_path, [(1, 3)], [Part(path, 0, 3)], dtype=dtype)
    assert lost == (2,)
    assert np.array_equal(plain(view)[:2], stack[1:])
    assert set(plain(view)[2].flat) == {2 ** (8 * np.dtype(dtype).itemsize) - 1}
    assert np.array_equal(open_series(view)[:2], stack[1:])


# ---- what is missing


def test_a_file_that_comes_later_is_shown_then(make, images):
    folder, files = make(3)
    aside = files[1].path.rename(folder / "aside")
    view, lost = write(folder, [(1, 6)], files)
    with h5py.File(view) as file:
        assert list(file[DATA].attrs["missing"]) == [2, 3, 4]
    assert lost == (2, 3, 4)
    filled = images[1:].copy()
    filled[2:5] = 65535
    assert np.array_equal(plain(view), filled)
    series = open_series(view)
    assert (series.missing, series.gap) == ((files[1].path,), 3)
    assert series.files == (files[0].path, files[2].path)
    assert np.array_equal(series[:2], images[1:3])
    assert np.array_equal(series[5], images[6])
    with pytest.raises(
        MissingFileError, match=r"x_7_view\.h5: image 3 of 6 .* x_7_data_000002\.h5 is missing"
    ):
        series[:]
    aside.rename(files[1].path)
    assert np.array_equal(plain(view), images[1:])
    assert np.array_equal(open_series(view)[:], images[1:])


def test_images_that_never_came(make, images):
    """Of a series that was ended early: no file is to have them."""
    folder, files = make(3)
    view, lost = write(folder, [(0, 2), (5, 4), (1, 1)], files)
    assert lost == (4, 5)
    filled = images[[0, 1, 5, 6, 0, 0, 1]]
    filled[4:6] = 65535
    assert np.array_equal(plain(view), filled)
    series = open_series(view)
    assert np.array_equal(series[:4], filled[:4])
    assert np.array_equal(series[6], images[1])
    for number in (4, 5):
        with pytest.raises(MissingFileError, match=f"image {number + 1} of 7 did not come"):
            series[number]
    # No file is missing, yet two images are.
    assert (series.missing, series.gap) == ((), 2)
    assert list(series.there) == [0, 1, 2, 3, 6]
    assert repr(series).endswith(" uint16, 2 images not there>")
    with pytest.raises(MissingFileError, match="image 5 of 7 did not come") as told:
        series.sum()
    assert told.value.__context__ is None
    with pytest.raises(IndexError, match=r"images 7 to 7 asked for, it has 0 to 6"):
        series[7]


def test_not_one_image_came(make):
    folder, _ = make(3)
    view, lost = write(folder, [(0, 3)], [])
    assert lost == (0, 1, 2)
    assert set(plain(view).flat) == {65535}
    with pytest.raises(MissingFileError, match="image 1 of 3 did not come"):
        open_series(view)[0]


@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    gone=st.sets(st.integers(0, 3)),
    events=st.lists(st.tuples(st.integers(0, 12), st.integers(1, 5)), min_size=1, max_size=6),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_events_over_any_files(tmp_path_factory, write_data, sizes, gone, events):
    folder = tmp_path_factory.mktemp("any")
    total = sum(sizes)
    stack = np.arange(total * 6, dtype=np.uint16).reshape(total, 2, 3)
    files, expected, there = [], np.full((17, 2, 3), 65535, np.uint16), np.zeros(17, bool)
    for number, size in enumerate(sizes):
        first = sum(sizes[:number])
        path = folder / f"d_{number}.h5"
        files.append(Part(path, first, size))
        if number not in gone:
            write_data(path, stack[first : first + size], code=None)
            expected[first : first + size] = stack[first : first + size]
            there[first : first + size] = True
    view, lost = write(folder, events, files, shape=(2, 3))
    wanted = numbers_of(events)
    assert lost == tuple(np.flatnonzero(~there[wanted]))
    assert np.array_equal(plain(view), expected[wanted])
    series = open_series(view)
    for place, number in enumerate(wanted):
        if there[number]:
            assert np.array_equal(series[place], stack[number])
        else:
            with pytest.raises(MissingFileError):
                series[place]


# ---- writing


def test_nothing_that_exists_is_overwritten(make):
    folder, files = make(3)
    view = folder / "x_7_view.h5"
    view.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match=r"not overwritten.*x_7_view\.h5"):
        write(folder, [(0, 7)], files)
    assert view.read_bytes() == b"precious"
    assert not list(folder.glob(".*"))


def test_a_failed_write_leaves_nothing(make, monkeypatch):
    folder, files = make(3)
    monkeypatch.setattr(h5py.Group, "create_virtual_dataset", _full_disk)
    before = sorted(folder.iterdir())
    with pytest.raises(FileError, match=r"x_7_view\.h5: not written \(No space left"):
        write(folder, [(0, 7)], files)
    assert sorted(folder.iterdir()) == before


def _full_disk(*args, **kwargs):
    raise OSError("No space left on device")


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from ophyd_eiger.errors import FileError
from ophyd_eiger.view import Part, write_view

folder, limit = Path(sys.argv[1]), int(sys.argv[2])

def write():
    files = [Part(folder / f"x_7_data_00000{n + 1}.h5", 3 * n, min(3, 7 - 3 * n)) for n in range(3)]
    return write_view(
        folder / "x_7_view.h5", [(0, 7)], files,
        shape=(37, 53), dtype=np.dtype("u2"), master="x_7_master.h5",
    )

_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
before = sorted(folder.iterdir())
try:
    write()
except FileError as error:
    print(error)
print(sorted(folder.iterdir()) == before)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
print(write())
"""


@pytest.mark.parametrize("limit", [0, 2000, 5000])
def test_a_full_disk_is_told_and_the_view_is_written_when_there_is_room(make, images, limit):
    """A limit on the size of files stands for the disk. HDF5 may crash of one: own process."""
    folder, _ = make(3)
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(folder), str(limit)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    told, is_clean, lost = done.stdout.splitlines()
    view = folder / "x_7_view.h5"
    assert told.startswith(f"{view}: not written (")
    assert "File too large" in told
    assert (is_clean, lost) == ("True", "()")
    assert np.array_equal(plain(view), images)
    assert np.array_equal(open_series(view)[:], images)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileError, match=r"x_7_view\.h5: not written"):
        write(tmp_path / "gone", [(0, 1)], [])


@pytest.mark.parametrize("events", [[], [(3, 0)]])
def test_without_an_image_there_is_no_view(make, events):
    folder, files = make(3)
    with pytest.raises(FileError, match="no event has an image to show"):
        write(folder, events, files)


@pytest.mark.parametrize("name", ["50%_data_000001.h5", "a\\b.h5"])
def test_a_name_that_hdf5_would_take_for_another(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(FileError, match="cannot be the name of a file that a view shows"):
        write(tmp_path, [(0, 1)], [Part(tmp_path / name, 0, 1)])
    assert [path.name for path in tmp_path.iterdir()] == [name]


# ---- a series' facts


def test_the_master_s_facts_are_the_series(make):
    folder, files = make(3)
    series = open_series(write(folder, [(5, 2)], files)[0])
    assert series.mask[3, 4] == 1
    assert series.mask.sum() == 1
    assert series.master.images_promised == 7
    assert repr(series) == "<Series x_7_view.h5: (2, 37, 53) uint16>"


def test_without_its_master_a_view_has_its_images(make, images):
    folder, files = make(3)
    view, _ = write(folder, [(5, 2)], files)
    (folder / "x_7_master.h5").unlink()
    series = open_series(view)
    assert np.array_equal(series[:], images[5:])
    with pytest.raises(MissingFileError, match=r"x_7_master\.h5: no such file"):
        _ = series.mask


def test_a_data_file_alone_is_a_series(make, images):
    folder, files = make(3)
    assert open_series(files[1].path).master_path == folder / "x_7_master.h5"
    (folder / "x_7_master.h5").unlink()
    series = open_series(files[1].path)
    assert np.array_equal(series[:], images[3:6])
    with pytest.raises(FileError, match=r"x_7_data_000002\.h5: no array .*pixel_mask"):
        _ = series.mask


# ---- what is wrong


def test_a_stale_file_in_the_working_directory_is_not_read(make, tmp_path, write_data, monkeypatch):
    folder, files = make(3)
    view, _ = write(folder, [(3, 3)], files)
    files[1].path.unlink()
    stale = tmp_path / "stale"
    stale.mkdir()
    write_data(stale / files[1].path.name, np.full((3, *SHAPE), 5, np.uint16))
    monkeypatch.chdir(stale)
    with pytest.raises(MissingFileError, match=r"x_7_data_000002\.h5 is missing"):
        open_series(view)[0]


def test_a_broken_image_is_named(make):
    folder, files = make(3)
    view, _ = write(folder, [(2, 4)], files)
    with h5py.File(files[1].path, "a") as file:
        file[DATA].id.write_direct_chunk((1, 0, 0), b"broken")
    series = open_series(view)
    assert series[1].shape == SHAPE
    with pytest.raises(ChunkError, match=r"x_7_data_000002\.h5: image 2 of 3 is broken"):
        series[2]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (np.zeros((2, *SHAPE), np.uint16), "2 images found, image 3 is one of x_7_view"),
        (np.zeros((3, *SHAPE), np.uint32), "37 x 53 uint32, 37 x 53 uint16 in x_7_view"),
        (np.zeros((3, 53, 37), np.uint16), "53 x 37 uint16, 37 x 53 uint16 in x_7_view"),
    ],
    ids=["fewer images", "another type", "another shape"],
)
def test_a_file_that_is_not_what_the_view_says(make, write_data, other, said):
    folder, files = make(3)
    view, _ = write(folder, [(3, 3)], files)
    write_data(files[1].path, other)
    with pytest.raises(FileError, match=rf"x_7_data_000002\.h5: .*{said}"):
        open_series(view)[0]


def craft(
    path,
    *mappings,
    shape=(3, *SHAPE),
    dtype=np.uint16,
    missing=None,
    master="x_master.h5",
):
    """Write what calls itself a view: mappings of (target slices, file, dataset, shape, slices)."""
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        layout = h5py.VirtualLayout(shape, dtype)
        for target, name, dataset, size, slices in mappings:
            layout[target] = h5py.VirtualSource(name, dataset, shape=size)[slices]
        made = file.create_virtual_dataset(DATA, layout)
        if missing is not None:
            made.attrs["missing"] = missing
        if master is not None:
            file["entry/data"].attrs["master"] = master
    return path


ALL = np.s_[:, :, :]
WHOLE = (3, *SHAPE)
RIGHT = (ALL, "d.h5", DATA, WHOLE, ALL)
HOSTILE = {
    "an absolute name": ([(ALL, "/etc/d.h5", DATA, WHOLE, ALL)], {}, "'/etc/d.h5' cannot be"),
    "a folder above": ([(ALL, "../d.h5", DATA, WHOLE, ALL)], {}, r"'\.\./d\.h5' cannot be"),
    "a folder below": ([(ALL, "a/d.h5", DATA, WHOLE, ALL)], {}, "'a/d.h5' cannot be"),
    "itself": ([(ALL, ".", DATA, WHOLE, ALL)], {}, r"'\.' cannot be"),
    "another dataset": ([(ALL, "d.h5", "entry/data/mask", WHOLE, ALL)], {}, "is not where its"),
    "no master": ([RIGHT], {"master": None}, "does not name its master"),
    "a number for a master": ([RIGHT], {"master": 7}, "does not name its master"),
    "a master elsewhere": ([RIGHT], {"master": "../x_master.h5"}, "cannot be the name"),
    "signed pixels": ([RIGHT], {"dtype": np.int16}, "int16, not unsigned"),
    "real pixels": ([RIGHT], {"dtype": np.float32}, "float32, not unsigned"),
    "four dimensions": (
        [((slice(None),) * 4, "d.h5", DATA, (3, 1, *SHAPE), (slice(None),) * 4)],
        {"shape": (3, 1, *SHAPE)},
        "no images of shape",
    ),
    "an image twice": (
        [RIGHT, (np.s_[1:2, :, :], "d.h5", DATA, WHOLE, np.s_[0:1, :, :])],
        {},
        "image 2 is there twice",
    ),
    "a hole": (
        [(np.s_[0:2, :, :], "d.h5", DATA, WHOLE, np.s_[0:2, :, :])],
        {},
        "images 3 to 3 is neither shown nor listed",
    ),
    "a hole among those listed": (
        [(np.s_[1:2, :, :], "d.h5", DATA, WHOLE, np.s_[0:1, :, :])],
        {"missing": np.array([2, 2, 9], np.uint32)},
        "images 1 to 1 is neither shown nor listed",
    ),
    "half an image": (
        [(np.s_[:, :30, :], "d.h5", DATA, WHOLE, np.s_[:, :30, :])],
        {},
        r"\(30, 53\) in d\.h5, \(37, 53\) shown",
    ),
    "a shifted image": (
        [(np.s_[:, :-1, :], "d.h5", DATA, WHOLE, np.s_[:, 1:, :])],
        {},
        "something else than whole images",
    ),
    "every second image": (
        [(np.s_[0:2, :, :], "d.h5", DATA, WHOLE, np.s_[::2, :, :])],
        {"missing": np.array([2], np.uint32)},
        "something else than whole images",
    ),
    "images of another shape": (
        [(ALL, "d.h5", DATA, (3, 53, 37), ALL)],
        {},
        r"\(53, 37\) in d\.h5, \(37, 53\) shown",
    ),
    "words for what is missing": ([RIGHT], {"missing": "none"}, "no list of places"),
}


@pytest.mark.parametrize(("mappings", "more", "said"), HOSTILE.values(), ids=HOSTILE)
def test_what_only_looks_like_a_view_is_refused(tmp_path, write_data, mappings, more, said):
    write_data(tmp_path / "d.h5", np.ones(WHOLE, np.uint16))
    path = craft(tmp_path / "h_view.h5", *mappings, **more)
    with pytest.raises(FileError, match=said):
        open_series(path)


def test_the_same_without_the_fault_is_read(tmp_path, write_data):
    stack = np.random.default_rng(2).integers(0, 9, WHOLE, np.uint16)
    write_data(tmp_path / "d.h5", stack)
    assert np.array_equal(open_series(craft(tmp_path / "h_view.h5", RIGHT))[:], stack)


def test_files_of_any_number(tmp_path, write_data):
    """HDF5 puts numbers for %b: d_0.h5, d_1.h5 ... as far as there are any."""
    write_data(tmp_path / "d_0.h5", np.ones((1, *SHAPE), np.uint16))
    path = tmp_path / "h_view.h5"
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        layout = h5py.VirtualLayout((1, *SHAPE), np.uint16, (None, *SHAPE))
        target = h5py.h5s.create_simple((1, *SHAPE), (h5py.h5s.UNLIMITED, *SHAPE))
        target.select_hyperslab((0, 0, 0), (h5py.h5s.UNLIMITED, 1, 1), (1, 1, 1), (1, *SHAPE))
        source = h5py.h5s.create_simple((1, *SHAPE))
        settings_ = layout._get_dcpl(str(path).encode())
        settings_.set_virtual(target, b"d_%b.h5", DATA.encode(), source)
        group = file.create_group("entry/data")
        kind = h5py.h5t.py_create(np.dtype(np.uint16))
        h5py.h5d.create(group.id, b"data", kind, target, settings_)
        group.attrs["master"] = "x_master.h5"
    with pytest.raises(FileError, match=r"'d_%b\.h5' cannot be"):
        open_series(path)


def test_a_view_of_a_view(make):
    folder, files = make(3)
    inner, _ = write(folder, [(0, 7)], files, name="inner_view.h5")
    outer, _ = write(folder, [(0, 7)], [Part(inner, 0, 7)])
    with pytest.raises(ChunkError, match=r"inner_view\.h5: image 1 .* in no chunk"):
        open_series(outer)[0]


def test_a_link_in_place_of_the_images(make, tmp_path):
    folder, files = make(3)
    path = tmp_path / "h_view.h5"
    with h5py.File(path, "w") as file:
        file[DATA] = h5py.ExternalLink(str(write(folder, [(0, 7)], files)[0]), DATA)
    with pytest.raises(FileError, match="no images of shape"):
        open_series(path)


def test_a_view_may_promise_anything(tmp_path, write_data):
    """Nothing is laid out for images that no file has."""
    write_data(tmp_path / "d.h5", np.ones(WHOLE, np.uint16))
    wide = (3, 2**20, 2**20)
    path = craft(tmp_path / "h_view.h5", (ALL, "d.h5", DATA, wide, ALL), shape=wide)
    tracemalloc.start()
    with pytest.raises(FileError, match="1048576 x 1048576"):
        open_series(path)[:]
    long = (2**40, *SHAPE)
    path = craft(tmp_path / "l_view.h5", (ALL, "d.h5", DATA, long, ALL), shape=long)
    with pytest.raises(FileError, match="3 images found, image 1099511627776 is"):
        open_series(path)[0]
    beyond = (2**52, *SHAPE)
    for name, master in (("b_view.h5", "x_master.h5"), ("b_master.h5", None)):
        mapped = (ALL, "d.h5", DATA, beyond, ALL)
        path = craft(tmp_path / name, mapped, shape=beyond, master=master)
        with pytest.raises(FileError, match=rf"{name}: {2**52} images .* more than can be"):
            open_series(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()


def test_a_damaged_view_is_an_error_or_has_the_right_images(make, images):
    """Each of its bytes in turn, before HDF5 sees it: no crash, no wrong number."""
    folder, files = make(3)
    view, _ = write(folder, [(0, 2), (4, 3)], files)
    whole = view.read_bytes()
    refused = 0
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        view.write_bytes(damaged)
        try:
            found = open_series(view)[:]
        except FileError:
            refused += 1
        else:
            assert np.array_equal(found, images[[0, 1, 4, 5, 6]])
    assert refused > 0.95 * len(whole) / 7


def test_notes_may_be_added_to_a_view(make, images):
    folder, files = make(3)
    view, _ = write(folder, [(2, 4)], files)
    with h5py.File(view, "a") as file:
        file["entry/title"] = "what was seen in it"
    assert np.array_equal(open_series(view)[:], images[2:6])


def test_a_view_cut_off_anywhere(make, images):
    folder, files = make(3)
    view, _ = write(folder, [(0, 2), (4, 3)], files)
    whole = view.read_bytes()
    end = whole.index(b"ophyd_eiger view, sha256")
    for size in range(0, end, 97):
        view.write_bytes(whole[:size])
        with pytest.raises(FileError):
            open_series(view)[:]
    for size in range(end, len(whole), 9):
        view.write_bytes(whole[:size])
        assert np.array_equal(open_series(view)[:], images[[0, 1, 4, 5, 6]])


def test_a_view_has_no_channels(make):
    folder, files = make(3)
    path, _ = write(folder, [(0, 7)], files)
    assert open_series(path).channels == ()
    with pytest.raises(FileError, match="no channel 'threshold_1'; it has none"):
        open_series(path, channel="threshold_1")
