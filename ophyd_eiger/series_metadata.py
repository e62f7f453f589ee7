"""What a master file says of a series beside its images, with units, as one object.

Source: real master files of firmware 1.6, and DECTRIS' description of the format
"hdf5 nexus v2024.2 nxmx" of its file writer.
"""

import dataclasses
import datetime as dt
import logging
import os
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ophyd_eiger.errors import FileError
from ophyd_eiger.master import HDF5_ERRORS, object_of, only_value, open_hdf5, stored_in

logger = logging.getLogger(__name__)

_DETECTOR = "entry/instrument/detector"
_SPECIFIC = f"{_DETECTOR}/detectorSpecific"
# In bytes, of a value for each image: of more of them than any axis is turned for.
_LARGEST_LIST = 2**24
# h c / e in eV angstrom, exact since the SI of 2019.
HC = 12398.41984332
# What each unit that files have is in the unit used here.
_FACTORS = {
    "m": {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "um": 1e-6, "nm": 1e-9},
    "s": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9},
    "eV": {"eV": 1.0, "keV": 1e3},
    "angstrom": {"A": 1.0, "nm": 10.0, "m": 1e10},
    "pixel": {"px": 1.0},
    "degree": {"deg": 1.0, "rad": 180.0 / np.pi},
}
# Symbols are as they are written, for m is not M; these words, of one or several, in any case.
_SYMBOLS = {
    **dict.fromkeys(("meter", "metre"), "m"),
    **dict.fromkeys(("centimeter", "centimetre"), "cm"),
    **dict.fromkeys(("millimeter", "millimetre"), "mm"),
    **dict.fromkeys(("micrometer", "micrometre", "micron"), "um"),
    **dict.fromkeys(("nanometer", "nanometre"), "nm"),
    **dict.fromkeys(("second", "sec"), "s"),
    **dict.fromkeys(("millisecond", "msec"), "ms"),
    **dict.fromkeys(("microsecond", "usec"), "us"),
    **dict.fromkeys(("nanosecond", "nsec"), "ns"),
    **dict.fromkeys(("ev", "electronvolt"), "eV"),
    **dict.fromkeys(("kev", "kiloelectronvolt"), "keV"),
    **dict.fromkeys(("angstrom", "\u00e5ngstr\u00f6m", "\u00e5"), "A"),
    **dict.fromkeys(("pixel", "px"), "px"),
    **dict.fromkeys(("degree", "deg"), "deg"),
    **dict.fromkeys(("radian", "rad"), "rad"),
}


def _field(*places: str, unit: str = "") -> Any:
    """Return a field that is read from the first of these places that a file has."""
    return dataclasses.field(default=None, metadata={"places": places, "unit": unit})


def _angle(axis: str) -> Any:
    if axis == "two_theta":
        places = (f"{_DETECTOR}/goniometer/{axis}", f"{_DETECTOR}/transformations/{axis}")
    else:
        places = (f"entry/sample/goniometer/{axis}", f"entry/sample/transformations/{axis}")
    return _field(*places, unit="degree")


@dataclass(frozen=True, eq=False)
class SeriesMetadata:
    """What a master file says; None where it says nothing, or nothing that can be used.

    Attributes
    ----------
    beam_center_x, beam_center_y : float
        Where the beam meets the detector, in pixels from the first one.
    detector_distance : float
        From the sample, in m.
    wavelength : float
        In angstrom.
    photon_energy, threshold_energy : float
        In eV; of the series' channel where there are several.
    count_time, frame_time : float
        In s.
    x_pixel_size, y_pixel_size : float
        In m.
    bit_depth_image, bit_depth_readout : int
        In bits.
    flatfield_applied : bool
        Whether the detector multiplied the images with its flat field.
    nimages, ntrigger : int
        Images of a trigger, and triggers of the series.
    trigger_mode, detector_number, description, sensor_material, software_version : str
        As the detector has them.
    sensor_thickness : float
        In m.
    date : datetime.datetime
        When the series was armed; without a zone where the file has none.
    omega, chi, phi, kappa, two_theta : numpy.ndarray
        float64 of shape (images,), in degrees: where each image began.
    """

    beam_center_x: float | None = _field(f"{_DETECTOR}/beam_center_x", unit="pixel")
    beam_center_y: float | None = _field(f"{_DETECTOR}/beam_center_y", unit="pixel")
    detector_distance: float | None = _field(
        f"{_DETECTOR}/detector_distance", f"{_DETECTOR}/distance", unit="m"
    )
    wavelength: float | None = _field(
        "entry/instrument/beam/incident_wavelength",
        "entry/sample/beam/incident_wavelength",
        "entry/instrument/monochromator/wavelength",
        unit="angstrom",
    )
    photon_energy: float | None = _field(
        f"{_SPECIFIC}/photon_energy", "entry/instrument/beam/incident_energy", unit="eV"
    )
    threshold_energy: float | None = _field(
        f"{_DETECTOR}/threshold_energy",
        f"{_DETECTOR}/{{channel}}_channel/threshold_energy",
        unit="eV",
    )
    count_time: float | None = _field(f"{_DETECTOR}/count_time", unit="s")
    frame_time: float | None = _field(f"{_DETECTOR}/frame_time", unit="s")
    x_pixel_size: float | None = _field(f"{_DETECTOR}/x_pixel_size", unit="m")
    y_pixel_size: float | None = _field(f"{_DETECTOR}/y_pixel_size", unit="m")
    bit_depth_image: int | None = _field(f"{_DETECTOR}/bit_depth_image")
    bit_depth_readout: int | None = _field(f"{_DETECTOR}/bit_depth_readout")
    flatfield_applied: bool | None = _field(
        f"{_DETECTOR}/flatfield_correction_applied",
        f"{_DETECTOR}/flatfield_applied",
        f"{_DETECTOR}/{{channel}}_channel/flatfield_applied",
    )
    nimages: int | None = _field(f"{_SPECIFIC}/nimages")
    ntrigger: int | None = _field(f"{_SPECIFIC}/ntrigger")
    trigger_mode: str | None = _field(f"{_SPECIFIC}/trigger_mode")
    detector_number: str | None = _field(
        f"{_DETECTOR}/detector_number", f"{_DETECTOR}/serial_number"
    )
    description: str | None = _field(f"{_DETECTOR}/description")
    sensor_material: str | None = _field(f"{_DETECTOR}/sensor_material")
    sensor_thickness: float | None = _field(f"{_DETECTOR}/sensor_thickness", unit="m")
    software_version: str | None = _field(f"{_SPECIFIC}/software_version")
    date: dt.datetime | None = _field(f"{_SPECIFIC}/data_collection_date", "entry/start_time")
    omega: np.ndarray | None = _angle("omega")
    chi: np.ndarray | None = _angle("chi")
    phi: np.ndarray | None = _angle("phi")
    kappa: np.ndarray | None = _angle("kappa")
    two_theta: np.ndarray | None = _angle("two_theta")

    def unit(self, name: str) -> str:
        """Return the unit of an attribute, "" if it has none.

        Raises
        ------
        KeyError
            If there is no such attribute.
        """
        return {field.name: field for field in dataclasses.fields(self)}[name].metadata["unit"]


