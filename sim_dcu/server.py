"""A simulated DCU that answers on a port, for as long as a `with` block or a process lasts.

Owns the socket, the server's thread and the temporary folder; knows no URL but its own.
"""

import asyncio
import contextlib
import logging
import math
import socket
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import uvicorn

from sim_dcu import fault_table
from sim_dcu.app import build_app
from sim_dcu.beam import Beam
from sim_dcu.clock import Clock
from sim_dcu.dcu import Dcu
from sim_dcu.faults import Faults, SetFault
from sim_dcu.filestore import CAPACITY
from sim_dcu.prompt_server import PromptServer
from sim_dcu.scene.sensor import Planted
from sim_dcu.wire import protocol

log = logging.getLogger(__name__)
# A DCU closes connections that are idle for 5 minutes (a client's notes on real hardware), in s.
IDLE_LIMIT = 300.0
# In s, when the server ends: how long a client may still take to read its reply, and after how
# long a reply that does not come is given up.
LAST_READING = 0.7
LAST_REPLIES = 1
_BACKLOG = 1024


class Server:
    """A DCU and its HTTP server; use it with `with`, or `start` and `stop` it.

    Parameters
    ----------
    dcu : Dcu
        Answers the requests.
    host : str
        Name or address to listen on.
    port : int
        0 takes any free one.
    idle_limit : float
        After how long without a byte on it a connection is closed, in s.
    sim_api : bool
        Whether `/sim` answers to other machines too.
    initial_faults : sequence of str
        To be set when it starts, each as `NAME[:key=value,...]`.

    Attributes
    ----------
    dcu : Dcu
        The DCU itself, for tests that look behind its API.
    url : str
        The base URL, without a slash at the end.

    Raises
    ------
    OSError
        Where the port is not free or the host not one of this machine.
    """

    def __init__(
        self,
        dcu: Dcu,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        idle_limit: float = IDLE_LIMIT,
        sim_api: bool = False,
        initial_faults: Sequence[str] = (),
    ):
        if not 0 < idle_limit < math.inf:
            raise ValueError(f"idle limit {idle_limit} is not a finite number above 0")
        for fault in initial_faults:
            fault_table.checked(fault)
        self.dcu = dcu
        self._initial_faults = initial_faults
        self._cleanup = contextlib.ExitStack()
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self._socket = socket.create_server(
            (str(address[0]), port), family=family, backlog=_BACKLOG
        )
        self._death: SetFault | None = None
        self._stopped = False
        dcu.faults.kill = self._kill
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._socket.getsockname()[1]}"
        self._config = uvicorn.Config(
            build_app(dcu, sim_api=sim_api),
            http=protocol(idle_limit),
            loop="asyncio",
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            # The protocol itself is stricter.
            timeout_keep_alive=math.ceil(idle_limit) + 1,
            timeout_graceful_shutdown=LAST_REPLIES,
        )
        self._server = PromptServer(self._config)
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sim-dcu-http", daemon=True)

    def start(self) -> Self:
        """Answer requests; returns when it does."""
        self._thread.start()
        self._listening.wait()
        if not self._server.started:
            raise RuntimeError(f"no server at {self.url}; its log has the reason")
        for fault in self._initial_faults:
            self.faults.set(fault)
        return self

    def stop(self) -> None:
        """End what the DCU does and the server with it, within 2 s; a second call does nothing."""
        self.dcu.close()
        self._stopped = True
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # the loop has just ended by itself
                self._loop.call_soon_threadsafe(self._accept_no_more, self._exit)
            self._thread.join(LAST_READING)
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._give_up)
            self._thread.join()
        self._socket.close()
        self._cleanup.close()

    @property
    def faults(self) -> Faults:
        """The faults on request."""
        return self.dcu.faults

    def image(self, series_id: int, number: int) -> np.ndarray:
        """Return the image (from 1) that the newest series of that id must hold; (y, x), counts."""
        return self.dcu.image(series_id, number)

    def planted(self, series_id: int) -> Planted:
        """Return the true response and the bad pixels of what that series reads out."""
        return self.dcu.planted(series_id)

    @property
    def beam(self) -> Beam:
        """What shines on the detector."""
        return self.dcu.beam

    def set_beam(self, beam: Beam) -> None:
        """Have another beam shine on the detector from the next arm on."""
        self.dcu.set_beam(beam)

    def pulse(self) -> bool:
        """Give an external trigger (exts); return whether the detector took it."""
        return self.dcu.pulse()

    def gate(self, seconds: float) -> bool:
        """Open an external gate for `seconds` (exte); return whether the detector took it."""
        return self.dcu.gate(seconds)

    def remove_at_end(self, folder: "tempfile.TemporaryDirectory[str]") -> None:
        """Remove a temporary folder after the server has ended."""
        self._cleanup.enter_context(folder)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self._listening.set()

    def _accept_no_more(self, then: Callable[[], None]) -> None:
        """Let nobody in, and call `then` when all who were accepted are connected.

        asyncio makes a connection in the two turns after it accepted one; where the listener is
        closed by then it never closes that connection, and its client waits for ever.
        """
        for listener in self._server.servers:
            for accepting in listener.sockets:
                self._loop.remove_reader(accepting)
        self._loop.call_soon(self._loop.call_soon, then)

    def _exit(self) -> None:
        self._server.end()
        self._woken.set()

    def _give_up(self) -> None:
        # A client that does not read its reply would keep the server for ever.
        self._drop_connections()
        self._woken.set()

    def _drop_connections(self) -> None:
        for connection in list(self._server.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        while not self._stopped:
            serving = asyncio.ensure_future(self._server.serve(sockets=[self._socket]))
            while not self._server.started and not serving.done():
                await asyncio.sleep(0.001)
            self._listening.set()
            await serving
            if self._death is not None and not self._stopped:
                await self._be_dead(self._death)

    # -- the fault `die` --------------------------------------------------------------------------

    def _kill(self, fault: SetFault) -> None:
        """Have the DCU die; called from any thread."""
        with contextlib.suppress(RuntimeError):  # it has ended meanwhile
            self._loop.call_soon_threadsafe(self._die, fault)

    def _die(self, fault: SetFault) -> None:
        if self._death is not None or self._stopped:
            return
        self._death = fault
        self._died_at = self._loop.time()
        self._accept_no_more(self._go_down)

    def _go_down(self) -> None:
        self._server.end(by_force=True)
        address, family = self._socket.getsockname(), self._socket.family
        for listener in self._server.servers:
            listener.close()
        self._drop_connections()
        # Bound, so that nobody else takes the port, but not listening: it refuses.
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(address)

    async def _be_dead(self, fault: SetFault) -> None:
        lost = fault.arguments["files"] == "gone"
        try:
            await self._loop.run_in_executor(None, self.dcu.power_up, lost)
        except Exception:  # it comes back whatever is in its folder
            log.exception("the DCU did not lose all that it should")
        remaining = self._died_at + fault.arguments["back"] - self._loop.time()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), max(0.0, remaining))
        self._server = PromptServer(self._config)
        self._death = None


