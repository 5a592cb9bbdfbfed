"""How history is cut into pieces that are copied in one transaction each. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from remote.hours import DAY, Span, floor

ROWS_PER_PORTION = 1_000_000
"""What a kill costs at most, and about 100 MB in the remote's staging table."""
LENGTHS = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 10, 30, 60))
"""Portions grow and shrink by these steps; each divides the next, so that hours stay whole."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a backfill has to do: ``days`` have rows; ``copy_from`` is where it begins.

    ``first`` is its name in plc_backfill; what lies between ``refresh_from`` and ``copy_from`` was
    copied by a run that was cut short.
    """

    name: str
    first: datetime
    last: datetime
    copy_from: datetime
    refresh_from: datetime
    days: tuple[date, ...]

    @property
    def resumed(self) -> bool:
        """Whether it goes on where an earlier one was cut short."""
        return self.copy_from > self.first


@dataclass(slots=True)
class Copied:
    """Rows read at the edge, and those of them that the remote did not have."""

    rows: int = 0
    new: int = 0


class Portions:
    """Cuts the days of a job into portions, by what the last one held."""

    def __init__(self, job: Job, rows_wanted: int = ROWS_PER_PORTION) -> None:
        self._last = job.last
        self._days = [day for day in job.days if midnight(day) + DAY > job.copy_from]
        self._at = job.copy_from
        self._rows_wanted = rows_wanted
        self._length = 0

    def next(self) -> Span | None:
        """The next portion: within one day, and within one hour; None at the end."""
        while self._days and self._at >= midnight(self._days[0]) + DAY:
            del self._days[0]
        if not self._days:
            return None
        first = max(self._at, midnight(self._days[0]))
        length = LENGTHS[self._length]
        self._at = min(floor(first, length) + length, self._last)
        return Span(first, self._at) if first < self._at else None

    def learn(self, span: Span, rows: int) -> None:
        """Be told how many rows a portion had."""
        seconds = (span.last - span.first).total_seconds()
        fits = [
            number
            for number, length in enumerate(LENGTHS)
            if rows * length.total_seconds() <= self._rows_wanted * seconds
        ]
        # One step up at a time: what comes next may be denser.
        self._length = min(self._length + 1, max(fits, default=0))


def midnight(day: date) -> datetime:
    """When a UTC day begins."""
    return datetime.combine(day, time(), UTC)
