"""Every resource of the API reference 1.3: a signal on the client side, served by the simulator.

The reference is `simplon_v1.3_resources.json` beside this file, transcribed table by table; neither
package is asked what it should have. Where they differ from it, a closed list here says why.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

import sim_dcu
from ophyd_eiger import subsystems
from ophyd_eiger.signals import EigerCommand, EigerSignal

REFERENCE = json.loads(Path(__file__).with_name("simplon_v1.3_resources.json").read_text())
SUBSYSTEMS = ("detector", "monitor", "filewriter", "system")
CLASSES = {name: getattr(subsystems, name.capitalize()) for name in SUBSYSTEMS}

# What the reference lists that is no value and no command, and so no signal.
NO_SIGNALS = {
    "detector/whole_config": "all values at once; the reference itself advises against it",
    "monitor/images": "the images that the monitor holds",
    "filewriter/files": "the list of files",
}
# The reference's types, as real detectors spell them in `value_type`.
WIRE_TYPES = {
    "float": "float",
    "uint": "uint",
    "int": "int",
    "bool": "bool",
    "string": "string",
    "float[][]": "float",
    "uint[][]": "uint",
    "list-of-strings": "string",
    "date": "string",
}
# Where real detectors are known to answer otherwise than the reference's tables.
OTHER_TYPES = {
    "filewriter/config/nimages_per_file": "uint",
    "filewriter/config/image_nr_start": "uint",
    "filewriter/status/buffer_free": "uint",
    # Misprint: typed bool, though the remark beside it names the strings.
    "monitor/config/mode": "string",
}
# Typed int in the reference, which calls them pairs in its remarks.
PAIRS = (
    "monitor/status/buffer_fill_level",
    "monitor/status/next_image_number",
    "monitor/status/monitor_image_number",
)
# Unit, minimum and maximum that real EIGER1 of firmware 1.6.6 answered, where a unit or a limit is
# not the type's own; single precision, so to 1e-6.
FACTS = {
    "count_time": ("s", 2.99999e-06, 1800),
    "frame_time": ("s", 1 / 3000, 360000),  # 3000 Hz: the maker's rate for a 1M
    "nimages": (None, 1, 2000000000),
    "ntrigger": (None, 1, 2000000000),
    "photon_energy": ("eV", 5000, 36000),
    "threshold_energy": ("eV", 2700, 18000),
    "wavelength": ("angstrom", 0.34440052509307861, 2.4796838760375977),
    "beam_center_x": ("pixel", -3.4028234663852886e38, 3.4028234663852886e38),
    "beam_center_y": ("pixel", -3.4028234663852886e38, 3.4028234663852886e38),
    "detector_distance": ("m", -3.4028234663852886e38, 3.4028234663852886e38),
    "detector_readout_time": ("s", -3.4028234663852886e38, 3.4028234663852886e38),
    "sensor_thickness": ("m", -3.4028234663852886e38, 3.4028234663852886e38),
    "x_pixel_size": ("m", -3.4028234663852886e38, 3.4028234663852886e38),
    "y_pixel_size": ("m", -3.4028234663852886e38, 3.4028234663852886e38),
    "auto_summation": (None, -2147483648, 2147483647),
    "flatfield_correction_applied": (None, -2147483648, 2147483647),
    "countrate_correction_applied": (None, -2147483648, 2147483647),
    "number_of_excluded_pixels": (None, 0, 4294967295),
    "countrate_correction_count_cutoff": (None, 0, 4294967295),
    "x_pixels_in_detector": (None, 0, 4294967295),
    "y_pixels_in_detector": (None, 0, 4294967295),
    "bit_depth_readout": (None, -2147483648, 2147483647),
    "flatfield": (None, -3.4028234663852886e38, 3.4028234663852886e38),
    "pixel_mask": (None, 0, 4294967295),
}
OTHER_ACCESS = {
    # Misprint: no access mode printed.
    "detector/config/data_collection_date": "rw",
}
OTHER_RETURNS = {
    # EIGER1 answers -1, which is no series.
    "detector/command/trigger": {"sequence id": -1},
}
# Misprint: missing in the reference's list of states.
OTHER_STATES = {"detector": {"idle"}, "filewriter": set(), "monitor": set()}
# Replies that hold nothing but these, on a real EIGER1.
BRIEF = {"value", "value_type", "time"}


def resources(*sections: str, of: tuple[str, ...] = SUBSYSTEMS) -> list[str]:
    """Return "subsystem/section/key" of every resource in these sections."""
    return [
        f"{subsystem}/{section}/{entry if isinstance(entry, str) else entry['key']}"
        for subsystem in of
        for section in sections
        for entry in REFERENCE[subsystem].get(section, ())
    ]


def entry_of(resource: str) -> dict:
    subsystem, section, key = resource.split("/", 2)
    return next(entry for entry in REFERENCE[subsystem][section] if entry["key"] == key)


VALUES = resources("config", "status")
COMMANDS = resources("command")


def test_the_transcription_is_whole() -> None:
    """As many as rows were counted in the tables of the reference."""
    counts = {
        f"{subsystem}/{section}": len(resources(section, of=(subsystem,)))
        for subsystem in SUBSYSTEMS
        for section in ("config", "status", "command")
    }
    assert counts == {
        "detector/config": 31,
        "detector/status": 5,
        "detector/command": 6,
        "monitor/config": 2,
        "monitor/status": 6,
        "monitor/command": 2,
        "filewriter/config": 6,
        "filewriter/status": 4,
        "filewriter/command": 2,
        "system/config": 0,
        "system/status": 0,
        "system/command": 1,
    }


# ---- (a) on the client side


@pytest.mark.parametrize("resource", VALUES + COMMANDS)
def test_each_resource_is_a_signal(resource: str) -> None:
    subsystem, section, key = resource.split("/", 2)
    # `trigger` is bluesky's verb.
    attribute = "soft_trigger" if resource == "detector/command/trigger" else key.replace("/", "_")
    component = getattr(CLASSES[subsystem], attribute)
    assert component.suffix == f"{section}/{key}"
    expected = EigerCommand if section == "command" else EigerSignal
    assert issubclass(component.cls, expected)
    assert CLASSES[subsystem].subsystem == subsystem


def test_nothing_else_of_the_reference_is_left_out() -> None:
    known = {"config", "status", "command", "state_values", "pixel_mask_bits"}
    others = {
        f"{subsystem}/{section}"
        for subsystem in SUBSYSTEMS
        for section in REFERENCE[subsystem]
        if section not in known
    }
    assert others == set(NO_SIGNALS)


# ---- (b) on the wire


@pytest.fixture
def dcu() -> Iterator[sim_dcu.Server]:
    with sim_dcu.serve("eiger-1m", initialized=True) as server:
        yield server


@pytest.fixture(scope="module")
def quiet_dcu() -> Iterator[sim_dcu.Server]:
    """A simulator for all tests that change nothing."""
    with sim_dcu.serve("eiger-1m", initialized=True) as server:
        yield server


def url(server: sim_dcu.Server, resource: str) -> str:
    subsystem, _, rest = resource.partition("/")
    return f"{server.url}/{subsystem}/api/1.0.0/{rest}"


def get(server: sim_dcu.Server, resource: str) -> requests.Response:
    return requests.get(url(server, resource), timeout=30)


def put(server: sim_dcu.Server, resource: str, content: object = None) -> requests.Response:
    return requests.put(url(server, resource), json=content, timeout=30)


@pytest.mark.parametrize("resource", resources("config"))
def test_each_config_value_is_served(quiet_dcu, resource: str) -> None:
    entry, reply = entry_of(resource), get(quiet_dcu, resource)
    assert reply.status_code == 200
    content = reply.json()
    assert content.keys() <= set(REFERENCE["get_keys"])
    assert content.keys() >= {"value", "value_type", "access_mode"}
    value_type = OTHER_TYPES.get(resource, WIRE_TYPES[entry["type"]])
    assert content["value_type"] == value_type
    assert content["access_mode"] == OTHER_ACCESS.get(resource, entry["access"])
    numeric = value_type in ("float", "int", "uint", "bool")
    assert ("min" in content, "max" in content) == (numeric, numeric)
    assert_is(content["value"], "string" if value_type == "string" else entry["type"])


def test_units_and_limits_are_a_real_detectors(quiet_dcu) -> None:
    numbers = {
        entry["key"] for entry in REFERENCE["detector"]["config"] if entry["type"] != "string"
    }
    assert numbers == FACTS.keys()
    for key, (unit, low, high) in FACTS.items():
        content = get(quiet_dcu, f"detector/config/{key}").json()
        assert content.get("unit") == unit, key
        assert (content["min"], content["max"]) == pytest.approx((low, high), rel=1e-6), key


@pytest.mark.parametrize("resource", resources("status"))
def test_each_status_value_is_served(quiet_dcu, resource: str) -> None:
    entry, reply = entry_of(resource), get(quiet_dcu, resource)
    assert reply.status_code == 200
    content = reply.json()
    subsystem, _, key = resource.split("/", 2)
    brief = key in ("error", "time")
    keys = BRIEF if brief else set(REFERENCE["status_keys"])
    # A real 500K's time does not say when it was taken.
    assert content.keys() == (keys - {"time"} if key == "time" else keys)
    assert content["value_type"] == OTHER_TYPES.get(resource, WIRE_TYPES[entry["type"]])
    if key == "error":
        assert content["value"] == []
    elif key == "state":
        states = set(REFERENCE[subsystem]["state_values"]) | OTHER_STATES[subsystem]
        assert content["value"] in states
    elif resource in PAIRS:
        assert isinstance(content["value"], list)
    else:
        assert_is(content["value"], entry["type"])
    if not brief:
        assert content["state"] in REFERENCE["status_states"]


def assert_is(value: object, kind: str) -> None:
    """Check a JSON value against the reference's type."""
    if kind.endswith("[][]"):
        assert isinstance(value, dict)
        assert value["shape"] == [1065, 1030]
    elif kind == "bool":
        assert isinstance(value, bool)
    elif kind == "float":
        assert isinstance(value, float)
    elif kind in ("int", "uint"):
        assert isinstance(value, int)
        assert not isinstance(value, bool)
    else:
        assert isinstance(value, str)


