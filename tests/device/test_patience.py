"""How long nothing may come is counted for each series by itself, whatever comes of others."""

import logging
import math
import os
import threading
import time
from dataclasses import replace

import h5py
import numpy as np
import pytest
from file_server import DRIP_S, serving
from owing import SHORT

from ophyd_eiger import EigerDetector, FilePolicy, Timeouts, bringing, transfer
from ophyd_eiger.client import DcuClient
from ophyd_eiger.deliveries import Delivery
from ophyd_eiger.errors import FileError, TransferError
from ophyd_eiger.silence import Silence
from ophyd_eiger.transfer import Transfer

PATIENCE_S = 2.0
TIMEOUTS = Timeouts(connect=5, get=20, files=PATIENCE_S, trigger_margin=20)
# Longer than a series is waited for, and not as long as the test's own limit.
LONG_S = 10 * PATIENCE_S


@pytest.fixture
def device(dcu, tmp_path):
    device = EigerDetector(
        dcu.url,
        name="eiger",
        directory=tmp_path / "data",
        timeouts=TIMEOUTS,
        file_policy=FilePolicy(wait=False),
    )
    device.configure({"frame_time": 0.005, "count_time": 0.004})
    yield device
    device.destroy()


def taken(device):
    """Take a point; return what the names of its files begin with."""
    device.stage().wait(20)
    stem = device.filewriter.name_pattern.last.removesuffix("$id")
    device.trigger().wait(20)
    series_id = device.read()["eiger_series_id"]["value"]
    device.unstage().wait(20)
    return f"{stem}{series_id}"


def errors(caplog):
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]


@pytest.mark.long
def test_a_file_that_never_comes_is_told_while_scans_go_on(dcu, device, caplog):
    dcu.faults.set("file-truncated", file=1, times=1)
    stuck = taken(device)
    dcu.faults.clear()
    end = time.monotonic() + LONG_S
    while not errors(caplog):
        assert time.monotonic() < end
        taken(device)
    (message,) = errors(caplog)
    assert f"{stuck}_data_000001.h5 did not come home" in message
    with pytest.raises(TransferError, match=stuck):
        device.wait_for_files()
    assert list(device.owed) == [stuck]


@pytest.mark.long
def test_fetch_beside_a_scan_ends_when_nothing_comes_of_what_is_owed(dcu, device):
    dcu.faults.set("file-truncated", file=1, times=1)
    stuck = taken(device)
    with pytest.raises(TransferError):
        device.wait_for_files()
    told = []

    def fetch():
        with pytest.raises(TransferError) as raised:
            device.fetch()
        told.append(str(raised.value))

    fetching = threading.Thread(target=fetch)
    fetching.start()
    end = time.monotonic() + LONG_S
    while fetching.is_alive():
        assert time.monotonic() < end
        taken(device)
    assert f"{stuck}_data_000001.h5 did not come home" in told[0]


def test_a_check_that_hangs_is_patience_for_its_own_series_alone(dcu, device, monkeypatch, caplog):
    check, goes_on = bringing.check_file, threading.Event()
    hanging: list[str] = []

    def hangs(delivery, name, path):
        if not hanging:
            hanging.append(delivery.basename)
        if delivery.basename == hanging[0] and name != delivery.master:
            goes_on.wait(30)
        return check(delivery, name, path)

    monkeypatch.setattr(bringing, "check_file", hangs)
    taken(device)
    dcu.faults.set("file-truncated", file=1, times=1)
    stuck = taken(device)
    waited = threading.Event()
    end = time.monotonic() + LONG_S
    while not errors(caplog):
        assert time.monotonic() < end
        waited.wait(0.01)
    assert next(iter(device.owed)) == stuck
    assert all(hanging[0] not in each for each in errors(caplog))
    goes_on.set()
    with pytest.raises(TransferError, match=stuck):
        device.wait_for_files()
    assert list(device.owed) == [stuck]


