"""Whether a series fits, is fast enough and allowed: told before it is armed."""

import logging
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import bluesky.plans as bp
import numpy as np
import pytest
from bluesky.utils import FailedStatus

import sim_dcu
from ophyd_eiger import EigerDetector, Timeouts, TriggerInfo
from ophyd_eiger.errors import PreflightError
from ophyd_eiger.preflight import Facts, Preflight, checks
from ophyd_eiger.triggering import Scheme, TriggerMode

PIXELS = 514 * 1030  # of an EIGER 500K
PIXELS_2 = 512 * 1028  # of an EIGER2 500K
ROOM = 8_000_000


def served(model, room=ROOM):
    """Return a simulated DCU with little room, to be used with `with`."""
    return sim_dcu.serve(model, seed=3, initialized=True, data_quota=room)


def device(dcu, tmp_path, **arguments):
    eiger = EigerDetector(dcu.url, name="eiger", directory=tmp_path / "data", **arguments)
    eiger.connect()
    return eiger


@pytest.mark.parametrize("fault", ["one lost", "all lost", "no answer"])
def test_what_clearing_would_bring_fails_no_scan(tmp_path, requests_sent, caplog, fault):
    """It is a sentence of advice: what cannot be asked for it is left out."""
    with served("eiger-500k", 20_000_000) as dcu:
        eiger = device(dcu, tmp_path, timeouts=Timeouts(get=1))
        eiger.stage().wait(10)
        eiger.trigger().wait(20)
        eiger.unstage().wait(20)
        there = sum(path.stat().st_size for path in (tmp_path / "data").glob("*_[md]a*.h5"))
        # They need 22 MB beside the master, as the last one did; at least 1 MB whatever they are.
        eiger.detector.nimages.set(150).wait(10)
        if fault == "no answer":
            dcu.faults.set("hang", path="HEAD *")
        else:
            dcu.faults.set("drop", path="HEAD *", **({"times": 1} if fault == "one lost" else {}))
        requests_sent.clear()
        eiger.stage().wait(10)
        dcu.faults.clear()
        eiger.unstage().wait(20)
        eiger.destroy()
    asked = [sent for sent in requests_sent(files=True) if sent.startswith("HEAD")]
    # A connection is lost once only, and nobody goes on asking after a silence.
    assert len(asked) == {"one lost": 3, "all lost": 2, "no answer": 1}[fault]
    told = f"would bring no more than {there / 1e6:.3g} MB" in caplog.text
    assert told == (fault == "one lost")


def test_what_cannot_fit_on_the_dcu_is_not_armed(tmp_path, requests_sent):
    # The most that LZ4 can do leaves 1/255 of 4 bytes a pixel.
    most = ROOM * 255 // (4 * PIXELS)
    with served("eiger-500k") as dcu:
        eiger = device(dcu, tmp_path)
        eiger.configure({"count_time": 0.5, "nimages": most})
        assert eiger.preflight()
        eiger.detector.nimages.set(most + 1).wait(10)
        report = eiger.preflight()
        assert not report
        requests_sent.clear()
        with pytest.raises(
            PreflightError,
            match=rf"8 MB are free for files on the DCU, and {most + 1} images of 1030 x 514 "
            r"pixels of 32 bit need 8(\.\d+)? MB even if each shrank to 1/255, the most.*"
            r"can: take fewer images a series; clearing the DCU would bring no more than 0 B",
        ) as caught:
            eiger.stage().wait(10)
        assert report.refusals[0] in str(caught.value)
        assert report.refusals[0] in repr(report)
        assert [sent for sent in requests_sent() if sent.startswith("PUT")] == []
        # Not staged, and nothing to put back.
        eiger.detector.nimages.set(1).wait(10)
        eiger.stage().wait(10)
        eiger.trigger().wait(20)
        eiger.unstage().wait(20)
        # What fitted fits no more, and would again.
        eiger.detector.nimages.set(most).wait(10)
        (refusal,) = eiger.preflight().refusals
        assert re.search(r"eiger\.filewriter\.clear\.set\(1\).*or take fewer images", refusal)
        assert "would bring" not in refusal
        eiger.detector.nimages.set(most + 1).wait(10)
        (refusal,) = eiger.preflight().refusals
        there = sum(path.stat().st_size for path in (tmp_path / "data").glob("*_[md]a*.h5"))
        assert refusal.endswith(f"would bring no more than {there / 1e6:.3g} MB")
        assert "filewriter.clear" not in refusal
        eiger.destroy()


