"""Arrays and whole configurations in each of their forms, there and back, over HTTP."""

import base64
import io
import random
from collections.abc import Iterator
from pathlib import Path

import fabio
import h5py
import numpy as np
import pytest
import requests
from fabio.tifimage import TifImage
from plain_client import Client

import sim_dcu
from sim_dcu import formats

GENERATIONS_BY_TURNS = True
SHAPES = {"eiger-500k": (514, 1030), "eiger2-500k": (512, 1028)}


@pytest.fixture(
    params=[
        ("eiger-500k", "1.6.0"),
        ("eiger2-500k", "1.8.0"),
        pytest.param(("eiger2-500k", "1.6.0"), marks=pytest.mark.long),
    ]
)
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Client]:
    """Both generations, the second at both its versions."""
    model, version = request.param
    with sim_dcu.serve(model, seed=3, initialized=True, data_dir=tmp_path / "data") as server:
        plain = Client(server.url, version)
        plain.shape = SHAPES[model]  # type: ignore[attr-defined]
        with plain.session:
            yield plain


def array_keys(client: Client) -> list[str]:
    twins = [f"threshold/{n}/" for n in (1, 2)] if client.shape[0] == 512 else []
    return [f"{place}{name}" for place in ["", *twins] for name in ("flatfield", "pixel_mask")]


def get(client: Client, key: str, accept: str) -> requests.Response:
    path = client.path(f"detector/config/{key}")
    return client.session.get(path, headers={"Accept": accept}, timeout=30)


def put(client: Client, key: str, body: bytes, content_type: str) -> requests.Response:
    path = client.path(f"detector/config/{key}")
    return client.session.put(path, data=body, headers={"Content-Type": content_type}, timeout=30)


def as_json(client: Client, key: str) -> np.ndarray:
    form = get(client, key, "application/json").json()["value"]
    raw = base64.b64decode(form["data"])
    return np.frombuffer(raw, form["type"]).reshape(form["shape"])


@pytest.mark.parametrize("accept", ["application/tiff", "tiff", "image/tiff", "TIFF;q=0.9, */*"])
def test_arrays_as_tiff(client: Client, tmp_path: Path, accept: str) -> None:
    for key in array_keys(client):
        reply = get(client, key, accept)
        assert reply.headers["content-type"] == "application/tiff"
        path = tmp_path / "array.tif"
        path.write_bytes(reply.content)
        with fabio.open(path) as image:
            assert image.data.dtype == ("float32" if key.endswith("flatfield") else "uint32")
            assert image.data.shape == client.shape
            np.testing.assert_array_equal(image.data, as_json(client, key))


@pytest.mark.parametrize("accept", ["application/hdf5", "hdf5"])
def test_arrays_as_hdf5(client: Client, accept: str) -> None:
    for key in array_keys(client):
        reply = get(client, key, accept)
        assert reply.headers["content-type"] == "application/hdf5"
        with h5py.File(io.BytesIO(reply.content)) as file:
            (dataset,) = file.values()
            np.testing.assert_array_equal(dataset[()], as_json(client, key))
            assert dataset.attrs["access_mode"] == "rw"
            assert (
                dataset.attrs["value_type"]
                == client.get(f"detector/config/{key}").json()["value_type"]
            )


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("application/tiff;q=0.1, application/json", "application/json; charset=utf-8"),
        ("application/json;q=0.5, application/tiff", "application/tiff"),
        ("application/tiff;q=0.2, application/hdf5; q=0.8", "application/hdf5"),
        ("application/tiff;q=0", "application/json; charset=utf-8"),
        ("application/hdf5;q=much, application/tiff", "application/hdf5"),
    ],
)
def test_weights_decide_between_forms(client: Client, accept: str, chosen: str) -> None:
    """RFC 9110, 12.4.2; a weight that is none counts as 1."""
    assert get(client, "pixel_mask", accept).headers["content-type"] == chosen


@pytest.mark.parametrize("accept", ["JSON", "", "*/*", "application/json; charset=utf-8", "what"])
def test_anything_else_is_json(client: Client, accept: str) -> None:
    reply = get(client, "pixel_mask", accept)
    assert reply.headers["content-type"] == "application/json; charset=utf-8"
    assert reply.json()["value"]["shape"] == list(client.shape)


def test_scalars_have_no_other_form(client: Client) -> None:
    assert get(client, "count_time", "application/tiff").json()["unit"] == "s"


