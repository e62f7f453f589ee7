"""What a safe setting-up needs to know: order, followers, epsilons, tables. Pure: no requests.

Sources: EIGER2 user manual 7.4 (times trim each other), SIMPLON API reference 1.8 (what an energy
changes), and what clients of real detectors depend on (a region resets the times; epsilons of
areaDetector's driver).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ophyd_eiger.metadata import same

# Within these an energy or a wavelength is what was asked for: putting it again would cost seconds
# of flat field and put the threshold back to its half.
ENERGY_EPSILON_EV = 0.05
WAVELENGTH_EPSILON_ANGSTROM = 0.0005

ENERGIES = ("element", "wavelength", "photon_energy", "incident_energy")
THRESHOLDS = ("threshold_energy", "threshold/1/energy", "threshold/2/energy")
TIMES = ("count_time", "frame_time")
NUMBERS = ("trigger_mode", "nimages", "ntrigger")
# What holds a user's values: if one is not what it was last known to be, somebody changed or
# initialized the detector.
TELLTALES = frozenset((*ENERGIES, *THRESHOLDS, *TIMES, *NUMBERS, "roi_mode"))
GATED_MODES = ("inte", "exte")

# Each before what it would change otherwise. A region resets the times; an energy resets the
# thresholds; a mode may reset nimages. count_time before frame_time gives both wherever both fit,
# and trims count_time where they do not, so that the rate asked for holds.
_ORDER = (
    "roi_mode",
    *ENERGIES,
    *THRESHOLDS,
    "threshold/1/mode",
    "threshold/2/mode",
    "threshold/difference/mode",
    "trigger_mode",
    "auto_summation",
    *TIMES,
    "nimages",
    "ntrigger",
)
_TIMING = (
    *TIMES,
    "auto_summation",
    "bit_depth_image",
    "bit_depth_readout",
    "countrate_correction_count_cutoff",
    "frame_count_time",
    "frame_period",
    "nframes_sum",
)
_GEOMETRY = ("beam_center_x", "beam_center_y", "detector_distance", "detector_translation")
_SIZE = ("roi_mode", "x_pixels_in_detector", "y_pixels_in_detector", "number_of_excluded_pixels")
_MODES = ("threshold/1/mode", "threshold/2/mode", "threshold/difference/mode")
# A put of one of the first may change any of the second; replies do not name all of them.
_FAMILIES = (
    (frozenset((*TIMES, "auto_summation")), _TIMING),
    (frozenset(("roi_mode",)), (*_SIZE, *_TIMING, *_GEOMETRY)),
    (frozenset((*ENERGIES, *THRESHOLDS)), (*ENERGIES, *THRESHOLDS)),
    (frozenset(_MODES), _MODES),
    (frozenset(("trigger_mode",)), NUMBERS),
    (frozenset(_GEOMETRY), _GEOMETRY),
)

PUT, SKIPPED, NOT_AS_ASKED = "put", "skipped", "not as asked"
CHANGED, FAILED, NOT_REACHED = "changed by itself", "failed", "not reached"


def rank(subsystem: str, key: str) -> tuple:
    """Return what settings are sorted by to be put in a safe order."""
    if subsystem == "detector":
        place = _ORDER.index(key) if key in _ORDER else len(_ORDER)
        return 0, place, key
    # What a subsystem does is set before it is switched on.
    return 1, subsystem, key == "mode", key


def followers(keys: Iterable[str]) -> set[str]:
    """Return the detector's keys that may change when `keys` are put."""
    asked = set(keys)
    return {follower for causes, found in _FAMILIES if causes & asked for follower in found}


def already(key: str, here: Any, asked: Any) -> bool:
    """Return whether a value is what was asked for, within the epsilons above or float32."""
    try:
        if key in ("photon_energy", "incident_energy", *THRESHOLDS):
            return math.isclose(here, asked, rel_tol=1e-6, abs_tol=ENERGY_EPSILON_EV)
        if key == "wavelength":
            return math.isclose(here, asked, rel_tol=1e-6, abs_tol=WAVELENGTH_EPSILON_ANGSTROM)
    except TypeError:
        return False
    if isinstance(here, (list, tuple)) and isinstance(asked, (list, tuple)):
        pairs = zip(here, asked, strict=False)
        return len(here) == len(asked) and all(same(one, other) for one, other in pairs)
    return is_plain(here) and is_plain(asked) and same(here, asked)


