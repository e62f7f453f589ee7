"""Which image is where: files of any number, missing, short and late ones, and every layout."""

import concurrent.futures
import multiprocessing
import os
import pickle
import threading

import fabio
import h5py
import hdf5plugin
import numpy as np
import pytest
from nexus_layout import CHANNELS, write_nexus
from written import armed, write_series

from ophyd_eiger import codecs
from ophyd_eiger.check import check_data_file
from ophyd_eiger.errors import ChunkError, CodecError, FileError, MissingFileError
from ophyd_eiger.image_file import Room, look_into
from ophyd_eiger.images import IMAGES as PLACE
from ophyd_eiger.reader import open_series
from sim_dcu import oracle

# Of each test's cases the short run takes every 2nd, see conftest.
SHORT_RUN_EVERY = 2

IMAGES = np.random.default_rng(4).integers(0, 2**16, (250, 5, 8), np.uint16)


@pytest.fixture
def make(tmp_path, write_data, write_master):
    """Write a series: `make([100, 100, 50])` images in its files, and return its master."""

    def make(counts, *, start=1, numbered=True, promised=None, name="s"):
        names, first = [], 0
        for number, count in enumerate(counts, 1):
            names.append(f"{name}_data_{number:06d}.h5")
            path = write_data(
                tmp_path / names[-1], IMAGES[first : first + count], first=first + start
            )
            if not numbered:
                with h5py.File(path, "a") as file:
                    del file["entry/data/data"].attrs["image_nr_low"]
            first += count
        total = first if promised is None else promised
        return write_master(tmp_path / f"{name}_master.h5", names, nimages=total)

    return make


def data(master, number):
    return master.with_name(f"s_data_{number:06d}.h5")


def renumber(path, **numbers):
    """Write other numbers of its first (`low`) and last (`high`) image; None leaves it out."""
    with h5py.File(path, "a") as file:
        for end, number in numbers.items():
            del file["entry/data/data"].attrs[f"image_nr_{end}"]
            if number is not None:
                file["entry/data/data"].attrs[f"image_nr_{end}"] = number


def counts_of(total, per_file):
    return [min(per_file, total - first) for first in range(0, total, per_file)]


