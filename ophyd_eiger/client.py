"""HTTP to one DCU: addresses, timeouts, requests, and what an HTTP answer means.

Knows nothing of ophyd, of detector states or of files. A PUT is never sent twice: when its reply
is lost the caller is told so (`LostReplyError`) and asks the DCU what became of it.
"""

import io
import json
import logging
import math
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote, urljoin

import requests
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    MaxRetryError,
    ProtocolError,
    ReadTimeoutError,
)

from ophyd_eiger.addresses import base_url
from ophyd_eiger.bodies import Body, Gatherer, body_of
from ophyd_eiger.connections import Connections, prepared
from ophyd_eiger.errors import (
    DcuTimeoutError,
    DcuUnreachableError,
    EigerError,
    LostReplyError,
    NotServedError,
    RefusedError,
    ReplyError,
)
from ophyd_eiger.ledger import Ledger
from ophyd_eiger.replies import shown

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

# Tried in this order where a DCU does not say its version. First that of the SIMPLON API Reference
# V1.3, which knows no `version` resource; firmware of that age answers to every version, so that
# another one would take an EIGER for an EIGER2.
KNOWN_APIS = ("1.0.0", "1.5.0", "1.6.0", "1.8.0")
# In bytes: what is read of a large body at a time.
PIECE = 2**20
# Of one request; and the answers after which it is the same request (RFC 9110, 15.4).
MOST_REDIRECTS = 3
SAME_METHOD = (307, 308)
# In bytes: what is not a file has no more. A flat field of 18 million pixels in JSON has 100 MB.
LARGEST_REPLY = 2**28
# Of the time that a GET has: what one has after another one that was not answered, until the DCU
# answers again. Where it stands still each of many questions would take the whole time.
AFTER_SILENCE = 0.2
# An HTTP status in a reply's text, as in "404 Not Found".
ERROR_TEXT = re.compile(r"\s*([45]\d\d)\s+[A-Z]")


@dataclass(frozen=True)
class Timeouts:
    """How long each kind of call may go without a byte of its reply, in seconds.

    What a call sends, such as a mask, has as long to be sent in all.
    After a question (`get`) that was not answered the next ones have a fifth of it, until the DCU
    answers again. What drips, a byte now and then, has about as long from any of its bytes on.

    The SIMPLON API Reference V1.3 (section 2) gives up to 120 s for initialize and 17 s for arm;
    changing the energy takes seconds, because the flat field is calculated anew.
    """

    connect: float = 5.0
    get: float = 10.0
    put: float = 60.0
    initialize: float = 240.0
    arm: float = 120.0
    end: float = 60.0
    """disarm, cancel and abort."""
    trigger_margin: float = 30.0
    """What a trigger may take beyond its exposures."""
    signal: float = 600.0
    """How long a point may wait for signals at the trigger input without news of any."""
    files: float = 30.0
    """How long a finished series may go without a new byte of a file that it still owes."""


