"""A tiled server for tests, and clients of one that leave each other alone."""

import contextlib
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def tiled_server(folder: Path, data: Path) -> Iterator[str]:
    """Serve a catalog of tiled in `folder`, which may read what is below `data`."""
    program = Path(__file__).with_name("tiled_process.py")
    with subprocess.Popen(
        [sys.executable, program, folder, data],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
            process.wait(20)


def own_structure_clients(client: Any) -> Any:
    """Return a copy of what a client makes of each kind of node.

    `.v2` of a catalog sets it for every client that shares it, which are all of a process.
    """
    from tiled.utils import OneShotCachedMap

    shared = client.structure_clients
    return OneShotCachedMap({key: functools.partial(shared.__getitem__, key) for key in shared})
