"""Bluesky plans for what people do with an EIGER."""

from eiger_plans.care import suspenders
from eiger_plans.recovery import recover
from eiger_plans.series import series

__all__ = ["recover", "series", "suspenders"]
