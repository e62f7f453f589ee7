"""Every resource, as a plain HTTP client meets it: spelling, limits, refusals, dependencies.

Expected figures are those of real replies and of the API reference, written out here.
"""

import base64
import io
import json
import math

import numpy as np
import pytest
import requests
from plain_client import Client

import sim_dcu

# Of each test's cases the short run takes every 2nd, see conftest.
SHORT_RUN_EVERY = 2

JSON = "application/json; charset=utf-8"
TEXT = "text/plain; charset=utf-8"
FLOAT32_MAX = 3.4028234663852886e38
HC_OVER_E = 12398.41984332

# API reference 1.3, 3.1.1: type and access of every config resource.
REFERENCE_CONFIG = {
    "count_time": ("float", "rw"),
    "frame_time": ("float", "rw"),
    "nimages": ("uint", "rw"),
    "ntrigger": ("uint", "rw"),
    "photon_energy": ("float", "rw"),
    "element": ("string", "rw"),
    "threshold_energy": ("float", "rw"),
    "flatfield": ("float", "rw"),
    "flatfield_correction_applied": ("bool", "rw"),
    "pixel_mask": ("uint", "rw"),
    "number_of_excluded_pixels": ("uint", "r"),
    "countrate_correction_applied": ("bool", "rw"),
    "auto_summation": ("bool", "rw"),
    "trigger_mode": ("string", "rw"),
    "data_collection_date": ("string", "rw"),
    "description": ("string", "r"),
    "detector_number": ("string", "r"),
    "software_version": ("string", "r"),
    "sensor_material": ("string", "r"),
    "sensor_thickness": ("float", "r"),
    "x_pixel_size": ("float", "r"),
    "y_pixel_size": ("float", "r"),
    "x_pixels_in_detector": ("uint", "r"),
    "y_pixels_in_detector": ("uint", "r"),
    "beam_center_x": ("float", "rw"),
    "beam_center_y": ("float", "rw"),
    "detector_distance": ("float", "rw"),
    "countrate_correction_count_cutoff": ("uint", "r"),
    "bit_depth_readout": ("int", "r"),
    "detector_readout_time": ("float", "r"),
    "wavelength": ("float", "rw"),
}
# What real detectors serve beside the reference's table.
MORE_CONFIG = {
    "compression": ("string", "rw"),
    "pixel_mask_applied": ("bool", "rw"),
    "roi_mode": ("string", "rw"),
    "bit_depth_image": ("int", "r"),
    "frame_count_time": ("float", "r"),
    "frame_period": ("float", "r"),
    "nframes_sum": ("uint", "r"),
    "eiger_fw_version": ("string", "r"),
    **{
        f"{axis}_{part}": ("float", "rw")
        for axis in ("chi", "kappa", "omega", "phi", "two_theta")
        for part in ("start", "increment")
    },
}
FILEWRITER_CONFIG = {
    "mode": ("string", "enabled"),
    "transfer_mode": ("string", "http"),
    "nimages_per_file": ("uint", 1000),
    "image_nr_start": ("uint", 1),
    "name_pattern": ("string", "series_$id"),
    "compression_enabled": ("bool", True),
}


