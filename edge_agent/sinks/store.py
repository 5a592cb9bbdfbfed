"""Sink `store`: the embedded history. Its design stands in `edge_agent.store`.

Guarantee: exactly once. Cursor and samples are committed together; batches at or below the cursor
are skipped.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from edge_agent.clock import HOUR_MS, epoch_ms
from edge_agent.errors import TransientError
from edge_agent.files import sync_folder
from edge_agent.model import Batch, Series
from edge_agent.sinks.base import JournalIdentity
from edge_agent.sqlite import beside, code_of, is_damage, name_for_damaged
from edge_agent.store.database import Retention, pages_of, secure_wal, transaction
from edge_agent.store.layout import APPLICATION_ID, FORMAT, PACKED_SCHEMA, SCHEMA, pack_tail
from edge_agent.store.upkeep import Upkeep

log = logging.getLogger(__name__)

BYTES_MAX_DEFAULT: Final = 8_000_000_000
"""Fits a 16 GB memory card with the journal's 2 GB. 24 h of 500 tags at 1 s take 0.4 GB."""
BYTES_MAX_MIN: Final = 1_000_000
PAGE_BYTES: Final = 4096
BUSY_TIMEOUT_S: Final = 2.0
"""Only a second writer can lock the file, and that is a mistake to report, not to wait for."""

