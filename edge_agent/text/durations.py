"""Durations as people write them: `30m`, `1h30m`, `500ms`. Pure."""

from __future__ import annotations

import math
import re
from typing import Final

ALLOWED: Final = "a span like 30m, 24h, 7d, 10s or 1h30m"
"""For messages."""
CHARS_MAX: Final = 100
"""Longer than any duration; it may come out of a file of another system."""

_UNITS_MS: Final = {
    "ns": 1e-6,
    "us": 1e-3,
    "µs": 1e-3,
    "ms": 1.0,
    "s": 1e3,
    "m": 60e3,
    "h": 3_600e3,
    "d": 86_400e3,
}
_PART: Final = re.compile(rf"([0-9]+(?:\.[0-9]+)?)\s*({'|'.join(_UNITS_MS)})\s*")


def duration_ms(text: str) -> float:
    """A duration in milliseconds, 0 or more. Raises ``ValueError`` with what is allowed."""
    plain = text.strip()
    parts = list(_PART.finditer(plain)) if len(plain) <= CHARS_MAX else []
    if not parts or "".join(part[0] for part in parts) != plain:
        raise ValueError(f"{text[:CHARS_MAX]!r}; allowed: {ALLOWED}")
    return math.fsum(float(part[1]) * _UNITS_MS[part[2]] for part in parts)
