"""How a resource is declared as an ophyd Component of its subsystem, in one line."""

from typing import Any

from ophyd import Component, Kind

from ophyd_eiger.array_signals import EigerArray
from ophyd_eiger.commands import EigerCommand
from ophyd_eiger.signals import EigerSignal


def config(key: str, doc: str, *, kind: Kind = Kind.config) -> Any:
    """Declare a configuration resource; a `/` in the key stays in the URL."""
    return Component(EigerSignal, f"config/{key}", add_prefix=(), kind=kind, doc=doc)


def status(key: str, doc: str) -> Any:
    """Declare a status resource."""
    return Component(EigerSignal, f"status/{key}", add_prefix=(), kind=Kind.omitted, doc=doc)


def command(key: str, doc: str, *, cls: type[EigerCommand] = EigerCommand, **kwargs: Any) -> Any:
    """Declare a command resource; keyword arguments as `EigerCommand` takes them."""
    return Component(cls, f"command/{key}", add_prefix=(), kind=Kind.omitted, doc=doc, **kwargs)


def array(key: str, doc: str, dtype: str) -> Any:
    """Declare a big array; `dtype` as in "<u4". It is read only when it is asked for."""
    return Component(
        EigerArray, f"config/{key}", add_prefix=(), kind=Kind.omitted, doc=doc, dtype=dtype
    )
