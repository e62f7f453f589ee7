"""The ledger: every request the simulator was sent, for what, and where a point's time went."""

import threading
import time

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import pytest
from bluesky import RunEngine

from ophyd_eiger import EigerDetector
from ophyd_eiger.errors import RefusedError
from ophyd_eiger.ledger import Ledger


@pytest.fixture
def RE():
    """A RunEngine that saves nowhere."""
    return RunEngine({})


def listed(eiger, *, doing=None):
    return [
        f"{request.verb} {request.resource}"
        for request in eiger.ledger.requests
        if doing is None or request.doing == doing
    ]


def test_every_request_since_stage_is_there_once_and_in_order(RE, eiger, requests_sent):
    requests_sent.clear()
    RE(bp.count([eiger], 3))
    ours = [r for r in listed(eiger) if not r.startswith("GET data") and "files" not in r]
    assert ours == requests_sent()
    files = sorted(r for r in listed(eiger, doing="transfer") if r.startswith("GET data"))
    assert files == sorted(
        request.replace("/data/", "data ")
        for request in requests_sent(files=True)
        if "/data/" in request
    )


def test_requests_belong_to_what_was_being_done(RE, eiger):
    RE(bp.count([eiger], 2))
    point = [
        "PUT detector command/trigger",
        "GET detector status/state",
        "PUT detector command/disarm",
    ]
    arm = [
        "PUT detector command/arm",
        *("GET detector config/" + key for key in ("nimages", "ntrigger", "trigger_mode")),
        *("GET filewriter config/" + key for key in ("nimages_per_file", "mode", "name_pattern")),
        "GET detector config/bit_depth_image",
    ]
    assert listed(eiger, doing="point 1") == point
    assert listed(eiger, doing="point 2") == arm + point
    assert listed(eiger, doing="stage")[0] == "GET detector status/state"
    assert listed(eiger, doing="unstage") == [
        "GET filewriter config/name_pattern",
        "PUT filewriter config/name_pattern",
        "GET filewriter config/name_pattern",
    ]
    eiger.detector.count_time.get()
    assert listed(eiger, doing="prompt") == ["GET detector config/count_time"]
    assert [span.doing for span in eiger.ledger.spans] == ["stage", "point 1", "point 2", "unstage"]


def test_a_new_stage_begins_a_new_ledger(RE, eiger):
    RE(bp.count([eiger], 3))
    RE(bp.count([eiger], 1))
    assert eiger.ledger.summary()["points"]["count"] == 1
    assert sum("command/arm" in request for request in listed(eiger)) == 1


def test_where_a_points_time_went(RE, eiger, dcu):
    """A late reply of disarm is the request's time; a motor is time before the next point."""
    eiger.detector.ntrigger.set(2).wait(10)
    eiger.detector.nimages.set(4).wait(10)
    dcu.faults.set("late:command=disarm,seconds=0.3")

    @bpp.stage_decorator([eiger])
    @bpp.run_decorator()
    def plan():
        yield from bps.trigger_and_read([eiger])
        yield from bps.sleep(0.2)
        yield from bps.trigger_and_read([eiger])

    RE(plan())
    dcu.faults.clear()
    first, second = [span for span in eiger.ledger.spans if span.doing.startswith("point")]
    # 4 images each 0.005 s, by the detector's own settings.
    assert first.exposure == second.exposure == pytest.approx(4 * 0.005, rel=1e-5)
    assert second.idle_before > 0.2
    assert first.in_requests == 0
    assert second.in_requests > 0.3
    assert second.seconds > second.in_trigger + second.in_requests
    assert second.overhead == pytest.approx(second.seconds - second.exposure)
    (disarm,) = [r for r in eiger.ledger.requests if r.resource == "detector command/disarm"]
    assert disarm.seconds > 0.3
    assert disarm.outcome == 200


def test_the_summary_is_plain_and_adds_up(RE, eiger):
    import json

    RE(bp.count([eiger], 2))
    summary = json.loads(json.dumps(eiger.ledger.summary()))
    requests = eiger.ledger.requests
    assert sum(found["count"] for found in summary["requests"].values()) == len(requests)
    trigger = summary["requests"]["point: PUT detector command/trigger"]
    took = [r.seconds for r in requests if r.resource == "detector command/trigger"]
    assert trigger["count"] == 2
    assert trigger["seconds"] == pytest.approx(sum(took))
    assert trigger["longest"] == pytest.approx(max(took))
    files = summary["requests"]["transfer: GET data file"]
    assert files["bytes"] == sum(file.bytes for file in eiger.fetched)
    assert files["count"] == len(eiger.fetched)
    assert summary["points"]["count"] == 2
    assert set(summary["seconds"]) == {"stage", "point", "unstage"}


