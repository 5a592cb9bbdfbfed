"""Is the agent well? PLCs, journal and sinks as a picture, then everything in figures."""

from __future__ import annotations

from typing import Any

import reflex as rx

from dashboard.components import elements
from dashboard.components.frame import frame
from dashboard.components.text import text


def page() -> Any:
    """`/system/`"""
    return frame(
        rx.el.h1(text("시스템", "System"), class_name="hidden"),
        elements.pipeline(),
        script="system",
        styles=["tables"],
    )
