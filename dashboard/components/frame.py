"""What every page has around it: the head, the bar at the top, the banner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import reflex as rx

from dashboard.components import elements
from dashboard.components.text import text
from dashboard.state.session import Session

BOOT = """
{
  const html = document.documentElement;
  const stored = (key) => {
    try {
      return localStorage.getItem(key);
    } catch {
      return null;
    }
  };
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  html.lang = stored("language") ?? (navigator.language.startsWith("ko") ? "ko" : "en");
  html.dataset.theme = stored("chosen-theme") ?? (dark ? "dark" : "light");
}
"""
"""Language and theme before the first paint (`elements/words.js`, `elements/theme.js`)."""

FIRST_SNAPSHOT = """
{
  const source = new URLSearchParams(location.search).get("source");
  const query = source ? `?source=${encodeURIComponent(source)}` : "";
  const message = fetch(`/api/snapshot${query}`, { priority: "high" })
    .then((answer) => (answer.ok ? answer.json() : null), () => null)
    .catch(() => null);
  globalThis.firstSnapshot = { source, message };
}
"""
"""Asks for what is shown before any script is there that could show it (`elements/live.js`)."""

HEAD = [
    rx.el.script(FIRST_SNAPSHOT),
    rx.el.script(BOOT),
    rx.el.link(rel="stylesheet", href="/dashboard.css"),
    rx.el.link(rel="icon", href="/favicon.svg", type="image/svg+xml"),
    rx.el.script(src="/elements/main.js", type="module", custom_attrs={"async": True}),
]


def frame(*content: Any, script: str = "", styles: Sequence[str] = ()) -> Any:
    """A page: ``content`` is its main part, ``script`` the name of its own elements and style.

    ``styles`` are further style sheets, which it shares with others.
    """
    own = []
    if script:
        own = [
            *(rx.el.link(rel="stylesheet", href=f"/{name}.css") for name in (*styles, script)),
            rx.el.script(src=f"/elements/{script}.js", type="module", custom_attrs={"async": True}),
        ]
    return rx.fragment(
        *own,
        elements.anchor(
            text("본문으로", "Skip to content"),
            class_name="skip",
            custom_attrs={"href": "#content"},
        ),
        rx.el.header(
            rx.el.a(
                rx.el.img(src="/favicon.svg", alt=""),
                rx.el.span("Edge Vibe"),
                href="/",
                class_name="brand",
            ),
            elements.search(),
            rx.el.nav(
                _to_map(),
                rx.el.a(text("시스템", "System"), href="/system/", class_name="quiet"),
                elements.preferences(),
                _who(),
                class_name="tools",
            ),
            class_name="top",
        ),
        elements.banner(),
        rx.el.main(*content, id="content"),
    )


def _to_map() -> Any:
    """For who may change the map; a narrow screen has room for a short word."""
    words = (("ko", "주소 맵", "맵"), ("en", "Address map", "Map"))
    return rx.cond(
        Session.role == "admin",
        rx.el.a(
            *(
                rx.el.span(
                    rx.el.span(whole, class_name="wide"),
                    rx.el.span(short, class_name="narrow"),
                    lang=language,
                    class_name=language,
                )
                for language, whole, short in words
            ),
            href="/map/",
            class_name="quiet",
        ),
    )


def _who() -> Any:
    """Who is logged in; nothing where the dashboard is open."""
    return rx.cond(
        Session.name != "",
        elements.form(
            rx.el.span(Session.name, class_name="who", title=Session.role),
            rx.el.button(text("로그아웃", "Log out"), type="submit", class_name="quiet"),
            class_name="session",
            custom_attrs={"action": "/logout", "method": "post"},
        ),
    )
