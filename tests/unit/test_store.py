"""The embedded store, on a file of its own: what it keeps, folds, forgets and survives."""

from __future__ import annotations

import asyncio
import math
import os
import random
import sqlite3
import stat
import tempfile
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.clock import DAY_MS, HOUR_MS, MINUTE_MS
from edge_agent.errors import TransientError
from edge_agent.model import Batch, Series
from edge_agent.sinks.base import JournalIdentity
from edge_agent.sinks.store import StoreSink
from edge_agent.store import fold, layout, upkeep
from edge_agent.store.layout import Slice
from edge_agent.store.reader import Bucket, StoreReader
from tests.batches import NOON_MS, BatchMaker, Sample, make_series

JOURNAL = JournalIdentity("agent", "journal-1")
PRESS, TEMP, FLOW = make_series("PRESS"), make_series("TEMP"), make_series("FLOW", "PUMP02")
EVER = (0, 1 << 45)


class Clock:
    """Wall and monotonic clock that a test sets; the wall may jump, elapsed time may not."""

    def __init__(self, now_ms: int = NOON_MS) -> None:
        self.now_ms = now_ms
        self.elapsed_ms = 0

    def advance(self, by_ms: int) -> None:
        self.now_ms += by_ms
        self.elapsed_ms += by_ms

    def open_store(self, path: Path, **options: float) -> StoreSink:
        bytes_max = int(options.pop("bytes_max", 1_000_000_000))
        return StoreSink(
            path,
            now_ms=lambda: self.now_ms,
            elapsed_ms=lambda: self.elapsed_ms,
            bytes_max=bytes_max,
            **options,
        )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def clock() -> Clock:
    return Clock()


