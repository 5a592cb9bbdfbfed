"""What the database says of itself (plc_health): silent while all is well, and each thing that goes
wrong, done for real, is told with what to do about it.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edge_agent.errors import TransientError
from edge_agent.postgres import database, sql_files
from edge_agent.postgres.health import HealthCheck, read_health
from tests.integration.plc_database import WITHOUT_TIMESCALE, Cluster, Database
from tests.servers import TIMESCALE_WORKERS, Postgres
from tests.waiting import until

OPERATIONS = Path(__file__).parents[2] / "docs/operations.md"
CALL_SECONDS_MAX = 0.05
PARTS = 90
COMMON = {
    "database_bytes", "freeze_age_xids", "index_bytes", "retention_overdue_days",
    "rollup_lag_seconds", "slot_wal_max_bytes", "table_bytes",
}  # fmt: skip
OWN = {
    "postgres": {"partitions_ahead_days", "rollup_backlog_minutes"},
    "timescale": {"compression_backlog_chunks", "job_age_seconds", "job_failures"},
}
SLOT = {"slot_active", "slot_wal_bytes"}
OUTBOX = {
    "edge": {"outbox_ahead_hours", "outbox_default_rows"},
    "remote": {"landing_rows", "refused_rows"},
}


def only(flavour: str, db: Database) -> None:
    """Skip what the other flavour does not have."""
    if db.cluster.flavour != flavour:
        pytest.skip(f"only the {flavour} flavour has it")


async def ask(db: Database, user: str = "agent") -> dict[tuple[str, str], HealthCheck]:
    """Every check, by its name and object."""
    async with db.cluster.connected(db.dsn(user)) as connection:
        checks = await read_health(connection)
    assert len({(each.check, each.object) for each in checks}) == len(checks)
    return {(each.check, each.object): each for each in checks}


async def problems(db: Database) -> dict[tuple[str, str], str]:
    """What is wrong, by check and object."""
    return {key: each.problem for key, each in (await ask(db)).items() if each.problem}


async def write(db: Database, *ages: str) -> None:
    """A row of each age, and what it needs."""
    await db.query(
        "SELECT plc_make_partitions(ARRAY(SELECT floor(extract(epoch FROM now() - age) / 86400)"
        "::bigint FROM unnest($1::text[]::interval[]) AS age))",
        list(ages),
    )
    await db.query(
        "INSERT INTO plc_raw SELECT now() - age, 'A1', 'L1', 'D1', 'T1', 1, ''"
        " FROM unnest($1::text[]::interval[]) AS age",
        list(ages),
    )


async def refresh(db: Database, first: str, last: str) -> None:
    """Bring the aggregates up to date between these ages."""
    await db.execute(f"CALL plc_refresh(now() - interval '{first}', now() - interval '{last}')")


async def apply(db: Database, place: str) -> None:
    """What `edge-remote setup` applies in this place."""
    for path in sorted((sql_files.folder() / place).glob("*.sql")):
        async with db.cluster.connected(db.owner_dsn) as connection, connection.transaction():
            await connection.execute(path.read_text())


# --- all is well -------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["alone", *OUTBOX])
async def test_a_new_database_has_every_figure_and_no_problem(db: Database, place: str) -> None:
    """Each check is documented, has a finite figure, and a name that ends in its unit."""
    await apply(db, place)
    await write(db, "0", "1 minute")
    found = await ask(db)
    assert {check for check, _ in found} == (
        COMMON | OWN[db.cluster.flavour] | OUTBOX.get(place, set())
    )
    assert not await problems(db)
    described = OPERATIONS.read_text()
    for check in found.values():
        assert f"`{check.check}`" in described
        assert abs(check.value) < float("inf")
        assert re.search(
            r"_(seconds|minutes|hours|days|bytes|rows|xids|chunks|failures)$", check.check
        )
    tables = {about for check, about in found if check == "table_bytes"}
    assert tables == {"plc_raw", "plc_1m", "plc_1h"} | (
        {"plc_outbox"} if place in OUTBOX else set()
    )
    assert found["table_bytes", "plc_raw"].value > 0
    assert found["index_bytes", "plc_raw"].value > 0


async def test_who_may_ask(db: Database) -> None:
    """The agent, who has the least rights of all, sees the same as a superuser; viewers too."""
    await write(db, "0")
    seen = [set(await ask(db, user)) for user in ("agent", "reader", "postgres")]
    assert seen[0] == seen[1] == seen[2]


async def test_upkeep_and_status_bring_it(db: Database) -> None:
    """The agent's upkeep reads every figure; `db status` makes their problems its own."""
    await write(db, "0")
    report = await database.Upkeep(agent_id="edge-1", dsn=db.dsn()).run()
    assert {(check.check, check.object) for check in report.health} == set(await ask(db))
    assert not (await database.status(db.owner_dsn)).problems
    await db.execute("UPDATE plc_settings SET raw_days = 30")
    await write(db, "50 days")
    found = await database.status(db.owner_dsn)
    assert any("should have been dropped" in problem for problem in found.problems)