@pytest.mark.parametrize("resource", resources("config"))
def test_access_is_as_stated(dcu, resource: str) -> None:
    """What can be written takes its own value again, and what is read-only takes nothing."""
    before = get(dcu, resource).json()["value"]
    reply = put(dcu, resource, {"value": before})
    if OTHER_ACCESS.get(resource, entry_of(resource)["access"]) == "r":
        assert reply.status_code == 400
        return
    assert reply.status_code == 200
    if resource.startswith("detector"):
        assert resource.removeprefix("detector/config/") in reply.json()
    else:
        assert reply.content == b""
    after = get(dcu, resource).json()["value"]
    assert after == before


@pytest.mark.parametrize("resource", VALUES)
def test_values_cannot_be_deleted_or_posted(quiet_dcu, resource: str) -> None:
    for method in ("DELETE", "POST"):
        reply = requests.request(method, url(quiet_dcu, resource), timeout=30)
        assert reply.status_code in (404, 405)


@pytest.mark.parametrize("resource", resources("command"))
def test_each_command_answers_as_stated(dcu, resource: str) -> None:
    returns = entry_of(resource)["returns"] if resource.startswith("detector") else None
    if resource in ("detector/command/trigger", "detector/command/disarm"):
        assert put(dcu, "detector/command/arm").json() == {"sequence id": 1}
    reply = put(dcu, resource)
    assert reply.status_code == 200
    if resource in OTHER_RETURNS:
        assert reply.json() == OTHER_RETURNS[resource]
    elif returns is None:
        assert reply.content == b""
    else:
        assert returns == "sequence_id: int"
        # The name has a blank on the wire; cancel and abort of nothing name the last series.
        assert reply.json() == {"sequence id": 0 if resource[17:] in ("cancel", "abort") else 1}


def test_whole_config_is_served_without_arrays(quiet_dcu) -> None:
    for path in ("detector/config", "detector/config/"):
        content = get(quiet_dcu, path).json()
        listed = {entry["key"] for entry in REFERENCE["detector"]["config"]}
        assert listed - content.keys() == {"flatfield", "pixel_mask"}
        assert content["count_time"] == get(quiet_dcu, "detector/config/count_time").json()


def test_files_are_listed(quiet_dcu) -> None:
    assert get(quiet_dcu, "filewriter/files/").json() == []


@pytest.mark.parametrize("key", ["", "monitor", "next", "1/1"])
def test_monitor_images_are_served(quiet_dcu, key: str) -> None:
    """Without an image, as the reference says: an empty list, 408 after the time given, 404."""
    entry = next(
        entry for entry in REFERENCE["monitor"]["images"] if entry["key"] in (key, "<series>/<id>")
    )
    timeout = "?timeout=1" if entry.get("timeout_ms") else ""
    reply = get(quiet_dcu, f"monitor/images/{key}{timeout}")
    assert reply.status_code == entry.get("none", 200)
    if not key:
        assert reply.json() == []