def read_metadata(
    path: str | os.PathLike, channel: str = "", names: Collection[str] | None = None
) -> SeriesMetadata:
    """Read what a master file says of its series.

    Parameters
    ----------
    path : path
        The master file.
    channel : str
        The threshold whose energy is meant, where a file has several.
    names : collection of str, optional
        The attributes that are needed: the others are not read and None, whatever the file has.
        Without, all are read, and what cannot be used is None and a warning.

    Raises
    ------
    MissingFileError
        If there is no such file.
    FileError
        If a value that is needed is none of its kind, or in a unit that it is not known in.
    """
    path = Path(path)
    found: dict[str, Any] = {}
    with open_hdf5(path) as file:
        for field in dataclasses.fields(SeriesMetadata):
            if names is not None and field.name not in names:
                continue
            for place in field.metadata["places"]:
                dataset = object_of(file, place.format(channel=channel))
                # A dataset without a shape has no value, of text neither.
                if isinstance(dataset, h5py.Dataset) and dataset.shape is not None:
                    try:
                        found[field.name] = _value(dataset, field, path)
                    except FileError as error:
                        if names is not None:
                            raise
                        logger.warning("%s; %s is taken for not said", error, field.name)
                    break
    return SeriesMetadata(**found)


def _value(dataset: h5py.Dataset, field: dataclasses.Field, path: Path) -> Any:
    kind, unit = str(field.type), field.metadata["unit"]
    try:
        if "str" in kind:
            return _text(dataset)
        if "datetime" in kind:
            return dt.datetime.fromisoformat(_text(dataset)) if _text(dataset) else None
        factor = _factor(dataset, unit)
        if "ndarray" in kind:
            return np.atleast_1d(np.asarray(stored_in(dataset, _LARGEST_LIST), np.float64)) * factor
        if not dataset.size:
            raise ValueError("an array of no values")
        # What has several values is of several thresholds, the first of which is meant.
        value = np.ravel(stored_in(dataset))[0]
        if "bool" in kind:
            return bool(value)
        return int(value) if "int" in kind else float(value) * factor
    except (*HDF5_ERRORS, OverflowError) as error:
        raise FileError(f"{path}: {dataset.name} is not what it should be: {error}") from error


def _text(dataset: h5py.Dataset) -> str:
    return _decoded(only_value(stored_in(dataset)))


def _decoded(value: Any) -> str:
    """Return text, with replacements for what is none: some programs write other encodings."""
    if isinstance(value, str):  # in which h5py keeps such bytes as surrogates
        value = value.encode(errors="surrogateescape")
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _factor(dataset: h5py.Dataset, unit: str) -> float:
    """Return what a value is to be multiplied by, so that it is in `unit`.

    A value without a unit is in the one that EIGER files have it in, which is `unit`.
    """
    stated = dataset.attrs.get("units") if unit else None
    if stated is None or isinstance(stated, h5py.Empty):
        return 1.0
    # Some writers make an array of one text of it.
    text = "".join(_decoded(one) for one in np.ravel(stated)[:1])
    # There are two signs each for micro and for angstrom.
    name = unicodedata.normalize("NFKC", text).strip().replace("\u03bc", "u")
    if not name:
        return 1.0
    word = name.lower().removesuffix("(s)").removesuffix("s")
    factors = _FACTORS[unit]
    factor = factors.get(name, factors.get(_SYMBOLS.get(word, "")))
    if factor is None:
        raise ValueError(f"a unit of {text!r}, {unit} expected")
    return factor
