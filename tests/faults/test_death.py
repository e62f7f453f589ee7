"""A DCU that dies and comes back, shown by a plain client."""

import threading
import time

import pytest
import requests
from dcu_process import Dcu, running, until_back, until_closed, until_refused
from plain_client import until

from sim_dcu.faults import Faults
from sim_dcu.series_faults import SeriesFaults

# The short run takes each test with one generation only, see conftest.
GENERATIONS_BY_TURNS = True


@pytest.mark.parametrize("files", ["gone", "kept"])
def test_it_refuses_and_comes_back_at_the_same_port_as_after_power_up(dcu: Dcu, files: str) -> None:
    dcu.put("filewriter/config/name_pattern", "mine_$id")
    dcu.put("monitor/config/mode", "enabled")
    dcu.series(4, 2)
    dcu.arm()
    dcu.command("trigger")
    dcu.command("disarm")
    before = dcu.files()
    assert len(before) == 3
    dcu.arm()
    with dcu.connect() as idle, dcu.connect() as waiting:
        dcu.fault("late", seconds=3600)
        waiting.sendall(dcu.request_bytes("GET", "detector/status/state"))
        until(lambda: dcu.active()[0]["struck"])
        begin = time.monotonic()
        dcu.fault("die", back=1.5, files=files)
        assert until_closed(idle) == until_closed(waiting) == b""
        until_refused(dcu)
        assert time.monotonic() - begin < 1.5
    back = until_back(dcu)
    assert 1.5 <= back - begin < 5
    dcu.clear()
    # Nothing but the state is told before initialize, and all is at its default.
    assert dcu.state == "na"
    assert dcu.get("detector/config/nimages").status_code == 404
    assert dcu.value("filewriter/config/name_pattern") == "series_$id"
    assert dcu.value("monitor/config/mode") == "disabled"
    assert dcu.get("monitor/images").json() == []
    # The series that was armed had its master file.
    assert dcu.files() == ([] if files == "gone" else [*before, "mine_2_master.h5"])
    assert dcu.command("initialize").status_code == 200
    dcu.put("filewriter/config/mode", "enabled")
    assert dcu.value("detector/config/nimages") == 1
    assert dcu.arm() == 1


@pytest.mark.parametrize("files", ["gone", "kept"])
def test_it_dies_in_mid_series_and_what_was_in_no_whole_file_is_lost(dcu: Dcu, files: str) -> None:
    dcu.series(5, 2)
    dcu.arm()
    dcu.fault("die", image=3, back=0.3, files=files)
    with pytest.raises(requests.ConnectionError):
        dcu.command("trigger")
    until_back(dcu)
    dcu.clear()
    assert dcu.state == "na"
    whole = ["series_1_data_000001.h5", "series_1_master.h5"]
    assert dcu.files() == ([] if files == "gone" else whole)
    hidden = [path.name for path in dcu.folder.rglob("*") if path.name.startswith(".")]
    assert hidden == []


def test_what_was_exposed_is_written_before_it_dies() -> None:
    faults, dead = Faults(), []
    faults.kill = dead.append
    death = faults.set("die:image=3")
    series = SeriesFaults(faults, object())
    assert not series.stalls(2, 2)
    for written in (1, 2):
        assert series.stalls(3, written)
    assert dead == []
    for _ in range(2):
        assert series.stalls(3, 3)
    assert dead == [death]


def test_it_dies_of_a_request_which_is_not_carried_out(dcu: Dcu) -> None:
    dcu.fault("die", command="arm", after=1, back=0.3, files="kept")
    assert dcu.arm() == 1
    dcu.command("disarm")
    with pytest.raises(requests.ConnectionError):
        dcu.command("arm")
    until_back(dcu)
    assert dcu.state == "na"
    assert dcu.files() == ["series_1_master.h5"]
    # Once, unless asked for more.
    assert dcu.command("initialize").status_code == 200
    dcu.put("filewriter/config/mode", "enabled")
    assert dcu.arm() == 1


def test_a_blocked_trigger_is_cut_and_a_second_death_follows(dcu: Dcu) -> None:
    dcu.series(5, 5)
    dcu.fault("stall", image=2)
    for _ in range(2):
        dcu.arm()
        outcomes: list[object] = []

        def give(outcomes: list[object] = outcomes) -> None:
            try:
                outcomes.append(requests.put(dcu.path("detector/command/trigger"), timeout=30))
            except requests.ConnectionError as error:
                outcomes.append(error)

        trigger = threading.Thread(target=give)
        trigger.start()
        until(lambda: dcu.state == "acquire")
        dcu.fault("die", back=0.3)
        trigger.join(10)
        assert isinstance(outcomes[0], requests.ConnectionError)
        until_back(dcu)
        assert dcu.state == "na"
        assert dcu.files() == []
        assert dcu.command("initialize").status_code == 200
        dcu.put("filewriter/config/mode", "enabled")
        dcu.config(nimages=5)


def test_a_process_ends_while_it_is_dead(dcu: Dcu, tmp_path) -> None:
    with running(dcu.model, tmp_path / "data") as mortal:
        mortal.fault("die", back=3600)
        until_refused(mortal)
        begin = time.monotonic()
    assert time.monotonic() - begin < 2
