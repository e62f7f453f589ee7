"""What a point of a scan is in each trigger mode. Pure: no device, no requests.

In `ints` and `exts` a trigger takes `nimages` images; in `inte` and `exte` it takes one, which is
exposed as long as the trigger says: the number that `command/trigger` brings, or the length of the
gate. `ints` and `inte` are triggered by the device itself, `exts` and `exte` by a signal at the
detector's input.

Source: SIMPLON API Reference V1.3, section 2; the EIGER2 user manual on nimages.
"""

import math
import operator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np


class TriggerMode(StrEnum):
    """The trigger modes whose images the documents can describe."""

    INTS = "ints"
    INTE = "inte"
    EXTS = "exts"
    EXTE = "exte"

    @property
    def is_external(self) -> bool:
        """Whether a signal at the detector's input triggers, and no command."""
        return self in (TriggerMode.EXTS, TriggerMode.EXTE)

    @property
    def takes_one_image(self) -> bool:
        """Whether a trigger takes one image, and brings its exposure with it."""
        return self in (TriggerMode.INTE, TriggerMode.EXTE)


@dataclass(frozen=True)
class Scheme:
    """How the images of a series belong to points.

    Attributes
    ----------
    mode : TriggerMode
        What triggers.
    nimages : int
        Images a trigger.
    ntrigger : int
        Triggers a series.
    images : int
        Images a point.
    """

    mode: TriggerMode
    nimages: int
    ntrigger: int
    images: int

    @property
    def total(self) -> int:
        """Images a series."""
        return self.nimages * self.ntrigger

    @property
    def points(self) -> int:
        """Points a series."""
        return self.total // self.images

    @property
    def triggers(self) -> int:
        """Triggers a point; 0 where one trigger takes several points, as in a fly scan."""
        return self.images // self.nimages


def scheme_of_steps(mode: str, nimages: int, ntrigger: int, triggers: int) -> Scheme:
    """Return how the points of a step scan are taken.

    Parameters
    ----------
    mode : str
        The detector's trigger_mode.
    nimages, ntrigger : int
        The detector's own.
    triggers : int
        Triggers a point.

    Raises
    ------
    ValueError
        With a sentence that says what to change.
    """
    known = _mode(mode)
    if known.takes_one_image and nimages != 1:
        raise ValueError(
            f"nimages is {nimages}, but in trigger_mode {known.value!r} a trigger takes one "
            "image: set nimages to 1, and triggers_per_point for several images a point"
        )
    if ntrigger % triggers:
        raise ValueError(
            f"ntrigger is {ntrigger}, but a point takes {triggers} triggers, and a series has only "
            f"whole points: set ntrigger to {triggers} times the points to be armed for at once"
        )
    return Scheme(known, nimages, ntrigger, nimages * triggers)


def _mode(mode: str) -> TriggerMode:
    try:
        return TriggerMode(mode)
    except ValueError:
        choices = ", ".join(TriggerMode)
        raise ValueError(
            f"trigger_mode is {mode!r}, whose images the documents of a run cannot describe yet; "
            f"set one of {choices}"
        ) from None


def _count(name: str, given: Any) -> int:
    """Return a number of points or images as Python's own int; numpy's are taken."""
    if isinstance(given, bool | np.bool_):
        given = str(given)
    try:
        count = operator.index(given)
    except TypeError:
        raise ValueError(f"{name} is {given!r}; it is a whole number, at least 1") from None
    if count < 1:
        raise ValueError(f"{name} is {count}; it is at least 1")
    return count


def _time(name: str, given: Any, least: float) -> float:
    """Return a time in s as Python's own float; numpy's are taken."""
    try:
        seconds = float("no number" if isinstance(given, bool | str) else given)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is {given!r}; it is a time in s") from None
    if not (math.isfinite(seconds) and seconds >= least):
        raise ValueError(f"{name} is {seconds:g} s; it is {'above' if least else 'at least'} 0")
    return seconds


@dataclass(frozen=True)
class TriggerInfo:
    """What a fly scan takes, for `prepare`; the words are bluesky's.

    Parameters
    ----------
    number_of_events : int
        Points that the fly scan records.
    exposures_per_event : int
        Images a point.
    trigger : str
        "ints": one command starts all images, one after the other. "exts": each point is started
        by a pulse at the detector's input. "exte": each image is as long as a gate there.
    livetime : float, optional
        Exposure of an image in s; as the detector is set if not given. Not in "exte".
    deadtime : float, optional
        Time between images in s; as short as the detector allows if livetime is given and this is
        not. Not in "exte".
    armed_for : int, optional
        Points that the detector is armed for, if more than are recorded: the series is ended in
        good order after `number_of_events`.

    Raises
    ------
    ValueError
        If a number makes no sense, or not in this mode.
    """

    number_of_events: int
    exposures_per_event: int = 1
    trigger: str = "ints"
    livetime: float | None = None
    deadtime: float | None = None
    armed_for: int | None = None

    def __post_init__(self) -> None:
        mode = _mode(self.trigger)
        for name in ("number_of_events", "exposures_per_event", "armed_for"):
            if (given := getattr(self, name)) is not None or name != "armed_for":
                object.__setattr__(self, name, _count(name, given))
        for name, least in (("livetime", math.ulp(0.0)), ("deadtime", 0.0)):
            if (given := getattr(self, name)) is not None:
                object.__setattr__(self, name, _time(name, given, least))
        if mode is TriggerMode.INTE:
            raise ValueError(
                "a fly scan is triggered by one command ('ints') or from outside ('exts', 'exte'); "
                "'inte' takes an exposure with each point of a step scan"
            )
        if mode is TriggerMode.EXTE and (self.livetime, self.deadtime) != (None, None):
            raise ValueError("in 'exte' the gates make the times: give no livetime, no deadtime")
        if self.deadtime is not None and self.livetime is None:
            raise ValueError("deadtime without livetime says nothing: give both")
        if self.armed_for is not None and self.armed_for < self.number_of_events:
            raise ValueError(
                f"armed for {self.armed_for} points, {self.number_of_events} are to be recorded"
            )

    @property
    def scheme(self) -> Scheme:
        """How the images of the series belong to points."""
        mode = TriggerMode(self.trigger)
        points = self.armed_for or self.number_of_events
        images = self.exposures_per_event
        if mode is TriggerMode.INTS:
            return Scheme(mode, points * images, 1, images)
        if mode is TriggerMode.EXTS:
            return Scheme(mode, images, points, images)
        return Scheme(mode, 1, points * images, images)
