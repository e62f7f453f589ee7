"""A fault that was cleared leaves no trace: replies and files are those of an untouched DCU."""

import contextlib
import re
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest
import requests
from dcu_process import VERSIONS, Dcu, running, until_back, until_closed
from plain_client import until

# Of each test's cases the short run takes every 3rd, see conftest.
SHORT_RUN_EVERY = 5

# What differs between two series of one DCU too: the time, and an id that is new each time.
STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?([+-]\d\d:\d\d)?")
UNIQUE_ID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
DATE = re.compile(rb"date: [^\r]+", re.IGNORECASE)
STATUS = {
    "detector/status/state": "",
    "detector/status/error": "",
    "filewriter/status/state": "",
    "filewriter/status/error": "",
    "filewriter/status/buffer_free": "",
    "monitor/status/state": "",
    "monitor/status/dropped": "",
    "monitor/images": "",
    "filewriter/files": "",
}


def exchanged(dcu: Dcu, method: str, resource: str, body: str = "") -> bytes:
    """Return every byte of the reply, but for time and unique ids."""
    request = dcu.request_bytes(method, resource).replace(
        b"Content-Length: 0\r\n", f"Content-Length: {len(body)}\r\nConnection: close\r\n".encode()
    )
    with dcu.connect() as raw:
        raw.sendall(request + body.encode())
        received = b""
        while piece := raw.recv(2**20):
            received += piece
    return UNIQUE_ID.sub(b"ID", STAMP.sub(b"TIME", DATE.sub(b"date", received)))


def tree(path: Path) -> dict[str, object]:
    """Return every value and attribute of a file but the times."""
    found: dict[str, object] = {}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        for key, value in item.attrs.items():
            found[f"{name}@{key}"] = repr(value)
        if isinstance(item, h5py.Dataset) and item.chunks:
            found[name] = [
                item.id.read_direct_chunk((number, 0, 0)) for number in range(item.shape[0])
            ]
        elif isinstance(item, h5py.Dataset):
            value = item[()]
            found[name] = (
                str(item.dtype),
                STAMP.sub(b"TIME", value) if isinstance(value, bytes) else value.tobytes(),
            )

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def series_afterwards(dcu: Dcu) -> tuple[dict[str, bytes], dict[str, object]]:
    """Take a series from initialize on; return all replies and what the files hold."""
    steps = [
        ("PUT", "detector/command/initialize", ""),
        ("PUT", "filewriter/command/initialize", ""),
        ("PUT", "filewriter/command/clear", ""),
        ("PUT", "monitor/command/initialize", ""),
        ("PUT", "filewriter/config/mode", '{"value": "enabled"}'),
        ("PUT", "monitor/config/mode", '{"value": "enabled"}'),
        ("PUT", "detector/config/count_time", '{"value": 0.02}'),
        ("PUT", "detector/config/nimages", '{"value": 5}'),
        ("PUT", "filewriter/config/nimages_per_file", '{"value": 2}'),
        ("PUT", "detector/command/arm", ""),
        ("PUT", "detector/command/trigger", ""),
        ("PUT", "detector/command/disarm", ""),
        *(("GET", resource, "") for resource in STATUS),
        ("GET", "detector/config", ""),
        ("GET", "filewriter/config", ""),
        ("GET", "monitor/images/1/2", ""),
    ]
    replies = {" ".join(step): exchanged(dcu, *step) for step in steps}
    files: dict[str, object] = {}
    for name in dcu.files():
        path = dcu.folder / name
        # Not the bytes of the file itself: HDF5 keeps the second in which an object was made.
        files[name] = (path.stat().st_size, tree(path))
    return replies, files


@pytest.fixture(scope="session")
def untouched(
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, tuple[dict[str, bytes], dict[str, object]]]:
    """What DCUs of the same seed answer that never had a fault."""
    found = {}
    for model in VERSIONS:
        with running(model, tmp_path_factory.mktemp(f"untouched-{model}")) as dcu:
            found[model] = series_afterwards(dcu)
    return found