def tiff_of(array: np.ndarray, tmp_path: Path) -> bytes:
    path = tmp_path / "put.tif"
    TifImage(data=array).write(path)
    return path.read_bytes()


def hdf5_of(array: np.ndarray, tmp_path: Path) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("mine", data=array, compression="gzip")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("form", "content_type"),
    [(tiff_of, "application/tiff"), (hdf5_of, "application/hdf5"), (hdf5_of, "hdf5")],
)
def test_arrays_are_put_and_read_back(
    client: Client, tmp_path: Path, form, content_type: str
) -> None:
    for key in array_keys(client):
        mine = as_json(client, key).copy()
        mine[5, 7] = 2
        reply = put(client, key, form(mine, tmp_path), content_type)
        assert reply.status_code == 200, reply.text
        assert key in reply.json()
        np.testing.assert_array_equal(as_json(client, key), mine)


def test_small_integers_make_a_mask_too(client: Client, tmp_path: Path) -> None:
    mine = np.zeros(client.shape, "u1")
    mine[3, 4] = 8
    assert put(client, "pixel_mask", tiff_of(mine, tmp_path), "image/tiff").status_code == 200
    np.testing.assert_array_equal(as_json(client, "pixel_mask"), mine)
    assert client.value("detector/config/number_of_excluded_pixels") == 1


def test_bodies_that_hold_no_such_array_are_refused(client: Client, tmp_path: Path) -> None:
    mask = as_json(client, "pixel_mask")
    negative = np.full(client.shape, -1, "<i4")
    not_finite = np.full(client.shape, np.nan, "<f4")
    two = io.BytesIO()
    with h5py.File(two, "w") as file:
        file["a"], file["b"] = mask, mask
    for key, body, content_type in (
        ("pixel_mask", tiff_of(mask.T.copy(), tmp_path), "application/tiff"),
        ("pixel_mask", tiff_of(negative, tmp_path), "application/tiff"),
        ("pixel_mask", tiff_of(mask, tmp_path)[:-1], "application/tiff"),
        ("pixel_mask", b"", "application/tiff"),
        ("pixel_mask", hdf5_of(negative, tmp_path), "application/hdf5"),
        ("pixel_mask", two.getvalue(), "application/hdf5"),
        ("pixel_mask", hdf5_of(mask, tmp_path)[:1000], "application/hdf5"),
        ("flatfield", tiff_of(not_finite, tmp_path), "application/tiff"),
        ("count_time", tiff_of(mask[:5, :5].copy(), tmp_path), "application/tiff"),
    ):
        reply = put(client, key, body, content_type)
        assert reply.status_code == 400, key
        assert 0 < len(reply.content) < 128
    np.testing.assert_array_equal(as_json(client, "pixel_mask"), mask)


def test_damaged_hdf5_files_do_no_harm(client: Client, tmp_path: Path) -> None:
    mask = as_json(client, "pixel_mask")
    body = hdf5_of(mask, tmp_path)
    draw = random.Random(5)
    for _ in range(10):
        damaged = bytearray(body)
        for _ in range(8):
            damaged[draw.randrange(2000)] = draw.randrange(256)
        reply = put(client, "pixel_mask", bytes(damaged), "application/hdf5")
        assert reply.status_code in (200, 400)
    client.config(nimages=2)