# -- spelling -------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", sorted(REFERENCE_CONFIG | MORE_CONFIG))
def test_config_has_type_access_and_limits(quiet_client: Client, key: str) -> None:
    value_type, access = (REFERENCE_CONFIG | MORE_CONFIG)[key]
    reply = quiet_client.get(f"detector/config/{key}")
    assert reply.headers["content-type"] == JSON
    content = reply.json()
    assert (content["value_type"], content["access_mode"]) == (value_type, access)
    assert content.get("unit") != ""
    assert content.get("allowed_values") != []
    assert ("min" in content) is ("max" in content) is (value_type != "string")
    if value_type == "bool":
        assert (content["min"], content["max"]) == (-2147483648, 2147483647)
    if access == "rw" and value_type == "uint" and key != "pixel_mask":
        assert content["max"] <= 2147483647


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (
            "count_time",
            {"min": 2.9999000616953708e-06, "max": 1800, "unit": "s"},
        ),
        ("frame_time", {"min": 0.00011011111200787127, "max": 360000, "unit": "s"}),
        ("photon_energy", {"value": 8047.77978515625, "min": 5000, "max": 36000, "unit": "eV"}),
        ("threshold_energy", {"value": 4023.889892578125, "min": 2700, "max": 18000}),
        ("beam_center_x", {"min": -FLOAT32_MAX, "max": FLOAT32_MAX, "unit": "pixel"}),
        ("nimages", {"value": 1, "min": 1, "max": 2000000000.0}),
        ("x_pixel_size", {"value": 7.500000356230885e-05, "unit": "m"}),
        ("number_of_excluded_pixels", {"min": 0, "max": 4294967295}),
        ("bit_depth_readout", {"value": 12, "min": -2147483648, "max": 2147483647}),
        ("roi_mode", {"value": "disabled", "allowed_values": "disabled"}),
        ("trigger_mode", {"value": "ints", "allowed_values": ["ints", "exts", "inte", "exte"]}),
        ("compression", {"value": "bslz4", "allowed_values": ["lz4", "bslz4"]}),
        ("description", {"value": "Dectris Eiger 500K"}),
        ("x_pixels_in_detector", {"value": 1030}),
        ("y_pixels_in_detector", {"value": 514}),
    ],
)
def test_config_spells_what_a_real_500k_does(
    client: Client, key: str, expected: dict[str, object]
) -> None:
    content = client.get(f"detector/config/{key}").json()
    assert {name: content[name] for name in expected} == expected


def test_nimages_limit_is_spelled_as_a_float(client: Client) -> None:
    assert '"max": 2000000000.0' in client.get("detector/config/nimages").text


def test_elements_are_the_35_from_chromium_to_cerium(client: Client) -> None:
    elements = client.get("detector/config/element").json()["allowed_values"]
    assert len(elements) == len(set(elements)) == 35
    assert elements[:4] == ["Ru", "Ni", "Nb", "Rb"]
    assert elements[-1] == "Zr"
    assert {"Cr", "Cu", "Ag", "Ce"} <= set(elements)


def test_whole_config_is_one_object_without_arrays(client: Client) -> None:
    whole = client.get("detector/config/").json()
    keys = client.get("detector/config/keys").json()
    assert set(keys) - set(whole) == {"flatfield", "pixel_mask"}
    assert whole["nimages"] == client.get("detector/config/nimages").json()


def test_keys_are_bare_sorted_lists(client: Client) -> None:
    assert client.get("detector/keys").json() == ["command", "config", "status"]
    for rest in ("detector/config", "detector/status", "detector/command", "filewriter/config"):
        keys = client.get(f"{rest}/keys").json()
        assert keys == sorted(keys)
    assert set(client.get("detector/config/keys").json()) >= set(REFERENCE_CONFIG) | set(
        MORE_CONFIG
    )
    assert {"abort", "arm", "cancel", "disarm", "initialize", "trigger"} <= set(
        client.get("detector/command/keys").json()
    )
    assert client.get("filewriter/command/keys").json() == ["clear", "initialize"]


@pytest.mark.parametrize("key", sorted(FILEWRITER_CONFIG))
def test_filewriter_config(client: Client, key: str) -> None:
    value_type, default = FILEWRITER_CONFIG[key]
    content = client.get(f"filewriter/config/{key}").json()
    assert (content["value_type"], content["value"], content["access_mode"]) == (
        value_type,
        default,
        "rw",
    )
    if key == "mode":
        assert content["allowed_values"] == ["enabled", "disabled"]
    if key == "nimages_per_file":
        assert content["max"] == 2147483647


def test_status_replies(client: Client) -> None:
    state = client.get("detector/status/state").json()
    assert state["value"] == "idle"
    assert state["critical_values"] == ["na", "error"]
    assert state["critical_limits"] == [None, None]
    error = client.get("detector/status/error").json()
    assert (error["value"], error["value_type"]) == ([], "string")
    temperature = client.get("detector/status/board_000/th0_temp").json()
    assert temperature["critical_limits"] == [15.0, 37.5]
    assert temperature["critical_limits"][0] < temperature["value"] < 37.5
    assert client.value("detector/status/time")[-6] in "+-"
    assert client.value("filewriter/status/state") == "ready"
    assert client.value("filewriter/status/buffer_free") > 1e6


