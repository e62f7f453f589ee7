"""The plan `acceptance_test`: passes on a detector that is well, leaves it as it was, reports."""

import datetime as dt
import html.parser
import json
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from acceptance_runs import detector, report_of, settings, state
from bluesky import RunEngine
from bluesky.simulators import check_limits, summarize_plan
from bluesky.utils import RunEngineInterrupted
from eiger_plans import acceptance_test, armed_once
from eiger_plans.acceptance.asking import Asking
from eiger_plans.acceptance.reports import write
from eiger_plans.acceptance.resources import table

import sim_dcu
from ophyd_eiger import EigerDetector, EigerError, Timeouts
from ophyd_eiger.trial import simulator
from sim_dcu.models import MODELS

# The short run takes each test with one generation only, see conftest.
GENERATIONS_BY_TURNS = True
SHORT = ("eiger-500k", "eiger2-500k")


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "model",
    [pytest.param(name, marks=[] if name in SHORT else pytest.mark.long) for name in MODELS],
)
def test_a_detector_that_is_well_passes_and_is_as_before(model, tmp_path, capsys):
    with (
        sim_dcu.serve(model, time_scale=0, seed=3, initialized=True) as dcu,
        # The first arm makes the simulator's images.
        detector(dcu, tmp_path, timeouts=Timeouts()) as eiger,
    ):
        before = settings(dcu, model)
        documents = []
        engine = RunEngine({}, call_returns_result=True)
        engine.subscribe(lambda name, doc: documents.append((name, doc)))
        report = engine(acceptance_test(eiger, time_scale=0)).plan_result
        assert report.failures == []
        assert report.passed
        assert settings(dcu, model) == before
        assert state(dcu, model) == "idle"
        assert set(report.sections()) >= {
            *("connection", "resources", "health", "puts", "arm", "series", "files", "monitor"),
            "configuration",
        }
        checked = {check.name for check in report.sections()["resources"]}
        asked_for = {
            name
            for name, row in table(model.partition("-")[0]).items()
            if not (row.optional or row.is_command or row.is_array)
        }
        assert asked_for <= checked
        not_judged = {check.name for check in report.checks if check.verdict == "not done"}
        # Times and rates at time-scale 0, and modes that need settings of their own.
        assert all(
            name == "10 Hz for 3 s: rate" or "time of trigger" in name or "command/arm" in name
            for name in not_judged
        )
        assert "PASSED" in capsys.readouterr().out
    # Files stay where the device's go: one data file, three, none, one, and three of the rate.
    endings = Counter(path.name[-8:] for path in (tmp_path / "data").glob("*_data_*.h5"))
    assert sum(endings.values()) == 1 + 3 + 0 + 1 + 3
    assert len(list((tmp_path / "data").glob("*_master.h5"))) == 5
    # Five runs with series, and one with the report.
    starts = [doc for name, doc in documents if name == "start"]
    assert [start["plan_name"] for start in starts] == ["acceptance_test"] * 6
    assert all(start["plan_args"]["eiger"] == repr(eiger.name) for start in starts)
    assert all(start["plan_args"]["time_scale"] == 0 for start in starts)
    assert starts[-1]["acceptance_verdict"] == "PASSED"
    assert [start["uid"] for start in starts] == report.runs
    last = [doc for name, doc in documents if name == "event"][-1]["data"]
    assert last["eiger_acceptance_verdict"] == "PASSED"
    assert json.loads(last["eiger_acceptance_report"])["counts"]["fail"] == 0


@pytest.mark.parametrize("can_be_emptied", [True, False])
def test_images_that_another_program_left_in_the_monitor_are_not_in_the_way(
    tmp_path, can_be_emptied
):
    with (
        sim_dcu.serve("eiger-500k", time_scale=0, seed=3, initialized=True) as dcu,
        detector(dcu, tmp_path, timeouts=Timeouts()) as eiger,
    ):
        client = eiger.link.client
        client.put("monitor", "config/mode", "enabled")
        # Full, so that it takes no image of another series.
        client.put("monitor", "config/buffer_size", 4)
        client.put("detector", "config/nimages", 9)
        for command in ("arm", "trigger", "disarm"):
            client.command("detector", command, timeout=20)
        assert client.get("monitor", "status/dropped")["value"] == 5
        if not can_be_emptied:
            dcu.faults.set("refuse", status=404, path="PUT monitor/*/command/clear")
            client.put("monitor", "config/buffer_size", 100)
        report = RunEngine({}, call_returns_result=True)(
            acceptance_test(eiger, time_scale=0)
        ).plan_result
        assert report.failures == []


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("model", SHORT)
def test_times_of_a_detector_that_keeps_them_are_judged(model, tmp_path):
    # A process of its own, whose times are not those of this one's work.
    with simulator("--model", model, "--initialized") as url:
        eiger = EigerDetector(url, name="eiger", directory=tmp_path)
        # So long that what a busy machine takes beside the exposures is little of it.
        report = report_of(eiger, time_scale=1, seconds=12)
        eiger.destroy()
        assert report.failures == []
        timed = [check for check in report.checks if "time of trigger" in check.name]
        assert len(timed) == 7
        assert {check.verdict for check in timed} == {"pass"}


