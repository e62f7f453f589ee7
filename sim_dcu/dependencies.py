"""What a put changes beside the parameter itself: pure functions of the configuration.

`settled` is the one entry. Source of each rule at the rule; the reference for all of them is the
SIMPLON API reference 1.3 with the manual's remarks on consistency.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sim_dcu.parameters import RefusedError, float32, float32_above, float32_below

# h c / e in eV angstrom, exact in the SI of 2019.
HC_OVER_E = 12398.41984332

# K-alpha1 energies in eV: X-ray Data Booklet (LBNL, 2009), table 1-2, after Bearden 1967.
K_ALPHA: Mapping[str, float] = {
    "Cr": 5414.72, "Mn": 5898.75, "Fe": 6403.84, "Co": 6930.32, "Ni": 7478.15,
    "Cu": 8047.78, "Zn": 8638.86, "Ga": 9251.74, "Ge": 9886.42, "As": 10543.72,
    "Se": 11222.4, "Br": 11924.2, "Kr": 12649.0, "Rb": 13395.3, "Sr": 14165.0,
    "Y": 14958.4, "Zr": 15775.1, "Nb": 16615.1, "Mo": 17479.34, "Tc": 18367.1,
    "Ru": 19279.2, "Rh": 20216.1, "Pd": 21177.1, "Ag": 22162.92, "Cd": 23173.6,
    "In": 24209.7, "Sn": 25271.3, "Sb": 26359.1, "Te": 27472.3, "I": 28612.0,
    "Xe": 29779.0, "Cs": 30972.8, "Ba": 32193.6, "La": 33441.8, "Ce": 34719.7,
}  # fmt: skip

# Limits of a real EIGER 500K, firmware 1.6.6, in eV.
LOWEST_ENERGY, HIGHEST_ENERGY = 5000.0, 36000.0
LOWEST_THRESHOLD, HIGHEST_THRESHOLD = 2700.0, 18000.0

# From this count time in s an image is summed in 32 bits (areaDetector's EIGER notes: "about").
SHORTEST_32_BIT = 0.01
# Images are sums of 12-bit frames of about this period in s: the two captures known are 4 frames
# in 5 ms and 13 in 16.67 ms.
SUBFRAME_PERIOD = 0.00125
LARGEST_SUBFRAME_COUNT = 2**12 - 1
# Counts per second a pixel's correction reaches to, so that the 500K's 184755 at 0.099895 s
# follows; the 9M's master gives 1.5e6 to 2.5e6 at another energy.
LARGEST_COUNT_RATE = 1.86048e6

# Named in a put's reply whether or not the value moved: "changed or may have changed". count_time
# as in API reference 1.6, which is 1.3's list without frame_time, named where it really moved.
_TIMING = (
    "bit_depth_image",
    "countrate_correction_count_cutoff",
    "frame_count_time",
    "frame_period",
    "nframes_sum",
)
_ENERGY = ("element", "flatfield", "photon_energy", "threshold_energy", "wavelength")
MAY_CHANGE: Mapping[str, tuple[str, ...]] = {
    "count_time": _TIMING,
    "frame_time": _TIMING,
    "photon_energy": _ENERGY,
    "element": _ENERGY,
    "wavelength": _ENERGY,
    "threshold_energy": ("flatfield",),
}
# These have the flatfield computed anew, which takes seconds.
SLOW = frozenset({"photon_energy", "element", "wavelength", "threshold_energy"})


def settled(
    config: Mapping[str, Any], key: str, value: Any, factory_flatfield: np.ndarray
) -> dict[str, Any]:
    """Return what a put changes.

    Parameters
    ----------
    config : Mapping
        Every detector/config value before the put; times in s, energies in eV.
    key, value
        What is put, already accepted.
    factory_flatfield : numpy.ndarray of float32, shape (y, x)
        What a change of energy or threshold replaces a user's flatfield by.

    Returns
    -------
    dict
        The new value by key of all that is different now; empty where nothing is.

    Raises
    ------
    RefusedError
        Where no consistent configuration follows.
    """
    new = dict(config)
    new[key] = value
    if key in ("count_time", "frame_time"):
        _fit_times(new, key)
    elif key in ("photon_energy", "element", "wavelength"):
        _set_energy(new, key)
        new["flatfield"] = factory_flatfield
    elif key == "threshold_energy":
        # A user's flatfield belongs to a threshold and is lost with it (API reference 1.8).
        new["flatfield"] = factory_flatfield
    elif key == "pixel_mask":
        new["number_of_excluded_pixels"] = int(np.count_nonzero(value))
    new.update(derived(new))
    return {name: new[name] for name in new if _differ(new[name], config[name])}


def named_in_reply(key: str, changed: Mapping[str, Any]) -> list[str]:
    """Return the reply of a put: sorted names of what changed or may have, `key` included."""
    return sorted({key, *MAY_CHANGE.get(key, ()), *changed})


def derived(config: Mapping[str, Any]) -> dict[str, Any]:
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
        "detector_translation": detector_translation(config),
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


def detector_translation(config: Mapping[str, Any]) -> list[float]:
    """Return beam centre times pixel size, then minus the distance, in m (a real EIGER 16M)."""
    return [
        float32(config["beam_center_x"] * config["x_pixel_size"]),
        float32(config["beam_center_y"] * config["y_pixel_size"]),
        0.0 - config["detector_distance"],
    ]


def _fit_times(new: dict[str, Any], key: str) -> None:
    # The time that was put holds and the other one gives way, by the read-out time (EIGER2 user
    # manual 7.4). Rounded away from each other, so that single precision never breaks the rule.
    readout = new["detector_readout_time"]
    if new["count_time"] + readout <= new["frame_time"]:
        return
    if key == "count_time":
        new["frame_time"] = float32_above(new["count_time"] + readout)
    else:
        new["count_time"] = float32_below(new["frame_time"] - readout)


def _set_energy(new: dict[str, Any], key: str) -> None:
    if key == "element":
        new["photon_energy"] = float32(K_ALPHA[new["element"]])
    elif key == "wavelength":
        energy = HC_OVER_E / new["wavelength"]
        # A limit read back in single precision may lie a hair outside the energy's limit.
        new["photon_energy"] = float32(min(max(energy, LOWEST_ENERGY), HIGHEST_ENERGY))
    if key != "wavelength":
        new["wavelength"] = float32(HC_OVER_E / new["photon_energy"])
    if key != "element":
        new["element"] = ""
    half = new["photon_energy"] / 2
    new["threshold_energy"] = float32(min(max(half, LOWEST_THRESHOLD), HIGHEST_THRESHOLD))


def check_series(config: Mapping[str, Any]) -> None:
    """Refuse to arm what no detector can take.

    Raises
    ------
    RefusedError
        Above 2e9 images (the limit of firmware before 2022).
    """
    images = config["nimages"] * config["ntrigger"]
    if images > 2_000_000_000:
        raise RefusedError(f"nimages x ntrigger is {images}, more than 2000000000")


def _differ(new: Any, old: Any) -> bool:
    if isinstance(new, np.ndarray):
        return new is not old
    return new != old
