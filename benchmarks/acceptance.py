"""Time of an acceptance test of each model: what it takes beside the detector's own times.

    python benchmarks/acceptance.py [--write]

On a simulated DCU in a process of its own that does not wait. The aim is below 30 s.
"""

import argparse
import contextlib
import io
import tempfile
import time

import results
from bluesky import RunEngine
from eiger_plans import acceptance_test

from ophyd_eiger import EigerDetector
from ophyd_eiger.trial import simulator

SIZES = ("500k", "1m", "4m", "9m", "16m")
MODELS = [f"{generation}-{size}" for generation in ("eiger", "eiger2") for size in SIZES]


def measured(model: str) -> tuple[float, float, dict[str, int]]:
    """Return the seconds, those of this process' own CPU, and how many checks there were."""
    with (
        simulator("--model", model, "--initialized", "--time-scale", "0") as url,
        tempfile.TemporaryDirectory() as folder,
    ):
        eiger = EigerDetector(url, name="eiger", directory=folder)
        engine = RunEngine({}, call_returns_result=True)
        began, busy = time.perf_counter(), time.process_time()
        with contextlib.redirect_stdout(io.StringIO()):
            report = engine(acceptance_test(eiger, time_scale=0)).plan_result
        seconds, own = time.perf_counter() - began, time.process_time() - busy
        eiger.destroy()
    assert report.passed, report.failures
    return seconds, own, report.counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    results.add_flag(parser)
    write = parser.parse_args().write
    rows = [
        "One test each; seconds.",
        "",
        "| model | checks | time | of it the test's own CPU |",
        "|---|--:|--:|--:|",
    ]
    for model in MODELS:
        seconds, own, counts = measured(model)
        rows.append(f"| {model} | {sum(counts.values())} | {seconds:.0f} | {own:.0f} |")
    results.show("\n".join(rows) + "\n", "acceptance", write=write)


if __name__ == "__main__":
    main()
