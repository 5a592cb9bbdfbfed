"""Is the plant well? A card per device, what is out of limits first."""

from __future__ import annotations

from typing import Any

import reflex as rx

from dashboard.components import elements
from dashboard.components.frame import frame
from dashboard.components.text import text


def page() -> Any:
    """`/`"""
    return frame(
        rx.el.h1(text("장치", "Devices"), class_name="hidden"),
        elements.alarms(),
        elements.chips(),
        elements.grid(),
    )
