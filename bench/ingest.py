"""COPY with the outbox fed: does the edge's database keep up, and what does a row cost?

    python -m bench.ingest [--rate 25000] [--seconds 60] [--flavour postgres] [--json]

The agent's own sink writes 5 batches a second to a server with default settings (fsync on) and
`wal_level = logical`, on which `edge-remote`'s sql/edge is applied: each row goes into plc_raw and,
by the trigger, into plc_outbox, which is published. A slot holds a place in the WAL and nobody
reads it. The upkeep runs each 20 s beside it, TimescaleDB's jobs as they please. Claim: at
25,000 rows/s on two cores no backlog is left, and no batch waits for longer than a second.

CPU is the kernel's for this process while it delivers (`sink_us`, rendering included) and
for all processes of the server (`server_us`: backend, WAL writer, checkpointer, vacuum, jobs).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from array import array
from collections import deque
from pathlib import Path
from typing import Any

import asyncpg
import uvloop

from bench.databases import cluster_cpu_s, installed_flavours, machine, server, versions
from edge_agent.errors import TransientError
from edge_agent.model import Batch
from edge_agent.postgres import database, sql_files
from edge_agent.sinks.base import SAMPLES_MAX, JournalIdentity
from edge_agent.sinks.postgres import PostgresSink
from tests.acceptance.replication_writer import SCANS_PER_S, VALUE_COLUMNS, series
from tests.servers import Postgres

UPKEEP_INTERVAL_S = 20.0
WAIT_S_MAX = 1.0
SLOT = "SELECT pg_create_logical_replication_slot('plc_bench', 'pgoutput')"


class Feed:
    """Batches on time, a fifth of a second's rows each, whether or not anybody takes them."""

    def __init__(self, rate: int) -> None:
        self._series = series(rate // SCANS_PER_S)
        self._ids = array("I", self._series)
        self._columns = [
            array("d", [(tag * 7 + column) % 997 / 10 for tag in self._ids])
            for column in range(VALUE_COLUMNS)
        ]
        self.waiting: deque[tuple[float, Batch]] = deque()
        self.made = 0

    async def run(self, seconds: float) -> None:
        """Make them for so long; each carries the monotonic time at which it was due."""
        due = time.monotonic()
        end = due + seconds
        while due < end:
            self.made += 1
            batch = Batch(
                sequence=self.made,
                runs=[(time.time_ns() // 1_000_000, len(self._ids))],
                series_ids=self._ids,
                values=self._columns[self.made % VALUE_COLUMNS],
                series=self._series,
            )
            self.waiting.append((due, batch))
            due += 1 / SCANS_PER_S
            await asyncio.sleep(max(0.002, due - time.monotonic()))


async def measure(running: Postgres, dsn: str, rate: int, seconds: float) -> dict[str, Any]:
    """Feed, deliver, and look at the clock, the backlog and the CPU; figures per row."""
    sink = PostgresSink(agent_id="bench", dsn=dsn)
    await sink.open(JournalIdentity("bench", "bench"))
    feed = Feed(rate)
    count = max(1, SAMPLES_MAX // (rate // SCANS_PER_S))
    waits_s: list[float] = []
    rows = 0
    deliver_cpu_s = 0.0
    upkeep = asyncio.create_task(_keep_up(dsn))
    feeding = asyncio.create_task(feed.run(seconds))
    server_before = cluster_cpu_s(running)
    wal_before = await _value(dsn, "SELECT pg_current_wal_lsn()")
    while not feeding.done():
        batches = [feed.waiting[at] for at in range(min(count, len(feed.waiting)))]
        if not batches:
            await asyncio.sleep(0.005)
            continue
        before = time.process_time()
        await sink.deliver([batch for _, batch in batches])
        deliver_cpu_s += time.process_time() - before
        now = time.monotonic()
        for due, batch in batches:
            waits_s.append(now - due)
            rows += len(batch)
            feed.waiting.popleft()
    backlog = sum(len(batch) for _, batch in feed.waiting)
    server_cpu_s = cluster_cpu_s(running) - server_before
    wal = await _value(dsn, "SELECT pg_current_wal_lsn() - $1::pg_lsn", wal_before)
    upkeep.cancel()
    await asyncio.gather(feeding, upkeep, return_exceptions=True)
    await sink.close()
    for table in ("plc_raw", "plc_outbox"):
        assert await _value(dsn, f"SELECT count(*) FROM {table}") == rows, table
    waits_s.sort()
    return {
        "rate": rate,
        "rows": rows,
        "rows_per_s": round(rows / seconds),
        "backlog": backlog,
        "wait_median_ms": round(waits_s[len(waits_s) // 2] * 1e3),
        "wait_p99_ms": round(waits_s[int(len(waits_s) * 0.99)] * 1e3),
        "wait_max_ms": round(waits_s[-1] * 1e3),
        "sink_us": round(deliver_cpu_s / rows * 1e6, 2),
        "server_us": round(server_cpu_s / rows * 1e6, 2),
        "server_cores": round(server_cpu_s / seconds, 2),
        "wal_bytes": round(int(wal) / rows),
        "keeps_up": backlog == 0 and waits_s[-1] < WAIT_S_MAX,
    }


async def _keep_up(dsn: str) -> None:
    upkeep = database.Upkeep(agent_id="bench", dsn=dsn)
    while True:
        await asyncio.sleep(UPKEEP_INTERVAL_S)
        try:
            await upkeep.run()
        except TransientError as error:
            print(f"upkeep: {error}")


async def _value(dsn: str, sql: str, *arguments: object) -> Any:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(sql, *arguments, timeout=600)
    finally:
        await connection.close()


async def prepare(dsn: str, flavour: str) -> None:
    """The schema, and the outbox with its trigger, its publication and a slot."""
    await database.init(dsn, flavour=flavour)
    connection = await asyncpg.connect(dsn)
    try:
        for path in sorted((sql_files.folder() / "edge").glob("*.sql")):
            async with connection.transaction():
                await connection.execute(path.read_text())
            await connection.execute("RESET ROLE")
        await connection.execute(SLOT)
    finally:
        await connection.close()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rate", type=int, default=25_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--flavour", choices=installed_flavours(), default="postgres")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="edge-agent-bench-") as folder,
        server(Path(folder) / "edge", options.flavour, ["wal_level=logical"]) as running,
    ):
        uvloop.run(prepare(running.dsn(), options.flavour))
        figures = {
            "flavour": options.flavour,
            **uvloop.run(measure(running, running.dsn(), options.rate, options.seconds)),
            "server": versions(running, options.flavour),
            "machine": machine(),
        }
    if options.json:
        print(json.dumps(figures))
    else:
        for name, figure in figures.items():
            print(f"{name:16}{figure:>14}")


if __name__ == "__main__":
    main()
