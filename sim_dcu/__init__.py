"""A simulated EIGER detector control unit (DCU) that speaks the SIMPLON API over HTTP.

Names are loaded when they are used, so that the plugin for pytest costs nothing where no test asks
for a DCU.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim_dcu.server import Server, serve

__all__ = ["Server", "serve"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.server"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
