"""`edge-remote resync` between two real servers: a slot that is really lost, and no row with it."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.integration.remote_pair import FLAVOUR_PAIRS, Pair, clusters, pair

__all__ = ["clusters", "pair"]

both_flavours = pytest.mark.parametrize("pair", FLAVOUR_PAIRS, indirect=True)

WAL_KEEP_MB = 16
"""One segment: the least that means anything."""


@pytest.fixture
async def scarce(pair: Pair) -> AsyncIterator[Pair]:
    """A pair that replicates, with rows of some hours, and an edge that keeps hardly any WAL."""
    await pair.edge.execute(
        "SELECT plc_make_partitions(ARRAY(SELECT floor(extract(epoch FROM now()) / 86400)::bigint"
        " - n FROM generate_series(0, 5) AS n))"
    )
    await pair.write(7_000, minutes_ago=300, site="H1")
    await pair.setup()
    assert (await pair.run("backfill")).code == 0
    kept = await pair.edge.value("SHOW max_slot_wal_keep_size")
    await limit_wal(pair, f"{WAL_KEEP_MB}MB")
    yield pair
    await limit_wal(pair, kept)


async def limit_wal(pair: Pair, limit: str) -> None:
    """Change how much the edge keeps for a slot."""
    await pair.edge.execute(f"ALTER SYSTEM SET max_slot_wal_keep_size = '{limit}'")
    await pair.edge.execute("SELECT pg_reload_conf()")


async def wal_status(pair: Pair) -> str | None:
    """What the edge says of the slot."""
    status: str | None = await pair.edge.value(
        "SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1", f"plc_{pair.name}"
    )
    return status


async def lose_slot(pair: Pair) -> None:
    """Nobody receives, WAL is written, and a checkpoint takes the slot's away."""
    await pair.remote.execute(f"ALTER SUBSCRIPTION plc_{pair.name} DISABLE")

    async def lost() -> bool:
        await pair.edge.query("SELECT pg_logical_emit_message(false, 'test', 'x')")
        await pair.edge.query("SELECT pg_switch_wal()")
        await pair.edge.execute("CHECKPOINT")
        return await wal_status(pair) == "lost"

    await pair.wait(lost, "the slot is lost")


async def write_what_is_lost(pair: Pair) -> None:
    """Rows of the last hours that the outbox has let go, then some that it still has."""
    await pair.write(3_000, minutes_ago=130, site="H2")
    await pair.edge.execute("TRUNCATE plc_outbox")
    await pair.write(1_000, minutes_ago=50, site="H3")
    await pair.write(500, minutes_ago=3 * 1440, site="H4")  # three days late


async def is_sound(pair: Pair) -> bool:
    """Whether somebody receives from the slot, and no resync is noted."""
    return bool(
        await pair.edge.value(
            "SELECT active FROM pg_replication_slots WHERE slot_name = $1", f"plc_{pair.name}"
        )
    ) and not await pair.remote.value("SELECT count(*) FROM plc_resync")


@both_flavours
async def test_a_lost_slot_costs_no_row(scarce: Pair) -> None:
    """What the outbox still has, days late or not, and what it has let go, is all there; new rows
    flow; and a second resync has nothing to do."""
    await lose_slot(scarce)
    await write_what_is_lost(scarce)
    assert await scarce.edge.checksum() != await scarce.remote.checksum()
    before = await scarce.run("resync", "--dry-run")
    assert before.code == 0
    assert "is lost" in before.output
    assert "pg_create_logical_replication_slot" in before.output
    assert await wal_status(scarce) == "lost"
    done = await scarce.run("resync")
    assert done.code == 0, done
    assert await scarce.edge.checksum() == await scarce.remote.checksum()
    await scarce.wait(lambda: is_sound(scarce), "a sound slot")
    await scarce.write(100, minutes_ago=10, site="H5")
    assert await scarce.wait_equal() == 11_600
    again = await scarce.run("resync")
    assert (again.code, "nothing to do" in again.output) == (0, True)


