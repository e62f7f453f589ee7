"""Is a detector well enough to be judged at all: states, sensors, links, disk, clock, corrections.

Asks; sends no command but the `status_update` without which an EIGER measures nothing.
"""

import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from eiger_plans.acceptance.asking import Asking, clock_differences
from eiger_plans.acceptance.findings import Check, Section, Verdict
from ophyd_eiger import EigerDetector, EigerError

HEALTH = Section("health")
# States of subsystems in which nothing is wrong; the detector's own is asked for by itself.
WELL = {
    "filewriter": ("ready", "disabled"),
    "monitor": ("normal", "overflow"),
    "stream": ("ready", "disabled"),
}
# In s: a DCU states whole seconds; a minute apart, times in files mislead.
CLOCK_S = 60.0
# In bytes: what the series taken here need at most, of a 16M, with room to spare.
ROOM = 4e9
# Where one of these fails, or nobody knows, the detector is not armed.
NEEDED = (
    *(
        "detector/status/state",
        "detector/status/high_voltage/state",
        "filewriter/status/buffer_free",
    ),
    *("detector/status/temperature", "detector/status/humidity"),
    *("detector/status/board_000/th0_temp", "detector/status/board_000/th0_humidity"),
)
LINKS = tuple(f"detector/status/link_{number}" for number in range(4))


def health(
    eiger: EigerDetector,
    asking: Asking,
    temperature: tuple[float, float],
    humidity: tuple[float, float],
) -> Iterator[Check]:
    """Yield the checks.

    Parameters
    ----------
    eiger : EigerDetector
        For its arrays and its units.
    asking : Asking
        Asks the DCU.
    temperature, humidity : (float, float)
        Limits in degree Celsius and percent, where the DCU states none of its own.
    """
    yield from _states(asking)
    if asking.generation == "eiger":
        yield from _measures(asking)
    for name, twin, limits, unit in (
        ("temperature", "board_000/th0_temp", temperature, "degree Celsius"),
        ("humidity", "board_000/th0_humidity", humidity, "percent"),
    ):
        yield _sensor(asking, name, twin, limits, unit)
    yield from _links(asking)
    yield _room(eiger, asking)
    yield _clock(asking)
    yield from _arrays(eiger, asking)


def _states(asking: Asking) -> Iterator[Check]:
    expected = "idle: initialized and not armed"
    state = asking.state()
    old = state == "ready" and asking.client.api_version < "1.6"
    yield HEALTH.check("detector/status/state", expected, state, good=state == "idle" or old)
    for subsystem in ("detector", *WELL):
        try:
            faults = asking.value(f"{subsystem}/status/error")
        except EigerError as error:
            yield from _unless_missing(f"{subsystem}/status/error", "no faults", error)
            continue
        said = ", ".join(map(str, faults)) if isinstance(faults, list) else str(faults or "")
        yield HEALTH.check(f"{subsystem}/status/error", "no faults", said or "none", good=not said)
    for subsystem, well in WELL.items():
        name, expected = f"{subsystem}/status/state", " or ".join(well)
        try:
            state = asking.value(name)
        except EigerError as error:
            yield from _unless_missing(name, expected, error)
            continue
        yield HEALTH.check(name, expected, state, good=state in well)
    voltage = asking.values.get("detector/status/high_voltage/state")
    if voltage:
        good = voltage in ("READY", "NA")
        yield HEALTH.check("detector/status/high_voltage/state", "READY", voltage, good=good)


def _unless_missing(name: str, expected: str, error: EigerError) -> Iterator[Check]:
    """Yield a failure, unless it is that this DCU has no such subsystem."""
    if getattr(error, "status", None) != 404:
        yield HEALTH.failed(name, expected, error)


def _measures(asking: Asking) -> Iterator[Check]:
    name, expected = "detector/command/status_update", "200"
    try:
        timeout = asking.client.timeouts.put
        asking.timed(lambda: asking.client.command("detector", "status_update", timeout=timeout))
    except EigerError as error:
        yield from _unless_missing(name, expected, error)
    else:
        yield HEALTH.check(name, expected, "200", good=True)