def test_a_file_that_takes_for_ever_to_read_is_refused(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some damaged files keep the HDF5 library busy without end."""
    monkeypatch.setattr(formats, "LONGEST_READING", 0.001)
    mask = as_json(client, "pixel_mask")
    reply = put(client, "pixel_mask", hdf5_of(mask, tmp_path), "application/hdf5")
    assert (reply.status_code, len(reply.content) < 128) == (400, True)


def test_users_masks_survive_an_energy_and_flat_fields_do_not(client: Client) -> None:
    factory = {key: as_json(client, key) for key in array_keys(client)}
    for key, array in factory.items():
        mine = array.copy()
        mine[1, 1] += 1
        client.config(**{key: darray(mine)})
    client.config(photon_energy=9000.0)
    for key, array in factory.items():
        changed = not np.array_equal(as_json(client, key), array)
        assert changed == key.endswith("pixel_mask"), key


def test_delete_brings_the_factorys_mask_back(client: Client) -> None:
    factory = as_json(client, "pixel_mask")
    excluded = client.value("detector/config/number_of_excluded_pixels")
    path = client.path("detector/config/pixel_mask")
    assert client.session.delete(path, timeout=10).status_code == 404
    client.config(pixel_mask=darray(np.zeros_like(factory)))
    assert client.value("detector/config/number_of_excluded_pixels") == 0
    reply = client.session.delete(path, timeout=10)
    assert (reply.status_code, reply.content) == (204, b"")
    np.testing.assert_array_equal(as_json(client, "pixel_mask"), factory)
    assert client.value("detector/config/number_of_excluded_pixels") == excluded
    assert client.session.delete(path, timeout=10).status_code == 404
    assert (
        client.session.delete(client.path("detector/config/count_time"), timeout=10).status_code
        == 405
    )


def darray(array: np.ndarray) -> dict[str, object]:
    return {
        "__darray__": [1, 0, 0],
        "type": array.dtype.str,
        "shape": list(array.shape),
        "filters": ["base64"],
        "data": base64.b64encode(array.tobytes()).decode(),
    }


# -- whole configurations -------------------------------------------------------------------------


def changed_configuration(client: Client) -> None:
    client.config(photon_energy=9000.0, threshold_energy=5000.0, count_time=0.2, frame_time=0.3)
    client.config(nimages=7, beam_center_x=12.5, trigger_mode="exts")


@pytest.mark.parametrize("form", ["JSON", "hdf5"])
def test_a_whole_configuration_is_stored_and_restored(client: Client, form: str) -> None:
    changed_configuration(client)
    before = client.get("detector/config").json()
    stored = get(client, "", form)
    media = "application/hdf5" if form == "hdf5" else "application/json; charset=utf-8"
    assert stored.headers["content-type"] == media
    assert client.command("initialize").status_code == 200
    reply = put(client, "", stored.content, media)
    assert reply.status_code == 200, reply.text
    assert {"count_time", "threshold_energy", "nimages"} <= set(reply.json())
    assert client.get("detector/config").json() == before


def test_whole_hdf5_has_each_value_and_its_metadata(client: Client) -> None:
    whole = client.get("detector/config/").json()
    with h5py.File(io.BytesIO(get(client, "", "application/hdf5").content)) as file:
        for key, reply in whole.items():
            dataset = file[key]
            value = dataset[()]
            value = value.decode() if isinstance(value, bytes) else value
            np.testing.assert_array_equal(value, reply["value"])
            assert dataset.attrs["value_type"] == reply["value_type"]
            assert ("unit" in dataset.attrs) == ("unit" in reply)
        assert "flatfield" not in file
        assert "pixel_mask" not in file


@pytest.mark.parametrize(
    ("entries", "status"),
    [
        ({"nimages": {"value": 9}, "count_time": {"value": -1.0}}, 400),
        ({"nimages": {"value": 9}, "no_such": {"value": 1}}, 404),
        ({"nimages": {"value": 9}, "element": {"value": "Xx"}}, 400),
        ({"nimages": {"value": 9}, "beam_center_x": {"value": None}}, 400),
        ([1, 2], 400),
    ],
)
def test_a_refused_whole_configuration_changes_nothing(client, entries, status: int) -> None:
    path = client.path("detector/config")
    before = client.get("detector/config").json()
    assert client.session.put(path, json=entries, timeout=10).status_code == status
    assert client.get("detector/config").json() == before


def test_bare_values_make_a_whole_configuration_too(client: Client) -> None:
    path = client.path("detector/config/")
    reply = client.session.put(path, json={"nimages": 3, "ntrigger": 2}, timeout=10)
    assert reply.json() == ["nimages", "ntrigger"]
    assert client.value("detector/config/ntrigger") == 2


def test_whole_filewriter_configuration(client: Client) -> None:
    whole = {"mode": {"value": "enabled"}, "nimages_per_file": {"value": 12}}
    reply = client.session.put(client.path("filewriter/config"), json=whole, timeout=10)
    assert (reply.status_code, reply.content) == (200, b"")
    assert client.value("filewriter/config/nimages_per_file") == 12
    bad = {"nimages_per_file": {"value": 13}, "mode": {"value": "what"}}
    reply = client.session.put(client.path("filewriter/config"), json=bad, timeout=10)
    assert reply.status_code == 400
    assert client.value("filewriter/config/nimages_per_file") == 12
