"""How the journal's file is opened: nothing that is in it is believed before it is on the disk.

Errors are those of SQLite and of the system, but for ``JournalError`` where the WAL is damaged.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
import uuid
from pathlib import Path
from urllib.parse import quote

from edge_agent.errors import JournalError, TransientError
from edge_agent.journal import books, entries, piecewise, wal
from edge_agent.journal.entry import row_checksum
from edge_agent.journal.room import PAGE_BYTES
from edge_agent.sqlite import beside, is_damage

FORMAT = 1
WAL_PAGES_MAX = 1000
"""A checkpoint is due past this: 4 MB, large enough to write each hot page only now and then."""
BUSY_TIMEOUT_S = 5.0
WAL_LOOKS = 20
WAL_LOOK_INTERVAL_S = 0.1
"""For so long together, two seconds, a commit may take a slow memory card."""

_UNREADABLE = (sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_CORRUPTFS)

_STATE = """
CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), format INTEGER NOT NULL,
    journal_id TEXT NOT NULL, sequence INTEGER NOT NULL, taken INTEGER NOT NULL,
    checksum INTEGER NOT NULL);
"""
_SCHEMA = _STATE + entries.SCHEMA + books.SCHEMA


def classed(path: Path, error: sqlite3.Error) -> JournalError | TransientError:
    """What an error of SQLite means for a journal: it is damaged, or the disk refuses."""
    if is_damage(error) or getattr(error, "sqlite_errorcode", 0) in _UNREADABLE:
        return JournalError(f"{path}: {error}")
    return TransientError(f"{path}: {error}")


def secure_wal(path: Path, *, read_only: bool, alive: piecewise.Alive) -> None:
    """Write the WAL, if there is one, again as it is (`edge_agent.sqlite` says why).

    For whoever holds `lock.lock`, so that nobody else writes meanwhile; who only reads leaves it as
    it is. Raises ``JournalError`` where the WAL is all that is left, or holds what SQLite has not
    understood, or can't be read whole.
    """
    readable = piecewise.read(beside(path, "-wal"), alive)
    log = readable.data
    if not log:
        return
    if not (path.exists() and path.stat().st_size):
        raise JournalError("its file is empty, its WAL is not")  # SQLite would delete the WAL
    if read_only:
        return
    if readable.holes:
        raise JournalError("the disk can't read its WAL")  # nor is it to be written over
    with beside(path, "-wal").open("r+b") as stream:
        stream.write(log)
        stream.flush()
        os.fsync(stream.fileno())
    # A connection that can write would fold what it has understood into the file as it is closed,
    # be it by the end of the process, and delete the rest.
    with contextlib.closing(connect(path, read_only=True)) as looking:
        is_empty(looking)
        if is_wal_damaged(path, log):
            raise JournalError("its WAL is damaged")


def connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """A connection of which nothing was asked yet."""
    return sqlite3.connect(
        f"file:{quote(str(path))}?mode={'ro' if read_only else 'rwc'}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_TIMEOUT_S,
    )


def make_durable(connection: sqlite3.Connection) -> None:
    """What a connection that writes needs: a commit that has returned is on the disk."""
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES_MAX}")


def drop_wal(connection: sqlite3.Connection) -> None:
    """Let commits go to the file alone, once they are durable there; the next opening ends this.

    Only for a file that a crash throws away: nothing could roll back a commit cut off in it.
    """
    (mode,) = connection.execute("PRAGMA journal_mode = MEMORY").fetchone()
    if mode != "memory":
        raise TransientError("SQLite does not give up the WAL of the new journal")


def is_empty(connection: sqlite3.Connection) -> bool:
    """Whether the file has no table yet."""
    return bool(connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0)


def create(connection: sqlite3.Connection) -> None:
    """Make the tables of a new journal, in one transaction."""
    run = connection.execute
    run("BEGIN IMMEDIATE")
    for statement in _SCHEMA.split(";")[:-1]:
        run(statement)
    journal_id = uuid.uuid4().hex
    checksum = row_checksum(FORMAT, journal_id, 0, 0)
    run("INSERT INTO state VALUES (1, ?, ?, 0, 0, ?)", (FORMAT, journal_id, checksum))
    run("COMMIT")


def is_wal_damaged(path: Path, log: bytes) -> bool:
    """Whether a WAL that SQLite has opened holds commits that it has not understood."""
    return wal.damaged(log, PAGE_BYTES, _bytes_beside(path, "-shm"))


def stays_wal_damaged(path: Path) -> bool:
    """The same, while an agent may be running, and whether it goes on holding them.

    The agent may begin it anew between our looks at its two files; and a commit's frames are there
    before the disk has confirmed them, when SQLite makes them known.
    """
    for _ in range(WAL_LOOKS):
        if not is_wal_damaged(path, _bytes_beside(path, "-wal")):
            return False
        time.sleep(WAL_LOOK_INTERVAL_S)
    return True


def _bytes_beside(path: Path, suffix: str) -> bytes:
    """What is in the WAL, or in its index; empty if there is none."""
    file = beside(path, suffix)
    return file.read_bytes() if file.exists() else b""
