"""Files fresh from the DCU: what is whole passes, and nothing else does."""

import shutil
import struct

import h5py
import numpy as np
import pytest

from ophyd_eiger.check import (
    check_data_file,
    check_leads_to_images,
    check_master_file,
    check_pixels,
)
from ophyd_eiger.errors import ChunkError, EigerError, FileError, MissingFileError
from ophyd_eiger.view import Part, write_view

IMAGES = np.random.default_rng(5).integers(0, 9, (3, 33, 47), np.uint16)


@pytest.fixture
def data_file(tmp_path, write_data):
    """A data file of 3 images, numbered 4 to 6, under the name it has while it is fetched."""
    return write_data(tmp_path / ".c_data_000002.h5.part", IMAGES, first=4)


def test_whole_files_pass(data_file, real_files):
    assert check_data_file(data_file, images=3) == 3
    assert check_data_file(data_file, images=None) == 3
    for path in real_files:
        assert check_data_file(path, images=2) == 2


@pytest.mark.parametrize("code", [None, 32004, 32008], ids=["none", "lz4", "bslz4"])
def test_each_compression_passes(tmp_path, write_data, code):
    path = write_data(tmp_path / "d.h5", IMAGES, code=code)
    assert check_data_file(path, images=3) == 3


@pytest.mark.parametrize("images", [0, 1, 2, 4])
def test_another_number_of_images(data_file, images):
    with pytest.raises(FileError, match=f"c_data_000002.h5.part: 3 images found, {images} exp"):
        check_data_file(data_file, images=images)


def test_numbers_that_do_not_fit(data_file):
    with h5py.File(data_file, "a") as file:
        file["entry/data/data"].attrs["image_nr_high"] = np.int32(7)
    with pytest.raises(FileError, match=r"3 images found, numbered 4 to 7"):
        check_data_file(data_file, images=None)


@pytest.mark.parametrize("value", ["many", np.array([1, 2])])
def test_numbers_that_are_none(data_file, value):
    with h5py.File(data_file, "a") as file:
        file["entry/data/data"].attrs["image_nr_high"] = value
    with pytest.raises(FileError, match=r"c_data_000002.h5.part: broken"):
        check_data_file(data_file, images=3)


def test_files_without_numbers_pass(data_file):
    with h5py.File(data_file, "a") as file:
        del file["entry/data/data"].attrs["image_nr_low"]
    assert check_data_file(data_file, images=3) == 3


@pytest.mark.parametrize("number", [0, 1, 2])
def test_each_image_is_looked_at(data_file, number):
    with h5py.File(data_file, "a") as file:
        dataset = file["entry/data/data"]
        raw = dataset.id.read_direct_chunk((number, 0, 0))[1]
        dataset.id.write_direct_chunk((number, 0, 0), raw[:-1])
    with pytest.raises(ChunkError, match=f"part: image {number + 1} of 3 is broken: "):
        check_data_file(data_file, images=3)


@pytest.mark.parametrize("code", [32004, 32008], ids=["lz4", "bslz4"])
@pytest.mark.parametrize("number", [0, 37, 69])
def test_one_of_many_images_is_found(tmp_path, write_data, code, number):
    """Where the bytes of many are looked at together."""
    path = write_data(tmp_path / "d.h5", np.repeat(IMAGES, 24, axis=0)[:70], code=code)
    assert check_data_file(path, images=70) == 70
    with h5py.File(path, "a") as file:
        dataset = file["entry/data/data"]
        raw = dataset.id.read_direct_chunk((number, 0, 0))[1]
        dataset.id.write_direct_chunk((number, 0, 0), raw[:-1])
    with pytest.raises(ChunkError, match=f"image {number + 1} of 70 is broken: "):
        check_data_file(path, images=70)


@pytest.mark.parametrize("code", [32004, 32008], ids=["lz4", "bslz4"])
def test_each_length_of_many_images_is_followed(tmp_path, write_data, code):
    images = np.repeat(IMAGES, 24, axis=0)
    path = write_data(tmp_path / "d.h5", images, code=code)
    with h5py.File(path) as file:
        place = file["entry/data/data"].id.get_chunk_info_by_coord((50, 0, 0)).byte_offset
    raw = bytearray(path.read_bytes())
    raw[place + 15] ^= 1  # the first length's last byte
    path.write_bytes(raw)
    with pytest.raises(ChunkError, match=r"image 51 of 72 is broken: "):
        check_data_file(path, images=72)


@pytest.mark.parametrize("images", [3, 40])
def test_images_larger_than_any_are_refused_however_many(tmp_path, write_data, images):
    """Of blocks of one byte each, whose lengths agree; `open_series` would read none of them."""
    path = write_data(tmp_path / "d.h5", np.zeros((images, 33, 47), np.uint16), code=32004)
    size = 33 * 47 * 2
    raw = struct.pack(">QI", size, 1) + size * (struct.pack(">I", 1) + b"x")
    with h5py.File(path, "a") as file:
        for number in range(images):
            file["entry/data/data"].id.write_direct_chunk((number, 0, 0), raw)
    with pytest.raises(ChunkError, match=f"image 1 of {images} .* are more than any image takes"):
        check_data_file(path, images=images)


def test_a_file_may_say_to_have_any_number_of_images(data_file):
    with h5py.File(data_file, "a") as file:
        file["entry/data/data"].resize(10**12, axis=0)
        del file["entry/data/data"].attrs["image_nr_low"]
    with pytest.raises(ChunkError, match=r"image 4 of 10{12} is broken: it was never written"):
        check_data_file(data_file, images=None)


