"""The server: one process with pages, API, websocket and static files; no Node, nothing written.

    granian ── Guard (who may look) ──┬── /api/, /healthz      api.py
                                      ├── /_event              Reflex: the session's state
                                      └── everything else      static.py: the built front end

The hubs behind the API run as supervised tasks beside it. A server that ends by itself ends the
process, and systemd starts it again: there is no state to lose.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.server.embed import Server
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dashboard import current
from dashboard.api import api
from dashboard.auth.exposure import check_exposure
from dashboard.auth.guard import Guard
from dashboard.services import Services
from dashboard.static import WEB, FrontEnd
from edge_agent import heap
from edge_agent.errors import ConfigError, TransientError
from edge_agent.notify import Notifier
from edge_agent.settings import DashboardSettings, Settings

log = logging.getLogger(__name__)

REFLEX_PATHS = ("/_event",)
"""What of Reflex's own routes a browser needs; the others are not reachable."""
WORKERS_MAX = 2
"""One waits for the agent; the other looks host names up, or makes a look of a remote's rows."""
GRANIAN_LOGS = {"version": 1, "disable_existing_loggers": False, "handlers": {}, "loggers": {}}
"""Its lines go where all others go."""
STOP_TIMEOUT_S = 2.0
"""For websockets at the end, and for downloads; a browser asks again by itself."""
GOING_AWAY = 1001
"""Why a websocket ends (RFC 6455, 7.4.1)."""


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises ``ConfigError`` for settings that don't fit, and ``TransientError`` if the port is taken.
    """
    _keep_memory_small()
    dashboard = settings.dashboard
    users = check_exposure(dashboard.host, dashboard.users_file)
    for path in (dashboard.cert_file, dashboard.key_file):
        if path is not None and not (path.is_file() and os.access(path, os.R_OK)):
            raise ConfigError(f"{path}: not a file that this user can read")
    services = Services(settings)
    _check_free(dashboard)
    front = _Front(_reflex(), api(services), FrontEnd(WEB / "build" / "client"))
    current.guard = Guard(front, users, tls=dashboard.cert_file is not None)
    server = Server(
        current.guard,
        address=dashboard.host,
        port=dashboard.port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,  # websockets, and one connection per stream
        ssl_cert=dashboard.cert_file,
        ssl_key=dashboard.key_file,
        log_level=LogLevels.error,
        log_dictconfig=GRANIAN_LOGS,
    )
    await _run(server, front, services, dashboard)


async def _run(
    server: Server, front: _Front, services: Services, dashboard: DashboardSettings
) -> None:
    notifier = Notifier(os.environ)
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)

    def started() -> None:
        log.info("serving %s from %s", address(dashboard), services.default)
        notifier.ready(f"serving {address(dashboard)}")

    async with asyncio.TaskGroup() as group:
        serving = group.create_task(server.serve(), name="dashboard.http")
        parts = group.create_task(services.run(started), name="dashboard.services")
        stopping = group.create_task(ended.wait(), name="dashboard.signals")
        # A server that ends by itself has failed, and says so in its log.
        await asyncio.wait([serving, parts, stopping], return_when=asyncio.FIRST_COMPLETED)
        notifier.stopping()
        stopping.cancel()
        parts.cancel()  # ends the streams of live values
        await front.end_sockets()
        server.stop()  # type: ignore[no-untyped-call]
        await asyncio.wait([serving], timeout=STOP_TIMEOUT_S)
        serving.cancel()
    if not ended.is_set():
        raise TransientError("the HTTP server has ended by itself")


def address(dashboard: DashboardSettings) -> str:
    """Where a browser finds it."""
    scheme = "http" if dashboard.cert_file is None else "https"
    host = f"[{dashboard.host}]" if ":" in dashboard.host else dashboard.host
    return f"{scheme}://{host}:{dashboard.port}/"


def _keep_memory_small() -> None:
    """Few threads, and large buffers given back when a chart has been sent."""
    workers = ThreadPoolExecutor(WORKERS_MAX, thread_name_prefix="dashboard")
    asyncio.get_running_loop().set_default_executor(workers)
    heap.keep_small()


def _check_free(dashboard: DashboardSettings) -> None:
    """Say in a sentence what the server would say with a traceback."""
    try:
        with socket.create_server(
            (dashboard.host, dashboard.port),
            family=socket.AF_INET6 if ":" in dashboard.host else socket.AF_INET,
        ):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise TransientError(
            f"can't listen on {dashboard.host}:{dashboard.port}: {reason}",
            hint="another one may be running; --port, --host",
        ) from error


def _reflex() -> ASGIApp:
    """Reflex's backend without a compiler, in the folder that the wheel brings.

    Reflex looks for its configuration in the working folder, and for everything else in variables
    of the environment.
    """
    os.chdir(Path(__file__).parent)
    sys.path.insert(0, str(Path(__file__).parent))
    os.environ |= {
        "REFLEX_WEB_WORKDIR": str(WEB),
        "REFLEX_ENV_MODE": "prod",
        "REFLEX_TELEMETRY_ENABLED": "false",
        "REFLEX_CHECK_LATEST_VERSION": "false",
        "__REFLEX_SKIP_COMPILE": "true",
    }
    # Socket.IO's client, which nobody here uses, would load it: 11 MB of the server's memory.
    sys.modules.setdefault("aiohttp", None)  # type: ignore[arg-type]
    from dashboard.app import app

    backend: ASGIApp = app()
    return backend


class _Front:
    """Sends each request to the part that answers it."""

    def __init__(self, reflex: ASGIApp, routes: ASGIApp, files: ASGIApp) -> None:
        self._reflex = reflex
        self._routes = routes
        self._files = files
        self._sockets = 0
        self._ending = asyncio.Event()
        self._ended = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or take part in the server's start and end."""
        if scope["type"] != "websocket":
            await self._part(scope)(scope, receive, send)
            return
        self._sockets += 1
        try:
            if self._ending.is_set():  # a browser that was quick to come back
                await send({"type": "websocket.close", "code": GOING_AWAY})
            else:
                await self._part(scope)(scope, self._until_end(receive), send)
        except asyncio.CancelledError:
            if not self._ending.is_set():  # else it is how the server ends
                raise
        finally:
            self._sockets -= 1
            if self._ending.is_set() and not self._sockets:
                self._ended.set()

    async def end_sockets(self) -> None:
        """End all websockets while the server can still close them.

        They would last as long as their browsers like; and behind a server that has stopped,
        closing one never comes to an end.
        """
        self._ending.set()
        if self._sockets:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), STOP_TIMEOUT_S)

    def _until_end(self, receive: Receive) -> Receive:
        async def receive_frame() -> Message:
            received = asyncio.ensure_future(receive())
            ending = asyncio.ensure_future(self._ending.wait())
            try:
                await asyncio.wait({received, ending}, return_when=asyncio.FIRST_COMPLETED)
                if received.done():
                    return received.result()
            finally:
                received.cancel()
                ending.cancel()
            return {"type": "websocket.disconnect", "code": GOING_AWAY}

        return receive_frame

    def _part(self, scope: Scope) -> ASGIApp:
        path = scope.get("path", "")
        if scope["type"] != "http" or path.startswith(REFLEX_PATHS):
            return self._reflex
        if path.startswith("/api/") or path == "/healthz":
            return self._routes
        return self._files
