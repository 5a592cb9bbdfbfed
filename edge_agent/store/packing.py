"""Packs the minutes of closed hours into one blob per series, for who reads days of a few series.

Steps as in `fold`: a generator that yields where no transaction is open. Which hours are to be
packed stands in the table ``unpacked``, so dropping it, or the process, loses nothing.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

from edge_agent.clock import HOUR_MS
from edge_agent.store.database import transaction
from edge_agent.store.layout import bucket_of, minutes_of, pack_minutes, series_id_of, slot_of
from edge_agent.store.search import find_minute_rows

PACKING_GRACE_MS: Final = 5 * 60_000
"""How long after its end an hour stays unpacked: samples that come later cost a second blob."""
HOURS_PER_STEP: Final = 50
"""Hours of a series: 3,000 minute rows, about 8 ms of a PC's core, and one fsync."""
HOURS_PER_ROUND_MAX: Final = 2_000
"""Between two folds, which have to go on after an outage; 4 MB. Rounds are ten seconds apart, so
that it suffices for 700,000 series."""


class Packing:
    """Packing of one open store."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def work(self, now_ms: int) -> Iterator[None]:
        """Pack what is closed at a time of the wall clock, one step per item."""
        closed = (now_ms - PACKING_GRACE_MS) // HOUR_MS
        for _ in range(0, HOURS_PER_ROUND_MAX, HOURS_PER_STEP):
            (oldest,) = self._db.execute("SELECT min(slot) FROM unpacked").fetchone()
            if oldest is None or bucket_of(oldest) >= closed:
                return
            self._pack(bucket_of(oldest))
            yield

    def _pack(self, hour: int) -> None:
        with transaction(self._db):
            slots = [
                slot
                for (slot,) in self._db.execute(
                    "SELECT slot FROM unpacked WHERE slot < ? ORDER BY slot LIMIT ?",
                    (slot_of(hour + 1, 0), HOURS_PER_STEP),
                )
            ]
            ids = list(map(series_id_of, slots))
            rows = find_minute_rows(self._db, ids, hour * HOUR_MS, (hour + 1) * HOUR_MS)
            per_series: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
            for row in rows:
                per_series[series_id_of(row[0])].append(row)
            self._db.executemany(
                "INSERT OR REPLACE INTO packed VALUES (?, ?)",
                [
                    (slot_of(hour, series_id), pack_minutes(minutes_of(rows)))
                    for series_id, rows in sorted(per_series.items())
                ],
            )
            self._db.executemany("DELETE FROM unpacked WHERE slot = ?", zip(slots))
