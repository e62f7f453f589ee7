"""A detector that a process left armed: ended by who fetches, unless somebody else has it."""

import numpy as np
import pytest
from owing import SHORT, journals, refuse_files, take

from ophyd_eiger import EigerDetector, journal, open_series
from ophyd_eiger.client import DcuClient
from ophyd_eiger.errors import DcuError, StateError, TransferError
from ophyd_eiger.owed import end_if_left_armed

# Of each test's cases the short run takes every 2nd, see conftest.
SHORT_RUN_EVERY = 2


def test_what_is_still_exposed_of_a_process_that_ended_is_owed(dcu, device, tmp_path, monkeypatch):
    left = EigerDetector(dcu.url, name="left", directory=tmp_path / "data", timeouts=SHORT)
    dcu.faults.set("refuse", status=503, path="GET data/*")
    take(left)
    with pytest.raises(TransferError):
        left.unstage().wait(20)
    left.destroy()
    dcu.faults.clear()
    with monkeypatch.context() as patch:
        patch.setattr("ophyd_eiger.owed.end_if_left_armed", lambda *_: "it is still being exposed")
        with pytest.raises(TransferError, match=r"not fetched yet: .*it is still being exposed"):
            device.fetch()
    assert len(device.fetch()) == 2


def test_a_series_that_was_armed_meanwhile_is_not_disarmed(dcu, device, tmp_path):
    """What is armed is asked for again, at the last moment before the series of a dead one ends."""
    device.detector.ntrigger.set(2).wait(10)
    take(device)
    (name,) = journals(tmp_path / "data")
    delivery = journal.read(tmp_path / "data" / name).delivery
    asked = []

    class Client(DcuClient):
        def get(self, subsystem, resource):
            asked.append(resource)
            if resource == "config/name_pattern" and asked.count(resource) == 2:
                return {"value": "another_$id"}
            return super().get(subsystem, resource)

    assert device.detector.state.get() == "ready"
    assert end_if_left_armed(Client(dcu.url), delivery, 5) == ""
    assert device.detector.state.get() == "ready"
    device.unstage().wait(20)


def leave_armed(dcu, device):
    """Take two of four points, and lose the network before the end."""
    device.configure({"ntrigger": 4, "filewriter.nimages_per_file": 100})
    take(device, 2)
    for verb in ("GET", "PUT"):
        dcu.faults.set("drop", path=f"{verb} *")
    with pytest.raises((DcuError, TransferError)):
        device.unstage().wait(30)
    dcu.faults.clear()
    assert device.detector.state.get() == "ready"


def arm_for_another(dcu):
    client = DcuClient(dcu.url)
    client.command("detector", "disarm", timeout=20)
    client.put("filewriter", "config/name_pattern", "theirs_$id")
    client.command("detector", "arm", timeout=20)
    client.close()


def test_a_series_that_unstage_could_not_end_is_ended_by_fetch(dcu, device, tmp_path):
    """Its images are in the DCU's memory until then."""
    leave_armed(dcu, device)
    assert len(device.fetch()) == 2
    assert device.detector.state.get() == "idle"
    assert device.owed == {}
    images = open_series(next((tmp_path / "data").glob("*_master.h5")))
    assert len(images) == 2
    for number, image in enumerate(images, start=1):
        assert np.array_equal(image, dcu.image(1, number))
    assert journals(tmp_path / "data") == []


def test_what_another_armed_since_is_left_alone_by_fetch(dcu, device):
    leave_armed(dcu, device)
    arm_for_another(dcu)
    assert len(device.fetch()) == 2
    assert device.detector.state.get() == "ready"


def test_what_another_armed_since_is_left_alone_by_stage(dcu, device):
    leave_armed(dcu, device)
    arm_for_another(dcu)
    with pytest.raises(StateError, match="somebody armed it"):
        device.stage().wait(20)
    assert device.detector.state.get() == "ready"
    assert len(device.fetch()) == 2


def test_a_later_series_of_the_same_pattern_is_not_disarmed(dcu, device, tmp_path, caplog):
    """The process was killed before it put the pattern back, and another client left it so."""
    refuse_files(dcu)
    take(device)
    (journal_of_first,) = journals(tmp_path / "data")
    series = journal_of_first.strip(".").removesuffix(".owed")
    device.destroy()
    dcu.faults.clear()
    client = DcuClient(dcu.url)
    pattern = f"{series.rpartition('_')[0]}_$id"
    client.put("filewriter", "config/name_pattern", pattern)
    client.command("detector", "arm", timeout=20)
    other = EigerDetector(dcu.url, name="other", directory=tmp_path / "data", timeouts=SHORT)
    came = other.fetch()
    assert sorted(file.path.name for file in came) == [
        f"{series}_data_000001.h5",
        f"{series}_master.h5",
    ]
    assert other.detector.state.get() == "ready"
    later = pattern.replace("$id", "2")
    assert f"{series} is over: the detector was armed again since, for {later}" in caplog.text
    client.command("detector", "disarm", timeout=20)
    client.close()
    other.destroy()
