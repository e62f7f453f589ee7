"""Every resource of an EIGER1 with firmware 1.6, as data.

Types, limits, units, access and spelling are those of a real EIGER 500K's replies (firmware
1.6.6) unless a group says otherwise; the API reference 1.3 lists most of the names.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sim_dcu.calibration import read_only
from sim_dcu.dependencies import K_ALPHA
from sim_dcu.models import WHOLE, Model
from sim_dcu.parameters import Parameter
from sim_dcu.rounding import float32
from sim_dcu.rules_eiger1 import (
    HC_OVER_E,
    HIGHEST_ENERGY,
    HIGHEST_THRESHOLD,
    LOWEST_ENERGY,
    LOWEST_THRESHOLD,
    SHORTEST_32_BIT,
    derived,
)
from sim_dcu.status import Status

API_VERSION = "1.6.0"
# The reference documents 1.0.0, early and late firmware answers to 1.5.0 and 1.6.0, and a known
# client puts the firmware's number there.
API_VERSIONS = frozenset({"1.0.0", "1.5.0", "1.6.0", "1.6.6"})
# The reference prints threshold_energy's path as f_energy, and worked examples use it.
ALIASES: Mapping[str, str] = {"f_energy": "threshold_energy"}

DETECTOR_COMMANDS = (
    "abort",
    "arm",
    "cancel",
    "disarm",
    "initialize",
    "status_update",
    "trigger",
    "wait",
)
TRIGGER_MODES = ("ints", "exts", "inte", "exte")
AXES = ("chi", "kappa", "omega", "phi", "two_theta")

# The order is that of a real reply, which is a hash table's.
ELEMENTS = (
    "Ru", "Ni", "Nb", "Rb", "Rh", "Ba", "Fe", "Br", "Sr", "Sn", "Sb", "Se", "Co", "Ce", "Cd", "Ge",
    "Ga", "Cs", "Cr", "Cu", "La", "Pd", "Xe", "Te", "Tc", "I", "Mn", "Y", "Mo", "Zn", "Ag", "Kr",
    "As", "In", "Zr",
)  # fmt: skip

LARGEST_COUNT = 2_000_000_000
DEFAULT_FRAME_TIME = 1.0
# A known client reads limits into 32 bits with a sign, so writable counters stay below.
INT32_MAX = 2**31 - 1
_LONGEST_TEXT = 255


def printable(text: str) -> str:
    """Return why `text` is not taken, or "": the files' strings are ASCII of one line."""
    if len(text) > _LONGEST_TEXT:
        return f"is longer than {_LONGEST_TEXT}"
    return "" if text.isascii() and text.isprintable() else "is not printable ASCII"


def file_pattern(text: str) -> str:
    """Return why `text` cannot name files, or ""."""
    # The pattern names files below the data folder and may have sub-folders. A component that
    # starts with a dot could climb out of it, or hide.
    if not 0 < len(text) <= _LONGEST_TEXT - len("_data_000001.h5"):
        return "is empty or too long"
    if any(not part or part.startswith(".") for part in text.split("/")) or "\\" in text:
        return "does not name a file in the data folder"
    return printable(text)


def detector_config(model: Model, flatfield: np.ndarray, pixel_mask: np.ndarray) -> list[Parameter]:
    """Return detector/config of a model.

    Parameters
    ----------
    model : Model
        Whose facts fill the table.
    flatfield : numpy.ndarray of float32, shape (y, x)
        Correction factors as they leave the factory.
    pixel_mask : numpy.ndarray of uint32, shape (y, x)
        The mask as it leaves the factory.
    """
    parameters = [
        *_acquisition(model),
        *_energy(),
        *_corrections(flatfield, pixel_mask),
        *_geometry(model),
        *_identity(model),
        *_internal(model),
    ]
    values = {parameter.key: parameter.default for parameter in parameters}
    follows = derived(values)
    return [*parameters, *_derived(follows, int(np.count_nonzero(pixel_mask)))]


def internal_values(model: Model, pixel_mask: np.ndarray) -> dict[str, Any]:
    """Return the values that the rules need and nobody is served."""
    frame_time = float32(DEFAULT_FRAME_TIME)
    return {
        "_full_mask": pixel_mask,
        "_default_times": (float32(DEFAULT_FRAME_TIME - 2 * model.readout_time), frame_time),
        "_shortest_32_bit": SHORTEST_32_BIT,
    }


