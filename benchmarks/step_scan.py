"""What a point of an armed-once step scan costs beyond the RunEngine's own time.

    python benchmarks/step_scan.py [--write]

`bp.count` with the device, armed once for all points, one image a point, live numbers and monitor
off, on a simulated DCU in a process of its own that does not wait (time-scale 0); and the same plan
with `ophyd.sim.det`, which does nothing, in the same process and in turns. A point's time is that
between its event and the next. Requests are those of the device's ledger, without the files that
come home beside them.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from typing import Any

import bluesky.plans as bp
import results
from bluesky import RunEngine
from ophyd.sim import det

from ophyd_eiger import EigerDetector
from ophyd_eiger.trial import simulator

MODELS = ("eiger-500k", "eiger2-500k", "eiger-4m")
RUNS = 7
POINTS = 100


def points(engine: RunEngine, detector: Any) -> list[float]:
    """Take a scan; return the seconds from each event to the next."""
    times: list[float] = []
    token = engine.subscribe(lambda name, doc: times.append(time.perf_counter()), "event")
    engine(bp.count([detector], POINTS))
    engine.unsubscribe(token)
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def measured(engine: RunEngine, model: str) -> tuple[float, float, float, float]:
    """Return medians in s of a point with the device, without, its trigger; and requests a point.

    That of its trigger is from the request to the reply, which is the DCU's and the network's time.
    """
    with (
        simulator("--model", model, "--initialized", "--time-scale", "0") as url,
        tempfile.TemporaryDirectory() as folder,
    ):
        eiger = EigerDetector(url, name="eiger", directory=folder)
        eiger.connect()
        eiger.configure({"frame_time": 0.005, "count_time": 0.004, "ntrigger": POINTS})
        ours: list[float] = []
        floor: list[float] = []
        triggers: list[float] = []
        requests = 0
        for _ in range(RUNS):
            ours += points(engine, eiger)
            triggers += [
                request.seconds
                for request in eiger.ledger.requests
                if request.resource.endswith("command/trigger")
            ]
            # The last point also disarms.
            requests = sum(
                request.doing.startswith("point ") and request.doing != f"point {POINTS}"
                for request in eiger.ledger.requests
            )
            floor += points(engine, det)
        eiger.destroy()
    medians = (statistics.median(each) for each in (ours, floor, triggers))
    return *medians, requests / (POINTS - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    results.add_flag(parser)
    write = parser.parse_args().write
    engine = RunEngine({})
    rows = [
        f"Medians of {RUNS} interleaved scans of {POINTS} points; milliseconds a point.",
        "",
        "| model | the device | ophyd.sim.det | beyond it | of that the trigger's request |"
        " requests a point |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for model in MODELS:
        *seconds, requests = measured(engine, model)
        ours, floor, trigger = (1e3 * each for each in seconds)
        rows.append(
            f"| {model} | {ours:.2f} | {floor:.2f} | {ours - floor:.2f} | {trigger:.2f} "
            f"| {requests:g} |"
        )
    table = "\n".join(rows) + "\n"
    results.show(table, "step_scan", write=write)


if __name__ == "__main__":
    main()
