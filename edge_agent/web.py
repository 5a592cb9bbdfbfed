"""HTTP by which a process tells about itself: how it is started, and how it answers."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
from aiohttp import web

from edge_agent.prometheus import CONTENT_TYPE

log = logging.getLogger(__name__)

SHUTDOWN_TIMEOUT_S = 1.0
"""A reader that hangs must not hold up the end."""


@asynccontextmanager
async def running(app: web.Application) -> AsyncIterator[web.AppRunner]:
    """The application, ready for whatever it is to listen on."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
    await runner.setup()
    try:
        yield runner
    finally:
        await runner.cleanup()


@asynccontextmanager
async def served(
    app: web.Application, address: tuple[str, int] | None, setting: str
) -> AsyncIterator[None]:
    """The application, listening on host and port, or nowhere for None.

    An address that is taken, or that no host can have, is logged with the name of its ``setting``
    and leaves the process running: HTTP only tells, data comes first.
    """
    async with running(app) as runner:
        if address is not None:
            try:
                await web.TCPSite(runner, *address).start()
            except (OSError, UnicodeError) as error:
                # UnicodeError: a name that no host can have, like "a..b".
                reason = getattr(error, "strerror", None) or error
                log.error("HTTP is off: %s:%d: %s; set %s", *address, reason, setting)  # noqa: TRY400
        yield


def json_response(body: object, code: int = 200) -> web.Response:
    """Anything that orjson can write."""
    return web.Response(body=orjson.dumps(body), status=code, content_type="application/json")


def metrics_response(text: bytes) -> web.Response:
    """What `prometheus.scrape_text` made."""
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})
