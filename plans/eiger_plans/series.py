"""One call that sets the detector up, takes images and says where they are."""

from collections.abc import Generator
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp

from eiger_plans.arguments import checked, recorded
from eiger_plans.steps import (
    check_period,
    check_settings,
    one_trigger_a_point,
    set_energy,
    set_times,
)
from ophyd_eiger import EigerDetector


@checked
def series(
    eiger: EigerDetector,
    exposure: float,
    images: int = 1,
    *,
    energy: float | None = None,
    period: float | None = None,
    comment: str | None = None,
    md: dict[str, Any] | None = None,
) -> Generator[Any, Any, str]:
    """Take one series of images and say where they are.

    What it sets stays set.

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
    comment : str, optional
        In words what this is; it is in the run's metadata. The DCU has no place for it in the
        files: its `header_appendix` goes into the stream alone, and belongs to whoever reads that.
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
        If a number is not finite, before the first message; if the detector does not allow a value,
        before any is put, or cannot take images as fast as `period` asks. No run is opened then.

    Examples
    --------
    >>> RE(series(eiger, 0.1, 20, comment="empty beam"))
    """
    detector = eiger.detector
    check_period(exposure, period)
    yield from check_settings(
        eiger, photon_energy=energy, count_time=exposure, frame_time=period, nimages=images
    )
    yield from set_energy(eiger, energy)
    yield from bps.mv(detector.trigger_mode, "ints")
    yield from set_times(eiger, exposure, period)
    yield from bps.mv(detector.nimages, images)
    yield from bps.mv(detector.ntrigger, 1)
    _md = {
        "plan_name": "series",
        "plan_args": recorded(
            eiger=eiger,
            exposure=exposure,
            images=images,
            energy=energy,
            period=period,
            comment=comment,
        ),
        **({} if comment is None else {"comment": comment}),
        **(md or {}),
    }
    uid = yield from one_trigger_a_point(eiger, bp.count([eiger], num=1, md=_md))
    say_where(eiger, uid)
    return uid


def say_where(eiger: EigerDetector, uid: str | None) -> None:
    """Print a run's uid and its files; nothing where the messages were but listed."""
    if uid is None:
        return
    print(f"run {uid}")
    for file in eiger.fetched:
        size, unit = (file.bytes / 1e6, "MB") if file.bytes >= 1e6 else (file.bytes / 1e3, "kB")
        print(f"  {file.path}  {size:.1f} {unit}")
    if not eiger.file_policy.wait:
        print(f"  and what is on its way still, for which {eiger.name}.wait_for_files() waits")
