"""The last hour of each card, a bar a minute.

Closed minutes come from the history. The newest ones, which a history does not have yet, are
averages of what was seen live; a history that is away leaves just those.
"""

from __future__ import annotations

from collections.abc import Mapping

from dashboard.data.base import Minutes
from dashboard.live.plant import GOOD, Layout, Look
from edge_agent.clock import MINUTE_MS
from edge_agent.model import TagKey

BARS = 60


class Bars:
    """The minutes of the main tags of one layout. Minutes are numbered since 1970."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._mains = {device.main for device in layout.devices}
        self._minutes: dict[int, dict[int, float]] = {main: {} for main in self._mains}
        self._running: dict[int, tuple[int, float, int]] = {}
        """Of the minute that runs, per main: its number, the sum so far, the count."""

    @property
    def tags(self) -> set[TagKey]:
        """The main tags: what minutes are wanted of."""
        return {self._layout.tags[main].key for main in self._mains}

    def see(self, look: Look) -> None:
        """Take newest values into the running minute's average."""
        for main in self._mains:
            value, ts_ms = look.values[main], look.ts_ms[main]
            if value is None or ts_ms is None or look.qualities[main] != GOOD:
                continue
            minute = ts_ms // MINUTE_MS
            number, total, count = self._running.get(main, (minute, 0.0, 0))
            if number != minute:
                total, count = 0.0, 0
            self._running[main] = (minute, total + value, count + 1)
            self._minutes[main][minute] = (total + value) / (count + 1)

    def take(self, minutes: Mapping[TagKey, Minutes], end_ms: int) -> None:
        """Take closed minutes of a history over what was seen live; forget what is too old."""
        oldest = end_ms // MINUTE_MS - BARS
        for main in self._mains:
            own = self._minutes[main]
            found = minutes.get(self._layout.tags[main].key)
            if found is not None:
                numbers = (time_ms // MINUTE_MS for time_ms in found.times_ms)
                own.update(zip(numbers, found.averages, strict=True))
            self._minutes[main] = {n: value for n, value in own.items() if n > oldest}

    def columns(self, end_ms: int) -> list[list[float | None] | None]:
        """Per device, `BARS` averages up to the minute of ``end_ms``; None where there is none."""
        last = end_ms // MINUTE_MS
        numbers = range(last - BARS + 1, last + 1)
        columns: list[list[float | None] | None] = []
        for device in self._layout.devices:
            own = self._minutes[device.main]
            column = [_short(own.get(number)) for number in numbers]
            columns.append(column if any(value is not None for value in column) else None)
        return columns


def _short(value: float | None) -> float | None:
    """Four digits: a bar has 40 pixels."""
    return None if value is None else float(f"{value:.4g}")
