"""Read side of the embedded store, for any process: read-only, one short transaction per call.

The newest minutes are answered from the tail as well, so that nothing is missing in what asks for
samples; a minute or hour row shows what has been folded, and lags by little more than a minute.

A folder that can't be written holds a store that SQLite can't open once the agent has been stopped
cleanly: it would have to make the log. Without a log the file is all there is, and is read as it
stands (``immutable``). Should the agent come back meanwhile, which shows by a log or a file that is
no longer the same, what was read is thrown away and read again.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from array import array
from collections import defaultdict
from collections.abc import Callable, Collection
from contextlib import closing
from heapq import nlargest
from pathlib import Path
from typing import Final, NamedTuple, TypeVar
from urllib.parse import quote

from edge_agent.clock import HOUR_MS, MINUTE_MS
from edge_agent.errors import TransientError
from edge_agent.model import Series, TagKey
from edge_agent.sqlite import beside, code_of
from edge_agent.store.layout import FORMAT, SERIES_ID_BITS, SERIES_ID_MAX, bucket_of, slot_of
from edge_agent.store.search import (
    BUCKET_MS,
    EVER_MS,
    Columns,
    Steps,
    Table,
    buckets_inside,
    by_time,
    find_hour_rows,
    find_hour_steps,
    find_in_tail,
    find_minute_steps,
    find_minutes,
    find_samples,
    find_slices_backwards,
    first_slots,
    sound_batch,
    steps_together,
)

BUSY_TIMEOUT_S: Final = 2.0
"""Readers wait only while a crashed writer's log is being recovered, or the file being closed."""
INSTRUCTIONS_PER_LOOK: Final = 5_000
"""SQLite's own instructions between two looks at the clock: less than a millisecond."""

UNLOGGED_READS_MAX: Final = 3
"""Each throws away what it read because the agent came back, or went, meanwhile."""

Result = TypeVar("Result")

_READ_AVERAGES: Final = f"""
SELECT slot & {SERIES_ID_MAX}, (slot >> {SERIES_ID_BITS}) * {MINUTE_MS}, avg
FROM minute WHERE slot >= ? AND slot < ? ORDER BY slot
"""  # noqa: S608


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


class Oldest(NamedTuple):
    """Where samples, minutes and hours begin; None for a table without rows."""

    raw_ms: int | None
    minute_ms: int | None
    hour_ms: int | None


