"""Small things that all who write the store share: transactions, retention, reads by slot."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_agent.clock import HOUR_MS, MINUTE_MS
from edge_agent.sqlite import beside
from edge_agent.store.layout import MINUTES_PER_HOUR, Summary

REWRITTEN_BYTES: Final = 1_000_000
"""Of a WAL at a time: it is 4 MB, but for one that a long read has kept from being emptied."""
_OF_SLOTS: Final = "WHERE slot IN (SELECT value FROM json_each(?)) ORDER BY slot"
"""One seek per slot, one statement for all."""
_READ_SLICES: Final = f"SELECT slot, data FROM raw {_OF_SLOTS}"  # noqa: S608
_READ_SUMMARIES: Final = {
    table: f"SELECT * FROM {table} {_OF_SLOTS}"  # noqa: S608  (our own tables)
    for table in ("minute", "hour")
}


@dataclass(frozen=True, slots=True)
class Retention:
    """How long rows are kept, and how large the file may grow."""

    raw_ms: int
    minute_ms: int
    bytes_max: int

    def kept_from(self, now_ms: int) -> tuple[int, int]:
        """The oldest minute (its number) that keeps its samples, and the oldest to keep its row.

        Minutes go by the whole hour, so that an hour has all of its minutes or none.
        """
        hour = (now_ms - self.minute_ms) // HOUR_MS
        return (now_ms - self.raw_ms) // MINUTE_MS, hour * MINUTES_PER_HOUR


def secure_wal(path: Path) -> None:
    """Write a store's WAL, if there is one, again as it is (`edge_agent.sqlite` says why).

    For a writer that has no connection, and only while nobody else writes: what another one commits
    meanwhile would be torn. The lock of the agent's data folder holds that (``journal.lock``; a
    second agent ends at it). Readers see the same bytes. Raises ``OSError``.
    """
    try:
        stream = beside(path, "-wal").open("r+b", buffering=0)
    except FileNotFoundError:
        return
    with stream:
        at = 0
        while data := os.pread(stream.fileno(), REWRITTEN_BYTES, at):
            at += os.pwrite(stream.fileno(), data, at)
        os.fsync(stream.fileno())


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Commit on leaving, roll back on any error."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        # A full disk or an I/O error may have ended the transaction already.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def pages_of(db: sqlite3.Connection) -> tuple[int, int, int]:
    """Pages of the file, free pages among them, and bytes of a page."""
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    (free,) = db.execute("PRAGMA freelist_count").fetchone()
    (page_bytes,) = db.execute("PRAGMA page_size").fetchone()
    return int(pages), int(free), int(page_bytes)


def read_slices(db: sqlite3.Connection, slots: Iterable[int]) -> Iterable[tuple[int, bytes]]:
    """Slots and blobs of the slices that are there, in ascending order."""
    return db.execute(_READ_SLICES, (json.dumps(list(slots)),))


def read_summaries(db: sqlite3.Connection, table: str, slots: Iterable[int]) -> dict[int, Summary]:
    """The rows of ``minute`` or ``hour`` that are there, by slot in ascending order."""
    rows = db.execute(_READ_SUMMARIES[table], (json.dumps(list(slots)),))
    return {slot: Summary(*columns) for slot, *columns in rows}
