"""HTTP on loopback: `/healthz`, `/readyz`, `/metrics`, `/status`, `/values`, `/losses`,
`/frames`.

It only tells; nothing can be changed through it. A port that is taken is reported and leaves the
agent running: data comes first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import orjson
from aiohttp import web

from edge_agent.errors import JournalError, TransientError
from edge_agent.status.report import Report
from edge_agent.status.verdict import flows
from edge_agent.text.selection import FORMS
from edge_agent.web import json_response, metrics_response, served

log = logging.getLogger(__name__)

NAME_CHARS_SHOWN = 400
"""SITE/DEVICE/TAG has at most 386."""


class HttpServer:
    """Serves at ``address``; nowhere if that is None. ``stalled`` are tasks that do not move."""

    def __init__(
        self, report: Report, stalled: Callable[[], list[str]], address: tuple[str, int] | None
    ) -> None:
        self._report = report
        self._stalled = stalled
        self._address = address

    def serving(self) -> AbstractAsyncContextManager[None]:
        """Answer as long as this is entered."""
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/status", self._status)
        app.router.add_get("/values", self._values)
        app.router.add_get("/losses", self._losses)
        app.router.add_get("/frames", self._frames)
        app.router.add_get("/metrics", self._metrics)
        return served(app, self._address, "agent.http")

    async def _healthz(self, _: web.Request) -> web.Response:
        """200 while every task moves; what systemd's watchdog sees."""
        stalled = self._stalled()
        return json_response({"healthy": not stalled, "stalled": stalled}, 503 if stalled else 200)

    async def _readyz(self, _: web.Request) -> web.Response:
        """200 while data flows from every PLC to every sink."""
        status = await self._report.status(devices=False)
        ready = flows(status)
        body = {"ready": ready, "verdict": status["verdict"]}
        return json_response(body, 200 if ready else 503)

    async def _status(self, request: web.Request) -> web.StreamResponse:
        """Everything; without devices if asked (`?devices=0`).

        Devices are sent one by one: all at once would be a peak of memory.
        """
        if request.query.get("devices") == "0":
            return json_response(await self._report.status(devices=False))
        status = orjson.dumps(await self._report.status(devices=False))
        head, _, tail = status.partition(b'"devices":[]')
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(head + b'"devices":[')
        separator = b""
        for device in self._report.devices():
            await response.write(separator + orjson.dumps(device))
            separator = b","
        await response.write(b"]" + tail)
        await response.write_eof()
        return response

    async def _values(self, _: web.Request) -> web.Response:
        """The newest value of every tag, as columns: cheap enough to be asked each second."""
        return json_response(await self._report.live())

    async def _losses(self, _: web.Request) -> web.Response:
        """The newest rows of the loss ledger, newest first; 503 while it can't be read."""
        try:
            return json_response({"losses": await self._report.losses()})
        except (JournalError, TransientError) as error:
            return json_response({"error": str(error)}, 503)

    async def _frames(self, request: web.Request) -> web.Response:
        """What a device (`?device=NAME`) and its PLC last said to each other, byte by byte."""
        device = request.query.get("device", "")
        blocks = self._report.frames(device)
        if not blocks:
            text = f"the running map has no {device[:NAME_CHARS_SHOWN]!r}; expected {FORMS}"
            return json_response({"error": text}, 404)
        return json_response({"blocks": blocks})

    async def _metrics(self, _: web.Request) -> web.Response:
        return metrics_response(await self._report.metrics())
