"""Finds rows of some series: in the tables by one seek per bucket, in the tail by looking through.
Minutes come out of packed hours where there are such, out of their own rows elsewhere.

Pure reading, inside the caller's transaction. Times are milliseconds since 1970 UTC; ranges include
their start and exclude their end. Damaged blobs are passed over: the writer reports them.
"""

from __future__ import annotations

import json
import sqlite3
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import compress, groupby, pairwise
from operator import itemgetter, mul
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypeVar

from edge_agent.clock import HOUR_MS, MINUTE_MS
from edge_agent.store.layout import (
    MINUTES_PER_HOUR,
    SERIES_ID_BITS,
    SERIES_ID_MAX,
    DamagedBlob,
    Minutes,
    TailBatch,
    bucket_of,
    hour_slot_of,
    minutes_of,
    no_minutes,
    series_id_of,
    slot_of,
    unpack_minutes,
    unpack_slice,
    unpack_tail,
)

GAP_MAX: Final = 8
"""Series ids that are passed over rather than sought anew: a seek costs as much as so many rows."""
WEIGHT_UNIT: Final = 2.0**-40
"""Weights are applied first, and as small numbers: the products of huge values and counts would
overflow."""
EVER_MS: Final = 1 << 60
"""Later than any sample."""

Table = Literal["minute", "hour"]
BUCKET_MS: Final[Mapping[Table, int]] = {"minute": MINUTE_MS, "hour": HOUR_MS}
Columns: TypeAlias = "tuple[array[int], array[float]]"
"""Times (int64) and values (float64) in step with each other, by time."""
Row: TypeAlias = "tuple[Any, ...]"
"""Slot, avg, min, max, last, samples."""
Label = TypeVar("Label", bound=Hashable)

_TABLES: Final = ("raw", "minute", "hour", "packed")
_RUN: Final = """
run(low, high) AS MATERIALIZED (
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(:runs)
)
"""
_WANTED: Final = f"""
WITH RECURSIVE
bucket(slot) AS (
    SELECT :first << {SERIES_ID_BITS} WHERE :first <= :last
    UNION ALL
    SELECT slot + {1 << SERIES_ID_BITS} FROM bucket WHERE slot < :last << {SERIES_ID_BITS}
),
{_RUN}
"""  # noqa: S608  (our own tables, here and below)
_FOUND: Final = {
    table: f"FROM bucket CROSS JOIN run CROSS JOIN {table} AS found"  # noqa: S608
    " ON found.slot BETWEEN bucket.slot + low AND bucket.slot + high"
    f" AND found.slot & {SERIES_ID_MAX} IN (SELECT value FROM json_each(:ids))"
    for table in _TABLES
}
"""One seek per bucket and run of neighbouring series ids. SQLite would otherwise read every other
series' rows of the range."""
_READ_SLICES: Final = f"{_WANTED} SELECT found.slot, data {_FOUND['raw']}"
_READ_SLICES_BACKWARDS: Final = f"""
WITH RECURSIVE
bucket(slot) AS (
    SELECT :last << {SERIES_ID_BITS} WHERE :first <= :last
    UNION ALL
    SELECT slot - {1 << SERIES_ID_BITS} FROM bucket WHERE slot > :first << {SERIES_ID_BITS}
),
{_RUN}
SELECT found.slot, data {_FOUND["raw"]}
"""  # noqa: S608
_READ_ROWS: Final = {
    table: f"{_WANTED} SELECT found.slot, avg, min, max, last, samples {_FOUND[table]}"
    for table in BUCKET_MS
}
_READ_PACKED: Final = f"{_WANTED} SELECT found.slot, data {_FOUND['packed']}"
_READ_HOUR_SLOTS: Final = f"{_WANTED} SELECT found.slot {_FOUND['hour']}"
_HAS_PACKED: Final = "SELECT count(*) FROM sqlite_master WHERE name = 'packed'"
_READ_HOUR_STEPS: Final = f"""{_WANTED}
SELECT found.slot & {SERIES_ID_MAX} AS series_id,
       (bucket.slot >> {SERIES_ID_BITS}) / :buckets AS step,
       sum(avg * (samples * :unit)) / sum(samples * :unit), min(min), max(max),
       sum(samples), count(*)
{_FOUND["hour"]}
GROUP BY series_id, step ORDER BY series_id, step
"""
_READ_ENDS: Final = {
    table: f"SELECT (SELECT min(slot) FROM {table}), (SELECT max(slot) FROM {table})"  # noqa: S608
    for table in _TABLES
}
_READ_TAIL: Final = "SELECT data FROM tail WHERE last_ts_ms >= ? AND first_ts_ms < ? ORDER BY id"


