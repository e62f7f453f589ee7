"""A DCU that leaves things out: the scan comes out right, or one message says what is missing."""

import logging
import math
import re
import traceback

import bluesky.plans as bp
import pytest
import requests
from bluesky.utils import FailedStatus
from foreign_dcu import (
    Gap,
    Reply,
    Request,
    answering,
    edited,
    hanging,
    missing,
    not_taken,
    whole,
    with_metadata,
    with_value,
    without,
)

from ophyd_eiger import EigerDetector, Timeouts
from ophyd_eiger.errors import (
    ConfigurationFileError,
    DcuTimeoutError,
    EigerError,
    NotServedError,
    RefusedError,
    ReplyError,
    StateError,
    TransferError,
)

# Of each test's cases the short run takes every 2nd, see conftest.
SHORT_RUN_EVERY = 2

# Long enough for a busy machine; and short enough for a test to see them pass.
PATIENT = Timeouts(connect=20, get=20, put=20, arm=20, end=20, trigger_margin=20, files=20)
HASTY = Timeouts(connect=20, get=2, put=20, arm=2, end=2, trigger_margin=1, files=1)
HTML = Reply(200, b"<html><body>Bad gateway</body></html>", "text/html")
NULL = Reply.of(None)
METADATA = ("min", "max", "allowed_values", "unit", "value_type", "access_mode")
KEYS = ("GET * config/keys", "GET * status/keys", "GET * command/keys")
long = pytest.mark.long


@pytest.fixture
def eiger(foreign, tmp_path):
    device = EigerDetector(foreign.url, name="eiger", directory=tmp_path / "data", timeouts=PATIENT)
    yield device
    device.destroy()


@pytest.fixture
def ask(dcu):
    """What the DCU itself says of a resource, to a plain client."""

    def value(resource):
        subsystem, path = resource.split(" ")
        return requests.get(f"{dcu.url}/{subsystem}/api/1.6.0/{path}", timeout=10).json()["value"]

    return value


def as_text(request: Request) -> Reply:
    """Say of JSON that it is text."""
    reply = request.forward()
    if "json" in reply.content_type:
        reply.content_type = "text/plain"
    return reply


def without_length(request: Request) -> Reply:
    """Say of no body how long it is, so that neither Range nor HEAD would be of use."""
    reply = request.forward()
    reply.announced = False
    return reply


def no_head(request: Request) -> Reply:
    """Refuse HEAD, and whatever else is not GET or PUT."""
    return request.forward() if request.method in ("GET", "PUT") else Reply(501, b"", "")


class StuckInAcquire:
    """A trigger that never replies, after which the state never changes again."""

    def __init__(self) -> None:
        self.triggered = False

    def __call__(self, request: Request) -> Reply | None:
        if request.asks("PUT detector command/trigger"):
            self.triggered = True
            request.forward()
            request.lifted.wait(60)
            return None
        reply = request.forward()
        if self.triggered and request.asks("GET detector status/state"):
            return edited(reply, lambda true: {**true, "value": "acquire"})
        return reply


# ---- what a scan does not need ----