def test_link_that_a_500k_lacks_answers_500(client: Client) -> None:
    assert client.value("detector/status/link_1") == "up"
    assert client.get("detector/status/link_2").status_code == 500
    assert "link_2" not in client.get("detector/status/keys").json()


# -- paths ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rest", ["api/version", "api/version/"])
@pytest.mark.parametrize("subsystem", ["detector", "filewriter", "system"])
def test_version(client: Client, subsystem: str, rest: str) -> None:
    reply = client.session.get(f"{client.url}/{subsystem}/{rest}", timeout=5)
    assert reply.json() == {"value": "1.6.0", "value_type": "string"}


@pytest.mark.parametrize("version", ["1.0.0", "1.5.0", "1.6.0", "1.6.6"])
def test_known_api_versions(dcu: sim_dcu.Server, version: str) -> None:
    assert Client(dcu.url, version).value("detector/config/nimages") == 1


@pytest.mark.parametrize("version", ["1.8.0", "2.0.0", "config"])
def test_unknown_api_version_is_404(dcu: sim_dcu.Server, version: str) -> None:
    other = Client(dcu.url, version)
    assert other.get("detector/config/nimages").status_code == 404
    assert other.put("detector/command/arm").status_code == 404
    assert other.get("filewriter/files").status_code == 404


def test_slashes_at_the_end_and_doubled(client: Client) -> None:
    for path in (
        "/detector/api/1.6.0/config/nimages/",
        "//detector/api/1.6.0/config/nimages",
        "/detector//api/1.6.0//config/nimages",
    ):
        assert client.session.get(client.url + path, timeout=5).json()["value"] == 1
    assert client.get("filewriter/files/").json() == []


@pytest.mark.parametrize(
    "rest",
    [
        "detector/config/no_such",
        "detector/status/no_such",
        "detector/nothing/keys",
        "detector/files",
        "stream/config/format",
        "detector/config/count_time/value",
    ],
)
def test_unknown_resource_is_404(client: Client, rest: str) -> None:
    reply = client.get(rest)
    assert reply.status_code == 404
    assert reply.headers["content-type"] == TEXT


def test_unknown_put_is_404(client: Client) -> None:
    assert client.put("detector/config/no_such", 1).status_code == 404
    assert client.put("detector/command/no_such").status_code == 404
    assert client.put("filewriter/command/arm").status_code == 404


def test_wrong_method_is_405(client: Client) -> None:
    assert client.get("detector/command/arm").status_code == 405
    assert client.put("detector/status/state", "idle").status_code == 405
    post = client.session.post(client.path("detector/config/nimages"), json={"value": 2}, timeout=5)
    assert post.status_code == 405
    assert client.value("detector/config/nimages") == 1


# -- refusals -------------------------------------------------------------------------------------

REFUSED = [
    ("count_time", -1),
    ("count_time", 0),
    ("count_time", "abc"),
    ("count_time", 4000.0),
    ("count_time", True),
    ("count_time", [1.0]),
    ("count_time", {"a": 1}),
    ("count_time", 10**400),
    ("beam_center_x", 1e300),
    ("beam_center_x", 10**39),
    ("nimages", 0),
    ("nimages", 1.5),
    ("nimages", 2_000_000_001),
    ("nimages", "2"),
    ("nimages", 10**4000),
    ("auto_summation", 1),
    ("auto_summation", "true"),
    ("trigger_mode", "bogus"),
    ("trigger_mode", 1),
    ("trigger_mode", "x" * 10_000),
    ("element", "Xx"),
    ("element", ""),
    ("roi_mode", "4M"),
    ("bit_depth_image", 16),
    ("description", "mine"),
    ("photon_energy", 4999.0),
    ("photon_energy", 36001.0),
    ("data_collection_date", "\u00e9\n"),
    ("flatfield", 1.0),
    ("flatfield", {"__darray__": [1, 0, 0]}),
]


