"""The whole agent at a given rate: does it keep up, what does it cost, how late is the data?

Real parts: simulated PLCs in a process of their own, Mosquitto, PostgreSQL and InfluxDB with
default settings, a subscriber, and a probe that watches rows become visible. The agent runs as a
user starts it. CPU and memory are the kernel's figures for its process alone.

Claims: 5,000 samples/s at 16 us of CPU per sample and 25,000 samples/s at 12 us; 120 MB; 99 % of
the samples at a subscriber within 400 ms and visible in plc_raw within 1.5 s; nothing lost.

Usage: python -m bench.pipeline --rate 25000 --seconds 60 --json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import asyncpg

from bench.plant import Plant, Usage, make_tags

WARM_UP_S = 8.0
PROBE_TAGS = 20
PROBE_INTERVAL_S = 0.02
LOG_SHOWN = 3_000
"""Characters of the agent's log that are shown if something is missing at its end."""


class RowProbe(threading.Thread):
    """Watches some tags' newest rows and notes how old each is when it is first seen."""

    def __init__(self, plant: Plant) -> None:
        super().__init__(name="row-probe", daemon=True)
        assert plant.database is not None
        self._dsn = plant.database.dsn()
        step = max(len(plant.tags) // PROBE_TAGS, 1)
        self._tags = plant.tags[::step]
        self.stopped = threading.Event()
        self.ages_ms: list[float] = []

    def run(self) -> None:
        asyncio.run(self._watch())

    async def _watch(self) -> None:
        connection = await asyncpg.connect(self._dsn)
        statement = await connection.prepare(
            "SELECT ts FROM plc_raw WHERE site = $1 AND device = $2 AND tag = $3 "
            "AND ts > now() - interval '1 minute' ORDER BY ts DESC LIMIT 1"
        )
        seen: dict[tuple[str, str, str], Any] = {}
        while not self.stopped.is_set():
            for tag in self._tags:
                ts = await statement.fetchval(*tag.key)
                if ts is not None and ts != seen.get(tag.key):
                    if tag.key in seen:
                        self.ages_ms.append((time.time() - ts.timestamp()) * 1000)
                    seen[tag.key] = ts
            await asyncio.sleep(PROBE_INTERVAL_S)
        await connection.close()


def measure(rate: int, seconds: float, folder: Path) -> dict[str, Any]:
    """Run the plant and measure between two moments in its steady state."""
    with Plant(folder, make_tags(rate)) as plant:
        assert plant.broker is not None
        subscriber = subprocess.Popen(
            [sys.executable, "-m", "bench.subscriber", str(plant.broker.port), "plc/#"],
            stdout=subprocess.PIPE,
        )
        assert subscriber.stdout is not None
        try:
            subscriber.stdout.readline()
            time.sleep(WARM_UP_S)
            probe = RowProbe(plant)
            probe.start()
            before, usage_before, started = plant.status(), Usage.of(plant.pid), time.monotonic()
            assert before is not None
            time.sleep(seconds)
            usage_after, elapsed = Usage.of(plant.pid), time.monotonic() - started
            after = plant.status()
            assert after is not None
            probe.stopped.set()
            probe.join()
            exit_code = plant.stop_agent()
            rows = plant.rows()
        finally:
            subscriber.send_signal(signal.SIGTERM)
            line = subscriber.stdout.read()
            subscriber.wait(20)
            subscriber.stdout.close()
    taken = after["journal"]["taken"] - before["journal"]["taken"]
    books = journal_books(folder / "data")
    complete = rows == books["taken"] and all(
        sink["delivered"] == books["taken"] for sink in books["sinks"]
    )
    if not complete:
        print(plant.agent.log()[-LOG_SHOWN:], file=sys.stderr)
    ages = sorted(probe.ages_ms)
    return {
        "rate": rate,
        "seconds": round(elapsed, 1),
        "samples_per_s": round(taken / elapsed),
        "agent_cpu_us_per_sample": round((usage_after.cpu_s - usage_before.cpu_s) / taken * 1e6, 2),
        "agent_cpu_share_of_a_core": round((usage_after.cpu_s - usage_before.cpu_s) / elapsed, 3),
        "rss_mb_start": round(usage_before.rss_mb, 1),
        "rss_mb_end": round(usage_after.rss_mb, 1),
        "overruns": sum(row["overruns"] for row in after["connections"]),
        "bad": sum(row["bad"] for row in after["connections"]),
        "exit_code": exit_code,
        "taken_in_all": books["taken"],
        "rows_in_plc_raw": rows,
        "sinks": books["sinks"],
        "subscriber": json.loads(line),
        "row_visible_ms": {
            f"p{share}": round(ages[int(len(ages) * share / 100)]) for share in (50, 95, 99) if ages
        },
        "nothing_lost": complete,
    }


def journal_books(data_dir: Path) -> dict[str, Any]:
    """The stopped agent's own books, by its own command."""
    output = subprocess.run(
        [
            str(Path(sys.executable).with_name("edge-agent")),
            "--data-dir", str(data_dir),
            "journal", "status", "--json",
        ],
        check=True,
        capture_output=True,
    ).stdout  # fmt: skip
    books: dict[str, Any] = json.loads(output)
    return books


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rate", type=int, default=5_000, help="samples per second")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edge-agent-bench-") as folder:
        figures = measure(options.rate, options.seconds, Path(folder))
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:28} {value}")


if __name__ == "__main__":
    main()
