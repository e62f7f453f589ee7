"""Two generations and ten models: sizes, versions, spelling, habits.

Expected figures are those of the vendor's tables, of users' recordings and of real files' sizes,
written out here.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 - registers the filter that the data files name
import numpy as np
import pytest
from plain_client import TIMED, Client, until

import sim_dcu

# Width and height in pixels, and how many of the pixels are gaps.
SIZES = {
    "eiger-500k": (1030, 514, 0),
    "eiger-1m": (1030, 1065, 38110),
    "eiger-4m": (2070, 2167, 250330),
    "eiger-9m": (3110, 3269, 637030),
    "eiger-16m": (4150, 4371, 1198210),
    "eiger2-500k": (1028, 512, 0),
    "eiger2-1m": (1028, 1062, 39064),
    "eiger2-4m": (2068, 2162, 260328),
    "eiger2-9m": (3108, 3262, 664248),
    "eiger2-16m": (4148, 4362, 1250824),
}
# The maker's fastest frame rates of EIGER X, in Hz.
RATES = {"eiger-1m": 3000, "eiger-4m": 750, "eiger-9m": 238, "eiger-16m": 133}
VERSIONS = {
    "eiger-": ("1.6.0", {"1.0.0", "1.5.0", "1.6.0", "1.6.6"}),
    "eiger2-": ("1.8.0", {"1.0.0", "1.5.0", "1.6.0", "1.6.6", "1.8.0"}),
}


def words(text: str) -> list[str]:
    return text.split()


# What a real EIGER2 XE 16M lists in detector/config, as recorded by tickit-devices' authors.
EIGER2_CONFIG = words(
    """
    auto_summation beam_center_x beam_center_y bit_depth_image bit_depth_readout chi_increment
    chi_start compression count_time counting_mode countrate_correction_applied
    countrate_correction_count_cutoff data_collection_date description detector_distance
    detector_number detector_readout_time eiger_fw_version element extg_mode fast_arm
    flatfield_correction_applied frame_count_time frame_time incident_energy
    incident_particle_type instrument_name kappa_increment kappa_start mask_to_zero nexpi
    nimages ntrigger ntriggers_skipped number_of_excluded_pixels omega_increment omega_start
    phi_increment phi_start photon_energy pixel_mask_applied roi_mode sample_name
    sensor_material sensor_thickness software_version source_name threshold/1/energy
    threshold/1/mode threshold/1/number_of_excluded_pixels threshold/2/energy threshold/2/mode
    threshold/2/number_of_excluded_pixels threshold/difference/lower_threshold
    threshold/difference/mode threshold/difference/upper_threshold threshold_energy total_flux
    trigger_mode two_theta_increment two_theta_start virtual_pixel_correction_applied
    x_pixel_size x_pixels_in_detector y_pixel_size y_pixels_in_detector
    """
)
# What fastcs-eiger's authors left out of it for being an array, and what it lists beside it.
EIGER2_MORE_CONFIG = words(
    """
    countrate_correction_table pixel_mask threshold/1/pixel_mask threshold/2/pixel_mask
    flatfield threshold/1/flatfield threshold/2/flatfield detector_orientation
    detector_translation trigger_start_delay
    """
)


def generation(model: str) -> tuple[str, set[str]]:
    return VERSIONS["eiger2-" if model.startswith("eiger2") else "eiger-"]


@pytest.mark.parametrize("model", SIZES)
def test_models(model: str, tmp_path: Path) -> None:
    width, height, gaps = SIZES[model]
    with sim_dcu.serve(model, initialized=True, data_dir=tmp_path) as server:
        client = Client(server.url, generation(model)[0])
        with client.session:
            assert client.value("detector/config/x_pixels_in_detector") == width
            assert client.value("detector/config/y_pixels_in_detector") == height
            modules = round((width + 12) * (height + 38) / (1040 * 551))
            excluded = client.value("detector/config/number_of_excluded_pixels")
            # Real ones have tens of bad pixels in a module beside the gaps.
            assert gaps < excluded < gaps + 100 * modules
            number = client.value("detector/config/detector_number")
            assert number == f"E-{modules:02d}-0000"
            size = model.partition("-")[2].upper()
            words = client.value("detector/config/description").split()
            assert (words[0], words[-1]) == ("Dectris", size)
            assert ("EIGER2" in words) == model.startswith("eiger2")
            if model in RATES:
                shortest = client.get("detector/config/frame_time").json()["min"]
                assert shortest == pytest.approx(1 / RATES[model], rel=1e-6)
            reply = client.get("detector/status/link_2")
            assert reply.status_code == (500 if size == "500K" else 200)
            assert client.get("detector/status/link_1").status_code == 200


@pytest.mark.parametrize("model", ["eiger-500k", "eiger2-500k"])
def test_versions(model: str, tmp_path: Path) -> None:
    own, answering = generation(model)
    with sim_dcu.serve(model, initialized=True, data_dir=tmp_path) as server:
        for subsystem in ("detector", "filewriter", "system"):
            client = Client(server.url, own)
            with client.session:
                path = f"{server.url}/{subsystem}/api/version"
                assert client.session.get(path, timeout=5).json() == {
                    "value": own,
                    "value_type": "string",
                }
        for version in ("1.0.0", "1.5.0", "1.6.0", "1.6.6", "1.7.0", "1.8.0", "2.0.0", "keys"):
            client = Client(server.url, version)
            with client.session:
                status = 200 if version in answering else 404
                assert client.get("detector/config/nimages").status_code == status
                assert client.get("detector/config/keys").status_code == status


def test_another_version_on_request(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sim_dcu", "--model", "eiger2-500k", "--api-version", "1.6.0"]
    command += ["--port", "0", "--data-dir", str(tmp_path), "--initialized", "--time-scale", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            url = re.search(r"API 1\.6\.0, ready at (\S+)", line)[1]
            for version in ("1.6.0", "1.8.0"):
                client = Client(url, version)
                with client.session:
                    path = f"{url}/detector/api/version/"
                    assert client.session.get(path, timeout=5).json()["value"] == "1.6.0"
                    assert client.value("detector/config/nimages") == 1
        finally:
            process.terminate()
    refused = subprocess.run(
        [*command, "--api-version", "new"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert refused.returncode == 2
    assert "new is not a version" in refused.stderr


# -- spelling of EIGER2 ---------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[sim_dcu.Server]:
    with sim_dcu.serve("eiger2-500k", seed=3, initialized=True, data_dir=tmp_path) as server:
        yield server


@pytest.fixture
def client(server: sim_dcu.Server) -> Iterator[Client]:
    plain = Client(server.url, "1.8.0")
    with plain.session:
        yield plain


@pytest.mark.parametrize(
    ("key", "put", "text"),
    [
        # Two replies as users of firmware 2020.2 quote them.
        (
            "photon_energy",
            8041.0,
            '{"access_mode":"rw","unit":"eV","value":8041.000000000,"value_type":"float"}',
        ),
        (
            "nimages",
            None,
            '{"access_mode":"rw","max":2000000000,"min":1,"value":1,"value_type":"uint"}',
        ),
        ("nexpi", None, '{"access_mode":"rw","value":1,"value_type":"uint"}'),
        ("fast_arm", True, '{"access_mode":"rw","value":true,"value_type":"bool"}'),
        (
            "trigger_mode",
            "extg",
            '{"access_mode":"rw","allowed_values":["eies","exte","extg","exts","inte","ints"],'
            '"value":"extg","value_type":"string"}',
        ),
        ("wavelength", None, None),
    ],
)
def test_config_replies_are_a_real_eiger2s(client: Client, key, put, text) -> None:
    if put is not None:
        client.config(**{key: put})
    reply = client.get(f"detector/config/{key}")
    assert reply.headers["content-type"] == "application/json; charset=utf-8"
    if text is None:
        text = '{"access_mode":"rw","unit":"angstrom","value":1.540601242,"value_type":"float"}'
        assert abs(reply.json()["value"] - 1.5406012) < 1e-6
        assert re.sub(r"1\.5406\d+", "1.540601242", reply.text) == text
    else:
        assert reply.text == text


def test_limits_are_those_that_apply(client: Client) -> None:
    count_time = client.get("detector/config/count_time").json()
    assert (count_time["min"], count_time["max"]) == (5e-8, 3600)
    frame_time = client.get("detector/config/frame_time").json()
    assert "min" in frame_time
    assert "max" not in frame_time
    for key in client.get("detector/config/keys").json():
        content = client.get(f"detector/config/{key}").json()
        assert list(content) == sorted(content)
        assert content.get("allowed_values") != []
        assert content.get("unit") != ""


def test_keys_leave_out_what_real_ones_do(client: Client) -> None:
    listed = client.get("detector/config/keys").json()
    assert listed == sorted([*EIGER2_CONFIG, *EIGER2_MORE_CONFIG])
    assert client.get("detector/config/wavelength").status_code == 200
    status = client.get("detector/status/keys").json()
    assert "error" not in status
    assert {"humidity", "temperature", "series_unique_id"} <= set(status)
    assert "high_voltage/state" not in status
    assert client.value("detector/status/error") == []
    # Deprecated, and answering.
    assert client.get("detector/status/board_000/th0_temp").status_code == 200
    for key in ("chi_axis", "transformation_order", "flux_type", "auto_sum_strict"):
        assert client.get(f"detector/config/{key}").status_code == 200


def test_status_replies_have_three_keys(client: Client) -> None:
    for key in client.get("detector/status/keys").json():
        content = client.get(f"detector/status/{key}").json()
        assert set(content) - {"allowed_values"} == {"access_mode", "value", "value_type"}
    state = client.get("detector/status/state").json()
    assert state["allowed_values"] == [
        "na", "idle", "ready", "acquire", "configure", "initialize", "error",
    ]  # fmt: skip


def test_files_are_an_object_or_at_the_older_version_a_list(client: Client) -> None:
    expected = {"access_mode": "r", "value": [], "value_type": "string[]"}
    assert client.get("filewriter/files/").json() == expected
    assert client.get("filewriter/status/files").json() == expected
    older = Client(client.url, "1.6.0")
    with older.session:
        assert older.get("filewriter/files/").json() == []


def test_room_is_in_bytes(client: Client, tmp_path: Path) -> None:
    with sim_dcu.serve("eiger-500k", initialized=True, data_dir=tmp_path / "older") as server:
        older = Client(server.url)
        with older.session:
            kilobytes = older.value("filewriter/status/buffer_free")
    assert client.value("filewriter/status/buffer_free") == 1024 * kilobytes


# -- habits of EIGER2 -----------------------------------------------------------------------------

_TIMES = words(
    """
    bit_depth_image bit_depth_readout count_time countrate_correction_count_cutoff
    frame_count_time frame_time
    """
)
_ENERGY = words(
    """
    element flatfield incident_energy photon_energy threshold/1/energy threshold/1/flatfield
    threshold/2/energy threshold/2/flatfield threshold_energy wavelength
    """
)
_THRESHOLD = words(
    """
    flatfield threshold/1/energy threshold/1/flatfield threshold/2/flatfield threshold_energy
    """
)


@pytest.mark.parametrize(
    ("key", "value", "names"),
    [
        ("auto_summation", False, ["auto_summation", "frame_count_time"]),
        ("count_time", 0.01, _TIMES),
        ("frame_time", 0.5, _TIMES),
        ("photon_energy", 9000.0, _ENERGY),
        ("incident_energy", 9000.0, _ENERGY),
        ("element", "Fe", _ENERGY),
        ("wavelength", 1.0, _ENERGY),
        ("threshold_energy", 5000.0, _THRESHOLD),
        ("threshold/1/energy", 5000.0, _THRESHOLD),
        (
            "threshold/2/energy",
            9000.0,
            ["flatfield", "threshold/1/flatfield", "threshold/2/energy", "threshold/2/flatfield"],
        ),
        ("threshold/2/mode", "enabled", ["threshold/2/mode", "threshold/difference/mode"]),
        ("threshold/1/mode", "disabled", ["threshold/1/mode", "threshold/difference/mode"]),
        ("threshold/difference/mode", "enabled", ["difference_mode"]),
        ("roi_mode", "disabled", ["count_time", "frame_time", "roi_mode"]),
        ("nimages", 5, ["nimages"]),
        ("trigger_mode", "exts", ["trigger_mode"]),
        ("compression", "none", ["compression"]),
    ],
)
def test_put_replies_are_the_recorded_lists(client: Client, key, value, names) -> None:
    assert client.put(f"detector/config/{key}", value).json() == sorted(names)


def test_energy_chain(client: Client) -> None:
    client.config(photon_energy=10000.0)
    for key, value in {
        "incident_energy": 10000.0,
        "threshold_energy": 5000.0,
        "threshold/1/energy": 5000.0,
        "threshold/2/energy": 14000.0,
        "element": "",
    }.items():
        assert client.value(f"detector/config/{key}") == value
    assert client.value("detector/config/wavelength") == pytest.approx(1.239841984, abs=1e-9)
    client.config(**{"threshold/1/energy": 4500.0})
    assert client.value("detector/config/threshold_energy") == 4500.0


@pytest.mark.parametrize(
    ("count_time", "frame_time", "image", "readout"),
    [(1.0, 1.1, 32, 16), (0.001, 0.0011, 16, 16), (0.0001, 0.0004, 8, 8)],
)
def test_bit_depths(client: Client, count_time, frame_time, image: int, readout: int) -> None:
    client.config(count_time=count_time, frame_time=frame_time)
    assert client.value("detector/config/bit_depth_image") == image
    assert client.value("detector/config/bit_depth_readout") == readout


def test_depth_without_summation_is_final_after_arm(client: Client) -> None:
    client.config(auto_summation=False)
    client.arm()
    assert client.value("detector/config/bit_depth_image") == 16


def test_depth_that_is_not_final_moves_with_no_other_put(client: Client) -> None:
    client.config(auto_summation=False)
    assert client.put("detector/config/nimages", 2).json() == ["nimages"]
    client.config(roi_mode="disabled")
    assert client.value("detector/config/bit_depth_image") == 32
    client.config(count_time=0.5)
    assert client.value("detector/config/bit_depth_image") == 16


def test_cutoff_of_a_real_header(client: Client) -> None:
    client.config(count_time=0.0099999)
    cutoff = client.value("detector/config/countrate_correction_count_cutoff")
    assert cutoff == pytest.approx(115122, abs=1)


def test_gated_modes_take_one_image_a_trigger(client: Client) -> None:
    client.config(nimages=4)
    assert client.put("detector/config/trigger_mode", "inte").json() == ["nimages", "trigger_mode"]
    assert client.put("detector/config/nimages", 4).status_code == 400
    assert client.value("detector/config/nimages") == 1
    client.config(nimages=1, trigger_mode="ints")
    client.config(nimages=4)


@pytest.mark.parametrize("body", [b'{"value": 1}', b'{"value": "arm"}', b"what", b"null", b"[]"])
def test_commands_with_a_body_are_an_unknown_path(client: Client, body: bytes) -> None:
    for command in ("arm", "trigger", "disarm", "initialize", "abort"):
        path = client.path(f"detector/command/{command}")
        reply = client.session.put(path, data=body, timeout=10)
        assert reply.status_code == 404
        assert reply.text.startswith("error during request: path error: unknown path: ")
    assert client.state == "idle"


def test_commands_with_no_body_or_an_empty_object(client: Client) -> None:
    headers = {"Content-Type": "application/json"}
    for body in (b"", b"{}", b"{ }\n"):
        replies = {}
        for command in ("arm", "trigger", "disarm"):
            path = client.path(f"detector/command/{command}")
            replies[command] = client.session.put(path, data=body, headers=headers, timeout=10).text
        assert replies["trigger"] == "{}"
        assert replies["arm"] == replies["disarm"]
        assert re.fullmatch(r'\{"sequence id":[123]\}', replies["arm"])
    assert client.command("initialize").text == "{}"


def test_a_gated_trigger_has_a_value(client: Client) -> None:
    client.config(trigger_mode="inte", ntrigger=2)
    client.arm()
    assert client.command("trigger", 0.5).status_code == 200
    until(lambda: client.state == "ready")
    assert client.command("trigger").status_code == 200
    until(lambda: client.state == "idle")


def test_high_voltage(tmp_path: Path) -> None:
    with sim_dcu.serve(
        "eiger2-500k", initialized=True, time_scale=TIMED, data_dir=tmp_path
    ) as server:
        client = Client(server.url, "1.8.0")
        with client.session:
            assert client.value("detector/status/high_voltage/state") == "READY"
            for wrong in (0.5, 601, "long", True):
                assert client.command("hv_reset", wrong).status_code == 400
            assert client.command("hv_reset", 2).json() == {}
            assert client.value("detector/status/high_voltage/state") == "READY"


def test_check_connections_asks_for_an_initialize(client: Client) -> None:
    assert client.command("check_connections").json() == ["up", "up"]
    assert client.state == "na"
    client.command("initialize")
    assert client.state == "idle"


def test_the_files_of_an_eiger2_are_whole(client: Client, server: sim_dcu.Server) -> None:
    assert client.value("filewriter/status/state") == "disabled"
    client.put("filewriter/config/mode", "enabled")
    client.config(nimages=3, count_time=0.005)
    client.arm()
    client.command("trigger")
    client.command("disarm")
    folder = server.dcu.store.folder
    with h5py.File(folder / "series_1_data_000001.h5") as file:
        images = file["entry/data/data"][()]
    assert images.shape == (3, 512, 1028)
    for number in (1, 2, 3):
        np.testing.assert_array_equal(images[number - 1], server.image(1, number))
    with h5py.File(folder / "series_1_master.h5") as file:
        specific = file["entry/instrument/detector/detectorSpecific"]
        assert specific["x_pixels_in_detector"][()] == 1028
        assert file["entry/definition"][()] == b"NXmx"
    date = client.value("detector/config/data_collection_date")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", date)


@pytest.mark.parametrize("compression", ["none", "bslz4", "lz4"])
def test_compressions(client: Client, server: sim_dcu.Server, compression: str) -> None:
    client.put("filewriter/config/mode", "enabled")
    client.config(compression=compression)
    client.arm()
    client.command("trigger")
    client.command("disarm")
    with h5py.File(server.dcu.store.folder / "series_1_data_000001.h5") as file:
        np.testing.assert_array_equal(file["entry/data/data"][0], server.image(1, 1))


# -- regions of interest --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "regions", "size"),
    [
        ("eiger-16m", ["disabled", "4M"], (2070, 2167)),
        ("eiger-9m", ["disabled", "4M"], (2070, 2167)),
        ("eiger2-16m", ["disabled", "4M-L", "4M-R"], (2068, 2162)),
    ],
)
def test_regions(model: str, regions: list[str], size: tuple[int, int], tmp_path: Path) -> None:
    with sim_dcu.serve(model, initialized=True, data_dir=tmp_path) as server:
        client = Client(server.url, generation(model)[0])
        with client.session:
            whole = client.get("detector/config").json()
            assert whole["roi_mode"]["allowed_values"] == regions
            client.config(count_time=0.5, frame_time=0.6)
            for region in regions[1:]:
                names = client.put("detector/config/roi_mode", region).json()
                assert {"count_time", "frame_time", "roi_mode"} <= set(names)
                shown = tuple(
                    client.value(f"detector/config/{axis}_pixels_in_detector") for axis in "xy"
                )
                assert shown == size
                assert client.value("detector/config/frame_time") == 1.0
                shortest = client.get("detector/config/frame_time").json()["min"]
                assert shortest < whole["frame_time"]["min"]
                mask = client.value("detector/config/pixel_mask")
                assert mask["shape"] == [size[1], size[0]]
            client.config(roi_mode="disabled")
            after = client.get("detector/config").json()
            assert after["frame_time"]["min"] == whole["frame_time"]["min"]
            for key in ("x_pixels_in_detector", "number_of_excluded_pixels", "beam_center_x"):
                assert after[key] == whole[key]


@pytest.mark.parametrize(
    ("model", "region", "rate"),
    [
        # In Hz. The maker's for EIGER1; a 4M's in a region of that size, and those of EIGER2, are
        # what the models are documented with.
        ("eiger-1m", "disabled", 3000),
        ("eiger-4m", "disabled", 750),
        ("eiger-9m", "disabled", 238),
        ("eiger-9m", "4M", 750),
        ("eiger-16m", "disabled", 133),
        ("eiger2-500k", "disabled", 4500),
        ("eiger2-9m", "disabled", 2000),
        ("eiger2-9m", "4M-L", 4500),
        ("eiger2-16m", "disabled", 1125),
    ],
)
def test_the_fastest_rate_can_be_put(model: str, region: str, rate: int, tmp_path: Path) -> None:
    """As its inverse, of whatever digits; a ten thousandth above it is refused."""
    with sim_dcu.serve(model, initialized=True, data_dir=tmp_path) as server:
        client = Client(server.url, generation(model)[0])
        with client.session:
            client.config(roi_mode=region)
            client.config(frame_time=1 / rate)
            shown = client.get("detector/config/frame_time").json()
            assert shown["value"] == pytest.approx(1 / rate, abs=1e-9)
            assert shown["min"] == shown["value"]
            too_fast = client.put("detector/config/frame_time", 1 / (1.0001 * rate))
            assert too_fast.status_code == 400
            assert client.value("detector/config/count_time") < shown["value"]


# -- trigger modes --------------------------------------------------------------------------------


def test_disarm_lets_a_running_trigger_finish(tmp_path: Path) -> None:
    with sim_dcu.serve(
        "eiger2-500k", initialized=True, time_scale=TIMED, data_dir=tmp_path
    ) as server:
        client = Client(server.url, "1.8.0")
        with client.session:
            client.config(trigger_mode="exts", nimages=6, ntrigger=2, count_time=0.9)
            client.arm()
            assert server.pulse()
            until(lambda: client.state == "acquire")
            client.command("disarm")
            assert client.state == "idle"
            assert server.dcu.detector.series.acquisition.exposed == 6


def test_external_gates_sum_to_images(client: Client, server: sim_dcu.Server) -> None:
    client.put("filewriter/config/mode", "enabled")
    client.config(trigger_mode="extg", extg_mode="double", nimages=4, nexpi=3)
    client.arm()
    series = server.dcu.detector.series.acquisition
    for gates in range(1, 13):
        until(lambda: client.state == "ready")
        assert server.gate(1e-6)
        until(lambda gates=gates: series.exposed == 2 * (gates // 6))
    until(lambda: client.state == "ready")
    # Counted in full, and still armed: only a command ends it.
    assert not server.gate(1e-6)
    assert client.state == "ready"
    client.command("disarm")
    assert client.state == "idle"
    assert client.get("filewriter/files").json()["value"]
    client.config(nimages=3)
    assert client.command("arm").status_code == 400


def test_eleven_signals_make_ten_images(client: Client, server: sim_dcu.Server) -> None:
    """The example of the user manual, 9.6."""
    client.config(trigger_mode="eies", ntrigger=11)
    client.arm()
    series = server.dcu.detector.series.acquisition
    for signals in range(11):
        until(lambda: client.state == "ready")
        assert server.pulse()
        until(lambda signals=signals: series.exposed == signals)
    until(lambda: client.state == "idle")
