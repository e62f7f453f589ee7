"""What the packages export, and the tree of errors as it is drawn."""

import builtins
import importlib
import inspect
import pkgutil
import re

import eiger_plans
import ophyd.utils.errors
import pytest

import ophyd_eiger
import sim_dcu
from ophyd_eiger import errors

PACKAGES = (ophyd_eiger, sim_dcu, eiger_plans)
EXPORTED = [(package, name) for package in PACKAGES for name in package.__all__]
# A line of the drawing: indentation, name, other base in brackets, words.
DRAWN = re.compile(r"^(?P<indent>[ │]*[├└]── )?(?P<name>[A-Z]\w+Error)(?: \((?P<base>[^)]*)\))?")


@pytest.mark.parametrize(
    ("package", "name"), EXPORTED, ids=[f"{package.__name__}.{name}" for package, name in EXPORTED]
)
def test_each_exported_name_exists_and_is_documented(package, name) -> None:
    exported = getattr(package, name)
    assert inspect.getdoc(exported)
    # Not its base's, nor that of its type.
    assert exported.__doc__
    assert name in dir(package)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_exports_are_sorted_and_single(package) -> None:
    assert list(package.__all__) == sorted(set(package.__all__))


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="'ophyd_eiger' has no attribute 'Nothing'"):
        _ = ophyd_eiger.Nothing


def drawn_tree() -> dict[str, tuple[str | None, str | None]]:
    """Return (class above, other base) of each error in the drawing."""
    tree: dict[str, tuple[str | None, str | None]] = {}
    above: list[tuple[int, str]] = []
    for line in inspect.getdoc(errors).splitlines():
        matched = DRAWN.match(line.removeprefix("    "))
        if not line.startswith("    ") or matched is None:
            continue
        depth, name = len(matched["indent"] or ""), matched["name"]
        while above and above[-1][0] >= depth:
            above.pop()
        tree[name] = (above[-1][1] if above else None, matched["base"])
        above.append((depth, name))
    return tree


def all_errors() -> dict[str, type]:
    """Return every error of the package, whichever module defines it."""
    modules = pkgutil.iter_modules(ophyd_eiger.__path__, "ophyd_eiger.")
    return {
        name: value
        for module in modules
        for name, value in vars(importlib.import_module(module.name)).items()
        if inspect.isclass(value) and issubclass(value, errors.EigerError)
    }


def base_of(text: str) -> type:
    """Return the class that a drawing's brackets name."""
    if text.startswith("ophyd's "):
        return getattr(ophyd.utils.errors, text.removeprefix("ophyd's "))
    return getattr(builtins, text)


def test_every_error_is_in_the_drawing() -> None:
    assert drawn_tree().keys() == all_errors().keys()
    assert len(drawn_tree()) >= 20


@pytest.mark.parametrize("name", sorted(drawn_tree()))
def test_each_error_has_the_bases_drawn(name: str) -> None:
    found = all_errors()
    parent, other = drawn_tree()[name]
    bases = [found[parent] if parent else Exception, *([base_of(other)] if other else [])]
    assert found[name].__bases__ == tuple(bases)
    assert found[name].__doc__


def test_the_errors_that_are_ophyds_too_live_with_the_signals() -> None:
    outside = {name for name, error in all_errors().items() if error.__module__ != errors.__name__}
    assert outside == {"LimitError", "ReadOnlyError"}