@pytest.mark.parametrize(
    "gap",
    [
        pytest.param(without("min", "max"), id="no limits", marks=long),
        pytest.param(without(*METADATA, "state", "critical_limits"), id="values alone"),
        pytest.param(missing("GET detector version"), id="no version", marks=long),
        pytest.param(missing(*KEYS), id="no lists of keys", marks=long),
        pytest.param(no_head, id="no HEAD", marks=long),
        pytest.param(without_length, id="no lengths", marks=long),
        pytest.param(as_text, id="JSON as text", marks=long),
        pytest.param(answering("PUT detector command/*", NULL), id="commands reply null"),
        pytest.param(
            missing("* monitor *", "* stream *", "* system *"), id="two subsystems", marks=long
        ),
        pytest.param(
            missing("GET detector config/beam*", "GET detector config/data_coll*"),
            id="no geometry, no date",
            marks=long,
        ),
        pytest.param(
            answering("GET detector config/description", HTML),
            id="one resource is a page",
            marks=long,
        ),
        pytest.param(
            answering("GET detector config/description", Reply(500, b"oops", "text/plain")),
            id="one resource is broken",
        ),
        pytest.param(answering("GET * *keys", NULL), id="lists are null", marks=long),
        pytest.param(answering("GET * *keys", Reply.of(5)), id="lists are a number", marks=long),
        pytest.param(
            with_metadata(
                "GET * *",
                min="low",
                max=[1],
                unit=5,
                access_mode=7,
                allowed_values=3,
                critical_limits=["a", {}],
                critical_values=1,
                state=4,
            ),
            id="nonsense beside each value",
        ),
        pytest.param(
            with_metadata("GET * *", allowed_values=[["a"], {}]), id="odd choices", marks=long
        ),
        pytest.param(missing("GET detector config/*energy*"), id="no energies", marks=long),
        pytest.param(missing("GET filewriter status/*"), id="no file writer state", marks=long),
        pytest.param(
            with_value("GET detector config/description", {"__darray__": 1}),
            id="an array that is none",
            marks=long,
        ),
        pytest.param(answering("GET detector version", NULL), id="version null", marks=long),
        pytest.param(
            answering("PUT detector command/*", HTML), id="commands reply a page", marks=long
        ),
    ],
)
def test_a_scan_without(gap, foreign, eiger, RE, assert_right):
    foreign.gap = gap
    eiger.connect()
    eiger.configure({"frame_time": 0.005, "count_time": 0.004})
    (uid,) = RE(bp.count([eiger], 2))
    assert_right(uid, points=2, images=1)
    assert {request.split()[0] for request in foreign.requests} == {"GET", "PUT"}


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(NULL, id="null"),
        pytest.param(Reply.of([]), id="[]"),
        pytest.param(HTML, id="a page"),
        pytest.param(Reply(), id="nothing", marks=long),
        pytest.param(Reply.of({}), id="{}", marks=long),
        pytest.param(Reply.of(5), id="5", marks=long),
        # As ANSTO's simulator answers.
        pytest.param(Reply.of({"value": 7.5}), id="the value", marks=long),
    ],
)
def test_a_put_whose_reply_names_nothing_is_followed_up(reply, foreign, eiger, ask):
    """Whatever else it changed is asked for again."""
    eiger.connect()
    foreign.gap = answering("PUT *", reply)
    eiger.detector.count_time.set(7.5).wait(10)
    assert eiger.detector.frame_time.last == ask("detector config/frame_time") >= 7.5
    eiger.detector.photon_energy.set(9000).wait(10)
    assert eiger.detector.threshold_energy.last == ask("detector config/threshold_energy") == 4500


def test_without_limits_there_are_none(foreign, eiger):
    foreign.gap = without("min", "max")
    eiger.connect()
    signal = eiger.detector.count_time
    assert signal.limits == (None, None)
    assert "limits" not in signal.describe()[signal.name]
    assert signal.unit == "s"
    eiger.detector.count_time.set(0.5).wait(10)
    foreign.gap = whole
    eiger.refresh()
    assert signal.limits != (None, None)


def test_a_resource_that_cannot_be_read_is_left_out_and_named(foreign, eiger, caplog):
    foreign.gap = answering("GET detector config/description", Reply(500, b"oops", "text/plain"))
    with caplog.at_level(logging.WARNING):
        eiger.connect()
    (said,) = [record.getMessage() for record in caplog.records]
    assert "eiger_detector_description" in said
    assert "500" in said
    assert "oops" in said
    assert not eiger.detector.description.read()
    assert eiger.detector.undeclared() == []
    with pytest.raises(RefusedError, match="oops"):
        eiger.detector.description.get()
    foreign.gap = whole
    eiger.refresh()
    assert eiger.detector.description.read()


