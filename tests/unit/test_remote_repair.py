"""The pure parts of backfill, reconcile and resync: hours, portions, sums, throttle."""

from __future__ import annotations

import io
import re
import struct
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from edge_agent.errors import ConfigError
from remote.comparison import Difference, Rows
from remote.copying import RowCounter, Throttle, rows_of
from remote.hours import DAY, HOUR, MINUTE, Span, ceiling, floor, joined, parse_time, shown, split
from remote.portions import LENGTHS, Job, Portions
from remote.reconcile import Outcome, print_outcome
from remote.sums import Sum, differing

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
moments = st.integers(0, 4_000_000_000_000_000).map(
    lambda us: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)
)


# --- hours -------------------------------------------------------------------------------------


@given(moments, st.sampled_from([MINUTE, HOUR, DAY]))
def test_floor_and_ceiling_enclose_a_moment(moment: datetime, unit: timedelta) -> None:
    """Both are whole units, at most one apart, and those of a whole unit are itself."""
    low, high = floor(moment, unit), ceiling(moment, unit)
    assert low <= moment <= high
    assert high - low in (timedelta(0), unit)
    assert floor(low, unit) == low == ceiling(low, unit)


@given(moments, st.timedeltas(timedelta(0), timedelta(days=3)))
def test_the_hours_of_a_span_are_the_span(first: datetime, length: timedelta) -> None:
    """In order, without gap or overlap, each within one hour."""
    hours = list(split(Span(first, first + length), HOUR))
    assert joined(hours) == ([Span(first, first + length)] if length else [])
    assert all(floor(hour.first, HOUR) == ceiling(hour.last, HOUR) - HOUR for hour in hours)


def test_spans_that_touch_are_joined() -> None:
    """Overlapping ones too, in whatever order they come; others stay apart."""
    spans = [Span(NOON + n * MINUTE, NOON + (n + 2) * MINUTE) for n in (9, 0, 2, 3)]
    assert joined(spans) == [
        Span(NOON, NOON + 5 * MINUTE),
        Span(NOON + 9 * MINUTE, NOON + 11 * MINUTE),
    ]


def test_times_that_people_write() -> None:
    """UTC unless they say otherwise."""
    assert parse_time("2026-11-23T12:00", "--from") == NOON
    assert parse_time("2026-11-23T21:00+09:00", "--from") == NOON
    assert parse_time("2026-11-23", "--from") == NOON - 12 * HOUR
    assert shown(NOON.astimezone(timezone(9 * HOUR))) == "2026-11-23 12:00 UTC"
    with pytest.raises(ConfigError, match="--to 'noon': not a time; allowed"):
        parse_time("noon", "--to")


# --- portions ----------------------------------------------------------------------------------


def job(days: tuple[date, ...], first: datetime, last: datetime) -> Job:
    """A job that begins at the beginning."""
    return Job("edge", first, last, first, first, days)


@given(st.lists(st.integers(0, 5_000_000), min_size=1, max_size=200))
def test_portions_cover_the_days_and_nothing_twice(sizes: list[int]) -> None:
    """However many rows they turn out to have; each lies within one hour."""
    first, last = NOON + 7 * MINUTE, NOON + 2 * DAY + timedelta(minutes=3, seconds=5)
    days = (first.date(), last.date())  # the day between has no rows
    portions, seen, sizes_left = Portions(job(days, first, last)), [], iter(sizes * 4000)
    while (portion := portions.next()) is not None:
        seen.append(portion)
        assert floor(portion.first, HOUR) == ceiling(portion.last, HOUR) - HOUR
        portions.learn(portion, next(sizes_left))
    midnight = floor(first, DAY) + DAY
    assert joined(seen) == [Span(first, midnight), Span(midnight + DAY, last)]
    assert sum((each.last - each.first for each in seen), timedelta()) == sum(
        (each.last - each.first for each in joined(seen)), timedelta()
    )


def test_portions_follow_the_number_of_rows() -> None:
    """They grow to an hour while that many rows are wanted, and shrink again."""
    portions = Portions(job((NOON.date(),), NOON, NOON + 10 * HOUR), rows_wanted=1_000)
    lengths = []
    for rows_per_minute in (1, 1, 1, 1, 1, 1000, 1000, 1000, 1000):
        portion = portions.next()
        assert portion is not None
        minutes = (portion.last - portion.first) / MINUTE
        lengths.append(minutes)
        portions.learn(portion, int(rows_per_minute * minutes))
    assert lengths[0] == 1
    assert max(lengths) == LENGTHS[-1] / MINUTE
    assert lengths[-3:] == [1, 1, 1]


