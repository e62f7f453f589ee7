"""`ophyd-eiger acceptance`: checks a detector, and writes a report that a beamline can sign.

The one command that runs a plan: the package `eiger_plans` has it.
"""

import logging
import signal
import tempfile
import threading
from pathlib import Path
from typing import Any

import click

from ophyd_eiger.cli.common import FAULTY, Call, Number, dcu_command
from ophyd_eiger.errors import StateError

_ABOVE_0 = Number(0, min_open=True)


@dcu_command("acceptance")
@click.option(
    "--report",
    "reports",
    multiple=True,
    metavar="FILE",
    help="Write the report to a new file, .txt, .md, .html or .json; may be given several times.",
)
@click.option(
    "--directory",
    type=click.Path(file_okay=False),
    help="Where the files of the series go, and stay; a folder that is removed if not given.",
)
@click.option("--frame-rate", type=_ABOVE_0, default=10.0, show_default=True, help="In Hz.")
@click.option(
    "--seconds", type=_ABOVE_0, default=3.0, show_default=True, help="How long it is held, in s."
)
@click.option(
    "--download-rate", type=_ABOVE_0, default=10.0, show_default=True, help="The least, in MB/s."
)
@click.option(
    "--temperature",
    type=float,
    nargs=2,
    default=(10.0, 40.0),
    show_default=True,
    help="Limits in degree Celsius, where the DCU states none.",
)
@click.option(
    "--humidity",
    type=float,
    nargs=2,
    default=(0.0, 35.0),
    show_default=True,
    help="Limits in percent, where the DCU states none.",
)
@click.option(
    "--time-scale",
    type=Number(0),
    default=1.0,
    show_default=True,
    help="That of a simulated DCU.",
)
def command(call: Call, reports: tuple[str, ...], directory: str | None, **asked: Any) -> None:
    """Check a detector: every resource, health, series in each way, files, rates.

    It takes short series and puts the configuration back; it needs the detector for itself,
    initialized and idle, for some minutes. Files stay on the DCU.
    """
    from eiger_plans.acceptance.conditions import Conditions
    from eiger_plans.acceptance.reports import check_path, text, write

    try:
        conditions = Conditions(**asked)
        places = [check_path(path) for path in reports]
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    dcu, state = call.reach()
    if not dcu.is_idle(state):
        raise StateError(
            f"the state is {state!r}: the detector is to be initialized, and used by nobody; see "
            f"ophyd-eiger doctor {call.url}"
        )
    with tempfile.TemporaryDirectory(prefix="eiger-acceptance-") as folder:
        report = _taken(call, conditions, Path(directory or folder))
    for place in places:
        write(report, place)
    call.give(report.as_dict(), text(report))
    if not report.passed:
        raise click.exceptions.Exit(FAULTY)


class EndsOnInterrupt:
    """Has Ctrl-C end a plan that cannot be resumed in good order, which its cleaning up is part of.

    Parameters
    ----------
    engine : RunEngine
        Which runs the plan.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._before: Any = None

    def __enter__(self) -> None:
        """Take over Ctrl-C."""
        self._before = signal.signal(signal.SIGINT, self._interrupted)

    def __exit__(self, *_: object) -> None:
        """Give it back."""
        signal.signal(signal.SIGINT, self._before)

    def _interrupted(self, *_: object) -> None:
        # It waits for the engine's loop, for which a signal's handler must not.
        threading.Thread(target=self._pause, daemon=True).start()

    def _pause(self) -> None:
        # Else it is ending already.
        if self._engine.state == "running":
            self._engine.request_pause(defer=False)


def _taken(call: Call, conditions: Any, directory: Path) -> Any:
    """Run the plan, with a RunEngine and a detector of its own."""
    from bluesky import RunEngine
    from bluesky.utils import RunEngineInterrupted
    from eiger_plans.acceptance.plan import accepted

    from ophyd_eiger.detector import EigerDetector

    eiger = EigerDetector(
        call.url,
        name="eiger",
        directory=directory,
        api_version=call.api_version,
        timeouts=call.timeouts("trigger_margin"),
    )
    engine = RunEngine({}, context_managers=[EndsOnInterrupt], call_returns_result=True)
    # What failed is in the report, and of an interruption one line tells.
    logging.getLogger("bluesky").setLevel(logging.CRITICAL)
    try:
        result: Any = engine(accepted(eiger, conditions, tell=call.say))
    except RunEngineInterrupted as interrupted:
        raise KeyboardInterrupt from interrupted
    finally:
        eiger.destroy()
    return result.plan_result
