"""The HTTP face: which URL is which question to the DCU, and how answers are spelled.

Knows paths, methods, bodies and content types; no parameter, no state. The event loop only moves
bytes: the DCU is asked in a thread, and what takes time is awaited without one.
"""

import asyncio
import functools
import io
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from sim_dcu import darray, formats
from sim_dcu.bodies import LARGEST_SHORT_BODY, TooLargeError, whole_body
from sim_dcu.dcu import Dcu
from sim_dcu.downloads import FileReply, index_page
from sim_dcu.entrance import Entrance
from sim_dcu.monitor import Monitor
from sim_dcu.monitor_routes import MonitorRoutes
from sim_dcu.parameters import (
    ApiError,
    MissingError,
    RefusedError,
    UnknownPathError,
    UnknownResourceError,
)
from sim_dcu.sim_routes import SimRoutes

# The mask of a 16M in base64 is 97 MB, the largest body that has a meaning.
LARGEST_BODY = 128 * 2**20
_LONG_KEYS = ("", "flatfield", "pixel_mask")


class JsonReply(Response):
    """A JSON body as a DCU types it."""

    media_type = "application/json; charset=utf-8"


def build_app(dcu: Dcu, *, sim_api: bool = False) -> ASGIApp:
    """Return the ASGI application of `dcu`; with `sim_api`, `/sim` answers to any client."""
    face = _Face(dcu)
    api = "/{subsystem}/api"
    # Routes are tried in turn: what clients ask for most is near the top.
    routes = [
        Route(f"{api}/{{version}}/{{section}}/keys", face.keys),
        Route(
            f"{api}/{{version}}/config/{{key:path}}", face.config, methods=["GET", "PUT", "DELETE"]
        ),
        Route(f"{api}/version", face.version),
        Route(f"{api}/{{version}}/keys", face.sections),
        Route(f"{api}/{{version}}/files", face.files),
        Route(f"{api}/{{version}}/config", face.config, methods=["GET", "PUT"]),
        Route(f"{api}/{{version}}/status", face.get_status),
        Route(f"{api}/{{version}}/status/{{key:path}}", face.get_status),
        Route(f"{api}/{{version}}/command/{{key:path}}", face.put_command, methods=["PUT"]),
        *MonitorRoutes(face.ask_monitor, face.json).routes(),
        Route("/system/api/{version}/log", face.get_log),
        Route("/system/api/{version}/log.tar.gz", face.get_log_tarball),
        Route("/data", face.get_data_index),
        Route("/data/{name:path}", face.data, methods=["GET", "DELETE"]),
        *SimRoutes(dcu, face.json).routes(),
    ]
    handlers = {
        UnknownResourceError: face.unknown,
        404: face.unknown,
        ApiError: _refusal,
        ClientDisconnect: _left,
    }
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return Entrance(app, dcu.system.log, sim_api, dcu.faults)


async def _refusal(_request: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, ApiError) else 500
    # What is left of a body too large would be taken for the next request.
    headers = {"connection": "close"} if status == TooLargeError.status else None
    return PlainTextResponse(str(error), status, headers)


async def _result(answer: Any) -> Any:
    """Wait for what the DCU promised; a promise may be for another one."""
    while isinstance(answer, Future):
        answer = answer.result() if answer.done() else await asyncio.wrap_future(answer)
    return answer


async def _left(_request: Request, _error: Exception) -> Response:
    # The client went away in the middle of its body: nobody reads the answer.
    return Response(status_code=400)


