"""The control interface: HTTP on a Unix socket in the data folder, never an open port.

Who may write the data folder's socket may change the map: its permissions are the rights. What
`status/http_server.py` tells, everybody on the machine may ask for; what changes anything is here.

| route | |
|---|---|
| `GET /map` | the running map's hash and version, why the file is not it, and all versions |
| `GET /map/file`, `GET /map/versions/N` | a map's file, to the byte |
| `POST /map/plan` | body: a map; what applying it would change, or its problems (422) |
| `POST /map` | body: a map; check it, write it into the file, apply it |
| `POST /map/rollback/N` | the same with an older version |
| `POST /map/reload` | apply what is in the file now |

With `If-Match: HASH` a map is applied only over the one that its author has seen (else 409). The
author of a change is the user on the other end of the socket, or whom that names in `X-Author`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from pwd import getpwuid
from typing import Any, Final
from urllib.parse import unquote

from aiohttp import web

from edge_agent import protocols
from edge_agent.address_map import FILE_BYTES_MAX, MapError
from edge_agent.address_map.writer import to_csv
from edge_agent.control_client import SOCKET, reachable
from edge_agent.errors import ConfigError, TransientError
from edge_agent.reload.preview import preview
from edge_agent.reload.reloader import Applied, ConflictError, Reloader
from edge_agent.settings import Settings
from edge_agent.status.figures import map_status
from edge_agent.web import json_response, running

log = logging.getLogger(__name__)

AUTHOR_CHARS_MAX: Final = 100
PROBLEMS_MAX: Final = 1_000
"""More are not told at once."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ControlServer:
    """Serves on the socket in the data folder."""

    def __init__(self, reloader: Reloader, settings: Settings) -> None:
        self._reloader = reloader
        self._settings = settings
        self._path = settings.agent.data_dir / SOCKET

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Answer as long as this is entered."""
        app = web.Application(client_max_size=FILE_BYTES_MAX, middlewares=[_told])
        app.router.add_get("/map", self._map)
        app.router.add_get("/map/file", self._file)
        app.router.add_get(r"/map/versions/{number:\d{1,9}}", self._version)
        app.router.add_post("/map/plan", self._plan)
        app.router.add_post("/map", self._put)
        app.router.add_post(r"/map/rollback/{number:\d{1,9}}", self._rollback)
        app.router.add_post("/map/reload", self._reload)
        async with running(app) as runner:
            try:
                with reachable(self._path) as path:
                    await web.UnixSite(runner, path).start()
                self._path.chmod(0o660)
            except OSError as error:
                log.error("the control interface is off: %s: %s", self._path, error)  # noqa: TRY400
            try:
                yield
            finally:
                self._path.unlink(missing_ok=True)

    async def _map(self, _: web.Request) -> web.Response:
        reloader = self._reloader
        versions = [asdict(version) for version in reloader.versions.all]
        return json_response({**map_status(reloader), "versions": versions})

    async def _file(self, _: web.Request) -> web.Response:
        return _bytes(self._running())

    def _running(self) -> bytes:
        """The running map's file, or one that says the same if nobody has that any more."""
        reloader = self._reloader
        newest = reloader.versions.newest
        if newest is not None and newest.sha256 == reloader.running.sha256:
            return reloader.versions.data(newest.version)
        return to_csv(reloader.running.tags)

    async def _version(self, request: web.Request) -> web.Response:
        return _bytes(self._reloader.versions.data(_number(request)))

    async def _plan(self, request: web.Request) -> web.Response:
        reloader = self._reloader
        loaded = await reloader.check(await request.read())
        found = await asyncio.to_thread(
            preview, reloader.running.tags, loaded.tags, protocols.load, self._settings
        )
        return json_response({**found, "sha256": loaded.sha256, "over": reloader.running.sha256})

    async def _put(self, request: web.Request) -> web.Response:
        data, over = await request.read(), _over(request)
        return _applied(await self._reloader.put(data, _author(request), "upload", over=over))

    async def _rollback(self, request: web.Request) -> web.Response:
        number = _number(request)
        data = self._reloader.versions.data(number)
        how, over = f"rollback to {number}", _over(request)
        return _applied(await self._reloader.put(data, _author(request), how, over=over))

    async def _reload(self, request: web.Request) -> web.Response:
        return _applied(await self._reloader.reload(_author(request)))


@web.middleware
async def _told(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What is wrong as JSON, with what to do."""
    try:
        return await handler(request)
    except MapError as error:
        problems = [problem.as_dict() for problem in error.problems[:PROBLEMS_MAX]]
        count = len(error.problems)
        return json_response({"error": str(error), "problems": problems, "count": count}, 422)
    except ConflictError as error:
        return json_response({"error": str(error), "hint": error.hint}, 409)
    except ConfigError as error:
        return json_response({"error": str(error), "hint": error.hint}, 404)
    except TransientError as error:
        return json_response({"error": str(error), "hint": error.hint}, 503)


def _applied(done: Applied) -> web.Response:
    found: dict[str, Any] = {
        "changed": bool(done.difference),
        "written": done.is_written,
        "summary": done.difference.summary,
        "version": None if done.version is None else done.version.version,
    }
    return json_response(found)


def _bytes(data: bytes) -> web.Response:
    return web.Response(body=data, content_type="application/octet-stream")


def _number(request: web.Request) -> int:
    return int(request.match_info["number"])


def _over(request: web.Request) -> str:
    """The hash of the map that was seen running; "" if any will do."""
    return request.headers.get("If-Match", "").strip('"')


def _author(request: web.Request) -> str:
    """Who asks: the name that the other side gives, or that of the process's user."""
    named = "".join(filter(str.isprintable, unquote(request.headers.get("X-Author", ""))))
    return named[:AUTHOR_CHARS_MAX] or _peer(request)


def _peer(request: web.Request) -> str:
    assert request.transport is not None
    peer: socket.socket = request.transport.get_extra_info("socket")
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    try:
        return getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
