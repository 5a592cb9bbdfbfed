"""What both flavours of the schema promise, held against each other on the same rows."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from math import isclose
from typing import Any, NamedTuple

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.clock import DAY_MS, HOUR_MS, MINUTE_MS
from edge_agent.errors import ConfigError
from edge_agent.model import Series
from edge_agent.postgres import database
from edge_agent.settings import PostgresSettings
from edge_agent.sinks.base import JournalIdentity
from edge_agent.sinks.postgres import PostgresSink
from tests.integration.plc_database import (
    FLAVOURS,
    WITHOUT_TIMESCALE,
    Cluster,
    Database,
    batch,
    now_ms,
)

TABLES = ("plc_1m", "plc_1h")

Sample = tuple[int, int, float]  # ts_ms, series id, value


# --- the same rows, the same aggregates ----------------------------------------------------------


class Step(NamedTuple):
    """Rows that one writer brings in one go; afterwards the aggregates follow, or not yet."""

    writer: str
    samples: list[tuple[int, int, float]]  # age in ms, series id, value
    follow: bool


def series_at(site: str) -> dict[int, Series]:
    """Six series of three tags: line and unit of a tag change, its key does not."""
    return {
        1: Series(site, "L1", "PUMP01", "PRESS", "bar"),
        2: Series(site, "L2", "PUMP01", "PRESS", "kPa"),
        3: Series(site, "L1", "PUMP01", "온도", "°C"),
        4: Series(site, "", "PUMP01", "온도", ""),
        5: Series(site, "L1", "FAN02", "RPM", ""),
        6: Series(site, "L9", "FAN02", "RPM", "1/min"),
    }


AGES = st.one_of(
    st.integers(0, 10 * 1000),
    st.integers(0, 3 * HOUR_MS),
    st.integers(0, 20).map(lambda n: 2 * HOUR_MS + n * 7_000),
    st.integers(0, 30).map(lambda n: 9 * DAY_MS + n * MINUTE_MS // 3),
    st.integers(0, 30).map(lambda n: 40 * DAY_MS + n * MINUTE_MS // 3),
)
EXTREMES = [0.0, -0.0, 5e-324, -5e-324, 2.2e-308, 1e-300, 1e300, -1e300, 1e308, -1.7e308]
VALUES = st.one_of(
    st.sampled_from(EXTREMES),
    st.floats(-1000, 1000),
    st.floats(allow_nan=False, allow_infinity=False),
)
STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from(["copy", "insert"]),
        st.lists(st.tuples(AGES, st.integers(1, 6), VALUES), min_size=1, max_size=15),
        st.booleans(),
    ),
    min_size=1,
    max_size=3,
)


async def write(db: Database, writer: str, samples: Sequence[Sample], site: str) -> None:
    """Bring rows in as the agent's sink does, by COPY, or as anybody may, by INSERT."""
    series = series_at(site)
    if writer == "copy":
        journal = f"{site}-{next(_numbers)}"
        sink = PostgresSink(agent_id="edge-1", dsn=db.dsn())
        await sink.open(JournalIdentity("edge-1", journal))
        await sink.deliver([batch(1, samples, series)])
        await sink.close()
        return
    rows = [(ts_ms, *series[n], value) for ts_ms, n, value in samples]
    async with db.cluster.connected(db.dsn()) as connection:
        await connection.execute(
            "SELECT plc_make_partitions($1)", sorted({ts_ms // DAY_MS for ts_ms, _, _ in samples})
        )
        await connection.execute(
            "INSERT INTO plc_raw (ts, site, line, device, tag, unit, value)"
            " SELECT to_timestamp(ts / 1000.0), site, line, device, tag, unit, value"
            " FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[],"
            " $6::text[], $7::float8[]) AS row (ts, site, line, device, tag, unit, value)"
            " ON CONFLICT DO NOTHING",
            *map(list, zip(*rows, strict=True)),
        )


_numbers = itertools.count(1)


async def follow(db: Database, samples: Sequence[Sample]) -> None:
    """Let plc_1m and plc_1h follow: by the agent's calls, or as TimescaleDB's policies would."""
    if db.cluster.flavour == "postgres":
        while (await db.query("SELECT plc_rollup(100)", user="agent"))[0][0]:
            pass
    else:
        await refresh(db, samples)


async def refresh(db: Database, samples: Sequence[Sample]) -> None:
    """plc_refresh over these samples' time."""
    times = [ts_ms / 1000 for ts_ms, _, _ in samples]
    await db.execute(f"CALL plc_refresh(to_timestamp({min(times)}), to_timestamp({max(times)}))")


async def aggregates(db: Database, table: str, site: str = "A1") -> dict[tuple[Any, ...], Any]:
    """A table's rows of one site, by bucket, device and tag."""
    rows = await db.query(f"SELECT * FROM {table} WHERE site = $1", site)
    found = {(row["bucket"], row["device"], row["tag"]): row for row in rows}
    assert len(found) == len(rows), "a bucket stands there twice"
    return found


EXACT = ("line", "unit", "min_value", "max_value", "last_value", "samples")


async def assert_equal(one: Database, other: Database, site: str) -> None:
    """Both hold the same aggregates; means within the rounding of a sum in another order."""
    for table in TABLES:
        left, right = await aggregates(one, table, site), await aggregates(other, table, site)
        assert left.keys() == right.keys()
        for key, a in left.items():
            b = right[key]
            assert list(a.keys()) == list(b.keys()), "the columns stand in the same order"
            assert [a[name] for name in EXACT] == [b[name] for name in EXACT], key
            size = min(1e300, max(abs(a["min_value"]), abs(a["max_value"])))
            assert isclose(
                a["avg_value"], b["avg_value"], rel_tol=1e-9, abs_tol=max(1e-12 * size, 1e-288)
            ), key


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Database, Database]]:
    """A database of each flavour."""
    clusters = [
        Cluster(tmp_path_factory.mktemp(flavour), flavour) for flavour in ("postgres", "timescale")
    ]
    one, other = (Database(cluster, asyncio.run(cluster.fresh())) for cluster in clusters)
    yield one, other
    for cluster in clusters:
        cluster.server.stop()


