"""HTTP on loopback: `/healthz`, `/readyz`, `/status` (JSON) and `/metrics` (Prometheus).

It only tells; nothing can be changed through it. A port that is taken is reported and leaves the
agent running: data comes first.
"""

from __future__ import annotations

import logging
from types import TracebackType
from typing import TYPE_CHECKING

import orjson
from aiohttp import web

from edge_agent.exposition import CONTENT_TYPE, exposition
from edge_agent.status import devices_of, flows

if TYPE_CHECKING:
    from edge_agent.agent import Agent

log = logging.getLogger(__name__)

SHUTDOWN_TIMEOUT_S = 1.0


class HttpServer:
    """Serves as long as it is entered."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> None:
        address = self._agent.settings.agent.http_address
        if address is None:
            return
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/status", self._status)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, *address).start()
        except (OSError, UnicodeError) as error:
            # UnicodeError: a name that no host can have, like "a..b".
            reason = getattr(error, "strerror", None) or error
            log.error("HTTP is off: %s:%d: %s; set agent.http", *address, reason)  # noqa: TRY400

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        """200 while every task moves; what systemd's watchdog sees."""
        stalled = self._agent.stalled()
        return _json({"healthy": not stalled, "stalled": stalled}, 503 if stalled else 200)

    async def _readyz(self, _: web.Request) -> web.Response:
        """200 while data flows from every PLC to every sink."""
        status = await self._agent.status(devices=False)
        ready = flows(status)
        body = {"ready": ready, "verdict": status["verdict"]}
        return _json(body, 200 if ready else 503)

    async def _status(self, request: web.Request) -> web.StreamResponse:
        """Everything. Devices are sent one by one: all at once would be a peak of memory."""
        status = orjson.dumps(await self._agent.status(devices=False))
        head, _, tail = status.partition(b'"devices":[]')
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(head + b'"devices":[')
        separator = b""
        for device in devices_of(self._agent.pollers):
            await response.write(separator + orjson.dumps(device))
            separator = b","
        await response.write(b"]" + tail)
        await response.write_eof()
        return response

    async def _metrics(self, _: web.Request) -> web.Response:
        text = exposition(self._agent, await self._agent.status(devices=False))
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})


def _json(body: object, code: int) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=code, content_type="application/json")
