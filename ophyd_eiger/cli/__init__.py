"""The command line `ophyd-eiger`: the group of its commands, each in a module of its own.

A module has its click command as `command`, and loads what it needs when it is called, so that
`get` and `info` do not wait for ophyd, and nobody but the demo for bluesky and matplotlib.
"""

import io
import sys

try:
    import click
    import rich as _rich  # noqa: F401 - the commands load it when they print
except ImportError as error:
    raise SystemExit(
        f"ophyd-eiger: {error}; the command line needs: pip install 'ophyd-eiger[cli]'"
    ) from error

from ophyd_eiger.cli import (
    abort,
    acceptance,
    demo,
    doctor,
    fetch,
    get,
    info,
    initialize,
    recover,
    reprocess,
    set_values,
    show,
    watch,
)


@click.group()
@click.version_option(package_name="ophyd-eiger")
def main() -> None:
    """DECTRIS EIGER detectors in Bluesky, over the SIMPLON API.

    URL is the address of the detector's control unit (DCU): a host, a host with a port, or
    a URL.
    """
    for stream in (sys.stdout, sys.stderr):
        # What a DCU answers need not be text that can be written.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


for _module in (
    *(doctor, info, get, set_values, watch, fetch, initialize, abort, recover, acceptance),
    *(show, reprocess, demo),
):
    main.add_command(_module.command)
