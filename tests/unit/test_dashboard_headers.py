"""Security headers: what every answer carries, and a page's own policy."""

from __future__ import annotations

import base64
import hashlib

import httpx
import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from dashboard.auth.headers import DEFAULTS, inline_hashes, policy, secured


def source(text: str) -> str:
    """The CSP source of an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


async def answered(headers: dict[str, str], *, tls: bool = False) -> httpx.Headers:
    """The headers of an answer that set these itself."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await Response("x", headers=headers)(scope, receive, secured(send, tls=tls))

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
        return (await client.get("/")).headers


async def test_an_answer_without_headers_gets_them_all() -> None:
    """Nothing inline, no frames, no sniffing, no other origin."""
    headers = await answered({})
    assert {name: headers[name] for name in DEFAULTS} == DEFAULTS
    assert "strict-transport-security" not in headers


async def test_with_tls_browsers_are_told_to_stay_with_it() -> None:
    """HSTS makes no sense without TLS, and is not sent without."""
    headers = await answered({}, tls=True)
    assert headers["strict-transport-security"] == "max-age=604800"


async def test_a_page_keeps_its_own_policy_and_caching() -> None:
    """The default is only for what says nothing itself; a header is never there twice."""
    own = policy(["'sha256-abc'"])
    headers = await answered(
        {"Content-Security-Policy": own, "Cache-Control": "public, max-age=31536000, immutable"}
    )
    assert headers.get_list("content-security-policy") == [own]
    assert headers.get_list("cache-control") == ["public, max-age=31536000, immutable"]


async def test_cors_headers_are_taken_off() -> None:
    """Whatever a library inside believes, no other origin may read."""
    headers = await answered(
        {"Access-Control-Allow-Origin": "*", "access-control-allow-credentials": "true"}
    )
    assert not [name for name in headers if name.startswith("access-control")]


def test_the_default_policy_allows_nothing_inline_and_no_other_host() -> None:
    """Every directive that falls back to default-src gets nothing."""
    text = policy()
    assert text.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "frame-ancestors 'none'; base-uri 'none'" in text
    assert "unsafe" not in text
    assert "*" not in text
    assert "http" not in text


def test_the_policy_of_a_page_names_its_hashes() -> None:
    """Beside our own files, and in the right directive."""
    text = policy(["'sha256-script'"], ["'sha256-style'"])
    assert "script-src 'self' 'sha256-script';" in text
    assert "style-src 'self' 'sha256-style';" in text


@pytest.mark.parametrize(
    ("html", "scripts", "styles"),
    [
        ("<script>let a = 1 < 2 && '&amp;'</script>", ["let a = 1 < 2 && '&amp;'"], []),
        ("<script src='/a.js'></script>", [], []),
        ("<script src='/a.js'>unused</script><script>b()</script>", ["b()"], []),
        ("<SCRIPT type=module>\r\na()\rb()\r\n</SCRIPT>", ["\na()\nb()\n"], []),
        ("<style>a{}</style><p>text</p><style>b{}</style>", [], ["a{}", "b{}"]),
        ("<script>a</script><style>b</style><script>a</script>", ["a"], ["b"]),
        ("<style>a::after{content:'<b>'}</style>", [], ["a::after{content:'<b>'}"]),
        ("<script>w('<style>x</style>')</script>", ["w('<style>x</style>')"], []),
        ("<!-- <script>no()</script> --><p onclick='no()' style='color:red'>x</p>", [], []),
        ("<script>한글()</script>", ["한글()"], []),
    ],
)
def test_inline_hashes(html: str, scripts: list[str], styles: list[str]) -> None:
    """What a browser would hash: the text as its parser sees it, entities untouched."""
    found = inline_hashes(f"<!doctype html><html>{html}</html>".encode())
    assert found == ([source(text) for text in scripts], [source(text) for text in styles])
