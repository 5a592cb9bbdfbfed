"""What a sample costs in the InfluxDB sink: rendering alone, and all of it against a real server.

    python -m bench.influx_write [--samples 500000] [--per-request 5000] [--json]

CPU time of this process only; the server is another one. Target: 1.5 us per sample in requests of
5,000 lines. Exits 1 if it is missed.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from array import array
from functools import partial
from pathlib import Path

import uvloop

from edge_agent.model import Batch, Series
from edge_agent.sinks.base import JournalIdentity
from edge_agent.sinks.influx import InfluxSink, _Rendered, render_head
from edge_agent.sinks.per_series import PerSeries
from tests.influx_server import Influx

TARGET_US = 1.5
TAGS = 1_000
TAGS_PER_SCAN = 100  # samples that share a time, as a block of registers does
START_MS = 1_755_432_000_000


def batches(samples: int, per_request: int) -> list[Batch]:
    """Batches of one request each; values with two decimals, as scaled integers have."""
    series = {
        number + 1: Series(
            "A1", f"L{number % 4}", f"PUMP{number // 20:02}", f"PRESS{number}", "bar"
        )
        for number in range(TAGS)
    }
    draw = random.Random(1)
    runs = per_request // TAGS_PER_SCAN
    return [
        Batch(
            sequence=sequence,
            runs=[(START_MS + sequence * 1_000 + run, TAGS_PER_SCAN) for run in range(runs)],
            series_ids=array("I", [number % TAGS + 1 for number in range(runs * TAGS_PER_SCAN)]),
            values=array("d", [draw.randrange(10**6) / 100 for _ in range(runs * TAGS_PER_SCAN)]),
            series=series,
        )
        for sequence in range(samples // per_request)
    ]


def rendering_us(work: list[Batch]) -> float:
    """CPU microseconds per sample of the rendering alone."""
    heads = PerSeries(partial(render_head, "plc"))
    started = time.process_time()
    for batch in work:
        rendered = _Rendered()
        rendered.append(batch, heads.lookup(batch.series_ids, batch.series))
        b"".join(rendered.lines)
    return (time.process_time() - started) / sum(map(len, work)) * 1e6


async def delivery(work: list[Batch], server: Influx) -> tuple[float, float]:
    """CPU microseconds per sample and samples per second, one batch a request."""
    sink = InfluxSink(url=server.url, token=server.token, org=server.org, bucket=server.bucket)
    await sink.open(JournalIdentity("bench", "bench"))
    try:
        await sink.deliver(work[:1])  # connect, render the heads
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        for batch in work[1:]:
            await sink.deliver([batch])
        cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    finally:
        await sink.close()
    samples = sum(map(len, work[1:]))
    return cpu_s / samples * 1e6, samples / wall_s


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--samples", type=int, default=500_000)
    parser.add_argument("--per-request", type=int, default=5_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    work = batches(arguments.samples, arguments.per_request)
    render_us = rendering_us(work)
    with tempfile.TemporaryDirectory() as folder, Influx(Path(folder)) as server:
        total_us, per_s = uvloop.run(delivery(work, server))
        stored = server.query('SELECT count(value) FROM "plc"')[0]["count"]
    figures = {
        "samples": sum(map(len, work)),
        "per_request": arguments.per_request,
        "cpu_us_per_sample": round(total_us, 3),
        "cpu_us_per_sample_rendering": round(render_us, 3),
        "samples_per_s": round(per_s),
        "stored": stored,
        "target_us": TARGET_US,
    }
    if arguments.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:28} {value}")
    lost = stored != figures["samples"]
    return 1 if lost or total_us > TARGET_US else 0


if __name__ == "__main__":
    sys.exit(main())
