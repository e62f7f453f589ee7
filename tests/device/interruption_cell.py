"""One cell of the interruption matrix: a scan, a command in one of its phases, and what of it.

The simulated DCU is a process of its own and keeps real time. When the command is given, is told
by what the DCU shows over HTTP and by what the RunEngine did; what became of the scan, by its
documents; whether its images are right, by the simulator's oracle.
"""

import collections
import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import requests
from bluesky import RunEngine
from bluesky.suspenders import SuspendBoolHigh
from bluesky.utils import RunEngineInterrupted
from catalogs import images_of_events
from interruption_rules import COMMANDS, EXPOSURE_S, LONGEST_S, MODES, POINTS
from ophyd import Signal
from ophyd.sim import SynAxis
from signals_at_the_input import signals

from ophyd_eiger import EigerDetector
from ophyd_eiger.errors import EigerError

# bluesky counts a second Ctrl-C only if it comes 0.1 s after the first, as a hand's does.
BETWEEN_KEYS_S = 0.3
ASKED_EVERY_S = 0.03
# How far into an exposure "later exposure" strikes.
MID_EXPOSURE = 0.4
# How long the command or the file takes during which the phases of that name strike, and the move
# between points.
LATE_S, MOVE_S = 4.0, 1.5

# Phases that last as long as a reply which the simulator holds back.
REPLIES = {
    "arm": "PUT */command/arm",
    "disarm": "PUT */command/disarm",
    "transfer": "GET data/*",
}
SHORT = {
    "trigger_mode": "ints",
    "nimages": 1,
    "ntrigger": 1,
    "frame_time": 0.005,
    "count_time": 0.004,
    "filewriter.nimages_per_file": 1,
}

# A simulated DCU whose puts take no time: 0.3 s for each are most of a short cell.
INSTANT_PUTS = """
from sim_dcu import models
models.Model.durations = models.Durations(put=0, slow_put=0)
from sim_dcu.__main__ import main
raise SystemExit(main())
"""


class SimulatedDcu:
    """A simulated DCU in another process, over HTTP alone."""

    def __init__(self, url: str) -> None:
        self.url = url

    def overview(self) -> dict[str, Any]:
        return self._asked("GET", "/sim/state").json()

    def hold_back(self, path: str) -> None:
        """Have the next reply of this path come late."""
        arguments = {"path": path, "seconds": LATE_S, "times": 1}
        self._asked("PUT", "/sim/faults/late", json=arguments)

    def clear(self) -> None:
        self._asked("DELETE", "/sim/faults")

    def signal(self, seconds: float | None) -> bool:
        body = {} if seconds is None else {"value": seconds}
        return bool(self._asked("PUT", "/sim/trigger", json=body).json()["value"])

    def image(self, series_id: int, number: int) -> np.ndarray:
        """Return what an image must hold, numbered from 1."""
        return np.load(io.BytesIO(self._asked("GET", f"/sim/image/{series_id}/{number}").content))

    def _asked(self, method: str, path: str, **arguments: Any) -> requests.Response:
        reply = requests.request(method, f"{self.url}{path}", timeout=20, **arguments)
        reply.raise_for_status()
        return reply


