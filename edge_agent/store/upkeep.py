"""Keeps the store in order: folds, packs, expires what is old, stays in its size.

Steps as in `fold`: a generator that yields where no transaction is open.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from typing import Final

from edge_agent.clock import HOUR_MS, MINUTE_MS
from edge_agent.store.database import Retention, pages_of, transaction
from edge_agent.store.fold import Fold
from edge_agent.store.layout import MINUTES_PER_HOUR, slot_of
from edge_agent.store.packing import Packing

log = logging.getLogger(__name__)

ROWS_PER_STEP: Final = 2_000
"""Rows deleted at a time, about 5 ms of a PC's core; 20 if each takes a packed hour with it."""
PAGES_PER_STEP: Final = 500
"""Pages given back to the file system at a time."""
HOURS_KEPT_MS: Final = 10 * 366 * 24 * HOUR_MS
"""Ten years: an hour row is 50 bytes, so a tag costs 4 MB in all that time."""
RAW_KEPT_MIN_MS: Final = HOUR_MS
"""What size alone never sheds while there are minutes to shed: a raw hour is what one looks at."""
SHED_ABOVE, SHED_TO = 0.90, 0.85
"""Parts of `bytes_max`. The tenth left is what a fold and its tail need at the same time."""
SHRINK_ABOVE: Final = 0.25
"""Part of the file that may be free: less than that comes and goes with every minute."""
SHRINK_PAGES_MIN: Final = 4_000
"""Free pages not worth giving back: 16 MB."""

CLOCK_JUMP_MS: Final = 60_000
CLOCK_TRUST_MS: Final = HOUR_MS
"""Expiry waits until the wall clock has run this long without a jump."""

_DELETE_OLDEST: Final = {
    table: f"DELETE FROM {table} WHERE slot IN "  # noqa: S608  (our own tables)
    f"(SELECT slot FROM {table} WHERE slot < ? ORDER BY slot LIMIT ?)"
    for table in ("raw", "minute", "hour")
}


class Upkeep:
    """Upkeep of one open store. ``now_ms`` is the wall clock, ``elapsed_ms`` a monotonic one."""

    def __init__(
        self,
        db: sqlite3.Connection,
        retention: Retention,
        now_ms: Callable[[], int],
        elapsed_ms: Callable[[], int],
    ) -> None:
        self._db = db
        self._fold = Fold(db, retention)
        self._packing = Packing(db)
        self._retention = retention
        self._now_ms = now_ms
        self._elapsed_ms = elapsed_ms
        self._clock_offset_ms = now_ms() - elapsed_ms()
        self._clock_trusted_since_ms = elapsed_ms()
        self._is_shedding = False

    def work(self) -> Iterator[None]:
        """Do what is due, one step per item."""
        now_ms = self._now_ms()
        # First of all room: a fold needs pages before it frees any.
        yield from self._shed(now_ms)
        yield from self._fold.work(now_ms)
        yield from self._packing.work(now_ms)
        if self._clock_is_trusted(now_ms):
            yield from self._expire(now_ms)
        yield from self._shrink()

    def _clock_is_trusted(self, now_ms: int) -> bool:
        elapsed_ms = self._elapsed_ms()
        offset_ms = now_ms - elapsed_ms
        if abs(offset_ms - self._clock_offset_ms) > CLOCK_JUMP_MS:
            log.warning(
                "store: the clock jumped by %.0f s; nothing expires for an hour",
                (offset_ms - self._clock_offset_ms) / 1000,
            )
            self._clock_trusted_since_ms = elapsed_ms
        self._clock_offset_ms = offset_ms
        return elapsed_ms - self._clock_trusted_since_ms >= CLOCK_TRUST_MS

    def _expire(self, now_ms: int) -> Iterator[None]:
        raw_from, minute_from = self._retention.kept_from(now_ms)
        for table, bucket in (
            ("raw", raw_from),
            ("minute", minute_from),
            ("hour", (now_ms - HOURS_KEPT_MS) // HOUR_MS),
        ):
            while self._delete_oldest(table, slot_of(bucket, 0)):
                yield

    def _delete_oldest(self, table: str, below_slot: int) -> int:
        """Delete the oldest rows below a slot, as many as one step may; returns how many."""
        with transaction(self._db):
            deleted = self._db.execute(_DELETE_OLDEST[table], (below_slot, ROWS_PER_STEP))
            return deleted.rowcount

    def _shed(self, now_ms: int) -> Iterator[None]:
        bytes_max = self._retention.bytes_max
        if self._bytes_used() <= SHED_ABOVE * bytes_max:
            self._is_shedding = False
            return
        if not self._is_shedding:
            self._is_shedding = True
            log.warning(
                "store: %d of %d bytes are used; the oldest rows go before their time. "
                "Fewer raw_hours or minute_days of [store] give it room",
                self._bytes_used(),
                bytes_max,
            )
        kept_from_ms = now_ms - RAW_KEPT_MIN_MS
        raw_below = slot_of(kept_from_ms // MINUTE_MS, 0)
        minute_below = slot_of(kept_from_ms // HOUR_MS * MINUTES_PER_HOUR, 0)
        for table, below_slot in (("raw", raw_below), ("minute", minute_below)):
            while self._bytes_used() > SHED_TO * bytes_max:
                if not self._delete_oldest(table, below_slot):
                    break
                yield

    def _bytes_used(self) -> int:
        pages, free, page_bytes = pages_of(self._db)
        return (pages - free) * page_bytes

    def _shrink(self) -> Iterator[None]:
        while True:
            pages, free, _ = pages_of(self._db)
            if free < max(SHRINK_PAGES_MIN, SHRINK_ABOVE * pages):
                return
            # The pragma frees one page per row fetched.
            self._db.execute(f"PRAGMA incremental_vacuum({PAGES_PER_STEP})").fetchall()
            yield