def test_without_monitor_live_numbers_are_nan(foreign, eiger, RE, assert_right, caplog):
    foreign.gap = missing("* monitor *")
    eiger.live.enabled = True
    events = []
    RE.subscribe(lambda _, event: events.append(event["data"]), "event")
    with caplog.at_level(logging.WARNING):
        (uid,) = RE(bp.count([eiger], 2))
    assert_right(uid, points=2, images=1)
    assert [math.isnan(event["eiger_live_full_sum"]) for event in events] == [True, True]
    (said,) = [r.getMessage() for r in caplog.records if r.name.startswith("ophyd_eiger")]
    assert re.search(
        r"eiger_live: live numbers are NaN: .*does not serve monitor/config/mode", said
    )
    with pytest.raises(NotServedError, match=r"eiger_monitor: this DCU .*monitor/images"):
        eiger.live.image.get()


def test_undeclared_is_empty_without_lists(foreign, eiger):
    foreign.gap = missing(*KEYS)
    assert eiger.detector.undeclared() == []


# ---- what a scan needs ----

# Gap, type of the error, and what its message says: which device, what, and what to do.
FAILING = {
    "no list of files": (
        missing("GET filewriter files"),
        TransferError,
        r"^eiger: eiger_\w+_1_data_000001\.h5, .* cannot be fetched, because this DCU has no list "
        r"of its files \(GET http://\S+/filewriter/api/1\.6\.0/files: .*404 .*\); the images were "
        "taken, and what is on the DCU is still there$",
    ),
    "list of files null": (
        answering("GET filewriter files", NULL),
        TransferError,
        r"^eiger: eiger_\w+_1_data_000001\.h5, .* did not come home .*the DCU does not list them",
    ),
    "list of files empty": (
        answering("GET filewriter files", Reply.of([])),
        TransferError,
        r"^eiger: .*_master\.h5 did not come home .*the DCU does not list them",
    ),
    "list of files a page": (
        answering("GET filewriter files", HTML),
        TransferError,
        r"^eiger: .* did not come home .*filewriter/api/1\.6\.0/files: the answer is not JSON: "
        r"'<html>",
    ),
    "no /data": (
        missing("GET data *"),
        TransferError,
        r"^eiger: .* did not come home to .*GET http://\S+/data/eiger_\S+: .*404.*still there, "
        r"and eiger\.fetch\(\) or `ophyd-eiger fetch` brings it$",
    ),
    "/data a page": (
        answering("GET data *", HTML),
        TransferError,
        r"^eiger: .* did not come home to .*not a whole HDF5 file",
    ),
    "no file writer": (
        missing("* filewriter *"),
        NotServedError,
        "^eiger: no data can be taken with this DCU, because a series depends on filewriter/config"
        r"/nimages_per_file: .*404",
    ),
    "no trigger mode": (
        missing("* detector config/trigger_mode"),
        NotServedError,
        "^eiger: no data can be taken with this DCU, .* depends on detector/config/trigger_mode",
    ),
    "state null": (
        with_value("GET detector status/state", None),
        StateError,
        "^eiger: the detector at http.* is in state None, not 'idle'; look at status/error",
    ),
    "state a list": (
        with_value("GET detector status/state", ["idle"]),
        StateError,
        r"^eiger: the detector at http.* is in state \['idle'\], not 'idle'; look at",
    ),
    "state's reply null": (
        answering("GET detector status/state", NULL),
        ReplyError,
        "^eiger_detector_state: GET http.*: None holds no value; is this a DCU with API 1.6.0",
    ),
    "state's reply []": (
        answering("GET detector status/state", Reply.of([])),
        ReplyError,
        r"^eiger_detector_state: GET http.*: \[\] holds no value; is this a DCU",
    ),
    "state's reply cut": (
        answering("GET detector status/state", Reply(200, b'{"value": "id')),
        ReplyError,
        r"GET http://\S+/status/state: the answer is not JSON: .*; is this a DCU, and nothing",
    ),
    "state never answers": (
        hanging("GET detector status/state", done=True),
        DcuTimeoutError,
        r"GET http://\S+/status/state: no answer within 2 s",
    ),
    "a page for everything": (
        answering("GET *", HTML),
        ReplyError,
        "GET http.*/version: the answer is not JSON: '<html>.*is this a DCU, and nothing between",
    ),
    "null for everything": (
        answering("GET *", NULL),
        ReplyError,
        "^GET http.*/version answered None, which is no version, and .*is .* the address of a DCU?",
    ),
    "nothing at all": (
        missing("*"),
        ReplyError,
        "^GET http.*/version answered 404, and there is no status/state under any .*api_version=",
    ),
    "500 for everything": (
        answering("*", Reply(500, b"boom", "text/plain")),
        RefusedError,
        "^GET http.*/status/state: the DCU answered 500 .*boom",
    ),
    "nimages null": (
        with_value("GET detector config/nimages", None),
        ReplyError,
        "^eiger_detector_nimages: the DCU says that detector/config/nimages is None, where a "
        "number was expected; put one, or initialize the detector",
    ),
    "nimages 0": (
        with_value("GET detector config/nimages", 0),
        ReplyError,
        "^eiger_detector_nimages: .* is 0, where a whole number from 1 on was expected; put one",
    ),
    "frame_time an object": (
        with_value("GET detector config/frame_time", {}),
        ReplyError,
        "^eiger_detector_frame_time: the DCU says that .* is {}, where a number was expected",
    ),
    "nimages_per_file text": (
        with_value("GET filewriter config/nimages_per_file", "many"),
        ReplyError,
        "^eiger_filewriter_nimages_per_file: .* is 'many', where a number was expected",
    ),
    "no size": (
        missing("GET detector config/?_pixels*"),
        NotServedError,
        "^eiger: no data can be taken .* depends on detector/config/x_pixels_in_detector",
    ),
    "size null": (
        with_value("GET detector config/y_pixels_in_detector", None),
        ReplyError,
        "^eiger_detector_y_pixels_in_detector: .* is None, where a number was expected",
    ),
    "depth null": (
        with_value("GET detector config/bit_depth_image", None),
        ReplyError,
        "^eiger_detector_bit_depth_image: .* is None, where a number was expected",
    ),
    "12 bits": (
        with_value("GET detector config/bit_depth_image", 12),
        ReplyError,
        "^eiger: the DCU says that its images have 12 bits a pixel, and files have one of 8, 16, "
        "32; other times may",
    ),
    "name pattern null": (
        with_value("GET filewriter config/name_pattern", None),
        ReplyError,
        "^eiger_filewriter_name_pattern: .* is None, where a value was expected",
    ),
    "name pattern not taken": (
        not_taken("PUT filewriter config/name_pattern"),
        StateError,
        r"^eiger: config/name_pattern is 'series_\$id' after 'eiger_\w{8}_\$id' was put, because "
        "somebody else sets up this detector or the DCU did not take it; nothing was armed. Take",
    ),
    "another width than the files'": (
        with_value("GET detector config/x_pixels_in_detector", 100),
        TransferError,
        "no view file could be written .*images of 514 x 1030 uint32, and not of 514 x 100 uint32",
    ),
    "no depth": (
        missing("GET detector config/bit_depth_image"),
        NotServedError,
        r"^eiger_detector_bit_depth_image: this DCU \(API 1\.6\.0\) does not serve",
    ),
    "no arm": (
        missing("PUT detector command/arm"),
        NotServedError,
        r"^eiger_detector_arm: this DCU \(API 1\.6\.0\) does not serve detector/command/arm",
    ),
    "no trigger": (
        missing("PUT detector command/trigger"),
        StateError,
        "^eiger_detector_soft_trigger: this DCU .* does not serve detector/command/trigger .*; the "
        r"state is 'ready': external signals are left: eiger\.detector\.trigger_mode\.set",
    ),
    "arm answers no id that helps": (
        answering("PUT detector command/arm", Reply.of({"sequence id": 77})),
        TransferError,
        "^eiger: .*_77_master.h5 did not come home .*the DCU does not list them",
    ),
    "arm hangs": (
        hanging("PUT detector command/arm", done=True),
        DcuTimeoutError,
        "^eiger: PUT http.*/command/arm: no answer within 2 s .* disarmed again.*Timeouts",
    ),
    "trigger hangs, nothing taken": (
        hanging("PUT detector command/trigger", done=False),
        DcuTimeoutError,
        r"^eiger: PUT http.*/command/trigger: no answer within .* the state is 'ready': the images "
        r"may not have been taken; eiger\.recover\(\) brings back",
    ),
}
SHORT = {
    *("no list of files", "state's reply null", "frame_time an object"),
    *("trigger hangs, nothing taken", "name pattern not taken", "another width than the files'"),
}
# What shows when the detector is armed only, or later; all else is said before.
SHOWS_LATE = re.compile("width|list of files|/data|arm|trigger hangs|no trigger$|depth|bits")


