"""`python -m sim_dcu` as a process, and `serve` as a context: start, use with curl, end."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from plain_client import Client, until

import sim_dcu
from sim_dcu.__main__ import build_parser

# Of each test's cases the short run takes every 3rd, see conftest.
SHORT_RUN_EVERY = 3


def start(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "sim_dcu", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever starts it may not have asked for unbuffered output.
        env={key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"},
    )


def end(process: "subprocess.Popen[str]", number: int = signal.SIGTERM) -> tuple[float, str, str]:
    """Signal the process and return the seconds it took, its stdout and its stderr."""
    begin = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    return time.monotonic() - begin, out, err


@pytest.fixture
def process(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    with start(
        *("--model", "eiger-500k", "--time-scale", "0", "--data-dir", str(tmp_path / "data"))
    ) as running:
        yield running
        running.kill()


def test_one_line_ends_in_the_url_and_the_process_ends_cleanly(
    process: "subprocess.Popen[str]",
) -> None:
    assert process.stdout is not None
    line = process.stdout.readline()
    url = line.split()[-1]
    assert line == f"sim-dcu: eiger-500k, API 1.6.0, ready at {url}\n"
    assert urlsplit(url).hostname == "127.0.0.1"
    client = Client(url)
    with client.session:
        assert client.state == "na"
        seconds, out, err = end(process)
    assert process.returncode == 0
    assert seconds < 2
    assert (out, err) == ("", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_within_2_s_while_a_trigger_blocks(number: int) -> None:
    with start("--model", "eiger-500k", "--time-scale", "0.05", "--initialized") as process:
        assert process.stdout is not None
        client = Client(process.stdout.readline().split()[-1])
        client.config(count_time=1800.0)
        client.arm()
        trigger = threading.Thread(target=client.command, args=["trigger"])
        trigger.start()
        until(lambda: Client(client.url).state == "acquire")
        seconds, out, err = end(process, number)
        trigger.join(5)
        client.session.close()
    assert process.returncode == 0
    assert seconds < 2
    assert (out, err) == ("", "")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl missing: apt-get install curl")
def test_curl_drives_a_whole_series(process: "subprocess.Popen[str]", tmp_path: Path) -> None:
    assert process.stdout is not None
    url = process.stdout.readline().split()[-1]

    def curl(*arguments: str) -> str:
        command = ["curl", "-sS", "--fail", "--max-time", "30", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    detector, filewriter = f"{url}/detector/api/1.0.0", f"{url}/filewriter/api/1.0.0"
    put = ["-X", "PUT", "-H", "Content-Type: application/json"]
    assert curl(*put, f"{detector}/command/initialize") == ""
    names = json.loads(curl("-X", "PUT", "-d", '{"value": 1.0}', f"{detector}/config/count_time"))
    assert "frame_time" in names
    curl(*put, "-d", '{"value": 3}', f"{detector}/config/nimages")
    curl(*put, "-d", '{"value": 2}', f"{filewriter}/config/nimages_per_file")
    assert json.loads(curl(*put, f"{detector}/command/arm")) == {"sequence id": 1}
    assert json.loads(curl(*put, f"{detector}/command/trigger")) == {"sequence id": -1}
    assert json.loads(curl(*put, f"{detector}/command/disarm")) == {"sequence id": 1}
    files = json.loads(curl(f"{filewriter}/files/"))
    assert sorted(files) == [
        "series_1_data_000001.h5",
        "series_1_data_000002.h5",
        "series_1_master.h5",
    ]
    for name in files:
        assert "200 OK" in curl("-I", f"{url}/data/{name}")
        curl("-o", str(tmp_path / name), f"{url}/data/{name}")
        assert (tmp_path / name).read_bytes() == (tmp_path / "data" / name).read_bytes()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "70000"],
        ["--port", "x"],
        ["--model", "pilatus"],
        ["--time-scale", "-1"],
        ["--time-scale", "nan"],
        ["--seed", "-1"],
        ["--host", "no.such.host.invalid"],
        ["--data-dir", os.devnull],
        ["--bogus"],
    ],
    ids=" ".join,
)
def test_bad_values_end_with_status_2_and_a_reason(arguments: list[str]) -> None:
    with start(*arguments) as process:
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (2, "")
    assert "sim-dcu: error: " in err
    assert "Traceback" not in err


def test_a_taken_port_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with start("--port", port) as process:
            _, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert port in err
    assert "in use" in err


def test_verbose_logs_every_request() -> None:
    with start("--model", "eiger-500k", "--verbose") as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        assert requests.get(f"{url}/detector/api/version", timeout=5).ok
        _, _, err = end(process)
    assert "GET /detector/api/version -> 200" in err


def test_every_flag_has_a_help_text() -> None:
    flags = {flag for action in build_parser()._actions for flag in action.option_strings}
    assert {
        *("--host", "--port", "--model", "--data-dir", "--seed", "--time-scale", "--initialized"),
    } <= flags
    assert all(action.help for action in build_parser()._actions)


# -- in Python ------------------------------------------------------------------------------------


def test_serve_ends_within_2_s_while_a_trigger_blocks() -> None:
    with sim_dcu.serve("eiger-500k", time_scale=1, initialized=True) as dcu:
        client = Client(dcu.url)
        client.arm()
        replies: list[int] = []
        trigger = threading.Thread(
            target=lambda: replies.append(client.command("trigger").status_code)
        )
        with client.session:
            client.command("disarm")
            client.config(count_time=1000.0)
            client.arm()
            trigger.start()
            until(lambda: Client(dcu.url).state == "acquire")
            begin = time.monotonic()
            dcu.stop()
            seconds = time.monotonic() - begin
            trigger.join(5)
    assert seconds < 2
    assert replies == [200]


def test_serve_removes_its_own_folder_and_keeps_a_given_one(tmp_path: Path) -> None:
    with sim_dcu.serve("eiger-500k", initialized=True) as dcu:
        own = dcu.dcu.store.folder
        assert own.is_dir()
    assert not own.exists()
    with sim_dcu.serve("eiger-500k", initialized=True, data_dir=tmp_path / "mine") as dcu:
        client = Client(dcu.url)
        client.arm()
        client.session.close()
    assert (tmp_path / "mine" / "series_1_master.h5").is_file()


def test_ending_leaves_no_thread_and_no_port() -> None:
    before = set(threading.enumerate())
    with sim_dcu.serve("eiger-500k", initialized=True) as dcu:
        url = dcu.url
        client = Client(url)
        client.arm()
        client.session.close()
    left = [
        thread.name
        for thread in set(threading.enumerate()) - before
        if thread.name.startswith("sim-dcu")
    ]
    assert left == []
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{url}/detector/api/version", timeout=1)


@pytest.mark.parametrize(
    "wrong", [{"model": "pilatus"}, {"time_scale": -1}, {"time_scale": float("nan")}, {"seed": -1}]
)
def test_serve_refuses_what_it_cannot_simulate(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        sim_dcu.serve(**wrong)


def test_serve_ends_within_2_s_while_a_download_stands_still() -> None:
    with sim_dcu.serve("eiger-500k", initialized=True) as dcu:
        # More than all buffers between the two ends of a connection hold.
        (dcu.dcu.store.folder / "large.h5").write_bytes(bytes(64 * 2**20))
        address = urlsplit(dcu.url)
        with socket.create_connection((address.hostname, address.port)) as stalled:
            stalled.sendall(b"GET /data/large.h5 HTTP/1.1\r\nHost: d\r\n\r\n")
            assert stalled.recv(15) == b"HTTP/1.1 200 OK"
            begin = time.monotonic()
            dcu.stop()
            assert time.monotonic() - begin < 2