@pytest.mark.timescale
@WITHOUT_TIMESCALE
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_both_flavours_compute_the_same(pair: tuple[Database, Database], steps: list[Step]) -> None:
    """Any rows, late, doubled and out of order, by COPY and by INSERT, give equal aggregates."""
    asyncio.run(_compare(pair, steps, site=f"S{next(_numbers)}"))


async def _compare(pair: tuple[Database, Database], steps: list[Step], site: str) -> None:
    now = now_ms()
    written: list[Sample] = []
    for step in steps:
        samples = [(now - age, series_id, value) for age, series_id, value in step.samples]
        written += samples
        for db in pair:
            await write(db, step.writer, samples, site)
            if step.follow:
                await follow(db, samples)
    for db in pair:
        await follow(db, written)
    await assert_equal(*pair, site)
    for db in pair:
        await refresh(db, written)
    await assert_equal(*pair, site)


async def test_refresh_sees_rows_that_were_changed_or_deleted(db: Database) -> None:
    """After plc_refresh both are what plc_raw holds now: no bucket without rows stays."""
    start = now_ms() // HOUR_MS * HOUR_MS - 30 * HOUR_MS
    samples = [(start + n * 20_000, 1 + n % 6, float(n)) for n in range(700)]
    await write(db, "copy", samples, "A1")
    await follow(db, samples)
    await db.execute(
        "DELETE FROM plc_raw WHERE value BETWEEN 100 AND 500 OR (tag = 'RPM' AND value < 40);"
        "UPDATE plc_raw SET value = -value WHERE value BETWEEN 600 AND 620"
    )
    await refresh(db, samples)
    for table, width in (("plc_1m", "1 minute"), ("plc_1h", "1 hour")):
        rows = await db.query(
            f"SELECT date_bin('{width}', ts, 'epoch') AS bucket, device, tag, count(*) AS samples,"
            " min(value) AS min_value, max(value) AS max_value, avg(value) AS avg_value"
            " FROM plc_raw GROUP BY 1, 2, 3"
        )
        found = await aggregates(db, table)
        assert len(rows) == len(found)
        for row in rows:
            one = found[row["bucket"], row["device"], row["tag"]]
            for name in ("samples", "min_value", "max_value"):
                assert row[name] == one[name]
            assert isclose(row["avg_value"], one["avg_value"], abs_tol=1e-9)