def is_plain(value: Any) -> bool:
    """Return whether a value is none of the big arrays, which are not compared."""
    return not (isinstance(value, dict) or hasattr(value, "shape"))


def contradiction(wanted: Mapping[str, Any], trigger_mode: Any) -> str:
    """Return why an EIGER2 would refuse what is asked for half-way, or ""."""
    mode = wanted.get("trigger_mode", trigger_mode)
    nimages = wanted.get("nimages", 1)
    if mode in GATED_MODES and nimages != 1:
        return f"nimages is 1 in trigger_mode {mode!r}, {nimages} was asked for"
    return ""


def without_followers(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the detector's values of a whole configuration without those that follow from others.

    An element sets the energy, an energy the wavelength and no element; some keys are a second
    name of another.
    """
    left = dict(values)
    # Entries of a file hold the value and its unit.
    if left.get("element") in ("", {"value": ""}):
        del left["element"]
    energy = next(
        (
            key
            for key in ("element", "photon_energy", "incident_energy", "wavelength")
            if key in left
        ),
        None,
    )
    for key in ENERGIES:
        if key != energy:
            left.pop(key, None)
    for key in THRESHOLDS[:1]:
        if key in left:
            left.pop("threshold/1/energy", None)
    for twin in ("flatfield", "pixel_mask"):
        if twin in left:
            left.pop(f"threshold/1/{twin}", None)
    return left


@dataclass(frozen=True)
class Setting:
    """What became of one setting.

    Attributes
    ----------
    name : str
        As in "detector.count_time".
    unit : str
        The detector's own, of all three values.
    before, asked, after : object
        Values; `asked` is None for what nobody asked for.
    outcome : str
        "put", "skipped", "not as asked", "changed by itself", "failed" or "not reached".
    """

    name: str
    unit: str
    before: Any
    asked: Any
    after: Any
    outcome: str


class Report:
    """What a `configure` did; prints as a table.

    Attributes
    ----------
    device : str
        Name of the device.
    settings : tuple of Setting
        In the order in which they were put; what changed by itself last.
    remark : str
        Why nothing was skipped, if so.
    """

    def __init__(self, device: str, settings: Sequence[Setting], remark: str = "") -> None:
        self.device = device
        self.settings = tuple(settings)
        self.remark = remark

    def names(self, outcome: str) -> list[str]:
        """Return the names of the settings with this outcome."""
        return [setting.name for setting in self.settings if setting.outcome == outcome]

    @property
    def put(self) -> list[str]:
        """What was put and is as asked."""
        return self.names(PUT)

    @property
    def skipped(self) -> list[str]:
        """What was so already."""
        return self.names(SKIPPED)

    @property
    def changed(self) -> list[str]:
        """What the detector changed beyond what was asked for."""
        return self.names(CHANGED)

    @property
    def not_as_asked(self) -> list[str]:
        """What the detector did not take as asked, or changed again with a later setting."""
        return self.names(NOT_AS_ASKED)

    def __repr__(self) -> str:
        if not self.settings:
            return f"{self.device}: nothing to set"
        rows = [
            (s.name, shown(s.before), shown(s.asked), shown(s.after), s.unit, s.outcome)
            for s in self.settings
        ]
        head = ("setting", "before", "asked", "after", "unit", "outcome")
        remark = f" ({self.remark})" if self.remark else ""
        return f"{self.device}: configured{remark}\n{table(head, rows)}"


class Configured(tuple[dict[str, Any], dict[str, Any]]):
    """The configuration's readings (before, after), which IPython shows as what was done.

    Attributes
    ----------
    report : Report or None
        What was done.
    """

    report: Report | None = None

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self.report))


@dataclass(frozen=True)
class Difference:
    """A setting that differs: its name, its value here and there, and its unit."""

    name: str
    here: Any
    there: Any
    unit: str


class Differences(list[Difference]):
    """Settings that differ; prints as a table, and is empty where none does."""

    there = "there"

    def __repr__(self) -> str:
        if not self:
            return "no differences"
        rows = [(d.name, shown(d.here), shown(d.there), d.unit) for d in self]
        return table(("setting", "here", self.there, "unit"), rows)


def shown(value: Any) -> str:
    """Return a value as a table shows it; floats to the precision of the firmware."""
    if value is None:
        return "-"
    if not is_plain(value):
        return "array"
    if isinstance(value, float):
        return f"{value:.7g}"
    return str(value)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows of text in columns."""
    widths = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head))]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, rule, *rows)
    )
