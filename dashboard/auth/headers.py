"""Security headers, on every answer.

An answer may carry a Content-Security-Policy of its own, as a page with inline scripts does::

    scripts, styles = inline_hashes(html)
    headers["content-security-policy"] = policy(scripts, styles)

Every other gets the default, which allows nothing inline. CORS headers are taken off, whoever set
them: the dashboard answers no other origin.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from html.parser import HTMLParser
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Send

HSTS_S: Final = 7 * 86_400
"""Browsers hold it against every port of the host, and by it an expired certificate shuts people
out; after a week without TLS all is as before."""

_NO_FEATURES = ("camera", "display-capture", "geolocation", "microphone", "payment", "usb")


def policy(scripts: Iterable[str] = (), styles: Iterable[str] = ()) -> str:
    """A Content-Security-Policy: our own files, and inline code with these hashes (`'sha256-...'`).

    ``connect-src 'self'`` covers ws: and wss: of the same host and port (CSP 3, 6.7.2.8).
    """
    directives = {
        "default-src": ["'none'"],
        "script-src": ["'self'", *scripts],
        "style-src": ["'self'", *styles],
        "img-src": ["'self'", "data:", "blob:"],
        "connect-src": ["'self'"],
        "font-src": ["'self'"],
        "manifest-src": ["'self'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
        "base-uri": ["'none'"],
    }
    return "; ".join(f"{name} {' '.join(sources)}" for name, sources in directives.items())


DEFAULTS: Final = {
    "content-security-policy": policy(),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "permissions-policy": ", ".join(f"{feature}=()" for feature in _NO_FEATURES),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # A browser may keep it and must ask again; what lies between must not keep it.
    "cache-control": "private, no-cache",
}
"""What an answer gets where it says nothing itself."""


def secured(send: Send, *, tls: bool) -> Send:
    """A ``send`` that completes the headers of each answer before it hands them on."""

    async def send_secured(message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            headers = MutableHeaders(raw=[(name.lower(), value) for name, value in _own(message)])
            for name, value in DEFAULTS.items():
                headers.setdefault(name, value)
            if tls:
                headers["strict-transport-security"] = f"max-age={HSTS_S}"
            message = {**message, "headers": headers.raw}
        await send(message)

    return send_secured


def _own(message: Message) -> Iterable[tuple[bytes, bytes]]:
    """The answer's own headers, without CORS."""
    return (
        (name, value)
        for name, value in message.get("headers", ())
        if not name.lower().startswith(b"access-control-")
    )


def inline_hashes(html: bytes) -> tuple[list[str], list[str]]:
    """The CSP sources of a page's inline scripts and inline styles, each in order, once.

    Only for pages that we made ourselves: it allows whatever the page holds. Scripts with `src` are
    none of these; attributes (`style=`, `onclick=`) are not covered and stay forbidden.
    """
    finder = _InlineFinder()
    # A browser hashes what its parser made of it, where each line ends with a line feed.
    finder.feed(html.decode().replace("\r\n", "\n").replace("\r", "\n"))
    finder.close()
    return list(dict.fromkeys(finder.scripts)), list(dict.fromkeys(finder.styles))


class _InlineFinder(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self._into: list[str] | None = None
        self._text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script" and "src" not in dict(attrs):
            self._into = self.scripts
        elif tag == "style":
            self._into = self.styles
        self._text = ""

    def handle_data(self, data: str) -> None:
        self._text += data

    def handle_endtag(self, tag: str) -> None:
        if self._into is not None and tag in ("script", "style"):
            digest = base64.b64encode(hashlib.sha256(self._text.encode()).digest()).decode()
            self._into.append(f"'sha256-{digest}'")
            self._into = None
