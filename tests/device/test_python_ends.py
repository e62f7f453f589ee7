"""Python ends while a thread of the device's is in HDF5."""

import os
import subprocess
import sys

import numpy as np
import pytest
from h5py import File

PROGRAM = """
import sys
import threading

import h5py
import numpy as np

from ophyd_eiger import bringing
from ophyd_eiger.last_work import in_hdf5

path, what = sys.argv[1:]
# Python closes it last, with h5py's lock.
left_open = h5py.File(path)
reads = threading.Event()


def read_on(*_, **__):
    pixels = np.empty(left_open["images"].shape, "u1")
    with h5py.File(path) as file:
        for _ in range(30):
            reads.set()
            file["images"].read_direct(pixels)
    # Work that is part of it goes on, too, when Python has begun to end.
    with in_hdf5():
        print("read", flush=True)
    return 1


# In h5py's lock as long as each of these.
bringing.check_data_file = bringing.check_pixels = bringing.read_master = read_on
bringing.write_view = read_on
"""
ENDS = {
    "copy": "bringing._check_copy(delivery, 's_1_data_000001.h5', path)",
    "check": "bringing.check_file(delivery, 's_1_data_000001.h5', path)",
    "view": "bringing.Bringer(None, 'eiger').write_views(delivery)",
    "count": "bringing.Bringer(None, 'eiger').not_as_taken(delivery)",
}
REST = """
from pathlib import Path

from ophyd_eiger.deliveries import Delivery, FetchedFile

delivery = Delivery("s_1", Path(path).parent, 1, 1, (2, 2), np.dtype("u1"))
delivery.home[delivery.master] = FetchedFile(Path(path), 1, 0, 0.0)
delivery.begin_view(1)
delivery.name_images([0])
threading.Thread(target=lambda: eval(what), daemon=True).start()
reads.wait()
"""


BEFORE = """
import atexit

late = threading.Thread(target=lambda: eval(what), daemon=True)


def bring_the_last_home():
    late.start()
    late.join(30)


atexit.register(bring_the_last_home)
"""


def test_what_is_to_be_done_at_the_end_is_done(tmp_path):
    """As IPython has it, which was there before: the files of a prompt that is left come home."""
    path = tmp_path / "images.h5"
    with File(path, "w") as file:
        file["images"] = np.zeros(100, "u1")
    program = "import sys\nimport threading\n\nwhat = sys.argv[2]\n" + BEFORE + PROGRAM
    program += REST.rpartition("threading.Thread")[0]
    command = [sys.executable, "-c", program, str(path), ENDS["check"]]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "read\n"


@pytest.mark.parametrize("what", ENDS.values(), ids=ENDS)
def test_python_ends_when_a_file_is_read(tmp_path, what):
    path = tmp_path / "images.h5"
    with File(path, "w") as file:
        file["images"] = np.zeros(2**25, "u1")
    command = [sys.executable, "-c", PROGRAM + REST, str(path), what]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=True, env=os.environ
    )
    assert ended.stdout == "read\n"
