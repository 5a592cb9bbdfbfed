"""The address map: try another one, see what it changes, apply it, go back. For admins."""

from __future__ import annotations

from typing import Any

import reflex as rx

from dashboard.components import elements
from dashboard.components.frame import frame
from dashboard.components.text import text


def page() -> Any:
    """`/map/`"""
    return frame(
        rx.el.h1(text("주소 맵", "Address map"), class_name="title"),
        elements.address_map(),
        script="map",
        styles=["tables"],
    )
