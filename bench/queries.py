"""How long the dashboard's queries take on seven days of one-minute rows.

    python -m bench.queries [--tags 3000] [--days 7] [--flavour postgres] [--runs 50] [--json]
                            [--plans]

Claims, p95 with a warm cache, from the call to Python's own numbers: the cards (60 one-minute bars
and the newest sample of every tag) under 200 ms, seven days of one device with 5 tags under 150 ms.

What is loaded, on a server with default settings:

* plc_1m of all tags for all days. *postgres*: straight into the table, minute by minute and in a
  random order of tags within each, as a rollup leaves them; the indexes are made afterwards.
  *timescale*: straight into the continuous aggregate's own hypertable, ordered within a minute as
  its refresh does; only the newest UNVACUUMED_MINUTES come from plc_raw (a row a minute and tag) by
  plc_refresh.
* What autovacuum would have seen to by then is vacuumed; the newest UNVACUUMED_MINUTES are not.
* plc_raw at 5,000 rows/s for the newest minutes, the current one included. In *timescale* the
  newest two whole minutes are not materialized: the worst moment, just before a refresh. The cards
  end where `plc_minutes_ready()` says; a device's days include those two minutes.

Devices differ from run to run, so that no run finds the pages of the one before.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import struct
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg

from bench.databases import installed_flavours, machine, server, versions
from dashboard.chart import MINUTE_STEPS_MS, step_for
from edge_agent.postgres import database
from edge_agent.postgres.sql_files import queries
from tests.servers import Postgres

TAGS_PER_DEVICE = 5
RAW_ROWS_PER_S = 5_000
RAW_MINUTES = 4
UNVACUUMED_MINUTES = 290
"""What autovacuum leaves at worst. *postgres*: 500,000 rows (autovacuum_vacuum_insert_threshold of
plc_1m), 170 minutes of 3,000 tags; *timescale*: a fifth of a day's chunk."""
LIVE_MINUTES = 2
CARD_MINUTES = 60
CARDS_BAR_MS, DEVICE_BAR_MS = 200, 150
WARM_UP_RUNS = 3
LOAD_TIMEOUT_S = 3600.0
_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)

TAGS = """
CREATE TABLE bench_tags AS
SELECT 'A1' COLLATE "C" AS site, 'L' || n % 4 AS line, 'PUMP' || lpad((n / {per})::text, 4, '0') AS
    device, 'TAG' || lpad(n::text, 5, '0') AS tag, n,
    random() AS place
FROM generate_series(0, {tags} - 1) AS n
"""
MINUTES = """
INSERT INTO {table} (
    bucket, site, line, device, tag, unit, avg_value, min_value, max_value, last_value, samples
)
SELECT minute, site, line, device, tag, 'bar', value, value - 1, value + 1, value, 100
FROM generate_series($1::timestamptz, $2::timestamptz - interval '1 minute', '1 minute') AS minute,
    LATERAL (SELECT *, random() * 100 AS value FROM bench_tags ORDER BY {order} OFFSET 0) AS t
"""
RAW = """
INSERT INTO plc_raw (ts, site, line, device, tag, value, unit)
SELECT scan + n % 1000 * interval '1 us', site, line, device, tag, random() * 100, 'bar'
FROM generate_series(
    $1::timestamptz, $2::timestamptz - interval '1 ms', $3::interval
) AS scan, LATERAL (SELECT * FROM bench_tags OFFSET 0) AS t
"""
SIZES = """
SELECT check_name, object, value FROM plc_health()
WHERE object IN ('plc_1m', 'plc_raw') AND check_name IN ('table_bytes', 'index_bytes')
"""


