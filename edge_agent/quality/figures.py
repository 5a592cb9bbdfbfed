"""Samples in, figures out: one tag, one range of time, in memory of constant size. Pure.

Times are milliseconds since 1970 UTC; ranges include their start and exclude their end.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from itertools import compress
from operator import ne, sub
from statistics import median_low
from typing import Final, NamedTuple

from edge_agent.clock import MINUTE_MS
from edge_agent.model import Tag, ValueType
from edge_agent.normalize import HEARTBEAT_MS

GAP_PERIODS: Final = 3
"""So many periods without a sample are a gap: one failed read and its repetition are none."""
GAPS_KEPT: Final = 5
"""The longest; the others are only counted."""
ESTIMATE_PERIODS: Final = 100
"""Of a tag that no map describes: its period is the median of so many, which a few gaps among them
do not move."""
ESTIMATE_PERIODS_MIN: Final = 10
"""With fewer there is no telling a period from chance."""
EXACT_BELOW_MS: Final = 64
"""Bins are a millisecond wide up to here, then 1/32 of their place."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What the map says of a tag; all of it may be unknown."""

    period_ms: int | None = None
    heartbeat_ms: int | None = None
    """Of a tag that is recorded by change."""
    lo: float | None = None
    hi: float | None = None
    is_switch: bool = False
    """A BOOL: that it never changes is no wonder."""

    @classmethod
    def of(cls, tag: Tag) -> Expectation:
        """What a row of the map lets expect."""
        by_change = tag.deadband > 0 or tag.heartbeat_ms is not None
        return cls(
            tag.period_ms,
            (tag.heartbeat_ms or HEARTBEAT_MS) if by_change else None,
            tag.lo,
            tag.hi,
            tag.type is ValueType.BOOL,
        )


class Gap(NamedTuple):
    """Time without a sample: between two samples, or between one and an end of the range."""

    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Minutes:
    """One tag's minutes as columns by time: start, number of samples, least and greatest value."""

    starts_ms: Sequence[int]
    samples: Sequence[int]
    least: Sequence[float]
    greatest: Sequence[float]


@dataclass(frozen=True, slots=True)
class Figures:
    """What a tag's samples in a range come down to; None where a figure can't be told.

    ``expected`` and ``present`` count samples, or pieces of time for a tag that is recorded by
    change; ``coverage`` is their share, at most 1. ``late`` and the deviations are those of
    ``periods`` periods that are no gaps. ``outside`` counts samples beyond lo..hi. ``last`` is the
    newest value; ``flat_ms`` is how long it has been there without a change, ``flat_before_ms`` the
    longest such time that has ended. ``age_ms`` is the newest sample's at the end of the range.
    ``minutes`` and ``minutes_outside`` count those of which nothing else is left; ``outside`` and
    its share are then of the other samples.
    """

    samples: int
    period_ms: int | None
    period_is_estimated: bool
    expected: int | None
    present: int | None
    coverage: float | None
    gap_count: int | None
    gap_ms: int | None
    gaps: tuple[Gap, ...]
    """The longest, in that order."""
    periods: int
    late: int | None
    period_mean_ms: float | None
    deviation_p50_ms: int | None
    deviation_p95_ms: int | None
    deviation_p99_ms: int | None
    least: float | None
    greatest: float | None
    last: float | None
    outside: int | None
    outside_share: float | None
    changes: int
    flat_ms: int
    flat_before_ms: int
    newest_ms: int | None
    age_ms: int | None
    is_silent: bool
    """Whether the range ends in a gap."""
    minutes: int
    minutes_outside: int


def bin_of(ms: int) -> int:
    """The greatest number of milliseconds that falls into the same bin."""
    if ms < EXACT_BELOW_MS:
        return ms
    shift = ms.bit_length() - 6
    return ((ms >> shift) + 1 << shift) - 1


