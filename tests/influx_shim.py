"""InfluxDB 2's write address in front of an InfluxDB 1 server, in a process of its own.

InfluxDB 1 has the same line-protocol parser and storage engine; what differs is the address, the
token, and the form and status of errors. `POST /shim/refuse` makes the next writes fail as a
proxy or a rate limiter would.
"""

from __future__ import annotations

import argparse
import re
from http import HTTPStatus

from aiohttp import ClientSession, web

BODY_BYTES_MAX = 100_000_000  # the server behind decides what is too large, not the shim

CODES = {400: "invalid", 401: "unauthorized", 404: "not found", 413: "request too large",
         422: "unprocessable entity", 429: "too many requests", 503: "unavailable"}  # fmt: skip


class Shim:
    """One bucket's worth of InfluxDB 2."""

    def __init__(self, backend: str, token: str, org: str) -> None:
        self.backend, self.token, self.org = backend, token, org
        self.refusals: list[tuple[int, dict[str, str], str]] = []
        self.writes = 0

    async def write(self, request: web.Request) -> web.Response:
        """`/api/v2/write?org&bucket&precision` to `/write?db&precision`."""
        self.writes += 1
        body = await request.read()
        if self.refusals:
            status, headers, message = self.refusals.pop(0)
            return error(status, message, headers)
        if request.headers.get("Authorization") != f"Token {self.token}":
            return error(401, "unauthorized access")
        if request.query["org"] != self.org:
            return error(404, f'organization name "{request.query["org"]}" not found')
        params = {"db": request.query["bucket"], "precision": request.query["precision"]}
        async with (
            ClientSession() as session,
            session.post(f"{self.backend}/write", params=params, data=body) as response,
        ):
            if response.status == HTTPStatus.NO_CONTENT:
                return web.Response(status=204)
            message = (await response.json(content_type=None))["error"]
        # As in InfluxDB 2: a text that does not parse is 400, points that do not fit are 422.
        if message.startswith("partial write:") and "unable to parse" not in message:
            return error(422, f"failure writing points to database: {message}")
        return error(response.status, message)

    async def refuse(self, request: web.Request) -> web.Response:
        """Refuse the next `times` writes with a status, headers and message of the caller's."""
        wish = await request.json()
        self.refusals = [(wish["status"], wish["headers"], wish["message"])] * wish["times"]
        return web.Response(status=204)

    async def count(self, request: web.Request) -> web.Response:
        """How many writes were asked for since the start."""
        return web.json_response(self.writes)


def error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    """An error in InfluxDB 2's form."""
    code = CODES.get(status, "internal error")
    message = re.sub(r"\s+$", "", message)
    return web.json_response({"code": code, "message": message}, status=status, headers=headers)


def main() -> None:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser()
    for name in ("port", "backend", "token", "org"):
        parser.add_argument(f"--{name}", required=True)
    arguments = parser.parse_args()
    shim = Shim(arguments.backend, arguments.token, arguments.org)
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app.router.add_post("/api/v2/write", shim.write)
    app.router.add_post("/shim/refuse", shim.refuse)
    app.router.add_get("/shim/writes", shim.count)
    web.run_app(app, host="127.0.0.1", port=int(arguments.port), print=None, access_log=None)


if __name__ == "__main__":
    main()
