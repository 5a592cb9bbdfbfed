"""The power fails while samples are committed: what was taken is on the disk."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from tests.filesystems import ext4
from tests.journals import balance_faults, journal_file, kept_for

POWER_CUTS = 5
ROOT = Path(__file__).parents[2]
WRITER = [sys.executable, "-m", "tests.journal_writer"]
DISK_MEGABYTES = 96


def test_power_loss_loses_nothing_that_was_taken(tmp_path: Path) -> None:
    """At random moments the disk takes nothing any more, not even its own log's tail.

    All that the process had reported before is there after the file system's recovery, exactly
    once, and the file is sound.
    """
    chance, reported = random.Random(7), 0
    with ext4(tmp_path / "disk", DISK_MEGABYTES) as disk:
        path = disk.path / "journal.db"
        for _ in range(POWER_CUTS):
            process = subprocess.Popen(
                [*WRITER, str(path)],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=ROOT,
                text=True,
            )
            assert process.stdout
            process.stdout.readline()
            time.sleep(chance.uniform(0.05, 0.4))
            disk.lose_power()
            time.sleep(0.05)  # The process goes on for a moment, as its memory would not.
            process.kill()
            lines = process.stdout.read().splitlines()
            process.stdout.close()
            process.wait()
            reported = max([reported, *map(int, lines)])
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
