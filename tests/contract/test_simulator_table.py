"""The simulator's table of resources in the docs: as made, and with nothing missing."""

import json
import re
from pathlib import Path

from sim_dcu import resources

PAGE = Path(__file__).parents[2] / "docs" / "simulator_resources.md"
REFERENCE = json.loads(Path(__file__).with_name("simplon_v1.3_resources.json").read_text())

# What real detectors of firmware 1.6 serve beside the API reference 1.3's tables, and what EIGER2
# does: from users' recordings and clients' sources.
EIGER1_TOO = """
    detector/config/compression detector/config/pixel_mask_applied detector/config/roi_mode
    detector/config/bit_depth_image detector/config/frame_count_time detector/config/frame_period
    detector/config/nframes_sum detector/config/nsequences detector/config/summation_nimages
    detector/config/detector_readout_period detector/config/efficiency_correction_applied
    detector/config/virtual_pixel_correction_applied detector/config/calibration_type
    detector/config/countrate_correction_bunch_mode detector/config/countrate_correction_table
    detector/config/detector_orientation detector/config/detector_translation
    detector/config/eiger_fw_version detector/config/module_bandwidth detector/config/test_mode
    detector/config/two_theta_start detector/config/omega_increment
    detector/status/builder/dcu_buffer_free detector/status/link_0 detector/status/link_3
    detector/command/status_update detector/command/wait
    stream/config/mode stream/config/header_detail stream/config/header_appendix
    stream/config/image_appendix stream/status/state stream/status/error stream/status/dropped
    stream/command/initialize
"""
EIGER2 = """
    detector/config/auto_sum_strict detector/config/binning_mode detector/config/pixel_format
    detector/config/roi_bit_depth detector/config/roi_y_size detector/config/chi_axis
    detector/config/kappa_axis detector/config/omega_axis detector/config/phi_axis
    detector/config/two_theta_axis detector/config/detector_orientation
    detector/config/detector_orientation_axis detector/config/detector_orientation_angle
    detector/config/detector_translation detector/config/transformation_order
    detector/config/counting_mode detector/config/countrate_correction_table
    detector/config/extg_mode detector/config/nexpi detector/config/fast_arm
    detector/config/flux_type detector/config/flux_value detector/config/total_flux
    detector/config/incident_energy detector/config/incident_particle_type
    detector/config/instrument_name detector/config/sample_name detector/config/source_name
    detector/config/mask_to_zero detector/config/ntriggers_skipped detector/config/wavelength
    detector/config/test_image_mode detector/config/test_image_value
    detector/config/threshold/1/energy detector/config/threshold/2/mode
    detector/config/threshold/1/flatfield detector/config/threshold/2/pixel_mask
    detector/config/threshold/2/number_of_excluded_pixels
    detector/config/threshold/difference/mode detector/config/threshold/difference/lower_threshold
    detector/config/threshold/difference/upper_threshold detector/config/trigger_start_delay
    detector/status/state detector/status/error detector/status/time detector/status/humidity
    detector/status/temperature detector/status/high_voltage/state
    detector/status/series_unique_id detector/status/board_000/th0_temp
    detector/status/board_000/th0_humidity
    detector/command/hv_reset detector/command/check_connections
    filewriter/config/format filewriter/status/files monitor/config/discard_new
    monitor/status/buffer_free stream/config/format system/command/reboot system/command/shutdown
    system/command/create_log_tarball system/command/delete_logs
    system/config/system_info/service_tag
"""


def served(model: str) -> set[str]:
    """Return "subsystem/section/key" of every row of a model's tables."""
    found, subsystem = set(), ""
    for line in PAGE.read_text().splitlines():
        if heading := re.fullmatch(r"## (\S+): `/(\w+)/api/<v>/`", line):
            subsystem = heading[2] if heading[1] == model else ""
        elif subsystem and (row := re.match(r"\| ((?:config|status|command)/\S+) \|", line)):
            found.add(f"{subsystem}/{row[1]}")
    return found


def test_the_page_is_what_the_command_makes() -> None:
    assert PAGE.read_text() == resources.document()


def test_nothing_of_the_reference_is_missing() -> None:
    expected = {
        f"{subsystem}/{section}/{entry if isinstance(entry, str) else entry['key']}"
        for subsystem in ("detector", "monitor", "filewriter", "system")
        for section in ("config", "status", "command")
        for entry in REFERENCE[subsystem].get(section, ())
    }
    assert len(expected) == 65
    assert expected <= served("eiger-16m")


def test_nothing_of_real_detectors_is_missing() -> None:
    assert set(EIGER1_TOO.split()) <= served("eiger-16m")
    assert set(EIGER2.split()) <= served("eiger2-16m")


def test_what_is_no_value_is_named_too() -> None:
    page = PAGE.read_text()
    for path in ("/data/<name>", "/monitor/api/<v>/images/next", "/filewriter/api/<v>/files"):
        assert f"| {path} |" in page