@pytest.mark.parametrize(("key", "value"), REFUSED, ids=lambda value: str(value)[:20])
def test_refused_puts_change_nothing(quiet_client: Client, key: str, value: object) -> None:
    before = quiet_client.get("detector/config").json()
    reply = quiet_client.put(f"detector/config/{key}", value)
    assert reply.status_code == 400
    assert reply.headers["content-type"] == TEXT
    assert 0 < len(reply.content) < 128
    assert quiet_client.get("detector/config").json() == before
    assert quiet_client.state == "idle"


def test_refusal_names_key_value_and_limits(client: Client) -> None:
    text = client.put("detector/config/count_time", 4000.0).text
    for part in ("count_time", "4000", "2.9999e-06", "1800", "s"):
        assert part in text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"null",
        b'{"value": null}',
        b'{"value": NaN}',
        b'{"value": Infinity}',
        b'{"value": -Infinity}',
        b'{"value": 1e999}',
        b'{"val": 2.0}',
        b"2.0",
        b"[2.0]",
        b"{'value': 2.0}",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"value": ' + b"9" * 5000 + b"}",
        b"json_payload=",
        b"json_payload=%7B",
        b"json_payload=1" + b"&a=1" * 20,
    ],
    ids=lambda body: repr(body[:20]),
)
@pytest.mark.parametrize("key", ["frame_time", "nimages"])
def test_bodies_without_a_value_are_400(quiet_client: Client, key: str, body: bytes) -> None:
    path = quiet_client.path(f"detector/config/{key}")
    reply = quiet_client.session.put(path, data=body, headers={"Content-Type": JSON}, timeout=5)
    assert reply.status_code == 400, reply.text
    assert len(reply.content) < 128
    assert quiet_client.value(f"detector/config/{key}") == 1


@pytest.mark.parametrize(
    "name",
    [
        "../out",
        "/abs",
        "a/../b",
        ".hidden",
        "a//b",
        "a/",
        "back\\slash",
        "nul\0",
        "x" * 300,
        "\u00fc",
    ],
)
def test_name_patterns_that_leave_the_folder_are_refused(client: Client, name: str) -> None:
    reply = client.put("filewriter/config/name_pattern", name)
    assert reply.status_code == 400
    assert len(reply.content) < 128
    assert client.value("filewriter/config/name_pattern") == "series_$id"


# -- accepted puts --------------------------------------------------------------------------------


def test_ints_for_floats_and_integral_floats_for_ints(client: Client) -> None:
    client.config(frame_time=3, nimages=4.0)
    assert client.get("detector/config/nimages").json()["value"] == 4
    assert '"value": 4,' in client.get("detector/config/nimages").text
    assert client.value("detector/config/frame_time") == 3.0


def test_floats_are_kept_in_single_precision(client: Client) -> None:
    client.config(detector_distance=0.1)
    assert client.value("detector/config/detector_distance") == 0.10000000149011612


@pytest.mark.parametrize("key", ["count_time", "frame_time", "photon_energy", "wavelength"])
@pytest.mark.parametrize("which", ["min", "max"])
def test_the_limits_themselves_are_taken(client: Client, key: str, which: str) -> None:
    limit = client.get(f"detector/config/{key}").json()[which]
    client.config(**{key: limit})
    assert client.value(f"detector/config/{key}") == limit


def test_form_body_of_the_references_example(client: Client) -> None:
    payload = {"json_payload": json.dumps({"value": 8040.0})}
    path = client.path("detector/config/photon_energy")
    reply = client.session.put(path, data=payload, timeout=5)
    assert reply.status_code == 200
    assert {"threshold_energy", "flatfield"} <= set(reply.json())
    assert client.value("detector/config/photon_energy") == 8040.0


