"""A series on disk as an array: what is read, in which order, and what is said where it ends."""

import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hdf5plugin import Bitshuffle
from nexus_layout import write_nexus

from ophyd_eiger.errors import ChunkError, EigerError, FileError, MissingFileError, StorageError
from ophyd_eiger.handlers import EigerHandler
from ophyd_eiger.master import read_master
from ophyd_eiger.reader import open_series

# Of each real file, as stated beside them: shape, type, image_nr, sum of all pixels, and how many
# pixels hold the largest value found.
REAL = [
    ((2, 1065, 1030), "uint16", (1, 2), 5022958546, 76328),
    ((2, 1065, 1030), "uint16", (3, 4), 5022958546, 76328),
    ((2, 512, 1028), "uint32", (1, 2), 43782480, 1032256),
    ((2, 512, 1028), "uint32", (3, 4), 43782480, 1032256),
]
MASTER_9M = "eiger1_9M_master/dectris_eiger_master.h5"


@pytest.fixture
def real_series(tmp_path: Path, real_files: list[Path], write_master) -> Path:
    """A master file over the two files of two images of the real EIGER1 1M."""
    for path in real_files[:2]:
        (tmp_path / path.name).symlink_to(path)
    names = [path.name for path in real_files[:2]]
    return write_master(tmp_path / "real_master.h5", names, nimages=4)


def plain(path: Path) -> np.ndarray:
    """Return the images of a data file by h5py alone."""
    with h5py.File(path) as file:
        return file["entry/data/data"][()]


# ---- real files


@pytest.mark.parametrize("which", range(4))
def test_the_real_files_are_what_is_published_of_them(
    which, real_files, tmp_path, write_master
) -> None:
    path, (shape, dtype, numbers, total, largest) = real_files[which], REAL[which]
    (tmp_path / path.name).symlink_to(path)
    series = open_series(write_master(tmp_path / "one_master.h5", [path.name], nimages=2))
    images = series[:]
    assert (series.shape, series.dtype, images.shape, images.dtype) == (shape, dtype, shape, dtype)
    assert int(images.sum(dtype=np.uint64)) == total
    assert int((images == images.max()).sum()) == largest
    with h5py.File(path) as file:
        attributes = file["entry/data/data"].attrs
        assert (attributes["image_nr_low"], attributes["image_nr_high"]) == numbers


def test_two_real_files_are_one_series(real_series, real_files) -> None:
    expected = np.concatenate([plain(path) for path in real_files[:2]])
    series = open_series(real_series)
    assert series.shape == (4, 1065, 1030)
    assert len(series) == 4
    assert [path.name for path in series.files] == [path.name for path in real_files[:2]]
    assert series.missing == ()
    assert np.array_equal(series[:], expected)
    for number, image in enumerate(series):
        assert np.array_equal(image, expected[number])


def test_the_real_9m_master(eiger_test_data) -> None:
    master = read_master(eiger_test_data / MASTER_9M)
    assert [path.name for path in master.data_files] == ["dectris_eiger_data_000001.h5"]
    assert master.images_promised == 1
    assert (master.mask.shape, master.mask.dtype) == ((3269, 3110), np.uint32)
    assert (master.flatfield.shape, master.flatfield.dtype) == ((3269, 3110), np.float32)
    with pytest.raises(MissingFileError, match=r"dectris_eiger_data_000001.h5 missing"):
        open_series(eiger_test_data / MASTER_9M)


# ---- indexing


@pytest.mark.parametrize(
    "index",
    [
        0,
        2,
        3,
        -1,
        -7,
        np.int64(4),
        np.uint8(6),
        slice(None),
        slice(2, 5),
        slice(-3, None),
        slice(None, None, 2),
        slice(1, None, 3),
        slice(None, None, -1),
        slice(5, 1, -2),
        slice(4, 4),
        slice(5, 2),
        slice(3, 100),
        ...,
        (),
        (6, 3),
        (slice(2, 7), slice(1, 5), -2),
        (-2, slice(None), slice(None, None, 7)),
        (..., 3),
        (slice(0, 4), ..., 0),
    ],
    ids=repr,
)
def test_it_indexes_like_an_array(series, index) -> None:
    master, images = series
    chosen = open_series(master)[index]
    assert np.array_equal(chosen, images[index])
    assert chosen.shape == images[index].shape
    assert chosen.dtype == images.dtype


@pytest.mark.parametrize("index", [7, -8, 100, np.int64(7), (7, 0, 0), (0, 37)])
def test_past_the_end_is_an_index_error(series, index) -> None:
    master, _ = series
    with pytest.raises(IndexError):
        open_series(master)[index]


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (0, 8), (7, 8), (3, 2)])
def test_read_refuses_what_is_not_there(series, start, stop) -> None:
    master, _ = series
    with pytest.raises(IndexError, match=r"x_7_master.h5"):
        open_series(master).read(start, stop)


def test_read_returns_a_stretch_across_files(series) -> None:
    master, images = series
    assert np.array_equal(open_series(master).read(2, 7), images[2:7])
    assert open_series(master).read(7, 7).shape == (0, 37, 53)


def test_images_are_read_into_arrays_alone(series) -> None:
    master, _ = series
    with pytest.raises(TypeError, match=r"x_7_master.h5: .* a numpy array, not into a list"):
        open_series(master).read(2, 5, out=[1])


def test_repr_says_what_it_is(series) -> None:
    master, _ = series
    (master.parent / "x_7_data_000003.h5").unlink()
    text = repr(open_series(master))
    assert text == "<Series x_7_master.h5: (6, 37, 53) uint16, 1 files missing>"
    (master.parent / "x_7_data_000001.h5").unlink()
    assert repr(open_series(master)).endswith("2 files missing, 3 images not there>")


# ---- where images are


def test_images_in_the_master(tmp_path, write_master) -> None:
    images = np.arange(3 * 20 * 30, dtype=np.uint32).reshape(3, 20, 30)
    master = write_master(tmp_path / "all_master.h5", [], nimages=3, images=images)
    series = open_series(master)
    assert series.files == (master,)
    assert np.array_equal(series[:], images)