def test_an_image_that_hdf5_does_not_find(data_file):
    """Though it lists it: one bit of a key in its tree of chunks, of which lists take no heed."""
    check_pixels(data_file)
    raw = bytearray(data_file.read_bytes())
    tree = next(place for place in range(len(raw)) if raw[place : place + 5] == b"TREE\x01")
    # Behind the node's 24 bytes: size and mask of the first chunk, and its three coordinates.
    raw[tree + 24 + 8 + 3 * 8] ^= 16
    data_file.write_bytes(raw)
    with h5py.File(data_file) as file:
        assert not file["entry/data/data"][0].any()
    with pytest.raises(FileError, match=r"c_data_000002.h5.part: "):
        check_pixels(data_file)


def test_an_image_that_was_never_written(data_file):
    with h5py.File(data_file, "a") as file:
        file["entry/data/data"].resize(4, axis=0)
        file["entry/data/data"].attrs["image_nr_high"] = np.int32(7)
    with pytest.raises(ChunkError, match=r"image 4 of 4 is broken"):
        check_data_file(data_file, images=4)


def test_a_real_file_cut_off_anywhere(tmp_path, real_files):
    path = tmp_path / "cut.h5"
    whole = real_files[0].read_bytes()
    for length in range(0, len(whole), 997):
        path.write_bytes(whole[:length])
        with pytest.raises(FileError, match=r"cut\.h5"):
            check_data_file(path, images=2)


def problem_of(path):
    """Return what is said of a data file, its name alone if it passes."""
    try:
        check_data_file(path, images=3)
    except EigerError as error:
        return str(error)
    return path.name


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.long)])
def test_any_byte_of_a_files_structure_may_be_wrong(tmp_path, data_file, every):
    """It passes or is refused by name: the first 2 KB hold all but the images."""
    path, whole = tmp_path / "hurt.h5", data_file.read_bytes()
    for place in range(0, 2048, every):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        assert "hurt.h5" in problem_of(path)


def test_what_is_no_file(tmp_path):
    with pytest.raises(MissingFileError, match=r"absent.h5: no such file"):
        check_data_file(tmp_path / "absent.h5", images=1)
    with pytest.raises(FileError, match=r"not a whole HDF5 file"):
        check_data_file(tmp_path, images=1)
    (tmp_path / "empty.h5").touch()
    with pytest.raises(FileError, match=r"empty.h5: not a whole HDF5 file"):
        check_data_file(tmp_path / "empty.h5", images=1)


def test_master_files(tmp_path, write_master, data_file, eiger_test_data):
    check_master_file(eiger_test_data / "eiger1_9M_master/dectris_eiger_master.h5", images=None)
    links = write_master(tmp_path / "links_master.h5", ["links_data_000001.h5"], nimages=3)
    check_master_file(links, images=None)
    with pytest.raises(FileError, match=r"links_master.h5: no images"):
        check_master_file(links, images=3)
    inside = write_master(tmp_path / "all_master.h5", [], nimages=3, images=IMAGES)
    check_master_file(inside, images=3)
    with pytest.raises(FileError, match=r"3 images found, 4 expected"):
        check_master_file(inside, images=4)


def test_a_master_says_how_many_images_it_holds(tmp_path, write_master):
    links = write_master(tmp_path / "links_master.h5", ["links_data_000001.h5"], nimages=3)
    assert check_master_file(links) == 0
    check_leads_to_images(links)
    inside = write_master(tmp_path / "all_master.h5", [], nimages=3, images=IMAGES)
    assert check_master_file(inside) == 3
    check_leads_to_images(inside)
    nothing = write_master(tmp_path / "none_master.h5", [], nimages=3)
    assert check_master_file(nothing) == 0
    with pytest.raises(FileError, match="neither images found in it, nor links to data files"):
        check_leads_to_images(nothing)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_file_with_channels_is_none_of_a_device(tmp_path, channels):
    path = tmp_path / "c_data_000001.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "entry/data/data", data=np.ones((3, channels, 5, 8), "<u2"), chunks=(1, 1, 5, 8)
        )
    with pytest.raises(FileError, match=r"no images of shape \(images, y, x\)"):
        check_data_file(path, images=3)
    with pytest.raises(FileError, match=rf"images of {channels} x 5 x 8 uint16, and not of 5 x 8"):
        write_view(
            tmp_path / "c_view.h5",
            [(0, 3)],
            [Part(path, 0, 3)],
            shape=(5, 8),
            dtype=np.uint16,
            master="c_master.h5",
        )


def test_a_master_cut_off(tmp_path, write_master):
    path = write_master(tmp_path / "m_master.h5", [], nimages=3, images=IMAGES)
    cut = tmp_path / "cut_master.h5"
    shutil.copyfile(path, cut)
    with cut.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)
    with pytest.raises(FileError, match=r"cut_master.h5: not a whole HDF5 file"):
        check_master_file(cut, images=None)


def test_a_file_with_one_image_and_no_axis_for_images(tmp_path):
    """As an EIGER2 that is gated from outside may write it, without the image's number."""
    path = tmp_path / "o_data_000001.h5"
    with h5py.File(path, "w") as file:
        image = np.arange(20, dtype=np.uint16).reshape(4, 5)
        file.create_dataset("entry/data/data", data=image, chunks=(4, 5))
    assert check_data_file(path, images=1) == 1
