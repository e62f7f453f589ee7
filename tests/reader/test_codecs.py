"""Codecs: all give the same pixels, none crashes, and what does not work is not chosen."""

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ophyd_eiger import codecs
from ophyd_eiger.errors import CodecError, EigerError
from ophyd_eiger.reader import open_series

BROKEN = Path(__file__).with_name("broken_chunks.py")
LARGEST_IMAGE = 640 * 515 * 4


def fuzz(count: int, seed: int) -> dict:
    # The C library then fills memory, so that what is read past an end is no image.
    env = {**os.environ, "MALLOC_PERTURB_": "165", "MALLOC_CHECK_": "3"}
    done = subprocess.run(
        [sys.executable, str(BROKEN), str(count), str(seed)],
        capture_output=True,
        text=True,
        env=env,
        check=False,
        timeout=1000,
    )
    assert done.returncode == 0, done.stderr
    # HDF5's filters print what they refuse.
    return json.loads(done.stdout.splitlines()[-1])


def check_fuzzed(result: dict, count: int) -> None:
    assert result["wrong"] == []
    assert {"hdf5plugin", "hdf5"} <= set(result["codecs"])
    assert result["refused"] + result["decoded"] == count * len(result["codecs"])
    assert result["refused"] > count
    assert result["grown"] < 2 * LARGEST_IMAGE


def test_hundreds_of_broken_chunks_are_refused_or_do_no_harm():
    check_fuzzed(fuzz(300, 1), 300)


@pytest.mark.long
@pytest.mark.timeout(1000)
def test_ten_thousand_broken_chunks_through_every_codec():
    check_fuzzed(fuzz(10_000, 2), 10_000)


READ_FLIPPED = """
import sys
from pathlib import Path
import numpy as np
from ophyd_eiger.errors import EigerError
from ophyd_eiger.reader import open_series
whole, folder, step = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]), int(sys.argv[3])
path = folder / "flipped.h5"
said = set()
for place in range(0, len(whole), step):
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1:])
    try:
        images = open_series(path)[:]
    except EigerError as error:
        assert "flipped.h5" in str(error), error
        said.add(type(error).__name__)
print(sorted(said))
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("step", [97, pytest.param(1, marks=pytest.mark.long)])
def test_every_byte_of_a_data_file_may_be_wrong(tmp_path, write_data, step):
    images = np.random.default_rng(1).integers(0, 99, (3, 20, 30), np.uint16)
    path = write_data(tmp_path / "whole.h5", images)
    done = subprocess.run(
        [sys.executable, "-c", READ_FLIPPED, str(path), str(tmp_path), str(step)],
        capture_output=True,
        text=True,
        check=False,
        timeout=290,
    )
    assert done.returncode == 0, done.stderr
    assert "FileError" in done.stdout


# ---- which one is chosen


def test_the_fastest_that_works_is_chosen_and_said(tmp_path, write_data):
    path = write_data(tmp_path / "a.h5", np.ones((1, 8, 8), np.uint16))
    assert open_series(path).codec == codecs.available()[0]
    for name in codecs.available():
        assert open_series(path, codec=name).codec == name
    assert codecs.available()[-2:] == ("hdf5plugin", "hdf5")


@pytest.fixture
def fresh():
    """Codecs are tried once; here anew, before and after."""
    codecs._made.cache_clear()
    yield
    codecs._made.cache_clear()


def test_without_libraries_hdf5_itself_decompresses(tmp_path, write_data, monkeypatch, fresh):
    images = np.random.default_rng(1).integers(0, 2**16, (2, 90, 70), np.uint16)
    paths = [write_data(tmp_path / f"{c}.h5", images, code=c) for c in (32004, 32008, None)]

    def refuse(*_):
        raise OSError("no such library")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert codecs.available() == ("hdf5",)
    for path in paths:
        series = open_series(path)
        assert series.codec == "hdf5"
        assert np.array_equal(series[:], images)
        assert np.array_equal(series[:, 31:33, 5], images[:, 31:33, 5])
    with pytest.raises(CodecError, match="hdf5plugin cannot be used here: no such library"):
        open_series(paths[0], codec="hdf5plugin")


def test_a_library_that_decodes_wrongly_is_not_chosen(monkeypatch, fresh):
    real = codecs._function

    def liar(library, name, result, *arguments):
        function = real(library, name, result, *arguments)
        if name != "compression_decompress_buffer" and not name.startswith("bshuf"):
            return function

        def call(*given):
            done = function(*given)
            ctypes.memset(given[1], 7, 1)
            return done

        return call

    monkeypatch.setattr(codecs, "_function", liar)
    assert codecs.available() == ("hdf5",)
    with pytest.raises(CodecError, match="does not decode what it should"):
        codecs.codec("hdf5plugin")


# ---- memory


PEAK = """
import resource, sys
import numpy
from ophyd_eiger.reader import open_series
series = open_series(sys.argv[1], codec=sys.argv[2] or None)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
total = series.sum()
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(len(series), grown * 1024, int(total[total < 2**64 - 1].sum()))
"""


def test_a_lying_chunk_size_takes_no_memory(tmp_path, write_data):
    """The size is in the file's own index, where HDF5 believes it."""
    images = np.random.default_rng(1).integers(0, 2**16, (1, 90, 70), np.uint16)
    path = write_data(tmp_path / "l.h5", images)
    series = open_series(path)
    (known,) = series._looked.values()
    known._chunks[0, 1] = 2**40
    with pytest.raises(EigerError, match=r"l.h5: image 1 of 1 is broken: 1099511627776 bytes are"):
        series[0]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_sum_of_a_thousand_images_of_a_4m_takes_little_memory(tmp_path, write_data):
    import h5py

    shape = (2167, 2070)
    few = np.random.default_rng(1).poisson(0.1, (4, *shape)).astype(np.uint16)
    path = write_data(tmp_path / "big_data_000001.h5", few)
    with h5py.File(path, "a") as file:
        images = file["entry/data/data"]
        images.resize(1000, axis=0)
        chunks = [images.id.read_direct_chunk((n, 0, 0))[1] for n in range(4)]
        for number in range(4, 1000):
            images.id.write_direct_chunk((number, 0, 0), chunks[number % 4])
    for codec in ("", "hdf5plugin"):
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(path), codec],
            capture_output=True,
            text=True,
            check=True,
            timeout=500,
        )
        count, grown, total = (int(word) for word in done.stdout.split())
        assert count == 1000
        assert total == 250 * int(few.sum(dtype=np.uint64))
        assert grown < 300e6
