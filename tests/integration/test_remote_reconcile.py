"""`edge-remote reconcile` between two real servers: finds what differs, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from remote import comparison
from remote.copying import stage
from tests.integration.remote_pair import FLAVOUR_PAIRS, PAIRS, Pair, clusters, pair

__all__ = ["clusters", "pair"]

both_flavours = pytest.mark.parametrize("pair", FLAVOUR_PAIRS, indirect=True)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)

# Five hours of two devices with two tags, every 10 seconds, up to two minutes ago.
HISTORY = """
INSERT INTO public.plc_raw (ts, site, line, device, tag, value, unit)
SELECT ts, 'A1', 'L1', 'PUMP' || d, '온도' || t, extract(epoch FROM ts) + d * 10 + t, '°C'
FROM generate_series(
    date_trunc('hour', now()) - interval '5 hours', now() - interval '2 minutes',
    interval '10 seconds'
) AS ts, generate_series(1, 2) AS d, generate_series(1, 2) AS t
"""


@pytest.fixture
async def flowing(pair: Pair) -> Pair:
    """A pair that replicates, with five hours of rows on both sides."""
    await pair.edge.execute(
        "SELECT plc_make_partitions(ARRAY(SELECT floor(extract(epoch FROM now()) / 86400)::bigint"
        " - n FROM generate_series(0, 1) AS n))"
    )
    await pair.edge.execute(HISTORY)
    await pair.setup()
    done = await pair.run("backfill")
    assert done.code == 0, done
    return pair


def hour(ago: int) -> datetime:
    """The beginning of an hour; 0 is the one that runs, once its first rows are compared."""
    settled = datetime.now(UTC) - 2 * MINUTE
    return settled.replace(minute=0, second=0, microsecond=0) - ago * HOUR


async def found(pair: Pair, *words: str) -> tuple[int, dict[str, Any]]:
    """Exit code, and what it says as JSON."""
    done = await pair.run("reconcile", "--json", *words)
    assert done.errors == ""
    return done.code, done.said


def counts(said: dict[str, Any]) -> tuple[int, int, int, int]:
    """Missing, different, extra, deleted."""
    return said["missing"], said["different"], said["extra"], said["deleted"]


async def rollups_are_right(pair: Pair) -> bool:
    """Whether plc_1m and plc_1h at the remote have counted and summed up what is in plc_raw."""
    return bool(
        await pair.remote.value(
            "SELECT (SELECT sum(samples) FROM plc_1m) = count(*)"
            " AND (SELECT sum(samples) FROM plc_1h) = count(*)"
            " AND abs((SELECT sum(avg_value * samples) FROM plc_1m) / sum(value) - 1) < 1e-9"
            " FROM plc_raw"
        )
    )


@pytest.mark.parametrize("pair", PAIRS, indirect=True)
async def test_equal_rows_have_equal_sums(flowing: Pair) -> None:
    """Whatever flavour, order, partitions and compression: the same rows are the same."""
    edge, remote = flowing.flavours
    await flowing.remote.execute(
        "CREATE TABLE shuffled AS SELECT * FROM plc_raw ORDER BY random(); TRUNCATE plc_raw;"
        "INSERT INTO plc_raw SELECT * FROM shuffled; DROP TABLE shuffled"
    )
    if "timescale" in (edge, remote):
        side = flowing.edge if edge == "timescale" else flowing.remote
        await side.query("SELECT compress_chunk(chunk) FROM show_chunks('plc_raw') AS chunk")
    code, said = await found(flowing, "--hours", "7")
    assert (code, counts(said), said["differences"]) == (0, (0, 0, 0, 0), [])
    assert said["devices"] == 2
    assert said["rows"] == await flowing.edge.value("SELECT count(*) FROM plc_raw")


@both_flavours
async def test_every_kind_of_difference_is_found_and_repaired(flowing: Pair) -> None:
    """Rows and whole hours that are gone, other values, lines and units; the edge is right, and
    plc_1m and plc_1h follow."""
    before = await flowing.edge.checksum()
    await flowing.remote.query(
        "DELETE FROM plc_raw WHERE ts >= $1 AND ts < $1 + interval '1 hour'", hour(4)
    )
    await flowing.remote.query(
        "DELETE FROM plc_raw WHERE device = 'PUMP1' AND ts >= $1 AND ts < $1 + interval '1 minute'",
        hour(3) + 59 * MINUTE,
    )
    await flowing.remote.query("DELETE FROM plc_raw WHERE tag = '온도2' AND ts = $1", hour(2))
    for change in ("value = value + 1000", "line = 'L9'", "unit = 'K'"):
        await flowing.remote.query(
            f"UPDATE plc_raw SET {change} WHERE device = 'PUMP2' AND tag = '온도1'"
            " AND ts BETWEEN $1 AND $1 + interval '10 seconds'",
            hour(1) + MINUTE,
        )
    code, said = await found(flowing, "--hours", "6", "--dry-run")
    assert (code, counts(said)) == (1, (1440 + 12 + 2, 2, 0, 0))
    assert await flowing.remote.checksum() != before
    code, said = await found(flowing, "--hours", "6")
    assert (code, counts(said), said["left"]) == (0, (1440 + 12 + 2, 2, 0, 0), 0)
    assert [
        (each["hour"], each["device"], each["edge_rows"], each["remote_rows"])
        for each in said["differences"]
    ] == [
        (hour(4).isoformat(), "PUMP1", 720, 0),
        (hour(4).isoformat(), "PUMP2", 720, 0),
        (hour(3).isoformat(), "PUMP1", 720, 708),
        (hour(2).isoformat(), "PUMP1", 720, 719),
        (hour(2).isoformat(), "PUMP2", 720, 719),
        (hour(1).isoformat(), "PUMP2", 720, 720),
    ]
    assert await flowing.remote.checksum() == before
    assert await rollups_are_right(flowing)
    code, said = await found(flowing, "--hours", "6")
    assert (code, said["differences"]) == (0, [])


@both_flavours
async def test_extra_rows(flowing: Pair) -> None:
    """Left alone and told, exit code 1; deleted only if asked for. Those of other edges, and those
    older than this edge's oldest of the device, are never touched."""
    before = await flowing.edge.checksum()
    rows = [
        (hour(2) + timedelta(seconds=1), "A1", "PUMP1", "온도1"),
        (hour(2) + timedelta(seconds=1), "A1", "PUMP1", "another"),
        (hour(2), "B7", "PUMP1", "온도1"),
        (hour(2), "A1", "PUMP9", "온도1"),
        (hour(5) - timedelta(seconds=1), "A1", "PUMP1", "온도1"),
    ]
    for ts, site, device, tag in rows:
        await flowing.remote.query(
            "INSERT INTO plc_raw VALUES ($1, $2, 'L1', $3, $4, 5, 'bar')", ts, site, device, tag
        )
    await flowing.remote.execute("CALL plc_refresh(now() - interval '7 hours', now())")
    assert await rollups_are_right(flowing)
    code, said = await found(flowing, "--hours", "7")
    assert (code, counts(said), said["left"]) == (1, (0, 0, 2, 0), 2)
    code, said = await found(flowing, "--hours", "7", "--delete-extra", "--dry-run")
    assert (code, counts(said)) == (1, (0, 0, 2, 0))
    code, said = await found(flowing, "--hours", "7", "--delete-extra")
    assert (code, counts(said), said["left"]) == (0, (0, 0, 2, 2), 0)
    assert await rollups_are_right(flowing)
    kept = await flowing.remote.value("SELECT count(*) FROM plc_raw WHERE value = 5")
    assert kept == 3
    await flowing.remote.execute("DELETE FROM plc_raw WHERE value = 5")
    assert await flowing.remote.checksum() == before


