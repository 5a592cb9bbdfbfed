"""The guard: an ASGI middleware around everything that the dashboard answers.

Each request passes these doors in turn; the first that is shut answers it:

1. `GET /healthz` is open: whoever watches the service has no password.
2. Without users: the Host must name loopback (421).
3. What another site may have caused is refused (403): unsafe methods and websockets whose Origin is
   not ours, and whatever the browser itself calls cross-site, except following a link.
4. `/login` and `/logout`.
5. With users: a live session, or a page leads to `/login` (303) and all else is refused (401).

A websocket is refused before it is accepted: the server answers 403, the close code is 4000 plus
the status above. Behind the last door the session is asked for again at each message.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dashboard.auth.exposure import is_loopback
from dashboard.auth.headers import secured
from dashboard.auth.login import Login
from dashboard.auth.pages import HOME, login_address
from dashboard.auth.sessions import Session, cookie_name, unseal
from dashboard.auth.users import User, Users

log = logging.getLogger(__name__)

HEALTH_PATH: Final = "/healthz"

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""They change nothing (RFC 9110, 9.2.1), so that a link may cause them."""

EVERYBODY: Final = User(name="", role="admin")
"""Who comes where there are no users: the person at this machine."""

CLOSE_CODE_BASE: Final = 4_000
"""The private range of close codes (RFC 6455, 7.4.2)."""

_COOKIES_MAX: Final = 50
"""Pairs of a Cookie header that are read; browsers keep no more per host, or few."""


