"""What follows from what on an EIGER1: read-only values, and the names in a put's reply."""

from collections.abc import Mapping
from typing import Any

from sim_dcu.dependencies import Rules, Threshold, detector_translation
from sim_dcu.rounding import SINGLE, float32

# Limits of a real EIGER 500K, firmware 1.6.6, in eV.
LOWEST_ENERGY, HIGHEST_ENERGY = 5000.0, 36000.0
LOWEST_THRESHOLD, HIGHEST_THRESHOLD = 2700.0, 18000.0
# h c / e in eV angstrom as of CODATA 2010: with it, and not with the exact value of 2019, the
# wavelengths of the real 500K's replies follow to the last digit.
HC_OVER_E = 12398.4193
# Images of one series: the limit of firmware before 2022.
LARGEST_COUNT = 2_000_000_000

# From this count time in s an image is summed in 32 bits (areaDetector's EIGER notes: "about").
SHORTEST_32_BIT = 0.01
# Images are sums of 12-bit frames of about this period in s: the two captures known are 4 frames
# in 5 ms and 13 in 16.67 ms.
SUBFRAME_PERIOD = 0.00125
LARGEST_SUBFRAME_COUNT = 2**12 - 1
# Counts per second a pixel's correction reaches to, so that the 500K's 184755 at 0.099895 s
# follows; the 9M's master gives 1.5e6 to 2.5e6 at another energy.
LARGEST_COUNT_RATE = 1.86048e6

# count_time as in API reference 1.6, which is 1.3's list without frame_time, named where it really
# moved.
_TIMING = (
    "bit_depth_image",
    "countrate_correction_count_cutoff",
    "frame_count_time",
    "frame_period",
    "nframes_sum",
)
_ENERGY = ("element", "flatfield", "photon_energy", "threshold_energy", "wavelength")


def derived(config: Mapping[str, Any], _key: str = "") -> dict[str, Any]:
    """Return the read-only values that follow from the others, by key."""
    frames = nframes_sum(config)
    period = frame_period(config, frames)
    count = config["count_time"] if frames == 1 else period - config["detector_readout_time"]
    live_time = frames * count
    cutoff = min(int(LARGEST_COUNT_RATE * live_time), LARGEST_SUBFRAME_COUNT * frames)
    return {
        "bit_depth_image": bit_depth_image(config),
        "nframes_sum": frames,
        "frame_period": float32(period),
        "frame_count_time": float32(count),
        "countrate_correction_count_cutoff": cutoff,
        "detector_translation": detector_translation(config, SINGLE),
    }


def bit_depth_image(config: Mapping[str, Any]) -> int:
    """Return 32 from 10 ms of count time on, else 16; 16 without summation (areaDetector)."""
    long_enough = config["count_time"] >= float32(SHORTEST_32_BIT)
    return 32 if config["auto_summation"] and long_enough else 16


def nframes_sum(config: Mapping[str, Any]) -> int:
    """Return how many 12-bit frames are summed to an image."""
    if not config["auto_summation"]:
        return 1
    return max(1, round((config["count_time"] + config["detector_readout_time"]) / SUBFRAME_PERIOD))


def frame_period(config: Mapping[str, Any], frames: int) -> float:
    """Return the time in s between two of the frames that are summed."""
    if frames == 1:
        return config["frame_time"]
    return (config["count_time"] + config["detector_readout_time"]) / frames


def unarmable(config: Mapping[str, Any]) -> str:
    """Return why no series can be armed: above 2e9 images."""
    images = config["nimages"] * config["ntrigger"]
    if images > LARGEST_COUNT:
        return f"nimages x ntrigger is {images}, more than {LARGEST_COUNT}"
    return ""


RULES = Rules(
    rounding=SINGLE,
    hc_over_e=HC_OVER_E,
    thresholds=(
        Threshold(
            energy="threshold_energy",
            flatfield="flatfield",
            mask="pixel_mask",
            excluded="number_of_excluded_pixels",
            full_mask="_full_mask",
            share=0.5,
        ),
    ),
    # The reference prints threshold_energy's path as f_energy, and worked examples use it; a
    # reply names it as threshold_energy.
    twins={},
    may_change={
        "count_time": _TIMING,
        "frame_time": _TIMING,
        "photon_energy": _ENERGY,
        "element": _ENERGY,
        "wavelength": _ENERGY,
        "threshold_energy": ("flatfield",),
    },
    unnamed=frozenset(),
    whole_reply={},
    slow=frozenset({"photon_energy", "element", "wavelength", "threshold_energy"}),
    energy_limits=(LOWEST_ENERGY, HIGHEST_ENERGY),
    threshold_limits=(LOWEST_THRESHOLD, HIGHEST_THRESHOLD),
    derived=derived,
    refusal=lambda _config, _key, _value: "",
    unarmable=unarmable,
)
