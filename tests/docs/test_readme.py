"""What the README says works: its Python blocks run, its commands and flags exist."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import bluesky.plans as bp
import click
import eiger_plans
import numpy as np
import pytest
from eiger_plans import SimulatedMotor
from ophyd.sim import motor

import sim_dcu
from ophyd_eiger import EigerDetector
from ophyd_eiger.cli import main
from ophyd_eiger.cli.common import EXIT_STATUSES
from ophyd_eiger.geometry import ScatteringGeometry

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ANALYSIS = (ROOT / "docs" / "analysis.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
# Where the README's simulator is; the tests' own has another port.
ADDRESS = "http://127.0.0.1:8000"
Y, X = 514, 1030  # of an EIGER 500K


def run(block: str, names: dict) -> object:
    """Run a block as at a prompt; return the value of its last line if that is an expression."""
    body = ast.parse(block).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "README.md", "exec"), names)
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), "README.md", "eval"), names)


@pytest.fixture
def python_blocks():
    return [text for language, text in BLOCKS if language == "python"]


def test_python_blocks_run_in_order(RE, catalog, python_blocks, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ophyd_eiger.trial.temporary_catalog", lambda: catalog)
    with sim_dcu.serve(model="eiger-500k", time_scale=0, initialized=True) as dcu:
        prompt = EigerDetector(dcu.url, name="eiger", directory="data")
        names = {"RE": RE, "cat": catalog, "eiger": prompt, "bp": bp}
        blocks = [block.replace(ADDRESS, dcu.url) for block in python_blocks]
        assert ADDRESS in "".join(python_blocks)

        values = [run(blocks[0], names)]
        assert values == [(5, 1, Y, X)]
        prompt.destroy()

        values += [run(block, names) for block in blocks[1:]]
        shapes = [value for value in values if isinstance(value, tuple) and len(value) == 4]
        assert shapes == [(5, 1, Y, X), (5, 10, Y, X)]
        eiger = names["eiger"]
        assert eiger.detector.photon_energy.get() == pytest.approx(12400)
        # Where the motor of the rotation was.
        assert any(getattr(value, "shape", ()) == (10,) for value in values)
        assert names["first"].shape == names["good"].shape == (Y, X)
        assert names["images"].shape == (2, 1, Y, X)
        assert np.array_equal(names["first"], np.asarray(names["images"])[0, 0])
        assert names["expected"].shape == (Y, X)
        # The rotation of 10 images is the last that came home.
        assert len(eiger.fetched) == 2
        printed = capsys.readouterr().out
        assert "_master.h5" in printed
        eiger.destroy()
    names_of_files = {path.name for path in (tmp_path / "data").iterdir()}
    pattern = re.compile(r"eiger_[0-9a-f]{8}_\d+_(master|view|data_\d{6})\.h5")
    documented = re.findall(r"`(eiger_\S+\.h5)`", README)
    assert documented
    assert all(pattern.fullmatch(name) for name in documented)
    assert all(pattern.fullmatch(name) for name in names_of_files if name.startswith("eiger_"))


@pytest.mark.long
def test_the_examples_of_the_table_of_plans_run(RE, catalog, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = re.findall(r"^\| `(\w+)` \|.*\| `(RE\(.*\))` \|$", README, re.MULTILINE)
    assert {"series", "snap", "armed_once", "rotation", "raster"} <= {name for name, _ in rows}
    with sim_dcu.serve(model="eiger-500k", time_scale=0, initialized=True) as dcu:
        eiger = EigerDetector(dcu.url, name="eiger", directory="data")
        motors = {name: SimulatedMotor(name=name, velocity=50) for name in ("omega", "x", "y")}
        names = {"RE": RE, "eiger": eiger, "bp": bp, **vars(eiger_plans), **motors}
        for name, example in rows:
            assert example.startswith(f"RE({name}(")
            (uid,) = eval(example, names)
            assert catalog[uid].metadata["stop"]["exit_status"] == "success"
        eiger.destroy()
    assert "_master.h5" in capsys.readouterr().out


def help_of(*command: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-m", *command, "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(re.findall(r"(?<!\S)--[a-z-]+", done.stdout)) - {"--help"}


def test_the_simulators_flags_are_those_of_its_help():
    rows = set(re.findall(r"^\| `(--[a-z-]+)` \|", README, re.MULTILINE))
    assert rows == help_of("sim_dcu")


def test_the_demos_flags_are_those_of_its_help():
    (sentence,) = re.findall(r"`ophyd-eiger demo` has the flags (.*)\.", README)
    flags = set(re.findall(r"`(--[a-z-]+)`", sentence))
    code = "import sys; from ophyd_eiger.cli import main; sys.argv = ['ophyd-eiger', *sys.argv[1:]]"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; main()", "demo", "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert flags == set(re.findall(r"^ +(--[a-z-]+)", done.stdout, re.MULTILINE)) - {"--help"}


def test_the_commands_and_their_options_are_those_of_their_help():
    shared = {"--timeout", "--api-version", "--json"}
    documented = {}
    for command, rest in re.findall(r"^\| `([a-z]+) URL[^`]*` \|(.*)\|$", README, re.MULTILINE):
        documented[command] = set(re.findall(r"`(--[a-z-]+)`", rest.rpartition("|")[2])) | shared
    served = {}
    for name, command in main.commands.items():
        options = [p for p in command.params if isinstance(p, click.Option)]
        if any(p.name == "url" for p in command.params):
            served[name] = {option.opts[0] for option in options}
    assert documented == served
    assert all(f"`{option}`" in README for option in shared)


def test_the_options_of_commands_on_files_are_those_of_their_help():
    documented, served = {}, {}
    rows = re.findall(r"^\| `([a-z]+) (?:CATALOG|FILE)[^`]*` \|(.*)\|$", README, re.MULTILINE)
    for command, rest in rows:
        documented[command] = set(re.findall(r"`(--[a-z-]+)`", rest.rpartition("|")[2])) | {
            "--json"
        }
        options = [p for p in main.commands[command].params if isinstance(p, click.Option)]
        served[command] = {option.opts[0] for option in options}
    assert documented == served
    assert documented


def test_the_blocks_of_the_analysis_run(RE, catalog, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", ANALYSIS, re.MULTILINE | re.DOTALL)
    with sim_dcu.serve(model="eiger-500k", time_scale=0, initialized=True) as dcu:
        eiger = EigerDetector(dcu.url, name="eiger", directory="data")
        (uid,) = RE(bp.scan([eiger], motor, 0, 1, 2))
        master = next(f.path for f in eiger.fetched if f.path.name.endswith("_master.h5"))
        eiger.destroy()
    geometry = ScatteringGeometry(515, 257, 0.1, 1.0, 7.5e-5, 7.5e-5)
    names = {"cat": catalog, "uid": uid, "master": master, "geometry": geometry}
    values = [run(block, names) for block in blocks]
    assert (tmp_path / "first.png").is_file()
    assert len(names["run"]) == 2
    assert values[3].shape == (2,)
    assert {"AD_EIGER", "EIGER_SIMPLON"} <= set(names["tree"].__dict__["_handler_registry"])


def test_exit_statuses_are_those_of_the_help():
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", README, re.MULTILINE)
    told = re.findall(r"^ +(\d+)  (.*)$", EXIT_STATUSES, re.MULTILINE)
    assert [number for number, _ in rows] == [number for number, _ in told]
    for (_, words), (_, help_words) in zip(rows, told, strict=True):
        assert words.replace("`", "").startswith(help_words)


@pytest.mark.skipif(shutil.which("make") is None, reason="make missing: apt-get install make")
@pytest.mark.parametrize("target", ["demo", "test", "test-long", "shell"])
def test_make_targets(target):
    assert f"make {target}" in README
    done = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_no_target_is_named_that_is_not_tried_here():
    assert set(re.findall(r"make ([a-z-]+)`", README)) <= {"demo", "test", "test-long", "shell"}


def test_what_is_named_is_there():
    for path in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / path).is_file(), path
    folders = re.findall(r"^\| `([a-z_]+)/` \|", README, re.MULTILINE)
    assert folders
    for folder in folders:
        assert (ROOT / folder).is_dir(), folder
    assert (ROOT / ".ci" / "run").is_file()
    assert (ROOT / "docs" / "demo.png").stat().st_size < 150_000


def test_names_of_package_commands_and_handler():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"pip install {project['name']}`" in README
    for command in project["scripts"]:
        assert f"`{command}" in README
    for handler in project["entry-points"]["databroker.handlers"]:
        assert f"`{handler}`" in README
