"""Where the time goes: every request of one detector since its last stage, and what it was for.

Knows nothing of SIMPLON. The client notes each request; who works says with `during` what for.
What is being done is a context variable, which `Worker.submit` hands on to its thread.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

from ophyd_eiger.ledger_table import RequestSum, columns, requests_table

# Of a staging; the sums of `summary` and `table` count older ones too.
LARGEST_NUMBER = 10_000
PROMPT, STAGE, POINT, UNSTAGE, TRANSFER = "prompt", "stage", "point", "unstage", "transfer"

_T = TypeVar("_T")


class Request(NamedTuple):
    """One HTTP request.

    Attributes
    ----------
    doing : str
        What for: "stage", "point 3", "unstage", "transfer", "prompt", ...
    verb, resource : str
        As in "PUT", "detector command/arm".
    start : float
        Seconds since the ledger was begun.
    seconds : float
        Until the reply was read whole.
    bytes : int
        Of the reply's body.
    outcome : int or str
        The HTTP status, or the class of the exception that ended it.
    """

    doing: str
    verb: str
    resource: str
    start: float
    seconds: float
    bytes: int
    outcome: int | str


@dataclass
class Span:
    """One piece of work, all times in s.

    Attributes
    ----------
    doing : str
        As in "point 3".
    start : float
        Since the ledger was begun.
    seconds : float
        How long it took.
    idle_before : float
        From the end of the piece before: motors, other devices, the RunEngine.
    exposure : float
        What the detector's settings say that its exposures take.
    in_trigger, in_requests : float
        In the trigger command and in all other requests of this piece.
    """

    doing: str
    start: float
    seconds: float = 0.0
    idle_before: float = 0.0
    exposure: float = 0.0
    in_trigger: float = 0.0
    in_requests: float = 0.0

    @property
    def waiting(self) -> float:
        """Seconds in which neither a request was under way nor, without trigger, an exposure."""
        exposing = self.in_trigger or self.exposure
        return max(0.0, self.seconds - exposing - self.in_requests)

    @property
    def overhead(self) -> float:
        """Seconds beyond the exposures."""
        return self.seconds - self.exposure


@dataclass
class _PointSums:
    count: int = 0
    seconds: float = 0.0
    exposure: float = 0.0
    in_trigger: float = 0.0
    in_requests: float = 0.0
    waiting: float = 0.0
    idle_before: float = 0.0


@dataclass
class _Doing:
    """What a thread is doing, and what the requests it makes are summed up in."""

    name: str
    span: Span | None = None


_AT_THE_PROMPT = _Doing(PROMPT)


_doing: ContextVar[_Doing | None] = ContextVar("eiger_doing", default=None)


class Ledger:
    """The requests since the last stage, the newest `largest_number` of them one by one.

    Parameters
    ----------
    largest_number : int
        How many requests, and how many pieces of work, are kept one by one: about 250 bytes each.
    """

    def __init__(self, largest_number: int = LARGEST_NUMBER) -> None:
        self.largest_number = largest_number
        self._lock = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self.began = time.time()
        self._zero = time.perf_counter()
        self._requests: deque[tuple] = deque(maxlen=self.largest_number)
        self._spans: deque[Span] = deque(maxlen=self.largest_number)
        self._sums: dict[tuple[str, str, str], RequestSum] = {}
        self._points = _PointSums()
        self._work: dict[str, float] = {}
        self._last_end: float | None = None

    # ---- who works says so ----

    @contextmanager
    def during(self, doing: str) -> Iterator[None]:
        """Note requests of this thread, and of what it submits, as being for `doing`.

        Parameters
        ----------
        doing : str
            "stage" begins the ledger anew; "point" is numbered by itself; any other word will do.
        """
        with self._lock:
            if doing == STAGE:
                self._begin()
            numbered = f"{POINT} {self._points.count + 1}" if doing == POINT else doing
            span = Span(numbered, time.perf_counter() - self._zero)
            if self._last_end is not None:
                span.idle_before = span.start - self._last_end
        token = _doing.set(_Doing(numbered, span))
        try:
            yield
        finally:
            _doing.reset(token)
            self._close(span, doing)

    def _close(self, span: Span, doing: str) -> None:
        with self._lock:
            self._last_end = time.perf_counter() - self._zero
            span.seconds = self._last_end - span.start
            self._spans.append(span)
            if doing == POINT:
                sums = self._points
                sums.count += 1
                for name in ("seconds", "exposure", "in_trigger", "in_requests", "waiting"):
                    setattr(sums, name, getattr(sums, name) + getattr(span, name))
                sums.idle_before += span.idle_before
            else:
                self._work[doing] = self._work.get(doing, 0.0) + span.seconds

    def timed(self, doing: str, work: Callable[[], _T]) -> Callable[[], _T]:
        """Return a function that does `work` during `doing`."""

        def timed_work() -> _T:
            with self.during(doing):
                return work()

        return timed_work

    @contextmanager
    def background(self, doing: str) -> Iterator[None]:
        """Note requests of this thread as being for `doing`, as of no piece of work."""
        token = _doing.set(_Doing(doing))
        try:
            yield
        finally:
            _doing.reset(token)

    @staticmethod
    def exposed(seconds: float) -> None:
        """Note how long the exposures of the work under way take by the detector's settings."""
        doing = _doing.get()
        if doing is not None and doing.span is not None:
            doing.span.exposure += seconds

    # ---- the client notes its requests ----

    def add(
        self, verb: str, path: str, began: float, seconds: float, size: int, outcome: int | str
    ) -> None:
        """Note one request.

        Parameters
        ----------
        verb, path : str
            As in "GET", "/detector/api/1.6.0/config/count_time".
        began : float
            By `time.perf_counter`.
        seconds : float
            How long it took.
        size : int
            Bytes of the reply.
        outcome : int or str
            The HTTP status, or the class of the exception.
        """
        doing = _doing.get() or _AT_THE_PROMPT
        resource = _resource(path)
        kind = POINT if doing.name.startswith(POINT) else doing.name
        key = (kind, verb, resource)
        with self._lock:
            start = began - self._zero
            self._requests.append((doing.name, verb, path, start, seconds, size, outcome))
            found = self._sums.get(key)
            if found is None:
                found = self._sums[key] = RequestSum()
            found.count += 1
            found.seconds += seconds
            found.longest = max(found.longest, seconds)
            found.bytes += size
            found.failed += not (isinstance(outcome, int) and outcome < 400)
            if doing.span is not None:
                if resource == "detector command/trigger":
                    doing.span.in_trigger += seconds
                else:
                    doing.span.in_requests += seconds

    # ---- who wants to know ----

    @property
    def requests(self) -> list[Request]:
        """The newest requests, in the order in which they ended."""
        with self._lock:
            entries = list(self._requests)
        return [Request(e[0], e[1], _resource(e[2], files=True), *e[3:]) for e in entries]

    @property
    def spans(self) -> list[Span]:
        """The newest pieces of work that are over, in order."""
        with self._lock:
            return list(self._spans)

    def summary(self) -> dict[str, Any]:
        """Return the sums since the last stage, as plain numbers and texts for metadata.

        Returns
        -------
        dict
            "began" (ISO 8601), "seconds" of work by kind, "points" with their number and what
            they took in all (s), "requests" with count, seconds, longest, bytes and failed by
            "<kind>: <verb> <resource>".
        """
        with self._lock:
            points = dict(vars(self._points))
            sums = {key: dict(vars(found)) for key, found in self._sums.items()}
            work = dict(self._work)
        work[POINT] = points["seconds"]
        points["overhead"] = points["seconds"] - points["exposure"]
        return {
            "began": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self.began)),
            "seconds": work,
            "points": points,
            "requests": {f"{kind}: {verb} {name}": v for (kind, verb, name), v in sums.items()},
        }

    def table(self, points: int = 20, *, every: bool = False) -> str:
        """Return what a person reads: the last `points` points, and requests by kind, in s.

        Parameters
        ----------
        points : int
            How many points, at most.
        every : bool
            Whether settings and status values are a line each; else those of a subsystem are one.
        """
        with self._lock:
            sums = {key: replace(found) for key, found in self._sums.items()}
            spans = [span for span in self._spans if span.doing.startswith(POINT)]
            total = self._points.count
        text = requests_table(sums, every=every)
        shown = spans[-points:] if points else []
        if not shown:
            return text
        rows = [
            (s.doing, s.seconds, s.exposure, s.in_trigger, s.in_requests, s.waiting, s.overhead,
             s.idle_before)
            for s in shown
        ]  # fmt: skip
        head = ("", "took/s", "exposure", "trigger", "requests", "waiting", "overhead", "before")
        left = "" if len(shown) == total else f" (the last {len(shown)} of {total})"
        return f"points{left}\n{columns(head, rows)}\n\n{text}"

    def __repr__(self) -> str:
        with self._lock:
            count = sum(found.count for found in self._sums.values())
            return f"<Ledger: {count} requests, {self._points.count} points; see .table()>"


def _resource(path: str, *, files: bool = False) -> str:
    """Return a path as people name it; every file and image as one, unless `files`."""
    parts = path.split("/", 4)
    if len(parts) == 5 and parts[2] == "api":
        name = parts[4].partition("?")[0]
        if not files and name.startswith("images/"):
            # As of files: each image of the monitor has a path of its own.
            name = "/".join("N" if part.isdigit() else part for part in name.split("/"))
        return f"{parts[1]} {name}"
    if parts[1:2] == ["data"] and not files:
        return "data file"
    return path.lstrip("/").replace("/", " ", 1)
