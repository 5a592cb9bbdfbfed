"""`edge-remote backfill` between two real servers: complete, once, resumable, throttled."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.integration.remote_pair import FLAVOUR_PAIRS, Pair, Side, clusters, pair

__all__ = ["clusters", "pair"]

both_flavours = pytest.mark.parametrize("pair", FLAVOUR_PAIRS, indirect=True)

HISTORY = """
INSERT INTO public.plc_raw (ts, site, line, device, tag, value, unit)
SELECT date_trunc('second', now()) - $1::interval + n * interval '1 second', 'A1', 'L1',
       'PUMP' || n % 3, '온도' || n % 5, n / 3.0, '°C'
FROM generate_series(1, $2::integer) AS n
"""


async def history(side: Side, ago: str, rows: int) -> None:
    """Rows a second apart that begin so long ago, in the partitions of their days."""
    await side.query(
        "SELECT plc_make_partitions(ARRAY(SELECT floor(extract(epoch FROM now() - $1::interval)"
        " / 86400)::bigint + n FROM generate_series(0, $2::integer / 86400 + 1) AS n))",
        interval(ago),
        rows,
    )
    await side.query(HISTORY, interval(ago), rows)


def interval(text: str) -> timedelta:
    """`40 days` as Python has it."""
    count, unit = text.split()
    return timedelta(**{unit: float(count)})


async def samples(side: Side) -> tuple[int, int, int]:
    """Rows of plc_raw, and how many of them plc_1m and plc_1h have counted."""
    rows = await side.query(
        "SELECT (SELECT count(*) FROM plc_raw), (SELECT sum(samples)::bigint FROM plc_1m),"
        " (SELECT sum(samples)::bigint FROM plc_1h)"
    )
    return tuple(rows[0])


def moment(ago: timedelta) -> str:
    """A time in the past, for `--from` and `--to`."""
    return (datetime.now(UTC) - ago).isoformat()


@both_flavours
async def test_everything_arrives_once_and_is_rolled_up(pair: Pair) -> None:
    """Rows of any age and of whatever writer, in plc_1m and plc_1h too; a second run adds none."""
    await history(pair.edge, "40 days", 3_000)
    await history(pair.edge, "25 hours", 7_200)
    async with pair.edge.connected() as connection:
        await connection.copy_records_to_table(
            "plc_raw",
            records=[(datetime.now(UTC) - timedelta(hours=24), "B2", "", "FAN", "RPM", 1e308, "")],
        )
    await pair.setup()
    first = await pair.run("backfill")
    assert first.code == 0, first
    assert "10,201 rows read, 10,201 of them were new" in first.output
    assert await pair.edge.checksum() == await pair.remote.checksum()
    assert await samples(pair.remote) == (10_201, 10_201, 10_201)
    again = await pair.run("backfill", "--json")
    assert (again.said["rows"], again.said["new"]) == (10_201, 0)
    assert await samples(pair.remote) == (10_201, 10_201, 10_201)


@both_flavours
async def test_late_rows_at_the_remote_reach_the_rollups(pair: Pair) -> None:
    """Rows older than what has been refreshed already are counted in plc_1m and plc_1h."""
    await history(pair.edge, "20 days", 600)
    await pair.setup()
    assert (await pair.run("backfill")).code == 0
    await pair.remote.execute(f"ALTER SUBSCRIPTION plc_{pair.name} DISABLE")
    await history(pair.edge, "19 days", 600)
    done = await pair.run("backfill", "--json")
    assert done.said["new"] == 600
    assert await samples(pair.remote) == (1_200, 1_200, 1_200)


async def test_only_what_was_asked_for_is_copied(pair: Pair) -> None:
    """From the first time up to, but without, the last."""
    await history(pair.edge, "5 hours", 4 * 3600)
    await pair.setup()
    first, last = moment(timedelta(hours=3)), moment(timedelta(hours=2))
    done = await pair.run("backfill", "--from", first, "--to", last)
    assert done.code == 0, done
    bounds = (await pair.remote.query("SELECT min(ts), max(ts), count(*) FROM plc_raw"))[0]
    assert bounds[0] >= datetime.fromisoformat(first)
    assert bounds[1] < datetime.fromisoformat(last)
    assert bounds[2] == 3600


@both_flavours
async def test_killed_in_the_middle_it_goes_on_there(pair: Pair) -> None:
    """kill -9: what was committed stays and is not copied again, the rest comes, and all of it is
    in the rollups."""
    await history(pair.edge, "25 hours", 30_000)
    await pair.setup()
    arguments = ["backfill", "--rows-per-second", "4000"]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "remote",
        "--config",
        str(pair.config),
        *arguments,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )

    async def some_are_there() -> bool:
        return bool(await pair.remote.value("SELECT count(*) > 3000 FROM plc_raw"))

    await pair.wait(some_are_there, "the first portions")
    process.send_signal(signal.SIGKILL)
    await process.wait()
    kept = await pair.remote.value("SELECT count(*) FROM plc_raw")
    assert kept < 30_000
    progress = (await pair.remote.query("SELECT first, done_until, last FROM plc_backfill"))[0]
    assert progress["first"] < progress["done_until"] < progress["last"]
    done = await pair.run("backfill")
    assert done.code == 0, done
    assert "going on at" in done.output
    assert f"{30_000 - kept:,} rows read, {30_000 - kept:,} of them were new" in done.output
    assert await pair.edge.checksum() == await pair.remote.checksum()
    assert await samples(pair.remote) == (30_000, 30_000, 30_000)


async def test_a_finished_one_begins_anew_and_so_does_restart(pair: Pair) -> None:
    """Rows that were deleted since then come back; --restart passes over what was noted."""
    await history(pair.edge, "5 hours", 3600)
    await pair.setup()
    assert (await pair.run("backfill")).code == 0
    await pair.remote.execute("DELETE FROM plc_raw")
    assert (await pair.run("backfill", "--json")).said["new"] == 3600
    await pair.remote.execute(
        "DELETE FROM plc_raw; UPDATE plc_backfill SET refreshed_until = first"
    )
    assert (await pair.run("backfill", "--json", "--restart")).said["new"] == 3600


async def test_a_deadlock_is_tried_again(pair: Pair) -> None:
    """Another writer has the last row and wants the first: the server ends our transaction, the
    other one commits, and the backfill is complete all the same."""
    await history(pair.edge, "90 minutes", 50)
    await pair.setup()
    waiting = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    insert = "INSERT INTO plc_raw VALUES ($1, $2, $3, $4, $5, $6, $7)"
    rows = [tuple(row) for row in await pair.edge.query("SELECT * FROM plc_raw ORDER BY ts")]
    await pair.remote.execute(
        "SELECT plc_make_partitions(ARRAY(SELECT floor(extract(epoch FROM now()) / 86400)::bigint"
        " - n FROM generate_series(0, 1) AS n))"
    )
    async with pair.remote.connected() as other:
        await other.execute("BEGIN")
        await other.execute(insert, *rows[-1])
        running = asyncio.create_task(pair.run("backfill"))
        await pair.wait(lambda: pair.remote.value(waiting), "backfill waits for the last row")
        await other.execute(insert, *rows[0])
        await other.execute("COMMIT")
    done = await running
    assert done.code == 0, done
    assert "deadlock detected" in pair.remote.log()
    assert await pair.edge.checksum() == await pair.remote.checksum()


async def test_rows_per_second(pair: Pair) -> None:
    """6,000 rows at 4,000 a second take more than a second."""
    await history(pair.edge, "5 hours", 6_000)
    await pair.setup()
    before = time.monotonic()
    assert (await pair.run("backfill", "--rows-per-second", "4000")).code == 0
    assert time.monotonic() - before > 1.2
    assert await pair.edge.checksum() == await pair.remote.checksum()


async def test_dry_run_changes_nothing(pair: Pair) -> None:
    """It says which days have rows; no partition is made, and nothing is noted."""
    await history(pair.edge, "40 days", 100)
    await pair.setup()
    before = await tables(pair.remote)
    done = await pair.run("backfill", "--dry-run", "--json")
    assert done.code == 0
    assert len(done.said["days"]) in (1, 2)
    assert done.said["dry_run"]
    assert await tables(pair.remote) == before
    assert await pair.remote.value("SELECT count(*) FROM plc_backfill") == 0


async def tables(side: Side) -> list[Any]:
    """Every table's name."""
    return await side.query("SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') ORDER BY 1")


