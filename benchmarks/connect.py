"""Time to connect a device: every resource of a DCU read, the big arrays left out.

    python benchmarks/connect.py [--write]

A new device each time, on a simulated DCU of the largest size in a process of its own that does not
wait. The aim is below 1 s for an EIGER2 16M.
"""

import argparse
import statistics
import time

import results

from ophyd_eiger import EigerDetector
from ophyd_eiger.trial import simulator

MODELS = ("eiger-16m", "eiger2-16m")
RUNS = 15


def measured(model: str) -> tuple[int, list[float], list[float]]:
    """Return the number of values, and the seconds of each connect and of each refresh."""
    with simulator("--model", model, "--initialized", "--time-scale", "0") as url:
        connects, refreshes, values = [], [], 0
        for _ in range(RUNS):
            began = time.perf_counter()
            device = EigerDetector(url, name="eiger")
            device.connect()
            connected = time.perf_counter()
            device.refresh()
            refreshes.append(time.perf_counter() - connected)
            connects.append(connected - began)
            values = sum(s.has_value for part in device.subsystems for s in part.signals)
            device.destroy()
        return values, connects, refreshes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    results.add_flag(parser)
    write = parser.parse_args().write
    rows = [
        f"Medians of {RUNS} and the longest; seconds.",
        "",
        "| model | values | connect | longest | refresh |",
        "|---|--:|--:|--:|--:|",
    ]
    for model in MODELS:
        values, connects, refreshes = measured(model)
        rows.append(
            f"| {model} | {values} | {statistics.median(connects):.2f} | {max(connects):.2f} "
            f"| {statistics.median(refreshes):.2f} |"
        )
    table = "\n".join(rows) + "\n"
    results.show(table, "connect", write=write)


if __name__ == "__main__":
    main()
