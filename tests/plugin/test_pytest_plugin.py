"""The plugin for pytest, in projects of others: found by its entry point, used, and not used."""

import os
import re
import tomllib
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
ENTRY_POINTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "entry-points"
]["pytest11"]

CLIENT = """
import json
import urllib.request

import pytest

def ask(dcu, path, method="GET", version="1.6.0"):
    subsystem, _, rest = path.partition("/")
    url = f"{dcu.url}/{subsystem}/api/{version}/{rest}"
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10) as reply:
        return reply.read().decode()

def value(dcu, path, version="1.6.0"):
    return json.loads(ask(dcu, path, version=version))["value"]
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A fresh folder, in an environment where this package is installed with its entry point.

    What an installation would leave is made here, because an editable one of an older version
    may be what these tests run in. pytest takes a name that comes twice once.
    """
    site = pytester.mkdir("site")
    metadata = site / "installed_plugin-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: installed-plugin\nVersion: 0\n"
    )
    lines = "\n".join(f"{name} = {target}" for name, target in ENTRY_POINTS.items())
    (metadata / "entry_points.txt").write_text(f"[pytest11]\n{lines}\n")
    # Before what is there already, so that it is this checkout's code that is tried.
    paths = [str(site), str(ROOT), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    return pytester


def found_by_itself(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.runpytest_subprocess("-p", "no:cacheprovider", *arguments, timeout=60)


def outcomes(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run without the other plugins of this environment, some of which take seconds to load."""
    project._monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return found_by_itself(project, "-p", ENTRY_POINTS["sim_dcu"], *arguments)


def test_a_fresh_project_uses_it_without_being_asked_to(project: pytest.Pytester) -> None:
    project.makepyprojecttoml(
        '[tool.pytest.ini_options]\naddopts = "--strict-config --strict-markers"\n'
        'filterwarnings = ["error"]\nsim_dcu_model = "eiger2-500k"\n'
    )
    project.makepyfile(
        CLIENT
        + """
def test_it_is_initialized_and_of_the_model_chosen(eiger_dcu):
    assert value(eiger_dcu, "detector/status/state") == "idle"
    assert "EIGER2" in value(eiger_dcu, "detector/config/description", "1.8.0")

def test_faults(eiger_dcu):
    eiger_dcu.faults.set("refuse:command=arm,times=1")
    with pytest.raises(urllib.error.HTTPError, match="400"):
        ask(eiger_dcu, "detector/command/arm", "PUT")
    assert json.loads(ask(eiger_dcu, "detector/command/arm", "PUT")) == {"sequence id": 1}

def test_each_test_has_its_own(eiger_dcu):
    assert not eiger_dcu.faults.active
    assert json.loads(ask(eiger_dcu, "detector/command/arm", "PUT")) == {"sequence id": 1}

def test_several(eiger_dcu, eiger_dcu_factory):
    other = eiger_dcu_factory("eiger-1m", initialized=False, seed=5)
    assert other.url != eiger_dcu.url
    assert value(other, "detector/status/state") == "na"
    third = eiger_dcu_factory(initialized=True)
    assert value(third, "detector/config/x_pixels_in_detector") == 1028
"""
    )
    found_by_itself(project).assert_outcomes(passed=4)


def test_the_readmes_tests_pass(project: pytest.Pytester) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    (block,) = (block for block in blocks if "eiger_dcu_factory" in block)
    project.makepyfile(block)
    outcomes(project).assert_outcomes(passed=block.count("def test_"))
    table = dict(re.findall(r"^\| `(sim_dcu_\w+)` \| (.*) \|$", readme, re.MULTILINE))
    options = ("model", "api_version", "time_scale", "scene")
    assert set(table) == {f"sim_dcu_{name}" for name in options}


def test_options_of_the_command_line_come_first(project: pytest.Pytester) -> None:
    project.makeini("[pytest]\nsim_dcu_model = eiger2-500k\nsim_dcu_time_scale = 0.5\n")
    project.makepyfile(
        CLIENT
        + """
def test_options(eiger_dcu):
    assert value(eiger_dcu, "detector/config/x_pixels_in_detector") == 1030
    assert value(eiger_dcu, "detector/config/y_pixels_in_detector") == 1065
    with urllib.request.urlopen(eiger_dcu.url + "/detector/api/version") as reply:
        assert json.load(reply)["value"] == "1.5.0"
    assert eiger_dcu.dcu.detector.machine.clock.scale == 0.25
    assert eiger_dcu.beam.scene == "rings"
"""
    )
    options = ["--sim-dcu-model=eiger-1m", "--sim-dcu-api-version=1.5.0", "--sim-dcu-scene=rings"]
    outcomes(project, *options, "--sim-dcu-time-scale=0.25").assert_outcomes(passed=1)


@pytest.mark.long
def test_it_ends_with_the_test_also_where_that_fails(project: pytest.Pytester) -> None:
    project.makepyfile(
        CLIENT
        + """
seen = []

def test_fails(eiger_dcu):
    seen.append((eiger_dcu.url, eiger_dcu.dcu.store.folder))
    assert eiger_dcu.dcu.store.folder.is_dir()
    assert False

def test_it_is_gone():
    (url, folder), = seen
    assert not folder.exists()
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(url + "/detector/api/version", timeout=5)
"""
    )
    outcomes(project).assert_outcomes(passed=1, failed=1)


def test_nothing_is_imported_where_no_test_asks_for_it(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
import sys

def test_light():
    loaded = {name.partition(".")[0] for name in sys.modules}
    assert "sim_dcu" in loaded
    assert loaded.isdisjoint({"starlette", "uvicorn", "h5py", "numpy", "ophyd", "requests"})
    ours = sorted(name for name in sys.modules if name.startswith("sim_dcu"))
    assert ours == ["sim_dcu", "sim_dcu.pytest_plugin"]
"""
    )
    outcomes(project).assert_outcomes(passed=1)


@pytest.mark.long
@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def test_it(eiger_dcu_factory): eiger_dcu_factory('pilatus')", "'pilatus' is not one of"),
        ("def test_it(eiger_dcu_factory): eiger_dcu_factory(faults=['x'])", "there is no fault"),
    ],
)
def test_what_cannot_be_simulated_is_said(project: pytest.Pytester, code: str, says: str) -> None:
    project.makepyfile(code)
    result = outcomes(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"*{says}*"])


