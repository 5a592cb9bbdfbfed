"""The schema on a real server: db init and status, who may do what, rollups, retention."""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from math import fsum, isclose
from pathlib import Path

import asyncpg
import pytest

from edge_agent import database, sql_files
from edge_agent.errors import ConfigError, TransientError
from tests.integration.plc_database import Cluster, Database

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
Sample = tuple[datetime, str, float]  # time, tag, value

INSERT = (
    "INSERT INTO plc_raw (ts, site, line, device, tag, value, unit)"
    " VALUES ($1, 'A1', 'L1', 'PUMP01', $2, $3, 'bar') ON CONFLICT DO NOTHING"
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("postgres"))
    yield cluster
    cluster.server.stop()


@pytest.fixture
async def db(cluster: Cluster) -> Database:
    return Database(cluster, await cluster.fresh())


@pytest.fixture
def sql_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `sql/` that the package uses instead, to be changed by the test."""
    copy = tmp_path / "sql"
    shutil.copytree(sql_files.folder(), copy)
    monkeypatch.setattr(sql_files, "folder", lambda: copy)
    return copy


async def empty_database(cluster: Cluster, name: str) -> str:
    """The superuser's address of a new database without the schema."""
    async with cluster.connected(cluster.server.dsn()) as connection:
        await connection.execute(f"CREATE DATABASE {name}")
    return cluster.server.dsn(database=name)


def dump(cluster: Cluster, dsn: str) -> str:
    """The whole schema as pg_dump tells it, without its random session keys."""
    command = [str(cluster.server.binaries / "pg_dump"), "--schema-only", dsn]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return "\n".join(
        line for line in text.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))
    )


# --- db init and db status ---------------------------------------------------------------------


async def test_init_twice_changes_nothing(cluster: Cluster) -> None:
    """The second run applies no file; even a forced one leaves the same schema."""
    dsn = await empty_database(cluster, "twice")
    first = await database.init(dsn)
    names = tuple(file.name for file in sql_files.schema_files("postgres"))
    assert (first.applied, first.unchanged) == (names, ())
    before = dump(cluster, dsn)
    second = await database.init(dsn)
    assert (second.applied, second.unchanged) == ((), names)
    assert (await database.init(dsn, again=True)).applied == names
    assert dump(cluster, dsn) == before


async def test_two_inits_at_once(cluster: Cluster) -> None:
    """One applies the files, the other finds them applied."""
    dsn = await empty_database(cluster, "at_once")
    reports = await asyncio.gather(database.init(dsn), database.init(dsn))
    assert sorted(len(report.applied) for report in reports) == [
        0,
        len(reports[0].applied + reports[0].unchanged),
    ]


async def test_init_applies_what_changed(db: Database, sql_copy: Path) -> None:
    """A file with new content is told by status, and applied again by init, alone."""
    changed = sql_copy / "postgres" / "050_retention.sql"
    changed.write_text(changed.read_text() + "-- new\n")
    before = await database.status(db.owner_dsn)
    assert [f.name for f in before.files if f.state == "changed"] == ["postgres/050_retention.sql"]
    assert "db init" in before.problems[0]
    report = await database.init(db.owner_dsn)
    assert report.applied == ("postgres/050_retention.sql",)
    assert not [f for f in (await database.status(db.owner_dsn)).files if f.state != "applied"]


async def test_a_failing_file_leaves_nothing_behind(cluster: Cluster, sql_copy: Path) -> None:
    """Init is one transaction: an error in the last file undoes the first, and is named."""
    dsn = await empty_database(cluster, "broken")
    (sql_copy / "090_broken.sql").write_text("CREATE TABLE nonsense (;\n")
    with pytest.raises(TransientError, match=r"090_broken\.sql: syntax error"):
        await database.init(dsn)
    status = await database.status(dsn)
    assert {file.state for file in status.files} == {"missing"}
    assert "plc_raw" not in dump(cluster, dsn)


async def test_init_needs_rights_and_a_known_flavour(db: Database) -> None:
    """The daemon's own dsn is not enough, and says so; a flavour must have a folder."""
    with pytest.raises(TransientError, match="permission denied") as caught:
        await database.init(db.dsn())
    assert "OWNER_DSN" in caught.value.hint
    with pytest.raises(ConfigError, match="oracle") as wrong:
        await database.init(db.owner_dsn, flavour="oracle")
    assert "postgres" in wrong.value.hint


async def test_init_as_a_database_owner_who_is_no_superuser(cluster: Cluster) -> None:
    """CREATEROLE and the database are enough; the tables belong to the role nobody logs in as."""
    async with cluster.connected(cluster.server.dsn()) as connection:
        await connection.execute("CREATE ROLE builder LOGIN CREATEROLE")
        await connection.execute("CREATE DATABASE built OWNER builder")
    dsn = cluster.server.dsn("builder", "built")
    await database.init(dsn)
    async with cluster.connected(dsn) as connection:
        owners = await connection.fetch(
            "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
        )
        login = await connection.fetchval(
            "SELECT bool_or(rolcanlogin) FROM pg_roles"
            " WHERE rolname IN ('plc_owner', 'ingest', 'viewer')"
        )
    assert [row[0] for row in owners] == ["plc_owner"]
    assert login is False


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


