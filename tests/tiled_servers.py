"""A tiled server for tests."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


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
