"""What each part counts. Pure: plain numbers in plain objects, read by whoever reports them.

Counting happens per scan, per request, per batch or per message, never per polled sample.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
"""Bounds for durations: from a quick reply to a stuck one."""


class Histogram:
    """Counts of values by upper bound, as Prometheus has them, and their sum."""

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    @property
    def count(self) -> int:
        """How many values were counted."""
        return sum(self.counts)

    def quantile(self, share: float) -> float | None:
        """Upper bound of the bucket in which that share of the values is reached; None if empty."""
        wanted = share * self.count
        seen = 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            seen += count
            if count and seen >= wanted:
                return bound
        return None


@dataclass(slots=True)
class ConnectionCounters:
    """One connection's history."""

    connects: int = 0
    disconnects: int = 0
    scans: int = 0
    requests: int = 0
    samples: int = 0
    suppressed: int = 0
    """Good values that a deadband kept back."""
    bad: int = 0
    """Values that could not be read or were not finite."""
    errors: Counter[str] = field(default_factory=Counter)
    """Failed requests by kind: device, timeout, connection."""
    paused_s: float = 0.0
    """Time without reading because the journal took no more."""
    late: Histogram = field(default_factory=Histogram)
    """Start of a scan after its tick, in seconds."""
    request_time: Histogram = field(default_factory=Histogram)


@dataclass(slots=True)
class SinkCounters:
    """One sink's history since the start; its totals for ever stand in the journal."""

    rejected: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    """Failed attempts by kind: open, deliver, fault (an error nobody classed)."""
    delivery_time: Histogram = field(default_factory=Histogram)
    lag: Histogram = field(default_factory=Histogram)
    """Age of a batch's newest sample when the sink had taken it, in seconds."""


@dataclass(slots=True)
class IngestCounters:
    """What has come in by MQTT from other publishers since the start."""

    messages: int = 0
    samples: int = 0
    """Handed to the journal."""
    own: int = 0
    """Of tags that the running map polls."""
    repeated: int = 0
    """Delivered again after a lost connection, and known."""
    not_understood: int = 0
    over_series_max: int = 0
    overflowed: int = 0
    """Of QoS 0, while the journal took none."""
    connects: int = 0