async def test_it_is_cheap(db: Database) -> None:
    """With three months of days, each with rows, an answer takes less than 50 ms."""
    await write(db, *(f"{day} days" for day in range(PARTS)))
    async with db.cluster.connected(db.dsn()) as connection:
        seconds = []
        for _ in range(10):
            started = time.perf_counter()
            await read_health(connection)
            seconds.append(time.perf_counter() - started)
    assert min(seconds) < CALL_SECONDS_MAX


async def test_it_does_not_wait_for_a_lock(db: Database) -> None:
    """Somebody rebuilds a table: after a second there is an error that says so, and no figure."""
    table = "plc_1h" if db.cluster.flavour == "postgres" else "plc_raw"
    async with db.cluster.connected(db.owner_dsn) as other, other.transaction():
        await other.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(TransientError, match="lock timeout"):
            await asyncio.wait_for(database.status(db.owner_dsn), timeout=10)


# --- rollups -----------------------------------------------------------------------------------


async def test_a_rollup_that_falls_behind(db: Database) -> None:
    """Told once rows wait for longer than they should, and no more when they are rolled up."""
    await write(db, "3 hours")
    await refresh(db, "4 hours", "1 hour")
    assert not await problems(db)
    await write(db, "30 minutes")
    found = await problems(db)
    assert list(found) == [("rollup_lag_seconds", "plc_1m")]
    assert "behind plc_raw" in found["rollup_lag_seconds", "plc_1m"]
    lag = (await ask(db))["rollup_lag_seconds", "plc_1m"].value
    assert 8000 < lag < 11000, "the newest minute that is rolled up is of three hours ago"
    await refresh(db, "4 hours", "0")
    assert not await problems(db)
    assert (await ask(db))["rollup_lag_seconds", "plc_1m"].value == 0


async def test_a_plant_that_stands_still_is_not_behind(db: Database) -> None:
    """Its newest row is of yesterday, and rolled up."""
    await write(db, "26 hours")
    await refresh(db, "30 hours", "0")
    assert (await ask(db))["rollup_lag_seconds", "plc_1m"].value == 0
    assert not await problems(db)


async def test_minutes_that_wait(db: Database) -> None:
    """More than an hour of touched minutes means that nobody rolls them up."""
    only("postgres", db)
    await write(db, *(f"{minute} minutes" for minute in range(61)))
    found = await ask(db)
    assert found["rollup_backlog_minutes", "plc_1m"].value in (61, 62)
    assert "61 minutes wait" in str(found["rollup_backlog_minutes", "plc_1m"].problem)
    await database.Upkeep(agent_id="edge-1", dsn=db.dsn()).run()
    assert (await ask(db))["rollup_backlog_minutes", "plc_1m"].value == 0
    assert not await problems(db)


