"""Armed series for tests of what a series leaves behind, without a detector around them."""

from functools import cache
from typing import Any

import numpy as np

from sim_dcu import geometry
from sim_dcu.series import ArmedSeries

# One configuration of an EIGER 1M, written down by hand: the values only have to be told apart.
DETECTOR = {
    "auto_summation": True,
    "beam_center_x": 515.5,
    "beam_center_y": 532.25,
    "bit_depth_image": 16,
    "bit_depth_readout": 12,
    "calibration_type": "standard",
    "compression": "bslz4",
    "count_time": 0.5,
    "countrate_correction_applied": True,
    "countrate_correction_bunch_mode": "continuous",
    "countrate_correction_count_cutoff": 184755,
    "data_collection_date": "2026-01-02T03:04:05.678901",
    "description": "Dectris Eiger 1M",
    "detector_distance": 0.125,
    "detector_number": "E-02-0000",
    "detector_orientation": [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0],
    "detector_readout_period": 0.000333,
    "detector_readout_time": 1e-05,
    "detector_translation": [0.0386625, 0.03991875, -0.125],
    "efficiency_correction_applied": False,
    "eiger_fw_version": "eiger-1.6.6-0.sim.release",
    "element": "Cu",
    "flatfield_correction_applied": True,
    "frame_count_time": 0.00124,
    "frame_period": 0.00125,
    "frame_time": 0.50001,
    "module_bandwidth": 1080,
    "nframes_sum": 400,
    "nimages": 1,
    "nsequences": 1,
    "ntrigger": 1,
    "photon_energy": 8047.78,
    "pixel_mask_applied": True,
    "roi_mode": "disabled",
    "sensor_material": "Si",
    "sensor_thickness": 0.00045,
    "software_version": "1.6.6",
    "test_mode": 0,
    "threshold_energy": 4023.89,
    "trigger_mode": "ints",
    "virtual_pixel_correction_applied": True,
    "wavelength": 1.5406,
    "x_pixel_size": 7.5e-05,
    "y_pixel_size": 7.5e-05,
    **{
        f"{axis}_{end}": 0.0
        for axis in ("chi", "kappa", "omega", "phi", "two_theta")
        for end in ("start", "increment")
    },
}
# What an EIGER2 says otherwise, and what an EIGER1 alone or an EIGER2 alone has.
EIGER1_ALONE = (
    "calibration_type",
    "countrate_correction_bunch_mode",
    "detector_readout_period",
    "efficiency_correction_applied",
    "module_bandwidth",
    "nframes_sum",
    "nsequences",
    "test_mode",
)
EIGER2_DETECTOR = {
    **{key: value for key, value in DETECTOR.items() if key not in EIGER1_ALONE},
    "beam_center_x": 514.25,
    "bit_depth_readout": 16,
    "countrate_correction_table": np.arange(65535, dtype="<u4"),
    "data_collection_date": "2026-01-02T03:04:05.678+08:00",
    "description": "Dectris EIGER2 Si 1M",
    "detector_readout_time": 1e-07,
    "detector_translation": [0.03856875, 0.03991875, -0.125],
    "eiger_fw_version": "release-2022.1.2",
    "software_version": "1.8.0",
}
FILEWRITER = {
    "compression_enabled": True,
    "image_nr_start": 1,
    "mode": "enabled",
    "name_pattern": "series_$id",
    "nimages_per_file": 1000,
}


@cache
def pixel_mask(modules: tuple[int, int], seed: int, generation: geometry.Generation) -> np.ndarray:
    return geometry.default_pixel_mask(*modules, seed, generation)


@cache
def flatfield(modules: tuple[int, int], generation: geometry.Generation) -> np.ndarray:
    return geometry.default_flatfield(*modules, generation)


def armed_series(
    modules: tuple[int, int] = (1, 1),
    seed: int = 3,
    series_id: int = 7,
    generation: geometry.Generation = geometry.EIGER1,
    **changes: Any,
) -> ArmedSeries:
    """Return a series of a detector of `modules` (x, y), by default a 500K, with `changes`.

    A change goes where its key is, to the filewriter's configuration or to the detector's.
    """
    ny, nx = geometry.detector_size(*modules, generation)
    mask = pixel_mask(modules, seed, generation)
    detector = {
        **(DETECTOR if generation is geometry.EIGER1 else EIGER2_DETECTOR),
        "x_pixels_in_detector": nx,
        "y_pixels_in_detector": ny,
        "pixel_mask": mask,
        "number_of_excluded_pixels": int((mask != 0).sum()),
        "flatfield": flatfield(modules, generation),
    }
    filewriter = dict(FILEWRITER)
    for key, value in changes.items():
        (filewriter if key in filewriter else detector)[key] = value
    return ArmedSeries(series_id, seed, detector, filewriter)
