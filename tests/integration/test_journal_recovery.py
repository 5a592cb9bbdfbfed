"""Recovery of a damaged journal, interrupted at every step; and files that can't be opened."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_agent.errors import ConfigError, JournalError, TransientError
from edge_agent.journal import salvage
from edge_agent.journal.file import JournalFile
from tests.filesystems import tmpfs
from tests.journals import (
    Feed,
    Sample,
    balanced,
    commit,
    copied,
    drained,
    journal_file,
    opened,
    set_aside,
)

STEPS: list[tuple[Any, str]] = [
    (os, "fsync"),
    (Path, "rename"),
    (Path, "unlink"),
    (shutil, "copyfile"),
    (JournalFile, "restore_books"),
    (JournalFile, "restore_entries"),
    (JournalFile, "balance"),
    (JournalFile, "close"),
    (JournalFile, "configure"),
]
"""Everything by which a recovery changes the disk."""
INTERRUPTIONS_MAX = 60


class Crash(BaseException):
    """The process ends here."""


class Interruption:
    """Lets a number of steps pass, then raises, before or after the next one is done."""

    def __init__(self, patch: pytest.MonkeyPatch, error: BaseException) -> None:
        self.left = -1
        self.done_first = False
        self.happened = False
        self._error = error
        for owner, name in STEPS:
            patch.setattr(owner, name, self._counted(getattr(owner, name)))

    def _counted(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left != -1:
                return step(*arguments, **options)
            self.happened = True
            if self.done_first:
                step(*arguments, **options)
            raise self._error

        return counted


async def damaged(folder: Path) -> tuple[Path, list[Sample]]:
    """A journal as kill -9 leaves it, with a WAL, whose first page is then lost."""
    journal, feed = await opened(folder / "live" / "journal.db"), Feed()
    for _ in range(3):
        feed.fill(journal, 400)
        assert await commit(journal)
    path = copied(journal.path, folder / "damaged")
    await journal.close()
    with path.open("r+b") as stream:
        stream.write(b"\0" * 4096)
    log = path.with_name("journal.db-wal")
    data = bytearray(log.read_bytes())
    data[32 + 24 : 32 + 24 + 100] = b"\0" * 100  # its newer first page in the WAL too
    log.write_bytes(bytes(data))
    return path, feed.samples


@pytest.mark.parametrize("done_first", [False, True], ids=["before", "after"])
async def test_crash_at_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done_first: bool
) -> None:
    """Whichever step the process dies at: the next start recovers everything, and keeps the file.

    What the disk holds at that moment is copied, since no process would close anything.
    """
    path, samples = await damaged(tmp_path)
    before = path.read_bytes()
    for step in range(INTERRUPTIONS_MAX):
        folder = tmp_path / f"{step}"
        shutil.copytree(path.parent, folder)
        with monkeypatch.context() as patch:
            interruption = Interruption(patch, Crash())
            interruption.done_first = done_first
            try:
                interruption.left = step
                journal = await opened(folder / "journal.db")
            except Crash:
                interruption.left = -1
                after = tmp_path / f"{step}-after"
                shutil.copytree(folder, after)
            else:
                interruption.left = -1
                await journal.close()
                assert not interruption.happened
                break
        journal = await opened(after / "journal.db")
        assert await drained(journal) == samples
        await balanced(journal)
        (kept,) = set_aside(after / "journal.db")
        assert kept.read_bytes() == before
        await journal.close()
        assert sorted(p.suffix for p in after.iterdir() if p.suffix in (".new", ".db")) == [".db"]
    assert 10 < step < INTERRUPTIONS_MAX - 1


@pytest.mark.parametrize(
    "refusal",
    [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EIO, "Input/output error")],
    ids=["no space", "I/O error"],
)
async def test_refusal_at_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: OSError
) -> None:
    """The disk refuses a step: opening says so, and succeeds once the disk does what it should."""
    path, samples = await damaged(tmp_path)
    before = path.read_bytes()
    for step in range(INTERRUPTIONS_MAX):
        folder = tmp_path / f"{step}"
        shutil.copytree(path.parent, folder)
        with monkeypatch.context() as patch:
            patch.setattr("tests.integration.test_journal_recovery.STEPS", STEPS[:4])
            interruption = Interruption(patch, refusal)
            interruption.left = step
            try:
                journal = await opened(folder / "journal.db")
            except TransientError:
                journal = await opened(folder / "journal.db")
            interruption.left = -1
            assert await drained(journal) == samples
            await balanced(journal)
            (kept,) = set_aside(folder / "journal.db")
            assert kept.read_bytes() == before
            await journal.close()
            if not interruption.happened:
                break
    assert 3 < step < INTERRUPTIONS_MAX - 1


async def test_refused_recovery_while_running_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples wait in memory meanwhile, reads are empty, and nothing is lost."""
    journal, feed = await opened(tmp_path / "journal.db"), Feed()
    for _ in range(3):
        feed.fill(journal, 400)
        assert await commit(journal)
    journal._cache.clear()
    await journal._in_thread(
        lambda: journal._file._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    )
    journal._file._connection.execute("PRAGMA shrink_memory")
    with journal.path.open("r+b") as stream:
        stream.write(b"\0" * 4096)
    feed.scan(journal)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", _full)
        patch.setattr(Path, "rename", _full)
        assert await journal.read("a", samples_max=10**6) == []
        assert not await commit(journal)
        assert journal.uncommitted == 40
        assert await journal.read("a", samples_max=10**6) == []
    assert await commit(journal)
    assert await commit(journal)
    assert await drained(journal) == feed.samples
    await balanced(journal)
    await journal.close()


def _full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


