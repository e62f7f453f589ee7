"""pytest's plugin `sim_dcu`: simulated DCUs as fixtures, for any project that talks to an EIGER.

Loaded with pytest wherever this package is installed, so that it imports nothing but pytest until a
test asks for a DCU. Knows fixtures and options; all else is `serve`'s.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from sim_dcu.server import Server

# Option, its default, and what it says.
_OPTIONS = (
    ("model", "eiger-500k", "model of the simulated DCU, such as eiger-1m or eiger2-16m"),
    ("api_version", "", "API version it answers with, if not that of the model's generation"),
    ("time_scale", "0", "factor on every wait of the detector: 1 as a real one, 0 none"),
    ("scene", "scatter", "what the detector sees, such as rings, flat or a file of images"),
)


class DcuFactory(Protocol):
    """What the fixture `eiger_dcu_factory` is."""

    def __call__(self, model: str | None = None, **options: Any) -> "Server":
        """Start a DCU; `model` and `options` as of `sim_dcu.serve`."""
        ...


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options `sim_dcu_...` of configuration files and `--sim-dcu-...` of pytest."""
    group = parser.getgroup("sim_dcu", "simulated EIGER DCU (fixtures eiger_dcu*)")
    for name, default, what in _OPTIONS:
        parser.addini(f"sim_dcu_{name}", f"{what} (default: {default or 'none'})", default=default)
        flag = f"--sim-dcu-{name.replace('_', '-')}"
        group.addoption(flag, dest=f"sim_dcu_{name}", metavar="V", help=what)


def _chosen(config: pytest.Config, name: str) -> str:
    given = config.getoption(f"sim_dcu_{name}")
    return config.getini(f"sim_dcu_{name}") if given is None else given


def _time_scale(config: pytest.Config) -> float:
    text = _chosen(config, "time_scale")
    try:
        return float(text)
    except ValueError as error:
        raise pytest.UsageError(f"sim_dcu_time_scale: {text!r} is not a number") from error


@pytest.fixture
def eiger_dcu_factory(request: pytest.FixtureRequest) -> Iterator[DcuFactory]:
    """Start simulated EIGER DCUs: `eiger_dcu_factory("eiger2-4m", initialized=False)`.

    Takes the model and every keyword of `sim_dcu.serve`; what is not given is as the options
    `sim_dcu_model`, `sim_dcu_api_version`, `sim_dcu_time_scale` and `sim_dcu_scene` say, and the
    DCU is initialized.
    Returns a running `sim_dcu.Server`, with a port and a folder of its own; it ends with the test.
    """
    try:
        from sim_dcu.server import serve
    except ImportError as error:
        raise pytest.UsageError(
            f"a simulated DCU needs more packages: pip install 'ophyd-eiger[sim]' ({error})"
        ) from error
    with ExitStack() as running:

        def start(model: str | None = None, **options: Any) -> "Server":
            defaults = {
                "api_version": _chosen(request.config, "api_version") or None,
                "time_scale": _time_scale(request.config),
                "initialized": True,
                "scene": _chosen(request.config, "scene"),
            }
            try:
                server = serve(model or _chosen(request.config, "model"), **{**defaults, **options})
            except ValueError as error:
                raise pytest.UsageError(f"simulated DCU: {error}") from error
            return running.enter_context(server)

        yield start


@pytest.fixture
def eiger_dcu(eiger_dcu_factory: DcuFactory) -> "Server":
    """Start one simulated EIGER DCU, initialized: `eiger_dcu.url` is its address.

    `eiger_dcu.faults.set("refuse:command=arm")` has it fail, `eiger_dcu.image(1, 3)` is what image
    3 of series 1 must hold, `eiger_dcu.pulse()` an edge at its trigger input. Ends with the test.
    """
    return eiger_dcu_factory()
