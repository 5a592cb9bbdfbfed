"""The outbox at the edge: what goes into it, how it is kept, and that it never stops a writer."""

from __future__ import annotations

import asyncio
import subprocess
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from tests.integration.remote_pair import FLAVOUR_PAIRS, Pair, Side, clusters, insert_sql, pair

__all__ = ["clusters", "pair"]

PARTITIONS = """
SELECT child.relname::text FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
WHERE inhparent = 'plc_outbox'::regclass AND child.relname <> 'plc_outbox_default' ORDER BY 1
"""
COLUMNS = "ts, site, line, device, tag, value, unit"


def partition(hour: datetime) -> str:
    """Its name."""
    return f"plc_outbox_{hour:%Y%m%d%H}"


async def upkeep(side: Side, user: str = "agent") -> Any:
    """One call, with the agent's rights."""
    async with side.connected(user) as connection:
        return await connection.fetchval("SELECT plc_outbox_upkeep()")


async def old_partition(side: Side, hours: int, rows: int = 0) -> str:
    """A partition of so many hours ago, with rows."""
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=hours)
    await side.execute(
        f"SET ROLE plc_owner;"
        f"CREATE TABLE {partition(hour)} PARTITION OF plc_outbox FOR VALUES FROM ('{hour}')"
        f" TO ('{hour + timedelta(hours=1)}');"
        f"INSERT INTO plc_outbox SELECT now(), 'A', 'L', 'D', 'T', n, '', '{hour}'"
        f" FROM generate_series(1, {rows}) AS n"
    )
    return partition(hour)


