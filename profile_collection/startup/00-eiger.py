"""A prompt with an EIGER: RE, cat, eiger, bp, bps, series and np.

With the environment variable DCU_URL set, `eiger` is that DCU; without it a simulated EIGER 1M is
started, and ended when the prompt ends. Files go to the folder `data`, or to EIGER_DATA. Running
this file again renews RE and cat, and keeps the simulator and `eiger`.
"""

import atexit
import logging
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import numpy as np
from bluesky import RunEngine
from bluesky.callbacks.best_effort import BestEffortCallback

from eiger_plans import series
from ophyd_eiger import EigerDetector, EigerError


def start_simulator() -> str:
    """Start `python -m sim_dcu` and return its URL; it ends with this process."""
    command = [sys.executable, "-m", "sim_dcu", "--port", "0", "--initialized"]
    # In a session of its own: Ctrl-C at the prompt pauses the scan, it must not end the detector.
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)

    def end() -> None:
        process.terminate()
        process.wait(10)
        process.stdout.close()

    atexit.register(end)
    line = process.stdout.readline()
    if "http://" not in line:
        raise RuntimeError(f"{' '.join(command)} ended with status {process.wait(10)}; see above")
    return line.split()[-1]


def temporary_catalog():
    """Return a databroker that lasts as long as this process; the files last longer."""
    logging.getLogger("tiled").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # Of a test client that tiled runs its in-process server with.
        warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")
        from databroker.v2 import temp

        return temp()
