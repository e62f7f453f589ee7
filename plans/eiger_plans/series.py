"""One call that sets the detector up, takes images and says where they are."""

import asyncio
import functools
from collections.abc import Generator
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp

from ophyd_eiger import EigerDetector

# What an energy may differ by and count as the same: setting it anew takes seconds, because the
# detector calculates its flat field again, and puts the threshold back to half the energy.
SAME_ENERGY_EV = 0.05


def series(
    eiger: EigerDetector,
    exposure: float,
    images: int = 1,
    *,
    energy: float | None = None,
    period: float | None = None,
    md: dict[str, Any] | None = None,
) -> Generator[Any, Any, str]:
    """Take one series of images and say where they are.

    Parameters
    ----------
    eiger : EigerDetector
        The detector; initialized.
    exposure : float
        Exposure time of an image in s.
    images : int
        Number of images, taken one after the other.
    energy : float, optional
        Photon energy in eV; left as it is if not given or if it is so already.
    period : float, optional
        Time from the start of one image to the start of the next in s; the shortest possible if
        not given.
    md : dict, optional
        Metadata of the run.

    Yields
    ------
    msg : Msg
        Messages for the RunEngine.

    Returns
    -------
    str
        The uid of the run.

    Raises
    ------
    ValueError
        If the detector cannot take images as fast as `period` asks, or does not allow a value.
        No run is opened then.
    """
    detector = eiger.detector
    if energy is not None:
        now = yield from _ask(detector.photon_energy)
        if now is None or abs(now - energy) > SAME_ENERGY_EV:
            yield from bps.mv(detector.photon_energy, energy)
    yield from bps.mv(detector.trigger_mode, "ints")
    # In this order the detector itself finds the shortest frame time: a frame time that is too
    # short shortens the count time, and the count time that is then put lengthens the frame time.
    yield from _ask(detector.frame_time)
    shortest = max(exposure, detector.frame_time.limits[0] or 0.0)
    yield from bps.mv(detector.frame_time, shortest if period is None else period)
    yield from bps.mv(detector.count_time, exposure)
    frame_time = yield from bps.rd(detector.frame_time)
    if period is not None and frame_time > period * (1 + 1e-6):
        raise ValueError(
            f"{eiger.name}: images of {exposure:g} s cannot follow each other every {period:g} s; "
            f"the detector needs {frame_time:g} s"
        )
    yield from bps.mv(detector.nimages, images)
    yield from bps.mv(detector.ntrigger, 1)
    _md = {
        "plan_name": "series",
        "plan_args": {
            "eiger": repr(eiger.name),
            "exposure": exposure,
            "images": images,
            "energy": energy,
            "period": period,
        },
        **(md or {}),
    }
    uid = yield from bp.count([eiger], num=1, md=_md)
    _say_where(eiger, uid)
    return uid


def _ask(signal: Any) -> Generator[Any, Any, Any]:
    """Ask the DCU anew, which others may have changed, without holding up the RunEngine."""
    asked = yield from bps.wait_for([functools.partial(asyncio.to_thread, signal.get)])
    if asked is None:  # the messages are listed, and no RunEngine carries them out
        return signal.last
    return asked[0].result()


def _say_where(eiger: EigerDetector, uid: str) -> None:
    print(f"run {uid}")
    for file in eiger.fetched:
        print(f"  {file.path}  {file.bytes / 1e6:.1f} MB")
