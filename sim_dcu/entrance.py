"""What every request passes before its route. Knows addresses and paths; no resource."""

import ipaddress
import logging
import time

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sim_dcu.faults import Faults, SetFault
from sim_dcu.request_faults import disturbed
from sim_dcu.system import ApiLog

# To other machines, where the page and `/sim` are not theirs to see.
_NOT_HERE = {
    "": PlainTextResponse(
        "A simulated EIGER DCU. Its page is shown on its own machine, or to all with --sim-api.\n"
    ),
    "sim": PlainTextResponse("Not Found", 404),  # as for any path that is not there
}
# Asked for every second by each page that is open.
_NOT_LOGGED = "/sim/state"

api_log = logging.getLogger("sim_dcu.api")


class Entrance:
    """Before the routes: tidies the path, keeps page and `/sim` to this machine, logs requests.

    Clients double the first slash or leave one at the end; both mean the same resource.

    Parameters
    ----------
    app : ASGI application
        The routes.
    log : ApiLog
        Takes a line a request.
    sim_api : bool
        Whether page and `/sim` answer to any client.
    faults : Faults
        Strike requests for all but `/sim` and the page.
    """

    def __init__(self, app: ASGIApp, log: ApiLog, sim_api: bool, faults: Faults):
        self._app = app
        self._faults = faults
        self._log = log
        self._sim_api = sim_api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = scope["path"]
        scope = {**scope, "path": "/" + "/".join(part for part in asked.split("/") if part)}
        start = time.monotonic()
        status = 0

        async def send_noting(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        first = scope["path"].split("/")[1]
        own = first in _NOT_HERE
        hidden = own and not self._sim_api and not _is_local(scope)
        app = _NOT_HERE[first] if hidden else self._app
        struck: list[SetFault] = []
        if self._faults.active and not own:
            struck = self._faults.of_request(scope["method"], scope["path"])
            app = disturbed(app, struck, self._faults)
        try:
            await app(scope, receive, send_noting)
        finally:
            duration = time.monotonic() - start
            line = f"{scope['method']} {asked} -> {status} in {duration:.4f} s"
            if struck:
                line += f" (fault {', '.join(fault.name for fault in struck)})"
            if scope["path"] != _NOT_LOGGED:
                self._log.note(line)
                api_log.info("%s", line)


def _is_local(scope: Scope) -> bool:
    """Return whether the client is on this machine."""
    if not scope.get("client"):
        return False
    address = ipaddress.ip_address(scope["client"][0].partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
