"""What the plans of a detector's calibration share: settings kept, a series taken, a shutter."""

import datetime as dt
import logging
import math
import os
import tempfile
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
from bluesky.protocols import Movable

from eiger_plans.steps import (
    ENDED,
    FAILURES,
    Plan,
    PlanError,
    aside,
    ask,
    in_thread,
    one_trigger_a_point,
    put_back,
    set_times,
)
from ophyd_eiger import EigerDetector, EigerError, Series, new_file, open_series

logger = logging.getLogger(__name__)

MASTER_ENDING = "_master.h5"
# What a series of one point changes.
TIMES = ("trigger_mode", "nimages", "ntrigger", "frame_time", "count_time")
# After which settings what else is put back that an energy changes: an element that was given
# instead of it, and an EIGER2's second threshold.
ENERGY_CHANGES = {"photon_energy": "element", "threshold_energy": "threshold_2_energy"}
CORRECTIONS = (
    *("countrate_correction_applied", "flatfield_correction_applied"),
    "pixel_mask_applied",
)


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
        if isinstance(value, bool) or not math.isfinite(value) or value != int(value) or value < 1:
            raise ValueError(f"{name} is {value!r}; it is a whole number, at least 1")


def kept(eiger: EigerDetector, names: Sequence[str], plan: Plan) -> Plan:
    """Do a plan, and put the detector's settings of these names back, whatever becomes of it.

    A correction that is off before it, as a plan that was ended may have left it, is told.
    """
    for name in CORRECTIONS:
        applied = getattr(eiger.detector, name)
        try:
            is_on = yield from ask(applied)
        except EigerError:
            continue
        if is_on is False:
            logger.warning("%s is off, and stays off: is it meant to be?", applied.name)
    signals = []
    for name in names:
        signals.append(getattr(eiger.detector, name))
        # What an energy that is put changes beside, in the order in which it can be put back.
        beside = ENERGY_CHANGES.get(name) if "photon_energy" in names else None
        if beside is not None and (yield from _has(getattr(eiger.detector, beside))):
            signals.append(getattr(eiger.detector, beside))
    return (yield from one_trigger_a_point(eiger, put_back(plan, *signals)))


def _has(signal: Any) -> Generator[Any, Any, bool]:
    """Return whether a DCU serves it, and has a value there that could be put: no empty text."""
    try:
        value = yield from ask(signal)
    except EigerError:
        return False
    return value not in (None, "")


def set_up(eiger: EigerDetector, exposure: float, images: int) -> Plan:
    """Set one trigger a series, of so many images of `exposure` s, as fast as they can be."""
    detector = eiger.detector
    yield from bps.mv(detector.trigger_mode, "ints")
    yield from bps.mv(detector.nimages, images)
    yield from bps.mv(detector.ntrigger, 1)
    yield from set_times(eiger, exposure, None)


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
    if not uid:
        return None
    masters = yield from masters_at_home(eiger, 1)
    return Taken(uid, masters[-1], float(eiger.detector.count_time.last))


def masters_at_home(eiger: EigerDetector, series: int) -> Generator[Any, Any, list[Path]]:
    """Wait for the files of the scan that is over; return the master files of its points, in order.

    A device that waits for no file (`FilePolicy(wait=False)`) is waited for here. A series that a
    pause has ended, and whose point was taken again, is none of a point's.

    Parameters
    ----------
    eiger : EigerDetector
        The detector.
    series : int
        How many points there were, a series each.

    Raises
    ------
    TransferError
        If files of this scan are missing.
    PlanError
        If there are not so many series without anything missing.
    """
    problem = None
    try:
        yield from in_thread(eiger.wait_for_files, is_left=True)
    except EigerError as error:
        problem = error
    fetched = {file.path.name: file.path for file in eiger.fetched}
    owed = eiger.owed
    named = [f"{each}{MASTER_ENDING}" for each in eiger.series_named if each not in owed]
    home = [fetched[name] for name in named if name in fetched]
    if len(home) != series:
        if problem is not None:
            raise problem
        raise PlanError(f"{eiger.name}: {len(home)} of {series} series came home; measure again")
    if problem is not None:
        # Of a scan before, or of a series that no point needs.
        logger.warning("%s", problem)
    return home


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

    return (yield from aside(reading))


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


def can_be_written(folder: Path) -> Plan:
    """Let a folder be there and take files, before anything is measured for it.

    Raises
    ------
    PlanError
    """

    def write() -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, prefix="."):
                pass
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise PlanError(
                f"{folder}: no files can be written there ({reason}); give another folder="
            ) from error

    yield from aside(write)


def dated_file(folder: Path, stem: str, ending: str, write: Callable[[IO[bytes]], Any]) -> Path:
    """Write a new file that is named by the time, and return it.

    Parameters
    ----------
    folder : Path
        Where it goes; made if it is not there.
    stem, ending : str
        What its name begins and ends with.
    write : callable
        Writes what is in it. Called again where somebody else takes the name meanwhile.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stamp = dt.datetime.now().astimezone().strftime("%Y-%m-%dT%H-%M-%S")
    number = 1
    while True:
        more = "" if number == 1 else f"_{number}"
        path = folder / f"{stem}_{stamp}{more}{ending}"
        try:
            with new_file(path) as file:
                write(file)
        except FileExistsError:
            number += 1
        else:
            return path


def kept_in_file(signal: Any, folder: Path) -> tuple[Path, np.ndarray]:
    """Ask for a flat field or mask and keep it in a new file; return the file and the array."""
    found = signal.get()

    def write(file: IO[bytes]) -> None:
        np.save(file, found, allow_pickle=False)

    return dated_file(folder, signal.name, ".npy", write), found


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
    PlanError
        If it cannot be put, or the detector has another array than was put; the old one is put
        then, and the message says what the detector has.
    """
    signal: Any = getattr(eiger.detector, key)

    now_kept = yield from aside(kept_in_file, signal, folder)
    if now_kept is None:
        yield from bps.mv(signal, new)
        return folder
    path, old = now_kept
    try:
        # It reads back what it put, and fails if that is something else.
        yield from bps.mv(signal, new)
    except ENDED:
        logger.warning("%s: the plan was ended while it was put; the old is %s", signal.name, path)
        raise
    except FAILURES as error:
        has = yield from _old_again(signal, old, new)
        raise PlanError(
            f"{signal.name}: the new one could not be put: {error}. The detector has {has}. The "
            f"old one is in {path}, which its set(numpy.load(...)) puts"
        ) from error
    return path


def _old_again(signal: Any, old: np.ndarray, new: np.ndarray) -> Generator[Any, Any, str]:
    """Put an array of before, once; return in words which one the detector has then."""
    try:
        yield from bps.mv(signal, old)
    except FAILURES as error:
        logger.warning("%s: the old one could not be put back: %s", signal.name, error)
    try:
        has = yield from aside(signal.get)
    except FAILURES as error:
        return f"one that cannot be asked for ({error})"
    if np.array_equal(has, old):
        return "the old one"
    return "the new one" if np.array_equal(has, new) else "neither the old one nor the new one"


def moved(shutter: Movable | None, value: str | float) -> Plan:
    """Move a shutter, where there is one."""
    if shutter is not None:
        yield from bps.mv(shutter, value)
