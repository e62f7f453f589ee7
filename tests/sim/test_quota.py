"""A full data folder: the file writer's state is error, and it recovers once there is room."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from plain_client import Client

import sim_dcu

# A 500K's master is 4.2 MB of flat field and mask; an image at 32 bits is some 0.2 MB.
QUOTA = 12_000_000


# Each model with the version its generation answers, and in how many bytes buffer_free counts: KB
# at API 1.6 (API reference 1.3), bytes at 1.8 (API reference 1.8).
@pytest.fixture(
    params=[("eiger-500k", "1.6.0"), ("eiger2-500k", "1.8.0")], ids=["eiger1", "eiger2"]
)
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Client]:
    model, version = request.param
    with sim_dcu.serve(
        model, initialized=True, data_dir=tmp_path / "data", data_quota=QUOTA
    ) as server:
        client = Client(server.url, version)
        with client.session:
            client.put("filewriter/config/mode", "enabled")
            yield client


def unit(client: Client) -> int:
    """Return how many bytes one of `buffer_free` is."""
    return 1024 if client.version == "1.6.0" else 1


def file_names(client: Client) -> list[str]:
    listed = client.get("filewriter/files").json()
    return listed if client.version == "1.6.0" else listed["value"]


def stored(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_series_that_outgrows_the_quota_ends_in_error(small: Client, tmp_path: Path) -> None:
    small.config(nimages=500)
    small.put("filewriter/config/nimages_per_file", 5)
    small.arm()
    small.command("trigger")
    assert small.command("disarm").status_code == 400
    assert small.value("filewriter/status/state") == "error"
    assert "no room" in str(small.value("filewriter/status/error"))
    assert stored(tmp_path / "data") <= QUOTA
    assert file_names(small)
    # Once it is initialized and there is room, all is well.
    small.put("filewriter/command/clear")
    small.command("initialize")
    small.put("filewriter/config/mode", "enabled")
    assert small.value("filewriter/status/state") == "ready"
    small.config(nimages=3)
    small.arm()
    small.command("trigger")
    assert small.command("disarm").status_code == 200
    assert len(file_names(small)) == 2


def test_a_full_folder_refuses_the_next_series(small: Client, tmp_path: Path) -> None:
    (tmp_path / "data" / "other.h5").write_bytes(bytes(QUOTA - 1_000_000))
    reply = small.command("arm")
    assert reply.status_code == 400
    assert small.value("filewriter/status/state") == "error"
    small.session.delete(f"{small.url}/data/other.h5", timeout=5)
    small.command("initialize")
    assert small.arm() == 1


def test_buffer_free_counts_down_from_the_quota(small: Client, tmp_path: Path) -> None:
    free, kilobytes = QUOTA // 1024, 1024 // unit(small)
    assert small.value("filewriter/status/buffer_free") == free * kilobytes
    (tmp_path / "data" / "other.h5").write_bytes(bytes(1024 * 1024))
    assert small.value("filewriter/status/buffer_free") == (free - 1024) * kilobytes
    (tmp_path / "data" / "more.h5").write_bytes(bytes(QUOTA))
    assert small.value("filewriter/status/buffer_free") == 0


def test_buffer_free_falls_as_files_pile_up_and_rises_when_they_go(
    small: Client, tmp_path: Path
) -> None:
    small.config(nimages=4, count_time=0.005)
    small.put("filewriter/config/nimages_per_file", 2)
    readings = [small.value("filewriter/status/buffer_free")]
    for _ in range(2):
        small.arm()
        small.command("trigger")
        small.command("disarm")
        taken = -(-stored(tmp_path / "data") // 1024) * 1024
        readings.append(small.value("filewriter/status/buffer_free"))
        assert readings[-1] * unit(small) == QUOTA // 1024 * 1024 - taken
    assert readings[0] > readings[1] > readings[2]
    for name in file_names(small):
        small.session.delete(f"{small.url}/data/{name}", timeout=5)
    assert small.value("filewriter/status/buffer_free") == readings[0]


@pytest.mark.parametrize("quota", [0, -1])
def test_a_quota_must_be_some_bytes(quota: int) -> None:
    with pytest.raises(ValueError, match="quota"):
        sim_dcu.serve("eiger-500k", data_quota=quota)