@pytest.mark.parametrize(("total", "per_file"), [(250, 100), (30, 1), (50, 3), (250, 7)])
@pytest.mark.parametrize("start", [1, 11])
def test_each_number_is_the_right_image(make, total, per_file, start):
    series = open_series(make(counts_of(total, per_file), start=start))
    assert series.shape == (total, 5, 8)
    assert np.array_equal(series[:], IMAGES[:total])
    assert np.array_equal(series.dask(7).compute(), IMAGES[:total])
    for number in range(0, total, max(1, total // 40)):
        assert np.array_equal(series[number], IMAGES[number])
        assert np.array_equal(series[number - total], IMAGES[number])
    assert series.there.tolist() == list(range(total))


@pytest.mark.parametrize("numbered", [True, False], ids=["numbered", "unnumbered"])
@pytest.mark.parametrize(("per_file", "lost"), [(100, 2), (7, 20), (3, 41), (100, 1), (7, 1)])
def test_a_file_that_is_missing_leaves_a_gap(make, per_file, lost, numbered):
    counts = counts_of(250, per_file)
    master = make(counts, numbered=numbered)
    data(master, lost).unlink()
    series = open_series(master)
    gap = range((lost - 1) * per_file, lost * per_file)
    assert series.shape == (250, 5, 8)
    assert series.missing == (data(master, lost),)
    assert data(master, lost) not in series.files
    assert series.there.tolist() == [n for n in range(250) if n not in gap]
    assert np.array_equal(series[series.there], IMAGES[series.there])
    assert np.array_equal(series.dask()[gap.stop :].compute(), IMAGES[gap.stop :])
    for number in (gap[0], gap[-1], slice(None)):
        with pytest.raises(MissingFileError, match=f"s_data_{lost:06d}.h5 is missing"):
            series[number]
    assert np.array_equal(series.sum(series.there), summed(IMAGES[series.there]))


def summed(images):
    """Return what plain numpy makes of a sum, and the largest value where there is none."""
    total = images.sum(axis=0, dtype=np.uint64)
    total[(images == np.iinfo(images.dtype).max).any(axis=0)] = 2**64 - 1
    return total


@pytest.mark.parametrize("lost", [{3}, {2, 3}, {1, 2}, {1, 3}])
def test_whichever_file_is_there(make, lost):
    master = make([100, 100, 50])
    for number in lost:
        data(master, number).unlink()
    series = open_series(master)
    kept = [n for n in range(250) if n // 100 + 1 not in lost]
    assert series.there.tolist() == kept
    assert len(series) == kept[-1] + 1
    assert np.array_equal(series[kept], IMAGES[kept])


@pytest.mark.parametrize("numbered", [True, False], ids=["numbered", "unnumbered"])
@pytest.mark.parametrize("only", [1, 2, 3, 4])
def test_whichever_file_alone_of_a_series_that_ended_early(make, only, numbered):
    """Ten files of 10 images were armed for, and the fourth one got 5."""
    master = make([10, 10, 10, 5], promised=100, numbered=numbered)
    for number in range(5, 11):
        with h5py.File(master, "a") as file:
            link = h5py.ExternalLink(data(master, number).name, "entry/data/data")
            file[f"entry/data/data_{number:06d}"] = link
    for number in {1, 2, 3, 4} - {only}:
        data(master, number).unlink()
    if only == 4 and not numbered:
        with pytest.raises(FileError, match="do not tell which images they have"):
            open_series(master)
        return
    series = open_series(master)
    kept = list(range(10 * (only - 1), min(10 * only, 35)))
    assert series.there.tolist() == kept
    assert np.array_equal(series[kept], IMAGES[kept])
    if only > 1:
        with pytest.raises(MissingFileError, match=r"s_data_000001.h5 is missing"):
            series[0]


def test_a_short_last_file_and_files_that_never_came(make):
    master = make([100, 100, 50], promised=500)
    for number in (4, 5):
        with h5py.File(master, "a") as file:
            link = h5py.ExternalLink(data(master, number).name, "entry/data/data")
            file[f"entry/data/data_{number:06d}"] = link
    series = open_series(master)
    assert np.array_equal(series[:], IMAGES)
    assert series.missing == (data(master, 4), data(master, 5))
    with pytest.raises(MissingFileError, match=r"500 images promised, 250 found.*s_data_000004"):
        series[450]
    with pytest.raises(IndexError):
        series[500]


@pytest.mark.parametrize("files", [4, 40])
def test_a_short_file_in_the_middle(make, write_data, files):
    """What it has is served under its number, what it lacks is said."""
    master = make([3] * files)
    write_data(data(master, 2), IMAGES[3:5], first=4)
    series = open_series(master)
    assert len(series) == 3 * files
    there = [n for n in range(3 * files) if n != 5]
    assert np.array_equal(series[there], IMAGES[there])
    with pytest.raises((FileError, MissingFileError), match=r"image 6 of|image 3 is one"):
        series[5]


@pytest.mark.parametrize("short", [{6}, {2, 9, 10}])
@pytest.mark.parametrize("files", [14, 20, 40])
def test_short_files_in_the_middle_of_few_or_many(make, write_data, files, short):
    """However many files there are, the same is said of them."""
    master = make([3] * files)
    lacking = [3 * number - 1 for number in sorted(short)]
    for number, lacks in zip(sorted(short), lacking, strict=True):
        write_data(data(master, number), IMAGES[lacks - 2 : lacks], first=lacks - 1)
    there = [n for n in range(3 * files) if n not in lacking]
    asked = {
        "an image": lambda series: series[lacking[-1]],
        "all": lambda series: series[:],
        "a sum": lambda series: series.sum(),
        "the largest": lambda series: series.max(),
        "pixels": lambda series: series[:, [1, 2], [3, 4]],
        "regions": lambda series: series.roi_sums({"r": (1, 1, 2, 2)}),
    }
    for what, ask in asked.items():
        series = open_series(master)
        with pytest.raises(MissingFileError, match=r"image \d+ of \d+ did not come$") as caught:
            ask(series)
        assert caught.value.__context__ is None, what
        # From here on it is known.
        for _ in range(2):
            assert (len(series), series.gap) == (3 * files, len(lacking))
            assert series.there.tolist() == there
            assert repr(series).endswith(f", {len(lacking)} images not there>")
            series.refresh()
    series = open_series(master)
    assert np.array_equal(series.sum(series.there), summed(IMAGES[there]))
    assert np.array_equal(series[series.there], IMAGES[there])
    assert open_series(master).gap == len(lacking)


def test_many_files_are_not_looked_into_before_they_are_needed(make):
    master = make([1] * 40)
    with data(master, 20).open("r+b") as file:
        file.write(b"no HDF5 file")
    series = open_series(master)
    assert len(series) == 40
    assert series.gap == 0
    assert np.array_equal(series[30], IMAGES[30])
    for _ in range(2):
        with pytest.raises(FileError, match=r"s_data_000020.h5: not a whole HDF5 file"):
            _ = series.there
        assert np.array_equal(series.refresh()[:19], IMAGES[:19])


def test_a_file_of_another_series_among_many(make, write_data):
    master = make([2] * 30)
    write_data(data(master, 9), IMAGES[:2], first=201)
    series = open_series(master)
    with pytest.raises(FileError, match=r"s_data_000009.h5: .* numbered from 201, 17 expected"):
        series[16]
    assert np.array_equal(series[18], IMAGES[18])


def test_two_files_that_say_to_have_the_same_images(make, write_data):
    """As where one of them is left of a series before."""
    master = make([3, 3, 2])
    write_data(data(master, 3), IMAGES[:2], first=1)
    with pytest.raises(FileError, match=r"000003.h5 .* from 1 on, and .*000002.h5 3 from 4 on"):
        open_series(master)


def test_files_that_each_count_from_one(make, write_data):
    master = make([3, 3, 2])
    for number, first in ((2, 3), (3, 6)):
        write_data(data(master, number), IMAGES[first : first + 3][: 8 - first])
    assert np.array_equal(open_series(master)[:], IMAGES[:8])


@pytest.mark.parametrize(
    ("number", "low"),
    [(1, 0), (1, -1), (1, 2**63), (2, 4), (2, 6), (3, 100), (3, 10**9)],
)
@pytest.mark.parametrize("promised", [10, 40, None])
def test_a_file_whose_first_number_is_wrong(make, caplog, number, low, promised):
    """Its last one and the numbers of images in all files say where its images belong."""
    master = make([4, 4, 2], promised=promised)
    renumber(data(master, number), low=low)
    series = open_series(master)
    assert (series.shape, series.gap) == ((10, 5, 8), 0)
    assert np.array_equal(series[:], IMAGES[:10])
    series.refresh()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert f"{data(master, number).name} says that its first image is number {low};" in said[0]


def test_a_first_number_that_is_wrong_among_many(make, caplog):
    master = make([2] * 30)
    renumber(data(master, 9), low=400)
    assert np.array_equal(open_series(master)[:], IMAGES[:60])
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert "s_data_000009.h5 says that its first image is number 400; it is taken for" in said[0]


@pytest.mark.parametrize(
    ("number", "low", "high"),
    [(3, 100, 101), (3, 10**9, 10**9 + 1), (1, -5, -2), (2, 4, 7), (2, 6, 9), (3, 100, None)],
)
def test_a_file_that_may_be_of_another_series(make, number, low, high):
    """Its two numbers contradict the other files alike: it is not told where it belongs."""
    master = make([4, 4, 2])
    renumber(data(master, number), low=low, high=high)
    with pytest.raises(FileError, match=r"s_data_00000[123].h5 says .* is of another series"):
        open_series(master)


def test_a_number_beyond_all_images_where_a_file_is_missing(make):
    master = make([4, 4, 2])
    data(master, 2).unlink()
    renumber(data(master, 3), low=10**9, high=10**9 + 1)
    with pytest.raises(FileError, match=r"000003.h5 says to have images from 1000000000 on, which"):
        open_series(master)


@pytest.mark.parametrize("low", [2**31, 10**18, 2**63 - 2])
@pytest.mark.parametrize("promised", [None, 10**30])
def test_a_number_beyond_those_of_any_series(make, tmp_path, low, promised):
    """With a master that promises nothing, or anything, and without one."""
    master = make([2, 2], promised=0)
    with h5py.File(master, "a") as file:
        specific = file["entry/instrument/detector/detectorSpecific"]
        del specific["nimages"]
        if promised:
            specific["nimages"] = str(promised)
    renumber(data(master, 2), low=low, high=low + 1)
    said = r"s_data_000002.h5.* which cannot be in|s_data_000002.h5: .* more than can be"
    if promised and low == 2**31:
        assert np.array_equal(open_series(master)[2**31 - 1 :], IMAGES[2:4])
    else:
        with pytest.raises(FileError, match=said):
            open_series(master)
    master.unlink()
    with pytest.raises(FileError, match=r"s_data_000002.h5 says to have images from \d+ on, which"):
        open_series(tmp_path)
    assert np.array_equal(open_series(data(master, 2))[:], IMAGES[2:4])


@pytest.mark.parametrize("start", [1, 11])
def test_links_in_another_order_than_the_images(make, start):
    master = make([4, 4, 2], start=start)
    with h5py.File(master, "a") as file:
        links = file["entry/data"]
        for number, target in ((1, 2), (2, 3), (3, 1)):
            del links[f"data_{number:06d}"]
            name = data(master, target).name
            links[f"data_{number:06d}"] = h5py.ExternalLink(name, "entry/data/data")
    series = open_series(master)
    assert np.array_equal(series[:], IMAGES[:10])
    assert series.files == tuple(data(master, number) for number in (1, 2, 3))
    data(master, 2).unlink()
    with pytest.raises(FileError, match="one of them is of another series"):
        open_series(master)


@pytest.mark.parametrize("only", [2, 3])
def test_a_later_file_alone_that_counts_from_one(make, write_data, only):
    master = make([3, 3, 3])
    for number in {1, 2, 3} - {only}:
        data(master, number).unlink()
    first = 3 * (only - 1)
    write_data(data(master, only), IMAGES[first : first + 3])
    series = open_series(master)
    assert series.there.tolist() == [first, first + 1, first + 2]
    assert np.array_equal(series[first:], IMAGES[first : first + 3])
    with pytest.raises(MissingFileError, match=r"s_data_000001.h5 is missing"):
        series[0]


def test_a_short_file_alone_that_counts_from_one(make, write_data):
    master = make([3, 3, 3])
    data(master, 1).unlink()
    data(master, 3).unlink()
    write_data(data(master, 2), IMAGES[3:5])
    with pytest.raises(FileError, match=r"s_data_000001.h5 is missing.*do not tell"):
        open_series(master)


@pytest.mark.parametrize("number", [5, 9])
def test_a_folder_whose_files_are_numbered_from_another_number(tmp_path, write_data, number):
    """Nothing says that there were any before."""
    write_data(tmp_path / f"s_data_{number:06d}.h5", IMAGES[:3])
    assert np.array_equal(open_series(tmp_path)[:], IMAGES[:3])
    write_data(tmp_path / f"s_data_{number + 1:06d}.h5", IMAGES[3:5], first=4)
    assert np.array_equal(open_series(tmp_path)[:], IMAGES[:5])


def test_numbers_that_cannot_be_told(make):
    master = make([3, 2, 4], numbered=False)
    assert np.array_equal(open_series(master)[:], IMAGES[:9])
    data(master, 1).unlink()
    with pytest.raises(FileError, match=r"s_data_000001.h5 is missing.*do not tell"):
        open_series(master)


def test_it_grows_while_files_arrive(make, tmp_path):
    master = make([100, 100, 50])
    aside = [data(master, n).rename(tmp_path / f"aside{n}") for n in (2, 3)]
    series = open_series(master)
    assert len(series) == 100
    aside[0].rename(data(master, 2))
    assert len(series) == 100
    assert len(series.refresh()) == 200
    with pytest.raises(MissingFileError):
        series[249]
    aside[1].rename(data(master, 3))
    assert np.array_equal(series[249], IMAGES[249])
    assert len(series) == 250


def test_a_missing_file_that_comes_is_read_without_being_told(make, tmp_path):
    master = make([100, 100, 50])
    aside = data(master, 2).rename(tmp_path / "aside")
    series = open_series(master)
    aside.rename(data(master, 2))
    assert np.array_equal(series[:], IMAGES)
    assert series.missing == ()


def test_a_file_that_was_replaced_is_read_anew(make, write_data):
    master = make([3, 3])
    series = open_series(master)
    assert np.array_equal(series[1], IMAGES[1])
    # Other sizes, hence other places in the file.
    images = IMAGES[100:103] // 5000
    write_data(master.with_name("other"), images).replace(data(master, 1))
    assert np.array_equal(series[:3], images)


def test_what_a_caller_gives_is_filled(make):
    series = open_series(make([3, 3]))
    out = np.zeros((4, 5, 8), np.uint16)
    assert series.read(1, 5, out=out) is out
    assert np.array_equal(out, IMAGES[1:5])
    out.flags.writeable = False
    before = out.copy()
    with pytest.raises(ValueError, match=r"do not go into an array that is read-only"):
        series.read(0, 4, out=out)
    assert np.array_equal(out, before)
    wide = np.zeros((4, 5, 16), np.uint16)
    series.read(1, 5, out=wide[:, :, ::2])
    assert np.array_equal(wide[:, :, ::2], IMAGES[1:5])
    assert not wide[:, :, 1::2].any()
    for wrong in (np.zeros((3, 5, 8), np.uint16), np.zeros((4, 5, 8), np.uint32)):
        with pytest.raises(ValueError, match="do not go into"):
            series.read(1, 5, out=wrong)


# ---- what it is opened by


def test_a_folder_with_one_series(make, tmp_path):
    master = make([3, 2])
    assert open_series(tmp_path).path == tmp_path
    assert np.array_equal(open_series(tmp_path)[:], IMAGES[:5])
    (tmp_path / ".s_data_000003.h5.part").write_bytes(b"on its way")
    master.unlink()
    assert np.array_equal(open_series(str(tmp_path))[:], IMAGES[:5])
    data(master, 1).unlink()
    series = open_series(tmp_path)
    assert series.missing == (data(master, 1),)
    assert np.array_equal(series[3:], IMAGES[3:5])


def test_a_folder_with_a_file_of_a_number_beyond_all_others(make, tmp_path):
    make([3])
    (tmp_path / "s_master.h5").unlink()
    name = f"s_data_{10**12}.h5"
    (tmp_path / "s_data_000001.h5").with_name(name).write_bytes(b"")
    with pytest.raises(FileError, match=rf"{name}: 2 data files are there, far fewer than"):
        open_series(tmp_path)


def test_a_folder_with_several_or_none(make, tmp_path):
    make([3])
    make([2], name="t")
    for newest, older in (("s", "t"), ("t", "s")):
        for path in tmp_path.glob("*.h5"):
            os.utime(path, (0, 2 if path.name.startswith(newest) else 1))
        said = rf"2 series in it, open one of {newest}_master.h5, {older}_master.h5; the newest is"
        with pytest.raises(FileError, match=said):
            open_series(tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(FileError, match=r"empty: no master file and no data file"):
        open_series(empty)


@pytest.mark.parametrize("together", [False, True], ids=["chunk a channel", "chunk an image"])
def test_the_layout_with_channels(tmp_path, together):
    stack = np.random.default_rng(6).integers(0, 999, (7, 2, 33, 61), np.uint32)
    master = write_nexus(tmp_path, stack, 3, together=together)
    with h5py.File(master) as file:
        assert np.array_equal(file["entry/data/data"][()], stack), "HDF5 reads the same"
    assert open_series(master).channels == CHANNELS
    for number, channel in enumerate(CHANNELS):
        series = open_series(master, channel=channel)
        assert np.array_equal(series[:], stack[:, number])
        assert np.array_equal(series[2:6, 20:30, 7], stack[2:6, number, 20:30, 7])
        assert (series.mask == number + 1).all()
        assert series.metadata.threshold_energy == 4000 * (number + 1)
    assert np.array_equal(open_series(master)[:], stack[:, 0])
    for path in sorted(tmp_path.glob("n_data_*.h5")):
        alone = open_series(path, channel="threshold_2")
        assert np.array_equal(alone[0], stack[3 * (int(path.stem[-6:]) - 1), 1])
        assert (alone.mask == 2).all()
    with pytest.raises(FileError, match="no channel 'difference'; it has threshold_1, threshold_2"):
        open_series(master, channel="difference")
    (tmp_path / "n_data_000002.h5").unlink()
    series = open_series(master)
    assert series.there.tolist() == [0, 1, 2, 6]
    assert np.array_equal(series[6], stack[6, 0])
    with pytest.raises(MissingFileError, match=r"n_data_000002.h5 is missing"):
        series[3]


def test_a_group_of_links_for_each_channel(make, tmp_path):
    master = make([3, 2])
    for number, first in ((1, 0), (2, 3)):
        with h5py.File(data(master, number), "a") as file:
            for channel, lies in ((1, 0), (2, 100)):
                stack = IMAGES[lies + first : lies + [3, 5][number - 1]]
                place = f"entry/data/threshold_{channel}/data"
                file.create_dataset(place, data=stack, chunks=(1, 5, 8))
                file[place].attrs["image_nr_low"] = first + 1
            del file["entry/data/data"]
    with h5py.File(master, "a") as file:
        links = file["entry/data"]
        for number in (1, 2):
            del links[f"data_{number:06d}"]
            for channel in ("threshold_1", "threshold_2"):
                link = h5py.ExternalLink(data(master, number).name, f"entry/data/{channel}/data")
                links[f"{channel}/data_{number:06d}"] = link
    assert open_series(master).channels == ("threshold_1", "threshold_2")
    assert np.array_equal(open_series(master)[:], IMAGES[:5])
    series = open_series(master, channel="threshold_2")
    assert np.array_equal(series[:], IMAGES[100:105])
    assert series.files == (data(master, 1), data(master, 2))
    data(master, 1).unlink()
    assert series.refresh().there.tolist() == [3, 4]
    with pytest.raises(FileError, match="no channel 'difference'; it has threshold_1, threshold_2"):
        open_series(master, channel="difference")


def test_a_last_file_that_has_fewer_images_than_it_is_mapped_for(tmp_path):
    stack = np.random.default_rng(6).integers(0, 999, (8, 2, 33, 61), np.uint32)
    master = write_nexus(tmp_path, stack, 4, together=False)
    write_nexus(tmp_path / "short", stack[:6], 4, together=False)
    (tmp_path / "short/n_data_000002.h5").replace(tmp_path / "n_data_000002.h5")
    series = open_series(master)
    assert len(series) == 6
    assert series.there.tolist() == list(range(6))
    assert series.gap == 0
    assert np.array_equal(series.sum(series.there), stack[:6, 0].sum(axis=0))


# What a DCU never writes, and others do: several images a chunk, or none of them in chunks.
STORED = {
    "in a row of bytes": ((7, 33, 61), None),
    "3 images a chunk": ((7, 33, 61), (3, 33, 61)),
    "more room than images": ((7, 33, 61), (8, 33, 61)),
    "channels in a row of bytes": ((7, 2, 33, 61), None),
    "3 images with channels a chunk": ((7, 2, 33, 61), (3, 2, 33, 61)),
    "3 images of the only channel a chunk": ((7, 1, 33, 61), (3, 1, 33, 61)),
}


@pytest.mark.parametrize("userblock", [0, 512])
@pytest.mark.parametrize(
    ("stored", "code"),
    # HDF5 compresses only what is in chunks.
    [
        (name, code)
        for name in STORED
        for code in (None, "lz4", "bslz4")[: 3 if STORED[name][1] else 1]
    ],
)
def test_images_that_are_stored_otherwise(tmp_path, stored, userblock, code):
    shape, chunks = STORED[stored]
    filters = {None: {}, "lz4": hdf5plugin.LZ4(nbytes=2048), "bslz4": hdf5plugin.Bitshuffle()}
    stack = np.random.default_rng(8).integers(0, 999, shape, np.uint32)
    path = tmp_path / "o_data_000001.h5"
    with h5py.File(path, "w", userblock_size=userblock) as file:
        room = chunks and (None, *shape[1:])
        file.create_dataset(
            "entry/data/data", data=stack, chunks=chunks, maxshape=room, **filters[code]
        )
        assert file["entry/data/data"].chunks == chunks
    channels = [str(n + 1) for n in range(shape[1])] if len(shape) == 4 else [None]
    for number, channel in enumerate(channels):
        images = stack if channel is None else stack[:, number]
        series = open_series(path, channel=channel)
        assert series.shape == images.shape
        assert np.array_equal(series[:], images)
        assert np.array_equal(series[::-2, 7:9, 3:], images[::-2, 7:9, 3:])
        assert np.array_equal(series.sum(), images.sum(axis=0))
        assert np.array_equal(series.max([1, 5]), images[[1, 5]].max(axis=0))
        rois = {"r": (11, 2, 2, 3)}
        assert np.array_equal(series.roi_sums(rois)["r"], images[:, 2:5, 11:13].sum(axis=(1, 2)))
    if channels == [None]:
        assert check_data_file(path, images=7) == 7


def test_a_chunk_of_several_images_that_is_broken(tmp_path):
    stack = np.random.default_rng(8).integers(0, 999, (7, 33, 61), np.uint16)
    path = tmp_path / "o_data_000001.h5"
    with h5py.File(path, "w") as file:
        filters = hdf5plugin.Bitshuffle()
        data = file.create_dataset("entry/data/data", data=stack, chunks=(3, 33, 61), **filters)
        place = data.id.get_chunk_info(1).byte_offset
    with path.open("r+b") as file:
        file.seek(place + 12)
        file.write(b"\xff\xff\xff\xff")
    series = open_series(path)
    assert np.array_equal(series[[0, 1, 2, 6]], stack[[0, 1, 2, 6]])
    for number in (3, 4, 5):
        with pytest.raises(ChunkError, match=rf"image {number + 1} of 7 is broken"):
            series[number]


def test_a_row_of_bytes_that_is_cut_off(tmp_path):
    """HDF5 itself refuses the file, or else its last images would be said never to have been."""
    path = tmp_path / "o_data_000001.h5"
    with h5py.File(path, "w") as file:
        file["entry/data/data"] = np.ones((7, 33, 61), np.uint16)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 5000)
    with pytest.raises(FileError, match=r"o_data_000001\.h5"):
        open_series(path)


def renamed_sources(master, stack, per_file, name_of):
    """Write a master's virtual dataset anew, with other names for its data files."""
    layout = h5py.VirtualLayout(stack.shape, stack.dtype)
    for number, first in enumerate(range(0, len(stack), per_file), 1):
        part = stack[first : first + per_file]
        source = h5py.VirtualSource(name_of(number), PLACE, shape=part.shape)
        layout[first : first + len(part)] = source
    with h5py.File(master, "a") as file:
        del file[PLACE]
        file.create_virtual_dataset(PLACE, layout)


def test_the_names_in_a_virtual_dataset(tmp_path):
    stack = np.random.default_rng(6).integers(0, 999, (5, 2, 33, 61), np.uint32)
    master = write_nexus(tmp_path, stack, 3, together=False)
    renamed_sources(master, stack, 3, "./n_data_{:06d}.h5".format)
    series = open_series(master)
    assert np.array_equal(series[:], stack[:, 0])
    assert series.files == tuple(tmp_path / f"n_data_00000{n}.h5" for n in (1, 2))
    for name in (str(tmp_path / "n_data_{:06d}.h5"), "sub/n_data_{:06d}.h5", ".."):
        renamed_sources(master, stack, 3, name.format)
        said = rf"n_master.h5: its virtual dataset shows images of '{name.format(1)}', and of"
        with pytest.raises(FileError, match=said):
            open_series(master)


@pytest.mark.parametrize("counts", [[3, 3, 2], [4]])
def test_a_virtual_dataset_over_the_masters_own_links(make, monkeypatch, tmp_path, counts):
    """As programs write it that make a master for files of a DCU."""
    master, total = make(counts), sum(counts)
    layout, first = h5py.VirtualLayout((total, 5, 8), np.uint16), 0
    for number, count in enumerate(counts, 1):
        link = f"/entry/data/data_{number:06d}"
        layout[first : first + count] = h5py.VirtualSource(".", link, shape=(count, 5, 8))
        first += count
    with h5py.File(master, "a", libver=("v110", "v110")) as file:
        file.create_virtual_dataset(PLACE, layout)
    with h5py.File(master) as file:
        assert np.array_equal(file[PLACE][()], IMAGES[:total]), "HDF5 reads the same"
    series = open_series(master)
    assert np.array_equal(series[:], IMAGES[:total])
    assert series.files == tuple(data(master, number) for number in range(1, len(counts) + 1))
    if len(counts) > 1:
        # A stale file of this name in the working directory is none of its images.
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        data(master, 2).replace(elsewhere / data(master, 2).name)
        monkeypatch.chdir(elsewhere)
        series = open_series(master)
        assert series.missing == (data(master, 2),)
        assert np.array_equal(series[[0, 1, 2, 6, 7]], IMAGES[[0, 1, 2, 6, 7]])
        with pytest.raises(MissingFileError, match=r"s_data_000002.h5 is missing"):
            series[3]


def test_channels_with_numbers_for_names(tmp_path):
    stack = np.ones((2, 2, 33, 61), np.uint32)
    master = write_nexus(tmp_path, stack, 2, together=False)
    with h5py.File(master, "a") as file:
        del file["entry/data/channel"]
        file["entry/data/channel"] = np.array([1, 2])
    assert open_series(master).channels == ("1", "2")


def test_channels_in_the_master_itself(tmp_path):
    stack = np.random.default_rng(6).integers(0, 999, (3, 2, 33, 61), np.uint32)
    with h5py.File(tmp_path / "c_master.h5", "w") as file:
        file.create_dataset("entry/data/data", data=stack, chunks=(1, 1, 33, 61))
    series = open_series(tmp_path / "c_master.h5", channel="2")
    assert np.array_equal(series[:], stack[:, 1])


def test_channels_in_a_folder_without_a_master(tmp_path):
    stack = np.random.default_rng(6).integers(0, 999, (5, 2, 33, 61), np.uint32)
    write_nexus(tmp_path, stack, 3, together=False).unlink()
    assert np.array_equal(open_series(tmp_path)[:], stack[:, 0])
    for number, channel in enumerate(("1", "2")):
        series = open_series(tmp_path, channel=channel)
        assert series.channels == ("1", "2")
        assert np.array_equal(series[:], stack[:, number])
    with pytest.raises(FileError, match="no channel 'threshold_1'; it has 1, 2"):
        open_series(tmp_path, channel="threshold_1")


def test_more_channels_than_any_detector_has(tmp_path, peak_below):
    """A few bytes of a file say it; nothing is laid out for each."""
    path = tmp_path / "c_data_000001.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("entry/data/data", (1, 10**6, 8, 8), np.uint16, chunks=(1, 1, 8, 8))
    for opened in (path, tmp_path):
        with peak_below(2**22), pytest.raises(FileError, match=r"c_data_000001\.h5: .* 1000000 ch"):
            open_series(opened)


def test_a_channel_of_files_that_have_none(make, tmp_path):
    master = make([2])
    for path in (master, data(master, 1)):
        with pytest.raises(FileError, match="no channel 'threshold_1'; it has none"):
            open_series(path, channel="threshold_1")
    master.unlink()
    with pytest.raises(FileError, match="no channel 'threshold_1'; it has none"):
        open_series(tmp_path, channel="threshold_1")


# ---- files of others


@pytest.mark.parametrize("codec", codecs.available())
def test_real_files_are_read_as_others_read_them(real_files, codec):
    for path in real_files:
        series = open_series(path, codec=codec)
        with h5py.File(path) as file:
            plain = file["entry/data/data"][()]
        assert np.array_equal(series[:], plain)
        assert np.array_equal(series[1, 100:333, 7:], plain[1, 100:333, 7:])
        with fabio.open(path) as image:
            assert np.array_equal(series[0], image.data)


@pytest.mark.parametrize("generation", [1, 2])
@pytest.mark.parametrize("compression", ["bslz4", "lz4", "off"])
@pytest.mark.parametrize(("per_file", "bits"), [(0, 16), (1, 32), (2, 16)])
def test_the_simulators_files_are_what_its_oracle_says(
    tmp_path, generation, compression, per_file, bits
):
    changes = {"compression_enabled": False} if compression == "off" else {}
    changes |= {"compression": compression} if compression == "lz4" else {}
    series = armed(
        generation, nimages=3, nimages_per_file=per_file, bit_depth_image=bits, **changes
    )
    found = open_series(write_series(tmp_path, series))
    expected = np.stack([oracle.image(series, number) for number in (1, 2, 3)])
    assert found.dtype == expected.dtype
    assert np.array_equal(found[:], expected)
    assert np.array_equal(found[::2, 50:61, -9], expected[::2, 50:61, -9])


@pytest.mark.parametrize("code", [None, 32008], ids=["as it is", "bslz4"])
def test_a_file_that_is_cut_off_while_it_is_open(tmp_path, write_data, code):
    path = write_data(tmp_path / "s.h5", IMAGES[:2], code=code)
    known, room, out = look_into(path, PLACE), Room(), np.empty(IMAGES.shape[1:], IMAGES.dtype)
    with known.open() as file:
        known.read(file, 0, out, codec=codecs.codec(), room=room)
        assert np.array_equal(out, IMAGES[0])
        os.truncate(path, int(known.spans()[1].mean()))
        # The memory that is read into still has the first image.
        with pytest.raises(ChunkError, match="image 2 of 2 is broken: cut off"):
            known.read(file, 1, out, codec=codecs.codec(), room=room)


# ---- threads, processes, copies


def total_of(series):
    return int(series[:].sum(dtype=np.uint64))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_it_goes_to_other_processes(make, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    series = open_series(make(counts_of(250, 7)), threads=2)
    expected = total_of(series)
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(total_of, [series] * 3) == [expected] * 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_reads_with_what_it_inherited(make):
    series = open_series(make([100, 100, 50]), threads=2)
    assert total_of(series)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(series[:], IMAGES) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_many_threads_read_one_series(make):
    series = open_series(make(counts_of(250, 3)), threads=2)
    together = threading.Barrier(6)

    def read(seed):
        together.wait(30)
        numbers = np.random.default_rng(seed).integers(0, 250, 60)
        return np.array_equal(series[numbers], IMAGES[numbers])

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert all(pool.map(read, range(6)))


# Threads that wait for each other are ended with their process alone.
@pytest.mark.timeout(30, method="thread")
@pytest.mark.parametrize("threads", [2, 3])
def test_images_are_read_while_images_are_gone_through(make, tmp_path, write_data, threads):
    """As a dark, or those around each: of the same series, and of another with other threads."""
    series = open_series(make([20, 20]), threads=2)
    other = open_series(write_data(tmp_path / "dark.h5", IMAGES[50:90]), threads=threads)
    found = np.zeros((40, 3), np.uint64)

    def use(place, image):
        inner = []
        other.for_each(range(40), lambda _, dark: inner.append(int(dark.sum(dtype=np.uint64))))
        found[place] = image.sum(), series[:16].sum(), sum(inner)

    series.for_each(range(40), use)
    assert np.array_equal(found[:, 0], IMAGES[:40].sum(axis=(1, 2)))
    assert (found[:, 1:] == (IMAGES[:16].sum(), IMAGES[50:90].sum())).all()
    totals = []
    series.in_bands(range(40), lambda _, counts: totals.append((counts.sum(), other.sum())))
    assert sum(int(total) for total, _ in totals) == IMAGES[:40].sum()
    assert all(np.array_equal(dark, summed(IMAGES[50:90])) for _, dark in totals)


def test_a_copy_is_the_same_and_it_can_be_closed(make):
    master = make([3, 3])
    with open_series(master, codec="hdf5", threads=1) as series:
        copy = pickle.loads(pickle.dumps(series))
        assert (copy.codec, copy.threads, copy.shape) == ("hdf5", 1, (6, 5, 8))
        assert np.array_equal(copy[:], IMAGES[:6])
    assert np.array_equal(series[:], IMAGES[:6]), "usable all the same"


def test_a_codec_that_there_is_not(make):
    with pytest.raises(CodecError, match="no codec 'zip'; there are dectris-compression, hdf5pl"):
        open_series(make([1]), codec="zip")
