"""Values of one device's tags as CSV, for a spreadsheet: in pieces, so that no range is too long.

The same resolution rule as a chart's, for a file instead of a screen: samples where the range is at
most a day and the source still has them, else minutes, else hours. Minutes and hours end before the
newest ones, which are not complete yet.

UTF-8 with a byte order mark, which is how Excel tells it; times are ISO 8601, UTC, with
milliseconds. A name that a spreadsheet would take for a formula gets an apostrophe in front. `line`
and `unit` are those of the tag's newest sample.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from heapq import merge
from typing import Any, Final, Literal

from dashboard.chart import Question
from dashboard.data.base import Buckets, History, Kept, Samples
from edge_agent.clock import DAY_MS, HOUR_MS, MINUTE_MS
from edge_agent.model import Series

Kind = Literal["samples", "minutes", "hours"]

SAMPLES_RANGE_MS_MAX: Final = DAY_MS
"""A tag that is read five times a second has 432,000 samples a day; a sheet has a million rows."""
MINUTES_RANGE_MS_MAX: Final = 90 * DAY_MS
"""130,000 rows a tag; longer ranges are answered by hours."""
PIECE_MS: Final[Mapping[Kind, int]] = {
    "samples": 5 * MINUTE_MS,
    "minutes": DAY_MS,
    "hours": 60 * DAY_MS,
}
"""What is read at a time: at most 30,000 rows of 20 tags, some megabytes in memory."""
ROWS_PER_PIECE: Final = 2_000
"""What is rendered at a time, in about 4 ms; then others have their turn."""

COLUMNS: Final[Mapping[Kind, tuple[str, ...]]] = {
    "samples": ("ts", "site", "line", "device", "tag", "value", "unit"),
    "minutes": ("bucket", "site", "line", "device", "tag", "avg", "min", "max", "unit"),
    "hours": ("bucket", "site", "line", "device", "tag", "avg", "min", "max", "unit"),
}
_BYTE_ORDER_MARK: Final = "\ufeff"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FORMULA: Final = re.compile(r"\s*[=+\-@]")
_NEEDS_QUOTES: Final = re.compile(r'[",\r\n]|^\s|\s$')


async def export(
    history: History,
    site: str,
    device: str,
    tags: Sequence[str],
    from_ms: int,
    to_ms: int,
    now_ms: int,
) -> AsyncIterator[bytes]:
    """The file in pieces, rows by time and then by tag.

    Raises, before the first piece, ``ConfigError`` for what can't be asked and ``TransientError``
    while the source is away; the pieces raise the latter, too.
    """
    question = Question(site, device, tuple(dict.fromkeys(tags)), from_ms, to_ms, now_ms)
    kept, series = await asyncio.gather(history.kept(), history.series(*question.about))
    return _pieces(history, question, export_kind(question, kept), series)


def export_kind(question: Question, kept: Kept) -> Kind:
    """The finest that the range's length allows and the source still has."""
    if question.range_ms <= SAMPLES_RANGE_MS_MAX and question.from_ms >= kept.samples_from_ms:
        return "samples"
    if question.range_ms <= MINUTES_RANGE_MS_MAX and question.from_ms >= kept.minutes_from_ms:
        return "minutes"
    return "hours"


async def _pieces(
    history: History, question: Question, kind: Kind, series: Mapping[str, Series]
) -> AsyncIterator[bytes]:
    yield (_BYTE_ORDER_MARK + ",".join(COLUMNS[kind]) + "\r\n").encode()
    around = {tag: _around(question, tag, series.get(tag)) for tag in sorted(question.tags)}
    for start_ms, end_ms in _portions(question, kind):
        found = await _read(history, question, kind, start_ms, end_ms)
        columns = (_rows(tag, around[tag], found[tag]) for tag in around if tag in found)
        lines: list[str] = []
        for line in _rendered(merge(*columns, key=_time_and_tag)):
            lines.append(line)
            if len(lines) == ROWS_PER_PIECE:
                yield "".join(lines).encode()
                lines.clear()
                await asyncio.sleep(0)
        if lines:
            yield "".join(lines).encode()


def _portions(question: Question, kind: Kind) -> Iterator[tuple[int, int]]:
    """The range in stretches that are read at a time, without what is not complete yet."""
    start_ms, end_ms = question.from_ms, question.to_ms
    if kind != "samples":
        length_ms = MINUTE_MS if kind == "minutes" else HOUR_MS
        end_ms = min(end_ms, question.live_from_ms // length_ms * length_ms)
    while start_ms < end_ms:
        next_ms = min((start_ms // PIECE_MS[kind] + 1) * PIECE_MS[kind], end_ms)
        yield start_ms, next_ms
        start_ms = next_ms


async def _read(
    history: History, question: Question, kind: Kind, start_ms: int, end_ms: int
) -> Mapping[str, Samples] | Mapping[str, Buckets]:
    if kind == "samples":
        return await history.samples(*question.about, start_ms, end_ms)
    step_ms = MINUTE_MS if kind == "minutes" else HOUR_MS
    return await history.buckets(*question.about, start_ms, end_ms, step_ms)


def _around(question: Question, tag: str, series: Series | None) -> tuple[str, str]:
    """What stands before and behind a tag's numbers."""
    line, unit = (series.line, series.unit) if series is not None else ("", "")
    names = (question.site, line, question.device, tag)
    return ",".join(map(cell, names)), cell(unit)


def cell(text: str) -> str:
    """A name as a cell of a CSV file, which no spreadsheet takes for a formula."""
    if _FORMULA.match(text):
        text = f"'{text}"
    return '"' + text.replace('"', '""') + '"' if _NEEDS_QUOTES.search(text) else text


def _rows(
    tag: str, around: tuple[str, str], found: Samples | Buckets
) -> Iterator[tuple[int, str, tuple[str, str], tuple[float, ...]]]:
    match found:
        case Samples(times_ms, values):
            columns = [values]
        case Buckets(times_ms, averages, lowest, highest):
            columns = [averages, lowest, highest]
    for ts_ms, *numbers in zip(times_ms, *columns, strict=True):
        yield ts_ms, tag, around, (*numbers,)


def _time_and_tag(row: tuple[Any, ...]) -> tuple[int, str]:
    return row[0], row[1]


def _rendered(
    rows: Iterator[tuple[int, str, tuple[str, str], tuple[float, ...]]],
) -> Iterator[str]:
    last_ms, time = -1, ""
    for ts_ms, _, (before, behind), numbers in rows:
        if ts_ms != last_ms:
            last_ms, time = ts_ms, _iso(ts_ms)
        yield f"{time},{before},{','.join(map(repr, numbers))},{behind}\r\n"


def _iso(ts_ms: int) -> str:
    stamp = _EPOCH + timedelta(milliseconds=ts_ms)
    return stamp.strftime("%Y-%m-%dT%H:%M:%S.") + f"{ts_ms % 1000:03}Z"
