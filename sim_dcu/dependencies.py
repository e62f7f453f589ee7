"""What a put changes beside the parameter itself: pure functions of the configuration.

`settled` is the one entry. What differs between the generations is in their `Rules`
(`sim_dcu.rules_eiger1`, `sim_dcu.rules_eiger2`). Source of each rule at the rule; the reference for
all of them is the SIMPLON API reference with the manuals' remarks on consistency.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim_dcu.calibration import Calibration
from sim_dcu.rounding import Rounding

# h c / e in eV angstrom, exact in the SI of 2019.
HC_OVER_E = 12398.41984332

# K-alpha1 energies in eV: X-ray Data Booklet (LBNL, 2009), table 1-2, after Bearden 1967.
K_ALPHA: Mapping[str, float] = {
    "Li": 54.3, "Be": 108.5, "B": 183.3, "C": 277.0, "N": 392.4,
    "O": 524.9, "F": 676.8, "Ne": 848.6, "Na": 1040.98, "Mg": 1253.6,
    "Al": 1486.7, "Si": 1739.98, "P": 2013.7, "S": 2307.84, "Cl": 2622.39,
    "Ar": 2957.7, "K": 3313.8, "Ca": 3691.68, "Sc": 4090.6, "Ti": 4510.84,
    "V": 4952.2, "Cr": 5414.72, "Mn": 5898.75, "Fe": 6403.84, "Co": 6930.32,
    "Ni": 7478.15, "Cu": 8047.78, "Zn": 8638.86, "Ga": 9251.74, "Ge": 9886.42,
    "As": 10543.72, "Se": 11222.4, "Br": 11924.2, "Kr": 12649.0, "Rb": 13395.3,
    "Sr": 14165.0, "Y": 14958.4, "Zr": 15775.1, "Nb": 16615.1, "Mo": 17479.34,
    "Tc": 18367.1, "Ru": 19279.2, "Rh": 20216.1, "Pd": 21177.1, "Ag": 22162.92,
    "Cd": 23173.6, "In": 24209.7, "Sn": 25271.3, "Sb": 26359.1, "Te": 27472.3,
    "I": 28612.0, "Xe": 29779.0, "Cs": 30972.8, "Ba": 32193.6, "La": 33441.8,
    "Ce": 34719.7,
}  # fmt: skip

TIMES = ("count_time", "frame_time")
ENERGIES = ("photon_energy", "element", "wavelength")


@dataclass(frozen=True)
class Threshold:
    """One energy threshold and the arrays that belong to it, by config key.

    Attributes
    ----------
    energy, flatfield, mask, excluded : str
        Its energy in eV, its arrays, and the count of its masked pixels.
    full_mask : str
        The internal value that holds the mask of the whole detector, region or not.
    share : float
        Which part of the photon energy it becomes when that is put.
    """

    energy: str
    flatfield: str
    mask: str
    excluded: str
    full_mask: str
    share: float


@dataclass(frozen=True)
class Rules:
    """What differs between the generations.

    Attributes
    ----------
    rounding : Rounding
        How floats are kept.
    hc_over_e : float
        The firmware's h c / e in eV angstrom.
    thresholds : tuple of Threshold
        Those fitted.
    twins : mapping
        A second name of a parameter to its first: both always hold the same.
    may_change : mapping
        What a put's reply names whether or not it moved ("changed or may have changed").
    unnamed : frozenset of str
        What it never names though it changed; what else changed it names.
    whole_reply : mapping
        Puts whose reply is this list, whatever changed.
    slow : frozenset of str
        What has the flat field computed anew, which takes seconds.
    energy_limits, threshold_limits : tuple of float
        (lowest, highest) in eV, for values that follow from others.
    derived : callable
        From the configuration and the key that was put (or "" at initialize and at arm) to the
        read-only values that follow, by key.
    refusal : callable
        From the configuration, a key and its new value to why it is refused, or "".
    unarmable : callable
        From the configuration to why no series can be armed with it, or "".
    """

    rounding: Rounding
    hc_over_e: float
    thresholds: tuple[Threshold, ...]
    twins: Mapping[str, str]
    may_change: Mapping[str, tuple[str, ...]]
    unnamed: frozenset[str]
    whole_reply: Mapping[str, tuple[str, ...]]
    slow: frozenset[str]
    energy_limits: tuple[float, float]
    threshold_limits: tuple[float, float]
    derived: Callable[[Mapping[str, Any], str], dict[str, Any]]
    refusal: Callable[[Mapping[str, Any], str, Any], str]
    unarmable: Callable[[Mapping[str, Any]], str]


def settled(
    rules: Rules, config: Mapping[str, Any], key: str, value: Any, calibration: Calibration
) -> dict[str, Any]:
    """Return what a put changes.

    Parameters
    ----------
    rules : Rules
        The generation's.
    config : Mapping
        Every detector/config value before the put, internal ones too; times in s, energies in eV.
    key, value
        What is put, already accepted.
    calibration : Calibration
        The factory's arrays, and where each region lies.

    Returns
    -------
    dict
        The new value by key of all that is different now; empty where nothing is.
    """
    first = rules.twins.get(key, key)
    new = {**config, key: value, first: value}
    if first in TIMES:
        _fit_times(rules, new, first)
    elif first in ENERGIES:
        _set_energy(rules, new, first)
        _renew_flatfields(rules, new, calibration)
    elif first == "roi_mode" and value != config[first]:
        _set_region(rules, new, config["roi_mode"], calibration)
    for threshold in rules.thresholds:
        if first == threshold.energy:
            # A user's flat field belongs to a threshold and is lost with it (API reference 1.8).
            _renew_flatfields(rules, new, calibration)
        elif first == threshold.mask:
            whole = calibration.pasted(new[threshold.full_mask], value, new["roi_mode"])
            new[threshold.full_mask] = whole
    _count_excluded(rules, new, config)
    new.update(rules.derived(new, first))
    for twin, original in rules.twins.items():
        new[twin] = new[original]
    return {name: new[name] for name in new if _differ(new[name], config[name])}


def named_in_reply(rules: Rules, key: str, changed: Mapping[str, Any]) -> list[str]:
    """Return the reply of a put: sorted names of what changed or may have, `key` included."""
    if key in rules.whole_reply:
        return sorted(rules.whole_reply[key])
    told = (name for name in changed if not name.startswith("_") and name not in rules.unnamed)
    return sorted({key, *rules.may_change.get(key, ()), *told})


def detector_translation(config: Mapping[str, Any], rounding: Rounding) -> list[float]:
    """Return beam centre times pixel size, then minus the distance, in m.

    So in the stream headers of a real EIGER 16M and of a real EIGER2 Si 16M (firmware 2020.2.1);
    the API reference 1.8 has plus.
    """
    return [
        rounding.nearest(config["beam_center_x"] * config["x_pixel_size"]),
        rounding.nearest(config["beam_center_y"] * config["y_pixel_size"]),
        0.0 - config["detector_distance"],
    ]


def _fit_times(rules: Rules, new: dict[str, Any], key: str) -> None:
    # The time that was put holds and the other one gives way, by the read-out time (EIGER2 user
    # manual 7.4). Rounded away from each other, so that rounding never breaks the rule.
    readout = new["detector_readout_time"]
    if new["count_time"] + readout <= new["frame_time"]:
        return
    if key == "count_time":
        new["frame_time"] = rules.rounding.above(new["count_time"] + readout)
    else:
        new["count_time"] = rules.rounding.below(new["frame_time"] - readout)


def _set_energy(rules: Rules, new: dict[str, Any], key: str) -> None:
    nearest = rules.rounding.nearest
    if key == "element":
        new["photon_energy"] = nearest(K_ALPHA[new["element"]])
    elif key == "wavelength":
        # A limit read back rounded may lie a hair outside the energy's limit.
        energy = rules.hc_over_e / new["wavelength"]
        new["photon_energy"] = nearest(_within(energy, rules.energy_limits))
    if key != "wavelength":
        new["wavelength"] = nearest(rules.hc_over_e / new["photon_energy"])
    if key != "element":
        new["element"] = ""
    for threshold in rules.thresholds:
        energy = threshold.share * new["photon_energy"]
        new[threshold.energy] = nearest(_within(energy, rules.threshold_limits))


def _within(value: float, limits: tuple[float, float]) -> float:
    return min(max(value, limits[0]), limits[1])


def _renew_flatfields(rules: Rules, new: dict[str, Any], calibration: Calibration) -> None:
    for threshold in rules.thresholds:
        new[threshold.flatfield] = calibration.flatfield(new["roi_mode"])


def _set_region(rules: Rules, new: dict[str, Any], before: str, calibration: Calibration) -> None:
    # Sizes and the beam centre follow the region and the times fall back (LImA and areaDetector
    # read them again); a user's mask stays, for the part that is read out.
    region = new["roi_mode"]
    new["y_pixels_in_detector"], new["x_pixels_in_detector"] = calibration.shape(region)
    for axis, then, now in zip(
        "yx", calibration.origin(before), calibration.origin(region), strict=True
    ):
        new[f"beam_center_{axis}"] = rules.rounding.nearest(new[f"beam_center_{axis}"] + then - now)
    new["count_time"], new["frame_time"] = new["_default_times"]
    _renew_flatfields(rules, new, calibration)
    for threshold in rules.thresholds:
        new[threshold.mask] = calibration.cut(new[threshold.full_mask], region)


def _count_excluded(rules: Rules, new: dict[str, Any], config: Mapping[str, Any]) -> None:
    for threshold in rules.thresholds:
        if new[threshold.mask] is not config[threshold.mask]:
            new[threshold.excluded] = int(np.count_nonzero(new[threshold.mask]))


def _differ(new: Any, old: Any) -> bool:
    if isinstance(new, np.ndarray):
        return new is not old
    return new != old
