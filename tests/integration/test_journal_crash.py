"""kill -9 of a process that commits: what its commits returned for is there, exactly once."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

from tests.journals import balance_faults, journal_file, kept_for

KILLS = 20
WRITER = [sys.executable, "-m", "tests.journal_writer"]
ROOT = Path(__file__).parents[2]


def test_kill_9_loses_nothing_that_was_taken(tmp_path: Path) -> None:
    """Killed at 20 random moments, on one file: nothing reported is missing, nothing is twice."""
    path, chance, reported = tmp_path / "journal.db", random.Random(9), 0
    for _ in range(KILLS):
        process = subprocess.Popen(
            [*WRITER, str(path)], stdout=subprocess.PIPE, cwd=ROOT, text=True
        )
        assert process.stdout
        assert int(process.stdout.readline()) >= reported
        time.sleep(chance.uniform(0, 0.1))
        process.kill()
        lines = process.stdout.read().splitlines()
        process.stdout.close()
        process.wait()
        reported = max([reported, *(int(line) for line in lines if line)])
    file = journal_file(path, bytes_max=100_000_000)
    file.configure(["a", "b"])
    assert file.taken >= reported > 0
    assert [s.value for s in kept_for(file, "b")] == [float(n + 1) for n in range(file.taken)]
    delivered = file.totals["a"].delivered
    assert delivered > 0
    assert [s.value for s in kept_for(file, "a")] == [
        float(n + 1) for n in range(delivered, file.taken)
    ]
    assert balance_faults(file) == []
    assert file.check() == []
    assert not list(tmp_path.glob("*.damaged*"))
    file.close()