class DcuClient:
    """Requests to one DCU over kept-alive connections, from any thread.

    Parameters
    ----------
    address : str
        Where the DCU is; see `base_url`.
    api_version : str, optional
        The version in the URLs. Asked of the DCU with the first request if None.
    timeouts : Timeouts
        How long each kind of call may take.
    """

    def __init__(
        self,
        address: str,
        *,
        api_version: str | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        self.url = base_url(address)
        self.timeouts = timeouts or Timeouts()
        self._api_version = api_version
        self._connections = Connections(self.timeouts.connect)
        self.ledger = Ledger()
        self._is_silent = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    @property
    def api_version(self) -> str:
        """The API version in the URLs, as in "1.6.0"; asked of the DCU once."""
        if self._api_version is None:
            self._api_version = self._ask_version()
        return self._api_version

    def _ask_version(self) -> str:
        asked = f"{self.url}/detector/api/version"
        try:
            reply = self._get_json(asked)
        except NotServedError as error:
            answered = f"answered {error.status}"
        else:
            version = reply.get("value") if isinstance(reply, dict) else reply
            if isinstance(version, str) and version:
                return version
            answered = f"answered {shown(reply)}, which is no version"
        return self._try_versions(asked, answered)

    def _try_versions(self, asked: str, answered: str) -> str:
        """Return the version under which the detector's state is found."""
        for version in KNOWN_APIS:
            try:
                reply = self._get_json(f"{self.url}/detector/api/{version}/status/state")
            except NotServedError:
                continue
            if isinstance(reply, dict) and "value" in reply:
                return version
        raise ReplyError(
            f"GET {asked} {answered}, and there is no status/state under any of the versions "
            f"{', '.join(KNOWN_APIS)}: is {self.url} the address of a DCU? If it is, give "
            "api_version=",
            request=f"GET {asked}",
        )

    def resource_url(self, subsystem: str, resource: str) -> str:
        """Return the URL of a resource, as in `resource_url("detector", "config/count_time")`."""
        return f"{self.url}/{subsystem}/api/{self.api_version}/{resource}"

    def get(self, subsystem: str, resource: str) -> Any:
        """Return a resource's JSON; sent again once if the connection broke.

        Raises
        ------
        DcuUnreachableError, LostReplyError, DcuTimeoutError, RefusedError, ReplyError
        """
        return self._get_json(self.resource_url(subsystem, resource))

    def get_bytes(
        self,
        subsystem: str,
        resource: str,
        *,
        accept: str,
        reserve: Callable[[int], memoryview] | None = None,
        timeout: float | None = None,
    ) -> memoryview:
        """Return a resource's body as it is, such as a TIFF; sent again if the connection broke.

        Parameters
        ----------
        accept : str
            The media type asked for, as in "application/tiff".
        reserve : callable, optional
            Gives the memory for so many bytes; new memory if not given.
        timeout : float, optional
            In s; that of a GET if not given.

        Raises
        ------
        DcuUnreachableError, LostReplyError, DcuTimeoutError, RefusedError
        """
        url = self.resource_url(subsystem, resource)
        return _asked_again(lambda: self._get_body(url, accept, reserve or _new_memory, timeout))

    def put(
        self, subsystem: str, resource: str, value: Any, *, timeout: float | None = None
    ) -> Any:
        """Put a value once and return the reply's JSON, None if it is empty.

        Raises
        ------
        DcuUnreachableError, LostReplyError, DcuTimeoutError, RefusedError, ReplyError
        """
        return self._put(subsystem, resource, {"json": {"value": value}}, timeout)

    def put_bytes(
        self,
        subsystem: str,
        resource: str,
        body: bytes,
        *,
        content_type: str,
        timeout: float | None = None,
    ) -> Any:
        """Put a body once, such as a TIFF; the reply's JSON, and errors, as of `put`."""
        sent = {"data": body, "headers": {"Content-Type": content_type}}
        return self._put(subsystem, resource, sent, timeout)

    def delete(self, subsystem: str, resource: str, *, timeout: float | None = None) -> Any:
        """Delete what was put to a resource, once; the reply's JSON, and errors, as of `put`."""
        url = self.resource_url(subsystem, resource)
        return self._request("DELETE", url, timeout or self.timeouts.put)

    def command(self, subsystem: str, name: str, *, value: Any = None, timeout: float) -> Any:
        """Send a command once and return the reply's JSON, None if it is empty.

        Parameters
        ----------
        subsystem, name : str
            As in "detector", "arm".
        value : float, optional
            The exposure time in s that `trigger` takes in trigger mode inte. Without it no body
            is sent, because EIGER2 answers 404 to a command with a body.
        timeout : float
            In seconds.

        Raises
        ------
        DcuUnreachableError, LostReplyError, DcuTimeoutError, RefusedError, ReplyError
        """
        body = {} if value is None else {"json": {"value": value}}
        return self._put(subsystem, f"command/{name}", body, timeout)

    def files(self) -> list[str]:
        """Return the names of the files on the DCU, in no order.

        A bare list (API 1.6), an object with the list as `value` (1.8), and null for an empty one
        are all met on hardware.
        """
        reply = self.get("filewriter", "files")
        # (An object without it is no list: what answers so may be another program, or busy.)
        names = reply["value"] if isinstance(reply, dict) and "value" in reply else reply
        if names is None:
            return []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            request = f"GET {self.resource_url('filewriter', 'files')}"
            raise ReplyError(f"{request}: {shown(reply)} is no list of file names", request=request)
        return names

    @contextmanager
    def open_file(self, name: str, start: int = 0) -> Iterator["Body"]:
        """Open a file of the DCU's data folder to read, from byte `start` on.

        A DCU may know no ranges; what it sends then begins at byte 0, as `Body.start` says.

        Raises
        ------
        DcuUnreachableError, LostReplyError, DcuTimeoutError, RefusedError
        """
        url = f"{self.url}/data/{quote(name)}"
        # The bytes of the file, not of what something between has packed them into.
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        with self._exchange("GET", url, None, stream=True, headers=headers) as (response, seconds):
            _check_status("GET", url, response)

            gather = Gatherer(response)

            def read_into(buffer: memoryview) -> int:
                try:
                    return gather(buffer)
                except (HTTPError, OSError) as error:
                    _raise_as_ours("GET", url, error, self.timeouts.get)

            yield body_of(url, response, start, read_into)
            logger.debug(
                "GET %s: %d, first byte after %.1f ms", url, response.status_code, 1e3 * seconds
            )

    def file_size(self, name: str) -> int | None:
        """Return how many bytes a file of the DCU's data folder has; None if it does not say.

        Sent again once if the connection broke.

        Raises
        ------
        DcuUnreachableError, LostReplyError, DcuTimeoutError, RefusedError
        """
        return _asked_again(lambda: self._head_size(f"{self.url}/data/{quote(name)}"))

    def delete_file(self, name: str) -> None:
        """Delete a file from the DCU's data folder; one that is gone already is no error.

        Raises
        ------
        DcuUnreachableError, LostReplyError, DcuTimeoutError, RefusedError
        """
        try:
            self._request("DELETE", f"{self.url}/data/{quote(name)}", self.timeouts.put)
        except NotServedError as error:
            logger.debug("%s: gone already", error)

    def close(self) -> None:
        """Close every connection, those in use when they are not any more.

        The next request opens a new one.
        """
        connections, self._connections = self._connections, Connections(self.timeouts.connect)
        connections.close()

    def _send(
        self, method: str, url: str, timeout: float, *, stream: bool = False, **parts: Any
    ) -> requests.Response:
        """Send a request and return the reply, whole unless `stream`.

        Without a `requests.Session`, whose proxies, .netrc and cookies no DCU needs and which takes
        as long for a small request as the DCU does. Redirects within the DCU are followed, as
        simulators of others give them, to the same address with a slash at its end.
        """
        response = self._send_once(method, url, timeout, parts)
        for _ in range(MOST_REDIRECTS):
            target = self._redirected(method, url, response)
            if target is None:
                break
            _keep(method, url, response)  # The connection is free for the next request then.
            url = target
            response = self._send_once(method, url, timeout, parts)
        if not stream:
            _keep(method, url, response)
        return response

    def _send_once(
        self, method: str, url: str, timeout: float, parts: dict[str, Any]
    ) -> requests.Response:
        request = prepared(method, url, **parts)
        return self._connections.send(request, timeout=timeout)

    def _redirected(self, method: str, url: str, response: requests.Response) -> str | None:
        """Return where the DCU itself has what was asked for; None where that is here, or not it.

        One that redirects has done nothing, so that a PUT is not done twice.
        """
        if not response.is_redirect:
            return None
        is_same_request = response.status_code in SAME_METHOD or method in ("GET", "HEAD")
        try:
            target = urljoin(url, response.headers["location"])
        except ValueError:
            return None
        return target if is_same_request and target.startswith(f"{self.url}/") else None

    def _get_json(self, url: str) -> Any:
        timeout = self.timeouts.get * (AFTER_SILENCE if self._is_silent else 1.0)
        try:
            return _asked_again(lambda: self._request("GET", url, timeout))
        except DcuTimeoutError:
            self._is_silent = True
            raise

    def _head_size(self, url: str) -> int | None:
        with self._exchange("HEAD", url, None) as (response, _):
            _check_status("HEAD", url, response)
            length = response.headers.get("Content-Length", "")
            return int(length) if length.isdigit() else None

    def _get_body(
        self,
        url: str,
        accept: str,
        reserve: Callable[[int], memoryview],
        timeout: float | None,
    ) -> memoryview:
        sent = {"headers": {"Accept": accept}, "stream": True}
        with self._exchange("GET", url, timeout, **sent) as (response, seconds):
            _check_status("GET", url, response)
            logger.debug(
                "GET %s: %d, first byte after %.1f ms", url, response.status_code, 1e3 * seconds
            )
            length = response.headers.get("Content-Length", "")
            try:
                if not length.isdigit():
                    return memoryview(_read_whole("GET", url, response))
                if int(length) > LARGEST_REPLY:
                    raise _too_large("GET", url, f"has {length} bytes")
                body, filled = reserve(int(length)), 0
                while filled < len(body):
                    count = response.raw.readinto(body[filled : filled + PIECE])
                    if not count:
                        break
                    filled += count
            except (HTTPError, OSError) as error:
                _raise_as_ours("GET", url, error, timeout or self.timeouts.get)
            return body[:filled]

    def _put(self, subsystem: str, resource: str, body: dict, timeout: float | None) -> Any:
        url = self.resource_url(subsystem, resource)
        return self._request("PUT", url, timeout or self.timeouts.put, **body)

    def _request(self, method: str, url: str, timeout: float, **body: Any) -> Any:
        with self._exchange(method, url, timeout, **body) as (response, seconds):
            logger.debug(
                "%s %s %s: %d in %.1f ms: %.200s",
                method,
                url,
                body.get("json", ""),
                response.status_code,
                1e3 * seconds,
                response.text,
            )
            _check_status(method, url, response)
            return _parse(method, url, response)

    @contextmanager
    def _exchange(
        self, method: str, url: str, timeout: float | None, **kwargs: Any
    ) -> Iterator[tuple[requests.Response, float]]:
        read_timeout = self.timeouts.get if timeout is None else timeout
        began = time.perf_counter()
        try:
            response = self._send(method, url, read_timeout, **kwargs)
        except (requests.RequestException, HTTPError) as error:
            seconds = time.perf_counter() - began
            self._note(method, url, began, seconds, 0, type(error).__name__)
            logger.debug("%s %s: failed after %.1f ms: %s", method, url, 1e3 * seconds, error)
            _raise_as_ours(method, url, error, read_timeout)
        self._is_silent = False
        outcome: int | str = response.status_code
        with response:
            try:
                yield response, time.perf_counter() - began
            except BaseException as error:
                if response.ok:
                    outcome = type(error).__name__
                raise
            finally:
                seconds = time.perf_counter() - began
                self._note(method, url, began, seconds, response.raw.tell(), outcome)

    def _note(
        self, method: str, url: str, began: float, seconds: float, size: int, outcome: int | str
    ) -> None:
        self.ledger.add(method, url[len(self.url) :], began, seconds, size, outcome)


def _asked_again(ask: Callable[[], Answer]) -> Answer:
    """Return the answer to what changes nothing, which is asked again if its reply got lost."""
    try:
        return ask()
    except LostReplyError as error:
        logger.debug("%s; asked again", error)
        return ask()


def _keep(method: str, url: str, response: requests.Response) -> None:
    """Read a reply's body, of which requests would read one without end to the end of memory."""
    length = response.headers.get("Content-Length", "")
    if not (length.isdigit() and int(length) <= LARGEST_REPLY) and method != "HEAD":
        try:
            response.raw = io.BytesIO(_read_whole(method, url, response))
        except BaseException:
            response.close()
            raise
    response.content  # noqa: B018 - it is kept


def _read_whole(method: str, url: str, response: requests.Response) -> bytes:
    body = response.raw.read(LARGEST_REPLY + 1, decode_content=True)
    if len(body) > LARGEST_REPLY:
        raise _too_large(method, url, f"has more than {LARGEST_REPLY} bytes")
    return body


def _too_large(method: str, url: str, how: str) -> ReplyError:
    return ReplyError(
        f"{method} {url}: the answer {how}, which no answer of a DCU has; is this one?",
        request=f"{method} {url}",
    )


def _new_memory(size: int) -> memoryview:
    return memoryview(bytearray(size))


def _raise_as_ours(method: str, url: str, error: Exception, timeout: float) -> NoReturn:
    """Raise the package's error for what requests or urllib3 raised."""
    request = f"{method} {url}"
    reason = _reason(error)
    own = _without_wrapping(error)
    if isinstance(own, ConnectTimeoutError) and isinstance(own.__context__, socket.gaierror):
        raise DcuUnreachableError(
            f"{request}: the DCU cannot be reached, because its host's name is not known here "
            f"({reason}); is the address right?",
            request=request,
        ) from error
    if isinstance(own, ConnectTimeoutError):
        raise DcuUnreachableError(
            f"{request}: the DCU cannot be reached ({reason}); is it switched on, and is the "
            "address right?",
            request=request,
        ) from error
    if isinstance(own, ReadTimeoutError | TimeoutError):
        raise DcuTimeoutError(
            f"{request}: no answer within {timeout:g} s ({reason})", request=request
        ) from error
    raise LostReplyError(
        f"{request}: the connection was lost before the reply ({reason})", request=request
    ) from error


def _without_wrapping(error: BaseException) -> BaseException:
    """Return what went wrong, without what requests and urllib3 wrap it in.

    `ConnectTimeoutError` is urllib3's base of all that fails before there is a connection. The
    chain of causes is not asked: it goes on with what the caller is handling.
    """
    while isinstance(error, requests.RequestException | MaxRetryError | ProtocolError):
        inner = error.reason if isinstance(error, MaxRetryError) else (None, *error.args)[-1]
        if not isinstance(inner, BaseException):
            break
        error = inner
    return error


def _reason(error: BaseException) -> str:
    """Return the innermost cause of a chain of wrapped errors, in its own words."""
    seen = error
    while True:
        inner = seen.__cause__ or seen.__context__
        # What was being handled when this error came is another story.
        if inner is None or isinstance(inner, EigerError):
            return str(seen) or type(seen).__name__
        seen = inner


def _check_status(method: str, url: str, response: requests.Response) -> None:
    if response.status_code < 300:
        return
    if response.is_redirect:
        raise ReplyError(
            f"{method} {url}: the answer is {response.status_code} {response.reason}, to ask at "
            f"{response.headers['location']}; give the address of the DCU itself",
            request=f"{method} {url}",
        )
    status, text = response.status_code, _one_line(response)
    said = f": {text}" if text else ""
    raise _refusal(method, url, status, f"{status} {response.reason}{said}", text)


def _refusal(method: str, url: str, status: int, answer: str, text: str) -> RefusedError:
    kind = NotServedError if status == 404 else RefusedError
    request = f"{method} {url}"
    return kind(f"{request}: the DCU answered {answer}", request=request, status=status, text=text)


def _one_line(response: requests.Response) -> str:
    return " ".join(response.text.split())[:300]


def _parse(method: str, url: str, response: requests.Response) -> Any:
    if not response.content.strip():
        return None
    try:
        return json.loads(response.content, parse_constant=_not_a_number)
    except (ValueError, RecursionError) as error:
        content_type = response.headers.get("Content-Type", "json")
        if method != "GET" and (said := ERROR_TEXT.match(response.text)):
            # Some firmware puts the error into a reply of status 200 (Lima asks for it).
            text = _one_line(response)
            raise _refusal(method, url, int(said[1]), text, text) from error
        if method != "GET" and "json" not in content_type:
            # It was done, and what is said of it is for people.
            return None
        raise ReplyError(
            f"{method} {url}: the answer is not JSON: {response.text[:100]!r}; is this a DCU, and "
            "nothing between that answers for it?",
            request=f"{method} {url}",
        ) from error


def _not_a_number(constant: str) -> float:
    """Accept the NaN and Infinity that some JSON writers emit."""
    return {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}[constant]
