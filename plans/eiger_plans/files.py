"""Files at home before a run's stop document, so that whoever reads that can read the images."""

from collections.abc import Callable, Generator
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky import Msg

from ophyd_eiger import EigerDetector

Plan = Generator[Msg, Any, Any]


def files_home(*detectors: EigerDetector) -> Callable[[Plan], Plan]:
    """Return a preprocessor that has each run end when its files are home and checked.

    For `RE.preprocessors.append(files_home(eiger))`. A run that took images gets a stream
    `<name>_files` with one event a series: images promised, images that came, files and bytes. A
    run that fails ends as it would without.

    Parameters
    ----------
    *detectors : EigerDetector
        Those whose files are waited for.

    Returns
    -------
    callable
        Takes a plan and returns one.
    """

    def before_stop(msg: Msg) -> tuple[Plan | None, None]:
        if msg.command != "close_run" or msg.kwargs.get("exit_status") not in (None, "success"):
            return None, None
        owing = [detector for detector in detectors if detector.files_home.pending]
        if not owing:
            return None, None

        def told_then_closed() -> Plan:
            for detector in owing:
                plan = _told(detector)
                yield from plan if msg.run is None else bpp.set_run_key_wrapper(plan, msg.run)
            return (yield msg)

        return told_then_closed(), None

    def preprocess(plan: Plan) -> Plan:
        return (yield from bpp.plan_mutator(plan, before_stop))

    return preprocess


def _told(detector: EigerDetector) -> Plan:
    files: Any = detector.files_home
    series = files.pending
    yield from bps.trigger(files, wait=True)
    for _ in range(series):
        yield from bps.create(name=files.name)
        yield from bps.read(files)
        yield from bps.save()