@pytest.mark.parametrize("pair", FLAVOUR_PAIRS, indirect=True)
async def test_every_writer_fills_it_with_what_was_inserted(pair: Pair) -> None:
    """psql's INSERT, COPY, and the agent's role; a duplicate is not published again."""
    await pair.setup()
    side = pair.edge
    done = await asyncio.to_thread(
        subprocess.run,
        ["psql", side.dsn, "-q", "-v", "ON_ERROR_STOP=1", "-c", insert_sql(20)],
        check=False,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    async with side.connected("agent") as connection:
        start = datetime.now(UTC).replace(microsecond=0)
        records = [(start, "C1", "L1", "D", f"T{n}", n * 0.5, "bar") for n in range(30)]
        await connection.copy_records_to_table(
            "plc_raw", records=records, columns=COLUMNS.split(", ")
        )
        await connection.execute(
            "INSERT INTO plc_raw (ts, site, line, device, tag, value, unit) VALUES"
            " ($1, 'C1', 'L1', 'D', 'T3', 99, 'bar'), ($1, 'C1', 'L1', 'D', 'new', 1, 'bar')"
            " ON CONFLICT DO NOTHING",
            start,
        )
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("SELECT FROM plc_outbox")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("DELETE FROM plc_outbox")
    difference = f"(SELECT {COLUMNS} FROM {{}} EXCEPT ALL SELECT {COLUMNS} FROM {{}})"
    for tables in (("plc_raw", "plc_outbox"), ("plc_outbox", "plc_raw")):
        assert await side.query(difference.format(*tables)) == []
    assert await pair.wait_equal() == 51


@pytest.mark.parametrize("pair", FLAVOUR_PAIRS, indirect=True)
async def test_a_failed_transaction_publishes_nothing(pair: Pair) -> None:
    """The outbox is written in the writer's transaction."""
    await pair.setup()
    async with pair.edge.connected() as connection:
        await connection.execute(f"BEGIN; {insert_sql(20)}; ROLLBACK")
    await pair.write(5, site="B1")
    assert await pair.wait_equal() == 5


async def test_partitions_are_ready_for_two_days(pair: Pair) -> None:
    """This hour and 48 more, whatever was there; a second call adds none."""
    await pair.setup()
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    wanted = [partition(hour + timedelta(hours=n)) for n in range(49)]
    found = [row[0] for row in await pair.edge.query(PARTITIONS)]
    assert found[:49] == wanted
    assert await upkeep(pair.edge) == 0
    assert [row[0] for row in await pair.edge.query(PARTITIONS)][:49] == wanted


async def test_what_is_old_is_dropped(pair: Pair) -> None:
    """By whole hours, the default partition's rows too; younger ones stay."""
    pair.settings["outbox_hours"] = 5
    await pair.setup()
    kept = await old_partition(pair.edge, 4, rows=3)
    gone = await old_partition(pair.edge, 6, rows=3)
    await pair.edge.execute(
        "INSERT INTO plc_outbox SELECT now(), 'A', 'L', 'D', 'T', n, '', now() - n * interval"
        " '10 hours' FROM generate_series(1, 4) AS n"
    )
    assert await upkeep(pair.edge) == 1
    names = [row[0] for row in await pair.edge.query(PARTITIONS)]
    assert kept in names
    assert gone not in names
    assert await pair.edge.value("SELECT count(*) FROM plc_outbox_default") == 0


async def test_a_changed_outbox_hours_takes_effect_by_setup(pair: Pair) -> None:
    """The setting is written to the database, and that is all there is to do."""
    await pair.setup()
    assert await pair.edge.value("SELECT outbox_hours FROM plc_outbox_settings") == 48
    pair.settings["outbox_hours"] = 72
    steps = (await pair.setup("--json")).said["steps"]
    assert len(steps) == 1
    assert await pair.edge.value("SELECT outbox_hours FROM plc_outbox_settings") == 72


async def test_rows_come_while_nobody_made_partitions(pair: Pair) -> None:
    """The default partition takes them, they replicate, and upkeep works round that hour."""
    await pair.setup()
    for row in await pair.edge.query(PARTITIONS):
        await pair.edge.execute(f"DROP TABLE {row[0]}")
    await pair.write(30)
    assert await pair.wait_equal() == 30
    assert await pair.edge.value("SELECT count(*) FROM plc_outbox_default") == 30
    await upkeep(pair.edge)
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    names = [row[0] for row in await pair.edge.query(PARTITIONS)]
    assert partition(hour + timedelta(hours=1)) in names
    await pair.write(30, site="B1")
    assert await pair.wait_equal() == 60


async def test_upkeep_waits_for_nobody(pair: Pair) -> None:
    """While a reader holds the outbox, as a copy for a remote does, nothing is dropped or waits."""
    await pair.setup()
    pair.settings["outbox_hours"] = 5
    await pair.setup()
    old = await old_partition(pair.edge, 9)
    async with pair.edge.connected() as connection:
        await connection.execute("BEGIN; SELECT FROM plc_outbox LIMIT 1")
        started = time.monotonic()
        assert await upkeep(pair.edge) == 0
        assert time.monotonic() - started < 2
        await pair.write(5)
        await connection.execute("ROLLBACK")
    assert await upkeep(pair.edge) == 1
    assert old not in [row[0] for row in await pair.edge.query(PARTITIONS)]


@pytest.mark.parametrize("pair", FLAVOUR_PAIRS, indirect=True)
async def test_the_agents_upkeep_includes_it(pair: Pair) -> None:
    """plc_retention, which the agent calls each minute, does it where there is an outbox."""
    pair.settings["outbox_hours"] = 5
    await pair.setup()
    old = await old_partition(pair.edge, 9)
    async with pair.edge.connected("agent") as connection:
        await connection.fetch("SELECT * FROM plc_retention()")
    assert old not in [row[0] for row in await pair.edge.query(PARTITIONS)]
    assert (await pair.run("teardown")).code == 0
    async with pair.edge.connected("agent") as connection:
        await connection.fetch("SELECT * FROM plc_retention()")


async def test_pruning_is_not_replicated(pair: Pair) -> None:
    """Only inserts are published: what is dropped at the edge stays at the remote."""
    pair.settings["outbox_hours"] = 1
    await pair.setup()
    await pair.write(10)
    await pair.wait_equal()
    await pair.edge.execute("DELETE FROM plc_outbox; TRUNCATE plc_outbox")
    await pair.write(10, site="B1")
    assert await pair.wait_equal() == 20
