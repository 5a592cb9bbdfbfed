"""The wall clock: times are milliseconds since 1970 UTC, everywhere in this project."""

from __future__ import annotations

import time
from typing import Final

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS


def epoch_ms() -> int:
    """Now."""
    return time.time_ns() // 1_000_000
