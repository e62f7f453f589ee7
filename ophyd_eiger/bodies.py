"""The body of a file that a DCU sends: which part of the file it is, and its bytes as they come."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import requests
from urllib3.exceptions import HTTPError

from ophyd_eiger.errors import ReplyError

# In s: so long bytes of a file that come slowly are gathered before the caller sees them.
GATHERED_S = 0.5
# The HTTP status of a part of a file, and what says which part (RFC 9110, 14.4).
PARTIAL = 206
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})", re.ASCII)


@dataclass(frozen=True)
class Body:
    """A file that the DCU sends, or the end of one.

    Attributes
    ----------
    start : int
        The first byte that is sent.
    size : int or None
        The bytes of the whole file; None if the DCU does not say.
    version : str
        What the DCU says that would differ if the file were another one, or nothing.
    read_into : callable
        Fills a buffer, or what it can of it within `GATHERED_S`, and returns the number of bytes,
        0 at the end.
    """

    start: int
    size: int | None
    version: str
    read_into: Callable[[memoryview], int]


def body_of(
    url: str, response: requests.Response, start: int, read_into: Callable[[memoryview], int]
) -> Body:
    """Return what a reply to a GET of a file sends.

    Raises
    ------
    ReplyError
        If it is another part of the file than the one asked for.
    """
    headers = response.headers
    version = headers.get("ETag") or headers.get("Last-Modified") or ""
    if response.status_code != PARTIAL:
        length = headers.get("Content-Length", "")
        return Body(0, int(length) if length.isdigit() else None, version, read_into)
    sent = headers.get("Content-Range", "")
    match = _CONTENT_RANGE.fullmatch(sent.strip())
    if match is None or int(match[1]) != start or int(match[2]) + 1 != int(match[3]):
        raise ReplyError(
            f"GET {url}: bytes from {start} on were asked for, and the answer says that it is "
            f"{sent!r}",
            request=f"GET {url}",
        )
    return Body(start, int(match[3]), version, read_into)


class Gatherer:
    """Fills buffers with a body, as far as its bytes come within `GATHERED_S`."""

    def __init__(self, response: requests.Response) -> None:
        # A read timeout is for each byte: what drips would fill a buffer in hours. Before urllib3 2
        # it still does.
        self._read = getattr(response.raw, "read1", response.raw.read)
        self._error: Exception | None = None

    def __call__(self, buffer: memoryview) -> int:
        """Fill a buffer; what came before an error is returned first."""
        if self._error is not None:
            raise self._error
        filled, until = 0, time.monotonic() + GATHERED_S
        try:
            while filled < len(buffer) and (piece := self._read(len(buffer) - filled)):
                buffer[filled : filled + len(piece)] = piece
                filled += len(piece)
                if time.monotonic() >= until:
                    break
        except (HTTPError, OSError) as error:
            if not filled:
                raise
            self._error = error
        return filled