# --- late rows, by way of what runs in a plant -------------------------------------------------


async def upkeep(db: Database) -> None:
    """One round of all that happens by itself: the agent's upkeep, TimescaleDB's jobs."""
    await database.Upkeep(agent_id="edge-1", dsn=db.dsn()).run()
    if db.cluster.flavour == "timescale":
        for job in await jobs(db):
            await db.execute(f"CALL run_job({job['job_id']})")


async def jobs(db: Database) -> list[Any]:
    """Our jobs, in an order in which nothing has to wait for the next round."""
    return await db.query(
        "SELECT job_id, proc_name, hypertable_name, config FROM timescaledb_information.jobs"
        " WHERE job_id >= 1000 ORDER BY proc_name <> 'plc_refresh_late', job_id"
    )


LATE = {
    "fresh": 5 * MINUTE_MS,
    "hours": 5 * HOUR_MS,
    "beyond the minutes' window": 9 * DAY_MS,
    "beyond the hours' window": 40 * DAY_MS,
}


@pytest.mark.parametrize("writer", ["copy", "insert"])
async def test_late_rows_reach_both_aggregates(db: Database, writer: str) -> None:
    """Rows for minutes that were aggregated before, however old, change plc_1m and plc_1h."""
    start = now_ms() // MINUTE_MS * MINUTE_MS
    first = [(start - age, 1, 1.0) for age in LATE.values()]
    late = [(start - age + 1000 + n, 1, 2.0) for age in LATE.values() for n in range(40)]
    await write(db, "copy", first, "A1")
    await upkeep(db)
    await write(db, writer, late, "A1")
    await upkeep(db)
    for table in TABLES:
        rows = await aggregates(db, table)
        assert sum(row["samples"] for row in rows.values()) == len(first) + len(late)
        assert {
            (row["min_value"], row["max_value"], row["last_value"]) for row in rows.values()
        } == {(1.0, 2.0, 2.0)}


@pytest.mark.timescale
@pytest.mark.parametrize("cluster", FLAVOURS[1:], indirect=True)
@pytest.mark.parametrize("writer", ["copy", "insert"])
async def test_late_rows_into_compressed_chunks(db: Database, writer: str) -> None:
    """New ones are added and aggregated, doubled ones are not; more rows than the usual limit."""
    start = (now_ms() - 20 * DAY_MS) // HOUR_MS * HOUR_MS
    there = [(start + n * 200, 1 + n % 3, float(n)) for n in range(120_000)]
    for at in range(0, len(there), 20_000):
        await write(db, "copy", there[at : at + 20_000], "A1")
    await upkeep(db)
    compressed = await db.query(
        "SELECT DISTINCT is_compressed FROM timescaledb_information.chunks"
        " WHERE hypertable_name = 'plc_raw'"
    )
    assert [row[0] for row in compressed] == [True], "the compression policy has done it"
    late = [(ts_ms + 100, series_id, -1.0) for ts_ms, series_id, _ in there[::8]]
    double = [(ts_ms, series_id, -2.0) for ts_ms, series_id, _ in there[::8]]
    await write(db, writer, late + double, "A1")
    assert len(await db.query("SELECT FROM plc_raw")) == len(there) + len(late)
    await upkeep(db)
    for table in TABLES:
        rows = (await aggregates(db, table)).values()
        assert sum(row["samples"] for row in rows) == len(there) + len(late)
        assert {row["min_value"] for row in rows} == {-1.0}