def test_links_directly_below_entry(tmp_path, write_data) -> None:
    """As firmware before 1.3 has them."""
    images = np.arange(2 * 5 * 6, dtype=np.uint16).reshape(2, 5, 6)
    write_data(tmp_path / "old_data_000001.h5", images)
    with h5py.File(tmp_path / "old_master.h5", "w") as file:
        file["entry/data_000001"] = h5py.ExternalLink("old_data_000001.h5", "entry/data/data")
    assert np.array_equal(open_series(tmp_path / "old_master.h5")[:], images)


def test_files_are_in_the_order_of_their_numbers(tmp_path, write_data) -> None:
    """Not in that of their names' letters, where 1000000 comes before 999999."""
    for number in (999_999, 1_000_000):
        write_data(tmp_path / f"d{number}.h5", np.full((1, 4, 4), number, np.uint32))
    with h5py.File(tmp_path / "big_master.h5", "w") as file:
        for number in (1_000_000, 999_999):
            link = h5py.ExternalLink(f"d{number}.h5", "entry/data/data")
            file[f"entry/data/data_{number:06d}"] = link
    assert open_series(tmp_path / "big_master.h5")[:, 0, 0].tolist() == [999_999, 1_000_000]


def test_the_mask_is_uint32_and_the_counts_are_multiplied(tmp_path, write_data, write_master):
    write_data(tmp_path / "m_data_000001.h5", np.zeros((6, 4, 5), np.uint16))
    mask = np.arange(20, dtype=np.uint32).reshape(4, 5)
    master = write_master(
        tmp_path / "m_master.h5", ["m_data_000001.h5"], nimages=2, ntrigger=3, mask=mask
    )
    series = open_series(master)
    assert series.mask.dtype == np.uint32
    assert np.array_equal(series.mask, mask)
    assert series.master.images_promised == 6
    with pytest.raises(FileError, match=r"m_master.h5: no array .*/flatfield"):
        _ = series.flatfield


NO_INTEGERS = {
    "two": np.array([7, 7]),
    "none": np.empty(0, np.uint32),
    "nan": np.nan,
    "infinite": np.inf,
    "half": 2.5,
    "empty": h5py.Empty("i4"),
    "text": "four",
}


@pytest.mark.parametrize("name", ["nimages", "ntrigger"])
@pytest.mark.parametrize("stored", NO_INTEGERS.values(), ids=NO_INTEGERS)
def test_a_promise_that_is_no_integer_is_none(series, name, stored):
    master, images = series
    with h5py.File(master, "a") as file:
        specific = file["entry/instrument/detector/detectorSpecific"]
        del specific[name]
        specific[name] = stored
    found = open_series(master)
    assert found.master.images_promised is None
    assert np.array_equal(found[:], images)


@pytest.mark.parametrize("end", ["low", "high"])
@pytest.mark.parametrize("stored", NO_INTEGERS.values(), ids=NO_INTEGERS)
def test_a_number_of_an_image_that_is_no_integer_is_none(series, end, stored):
    master, images = series
    for path in master.parent.glob("*_data_*.h5"):
        with h5py.File(path, "a") as file:
            file["entry/data/data"].attrs[f"image_nr_{end}"] = stored
    assert np.array_equal(open_series(master)[:], images)


@pytest.mark.parametrize("stored", [7, 7.0, "7", np.bytes_("7"), np.array([7])], ids=repr)
def test_a_promise_is_one_however_it_is_stored(series, stored):
    master, _ = series
    with h5py.File(master, "a") as file:
        specific = file["entry/instrument/detector/detectorSpecific"]
        del specific["nimages"]
        specific["nimages"] = stored
    assert open_series(master).master.images_promised == 7


@pytest.mark.parametrize("name", ["nimages", "ntrigger"])
def test_a_promise_of_any_size_is_not_read(series, name, peak_below):
    """A few bytes say how many values there are."""
    master, images = series
    with h5py.File(master, "a") as file:
        specific = file["entry/instrument/detector/detectorSpecific"]
        del specific[name]
        specific.create_dataset(name, (10**8,), "u1", chunks=(2**20,), compression="gzip")
    with peak_below(2**22):
        found = open_series(master)
    assert found.master.images_promised is None
    assert np.array_equal(found[:], images)


UNUSABLE = {
    "no such file": (h5py.ExternalLink("gone.h5", "/mask"), "a link to /mask of gone.h5, which"),
    "another file": (h5py.ExternalLink("other.h5", "/mask"), "a link to /mask of other.h5, which"),
    "no such object": (h5py.SoftLink("/gone"), "a link that leads to nothing in this file"),
    "of all channels": (np.ones((1, 4, 5), np.uint32), r"of shape \(1, 4, 5\), not \(y, x\)"),
}