def test_the_table_is_read_by_people(RE, eiger):
    RE(bp.count([eiger], 3))
    table = eiger.ledger.table(points=2, every=True)
    lines = table.splitlines()
    (trigger,) = [line for line in lines if "PUT detector command/trigger" in line]
    assert trigger.split()[:5] == ["point", "PUT", "detector", "command/trigger", "3"]
    assert lines[0] == "points (the last 2 of 3)"
    assert [line.split()[:2] for line in lines[2:4]] == [["point", "2"], ["point", "3"]]
    assert max(map(len, lines)) < 120


def test_settings_and_status_values_are_gathered_in_the_table():
    ledger = Ledger()
    asked = ["config/count_time", "config/threshold/1/energy", "status/state", "command/arm"]
    with ledger.during("stage"):
        for number, resource in enumerate([*asked, *asked[:2]]):
            path = f"/detector/api/1.6.0/{resource}"
            ledger.add(
                "GET", path, time.perf_counter(), 0.25 * 2**number, 10, 400 if number else 200
            )
    rows = [line.split() for line in ledger.table(points=0).splitlines()]
    assert rows[1:-1] == [
        ["stage", "GET", "detector", "config/*", "4", "12.7500", "3.1875", "8.0000", "40", "3"],
        ["stage", "GET", "detector", "command/arm", "1", "2.0000", "2.0000", "2.0000", "10", "1"],
        ["stage", "GET", "detector", "status/state", "1", "1.0000", "1.0000", "1.0000", "10", "1"],
    ]
    assert "every=True" in ledger.table()
    every = ledger.table(every=True)
    assert len(every.splitlines()) == 1 + len(asked)
    assert all(resource in every for resource in asked)


def test_failures_are_noted(eiger, dcu):
    dcu.faults.set("refuse:path=GET */config/count_time")
    with pytest.raises(RefusedError):
        eiger.detector.count_time.get()
    dcu.faults.set("drop:path=GET */config/frame_time,times=1")
    eiger.detector.frame_time.get()
    outcomes = [(r.resource, r.outcome) for r in eiger.ledger.requests[-3:]]
    assert outcomes == [
        ("detector config/count_time", 400),
        ("detector config/frame_time", "ConnectionError"),
        ("detector config/frame_time", 200),
    ]
    found = eiger.ledger.summary()["requests"]["prompt: GET detector config/frame_time"]
    assert (found["count"] > 1, found["failed"]) == (True, 1)


def test_memory_is_bounded_and_sums_go_on():
    ledger = Ledger(largest_number=100)
    with ledger.during("stage"):
        pass
    for _ in range(1000):
        with ledger.during("point"):
            ledger.add("GET", "/detector/api/1.6.0/status/state", time.perf_counter(), 0.5, 7, 200)
    assert len(ledger.requests) == len(ledger.spans) == 100
    assert ledger.spans[-1].doing == "point 1000"
    found = ledger.summary()["requests"]["point: GET detector status/state"]
    assert found == {"count": 1000, "seconds": 500.0, "longest": 0.5, "bytes": 7000, "failed": 0}
    assert ledger.summary()["points"]["count"] == 1000
    assert ledger.summary()["seconds"]["stage"] > 0


def test_threads_do_not_mix_up_their_work():
    ledger = Ledger()
    inside, done = threading.Event(), threading.Event()

    def other():
        with ledger.during("point"):
            inside.set()
            done.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(10)
    ledger.add("GET", "/detector/api/1.6.0/status/state", time.perf_counter(), 0.1, 0, 200)
    done.set()
    thread.join(10)
    assert [request.doing for request in ledger.requests] == ["prompt"]


def test_images_of_the_monitor_are_one_kind(RE, eiger):
    eiger.live.enabled = True
    eiger.detector.ntrigger.set(6).wait(10)
    RE(bp.count([eiger], 6))
    kinds = [kind for kind in eiger.ledger.summary()["requests"] if "monitor images" in kind]
    assert "point: GET monitor images/N/N" in kinds
    assert not any(character.isdigit() for kind in kinds for character in kind)
    paths = {request.resource for request in eiger.ledger.requests}
    assert "monitor images/1/6" in paths


def test_what_a_first_stage_asks_for_is_its_own(dcu, tmp_path):
    eiger = EigerDetector(dcu.url, name="eiger", directory=tmp_path)
    eiger.stage().wait(20)
    kinds = {request.doing for request in eiger.ledger.requests}
    assert kinds == {"stage"}
    assert len(eiger.ledger.requests) > 80
    eiger.unstage().wait(20)
    eiger.destroy()
