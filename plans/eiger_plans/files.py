"""Files at home before a run's stop document, so that whoever reads that can read the images."""

import logging
from collections.abc import Callable, Generator, Sequence
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky import Msg
from bluesky.utils import FailedStatus

from eiger_plans.steps import all_of
from ophyd_eiger import EigerDetector, EigerError

logger = logging.getLogger(__name__)

Plan = Generator[Msg, Any, Any]


def files_home(
    *detectors: EigerDetector | Sequence[EigerDetector],
    times: bool = True,
) -> Callable[[Plan], Plan]:
    """Return a preprocessor that has each run end when its files are home and checked.

    For `RE.preprocessors.append(files_home(eiger))`. A run that took images gets a stream
    `<name>_files` with one event a series: images promised, images that came, files, bytes, and the
    names of files that did not come; and a stream `<name>_times` with one event: where its time
    went, by the detector's ledger, since it was staged. A run whose files did not come has these
    streams too, and fails. One that fails before ends as it would without.

    Parameters
    ----------
    *detectors : EigerDetector, or a list of them
        Those whose files are waited for.
    times : bool
        Whether there is a stream `<name>_times`.

    Returns
    -------
    callable
        Takes a plan and returns one.

    Raises
    ------
    TypeError
        If there is no detector, or something else stands where one should.
    """
    awaited = all_of(detectors, "files_home")

    def before_stop(msg: Msg) -> tuple[Plan | None, None]:
        if msg.command != "close_run" or msg.kwargs.get("exit_status") not in (None, "success"):
            return None, None
        owing = [detector for detector in awaited if detector.files_home.pending]
        if not owing:
            return None, None

        def told_then_closed() -> Plan:
            failures: list[Exception] = []
            for detector in owing:
                plan = _told(detector, failures, times)
                yield from plan if msg.run is None else bpp.set_run_key_wrapper(plan, msg.run)
            for later in failures[1:]:
                logger.error("%s", later)
            if failures:
                raise failures[0]
            return (yield msg)

        return told_then_closed(), None

    def preprocess(plan: Plan) -> Plan:
        return (yield from bpp.plan_mutator(plan, before_stop))

    return preprocess


def _told(detector: EigerDetector, failures: list[Exception], times: bool) -> Plan:
    """Wait for a detector's files and tell what came of them, also where some did not."""
    files: Any = detector.files_home
    series = files.pending
    try:
        yield from bps.trigger(files, wait=True)
    except (EigerError, FailedStatus) as error:
        failures.append(error)
    for reading in [files] * series + [detector.times] * times:
        yield from bps.create(name=reading.name)
        yield from bps.read(reading)
        yield from bps.save()
