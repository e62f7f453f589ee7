"""The page, and what lies below `/sim`: trigger input, what images must hold, beam, faults.

No detector has any of it; a client under test must not use it. Knows paths and bodies; what a
fault does is elsewhere.
"""

import io
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from sim_dcu import darray, fault_table
from sim_dcu.beam import SCENES
from sim_dcu.bodies import whole_body
from sim_dcu.dcu import Dcu
from sim_dcu.fault_kinds import FaultError
from sim_dcu.monitor_routes import whole_number
from sim_dcu.overview import overview, page
from sim_dcu.parameters import MissingError, RefusedError

# The page holds all that it needs but the state. Names of files come from clients: whatever slips
# into the page cannot load anything.
_PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class SimRoutes:
    """The handlers of everything below `/sim`.

    Parameters
    ----------
    dcu : Dcu
        Answers.
    spell : callable
        From content to a JSON reply as the DCU spells it.
    """

    def __init__(self, dcu: Dcu, spell: Callable[[Any], Response]):
        self._dcu = dcu
        self._spell = spell

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/", self.get_page),
            Route("/sim/state", self.get_state),
            Route("/sim/trigger", self.put_trigger, methods=["PUT"]),
            Route("/sim/image/{series}/{number}", self.get_image),
            Route("/sim/planted/{series}", self.get_planted),
            Route("/sim/beam", self.get_beam),
            Route("/sim/beam", self.put_beam, methods=["PUT"]),
            Route("/sim/faults", self.get_faults),
            Route("/sim/faults", self.clear_faults, methods=["DELETE"]),
            Route("/sim/faults/{name}", self.set_fault, methods=["PUT"]),
            Route("/sim/faults/{name}", self.clear_faults, methods=["DELETE"]),
        ]

    async def get_page(self, _request: Request) -> Response:
        """Answer the page."""
        return HTMLResponse(page(), headers={"content-security-policy": _PAGE_POLICY})

    async def get_state(self, _request: Request) -> Response:
        """Answer what the page shows."""
        return JSONResponse(await run_in_threadpool(overview, self._dcu))

    async def put_trigger(self, request: Request) -> Response:
        """Give an edge at the trigger input, or with a value a gate of so many seconds."""
        body = await whole_body(request)

        def give() -> bool:
            seconds = darray.argument_value(body)
            if seconds is None:
                return self._dcu.pulse()
            if isinstance(seconds, bool) or not isinstance(seconds, int | float):
                raise RefusedError("the value is not a number of seconds")
            try:
                return self._dcu.gate(float(seconds))
            except (ValueError, OverflowError) as error:
                raise RefusedError(str(error)) from error

        taken = await run_in_threadpool(give)
        reason = {} if taken else {"reason": self._dcu.input_state()}
        return self._spell({"value": taken, "value_type": "bool", **reason})

    async def get_image(self, request: Request) -> Response:
        """Answer what an image must hold, as npy."""
        series, number = (whole_number(request.path_params[name]) for name in ("series", "number"))

        def npy() -> bytes:
            buffer = io.BytesIO()
            try:
                np.save(buffer, self._dcu.image(series, number))
            except LookupError as error:
                raise MissingError(str(error.args[0])) from error
            return buffer.getvalue()

        return Response(await run_in_threadpool(npy), media_type="application/octet-stream")

    async def get_planted(self, request: Request) -> Response:
        """Answer what is planted in the pixels of a series, as npz: `response`, `pixel_mask`."""
        series = whole_number(request.path_params["series"])

        def npz() -> bytes:
            buffer = io.BytesIO()
            try:
                planted = self._dcu.planted(series)
            except LookupError as error:
                raise MissingError(str(error.args[0])) from error
            np.savez(buffer, response=planted.response, pixel_mask=planted.pixel_mask)
            return buffer.getvalue()

        return Response(await run_in_threadpool(npz), media_type="application/octet-stream")

    async def get_beam(self, _request: Request) -> Response:
        """Answer what shines on the detector."""
        return JSONResponse(asdict(self._dcu.beam))

    async def put_beam(self, request: Request) -> Response:
        """Change, from the next arm on, what a JSON object names: scene, flux, energy."""
        changes = _object_in(await whole_body(request))
        try:
            # Whoever may ask may not have the simulator look into files.
            if changes.get("scene", SCENES[0]) not in SCENES:
                raise ValueError(f"scene {changes['scene']!r} is not one of {', '.join(SCENES)}")
            self._dcu.set_beam(replace(self._dcu.beam, **changes))
        except (TypeError, ValueError) as error:
            return _explained(error)
        return JSONResponse(asdict(self._dcu.beam))

    async def get_faults(self, _request: Request) -> Response:
        """Answer which faults are set, and which there are."""
        return JSONResponse({"active": self._dcu.faults.listing(), "table": fault_table.listing()})

    async def set_fault(self, request: Request) -> Response:
        """Set a fault with the arguments of a JSON object; none may name a file."""
        given = _object_in(await whole_body(request))
        name = request.path_params["name"]
        try:
            fault_table.known(name)
            fault = await run_in_threadpool(
                lambda: self._dcu.faults.set(name, given, from_here=False)
            )
        except FaultError as error:
            return _explained(error)
        then = BackgroundTask(self._dcu.faults.strike_at_once, fault)
        return JSONResponse(fault.described(), background=then)

    async def clear_faults(self, request: Request) -> Response:
        """Clear all faults, or those of one name."""
        name = request.path_params.get("name")
        try:
            await run_in_threadpool(self._dcu.faults.clear, name)
        except FaultError as error:
            return _explained(error)
        return Response(status_code=204)


def _object_in(body: bytes) -> dict[str, Any]:
    try:
        given = json.loads(body) if body else {}
    except (ValueError, RecursionError) as error:
        raise RefusedError("the body is not JSON") from error
    if not isinstance(given, dict):
        raise RefusedError("the body is not a JSON object of arguments")
    return given


def _explained(error: Exception) -> Response:
    # All of it, unlike the DCU's own refusals: whoever sets a fault or a beam is a person.
    return PlainTextResponse(str(error), 400)
