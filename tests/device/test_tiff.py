"""The detector's TIFF: as another library writes it, as the simulator does, and broken."""

import io

import fabio
import numpy as np
import pytest
import requests
import tifffile

import sim_dcu
from ophyd_eiger.errors import EigerError, TiffError
from ophyd_eiger.tiff import decode, encode

PIXELS = np.arange(35).reshape(5, 7)


def written(array, **options) -> bytes:
    """Return a TIFF by tifffile; in one strip and little-endian unless told otherwise."""
    buffer = io.BytesIO()
    options = {"byteorder": "<", "rowsperstrip": 1000, "metadata": None, **options}
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("dtype", ["u1", "<u2", "<u4", "<f4"])
def test_another_librarys(dtype):
    array = PIXELS.astype(dtype)
    array[1, 2] = 1e30 if dtype == "<f4" else np.iinfo(dtype).max
    found = decode(written(array))
    assert found.pixels.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found.pixels, array)
    assert found.private == {}


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u4", "<f4", ">f4"])
def test_others_read_what_is_written(dtype, tmp_path):
    array = (PIXELS * 7.25).astype(dtype)
    body = encode(array)
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(body)), array)
    (tmp_path / "ours.tif").write_bytes(body)
    with fabio.open(tmp_path / "ours.tif") as image:
        np.testing.assert_array_equal(image.data, array)
    np.testing.assert_array_equal(decode(body).pixels, array)


@pytest.mark.parametrize("model", ["eiger-500k", "eiger2-500k"])
def test_the_monitors(model):
    with sim_dcu.serve(model, initialized=True) as dcu:
        api = f"{dcu.url}/{{}}/api/{'1.8.0' if model.startswith('eiger2') else '1.6.0'}/{{}}"
        requests.put(api.format("monitor", "config/mode"), json={"value": "enabled"}, timeout=20)
        for command in ("arm", "trigger", "disarm"):
            requests.put(api.format("detector", f"command/{command}"), timeout=20)
        body = requests.get(api.format("monitor", "images/1/1"), timeout=20).content
        found = decode(body)
        np.testing.assert_array_equal(found.pixels, tifffile.imread(io.BytesIO(body)))
        np.testing.assert_array_equal(found.pixels, dcu.image(1, 1))
        if model == "eiger-500k":
            assert found.private == {}
        else:
            # Series, image and energies, whatever their tags' numbers.
            values = list(found.private.values())
            assert values[:2] == [1, 1]
            assert pytest.approx(8047.78) in values
            assert any(isinstance(value, str) and value.startswith("20") for value in values)


def test_each_cut_is_noticed():
    body = written(PIXELS.astype("<u2"))
    for length in range(len(body)):
        with pytest.raises(TiffError):
            decode(body[:length])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no TIFF"),
        (b'{"value": null}', "no TIFF"),
        (written(PIXELS.astype("<f8")), "sample format"),
        (written(PIXELS.astype("<i2")), "sample format"),
        (written(PIXELS.astype("<u8")), r"\(64, 1, 1, 1\)"),
        (written(PIXELS.astype("<u2"), compression="zlib"), r"\(16, 8, 1, 1\)"),
        (written(PIXELS.astype("<u2"), rowsperstrip=2), "field 273"),
        (written(PIXELS.astype(">u2"), byteorder=">"), "no TIFF"),
        (written(np.zeros((5, 7, 3), "u1"), photometric="rgb"), "field 258"),
        (b"II*\0\x08\0\0\0\xff\xff" + bytes(100), "65535 fields"),
    ],
)
def test_other_layouts_are_refused(body, said):
    with pytest.raises(TiffError, match=said) as caught:
        decode(body)
    assert isinstance(caught.value, (EigerError, ValueError))


def test_a_damaged_private_directory_leaves_the_image_whole():
    array = PIXELS.astype("<u2")
    for where in (7, 2**32 - 1):
        body = written(array, extratags=[(51192, 4, 1, where, True)])
        assert b"\xf8\xc7" in body
        np.testing.assert_array_equal(decode(body).pixels, array)
