"""Every resource of an EIGER2 with firmware 2020.2 to 2024.2 (API 1.8), as data.

Names, types and access of what `keys` lists are those of a real EIGER2 XE 16M, as fastcs-eiger's
authors recorded them; what is served without being listed is named by the API reference 1.8 alone.
A known client knows no list of numbers, so that a real detector of its firmware lists none but
those it leaves out. Figures of a real EIGER2 Si 16M's stream header (2020.2.1).
"""

from typing import Any

import numpy as np

from sim_dcu.calibration import read_only
from sim_dcu.dependencies import HC_OVER_E, K_ALPHA
from sim_dcu.models import WHOLE, Model
from sim_dcu.parameters import Parameter
from sim_dcu.rounding import DECIMAL
from sim_dcu.rules_eiger2 import derived
from sim_dcu.status import Status
from sim_dcu.tables.eiger1 import (
    AXES,
    INT32_MAX,
    LARGEST_COUNT,
    file_pattern,
    printable,
)

API_VERSION = "1.8.0"
# Firmware of EIGER2 serves 1.6.0 beside it (release notes 2020.2.2), and refuses what it does not
# know since 2023.1 only: a known client (epicsscan) asks at 1.6.6.
OLDER_API_VERSIONS = frozenset({"1.0.0", "1.5.0", "1.6.0", "1.6.6"})
API_VERSIONS = OLDER_API_VERSIONS | {API_VERSION}
ALIASES = {"f_energy": "threshold_energy"}

DETECTOR_COMMANDS = (
    "abort",
    "arm",
    "cancel",
    "check_connections",
    "disarm",
    "hv_reset",
    "initialize",
    "status_update",
    "trigger",
    "wait",
)
TRIGGER_MODES = ("eies", "exte", "extg", "exts", "inte", "ints")
ON_OFF = ("enabled", "disabled")
ELEMENTS = (
    "Li", "Be", "B", "C", "N", "O", "F", "Ne", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "Ar", "K",
    "Ca", "Sc", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn",
)  # fmt: skip
DEFAULT_FRAME_TIME = 1.0
# In s: the shortest count time is that of a QUADRO, as is the longest; an estimate for EIGER2.
SHORTEST_COUNT_TIME, LONGEST_COUNT_TIME = 5e-08, 3600.0


def _positive(value: float) -> str:
    # A real reply has no limits; an energy or wavelength of 0 has no counterpart.
    return "" if 0.001 <= value <= 1e6 else "is not possible"


def _not_negative(value: float) -> str:
    return "" if value >= 0 else "is negative"


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
    excluded = int(np.count_nonzero(pixel_mask))
    parameters = [
        *_acquisition(model),
        *_gating(),
        *_energy(),
        *_thresholds(flatfield, pixel_mask, excluded),
        *_corrections(flatfield, pixel_mask, excluded),
        *_geometry(model),
        *_identity(model),
    ]
    values = {parameter.key: parameter.default for parameter in parameters}
    follows = derived({**values, **internal_values(model, pixel_mask)})
    return [*parameters, *_derived(follows)]


def internal_values(model: Model, pixel_mask: np.ndarray) -> dict[str, Any]:
    """Return the values that the rules need and nobody is served."""
    count_time = DECIMAL.below(DEFAULT_FRAME_TIME - model.readout_time)
    return {
        "_full_mask": pixel_mask,
        "_full_mask_2": pixel_mask,
        "_default_times": (count_time, DEFAULT_FRAME_TIME),
        "_shortest_32_bit": model.shortest_32_bit,
        # Whether the images' depth is that of sums.
        "_summation": True,
    }


def file_values(model: Model) -> dict[str, Any]:
    """Return what the files say beside the parameters."""
    return {"frame_period": model.shortest_frame_time}


def _acquisition(model: Model) -> list[Parameter]:
    # After a power cycle the times are near 1 s (users' reports).
    return [
        Parameter(
            "count_time",
            "float",
            DECIMAL.below(DEFAULT_FRAME_TIME - model.readout_time),
            unit="s",
            minimum=SHORTEST_COUNT_TIME,
            maximum=LONGEST_COUNT_TIME,
        ),
        # A real reply has no upper limit.
        Parameter(
            "frame_time",
            "float",
            DEFAULT_FRAME_TIME,
            unit="s",
            minimum=DECIMAL.nearest(model.shortest_frame_time),
        ),
        Parameter("nimages", "uint", 1, minimum=1, maximum=LARGEST_COUNT),
        Parameter("ntrigger", "uint", 1, minimum=1, maximum=LARGEST_COUNT),
        Parameter("trigger_mode", "string", "ints", allowed=TRIGGER_MODES),
        Parameter("trigger_start_delay", "float", 0.0, unit="s", minimum=0.0),
        Parameter("auto_summation", "bool", True),
        Parameter("compression", "string", "bslz4", allowed=("lz4", "bslz4", "none")),
        Parameter("counting_mode", "string", "normal", allowed=("normal", "retrigger")),
        Parameter("fast_arm", "bool", False),
        Parameter("roi_mode", "string", WHOLE, allowed=(WHOLE, *model.regions)),
        # Of the API reference only; the defaults are estimates.
        Parameter("test_image_mode", "string", "", check=printable, listed=False),
        Parameter("test_image_value", "uint", 0, listed=False),
        Parameter("auto_sum_strict", "bool", False, listed=False),
        Parameter("binning_mode", "string", WHOLE, allowed=(WHOLE,), listed=False),
        Parameter("pixel_format", "string", "", check=printable, listed=False),
        Parameter("roi_bit_depth", "uint", 16, listed=False),
        Parameter("roi_y_size", "uint", 0, listed=False),
    ]


