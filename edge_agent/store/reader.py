"""Read side of the embedded store, for any process: read-only, one short transaction per call.

The newest minutes are answered from the tail as well, so that nothing is missing in `raw` and
`latest`; a minute or hour row shows what has been folded, and lags by little more than a minute.
"""

from __future__ import annotations

import sqlite3
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

from edge_agent.errors import TransientError
from edge_agent.model import Series
from edge_agent.store.layout import (
    FORMAT,
    HOUR_MS,
    MINUTE_MS,
    SERIES_ID_BITS,
    DamagedBlob,
    TailBatch,
    bucket_of,
    slot_of,
    unpack_slice,
    unpack_tail,
)

BUSY_TIMEOUT_S: Final = 2.0
"""Readers wait only while a crashed writer's log is being recovered, or the file being closed."""

_WANTED: Final = f"""
WITH RECURSIVE wanted(slot) AS (
    SELECT :first WHERE :first <= :last
    UNION ALL
    SELECT slot + {1 << SERIES_ID_BITS} FROM wanted WHERE slot < :last
)
"""  # noqa: S608
"""One seek per bucket. SQLite would otherwise read every other series' rows of the range."""
_READ_SLICES: Final = f"{_WANTED} SELECT slot, data FROM wanted CROSS JOIN raw USING (slot)"  # noqa: S608
_READ_BUCKETS: Final = {
    table: f"{_WANTED} SELECT slot, avg, min, max, last, samples "  # noqa: S608  (our own tables)
    f"FROM wanted CROSS JOIN {table} USING (slot)"
    for table in ("minute", "hour")
}
_READ_ENDS: Final = {
    table: f"SELECT (SELECT min(slot) FROM {table}), (SELECT max(slot) FROM {table})"  # noqa: S608
    for table in ("raw", "minute", "hour")
}


class Newest(NamedTuple):
    """The newest sample of a series."""

    series: Series
    ts_ms: int
    value: float


class Bucket(NamedTuple):
    """One minute or hour of a series. ``start_ms`` is in milliseconds since 1970 UTC."""

    start_ms: int
    avg: float
    min: float
    max: float
    last: float
    samples: int