@pytest.mark.long
@pytest.mark.parametrize(
    ("model", "version", "documents"),
    [("eiger2-500k", "1.6.0", "stream"), ("eiger-500k", "1.0.0", "datum")],
)
def test_other_versions_of_the_api_and_kinds_of_documents(model, version, documents, tmp_path):
    """An EIGER2 serves the API of an EIGER too, and has its own resources there."""
    with (
        sim_dcu.serve(model, api_version=version, time_scale=0, initialized=True) as dcu,
        detector(dcu, tmp_path, documents=documents) as eiger,
    ):
        assert report_of(eiger).failures == []


def test_what_makes_no_sense_is_refused_before_anything_is_sent(tmp_path):
    eiger = detector_that_is_off(tmp_path)
    (tmp_path / "there.md").touch()
    for wrong, words in (
        ({"frame_rate": 0}, "frame_rate is 0"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"download_rate": -1}, "download_rate is -1"),
        ({"time_scale": -1}, "time_scale is -1"),
        ({"temperature": (40, 10)}, "the lower limit comes first"),
        ({"report": str(tmp_path / "report.pdf")}, "a report ends in .txt, .md, .html, .json"),
        ({"report": str(tmp_path / "there.md")}, "nothing is overwritten"),
        ({"report": str(tmp_path / "no" / "report.md")}, "there is no folder"),
    ):
        with pytest.raises(ValueError, match=words):
            next(acceptance_test(eiger, **wrong))
    eiger.destroy()


def test_it_can_be_listed_and_checked_without_a_detector(RE, tmp_path, capsys):
    eiger = detector_that_is_off(tmp_path)
    summarize_plan(acceptance_test(eiger))
    printed = capsys.readouterr().out
    assert printed.count("Open Run") == 6
    assert "eiger_configuration" in printed
    check_limits(acceptance_test(eiger))
    eiger.destroy()


@pytest.mark.long
def test_beside_armed_once_as_a_preprocessor(RE, eiger, capsys):
    RE.preprocessors.append(armed_once(eiger))
    RE(acceptance_test(eiger, time_scale=0))
    assert "\nPASSED\n" in capsys.readouterr().out
    assert eiger.detector.ntrigger.get() == 1


def test_listed_it_claims_nothing(eiger, tmp_path, capsys):
    report = tmp_path / "listed.html"
    summarize_plan(acceptance_test(eiger, report=report))
    printed = capsys.readouterr().out
    assert "FAILED" not in printed
    assert "report: " not in printed
    assert not report.exists()


def detector_that_is_off(folder: Path):
    return EigerDetector("http://127.0.0.1:9", name="eiger", directory=folder)


def test_a_detector_that_is_off_is_told_of(tmp_path):
    eiger = detector_that_is_off(tmp_path)
    report = report_of(eiger)
    (check,) = report.failures
    assert (check.section, check.name) == ("connection", "detector/api/version")
    assert "cannot be reached" in check.found
    eiger.destroy()


@pytest.mark.parametrize("model", SHORT)
def test_one_that_is_armed_is_left_alone(model, tmp_path):
    with (
        sim_dcu.serve(model, time_scale=0, seed=3, initialized=True) as dcu,
        detector(dcu, tmp_path) as eiger,
    ):
        eiger.connect()
        eiger.detector.arm.set(1).wait()
        report = report_of(eiger)
        assert "detector/status/state" in {check.name for check in report.failures}
        assert not {"arm", "series", "files"} & set(report.sections())
        assert state(dcu, model) == "ready"


@pytest.mark.parametrize(
    ("model", "fault", "ill"),
    [
        ("eiger-500k", "humidity", "detector/status/board_000/th0_humidity"),
        ("eiger2-500k", "full", "filewriter/status/buffer_free"),
    ],
)
def test_one_that_is_idle_and_not_well_is_left_alone(
    model, fault, ill, tmp_path, commands, monkeypatch
):
    # By its clock it is in another zone, and says UTC.
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    value = Asking.value

    def in_utc(asking, resource):
        now = dt.datetime.now(dt.UTC).replace(tzinfo=None).isoformat()
        return now if resource == "detector/status/time" else value(asking, resource)

    monkeypatch.setattr(Asking, "value", in_utc)
    with (
        sim_dcu.serve(model, time_scale=0, seed=3, initialized=True) as dcu,
        detector(dcu, tmp_path) as eiger,
    ):
        before = settings(dcu, model)
        dcu.faults.set(fault)
        report = report_of(eiger, report=str(tmp_path / "report.md"))
        dcu.faults.clear()
        assert settings(dcu, model) == before
    monkeypatch.undo()
    time.tzset()
    assert report.verdict == "FAILED"
    assert "arm" not in commands()
    assert not {"puts", "arm", "series", "files"} & set(report.sections())
    health = {check.name: check for check in report.sections()["health"]}
    assert ill in health["the rest"].found
    assert health["detector/status/time"].verdict == "pass"
    assert "read as UTC" in health["detector/status/time"].found
    assert ill in (tmp_path / "report.md").read_text()


