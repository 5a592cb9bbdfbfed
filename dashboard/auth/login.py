"""Signing in and out: what `/login` and `/logout` do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs

from starlette.datastructures import Headers, QueryParams
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import Receive, Scope

from dashboard.auth.limiter import Limiter
from dashboard.auth.pages import (
    Language,
    Problem,
    language_of,
    local_path,
    login_address,
    login_page,
)
from dashboard.auth.passwords import normalised
from dashboard.auth.sessions import clear_cookie, seal, set_cookie
from dashboard.auth.users import NAME_CHARS_MAX, Account, Users, UsersFile

log = logging.getLogger(__name__)

BODY_BYTES_MAX: Final = 16_384
"""The longest name, password and address to come back to, percent-encoded: 12 bytes a character
for the first two, and three for the third's ASCII."""

BODY_TIMEOUT_S: Final = 10.0
"""A form is one packet or two; who takes longer holds a connection for nothing."""

FIELDS_MAX: Final = 10
"""The form has three."""

HASHING_AT_ONCE: Final = 2
"""Threads that compare passwords: 16 MB each, and half of a Pi's cores."""

HASHING_WAITING_MAX: Final = 16
"""Comparisons under way or waiting: on a Pi the last one waits for some 3 s."""

BUSY_WAIT_S: Final = 3.0
"""When to come back if that many are waiting: they are done by then."""


class Login:
    """The form's other side; users and cookies of one dashboard."""

    def __init__(
        self,
        users: Users,
        *,
        tls: bool,
        now: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._users = users
        self._tls = tls
        self._now = now
        self._monotonic = monotonic
        self._limiter = Limiter()
        self._threads = ThreadPoolExecutor(HASHING_AT_ONCE, thread_name_prefix="edge-password")
        self._hashing = 0

    async def answer(
        self, scope: Scope, receive: Receive, headers: Headers, *, signed_in: bool
    ) -> Response:
        """Answer a request to `/login` or `/logout` whose origin has been checked."""
        method = scope["method"]
        if scope["path"] == "/logout":
            return self._sign_out() if method == "POST" else _not_allowed("POST")
        language = language_of(headers.get("accept-language", ""))
        if method in ("GET", "HEAD"):
            to = local_path(QueryParams(scope["query_string"]).get("next", ""))
            if signed_in:
                return RedirectResponse(to, HTTPStatus.SEE_OTHER)
            if self._users.file is None:
                return login_page(language, status=503, to=to, problem="broken")
            return login_page(language, to=to)
        if method == "POST":
            return await self._read_form(scope, receive, headers, language)
        return _not_allowed("GET, HEAD, POST")

    def _sign_out(self) -> Response:
        response = RedirectResponse(login_address("/"), HTTPStatus.SEE_OTHER)
        file = self._users.file
        if file is not None:
            clear_cookie(response, file.secret, tls=self._tls)
        return response

    async def _read_form(
        self, scope: Scope, receive: Receive, headers: Headers, language: Language
    ) -> Response:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/x-www-form-urlencoded":
            return login_page(language, status=415, problem="malformed")
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                body = await _body(receive)
        except TimeoutError:
            return login_page(language, status=408, problem="malformed")
        if body is None:
            return login_page(language, status=413, problem="too_long")
        try:
            fields = parse_qs(
                body.decode("ascii"), keep_blank_values=True, max_num_fields=FIELDS_MAX
            )
        except ValueError:
            return login_page(language, status=400, problem="malformed")
        form = {name: values[0] for name, values in fields.items()}
        name = normalised(form.get("name", "").strip())[: NAME_CHARS_MAX + 1]
        client = scope.get("client")
        return await self._sign_in(
            name,
            form.get("password", ""),
            address=client[0] if client else "",
            to=local_path(form.get("next", "")),
            language=language,
        )

    async def _sign_in(
        self, name: str, password: str, *, address: str, to: str, language: Language
    ) -> Response:
        def refused(status: int, problem: Problem, wait_s: float = 0) -> Response:
            return login_page(
                language, status=status, to=to, name=name, problem=problem, wait_s=wait_s
            )

        file = self._users.file
        if file is None:
            return refused(503, "broken")
        if self._hashing >= HASHING_WAITING_MAX:
            return refused(429, "wait", BUSY_WAIT_S)
        wait_s = self._limiter.admit(name, address, self._monotonic())
        if wait_s > 0:
            log.debug("sign-in from %s refused for %.0f s more", address, wait_s)
            return refused(429, "wait", wait_s)
        account = await self._matching(file, name, password)
        if account is None:
            # What was typed as a name may be a password: only a name that exists is logged.
            known = name if name in file.accounts else "unknown user"
            log.warning("sign-in failed: %s from %s", known, address)
            return refused(401, "wrong")
        self._limiter.succeeded(name, address)
        log.info("signed in: %s (%s) from %s", account.name, account.role, address)
        response = RedirectResponse(to, HTTPStatus.SEE_OTHER, {"cache-control": "no-store"})
        set_cookie(response, file.secret, seal(file.secret, account, self._now()), tls=self._tls)
        return response

    async def _matching(self, file: UsersFile, name: str, password: str) -> Account | None:
        """The account of this name and password; takes as long for a name that nobody has."""
        account = file.accounts.get(name)
        stored = account.password if account else file.decoy()
        self._hashing += 1
        try:
            loop = asyncio.get_running_loop()
            matches = await loop.run_in_executor(self._threads, stored.matches, password)
        finally:
            self._hashing -= 1
        return account if matches else None


async def _body(receive: Receive) -> bytes | None:
    """The request's body; None if it is too long. Raises ``ClientDisconnect``."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > BODY_BYTES_MAX:
            return None
        if not message.get("more_body", False):
            return bytes(body)


def _not_allowed(allow: str) -> Response:
    return PlainTextResponse(f"allowed: {allow}\n", 405, {"allow": allow})