def test_without_compression_it_is_known_to_the_byte(tmp_path):
    with served("eiger2-500k") as dcu:
        eiger = device(dcu, tmp_path)
        eiger.configure({"count_time": 0.5, "compression": "none", "nimages": 3})
        image = PIXELS_2 * 4
        assert 3 * image < ROOM < 4 * image
        assert eiger.preflight()
        eiger.detector.nimages.set(4).wait(10)
        (refusal,) = eiger.preflight().refusals
        assert "need 8.42 MB, as they are not compressed" in refusal
        eiger.destroy()


def test_a_warning_is_logged_once_a_staging(RE, tmp_path, caplog):
    with served("eiger-500k", room=30_000_000) as dcu:
        eiger = device(dcu, tmp_path)
        eiger.configure({"frame_time": 0.02, "count_time": 0.01, "nimages": 40})
        with caplog.at_level(logging.WARNING, logger="ophyd_eiger"):
            eiger.stage().wait(10)
            # The same series once more, by a fly scan.
            eiger.prepare(TriggerInfo(number_of_events=1, exposures_per_event=40)).wait(10)
            eiger.unstage().wait(20)
        told = [record.getMessage() for record in caplog.records if "are free" in record.message]
        assert len(told) == 1
        # 32 bits from 10 ms on: 2.1 MB an image, a third of that with two photons a pixel.
        assert (
            "40 images with their master file need about 31.6 MB (683 kB an image, a gu" in told[0]
        )
        assert "what does not fit is lost" in told[0]
        eiger.destroy()


def test_images_count_as_those_that_came_home_last(RE, dcu, eiger):
    eiger.configure({"nimages": 3, "filewriter.nimages_per_file": 2})
    assert eiger.preflight().facts.seen is None
    RE(bp.count([eiger], 1))
    files = [file.path for file in eiger.fetched if "_data_" in file.path.name]
    assert len(files) == 2
    mean = sum(path.stat().st_size for path in files) / 3
    found = eiger.preflight().facts
    assert found.likely_image == found.seen == pytest.approx(mean)
    assert "as in the last files of such images" in repr(eiger.preflight())
    # Other images are as unknown as before.
    eiger.configure({"frame_time": 0.5, "count_time": 0.4})
    assert eiger.preflight().facts.bits == 32
    assert eiger.preflight().facts.seen is None


def test_a_fly_scan_that_cannot_fit_is_not_armed(tmp_path):
    with served("eiger-500k") as dcu:
        eiger = device(dcu, tmp_path)
        eiger.stage().wait(10)
        with pytest.raises(PreflightError, match="500000 images"):
            eiger.prepare(TriggerInfo(number_of_events=500_000)).wait(10)
        assert eiger.detector.state.get() == "idle"
        with pytest.raises(PreflightError, match="500000 images"):
            eiger.kickoff().wait(10)
        eiger.unstage().wait(20)
        assert eiger.detector.nimages.get() == 1
        eiger.destroy()


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk is mounted by root only")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_at_home(RE, dcu, eiger, small_disk):
    # In a folder that is still to be made.
    eiger.directory = small_disk / "today"
    eiger.configure({"nimages": 3})
    assert eiger.preflight().warnings[0].startswith("65.5 kB are free in")
    assert not (small_disk / "today").exists()
    filled = small_disk / "others"
    filled.write_bytes(bytes(60_000))
    with pytest.raises(FailedStatus, match=r"are free in \S+today, and 3 images.*another director"):
        RE(bp.count([eiger], 1))
    assert eiger.detector.state.get() == "idle"
    assert eiger.filewriter.name_pattern.get() == "series_$id"


