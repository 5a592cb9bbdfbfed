"""The API routes: live values as server-sent events, charts, rows, downloads, the system.

Everything here is GET and changes nothing; what changes the address map is in map_routes.py.
Errors are JSON: what is wrong, and what to do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from dashboard.answers import JSON, answered, json_response
from dashboard.chart import chart
from dashboard.data.base import History
from dashboard.export import export
from dashboard.map_routes import map_routes
from dashboard.services import Services
from edge_agent.clock import epoch_ms
from edge_agent.errors import ConfigError

ROWS_DEFAULT, ROWS_MAX = 200, 1_000
"""Of the table of newest rows; more than a thousand nobody scrolls through."""
EVENT_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""A proxy in between must hand each event on at once."""


def api(services: Services) -> Starlette:
    """The routes below /api/, and /healthz."""

    async def snapshot(request: Request) -> Response:
        return Response(await services.hub(_source(request)).snapshot(), media_type=JSON)

    async def events(request: Request) -> Response:
        since = request.query_params.get("since", "")
        messages = services.hub(_source(request)).messages(since)
        return StreamingResponse(_as_events(messages), 200, EVENT_HEADERS, "text/event-stream")

    async def chart_route(request: Request) -> Response:
        return json_response(await chart(*_question(request)))

    async def rows(request: Request) -> Response:
        site, device, tags = _which(request)
        limit = _whole(request, "limit", ROWS_DEFAULT)
        if not 1 <= limit <= ROWS_MAX:
            raise ConfigError(f"limit {limit}: allowed: 1 to {ROWS_MAX}")
        found = await services.history(_source(request)).rows(site, device, tags, limit)
        return json_response({"rows": [list(row) for row in found]})

    async def download(request: Request) -> Response:
        question = _question(request)
        pieces = await export(*question)
        _, site, device, *_ = question
        name = quote(f"{site}-{device}.csv", safe="")
        headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{name}"}
        return StreamingResponse(pieces, 200, headers, "text/csv; charset=utf-8")

    async def system(request: Request) -> Response:
        return json_response(await services.system(_source(request)))

    async def healthz(_: Request) -> Response:
        return json_response({"healthy": True})

    def _question(request: Request) -> tuple[History, str, str, list[str], int, int, int]:
        """What `chart` and `export` take: of whom, what, from when to when, and now."""
        site, device, tags = _which(request)
        from_ms, to_ms = _whole(request, "from"), _whole(request, "to")
        return services.history(_source(request)), site, device, tags, from_ms, to_ms, epoch_ms()

    def _source(request: Request) -> str:
        return request.query_params.get("source") or services.default

    return Starlette(
        routes=[
            Route("/api/snapshot", answered(snapshot)),
            Route("/api/events", answered(events)),
            Route("/api/chart", answered(chart_route)),
            Route("/api/rows", answered(rows)),
            Route("/api/export.csv", answered(download)),
            Route("/api/system", answered(system)),
            Route("/healthz", healthz),
            *map_routes(services.maps),
        ]
    )


def _which(request: Request) -> tuple[str, str, list[str]]:
    """Site, device and tags of a question."""
    asked = request.query_params
    site, device, tags = asked.get("site"), asked.get("device"), asked.getlist("tag")
    if not site or not device or not tags:
        raise ConfigError("site, device and at least one tag must be given")
    return site, device, tags


def _whole(request: Request, name: str, default: int | None = None) -> int:
    text = request.query_params.get(name)
    if text is None and default is not None:
        return default
    try:
        return int(text or "")
    except ValueError:
        raise ConfigError(f"{name} {text!r}: must be a whole number") from None


async def _as_events(messages: AsyncIterator[tuple[str, bytes]]) -> AsyncIterator[bytes]:
    """Server-sent events (WHATWG HTML, 9.2); JSON of orjson has no line breaks."""
    async for kind, body in messages:
        yield b"event: " + kind.encode() + b"\ndata: " + body + b"\n\n"
