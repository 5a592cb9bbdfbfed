"""The rollups and the retention of the *postgres* flavour, which the agent's upkeep drives."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from math import fsum, isclose

import pytest

from edge_agent.errors import TransientError
from edge_agent.postgres import database
from edge_agent.settings import PostgresSettings
from tests.integration.plc_database import Cluster, Database

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
Sample = tuple[datetime, str, float]  # time, tag, value

INSERT = (
    "INSERT INTO plc_raw (ts, site, line, device, tag, value, unit)"
    " VALUES ($1, 'A1', 'L1', 'PUMP01', $2, $3, 'bar') ON CONFLICT DO NOTHING"
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("postgres")) as running:
        yield running


# --- rollups -----------------------------------------------------------------------------------


async def insert(db: Database, samples: list[Sample]) -> None:
    """Write samples in this order, one statement for all, as role `agent`."""
    days = sorted({int(ts.timestamp()) // 86_400 for ts, _, _ in samples})
    async with db.cluster.connected(db.dsn()) as connection, connection.transaction():
        await connection.execute("SELECT public.plc_make_partitions($1::bigint[])", days)
        await connection.execute(
            "INSERT INTO plc_raw (ts, site, line, device, tag, value, unit)"
            " SELECT ts, 'A1', 'L1', 'PUMP01', tag, value, 'bar'"
            " FROM unnest($1::timestamptz[], $2::text[], $3::float8[]) AS s (ts, tag, value)"
            " ON CONFLICT DO NOTHING",
            *map(list, zip(*samples, strict=True)),
        )


async def roll_up(db: Database, minutes_max: int = 100) -> int:
    """One call of plc_rollup as role `agent`; minutes left."""
    rows = await db.query("SELECT plc_rollup($1)", minutes_max, user="agent")
    return int(rows[0][0])


async def assert_rollups(db: Database, samples: list[Sample]) -> None:
    """plc_1m and plc_1h are what Python computes from all samples at once."""
    for table, width in (("plc_1m", MINUTE), ("plc_1h", HOUR)):
        buckets: dict[tuple[datetime, str], dict[datetime, float]] = defaultdict(dict)
        for ts, tag, value in samples:
            start = ts - (ts - datetime(1970, 1, 1, tzinfo=UTC)) % width
            buckets[start, tag].setdefault(ts, value)
        found = await db.query(
            f"SELECT bucket, tag, avg_value, min_value, max_value, last_value, samples FROM {table}"
        )
        assert {(row["bucket"], row["tag"]) for row in found} == buckets.keys()
        for row in found:
            values = buckets[row["bucket"], row["tag"]]
            assert row["samples"] == len(values)
            assert (row["min_value"], row["max_value"]) == (
                min(values.values()),
                max(values.values()),
            )
            assert row["last_value"] == values[max(values)]
            assert isclose(
                row["avg_value"], fsum(values.values()) / len(values), rel_tol=1e-9, abs_tol=1e-9
            )


async def test_a_planted_table_does_not_catch_the_owners_functions(db: Database) -> None:
    """ingest may make temporary tables; the owner's functions don't fall for a known name."""
    await database.Upkeep(agent_id="edge-1", dsn=db.dsn()).run()
    async with db.cluster.connected(db.dsn()) as connection:
        await connection.execute("CREATE TEMP TABLE plc_dirty (minute timestamptz)")
        await connection.execute("CREATE TEMP TABLE pg_class (relname name)")
        await connection.execute(INSERT, datetime.now(UTC), "T1", 1.0)
        assert await connection.fetchval("SELECT count(*) FROM pg_temp.plc_dirty") == 0
        assert await connection.fetchval("SELECT public.plc_rollup(10)") == 0
    assert len(await db.query("SELECT FROM plc_1m")) == 1


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_rollups_equal_a_recomputation(db: Database, seed: int) -> None:
    """Random rows, late and out of order, doubled too, with rollups in between: all agree."""
    rng = random.Random(seed)
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - 4 * HOUR
    samples = [
        (
            start + timedelta(milliseconds=rng.randrange(0, 4 * 3_600_000, 250)),
            rng.choice(["T1", "T2", "온도"]),
            rng.uniform(-1000, 1000),
        )
        for _ in range(600)
    ]
    samples += rng.sample(samples, 50)
    rng.shuffle(samples)
    at = 0
    while at < len(samples):
        size = rng.randrange(1, 150)
        await insert(db, samples[at : at + size])
        at += size
        if rng.random() < 0.7:
            await roll_up(db, minutes_max=rng.randrange(1, 60))
    while await roll_up(db):
        pass
    await assert_rollups(db, samples)


async def test_rollup_is_bounded_and_newest_first(db: Database) -> None:
    """A call takes as many minutes as asked, newest first, and says how many are left."""
    start = datetime.now(UTC) - HOUR
    samples = [(start + i * MINUTE, "T1", float(i)) for i in range(10)]
    await insert(db, samples)
    assert await roll_up(db, 3) == 7
    assert [row[0] for row in await db.query("SELECT last_value FROM plc_1m ORDER BY bucket")] == [
        7.0, 8.0, 9.0,
    ]  # fmt: skip
    assert await roll_up(db, 100) == 0
    await assert_rollups(db, samples)


async def test_rollup_again_writes_nothing(db: Database) -> None:
    """A minute that is recomputed to the same values is not even written."""
    samples = [(datetime.now(UTC), "T1", 1.0)]
    await insert(db, samples)
    await roll_up(db)
    versions = "SELECT xmin::text FROM plc_1m UNION ALL SELECT xmin::text FROM plc_1h"
    before = await db.query(versions)
    await db.execute("INSERT INTO plc_dirty SELECT date_bin('1 minute', ts, 'epoch') FROM plc_raw")
    assert await roll_up(db) == 0
    assert await db.query(versions) == before


async def test_a_row_that_commits_during_a_rollup_is_not_lost(db: Database) -> None:
    """A writer is in mid-transaction on a minute that is rolled up: counted next time."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    samples = [(now, "T1", 1.0), (now + timedelta(seconds=1), "T1", 2.0)]
    await insert(db, samples[:1])
    async with db.cluster.connected(db.dsn()) as writer:
        async with writer.transaction():
            await writer.execute(INSERT, samples[1][0], samples[1][1], samples[1][2])
            assert await roll_up(db) == 0
        assert await roll_up(db) == 0
    await assert_rollups(db, samples)


