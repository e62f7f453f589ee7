"""Files over HTTP: ranges (RFC 9110, 14), HEAD, DELETE, the index, names that try to leave."""

import http.client
import os
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_client import Client

import sim_dcu
from sim_dcu.downloads import byte_range, index_page

CONTENT = bytes(range(256)) * 4


@pytest.fixture
def stored(dcu: sim_dcu.Server) -> str:
    (dcu.dcu.store.folder / "stored.h5").write_bytes(CONTENT)
    return f"{dcu.url}/data/stored.h5"


@pytest.mark.parametrize(
    ("wanted", "first", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=1000-", 1000, 1024),
        ("bytes=1000-9999", 1000, 1024),
        ("bytes=-24", 1000, 1024),
        ("bytes=1023-1023", 1023, 1024),
        ("BYTES=5-6", 5, 7),
    ],
)
def test_a_range_is_206_with_its_bytes(
    client: Client, stored: str, wanted: str, first: int, end: int
) -> None:
    reply = client.session.get(stored, headers={"Range": wanted}, timeout=5)
    assert reply.status_code == 206
    assert reply.content == CONTENT[first:end]
    assert reply.headers["content-range"] == f"bytes {first}-{end - 1}/1024"
    assert reply.headers["content-length"] == str(end - first)
    assert reply.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize("wanted", ["bytes=1024-", "bytes=5000-6000", "bytes=-0"])
def test_a_range_past_the_end_is_416(client: Client, stored: str, wanted: str) -> None:
    reply = client.session.get(stored, headers={"Range": wanted}, timeout=5)
    assert (reply.status_code, reply.content) == (416, b"")
    assert reply.headers["content-range"] == "bytes */1024"


@pytest.mark.parametrize(
    "wanted", ["bytes=0-1,4-5", "bytes=9-5", "bytes=-", "pages=1-2", "bytes", "", "bytes=a-b"]
)
def test_what_is_no_single_range_gets_the_whole(client: Client, stored: str, wanted: str) -> None:
    reply = client.session.get(stored, headers={"Range": wanted}, timeout=5)
    assert (reply.status_code, reply.content) == (200, CONTENT)
    assert "content-range" not in reply.headers


@pytest.mark.parametrize("version", ['"abc"', "Fri, 27 Nov 2026 12:00:00 GMT"])
def test_a_range_of_a_version_that_nobody_told_gets_the_whole(
    client: Client, stored: str, version: str
) -> None:
    headers = {"Range": "bytes=5-6", "If-Range": version}
    reply = client.session.get(stored, headers=headers, timeout=5)
    assert (reply.status_code, reply.content) == (200, CONTENT)


def test_a_whole_range_of_a_whole_file_may_be_200(client: Client, stored: str) -> None:
    reply = client.session.get(stored, headers={"Range": "bytes=0-1023"}, timeout=5)
    assert reply.content == CONTENT


def test_head_tells_the_length_and_ignores_ranges(client: Client, stored: str) -> None:
    reply = client.session.head(stored, headers={"Range": "bytes=0-9"}, timeout=5)
    assert (reply.status_code, reply.headers["content-length"]) == (200, "1024")
    assert client.session.head(f"{client.url}/data/none.h5", timeout=5).status_code == 404


@given(
    wanted=st.one_of(
        st.text(max_size=20),
        st.from_regex(r"bytes=[0-9]{0,5}-[0-9]{0,5}", fullmatch=True),
    ),
    size=st.integers(0, 5000),
)
def test_a_range_is_always_within_the_file(wanted: str, size: int) -> None:
    part = byte_range(wanted, size)
    if part is not None:
        assert 0 <= part[0] <= part[1] <= size
        assert part[0] < part[1] or part == (0, size)


def test_delete_is_204_without_a_body_then_404(client: Client, stored: str) -> None:
    reply = client.session.delete(stored, timeout=5)
    assert (reply.status_code, reply.content) == (204, b"")
    assert client.session.delete(stored, timeout=5).status_code == 404
    assert client.session.get(stored, timeout=5).status_code == 404


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.targets += [value or "" for name, value in attrs if name == "href"]


@pytest.mark.parametrize("path", ["/data", "/data/"])
def test_the_index_links_every_file_and_nothing_else(
    client: Client, dcu: sim_dcu.Server, path: str
) -> None:
    names = ["plain.h5", 'a"b<script>&.h5', "blank and ü.h5", "per%20cent#?.h5", "sub/deep.h5"]
    for name in names:
        file = dcu.dcu.store.folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(name.encode())
    (dcu.dcu.store.folder / ".hidden.h5").write_bytes(b"no")
    reply = client.session.get(client.url + path, timeout=5)
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    page = _Links()
    page.feed(reply.text)
    assert "script" not in page.tags
    fetched = [client.session.get(client.url + link, timeout=5).content for link in page.targets]
    assert sorted(fetched) == sorted(name.encode() for name in names)


def test_a_name_that_is_not_utf8_does_not_break_the_index() -> None:
    name = os.fsdecode(b"\xff.h5")
    assert "/data/%FF.h5" in index_page([name])


@pytest.fixture
def outside(dcu: sim_dcu.Server) -> str:
    secret = dcu.dcu.store.folder.parent / "secret"
    secret.write_bytes(b"secret")
    (dcu.dcu.store.folder / "link.h5").symlink_to(secret)
    (dcu.dcu.store.folder / "sub").mkdir()
    return str(secret)


NAMES = (
    *("../secret", "..%2fsecret", "%2e%2e/secret", "sub/../../secret", "./../secret"),
    *("sub/%2e%2e/%2e%2e/secret", "..\\secret", "link.h5", "%00", "sub", "sub/..", "x" * 300),
    "%2f%2f{outside}",
)


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_no_name_leaves_the_folder(dcu: sim_dcu.Server, outside: str, method: str) -> None:
    # http.client sends the path as it is; a requests session would tidy it.
    address = urlsplit(dcu.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=5)
    for name in NAMES:
        connection.request(method, "/data/" + name.replace("{outside}", outside.lstrip("/")))
        reply = connection.getresponse()
        assert reply.status == 404, name
        assert reply.read() != b"secret", name
    connection.close()
    assert Path(outside).read_bytes() == b"secret"
