"""What the file writer refuses, and what it leaves when something goes wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from written import armed, names

from sim_dcu.filewriter import SeriesWriter
from sim_dcu.images import ImageSource

HERE = Path(__file__).parent
SEARCHED = os.pathsep.join([str(HERE), str(HERE.parent / "sim"), *sys.path])


@pytest.mark.parametrize("pattern", ["../x", "a/../../x", "/tmp/x", ".hidden", "a/.b/c", ""])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path, pattern):
    with pytest.raises(ValueError, match="name_pattern"):
        SeriesWriter(tmp_path, armed(1, name_pattern=pattern))
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"compression": "none"},
        {"nimages": 10**7 + 1},
        {"nimages": 10**6, "nimages_per_file": 1},
        {"image_nr_start": 2**31 - 1, "nimages": 2},
    ],
    ids=str,
)
def test_a_series_that_the_files_cannot_hold_is_refused(tmp_path, changes):
    with pytest.raises(ValueError, match=r"none of bslz4, lz4|at most"):
        SeriesWriter(tmp_path, armed(1, **changes))
    assert names(tmp_path) == []


def test_a_configuration_that_lacks_a_key_is_refused(tmp_path, generation):
    series = armed(generation)
    for key in ("wavelength", "omega_start"):
        series.detector.pop(key)
    with pytest.raises(KeyError, match="omega_start, wavelength"):
        SeriesWriter(tmp_path, series)


@pytest.mark.parametrize("number", [0, 1, 3, 6])
def test_images_come_in_order(tmp_path, number):
    series = armed(1, nimages=5)
    writer, chunk = SeriesWriter(tmp_path, series), ImageSource(series).chunk(1)
    writer.write_master()
    writer.add(1, chunk)
    with pytest.raises(ValueError, match=f"image {number} came after image 1 of 5"):
        writer.add(number, chunk)
    writer.close()


def test_nothing_comes_after_the_end(tmp_path):
    series = armed(1, nimages=5)
    writer, chunk = SeriesWriter(tmp_path, series), ImageSource(series).chunk(1)
    writer.write_master()
    writer.add(1, chunk)
    writer.close()
    before = names(tmp_path)
    writer.close()
    with pytest.raises(RuntimeError, match="closed already"):
        writer.add(2, chunk)
    assert names(tmp_path) == before


FULL_DISK = """
import resource, sys
from pathlib import Path
from written import armed
from sim_dcu.filewriter import SeriesWriter
from sim_dcu.images import ImageSource

folder, generation, per_file = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
series = armed(generation, nimages=100, nimages_per_file=per_file)
writer, source = SeriesWriter(folder, series), ImageSource(series)
writer.write_master()
resource.setrlimit(resource.RLIMIT_FSIZE, (6_000_000, resource.RLIM_INFINITY))
try:
    for number in range(1, 101):
        writer.add(number, source.chunk(number))
except OSError as error:
    print("refused at", number, error.errno)
writer.close()
left = [path.name for path in folder.rglob("*")]
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
again = armed(generation, series_id=8)
writer = SeriesWriter(folder, again)
writer.write_master()
writer.add(1, source.chunk(1))
writer.close()
print("left", left)
"""


@pytest.mark.parametrize(("per_file", "left"), [(100, ["series_7_master.h5"]), (0, [])])
def test_a_full_disk_leaves_no_unfinished_file(tmp_path, generation, per_file, left):
    # A limit on the size of files stands for the full disk: the same write fails in the same
    # place. In a process of its own, because HDF5 cannot always forget a file it failed to close.
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            FULL_DISK,
            str(tmp_path),
            str(generation),
            str(per_file),
        ],
        env={**os.environ, "PYTHONPATH": SEARCHED},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    refused, kept = done.stdout.splitlines()
    assert refused.startswith("refused at")
    assert refused.endswith(" 27")  # EFBIG
    assert kept == f"left {left}"
    assert names(tmp_path) == sorted([*left, "series_8_data_000001.h5", "series_8_master.h5"])


def test_a_process_that_dies_leaves_no_half_file_under_a_final_name(tmp_path):
    code = FULL_DISK.split("resource.setrlimit", 1)[0] + (
        "writer.add(1, source.chunk(1))\nimport os\nos._exit(9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), "1", "100"],
        env={**os.environ, "PYTHONPATH": SEARCHED},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 9, done.stderr
    assert [name for name in names(tmp_path) if name[0] != "."] == ["series_7_master.h5"]
