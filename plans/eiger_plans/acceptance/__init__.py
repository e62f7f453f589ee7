"""A check of a real or simulated detector, with a report that a beamline can sign."""

from eiger_plans.acceptance.findings import Check, Report, Verdict
from eiger_plans.acceptance.plan import acceptance_test

__all__ = ["Check", "Report", "Verdict", "acceptance_test"]