# --- retention -----------------------------------------------------------------------------------


async def keep(db: Database, **days: int) -> None:
    """`db init` with other settings."""
    await database.init(db.owner_dsn, settings=PostgresSettings.model_validate(days))


async def expire(db: Database) -> None:
    """Let retention do all it has to do."""
    if db.cluster.flavour == "postgres":
        await database.Upkeep(agent_id="edge-1", dsn=db.dsn()).run()
    else:
        await db.execute("CALL plc_expire(0, '{}')")


async def test_retention_keeps_aggregates(db: Database) -> None:
    """Old days go from plc_raw, old minutes from plc_1m; what was computed from them stays."""
    start = now_ms() // DAY_MS * DAY_MS
    ages = [0, 5, 11, 12, 40, 300]
    samples = [(start - age * DAY_MS, 1, float(age)) for age in ages]
    await write(db, "copy", samples, "A1")
    await keep(db, raw_days=10, minute_days=35, refresh_minute_days=5, refresh_hour_days=20)
    await expire(db)
    assert sorted((await db.rows()).values()) == [0.0, 5.0]
    minutes, hours = [await aggregates(db, table) for table in TABLES]
    assert sorted(row["avg_value"] for row in minutes.values()) == [0.0, 5.0, 11.0, 12.0]
    assert sorted(row["avg_value"] for row in hours.values()) == [float(age) for age in ages]


@pytest.mark.parametrize("minute_days", [35, 400])
async def test_a_late_row_does_not_overwrite_what_retention_left(
    db: Database, minute_days: int
) -> None:
    """Raw rows of a minute are gone: a row that comes later must not replace their average.

    Neither does a refresh that is asked for, nor a window that was made longer.
    """
    old = (now_ms() - 40 * DAY_MS) // HOUR_MS * HOUR_MS
    await write(db, "copy", [(old, 1, 1.0), (old + 1000, 1, 3.0)], "A1")
    await keep(db, raw_days=30, minute_days=minute_days)
    await expire(db)
    assert await db.rows() == {}
    before = {table: await aggregates(db, table) for table in TABLES}
    assert len(before["plc_1m"]) == (minute_days > 40)
    assert [row["avg_value"] for row in before["plc_1h"].values()] == [2.0]
    late = [(old + 2000, 1, 99.0)]
    await write(db, "copy", late, "A1")
    await keep(db, raw_days=100, minute_days=400, refresh_minute_days=90, refresh_hour_days=300)
    await upkeep(db)
    await refresh(db, late)
    assert await aggregates(db, "plc_1h") == before["plc_1h"]
    if before["plc_1m"]:
        assert await aggregates(db, "plc_1m") == before["plc_1m"]


async def test_retention_does_not_queue_writers_behind_a_reader(db: Database) -> None:
    """Somebody reads plc_raw for long: retention gives up at once and leaves the table open."""
    now = now_ms()
    await write(db, "copy", [(now - 100 * DAY_MS, 1, 1.0)], "A1")
    await follow(db, [(now - 100 * DAY_MS, 1, 1.0)])
    async with db.cluster.connected(db.dsn("reader")) as reader, reader.transaction():
        await reader.fetch("SELECT * FROM plc_raw")
        await asyncio.wait_for(expire(db), timeout=5)
        assert await db.rows()
        await asyncio.wait_for(write(db, "copy", [(now, 1, 1.0)], "A1"), timeout=5)
    await expire(db)
    assert len(await db.rows()) == 1


# --- settings ------------------------------------------------------------------------------------


