"""Durations as people write them, wherever the product takes one."""

from __future__ import annotations

import argparse

import pytest

from edge_agent.cli.words import duration_s
from edge_agent.text.durations import CHARS_MAX, duration_ms


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("10s", 10_000),
        ("30m", 1_800_000),
        ("24h", 86_400_000),
        ("7d", 604_800_000),
        ("1.5h", 5_400_000),
        ("1m30s", 90_000),
        (" 1 h 30 m ", 5_400_000),
        ("500ms", 500),
        ("250us", 0.25),
        ("0s", 0),
    ],
)
def test_numbers_with_units_add_up(text: str, ms: float) -> None:
    """From nanoseconds to days."""
    assert duration_ms(text) == ms


@pytest.mark.parametrize(
    "text", ["", "soon", "10", "s", "-5s", "1h-30m", "1h30", "10 weeks", ".", f"{'9' * CHARS_MAX}s"]
)
def test_anything_else_is_refused_with_what_is_allowed(text: str) -> None:
    """A number without a unit too: it might be anything."""
    with pytest.raises(ValueError, match="allowed: a span like 30m, 24h"):
        duration_ms(text)


def test_on_the_command_line_it_is_more_than_nothing() -> None:
    """In seconds; the error is one of `argparse`."""
    assert duration_s("2m") == 120
    for text in ("0s", "soon"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}'; allowed: "):
            duration_s(text)
