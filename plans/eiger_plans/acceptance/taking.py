"""The series of an acceptance test: each is set up, taken in a run, timed, and looked into."""

import contextlib
import statistics
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import numpy as np
from bluesky.utils import FailedStatus

from eiger_plans.acceptance.asking import Asking
from eiger_plans.acceptance.findings import Check, Report, Section, Verdict
from eiger_plans.acceptance.integrity import ARMED_WITH, Taken, downloads, integrity, published
from eiger_plans.steps import FAILURES, aside, in_thread
from ophyd_eiger import EigerError, open_series

SERIES = Section("series")
# A series may take so much longer than its settings say: the request, and the DCU's own work.
LATEST_S, LATEST_SHARE = 1.0, 0.05
# A rate is judged by what a series lasts longer than a short one, which has the same delays; by at
# least so much, in s, or those differ too much.
LONGER_S = 1.0
# How long the monitor may take to have the images, and to give one, in s.
MONITOR_S = 20.0
_PERIOD_S = 0.05


@dataclass(frozen=True)
class Series:
    """One series that is to be taken.

    Attributes
    ----------
    name : str
        What its checks are called after.
    mode : {"ints", "inte"}
        The trigger mode.
    nimages, ntrigger, images_per_file : int
        As the detector has them; each trigger is a point.
    exposure : float or None
        Of an image, in s, in mode inte.
    watched : bool
        Whether the monitor has its images too, and they are compared.
    fetched_again : bool
        Whether its files are downloaded a second time.
    rate : float or None
        At which its images are to come, in Hz; None if that is not judged.
    """

    name: str
    mode: str = "ints"
    nimages: int = 1
    ntrigger: int = 1
    images_per_file: int = 1000
    exposure: float | None = None
    watched: bool = False
    fetched_again: bool = False
    rate: float | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What is set up for it."""
        return {
            "trigger_mode": self.mode,
            "nimages": self.nimages,
            "ntrigger": self.ntrigger,
            "filewriter.nimages_per_file": self.images_per_file,
            "filewriter.mode": "enabled",
            "monitor.mode": "enabled" if self.watched else "disabled",
        }


def several(frame_rate: float, seconds: float) -> tuple[Series, ...]:
    """Return the series of a test: one, several and no data files, each image its own, and a rate.

    Parameters
    ----------
    frame_rate : float
        In Hz.
    seconds : float
        How long the rate is to be held, in s.
    """
    held = max(1, round(frame_rate * seconds))
    return (
        Series("ints, one data file", nimages=2, ntrigger=2, watched=True),
        Series("ints, several data files", nimages=5, images_per_file=2),
        Series("ints, images in the master", nimages=2, images_per_file=0),
        Series("inte", "inte", ntrigger=2, exposure=0.1),
        Series(
            f"{frame_rate:g} Hz for {seconds:g} s",
            nimages=held,
            images_per_file=max(1, -(-held // 3)),
            fetched_again=True,
            rate=frame_rate,
        ),
    )


@dataclass
class Taking:
    """Takes series and adds to a report what comes of it.

    Parameters
    ----------
    eiger : EigerDetector
        The detector.
    asking : Asking
        Asks the DCU.
    report : Report
        What is added to.
    download_rate : float
        The least, in MB/s.
    time_scale : float
        Of a simulated DCU: what its waits are multiplied by; 0 if it does not wait.
    md : dict
        Metadata of each run.
    """

    eiger: Any
    asking: Asking
    report: Report
    download_rate: float
    time_scale: float
    md: Mapping[str, Any] = field(default_factory=dict)
    # How long triggers of mode ints lasted, in s, by their number of images.
    _lasted: dict[int, list[float]] = field(default_factory=dict)

    def take(self, wanted: Series) -> Generator[Any, Any, bool]:
        """Take one series; return whether a next one is possible."""
        taken = Taken(wanted.name, wanted.nimages, wanted.ntrigger, wanted.images_per_file)
        monitored: list[tuple[int, np.ndarray]] = []
        try:
            yield from bps.mv(self.eiger.configuration, wanted.settings)
            yield from bps.mv(self.eiger.exposure, wanted.exposure)
            if wanted.watched:
                yield from aside(self._empty_monitor)
            yield from self._run(wanted, taken, monitored)
        except FAILURES as error:
            expected = f"{taken.images} images, home and checked"
            self.report.add([SERIES.failed(wanted.name, expected, told(error))])
        if taken.basename:
            yield from self._added(lambda: self._looked_into(wanted, taken, monitored))
        return (yield from self._is_idle(wanted))

    def _empty_monitor(self) -> None:
        """Empty the monitor of what others left, as a program that was killed."""
        # Where it cannot be emptied, the check of its images tells.
        with contextlib.suppress(EigerError):
            self.eiger.monitor.clear.send()

    def _dropped(self) -> int:
        """Return how many images the monitor has dropped; 0 if it does not say."""
        with contextlib.suppress(*FAILURES):
            return int(self.asking.value("monitor/status/dropped") or 0)
        return 0

    def _run(
        self, wanted: Series, taken: Taken, monitored: list[tuple[int, np.ndarray]]
    ) -> Generator[Any, Any, None]:
        eiger = self.eiger

        @bpp.stage_decorator([eiger])
        @bpp.run_decorator(md={**self.md, "acceptance_check": wanted.name})
        def taking() -> Generator[Any, Any, None]:
            before = yield from aside(self._settings)
            if wanted.watched:
                # Some count from arm on, others from when they were switched on.
                taken.dropped = (yield from aside(self._dropped)) or 0
            reading = None
            for point in range(wanted.ntrigger):
                began = time.monotonic()
                yield from bps.trigger(eiger, wait=True)
                seconds = time.monotonic() - began
                yield from bps.create("primary")
                reading = yield from bps.read(eiger)
                yield from bps.save()
                self.report.add([self._timed(wanted, point + 1, seconds)])
                if wanted.rate is not None:
                    self.report.add([held(wanted, seconds, self._lasted, self.time_scale)])
                elif wanted.exposure is None:
                    self._lasted.setdefault(wanted.nimages, []).append(seconds)
            if not reading or before is None:
                return
            if before.get("name_pattern") is None:
                name, expected = f"{wanted.name}: files", "files of a known name"
                found = "the DCU did not say what filewriter/config/name_pattern is"
                self.report.add([SERIES.failed(name, expected, found)])
                return
            taken.settings = before
            taken.series_id = reading[f"{eiger.name}_series_id"]["value"]
            pattern = before["name_pattern"]
            taken.basename = str(pattern).replace("$id", str(taken.series_id))
            yield from self._added(lambda: published(self.asking, taken, SERIES))
            if wanted.watched:
                yield from self._added(lambda: self._monitor(taken, monitored))

        uid = yield from taking()
        if uid:
            self.report.runs.append(uid)

    def _added(self, look: Any) -> Generator[Any, Any, None]:
        """Add to the report what a look, in a thread, finds."""
        found = yield from in_thread(lambda: list(look()), stop=self.asking.stop)
        self.report.add(found)

    def _settings(self) -> dict[str, Any]:
        """Return what the series is armed with, by the last part of the names, asked anew."""
        found = self.asking.settings(*ARMED_WITH)
        return {name.rpartition("/")[2]: value for name, value in found.items()}

    def _timed(self, wanted: Series, point: int, seconds: float) -> Check:
        name = f"{wanted.name}: time of trigger {point}"
        frame_time = self.eiger.detector.frame_time.last or 0.0
        if wanted.exposure is None:
            takes = wanted.nimages * frame_time
            # After the last image nothing is waited for.
            least = (wanted.nimages - 1) * frame_time
        else:
            takes = least = wanted.exposure
        most = takes * (1 + LATEST_SHARE) + LATEST_S
        expected = f"{least:.3f} to {most:.3f} s"
        if self.time_scale == 0:
            return SERIES.not_done(name, expected, "a simulated DCU without waits keeps no times")
        least, most = least * self.time_scale, takes * self.time_scale * 1.05 + LATEST_S
        expected = f"{least:.3f} to {most:.3f} s"
        good = least * 0.999 <= seconds <= most
        return SERIES.check(name, expected, f"{seconds:.3f} s", good=good)

    def _monitor(self, taken: Taken, monitored: list[tuple[int, np.ndarray]]) -> Iterator[Check]:
        section = Section("monitor")
        wanted = list(range(1, taken.images + 1))
        name, expected = "monitor/images", f"images {wanted[0]} to {wanted[-1]} of the series"
        deadline = time.monotonic() + MONITOR_S
        try:
            while True:
                listed = dict(self.asking.get("monitor/images"))
                held = sorted(listed.get(taken.series_id, []))
                if held == wanted or time.monotonic() > deadline:
                    break
                time.sleep(_PERIOD_S)
            found = ", ".join(map(str, held)) or "none"
            yield section.check(name, expected, f"images {found}", good=held == wanted)
            dropped = self.asking.value("monitor/status/dropped")
            if isinstance(dropped, int):
                dropped -= taken.dropped
            yield section.same("monitor/status/dropped", "0 images", f"{dropped} images")
        except FAILURES as error:
            yield section.failed(name, expected, error)
            return
        image: Any = self.eiger.live.image
        expected = f"image {wanted[-1]} of series {taken.series_id}"
        try:
            pixels = self._newest(image)
        except FAILURES as error:
            yield section.failed("newest image", expected, error)
            return
        last = (image.series_id, image.image_number)
        found = f"image {last[1]} of series {last[0]}"
        yield section.same("newest image", expected, found)
        if pixels is not None and last[0] == taken.series_id:
            monitored.append((last[1], pixels))

    def _newest(self, image: Any) -> np.ndarray | None:
        """Ask for the newest image; the device, which holds up no scan, does not wait for long."""
        deadline = time.monotonic() + MONITOR_S
        while True:
            self.asking.check_going_on()
            try:
                return image.get()
            except EigerError as error:
                if not isinstance(error, TimeoutError) or time.monotonic() > deadline:
                    raise

    def _looked_into(
        self, wanted: Series, taken: Taken, monitored: list[tuple[int, np.ndarray]]
    ) -> Iterator[Check]:
        taken.home = {
            file.path.name: file.path
            for file in self.eiger.fetched
            if file.path.name in taken.files
        }
        section = Section("files")
        found = list(integrity(taken, section))
        yield from found
        if any(check.verdict == Verdict.FAIL for check in found):
            return
        for number, pixels in monitored:
            yield _compared(taken, number, pixels)
        if wanted.fetched_again:
            yield from downloads(self.asking, taken, section, self.download_rate)

    def _is_idle(self, wanted: Series) -> Generator[Any, Any, bool]:
        name = f"{wanted.name}: state after it"
        try:
            state = yield from aside(self.asking.state)
        except EigerError as error:
            self.report.add([SERIES.failed(name, "idle", error)])
            return False
        if state is None:
            return True
        return self.report.add([SERIES.same(name, "idle", state)])


def held(
    wanted: Series, seconds: float, lasted: Mapping[int, list[float]], time_scale: float
) -> Check:
    """Judge a rate by how much longer a series lasted than the shortest before it.

    Parameters
    ----------
    wanted : Series
        The series, with its rate.
    seconds : float
        How long it lasted, in s.
    lasted : mapping
        How long the series before lasted, in s, by their numbers of images.
    time_scale : float
        Of a simulated DCU.
    """
    name, rate = f"{wanted.name}: rate", wanted.rate or 0.0
    least = rate * (1 - LATEST_SHARE)
    expected = f"at least {least:.4g} Hz"
    if time_scale == 0:
        return SERIES.not_done(name, expected, "a simulated DCU without waits keeps no times")
    few = min(lasted, default=wanted.nimages)
    more = wanted.nimages - few
    if more < rate * LONGER_S:
        why = f"{wanted.nimages} images, and {few} before, are too few; ask for more seconds"
        return SERIES.not_done(name, expected, why)
    short = statistics.median(lasted[few])
    reached = more * time_scale / max(seconds - short, 1e-6)
    found = f"{reached:.4g} Hz: {wanted.nimages} images in {seconds:.3f} s, {few} in {short:.3f} s"
    return SERIES.check(name, expected, found, good=reached >= least)


def _compared(taken: Taken, number: int, pixels: np.ndarray) -> Check:
    """Compare an image of the monitor with that of the file; masked and full pixels left out."""
    with open_series(taken.home[taken.master]) as series:
        stored = series[number - 1]
        counted = (series.mask == 0) & (stored != np.iinfo(stored.dtype).max)
    name = f"{taken.name}: image {number} in the file"
    expected = "the pixels that the monitor has"
    if pixels.shape != stored.shape:
        return SERIES.failed(name, expected, f"{stored.shape}, of the monitor {pixels.shape}")
    wrong = int(np.count_nonzero(stored[counted] != pixels[counted]))
    found = f"{wrong} of {np.count_nonzero(counted)} pixels differ"
    return SERIES.check(name, expected, found, good=wrong == 0)


def told(error: BaseException) -> str:
    """Return what an error says, and those that came before it, each once."""
    said: list[str] = []
    seen: BaseException | None = error
    while seen is not None:
        if not isinstance(seen, FailedStatus):
            text = f"{type(seen).__name__}: {seen}"
            if isinstance(seen, EigerError) and text not in said:
                said.append(text)
        seen = seen.__cause__ or seen.__context__
    return "; after ".join(said) or f"{type(error).__name__}: {error}"