def buckets_of(
    samples: dict[tuple[Series, int], float], bucket_ms: int
) -> dict[Series, list[Bucket]]:
    """Minute or hour rows as they have to be, computed the plain way."""
    groups: dict[tuple[Series, int], list[tuple[int, float]]] = defaultdict(list)
    for (series, ts_ms), value in samples.items():
        groups[series, ts_ms // bucket_ms * bucket_ms].append((ts_ms, value))
    rows: dict[Series, list[Bucket]] = defaultdict(list)
    for series, start_ms in sorted(groups):
        pairs = sorted(groups[series, start_ms])
        values = [value for _, value in pairs]
        avg = math.fsum(values) / len(values)
        rows[series].append(
            Bucket(start_ms, avg, min(values), max(values), values[-1], len(values))
        )
    return rows


def memory_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder where fsync costs nothing, if there is one: for tests that open many stores."""
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)


def assert_same(found: Sequence[Bucket], expected: Sequence[Bucket]) -> None:
    """Equal rows; averages up to rounding."""
    assert [row._replace(avg=0) for row in found] == [row._replace(avg=0) for row in expected]
    for row, wanted in zip(found, expected, strict=True):
        assert row.avg == pytest.approx(wanted.avg, rel=1e-9, abs=1e-9)
        assert row.min <= row.avg <= row.max


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(sql).fetchall()


def damaged_files(path: Path) -> list[str]:
    return sorted(found.name for found in path.parent.glob("*.damaged-*"))


# What it keeps

times_ms = st.builds(
    lambda hour, minute, ms: NOON_MS + hour * HOUR_MS + minute * MINUTE_MS + ms,
    st.integers(-2, 0),
    st.sampled_from([0, 1, 2, 58, 59]),
    st.sampled_from([0, 1, 30_000, 59_999]),
)
samples = st.tuples(
    st.sampled_from([PRESS, TEMP, FLOW]),
    times_ms,
    st.one_of(st.floats(-1e6, 1e6), st.sampled_from([0.0, -0.0, 1.0, 0.1, 5e-324])),
)
actions = st.lists(
    st.one_of(
        st.lists(samples, max_size=8),
        st.sampled_from(["maintain", "crash in a fold", "reopen", "deliver again"]),
    ),
    max_size=25,
)


async def play(path: Path, script: Sequence[list[Sample] | str]) -> dict[tuple[Series, int], float]:
    """Do what the script says with a store; returns what it must hold."""
    clock, make = Clock(), BatchMaker()
    model: dict[tuple[Series, int], float] = {}
    sink = clock.open_store(path)
    await sink.open(JOURNAL)
    handed: list[Batch] = []
    for action in script:
        if isinstance(action, list):
            handed.append(make(action))
            await sink.deliver(handed[-1:])
            model.update(((series, ts_ms), value) for series, ts_ms, value in action)
        elif action == "deliver again":
            await sink.deliver(handed)
        elif action == "maintain":
            clock.advance(MINUTE_MS)
            await sink.maintain()
        else:
            if action == "crash in a fold":
                clock.advance(MINUTE_MS)
                for _ in range(2):
                    await sink._run(sink._step)
            await sink.close()
            sink = clock.open_store(path)
            await sink.open(JOURNAL)
    clock.advance(3 * HOUR_MS)
    await sink.maintain()
    await sink.close()
    return model


@given(actions)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_raw_minutes_and_hours_say_what_was_delivered(script: list[list[Sample] | str]) -> None:
    """Late, out of order, repeated, crashed in a fold: the tables equal a dict of the samples."""
    with memory_folder() as folder, patch.object(fold, "SLICES_PER_STEP", 2):
        path = Path(folder) / "store.db"
        model = asyncio.run(play(path, script))
        reader = StoreReader(path)
        assert query(path, "SELECT count(*) FROM tail") == [(0,)]
        for series in (PRESS, TEMP, FLOW):
            times, values = reader.raw(series, *EVER)
            expected = sorted((ts, v) for (key, ts), v in model.items() if key == series)
            assert times.tolist() == [ts_ms for ts_ms, _ in expected]
            assert values.tobytes() == array("d", [value for _, value in expected]).tobytes()
            assert_same(reader.minutes(series, *EVER), buckets_of(model, MINUTE_MS)[series])
            assert_same(reader.hours(series, *EVER), buckets_of(model, HOUR_MS)[series])
            newest = {row.series: (row.ts_ms, row.value) for row in reader.latest()}
            assert newest.get(series) == (expected[-1] if expected else None)


arrivals = st.lists(
    st.tuples(
        st.sampled_from([PRESS, TEMP, FLOW]),
        st.integers(0, 2 * HOUR_MS),
        st.sampled_from(["", "", "maintain", "crash in a fold"]),
    ),
    unique_by=lambda arrival: arrival[:2],
)


@given(arrivals)
@settings(max_examples=80, deadline=None)
def test_samples_that_come_after_their_slice_expired_count_by_weight(
    arrivals: list[tuple[Series, int, str]],
) -> None:
    """Whatever the order, however late, and crashed in a fold: rows say what all samples say.

    Without its slice a row only knows counts, so that a sample folded twice would show.
    """
    model = {(series, NOON_MS + ms): ms * 0.1 for series, ms, _ in arrivals}

    async def deliver(path: Path) -> None:
        clock, make = Clock(NOON_MS + 2 * HOUR_MS), BatchMaker()
        sink = clock.open_store(path, raw_hours=5)
        await sink.open(JOURNAL)
        for series, ms, then in arrivals:
            await sink.deliver([make([(series, NOON_MS + ms, ms * 0.1)])])
            if then:
                clock.advance(2 * HOUR_MS)
            if then == "maintain":
                await sink.maintain()
            elif then:
                for _ in range(2):
                    await sink._run(sink._step)
                await sink.close()
                await sink.open(JOURNAL)
        clock.advance(6 * HOUR_MS)
        await sink.maintain()
        await sink.close()

    with memory_folder() as folder, patch.object(fold, "SLICES_PER_STEP", 1):
        path = Path(folder) / "store.db"
        asyncio.run(deliver(path))
        reader = StoreReader(path)
        assert query(path, "SELECT count(*) FROM tail") == [(0,)]
        for series in (PRESS, TEMP, FLOW):
            assert_same(reader.minutes(series, *EVER), buckets_of(model, MINUTE_MS)[series])
            assert_same(reader.hours(series, *EVER), buckets_of(model, HOUR_MS)[series])


async def test_the_newest_minutes_are_read_before_they_are_folded(path: Path, clock: Clock) -> None:
    """`raw` and `latest` answer from slices and tail together; of equal times the later wins."""
    make = BatchMaker()
    sink = clock.open_store(path)
    await sink.open(JOURNAL)
    reader = StoreReader(path)
    await sink.deliver([make([(PRESS, NOON_MS + 1000, 1.0), (TEMP, NOON_MS + 1000, 10.0)])])
    assert reader.latest(device="PUMP01") == [
        (PRESS, NOON_MS + 1000, 1.0),
        (TEMP, NOON_MS + 1000, 10.0),
    ]
    clock.advance(2 * MINUTE_MS)
    await sink.maintain()
    await sink.deliver([make([(PRESS, NOON_MS + 1000, 2.0), (PRESS, NOON_MS + 500, 0.5)])])
    times, values = reader.raw(PRESS, NOON_MS, NOON_MS + MINUTE_MS)
    assert (times.tolist(), values.tolist()) == ([NOON_MS + 500, NOON_MS + 1000], [0.5, 2.0])
    assert reader.latest() == [(PRESS, NOON_MS + 1000, 2.0), (TEMP, NOON_MS + 1000, 10.0)]
    assert reader.latest(device="PUMP02") == reader.latest(site="A2") == []
    assert reader.series() == [PRESS, TEMP]
    await sink.close()


async def test_a_range_includes_its_start_and_excludes_its_end(path: Path, clock: Clock) -> None:
    """So that neighbouring ranges neither miss nor repeat anything."""
    make = BatchMaker()
    sink = clock.open_store(path)
    await sink.open(JOURNAL)
    times_ms = [NOON_MS + n * MINUTE_MS for n in range(4)]
    await sink.deliver([make([(PRESS, ts_ms, 1.0) for ts_ms in times_ms])])
    clock.advance(HOUR_MS)
    await sink.maintain()
    await sink.close()
    reader = StoreReader(path)
    inner = (times_ms[1], times_ms[3])
    assert reader.raw(PRESS, *inner)[0].tolist() == times_ms[1:3]
    assert [row.start_ms for row in reader.minutes(PRESS, *inner)] == times_ms[1:3]
    assert reader.minutes(PRESS, times_ms[3] + 1, times_ms[3] + 2) == []
    assert reader.minutes(FLOW, *EVER) == reader.hours(FLOW, *EVER) == []


async def test_a_new_journal_is_not_mistaken_for_an_old_one(path: Path, clock: Clock) -> None:
    """Cursors and series ids belong to one journal; the same numbers in the next mean anew."""
    sink = clock.open_store(path)
    for journal, series in (("journal-1", PRESS), ("journal-2", TEMP), ("journal-1", PRESS)):
        await sink.open(JournalIdentity("agent", journal))
        await sink.deliver([BatchMaker()([(series, NOON_MS, 1.0)])])
        await sink.close()
    assert query(path, "SELECT sum(samples) FROM tail") == [(2,)]
    assert StoreReader(path).series() == [PRESS, TEMP]


# When it folds


async def test_an_open_minute_stays_in_the_tail(path: Path, clock: Clock) -> None:
    """A minute is folded once it is over and its late deliveries have had time to come."""
    sink = clock.open_store(path)
    await sink.open(JOURNAL)
    await sink.deliver([BatchMaker()([(PRESS, NOON_MS, 1.0)])])
    clock.advance(MINUTE_MS + fold.CLOSING_GRACE_MS - 1)
    size = await sink.maintain()
    assert size is not None
    assert size.tail_batches == 1
    clock.advance(1)
    size = await sink.maintain()
    assert size is not None
    assert size.tail_batches == 0
    await sink.close()


async def test_samples_of_the_future_do_not_hold_up_the_fold(path: Path, clock: Clock) -> None:
    """A device whose clock runs ahead for ever costs nothing but its own oddness."""
    make = BatchMaker()
    sink = clock.open_store(path)
    await sink.open(JOURNAL)
    tail_batches = []
    for minute in range(6):
        now_ms = NOON_MS + minute * MINUTE_MS
        for _ in range(6):
            await sink.deliver([make([(PRESS, now_ms, 1.0), (TEMP, now_ms + DAY_MS, 2.0)])])
            clock.advance(10_000)
            size = await sink.maintain()
            assert size is not None
            tail_batches.append(size.tail_batches)
    assert max(tail_batches) <= 13
    assert len(StoreReader(path).minutes(PRESS, *EVER)) >= 4
    await sink.close()


async def test_a_fold_takes_no_more_into_memory_than_its_bound(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backlog is folded in several goes."""
    monkeypatch.setattr(fold, "SAMPLES_PER_FOLD_MAX", 10)
    make = BatchMaker()
    sink = clock.open_store(path)
    await sink.open(JOURNAL)
    batches = [make([(PRESS, NOON_MS + n, 0.1 * n) for n in range(k, k + 4)]) for k in range(30)]
    await sink.deliver(batches)
    clock.advance(HOUR_MS)
    assert await sink._run(sink._step)
    assert query(path, "SELECT count(*) FROM tail") == [(28,)]
    await sink.maintain()
    await sink.close()
    assert [row.samples for row in StoreReader(path).minutes(PRESS, *EVER)] == [33]


async def test_deliveries_go_through_between_the_steps_of_a_fold(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is delivered while a fold is under way is neither lost nor folded twice."""
    monkeypatch.setattr(fold, "SLICES_PER_STEP", 1)
    make = BatchMaker()
    sink = clock.open_store(path)
    await sink.open(JOURNAL)
    await sink.deliver([make([(s, NOON_MS, 1.0) for s in (PRESS, TEMP, FLOW)])])
    clock.advance(HOUR_MS)
    assert await sink._run(sink._step)
    await sink.deliver([make([(s, NOON_MS + 1, 3.0) for s in (PRESS, TEMP, FLOW)])])
    reader = StoreReader(path)
    assert [row.value for row in reader.latest()] == [3.0, 3.0, 3.0]
    await sink.maintain()
    await sink.close()
    for series in (PRESS, TEMP, FLOW):
        assert_same(reader.hours(series, *EVER), [Bucket(NOON_MS, 2.0, 1.0, 3.0, 3.0, 2)])


# What it forgets


async def test_each_table_keeps_its_time(path: Path, clock: Clock) -> None:
    """Raw samples for hours, minutes for days (by the whole hour), hours for ten years."""
    make = BatchMaker()
    sink = clock.open_store(path, raw_hours=2, minute_days=1)
    await sink.open(JOURNAL)
    start_ms = clock.now_ms
    for n in range(0, 30 * 60, 20):  # each 20 minutes for 30 hours
        await sink.deliver([make([(PRESS, start_ms + n * MINUTE_MS, float(n))])])
        clock.advance(20 * MINUTE_MS)
        await sink.maintain()
    await sink.close()
    reader = StoreReader(path)
    now_ms = clock.now_ms
    assert len(reader.raw(PRESS, *EVER)[0]) == 2 * 3
    assert reader.minutes(PRESS, *EVER)[0].start_ms == now_ms - DAY_MS
    assert len(reader.hours(PRESS, *EVER)) == 30


async def test_nothing_expires_by_a_clock_that_has_jumped(path: Path, clock: Clock) -> None:
    """A clock that is wrong for less than an hour erases nothing."""
    sink = clock.open_store(path)
    await sink.open(JOURNAL)
    await sink.deliver([BatchMaker()([(PRESS, NOON_MS, 1.0)])])
    clock.advance(2 * HOUR_MS)
    await sink.maintain()
    clock.now_ms += 3650 * DAY_MS
    for _ in range(5):
        await sink.maintain()
        clock.advance(11 * MINUTE_MS)
    clock.now_ms -= 3650 * DAY_MS
    await sink.maintain()
    assert len(StoreReader(path).raw(PRESS, *EVER)[0]) == 1
    await sink.close()


async def test_the_file_stays_within_its_size(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Near bytes_max the oldest samples go first; the last hour and the minutes stay longest."""
    monkeypatch.setattr(upkeep, "ROWS_PER_STEP", 20)
    rng = random.Random(1)
    make = BatchMaker()
    bytes_max = 1_500_000
    sink = clock.open_store(path, bytes_max=bytes_max)
    await sink.open(JOURNAL)
    sizes = []
    for _ in range(300):
        now_ms = clock.now_ms
        await sink.deliver([make([(PRESS, now_ms + n * 60, rng.random()) for n in range(1000)])])
        clock.advance(MINUTE_MS + fold.CLOSING_GRACE_MS)
        size = await sink.maintain()
        assert size is not None
        sizes.append(size.file_bytes)
    await sink.close()
    assert bytes_max * 0.8 < max(sizes) <= bytes_max
    reader = StoreReader(path)
    assert len(reader.raw(PRESS, clock.now_ms - HOUR_MS, EVER[1])[0]) >= 55_000
    assert len(reader.minutes(PRESS, *EVER)) >= 300


async def test_a_file_that_has_become_empty_shrinks(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room that is not needed any more goes back to the file system, and is reported."""
    monkeypatch.setattr(upkeep, "SHRINK_PAGES_MIN", 10)
    rng = random.Random(1)
    sink = clock.open_store(path, raw_hours=1)
    await sink.open(JOURNAL)
    await sink.deliver(
        [BatchMaker()([(PRESS, NOON_MS + n * 10, rng.random()) for n in range(60_000)])]
    )
    clock.advance(11 * MINUTE_MS)
    full = await sink.maintain()
    clock.advance(3 * HOUR_MS)
    empty = await sink.maintain()
    assert full is not None
    assert empty is not None
    assert empty.file_bytes < full.file_bytes / 2
    await sink.close()
    assert path.stat().st_size == empty.file_bytes


# What it survives


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def truncate(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: overwrite(path, 0, b"\xff" * 200),
        lambda path: overwrite(path, 100, b"\xff" * 4000),
        lambda path: path.write_bytes(random.Random(1).randbytes(50_000)),
        truncate,
    ],
    ids=["header", "first page", "garbage", "truncated"],
)
async def test_a_damaged_file_is_set_aside_and_a_new_one_begun(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], object]
) -> None:
    """The agent goes on by itself; the old file is kept, and an ERROR line names it."""
    make = BatchMaker()
    sink = clock.open_store(path)
    await sink.open(JOURNAL)
    await sink.deliver([make([(PRESS, NOON_MS + n, 0.1 * n) for n in range(2000)])])
    await sink.close()
    damage(path)
    batch = make([(TEMP, NOON_MS, 1.0)])
    for _ in range(2):  # what opens may still turn out to be damaged
        try:
            await sink.open(JOURNAL)
            await sink.deliver([batch])
            break
        except TransientError:
            await sink.close()
    clock.advance(HOUR_MS)
    await sink.maintain()
    await sink.close()
    assert StoreReader(path).latest() == [(TEMP, NOON_MS, 1.0)]
    (aside,) = [name for name in damaged_files(path) if not name.endswith(("-wal", "-shm"))]
    assert aside in caplog.text


async def test_a_damaged_file_is_kept_whatever_the_clock_says(path: Path, clock: Clock) -> None:
    """Files that are damaged in one second have names of their own, and each keeps its log."""
    for number in range(3):
        path.write_bytes(b"\xff" * 4096 * (number + 1))
        path.with_name("store.db-wal").write_bytes(bytes([number]) * 100)
        sink = clock.open_store(path)
        await sink.open(JOURNAL)
        await sink.close()
    names = [f"store.db.damaged-20241004T120000Z{ending}" for ending in ("", "-2", "-3")]
    kept = {name for name in damaged_files(path) if not name.endswith("-shm")}
    assert kept == {*names, *(f"{name}-wal" for name in names)}
    for number, name in enumerate(names):
        assert path.with_name(name).stat().st_size == 4096 * (number + 1)
        assert path.with_name(f"{name}-wal").read_bytes() == bytes([number]) * 100


async def test_a_damaged_file_stays_set_aside_after_a_power_cut(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its new name is on the disk before a new store is begun under the old one."""
    synced: list[list[str]] = []
    fsync = os.fsync

    def noted(file: int) -> None:
        fsync(file)
        if stat.S_ISDIR(os.fstat(file).st_mode):
            synced.append(sorted(found.name for found in path.parent.iterdir()))

    monkeypatch.setattr(os, "fsync", noted)
    path.write_bytes(b"\xff" * 4096)
    sink = clock.open_store(path)
    await sink.open(JOURNAL)
    await sink.close()
    assert synced == [damaged_files(path)]


async def test_a_damaged_file_that_cannot_be_renamed_is_a_transient_error(
    path: Path, clock: Clock
) -> None:
    """Such as on a disk that the system has made read-only; the next attempt finds all of it."""
    path.write_bytes(b"\xff" * 4096)
    log = path.with_name("store.db-wal")
    log.write_bytes(b"log")
    in_the_way = path.with_name("store.db.damaged-20241004T120000Z-wal")
    in_the_way.mkdir()
    sink = clock.open_store(path)
    with pytest.raises(TransientError, match="Is a directory"):
        await sink.open(JOURNAL)
    assert path.read_bytes() == b"\xff" * 4096
    assert log.read_bytes() == b"log"
    in_the_way.rmdir()
    await sink.open(JOURNAL)
    await sink.close()
    assert in_the_way.read_bytes() == b"log"
    assert StoreReader(path).latest() == []


async def test_a_log_without_its_file_does_not_keep_the_store_from_opening(
    path: Path, clock: Clock
) -> None:
    """Somebody deletes the file alone after a crash, or a crash comes between the two renames."""
    make = BatchMaker()
    sink = clock.open_store(path)
    await sink.open(JOURNAL)
    await sink.deliver([make([(PRESS, NOON_MS, 1.0)])])
    log = path.with_name("store.db-wal").read_bytes()
    await sink.close()
    path.unlink()
    path.with_name("store.db-wal").write_bytes(log)
    sink = clock.open_store(path)
    await sink.open(JOURNAL)
    await sink.deliver([make([(TEMP, NOON_MS, 2.0)])])
    await sink.close()
    assert StoreReader(path).latest() == [(TEMP, NOON_MS, 2.0)]


async def test_damage_found_by_upkeep_sets_the_file_aside(path: Path, clock: Clock) -> None:
    """Not only opening finds damage: whichever call meets it fails, and the next open is fresh."""
    make = BatchMaker()
    sink = clock.open_store(path)
    await sink.open(JOURNAL)
    await sink.deliver([make([(PRESS, NOON_MS + n, 0.1 * n) for n in range(50_000)])])
    await sink.close()
    await sink.open(JOURNAL)
    # Every page but the first few: the header and the schema stay sound.
    overwrite(path, 40_960, b"\xff" * (path.stat().st_size - 40_960))
    clock.advance(HOUR_MS)
    with pytest.raises(TransientError, match="malformed"):
        await sink.maintain()
    with pytest.raises(TransientError, match="not open"):
        await sink.deliver([make([(PRESS, NOON_MS, 1.0)])])
    await sink.close()
    await sink.open(JOURNAL)
    await sink.deliver([make([(PRESS, NOON_MS, 1.0)])])
    await sink.close()
    assert damaged_files(path)


async def test_a_damaged_blob_costs_only_itself(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A flipped bit in a sound file: that batch or slice is left out, with an ERROR line."""
    make = BatchMaker()
    sink = clock.open_store(path)
    await sink.open(JOURNAL)
    for value in (1.0, 2.0):
        await sink.deliver([make([(PRESS, NOON_MS + int(value), value)])])
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE tail SET data = zeroblob(length(data)) WHERE id = 1")
        db.commit()
    assert StoreReader(path).raw(PRESS, *EVER)[1].tolist() == [2.0]
    clock.advance(HOUR_MS)
    await sink.maintain()
    assert "batch 1 of the tail is damaged" in caplog.text
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE raw SET data = x'00'")
        db.commit()
    assert StoreReader(path).raw(PRESS, *EVER)[1].tolist() == []
    for offset_ms, value in ((3, 4.0), (4, 9.0)):
        await sink.deliver([make([(PRESS, NOON_MS + offset_ms, value)])])
        await sink.maintain()
    await sink.close()
    assert "raw slice" in caplog.text
    assert StoreReader(path).raw(PRESS, *EVER)[1].tolist() == [4.0, 9.0]
    assert_same(StoreReader(path).minutes(PRESS, *EVER), [Bucket(NOON_MS, 5.0, 2.0, 9.0, 9.0, 3)])
    assert damaged_files(path) == []


async def test_a_file_that_is_not_ours_is_left_alone(path: Path, clock: Clock) -> None:
    """Another program's database, or a later format, is refused with what to do about it."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE precious (x)")
        db.commit()
    before = path.read_bytes()
    sink = clock.open_store(path)
    with pytest.raises(TransientError, match="not a store of format 1") as caught:
        await sink.open(JOURNAL)
    assert "move the file away" in caught.value.hint
    with pytest.raises(TransientError, match="not open"):
        await sink.deliver([])
    await sink.close()
    assert query(path, "SELECT name FROM sqlite_master") == [("precious",)]
    assert len(path.read_bytes()) == len(before)


async def test_a_deleted_file_is_noticed(path: Path, clock: Clock) -> None:
    """Nothing is written into a file that no longer has a name."""
    make = BatchMaker()
    sink = clock.open_store(path)
    await sink.open(JOURNAL)
    await sink.deliver([make([(PRESS, NOON_MS, 1.0)])])
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink()
    batch = make([(PRESS, NOON_MS + 1, 2.0)])
    with pytest.raises(TransientError):
        await sink.deliver([batch])
    await sink.close()
    await sink.open(JOURNAL)
    await sink.deliver([batch])
    await sink.close()
    assert StoreReader(path).raw(PRESS, *EVER)[1].tolist() == [2.0]


async def test_a_reader_follows_when_the_file_is_replaced(path: Path, clock: Clock) -> None:
    """A dashboard that has been running for weeks shows the new store, not a mixture."""
    reader = StoreReader(path)
    with pytest.raises(TransientError, match="can't be read") as caught:
        reader.latest()
    assert "the agent creates it" in caught.value.hint
    for series in (PRESS, TEMP):
        sink = clock.open_store(path)
        await sink.open(JOURNAL)
        await sink.deliver([BatchMaker()([(series, NOON_MS, 1.0)])])
        assert reader.latest() == [(series, NOON_MS, 1.0)]
        assert reader.series() == [series]
        await sink.close()
        path.unlink()


async def test_a_full_store_says_what_to_do_and_recovers(path: Path, clock: Clock) -> None:
    """At its hard size a delivery fails, upkeep sheds, and the same delivery succeeds."""
    rng = random.Random(1)
    make = BatchMaker()
    sink = clock.open_store(path, bytes_max=1_000_000)
    await sink.open(JOURNAL)

    def noise() -> Batch:
        start_ms = clock.now_ms
        clock.advance(MINUTE_MS)
        return make([(PRESS, start_ms + n, rng.random()) for n in range(20_000)])

    handed: list[Batch] = []

    async def fill() -> None:
        for _ in range(100):
            handed.append(noise())
            await sink.deliver(handed[-1:])

    with pytest.raises(TransientError, match="full") as caught:
        await fill()
    assert "fewer raw_hours" in caught.value.hint
    assert path.stat().st_size <= 1_000_000
    clock.advance(2 * HOUR_MS)
    await sink.maintain()
    await sink.deliver(handed[-1:])
    await sink.close()
    assert len(StoreReader(path).raw(PRESS, handed[-1].first_ts_ms, EVER[1])[0]) == 20_000


async def test_maintain_without_an_open_store_does_nothing(path: Path, clock: Clock) -> None:
    """The agent need not know whether the store is open at the moment."""
    assert await clock.open_store(path).maintain() is None


# The bytes

parts = st.lists(
    st.tuples(
        st.integers(0, 59_999),
        st.one_of(
            st.floats(allow_nan=False, allow_infinity=False),
            st.floats(width=32, allow_nan=False, allow_infinity=False),
            st.sampled_from([0.0, -0.0]),
        ),
    ),
    min_size=1,
    unique_by=lambda pair: pair[0],
).map(lambda pairs: Slice(array("H", [p[0] for p in pairs]), array("d", [p[1] for p in pairs])))


@given(parts)
def test_a_slice_is_packed_bit_by_bit(part: Slice) -> None:
    """Constant, float32 and float64 columns all come back as they were, the sign of zero too."""
    found = layout.unpack_slice(layout.pack_slice(part))
    assert found.offsets_ms == part.offsets_ms
    assert found.values.tobytes() == part.values.tobytes()


@given(parts, st.data())
def test_a_changed_byte_is_noticed(part: Slice, data: st.DataObject) -> None:
    """No slice with a flipped or missing byte is taken for samples."""
    blob = bytearray(layout.pack_slice(part))
    position = data.draw(st.integers(0, len(blob) - 1))
    blob[position] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(blob), bytes(blob[:position])):
        with pytest.raises(layout.DamagedBlob):
            layout.unpack_slice(damaged)


@given(parts)
def test_a_summary_lies_within_its_samples(part: Slice) -> None:
    """The average of huge values neither overflows nor leaves the range between the extremes."""
    summary = layout.summarise(layout.ascending(part))
    assert summary.min <= summary.avg <= summary.max
    both = layout.combine(summary, summary)
    assert both.samples == 2 * summary.samples
    assert both.min <= both.avg <= both.max


def test_a_slice_of_scaled_integers_takes_six_bytes_a_sample() -> None:
    """What the forecast of disk space is computed from."""
    offsets = array("H", range(0, 60_000, 1000))

    def bytes_per_sample(values: Iterable[float]) -> float:
        return (len(layout.pack_slice(Slice(offsets, array("d", values)))) - 5) / 60

    assert bytes_per_sample([1.5] * 60) < 2.2
    assert bytes_per_sample(map(float, range(60))) == 6
    assert bytes_per_sample(n * 0.1 for n in range(60)) == 10
