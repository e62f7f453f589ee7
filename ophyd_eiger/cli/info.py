"""`ophyd-eiger info`: which detector it is, and how it is set up."""

from typing import TYPE_CHECKING, Any

from ophyd_eiger.cli.common import Call, dcu_command
from ophyd_eiger.cli.names import short
from ophyd_eiger.cli.words import measured, unit_of

if TYPE_CHECKING:
    from ophyd_eiger.cli.asking import Answer, Dcu

# What is shown, by group: the label for people, and the resource. What a DCU does not serve is
# left out, so that both generations are in one list.
GROUPS: dict[str, tuple[tuple[str, str], ...]] = {
    "detector": (
        ("model", "detector/config/description"),
        ("serial number", "detector/config/detector_number"),
        ("software", "detector/config/software_version"),
        ("firmware", "detector/config/eiger_fw_version"),
        ("sensor", "detector/config/sensor_material"),
        ("sensor thickness", "detector/config/sensor_thickness"),
        ("pixels along x", "detector/config/x_pixels_in_detector"),
        ("pixels along y", "detector/config/y_pixels_in_detector"),
        ("pixel size", "detector/config/x_pixel_size"),
        ("region", "detector/config/roi_mode"),
        ("masked pixels", "detector/config/number_of_excluded_pixels"),
    ),
    "beam": (
        ("photon energy", "detector/config/photon_energy"),
        ("wavelength", "detector/config/wavelength"),
        ("threshold", "detector/config/threshold_energy"),
        ("threshold 2", "detector/config/threshold/2/mode"),
        ("beam center x", "detector/config/beam_center_x"),
        ("beam center y", "detector/config/beam_center_y"),
        ("distance", "detector/config/detector_distance"),
    ),
    "series": (
        ("trigger mode", "detector/config/trigger_mode"),
        ("exposure", "detector/config/count_time"),
        ("image to image", "detector/config/frame_time"),
        ("images a trigger", "detector/config/nimages"),
        ("triggers", "detector/config/ntrigger"),
        ("bits a pixel", "detector/config/bit_depth_image"),
        ("compression", "detector/config/compression"),
    ),
    "data": (
        ("file writer", "filewriter/config/mode"),
        ("name pattern", "filewriter/config/name_pattern"),
        ("images a file", "filewriter/config/nimages_per_file"),
        ("monitor", "monitor/config/mode"),
        ("stream", "stream/config/mode"),
    ),
}


@dcu_command("info")
def command(call: Call) -> None:
    """Show which detector it is and its main settings."""
    dcu, state = call.reach()
    found: dict[str, Answer] = {}
    for rows in GROUPS.values():
        for _, resource in rows:
            answer = dcu.answer(resource)
            if answer is not None:
                found[resource] = answer
    document = {
        "url": dcu.url,
        "api_version": dcu.client.api_version,
        "state": state,
        "values": {
            resource: {"value": answer.value, "unit": unit_of(resource, answer.metadata.unit)}
            for resource, answer in found.items()
        },
    }
    call.give(document, *([] if call.as_json else [_table(dcu, state, found)]))
    if state == "na":
        call.say(f"not initialized, so it has no settings: ophyd-eiger initialize {dcu.url}")


def _table(dcu: "Dcu", state: str, found: "dict[str, Answer]") -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_row(Text("DCU", "bold"), "address", Text(dcu.url, "bold"), "")
    table.add_row("", "API version", dcu.client.api_version, "")
    table.add_row("", "state", Text(state, "bold"), "")
    for group, rows in GROUPS.items():
        first = True
        for label, resource in rows:
            answer = found.get(resource)
            if answer is None:
                continue
            shown = measured(answer.value, answer.metadata.unit, resource)
            title = Text(group if first else "", "bold")
            table.add_row(title, label, shown, Text(short(resource), "dim"))
            first = False
    return table