def _gating() -> list[Parameter]:
    # nexpi has no limits in a real reply; an image without an exposure there is not.
    return [
        Parameter("extg_mode", "string", "double", allowed=("single", "double")),
        Parameter("nexpi", "uint", 1, check=lambda value: "" if value else "is not possible"),
        Parameter("ntriggers_skipped", "uint", 0),
    ]


def _energy() -> list[Parameter]:
    energy = K_ALPHA["Cu"]
    return [
        Parameter("photon_energy", "float", energy, unit="eV", check=_positive),
        Parameter("incident_energy", "float", energy, unit="eV", check=_positive),
        Parameter("incident_particle_type", "string", "photons", access="r"),
        # Served, but not listed (fastcs-eiger).
        Parameter(
            "wavelength",
            "float",
            HC_OVER_E / energy,
            unit="angstrom",
            check=_positive,
            listed=False,
        ),
        Parameter("element", "string", "Cu", allowed=ELEMENTS),
        Parameter("total_flux", "float", 0.0, check=_not_negative),
        # What replaced total_flux in later firmware.
        Parameter("flux_type", "string", "", check=printable, listed=False),
        Parameter("flux_value", "float", 0.0, check=_not_negative, listed=False),
    ]


def _thresholds(flatfield: np.ndarray, pixel_mask: np.ndarray, excluded: int) -> list[Parameter]:
    # The first one counts, the second and the difference are off: estimates, after the manual's
    # advice to enable the second where it is wanted.
    energy = K_ALPHA["Cu"]
    parameters = [
        Parameter("threshold_energy", "float", energy / 2, unit="eV", check=_not_negative),
        Parameter("threshold/difference/lower_threshold", "uint", 1, access="r"),
        Parameter("threshold/difference/mode", "string", "disabled", allowed=ON_OFF),
        Parameter("threshold/difference/upper_threshold", "uint", 2, access="r"),
    ]
    for number, share, mode in ((1, 0.5, "enabled"), (2, 1.4, "disabled")):
        name = f"threshold/{number}"
        parameters += [
            Parameter(f"{name}/energy", "float", share * energy, unit="eV", check=_not_negative),
            Parameter(f"{name}/mode", "string", mode, allowed=ON_OFF),
            Parameter(f"{name}/flatfield", "float", flatfield),
            Parameter(f"{name}/pixel_mask", "uint", pixel_mask),
            Parameter(f"{name}/number_of_excluded_pixels", "uint", excluded, access="r"),
        ]
    return parameters


def _corrections(flatfield: np.ndarray, pixel_mask: np.ndarray, excluded: int) -> list[Parameter]:
    table = read_only(np.arange(65535, dtype="<u4"))
    return [
        Parameter("flatfield", "float", flatfield),
        Parameter("pixel_mask", "uint", pixel_mask),
        Parameter("number_of_excluded_pixels", "uint", excluded, access="r"),
        Parameter("flatfield_correction_applied", "bool", True),
        Parameter("pixel_mask_applied", "bool", True),
        Parameter("mask_to_zero", "bool", False),
        Parameter("countrate_correction_applied", "bool", True),
        Parameter("virtual_pixel_correction_applied", "bool", True),
        # Nothing is corrected in the simulation: each count stands for itself.
        Parameter("countrate_correction_table", "uint[]", table, access="r"),
    ]


