"""Sessions: a signed cookie that says who signed in, by which password, and when.

The signature is HMAC-SHA256 by itsdangerous, under the users file's secret. The role is not part
of it: that is looked up at each request.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from itsdangerous import BadData, URLSafeSerializer
from starlette.responses import Response

from dashboard.auth.users import Account, User, UsersFile

SESSION_S: Final = 12 * 3_600
"""A shift and its handover; then the password is asked for again."""

CLOCK_STEP_S: Final = 300
"""How far in the future a session may have begun: a Pi's clock is stepped back by NTP."""

COOKIE_CHARS_MAX: Final = 1_000
"""A session of the longest name, four bytes a character, has some 500."""

_PURPOSE: Final = "edge-dashboard.session.1"
"""Keeps these signatures apart from any others under the same secret."""


@dataclass(frozen=True, slots=True)
class Session:
    """What a genuine cookie says; ``live`` decides whether it still holds."""

    name: str
    fingerprint: str
    begun_s: float

    def account(self, file: UsersFile | None, now_s: float) -> Account | None:
        """The account that it stands for, or None: expired, removed, or another password since."""
        if file is None or not -CLOCK_STEP_S <= now_s - self.begun_s < SESSION_S:
            return None
        account = file.accounts.get(self.name)
        if account is None or account.password.fingerprint != self.fingerprint:
            return None
        return account

    def live(self, file: UsersFile | None, now_s: float, user: User) -> bool:
        """Whether it still stands for this user in this role."""
        account = self.account(file, now_s)
        return account is not None and account.user == user


def cookie_name(secret: bytes, *, tls: bool) -> str:
    """Two dashboards on one host have different names: cookies know no ports.

    With TLS the browser itself holds `__Host-` to Secure, Path=/ and no Domain.
    """
    own = hashlib.sha256(b"cookie name" + secret).hexdigest()[:8]
    return f"{'__Host-' if tls else ''}edge_dashboard_{own}"


def seal(secret: bytes, account: Account, now_s: float) -> str:
    """The cookie's value for a session of this account that begins now (seconds since 1970)."""
    content = [account.name, account.password.fingerprint, int(now_s)]
    return str(_serializer(secret).dumps(content))


def unseal(secret: bytes, text: str) -> Session | None:
    """What the cookie says; None if we did not sign it."""
    if len(text) > COOKIE_CHARS_MAX:
        return None
    try:
        content = _serializer(secret).loads(text)
    except BadData:
        return None
    match content:
        case [str(name), str(fingerprint), int(begun_s)]:
            return Session(name, fingerprint, begun_s)
        case _:
            return None


def set_cookie(response: Response, secret: bytes, value: str, *, tls: bool) -> None:
    """Give the browser this session."""
    response.set_cookie(
        cookie_name(secret, tls=tls),
        value,
        max_age=SESSION_S,
        path="/",
        secure=tls,
        httponly=True,
        samesite="strict",
    )


def clear_cookie(response: Response, secret: bytes, *, tls: bool) -> None:
    """Take it back."""
    response.delete_cookie(
        cookie_name(secret, tls=tls), path="/", secure=tls, httponly=True, samesite="strict"
    )


def _serializer(secret: bytes) -> URLSafeSerializer:
    return URLSafeSerializer(
        secret,
        salt=_PURPOSE,
        signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
    )
