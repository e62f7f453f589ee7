"""Bluesky plans for what people do with an EIGER."""

from eiger_plans.acceptance import acceptance_test
from eiger_plans.arming import armed_once
from eiger_plans.care import suspenders
from eiger_plans.dark import dark
from eiger_plans.energy_scan import energy_scan
from eiger_plans.exposures import exposure_series
from eiger_plans.files import files_home
from eiger_plans.flatfield import flatfield
from eiger_plans.pixel_mask import update_pixel_mask
from eiger_plans.raster import raster
from eiger_plans.recovery import recover
from eiger_plans.rotation import rotation
from eiger_plans.series import series
from eiger_plans.simulated_motor import SimulatedMotor
from eiger_plans.snap import snap
from eiger_plans.threshold_scan import threshold_scan
from eiger_plans.triggering import PulseTrain, TriggerSource

__all__ = [
    "PulseTrain",
    "SimulatedMotor",
    "TriggerSource",
    "acceptance_test",
    "armed_once",
    "dark",
    "energy_scan",
    "exposure_series",
    "files_home",
    "flatfield",
    "raster",
    "recover",
    "rotation",
    "series",
    "snap",
    "suspenders",
    "threshold_scan",
    "update_pixel_mask",
]
