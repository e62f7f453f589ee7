"""Bluesky plans for what people do with an EIGER."""

from eiger_plans.acceptance import acceptance_test
from eiger_plans.care import suspenders
from eiger_plans.dark import dark
from eiger_plans.energy_scan import energy_scan
from eiger_plans.files import files_home
from eiger_plans.flatfield import flatfield
from eiger_plans.pixel_mask import update_pixel_mask
from eiger_plans.recovery import recover
from eiger_plans.series import series
from eiger_plans.threshold_scan import threshold_scan

__all__ = [
    "acceptance_test",
    "dark",
    "energy_scan",
    "files_home",
    "flatfield",
    "recover",
    "series",
    "suspenders",
    "threshold_scan",
    "update_pixel_mask",
]
