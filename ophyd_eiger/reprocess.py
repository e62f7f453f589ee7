"""Runs worked on again: mask, flat field, sums, regions, radial profiles, in one call.

Each image is read once and goes through the reductions that were asked for; no run is ever whole
in memory. The pieces are in `runs`, `run_reductions` and `processed_runs`, for whoever wants it
otherwise.
Loads neither ophyd nor databroker.
"""

import hashlib
import importlib.metadata
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ophyd_eiger.errors import EigerError, NoImagesError, RunError
from ophyd_eiger.geometry import PARTS, ScatteringGeometry, untold_centre
from ophyd_eiger.regions import SATURATED
from ophyd_eiger.run_documents import is_run
from ophyd_eiger.run_reductions import (
    PROFILE_UNITS,
    Numbers,
    Profile,
    Projections,
    Reduction,
    parts_of_profile,
    saturated_in,
)
from ophyd_eiger.runs import EigerRun, RunEvent, naming_run, open_run
from ophyd_eiger.series_metadata import read_metadata

logger = logging.getLogger(__name__)
# What a number depends on; the versions go into the new run.
_PACKAGES = ("ophyd-eiger", "numpy", "h5py", "hdf5plugin", "pyFAI")
_APPLIED = "flatfield_correction_applied"


@dataclass(frozen=True)
class Recipe:
    """What is to be done with the images of a run.

    Attributes
    ----------
    mask : numpy.ndarray, shape (y, x), optional
        Not 0 where a pixel is left out, besides the detector's own mask.
    detector_mask : bool
        Whether the masks of the master files are used.
    flatfield : numpy.ndarray or True, optional
        Factors that images are multiplied with, finite where pixels are not left out; True for
        those of each event's master file, which is an error where the detector says that it has
        applied them.
    rois : mapping
        Name: (x0, y0, width, height) in pixels, or None for the whole image.
    bins : int
        Of the radial profile; 0 for none.
    unit : str
        Of the profile's axis: "q_A^-1", "2th_deg" or "r_mm".
    solid_angle : bool
        Whether a profile's pixels are weighted by the solid angle they see.
    geometry : ScatteringGeometry or mapping, optional
        In place of the master files'; of a mapping, as ``{"distance": 0.2}``, the parts it has. In
        what a profile depends on, all events must be alike.
    """

    mask: np.ndarray | None = None
    detector_mask: bool = True
    flatfield: np.ndarray | bool | None = None
    rois: Mapping[str, Iterable[int] | None] = field(default_factory=dict)
    bins: int = 0
    unit: str = PROFILE_UNITS[0]
    solid_angle: bool = False
    geometry: ScatteringGeometry | Mapping[str, float] | None = None


@dataclass(frozen=True)
class Reduced:
    """What became of a run.

    Attributes
    ----------
    run : EigerRun
        The run that was worked on.
    numbers : dict of str to numpy.ndarray
        Of each image, float64 of shape (events, images): `image_sum`, `image_max`, `image_mean`,
        the same of each region; `saturated`, the pixels that are not left out and hold the largest
        value of their type: what they counted is not known, and none of the other numbers has them;
        `profile` has shape (events, images, bins).
    pictures : dict of str to numpy.ndarray
        Of all images together, shape (y, x): `total`, `maximum`; 0 where pixels are left out, or
        saturated in any image.
    mask : numpy.ndarray of bool, shape (y, x)
        What was left out of all images, as it is in the mask of an event's master or the user's.
    axis : numpy.ndarray or None
        The middles of the profile's bins, in `parameters["profile"]["unit"]`.
    parameters : dict
        What was done, in plain numbers and words.
    versions : dict of str to str
        Of the packages that did it.
    """

    run: EigerRun
    numbers: dict[str, np.ndarray]
    pictures: dict[str, np.ndarray]
    mask: np.ndarray
    axis: np.ndarray | None
    parameters: dict[str, Any]
    versions: dict[str, str]

    def __repr__(self) -> str:
        events, images, y, x = self.run.shape
        return (
            f"<Reduced run {self.run.uid[:8]}: {events} events of {images} images, {y} x {x}; "
            f"numbers {', '.join(self.numbers)}; pictures {', '.join(self.pictures)}>"
        )

    def to_xarray(self) -> Any:
        """Return all of it as one xarray.Dataset.

        Its dimensions are event, image, bin, y and x; what else the events have, such as motors,
        are coordinates along event. One whose name is taken, as `mask`, is `event_mask`.

        Raises
        ------
        EigerError
            If xarray is not installed.
        """
        try:
            import xarray
        except ImportError as error:
            raise EigerError(f"{error}; it needs: pip install xarray") from error
        data: dict[str, Any] = {}
        for name, values in self.numbers.items():
            data[name] = (("event", "image", "bin")[: values.ndim], values)
        for name, picture in self.pictures.items():
            data[name] = (("y", "x"), picture)
        data["mask"] = (("y", "x"), self.mask)
        events = self.run.events
        coordinates: dict[str, Any] = {
            "event": [event.seq_num for event in events],
            "time": ("event", [event.time for event in events]),
        }
        if self.axis is not None:
            coordinates["bin"] = self.axis
        for key in events[0].data:
            values = [event.data.get(key) for event in events]
            if all(isinstance(value, (int, float, str, np.number)) for value in values):
                name = key
                while name in {*data, *coordinates, *(set(events[0].data) - {key})}:
                    name = f"event_{name}"
                coordinates[name] = ("event", values)
        attributes = {"parent_uid": self.run.uid}
        if self.axis is not None:
            attributes["bin_unit"] = self.parameters["profile"]["unit"]
        return xarray.Dataset(data, coordinates, attributes)


