"""What the embedded store costs: CPU per sample to append and to fold, CPU per slice (a minute of
a series) to pack the hour that it is in, and bytes on the disk.

Time is simulated: the store's clock advances with the samples, so that the run takes as long as
the work does. Deliveries are the size that the agent's commit interval makes of the rate. Hours are
packed at the end, which is not in `us_per_sample`: only whole hours tell what it costs per slice,
so ask for --seconds 3600 (and for fewer samples: --tags 3000 --rate 600).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sqlite3
import tempfile
import time
from array import array
from contextlib import closing
from pathlib import Path

from edge_agent.clock import HOUR_MS
from edge_agent.model import Batch, Series
from edge_agent.sinks.base import JournalIdentity
from edge_agent.sinks.store import StoreSink
from edge_agent.store.reader import StoreReader

START_MS = 20_000 * 86_400_000
COMMIT_INTERVAL_MS = 200
MAINTAIN_EVERY_MS = 10_000
TAGS_PER_SCAN = 100
DISTINCT_BATCHES = 50
"""Prepared in advance, so that making them is not measured."""


class Clock:
    """A wall clock that the bench sets."""

    now_ms = START_MS

    def __call__(self) -> int:
        return self.now_ms


def value_columns(tags: int, rng: random.Random) -> list[array[float]]:
    """A third each: scaled integers, float32, and whole doubles."""
    makers = (
        lambda: round(rng.random() * 1000) * 0.1,
        lambda: array("f", [rng.random()])[0],
        rng.random,
    )
    return [array("d", [makers[i % 3]() for i in range(tags)]) for _ in range(DISTINCT_BATCHES)]


async def maintain(sink: StoreSink) -> tuple[float, float]:
    """CPU time of a round of upkeep, and how long a delivery waited for a step of it at most."""
    cpu_s = time.process_time()
    upkeep = asyncio.create_task(sink.maintain())
    longest_wait_s = 0.0
    while not upkeep.done():
        wall_s = time.perf_counter()
        await sink.deliver([])
        longest_wait_s = max(longest_wait_s, time.perf_counter() - wall_s)
    await upkeep
    return time.process_time() - cpu_s, longest_wait_s


def rows_of(path: Path, table: str) -> int:
    """How many rows a table of the store has."""
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


async def run(folder: Path, tags: int, rate: int, seconds: int) -> dict[str, object]:
    """Deliver and maintain; returns the figures."""
    clock = Clock()
    path = folder / "store.db"
    sink = StoreSink(path, now_ms=clock, elapsed_ms=clock)
    await sink.open(JournalIdentity("bench", "journal"))
    series = {i + 1: Series("A1", "L1", f"DEV{i // 100:03}", f"T{i:05}", "") for i in range(tags)}
    columns = value_columns(tags, random.Random(1))
    period_ms = tags * 1000 // rate
    per_commit = rate * COMMIT_INTERVAL_MS // 1000
    append_cpu_s = fold_cpu_s = pack_cpu_s = longest_fold_s = longest_pack_s = 0.0
    delivered = position = 0
    commits = range(START_MS, START_MS + seconds * 1000, COMMIT_INTERVAL_MS)
    for sequence, now_ms in enumerate(commits):
        ids, values, runs = array("I"), array("d"), []
        while len(ids) < per_commit:
            end = min(position + TAGS_PER_SCAN, tags)
            ids.extend(range(position + 1, end + 1))
            values.extend(columns[sequence % DISTINCT_BATCHES][position:end])
            runs.append((now_ms + position % COMMIT_INTERVAL_MS, end - position))
            position = end % tags
        clock.now_ms = now_ms + COMMIT_INTERVAL_MS
        batch = Batch(sequence, runs, ids, values, series)
        cpu_s = time.process_time()
        await sink.deliver([batch])
        append_cpu_s += time.process_time() - cpu_s
        delivered += len(batch)
        if clock.now_ms % MAINTAIN_EVERY_MS == 0:
            cpu_s, wait_s = await maintain(sink)
            fold_cpu_s, longest_fold_s = fold_cpu_s + cpu_s, max(longest_fold_s, wait_s)
    await sink.maintain()
    slices = rows_of(path, "minute")
    clock.now_ms += 2 * HOUR_MS
    while rows_of(path, "unpacked"):
        cpu_s, wait_s = await maintain(sink)
        pack_cpu_s, longest_pack_s = pack_cpu_s + cpu_s, max(longest_pack_s, wait_s)
    size = await sink.maintain()
    assert size is not None
    reader = StoreReader(path)
    cpu_s = time.process_time()
    reader.latest()
    latest_cpu_s = time.process_time() - cpu_s
    await sink.close()
    used = size.file_bytes - size.free_bytes
    return {
        "samples": delivered,
        "tags": tags,
        "period_ms": period_ms,
        "rate": rate,
        "append_us_per_sample": round(append_cpu_s / delivered * 1e6, 3),
        "fold_us_per_sample": round(fold_cpu_s / delivered * 1e6, 3),
        "pack_us_per_slice": round(pack_cpu_s / slices * 1e6, 3),
        "us_per_sample": round((append_cpu_s + fold_cpu_s) / delivered * 1e6, 3),
        "bytes_per_sample": round(used / delivered, 1),
        "wait_behind_a_step_max_ms": round(longest_fold_s * 1e3, 1),
        "wait_behind_packing_max_ms": round(longest_pack_s * 1e3, 1),
        "first_latest_ms": round(latest_cpu_s * 1e3, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tags", type=int, default=5_000)
    parser.add_argument("--rate", type=int, default=5_000, help="samples per second")
    parser.add_argument("--seconds", type=int, default=300, help="of simulated time")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(run(Path(folder), options.tags, options.rate, options.seconds))
    if options.json:
        print(json.dumps(figures))
    else:
        for name, figure in figures.items():
            print(f"{name:28} {figure}")


if __name__ == "__main__":
    main()