@asynccontextmanager
async def writing(pair: Pair) -> AsyncIterator[list[int]]:
    """New rows at the edge the whole time, 2,000/s, one in four of them an hour late."""
    written = [0]

    async def write() -> None:
        async with pair.edge.connected() as connection:
            while True:
                await connection.execute(
                    "INSERT INTO plc_raw SELECT clock_timestamp() - CASE WHEN n % 4 = 0"
                    " THEN interval '1 hour' ELSE '0' END + n * interval '1 microsecond',"
                    " 'A1', 'L1', 'PUMP' || n % 3, 'fast', n, 'bar'"
                    " FROM generate_series(1, 200) AS n"
                )
                written[0] += 200
                await asyncio.sleep(0.1)

    task = asyncio.create_task(write())
    try:
        yield written
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@both_flavours
async def test_rows_that_keep_coming_are_no_difference(flowing: Pair) -> None:
    """Late ones that are on their way neither: they are looked at again before they are called
    missing, and rows that the remote has first are asked for at the edge."""
    async with writing(flowing) as written:
        while written[0] < 10_000:
            code, said = await found(flowing, "--hours", "3")
            assert (code, said["differences"], said["notes"]) == (0, [], [])
    await flowing.wait_equal()


async def test_rows_on_their_way_are_waited_for(flowing: Pair) -> None:
    """The subscription is held up for a moment: what it brings then was not missing."""
    async with flowing.remote.connected() as holder:
        await holder.execute("BEGIN; LOCK TABLE plc_outbox IN ACCESS EXCLUSIVE MODE")
        await flowing.write(100, minutes_ago=50, site="A2")
        running = asyncio.create_task(found(flowing))
        await asyncio.sleep(1.5)
        assert not running.done()
        await holder.execute("ROLLBACK")
        code, said = await running
    assert (code, said["differences"], said["notes"]) == (0, [], [])
    await flowing.wait_equal()


