"""TIFF in the detector's layout: read by libraries that know nothing of it, and the reverse."""

import io
import struct
from pathlib import Path

import fabio
import numpy as np
import pytest
from fabio.tifimage import TifImage
from PIL import Image

from sim_dcu import tiff
from sim_dcu.parameters import RefusedError

SHAPE = (5, 7)


def pixels(dtype: str) -> np.ndarray:
    """Return an array that has the type's largest value and no symmetry."""
    array = np.arange(35).reshape(SHAPE).astype(dtype)
    array[1, 2] = 1.25 if dtype == "<f4" else np.iinfo(dtype).max
    return array


@pytest.mark.parametrize("private", [None, {51193: 7, 51194: 0.5, 51195: "2026-01-02T03:04:05"}])
@pytest.mark.parametrize("dtype", ["u1", "<u2", "<u4", "<f4"])
def test_independent_readers_read_it(tmp_path: Path, dtype: str, private: dict | None) -> None:
    array = pixels(dtype)
    path = tmp_path / "image.tif"
    path.write_bytes(tiff.encode(array, private_tags=private))
    with fabio.open(path) as opened:
        np.testing.assert_array_equal(opened.data, array)
        assert opened.data.dtype == array.dtype
    if dtype != "<u4":  # which Pillow reads as signed
        with Image.open(path) as image:
            np.testing.assert_array_equal(np.asarray(image), array)


def test_tifffile_reads_it() -> None:
    tifffile = pytest.importorskip("tifffile", reason="pip install tifffile")
    array = pixels("<u4")
    with tifffile.TiffFile(io.BytesIO(tiff.encode(array, private_tags={51193: 7}))) as file:
        (page,) = file.pages
        np.testing.assert_array_equal(page.asarray(), array)
        assert page.tags[278].value == 5


def test_layout_is_the_detectors() -> None:
    """Walked by hand, as the one reader that uses the fields in place does (TIFF 6.0)."""
    array = pixels("<u2")
    body = tiff.encode(array, private_tags={51200: 9, 51201: "date"})
    assert body[:4] == b"II*\0"
    (start,) = struct.unpack_from("<I", body, 4)
    (count,) = struct.unpack_from("<H", body, start)
    entries = [struct.unpack_from("<HHII", body, start + 2 + 12 * n) for n in range(count)]
    assert struct.unpack_from("<I", body, start + 2 + 12 * count) == (0,)  # one directory
    tags = [tag for tag, *_ in entries]
    assert tags == sorted(tags)
    fields = {tag: value for tag, kind, length, value in entries if (kind in (3, 4), length == 1)}
    assert all(length == 1 for _, _, length, _ in entries)
    assert [fields[tag] for tag in (256, 257, 258, 259, 277, 278, 279)] == [7, 5, 16, 1, 1, 5, 70]
    strip = fields[273]
    assert body[strip : strip + 70] == array.tobytes()
    assert len(body) == strip + 70
    private = fields[51192]
    assert struct.unpack_from("<H", body, private) == (2,)
    assert struct.unpack_from("<HHII", body, private + 2) == (51200, 4, 1, 9)


def fabio_file(array: np.ndarray, tmp_path: Path) -> bytes:
    path = tmp_path / "fabio.tif"
    TifImage(data=array).write(path)
    return path.read_bytes()


def pillow_file(array: np.ndarray, tmp_path: Path) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "TIFF")
    return buffer.getvalue()


def tifffile_file(array: np.ndarray, tmp_path: Path) -> bytes:
    tifffile = pytest.importorskip("tifffile", reason="pip install tifffile")
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, byteorder=">", rowsperstrip=2)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("write", "dtype"),
    [
        (fabio_file, "<u4"),
        (fabio_file, "<f4"),
        (pillow_file, "u1"),
        (pillow_file, "<f4"),
        (pillow_file, "<i4"),
        (tifffile_file, "<u4"),
        (tifffile_file, "<f4"),
        (tifffile_file, "<u2"),
    ],
)
def test_files_of_common_writers_are_read(tmp_path: Path, write, dtype: str) -> None:
    array = pixels(dtype)
    read = tiff.decode(write(array, tmp_path))
    assert read.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("dtype", ["u1", "<u2", "<u4", "<f4"])
def test_there_and_back(dtype: str) -> None:
    array = pixels(dtype)
    read = tiff.decode(tiff.encode(array))
    assert (read.dtype, read.flags.writeable) == (np.dtype(dtype), True)
    np.testing.assert_array_equal(read, array)


def test_damaged_files_are_refused() -> None:
    """Every cut and every changed byte of the head either reads or is refused, nothing else."""
    body = tiff.encode(pixels("<u4"))
    for length in range(len(body)):
        with pytest.raises(RefusedError):
            tiff.decode(body[:length])
    for place in range(8 + 2 + 10 * 12 + 4):
        for byte in (0, 1, 0x7F, 0xFF):
            try:
                tiff.decode(body[:place] + bytes([byte]) + body[place + 1 :])
            except RefusedError:
                continue


@pytest.mark.parametrize("array", [np.zeros(4, "<u4"), np.zeros(SHAPE, "<i4"), np.zeros(SHAPE)])
def test_what_a_detector_does_not_send_is_not_written(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="no place"):
        tiff.encode(array)
