"""Files short, damaged, late or missing, shown by a plain client that opens what it fetched."""

import time
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 - brings the filters of the images
import numpy as np
import pytest
from dcu_process import VERSIONS, Dcu, running
from plain_client import until

# Of each test's cases the short run takes every 2nd, see conftest.
SHORT_RUN_EVERY = 2

# The short run takes each test with one generation only, see conftest.
GENERATIONS_BY_TURNS = True

SHORT = 0.5
DATA = "series_1_data_{:06d}.h5"
MASTER = "series_1_master.h5"


@pytest.fixture
def fetched(tmp_path: Path) -> Path:
    return tmp_path / "fetched"


def take(dcu: Dcu, images: int = 5, per_file: int = 2) -> None:
    dcu.series(images, per_file)
    dcu.arm()
    assert dcu.command("trigger").status_code == 200
    assert dcu.command("disarm").status_code == 200
    assert dcu.value("filewriter/status/state") == "ready"


def fetch(dcu: Dcu, name: str, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    reply = dcu.session.get(f"{dcu.url}/data/{name}", timeout=30)
    assert reply.status_code == 200
    head = dcu.session.head(f"{dcu.url}/data/{name}", timeout=30)
    assert int(head.headers["content-length"]) == len(reply.content)
    path = folder / name
    path.write_bytes(reply.content)
    return path


def expected(dcu: Dcu, number: int, series: int = 1) -> np.ndarray:
    reply = dcu.session.get(f"{dcu.url}/sim/image/{series}/{number}", timeout=30)
    path = dcu.folder.parent / "expected.npy"
    path.write_bytes(reply.content)
    return np.load(path)


def images_of(path: Path) -> np.ndarray:
    with h5py.File(path) as file:
        return file["entry/data/data"][()]


def whole(dcu: Dcu, folder: Path, number: int, first: int, count: int) -> None:
    """Find every image of a data file as it must be."""
    images = images_of(fetch(dcu, DATA.format(number), folder))
    assert len(images) == count
    for place, image in enumerate(images):
        assert np.array_equal(image, expected(dcu, first + place))


def test_a_file_short(dcu: Dcu, fetched: Path) -> None:
    dcu.fault("file-short", file=2, missing=1)
    take(dcu, images=6, per_file=3)
    with h5py.File(fetch(dcu, DATA.format(2), fetched)) as file:
        images = file["entry/data/data"]
        assert images.shape[0] == 2
        assert images.attrs["image_nr_low"] == 4
        assert images.attrs["image_nr_high"] == 5
        assert np.array_equal(images[1], expected(dcu, 5))
    whole(dcu, fetched, 1, 1, 3)


def test_a_file_without_any_image(dcu: Dcu, fetched: Path) -> None:
    dcu.fault("file-short", missing=100)
    take(dcu)
    assert len(images_of(fetch(dcu, DATA.format(1), fetched))) == 0
    whole(dcu, fetched, 2, 3, 2)


def test_a_file_truncated(dcu: Dcu, fetched: Path) -> None:
    take(dcu)
    lengths = {name: fetch(dcu, name, fetched).stat().st_size for name in dcu.files()}
    dcu.start_anew()
    dcu.fault("file-truncated", file=2, cut=5000)
    take(dcu)
    cut = fetch(dcu, DATA.format(2), fetched)
    assert cut.stat().st_size == lengths[DATA.format(2)] - 5000
    with pytest.raises(OSError, match="truncated"):
        h5py.File(cut)
    whole(dcu, fetched, 1, 1, 2)


def test_a_master_truncated(dcu: Dcu, fetched: Path) -> None:
    dcu.fault("file-truncated", file=0)
    take(dcu)
    with pytest.raises(OSError, match="truncated"):
        h5py.File(fetch(dcu, MASTER, fetched))


def test_one_image_of_a_file_corrupt(dcu: Dcu, fetched: Path) -> None:
    dcu.fault("file-corrupt", file=2, image=2)
    take(dcu, images=6, per_file=3)
    with h5py.File(fetch(dcu, DATA.format(2), fetched)) as file:
        images = file["entry/data/data"]
        assert images.shape[0] == 3
        with pytest.raises(OSError, match="filter"):
            images[1]
        for place in (0, 2):
            assert np.array_equal(images[place], expected(dcu, 4 + place))
    whole(dcu, fetched, 1, 1, 3)


def test_pixels_corrupt_without_compression(dcu: Dcu, fetched: Path) -> None:
    dcu.put("filewriter/config/compression_enabled", False)
    dcu.fault("file-corrupt", image=1, offset=4000, bytes=8)
    take(dcu)
    images = images_of(fetch(dcu, DATA.format(1), fetched))
    wrong = images[0].tobytes()
    right = expected(dcu, 1).tobytes()
    differing = [place for place in range(len(right)) if wrong[place] != right[place]]
    assert differing == list(range(4000, 4008))
    assert np.array_equal(images[1], expected(dcu, 2))


def test_a_file_late(dcu: Dcu, fetched: Path) -> None:
    dcu.fault("file-late", file=2, seconds=SHORT)
    dcu.series(5, 2)
    dcu.arm()
    begin = time.monotonic()
    dcu.command("trigger")
    assert dcu.command("disarm").status_code == 200
    url = f"{dcu.url}/data/{DATA.format(2)}"
    present = [DATA.format(1), DATA.format(3), MASTER]
    assert dcu.value("filewriter/status/state") == "ready"
    assert dcu.files() == present
    assert dcu.session.head(url, timeout=5).status_code == 404
    until(lambda: dcu.session.head(url, timeout=5).status_code == 200)
    assert time.monotonic() - begin >= SHORT
    assert dcu.files() == sorted([*present, DATA.format(2)])
    whole(dcu, fetched, 2, 3, 2)


def test_a_late_file_comes_at_once_when_the_fault_is_cleared(dcu: Dcu, fetched: Path) -> None:
    dcu.fault("file-late", seconds=3600)
    take(dcu)
    assert DATA.format(1) not in dcu.files()
    dcu.clear()
    whole(dcu, fetched, 1, 1, 2)
    assert not list(dcu.folder.glob(".*"))


def test_clear_takes_late_files_with_it(dcu: Dcu) -> None:
    dcu.fault("file-late", seconds=3600)
    take(dcu)
    assert dcu.put("filewriter/command/clear").status_code == 200
    dcu.clear()
    assert dcu.files() == []
    assert not list(dcu.folder.glob(".*"))


def test_a_file_missing(dcu: Dcu, fetched: Path) -> None:
    dcu.fault("file-missing", file=2)
    take(dcu)
    assert dcu.files() == [DATA.format(1), DATA.format(3), MASTER]
    with h5py.File(fetch(dcu, MASTER, fetched)) as file:
        link = file.get("entry/data/data_000002", getlink=True)
        assert link.filename == DATA.format(2)
    whole(dcu, fetched, 3, 5, 1)


def test_a_master_missing(dcu: Dcu, fetched: Path) -> None:
    dcu.fault("file-missing", file=0, times=1)
    take(dcu)
    assert MASTER not in dcu.files()
    whole(dcu, fetched, 1, 1, 2)
    # It was to strike one series.
    assert dcu.arm() == 2
    assert "series_2_master.h5" in dcu.files()


@pytest.mark.parametrize("model", VERSIONS)
def test_a_file_replaced_by_one_named_on_the_command_line(model: str, tmp_path: Path) -> None:
    other = tmp_path / "trouble.h5"
    other.write_bytes(b"not HDF5 at all")
    fault = f"file-replaced:file=2,with={other}"
    with running(model, tmp_path / "data", "--fault", fault) as dcu:
        dcu.put("filewriter/config/mode", "enabled")
        take(dcu)
        assert fetch(dcu, DATA.format(2), tmp_path / "f").read_bytes() == b"not HDF5 at all"
        whole(dcu, tmp_path / "f", 1, 1, 2)


def test_images_in_the_master_are_struck_there(dcu: Dcu, fetched: Path) -> None:
    dcu.fault("file-short", file=0, missing=2)
    take(dcu, images=5, per_file=0)
    assert dcu.files() == [MASTER]
    assert len(images_of(fetch(dcu, MASTER, fetched))) == 3


def test_files_in_sub_folders_and_several_faults_at_once(dcu: Dcu, fetched: Path) -> None:
    dcu.put("filewriter/config/name_pattern", "sub/of/run_$id")
    dcu.fault("file-missing", file=1)
    dcu.fault("file-short", file=2)
    take(dcu)
    listed = [f"sub/of/run_1_{part}.h5" for part in ("data_000002", "data_000003", "master")]
    assert dcu.files() == listed
    (fetched / "sub" / "of").mkdir(parents=True)
    assert len(images_of(fetch(dcu, listed[0], fetched))) == 1
    assert not list(dcu.folder.glob(".*"))


def test_a_series_that_is_refused_leaves_nothing_behind(dcu: Dcu) -> None:
    dcu.fault("file-missing")
    dcu.config(nimages=20_000_000)  # more than a file has room for
    assert dcu.command("arm").status_code == 400
    assert not list(dcu.folder.glob(".*"))
