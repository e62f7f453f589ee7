"""How a master file is written from a table of what it says.

`master_eiger1` and `master_eiger2` hold the tables. Knows no path but those that they share;
`filewriter` decides when a file is written and shown.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import h5py
import h5py.h5g as h5g
import numpy as np

from sim_dcu import hdf5_parts as parts
from sim_dcu.series import ArmedSeries

DETECTOR = "entry/instrument/detector"
SPECIFIC = f"{DETECTOR}/detectorSpecific"
TEXT = "text"

Groups = Mapping[str, h5g.GroupID]


@dataclass(frozen=True)
class Field:
    """A dataset that holds one value of detector/config.

    Attributes
    ----------
    group, name : str
        Where it lies.
    kind : str
        Its type: `TEXT`, or numpy's name of a little-endian number.
    units : str or None
        Its `units` attribute.
    key : str
        The detector/config key, where it differs from the name.
    least_bytes : int
        The least size of a text's field.
    """

    group: str
    name: str
    kind: str
    units: str | None = None
    key: str = ""
    least_bytes: int = 1

    @property
    def source(self) -> str:
        """The detector/config key whose value the dataset holds."""
        return self.key or self.name


def fields(group: str, kind: str, *names: str, units: str | None = None) -> tuple[Field, ...]:
    """Return a field of the same group, type and units for each name."""
    return tuple(Field(group, name, kind, units) for name in names)


@dataclass(frozen=True)
class Axis:
    """Where the positions of one axis of a goniometer lie, in degrees."""

    group: str
    name: str

    def positions(self, series: ArmedSeries) -> np.ndarray:
        """Return where it stands at each image's start and, last, at the end of all; float64."""
        start = float(series.detector[f"{self.name}_start"])
        return start + self.increment(series) * np.arange(series.images + 1)

    def increment(self, series: ArmedSeries) -> float:
        """Return how far it turns in an image."""
        return float(series.detector[f"{self.name}_increment"])


AXES = (
    Axis(f"{DETECTOR}/goniometer", "two_theta"),
    Axis("entry/sample/goniometer", "chi"),
    Axis("entry/sample/goniometer", "kappa"),
    Axis("entry/sample/goniometer", "omega"),
    Axis("entry/sample/goniometer", "phi"),
)


@dataclass(frozen=True)
class Tree:
    """What one generation's master file says.

    Attributes
    ----------
    groups : tuple of (str, str)
        Each group's path and NeXus class, parents first.
    fields : tuple of Field
        What is copied from detector/config.
    float_type : str
        The type of angles.
    says_start_and_increment : bool
        Whether an axis' start and increment have datasets of their own.
    write_more : callable
        Writes what follows from the configuration in other ways, given the groups by path and the
        series.
    keys_of_more : tuple of str
        What `write_more` takes from detector/config.
    """

    groups: tuple[tuple[str, str], ...]
    fields: tuple[Field, ...]
    float_type: str
    says_start_and_increment: bool
    write_more: Callable[[Groups, ArmedSeries], None]
    keys_of_more: tuple[str, ...] = ()

    def required_keys(self) -> tuple[str, ...]:
        """Return every detector/config key that the file needs."""
        axes = [f"{axis.name}_{end}" for axis in AXES for end in ("start", "increment")]
        return tuple(sorted({f.source for f in self.fields}.union(axes, self.keys_of_more)))

    def check_keys(self, detector: Mapping[str, Any]) -> None:
        """Refuse a configuration that lacks something the file says.

        Raises
        ------
        KeyError
            Names every missing key.
        """
        missing = [key for key in self.required_keys() if key not in detector]
        if missing:
            raise KeyError(f"a master file needs detector/config {', '.join(missing)}")

    def write(self, file: h5py.File, series: ArmedSeries) -> Groups:
        """Write everything but links and images into an empty file.

        Returns
        -------
        mapping of str to h5py.h5g.GroupID
            The groups by path.

        Raises
        ------
        KeyError
            Where the configuration lacks something, see `check_keys`.
        ValueError
            Where the detector's size is no whole number of modules.
        """
        self.check_keys(series.detector)
        groups = {"": h5g.open(file.id, b"/")}
        for path, nx_class in self.groups:
            parent, _, name = path.rpartition("/")
            groups[path] = parts.create_group(groups[parent], name, nx_class)
        for field in self.fields:
            _write_field(groups[field.group], field, series.detector[field.source])
        for axis in AXES:
            self._write_axis(groups[axis.group], axis, series)
        self.write_more(groups, series)
        return groups

    def _write_axis(self, group: h5g.GroupID, axis: Axis, series: ArmedSeries) -> None:
        positions, increment = axis.positions(series), axis.increment(series)
        told: dict[str, Any] = {"": positions[:-1], "_end": positions[1:]}
        if self.says_start_and_increment:
            told |= {"_start": positions[0], "_increment": increment}
        told |= {"_range_average": increment, "_range_total": increment * series.images}
        for suffix, numbers in told.items():
            parts.write_numbers(group, axis.name + suffix, numbers, self.float_type, "degree")


def _write_field(group: h5g.GroupID, field: Field, value: Any) -> None:
    if field.kind == TEXT:
        parts.write_text(group, field.name, str(value), field.least_bytes)
    else:
        parts.write_numbers(group, field.name, value, field.kind, field.units)
