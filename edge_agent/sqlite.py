"""What journal and store both must know of SQLite: its files, its errors, a file that is damaged.

A WAL is written again, as it is, before anything in it is believed. After a failed fsync the kernel
still shows what the disk never got, and counts it as written: a second fsync alone would succeed,
and what is said to be taken or delivered be gone with the power. The two do it each in its own way
(``secure_wal``): the journal has to read all of it first, and judges it; the store, whose WAL may
be large, goes through it in pieces.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path


def beside(path: Path, suffix: str) -> Path:
    """The file whose name is the database's and a suffix: its WAL, or the WAL's index."""
    return path.with_name(path.name + suffix)


def code_of(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 where the error is not SQLite's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is no database, or not what SQLite has made of it."""
    return code_of(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def name_for_damaged(path: Path, now_ms: int) -> Path:
    """A name beside it for a damaged file, which is not taken."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_ms // 1000))
    kept = path.with_name(f"{path.name}.damaged-{stamp}")
    number = 1
    while kept.exists():
        number += 1
        kept = path.with_name(f"{path.name}.damaged-{stamp}-{number}")
    return kept