def serve(
    model: str = "eiger-1m",
    *,
    api_version: str | None = None,
    time_scale: float = 0.0,
    seed: int = 0,
    initialized: bool = False,
    data_dir: str | Path | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    idle_limit: float = IDLE_LIMIT,
    sim_api: bool = False,
    data_quota: int = CAPACITY,
    faults: Sequence[str] = (),
    scene: str = "scatter",
    flux: float = 1.0,
    beam_energy: float | None = None,
) -> Server:
    """Return a simulated DCU, to be used with `with`.

    Parameters
    ----------
    model : str
        A name of `sim_dcu.models.MODELS`, as `eiger-1m` or `eiger2-16m`.
    api_version : str or None
        The version number to answer with, beside those of the model's generation; None is the
        generation's own.
    time_scale : float
        Factor on every wait the detector itself imposes: 1 is a real detector, 0 does not wait.
    seed : int
        Of the images and the bad pixels, 0 or more.
    initialized : bool
        Whether to start in state idle instead of na.
    data_dir : path or None
        Where the files go; None takes a temporary folder that is removed at the end.
    host, port
        Where to listen; port 0 is any free one.
    idle_limit : float
        After how long without a byte on it a connection is closed, in s, whatever the time scale.
    sim_api : bool
        Whether `/sim` answers to other machines too, not to this one alone.
    data_quota : int
        What the files may take together, in bytes; a series that would need more ends in state
        error.
    faults : sequence of str
        To be set from the start, each as `NAME[:key=value,...]`.
    scene : str
        What the detector sees: one of `sim_dcu.beam.SCENES`, or a file or folder of images.
    flux : float
        Factor on the scene's photons, 0 or more.
    beam_energy : float or None
        Of the beam's photons, in eV; None follows the detector's `photon_energy`.

    Raises
    ------
    ValueError
        Where model, time scale, seed, idle limit, quota, fault or beam is not one that can be
        simulated.
    OSError
        Where the port is not free or the folder cannot be made.
    """
    temporary = tempfile.TemporaryDirectory(prefix="sim-dcu-") if data_dir is None else None
    folder = Path(temporary.name if temporary is not None else str(data_dir))
    try:
        dcu = Dcu(
            model,
            folder,
            Clock(time_scale),
            seed=seed,
            initialized=initialized,
            api_version=api_version,
            data_quota=data_quota,
            beam=Beam(scene, flux, beam_energy),
        )
        server = Server(
            dcu, host, port, idle_limit=idle_limit, sim_api=sim_api, initial_faults=faults
        )
    except (OSError, ValueError):
        if temporary is not None:
            temporary.cleanup()
        raise
    if temporary is not None:
        server.remove_at_end(temporary)
    return server