def check_one_message(RE, eiger, foreign, ask, gap: Gap, error: type[EigerError], text: str):
    """Assert what a scan ends with."""
    foreign.gap = gap
    eiger.link.client.timeouts = HASTY
    with pytest.raises(FailedStatus) as caught:
        RE(bp.count([eiger], 1))
    cause = caught.value.__cause__
    assert type(cause) is error
    assert re.search(text, str(cause))
    # It is what stands last on the screen, too.
    assert str(cause) in traceback.format_exception(caught.value)[-1]
    assert "eiger:" in str(caught.value)
    assert ask("detector status/state") == "idle"
    assert not ask("filewriter config/name_pattern").startswith("eiger_")


def check_as_if_nothing_had_been(RE, eiger, foreign, assert_right):
    """Assert that the same device takes a scan as soon as nothing is left out."""
    foreign.gap = whole
    eiger.link.client.timeouts = PATIENT
    (uid,) = RE(bp.count([eiger], 1))
    assert_right(uid, points=1, images=1)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SHORT else long) for name in FAILING]
)
def test_one_message(name, foreign, eiger, RE, ask, assert_right):
    if name not in ("nothing at all", "a page for everything", "null for everything"):
        # Others are met while it is connected already.
        eiger.connect()
    before = ask("filewriter config/name_pattern")
    check_one_message(RE, eiger, foreign, ask, *FAILING[name])
    armed = "PUT detector command/arm" in foreign.requests
    assert armed == bool(SHOWS_LATE.search(name))
    check_as_if_nothing_had_been(RE, eiger, foreign, assert_right)
    assert ask("filewriter config/name_pattern") == before