def _sensor(asking: Asking, name: str, twin: str, limits: tuple[float, float], unit: str) -> Check:
    resource = f"detector/status/{name if asking.generation == 'eiger2' else twin}"
    expected = f"{limits[0]:g} to {limits[1]:g} {unit}"
    try:
        reply = asking.get(resource)
    except EigerError as error:
        return HEALTH.failed(resource, expected, error)
    value = reply.get("value")
    own = reply.get("critical_limits") or []
    whose = "given"
    if len(own) == 2 and all(isinstance(limit, int | float) for limit in own):
        limits, whose = (own[0], own[1]), "the DCU's own"
    expected = f"{limits[0]:g} to {limits[1]:g} {unit} ({whose})"
    if not isinstance(value, int | float):
        return HEALTH.failed(resource, expected, f"{value!r}")
    good = limits[0] <= value <= limits[1] and reply.get("state") != "critical"
    return HEALTH.check(resource, expected, f"{value:.1f} {unit}", good=good)


def _links(asking: Asking) -> Iterator[Check]:
    for resource in LINKS:
        if resource in asking.values:
            yield HEALTH.same(resource, "up", asking.values[resource])


def _room(eiger: EigerDetector, asking: Asking) -> Check:
    name, expected = "filewriter/status/buffer_free", f"at least {ROOM / 1e9:g} GB for files"
    try:
        free = eiger.care.in_bytes(asking.value(name))
    except EigerError as error:
        return HEALTH.failed(name, expected, error)
    if free is None:
        return HEALTH.failed(name, expected, f"{asking.values[name]!r}, which is no room")
    return HEALTH.check(name, expected, f"{free / 1e9:.1f} GB", good=free >= ROOM)


def _clock(asking: Asking) -> Check:
    name, expected = "detector/status/time", f"this computer's clock within {CLOCK_S:g} s"
    began = time.time()
    try:
        stated = asking.value(name)
    except EigerError as error:
        return HEALTH.failed(name, expected, error)
    differences = clock_differences(stated, (began + time.time()) / 2)
    if not differences:
        return HEALTH.failed(name, expected, f"{stated!r}, which is no time")
    read, difference = min(differences.items(), key=lambda one: abs(one[1]))
    which = "behind" if difference > 0 else "ahead of"
    found = f"{stated}, read {read}: {abs(difference):.1f} s {which} this computer's"
    return HEALTH.check(name, expected, found, good=abs(difference) <= CLOCK_S)


def _arrays(eiger: EigerDetector, asking: Asking) -> Iterator[Check]:
    width, height = (
        asking.values.get(f"detector/config/{axis}_pixels_in_detector") for axis in "xy"
    )
    shape = f"({height}, {width})"
    arrays: dict[str, np.ndarray] = {}
    for key, dtype in (("pixel_mask", "uint32"), ("flatfield", "float32")):
        name, expected = f"detector/config/{key}", f"{dtype} of shape {shape}"
        signal: Any = getattr(eiger.detector, key)
        try:
            array = signal.get()
        except EigerError as error:
            yield HEALTH.failed(name, expected, error)
            continue
        arrays[key] = array
        found = f"{array.dtype} of shape {array.shape}"
        yield HEALTH.check(name, expected, found, good=found == expected)
    if "pixel_mask" in arrays:
        masked = int(np.count_nonzero(arrays["pixel_mask"]))
        stated = asking.values.get("detector/config/number_of_excluded_pixels")
        yield HEALTH.same(
            "number_of_excluded_pixels",
            f"{masked} pixels of the mask",
            f"{stated} pixels of the mask",
        )
    if "flatfield" in arrays:
        lowest, highest = float(arrays["flatfield"].min()), float(arrays["flatfield"].max())
        good = bool(np.isfinite(lowest) and np.isfinite(highest) and lowest > 0)
        found = f"{lowest:.3g} to {highest:.3g}"
        yield HEALTH.check(
            "factors of the flat field", "finite and above 0", found, good=bool(good)
        )


def not_to_be_armed(checks: Iterable[Check]) -> list[str]:
    """Return the names of those checks that failed and without which a detector is left alone.

    Parameters
    ----------
    checks : iterable of Check
        Those of the section health; one of that name itself says that it came to no end.
    """
    failed = [check.name for check in checks if check.verdict == Verdict.FAIL]
    return [name for name in failed if name in (*NEEDED, HEALTH.name)]
