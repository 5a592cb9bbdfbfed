"""What the journal costs: collect and commit with an fsync, and read back from the disk.

One commit of 1,000 samples of 1,000 tags, five times for a second at 5,000 samples/s. CPU of the
whole process, its worker thread included; the disk is the machine's own.

Usage: python -m bench.journal [--json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from array import array
from pathlib import Path

import uvloop

from edge_agent.journal import Journal
from edge_agent.model import Series

TAGS = 1_000
COMMITS = 1_000
BYTES_MAX = 2_000_000_000


async def measure(folder: Path) -> dict[str, float]:
    """Commit, then read everything back through a journal that has nothing in memory."""
    path = folder / "journal.db"
    journal = Journal(path, bytes_max=BYTES_MAX)
    await journal.open(["bench"])
    ids = array("I", [journal.intern(_series(number)) for number in range(TAGS)]).tobytes()
    scans = [[number * 1.1 + scan for number in range(TAGS)] for scan in range(10)]
    started = time.process_time()
    for number in range(COMMITS):
        journal.append(1_755_432_000_000 + number * 200, ids, scans[number % 10])
        await journal.flush()
    commit_s = time.process_time() - started
    await journal.close()
    bytes_on_disk = path.stat().st_size

    journal = Journal(path, bytes_max=BYTES_MAX)
    await journal.open(["bench"])
    started, read = time.process_time(), 0
    while batches := await journal.read("bench", samples_max=20_000):
        read += sum(map(len, batches))
        journal.acknowledge("bench", batches)
    read_s = time.process_time() - started
    await journal.close()
    samples = TAGS * COMMITS
    assert read == samples, f"{read} of {samples} samples came back"
    return {
        "append_commit_us": commit_s / samples * 1e6,
        "read_disk_us": read_s / samples * 1e6,
        "bytes_per_sample": bytes_on_disk / samples,
    }


def _series(number: int) -> Series:
    return Series("A1", "L1", f"PUMP{number // 25:03d}", f"T{number % 25:02d}", "bar")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edge-agent-bench-") as folder:
        figures = uvloop.run(measure(Path(folder)))
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:20} {value:.2f}")


if __name__ == "__main__":
    main()
