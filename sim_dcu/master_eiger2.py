"""What a master file of an EIGER2 with firmware 2022.1.2 (API 1.8) says, and where.

Its format is called "hdf5 nexus legacy nxmx". Firmware before 2022.1.2 wrote `module/data_size`
with the width first, against NXmx, so that nxmx and DIALS 3.12 read such files with the axes
exchanged, and had a dataset `sample/transformations/translation` whose value is not known (release
notes). No master file was at hand; what is known, and from where:

* types (float64, uint64; the mask uint32 and the flat field float32), the mask and the flat field
  in detectorSpecific: what neggia's tests expect of five real EIGER2 master files;
* names: what fields the tools of NSLS-II, SPring-8, PROXIMA and of an ARINA's users read, and what
  DIALS' class for these files and nxmx need; what detectorSpecific says is that which a real
  EIGER2 Si 16M of firmware 2020.2.1 sends in its stream's header;
* what changed with which firmware: the vendor's release notes;
* string and boolean types, and all that no source contradicts: as in `master_eiger1`.
"""

import h5py.h5g as h5g
import numpy as np
import numpy.typing as npt

from sim_dcu import hdf5_parts as parts
from sim_dcu.master_file import AXES, DETECTOR, SPECIFIC, TEXT, Field, Groups, Tree, fields
from sim_dcu.series import ArmedSeries

FLOAT = "<f8"
UNSIGNED = "<u8"
SIGNED = "<i4"

MODULE = f"{DETECTOR}/module"
DETECTOR_AXES = f"{DETECTOR}/transformations"
SAMPLE_AXES = "entry/sample/transformations"

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
    (MODULE, "NXdetector_module"),
    (DETECTOR_AXES, "NXtransformations"),
    ("entry/sample", "NXsample"),
    ("entry/sample/goniometer", "NXtransformations"),
    (SAMPLE_AXES, "NXtransformations"),
)

FIELDS = (
    Field("entry/instrument/beam", "incident_wavelength", FLOAT, "angstrom", "wavelength"),
    *fields(DETECTOR, FLOAT, "beam_center_x", "beam_center_y", units="pixel"),
    *fields(DETECTOR, FLOAT, "count_time", "detector_readout_time", "frame_time", units="s"),
    *fields(DETECTOR, FLOAT, "detector_distance", "sensor_thickness", units="m"),
    Field(DETECTOR, "distance", FLOAT, "m", "detector_distance"),
    *fields(DETECTOR, FLOAT, "x_pixel_size", "y_pixel_size", units="m"),
    *fields(DETECTOR, FLOAT, "threshold_energy", units="eV"),
    *fields(DETECTOR, UNSIGNED, "bit_depth_image", "bit_depth_readout"),
    *fields(DETECTOR, SIGNED, "countrate_correction_applied", "flatfield_correction_applied"),
    *fields(DETECTOR, SIGNED, "pixel_mask_applied", "virtual_pixel_correction_applied"),
    *fields(DETECTOR, TEXT, "description", "detector_number", "sensor_material"),
    Field(DETECTOR, "saturation_value", UNSIGNED, key="countrate_correction_count_cutoff"),
    Field(f"{DETECTOR}/geometry/orientation", "value", FLOAT, key="detector_orientation"),
    # With minus the distance: so a real EIGER2 Si 16M of firmware 2020.2.1 sends it.
    Field(f"{DETECTOR}/geometry/translation", "distances", FLOAT, key="detector_translation"),
    *fields(SPECIFIC, SIGNED, "auto_summation"),
    *fields(SPECIFIC, TEXT, "compression", "data_collection_date", "eiger_fw_version", "element"),
    *fields(SPECIFIC, TEXT, "roi_mode", "software_version", "trigger_mode"),
    *fields(SPECIFIC, UNSIGNED, "countrate_correction_count_cutoff", "nimages", "ntrigger"),
    *fields(SPECIFIC, UNSIGNED, "number_of_excluded_pixels"),
    *fields(SPECIFIC, UNSIGNED, "x_pixels_in_detector", "y_pixels_in_detector"),
    *fields(SPECIFIC, "<u4", "countrate_correction_table", "pixel_mask"),
    *fields(SPECIFIC, "<f4", "flatfield"),
    *fields(SPECIFIC, FLOAT, "frame_count_time", "frame_period", units="s"),
    *fields(SPECIFIC, FLOAT, "photon_energy", units="eV"),
)

