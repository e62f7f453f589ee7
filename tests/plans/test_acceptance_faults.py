"""Every fault of the simulated DCU on: the acceptance test fails and names what is wrong with what.

`FAULTS` says for each which check is to fail, and which words it is to have. `UNSEEN` has what
nobody can see from outside within the test, with the reason; docs/acceptance.md has the same.
"""

import re
from pathlib import Path

import pytest
from acceptance_runs import detector, report_of
from bluesky import RunEngine
from bluesky.plans import count

import sim_dcu
from sim_dcu.fault_table import FAULTS as KNOWN

# Of each test's cases the short run takes every 2nd, see conftest.
SHORT_RUN_EVERY = 2

DOCS = Path(__file__).parents[2] / "docs" / "acceptance.md"
MODELS = ("eiger-500k", "eiger2-500k")
# What of the detector's own a check's name starts with, in an EIGER2 and in an EIGER.
SENSOR = r"detector/status/(board_000/th0_)?"
# By fault as it is set: section, name of the check, words of what was found.
FAULTS = {
    "refuse": ("connection", "detector/api/version", "400 Bad Request: refused on request"),
    "refuse:status=503": ("connection", "detector/api/version", "503 Service Unavailable"),
    "refuse:path=GET */config/x_pixel_size": (
        "resources",
        "detector/config/x_pixel_size",
        "400 Bad Request",
    ),
    "refuse:command=cancel": ("arm", "ints: detector/command/cancel", "400 Bad Request"),
    "refuse:path=PUT */config/count_time": ("configuration", "set up", "config/count_time"),
    "refuse:path=GET data/*": ("series", "ints, one data file", "did not come home"),
    "late": ("connection", "detector/api/version", "no answer within 4 s"),
    "late:seconds=3.5": ("connection", "detector/api/version", "after [34]"),
    "late:seconds=3.5,path=GET */status/link_0": (
        "resources",
        "detector/status/link_0",
        "after [34]",
    ),
    "hang": ("connection", "detector/api/version", "no answer within 4 s"),
    "drop": ("connection", "detector/api/version", "connection was lost"),
    "drop:when=head": ("connection", "detector/api/version", "no version"),
    "drop:when=body": ("connection", "detector/api/version", "connection was lost"),
    "drop:when=after": ("connection", "connections", "cut after answer 1"),
    "lose": ("arm", "ints: detector/command/arm", "connection was lost"),
    "lose:command=trigger": ("series", "ints, one data file", "command/trigger: the connection"),
    "put-reply": ("puts", "detector/config/nimages", "None"),
    "put-reply:body=quotes": ("puts", "detector/config/ntrigger", "''"),
    "die": ("connection", "detector/api/version", "cannot be reached"),
    "die:image=1,files=kept": ("series", "ints, one data file", "command/trigger: the connection"),
    "error": ("series", "ints, one data file", "error on request; the state is 'error'"),
    "full": ("health", "filewriter/status/buffer_free", "0.0 GB"),
    "full:image=1": ("series", "ints, one data file", r"\d images (found, 4 expected|came home)"),
    "stall": ("series", "ints, one data file", "state was still 'acquire'"),
    "temperature": ("health", f"{SENSOR}temp(erature)?", "60.0 degree Celsius"),
    "humidity": ("health", f"{SENSOR}humidity", "80.0 percent"),
    "file-short": ("series", "ints, one data file", r"_data_000001.h5 .*3 images found, 4"),
    "file-short:file=3": ("series", "ints, several data files", r"_data_000003.h5 .*0 images"),
    "file-truncated": ("series", "ints, one data file", r"_data_000001.h5 .*not a whole HDF5"),
    "file-truncated:file=0": ("series", "ints, one data file", r"_master.h5 .*not a whole HDF5"),
    "file-corrupt": ("files", "ints, one data file: contents", "image 1 of 4 is broken"),
    "file-late": ("series", "ints, one data file: filewriter/files", r"missing: .*_data_000001"),
    "file-missing": ("files", "ints, one data file: files", r"missing: .*_data_000001.h5"),
    "monitor-drop": ("monitor", "monitor/status/dropped", "4 images"),
}
# The short run takes these, each with one generation.
SHORT = {
    ("refuse:command=cancel", "eiger2-500k"),
    ("drop:when=after", "eiger2-500k"),
    ("lose", "eiger-500k"),
    ("error", "eiger2-500k"),
    ("file-corrupt", "eiger-500k"),
    ("file-truncated:file=0", "eiger2-500k"),
}
# Faults that it passes with, and why.
REPLACED_UNSEEN = (
    "an EIGER writes no checksums: other counts that decompress are seen in the image alone that "
    "the monitor has too"
)
UNSEEN = {
    "late:seconds=1,path=GET */config/count_time": "other clients of EIGERs wait for 3 s",
    "drop:path=GET */config/count_time,times=1": "a GET that is lost once is sent again",
    "monitor-drop:after=4": "only the first series is watched",
    "error:image=31": "no series here has so many images",
}
CASES = [
    pytest.param(fault, model, marks=[] if (fault, model) in SHORT else [pytest.mark.long])
    for fault in FAULTS
    for model in MODELS
]


