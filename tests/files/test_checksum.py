"""The checksum of HDF5's structures, against published values and what HDF5 itself wrote."""

import h5py
import pytest
from golden.make import DATA, REAL_FILES

from sim_dcu.checksum import lookup3

# A superblock of version 2: 44 bytes, then their checksum (HDF5 file format specification 3.0).
SUPERBLOCK = 44


# From the driver that comes with the author's lookup3.c.
@pytest.mark.parametrize(
    ("text", "checksum"), [(b"", 0xDEADBEEF), (b"Four score and seven years ago", 0x17770551)]
)
def test_published_values(text, checksum):
    assert lookup3(text) == checksum


def test_the_superblock_of_a_real_file():
    source = DATA / REAL_FILES["eiger2_500K_data_000001.json"]
    if not source.exists():
        pytest.skip(f"{source} missing: set EIGER_TEST_DATA to the folder of real files")
    check_superblock(source)


@pytest.mark.parametrize("user_block", [0, 512])
def test_what_hdf5_writes(tmp_path, user_block):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", libver=("v108", "v108"), userblock_size=user_block) as file:
        file["x"] = 1
    check_superblock(path, user_block)


@pytest.mark.parametrize("length", range(1, 26))
def test_headers_of_every_length(tmp_path, length):
    """The first object header of a file covers a link's name, so that its length is chosen."""
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", libver=("v108", "v108")) as file:
        file.create_group("x").attrs["y" * length] = 1
        address = h5py.h5o.get_info(file["x"].id).addr
    with path.open("rb") as file:
        file.seek(address)
        header = file.read(512)
    assert header.startswith(b"OHDR")
    ends = (
        end
        for end in range(12, len(header) - 3)
        if lookup3(header[:end]) == int.from_bytes(header[end : end + 4], "little")
    )
    assert next(ends, None) is not None


def check_superblock(path, start=0):
    block = path.read_bytes()[start:]
    assert block[8] == 2
    stored = int.from_bytes(block[SUPERBLOCK : SUPERBLOCK + 4], "little")
    assert lookup3(block[:SUPERBLOCK]) == stored