async def test_rows_that_overtake_the_comparison_are_not_extra(
    flowing: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that the edge got after its rows were read, and that is at the remote before they are
    counted there, is not deleted."""
    await flowing.remote.query("DELETE FROM plc_raw WHERE device = 'PUMP1' AND ts = $1", hour(1))
    late = hour(1) + timedelta(seconds=1)

    async def stage_then_write(*arguments: Any, **options: Any) -> int:
        rows = await stage(*arguments, **options)
        await flowing.edge.query(
            "INSERT INTO plc_raw VALUES ($1, 'A1', 'L1', 'PUMP1', 'late', 1, 'bar')", late
        )

        async def arrived() -> bool:
            return bool(await flowing.remote.value("SELECT TRUE FROM plc_raw WHERE ts = $1", late))

        await flowing.wait(arrived, "the late row")
        return rows

    monkeypatch.setattr(comparison, "stage", stage_then_write)
    code, said = await found(flowing, "--delete-extra")
    assert (code, counts(said)) == (0, (2, 0, 0, 0))
    await flowing.wait_equal()


async def test_rows_that_wait_for_a_subscription_that_stands_still(flowing: Pair) -> None:
    """They are brought at once, and the note says why they were missing."""
    await flowing.remote.execute(f"ALTER SUBSCRIPTION plc_{flowing.name} DISABLE")
    await flowing.write(100, minutes_ago=50, site="A2")
    code, said = await found(flowing)
    assert (code, said["missing"]) == (0, 100)
    assert "the remote did not catch up" in said["notes"][0]
    await flowing.remote.execute(f"ALTER SUBSCRIPTION plc_{flowing.name} ENABLE")
    await flowing.write(1, site="A2")
    await flowing.wait_equal()


async def test_what_it_prints(flowing: Pair) -> None:
    """One line where all is equal; else a table of what differs, and what was done."""
    equal = await flowing.run("reconcile")
    assert equal.code == 0
    assert equal.output.endswith(": equal\n")
    assert equal.output.count("\n") == 1
    await flowing.remote.query("DELETE FROM plc_raw WHERE device = 'PUMP2' AND ts = $1", hour(1))
    differs = await flowing.run("reconcile")
    assert differs.code == 0
    assert "PUMP2" in differs.output
    assert "PUMP1" not in differs.output
    assert "2 missing, inserted" in differs.output


async def test_the_remotes_retention_is_respected(flowing: Pair) -> None:
    """What it drops again is not brought again and again."""
    await flowing.remote.execute("UPDATE plc_settings SET raw_days = 1, refresh_minute_days = 1")
    code, said = await found(flowing, "--hours", "96")
    assert code == 0
    assert "keeps plc_raw for 1 days" in said["notes"][0]
    assert datetime.now(UTC) - datetime.fromisoformat(said["first"]) < timedelta(days=2)


async def test_wrong_hours_and_no_setup(pair: Pair) -> None:
    """Exit code 2, with what is allowed or to be done."""
    none = await pair.run("reconcile", "--hours", "0")
    assert (none.code, "--hours: '0'; allowed: 1 to 26400" in none.errors) == (2, True)
    early = await pair.run("reconcile")
    assert early.code == 2
    assert "run `edge-remote setup`" in early.errors