@long
def test_a_dcu_that_never_leaves_acquire(foreign, eiger, RE, ask, assert_right):
    text = r"^eiger: state was still 'acquire' .* s after the trigger; end it: eiger\.detector\.abo"
    check_one_message(RE, eiger, foreign, ask, StuckInAcquire(), StateError, text)
    check_as_if_nothing_had_been(RE, eiger, foreign, assert_right)


@pytest.mark.parametrize("command", ["trigger", pytest.param("disarm", marks=long)])
def test_a_command_that_is_done_and_never_answers(command, foreign, eiger, RE, assert_right):
    """The state says that the images were taken, so that the scan goes on."""
    eiger.connect()
    eiger.link.client.timeouts = HASTY
    foreign.gap = hanging(f"PUT detector command/{command}", done=True)
    (uid,) = RE(bp.count([eiger], 1))
    assert_right(uid, points=1, images=1)


def test_where_files_go_need_not_be_told_once_it_is_armed(foreign, eiger, RE, assert_right):
    """A DCU may not answer for its file writer then."""
    eiger.connect()
    armed = []

    def gap(request):
        armed.extend([None] * request.asks("PUT detector command/arm"))
        armed[:] = armed[: not request.asks("PUT detector command/trigger")]
        if armed and request.asks("GET filewriter config/*"):
            return Reply(404, b"404: Not Found", "text/plain")
        return request.forward()

    foreign.gap = gap
    (uid,) = RE(bp.count([eiger], 2))
    assert_right(uid, points=2, images=1)


