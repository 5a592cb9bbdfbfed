"""What is known of SQLite's files and errors."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edge_agent.sqlite import code_of, is_damage, name_for_damaged

NEW_YEAR_MS = 1_798_761_600_999


def error_of(path: Path, statement: str) -> sqlite3.Error:
    """What SQLite says of a statement on a file."""
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as db,
        pytest.raises(sqlite3.Error) as caught,
    ):
        db.execute(statement).fetchall()
    return caught.value


def test_a_file_that_is_none_of_sqlites_is_damaged(tmp_path: Path) -> None:
    """Whatever is asked of it."""
    path = tmp_path / "a.db"
    path.write_bytes(b"\xff" * 8192)
    error = error_of(path, "SELECT * FROM sqlite_schema")
    assert code_of(error) == sqlite3.SQLITE_NOTADB
    assert is_damage(error)


def test_a_malformed_page_is_damage(tmp_path: Path) -> None:
    """SQLite says so by itself."""
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE a (b)")
        (page_bytes,) = db.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek(page_bytes)
        file.write(b"\xff" * page_bytes)
    assert is_damage(error_of(path, "SELECT * FROM a"))


def test_the_primary_code_counts(tmp_path: Path) -> None:
    """A constraint of any kind is one, and no damage."""
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("CREATE TABLE a (b UNIQUE)")
        db.execute("INSERT INTO a VALUES (1)")
    error = error_of(path, "INSERT INTO a VALUES (1)")
    assert error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_UNIQUE
    assert code_of(error) == sqlite3.SQLITE_CONSTRAINT
    assert not is_damage(error)


def test_an_error_of_pythons_has_no_code() -> None:
    """Such as a call on a connection that is closed."""
    db = sqlite3.connect(":memory:")
    db.close()
    with pytest.raises(sqlite3.ProgrammingError) as caught:
        db.execute("SELECT 1")
    assert code_of(caught.value) == 0
    assert not is_damage(caught.value)


def test_damaged_files_of_one_second_have_names_of_their_own(tmp_path: Path) -> None:
    """None takes the place of one that is kept."""
    path = tmp_path / "a.db"
    names = []
    for _ in range(3):
        kept = name_for_damaged(path, NEW_YEAR_MS)
        kept.touch()
        names.append(kept.name)
    assert names == [f"a.db.damaged-20270101T000000Z{number}" for number in ("", "-2", "-3")]
    assert name_for_damaged(path, NEW_YEAR_MS + 1).name == "a.db.damaged-20270101T000001Z"
