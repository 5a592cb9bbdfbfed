"""What all routes answer alike: JSON, and errors with what to do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from dashboard.korean import with_korean_throughout
from edge_agent.errors import ConfigError, EdgeAgentError, TransientError

JSON = "application/json"

Handler = Callable[[Request], Awaitable[Response]]


class WrongRequestError(ConfigError):
    """A request that is refused as such; ``status`` says in HTTP's words why (RFC 9110, 15.5)."""

    def __init__(self, status: int, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


def told(error: EdgeAgentError) -> dict[str, Any]:
    """What is wrong, and what to do, each with its Korean."""
    return dict(with_korean_throughout({"error": str(error), "hint": error.hint}))


def answered(
    handler: Handler, tell: Callable[[EdgeAgentError], Mapping[str, Any]] = told
) -> Handler:
    """Errors of ours as JSON: 400 for a wrong question, 503 for a source that is away.

    ``tell`` makes the body of such an answer.
    """

    async def answer(request: Request) -> Response:
        try:
            response = await handler(request)
        except WrongRequestError as error:
            return json_response(tell(error), error.status)
        except ConfigError as error:
            return json_response(tell(error), 400)
        except TransientError as error:
            return json_response(tell(error), 503)
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    return answer


def json_response(body: object, status: int = 200) -> Response:
    """Anything that orjson can write."""
    return Response(orjson.dumps(body), status, media_type=JSON)