_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:[0-9]{1,5})?")
"""RFC 9110, 7.2; strict, since a lenient parser finds 127.0.0.1 in other hosts' names."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    status: int
    text: str


_WRONG_HOST = _Refusal(
    421, "this dashboard has no users and answers only by the names localhost, 127.0.0.1 and [::1]"
)
_FOREIGN = _Refusal(403, "refused: the request comes from another site, or does not say where from")
_SIGN_IN = _Refusal(401, "sign in first")


class Guard:
    """Lets in who may look, and puts them into ``scope["state"]["user"]``."""

    def __init__(
        self,
        app: ASGIApp,
        users: Users | None,
        *,
        tls: bool = False,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Guard ``app``; ``users`` None opens it to all on loopback (see `check_exposure`).

        ``tls``: whether browsers reach it by https. ``now`` is in seconds since 1970, for sessions,
        which survive a restart; ``monotonic`` is for waits.
        """
        self._app = app
        self._users = users
        self._tls = tls
        self._now = now
        self._login = Login(users, tls=tls, now=now, monotonic=monotonic) if users else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection of the server; what is neither HTTP nor a websocket is dropped."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] not in ("http", "websocket"):
            return
        send = secured(send, tls=self._tls)
        http = scope["type"] == "http"
        if http and scope["method"] == "GET" and scope["path"] == HEALTH_PATH:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _refuse(refusal, scope, receive, send)
            return
        if self._users is None:
            await self._open(scope, receive, send)
            return
        session = self._session(headers)
        account = session.account(self._users.file, self._now()) if session else None
        if http and scope["path"] in ("/login", "/logout") and self._login:
            await self._answer_login(scope, receive, send, headers, signed_in=account is not None)
        elif session is None or account is None:
            await _ask_to_sign_in(headers, scope, receive, send)
        else:
            await self._let_in(session, account.user, scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> _Refusal | None:
        hosts = headers.getlist("host")
        host = hosts[0].lower() if len(hosts) == 1 else ""
        if self._users is None and not is_loopback(_host_name(host)):
            return _WRONG_HOST
        method = scope.get("method", "")
        site = headers.get("sec-fetch-site", "none")
        # "same-site" is not enough: cookies and sites know no ports.
        foreign = site not in ("same-origin", "none")
        if method not in SAFE_METHODS:
            # Websockets have no method: browsers open them for any site, cookies and all.
            ours = f"{'https' if self._tls else 'http'}://{host}"
            origins = [origin.lower() for origin in headers.getlist("origin")]
            return _FOREIGN if foreign or not host or origins != [ours] else None
        if foreign and not _follows_link(headers):
            return _FOREIGN
        return None

    async def _open(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] in ("/login", "/logout"):
            await RedirectResponse(HOME, HTTPStatus.SEE_OTHER)(scope, receive, send)
        else:
            await self._app(_with_user(scope, EVERYBODY), receive, send)

    def user_of(self, cookies: str) -> User | None:
        """Whose live session a Cookie header has, if any; without users everybody's."""
        if self._users is None:
            return EVERYBODY
        session = self._session(Headers({"cookie": cookies}))
        account = session.account(self._users.file, self._now()) if session else None
        return account.user if account else None

    def _session(self, headers: Headers) -> Session | None:
        """What the cookie says, if we signed it."""
        file = self._users.file if self._users else None
        if file is None:
            return None
        name = cookie_name(file.secret, tls=self._tls)
        for pair in "; ".join(headers.getlist("cookie")).split(";", _COOKIES_MAX)[:_COOKIES_MAX]:
            key, _, value = pair.strip().partition("=")
            if key == name:
                return unseal(file.secret, value.strip('"'))
        return None

    async def _answer_login(
        self, scope: Scope, receive: Receive, send: Send, headers: Headers, *, signed_in: bool
    ) -> None:
        assert self._login is not None
        try:
            response = await self._login.answer(scope, receive, headers, signed_in=signed_in)
        except ClientDisconnect:
            log.debug("the client left while it signed in")
            return
        await response(scope, receive, send)

    async def _let_in(
        self, session: Session, user: User, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Run the application as long as the session lives."""
        users = self._users
        assert users is not None
        watch = _Watch(receive, send, alive=lambda: session.live(users.file, self._now(), user))
        scope = _with_user(scope, user)
        if scope["type"] == "websocket":
            await self._app(scope, watch.receive_frame, watch.send_frame)
            return
        try:
            await self._app(scope, receive, watch.send_part)
        except (ConnectionAbortedError, ClientDisconnect):
            if not watch.ended:
                raise


class _Watch:
    """Ends an open websocket or stream when its session does."""

    def __init__(self, receive: Receive, send: Send, *, alive: Callable[[], bool]) -> None:
        self._receive = receive
        self._send = send
        self._alive = alive
        self._begun = False
        self.ended = False

    async def receive_frame(self) -> Message:
        """The next message of a websocket; a disconnect when the session is over."""
        message = await self._receive()
        if message["type"] != "websocket.receive" or await self._goes_on():
            return message
        return {"type": "websocket.disconnect", "code": CLOSE_CODE_BASE + _SIGN_IN.status}

    async def send_frame(self, message: Message) -> None:
        """To a websocket; when the session is over it is closed, and the rest is dropped.

        The server then tells the application of the disconnect.
        """
        if await self._goes_on():
            await self._send(message)

    async def send_part(self, message: Message) -> None:
        """A part of an answer. Raises ``ConnectionAbortedError`` when the session is over.

        So would a server whose client has gone (ASGI 2.4): applications know how to end then.
        """
        if message["type"] == "http.response.body":
            # The first part was asked for under a live session; a stream goes on for hours.
            if self._begun and not self._alive():
                self.ended = True
                raise ConnectionAbortedError("the session is over")
            self._begun = True
        await self._send(message)

    async def _goes_on(self) -> bool:
        if not self.ended and not self._alive():
            self.ended = True
            code = CLOSE_CODE_BASE + _SIGN_IN.status
            await self._send(
                {"type": "websocket.close", "code": code, "reason": "the session is over"}
            )
        return not self.ended


def _host_name(host: str) -> str:
    """A Host header without its port; "" if it is none."""
    match = _HOST.fullmatch(host)
    return match[1] if match else ""


def _follows_link(headers: Headers) -> bool:
    """Whether a browser goes to a page, in a tab of its own."""
    return (
        headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    )


def _with_user(scope: Scope, user: User) -> Scope:
    state: Mapping[str, Any] = scope.get("state") or {}
    return {**scope, "state": {**state, "user": user}}


async def _ask_to_sign_in(headers: Headers, scope: Scope, receive: Receive, send: Send) -> None:
    """A page leads to the form and back; nothing else can show one."""
    page = (
        scope["type"] == "http"
        and scope["method"] in ("GET", "HEAD")
        and "text/html" in headers.get("accept", "")
    )
    if not page:
        await _refuse(_SIGN_IN, scope, receive, send)
        return
    here = quote(scope["path"])
    if scope["query_string"]:
        here += "?" + quote(scope["query_string"], safe="/?=&%+:,;@!$'()*~-._")
    response = RedirectResponse(
        login_address(here), HTTPStatus.SEE_OTHER, {"cache-control": "no-store"}
    )
    await response(scope, receive, send)


async def _refuse(refusal: _Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    """JSON, or plain text where a person sees it; a websocket is closed before it is accepted."""
    if scope["type"] == "websocket":
        code = CLOSE_CODE_BASE + refusal.status
        await send({"type": "websocket.close", "code": code, "reason": refusal.text})
        return
    response: Response
    if refusal is _WRONG_HOST:
        response = PlainTextResponse(f"{refusal.text}\n", refusal.status)
    else:
        response = JSONResponse({"error": refusal.text}, refusal.status)
    response.headers["cache-control"] = "no-store"
    await response(scope, receive, send)
