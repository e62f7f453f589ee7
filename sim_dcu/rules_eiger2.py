"""What follows from what on an EIGER2: read-only values, and the names in a put's reply.

The lists of names are those that a real EIGER2 XE 16M's replies were found to be by the authors of
an open simulator (tickit-devices) and of a client checked against it (fastcs-eiger).
"""

from collections.abc import Mapping
from typing import Any

from sim_dcu.dependencies import HC_OVER_E, TIMES, Rules, Threshold, detector_translation
from sim_dcu.rounding import DECIMAL

# Firmware of 2022 and later; before it was 2e9.
LARGEST_SERIES = 2**48
# In s: a series longer than one week is refused at arm (release notes 2020.2.2).
LONGEST_SERIES = 7 * 24 * 3600.0
# Below this frame time in s the counters are read with 8 bits (areaDetector's EIGER notes).
LONGEST_8_BIT = 0.00045
# Counts per second that the correction reaches to: a real 16M's 115122 at 9.9999 ms.
LARGEST_COUNT_RATE = 115122 / 0.0099999
# In s: images are taken to be sums of frames of this length, an estimate: from here on they have
# 32 bits, and a frame's counter has 16.
LONGEST_FRAME = 0.01
# In eV: beyond what any of these detectors sees. Real replies carry no limits at all.
LOWEST_ENERGY, HIGHEST_ENERGY = 1.0, 1e6

GATED_MODES = ("inte", "exte")

_FIRST = Threshold(
    energy="threshold_energy",
    flatfield="flatfield",
    mask="pixel_mask",
    excluded="number_of_excluded_pixels",
    full_mask="_full_mask",
    share=0.5,
)
# The second threshold is 1.4 times the photon energy (EIGER2 user manual).
_SECOND = Threshold(
    energy="threshold/2/energy",
    flatfield="threshold/2/flatfield",
    mask="threshold/2/pixel_mask",
    excluded="threshold/2/number_of_excluded_pixels",
    full_mask="_full_mask_2",
    share=1.4,
)
TWINS = {
    "incident_energy": "photon_energy",
    "threshold/1/energy": "threshold_energy",
    "threshold/1/flatfield": "flatfield",
    "threshold/1/pixel_mask": "pixel_mask",
    "threshold/1/number_of_excluded_pixels": "number_of_excluded_pixels",
}

_TIMING = (
    "bit_depth_image",
    "bit_depth_readout",
    "count_time",
    "countrate_correction_count_cutoff",
    "frame_count_time",
    "frame_time",
)
_FLATFIELDS = ("flatfield", "threshold/1/flatfield", "threshold/2/flatfield")
_ENERGY = (
    *_FLATFIELDS,
    "element",
    "incident_energy",
    "photon_energy",
    "threshold/1/energy",
    "threshold/2/energy",
    "threshold_energy",
    "wavelength",
)
_FIRST_THRESHOLD = (*_FLATFIELDS, "threshold/1/energy", "threshold_energy")


def derived(config: Mapping[str, Any], key: str = "") -> dict[str, Any]:
    """Return the read-only values that follow from the others, by key."""
    # With summation switched, the depth follows only at the next arm (users' reports), or when the
    # times are put, whose replies name it; that of auto_summation does not.
    summation = config["auto_summation"] if key in ("", *TIMES) else config["_summation"]
    readout = 8 if config["frame_time"] < LONGEST_8_BIT else 16
    cutoff = max(1, int(LARGEST_COUNT_RATE * config["count_time"]))
    values: dict[str, Any] = {
        "detector_translation": detector_translation(config, DECIMAL),
        "frame_count_time": frame_count_time(config),
        "_summation": summation,
        "bit_depth_readout": readout,
        "bit_depth_image": bit_depth_image(config, readout, summation),
        "countrate_correction_count_cutoff": min(cutoff, 2**32 - 2),
    }
    if key == "trigger_mode" and config["trigger_mode"] in GATED_MODES:
        # So that what is refused in these modes never holds in them.
        values["nimages"] = 1
    if "disabled" in (config["threshold/1/mode"], config["threshold/2/mode"]) and key in (
        "threshold/1/mode",
        "threshold/2/mode",
    ):
        # There is no difference of one threshold.
        values["threshold/difference/mode"] = "disabled"
    return values


