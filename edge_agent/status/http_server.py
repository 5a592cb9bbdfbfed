"""HTTP on loopback: `/healthz`, `/readyz`, `/metrics`, `/status`, `/values`, `/losses`,
`/frames`.

It only tells; nothing can be changed through it. A port that is taken is reported and leaves the
agent running: data comes first.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol

import orjson
from aiohttp import web

from edge_agent.errors import JournalError, TransientError
from edge_agent.pipeline.delivery import DeliveryRunner
from edge_agent.pipeline.poller import ConnectionPoller
from edge_agent.status.exposition import exposition
from edge_agent.status.figures import AgentStatus, LiveValues, Loss, devices_of
from edge_agent.status.frames import frames_of
from edge_agent.status.verdict import flows
from edge_agent.text.selection import FORMS
from edge_agent.web import json_response, metrics_response, start

log = logging.getLogger(__name__)

SHUTDOWN_TIMEOUT_S = 1.0
NAME_CHARS_SHOWN = 400
"""SITE/DEVICE/TAG has at most 386."""


class Informant(Protocol):
    """What the agent says of itself."""

    runners: list[DeliveryRunner]

    @property
    def pollers(self) -> Sequence[ConnectionPoller]:
        """One for each connection."""

    def stalled(self) -> list[str]:
        """The tasks that should move and do not."""

    async def status(self, *, devices: bool = True) -> AgentStatus:
        """Everything there is to say."""

    async def live(self) -> LiveValues:
        """The newest values of all tags."""

    async def losses(self) -> list[Loss]:
        """The losses noted last. Raises ``JournalError`` and ``TransientError``."""


class HttpServer:
    """Serves at ``address`` as long as it is entered; nowhere if that is None."""

    def __init__(self, agent: Informant, address: tuple[str, int] | None) -> None:
        self._agent = agent
        self._address = address
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> None:
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/status", self._status)
        app.router.add_get("/values", self._values)
        app.router.add_get("/losses", self._losses)
        app.router.add_get("/frames", self._frames)
        app.router.add_get("/metrics", self._metrics)
        self._runner = await start(app, self._address, "agent.http")

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
        return json_response({"healthy": not stalled, "stalled": stalled}, 503 if stalled else 200)

    async def _readyz(self, _: web.Request) -> web.Response:
        """200 while data flows from every PLC to every sink."""
        status = await self._agent.status(devices=False)
        ready = flows(status)
        body = {"ready": ready, "verdict": status["verdict"]}
        return json_response(body, 200 if ready else 503)

    async def _status(self, request: web.Request) -> web.StreamResponse:
        """Everything; without devices if asked (`?devices=0`).

        Devices are sent one by one: all at once would be a peak of memory.
        """
        if request.query.get("devices") == "0":
            return json_response(await self._agent.status(devices=False))
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

    async def _values(self, _: web.Request) -> web.Response:
        """The newest value of every tag, as columns: cheap enough to be asked each second."""
        return json_response(await self._agent.live())

    async def _losses(self, _: web.Request) -> web.Response:
        """The newest rows of the loss ledger, newest first; 503 while it can't be read."""
        try:
            return json_response({"losses": await self._agent.losses()})
        except (JournalError, TransientError) as error:
            return json_response({"error": str(error)}, 503)

    async def _frames(self, request: web.Request) -> web.Response:
        """What a device (`?device=NAME`) and its PLC last said to each other, byte by byte."""
        device = request.query.get("device", "")
        blocks = frames_of(self._agent.pollers, device)
        if not blocks:
            text = f"the running map has no {device[:NAME_CHARS_SHOWN]!r}; expected {FORMS}"
            return json_response({"error": text}, 404)
        return json_response({"blocks": blocks})

    async def _metrics(self, _: web.Request) -> web.Response:
        agent = self._agent
        status = await agent.status(devices=False)
        return metrics_response(exposition(status, agent.pollers, agent.runners))
