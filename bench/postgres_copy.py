"""CPU per row of the PostgreSQL sink, and of the rollup behind it, on a server of its own.

    python -m bench.postgres_copy [--rows 600000] [--tags 3000] [--json]

`agent_us` is what the agent's process spends on a row from batch to commit (the claim: at most
0.8), `render_us` the part of it that makes the bytes; `backend_us` is the server's. CPU time, not
wall time: other work on the machine disturbs it little.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from array import array
from pathlib import Path

import asyncpg
import uvloop

from edge_agent.model import Batch, Series
from edge_agent.postgres import database
from edge_agent.sinks.base import JournalIdentity
from edge_agent.sinks.copy_rows import RowRenderer
from edge_agent.sinks.postgres import PostgresSink
from tests.servers import Postgres

SCANS_PER_BATCH = 5
"""A journal entry of one second at 200 ms."""
BATCHES_PER_DELIVERY = 2


def make_batches(rows: int, tags: int) -> list[Batch]:
    """Batches of whole scans, the last one now, so that they fall into a few minutes."""
    series = {
        number: Series("A1", f"L{number % 4}", f"PUMP{number // 20:03}", f"TAG{number:05}", "bar")
        for number in range(1, tags + 1)
    }
    ids = array("I", series) * SCANS_PER_BATCH
    count = max(1, rows // len(ids))
    start_ms = time.time_ns() // 1_000_000 - count * 1000
    return [
        Batch(
            sequence=number,
            runs=[(start_ms + number * 1000 + scan * 200, tags) for scan in range(SCANS_PER_BATCH)],
            series_ids=ids,
            values=array("d", [random.uniform(-100, 100) for _ in ids]),
            series=series,
        )
        for number in range(1, count + 1)
    ]


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(dsn: str, batches: list[Batch]) -> dict[str, float]:
    """Deliver all batches, then roll them up; figures per row."""
    rows = sum(map(len, batches))
    renderer = RowRenderer()
    started = time.process_time()
    size = sum(len(renderer.render(batch)) for batch in batches)
    render_s = time.process_time() - started

    sink = PostgresSink(agent_id="bench", dsn=dsn)
    await sink.open(JournalIdentity("bench", "bench"))
    connection = await asyncpg.connect(dsn)
    backend = await connection.fetchval(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'edge-agent bench'"
    )
    await sink.deliver(batches[:1])
    backend_before, before, started = cpu_s(backend), time.process_time(), time.monotonic()
    for at in range(1, len(batches), BATCHES_PER_DELIVERY):
        await sink.deliver(batches[at : at + BATCHES_PER_DELIVERY])
    agent_s, wall_s = time.process_time() - before, time.monotonic() - started
    backend_s = cpu_s(backend) - backend_before
    await sink.close()

    minutes = await connection.fetchval("SELECT count(DISTINCT minute) FROM plc_dirty")
    started = time.monotonic()
    await database.Upkeep(agent_id="bench", dsn=dsn).run()
    upkeep_s = time.monotonic() - started
    assert await connection.fetchval("SELECT count(*) FROM plc_raw") == rows
    assert await connection.fetchval("SELECT sum(samples) FROM plc_1h") == rows
    await connection.close()
    delivered = rows - len(batches[0])
    return {
        "rows": rows,
        "bytes_per_row": size / rows,
        "render_us": render_s / rows * 1e6,
        "agent_us": agent_s / delivered * 1e6,
        "backend_us": backend_s / delivered * 1e6,
        "rows_per_s": delivered / wall_s,
        "minutes": minutes,
        "upkeep_wall_us": upkeep_s / rows * 1e6,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=600_000)
    parser.add_argument("--tags", type=int, default=3_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    batches = make_batches(arguments.rows, arguments.tags)
    with tempfile.TemporaryDirectory() as folder, Postgres(Path(folder) / "postgres") as server:
        uvloop.run(database.init(server.dsn()))
        figures = uvloop.run(measure(server.dsn(), batches))
    if arguments.json:
        print(json.dumps(figures))
    else:
        for name, figure in figures.items():
            print(f"{name:16}{figure:14,.2f}")


if __name__ == "__main__":
    main()