def test_a_full_dcu_is_told_and_cleared(RE, dcu, eiger, assert_right):
    dcu.faults.set("full")
    with pytest.raises(FailedStatus, match="0 B are free for files on the DCU"):
        RE(bp.count([eiger], 1))
    # Nothing was armed, so that the detector did not go into an error.
    assert eiger.detector.state.get() == "idle"
    dcu.faults.clear()
    (uid,) = RE(bp.count([eiger], 1))
    assert_right(uid, points=1, images=1)


@pytest.mark.parametrize("fault", ["refuse:status=404", "refuse:status=500", "null"])
def test_a_dcu_that_does_not_tell_its_room(RE, dcu, eiger, assert_right, caplog, fault):
    path = "path=GET filewriter/*/status/buffer_free"
    dcu.faults.set(f"refuse:{path},status=200,text=null" if fault == "null" else f"{fault},{path}")
    eiger.detector.nimages.set(2).wait(10)
    with caplog.at_level(logging.WARNING, logger="ophyd_eiger"):
        (uid,) = RE(bp.count([eiger], 1))
    assert_right(uid, points=1, images=2)
    assert "free" not in caplog.text
    assert eiger.preflight().facts.dcu_free is None


def test_a_disk_that_does_not_know_its_size_is_not_full(RE, eiger, assert_right, monkeypatch):
    """As some of FUSE: nothing is free there, nor is anything taken, as in /proc."""
    statvfs = os.statvfs
    assert statvfs("/proc").f_blocks == 0
    monkeypatch.setattr(os, "statvfs", lambda _: statvfs("/proc"))
    assert eiger.preflight().facts.disk_free is None
    (uid,) = RE(bp.count([eiger], 1))
    assert_right(uid, points=1, images=1)


@pytest.mark.parametrize("version", ["1.6.0", "1.8.0"])
def test_room_is_in_the_unit_of_the_api(tmp_path, version):
    with served("eiger2-500k") as dcu:
        eiger = device(dcu, tmp_path, api_version=version)
        assert eiger.preflight().facts.dcu_free == pytest.approx(ROOM, abs=1024)
        eiger.destroy()


def test_what_is_not_allowed_is_told_at_the_prompt(tmp_path):
    with sim_dcu.serve("eiger-500k", initialized=False) as dcu:
        eiger = device(dcu, tmp_path)
        report = eiger.preflight()
        assert "state 'na', not 'idle'; initialize it" in report.refusals[0]
        assert len(report.refusals) == 2
        eiger.initialize()
        assert eiger.preflight()
        eiger.triggers_per_point.set(3).wait(10)
        (refusal,) = eiger.preflight().refusals
        assert "ntrigger is 1, but a point takes 3 triggers" in refusal
        assert "a series that cannot be" in repr(eiger.preflight())
        eiger.destroy()


def test_asked_while_staged_it_is_about_what_is_staged(dcu, eiger):
    eiger.stage().wait(10)
    assert eiger.preflight()
    eiger.prepare(TriggerInfo(number_of_events=7, exposures_per_event=2)).wait(10)
    assert eiger.preflight().facts.scheme.total == 14
    eiger.unstage().wait(20)


# ---- pure: an EIGER 500K in trigger mode ints, with room for everything ----

FACTS = Facts(
    device="eiger",
    scheme=Scheme(TriggerMode.INTS, 1, 1, 1),
    shape=(514, 1030),
    bits=16,
    count_time=0.004,
    frame_time=0.005,
    readout_time=7.5e-6,
    shortest_frame_time=1.1e-4,
    compressed=True,
    seen=None,
    images_per_file=1000,
    dcu_free=1e15,
    directory=Path("data"),
    disk_free=1e15,
    copied=True,
    deleted=False,
    limits_week=True,
)


