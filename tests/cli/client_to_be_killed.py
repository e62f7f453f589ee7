"""A scan in a process of its own: python client_to_be_killed.py URL FOLDER MODE DELETE."""

import os
import sys
from pathlib import Path

import bluesky.plan_stubs as bps
import bluesky.plans as bp
from bluesky import RunEngine

from ophyd_eiger import EigerDetector, FilePolicy

url, folder, mode, delete = sys.argv[1:]
eiger = EigerDetector(
    url,
    name="eiger",
    directory=Path(folder),
    file_policy=FilePolicy(delete_on_dcu=delete == "delete"),
)
eiger.connect()
eiger.configure({"frame_time": 0.02, "count_time": 0.019, "filewriter.nimages_per_file": 2})
engine = RunEngine({})
engine.subscribe(lambda name, doc: os.write(1, f"{name}\n".encode()))


def fly():
    yield from bps.stage(eiger, wait=True)
    yield from bps.open_run()
    yield from bps.prepare(eiger, {"number_of_events": 12, "exposures_per_event": 2}, wait=True)
    yield from bps.declare_stream(eiger, name="primary", collect=True)
    yield from bps.kickoff(eiger, wait=True)
    yield from bps.collect_while_completing([eiger], [eiger], stream_name="primary")
    yield from bps.close_run()
    yield from bps.unstage(eiger, wait=True)


if mode == "armed once":
    eiger.configure({"nimages": 3, "ntrigger": 4})
    engine(bp.count([eiger], 6))
elif mode == "series a point":
    eiger.configure({"nimages": 3})
    engine(bp.count([eiger], 4))
else:
    engine(fly())
