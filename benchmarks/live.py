"""What live numbers cost: milliseconds a point of a scan with them, beside the same scan without.

    python benchmarks/live.py [--write]

A simulated DCU in a process of its own, without waits (time-scale 0): each point is a series of one
16-bit image that is armed, exposed, disarmed and fetched, so that nothing hides what the numbers
add. A point's time is that between its event and the next. The ways are interleaved; medians of the
points of all runs. "GET" is the time to ask the idle simulator for one image of its monitor, "its
own" how much of that passes before the first byte: the simulator making the image. "arithmetic" is
what numpy takes for the numbers of all pixels.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import bluesky.plans as bp
import requests
import results
from bluesky import RunEngine

from ophyd_eiger import EigerDetector
from ophyd_eiger.regions import Regions
from ophyd_eiger.tiff import decode
from ophyd_eiger.trial import simulator

MODELS = ("eiger-1m", "eiger-4m", "eiger2-1m", "eiger2-4m")
PEAK = {"peak": (500, 500, 100, 100)}
RUNS = 5
POINTS = 12
ASKED = 15


def off(eiger: EigerDetector) -> None:
    eiger.live.enabled = False


def on(eiger: EigerDetector) -> None:
    eiger.live.enabled, eiger.live.rois = True, {"full": None}


def region(eiger: EigerDetector) -> None:
    eiger.live.enabled, eiger.live.rois = True, PEAK


WAYS: dict[str, Callable[[EigerDetector], None]] = {"off": off, "on": on, "region": region}


def points(engine: RunEngine, eiger: EigerDetector, events: list[dict[str, Any]]) -> list[float]:
    """Take a scan; return the seconds from each event to the next."""
    events.clear()
    engine(bp.count([eiger], POINTS))
    if eiger.live.enabled:
        (key,) = eiger.hints["fields"] or ["eiger_live_image_number"]
        assert all(event["data"].get(key, 1) > 0 for event in events)
    times = [event["time"] for event in events]
    return [after - before for before, after in itertools.pairwise(times)]


def median_ms(work: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(ASKED):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return 1e3 * statistics.median(seconds)


def one_model(model: str, folder: str) -> str:
    flags = ("--model", model, "--initialized", "--time-scale", "0")
    with simulator(*flags, "--data-dir", f"{folder}/{model}") as url:
        eiger = EigerDetector(url, name="eiger", directory=f"{folder}/home")
        try:
            return measured(model, eiger)
        finally:
            eiger.destroy()


def measured(model: str, eiger: EigerDetector) -> str:
    eiger.connect()
    eiger.detector.frame_time.set(0.005).wait()
    eiger.detector.count_time.set(0.004).wait()
    engine, events = RunEngine({}), []
    engine.subscribe(lambda _, document: events.append(document), "event")
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for run in range(RUNS + 1):
        for name, set_up in WAYS.items():
            set_up(eiger)
            found = points(engine, eiger, events)
            if run:  # the first one warms up
                seconds[name] += found
    ms = {name: 1e3 * statistics.median(found) for name, found in seconds.items()}
    eiger.monitor.mode.set("enabled").wait()
    on(eiger)
    engine(bp.count([eiger], 1))
    ((series_id, numbers),) = list(eiger.live.buffer.listing().items())[-1:]
    buffer = eiger.live.buffer
    get = median_ms(lambda: buffer.fetch(series_id, numbers[-1], keep=False))
    image = buffer.fetch(series_id, numbers[-1], keep=False)
    assert image is not None
    with requests.Session() as session:
        address = eiger.link.client.resource_url("monitor", f"images/{series_id}/{numbers[-1]}")
        own = median_ms(lambda: session.get(address, stream=True, timeout=20).close())
    body = eiger.link.client.get_bytes("detector", "config/pixel_mask", accept="application/tiff")
    sums = Regions({"full": None}, decode(body).pixels)
    arithmetic = median_ms(lambda: sums.numbers(image.pixels, 65535))
    megabytes = image.pixels.nbytes / 1e6
    return (
        f"| {model} | {megabytes:.1f} | {ms['off']:.1f} | {ms['on']:.1f} | {ms['region']:.1f} |"
        f" {ms['on'] - ms['off']:.1f} | {get:.1f} | {own:.1f} | {arithmetic:.1f} |"
    )


def measure() -> str:
    with tempfile.TemporaryDirectory() as folder:
        lines = [
            f"Medians of {RUNS} interleaved runs of {POINTS} points; milliseconds.\n",
            "| model | image, MB | off | all pixels | a region of 100 x 100 | all pixels - off |"
            " GET | its own | arithmetic |",
            "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
            *(one_model(model, folder) for model in MODELS),
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    results.add_flag(parser)
    chosen = parser.parse_args()
    results.show(measure(), "live", write=chosen.write)


if __name__ == "__main__":
    main()