def test_filewriter_put_answers_an_empty_text(client: Client) -> None:
    reply = client.put("filewriter/config/nimages_per_file", 7)
    assert (reply.status_code, reply.content) == (200, b"")
    assert reply.headers["content-type"] == TEXT
    assert client.value("filewriter/config/nimages_per_file") == 7
    assert client.put("filewriter/command/initialize").content == b""
    assert client.value("filewriter/config/nimages_per_file") == 1000


def test_body_too_large_is_413(client: Client) -> None:
    reply = requests.Request("PUT", client.path("detector/config/nimages")).prepare()
    reply.headers["Content-Length"] = str(2**40)
    answer = client.session.send(reply, timeout=5)
    assert answer.status_code == 413
    assert client.value("detector/config/nimages") == 1


# -- dependencies ---------------------------------------------------------------------------------


def test_put_reply_of_the_references_example(client: Client) -> None:
    reply = client.put("detector/config/count_time", 1.0)
    names = reply.json()
    assert reply.headers["content-type"] == JSON
    assert names == sorted(names)
    assert {
        "count_time",
        "frame_count_time",
        "frame_period",
        "nframes_sum",
        "frame_time",
    } <= set(names)
    frame_time = client.value("detector/config/frame_time")
    assert 1.0 < frame_time < 1.001


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("count_time", 1.0),
        ("count_time", 0.001),
        ("frame_time", 0.5),
        ("frame_time", 2.0),
        ("photon_energy", 12000.0),
        ("element", "Mo"),
        ("wavelength", 1.0),
        ("threshold_energy", 6000.0),
        ("auto_summation", False),
        ("beam_center_x", 100.0),
        ("detector_distance", 0.2),
        ("nimages", 5),
        ("f_energy", 5000.0),
    ],
)
def test_put_reply_names_all_that_changed(client: Client, key: str, value: object) -> None:
    before = client.get("detector/config").json()
    names = client.put(f"detector/config/{key}", value).json()
    after = client.get("detector/config").json()
    changed = {name for name in after if after[name] != before[name]}
    assert changed
    assert changed <= set(names)
    assert ("threshold_energy" if key == "f_energy" else key) in names
    assert all(client.get(f"detector/config/{name}").status_code == 200 for name in names)


def test_put_of_anything_else_names_itself_alone(client: Client) -> None:
    assert client.put("detector/config/nimages", 5).json() == ["nimages"]
    assert client.put("detector/config/trigger_mode", "exts").json() == ["trigger_mode"]


def test_times_give_way_to_the_one_put(client: Client) -> None:
    readout = client.value("detector/config/detector_readout_time")
    client.config(frame_time=0.1)
    assert client.value("detector/config/count_time") <= np.float32(0.1) - readout
    assert client.value("detector/config/count_time") == pytest.approx(0.1 - readout, rel=1e-6)
    client.config(count_time=0.01)
    assert client.value("detector/config/frame_time") == float(np.float32(0.1))
    client.config(count_time=0.2)
    assert client.value("detector/config/frame_time") >= float(np.float32(0.2)) + readout
    assert client.value("detector/config/frame_time") == pytest.approx(0.2 + readout, rel=1e-6)


def test_energy_chain(client: Client) -> None:
    client.config(photon_energy=12000.0)
    assert client.value("detector/config/element") == ""
    assert client.value("detector/config/threshold_energy") == 6000.0
    wavelength = client.value("detector/config/wavelength")
    assert wavelength == pytest.approx(HC_OVER_E / 12000.0, rel=1e-7)
    # X-ray Data Booklet, K-alpha1.
    client.config(element="Mo")
    assert client.value("detector/config/photon_energy") == pytest.approx(17479.34, abs=0.01)
    assert client.value("detector/config/element") == "Mo"
    client.config(wavelength=1.0)
    assert client.value("detector/config/photon_energy") == pytest.approx(HC_OVER_E, rel=1e-7)
    assert client.value("detector/config/element") == ""
    client.config(threshold_energy=5000.0)
    assert client.value("detector/config/photon_energy") == pytest.approx(HC_OVER_E, rel=1e-7)
    assert client.value("detector/config/f_energy") == 5000.0
    # Half of it would be below what the threshold takes.
    client.config(photon_energy=5000.0)
    assert client.value("detector/config/threshold_energy") == 2700.0


