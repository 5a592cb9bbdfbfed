"""A terminal of some width, for what looks at it to decide how it prints."""

from __future__ import annotations

import re
from typing import Final

import pytest

ESCAPES: Final = re.compile(r"\x1b\[[\d;]*m")


def set_width(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make rich take standard output for a terminal of so many columns."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(width))


def plain(text: str) -> str:
    """What is read of it: no colours."""
    return ESCAPES.sub("", text)
