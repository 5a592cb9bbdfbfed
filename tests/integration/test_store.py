"""The embedded store among other processes and on a disk that is full."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import random
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from edge_agent.errors import TransientError
from edge_agent.model import Batch
from edge_agent.sinks.base import JournalIdentity
from edge_agent.sinks.store import StoreSink
from edge_agent.store import fold
from edge_agent.store.layout import HOUR_MS, MINUTE_MS
from edge_agent.store.reader import StoreReader
from tests.batches import NOON_MS, BatchMaker, make_series

JOURNAL = JournalIdentity("agent", "journal-1")
TAGS = [make_series(f"T{n}") for n in range(20)]
BATCH_MS = 5_000
SCANS_PER_BATCH = 10
BATCHES = 600
EVER = (0, 1 << 45)


def batches() -> Iterator[Batch]:
    """Always the same: one scan of all tags each half second; the value is the scan's number."""
    make = BatchMaker()
    for number in range(BATCHES):
        start_ms = NOON_MS + number * BATCH_MS
        yield make(
            (series, start_ms + scan * BATCH_MS // SCANS_PER_BATCH, float(number * 10 + scan))
            for scan in range(SCANS_PER_BATCH)
            for series in TAGS
        )


async def deliver_all(path: Path, raw_hours: float, report: Connection | None) -> None:
    """Deliver every batch and maintain in between, on a clock that the samples drive."""
    now_ms = NOON_MS
    sink = StoreSink(path, raw_hours=raw_hours, now_ms=lambda: now_ms, elapsed_ms=lambda: 0)
    await sink.open(JOURNAL)
    for batch in batches():
        await sink.deliver([batch])
        if report is not None:
            report.send(batch.sequence)
        now_ms = batch.last_ts_ms + 500
        if batch.sequence % 3 == 0:
            await sink.maintain()
    now_ms += HOUR_MS
    await sink.maintain()
    await sink.close()


def writer_process(path: Path, raw_hours: float, report: Connection) -> None:
    """What runs in the process that is killed."""
    fold.SLICES_PER_STEP = 4  # type: ignore[misc]  # so that a kill often falls into a fold
    asyncio.run(deliver_all(path, raw_hours, report))


def start_writer(path: Path, raw_hours: float) -> tuple[int, Connection]:
    """Process id of a writer, and where it reports each sequence number that was delivered."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=writer_process, args=(path, raw_hours, send), daemon=True)
    process.start()
    send.close()
    assert process.pid is not None
    return process.pid, receive


def test_kill_9_at_any_moment_takes_every_sample_exactly_once(tmp_path: Path) -> None:
    """Killed while delivering and folding, and everything handed again: each sample counts once.

    Without raw slices a minute's count is by weight, so that a sample folded twice would show.
    """
    path = tmp_path / "store.db"
    rng = random.Random(1)
    acknowledged = 0
    for _ in range(4):
        pid, report = start_writer(path, raw_hours=0)
        with closing(report):
            for _ in range(acknowledged + rng.randrange(20, 120)):
                sequence = report.recv()
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            assert sequence > acknowledged
            acknowledged = sequence
        assert len(StoreReader(path).latest()) == len(TAGS)
    asyncio.run(deliver_all(path, 0, None))
    reader = StoreReader(path)
    per_minute = MINUTE_MS // BATCH_MS * SCANS_PER_BATCH
    for series in TAGS:
        rows = reader.minutes(series, *EVER)
        assert [row.samples for row in rows] == [per_minute] * (BATCHES * BATCH_MS // MINUTE_MS)
        assert [row.last for row in rows] == [
            float(n * per_minute - 1) for n in range(1, len(rows) + 1)
        ]
        assert reader.hours(series, *EVER)[0].samples == BATCHES * SCANS_PER_BATCH


def test_reading_while_another_process_writes(tmp_path: Path) -> None:
    """A reader sees at any time all that is acknowledged, without gaps; then a clean end."""
    path = tmp_path / "store.db"
    pid, report = start_writer(path, raw_hours=24)
    reader = StoreReader(path)
    rng = random.Random(1)
    looks = 0
    with closing(report):
        for sequence in iter(report.recv, BATCHES):
            if sequence % 12:
                continue
            looks += 1
            series = rng.choice(TAGS)
            _, values = reader.raw(series, *EVER)
            assert values.tolist() == [float(n) for n in range(len(values))]
            assert len(values) >= sequence * SCANS_PER_BATCH
            newest = reader.latest()
            assert len(newest) == len(TAGS)
            assert min(row.value for row in newest) >= len(values) - 1
            minutes = reader.minutes(series, *EVER)
            assert [row.samples for row in minutes[:-1]] == [120] * len(minutes[:-1])
        os.waitpid(pid, 0)
    assert looks > 20
    assert len(reader.raw(TAGS[0], *EVER)[0]) == BATCHES * SCANS_PER_BATCH
    assert sum(row.samples for row in reader.hours(TAGS[0], *EVER)) == BATCHES * SCANS_PER_BATCH


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"mounting a tmpfs is not permitted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_a_full_disk_delays_and_loses_nothing(small_disk: Path) -> None:
    """Deliveries fail with a hint while the disk is full, and go on when there is room again."""
    path = small_disk / "store.db"
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1_000_000))
    now_ms = NOON_MS
    sink = StoreSink(path, now_ms=lambda: now_ms, elapsed_ms=lambda: 0)
    await sink.open(JOURNAL)
    make, rng = BatchMaker(), random.Random(1)
    handed: list[Batch] = []
    failure: TransientError | None = None
    for number in itertools.count():
        start_ms = NOON_MS + number * MINUTE_MS
        handed.append(make((TAGS[0], start_ms + n, rng.random()) for n in range(2_000)))
        try:
            await sink.deliver(handed[-1:])
            now_ms = start_ms + 2 * MINUTE_MS
            await sink.maintain()
        except TransientError as error:
            failure = error
            break
    assert "full" in str(failure)
    assert failure is not None
    assert "free some disk space" in failure.hint
    assert len(handed) > 5
    with pytest.raises(TransientError):
        await sink.deliver([make([(TAGS[0], now_ms, 0.0)] * 200_000)])  # it stays full
    await sink.close()
    ballast.unlink()
    await sink.open(JOURNAL)
    await sink.deliver(handed)
    await sink.maintain()
    await sink.close()
    times, _ = StoreReader(path).raw(TAGS[0], *EVER)
    assert len(times) == 2_000 * len(handed)
    assert not list(small_disk.glob("*.damaged-*"))
