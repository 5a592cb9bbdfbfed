"""The routes below /api/map: the only ones that change anything. For the role admin.

Texts that people read have their Korean beside them (map_korean.py): `message_ko` of a problem,
`error_ko` and `hint_ko`.

What keeps others from acting in an admin's name: the guard refuses every unsafe request that does
not come from our own origin, and a request with a body of another type than a form can send is
never sent by a foreign page without asking first, which no answer here allows. Nothing is applied
but over the map that its author has seen the plan against (If-Match, 428 without).

| route | |
|---|---|
| `GET /api/map?known=N` | what runs, why the file is not it; versions, unless N is the newest |
| `GET /api/map/file`, `GET /api/map/versions/N` | a map's file, to the byte |
| `POST /api/map/plan` | body: a map; what applying it would change, or its problems (422) |
| `POST /api/map` | body: a map; apply it (409 if another one has been applied meanwhile) |
| `GET /api/map/versions/N/plan` | what going back to a version would change |
| `POST /api/map/versions/N/rollback` | go back to it |
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from dashboard.answers import JSON, Handler, WrongRequestError, answered, json_response, told
from dashboard.auth.users import User
from dashboard.map_korean import problems_with_korean, state_with_korean, with_korean
from dashboard.maps import Maps
from edge_agent.address_map import FILE_BYTES_MAX
from edge_agent.control_client import RefusedMapError
from edge_agent.errors import ConfigError

log = logging.getLogger(__name__)

BYTES = "application/octet-stream"

BODY_TIMEOUT_S: Final = 60.0
"""The largest map over a slow line of a plant; only one is received at a time."""

VERSION_DIGITS_MAX: Final = 9
"""As many as the agent takes; nobody applies a billion maps."""


def map_routes(maps: Maps) -> list[Route]:
    """All of them."""

    async def state(request: Request) -> Response:
        known = request.query_params.get("known")
        found = await maps.state(None if known is None else _whole(known))
        return json_response(state_with_korean(found))

    async def file(_: Request) -> Response:
        return _download(*await maps.file())

    async def version(request: Request) -> Response:
        return _download(*await maps.file(_number(request)))

    async def plan(request: Request) -> Response:
        _check_body(request, BYTES)
        async with maps.uploading:
            return json_response(await maps.plan(await _body(request)))

    async def apply(request: Request) -> Response:
        _check_body(request, BYTES)
        over, author = _over(request), _author(request)
        async with maps.uploading:
            done = await maps.apply(await _body(request), over, author)
        log.info("address map applied by %s: %s", author, done["summary"])
        return json_response(done)

    async def plan_version(request: Request) -> Response:
        return json_response(await maps.plan_version(_number(request)))

    async def rollback(request: Request) -> Response:
        _check_body(request, JSON)
        number, over, author = _number(request), _over(request), _author(request)
        done = await maps.go_back(number, over, author)
        log.info("address map of version %d again, by %s: %s", number, author, done["summary"])
        return json_response(done)

    return [
        Route("/api/map", _for_admins(state)),
        Route("/api/map", _for_admins(apply), methods=["POST"]),
        Route("/api/map/file", _for_admins(file)),
        Route("/api/map/plan", _for_admins(plan), methods=["POST"]),
        Route("/api/map/versions/{number}", _for_admins(version)),
        Route("/api/map/versions/{number}/plan", _for_admins(plan_version)),
        Route("/api/map/versions/{number}/rollback", _for_admins(rollback), methods=["POST"]),
    ]


def _for_admins(handler: Handler) -> Handler:
    """Refuse everybody else before anything is read; tell what the agent refuses."""

    async def answer(request: Request) -> Response:
        user: User | None = getattr(request.state, "user", None)
        if user is None or user.role != "admin":
            raise WrongRequestError(
                403,
                "only the role admin may see and change the address map",
                hint="sign in as somebody who has it; `edge-dashboard user list` shows who",
            )
        try:
            return await handler(request)
        except RefusedMapError as error:
            if error.problems:
                return json_response(_problems(error), 422)
            raise WrongRequestError(409, str(error), hint=error.hint) from error
        except ClientDisconnect:
            log.debug("the client left while it sent a map")
            return Response(None, 400)

    return answered(answer, lambda error: with_korean(told(error), "error", "hint"))


def _problems(error: RefusedMapError) -> dict[str, Any]:
    """Those of the rows by line, those of the whole file before them; ``count`` is that of all."""
    problems = sorted(error.problems, key=lambda problem: problem["line"] or 0)
    first, _, _ = str(error).partition("\n")
    return {
        "error": first,
        "hint": error.hint,
        "problems": problems_with_korean(problems),
        "count": error.count,
    }


def _check_body(request: Request, kind: str) -> None:
    """A type that no form of a foreign page can send, and no more bytes than a map may have."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != kind:
        raise WrongRequestError(415, f"content type {given!r}; allowed: {kind}")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length[:20]) > FILE_BYTES_MAX:
        raise _too_large()


async def _body(request: Request) -> bytearray:
    """All of it. Raises ``WrongRequestError`` if it is too long or too slow."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for piece in request.stream():
                body += piece
                if len(body) > FILE_BYTES_MAX:
                    raise _too_large()
    except TimeoutError:
        raise WrongRequestError(
            408, f"the file did not arrive within {BODY_TIMEOUT_S:g} s"
        ) from None
    return body


def _too_large() -> WrongRequestError:
    return WrongRequestError(
        413, f"the file is larger than any map: allowed: {FILE_BYTES_MAX:,} bytes"
    )


def _over(request: Request) -> str:
    """The hash of the map that the plan was made against."""
    over = request.headers.get("if-match", "").strip('"')
    if not over:
        raise WrongRequestError(
            428, "If-Match is missing", hint="ask for the plan first; its `over`"
        )
    return over


def _author(request: Request) -> str:
    """Who the versions say it was."""
    name = request.state.user.name
    return f"{name} (dashboard)" if name else "dashboard"


def _number(request: Request) -> int:
    return _whole(request.path_params["number"])


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= VERSION_DIGITS_MAX):
        raise ConfigError(f"version {text[:20]!r}: must be a whole number")
    return int(text)


def _download(name: str, data: bytes) -> Response:
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}
    return Response(data, 200, headers, BYTES)
