"""The acceptance test's table of resources, against the reference's tables and real recordings."""

import json
from pathlib import Path

import pytest
from eiger_plans.acceptance.resources import judged, table

HERE = Path(__file__).parent
REFERENCE = json.loads((HERE / "simplon_v1.3_resources.json").read_text())
EIGER1 = json.loads((HERE / "recorded" / "eiger1_500k.json").read_text())
EIGER2 = json.loads((HERE / "recorded" / "eiger2_xe_16m.json").read_text())
SUBSYSTEMS = ("detector", "monitor", "filewriter", "system")
# How a reply spells the reference's types; arrays and pairs are the table's own words.
SPELLED = {
    "float[][]": "array",
    "uint[][]": "array",
    "list-of-strings": "string",
    "date": "string",
}
PAIRS = ("buffer_fill_level", "next_image_number", "monitor_image_number")
# Misprint: no access mode printed; a real one says rw.
OTHER_ACCESS = {"detector/config/data_collection_date": "rw"}


def of_the_reference() -> list[tuple[str, str, str]]:
    """Return (resource, type, access) of every row of the reference's tables."""
    rows = []
    for subsystem in SUBSYSTEMS:
        for section in ("config", "status", "command"):
            for entry in REFERENCE[subsystem].get(section, ()):
                key = entry if isinstance(entry, str) else entry["key"]
                resource = f"{subsystem}/{section}/{key}"
                if section == "command":
                    rows.append((resource, "command", ""))
                    continue
                kind = "pair" if key in PAIRS else SPELLED.get(entry["type"], entry["type"])
                rows.append((resource, kind, OTHER_ACCESS.get(resource, entry["access"])))
    return rows


def test_nothing_of_the_reference_is_missing_or_optional():
    rows = of_the_reference()
    assert len(rows) == 65
    for resource, kind, access in rows:
        row = table("eiger")[resource]
        assert not row.optional, resource
        assert kind in row.types, resource
        assert row.access == ((access,) if access else ()), resource


def test_an_eiger_500k_that_was_recorded_is_as_the_table_says():
    for key, found in EIGER1["config"].items():
        row = table("eiger")[f"detector/config/{key}"]
        assert (found["type"] in row.types) or ("array" in found and row.is_array), key
        assert found["access"] in row.access, key
        assert found.get("unit", "") == row.unit, key
    for key, found in EIGER1["status"].items():
        assert found["type"] in table("eiger")[f"detector/status/{key}"].types


def test_an_eiger2_that_was_recorded_is_as_the_table_says():
    for section, resources in EIGER2.items():
        if "/" not in section:
            continue
        for key, (access, kind, *_) in resources.items():
            row = table("eiger2")[f"{section}/{key}"]
            assert kind in row.types, key
            assert access in row.access, key


def test_what_an_eiger2_must_have_a_real_one_has():
    recorded = {
        f"{section}/{key}"
        for section, resources in EIGER2.items()
        if "/" in section
        for key in resources
    }
    required = {
        resource
        for resource, row in table("eiger2").items()
        # The recording's authors left out commands, arrays and the file writer.
        if not (row.optional or row.is_command or row.is_array)
        and not resource.startswith("filewriter/")
    }
    assert required <= recorded


GOOD = {"value": 0.5, "value_type": "float", "access_mode": "rw", "unit": "s", "min": 0, "max": 1}
WRONG = {
    "no value": ({"detail": "?"}, "without value"),
    "another type": ({**GOOD, "value_type": "uint"}, "the type is 'uint'"),
    "a value of another type": ({**GOOD, "value": "0.5"}, "the value is no float"),
    "true for a number": ({**GOOD, "value": True}, "the value is no float"),
    "read only": ({**GOOD, "access_mode": "r"}, "the access is 'r'"),
    "no access": ({k: v for k, v in GOOD.items() if k != "access_mode"}, "no access mode"),
    "another unit": ({**GOOD, "unit": "ms"}, "the unit is 'ms'"),
    "below": ({**GOOD, "value": -0.5}, "below its own limit of 0"),
    "above": ({**GOOD, "value": 1.5}, "above its own limit of 1"),
    "no choices": ({**GOOD, "allowed_values": []}, "an empty list of choices"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_reply_that_is_not_as_it_should_be(case):
    reply, words = WRONG[case]
    check = judged(table("eiger")["detector/config/count_time"], reply)
    assert check.verdict == "fail"
    assert words in check.found


def test_a_reply_as_it_should_be_passes():
    assert judged(table("eiger")["detector/config/count_time"], GOOD).verdict == "pass"
    mode = {"value": "ints", "value_type": "string", "access_mode": "rw"}
    row = table("eiger")["detector/config/trigger_mode"]
    assert judged(row, {**mode, "allowed_values": ["ints"]}).verdict == "pass"
    assert judged(row, {**mode, "allowed_values": ["exts"]}).verdict == "fail"