@pytest.mark.long
def test_a_time_scale_that_is_no_number_is_said(project: pytest.Pytester) -> None:
    project.makepyfile("def test_it(eiger_dcu): pass")
    result = outcomes(project, "--sim-dcu-time-scale=fast")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*sim_dcu_time_scale: 'fast' is not a number*"])


def test_what_is_missing_is_said(project: pytest.Pytester) -> None:
    """Where only the package itself is installed, without what the simulator needs."""
    (project.mkdir("absent") / "uvicorn.py").write_text("raise ImportError('no uvicorn here')")
    paths = [str(project.path / "absent"), os.environ["PYTHONPATH"]]
    project._monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    project.makepyfile("def test_it(eiger_dcu): pass")
    result = outcomes(project)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*pip install 'ophyd-eiger[[]sim]' (no uvicorn here)*"])


@pytest.mark.long
def test_a_project_can_do_without_it(project: pytest.Pytester) -> None:
    project.makeini("[pytest]\naddopts = --strict-config -p no:sim_dcu\n")
    project.makepyfile(
        """
import sys

def test_it(pytestconfig):
    assert not pytestconfig.pluginmanager.hasplugin("sim_dcu")
    assert "sim_dcu" not in sys.modules
"""
    )
    found_by_itself(project).assert_outcomes(passed=1)


@pytest.mark.long
def test_workers_of_xdist_have_their_own(project: pytest.Pytester) -> None:
    project.makepyfile(
        CLIENT
        + """
@pytest.mark.parametrize("number", range(4))
def test_it(eiger_dcu, number):
    assert json.loads(ask(eiger_dcu, "detector/command/arm", "PUT")) == {"sequence id": 1}
"""
    )
    outcomes(project, "-p", "xdist", "-n", "2").assert_outcomes(passed=4)


@pytest.mark.long
def test_the_fixtures_explain_themselves(project: pytest.Pytester) -> None:
    result = outcomes(project, "--fixtures")
    result.stdout.fnmatch_lines(["*eiger_dcu_factory*", "*Start simulated EIGER DCUs*"])
    result.stdout.fnmatch_lines(["*Start one simulated EIGER DCU, initialized*"])


@pytest.mark.long
def test_the_help_names_the_options(project: pytest.Pytester) -> None:
    result = outcomes(project, "--help")
    text = result.stdout.str()
    for name in ("model", "api-version", "time-scale"):
        assert f"--sim-dcu-{name}" in text
        assert f"sim_dcu_{name.replace('-', '_')} (string)" in text