class Steps(NamedTuple):
    """Minutes or hours of a tag, so many to a step, as columns by time; empty ones are left out.

    ``averages`` are weighted by samples; ``parts`` counts the minutes or hours that have samples.
    """

    starts_ms: array[int]
    averages: array[float]
    lowest: array[float]
    highest: array[float]
    samples: array[int]
    parts: array[int]


def first_slots(db: sqlite3.Connection) -> tuple[int | None, int | None, int | None]:
    """Where raw, minute and hour begin; None for an empty table."""
    raw, minute, hour = (
        db.execute(_READ_ENDS[table]).fetchone()[0] for table in ("raw", *BUCKET_MS)
    )
    return raw, minute, hour


def buckets_inside(start_ms: int, end_ms: int, bucket_ms: int) -> tuple[int, int]:
    """Numbers of the first bucket that starts in a range, and of the first behind it."""
    return -(-start_ms // bucket_ms), -(-end_ms // bucket_ms)


def find_minute_rows(
    db: sqlite3.Connection, ids: Iterable[int], start_ms: int, end_ms: int
) -> Iterable[Row]:
    """Slot, avg, min, max, last and samples of the minute rows that start in the range, by slot."""
    return _find_rows(db, "minute", ids, start_ms, end_ms)


def find_hour_rows(
    db: sqlite3.Connection, ids: Iterable[int], start_ms: int, end_ms: int
) -> Iterable[Row]:
    """The same of the hour rows."""
    return _find_rows(db, "hour", ids, start_ms, end_ms)


def find_minutes(
    db: sqlite3.Connection, ids: Collection[int], start_ms: int, end_ms: int
) -> dict[int, Minutes]:
    """Minutes that start in the range, of each series that has any."""
    first, end = buckets_inside(start_ms, end_ms, MINUTE_MS)
    hours = first // MINUTES_PER_HOUR, -(-end // MINUTES_PER_HOUR)
    parts = _packed_minutes(db, ids, *hours)
    found_ids = Counter(map(bucket_of, parts))
    whole = [hour for hour, count in found_ids.items() if count == len(ids)]
    unpacked: dict[int, list[int]] = defaultdict(list)
    for start, stop in pairwise([hours[0] - 1, *whole, hours[1]]):
        if start + 1 == stop:
            continue
        # Where no hour is, no minute is either: what a series never had is not sought.
        for (slot,) in db.execute(_READ_HOUR_SLOTS, _wanted(db, "hour", ids, start + 1, stop)):
            if slot not in parts:
                unpacked[bucket_of(slot)].append(series_id_of(slot))
    for start, stop, some_ids in _spans(unpacked):
        rows_of: dict[int, list[Row]] = defaultdict(list)
        for row in find_minute_rows(db, some_ids, start * HOUR_MS, stop * HOUR_MS):
            rows_of[hour_slot_of(row[0])].append(row)
        parts |= {slot: minutes_of(rows) for slot, rows in rows_of.items()}
    found: dict[int, Minutes] = defaultdict(no_minutes)
    for slot in sorted(parts):
        columns: Iterable[array[Any]] = found[series_id_of(slot)]
        part: Iterable[array[Any]] = parts.pop(slot)  # weeks of it: never twice in memory
        for column, more in zip(columns, part, strict=True):
            column.extend(more)
    for series_id, minutes in list(found.items()):
        found[series_id] = _between(minutes, first, end)
    return {series_id: minutes for series_id, minutes in found.items() if minutes.numbers}


def find_minute_steps(
    db: sqlite3.Connection, ids: Collection[int], start_ms: int, end_ms: int, step_ms: int
) -> Iterator[tuple[int, Steps]]:
    """Series id and steps of each series that has minutes which start in the range."""
    found = find_minutes(db, ids, start_ms, end_ms)
    for series_id in sorted(found):
        yield series_id, _in_steps(found.pop(series_id), step_ms // MINUTE_MS)


def find_hour_steps(
    db: sqlite3.Connection, ids: Collection[int], start_ms: int, end_ms: int, step_ms: int
) -> Iterator[tuple[int, Steps]]:
    """The same of its hours."""
    wanted = _wanted(db, "hour", ids, *buckets_inside(start_ms, end_ms, HOUR_MS))
    wanted |= {"buckets": step_ms // HOUR_MS, "unit": WEIGHT_UNIT}
    for series_id, rows in groupby(db.execute(_READ_HOUR_STEPS, wanted), itemgetter(0)):
        yield series_id, _steps(rows, step_ms)


def find_samples(
    db: sqlite3.Connection, ids: Mapping[int, Label], start_ms: int, end_ms: int
) -> dict[Label, dict[int, float]]:
    """The samples in a range, value by time, of the series with these ids, under their labels."""
    found: dict[Label, dict[int, float]] = {label: {} for label in ids.values()}
    wanted = _wanted(db, "raw", ids, start_ms // MINUTE_MS, -(-end_ms // MINUTE_MS))
    for slot, blob in db.execute(_READ_SLICES, wanted):
        times, values = _unpacked(slot, blob)
        inside = slice(bisect_left(times, start_ms), bisect_left(times, end_ms))
        found[ids[series_id_of(slot)]].update(zip(times[inside], values[inside], strict=True))
    for series_id, ts_ms, value in find_in_tail(db, ids, start_ms, end_ms):
        found[ids[series_id]][ts_ms] = value
    return found


def find_slices_backwards(
    db: sqlite3.Connection, ids: Iterable[int]
) -> Iterator[tuple[int, list[tuple[int, int, float]]]]:
    """Number of each minute that has slices of these series, the newest first, and their samples:
    series id, time, value."""
    wanted = _wanted(db, "raw", ids, 0, EVER_MS)
    rows = db.execute(_READ_SLICES_BACKWARDS, wanted)
    for minute, slices in groupby(rows, lambda row: bucket_of(row[0])):
        yield (
            minute,
            [
                (series_id_of(slot), ts_ms, value)
                for slot, blob in slices
                for ts_ms, value in zip(*_unpacked(slot, blob), strict=True)
            ],
        )


def find_in_tail(
    db: sqlite3.Connection, ids: Mapping[int, object], start_ms: int, end_ms: int
) -> Iterator[tuple[int, int, float]]:
    """Series id, time and value of the samples of some series in the tail, as they came."""
    for (blob,) in db.execute(_READ_TAIL, (start_ms, end_ms)):
        if (batch := sound_batch(blob)) is None:
            continue
        are_wanted = map(ids.__contains__, batch.series_ids)
        places = list(compress(range(len(batch.series_ids)), are_wanted))
        if not places:
            continue
        runs = list(batch.runs())
        starts = [start for _, start, _ in runs]
        for place in places:
            ts_ms = runs[bisect_right(starts, place) - 1][0]
            if start_ms <= ts_ms < end_ms:
                yield batch.series_ids[place], ts_ms, batch.values[place]


def sound_batch(blob: bytes) -> TailBatch | None:
    """A batch of the tail; None if it is damaged."""
    try:
        return unpack_tail(blob)
    except DamagedBlob:
        return None


def by_time(samples: Mapping[int, float]) -> Columns:
    """Values by time as columns."""
    times = array("q", sorted(samples))
    return times, array("d", map(samples.__getitem__, times))


def steps_together(several: Sequence[Steps], parts_max: int) -> Steps:
    """One tag's steps out of those of its series. A part that two of them have may count twice, but
    a step never has more than ``parts_max``."""
    if len(several) == 1:
        return several[0]
    rows: dict[int, list[Any]] = {}
    for steps in several:
        for start_ms, *new in zip(*steps, strict=True):
            if start_ms in rows:
                average, lowest, highest, samples, parts = rows[start_ms]
                total = samples + new[3]
                rows[start_ms] = [
                    average * (samples / total) + new[0] * (new[3] / total),
                    min(lowest, new[1]),
                    max(highest, new[2]),
                    total,
                    min(parts + new[4], parts_max),
                ]
            else:
                rows[start_ms] = new
    return _steps(((0, start_ms, *rows[start_ms]) for start_ms in sorted(rows)), 1)


def _in_steps(minutes: Minutes, per_step: int) -> Steps:
    """Minutes, so many to a step."""
    numbers, averages, least, greatest, _, samples = minutes
    if per_step == 1:
        starts_ms = array("q", [number * MINUTE_MS for number in numbers])
        parts = array("q", [1]) * len(numbers)
        return Steps(starts_ms, averages, least, greatest, array("q", samples), parts)
    rows = []
    end = 0
    while end < len(numbers):
        start, step = end, numbers[end] // per_step
        end = bisect_left(
            numbers, (step + 1) * per_step, start, min(start + per_step, len(numbers))
        )
        weights = samples[start:end]
        total = sum(weights)
        rows.append(
            (
                0,
                step,
                # Weights first: the products of huge values and counts would overflow.
                sum(map(mul, averages[start:end], [weight / total for weight in weights])),
                min(least[start:end]),
                max(greatest[start:end]),
                total,
                end - start,
            )
        )
    return _steps(rows, per_step * MINUTE_MS)


def _between(minutes: Minutes, first: int, end: int) -> Minutes:
    """The minutes from the one with number ``first`` to the one before ``end``."""
    inside = slice(bisect_left(minutes.numbers, first), bisect_left(minutes.numbers, end))
    if inside == slice(0, len(minutes.numbers)):
        return minutes
    columns: Iterable[array[Any]] = minutes
    return Minutes(*(column[inside] for column in columns))


def _spans(ids_per_hour: Mapping[int, list[int]]) -> Iterator[tuple[int, int, list[int]]]:
    """First hour, hour behind the last, and ids of neighbouring hours that have the same ids."""
    start = stop = 0
    ids: list[int] = []
    for hour in sorted(ids_per_hour):
        if (hour, ids_per_hour[hour]) != (stop, ids):
            if ids:
                yield start, stop, ids
            start, ids = hour, ids_per_hour[hour]
        stop = hour + 1
    if ids:
        yield start, stop, ids


def _steps(rows: Iterable[tuple[Any, ...]], step_ms: int) -> Steps:
    _, steps, averages, lowest, highest, samples, parts = zip(*rows, strict=True)
    return Steps(
        array("q", [step * step_ms for step in steps]),
        # A rounded average may lie a hair outside; a chart's band would not contain its line.
        array("d", map(min, map(max, averages, lowest), highest)),
        array("d", lowest),
        array("d", highest),
        array("q", samples),
        array("q", parts),
    )


def _packed_minutes(
    db: sqlite3.Connection, ids: Iterable[int], first: int, end: int
) -> dict[int, Minutes]:
    """The packed hours in a range of hours, by slot in ascending order."""
    (has_packed,) = db.execute(_HAS_PACKED).fetchone()
    if not has_packed:  # the file is an older version's
        return {}
    found: dict[int, Minutes] = {}
    for slot, blob in db.execute(_READ_PACKED, _wanted(db, "packed", ids, first, end)):
        with suppress(DamagedBlob):  # its rows are there
            found[slot] = unpack_minutes(bucket_of(slot), blob)
    return found


def _find_rows(
    db: sqlite3.Connection, table: Table, ids: Iterable[int], start_ms: int, end_ms: int
) -> Iterable[Row]:
    inside = buckets_inside(start_ms, end_ms, BUCKET_MS[table])
    return db.execute(_READ_ROWS[table], _wanted(db, table, ids, *inside))


def _wanted(
    db: sqlite3.Connection,
    table: Literal["raw", "minute", "hour", "packed"],
    ids: Iterable[int],
    first: int,
    end: int,
) -> dict[str, Any]:
    """Parameters of `_WANTED`: these series in a range of buckets, as far as the table has any."""
    ids = sorted(ids)
    low, high = db.execute(_READ_ENDS[table]).fetchone()
    if low is None:
        low, high = slot_of(1, 0), slot_of(0, 0)
    return {
        "first": max(first, bucket_of(low)),
        "last": min(end - 1, bucket_of(high)),
        "runs": json.dumps(_runs(ids)),
        "ids": json.dumps(ids),
    }


def _runs(ids: Iterable[int]) -> list[list[int]]:
    """First and last of each run of neighbours among ascending ids."""
    runs: list[list[int]] = []
    for series_id in ids:
        if runs and series_id - runs[-1][1] <= GAP_MAX:
            runs[-1][1] = series_id
        else:
            runs.append([series_id, series_id])
    return runs


def _unpacked(slot: int, blob: bytes) -> tuple[list[int], array[float]]:
    """Times and values of a slice; none of a damaged one."""
    try:
        offsets_ms, values = unpack_slice(blob)
    except DamagedBlob:
        return [], array("d")
    start_of_minute_ms = bucket_of(slot) * MINUTE_MS
    return [start_of_minute_ms + offset_ms for offset_ms in offsets_ms], values
