"""What a master file of an EIGER1 with firmware 1.6 says, and where.

The tables follow the master file of a real EIGER 9M with firmware 1.6.4: each name, type, unit and
the order of groups. Knows the tree alone; `filewriter` decides when a file is written and shown.
"""

import h5py.h5g as h5g
import numpy as np

from sim_dcu import geometry
from sim_dcu import hdf5_parts as parts
from sim_dcu.master_file import DETECTOR, SPECIFIC, TEXT, Field, Groups, Tree, fields
from sim_dcu.series import ArmedSeries

FLOAT = "<f4"
UNSIGNED = "<u4"
SIGNED = "<i4"  # also what the firmware stores a bool as

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

FIELDS = (
    Field("entry/instrument/beam", "incident_wavelength", FLOAT, "angstrom", "wavelength"),
    *fields(DETECTOR, FLOAT, "beam_center_x", "beam_center_y", units="pixel"),
    *fields(DETECTOR, FLOAT, "count_time", "detector_readout_time", "frame_time", units="s"),
    *fields(DETECTOR, FLOAT, "detector_distance", "sensor_thickness", units="m"),
    *fields(DETECTOR, FLOAT, "x_pixel_size", "y_pixel_size", units="m"),
    *fields(DETECTOR, FLOAT, "threshold_energy", units="eV"),
    *fields(DETECTOR, SIGNED, "bit_depth_image", "bit_depth_readout"),
    *fields(DETECTOR, SIGNED, "countrate_correction_applied", "efficiency_correction_applied"),
    *fields(DETECTOR, SIGNED, "flatfield_correction_applied", "pixel_mask_applied"),
    *fields(DETECTOR, SIGNED, "virtual_pixel_correction_applied"),
    *fields(DETECTOR, TEXT, "description", "detector_number", "sensor_material"),
    Field(f"{DETECTOR}/geometry/orientation", "value", FLOAT, key="detector_orientation"),
    Field(f"{DETECTOR}/geometry/translation", "distances", FLOAT, key="detector_translation"),
    *fields(SPECIFIC, SIGNED, "auto_summation", "test_mode"),
    *fields(SPECIFIC, TEXT, "calibration_type", "compression", "countrate_correction_bunch_mode"),
    *fields(SPECIFIC, TEXT, "data_collection_date", "eiger_fw_version"),
    # Holds "" in a real file, in a field of 3 bytes: room for any symbol and a null.
    Field(SPECIFIC, "element", TEXT, least_bytes=3),
    *fields(SPECIFIC, TEXT, "roi_mode", "software_version", "trigger_mode"),
    *fields(SPECIFIC, UNSIGNED, "countrate_correction_count_cutoff", "module_bandwidth"),
    *fields(SPECIFIC, UNSIGNED, "nframes_sum", "nimages", "nsequences", "ntrigger"),
    *fields(SPECIFIC, UNSIGNED, "number_of_excluded_pixels", "pixel_mask"),
    *fields(SPECIFIC, UNSIGNED, "x_pixels_in_detector", "y_pixels_in_detector"),
    *fields(SPECIFIC, FLOAT, "detector_readout_period", "frame_count_time", units="s"),
    *fields(SPECIFIC, FLOAT, "frame_period", units="s"),
    *fields(SPECIFIC, FLOAT, "photon_energy", units="eV"),
    *fields(SPECIFIC, FLOAT, "flatfield"),
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


def _write_half_modules(groups: Groups, series: ArmedSeries) -> None:
    generation = geometry.generation_of(series.shape)
    halves = geometry.half_modules(*geometry.module_counts(series.shape, generation), generation)
    for index, half in enumerate(halves):
        group = parts.create_group(groups[SPECIFIC], f"detectorModule_{index:03d}")
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


TREE = Tree(
    groups=GROUPS,
    fields=FIELDS,
    float_type=FLOAT,
    says_start_and_increment=True,
    write_more=_write_half_modules,
)