async def test_no_rows(pair: Pair) -> None:
    """Nothing to copy is no error."""
    await pair.setup()
    done = await pair.run("backfill")
    assert (done.code, "no rows" in done.output) == (0, True)


async def test_days_that_the_remote_does_not_take(pair: Pair) -> None:
    """Too old for its retention, or for plc_make_partitions: said before anything is copied."""
    await pair.edge.execute(
        "CREATE TABLE plc_raw_20010102 PARTITION OF plc_raw"
        " FOR VALUES FROM ('2001-01-02') TO ('2001-01-03');"
        "INSERT INTO plc_raw VALUES ('2001-01-02 03:04', 'A1', 'L1', 'PUMP1', 'T', 1, 'bar')"
    )
    await history(pair.edge, "95 days", 100)
    await pair.setup()
    ancient = await pair.run("backfill", "--from", "2001-01-01", "--to", "2001-02-01")
    assert ancient.code == 2
    assert "refuses the day 2001-01-02" in ancient.errors
    assert "1,100 days" in ancient.errors
    old = await pair.run("backfill", "--from", moment(timedelta(days=100)))
    assert old.code == 2
    assert "keeps plc_raw for 90 days" in old.errors
    assert "raw_days" in old.errors
    assert await pair.remote.value("SELECT count(*) FROM plc_raw") == 0
    assert (await pair.run("backfill")).code == 0  # without --from: what both keep
    await pair.remote.execute("UPDATE plc_settings SET raw_days = 100")
    done = await pair.run("backfill", "--from", moment(timedelta(days=99)), "--json")
    assert done.said["new"] == 100


async def test_another_one_is_at_work(pair: Pair) -> None:
    """Two would note their progress in the same place."""
    await pair.setup()
    async with pair.remote.connected() as connection:
        await connection.execute(
            f"SELECT pg_advisory_lock(hashtextextended('edge-remote backfill of {pair.name}', 0))"
        )
        await history(pair.edge, "2 hours", 10)
        done = await pair.run("backfill")
    assert done.code == 1
    assert f"another backfill of {pair.name} is at work" in done.errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--from", "yesterday"], "--from 'yesterday': not a time"),
        (["--to", "2026-13-01"], "--to '2026-13-01': not a time"),
        (["--rows-per-second", "5"], "--rows-per-second: '5'; allowed: 100 to"),
        (["--from", "2026-11-02", "--to", "2026-11-01"], "is not before --to"),
        ([], "it is not set up yet"),
    ],
)
async def test_wrong_input(pair: Pair, words: list[str], message: str) -> None:
    """Exit code 2, what is wrong, and what is allowed."""
    if words[:1] == ["--from"] and words[1:2] == ["2026-11-02"]:
        await pair.setup()
    done = await pair.run("backfill", *words)
    assert done.code == 2
    assert message in done.errors
