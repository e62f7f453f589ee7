"""Plans: those of bluesky that are used most, and all for an EIGER."""

from bluesky.plan_stubs import mv, mvr
from bluesky.plans import count, grid_scan, list_scan, rel_scan, scan
from eiger_plans import *
