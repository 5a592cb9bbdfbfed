"""An embedded store with days of minutes, written straight into its tables: a past for a benchmark.

The rows are what folds leave: every series has a row per minute and per hour and its closed hours
packed, hour by hour in the order in which they are written. A sink that goes on writing into the
file finds nothing unusual.
"""

from __future__ import annotations

import asyncio
import sqlite3
from array import array
from collections.abc import Sequence
from contextlib import closing
from functools import cache
from pathlib import Path

from edge_agent.clock import HOUR_MS, MINUTE_MS
from edge_agent.model import Tag
from edge_agent.sinks.base import JournalIdentity
from edge_agent.sinks.store import StoreSink
from edge_agent.store.layout import (
    MINUTES_PER_HOUR,
    PACKED_SCHEMA,
    SERIES_ID_BITS,
    Minutes,
    pack_minutes,
    slot_of,
)
from edge_agent.store.packing import PACKING_GRACE_MS

SAMPLES_PER_MINUTE = 60
MINUTES_PER_DAY = 24 * MINUTES_PER_HOUR
_FILL = """
INSERT INTO {table}
WITH RECURSIVE bucket(n) AS (
    SELECT :first UNION ALL SELECT n + 1 FROM bucket WHERE n + 1 < :end
)
SELECT (n << {bits}) + id, value, value - 1, value + 1, value, 59000, :samples FROM (
    SELECT n, id, 50 + 30 * ((n * 7 + id * 13) % {period}) / {period}.0 AS value
    FROM bucket CROSS JOIN series ORDER BY n, id
)
"""


def fill(path: Path, tags: Sequence[Tag], days: int, now_ms: int) -> None:
    """Make the store at ``path`` with these tags and so many days up to ``now_ms``."""

    async def create() -> None:
        sink = StoreSink(path)
        await sink.open(JournalIdentity("bench", "bench"))
        await sink.close()

    asyncio.run(create())
    end = now_ms // MINUTE_MS
    first = end - days * MINUTES_PER_DAY
    closed = (now_ms - PACKING_GRACE_MS) // HOUR_MS
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = OFF")
        db.execute("BEGIN")
        db.executemany(
            "INSERT INTO series (site, line, device, tag, unit) VALUES (?, ?, ?, ?, ?)",
            [tuple(tag.series) for tag in tags],
        )
        # Thirty million rows need no trigger to note which hours they are of.
        triggers = db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for (name,) in triggers:
            db.execute(f"DROP TRIGGER {name}")
        ids = [series_id for (series_id,) in db.execute("SELECT id FROM series ORDER BY id")]
        for hour in range(first // MINUTES_PER_HOUR, -(-end // MINUTES_PER_HOUR)):
            start = max(first, hour * MINUTES_PER_HOUR)
            count = min(end, (hour + 1) * MINUTES_PER_HOUR) - start
            _fill(db, "minute", start, start + count, SAMPLES_PER_MINUTE)
            _fill(db, "hour", hour, hour + 1, SAMPLES_PER_MINUTE * count)
            slots = [slot_of(hour, series_id) for series_id in ids]
            if hour < closed:
                offset = start % MINUTES_PER_HOUR
                phases = [(start * 7 + series_id * 13) % MINUTES_PER_DAY for series_id in ids]
                blobs = [_packed(phase, offset, count) for phase in phases]
                rows = zip(slots, blobs, strict=True)
                db.executemany("INSERT INTO packed VALUES (?, ?)", rows)
            else:
                db.executemany("INSERT INTO unpacked VALUES (?)", [(slot,) for slot in slots])
        db.execute("COMMIT")
        db.executescript(PACKED_SCHEMA)


def _fill(db: sqlite3.Connection, table: str, first: int, end: int, samples: int) -> None:
    sql = _FILL.format(table=table, bits=SERIES_ID_BITS, period=MINUTES_PER_DAY)
    db.execute(sql, {"first": first, "end": end, "samples": samples})


@cache
def _packed(phase: int, first: int, count: int) -> bytes:
    """The blob of an hour's minutes from the given one on, the first of which has this phase."""
    values = array(
        "d", [50 + 30 * ((phase + n * 7) % MINUTES_PER_DAY) / MINUTES_PER_DAY for n in range(count)]
    )
    return pack_minutes(
        Minutes(
            array("q", range(first, first + count)),
            values,
            array("d", [value - 1 for value in values]),
            array("d", [value + 1 for value in values]),
            values,
            array("Q", [SAMPLES_PER_MINUTE]) * count,
        )
    )