class StoreReader:
    """Reads one store file. Not for use by several threads at once.

    Times are milliseconds since 1970 UTC; ranges include their start and exclude their end. Every
    method raises ``TransientError`` while there is no readable store at ``path``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._store_id = ""
        self._series: dict[int, Series] = {}
        self._latest: dict[int, tuple[int, float]] = {}
        self._folded_tail_id = -1
        self._seen_tail_id = 0

    def series(self) -> list[Series]:
        """Every series that the store has ever taken, sorted."""
        with self._transaction():
            return sorted(self._series.values())

    def latest(self, *, site: str | None = None, device: str | None = None) -> list[Newest]:
        """Newest sample of each series, sorted; of one site or device if asked."""
        with self._transaction() as db:
            self._refresh_latest(db)
        return sorted(
            Newest(series, *self._latest[series_id])
            for series_id, series in self._series.items()
            if series_id in self._latest
            and site in (None, series.site)
            and device in (None, series.device)
        )

    def minutes(self, series: Series, start_ms: int, end_ms: int) -> list[Bucket]:
        """Minute rows whose start lies in the range, by time."""
        return self._buckets("minute", MINUTE_MS, series, start_ms, end_ms)

    def hours(self, series: Series, start_ms: int, end_ms: int) -> list[Bucket]:
        """Hour rows whose start lies in the range, by time."""
        return self._buckets("hour", HOUR_MS, series, start_ms, end_ms)

    def raw(self, series: Series, start_ms: int, end_ms: int) -> tuple[array[int], array[float]]:
        """Times (int64) and values (float64) of the samples in the range, by time."""
        found: dict[int, float] = {}
        with self._transaction() as db:
            series_id = self._id_of(series)
            if series_id is not None:
                found.update(_from_slices(db, series_id, start_ms, end_ms))
                found.update(_from_tail(db, series_id, start_ms, end_ms))
        times = array("q", sorted(ts_ms for ts_ms in found if start_ms <= ts_ms < end_ms))
        return times, array("d", map(found.__getitem__, times))

    def _buckets(
        self, table: str, bucket_ms: int, series: Series, start_ms: int, end_ms: int
    ) -> list[Bucket]:
        with self._transaction() as db:
            series_id = self._id_of(series)
            if series_id is None:
                return []
            span = _span(db, table, series_id, -(-start_ms // bucket_ms), -(-end_ms // bucket_ms))
            return [
                Bucket(bucket_of(slot) * bucket_ms, *columns)
                for slot, *columns in db.execute(_READ_BUCKETS[table], span)
            ]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A snapshot of the store, with the list of series up to date."""
        uri = f"file:{quote(str(self._path))}?mode=ro"
        try:
            with closing(
                sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            ) as db:
                db.execute("BEGIN")
                self._refresh_series(db)
                yield db
        except sqlite3.Error as error:
            raise TransientError(
                f"store {self._path} can't be read: {error}",
                hint="" if self._path.exists() else "the agent creates it when its store is on",
            ) from error

    def _refresh_series(self, db: sqlite3.Connection) -> None:
        (found_format,) = db.execute("PRAGMA user_version").fetchone()
        if found_format != FORMAT:
            raise TransientError(f"store {self._path} has format {found_format}, not {FORMAT}")
        (store_id,) = db.execute("SELECT store_id FROM state").fetchone()
        if store_id != self._store_id:  # the file was replaced by a new one
            self._store_id = store_id
            self._series.clear()
            self._folded_tail_id = -1
        rows = db.execute(
            "SELECT id, site, line, device, tag, unit FROM series WHERE id > ? ORDER BY id",
            (max(self._series, default=0),),
        )
        self._series.update((row[0], Series(*row[1:])) for row in rows)

    def _refresh_latest(self, db: sqlite3.Connection) -> None:
        """Bring `_latest` up to date: the table after each fold, and the tail since then."""
        folded_tail_id, under_way = db.execute(
            "SELECT fold_tail_id, fold_slices_done FROM state"
        ).fetchone()
        if under_way is None and folded_tail_id != self._folded_tail_id:
            self._folded_tail_id = self._seen_tail_id = folded_tail_id
            self._latest = {
                series_id: (ts_ms, value)
                for series_id, ts_ms, value in db.execute("SELECT * FROM latest")
            }
        elif self._folded_tail_id < 0:  # the first look falls into a fold
            self._seen_tail_id = 0
            self._latest = {}
        rows = db.execute(
            "SELECT id, data FROM tail WHERE id > ? ORDER BY id", (self._seen_tail_id,)
        )
        for tail_id, blob in rows:
            self._seen_tail_id = tail_id
            if (batch := _tail_batch(blob)) is None:
                continue
            for ts_ms, start, end in batch.runs():
                for series_id, value in zip(
                    batch.series_ids[start:end], batch.values[start:end], strict=True
                ):
                    known = self._latest.get(series_id)
                    if known is None or ts_ms >= known[0]:
                        self._latest[series_id] = (ts_ms, value)

    def _id_of(self, series: Series) -> int | None:
        return next((key for key, known in self._series.items() if known == series), None)


def _span(
    db: sqlite3.Connection, table: str, series_id: int, first: int, end: int
) -> dict[str, int]:
    """First and last slot to look for, within what the table holds."""
    low, high = db.execute(_READ_ENDS[table]).fetchone()
    if low is None:
        return {"first": 1, "last": 0}
    return {
        "first": slot_of(max(first, bucket_of(low)), series_id),
        "last": slot_of(min(end - 1, bucket_of(high)), series_id),
    }


def _from_slices(
    db: sqlite3.Connection, series_id: int, start_ms: int, end_ms: int
) -> Iterator[tuple[int, float]]:
    span = _span(db, "raw", series_id, start_ms // MINUTE_MS, -(-end_ms // MINUTE_MS))
    for slot, blob in db.execute(_READ_SLICES, span):
        try:
            part = unpack_slice(blob)
        except DamagedBlob:  # the writer reports it
            continue
        start_of_minute_ms = bucket_of(slot) * MINUTE_MS
        for offset_ms, value in zip(*part, strict=True):
            yield start_of_minute_ms + offset_ms, value


def _from_tail(
    db: sqlite3.Connection, series_id: int, start_ms: int, end_ms: int
) -> Iterator[tuple[int, float]]:
    rows = db.execute(
        "SELECT data FROM tail WHERE last_ts_ms >= ? AND first_ts_ms < ? ORDER BY id",
        (start_ms, end_ms),
    )
    for (blob,) in rows:
        if (batch := _tail_batch(blob)) is None:
            continue
        ends = array("q")
        times = []
        for ts_ms, _, end in batch.runs():
            ends.append(end)
            times.append(ts_ms)
        position = -1
        for _ in range(batch.series_ids.count(series_id)):
            position = batch.series_ids.index(series_id, position + 1)
            yield times[bisect_left(ends, position + 1)], batch.values[position]


def _tail_batch(blob: bytes) -> TailBatch | None:
    try:
        return unpack_tail(blob)
    except DamagedBlob:  # the writer reports it
        return None