@pytest.mark.parametrize("name", ["pixel_mask", "flatfield"])
@pytest.mark.parametrize(("stored", "why"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_mask_that_cannot_be_used_is_not_left_out(
    tmp_path, write_data, write_master, name, stored, why
):
    images = np.ones((2, 4, 5), np.uint16)
    write_data(tmp_path / "m_data_000001.h5", images)
    master = write_master(tmp_path / "m_master.h5", ["m_data_000001.h5"], nimages=2)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["mask"] = np.ones((4, 5), np.uint32)
    with h5py.File(master, "a") as file:
        detector = file["entry/instrument/detector"]
        detector.update(beam_center_x=2.0, beam_center_y=2.0)
        detector[f"detectorSpecific/{name}"] = stored
    series = open_series(master)
    assert np.array_equal(series[:], images)
    said = rf"m_master.h5: /entry/.*/detectorSpecific/{name} is {why}"
    with pytest.raises(FileError, match=said):
        _ = series.mask if name == "pixel_mask" else series.flatfield
    if name == "pixel_mask":
        with pytest.raises(FileError, match=said):
            series.radial_profile(unit="radius", bins=3)
    with h5py.File(master, "a") as file:
        file[f"entry/instrument/detector/{name}"] = np.full((4, 5), 7, np.uint32)
    found = open_series(master)
    assert ((found.mask if name == "pixel_mask" else found.flatfield) == 7).all()


MASKS = {
    "of 64 bits": (np.uint64, 2**40, 2**31),
    "of 64 bits and few": (np.uint64, 8, 8),
    "signed": (np.int64, -(2**32), 2**31),
    "negative": (np.int32, -1, 2**31),
    "nan": (np.float64, np.nan, 2**31),
    "infinite": (np.float32, np.inf, 2**31),
    "half": (np.float32, 0.5, 2**31),
    "whole": (np.float32, 8, 8),
    "bool": (np.bool_, True, 1),
    "big-endian": (">u4", 2**31 + 1, 2**31 + 1),
}


@pytest.mark.parametrize(("kind", "value", "found"), MASKS.values(), ids=MASKS)
def test_a_masked_pixel_stays_masked(tmp_path, write_data, write_master, kind, value, found):
    write_data(tmp_path / "m_data_000001.h5", np.ones((2, 4, 5), np.uint16))
    mask = np.zeros((4, 5), kind)
    mask[1, 2] = value
    master = write_master(tmp_path / "m_master.h5", ["m_data_000001.h5"], nimages=2, mask=mask)
    series = open_series(master)
    expected = np.zeros((4, 5), np.uint32)
    expected[1, 2] = found
    for read in (series.mask, series.master.mask):
        assert read.dtype == np.uint32
        assert np.array_equal(read, expected)


def test_a_mask_of_text_is_refused(tmp_path, write_data, write_master):
    write_data(tmp_path / "m_data_000001.h5", np.ones((2, 4, 5), np.uint16))
    mask = np.full((4, 5), b"1")
    master = write_master(tmp_path / "m_master.h5", ["m_data_000001.h5"], nimages=2, mask=mask)
    with pytest.raises(FileError, match=r"m_master.h5: /entry/.*/pixel_mask of type .* no mask"):
        _ = open_series(master).mask


def test_a_stale_file_in_the_working_directory_is_never_used(series, tmp_path, monkeypatch):
    master, images = series
    elsewhere = tmp_path / "cwd"
    elsewhere.mkdir()
    name = "x_7_data_000003.h5"
    (tmp_path / name).rename(elsewhere / name)
    monkeypatch.chdir(elsewhere)
    with h5py.File(master) as file:
        assert file["entry/data/data_000003"].shape == (1, 37, 53), "HDF5 itself takes it"
    found = open_series(master)
    assert found.shape == (6, 37, 53)
    assert found.missing == (tmp_path / name,)
    with pytest.raises(MissingFileError, match=name):
        found[6]
    assert np.array_equal(found[:6], images[:6])


def test_it_means_the_same_file_wherever_one_goes(tmp_path, write_data, monkeypatch):
    """Folders of a beamline have files of the same names."""
    for number, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        write_data(tmp_path / folder / "x_data_000001.h5", np.full((2, 4, 4), number, np.uint16))
    monkeypatch.chdir(tmp_path / "a")
    series = open_series("x_data_000001.h5")
    assert series[0].max() == 0
    packed = pickle.dumps(series)
    monkeypatch.chdir(tmp_path / "b")
    assert series.path == tmp_path / "a/x_data_000001.h5"
    assert series.refresh()[1].max() == 0
    assert series.sum().max() == 0
    assert pickle.loads(packed)[0].max() == 0


@pytest.mark.parametrize("virtual", [False, True], ids=["links", "virtual"])
def test_a_symbolic_link_leads_to_its_files(series, tmp_path, virtual):
    master, images = series
    if virtual:
        images = images.astype(np.uint32)
        master = write_nexus(tmp_path / "raw", images[:, np.newaxis], 3, together=False)
    linked = tmp_path / "analysis"
    linked.mkdir()
    (linked / master.name).symlink_to(master)
    assert np.array_equal(open_series(linked / master.name)[:], images)
    data = min(master.parent.glob("*_data_*.h5"))
    (linked / data.name).symlink_to(data)
    assert open_series(linked / data.name).master_path == linked / master.name
    (linked / master.name).unlink()
    alone = open_series(linked / data.name)
    assert alone.master_path == master
    assert np.array_equal(alone[:], images[:3])


@pytest.mark.parametrize("virtual", [False, True], ids=["links", "virtual"])
def test_files_beside_a_symbolic_link_are_not_mixed_with_those_of_the_master(
    series, tmp_path, write_data, virtual
):
    """The folder of the link may have a file that is left of a series before."""
    master, images = series
    if virtual:
        images = images.astype(np.uint32)
        master = write_nexus(tmp_path / "raw", images[:, np.newaxis], 3, together=False)
    linked = tmp_path / "analysis/o_master.h5"
    linked.parent.mkdir()
    linked.symlink_to(master)
    kept = sorted(master.parent.glob("*_data_*.h5"))
    for path in kept:
        write_data(linked.with_name(path.name), images[3:6] + 1, first=4)
    found = open_series(linked)
    assert found.files == tuple(kept)
    assert np.array_equal(found[:], images)
    assert found.master_path == linked


def test_what_lacks_beside_a_master_may_be_beside_a_symbolic_link_to_it(series, tmp_path):
    master, images = series
    linked = tmp_path / "analysis" / master.name
    linked.parent.mkdir()
    linked.symlink_to(master)
    lost = master.with_name("x_7_data_000002.h5")
    aside = lost.rename(linked.with_name(lost.name))
    assert np.array_equal(open_series(linked)[:], images)
    aside.unlink()
    assert open_series(linked).missing == (lost,)


def test_images_behind_a_link_in_a_data_file_do_not_count(tmp_path, write_data, write_master):
    write_data(tmp_path / "other.h5", np.zeros((2, 4, 4), np.uint16))
    with h5py.File(tmp_path / "l_data_000001.h5", "w") as file:
        file["entry/data/data"] = h5py.ExternalLink("other.h5", "entry/data/data")
    master = write_master(tmp_path / "l_master.h5", ["l_data_000001.h5"])
    with pytest.raises(FileError, match=r"l_data_000001.h5: no images"):
        open_series(master)


@pytest.mark.parametrize("where", ["below", "../raw", "absolute"])
@pytest.mark.parametrize("linked", [False, True], ids=["itself", "by a symbolic link"])
def test_a_link_leads_into_another_folder(tmp_path, write_data, write_master, where, linked):
    folder = tmp_path / "master"
    folder.mkdir()
    there = (folder / where).resolve() if where != "absolute" else tmp_path / "other"
    there.mkdir()
    images = np.arange(5 * 4 * 4, dtype=np.uint16).reshape(5, 4, 4)
    names = [f"{there if where == 'absolute' else where}/o_data_00000{n}.h5" for n in (1, 2)]
    write_data(there / "o_data_000001.h5", images[:3])
    write_data(there / "o_data_000002.h5", images[3:], first=4)
    master = write_master(folder / "o_master.h5", names, nimages=5)
    if linked:
        (tmp_path / "analysis").mkdir()
        master = tmp_path / "analysis/o_master.h5"
        master.symlink_to(folder / "o_master.h5")
    with h5py.File(master) as file:
        assert np.array_equal(file["entry/data/data_000002"][()], images[3:])
    assert np.array_equal(open_series(master)[:], images)
    write_data(folder / "o_data_000002.h5", images[3:] + 1, first=4)
    assert np.array_equal(open_series(master)[3:], images[3:] + 1), "beside it comes first"


def test_what_a_link_into_another_folder_lacks(tmp_path, write_data, write_master, monkeypatch):
    """Files in the working directory are none of it, and what is missing has its bare name."""
    inner, cwd = tmp_path / "inner", tmp_path / "cwd"
    inner.mkdir()
    (cwd / "sub").mkdir(parents=True)
    for path in (cwd / "o_data_000001.h5", cwd / "sub/o_data_000001.h5"):
        write_data(path, np.zeros((2, 4, 4), np.uint16))
    monkeypatch.chdir(cwd)
    for folder in ("sub", "../gone", str(tmp_path / "gone")):
        master = write_master(inner / "o_master.h5", [f"{folder}/o_data_000001.h5"], nimages=2)
        with pytest.raises(MissingFileError, match=r"o_data_000001.h5 missing"):
            open_series(master)
        assert read_master(master).data_files == (inner / "o_data_000001.h5",)


def test_a_link_to_other_images_of_a_data_file(tmp_path, write_data, write_master):
    images = np.arange(5 * 4 * 4, dtype=np.uint16).reshape(5, 4, 4)
    names = ["o_data_000001.h5", "o_data_000002.h5"]
    for name, part in zip(names, (images[:3], images[3:]), strict=True):
        write_data(tmp_path / name, part + 100)
        with h5py.File(tmp_path / name, "a") as file:
            file.create_dataset("entry/other/data", data=part, chunks=(1, 4, 4))
    master = write_master(tmp_path / "o_master.h5", [], nimages=5)

    def link(number, place):
        with h5py.File(master, "a") as file:
            links = file["entry/data"]
            links.pop(f"data_{number:06d}", None)
            links[f"data_{number:06d}"] = h5py.ExternalLink(names[number - 1], place)

    link(1, "/entry/other/data")
    link(2, "entry//other/data/")
    series = open_series(master)
    assert np.array_equal(series[:], images)
    aside = (tmp_path / names[0]).rename(tmp_path / "aside")
    series = open_series(master)
    aside.rename(tmp_path / names[0])
    assert np.array_equal(series[:], images), "also where a file comes later"
    link(2, "/entry/data/data")
    with pytest.raises(FileError, match="links lead to entry/data/data and to entry/other/data"):
        open_series(master)
    link(1, "/")
    link(2, "/")
    with pytest.raises(FileError, match=r"o_data_000001.h5: no images of shape"):
        open_series(master)


def test_images_in_the_master_under_the_names_of_links(series, tmp_path):
    """As of a master that was repacked with what its links led to."""
    master, images = series
    with h5py.File(master, "a") as file:
        links = file["entry/data"]
        for number, first in ((1, 0), (3, 6)):
            del links[f"data_{number:06d}"]
            kept = images[first : first + 3]
            links.create_dataset(f"data_{number:06d}", data=kept, chunks=(1, 37, 53))
            links[f"data_{number:06d}"].attrs["image_nr_low"] = first + 1
    found = open_series(master)
    assert np.array_equal(found[:], images)
    assert np.array_equal(found.sum([0, 4, 6]), images[[0, 4, 6]].sum(axis=0, dtype=np.uint64))
    lost = tmp_path / "x_7_data_000002.h5"
    assert found.files == (master, lost)
    lost.unlink()
    found = open_series(master)
    assert (found.missing, found.there.tolist()) == ((lost,), [0, 1, 2, 6])
    assert np.array_equal(found[6], images[6])
    with h5py.File(master, "a") as file:
        file["entry/data"].move("data_000002", "link")
        file["entry/raw"] = images[3:6]
        file["entry/data/data_000002"] = h5py.SoftLink("/entry/raw")
    found = open_series(master)
    assert (found.files, found.missing) == ((master,), ())
    assert np.array_equal(found[:], images)
    with h5py.File(master, "a") as file:
        file["entry/data/data"] = images + 1
    assert np.array_equal(open_series(master)[:], images + 1), "all of them in one come first"


def test_one_link_to_all_images(tmp_path, write_data, write_master, monkeypatch):
    images = np.arange(5 * 4 * 4, dtype=np.uint16).reshape(5, 4, 4)
    (tmp_path / "raw").mkdir()
    path = write_data(tmp_path / "raw/o_data_000001.h5", images)
    master = write_master(tmp_path / "o_master.h5", [], nimages=5)
    with h5py.File(master, "a") as file:
        file["entry/data/data"] = h5py.ExternalLink("raw/o_data_000001.h5", "entry/data/data")
    series = open_series(master)
    assert series.files == (path,)
    assert np.array_equal(series[:], images)
    beside = path.rename(tmp_path / path.name)
    assert np.array_equal(open_series(master)[:], images)
    (tmp_path / "cwd/raw").mkdir(parents=True)
    beside.rename(tmp_path / "cwd/raw" / path.name)
    monkeypatch.chdir(tmp_path / "cwd")
    with pytest.raises(MissingFileError, match=r"o_master.h5: no image found; o_data_000001.h5 "):
        open_series(master)


@pytest.mark.parametrize("folder", ["C:\\data\\", ".\\", "\\\\host\\share/raw\\", "/data\\"])
def test_names_of_links_with_backslashes(tmp_path, write_data, write_master, folder):
    images = np.arange(5 * 4 * 4, dtype=np.uint16).reshape(5, 4, 4)
    names = [f"{folder}o_data_00000{number}.h5" for number in (1, 2)]
    master = write_master(tmp_path / "o_master.h5", names, nimages=5)
    with pytest.raises(MissingFileError, match=r"no image found; o_data_000001.h5, o_data_00000"):
        open_series(master)
    write_data(tmp_path / "o_data_000001.h5", images[:3])
    write_data(tmp_path / "o_data_000002.h5", images[3:], first=4)
    assert np.array_equal(open_series(master)[:], images)


@pytest.mark.skipif(os.name != "posix", reason="no file has such a name there")
def test_a_file_with_a_backslash_in_its_own_name(tmp_path, write_data, write_master):
    images = np.arange(5 * 4 * 4, dtype=np.uint16).reshape(5, 4, 4)
    write_data(tmp_path / "a\\b.h5", images)
    write_data(tmp_path / "b.h5", images + 1)
    master = write_master(tmp_path / "o_master.h5", ["a\\b.h5"], nimages=5)
    assert np.array_equal(open_series(master)[:], images)


# ---- what is missing


def test_a_missing_middle_file_leaves_the_others_their_places(series):
    master, images = series
    (master.parent / "x_7_data_000002.h5").unlink()
    found = open_series(master)
    assert found.shape == (7, 37, 53)
    assert found.there.tolist() == [0, 1, 2, 6]
    assert np.array_equal(found[:3], images[:3])
    assert np.array_equal(found[-1], images[6])
    for number in (3, 5, slice(None)):
        with pytest.raises(
            MissingFileError,
            match=r"x_7_master.h5: image [46] of 7 is not there; x_7_data_000002.h5 is missing$",
        ):
            found[number]
    with pytest.raises(IndexError):
        found[7]


def test_without_a_promise_a_missing_file_is_named_all_the_same(series, write_master):
    master, _ = series
    names = [f"x_7_data_00000{number}.h5" for number in (1, 2, 3)]
    write_master(master, names)
    with pytest.raises(IndexError):
        open_series(master)[7]
    (master.parent / names[2]).unlink()
    with pytest.raises(MissingFileError, match=r"h5: 6 found, image 8 .* x_7_data_000003.h5 is"):
        open_series(master)[7]


def test_a_short_last_file_of_a_series_ended_early(series, write_master):
    master, images = series
    names = [f"x_7_data_00000{number}.h5" for number in (1, 2, 3)]
    write_master(master, names, nimages=3, ntrigger=3)
    found = open_series(master)
    assert np.array_equal(found[:], images)
    with pytest.raises(
        MissingFileError, match=r"9 images promised, 7 found, image 8 .* ended early"
    ):
        found[7]
    with pytest.raises(IndexError):
        found[9]


def test_a_file_that_comes_later_is_seen_by_a_series_opened_anew(series):
    master, images = series
    last = master.parent / "x_7_data_000003.h5"
    aside = last.rename(last.with_suffix(".part"))
    before = open_series(master)
    aside.rename(last)
    assert before.shape == (6, 37, 53)
    assert np.array_equal(open_series(master)[:], images)


# ---- what is not what it should be


def master_over(folder: Path, data: Path, write_master) -> Path:
    return write_master(folder / f"{data.stem}_master.h5", [data.name], nimages=1)


def test_other_images_in_a_later_file(tmp_path, write_data, write_master):
    write_data(tmp_path / "a_data_000001.h5", np.zeros((1, 4, 5), np.uint16))
    for other in (np.zeros((1, 4, 5), np.uint32), np.zeros((1, 5, 4), np.uint16)):
        write_data(tmp_path / "a_data_000002.h5", other)
        master = write_master(
            tmp_path / "a_master.h5", ["a_data_000001.h5", "a_data_000002.h5"], nimages=2
        )
        with pytest.raises(FileError, match=r"a_data_000002.h5: images of . x . uint"):
            open_series(master)


@pytest.mark.parametrize("dtype", ["f4", "i4", "S4", h5py.string_dtype()])
def test_pixels_that_are_no_counts(tmp_path, write_master, dtype):
    data = tmp_path / "t_data_000001.h5"
    with h5py.File(data, "w") as file:
        file.create_dataset("entry/data/data", (1, 4, 5), dtype, chunks=(1, 4, 5))
    with pytest.raises(FileError, match=r"t_data_000001.h5: pixels of type"):
        open_series(master_over(tmp_path, data, write_master))


@pytest.mark.parametrize(("precision", "offset"), [(12, 0), (12, 4)])
def test_pixels_with_bits_that_do_not_count(tmp_path, precision, offset):
    """HDF5 shifts them when it reads; their bytes as they are would be other numbers."""
    data = tmp_path / "p_data_000001.h5"
    kind = h5py.h5t.NATIVE_UINT16.copy()
    kind.set_precision(precision)
    kind.set_offset(offset)
    with h5py.File(data, "w") as file:
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_chunk((1, 4, 5))
        space = h5py.h5s.create_simple((1, 4, 5))
        group = file.create_group("entry/data")
        images = h5py.Dataset(h5py.h5d.create(group.id, b"data", kind, space, settings))
        images[...] = 5
    with pytest.raises(FileError, match=r"p_data_000001.h5: pixels with 12 bits of 16"):
        open_series(data)


def test_single_values_may_be_arrays_of_one(series):
    """As others write them who copy a master or a data file."""
    master, images = series
    with h5py.File(master, "a") as file:
        specific = file["entry/instrument/detector/detectorSpecific"]
        for name in ("nimages", "ntrigger"):
            value = specific[name][()]
            del specific[name]
            specific[name] = np.array([value])
        file["entry/instrument/detector/description"] = np.array([b"Dectris Eiger 9M"])
        file["entry/start_time"] = np.array([b"2026-11-28T13:20:00"])
    data = master.with_name("x_7_data_000001.h5")
    with h5py.File(data, "a") as file:
        attrs = file["entry/data/data"].attrs
        attrs["image_nr_low"] = np.array([1], np.int32)
    found = open_series(master)
    assert found.master.images_promised == 7
    assert np.array_equal(found[:], images)
    assert found.metadata.description == "Dectris Eiger 9M"
    assert str(found.metadata.date) == "2026-11-28 13:20:00"
    with h5py.File(data, "a") as file:
        file["entry/data/data"].attrs["image_nr_low"] = np.array([1, 2], np.int32)
    assert np.array_equal(open_series(master)[:], images)


@pytest.mark.parametrize("shape", [(), (4,), (4, 5), (1, 2, 2, 4, 5)])
def test_images_of_another_rank(tmp_path, write_master, shape):
    data = tmp_path / "r_data_000001.h5"
    with h5py.File(data, "w") as file:
        file["entry/data/data"] = np.zeros(shape, np.uint16)
    with pytest.raises(FileError, match=r"no images of shape \(images, y, x\)"):
        open_series(master_over(tmp_path, data, write_master))


@pytest.mark.parametrize("chunks", [(1, 2, 6), (1, 4, 3)])
def test_chunks_that_are_not_whole_images(tmp_path, write_master, chunks):
    data = tmp_path / "c_data_000001.h5"
    with h5py.File(data, "w") as file:
        file.create_dataset("entry/data/data", data=np.ones((2, 4, 6), np.uint16), chunks=chunks)
    with pytest.raises(StorageError, match=r"_000001.h5: image 2 of 2 cannot be read: chunks of"):
        open_series(master_over(tmp_path, data, write_master))[1]


def test_an_image_that_was_never_written(tmp_path, write_data, write_master):
    data = write_data(tmp_path / "n_data_000001.h5", np.ones((2, 4, 6), np.uint16))
    with h5py.File(data, "a") as file:
        file["entry/data/data"].resize(2**40, axis=0)
    # Room for images is none of them: HDF5 alone would give its fill value for each.
    series = open_series(master_over(tmp_path, data, write_master))
    assert series.shape == (2, 4, 6)
    assert np.array_equal(series[:], np.ones((2, 4, 6)))
    with pytest.raises(IndexError, match="image"):
        series[2]
    with h5py.File(data, "a") as file:
        file["entry/data/data"][2**40 - 2] = 1
    series = open_series(master_over(tmp_path, data, write_master))
    assert len(series) == 2**40 - 1
    with pytest.raises(ChunkError, match=r"image 3 of 1099511627776 is broken: it was never"):
        series[2]


@pytest.mark.parametrize("numbered", [True, False])
def test_a_file_that_claims_more_images_than_memory_has_room_for(tmp_path, numbered, peak_below):
    """Nothing is laid out for each: its first and its last one are there, and no other."""
    data = tmp_path / "m_data_000001.h5"
    with h5py.File(data, "w") as file:
        claimed = 2 * 10**9
        images = file.create_dataset("entry/data/data", (claimed, 8, 8), "u2", chunks=(1, 8, 8))
        images[0] = images[claimed - 1] = np.full((8, 8), 3, np.uint16)
        if numbered:
            images.attrs.update(image_nr_low=1, image_nr_high=claimed)
    series = open_series(data)
    asked = {
        "all": lambda: series[:],
        "backwards": lambda: series[::-2],
        "rows": lambda: series[:, ::2],
        "pixels": lambda: series[:, [1, 2, 3, 5, 6, 7], [0, 1, 2, 3, 4, 5]],
        "a sum": lambda: series.sum(),
        "the largest": lambda: series.max(slice(None, None, -1)),
        "regions": lambda: series.roi_sums([(0, 0, 2, 2)]),
        "hits": lambda: series.hits(),
        "there": lambda: series.there,
        "dask": series.dask,
        "a handler": lambda: EigerHandler(data)(0, claimed),
    }
    for ask in asked.values():
        with (
            peak_below(2**23),
            pytest.raises(ChunkError, match=r"m_data_000001.h5: image \d+ of 2"),
        ):
            ask()
    with peak_below(2**20):
        assert series.lacks(0, claimed) == ""
        assert np.array_equal(series[:: claimed - 1], np.full((2, 8, 8), 3))
        assert series.sum([0, claimed - 1]).sum() == 6 * 64


def test_files_between_that_are_far_shorter_than_the_others(tmp_path):
    """They are taken to be like the first, until images are asked for of which there are none."""
    files, each = 17, 70_000
    for number in range(files):
        with h5py.File(tmp_path / f"g_data_{number + 1:06d}.h5", "w") as file:
            held = 1 if number == 8 else each
            data = np.full((held, 2, 2), number, np.uint16)
            images = file.create_dataset("entry/data/data", data=data)
            first = number * each + 1
            images.attrs.update(image_nr_low=first, image_nr_high=first + held - 1)
    series = open_series(tmp_path)
    lost = slice(8 * each, 9 * each)
    for ask in (lambda: series[lost], lambda: series.sum(lost)):
        with pytest.raises(MissingFileError, match="image 560002 of 1190000 did not come"):
            ask()
    assert (series[8 * each] == 8).all()
    assert (series.dask()[9 * each].compute() == 9).all()


def test_an_image_that_its_file_says_to_have_and_lost(tmp_path, write_data):
    """A broken index is no room for more: nothing of it goes unseen."""
    images = np.random.default_rng(7).integers(0, 99, (3, 4, 6), np.uint16)
    path = write_data(tmp_path / "l_data_000001.h5", images[:2])
    with h5py.File(path, "a") as file:
        file["entry/data/data"].resize(3, axis=0)
        file["entry/data/data"].attrs["image_nr_high"] = np.int32(3)
    series = open_series(path)
    assert series.shape == (3, 4, 6)
    assert np.array_equal(series[:2], images[:2])
    with pytest.raises(ChunkError, match=r"image 3 of 3 is broken: it was never written"):
        series[2]


@pytest.mark.parametrize("written", [0, 1, 2, 3])
@pytest.mark.parametrize("files", [2, 20])
def test_room_for_images_that_never_came(tmp_path, write_data, write_master, files, written):
    """A DCU that is interrupted may leave its last file with room for all."""
    images = np.random.default_rng(7).integers(0, 99, (3 * files, 4, 6), np.uint16)
    names = [f"r_data_{number:06d}.h5" for number in range(1, files + 1)]
    for number, name in enumerate(names):
        there = images[3 * number :][: 3 if number < files - 1 else written]
        path = write_data(tmp_path / name, there, first=3 * number + 1)
        with h5py.File(path, "a") as file:
            file["entry/data/data"].resize(3, axis=0)
    series = open_series(write_master(tmp_path / "r_master.h5", names, nimages=3 * files))
    come = 3 * (files - 1) + written
    assert (series.shape, series.gap, series.missing) == ((come, 4, 6), 0, ())
    assert np.array_equal(series[:], images[:come])
    assert np.array_equal(series.sum(series.there), images[:come].sum(axis=0))
    if written < 3:
        with pytest.raises((MissingFileError, IndexError), match=f"{come} found|{come - 1}"):
            series[come]


def test_one_image_without_an_axis_for_images(tmp_path, write_master):
    image = np.random.default_rng(8).integers(0, 99, (4, 6), np.uint16)
    data = tmp_path / "g_data_000001.h5"
    with h5py.File(data, "w") as file:
        file.create_dataset("entry/data/data", data=image, chunks=(4, 6), **Bitshuffle())
    for path in (data, master_over(tmp_path, data, write_master)):
        series = open_series(path)
        assert series.shape == (1, 4, 6)
        assert np.array_equal(series[0], image)
        assert np.array_equal(series.sum(), image)
    with h5py.File(data, "w", userblock_size=512) as file:
        file.create_dataset("entry/data/data", data=image, chunks=(4, 6), **Bitshuffle())
    assert np.array_equal(open_series(data)[0], image)


def test_one_broken_image_leaves_the_others_readable(series):
    master, images = series
    with h5py.File(master.parent / "x_7_data_000002.h5", "a") as file:
        file["entry/data/data"].id.write_direct_chunk((1, 0, 0), b"broken")
    found = open_series(master)
    with pytest.raises(ChunkError, match=r"x_7_data_000002.h5: image 2 of 3 is broken"):
        found[4]
    assert np.array_equal(found[3], images[3])
    assert np.array_equal(found[5], images[5])


@pytest.mark.parametrize(
    "settings", [(0, 2, 1, 0, 2), (0, 2, 4, 0, 2), (0, 2, 2, 0, 0), (0, 2, 2, 0, 3)]
)
def test_bitshuffle_settings_that_are_not_an_eigers(tmp_path, write_data, write_master, settings):
    """The filter goes by the element size and the codec that these state, not by the type."""
    image = np.arange(64 * 64, dtype=np.uint16).reshape(1, 64, 64)
    data = write_data(tmp_path / "b_data_000001.h5", image)
    with h5py.File(data) as file:
        real = file["entry/data/data"].id.get_create_plist().get_filter(0)[2]
    # The filter itself always writes what is right, so the file is changed afterwards.
    content, old = data.read_bytes(), struct.pack("<5I", *real)
    assert content.count(old) == 1
    data.write_bytes(content.replace(old, struct.pack("<5I", *settings)))
    with pytest.raises(StorageError, match=r"_000001.h5: image 1 of 1 cannot be read: bitshuffle"):
        open_series(master_over(tmp_path, data, write_master))[0]


@pytest.mark.parametrize(("extra", "error"), [(0, None), (-2, ChunkError), (2, ChunkError)])
def test_a_chunk_that_skipped_its_filter(tmp_path, write_raw, write_master, extra, error):
    """HDF5 takes its bytes as they are, and reads on where they are too few."""
    image = np.arange(20, dtype=np.uint16).reshape(4, 5)
    raw = (image.tobytes() + bytes(2))[: image.nbytes + extra]
    data = write_raw(
        tmp_path / "s_data_000001.h5", raw, image.shape, image.dtype, code=32008, mask=1
    )
    series = open_series(master_over(tmp_path, data, write_master))
    if error is None:
        assert np.array_equal(series[0], image)
    else:
        with pytest.raises(error, match=f"{40 + extra} bytes found, 40 expected"):
            series[0]


@pytest.fixture
def hostile(tmp_path, real_files, real_chunk, write_raw, write_master) -> list[tuple[Path, str]]:
    """Master files of which nothing can be read, each with the name that its error must have."""
    raw, shape, dtype = real_chunk
    made: list[tuple[Path, str]] = []

    def add(data: Path) -> None:
        made.append((master_over(tmp_path, data, write_master), data.name))

    cuts = {f"cut{length}": raw[:length] for length in range(0, len(raw), 997) if length}
    sizes = {f"size{size}": size.to_bytes(8, "big") + raw[8:] for size in (0, 1, 2**40, 2**64 - 1)}
    flips = {}
    for bit in range(96):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        flips[f"flip{bit}"] = bytes(flipped)
    inside = {}
    for place in range(16, len(raw), 9973):
        inside[f"inside{place}"] = raw[:place] + bytes([raw[place] ^ 0xFF]) * 40 + raw[place + 40 :]
    for name, chunk in (cuts | sizes | flips | inside).items():
        add(write_raw(tmp_path / f"{name}.h5", chunk, shape, dtype, code=32008))
    add(write_raw(tmp_path / "type.h5", raw, shape, np.dtype("<u4"), code=32008))
    add(write_raw(tmp_path / "codec.h5", raw, shape, dtype, code=32004))
    add(write_raw(tmp_path / "skipped.h5", raw, shape, dtype, code=32008, mask=1))
    whole = real_files[0].read_bytes()
    for length in (0, 1, 8, 96, 1000, 2048, len(whole) // 2, len(whole) - 1):
        path = tmp_path / f"file{length}.h5"
        path.write_bytes(whole[:length])
        add(path)
    (tmp_path / "folder.h5").mkdir()
    add(tmp_path / "folder.h5")
    add(tmp_path / "absent.h5")
    for name, content in {"empty": b"", "text": b"no HDF5", "zeros": bytes(5000)}.items():
        path = tmp_path / f"{name}_master.h5"
        path.write_bytes(content)
        made.append((path, path.name))
    (tmp_path / "directory_master.h5").mkdir()
    made.append((tmp_path / "directory_master.h5", "directory_master.h5"))
    made.append((tmp_path / "absent_too_master.h5", "absent_too_master.h5"))
    return made


READ_ALL = """
import sys
from ophyd_eiger.errors import EigerError
from ophyd_eiger.reader import open_series
for path in sys.stdin.read().splitlines():
    try:
        images = open_series(path)[:]
    except EigerError as error:
        print("refused", type(error).__name__, str(error).replace(chr(10), " "))
    else:
        print("read", images.shape)
"""


def test_hostile_files_get_a_named_error_and_crash_nothing(hostile):
    """In a process of its own, so that a crash is seen as one."""
    # The C library then fills memory with 165, so that what is read past an end is no image.
    env = {**os.environ, "MALLOC_PERTURB_": "165", "MALLOC_CHECK_": "3"}
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL],
        input="\n".join(str(path) for path, _ in hostile),
        capture_output=True,
        text=True,
        env=env,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(hostile)
    for (_, name), line in zip(hostile, lines, strict=True):
        # Changed counts within a block that still is LZ4 cannot be told from others.
        if not name.startswith("inside"):
            assert line.startswith("refused"), (name, line)
        assert line.startswith("read") or name in line, (name, line)


@pytest.mark.parametrize(
    ("content", "error"),
    [(None, MissingFileError), (b"", FileError), (b"text", FileError), ("folder", FileError)],
)
def test_what_is_no_master_file(tmp_path, content, error):
    path = tmp_path / "bad_master.h5"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=r"bad_master.h5") as caught:
        open_series(path)
    assert isinstance(caught.value, EigerError)
    assert isinstance(caught.value, FileNotFoundError) is (content is None)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
# HDF5 waits for a pipe's first byte without an end.
@pytest.mark.timeout(30, method="thread")
@pytest.mark.parametrize("which", ["master", "data_000001", "data_000002"])
def test_a_pipe_under_the_name_of_a_file_is_not_waited_for(series, which):
    master, _ = series
    pipe = master.with_name(f"x_7_{which}.h5")
    pipe.unlink()
    os.mkfifo(pipe)
    for opened in (master, pipe, master.parent):
        with pytest.raises(FileError, match=rf"x_7_{which}\.h5: .*no regular file"):
            open_series(opened)


@pytest.mark.skipif(os.name != "posix", reason="locks are other ones there")
def test_a_file_that_another_process_writes(series, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    # HDF5 may have been told not to lock.
    monkeypatch.setenv("HDF5_USE_FILE_LOCKING", "TRUE")
    master, images = series
    with master.open("rb+") as writing:
        # As HDF5 does it; between two descriptors it holds within one process, too.
        fcntl.flock(writing, fcntl.LOCK_EX)
        with pytest.raises(FileError, match=r"x_7_master.h5: locked by a program that has it open"):
            open_series(master)
    assert np.array_equal(open_series(master)[:], images)


@pytest.mark.parametrize("swmr", [False, True], ids=["writer", "swmr"])
def test_a_file_that_says_that_it_is_written(tmp_path, swmr):
    path, copy = tmp_path / "w_data_000001.h5", tmp_path / "c_data_000001.h5"
    with h5py.File(path, "w", libver="latest") as file:
        images = np.ones((2, 4, 5), np.uint16)
        file.create_dataset("entry/data/data", data=images, chunks=(1, 4, 5))
        if swmr:
            file.swmr_mode = True
        file.flush()
        # Without the lock, which HDF5 may have been told not to take.
        copy.write_bytes(path.read_bytes())
    assert np.array_equal(open_series(path)[:], images)
    with pytest.raises(FileError, match=r"c_data_000001.h5: locked by a program .*h5clear"):
        open_series(copy)


def test_an_hdf5_file_that_is_no_master(tmp_path):
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file["entry"] = 1
    with pytest.raises(FileError, match=r"other.h5: no group /entry"):
        open_series(path)


def problem_of(path: Path) -> str:
    """Return what is said of a master file, its name alone if it can be read."""
    try:
        return str(read_master(path).path)
    except EigerError as error:
        return str(error)


def test_every_byte_of_a_master_may_be_wrong(tmp_path, write_master):
    """Whatever byte of a file's structure is broken, the error is one of this package."""
    path = write_master(tmp_path / "y_master.h5", ["y_data_000001.h5"], nimages=1)
    whole = path.read_bytes()
    broken = tmp_path / "z_master.h5"
    for place in range(0, len(whole), 13):
        broken.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        assert "z_master.h5" in problem_of(broken)
