"""The power fails while samples are committed: what was taken is on the disk."""

from __future__ import annotations

import gc
import itertools
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge_agent.errors import TransientError
from edge_agent.journal import Journal, opening, salvage
from edge_agent.journal.file import JournalFile
from tests.filesystems import ext4
from tests.journals import (
    Feed,
    Sample,
    abandon,
    balance_faults,
    balanced,
    commit,
    drained,
    journal_file,
    kept_for,
    opened,
    set_aside,
)

POWER_CUTS = 5
ROOT = Path(__file__).parents[2]
WRITER = [sys.executable, "-m", "tests.journal_writer"]
DISK_MEGABYTES = 96
PIPE_BYTES = 65_536
PAGE_BYTES = 4096


async def filled(path: Path, commits: int) -> tuple[Journal, Feed]:
    """A journal, open, with 1,000 samples in each commit."""
    journal, feed = await opened(path), Feed()
    for _ in range(commits):
        feed.fill(journal, 1000)
        assert await commit(journal)
    return journal, feed


async def damaged(path: Path) -> list[Sample]:
    """On the disk there is a journal without its first page; what it holds."""
    journal, feed = await filled(path, commits=6)
    await journal.close()
    with path.open("r+b") as stream:
        stream.write(bytes(PAGE_BYTES))
    os.sync()
    return feed.samples


async def assert_holds(path: Path, samples: Sequence[Sample], *, salvages: int = 0) -> None:
    """The journal opens after so many salvages, has these samples, and its books balance."""
    journal = await opened(path)
    assert journal.salvages == salvages
    assert await drained(journal) == samples
    await balanced(journal)
    await journal.close()


def test_power_loss_loses_nothing_that_was_taken(tmp_path: Path) -> None:
    """At random moments the disk takes nothing any more, not even its own log's tail.

    All that the process had reported by then is there after the file system's recovery, exactly
    once, and the file is sound. What it reports at the very moment does not count: an fsync that
    is under way when the shutdown comes may return success (Linux 6.18, 4 of 60 with pwrite and
    fdatasync alone).
    """
    chance = random.Random(7)
    with ext4(tmp_path / "disk", DISK_MEGABYTES) as disk:
        path = disk.path / "journal.db"
        for _ in range(POWER_CUTS):
            process = subprocess.Popen(
                [*WRITER, str(path)],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=ROOT,
                bufsize=0,
            )
            assert process.stdout
            said = process.stdout.readline()
            time.sleep(chance.uniform(0.05, 0.4))
            said += process.stdout.read(PIPE_BYTES)
            disk.lose_power()
            process.kill()
            process.stdout.close()
            process.wait()
            reported = int(said.splitlines()[-2])  # The last line may be half there.
            disk.restore_power()
            file = journal_file(path, bytes_max=100_000_000)
            file.configure(["a", "b"])
            assert file.taken >= reported > 0
            numbers = [sample.value for sample in kept_for(file, "b")]
            assert numbers == [float(n + 1) for n in range(file.taken)]
            assert balance_faults(file) == []
            assert file.check() == []
            file.close()
        assert not list(disk.path.glob("*.damaged*"))


async def test_what_the_disk_refused_is_never_taken(tmp_path: Path) -> None:
    """A failed fsync is not mended by a second one: the kernel forgets the page, and says so once.

    The file is read again after such a failure, and shows what the disk never got.
    """
    with ext4(tmp_path / "disk", DISK_MEGABYTES) as disk:
        path = disk.path / "journal.db"
        journal, feed = await filled(path, commits=3)
        disk.lose_power()
        feed.fill(journal, 1000)
        for _ in range(5):
            assert not await commit(journal)
            assert (journal.taken, journal.uncommitted) == (3000, 1000)
        abandon(journal)
        disk.restore_power()
        await assert_holds(path, feed.samples[:3000])


@pytest.mark.parametrize("steps", [1, 3, None], ids=["early", "late", "at its end"])
async def test_power_loss_in_and_after_a_salvage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int | None
) -> None:
    """In the middle, the damaged file is as it was and another salvage finds the same; once it has
    ended, the new file is on the disk although it was written without a WAL."""
    monkeypatch.setattr(salvage, "BYTES_PER_STEP", 20_000)
    with ext4(tmp_path / "disk", DISK_MEGABYTES) as disk:
        path = disk.path / "journal.db"
        samples = await damaged(path)
        reached = itertools.count(1)

        def reach(_: float) -> None:
            if next(reached) == steps:
                disk.lose_power()

        if steps is None:
            salvage.replace(path, journal_file, ("a",), reach)
            assert next(reached) > 3
            disk.lose_power()
        else:
            with pytest.raises(TransientError):
                salvage.replace(path, journal_file, ("a",), reach)
        disk.restore_power()
        assert len(set_aside(path)) == (steps is None)
        await assert_holds(path, samples, salvages=int(steps is not None))
        assert len(set_aside(path)) == 1


@pytest.mark.parametrize(
    "moment", ["between its renames", "as it is opened", "as it is configured"]
)
async def test_power_loss_after_the_damaged_file_was_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The new file is whole by then: the next start puts it in its place, or opens it again."""
    with ext4(tmp_path / "disk", DISK_MEGABYTES) as disk:
        path = disk.path / "journal.db"
        samples = await damaged(path)

        def cut(*_: object) -> None:
            disk.lose_power()
            raise TransientError("the power fails")

        def synced_cut(*_: object) -> None:
            os.sync()  # The first rename is there, of its own accord.
            cut()

        def replaced_and_opened() -> None:
            salvage.replace(path, journal_file, ("a",), lambda _: None)
            monkeypatch.setattr(opening, "is_empty", cut if moment == "as it is opened" else was)
            journal_file(path).configure(["a"])

        was = opening.is_empty
        with monkeypatch.context() as patch:
            if moment == "between its renames":
                patch.setattr(salvage, "finish", synced_cut)
            patch.setattr(JournalFile, "configure", cut)
            with pytest.raises(TransientError, match="the power fails"):
                replaced_and_opened()
        monkeypatch.undo()
        gc.collect()  # What was being opened holds the file.
        disk.restore_power()
        assert path.exists() == (moment != "between its renames")
        await assert_holds(path, samples)
        assert len(set_aside(path)) == 1


def test_the_power_cut_is_one(tmp_path: Path) -> None:
    """The same cut does lose commits that were not flushed: with synchronous=OFF."""
    with ext4(tmp_path / "disk", DISK_MEGABYTES) as disk:
        path = disk.path / "loose.db"
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (x)")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA synchronous = OFF")
        for number in range(1000):
            connection.execute("INSERT INTO t VALUES (?)", (number,))
        disk.lose_power()
        connection.close()
        disk.restore_power()
        connection = sqlite3.connect(path)
        assert connection.execute("SELECT count(*) FROM t").fetchone()[0] < 1000
        connection.close()
