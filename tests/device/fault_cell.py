"""One cell of the fault matrix: a scan that a fault strikes in one of its phases, and what of it.

What happens is told by the documents, by what was raised and by what the DCU still has; whether it
is right, by the simulator's oracle.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import numpy as np
import psutil
from bluesky import RunEngine
from catalogs import images_of_events

from ophyd_eiger import EigerDetector, Timeouts
from ophyd_eiger.errors import EigerError

PHASES = ("connect", "stage", "first trigger", "mid-series", "last trigger", "disarm", "transfer")
POINTS, IMAGES = 3, 2
TIMEOUTS = Timeouts(
    connect=2, get=2, put=3, initialize=20, arm=3, end=3, trigger_margin=3, signal=5, files=2
)
# In s: so long a scan may take at most, which is every limit above once, and what is not waiting.
LONGEST = 60.0
REQUESTS = {
    "connect": "GET */config/*",
    "stage": "PUT */command/arm",
    "first trigger": "PUT */command/trigger",
    "mid-series": "PUT */command/trigger",
    "last trigger": "PUT */command/trigger",
    "disarm": "PUT */command/disarm",
    "transfer": "GET data/*",
}
# Of the series: after how many of its images.
AFTER_IMAGES = {
    "connect": 0,
    "stage": 0,
    "first trigger": 1,
    "mid-series": 3,
    "last trigger": 5,
    "disarm": 6,
    "transfer": 6,
}
FAULTS: dict[str, dict[str, Any]] = {
    "refuse": {"times": 1},
    "refuse 503": {"status": 503, "times": 1},
    "late": {"seconds": 4.0, "times": 1},
    "hang": {"times": 1},
    "drop before": {"when": "before", "times": 1},
    "drop head": {"when": "head", "times": 1},
    "drop body": {"when": "body", "times": 1},
    "drop after": {"when": "after", "times": 1},
    "lose": {"times": 1},
    "put-reply": {"body": "null"},
    "die": {"back": 1.0},
    "die kept": {"back": 1.0, "files": "kept"},
    "error": {},
    "full": {},
    "stall": {},
    "temperature": {},
    "humidity": {},
    "file-short": {},
    "file-truncated": {},
    "file-corrupt": {"offset": 12},
    "file-late": {"seconds": 4.0},
    "file-missing": {},
    "monitor-drop": {},
}
OF_SERIES = {"error", "full", "stall", "die", "die kept"}
OF_PATHS = {
    *("refuse", "refuse 503", "late", "hang", "lose"),
    *("drop before", "drop head", "drop body", "drop after"),
}


@dataclass
class Outcome:
    """What became of a scan.

    Attributes
    ----------
    raised : list of str
        What its connect, its plan, a wait for its files or a fetch raised, in order.
    events : int
        Events that were emitted.
    right, wrong : int
        Events whose images are the oracle's, or other ones.
    unread : list of str
        Why the images of others could not be read.
    owed : dict
        What the device says that it has not brought home.
    lost : list of str
        What the DCU has finished, and is neither home nor owed.
    seconds : float
        From the first request to the end of the plan.
    """

    raised: list[str] = field(default_factory=list)
    events: int = 0
    right: int = 0
    wrong: int = 0
    unread: list[str] = field(default_factory=list)
    owed: dict[str, list[str]] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        """Return it as the documentation's table has it."""
        images = f"{self.right} of {POINTS} points"
        if not self.raised:
            return images
        return f"{images}; {', '.join(dict.fromkeys(each.split(':')[0] for each in self.raised))}"