# --- copying -----------------------------------------------------------------------------------


def binary_copy(rows: list[list[bytes | None]]) -> bytes:
    """Rows as COPY ... (FORMAT binary) has them."""
    parts = [b"PGCOPY\n\xff\r\n\0", struct.pack("!ii", 0, 0)]
    for row in rows:
        parts.append(struct.pack("!h", len(row)))
        for value in row:
            parts.append(struct.pack("!i", -1 if value is None else len(value)))
            parts.append(value or b"")
    return b"".join([*parts, struct.pack("!h", -1)])


fields = st.one_of(st.none(), st.binary(max_size=30))


@given(
    st.lists(st.lists(fields, min_size=1, max_size=7), max_size=20),
    st.lists(st.integers(1, 40), min_size=1, max_size=300),
)
def test_rows_are_counted_however_they_are_cut(
    rows: list[list[bytes | None]], cuts: list[int]
) -> None:
    """Chunks may end anywhere, within a length as well."""
    stream, counter, counted = binary_copy(rows), RowCounter(), 0
    for cut in [*cuts, len(stream)]:
        counted += counter.feed(stream[:cut])
        stream = stream[cut:]
    assert counted == len(rows)


def test_the_throttle_lets_so_many_pass_and_no_more() -> None:
    """10,000 rows at 1,000 a second take ten seconds; a pause is not made up for."""
    now_s = 100.0
    throttle = Throttle(1_000, monotonic=lambda: now_s)
    for _ in range(100):
        now_s += throttle.wait_s(100)
    assert now_s == pytest.approx(110, abs=0.3)
    now_s += 60
    waited_s = sum(throttle.wait_s(100) for _ in range(5))
    assert waited_s > 0
    assert throttle.wait_s(1_000) >= 1


@pytest.mark.parametrize(("status", "rows"), [("COPY 5", 5), ("INSERT 0 12", 12), ("UPDATE 0", 0)])
def test_rows_of_a_command_tag(status: str, rows: int) -> None:
    """The number stands at its end."""
    assert rows_of(status) == rows


# --- comparing ---------------------------------------------------------------------------------


def test_sums_differ_by_count_or_checksum_or_absence() -> None:
    """Equal ones are not named; the others in order."""
    edge = {("A", "1"): Sum(1, 7), ("A", "2"): Sum(2, 7), ("A", "3"): Sum(3, 7)}
    remote = {("A", "1"): Sum(1, 7), ("A", "2"): Sum(2, 8), ("B", "1"): Sum(3, 7)}
    assert differing(edge, remote) == [("A", "2"), ("A", "3"), ("B", "1")]
    assert differing(edge, dict(edge)) == []


def test_rows_add_up() -> None:
    """Kind by kind; none is no difference."""
    assert Rows(1, 2, 3, 4) + Rows(10, 20, 30, 40) == Rows(11, 22, 33, 44)
    assert not Rows()
    assert Rows(extra=1)


def printed(*, terminal: bool) -> str:
    """What is said of one difference, of a device with brackets in its name."""
    difference = Difference(NOON, "A1", "[red]", 3600, 3599, Rows(missing=1))
    outcome = Outcome(Span(NOON, NOON + HOUR), 1, 3600, (difference,), (), repaired=True)
    console = Console(
        file=io.StringIO(), width=120, soft_wrap=True, highlight=False, color_system=None,
        force_terminal=terminal,
    )  # fmt: skip
    print_outcome(outcome, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_difference_is_shown_with_its_whole_name() -> None:
    """Brackets in the name of a device are no markup of the table."""
    row = r"A1 +│ \[red\] +│ +3,600 │ +3,599 │ 1 missing, inserted"
    assert re.search(row, printed(terminal=True))


def test_a_difference_is_a_line_in_a_journal() -> None:
    """Nobody draws tables for a pipe, a file or journald."""
    first, last = printed(terminal=False).splitlines()
    assert first == (
        "2026-11-23 12:00 UTC A1/[red]: 3,600 rows at the edge, 3,599 at the remote:"
        " 1 missing, inserted"
    )
    assert last.endswith(": 1 missing, inserted")