def percentile(bins: Counter[int], percent: int) -> int | None:
    """Upper end of the bin in which so many percent of what was counted is reached."""
    rank = -(-percent * bins.total() // 100)
    seen = 0
    for upper in sorted(bins):
        seen += bins[upper]
        if seen >= rank:
            return upper
    return None


@dataclass(slots=True)
class _Gaps:
    """Counts gaps and keeps the longest; of equal ones the earliest."""

    count: int = 0
    total_ms: int = 0
    longest: list[Gap] = field(default_factory=list)

    def add(self, start_ms: int, end_ms: int) -> None:
        self.count += 1
        self.total_ms += end_ms - start_ms
        self.longest.append(Gap(start_ms, end_ms))
        if len(self.longest) > 2 * GAPS_KEPT:
            self.longest = self.kept()

    def kept(self) -> list[Gap]:
        """The longest ones, in that order."""
        return nsmallest(
            GAPS_KEPT, self.longest, key=lambda gap: (gap.start_ms - gap.end_ms, gap.start_ms)
        )

    def copy(self) -> _Gaps:
        return _Gaps(self.count, self.total_ms, list(self.longest))


@dataclass(slots=True)
class _Values:
    """Extremes, limits and changes of the values."""

    lo: float | None
    hi: float | None
    least: float | None = None
    greatest: float | None = None
    last: float | None = None
    outside: int = 0
    changes: int = 0
    since_ms: int = 0
    """When the value that is there now was first there."""
    until_ms: int = 0
    flat_before_ms: int = 0

    def spread(self, least: float, greatest: float) -> None:
        self.least = least if self.least is None else min(self.least, least)
        self.greatest = greatest if self.greatest is None else max(self.greatest, greatest)

    def is_outside(self, least: float, greatest: float) -> bool:
        return (self.lo is not None and least < self.lo) or (
            self.hi is not None and greatest > self.hi
        )

    def add(self, times_ms: Sequence[int], values: Sequence[float]) -> None:
        least, greatest = min(values), max(values)
        self.spread(least, greatest)
        if self.lo is not None and least < self.lo:
            self.outside += sum(map(self.lo.__gt__, values))
        if self.hi is not None and greatest > self.hi:
            self.outside += sum(map(self.hi.__lt__, values))
        if self.last is None:
            self.last, self.since_ms, self.until_ms = values[0], times_ms[0], times_ms[0]
        if not least == greatest == self.last:
            changed = list(map(ne, values, (self.last, *values[:-1])))
            ends = list(compress((self.until_ms, *times_ms[:-1]), changed))
            starts = list(compress(times_ms, changed))
            longest = max(map(sub, ends, (self.since_ms, *starts)))
            self.flat_before_ms = max(self.flat_before_ms, longest)
            self.changes += len(starts)
            self.since_ms = starts[-1]
        self.last, self.until_ms = values[-1], times_ms[-1]

    def add_minute(self, start_ms: int, least: float, greatest: float) -> None:
        """A minute whose samples are gone; one that had several values is one change."""
        self.spread(least, greatest)
        is_steady = least == greatest
        if self.last is None:
            self.since_ms = self.until_ms = start_ms
        if not is_steady or self.last not in (None, least):
            self.changes += 1
            self.flat_before_ms = max(self.flat_before_ms, self.until_ms - self.since_ms)
            self.since_ms = start_ms if is_steady else start_ms + MINUTE_MS
        self.last, self.until_ms = greatest, start_ms + MINUTE_MS


class Fold:
    """The figures of one tag over [start_ms, end_ms), from its samples in the order of their times.

    Minutes, where samples are gone, come before the samples. However the samples are cut into
    pieces, the figures are the same.
    """

    def __init__(self, expectation: Expectation, start_ms: int, end_ms: int) -> None:
        self._start_ms, self._end_ms = start_ms, end_ms
        self._heartbeat_ms = expectation.heartbeat_ms
        self._period_ms = expectation.period_ms
        self._is_estimated = self._period_ms is None
        self._limit_ms = self._limit()
        self._values = _Values(expectation.lo, expectation.hi)
        self._samples = self._samples_of_minutes = self._minutes = self._minutes_outside = 0
        self._last_ms: int | None = None
        """Of the samples; None after minutes, whose last sample's time is gone."""
        self._heard_ms = start_ms
        """Until when it is not silent: the newest sample, or its minute's end."""
        self._gaps = _Gaps()
        self._periods: Counter[int] = Counter()
        """Deviations from the period, by bin."""
        self._periods_ms = self._late = 0
        self._pieces, self._piece = 0, -1
        self._early: tuple[array[int], array[float]] = (array("q"), array("d"))
        """Samples that wait until there are enough to estimate the period."""

    @property
    def _is_ready(self) -> bool:
        return not self._is_estimated or self._limit_ms is not None

    def _limit(self) -> int | None:
        """A longer time without a sample is a gap."""
        if self._period_ms is None:
            return None
        return GAP_PERIODS * self._period_ms + (self._heartbeat_ms or 0)

    def add_minutes(self, minutes: Minutes) -> None:
        """Minutes whose samples are gone, by time; before any samples."""
        columns = (minutes.starts_ms, minutes.samples, minutes.least, minutes.greatest)
        for start_ms, samples, least, greatest in zip(*columns, strict=True):
            self._hear(start_ms)
            self._heard_ms = start_ms + MINUTE_MS
            self._samples += samples
            self._samples_of_minutes += samples
            self._minutes += 1
            self._minutes_outside += self._values.is_outside(least, greatest)
            self._values.add_minute(start_ms, least, greatest)
            if self._heartbeat_ms is not None:
                self._mark(start_ms, start_ms + MINUTE_MS - 1)

    def add(self, times_ms: Sequence[int], values: Sequence[float]) -> None:
        """Samples, strictly ascending in time, all later than those before."""
        if not times_ms:
            return
        if self._is_ready:
            self._add(times_ms, values)
            return
        self._early[0].extend(times_ms)
        self._early[1].extend(values)
        if len(self._early[0]) > ESTIMATE_PERIODS:
            self._estimate()

    def figures(self) -> Figures:
        """All figures, as of now."""
        if not self._is_ready and self._early[0]:
            self._estimate()
        gaps = self._gaps.copy()
        is_silent = self._limit_ms is not None and (self._end_ms - self._heard_ms > self._limit_ms)
        if is_silent:
            gaps.add(self._heard_ms, self._end_ms)
        has_gaps = self._limit_ms is not None
        periods = self._periods.total()
        has_periods = self._limit_ms is not None and self._heartbeat_ms is None
        values = self._values
        newest_ms = self._heard_ms if self._samples else None
        expected, present = self._expected()
        sampled = self._samples - self._samples_of_minutes
        has_limits = (values.lo, values.hi) != (None, None)
        return Figures(
            samples=self._samples,
            period_ms=self._period_ms,
            period_is_estimated=self._is_estimated and self._period_ms is not None,
            expected=expected,
            present=present,
            coverage=min(present / expected, 1.0) if expected and present is not None else None,
            gap_count=gaps.count if has_gaps else None,
            gap_ms=gaps.total_ms if has_gaps else None,
            gaps=tuple(gaps.kept()),
            periods=periods,
            late=self._late if has_periods else None,
            period_mean_ms=self._periods_ms / periods if periods else None,
            deviation_p50_ms=percentile(self._periods, 50),
            deviation_p95_ms=percentile(self._periods, 95),
            deviation_p99_ms=percentile(self._periods, 99),
            least=values.least,
            greatest=values.greatest,
            last=values.last,
            outside=values.outside if has_limits else None,
            outside_share=values.outside / sampled if has_limits and sampled else None,
            changes=values.changes,
            flat_ms=values.until_ms - values.since_ms,
            flat_before_ms=values.flat_before_ms,
            newest_ms=newest_ms,
            age_ms=None if newest_ms is None else self._end_ms - newest_ms,
            is_silent=is_silent,
            minutes=self._minutes,
            minutes_outside=self._minutes_outside,
        )

    def _expected(self) -> tuple[int | None, int | None]:
        if self._period_ms is None:
            return None, None
        span_ms = self._end_ms - self._start_ms
        if self._heartbeat_ms is None:
            return span_ms // self._period_ms, self._samples
        assert self._limit_ms is not None
        return span_ms // self._limit_ms, self._pieces

    def _estimate(self) -> None:
        times_ms, values = self._early
        self._early = array("q"), array("d")
        periods = list(map(sub, times_ms[1 : ESTIMATE_PERIODS + 1], times_ms))
        if len(periods) >= ESTIMATE_PERIODS_MIN:
            self._period_ms = max(median_low(periods), 1)
            self._limit_ms = self._limit()
        self._add(times_ms, values)

    def _add(self, times_ms: Sequence[int], values: Sequence[float]) -> None:
        self._samples += len(times_ms)
        self._hear(times_ms[0])
        self._count_periods(times_ms)
        if self._heartbeat_ms is not None:
            for time_ms in times_ms:
                self._mark(time_ms, time_ms)
        self._values.add(times_ms, values)
        self._last_ms = self._heard_ms = times_ms[-1]

    def _hear(self, time_ms: int) -> None:
        """The silence before the first sample of a piece ends."""
        if self._limit_ms is not None and time_ms - self._heard_ms > self._limit_ms:
            self._gaps.add(self._heard_ms, time_ms)

    def _count_periods(self, times_ms: Sequence[int]) -> None:
        if (limit_ms := self._limit_ms) is None or (period_ms := self._period_ms) is None:
            return
        inside = list(map(sub, times_ms[1:], times_ms))
        counts = Counter(inside)
        if counts and max(counts) > limit_ms:
            for place, span_ms in enumerate(inside):
                if span_ms > limit_ms:
                    self._gaps.add(times_ms[place], times_ms[place + 1])
        if self._heartbeat_ms is not None:
            return
        if self._last_ms is not None:
            counts[times_ms[0] - self._last_ms] += 1
        for span_ms, count in counts.items():
            if span_ms <= limit_ms:
                self._periods[bin_of(abs(span_ms - period_ms))] += count
                self._periods_ms += span_ms * count
                self._late += count * (2 * span_ms > 3 * period_ms)

    def _mark(self, first_ms: int, last_ms: int) -> None:
        """Count the whole pieces of time that have a sample in this span and had none before."""
        assert self._limit_ms is not None
        whole = (self._end_ms - self._start_ms) // self._limit_ms
        first = max((first_ms - self._start_ms) // self._limit_ms, self._piece + 1)
        last = min((last_ms - self._start_ms) // self._limit_ms, whole - 1)
        if last >= first:
            self._pieces += last - first + 1
            self._piece = last