async def test_no_partition_ahead(db: Database) -> None:
    """Without upkeep tomorrow has no partition."""
    only("postgres", db)
    assert (await ask(db))["partitions_ahead_days", "plc_raw"].value == database.DAYS_AHEAD
    for row in await db.query(
        "SELECT inhrelid::regclass::text FROM pg_inherits"
        " WHERE inhparent = 'public.plc_raw'::regclass"
    ):
        await db.execute(f"DROP TABLE {row[0]}")
    found = await problems(db)
    assert list(found) == [("partitions_ahead_days", "plc_raw")]
    await database.Upkeep(agent_id="edge-1", dsn=db.dsn()).run()
    assert not await problems(db)


async def test_days_that_should_be_gone(db: Database) -> None:
    """Told two days after retention should have dropped them; a day more or less is no news."""
    await write(db, "31 days", "0")
    await refresh(db, "32 days", "0")
    await db.execute("UPDATE plc_settings SET raw_days = 30")
    assert not await problems(db)
    await db.execute("UPDATE plc_settings SET raw_days = 20")
    found = await problems(db)
    assert list(found) == [("retention_overdue_days", "plc_raw")]
    assert 9 < (await ask(db))["retention_overdue_days", "plc_raw"].value <= 11


# --- TimescaleDB's jobs ------------------------------------------------------------------------


async def test_chunks_that_should_be_compressed(db: Database) -> None:
    """Told two days after their time; a chunk of old rows that was just made has two days too."""
    only("timescale", db)
    await write(db, "20 days", "0")
    assert not await problems(db)
    await db.execute(
        "UPDATE _timescaledb_catalog.chunk SET creation_time = now() - interval '3 days'"
    )
    found = await problems(db)
    assert list(found) == [("compression_backlog_chunks", "plc_raw")]
    await db.execute(
        "SELECT compress_chunk(c) FROM show_chunks('plc_raw', older_than => interval '7 days') AS c"
    )
    assert not await problems(db)


async def job_of(db: Database, proc: str) -> int:
    """A job's number."""
    rows = await db.query(
        "SELECT job_id FROM timescaledb_information.jobs WHERE proc_name = $1", proc
    )
    return int(rows[0][0])


async def test_jobs_that_are_missing_paused_or_never_started(db: Database) -> None:
    """A policy that exists is not enough; each case says how to get it going."""
    only("timescale", db)
    jobs = [("job_age_seconds", name) for name in ("plc_expire", "plc_refresh_late")]
    expire, late = await job_of(db, "plc_expire"), await job_of(db, "plc_refresh_late")
    await db.execute(f"SELECT alter_job({late}, scheduled => false); SELECT delete_job({expire})")
    found = await problems(db)
    assert sorted(found) == jobs
    assert "missing: run `edge-agent db init`" in found[jobs[0]]
    assert f"alter_job({late}, scheduled => true)" in found[jobs[1]]
    await database.init(db.owner_dsn)
    await db.execute(
        f"SELECT alter_job({late}, scheduled => true, next_start => now() - interval '1 hour')"
    )
    found = await problems(db)
    assert list(found) == jobs[1:]
    assert "max_background_workers" in found[jobs[1]], "this server has none"


async def test_a_job_that_crashes(db: Database) -> None:
    """It began, it does not run and it never ended: what a worker's death leaves behind."""
    only("timescale", db)
    expire = await job_of(db, "plc_expire")
    await db.execute(f"SELECT alter_job({expire}, next_start => now())")
    for minutes, told in ((30, []), (90, [("job_failures", "plc_expire")])):
        await db.execute(
            "UPDATE _timescaledb_internal.bgw_job_stat SET last_finish = '-infinity',"
            " last_start = now() - interval '5 minutes', next_start = '-infinity', total_runs = 2,"
            f" last_successful_finish = now() - interval '{minutes} minutes'"
            f" WHERE job_id = {expire}"
        )
        found = await problems(db)
        assert list(found) == told, "the run before was not long ago: the next may succeed"
    assert "has not succeeded for 01:30:00" in found["job_failures", "plc_expire"]
    assert "see the server's log" in found["job_failures", "plc_expire"]


