"""Batches for tests, as the journal would hand them out."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import count

from edge_agent.clock import DAY_MS
from edge_agent.model import Batch, Series

Sample = tuple[Series, int, float]
"""Series, time in milliseconds since 1970 UTC, value."""

NOON_MS = 20_000 * DAY_MS + DAY_MS // 2
"""A noon long past, on the minute and on the hour."""


def make_series(tag: str = "PRESS", device: str = "PUMP01", unit: str = "bar") -> Series:
    """A series of site A1, line L1."""
    return Series("A1", "L1", device, tag, unit)


class BatchMaker:
    """A journal's stand-in: numbers batches and series, and shares one growing map of series."""

    def __init__(self, first_series_id: int = 1) -> None:
        self._sequences = count(1)
        self._series_ids = count(first_series_id)
        self._ids: dict[Series, int] = {}
        self.series: dict[int, Series] = {}

    def __call__(self, samples: Iterable[Sample]) -> Batch:
        """The next batch; neighbours that share a time become one run."""
        runs: list[tuple[int, int]] = []
        series_ids, values = array("I"), array("d")
        for series, ts_ms, value in samples:
            if runs and runs[-1][0] == ts_ms:
                runs[-1] = (ts_ms, runs[-1][1] + 1)
            else:
                runs.append((ts_ms, 1))
            series_ids.append(self._id_of(series))
            values.append(value)
        return Batch(next(self._sequences), runs, series_ids, values, self.series)

    def _id_of(self, series: Series) -> int:
        if series not in self._ids:
            self._ids[series] = next(self._series_ids)
            self.series[self._ids[series]] = series
        return self._ids[series]


def samples_of(batches: Sequence[Batch]) -> list[Sample]:
    """All samples of some batches, in order."""
    found: list[Sample] = []
    for batch in batches:
        times = [ts_ms for ts_ms, length in batch.runs for _ in range(length)]
        for series_id, ts_ms, value in zip(batch.series_ids, times, batch.values, strict=True):
            found.append((batch.series[series_id], ts_ms, value))
    return found