async def test_concurrent_rollups_and_writers(db: Database) -> None:
    """Three callers at once with two writers: nobody waits for long, nothing is lost or double."""
    start = datetime.now(UTC).replace(microsecond=0) - 2 * HOUR
    samples = [(start + timedelta(seconds=7 * i), f"T{i % 2}", float(i)) for i in range(300)]

    async def write(part: list[Sample]) -> None:
        for at in range(0, len(part), 30):
            await insert(db, part[at : at + 30])

    async def roll() -> None:
        for _ in range(10):
            await roll_up(db, 5)

    await insert(db, samples[:1])
    await asyncio.gather(write(samples[::2]), write(samples[1::2]), roll(), roll(), roll())
    while await roll_up(db):
        pass
    await assert_rollups(db, samples)


async def test_extreme_values_do_not_stop_the_rollup(db: Database) -> None:
    """The largest and the smallest floats in one minute: all are rolled up, none raises."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    values = {"huge": [1.7e308, 1.7e308, -1.7e308], "big": [1e200, 3e200], "tiny": [5e-324, 0.0]}
    samples = [
        (now + timedelta(seconds=i), tag, value)
        for tag, column in values.items()
        for i, value in enumerate(column)
    ]
    await insert(db, samples)
    assert await roll_up(db) == 0
    rows = await db.query("SELECT tag, avg_value, max_value, samples FROM plc_1h")
    found = {row["tag"]: row for row in rows}
    assert found["huge"]["max_value"] == 1.7e308
    assert isclose(found["huge"]["avg_value"], 1e300 / 3)
    assert found["big"]["avg_value"] == 2e200
    assert found["tiny"]["avg_value"] == 0.0


async def test_upkeep_works_off_a_backlog(db: Database) -> None:
    """One round rolls up all that waits, in as many calls as it takes."""
    start = datetime.now(UTC) - HOUR
    samples = [(start + i * MINUTE, "T1", float(i)) for i in range(35)]
    await insert(db, samples)
    report = await database.Upkeep(agent_id="edge-1", dsn=db.dsn()).run()
    assert report.minutes_left == 0
    await assert_rollups(db, samples)


async def test_upkeep_stops_when_its_time_is_up(db: Database) -> None:
    """A backlog larger than the time budget is left for the next round."""
    start = datetime.now(UTC) - HOUR
    await insert(db, [(start + i * MINUTE, "T1", float(i)) for i in range(35)])
    ticks = iter(range(0, 10_000, 30))
    upkeep = database.Upkeep(agent_id="edge-1", dsn=db.dsn(), monotonic=lambda: float(next(ticks)))
    assert (await upkeep.run()).minutes_left == 15
    assert (await upkeep.run()).minutes_left == 0


async def test_upkeep_without_a_schema_says_what_to_run(cluster: Cluster) -> None:
    """A missing function is an error with the command that makes it."""
    with pytest.raises(TransientError, match="plc_rollup") as caught:
        await database.Upkeep(agent_id="edge-1", dsn=cluster.server.dsn("agent")).run()
    assert "edge-agent db init" in caught.value.hint


async def test_status_counts_what_is_ready_and_what_waits(db: Database) -> None:
    """Partitions ahead and minutes to roll up: after `db init` nothing is wrong."""
    fresh = await database.status(db.owner_dsn)
    assert (fresh.partitions, fresh.days_ahead, fresh.dirty_minutes) == (4, 3, 0)
    assert not fresh.problems
    partitions = await db.query(
        "SELECT inhrelid::regclass::text FROM pg_inherits"
        " WHERE inhparent = 'public.plc_raw'::regclass"
    )
    await db.query(f"DROP TABLE {', '.join(row[0] for row in partitions)}")
    bare = await database.status(db.owner_dsn)
    assert any("partition" in problem for problem in bare.problems)
    upkeep = database.Upkeep(agent_id="edge-1", dsn=db.dsn())
    await upkeep.run()
    now = datetime.now(UTC)
    await insert(db, [(now, "T1", 1.0), (now - MINUTE, "T1", 2.0)])
    waiting = await database.status(db.owner_dsn)
    assert (waiting.partitions, waiting.days_ahead, waiting.dirty_minutes) == (4, 3, 2)
    assert waiting.oldest_day == now.date()
    report = await upkeep.run()
    assert report.minutes_left == 0
    assert not (await database.status(db.owner_dsn)).problems


# --- retention ---------------------------------------------------------------------------------


async def keep(db: Database, **days: int) -> None:
    """`db init` with other settings."""
    await database.init(db.owner_dsn, settings=PostgresSettings.model_validate(days))


async def partitions(db: Database) -> set[str]:
    """Names of the days that have a partition."""
    rows = await db.query(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'plc_raw'::regclass"
    )
    return {row[0].removeprefix("plc_raw_") for row in rows}


async def test_retention_drops_old_days_and_keeps_their_rollups(db: Database) -> None:
    """Days beyond the limit go, its own day stays; plc_1m has its own limit, plc_1h none."""
    now = datetime.now(UTC)
    days = [now - n * DAY for n in (0, 29, 30, 31, 40, 500)]
    await insert(db, [(day, "T1", float(i)) for i, day in enumerate(days)])
    await keep(db, raw_days=30, minute_days=400)
    upkeep = database.Upkeep(agent_id="edge-1", dsn=db.dsn())
    report = await upkeep.run()
    assert (report.partitions_dropped, report.minutes_deleted) == (3, 1)
    kept = {f"{day:%Y%m%d}" for day in days[:3]} | {f"{now + n * DAY:%Y%m%d}" for n in (1, 2, 3)}
    assert await partitions(db) == kept
    assert len(await db.query("SELECT FROM plc_1m")) == 5
    assert len(await db.query("SELECT FROM plc_1h")) == 6


async def test_a_late_row_does_not_overwrite_what_retention_left(db: Database) -> None:
    """Raw rows of a minute are gone: a row that comes later must not replace their average."""
    old = (datetime.now(UTC) - 40 * DAY).replace(minute=5, second=0, microsecond=0)
    await insert(db, [(old, "T1", 1.0), (old + timedelta(seconds=1), "T1", 3.0)])
    await keep(db, raw_days=30, minute_days=35)
    upkeep = database.Upkeep(agent_id="edge-1", dsn=db.dsn())
    report = await upkeep.run()
    assert (report.partitions_dropped, report.minutes_deleted) == (1, 1)
    await insert(db, [(old + timedelta(seconds=2), "T1", 99.0), (old, "T2", 5.0)])
    await upkeep.run()
    rows = await db.query("SELECT tag, avg_value, samples FROM plc_1h ORDER BY tag")
    assert [tuple(row) for row in rows] == [("T1", 2.0, 2), ("T2", 5.0, 1)]


async def test_retention_waits_for_the_rollup(db: Database) -> None:
    """A day with rows that are not rolled up yet is not dropped."""
    await insert(db, [(datetime.now(UTC) - 100 * DAY, "T1", 1.0)])
    for dropped in (0, 1):
        rows = await db.query("SELECT partitions_dropped FROM plc_retention()", user="agent")
        assert rows[0][0] == dropped
        await roll_up(db)
