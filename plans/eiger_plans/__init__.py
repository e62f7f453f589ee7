"""Bluesky plans for what people do with an EIGER."""

from eiger_plans.care import suspenders
from eiger_plans.files import files_home
from eiger_plans.recovery import recover
from eiger_plans.series import series

__all__ = ["files_home", "recover", "series", "suspenders"]
