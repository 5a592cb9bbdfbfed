"""Text in both languages: each stands in the page, and the style sheet shows one.

The language is known before the first paint (an attribute of `<html>`), and needs no round trip
to the server to change.
"""

from __future__ import annotations

from typing import Any

import reflex as rx


def text(korean: str, english: str) -> Any:
    """Both, of which the page shows the one of its language."""
    return rx.fragment(
        rx.el.span(korean, lang="ko", class_name="ko"),
        rx.el.span(english, lang="en", class_name="en"),
    )