@contextlib.contextmanager
def process(model: str, folder: Path, *, instant_puts: bool = False) -> Iterator[SimulatedDcu]:
    """Start `python -m sim_dcu`, which keeps real time, but for puts if so told; and end it."""
    program = ["-c", INSTANT_PUTS] if instant_puts else ["-m", "sim_dcu"]
    command = [sys.executable, *program, "--port", "0", "--model", model, "--initialized"]
    command += ["--seed", "3", "--time-scale", "1", "--data-dir", str(folder)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as running:
        try:
            assert running.stdout is not None
            yield SimulatedDcu(running.stdout.readline().split()[-1])
        finally:
            running.terminate()
            assert running.wait(timeout=20) == 0


@dataclass
class Outcome:
    """What became of an interrupted scan.

    Attributes
    ----------
    paused : bool
        Whether the RunEngine came back to the prompt paused.
    obeyed_s : list of float
        For each command that ends or pauses, how long until the RunEngine was paused or idle.
    still_s : float
        From the last command, or from the end of a resumed scan, until the DCU was idle.
    exit_status : str or None
        What the stop document says; None without a run.
    events : int
        Events that were emitted.
    named : list of tuple
        (series id, number) of the oracle's image that each event has.
    unread : list of str
        Why the images of others could not be read, or which are nobody's.
    raised : list of str
        What plan, commands and the wait for the files raised.
    owed : dict
        What the device says that it has not brought home.
    """

    paused: bool = False
    obeyed_s: list[float] = field(default_factory=list)
    still_s: float = float("inf")
    exit_status: str | None = None
    events: int = 0
    named: list[tuple[int, int]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    raised: list[str] = field(default_factory=list)
    owed: dict[str, list[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return it in short, as the whole matrix is printed."""
        run = "no run" if self.exit_status is None else f"{self.exit_status}, {self.events} events"
        return f"{'paused, then ' if self.paused else ''}{run}"


class Scan:
    """A scan of one mode with one device, which a command interrupts in one phase."""

    def __init__(
        self, dcu: SimulatedDcu, folder: Path, mode: str, phase: str, exposure_s: float = EXPOSURE_S
    ) -> None:
        self.dcu = dcu
        self.exposure_s = exposure_s
        self.mode = mode
        self.phase = phase
        self.flies = mode.startswith("fly")
        self.documents: list[tuple[str, dict[str, Any]]] = []
        self.messages: collections.Counter[str] = collections.Counter()
        self.eiger = EigerDetector(dcu.url, name="eiger", directory=folder)
        self.engine = RunEngine({})
        self.engine.subscribe(lambda name, doc: self.documents.append((name, doc)))
        self.engine.msg_hook = self._see_message
        self.shutter = Signal(name="shutter", value=0)
        self.engine.install_suspender(SuspendBoolHigh(self.shutter))
        self._suspended = threading.Event()
        self._given = threading.Event()
        self._given_at = 0.0
        self._over = threading.Event()
        self._overview = dcu.overview()
        self._acquires_since = float("inf")
        self._holds_back = False

    # ---- the scan ----

    def run(self, command: str) -> Outcome:
        """Take it, and give the command in its phase."""
        outcome = Outcome()
        first, then = COMMANDS[command]
        self.eiger.connect()
        self.eiger.configure(SHORT)
        given = dict(MODES[self.mode])
        if self.flies:
            del given["trigger_mode"]
        self.eiger.configure({**given, "count_time": self.exposure_s})
        watching = threading.Thread(target=self._watch, args=(first,), daemon=True)
        watching.start()
        with self._signals():
            try:
                self._run_engine(outcome, first, then)
            finally:
                self._over.set()
                watching.join()
        began = time.monotonic() if then == "resume" or first == "suspend" else self._given_at
        while self.dcu.overview()["state"] != "idle" and time.monotonic() - began < 2 * LONGEST_S:
            time.sleep(ASKED_EVERY_S)
        outcome.still_s = time.monotonic() - began
        return outcome

    def _run_engine(self, outcome: Outcome, first: str, then: str) -> None:
        def call(what: Callable[[], Any]) -> float:
            with contextlib.suppress(RunEngineInterrupted):
                try:
                    what()
                except EigerError as error:
                    outcome.raised.append(repr(error))
            return time.monotonic()

        back = call(lambda: self.engine(self._fly() if self.flies else self._step()))
        assert self._given.wait(LONGEST_S), f"{self.phase} was not seen"
        if first not in ("key", "suspend"):
            outcome.obeyed_s.append(back - self._given_at)
        outcome.paused = self.engine.state == "paused"
        if outcome.paused:
            self._given_at = time.monotonic()
            back = call(getattr(self.engine, then))
            if then != "resume":
                outcome.obeyed_s.append(back - self._given_at)

    def _step(self) -> Iterator[Any]:
        if self.phase == "between points":
            yield from bp.scan([self.eiger], SynAxis(name="x", delay=MOVE_S), 0, 1, POINTS)
        else:
            yield from bp.count([self.eiger], POINTS)

    def _fly(self) -> Iterator[Any]:
        @bpp.stage_decorator([self.eiger])
        @bpp.run_decorator()
        def flight() -> Iterator[Any]:
            trigger = MODES[self.mode]["trigger_mode"]
            info: dict[str, Any] = {"number_of_events": POINTS, "trigger": trigger}
            if trigger != "exte":
                info["livetime"] = self.exposure_s
            yield from bps.prepare(self.eiger, info, wait=True)
            yield from bps.declare_stream(self.eiger, name="primary", collect=True)
            yield from bps.kickoff(self.eiger, wait=True)
            yield from bps.collect_while_completing([self.eiger], [self.eiger], 0.2, "primary")

        yield from flight()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        mode = MODES[self.mode]["trigger_mode"]
        if mode.startswith("int"):
            yield
            return
        gate = self.exposure_s if mode == "exte" else None
        with signals(_Input(self), gate=gate):
            yield

    @property
    def waits_for_signal(self) -> bool:
        """Whether hardware beside the plan gives a signal now: between points it takes its time."""
        withheld = self.phase == "between points" and self._events() and not self._given.is_set()
        return self._overview["state"] == "ready" and not withheld

    def _see_message(self, message: Any) -> None:
        self.messages[message.command] += 1
        if self.phase == "arm" and message.command == ("prepare" if self.flies else "stage"):
            self._hold_back()
        if message.command == "wait_for":
            self._suspended.set()

    # ---- the command ----

    def _watch(self, command: str) -> None:
        giving = None
        while not self._over.wait(ASKED_EVERY_S):
            self._overview = self.dcu.overview()
            if self._overview["state"] != "acquire":
                self._acquires_since = float("inf")
            elif self._acquires_since == float("inf"):
                self._acquires_since = time.monotonic()
            if self.phase in ("disarm", "transfer") and self._is_mid_later_exposure():
                self._hold_back()
            if giving is None and self._is_in_phase():
                giving = threading.Thread(target=self._give, args=(command,), daemon=True)
                giving.start()
        if giving is not None:
            giving.join()

    def _hold_back(self) -> None:
        if not self._holds_back:
            self._holds_back = True
            self.dcu.hold_back(REPLIES[self.phase])

    def _is_mid_later_exposure(self) -> bool:
        # The state is "acquire" from the first point to the last where one trigger takes all.
        before = 1 if self.mode == "fly ints" else 0
        seen_s = time.monotonic() - self._acquires_since
        return self._events() == 1 and seen_s >= (before + MID_EXPOSURE) * self.exposure_s

    def _is_in_phase(self) -> bool:
        begun = self.messages["kickoff" if self.flies else "trigger"]
        acquires = self._overview["state"] == "acquire"
        if self.phase == "first exposure":
            return bool(begun) and acquires
        if self.phase == "between points":
            return self._events() == 1
        if self.phase == "later exposure":
            return self._is_mid_later_exposure()
        struck = any(fault["struck"] for fault in self._overview["faults"])
        if self.phase == "transfer":
            return struck and any(name == "stop" for name, _ in tuple(self.documents))
        return struck

    def _events(self) -> int:
        return sum(
            1 if name == "event" else len(doc["seq_num"])
            for name, doc in tuple(self.documents)
            if name in ("event", "event_page")
        )

    def _give(self, command: str) -> None:
        if command == "keys":
            self._press_key()
            time.sleep(BETWEEN_KEYS_S)
        self._given_at = time.monotonic()
        self._given.set()
        if command in ("key", "keys"):
            self._press_key()
        elif command == "suspend":
            self.shutter.put(1)
            self._suspended.wait(LONGEST_S)
            self.shutter.put(0)
        else:
            getattr(self.engine, command)()

    def _press_key(self) -> None:
        # At an idle RunEngine it would end the tests.
        if self.engine.state == "running":
            # Of a process' threads the kernel may choose another, and the main one then sleeps on.
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    # ---- what became of it ----

    def settle(self, outcome: Outcome) -> None:
        """Wait for the files, and look at every event's images."""
        self.dcu.clear()
        try:
            # Nobody waits for unstage after a halt, or where a pause cut the wait short.
            self.eiger.unstage().wait(60)
        except EigerError as error:
            outcome.raised.append(repr(error))
        outcome.owed = self.eiger.owed
        self._look(outcome)

    def again(self) -> str:
        """Take a short scan in the same process; return what is wrong, or nothing."""
        self.documents.clear()
        self.phase = "none"
        self.eiger.configure({**SHORT, "ntrigger": POINTS})
        self.engine(bp.count([self.eiger], POINTS))
        outcome = Outcome()
        self._look(outcome)
        right = outcome.exit_status == "success" and len(set(outcome.named)) == POINTS
        return "" if right and not outcome.unread else f"{outcome} {outcome.unread}"

    def _look(self, outcome: Outcome) -> None:
        for name, doc in self.documents:
            if name == "stop":
                outcome.exit_status = doc["exit_status"]
        for event, read in images_of_events(self.documents, "eiger_image"):
            outcome.events += 1
            try:
                (image,) = read()
            except (EigerError, OSError) as error:
                outcome.unread.append(str(error))
                continue
            series_id = event["data"]["eiger_series_id"]
            whose = [n for n in range(1, POINTS + 1) if self._is(image, series_id, n)]
            outcome.named += [(series_id, n) for n in whose]
            if not whose:
                outcome.unread.append(f"an event of series {series_id} has no image of it")

    def _is(self, image: np.ndarray, series_id: int, number: int) -> bool:
        try:
            return np.array_equal(image, self.dcu.image(series_id, number))
        except requests.HTTPError:
            return False  # The series has no such image.


class _Input:
    """The trigger input, as `signals` uses it."""

    def __init__(self, scan: Scan) -> None:
        self._scan = scan

    def pulse(self) -> bool:
        return self.gate(None)

    def gate(self, seconds: float | None) -> bool:
        return self._scan.waits_for_signal and self._scan.dcu.signal(seconds)