class Load:
    """A database filled for the benchmark; times are whole minutes."""

    def __init__(self, connection: Any, tags: int, days: int) -> None:
        self._connection = connection
        self.tags = tags
        self.last = datetime.now(UTC).replace(second=0, microsecond=0)
        self.first = self.last - timedelta(days=days)
        self._unvacuumed = self.last - timedelta(minutes=UNVACUUMED_MINUTES)

    async def run(self, flavour: str) -> None:
        """Fill it."""
        await self._execute(TAGS.format(per=TAGS_PER_DEVICE, tags=self.tags))
        await (self._timescale() if flavour == "timescale" else self._postgres())
        await self._execute("ANALYZE")
        await self._execute("CHECKPOINT")

    async def _postgres(self) -> None:
        # The rows come from us, not from a rollup of plc_raw.
        await self._execute("ALTER TABLE plc_raw DISABLE TRIGGER USER")
        indexes = await self._connection.fetch(
            "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint "
            "WHERE conrelid = 'plc_1m'::regclass AND contype = 'p'"
        )
        for name, _ in indexes:
            await self._execute(f"ALTER TABLE plc_1m DROP CONSTRAINT {name}")
        into_table = MINUTES.format(table="plc_1m", order="place")
        await self._execute(into_table, self.first, self._unvacuumed)
        for name, definition in indexes:
            await self._execute(f"ALTER TABLE plc_1m ADD CONSTRAINT {name} {definition}")
        await self._execute("VACUUM ANALYZE plc_1m")
        await self._execute(into_table, self._unvacuumed, self.last)
        days = [(self.last - timedelta(days=back) - _EPOCH).days + 10_957 for back in (0, 1)]
        await self._execute("SELECT plc_make_partitions($1::bigint[])", days)
        await self._raw(self.last - timedelta(minutes=RAW_MINUTES))

    async def _timescale(self) -> None:
        hypertable = await self._connection.fetchval(
            "SELECT format('%I.%I', materialization_hypertable_schema, "
            "materialization_hypertable_name) FROM timescaledb_information.continuous_aggregates "
            "WHERE view_name = 'plc_1m'"
        )
        into_view = MINUTES.format(table=hypertable, order="site, device, tag")
        await self._execute(into_view, self.first, self._unvacuumed)
        await self._execute("VACUUM ANALYZE")
        live = self.last - timedelta(minutes=LIVE_MINUTES)
        await self._execute(RAW, self._unvacuumed, live, timedelta(minutes=1))
        await self._execute(f"CALL plc_refresh('{self._unvacuumed}', '{live - _MICROSECOND}')")
        await self._raw(live)

    async def _raw(self, first: datetime) -> None:
        """Rows at the full rate up to half a minute after the last whole one."""
        period = timedelta(seconds=self.tags / RAW_ROWS_PER_S)
        await self._execute(RAW, first, self.last + timedelta(seconds=30), period)

    async def _execute(self, sql: str, *arguments: object) -> None:
        if arguments:
            await self._connection.fetch(sql, *arguments, timeout=LOAD_TIMEOUT_S)
        else:
            await self._connection.execute(sql, timeout=LOAD_TIMEOUT_S)


def unpack(kind: str, data: bytes) -> tuple[Any, ...]:
    """A run of int8 ("q") or float8 ("d") as PostgreSQL sends them."""
    return struct.unpack(f">{len(data) // 8}{kind}", data)