_FILES = ("-wal", "-shm", "")
"""The file itself last: as long as it stands there, it is found damaged once more."""
_OF_THE_INDEX = {
    sqlite3.SQLITE_IOERR_SHMLOCK,
    sqlite3.SQLITE_IOERR_SHMMAP,
    sqlite3.SQLITE_IOERR_SHMOPEN,
    sqlite3.SQLITE_IOERR_SHMSIZE,
}
"""I/O errors that say nothing of the log; a full disk brings them each time it is opened again."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class StoreSize:
    """What the store takes on the disk: the file, the part of it that is free, its log."""

    file_bytes: int
    free_bytes: int
    wal_bytes: int
    tail_batches: int


class StoreSink:
    """Writes the store at ``path``. All of its I/O is done by one thread of its own.

    Besides the sink's calls, `maintain` is to be called every ten seconds or so, from one task.
    """

    name = "store"

    def __init__(
        self,
        path: Path,
        *,
        raw_hours: float = 24,
        minute_days: float = 90,
        bytes_max: int = BYTES_MAX_DEFAULT,
        now_ms: Callable[[], int] = epoch_ms,
        elapsed_ms: Callable[[], int] = lambda: time.monotonic_ns() // 1_000_000,
    ) -> None:
        raw_ms = int(raw_hours * HOUR_MS)
        self._path = path
        self._retention = Retention(
            raw_ms=raw_ms,
            minute_ms=max(raw_ms, int(minute_days * 24 * HOUR_MS)),
            bytes_max=max(bytes_max, BYTES_MAX_MIN),
        )
        self._now_ms = now_ms
        self._elapsed_ms = elapsed_ms
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        # From here on the thread's alone.
        self._db: sqlite3.Connection | None = None
        self._inode = 0
        self._is_log_secure = False
        """Whether the log is known to be on the disk. It is written again only where it is not:
        while the disk is full the file is opened again four times a minute."""
        self._upkeep: Upkeep | None = None
        self._work: Iterator[None] | None = None
        self._journal = JournalIdentity("", "")
        self._sequence = -1
        self._tail_id = 0
        self._ids: dict[int, int] = {}

    async def open(self, journal: JournalIdentity) -> None:
        """Open or create the file. Raises ``TransientError``."""
        await self._run(lambda: self._open(journal))

    async def deliver(self, batches: Sequence[Batch]) -> int:
        """Append the batches to the tail in one transaction; always 0. Raises ``TransientError``.

        A cancelled call may still commit: the thread finishes what it has begun, and the next
        `open` reads the cursor after that.
        """
        await self._run(lambda: self._deliver(batches))
        return 0

    async def close(self) -> None:
        """Close the file. Never raises."""
        await self._run(self._close)

    async def maintain(self) -> StoreSize | None:
        """Fold, expire, shed and shrink what is due, in steps that let deliveries through.

        Returns the size, or None while the store is not open. Raises ``TransientError``.
        """
        while await self._run(self._step):
            pass
        return await self._run(self._size)

    async def _run(self, job: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, job)

    # All that follows runs in the thread.

    def _open(self, journal: JournalIdentity) -> None:
        self._close()
        with self._translated():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._connect_or_begin_anew(journal)
            except BaseException:
                self._close()
                raise

    def _connect_or_begin_anew(self, journal: JournalIdentity) -> None:
        try:
            self._connect(journal)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self._set_aside(error)
            self._connect(journal)

    def _connect(self, journal: JournalIdentity) -> None:
        if not self._is_log_secure:
            self._secure_log()
        db = self._db = sqlite3.connect(
            self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, cached_statements=64
        )
        # Page size and vacuum take effect in an empty file only.
        db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        self._create_or_check(db)
        _, _, page_bytes = pages_of(db)
        db.execute(f"PRAGMA max_page_count = {self._retention.bytes_max // page_bytes}")
        # One row was written or read: the file is there, and it is this one.
        self._inode = self._path.stat().st_ino
        self._journal = journal
        row = db.execute(
            "SELECT sequence FROM cursor WHERE agent_id = ? AND journal_id = ?",
            (journal.agent_id, journal.journal_id),
        ).fetchone()
        self._sequence = -1 if row is None else row[0]
        (self._tail_id,) = db.execute(
            "SELECT max((SELECT fold_tail_id FROM state), (SELECT coalesce(max(id), 0) FROM tail))"
        ).fetchone()
        self._ids.clear()
        self._upkeep = Upkeep(db, self._retention, self._now_ms, self._elapsed_ms)

    def _secure_log(self) -> None:
        """Have the log on the disk, if it is a store's.

        Looked at through a connection that can't write: one that can would fold the log into the
        file as it is closed.
        """
        log = beside(self._path, "-wal")
        if log.exists() and log.stat().st_size and self._path.exists():
            address = f"{self._path.absolute().as_uri()}?mode=ro"
            with closing(sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT_S)) as db:
                self._has_tables(db)
        secure_wal(self._path)
        self._is_log_secure = True

    def _has_tables(self, db: sqlite3.Connection) -> bool:
        """Whether it is a store already, or an empty file. Raises ``TransientError`` if neither."""
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (found_format,) = db.execute("PRAGMA user_version").fetchone()
        if (application, found_format) == (APPLICATION_ID, FORMAT):
            return True
        (objects,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if objects:
            raise TransientError(
                f"{self._path} is not a store of format {FORMAT}"
                f" (application id {application:#x}, format {found_format})",
                hint="move the file away, or run the version of the agent that wrote it",
            )
        return False

    def _create_or_check(self, db: sqlite3.Connection) -> None:
        if not self._has_tables(db):
            db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT")
        # A file of an older version has none of these; where all are there nothing is written.
        db.executescript(f"BEGIN; {PACKED_SCHEMA} COMMIT")

    def _deliver(self, batches: Sequence[Batch]) -> None:
        with self._translated():
            db = self._opened()
            fresh = [batch for batch in batches if batch.sequence > self._sequence]
            if not fresh:
                return
            rows = []
            try:
                with transaction(db):
                    for number, batch in enumerate((b for b in fresh if len(b)), self._tail_id + 1):
                        ids = self._store_ids(db, batch)
                        blob = pack_tail(batch.runs, ids, batch.values)
                        rows.append((number, batch.first_ts_ms, batch.last_ts_ms, len(batch), blob))
                    db.executemany("INSERT INTO tail VALUES (?, ?, ?, ?, ?)", rows)
                    db.execute(
                        "INSERT OR REPLACE INTO cursor VALUES (?, ?, ?)",
                        (self._journal.agent_id, self._journal.journal_id, fresh[-1].sequence),
                    )
            except BaseException:
                self._ids.clear()  # the rollback may have taken new ids with it
                raise
            self._sequence = fresh[-1].sequence
            self._tail_id += len(rows)

    def _store_ids(self, db: sqlite3.Connection, batch: Batch) -> array[int]:
        """The batch's column of series ids, in the store's own."""
        try:
            return array("I", map(self._ids.__getitem__, batch.series_ids))
        except KeyError:
            for journal_id in sorted(set(batch.series_ids).difference(self._ids)):
                self._ids[journal_id] = _intern(db, batch.series[journal_id])
            return array("I", map(self._ids.__getitem__, batch.series_ids))

    def _step(self) -> bool:
        """One step of upkeep; whether there is more."""
        with self._translated():
            if self._upkeep is None:
                return False
            self._opened()
            if self._work is None:
                self._work = self._upkeep.work()
            try:
                next(self._work)
            except StopIteration:
                self._work = None
                return False
            except BaseException:
                self._work = None
                raise
            return True

    def _size(self) -> StoreSize | None:
        with self._translated():
            if self._db is None:
                return None
            pages, free, page_bytes = pages_of(self._db)
            (tail_batches,) = self._db.execute("SELECT count(*) FROM tail").fetchone()
            wal_bytes = 0
            with suppress(FileNotFoundError):
                wal_bytes = beside(self._path, "-wal").stat().st_size
            return StoreSize(pages * page_bytes, free * page_bytes, wal_bytes, tail_batches)

    def _close(self) -> None:
        db, self._db = self._db, None
        self._upkeep = self._work = None
        if db is not None:
            # Closing checkpoints the log, which a full disk refuses; the log then stays.
            with suppress(sqlite3.Error):
                db.close()

    def _opened(self) -> sqlite3.Connection:
        """The connection, if it is open and the file still the one at ``path``."""
        if self._db is None:
            raise TransientError(f"store {self._path} is not open")
        if self._path.stat().st_ino != self._inode:
            raise FileNotFoundError(f"{self._path} was replaced by another file")
        return self._db

    def _set_aside(self, error: Exception) -> None:
        """Rename the damaged file, and its log with it, so that it can still be looked at."""
        self._close()
        self._is_log_secure = False
        kept = name_for_damaged(self._path, self._now_ms())
        for suffix in _FILES:
            with suppress(FileNotFoundError):
                beside(self._path, suffix).rename(beside(kept, suffix))
        log.error(
            "store: %s is damaged (%s). It is kept as %s; a new one is begun. "
            "Delete it when nobody wants to look into it",
            self._path,
            error,
            kept.name,
        )
        sync_folder(self._path.parent)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what SQLite and the file system say into ``TransientError``."""
        try:
            try:
                yield
            except sqlite3.DatabaseError as error:
                if is_damage(error):
                    self._set_aside(error)
                if _may_concern_log(error):
                    self._is_log_secure = False
                raise TransientError(
                    f"store {self._path}: {error}", hint=_HINTS.get(code_of(error), "")
                ) from error
        except OSError as error:  # also where another file stands there now
            self._close()
            self._is_log_secure = False
            raise TransientError(f"store {self._path}: {error}") from error


_HINTS = {
    sqlite3.SQLITE_FULL: "free some disk space, or ask for fewer raw_hours or minute_days",
    sqlite3.SQLITE_BUSY: "another process writes this file; one agent per data_dir",
    sqlite3.SQLITE_READONLY: "the agent's user must own its data_dir",
    sqlite3.SQLITE_CANTOPEN: "the agent's user must own its data_dir",
}


def _may_concern_log(error: sqlite3.Error) -> bool:
    """Whether the disk may not have what the kernel shows of the log."""
    if code_of(error) != sqlite3.SQLITE_IOERR:
        return False
    return error.sqlite_errorcode not in _OF_THE_INDEX


def _intern(db: sqlite3.Connection, series: Series) -> int:
    """The store's id of a series, new if need be."""
    db.execute(
        "INSERT OR IGNORE INTO series (site, line, device, tag, unit) VALUES (?, ?, ?, ?, ?)",
        series,
    )
    (series_id,) = db.execute(
        "SELECT id FROM series WHERE site = ? AND line = ? AND device = ? AND tag = ? AND unit = ?",
        series,
    ).fetchone()
    return int(series_id)