class _Face:
    """The handlers, one a kind of resource."""

    def __init__(self, dcu: Dcu):
        self._dcu = dcu

    def _ask(self, request: Request, question: Callable[..., Any], *names: str) -> Any:
        version = request.path_params.get("version")
        if version is not None and version not in self._dcu.firmware.api_versions:
            raise UnknownResourceError(f"API version {version} does not exist")
        return question(*(request.path_params.get(name, "") for name in names))

    async def _reply(self, request: Request, question: Callable[..., Any], *names: str) -> Response:
        return await run_in_threadpool(lambda: self.json(self._ask(request, question, *names)))

    def json(self, content: Any) -> JsonReply:
        return JsonReply(self._dcu.firmware.spelling.body(content))

    async def unknown(self, request: Request, error: Exception) -> Response:
        """Answer for what there never is, as the generation does."""
        text = str(error) if isinstance(error, ApiError) else "Not Found"
        if self._dcu.firmware.names_unknown_paths:
            text = str(UnknownPathError(request.url.path))
        return PlainTextResponse(text, MissingError.status)

    async def config(self, request: Request) -> Response:
        if request.method == "PUT":
            return await self.put_config(request)
        if request.method == "DELETE":
            return await self.delete_config(request)
        return await self.get_config(request)

    async def data(self, request: Request) -> Response:
        if request.method == "DELETE":
            return await self.delete_data(request)
        return await self.get_data(request)

    async def version(self, request: Request) -> Response:
        return await self._reply(request, self._dcu.version, "subsystem")

    async def sections(self, request: Request) -> Response:
        return await self._reply(request, self._dcu.keys, "subsystem")

    async def keys(self, request: Request) -> Response:
        if request.path_params["section"] not in ("command", "config", "status"):
            raise UnknownResourceError(f"Section {request.path_params['section']} does not exist")
        return await self._reply(request, self._dcu.keys, "subsystem", "section")

    async def files(self, request: Request) -> Response:
        if request.path_params["subsystem"] != "filewriter":
            raise UnknownResourceError("Only the filewriter has files")
        return await self._reply(request, self._dcu.files, "version")

    async def get_config(self, request: Request) -> Response:
        form = formats.accepted_form(request.headers.get("accept", ""))

        def reply() -> Response:
            content = self._ask(request, self._dcu.read_config, "subsystem", "key")
            key = request.path_params.get("key", "")
            body = None
            if not key and form == formats.HDF5:
                body = formats.config_bytes(content)
            elif key and form != formats.JSON and np.ndim(content["value"]) == 2:
                body = formats.array_bytes(form, key.rpartition("/")[2], content)
            if body is None:
                return self.json(content)
            return Response(body, media_type=formats.MEDIA_TYPES[form])

        last = request.path_params.get("key", "").rpartition("/")[2]
        return await (run_in_threadpool(reply) if last in _LONG_KEYS else self._quickly(reply))

    async def _quickly(self, reply: Callable[[], Any]) -> Any:
        """Do at once what takes no time, a third of what a thread takes, unless that meant waiting.

        What `reply` does may take the lock and nothing else that it would have to wait for.
        """
        lock = self._dcu.lock
        if not lock.acquire(blocking=False):
            return await run_in_threadpool(reply)
        try:
            return reply()
        finally:
            lock.release()

    async def get_status(self, request: Request) -> Response:
        names = ("subsystem", "key", "version")
        if request.path_params.get("key") == "state":
            # What clients ask while they wait.
            return await self._quickly(
                lambda: self.json(self._ask(request, self._dcu.read_status, *names))
            )
        return await self._reply(request, self._dcu.read_status, *names)

    async def put_config(self, request: Request) -> Response:
        last = request.path_params.get("key", "").rpartition("/")[2]
        body = await whole_body(request, LARGEST_BODY if last in _LONG_KEYS else LARGEST_SHORT_BODY)

        form = formats.body_form(request.headers.get("content-type", ""))

        def put() -> Any:
            question = functools.partial(self._put_body, form, body)
            return self._ask(request, question, "subsystem", "key")

        return self._spelled(await _result(await run_in_threadpool(put)))

    def _put_body(self, form: str, body: bytes, subsystem: str, key: str) -> Any:
        # A resource that is not there is 404 whatever the body.
        content = self._dcu.read_config(subsystem, key)
        if not key:
            read = formats.read_config if form == formats.HDF5 else darray.whole_values
            return self._dcu.put_whole_config(subsystem, read(body))
        if form == formats.JSON:
            return self._dcu.put_config(subsystem, key, darray.put_value(body))
        if not isinstance(content["value"], np.ndarray):
            raise RefusedError(f"{key} is no array")
        return self._dcu.put_config(subsystem, key, formats.array_of(form, body))

    async def delete_config(self, request: Request) -> Response:
        def delete() -> Any:
            return self._ask(request, self._dcu.delete_config, "subsystem", "key")

        await _result(await run_in_threadpool(delete))
        return Response(status_code=204)

    async def put_command(self, request: Request) -> Response:
        body = await whole_body(request)
        argument = functools.partial(darray.argument_value, body)

        def run() -> Any:
            question = functools.partial(self._dcu.command, argument=argument)
            return self._ask(request, question, "subsystem", "key")

        # A trigger only begins here, and its time is what limits a scan point by point.
        begins = request.path_params.get("key") == "trigger"
        answer = await (self._quickly(run) if begins else run_in_threadpool(run))
        return self._spelled(await _result(answer))

    def _spelled(self, answer: Any) -> Response:
        # An empty body must not be typed JSON: a known client would fail to parse it.
        return PlainTextResponse() if answer is None else self.json(answer)

    async def ask_monitor(self, request: Request, question: Callable[[Monitor], Any]) -> Any:
        return await run_in_threadpool(lambda: question(self._ask(request, self._dcu.images_open)))

    async def get_log(self, request: Request) -> Response:
        return PlainTextResponse(self._ask(request, self._dcu.log_text))

    async def get_log_tarball(self, request: Request) -> Response:
        return Response(self._ask(request, self._dcu.log_tarball), media_type="application/gzip")

    async def get_data(self, request: Request) -> Response:
        name = request.path_params["name"]

        def open_file() -> io.FileIO:
            path = self._dcu.store.path(name)
            try:
                return io.FileIO(path)
            except FileNotFoundError as error:  # deleted since
                raise MissingError(f"File {name} does not exist") from error

        # No version of a file is told, so that If-Range can only be false (RFC 9110, 13.1.5).
        wanted = None if "if-range" in request.headers else request.headers.get("range")
        return FileReply(open_file, wanted)

    async def get_data_index(self, _request: Request) -> Response:
        return HTMLResponse(index_page(await run_in_threadpool(self._dcu.store.names)))

    async def delete_data(self, request: Request) -> Response:
        await run_in_threadpool(self._dcu.store.delete, request.path_params["name"])
        return Response(status_code=204)
