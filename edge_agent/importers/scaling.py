"""Two ranges as the map's `scale` and `offset`. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

DIGITS: Final = 15
"""What a float64 holds of any decimal; the digits behind them are noise: 0.09999999999999999."""
OFFSET_DIGITS: Final = 12
"""An offset is a difference, so its noise is as large as that of the larger of its two numbers."""


def linear(raw: Sequence[float | None], scaled: Sequence[float | None]) -> tuple[float, float]:
    """Scale and offset that bring a raw range (low, high) to a scaled one. Raises ``ValueError``.

    Both are the shortest decimals that do so: 0.1, not 0.09999999999999999.
    """
    raw_low, raw_high = raw
    scaled_low, scaled_high = scaled
    if raw_low is None or raw_high is None or scaled_low is None or scaled_high is None:
        raise ValueError("the scaling lacks a range: raw and scaled, low and high")
    if raw_low == raw_high or scaled_low == scaled_high:
        raise ValueError("the scaling has a range from a number to itself")
    scale = float(f"{(scaled_high - scaled_low) / (raw_high - raw_low):.{DIGITS}g}")
    offset = scaled_low - raw_low * scale
    if not (math.isfinite(scale) and math.isfinite(offset) and scale):
        raise ValueError("the scaling has ranges that are too far apart")
    largest = max(abs(scaled_low), abs(raw_low * scale))
    if largest:
        offset = round(offset, OFFSET_DIGITS - math.floor(math.log10(largest)))
    return scale, offset + 0.0
