"""A client in another process that reads once, 512 bytes, gets header and body every time.

As areaDetector's driver does it: one `recv`, and what it brings is taken for the whole reply.
"""

import itertools
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from plain_client import Client

READ = 512
REQUESTS = 1000


def kinds(client: Client) -> list[tuple[str, str, str]]:
    """Return (method, path, body) of replies that fit, of every kind."""
    version = client.version
    found = []
    for subsystem in ("detector", "filewriter", "monitor", "stream"):
        for section in ("config", "status"):
            base = f"/{subsystem}/api/{version}/{section}"
            for key in client.get(f"{subsystem}/{section}/keys").json():
                # Arrays and the lists of elements and of tables are longer than one read.
                if key.rpartition("/")[2] not in (
                    *("flatfield", "pixel_mask", "element", "countrate_correction_table"),
                ):
                    found += [("GET", f"{base}/{key}", ""), ("HEAD", f"{base}/{key}", "")]
    detector = f"/detector/api/{version}"
    return [
        *found,
        ("GET", "/detector/api/version", ""),
        ("GET", "/detector/api/version/", ""),
        ("GET", f"/filewriter/api/{version}/files", ""),
        ("GET", f"/monitor/api/{version}/images", ""),
        ("GET", f"/monitor/api/{version}/images/next?timeout=0", ""),
        ("GET", f"{detector}/config/no_such", ""),
        ("GET", "/no/such/path", ""),
        ("HEAD", "/data/none.h5", ""),
        ("HEAD", "/data/small.h5", ""),
        ("GET", "/data/small.h5", ""),
        ("DELETE", "/data/none.h5", ""),
        ("POST", f"{detector}/config/nimages", ""),
        ("PUT", f"{detector}/config/nimages", '{"value": 2}'),
        ("PUT", f"{detector}/config/count_time", '{"value": 0.5}'),
        ("PUT", f"{detector}/config/count_time", '{"value": -1}'),
        ("PUT", f"{detector}/config/photon_energy", '{"value": 9000}'),
        ("PUT", f"/monitor/api/{version}/config/mode", '{"value": "enabled"}'),
        ("PUT", f"{detector}/command/disarm", ""),
        ("PUT", f"{detector}/command/initialize", ""),
    ]


def check(reply: bytes, method: str, path: str) -> None:
    head, end, body = reply.partition(b"\r\n\r\n")
    asked = (method, path, reply)
    assert end, asked
    lines = head.split(b"\r\n")
    assert lines[0].startswith(b"HTTP/1.1 "), asked
    headers = dict(line.lower().split(b": ", 1) for line in lines[1:])
    assert b"server" not in headers, asked
    assert b"transfer-encoding" not in headers, asked
    if lines[0].split()[1] != b"204":
        length = int(headers[b"content-length"])
        assert len(body) == (0 if method == "HEAD" else length), asked


@pytest.mark.parametrize(("model", "version"), [("eiger-500k", "1.6.0"), ("eiger2-500k", "1.8.0")])
def test_every_reply_is_there_in_one_read(model: str, version: str, tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "sim_dcu", "--port", "0", "--model", model, "--time-scale", "0"),
        *("--initialized", "--data-dir", str(tmp_path / "data")),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            client = Client(server.stdout.readline().split()[-1], version)
            (tmp_path / "data" / "small.h5").write_bytes(b"x" * 100)
            with client.session:
                asked = kinds(client)
            assert len(asked) > 150
            address = urlsplit(client.url)
            with socket.create_connection((address.hostname, address.port), timeout=10) as raw:
                for method, path, body in itertools.islice(itertools.cycle(asked), REQUESTS):
                    kind = "Content-Type: application/json\r\n" if method == "PUT" else ""
                    raw.sendall(
                        f"{method} {path} HTTP/1.1\r\nHost: dcu\r\n{kind}"
                        f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
                    )
                    check(raw.recv(READ), method, path)
        finally:
            server.terminate()
    assert server.returncode == 0