def test_one_whose_state_is_not_known_any_more_is_left_alone(dcu, tmp_path, commands, monkeypatch):
    state_of, asked = Asking.state, []

    def once(asking):
        asked.append(asking)
        if len(asked) > 1:
            raise EigerError("no state on request")
        return state_of(asking)

    monkeypatch.setattr(Asking, "state", once)
    with detector(dcu, tmp_path) as eiger:
        report = report_of(eiger)
    assert "no state on request" in {check.found.partition(": ")[2] for check in report.failures}
    assert "arm" not in commands()


def test_what_nobody_thought_of_ends_in_a_report(tmp_path, monkeypatch):
    def broken(_):
        raise KeyError("of another DCU")

    monkeypatch.setattr(Asking, "connection", broken)
    eiger = detector_that_is_off(tmp_path)
    report = report_of(eiger, report=str(tmp_path / "report.txt"))
    assert report.verdict == "FAILED"
    assert [check.found for check in report.failures] == ["KeyError: 'of another DCU'"]
    assert "of another DCU" in (tmp_path / "report.txt").read_text()
    eiger.destroy()


def test_an_abort_puts_the_configuration_back(tmp_path):
    model = "eiger-500k"
    with (
        sim_dcu.serve(model, time_scale=0, seed=3, initialized=True) as dcu,
        detector(dcu, tmp_path) as eiger,
    ):
        before = settings(dcu, model)
        engine = RunEngine({})
        seen = []

        def pause_at_the_third_series(msg):
            seen.append(msg.command)
            if msg.command == "trigger" and seen.count("stage") == 3:
                threading.Thread(target=engine.request_pause, args=(False,)).start()

        engine.msg_hook = pause_at_the_third_series
        with pytest.raises(RunEngineInterrupted):
            engine(acceptance_test(eiger, time_scale=0))
        # It cannot be resumed: the pause has ended it.
        assert engine.state == "idle"
        assert seen.count("stage") == 3
        assert settings(dcu, model) == before
        assert state(dcu, model) == "idle"


class Page(html.parser.HTMLParser):
    """Collects the cells of a page's tables."""

    def __init__(self, text):
        super().__init__()
        self.cells, self.tags = [], Counter()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data):
        if self.cells:
            self.cells[-1] += data


def test_a_series_that_ends_too_soon_fails_and_the_report_in_every_form(tmp_path):
    places = {ending: tmp_path / f"report.{ending}" for ending in ("txt", "md", "html", "json")}
    with (
        sim_dcu.serve("eiger2-500k", time_scale=0, seed=3, initialized=True) as dcu,
        detector(dcu, tmp_path) as eiger,
    ):
        dcu.faults.set("refuse:path=GET */status/link_0")
        # It is told to wait, and does not.
        report = report_of(eiger, report=str(places["html"]), time_scale=1)
    for ending in ("txt", "md", "json"):
        write(report, places[ending])
    texts = {ending: path.read_text() for ending, path in places.items()}
    failed = {check.name: check for check in report.failures}
    too_soon = failed.pop("ints, several data files: time of trigger 1")
    # 5 images every 0.1 s: the last one begins 0.4 s after the first.
    assert too_soon.expected.startswith("0.400 to ")
    assert next(iter(failed)) == "detector/status/link_0"
    assert all("time of trigger" in name for name in list(failed)[1:])
    checks = json.loads(texts["json"])["checks"]
    assert len(checks) == len(report.checks)
    for ending, text in texts.items():
        assert "EIGER2 Si 500K" in text, ending
        assert "E-01-0000" in text, ending
        assert dcu.url in text, ending
        assert f"{report.started:%Y-%m-%d}" in text, ending
        assert "detector/status/link_0" in text, ending
        assert "400 Bad Request" in text, ending
        if ending != "json":
            assert "FAILED" in text, ending
            assert "signature" in text, ending
    assert json.loads(texts["json"])["verdict"] == "failed"
    rows = [line for line in texts["md"].splitlines() if line.count(" | ") == 3]
    # Of each table the heading and the line below it; what failed comes twice, and first.
    failed_rows = len(report.failures) + 2
    assert len(rows) == len(checks) + 2 * len(report.sections()) + failed_rows
    assert "detector/status/link_0" in rows[2]
    page = Page(texts["html"])
    failing = [cell for cell in page.cells if cell.strip() == "fail"]
    assert len(failing) == 2 * len(report.failures)
    assert page.tags["tr"] >= len(checks)
