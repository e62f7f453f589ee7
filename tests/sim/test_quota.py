"""A full data folder: the file writer's state is error, and it recovers once there is room."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from plain_client import Client

import sim_dcu

# A 500K's master is 4.2 MB of flat field and mask; an image at 32 bits is some 0.2 MB.
QUOTA = 12_000_000


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Client]:
    with sim_dcu.serve(
        "eiger-500k", initialized=True, data_dir=tmp_path / "data", data_quota=QUOTA
    ) as server:
        client = Client(server.url)
        with client.session:
            yield client


def stored(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_series_that_outgrows_the_quota_ends_in_error(small: Client, tmp_path: Path) -> None:
    small.config(nimages=500)
    small.put("filewriter/config/nimages_per_file", 5)
    small.arm()
    small.command("trigger")
    assert small.command("disarm").status_code == 400
    assert small.value("filewriter/status/state") == "error"
    assert "no room" in small.value("filewriter/status/error")[0]
    assert stored(tmp_path / "data") <= QUOTA
    assert small.files()
    # Once it is initialized and there is room, all is well.
    small.put("filewriter/command/clear")
    small.command("initialize")
    small.put("filewriter/config/mode", "enabled")
    assert small.value("filewriter/status/state") == "ready"
    small.config(nimages=3)
    small.arm()
    small.command("trigger")
    assert small.command("disarm").status_code == 200
    assert len(small.files()) == 2


def test_a_full_folder_refuses_the_next_series(small: Client, tmp_path: Path) -> None:
    (tmp_path / "data" / "other.h5").write_bytes(bytes(QUOTA - 1_000_000))
    reply = small.command("arm")
    assert reply.status_code == 400
    assert small.value("filewriter/status/state") == "error"
    small.session.delete(f"{small.url}/data/other.h5", timeout=5)
    small.command("initialize")
    assert small.arm() == 1


def test_buffer_free_counts_down_from_the_quota(small: Client, tmp_path: Path) -> None:
    # In KB at API 1.6 (API reference 1.3).
    assert small.value("filewriter/status/buffer_free") == QUOTA // 1024
    (tmp_path / "data" / "other.h5").write_bytes(bytes(1024 * 1024))
    assert small.value("filewriter/status/buffer_free") == QUOTA // 1024 - 1024
    (tmp_path / "data" / "more.h5").write_bytes(bytes(QUOTA))
    assert small.value("filewriter/status/buffer_free") == 0


@pytest.mark.parametrize("quota", [0, -1])
def test_a_quota_must_be_some_bytes(quota: int) -> None:
    with pytest.raises(ValueError, match="quota"):
        sim_dcu.serve("eiger-500k", data_quota=quota)
