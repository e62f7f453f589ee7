"""Bluesky plans for what people do with an EIGER."""

from eiger_plans.care import suspenders
from eiger_plans.files import files_home
from eiger_plans.recovery import recover
from eiger_plans.series import series
from eiger_plans.simulated_motor import SimulatedMotor

__all__ = ["SimulatedMotor", "files_home", "recover", "series", "suspenders"]
