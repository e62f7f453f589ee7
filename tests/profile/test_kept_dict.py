"""Metadata that stay: what a process knows of them after it, and beside others."""

import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.plans import count
from ophyd.sim import det

from ophyd_eiger.errors import FileError
from ophyd_eiger.kept_dict import KeptDict


@pytest.fixture
def path(tmp_path):
    return tmp_path / "made" / "metadata.json"


def test_items_stay_and_those_that_are_removed_do_not(path):
    kept = KeptDict(path)
    kept.update(sample={"name": "lysozyme", "cell": [79, 79, 38]}, proposal=7, gone="x")
    kept["angles"] = np.array([0.5, 1.5])
    del kept["gone"]
    assert dict(KeptDict(path)) == {
        "sample": {"name": "lysozyme", "cell": [79, 79, 38]},
        "proposal": 7,
        "angles": [0.5, 1.5],
    }


def test_runs_count_on_and_have_what_was_changed_inside(path):
    starts = []
    for _ in range(2):
        engine = RunEngine(KeptDict(path), scan_id_source=KeptDict.count_on, context_managers=[])
        engine.subscribe(lambda name, doc: starts.append(doc), "start")
        if not starts:
            engine.md["sample"] = {"name": "lysozyme"}
            engine.md["sample"]["runs"] = 0
        else:
            engine.md["sample"]["runs"] += 1
        engine(count([det]))
    assert [start["scan_id"] for start in starts] == [1, 2]
    assert [start["sample"]["runs"] for start in starts] == [0, 1]
    assert json.loads(path.read_text())["sample"] == {"name": "lysozyme", "runs": 1}


def test_several_processes_give_no_number_twice(path):
    code = (
        "import sys; from ophyd_eiger.kept_dict import KeptDict; kept = KeptDict(sys.argv[1]);"
        "print(*(kept.count_on() for _ in range(30)))"
    )
    command = [sys.executable, "-c", code, str(path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    numbers = [int(word) for each in running for word in each.communicate(timeout=60)[0].split()]
    assert sorted(numbers) == list(range(1, 91))
    assert KeptDict(path)["scan_id"] == 90


def test_two_at_once_keep_each_others_items(path):
    one, other = KeptDict(path), KeptDict(path)
    one["sample"] = "lysozyme"
    other["proposal"] = 7
    del other["proposal"]
    other["energy"] = 12.4
    one["energy"] = 7.1
    assert "energy" in one
    other.count_on()
    assert dict(other) == {"sample": "lysozyme", "energy": 7.1, "scan_id": 1}
    one.count_on()
    assert dict(one) == {"sample": "lysozyme", "energy": 7.1, "scan_id": 2}
    assert dict(KeptDict(path)) == dict(one)


def test_what_json_has_not_is_refused_before_anything_is_written(path):
    kept = KeptDict(path)
    kept["sample"] = "lysozyme"
    with pytest.raises(TypeError, match=r"'motor': <object .* cannot be kept in JSON"):
        kept["motor"] = object()
    assert dict(kept) == dict(KeptDict(path)) == {"sample": "lysozyme"}


def test_what_json_has_not_inside_a_value_keeps_no_run_from_its_number(path, caplog):
    kept = KeptDict(path)
    kept["samples"] = ["lysozyme"]
    kept["samples"].append(object())
    assert [kept.count_on(), kept.count_on()] == [1, 2]
    assert "'samples'" in caplog.text
    assert dict(KeptDict(path)) == {"samples": ["lysozyme"], "scan_id": 2}


@pytest.mark.parametrize("text", ["{", "[1, 2]"])
def test_a_file_that_is_no_dict_is_named(path, text):
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(FileError, match=r"metadata\.json: .*JSON"):
        KeptDict(path)
    assert path.read_text() == text


def test_on_a_disk_without_locks(path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", no_locks)
    kept = KeptDict(path)
    kept["sample"] = "lysozyme"
    assert kept.count_on() == 1
    assert KeptDict(path) == {"sample": "lysozyme", "scan_id": 1}