async def test_a_damaged_wal_outlives_a_start_that_is_refused(tmp_path: Path) -> None:
    """SQLite must not fold what it understands of it, and delete the rest, as the process ends."""
    journal, feed = await opened(tmp_path / "live" / "journal.db"), Feed()
    for _ in range(4):
        feed.fill(journal, 400)
        assert await commit(journal)
    path = copied(journal.path, tmp_path / "damaged")
    await journal.close()
    log = path.with_name("journal.db-wal")
    data = bytearray(log.read_bytes())
    at = 32 + 6 * (24 + 4096) + 24
    data[at : at + 100] = b"\1" * 100
    log.write_bytes(bytes(data))
    try:
        journal_file(path)
    except JournalError as error:
        said = str(error)
    assert "WAL is damaged" in said
    gc.collect()
    assert log.read_bytes() == data
    journal = await opened(path)
    assert await drained(journal) == feed.samples
    await journal.close()


async def test_the_damaged_wal_is_on_the_disk_before_anything_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its copy, since the original is deleted; where the disk refuses the copy none is left."""
    path, samples = await damaged(tmp_path)
    log = path.with_name("journal.db-wal").read_bytes()
    done: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def synced(file: int) -> None:
        done.append(Path(f"/proc/self/fd/{file}").readlink().name[-4:])
        if len(done) == 1 and done[0] == "-wal" and refuse:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(file)

    def renamed(source: Path, target: Path) -> Path:
        done.append("rename")
        return rename(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    refuse = True
    with pytest.raises(TransientError, match="No space left"):
        salvage.replace(path, journal_file, ("a",), lambda _: None)
    assert done == ["-wal"]
    assert not list(path.parent.glob("*.damaged-*"))
    refuse = False
    done.clear()
    salvage.replace(path, journal_file, ("a",), lambda _: None)
    assert done == ["-wal", "aged", "rename", "rename", "aged"]
    (kept,) = set_aside(path)
    assert kept.with_name(kept.name + "-wal").read_bytes() == log
    journal = await opened(path)
    assert await drained(journal) == samples
    await journal.close()


async def test_a_rollback_journal_of_the_damaged_file_is_not_taken_for_the_new_one_s(
    tmp_path: Path,
) -> None:
    """A cut between the two renames, and a hot rollback journal that an opening before it left:
    rolled back into the new file it would make it what it never was."""
    path, samples = await damaged(tmp_path)
    hot = path.with_name("journal.db-journal")
    old = tmp_path / "old.db"
    journal_file(old).close()
    with contextlib.closing(sqlite3.connect(old, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        connection.execute("UPDATE state SET taken = 7, sequence = 7")
        connection.execute("CREATE TABLE other (x)")
        shutil.copyfile(tmp_path / "old.db-journal", hot)
    assert hot.stat().st_size > 4096
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(salvage, "finish", _full)
        with pytest.raises(OSError, match="No space"):
            salvage.replace(path, journal_file, ("a",), lambda _: None)
    assert not path.exists()
    assert path.with_suffix(".new").exists()
    assert path.with_name("journal.db-wal").exists()
    journal = await opened(path)
    assert journal.salvages == 0
    assert await drained(journal) == samples
    await balanced(journal)
    await journal.close()


async def test_a_folder_at_the_journal_s_path(tmp_path: Path) -> None:
    """It is not taken for a damaged file: the message says what stands there."""
    (tmp_path / "journal.db").mkdir()
    with pytest.raises(ConfigError, match="is a folder"):
        await opened(tmp_path / "journal.db")


async def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    """Said as what it is, also where it stands further up; nothing is made."""
    (tmp_path / "map.csv").write_text("site")
    for folder in (tmp_path / "map.csv", tmp_path / "map.csv" / "deeper"):
        with pytest.raises(ConfigError, match=r"a file stands there") as caught:
            await opened(folder / "journal.db")
        assert "--data-dir" in caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["map.csv"]


async def test_read_only_disk(tmp_path: Path) -> None:
    """Neither a traceback nor a damaged file: the disk refuses, and later it does not."""
    with tmpfs(tmp_path / "disk", "16m") as disk:
        journal, feed = await opened(disk.path / "journal.db"), Feed()
        feed.scan(journal)
        await journal.close()
        disk.remount("ro")
        with pytest.raises(TransientError, match="Read-only file system"):
            await opened(disk.path / "journal.db")
        disk.remount("rw")
        journal = await opened(disk.path / "journal.db")
        assert await drained(journal) == feed.samples
        await journal.close()


async def test_a_newer_format_is_not_damage(tmp_path: Path) -> None:
    """A file of another version is left as it is."""
    path = tmp_path / "journal.db"
    await (await opened(path)).close()
    from edge_agent.journal.entry import row_checksum

    connection = sqlite3.connect(path)
    row = connection.execute("SELECT journal_id, sequence, taken FROM state").fetchone()
    connection.execute("UPDATE state SET format = 99, checksum = ?", (row_checksum(99, *row),))
    connection.commit()
    connection.close()
    with pytest.raises(ConfigError, match="format 99"):
        await opened(path)
    assert set_aside(path) == []


async def test_a_wal_is_written_again_before_it_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be what the kernel shows after a failed fsync, and the disk never got."""
    journal, feed = await opened(tmp_path / "live" / "journal.db"), Feed()
    feed.scan(journal)
    assert await commit(journal)
    path = copied(journal.path, tmp_path / "copy")
    log = path.with_name("journal.db-wal").read_bytes()
    await journal.close()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _refused)
        with pytest.raises(TransientError, match="Input/output error"):
            await opened(path)
    assert path.with_name("journal.db-wal").read_bytes() == log
    journal = await opened(path)
    assert await drained(journal) == feed.samples
    await journal.close()


def _refused(*_: Any) -> None:
    raise OSError(errno.EIO, "Input/output error")