def reduce_run(
    run: EigerRun,
    recipe: Recipe = Recipe(),
    *,
    progress: Callable[[], None] | None = None,
    reductions: Iterable[Reduction] = (),
) -> Reduced:
    """Work on the images of one run.

    Parameters
    ----------
    run : EigerRun
        As `open_run` gives it, with its mask.
    recipe : Recipe
        What to do; its `mask`, `detector_mask` and `geometry` are `open_run`'s.
    progress : callable, optional
        Called after each image.
    reductions : iterable of Reduction
        Own ones, besides those of the recipe.

    Raises
    ------
    EigerError
        If a file is missing or broken, a region is none, events have differing images, or their
        master files differ in what a profile depends on.
    """
    with naming_run(run.uid):
        _check(run, recipe)
        flat_field = None
        if recipe.flatfield is not None and recipe.flatfield is not False:
            flat_field = _FlatField(run, recipe.flatfield)
        mask = run.mask
        axis = None
        uses: list[Reduction] = [Numbers(mask, recipe.rois), Projections(), *reductions]
        if recipe.bins:
            geometry = geometry_of_profiles(run, recipe)
            if not run.through_catalog:
                centre = geometry.beam_center_x, geometry.beam_center_y
                if remark := untold_centre(run.series.master_path, *centre):
                    logger.warning("%s", remark)
            profile = Profile(
                geometry,
                mask,
                bins=recipe.bins,
                unit=recipe.unit,
                solid_angle=recipe.solid_angle,
            )
            uses.append(profile)
            axis = profile.axis
        numbers = _numbers(run, uses, flat_field, progress or (lambda: None))
    pictures: dict[str, np.ndarray] = {}
    for use in uses:
        pictures |= use.result()
    parameters = _parameters(run, recipe, flat_field)
    return Reduced(run, numbers, pictures, mask, axis, parameters, _versions())


def geometry_of_profiles(run: EigerRun, recipe: Recipe) -> ScatteringGeometry:
    """Return the geometry of a run's profiles, which have one axis for all events.

    Raises
    ------
    MissingFileError, FileError, EigerError
        If a master file does not say it.
    RunError
        If events differ in what the profiles depend on.
    """
    return run.agreed_geometry(parts_of_profile(recipe.unit, solid_angle=recipe.solid_angle))


def _check(run: EigerRun, recipe: Recipe) -> None:
    """See that a run can be worked on, as far as its masters tell it: before any image is read.

    Raises
    ------
    EigerError
        As of `reduce_run`.
    """
    for event in run:
        if event.shape != run.shape[1:]:
            raise RunError(
                f"run {run.uid}: event {event.seq_num} has images of {event.shape}, the first of "
                f"{run.shape[1:]}; they cannot be in one array"
            )
    if recipe.flatfield is True:
        _check_not_applied(run)
    elif recipe.flatfield is not None and recipe.flatfield is not False:
        _check_factors(run, np.shape(recipe.flatfield))
    if recipe.bins:
        geometry_of_profiles(run, recipe)