def bit_depth_image(config: Mapping[str, Any], readout: int, summation: bool) -> int:
    """Return 8, 16 or 32: the counters' depth, or that of sums (areaDetector's EIGER notes)."""
    if readout == 8:
        return 8
    long_enough = config["count_time"] >= config["_shortest_32_bit"]
    return 32 if summation and long_enough else 16


def frame_count_time(config: Mapping[str, Any]) -> float:
    """Return the count time in s of one of the frames that are summed to an image."""
    count_time = config["count_time"]
    if not config["auto_summation"]:
        return count_time
    return DECIMAL.nearest(count_time / max(1, round(count_time / LONGEST_FRAME)))


def refusal(config: Mapping[str, Any], key: str, value: Any) -> str:
    """Return why a put is refused: a gated mode takes one image a trigger (release notes 2020)."""
    if key == "nimages" and value != 1 and config["trigger_mode"] in GATED_MODES:
        return f"nimages is 1 in trigger_mode {config['trigger_mode']}"
    return ""


def unarmable(config: Mapping[str, Any]) -> str:
    """Return why no series can be armed: too many images, too long, or gated in an odd number."""
    images = config["nimages"] * config["ntrigger"]
    if images > LARGEST_SERIES:
        return f"nimages x ntrigger is {images}, more than {LARGEST_SERIES}"
    if config["threshold/1/mode"] == config["threshold/2/mode"] == "disabled":
        return "no threshold is enabled"
    if images * config["frame_time"] > LONGEST_SERIES:
        return "the series would be longer than one week"
    double = config["trigger_mode"] == "extg" and config["extg_mode"] == "double"
    if double and (config["nimages"] % 2 or config["ntrigger"] != 1):
        # EIGER2 user manual, 9.7.3.
        return "extg_mode double needs an even nimages and ntrigger 1"
    return ""


RULES = Rules(
    rounding=DECIMAL,
    hc_over_e=HC_OVER_E,
    thresholds=(_FIRST, _SECOND),
    twins=TWINS,
    may_change={
        "auto_summation": ("frame_count_time",),
        "count_time": _TIMING,
        "frame_time": _TIMING,
        "photon_energy": _ENERGY,
        "incident_energy": _ENERGY,
        "element": _ENERGY,
        "wavelength": _ENERGY,
        "threshold_energy": _FIRST_THRESHOLD,
        "threshold/1/energy": _FIRST_THRESHOLD,
        "threshold/2/energy": (*_FLATFIELDS, "threshold/2/energy"),
        "threshold/1/mode": ("threshold/difference/mode",),
        "threshold/2/mode": ("threshold/difference/mode",),
        "flatfield": ("threshold/1/flatfield",),
        "threshold/1/flatfield": ("flatfield",),
        "pixel_mask": ("threshold/1/pixel_mask",),
        "threshold/1/pixel_mask": ("pixel_mask",),
    },
    # What follows from the beam centre and from a mask (tickit-devices, made after a real one).
    unnamed=frozenset(
        {
            "detector_translation",
            "number_of_excluded_pixels",
            "threshold/1/number_of_excluded_pixels",
            "threshold/2/number_of_excluded_pixels",
        }
    ),
    whole_reply={
        # A name of no resource; a known client maps it back.
        "threshold/difference/mode": ("difference_mode",),
        # The sizes and the beam centre change too, but no reply says so.
        "roi_mode": ("count_time", "frame_time", "roi_mode"),
    },
    slow=frozenset(
        {
            "photon_energy",
            "incident_energy",
            "element",
            "wavelength",
            "threshold_energy",
            "threshold/1/energy",
            "threshold/2/energy",
        }
    ),
    energy_limits=(LOWEST_ENERGY, HIGHEST_ENERGY),
    threshold_limits=(0.0, 2 * HIGHEST_ENERGY),
    derived=derived,
    refusal=refusal,
    unarmable=unarmable,
)
