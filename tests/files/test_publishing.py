"""When files appear, and under which names."""

import threading
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from written import armed, data_names, names, write_series

from sim_dcu import oracle
from sim_dcu.filestore import FileStore
from sim_dcu.filewriter import SeriesWriter
from sim_dcu.images import ImageSource
from sim_dcu.places import put_in_place


def stacks(master):
    """Return every image of a series by way of its master file, one stack a data file."""
    with h5py.File(master) as file:
        return [file["entry/data"][name][()] for name in sorted(file["entry/data"])]


def test_links_are_made_at_arm_for_files_that_never_come(tmp_path, generation):
    series = armed(generation, nimages=7, nimages_per_file=3)
    writer = SeriesWriter(tmp_path, series)
    writer.write_master()
    assert [name for name in names(tmp_path) if name[0] != "."] == ["series_7_master.h5"]
    with h5py.File(tmp_path / "series_7_master.h5") as file:
        data = file["entry/data"]
        links = {name: data.get(name, getlink=True) for name in data}
    # As in a real 9M's file, and as a user of DIALS printed it of a real EIGER2 XE 9M's.
    target = {1: "entry/data/data", 2: "/entry/data/data"}[generation]
    assert {name: (link.filename, link.path) for name, link in links.items()} == {
        f"data_00000{k}": (f"series_7_data_00000{k}.h5", target) for k in (1, 2, 3)
    }
    writer.close()
    assert names(tmp_path) == ["series_7_master.h5"]


