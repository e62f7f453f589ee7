"""`ophyd-eiger reprocess` at servers that have no runs for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = str(Path(sys.executable).with_name("ophyd-eiger"))


def refused(address):
    """Return what the command says on stderr, in a process of its own: tiled leaves sockets."""
    environment = {key: value for key, value in os.environ.items() if key != "TILED_API_KEY"}
    done = subprocess.run(
        [COMMAND, "reprocess", address],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env=environment,
    )
    assert done.returncode == 1
    return done.stderr


def test_without_a_key_it_says_how_to_give_one(tiled):
    address = str(tiled.context.api_uri)
    assert refused(address) == (
        f"Error: {address}: this server wants an API key: set TILED_API_KEY, or give the URL as "
        f"{address}?api_key=...; of a catalog that a prompt serves give the folder\n"
    )


def test_what_is_no_catalog_is_told_in_a_sentence(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name, why in {"gone": "there is no such folder", "empty": "it has no catalog.db"}.items():
        said = run("reprocess", name)
        assert (said.status, said.out) == (1, "")
        assert said.err.startswith(f"Error: {name} is no catalog: {why}, and no tiled profile")
        assert "give the folder of a catalog, as data/catalog of `make shell`" in said.err
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--npz"], "--npz needs --directory"),
        (["--directory", "new"], "--directory: nothing would be in it; add --npz or --save"),
        (["--profile", "9"], "--profile: nothing would be in it; add --npz or --save"),
        (["--geometry", "distance"], "'distance' is no number by its name, as distance=0.2"),
        (["--geometry", "length=1"], "'length' is none of beam_center_x, beam_center_y, distance"),
        (["--roi", "peak"], "'peak' is no region; give NAME=X,Y,WIDTH,HEIGHT in pixels"),
    ],
)
def test_options_that_do_nothing_are_refused(run, options, why):
    said = run("reprocess", "data", *options)
    assert said.status == 2
    assert why in said.err


@pytest.mark.long
def test_a_key_that_is_wrong_is_not_repeated(tiled):
    said = refused(f"{tiled.context.api_uri}?api_key=abc123")
    assert "Invalid API key" in said
    assert "abc123" not in said


@pytest.mark.long
def test_a_server_that_is_none_of_tiled(web_server):
    said = refused(web_server)
    assert said.startswith(f"Error: {web_server}: 404")
    assert said.endswith("is this a tiled server?\n")