class Page:
    """What the dashboard asks, as it asks it; each call returns how many numbers it got."""

    def __init__(self, connection: Any, load: Load) -> None:
        self._connection = connection
        self._load = load
        self._device = 0
        self._devices = load.tags // TAGS_PER_DEVICE
        self._keys: tuple[list[str], list[str], list[str]] = ([], [], [])

    async def prepare(self) -> None:
        """The session."""
        await self._connection.execute(queries()["dashboard_session"])

    async def cards(self) -> int:
        """All cards: the bars, then the newest sample of every tag that has one."""
        return await self.bars() + await self.newest()

    async def bars(self) -> int:
        """The first half of `cards`; it also tells which tags there are."""
        ready = await self._connection.fetchval(queries()["minutes_ready"])
        rows = await self._connection.fetch(queries()["card_minutes"], *self.card_range(ready))
        self._keys = self.card_keys(rows)
        return sum(len(unpack("q", row[3])) + len(unpack("d", row[4])) for row in rows)

    async def newest(self) -> int:
        """The second half."""
        rows = await self._connection.fetch(
            queries()["card_latest"], *self._keys, *self.latest_range()
        )
        assert len(rows) == len(self._keys[0])
        return len(rows)

    def card_range(self, ready: datetime) -> tuple[datetime, datetime]:
        """60 minutes: the newest of those that are ready. (Loading takes some minutes.)"""
        last = min(ready, self._load.last)
        return last - timedelta(minutes=CARD_MINUTES), last

    def latest_range(self) -> tuple[datetime, datetime]:
        """From an hour ago to as far ahead as a clock may be wrong."""
        return self._load.last - timedelta(hours=1), self._load.last + timedelta(minutes=10)

    @staticmethod
    def card_keys(rows: list[Any]) -> tuple[list[str], list[str], list[str]]:
        """Site, device and tag of the cards, a column each."""
        return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]

    async def device(self) -> int:
        """The next device's days."""
        self._device = (self._device + 7) % self._devices
        rows = await self._connection.fetch(
            queries()["device_minute_steps"], *self.device_question(self._device)
        )
        return sum(len(unpack("q", row[1])) for row in rows for _ in map(_doubles, row[2:5]))

    def device_question(self, number: int) -> tuple[object, ...]:
        """All tags of a device over all days, in the steps that the page's chart has."""
        first = number * TAGS_PER_DEVICE
        tags = [f"TAG{n:05}" for n in range(first, first + TAGS_PER_DEVICE)]
        span = self._load.last - self._load.first
        step_ms = step_for(span // timedelta(milliseconds=1), MINUTE_STEPS_MS)
        step = timedelta(milliseconds=step_ms)
        return "A1", f"PUMP{number:04}", tags, self._load.first, self._load.last, step


def _doubles(data: bytes) -> tuple[Any, ...]:
    return unpack("d", data)


async def timed(call: Callable[[], Awaitable[int]], runs: int) -> dict[str, Any]:
    """Milliseconds of so many calls after a few others."""
    for _ in range(WARM_UP_RUNS):
        await call()
    times_ms = []
    for _ in range(runs):
        started = time.perf_counter()
        numbers = await call()
        times_ms.append((time.perf_counter() - started) * 1e3)
    times_ms.sort()
    return {
        "numbers": numbers,
        "median_ms": round(times_ms[len(times_ms) // 2], 1),
        "p95_ms": round(times_ms[int(len(times_ms) * 0.95)], 1),
        "max_ms": round(times_ms[-1], 1),
    }


async def plans(connection: Any, page: Page) -> dict[str, str]:
    """EXPLAIN of each query, as it is run."""
    hour = page.card_range(await connection.fetchval(queries()["minutes_ready"]))
    keys = page.card_keys(await connection.fetch(queries()["card_minutes"], *hour))
    arguments: dict[str, tuple[object, ...]] = {
        "card_minutes": hour,
        "card_latest": (*keys, *page.latest_range()),
        "device_minute_steps": page.device_question(7),
    }
    found = {}
    for name, values in arguments.items():
        lines = await connection.fetch(
            "EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) " + queries()[name], *values
        )
        found[name] = "\n".join(line[0] for line in lines)
    return found


async def measure(running: Postgres, options: argparse.Namespace) -> dict[str, Any]:
    """Load as the superuser; then ask, time and explain with no more rights than `viewer`."""
    await database.init(running.dsn(), flavour=options.flavour)
    connection = await asyncpg.connect(running.dsn(), statement_cache_size=0)
    try:
        load = Load(connection, options.tags, options.days)
        started = time.monotonic()
        await load.run(options.flavour)
        load_s = time.monotonic() - started
        await connection.execute("CREATE ROLE reader LOGIN IN ROLE viewer")
        figures = {
            "flavour": options.flavour,
            "tags": options.tags,
            "days": options.days,
            "rows_1m": await connection.fetchval("SELECT count(*) FROM plc_1m", timeout=600),
            "load_s": round(load_s),
            "sizes_mb": {
                f"{row[1]} {row[0]}": round(row[2] / 1e6) for row in await connection.fetch(SIZES)
            },
        }
    finally:
        await connection.close()
    connection = await asyncpg.connect(running.dsn("reader"), statement_cache_size=0)
    try:
        page = Page(connection, load)
        await page.prepare()
        return figures | {
            "cards": await timed(page.cards, options.runs),
            "cards_bars": await timed(page.bars, options.runs),
            "cards_newest": await timed(page.newest, options.runs),
            "device": await timed(page.device, options.runs),
            "plans": await plans(connection, page) if options.plans else {},
        }
    finally:
        await connection.close()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tags", type=int, default=3_000)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--flavour", choices=installed_flavours(), default="postgres")
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plans", action="store_true", help="EXPLAIN ANALYZE of each query")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="edge-agent-bench-") as folder,
        # No jobs and no autovacuum: the data stands still, at its worst moment.
        server(Path(folder) / "server", options.flavour, ["autovacuum=off"], jobs=False) as running,
    ):
        figures = asyncio.run(measure(running, options))
        figures |= {"server": versions(running, options.flavour), "machine": machine()}
    explained = figures.pop("plans")
    figures["met"] = (
        figures["cards"]["p95_ms"] < CARDS_BAR_MS and figures["device"]["p95_ms"] < DEVICE_BAR_MS
    )
    if options.json:
        print(json.dumps(figures))
    else:
        for name, figure in figures.items():
            print(f"{name:16}{figure}")
    for name, plan in explained.items():
        print(f"\n-- {name}\n{plan}")


if __name__ == "__main__":
    main()
