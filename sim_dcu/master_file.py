"""What a master file of an EIGER1 with firmware 1.6 says, and where.

The tables follow the master file of a real EIGER 9M with firmware 1.6.4: each name, type, unit and
the order of groups. Knows the tree alone; `filewriter` decides when a file is written and shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import h5py
import h5py.h5g as h5g
import numpy as np

from sim_dcu import geometry
from sim_dcu import hdf5_parts as parts
from sim_dcu.series import ArmedSeries

DETECTOR = "entry/instrument/detector"
SPECIFIC = f"{DETECTOR}/detectorSpecific"

GROUPS = (
    ("entry", "NXentry"),
    ("entry/data", "NXdata"),
    ("entry/instrument", "NXinstrument"),
    ("entry/instrument/beam", "NXbeam"),
    (DETECTOR, "NXdetector"),
    (SPECIFIC, "NXcollection"),
    (f"{DETECTOR}/geometry", "NXgeometry"),
    (f"{DETECTOR}/geometry/orientation", "NXorientation"),
    (f"{DETECTOR}/geometry/translation", "NXtranslation"),
    (f"{DETECTOR}/goniometer", "NXtransformations"),
    ("entry/sample", "NXsample"),
    ("entry/sample/goniometer", "NXtransformations"),
)

FLOAT = "<f4"
UNSIGNED = "<u4"
SIGNED = "<i4"  # also what the firmware stores a bool as
TEXT = "text"


@dataclass(frozen=True)
class Field:
    """A dataset that holds one value of detector/config.

    Attributes
    ----------
    group, name : str
        Where it lies.
    kind : str
        `FLOAT`, `UNSIGNED`, `SIGNED` or `TEXT`.
    units : str or None
        Its `units` attribute.
    key : str
        The detector/config key, where it differs from the name.
    """

    group: str
    name: str
    kind: str
    units: str | None = None
    key: str = ""

    @property
    def source(self) -> str:
        """The detector/config key whose value the dataset holds."""
        return self.key or self.name


def _fields(group: str, kind: str, *names: str, units: str | None = None) -> tuple[Field, ...]:
    return tuple(Field(group, name, kind, units) for name in names)


FIELDS = (
    Field("entry/instrument/beam", "incident_wavelength", FLOAT, "angstrom", "wavelength"),
    *_fields(DETECTOR, FLOAT, "beam_center_x", "beam_center_y", units="pixel"),
    *_fields(DETECTOR, FLOAT, "count_time", "detector_readout_time", "frame_time", units="s"),
    *_fields(DETECTOR, FLOAT, "detector_distance", "sensor_thickness", units="m"),
    *_fields(DETECTOR, FLOAT, "x_pixel_size", "y_pixel_size", units="m"),
    *_fields(DETECTOR, FLOAT, "threshold_energy", units="eV"),
    *_fields(DETECTOR, SIGNED, "bit_depth_image", "bit_depth_readout"),
    *_fields(DETECTOR, SIGNED, "countrate_correction_applied", "efficiency_correction_applied"),
    *_fields(DETECTOR, SIGNED, "flatfield_correction_applied", "pixel_mask_applied"),
    *_fields(DETECTOR, SIGNED, "virtual_pixel_correction_applied"),
    *_fields(DETECTOR, TEXT, "description", "detector_number", "sensor_material"),
    Field(f"{DETECTOR}/geometry/orientation", "value", FLOAT, key="detector_orientation"),
    Field(f"{DETECTOR}/geometry/translation", "distances", FLOAT, key="detector_translation"),
    *_fields(SPECIFIC, SIGNED, "auto_summation", "test_mode"),
    *_fields(SPECIFIC, TEXT, "calibration_type", "compression", "countrate_correction_bunch_mode"),
    *_fields(SPECIFIC, TEXT, "data_collection_date", "eiger_fw_version", "element", "roi_mode"),
    *_fields(SPECIFIC, TEXT, "software_version", "trigger_mode"),
    *_fields(SPECIFIC, UNSIGNED, "countrate_correction_count_cutoff", "module_bandwidth"),
    *_fields(SPECIFIC, UNSIGNED, "nframes_sum", "nimages", "nsequences", "ntrigger"),
    *_fields(SPECIFIC, UNSIGNED, "number_of_excluded_pixels", "pixel_mask"),
    *_fields(SPECIFIC, UNSIGNED, "x_pixels_in_detector", "y_pixels_in_detector"),
    *_fields(SPECIFIC, FLOAT, "detector_readout_period", "frame_count_time", units="s"),
    *_fields(SPECIFIC, FLOAT, "frame_period", units="s"),
    *_fields(SPECIFIC, FLOAT, "photon_energy", units="eV"),
    *_fields(SPECIFIC, FLOAT, "flatfield"),
)

# `element` holds "" in a real file, in a field of 3 bytes: room for any symbol and a null.
LEAST_TEXT_BYTES = {"element": 3}

AXES = (
    (f"{DETECTOR}/goniometer", "two_theta"),
    ("entry/sample/goniometer", "chi"),
    ("entry/sample/goniometer", "kappa"),
    ("entry/sample/goniometer", "omega"),
    ("entry/sample/goniometer", "phi"),
)

# A chip's settings (digital-to-analogue converters), plausible constants: no reader computes with
# them, and no document says what they are on a given detector.
CHIP_SETTINGS = {
    **{f"rxbias_{lane}": 770 for lane in range(4)},
    **{f"vcmp_{chip}": 1400 for chip in range(4)},
    "starven": 2700,
    "starvep": 0,
    "tgstv": 1750,
    "vcal": 2300,
    "vccn": 1350,
    "vccp": 140,
    "vdda": 2250,
    "vddc": 1900,
    "vddd": 2050,
    "vdddio": 2050,
    "vish": 1050,
    "vrfp": 250,
    "vrfs": 950,
    "vtrm": 1700,
}
HALF_MODULE_CHIP_PIXELS = (256, 1024)  # four chips of 256 x 256, without the seams between them
HIGH_VOLTAGE = 200.0  # V
FIRST_STREAM = 4352  # the first half module's in a real EIGER 9M; they go up in steps of 16 to 48
# The steps of the table of true and measured count rates, in counts per second and pixel, and the
# dead time in s of a pixel that is blind after each photon; both agree with a real file's table.
RATE_STEP = 1125.0
RATE_STEPS = 4000
DEAD_TIME = 2.02e-7


def required_keys() -> tuple[str, ...]:
    """Return every detector/config key that a master file needs."""
    axes = [f"{axis}_{end}" for _, axis in AXES for end in ("start", "increment")]
    return tuple(sorted({field.source for field in FIELDS}.union(axes)))


def check_keys(detector: Mapping[str, Any]) -> None:
    """Refuse a configuration that lacks something a master file says.

    Raises
    ------
    KeyError
        Names every missing key.
    """
    missing = [key for key in required_keys() if key not in detector]
    if missing:
        raise KeyError(f"a master file needs detector/config {', '.join(missing)}")


def write_tree(file: h5py.File, series: ArmedSeries) -> dict[str, h5g.GroupID]:
    """Write everything but links and images into an empty file.

    Returns
    -------
    dict of str to h5py.h5g.GroupID
        The groups by path.

    Raises
    ------
    KeyError
        Where the configuration lacks something, see `check_keys`.
    ValueError
        Where the detector's size is no whole number of modules.
    """
    check_keys(series.detector)
    groups = {"": h5g.open(file.id, b"/")}
    for path, nx_class in GROUPS:
        parent, _, name = path.rpartition("/")
        groups[path] = parts.create_group(groups[parent], name, nx_class)
    for field in FIELDS:
        _write_field(groups[field.group], field, series.detector[field.source])
    for path, axis in AXES:
        _write_axis(groups[path], axis, series)
    _write_half_modules(groups[SPECIFIC], series)
    return groups


def _write_field(group: h5g.GroupID, field: Field, value: Any) -> None:
    if field.kind == TEXT:
        parts.write_text(group, field.name, str(value), LEAST_TEXT_BYTES.get(field.name, 1))
    else:
        parts.write_numbers(group, field.name, value, field.kind, field.units)


def _write_axis(group: h5g.GroupID, axis: str, series: ArmedSeries) -> None:
    """Write where an axis stands at the start and at the end of each image, in degrees."""
    start = float(series.detector[f"{axis}_start"])
    increment = float(series.detector[f"{axis}_increment"])
    positions = start + increment * np.arange(series.images + 1)
    for suffix, numbers in (
        ("", positions[:-1]),
        ("_end", positions[1:]),
        ("_start", start),
        ("_increment", increment),
        ("_range_average", increment),
        ("_range_total", increment * series.images),
    ):
        parts.write_numbers(group, axis + suffix, numbers, FLOAT, "degree")


def _write_half_modules(specific: h5g.GroupID, series: ArmedSeries) -> None:
    generation = geometry.generation_of(series.shape)
    halves = geometry.half_modules(*geometry.module_counts(series.shape, generation), generation)
    for index, half in enumerate(halves):
        group = parts.create_group(specific, f"detectorModule_{index:03d}")
        _write_half_module(group, half, FIRST_STREAM + 32 * index, series)


def _write_half_module(
    group: h5g.GroupID, half: geometry.HalfModule, stream: int, series: ArmedSeries
) -> None:
    cutoff = int(series.detector["countrate_correction_count_cutoff"])
    count_time = float(series.detector["count_time"])
    generation = geometry.generation_of(series.shape)
    size = (generation.module_x, generation.module_y // 2)
    for name, value, kind in (
        ("data_origin", (half.origin_x, half.origin_y), SIGNED),
        ("data_size", size, UNSIGNED),
        ("data_rotation", half.rotation, UNSIGNED),
        ("enabled", 1, SIGNED),
        ("stream", stream, UNSIGNED),
        ("hv", HIGH_VOLTAGE, FLOAT),
        ("frame_readout_time", series.detector["detector_readout_time"], FLOAT),
        ("countrate_correction_cutoff", cutoff / count_time, FLOAT),
        ("countrate_correction_count_cutoff", cutoff, UNSIGNED),
        ("countrate_correction_lookup_table", np.arange(65535), UNSIGNED),
        ("countrate_correction_table", _count_rates(), FLOAT),
        *((name, value, UNSIGNED) for name, value in CHIP_SETTINGS.items()),
    ):
        parts.write_numbers(group, name, value, kind)
    # The chips' own calibration is not simulated: no bad pixel, no correction, every trim bit in
    # the middle. Constants take no room; they would be 3 MB a half module in every master file.
    parts.declare_constant(group, "flatfield", HALF_MODULE_CHIP_PIXELS, FLOAT, 1.0)
    parts.declare_constant(group, "pixel_mask", HALF_MODULE_CHIP_PIXELS, UNSIGNED, 0)
    parts.declare_constant(group, "trimbit", HALF_MODULE_CHIP_PIXELS, UNSIGNED, 16)


def _count_rates() -> np.ndarray:
    """Return true and measured rates in counts per second and pixel, float64, shape (4000, 2)."""
    true = RATE_STEP * np.arange(RATE_STEPS)
    return np.column_stack([true, true * np.exp(-true * DEAD_TIME)])
