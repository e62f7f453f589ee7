"""The NeXus validator says of our master files what it says of a real one."""

import re
import shutil
import subprocess
import sys

import pytest
from golden.make import DATA, REAL_FILES
from written import armed, write_series

REAL_MASTER = DATA / REAL_FILES["eiger1_9M_master.json"]
# What an EIGER2's layout has of NXmx that an EIGER1's lacks.
ONLY_OF_EIGER2 = {
    ("/entry/definition", "required field"),
    ("/entry/sample/depends_on", "required field"),
    ("NXdetector_module", "required group"),
    ("/entry/instrument/detector/distance", "recommended field"),
}


def complaints(master):
    """Return what nxvalidate finds missing or wrong: (object, words) in order."""
    code = "from nexusformat.scripts.nxvalidate import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "-w", "-a", "NXmx", str(master)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    plain = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    found, place = [], ""
    for line in plain.partition("NXDL File")[2].splitlines()[1:]:
        words = line.strip()
        if named := re.fullmatch(r"(?:Field|Group): (\S+)", words):
            place = named[1]
        elif missing := re.fullmatch(r"This (.*) is not in the NeXus file", words):
            found.append((place, missing[1]))
        elif words and not words.startswith("Total number"):
            found.append((place, words))
    return found


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    if not REAL_MASTER.exists():
        pytest.skip(f"{REAL_MASTER} missing: set EIGER_TEST_DATA to the folder of real files")
    # The validator opens it for writing.
    return complaints(shutil.copy(REAL_MASTER, tmp_path_factory.mktemp("real")))


@pytest.mark.parametrize("images", [0, 1], ids=["link dangles", "with images"])
def test_an_eiger1_master_is_as_valid_as_a_real_one(real, tmp_path, images):
    master = write_series(tmp_path, armed(1), images)
    assert complaints(master) == real
    assert sum(words.startswith("required") for _, words in real) == 8


@pytest.mark.parametrize("images", [0, 1], ids=["link dangles", "with images"])
def test_an_eiger2_master_lacks_no_more_than_a_real_eiger1_master(real, tmp_path, images):
    """Its definition is NXmx, so that it is held against what that demands."""
    found = complaints(write_series(tmp_path, armed(2), images))
    # That a group is there changes the line it is listed under.
    assert set(real) - set(found) == ONLY_OF_EIGER2
    assert set(found) - set(real) == set()