async def test_rows_that_come_meanwhile(scarce: Pair) -> None:
    """A writer that does not stop for it loses nothing either."""
    await lose_slot(scarce)

    async def write() -> None:
        for second in range(1000):
            await scarce.write(20, minutes_ago=40, site=f"W{second}")

    writing = asyncio.create_task(write())
    await asyncio.sleep(0.5)
    done = await scarce.run("resync")
    assert done.code == 0, done
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    assert await scarce.wait_equal() > 7_000


async def test_killed_in_the_middle_it_goes_on(scarce: Pair) -> None:
    """kill -9 after the new slot was made and before the gap was filled: that is known, and the
    next run fills it without another slot."""
    await lose_slot(scarce)
    await write_what_is_lost(scarce)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "remote",
        "--config",
        str(scarce.config),
        "resync",
        "--rows-per-second",
        "100",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )

    async def has_new_slot() -> bool:
        return await wal_status(scarce) not in (None, "lost") and bool(
            await scarce.remote.value("SELECT bool_or(subenabled) FROM pg_subscription")
        )

    await scarce.wait(has_new_slot, "a new slot")
    process.send_signal(signal.SIGKILL)
    await process.wait()
    assert await scarce.remote.value("SELECT count(*) FROM plc_resync") == 1
    assert await scarce.edge.checksum() != await scarce.remote.checksum()
    dry = await scarce.run("resync", "--dry-run", "--json")
    assert not [step for step in dry.said["steps"] if "slot" in step["what"]]
    done = await scarce.run("resync")
    assert done.code == 0, done
    assert "cut short" in done.output
    assert await scarce.edge.checksum() == await scarce.remote.checksum()
    await scarce.wait(lambda: is_sound(scarce), "a sound slot")


async def test_a_slot_that_was_dropped_on_an_edge_that_was_replaced(scarce: Pair) -> None:
    """The subscription remembers a position far ahead of the edge's: it is set back, else the edge
    would skip every row up to there."""
    name = f"plc_{scarce.name}"
    await scarce.remote.execute(f"ALTER SUBSCRIPTION {name} DISABLE")

    async def dropped() -> bool:
        idle = await scarce.edge.value(
            "SELECT NOT active FROM pg_replication_slots WHERE slot_name = $1", name
        )
        if idle:
            await scarce.edge.query("SELECT pg_drop_replication_slot($1)", name)
        return bool(idle)

    await scarce.wait(dropped, "the slot is dropped")
    await scarce.remote.execute(
        "SELECT pg_replication_origin_advance('pg_' || oid, 'FF/0') FROM pg_subscription"
    )
    await scarce.write(100, minutes_ago=30, site="H2")
    assert (await scarce.run("resync")).code == 0
    await scarce.write(100, minutes_ago=20, site="H3")
    assert await scarce.wait_equal() == 7_200


async def test_a_sound_slot(pair: Pair) -> None:
    """Nothing is to be done; --force does it all the same, and both sides stay equal."""
    await pair.setup()
    await pair.write(500, minutes_ago=30)
    await pair.wait_equal()
    slot = "SELECT restart_lsn, catalog_xmin FROM pg_replication_slots WHERE slot_name = $1"
    before = await pair.edge.query(slot, f"plc_{pair.name}")
    done = await pair.run("resync")
    assert (done.code, "nothing to do" in done.output) == (0, True)
    assert (await pair.edge.query(slot, f"plc_{pair.name}"))[0][1] == before[0][1]
    forced = await pair.run("resync", "--force", "--json")
    assert forced.code == 0, forced
    assert forced.said["steps"][-1]["what"] == "Note that it is done"
    await pair.write(100, minutes_ago=10)
    assert await pair.wait_equal() == 600


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (None, "it is not set up yet"),
        ("name", "there is no subscription plc_elsewhere"),
        ("DROP PUBLICATION plc_pub", "the outbox or its publication plc_pub is missing"),
    ],
)
async def test_what_resync_can_not_do(pair: Pair, breakage: str | None, message: str) -> None:
    """Exit code 2, and which command does it."""
    words: list[Any] = ["resync"]
    if breakage is not None:
        await pair.setup()
    if breakage == "name":
        words += ["--name", "elsewhere"]
    elif breakage is not None:
        await pair.edge.execute(breakage)
    done = await pair.run(*words)
    assert done.code == 2
    assert message in done.errors
    assert "edge-remote setup" in done.errors
