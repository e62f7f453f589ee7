"""What the plans of a detector's calibration share: settings kept, a series taken, a shutter."""

import datetime as dt
import itertools
import math
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np

from eiger_plans.asking import called
from ophyd_eiger import EigerDetector, Series, open_series

Plan = Generator[Any, Any, Any]

# What a series of one point changes.
TIMES = ("trigger_mode", "nimages", "ntrigger", "frame_time", "count_time")


def above_0(**named: float) -> None:
    """Let numbers be finite and above 0.

    Raises
    ------
    ValueError
        With the name of one that is not.
    """
    for name, value in named.items():
        if isinstance(value, bool) or not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value!r}; it is above 0")


def whole(**named: int) -> None:
    """Let numbers be whole and at least 1; `ValueError` with the name of one that is not."""
    for name, value in named.items():
        if isinstance(value, bool) or value != int(value) or value < 1:
            raise ValueError(f"{name} is {value!r}; it is a whole number, at least 1")


def kept(eiger: EigerDetector, names: Iterable[str], plan: Callable[[], Plan]) -> Plan:
    """Do a plan, and put settings back as they were before, whatever becomes of it.

    Parameters
    ----------
    eiger : EigerDetector
        The detector.
    names : iterable of str
        As `eiger.configure` has them; those that this detector lacks are left out.
    plan : callable
        Returns what is done.
    """
    before = yield from called(_values, eiger, tuple(names))

    def put_back() -> Plan:
        if not before:
            return
        configuration: Any = eiger.configuration
        yield from bps.mv(configuration, before)
        # `configure` leaves times that differ by less than a millionth, which two frames that
        # touch do: each is put, the frame time first, which shortens the count time if it must.
        for name in ("frame_time", "count_time"):
            if name in before:
                yield from bps.mv(getattr(eiger.detector, name), before[name])

    return (yield from bpp.finalize_wrapper(plan(), put_back))


def _values(eiger: EigerDetector, names: tuple[str, ...]) -> dict[str, Any]:
    signals = {name: getattr(eiger.detector, name) for name in names}
    found = {}
    for name, signal in signals.items():
        with suppress(LookupError):  # it is not served by this detector
            found[name] = signal.get()
    return found


def set_up(eiger: EigerDetector, exposure: float, images: int) -> Plan:
    """Set one trigger a series, of so many images of `exposure` s, as fast as they can be."""
    configuration: Any = eiger.configuration
    yield from bps.mv(configuration, {"trigger_mode": "ints", "nimages": images, "ntrigger": 1})
    detector: Any = eiger.detector
    shortest = max(exposure, detector.frame_time.limits[0] or 0.0)
    # In this order the detector itself finds the shortest frame time for the exposure.
    yield from bps.mv(detector.frame_time, shortest)
    yield from bps.mv(detector.count_time, exposure)


@dataclass(frozen=True)
class Taken:
    """A series of a run that is home.

    Attributes
    ----------
    uid : str
        The run.
    master : Path
        Its master file.
    exposure : float
        Of each image in s, as the detector has it.
    """

    uid: str
    master: Path
    exposure: float


def one_series(eiger: EigerDetector, md: dict[str, Any]) -> Generator[Any, Any, Taken | None]:
    """Take one series in a run; return it, or None where messages are listed."""
    uid = yield from bp.count([eiger], num=1, md=md)
    masters = [file.path for file in eiger.fetched if file.path.name.endswith("_master.h5")]
    if not uid or not masters:
        return None
    return Taken(uid, masters[-1], float(eiger.detector.count_time.last))


def stepped(
    eiger: EigerDetector,
    points: list[float],
    move: Callable[[float], Plan],
    md: dict[str, Any],
    also: tuple[Any, ...] = (),
) -> Generator[Any, Any, str]:
    """Take a series at each point, in one run; return its uid.

    Parameters
    ----------
    eiger : EigerDetector
        The detector.
    points : list of float
        What is moved to.
    move : callable
        Returns the plan that does so. The first is done before the detector is armed, because a
        setting that changes then costs an empty series.
    md : dict
        Metadata of the run.
    also : tuple of Readable
        What is read beside the detector.
    """
    yield from move(points[0])

    @bpp.stage_decorator([eiger])
    @bpp.run_decorator(md={"detectors": [eiger.name], "num_points": len(points), **md})
    def run() -> Plan:
        for number, point in enumerate(points):
            yield from bps.checkpoint()
            if number:
                yield from move(point)
            yield from bps.trigger_and_read([eiger, *also])

    return (yield from run())


def read_series(master: Path, read: Callable[[Series], Any]) -> Plan:
    """Read a series in a thread, and return what `read` makes of it."""

    def reading() -> Any:
        with open_series(master) as series:
            return read(series)

    return (yield from called(reading))


def folder_of(eiger: EigerDetector, given: str | None) -> Path:
    """Return where arrays are kept: a folder that was given, or the detector's directory now.

    Raises
    ------
    ValueError
        If the detector's directory is a function, which is not asked outside scans, or if there is
        a file in its place.
    """
    directory: Any = eiger.directory if given is None else given
    if not isinstance(directory, str | os.PathLike):
        raise ValueError(f"{eiger.name}: its directory is a function: give folder=")  # noqa: TRY004
    path = Path(dt.datetime.now().astimezone().strftime(os.fspath(directory))).expanduser()
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file, not a folder")
    return path


@contextmanager
def new_file(folder: Path, stem: str, ending: str) -> Iterator[IO[bytes]]:
    """Open a file that was not there, named by the time; one that is not written whole is removed.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stamp = dt.datetime.now().astimezone().strftime("%Y-%m-%dT%H-%M-%S")
    for number in itertools.count(1):
        more = "" if number == 1 else f"_{number}"
        path = folder / f"{stem}_{stamp}{more}{ending}"
        try:
            file = path.open("xb")
        except FileExistsError:
            continue
        with file:
            try:
                yield file
            except BaseException:
                path.unlink()
                raise
        return


def put_array(
    eiger: EigerDetector, key: str, new: np.ndarray, folder: Path
) -> Generator[Any, Any, Path]:
    """Keep a flat field or mask in a file, put a new one, and read that back.

    Parameters
    ----------
    eiger : EigerDetector
        The detector.
    key : {"flatfield", "pixel_mask"}
        Which.
    new : numpy.ndarray, shape (y, x)
        What is put.
    folder : Path
        Where the old one goes, as .npy.

    Returns
    -------
    Path
        The file with the old one.

    Raises
    ------
    FailedStatus
        From an error that says so, if the detector has another array than was put.
    """
    signal: Any = getattr(eiger.detector, key)

    def keep() -> Path:
        with new_file(folder, f"{eiger.name}_{key}", ".npy") as file:
            np.save(file, signal.get(), allow_pickle=False)
            return Path(file.name)

    path = yield from called(keep)
    # It reads back what it put, and fails if that is something else.
    yield from bps.mv(signal, new)
    return path


def moved(shutter: Any, value: Any) -> Plan:
    """Move a shutter, where there is one."""
    if shutter is not None:
        yield from bps.mv(shutter, value)