def file_values(_model: Model) -> dict[str, Any]:
    """Return what the files say beside the parameters: nothing."""
    return {}


def _acquisition(model: Model) -> list[Parameter]:
    # After a power cycle the times are near 1 s (users' reports); nimages' limit is a float in the
    # real reply. compression: firmware 1.6 on.
    frame_time = DEFAULT_FRAME_TIME
    return [
        Parameter(
            "count_time",
            "float",
            frame_time - 2 * model.readout_time,
            unit="s",
            minimum=model.shortest_count_time,
            maximum=1800,
        ),
        Parameter(
            "frame_time",
            "float",
            frame_time,
            unit="s",
            minimum=model.shortest_frame_time,
            maximum=360000,
        ),
        Parameter("nimages", "uint", 1, minimum=1, maximum=float(LARGEST_COUNT)),
        Parameter("ntrigger", "uint", 1, minimum=1, maximum=float(LARGEST_COUNT)),
        Parameter("trigger_mode", "string", "ints", allowed=TRIGGER_MODES),
        Parameter("auto_summation", "bool", True),
        Parameter("compression", "string", "bslz4", allowed=("lz4", "bslz4")),
        # Where there is no region, the one value is a bare string and no list.
        Parameter(
            "roi_mode", "string", WHOLE, allowed=(WHOLE, *model.regions) if model.regions else WHOLE
        ),
        Parameter("data_collection_date", "string", "", check=printable),
    ]


def _energy() -> list[Parameter]:
    # Cu and half its energy after initialize. The wavelength's limits follow from the energy's.
    energy = float32(K_ALPHA["Cu"])
    return [
        Parameter(
            "photon_energy",
            "float",
            energy,
            unit="eV",
            minimum=LOWEST_ENERGY,
            maximum=HIGHEST_ENERGY,
        ),
        Parameter(
            "threshold_energy",
            "float",
            energy / 2,
            unit="eV",
            minimum=LOWEST_THRESHOLD,
            maximum=HIGHEST_THRESHOLD,
        ),
        Parameter(
            "wavelength",
            "float",
            HC_OVER_E / energy,
            unit="angstrom",
            minimum=HC_OVER_E / HIGHEST_ENERGY,
            maximum=HC_OVER_E / LOWEST_ENERGY,
        ),
        Parameter("element", "string", "Cu", allowed=ELEMENTS),
    ]


def _corrections(flatfield: np.ndarray, pixel_mask: np.ndarray) -> list[Parameter]:
    # efficiency_ and virtual_pixel_ as in a real EIGER 9M's master file.
    return [
        Parameter("flatfield", "float", flatfield),
        Parameter("pixel_mask", "uint", pixel_mask),
        Parameter("flatfield_correction_applied", "bool", True),
        Parameter("pixel_mask_applied", "bool", True),
        Parameter("countrate_correction_applied", "bool", True),
        Parameter("efficiency_correction_applied", "bool", False),
        Parameter("virtual_pixel_correction_applied", "bool", True),
        Parameter("countrate_correction_bunch_mode", "string", "continuous", access="r"),
        # Only the name is known, so it is not listed; the values are those of the master file's
        # look-up table.
        Parameter(
            "countrate_correction_table",
            "uint",
            read_only(np.arange(65535, dtype="<u4")),
            access="r",
            listed=False,
        ),
    ]


def _geometry(model: Model) -> list[Parameter]:
    # Orientation: fast and slow axis, as in a real EIGER 9M's master file.
    height, width = model.shape
    axes = [
        Parameter(f"{axis}_{part}", "float", 0.0, unit="degree")
        for axis in AXES
        for part in ("start", "increment")
    ]
    return [
        Parameter("beam_center_x", "float", 0.0, unit="pixel"),
        Parameter("beam_center_y", "float", 0.0, unit="pixel"),
        Parameter("detector_distance", "float", 0.0, unit="m"),
        Parameter("detector_orientation", "float", [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0], access="r"),
        Parameter("x_pixel_size", "float", 7.5e-05, access="r", unit="m"),
        Parameter("y_pixel_size", "float", 7.5e-05, access="r", unit="m"),
        Parameter("x_pixels_in_detector", "uint", width, access="r"),
        Parameter("y_pixels_in_detector", "uint", height, access="r"),
        *axes,
    ]


