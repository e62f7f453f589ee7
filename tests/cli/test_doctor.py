"""`doctor` on DCUs in every state, with faults, with gaps, and where there is none."""

import re
import time

import pytest
from foreign_dcu import ForeignDcu, Reply, answering, missing, with_metadata, with_value

# Of each test's cases the short run takes every 2nd, see conftest.
SHORT_RUN_EVERY = 2

GENERATIONS_BY_TURNS = True
LEVELS = ("ok", "note", "warning", "fault")


@pytest.fixture
def foreign(shared):
    proxy = ForeignDcu(shared.url)
    yield proxy
    proxy.close()


def found(said, subject):
    """Return severity, text and advice of what was found of a subject."""
    of_it = [one for one in said.json["findings"] if one["subject"] == subject]
    assert len(of_it) == 1, said.json["findings"]
    return of_it[0]["severity"], of_it[0]["text"], of_it[0]["advice"]


def bad(said):
    return {
        one["subject"] for one in said.json["findings"] if one["severity"] in ("warning", "fault")
    }


def test_one_in_order(either, run):
    either.put("filewriter/config/mode", "enabled")
    said = run("doctor", either.url, "--json")
    assert said.status == 0
    assert bad(said) == set()
    document = said.json
    for key, resource in (
        ("model", "description"),
        ("serial_number", "detector_number"),
        ("firmware", "eiger_fw_version"),
        ("software", "software_version"),
    ):
        assert document[key] == either.get(f"detector/config/{resource}")
    assert document["generation"] == ("EIGER2" if "eiger2" in either.model else "EIGER")
    assert document["state"] == "idle"
    assert found(said, "state")[0] == "ok"
    assert found(said, "clock")[0] == "ok"
    assert "up" in found(said, "links")[1]
    if "eiger2" not in either.model:
        assert found(said, "image buffer")[1].startswith("100.0 % free; ")
    # An EIGER2 serves each of the two under two names.
    for sensor in ("temperature", "humidity"):
        assert len([one for one in document["findings"] if sensor in one["subject"]]) == 1
    assert document["counts"] == {
        level: sum(one["severity"] == level for one in document["findings"]) for level in LEVELS
    }


def test_what_people_see(dcu, run):
    dcu.put("filewriter/config/name_pattern", "mine")
    said = run("doctor", dcu.url)
    lines = said.out.splitlines()
    assert lines[0] == dcu.get("detector/config/description")
    assert any(line.startswith("ok ") and "idle" in line for line in lines)
    (number,) = [n for n, line in enumerate(lines) if line.startswith("warning")]
    assert "overwrites" in lines[number]
    assert f"-> ophyd-eiger set {dcu.url} 'filewriter.name_pattern=mine_$id'" in lines[number + 1]
    assert lines[-1].startswith("1 warning")
    assert not any(line != line.rstrip() for line in lines)
    assert said.err == ""


def test_switched_on(asleep, run):
    said = run("doctor", asleep.url, "--json")
    assert said.status == 0
    severity, text, advice = found(said, "state")
    assert (severity, advice) == ("warning", f"ophyd-eiger initialize {asleep.url}")
    assert text.startswith("na:")


def test_armed(either, run):
    either.put("detector/command/arm")
    severity, text, advice = found(run("doctor", either.url, "--json"), "state")
    assert severity == "note"
    assert text.startswith("ready: armed")
    assert f"ophyd-eiger fetch {either.url} ends it and keeps its images; else, if" in advice
    assert f"ophyd-eiger abort {either.url}" in advice
    assert either.get("detector/status/state") == "ready"


def test_state_error(either, run):
    either.server.faults.set("error", image=1)
    either.put("detector/command/arm")
    with pytest.raises(Exception, match="400 Client Error"):
        either.put("detector/command/trigger")
    said = run("doctor", either.url, "--json")
    assert said.status == 4
    severity, _, advice = found(said, "state")
    assert severity == "fault"
    assert advice.startswith(f"ophyd-eiger recover {either.url} (keeps the settings)")
    assert "initialize" not in advice
    if "eiger2" not in either.model:
        # The reason; an EIGER2 has none.
        _, text, advice = found(said, "error")
        assert "error on request" in text
        assert advice == f"mend that, then ophyd-eiger recover {either.url}"


