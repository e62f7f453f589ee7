"""What the demo and the example profile try things with: a simulated DCU, and catalogs.

Knows simulator and catalog server by their command lines only; they are started as processes and
spoken to over HTTP, as real ones.
"""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ophyd_eiger.companion import Companion

logger = logging.getLogger(__name__)


def start_simulator(*flags: str) -> Companion:
    """Start `python -m sim_dcu` on a free port; its `url` is there when it is ready.

    Parameters
    ----------
    *flags : str
        More flags of `sim-dcu`, as in "--model", "eiger-500k".
    """
    return Companion("sim_dcu", "--port", "0", *flags)


@contextlib.contextmanager
def simulator(*flags: str) -> Iterator[str]:
    """Run `python -m sim_dcu` on a free port, as a process; yields its URL.

    Parameters
    ----------
    *flags : str
        More flags of `sim-dcu`, as in "--model", "eiger-500k".

    Raises
    ------
    EigerError
        If it does not start, with what it said.
    """
    companion = start_simulator(*flags)
    try:
        yield companion.url
    finally:
        if said := companion.end():
            logger.warning("the simulated DCU said:\n%s", said)


def start_catalog(folder: str | os.PathLike) -> Companion:
    """Start a server of the catalog of runs in a folder, which is made if need be.

    Only this user, who alone is told its key, can use the server; what it serves stays in the
    folder. Several servers of one folder, as of several prompts, get along with each other.

    Parameters
    ----------
    folder : path
        Where databases and the server's log are.

    Returns
    -------
    Companion
        Its `url`, with the key in it, is for `tiled.client.from_uri`.
    """
    # A catalog names its tables by their whole path, which must not depend on how one came there.
    return Companion("ophyd_eiger.catalog_server", os.fspath(Path(folder).resolve()))


def temporary_catalog() -> Any:
    """Return a databroker catalog that lasts as long as this process; files last longer."""
    with warnings.catch_warnings():
        # Of a test client that tiled runs its in-process server with.
        warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")
        from databroker.v2 import temp
        from tiled.server import app

        # It says its version on stderr each time.
        logging.getLogger(app.__name__).setLevel(logging.WARNING)
        return temp()
