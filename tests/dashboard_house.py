"""A small application behind the dashboard's guard, and browsers that visit it."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import Message
from starlette.websockets import WebSocket

from dashboard.auth.changes import change
from dashboard.auth.guard import Guard
from dashboard.auth.passwords import PasswordHash
from dashboard.auth.users import Account, Role, Users, UsersFile

PASSWORDS = {"kim": "correct horse", "lee": "battery staple", "이영희": "비밀번호 여덟"}
ROLES: dict[str, Role] = {"kim": "admin", "lee": "viewer", "이영희": "viewer"}
HASHES = {name: PasswordHash.of(password) for name, password in PASSWORDS.items()}
HTML = {"accept": "text/html,application/xhtml+xml"}
ORIGIN = {"origin": "http://edge.local:8080"}
BASE = "http://edge.local:8080"


async def page(request: Request) -> Response:
    """A page that says who looks."""
    user = request.state.user
    return HTMLResponse(f"<h1>{user.name}:{user.role}</h1>")


async def cards(request: Request) -> Response:
    """An API route, with a CORS header as a careless library sets it."""
    role = request.state.user.role
    return JSONResponse({"role": role}, headers={"access-control-allow-origin": "*"})


async def download(_: Request) -> Response:
    """A file."""
    return Response("ts,value\n", media_type="text/csv")


async def healthz(_: Request) -> Response:
    """What monitoring asks."""
    return JSONResponse({"healthy": True})


async def save(request: Request) -> Response:
    """A route that changes something."""
    return JSONResponse({"saved": (await request.body()).decode()})


async def events(websocket: WebSocket) -> None:
    """Answers each message by who sent it."""
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(f"{websocket.state.user.name}: {text}")


@dataclass
class House:
    """A guarded application with its users file and clocks."""

    path: Path
    tls: bool = False
    now_s: float = 1_760_000_000.0
    passed_s: float = 0.0
    reached: list[str] = field(default_factory=list)
    parts: deque[str] = field(default_factory=deque)

    def __post_init__(self) -> None:
        app = Starlette(
            routes=[
                Route("/", page),
                Route("/detail/", page),
                Route("/api/cards", cards),
                Route("/api/live", self.live),
                Route("/download/pump.csv", download),
                Route("/api/save", save, methods=["POST", "PUT", "DELETE"]),
                Route("/healthz", healthz),
                WebSocketRoute("/_event", events),
            ],
            lifespan=self.lifespan,
        )
        self.app = app
        users = Users(self.path, monotonic=self.monotonic) if self.path.exists() else None
        self.guard = self.guarded(users)

    def guarded(self, users: Users | None) -> Guard:
        """The application behind a guard."""

        async def reached(scope: Any, receive: Any, send: Any) -> None:
            self.reached.append(scope.get("path", "lifespan"))
            await self.app(scope, receive, send)

        return Guard(reached, users, tls=self.tls, now=lambda: self.now_s, monotonic=self.monotonic)

    def monotonic(self) -> float:
        """The clock for waits and for looks at the file."""
        return self.passed_s

    def sleep(self, seconds: float) -> None:
        """Move both clocks."""
        self.now_s += seconds
        self.passed_s += seconds

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Nothing to do."""
        yield

    async def live(self, _: Request) -> Response:
        """A stream of as many parts as wait; some of them remove a user."""

        async def stream() -> AsyncIterator[str]:
            while self.parts:
                part = self.parts.popleft()
                if part.startswith("remove "):
                    self.remove(part.removeprefix("remove "))
                yield part

        return StreamingResponse(stream(), media_type="text/event-stream")

    def remove(self, name: str) -> None:
        """Remove a user from the file, and let the second pass until it is seen."""
        change(self.path, lambda file: file.without(name))
        self.sleep(1)

    def client(self, address: str = "10.0.0.1", base: str = BASE) -> httpx.AsyncClient:
        """A browser at this address, without a cookie."""
        transport = httpx.ASGITransport(self.guard, client=(address, 50_000))
        return httpx.AsyncClient(transport=transport, base_url=base)

    async def signed_in(self, name: str = "lee", **options: str) -> httpx.AsyncClient:
        """A browser that has signed in."""
        client = self.client(**options)
        answer = await sign_in(client, name, PASSWORDS[name])
        assert answer.status_code == 303, answer.text
        return client

    async def websocket(
        self, cookie: str = "", *, headers: dict[str, str] = ORIGIN, send: tuple[str, ...] = ()
    ) -> list[Message]:
        """Open the websocket, send these texts, leave; what came back."""
        incoming: deque[Message] = deque([{"type": "websocket.connect"}])
        for text in send:
            incoming.append({"type": "websocket.receive", "text": text})
        return await self.frames(incoming, cookie, headers)

    async def frames(
        self, incoming: deque[Message], cookie: str, headers: dict[str, str] = ORIGIN
    ) -> list[Message]:
        """The same with these messages; one of type `remove` removes a user first."""
        outgoing: list[Message] = []

        async def receive() -> Message:
            if incoming and incoming[0]["type"] == "remove":
                self.remove(incoming.popleft()["name"])
            return (
                incoming.popleft() if incoming else {"type": "websocket.disconnect", "code": 1000}
            )

        async def send(message: Message) -> None:
            outgoing.append(message)

        all_headers = {"host": "edge.local:8080", "cookie": cookie, **headers}
        scope = {
            "type": "websocket",
            "path": "/_event",
            "query_string": b"",
            "headers": [(name.encode(), text.encode()) for name, text in all_headers.items()],
            "client": ("10.0.0.1", 50_000),
            "subprotocols": [],
        }
        await self.guard(scope, receive, send)
        return outgoing


def furnish(path: Path) -> House:
    """A dashboard with an admin and two viewers, whose users file is made here."""
    users = {name: Account(name, role, HASHES[name]) for name, role in ROLES.items()}
    change(path, lambda file: UsersFile(file.secret, users))
    return House(path)


async def sign_in(
    client: httpx.AsyncClient, name: str, password: str, **form: str
) -> httpx.Response:
    """Send the form as a browser does."""
    origin = {"origin": str(client.base_url).rstrip("/")}
    return await client.post(
        "/login", data={"name": name, "password": password, **form}, headers=origin
    )


def cookie_of(client: httpx.AsyncClient) -> str:
    """The Cookie header that a browser sends."""
    return "; ".join(f"{name}={value}" for name, value in client.cookies.items())
