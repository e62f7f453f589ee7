"""What may be set from outside, and the programs that start with the prompt.

EIGER_URL      the DCU; without it a simulated EIGER 1M is started
EIGER_DATA     the folder for the files of the detector, the catalog and the metadata; "data"
EIGER_CATALOG  a tiled server's catalog of runs; without it one in that folder is served
"""

import atexit
import contextlib
import fcntl
import os
import sys
from pathlib import Path

import h5py  # Python ends what was imported first last, and files may still come home then.

from ophyd_eiger.trial import start_catalog, start_simulator

if "at_exit" not in globals():
    data_folder = Path(os.environ.get("EIGER_DATA") or "data").resolve()
    try:
        data_folder.mkdir(parents=True, exist_ok=True)
        (data_folder / ".shell").touch()
    except OSError as error:
        # Nothing has begun yet, and a prompt without it would have nothing but tracebacks.
        print(
            f"no prompt: what is taken goes to {data_folder}, which cannot be written "
            f"({error.strerror}); set EIGER_DATA to a folder that can",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)

    # What is entered here ends with the prompt, the last first.
    at_exit = contextlib.ExitStack()
    atexit.register(at_exit.close)

    # Both take seconds to start, which they do while this process imports what it needs.
    catalog_server = simulator = None
    if not os.environ.get("EIGER_CATALOG"):
        catalog_server = start_catalog(data_folder / "catalog")
        at_exit.callback(catalog_server.end)
    if not os.environ.get("EIGER_URL"):
        simulator = start_simulator("--initialized")
        at_exit.callback(simulator.end)

    in_use = at_exit.enter_context((data_folder / ".shell").open("a+"))
    try:
        fcntl.flock(in_use, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        in_use.seek(0)
        print(
            f"another shell, process {in_use.read()}, has {data_folder} too: "
            "runs of both are in one catalog, and counted on together"
        )
    except OSError:
        pass  # Some network file systems have no locks.
    else:
        in_use.truncate(0)
        in_use.write(str(os.getpid()))
        in_use.flush()