def take_series(dcu: Dcu) -> None:
    """Take a series of which anything may fail."""
    for resource, value in (
        ("monitor/config/mode", "enabled"),
        ("detector/config/nimages", 5),
        ("filewriter/config/nimages_per_file", 2),
        *((f"detector/command/{command}", None) for command in ("arm", "trigger", "disarm")),
    ):
        with contextlib.suppress(requests.RequestException):
            dcu.put(resource, value)


def ask_in_vain(dcu: Dcu) -> None:
    """Give up waiting for an answer."""
    with contextlib.suppress(requests.ConnectionError, requests.Timeout):
        requests.put(dcu.path("detector/command/arm"), timeout=0.3)


def stall(dcu: Dcu) -> None:
    """Leave a series behind that stands still."""
    dcu.series(5, 2)
    dcu.arm()
    with contextlib.suppress(requests.Timeout):
        requests.put(dcu.path("detector/command/trigger"), timeout=0.3)
    assert dcu.state == "acquire"


def update(dcu: Dcu) -> None:
    dcu.command("status_update")


CASES: list[tuple[str, dict[str, object], Callable[[Dcu], None]]] = [
    ("refuse", {"command": "trigger"}, take_series),
    ("late", {"seconds": 3600}, ask_in_vain),
    ("hang", {}, ask_in_vain),
    *[("drop", {"when": w}, take_series) for w in ("before", "head", "body", "after")],
    ("lose", {}, take_series),
    ("put-reply", {}, take_series),
    ("die", {"back": 0.3}, until_back),
    ("die", {"image": 2, "back": 0.3, "files": "kept"}, take_series),
    ("error", {"image": 2}, take_series),
    ("full", {}, take_series),
    ("full", {"image": 2}, take_series),
    ("stall", {"image": 2}, stall),
    ("temperature", {"value": 80}, update),
    ("humidity", {"value": 90}, update),
    ("file-short", {}, take_series),
    ("file-truncated", {}, take_series),
    ("file-corrupt", {}, take_series),
    ("file-late", {"seconds": 3600}, take_series),
    ("file-missing", {}, take_series),
    ("monitor-drop", {}, take_series),
]


# What strikes requests does not know the generation.
RUNS = [
    pytest.param(model, *case, id="-".join([model, case[0], *map(str, case[1].values())]))
    for model in VERSIONS
    for case in CASES
    if model == "eiger-500k" or case[0] not in ("refuse", "late", "hang", "drop", "lose")
]


@pytest.mark.parametrize(("model", "name", "arguments", "meanwhile"), RUNS)
def test_after_clear_all_is_as_if_there_had_been_no_fault(
    processes: dict[str, Dcu],
    untouched: dict[str, tuple[dict[str, bytes], dict[str, object]]],
    model: str,
    name: str,
    arguments: dict[str, object],
    meanwhile: Callable[[Dcu], None],
) -> None:
    dcu = processes[model]
    dcu.clear()
    dcu.start_anew()
    with dcu.connect() as kept:
        dcu.fault(name, **arguments)
        if name == "die" and "image" not in arguments:
            assert until_closed(kept) == b""
    meanwhile(dcu)
    if name == "die":
        until_back(dcu)
    until(lambda: name in ("temperature", "humidity") or dcu.active()[0]["struck"])
    dcu.clear()
    replies, files = series_afterwards(dcu)
    expected_replies, expected_files = untouched[model]
    assert replies == expected_replies
    assert files.keys() == expected_files.keys()
    assert [key for key in files if files[key] != expected_files[key]] == []
    assert not list(dcu.folder.glob(".*"))


def test_a_difference_would_be_seen(dcu: Dcu, untouched) -> None:
    """The comparison has teeth: the same series with a fault set is not the same."""
    for name, arguments in (("monitor-drop", {}), ("file-short", {}), ("put-reply", {})):
        dcu.fault(name, **arguments)
        replies, files = series_afterwards(dcu)
        dcu.clear()
        assert (replies, files) != untouched[dcu.model]