async def test_settings_take_effect_by_init(db: Database) -> None:
    """`db status` says when file and database differ; `db init` writes them; twice is once."""
    wanted = PostgresSettings(
        chunk_days=2, compress_days=3, raw_days=20, minute_days=50,
        refresh_minute_days=4, refresh_hour_days=15,
    )  # fmt: skip
    assert not (await database.status(db.owner_dsn, settings=PostgresSettings())).problems
    before = await database.status(db.owner_dsn, settings=wanted)
    assert before.differing.keys() == set(database.DATABASE_SETTINGS)
    assert "raw_days is 90 in the database and 20 in the settings" in "".join(before.problems)
    await database.init(db.owner_dsn, settings=wanted)
    after = await database.status(db.owner_dsn, settings=wanted)
    assert not after.problems
    assert after.settings == {key: getattr(wanted, key) for key in database.DATABASE_SETTINGS}
    if db.cluster.flavour == "timescale":
        found = await jobs(db)
        assert {
            (job["proc_name"].removeprefix("policy_"), job["hypertable_name"]): job["config"]
            for job in found
        }.keys() == {
            ("compression", "plc_raw"), ("compression", "plc_1m"), ("compression", "plc_1h"),
            ("refresh_continuous_aggregate", "plc_1m"),
            ("refresh_continuous_aggregate", "plc_1h"),
            ("plc_refresh_late", None), ("plc_expire", None),
        }  # fmt: skip
        config = "".join(str(job["config"]) for job in found)
        for days in (3, 4, 15):
            assert f"{days} days" in config
        await database.init(db.owner_dsn, settings=wanted)
        assert await jobs(db) == found
    await database.init(db.owner_dsn)
    assert not (await database.status(db.owner_dsn, settings=wanted)).differing


async def test_nobody_but_the_owner_decides_what_is_kept(db: Database) -> None:
    """The agent's role can't shorten what is kept: not by a number, not by the settings' row."""
    for attempt in (
        "SELECT plc_retention(1, 1)",
        "UPDATE plc_settings SET raw_days = 1",
        "UPDATE plc_horizon SET raw_from = now()",
        "SELECT plc_apply_settings()",
        "CALL plc_refresh(now(), now())",
        "DROP TABLE plc_raw",
        "DELETE FROM plc_raw",
        "SELECT drop_chunks('plc_raw', now())",
        "CALL plc_expire(0, '{}')",
    ):
        for user in ("agent", "reader"):
            with pytest.raises(
                (asyncpg.InsufficientPrivilegeError, asyncpg.UndefinedFunctionError)
            ):
                await db.execute(attempt, user=user)


async def test_a_database_keeps_its_flavour(db: Database) -> None:
    """Asking for the other one is refused with the reason, by init and by status."""
    other = "timescale" if db.cluster.flavour == "postgres" else "postgres"
    for command in (database.init, database.status):
        with pytest.raises(ConfigError, match=f"has the {db.cluster.flavour} flavour") as caught:
            await command(db.owner_dsn, flavour=other)
        assert "new database" in caught.value.hint
    assert (await database.init(db.owner_dsn)).flavour == db.cluster.flavour


@WITHOUT_TIMESCALE
@pytest.mark.timescale
@pytest.mark.parametrize("cluster", FLAVOURS[:1], indirect=True)
async def test_timescale_that_is_not_preloaded(cluster: Cluster) -> None:
    """Auto takes the other flavour and says why; asked for by name it says what to do."""
    async with cluster.connected(cluster.server.dsn()) as connection:
        await connection.execute("CREATE DATABASE not_preloaded")
    dsn = cluster.server.dsn(database="not_preloaded")
    with pytest.raises(ConfigError, match="not preloaded") as caught:
        await database.init(dsn, flavour="timescale")
    assert "shared_preload_libraries" in caught.value.hint
    report = await database.init(dsn)
    assert report.flavour == "postgres"
    assert "not preloaded" in report.reason