def _check_factors(run: EigerRun, shape: tuple[int, ...], whose: str = "") -> None:
    if shape != run.shape[2:]:
        raise RunError(
            f"run {run.uid}: a flat field of shape {shape}, images of {run.shape[2:]}{whose}"
        )


def _check_not_applied(run: EigerRun) -> None:
    """See that the detector has not multiplied the images with its flat field itself."""
    if run.through_catalog:
        raise RunError(
            f"run {run.uid}: images through the catalog have no master file and no flat field; "
            "give factors of your own"
        )
    said = run.metadata["configuration"]
    # Documents of other devices do not say it, or by another name.
    applied = any(key.endswith(_APPLIED) and value for key, value in said.items())
    for event in run.of_each_master():
        series = event.found.series
        metadata = read_metadata(series.master_path, series.source.channel, {"flatfield_applied"})
        if applied or metadata.flatfield_applied:
            raise RunError(
                f"run {run.uid}, event {event.seq_num}: the detector says {_APPLIED}, and its "
                "flat field is not applied twice; give factors of your own"
            )


def _numbers(
    run: EigerRun,
    uses: Sequence[Reduction],
    flat_field: "_FlatField | None",
    progress: Callable[[], None],
) -> dict[str, np.ndarray]:
    """Give every image to each use; return its numbers by name, shape (events, images, ...)."""
    masked = np.flatnonzero(run.mask)
    collected: dict[str, list[list[Any]]] = {}
    for event in run:
        factors = None if flat_field is None else flat_field.factors_of(event)
        of_event: dict[str, list[Any]] = {}
        for image in event:
            image.reshape(-1)[masked] = 0
            lost = saturated_in(image)
            count = 0.0 if lost is None else float(np.count_nonzero(lost))
            of_event.setdefault(SATURATED, []).append(count)
            good = image if factors is None else image * factors
            if factors is not None and lost is not None:
                good[lost] = np.nan
            for use in uses:
                for name, value in use.add(good).items():
                    of_event.setdefault(name, []).append(value)
            progress()
        for name, values in of_event.items():
            collected.setdefault(name, []).append(values)
    return {name: np.array(values) for name, values in collected.items()}


def reprocess(
    runs: Any,
    recipe: Recipe = Recipe(),
    *,
    into: Any = None,
    directory: Any = None,
    progress: Callable[[], None] | None = None,
    **opening: Any,
) -> list[Reduced]:
    """Work on a run, or on each run of a search that has images.

    Parameters
    ----------
    runs : object
        A run, as `open_run` takes it; or several: what a catalog's search gives, or a list of runs.
    recipe : Recipe
        What to do.
    into : catalog or callable, optional
        Where what became of each run goes as a new run: a catalog of databroker or tiled, or
        anything that takes documents. The new runs' uids are in `parameters["new_uid"]`.
    directory : path, optional
        Where the new runs' pictures go, which are in files; without it they have none.
    progress : callable, optional
        Called after each image.
    **opening
        As of `open_run`: `stream`, `key`, `root_map`; and `passed_over` of `opened`.

    Returns
    -------
    list of Reduced
        One for each run, in the order they were taken. Of a search, runs without images and those
        that cannot be worked on as asked are passed over, before any image is read.
    """
    from ophyd_eiger.processed_runs import write_run

    done = []
    # Of a search, all at once: the new runs may match it, too.
    for run in opened(runs, recipe, **opening):
        reduced = reduce_run(run, recipe, progress=progress)
        if into is not None:
            reduced.parameters["new_uid"] = write_run(reduced, into, directory)
        done.append(reduced)
    return done


def opened(
    runs: Any,
    recipe: Recipe = Recipe(),
    *,
    passed_over: Callable[[str], None] | None = None,
    **opening: Any,
) -> list[EigerRun]:
    """Open a run, or those of a search that can be, in the order they were taken.

    Parameters
    ----------
    runs, recipe, **opening
        As of `reprocess`.
    passed_over : callable, optional
        Told why, of each run of a search that has no images, or images that cannot be worked on as
        asked: of several detectors, of another shape than the mask, at several energies where
        profiles are in q. Without it the log has those that have images.

    Raises
    ------
    RunError
        If the run that was given by itself is such a one.
    MissingFileError, FileError
        If files of a run are not what they should be.
    """
    opening = {
        "mask": recipe.mask,
        "detector_mask": recipe.detector_mask,
        "geometry": recipe.geometry,
        **opening,
    }
    if isinstance(runs, EigerRun):
        return [runs]
    if is_run(runs) or _are_documents(runs):
        return [_opened(runs, recipe, opening)]
    found = []
    for run in list(_each(runs)):
        try:
            found.append(_opened(run, recipe, opening))
        except RunError as error:
            if passed_over is not None:
                passed_over(str(error))
            elif not isinstance(error, NoImagesError):
                logger.warning("passed over: %s", error)
    return sorted(found, key=lambda run: run.metadata["start"]["time"])


