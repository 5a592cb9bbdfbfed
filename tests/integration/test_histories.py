"""The contract of a history, held over every source on the same samples.

The embedded store is written by its sink, the databases by theirs; asked is with no more rights
than `viewer`.
"""

from __future__ import annotations

import asyncio
import math
import sqlite3
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Protocol

import asyncpg
import orjson
import pytest

from dashboard.chart import chart
from dashboard.data import postgres as postgres_history
from dashboard.data import store as store_history
from dashboard.data.base import Buckets, History, Newest, Row
from dashboard.data.postgres import PostgresHistory
from dashboard.data.store import StoreHistory
from dashboard.export import export
from edge_agent.clock import DAY_MS, HOUR_MS, MINUTE_MS
from edge_agent.errors import ConfigError, TransientError
from edge_agent.model import Series, TagKey
from edge_agent.sinks.base import JournalIdentity
from edge_agent.sinks.postgres import PostgresSink
from edge_agent.sinks.store import StoreSink
from tests.batches import BatchMaker, Sample
from tests.integration.plc_database import Cluster, CuttingProxy, Database, now_ms

JOURNAL = JournalIdentity("agent", "journal-1")
PRESS = Series("A1", "L1", "PUMP01", "PRESS", "bar")
TEMP = Series("A1", "L1", "PUMP01", "온도", "°C")
HUGE = Series("A1", "L1", "PUMP01", "HUGE", "")
OLD_FLOW = Series("A1", "L2", "PUMP01", "FLOW", "m³/h")
FLOW = Series("A1", "L1", "PUMP01", "FLOW", "l/min")
FAN = Series("A1", "", "FAN 02", "RPM", "")
ELSEWHERE = Series("제2공장", "L1", "PUMP01", "PRESS", "kPa")
PUMP = ("A1", "PUMP01")
ALL = ["PRESS", "온도", "HUGE", "FLOW"]