@pytest.mark.parametrize(
    ("count_time", "summation", "bits"),
    [(0.00999, True, 16), (0.01, True, 32), (1.0, True, 32), (1.0, False, 16)],
)
def test_bit_depth(client: Client, count_time: float, summation: bool, bits: int) -> None:
    client.config(count_time=count_time, auto_summation=summation)
    assert client.value("detector/config/bit_depth_image") == bits


def test_summation_of_real_captures(client: Client) -> None:
    # The master of a real 9M: 4.99 ms in 4 frames. A real 16M's header: 1/60 s in 13 frames.
    client.config(count_time=0.00499)
    assert client.value("detector/config/nframes_sum") == 4
    assert client.value("detector/config/frame_period") == pytest.approx(0.00125, rel=1e-3)
    assert client.value("detector/config/frame_count_time") == pytest.approx(0.00124, rel=3e-3)
    client.config(count_time=1 / 60)
    assert client.value("detector/config/nframes_sum") == 13
    # The 500K's own reply.
    client.config(count_time=0.099895)
    assert client.value("detector/config/countrate_correction_count_cutoff") == 184755


def test_detector_translation(client: Client) -> None:
    client.config(beam_center_x=1908.58, beam_center_y=2188.42, detector_distance=0.150019)
    expected = [1908.58 * 75e-6, 2188.42 * 75e-6, -0.150019]
    assert client.value("detector/config/detector_translation") == pytest.approx(expected, rel=1e-6)


# -- arrays ---------------------------------------------------------------------------------------


def darray(array: np.ndarray) -> dict[str, object]:
    return {
        "__darray__": [1, 0, 0],
        "type": array.dtype.str,
        "shape": list(array.shape),
        "filters": ["base64"],
        "data": base64.b64encode(array.tobytes()).decode(),
    }


def array_of(client: Client, key: str) -> np.ndarray:
    form = client.value(f"detector/config/{key}")
    raw = base64.b64decode(form["data"])
    return np.frombuffer(raw, dtype=form["type"]).reshape(form["shape"])


def test_pixel_mask_comes_back_and_is_counted(client: Client) -> None:
    mask = array_of(client, "pixel_mask").copy()
    assert (mask.dtype.str, mask.shape) == ("<u4", (514, 1030))
    excluded = int(np.count_nonzero(mask))
    assert client.value("detector/config/number_of_excluded_pixels") == excluded
    free = np.argwhere(mask == 0)[:10]
    mask[tuple(free.T)] = 2
    reply = client.put("detector/config/pixel_mask", darray(mask))
    assert reply.json() == ["number_of_excluded_pixels", "pixel_mask"]
    np.testing.assert_array_equal(array_of(client, "pixel_mask"), mask)
    assert client.value("detector/config/number_of_excluded_pixels") == excluded + 10


def test_flatfield_is_lost_with_the_energy(client: Client) -> None:
    factory = array_of(client, "flatfield")
    assert (factory.dtype.str, factory.shape) == ("<f4", (514, 1030))
    mine = np.full((514, 1030), 1.5, "<f4")
    client.config(flatfield=darray(mine))
    np.testing.assert_array_equal(array_of(client, "flatfield"), mine)
    client.config(threshold_energy=5000.0)
    np.testing.assert_array_equal(array_of(client, "flatfield"), factory)


def test_arrays_of_another_kind_are_refused(client: Client) -> None:
    good = np.zeros((514, 1030), "<u4")
    wrong = [
        darray(good.T.copy()),
        darray(good.astype("<f4") + 0.5),
        darray(good.astype("<i2") - 1),
        darray(good.astype("<u8") + 2**32),
        darray(good.astype("<c8")),
        {**darray(good), "data": "AAAA"},
        {**darray(good), "data": "???"},
        {**darray(good), "data": None},
        {**darray(good), "filters": ["gzip"]},
        {**darray(good), "shape": [514, -1030]},
        {**darray(good), "shape": [514, True]},
        {**darray(good), "type": "O"},
    ]
    before = array_of(client, "pixel_mask")
    for form in wrong:
        assert client.put("detector/config/pixel_mask", form).status_code == 400
    nan = np.full((514, 1030), math.nan, "<f4")
    assert client.put("detector/config/flatfield", darray(nan)).status_code == 400
    np.testing.assert_array_equal(array_of(client, "pixel_mask"), before)