def _opened(run: Any, recipe: Recipe, opening: Mapping[str, Any]) -> EigerRun:
    # Of a search, before work begins that may take hours.
    opened_run = open_run(run, **opening)
    with naming_run(opened_run.uid):
        _check(opened_run, recipe)
    return opened_run


def _each(runs: Any) -> Iterator[Any]:
    values = getattr(runs, "values", None)
    each: Any = values() if callable(values) else runs
    yield from each


def _are_documents(runs: Any) -> bool:
    return isinstance(runs, (list, tuple)) and bool(runs) and isinstance(runs[0], tuple)


class _FlatField:
    """What images are multiplied with: given factors, or those of each event's master file.

    Raises
    ------
    RunError
        If the shape is not that of the images, or if a factor of a pixel that is not left out is
        no finite number, of which no sum would be one.
    """

    def __init__(self, run: EigerRun, given: np.ndarray | bool) -> None:
        self._run = run
        self._of_detector = given is True
        # Of each flat field in the order it was used, once.
        self._sums: dict[str, None] = {}
        self._master: Path | None = None
        self._stored = np.empty(0)
        self._factors = np.empty(0)
        if not self._of_detector:
            self._factors = self._checked(np.asarray(given, np.float64), "")

    def factors_of(self, event: RunEvent) -> np.ndarray:
        """Return the factors of an event's images, 0 where pixels are left out."""
        series = event.found.series
        # The events of a master follow one another: no more than one is in memory.
        if self._of_detector and series.master_path != self._master:
            stored = series.flatfield
            # Each point may be a master of its own, and their flat fields are mostly the same.
            if not np.array_equal(stored, self._stored):
                whose = f" of event {event.seq_num}"
                self._factors = self._checked(stored.astype(np.float64), whose)
                self._stored = stored
            self._master = series.master_path
        return self._factors

    def parameters(self) -> dict[str, Any]:
        """Return what was done, as a start document takes it."""
        sums = list(self._sums)
        return {
            "flatfield": "detector" if self._of_detector else "given",
            "flatfield_sha256": sums[0] if len(sums) == 1 else sums,
        }

    def _checked(self, factors: np.ndarray, whose: str) -> np.ndarray:
        run = self._run
        _check_factors(run, factors.shape, whose)
        odd = np.argwhere(~(np.isfinite(factors) | run.mask))
        if len(odd):
            y, x = (int(place) for place in odd[0])
            raise RunError(
                f"run {run.uid}: a flat field{whose} with {factors[y, x]} at pixel y={y}, x={x}, "
                f"and no finite number at {len(odd)} in all that are not left out; leave them out "
                "with a mask"
            )
        self._sums[_sha256(factors)] = None
        # A factor of what is left out may be anything.
        return np.where(run.mask, 0, factors)


def _parameters(run: EigerRun, recipe: Recipe, flat_field: _FlatField | None) -> dict[str, Any]:
    """Return what was done, as a start document takes it: no number is one of numpy."""
    said: dict[str, Any] = {
        "detector": run.detector,
        "data_key": run.key,
        "stream": run.stream,
        "detector_mask": bool(recipe.detector_mask),
        "user_mask": run.user_mask is not None,
        "pixels_left_out": int(np.count_nonzero(run.mask)),
        "mask_sha256": _sha256(run.mask),
        "flatfield": "none",
        "rois": {
            name: None if box is None else [int(number) for number in box]
            for name, box in recipe.rois.items()
        },
    }
    if flat_field is not None:
        said |= flat_field.parameters()
    if recipe.bins:
        said["profile"] = {
            "bins": int(recipe.bins),
            "unit": recipe.unit,
            "solid_angle": bool(recipe.solid_angle),
            **{part: _agreed(run, part) for part in PARTS},
        }
    return said


def _agreed(run: EigerRun, part: str) -> float | None:
    """Return a part of the geometry; None where events differ and no profile depends on it."""
    try:
        return float(getattr(run.agreed_geometry([part]), part))
    except RunError:
        return None


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
