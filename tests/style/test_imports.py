"""Who loads what: the reading side stays light, and the packages keep out of each other."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "ophyd_eiger": ROOT / "ophyd_eiger",
    "sim_dcu": ROOT / "sim_dcu",
    "eiger_plans": ROOT / "plans" / "eiger_plans",
}
CONTROL = {"ophyd", "requests", "bluesky", "urllib3", "httpx", "databroker", "tiled", "matplotlib"}
# The analysis side, each knowing those before it at most.
ANALYSIS = (
    *(
        "errors",
        "writing",
        "regions",
        "indexing",
        "parallel",
        "chunks",
        "codecs",
        "master",
        "images",
        "packed",
    ),
    *(
        "series_metadata",
        "geometry",
        "image_file",
        "bands",
        "check",
        "view",
        "virtual_master",
        "survey",
    ),
    *("source", "reductions", "run_reductions", "stack", "brightest", "pictures", "reader"),
    *("handlers", "archives", "run_documents", "runs"),
)
# The commands that run a plan, beside which nothing of the device knows the plans.
RUNS_A_PLAN = {"ophyd_eiger.cli.acceptance"}
# What only these modules may import.
ONLY = {
    "starlette": {
        "sim_dcu.app",
        "sim_dcu.bodies",
        "sim_dcu.downloads",
        "sim_dcu.entrance",
        "sim_dcu.monitor_routes",
        "sim_dcu.request_faults",
        "sim_dcu.sim_routes",
    },
    "uvicorn": {
        "ophyd_eiger.catalog_server",
        "sim_dcu.heads",
        "sim_dcu.prompt_server",
        "sim_dcu.server",
        "sim_dcu.wire",
    },
}


def modules() -> dict[str, Path]:
    """Return every module of the packages by its dotted name."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in folder.rglob("*.py"):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imported(path: Path) -> set[str]:
    """Return the dotted names that a module imports anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def roots(path: Path) -> set[str]:
    """Return the top-level packages that a module imports."""
    return {name.partition(".")[0] for name in imported(path)}


@pytest.mark.parametrize(
    "module", ["ophyd_eiger", "ophyd_eiger.reprocess", "ophyd_eiger.reader", "ophyd_eiger.check"]
)
def test_reading_loads_no_control_side(module: str) -> None:
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "ophyd_eiger" in loaded
    assert loaded & CONTROL == set()


def test_import_of_the_package_loads_nothing_else() -> None:
    code = "import sys, ophyd_eiger; print(*(n for n in sys.modules if n.startswith('ophyd_e')))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        timeout=60,
    )
    assert done.stdout.split() == ["ophyd_eiger"]


@pytest.mark.parametrize("name", ANALYSIS)
def test_analysis_modules_import_those_before_them(name: str) -> None:
    own = {
        other.removeprefix("ophyd_eiger.").partition(".")[0]
        for other in imported(MODULES[f"ophyd_eiger.{name}"])
        if other.startswith("ophyd_eiger.")
    }
    assert own <= set(ANALYSIS[: ANALYSIS.index(name)])
    # Loaded when a picture is drawn; that it is not before, the test above sees.
    drawn_with = {"matplotlib"} if name in ("brightest", "pictures") else set()
    assert roots(MODULES[f"ophyd_eiger.{name}"]) & CONTROL == drawn_with


def test_errors_import_the_standard_library_alone() -> None:
    assert roots(MODULES["ophyd_eiger.errors"]) <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_packages_keep_out_of_each_other(module: str) -> None:
    allowed = {
        "ophyd_eiger": {"ophyd_eiger"},
        "sim_dcu": {"sim_dcu"},
        "eiger_plans": {"eiger_plans", "ophyd_eiger"},
    }
    own = allowed[module.partition(".")[0]]
    if module in RUNS_A_PLAN:
        own = own | {"eiger_plans"}
    assert roots(MODULES[module]) & PACKAGES.keys() <= own


@pytest.mark.parametrize("module", sorted(MODULES))
def test_some_imports_have_their_place(module: str) -> None:
    for package, places in ONLY.items():
        if module not in places:
            assert package not in roots(MODULES[module])


def test_plans_use_public_names_only() -> None:
    for module, path in MODULES.items():
        if module.startswith("eiger_plans"):
            inner = {name for name in imported(path) if name.count(".") > 1}
            assert not {name for name in inner if name.startswith("ophyd_eiger.")}


# Who opens files for writing itself: what begins files of a download, and what locks and replaces.
WRITE = {"ophyd_eiger.fetching", "ophyd_eiger.kept_dict", "ophyd_eiger.writing"}


@pytest.mark.parametrize("module", sorted(name for name in MODULES if "sim_dcu" not in name))
def test_files_are_written_by_new_file(module: str) -> None:
    calls = [
        node
        for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]
    modes = {
        argument.value
        for call in calls
        if getattr(call.func, "attr", getattr(call.func, "id", "")) == "open"
        for argument in (*call.args, *(keyword.value for keyword in call.keywords))
        if isinstance(argument, ast.Constant)
    }
    writes = {getattr(call.func, "attr", "") for call in calls} & {"write_text", "write_bytes"}
    if module not in WRITE:
        assert not modes & {"w", "x", "wb", "xb", "x+b", "w+b"}
        assert not writes
