"""The RunEngine, what it knows of every run, and what it shows of one.

RE.md stays: RE.md["sample"] = "lysozyme" is in each run from then on, and scan_id counts on.
"""

import time

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
from bluesky import RunEngine
from bluesky.callbacks.best_effort import BestEffortCallback
from bluesky.log import config_bluesky_logging
from bluesky.utils import DefaultDuringTask, ProgressBarManager
from IPython import get_ipython

from ophyd_eiger import EigerError
from ophyd_eiger.kept_dict import KeptDict
from ophyd_eiger.screen import Screen


def end_loop(engine):
    """End the thread of an engine's event loop."""
    engine.loop.call_soon_threadsafe(engine.loop.stop)


class Attentive(DefaultDuringTask):
    """What waits while a plan runs, and hears every Ctrl-C.

    Of one in a hundred the system tells another thread than the one that waits, which then would
    sleep on until the next.
    """

    def __init__(self, has_windows):
        super().__init__()
        self.has_windows = has_windows

    def block(self, blocking_event):
        if self.has_windows:
            super().block(blocking_event)
        while not blocking_event.wait(0.2):
            pass


def open_metadata(path):
    """Return what is kept of every run; begin anew, beside the old one, if that is damaged."""
    try:
        return KeptDict(path)
    except EigerError as error:
        aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
        path.replace(aside)
        why = error.__cause__ or "no JSON object"
        print(f"{path} was damaged ({why}): it is {aside.name} now, and RE.md begins anew")
        return KeptDict(path)


if "RE" not in globals():
    # Before the RunEngine, which looks after the windows while it runs.
    screen = Screen(data_folder)

    # What bluesky has to say besides, as where an aborted plan was.
    log = str(data_folder / "bluesky.log")
    config_bluesky_logging(log, datefmt="%Y-%m-%d %H:%M:%S", color=False, level="INFO")

    RE = RunEngine(
        open_metadata(data_folder / "metadata.json"),
        scan_id_source=KeptDict.count_on,
        during_task=Attentive(screen.windows),
    )
    at_exit.callback(end_loop, RE)
    RE.waiting_hook = ProgressBarManager()
    bec = BestEffortCallback()
    bec.disable_baseline()  # it is in the run
    RE.subscribe(bec)

    if hasattr(get_ipython(), "register_magics"):
        from bluesky.magics import BlueskyMagics

        get_ipython().register_magics(BlueskyMagics)  # %wa, %mov motor 1, %ct
        at_exit.callback(end_loop, BlueskyMagics.RE)
        if screen.windows:
            get_ipython().run_line_magic("matplotlib", "qt")