@pytest.mark.parametrize(
    ("sensor", "value", "good"), [("temperature", 60, "15 to 37.5"), ("humidity", 80, "0 to 35")]
)
def test_a_critical_reading_is_measured_anew(dcu, run, sensor, value, good):
    assert run("doctor", dcu.url, "--json").status == 0
    dcu.server.faults.set(sensor, value=value)
    said = run("doctor", dcu.url, "--json")
    assert said.status == 4
    severity, text, _ = found(said, f"{sensor}, board_000")
    assert severity == "fault"
    assert text.startswith(f"{value}.0 ")
    assert f"{good} is good" in text
    # Told once, though status/error names it too.
    assert said.json["counts"]["fault"] == 1


def test_a_reading_without_limits_is_shown(dcu2, run):
    dcu2.server.faults.set("temperature", value=60)
    severity, text, _ = found(run("doctor", dcu2.url, "--json"), "temperature")
    assert severity == "ok"
    assert text == "60.0 °C; this DCU states no limits for it"


def test_a_link_that_is_down(either, run):
    either.server.dcu.detector.sensors.links["link_1"] = "down"
    said = run("doctor", either.url, "--json")
    # Neither generation says which value is good.
    assert found(said, "link 1")[:2] == ("warning", "down")
    assert found(said, "links")[1] == "0 up"


def test_a_full_disk(either, run):
    either.server.faults.set("full")
    assert found(run("doctor", either.url, "--json"), "disk")[:2] == (
        "fault",
        "full: 0 bytes free",
    )


@pytest.mark.parametrize("model", ["eiger-500k", "eiger2-500k"])
def test_room_is_in_bytes_whatever_the_dcu_counts_in(model, run):
    import sim_dcu

    with sim_dcu.serve(model, initialized=True, data_quota=5 * 10**9) as server:
        said = run("doctor", server.url, "--json")
        severity, text, _ = found(said, "disk")
        assert severity == "ok"
        # (An EIGER's KB may be 1000 or 1024 bytes.)
        assert float(text.split()[0]) == pytest.approx(5.0, rel=0.03)
        assert text.split()[1] == "GB"


def test_a_series_that_may_not_fit(dcu, run):
    dcu.put("detector/config/nimages", 100_000)
    text = found(run("doctor", dcu.url, "--json"), "disk")[1]
    # 514 x 1030 pixels of 4 bytes.
    assert "212 GB uncompressed" in text


def test_files_on_the_dcu(dcu, run):
    assert found(run("doctor", dcu.url, "--json"), "files")[1] == "0 files on the DCU"
    dcu.put("detector/command/arm")
    dcu.put("detector/command/trigger")
    dcu.put("detector/command/disarm")
    severity, text, _ = found(run("doctor", dcu.url, "--json"), "files")
    assert (severity, text) == ("note", "2 files on the DCU")


@pytest.mark.parametrize(
    ("seconds", "severity", "words"),
    [
        (3600, "warning", "60 min ahead"),
        (-30, "note", r"3[01](\.\d)? s behind"),
        (1, "ok", "within 2 s"),
    ],
)
def test_clocks(foreign, run, seconds, severity, words):
    def gap(request):
        there = time.time() + seconds
        stated = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(there))
        return with_value("GET detector status/time", stated)(request)

    foreign.gap = gap
    told = found(run("doctor", foreign.url, "--json"), "clock")
    assert told[0] == severity
    # A DCU states whole seconds: up to one more.
    assert re.search(words, told[1])


SETTINGS = [
    ("dcu", "detector/config/frame_time", 3, "times", "note", "exposes 33 % of the time"),
    ("dcu", "detector/config/threshold_energy", 3000, "threshold", "note", "37 % of 8047.78"),
    ("dcu", "detector/config/threshold_energy", 9000, "threshold", "warning", "not counted"),
    ("dcu", "filewriter/config/compression_enabled", False, "compression", "note", "off"),
    ("dcu", "filewriter/config/mode", "disabled", "file writer", "warning", "kept nowhere"),
    ("dcu", "detector/config/flatfield_correction_applied", False, "corrections", "note", "pixel"),
    ("dcu2", "detector/config/compression", "none", "compression", "note", "off"),
    ("dcu2", "detector/config/threshold/1/mode", "disabled", "threshold", "warning", "no images"),
    ("dcu2", "detector/config/test_image_mode", "value", "test image", "warning", "not counts"),
]


