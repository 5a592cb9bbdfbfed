"""The login page: one file without JavaScript, in Korean or English."""

from __future__ import annotations

import functools
import math
from html import escape
from pathlib import Path
from string import Template
from typing import Final, Literal
from urllib.parse import quote, urlsplit

from starlette.responses import HTMLResponse

from dashboard.auth.headers import inline_hashes, policy

PRODUCT: Final = "Edge Vibe"
"""The name above the form."""

NEXT_CHARS_MAX: Final = 2_000
"""The longest local address to come back to; the form's bound holds it thrice over."""

LANGUAGES_MAX: Final = 20
"""Entries of Accept-Language that are read; browsers send fewer than ten."""

HOME: Final = "/"

Language = Literal["ko", "en"]
Problem = Literal["", "wrong", "wait", "broken", "malformed", "too_long"]

_TEXTS: Final[dict[Language, dict[str, str]]] = {
    "ko": {
        "sign_in": "로그인",
        "intro": "대시보드를 보려면 로그인하세요.",
        "name_label": "사용자 이름",
        "password_label": "비밀번호",
        "help": "계정은 관리자가 만듭니다.",
        "wrong": "사용자 이름 또는 비밀번호가 맞지 않습니다.",
        "wait": "시도가 너무 많습니다. {wait}초 뒤에 다시 시도하세요.",
        "broken": "사용자 파일에 문제가 있어 로그인할 수 없습니다. 로그를 확인하세요.",
        "malformed": "요청을 읽을 수 없습니다. 이 양식으로 다시 시도하세요.",
        "too_long": "입력이 너무 깁니다.",
    },
    "en": {
        "sign_in": "Sign in",
        "intro": "Sign in to see the dashboard.",
        "name_label": "User name",
        "password_label": "Password",
        "help": "Accounts are made by the administrator.",
        "wrong": "The user name or the password is wrong.",
        "wait": "Too many tries. Try again in {wait} s.",
        "broken": "Nobody can sign in now: the users file can't be used. Its error is in the log.",
        "malformed": "The request can't be read. Try again with this form.",
        "too_long": "That is too long.",
    },
}


@functools.cache
def _template() -> tuple[Template, str]:
    """The page, and its policy: its styles have no placeholder in them."""
    html = Path(__file__).with_name("login.html").read_bytes()
    return Template(html.decode()), policy(*inline_hashes(html))


def login_page(
    language: Language,
    *,
    status: int = 200,
    to: str = HOME,
    name: str = "",
    problem: Problem = "",
    wait_s: float = 0,
) -> HTMLResponse:
    """The form; ``to`` is where it leads (a local path), ``name`` what was typed, ``problem`` why
    it is shown again. With ``wait_s`` it carries Retry-After.
    """
    template, own_policy = _template()
    texts = _TEXTS[language]
    wait = math.ceil(wait_s)
    said = texts[problem].format(wait=wait) if problem else ""
    html = template.substitute(
        {key: escape(text) for key, text in texts.items()},
        lang=language,
        product=escape(PRODUCT),
        next=escape(to),
        name=escape(name),
        problem=f'<p class="wrong" role="alert">{escape(said)}</p>' if said else "",
        focus_name="" if name else " autofocus",
        focus_password=" autofocus" if name else "",
    )
    headers = {"content-security-policy": own_policy, "cache-control": "no-store"}
    if wait:
        headers["retry-after"] = str(wait)
    return HTMLResponse(html, status, headers)


def language_of(accept_language: str) -> Language:
    """Korean where it is liked better than English, else English (RFC 9110, 12.5.4)."""
    liking: dict[str, float] = {}
    for entry in accept_language.split(",")[:LANGUAGES_MAX]:
        tag, *parameters = (part.strip().lower() for part in entry.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        primary = tag.partition("-")[0]
        liking[primary] = max(quality, liking.get(primary, 0.0))
    korean, english = liking.get("ko", 0.0), liking.get("en", 0.0)
    # Equal likings: the one named first; browsers send them in order.
    if korean == english > 0:
        return "ko" if list(liking).index("ko") < list(liking).index("en") else "en"
    return "ko" if korean > english else "en"


def local_path(text: str) -> str:
    """This address if it is a path of ours, else `/`: a login never leads to another site.

    Browsers take `//host`, `/\\host` and `/<tab>/host` for another host's address.
    """
    if not text.startswith("/") or text.startswith("//") or len(text) > NEXT_CHARS_MAX:
        return HOME
    if "\\" in text or not text.isprintable():
        return HOME
    try:
        parts = urlsplit(text)
    except ValueError:
        return HOME
    if parts.scheme or parts.netloc or parts.path in ("/login", "/logout"):
        return HOME
    return text


def login_address(to: str) -> str:
    """Where to sign in so that one comes back to this path."""
    to = local_path(to)
    return "/login" if to == HOME else f"/login?next={quote(to, safe='/')}"
