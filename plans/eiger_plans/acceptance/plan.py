"""The plan `acceptance_test`: checks a detector, and writes a report that a beamline can sign."""

import contextlib
import logging
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from ophyd import Kind, Signal

from eiger_plans.acceptance.arms import ARMS, arms
from eiger_plans.acceptance.asking import Asking
from eiger_plans.acceptance.conditions import Conditions
from eiger_plans.acceptance.findings import Report, Section, identity_of
from eiger_plans.acceptance.health import HEALTH, health, not_to_be_armed
from eiger_plans.acceptance.reports import as_json, check_path, text, write
from eiger_plans.acceptance.taking import SERIES, Taking, several, told
from eiger_plans.arguments import checked, recorded
from eiger_plans.steps import ENDED, FAILURES, arms_itself, aside, in_thread, tidied
from ophyd_eiger import EigerDetector, FilePolicy

logger = logging.getLogger(__name__)

RESTORED = Section("configuration")
# What is changed, in the order in which it is put back by `configure`.
CHANGED = (
    *("detector/config/trigger_mode", "detector/config/nimages", "detector/config/ntrigger"),
    *("detector/config/frame_time", "detector/config/count_time"),
    *("filewriter/config/mode", "filewriter/config/nimages_per_file"),
    *("filewriter/config/name_pattern", "monitor/config/mode"),
)
# What changes by itself with a series.
CHANGES_BY_ITSELF = ("detector/config/data_collection_date",)
# Of the frame time: so long each image is exposed, which leaves time to read out.
EXPOSED = 0.9
# The trigger modes that both generations have; the others of an EIGER2 need settings of their own.
MODES = ("ints", "inte", "exts", "exte")
# Trigger modes in which a trigger takes one image.
ONE_IMAGE = ("inte", "exte")

# After so many series that failed no more are taken: each may wait for whatever does not come.
MOST_FAILED = 2

Plan = Generator[Any, Any, Any]


@checked
def acceptance_test(
    eiger: EigerDetector,
    *,
    report: str | None = None,
    frame_rate: float = 10.0,
    seconds: float = 3.0,
    download_rate: float = 10.0,
    temperature: tuple[float, float] = (10.0, 40.0),
    humidity: tuple[float, float] = (0.0, 35.0),
    time_scale: float = 1.0,
    md: dict[str, Any] | None = None,
) -> Generator[Any, Any, Report]:
    """Check a detector and its DCU; say what passed, and write a report to sign.

    Connection, every resource, health, arming in every trigger mode, series with one, several and
    no data files, their files and pixels, the monitor, a frame rate that is held, downloads. It
    only reads and takes short series, into the detector's own directory; files stay on the DCU,
    and the monitor is emptied before. The configuration is put back at the end, also after a
    failure. A detector that is not idle, or not well enough, is left alone. It cannot be resumed:
    where it is paused it ends.

    Parameters
    ----------
    eiger : EigerDetector
        The detector; initialized, and used by nobody else.
    report : str, optional
        A new file for the report; its ending says in which form: .txt, .md, .html, .json.
    frame_rate : float
        Rate in Hz that is to be held.
    seconds : float
        For how long, in s.
    download_rate : float
        The least rate at which the largest file is to come, in MB/s.
    temperature : (float, float)
        Limits in degree Celsius, where the DCU states none.
    humidity : (float, float)
        Limits in percent, where the DCU states none.
    time_scale : float
        That of a simulated DCU; at 0 no times are judged.
    md : dict, optional
        Metadata of each run.

    Yields
    ------
    msg : Msg
        Messages for the RunEngine.

    Returns
    -------
    Report
        `print(report.verdict)`, `report.failures`, `report.checks`.

    Raises
    ------
    ValueError
        If an argument makes no sense, before anything is sent. What fails of the detector is in
        the report, and not raised.
    """
    place = None if report is None else check_path(report)
    conditions = Conditions(frame_rate, seconds, download_rate, temperature, humidity, time_scale)
    found = yield from accepted(eiger, conditions, md=md, tell=print)
    if not (yield from aside(lambda: True)):
        # The messages were but listed: nothing was tested.
        return found
    print(text(found))
    if place is not None and found.finished is not None:
        yield from aside(write, found, place)
        print(f"report: {place.resolve()}")
    return found