# --- roles -------------------------------------------------------------------------------------

TABLES = ("plc_raw", "plc_1m", "plc_1h", "plc_cursor", "plc_dirty", "plc_horizon", "schema_version")
MAY = {
    ("agent", "plc_raw"): {"INSERT"},
    ("agent", "plc_cursor"): {"SELECT", "INSERT", "UPDATE"},
    ("reader", "plc_raw"): {"SELECT"},
    ("reader", "plc_1m"): {"SELECT"},
    ("reader", "plc_1h"): {"SELECT"},
}
MAY_CALL = {"plc_make_partitions", "plc_rollup", "plc_retention", "plc_insert_staged"}


async def test_every_role_over_every_object(db: Database) -> None:
    """Exactly the privileges of design: each role, each table and partition, each function."""
    await database.Upkeep(agent_id="edge-1", dsn=db.dsn()).run()
    found = await db.query(
        "SELECT role, relname, privilege FROM unnest($1::text[]) AS role, pg_class,"
        " unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES',"
        " 'TRIGGER']) AS privilege WHERE relnamespace = 'public'::regnamespace"
        " AND relkind IN ('r', 'p') AND has_table_privilege(role, pg_class.oid, privilege)",
        ["agent", "reader", "stranger"],
    )
    allowed = defaultdict(set)
    for role, table, privilege in found:
        allowed[role, table].add(privilege)
    assert allowed == MAY
    tables = {
        row[0]
        for row in await db.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    }
    assert {name for name in tables if not name.startswith("plc_raw_")} == set(TABLES)
    calls = await db.query(
        "SELECT role, proname FROM unnest($1::text[]) AS role, pg_proc"
        " WHERE pronamespace = 'public'::regnamespace"
        " AND has_function_privilege(role, pg_proc.oid, 'EXECUTE')",
        ["agent", "reader", "stranger"],
    )
    assert {tuple(row) for row in calls} == {("agent", name) for name in MAY_CALL}
    others = await db.query(
        "SELECT role, has_database_privilege(role, current_database(), 'TEMPORARY'),"
        " has_schema_privilege(role, 'public', 'CREATE')"
        " FROM unnest(ARRAY['agent', 'reader', 'stranger']) AS role"
    )
    assert {tuple(row) for row in others} == {
        ("agent", True, False), ("reader", False, False), ("stranger", False, False),
    }  # fmt: skip


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


# --- retention ---------------------------------------------------------------------------------


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
    upkeep = database.Upkeep(agent_id="edge-1", dsn=db.dsn(), raw_days=30, minute_days=400)
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
    upkeep = database.Upkeep(agent_id="edge-1", dsn=db.dsn(), raw_days=30, minute_days=35)
    report = await upkeep.run()
    assert (report.partitions_dropped, report.minutes_deleted) == (1, 1)
    await insert(db, [(old + timedelta(seconds=2), "T1", 99.0), (old, "T2", 5.0)])
    await upkeep.run()
    rows = await db.query("SELECT tag, avg_value, samples FROM plc_1h ORDER BY tag")
    assert [tuple(row) for row in rows] == [("T1", 2.0, 2), ("T2", 5.0, 1)]


async def test_retention_waits_for_the_rollup(db: Database) -> None:
    """A day with rows that are not rolled up yet is not dropped."""
    await insert(db, [(datetime.now(UTC) - 40 * DAY, "T1", 1.0)])
    dropped = await db.query("SELECT partitions_dropped FROM plc_retention(30, 400)", user="agent")
    assert dropped[0][0] == 0
    await roll_up(db)
    dropped = await db.query("SELECT partitions_dropped FROM plc_retention(30, 400)", user="agent")
    assert dropped[0][0] == 1


async def test_retention_does_not_queue_writers_behind_a_reader(db: Database) -> None:
    """Somebody reads plc_raw for long: retention gives up at once and leaves the table open."""
    await insert(db, [(datetime.now(UTC) - 40 * DAY, "T1", 1.0)])
    await roll_up(db)
    async with db.cluster.connected(db.dsn("reader")) as reader, reader.transaction():
        await reader.fetch("SELECT * FROM plc_raw")
        upkeep = database.Upkeep(agent_id="edge-1", dsn=db.dsn(), raw_days=30)
        report = await asyncio.wait_for(upkeep.run(), timeout=5)
        assert report.partitions_dropped == 0
        await asyncio.wait_for(insert(db, [(datetime.now(UTC), "T1", 1.0)]), timeout=5)
    assert (await upkeep.run()).partitions_dropped == 1


async def test_retention_of_nothing_is_refused(db: Database) -> None:
    """Zero days would drop today's rows."""
    with pytest.raises(asyncpg.PostgresError, match="at least 1"):
        await db.query("SELECT * FROM plc_retention(0, 10)", user="agent")