class StoreReader:
    """Reads one store file. Not for use by several threads at once.

    Times are milliseconds since 1970 UTC; ranges include their start and exclude their end. Every
    method raises ``TransientError`` while there is no readable store at ``path``, and if it takes
    longer than ``timeout_s``.
    """

    def __init__(self, path: Path, *, timeout_s: float = float("inf")) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._store_id = ""
        self._series: dict[int, Series] = {}
        self._latest: dict[int, tuple[int, float]] = {}
        self._folded_tail_id = -1
        self._seen_tail_id = 0

    def series(self) -> list[Series]:
        """Every series that the store has ever taken, sorted."""
        return self._read(lambda _: sorted(self._series.values()))

    def latest(self, *, site: str | None = None, device: str | None = None) -> list[Newest]:
        """Newest sample of each series, sorted; of one site or device if asked."""
        self._read(self._refresh_latest)
        return sorted(
            Newest(series, *self._latest[series_id])
            for series_id, series in self._series.items()
            if series_id in self._latest
            and site in (None, series.site)
            and device in (None, series.device)
        )

    def minutes(self, series: Series, start_ms: int, end_ms: int) -> list[Bucket]:
        """Minutes whose start lies in the range, by time."""
        found = self._read(
            lambda db: find_minutes(db, self._ids_of_series(series), start_ms, end_ms)
        )
        return [
            Bucket(number * MINUTE_MS, *columns)
            for minutes in found.values()
            for number, *columns in zip(*minutes, strict=True)
        ]

    def hours(self, series: Series, start_ms: int, end_ms: int) -> list[Bucket]:
        """Hour rows whose start lies in the range, by time."""
        rows = self._read(
            lambda db: list(find_hour_rows(db, self._ids_of_series(series), start_ms, end_ms))
        )
        return [Bucket(bucket_of(slot) * HOUR_MS, *columns) for slot, *columns in rows]

    def raw(self, series: Series, start_ms: int, end_ms: int) -> Columns:
        """Times (int64) and values (float64) of the samples in the range, by time."""
        found = self._read(
            lambda db: find_samples(
                db, dict.fromkeys(self._ids_of_series(series), series), start_ms, end_ms
            )
        )
        return by_time(found.get(series, {}))

    # What follows is asked by tag: where its line or unit changed, its series are taken together.

    def averages(
        self, start_ms: int, end_ms: int, tags: Collection[TagKey] | None = None
    ) -> dict[TagKey, Columns]:
        """Times (int64) and one-minute averages (float64) of these tags, or of all, by time.

        In the minute in which a tag's line or unit changed it is the newer one's.
        """
        first, end = buckets_inside(start_ms, end_ms, MINUTE_MS)

        def read(db: sqlite3.Connection) -> dict[int, Columns]:
            columns: dict[int, Columns] = defaultdict(lambda: (array("q"), array("d")))
            wanted = {
                series_id
                for series_id, series in self._series.items()
                if tags is None or series.key in tags
            }
            for series_id, start_of_minute_ms, average in db.execute(
                _READ_AVERAGES, (slot_of(first, 0), slot_of(end, 0))
            ):
                if series_id not in wanted:
                    continue
                times, averages = columns[series_id]
                times.append(start_of_minute_ms)
                averages.append(average)
            return columns

        columns = self._read(read)
        found: dict[TagKey, Columns] = {}
        for series_id in sorted(columns):
            series, column = self._series[series_id], columns[series_id]
            name = series.key
            if name in found:
                older, newer = (dict(zip(*part, strict=True)) for part in (found[name], column))
                column = by_time(older | newer)
            found[name] = column
        return found

    def steps(
        self,
        table: Table,
        site: str,
        device: str,
        tags: Collection[str],
        start_ms: int,
        end_ms: int,
        step_ms: int,
    ) -> dict[str, Steps]:
        """Minutes or hours whose start lies in the range, grouped into steps; tags without any are
        left out. ``step_ms`` is a multiple of a minute (hour); steps begin at multiples of it.
        """
        find = find_minute_steps if table == "minute" else find_hour_steps

        def read(db: sqlite3.Connection) -> dict[str, list[Steps]]:
            per_tag: dict[str, list[Steps]] = defaultdict(list)
            ids = self._ids_of(site, device, tags)
            for series_id, steps in find(db, ids, start_ms, end_ms, step_ms):
                per_tag[ids[series_id]].append(steps)
            return per_tag

        parts_max = step_ms // BUCKET_MS[table]
        return {
            tag: steps_together(several, parts_max) for tag, several in self._read(read).items()
        }

    def samples(
        self, site: str, device: str, tags: Collection[str], start_ms: int, end_ms: int
    ) -> dict[str, Columns]:
        """Times (int64) and values (float64) of the samples in the range, by time; tags without
        any are left out."""
        found = self._read(
            lambda db: find_samples(db, self._ids_of(site, device, tags), start_ms, end_ms)
        )
        return {tag: by_time(samples) for tag, samples in found.items() if samples}

    def newest_samples(
        self, site: str, device: str, tags: Collection[str], limit: int
    ) -> list[tuple[int, str, float]]:
        """Time, tag and value of the newest samples of these tags together, newest first."""

        def read(db: sqlite3.Connection) -> dict[tuple[int, str], float]:
            found: dict[tuple[int, str], float] = {}
            ids = self._ids_of(site, device, tags)
            for series_id, ts_ms, value in find_in_tail(db, ids, 0, EVER_MS):
                found[ts_ms, ids[series_id]] = value
            for minute, samples in find_slices_backwards(db, ids):
                end_ms = (minute + 1) * MINUTE_MS
                if sum(ts_ms >= end_ms for ts_ms, _ in found) >= limit:
                    break
                for series_id, ts_ms, value in samples:
                    found.setdefault((ts_ms, ids[series_id]), value)  # the tail's is the later one
            return found

        newest = nlargest(limit, self._read(read).items())
        return [(ts_ms, tag, value) for (ts_ms, tag), value in newest]

    def oldest(self) -> Oldest:
        """Where each table begins. What is in the tail only counts for none of them."""
        raw, minute, hour = self._read(first_slots)
        return Oldest(
            raw_ms=None if raw is None else bucket_of(raw) * MINUTE_MS,
            minute_ms=None if minute is None else bucket_of(minute) * MINUTE_MS,
            hour_ms=None if hour is None else bucket_of(hour) * HOUR_MS,
        )

    def _read(self, job: Callable[[sqlite3.Connection], Result]) -> Result:
        """What the job finds in a snapshot of the store, with the list of series up to date. It may
        be done more than once."""
        deadline = time.monotonic() + self._timeout_s
        try:
            for _ in range(UNLOGGED_READS_MAX):
                before = self._unlogged()
                try:
                    return self._read_once(job, "mode=ro", deadline)
                except sqlite3.OperationalError as error:
                    if before is None or code_of(error) != sqlite3.SQLITE_CANTOPEN:
                        raise
                try:
                    found = self._read_once(job, "mode=ro&immutable=1", deadline)
                except (sqlite3.Error, TransientError):
                    if self._unlogged() == before:
                        raise
                else:
                    if self._unlogged() == before:
                        return found
                self._forget()
        except sqlite3.Error as error:
            if code_of(error) == sqlite3.SQLITE_INTERRUPT:
                raise TransientError(
                    f"store {self._path}: no answer within {self._timeout_s:g} s",
                    hint="is its disk busy? ask for a shorter range, or for fewer tags",
                ) from error
            raise TransientError(
                f"store {self._path} can't be read: {error}",
                hint="" if self._path.exists() else "the agent creates it when its store is on",
            ) from error
        raise TransientError(f"store {self._path} changes again and again while it is read")

    def _read_once(
        self, job: Callable[[sqlite3.Connection], Result], options: str, deadline: float
    ) -> Result:
        with closing(
            sqlite3.connect(
                f"file:{quote(str(self._path))}?{options}",
                uri=True,
                timeout=BUSY_TIMEOUT_S,
                isolation_level=None,
            )
        ) as db:
            db.set_progress_handler(lambda: time.monotonic() > deadline, INSTRUCTIONS_PER_LOOK)
            db.execute("BEGIN")
            self._refresh_series(db)
            return job(db)

    def _unlogged(self) -> tuple[int, int, int] | None:
        """What tells the file from a changed one, while it has no log beside it; else None."""
        try:
            file = self._path.stat()
        except OSError:
            return None
        # The log is looked for last: whoever changes the file afterwards makes one first.
        if beside(self._path, "-wal").exists():
            return None
        return file.st_ino, file.st_size, file.st_mtime_ns

    def _forget(self) -> None:
        """Nothing that was remembered counts any more."""
        self._store_id = ""

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
        self._series.update((row[0], Series(*map(sys.intern, row[1:]))) for row in rows)

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
            if (batch := sound_batch(blob)) is None:
                continue
            for ts_ms, start, end in batch.runs():
                for series_id, value in zip(
                    batch.series_ids[start:end], batch.values[start:end], strict=True
                ):
                    known = self._latest.get(series_id)
                    if known is None or ts_ms >= known[0]:
                        self._latest[series_id] = (ts_ms, value)

    def _ids_of(self, site: str, device: str, tags: Collection[str]) -> dict[int, str]:
        """Store ids of a device's tags, and the tag of each."""
        wanted = set(tags)
        return {
            key: series.tag
            for key, series in self._series.items()
            if series.device == device and series.site == site and series.tag in wanted
        }

    def _ids_of_series(self, series: Series) -> list[int]:
        return [series_id for series_id, known in self._series.items() if known == series]
