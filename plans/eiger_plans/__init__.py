"""Bluesky plans for what people do with an EIGER."""

from eiger_plans.acceptance import acceptance_test
from eiger_plans.care import suspenders
from eiger_plans.files import files_home
from eiger_plans.recovery import recover
from eiger_plans.series import series

__all__ = ["acceptance_test", "files_home", "recover", "series", "suspenders"]
