"""A prompt with an EIGER: RE, cat, eiger, bp, bps, series and np.

DCU_URL in the environment names a real DCU. Without it a simulated EIGER 1M is started, and ended
when the prompt ends. Files go to the folder "data", or to what EIGER_DATA names. Run again in the
same prompt (`%run -i`), this file renews RE and eiger and keeps cat.
"""

import atexit
import contextlib
import os

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import numpy as np
from bluesky import RunEngine
from bluesky.callbacks.best_effort import BestEffortCallback
from eiger_plans import series

from ophyd_eiger import EigerDetector, EigerError
from ophyd_eiger.trial import simulator, temporary_catalog

if "_ends_with_the_prompt" in globals():
    globals()["_ends_with_the_prompt"].close()
_ends_with_the_prompt = contextlib.ExitStack()
atexit.register(_ends_with_the_prompt.close)

if "cat" not in globals():
    # In memory; a beamline has a databroker of its own here.
    cat = temporary_catalog()

RE = RunEngine({})
RE.subscribe(cat.v1.insert)
bec = BestEffortCallback()
bec.disable_plots()  # images are no curves, and there may be no screen
RE.subscribe(bec)

_url = os.environ.get("DCU_URL") or _ends_with_the_prompt.enter_context(simulator("--initialized"))
eiger = EigerDetector(_url, name="eiger", directory=os.environ.get("EIGER_DATA", "data"))
_ends_with_the_prompt.callback(eiger.destroy)
try:
    eiger.connect()
except EigerError as error:
    print(f"eiger is not connected ({error}); later: eiger.connect()")
else:
    print(
        f"eiger: {eiger.detector.description.last} at {eiger.address}, "
        f"state {eiger.detector.state.last!r}, files go to {eiger.directory}"
    )
print("ready: RE, cat, eiger, bp, bps, series, np; as in RE(bp.count([eiger], 2)), cat[-1]")
