"""Takes a run on a simulated DCU into a catalog of tiled, and ends: `run_taker.py URI FOLDER KIND`.

Prints as JSON the run's uid, and writes what the oracle says its images are to FOLDER.
"""

import json
import sys
from pathlib import Path

import bluesky.plans as bp
import numpy as np
from bluesky import RunEngine
from bluesky_tiled_plugins import TiledWriter
from ophyd.sim import motor
from tiled.client import from_uri

import sim_dcu
from ophyd_eiger import EigerDetector

uri, folder, kind = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
client = from_uri(uri)
engine = RunEngine({"sample": f"lysozyme, {kind}"}, context_managers=[])
engine.subscribe(TiledWriter(client, spec_to_mimetype={"EIGER_SIMPLON": "application/x-hdf5"}))
with sim_dcu.serve(model="eiger-500k", time_scale=0, seed=3, initialized=True) as dcu:
    eiger = EigerDetector(dcu.url, name="eiger", directory=folder / "data", documents=kind)
    eiger.configure(
        {
            "nimages": 2,
            "frame_time": 0.005,
            "count_time": 0.004,
            "beam_center_x": 512.5,
            "beam_center_y": 250.25,
            "detector_distance": 0.12,
        }
    )
    eiger.configure({"filewriter.nimages_per_file": 1})
    (uid,) = engine(bp.scan([eiger], motor, 0, 1, 3))
    images = [[dcu.image(series, number) for number in (1, 2)] for series in (1, 2, 3)]
    eiger.destroy()
np.save(folder / "oracle.npy", np.array(images))
sys.stdout.write(json.dumps({"uid": uid}))