@pytest.mark.parametrize("per_file", [1, 2, 5])
def test_a_data_file_appears_when_it_is_full_and_only_complete(tmp_path, generation, per_file):
    series = armed(generation, nimages=5, nimages_per_file=per_file)
    writer, source = SeriesWriter(tmp_path, series), ImageSource(series)
    writer.write_master()
    for number in range(1, 6):
        writer.add(number, source.chunk(number))
        # With its last image the series is over, and its last, short file complete.
        full = -(-5 // per_file) if number == 5 else number // per_file
        shown = sorted(path.name for path in tmp_path.glob("[!.]*_data_*"))
        assert shown == data_names(full)
        for index, name in enumerate(shown):
            with h5py.File(tmp_path / name) as file:
                assert len(file["entry/data/data"]) == min(per_file, 5 - index * per_file)
    writer.close()
    assert names(tmp_path) == [*data_names(-(-5 // per_file)), "series_7_master.h5"]


@pytest.mark.parametrize(("came", "files"), [(0, []), (1, [1]), (3, [3]), (4, [3, 1])])
def test_a_series_that_ends_early_keeps_what_came(tmp_path, generation, came, files):
    series = armed(generation, nimages=7, nimages_per_file=3)
    write_series(tmp_path, series, images=came)
    assert names(tmp_path) == [*data_names(len(files)), "series_7_master.h5"]
    for index, count in enumerate(files):
        with h5py.File(tmp_path / data_names(2)[index]) as file:
            dataset = file["entry/data/data"]
            assert len(dataset) == count
            assert dataset.attrs["image_nr_low"] == 3 * index + 1
            assert dataset.attrs["image_nr_high"] == 3 * index + count
            np.testing.assert_array_equal(dataset[-1], oracle.image(series, 3 * index + count))


@pytest.mark.parametrize("came", [0, 2, 4])
def test_a_master_that_holds_the_images_appears_at_the_end(tmp_path, generation, came):
    series = armed(generation, nimages=4, nimages_per_file=0)
    writer, source = SeriesWriter(tmp_path, series), ImageSource(series)
    writer.write_master()
    for number in range(1, came + 1):
        writer.add(number, source.chunk(number))
    assert not list(tmp_path.glob("[!.]*"))
    writer.close()
    assert names(tmp_path) == ["series_7_master.h5"]
    (stack,) = stacks(tmp_path / "series_7_master.h5")
    assert stack.shape == (came, *series.shape)
    for number, image in enumerate(stack, start=1):
        np.testing.assert_array_equal(image, oracle.image(series, number))


def test_pixels_of_an_image_cut_off_read_as_the_generation_fills_them(tmp_path, generation):
    """No file of ours shows such a pixel; what HDF5 would give is part of the layout."""
    series = armed(generation, nimages=2)
    write_series(tmp_path, series, images=1)
    with h5py.File(tmp_path / "series_7_data_000001.h5", "r+") as file:
        dataset = file["entry/data/data"]
        dataset.resize(2, axis=0)
        assert (dataset[1] == (0 if generation == 1 else 65535)).all()


def test_image_numbers_start_where_they_are_told_to(tmp_path, generation):
    series = armed(generation, nimages=5, nimages_per_file=2, image_nr_start=100)
    write_series(tmp_path, series)
    found = []
    for name in data_names(3):
        with h5py.File(tmp_path / name) as file:
            attributes = file["entry/data/data"].attrs
            found.append((attributes["image_nr_low"], attributes["image_nr_high"]))
    assert found == [(100, 101), (102, 103), (104, 104)]


def test_files_of_the_same_name_are_replaced(tmp_path, generation):
    write_series(tmp_path, armed(generation, nimages=2, name_pattern="same"))
    other = armed(generation, nimages=1, name_pattern="same", series_id=8)
    (stack,) = stacks(write_series(tmp_path, other))
    assert len(stack) == 1
    np.testing.assert_array_equal(stack[0], oracle.image(other, 1))


PATTERNS = {
    "series_$id": "series_7",
    "scan": "scan",
    "$id": "7",
    "a$id_b$id": "a7_b7",
    "lysozyme/day_1/x_$id": "lysozyme/day_1/x_7",
    "run_$id/x": "run_7/x",
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_name_pattern_names_files_and_folders(tmp_path, generation, pattern):
    series = armed(generation, nimages=3, nimages_per_file=2, name_pattern=pattern)
    master = write_series(tmp_path, series)
    start = PATTERNS[pattern]
    assert master == tmp_path / f"{start}_master.h5"
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.h5"))
    assert found == [*data_names(2, start), f"{start}_master.h5"]
    # The links hold bare names, so they resolve in a folder too, wherever it is moved.
    assert [len(stack) for stack in stacks(master)] == [2, 1]


@pytest.mark.long
def test_a_client_that_empties_a_folder_is_not_in_the_way_of_the_next_file(tmp_path):
    """Each file is deleted as soon as it is listed, as clients do that fetch them."""
    store = FileStore(tmp_path / "data")
    over = threading.Event()

    def delete_all():
        while not over.is_set():
            for name in store.names():
                store.delete(name)

    with ThreadPoolExecutor() as pool:
        client = pool.submit(delete_all)
        try:
            for number in range(10_000):
                made = tmp_path / "made"
                made.write_bytes(b"")
                put_in_place(made, store.folder / f"day/crystal/x_data_{number:06d}.h5")
        finally:
            over.set()
        client.result()
    store.close()


def test_a_pattern_without_the_id_overwrites_each_series(tmp_path, generation):
    """What the longer series before it left stays: nothing links to it any more."""
    write_series(tmp_path, armed(generation, nimages=3, nimages_per_file=1, name_pattern="x"))
    other = armed(generation, nimages=1, nimages_per_file=1, name_pattern="x", series_id=8)
    (stack,) = stacks(write_series(tmp_path, other))
    np.testing.assert_array_equal(stack[0], oracle.image(other, 1))
    assert names(tmp_path) == [*data_names(3, "x"), "x_master.h5"]


@pytest.mark.parametrize("name", ["x_master.h5", "x_data_000001.h5"])
def test_who_reads_a_file_that_is_overwritten_reads_all_of_the_old_one(tmp_path, generation, name):
    """Files are put in place at once: their old content never turns into the new one."""
    write_series(tmp_path, armed(generation, name_pattern="x"))
    old = (tmp_path / name).read_bytes()
    with (tmp_path / name).open("rb") as reading:
        other = armed(generation, nimages=3, name_pattern="x", series_id=8)
        write_series(tmp_path, other)
        assert reading.read() == old
    assert (tmp_path / name).read_bytes() != old
