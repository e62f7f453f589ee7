"""The files of a whole simulated DCU, set and fetched over HTTP, against the golden trees."""

import h5py
import numpy as np
import pytest
from checker import faults
from plain_client import Client
from written import data_names

import sim_dcu

# Of each test's cases the short run takes every 2nd, see conftest.
SHORT_RUN_EVERY = 2

MODELS = {
    "eiger-500k": ("eiger-500k", "1.6.0"),
    "eiger2-500k": ("eiger2-500k", "1.8.0"),
    # The files are the firmware's, whatever version the API answers.
    "eiger2-500k at 1.6.0": ("eiger2-500k", "1.6.0"),
}


@pytest.fixture(params=MODELS)
def server(request, tmp_path):
    model, version = MODELS[request.param]
    with sim_dcu.serve(
        model, api_version=version, initialized=True, seed=3, data_dir=tmp_path / "dcu"
    ) as server:
        yield server


@pytest.fixture
def client(server):
    plain = Client(server.url, server.dcu.firmware.api_version)
    with plain.session:
        plain.put("filewriter/config/mode", "enabled")
        yield plain


def fetch(client, names, folder):
    for name in names:
        reply = client.session.get(f"{client.url}/data/{name}", timeout=10)
        assert reply.status_code == 200, name
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(reply.content)


def checked(server, folder, start, came):
    """Find each file of the first series right, after `came` of its images."""
    series = server.dcu.detector.series._armed.get(1)
    per_file = series.filewriter["nimages_per_file"]
    files = -(-came // per_file) if per_file else 0
    for number, name in enumerate([f"{start}_master.h5", *data_names(files, start)]):
        assert faults(folder / name, series, number, came) == []


@pytest.mark.parametrize("compression", ["bslz4", "lz4"])
@pytest.mark.parametrize("per_file", [0, 2])
def test_a_series_over_http(server, client, tmp_path, compression, per_file):
    client.config(
        compression=compression,
        nimages=5,
        count_time=0.005,
        beam_center_x=515.0,
        beam_center_y=260.5,
        omega_start=12.5,
        omega_increment=0.125,
        photon_energy=12000.0,
    )
    client.put("filewriter/config/nimages_per_file", per_file)
    client.put("filewriter/config/image_nr_start", 100)
    client.put("filewriter/config/name_pattern", "crystal_1/scan_$id")
    client.arm()
    client.command("trigger")
    client.command("disarm")
    start = "crystal_1/scan_1"
    names = [f"{start}_master.h5", *data_names(3 if per_file else 0, start)]
    fetch(client, names, tmp_path)
    checked(server, tmp_path, start, 5)
    with h5py.File(tmp_path / names[0]) as file:
        data = file["entry/data"]
        found = np.concatenate([data[name][()] for name in sorted(data)])
        assert data[min(data)].attrs["image_nr_low"] == 100
        assert file["entry/sample/goniometer/omega"][()].tolist() == [
            12.5,
            12.625,
            12.75,
            12.875,
            13.0,
        ]
        energy = file["entry/instrument/detector/detectorSpecific/photon_energy"][()]
        wavelength = file["entry/instrument/beam/incident_wavelength"][()]
        # h c / e in eV angstrom (SI 2019).
        assert wavelength * energy == pytest.approx(12398.41984332, rel=1e-6)
        distances = file["entry/instrument/detector/geometry/translation/distances"][()]
        assert distances[:2] == pytest.approx([515.0 * 7.5e-05, 260.5 * 7.5e-05], rel=1e-6)
    expected = [server.image(1, number) for number in range(1, 6)]
    np.testing.assert_array_equal(found, expected)


def test_masked_pixels_are_zero_in_the_files_of_a_dcu_told_so(tmp_path):
    with sim_dcu.serve("eiger2-500k", initialized=True, seed=3, data_dir=tmp_path) as server:
        client = Client(server.url, "1.8.0")
        client.put("filewriter/config/mode", "enabled")
        for value in (True, False):
            client.config(mask_to_zero=value)
            client.arm()
            client.command("trigger")
            client.command("disarm")
        for series, masked_count in ((1, 0), (2, 2**32 - 1)):
            with h5py.File(tmp_path / f"series_{series}_master.h5") as file:
                specific = file["entry/instrument/detector/detectorSpecific"]
                masked = specific["pixel_mask"][()] != 0
                (image,) = file["entry/data/data_000001"][()]
            assert masked.any()
            assert (image[masked] == masked_count).all()
            np.testing.assert_array_equal(image, server.image(series, 1))


@pytest.mark.parametrize("ending", ["disarm", "cancel", "abort"])
def test_a_series_that_ends_after_one_of_three_triggers(server, client, tmp_path, ending):
    client.config(nimages=3, ntrigger=3, count_time=0.005)
    client.put("filewriter/config/nimages_per_file", 2)
    client.arm()
    client.command("trigger")
    assert client.command(ending).status_code == 200
    listed = client.get("filewriter/files").json()
    names = sorted(listed if client.version == "1.6.0" else listed["value"])
    fetch(client, names, tmp_path)
    with h5py.File(tmp_path / "series_1_master.h5") as file:
        data = file["entry/data"]
        assert len(data) == 5
        # The others lead nowhere for ever.
        lengths = [len(data[name]) for name in data if data.get(name) is not None]
    if ending != "abort":  # which may drop images
        assert lengths == [2, 1]
    assert names == [*data_names(len(lengths), "series_1"), "series_1_master.h5"]
    checked(server, tmp_path, "series_1", sum(lengths))


def test_clear_and_mode(server, client):
    """Mode put off while a series is written holds from its end on; clear turns off EIGER1's."""
    client.config(nimages=2, ntrigger=2, count_time=0.005)
    client.put("filewriter/config/nimages_per_file", 1)
    client.arm()
    client.command("trigger")
    client.put("filewriter/config/mode", "disabled")
    assert client.value("filewriter/status/state") == "acquire"
    client.command("trigger")
    client.command("disarm")
    assert client.value("filewriter/status/state") == "disabled"
    assert len(server.dcu.store.names()) == 5
    client.arm()
    client.command("trigger")
    client.command("disarm")
    assert len(server.dcu.store.names()) == 5
    client.put("filewriter/config/mode", "enabled")
    assert client.value("filewriter/status/state") == "ready"
    client.put("filewriter/command/clear")
    assert server.dcu.store.names() == []
    is_eiger2 = "EIGER2" in client.value("detector/config/description")
    assert client.value("filewriter/config/mode") == ("enabled" if is_eiger2 else "disabled")