@pytest.mark.timescale
@WITHOUT_TIMESCALE
async def test_a_job_that_fails(tmp_path: Path) -> None:
    """Told with its error while it does not succeed, and no more once it does."""
    settings = ["fsync=off", *TIMESCALE_WORKERS]
    with Postgres(tmp_path / "server", settings, timescale=True) as server:
        await database.init(server.dsn(), flavour="timescale")
        async with Cluster.connected(server.dsn()) as connection:
            job = await connection.fetchval(
                "SELECT job_id FROM timescaledb_information.jobs WHERE proc_name = 'plc_expire'"
            )

            async def body(text: str) -> None:
                await connection.execute(
                    "CREATE OR REPLACE PROCEDURE public.plc_expire(job_id integer, config jsonb)"
                    f" LANGUAGE plpgsql AS $$ BEGIN {text} END $$"
                )

            async def told(so: Callable[[list[HealthCheck]], bool]) -> list[HealthCheck]:
                async with asyncio.timeout(30):
                    while True:
                        checks = [
                            check
                            for check in await read_health(connection)
                            if check.object == "plc_expire"
                        ]
                        if so(checks):
                            return checks
                        await asyncio.sleep(0.1)

            await body("RAISE EXCEPTION 'the disk is gone';")
            await connection.execute(
                f"SELECT alter_job({job}, schedule_interval => interval '1 second',"
                " retry_period => interval '1 second', max_retries => -1, next_start => now())"
            )
            checks = await told(lambda checks: any(check.problem for check in checks))
            (failing,) = [check for check in checks if check.problem]
            assert failing.check == "job_failures"
            assert failing.value >= 1
            assert "the disk is gone" in str(failing.problem)
            await body("NULL;")
            checks = await told(lambda checks: not any(check.problem for check in checks))
            assert {check.check for check in checks} == {"job_age_seconds", "job_failures"}


# --- slots -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SlotServer:
    """A server with a slot that nobody reads."""

    connection: Any

    async def set_limit(self, limit: str) -> None:
        """How much WAL slots may keep."""
        await self.connection.execute(f"ALTER SYSTEM SET max_slot_wal_keep_size = '{limit}'")
        await self.connection.execute("SELECT pg_reload_conf()")
        await until(lambda: self._shows(limit), f"a limit of {limit}")

    async def _shows(self, limit: str) -> bool:
        return bool(await self.connection.fetchval("SHOW max_slot_wal_keep_size") == limit)

    async def write_wal(self, segments: int) -> None:
        """As many segments of 16 MB more."""
        for _ in range(segments):
            await self.connection.execute(
                "SELECT pg_logical_emit_message(false, '', ''), pg_switch_wal()"
            )
        await self.connection.execute("CHECKPOINT")

    async def checks(self) -> dict[str, HealthCheck]:
        """What is said of slots."""
        found = await read_health(self.connection)
        return {each.check: each for each in found if each.check.startswith("slot_")}