@long
def test_a_series_ended_early_without_a_file_writers_state(foreign, eiger, ask):
    foreign.gap = missing("GET filewriter status/*")
    eiger.connect()
    eiger.detector.ntrigger.set(3).wait(20)
    eiger.stage().wait(20)
    eiger.trigger().wait(20)
    eiger.unstage().wait(30)
    assert [file.images for file in eiger.fetched if "_data_" in file.path.name] == [1]
    assert ask("detector status/state") == "idle"


@long
def test_an_id_that_comes_twice_names_no_file_of_another_series(
    foreign, eiger, RE, ask, assert_right, caplog
):
    """The files of both series would have one name; those of the second have another id here."""
    foreign.gap = answering("PUT detector command/arm", Reply.of({"sequence id": 1}))
    eiger.link.client.timeouts = HASTY
    with pytest.raises(FailedStatus) as caught:
        RE(bp.count([eiger], 2))
    assert isinstance(caught.value.__cause__, TransferError)
    assert re.search(
        r"^eiger: eiger_\w+_1_data_000001\.h5, eiger_\w+_1_master\.h5 did not come home",
        str(caught.value.__cause__),
    )
    assert "arm answered an id that a series before had" in caplog.text
    assert sum("_data_" in file.path.name for file in eiger.fetched) == 1
    check_as_if_nothing_had_been(RE, eiger, foreign, assert_right)


def test_one_that_others_arm_after_a_disarm_is_not_idle(foreign, eiger, RE):
    """It said "idle" before: ready is armed."""
    eiger.connect()
    foreign.gap = with_value("GET detector status/state", "ready")
    eiger.detector.disarm.set(1).wait(10)
    with pytest.raises(FailedStatus, match="in state 'ready', not 'idle'; somebody armed it"):
        RE(bp.count([eiger], 1))


def test_a_disarm_is_done_though_the_state_cannot_be_asked(foreign, eiger):
    eiger.connect()
    foreign.gap = missing("GET detector status/state")
    eiger.detector.disarm.set(1).wait(10)


def test_nothing_to_save(foreign, eiger, tmp_path, caplog):
    eiger.connect()
    foreign.gap = answering("GET * config/*", NULL)
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(ConfigurationFileError, match=r"nothing to save: eiger gave none of its set"),
    ):
        eiger.save_configuration(tmp_path / "good.json")
    assert not (tmp_path / "good.json").exists()
    # One for each subsystem, and not for each setting.
    assert 1 <= len(caplog.records) <= 5


@pytest.mark.parametrize(
    ("value", "text"),
    [([[]], r"'\[\[\]\]' is no array"), (None, "'None' is no array"), ("x", "'x' is no array")],
)
def test_an_array_that_is_none(value, text, foreign, eiger):
    foreign.gap = answering("GET detector config/flatfield", Reply.of({"value": value}))
    with pytest.raises(ReplyError, match=rf"^eiger_detector_flatfield: GET http.*: {text}"):
        eiger.detector.flatfield.get()
    assert not eiger.detector.flatfield.read()


@pytest.mark.parametrize("resource", ["command/disarm", "config/count_time"])
def test_an_error_in_the_text_of_a_reply_that_says_it_went_well(foreign, eiger, resource):
    """Lima asks each reply's text for the number of an HTTP error: some firmware put it there."""
    eiger.connect()
    said = Reply(200, b"500 Internal Server Error: no high voltage\n", "text/plain")
    foreign.gap = answering(f"PUT detector {resource}", said)
    with pytest.raises(RefusedError, match="the DCU answered 500 Internal Server Error: no high v"):
        eiger.detector[resource].set(1).wait(10)
    # Other text is for people.
    for text in (b"done", b"450 images", b"4040 Ok"):
        foreign.gap = answering(f"PUT detector {resource}", Reply(200, text, "text/plain"))
        eiger.detector[resource].set(1).wait(10)


def test_clear_switches_an_eiger1s_file_writer_off(dcu, eiger):
    eiger.filewriter.mode.set("enabled").wait(10)
    eiger.filewriter.clear.set(1).wait(10)
    assert eiger.filewriter.mode.last == "disabled"