def _geometry(model: Model) -> list[Parameter]:
    height, width = model.shape
    axes = [
        Parameter(f"{axis}_{part}", "float", 0.0, unit="degree")
        for axis in AXES
        for part in ("start", "increment")
    ]
    # Directions of axes: of the API reference only, so unlisted; the values are the NeXus ones.
    directions = [
        Parameter(f"{axis}_axis", "float[]", [-1.0, 0.0, 0.0], listed=False) for axis in AXES
    ]
    return [
        Parameter("beam_center_x", "float", 0.0, unit="pixel"),
        Parameter("beam_center_y", "float", 0.0, unit="pixel"),
        Parameter("detector_distance", "float", 0.0, unit="m"),
        Parameter("detector_orientation", "float[]", [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0]),
        Parameter("detector_orientation_angle", "float", 180.0, unit="degree", listed=False),
        Parameter("detector_orientation_axis", "float[]", [0.0, 0.0, 1.0], listed=False),
        Parameter("transformation_order", "string[]", [], listed=False, check=_printable_all),
        Parameter("x_pixel_size", "float", 7.5e-05, access="r", unit="m"),
        Parameter("y_pixel_size", "float", 7.5e-05, access="r", unit="m"),
        Parameter("x_pixels_in_detector", "uint", width, access="r"),
        Parameter("y_pixels_in_detector", "uint", height, access="r"),
        *axes,
        *directions,
    ]


def _printable_all(texts: list[str]) -> str:
    return next((reason for text in texts if (reason := printable(text))), "")


def _identity(model: Model) -> list[Parameter]:
    return [
        Parameter("data_collection_date", "string", "", access="r"),
        Parameter("description", "string", model.description, access="r"),
        Parameter("detector_number", "string", model.detector_number, access="r"),
        Parameter("detector_readout_time", "float", model.readout_time, access="r", unit="s"),
        Parameter("software_version", "string", "1.8.0", access="r"),
        # The firmware whose files are written (`master_eiger2`). DIALS of 2022 reads what follows
        # "release-" as a Python version, and takes the axes of older files for exchanged.
        Parameter("eiger_fw_version", "string", "release-2022.1.2+sim", access="r"),
        Parameter("sensor_material", "string", "Si", access="r"),
        Parameter("sensor_thickness", "float", model.sensor_thickness, access="r", unit="m"),
        Parameter("instrument_name", "string", "", check=printable),
        Parameter("sample_name", "string", "", check=printable),
        Parameter("source_name", "string", "", check=printable),
    ]


def _derived(follows: dict[str, Any]) -> list[Parameter]:
    # All read-only; what they follow from is in `rules_eiger2`.
    return [
        Parameter("bit_depth_image", "uint", follows["bit_depth_image"], access="r"),
        Parameter("bit_depth_readout", "uint", follows["bit_depth_readout"], access="r"),
        Parameter(
            "countrate_correction_count_cutoff",
            "uint",
            follows["countrate_correction_count_cutoff"],
            access="r",
        ),
        Parameter("detector_translation", "float[]", follows["detector_translation"], access="r"),
        Parameter("frame_count_time", "float", follows["frame_count_time"], access="r", unit="s"),
    ]


# The vendor's notes on the file writer for mode and format; the rest as on EIGER1, transfer_mode
# excepted, which EIGER2 no longer has.
FILEWRITER_COMMANDS = ("clear", "initialize")
FILEWRITER_CONFIG = (
    Parameter("mode", "string", "disabled", allowed=ON_OFF),
    Parameter("nimages_per_file", "uint", 1000, maximum=INT32_MAX),
    Parameter("image_nr_start", "uint", 1, maximum=INT32_MAX - LARGEST_COUNT),
    Parameter("name_pattern", "string", "series_$id", check=file_pattern),
    Parameter("compression_enabled", "bool", True),
    # The other format, "hdf5 nexus v2024.2 nxmx", came with firmware 2024.1 (release notes).
    Parameter("format", "string", "hdf5 nexus legacy nxmx", allowed=("hdf5 nexus legacy nxmx",)),
)

STATES = ("na", "idle", "ready", "acquire", "configure", "initialize", "error")
VOLTAGE_STATES = ("NA", "OFF", "RAMPING", "READY")
LINK_STATES = ("up", "down")
LINKS = tuple(f"link_{link}" for link in range(4))


def detector_status(model: Model) -> list[Status]:
    """Return detector/status of a model."""
    return [
        Status("state", "string", allowed=STATES),
        # Served, but not listed (fastcs-eiger).
        Status("error", "string", listed=False),
        Status("time", "string"),
        Status("temperature", "float", sensor="temperature"),
        Status("humidity", "float", sensor="humidity"),
        # Deprecated, and answering still.
        Status("board_000/th0_temp", "float", sensor="temperature"),
        Status("board_000/th0_humidity", "float", sensor="humidity"),
        # Not listed by a real XE 16M, whose sensor is silicon.
        Status("high_voltage/state", "string", allowed=VOLTAGE_STATES, listed=False),
        Status("series_unique_id", "string"),
        *(
            # A real XE 16M lists two.
            Status(
                f"link_{link}",
                "string",
                allowed=LINK_STATES,
                sensor=f"link_{link}",
                listed=link < 2,
            )
            for link in range(model.links)
        ),
    ]


FILEWRITER_STATUS = (
    Status("state", "string", allowed=("disabled", "ready", "acquire", "error")),
    Status("error", "string"),
    Status("time", "string"),
    Status("buffer_free", "uint"),
    Status("files", "string[]"),
)