def _identity(model: Model) -> list[Parameter]:
    return [
        Parameter("description", "string", model.description, access="r"),
        Parameter("detector_number", "string", model.detector_number, access="r"),
        Parameter("software_version", "string", "1.6.6", access="r"),
        Parameter("eiger_fw_version", "string", "eiger-1.6.6-0.sim.release", access="r"),
        Parameter("sensor_material", "string", "Si", access="r"),
        Parameter("sensor_thickness", "float", model.sensor_thickness, access="r", unit="m"),
    ]


def _internal(model: Model) -> list[Parameter]:
    # In a real EIGER 9M's master file and others' stream headers. There the read-out period is the
    # inverse of the fastest frame rate (4.2 ms for 238 Hz).
    return [
        Parameter("bit_depth_readout", "int", 12, access="r"),
        Parameter("detector_readout_time", "float", model.readout_time, access="r", unit="s"),
        Parameter(
            "detector_readout_period", "float", model.shortest_frame_time, access="r", unit="s"
        ),
        Parameter("calibration_type", "string", "standard", access="r"),
        Parameter("module_bandwidth", "uint", 1080, access="r"),
        Parameter("nsequences", "uint", 1, access="r"),
        # Only the name is known: an estimate.
        Parameter("summation_nimages", "uint", 1, access="r"),
        Parameter("test_mode", "int", 0, access="r"),
    ]


def _derived(follows: Mapping[str, Any], excluded: int) -> list[Parameter]:
    # All read-only; what they follow from is in `dependencies`.
    return [
        Parameter("bit_depth_image", "int", follows["bit_depth_image"], access="r"),
        Parameter(
            "countrate_correction_count_cutoff",
            "uint",
            follows["countrate_correction_count_cutoff"],
            access="r",
        ),
        Parameter("detector_translation", "float", follows["detector_translation"], access="r"),
        Parameter("frame_count_time", "float", follows["frame_count_time"], access="r", unit="s"),
        Parameter("frame_period", "float", follows["frame_period"], access="r", unit="s"),
        Parameter("nframes_sum", "uint", follows["nframes_sum"], access="r"),
        Parameter("number_of_excluded_pixels", "uint", excluded, access="r"),
    ]


# API reference 1.3, 3.3, in the order and with the types of a real filewriter. image_nr_start ends
# where the last image of the longest series still has a number of 32 bits with a sign, as the
# files keep it.
FILEWRITER_CONFIG = (
    Parameter("mode", "string", "enabled", allowed=("enabled", "disabled")),
    Parameter("transfer_mode", "string", "http", allowed=("http",)),
    Parameter("nimages_per_file", "uint", 1000, maximum=INT32_MAX),
    Parameter("image_nr_start", "uint", 1, maximum=INT32_MAX - LARGEST_COUNT),
    Parameter("name_pattern", "string", "series_$id", check=file_pattern),
    Parameter("compression_enabled", "bool", True),
)
FILEWRITER_COMMANDS = ("clear", "initialize")
SYSTEM_COMMANDS = ("restart",)


def detector_status(model: Model) -> list[Status]:
    """Return detector/status of a model."""
    return [
        Status("state", "string", critical_values=("na", "error")),
        Status("error", "string", brief=True),
        Status("time", "string", brief=True, stamped=False),
        # No units: a real reply has an empty one for each of these.
        Status("board_000/th0_temp", "float", critical_limits=(15.0, 37.5), sensor="temperature"),
        Status("board_000/th0_humidity", "float", critical_limits=(0.0, 35), sensor="humidity"),
        Status("builder/dcu_buffer_free", "float", critical_limits=(2.0, None), sensor="buffer"),
        *(Status(f"link_{link}", "string", sensor=f"link_{link}") for link in range(model.links)),
    ]


# The names a model may lack the hardware for; they answer 500 and are not listed.
LINKS = tuple(f"link_{link}" for link in range(4))

FILEWRITER_STATUS = (
    Status("state", "string", critical_values=("error",)),
    Status("error", "string", brief=True),
    Status("time", "string", brief=True, stamped=False),
    Status("buffer_free", "uint", "KB"),
)
