"""The command line `sim-dcu`, also `python -m sim_dcu`: one simulated DCU until it is told to end.

Knows its flags; all else is `serve`'s.
"""

import argparse
import gc
import logging
import math
import re
import signal
import sys
from collections.abc import Sequence

from sim_dcu import fault_table
from sim_dcu.beam import HIGHEST_ENERGY, LOWEST_ENERGY, SCENES
from sim_dcu.fault_kinds import FaultError
from sim_dcu.filestore import CAPACITY
from sim_dcu.models import MODELS

try:
    from sim_dcu.server import IDLE_LIMIT, serve
except ModuleNotFoundError as missing:
    raise SystemExit(f"{missing}: the simulator needs ophyd-eiger[sim]") from None


# In s; Python's own is 5 ms, half of what an answer may take while a series is written.
SWITCH_INTERVAL = 0.001
# Of --beam-energy: the monochromator follows the detector's photon_energy.
FOLLOW = "follow"


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number") from error


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is not a number") from error


def _port(text: str) -> int:
    port = _whole(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port from 0 to 65535")
    return port


def _seed(text: str) -> int:
    seed = _whole(text)
    if seed < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return seed


def _factor(text: str) -> float:
    factor = _number(text)
    if not (math.isfinite(factor) and factor >= 0):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number of 0 or more")
    return factor


def _energy(text: str) -> float | None:
    if text == FOLLOW:
        return None
    energy = _number(text)
    if not LOWEST_ENERGY <= energy <= HIGHEST_ENERGY:
        raise argparse.ArgumentTypeError(
            f"{text} is neither {FOLLOW} nor from {LOWEST_ENERGY:g} to {HIGHEST_ENERGY:g} eV"
        )
    return energy


def _bytes(text: str) -> int:
    count = _whole(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of bytes")
    return count


def _seconds(text: str) -> float:
    seconds = _number(text)
    if not (math.isfinite(seconds) and seconds > 0):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number above 0")
    return seconds


def _version(text: str) -> str:
    if not re.fullmatch(r"\d+\.\d+\.\d+", text):
        raise argparse.ArgumentTypeError(f"{text} is not a version such as 1.6.0")
    return text


def _fault(text: str) -> str:
    try:
        fault_table.checked(text)
    except FaultError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="sim-dcu", description="A simulated EIGER detector control unit (SIMPLON API)."
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    parser.add_argument(
        "--port", type=_port, default=8000, help="port, 0 for any free one (default: %(default)s)"
    )
    parser.add_argument(
        "--model", choices=sorted(MODELS), default="eiger-1m", help="default: %(default)s"
    )
    parser.add_argument(
        "--api-version",
        type=_version,
        metavar="V",
        help="version number to answer with (default: that of the model's generation)",
    )
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder the files go to; without it a temporary one, removed at the end",
    )
    parser.add_argument(
        "--seed", type=_seed, default=0, help="of images and bad pixels (default: %(default)s)"
    )
    parser.add_argument(
        "--time-scale",
        type=_factor,
        default=1.0,
        metavar="F",
        help="factor on every wait of the detector: 1 as a real one, 0 none (default: %(default)s)",
    )
    parser.add_argument(
        "--initialized", action="store_true", help="start initialized instead of in state na"
    )
    parser.add_argument(
        "--idle-limit",
        type=_seconds,
        default=IDLE_LIMIT,
        metavar="S",
        help="seconds without a byte after which a connection is closed (default: %(default)g)",
    )
    parser.add_argument(
        "--data-quota",
        type=_bytes,
        default=CAPACITY,
        metavar="BYTES",
        help="what the files may take together (default: %(default)d)",
    )
    parser.add_argument(
        "--sim-api", action="store_true", help="answer under /sim to other machines too"
    )
    parser.add_argument(
        "--scene",
        default=SCENES[0],
        help=f"what the detector sees: {', '.join(SCENES)}, or a file or folder of images "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--flux",
        type=_factor,
        default=1.0,
        metavar="F",
        help="factor on the scene's photons, 0 is a closed shutter (default: %(default)g)",
    )
    parser.add_argument(
        "--beam-energy",
        type=_energy,
        default=FOLLOW,
        metavar="EV",
        help=f"of the beam's photons; {FOLLOW}: photon_energy is it (default: %(default)s)",
    )
    parser.add_argument(
        "--fault",
        type=_fault,
        action="append",
        default=[],
        metavar="NAME[:KEY=VALUE,...]",
        help=f"have a fault; may be given several times ({', '.join(fault_table.FAULTS)})",
    )
    parser.add_argument(
        "--verbose", action="store_true", help="log every request and state on stderr"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; return the process's exit status."""
    parser = build_parser()
    chosen = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO if chosen.verbose else logging.WARNING,
        format="%(asctime)s %(name)s %(message)s",
    )
    # The thread that answers waits its turn behind those that write files.
    sys.setswitchinterval(SWITCH_INTERVAL)
    # Blocked before any thread starts, so that every thread inherits it and a signal that comes
    # early is kept for sigwait.
    ending = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    try:
        server = serve(
            chosen.model,
            api_version=chosen.api_version,
            time_scale=chosen.time_scale,
            seed=chosen.seed,
            initialized=chosen.initialized,
            data_dir=chosen.data_dir,
            host=chosen.host,
            port=chosen.port,
            idle_limit=chosen.idle_limit,
            sim_api=chosen.sim_api,
            data_quota=chosen.data_quota,
            faults=chosen.fault,
            scene=chosen.scene,
            flux=chosen.flux,
            beam_energy=chosen.beam_energy,
        )
    except OSError as error:
        # One with a file's name is about the data folder.
        what = f"serve on {chosen.host} port {chosen.port}"
        what = "use the data folder" if error.filename else what
        parser.exit(2, f"sim-dcu: error: cannot {what}: {error}\n")
    except ValueError as error:
        # What only a look at the scene's files tells; all else is checked already.
        parser.exit(2, f"sim-dcu: error: {error}\n")
    # What is there for good need not be searched for rubbish, which holds up all threads for 40 ms.
    gc.freeze()
    with server:
        version = server.dcu.firmware.api_version
        print(  # noqa: T201 - the line that whoever started this process waits for
            f"sim-dcu: {chosen.model}, API {version}, ready at {server.url}", flush=True
        )
        signal.sigwait(ending)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