@pytest.mark.parametrize("at_once", [1, 4])
def test_a_disk_that_hangs_when_a_file_is_all_here_holds_nobody_for_ever(
    device, monkeypatch, at_once
):
    sync, goes_on = os.fsync, threading.Event()
    hanging = []

    def hangs(descriptor):
        if not hanging:
            hanging.append(descriptor)
            goes_on.wait(60)
        sync(descriptor)

    monkeypatch.setattr(transfer, "SETTLES_S", 0.1)
    monkeypatch.setattr(os, "fsync", hangs)
    device.file_policy = FilePolicy(at_once=at_once)
    device.stage().wait(20)
    device.trigger().wait(20)
    with pytest.raises(
        TransferError, match=r"all of \w+\.h5 had come, and is not synced to its disk and checked"
    ):
        device.unstage().wait(20)
    assert hanging
    assert len(device.owed) == 1
    # It hangs yet: asking again ends, too.
    with pytest.raises(TransferError, match="is not synced to its disk"):
        device.fetch()
    goes_on.set()
    device.link.client.timeouts = replace(SHORT, files=20)
    device.fetch()
    assert len(device.fetched) == 2
    assert device.owed == {}


@pytest.mark.long
def test_what_waits_for_its_turn_is_not_given_up(device, monkeypatch, caplog):
    """As many series over a line that is slower than the detector."""
    device.file_policy = FilePolicy(wait=False, at_once=1)
    bring, first, failed = bringing.Bringer.bring, [], []
    waited = threading.Event()

    def slow(bringer, delivery, name, proceed, settling):
        first.append(delivery)
        if delivery is not first[0]:
            if not failed:
                # Once, so that it is queued again behind the slow one.
                failed.append(name)
                raise FileError("broken off")
            return bring(bringer, delivery, name, proceed, settling)
        for piece in range(1, 16):
            waited.wait(0.2)
            proceed((len(first) << 30) + (piece << 13))
        return bring(bringer, delivery, name, lambda _: None, settling)

    monkeypatch.setattr(bringing.Bringer, "bring", slow)
    for _ in range(3):
        taken(device)
    device.wait_for_files()
    assert errors(caplog) == []
    assert device.owed == {}


@pytest.mark.parametrize("times", [1, math.inf])
def test_without_a_thread_for_files_it_is_tried_again_and_told(device, monkeypatch, times):
    listed, start, failures = device.link.client.files, threading.Thread.start, []
    is_over = threading.Event()

    def fails(thread):
        if thread.name == "eiger file" and len(failures) < times:
            failures.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fails)
    # They are listed once all is over, so that no later list has any news.
    monkeypatch.setattr(device.link.client, "files", lambda: listed() if is_over.is_set() else [])
    taken(device)
    is_over.set()
    if times == 1:
        device.wait_for_files()
        assert len(device.fetched) == 2
    else:
        with pytest.raises(TransferError, match=r"last byte \(can't start new thread\)"):
            device.wait_for_files()
    assert failures


@pytest.mark.long
@pytest.mark.parametrize("breaks_in", ["download", "comparison"])
def test_what_comes_a_second_time_is_waited_for(tmp_path, breaks_in):
    """Over a line that takes longer for all of a file than nothing may come."""
    made = tmp_path / "made.h5"
    drops = 15
    assert drops * DRIP_S > 1.4 * SHORT.files
    with h5py.File(made, "w") as file:
        file["entry/pixel_mask"] = np.zeros(drops << 14, "u1")
    whole = made.read_bytes()
    breaks = {"download": [9 * len(whole) // 10], "comparison": [len(whole), len(whole) // 2]}
    home = tmp_path / "home"
    home.mkdir()
    delivery = Delivery("s_1", home, 3, 1000, (2, 4), np.dtype("<u2"), ended=True, final=True)
    delivery.cut_short = delivery.may_be_empty = True
    delivery.policy = FilePolicy(delete_on_dcu=breaks_in == "comparison")
    with serving(
        {delivery.master: whole},
        ranges="ignored",
        breaks=breaks[breaks_in],
        drips=0,
        drop=1 << 14,
    ) as server:
        client = DcuClient(server.url, api_version="1.6.0")
        transfer = Transfer(client, "eiger")
        transfer.add(delivery)
        transfer.wait(SHORT.files)
        assert (home / delivery.master).read_bytes() == whole
        transfer.close()
        client.close()


def test_a_silence_is_not_counted_while_it_is_held(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    silence = Silence(now[0])
    now[0] += 1
    silence.hold(True)
    now[0] += 10
    assert silence.seconds == 1
    silence.hold(True)
    silence.hold(False)
    now[0] += 2
    assert silence.seconds == 3
    silence.hold(True)
    now[0] += 10
    silence.break_off()
    now[0] += 10
    silence.hold(False)
    now[0] += 4
    assert silence.seconds == 4
