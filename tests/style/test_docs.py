"""What is said of each public name, and that units are those of the detector."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

import sim_dcu
from ophyd_eiger import subsystems
from ophyd_eiger.signals import EigerSignal

ROOT = Path(__file__).parents[2]
FILES = sorted(
    path
    for folder in ("ophyd_eiger", "sim_dcu", "plans/eiger_plans")
    for path in (ROOT / folder).rglob("*.py")
)
CLASSES = (
    subsystems.Detector,
    subsystems.Filewriter,
    subsystems.Monitor,
    subsystems.Stream,
    subsystems.System,
)
COMPONENTS = {
    f"{cls.subsystem}/{component.suffix}": component
    for cls in CLASSES
    for component in (getattr(cls, name) for name in cls.component_names)
}
UNIT = re.compile(r"\[([^\]]+)\]")
# How the docs spell what a DCU abbreviates, or leaves out.
SPELLED = {
    # A real EIGER1 leaves the unit of what it measures empty.
    "detector/status/board_000/th0_temp": ("", "degree Celsius"),
    "detector/status/board_000/th0_humidity": ("", "percent"),
    "detector/status/builder/dcu_buffer_free": ("", "percent"),
    "filewriter/status/buffer_free": ("KB", "kB at API 1.6, byte at 1.8"),
    # EIGER2 states no unit of what it measures or counts.
    "detector/status/temperature": ("", "degree Celsius"),
    "detector/status/humidity": ("", "percent"),
    "monitor/status/buffer_free": ("", "byte"),
    "detector/config/roi_y_size": ("", "pixel"),
    # A list, and a DCU states units of numbers only.
    "detector/config/detector_translation": ("", "m"),
}


def public_definitions(path: Path) -> Iterator[tuple[str, ast.AST]]:
    """Yield a module and what is public in it, with its dotted name."""

    def inside(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[str, ast.AST]]:
        for child in node.body:
            if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            if child.name.startswith("_"):
                continue
            name = f"{prefix}{child.name}"
            yield name, child
            if isinstance(child, ast.ClassDef):
                yield from inside(child, f"{name}.")

    module = ast.parse(path.read_text(encoding="utf-8"))
    yield path.stem, module
    yield from inside(module, f"{path.stem}.")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_all_that_is_public_is_documented(path: Path) -> None:
    without = [name for name, node in public_definitions(path) if not ast.get_docstring(node)]
    assert without == []


@pytest.mark.parametrize("resource", sorted(COMPONENTS))
def test_each_component_is_documented(resource: str) -> None:
    doc = COMPONENTS[resource].doc
    assert doc
    assert len(doc.splitlines()) == 1
    assert doc[0].isupper() or resource.endswith("status/state")
    assert not doc.endswith(".")


@pytest.fixture(scope="module")
def dcus() -> Iterator[list[tuple[str, str]]]:
    """Address and API version of a DCU of either generation."""
    with (
        sim_dcu.serve("eiger-1m", initialized=True) as one,
        sim_dcu.serve("eiger2-500k", initialized=True) as two,
    ):
        yield [(one.url, "1.6.0"), (two.url, "1.8.0")]


@pytest.mark.parametrize(
    "resource",
    sorted(
        name for name, component in COMPONENTS.items() if issubclass(component.cls, EigerSignal)
    ),
)
def test_units_are_those_of_the_detector(dcus: list[tuple[str, str]], resource: str) -> None:
    subsystem, _, rest = resource.partition("/")
    replies = [
        requests.get(f"{url}/{subsystem}/api/{version}/{rest}", timeout=30) for url, version in dcus
    ]
    units = {reply.json().get("unit", "") for reply in replies if reply.status_code == 200}
    assert units
    stated = max(units)
    found = UNIT.search(COMPONENTS[resource].doc)
    documented = found[1] if found else ""
    if resource in SPELLED:
        assert (stated, documented) == SPELLED[resource]
    else:
        assert documented == stated