# -- files and the oracle -------------------------------------------------------------------------


def recorded(client: Client, **values: object) -> int:
    client.config(**values)
    series = client.arm()
    assert client.command("trigger").json() == {"sequence id": -1}
    assert client.command("disarm").json() == {"sequence id": series}
    return series


def test_files_get_head_and_delete(client: Client) -> None:
    client.put("filewriter/config/nimages_per_file", 2)
    client.put("filewriter/config/name_pattern", "sub/run_$id")
    recorded(client, nimages=3)
    names = ["sub/run_1_data_000001.h5", "sub/run_1_data_000002.h5", "sub/run_1_master.h5"]
    assert sorted(client.files()) == names
    free = client.value("filewriter/status/buffer_free")
    session, url = client.session, f"{client.url}/data/{names[0]}"
    got = session.get(url, timeout=5)
    assert got.content.startswith(b"\x89HDF\r\n\x1a\n")
    head = session.head(url, timeout=5)
    assert (head.status_code, int(head.headers["content-length"])) == (200, len(got.content))
    assert head.content == b""
    deleted = session.delete(url, timeout=5)
    assert (deleted.status_code, deleted.content) == (204, b"")
    for again in (session.get, session.head, session.delete):
        assert again(url, timeout=5).status_code == 404
    assert sorted(client.files()) == names[1:]
    assert client.value("filewriter/status/buffer_free") > free


def test_clear_drops_files_and_folders_and_disables_the_filewriter(
    client: Client, dcu: sim_dcu.Server
) -> None:
    client.put("filewriter/config/name_pattern", "deep/er/run_$id")
    recorded(client)
    reply = client.session.put(
        client.path("filewriter/command/clear"), json={"value": 1}, timeout=5
    )
    assert (reply.status_code, reply.content) == (200, b"")
    assert client.files() == []
    assert not (dcu.dcu.store.folder / "deep").exists()
    assert client.value("filewriter/config/mode") == "disabled"
    assert client.value("filewriter/status/state") == "disabled"
    recorded(client)
    assert client.files() == []


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "..%2fsecret",
        "%2e%2e/secret",
        "%2fetc%2fpasswd",
        "link",
        ".hidden",
        "a%00b",
        "x" * 5000,
    ],
)
def test_data_names_do_not_leave_the_folder(client: Client, dcu: sim_dcu.Server, name: str) -> None:
    folder = dcu.dcu.store.folder
    (folder.parent / "secret").write_text("s")
    (folder / ".hidden").write_text("s")
    (folder / "link").symlink_to(folder.parent / "secret")
    for method in ("GET", "HEAD", "DELETE"):
        request = requests.Request(method, client.url).prepare()
        request.url = f"{client.url}/data/{name}"
        assert client.session.send(request, timeout=5).status_code == 404
    assert client.files() == []
    assert (folder.parent / "secret").exists()


def test_oracle_over_http_is_the_oracle_in_python(client: Client, dcu: sim_dcu.Server) -> None:
    series = recorded(client, nimages=2, count_time=0.005)
    reply = client.session.get(f"{client.url}/sim/image/{series}/2", timeout=10)
    assert reply.headers["content-type"] == "application/octet-stream"
    image = np.load(io.BytesIO(reply.content))
    assert (image.shape, image.dtype.str) == ((514, 1030), "<u2")
    np.testing.assert_array_equal(image, dcu.image(series, 2))
    for path in (f"{series}/0", f"{series}/3", "99/1", "x/1"):
        assert client.session.get(f"{client.url}/sim/image/{path}", timeout=5).status_code == 404
    with pytest.raises(KeyError, match="99"):
        dcu.image(99, 1)
