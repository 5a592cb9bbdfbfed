"""The interface of a history: what the pages ask, whoever answers.

Three sources implement it: the embedded store (`store.py`), and PostgreSQL or TimescaleDB at the
edge or at the remote (`postgres.py`). They only read. Times are milliseconds since 1970 UTC;
ranges include their start and exclude their end.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from edge_agent.clock import HOUR_MS
from edge_agent.model import Series, TagKey


def is_by_hours(step_ms: int) -> bool:
    """Whether buckets of this length are made of hours instead of minutes."""
    return step_ms % HOUR_MS == 0


@dataclass(frozen=True, slots=True)
class Minutes:
    """One tag's one-minute averages, by time: start of the minute (int64), average (float64)."""

    times_ms: array[int]
    averages: array[float]


@dataclass(frozen=True, slots=True)
class Buckets:
    """One tag's aggregates in buckets of equal length, as columns by time; empty ones are left out.

    ``parts`` says of each bucket how many of its minutes (hours, where hours were read) have
    samples.
    """

    times_ms: array[int]
    averages: array[float]
    lowest: array[float]
    highest: array[float]
    parts: array[int]


@dataclass(frozen=True, slots=True)
class Samples:
    """One tag's samples, as columns by time."""

    times_ms: array[int]
    values: array[float]


class Row(NamedTuple):
    """One sample for the table of newest rows."""

    ts_ms: int
    tag: str
    value: float


class Newest(NamedTuple):
    """The newest sample of a tag."""

    series: Series
    ts_ms: int
    value: float


class Check(NamedTuple):
    """One figure that a database tells of itself; the unit of ``value`` ends the ``check``."""

    check: str
    object: str
    value: float
    problem: str | None


class Kept(NamedTuple):
    """Since when a source has samples, and minutes: what is older has expired, or may any moment.

    0 where nothing has expired yet.
    """

    samples_from_ms: int
    minutes_from_ms: int


class History(Protocol):
    """A source of history. Every call raises ``TransientError`` while the source is away.

    Calls may overlap. None takes longer than its own timeout. A tag without any data in the range
    is left out of the answer, as is one that the source does not know. Times ascend.
    """

    name: str
    """`store`, `edge` or `remote`."""

    async def close(self) -> None:
        """Give back connections and threads; never raises."""

    async def minutes(
        self, start_ms: int, end_ms: int, tags: Collection[TagKey] | None = None
    ) -> Mapping[TagKey, Minutes]:
        """One-minute averages of these tags, or of all: what the bars of the cards are made of.

        The newest minutes may be missing, as far as the source has not summarised them yet."""

    async def newest(self, since_ms: int) -> list[Newest]:
        """The newest sample, not older than ``since_ms``, of every tag that has one."""

    async def buckets(
        self, site: str, device: str, tags: Sequence[str], start_ms: int, end_ms: int, step_ms: int
    ) -> Mapping[str, Buckets]:
        """Aggregates of one device's tags; ``step_ms`` is whole minutes, buckets begin at
        multiples of it. If ``step_ms`` is whole hours, hours are read instead of minutes. An
        average is weighted by samples where the source knows them; the newest two minutes may be
        missing or incomplete."""

    async def samples(
        self, site: str, device: str, tags: Sequence[str], start_ms: int, end_ms: int
    ) -> Mapping[str, Samples]:
        """Every sample of one device's tags in the range, the newest ones too."""

    async def counts(
        self, site: str, device: str, tags: Sequence[str], start_ms: int, end_ms: int
    ) -> Mapping[str, int]:
        """How many samples the minutes of a range have: what `samples` would bring, cheaply. The
        newest two minutes may be missing."""

    async def kept(self) -> Kept:
        """Since when there are samples and minutes."""

    async def seen(
        self, site: str, device: str, tags: Sequence[str], start_ms: int, end_ms: int
    ) -> set[str]:
        """Which of these tags have samples in any of the hours that begin in the range."""

    async def series(self, site: str, device: str, tags: Sequence[str]) -> Mapping[str, Series]:
        """Line and unit of one device's tags, as the newest sample of each has them."""

    async def rows(self, site: str, device: str, tags: Sequence[str], limit: int) -> list[Row]:
        """The newest samples of these tags together, newest first."""

    async def health(self) -> list[Check]:
        """What the source says of itself: sizes, jobs, slots."""