def checked(**changed):
    facts = replace(FACTS, **changed)
    return Preflight("eiger", facts, checks(facts))


def series_of(images, mode=TriggerMode.INTS):
    return Scheme(mode, images, 1, images)


def test_nothing_against_it():
    assert [check.severity for check in checked().checks] == ["ok"] * 4


@pytest.mark.parametrize(
    ("changed", "refused", "sentence"),
    [
        (
            {"frame_time": 1e-4, "count_time": 9e-5},
            True,
            r"frame_time is 0\.0001 s \(1e\+04 Hz\).*needs 0\.00011 s \(9091 Hz\)",
        ),
        (
            {"count_time": 0.005},
            False,
            r"count_time 0\.005 s and 7\.5e-06 s of read-out do not fit into frame_time 0\.005 s.*"
            r"set count_time to 0\.0049925 s or frame_time to 0\.0050075 s",
        ),
        ({"scheme": series_of(200_000_000)}, False, r"takes 11\.6 days at least, and.*7 days"),
        ({"scheme": series_of(2_000_000_001), "frame_time": 1e-3, "count_time": 5e-4,
          "limits_week": False}, False, "nimages x ntrigger is 2000000001"),
        ({"scheme": series_of(1001), "images_per_file": 0}, False, "all 1001 images go into the m"),
        ({"disk_free": 1e3}, True, "1 kB are free in data, and 1 image of 1030 x 514 pixels of 16"),
    ],
)  # fmt: skip
def test_what_is_found(changed, refused, sentence):
    found = checked(**changed)
    assert bool(found) is not refused
    (told,) = found.refusals if refused else found.warnings
    assert re.search(sentence, told)


@pytest.mark.parametrize(
    "changed",
    [
        # In these modes the times are only hints.
        {"scheme": series_of(1, TriggerMode.EXTE), "count_time": 1.0, "frame_time": 1e-5},
        # The DCU's own rounding to single precision.
        {"count_time": float(np.float32(0.0999925)), "frame_time": float(np.float32(0.1))},
        {"bits": None, "dcu_free": 0.0},
        {"dcu_free": None, "disk_free": None, "readout_time": None, "shortest_frame_time": None},
    ],
)
def test_what_is_not_found(changed):
    found = checked(**changed)
    assert found
    assert found.warnings == []


def test_files_that_do_not_stay_or_are_not_copied():
    """Deleted as they come home, they need not all fit on the DCU; not copied, not here."""
    many = {"scheme": series_of(1000), "bits": 32, "dcu_free": 1e6}
    assert not checked(**many)
    found = checked(**many, deleted=True)
    assert found
    (told,) = found.warnings
    assert "fit only if files come home, and are deleted, as fast as images are taken" in told
    assert not checked(disk_free=1.0)
    (told,) = checked(disk_free=1e6).warnings
    assert "in data, and" in told
    assert "what does not fit stays on the DCU" in told
    assert checked(disk_free=1.0, copied=False).warnings == []


def test_between_certain_and_likely():
    """Refused only below what LZ4 can do, warned of below what images are likely to take."""
    plain = PIXELS * 2
    master = PIXELS * 8
    likely = 100 * plain / 2.2 + master
    verdicts = {
        room: checked(scheme=series_of(100), dcu_free=room).checks[0].severity
        for room in (100 * plain / 255 - 1, 100 * plain / 255 + 1, likely - 1, likely + 1)
    }
    assert list(verdicts.values()) == ["refuse", "warn", "warn", "ok"]
    seen = checked(scheme=series_of(100), seen=10_000.0, dcu_free=100 * 10_000 + master)
    assert seen.checks[0].severity == "ok"