class Scan:
    """A scan with one device, and its documents.

    Parameters
    ----------
    dcu : sim_dcu.Server
        The DCU.
    folder : Path
        Where the files go.
    way : {"step", "fly"}
        How the points are taken.
    points : int
        How many.
    """

    def __init__(self, dcu: Any, folder: Path, way: str, points: int = POINTS) -> None:
        self.dcu = dcu
        self.way = way
        self.points = points
        self.eiger = EigerDetector(dcu.url, name="eiger", directory=folder, timeouts=TIMEOUTS)
        self.documents: list[tuple[str, dict[str, Any]]] = []
        self.engine = RunEngine({})
        self.engine.subscribe(lambda name, doc: self.documents.append((name, doc)))

    def run(self, fault: str, phase: str) -> Outcome:
        """Take it, with a fault that is set before its phase begins."""
        outcome, began = Outcome(), time.monotonic()
        self._strike(fault, phase, "connect")
        try:
            self.eiger.connect()
            self.eiger.configure(
                {
                    "frame_time": 0.005,
                    "count_time": 0.004,
                    "nimages": IMAGES,
                    "ntrigger": self.points,
                    "filewriter.nimages_per_file": IMAGES,
                }
            )
            self.engine(self._step(fault, phase) if self.way == "step" else self._fly(fault, phase))
        except Exception as error:  # noqa: BLE001 - what it is, is judged
            outcome.raised.append(told(error))
        outcome.seconds = time.monotonic() - began
        return outcome

    def _strike(self, fault: str, wanted: str, phase: str) -> None:
        if not phase or phase != wanted:
            return
        name, arguments = fault.split()[0], dict(FAULTS[fault])
        if fault in OF_PATHS:
            arguments["path"] = REQUESTS[phase]
        if fault in OF_SERIES and not (fault.startswith("die") and phase in ("connect", "stage")):
            arguments["image"] = AFTER_IMAGES[phase]
        self.dcu.faults.set(name, **arguments)

    def _step(self, fault: str, phase: str) -> Iterator[Any]:
        @bpp.stage_decorator([self.eiger])
        @bpp.run_decorator()
        def points() -> Iterator[Any]:
            names = {0: "first trigger", self.points // 2: "mid-series"}
            for number in range(self.points):
                name = names.get(number, "last trigger" if number == self.points - 1 else "")
                self._strike(fault, phase, name)
                if name == "last trigger":
                    self._strike(fault, phase, "disarm")
                    self._strike(fault, phase, "transfer")
                yield from bps.trigger_and_read([self.eiger])

        self._strike(fault, phase, "stage")
        yield from points()

    def _fly(self, fault: str, phase: str) -> Iterator[Any]:
        @bpp.stage_decorator([self.eiger])
        @bpp.run_decorator()
        def flight() -> Iterator[Any]:
            for name in ("first trigger", "mid-series", "last trigger", "disarm", "transfer"):
                self._strike(fault, phase, name)
            yield from bps.prepare(
                self.eiger,
                {"number_of_events": self.points, "exposures_per_event": IMAGES},
                wait=True,
            )
            yield from bps.declare_stream(self.eiger, name="primary", collect=True)
            yield from bps.kickoff(self.eiger, wait=True)
            yield from bps.collect_while_completing(
                [self.eiger], [self.eiger], stream_name="primary"
            )

        self._strike(fault, phase, "stage")
        yield from flight()

    def settle(self, outcome: Outcome) -> None:
        """Clear the fault, fetch what is owed, and look at every event's images."""
        self.dcu.faults.clear()
        wait_until_alive(self.eiger)
        for call in (self.eiger.wait_for_files, self.eiger.fetch):
            try:
                call()
            except EigerError as error:
                outcome.raised.append(told(error))
        outcome.owed = self.eiger.owed
        self._compare(outcome)
        home = {path.name for path in Path(self.eiger.directory).glob("*.h5")}
        owed = {name for names in outcome.owed.values() for name in names}
        stems = {*outcome.owed, *(name.split("_data_")[0] for name in home)}
        outcome.lost = sorted(
            name
            for name in self.eiger.link.client.files()
            if name not in home | owed and any(name.startswith(stem) for stem in stems)
        )

    def _compare(self, outcome: Outcome) -> None:
        taken: dict[int, int] = {}
        for event, read in images_of_events(self.documents, "eiger_image"):
            outcome.events += 1
            series_id = event["data"]["eiger_series_id"]
            first = taken.get(series_id, 0)
            taken[series_id] = first + IMAGES
            try:
                images = read()
            except (EigerError, OSError) as error:
                outcome.unread.append(str(error))
                continue
            expected = [self.dcu.image(series_id, first + n + 1) for n in range(IMAGES)]
            if np.array_equal(images, expected):
                outcome.right += 1
            else:
                outcome.wrong += 1

    def again(self) -> str:
        """Bring the detector back and take another scan; return what is wrong, or nothing."""
        self.eiger.recover().wait(60)
        self.documents.clear()
        outcome = self.run("late", "never")
        self._compare(outcome)
        if outcome.raised or outcome.right != self.points:
            return f"{outcome.raised} {outcome}"
        return ""


def told(error: BaseException) -> str:
    """Return class and words of what was raised, of its cause where bluesky wraps it."""
    cause = error.__cause__ if type(error).__name__ == "FailedStatus" else None
    error = cause or error
    return f"{type(error).__name__}: {error}"


def wait_until_alive(eiger: EigerDetector, limit: float = 20.0) -> None:
    """Wait for a DCU that died to be back."""
    deadline = time.monotonic() + limit
    while True:
        try:
            eiger.link.client.files()
        except EigerError:
            if time.monotonic() > deadline:
                raise
        else:
            return


def left_over(before: set[int]) -> list[str]:
    """Return the threads that came since and live on, once those that were ending have ended."""
    deadline = time.monotonic() + 10
    while True:
        names = [
            thread.name
            for thread in threading.enumerate()
            if thread.ident not in before and "eiger" in thread.name
        ]
        if not names or time.monotonic() > deadline:
            return names
        threading.Event().wait(0.05)


def connections_to(port: int) -> int:
    """Return how many connections this process has to a port."""
    return sum(
        1
        for each in psutil.Process().net_connections("tcp")
        if each.raddr and each.raddr.port == port and each.status == psutil.CONN_ESTABLISHED
    )
