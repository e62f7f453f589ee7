"""What real detectors were found to answer, name by name: an EIGER 500K and an EIGER2 XE 16M."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

import sim_dcu

FOLDER = Path(__file__).parent / "recorded"
EIGER1 = json.loads((FOLDER / "eiger1_500k.json").read_text())
EIGER2 = json.loads((FOLDER / "eiger2_xe_16m.json").read_text())
SECTIONS = [name for name in EIGER2 if "/" in name]
# Listed by a real one too, and left out of the recording by its authors.
LEFT_OUT = re.compile(
    r"(.*/)?(flatfield|pixel_mask)|countrate_correction_table|detector_(orientation|translation)"
    r"|board_000/.*|buffer_fill_level"
)


@pytest.fixture(scope="module")
def eiger1(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("eiger1")
    with sim_dcu.serve("eiger-500k", time_scale=0, initialized=True, data_dir=folder) as dcu:
        yield dcu.url


@pytest.fixture(scope="module")
def eiger2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("eiger2")
    with sim_dcu.serve("eiger2-16m", time_scale=0, initialized=True, data_dir=folder) as dcu:
        yield dcu.url


def asked(url: str, version: str, resource: str) -> requests.Response:
    subsystem, rest = resource.split("/", 1)
    reply = requests.get(f"{url}/{subsystem}/api/{version}/{rest}", timeout=20)
    assert reply.status_code == 200, resource
    return reply


@pytest.mark.parametrize("key", EIGER1["config"])
def test_config_of_an_eiger_500k(eiger1: str, key: str) -> None:
    expected = EIGER1["config"][key]
    reply = asked(eiger1, "1.6.0", f"detector/config/{key}")
    content = reply.json()
    limits = expected.get("limits", EIGER1["unlimited"].get(expected["type"]))
    keys = {"access_mode", "value_type", "value"}
    keys |= {"min", "max"} if limits else set()
    keys |= {"unit"} if "unit" in expected else set()
    keys |= {"allowed_values"} if "allowed" in expected else set()
    assert content.keys() == keys
    assert (content["value_type"], content["access_mode"]) == (expected["type"], expected["access"])
    assert content.get("unit") == expected.get("unit")
    assert content.get("allowed_values") == expected.get("allowed")
    if limits:
        # Exactly, and whole numbers as whole numbers.
        assert repr([content["min"], content["max"]]) == repr(limits)
    if "value" in expected:
        assert content["value"] == expected["value"]
    if "array" in expected:
        form = content["value"]
        assert (form["type"], form["shape"]) == (expected["array"], [514, 1030])
        assert (form["__darray__"], form["filters"]) == ([1, 0, 0], ["base64"])


def test_keys_come_in_the_order_of_an_eiger_500k(eiger1: str) -> None:
    """That of its hash table, as its verbatim replies have it."""
    with_unit = ["min", "max", "value", "value_type", "access_mode", "unit"]
    number = ["max", "access_mode", "value_type", "value", "min"]
    text = ["access_mode", "value_type", "value", "allowed_values"]
    measured = [
        *("value", "state", "value_type", "critical_limits", "time", "unit", "critical_values")
    ]
    for resource, order in {
        "detector/config/count_time": with_unit,
        "detector/config/beam_center_x": with_unit,
        "detector/config/auto_summation": number,
        "detector/config/nimages": number,
        "detector/config/flatfield": number,
        "detector/config/element": text,
        "stream/config/mode": text,
        "stream/config/header_appendix": text[:3],
        "detector/status/state": measured,
        "detector/status/board_000/th0_temp": measured,
        "detector/status/error": ["value_type", "value", "time"],
        "detector/status/time": ["value_type", "value"],
    }.items():
        content = asked(eiger1, "1.6.0", resource).json()
        assert list(content) == order, resource
    mask = asked(eiger1, "1.6.0", "detector/config/pixel_mask").json()["value"]
    assert list(mask) == ["data", "shape", "type", "__darray__", "filters"]


def test_numbers_are_spelled_with_17_digits(eiger1: str) -> None:
    text = asked(eiger1, "1.6.0", "detector/config/count_time").text
    assert '"min": 2.9999000616953708e-06' in text
    assert '"max": 1800,' in text
    assert '"max": 2000000000.0' in asked(eiger1, "1.6.0", "detector/config/nimages").text
    assert (
        '"value": 8047.77978515625' in asked(eiger1, "1.6.0", "detector/config/photon_energy").text
    )


@pytest.mark.parametrize("resource", EIGER1["modes"])
def test_choices_of_an_eiger_500k(eiger1: str, resource: str) -> None:
    assert asked(eiger1, "1.6.0", resource).json()["allowed_values"] == EIGER1["modes"][resource]


@pytest.mark.parametrize("key", EIGER1["status"])
def test_status_of_an_eiger_500k(eiger1: str, key: str) -> None:
    expected = EIGER1["status"][key]
    content = asked(eiger1, "1.6.0", f"detector/status/{key}").json()
    assert content.keys() == {
        *("value", "state", "value_type", "critical_limits", "time", "unit", "critical_values"),
    }
    assert content["value_type"] == expected["type"]
    assert content["unit"] == ""
    assert content["critical_limits"] == expected["critical_limits"]
    assert content["critical_values"] == expected["critical_values"]
    # Local time without its zone.
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}", content["time"])


@pytest.mark.parametrize("subsystem", ["detector", "filewriter", "monitor", "stream"])
def test_error_and_time_of_an_eiger_500k(eiger1: str, subsystem: str) -> None:
    zoned = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d"
    error = asked(eiger1, "1.6.0", f"{subsystem}/status/error").json()
    assert error.keys() == {"value", "value_type", "time"}
    assert (error["value"], error["value_type"]) == ([], "string")
    assert re.fullmatch(zoned, error["time"])
    if subsystem == "detector":
        time = asked(eiger1, "1.6.0", "detector/status/time").json()
        assert time.keys() == {"value", "value_type"}
        assert re.fullmatch(zoned, time["value"])


@pytest.mark.parametrize("section", SECTIONS)
def test_names_of_an_eiger2(eiger2: str, section: str) -> None:
    listed = asked(eiger2, "1.8.0", f"{section}/keys").json()
    assert listed == sorted(listed)
    unlisted = {name.rsplit("/", 1)[1] for name in EIGER2["unlisted"] if name.startswith(section)}
    found = {key for key in listed if not LEFT_OUT.fullmatch(key)}
    assert found | unlisted == EIGER2[section].keys()
    assert not found & unlisted


@pytest.mark.parametrize(
    ("section", "key"), [(section, key) for section in SECTIONS for key in EIGER2[section]]
)
def test_resources_of_an_eiger2(eiger2: str, section: str, key: str) -> None:
    access, value_type, *allowed = EIGER2[section][key]
    content = asked(eiger2, "1.8.0", f"{section}/{key}").json()
    assert (content["access_mode"], content["value_type"]) == (access, value_type)
    assert content.get("allowed_values", []) == allowed
