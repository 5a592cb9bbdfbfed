"""The Reflex app: its pages, and what stands in the head of each.

Reflex makes the pages, the bundle and the session's state. What moves is not React's: values,
gauges and charts are drawn by the custom elements of `elements/`, which start before React does.
docs/decisions/0015 says why.
"""

from __future__ import annotations

import reflex as rx

from dashboard.components.frame import HEAD
from dashboard.pages import detail, home, system
from dashboard.pages import map as map_page
from dashboard.state.session import Session

TITLE = "Edge Vibe"

app = rx.App(
    theme=None,
    toaster=None,
    reset_style=False,
    app_wraps={},
    head_components=[rx.el.script(detail.FIRST_CHART), *HEAD],
    html_lang="ko",
)
PAGES = {"/": home.page, "/detail": detail.page, "/system": system.page, "/map": map_page.page}
for route, page in PAGES.items():
    app.add_page(page, route=route, title=TITLE, on_load=Session.load)