def test_every_fault_of_the_simulator_is_tried():
    # What file-replaced does depends on the file; it has tests of its own.
    assert {fault.partition(":")[0] for fault in FAULTS} == set(KNOWN) - {"file-replaced"}


def test_what_is_not_seen_is_in_the_docs():
    rows = dict(re.findall(r"^\| `([^`]+)` \| (.*) \|$", DOCS.read_text(), re.MULTILINE))
    assert rows == UNSEEN | {"file-replaced:after=1": REPLACED_UNSEEN}


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("fault", "model"), CASES)
def test_a_fault_fails_it_and_is_named(tmp_path, fault, model):
    section, name, words = FAULTS[fault]
    with (
        sim_dcu.serve(model, time_scale=0, seed=3, initialized=True) as dcu,
        detector(dcu, tmp_path) as eiger,
    ):
        dcu.faults.set(fault)
        report = report_of(eiger)
        dcu.faults.clear()
    assert not report.passed
    found = [
        check
        for check in report.failures
        if check.section == section and re.fullmatch(name, check.name)
    ]
    assert found, [(check.section, check.name, check.found) for check in report.failures]
    assert any(re.search(words, check.found) for check in found), found


@pytest.mark.long
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("fault", UNSEEN)
def test_what_cannot_be_seen_passes(tmp_path, fault, model):
    with (
        sim_dcu.serve(model, time_scale=0, seed=3, initialized=True) as dcu,
        detector(dcu, tmp_path) as eiger,
    ):
        dcu.faults.set(fault)
        assert report_of(eiger).failures == []


@pytest.mark.long
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("images", "arguments", "failing"),
    [
        (4, {"times": 1}, ["ints, one data file: image 4 in the file"]),
        (2, {"after": 1, "times": 1}, []),
    ],
)
def test_other_pixels_in_a_whole_file(tmp_path, model, images, arguments, failing):
    """A file as it should be, of another series: only the monitor has what was counted.

    It is series 1 of the same detector; the acceptance test arms before it takes its first one.
    """
    with (
        sim_dcu.serve(model, time_scale=0, seed=3, initialized=True) as other,
        detector(other, tmp_path / "other") as eiger,
    ):
        eiger.configure({"nimages": images, "frame_time": 0.1, "count_time": 0.09})
        RunEngine({})(count([eiger]))
        (data,) = (file.path for file in eiger.fetched if "_data_" in file.path.name)
    with (
        sim_dcu.serve(model, time_scale=0, seed=3, initialized=True) as dcu,
        detector(dcu, tmp_path) as eiger,
    ):
        dcu.faults.set("file-replaced", **{"with": str(data)}, **arguments)
        report = report_of(eiger)
    assert [check.name for check in report.failures] == failing
    assert all("pixels differ" in check.found for check in report.failures)
