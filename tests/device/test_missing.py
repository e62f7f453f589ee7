"""What is told of files that did not come home: as much as is known, and no more."""

import numpy as np
import pytest

from ophyd_eiger.deliveries import Delivery
from ophyd_eiger.errors import DcuUnreachableError, FileError, RefusedError
from ophyd_eiger.missing import not_home


@pytest.fixture
def delivery(tmp_path):
    """Two images in two files, of which the DCU lists all; nothing is home."""
    found = Delivery("s_1", tmp_path, 2, 1, (2, 4), np.dtype("<u2"), ended=True, recorded=2)
    found.note_listed(["s_1_data_000001.h5", "s_1_data_000002.h5", "s_1_master.h5"])
    return found


def told(*wanted, said=None):
    return str(not_home("eiger", wanted, "within 2 s of the last byte", said, "eiger.fetch()"))


def test_of_files_that_are_broken_and_others_only_the_broken_ones_are_told_so(delivery):
    delivery.errors = {
        "s_1_data_000001.h5": FileError("0 images found, 1 expected"),
        "s_1_data_000002.h5": RefusedError("503", request="GET", status=503, text=""),
    }
    said = told(delivery)
    assert "what is on the DCU is still there, and eiger.fetch() brings it" in said
    assert "says the same of s_1_data_000001.h5 again, that is broken on the DCU, too" in said
    assert "let go of it with `ophyd-eiger fetch --give-up`" in said


def test_of_files_that_only_did_not_come_none_is_told_to_be_broken(delivery):
    delivery.errors = {"s_1_master.h5": RefusedError("503", request="GET", status=503, text="")}
    assert "broken" not in told(delivery)


def test_a_series_that_nobody_could_be_asked_for_is_named_beside_one_that_lacks_files(
    delivery, tmp_path
):
    other = Delivery("s_2", tmp_path, 2, 1, (2, 4), np.dtype("<u2"), ended=True)
    gone = DcuUnreachableError("no route", request="GET")
    said = told(delivery, other, said=gone)
    assert "s_1_data_000001.h5, s_1_data_000002.h5, s_1_master.h5 did not come home" in said
    assert "nor is known whether the DCU has more of s_2" in said
    alone = told(other, said=gone)
    assert "whether the DCU has more files of s_2 is not known" in alone
    assert "no route" in alone


def test_a_file_that_is_all_here_is_told_apart_from_one_that_is_on_its_way(delivery):
    delivery.settling = {"s_1_data_000001.h5": 0.0}
    delivery.reached = {"s_1_data_000001.h5": 900, "s_1_data_000002.h5": 10}
    said = told(delivery)
    assert "all of s_1_data_000001.h5 had come, and is not synced to its disk and checked" in said
    assert "10 bytes of s_1_data_000002.h5 had come" in said
    assert "900 bytes" not in said
