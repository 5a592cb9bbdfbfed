"""Hours and other pieces of time, all UTC, all pure: [first, last) with the last one left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from edge_agent.errors import ConfigError

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A piece of time with time zone UTC, from ``first`` up to but without ``last``."""

    first: datetime
    last: datetime

    def __str__(self) -> str:
        return f"{shown(self.first)} to {shown(self.last)}"


def shown(moment: datetime) -> str:
    """`2026-11-23 10:00 UTC`; seconds only where there are some."""
    moment = moment.astimezone(UTC)
    form = "%Y-%m-%d %H:%M" if not moment.second else "%Y-%m-%d %H:%M:%S"
    return f"{moment.strftime(form)} UTC"


def parse_time(text: str, what: str) -> datetime:
    """A time that a person wrote; UTC where it names no offset. Raises ``ConfigError``."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"{what} {text!r}: not a time; allowed: a day or a time in ISO 8601, UTC unless it"
            " says otherwise",
            hint=f"{what} 2026-11-23, {what} 2026-11-23T10:00 or {what} 2026-11-23T19:00+09:00",
        ) from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def floor(moment: datetime, unit: timedelta) -> datetime:
    """The beginning of the minute, hour or day."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return moment - (moment - epoch) % unit


def ceiling(moment: datetime, unit: timedelta) -> datetime:
    """The end of the minute, hour or day; ``moment`` itself if it is one."""
    start = floor(moment, unit)
    return start if start == moment else start + unit


def split(span: Span, unit: timedelta) -> Iterator[Span]:
    """The hours (days, ...) of a span, in order; the first and last as far as they belong to it."""
    start = span.first
    while start < span.last:
        end = min(floor(start, unit) + unit, span.last)
        yield Span(start, end)
        start = end


def days_since_1970(span: Span) -> list[int]:
    """The UTC days that a span touches, as plc_make_partitions wants them."""
    return [day_number(day.first.date()) for day in split(span, DAY)]


def day_number(day: date) -> int:
    """Days since 1970-01-01."""
    return (day - date(1970, 1, 1)).days


def joined(spans: Iterable[Span], gap: timedelta = timedelta(0)) -> list[Span]:
    """Spans that touch or overlap, or lie at most ``gap`` apart, made one; in order."""
    result: list[Span] = []
    for span in sorted(spans):
        if result and span.first <= result[-1].last + gap:
            result[-1] = Span(result[-1].first, max(result[-1].last, span.last))
        else:
            result.append(span)
    return result