# Used beside the fields, by `_translation` and `_write_geometry`.
MORE_KEYS = ("beam_center_x", "beam_center_y", "detector_distance", "detector_orientation")

TRANSLATION_PATH = f"/{DETECTOR_AXES}/translation"
OMEGA_PATH = f"/{SAMPLE_AXES}/omega"


def _write_geometry(groups: Groups, series: ArmedSeries) -> None:
    parts.write_text(groups["entry"], "definition", "NXmx")
    # NXmx's place for it, where users of an ARINA find it; others look in detectorSpecific.
    parts.write_text(groups[DETECTOR], "type", "HPC")
    parts.write_text(groups[DETECTOR], "depends_on", TRANSLATION_PATH)
    parts.write_text(groups["entry/sample"], "depends_on", OMEGA_PATH)
    _write_module(groups[MODULE], series)
    translation = _translation(series)
    length = float(np.linalg.norm(translation))
    direction = translation / length if length else (0.0, 0.0, 1.0)
    _write_step(groups[DETECTOR_AXES], "translation", length, direction, ".")
    omega = next(axis for axis in AXES if axis.name == "omega")
    positions = omega.positions(series)[:-1]
    dataset = parts.write_numbers(groups[SAMPLE_AXES], "omega", positions, FLOAT, "degree")
    parts.write_text_attribute(dataset, "transformation_type", "rotation")
    # The axis that DIALS takes for an EIGER unless it knows the detector's number.
    parts.write_vector_attribute(dataset, "vector", (-1.0, 0.0, 0.0))
    parts.write_text_attribute(dataset, "depends_on", ".")


def _write_module(group: h5g.GroupID, series: ArmedSeries) -> None:
    detector = series.detector
    parts.write_numbers(group, "data_origin", (0, 0), UNSIGNED)
    parts.write_numbers(group, "data_size", series.shape, UNSIGNED)
    parts.write_numbers(group, "module_index", 0, UNSIGNED)
    orientation = detector["detector_orientation"]
    for name, pitch, direction, before in (
        ("module_offset", 0.0, orientation[:3], TRANSLATION_PATH),
        ("fast_pixel_direction", detector["x_pixel_size"], orientation[:3], TRANSLATION_PATH),
        (
            "slow_pixel_direction",
            detector["y_pixel_size"],
            orientation[3:],
            f"/{MODULE}/fast_pixel_direction",
        ),
    ):
        _write_step(group, name, pitch, direction, before)


def _write_step(
    group: h5g.GroupID, name: str, length: float, direction: npt.ArrayLike, before: str
) -> None:
    """Write a translation by `length` m along `direction`, after the one at path `before`."""
    dataset = parts.write_numbers(group, name, length, FLOAT, "m")
    parts.write_text_attribute(dataset, "transformation_type", "translation")
    parts.write_vector_attribute(dataset, "vector", direction)
    parts.write_vector_attribute(dataset, "offset", (0.0, 0.0, 0.0))
    parts.write_text_attribute(dataset, "depends_on", before)


def _translation(series: ArmedSeries) -> np.ndarray:
    """Return where the first pixel lies from the sample, in m (API reference 1.8, section 4).

    The frame is NeXus' own: z along the beam, y up. The beam meets the detector in the beam
    centre, at the distance.
    """
    detector = series.detector
    fast, slow = np.reshape(detector["detector_orientation"], (2, 3))
    right = detector["beam_center_x"] * detector["x_pixel_size"]
    down = detector["beam_center_y"] * detector["y_pixel_size"]
    distance = np.array([0.0, 0.0, detector["detector_distance"]])
    return distance - right * fast - down * slow


TREE = Tree(
    groups=GROUPS,
    fields=FIELDS,
    float_type=FLOAT,
    # As the tools that read these files have it; what was never set is left out by the firmware,
    # and 0.0 is written (release notes 2020.1).
    says_start_and_increment=False,
    write_more=_write_geometry,
    keys_of_more=MORE_KEYS,
)