@pytest.mark.parametrize(("fixture", "resource", "value", "subject", "severity", "words"), SETTINGS)
def test_settings_that_are_likely_not_meant_so(
    request, run, fixture, resource, value, subject, severity, words
):
    dcu = request.getfixturevalue(fixture)
    dcu.put(resource, value)
    told = found(run("doctor", dcu.url, "--json"), subject)
    assert told[0] == severity
    assert words in told[1]


def test_each_command_that_is_advised_is_one(dcu2, run):
    """Its own words, typed again, mend what they are said of."""
    dcu2.put("detector/config/compression", "none")
    dcu2.put("detector/config/threshold_energy", 9000)
    dcu2.put("detector/config/mask_to_zero", True)
    said = run("doctor", dcu2.url, "--json")
    for subject in ("compression", "threshold"):
        advice = found(said, subject)[2]
        assert run(*advice.split()[1:]).status == 0, advice
    subjects = {one["subject"] for one in run("doctor", dcu2.url, "--json").json["findings"]}
    assert subjects.isdisjoint({"compression", "threshold"})


# ---- gaps ----


@pytest.mark.parametrize(
    "gap",
    [
        missing("GET stream *", "GET monitor *", "GET system *"),
        missing("GET filewriter *"),
        missing("GET * status/keys", "GET * config/keys"),
        missing("GET detector status/time", "GET detector status/board*", "GET detector status/b*"),
        missing("GET detector config/*"),
        missing("PUT detector command/status_update"),
        missing("GET detector version"),
    ],
    ids=["few", "no filewriter", "no keys", "no sensors", "no config", "no update", "no version"],
)
def test_what_is_not_served_is_no_fault(foreign, run, gap):
    foreign.gap = gap
    said = run("doctor", foreign.url, "--json")
    assert said.status == 0
    assert said.json["state"] == "idle"
    assert said.json["counts"]["fault"] == 0


@pytest.mark.parametrize("reply", [Reply.of(None), Reply(200, b"<html>", "text/html")])
def test_answers_that_are_none(foreign, run, reply):
    foreign.gap = answering("GET detector config/count_time", reply)
    said = run("doctor", foreign.url, "--json")
    assert said.status == 0
    assert "detector/config/count_time" in found(said, "answers")[1]


@pytest.mark.parametrize("command", ["doctor", "info", "get"])
def test_an_answer_that_is_no_text_can_be_printed(foreign, run, command):
    foreign.gap = with_value("GET detector config/detector_number", "E-\ud800-1")
    asked = ["detector_number"] if command == "get" else []
    said = run(command, foreign.url, *asked)
    assert said.status == 0
    assert r"E-\ud800-1" in said.out


def test_a_reading_that_the_dcu_calls_invalid(foreign, run):
    foreign.gap = with_metadata("GET detector status/board_000/th0_temp", state="invalid")
    assert found(run("doctor", foreign.url, "--json"), "temperature, board_000")[0] == "note"


def test_an_old_api_that_does_not_know_idle(foreign, run):
    foreign.gap = with_value("GET detector status/state", "ready")
    said = run("doctor", foreign.url, "--json", "--api-version", "1.0.0")
    severity, text, _ = found(said, "state")
    assert severity == "ok"
    assert "1.0.0 does not tell" in text


def test_a_part_that_hangs_is_asked_once(shared, run):
    shared.server.faults.set("hang", path="GET filewriter*")
    shared.server.faults.set("hang", path="GET stream*")
    said = run("doctor", shared.url, "--timeout", "1", "--json")
    assert said.status == 4
    assert "no answer within 1 s" in found(said, "filewriter")[1]
    assert "no answer within 1 s" in found(said, "stream")[1]
    assert found(said, "state")[0] == "ok"
    assert found(said, "monitor")[0] == "ok"
    assert [fault["struck"] for fault in shared.server.faults.listing()] == [1, 1]
    # Nothing is said of what was not asked.
    assert {one["subject"] for one in said.json["findings"]}.isdisjoint({"disk", "file writer"})


def test_one_that_hangs_altogether(shared, run):
    shared.server.faults.set("hang")
    said = run("doctor", shared.url, "--timeout", "1", "--json")
    assert said.status == 3
    assert said.json["reachable"] is False
    assert "no answer within 1 s" in found(said, "connection")[1]