def plant(until_ms: int) -> list[Sample]:
    """Six hours of samples up to a time, one scan after the other.

    PRESS each 10 s with a gap of an hour; 온도 each minute; HUGE each minute, all but too large;
    FLOW changes its line and unit on the way; one device and tag of the same name elsewhere.
    """
    end_ms = until_ms // MINUTE_MS * MINUTE_MS
    found: list[Sample] = []
    for ts_ms in range(end_ms - 6 * HOUR_MS, until_ms, 10_000):
        age_ms = end_ms - ts_ms
        if not 2 * HOUR_MS < age_ms <= 3 * HOUR_MS:
            found.append((PRESS, ts_ms, (ts_ms // 10_000 % 97) / 8))
        if ts_ms % MINUTE_MS == 0:
            minute = ts_ms // MINUTE_MS
            found.append((TEMP, ts_ms, 20 + minute % 13 / 4))
            found.append((HUGE, ts_ms, (1 if minute % 2 else -1) * 1.5e308))
            found.append((OLD_FLOW if age_ms > HOUR_MS else FLOW, ts_ms, minute % 7 / 2))
            if age_ms > 4 * HOUR_MS:
                found.append((FAN, ts_ms, float(minute % 5)))
            found.append((ELSEWHERE, ts_ms, 1000 + minute % 3))
    return found


class Source(Protocol):
    """One kind of history, and what only a test does with it."""

    history: History
    asked_ms: int
    """The time up to which the plant has been sampled."""

    async def write(self, samples: list[Sample]) -> None:
        """Bring samples in as the agent does, and let aggregates follow."""

    async def leave(self) -> None:
        """From now on it is away."""

    async def return_(self) -> None:
        """It is back."""

    async def close(self) -> None:
        """Give everything back."""


class StoreSource:
    """The embedded store, its sink beside it."""

    def __init__(self, path: Path) -> None:
        self.asked_ms = now_ms()
        self.path = path
        self.history: History = StoreHistory(path)
        self._now_ms = self.asked_ms
        self._sink = StoreSink(path, now_ms=lambda: self._now_ms, elapsed_ms=lambda: 0)
        self._make = BatchMaker()

    async def write(self, samples: list[Sample]) -> None:
        await self._sink.open(JOURNAL)
        minutes = groupby(samples, key=lambda sample: sample[1] // MINUTE_MS)
        await self._sink.deliver([self._make(minute) for _, minute in minutes])
        await self._sink.maintain()
        await self._sink.close()

    async def leave(self) -> None:
        self.path.rename(self.path.with_suffix(".away"))

    async def return_(self) -> None:
        self.path.with_suffix(".away").rename(self.path)

    async def close(self) -> None:
        await self.history.close()
        await self._sink.close()


class DatabaseSource:
    """A database of a cluster."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.asked_ms = now_ms()
        self.db = Database(cluster, name)
        self.history: History = PostgresHistory("edge", self.db.dsn("reader"))
        self._make = BatchMaker()

    async def write(self, samples: list[Sample]) -> None:
        sink = PostgresSink(agent_id="agent", dsn=self.db.dsn())
        await sink.open(JOURNAL)
        await sink.deliver([self._make(samples)])
        await sink.close()
        hours = (max(now_ms() - min(ts for _, ts, _ in samples), 0) // HOUR_MS) + 2
        await self.db.execute(f"CALL plc_refresh(now() - interval '{hours} hours', now())")

    async def leave(self) -> None:
        self.db.cluster.server.stop()

    async def return_(self) -> None:
        self.db.cluster.server.start()

    async def close(self) -> None:
        await self.history.close()


@pytest.fixture
async def empty(history_cluster: Cluster | None, tmp_path: Path) -> AsyncIterator[Source]:
    """A source without samples; the store's file is not even there."""
    source: Source
    if history_cluster is None:
        source = StoreSource(tmp_path / "store.db")
    else:
        source = DatabaseSource(history_cluster, await history_cluster.fresh())
    yield source
    await source.close()


@pytest.fixture
async def source(empty: Source) -> Source:
    """A source that has the plant's samples."""
    await empty.write(plant(empty.asked_ms))
    return empty


def model(samples: list[Sample], part_ms: int) -> dict[TagKey, dict[int, list[float]]]:
    """Values by tag and by the start of their minute or hour."""
    found: dict[TagKey, dict[int, list[float]]] = defaultdict(dict)
    for series, ts_ms, value in samples:
        key = TagKey(series.site, series.device, series.tag)
        found[key].setdefault(ts_ms // part_ms * part_ms, []).append(value)
    return found


def grouped(parts: Mapping[int, list[float]], step_ms: int) -> list[tuple[float, ...]]:
    """Buckets as they have to be: start, average, lowest, highest, number of parts."""
    steps: dict[int, list[list[float]]] = defaultdict(list)
    for start_ms, values in sorted(parts.items()):
        steps[start_ms // step_ms * step_ms].append(values)
    rows: list[tuple[float, ...]] = []
    for start_ms, lists in steps.items():
        values = [value for part in lists for value in part]
        average = math.fsum(value / len(values) for value in values)
        rows.append((start_ms, average, min(values), max(values), len(lists)))
    return rows


def rows_of(buckets: Buckets) -> list[tuple[float, ...]]:
    """The columns as rows."""
    columns = (buckets.averages, buckets.lowest, buckets.highest, buckets.parts)
    return list(zip(buckets.times_ms, *columns, strict=True))


def assert_close(found: list[tuple[float, ...]], wanted: list[tuple[float, ...]]) -> None:
    """Equal rows; averages up to rounding, and inside their band."""
    assert [(row[0], *row[2:]) for row in found] == [(row[0], *row[2:]) for row in wanted]
    for row, expected in zip(found, wanted, strict=True):
        assert row[1] == pytest.approx(expected[1], rel=1e-9, abs=1e-9)
        assert row[2] <= row[1] <= row[3]


def closed(source: Source) -> tuple[int, int]:
    """Five hours of whole minutes that every source has summarised by now."""
    end_ms = source.asked_ms // MINUTE_MS * MINUTE_MS - 3 * MINUTE_MS
    return end_ms - 5 * HOUR_MS, end_ms


# What it answers


async def test_minutes_are_the_averages_of_all_tags(source: Source) -> None:
    """Every tag of every device, by time; a tag whose unit changed is one tag."""
    start_ms, end_ms = closed(source)
    found = await source.history.minutes(start_ms, end_ms)
    wanted = {
        key: {ms: values for ms, values in parts.items() if start_ms <= ms < end_ms}
        for key, parts in model(plant(source.asked_ms), MINUTE_MS).items()
    }
    assert found.keys() == {key for key, parts in wanted.items() if parts}
    for key, minutes in found.items():
        assert minutes.times_ms.tolist() == sorted(wanted[key])
        if key.tag != "HUGE":
            averages = [math.fsum(v) / len(v) for _, v in sorted(wanted[key].items())]
            assert minutes.averages.tolist() == pytest.approx(averages, rel=1e-9)
    some = set(sorted(found)[:2])
    assert await source.history.minutes(start_ms, end_ms, some) == {key: found[key] for key in some}
    assert await source.history.minutes(start_ms, end_ms, set()) == {}
    assert await source.history.minutes(start_ms - 10 * DAY_MS, start_ms - 9 * DAY_MS) == {}


async def test_newest_is_the_newest_sample_of_each_tag(source: Source) -> None:
    """With the line and unit that it has now; who was silent since then is left out."""
    newest: dict[TagKey, Newest] = {}
    for series, ts_ms, value in plant(source.asked_ms):
        newest[TagKey(series.site, series.device, series.tag)] = Newest(series, ts_ms, value)
    since_ms = source.asked_ms - 3 * HOUR_MS
    found = await source.history.newest(since_ms)
    assert sorted(found) == sorted(one for one in newest.values() if one.ts_ms >= since_ms)
    assert FAN not in [one.series for one in found]
    longer = await source.history.newest(source.asked_ms - 7 * HOUR_MS)
    assert sorted(longer) == sorted(newest.values())
    assert FLOW in [one.series for one in longer]
    assert OLD_FLOW not in [one.series for one in longer]


@pytest.mark.parametrize("step_ms", [MINUTE_MS, 5 * MINUTE_MS, 30 * MINUTE_MS])
async def test_buckets_of_minutes(source: Source, step_ms: int) -> None:
    """Average, lowest, highest and number of minutes per step, on one grid for all tags."""
    start_ms, end_ms = closed(source)
    found = await source.history.buckets(*PUMP, ALL, start_ms, end_ms, step_ms)
    assert found.keys() == set(ALL)
    minutes = model(plant(source.asked_ms), MINUTE_MS)
    for tag in ("PRESS", "온도", "FLOW"):
        inside = {
            ms: values
            for ms, values in minutes[TagKey(*PUMP, tag)].items()
            if start_ms <= ms < end_ms
        }
        assert_close(rows_of(found[tag]), grouped(inside, step_ms))
    huge = found["HUGE"]
    assert max(huge.highest) == 1.5e308
    assert min(huge.lowest) == -1.5e308
    assert all(map(math.isfinite, huge.averages))


@pytest.mark.parametrize("step_ms", [HOUR_MS, 3 * HOUR_MS])
async def test_buckets_of_hours(source: Source, step_ms: int) -> None:
    """Whole hours are made of hours, and say how many of them have samples."""
    end_ms = (source.asked_ms - 3 * MINUTE_MS) // HOUR_MS * HOUR_MS
    start_ms = end_ms - 5 * HOUR_MS
    found = await source.history.buckets(*PUMP, ["온도"], start_ms, end_ms, step_ms)
    hours = model(plant(source.asked_ms), HOUR_MS)[TagKey(*PUMP, "온도")]
    inside = {ms: values for ms, values in hours.items() if start_ms <= ms < end_ms}
    assert len(inside) == 5
    assert_close(rows_of(found["온도"]), grouped(inside, step_ms))


async def test_samples_are_every_sample_up_to_now(source: Source) -> None:
    """By time, from the start of the range to before its end, the newest ones too."""
    end_ms = source.asked_ms + 1
    for start_ms in (end_ms - 6 * HOUR_MS, end_ms - 30 * MINUTE_MS, end_ms - MINUTE_MS):
        found = await source.history.samples(*PUMP, ALL, start_ms, end_ms)
        for tag in ALL:
            wanted = [
                (ts_ms, value)
                for series, ts_ms, value in plant(source.asked_ms)
                if (series.site, series.device, series.tag) == (*PUMP, tag)
                and start_ms <= ts_ms < end_ms
            ]
            samples = found.get(tag)
            pairs = (
                [] if samples is None else list(zip(samples.times_ms, samples.values, strict=True))
            )
            assert pairs == wanted
    (first, second) = found["PRESS"].times_ms[:2]
    inner = await source.history.samples(*PUMP, ["PRESS"], first, second)
    assert inner["PRESS"].times_ms.tolist() == [first]
    assert await source.history.samples(*PUMP, ["PRESS"], first + 1, second) == {}


async def test_counts_say_how_many_samples_there_are(source: Source) -> None:
    """Of whole minutes; a tag without any is left out."""
    start_ms, end_ms = closed(source)
    counts = await source.history.counts(*PUMP, [*ALL, "NONE"], start_ms, end_ms)
    assert counts == {"PRESS": 4 * 360, "온도": 300, "HUGE": 300, "FLOW": 300}


async def test_seen_tells_who_had_samples(source: Source) -> None:
    """A new tag from one that was away."""
    end_ms = source.asked_ms // HOUR_MS * HOUR_MS
    tags = ["RPM", "NONE"]
    assert await source.history.seen("A1", "FAN 02", tags, end_ms - DAY_MS, end_ms) == {"RPM"}
    assert await source.history.seen("A1", "FAN 02", tags, end_ms - HOUR_MS, end_ms) == set()


async def test_series_have_the_newest_line_and_unit(source: Source) -> None:
    """Of the tags asked for, as far as they are known."""
    found = await source.history.series(*PUMP, ["FLOW", "온도", "NONE"])
    assert found == {"FLOW": FLOW, "온도": TEMP}
    assert await source.history.series("제2공장", "PUMP01", ["PRESS"]) == {"PRESS": ELSEWHERE}


@pytest.mark.parametrize("limit", [1, 7, 100, 3_000])
async def test_rows_are_the_newest_samples_together(source: Source, limit: int) -> None:
    """Newest first, over all of these tags, across what is folded and what is not."""
    tags = ["PRESS", "온도"]
    wanted = sorted(
        (
            Row(ts_ms, series.tag, value)
            for series, ts_ms, value in plant(source.asked_ms)
            if (series.site, series.device) == PUMP and series.tag in tags
        ),
        reverse=True,
    )
    assert await source.history.rows(*PUMP, tags, limit) == wanted[:limit]


async def test_a_tag_without_data_is_left_out(source: Source) -> None:
    """As are an unknown device, an unknown site, and no tags at all."""
    start_ms, end_ms = closed(source)
    for site, device, tags in (
        ("A1", "PUMP01", ["NONE", "press"]),
        ("A1", "PUMP02", ALL),
        ("", "", [""]),
        ("A1", "PUMP01", []),
        ("A1' OR 1=1 --", "PUMP01", ["PRESS"]),
    ):
        history = source.history
        assert await history.buckets(site, device, tags, start_ms, end_ms, MINUTE_MS) == {}
        assert await history.buckets(site, device, tags, start_ms, end_ms, HOUR_MS) == {}
        assert await history.samples(site, device, tags, start_ms, end_ms) == {}
        assert await history.counts(site, device, tags, start_ms, end_ms) == {}
        assert await history.seen(site, device, tags, start_ms, end_ms) == set()
        assert await history.series(site, device, tags) == {}
        assert await history.rows(site, device, tags, 10) == []


async def test_any_range_is_answered(source: Source) -> None:
    """The whole of time, nothing of it, and a range that ends before it begins."""
    history = source.history
    for start_ms, end_ms, has_data in ((0, 1 << 45, True), (5, 5, False), (1 << 44, 0, False)):
        found = await history.buckets(*PUMP, ["온도"], start_ms, end_ms, 1000 * HOUR_MS)
        assert bool(found) is has_data
        assert bool(await history.samples(*PUMP, ["온도"], start_ms, end_ms)) is has_data
        assert bool(await history.minutes(start_ms, end_ms)) is has_data


async def test_nothing_has_expired_yet(source: Source) -> None:
    """A young source has samples and minutes as far back as it has anything."""
    kept = await source.history.kept()
    assert kept.samples_from_ms < source.asked_ms - 6 * HOUR_MS
    assert kept.minutes_from_ms <= kept.samples_from_ms


async def test_health_tells_figures(source: Source) -> None:
    """Its size among them, and none that needs somebody."""
    checks = await source.history.health()
    sizes = [one for one in checks if one.check in ("file_bytes", "database_bytes")]
    assert max(size.value for size in sizes) > 10_000
    assert not [size.problem for size in sizes if size.problem]


async def test_calls_may_overlap(source: Source) -> None:
    """More of them than there are connections or threads, and each gets its own answer."""
    start_ms, end_ms = closed(source)
    alone = {
        tag: await source.history.samples(*PUMP, [tag], start_ms, end_ms)
        for tag in ("PRESS", "온도")
    }
    together = await asyncio.gather(
        *(
            source.history.samples(*PUMP, [tag], start_ms, end_ms)
            for _ in range(10)
            for tag in ("PRESS", "온도")
        )
    )
    assert together == [alone[tag] for _ in range(10) for tag in ("PRESS", "온도")]


async def test_a_call_that_nobody_waits_for_does_no_harm(source: Source) -> None:
    """A reader who leaves in the middle, many times over, costs neither connection nor thread."""
    start_ms, end_ms = closed(source)
    for delay_s in (0.0, 0.0005, 0.002, 0.005) * 3:
        task = asyncio.create_task(source.history.minutes(start_ms, end_ms))
        await asyncio.sleep(delay_s)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert await source.history.minutes(start_ms, end_ms)


async def test_an_empty_source_answers_nothing(empty: Source) -> None:
    """A database without rows, a store without series: no error, no data."""
    if isinstance(empty, StoreSource):
        await empty.write([])
    history, at_ms = empty.history, empty.asked_ms
    assert await history.minutes(at_ms - HOUR_MS, at_ms) == {}
    assert await history.newest(at_ms - HOUR_MS) == []
    assert await history.rows(*PUMP, ALL, 5) == []
    assert (await history.kept()).minutes_from_ms < at_ms
    found = await chart(history, *PUMP, ["PRESS"], at_ms - HOUR_MS, at_ms, at_ms)
    assert found["tags"][0]["times"] == []


# Charts and files over it


@pytest.mark.parametrize("range_ms", [30 * MINUTE_MS, 5 * HOUR_MS])
async def test_a_chart_reaches_to_now(source: Source, range_ms: int) -> None:
    """At every resolution, though minutes lag behind."""
    at_ms = source.asked_ms
    found = await chart(source.history, *PUMP, [*ALL, "NONE"], at_ms - range_ms, at_ms, at_ms)
    assert orjson.loads(orjson.dumps(found)) == found
    lines = {line["tag"]: line for line in found["tags"]}
    assert found["kind"] == ("samples" if range_ms <= HOUR_MS else "minutes")
    newest_ms = max(ts_ms for series, ts_ms, _ in plant(at_ms) if series == PRESS)
    part_ms = 1 if range_ms <= HOUR_MS else MINUTE_MS
    assert lines["PRESS"]["times"][-1] == newest_ms // part_ms * part_ms
    gap = HOUR_MS / range_ms if range_ms > HOUR_MS else 0
    assert lines["PRESS"]["figures"]["coverage"] == pytest.approx(1 - gap, abs=0.02)
    assert lines["NONE"]["times"] == []
    assert lines["HUGE"]["figures"]["highest"] == 1.5e308


async def test_a_file_has_every_sample(source: Source) -> None:
    """Of a Korean tag: as many rows as samples, with its unit."""
    at_ms = source.asked_ms
    pieces = await export(source.history, *PUMP, ["온도"], at_ms - 5 * HOUR_MS, at_ms, at_ms)
    text = b"".join([piece async for piece in pieces]).decode("utf-8-sig")
    _, *rows = text.strip().split("\r\n")
    assert len(rows) == 300
    assert all(row.endswith(",°C") and ",A1,L1,PUMP01,온도," in row for row in rows)


# When it is away


async def test_it_is_away_and_comes_back(source: Source) -> None:
    """Every call says so and what to do, none waits for long, and the first one after it works."""
    history = source.history
    start_ms, end_ms = closed(source)
    before = await history.samples(*PUMP, ALL, start_ms, end_ms)
    await source.leave()
    try:
        for call in (
            history.minutes(start_ms, end_ms),
            history.newest(start_ms),
            history.samples(*PUMP, ALL, start_ms, end_ms),
            history.kept(),
            history.health() if not isinstance(source, StoreSource) else history.kept(),
            history.rows(*PUMP, ALL, 5),
        ):
            started = time.monotonic()
            with pytest.raises(TransientError) as raised:
                await call
            assert time.monotonic() - started < 5
        assert raised.value.hint
    finally:
        await source.return_()
    assert await history.samples(*PUMP, ALL, start_ms, end_ms) == before


async def test_closing_twice_and_without_a_call(empty: Source) -> None:
    """Never raises."""
    await empty.history.close()
    await empty.history.close()


# The store alone


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[StoreSource]:
    source = StoreSource(tmp_path / "store.db")
    yield source
    await source.close()


async def test_a_store_that_is_replaced_is_read_anew(store: StoreSource, tmp_path: Path) -> None:
    """Ids of the old file mean nothing in the new one."""
    at_ms = store.asked_ms
    await store.write([(TEMP, at_ms, 1.0), (PRESS, at_ms, 2.0)])
    assert len(await store.history.newest(0)) == 2
    other = StoreSource(tmp_path / "other.db")
    await other.write([(PRESS, at_ms, 3.0)])
    await other.close()
    for suffix in ("-wal", "-shm"):
        store.path.with_name(store.path.name + suffix).unlink(missing_ok=True)
    other.path.rename(store.path)
    assert await store.history.newest(0) == [Newest(PRESS, at_ms, 3.0)]
    assert await store.history.rows(*PUMP, ["PRESS", "온도"], 5) == [Row(at_ms, "PRESS", 3.0)]


async def test_the_store_is_only_read(store: StoreSource) -> None:
    """Not a byte of the file changes by whatever is asked, and none is made where none is."""
    with pytest.raises(TransientError) as raised:
        await store.history.newest(0)
    assert "the agent creates it" in raised.value.hint
    assert not store.path.exists()
    await store.write(plant(store.asked_ms))
    before = store.path.read_bytes()
    at_ms = store.asked_ms
    await chart(store.history, *PUMP, ALL, at_ms - 5 * HOUR_MS, at_ms, at_ms)
    await store.history.minutes(0, at_ms)
    assert store.path.read_bytes() == before


async def test_what_the_store_still_has(store: StoreSource) -> None:
    """Since when, as retention leaves it."""
    at_ms = store.asked_ms
    await store.write(plant(at_ms))
    (first_ms, *_) = sorted(ts_ms for _, ts_ms, _ in plant(at_ms))
    with closing(sqlite3.connect(store.path, isolation_level=None)) as db:
        db.execute("DELETE FROM raw WHERE slot < ?", ((first_ms // MINUTE_MS + 60) << 24,))
        kept = await store.history.kept()
        assert (kept.samples_from_ms, kept.minutes_from_ms) == (first_ms + HOUR_MS, 0)
        whole_hour = (first_ms // HOUR_MS + 3) * HOUR_MS
        db.execute("DELETE FROM minute WHERE slot < ?", (whole_hour // MINUTE_MS << 24,))
        assert (await store.history.kept()).minutes_from_ms == whole_hour
        db.execute("DELETE FROM raw")
        assert (await store.history.kept()).samples_from_ms > at_ms


async def test_a_store_call_ends_at_its_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that does not answer holds up neither the page nor, for ever, the thread."""
    monkeypatch.setattr(store_history, "CALL_TIMEOUT_S", 0.3)
    source = StoreSource(tmp_path / "store.db")
    await source.write(plant(source.asked_ms))
    with closing(sqlite3.connect(source.path, isolation_level=None)) as db:
        db.execute(  # an hour that makes SQLite look for a thousand years of hours
            "INSERT INTO hour SELECT 1 << 60, avg, min, max, last, last_ms, samples FROM hour"
            " LIMIT 1"
        )
    with pytest.raises(TransientError, match="no answer within"):
        await source.history.buckets(*PUMP, ALL, 0, 1 << 45, MINUTE_MS)
    await asyncio.sleep(0.3)
    assert await source.history.newest(0)
    await source.close()


# The databases alone


@pytest.fixture
async def database(history_cluster: Cluster | None) -> AsyncIterator[DatabaseSource]:
    if history_cluster is None:
        pytest.skip("of a database only")
    source = DatabaseSource(history_cluster, await history_cluster.fresh())
    yield source
    await source.close()


async def test_a_viewer_reads_and_cannot_write(database: DatabaseSource) -> None:
    """The role that the dashboard asks with has no right to change anything."""
    await database.write(plant(database.asked_ms))
    assert await database.history.newest(database.asked_ms - HOUR_MS)
    for statement in (
        "INSERT INTO plc_raw VALUES (now(), 'A1', 'L1', 'D', 'T', 1, '')",
        "DELETE FROM plc_raw",
        "UPDATE plc_settings SET raw_days = 1",
        "SELECT plc_rollup(1)",
        "CREATE TEMPORARY TABLE mine (n integer)",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await database.db.execute(statement, user="reader")


async def test_a_role_without_rights_is_told_what_to_do(database: DatabaseSource) -> None:
    """It needs `viewer`, not `ingest`."""
    history = PostgresHistory("edge", database.db.dsn("stranger"))
    with pytest.raises(TransientError) as raised:
        await history.kept()
    assert "GRANT viewer TO stranger" in raised.value.hint
    await history.close()


def test_a_wrong_address_is_refused_at_once() -> None:
    """Before anything is connected, and without quoting a password."""
    with pytest.raises(ConfigError) as raised:
        PostgresHistory("edge", "mysql://me:secret@host/plant")
    assert "secret" not in str(raised.value)


async def test_a_server_that_falls_silent_is_given_up(
    database: DatabaseSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cut cable: the call ends in time, and the connection is not used again."""
    await database.write(plant(database.asked_ms))
    monkeypatch.setattr(postgres_history, "CALL_TIMEOUT_S", 0.5)
    port = database.db.cluster.server.port
    async with CuttingProxy(port) as proxy:
        address = database.db.dsn("reader").replace(f":{port}/", f":{proxy.port}/")
        history = PostgresHistory("remote", address)
        assert await history.rows(*PUMP, ALL, 3)
        proxy.stalled = True
        with pytest.raises(TransientError, match="no answer in time"):
            await history.rows(*PUMP, ALL, 3)
        started = time.monotonic()
        calls = (history.rows(*PUMP, ALL, 3) for _ in range(4 * postgres_history.CONNECTIONS_MAX))
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(answer) for answer in answers} == {TransientError}
        assert time.monotonic() - started < 1.6  # those that wait for a connection included
        proxy.stalled = False
        assert await history.rows(*PUMP, ALL, 3)
        proxy.arm(received=100)
        with pytest.raises(TransientError):
            await history.samples(*PUMP, ALL, 0, database.asked_ms)
        proxy.arm()
        assert await history.rows(*PUMP, ALL, 3)
        await history.close()


async def test_a_server_that_was_restarted_meanwhile_is_asked_anew(
    database: DatabaseSource,
) -> None:
    """The connections that it has closed are not tried first."""
    await database.write(plant(database.asked_ms))
    before = await database.history.rows(*PUMP, ALL, 3)
    await database.leave()
    await database.return_()
    await asyncio.sleep(0.05)  # the end of the old connection is read
    assert await database.history.rows(*PUMP, ALL, 3) == before


async def test_few_connections_are_opened_and_kept(database: DatabaseSource) -> None:
    """However many calls come at once; none before the first."""
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'edge-dashboard'"

    async def opened() -> int:
        return int((await database.db.query(f"{count} AND datname = current_database()"))[0][0])

    assert await opened() == 0
    await asyncio.gather(*(database.history.rows(*PUMP, ALL, 1) for _ in range(20)))
    assert await opened() == postgres_history.CONNECTIONS_MAX
    await database.history.close()
    for _ in range(100):
        if not await opened():
            break
        await asyncio.sleep(0.02)
    assert await opened() == 0


async def test_a_new_tag_appears_within_a_minute(database: DatabaseSource) -> None:
    """The list of tags is asked for anew when it is a minute old, or when more is asked for."""
    at_s = 0.0
    history = PostgresHistory("edge", database.db.dsn("reader"), monotonic=lambda: at_s)
    at_ms = database.asked_ms - 10 * MINUTE_MS
    await database.write([(PRESS, at_ms, 1.0)])
    assert [one.series for one in await history.newest(at_ms - 1)] == [PRESS]
    await database.write([(TEMP, at_ms, 2.0)])
    assert [one.series for one in await history.newest(at_ms - 1)] == [PRESS]
    at_s = postgres_history.TAGS_AGE_MAX_S
    assert len(await history.newest(at_ms - 1)) == 2
    await database.write([(FAN, at_ms - 3 * HOUR_MS, 3.0)])
    assert len(await history.newest(at_ms - 4 * HOUR_MS)) == 3
    await history.close()