def accepted(
    eiger: EigerDetector,
    conditions: Conditions,
    *,
    md: dict[str, Any] | None = None,
    tell: Callable[[str], Any] = lambda _: None,
) -> Generator[Any, Any, Report]:
    """Do what `acceptance_test` does, and print and write nothing.

    Parameters
    ----------
    eiger : EigerDetector
        The detector.
    conditions : Conditions
        What is asked for.
    md : dict, optional
        Metadata of each run.
    tell : callable
        Is told each step in words.
    """
    report = Report(eiger.address, conditions.in_words())
    asking = Asking(eiger)
    _md = {
        "plan_name": "acceptance_test",
        "plan_args": recorded(eiger=eiger, **asdict(conditions)),
        **(md or {}),
    }
    test = _Test(eiger, asking, report, conditions, _md, tell)
    yield from bps.clear_checkpoint()
    tested = tidied(test.steps(), test.disarmed, test.restored)
    yield from arms_itself(eiger, bpp.finalize_wrapper(tested, test.recorded))
    return report


@dataclass
class _Test:
    # bluesky's and ophyd's protocols are wider than what a detector is.
    eiger: Any
    asking: Asking
    report: Report
    conditions: Conditions
    md: dict[str, Any]
    tell: Callable[[str], Any]

    def __post_init__(self) -> None:
        self._before: dict[str, Any] = {}
        self._is_at_end = False

    def steps(self) -> Plan:
        """Do one after the other, as far as it makes sense."""
        try:
            yield from self._until_it_fails()
        except ENDED:
            # Somebody ended the plan.
            raise
        except Exception as error:
            # What nobody thought of is to cost a report its rest, and not the whole.
            logger.exception("%s: the acceptance test did not come to its end", self.eiger.name)
            ended = Section("the test itself").failed("its end", "every step done", told(error))
            self.report.add([ended])
        self._is_at_end = True

    def _until_it_fails(self) -> Plan:
        asking, given = self.asking, self.conditions
        if not (yield from self._step("connection", asking.connection)):
            return
        yield from self._step("resources", asking.resources)
        self.report.identity = identity_of(asking.values)
        if asking.is_lost:
            return
        yield from self._step(
            HEALTH.name, lambda: health(self.eiger, asking, given.temperature, given.humidity)
        )
        if asking.is_lost:
            return
        if ill := not_to_be_armed(self.report.sections().get(HEALTH.name, ())):
            why = f"the detector is left alone: {', '.join(ill)}"
            self.report.add([HEALTH.not_done("the rest", "arming and series", why)])
            return
        self._before = (yield from aside(asking.settings)) or {}
        with self._own_policy():
            yield from self._working()

    def _working(self) -> Plan:
        """Do what changes settings."""
        given = self.conditions
        yield from self._step("puts", self.asking.replies_to_puts)
        if not (yield from self._armed_in_all_modes()):
            return
        taking = Taking(
            self.eiger, self.asking, self.report, given.download_rate, given.time_scale, self.md
        )
        frame_time = 1 / given.frame_rate
        times = {"frame_time": frame_time, "count_time": EXPOSED * frame_time}
        if not (yield from self._set_up(times)):
            return
        failed = 0
        for series in several(given.frame_rate, given.seconds):
            if failed == MOST_FAILED:
                why = f"{failed} series before it failed"
                self.report.add([SERIES.not_done(series.name, "a series", why)])
                continue
            self.tell(f"series: {series.name}")
            before = len(self.report.failures)
            if not (yield from taking.take(series)):
                return
            failed += len(self.report.failures) > before

    def _armed_in_all_modes(self) -> Plan:
        if not (yield from self._step("connect", self._connected)):
            return False
        choices = self.eiger.detector.trigger_mode.choices
        self.tell(f"arm: {', '.join(MODES)}")
        for mode in choices:
            if mode not in MODES:
                why = "it needs settings of its own, and no series is taken in it here"
                self.report.add([ARMS.not_done(f"{mode}: detector/command/arm", "an id", why)])
        for mode in MODES:
            settings = {"trigger_mode": mode, "ntrigger": 1, "filewriter.mode": "disabled"}
            if mode in ONE_IMAGE:
                settings["nimages"] = 1
            if not (yield from self._set_up(settings)):
                return False
            ends = ("disarm", "cancel", "abort") if mode == "ints" else ("disarm",)
            for end in ends:
                found = yield from in_thread(
                    lambda m=mode, e=end: list(arms(self.asking, m, e)), stop=self.asking.stop
                )
                if not self.report.add(found):
                    return False
        return True

    def _connected(self) -> tuple[()]:
        self.eiger.connect()
        return ()

    def _set_up(self, settings: dict[str, Any]) -> Plan:
        try:
            yield from bps.mv(self.eiger.configuration, settings)
        except FAILURES as error:
            asked = ", ".join(f"{name} = {value}" for name, value in settings.items())
            self.report.add([RESTORED.failed("set up", asked, told(error))])
            return False
        return True

    def _step(self, name: str, look: Callable[[], Any]) -> Plan:
        """Add what a look finds, in a thread; return whether nothing failed."""
        self.tell(name)
        section = Section(name)
        try:
            found = yield from in_thread(lambda: list(look()), stop=self.asking.stop)
        except FAILURES as error:
            return self.report.add([section.failed(name, "answers", told(error))])
        return self.report.add(found)

    @contextlib.contextmanager
    def _own_policy(self) -> Iterator[None]:
        """Have files waited for, and none deleted, whatever the user's policy is."""
        before = self.eiger.file_policy
        self.eiger.file_policy = FilePolicy(wait=True, delete_on_dcu=False)
        exposure = self.eiger.exposure.get()
        triggers = self.eiger.triggers_per_point.get()
        self.eiger.triggers_per_point.put(1)
        try:
            yield
        finally:
            self.eiger.file_policy = before
            self.eiger.exposure.put(exposure)
            self.eiger.triggers_per_point.put(triggers)

    # ---- the end, whatever came before ----

    def disarmed(self) -> Plan:
        """Have a test that was ended leave nothing armed: its threads are over by now."""
        self.asking.go_on()
        if not self._before or self._is_at_end:
            return
        name, expected = "detector/status/state", "idle, after disarm where it was not"

        def disarm() -> str:
            if self.asking.state() != "idle":
                timeout = self.asking.client.timeouts.end
                self.asking.client.command("detector", "disarm", timeout=timeout)
            return self.asking.state()

        try:
            state = yield from aside(disarm)
        except FAILURES as error:
            self.report.add([RESTORED.failed(name, expected, told(error))])
            return
        self.report.add([RESTORED.check(name, expected, state, good=state == "idle")])

    def restored(self) -> Plan:
        """Put the configuration back, and compare it with that of before."""
        if not self._before:
            return
        self.tell("configuration: put back")
        wanted = {
            name.replace("/config/", ".").replace("detector.", "", 1): self._before[name]
            for name in CHANGED
            if name in self._before
        }
        try:
            yield from bps.mv(self.eiger.configuration, wanted)
            after = yield from aside(self.asking.settings)
        except FAILURES as error:
            expected = "as before"
            self.report.add([RESTORED.failed("put back", expected, told(error))])
            return
        differences = [
            f"{name} is {(after or {}).get(name)!r}, was {value!r}"
            for name, value in self._before.items()
            if name not in CHANGES_BY_ITSELF and after and after.get(name) != value
        ]
        found = "; ".join(differences) or "as before"
        self.report.add([RESTORED.check("put back", "as before", found, good=not differences)])

    def recorded(self) -> Plan:
        """Take a run of its own with one event, which has the verdict and the report."""
        if self._is_at_end:
            self.report.finish()
        yield from aside(self.asking.close)
        name = self.eiger.name
        # Texts, of which nothing can be plotted.
        verdict: Any = Signal(
            name=f"{name}_acceptance_verdict", value=self.report.verdict, kind=Kind.normal
        )
        whole: Any = Signal(
            name=f"{name}_acceptance_report", value=as_json(self.report), kind=Kind.normal
        )
        uid = yield from bps.open_run({**self.md, "acceptance_verdict": self.report.verdict})
        if uid:
            self.report.runs.append(uid)
        yield from bps.create("acceptance")
        yield from bps.read(verdict)
        yield from bps.read(whole)
        yield from bps.save()
        yield from bps.close_run()