async def test_a_slot_from_its_first_day_to_its_last(tmp_path: Path) -> None:
    """Without a limit, without a subscriber, nearly lost, lost: each is told, with a way out."""
    with Postgres(tmp_path / "server", ["fsync=off", "wal_level=logical"]) as server:
        await database.init(server.dsn(), flavour="postgres")
        async with Cluster.connected(server.dsn()) as connection:
            slots = SlotServer(connection)
            assert set(await slots.checks()) == {"slot_wal_max_bytes"}
            await connection.execute(
                "SELECT pg_create_logical_replication_slot('plc_a', 'pgoutput')"
            )
            found = await slots.checks()
            assert set(found) == SLOT | {"slot_wal_max_bytes"}
            assert found["slot_wal_max_bytes"].value == -1
            assert "ALTER SYSTEM SET max_slot_wal_keep_size" in str(
                found["slot_wal_max_bytes"].problem
            )
            await slots.set_limit("192MB")
            found = await slots.checks()
            assert not [each.problem for each in found.values() if each.problem]
            assert found["slot_wal_max_bytes"].value == 192 * 2**20
            assert found["slot_active"].value == 0
            assert found["slot_wal_bytes"].value < 2**20
            await slots.write_wal(5)
            found = await slots.checks()
            assert 64 * 2**20 < found["slot_wal_bytes"].value < 100 * 2**20
            assert "has no subscriber and keeps" in str(found["slot_wal_bytes"].problem)
            await slots.write_wal(6)
            assert "is lost at 192 MB" in str((await slots.checks())["slot_wal_bytes"].problem)
            await slots.write_wal(6)
            assert "edge-remote resync" in str((await slots.checks())["slot_wal_bytes"].problem)
            await connection.execute("SELECT pg_drop_replication_slot('plc_a')")
            assert set(await slots.checks()) == {"slot_wal_max_bytes"}


# --- outbox and landing table ------------------------------------------------------------------


async def test_an_outbox_whose_upkeep_stands_still(db: Database) -> None:
    """Hours are no longer made ahead; rows in the default partition are counted."""
    await apply(db, "edge")
    assert 47 < (await ask(db))["outbox_ahead_hours", "plc_outbox"].value <= 49
    parts = await db.query(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits"
        " WHERE inhparent = 'public.plc_outbox'::regclass"
        " AND inhrelid::regclass::text ~ '[0-9]{10}$' ORDER BY 1"
    )
    assert len(parts) == 49
    await db.execute(f"DROP TABLE {', '.join(row['name'] for row in parts[11:])}")
    found = await problems(db)
    assert list(found) == [("outbox_ahead_hours", "plc_outbox")]
    await db.execute(f"DROP TABLE {', '.join(row['name'] for row in parts[:11])}")
    await write(db, "0", "1 second")
    assert (await ask(db))["outbox_default_rows", "plc_outbox"].value == 2
    await db.execute("DELETE FROM plc_outbox_default; SELECT plc_outbox_upkeep()")
    assert not await problems(db)


async def test_rows_that_stay_in_the_landing_table(db: Database) -> None:
    """They are in no query's answer: the trigger is gone, or is an ordinary one."""
    await apply(db, "remote")
    row = "INSERT INTO plc_outbox VALUES (now(), 'A1', 'L1', 'D1', 'T1', 1, '')"
    await db.execute(row)
    assert not await problems(db), "the trigger has handed it on"
    await db.execute(f"ALTER TABLE plc_outbox ENABLE REPLICA TRIGGER plc_land; {row}")
    found = await problems(db)
    assert list(found) == [("landing_rows", "plc_outbox")]
    assert "edge-remote setup" in found["landing_rows", "plc_outbox"]


async def test_rows_that_the_remote_refused(db: Database) -> None:
    """They are kept, and told until somebody has dealt with them."""
    await apply(db, "remote")
    await db.execute(
        "INSERT INTO plc_outbox VALUES (now() + interval '1 year', 'A1', 'L1', 'D1', 'T1', 1, '')"
    )
    assert list(await problems(db)) == [("refused_rows", "plc_refused")]
    await db.execute("DELETE FROM plc_refused")
    assert not await problems(db)


# --- the server --------------------------------------------------------------------------------


async def test_transaction_ids_that_run_out(db: Database) -> None:
    """Told long before the server stops writing, when autovacuum should have seen to it."""
    async with db.cluster.connected(db.owner_dsn) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(
            "UPDATE pg_database SET datfrozenxid = ((txid_current() - 500000000 + 4294967296)"
            " % 4294967296)::text::xid WHERE datname = current_database()"
        )
        found = {each.check: each for each in await read_health(connection)}
        await transaction.rollback()
    assert 499_000_000 < found["freeze_age_xids"].value < 501_000_000
    assert "run VACUUM" in str(found["freeze_age_xids"].problem)
